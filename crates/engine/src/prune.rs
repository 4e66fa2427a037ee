//! Deleting members that nothing asks for any more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::FutureExt as _;
use plumb_core::{ErrorClass, GroupKind, ObjectKey};
use serde_json::{Value, json};

use crate::account::{Presence, rights};
use crate::applyset::{ApplySet, GROUP_KINDS, PART_OF};
use crate::cluster::{ApiError, Deleted, Propagation, Resource, Target};
use crate::edges::{Farewells, Level};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::guard::{self, Approval, Candidate, HoldReason, Occasion};
use crate::live::Live;
use crate::marks::Prune;
use crate::report::{Failure, Report};
use crate::sabotage::{Sabotage, leaves_out};
use crate::share::Slice;
use crate::sync::{Job, RACES, is_ours_to_delete};

/// A live member, as it was listed.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) resource: Resource,
    pub(crate) key: ObjectKey,
    pub(crate) live: Live,
    /// Its annotation that says what it comes after.
    pub(crate) after: Option<Box<str>>,
}

/// Members that nothing asks for and that are there after a deletion.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// On their way but not gone yet.
    pub(crate) going: Vec<ObjectKey>,
    /// Not ours to delete.
    pub(crate) kept: Vec<Member>,
}

impl Engine {
    /// Deletes the members of these kinds that are not `desired`, if the guard lets it.
    pub(crate) async fn delete_members(
        &self,
        job: &Job<'_>,
        kinds: &BTreeSet<GroupKind>,
        (desired, occasion): (&HashMap<ObjectKey, u64>, Occasion),
        slice: &Slice,
        report: &mut Report,
    ) -> Result<Left, EngineError> {
        let (set, failed) = (job.set, report.failures.len());
        let with_namespace = occasion == Occasion::Deletion { with_namespace: true };
        let discovery = self.discovery_of(kinds).await?;
        let mut found: Vec<Member> = Vec::new();
        let mut going: Vec<Member> = Vec::new();
        let mut kept: Vec<Member> = Vec::new();
        let applied: BTreeSet<Arc<str>> = {
            let members = self.members();
            desired.keys().filter_map(|key| Some(members.live(key)?.uid.clone())).collect()
        };
        for kind in kinds {
            let Some(resource) = discovery.preferred(kind) else {
                // A kind that the cluster has no more has no objects; one whose API is away may.
                if !matches!(occasion, Occasion::Deletion { .. })
                    || !self.is_gone(kind, &discovery).await
                {
                    let why = "the cluster does not have the kind";
                    report.failures.push(unlisted(kind, why, ErrorClass::Retry));
                }
                continue;
            };
            for member in self.list_members(job, resource, report).await? {
                let (key, live) = (&member.key, &member.live);
                // What is in a namespace that goes needs nobody to delete it.
                if with_namespace && key.namespace == set.namespace {
                    continue;
                }
                if desired.contains_key(key)
                    || applied.contains(&live.uid)
                    || self.claims().others_want(&set.id, key)
                {
                    continue;
                }
                if leaves_out(Sabotage::ForgetsAtRestart) && !self.members().has_verified(key) {
                    continue;
                }
                if is_ours_to_delete(set, live) {
                    found.push(member);
                } else if live.terminating
                    && !live.is_owned_beside(&set.manager)
                    && live.entry(&set.manager).is_some()
                {
                    going.push(member);
                } else if !live.terminating && live.entry(&set.manager).is_some() {
                    kept.push(member);
                }
            }
        }
        let mut candidates = Vec::with_capacity(found.len());
        let mut judged = Vec::with_capacity(found.len());
        for member in found {
            let (key, live) = (&member.key, &member.live);
            let precious = match guard::precious_kind(key, &job.policy.limits) {
                Some(why) => Ok(Some(why)),
                None if live.marks.prune == Prune::Confirm => {
                    Ok(Some("it is marked plumb.dev/prune: confirm"))
                }
                None if with_namespace => Ok(Some("it is not in the namespace that goes")),
                None => self.precious_object(set, &member.resource, key).await,
            };
            match precious {
                Ok(precious) => {
                    candidates.push(Candidate {
                        key: key.clone(),
                        uid: live.uid.clone(),
                        precious,
                        inherited: job.parent.inherits(set, key, live),
                    });
                    judged.push(member);
                }
                Err(source) if self.ends(job, &source).await => {
                    return Err(EngineError::Interrupted { source });
                }
                // What it would take along is not known, so it stays.
                Err(error) => {
                    if let Some(error) = self.disowned(set, &error, report).await {
                        return Err(error);
                    }
                    let of = (&member.resource, key);
                    let failure = failure_of(set, of, "PruneFailed", &error, report.account);
                    report.failures.push(failure);
                }
            }
        }
        let approved = self.approval(&set.id, job.approved.as_deref());
        let approved = approved.as_ref();
        let mut judgement = guard::judge(&candidates, occasion, &job.policy.limits, approved);
        if let (Ok(()), false, Some(other)) = (
            &judgement,
            candidates.is_empty() || matches!(occasion, Occasion::Deletion { .. }),
            job.others.broken(),
        ) {
            let message = format!(
                "the application {other} has not rendered since they left Git, and may ask for them"
            );
            judgement = guard::hold(&candidates, HoldReason::Broken, message, approved);
        }
        if report.failures.len() == failed {
            self.compare_plan(&set.id, &candidates);
        }
        report.released = judgement.is_ok() && !candidates.is_empty();
        if let Err(held) = judgement {
            // What cannot all be seen now is no other plan than the one that is under way.
            let is_under_way = approved.is_some_and(Approval::is_under_way);
            if report.failures.len() == failed || !is_under_way {
                report.held = Some(*held);
            }
            let going = going.into_iter().map(|member| member.key).collect();
            return Ok(Left { going, kept });
        }
        let going = self.delete_in_order(job, &judged, &going, slice, report).await?;
        Ok(Left { going, kept })
    }

