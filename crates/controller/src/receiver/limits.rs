//! What keeps hooks from costing much. All of it is in memory, bounded, and told the time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// So many turns need no tidying up.
const FEW: usize = 64;

/// Lets so many through at once, and one more after each pause.
#[derive(Debug)]
pub struct Bucket {
    burst: u32,
    pause: Duration,
    /// When it will be full again.
    full: Option<Instant>,
}

impl Bucket {
    /// A bucket that is full.
    pub fn new(burst: u32, pause: Duration) -> Self {
        Self { burst, pause, full: None }
    }

    /// Takes one out; if there is none, says how long until there is.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full = self.full.map_or(now, |full| full.max(now));
        let spent = full.saturating_duration_since(now) + self.pause;
        let wait = spent.saturating_sub(self.pause * self.burst);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full = Some(full + self.pause);
        Ok(())
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full.is_none_or(|full| full <= now)
    }
}

/// When each of several things may be done next: at once, a few times, then after a pause. What is put
/// off is done once, however often it is asked for meanwhile.
#[derive(Debug)]
pub struct Pace<K> {
    burst: u32,
    pause: Duration,
    known: HashMap<K, Turn>,
    /// With so many it is time to forget what has rested.
    enough: usize,
}

#[derive(Debug)]
struct Turn {
    bucket: Bucket,
    /// When what was put off is due.
    planned: Option<Instant>,
}

impl<K: Eq + Hash> Pace<K> {
    /// All of them may be done at once.
    pub fn new(burst: u32, pause: Duration) -> Self {
        Self { burst, pause, known: HashMap::new(), enough: FEW }
    }

    /// How long until it may be done.
    pub fn ask(&mut self, key: K, now: Instant) -> Duration {
        if self.known.len() >= self.enough {
            // What has rested is as good as unknown.
            self.known.retain(|_, turn| {
                turn.planned.is_some_and(|at| at > now) || !turn.bucket.is_full(now)
            });
            self.enough = FEW.max(2 * self.known.len());
        }
        let turn = self
            .known
            .entry(key)
            .or_insert_with(|| Turn { bucket: Bucket::new(self.burst, self.pause), planned: None });
        if let Some(at) = turn.planned.filter(|at| *at > now) {
            return at.saturating_duration_since(now);
        }
        match turn.bucket.take(now) {
            Ok(()) => Duration::ZERO,
            Err(wait) => {
                let at = now + wait;
                turn.planned = Some(at);
                // It is taken out then; nobody asks again.
                let taken = turn.bucket.take(at);
                debug_assert!(taken.is_ok(), "there is one after the wait");
                wait
            }
        }
    }
}

/// Remembers what came within a while, but no more than so much of it.
#[derive(Debug)]
pub struct Seen<K> {
    window: Duration,
    most: usize,
    known: HashSet<K>,
    order: VecDeque<(Instant, K)>,
}

impl<K: Clone + Eq + Hash> Seen<K> {
    /// Nothing was seen.
    pub fn new(window: Duration, most: usize) -> Self {
        Self { window, most, known: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether this is new, which it is not from now on.
    pub fn is_new(&mut self, key: &K, now: Instant) -> bool {
        while let Some((at, _)) = self.order.front() {
            if now.saturating_duration_since(*at) < self.window && self.order.len() <= self.most {
                break;
            }
            if let Some((_, old)) = self.order.pop_front() {
                self.known.remove(&old);
            }
        }
        let new = self.known.insert(key.clone());
        if new {
            self.order.push_back((now, key.clone()));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_lets_a_burst_through_and_then_one_a_pause() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, 5 * SECOND);
        for _ in 0..3 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(5 * SECOND));
        assert_eq!(bucket.take(start + 4 * SECOND), Err(SECOND), "asking costs nothing");
        assert_eq!(bucket.take(start + 5 * SECOND), Ok(()));
        assert_eq!(bucket.take(start + 5 * SECOND), Err(5 * SECOND));
        let later = start + 60 * SECOND;
        assert!(bucket.is_full(later));
        for _ in 0..3 {
            assert_eq!(bucket.take(later), Ok(()));
        }
        assert!(bucket.take(later).is_err(), "it holds no more than its burst");
    }

    #[test]
    fn what_is_asked_for_too_often_is_put_off_and_done_once() {
        let start = Instant::now();
        let mut pace = Pace::new(2, 5 * SECOND);
        assert_eq!(pace.ask("a", start), Duration::ZERO);
        assert_eq!(pace.ask("a", start), Duration::ZERO);
        assert_eq!(pace.ask("b", start), Duration::ZERO, "each has its own turns");
        assert_eq!(pace.ask("a", start), 5 * SECOND);
        assert_eq!(pace.ask("a", start + 2 * SECOND), 3 * SECOND, "the same turn");
        assert_eq!(pace.ask("a", start + 5 * SECOND), 5 * SECOND, "that turn is over");
        // However many ask for how long: the first two, and one a pause.
        let mut done = 0;
        let mut planned = None;
        let mut pace = Pace::new(2, 5 * SECOND);
        for tenth in 0..600 {
            let now = start + tenth * Duration::from_millis(100);
            done += u32::from(planned.is_some_and(|at| at <= now));
            planned = planned.filter(|at| *at > now);
            match pace.ask("a", now) {
                Duration::ZERO => done += 1,
                wait => planned = Some(now + wait),
            }
        }
        assert!((12..=14).contains(&done), "{done}");
    }

    #[test]
    fn what_has_rested_is_forgotten() {
        let start = Instant::now();
        let mut pace = Pace::new(2, 5 * SECOND);
        for key in 0..10_000_u32 {
            assert_eq!(pace.ask(key, start + key * SECOND), Duration::ZERO);
            assert!(pace.known.len() <= FEW);
        }
        let rest = start + 10_000 * SECOND;
        assert_eq!(pace.ask(9_999, rest), Duration::ZERO);
        assert!(!pace.ask(9_999, rest).is_zero(), "what has not is not");
    }

    #[test]
    fn what_was_seen_is_known_for_a_while_and_not_without_bounds() {
        let start = Instant::now();
        let mut seen = Seen::new(60 * SECOND, 3);
        assert!(seen.is_new(&1, start));
        assert!(!seen.is_new(&1, start + 59 * SECOND));
        assert!(seen.is_new(&1, start + 60 * SECOND), "the window is over");
        for key in 2..100 {
            assert!(seen.is_new(&key, start + 60 * SECOND));
            assert!(seen.known.len() <= 4 && seen.order.len() == seen.known.len());
        }
        assert!(!seen.is_new(&99, start + 60 * SECOND));
        assert!(seen.is_new(&1, start + 60 * SECOND), "room was needed for others");
    }
}
