//! What is said of a run: status, events, metrics and log lines.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use plumb_api::conditions::{DRIFTED, HEALTHY, READY, reasons};
use plumb_api::{Application, ApplicationStatus, Yielded, names};
use plumb_core::ObjectKey;
use plumb_engine::{Change, Difference, Report, Sabotage, leaves_out};
use plumb_source::Revision;

use super::Run;
use super::build::Base;
use crate::daemon::{Daemon, chain};
use crate::events::Severity;
use crate::metrics::{Kind, Outcome};
use crate::names::Key;
use crate::queue::Lane;
use crate::sources::STATUS_RETRY;
use crate::state::annotation;
use crate::status::{
    Drifted, Say, Waits, brief, build_conditions, count_drift, drift_text, failures_of,
    list_failures, observed_text, say_of_progress, say_of_report,
};

/// Corrected objects that get an event of their own in one run; the rest is counted.
const DRIFT_EVENTS: usize = 5;

impl Run {
    /// Whether the status says of what differs for longer than a moment what there is to say.
    pub(super) fn drifted_is_told(&self) -> bool {
        let told = self.before.conditions.iter().find(|c| c.type_ == DRIFTED);
        told.map(|c| (c.reason.as_str(), &c.message))
            == self.drifted.as_ref().map(|d| (d.reason, &d.message))
    }
}

/// Whether a status says that the spec is applied at a revision.
fn is_applied(status: &ApplicationStatus, object: &Application, revision: &str) -> bool {
    status.conditions.iter().any(|c| c.type_ == READY && c.status == "True")
        && status.last_applied_revision.as_deref() == Some(revision)
        && status.observed_generation == object.metadata.generation
}

impl Daemon {
    pub(super) fn status_with(
        run: &Run,
        say: &Say,
        change: impl FnOnce(&mut ApplicationStatus),
    ) -> ApplicationStatus {
        let mut status = run.before.clone();
        // What failed in an earlier run may be mended; what does not work now is said anew.
        status.failures.clear();
        status.failure_count = None;
        change(&mut status);
        let generation = run.object.metadata.generation;
        status.observed_generation = generation;
        let mut say = say.clone().with_held(&run.before, &status);
        if leaves_out(Sabotage::DropsErrors) {
            status.failures.clear();
            say = Say::ready("all is well");
        }
        if !say.more.iter().any(|(kind, ..)| *kind == HEALTHY)
            && let Some(healthy) = run.healthy.clone()
        {
            let is = if healthy.status == "True" { "True" } else { "False" };
            say.more.push((HEALTHY, is, healthy.reason, healthy.message));
        }
        if !run.asks {
            status.waiting = None;
        }
        if let Some(Drifted { status, reason, message }) = run.drifted.clone() {
            say.more.push((DRIFTED, status, reason.into(), message));
        }
        status.conditions =
            build_conditions(&run.before.conditions, &say, generation, Timestamp::now());
        if let Some(asked) = annotation(&run.object.metadata, names::REQUESTED_AT) {
            status.last_handled_reconcile_at = Some(asked.to_owned());
        }
        status
    }

    /// Writes the status if it says something new.
    pub(super) async fn say_app(
        self: &Arc<Self>,
        run: &Run,
        status: ApplicationStatus,
        say: &Say,
        revision: Option<&Revision>,
    ) {
        if self.is_cut_short(say) {
            return;
        }
        self.show(Kind::Application, &run.name, say.ready, run.object.spec.suspend);
        // The digest of the live side alone is no news; it rides along with the next write. Only a
        // restart that had to send every object because the digest was old writes the new one, so
        // that the next restart need not.
        let mut same = status.clone();
        if run.rendered.is_some() || status.cluster_digest.is_none() {
            same.cluster_digest.clone_from(&run.before.cluster_digest);
        }
        if same == run.before {
            return;
        }
        if !self.write_app(run, &status).await {
            return;
        }
        let told = |status: &ApplicationStatus| {
            status
                .conditions
                .iter()
                .map(|c| (c.type_.clone(), c.reason.clone(), c.message.clone()))
                .collect::<Vec<_>>()
        };
        let news = told(&status) != told(&run.before);
        if !say.ready && say.is_event && news {
            let about = (Kind::Application, &run.object.metadata);
            let revision = revision.map(ToString::to_string);
            let reason = (say.reason.as_str(), "Apply");
            self.note(about, Severity::Warning, reason, &say.message, revision.as_deref());
        }
    }

