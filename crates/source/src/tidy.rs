//! What stays in mirrors, and what goes: commits that nobody names, mirrors that nobody names, and whatever
//! makes room. What is decided is in `room.rs`.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::time::Instant;
use std::{fs, io};

use git2::{Oid, Repository};

use crate::cancel::lock;
use crate::mirror::{cache_error, files, remove_dir};
use crate::mirrors::{Mirror, is_id};
use crate::remote::{ID_LENGTH, place};
use crate::room::{Names, Room, Step};
use crate::{Cancel, CommitId, Mirrors, Remote, SourceError};

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

/// How long making the packs of a mirror one may take: it is not waited for, and libgit2 compares some
/// megabytes a second.
const PACKING: Duration = Duration::from_mins(10);

/// Asked in the middle of long work.
pub(crate) type GoOn<'a> = &'a dyn Fn() -> Result<(), SourceError>;

impl Mirrors {
    /// Lets go of every commit of a remote but these. Commits that were resolved or fetched since
    /// the last call stay for one more, because their names may not have reached the caller's list
    /// yet, and so do those of open snapshots. Many packs are made one.
    pub fn keep(&self, remote: &Remote, commits: &[CommitId]) -> Result<(), SourceError> {
        let remote = remote.check()?;
        let mirror = self.mirror(&remote);
        let named: BTreeSet<Oid> = commits.iter().map(|commit| commit.oid()).collect();
        lock(&mirror.holds).named = Some(named.clone());
        // Who finds it busy comes again.
        self.tidy(&mirror, &named, Instant::now()).map(|_| ())
    }

    /// Lets go of every commit of a mirror but these and those that are submodules of others.
    /// Returns how many are left.
    pub(crate) fn tidy(
        &self,
        mirror: &Mirror,
        named: &BTreeSet<Oid>,
        deadline: Instant,
    ) -> Result<usize, SourceError> {
        let tidied = self.let_go(mirror, named, deadline);
        if matches!(tidied, Err(SourceError::Corrupt { .. })) {
            mirror.doubt();
        }
        let (left, lenders) = tidied?;
        self.tidy_modules(lenders, deadline);
        Ok(left)
    }

    /// The same of this mirror alone. Returns how many commits are left, and the mirrors of the submodules
    /// of those that are not.
    fn let_go(
        &self,
        mirror: &Mirror,
        named: &BTreeSet<Oid>,
        deadline: Instant,
    ) -> Result<(usize, BTreeSet<String>), SourceError> {
        let _writing = mirror.board.write(&Cancel::new(), deadline)?;
        let Some(repo) = mirror.store.open()? else { return Ok(Default::default()) };
        // libgit2 does without some of it that git itself does not.
        mirror.store.mend_frame()?;
        let mut kept = mirror.store.anchors(&repo)?;
        let held = {
            let holds = lock(&mirror.holds);
            holds.fresh.iter().chain(holds.pins.keys()).copied().collect::<Vec<_>>()
        };
        // Pinned until it is recorded that they are lent, so in this order.
        let lent = self.lent(&mirror.id)?;
        {
            let mut holds = lock(&mirror.holds);
            let mut wanted: BTreeSet<Oid> = named.iter().copied().chain(held).chain(lent).collect();
            wanted.append(&mut holds.fresh);
            wanted.extend(holds.pins.keys());
            for dropped in kept.difference(&wanted) {
                mirror.store.drop_tags(*dropped)?;
                mirror.store.drop_anchor(*dropped)?;
                lock(&self.room).loosened(&mirror.id);
            }
            kept = kept.intersection(&wanted).copied().collect();
            holds.led_to.retain(|_, commit| kept.contains(commit));
        }
        let lenders = mirror.store.keep_modules(&kept)?;
        let packs = mirror.store.packs()?.len();
        if packs > self.limits().packs || lock(&self.room).is_wasteful(&mirror.id) {
            let end = Instant::now() + PACKING;
            let go_on = || {
                let late = Instant::now() >= end;
                if late { Err(SourceError::Timeout { doing: "making packs one" }) } else { Ok(()) }
            };
            self.pack(mirror, &repo, &kept, &go_on)?;
            tracing::debug!(mirror = shown(&mirror.id), packs, "made many packs one");
        } else {
            mirror.store.write_shallow(&repo);
        }
        Ok((kept.len(), lenders))
    }

