//! What is asked for and what is found: references, commits and revisions.

use std::fmt;
use std::str::FromStr;

use crate::{SourceError, TagId};

/// A full SHA-1 commit id; displays as 40 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId([u8; 20]);

impl CommitId {
    pub(crate) fn oid(self) -> git2::Oid {
        // Twenty bytes always are an object id.
        git2::Oid::from_bytes(&self.0).unwrap_or(git2::Oid::ZERO_SHA1)
    }

    pub(crate) fn of(oid: git2::Oid) -> Self {
        let mut bytes = [0; 20];
        bytes.copy_from_slice(&oid.as_bytes()[..20]);
        Self(bytes)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CommitId {
    type Err = SourceError;

    /// Takes all 40 digits in either case, nothing shorter: an abbreviation can become ambiguous
    /// with the next push.
    fn from_str(text: &str) -> Result<Self, SourceError> {
        let bad = || SourceError::ShortCommit { id: text.into() };
        if text.len() != 40 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 20];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

/// What to follow in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// The branch that the remote's HEAD points to.
    Default,
    /// A branch by its short name.
    Branch(String),
    /// A tag by its short name; an annotated one stands for the commit it points to.
    Tag(String),
    /// The highest version among the tags inside a range.
    Semver {
        /// The range, as npm writes them.
        range: String,
        /// A regular expression that the whole tag must match. Its first group is the version, or
        /// without one all of it.
        pattern: Option<String>,
    },
    /// Any reference by its full name: `refs/pull/1/head`.
    Name(String),
    /// One commit by its full id. The branch appears in the revision; it is only needed to find
    /// the commit on servers without protocol version 2.
    Commit {
        /// The id, 40 hexadecimal digits.
        id: String,
        /// The branch that holds it.
        branch: Option<String>,
    },
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default branch"),
            Self::Branch(name) => write!(f, "branch {name:?}"),
            Self::Tag(name) => write!(f, "tag {name:?}"),
            Self::Semver { range, .. } => write!(f, "version {range:?}"),
            Self::Name(name) => write!(f, "reference {name:?}"),
            Self::Commit { id, .. } => write!(f, "commit {id}"),
        }
    }
}

impl Reference {
    /// The full name, for the references that have one.
    pub(crate) fn full_name(&self) -> Option<String> {
        match self {
            Self::Default => Some("HEAD".into()),
            Self::Branch(name) => Some(format!("refs/heads/{name}")),
            Self::Tag(name) => Some(format!("refs/tags/{name}")),
            Self::Name(name) => Some(name.clone()),
            Self::Semver { .. } | Self::Commit { .. } => None,
        }
    }

    /// Refuses names that Git could not have; they are written into the protocol's lines.
    pub(crate) fn check(&self) -> Result<(), SourceError> {
        let refuse = |reference: &str, why: &str| {
            Err(SourceError::InvalidReference { reference: reference.into(), why: why.into() })
        };
        match self {
            Self::Default | Self::Semver { .. } => Ok(()),
            Self::Name(name) if name == "HEAD" => Ok(()),
            Self::Name(name) if !name.starts_with("refs/") => refuse(
                name,
                "a full name starts with refs/, as in refs/heads/main or refs/pull/1/head",
            ),
            Self::Branch(name) | Self::Tag(name) | Self::Name(name) => {
                let full = self.full_name().unwrap_or_default();
                if git2::Reference::is_valid_name(&full) {
                    Ok(())
                } else {
                    refuse(name, "Git does not allow this name")
                }
            }
            Self::Commit { id, branch } => {
                id.parse::<CommitId>()?;
                match branch {
                    Some(branch) => Self::Branch(branch.clone()).check(),
                    None => Ok(()),
                }
            }
        }
    }
}

/// A commit together with the name it was found under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision {
    /// The branch or tag, the full reference name, or nothing for a bare commit.
    pub name: String,
    /// The commit.
    pub commit: CommitId,
}

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The commit and its name.
    pub revision: Revision,
    /// The annotated tag in between, where it was asked for and there is one.
    pub tag: Option<TagId>,
}

impl fmt::Display for Revision {
    /// `main@sha1:<hex>`, or `sha1:<hex>` without a name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.name.is_empty() {
            write!(f, "{}@", self.name)?;
        }
        write!(f, "sha1:{}", self.commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn commit_ids_are_whole_or_refused() {
        let id: CommitId = ID.to_uppercase().parse().unwrap();
        assert_eq!(id.to_string(), ID);
        assert_eq!(CommitId::of(id.oid()), id);
        for bad in ["", "0123456", &ID[1..], &format!("{ID}0"), &"g".repeat(40), &"é".repeat(20)] {
            let error = bad.parse::<CommitId>().unwrap_err();
            assert!(matches!(error, SourceError::ShortCommit { .. }), "{bad}");
            assert!(error.hint().unwrap().contains("40"));
        }
    }

    #[test]
    fn revisions_display_as_flux_users_know_them() {
        let commit = ID.parse().unwrap();
        for (name, want) in [
            ("main", format!("main@sha1:{ID}")),
            ("refs/pull/1/head", format!("refs/pull/1/head@sha1:{ID}")),
            ("", format!("sha1:{ID}")),
        ] {
            let name = name.to_owned();
            assert_eq!(Revision { name, commit }.to_string(), want);
        }
    }

    #[test]
    fn names_that_git_does_not_allow_are_refused() {
        let good = [
            Reference::Branch("feature/x".into()),
            Reference::Tag("v1.0.0".into()),
            Reference::Name("refs/pull/1/head".into()),
            Reference::Name("HEAD".into()),
        ];
        for reference in good {
            reference.check().unwrap();
        }
        let bad = [
            Reference::Branch("a\nb".into()),
            Reference::Branch(String::new()),
            Reference::Tag("a..b".into()),
            Reference::Name("main".into()),
            Reference::Name("refs/heads/a b".into()),
            Reference::Commit { id: ID.into(), branch: Some("a b".into()) },
        ];
        for reference in bad {
            let error = reference.check().unwrap_err();
            assert!(matches!(error, SourceError::InvalidReference { .. }), "{error}");
        }
    }
}
