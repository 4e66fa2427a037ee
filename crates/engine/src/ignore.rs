//! Fields that Git fills in at first and that others may decide afterwards.
//!
//! The API server says who decided: when somebody changes a field that we applied, our entry in
//! `managedFields` loses it. From then on the field is left out of what is applied, until nothing
//! says any more that it is to be ignored.

use plumb_core::{FieldPath, Object, Step};
use serde_json::Value;

use crate::applyset::{APPLICATION, PART_OF};
use crate::explain::{child, is_leaf};

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

/// Takes the fields out of an object that our field set does not hold. Returns which.
pub(crate) fn leave_out(
    body: &mut Value,
    ours: Option<&Value>,
    fields: &[Pointer],
) -> Vec<FieldPath> {
    let mut left = Vec::new();
    for Pointer(steps) in fields {
        let Some((last, parents)) = steps.split_last() else { continue };
        if ours.is_some_and(|ours| holds(ours, body, steps)) {
            continue;
        }
        let field = path_of(body, steps);
        let parent = parents.iter().try_fold(&mut *body, |value, step| at(value, step));
        let taken = match parent {
            Some(Value::Object(map)) => map.remove(last).is_some(),
            Some(Value::Array(items)) => match last.parse::<usize>() {
                Ok(index) if index < items.len() => {
                    items.remove(index);
                    true
                }
                _ => false,
            },
            _ => false,
        };
        left.extend(taken.then_some(field));
    }
    left
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

/// Whether a field set holds a field of an object, or a whole that the field is part of.
fn holds(fields: &Value, body: &Value, steps: &[String]) -> bool {
    let Some((step, rest)) = steps.split_first() else { return true };
    if is_leaf(fields) {
        return true;
    }
    let Some(map) = fields.as_object() else { return false };
    let below = match body {
        Value::Object(_) => map.get(&format!("f:{step}")).zip(body.get(step)),
        Value::Array(items) => step.parse::<usize>().ok().and_then(|index| {
            let mine = map.iter().find(|(key, _)| {
                child(body, key).is_some_and(|(found, _)| found == Step::Index(index))
            });
            mine.map(|(_, below)| below).zip(items.get(index))
        }),
        _ => None,
    };
    below.is_some_and(|(fields, body)| holds(fields, body, rest))
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
        for owned in
            ["/spec/containers/1/image", "/metadata/annotations/a~1b", "/spec/args/0", "/spec"]
        {
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
