//! All mirrors of one cache directory, and what can be asked of them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use git2::{Oid, Repository};

use crate::agents::Agents;
use crate::board::Board;
use crate::call::Call;
use crate::cancel::lock;
use crate::github::Tokens;
use crate::mirror::{Store, cache_error, files, remove_dir};
use crate::polls::Answers;
use crate::remote::CheckedRemote;
use crate::session::Endpoint;
use crate::ssh::OpenIdentity;
use crate::wire::Server;
use crate::{
    Cancel, CommitId, Descent, Reference, Remote, Resolved, Revision, Snapshot, SourceError,
};

/// What one repository may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one fetch. The first fetch of a repository of manifests is a few megabytes; half
    /// a gigabyte leaves room for repositories that hold other things too.
    pub pack_bytes: u64,
    /// Bytes of one file in it, whatever it is compressed to. Manifests are read up to a few
    /// megabytes; what else lies beside them is at least copied when packs are made one.
    pub object_bytes: u64,
    /// Bytes of what may be part of a difference between objects: its base, the difference and its
    /// result are in memory at a time. Git leaves larger files whole too, from 512 MB on.
    pub delta_bytes: u64,
    /// Bytes of all objects of one fetch. Each is inflated and hashed, so this bounds the time
    /// that a small pack can take.
    pub unpacked_bytes: u64,
    /// Objects of one fetch, and directories of one commit.
    pub objects: u64,
    /// References in one listing. Only servers without protocol version 2, and version ranges,
    /// make long ones.
    pub refs: usize,
    /// Packs after which they are made one. Each fetch adds one and each look-up searches all;
    /// up to some dozens that is not noticed.
    pub packs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pack_bytes: 512 << 20,
            object_bytes: 256 << 20,
            delta_bytes: 64 << 20,
            unpacked_bytes: 8 << 30,
            objects: 1_000_000,
            refs: 200_000,
            packs: 32,
        }
    }
}

/// The mirrors below one directory, which belongs to this value alone while it lives. Share it in
/// an `Arc`; every method may be called from any thread and blocks it.
pub struct Mirrors {
    dir: PathBuf,
    limits: Limits,
    open: Mutex<HashMap<String, Arc<Mirror>>>,
    pub(crate) traffic: Counters,
    tokens: Tokens,
    _lock: DirLock,
}

/// The lock of a directory, given back when this value goes.
struct DirLock(File);

impl DirLock {
    fn take(dir: &Path) -> Result<Self, SourceError> {
        let path = dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| cache_error("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(SourceError::Locked { dir: dir.into() }),
            Err(TryLockError::Error(error)) => Err(cache_error("lock", &path, error)),
        }
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that has been forked but runs no program yet
        // holds a copy of the descriptor, and with it the lock. Unlocking counts for all copies.
        drop(self.0.unlock());
    }
}

impl fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirrors")
            .field("dir", &self.dir)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What was asked of Git servers since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Fetches that brought a pack.
    pub fetches: u64,
    /// Fetches that failed.
    pub failed: u64,
    /// Bytes of the packs.
    pub bytes: u64,
}

/// [`Traffic`] while it is counted.
#[derive(Default)]
pub(crate) struct Counters {
    fetches: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    /// Counts one fetch with the size of its pack.
    pub(crate) fn fetched(&self, bytes: Option<u64>) {
        let outcome = if bytes.is_some() { &self.fetches } else { &self.failed };
        outcome.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
    }
}

/// What is asked of a repository.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// What is followed.
    pub reference: &'q Reference,
    /// Whether of an annotated tag the tag object is wanted, too.
    pub with_tag: bool,
    /// What others follow in the same repository, the first ones before the last. If a listing is
    /// needed, it asks for these, too.
    pub others: &'q [Reference],
    /// A listing that began at this moment, or later, is news enough.
    pub since: Instant,
}

impl Question<'_> {
    fn want(&self) -> Want {
        if self.with_tag { Want::Tag } else { Want::Commit }
    }
}

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// What the reference leads to.
    pub resolved: Resolved,
    /// When the listing began that says so.
    pub began: Instant,
    /// Whether that was asked for by this look, and not by an earlier one.
    pub listed: bool,
}

