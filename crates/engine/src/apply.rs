//! Applying objects: one turn at a time, each object on its own, force only on what is ours.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use plumb_core::ObjectKey;
use serde_json::Value;
use tokio::time::Instant;

use crate::applyset::ApplySet;
use crate::circuit::{News, Shut};
use crate::cluster::{ApiError, ApplyHow, Metadata, Target};
use crate::correct::is_untouched;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::explain::fields_of;
use crate::failure::failure;
use crate::ignore::{Pointer, leave_out};
use crate::live::Live;
use crate::marks::Ssa;
use crate::order::Missing;
use crate::plan::Action;
use crate::prepare::Prepared;
use crate::refusals::Held;
use crate::report::{Change, Drift, Outcome, Report};
use crate::share::Slice;
use crate::sync::{Job, RACES, ends_run};

impl Engine {
    pub(crate) async fn apply_turn(
        &self,
        set: &ApplySet,
        batch: &[&(&Prepared, Action)],
        job: &Job<'_>,
        slice: &Slice,
        missing: &mut Missing<'_>,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let ended = AtomicBool::new(false);
        let mut tries = Vec::with_capacity(batch.len());
        for (p, action) in batch {
            if self.is_unserved(&p.key.group_kind, report) {
                missing.note(p, None);
                continue;
            }
            if !self.has_its_turn(set, p, missing, report).await? {
                continue;
            }
            let ended = &ended;
            let one = async move {
                if ended.load(Ordering::Relaxed) || (job.superseded)() {
                    (*p, Tried::Left)
                } else if let Err(shut) = self.admit(p, job) {
                    (*p, Tried::Shut(shut))
                } else if !slice.take(Instant::now()) {
                    self.circuits().release(p, Instant::now());
                    (*p, Tried::Later)
                } else {
                    (*p, Tried::Answered(self.apply_one(set, p, action, job).await))
                }
            };
            tries.push(one.boxed());
        }
        let mut results = self.work_off(tries);
        let mut interrupted = None;
        while let Some((p, tried)) = results.next().await {
            let result = match tried {
                Tried::Left => {
                    report.superseded |= interrupted.is_none();
                    continue;
                }
                Tried::Later => {
                    report.unsent += 1;
                    continue;
                }
                Tried::Shut(shut) => {
                    missing.note(p, Some(shut.failure.class));
                    report.shut(shut);
                    continue;
                }
                Tried::Answered(result) => result,
            };
            let silent = self.note_answer(p, &result);
            if result.is_ok() {
                self.refusals().applied(&set.id, &p.key);
            }
            if let Err(error) = &result
                && let Some(error) = self.disowned(set, error, report).await
            {
                ended.store(true, Ordering::Relaxed);
                interrupted.get_or_insert(error);
                continue;
            }
            match result {
                Ok(Some(Change::Left)) => {
                    self.refusals().left(&set.id, &p.key);
                    report.marked += 1;
                    report.unwatched |= p.marks.ssa != Ssa::IfNotPresent;
                }
                Ok(Some(change)) => report.outcomes.push(Outcome { key: p.key.clone(), change }),
                Ok(None) => {
                    missing.note(p, None);
                    report.terminating.push(p.key.clone());
                }
                Err(error) if ends_run(&error) && !silent || silent && !self.answers(job).await => {
                    if silent {
                        self.circuits().forget(p);
                    }
                    // What is under way is awaited, so that the index learns its answers.
                    ended.store(true, Ordering::Relaxed);
                    let leads = !matches!(error, ApiError::NotLeading { .. });
                    interrupted.get_or_insert(EngineError::Interrupted { source: error });
                    if !leads {
                        break;
                    }
                }
                Err(error) => {
                    report.rest = report.rest.max(error.retry_after());
                    let refused = self.refused(p, &Arc::new(error), job);
                    let shut = self.told(p, refused, job, report);
                    missing.note(p, shut.as_ref().map(|shut| shut.failure.class));
                    report.put_off(shut);
                }
            }
        }
        interrupted.map_or(Ok(()), Err)
    }

