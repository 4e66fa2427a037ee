//! Paths to fields in objects of some kinds, and walking them.

use plumb_yaml::{LineMark, Node, Scalar, ScalarTag, Style};
use serde_json::Value;

use crate::decode::{At, Decode, Fields};
use crate::error::{Result, invalid};
use crate::resid::Gvk;

/// A path in objects of the kinds that `gvk` selects; its empty parts select all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSpec {
    pub(crate) gvk: Gvk,
    pub(crate) path: String,
    pub(crate) create: bool,
    pub(crate) steps: Vec<Step>,
}

/// One name of a path; `name[]` must be a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    name: String,
    list: bool,
    /// Whether the name stands for a place in a list, so that no map has it.
    position: bool,
}

impl Step {
    fn new(name: String) -> Self {
        let (name, list) = match name.strip_suffix("[]") {
            Some(name) => (name.to_owned(), true),
            None => (name, false),
        };
        let position = matches!(name.as_str(), "*" | "-")
            || name.parse::<i64>().is_ok()
            || name.starts_with('[') && name.ends_with(']');
        Self { name, list, position }
    }
}

impl FieldSpec {
    pub(crate) fn new(gvk: Gvk, path: &str, create: bool) -> Self {
        let steps = split(path, '/').into_iter().map(Step::new).collect();
        Self { gvk, path: path.to_owned(), create, steps }
    }

    /// Whether setting the field may change what an object is or is called.
    pub(crate) fn identifies(&self) -> bool {
        let mut names = self.steps.iter().map(|step| step.name.as_str());
        match (names.next(), names.next()) {
            (Some("kind" | "apiVersion"), _) | (Some("metadata"), None) => true,
            (Some("metadata"), Some(name)) => matches!(name, "name" | "namespace"),
            _ => false,
        }
    }

    pub(crate) fn selects(&self, gvk: &Gvk) -> bool {
        self.gvk.selects(gvk)
    }
}

/// Names of a path, which are walked by calls inside each other. No file has as many levels.
const LEVELS: usize = 250;

impl Decode for FieldSpec {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        let mut f = Fields::new(at, value)?;
        let gvk =
            Gvk { group: f.take("group")?, version: f.take("version")?, kind: f.take("kind")? };
        let path: String = f.take("path")?;
        if path.split('/').count() > LEVELS {
            return Err(invalid!("a path has more than {LEVELS} names").at(at.place));
        }
        let create = f.take("create")?;
        f.finish()?;
        Ok(Self::new(gvk, &path, create))
    }
}

/// Splits a path; a delimiter behind a backslash belongs to the name.
pub(crate) fn split(path: &str, delimiter: char) -> Vec<String> {
    let mut parts: Vec<&str> = path.split(delimiter).collect();
    if parts.len() > 1 && parts[0].is_empty() {
        parts.remove(0);
    }
    let mut names: Vec<String> = Vec::with_capacity(parts.len());
    for part in parts {
        match names.last_mut() {
            Some(last) if last.ends_with('\\') => {
                last.pop();
                last.push(delimiter);
                last.push_str(part);
            }
            _ => names.push(part.to_owned()),
        }
    }
    names
}

/// Splits a path at dots, but not inside brackets: `a.[b.c/d].e`, `a.[name=x.y].b`.
pub(crate) fn split_dotted(path: &str) -> Vec<String> {
    let mut parts = split(path, '.').into_iter();
    let mut names = Vec::new();
    while let Some(part) = parts.next() {
        if !part.starts_with('[') || part.ends_with(']') {
            names.push(part);
            continue;
        }
        let mut joined = part;
        for part in parts.by_ref() {
            joined.push('.');
            joined.push_str(&part);
            if part.ends_with(']') {
                break;
            }
        }
        if joined.contains('=') {
            names.push(joined);
        } else {
            names.push(joined.trim_matches(['[', ']']).to_owned());
        }
    }
    names
}

/// What is made where a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Create {
    Nothing,
    Map,
    Scalar(ScalarTag),
}

