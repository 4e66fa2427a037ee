//! Strategic merge, with the reference's own ideas of it.
//!
//! A patch is walked together with what it patches. Maps are merged field by field; lists are
//! replaced, or merged item by item where the type of the object says so. A field that is new is
//! merged with itself, which takes its nulls and directives out.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;

use plumb_yaml::{Map, Node, ScalarTag, Style, Text};

use crate::error::{Result, invalid};
use crate::merge_lists::set_element;
use crate::openapi::{Schemas, Shape};
use crate::shared::{self, Change};

/// The key of a directive in a patch.
pub(crate) const DIRECTIVE: &str = "$patch";
/// The directive that puts the patch in the place of what is there.
pub(crate) const REPLACE: &str = "replace";

/// Merges a patch into a node. Nothing is left when the patch deletes it.
pub(crate) fn merge(
    dest: Option<Node>,
    patch: Option<Node>,
    schemas: &Schemas,
) -> Result<Option<Node>> {
    let merger = Merger::new(schemas);
    let mut merged = merger.walk(dest, patch, None, false)?;
    if let Some(merged) = &mut merged {
        for change in merger.changes.into_inner() {
            change.spread(merged);
        }
    }
    Ok(merged)
}

/// Merges by what is known about kinds.
pub(crate) struct Merger<'s> {
    pub(crate) schemas: &'s Schemas,
    /// What was changed and is shared with other fields.
    changes: RefCell<Vec<Change>>,
    /// Whether the map at hand is one of annotations.
    annotations: Cell<bool>,
}

fn missing(node: Option<&Node>) -> bool {
    node.is_none_or(Node::is_null)
}

/// The patch, if there is one, instead of what is there.
fn instead(dest: Option<Node>, patch: Option<Node>) -> Option<Node> {
    match (dest, patch) {
        (Some(dest), Some(mut patch)) => {
            patch.keep_marks(&dest);
            Some(patch)
        }
        (dest, patch) => patch.or(dest),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(text: &str) -> Result<Directive> {
    match text {
        "merge" => Ok(Directive::Merge),
        REPLACE => Ok(Directive::Replace),
        "delete" => Ok(Directive::Delete),
        other => Err(invalid!("unknown patch directive {other:?}: it is delete, replace or merge")),
    }
}

/// Whether nothing is written where a value belongs; null that somebody spelled out stays.
fn vanishes(node: &Node) -> bool {
    matches!(node, Node::Scalar(scalar) if scalar.is_null() && scalar.text.is_empty())
}

/// Takes the directive out of a patch's map.
fn map_directive(patch: &mut Node) -> Result<Directive> {
    let Some(map) = patch.as_map_mut() else {
        return Ok(Directive::Merge);
    };
    let Some(text) = map.get(DIRECTIVE) else {
        return Ok(Directive::Merge);
    };
    let directive = directive(text.text().unwrap_or_default())?;
    map.remove(DIRECTIVE);
    Ok(directive)
}

/// Takes the directive out of a patch's list: an item that has nothing else.
fn list_directive(items: &mut Vec<Node>) -> Result<Directive> {
    let Some(at) = items.iter().position(|item| item.get(DIRECTIVE).is_some()) else {
        return Ok(Directive::Merge);
    };
    let Some(map) = items[at].as_map().filter(|map| map.len() == 1) else {
        return Ok(Directive::Merge);
    };
    let text = map.values().next().and_then(Node::text).unwrap_or_default().to_owned();
    let directive = directive(&text)?;
    set_element(items, None, &[DIRECTIVE.to_owned()], &[text]);
    Ok(directive)
}

/// The entries of two maps side by side, in the order of their keys.
fn both(old: Map, new: Map) -> impl Iterator<Item = (Text, Option<Node>, Option<Node>)> {
    let mut old = old.into_iter().peekable();
    let mut new = new.into_iter().peekable();
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let (old, new) = match order {
            Ordering::Less => (old.next(), None),
            Ordering::Equal => (old.next(), new.next()),
            Ordering::Greater => (None, new.next()),
        };
        let (name, old) = old.map_or((None, None), |(name, old)| (Some(name), Some(old)));
        let (other, new) = new.map_or((None, None), |(name, new)| (Some(name), Some(new)));
        Some((name.or(other)?, old, new))
    })
}

impl<'s> Merger<'s> {
    pub(crate) fn new(schemas: &'s Schemas) -> Self {
        Self { schemas, changes: RefCell::default(), annotations: Cell::default() }
    }

    /// Merges two nodes; `twins` says that both are the same one, a new field merged with itself.
    pub(crate) fn walk(
        &self,
        dest: Option<Node>,
        patch: Option<Node>,
        shape: Option<Shape>,
        twins: bool,
    ) -> Result<Option<Node>> {
        let shape = shape.or_else(|| self.shape_of(dest.as_ref(), patch.as_ref()));
        let first = if missing(dest.as_ref()) { patch.as_ref() } else { dest.as_ref() };
        let found = |node: Option<&Node>| match node {
            Some(Node::Map(_)) => "a map",
            Some(Node::List(_)) => "a list",
            _ => "a scalar",
        };
        if !missing(dest.as_ref())
            && !missing(patch.as_ref())
            && found(dest.as_ref()) != found(patch.as_ref())
        {
            return Err(invalid!(
                "the patch has {} where the object has {}",
                found(patch.as_ref()),
                found(dest.as_ref())
            ));
        }
        match first.filter(|node| !node.is_null()) {
            None | Some(Node::Map(_)) => self.map(dest, patch, shape.as_ref(), twins),
            Some(Node::Scalar(_)) => Ok(instead(dest, patch)),
            Some(Node::List(_)) => match shape.as_ref().and_then(Shape::keys) {
                Some(keys) => self.list(dest, patch, shape.as_ref(), &keys, twins),
                None => Ok(instead(dest, patch)),
            },
        }
    }

