//! When an Application is run next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use plumb_api::{ApplicationSpec, Mode};
use plumb_core::GroupKind;
use plumb_engine::{Sabotage, leaves_out};

use super::Run;
use super::due::{Due, Pause};
use crate::daemon::Daemon;
use crate::names::Key;
use crate::queue::Lane;
use crate::state::App;

/// How long an Application without `retryInterval` waits at most between tries: long enough not to
/// matter in numbers, short enough that nobody waits for it after mending the cause.
const RETRY_CAP: Duration = Duration::from_mins(1);

/// Longer than any test takes.
const NEVER: Duration = Duration::from_hours(24);

/// The longest wait between tries.
pub(super) fn retry_cap(spec: &ApplicationSpec) -> Duration {
    spec.retry_interval.map_or(RETRY_CAP, Duration::from)
}

impl Daemon {
    /// What the call for a run comes to.
    pub(super) fn due(&self, run: &Run) -> Due {
        // Only what is to be enforced drifts.
        let enforced = run.object.metadata.deletion_timestamp.is_none()
            && !run.object.spec.suspend
            && run.object.spec.mode == Mode::Enforce;
        let pauses = run.pause != Pause::default();
        let drifted = pauses && enforced && self.engine.drifts(&run.set);
        let due = run.pause.due(run.news, drifted, Instant::now());
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            if due == Due::Run {
                app.pause = Pause::default();
                app.waits_for.clear();
            } else {
                app.forced |= run.forced;
                app.asked |= run.asked;
                app.news |= run.news;
            }
        }
        due
    }

    /// What others changed was put back, as far as it could be. The next try comes when it was to come.
    pub(super) fn plan_as_before(&self, run: &Run) {
        let in_vain = self.engine.drifts(&run.set);
        let retry = {
            let mut store = self.state.lock();
            let Some(app) = store.apps.get_mut(&run.name) else { return };
            app.pause.in_vain |= in_vain;
            app.pause.retry
        };
        let left =
            retry.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
        self.queue.add_after(Key::App(run.name.clone()), left, Lane::Routine);
    }

    /// Whether kinds are still to be listed. Then this run is over: the last of their LISTs calls for
    /// the next.
    pub(super) fn waits_for(&self, run: &Run, kinds: &BTreeSet<GroupKind>) -> bool {
        let pending = self.engine.pending(kinds);
        if pending.is_empty() {
            return false;
        }
        let note = |change: &dyn Fn(&mut App)| {
            if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
                change(app);
            }
        };
        note(&|app| app.waits_for.clone_from(&pending));
        // The last LIST may have ended before that was noted, and then it has called nobody.
        if self.engine.pending(&pending).is_empty() {
            note(&|app| app.waits_for.clear());
            return false;
        }
        note(&|app| {
            app.forced |= run.forced;
            app.asked |= run.asked;
        });
        self.plan_interval(run);
        // If the watch of one of them never says a word, this looks after it.
        self.queue.add_after(Key::App(run.name.clone()), RETRY_CAP, Lane::Routine);
        true
    }

    /// What made this run necessary still does.
    pub(super) fn again(&self, run: &Run) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.forced = true;
        }
    }

    pub(super) fn succeeded(&self, run: &Run) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.backoff.succeeded();
        }
    }

    pub(super) fn plan_interval(&self, run: &Run) {
        let wait = self.jitter(run.object.spec.interval.into());
        let wait = self.engine.next_due(&run.set).map_or(wait, |due| due.min(wait));
        self.queue.add_after(Key::App(run.name.clone()), wait, Lane::Routine);
    }

    /// Plans the next look while what was applied last is kept: soon, if not all of it is in place.
    pub(super) fn plan_kept(&self, run: &Run, kept: bool) {
        if kept {
            self.plan_interval(run);
        } else {
            self.plan_retry(run, "enforce");
        }
    }

    /// Plans the next try of what failed.
    pub(super) fn plan_retry(&self, run: &Run, revision: &str) {
        self.plan_retry_in(run, revision, None);
    }

    /// Plans the next try, not before the server's `rest` is over.
    pub(super) fn plan_retry_in(&self, run: &Run, revision: &str, rest: Option<Duration>) {
        let Some(wait) = self.back_off(run, revision) else { return };
        let now = Instant::now();
        let wait = wait.max(rest.unwrap_or_default());
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            let rest = rest.map(|rest| now + rest);
            app.pause = Pause { rest, retry: Some(now + wait), in_vain: false };
        }
        self.queue.add_after(Key::App(run.name.clone()), wait, Lane::Routine);
    }

    /// Plans a look at what others have to do first, in case that nobody tells when they have.
    pub(super) fn plan_wait(&self, run: &Run, revision: &str, rest: Option<Duration>) {
        let Some(wait) = self.back_off(run, revision) else { return };
        let rest = rest.map(|rest| Instant::now() + rest);
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.pause = Pause { rest, ..Pause::default() };
        }
        self.queue.add_after(Key::App(run.name.clone()), wait, Lane::Routine);
    }

    /// What failed may be tried again that soon, for a reason that passes.
    pub(super) fn hasten(&self, run: &Run, wait: Duration) {
        let end = Instant::now() + wait;
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.pause.retry = app.pause.retry.map(|retry| retry.min(end));
        }
        self.queue.add_after(Key::App(run.name.clone()), wait, Lane::Routine);
    }

    /// What a run left goes on when others had their turn, whatever else keeps the Application waiting.
    pub(super) fn plan_turn(&self, run: &Run) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.news = true;
        }
        self.queue.add(Key::App(run.name.clone()), Lane::Routine);
    }

    fn back_off(&self, run: &Run, revision: &str) -> Option<Duration> {
        let spec = &run.object.spec;
        let cap = retry_cap(spec);
        let generation = run.object.metadata.generation.unwrap_or(0);
        let mut store = self.state.lock();
        let wait = store.apps.get_mut(&run.name)?.backoff.failed(generation, revision, cap);
        Some(if leaves_out(Sabotage::NeverRetries) { NEVER } else { wait })
    }
}
