//! What is said of an Application that is applied and whose objects have yet to become ready, or are
//! so no more, and when.
//!
//! Pure: what was found and the time go in, what to say comes out. Nothing waits here, and no worker
//! does: a run looks, notes this, and ends; the watches and one timer call for the next.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use plumb_api::conditions::reasons;
use plumb_api::{MAX_UNREADY, Time, Waiting};
use plumb_engine::{Health, Unready, Wellbeing};

use crate::status::{Waits, brief};

/// Objects that are ready within this time after they were applied are told once, as ready.
const QUIET: Duration = Duration::from_secs(5);
/// How often progress is told at most.
const PACE: Duration = Duration::from_secs(10);

/// What is waited for: a revision, by a generation of the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) revision: String,
    pub(crate) generation: Option<i64>,
}

/// What is known of a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    wanted: Wanted,
    /// Since when; the time-out counts from here.
    since: Timestamp,
    /// The objects were ready before, so that each moment of this is worth telling.
    broke: bool,
    /// When something was last told of it, and what.
    told: Option<(Timestamp, State)>,
}

impl Wait {
    /// Whether anything was said of it.
    pub(crate) fn is_told(&self) -> bool {
        self.told.is_some()
    }
}

/// How a wait stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Objects may become ready by themselves.
    Progress,
    /// They may, but something is wrong: they are not ready in time, or broke after they were.
    Failed,
    /// One cannot, until somebody changes something.
    Final,
}

/// What a run has to go by.
#[derive(Debug, Clone)]
pub(crate) struct Look<'l> {
    pub(crate) wanted: Wanted,
    pub(crate) found: &'l Wellbeing,
    /// Whether this run has sent what Git asks for anew: then the wait begins now.
    pub(crate) applied: bool,
    /// Whether it has put something back: what is not ready is so for that reason.
    pub(crate) corrected: bool,
    /// What the status says.
    pub(crate) said: Said<'l>,
    pub(crate) timeout: plumb_api::Duration,
}

/// What the status says of the wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said<'s> {
    /// Whether it speaks of what is wanted now.
    pub(crate) is_current: bool,
    /// Whether it says that all is ready.
    pub(crate) is_ready: bool,
    pub(crate) reason: &'s str,
    pub(crate) message: &'s str,
    pub(crate) since: Option<Timestamp>,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// All objects are ready; so many.
    Ready(usize),
    /// It is told so.
    Tell(Telling),
    /// What there is to say has time, or is said already.
    Hold {
        /// When to look again, whatever the watches tell.
        next: Option<Duration>,
    },
}

/// What is told of objects that are not ready.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Telling {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) waits: Waits,
    /// Whether something has gone wrong, rather than got further.
    pub(crate) is_event: bool,
    pub(crate) waiting: Waiting,
    /// When to look again, whatever the watches tell.
    pub(crate) next: Option<Duration>,
}

/// Decides what is said, and notes it in `wait`.
pub(crate) fn decide(wait: &mut Option<Wait>, look: &Look<'_>, now: Timestamp) -> Verdict {
    let (found, said) = (look.found, &look.said);
    if found.is_ready() {
        *wait = None;
        return Verdict::Ready(found.total);
    }
    let goes_on = wait.as_ref().is_some_and(|wait| wait.wanted == look.wanted) && !look.applied;
    if !goes_on {
        let seen = found.unready.iter().any(|unready| unready.is_seen);
        let (since, broke, told) = match said.since {
            _ if look.applied || !said.is_current => (now, false, None),
            // It began before this process did.
            Some(since) if !said.is_ready => {
                let failed = said.reason == reasons::HEALTH_CHECK_FAILED;
                let state = if failed { State::Failed } else { State::Progress };
                (since.min(now), failed, Some((since.min(now), state)))
            }
            // That nothing is known yet, of a kind that is being listed anew, is no news.
            _ if said.is_ready && !seen => return Verdict::Hold { next: None },
            _ => (now, said.is_ready && !look.corrected, None),
        };
        *wait = Some(Wait { wanted: look.wanted.clone(), since, broke, told });
    }
    let Some(wait) = wait else { return Verdict::Hold { next: None } };
    let left =
        |moment: Timestamp| Duration::try_from(moment.duration_since(now)).unwrap_or_default();
    let after =
        |start: Timestamp, wait: Duration| start.checked_add(wait).unwrap_or(Timestamp::MAX);
    let end = after(wait.since, look.timeout.into());
    let is_bad = |unready: &Unready| matches!(unready.health, Health::Degraded | Health::Missing);
    let state = if found.unready.iter().any(|unready| unready.is_final) {
        State::Final
    } else if now >= end || wait.broke && found.unready.iter().any(is_bad) {
        State::Failed
    } else {
        State::Progress
    };
    let message = text(look, state, now >= end);
    let turns = wait.told.is_none_or(|(_, told)| told != state);
    let is_event = turns && (wait.broke || state != State::Progress);
    let due = match wait.told {
        // After a restart it is not known which of both was told.
        Some((_, told)) if told != state && said.message != message => now,
        Some((at, _)) => after(at, PACE),
        None if wait.broke || state != State::Progress => now,
        None => after(wait.since, QUIET),
    };
    let is_news = wait.told.is_none() || said.message != message;
    let timeout = (now < end).then(|| left(end));
    if !is_news || now < due {
        let due = is_news.then(|| left(due));
        return Verdict::Hold { next: due.into_iter().chain(timeout).min() };
    }
    wait.told = Some((now, state));
    let (reason, waits) = match state {
        State::Progress => (reasons::PROGRESSING, Waits::Health),
        State::Failed => (reasons::HEALTH_CHECK_FAILED, Waits::Health),
        State::Final => (reasons::HEALTH_CHECK_FAILED, Waits::User),
    };
    let waiting = waiting(wait.since, found);
    Verdict::Tell(Telling { reason, message, waits, is_event, waiting, next: timeout })
}

