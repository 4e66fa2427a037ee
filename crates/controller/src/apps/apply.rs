//! Making the cluster match what was rendered, and saying what came of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use plumb_api::conditions::reasons;
use plumb_api::{ApplicationStatus, names};
use plumb_core::{Digest, Object};
use plumb_engine::{Change, EngineError, Job, Others, Parent, Policy, Report};

use super::build::Base;
use super::cut::out_of_time;
use super::plan::retry_cap;
use super::policy::policy_of;
use super::{Run, application_resource};
use crate::daemon::{Daemon, chain};
use crate::metrics::Outcome;
use crate::names::Key;
use crate::queue::Lane;
use crate::state::{Looked, annotation, epoch_of, has_facts, recorded_scope, settled_kinds};
use crate::status::{
    Say, Waits, apply_report, is_another_outcome, remember, revision_to_tell, say_of_report,
};

impl Daemon {
    pub(super) async fn apply(
        self: &Arc<Self>,
        run: &Run,
        base: &Base,
        objects: Vec<Object>,
        origin: Digest,
    ) -> Outcome {
        let first_look = run.rendered.is_none();
        let looks_at = Some(run.looks_at(base));
        let policy = policy_of(&run.object.spec);
        let (report, result) =
            self.sync(run, (objects, origin), &policy, looks_at, first_look).await;
        self.note_kept(run, base, &report, &result);
        let drifted = self.drifted(&run.set, &report.scope.kinds);
        let run = &Run { drifted, ..run.clone() };
        if let Err(error) = result {
            self.tell(run, &report, &base.revision.to_string());
            if first_look && !report.planned {
                // The next run compares with what was recorded.
                self.forget_render(run);
            }
            return self.cut_short(run, Some(&base.revision), &error, &report).await;
        }
        if report.superseded {
            // The newer run is in the queue already, and will say how it went. It finds what this
            // one has done as it should be, so only this one can tell that.
            self.tell(run, &report, &base.revision.to_string());
            self.again(run);
            return Outcome::Unchanged;
        }
        if report.unsent > 0 || report.undeleted > 0 {
            self.say_progress(run, base, &report).await;
            self.again(run);
            self.plan_turn(run);
            return Outcome::Waiting;
        }
        let quiet = self.note_waits(run, looks_at, &report);
        if quiet && report.failures.is_empty() && report.terminating.is_empty() {
            // The next run comes with the last of those that are waited for, and says how it went.
            self.tell(run, &report, &base.revision.to_string());
            self.again(run);
            self.plan_wait(run, &base.revision.to_string(), report.rest);
            return Outcome::Waiting;
        }
        if let Some(again) = report.again
            && report.failures.is_empty()
            && report.terminating.is_empty()
        {
            // What was just defined is not served yet: that is no failure so far.
            self.tell(run, &report, &base.revision.to_string());
            self.again(run);
            self.queue.add_after(Key::App(run.name.clone()), again, Lane::Urgent);
            return Outcome::Waiting;
        }
        if let Some(observed) = &report.observed {
            return self.say_observed(run, base, &report, observed).await;
        }
        let generation = run.object.metadata.generation;
        let newest = base.revision.to_string();
        let revision = revision_to_tell(&run.before, &report, generation, &newest).to_owned();
        let kept = self.engine.kept_at_rest(&run.set);
        // What is held or left is in the status, so the run after its end has something to say. What is
        // kept is, too, but its end is seen.
        let clean = is_clean(&report) && report.kept.iter().all(|told| kept.contains(&told.key));
        // What is handed over is on its way still.
        let settled = clean && report.handed_over == 0;
        self.remember_render(run, |rendered| {
            rendered.settled = settled;
            rendered.kept = kept;
            rendered.left_alone = report.left_alone.as_slice().into();
            rendered.refused = report.refused;
        });
        if clean {
            self.note_clean(run, base.seq);
        }
        if report.is_complete() {
            self.remember_good(run);
        }
        let say = say_of_report(&report, &revision, &run.name.namespace, &run.name.name);
        let now = Timestamp::now();
        let worked = !report.failures.is_empty()
            || report.outcomes.iter().any(|outcome| outcome.change != Change::Verified)
            || !report.pruned.is_empty()
            || run.before.last_applied_revision.as_deref() != Some(revision.as_str());
        let status = Self::status_with(run, &say, |status| {
            apply_report(status, &report, &revision, now);
            if let Some(scope) = &mut status.scope {
                scope.settled_for.clone_from(&run.object.metadata.uid);
            }
            if is_another_outcome(&status.history, &revision, &report) {
                let failed = (!report.failures.is_empty()).then_some(say.message.as_str());
                let digest = report.desired.map(|digest| digest.to_string());
                remember(&mut status.history, &revision, digest, failed, now);
            }
        });
        self.tell_yielded(run, &status, &revision);
        let mut say = say;
        if say.ready {
            // What is said of it depends on its objects, and its conditions with that.
            let status = ApplicationStatus { conditions: run.before.conditions.clone(), ..status };
            let said = self.say_applied(run, say, Some(status), Some(&report)).await;
            say = said.unwrap_or_else(|| {
                Say::not_ready(reasons::PROGRESSING, String::new(), Waits::Health)
            });
        } else {
            self.say_app(run, status, &say, Some(&base.revision)).await;
        }
        if report.is_complete() {
            self.note_done(&run.name, run.looks_at(base));
        }
        self.tell(run, &report, &revision);
        if self.drifted(&run.set, &report.scope.kinds) != run.drifted {
            self.queue.add(Key::App(run.name.clone()), Lane::Routine);
        }
        if report.refused {
            self.enforce_last_good(run, base).await;
        }
        if report.is_complete() {
            self.succeeded(run);
            self.plan_interval(run);
        } else {
            let revision = base.revision.to_string();
            if report.failures.is_empty() || !report.terminating.is_empty() {
                // The watches tell when the way is free.
                self.plan_wait(run, &revision, report.rest);
            } else {
                self.plan_retry_in(run, &revision, report.rest);
            }
            for wait in [report.again, report.due].into_iter().flatten() {
                self.hasten(run, wait);
            }
        }
        match say.waits {
            Some(Waits::Turn | Waits::Health | Waits::Others) => Outcome::Waiting,
            Some(Waits::Retry) => Outcome::Retry,
            Some(Waits::User) if report.held.is_some() => Outcome::Waiting,
            Some(Waits::User) => Outcome::Stalled,
            None if worked => Outcome::Changed,
            None => Outcome::Unchanged,
        }
    }

