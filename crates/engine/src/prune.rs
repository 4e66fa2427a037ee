//! Deleting members: after a sync, and when the parent itself goes.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{FutureExt as _, StreamExt as _};
use plumb_core::{ErrorClass, GroupKind, ObjectKey};
use serde_json::{Value, json};

use crate::applyset::{APPLICATION, ApplySet, EPOCH, GROUP_KINDS, PART_OF, Scope};
use crate::cluster::{ApiError, Deleted, Propagation, Resource, Target};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::failure::RIGHTS;
use crate::guard::{self, Candidate, Occasion};
use crate::live::Live;
use crate::report::{Failure, Report};
use crate::stage::Stage;
use crate::sync::{FORCED, Parent, check_epoch, ends_run, is_ours_to_delete};

/// Lost races before a deletion is left to the next run.
const RACES: usize = 3;

/// What becomes of the members when their parent goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// They are deleted.
    Delete,
    /// They are deleted, and the parent stays until the last is gone.
    DeleteAndWait,
    /// They stay, without our label, annotation and manager.
    Orphan,
}

impl Engine {
    /// Deletes the members of these kinds that are not `desired`, if the guard lets it. Returns
    /// those that are on their way but not gone yet.
    pub(crate) async fn delete_members(
        &self,
        set: &ApplySet,
        kinds: &BTreeSet<GroupKind>,
        desired: &HashMap<ObjectKey, u64>,
        occasion: Occasion,
        approved: Option<&str>,
        report: &mut Report,
    ) -> Result<Vec<ObjectKey>, EngineError> {
        let mut discovery = self.discovery().await?;
        if kinds.iter().any(|kind| discovery.preferred(kind).is_none()) {
            discovery = self.discovery_again().await?;
        }
        let mut found: Vec<(Resource, ObjectKey, Live)> = Vec::new();
        let mut going = Vec::new();
        let applied: BTreeSet<Box<str>> = {
            let members = self.members();
            desired.keys().filter_map(|key| Some(members.live(key)?.uid.clone())).collect()
        };
        for kind in kinds {
            let Some(resource) = discovery.preferred(kind) else {
                // A kind that the cluster has no more has no objects; one whose API is away may.
                if occasion != Occasion::Deletion || discovery.is_unknown(&kind.group) {
                    let why = "the cluster does not have the kind";
                    report.failures.push(unlisted(kind, why, ErrorClass::Retry));
                }
                continue;
            };
            for (key, live) in self.list_members(set, resource, report).await? {
                if desired.contains_key(&key) || applied.contains(&live.uid) {
                    continue;
                }
                if is_ours_to_delete(set, &live) {
                    found.push((resource.clone(), key, live));
                } else if live.terminating && !live.owned && live.entry(&set.manager).is_some() {
                    going.push(key);
                }
            }
        }
        let mut candidates = Vec::with_capacity(found.len());
        let mut judged = Vec::with_capacity(found.len());
        for (resource, key, live) in found {
            let precious = match guard::precious_kind(&key) {
                Some(why) => Ok(Some(why)),
                None => self.precious_object(&resource, &key).await,
            };
            match precious {
                Ok(precious) => {
                    candidates.push(Candidate {
                        key: key.clone(),
                        uid: live.uid.clone(),
                        precious,
                    });
                    judged.push((resource, key, live));
                }
                Err(source) if ends_run(&source) => {
                    return Err(EngineError::Interrupted { source });
                }
                // What it would take along is not known, so it stays.
                Err(error) => report.failures.push(failed(key, "PruneFailed", &error)),
            }
        }
        if let Err(held) = guard::judge(&candidates, occasion, approved) {
            report.held = Some(*held);
            return Ok(going);
        }
        for stage in Stage::ALL.into_iter().rev() {
            let batch = judged.iter().filter(|(_, key, _)| Stage::of(&key.group_kind) == stage);
            self.delete_stage(set, batch, &mut going, report).await?;
        }
        report.pruned.sort_unstable();
        going.sort_unstable();
        Ok(going)
    }

