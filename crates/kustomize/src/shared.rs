//! Fields that are one field to the reference. A step that puts a label or an annotation into
//! several places of an object puts the very same value there, so that whatever changes it in one
//! place later changes it in all: also in selectors that the later step has nothing to do with.

use plumb_yaml::{LineMark, Node, Scalar, ScalarTag, Text};

use crate::budget::Budget;
use crate::error::Result;
use crate::fieldspec::set_field;

/// A change of a field that is shared.
#[derive(Debug)]
pub(crate) struct Change {
    key: Text,
    old: Text,
    new: Scalar,
    annotation: bool,
}

pub(crate) const ANNOTATIONS: &str = "annotations";

impl Change {
    /// The change of one label or annotation to another, if the first is shared.
    pub(crate) fn of(annotation: bool, key: &str, old: &Scalar, new: &Scalar) -> Option<Self> {
        let changes = old.tag == ScalarTag::Shared && old.text != new.text;
        changes.then(|| Self {
            key: key.into(),
            old: old.text.clone(),
            new: new.clone(),
            annotation,
        })
    }

    /// Changes the other fields of an object too.
    pub(crate) fn spread(&self, object: &mut Node) {
        self.spread_in("", object);
    }

    fn spread_in(&self, name: &str, node: &mut Node) {
        match node {
            Node::Map(map) => {
                for (key, value) in map.iter_mut() {
                    match value {
                        Node::Scalar(scalar) => {
                            if *key == self.key
                                && (name == ANNOTATIONS) == self.annotation
                                && scalar.tag == ScalarTag::Shared
                                && scalar.text == self.old
                            {
                                scalar.clone_from(&self.new);
                            }
                        }
                        value => self.spread_in(key, value),
                    }
                }
            }
            Node::List(items) => items.iter_mut().for_each(|item| self.spread_in(name, item)),
            Node::Scalar(_) => {}
        }
    }
}

/// One label or annotation on its way into an object.
pub(crate) struct Setter<'p> {
    pair: (&'p str, &'p str, LineMark),
    /// The name of the map that it is in, in most places.
    map: &'p str,
    changes: Vec<Change>,
    made: usize,
}

impl<'p> Setter<'p> {
    pub(crate) fn new(map: &'p str, pair: (&'p str, &'p str, LineMark)) -> Self {
        Self { pair, map, changes: Vec::new(), made: 0 }
    }

    /// Sets it in a map. Where it is new it is shared with all that this sets.
    pub(crate) fn set(&mut self, node: &mut Node, budget: &Budget<'_>) -> Result<()> {
        let (key, text, mark) = self.pair;
        budget.spend(key.len() + text.len())?;
        let tag = match node.get(key) {
            Some(Node::Scalar(old)) if old.tag == ScalarTag::Shared => {
                let new = Scalar::new(text, ScalarTag::Shared).marked(mark);
                self.changes.extend(Change::of(self.map == ANNOTATIONS, key, old, &new));
                ScalarTag::Shared
            }
            Some(_) => ScalarTag::Str,
            None => {
                self.made += 1;
                ScalarTag::Shared
            }
        };
        set_field(node, key, text, tag, mark)
    }

    /// Follows what was changed into the rest of the object.
    pub(crate) fn finish(self, node: &mut Node) {
        self.changes.iter().for_each(|change| change.spread(node));
        if self.made == 1
            && let Some(map) = node.get_mut("metadata").and_then(|meta| meta.get_mut(self.map))
        {
            part(map, |key, text| (key, text) == (self.pair.0, self.pair.1));
        }
    }
}

/// Ends the sharing of some entries of a map.
pub(crate) fn part(map: &mut Node, which: impl Fn(&str, &str) -> bool) {
    for (key, value) in map.as_map_mut().into_iter().flat_map(plumb_yaml::Map::iter_mut) {
        if let Node::Scalar(scalar) = value
            && scalar.tag == ScalarTag::Shared
            && which(key, &scalar.text)
        {
            scalar.tag = ScalarTag::Str;
        }
    }
}