    /// Deletes these members, those that come after others before them. What is `going` already, or
    /// goes slowly, keeps what it comes after. Returns all that is on its way.
    async fn delete_in_order(
        &self,
        job: &Job<'_>,
        judged: &[Member],
        going: &[Member],
        slice: &Slice,
        report: &mut Report,
    ) -> Result<Vec<ObjectKey>, EngineError> {
        let all: Vec<&Member> = judged.iter().chain(going).collect();
        let said: Vec<_> = all.iter().map(|m| (&m.key, m.after.as_deref())).collect();
        let order = Farewells::of(&said);
        let mut turns: BTreeMap<Level, Vec<usize>> = BTreeMap::new();
        for (number, level) in order.levels.iter().enumerate().take(judged.len()) {
            turns.entry(*level).or_default().push(number);
        }
        let mut there: HashSet<usize> = (0..all.len()).collect();
        let mut going: BTreeSet<ObjectKey> = going.iter().map(|m| m.key.clone()).collect();
        for turn in turns.into_values().rev() {
            if report.undeleted > 0 {
                report.undeleted += turn.len();
                continue;
            }
            let mut batch = Vec::new();
            for number in turn {
                match order.dependants[number].iter().find(|dependant| there.contains(dependant)) {
                    None => batch.push((number, all[number])),
                    Some(dependant) => {
                        let (key, dependant) = (&all[number].key, &all[*dependant].key);
                        report.behind.push((key.clone(), dependant.clone()));
                    }
                }
            }
            for (number, deleted) in self.delete_turn(job, &batch, slice, report).await? {
                let key = &all[number].key;
                if deleted == Deleted::Terminating {
                    going.insert(key.clone());
                } else {
                    there.remove(&number);
                }
            }
        }
        report.pruned.sort_unstable();
        report.behind.sort_unstable();
        Ok(going.into_iter().collect())
    }

    pub(crate) async fn list_members(
        &self,
        job: &Job<'_>,
        resource: &Resource,
        report: &mut Report,
    ) -> Result<Vec<Member>, EngineError> {
        let selector = format!("{PART_OF}={}", job.set.id);
        match self.cluster.list_in_order(resource, &selector).await {
            Ok(objects) => Ok(objects
                .into_iter()
                .map(|(key, (live, after))| Member { resource: resource.clone(), key, live, after })
                .collect()),
            Err(source) if self.ends(job, &source).await => {
                Err(EngineError::Interrupted { source })
            }
            Err(error) => {
                if error.is_kind_missing() {
                    self.forget_discovery().await;
                }
                let kind = resource.gvk.group_kind();
                if !leaves_out(Sabotage::FailedListIsEmpty) {
                    report.failures.push(unlisted(&kind, &error.to_string(), error.class()));
                }
                Ok(Vec::new())
            }
        }
    }

    /// Deletes what it can in this turn. Returns what came of each that is deleted.
    async fn delete_turn(
        &self,
        job: &Job<'_>,
        batch: &[(usize, &Member)],
        slice: &Slice,
        report: &mut Report,
    ) -> Result<Vec<(usize, Deleted)>, EngineError> {
        let turn = (job, slice, "PruneFailed");
        let batch = batch.iter().copied();
        let (done, result) =
            self.take_turn(turn, batch, |m| self.delete_one(job.set, m).boxed(), report).await;
        let mut deleted = Vec::with_capacity(done.len());
        for (number, member, came) in done {
            if came != Deleted::AlreadyGone {
                report.pruned.push(member.key.clone());
            }
            deleted.push((number, came));
        }
        result.map(|()| deleted)
    }

