//! What can be wrong with a file, and where.

use std::fmt;

use plumb_core::{ErrorClass, Place};

use crate::Document;

/// One problem of one file.
///
/// It never quotes a value: the value may be a Secret's. Keys and tags are named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct YamlError {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub problem: Problem,
}

impl YamlError {
    /// What to do about it, where that is not plain from the problem.
    pub fn hint(&self) -> Option<String> {
        self.problem.hint()
    }

    /// Only a change of the file helps.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::WaitForUser
    }
}

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is no YAML.
    #[error("invalid YAML: {0}")]
    Syntax(String),
    /// The text looks like JSON and is none.
    #[error("invalid JSON: {0}")]
    Json(String),
    /// The bytes are no UTF-8.
    #[error("the file is not UTF-8 text")]
    NotUtf8,
    /// A `%YAML` or `%TAG` line.
    #[error("YAML directives are not allowed")]
    Directive,
    /// Content on the line of a `---`.
    #[error("there is content behind `---` on the same line")]
    ContentAfterSeparator,
    /// A map names a key twice.
    #[error("key {key:?} is already defined on line {first_line}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The line that has it first.
        first_line: u32,
    },
    /// A plain key that reads as something other than a string.
    #[error("key {key:?} is {found}, keys must be strings")]
    KeyNotString {
        /// The key as written.
        key: String,
        /// What it reads as, with its article.
        found: &'static str,
    },
    /// A map or a list stands where a key belongs.
    #[error("a key must be a string, not {found}")]
    KeyNotScalar {
        /// What stands there, with its article.
        found: &'static str,
    },
    /// `<<` has a value that cannot be merged.
    #[error("`<<` takes a map or a list of maps")]
    MergeNotMap,
    /// An alias without an anchor before it in the same document. Its name is not told: it may be
    /// a password that starts with `*` and lacks its quotes.
    #[error("the alias has no anchor before it in this document")]
    UnknownAnchor,
    /// An alias inside the very node that it repeats.
    #[error("the alias repeats the value that contains it")]
    RecursiveAlias,
    /// A scalar that is not what its tag says.
    #[error("the value is not {0}, as its tag says")]
    TagMismatch(String),
    /// `!!binary` data that is no base64 or no UTF-8 text.
    #[error("the !!binary value is not base64 of UTF-8 text")]
    Binary,
    /// `.inf` or `.nan`, which JSON cannot carry.
    #[error("infinity and not-a-number have no JSON form")]
    NotFinite,
    /// A document that is no map.
    #[error("a manifest must be a map, not {found}")]
    NotAMap {
        /// What it is, with its article.
        found: &'static str,
    },
    /// A `List` whose `items` is no list.
    #[error("items of a {kind} must be a list, not {found}")]
    ItemsNotAList {
        /// The kind.
        kind: String,
        /// What it is, with its article.
        found: &'static str,
    },
    /// The file or the expanded text is too long.
    #[error("more than {limit} bytes")]
    TooManyBytes {
        /// The limit.
        limit: usize,
    },
    /// Maps and lists are nested too deep.
    #[error("maps and lists are nested more than {limit} deep")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Too many values, mostly by aliases of aliases.
    #[error("more than {limit} values once aliases are expanded")]
    TooManyNodes {
        /// The limit.
        limit: usize,
    },
    /// Too many documents.
    #[error("more than {limit} documents in one file")]
    TooManyDocuments {
        /// The limit.
        limit: usize,
    },
}

impl Problem {
    /// What to do about it, where that is not plain from the problem.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::KeyNotString { key, .. } => format!("quote it: {key:?}"),
            Self::UnknownAnchor => "quote the value if it is no alias".into(),
            Self::NotFinite => "quote it if it is meant as a string".into(),
            Self::ContentAfterSeparator => "put it on the next line".into(),
            Self::Directive => "remove the line that starts with %".into(),
            Self::DuplicateKey { .. } => "remove one of the two".into(),
            Self::NotUtf8 => "save the file as UTF-8".into(),
            Self::Syntax(text) if text.contains("tab") => "indent with spaces".into(),
            _ => return None,
        };
        Some(text)
    }
}

/// All that was found wrong in one file.
#[derive(Debug, Clone, PartialEq)]
pub struct YamlErrors<V = serde_json::Value> {
    /// The problems in the order of the file; never empty.
    pub problems: Vec<YamlError>,
    /// How many more there are than `problems` holds.
    pub omitted: usize,
    /// The documents without a problem: to look for more problems in, never to be applied.
    pub sound: Vec<Document<V>>,
}

impl<V> fmt::Display for YamlErrors<V> {
    /// The first problem and the count of the others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.problems.first() {
            fmt::Display::fmt(first, f)?;
        }
        match self.problems.len().saturating_sub(1) + self.omitted {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl<V: fmt::Debug> std::error::Error for YamlErrors<V> {}
