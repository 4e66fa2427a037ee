//! The end of an Application.

use std::sync::Arc;
use std::time::Duration;

use plumb_api::names;
use plumb_engine::{EngineError, Farewell, Report};

use super::cut::out_of_time;
use super::policy::policy_of;
use super::values::Given;
use super::{Run, application_resource};
use crate::daemon::Daemon;
use crate::metrics::Outcome;
use crate::state::annotation;
use crate::status::{list_farewell, say_of_farewell};

impl Daemon {
    /// The Application is being deleted: its objects go first, or are let go.
    pub(super) async fn say_farewell(self: &Arc<Self>, run: &Run) -> Outcome {
        let mut policy = policy_of(&run.object.spec);
        policy.farewell = match self.farewell_of(run, policy.farewell).await {
            Ok(farewell) => farewell,
            Err(error) => return self.failed_run(run, None, &error).await,
        };
        let superseded = self.superseded(run);
        // Of a base only which commit it is matters here.
        let base = self.base(run, Given::default());
        let looks_at = base.ok().map(|base| run.looks_at(&base));
        let others = self.neighbours(run, looks_at);
        let job = self.job(run, Vec::new(), &policy, &superseded, &others);
        let mut report = Report::default();
        let limit = Duration::from(run.object.spec.timeout);
        let result = tokio::time::timeout(limit, self.engine.disband(&job, &mut report)).await;
        let quiet = self.note_waits(run, looks_at, &report);
        self.tell_farewell(run, &report);
        if let Err(error) = result.unwrap_or_else(|_| Err(out_of_time(run))) {
            return self.cut_short(run, None, &error, &report).await;
        }
        if report.superseded {
            // The newer run is in the queue already, and begins with what is left.
            return Outcome::Unchanged;
        }
        if report.undeleted > 0 {
            let mut say = say_of_farewell(&report, &run.name.namespace, &run.name.name);
            say.is_event = !report.failures.is_empty();
            let status = Self::status_with(run, &say, |status| list_farewell(status, &report));
            self.say_app(run, status, &say, None).await;
            self.plan_turn(run);
            return Outcome::Waiting;
        }
        if report.is_complete() && report.held.is_none() {
            return match self.engine.release(&run.set, &job.parent).await {
                Ok(()) => Outcome::Changed,
                Err(error) => self.failed_run(run, None, &error).await,
            };
        }
        if quiet && report.failures.is_empty() && report.held.is_none() {
            self.plan_wait(run, "deletion", report.rest);
            return Outcome::Waiting;
        }
        let say = say_of_farewell(&report, &run.name.namespace, &run.name.name);
        let status = Self::status_with(run, &say, |status| list_farewell(status, &report));
        self.say_app(run, status, &say, None).await;
        if report.failures.is_empty() || !report.terminating.is_empty() {
            self.plan_wait(run, "deletion", report.rest);
        } else {
            self.plan_retry_in(run, "deletion", report.rest);
        }
        Outcome::Waiting
    }

    /// What becomes of the objects, if their Application's policy is this.
    async fn farewell_of(&self, run: &Run, policy: Farewell) -> Result<Farewell, EngineError> {
        let abandoned = annotation(&run.object.metadata, names::ABANDON);
        if abandoned.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            tracing::info!(application = %run.name, "it is abandoned: no object is touched");
            return Ok(Farewell::Leave);
        }
        if self.engine.is_going(&application_resource()).await? {
            tracing::info!(application = %run.name, "the definition of Applications goes: no object is touched");
            return Ok(Farewell::Leave);
        }
        Ok(if run.orphans { Farewell::Orphan } else { policy })
    }
}
