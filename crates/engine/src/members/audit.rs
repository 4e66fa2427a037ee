//! Verifying each object once in a while although nothing shows that it changed: what a webhook did
//! to it after its managed fields were reckoned, or who edits those, leaves no trace in metadata.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Members;
use crate::cluster::digest_of;
use crate::marks::Ssa;

/// So long after it counts as verified without having been sent, an object is not audited: a process
/// that has just started has better things to do. In shares of the interval; ten minutes of a day.
const GRACE: u32 = 144;
/// How often is looked for what is due, in shares of the interval: each minute of a day.
const PORTIONS: u32 = 1440;

/// The moments at which objects are audited. Each object has one of its own in every interval, by its
/// uid and the number of the interval since 1970: so they are as even as digests are, a restart
/// moves none of them, and no hour of the day is left out for ever by a process that restarts daily.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audits {
    interval: Duration,
    begun: Instant,
    /// The time since 1970 at `begun`. It is read once, so that a clock that is set makes nothing due.
    at: Duration,
}

/// What is known of an object's next audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audit {
    /// It was sent a moment ago, and found equal.
    Answered,
    /// It counts as verified because nothing showed that it changed while nobody looked.
    Adopted,
    At(Instant),
    /// It is to be sent.
    Due,
}

impl Audits {
    pub(crate) fn new(interval: Duration, begun: Instant, at: Duration) -> Self {
        Self { interval: interval.max(Duration::from_millis(1)), begun, at }
    }

    /// How long to wait from one look for what is due to the next.
    pub(crate) fn pause(&self) -> Duration {
        (self.interval / PORTIONS).max(Duration::from_secs(1))
    }

    /// How many of so many objects are audited in one look: not many more than are due when all goes
    /// well, so that what piled up while the API server was away does not come as a burst.
    fn portion(&self, objects: usize) -> usize {
        let share = self.pause().as_secs_f64() / self.interval.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a number of objects, rounded"
        )]
        let even = (objects as f64 * share) as usize;
        even.saturating_mul(2).saturating_add(10)
    }

    /// The first moment of an object after `floor`.
    fn next(&self, uid: &str, floor: Instant) -> Instant {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let interval = millis(self.interval);
        let floor_at = millis(self.at + floor.saturating_duration_since(self.begun));
        let moment =
            |number: u64| number * interval + digest_of(&[uid, &number.to_string()]) % interval;
        let number = floor_at / interval;
        let due = if moment(number) > floor_at { moment(number) } else { moment(number + 1) };
        floor + Duration::from_millis(due - floor_at)
    }

    /// When the interval ends in which `now` is.
    fn end_of_interval(&self, now: Instant) -> Instant {
        let since_1970 = self.at + now.saturating_duration_since(self.begun);
        let into = since_1970.as_nanos() % self.interval.as_nanos();
        now + self
            .interval
            .saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or_default()))
    }
}

impl Members {
    /// Marks what is due to be verified. Returns the sets to look at. What nobody would send is left
    /// out.
    pub(crate) fn audit(&mut self, audits: &Audits, now: Instant) -> BTreeSet<Arc<str>> {
        let mut left = audits.portion(self.objects.len());
        let mut sets = BTreeSet::new();
        for slot in self.objects.values_mut() {
            let (Some(live), Some(verified)) = (&slot.live, &mut slot.verified) else { continue };
            let alone = live.marks.hands_off() || live.marks.ssa == Ssa::IfNotPresent;
            verified.audit = match verified.audit {
                Audit::Answered => Audit::At(audits.next(&live.uid, audits.end_of_interval(now))),
                Audit::Adopted => Audit::At(audits.next(&live.uid, now + audits.interval / GRACE)),
                Audit::At(moment) if moment <= now && alone => Audit::Answered,
                Audit::At(moment) if moment <= now && left > 0 => {
                    left -= 1;
                    sets.insert(Arc::clone(&verified.set));
                    Audit::Due
                }
                audit => audit,
            };
        }
        sets
    }

    /// Whether an object is to be sent although nothing shows that it changed.
    pub(crate) fn is_due(&self, key: &plumb_core::ObjectKey) -> bool {
        let verified = self.objects.get(key).and_then(|slot| slot.verified.as_ref());
        verified.is_some_and(|verified| verified.audit == Audit::Due)
    }

