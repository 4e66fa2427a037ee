//! One bare repository on disk: packs, anchors, and nothing else.
//!
//! A commit counts as present when an anchor `refs/plumb/<id>` points to it. The anchor is written
//! last, after the commit's whole tree was found to be there, so a kill at any moment leaves
//! either a usable commit or leftovers that the next start removes. What keeps it in order is in
//! `care.rs`.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use git2::{Commit, ObjectType, Odb, OdbLookupFlags, Oid, Repository, RepositoryInitOptions, Tree};

use crate::remote::ID_LENGTH;
use crate::session::{Endpoint, Session};
use crate::unpack::{MAX_COMMIT, MAX_DIRECTORY, Unpacking, too_large};
use crate::wire::{FetchRequest, Server, WireError, read_pack};
use crate::{CommitId, Limits, SourceError};

/// Below it lie our anchors; no server's reference is ever stored.
pub(crate) const ANCHORS: &str = "refs/plumb/";

/// The extension of what another repository takes the place of.
const OLD: &str = "old";

/// Tags that may point to one another before a commit comes. Git itself makes them point to commits.
const MAX_TAGS: usize = 10;

/// Where one mirror lies.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) path: PathBuf,
}

/// How closely a commit is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Every object exists.
    Exists,
    /// Every object's content is what its id says.
    Content,
}

impl Store {
    /// The repository; `None` when there is no directory.
    pub(crate) fn open(&self) -> Result<Option<Repository>, SourceError> {
        match Repository::open_bare(&self.path) {
            Ok(repo) => Ok(Some(repo)),
            Err(_) if !self.path.exists() => Ok(None),
            Err(error) => {
                // What is needed for that says nothing of what is in it.
                if !self.mend_frame()? {
                    return Err(self.git_error("open", error));
                }
                Repository::open_bare(&self.path).map(Some).map_err(|e| self.git_error("open", e))
            }
        }
    }

