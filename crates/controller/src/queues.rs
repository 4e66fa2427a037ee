//! The daemon's two queues. A look at a GitRepository mostly waits for somebody else's server, so
//! these looks have workers of their own: however many Git servers stall, Applications are run.

use std::time::Duration;

use crate::names::Key;
use crate::queue::{Lane, QueueHandle};

/// How many looks at repositories may be under way for each run of an Application. A look that
/// waits costs a thread that sleeps; with fewer of them, some stalled servers would hold other
/// repositories back for a time-out.
pub(crate) const LOOKS_PER_RUN: usize = 8;

/// How many threads may block at a time in a process with so many runs: all looks and runs may,
/// twice as many while those of a lost term come to their end, and host names are looked up on
/// such threads too.
#[must_use]
pub fn blocking_threads(runs: usize) -> usize {
    /// What tokio takes by itself.
    const USUAL: usize = 512;
    runs.saturating_mul(2 * (LOOKS_PER_RUN + 1)).saturating_add(64).max(USUAL)
}

/// Both queues; a key finds its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queues {
    pub(crate) sources: QueueHandle<Key>,
    pub(crate) apps: QueueHandle<Key>,
}

impl Queues {
    fn of(&self, key: &Key) -> &QueueHandle<Key> {
        match key {
            Key::Source(_) => &self.sources,
            Key::App(_) => &self.apps,
        }
    }

    /// Asks for a run as soon as a worker is free.
    pub(crate) fn add(&self, key: Key, lane: Lane) {
        self.of(&key).add(key, lane);
    }

    /// Asks for a run after a while.
    pub(crate) fn add_after(&self, key: Key, delay: Duration, lane: Lane) {
        self.of(&key).add_after(key, delay, lane);
    }

    /// Forgets what was asked for.
    pub(crate) fn remove(&self, key: &Key) {
        self.of(key).remove(key);
    }
}
