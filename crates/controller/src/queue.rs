//! The work queue: which object is worked on next, and never twice at once.
//!
//! [`Queue`] is the decision, pure: time is passed in, nothing waits. [`QueueHandle`] shares one
//! between the tasks that add keys and [`run`], the loop that starts workers. Nobody waits while
//! holding a worker: a run that has to wait ends, and asks to be added again later.
//!
//! Invariants: a key is worked on by one worker at a time; a key that is added is worked on
//! afterwards, also when it was being worked on at that moment.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    hash::Hash,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    task::{Id, JoinError, JoinSet},
};

/// How soon a key is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// What is live is not what was verified: somebody changed it, and a commit to a thousand others
    /// must not keep it so.
    Drift,
    /// Somebody or something waits for it: a new revision, a change of the spec, a retry.
    Urgent,
    /// A run for the interval's sake, which most likely finds nothing to do.
    Routine,
}

/// How many lanes there are.
const LANES: usize = 3;

/// After this many keys in a row of lanes above it a key of a lane is taken, so that a storm of changes
/// delays interval runs but never stops them, nor does somebody who changes all that is live stop
/// commits.
const ABOVE_IN_A_ROW: u32 = 8;

/// Keys that wait, keys that wait for their time, and keys that are being worked on.
#[derive(Debug)]
pub struct Queue<K> {
    entries: HashMap<K, Entry>,
    /// Keys to be taken now, by ticket: one map a lane, first in, first out.
    lanes: [BTreeMap<u64, K>; LANES],
    /// Keys to be taken later, by time and ticket.
    delayed: BTreeMap<(Instant, u64), K>,
    /// Numbers the places in the maps above; never reused.
    tickets: u64,
    running: usize,
    /// By lane, how many keys of those above it were taken since one of its own.
    above_in_a_row: [u32; LANES],
}

/// What the queue knows of one key; a key that neither waits nor runs has none.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    running: bool,
    wanted: Option<Wanted>,
}

