//! A commit's tree, read straight from the object database, with the trees of its submodules where
//! that is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use git2::{Oid, Repository};
use plumb_core::{ContentId, Entry, EntryKind, Hasher, RelPath, Tree, TreeError};

use crate::listings::Listing;
use crate::mirrors::Mirror;
use crate::submodules::Module;
use crate::{CommitId, SourceError};

/// One commit of a mirror, opened for reading by one thread. While it lives, its commit stays in
/// the cache, and so do those of its submodules.
pub struct Snapshot {
    top: Part,
    /// The submodules by path; those in others come after them.
    modules: Vec<(RelPath, Part)>,
    /// Directories that are not what their object says, since submodules are in them, with ids of
    /// their own.
    mixed: BTreeMap<RelPath, ContentId>,
}

/// One commit of one repository.
pub(crate) struct Part {
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
        f.debug_tuple("Snapshot").field(&self.top.commit).finish()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.mirror.unpin(self.commit.oid());
    }
}

impl Part {
    /// Opens a commit that the caller has pinned in the mirror.
    pub(crate) fn open(
        repo: Repository,
        commit: CommitId,
        mirror: Arc<Mirror>,
    ) -> Result<Self, SourceError> {
        let mut part = Self { repo, commit, root: Oid::ZERO_SHA1, mirror };
        let root = part.repo.find_commit(commit.oid()).map(|commit| commit.tree_id());
        part.root = root.map_err(|error| part.failed(error))?;
        Ok(part)
    }

    /// What should be here cannot be read.
    fn failed(&self, error: git2::Error) -> SourceError {
        self.mirror.doubt();
        self.mirror.store.git_error("read", error)
    }

    /// The kind and object of a path, given segment by segment.
    fn find<'s>(
        &self,
        path: impl Iterator<Item = &'s str>,
    ) -> Result<Option<(EntryKind, Oid)>, SourceError> {
        let mut at = (EntryKind::Directory, self.root);
        for segment in path {
            if at.0 != EntryKind::Directory {
                return Ok(None);
            }
            match self.listing(at.1)?.get(segment.as_bytes()) {
                Some((mode, id)) => at = (kind(mode), id),
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn listing(&self, id: Oid) -> Result<Arc<Listing>, SourceError> {
        self.mirror.listing(&self.repo, id).map_err(|e| self.failed(e))
    }

    pub(crate) fn mirror(&self) -> Arc<Mirror> {
        Arc::clone(&self.mirror)
    }

    pub(crate) fn commit(&self) -> CommitId {
        self.commit
    }

    /// What is recorded of the commit's submodules.
    pub(crate) fn modules(&self) -> Option<Vec<Module>> {
        self.mirror.store.modules(self.commit.oid())
    }

    /// A snapshot of it alone.
    pub(crate) fn alone(self) -> Snapshot {
        Snapshot { top: self, modules: Vec::new(), mixed: BTreeMap::new() }
    }

    /// The commit that a path has as a submodule.
    pub(crate) fn gitlink(&self, path: &RelPath) -> Result<Option<CommitId>, SourceError> {
        let found = self.find(path.segments())?;
        Ok(found.filter(|(kind, _)| *kind == EntryKind::Submodule).map(|(_, id)| CommitId::of(id)))
    }

    /// Looks up what directories have, and keeps the last one open.
    pub(crate) fn directories(&self) -> Directories<'_> {
        Directories { part: self, last: None }
    }

    /// The content of a file at the root; `None` when there is none of that name, and the size of
    /// one that is larger than the limit.
    pub(crate) fn read_at_root(
        &self,
        name: &str,
        limit: u64,
    ) -> Result<Option<Result<Vec<u8>, u64>>, SourceError> {
        match self.find([name].into_iter())? {
            Some((EntryKind::File, id)) => self.blob(id, limit).map(Some),
            _ => Ok(None),
        }
    }

    /// The content of a blob, or its size if that is beyond the limit.
    fn blob(&self, id: Oid, limit: u64) -> Result<Result<Vec<u8>, u64>, SourceError> {
        let odb = self.repo.odb().map_err(|e| self.failed(e))?;
        let (size, _) = odb.read_header(id).map_err(|e| self.failed(e))?;
        let size = size as u64;
        if size > limit {
            return Ok(Err(size));
        }
        let object = odb.read(id).map_err(|e| self.failed(e))?;
        Ok(Ok(object.data().to_vec()))
    }
}

/// Directories of a commit, one after the other.
pub(crate) struct Directories<'p> {
    part: &'p Part,
    last: Option<(RelPath, Option<Arc<Listing>>)>,
}

impl Directories<'_> {
    /// The commit that a path has as a submodule.
    pub(crate) fn gitlink(&mut self, path: &RelPath) -> Result<Option<CommitId>, SourceError> {
        let Some(dir) = path.parent() else { return Ok(None) };
        if self.last.as_ref().is_none_or(|(last, _)| *last != dir) {
            let tree = match self.part.find(dir.segments())? {
                Some((EntryKind::Directory, id)) => Some(self.part.listing(id)?),
                _ => None,
            };
            self.last = Some((dir, tree));
        }
        let tree = self.last.as_ref().and_then(|(_, tree)| tree.as_ref());
        let name = path.segments().last().unwrap_or_default();
        let entry = tree.and_then(|tree| tree.get(name.as_bytes()));
        let link = entry.filter(|(mode, _)| kind(*mode) == EntryKind::Submodule);
        Ok(link.map(|(_, id)| CommitId::of(id)))
    }
}

