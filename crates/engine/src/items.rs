//! Items of keyed lists that somebody put in the place of ours. A list is keyed by some fields, and
//! a value may have to be unique beside them: the name of a Service's port, which is keyed by its
//! number. An apply that brings our item back leaves the other one in, and is refused for it. So the
//! other one becomes ours first, and goes with the apply, which does not declare it.

use plumb_core::{FieldPath, Step};
use serde_json::{Map, Value};

use crate::applyset::{ApplySet, MANAGER_PREFIX};
use crate::cluster::ApiError;
use crate::engine::Engine;
use crate::handover::{replace_entries, unite};
use crate::live::Live;
use crate::prepare::{Prepared, parse_field};

impl Engine {
    /// Makes items ours that others have put into a list in which the API server found something
    /// twice. Returns whether there was any, so that another apply may succeed.
    pub(crate) async fn take_items(
        &self,
        set: &ApplySet,
        p: &Prepared,
        error: &ApiError,
    ) -> Result<bool, ApiError> {
        let Some(list) = error.duplicate_field().and_then(|field| list_of(&field)) else {
            return Ok(false);
        };
        let target = p.target();
        let Some(found) = self.acting(set).get_metadata(&target).await? else { return Ok(false) };
        if !has(set, &found.live) {
            return Ok(false);
        }
        let Some(entries) = with_items(&found.managed_fields, &list, &set.manager) else {
            return Ok(false);
        };
        let patch = replace_entries(&entries, found.live.resource_version);
        self.acting(set).json_patch(&target, &patch, None).await?;
        Ok(true)
    }
}

/// Whether a set has an object: also when it has just been taken over and bears the label of whoever had
/// it before, and when somebody took the label off.
fn has(set: &ApplySet, live: &Live) -> bool {
    let theirs = live.part_of.as_deref().is_some_and(|owner| owner != set.id);
    let entry = live.entry(&set.manager);
    entry.is_some_and(|entry| !theirs || entry.owns_part_of) && !live.marks.hands_off()
}

/// The list that an item's field is in, as `managedFields` spells it: `[f:spec, f:ports]` for
/// `spec.ports[1].name`. `None` for lists in items of lists, which are named by keys there.
fn list_of(field: &str) -> Option<Vec<String>> {
    let path: FieldPath = parse_field(field);
    let mut list = Vec::new();
    for step in path.steps() {
        match step {
            Step::Key(key) => list.push(format!("f:{key}")),
            Step::Index(_) => return Some(list),
        }
    }
    None
}

/// The entries of `managedFields` with the items that others wrote into a list under our name;
/// `None` when there are none. What others applied is theirs.
fn with_items(managed: &[Value], list: &[String], to: &str) -> Option<Vec<Value>> {
    let mut entries = managed.to_vec();
    let ours = entries.iter().position(|e| e["manager"] == to && e["operation"] == "Apply")?;
    let version = entries[ours]["apiVersion"].clone();
    let mut items = Map::new();
    for entry in &mut entries {
        let foreign = entry["operation"] == "Update"
            && entry["apiVersion"] == version
            && entry["subresource"].as_str().unwrap_or_default().is_empty()
            && !entry["manager"].as_str().unwrap_or_default().starts_with(MANAGER_PREFIX);
        if foreign && let Some(fields) = entry["fieldsV1"].as_object_mut() {
            take(fields, list, &mut items);
        }
    }
    if items.is_empty() {
        return None;
    }
    let mut taken = Value::Object(items);
    for step in list.iter().rev() {
        taken = Value::Object(Map::from_iter([(step.clone(), taken)]));
    }
    unite(&mut entries[ours]["fieldsV1"], &taken);
    let is_left = |entry: &Value| entry["fieldsV1"].as_object().is_none_or(|f| !f.is_empty());
    entries.retain(is_left);
    Some(entries)
}

/// Takes a list's items out of a field set, and the list itself when it holds nothing more.
fn take(fields: &mut Map<String, Value>, list: &[String], items: &mut Map<String, Value>) {
    let Some((step, rest)) = list.split_first() else {
        let keys: Vec<String> =
            fields.keys().filter(|k| k.starts_with("k:") || k.starts_with("v:")).cloned().collect();
        items.extend(keys.into_iter().filter_map(|key| fields.remove_entry(&key)));
        return;
    };
    let Some(below) = fields.get_mut(step).and_then(Value::as_object_mut) else { return };
    let before = below.len();
    take(below, rest, items);
    // Its being there was theirs only because of its items.
    below.retain(|key, _| key != ".");
    if below.is_empty() && before > 0 {
        fields.remove(step);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_that_others_wrote_into_a_list_become_ours() {
        let list = list_of("spec.ports[1].name").unwrap();
        assert_eq!(list, ["f:spec", "f:ports"]);
        assert_eq!(list_of("spec.type"), None);
        let entry = |manager: &str, operation: &str, fields: Value| {
            json!({"manager": manager, "operation": operation, "apiVersion": "v1",
                "fieldsType": "FieldsV1", "fieldsV1": fields})
        };
        let (one, two) = (r#"k:{"port":1}"#, r#"k:{"port":2}"#);
        let ours = |fields| entry("plumb:a/b", "Apply", fields);
        let before = [
            ours(json!({"f:spec": {"f:type": {}}})),
            entry(
                "kubectl-patch",
                "Update",
                json!({"f:spec": {"f:ports": {".": {}, two: {".": {}}}}}),
            ),
            entry("other", "Update", json!({"f:spec": {"f:selector": {}}})),
            entry("applier", "Apply", json!({"f:spec": {"f:ports": {one: {".": {}}}}})),
        ];
        let after = [
            ours(json!({"f:spec": {"f:type": {}, "f:ports": {two: {".": {}}}}})),
            before[2].clone(),
            before[3].clone(),
        ];
        let after_all = with_items(&before, &list, "plumb:a/b").unwrap();
        assert_eq!(after_all[0], after[0]);
        assert!(!after_all.iter().any(|entry| entry.to_string().contains("kubectl-patch")));
        assert!(after[1..].iter().all(|entry| after_all.contains(entry)));
        assert_eq!(with_items(&after, &list, "plumb:a/b"), None);
        assert_eq!(with_items(&before, &list, "plumb:a/c"), None);
    }
}
