//! Handing an object over from one field manager to another, so that what only the first declared
//! goes with the next apply of the second.

use std::collections::BTreeSet;

use plumb_core::ObjectKey;
use serde_json::{Map, Value, json};

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, Metadata, Resource, Target};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::live::Live;
use crate::marks::Ssa;
use crate::members::taker;
use crate::policy::Adopt;
use crate::prepare::Prepared;
use crate::prune::failure_of;
use crate::report::Report;
use crate::sync::{Job, RACES};

/// How `kubectl apply`, `create` and `replace` call themselves, and what the API server calls
/// whoever wrote an object before it was first applied. One-off edits have other names and stay
/// those of who made them.
const KUBECTL: [&str; 5] = [
    "kubectl-client-side-apply",
    "before-first-apply",
    "kubectl",
    "kubectl-create",
    "kubectl-replace",
];

/// How tools that keep objects in place call themselves.
const TOOLS: [&str; 5] = [
    "helm",
    "helm-controller",
    "kustomize-controller",
    "argocd-controller",
    "argocd-application-controller",
];

impl Engine {
    /// Takes an object over from a set that lets it go. Returns nothing when that set did not have it.
    pub(crate) async fn take_over(
        &self,
        set: &ApplySet,
        target: &Target<'_>,
        found: &Metadata,
        from: &str,
    ) -> Result<Option<Live>, ApiError> {
        let Some(entries) = renamed(&found.managed_fields, from, &set.manager) else {
            return Ok(None);
        };
        let patch = replace_entries(&entries, found.live.resource_version);
        self.acting(set).json_patch(target, &patch, None).await.map(Some)
    }

    /// What another set began to take over from this one and wants no more: a newer commit came, or a
    /// kill, between the two halves. Nobody else would ever find it.
    pub(crate) fn left_half_taken(&self, set: &ApplySet) -> Vec<(ObjectKey, String)> {
        let mut taken = self.members().half_taken(&set.id, &set.manager);
        taken.retain(|(key, _)| !self.claims().others_want(&set.id, key));
        taken
    }

    /// Takes back what another set left half taken, so that it is one of the set's own again: what is
    /// to become of it is then decided as of all others. Returns what is left as it is, since that one
    /// may want it yet.
    pub(crate) async fn take_back(
        &self,
        job: &Job<'_>,
        report: &mut Report,
    ) -> Result<BTreeSet<ObjectKey>, EngineError> {
        let set = job.set;
        let taken = self.left_half_taken(set);
        if taken.is_empty() || job.policy.observe {
            return Ok(BTreeSet::new());
        }
        if job.others.any_silent() {
            report.waits = true;
            return Ok(taken.into_iter().map(|(key, _)| key).collect());
        }
        self.take_all_back(job, taken, report).await?;
        Ok(BTreeSet::new())
    }

    /// Takes back what others left half taken: each object from this manager.
    pub(crate) async fn take_all_back(
        &self,
        job: &Job<'_>,
        taken: Vec<(ObjectKey, String)>,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        if taken.is_empty() {
            return Ok(());
        }
        let set = job.set;
        let discovery = self.discovery().await?;
        for (key, taker) in taken {
            let Some(resource) = discovery.preferred(&key.group_kind) else { continue };
            match self.take_back_one(set, resource, &key, &taker).await {
                Ok(()) => {}
                Err(source) if self.ends(job, &source).await => {
                    return Err(EngineError::Interrupted { source });
                }
                Err(error) => {
                    if let Some(error) = self.disowned(set, &error, report).await {
                        return Err(error);
                    }
                    let of = (resource, &key);
                    let failure = failure_of(set, of, "OwnedByAnother", &error, report.account);
                    report.failures.push(failure);
                }
            }
        }
        Ok(())
    }

