//! Fields that Git fills in at first and that others may decide afterwards.
//!
//! The API server says who decided: when somebody changes a field that we applied, our entry in
//! `managedFields` loses it. From then on the field is left out of what is applied, until nothing
//! says any more that it is to be ignored.

use plumb_core::{FieldPath, Object, Step};
use serde_json::Value;

use crate::applyset::{APPLICATION, PART_OF};
use crate::explain::child;

/// A JSON pointer, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads a pointer as RFC 6901 has it. `None` when it is none, or is about what an object is
    /// or whose.
    pub fn parse(text: &str) -> Option<Self> {
        let steps = text.strip_prefix('/')?;
        let steps: Vec<_> =
            steps.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        let ours: [&[&str]; 6] = [
            &["apiVersion"],
            &["kind"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "labels", PART_OF],
            &["metadata", "annotations", APPLICATION],
        ];
        let holds = |path: &&[&str]| steps.iter().zip(*path).all(|(a, b)| a == b);
        (!ours.iter().any(|path| holds(path) && steps.len() <= path.len())).then_some(Self(steps))
    }
}

impl Pointer {
    /// The number of replicas, which autoscalers write through the subresource `scale`.
    pub(crate) fn replicas() -> Self {
        Self(vec!["spec".into(), "replicas".into()])
    }
}

type Fits = dyn Fn(&Object) -> bool + Send + Sync;

/// Which fields of which objects others may decide.
#[derive(Default)]
pub struct Ignores(Vec<(Box<Fits>, Vec<Pointer>)>);

impl Ignores {
    /// Adds fields of the objects that fit.
    pub fn add(
        &mut self,
        fits: impl Fn(&Object) -> bool + Send + Sync + 'static,
        fields: Vec<Pointer>,
    ) {
        self.0.push((Box::new(fits), fields));
    }

    /// The fields of one object, the last of a list first, so that taking one out moves no other.
    pub(crate) fn of(&self, object: &Object) -> Vec<Pointer> {
        let fits = self.0.iter().filter(|(fits, _)| fits(object));
        let mut found: Vec<Pointer> = fits.flat_map(|(_, fields)| fields.clone()).collect();
        found.sort_by(|a, b| {
            let numbers = |p: &Pointer| -> Vec<(Option<usize>, String)> {
                p.0.iter().map(|step| (step.parse().ok(), step.clone())).collect()
            };
            numbers(b).cmp(&numbers(a))
        });
        found.dedup();
        found
    }
}

/// Takes the fields out of an object that our field set does not hold, and of fields that have more
/// below what it does not hold of that. Returns which.
pub(crate) fn leave_out(
    body: &mut Value,
    ours: Option<&Value>,
    fields: &[Pointer],
) -> Vec<FieldPath> {
    let mut left = Vec::new();
    for Pointer(steps) in fields {
        if let Some(fields) = ours.map_or(Some(None), |ours| below(ours, body, steps)) {
            let mut path = path_of(body, steps);
            take(body, steps, fields, &mut path, &mut left);
        }
    }
    left
}

/// What a field set says of a field of an object: `None` that it holds a whole that the field is part
/// of, `Some(None)` that it does not hold it.
#[expect(clippy::option_option, reason = "three answers, and the outer one ends the search")]
fn below<'f>(fields: &'f Value, body: &Value, steps: &[String]) -> Option<Option<&'f Value>> {
    let (mut fields, mut body) = (fields, body);
    for step in steps {
        if is_whole(fields) {
            return None;
        }
        let Some(next) = body_at(body, step) else { return Some(None) };
        let Some(found) = entry_of(fields, body, step) else { return Some(None) };
        (fields, body) = (found, next);
    }
    Some(Some(fields))
}

