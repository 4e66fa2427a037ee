//! All mirrors of one cache directory, and what can be asked of them.

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
use crate::mirror::{Check, Store, cache_error, files, remove_dir};
use crate::remote::{CheckedRemote, ID_LENGTH, place};
use crate::room::{Names, Room, Step};
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
    open: Mutex<HashMap<String, Arc<Mirror>>>,
    pub(crate) traffic: Counters,
    tokens: Tokens,
    room: Mutex<Room>,
    evicted: AtomicU64,
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

/// A moment in the life of the mirrors.
#[derive(Debug, Clone, Copy)]
pub struct Moment(u64);

/// What the mirrors take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many there are.
    pub mirrors: usize,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Mirrors that were removed since the start, because nobody named them.
    pub evicted: u64,
    /// Mirrors that were found damaged since the start, and made anew.
    pub rebuilt: u64,
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
    pub(crate) board: Arc<Board<Key, Resolved>>,
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
    fn new(dir: &Path, id: &str) -> Self {
        Self {
            id: id.to_owned(),
            store: Store { path: dir.join(id) },
            suspect: AtomicBool::new(false),
            board: Board::new(),
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

    /// Whether everything of a commit is here as its id says. Reads all of it.
    pub(crate) fn is_whole(&self, commit: Oid, limits: &Limits) -> bool {
        let Ok(Some(repo)) = self.store.open() else { return false };
        self.claim(&repo, commit, None)
            && matches!(
                self.store.is_complete(&repo, commit, None, Check::Content, limits),
                Ok(true)
            )
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
        let mut room = Room::new(limits.cache_bytes);
        let mut open = HashMap::new();
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
            let mirror = Mirror::new(&mirrors, &name);
            let store = &mirror.store;
            let mended = store.mend();
            // Without knowing what was let go: the packs of more than one fetch may hold some of it.
            let loose = store.packs().is_ok_and(|packs| packs.len() > 1);
            room.found(&name, store.size(), store.changed(), loose);
            match mended {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(mirror = name, "a mirror in the cache may be damaged");
                    mirror.doubt();
                    open.insert(name, Arc::new(mirror));
                }
                Err(error) => {
                    tracing::warn!(mirror = name, %error, "a mirror in the cache cannot be mended");
                    mirror.doubt();
                    open.insert(name, Arc::new(mirror));
                }
            }
        }
        Ok(Self {
            dir: mirrors,
            limits,
            open: Mutex::new(open),
            traffic: Counters::default(),
            tokens: Tokens::default(),
            room: Mutex::new(room),
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
        Ok(self.look(remote, reference, Want::Commit, cancel)?.revision)
    }

    /// The same, and of an annotated tag the tag object, too.
    pub fn resolve_tag(
        &self,
        remote: &Remote,
        reference: &Reference,
        cancel: &Cancel,
    ) -> Result<Resolved, SourceError> {
        self.look(remote, reference, Want::Tag, cancel)
    }

    fn look(
        &self,
        remote: &Remote,
        reference: &Reference,
        want: Want,
        cancel: &Cancel,
    ) -> Result<Resolved, SourceError> {
        reference.check()?;
        let call = self.call(remote, cancel)?;
        if let Reference::Commit { id, branch } = reference {
            let commit: CommitId = id.parse()?;
            call.bring(commit, branch.as_deref())?;
            let revision = Revision { name: branch.clone().unwrap_or_default(), commit };
            return Ok(Resolved { revision, tag: None });
        }
        let key = (reference.clone(), call.remote.trust().map(String::from), want);
        call.mirror.board.ask(&key, cancel, call.deadline, || call.resolve(reference, want))
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
        let Ok(Some(repo)) = mirror.store.open() else { return Ok(false) };
        if !mirror.claim(&repo, commit.oid(), None) {
            return Ok(false);
        }
        let opens = repo.find_commit(commit.oid()).is_ok_and(|commit| commit.tree().is_ok());
        if !opens {
            mirror.doubt();
        }
        Ok(opens)
    }

    /// Whether everything of a commit can be read, which reads all of it: for whoever could not read a
    /// part. No network at all.
    pub fn is_whole(&self, remote: &Remote, commit: &CommitId) -> Result<bool, SourceError> {
        Ok(self.mirror(&remote.check()?).is_whole(commit.oid(), &self.limits))
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
        let kept = self.keep_in(&mirror, &remote, commits);
        if matches!(kept, Err(SourceError::Corrupt { .. })) {
            mirror.doubt();
        }
        kept
    }

    fn keep_in(
        &self,
        mirror: &Mirror,
        remote: &CheckedRemote,
        commits: &[CommitId],
    ) -> Result<(), SourceError> {
        let deadline = Instant::now() + remote.timeout;
        let _writing = mirror.board.write(&Cancel::new(), deadline)?;
        let Some(repo) = mirror.store.open()? else { return Ok(()) };
        let mut kept = mirror.store.anchors(&repo)?;
        {
            let mut holds = lock(&mirror.holds);
            let mut wanted: BTreeSet<Oid> = commits.iter().map(|c| c.oid()).collect();
            wanted.append(&mut holds.fresh);
            wanted.extend(holds.pins.keys());
            for dropped in kept.difference(&wanted) {
                mirror.store.drop_tags(*dropped)?;
                mirror.store.drop_anchor(*dropped)?;
                lock(&self.room).loosened(&mirror.id);
            }
            kept = kept.intersection(&wanted).copied().collect();
        }
        mirror.store.write_shallow(&repo);
        let packs = mirror.store.packs()?.len();
        if packs > self.limits.packs || lock(&self.room).is_wasteful(&mirror.id) {
            self.pack(mirror, &repo, &kept)?;
            tracing::debug!(url = %remote.url, packs, "made many packs one");
        }
        Ok(())
    }

    /// Makes the packs of a mirror one, which frees what is not among these commits. The caller may
    /// write.
    fn pack(
        &self,
        mirror: &Mirror,
        repo: &Repository,
        commits: &BTreeSet<Oid>,
    ) -> Result<(), SourceError> {
        let store = &mirror.store;
        store.consolidate(repo, commits)?;
        lock(&self.room).packed(&mirror.id, store.size());
        Ok(())
    }

    /// What [`Mirrors::retain`] is to be given: taken before anybody looks who is named.
    pub fn moment(&self) -> Moment {
        Moment(lock(&self.room).uses())
    }

    /// Removes the mirrors of all remotes but these, and but those of certain URLs whoever asks for them:
    /// of repositories whose credentials are not known just now. Those that were used after the moment
    /// may have been named since; they, and those in use, stay until the next call. Before the first call
    /// no mirror is removed, whatever room is wanted.
    pub fn retain(
        &self,
        moment: Moment,
        remotes: &[Remote],
        urls: &[String],
    ) -> Result<(), SourceError> {
        // A remote that is not valid has no mirror.
        let names = Names {
            ids: remotes
                .iter()
                .filter_map(|remote| remote.check().ok())
                .map(|remote| remote.id)
                .collect(),
            places: urls.iter().filter_map(|url| place(url)).collect(),
        };
        lock(&self.room).name(names, moment.0);
        for id in files(&self.dir)? {
            // What is no mirror is at work for one.
            if is_id(&id) && lock(&self.room).is_unnamed(&id) {
                self.evict(&id)?;
            }
        }
        Ok(())
    }

    /// Removes a mirror that nobody uses. Returns whether it did.
    fn evict(&self, id: &str) -> Result<bool, SourceError> {
        let mut open = lock(&self.open);
        // Ours is the only reference to a mirror that nobody uses.
        let idle = open.get(id).is_none_or(|mirror| Arc::strong_count(mirror) == 1);
        if idle {
            open.remove(id);
            remove_dir(&self.dir.join(id))?;
            lock(&self.room).forget(id);
            self.evicted.fetch_add(1, Ordering::Relaxed);
            tracing::info!(mirror = id, "removed a mirror that nobody names");
        }
        Ok(idle)
    }

    /// Makes room for so many bytes more, or as much as there can be, on behalf of a mirror that the caller
    /// may write to. Returns whether there is more than before.
    pub(crate) fn make_room(&self, bytes: Option<u64>, own: &Mirror) -> bool {
        let before = lock(&self.room).taken();
        let mut tried = BTreeSet::new();
        loop {
            let step = lock(&self.room).next(bytes, &tried);
            let done = match &step {
                Step::Enough | Step::Full => break,
                Step::Pack(id) if *id == own.id => self.pack_anchored(own),
                Step::Pack(id) => self.pack_other(id),
                Step::Evict(id) => self.evict(id).map(|_| ()),
            };
            if let Err(error) = done {
                tracing::debug!(%error, "could not make room");
            }
            tried.insert(step);
        }
        lock(&self.room).taken() < before
    }

    /// Makes the packs of another mirror one, unless somebody is writing to it.
    fn pack_other(&self, id: &str) -> Result<(), SourceError> {
        let mirror = self.mirror_of(id);
        let _writing = mirror.board.write(&Cancel::new(), Instant::now())?;
        self.pack_anchored(&mirror)
    }

    fn pack_anchored(&self, mirror: &Mirror) -> Result<(), SourceError> {
        let Some(repo) = mirror.store.open()? else { return Ok(()) };
        let anchors = mirror.store.anchors(&repo)?;
        self.pack(mirror, &repo, &anchors)
    }

    /// Sees what a mirror takes now.
    pub(crate) fn measure(&self, mirror: &Mirror) {
        let (there, bytes) = (mirror.store.path.exists(), mirror.store.size());
        let mut room = lock(&self.room);
        if there {
            room.measured(&mirror.id, bytes);
        } else {
            room.forget(&mirror.id);
        }
    }

    /// What a fetch brings, piece by piece.
    pub(crate) fn incoming(&self) -> Incoming<'_> {
        Incoming { room: &self.room, bytes: 0 }
    }

    /// What the mirrors take, and what became of some.
    pub fn usage(&self) -> Usage {
        let room = lock(&self.room);
        Usage {
            mirrors: room.count(),
            bytes: room.taken(),
            evicted: self.evicted.load(Ordering::Relaxed),
            rebuilt: self.rebuilt.load(Ordering::Relaxed),
        }
    }

    fn mirror_of(&self, id: &str) -> Arc<Mirror> {
        let mut open = lock(&self.open);
        open.entry(id.to_owned()).or_insert_with(|| Arc::new(Mirror::new(&self.dir, id))).clone()
    }

    pub(crate) fn mirror(&self, remote: &CheckedRemote) -> Arc<Mirror> {
        let mirror = self.mirror_of(&remote.id);
        lock(&self.room).touch(&remote.id);
        mirror
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
            all: self,
            limits: &self.limits,
            traffic: &self.traffic,
            tokens: &self.tokens,
            cancel,
        })
    }
}

/// What a fetch under way has brought; no longer counted once this goes.
pub(crate) struct Incoming<'m> {
    room: &'m Mutex<Room>,
    bytes: u64,
}

impl Incoming<'_> {
    /// Lets a piece in, if there is room for it.
    pub(crate) fn admit(&mut self, bytes: u64) -> Result<(), SourceError> {
        lock(self.room).take(bytes).map_err(|(taken, limit)| SourceError::CacheFull {
            taken: taken - self.bytes,
            limit,
            brought: self.bytes + bytes,
        })?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        lock(self.room).give_back(self.bytes);
    }
}

fn is_id(name: &str) -> bool {
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
