//! Reads files of plain manifests.

use std::collections::HashMap;
use std::sync::Arc;

use plumb_core::{Object, ObjectKey, Recorder, RelPath, Tree as _, is_lfs_pointer};
use plumb_yaml::{Document, YamlErrors};
use serde_json::Value;

use crate::error::Problems;
use crate::walk::{Item, ask};
use crate::{Defect, RenderError, RenderOptions};

/// The objects of files, read one after the other.
pub(crate) struct Plain<'r> {
    tree: &'r Recorder<'r>,
    options: &'r RenderOptions,
    interrupted: &'r dyn Fn() -> bool,
    root: &'r RelPath,
    objects: Vec<Object>,
    /// Where each object is among `objects`.
    keys: HashMap<ObjectKey, usize>,
    problems: Problems,
    bytes: u64,
}

impl<'r> Plain<'r> {
    pub(crate) fn new(
        tree: &'r Recorder<'r>,
        options: &'r RenderOptions,
        interrupted: &'r dyn Fn() -> bool,
        root: &'r RelPath,
        problems: Problems,
    ) -> Self {
        let (objects, keys) = (Vec::new(), HashMap::new());
        Self { tree, options, interrupted, root, objects, keys, problems, bytes: 0 }
    }

    /// Reads the files among `items`. Every bad one is named.
    pub(crate) fn run(mut self, items: &[Item]) -> Result<Vec<Object>, RenderError> {
        for item in items {
            if let Item::File { path, real } = item {
                self.file(path, real)?;
            }
        }
        self.problems.none()?;
        Ok(self.objects)
    }

    /// Reads the objects of one file.
    fn file(&mut self, path: &RelPath, real: &RelPath) -> Result<(), RenderError> {
        ask(self.interrupted)?;
        let limits = &self.options.limits;
        let file = Arc::new(path.clone());
        let text = match self.tree.read(real, limits.file.bytes as u64) {
            Ok(text) => text,
            Err(error) => return self.problems.unusable(path, error),
        };
        self.bytes += text.len() as u64;
        if self.bytes > limits.bytes {
            return Err(self.too_much("bytes", limits.bytes));
        }
        if is_lfs_pointer(&text) {
            self.problems.push(&file, None, Defect::LfsPointer);
            return Ok(());
        }
        let documents = match plumb_yaml::read(&text, &file, &limits.file) {
            Ok(documents) => documents,
            Err(YamlErrors { problems, omitted, sound }) => {
                self.problems.omitted += omitted;
                for problem in problems {
                    let defect = Defect::Yaml(problem.problem);
                    self.problems.push(&file, Some(problem.place), defect);
                }
                sound
            }
        };
        for document in documents {
            self.object(&file, document);
        }
        if self.objects.len() > limits.objects {
            return Err(self.too_much("objects", limits.objects as u64));
        }
        Ok(())
    }

    fn object(&mut self, file: &Arc<RelPath>, document: Document) {
        // Documents are maps; anything else was a problem already.
        let Value::Object(body) = document.value else {
            return;
        };
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        let subject = match text("kind") {
            "" => "object".to_owned(),
            kind => kind.to_owned(),
        };
        let unversioned = text("apiVersion").is_empty();
        let metadata = body.get("metadata");
        let generated = metadata.is_some_and(|metadata| metadata.get("generateName").is_some());
        let place = document.place;
        let object = match Object::new(body, place.clone(), document.fields) {
            // Kustomize lets this pass, but no API server takes it.
            Ok(_) if unversioned => Err("no apiVersion".to_owned()),
            made => made,
        };
        let defect = match object {
            Ok(object) => {
                let key = object.key();
                let Some(first) = self.keys.get(&key) else {
                    self.keys.insert(key, self.objects.len());
                    self.objects.push(object);
                    return;
                };
                let first = self.objects[*first].place().clone();
                Defect::Duplicate { key, first }
            }
            Err(missing) => Defect::NotAnObject {
                subject,
                generated: generated && missing == "no metadata.name",
                missing,
            },
        };
        self.problems.push(file, Some(place), defect);
    }

    fn too_much(&self, what: &'static str, limit: u64) -> RenderError {
        RenderError::TooMuch { path: self.root.clone(), what, limit }
    }
}
