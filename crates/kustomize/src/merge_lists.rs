//! Strategic merge of lists, item by item.
//!
//! Nearly all lists are plain: each item has a value of its own for the key. What the reference does
//! with all others stands beside that, step by step as it does it.

use std::collections::{BTreeSet, HashMap, HashSet};

use plumb_yaml::{Map, Node, Text};

use crate::error::{Problem, Result};
use crate::fieldspec::set_field;
use crate::merge::{DIRECTIVE, Merger, REPLACE};
use crate::openapi::Shape;

/// Items of a list in which each is compared with all others.
const CORNERS: usize = 5_000;

impl Merger<'_> {
    /// Merges the items of lists.
    pub(crate) fn items(
        &self,
        dest: Vec<Node>,
        patch: Option<Vec<Node>>,
        shape: Option<&Shape>,
        keys: &[&str],
        twins: bool,
    ) -> Result<Vec<Node>> {
        let inner = shape.and_then(|shape| shape.items(self.schemas));
        match plainly(keys, &dest, patch.as_deref()) {
            Some(Plainly::Kept) => self.settle_items(dest, inner.as_ref()),
            Some(Plainly::By(key)) => {
                self.items_by(key, dest, patch.unwrap_or_default(), inner.as_ref(), twins)
            }
            None => self.elements(keys, dest, patch.as_deref(), inner.as_ref(), twins),
        }
    }

    fn settle_items(&self, mut items: Vec<Node>, shape: Option<&Shape>) -> Result<Vec<Node>> {
        items.iter_mut().try_for_each(|item| self.settle(item, shape.cloned()))?;
        Ok(items)
    }

    /// Merges the items of lists in which each has a value of its own for one key.
    fn items_by(
        &self,
        key: &str,
        dest: Vec<Node>,
        patch: Vec<Node>,
        shape: Option<&Shape>,
        twins: bool,
    ) -> Result<Vec<Node>> {
        let mut places = HashMap::with_capacity(dest.len());
        for (at, item) in dest.iter().enumerate() {
            places.insert(item.get(key).and_then(Node::text).map(Text::from), at);
        }
        let mut merged = Vec::with_capacity(dest.len().max(patch.len()));
        let mut dest: Vec<Option<Node>> = dest.into_iter().map(Some).collect();
        for new in patch {
            let at = places.get(&new.get(key).and_then(Node::text).map(Text::from));
            let old = at.and_then(|at| dest[*at].take());
            let kept = if !twins && replaces(&new) { old.clone() } else { None };
            let item = self.walk(old, Some(new), shape.cloned(), twins)?;
            if let Some(item) = item.filter(|item| !item.is_empty()) {
                merged.push(kept.unwrap_or(item));
            }
        }
        merged.extend(self.settle_items(dest.into_iter().flatten().collect(), shape)?);
        Ok(merged)
    }

    /// Merges the items of lists as the reference does in all corners: where items lack keys or
    /// have the same values for them.
    fn elements(
        &self,
        keys: &[&str],
        dest: Vec<Node>,
        patch: Option<&[Node]>,
        item_shape: Option<&Shape>,
        twins: bool,
    ) -> Result<Vec<Node>> {
        let (keys, mut values) = if keys.is_empty() {
            (vec![String::new()], primitive_values(patch, &dest))
        } else {
            (keys.iter().map(|key| (*key).to_owned()).collect(), element_values(keys, patch, &dest))
        };
        let keys: &[String] = &keys;
        if values.len() > CORNERS {
            let what = "items in a merged list that are not told apart by one key";
            return Err(Problem::TooMuch { what, limit: CORNERS as u64 }.into());
        }
        let mut added: Vec<Node> = Vec::new();
        let mut dest = dest;
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
            let replaces = !twins && new.as_ref().is_some_and(replaces);
            let merged =
                self.walk(there.map(|at| dest[at].clone()), new, item_shape.cloned(), twins)?;
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
            return Ok(dest);
        }
        append(&mut added, dest, &valid_keys);
        Ok(added)
    }
}

/// Whether an item of a patch takes the place of an old one as a whole. The old one stays in the
/// list of old items and wins: so it is with the reference.
fn replaces(new: &Node) -> bool {
    new.get(DIRECTIVE).and_then(Node::text) == Some(REPLACE)
}

/// How lists are merged that have no corners.
enum Plainly<'k> {
    /// All items stay, each by itself.
    Kept,
    /// Each item has a value of its own for this key.
    By(&'k str),
}

