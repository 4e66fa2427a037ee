//! Has Kustomize build what it is to build, and says its errors in our words.

use std::sync::Arc;

use plumb_core::{Object, Recorder, RelPath};
use plumb_kustomize::{Built, Limits, Options, Problem as Cause, build, build_resources};

use crate::error::Problems;
use crate::walk::Item;
use crate::{Defect, Problem, RenderError, RenderOptions};

/// Builds a directory with a kustomization, or, when there are items, a directory as if it had one
/// that lists them.
pub(crate) fn run(
    tree: &Recorder<'_>,
    path: &RelPath,
    items: Option<&[Item]>,
    options: &RenderOptions,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<Object>, RenderError> {
    let how = Options {
        load_restrictions: options.load_restrictions,
        reorder: options.reorder,
        // The place of an object is always known, which is enough for most messages.
        origins: false,
        overlay: options.overlay.clone(),
        limits: Limits {
            bytes: options.limits.bytes,
            objects: options.limits.objects,
            depth: options.limits.depth,
            file: options.limits.file,
            ..Limits::default()
        },
    };
    let built = match items {
        None => build(tree, path, &how, interrupted),
        Some(items) => {
            let resources: Vec<_> = items
                .iter()
                .map(|item| match item {
                    Item::File { path, .. } | Item::Base(path) => path.clone(),
                })
                .collect();
            // A single file is built where it is.
            let dir = match &resources[..] {
                [file] if file == path => path.parent().unwrap_or_default(),
                _ => path.clone(),
            };
            build_resources(tree, &dir, &resources, &how, interrupted)
        }
    };
    let Built { objects } = built.map_err(|error| said(error, path))?;
    let mut problems = Problems::default();
    for object in objects.iter().filter(|object| object.gvk().version.is_empty()) {
        let place = object.place();
        let subject = format!("{} {}", object.kind(), object.name());
        problems.push(&place.file, Some(place.clone()), Defect::Unversioned { subject });
    }
    problems.none()?;
    Ok(objects)
}

fn said(error: plumb_kustomize::Error, path: &RelPath) -> RenderError {
    let error = match error.into_store_error() {
        Ok(error) => return RenderError::Tree(error),
        Err(error) => error,
    };
    if matches!(error.cause(), Cause::Interrupted) {
        return RenderError::Interrupted;
    }
    let place = error.place().cloned();
    let file = match (&place, error.field()) {
        (Some(place), _) => Arc::clone(&place.file),
        (None, Some(field)) => Arc::new(RelPath::root().child(field)),
        (None, None) => Arc::new(error.chain().last().unwrap_or(path).clone()),
    };
    let problems = vec![Problem { file, place, defect: Defect::Kustomize(error) }];
    RenderError::Invalid { problems, omitted: 0 }
}