    /// The repository, made if there is none.
    pub(crate) fn open_or_create(&self) -> Result<Repository, SourceError> {
        if let Some(repo) = self.open()? {
            return Ok(repo);
        }
        let fresh = Self { path: self.path.with_extension("new") };
        fresh.wipe()?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false).no_reinit(true).mkpath(true);
        let made = Repository::init_opts(&fresh.path, &options)
            .map_err(|e| self.git_error("create", e))
            .and_then(|_| fresh.mend_frame())
            .and_then(|_| fresh.replace(self));
        if let Err(error) = made {
            fresh.wipe()?;
            return Err(error);
        }
        self.open()?.ok_or_else(|| {
            cache_error("open", &self.path, io::Error::from(io::ErrorKind::NotFound))
        })
    }

    /// Moves the repository to where another one is, which goes. A kill in between leaves the old one
    /// under the name that [`Store::restore`] knows.
    pub(crate) fn replace(&self, other: &Self) -> Result<(), SourceError> {
        let old = Self { path: other.path.with_extension(OLD) };
        old.wipe()?;
        let moved = |from: &Path, to: &Path| match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        moved(&other.path, &old.path)
            .and_then(|()| fs::rename(&self.path, &other.path))
            .map_err(|e| cache_error("create", &other.path, e))?;
        old.wipe()
    }

    /// Puts the old repository back, if a kill came before there was a new one.
    pub(crate) fn restore(&self) -> Result<(), SourceError> {
        let old = self.path.with_extension(OLD);
        if !old.is_dir() || self.path.exists() {
            return Ok(());
        }
        fs::rename(&old, &self.path).map_err(|e| cache_error("restore", &self.path, e))
    }

    /// Removes the repository.
    pub(crate) fn wipe(&self) -> Result<(), SourceError> {
        remove_dir(&self.path)
    }

    /// The anchored commits.
    pub(crate) fn anchors(&self, repo: &Repository) -> Result<BTreeSet<Oid>, SourceError> {
        let read = || -> Result<BTreeSet<Oid>, git2::Error> {
            let mut ids = BTreeSet::new();
            for reference in repo.references_glob(&format!("{ANCHORS}*"))? {
                ids.extend(reference?.target());
            }
            Ok(ids)
        };
        read().map_err(|e| self.git_error("read", e))
    }

    pub(crate) fn is_anchored(repo: &Repository, commit: Oid) -> bool {
        repo.refname_to_id(&format!("{ANCHORS}{commit}")).is_ok_and(|id| id == commit)
    }

    pub(crate) fn anchor(&self, repo: &Repository, commit: Oid) -> Result<(), SourceError> {
        repo.reference(&format!("{ANCHORS}{commit}"), commit, true, "")
            .map(|_| ())
            .map_err(|e| self.git_error("write", e))
    }

    /// Lets go of a commit. Not by libgit2, which needs room on the disk for that.
    pub(crate) fn drop_anchor(&self, commit: Oid) -> Result<(), SourceError> {
        remove_file(&self.path.join(format!("{ANCHORS}{commit}")))
    }

    /// Whether a commit and everything in its tree is here. Subtrees that `base`, a complete
    /// commit, has too are not looked at again. Submodules are other repositories' commits.
    pub(crate) fn is_complete(
        &self,
        repo: &Repository,
        commit: Oid,
        base: Option<Oid>,
        check: Check,
        limits: &Limits,
    ) -> Result<bool, SourceError> {
        let corrupt = |e| self.git_error("read", e);
        let odb = repo.odb().map_err(corrupt)?;
        let missing = |id| !odb.exists_ext(id, OdbLookupFlags::NO_REFRESH);
        // Packs may have come since this repository was opened; one look finds them all.
        if missing(commit) && !odb.exists(commit) {
            return Ok(false);
        }
        let root = self.find_commit(repo, &odb, commit)?.tree_id();
        let base = base.and_then(|base| repo.find_commit(base).ok()).map(|base| base.tree_id());
        // Trees that share subtrees can be far larger to walk than to store.
        let mut seen: HashSet<Oid> = HashSet::new();
        let mut todo = vec![(root, base)];
        while let Some((id, base)) = todo.pop() {
            if Some(id) == base || !seen.insert(id) {
                continue;
            }
            if seen.len() as u64 > limits.objects {
                return Err(SourceError::TooLarge { what: "objects", limit: limits.objects });
            }
            if missing(id) {
                return Ok(false);
            }
            let tree = self.find_tree(repo, &odb, id)?;
            let base = base.and_then(|base| repo.find_tree(base).ok());
            for entry in &tree {
                let old = base
                    .as_ref()
                    .and_then(|base| base.get_name_bytes(entry.name_bytes()).map(|e| e.id()));
                match entry.kind() {
                    Some(ObjectType::Tree) => todo.push((entry.id(), old)),
                    Some(ObjectType::Blob) if Some(entry.id()) != old => {
                        if missing(entry.id()) {
                            return Ok(false);
                        }
                        if check == Check::Content && seen.insert(entry.id()) {
                            odb.read(entry.id()).map_err(corrupt)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(true)
    }

    fn find_commit<'r>(
        &self,
        repo: &'r Repository,
        odb: &Odb<'_>,
        id: Oid,
    ) -> Result<Commit<'r>, SourceError> {
        let corrupt = |e| self.git_error("read", e);
        bounded(odb.read_header(id).map_err(corrupt)?.0, MAX_COMMIT)?;
        repo.find_commit(id).map_err(corrupt)
    }

    fn find_tree<'r>(
        &self,
        repo: &'r Repository,
        odb: &Odb<'_>,
        id: Oid,
    ) -> Result<Tree<'r>, SourceError> {
        let corrupt = |e| self.git_error("read", e);
        bounded(odb.read_header(id).map_err(corrupt)?.0, MAX_DIRECTORY)?;
        repo.find_tree(id).map_err(corrupt)
    }

    /// The commits reached from the anchors that are here without all their parents. The server
    /// must know them, or it leaves out what it believes we have.
    ///
    /// This is read from the object database at each fetch rather than kept beside it, so that it
    /// is right also after a kill.
    pub(crate) fn boundary(
        &self,
        repo: &Repository,
        from: &BTreeSet<Oid>,
    ) -> Result<Vec<Oid>, SourceError> {
        let corrupt = |e| self.git_error("read", e);
        let odb = repo.odb().map_err(corrupt)?;
        odb.refresh().map_err(corrupt)?;
        let mut seen: HashSet<Oid> = from.iter().copied().collect();
        let mut todo: Vec<Oid> = from.iter().copied().collect();
        let mut boundary = Vec::new();
        while let Some(id) = todo.pop() {
            let commit = self.find_commit(repo, &odb, id)?;
            let mut whole = true;
            for parent in commit.parent_ids() {
                if !odb.exists_ext(parent, OdbLookupFlags::NO_REFRESH) {
                    whole = false;
                } else if seen.insert(parent) {
                    todo.push(parent);
                }
            }
            if !whole {
                boundary.push(id);
            }
        }
        boundary.sort_unstable();
        Ok(boundary)
    }

    /// Sends a fetch and stores the pack that comes back; returns its size in bytes. Each piece is let
    /// in by `admit` before it is written. Nothing of a pack that fails stays on the disk.
    pub(crate) fn receive(
        &self,
        repo: &Repository,
        (session, endpoint, server): (&Session<'_>, &Endpoint, &Server),
        request: &FetchRequest,
        limits: &Limits,
        mut admit: impl FnMut(u64) -> Result<(), SourceError>,
    ) -> Result<u64, SourceError> {
        let packs = self.packs()?;
        let received =
            self.receive_pack(repo, (session, endpoint, server), request, limits, &mut admit);
        if received.is_err() {
            self.remove_packs_but(&packs)?;
        }
        received
    }

    fn receive_pack(
        &self,
        repo: &Repository,
        (session, endpoint, server): (&Session<'_>, &Endpoint, &Server),
        request: &FetchRequest,
        limits: &Limits,
        admit: &mut dyn FnMut(u64) -> Result<(), SourceError>,
    ) -> Result<u64, SourceError> {
        let wire = |e| session.wire_error(e, "bytes", limits.pack_bytes);
        let body = request.encode(server).map_err(wire)?;
        let protocol = matches!(server, Server::V2(_)).then_some("version=2");
        // Frames cost a little beside the pack itself.
        let all_bytes = limits.pack_bytes.saturating_add(limits.pack_bytes / 8 + 65_536);
        let mut answer = session.post(endpoint, &body, protocol, all_bytes)?;

        let odb = repo.odb().map_err(|e| self.git_error("open", e))?;
        let mut writer = odb.packwriter().map_err(|e| self.git_error("write", e))?;
        // One look finds those of all packs, or every object of the pack itself would be searched
        // for on disk.
        let known = |id| {
            let here = odb.exists_ext(id, OdbLookupFlags::NO_REFRESH);
            here.then(|| odb.read_header(id).ok()).flatten().map(|(size, _)| size as u64)
        };
        let mut unpacking = Unpacking::new(limits, &known);
        let mut bytes = 0;
        let result = read_pack(&mut answer, server, |piece| {
            session.cancel().check()?;
            bytes += piece.len() as u64;
            if bytes > limits.pack_bytes {
                return Err(ReceiveError::Ours(SourceError::TooLarge {
                    what: "bytes",
                    limit: limits.pack_bytes,
                }));
            }
            admit(piece.len() as u64)?;
            // Before libgit2 gets it, which loads whole what it needs.
            unpacking.feed(piece)?;
            // libgit2 keeps the reason for itself until it is asked.
            writer.write_all(piece).map_err(|_| self.pack_error(git2::Error::last_error(-1)).into())
        });
        match result {
            Ok(()) => {}
            Err(ReceiveError::Ours(error)) => return Err(error),
            Err(ReceiveError::Wire(error)) => return Err(wire(error)),
        }
        session.received(server);
        writer.commit().map_err(|e| self.pack_error(e))?;
        Ok(bytes)
    }

    /// The names of the packs, without extension.
    pub(crate) fn packs(&self) -> Result<BTreeSet<String>, SourceError> {
        let dir = self.pack_dir();
        let names = files(&dir)?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".pack")).map(String::from).collect())
    }

    /// Removes every pack but some, and what is half written. The index goes first: a pack without one
    /// is not looked at.
    pub(crate) fn remove_packs_but(&self, kept: &BTreeSet<String>) -> Result<(), SourceError> {
        let dir = self.pack_dir();
        let mut names = files(&dir)?;
        names.sort_by_key(|name| !has_extension(name, "idx"));
        for name in names {
            if !kept.contains(name.split('.').next().unwrap_or_default()) {
                remove_file(&dir.join(&name))?;
            }
        }
        Ok(())
    }

    /// Tells git itself, should anybody point it at the mirror, where history ends. Nothing else reads
    /// it, so that it cannot be written is no failure.
    pub(crate) fn write_shallow(&self, repo: &Repository) {
        let path = self.path.join("shallow");
        let boundary = self.anchors(repo).and_then(|anchors| self.boundary(repo, &anchors));
        let written = boundary.and_then(|boundary| {
            if boundary.is_empty() {
                return remove_file(&path);
            }
            let mut text = String::new();
            for id in boundary {
                text.push_str(&id.to_string());
                text.push('\n');
            }
            if fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
                return Ok(());
            }
            write_whole(&path, &text)
        });
        if let Err(error) = written {
            tracing::debug!(%error, "cannot tell where history ends");
        }
    }

    /// An error of libgit2 about our own files: the disk's fault or damage.
    pub(crate) fn git_error(&self, action: &'static str, error: git2::Error) -> SourceError {
        // It gives the system's words only.
        let full = ["No space left on device", "Disk quota exceeded", "File too large"];
        let is_full = full.iter().any(|words| error.message().contains(words));
        let told_message = half_ids(error.message());
        let source = if told_message == error.message() {
            Arc::new(error)
        } else {
            Arc::new(git2::Error::new(error.code(), error.class(), told_message))
        };
        match source.class() {
            git2::ErrorClass::Os | git2::ErrorClass::Filesystem if is_full => {
                SourceError::DiskFull { action, path: told(&self.path), source }
            }
            git2::ErrorClass::Os | git2::ErrorClass::Filesystem | git2::ErrorClass::NoMemory
                if source.code() != git2::ErrorCode::NotFound =>
            {
                SourceError::CacheIo { action, path: told(&self.path), source }
            }
            _ => SourceError::Corrupt { source },
        }
    }

    /// An error of libgit2 about a pack that came in: the disk's fault or the server's.
    fn pack_error(&self, error: git2::Error) -> SourceError {
        match self.git_error("write", error) {
            SourceError::Corrupt { source } => SourceError::BadObjects { why: source.to_string() },
            error => error,
        }
    }

    pub(crate) fn pack_dir(&self) -> PathBuf {
        self.path.join("objects/pack")
    }
}