impl Snapshot {
    /// A commit with its submodules, each of which stands where the commit has it. `None` when one of
    /// them is elsewhere.
    pub(crate) fn of(
        top: Part,
        mut modules: Vec<(RelPath, Part)>,
    ) -> Result<Option<Self>, SourceError> {
        // Those in others after them.
        modules.sort_by(|a, b| a.0.cmp(&b.0));
        let mut snapshot = Self { top, modules: Vec::new(), mixed: BTreeMap::new() };
        for (path, part) in modules {
            let (owner, rest) = snapshot.part(&path);
            if owner.gitlink(&rest)? != Some(part.commit) {
                return Ok(None);
            }
            snapshot.modules.push((path, part));
        }
        snapshot.mix()?;
        Ok(Some(snapshot))
    }

    /// Names the directories that submodules are in. A listing with equal ids is equal all the way
    /// down, and what their objects say is the same with submodules and without.
    fn mix(&mut self) -> Result<(), SourceError> {
        let mut mixed: BTreeMap<RelPath, Hasher> = BTreeMap::new();
        for (path, part) in &self.modules {
            let mut dir = path.parent();
            while let Some(at) = dir {
                let hasher = mixed.entry(at.clone()).or_default();
                hasher.part(path.as_str().as_bytes()).part(part.root.as_bytes());
                dir = at.parent();
            }
        }
        for (dir, mut hasher) in mixed {
            let (part, rest) = self.part(&dir);
            let Some((_, id)) = part.find(rest.segments())? else { continue };
            hasher.part(id.as_bytes());
            self.mixed.insert(dir, ContentId::of(hasher.finish().as_bytes()));
        }
        Ok(())
    }

    /// The repository that a path is in, and where in it. A submodule's path is its own root.
    fn part(&self, path: &RelPath) -> (&Part, RelPath) {
        let inside = self.modules.iter().rev().find(|(at, _)| path.is_within(at));
        match inside {
            None => (&self.top, path.clone()),
            Some((at, part)) => {
                let rest = path.segments().skip(at.segments().count());
                (part, rest.fold(RelPath::root(), |path, segment| path.child(segment)))
            }
        }
    }

    /// The commit that this is.
    pub fn commit(&self) -> &CommitId {
        &self.top.commit
    }

    /// What the commit says about itself.
    pub fn info(&self) -> Result<CommitInfo, SourceError> {
        let Part { repo, commit, mirror, .. } = &self.top;
        let commit =
            repo.find_commit(commit.oid()).map_err(|e| mirror.store.git_error("read", e))?;
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

    /// The part, kind and object of a path.
    fn find(&self, path: &RelPath) -> Result<Option<(&Part, EntryKind, Oid)>, TreeError> {
        let (part, rest) = self.part(path);
        let found = part.find(rest.segments()).map_err(|e| failed(path, e))?;
        Ok(found.map(|(kind, id)| (part, kind, id)))
    }

    /// An entry as it is with submodules.
    fn shown(&self, path: &RelPath, kind: EntryKind, id: Oid) -> Entry {
        match self.mixed.get(path) {
            Some(id) => Entry { kind: EntryKind::Directory, id: *id },
            None => entry(kind, id),
        }
    }
}

fn failed(path: &RelPath, error: SourceError) -> TreeError {
    TreeError::Read { path: path.clone(), source: Box::new(error) }
}

impl Tree for Snapshot {
    fn entry(&self, path: &RelPath) -> Result<Option<Entry>, TreeError> {
        Ok(self.find(path)?.map(|(_, kind, id)| self.shown(path, kind, id)))
    }

    fn list(&self, dir: &RelPath) -> Result<Vec<(String, Entry)>, TreeError> {
        let (part, id) = match self.find(dir)? {
            Some((part, EntryKind::Directory, id)) => (part, id),
            Some(_) => {
                return Err(TreeError::WrongKind { path: dir.clone(), wanted: "directory" });
            }
            None => return Err(TreeError::NotFound(dir.clone())),
        };
        let mut entries: Vec<(String, Entry)> = part
            .listing(id)
            .map_err(|e| failed(dir, e))?
            .iter()
            .filter_map(|(name, mode, id)| {
                let name = std::str::from_utf8(name).ok()?;
                // Git refuses to write such names; a made-up tree can still hold them, and paths
                // built from them would point elsewhere.
                let plain = !matches!(name, "" | "." | "..") && !name.contains('/');
                plain.then(|| (name.to_owned(), entry(kind(mode), id)))
            })
            .collect();
        if !self.modules.is_empty() {
            for (name, found) in &mut entries {
                let path = dir.child(name);
                let module = self.modules.iter().find(|(at, _)| *at == path);
                if let Some((_, part)) = module {
                    *found = self.shown(&path, EntryKind::Directory, part.root);
                } else if let Some(id) = self.mixed.get(&path) {
                    found.id = *id;
                }
            }
        }
        Ok(entries)
    }

    fn read(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, TreeError> {
        let (part, id) = match self.find(path)? {
            Some((part, EntryKind::File | EntryKind::Symlink, id)) => (part, id),
            Some(_) => return Err(TreeError::WrongKind { path: path.clone(), wanted: "file" }),
            None => return Err(TreeError::NotFound(path.clone())),
        };
        part.blob(id, limit).map_err(|e| failed(path, e))?.map_err(|size| TreeError::TooLarge {
            path: path.clone(),
            size,
            limit,
        })
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
