//! A desired object and where it came from.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{BuildStep, Digest, FieldHash, FieldPath, FieldPlaces, Gvk, ObjectKey, Place};

/// A Kubernetes object as desired: a JSON map with the place it was written at, the place of each
/// field, and the steps that changed it since.
///
/// Invariant: `apiVersion` (if present), `kind` and `metadata.name` are strings; [`Object::new`]
/// checks them.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    body: Value,
    place: Place,
    fields: FieldPlaces,
    steps: Vec<Arc<BuildStep>>,
    is_secret: bool,
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
        Ok(Self { body, place, fields, steps: Vec::new(), is_secret: false })
    }

    /// Notes that its content is as secret as that of a Secret, whatever its kind.
    pub fn hide(&mut self) {
        self.is_secret = true;
    }

    /// Whether nothing of its content may be told.
    pub fn is_secret(&self) -> bool {
        self.is_secret || (self.kind() == "Secret" && self.gvk().group.is_empty())
    }

    /// This object with the steps that changed it, which many objects have in common.
    #[must_use]
    pub fn with_steps(self, steps: Vec<Arc<BuildStep>>) -> Self {
        Self { steps, ..self }
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

    /// The steps that made or changed the object, in their order, if its renderer was asked for
    /// them.
    pub fn steps(&self) -> &[Arc<BuildStep>] {
        &self.steps
    }

    /// The places of the fields, without a guess for those that have none.
    pub fn fields(&self) -> &FieldPlaces {
        &self.fields
    }

    /// Where a field was written. For a map or list without a place of its own, and for a field
    /// that is not there, it is the first line of what is in it or around it.
    pub fn field_place(&self, path: &FieldPath) -> Place {
        let mut path = path.clone();
        while !path.steps().is_empty() {
            let inside = path.get(&self.body).and_then(|value| self.first(value, path.hash()));
            if let Some(place) = self.fields.get(&path).or(inside) {
                let same_file = place.file == self.place.file;
                let document = if same_file { self.place.document } else { place.document };
                return Place { document, ..place };
            }
            path.pop();
        }
        self.place.clone()
    }

    /// The first place of what is in a value, the file of the object before others.
    fn first(&self, value: &Value, path: FieldHash) -> Option<Place> {
        let inner: Vec<(FieldHash, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(key, value)| (path.key(key), value)).collect(),
            Value::Array(items) => {
                items.iter().enumerate().map(|(i, value)| (path.index(i), value)).collect()
            }
            _ => return None,
        };
        inner
            .into_iter()
            .filter_map(|(path, value)| self.fields.find(path).or_else(|| self.first(value, path)))
            .min_by_key(|place| (place.file != self.place.file, place.line))
    }

    /// Digest of the JSON.
    pub fn digest(&self) -> Digest {
        Digest::of_json(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RelPath, Step};

    fn place() -> Place {
        let file = Arc::new(RelPath::parse("a.yaml").unwrap());
        Place { file, document: 0, line: 3, column: 1 }
    }

    fn object(body: serde_json::Value) -> Result<Object, String> {
        let Value::Object(body) = body else { unreachable!() };
        let fields = [(["metadata", "name"], 5), (["spec", "replicas"], 6), (["spec", "image"], 9)];
        let fields = fields.map(|(path, line)| (FieldPath::keys(path).hash(), 0, line, 1));
        Object::new(body, place(), FieldPlaces::collect(Arc::from([place().file]), fields))
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
            "metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {"image": "x", "replicas": 1},
        }))
        .unwrap();
        assert_eq!(object.gvk(), Gvk::new("apps/v1", "Deployment"));
        assert_eq!(object.key().to_string(), "Deployment.apps web");
        assert_eq!(object.label("a"), Some("b"));
        let line = |path: &FieldPath| object.field_place(path).line;
        assert_eq!(line(&FieldPath::keys(["metadata", "name"])), 5);
        assert_eq!(line(&FieldPath::keys(["spec", "image"])), 9);
        assert_eq!(line(&FieldPath::keys(["spec", "replicas"]).join(Step::Index(0))), 6);
        assert_eq!(line(&FieldPath::keys(["spec"])), 6, "where the first of its fields is");
        assert_eq!(line(&FieldPath::keys(["spec", "strategy"])), 6, "where its map is");
        assert_eq!(line(&FieldPath::root()), 3);
        assert_eq!(object.place().to_string(), "a.yaml:3");
    }
}
