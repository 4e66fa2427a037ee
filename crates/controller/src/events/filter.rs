//! Which Events are worth sending.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use super::Event;

/// How long the same Event is not sent again: as long as client-go adds to a series.
const WINDOW: Duration = Duration::from_mins(6);
/// How many Events are remembered; beyond that the oldest may be sent again.
const REMEMBERED: usize = 4096;
/// How many Events one object may have at once, and how often one more: client-go's figures.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_mins(5);

/// What becomes of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent, and happened that often since it was sent last.
    Send {
        /// At least 1.
        count: u32,
    },
    /// The same was sent just now; it is counted and told with the next.
    Repeated,
    /// There were too many about its object.
    TooMany,
}

/// Remembers what was sent, and how much about each object.
#[derive(Debug, Default)]
pub struct Filter {
    sent: HashMap<u64, Sent>,
    /// The keys of `sent` in the order of their times.
    order: VecDeque<(Instant, u64)>,
    /// By uid.
    buckets: HashMap<String, Bucket>,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    repeats: u32,
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Filter {
    /// Decides about an Event that happened now, and remembers it.
    pub fn judge(&mut self, event: &Event, now: Instant) -> Verdict {
        let key = identity(event);
        let repeats = match self.sent.get_mut(&key) {
            Some(sent) if now.saturating_duration_since(sent.at) < WINDOW => {
                sent.repeats = sent.repeats.saturating_add(1);
                return Verdict::Repeated;
            }
            Some(sent) => sent.repeats,
            None => 0,
        };
        let bucket = self
            .buckets
            .entry(event.regarding.uid.clone())
            .or_insert(Bucket { tokens: BURST, at: now });
        bucket.refill(now);
        if bucket.tokens < 1.0 {
            return Verdict::TooMany;
        }
        bucket.tokens -= 1.0;
        self.sent.insert(key, Sent { at: now, repeats: 0 });
        self.order.push_back((now, key));
        self.shrink(now);
        Verdict::Send { count: repeats.saturating_add(1) }
    }

    /// Forgets an object's bucket.
    pub fn forget(&mut self, uid: &str) {
        self.buckets.remove(uid);
    }

    /// Forgets the oldest when there are too many, and buckets that are full again.
    fn shrink(&mut self, now: Instant) {
        while self.order.len() > REMEMBERED {
            if let Some((at, key)) = self.order.pop_front()
                // A key that was sent again stands further back once more.
                && self.sent.get(&key).is_some_and(|sent| sent.at == at)
            {
                self.sent.remove(&key);
            }
        }
        if self.buckets.len() > REMEMBERED {
            self.buckets.retain(|_, bucket| {
                bucket.refill(now);
                bucket.tokens < BURST
            });
        }
    }
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        self.tokens = BURST.min(self.tokens + passed.div_duration_f64(REFILL));
    }
}

/// What makes two Events the same, in eight bytes: a collision would hide one Event in billions.
fn identity(event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.regarding.hash(&mut hasher);
    event.severity.hash(&mut hasher);
    event.reason.hash(&mut hasher);
    event.note.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::event;

    #[test]
    fn the_same_is_sent_once_a_window_and_its_repeats_are_told_later() {
        let start = Instant::now();
        let mut filter = Filter::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(filter.judge(&event("a"), at(0)), Verdict::Send { count: 1 });
        for second in 1..=10 {
            assert_eq!(filter.judge(&event("a"), at(second)), Verdict::Repeated);
        }
        assert_eq!(filter.judge(&event("b"), at(5)), Verdict::Send { count: 1 });
        let mut other = event("a");
        other.regarding.uid = "another".into();
        assert_eq!(filter.judge(&other, at(5)), Verdict::Send { count: 1 });
        assert_eq!(filter.judge(&event("a"), at(360)), Verdict::Send { count: 11 });
        assert_eq!(filter.judge(&event("a"), at(361)), Verdict::Repeated);
    }

    #[test]
    fn an_object_has_a_burst_and_then_one_in_five_minutes() {
        let start = Instant::now();
        let mut filter = Filter::default();
        for number in 0..25 {
            let verdict = filter.judge(&event(&number.to_string()), start);
            assert_eq!(verdict, Verdict::Send { count: 1 });
        }
        assert_eq!(filter.judge(&event("more"), start), Verdict::TooMany);
        let mut other = event("more");
        other.regarding.uid = "another".into();
        assert_eq!(filter.judge(&other, start), Verdict::Send { count: 1 });
        let later = start + Duration::from_secs(301);
        assert_eq!(filter.judge(&event("more"), later), Verdict::Send { count: 1 });
        assert_eq!(filter.judge(&event("most"), later), Verdict::TooMany);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let start = Instant::now();
        let mut filter = Filter::default();
        for number in 0..3 * REMEMBERED {
            let mut event = event("a");
            event.regarding.uid = number.to_string();
            let now = start + Duration::from_secs(number as u64);
            filter.judge(&event, now);
            assert!(filter.sent.len() <= REMEMBERED && filter.order.len() <= REMEMBERED);
            assert!(filter.buckets.len() <= REMEMBERED + 1);
        }
        filter.forget(&(3 * REMEMBERED - 1).to_string());
        assert!(filter.buckets.len() <= REMEMBERED);
    }
}
