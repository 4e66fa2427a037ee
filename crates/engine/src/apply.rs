//! Applying objects: one stage at a time, each object on its own, force only on what is ours.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{FutureExt as _, StreamExt as _};
use plumb_core::{ErrorClass, ObjectKey};
use serde_json::Value;

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, ApplyHow, Target};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::explain::explain;
use crate::failure::failure;
use crate::live::Live;
use crate::prepare::{Prepared, planned_for, planned_on};
use crate::report::{Change, Drift, Failure, Outcome, Report};
use crate::sync::{Action, FORCED, Job, RACES, ends_run};

/// An apply in which the API server says who else owns what we declare.
const UNFORCED: ApplyHow = ApplyHow { force: false, dry_run: false };

impl Engine {
    pub(crate) async fn apply_stage(
        &self,
        set: &ApplySet,
        batch: &[&(&Prepared, Action)],
        job: &Job<'_>,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let ended = AtomicBool::new(false);
        let mut tries = Vec::with_capacity(batch.len());
        for (p, action) in batch {
            let ended = &ended;
            let one = async move {
                if ended.load(Ordering::Relaxed) || (job.superseded)() {
                    (*p, None)
                } else {
                    (*p, Some(self.apply_one(set, p, action).await))
                }
            };
            tries.push(one.boxed());
        }
        let mut results = futures::stream::iter(tries).buffer_unordered(self.options.concurrency);
        let mut interrupted = None;
        while let Some((p, result)) = results.next().await {
            match result {
                None => report.superseded |= interrupted.is_none(),
                Some(Ok(Some(change))) => {
                    report.outcomes.push(Outcome { key: p.key.clone(), change });
                }
                Some(Ok(None)) => report.terminating.push(p.key.clone()),
                Some(Err(error)) if ends_run(&error) => {
                    // What is under way is awaited, so that the index learns its answers.
                    ended.store(true, Ordering::Relaxed);
                    interrupted.get_or_insert(error);
                    if interrupted
                        .as_ref()
                        .is_some_and(|e| matches!(e, ApiError::NotLeading { .. }))
                    {
                        break;
                    }
                }
                Some(Err(error)) => report.failures.push(failure(p, &error, set)),
            }
        }
        interrupted.map_or(Ok(()), |source| Err(EngineError::Interrupted { source }))
    }

    /// Brings one object into its desired state. `None` when it turns out to be going away.
    async fn apply_one(
        &self,
        set: &ApplySet,
        p: &Prepared,
        action: &Action,
    ) -> Result<Option<Change>, ApiError> {
        let mut write = Unanswered { engine: self, set, key: &p.key, answered: false };
        let result = self.act(set, p, action).await;
        write.answered = !matches!(&result, Err(error) if is_unanswered(error));
        drop(write);
        let (live, change) = result?;
        let terminating = live.terminating;
        self.members().verified(&set.id, &set.manager, &p.key, live, p.digest);
        if p.defined_here {
            self.watch_served(&p.resource);
        }
        Ok((!terminating).then_some(change))
    }

    async fn act(
        &self,
        set: &ApplySet,
        p: &Prepared,
        action: &Action,
    ) -> Result<(Live, Change), ApiError> {
        let before = self.members().live(&p.key).cloned();
        Ok(match action {
            Action::Claim => {
                let live = self.claim(set, p).await?;
                let alone = live.entries.len() == 1 && live.others == 0;
                (live, if alone { Change::Created } else { Change::Updated })
            }
            Action::Recreate(Drift::Replaced) => {
                (self.retake(set, p).await?, Change::Corrected(Drift::Replaced))
            }
            Action::Recreate(drift) => {
                let uid = self.members().verified_uid(&p.key);
                let live = self.claim(set, p).await?;
                let same = uid.as_deref() == Some(&*live.uid);
                let drift = if same { Drift::Unlabelled } else { drift.clone() };
                (live, Change::Corrected(drift))
            }
            Action::Update | Action::Verify => {
                let live = self.overwrite(set, p, before.as_ref()).await?;
                let change = match &before {
                    Some(before) if before.uid != live.uid => Change::Corrected(Drift::Deleted),
                    Some(before)
                        if *action == Action::Verify
                            && is_untouched(before, &live, &set.manager) =>
                    {
                        Change::Verified
                    }
                    _ => Change::Updated,
                };
                (live, change)
            }
            Action::Correct => {
                let (live, fields) = self.correct(set, p).await?;
                (live, Change::Corrected(fields))
            }
        })
    }