/// Refuses what libgit2 would load whole and is too large for that. What came as a difference has
/// shown its kind only now.
pub(crate) fn bounded(size: usize, limit: u64) -> Result<(), SourceError> {
    if size as u64 > limit { Err(too_large(limit)) } else { Ok(()) }
}

enum ReceiveError {
    Wire(WireError),
    Ours(SourceError),
}

impl From<WireError> for ReceiveError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<SourceError> for ReceiveError {
    fn from(error: SourceError) -> Self {
        Self::Ours(error)
    }
}

/// The commit that an object is or, for a tag, leads to.
pub(crate) fn peel(repo: &Repository, id: Oid) -> Result<Option<CommitId>, SourceError> {
    let Ok(odb) = repo.odb() else { return Ok(None) };
    let mut at = id;
    for _ in 0..MAX_TAGS {
        match odb.read_header(at) {
            Ok((_, ObjectType::Commit)) => return Ok(Some(CommitId::of(at))),
            Ok((size, ObjectType::Tag)) => {
                bounded(size, MAX_COMMIT)?;
                let Ok(tag) = repo.find_tag(at) else { break };
                at = tag.target_id();
            }
            _ => break,
        }
    }
    Ok(None)
}

pub(crate) fn cache_error(action: &'static str, path: &Path, source: io::Error) -> SourceError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let (path, kind, source) = (told(path), source.kind(), Arc::new(source));
    match kind {
        StorageFull | QuotaExceeded | FileTooLarge => {
            SourceError::DiskFull { action, path, source }
        }
        _ => SourceError::CacheIo { action, path, source },
    }
}

