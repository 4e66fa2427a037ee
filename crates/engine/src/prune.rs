//! Deleting members: after a sync, and when the parent itself goes.

use std::collections::{BTreeSet, HashMap};

use futures::{FutureExt as _, StreamExt as _};
use plumb_core::{ErrorClass, GroupKind, ObjectKey};
use serde_json::{Value, json};

use crate::applyset::{APPLICATION, ApplySet, GROUP_KINDS, PART_OF, Scope};
use crate::cluster::{ApiError, Deleted, Propagation, Resource, Target};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::guard::{self, Candidate, Occasion};
use crate::live::Live;
use crate::members::KindState;
use crate::report::{Failure, Report};
use crate::stage::Stage;
use crate::sync::{FORCED, Parent, ends_run, is_ours_to_delete};

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
    /// Deletes the members of these kinds that are not `desired`, if the guard lets it.
    pub(crate) async fn delete_members(
        &self,
        set: &ApplySet,
        kinds: &BTreeSet<GroupKind>,
        desired: &HashMap<ObjectKey, u64>,
        occasion: Occasion,
        approved: Option<&str>,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let discovery = self.discovery().await?;
        let mut found: Vec<(Resource, ObjectKey, Live)> = Vec::new();
        let applied: BTreeSet<Box<str>> = {
            let members = self.members();
            desired.keys().filter_map(|key| Some(members.live(key)?.uid.clone())).collect()
        };
        for kind in kinds {
            let Some(resource) = discovery.preferred(kind) else {
                report.failures.push(unlisted(kind, "the cluster does not have the kind"));
                continue;
            };
            let selector = format!("{PART_OF}={}", set.id);
            match self.cluster.list(resource, &selector, None).await {
                Ok((objects, _)) => {
                    for (key, live) in objects {
                        let wanted = desired.contains_key(&key) || applied.contains(&live.uid);
                        if !wanted && is_ours_to_delete(set, &live) {
                            found.push((resource.clone(), key, live));
                        }
                    }
                }
                Err(source) if ends_run(&source) => {
                    return Err(EngineError::Interrupted { source });
                }
                Err(error) => report.failures.push(unlisted(kind, &error.to_string())),
            }
        }
        let mut candidates = Vec::with_capacity(found.len());
        for (resource, key, live) in &found {
            let precious = match guard::precious_kind(key) {
                Some(why) => Some(why),
                None => self.precious_object(resource, key).await?,
            };
            candidates.push(Candidate { key: key.clone(), uid: live.uid.clone(), precious });
        }
        if let Err(held) = guard::judge(&candidates, occasion, approved) {
            report.held = Some(*held);
            return Ok(());
        }
        for stage in Stage::ALL.into_iter().rev() {
            let mut tries = Vec::new();
            for (resource, key, live) in &found {
                if Stage::of(&key.group_kind) == stage {
                    let one = self.delete_one(set, resource, key, live.clone());
                    tries.push(one.map(move |result| (key, result)).boxed());
                }
            }
            let mut results =
                futures::stream::iter(tries).buffer_unordered(self.options.concurrency);
            let mut interrupted = None;
            while let Some((key, result)) = results.next().await {
                match result {
                    Ok(true) => report.pruned.push(key.clone()),
                    Ok(false) => {}
                    Err(error) if ends_run(&error) => interrupted = Some(error),
                    Err(error) => report.failures.push(Failure {
                        key: key.clone(),
                        place: None,
                        reason: "PruneFailed",
                        message: error.to_string(),
                        hint: None,
                        class: error.class(),
                    }),
                }
            }
            if let Some(source) = interrupted {
                return Err(EngineError::Interrupted { source });
            }
        }
        report.pruned.sort_unstable();
        Ok(())
    }

    /// What only the object itself tells.
    async fn precious_object(
        &self,
        resource: &Resource,
        key: &ObjectKey,
    ) -> Result<Option<&'static str>, EngineError> {
        match (key.group_kind.group.as_str(), key.group_kind.kind.as_str()) {
            ("apps", "StatefulSet") => {
                let target = Target::new(resource, &key.namespace, &key.name);
                let read: Result<Option<Value>, ApiError> = self.cluster.get_json(&target).await;
                let set = read.map_err(|source| EngineError::Interrupted { source })?;
                let policy = set.map(|s| {
                    s["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"].clone()
                });
                Ok((policy == Some(json!("Delete"))).then_some("its volume claims go with it"))
            }
            ("plumb.dev", "Application") => {
                let target = Target::new(resource, &key.namespace, &key.name);
                let read = self.cluster.get_metadata(&target).await;
                let found = read.map_err(|source| EngineError::Interrupted { source })?;
                let kinds = found.and_then(|found| found.annotations.get(GROUP_KINDS).cloned());
                let has_members = kinds.is_some_and(|kinds| !kinds.is_empty());
                Ok(has_members.then_some("the objects that it applied go with it"))
            }
            _ => Ok(None),
        }
    }

    /// Deletes one object as it was listed. Whether it was there to be deleted.
    async fn delete_one(
        &self,
        set: &ApplySet,
        resource: &Resource,
        key: &ObjectKey,
        mut live: Live,
    ) -> Result<bool, ApiError> {
        let target = Target::new(resource, &key.namespace, &key.name);
        let mut race = 0;
        loop {
            match self
                .cluster
                .delete(&target, &live.uid, Some(live.resource_version), Propagation::Background)
                .await
            {
                Ok(Deleted::Terminating) => return Ok(true),
                Ok(Deleted::Gone) => {
                    self.members().gone(key);
                    return Ok(true);
                }
                Ok(Deleted::AlreadyGone) => {
                    self.members().gone(key);
                    return Ok(false);
                }
                // It changed since it was listed. Is it still the object that was to go?
                Err(error) if error.is_conflict() && race < RACES => {
                    race += 1;
                    let Some(found) = self.cluster.get_metadata(&target).await? else {
                        return Ok(false);
                    };
                    if found.live.uid != live.uid || !is_ours_to_delete(set, &found.live) {
                        return Ok(false);
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
        scope: &Scope,
        how: Farewell,
        approved: Option<&str>,
    ) -> Result<Report, EngineError> {
        let mut report = Report { scope: scope.clone(), ..Report::default() };
        let none = HashMap::new();
        if how == Farewell::Orphan {
            self.orphan(set, scope, &mut report).await?;
        } else {
            self.delete_members(
                set,
                &scope.kinds,
                &none,
                Occasion::Deletion,
                approved,
                &mut report,
            )
            .await?;
            if how == Farewell::DeleteAndWait && report.held.is_none() {
                // The index drops what is gone; whatever is left was ours and is on its way.
                let left = self.members().labelled(&set.id);
                let ours = left
                    .into_iter()
                    .filter(|(_, live)| live.entry(&set.manager).is_some() && !live.owned);
                report.terminating = ours.map(|(key, _)| key).collect();
            }
        }
        if report.is_complete() && report.held.is_none() {
            self.members().retain_verified(&set.id, &none);
        }
        Ok(report)
    }

    /// Takes everything of ours off every member, so that a later application of the same name
    /// does not inherit and prune them.
    async fn orphan(
        &self,
        set: &ApplySet,
        scope: &Scope,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let discovery = self.discovery().await?;
        let selector = format!("{PART_OF}={}", set.id);
        for kind in &scope.kinds {
            // A kind that the cluster lacks has no objects; one that cannot be read may have some.
            let Some(resource) = discovery.preferred(kind) else {
                if discovery.is_unknown(&kind.group) {
                    report.failures.push(unlisted(kind, "its API is not available"));
                }
                continue;
            };
            let objects = match self.cluster.list(resource, &selector, None).await {
                Ok((objects, _)) => objects,
                Err(source) if ends_run(&source) => {
                    return Err(EngineError::Interrupted { source });
                }
                Err(error) => {
                    report.failures.push(unlisted(kind, &error.to_string()));
                    continue;
                }
            };
            for (key, _) in objects {
                match self.orphan_one(set, resource, &key).await {
                    Ok(()) => report.left += 1,
                    Err(source) if ends_run(&source) => {
                        return Err(EngineError::Interrupted { source });
                    }
                    Err(error) => report.failures.push(Failure {
                        key,
                        place: None,
                        reason: "OrphanFailed",
                        message: error.to_string(),
                        hint: None,
                        class: error.class(),
                    }),
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
            // Gone, or another object of the same name: the uid did not match.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(source) => Err(EngineError::Parent { parent: set.owner(), source }),
        }
    }

    /// Whether a scope can be trusted to be read in full now.
    pub fn is_synced(&self, scope: &Scope) -> bool {
        let members = self.members();
        scope.kinds.iter().all(|kind| members.kind(kind) == Some(&KindState::Synced))
    }
}

/// A failure about a whole kind: unknown is not empty, so nothing of it is pruned.
fn unlisted(kind: &GroupKind, why: &str) -> Failure {
    Failure {
        key: ObjectKey::new(kind.clone(), "", "*"),
        place: None,
        reason: "PruneFailed",
        message: format!("cannot tell which {kind} are left over: {why}"),
        hint: Some("nothing of this kind is pruned until it can be listed again".into()),
        class: ErrorClass::Retry,
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
