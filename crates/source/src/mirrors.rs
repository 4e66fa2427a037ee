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
use crate::listings::{Listing, Listings, Place};
use crate::mirror::{Check, Store, cache_error, files, remove_dir};
use crate::polls::Answers;
use crate::remote::{CheckedRemote, ID_LENGTH};
use crate::room::{Names, Room};
use crate::session::Endpoint;
use crate::snapshot::Part;
use crate::ssh::OpenIdentity;
use crate::tidy::shown;
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
    /// Submodules of one commit, those in others included. Each has a mirror of its own.
    pub submodules: usize,
    /// Packs after which they are made one. Each fetch adds one and each look-up searches all;
    /// up to some dozens that is not noticed.
    pub packs: usize,
    /// Bytes that all mirrors together may take on the disk; `None` for as many as there are. While packs
    /// are made one, and while a damaged mirror is made anew, the old and the new are both there beyond it.
    pub cache_bytes: Option<u64>,
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
            submodules: 100,
            packs: 32,
            cache_bytes: None,
        }
    }
}

/// The mirrors below one directory, which belongs to this value alone while it lives. Share it in
/// an `Arc`; every method may be called from any thread and blocks it.
pub struct Mirrors {
    dir: PathBuf,
    limits: Limits,
    pub(crate) open: Mutex<HashMap<String, Arc<Mirror>>>,
    /// What [`Mirrors::retain`] was last told to keep.
    pub(crate) named: Mutex<Option<Names>>,
    pub(crate) traffic: Counters,
    tokens: Tokens,
    /// Bytes that came for the submodules of commits that do not have all of them yet, by mirror.
    pub(crate) brought: Mutex<HashMap<(String, Oid), u64>>,
    /// Mirrors that are to be tidied once nobody is at work there.
    pub(crate) untidy: Mutex<BTreeSet<String>>,
    pub(crate) room: Mutex<Room>,
    listings: Arc<Listings>,
    pub(crate) evicted: AtomicU64,
    pub(crate) rebuilt: AtomicU64,
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
    pub(crate) id: String,
    pub(crate) store: Store,
    /// Set when a reader met damage, or the start did; the next resolve then checks every byte.
    pub(crate) suspect: AtomicBool,
    pub(crate) board: Arc<Board<Key, Looked>>,
    /// What its listings said.
    pub(crate) answers: Mutex<Answers>,
    /// What the server last said it offers, so that a poll is one request.
    endpoint: Mutex<Option<(Endpoint, Server)>>,
    /// Agents at rest, with the CA bundle they were made for.
    pub(crate) agents: Mutex<Option<(Option<String>, Agents)>>,
    pub(crate) identity: OpenIdentity,
    pub(crate) holds: Mutex<Holds>,
    /// Whose listings are its own.
    place: Place,
    listings: Arc<Listings>,
}

/// Why commits stay although nobody has named them to [`Mirrors::keep`].
#[derive(Default)]
pub(crate) struct Holds {
    /// Handed out since the last keep: the caller had no chance yet to name them.
    pub(crate) fresh: BTreeSet<Oid>,
    /// What the last keep named, if anybody has named this mirror itself.
    pub(crate) named: Option<BTreeSet<Oid>>,
    /// Open snapshots by commit.
    pub(crate) pins: BTreeMap<Oid, usize>,
    /// The commit fetched last, a good one to compare the next with.
    pub(crate) last: Option<Oid>,
    /// What references last led to.
    pub(crate) led_to: HashMap<Reference, Oid>,
}

impl Mirror {
    fn new(dir: &Path, id: &str, listings: &Arc<Listings>) -> Self {
        Self {
            place: Place::new(),
            listings: Arc::clone(listings),
            id: id.to_owned(),
            store: Store { path: dir.join(id) },
            suspect: AtomicBool::new(false),
            board: Board::new(),
            answers: Mutex::default(),
            endpoint: Mutex::new(None),
            agents: Mutex::new(None),
            identity: OpenIdentity::default(),
            holds: Mutex::default(),
        }
    }

