//! Values that keep how their scalars were spelled, as tools that change manifests need it: a
//! port that is copied into a text must be copied as it was written.

use serde_json::Value;

use crate::error::Problem;
use crate::reprint::refolded;
use crate::{LineMark, Map, Text, number, scalar};

/// A map, a list or a scalar with its spelling.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A map.
    Map(Map),
    /// A list.
    List(Vec<Node>),
    /// A scalar.
    Scalar(Scalar),
}

/// A scalar: its text, what it counts as, how and where it was written; where makes no difference
/// when scalars are compared.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// The text, without quotes and escapes.
    pub text: Text,
    /// What it counts as.
    pub tag: ScalarTag,
    /// How it is written.
    pub style: Style,
    /// Where it was written.
    pub mark: LineMark,
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.tag, self.style) == (&other.text, other.tag, other.style)
    }
}

impl Eq for Scalar {}

/// How a scalar is written, as far as it makes a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// Without quotes, so that a text may be read as anything.
    #[default]
    Plain,
    /// In quotes, or as a block of lines.
    Quoted,
    /// As a folded block, which the reference breaks when it prints it.
    Folded,
}

impl Style {
    /// In quotes or without.
    pub fn quoted(quoted: bool) -> Self {
        if quoted { Self::Quoted } else { Self::Plain }
    }
}

/// What a scalar counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarTag {
    /// Whatever its text reads as.
    None,
    /// A string.
    Str,
    /// A string that one step put into several fields, which are one to what changes them later.
    Shared,
    /// An integer.
    Int,
    /// A float.
    Float,
    /// A boolean.
    Bool,
    /// Null.
    Null,
    /// A date.
    Timestamp,
    /// Base64 of a string.
    Binary,
}

impl Scalar {
    /// A scalar without quotes that was written nowhere.
    pub fn new(text: impl Into<Text>, tag: ScalarTag) -> Self {
        Self { text: text.into(), tag, style: Style::Plain, mark: LineMark::default() }
    }

    /// A string.
    pub fn string(text: impl Into<Text>) -> Self {
        Self::new(text, ScalarTag::Str)
    }

    /// Text that means what it reads as.
    pub fn plain(text: impl Into<Text>) -> Self {
        Self::new(text, ScalarTag::None)
    }

    /// This scalar, written at a place.
    #[must_use]
    pub fn marked(self, mark: LineMark) -> Self {
        Self { mark, ..self }
    }

    /// Whether it says what another does, spelled alike but for quotes.
    pub fn says(&self, other: &Self) -> bool {
        self.text == other.text && (self.tag == other.tag || self.is_text() && other.is_text())
    }

    /// Whether it is null by its tag.
    pub fn is_null(&self) -> bool {
        self.tag == ScalarTag::Null
    }

    /// Whether it counts as a string, or as whatever it reads as.
    pub fn is_text(&self) -> bool {
        matches!(self.tag, ScalarTag::Str | ScalarTag::Shared | ScalarTag::None)
    }

    /// The value it stands for once it is written and read again.
    pub fn to_value(&self) -> Result<Value, Problem> {
        let broken;
        let text = if self.style == Style::Folded {
            broken = refolded(&self.text);
            &broken
        } else {
            self.text.as_str()
        };
        let plain = self.style == Style::Plain;
        let name = match self.tag {
            ScalarTag::Str | ScalarTag::Shared => return Ok(Value::String(text.to_owned())),
            ScalarTag::None if !plain || text.contains('\n') => {
                return Ok(Value::String(text.to_owned()));
            }
            ScalarTag::None => return scalar::plain(text),
            tag if scalar::implicit_tag(text) == tag => {
                return if plain {
                    scalar::plain(text)
                } else {
                    Ok(Value::String(text.to_owned()))
                };
            }
            ScalarTag::Int => "int",
            ScalarTag::Float => "float",
            ScalarTag::Bool => "bool",
            ScalarTag::Null => "null",
            ScalarTag::Timestamp => "timestamp",
            ScalarTag::Binary => "binary",
        };
        scalar::tagged(name, text)
    }

    /// Whether a reader of YAML 1.1 takes the text, without quotes, for something else than a
    /// string.
    pub fn reads_as_other(&self) -> bool {
        !self.text.is_empty() && scalar::needs_quotes(&self.text)
    }
}

impl Node {
    /// A string.
    pub fn string(text: impl Into<Text>) -> Self {
        Self::Scalar(Scalar::string(text))
    }

    /// An empty map.
    pub fn map() -> Self {
        Self::Map(Map::new())
    }

