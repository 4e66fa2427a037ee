//! Puts the events of one document together into nodes, with all checks that need no expansion.
//!
//! Nodes lie in one vector and name each other by index, so neither building nor dropping them
//! recurses. Each closed node knows how large it is once its aliases are expanded; that is how a
//! document that would explode is refused before a byte of it is expanded.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use crate::error::Problem;
use crate::node::{ScalarTag, Style};
use crate::scalar::{self, Meaning};
use crate::{Dialect, Limits};

/// A line and a column, both counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

pub(crate) type NodeId = usize;

/// One node of a document.
#[derive(Debug)]
pub(crate) struct Node<'t> {
    pub(crate) mark: Mark,
    pub(crate) what: What<'t>,
    /// Whether children may still come.
    open: bool,
    /// Nodes, bytes of text and levels below and with this one, aliases expanded.
    weight: Weight,
}

#[derive(Debug)]
pub(crate) enum What<'t> {
    Leaf(Leaf<'t>),
    Map {
        /// Where keys are unique, sorted by key once the map is closed.
        entries: Vec<Entry<'t>>,
        /// The values of `<<`: maps or aliases of maps; the first that has a key wins.
        merges: Vec<NodeId>,
    },
    List(Vec<NodeId>),
    Alias(NodeId),
    /// Stands for something that a problem was recorded for.
    Broken,
}

/// A scalar that was read.
#[derive(Debug, Clone)]
pub(crate) struct Leaf<'t> {
    /// The text as written.
    pub(crate) text: Cow<'t, str>,
    /// The value, where it is not that text.
    pub(crate) value: Option<Value>,
    /// What the scalar counts as.
    pub(crate) tag: ScalarTag,
    /// How it was written.
    pub(crate) style: Style,
}

impl Leaf<'_> {
    pub(crate) fn is_null(&self) -> bool {
        self.value == Some(Value::Null)
    }

    /// What it is, with its article, in words for people.
    pub(crate) fn noun(&self) -> &'static str {
        self.value.as_ref().map_or("a string", scalar::noun)
    }
}

#[derive(Debug)]
pub(crate) struct Entry<'t> {
    pub(crate) key: Cow<'t, str>,
    pub(crate) mark: Mark,
    pub(crate) value: NodeId,
}

#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

impl Weight {
    fn hold(&mut self, child: Self) {
        self.nodes = self.nodes.saturating_add(child.nodes);
        self.bytes = self.bytes.saturating_add(child.bytes);
        self.depth = self.depth.max(child.depth + 1);
    }
}

/// A scalar as a parser gives it.
pub(crate) struct Scalar<'t, 'n> {
    pub(crate) text: Cow<'t, str>,
    pub(crate) style: Style,
    pub(crate) tag: Tag<'n>,
}

/// What a tag asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag<'t> {
    /// No tag, or the `!` that means none.
    None,
    /// A tag of the YAML namespace, by its last part: `int`.
    Yaml(&'t str),
    /// Any other tag; it makes a scalar a string.
    Local,
}

enum Pending<'t> {
    Field(Cow<'t, str>, Mark),
    Merge,
    Broken,
}

/// Entries of a map up to which a key is looked for one by one.
const FEW: usize = 16;

struct Frame<'t> {
    node: NodeId,
    /// For maps with more than a few entries: the line each key stands on first.
    lines: HashMap<Cow<'t, str>, u32>,
    /// For maps: the line of a `<<`.
    merge_line: Option<u32>,
    /// For maps: the key whose value comes next.
    pending: Option<Pending<'t>>,
}

/// Why composing this document must stop.
pub(crate) struct Stop;

/// Builds the nodes of one document.
pub(crate) struct Composer<'l, 't> {
    limits: &'l Limits,
    dialect: Dialect,
    nodes: Vec<Node<'t>>,
    frames: Vec<Frame<'t>>,
    anchors: HashMap<usize, NodeId>,
    root: Option<NodeId>,
    problems: Vec<(Mark, Problem)>,
}

