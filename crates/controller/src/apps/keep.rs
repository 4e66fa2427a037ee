//! What was applied last stays enforced while nothing newer can be applied.

use std::sync::Arc;

use plumb_api::Mode;
use plumb_engine::{EngineError, Policy, Report};

use super::Run;
use super::build::{Base, Built};
use super::policy::policy_of;
use crate::daemon::{Daemon, chain};
use crate::sources::revision_of;
use crate::state::Rendered;

impl Daemon {
    /// What is wanted cannot be applied at all: what was applied last is kept in place. Returns
    /// whether all of it is.
    pub(super) async fn enforce_last_good(self: &Arc<Self>, run: &Run, wanted: &Base) -> bool {
        let last = if let Some(good) = self.last_good(run) {
            good.into()
        } else {
            // After a restart only the revision is known.
            let last = run.before.last_applied_revision.as_deref();
            let Some(revision) = last.and_then(revision_of) else { return true };
            let (remote, how) = (wanted.remote.clone(), Arc::clone(&wanted.how));
            Base { remote, revision, how, seq: wanted.seq }
        };
        self.enforce(run, last).await
    }

    /// Corrects drift to something else than what is wanted. Nothing is pruned, and the only thing
    /// said is what was corrected. Returns whether all of it is in place.
    pub(super) async fn enforce(self: &Arc<Self>, run: &Run, base: Base) -> bool {
        if run.object.spec.mode == Mode::Observe {
            return true;
        }
        let kept = self.state.lock().apps.get(&run.name).and_then(|app| app.kept.clone());
        if kept == Some(base.what()) && self.engine.in_sync(&run.set) {
            return true;
        }
        let Ok((Built::Objects(objects), _)) = self.build(run, &base).await else { return false };
        let policy = Policy { prune: false, validate: false, ..policy_of(&run.object.spec) };
        let (report, result) = self.sync(run, objects, &policy, None, run.rendered.is_none()).await;
        self.tell(run, &report, &base.revision.to_string());
        if let Err(error) = &result {
            tracing::warn!(application = %run.name, "cannot correct drift: {}", chain(error));
        }
        self.note_kept(run, &base, &report, &result);
        result.is_ok() && report.is_complete()
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

    pub(super) fn last_good(&self, run: &Run) -> Option<Rendered> {
        self.state.lock().apps.get(&run.name)?.good.clone()
    }
}
