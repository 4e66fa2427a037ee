//! JSON patches (RFC 6902) with the reference's habits: `replace` adds what is not there, and
//! negative indices count from the end.

use plumb_core::{FieldHash, FieldPlaces};
use plumb_yaml::{Map, Marking, Node, ScalarTag};
use serde_json::{Number, Value};

use crate::budget::Budget;
use crate::error::{Result, invalid};
use crate::origins::mark_read;

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    kind: String,
    path: Option<String>,
    from: Option<String>,
    value: Node,
}

/// Reads operations from the value of a patch, with the places of what is in it.
pub(crate) fn decode(
    value: &Value,
    places: &FieldPlaces,
    marking: Marking,
) -> Result<Vec<Operation>> {
    let items = value.as_array().ok_or_else(|| invalid!("a JSON patch is a list"))?;
    items
        .iter()
        .enumerate()
        .map(|(i, item)| {
            let map = item.as_object().ok_or_else(|| invalid!("an operation is a map"))?;
            let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
            let mut value = Node::from_value(map.get("value").unwrap_or(&Value::Null));
            let path = FieldHash::root().index(i);
            let around = places.find(path).map_or(1, |place| place.line);
            let around = marking.mark(around);
            mark_read(&mut value, path.key("value"), places, marking, around);
            Ok(Operation {
                kind: text("op").unwrap_or_default(),
                path: text("path"),
                from: text("from"),
                value,
            })
        })
        .collect()
}

/// Applies operations, one after the other.
pub(crate) fn apply(
    document: &mut Node,
    operations: &[Operation],
    budget: &Budget<'_>,
) -> Result<()> {
    for operation in operations {
        budget.ask()?;
        one(document, operation, budget)?;
    }
    round(document);
    Ok(())
}

fn one(document: &mut Node, operation: &Operation, budget: &Budget<'_>) -> Result<()> {
    let path =
        operation.path.as_deref().ok_or_else(|| invalid!("a JSON patch operation has no path"))?;
    // What is put at a path is as many levels below the root as the path has names.
    let room = |value: &Node| budget.spend_node(value, path.matches('/').count());
    let missing = || invalid!("{} of {path:?}: there is nothing at this path", operation.kind);
    match operation.kind.as_str() {
        "add" => {
            room(&operation.value)?;
            add(document, path, operation.value.clone())
        }
        "remove" => take(document, path).map(drop),
        "replace" => {
            room(&operation.value)?;
            let (container, key) = find(document, path)?;
            match container {
                Node::Map(map) => put(map, key, operation.value.clone()),
                Node::List(items) => {
                    let at = index(&key, items.len()).filter(|at| *at < items.len());
                    let old = &mut items[at.ok_or_else(missing)?];
                    let mut value = operation.value.clone();
                    value.keep_marks(old);
                    *old = value;
                }
                Node::Scalar(_) => return Err(missing()),
            }
            Ok(())
        }
        "move" => {
            let from = operation.from.as_deref().ok_or_else(|| invalid!("move has no from"))?;
            let value = take(document, from)?;
            room(&value)?;
            add(document, path, value)
        }
        "copy" => {
            let from = operation.from.as_deref().ok_or_else(|| invalid!("copy has no from"))?;
            let value = get(document, from)?;
            value.map_or(Ok(()), room)?;
            let value = value.cloned().unwrap_or_else(null);
            add(document, path, value)
        }
        "test" => {
            let found = get(document, path)?.map_or(Ok(Value::Null), Node::to_value);
            let value = operation.value.to_value();
            if found.is_ok_and(|found| value.is_ok_and(|value| same(&found, &value))) {
                Ok(())
            } else {
                Err(invalid!("test of {path:?} failed"))
            }
        }
        other => Err(invalid!("{other:?} is no JSON patch operation")
            .hinting("it is add, remove, replace, move, copy or test")),
    }
}

fn put(map: &mut Map, key: String, mut value: Node) {
    if let Some(old) = map.get(&key) {
        value.keep_marks(old);
    }
    map.insert(key, value);
}

fn null() -> Node {
    Node::from_value(&Value::Null)
}

/// Whether two values are equal, `1` and `1.0` too.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// The container of what a path names, and the last key.
fn find<'v>(document: &'v mut Node, path: &str) -> Result<(&'v mut Node, String)> {
    let rest = path
        .split_once('/')
        .ok_or_else(|| invalid!("path {path:?} leads nowhere: it does not start with /"))?
        .1;
    let (parents, key) = match rest.rsplit_once('/') {
        Some((parents, key)) => (Some(parents), key),
        None => (None, rest),
    };
    let nothing = |parent: &str| invalid!("path {path:?} leads nowhere: there is no {parent}");
    let mut at = document;
    let mut so_far = String::new();
    for segment in parents.into_iter().flat_map(|parents| parents.split('/')) {
        so_far.push('/');
        so_far.push_str(segment);
        let segment = unescape(segment);
        at = match at {
            Node::Map(map) => map.get_mut(&segment),
            Node::List(items) => {
                let at = index(&segment, items.len());
                at.and_then(|at| items.get_mut(at))
            }
            Node::Scalar(_) => None,
        }
        .ok_or_else(|| nothing(&so_far))?;
    }
    if matches!(at, Node::Scalar(_)) {
        return Err(invalid!("path {path:?} leads nowhere: {so_far} is no map and no list"));
    }
    Ok((at, unescape(key)))
}