    /// Says how far a run came whose rest waits for others to have their turn.
    pub(super) async fn say_progress(self: &Arc<Self>, run: &Run, base: &Base, report: &Report) {
        let revision = base.revision.to_string();
        self.tell(run, report, &revision);
        let is_applied = is_applied(&run.before, &run.object, &revision);
        if is_applied && report.failures.is_empty() && report.undeleted == 0 {
            // What is in place is gone through once more, after a restart for instance.
            return;
        }
        let say = say_of_progress(report, &revision);
        let status = Self::status_with(run, &say, |status| {
            status.last_attempted_revision = Some(revision.clone());
            list_failures(status, report);
            count_drift(status, report, Timestamp::now());
            if report.released {
                // What was held is under way.
                status.prune = None;
            }
        });
        self.show(Kind::Application, &run.name, false, false);
        if status != run.before {
            self.write_app(run, &status).await;
        }
    }

    /// Says how what is live differs from Git, and plans the next look.
    pub(super) async fn say_observed(
        self: &Arc<Self>,
        run: &Run,
        base: &Base,
        report: &Report,
        observed: &[(ObjectKey, Difference)],
    ) -> Outcome {
        let revision = base.revision.to_string();
        let text = observed_text(observed);
        let mut say = match &text {
            _ if !report.failures.is_empty() => {
                say_of_report(report, &revision, &run.name.namespace, &run.name.name)
            }
            None => {
                let text = format!("{} is in place, as observed", brief(&revision));
                Say::ready(text)
            }
            Some(text) => {
                let text = format!("{} is only observed: {text}", brief(&revision));
                Say::not_ready(reasons::OBSERVED, text, Waits::User)
            }
        };
        if let Some(text) = text {
            say.more.push((DRIFTED, "True", reasons::OBSERVED.into(), text));
        }
        let run = &Run { drifted: None, ..run.clone() };
        let status = Self::status_with(run, &say, |status| {
            status.last_attempted_revision = Some(revision.clone());
            status.failures = failures_of(report);
            status.failure_count = i64::try_from(report.failures.len()).ok().filter(|n| *n > 0);
        });
        self.say_app(run, status, &say, Some(&base.revision)).await;
        if say.ready {
            self.note_done(&run.name, run.looks_at(base));
        }
        self.plan_interval(run);
        if say.ready { Outcome::Unchanged } else { Outcome::Waiting }
    }

    /// A suspended Application keeps what was said of it last. Only that it was looked at is new.
    pub(super) async fn say_suspended(self: &Arc<Self>, run: &Run) {
        let mut status = run.before.clone();
        status.observed_generation = run.object.metadata.generation;
        if let Some(asked) = annotation(&run.object.metadata, names::REQUESTED_AT) {
            status.last_handled_reconcile_at = Some(asked.to_owned());
        }
        let ready = status.conditions.iter().any(|c| c.type_ == READY && c.status == "True");
        self.show(Kind::Application, &run.name, ready, true);
        if status != run.before {
            self.write_app(run, &status).await;
        }
    }

