//! Annotated tags in the object database. A tag counts as present when an anchor
//! `refs/plumb-tags/<commit>/<tag>` points to it; it lives as long as the commit does.

use std::fmt;
use std::sync::Arc;

use git2::{ObjectType, Oid, Repository};

use crate::mirror::{Store, bounded, remove_dir, remove_file};
use crate::unpack::MAX_COMMIT;
use crate::{CommitId, SourceError};

/// Below it lie the anchors of tags, by commit.
pub(crate) const TAG_ANCHORS: &str = "refs/plumb-tags/";

/// Tags that are kept of one commit. What is forgotten is fetched again when it is asked for.
const MAX_TAGS_KEPT: usize = 16;

/// The id of an annotated tag; displays as 40 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagId(CommitId);

impl TagId {
    pub(crate) fn of(oid: Oid) -> Self {
        Self(CommitId::of(oid))
    }

    pub(crate) fn oid(self) -> Oid {
        self.0.oid()
    }
}

impl fmt::Display for TagId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TagId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Store {
    /// Whether a tag of a commit is here.
    pub(crate) fn has_tag(repo: &Repository, commit: Oid, tag: Oid) -> bool {
        repo.refname_to_id(&anchor(commit, tag)).is_ok_and(|id| id == tag)
    }

    /// The tags that are here of a commit.
    pub(crate) fn tags(&self, repo: &Repository, commit: Oid) -> Result<Vec<Oid>, SourceError> {
        self.tags_below(repo, &format!("{TAG_ANCHORS}{commit}/*"))
    }

    /// All tags that are here.
    pub(crate) fn all_tags(&self, repo: &Repository) -> Result<Vec<Oid>, SourceError> {
        self.tags_below(repo, &format!("{TAG_ANCHORS}*"))
    }

    fn tags_below(&self, repo: &Repository, glob: &str) -> Result<Vec<Oid>, SourceError> {
        let read = || -> Result<Vec<Oid>, git2::Error> {
            let mut ids = Vec::new();
            for reference in repo.references_glob(glob)? {
                ids.extend(reference?.target());
            }
            Ok(ids)
        };
        read().map_err(|e| self.git_error("read", e))
    }

    /// Keeps a tag, which is here, for as long as its commit.
    pub(crate) fn anchor_tag(
        &self,
        repo: &Repository,
        commit: Oid,
        tag: Oid,
    ) -> Result<(), SourceError> {
        if self.tags(repo, commit)?.len() >= MAX_TAGS_KEPT {
            self.drop_tags(commit)?;
        }
        repo.reference(&anchor(commit, tag), tag, true, "")
            .map(|_| ())
            .map_err(|e| self.git_error("write", e))
    }

    /// Lets go of a tag of a commit.
    pub(crate) fn drop_tag(&self, commit: Oid, tag: Oid) -> Result<(), SourceError> {
        remove_file(&self.path.join(anchor(commit, tag)))
    }

    /// Lets go of the tags of a commit.
    pub(crate) fn drop_tags(&self, commit: Oid) -> Result<(), SourceError> {
        remove_dir(&self.path.join(format!("{TAG_ANCHORS}{commit}")))
    }

    /// Reads a commit or a tag as it was signed. libgit2 compares what it reads with the id.
    pub(crate) fn raw(
        &self,
        repo: &Repository,
        id: Oid,
        kind: ObjectType,
    ) -> Result<Vec<u8>, SourceError> {
        let corrupt = |e| self.git_error("read", e);
        let odb = repo.odb().map_err(corrupt)?;
        let (size, _) = odb.read_header(id).map_err(corrupt)?;
        bounded(size, MAX_COMMIT)?;
        let object = odb.read(id).map_err(corrupt)?;
        if object.kind() != kind {
            let why = format!("object {id} is not a {kind}");
            return Err(SourceError::Corrupt { source: Arc::new(git2::Error::from_str(&why)) });
        }
        Ok(object.data().to_vec())
    }
}

fn anchor(commit: Oid, tag: Oid) -> String {
    format!("{TAG_ANCHORS}{commit}/{tag}")
}
