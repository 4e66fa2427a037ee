//! What was applied last stays enforced while nothing newer can be applied.

use std::sync::Arc;

use jiff::Timestamp;
use plumb_api::Mode;
use plumb_engine::{EngineError, Policy, Report};

use super::Run;
use super::build::{Base, Built};
use super::policy::{ignores_of, policy_of};
use crate::daemon::{Daemon, chain};
use crate::metrics::Outcome;
use crate::names::Key;
use crate::queue::Lane;
use crate::sources::revision_of;
use crate::state::Rendered;
use crate::status::{brief, count_drift};

/// What was applied last, and how it is kept while nothing newer can be applied.
pub(super) struct Stays {
    revision: String,
    how: Kept,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// All of it is in place.
    Whole,
    /// Something of it is not.
    Part,
    /// It could not be read. What is live was not touched.
    Unread,
    /// It is not signed by keys that are trusted now. What is live was not touched.
    Untrusted,
}

impl Stays {
    /// Whether all of it is in place, or nothing was ever applied.
    pub(super) fn whole(this: Option<&Self>) -> bool {
        this.is_none_or(|stays| stays.how == Kept::Whole)
    }
}

/// A message, and what is true meanwhile of what was applied last.
pub(super) fn and_stays(message: String, stays: Option<&Stays>) -> String {
    let Some(Stays { revision, how }) = stays else { return message };
    match how {
        Kept::Whole => format!("{message}; {revision} stays applied and is kept as it is"),
        Kept::Part => format!("{message}; {revision} stays applied but not all of it is in place"),
        Kept::Untrusted => format!(
            "{message}; {revision}, which was applied, is not verified either: nothing is corrected and \
             nothing pruned"
        ),
        Kept::Unread => format!(
            "{message}; until {revision} can be read again, nothing is corrected and nothing pruned"
        ),
    }
}

impl Daemon {
    /// What is wanted cannot be applied at all: what was applied last is kept in place, if there is
    /// such a thing.
    pub(super) async fn enforce_last_good(
        self: &Arc<Self>,
        run: &Run,
        wanted: &Base,
    ) -> Option<Stays> {
        let last = if let Some(good) = self.last_good(run) {
            Base::from(&*good)
        } else {
            // After a restart only the revision is known.
            let revision = run.before.last_applied_revision.as_deref().and_then(revision_of)?;
            let (remote, how) = (wanted.remote.clone(), Arc::clone(&wanted.how));
            Base { remote, revision, how, seq: wanted.seq }
        };
        Some(self.enforce(run, last).await)
    }

    /// Keeps what was applied last in place while there is no revision to run, if it is known.
    pub(super) async fn keep_last(
        self: &Arc<Self>,
        run: &Run,
        wanted: Option<&Base>,
    ) -> Option<Stays> {
        let sound = run.rendered.clone().filter(|r| !r.broken && !r.refused);
        match (sound.or_else(|| self.last_good(run)), wanted) {
            (Some(rendered), _) => Some(self.enforce(run, Base::from(&*rendered)).await),
            (None, Some(wanted)) => self.enforce_last_good(run, wanted).await,
            (None, None) => None,
        }
    }

    /// Corrects drift to something else than what is wanted. Nothing is pruned, and the only thing
    /// said is what was corrected.
    pub(super) async fn enforce(self: &Arc<Self>, run: &Run, base: Base) -> Stays {
        let stays = |how| Stays { revision: brief(&base.revision), how };
        if run.object.spec.mode == Mode::Observe {
            return stays(Kept::Whole);
        }
        if !self.trusts(run, &base) {
            // The look that this asks for calls again when it is found to be signed after all.
            drop(self.ask_for(run, &base));
            return stays(Kept::Untrusted);
        }
        let kept = self.state.lock().apps.get(&run.name).and_then(|app| app.kept.clone());
        if kept == Some(base.what()) && self.engine.in_sync(&run.set) {
            return stays(Kept::Whole);
        }
        let Ok((Built::Objects(objects), inputs)) = self.build(run, &base).await else {
            return stays(Kept::Unread);
        };
        let origin = self.origin(run, &base, &inputs);
        let policy = Policy { prune: false, validate: false, ..policy_of(&run.object.spec) };
        let first_look = run.rendered.is_none();
        let (report, result) = self.sync(run, (objects, origin), &policy, None, first_look).await;
        self.tell(run, &report, &base.revision.to_string());
        if let Err(error) = &result {
            tracing::warn!(application = %run.name, "cannot correct drift: {}", chain(error));
        }
        self.note_kept(run, &base, &report, &result);
        if report.unsent > 0 {
            self.plan_turn(run);
        }
        stays(if result.is_ok() && report.is_complete() { Kept::Whole } else { Kept::Part })
    }

    /// Puts back what others changed while what failed waits for its next try. The status says so, and
    /// nothing else that is new.
    pub(super) async fn correct_drift(self: &Arc<Self>, run: &Run) -> Outcome {
        let sound = run.rendered.clone().filter(|r| !r.broken && !r.refused);
        let (mut outcome, mut unsent) = (Outcome::Waiting, 0);
        if let Some(rendered) = sound.or_else(|| self.last_good(run))
            && let (ignores, None) = ignores_of(&run.object.spec)
        {
            let run = &Run { ignores: Arc::new(ignores), ..run.clone() };
            let base = Base::from(&*rendered);
            if let Ok((Built::Objects(objects), _)) = self.build(run, &base).await {
                let report = self.sync_drift(run, objects).await;
                unsent = report.unsent;
                self.tell(run, &report, &base.revision.to_string());
                let mut status = run.before.clone();
                count_drift(&mut status, &report, Timestamp::now());
                if status != run.before {
                    self.write_app(run, &status).await;
                    outcome = Outcome::Changed;
                }
            }
        }
        if unsent > 0 {
            self.queue.add(Key::App(run.name.clone()), Lane::Routine);
        } else {
            self.plan_as_before(run);
        }
        outcome
    }

    /// What was just applied is what stays enforced from now on.
    pub(super) fn remember_good(&self, run: &Run) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.good.clone_from(&app.rendered);
        }
    }

    /// Notes what is in place as a whole, so that what was applied in part is put back or tried again
    /// when there is nothing newer to apply.
    pub(super) fn note_kept(
        &self,
        run: &Run,
        base: &Base,
        report: &Report,
        result: &Result<(), EngineError>,
    ) {
        if report.refused {
            return;
        }
        let whole = result.is_ok() && report.is_complete();
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.kept = whole.then(|| base.what());
        }
    }

    pub(super) fn last_good(&self, run: &Run) -> Option<Arc<Rendered>> {
        self.state.lock().apps.get(&run.name)?.good.clone()
    }
}