    pub(super) async fn sync(
        self: &Arc<Self>,
        run: &Run,
        (objects, origin): (Vec<Object>, Digest),
        policy: &Policy,
        looks_at: Option<Looked>,
        first_look: bool,
    ) -> (Report, Result<(), EngineError>) {
        let digests = (run.before.digest.as_deref().and_then(Digest::parse))
            .zip(run.before.cluster_digest.as_deref().and_then(Digest::parse));
        let superseded = self.superseded(run);
        let others = self.neighbours(run, looks_at);
        let mut job = self.job(run, objects, policy, &superseded, &others);
        job.origin = origin;
        job.recorded = digests.filter(|_| first_look);
        // What is not what is wanted is enforced without a word in the status.
        job.keeps_scope = looks_at.is_none();
        self.work_on(run, job).await
    }

    /// Puts back what others changed, and does nothing else.
    pub(super) async fn sync_drift(self: &Arc<Self>, run: &Run, objects: Vec<Object>) -> Report {
        let policy = policy_of(&run.object.spec);
        let superseded = self.superseded(run);
        let others = self.neighbours(run, None);
        let job = self.job(run, objects, &policy, &superseded, &others);
        let (report, result) = self.work_on(run, Job { only_drift: true, ..job }).await;
        if let Err(error) = result {
            tracing::warn!(application = %run.name, "cannot correct drift: {}", chain(&error));
        }
        report
    }

    async fn work_on(&self, run: &Run, job: Job<'_>) -> (Report, Result<(), EngineError>) {
        let limit = Duration::from(run.object.spec.timeout);
        let mut report = Report::default();
        let result = tokio::time::timeout(limit, self.engine.sync(job, &mut report)).await;
        (report, result.unwrap_or_else(|_| Err(out_of_time(run))))
    }

    /// Whether a newer run of it waits.
    pub(super) fn superseded(&self, run: &Run) -> impl Fn() -> bool + Sync + use<> {
        let (state, name, wanted) = (self.state.clone(), run.name.clone(), run.wanted);
        move || state.lock().apps.get(&name).is_none_or(|app| app.wanted != wanted)
    }

    pub(super) fn job<'a>(
        &self,
        run: &'a Run,
        objects: Vec<Object>,
        policy: &'a Policy,
        superseded: &'a (dyn Fn() -> bool + Sync),
        others: &'a dyn Others,
    ) -> Job<'a> {
        Job {
            set: &run.set,
            parent: parent(run),
            objects,
            policy,
            ignores: &run.ignores,
            approved: annotation(&run.object.metadata, names::APPROVE_PRUNE).map(String::from),
            origin: Digest::of(&[]),
            recorded: None,
            transient: &run.transient,
            only_drift: false,
            keeps_scope: false,
            epoch: self.epoch(),
            asked: run.asked,
            longest_pause: retry_cap(&run.object.spec),
            superseded,
            others,
        }
    }
}

/// Whether a run left nothing of what its Application has to do. What others have yet to take is theirs.
fn is_clean(report: &Report) -> bool {
    report.is_complete() && report.held.is_none() && report.left == 0 && !report.unwatched
}

fn parent(run: &Run) -> Parent {
    let metadata = &run.object.metadata;
    let annotations = metadata.annotations.clone().unwrap_or_default();
    Parent {
        resource: application_resource(),
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata
            .resource_version
            .as_deref()
            .and_then(|v| v.parse().ok())
            .unwrap_or(0),
        has_facts: has_facts(metadata, &run.set),
        hints: plumb_engine::Scope::from_annotations(&annotations),
        recorded: recorded_scope(Some(&run.before)),
        epoch: epoch_of(metadata),
        finalizer: names::FINALIZER,
        created: metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        settled: settled_kinds(&run.before, metadata.uid.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise whatever left it since would wait for a neighbour that is broken at last.
    #[test]
    fn what_others_have_yet_to_take_leaves_nothing_to_do() {
        let key = plumb_core::ObjectKey::new(plumb_core::GroupKind::new("", "A"), "ns", "a");
        for (report, clean) in [
            (Report::default(), true),
            (Report { handed_over: 1, ..Report::default() }, true),
            (Report { left: 1, ..Report::default() }, false),
            (Report { waits: true, ..Report::default() }, false),
            (Report { terminating: vec![key], ..Report::default() }, false),
            (Report { unwatched: true, ..Report::default() }, false),
        ] {
            assert_eq!(is_clean(&report), clean, "{report:?}");
        }
    }
}