    /// Whether an object may be sent, as far as others of its kind tell.
    pub(crate) fn admit(&self, p: &Prepared, job: &Job<'_>) -> Result<(), Shut> {
        self.circuits().admit(p, &job.set.id, job.asked, Instant::now())
    }

    /// Notes an answer for others of the kind. Returns whether the API server as a whole may be the
    /// cause.
    pub(crate) fn note_answer(
        &self,
        p: &Prepared,
        result: &Result<Option<Change>, ApiError>,
    ) -> bool {
        let now = Instant::now();
        let news = match result {
            // It was only looked at.
            Ok(Some(Change::Left)) => {
                self.circuits().release(p, now);
                News::Nothing
            }
            result => self.circuits().note(p, result.as_ref().err(), now),
        };
        match news {
            News::Nothing => false,
            News::AskServer => true,
            News::Over(waiting) => {
                self.tell_freed(waiting);
                false
            }
        }
    }

    /// What is told of an object that was refused, and when it is tried again.
    pub(crate) fn refused(
        &self,
        p: &Prepared,
        error: &Arc<ApiError>,
        job: &Job<'_>,
    ) -> Result<Held, Shut> {
        let now = Instant::now();
        if let Some(shut) = self.circuits().told(p, error, now) {
            return Err(shut);
        }
        let live = self.members().live(&p.key).cloned();
        let (set, longest) = (&job.set.id, job.longest_pause);
        let left = self.refusals().note(set, p, live.as_ref(), error, longest, now);
        Ok(Held { error: Arc::clone(error), left })
    }

    /// What is told of an object that was refused; nothing of what passes by itself, for which another
    /// run comes.
    pub(crate) fn told(
        &self,
        p: &Prepared,
        refused: Result<Held, Shut>,
        job: &Job<'_>,
        report: &mut Report,
    ) -> Option<Shut> {
        let Held { error, left } = match refused {
            Ok(held) => held,
            Err(shut) => return Some(shut),
        };
        if may_be_let_go(&error, job) {
            report.waits = true;
            return None;
        }
        let late = self.is_late(p, &error, report);
        (!late)
            .then(|| Shut { failure: Box::new(failure(p, &error, job.set, report.account)), left })
    }

    /// Whether an error would meet every other object, too. One that took all the time there was does
    /// so when the API server answers nothing.
    pub(crate) async fn ends(&self, job: &Job<'_>, error: &ApiError) -> bool {
        ends_run(error) || matches!(error, ApiError::Timeout { .. }) && !self.answers(job).await
    }

    /// Whether the API server answers at all: it is asked for something that no webhook sees.
    async fn answers(&self, job: &Job<'_>) -> bool {
        let parent = Target::new(&job.parent.resource, &job.set.namespace, &job.set.name);
        !matches!(
            self.cluster.get_metadata(&parent).await,
            Err(ApiError::Timeout { .. } | ApiError::Transport { .. })
        )
    }