/// Equal questions to a server: the reference, whom to trust for it, and what is wanted of it.
pub(crate) type Key = (Reference, Option<String>, Want);

/// What is wanted of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Want {
    /// The commit that it leads to.
    Commit,
    /// For an annotated tag the tag itself, too.
    Tag,
}

/// One mirror in use.
pub(crate) struct Mirror {
    pub(crate) store: Store,
    /// Set when a reader met damage; the next resolve then checks every byte.
    pub(crate) suspect: AtomicBool,
    pub(crate) board: Arc<Board<Key, Looked>>,
    /// What its listings said.
    pub(crate) answers: Mutex<Answers>,
    /// What the server last said it offers, so that a poll is one request.
    pub(crate) endpoint: Mutex<Option<(Endpoint, Server)>>,
    /// Agents at rest, with the CA bundle they were made for.
    pub(crate) agents: Mutex<Option<(Option<String>, Agents)>>,
    pub(crate) identity: OpenIdentity,
    pub(crate) holds: Mutex<Holds>,
}

/// Why commits stay although nobody has named them to [`Mirrors::keep`].
#[derive(Default)]
pub(crate) struct Holds {
    /// Handed out since the last keep: the caller had no chance yet to name them.
    pub(crate) fresh: BTreeSet<Oid>,
    /// Open snapshots by commit.
    pub(crate) pins: BTreeMap<Oid, usize>,
    /// The commit fetched last, a good one to compare the next with.
    pub(crate) last: Option<Oid>,
}

impl Mirror {
    fn new(path: PathBuf) -> Self {
        Self {
            store: Store { path },
            suspect: AtomicBool::new(false),
            board: Board::new(),
            answers: Mutex::default(),
            endpoint: Mutex::new(None),
            agents: Mutex::new(None),
            identity: OpenIdentity::default(),
            holds: Mutex::default(),
        }
    }

    /// An object that should be here cannot be read: the next resolve looks closely.
    pub(crate) fn doubt(&self) {
        self.suspect.store(true, Ordering::SeqCst);
    }

    pub(crate) fn unpin(&self, commit: Oid) {
        let mut holds = lock(&self.holds);
        if let Some(count) = holds.pins.get_mut(&commit) {
            *count -= 1;
            if *count == 0 {
                holds.pins.remove(&commit);
            }
        }
    }

    /// Whether a commit, with a tag of it, is here and nothing says that it cannot be read.
    pub(crate) fn is_here(&self, commit: Oid, tag: Option<Oid>) -> bool {
        !self.suspect.load(Ordering::SeqCst)
            && matches!(self.store.open(), Ok(Some(repo)) if self.claim(&repo, commit, tag))
    }

    /// Notes that a commit is handed out, and says whether it is here. Under one lock with
    /// [`Mirrors::keep`], which so never drops what was just found.
    pub(crate) fn claim(&self, repo: &Repository, commit: Oid, tag: Option<Oid>) -> bool {
        let mut holds = lock(&self.holds);
        let here = Store::is_anchored(repo, commit)
            && tag.is_none_or(|tag| Store::has_tag(repo, commit, tag));
        if here {
            holds.fresh.insert(commit);
        }
        here
    }
}