    /// Makes the packs of a mirror one, which frees what is not among these commits. The caller may
    /// write.
    fn pack(
        &self,
        mirror: &Mirror,
        repo: &Repository,
        commits: &BTreeSet<Oid>,
        go_on: GoOn<'_>,
    ) -> Result<(), SourceError> {
        let store = &mirror.store;
        store.consolidate(repo, commits, go_on)?;
        store.write_shallow(repo);
        lock(&self.room).packed(&mirror.id, store.size());
        Ok(())
    }

    /// What [`Mirrors::retain`] is to be given: taken before anybody looks who is named.
    pub fn moment(&self) -> Moment {
        Moment(lock(&self.room).uses())
    }

    /// Removes the mirrors of all remotes but these, and but those of certain URLs whoever asks for them:
    /// of repositories whose credentials are not known just now. The mirrors of the submodules of their
    /// commits stay as well. Those that were used after the moment may have been named since; they, and
    /// those in use, stay until the next call. Before the first call no mirror is removed, whatever room
    /// is wanted.
    pub fn retain(
        &self,
        moment: Moment,
        remotes: &[Remote],
        urls: &[String],
    ) -> Result<(), SourceError> {
        let mut names = Names {
            // A remote that is not valid has no mirror.
            ids: remotes
                .iter()
                .filter_map(|remote| remote.check().ok())
                .map(|remote| remote.id)
                .collect(),
            places: urls.iter().filter_map(|url| place(url)).collect(),
        };
        for (_, mirror) in lock(&self.open).iter().filter(|(id, _)| !names.has(id)) {
            lock(&mirror.holds).named = None;
        }
        *lock(&self.named) = Some(names.clone());
        // What is no mirror is at work for one.
        let all: Vec<String> = files(self.dir())?.into_iter().filter(|id| is_id(id)).collect();
        let lenders = self.lenders(all.iter().filter(|id| names.has(id)))?;
        names.ids.extend(lenders);
        lock(&self.room).name(names, moment.0);
        for id in all {
            if lock(&self.room).is_unnamed(&id) {
                self.evict(&id)?;
            }
        }
        Ok(())
    }

    /// Removes a mirror that nobody uses. Returns whether it did.
    pub(crate) fn evict(&self, id: &str) -> Result<bool, SourceError> {
        let mut open = lock(&self.open);
        // Ours is the only reference to a mirror that nobody uses.
        let idle = open.get(id).is_none_or(|mirror| Arc::strong_count(mirror) == 1);
        if !idle {
            return Ok(false);
        }
        open.remove(id);
        let (path, gone) = (self.dir().join(id), self.dir().join(id).with_extension("gone"));
        remove_dir(&gone)?;
        match fs::rename(&path, &gone) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cache_error("remove", &path, error));
            }
            _ => {}
        }
        lock(&self.room).forget(id);
        // A large one takes its time, for which nobody else waits.
        drop(open);
        remove_dir(&gone)?;
        self.evicted.fetch_add(1, Ordering::Relaxed);
        tracing::info!(mirror = shown(id), "removed a mirror that nobody names");
        Ok(true)
    }

    /// Makes room for so many bytes more, or as much as there can be, on behalf of a mirror that the caller
    /// may write to. Returns whether there is more than before.
    pub(crate) fn make_room(&self, bytes: Option<u64>, own: &Mirror, go_on: GoOn<'_>) -> bool {
        let before = lock(&self.room).taken();
        let mut tried = BTreeSet::new();
        loop {
            let step = lock(&self.room).next(bytes, &tried);
            let done = match &step {
                Step::Enough | Step::Full => break,
                Step::Pack(id) if *id == own.id => self.pack_anchored(own, go_on),
                Step::Pack(id) => self.pack_other(id, go_on),
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
    fn pack_other(&self, id: &str, go_on: GoOn<'_>) -> Result<(), SourceError> {
        let mirror = self.at_rest(id);
        let _writing = mirror.board.write(&Cancel::new(), Instant::now())?;
        self.pack_anchored(&mirror, go_on)
    }

    fn pack_anchored(&self, mirror: &Mirror, go_on: GoOn<'_>) -> Result<(), SourceError> {
        let Some(repo) = mirror.store.open()? else { return Ok(()) };
        let anchors = mirror.store.anchors(&repo)?;
        self.pack(mirror, &repo, &anchors, go_on)
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
}

/// A mirror as it may be told: by its place. The rest is made of what its credentials are.
pub(crate) fn shown(id: &str) -> &str {
    id.get(..ID_LENGTH / 2).unwrap_or_default()
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
