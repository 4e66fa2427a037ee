//! When an Application is run next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use plumb_core::GroupKind;

use super::Run;
use crate::daemon::Daemon;
use crate::names::Key;
use crate::queue::Lane;

/// How long an Application without `retryInterval` waits at most between tries: long enough not to
/// matter in numbers, short enough that nobody waits for it after mending the cause.
const RETRY_CAP: Duration = Duration::from_mins(1);

impl Daemon {
    /// Puts a run off for as long as the API server asked to be left alone, whatever called for it.
    pub(super) fn rests(&self, run: &Run) -> bool {
        let left = {
            let mut store = self.state.lock();
            let Some(app) = store.apps.get_mut(&run.name) else { return false };
            let left = app.rests_until.map(|end| end.saturating_duration_since(Instant::now()));
            let Some(left) = left.filter(|left| !left.is_zero()) else { return false };
            app.forced |= run.forced;
            left
        };
        self.queue.add_after(Key::App(run.name.clone()), left, Lane::Routine);
        true
    }

    pub(super) fn wait_for(&self, run: &Run, kinds: &BTreeSet<GroupKind>) {
        {
            let mut store = self.state.lock();
            let Some(app) = store.apps.get_mut(&run.name) else { return };
            app.waits_for.clone_from(kinds);
            app.forced |= run.forced;
        }
        self.plan_interval(run);
        // If the watch of one of them never says a word, this looks after it.
        self.queue.add_after(Key::App(run.name.clone()), RETRY_CAP, Lane::Routine);
        // One of them may have been listed between the look and this note of it.
        if self.engine.pending(kinds).is_empty() {
            self.queue.add(Key::App(run.name.clone()), Lane::Urgent);
        }
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

    pub(super) fn plan_retry(&self, run: &Run, revision: &str) {
        self.plan_retry_in(run, revision, None);
    }

    /// Plans the next try, not before the server's `rest` is over.
    pub(super) fn plan_retry_in(&self, run: &Run, revision: &str, rest: Option<Duration>) {
        let spec = &run.object.spec;
        let cap = spec.retry_interval.map_or(RETRY_CAP, Duration::from);
        let generation = run.object.metadata.generation.unwrap_or(0);
        let wait = {
            let mut store = self.state.lock();
            let Some(app) = store.apps.get_mut(&run.name) else { return };
            app.rests_until = rest.map(|rest| Instant::now() + rest);
            app.backoff.failed(generation, revision, cap)
        };
        let wait = wait.max(rest.unwrap_or_default());
        self.queue.add_after(Key::App(run.name.clone()), wait, Lane::Routine);
    }
}