/// Takes a field out as far as a field set about it says nothing of what is in it.
fn take(
    body: &mut Value,
    steps: &[String],
    fields: Option<&Value>,
    path: &mut FieldPath,
    left: &mut Vec<FieldPath>,
) {
    let Some((last, parents)) = steps.split_last() else { return };
    let Some(parent) = parents.iter().try_fold(body, |value, step| at(value, step)) else { return };
    let Some(fields) = fields else {
        let taken = match parent {
            Value::Object(map) => map.remove(last).is_some(),
            Value::Array(items) => {
                let index = last.parse::<usize>().ok().filter(|index| *index < items.len());
                index.map(|index| items.remove(index)).is_some()
            }
            _ => false,
        };
        left.extend(taken.then(|| path.clone()));
        return;
    };
    if is_whole(fields) {
        return;
    }
    let Some(value) = at(parent, last) else { return };
    // The last of a list first, so that taking one out moves no other.
    let inner: Vec<String> = match &*value {
        Value::Object(map) => map.keys().cloned().collect(),
        Value::Array(items) => (0..items.len()).rev().map(|index| index.to_string()).collect(),
        _ => Vec::new(),
    };
    for step in inner {
        let below = entry_of(fields, value, &step);
        path.push(match &*value {
            Value::Array(_) => step.parse().map_or_else(|_| Step::Key(step.clone()), Step::Index),
            _ => Step::Key(step.clone()),
        });
        take(value, std::slice::from_ref(&step), below, path, left);
        path.pop();
    }
}

/// A pointer as people write a field.
fn path_of(body: &Value, steps: &[String]) -> FieldPath {
    let mut path = FieldPath::root();
    let mut value = Some(body);
    for step in steps {
        let index =
            value.is_some_and(Value::is_array).then(|| step.parse::<usize>().ok()).flatten();
        path.push(index.map_or_else(|| Step::Key(step.clone()), Step::Index));
        value = value.and_then(|value| match index {
            Some(index) => value.get(index),
            None => value.get(step),
        });
    }
    path
}

fn at<'v>(value: &'v mut Value, step: &str) -> Option<&'v mut Value> {
    match value {
        Value::Object(map) => map.get_mut(step),
        Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
        _ => None,
    }
}

fn body_at<'v>(value: &'v Value, step: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    }
}

/// What a field set says of one part of an object or list.
fn entry_of<'f>(fields: &'f Value, body: &Value, step: &str) -> Option<&'f Value> {
    let map = fields.as_object()?;
    if body.is_object() {
        return map.get(&format!("f:{step}"));
    }
    let index = step.parse().ok()?;
    let is_it = |key: &str| child(body, key).is_some_and(|(found, _)| found == Step::Index(index));
    map.iter().find(|(key, _)| is_it(key)).map(|(_, below)| below)
}