/// A position; negative ones count from the end.
fn index(key: &str, len: usize) -> Option<usize> {
    let at: i64 = key.parse().ok()?;
    if at >= 0 {
        return usize::try_from(at).ok();
    }
    len.checked_sub(usize::try_from(at.unsigned_abs()).ok()?)
}

fn add(document: &mut Node, path: &str, value: Node) -> Result<()> {
    let (container, key) = find(document, path)?;
    match container {
        Node::Map(map) => put(map, key, value),
        Node::List(items) if key == "-" => items.push(value),
        Node::List(items) => {
            // Counted in the list with the new item, so -1 appends.
            let at = index(&key, items.len() + 1).filter(|at| *at <= items.len());
            let at = at.ok_or_else(|| invalid!("add of {path:?}: the list is not as long"))?;
            items.insert(at, value);
        }
        Node::Scalar(_) => {}
    }
    Ok(())
}

fn take(document: &mut Node, path: &str) -> Result<Node> {
    let missing = || invalid!("remove of {path:?}: there is nothing at this path");
    let (container, key) = find(document, path)?;
    match container {
        Node::Map(map) => map.remove(&key).ok_or_else(missing),
        Node::List(items) => {
            let at = index(&key, items.len()).filter(|at| *at < items.len());
            Ok(items.remove(at.ok_or_else(missing)?))
        }
        Node::Scalar(_) => Err(missing()),
    }
}

fn get<'v>(document: &'v mut Node, path: &str) -> Result<Option<&'v Node>> {
    let (container, key) = find(document, path)?;
    Ok(match container {
        Node::Map(map) => map.get(&key),
        Node::List(items) => {
            let at = index(&key, items.len()).filter(|at| *at < items.len());
            let at = at.ok_or_else(|| invalid!("{path:?}: the list is not as long"))?;
            items.get(at)
        }
        Node::Scalar(_) => None,
    })
}

/// Gives integers that a float does not hold exactly the float's value.
fn round(node: &mut Node) {
    const EXACT: u64 = 1 << 53;
    node.each_scalar(&mut |scalar| {
        if scalar.tag != ScalarTag::Int {
            return;
        }
        let Ok(Value::Number(number)) = scalar.to_value() else { return };
        let size = number.as_u64().or(number.as_i64().map(i64::unsigned_abs));
        if size.is_some_and(|size| size > EXACT)
            && let Some(rounded) = number.as_f64()
            && let Ok(value) = rounded.to_string().parse::<Number>()
            && let Node::Scalar(rounded) = Node::from_value(&Value::Number(value))
        {
            *scalar = rounded.marked(scalar.mark);
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(document: &Value, operations: &Value) -> Result<Value> {
        let mut document = Node::from_value(document);
        let operations = decode(operations, &FieldPlaces::default(), Marking::None)?;
        apply(&mut document, &operations, &Budget::new(&crate::Limits::default(), &|| false))?;
        Ok(document.to_value().unwrap())
    }

    #[test]
    fn operations() {
        let doc = json!({"a": [1, 2], "b": {"c/d": 1}});
        let cases = [
            (
                json!([{"op": "add", "path": "/a/-", "value": 3}]),
                Some(json!({"a": [1, 2, 3], "b": {"c/d": 1}})),
            ),
            (
                json!([{"op": "add", "path": "/a/0", "value": 0}]),
                Some(json!({"a": [0, 1, 2], "b": {"c/d": 1}})),
            ),
            (json!([{"op": "remove", "path": "/a/-1"}]), Some(json!({"a": [1], "b": {"c/d": 1}}))),
            (json!([{"op": "remove", "path": "/x"}]), None),
            (
                json!([{"op": "replace", "path": "/x", "value": 1}]),
                Some(json!({"a": [1, 2], "b": {"c/d": 1}, "x": 1})),
            ),
            (json!([{"op": "add", "path": "/x/y", "value": 1}]), None),
            (
                json!([{"op": "move", "from": "/b/c~1d", "path": "/e"}]),
                Some(json!({"a": [1, 2], "b": {}, "e": 1})),
            ),
            (
                json!([{"op": "copy", "from": "/a/0", "path": "/e"}]),
                Some(json!({"a": [1, 2], "b": {"c/d": 1}, "e": 1})),
            ),
            (json!([{"op": "test", "path": "/a/1", "value": 2}]), Some(doc.clone())),
            (json!([{"op": "test", "path": "/a/1", "value": 3}]), None),
            (json!([{"op": "jump", "path": "/a"}]), None),
        ];
        for (operations, want) in cases {
            assert_eq!(patched(&doc, &operations).ok(), want, "{operations}");
        }
    }

    #[test]
    fn large_integers_lose_their_end() {
        let doc = json!({"n": 9_007_199_254_740_993u64});
        assert_eq!(patched(&doc, &json!([])).unwrap(), json!({"n": 9_007_199_254_740_992u64}));
    }
}