    /// Brings one object into its desired state. `None` when it turns out to be going away.
    async fn apply_one(
        &self,
        set: &ApplySet,
        p: &Prepared,
        action: &Action,
        job: &Job<'_>,
    ) -> Result<Option<Change>, ApiError> {
        let mut write = Unanswered { engine: self, set, key: &p.key, answered: false };
        let mut result = self.act(set, p, action).await;
        if let Err(error) = &result
            && (self.take_items(set, p, error).await?
                || *action != Action::Claim && self.leave_version(set, p, error).await?)
        {
            result = self.act(set, p, action).await;
        }
        let result = match result {
            Err(error) if error.immutable_field().is_some() => {
                self.recreate(set, p, job, error).await
            }
            result => result,
        };
        write.answered = !matches!(&result, Err(error) if is_unanswered(error));
        drop(write);
        let (live, change) = result?;
        let terminating = live.terminating;
        let mut called_again: BTreeSet<Arc<str>> = BTreeSet::new();
        {
            let mut members = self.members();
            // What is only due says nothing of anybody; nor does a start, after which all are sent once.
            let called = members.is_verified_for(&p.key, &set.id) && !members.is_due(&p.key);
            // What is going because of us is not there any more, as far as the next run is concerned.
            let goes = terminating && matches!(change, Change::Recreated(_));
            if change != Change::Left && !goes {
                let before = members.live(&p.key).and_then(|live| live.part_of.as_deref());
                called_again.extend(before.filter(|owner| *owner != &*set.id).map(Arc::from));
                if !members.verified(&set.id, &set.manager, &p.key, live, p.digest) {
                    called_again.insert(set.id.as_str().into());
                }
            }
            match &change {
                Change::Corrected(drift) => members.corrected(&p.key, drift, Instant::now()),
                _ if matches!(action, Action::Verify { .. }) && called => {
                    members.checked(&p.key, Instant::now());
                }
                _ => {}
            }
        }
        // The watch tells nothing new of what was answered: whoever had it before has it no more, and
        // what is gone already is to be made again.
        self.signal(called_again);
        if p.defined_here {
            self.watch_served(&p.resource);
        }
        // Last: a run that is cut off here has told everybody.
        if *action == Action::Claim && !matches!(change, Change::Created | Change::Left) {
            self.note_left(set, p).await;
        }
        Ok((!terminating).then_some(change))
    }

    /// Does what the plan says. What others may decide is looked up first, and written on the version that was
    /// looked at; somebody who decides in between is asked again.
    async fn act(
        &self,
        set: &ApplySet,
        p: &Prepared,
        action: &Action,
    ) -> Result<(Live, Change), ApiError> {
        let mut race = 0;
        loop {
            let before = self.members().live(&p.key).cloned();
            if p.marks.ssa == Ssa::IfNotPresent {
                // It may be there without our label.
                let target = p.target();
                if let Some(found) = self.acting(set).get_metadata(&target).await? {
                    return Ok((found.live, Change::Left));
                }
            }
            let scaled = before.as_ref().is_some_and(|before| before.scaled);
            // What others may decide of an object that comes to us is known once it is known from whom.
            let claims = matches!(action, Action::Claim);
            if claims || !scaled && p.ignored.is_empty() {
                return self.act_on(set, p, action, before).await;
            }
            let decided = self.without_decided(set, p, before.as_ref()).await?;
            let left = decided.as_ref().filter(|decided| decided.yielded.len() > p.yielded.len());
            let left = left.map_or_else(Vec::new, |decided| decided.yielded.clone());
            self.members().note_yielded(&p.key, left);
            match self.act_on(set, decided.as_ref().unwrap_or(p), action, before).await {
                Err(error)
                    if error.is_conflict()
                        && !error.is_ownership_conflict()
                        && decided.is_some()
                        && race < RACES =>
                {
                    race += 1;
                }
                Ok((live, Change::Corrected(Drift::Fields(fields))))
                    if fields.is_empty()
                        && decided.as_ref().is_some_and(|d| d.yielded.len() > p.yielded.len()) =>
                {
                    // What was changed is others' to change.
                    return Ok((live, Change::Verified));
                }
                result => return result,
            }
        }
    }