/// A path as it may be told: of the names of mirrors, which are made of credentials, too, the half that
/// is made of the place alone.
pub(crate) fn told(path: &Path) -> PathBuf {
    half_ids(&path.to_string_lossy()).into()
}

/// A text with the first half of each name of a mirror in it.
fn half_ids(text: &str) -> String {
    let mut told = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits == ID_LENGTH {
            told.push_str(&rest[..ID_LENGTH / 2]);
        } else {
            told.push_str(&rest[..digits]);
        }
        rest = &rest[digits..];
        let other = rest.find(|c: char| c.is_ascii_hexdigit()).unwrap_or(rest.len());
        told.push_str(&rest[..other]);
        rest = &rest[other..];
    }
    told
}

/// Writes a file so that whoever reads it finds the old text or the new one.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<(), SourceError> {
    let fresh = path.with_extension("new");
    let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, path));
    written.map_err(|error| {
        // What is half written would take room that is wanted.
        drop(fs::remove_file(&fresh));
        cache_error("write", path, error)
    })
}

/// The names in a directory; none when it does not exist.
pub(crate) fn files(dir: &Path) -> Result<Vec<String>, SourceError> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(|e| cache_error("read", dir, e)),
    }
}

pub(crate) fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension() == Some(OsStr::new(extension))
}

pub(crate) fn remove_file(path: &Path) -> Result<(), SourceError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(cache_error("remove", path, error))
        }
        _ => Ok(()),
    }
}

pub(crate) fn remove_dir(path: &Path) -> Result<(), SourceError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(cache_error("remove", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_names_of_mirrors_half_is_told() {
        let id = "0123456789abcdef".repeat(4);
        let half = &id[..32];
        for (text, want) in [
            (format!("/cache/mirrors/{id}/config"), format!("/cache/mirrors/{half}/config")),
            (format!("cannot open '{id}.new'"), format!("cannot open '{half}.new'")),
            (format!("{id}{id}"), format!("{id}{id}")),
            ("a b, \u{e4} \u{f6}".into(), "a b, \u{e4} \u{f6}".into()),
            ("1".repeat(40), "1".repeat(40)),
            (String::new(), String::new()),
        ] {
            assert_eq!(half_ids(&text), want);
        }
    }
}
