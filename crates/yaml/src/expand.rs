//! Turns composed nodes into values: aliases repeated, merge keys merged, lists of kind `List`
//! taken apart, annotations made strings; with the place of each field.

use std::sync::Arc;

use plumb_core::{FieldHash, FieldPlaces, RelPath};
use serde_json::Value;

use crate::Marking;
use crate::compose::{Entry, Leaf, Mark, Node, NodeId, What, resolve};
use crate::error::Problem;
use crate::form::Form;

/// One object of a document.
pub(crate) struct Expanded<V> {
    pub(crate) value: V,
    pub(crate) mark: Mark,
    pub(crate) fields: FieldPlaces,
}

/// Gives the objects of a document without problems: none for an empty one, several for a `List`.
pub(crate) fn expand<V: Form>(
    nodes: &[Node<'_>],
    root: Option<NodeId>,
    text: &str,
    how: How,
    file: &Arc<[Arc<RelPath>]>,
) -> (Vec<Expanded<V>>, Vec<(Mark, Problem)>) {
    let mut expander = Expander {
        nodes,
        text,
        objects: Vec::new(),
        problems: Vec::new(),
        places: Vec::new(),
        how,
        file,
    };
    match root {
        Some(root) if how.manifests => expander.object(root),
        Some(root) => expander.any(root),
        None => {}
    }
    (expander.objects, expander.problems)
}

/// What a reader wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Whether documents are manifests: maps, lists taken apart.
    pub(crate) manifests: bool,
    /// Whether annotations become strings.
    pub(crate) annotations: bool,
    /// Whether the place of each field is wanted.
    pub(crate) fields: bool,
    /// Whether the keys of a map are unique, and sorted.
    pub(crate) unique: bool,
    /// Whether what is not there between brackets is taken as the reference prints it.
    pub(crate) printed: bool,
    /// How scalars are marked.
    pub(crate) marking: Marking,
}

struct Expander<'n, V> {
    nodes: &'n [Node<'n>],
    /// The whole file.
    text: &'n str,
    objects: Vec<Expanded<V>>,
    problems: Vec<(Mark, Problem)>,
    /// Fields of the object at hand.
    places: Vec<(FieldHash, Mark)>,
    how: How,
    /// The file alone.
    file: &'n Arc<[Arc<RelPath>]>,
}

/// Where in an object a value is, as far as the rules differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Object,
    Metadata,
    Annotations,
    Other,
}

impl<'n, V: Form> Expander<'n, V> {
    /// Takes one object or list of objects; nested as deep as the depth limit at most.
    fn object(&mut self, node: NodeId) {
        let mark = self.nodes[node].mark;
        let id = resolve(self.nodes, node);
        match &self.nodes[id].what {
            What::Map { .. } => {}
            What::Leaf(leaf) if leaf.is_null() => return,
            What::Broken | What::Alias(_) => return,
            What::Leaf(leaf) => {
                let found = leaf.noun();
                return self.problems.push((mark, Problem::NotAMap { found }));
            }
            What::List(_) => {
                let found = "a list";
                return self.problems.push((mark, Problem::NotAMap { found }));
            }
        }
        if let Some(kind) = self.text(id, "kind").filter(|kind| kind.ends_with("List"))
            && let Some(items) = self.field(id, "items")
        {
            let mark = self.nodes[items].mark;
            match &self.nodes[resolve(self.nodes, items)].what {
                What::List(items) => {
                    let first = self.objects.len();
                    for item in items {
                        self.object(*item);
                    }
                    // The reference takes the items of a `List` that is alone in its file as they
                    // are, and those of other lists by way of JSON.
                    if kind != "List" || self.text.contains("\n---") {
                        for object in &mut self.objects[first..] {
                            object.value.pass_json();
                        }
                    }
                }
                What::Leaf(leaf) if leaf.is_null() => {}
                What::Broken => {}
                what => {
                    let found = match what {
                        What::Leaf(leaf) => leaf.noun(),
                        _ => "a map",
                    };
                    let kind = kind.to_owned();
                    self.problems.push((mark, Problem::ItemsNotAList { kind, found }));
                }
            }
            return;
        }
        let within = if self.how.annotations { Within::Object } else { Within::Other };
        let value = self.start(id, within);
        if value.is_empty_map() {
            return;
        }
        self.take(value, mark);
    }

    /// Takes a document as it is.
    fn any(&mut self, node: NodeId) {
        let mark = self.nodes[node].mark;
        let value = self.start(node, Within::Other);
        self.take(value, mark);
    }

    fn start(&mut self, node: NodeId, within: Within) -> V {
        self.value(node, within, FieldHash::root(), self.nodes[node].mark)
    }