    async fn send(
        &self,
        set: &ApplySet,
        p: &Prepared,
        body: &Value,
        how: ApplyHow,
    ) -> Result<Live, ApiError> {
        let target = Target::new(&p.resource, &p.key.namespace, &p.key.name);
        let give_up = tokio::time::Instant::now() + self.options.definition_timeout;
        let mut pause = std::time::Duration::from_millis(50);
        loop {
            let result = self.cluster.apply(&target, body, &set.manager, how).await;
            match result {
                // The API server takes a moment to serve what a new definition defines.
                Err(error)
                    if p.defined_here
                        && (error.is_kind_missing() || error.is_not_in_schema())
                        && tokio::time::Instant::now() < give_up =>
                {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(std::time::Duration::from_secs(2));
                }
                result => return result,
            }
        }
    }

    async fn force(&self, set: &ApplySet, p: &Prepared, body: &Value) -> Result<Live, ApiError> {
        self.send(set, p, body, FORCED).await
    }

    /// Applies with force over the very object that is known as ours.
    async fn overwrite(
        &self,
        set: &ApplySet,
        p: &Prepared,
        known: Option<&Live>,
    ) -> Result<Live, ApiError> {
        let Some(known) = known else { return self.claim(set, p).await };
        match self.force(set, p, &planned_for(p.object.body(), &known.uid)).await {
            // It is gone, or another object has its name, which is not ours to overwrite.
            Err(error) if error.is_conflict() || error.is_other_object() => {
                self.claim(set, p).await
            }
            result => result,
        }
    }

