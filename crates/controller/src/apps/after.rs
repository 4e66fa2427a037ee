//! An Application that waits for others: nothing new of it is applied, what was applied last is kept,
//! and it says what it waits for. Nobody looks after it: who is waited for calls it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_api::conditions::reasons;
use plumb_core::ObjectKey;

use super::Run;
use super::build::{Base, Blocked};
use super::keep::Stays;
use crate::daemon::Daemon;
use crate::depends::Unready;
use crate::metrics::Outcome;
use crate::names::{Key, Name};
use crate::queue::Lane;
use crate::state::{Looked, commit_of};
use crate::status::Waits;

/// How long nothing is said of what passes by itself. Most of it is over in a second.
const QUIET: Duration = Duration::from_secs(5);
/// The same of what was ready before this process began: all that it waits for have a first look.
const QUIET_AT_FIRST: Duration = Duration::from_mins(1);
/// How long after it said something an Application says that it waits for something else.
const PAUSE: Duration = Duration::from_secs(10);

/// Since when an Application waits, and what it said of that.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    since: Instant,
    said: Option<(Instant, String)>,
}

impl Waiting {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, said: None }
    }

    /// How long until it is to be said what is waited for; nothing when it was said.
    fn due(&self, unready: &Unready, quiet: Duration, now: Instant) -> Option<Duration> {
        let due = match &self.said {
            Some((_, said)) if *said == unready.message => return None,
            Some((at, _)) => *at + PAUSE,
            None if unready.lasting => now,
            None => self.since + quiet,
        };
        Some(due.saturating_duration_since(now))
    }
}

impl Daemon {
    /// What a run waits for. From now on it is called when that changes.
    pub(super) fn unready(&self, run: &Run) -> Option<Unready> {
        let mut store = self.state.lock();
        let may_quote = |key: &ObjectKey, set: Option<&str>| self.engine.may_quote(key, set);
        let unready = store.unready(&run.name, &may_quote);
        if unready.is_some() {
            store.waiting.insert(run.name.clone());
        } else {
            store.waiting.remove(&run.name);
        }
        if let Some(app) = store.apps.get_mut(&run.name) {
            match &unready {
                Some(_) => _ = app.waits.get_or_insert_with(|| Waiting::new(Instant::now())),
                None => app.waits = None,
            }
        }
        unready
    }

    /// Something new is to be applied and has to wait.
    pub(super) async fn wait_for_others(
        self: &Arc<Self>,
        run: &Run,
        base: Option<&Base>,
        unready: Unready,
    ) -> Outcome {
        let first = run.rendered.is_none() && run.was_ready();
        let due = {
            let mut store = self.state.lock();
            let Some(app) = store.apps.get_mut(&run.name) else { return Outcome::Unchanged };
            app.forced |= run.forced;
            app.asked |= run.asked;
            let now = Instant::now();
            let waits = app.waits.get_or_insert_with(|| Waiting::new(now));
            let quiet = if first { QUIET_AT_FIRST } else { QUIET };
            let due = waits.due(&unready, quiet, now);
            if due == Some(Duration::ZERO) {
                waits.said = Some((now, unready.message.clone()));
            }
            due
        };
        // What others let go may be meant for it, and what it lets go for them.
        if let Some(base) = base {
            self.speak_of(run, base, true).await;
        }
        match due {
            Some(Duration::ZERO) => {
                let waits = match unready.reason {
                    reasons::DEPENDENCY_NOT_READY => Waits::Others,
                    _ => Waits::User,
                };
                let Unready { message, reason, .. } = unready;
                let blocked = Blocked { reason: reason.into(), message, waits, again: false };
                return self.blocked_at(run, blocked, base).await;
            }
            Some(left) => {
                self.queue.add_after(Key::App(run.name.clone()), left, Lane::Routine);
            }
            None => {}
        }
        let kept = self.keep_last(run, None).await;
        self.plan_kept(run, Stays::whole(kept.as_ref()));
        Outcome::Waiting
    }

    /// What an Application wants of a commit is applied; those that wait for that go on.
    pub(super) fn note_done(&self, name: &Name, done: Looked) {
        {
            let mut store = self.state.lock();
            let waits = store.waiting.contains(name);
            let Some(app) = store.apps.get_mut(name) else { return };
            // While nothing was said of its objects' health, what was said before is of another commit.
            let untold = app.applied.as_ref().is_some_and(|applied| applied.status.is_some());
            if waits || untold || app.done.replace(done) == Some(done) {
                return;
            }
        }
        self.tell_waiting(name);
    }

    /// A suspended Application is where it was left: at a commit that changes nothing of it, too.
    pub(super) async fn note_still(self: &Arc<Self>, run: &Run, base: &Base) {
        let applied = run.before.last_applied_revision.as_deref().and_then(commit_of);
        let known = run.rendered.as_ref().filter(|r| r.settled && r.how == base.how);
        let still = applied == Some(base.revision.commit)
            || match known {
                Some(known) => self.inputs_unchanged(known, base).await,
                None => false,
            };
        if still && self.unready(run).is_none() {
            self.note_done(&run.name, run.looks_at(base));
        }
    }

    /// Something is new of an Application: those that wait for it look again at once, and those that
    /// wait for those say so when it is time.
    pub(crate) fn tell_waiting(&self, name: &Name) {
        let (direct, indirect) = self.state.lock().waiting_for(name);
        for name in direct {
            self.call(Key::App(name));
        }
        for name in indirect {
            self.queue.add_after(Key::App(name), QUIET, Lane::Routine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_soon_is_not_told_and_nothing_is_told_too_often() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let left = |seconds| Some(Duration::from_secs(seconds));
        let on = |message: &str, lasting| Unready {
            reason: reasons::DEPENDENCY_NOT_READY,
            message: message.into(),
            lasting,
        };
        let mut waits = Waiting::new(begin);
        assert_eq!(waits.due(&on("a", false), QUIET, at(1)), left(4));
        assert_eq!(waits.due(&on("a", false), QUIET_AT_FIRST, at(1)), left(59));
        assert_eq!(waits.due(&on("a", true), QUIET, at(1)), left(0), "a person has to know");
        assert_eq!(waits.due(&on("a", false), QUIET, at(5)), left(0));
        waits.said = Some((at(5), "a".into()));
        assert_eq!(waits.due(&on("a", false), QUIET, at(60)), None);
        assert_eq!(waits.due(&on("b", true), QUIET, at(6)), left(9));
        assert_eq!(waits.due(&on("b", false), QUIET, at(20)), left(0));
    }
}
