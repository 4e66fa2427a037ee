//! A commit's tree, read straight from the object database.

use std::fmt;
use std::sync::Arc;

use git2::{Oid, Repository};
use plumb_core::{ContentId, Entry, EntryKind, RelPath, Tree, TreeError};

use crate::mirrors::Mirror;
use crate::{CommitId, SourceError};

/// One commit of a mirror, opened for reading by one thread. While it lives, its commit stays in
/// the cache.
pub struct Snapshot {
    repo: Repository,
    commit: CommitId,
    root: Oid,
    mirror: Arc<Mirror>,
}

/// What a commit says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// The first line of the message.
    pub subject: String,
    /// `Name <mail>` of who wrote the change.
    pub author: String,
    /// When it was committed, in seconds since 1970 UTC.
    pub time: i64,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.commit).finish()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.mirror.unpin(self.commit.oid());
    }
}

impl Snapshot {
    /// Opens a commit that the caller has pinned in the mirror.
    pub(crate) fn open(
        repo: Repository,
        commit: CommitId,
        mirror: Arc<Mirror>,
    ) -> Result<Self, SourceError> {
        let mut snapshot = Self { repo, commit, root: Oid::ZERO_SHA1, mirror };
        let root = snapshot
            .repo
            .find_commit(commit.oid())
            .and_then(|commit| commit.tree())
            .map(|tree| tree.id());
        match root {
            Ok(root) => {
                snapshot.root = root;
                Ok(snapshot)
            }
            Err(error) => {
                snapshot.mirror.doubt();
                Err(snapshot.mirror.store.git_error("read", error))
            }
        }
    }

    /// The commit that this is.
    pub fn commit(&self) -> &CommitId {
        &self.commit
    }

    /// What the commit says about itself.
    pub fn info(&self) -> Result<CommitInfo, SourceError> {
        let commit = self
            .repo
            .find_commit(self.commit.oid())
            .map_err(|e| self.mirror.store.git_error("read", e))?;
        let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
        let author = commit.author();
        Ok(CommitInfo {
            subject: message.trim().lines().next().unwrap_or("").to_owned(),
            author: format!(
                "{} <{}>",
                String::from_utf8_lossy(author.name_bytes()),
                String::from_utf8_lossy(author.email_bytes())
            ),
            time: commit.time().seconds(),
        })
    }

    fn failed(&self, path: &RelPath, error: git2::Error) -> TreeError {
        self.mirror.doubt();
        TreeError::Read {
            path: path.clone(),
            source: Box::new(self.mirror.store.git_error("read", error)),
        }
    }

    /// The kind and object of a path.
    fn find(&self, path: &RelPath) -> Result<Option<(EntryKind, Oid)>, TreeError> {
        let mut at = (EntryKind::Directory, self.root);
        for segment in path.segments() {
            if at.0 != EntryKind::Directory {
                return Ok(None);
            }
            let tree = self.repo.find_tree(at.1).map_err(|e| self.failed(path, e))?;
            match tree.get_name(segment) {
                Some(entry) => at = (kind(entry.filemode()), entry.id()),
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }
}

impl Tree for Snapshot {
    fn entry(&self, path: &RelPath) -> Result<Option<Entry>, TreeError> {
        Ok(self.find(path)?.map(|(kind, id)| entry(kind, id)))
    }

    fn list(&self, dir: &RelPath) -> Result<Vec<(String, Entry)>, TreeError> {
        let id = match self.find(dir)? {
            Some((EntryKind::Directory, id)) => id,
            Some(_) => {
                return Err(TreeError::WrongKind { path: dir.clone(), wanted: "directory" });
            }
            None => return Err(TreeError::NotFound(dir.clone())),
        };
        let tree = self.repo.find_tree(id).map_err(|e| self.failed(dir, e))?;
        let mut entries: Vec<(String, Entry)> = tree
            .iter()
            .filter_map(|e| {
                let name = std::str::from_utf8(e.name_bytes()).ok()?;
                // Git refuses to write such names; a made-up tree can still hold them, and paths
                // built from them would point elsewhere.
                let plain = !matches!(name, "" | "." | "..") && !name.contains('/');
                plain.then(|| (name.to_owned(), entry(kind(e.filemode()), e.id())))
            })
            .collect();
        // Git sorts directories as if their names ended in a slash.
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    fn read(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, TreeError> {
        let id = match self.find(path)? {
            Some((EntryKind::File | EntryKind::Symlink, id)) => id,
            Some(_) => {
                return Err(TreeError::WrongKind { path: path.clone(), wanted: "file" });
            }
            None => return Err(TreeError::NotFound(path.clone())),
        };
        let odb = self.repo.odb().map_err(|e| self.failed(path, e))?;
        let (size, _) = odb.read_header(id).map_err(|e| self.failed(path, e))?;
        let size = size as u64;
        if size > limit {
            return Err(TreeError::TooLarge { path: path.clone(), size, limit });
        }
        let object = odb.read(id).map_err(|e| self.failed(path, e))?;
        Ok(object.data().to_vec())
    }
}

fn entry(kind: EntryKind, id: Oid) -> Entry {
    Entry { kind, id: ContentId(*CommitId::of(id).as_bytes()) }
}

fn kind(mode: i32) -> EntryKind {
    match mode & 0o170_000 {
        0o040_000 => EntryKind::Directory,
        0o120_000 => EntryKind::Symlink,
        0o160_000 => EntryKind::Submodule,
        _ => EntryKind::File,
    }
}