    /// Applies what is not known as ours: the API server says whether anybody else owns it.
    async fn claim(&self, set: &ApplySet, p: &Prepared) -> Result<Live, ApiError> {
        let refused = match self.send(set, p, p.object.body(), UNFORCED).await {
            Err(error) if error.is_ownership_conflict() => error,
            result => return result,
        };
        // It may be ours all the same: the label was taken off, or this process just started.
        let target = Target::new(&p.resource, &p.key.namespace, &p.key.name);
        for _ in 0..RACES {
            let Some(found) = self.cluster.get_metadata(&target).await? else {
                return Err(refused);
            };
            let ours = found.live.entry(&set.manager).is_some();
            if !ours || found.live.part_of.as_deref().is_some_and(|part_of| part_of != set.id) {
                return Err(refused);
            }
            let body = planned_on(p.object.body(), found.live.resource_version);
            match self.force(set, p, &body).await {
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
        Err(refused)
    }

    /// Applies over an object that took the place of ours. When it carries our label, it is a copy
    /// of ours, and its values are drift; otherwise it is somebody's own, as in a claim.
    async fn retake(&self, set: &ApplySet, p: &Prepared) -> Result<Live, ApiError> {
        let version = {
            let members = self.members();
            let live = members.live(&p.key);
            live.filter(|l| l.part_of.as_deref() == Some(&set.id)).map(|l| l.resource_version)
        };
        if let Some(version) = version {
            match self.force(set, p, &planned_on(p.object.body(), version)).await {
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
        self.claim(set, p).await
    }

    /// Puts our fields back, on the version whose differences are reported.
    async fn correct(&self, set: &ApplySet, p: &Prepared) -> Result<(Live, Drift), ApiError> {
        let target = Target::new(&p.resource, &p.key.namespace, &p.key.name);
        let uid = self.members().live(&p.key).map(|live| live.uid.clone());
        let mut race = 0;
        loop {
            let found = self.cluster.get_metadata(&target).await?;
            let Some(found) = found.filter(|found| Some(&found.live.uid) == uid.as_ref()) else {
                return Ok((self.claim(set, p).await?, Drift::Deleted));
            };
            let fields = explain(p.object.body(), &found.managed_fields, &set.manager);
            let body = planned_on(p.object.body(), found.live.resource_version);
            match self.force(set, p, &body).await {
                Ok(live) => return Ok((live, Drift::Fields(fields))),
                Err(error) if error.is_conflict() && race < RACES => race += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the definitions of this run are served.
    pub(crate) async fn await_definitions(
        &self,
        batch: &[&(&Prepared, Action)],
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let applied: BTreeSet<&ObjectKey> = report.outcomes.iter().map(|o| &o.key).collect();
        let definitions: Vec<&Prepared> = batch
            .iter()
            .map(|(p, _)| *p)
            .filter(|p| {
                p.key.group_kind.kind == "CustomResourceDefinition" && applied.contains(&p.key)
            })
            .collect();
        if definitions.is_empty() {
            return Ok(());
        }
        let give_up = tokio::time::Instant::now() + self.options.definition_timeout;
        for p in definitions {
            let target = Target::new(&p.resource, "", &p.key.name);
            let mut pause = std::time::Duration::from_millis(20);
            loop {
                let read: Result<Option<Value>, ApiError> = self.cluster.get_json(&target).await;
                let definition = read.map_err(|source| EngineError::Interrupted { source })?;
                if definition.as_ref().is_some_and(is_established) {
                    break;
                }
                if tokio::time::Instant::now() >= give_up {
                    report.failures.push(Failure {
                        key: p.key.clone(),
                        place: Some(p.object.place().clone()),
                        reason: "NotEstablished",
                        message: "the API server does not serve this definition yet".into(),
                        hint: Some("look at its conditions".into()),
                        class: ErrorClass::Retry,
                    });
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(std::time::Duration::from_secs(1));
            }
        }
        self.forget_discovery().await;
        Ok(())
    }
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

/// Whether the API server may have carried out what ended so.
fn is_unanswered(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::Timeout { .. }
            | ApiError::Transport { .. }
            | ApiError::Decode { .. }
            | ApiError::TooLarge { .. }
    )
}

/// Whether an apply of ours changed nothing. It would have changed the fields or the time of our
/// entry; the resource version alone may have been moved by somebody else's status just before.
fn is_untouched(before: &Live, after: &Live, manager: &str) -> bool {
    before.uid == after.uid
        && after.entry(manager).is_some()
        && before.entry(manager) == after.entry(manager)
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Entry;

    #[test]
    fn a_status_written_meanwhile_does_not_make_an_apply_a_change() {
        const MANAGER: &str = "plumb:ns/app";
        let entry = Entry { manager: MANAGER.into(), fields: 7, time: 100, owns_part_of: true };
        let before = Live {
            uid: "u1".into(),
            resource_version: 10,
            generation: 1,
            terminating: false,
            owned: false,
            part_of: Some("set".into()),
            entries: vec![entry],
            others: 3,
        };
        let after = |change: fn(&mut Live)| {
            let mut live = Live { resource_version: 11, ..before.clone() };
            change(&mut live);
            is_untouched(&before, &live, MANAGER)
        };
        assert!(after(|_| {}));
        assert!(after(|live| live.others = 4));
        assert!(!after(|live| live.entries[0].fields = 8));
        assert!(!after(|live| live.entries[0].time = 101));
        assert!(!after(|live| live.entries.clear()));
        assert!(!after(|live| live.uid = "u2".into()));
    }
}