/// "7 of 9 objects are ready at main@sha1:0123; waiting for Deployment.apps web/api: …".
fn text(look: &Look<'_>, state: State, is_late: bool) -> String {
    let found = look.found;
    let mut text = format!("{} at {}", count(found), brief(&look.wanted.revision));
    if state == State::Failed && is_late {
        let _ = write!(text, " after {}", look.timeout);
    }
    text.push_str(match state {
        State::Progress => "; waiting for ",
        State::Failed if is_late => "; still waiting for ",
        State::Failed => "; ",
        State::Final => ", and one cannot become so by itself: ",
    });
    text.push_str(&first(found));
    text
}

fn count(found: &Wellbeing) -> String {
    let ready = found.total.saturating_sub(found.unready.len());
    match found.total {
        1 => format!("{ready} of 1 object is ready"),
        total => format!("{ready} of {total} objects are ready"),
    }
}

/// The first of those that are not ready, and how many more there are.
fn first(found: &Wellbeing) -> String {
    let Some(Unready { key, health, reason, .. }) = found.unready.first() else {
        return String::new();
    };
    let why = if reason.is_empty() { health.to_string() } else { reason.clone() };
    match found.unready.len() - 1 {
        0 => format!("{key}: {why}"),
        more => format!("{key}: {why}; and {more} more, see status.waiting"),
    }
}

/// What is said where all are ready.
pub(crate) fn all_ready(total: usize) -> String {
    match total {
        1 => "1 object is ready".to_owned(),
        total => format!("{total} objects are ready"),
    }
}

/// What is said of objects beside what else is wrong with their Application.
pub(crate) fn beside(found: &Wellbeing) -> String {
    format!("{}; not so {}", count(found), first(found))
}