    async fn act_on(
        &self,
        set: &ApplySet,
        p: &Prepared,
        action: &Action,
        before: Option<Live>,
    ) -> Result<(Live, Change), ApiError> {
        Ok(match action {
            Action::Claim => {
                let live = self.claim(set, p).await?;
                if live.marks.hands_off() {
                    return Ok((live, Change::Left));
                }
                let alone = live.entries.len() == 1 && live.others == 0;
                (live, if alone && before.is_none() { Change::Created } else { Change::Updated })
            }
            Action::Recreate(Drift::Replaced) => {
                let live = self.retake(set, p).await?;
                if live.marks.hands_off() {
                    return Ok((live, Change::Left));
                }
                (live, Change::Corrected(Drift::Replaced))
            }
            Action::Recreate(drift) => {
                let mut uid = self.members().verified_uid(&p.key);
                if uid.is_none() {
                    // It went while nobody looked, or is there without its label.
                    let target = p.target();
                    uid = self.acting(set).get_metadata(&target).await?.map(|found| found.live.uid);
                }
                let live = self.claim(set, p).await?;
                if live.marks.hands_off() {
                    return Ok((live, Change::Left));
                }
                let same = uid.as_deref() == Some(&*live.uid);
                let drift = if same { Drift::Unlabelled } else { drift.clone() };
                (live, Change::Corrected(drift))
            }
            Action::Verify { as_before: true } => {
                let (live, drift) = self.verify(set, p, before).await?;
                (live, drift.map_or(Change::Verified, Change::Corrected))
            }
            Action::Update | Action::Verify { as_before: false } => {
                let live = self.overwrite(set, p, before.as_ref()).await?;
                let has_status = p.resource.subresources.contains("status");
                let change = match &before {
                    Some(before) if before.uid != live.uid => Change::Corrected(Drift::Deleted),
                    Some(before)
                        if *action != Action::Update
                            && is_untouched(before, &live, &set.manager, has_status) =>
                    {
                        Change::Verified
                    }
                    _ => Change::Updated,
                };
                (live, change)
            }
            Action::Correct { as_before } => {
                let (live, drift) = self.correct(set, p).await?;
                (live, if *as_before { Change::Corrected(drift) } else { Change::Updated })
            }
        })
    }

    /// The object without the fields that others may decide and have decided, on the version by which that
    /// is so; `None` when there is no such object.
    pub(crate) async fn without_decided(
        &self,
        set: &ApplySet,
        p: &Prepared,
        before: Option<&Live>,
    ) -> Result<Option<Prepared>, ApiError> {
        let target = p.target();
        let Some(found) = self.acting(set).get_metadata(&target).await? else { return Ok(None) };
        let ours = fields_of(&found.managed_fields, &set.manager);
        let mut without = without_others(p, &found, ours);
        // Another object of the name is nobody's to write on a version of.
        let same = before.is_some_and(|before| before.uid == found.live.uid);
        without.decided_on = same.then_some(found.live.resource_version);
        Ok(Some(without))
    }

    /// Notes what of an object that came to us is left to others.
    async fn note_left(&self, set: &ApplySet, p: &Prepared) {
        let before = self.members().live(&p.key).cloned();
        let scaled = before.as_ref().is_some_and(|before| before.scaled);
        if !scaled && p.ignored.is_empty() {
            return;
        }
        // It is applied; if this is not known, it is told with the next look.
        if let Ok(Some(decided)) = self.without_decided(set, p, before.as_ref()).await {
            let more = decided.yielded.len() > p.yielded.len();
            let left = if more { decided.yielded } else { Vec::new() };
            self.members().note_yielded(&p.key, left);
        }
    }

    pub(crate) async fn send(
        &self,
        set: &ApplySet,
        p: &Prepared,
        body: &Value,
        how: ApplyHow,
    ) -> Result<Live, ApiError> {
        let target = p.target();
        self.acting(set).apply(&target, body, &set.manager, how).await
    }
}

/// The object without the fields that others may decide and have decided, where these fields are or will be
/// ours.
pub(crate) fn without_others(p: &Prepared, found: &Metadata, ours: Option<&Value>) -> Prepared {
    let mut without = p.clone();
    let mut fields = p.ignored.clone();
    fields.extend(found.live.scaled.then(Pointer::replicas));
    without.yielded.extend(leave_out(without.object.body_mut(), ours, &fields));
    without
}

/// What became of one object of a stage.
enum Tried {
    /// The run ended before it.
    Left,
    /// Others have their turn first.
    Later,
    /// It was not sent, because others of its kind got no answer.
    Shut(Shut),
    Answered(Result<Option<Change>, ApiError>),
}

/// A write under way. When it is dropped without an answer, whether it was carried out is not
/// known, and what the watch brings of it must not look like drift.
struct Unanswered<'e> {
    engine: &'e Engine,
    set: &'e ApplySet,
    key: &'e ObjectKey,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.engine.members().doubt(&self.set.id, self.key);
        }
    }
}