/// Calls `set` with each field at a path. Lists on the way are walked through.
pub(crate) fn walk(
    node: &mut Node,
    spec: &FieldSpec,
    create: Create,
    set: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<()> {
    let create = if spec.create { create } else { Create::Nothing };
    step(node, &spec.steps, create, set).map_err(|error| match error.place() {
        Some(_) => error,
        None => error.part_of(&format!("field {}", spec.path)),
    })
}

fn step(
    node: &mut Node,
    steps: &[Step],
    create: Create,
    set: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<()> {
    let Some((first, rest)) = steps.split_first() else {
        return set(node);
    };
    if node.is_null() {
        return Ok(());
    }
    let map = match node {
        Node::List(items) => {
            return items.iter_mut().try_for_each(|item| step(item, steps, create, set));
        }
        Node::Scalar(_) => {
            return Err(invalid!("there is a scalar where it leads to {:?}", first.name));
        }
        Node::Map(map) => map,
    };
    if first.name.is_empty() {
        return Err(invalid!("a path has an empty name"));
    }
    if first.position {
        return Err(invalid!("{:?} in a path is for lists, but there is a map", first.name));
    }
    let made = match create {
        Create::Nothing if first.list => None,
        Create::Nothing => {
            return map.get_mut(&first.name).map_or(Ok(()), |next| step(next, rest, create, set));
        }
        _ if first.list => None,
        Create::Scalar(tag) if rest.is_empty() => Some(Node::Scalar(Scalar::new("", tag))),
        _ => Some(Node::map()),
    };
    match made {
        // A name with brackets is never made, but null there becomes an empty list.
        None => {
            let Some(next) = map.get_mut(&first.name) else {
                return Ok(());
            };
            if next.is_null() {
                *next = Node::List(Vec::new());
            }
            step(next, rest, create, set)
        }
        Some(made) => {
            let next = map.get_or_insert_with(&first.name, || match &made {
                Node::Scalar(_) => Node::Scalar(Scalar::plain("")),
                made => made.clone(),
            });
            if next.is_null() {
                *next = made;
            }
            step(next, rest, create, set)
        }
    }
}

/// Replaces a scalar by one that comes from a place, keeping its quotes. A value that is there
/// already stays where it comes from.
pub(crate) fn set_scalar(
    node: &mut Node,
    text: &str,
    tag: ScalarTag,
    mark: LineMark,
) -> Result<()> {
    match node {
        Node::Scalar(old) => {
            let style = old.style;
            replace(old, Scalar { style, ..Scalar::new(text, tag).marked(mark) });
            Ok(())
        }
        Node::Map(_) => Err(invalid!("expected a scalar, found a map")),
        Node::List(_) => Err(invalid!("expected a scalar, found a list")),
    }
}

fn replace(old: &mut Scalar, new: Scalar) {
    let mark = if new.says(old) { old.mark } else { new.mark };
    *old = new.marked(mark);
}

/// Sets a field of a map to a scalar; a scalar that is there keeps its quotes.
pub(crate) fn set_field(
    node: &mut Node,
    key: &str,
    text: &str,
    tag: ScalarTag,
    mark: LineMark,
) -> Result<()> {
    if node.is_null() {
        return Ok(());
    }
    let Some(map) = node.as_map_mut() else {
        return Err(invalid!("expected a map"));
    };
    let mut new = Scalar::new(text, tag).marked(mark);
    match map.get_mut(key) {
        Some(Node::Scalar(old)) => {
            new.style = old.style;
            replace(old, new);
        }
        Some(old) => *old = Node::Scalar(new),
        None => {
            new.style = Style::quoted(new.is_text() && new.reads_as_other());
            map.insert(key, Node::Scalar(new));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_list_is_no_field_of_a_map() {
        for path in ["data/*", "data/-", "data/0", "data/[a=b]"] {
            let mut node = Node::from_value(&serde_json::json!({ "data": { "a": "b" } }));
            let spec = FieldSpec::new(Gvk::default(), path, false);
            let error = walk(&mut node, &spec, Create::Nothing, &mut |_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("is for lists"), "{error}");
            // Where nothing leads to it, nothing is wrong.
            let mut node = Node::map();
            assert!(walk(&mut node, &spec, Create::Nothing, &mut |_| Ok(())).is_ok());
        }
    }

    #[test]
    fn paths_split() {
        assert_eq!(split("a/b\\/c/d", '/'), ["a", "b/c", "d"]);
        assert_eq!(split("/a/b", '/'), ["a", "b"]);
        assert_eq!(
            split_dotted("a.[name=x.y].b.[c.d/e].0"),
            ["a", "[name=x.y]", "b", "c.d/e", "0"]
        );
    }
}