    /// Whether it is null by its tag.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(scalar) if scalar.is_null())
    }

    /// Whether nothing is in it: null, an empty map or list. An empty text is something.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Map(map) => map.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Scalar(scalar) => scalar.is_null(),
        }
    }

    /// The map, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The map, to change.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The scalar's text as written, whatever it counts as.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// A field of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key)
    }

    /// A field of a map, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.as_map_mut()?.get_mut(key)
    }

    /// A field several maps down.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Where it was written: for a map or list the first scalar in it.
    pub fn mark(&self) -> LineMark {
        let first = |nodes: &mut dyn Iterator<Item = &Self>| {
            nodes.map(Self::mark).find(|mark| *mark != LineMark::default()).unwrap_or_default()
        };
        match self {
            Self::Map(map) => first(&mut map.values()),
            Self::List(items) => first(&mut items.iter()),
            Self::Scalar(scalar) => scalar.mark,
        }
    }

    /// Takes over the marks of the scalars that are the same in an older form of it.
    pub fn keep_marks(&mut self, old: &Self) {
        match (self, old) {
            (Self::Map(map), Self::Map(old)) => map.iter_mut().for_each(|(key, node)| {
                if let Some(old) = old.get(key) {
                    node.keep_marks(old);
                }
            }),
            (Self::List(items), Self::List(old)) => {
                items.iter_mut().zip(old).for_each(|(node, old)| node.keep_marks(old));
            }
            (Self::Scalar(scalar), Self::Scalar(old)) if scalar.says(old) => {
                scalar.mark = old.mark;
            }
            _ => {}
        }
    }

    /// Calls a function with each scalar in it.
    pub fn each_scalar(&mut self, change: &mut dyn FnMut(&mut Scalar)) {
        match self {
            Self::Map(map) => map.values_mut().for_each(|node| node.each_scalar(change)),
            Self::List(items) => items.iter_mut().for_each(|node| node.each_scalar(change)),
            Self::Scalar(scalar) => change(scalar),
        }
    }

    /// The value it stands for.
    pub fn to_value(&self) -> Result<Value, Problem> {
        Ok(match self {
            Self::Map(map) => {
                let mut value = serde_json::Map::new();
                for (key, node) in map {
                    value.insert(key.to_string(), node.to_value()?);
                }
                Value::Object(value)
            }
            Self::List(items) => {
                Value::Array(items.iter().map(Self::to_value).collect::<Result<_, _>>()?)
            }
            Self::Scalar(scalar) => scalar.to_value()?,
        })
    }

    /// The node for a value.
    pub fn from_value(value: &Value) -> Self {
        let scalar = |text: &str, tag| Self::Scalar(Scalar::new(text, tag));
        match value {
            Value::Null => scalar("null", ScalarTag::Null),
            Value::Bool(true) => scalar("true", ScalarTag::Bool),
            Value::Bool(false) => scalar("false", ScalarTag::Bool),
            Value::Number(value) => {
                let text = number::write(value);
                let tag = scalar::implicit_tag(&text);
                scalar(&text, tag)
            }
            // Written plain where that is possible, as anything that was generated.
            Value::String(text) => {
                let style = Style::quoted(scalar::needs_quotes(text));
                Self::Scalar(Scalar { style, ..Scalar::string(text) })
            }
            Value::Array(items) => Self::List(items.iter().map(Self::from_value).collect()),
            Value::Object(map) => {
                Self::Map(map.iter().map(|(key, value)| (key, Self::from_value(value))).collect())
            }
        }
    }

    /// Spells each scalar as [`Self::from_value`] does; marks stay.
    pub fn respell(&mut self) -> Result<(), Problem> {
        match self {
            Self::Map(map) => map.values_mut().try_for_each(Self::respell),
            Self::List(items) => items.iter_mut().try_for_each(Self::respell),
            Self::Scalar(scalar) => {
                let mark = scalar.mark;
                *self = Self::from_value(&scalar.to_value()?);
                if let Self::Scalar(scalar) = self {
                    scalar.mark = mark;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_mean_what_they_are_written_as() {
        use ScalarTag as T;
        let cases = [
            ("5", T::Int, false, Some(json!(5))),
            ("5", T::Int, true, Some(json!("5"))),
            ("5", T::None, false, Some(json!(5))),
            ("5", T::None, true, Some(json!("5"))),
            ("5", T::Str, false, Some(json!("5"))),
            ("5", T::Float, false, Some(json!(5))),
            ("x", T::Int, false, None),
            ("", T::None, false, Some(json!(null))),
            ("", T::Null, false, Some(json!(null))),
            ("1.10", T::Float, false, Some(json!(1.1))),
            ("a\nb", T::None, false, Some(json!("a\nb"))),
        ];
        for (text, tag, quoted, want) in cases {
            let scalar = Scalar { style: Style::quoted(quoted), ..Scalar::new(text, tag) };
            assert_eq!(scalar.to_value().ok(), want, "{scalar:?}");
        }
    }

    #[test]
    fn marks_do_not_count_and_stay() {
        let mark = |line| LineMark::new(1, line);
        let scalar = |text, tag, line| Node::Scalar(Scalar::new(text, tag).marked(mark(line)));
        let list = |line| Node::List(vec![scalar("1.10", ScalarTag::Float, line)]);
        let mut node = Node::Map([("a", Node::map()), ("b", list(3))].into());
        assert_eq!(node.mark(), mark(3));
        assert_eq!(node, Node::Map([("a", Node::map()), ("b", list(4))].into()));
        node.respell().unwrap();
        assert_eq!(node.get("b"), Some(&Node::from_value(&json!([1.1]))));
        assert_eq!(node.mark(), mark(3));
        node.each_scalar(&mut |scalar| scalar.mark = mark(5));
        assert_eq!(node.mark(), mark(5));
    }

    #[test]
    fn values_come_back() {
        let value = json!({"a": [1, 1.5, "1", "yes", null, true], "b": {"c": "d"}});
        assert_eq!(Node::from_value(&value).to_value(), Ok(value));
    }
}
