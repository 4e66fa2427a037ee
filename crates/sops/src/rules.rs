//! Which values of a file are encrypted.

use regex::{Regex, RegexBuilder};

/// Bytes that an expression may take once it is compiled.
const EXPRESSION: usize = 1 << 20;

/// What the metadata says of values by the keys that lead to them.
#[derive(Debug)]
pub(crate) enum Rules {
    /// All but those below a key that ends so.
    Unless(String),
    /// Those below a key that ends so.
    If(String),
    /// All but those below a key that matches.
    UnlessMatch(Regex),
    /// Those below a key that matches.
    IfMatch(Regex),
    /// Comments decide. Which comment belongs to which value is nobody's certain knowledge; what
    /// opens was encrypted, and the MAC says whether all was.
    Comments,
}

impl Rules {
    /// An expression with what it is for, or nothing when it is none.
    pub(crate) fn expression(text: &str) -> Option<Regex> {
        RegexBuilder::new(text).size_limit(EXPRESSION).build().ok()
    }

    /// Whether the value at a path is encrypted, if the path alone tells.
    pub(crate) fn encrypted(&self, path: &[String]) -> Option<bool> {
        let ends = |end: &String| path.iter().any(|key| key.ends_with(end.as_str()));
        let matches = |regex: &Regex| path.iter().any(|key| regex.is_match(key));
        match self {
            Self::Unless(end) => Some(!ends(end)),
            Self::If(end) => Some(ends(end)),
            Self::UnlessMatch(regex) => Some(!matches(regex)),
            Self::IfMatch(regex) => Some(matches(regex)),
            Self::Comments => None,
        }
    }
}
