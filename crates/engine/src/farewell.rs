//! What becomes of the members when their parent goes.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::FutureExt as _;
use plumb_core::{ErrorClass, Gvk, ObjectKey};
use serde_json::{Value, json};

use crate::applyset::{APPLICATION, ApplySet, PART_OF, Scope};
use crate::cluster::{ApiError, Resource, Target};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::guard::Occasion;
use crate::live::Live;
use crate::prune::{Member, unlisted};
use crate::report::Report;
use crate::share::Slice;
use crate::sync::{Job, RACES};

/// What becomes of the members when their parent goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// They are deleted.
    Delete,
    /// They are deleted, and the parent stays until the last is gone.
    DeleteAndWait,
    /// They stay, without our label, annotation and manager.
    Orphan,
    /// They stay as they are.
    Leave,
}

impl Engine {
    /// Deals with the members of a parent that is being deleted. When the report is complete and
    /// holds nothing, the parent's facts and finalizer may go. An error means that it had to end
    /// before all was tried; then the report, like that of a call that is dropped, says what was
    /// done until there.
    pub async fn disband(&self, job: &Job<'_>, report: &mut Report) -> Result<(), EngineError> {
        let mut result = self.end(job, report).await;
        let nobody = matches!(
            result,
            Err(EngineError::NoAccount { .. } | EngineError::AccountMissing { .. })
        );
        if nobody && job.policy.farewell == Farewell::Orphan {
            // Its objects stay anyway, and there is nobody left to take our label off.
            tracing::info!(set = %job.set.owner(), "nobody is left to act for it: no object is touched");
            *report = Report { scope: report.scope.clone(), ..Report::default() };
            self.members().retain_verified(&job.set.id, &HashMap::new());
            result = Ok(());
        }
        self.note_account(job.set, &result);
        result
    }

    async fn end(&self, job: &Job<'_>, report: &mut Report) -> Result<(), EngineError> {
        let _counts = self.under_way();
        let (set, farewell) = (job.set, job.policy.farewell);
        let scope = self.last_scope(set, &job.parent, job.epoch).await?;
        report.scope = scope.clone();
        let none = HashMap::new();
        if farewell == Farewell::Leave {
            self.members().retain_verified(&set.id, &none);
            return Ok(());
        }
        self.check_account(set)?;
        // What it had is free for those who want it.
        let freed = self.claims().publish(set, job.policy.adopt, HashSet::new(), true);
        self.freed(set, &freed);
        if job.others.any_silent() {
            report.waits = true;
            return Ok(());
        }
        // The end of what is on its way is told by the watches.
        self.watch(&scope.kinds).await?;
        self.take_back(job, report).await?;
        let members = self.members().applied(&set.id, &set.manager);
        if !self.ask_strangers(set, members.iter().map(|(key, _)| key)).await? {
            report.waits = true;
            return Ok(());
        }
        let slice = self.slice();
        let result = self.part(job, &scope, &slice, report).await;
        self.end_turn(&set.id, report, result.is_err());
        result?;
        if report.is_complete() && report.held.is_none() {
            self.members().retain_verified(&set.id, &none);
        }
        Ok(())
    }

    /// Deals with members until others have their turn.
    async fn part(
        &self,
        job: &Job<'_>,
        scope: &Scope,
        slice: &Slice,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let (set, farewell) = (job.set, job.policy.farewell);
        if farewell == Farewell::Orphan {
            self.orphan(job, scope, slice, report).await?;
        } else {
            let occasion = Occasion::Deletion { with_namespace: self.namespace_goes(set).await? };
            let wanted = (&HashMap::new(), occasion);
            let left = self.delete_members(job, &scope.kinds, wanted, slice, report).await?;
            if report.held.is_none() && !report.superseded && report.undeleted == 0 {
                // Under the label of a parent that is no more nobody could ever take them.
                self.let_go(job, &left.kept, slice, report).await.1?;
            }
            if farewell == Farewell::DeleteAndWait && report.held.is_none() {
                report.terminating = left.going;
            }
        }
        self.hand_over(job, slice, report).await
    }