    /// The live members of one kind. A LIST that fails is told in the report.
    async fn list_members(
        &self,
        set: &ApplySet,
        resource: &Resource,
        report: &mut Report,
    ) -> Result<Vec<(ObjectKey, Live)>, EngineError> {
        let selector = format!("{PART_OF}={}", set.id);
        match self.cluster.list(resource, &selector, None).await {
            Ok((objects, _)) => Ok(objects),
            Err(source) if ends_run(&source) => Err(EngineError::Interrupted { source }),
            Err(error) => {
                if error.is_kind_missing() {
                    self.forget_discovery().await;
                }
                let kind = resource.gvk.group_kind();
                report.failures.push(unlisted(&kind, &error.to_string(), error.class()));
                Ok(Vec::new())
            }
        }
    }

    async fn delete_stage<'b>(
        &self,
        set: &ApplySet,
        batch: impl Iterator<Item = &'b (Resource, ObjectKey, Live)>,
        going: &mut Vec<ObjectKey>,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let ended = AtomicBool::new(false);
        let mut tries = Vec::new();
        for (resource, key, live) in batch {
            let ended = &ended;
            let one = async move {
                if ended.load(Ordering::Relaxed) {
                    return (key, None);
                }
                (key, Some(self.delete_one(set, resource, key, live.clone()).await))
            };
            tries.push(one.boxed());
        }
        let mut results = futures::stream::iter(tries).buffer_unordered(self.options.concurrency);
        let mut interrupted = None;
        while let Some((key, result)) = results.next().await {
            match result {
                None | Some(Ok(Deleted::AlreadyGone)) => {}
                Some(Ok(Deleted::Gone)) => report.pruned.push(key.clone()),
                Some(Ok(Deleted::Terminating)) => {
                    report.pruned.push(key.clone());
                    going.push(key.clone());
                }
                Some(Err(error)) if ends_run(&error) => {
                    ended.store(true, Ordering::Relaxed);
                    interrupted.get_or_insert(error);
                }
                Some(Err(error)) => {
                    report.failures.push(failed(key.clone(), "PruneFailed", &error));
                }
            }
        }
        interrupted.map_or(Ok(()), |source| Err(EngineError::Interrupted { source }))
    }

    /// What only the object itself tells.
    async fn precious_object(
        &self,
        resource: &Resource,
        key: &ObjectKey,
    ) -> Result<Option<&'static str>, ApiError> {
        match (key.group_kind.group.as_str(), key.group_kind.kind.as_str()) {
            ("apps", "StatefulSet") => {
                let target = Target::new(resource, &key.namespace, &key.name);
                let set: Option<Value> = self.cluster.get_json(&target).await?;
                let policy = set.map(|s| {
                    s["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"].clone()
                });
                Ok((policy == Some(json!("Delete"))).then_some("its volume claims go with it"))
            }
            ("plumb.dev", "Application") => {
                let target = Target::new(resource, &key.namespace, &key.name);
                let found = self.cluster.get_metadata(&target).await?;
                let kinds = found.and_then(|found| found.annotations.get(GROUP_KINDS).cloned());
                let has_members = kinds.is_some_and(|kinds| !kinds.is_empty());
                Ok(has_members.then_some("the objects that it applied go with it"))
            }
            _ => Ok(None),
        }
    }

    /// Deletes one object as it was listed, if it still is that object.
    async fn delete_one(
        &self,
        set: &ApplySet,
        resource: &Resource,
        key: &ObjectKey,
        mut live: Live,
    ) -> Result<Deleted, ApiError> {
        let target = Target::new(resource, &key.namespace, &key.name);
        let mut race = 0;
        loop {
            match self
                .cluster
                .delete(&target, &live.uid, Some(live.resource_version), Propagation::Background)
                .await
            {
                Ok(Deleted::Terminating) => return Ok(Deleted::Terminating),
                Ok(gone) => {
                    self.members().gone(key);
                    return Ok(gone);
                }
                // It changed since it was listed. Is it still the object that was to go?
                Err(error) if error.is_conflict() && race < RACES => {
                    race += 1;
                    let Some(found) = self.cluster.get_metadata(&target).await? else {
                        return Ok(Deleted::AlreadyGone);
                    };
                    if found.live.uid == live.uid && found.live.terminating {
                        return Ok(Deleted::Terminating);
                    }
                    if found.live.uid != live.uid || !is_ours_to_delete(set, &found.live) {
                        return Ok(Deleted::AlreadyGone);
                    }
                    live = found.live;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Deals with the members of a parent that is being deleted. When the report is complete and
    /// holds nothing, the parent's facts and finalizer may go.
    pub async fn disband(
        &self,
        set: &ApplySet,
        parent: &Parent,
        how: Farewell,
        approved: Option<&str>,
        epoch: u64,
    ) -> Result<Report, EngineError> {
        let scope = self.last_scope(set, parent, epoch).await?;
        // The end of what is on its way is told by the watches.
        self.watch(&scope.kinds).await?;
        let mut report = Report { scope: scope.clone(), ..Report::default() };
        let none = HashMap::new();
        if how == Farewell::Orphan {
            self.orphan(set, &scope, &mut report).await?;
        } else {
            let (kinds, occasion) = (&scope.kinds, Occasion::Deletion);
            let going =
                self.delete_members(set, kinds, &none, occasion, approved, &mut report).await?;
            if how == Farewell::DeleteAndWait && report.held.is_none() {
                report.terminating = going;
            }
        }
        if report.is_complete() && report.held.is_none() {
            self.members().retain_verified(&set.id, &none);
        }
        Ok(report)
    }

    /// Where members of a parent that goes can be. What the caller last saw may lack what was
    /// written ahead since, and nobody looks again once the parent is gone.
    async fn last_scope(
        &self,
        set: &ApplySet,
        parent: &Parent,
        epoch: u64,
    ) -> Result<Scope, EngineError> {
        let target = Target::new(&parent.resource, &set.namespace, &set.name);
        let read = self.cluster.get_metadata(&target).await;
        let found = read.map_err(|source| EngineError::Parent { parent: set.owner(), source })?;
        let Some(found) = found.filter(|found| *found.live.uid == *parent.uid) else {
            return Err(EngineError::ParentGone { parent: set.owner() });
        };
        let theirs = found.annotations.get(EPOCH).and_then(|text| text.parse().ok());
        check_epoch(theirs, set, epoch)?;
        let hints = Scope::from_annotations(&found.annotations);
        Ok(hints.union(&parent.hints).union(&parent.recorded))
    }

    /// Takes everything of ours off every member, so that a later application of the same name
    /// does not inherit and prune them.
    async fn orphan(
        &self,
        set: &ApplySet,
        scope: &Scope,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let mut discovery = self.discovery().await?;
        if scope.kinds.iter().any(|kind| discovery.preferred(kind).is_none()) {
            discovery = self.discovery_again().await?;
        }
        for kind in &scope.kinds {
            // A kind that the cluster lacks has no objects; one that cannot be read may have some.
            let Some(resource) = discovery.preferred(kind) else {
                if discovery.is_unknown(&kind.group) {
                    let why = "its API is not available";
                    report.failures.push(unlisted(kind, why, ErrorClass::Retry));
                }
                continue;
            };
            for (key, _) in self.list_members(set, resource, report).await? {
                match self.orphan_one(set, resource, &key).await {
                    Ok(()) => report.left += 1,
                    Err(source) if ends_run(&source) => {
                        return Err(EngineError::Interrupted { source });
                    }
                    Err(error) => report.failures.push(failed(key, "OrphanFailed", &error)),
                }
            }
        }
        Ok(())
    }

    async fn orphan_one(
        &self,
        set: &ApplySet,
        resource: &Resource,
        key: &ObjectKey,
    ) -> Result<(), ApiError> {
        let target = Target::new(resource, &key.namespace, &key.name);
        let mut race = 0;
        loop {
            let Some(found) = self.cluster.get_metadata(&target).await? else { return Ok(()) };
            if found.live.part_of.as_deref() != Some(&set.id) {
                return Ok(());
            }
            let patch = orphan_patch(
                set,
                &found.managed_fields,
                &found.annotations,
                found.live.resource_version,
            );
            match self.cluster.json_patch(&target, &patch, None).await {
                Ok(_) => {
                    self.members().gone(key);
                    return Ok(());
                }
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.is_conflict() && race < RACES => race += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes our facts and the finalizer off a parent whose members are dealt with.
    pub async fn release(&self, set: &ApplySet, parent: &Parent) -> Result<(), EngineError> {
        let body = json!({
            "apiVersion": parent.resource.gvk.api_version(),
            "kind": set.parent.kind,
            "metadata": { "name": set.name, "namespace": set.namespace, "uid": parent.uid },
        });
        let target = Target::new(&parent.resource, &set.namespace, &set.name);
        let manager = crate::applyset::PARENT_MANAGER;
        match self.cluster.apply(&target, &body, manager, FORCED).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.is_other_object() => Ok(()),
            // Gone, so that the uid met nothing; or a lost race, and the finalizer is still there.
            Err(error) if error.is_conflict() => match self.cluster.get_metadata(&target).await {
                Ok(Some(found)) if *found.live.uid == *parent.uid => {
                    Err(EngineError::Parent { parent: set.owner(), source: error })
                }
                Ok(_) => Ok(()),
                Err(source) => Err(EngineError::Parent { parent: set.owner(), source }),
            },
            Err(source) => Err(EngineError::Parent { parent: set.owner(), source }),
        }
    }
}

/// A failure about one member that Git has no more.
fn failed(key: ObjectKey, reason: &'static str, error: &ApiError) -> Failure {
    // The refusal's own words: the object is named before them anyway.
    let message =
        error.refusal().map_or_else(|| error.to_string(), |refusal| refusal.message.clone());
    let hint = error.is_forbidden().then(|| RIGHTS.to_owned());
    Failure { key, place: None, reason, message, hint, class: error.class() }
}

/// A failure about a whole kind: unknown is not empty, so nothing of it is pruned.
fn unlisted(kind: &GroupKind, why: &str, class: ErrorClass) -> Failure {
    Failure {
        key: ObjectKey::new(kind.clone(), "", "*"),
        place: None,
        reason: "PruneFailed",
        message: format!("cannot tell which {kind} are left over: {why}"),
        hint: Some("nothing of this kind is pruned until it can be listed again".into()),
        class,
    }
}

/// The JSON patch that takes our label, annotation and manager off, on exactly this version.
fn orphan_patch(
    set: &ApplySet,
    managed_fields: &[Value],
    annotations: &std::collections::BTreeMap<String, String>,
    resource_version: u64,
) -> Value {
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    let rest: Vec<&Value> = managed_fields.iter().filter(|e| e["manager"] != set.manager).collect();
    // An empty list would make the API server drop all tracking; one empty entry does not exist
    // either, so the list is then replaced by the server's own marker for that.
    let rest = if rest.is_empty() { json!([{}]) } else { json!(rest) };
    let mut patch = vec![
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version.to_string()}),
        json!({"op": "replace", "path": "/metadata/managedFields", "value": rest}),
        json!({"op": "remove", "path": format!("/metadata/labels/{}", escape(PART_OF))}),
    ];
    if annotations.contains_key(APPLICATION) {
        let path = format!("/metadata/annotations/{}", escape(APPLICATION));
        patch.push(json!({"op": "remove", "path": path}));
    }
    Value::Array(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_orphan_keeps_what_others_manage() {
        let set = ApplySet::new(GroupKind::new("plumb.dev", "Application"), "ns", "app");
        let managed = [json!({"manager": "plumb:ns/app"}), json!({"manager": "kubectl"})];
        let annotations = BTreeMap::from([(APPLICATION.to_owned(), "ns/app".to_owned())]);
        let patch = orphan_patch(&set, &managed, &annotations, 7);
        assert_eq!(patch[0]["value"], "7");
        assert_eq!(patch[1]["value"], json!([{"manager": "kubectl"}]));
        assert_eq!(patch[2]["path"], "/metadata/labels/applyset.kubernetes.io~1part-of");
        assert_eq!(patch[3]["path"], "/metadata/annotations/plumb.dev~1application");
        let patch = orphan_patch(&set, &managed[..1], &BTreeMap::new(), 7);
        assert_eq!(patch[1]["value"], json!([{}]));
        assert_eq!(patch.as_array().map(Vec::len), Some(3));
    }
}