/// The nodes of one document, and what is wrong with it.
pub(crate) struct Composed<'t> {
    pub(crate) nodes: Vec<Node<'t>>,
    pub(crate) root: Option<NodeId>,
    pub(crate) problems: Vec<(Mark, Problem)>,
}

impl<'l, 't> Composer<'l, 't> {
    pub(crate) fn new(limits: &'l Limits, dialect: Dialect) -> Self {
        Self {
            limits,
            dialect,
            nodes: Vec::new(),
            frames: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            problems: Vec::new(),
        }
    }

    pub(crate) fn finish(self) -> Composed<'t> {
        Composed { nodes: self.nodes, root: self.root, problems: self.problems }
    }

    pub(crate) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Notes a problem that the parser found.
    pub(crate) fn problem(&mut self, mark: Mark, problem: Problem) {
        self.problems.push((mark, problem));
    }

    /// Names the node that comes next for aliases.
    fn anchor(&mut self, anchor: Option<usize>, node: NodeId) {
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, node);
        }
    }

    pub(crate) fn scalar(
        &mut self,
        scalar: Scalar<'t, '_>,
        anchor: Option<usize>,
        mark: Mark,
    ) -> Result<(), Stop> {
        let Scalar { text, style, tag } = scalar;
        let plain = style == Style::Plain;
        let is_key = self.wants_key();
        if is_key {
            let merges = match tag {
                Tag::None => plain && text == "<<",
                tag => tag == Tag::Yaml("merge"),
            };
            if merges {
                self.merge_key(mark);
                return Ok(());
            }
        }
        let (resolved, tag) = match tag {
            Tag::None if plain && self.dialect == Dialect::Config => {
                (scalar::plain_config(&text), ScalarTag::None)
            }
            Tag::None if plain => {
                let meaning = scalar::meaning(&text);
                let tag = meaning.tag();
                (meaning.value(), tag)
            }
            Tag::Yaml(tag) => (scalar::tagged(tag, &text).map(Some), scalar::explicit_tag(tag)),
            Tag::None | Tag::Local => (Ok(None), ScalarTag::Str),
        };
        let weight = Weight { nodes: 1, bytes: text.len(), depth: 0 };
        let what = match resolved {
            Ok(value) => {
                let value = value.filter(|value| value.as_str() != Some(&*text));
                What::Leaf(Leaf { text, value, tag, style })
            }
            Err(problem) => {
                self.problem(mark, problem);
                What::Broken
            }
        };
        // Most keys are needed once, so they are no nodes.
        if is_key && anchor.is_none() {
            let pending = match what {
                What::Leaf(leaf) => self.key(leaf, mark),
                _ => Pending::Broken,
            };
            self.expect(pending);
            return Ok(());
        }
        let node = self.push(mark, what, false, weight);
        self.anchor(anchor, node);
        self.attach(node)
    }

    /// Takes a key whose value comes next.
    fn expect(&mut self, pending: Pending<'t>) {
        if let Some(frame) = self.frames.last_mut() {
            frame.pending = Some(pending);
        }
    }

    pub(crate) fn open_map(&mut self, anchor: Option<usize>, mark: Mark) -> Result<(), Stop> {
        let what = What::Map { entries: Vec::new(), merges: Vec::new() };
        self.open(what, anchor, mark)
    }

    pub(crate) fn open_list(&mut self, anchor: Option<usize>, mark: Mark) -> Result<(), Stop> {
        self.open(What::List(Vec::new()), anchor, mark)
    }

    fn open(&mut self, what: What<'t>, anchor: Option<usize>, mark: Mark) -> Result<(), Stop> {
        if self.frames.len() >= self.limits.depth {
            return Err(self.too_deep(mark));
        }
        let weight = Weight { nodes: 1, ..Weight::default() };
        let node = self.push(mark, what, true, weight);
        self.anchor(anchor, node);
        self.frames.push(Frame { node, lines: HashMap::new(), merge_line: None, pending: None });
        Ok(())
    }

    /// Ends the innermost open map or list.
    pub(crate) fn close(&mut self) -> Result<(), Stop> {
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        let node = &mut self.nodes[frame.node];
        node.open = false;
        if let What::Map { entries, .. } = &mut node.what
            && self.dialect == Dialect::Resource
        {
            entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        }
        self.attach(frame.node)
    }

    pub(crate) fn alias(&mut self, anchor: usize, mark: Mark) -> Result<(), Stop> {
        let target = self.anchors.get(&anchor).copied();
        let Some(target) = target.filter(|target| !self.nodes[*target].open) else {
            self.problem(mark, Problem::RecursiveAlias);
            return self.broken(mark);
        };
        let weight = self.nodes[target].weight;
        let node = self.push(mark, What::Alias(target), false, weight);
        self.attach(node)
    }

    pub(crate) fn unknown_alias(&mut self, mark: Mark) -> Result<(), Stop> {
        self.problem(mark, Problem::UnknownAnchor);
        self.broken(mark)
    }

    fn broken(&mut self, mark: Mark) -> Result<(), Stop> {
        let node = self.push(mark, What::Broken, false, Weight::default());
        self.attach(node)
    }

    fn push(&mut self, mark: Mark, what: What<'t>, open: bool, weight: Weight) -> NodeId {
        self.nodes.push(Node { mark, what, open, weight });
        self.nodes.len() - 1
    }

    fn wants_key(&self) -> bool {
        self.frames.last().is_some_and(|frame| {
            frame.pending.is_none() && matches!(self.nodes[frame.node].what, What::Map { .. })
        })
    }

    fn too_deep(&mut self, mark: Mark) -> Stop {
        let limit = self.limits.depth;
        self.problem(mark, Problem::TooDeep { limit });
        Stop
    }

    /// Puts a finished node where it belongs: the root, a list, a key or a value.
    fn attach(&mut self, child: NodeId) -> Result<(), Stop> {
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(child);
            return self.check(child);
        };
        let parent = frame.node;
        let pending = frame.pending.take();
        let mut weight = self.nodes[child].weight;
        match pending {
            None => {
                let What::List(items) = &mut self.nodes[parent].what else {
                    let pending = self.node_as_key(child);
                    self.expect(pending);
                    return Ok(());
                };
                items.push(child);
            }
            Some(Pending::Field(key, mark)) => {
                weight.bytes = weight.bytes.saturating_add(key.len());
                if let What::Map { entries, .. } = &mut self.nodes[parent].what {
                    entries.push(Entry { key, mark, value: child });
                }
            }
            Some(Pending::Merge) => self.merge(parent, child),
            Some(Pending::Broken) => {}
        }
        self.nodes[parent].weight.hold(weight);
        self.check(parent)
    }

    /// Whether a node still fits the limits; asked each time something was added to it.
    fn check(&mut self, node: NodeId) -> Result<(), Stop> {
        let Node { mark, weight, .. } = self.nodes[node];
        let problem = if weight.nodes > self.limits.nodes {
            let limit = self.limits.nodes;
            Problem::TooManyNodes { limit }
        } else if weight.bytes > self.limits.bytes {
            let limit = self.limits.bytes;
            Problem::TooManyBytes { limit }
        } else if weight.depth > self.limits.depth {
            return Err(self.too_deep(mark));
        } else {
            return Ok(());
        };
        self.problem(mark, problem);
        Err(Stop)
    }

    /// A plain `<<` where a key belongs.
    fn merge_key(&mut self, mark: Mark) {
        let first = self.is_first("<<", mark);
        if first && let Some(frame) = self.frames.last_mut() {
            frame.merge_line = Some(mark.line);
        }
        self.expect(if first { Pending::Merge } else { Pending::Broken });
    }

    /// Whether the innermost map has not had a key yet; a second time is a problem.
    fn is_first(&mut self, key: &str, mark: Mark) -> bool {
        let Some(frame) = self.frames.last_mut() else {
            return true;
        };
        let What::Map { entries, .. } = &self.nodes[frame.node].what else {
            return true;
        };
        let line = |entry: &Entry<'_>| entry.mark.line;
        let known = if key == "<<" && frame.merge_line.is_some() {
            frame.merge_line
        } else if entries.len() <= FEW {
            entries.iter().find(|entry| entry.key == key).map(line)
        } else {
            for entry in &entries[frame.lines.len()..] {
                frame.lines.insert(entry.key.clone(), line(entry));
            }
            frame.lines.get(key).copied()
        };
        let Some(first_line) = known else {
            return true;
        };
        let key = key.to_owned();
        self.problem(mark, Problem::DuplicateKey { key, first_line });
        false
    }

    /// Makes a key of a finished node.
    fn node_as_key(&mut self, node: NodeId) -> Pending<'t> {
        let mark = self.nodes[node].mark;
        let found = match &self.nodes[self.resolve(node)].what {
            What::Broken => return Pending::Broken,
            What::Leaf(leaf) => {
                let leaf = leaf.clone();
                return self.key(leaf, mark);
            }
            What::Map { .. } => "a map",
            What::List(_) | What::Alias(_) => "a list",
        };
        self.problem(mark, Problem::KeyNotScalar { found });
        Pending::Broken
    }

    /// Makes a key of a scalar.
    fn key(&mut self, leaf: Leaf<'t>, mark: Mark) -> Pending<'t> {
        let key = match leaf {
            Leaf { text, value: None, .. } => text,
            // Files for Go structs have any scalar as a key; the last of equal keys wins.
            Leaf { value: Some(Value::String(key)), .. } if self.dialect == Dialect::Config => {
                key.into()
            }
            Leaf { value: Some(value), .. } if self.dialect == Dialect::Config => {
                value.to_string().into()
            }
            // A timestamp is a string by now, but Kustomize counts it as no string.
            Leaf { value: Some(Value::String(key)), text, .. }
                if !matches!(scalar::meaning(&text), Meaning::Timestamp(_)) =>
            {
                key.into()
            }
            Leaf { value: Some(value), text, .. } => {
                let found = if value.is_string() { "a timestamp" } else { scalar::noun(&value) };
                self.problem(mark, Problem::KeyNotString { key: text.into_owned(), found });
                return Pending::Broken;
            }
        };
        if self.dialect == Dialect::Config || self.is_first(&key, mark) {
            Pending::Field(key, mark)
        } else {
            Pending::Broken
        }
    }

    /// Takes the value of `<<` into a map.
    fn merge(&mut self, parent: NodeId, child: NodeId) {
        let candidates = match &self.nodes[self.resolve(child)].what {
            What::List(items) => items.clone(),
            What::Broken => return,
            _ => vec![child],
        };
        for candidate in &candidates {
            if !matches!(self.nodes[self.resolve(*candidate)].what, What::Map { .. } | What::Broken)
            {
                let mark = self.nodes[child].mark;
                self.problem(mark, Problem::MergeNotMap);
                return;
            }
        }
        if let What::Map { merges, .. } = &mut self.nodes[parent].what {
            merges.extend(candidates);
        }
    }

    /// What an alias stands for; targets are never aliases themselves.
    fn resolve(&self, node: NodeId) -> NodeId {
        resolve(&self.nodes, node)
    }
}

/// What an alias stands for; other nodes stand for themselves.
pub(crate) fn resolve(nodes: &[Node<'_>], node: NodeId) -> NodeId {
    match nodes[node].what {
        What::Alias(target) => target,
        _ => node,
    }
}
