//! Patches of both kinds: what they are, and what they are applied to.

use std::sync::Arc;

use plumb_core::{Place, RelPath};
use plumb_yaml::Node;
use serde_json::Value;

use crate::acc::Acc;
use crate::build::read_resources;
use crate::error::{Result, invalid};
use crate::json_patch::{self, Operation};
use crate::kustomization::{Patch, PatchOptions, Selector};
use crate::load::Loader;
use crate::merge;
use crate::openapi::Schemas;
use crate::resource::Res;
use crate::selector::select;

/// The content of a patch, read.
enum Content {
    Merge(Vec<Res>),
    Json(Vec<Operation>),
}

/// Reads a text as a JSON patch, which is JSON if it starts with a bracket and YAML otherwise.
fn read_json(text: &[u8], file: &Arc<RelPath>, loader: &Loader<'_, '_>) -> Result<Vec<Operation>> {
    let value = if text.first() == Some(&b'[') {
        serde_json::from_slice(text).map_err(|error| invalid!("the patch is no JSON: {error}"))?
    } else {
        let limits = &loader.source.options.limits.file;
        plumb_yaml::read_config(text, file, limits)?.map_or(Value::Null, |doc| doc.value)
    };
    json_patch::decode(&value)
}

fn read(
    text: &[u8],
    file: &Arc<RelPath>,
    loader: &Loader<'_, '_>,
    options: &PatchOptions,
) -> Result<Content> {
    match read_resources(text, file, loader.source) {
        Ok(mut patches) => {
            for patch in &mut patches {
                patch.allow_name_change = options.allow_name_change;
                patch.allow_kind_change = options.allow_kind_change;
                if options.allow_name_change || options.allow_kind_change {
                    patch.stringify("annotations");
                }
            }
            Ok(Content::Merge(patches))
        }
        Err(merge_error) => {
            read_json(text, file, loader).map(Content::Json).map_err(|json_error| {
                // What it was meant to be is told by how it starts.
                if text.trim_ascii_start().starts_with(b"[")
                    || text.trim_ascii_start().starts_with(b"-")
                {
                    invalid!("the patch is no JSON patch: {}", json_error.problem())
                } else {
                    let error = invalid!("the patch is no object: {}", merge_error.problem());
                    match merge_error.place() {
                        Some(place) => error.at(place),
                        None => error,
                    }
                }
            })
        }
    }
}

/// Applies an entry of `patches`.
pub(crate) fn apply(
    acc: &mut Acc,
    patch: &Patch,
    loader: &Loader<'_, '_>,
    place: &Place,
    schemas: &Schemas,
) -> Result<()> {
    let place = patch.place.as_ref().unwrap_or(place);
    let result = (|| {
        let inline = patch.inline.trim();
        let (file, text) = match (inline, patch.path.as_str()) {
            ("", "") => return Err(invalid!("a patch has neither a path nor a patch")),
            ("", path) => loader.file(path)?,
            (inline, "") => (Arc::clone(&place.file), inline.as_bytes().to_vec()),
            _ => return Err(invalid!("a patch has both a path and a patch")),
        };
        let mut content = read(&text, &file, loader, &patch.options).map_err(|error| {
            // Lines of a patch inside the kustomization count from the patch.
            if inline.is_empty() { error } else { invalid!("{}", error.problem()) }
        })?;
        if let Content::Merge(patches) = &mut content
            && !inline.is_empty()
        {
            for patch in patches {
                patch.place = place.clone();
            }
        }
        match content {
            Content::Merge(patches) => merge_all(acc, &patches, patch.target.as_ref(), schemas),
            Content::Json(operations) => {
                let target =
                    patch.target.as_ref().ok_or_else(|| invalid!("a JSON patch needs a target"))?;
                json(acc, &operations, target, true, schemas)
            }
        }
    })();
    result.map_err(|error| error.at(place))
}

fn merge_all(
    acc: &mut Acc,
    patches: &[Res],
    target: Option<&Selector>,
    schemas: &Schemas,
) -> Result<()> {
    if let Some(target) = target {
        let [patch] = patches else {
            if patches.is_empty() {
                return Ok(());
            }
            return Err(invalid!("a patch with a target must be one document"));
        };
        for at in select(acc, target, schemas)? {
            merge_selected(acc, at, patch, schemas)?;
        }
        acc.drop_empty();
        return Ok(());
    }
    for patch in patches {
        let id = patch.original_id(schemas);
        let at = acc.the(&id, schemas)?;
        merge_one(&mut acc.items[at], patch.clone(), schemas)?;
        if patch.allow_name_change || patch.allow_kind_change {
            acc.changed();
        }
    }
    Ok(())
}

