//! How long to wait before a failed object is tried again.

use std::time::Duration;

/// The shortest wait, so that an interval of zero cannot make a loop spin.
const SHORTEST: Duration = Duration::from_millis(100);

/// How far a wait is moved from its computed length, so that objects that failed together (their
/// repository was away) do not all come back in the same moment.
const JITTER: f64 = 0.1;

/// One object's exponential back-off: it doubles with each failure up to a cap, and starts anew
/// after a success or when something the failure may have come from has changed.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    failures: u32,
    tried: Option<Tried>,
    random: fastrand::Rng,
}

/// What was tried when it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tried {
    generation: i64,
    revision: String,
}

impl Backoff {
    /// A back-off whose first wait is `base`; `seed` drives the jitter.
    pub fn new(base: Duration, seed: u64) -> Self {
        Self { base, failures: 0, tried: None, random: fastrand::Rng::with_seed(seed) }
    }

    /// Records that a run failed and says how long to wait for the next one: `base`, twice that,
    /// four times that and so on, at most `cap` (the object's retry interval), ±10 %. A failure
    /// with another generation of the spec or another revision counts as the first one.
    pub fn failed(&mut self, generation: i64, revision: &str, cap: Duration) -> Duration {
        self.observe(generation, revision);
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let wait = self.base.saturating_mul(factor).min(cap).max(SHORTEST);
        let factor = 1.0 + JITTER * (2.0 * self.random.f64() - 1.0);
        Duration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(wait)
    }

    /// Records that a run succeeded.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.tried = None;
    }

    /// Records what is tried now; forgets the failures of something else.
    pub fn observe(&mut self, generation: i64, revision: &str) {
        let same = self
            .tried
            .as_ref()
            .is_some_and(|tried| tried.generation == generation && tried.revision == revision);
        if !same {
            self.failures = 0;
            self.tried = Some(Tried { generation, revision: revision.to_owned() });
        }
    }

    /// How often in a row this was tried in vain.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(1);
    const CAP: Duration = Duration::from_mins(1);

    /// Asserts that a wait is `seconds` long, give or take the jitter.
    #[track_caller]
    fn about(wait: Duration, seconds: f64) {
        let ratio = wait.as_secs_f64() / seconds;
        assert!((0.9..=1.1).contains(&ratio), "{wait:?} is not {seconds} s");
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let mut backoff = Backoff::new(BASE, 1);
        for seconds in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            about(backoff.failed(1, "main", CAP), seconds);
        }
        for _ in 0..100 {
            about(backoff.failed(1, "main", CAP), 60.0);
        }
        assert_eq!(backoff.failures(), 108);
        about(backoff.failed(1, "main", Duration::from_secs(5)), 5.0);
    }

    #[test]
    fn a_success_or_a_change_starts_anew() {
        type Change = fn(&mut Backoff);
        let table: [(&str, Change, i64, &str, f64); 5] = [
            ("nothing", |_| {}, 1, "main", 8.0),
            ("success", Backoff::succeeded, 1, "main", 1.0),
            ("generation", |_| {}, 2, "main", 1.0),
            ("revision", |_| {}, 1, "next", 1.0),
            ("observed", |it| it.observe(2, "main"), 1, "main", 1.0),
        ];
        for (name, change, generation, revision, seconds) in table {
            let mut backoff = Backoff::new(BASE, 2);
            for _ in 0..3 {
                backoff.failed(1, "main", CAP);
            }
            change(&mut backoff);
            println!("{name}");
            about(backoff.failed(generation, revision, CAP), seconds);
        }
    }

    #[test]
    fn the_jitter_spreads_and_repeats_with_its_seed() {
        let first = |seed| Backoff::new(BASE, seed).failed(1, "", CAP);
        assert_eq!(first(7), first(7));
        let waits: Vec<Duration> = (0..100).map(first).collect();
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(most.saturating_sub(*least) > Duration::from_millis(150));
    }

    #[test]
    fn a_cap_of_zero_does_not_spin() {
        let wait = Backoff::new(BASE, 3).failed(1, "", Duration::ZERO);
        assert!(wait >= SHORTEST.mul_f64(0.9));
    }
}
