//! Opens what SOPS encrypted while it is read from a tree, and sees to it that nothing encrypted is
//! applied. The MAC is so one of the file as it is in Git, before anything changes an object.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plumb_core::{Entry, FieldPath, Gvk, Object, Purpose, RelPath, Tree, TreeError, follow};
use plumb_sops::{Format, Keys, Options, Shape, open};
use serde_json::Value;

use crate::error::{Defect, Problems};

/// Annotations that, with the value `disabled`, have an object applied as it is.
const MARKS: [&str; 2] = ["plumb.dev/decrypt", "kustomize.toolkit.fluxcd.io/decrypt"];

/// A tree whose encrypted files can be read, where there are keys.
pub(crate) struct Unsealed<'t> {
    tree: &'t dyn Tree,
    keys: Option<&'t Keys>,
    limits: plumb_yaml::Limits,
    /// Files that were encrypted, but for those that became data of a Secret and nothing else.
    opened: RefCell<BTreeSet<RelPath>>,
}

impl<'t> Unsealed<'t> {
    pub(crate) fn new(
        tree: &'t dyn Tree,
        keys: Option<&'t Keys>,
        limits: plumb_yaml::Limits,
    ) -> Self {
        Self { tree, keys, limits, opened: RefCell::default() }
    }

    fn options(&self, keys: &'t Keys, shape: Shape) -> Options<'t> {
        Options { keys, shape, marks: &MARKS, limits: self.limits }
    }

    /// Opens what is encrypted inside Secrets, notes what cannot be applied as it is, and hides what
    /// came from files that were encrypted.
    pub(crate) fn finish(&self, objects: &mut [Object], problems: &mut Problems) {
        self.hide(objects);
        for object in objects.iter_mut().filter(|object| !is_left(object)) {
            let metadata = object.body().get("sops").and_then(Value::as_object);
            if metadata.is_some_and(|metadata| metadata.contains_key("mac"))
                && is_own(&object.gvk())
            {
                let defect = Defect::Encrypted { subject: object.key(), field: FieldPath::root() };
                problems.push(&object.place().file, Some(object.place().clone()), defect);
            } else if object.gvk() == Gvk::new("v1", "Secret") {
                self.data(object, problems);
            } else if self.keys.is_some() && object.gvk() == Gvk::new("v1", "ConfigMap") {
                exposed(object, problems);
            }
        }
    }

    /// Opens the encrypted data of a Secret.
    fn data(&self, object: &mut Object, problems: &mut Problems) {
        let Some(data) = object.body().get("data").and_then(Value::as_object) else { return };
        let mut opened = Vec::new();
        for (name, value) in data {
            let Some(text) = value.as_str() else { continue };
            // What is no base64 is for the API server to refuse.
            let compact: String = text.split_ascii_whitespace().collect();
            let Ok(content) = STANDARD.decode(compact) else { continue };
            if Format::of(name, &content).is_none() {
                continue;
            }
            let field = FieldPath::keys(["data", name.as_str()]);
            let place = object.field_place(&field);
            let (Some(keys), Ok(file)) = (self.keys, RelPath::parse(name)) else {
                let defect = Defect::Encrypted { subject: object.key(), field };
                problems.push(&place.file, Some(place.clone()), defect);
                continue;
            };
            let result = open(&Arc::new(file), &content, &self.options(keys, Shape::Text));
            match result {
                Ok(Some(content)) => opened.push((name.clone(), STANDARD.encode(content))),
                Ok(None) => {}
                Err(why) => {
                    let defect = Defect::Sealed { subject: object.key(), field, why };
                    problems.push(&place.file, Some(place.clone()), defect);
                }
            }
        }
        for (name, content) in opened {
            object.body_mut()["data"][name] = Value::String(content);
        }
    }

    /// Hides objects of files that were encrypted. What else was encrypted, a patch, can be in any.
    fn hide(&self, objects: &mut [Object]) {
        let opened = self.opened.borrow();
        if opened.is_empty() {
            return;
        }
        let mut real: BTreeMap<Arc<RelPath>, RelPath> = BTreeMap::new();
        let mut left: BTreeSet<&RelPath> = opened.iter().collect();
        let mut own = Vec::new();
        for object in objects.iter() {
            let file = &object.place().file;
            let found = real.entry(Arc::clone(file)).or_insert_with(|| {
                follow(self.tree, file).unwrap_or_else(|_| file.as_ref().clone())
            });
            left.remove(&*found);
            own.push(opened.contains(found));
        }
        let all = !left.is_empty();
        for (object, own) in objects.iter_mut().zip(own) {
            if own || all {
                object.hide();
            }
        }
    }
}

impl Tree for Unsealed<'_> {
    fn entry(&self, path: &RelPath) -> Result<Option<Entry>, TreeError> {
        self.tree.entry(path)
    }

    fn list(&self, dir: &RelPath) -> Result<Vec<(String, Entry)>, TreeError> {
        self.tree.list(dir)
    }

    fn read(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, TreeError> {
        self.read_for(path, limit, Purpose::Manifest)
    }

    fn read_for(&self, path: &RelPath, limit: u64, purpose: Purpose) -> Result<Vec<u8>, TreeError> {
        let content = self.tree.read_for(path, limit, purpose)?;
        let shape = match purpose {
            Purpose::Manifest => Shape::Lines,
            Purpose::Secret => Shape::Text,
            // What anybody may read stays closed.
            Purpose::Public => return Ok(content),
        };
        let Some(keys) = self.keys else { return Ok(content) };
        match open(&Arc::new(path.clone()), &content, &self.options(keys, shape)) {
            Ok(None) => Ok(content),
            Ok(Some(content)) => {
                if purpose == Purpose::Manifest {
                    self.opened.borrow_mut().insert(path.clone());
                }
                Ok(content)
            }
            Err(error) => Err(TreeError::Sealed {
                path: path.clone(),
                why: error.to_string(),
                hint: error.hint(),
            }),
        }
    }
}

/// Notes what is encrypted in a ConfigMap. There it cannot be opened without being told to many, and
/// as it is nobody can use it.
fn exposed(object: &Object, problems: &mut Problems) {
    let data = object.body().get("data").and_then(Value::as_object);
    for (name, value) in data.into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        if Format::of(name, text.as_bytes()).is_some() {
            let field = FieldPath::keys(["data", name.as_str()]);
            let place = object.field_place(&field);
            let defect = Defect::Exposed { subject: object.key(), field };
            problems.push(&place.file, Some(place.clone()), defect);
        }
    }
}

fn is_left(object: &Object) -> bool {
    MARKS.iter().any(|mark| {
        object.annotation(mark).is_some_and(|value| value.eq_ignore_ascii_case("disabled"))
    })
}

/// Whether a kind is one of Kubernetes itself, none of which has a field `sops`. Others may, such as
/// those of operators that decrypt on their own.
fn is_own(gvk: &Gvk) -> bool {
    !gvk.group.contains('.') || gvk.group.ends_with(".k8s.io")
}