    /// Whether the parent goes because its namespace does.
    async fn namespace_goes(&self, set: &ApplySet) -> Result<bool, EngineError> {
        let namespaces = Resource::known(Gvk::new("v1", "Namespace"), "namespaces", false);
        let read = self.cluster.get_metadata(&Target::new(&namespaces, "", &set.namespace)).await;
        let found =
            read.map_err(|source| EngineError::Namespace { name: set.namespace.clone(), source })?;
        Ok(found.is_none_or(|found| found.live.terminating))
    }

    /// Leaves to others what they want. Whoever has not taken it in time, or only by half, finds it free.
    async fn hand_over(
        &self,
        job: &Job<'_>,
        slice: &Slice,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let (set, patient) = (job.set, job.others.is_patient());
        let mut half_taken = self.members().half_taken(&set.id, &set.manager);
        half_taken.retain(|(key, _)| self.claims().others_want(&set.id, key));
        if patient {
            report.handed_over = half_taken.len();
            report.waits |= !half_taken.is_empty();
        } else {
            self.take_all_back(job, half_taken, report).await?;
        }
        let members = self.members().applied(&set.id, &set.manager);
        let wanted = |(key, _): &(ObjectKey, Live)| self.claims().others_want(&set.id, key);
        let wanted: Vec<_> = members.into_iter().filter(wanted).collect();
        report.handed_over += wanted.len();
        // What a mark keeps all off nobody takes, however long that is waited for.
        let (now, later): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|(_, live)| !patient || live.marks.hands_off());
        report.waits |= !later.is_empty();
        if now.is_empty() {
            return Ok(());
        }
        let discovery = self.discovery().await?;
        let now = now.into_iter().filter_map(|(key, live)| {
            let resource = discovery.preferred(&key.group_kind)?.clone();
            Some(Member { resource, key, live, after: None })
        });
        self.let_go(job, &now.collect::<Vec<_>>(), slice, report).await.1
    }

    /// Takes everything of ours off every member that no other set wants, so that a later
    /// application of the same name does not inherit and prune them.
    async fn orphan(
        &self,
        job: &Job<'_>,
        scope: &Scope,
        slice: &Slice,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let set = job.set;
        let discovery = self.discovery_of(&scope.kinds).await?;
        let mut members: Vec<Member> = Vec::new();
        for kind in &scope.kinds {
            // A kind that the cluster lacks has no objects; one that cannot be read may have some.
            let Some(resource) = discovery.preferred(kind) else {
                if !self.is_gone(kind, &discovery).await {
                    let why = "its API is not available";
                    report.failures.push(unlisted(kind, why, ErrorClass::Retry));
                }
                continue;
            };
            let listed = self.list_members(job, resource, report).await?.into_iter();
            let theirs = listed
                // What bears our label but was never applied by us is a copy, and not ours to change.
                .filter(|member| member.live.entry(&set.manager).is_some())
                .filter(|member| !self.claims().others_want(&set.id, &member.key));
            members.extend(theirs);
        }
        let (done, result) = self.let_go(job, &members, slice, report).await;
        report.left += done;
        result
    }

    /// Takes everything of ours off these members, in turns, and says off how many.
    async fn let_go(
        &self,
        job: &Job<'_>,
        members: &[Member],
        slice: &Slice,
        report: &mut Report,
    ) -> (usize, Result<(), EngineError>) {
        let (set, members) = (job.set, members.iter().enumerate());
        let turn = (job, slice, "OrphanFailed");
        let (done, result) = self
            .take_turn(turn, members, |m| self.orphan_one(set, &m.resource, &m.key).boxed(), report)
            .await;
        (done.len(), result)
    }

    pub(crate) async fn orphan_one(
        &self,
        set: &ApplySet,
        resource: &Resource,
        key: &ObjectKey,
    ) -> Result<(), ApiError> {
        let target = Target::new(resource, &key.namespace, &key.name);
        let mut race = 0;
        loop {
            let Some(found) = self.acting(set).get_metadata(&target).await? else { return Ok(()) };
            if found.live.part_of.as_deref() != Some(&set.id) {
                return Ok(());
            }
            let patch = orphan_patch(
                set,
                &found.managed_fields,
                &found.annotations,
                found.live.resource_version,
            );
            match self.acting(set).json_patch(&target, &patch, None).await {
                Ok(_) => {
                    // Whoever wants it looks first.
                    self.claims().note_marked(key, found.live.marks.hands_off());
                    self.members().gone(key, &found.live.uid);
                    return Ok(());
                }
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.is_conflict() && race < RACES => race += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// The JSON patch that takes our label, annotation and manager off, on exactly this version.
fn orphan_patch(
    set: &ApplySet,
    managed_fields: &[Value],
    annotations: &BTreeMap<String, String>,
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
    use plumb_core::GroupKind;

    use super::*;
    use crate::cluster::script::{Says, Script};
    use crate::prune::tests::{Others, in_slices, member, with_job};

    /// What others want, or is not ours to delete, can be as much as what is deleted.
    #[tokio::test]
    async fn what_is_let_go_at_the_end_goes_in_turns_too() {
        let maps = Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true);
        with_job(async |job| {
            let found = json!({"kind": "PartialObjectMetadata", "metadata": {
                "name": "a", "namespace": "ns", "uid": "a", "resourceVersion": "5",
                "labels": {PART_OF: job.set.id}, "managedFields": [{"manager": job.set.manager}],
            }});
            let found = || Says::ok(found.to_string());
            let script = Script::new([found(), found(), found(), found()]);
            let engine = in_slices(&script, 2);
            let members = ["a", "b", "c", "d", "e"].map(|name| Member {
                resource: maps.clone(),
                key: maps.key("ns", name),
                live: member(job.set, name),
                after: None,
            });
            let mut report = Report::default();
            let (done, result) = engine.let_go(job, &members, &engine.slice(), &mut report).await;
            result.unwrap();
            assert_eq!((done, report.undeleted, report.failures.len()), (2, 3, 0));
            assert!(!report.is_complete());
        })
        .await;
    }

    /// The other one is refused its half, and wants it no more one day: nobody would find it then.
    #[tokio::test]
    async fn what_is_taken_by_half_keeps_the_end_of_its_owner_waiting_and_is_let_go_then() {
        let maps = Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true);
        let key = maps.key("ns", "a");
        for patient in [true, false] {
            with_job(async |job| {
                let taker = ApplySet::new(GroupKind::new("plumb.dev", "Application"), "ns", "new");
                let found = |manager: &str| {
                    let entry = json!({
                        "manager": manager, "operation": "Apply", "apiVersion": "v1",
                        "time": "2024-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                        "fieldsV1": {"f:metadata": {"f:labels": {format!("f:{PART_OF}"): {}}}},
                    });
                    let object = json!({"kind": "PartialObjectMetadata", "metadata": {
                        "name": "a", "namespace": "ns", "uid": "a", "resourceVersion": "6",
                        "labels": {PART_OF: job.set.id}, "managedFields": [entry],
                    }});
                    Says::ok(object.to_string())
                };
                let [theirs, ours] = [&taker.manager, &job.set.manager];
                let script = Script::new([found(theirs), found(ours), found(ours), found(ours)]);
                let engine = in_slices(&script, usize::MAX);
                let discovery = crate::cluster::Discovery::of([maps.clone()]);
                *engine.discovery.lock().await =
                    Some((discovery.into(), tokio::time::Instant::now()));
                let mut live = member(job.set, "a");
                live.entries[0].manager = theirs.as_str().into();
                engine.members().expect(&key.group_kind);
                engine.members().changed(key.clone(), live);
                let keys = HashSet::from([key.clone()]);
                let adopt = crate::policy::Adopt::IfUnowned;
                engine.claims().publish(&taker, adopt, keys, true);
                let job = Job {
                    parent: job.parent.clone(),
                    objects: Vec::new(),
                    approved: None,
                    others: &Others { patient },
                    ..*job
                };
                let mut report = Report::default();
                engine.hand_over(&job, &engine.slice(), &mut report).await.unwrap();
                assert_eq!((report.handed_over, report.waits), (1, patient));
                let asked = script.asked();
                assert_eq!(asked.len(), if patient { 0 } else { 4 }, "{asked:?}");
                if !patient {
                    assert!(report.is_complete(), "{report:?}");
                    assert!(asked[1].body.contains(ours), "it is taken back");
                    let lets_go = format!("/metadata/labels/{}", PART_OF.replace('/', "~1"));
                    assert!(asked[3].body.contains(&lets_go), "{}", asked[3].body);
                    assert!(engine.members().live(&key).is_none());
                }
            })
            .await;
        }
    }

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
