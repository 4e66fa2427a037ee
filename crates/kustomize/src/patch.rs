//! Patches of both kinds: what they are, and what they are applied to.

use std::sync::Arc;

use plumb_core::{Place, RelPath};
use plumb_yaml::{Marking, Node};
use serde_json::Value;

use crate::acc::Acc;
use crate::budget::Budget;
use crate::build::read_resources;
use crate::decode::Placed;
use crate::error::{Error, Result, invalid};
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

/// The text of a patch.
struct Text {
    file: Arc<RelPath>,
    bytes: Vec<u8>,
    marking: Marking,
    /// The file's place, unless it is that of the entry.
    source: Option<Place>,
}

impl Text {
    /// Finds the text of an entry that is one itself or names a file.
    fn of(patch: &Patch, inline: &str, loader: &Loader<'_, '_>, place: &Place) -> Result<Self> {
        match (inline, patch.path.as_str()) {
            ("", "") => Err(invalid!("a patch has neither a path nor a patch")),
            ("", path) => Self::file(path, loader),
            (inline, "") => Ok(Self {
                file: Arc::clone(&place.file),
                bytes: inline.as_bytes().to_vec(),
                marking: loader.source.origins.inline(patch.inline.place_or(place), inline),
                source: None,
            }),
            _ => Err(invalid!("a patch has both a path and a patch")),
        }
    }

    fn file(path: &str, loader: &Loader<'_, '_>) -> Result<Self> {
        let (file, bytes) = loader.file(path)?;
        let marking = loader.source.origins.file(&file);
        let source = Place { file: Arc::clone(&file), document: 0, line: 1, column: 1 };
        Ok(Self { file, bytes, marking, source: Some(source) })
    }

    fn resources(&self, loader: &Loader<'_, '_>) -> Result<Vec<Res>> {
        read_resources(&self.bytes, &self.file, loader.source, self.marking)
    }

    /// Reads it as a JSON patch, which is JSON if it starts with a bracket and YAML otherwise.
    fn operations(&self, loader: &Loader<'_, '_>) -> Result<Vec<Operation>> {
        let limits = &loader.source.options.limits.file;
        let config = || plumb_yaml::read_config(&self.bytes, &self.file, limits);
        let (value, places) = if self.bytes.first() == Some(&b'[') {
            let value = serde_json::from_slice(&self.bytes).map_err(|error| json_error(&error))?;
            // Only for the lines.
            let document = loader.source.options.origins.then(config);
            let document = document.and_then(|read| read.ok().flatten());
            (value, document.map(|document| document.fields))
        } else {
            let document = config()?;
            document.map_or((Value::Null, None), |doc| (doc.value, Some(doc.fields)))
        };
        json_patch::decode(&value, &places.unwrap_or_default(), self.marking)
    }
}

fn read(text: &Text, loader: &Loader<'_, '_>, options: &PatchOptions) -> Result<Content> {
    match text.resources(loader) {
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
            text.operations(loader).map(Content::Json).map_err(|json_error| {
                // What it was meant to be is told by how it starts.
                let start = text.bytes.trim_ascii_start();
                if start.starts_with(b"[") || start.starts_with(b"-") {
                    json_error.part_of("the patch is no JSON patch")
                } else {
                    merge_error
                        .part_of("the patch is neither an object nor a JSON patch")
                        .hinting("an object has a kind and a name, a JSON patch is a list")
                }
            })
        }
    }
}

/// What is wrong with a text that starts as JSON.
fn json_error(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    if text.starts_with("recursion limit") {
        return invalid!("maps and lists are nested more than {JSON_DEPTH} deep");
    }
    invalid!("{text}").hinting("a patch that starts with [ is JSON, not YAML")
}

/// The depth at which the JSON reader gives up.
const JSON_DEPTH: usize = 127;

/// Stands for the annotations of the reference while a patch clears annotations.
const KNOWN: &str = "internal.config.kubernetes.io/previousNames";

