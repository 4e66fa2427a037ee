//! The two forms that documents are read into: values, and nodes that keep the spelling.

use serde_json::{Map, Value};

use crate::node::{Node, Scalar, ScalarTag};

/// What the expansion of a document builds.
pub(crate) trait Form: Sized {
    type Fields: Default;

    fn has(map: &Self::Fields, key: &str) -> bool;
    fn put(map: &mut Self::Fields, key: String, value: Self);
    fn map(map: Self::Fields) -> Self;
    fn list(items: Vec<Self>) -> Self;
    fn leaf(value: &Value, source: Option<&str>, tag: ScalarTag, quoted: bool) -> Self;
    fn text(text: String) -> Self;
    fn null() -> Self;
    fn is_empty_map(&self) -> bool;
}

impl Form for Value {
    type Fields = Map<String, Self>;

    fn has(map: &Self::Fields, key: &str) -> bool {
        map.contains_key(key)
    }

    fn put(map: &mut Self::Fields, key: String, value: Self) {
        map.insert(key, value);
    }

    fn map(map: Self::Fields) -> Self {
        Self::Object(map)
    }

    fn list(items: Vec<Self>) -> Self {
        Self::Array(items)
    }

    fn leaf(value: &Value, _: Option<&str>, _: ScalarTag, _: bool) -> Self {
        value.clone()
    }

    fn text(text: String) -> Self {
        Self::String(text)
    }

    fn null() -> Self {
        Self::Null
    }

    fn is_empty_map(&self) -> bool {
        self.as_object().is_some_and(Map::is_empty)
    }
}

impl Form for Node {
    type Fields = std::collections::BTreeMap<String, Self>;

    fn has(map: &Self::Fields, key: &str) -> bool {
        map.contains_key(key)
    }

    fn put(map: &mut Self::Fields, key: String, value: Self) {
        map.insert(key, value);
    }

    fn map(map: Self::Fields) -> Self {
        Self::Map(map)
    }

    fn list(items: Vec<Self>) -> Self {
        Self::List(items)
    }

    fn leaf(value: &Value, source: Option<&str>, tag: ScalarTag, quoted: bool) -> Self {
        let text = source.or(value.as_str()).unwrap_or_default().to_owned();
        Self::Scalar(Scalar { text, tag, quoted })
    }

    fn text(text: String) -> Self {
        Self::Scalar(Scalar { text, tag: ScalarTag::Str, quoted: true })
    }

    fn null() -> Self {
        Self::Scalar(Scalar { text: "null".into(), tag: ScalarTag::Null, quoted: false })
    }

    fn is_empty_map(&self) -> bool {
        matches!(self, Self::Map(map) if map.is_empty())
    }
}
