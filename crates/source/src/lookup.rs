//! From a reference and a listing to one commit, or to words that say why there is none.

use git2::Oid;

use crate::version::Versions;
use crate::wire::Listed;
use crate::{Reference, SourceError};

const HEADS: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";

/// How many names an error lists.
const SHOWN: usize = 5;

/// A reference in terms of a listing.
pub(crate) enum Query<'r> {
    /// One full name.
    Exact(&'r Reference, String),
    /// The highest tag of a range.
    Highest(Versions),
}

/// What a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// As the revision shows it.
    pub(crate) name: String,
    pub(crate) id: Oid,
    pub(crate) peeled: Option<Oid>,
}

impl<'r> Query<'r> {
    pub(crate) fn new(reference: &'r Reference) -> Result<Self, SourceError> {
        match reference {
            Reference::Semver { range, pattern } => {
                Ok(Self::Highest(Versions::parse(range, pattern.as_deref())?))
            }
            _ => Ok(Self::Exact(reference, reference.full_name().unwrap_or_default())),
        }
    }

    /// What to ask the server for.
    pub(crate) fn prefixes(&self) -> Vec<String> {
        match self {
            Self::Exact(_, name) => vec![name.clone()],
            Self::Highest(versions) => vec![format!("{TAGS}{}", versions.prefix())],
        }
    }

    /// What it names. `go_on` is asked while that is looked for.
    pub(crate) fn pick(
        &self,
        refs: &[Listed],
        go_on: impl Fn() -> Result<(), SourceError>,
    ) -> Result<Found, SourceError> {
        match self {
            Self::Exact(reference, name) => {
                let listed = refs.iter().find(|listed| listed.name == *name);
                let listed = listed.ok_or_else(|| SourceError::RefNotFound {
                    reference: reference.to_string(),
                    hint: None,
                })?;
                let short = match reference {
                    Reference::Branch(name) | Reference::Tag(name) => name.as_str(),
                    Reference::Default => listed
                        .symref
                        .as_deref()
                        .map_or("HEAD", |target| target.strip_prefix(HEADS).unwrap_or(target)),
                    _ => name,
                };
                Ok(found(short, listed))
            }
            Self::Highest(versions) => {
                let tags = refs.iter().filter_map(|r| r.name.strip_prefix(TAGS));
                let tag = versions.highest(tags, go_on)?;
                refs.iter()
                    .find(|listed| listed.name.strip_prefix(TAGS) == Some(tag))
                    .map(|listed| found(tag, listed))
                    .ok_or(SourceError::EmptyRepository)
            }
        }
    }
}

fn found(name: &str, listed: &Listed) -> Found {
    Found { name: name.into(), id: listed.id, peeled: listed.peeled }
}

/// Says about a reference that was not found what the repository has instead.
pub(crate) fn explain(reference: &Reference, refs: &[Listed], error: SourceError) -> SourceError {
    if refs.is_empty() {
        return SourceError::EmptyRepository;
    }
    if matches!(error, SourceError::NoSemverMatch { .. }) {
        return error;
    }
    let names = |prefix: &'static str| refs.iter().filter_map(move |r| r.name.strip_prefix(prefix));
    let other = match reference {
        Reference::Branch(name) if names(TAGS).any(|tag| tag == name) => {
            Some(format!("there is a tag {name:?}; use ref.tag"))
        }
        Reference::Tag(name) if names(HEADS).any(|branch| branch == name) => {
            Some(format!("there is a branch {name:?}; use ref.branch"))
        }
        Reference::Branch(name) | Reference::Tag(name) if name.starts_with("refs/") => {
            Some("a full name goes into ref.name".into())
        }
        Reference::Default => Some("the remote's HEAD points to no branch; name one".into()),
        _ => None,
    };
    let listing = || {
        let (what, all): (_, Vec<&str>) = match reference {
            Reference::Tag(_) => ("tags", names(TAGS).collect()),
            _ => ("branches", names(HEADS).collect()),
        };
        if all.is_empty() {
            return format!("the repository has no {what}");
        }
        let more = if all.len() > SHOWN { ", …" } else { "" };
        let shown = all[..all.len().min(SHOWN)].join(", ");
        format!("it has the {what}: {shown}{more}")
    };
    SourceError::RefNotFound {
        reference: reference.to_string(),
        hint: Some(other.unwrap_or_else(listing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(names: &[&str]) -> Vec<Listed> {
        names
            .iter()
            .map(|name| Listed {
                name: (*name).into(),
                id: Oid::from_bytes(&[7; 20]).unwrap(),
                peeled: None,
                symref: (*name == "HEAD").then(|| "refs/heads/main".into()),
            })
            .collect()
    }

    #[test]
    fn names_in_revisions() {
        let all = refs(&["HEAD", "refs/heads/main", "refs/heads/main-2", "refs/tags/v1.0.0"]);
        for (reference, name) in [
            (Reference::Default, "main"),
            (Reference::Branch("main".into()), "main"),
            (Reference::Tag("v1.0.0".into()), "v1.0.0"),
            (Reference::Semver { range: "1.x".into(), pattern: None }, "v1.0.0"),
            (Reference::Name("refs/heads/main".into()), "refs/heads/main"),
        ] {
            let query = Query::new(&reference).unwrap();
            assert_eq!(query.pick(&all, || Ok(())).unwrap().name, name);
        }
        let query = Query::new(&Reference::Default).unwrap();
        let mut detached = refs(&["HEAD"]);
        detached[0].symref = None;
        assert_eq!(query.pick(&detached, || Ok(())).unwrap().name, "HEAD");
    }

    #[test]
    fn not_found_says_what_there_is() {
        let all = refs(&["HEAD", "refs/heads/main", "refs/heads/dev", "refs/tags/v1"]);
        for (reference, want) in [
            (Reference::Branch("v1".into()), "there is a tag \"v1\"; use ref.tag"),
            (Reference::Tag("dev".into()), "there is a branch \"dev\"; use ref.branch"),
            (Reference::Branch("refs/heads/main".into()), "a full name goes into ref.name"),
            (Reference::Branch("x".into()), "it has the branches: main, dev"),
            (Reference::Tag("x".into()), "it has the tags: v1"),
        ] {
            let query = Query::new(&reference).unwrap();
            let error = query.pick(&[], || Ok(())).unwrap_err();
            let error = explain(&reference, &all, error);
            assert_eq!(error.hint().unwrap(), want);
            assert_eq!(error.to_string(), format!("{reference} was not found in the repository"));
        }
        let error = explain(
            &Reference::Default,
            &[],
            SourceError::RefNotFound { reference: String::new(), hint: None },
        );
        assert!(matches!(error, SourceError::EmptyRepository));
    }
}