/// Applies an entry of `patches`. Gives the place of the file that it names.
pub(crate) fn apply(
    acc: &mut Acc,
    patch: &Patch,
    loader: &Loader<'_, '_>,
    place: &Place,
    schemas: &Schemas,
) -> Result<Option<Place>> {
    let result = (|| -> Result<_> {
        let inline = patch.inline.trim();
        let text = Text::of(patch, inline, loader, place)?;
        let mut content = read(&text, loader, &patch.options)
            .map_err(|error| if inline.is_empty() { error } else { error.in_text() })?;
        if let Content::Merge(patches) = &mut content
            && !inline.is_empty()
        {
            for patch in patches {
                patch.place = place.clone();
            }
        }
        match content {
            Content::Merge(patches) => {
                let cost = Cost { budget: &loader.source.budget, bytes: text.bytes.len() };
                merge_all(acc, &patches, patch.target.as_ref(), &cost, schemas)
            }
            Content::Json(operations) => {
                let target =
                    patch.target.as_ref().ok_or_else(|| invalid!("a JSON patch needs a target"))?;
                json(acc, &operations, target, true, &loader.source.budget, schemas)
            }
        }?;
        Ok(text.source)
    })();
    result.map_err(|error| error.at(place))
}

/// What merging a patch into one object costs.
struct Cost<'b> {
    budget: &'b Budget<'b>,
    bytes: usize,
}

fn merge_all(
    acc: &mut Acc,
    patches: &[Res],
    target: Option<&Selector>,
    cost: &Cost<'_>,
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
            cost.budget.ask()?;
            cost.budget.spend(cost.bytes)?;
            merge_selected(acc, at, patch, schemas)?;
        }
        acc.drop_empty();
        if patch.allow_name_change || patch.allow_kind_change {
            acc.check_unique(schemas)
                .map_err(|error| error.hinting("the patch gives both the same name"))?;
        }
        return Ok(());
    }
    for patch in patches {
        cost.budget.ask()?;
        let id = patch.original_id(schemas);
        let at = acc.the(&id, schemas).map_err(|error| error.at(&patch.place))?;
        acc.change(at, schemas, |res| merge_one(res, patch.clone(), schemas))?;
    }
    Ok(())
}

/// Merges a patch that was not found by its own identity: it takes the group and version of what
/// it is merged into.
fn merge_selected(acc: &mut Acc, at: usize, patch: &Res, schemas: &Schemas) -> Result<()> {
    let mut patch = patch.clone();
    patch.stringify("labels");
    patch.stringify("annotations");
    let name = patch.marked(&["metadata", "name"]);
    let namespace = patch.marked(&["metadata", "namespace"]);
    patch.set_metadata("name", &name);
    patch.set_metadata("namespace", &namespace);
    let api_version = acc.items[at].marked(&["apiVersion"]);
    patch.set_top("apiVersion", &api_version);
    acc.change(at, schemas, |res| merge_one(res, patch, schemas))
}

/// Whether a patch may take all annotations away.
fn clears_annotations(patch: &Node) -> bool {
    let clears = |node: &Node| node.is_null() || node.get(merge::DIRECTIVE).is_some();
    patch
        .get("metadata")
        .is_some_and(|metadata| clears(metadata) || metadata.get("annotations").is_some_and(clears))
}

fn merge_one(res: &mut Res, patch: Res, schemas: &Schemas) -> Result<()> {
    if !res.is_annotated() || !clears_annotations(&patch.node) {
        return merge_into(res, patch, schemas);
    }
    // The reference keeps what it knows there, and forgets it with them.
    if let Some(annotations) = res.annotations_or_new() {
        annotations.insert(KNOWN, Node::map());
    }
    merge_into(res, patch, schemas)?;
    if res.annotations_mut().and_then(|annotations| annotations.remove(KNOWN)).is_none() {
        res.forget();
    }
    res.stringify("annotations");
    Ok(())
}