/// Merges a patch that was not found by its own identity: it takes the group and version of what
/// it is merged into.
fn merge_selected(acc: &mut Acc, at: usize, patch: &Res, schemas: &Schemas) -> Result<()> {
    let mut patch = patch.clone();
    patch.stringify("labels");
    patch.stringify("annotations");
    let (name, namespace) = (patch.name().to_owned(), patch.namespace().to_owned());
    patch.set_metadata("name", &name);
    patch.set_metadata("namespace", &namespace);
    let api_version = acc.items[at].api_version().to_owned();
    patch.set_top("apiVersion", &api_version);
    let renames = patch.allow_name_change || patch.allow_kind_change;
    merge_one(&mut acc.items[at], patch, schemas)?;
    if renames {
        acc.changed();
    }
    Ok(())
}

fn merge_one(res: &mut Res, patch: Res, schemas: &Schemas) -> Result<()> {
    let label = res.label();
    let (name, namespace) = (res.name().to_owned(), res.namespace().to_owned());
    let kind = res.kind().to_owned();
    if patch.allow_name_change || patch.allow_kind_change {
        res.store_id(schemas);
    }
    let node = std::mem::replace(&mut res.node, Node::map());
    // The reference puts the patch in the place of a copy of the object.
    let kept = (patch.text(&[merge::DIRECTIVE]) == merge::REPLACE).then(|| node.clone());
    let merged = merge::merge(Some(node), Some(patch.node), schemas)
        .map_err(|error| error.on(|| label).at(&patch.place))?;
    res.node = match kept.or(merged) {
        Some(merged) if !merged.is_empty() => merged,
        // Deleted; the next step drops it.
        _ => return Ok(()),
    };
    if !patch.allow_kind_change {
        res.set_top("kind", &kind);
    }
    if !patch.allow_name_change {
        res.set_metadata("name", &name);
    }
    res.set_metadata("namespace", &namespace);
    Ok(())
}

/// Applies a JSON patch to what a selector selects.
fn json(
    acc: &mut Acc,
    operations: &[Operation],
    target: &Selector,
    store_ids: bool,
    schemas: &Schemas,
) -> Result<()> {
    let selected = select(acc, target, schemas)?;
    for at in selected {
        let res = &mut acc.items[at];
        if store_ids {
            res.store_id(schemas);
        }
        let label = res.label();
        let mut value = res
            .node
            .to_value()
            .map_err(|problem| invalid!("{problem}").on(|| label.clone()).at(&res.place))?;
        json_patch::apply(&mut value, operations).map_err(|error| error.on(|| label))?;
        res.node = Node::from_value(&value);
        res.stringify("annotations");
    }
    acc.changed();
    Ok(())
}

/// Applies `patchesStrategicMerge`: each entry is a patch itself or a file.
pub(crate) fn strategic_merge(
    acc: &mut Acc,
    entries: &[String],
    loader: &Loader<'_, '_>,
    place: &Place,
    schemas: &Schemas,
) -> Result<()> {
    let mut patches = Vec::new();
    for entry in entries {
        match read_resources(entry.as_bytes(), &place.file, loader.source) {
            Ok(inline) => patches.extend(inline),
            Err(error) if entry.contains('\n') => {
                return Err(invalid!("{}", error.problem()).at(place));
            }
            Err(_) => {
                let (file, text) = loader.file(entry).map_err(|error| error.at(place))?;
                patches.extend(read_resources(&text, &file, loader.source)?);
            }
        }
    }
    if patches.is_empty() {
        return Err(invalid!("the patches of patchesStrategicMerge are empty").at(place));
    }
    for patch in &patches {
        let id = patch.original_id(schemas);
        let at = acc.the(&id, schemas).map_err(|error| error.at(&patch.place))?;
        merge_selected(acc, at, patch, schemas)?;
        acc.drop_empty();
    }
    Ok(())
}

/// Applies an entry of `patchesJson6902`.
pub(crate) fn json6902(
    acc: &mut Acc,
    patch: &Patch,
    loader: &Loader<'_, '_>,
    place: &Place,
    schemas: &Schemas,
) -> Result<()> {
    let place = patch.place.as_ref().unwrap_or(place);
    let result = (|| {
        let Some(target) = patch.target.as_ref().filter(|target| !target.name.is_empty()) else {
            return Err(invalid!("a patch of patchesJson6902 needs a target with a name"));
        };
        let (file, text) = match (patch.inline.as_str(), patch.path.as_str()) {
            ("", "") => return Err(invalid!("a patch has neither a path nor a patch")),
            ("", path) => loader.file(path)?,
            (inline, "") => (Arc::clone(&place.file), inline.as_bytes().to_vec()),
            _ => return Err(invalid!("a patch has both a path and a patch")),
        };
        let operations = read_json(&text, &file, loader)
            .map_err(|error| invalid!("the patch is no JSON patch: {}", error.problem()))?;
        if operations.is_empty() {
            return Err(invalid!("the patch is empty"));
        }
        json(acc, &operations, target, false, schemas)
    })();
    result.map_err(|error| error.at(place))
}