    /// Does what merging with nothing does: fields without a value go, and merged lists lose
    /// items that are there twice.
    pub(crate) fn settle(&self, node: &mut Node, shape: Option<Shape>) -> Result<()> {
        match node {
            Node::Scalar(_) => {}
            Node::List(items) => {
                if let Some(keys) = shape.as_ref().and_then(Shape::keys) {
                    *items =
                        self.items(std::mem::take(items), None, shape.as_ref(), &keys, false)?;
                }
            }
            Node::Map(_) => {
                let shape = shape.or_else(|| self.shape_of(Some(&*node), None));
                let Node::Map(map) = node else { return Ok(()) };
                map.retain(|_, value| !vanishes(value));
                for (name, value) in map {
                    if !matches!(value, Node::Scalar(_)) {
                        let inner =
                            shape.as_ref().and_then(|shape| shape.field(name, self.schemas));
                        self.settle(value, inner)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A map without a type of its own may be an object inside an object.
    fn shape_of(&self, dest: Option<&Node>, patch: Option<&Node>) -> Option<Shape> {
        [dest, patch].into_iter().flatten().find_map(|node| {
            let text = |key: &str| node.get(key).and_then(Node::text).filter(|t| !t.is_empty());
            self.schemas.shape(text("apiVersion")?, text("kind")?)
        })
    }

    fn map(
        &self,
        dest: Option<Node>,
        mut patch: Option<Node>,
        shape: Option<&Shape>,
        mut twins: bool,
    ) -> Result<Option<Node>> {
        let (into, from) = if missing(dest.as_ref()) {
            if let Some(patch) = &mut patch
                && matches!(map_directive(patch), Ok(Directive::Delete))
            {
                return Ok(None);
            }
            match (dest, patch) {
                (Some(null), None) if !vanishes(&null) => return Ok(Some(null)),
                (_, None) => return Ok(None),
                (_, Some(Node::Map(patch))) => {
                    twins = true;
                    (patch.clone(), patch)
                }
                (_, Some(other)) => return Ok(Some(other)),
            }
        } else {
            let directive = match &mut patch {
                Some(patch) if patch.is_null() => return Ok(None),
                Some(patch) => map_directive(patch)?,
                None => Directive::Merge,
            };
            let Some(Node::Map(mut dest)) = dest else {
                return Ok(None);
            };
            if twins {
                dest.remove(DIRECTIVE);
            }
            match (directive, patch) {
                (Directive::Delete, _) => return Ok(None),
                (Directive::Replace, Some(Node::Map(patch))) => {
                    twins = true;
                    (patch.clone(), patch)
                }
                (_, Some(Node::Map(patch))) => (dest, patch),
                (..) => (dest, Map::new()),
            }
        };
        let mut merged = Vec::with_capacity(into.len().max(from.len()));
        for (name, old, new) in both(into, from) {
            let inner = shape.and_then(|shape| shape.field(&name, self.schemas));
            let (old, new) = match (old, new) {
                (Some(mut value), None) => {
                    if !vanishes(&value) {
                        self.settle(&mut value, inner)?;
                        merged.push((name, value));
                    }
                    continue;
                }
                pair => pair,
            };
            let style = match &old {
                Some(Node::Scalar(old)) => Some(old.style),
                Some(_) => Some(Style::Plain),
                None => None,
            };
            let shared = match &old {
                Some(Node::Scalar(old)) if old.tag == ScalarTag::Shared => Some(old.clone()),
                _ => None,
            };
            let annotations = self.annotations.replace(name == shared::ANNOTATIONS);
            let value = self.walk(old, new, inner, twins)?;
            self.annotations.set(annotations);
            let Some(mut value) = value.filter(|value| !value.is_null()) else {
                continue;
            };
            if let Node::Scalar(scalar) = &mut value {
                scalar.style = match (style, scalar.style) {
                    (None, Style::Plain) => {
                        Style::quoted(scalar.is_text() && scalar.reads_as_other())
                    }
                    // A scalar is written as the old one was.
                    (Some(style), _) | (None, style) => style,
                };
                if let Some(old) = shared {
                    if scalar.tag == ScalarTag::Str {
                        scalar.tag = ScalarTag::Shared;
                    }
                    self.changes.borrow_mut().extend(Change::of(annotations, &name, &old, scalar));
                }
            }
            merged.push((name, value));
        }
        Ok(Some(Node::Map(merged.into_iter().collect())))
    }

    fn list(
        &self,
        dest: Option<Node>,
        mut patch: Option<Node>,
        shape: Option<&Shape>,
        keys: &[&str],
        mut twins: bool,
    ) -> Result<Option<Node>> {
        let dest = if missing(dest.as_ref()) {
            match &patch {
                Some(patch) => {
                    twins = true;
                    patch.clone()
                }
                None => return Ok(None),
            }
        } else {
            match &mut patch {
                None => dest.unwrap_or_else(Node::map),
                Some(patch) if patch.is_null() => return Ok(None),
                Some(Node::List(items)) => match list_directive(items)? {
                    Directive::Delete => return Ok(None),
                    Directive::Replace => {
                        twins = true;
                        Node::List(items.clone())
                    }
                    Directive::Merge => dest.unwrap_or_else(Node::map),
                },
                Some(_) => return Ok(patch),
            }
        };
        let Node::List(dest) = dest else {
            return Ok(Some(dest));
        };
        let patch = match patch {
            Some(Node::List(items)) => Some(items),
            _ => None,
        };
        self.items(dest, patch, shape, keys, twins).map(|items| Some(Node::List(items)))
    }
}