    /// Writes a status, or plans another run that will. Returns whether it was written.
    pub(super) async fn write_app(self: &Arc<Self>, run: &Run, status: &ApplicationStatus) -> bool {
        let written = self.write_status(Kind::Application, &run.object.metadata, status).await;
        if let Err(error) = written {
            if !error.is_not_found() && !error.is_other_object() {
                tracing::warn!(application = %run.name, "cannot write status: {}", chain(&error));
                self.again(run);
                let key = Key::App(run.name.clone());
                self.state.lock().note_news(&key, Instant::now());
                self.queue.add_after(key, STATUS_RETRY, Lane::Routine);
            }
            return false;
        }
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.written = Some(Box::new(status.clone()));
        }
        self.tell_waiting(&run.name);
        true
    }

    /// An event for what is left to others since this run.
    pub(super) fn tell_yielded(&self, run: &Run, status: &ApplicationStatus, revision: &str) {
        let new = status.yielded.iter().filter(|yielded| !run.before.yielded.contains(yielded));
        for Yielded { object, fields } in new {
            let fields = fields.join(", ");
            let text = format!("{object}: {fields} is left to others from now on, who decide it");
            tracing::info!(application = %run.name, "{text}");
            let about = (Kind::Application, &run.object.metadata);
            self.note(about, Severity::Normal, ("Yielded", "Yield"), &text, Some(revision));
        }
    }

    /// Events, metrics and log lines about what was done.
    pub(super) fn tell(&self, run: &Run, report: &Report, revision: &str) {
        self.count(run, report);
        let (created, updated, _) = report.counts();
        let about = (Kind::Application, &run.object.metadata);
        let normal = |reason: &str, action: &str, text: &str| {
            self.note(about, Severity::Normal, (reason, action), text, Some(revision));
        };
        let mut parts = Vec::new();
        for (count, what) in
            [(created, "created"), (updated, "changed"), (report.pruned.len(), "pruned")]
        {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        if !parts.is_empty() {
            let text = format!("applied {}: {}", brief(revision), parts.join(", "));
            tracing::info!(application = %run.name, revision, created, updated, pruned = report.pruned.len(), "applied");
            normal("Applied", "Apply", &text);
        }
        let mut drifts = report.outcomes.iter().filter_map(|outcome| match &outcome.change {
            Change::Corrected(drift) => Some(drift_text(&outcome.key, drift)),
            _ => None,
        });
        for text in drifts.by_ref().take(DRIFT_EVENTS) {
            tracing::info!(application = %run.name, "{text}");
            normal("DriftCorrected", "Correct", &text);
        }
        let rest = drifts.count();
        for outcome in &report.outcomes {
            if let Change::Recreated(field) = &outcome.change {
                let text = format!("{} is made anew: {field} cannot be changed", outcome.key);
                tracing::info!(application = %run.name, "{text}");
                normal("Recreated", "Apply", &text);
            }
        }
        if rest > 0 {
            let text = format!("{rest} more objects were changed and are put back");
            normal("DriftCorrected", "Correct", &text);
        }
    }

    /// The same of the end of an Application, which is about no revision.
    pub(super) fn tell_farewell(&self, run: &Run, report: &Report) {
        self.count(run, report);
        let deleted = report.pruned.len();
        if deleted > 0 {
            tracing::info!(application = %run.name, deleted, "deleted");
            let text = format!("deleted {deleted} object{}", if deleted == 1 { "" } else { "s" });
            let about = (Kind::Application, &run.object.metadata);
            self.note(about, Severity::Normal, ("Deleted", "Delete"), &text, None);
        }
    }

    /// Metrics, and log lines about what failed.
    fn count(&self, run: &Run, report: &Report) {
        let (created, updated, corrected) = report.counts();
        let (namespace, name) = (&run.name.namespace, &run.name.name);
        // A run can end after its object did, and nobody would take its figures away again.
        if self.state.lock().has(Kind::Application, &run.name) {
            self.metrics.applied(namespace, name, (created + updated) as u64);
            self.metrics.pruned(namespace, name, report.pruned.len() as u64);
            self.metrics.drift_corrected(namespace, name, corrected as u64);
        }
        for failure in &report.failures {
            tracing::warn!(application = %run.name, object = %failure.key, reason = failure.reason, "{}", failure.message);
        }
    }
}