    /// What only the object itself tells.
    pub(crate) async fn precious_object(
        &self,
        set: &ApplySet,
        resource: &Resource,
        key: &ObjectKey,
    ) -> Result<Option<&'static str>, ApiError> {
        match (key.group_kind.group.as_str(), key.group_kind.kind.as_str()) {
            ("apps", "StatefulSet") => {
                let target = Target::new(resource, &key.namespace, &key.name);
                let found: Option<Value> = self.acting(set).get_json(&target).await?;
                let policy = found.map(|s| {
                    s["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"].clone()
                });
                Ok((policy == Some(json!("Delete"))).then_some("its volume claims go with it"))
            }
            ("plumb.dev", "Application") => {
                let target = Target::new(resource, &key.namespace, &key.name);
                let found = self.acting(set).get_metadata(&target).await?;
                let kinds = found.and_then(|found| found.annotations.get(GROUP_KINDS).cloned());
                // Annotations can be edited; what is live under its label cannot be argued away.
                let inner = ApplySet::new(key.group_kind.clone(), &key.namespace, &key.name);
                let members = self.members().applied(&inner.id, &inner.manager);
                let stays = !members.is_empty() && {
                    let claims = self.claims();
                    members.iter().all(|(key, _)| claims.others_want(&inner.id, key))
                };
                let has_members =
                    kinds.is_some_and(|kinds| !kinds.is_empty()) || !members.is_empty();
                Ok((has_members && !stays).then_some("the objects that it applied go with it"))
            }
            _ => Ok(None),
        }
    }

    /// Deletes one object of a plan. It counts as deleted from here on unless that is refused: an
    /// answer that is lost, or not waited for, leaves open what came of it.
    async fn delete_one(&self, set: &ApplySet, member: &Member) -> Result<Deleted, ApiError> {
        let note = |sent| self.note_deleted(&set.id, &member.key, &member.live.uid, sent);
        note(true);
        let result = self.delete_listed(set, member).await;
        if result.as_ref().is_err_and(|error| error.refusal().is_some()) {
            note(false);
        }
        result
    }

    /// Deletes one object as it was listed, if it still is that object.
    async fn delete_listed(&self, set: &ApplySet, member: &Member) -> Result<Deleted, ApiError> {
        let Member { resource, key, live, .. } = member;
        let mut live = live.clone();
        let target = Target::new(resource, &key.namespace, &key.name);
        let mut race = 0;
        loop {
            match self
                .acting(set)
                .delete(&target, &live.uid, Some(live.resource_version), Propagation::Background)
                .await
            {
                Ok(Deleted::Terminating) => return Ok(Deleted::Terminating),
                Ok(gone) => {
                    self.members().gone(key, &live.uid);
                    return Ok(gone);
                }
                // It changed since it was listed. Is it still the object that was to go?
                Err(error) if error.is_conflict() && race < RACES => {
                    race += 1;
                    let Some(found) = self.acting(set).get_metadata(&target).await? else {
                        return Ok(Deleted::AlreadyGone);
                    };
                    if found.live.uid == live.uid && found.live.terminating {
                        return Ok(Deleted::Terminating);
                    }
                    if found.live.uid != live.uid {
                        return Ok(Deleted::AlreadyGone);
                    }
                    if !is_ours_to_delete(set, &found.live) {
                        self.tell_kept(set, key, found.live);
                        return Ok(Deleted::AlreadyGone);
                    }
                    live = found.live;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What was to be deleted came to be one that stays: this run tells that already, as the watch,
    /// which may come later, calls nobody for what is known.
    fn tell_kept(&self, set: &ApplySet, key: &ObjectKey, live: Live) {
        if live.part_of.as_deref() == Some(&set.id) {
            let mut called = self.members().answered(key.clone(), live);
            called.remove(&*set.id);
            self.signal(called);
        }
    }
}

/// A failure about one member that Git has no more.
pub(crate) fn failure_of(
    set: &ApplySet,
    (resource, key): (&Resource, &ObjectKey),
    reason: &'static str,
    error: &ApiError,
    presence: Presence,
) -> Failure {
    // The refusal's own words: the object is named before them anyway.
    let message =
        error.refusal().map_or_else(|| error.to_string(), |refusal| refusal.message.clone());
    let hint = error.is_forbidden().then(|| rights(set, resource, &key.namespace, error, presence));
    Failure { key: key.clone(), place: None, reason, message, hint, class: error.class() }
}

/// A failure about a whole kind: unknown is not empty, so nothing of it is pruned.
pub(crate) fn unlisted(kind: &GroupKind, why: &str, class: ErrorClass) -> Failure {
    Failure {
        key: ObjectKey::new(kind.clone(), "", "*"),
        place: None,
        reason: "PruneFailed",
        message: format!("cannot tell which {kind} are left over: {why}"),
        hint: Some("nothing of this kind is pruned until it can be listed again".into()),
        class,
    }
}

#[cfg(test)]
#[path = "prune_tests.rs"]
pub(crate) mod tests;