impl Mirrors {
    /// Takes a directory, which is made if there is none, and removes what a killed process left
    /// in it. [`SourceError::Locked`] when another process has it.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, SourceError> {
        let mirrors = dir.join("mirrors");
        fs::create_dir_all(&mirrors).map_err(|e| cache_error("create", &mirrors, e))?;
        let lock = DirLock::take(dir)?;
        for name in files(&mirrors)? {
            let path = mirrors.join(&name);
            if is_id(&name) {
                Store { path }.clean()?;
            } else {
                remove_dir(&path)?;
            }
        }
        let traffic = Counters::default();
        let tokens = Tokens::default();
        Ok(Self { dir: mirrors, limits, open: Mutex::default(), traffic, tokens, _lock: lock })
    }

    /// Finds the commit that a reference names now and fetches it if it is not here yet. One
    /// listing, which is one request once the server's abilities are known; none for a commit
    /// that is here.
    pub fn resolve(
        &self,
        remote: &Remote,
        reference: &Reference,
        cancel: &Cancel,
    ) -> Result<Revision, SourceError> {
        let question = Question { reference, with_tag: false, others: &[], since: Instant::now() };
        Ok(self.look(remote, &question, cancel)?.resolved.revision)
    }

    /// Finds what a reference leads to, by a listing that is new enough or by asking for one, and
    /// fetches it if it is not here yet.
    pub fn look(
        &self,
        remote: &Remote,
        question: &Question<'_>,
        cancel: &Cancel,
    ) -> Result<Looked, SourceError> {
        let Question { reference, others, since, .. } = *question;
        reference.check()?;
        let call = self.call(remote, cancel)?;
        if let Reference::Commit { id, branch } = reference {
            let began = Instant::now();
            let commit: CommitId = id.parse()?;
            call.bring(commit, branch.as_deref())?;
            let revision = Revision { name: branch.clone().unwrap_or_default(), commit };
            return Ok(Looked { resolved: Resolved { revision, tag: None }, began, listed: false });
        }
        let want = question.want();
        let known = call.known(reference, want, since);
        if let Some(known) = known.or_else(|| call.fetch_known(reference, want, since)) {
            return known;
        }
        let key = (reference.clone(), call.remote.trust().map(String::from), want);
        let asked = Cell::new(false);
        let ask = || {
            asked.set(true);
            call.resolve(reference, want, others)
        };
        let looked = call.mirror.board.ask(&key, cancel, call.deadline, ask)?;
        Ok(Looked { listed: asked.get(), ..looked })
    }

    /// What [`Mirrors::look`] says without any network: `None` where it would need that.
    pub fn known(
        &self,
        remote: &Remote,
        question: &Question<'_>,
    ) -> Option<Result<Looked, SourceError>> {
        let cancel = Cancel::new();
        let call = self.call(remote, &cancel).ok()?;
        let Reference::Commit { id, branch } = question.reference else {
            return call.known(question.reference, question.want(), question.since);
        };
        let commit: CommitId = id.parse().ok()?;
        let revision = Revision { name: branch.clone().unwrap_or_default(), commit };
        let resolved = Resolved { revision, tag: None };
        let here = call.mirror.is_here(commit.oid(), None);
        here.then(|| Ok(Looked { resolved, began: Instant::now(), listed: false }))
    }

    /// Which commit a listing that began at a moment or later says a reference leads to, whether it is
    /// here or not. No network and no disk. Where a server does not peel its tags it is the tag.
    pub fn listed(
        &self,
        remote: &Remote,
        reference: &Reference,
        since: Instant,
    ) -> Option<CommitId> {
        let remote = remote.check().ok()?;
        let mirror = self.mirror(&remote);
        let answers = lock(&mirror.answers);
        let found = answers.since(remote.trust(), reference, since)?.found.as_ref().ok()?;
        Some(CommitId::of(found.peeled.unwrap_or(found.id)))
    }

    /// Makes sure that a commit is here. No network when it is.
    pub fn fetch_commit(
        &self,
        remote: &Remote,
        commit: &CommitId,
        cancel: &Cancel,
    ) -> Result<(), SourceError> {
        self.call(remote, cancel)?.bring(*commit, None)
    }

    /// Whether a commit descends from an earlier one. Asks the server where the mirror, which keeps
    /// no history, cannot tell.
    pub fn descent(
        &self,
        remote: &Remote,
        from: &CommitId,
        to: &CommitId,
        cancel: &Cancel,
    ) -> Result<Descent, SourceError> {
        self.call(remote, cancel)?.descent(*from, *to)
    }

    /// Whether a commit can be opened, as far as is known: when a reader has met damage since, it has
    /// to be fetched again. No network at all.
    pub fn has(&self, remote: &Remote, commit: &CommitId) -> Result<bool, SourceError> {
        Ok(self.mirror(&remote.check()?).is_here(commit.oid(), None))
    }

    /// Opens a commit for reading. No network at all; [`SourceError::NotInCache`] when it was
    /// never fetched with these credentials, or the cache was lost.
    pub fn snapshot(&self, remote: &Remote, commit: &CommitId) -> Result<Snapshot, SourceError> {
        let mirror = self.mirror(&remote.check()?);
        let not_here = || SourceError::NotInCache { commit: *commit };
        let repo = match mirror.store.open() {
            Ok(repo) => repo.ok_or_else(not_here)?,
            Err(error) => {
                mirror.doubt();
                return Err(error);
            }
        };
        let mut holds = lock(&mirror.holds);
        if !Store::is_anchored(&repo, commit.oid()) {
            return Err(not_here());
        }
        *holds.pins.entry(commit.oid()).or_default() += 1;
        drop(holds);
        Snapshot::open(repo, *commit, mirror)
    }

    /// Lets go of every commit of a remote but these. Commits that were resolved or fetched since
    /// the last call stay for one more, because their names may not have reached the caller's list
    /// yet, and so do those of open snapshots. Many packs are made one.
    pub fn keep(&self, remote: &Remote, commits: &[CommitId]) -> Result<(), SourceError> {
        let remote = remote.check()?;
        let mirror = self.mirror(&remote);
        let deadline = Instant::now() + remote.timeout;
        let _writing = mirror.board.write(&Cancel::new(), deadline)?;
        let Some(repo) = mirror.store.open()? else {
            return Ok(());
        };
        let mut kept = mirror.store.anchors(&repo)?;
        {
            let mut holds = lock(&mirror.holds);
            let mut wanted: BTreeSet<Oid> = commits.iter().map(|c| c.oid()).collect();
            wanted.append(&mut holds.fresh);
            wanted.extend(holds.pins.keys());
            for dropped in kept.difference(&wanted) {
                mirror.store.drop_tags(&repo, *dropped)?;
                mirror.store.drop_anchor(&repo, *dropped)?;
            }
            kept = kept.intersection(&wanted).copied().collect();
        }
        let packs = mirror.store.packs()?.len();
        if packs > self.limits.packs {
            mirror.store.consolidate(&repo, &kept)?;
            mirror.store.write_shallow(&mirror.store.boundary(&repo, &kept)?)?;
            tracing::debug!(url = %remote.url, packs, "made many packs one");
        }
        Ok(())
    }

    /// Removes the mirrors of all remotes but these; those in use stay until the next call.
    pub fn retain(&self, remotes: &[Remote]) -> Result<(), SourceError> {
        // A remote that is not valid has no mirror.
        let ids: BTreeSet<String> = remotes
            .iter()
            .filter_map(|remote| remote.check().ok())
            .map(|remote| remote.id)
            .collect();
        for name in files(&self.dir)? {
            if ids.contains(&name) {
                continue;
            }
            let mut open = lock(&self.open);
            // Ours is the only reference to a mirror that nobody uses.
            let idle = open.get(&name).is_none_or(|mirror| Arc::strong_count(mirror) == 1);
            if idle {
                open.remove(&name);
                remove_dir(&self.dir.join(&name))?;
            }
        }
        Ok(())
    }

    pub(crate) fn mirror(&self, remote: &CheckedRemote) -> Arc<Mirror> {
        let mut open = lock(&self.open);
        open.entry(remote.id.clone())
            .or_insert_with(|| Arc::new(Mirror::new(self.dir.join(&remote.id))))
            .clone()
    }

    /// What was asked of Git servers since the start.
    pub fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.traffic;
        Traffic {
            fetches: read(&counters.fetches),
            failed: read(&counters.failed),
            bytes: read(&counters.bytes),
        }
    }

    fn call<'a>(&'a self, remote: &Remote, cancel: &'a Cancel) -> Result<Call<'a>, SourceError> {
        let remote = remote.check()?;
        cancel.check()?;
        Ok(Call {
            mirror: self.mirror(&remote),
            deadline: Instant::now() + remote.timeout,
            remote,
            limits: &self.limits,
            traffic: &self.traffic,
            tokens: &self.tokens,
            cancel,
        })
    }
}

fn is_id(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_free_also_while_a_child_holds_the_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path()).unwrap();
        let inherited = lock.0.try_clone().unwrap();
        drop(lock);
        DirLock::take(dir.path()).unwrap();
        drop(inherited);
    }
}
