//! How often an object was put back or checked of late, and how long the next time waits for it.
//!
//! What is done once is done at once. Somebody who writes a field of ours again and again would
//! otherwise be answered each time, as fast as both can, for ever; and each write of a neighbour to
//! a field of its own would be followed by a check.

use std::time::Duration;

use tokio::time::Instant;

use crate::observe::Difference;
use crate::report::Drift;

/// In this time half of the heat is gone. It makes an endless fight a write in two minutes.
const HALF_LIFE: Duration = Duration::from_mins(10);
/// So many times in a row are nothing out of the ordinary: a person who tries things out.
const FREE: f32 = 4.5;
/// Below this it is as if nothing had been.
const COLD: f32 = 2.0;
/// The longest wait.
const LONGEST: Duration = Duration::from_mins(10);

/// A count that fades.
#[derive(Debug, Clone, Copy)]
struct Heat {
    level: f32,
    at: Instant,
}

impl Heat {
    fn level(self, now: Instant) -> f32 {
        let lives = now.saturating_duration_since(self.at).as_secs_f32() / HALF_LIFE.as_secs_f32();
        self.level * (-lives).exp2()
    }

    fn warm(this: Option<Self>, now: Instant) -> Self {
        Self { level: this.map_or(0.0, |heat| heat.level(now)) + 1.0, at: now }
    }

    /// Until when the next time waits: twice as long with each.
    fn next(self) -> Instant {
        if self.level < FREE {
            return self.at;
        }
        let wait = (self.level - FREE).exp2().min(LONGEST.as_secs_f32());
        self.at + Duration::from_secs_f32(wait)
    }

    /// When it is cold again.
    fn cold(self) -> Instant {
        let lives = (self.level / COLD).max(1.0).log2();
        self.at + HALF_LIFE.mul_f32(lives)
    }
}

/// What was done about one object again and again.
#[derive(Debug, Clone, Default)]
pub(super) struct Heats {
    corrections: Option<Heat>,
    checks: Option<Heat>,
    /// What was put back last, once corrections have to wait.
    fought: Option<Drift>,
    /// What a set that only observes was told of it last.
    look: Option<Look>,
}

/// One of several looks at an object that is only observed.
#[derive(Debug, Clone)]
struct Look {
    heat: Heat,
    desired: u64,
    found: Option<Difference>,
}

impl Heats {
    pub(super) fn corrected(&mut self, drift: &Drift, now: Instant) {
        let heat = Heat::warm(self.corrections, now);
        self.corrections = Some(heat);
        self.fought = (heat.level >= FREE || heat.level >= COLD && self.fought.is_some())
            .then(|| drift.clone());
    }

    pub(super) fn checked(&mut self, now: Instant) {
        self.checks = Some(Heat::warm(self.checks, now));
    }

    pub(super) fn looked(&mut self, desired: u64, found: Option<Difference>, now: Instant) {
        let before = self.look.as_ref().filter(|look| look.desired == desired);
        let heat = Heat::warm(before.map(|look| look.heat), now);
        self.look = Some(Look { heat, desired, found });
    }

    pub(super) fn forget_look(&mut self) {
        self.look = None;
    }

    /// What was desired when it was looked at last, and how it differed from that.
    pub(super) fn seen(&self) -> Option<(u64, Option<&Difference>)> {
        self.look.as_ref().map(|look| (look.desired, look.found.as_ref()))
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.look.as_ref().map(|look| look.heat.next())
    }

    pub(super) fn next_correction(&self) -> Option<Instant> {
        self.corrections.map(Heat::next)
    }

    pub(super) fn next_check(&self) -> Option<Instant> {
        self.checks.map(Heat::next)
    }

    /// What is fought over at the moment, and until when that is said if nothing more happens.
    pub(super) fn fight(&self, now: Instant) -> Option<(&Drift, Instant)> {
        let end = self.corrections?.cold();
        Some((self.fought.as_ref()?, end)).filter(|_| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fight_slows_down_and_is_forgotten_when_it_ends() {
        let begin = Instant::now();
        let mut now = begin;
        let mut heats = Heats::default();
        let mut times = Vec::new();
        while now < begin + Duration::from_hours(2) {
            heats.corrected(&Drift::Deleted, now);
            times.push((now - begin).as_secs());
            now = heats.next_correction().unwrap().max(now);
        }
        assert_eq!(times[..5], [0; 5], "a few are put back at once");
        assert!(heats.fight(now).is_some());
        let within = |seconds| times.iter().filter(|time| **time <= seconds).count();
        assert!(within(30) <= 10, "{times:?}");
        assert!(
            (60..150).contains(&(times[times.len() - 1] - times[times.len() - 2])),
            "{times:?}"
        );
        assert!(within(7200) < 100, "{times:?}");

        now += Duration::from_hours(1);
        assert!(heats.fight(now).is_none());
        heats.corrected(&Drift::Deleted, now);
        assert_eq!(heats.next_correction(), Some(now));
        assert!(heats.fight(now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn checks_do_not_hold_corrections_up() {
        let now = Instant::now();
        let mut heats = Heats::default();
        for _ in 0..10 {
            heats.checked(now);
        }
        assert!(heats.next_check() > Some(now + Duration::from_secs(30)));
        assert_eq!(heats.next_correction(), None);
        assert!(heats.fight(now).is_none());
    }
}
