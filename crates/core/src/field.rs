//! Paths to fields inside an object.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A key of a map.
    Key(String),
    /// A position in a list, counted from zero.
    Index(usize),
}

/// Where a field is inside its object; displays as people write it: `spec.ports[0].name`, and
/// `metadata.labels["app.kubernetes.io/name"]` for keys that are no plain words.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<Step>);

impl FieldPath {
    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path of map keys.
    pub fn keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(keys.into_iter().map(|key| Step::Key(key.to_owned())).collect())
    }

    /// This path with one more step.
    #[must_use]
    pub fn join(&self, step: Step) -> Self {
        let mut path = self.clone();
        path.0.push(step);
        path
    }

    /// Adds a step in place.
    pub fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    /// Takes the last step off in place.
    pub fn pop(&mut self) -> Option<Step> {
        self.0.pop()
    }

    /// The steps from the object inwards.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The value at this path, if there is one.
    pub fn get<'v>(&self, value: &'v serde_json::Value) -> Option<&'v serde_json::Value> {
        self.0.iter().try_fold(value, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
        })
    }

    /// The number that stands for this path in side tables.
    pub fn hash(&self) -> FieldHash {
        self.0.iter().fold(FieldHash::root(), |hash, step| match step {
            Step::Key(key) => hash.key(key),
            Step::Index(index) => hash.index(*index),
        })
    }
}

/// A number that stands for a [`FieldPath`] in side tables of one process, made step by step:
/// equal paths give equal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldHash(u64);

impl FieldHash {
    /// The number of the object itself.
    pub fn root() -> Self {
        Self(0)
    }

    /// The number of the path with one more key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.step(|hasher| key.hash(hasher))
    }

    /// The number of the path with one more position.
    #[must_use]
    pub fn index(self, index: usize) -> Self {
        self.step(|hasher| index.hash(hasher))
    }

    fn step(self, write: impl FnOnce(&mut DefaultHasher)) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        write(&mut hasher);
        Self(hasher.finish())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if is_word(key) => {
                    write!(f, "{}{key}", if i == 0 { "" } else { "." })?;
                }
                Step::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}

fn is_word(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_as_people_write_it() {
        let path = FieldPath::keys(["spec", "containers"])
            .join(Step::Index(2))
            .join(Step::Key("image".into()));
        assert_eq!(path.to_string(), "spec.containers[2].image");
        let path = FieldPath::keys(["metadata", "labels", "app.kubernetes.io/name"]);
        assert_eq!(path.to_string(), r#"metadata.labels["app.kubernetes.io/name"]"#);
        assert_eq!(FieldPath::root().to_string(), "");
    }

    #[test]
    fn gets_values() {
        let value = serde_json::json!({"a": [{"b": 1}]});
        let path = FieldPath::keys(["a"]).join(Step::Index(0)).join(Step::Key("b".into()));
        assert_eq!(path.get(&value), Some(&serde_json::json!(1)));
        assert_eq!(FieldPath::keys(["a", "b"]).get(&value), None);
    }
}
