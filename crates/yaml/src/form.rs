//! The two forms that documents are read into: values, and nodes that keep the spelling.

use serde_json::Value;

use crate::LineMark;
use crate::compose::Leaf;
use crate::node::{Node, Scalar, ScalarTag, Style};

/// What the expansion of a document builds.
pub(crate) trait Form: Sized {
    fn map<'k>(entries: impl Iterator<Item = (&'k str, Self)>) -> Self;
    fn list(items: Vec<Self>) -> Self;
    fn leaf(leaf: &Leaf<'_>, at: LineMark) -> Self;
    fn text(text: &str, at: LineMark) -> Self;
    fn null(at: LineMark) -> Self;
    fn is_empty_map(&self) -> bool;
    /// Makes it what it is after it was written as JSON and read again.
    fn pass_json(&mut self) {}
}

impl Form for Value {
    fn map<'k>(entries: impl Iterator<Item = (&'k str, Self)>) -> Self {
        Self::Object(entries.map(|(key, value)| (key.to_owned(), value)).collect())
    }

    fn list(items: Vec<Self>) -> Self {
        Self::Array(items)
    }

    fn leaf(leaf: &Leaf<'_>, at: LineMark) -> Self {
        leaf.value.clone().unwrap_or_else(|| Self::text(&leaf.text, at))
    }

    fn text(text: &str, _: LineMark) -> Self {
        Self::String(text.to_owned())
    }

    fn null(_: LineMark) -> Self {
        Self::Null
    }

    fn is_empty_map(&self) -> bool {
        self.as_object().is_some_and(serde_json::Map::is_empty)
    }
}

impl Form for Node {
    fn map<'k>(entries: impl Iterator<Item = (&'k str, Self)>) -> Self {
        Self::Map(entries.collect())
    }

    fn list(items: Vec<Self>) -> Self {
        Self::List(items)
    }

    fn leaf(leaf: &Leaf<'_>, mark: LineMark) -> Self {
        let Leaf { text, tag, style, .. } = leaf;
        Self::Scalar(Scalar { text: text.as_ref().into(), tag: *tag, style: *style, mark })
    }

    fn text(text: &str, mark: LineMark) -> Self {
        Self::Scalar(Scalar { style: Style::Quoted, mark, ..Scalar::string(text) })
    }

    fn null(mark: LineMark) -> Self {
        Self::Scalar(Scalar::new("null", ScalarTag::Null).marked(mark))
    }

    fn is_empty_map(&self) -> bool {
        matches!(self, Self::Map(map) if map.is_empty())
    }

    fn pass_json(&mut self) {
        match self {
            Self::Map(map) => map.values_mut().for_each(Self::pass_json),
            Self::List(items) => items.iter_mut().for_each(Self::pass_json),
            Self::Scalar(scalar) if scalar.is_null() => scalar.style = Style::Plain,
            Self::Scalar(scalar) if scalar.style == Style::Folded => scalar.style = Style::Quoted,
            Self::Scalar(_) => {}
        }
    }
}