/// Whether an object belongs to a set that may be about to let it go.
fn may_be_let_go(error: &ApiError, job: &Job<'_>) -> bool {
    error.is_ownership_conflict()
        && error.conflicts().iter().any(|(manager, _)| job.others.is_silent(manager))
}

/// Whether the API server may have carried out what ended so. It may also when it says that it
/// failed: its store may have been too slow with an answer only.
pub(crate) fn is_unanswered(error: &ApiError) -> bool {
    match error {
        // A webhook is asked before anything is written.
        ApiError::Refused(refusal) => {
            matches!(refusal.code, 500 | 504) && !refusal.message.contains("webhook")
        }
        ApiError::Timeout { .. }
        | ApiError::Transport { .. }
        | ApiError::Decode { .. }
        | ApiError::TooLarge { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::applyset::PART_OF;
    use crate::cluster::script::{Says, Script};
    use crate::prune::tests::in_slices;

    /// Found by a test that failed once: an autoscaler set a number while it was looked up who sets it, and
    /// Git's was put back once more.
    #[tokio::test]
    async fn what_others_decide_between_a_look_and_a_write_is_left_to_them() {
        let set = ApplySet::new(plumb_core::GroupKind::new("plumb.dev", "Application"), "ns", "a");
        let ports = Pointer::parse("/spec/ports").unwrap();
        let p = Prepared { ignored: vec![ports], ..crate::failure::tests::service() };
        let found = |version: &str, manager: &str| {
            let label = json!({"f:labels": {format!("f:{PART_OF}"): {}}});
            let own = json!({"f:metadata": label.clone()});
            let both = json!({"f:metadata": label, "f:spec": {"f:ports": {}}});
            let entry = |manager: &str, fields: &Value| {
                json!({
                    "manager": manager, "operation": "Apply", "apiVersion": "v1",
                    "time": "2024-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields,
                })
            };
            let theirs = json!({"f:spec": {"f:ports": {}}});
            let entries = if manager == set.manager {
                vec![entry(&set.manager, &both)]
            } else {
                vec![entry(&set.manager, &own), entry(manager, &theirs)]
            };
            json!({"kind": "PartialObjectMetadata", "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": version,
                "labels": {PART_OF: set.id}, "managedFields": entries,
            }})
            .to_string()
        };
        let conflict = json!({
            "kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict",
            "message": "the object has been modified",
        });
        for action in [
            Action::Correct { as_before: true },
            Action::Verify { as_before: true },
            Action::Update,
        ] {
            // The write, of which another one was faster, and the next look.
            let looks = if matches!(action, Action::Correct { .. }) { 2 } else { 1 };
            let mut says: Vec<_> = (0..looks).map(|_| Says::ok(found("5", &set.manager))).collect();
            says.push(Says::Status(409, None, conflict.to_string()));
            says.extend((0..looks).map(|_| Says::ok(found("6", "hand"))));
            says.push(Says::ok(found("7", "hand")));
            let script = Script::new(says);
            let engine = in_slices(&script, usize::MAX);
            let known = Script::new([Says::ok(found("5", &set.manager))]).cluster();
            let live = known.get_metadata(&p.target()).await.unwrap().unwrap().live;
            engine.members().verified(&set.id, &set.manager, &p.key, live, p.digest);
            engine.act(&set, &p, &action).await.unwrap();
            let asked = script.asked();
            let writes: Vec<Value> = asked
                .iter()
                .filter(|asked| asked.method == http::Method::PATCH)
                .map(|asked| serde_json::from_str(&asked.body).unwrap())
                .collect();
            let seen = |write: &Value| {
                let version = write["metadata"]["resourceVersion"].as_str().map(str::to_owned);
                (version, !write["spec"]["ports"].is_null())
            };
            let seen: Vec<_> = writes.iter().map(seen).collect();
            assert_eq!(seen, [(Some("5".into()), true), (Some("6".into()), false)], "{action:?}");
            assert!(script.is_done(), "{action:?}");
        }
    }
}