/// When a key is wanted. Its ticket names its place in the maps, and means nothing while the key
/// is being worked on: then it has no place until that run is done.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Now(Lane, u64),
    At(Instant, Lane, u64),
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            lanes: [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()],
            delayed: BTreeMap::new(),
            tickets: 0,
            running: 0,
            above_in_a_row: [0; LANES],
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Wants a key as soon as a worker is free, and overrides a delay. A key that already waits
    /// keeps its place, but moves into a lane above its own when asked for there.
    pub fn add(&mut self, key: K, lane: Lane) {
        let wanted = self.entries.get(&key).and_then(|entry| entry.wanted);
        match wanted {
            Some(Wanted::Now(held, _)) if held <= lane => {}
            _ => self.want(key, |ticket| Wanted::Now(lane, ticket)),
        }
    }

    /// Wants a key at a time; the earliest of several times wins. A key that already waits to be
    /// taken at once stays as it is.
    pub fn add_at(&mut self, key: K, when: Instant, lane: Lane) {
        let wanted = self.entries.get(&key).and_then(|entry| entry.wanted);
        match wanted {
            Some(Wanted::Now(..)) => {}
            Some(Wanted::At(held, ..)) if held <= when => {}
            _ => self.want(key, |ticket| Wanted::At(when, lane, ticket)),
        }
    }

    /// Forgets that a key is wanted, for an object that is gone. A run of it goes on.
    pub fn remove(&mut self, key: &K) {
        self.unplace(key);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.wanted = None;
            if !entry.running {
                self.entries.remove(key);
            }
        }
    }

    /// Takes the key that is next in turn, which counts as being worked on until [`Self::done`].
    pub fn next(&mut self, now: Instant) -> Option<K> {
        self.promote(now);
        let waits = |lane: &usize| !self.lanes[*lane].is_empty();
        let passed = |lane: &usize| self.above_in_a_row[*lane] >= ABOVE_IN_A_ROW;
        let lane = (0..LANES).rev().find(|lane| passed(lane) && waits(lane));
        let lane = lane.or_else(|| (0..LANES).find(waits))?;
        let (_, key) = self.lanes[lane].pop_first()?;
        self.above_in_a_row[lane] = 0;
        self.above_in_a_row[lane + 1..].iter_mut().for_each(|passed| *passed += 1);
        self.running += 1;
        let entry = self.entries.entry(key.clone()).or_default();
        entry.running = true;
        entry.wanted = None;
        Some(key)
    }

    /// A worker is done with a key: what was asked for meanwhile takes its place in the queue now.
    pub fn done(&mut self, key: &K) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.running) else {
            return;
        };
        self.running -= 1;
        entry.running = false;
        match entry.wanted {
            None => {
                self.entries.remove(key);
            }
            Some(Wanted::Now(lane, _)) => {
                self.want(key.clone(), |ticket| Wanted::Now(lane, ticket));
            }
            Some(Wanted::At(when, lane, _)) => {
                self.want(key.clone(), |ticket| Wanted::At(when, lane, ticket));
            }
        }
    }

    /// When the first delayed key is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((when, _), _)| *when)
    }

    /// How many keys wait for a worker; those that wait for their time are not counted.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(BTreeMap::len).sum()
    }

    /// Whether no key waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys wait for their time.
    pub fn delayed(&self) -> usize {
        self.delayed.len()
    }

    /// How many keys are being worked on.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Moves what is due into its lane, in the order of its times.
    fn promote(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                break;
            }
            let key = first.remove();
            let wanted = self.entries.get(&key).and_then(|entry| entry.wanted);
            let Some(Wanted::At(_, lane, _) | Wanted::Now(lane, _)) = wanted else {
                continue;
            };
            self.want(key, |ticket| Wanted::Now(lane, ticket));
        }
    }

    /// Records when a key is wanted and gives it its place, unless it is being worked on.
    fn want(&mut self, key: K, wanted: impl FnOnce(u64) -> Wanted) {
        self.unplace(&key);
        let ticket = self.tickets;
        self.tickets += 1;
        let wanted = wanted(ticket);
        let entry = self.entries.entry(key.clone()).or_default();
        entry.wanted = Some(wanted);
        if entry.running {
            return;
        }
        match wanted {
            Wanted::Now(lane, ticket) => self.lanes[lane as usize].insert(ticket, key),
            Wanted::At(when, _, ticket) => self.delayed.insert((when, ticket), key),
        };
    }

    /// Takes a key's place away, if it has one.
    fn unplace(&mut self, key: &K) {
        match self.entries.get(key).and_then(|entry| entry.wanted) {
            Some(Wanted::Now(lane, ticket)) => self.lanes[lane as usize].remove(&ticket),
            Some(Wanted::At(when, _, ticket)) => self.delayed.remove(&(when, ticket)),
            None => None,
        };
    }
}

/// One queue, shared by the tasks that add keys and the loop that works them off.
#[derive(Debug)]
pub struct QueueHandle<K> {
    shared: Arc<Shared<K>>,
}

#[derive(Debug)]
struct Shared<K> {
    queue: Mutex<Queue<K>>,
    changed: Notify,
}

impl<K> Clone for QueueHandle<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K> Default for QueueHandle<K> {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { queue: Mutex::default(), changed: Notify::new() }) }
    }
}

impl<K: Clone + Eq + Hash> QueueHandle<K> {
    /// [`Queue::add`].
    pub fn add(&self, key: K, lane: Lane) {
        self.lock().add(key, lane);
        self.shared.changed.notify_one();
    }

    /// [`Queue::add_at`].
    pub fn add_at(&self, key: K, when: Instant, lane: Lane) {
        self.lock().add_at(key, when, lane);
        self.shared.changed.notify_one();
    }

