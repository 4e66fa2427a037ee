//! Paths inside a tree.

use std::fmt;

/// A path relative to the root of a tree, in normal form: no leading `/`, no `.`, no `..`, no empty
/// segment. The empty path is the root and displays as `.`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);

/// Why a text is no path inside a tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    /// The path climbs above the root.
    #[error("path {0:?} leaves the repository")]
    Escapes(String),
    /// The path starts at the root of a file system.
    #[error("path {0:?} is absolute; give it relative to the root of the repository")]
    Absolute(String),
    /// The path holds a NUL byte.
    #[error("path {0:?} contains a NUL byte")]
    Nul(String),
}

impl RelPath {
    /// The root of the tree.
    pub fn root() -> Self {
        Self::default()
    }

    /// Normalises `.`, `..` and doubled slashes; refuses what leaves the root.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        Self::root().resolve(text)
    }

    /// This path followed by a relative one, which may climb with `..` but not above the root.
    pub fn resolve(&self, text: &str) -> Result<Self, PathError> {
        if text.starts_with('/') {
            return Err(PathError::Absolute(text.into()));
        }
        if text.contains('\0') {
            return Err(PathError::Nul(text.into()));
        }
        let mut segments: Vec<&str> = self.segments().collect();
        for segment in text.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop().ok_or_else(|| PathError::Escapes(text.into()))?;
                }
                name => segments.push(name),
            }
        }
        Ok(Self(segments.join("/")))
    }

    /// One segment below; `name` is a single file name as a tree lists it.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.into()) } else { Self(format!("{}/{name}", self.0)) }
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        Some(Self(self.0.rsplit_once('/').map_or("", |(dir, _)| dir).into()))
    }

    /// The last segment; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// The segments from the root down.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `self` is `dir` or lies below it.
    pub fn is_within(&self, dir: &Self) -> bool {
        dir.is_root()
            || self
                .0
                .strip_prefix(&dir.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The text without a leading `./`; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_and_refuses() {
        let cases = [
            ("", Ok("")),
            ("./apps//web/", Ok("apps/web")),
            ("apps/../infra/.", Ok("infra")),
            ("..", Err(PathError::Escapes("..".into()))),
            ("a/../../b", Err(PathError::Escapes("a/../../b".into()))),
            ("/etc", Err(PathError::Absolute("/etc".into()))),
        ];
        for (text, want) in cases {
            assert_eq!(
                RelPath::parse(text).as_ref().map(RelPath::as_str),
                want.as_ref().map(|s| *s)
            );
        }
        let base = RelPath::parse("apps/web/overlay").unwrap();
        assert_eq!(base.resolve("../base").unwrap().as_str(), "apps/web/base");
        assert!(base.resolve("../../../..").is_err());
    }

    #[test]
    fn knows_its_place() {
        let path = RelPath::parse("apps/web").unwrap();
        assert!(path.is_within(&RelPath::parse("apps").unwrap()));
        assert!(path.is_within(&path));
        assert!(
            !RelPath::parse("apps-old/web").unwrap().is_within(&RelPath::parse("apps").unwrap())
        );
        assert_eq!(path.parent().unwrap().as_str(), "apps");
        assert_eq!(path.parent().unwrap().parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
        assert_eq!((path.name(), RelPath::root().name()), ("web", ""));
    }
}
