//! Reads values into structs the way Go's JSON decoder does: letter case of fields does not
//! matter, null is nothing, and unknown fields are errors only where the reference is strict.

use std::collections::BTreeMap;

use plumb_core::{FieldPath, FieldPlaces, Place, Step};
use plumb_yaml::Text;
use serde_json::Value;

use crate::error::{Error, Problem, Result};

/// Where a value stands, for messages.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub(crate) place: &'a Place,
    pub(crate) fields: &'a FieldPlaces,
    pub(crate) path: FieldPath,
    /// Whether unknown fields are errors.
    pub(crate) strict: bool,
    /// Whether numbers and booleans are taken where strings belong.
    pub(crate) lenient: bool,
}

impl At<'_> {
    fn join(&self, step: Step) -> Self {
        Self { path: self.path.join(step), ..self.clone() }
    }

    /// The nearest recorded place around the field.
    fn place(&self) -> Place {
        self.fields.nearest(&self.path).unwrap_or_else(|| self.place.clone())
    }

    fn wrong(&self, wanted: &'static str, found: &Value) -> Error {
        let field = match self.path.to_string() {
            path if path.is_empty() => "the file".to_owned(),
            path => path,
        };
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "a map",
        };
        Error::from(Problem::WrongType { field, wanted, found }).at(&self.place())
    }
}

/// What can be read from a value that is not null.
pub(crate) trait Decode: Sized + Default {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self>;
}

impl Decode for String {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(_) | Value::Bool(_) if at.lenient => Ok(value.to_string()),
            _ => Err(at.wrong("a string", value)),
        }
    }
}

impl Decode for Text {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        String::decode(at, value).map(Self::from)
    }
}

impl Decode for bool {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        value.as_bool().ok_or_else(|| at.wrong("true or false", value))
    }
}

impl Decode for i64 {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        value.as_i64().ok_or_else(|| at.wrong("an integer", value))
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        T::decode(at, value).map(Some)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        let items = value.as_array().ok_or_else(|| at.wrong("a list", value))?;
        items
            .iter()
            .enumerate()
            .map(|(i, item)| match item {
                Value::Null => Ok(T::default()),
                item => T::decode(&at.join(Step::Index(i)), item),
            })
            .collect()
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| at.wrong("a map", value))?;
        map.iter()
            .map(|(key, value)| {
                let value = match value {
                    Value::Null => T::default(),
                    value => T::decode(&at.join(Step::Key(key.clone())), value)?,
                };
                Ok((key.clone(), value))
            })
            .collect()
    }
}

/// A value and where it stands, if it is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) place: Option<Place>,
}

impl<T: Decode> Decode for Placed<T> {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        Ok(Self { value: T::decode(at, value)?, place: Some(at.place()) })
    }
}

impl<T> std::ops::Deref for Placed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Placed<T> {
    /// Where it stands, or where what it is in stands.
    pub(crate) fn place_or<'a>(&'a self, around: &'a Place) -> &'a Place {
        self.place.as_ref().unwrap_or(around)
    }
}

/// A value that is only looked at later.
#[derive(Debug, Clone, Default)]
pub(crate) struct Any;

impl Decode for Any {
    fn decode(_: &At<'_>, _: &Value) -> Result<Self> {
        Ok(Self)
    }
}

/// The fields of one map, taken one by one.
pub(crate) struct Fields<'a> {
    at: At<'a>,
    entries: Vec<(&'a str, &'a Value, bool)>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(at: &At<'a>, value: &'a Value) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| at.wrong("a map", value))?;
        let entries = map.iter().map(|(key, value)| (key.as_str(), value, false)).collect();
        Ok(Self { at: at.clone(), entries, known: Vec::new() })
    }

    /// Takes a field; its default when it is absent or null.
    pub(crate) fn take<T: Decode>(&mut self, name: &'static str) -> Result<T> {
        self.known.push(name);
        let mut found = T::default();
        for (key, value, used) in &mut self.entries {
            if !key.eq_ignore_ascii_case(name) {
                continue;
            }
            *used = true;
            if !value.is_null() {
                found = T::decode(&self.at.join(Step::Key((*key).to_owned())), value)?;
            }
        }
        Ok(found)
    }

    /// Complains about fields that nobody took.
    pub(crate) fn finish(self) -> Result<()> {
        let Some((key, ..)) = self.entries.iter().find(|(.., used)| !used) else {
            return Ok(());
        };
        if !self.at.strict {
            return Ok(());
        }
        let at = self.at.join(Step::Key((*key).to_owned()));
        let nearest = nearest(key, &self.known);
        Err(Error::from(Problem::UnknownField { field: at.path.to_string(), nearest })
            .at(&at.place()))
    }
}

/// The known name that takes the fewest changes, if they are few.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    known
        .iter()
        .map(|known| (distance(&name, &known.to_ascii_lowercase()), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .map(|(_, known)| known)
}

/// Insertions, deletions and replacements of bytes between two names.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = replaced.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_nearest_field() {
        let known = ["resources", "namePrefix", "patches"];
        assert_eq!(nearest("resource", &known), Some("resources"));
        assert_eq!(nearest("nameprefx", &known), Some("namePrefix"));
        assert_eq!(nearest("zzz", &known), None);
    }
}