    /// [`Queue::add_at`], counted from now.
    pub fn add_after(&self, key: K, delay: Duration, lane: Lane) {
        self.add_at(key, now() + delay, lane);
    }

    /// [`Queue::remove`].
    pub fn remove(&self, key: &K) {
        self.lock().remove(key);
    }

    /// How many keys wait for a worker, for the metric.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no key waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys are being worked on, for the metric.
    pub fn running(&self) -> usize {
        self.lock().running()
    }

    /// Runs nothing of the caller's, so a panic cannot leave the queue half changed.
    fn lock(&self) -> MutexGuard<'_, Queue<K>> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How [`run`] works a queue off.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// How many keys are worked on at once; 0 counts as 1.
    pub concurrency: usize,
    /// How long runs may go on after the stop before they are cut off.
    pub drain: Duration,
}

/// How a loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Runs that ended by themselves after the stop.
    pub finished: usize,
    /// Runs that were cut off. Their keys are wanted again, for a later [`run`].
    pub cut_off: usize,
}

/// Works a queue off until `stop` ends: each key is handed to `worker` in a task of its own.
///
/// A panic in a worker ends that run only, and `on_panic` is told the key before it can be taken
/// again. After `stop` no key is taken; those that wait stay in the queue, so the same queue can be
/// run again, by a replica that leads again for instance.
pub async fn run<K, W, F>(
    handle: &QueueHandle<K>,
    options: RunOptions,
    worker: W,
    on_panic: impl Fn(&K),
    stop: impl Future<Output = ()>,
) -> Drained
where
    K: Clone + Eq + Hash + Send + 'static,
    W: Fn(K) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut stop = pin!(stop);
    let mut tasks = Tasks { handle, set: JoinSet::new(), keys: HashMap::new() };
    loop {
        let mut deadline = None;
        if tasks.keys.len() < options.concurrency.max(1) {
            let next = {
                let mut queue = handle.lock();
                let next = queue.next(now());
                deadline = queue.next_deadline();
                next
            };
            if let Some(key) = next {
                tasks.start(key.clone(), worker(key));
                continue;
            }
        }
        let due = async {
            match deadline {
                Some(when) => tokio::time::sleep_until(when.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(ended) = tasks.set.join_next_with_id() => tasks.ended(ended, &on_panic),
            () = due => {}
            () = handle.shared.changed.notified() => {}
        }
    }
    tasks.drain(options.drain, &on_panic).await
}

/// The runs of one loop. Dropped with the loop, it gives every key back.
struct Tasks<'a, K: Clone + Eq + Hash> {
    handle: &'a QueueHandle<K>,
    set: JoinSet<()>,
    keys: HashMap<Id, K>,
}

impl<K: Clone + Eq + Hash + Send + 'static> Tasks<'_, K> {
    fn start(&mut self, key: K, run: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(run).id();
        self.keys.insert(id, key);
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>, on_panic: &impl Fn(&K)) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        if ended.is_err_and(|error| error.is_panic()) {
            on_panic(&key);
        }
        self.handle.lock().done(&key);
    }

    async fn drain(mut self, limit: Duration, on_panic: &impl Fn(&K)) -> Drained {
        let deadline = tokio::time::Instant::now() + limit;
        let mut finished = 0;
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(deadline, self.set.join_next_with_id()).await
        {
            finished += 1;
            self.ended(ended, on_panic);
        }
        let cut_off: HashSet<Id> = self.keys.keys().copied().collect();
        // Aborted and waited for, so that none still runs when the caller goes on.
        self.set.shutdown().await;
        Drained { finished, cut_off: cut_off.len() }
    }
}

impl<K: Clone + Eq + Hash> Drop for Tasks<'_, K> {
    fn drop(&mut self) {
        let mut queue = self.handle.lock();
        for (_, key) in self.keys.drain() {
            queue.add(key.clone(), Lane::Urgent);
            queue.done(&key);
        }
    }
}

/// Tokio's clock, which is the system's monotonic one outside of tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
