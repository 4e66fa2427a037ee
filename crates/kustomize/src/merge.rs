//! Strategic merge, with the reference's own ideas of it.
//!
//! A patch is walked together with what it patches. Maps are merged field by field; lists are
//! replaced, or merged item by item where the type of the object says so. A field that is new is
//! merged with itself, which takes its nulls and directives out.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use plumb_yaml::{Map, Node, Text};

use crate::error::{Result, invalid};
use crate::fieldspec::set_field;
use crate::openapi::{Schemas, Shape};

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
    let mut merger = Merger { schemas };
    merger.walk(dest, patch, None)
}

struct Merger<'s> {
    schemas: &'s Schemas,
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

impl Merger<'_> {
    fn walk(
        &mut self,
        dest: Option<Node>,
        patch: Option<Node>,
        shape: Option<Shape>,
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
            None | Some(Node::Map(_)) => self.map(dest, patch, shape.as_ref()),
            Some(Node::Scalar(_)) => Ok(instead(dest, patch)),
            Some(Node::List(_)) => match shape.as_ref().and_then(Shape::keys) {
                Some(keys) => self.list(dest, patch, shape.as_ref(), &keys),
                None => Ok(instead(dest, patch)),
            },
        }
    }

    /// A map without a type of its own may be an object inside an object.
    fn shape_of(&self, dest: Option<&Node>, patch: Option<&Node>) -> Option<Shape> {
        [dest, patch].into_iter().flatten().find_map(|node| {
            let text = |key: &str| node.get(key).and_then(Node::text).filter(|t| !t.is_empty());
            self.schemas.shape(text("apiVersion")?, text("kind")?)
        })
    }

    fn map(
        &mut self,
        dest: Option<Node>,
        mut patch: Option<Node>,
        shape: Option<&Shape>,
    ) -> Result<Option<Node>> {
        let (into, from) = if missing(dest.as_ref()) {
            if let Some(patch) = &mut patch
                && matches!(map_directive(patch), Ok(Directive::Delete))
            {
                return Ok(None);
            }
            match (dest, patch) {
                // Null that somebody spelled out stays.
                (Some(Node::Scalar(null)), None) if !null.text.is_empty() => {
                    return Ok(Some(Node::Scalar(null)));
                }
                (_, None) => return Ok(None),
                (_, Some(Node::Map(patch))) => (patch.clone(), patch),
                (_, Some(other)) => return Ok(Some(other)),
            }
        } else {
            let directive = match &mut patch {
                Some(patch) if patch.is_null() => return Ok(None),
                Some(patch) => map_directive(patch)?,
                None => Directive::Merge,
            };
            let Some(Node::Map(dest)) = dest else {
                return Ok(None);
            };
            match (directive, patch) {
                (Directive::Delete, _) => return Ok(None),
                (Directive::Replace, Some(Node::Map(patch))) => (patch.clone(), patch),
                (_, Some(Node::Map(patch))) => (dest, patch),
                (..) => (dest, Map::new()),
            }
        };
        let mut merged = Vec::with_capacity(into.len().max(from.len()));
        for (name, old, new) in both(into, from) {
            let quoted = match &old {
                Some(Node::Scalar(old)) => Some(old.quoted),
                Some(_) => Some(false),
                None => None,
            };
            let kept_null = matches!(&old, Some(old) if old.is_null());
            let untouched = new.is_none();
            let inner = shape.and_then(|shape| shape.field(&name, self.schemas));
            let Some(mut value) = self.walk(old, new, inner)? else {
                continue;
            };
            if value.is_null() && !(kept_null && untouched) {
                continue;
            }
            if let Node::Scalar(scalar) = &mut value {
                scalar.quoted = match quoted {
                    // A scalar is written in the quotes that the old one had.
                    Some(quoted) => quoted,
                    None => scalar.quoted || (scalar.is_text() && scalar.reads_as_other()),
                };
            }
            merged.push((name, value));
        }
        Ok(Some(Node::Map(merged.into_iter().collect())))
    }

    fn list(
        &mut self,
        dest: Option<Node>,
        mut patch: Option<Node>,
        shape: Option<&Shape>,
        keys: &[String],
    ) -> Result<Option<Node>> {
        let dest = if missing(dest.as_ref()) {
            match &patch {
                Some(patch) => patch.clone(),
                None => return Ok(None),
            }
        } else {
            match &mut patch {
                None => dest.unwrap_or_else(Node::map),
                Some(patch) if patch.is_null() => return Ok(None),
                Some(Node::List(items)) => match list_directive(items)? {
                    Directive::Delete => return Ok(None),
                    Directive::Replace => Node::List(items.clone()),
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
        let none = [String::new()];
        let (keys, values) = if keys.is_empty() {
            (&none[..], primitive_values(patch.as_deref(), &dest))
        } else {
            (keys, element_values(keys, patch.as_deref(), &dest))
        };
        self.elements(values, keys, dest, patch.as_deref(), shape).map(Some)
    }

    fn elements(
        &mut self,
        mut values: Vec<Vec<String>>,
        keys: &[String],
        dest: Vec<Node>,
        patch: Option<&[Node]>,
        shape: Option<&Shape>,
    ) -> Result<Node> {
        let mut added: Vec<Node> = Vec::new();
        let mut dest = dest;
        let item_shape = shape.and_then(|shape| shape.items(self.schemas));
        if keys.len() > 1 {
            merge_values(&mut values);
        }
        let mut valid_keys = Vec::new();
        for i in 0..values.len() {
            let (found_keys, found) = validate(&values, &values[i], keys);
            valid_keys = found_keys;
            // The item is looked for by its own keys only.
            let (own_keys, own) = validate(std::slice::from_ref(&found), &found, &valid_keys);
            let there = element(&dest, &own_keys, &own);
            let new =
                patch.and_then(|patch| element(patch, &own_keys, &own).map(|at| patch[at].clone()));
            // What a patch replaces as a whole stays in the list of old items, and wins below: so
            // it is with the reference.
            let replaces = new
                .as_ref()
                .and_then(|new| new.get(DIRECTIVE))
                .is_some_and(|text| text.text() == Some("replace"));
            let merged = self.walk(there.map(|at| dest[at].clone()), new, item_shape.clone())?;
            if let (Some(at), Some(merged), false) = (there, &merged, replaces) {
                dest[at] = merged.clone();
            }
            let empty = match &merged {
                None => true,
                Some(Node::Map(map)) => map.is_empty(),
                Some(node) => node.is_null(),
            };
            if empty {
                set_element(&mut dest, None, &valid_keys, &found);
                continue;
            }
            let Some(mut merged) = merged else { continue };
            let mut completed = false;
            for (key, value) in valid_keys.iter().zip(&found) {
                if !key.is_empty()
                    && merged.as_map().is_some_and(|map| !map.contains_key(key))
                    && !value.is_empty()
                {
                    let mark = merged.mark();
                    set_field(&mut merged, key, value, plumb_yaml::ScalarTag::None, mark)?;
                    completed = true;
                }
            }
            if let (Some(at), true, false) = (there, completed, replaces) {
                dest[at] = merged.clone();
            }
            set_element(&mut added, Some(merged), &valid_keys, &found);
        }
        if values.is_empty() {
            return Ok(Node::List(dest));
        }
        append(&mut added, dest, &valid_keys);
        Ok(Node::List(added))
    }
}

/// Puts the items of a list behind those of another, replacing equal ones.
fn append(into: &mut Vec<Node>, items: Vec<Node>, keys: &[String]) {
    for item in items {
        if keys.first().is_none_or(String::is_empty) {
            let value = item.text().unwrap_or_default().to_owned();
            set_element(into, Some(item), &[String::new()], &[value]);
            continue;
        }
        let mut values = Vec::new();
        for key in keys {
            match item.get(key) {
                Some(value) => values.push(value.text().unwrap_or_default().to_owned()),
                // An item without the key is there once for each key that it lacks, and again
                // below if it has none at all.
                None => into.push(item.clone()),
            }
        }
        if keys.len() > 1 {
            set_element(into, None, keys, &values);
        }
        set_element(into, Some(item), keys, &values);
    }
}

/// Replaces, removes or appends the items whose keys have these values.
fn set_element(items: &mut Vec<Node>, new: Option<Node>, keys: &[String], values: &[String]) {
    let by_key = keys.first().is_some_and(|key| !key.is_empty())
        && values.first().is_some_and(|value| !value.is_empty());
    let mut found_any = false;
    let mut kept = Vec::with_capacity(items.len() + 1);
    for item in items.drain(..) {
        if item.is_null() || item.as_map().is_some_and(Map::is_empty) {
            continue;
        }
        if by_key && item.as_map().is_none() {
            kept.push(item);
            continue;
        }
        let found = keys.iter().enumerate().all(|(i, key)| {
            let Some(value) = values.get(i) else {
                return true;
            };
            if key.is_empty() {
                return item.text() == Some(value);
            }
            match item.get(key) {
                // An empty value asks for nothing but the field.
                Some(field) => value.is_empty() || field.text() == Some(value),
                None => false,
            }
        });
        if !found {
            if !values.is_empty() {
                kept.push(item);
            }
            continue;
        }
        found_any = true;
        if let Some(new) = &new {
            kept.push(new.clone());
        }
    }
    if let Some(new) = new.filter(|new| !found_any && !new.is_null()) {
        kept.push(new);
    }
    *items = kept;
}

/// The first item whose keys have these values.
fn element(items: &[Node], keys: &[String], values: &[String]) -> Option<usize> {
    if keys.first().is_none_or(String::is_empty) {
        let value = values.first().map_or("", String::as_str);
        return items.iter().position(|item| item.text().unwrap_or_default() == value);
    }
    if keys.len() != values.len() {
        return None;
    }
    items.iter().position(|item| {
        item.as_map().is_some_and(|map| {
            keys.iter().zip(values).all(|(key, value)| {
                map.get(key).is_some_and(|field| field.text().unwrap_or_default() == value)
            })
        })
    })
}

/// The values of the keys in the items of the patch, then in those of the object.
fn element_values(keys: &[String], patch: Option<&[Node]>, dest: &[Node]) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    let mut seen = BTreeSet::new();
    for item in patch.unwrap_or_default().iter().chain(dest) {
        let values: Vec<String> = keys
            .iter()
            .map(|key| match item.get(key) {
                Some(field) if !field.is_empty() => field.text().unwrap_or_default().to_owned(),
                _ => String::new(),
            })
            .collect();
        if seen.insert(values.clone()) {
            all.push(values);
        }
    }
    all
}

fn primitive_values(patch: Option<&[Node]>, dest: &[Node]) -> Vec<Vec<String>> {
    let mut seen = BTreeSet::new();
    let items = patch.unwrap_or_default().iter().chain(dest);
    items
        .map(|item| item.text().unwrap_or_default().to_owned())
        .filter(|text| seen.insert(text.clone()))
        .map(|text| vec![text])
        .collect()
}

/// The keys that any item has a value for, and this item's values of them.
fn validate(all: &[Vec<String>], values: &[String], keys: &[String]) -> (Vec<String>, Vec<String>) {
    let valid: Vec<bool> = (0..keys.len())
        .map(|i| all.iter().any(|values| values.get(i).is_some_and(|value| !value.is_empty())))
        .collect();
    if !valid.contains(&true) {
        return (keys.to_vec(), values.to_vec());
    }
    let valid_keys =
        keys.iter().zip(&valid).filter(|(_, valid)| **valid).map(|(key, _)| key.clone());
    let valid_values = values
        .iter()
        .enumerate()
        .filter(|(i, value)| !value.is_empty() || valid.get(*i) == Some(&true))
        .map(|(_, value)| value.clone());
    (valid_keys.collect(), valid_values.collect())
}

/// Items that agree on one key and do not contradict each other on the rest become one.
fn merge_values(all: &mut [Vec<String>]) {
    for i in 0..all.len() {
        for j in 0..all.len() {
            if let Some(values) = matching(&all[i], &all[j]) {
                all[i].clone_from(&values);
                all[j] = values;
            }
        }
    }
}

fn matching(a: &[String], b: &[String]) -> Option<Vec<String>> {
    if a.len() != b.len() {
        return None;
    }
    let mut common = false;
    let mut values = Vec::with_capacity(a.len());
    for (x, y) in a.iter().zip(b) {
        if x == y {
            common = true;
        } else if !x.is_empty() && !y.is_empty() {
            return None;
        }
        values.push(if x.is_empty() { y.clone() } else { x.clone() });
    }
    common.then_some(values)
}