    async fn take_back_one(
        &self,
        set: &ApplySet,
        resource: &Resource,
        key: &ObjectKey,
        taker: &str,
    ) -> Result<(), ApiError> {
        let target = Target::new(resource, &key.namespace, &key.name);
        let mut race = 0;
        loop {
            let Some(found) = self.acting(set).get_metadata(&target).await? else { return Ok(()) };
            if found.live.part_of.as_deref() != Some(&set.id) {
                return Ok(());
            }
            match self.take_over(set, &target, &found, taker).await {
                Ok(Some(live)) => {
                    self.members().answered(key.clone(), live);
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.is_conflict() && race < RACES => race += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes over what those have applied who will not apply again. Returns nothing when there is no
    /// such thing.
    pub(crate) async fn migrate(
        &self,
        set: &ApplySet,
        p: &Prepared,
        found: &Metadata,
        adopt: Adopt,
    ) -> Result<Option<Live>, ApiError> {
        if p.marks.ssa == Ssa::Merge {
            return Ok(None);
        }
        let gone = |manager: &str| is_migrated(manager, adopt);
        let version = p.resource.gvk.api_version();
        let Some(entries) = migrated(&found.managed_fields, gone, &set.manager, &version) else {
            return Ok(None);
        };
        let target = p.target();
        let patch = replace_entries(&entries, found.live.resource_version);
        self.acting(set).json_patch(&target, &patch, None).await.map(Some)
    }

    /// The fields of an object that are the set's own once it has it: what it has applied, and what is to be
    /// taken over from those who will not apply again. `None` when there is no such thing.
    pub(crate) fn heritage(
        &self,
        set: &ApplySet,
        p: &Prepared,
        found: &Metadata,
        adopt: Adopt,
    ) -> Option<Value> {
        let owner = found.live.part_of.as_deref();
        let from = match owner {
            Some(owner) if owner == set.id => {
                taker(&found.live, &set.manager).map(ToOwned::to_owned)
            }
            Some(owner) => self.claims().lets_go(owner, &p.key),
            None => None,
        };
        let merges = p.marks.ssa == Ssa::Merge;
        let mut fields = None;
        for entry in &found.managed_fields {
            let manager = entry["manager"].as_str().unwrap_or_default();
            let applies = entry["operation"] == "Apply";
            let ours = applies && (manager == set.manager || from.as_deref() == Some(manager));
            let of_object = entry["subresource"].as_str().unwrap_or_default().is_empty();
            if of_object && (ours || !merges && is_migrated(manager, adopt)) {
                unite(fields.get_or_insert(Value::Null), &entry["fieldsV1"]);
            }
        }
        fields
    }

    /// Whether the set that a member belongs to is known to want it no more: it is about to go.
    pub fn is_let_go(&self, key: &ObjectKey) -> bool {
        let owner = self.members().live(key).and_then(|live| live.part_of.clone());
        owner.is_some_and(|owner| self.claims().lets_go(&owner, key).is_some())
    }

    /// Tells the sets that an object concerns which one of them has just let go.
    pub(crate) fn freed(&self, set: &ApplySet, keys: &[ObjectKey]) {
        let mut sets = BTreeSet::new();
        for key in keys {
            sets.extend(self.claims().wanting(key));
            let part_of = self.members().live(key).and_then(|live| live.part_of.clone());
            sets.extend(part_of);
        }
        sets.remove(&*set.id);
        self.tell_freed(sets);
    }
}

/// Whether what a manager has applied becomes ours with the object.
fn is_migrated(manager: &str, adopt: Adopt) -> bool {
    KUBECTL.contains(&manager) || adopt == Adopt::Always && TOOLS.contains(&manager)
}

/// The entries of `managedFields` with those of one manager's applies under the name of another;
/// `None` when there are none. Where both have applied, the fields of both are the second's, unless
/// they speak of different versions of the kind, which cannot be compared.
fn renamed(managed: &[Value], from: &str, to: &str) -> Option<Vec<Value>> {
    let applied_by = |entry: &Value, manager: &str| {
        entry["manager"] == manager
            && entry["operation"] == "Apply"
            && entry["subresource"].as_str().unwrap_or_default().is_empty()
    };
    let theirs = managed.iter().find(|entry| applied_by(entry, from))?;
    let mut entries: Vec<Value> =
        managed.iter().filter(|entry| !applied_by(entry, from)).cloned().collect();
    if let Some(ours) = entries.iter_mut().find(|entry| applied_by(entry, to)) {
        if ours["apiVersion"] == theirs["apiVersion"] {
            unite(&mut ours["fieldsV1"], &theirs["fieldsV1"]);
        }
    } else {
        let mut entry = theirs.clone();
        entry["manager"] = to.into();
        entries.push(entry);
    }
    Some(entries)
}

/// The entries of `managedFields` with those of some managers joined into our own; `None` when there
/// are none. What speaks of another version of the kind cannot be compared and stays.
fn migrated(
    managed: &[Value],
    gone: impl Fn(&str) -> bool,
    to: &str,
    api_version: &str,
) -> Option<Vec<Value>> {
    let of_object = |entry: &Value| {
        entry["apiVersion"] == api_version
            && entry["subresource"].as_str().unwrap_or_default().is_empty()
    };
    let (theirs, mut rest): (Vec<&Value>, Vec<&Value>) = managed
        .iter()
        .partition(|entry| of_object(entry) && entry["manager"].as_str().is_some_and(&gone));
    let mut entry = (*theirs.first()?).clone();
    let ours = |entry: &&Value| entry["manager"] == to && entry["operation"] == "Apply";
    match rest.iter().position(ours) {
        Some(at) if of_object(rest[at]) => entry = rest.remove(at).clone(),
        // Ours is of another version.
        Some(_) => return None,
        None => {
            entry["manager"] = to.into();
            entry["operation"] = "Apply".into();
        }
    }
    for other in theirs {
        unite(&mut entry["fieldsV1"], &other["fieldsV1"]);
    }
    Some(rest.into_iter().cloned().chain([entry]).collect())
}

/// Adds the paths of one field set to another.
pub(crate) fn unite(into: &mut Value, more: &Value) {
    let Value::Object(more) = more else { return };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    if let Value::Object(into) = into {
        for (step, below) in more {
            unite(into.entry(step.clone()).or_insert_with(|| json!({})), below);
        }
    }
}

/// The JSON patch that replaces `managedFields`, on exactly this version.
pub(crate) fn replace_entries(entries: &[Value], resource_version: u64) -> Value {
    json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version.to_string()},
        {"op": "replace", "path": "/metadata/managedFields", "value": entries},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, version: &str, fields: &Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": version,
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn an_entry_changes_its_name_or_joins_the_one_of_that_name() {
        let (a, b) = (json!({"f:data": {"f:a": {}}}), json!({"f:data": {"f:b": {}}}));
        let both = json!({"f:data": {"f:a": {}, "f:b": {}}});
        let other = entry("kubectl", "Update", "v1", &a);
        let one = entry("plumb:one", "Apply", "v1", &a);
        let as_two = entry("plumb:two", "Apply", "v1", &a);
        assert_eq!(
            renamed(&[other.clone(), one.clone()], "plumb:one", "plumb:two"),
            Some(vec![other.clone(), as_two])
        );
        let two = entry("plumb:two", "Apply", "v1", &b);
        assert_eq!(
            renamed(&[two.clone(), one.clone()], "plumb:one", "plumb:two"),
            Some(vec![entry("plumb:two", "Apply", "v1", &both)])
        );
        // What speaks of another version is given up, and comes back with the next apply.
        let older = entry("plumb:one", "Apply", "v1beta1", &a);
        assert_eq!(renamed(&[two.clone(), older], "plumb:one", "plumb:two"), Some(vec![two]));
        assert_eq!(renamed(&[other], "plumb:one", "plumb:two"), None);
        let update = entry("plumb:one", "Update", "v1", &a);
        assert_eq!(renamed(&[update], "plumb:one", "plumb:two"), None, "not an apply");
        let mut status = one;
        status["subresource"] = "status".into();
        assert_eq!(renamed(&[status], "plumb:one", "plumb:two"), None, "not of the object");
    }

    #[test]
    fn what_kubectl_applied_becomes_ours_and_edits_stay_theirs() {
        let (a, b) = (json!({"f:data": {"f:a": {}}}), json!({"f:data": {"f:b": {}}}));
        let both = json!({"f:data": {"f:a": {}, "f:b": {}}});
        let gone = |manager: &str| KUBECTL.contains(&manager);
        let migrated = |managed: &[Value]| migrated(managed, gone, "plumb:one", "v1");
        let edit = entry("kubectl-edit", "Update", "v1", &a);
        let applied = entry("kubectl-client-side-apply", "Update", "v1", &a);
        let created = entry("kubectl-create", "Update", "v1", &b);
        let ours = entry("plumb:one", "Apply", "v1", &b);
        let whole = entry("plumb:one", "Apply", "v1", &both);
        for managed in [[&edit, &applied, &ours], [&edit, &applied, &created]] {
            let managed: Vec<_> = managed.into_iter().cloned().collect();
            assert_eq!(migrated(&managed), Some(vec![edit.clone(), whole.clone()]));
        }
        assert_eq!(migrated(&[edit.clone(), ours]), None);
        let older = entry("kubectl-client-side-apply", "Update", "v1beta1", &a);
        assert_eq!(migrated(&[older]), None, "of another version");
        let older = entry("plumb:one", "Apply", "v1beta1", &a);
        assert_eq!(migrated(&[older, applied]), None, "ours is of another version");
        let mut status = created;
        status["subresource"] = "status".into();
        assert_eq!(migrated(&[status]), None);
    }
}
