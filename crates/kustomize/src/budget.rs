//! What a build may still take: time, as long as nobody stops it, and bytes that its steps put into
//! objects. A short label on many objects, or a long text in many places, is more than any file
//! holds.

use std::cell::Cell;

use plumb_yaml::Node;

use crate::error::{Error, Problem, Result};

/// What a map, a list or a scalar takes beside its text.
const NODE: u64 = 32;

pub(crate) struct Budget<'t> {
    interrupted: &'t dyn Fn() -> bool,
    limit: u64,
    spent: Cell<u64>,
    depth: usize,
}

impl<'t> Budget<'t> {
    pub(crate) fn new(limits: &crate::Limits, interrupted: &'t dyn Fn() -> bool) -> Self {
        Self { interrupted, limit: limits.made, spent: Cell::new(0), depth: limits.file.depth }
    }

    /// Stops the build when the caller asks for it.
    pub(crate) fn ask(&self) -> Result<()> {
        if (self.interrupted)() { Err(Problem::Interrupted.into()) } else { Ok(()) }
    }

    /// Takes bytes that are put into an object.
    pub(crate) fn spend(&self, bytes: usize) -> Result<()> {
        let spent = self.spent.get().saturating_add(bytes as u64).saturating_add(NODE);
        self.spent.set(spent);
        let what = "bytes that its steps put into objects";
        if spent > self.limit {
            return Err(Problem::TooMuch { what, limit: self.limit }.into());
        }
        Ok(())
    }

    /// Takes a node that is put into an object, that many levels below its root.
    pub(crate) fn spend_node(&self, node: &Node, level: usize) -> Result<()> {
        self.check_depth(level + depth(node))?;
        self.spend(usize::try_from(size(node)).unwrap_or(usize::MAX))
    }

    /// Whether an object may have as many levels. Values are walked by calls inside each other.
    pub(crate) fn check_depth(&self, levels: usize) -> Result<()> {
        let limit = self.depth;
        if levels > limit {
            return Err(Error::from(Problem::Yaml(plumb_yaml::Problem::TooDeep { limit })));
        }
        Ok(())
    }
}

fn children(node: &Node) -> Box<dyn Iterator<Item = &Node> + '_> {
    match node {
        Node::Map(map) => Box::new(map.values()),
        Node::List(items) => Box::new(items.iter()),
        Node::Scalar(_) => Box::new(std::iter::empty()),
    }
}

fn depth(node: &Node) -> usize {
    children(node).map(|child| 1 + depth(child)).max().unwrap_or(0)
}

fn size(node: &Node) -> u64 {
    let keys = match node {
        Node::Map(map) => map.keys().map(|key| key.len() as u64).sum(),
        _ => 0,
    };
    let text = node.text().map_or(0, |text| text.len() as u64);
    children(node).map(size).sum::<u64>() + NODE + keys + text
}