    /// A run leaves an object alone, so that nothing of it is due.
    pub(crate) fn left_alone(&mut self, key: &plumb_core::ObjectKey) {
        let verified = self.objects.get_mut(key).and_then(|slot| slot.verified.as_mut());
        if let Some(verified) = verified.filter(|verified| verified.audit == Audit::Due) {
            verified.audit = Audit::Answered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MANAGER, SET, key, live, with};
    use super::*;
    use crate::members::Standing;

    const DAY: Duration = Duration::from_hours(24);

    fn some(count: usize, adopted: bool) -> Members {
        let mut members = Members::default();
        for number in 0..count {
            let key = key(&number.to_string());
            let live = with(10, |live| live.uid = format!("uid-{number}").into());
            members.verified(SET, MANAGER, &key, live, 42);
            if adopted {
                let desired = std::collections::HashMap::from([(key, 42)]);
                members.adopt_verified(SET, MANAGER, &desired);
            }
        }
        members
    }

    /// Looks every minute, as long as given, and verifies what is due. Returns how many were due at
    /// each look.
    fn looks(members: &mut Members, audits: &Audits, from: Instant, lasts: Duration) -> Vec<usize> {
        let mut due = Vec::new();
        let mut now = from;
        while now < from + lasts {
            members.audit(audits, now);
            let keys = members.objects.iter();
            let is_due = |slot: &super::super::Slot| {
                slot.verified.as_ref().is_some_and(|verified| verified.audit == Audit::Due)
            };
            let keys: Vec<_> =
                keys.filter(|(_, slot)| is_due(slot)).map(|(key, _)| Arc::clone(key)).collect();
            due.push(keys.len());
            for key in keys {
                assert_eq!(members.standing(&key, SET, MANAGER), Standing::Suspect(42));
                let live = members.live(&key).unwrap().clone();
                members.verified(SET, MANAGER, &key, live, 42);
            }
            now += audits.pause();
        }
        due
    }

    #[tokio::test(start_paused = true)]
    async fn each_object_is_audited_once_a_day_and_never_many_at_once() {
        let begun = Instant::now();
        let audits = Audits::new(DAY, begun, Duration::from_secs(1_795_000_000));
        assert_eq!(audits.pause(), Duration::from_mins(1));
        for adopted in [false, true] {
            let mut members = some(1000, adopted);
            let first = looks(&mut members, &audits, begun, Duration::from_mins(9));
            assert_eq!(first.iter().sum::<usize>(), 0, "it was verified just now");
            let mut now = begun + Duration::from_mins(9);
            // All have had their turn when the day after this one is over.
            let due = looks(&mut members, &audits, now, 2 * DAY);
            now += 2 * DAY;
            assert!(due.iter().sum::<usize>() >= 1000, "adopted: {adopted}");
            let due = looks(&mut members, &audits, now, DAY);
            let sum = due.iter().sum::<usize>();
            assert!((900..=1100).contains(&sum), "{sum} in a day");
            let most = due.into_iter().max().unwrap();
            assert!(most <= 10, "{most} in a minute, where 0.7 would be even");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_moves_no_audit_and_leaves_none_out_for_ever() {
        let audits = Audits::new(DAY, Instant::now(), Duration::from_secs(1_795_000_000));
        let moment = |floor| audits.next("uid-1", floor);
        let first = moment(Instant::now());
        assert_eq!(moment(first - Duration::from_secs(1)), first);
        let restarted = Audits::new(
            DAY,
            Instant::now() + Duration::from_mins(5),
            Duration::from_secs(1_795_000_300),
        );
        assert_eq!(restarted.next("uid-1", restarted.begun), moment(restarted.begun));
        // Its hour is another one each day, so that a restart at three each night meets it seldom.
        let mut hours = BTreeSet::new();
        let mut now = Instant::now();
        for _ in 0..30 {
            now = moment(now);
            let since_1970 = audits.at + (now - audits.begun);
            hours.insert(since_1970.as_secs() % DAY.as_secs() / 3600);
        }
        assert!(hours.len() > 10, "{hours:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_piled_up_does_not_come_as_a_burst() {
        let begun = Instant::now();
        let audits = Audits::new(DAY, begun, Duration::from_secs(1_795_000_000));
        let mut members = some(1000, false);
        members.audit(&audits, begun);
        // Nothing ran for a week.
        let due = looks(&mut members, &audits, begun + 7 * DAY, DAY);
        assert!(due.iter().all(|due| *due <= 10), "{due:?}");
        assert!(due.iter().sum::<usize>() >= 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_alone_is_not_audited() {
        let begun = Instant::now();
        let audits = Audits::new(DAY, begun, Duration::from_secs(1_795_000_000));
        let mut members = some(3, false);
        members.changed(
            key("0"),
            with(11, |live| {
                live.uid = "uid-0".into();
                live.marks.leave = true;
            }),
        );
        members.changed(
            key("1"),
            with(11, |live| {
                live.uid = "uid-1".into();
                live.marks.ssa = Ssa::IfNotPresent;
            }),
        );
        members.deleted(&key("2"), &live(12));
        members.audit(&audits, begun);
        assert_eq!(members.audit(&audits, begun + 2 * DAY), BTreeSet::new());
        assert!(["0", "1", "2"].iter().all(|name| !members.is_due(&key(name))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_audit_calls_its_set_once_and_ends_when_it_is_answered() {
        let begun = Instant::now();
        let audits = Audits::new(DAY, begun, Duration::from_secs(1_795_000_000));
        let mut members = some(1, false);
        members.audit(&audits, begun);
        let later = begun + 2 * DAY;
        assert_eq!(members.audit(&audits, later), BTreeSet::from([SET.into()]));
        assert!(!members.in_sync(SET, MANAGER, later));
        assert_eq!(members.audit(&audits, later + DAY), BTreeSet::new(), "called once");
        members.left_alone(&key("0"));
        assert!(members.in_sync(SET, MANAGER, later));
    }
}