/// Whether lists are merged without corners, which nearly all are.
fn plainly<'k>(keys: &[&'k str], dest: &[Node], patch: Option<&[Node]>) -> Option<Plainly<'k>> {
    fn value<'n>(item: &'n Node, key: &str) -> Option<&'n str> {
        let field = item.get(key).filter(|field| !field.is_null());
        field.and_then(Node::text).filter(|text| !text.is_empty())
    }
    let patch_items = patch.unwrap_or_default();
    let any = |key: &str| dest.iter().chain(patch_items).any(|item| value(item, key).is_some());
    let used: Vec<&str> = keys.iter().copied().filter(|key| any(key)).collect();
    let unique = |items: &[Node]| {
        let mut seen = HashSet::with_capacity(items.len());
        items.iter().all(|item| {
            let values: Option<Vec<&str>> = used.iter().map(|key| value(item, key)).collect();
            values.is_some_and(|values| seen.insert(values))
        })
    };
    match used[..] {
        [] => None,
        _ if !unique(dest) || !unique(patch_items) => None,
        _ if patch.is_none() => Some(Plainly::Kept),
        [key] => Some(Plainly::By(key)),
        _ => None,
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
pub(crate) fn set_element(
    items: &mut Vec<Node>,
    new: Option<Node>,
    keys: &[String],
    values: &[String],
) {
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
fn element_values(keys: &[&str], patch: Option<&[Node]>, dest: &[Node]) -> Vec<Vec<String>> {
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

#[cfg(test)]
mod tests {
    use plumb_yaml::{Scalar, ScalarTag};

    use super::*;
    use crate::openapi::Schemas;

    fn scalar(random: &mut fastrand::Rng) -> Node {
        match random.u8(0..8) {
            0 => Node::from_value(&serde_json::Value::Null),
            1 => Node::Scalar(Scalar::new("", ScalarTag::Null)),
            2 => Node::string(""),
            n => Node::string(n.to_string()),
        }
    }

    fn item(random: &mut fastrand::Rng, keys: &[&str], is_patch: bool) -> Node {
        if random.u8(0..40) == 0 {
            return scalar(random);
        }
        let mut map = Map::new();
        for (key, values, often) in
            [(keys[0], 30, 19), (keys[keys.len() - 1], 30, 8), ("a", 3, 10), ("b", 3, 10)]
        {
            if random.u8(0..20) < often {
                let text = random.u8(0..values).to_string();
                map.insert(
                    key,
                    if random.u8(0..30) == 0 { scalar(random) } else { Node::string(text) },
                );
            }
        }
        if is_patch && random.u8(0..5) == 0 {
            let directive = random.choice(["replace", "delete", "merge"]).unwrap_or_default();
            map.insert(DIRECTIVE, Node::string(directive));
        }
        if random.u8(0..4) == 0 {
            let env = (0..random.u8(0..4)).map(|_| item(random, &["name"], is_patch)).collect();
            map.insert("env", Node::List(env));
        }
        Node::Map(map)
    }

    #[test]
    fn lists_without_corners_merge_as_all_lists() {
        let seed = 5;
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let schemas = Schemas::default();
        let merger = Merger::new(&schemas);
        let shape = ["spec", "template", "spec", "containers"]
            .iter()
            .try_fold(schemas.shape("apps/v1", "Deployment").unwrap(), |shape, field| {
                shape.field(field, &schemas)
            })
            .unwrap();
        let inner = shape.items(&schemas);
        let (mut plain, mut kept) = (0, 0);
        for round in 0..8000 {
            let keys = if round % 2 == 0 { &["name"][..] } else { &["port", "protocol"] };
            let mut list = |is_patch| -> Vec<Node> {
                (0..random.u8(0..5)).map(|_| item(&mut random, keys, is_patch)).collect()
            };
            let (dest, patch) = (list(false), list(true));
            let patch = (round % 3 > 0).then_some(patch);
            match plainly(keys, &dest, patch.as_deref()) {
                Some(Plainly::Kept) => kept += 1,
                Some(Plainly::By(_)) => plain += 1,
                None => continue,
            }
            let fast = merger.items(dest.clone(), patch.clone(), Some(&shape), keys, false);
            let slow = merger.elements(keys, dest.clone(), patch.as_deref(), inner.as_ref(), false);
            assert_eq!(fast.ok(), slow.ok(), "{dest:#?} {patch:#?}");
        }
        assert!(plain > 500 && kept > 500, "{plain} {kept}");
    }
}