/// As the status lists it.
pub(crate) fn waiting(since: Timestamp, found: &Wellbeing) -> Waiting {
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let one = |unready: &Unready| plumb_api::Unready {
        object: unready.key.to_string(),
        health: unready.health.to_string(),
        message: Some(unready.reason.clone()).filter(|reason| !reason.is_empty()),
    };
    Waiting {
        since: Time(since),
        ready: number(found.total.saturating_sub(found.unready.len())),
        total: number(found.total),
        objects: found.unready.iter().take(MAX_UNREADY).map(one).collect(),
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::{GroupKind, ObjectKey};

    use super::*;

    const TIMEOUT: plumb_api::Duration = plumb_api::Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn wanted(revision: &str) -> Wanted {
        Wanted { revision: revision.into(), generation: Some(1) }
    }

    fn found(health: Health, reason: &str) -> Wellbeing {
        let key = ObjectKey::new(GroupKind::new("apps", "Deployment"), "web", "api");
        let unready = Unready {
            key,
            health,
            reason: reason.into(),
            is_final: reason == "for good",
            is_seen: reason != "unseen",
            pods: None,
        };
        let unready = if health.is_ready() { Vec::new() } else { vec![unready] };
        Wellbeing { total: 3, unready, others: Vec::new() }
    }

    /// An Application's wait, and what its status says.
    #[derive(Default)]
    struct Told {
        wait: Option<Wait>,
        ready: bool,
        current: bool,
        reason: String,
        message: String,
        since: Option<Timestamp>,
        next: Option<u64>,
    }

    impl Told {
        /// One that is ready at `main@sha1:1`.
        fn ready() -> Self {
            Self { ready: true, current: true, reason: "Succeeded".into(), ..Self::default() }
        }

        /// What is told at a second; `None` when nothing is.
        fn look(&mut self, second: i64, found: &Wellbeing, applied: bool) -> Option<String> {
            self.look_with(second, found, (applied, false))
        }

        fn look_with(
            &mut self,
            second: i64,
            found: &Wellbeing,
            (applied, corrected): (bool, bool),
        ) -> Option<String> {
            let said = Said {
                is_current: self.current,
                is_ready: self.ready,
                reason: &self.reason,
                message: &self.message,
                since: self.since,
            };
            let wanted = wanted("main@sha1:1");
            let look = Look { wanted, found, applied, corrected, said, timeout: TIMEOUT };
            let seconds = |next: Option<Duration>| next.map(|next| next.as_secs());
            match decide(&mut self.wait, &look, at(second)) {
                Verdict::Ready(_) => {
                    *self = Self::ready();
                    Some("ready".into())
                }
                Verdict::Hold { next } => {
                    self.next = seconds(next);
                    None
                }
                Verdict::Tell(telling) => {
                    self.next = seconds(telling.next);
                    (self.ready, self.current) = (false, true);
                    self.reason = telling.reason.into();
                    self.message = telling.message;
                    self.since = Some(telling.waiting.since.0);
                    let event = if telling.is_event { "!" } else { "" };
                    let stalled = if telling.waits == Waits::User { " stalled" } else { "" };
                    Some(format!("{}{event}{stalled}", telling.reason))
                }
            }
        }

        /// Another process goes on.
        fn restart(&mut self) {
            self.wait = None;
        }
    }

    #[test]
    fn progress_is_told_after_five_seconds_and_then_every_ten() {
        let mut told = Told::default();
        let slow = |n: usize| found(Health::Progressing, &format!("{n} of 3"));
        assert_eq!(told.look(0, &slow(0), true), None);
        assert_eq!(told.next, Some(5));
        assert_eq!(told.look(1, &slow(1), false), None);
        assert_eq!(told.next, Some(4));
        assert_eq!(told.look(5, &slow(1), false).as_deref(), Some("Progressing"));
        assert_eq!(
            told.message,
            "2 of 3 objects are ready at main@sha1:1; waiting for Deployment.apps web/api: 1 of 3"
        );
        assert_eq!(told.next, Some(55), "nothing is to be told but the end");
        assert_eq!(told.look(6, &slow(1), false), None);
        assert_eq!(told.look(7, &slow(2), false), None);
        assert_eq!(told.next, Some(8));
        assert_eq!(told.look(15, &slow(2), false).as_deref(), Some("Progressing"));
        // What was said already is not said again, and calls for no look.
        assert_eq!(told.look(40, &slow(2), false), None);
        assert_eq!(told.next, Some(20));
        assert_eq!(told.look(41, &found(Health::Healthy, ""), false).as_deref(), Some("ready"));
        // What is ready at once is told once.
        let mut told = Told::default();
        assert_eq!(told.look(0, &slow(0), true), None);
        assert_eq!(told.look(2, &found(Health::Suspended, ""), false).as_deref(), Some("ready"));
    }

    #[test]
    fn what_takes_too_long_is_told_as_failed_and_waited_for() {
        let mut told = Told::default();
        let slow = found(Health::Progressing, "slow");
        told.look(0, &slow, true);
        told.look(5, &slow, false);
        assert_eq!(told.look(59, &slow, false), None);
        assert_eq!(told.look(60, &slow, false).as_deref(), Some("HealthCheckFailed!"));
        assert_eq!(
            told.message,
            "2 of 3 objects are ready at main@sha1:1 after 1m; still waiting for Deployment.apps \
             web/api: slow"
        );
        assert_eq!(told.next, None);
        assert_eq!(told.look(3000, &slow, false), None);
        let other = found(Health::Progressing, "slower");
        assert_eq!(told.look(3001, &other, false).as_deref(), Some("HealthCheckFailed"));
        assert_eq!(told.look(3002, &slow, false), None);
        assert_eq!(told.next, Some(9));
        assert_eq!(told.look(3003, &found(Health::Healthy, ""), false).as_deref(), Some("ready"));
    }

    #[test]
    fn what_cannot_become_ready_fails_at_once() {
        let mut told = Told::default();
        assert_eq!(told.look(0, &found(Health::Progressing, "slow"), true), None);
        // It may yet recover.
        assert_eq!(told.look(1, &found(Health::Degraded, "broken"), false), None);
        let done = found(Health::Degraded, "for good");
        assert_eq!(told.look(2, &done, false).as_deref(), Some("HealthCheckFailed! stalled"));
        assert!(
            told.message.ends_with(
                ", and one cannot become so by itself: Deployment.apps web/api: for good"
            )
        );
        assert_eq!(told.look(3, &done, false), None);
        // Somebody deleted the Job that failed, and a new one runs.
        let again = found(Health::Progressing, "it runs");
        assert_eq!(told.look(4, &again, false).as_deref(), Some("Progressing"));
    }

    #[test]
    fn what_breaks_later_is_told_at_once() {
        for (health, told_as) in [
            (Health::Progressing, "Progressing!"),
            (Health::Unknown, "Progressing!"),
            (Health::Degraded, "HealthCheckFailed!"),
            (Health::Missing, "HealthCheckFailed!"),
        ] {
            let mut told = Told::ready();
            assert_eq!(told.look(0, &found(health, "x"), false).as_deref(), Some(told_as));
            assert_eq!(told.look(1, &found(health, "y"), false), None, "in its pace");
            assert_eq!(told.next, Some(9));
            assert_eq!(told.look(2, &found(Health::Healthy, ""), false).as_deref(), Some("ready"));
        }
        // It gets worse.
        let mut told = Told::ready();
        told.look(0, &found(Health::Progressing, "1 of 3"), false);
        let worse = found(Health::Degraded, "crashes");
        assert_eq!(told.look(1, &worse, false).as_deref(), Some("HealthCheckFailed!"));
        // A kind that is being listed anew is not broken.
        let mut told = Told::ready();
        assert_eq!(told.look(0, &found(Health::Progressing, "unseen"), false), None);
        assert_eq!(told.wait, None);
        // What was just put back is given the time of what was just applied.
        let mut told = Told::ready();
        assert_eq!(told.look_with(0, &found(Health::Progressing, "x"), (false, true)), None);
        assert_eq!(told.next, Some(5));
    }

    #[test]
    fn a_new_revision_begins_anew() {
        let mut told = Told::default();
        let slow = found(Health::Progressing, "slow");
        told.look(0, &slow, true);
        told.look(5, &slow, false);
        told.look(60, &slow, false);
        assert_eq!(told.reason, "HealthCheckFailed");
        told.current = false;
        told.wait.as_mut().unwrap().wanted = wanted("main@sha1:0");
        assert_eq!(told.look(70, &slow, false), None);
        assert_eq!(told.next, Some(5));
        assert_eq!(told.look(75, &slow, false).as_deref(), Some("Progressing"));
        assert_eq!(told.since, Some(at(70)));
        // What is asked for in vain again and again is not given new time.
        assert_eq!(told.look_with(100, &slow, (false, true)), None);
        assert_eq!(told.look(130, &slow, false).as_deref(), Some("HealthCheckFailed!"));
    }

    #[test]
    fn a_restart_goes_on_where_the_wait_was() {
        let slow = found(Health::Progressing, "slow");
        let mut told = Told::default();
        told.look(0, &slow, true);
        told.look(5, &slow, false);
        told.restart();
        assert_eq!(told.look(50, &slow, false), None);
        assert_eq!(told.next, Some(10));
        told.restart();
        assert_eq!(told.look(61, &slow, false).as_deref(), Some("HealthCheckFailed!"));
        told.restart();
        assert_eq!(told.look(70, &slow, false), None, "it is said already");
        // What broke is as broken after a restart.
        let mut told = Told::ready();
        let crash = found(Health::Degraded, "crashes");
        told.look(0, &crash, false);
        told.restart();
        assert_eq!(told.look(3, &crash, false), None);
        let done = found(Health::Degraded, "for good");
        assert!(told.look(4, &done, false).is_some());
        told.restart();
        assert_eq!(told.look(5, &done, false), None);
        // What broke meanwhile is told at once.
        let mut told = Told::ready();
        assert_eq!(told.look(0, &crash, false).as_deref(), Some("HealthCheckFailed!"));
        // Before anything was told, it begins anew.
        let mut told = Told::default();
        told.look(0, &slow, true);
        told.restart();
        assert_eq!(told.look(4, &slow, false), None);
        assert_eq!(told.next, Some(5));
    }
}
