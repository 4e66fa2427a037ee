//! A desired object and where it came from.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{Digest, FieldPath, Gvk, ObjectKey, RelPath};

/// A place in a file; displays as `apps/web/deploy.yaml:12`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file.
    pub file: Arc<RelPath>,
    /// The YAML document in the file, counted from zero.
    pub document: u32,
    /// The line, counted from one.
    pub line: u32,
    /// The column, counted from one.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Lines and columns of an object's fields: sixteen bytes a field beside the object, not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldPlaces(Vec<(u64, u32, u32)>);

impl FieldPlaces {
    /// Collects `(path, line, column)`.
    pub fn collect(fields: impl IntoIterator<Item = (FieldPath, u32, u32)>) -> Self {
        let mut places: Vec<_> =
            fields.into_iter().map(|(path, line, column)| (path.hash64(), line, column)).collect();
        places.sort_unstable();
        places.shrink_to_fit();
        Self(places)
    }

    /// The line and column of a field.
    pub fn get(&self, path: &FieldPath) -> Option<(u32, u32)> {
        let hash = path.hash64();
        let index = self.0.binary_search_by_key(&hash, |place| place.0).ok()?;
        Some((self.0[index].1, self.0[index].2))
    }

    /// How many fields have a place.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no field has a place.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A Kubernetes object as desired: a JSON map with the place it was written at, and the place of
/// each field.
///
/// Invariant: `apiVersion` (if present), `kind` and `metadata.name` are strings; [`Object::new`]
/// checks them.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    body: Value,
    place: Place,
    fields: FieldPlaces,
}

impl Object {
    /// Checks the shape. The error names what is missing, in words that follow "object has ".
    pub fn new(
        body: Map<String, Value>,
        place: Place,
        fields: FieldPlaces,
    ) -> Result<Self, String> {
        let body = Value::Object(body);
        let text = |path: &[&str]| FieldPath::keys(path.iter().copied()).get(&body).cloned();
        for path in [&["kind"][..], &["metadata", "name"][..]] {
            match text(path) {
                Some(Value::String(text)) if !text.is_empty() => {}
                None | Some(Value::Null | Value::String(_)) => {
                    return Err(format!("no {}", path.join(".")));
                }
                Some(_) => return Err(format!("a {} that is not a string", path.join("."))),
            }
        }
        for path in [&["apiVersion"][..], &["metadata", "namespace"][..]] {
            if !matches!(text(path), None | Some(Value::Null | Value::String(_))) {
                return Err(format!("a {} that is not a string", path.join(".")));
            }
        }
        Ok(Self { body, place, fields })
    }

    fn text(&self, path: &[&str]) -> &str {
        path.iter()
            .try_fold(&self.body, |value, key| value.get(key))
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> Gvk {
        Gvk::new(self.text(&["apiVersion"]), self.kind())
    }

    /// The kind.
    pub fn kind(&self) -> &str {
        self.text(&["kind"])
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text(&["metadata", "name"])
    }

    /// `metadata.namespace`, empty when there is none.
    pub fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"])
    }

    /// The key with the namespace as written; only discovery knows whether the kind has one.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.gvk().group_kind(), self.namespace(), self.name())
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.body.get("metadata")?.get("labels")?.get(key)?.as_str()
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.body.get("metadata")?.get("annotations")?.get(key)?.as_str()
    }

    /// The object as JSON.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// The object as JSON, to change. Kind and name must stay.
    pub fn body_mut(&mut self) -> &mut Value {
        &mut self.body
    }

    /// Takes the JSON out.
    pub fn into_body(self) -> Value {
        self.body
    }

    /// Where the object starts.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where a field was written: the nearest recorded place on the way out to the object.
    pub fn field_place(&self, path: &FieldPath) -> Place {
        let mut path = path.clone();
        loop {
            if let Some((line, column)) = self.fields.get(&path) {
                return Place { line, column, ..self.place.clone() };
            }
            if path.pop().is_none() {
                return self.place.clone();
            }
        }
    }

    /// Digest of the JSON.
    pub fn digest(&self) -> Digest {
        Digest::of_json(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Step;

    fn place() -> Place {
        let file = Arc::new(RelPath::parse("a.yaml").unwrap());
        Place { file, document: 0, line: 3, column: 1 }
    }

    fn object(body: serde_json::Value) -> Result<Object, String> {
        let Value::Object(body) = body else { unreachable!() };
        let fields =
            [(FieldPath::keys(["metadata", "name"]), 5, 9), (FieldPath::keys(["spec"]), 6, 1)];
        Object::new(body, place(), FieldPlaces::collect(fields))
    }

    #[test]
    fn refuses_objects_without_identity() {
        let cases = [
            (serde_json::json!({"metadata": {"name": "a"}}), "no kind"),
            (serde_json::json!({"kind": "A"}), "no metadata.name"),
            (
                serde_json::json!({"kind": "A", "metadata": {"generateName": "a-"}}),
                "no metadata.name",
            ),
            (
                serde_json::json!({"kind": "A", "metadata": {"name": 123}}),
                "a metadata.name that is not a string",
            ),
            (serde_json::json!({"kind": "A", "metadata": []}), "no metadata.name"),
        ];
        for (body, want) in cases {
            assert_eq!(object(body).unwrap_err(), want);
        }
    }

    #[test]
    fn knows_its_names_and_places() {
        let object = object(serde_json::json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {"replicas": 1},
        }))
        .unwrap();
        assert_eq!(object.gvk(), Gvk::new("apps/v1", "Deployment"));
        assert_eq!(object.key().to_string(), "Deployment.apps web");
        assert_eq!(object.label("a"), Some("b"));
        let line = |path: &FieldPath| object.field_place(path).line;
        assert_eq!(line(&FieldPath::keys(["metadata", "name"])), 5);
        assert_eq!(line(&FieldPath::keys(["spec", "replicas"]).join(Step::Index(0))), 6);
        assert_eq!(line(&FieldPath::root()), 3);
        assert_eq!(object.place().to_string(), "a.yaml:3");
    }
}
