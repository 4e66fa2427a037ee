//! Finds the path and chooses what renders it.

use plumb_core::{
    Digest, Entry, EntryKind, Hasher, Inputs, Object, Recorder, RelPath, Tree, TreeError, follow,
};

use serde_json::{Map, Value};

use crate::error::Problems;
use crate::plain::Plain;
use crate::sealed::Unsealed;
use crate::substitute::substitute;
use crate::walk::{Item, Layout, Walk};
use crate::{CommonMetadata, Failure, RenderError, RenderOptions, kustomize};

/// What a path renders to.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The objects: files in the byte order of names, directory by directory, documents in the
    /// order of their file; what Kustomize builds in its order.
    pub objects: Vec<Object>,
    /// What was read.
    pub inputs: Inputs,
    /// A digest of the objects and their order, not of where they were written.
    pub digest: Digest,
}

/// Renders a directory or a file.
///
/// A directory with a kustomization is built by it. Of another one, all files named `*.yaml`,
/// `*.yml` and `*.json` are read, in sub-directories too, but for those that `.plumbignore`,
/// `.sourceignore`, the options or a few built-in patterns exclude; sub-directories with a
/// kustomization are built by that instead. If there are any, or if the options have an overlay,
/// Kustomize builds all of it, as if a kustomization listed what was found. Patterns do not hold
/// for what a kustomization names itself, but a kustomization that is excluded makes no directory
/// one for Kustomize.
///
/// Symbolic links are followed inside the tree. Submodules and sub-directories that are Helm charts
/// are passed over. All objects need a kind, an `apiVersion` and a name, and none may be there
/// twice.
///
/// `interrupted` is asked before each directory and each file; once it says yes, rendering fails
/// with [`RenderError::Interrupted`].
pub fn render(
    tree: &dyn Tree,
    path: &RelPath,
    options: &RenderOptions,
    interrupted: &dyn Fn() -> bool,
) -> Result<Rendered, Failure> {
    let unsealed = Unsealed::new(tree, options.keys.as_deref(), options.limits.file);
    let recorder = Recorder::new(&unsealed);
    let result = locate(tree, &recorder, path)
        .and_then(|found| objects(tree, &recorder, &found, options, interrupted))
        .and_then(|mut objects| {
            let mut problems = Problems::default();
            unsealed.finish(&mut objects, &mut problems);
            let limits = &options.limits.file;
            substitute(&mut objects, &options.substitution, limits, &mut problems);
            problems.none().map(|()| objects)
        });
    let inputs = recorder.finish();
    let mut objects = result.map_err(|error| Failure { error, inputs: inputs.clone() })?;
    let mut hasher = Hasher::new();
    for object in &mut objects {
        add(&options.common_metadata, object);
        hasher.part(object.digest().as_bytes());
    }
    Ok(Rendered { objects, inputs, digest: hasher.finish() })
}

/// Chooses who makes the objects of a path without links.
fn objects(
    tree: &dyn Tree,
    recorder: &Recorder<'_>,
    path: &RelPath,
    options: &RenderOptions,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<Object>, RenderError> {
    let (layout, problems) = Walk::new(tree, recorder, options, interrupted).run(path)?;
    let build = |items| kustomize::run(recorder, path, items, options, interrupted);
    let items = match layout {
        Layout::Kustomization => {
            problems.none()?;
            return build(None);
        }
        Layout::Plain(items) => items,
    };
    let plain = |problems| Plain::new(recorder, options, interrupted, path, problems).run(&items);
    let has_bases = items.iter().any(|item| matches!(item, Item::Base(_)));
    // With problems there is nothing to build, and what else is wrong is named as well.
    if !problems.is_empty() || (!has_bases && options.overlay.is_empty()) {
        return plain(problems);
    }
    match build(Some(&items)) {
        // Kustomize names the first bad file, people want to hear of all.
        Err(error @ RenderError::Invalid { .. }) => plain(Problems::default()).and(Err(error)),
        result => result,
    }
}

/// Sets labels and annotations in an object's own metadata.
fn add(common: &CommonMetadata, object: &mut Object) {
    let pairs = [("labels", &common.labels), ("annotations", &common.annotations)];
    for (field, pairs) in pairs.into_iter().filter(|(_, pairs)| !pairs.is_empty()) {
        let metadata = object.body_mut().get_mut("metadata").and_then(Value::as_object_mut);
        let Some(metadata) = metadata else { continue };
        let map = metadata.entry(field).or_insert(Value::Null);
        if map.is_null() {
            *map = Value::Object(Map::new());
        }
        // Anything but a map is left for the API server to refuse.
        if let Some(map) = map.as_object_mut() {
            map.extend(pairs.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))));
        }
    }
}

/// Follows links to the path itself.
fn locate(
    tree: &dyn Tree,
    recorder: &Recorder<'_>,
    path: &RelPath,
) -> Result<RelPath, RenderError> {
    // The look itself is not recorded where no link is on the way: recording a directory records
    // the names beside the path, which do not matter.
    match follow(tree, path) {
        Ok(found) if found == *path => {}
        Ok(_) => {
            follow(recorder, path).map_err(RenderError::Tree)?;
        }
        Err(TreeError::NotFound(_) | TreeError::WrongKind { .. }) => {
            return Err(missing(tree, recorder, path));
        }
        Err(source @ TreeError::Link { .. }) => {
            // Recorded as far as it goes.
            let _ = follow(recorder, path);
            let path = path.clone();
            return Err(RenderError::Link { path, source });
        }
        Err(error) => return Err(RenderError::Tree(error)),
    }
    let found = follow(tree, path).map_err(RenderError::Tree)?;
    match tree.entry(&found).map_err(RenderError::Tree)? {
        Some(Entry { kind: EntryKind::Submodule, .. }) => Err(missing(tree, recorder, path)),
        _ => Ok(found),
    }
}

/// Says how far a path exists, and records what would make it exist further.
fn missing(tree: &dyn Tree, recorder: &Recorder<'_>, path: &RelPath) -> RenderError {
    let mut nearest = RelPath::root();
    for segment in path.segments() {
        let next = nearest.child(segment);
        let found = follow(tree, &next);
        let entry = found.as_ref().ok().and_then(|at| tree.entry(at).ok()?);
        let direct = follow(tree, &nearest).is_ok_and(|at| at == nearest)
            && !is_kind(tree, &next, EntryKind::Symlink);
        match entry {
            Some(entry) if entry.kind != EntryKind::Submodule => {
                nearest = next;
                continue;
            }
            // Where links are on the way, each of them matters.
            _ if !direct => {
                let _ = follow(recorder, path);
            }
            _ => {
                let _ = recorder.entry(&next);
                // A file where a directory is meant may be replaced by one, or by a link to one.
                if !is_kind(tree, &nearest, EntryKind::Directory) {
                    let _ = recorder.entry(&nearest);
                }
            }
        }
        if entry.is_some() {
            return RenderError::Submodule { path: path.clone(), submodule: next };
        }
        break;
    }
    RenderError::NoSuchPath { path: path.clone(), nearest }
}

fn is_kind(tree: &dyn Tree, path: &RelPath, kind: EntryKind) -> bool {
    matches!(tree.entry(path), Ok(Some(entry)) if entry.kind == kind)
}