    fn take(&mut self, value: V, mark: Mark) {
        let places = std::mem::take(&mut self.places);
        let places = places.into_iter().map(|(path, mark)| (path, 0, mark.line, mark.column));
        let fields = FieldPlaces::collect(Arc::clone(self.file), places);
        self.objects.push(Expanded { value, mark, fields });
    }

    /// The value of a node. A scalar is marked with the line of its key, or its own in a list.
    fn value(&mut self, node: NodeId, within: Within, path: FieldHash, mark: Mark) -> V {
        let nodes = self.nodes;
        let at = self.how.marking.mark(mark.line);
        match &nodes[resolve(nodes, node)].what {
            // Kustomize makes strings of annotations, as they were written.
            What::Leaf(leaf) if within == Within::Annotations && leaf.value.is_some() => {
                V::text(&leaf.text, at)
            }
            What::Leaf(leaf) => V::leaf(leaf, at),
            What::List(items) => V::list(
                items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| {
                        let mark = nodes[*item].mark;
                        let path = self.place(mark, || path.index(i));
                        self.value(*item, Within::Other, path, mark)
                    })
                    .collect(),
            ),
            What::Map { entries, merges } => {
                let simple = merges.is_empty()
                    && self.how.unique
                    && entries.iter().all(|entry| self.counts(within, entry));
                let (own, merged) = if simple {
                    (&entries[..], Vec::new())
                } else {
                    let mut found = Vec::new();
                    self.entries(node, within, &mut found);
                    // The first of equal ones wins.
                    found.sort_by(|a, b| a.key.cmp(&b.key));
                    found.dedup_by(|later, earlier| later.key == earlier.key);
                    (&[][..], found)
                };
                V::map(own.iter().chain(merged).map(|Entry { key, mark, value }| {
                    let path = self.place(*mark, || path.key(key));
                    let inside = self.inside(within, key, *value);
                    (&**key, self.value(*value, inside, path, *mark))
                }))
            }
            What::Alias(_) | What::Broken => V::null(at),
        }
    }

    /// Lists a map's own entries, then the merged ones, those first that win.
    fn entries(&self, node: NodeId, within: Within, found: &mut Vec<&'n Entry<'n>>) {
        let nodes = self.nodes;
        let What::Map { entries, merges } = &nodes[resolve(nodes, node)].what else {
            return;
        };
        // Of equal ones, where they are allowed, the last wins.
        found.extend(entries.iter().rev().filter(|entry| self.counts(within, entry)));
        for merged in merges {
            self.entries(*merged, within, found);
        }
    }

    /// Whether an entry is taken: empty annotations are as good as none.
    fn counts(&self, within: Within, entry: &Entry<'_>) -> bool {
        within != Within::Metadata || entry.key != "annotations" || !self.is_empty(entry.value)
    }

    /// Where in an object a field's value is.
    fn inside(&self, within: Within, key: &str, value: NodeId) -> Within {
        match (within, key) {
            (Within::Object, "metadata") => Within::Metadata,
            (Within::Metadata, "annotations") => Within::Annotations,
            // Annotations are the leaves one level below; what is deeper is left for the API
            // server to refuse.
            (Within::Annotations, _) if self.is_leaf(value) => Within::Annotations,
            _ => Within::Other,
        }
    }

    fn is_leaf(&self, node: NodeId) -> bool {
        matches!(self.nodes[resolve(self.nodes, node)].what, What::Leaf(_))
    }

    /// Whether a node is null or a map without anything in it.
    fn is_empty(&self, node: NodeId) -> bool {
        match &self.nodes[resolve(self.nodes, node)].what {
            What::Leaf(leaf) => leaf.is_null(),
            What::Map { entries, merges } => entries.is_empty() && merges.is_empty(),
            _ => false,
        }
    }

    /// A field's node, also one that is merged in.
    fn field(&self, map: NodeId, key: &str) -> Option<NodeId> {
        let What::Map { entries, merges } = &self.nodes[resolve(self.nodes, map)].what else {
            return None;
        };
        let own = entries.iter().find(|entry| entry.key == key);
        own.map(|entry| entry.value)
            .or_else(|| merges.iter().find_map(|merged| self.field(*merged, key)))
    }

    fn text(&self, map: NodeId, key: &str) -> Option<&'n str> {
        match &self.nodes[resolve(self.nodes, self.field(map, key)?)].what {
            What::Leaf(Leaf { value: Some(Value::String(text)), .. }) => Some(text),
            What::Leaf(Leaf { value: None, text, .. }) => Some(text),
            _ => None,
        }
    }

    /// Records a field's place, if places are wanted.
    fn place(&mut self, mark: Mark, path: impl FnOnce() -> FieldHash) -> FieldHash {
        if !self.how.fields {
            return FieldHash::root();
        }
        let path = path();
        self.places.push((path, mark));
        path
    }
}
