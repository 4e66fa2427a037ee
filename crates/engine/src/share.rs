//! How much of a worker, and of the API server, one run may take.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::engine::Engine;

/// The part of a run after which others have their turn.
#[derive(Debug)]
pub(crate) struct Slice {
    left: AtomicUsize,
    time: Duration,
    /// When its time is over, once it has begun.
    until: OnceLock<Instant>,
}

impl Slice {
    pub(crate) fn new(writes: usize, time: Duration) -> Self {
        Self { left: AtomicUsize::new(writes), time, until: OnceLock::new() }
    }

    /// Takes one write, if there is one left. Its time begins with the first: whatever has to be looked
    /// at before that, each run gets on.
    pub(crate) fn take(&self, now: Instant) -> bool {
        now < *self.until.get_or_init(|| now + self.time)
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
    }
}

/// How many of `all` writes at once each of `runs` may have under way, of which it wants `most`.
/// Never none: with more runs than writes, all of them go on, one by one.
fn share(all: usize, runs: usize, most: usize) -> usize {
    (all / runs.max(1)).clamp(1, most.max(1))
}

/// Counts a run for as long as it lasts.
pub(crate) struct UnderWay<'e>(&'e AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Engine {
    /// A run begins.
    pub(crate) fn under_way(&self) -> UnderWay<'_> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.runs)
    }

    /// Works these off, as many at a time as the run's share is then. It shrinks when other runs
    /// begin: what is under way is not stopped for them, but they need not wait for it either.
    pub(crate) fn work_off<'w, T>(&'w self, tries: Vec<BoxFuture<'w, T>>) -> Work<'w, T> {
        Work { engine: self, rest: tries.into_iter(), under_way: FuturesUnordered::new() }
    }
}

/// What one run works off. What is under way is dropped with it.
pub(crate) struct Work<'w, T> {
    engine: &'w Engine,
    rest: std::vec::IntoIter<BoxFuture<'w, T>>,
    under_way: FuturesUnordered<BoxFuture<'w, T>>,
}

impl<T> Work<'_, T> {
    /// The next that is done, `None` when all are.
    pub(crate) async fn next(&mut self) -> Option<T> {
        let Self { engine, rest, under_way } = self;
        let runs = engine.runs.load(Ordering::Relaxed);
        let share = share(engine.options.writes, runs, engine.options.concurrency);
        let free = share.saturating_sub(under_way.len());
        under_way.extend(rest.take(free));
        under_way.next().await
    }
}

/// So many writes are a few seconds' work for the API server, and many more than most applications
/// ever send at once. What begins a slice anew, a render and a comparison, takes milliseconds.
pub(crate) const SLICE_WRITES: usize = 500;

/// As long as others can be asked to wait for their turn: a worker that is busy with a slow API
/// server is free again after that, but for the requests that are under way.
pub(crate) const SLICE_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::cluster::script::Script;
    use crate::engine::EngineOptions;

    #[test]
    fn a_slice_ends_with_its_writes_or_its_time() {
        let now = Instant::now();
        let slice = Slice::new(2, SLICE_TIME);
        assert!(slice.take(now) && slice.take(now) && !slice.take(now));
        let slice = Slice::new(3, SLICE_TIME);
        assert!(slice.take(now));
        assert!(slice.take(now) && !slice.take(now + SLICE_TIME) && slice.take(now));
    }

    #[test]
    fn runs_share_the_writes_and_none_has_none() {
        for (all, runs, most, expected) in [
            (32, 1, 8, 8),
            (32, 4, 8, 8),
            (32, 5, 8, 6),
            (32, 16, 8, 2),
            (32, 99, 8, 1),
            (32, 0, 8, 8),
            (32, 1, 0, 1),
        ] {
            assert_eq!(share(all, runs, most), expected, "{runs} runs");
        }
    }

    /// A run that fills its share leaves the one that begins then a share of its own.
    #[tokio::test]
    async fn a_run_takes_less_when_others_begin() {
        let options = EngineOptions { concurrency: 8, writes: 8, ..EngineOptions::default() };
        let engine = Engine::new(Script::new([]).cluster(), options).0;
        let (begun, gate) = (AtomicUsize::new(0), tokio::sync::Semaphore::new(0));
        let _first = engine.under_way();
        let one = || {
            async {
                begun.fetch_add(1, Ordering::Relaxed);
                gate.acquire().await.unwrap().forget();
            }
            .boxed()
        };
        let mut work = engine.work_off((0..20).map(|_| one()).collect());
        assert!(work.next().now_or_never().is_none());
        assert_eq!(begun.load(Ordering::Relaxed), 8);
        let second = engine.under_way();
        gate.add_permits(4);
        for _ in 0..4 {
            work.next().await.unwrap();
        }
        assert_eq!(begun.load(Ordering::Relaxed), 8, "four are left, which is its share");
        gate.add_permits(1);
        work.next().await.unwrap();
        assert!(work.next().now_or_never().is_none());
        assert_eq!(begun.load(Ordering::Relaxed), 9);
        drop(second);
        gate.add_permits(20);
        while work.next().await.is_some() {}
        assert_eq!(begun.load(Ordering::Relaxed), 20);
    }
}