/// Whether a field set has nothing below, not even that the field itself is held apart from what is
/// in it.
fn is_whole(fields: &Value) -> bool {
    fields.as_object().is_none_or(serde_json::Map::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(texts: &[&str]) -> Vec<Pointer> {
        texts.iter().map(|text| Pointer::parse(text).unwrap()).collect()
    }

    #[test]
    fn what_others_took_is_left_out_and_nothing_else() {
        let body = json!({
            "metadata": {"annotations": {"a/b": "1", "c~d": "2"}},
            "spec": {
                "replicas": 2,
                "args": ["x", "y"],
                "containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}],
            },
        });
        let ours = json!({
            "f:metadata": {"f:annotations": {"f:a/b": {}}},
            "f:spec": {"f:args": {}, "f:containers": {
                r#"k:{"name":"a"}"#: {".": {}, "f:name": {}},
                r#"k:{"name":"b"}"#: {".": {}, "f:name": {}, "f:image": {}},
            }},
        });
        let left = |texts: &[&str], ours: Option<&Value>| {
            let mut body = body.clone();
            let left = leave_out(&mut body, ours, &pointers(texts));
            (left.len(), body)
        };
        let gone = |texts: &[&str]| {
            let (count, body) = left(texts, Some(&ours));
            assert_eq!(count, texts.len(), "{texts:?} {body}");
            body
        };
        assert_eq!(gone(&["/spec/replicas"])["spec"]["replicas"], Value::Null);
        let body = gone(&["/spec/containers/0/image"]);
        assert_eq!(body["spec"]["containers"][0], json!({"name": "a"}));
        assert_eq!(
            gone(&["/metadata/annotations/c~0d"])["metadata"]["annotations"],
            json!({"a/b": "1"})
        );
        for owned in ["/spec/containers/1/image", "/metadata/annotations/a~1b", "/spec/args/0"] {
            assert_eq!(left(&[owned], Some(&ours)).0, 0, "{owned}");
        }
        for absent in ["/spec/none", "/spec/containers/7/image", "/spec/replicas/x"] {
            assert_eq!(left(&[absent], Some(&ours)).0, 0, "{absent}");
        }
        let fields = ["/spec/replicas", "/metadata/annotations/c~0d"];
        let told = leave_out(&mut body.clone(), Some(&ours), &pointers(&fields));
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["spec.replicas", "metadata.annotations[\"c~d\"]"]);
        // Somebody else's object.
        assert_eq!(left(&["/spec/args/0", "/spec/replicas"], None).0, 2);
    }

    #[test]
    fn of_a_field_with_more_below_only_what_others_took_is_left_out() {
        let body = json!({
            "data": {"a": "1", "b": "2"},
            "spec": {
                "selector": {"app": "web"},
                "containers": [
                    {"name": "a", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}},
                    {"name": "b", "resources": {"limits": {"cpu": "2"}}},
                ],
            },
        });
        let ours = json!({
            "f:data": {".": {}, "f:b": {}},
            "f:spec": {"f:selector": {}, "f:containers": {
                r#"k:{"name":"a"}"#:
                    {".": {}, "f:name": {}, "f:resources": {"f:limits": {".": {}, "f:cpu": {}}}},
                r#"k:{"name":"b"}"#:
                    {".": {}, "f:name": {}, "f:resources": {"f:limits": {".": {}}}},
            }},
        });
        let told = |text: &str| {
            let mut body = body.clone();
            let left = leave_out(&mut body, Some(&ours), &pointers(&[text]));
            (left.iter().map(ToString::to_string).collect::<Vec<_>>(), body)
        };
        let (left, rest) = told("/data");
        assert_eq!((&*left, &rest["data"]), (&["data.a".to_owned()][..], &json!({"b": "2"})));
        assert!(told("/spec/selector").0.is_empty(), "held as a whole");
        assert!(told("/spec/selector/app").0.is_empty(), "a part of it");
        let (left, rest) = told("/spec/containers/0/resources");
        assert_eq!(left, ["spec.containers[0].resources.requests"]);
        let limits = json!({"limits": {"cpu": "1"}});
        assert_eq!(rest["spec"]["containers"][0]["resources"], limits);
        let (left, rest) = told("/spec/containers");
        assert_eq!(
            left,
            ["spec.containers[1].resources.limits.cpu", "spec.containers[0].resources.requests"]
        );
        assert_eq!(rest["spec"]["containers"][1]["name"], "b");
    }

    #[test]
    fn the_last_of_a_list_comes_first() {
        let mut ignores = Ignores::default();
        ignores.add(|_| true, pointers(&["/a/2", "/a/10"]));
        ignores.add(|_| true, pointers(&["/a/2", "/b"]));
        let body = json!({"kind": "A", "metadata": {"name": "a"}}).as_object().unwrap().clone();
        let place = plumb_core::Place {
            file: plumb_core::RelPath::parse("a.yaml").unwrap().into(),
            document: 0,
            line: 1,
            column: 1,
        };
        let object = Object::new(body, place, plumb_core::FieldPlaces::default()).unwrap();
        assert_eq!(ignores.of(&object), pointers(&["/b", "/a/10", "/a/2"]));
    }

    #[test]
    fn what_an_object_is_and_whose_is_not_for_others_to_decide() {
        for text in [
            "",
            "spec",
            "/kind",
            "/metadata",
            "/metadata/name",
            "/metadata/labels",
            "/metadata/labels/applyset.kubernetes.io~1part-of",
            "/metadata/annotations",
        ] {
            assert_eq!(Pointer::parse(text), None, "{text}");
        }
        assert!(Pointer::parse("/metadata/labels/app").is_some());
        assert!(Pointer::parse("/data").is_some());
    }
}