fn merge_into(res: &mut Res, patch: Res, schemas: &Schemas) -> Result<()> {
    let kind = res.marked(&["kind"]);
    let name = res.marked(&["metadata", "name"]);
    let namespace = res.marked(&["metadata", "namespace"]);
    if patch.allow_name_change || patch.allow_kind_change {
        res.store_id(schemas);
    }
    let node = std::mem::replace(&mut res.node, Node::map());
    // The reference puts the patch in the place of a copy of the object.
    let kept = (patch.text(&[merge::DIRECTIVE]) == merge::REPLACE).then(|| node.clone());
    let merged = merge::merge(Some(node), Some(patch.node), schemas)
        .map_err(|error| error.on(|| format!("{} {}", kind.0, name.0)).at(&patch.place))?;
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
    budget: &Budget<'_>,
    schemas: &Schemas,
) -> Result<()> {
    let selected = select(acc, target, schemas)?;
    for at in selected {
        budget.ask()?;
        acc.change(at, schemas, |res| {
            if store_ids {
                res.store_id(schemas);
            }
            let label = res.label();
            res.node
                .respell()
                .map_err(|problem| invalid!("{problem}").on(|| label.clone()).at(&res.place))?;
            if res.is_annotated() {
                res.annotations_or_new();
            }
            json_patch::apply(&mut res.node, operations, budget)
                .map_err(|error| error.on(|| label))?;
            res.stringify("annotations");
            Ok(())
        })?;
    }
    Ok(())
}

/// Applies `patchesStrategicMerge`: each entry is a patch itself or a file. Calls `done` after each
/// patch with the place of its entry and of its file.
pub(crate) fn strategic_merge(
    acc: &mut Acc,
    entries: &[Placed<String>],
    loader: &Loader<'_, '_>,
    place: &Place,
    schemas: &Schemas,
    done: &mut dyn FnMut(&mut Acc, &Place, Option<&Place>),
) -> Result<()> {
    let mut patches: Vec<(Res, &Place, Option<Place>)> = Vec::new();
    for entry in entries {
        let at = entry.place_or(place);
        let marking = loader.source.origins.inline(at, entry);
        match read_resources(entry.as_bytes(), &place.file, loader.source, marking) {
            Ok(inline) => patches.extend(inline.into_iter().map(|patch| (patch, at, None))),
            Err(error) if entry.contains('\n') => {
                return Err(error.in_text().at(at));
            }
            Err(_) => {
                let text = Text::file(entry, loader).map_err(|error| error.at(at))?;
                let list = text.resources(loader)?.into_iter();
                patches.extend(list.map(|patch| (patch, at, text.source.clone())));
            }
        }
    }
    if patches.is_empty() {
        return Err(invalid!("the patches of patchesStrategicMerge are empty").at(place));
    }
    for (patch, place, source) in &patches {
        loader.source.ask()?;
        let id = patch.original_id(schemas);
        let at = acc.the(&id, schemas).map_err(|error| error.at(&patch.place))?;
        merge_selected(acc, at, patch, schemas)?;
        done(acc, place, source.as_ref());
        acc.drop_empty();
    }
    Ok(())
}

/// Applies an entry of `patchesJson6902`. Gives the place of the file that it names.
pub(crate) fn json6902(
    acc: &mut Acc,
    patch: &Patch,
    loader: &Loader<'_, '_>,
    place: &Place,
    schemas: &Schemas,
) -> Result<Option<Place>> {
    let result = (|| -> Result<_> {
        let Some(target) = patch.target.as_ref().filter(|target| !target.name.is_empty()) else {
            return Err(invalid!("a patch of patchesJson6902 needs a target with a name"));
        };
        let text = Text::of(patch, &patch.inline, loader, place)?;
        let operations = text
            .operations(loader)
            .map_err(|error| error.part_of("the patch is no JSON patch"))
            .map_err(|error| if text.source.is_some() { error } else { error.in_text() })?;
        if operations.is_empty() {
            return Err(invalid!("the patch is empty"));
        }
        json(acc, &operations, target, false, &loader.source.budget, schemas)?;
        Ok(text.source)
    })();
    result.map_err(|error| error.at(place))
}