    /// Where to ask and what is offered there, if that may still be taken for granted. Counts as a use.
    pub(crate) fn known_endpoint(&self) -> Option<(Endpoint, Server)> {
        let mut known = lock(&self.endpoint);
        let (endpoint, server) = known.as_mut()?;
        let found = (endpoint.clone(), server.clone());
        if let Some(uses) = &mut endpoint.uses {
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                *known = None;
            }
        }
        Some(found)
    }

    /// Remembers where a server answers, or that it is to be asked for anew.
    pub(crate) fn note_endpoint(&self, found: Option<(Endpoint, Server)>) {
        *lock(&self.endpoint) = found.filter(|(endpoint, _)| endpoint.uses != Some(0));
    }

    /// A directory, as it was read last or is read now.
    pub(crate) fn listing(&self, repo: &Repository, id: Oid) -> Result<Arc<Listing>, git2::Error> {
        let read = || repo.find_tree(id).map(|tree| Listing::of(&tree));
        self.listings.get(self.place, id, read)
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

    /// Whether a commit can be opened.
    pub(crate) fn opens(&self, commit: Oid) -> bool {
        let Ok(Some(repo)) = self.store.open() else { return false };
        if !self.claim(&repo, commit, None) {
            return false;
        }
        let opens = repo.find_commit(commit).is_ok_and(|commit| commit.tree().is_ok());
        if !opens {
            self.doubt();
        }
        opens
    }

    /// Whether everything of a commit is here as its id says. Reads all of it.
    pub(crate) fn is_whole(&self, commit: Oid, limits: &Limits) -> bool {
        let Ok(Some(repo)) = self.store.open() else { return false };
        self.claim(&repo, commit, None)
            && matches!(
                self.store.is_complete(&repo, commit, None, Check::Content, limits),
                Ok(true)
            )
    }

    /// Whether a commit is here and can be read whole, as far as is known.
    pub(crate) fn is_sound(&self, commit: Oid, limits: &Limits) -> bool {
        // Of what may be damaged this may be whole.
        self.is_here(commit, None)
            || self.suspect.load(Ordering::SeqCst) && self.is_whole(commit, limits)
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
        // Directories are kept by us, for all who read; everything else is read once.
        git2::opts::enable_caching(false);
        let mirrors = dir.join("mirrors");
        fs::create_dir_all(&mirrors).map_err(|e| cache_error("create", &mirrors, e))?;
        let lock = DirLock::take(dir)?;
        let mut room = Room::new(limits.cache_bytes);
        let mut open = HashMap::new();
        let listings = Arc::default();
        for name in files(&mirrors)? {
            if let Some(id) = name.split('.').next().filter(|id| is_id(id)) {
                Store { path: mirrors.join(id) }.restore()?;
            }
        }
        for name in files(&mirrors)? {
            let path = mirrors.join(&name);
            if !is_id(&name) || !path.is_dir() {
                remove_dir(&path)?;
                continue;
            }
            let mirror = Mirror::new(&mirrors, &name, &listings);
            let store = &mirror.store;
            let mended = store.mend();
            // Without knowing what was let go: the packs of more than one fetch may hold some of it.
            let loose = store.packs().is_ok_and(|packs| packs.len() > 1);
            room.found(&name, store.size(), store.changed(), loose);
            match mended {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(mirror = shown(&name), "a mirror in the cache may be damaged");
                    mirror.doubt();
                    open.insert(name, Arc::new(mirror));
                }
                Err(error) => {
                    tracing::warn!(mirror = shown(&name), %error, "a mirror in the cache cannot be mended");
                    mirror.doubt();
                    open.insert(name, Arc::new(mirror));
                }
            }
        }
        Ok(Self {
            dir: mirrors,
            limits,
            open: Mutex::new(open),
            named: Mutex::default(),
            brought: Mutex::default(),
            untidy: Mutex::default(),
            traffic: Counters::default(),
            tokens: Tokens::default(),
            room: Mutex::new(room),
            listings,
            evicted: AtomicU64::default(),
            rebuilt: AtomicU64::default(),
            _lock: lock,
        })
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

    /// The same, and of an annotated tag the tag object, too.
    pub fn resolve_tag(
        &self,
        remote: &Remote,
        reference: &Reference,
        cancel: &Cancel,
    ) -> Result<Resolved, SourceError> {
        let question = Question { reference, with_tag: true, others: &[], since: Instant::now() };
        Ok(self.look(remote, &question, cancel)?.resolved)
    }

    /// Gets in where that takes a question of its own, to another server it may be: a GitHub App asks for a
    /// token, which is used until it is over.
    pub fn log_in(&self, remote: &Remote, cancel: &Cancel) -> Result<(), SourceError> {
        self.call(remote, cancel)?.log_in()
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
        let here = call.mirror.is_sound(commit.oid(), call.limits);
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

    /// Whether a commit can be opened. That a part of it is damaged may turn out only when that is read.
    /// No network at all.
    pub fn has(&self, remote: &Remote, commit: &CommitId) -> Result<bool, SourceError> {
        let mirror = self.mirror(&remote.check()?);
        Ok(mirror.opens(commit.oid())
            && (!remote.submodules || self.has_modules(&mirror, *commit, Mirror::opens)))
    }

    /// Whether a commit can be read whole, as far as is known: where somebody has met damage, all of it is
    /// read. No network at all, and none in [`Mirrors::fetch_commit`] when it is so.
    pub fn is_sound(&self, remote: &Remote, commit: &CommitId) -> Result<bool, SourceError> {
        let mirror = self.mirror(&remote.check()?);
        let is_sound = |mirror: &Mirror, commit| mirror.is_sound(commit, &self.limits);
        Ok(is_sound(&mirror, commit.oid())
            && (!remote.submodules || self.has_modules(&mirror, *commit, is_sound)))
    }

    /// Whether everything of a commit can be read, which reads all of it: for whoever could not read a
    /// part. No network at all.
    pub fn is_whole(&self, remote: &Remote, commit: &CommitId) -> Result<bool, SourceError> {
        let mirror = self.mirror(&remote.check()?);
        let is_whole = |mirror: &Mirror, commit| mirror.is_whole(commit, &self.limits);
        Ok(is_whole(&mirror, commit.oid())
            && (!remote.submodules || self.has_modules(&mirror, *commit, is_whole)))
    }

    /// Opens a commit for reading, with its submodules if the remote asks for them. No network at
    /// all; [`SourceError::NotInCache`] when it was never fetched with these credentials, or the
    /// cache was lost.
    pub fn snapshot(&self, remote: &Remote, commit: &CommitId) -> Result<Snapshot, SourceError> {
        let part = Self::part(self.mirror(&remote.check()?), commit)?;
        if !remote.submodules {
            return Ok(part.alone());
        }
        self.with_modules(part)?.ok_or(SourceError::NotInCache { commit: *commit })
    }

    /// Opens one commit of one mirror.
    pub(crate) fn part(mirror: Arc<Mirror>, commit: &CommitId) -> Result<Part, SourceError> {
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
        Part::open(repo, *commit, mirror)
    }

    /// The mirror of a remote, for use.
    pub(crate) fn mirror(&self, remote: &CheckedRemote) -> Arc<Mirror> {
        self.mirror_of(&remote.id)
    }

    /// The mirror of a name, for use: whoever made room before did not know of that.
    pub(crate) fn mirror_of(&self, id: &str) -> Arc<Mirror> {
        lock(&self.room).touch(id);
        self.at_rest(id)
    }

    /// The mirror of a name, to see to it.
    pub(crate) fn at_rest(&self, id: &str) -> Arc<Mirror> {
        let mut open = lock(&self.open);
        open.entry(id.to_owned())
            .or_insert_with(|| Arc::new(Mirror::new(&self.dir, id, &self.listings)))
            .clone()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
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

    pub(crate) fn call<'a>(
        &'a self,
        remote: &Remote,
        cancel: &'a Cancel,
    ) -> Result<Call<'a>, SourceError> {
        let remote = remote.check()?;
        cancel.check()?;
        Ok(Call {
            mirror: self.mirror(&remote),
            deadline: Instant::now() + remote.timeout,
            remote,
            all: self,
            limits: &self.limits,
            traffic: &self.traffic,
            tokens: &self.tokens,
            cancel,
            received: Cell::new(0),
        })
    }
}

pub(crate) fn is_id(name: &str) -> bool {
    name.len() == ID_LENGTH && name.bytes().all(|b| b.is_ascii_hexdigit())
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
