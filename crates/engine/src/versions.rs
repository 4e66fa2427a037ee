//! Versions of a kind that are served no more. What a manager wrote in one stands in `managedFields`
//! with that version, and the API server, which cannot convert it, refuses every further apply of the
//! object. So what is ours, and what others hold in it, is written down for the version that is applied.

use plumb_core::GroupKind;
use serde_json::Value;

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, Discovery};
use crate::engine::Engine;
use crate::handover::{replace_entries, unite};
use crate::prepare::Prepared;

impl Engine {
    /// Writes the entries of an object of ours down for a version that is served, where one that is not
    /// kept it from being applied. Returns whether there was any.
    pub(crate) async fn leave_version(
        &self,
        set: &ApplySet,
        p: &Prepared,
        error: &ApiError,
    ) -> Result<bool, ApiError> {
        if !error.is_version_gone() {
            return Ok(false);
        }
        self.forget_discovery().await;
        let Ok(discovery) = self.discovery().await else { return Ok(false) };
        let target = p.target();
        let Some(found) = self.acting(set).get_metadata(&target).await? else { return Ok(false) };
        if found.live.part_of.as_deref() != Some(&set.id)
            || found.live.entry(&set.manager).is_none()
        {
            return Ok(false);
        }
        let served = served_as(&discovery, &p.key.group_kind);
        let to = p.resource.gvk.api_version();
        let Some(entries) = in_version(&found.managed_fields, &served, &to) else {
            return Ok(false);
        };
        let patch = replace_entries(&entries, found.live.resource_version);
        self.acting(set).json_patch(&target, &patch, None).await?;
        Ok(true)
    }
}

/// What stands as `apiVersion` in objects of a kind.
pub(crate) fn served_as(discovery: &Discovery, kind: &GroupKind) -> Vec<String> {
    let versions = discovery.by_group_kind(kind).iter();
    versions.map(|resource| resource.gvk.api_version()).collect()
}

/// The entries of `managedFields` with those of versions that are not served in another; `None` when
/// there are none.
fn in_version(managed: &[Value], served: &[String], to: &str) -> Option<Vec<Value>> {
    let stays = |entry: &Value| {
        entry["apiVersion"].as_str().is_some_and(|version| served.iter().any(|v| v == version))
    };
    let mut entries: Vec<Value> = managed.iter().filter(|entry| stays(entry)).cloned().collect();
    if entries.len() == managed.len() {
        return None;
    }
    for old in managed.iter().filter(|entry| !stays(entry)) {
        let mut old = old.clone();
        old["apiVersion"] = to.into();
        let same = |entry: &&mut Value| {
            ["manager", "operation", "apiVersion", "subresource"]
                .iter()
                .all(|key| entry[*key] == old[*key])
        };
        match entries.iter_mut().find(same) {
            Some(entry) => unite(&mut entry["fieldsV1"], &old["fieldsV1"]),
            None => entries.push(old),
        }
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_of_versions_that_are_not_served_are_brought_up() {
        let entry = |manager: &str, version: &str, field: &str| {
            json!({"manager": manager, "operation": "Apply", "apiVersion": version,
                "fieldsV1": {"f:spec": {field: {}}}})
        };
        let served = ["g/v1".to_owned(), "g/v2".to_owned()];
        let current = [entry("a", "g/v1", "f:x"), entry("b", "g/v2", "f:y")];
        assert_eq!(in_version(&current, &served, "g/v2"), None);
        let old =
            [entry("a", "g/v1beta1", "f:x"), entry("a", "g/v2", "f:y"), entry("b", "g/v0", "f:z")];
        let mut both = entry("a", "g/v2", "f:y");
        both["fieldsV1"]["f:spec"]["f:x"] = json!({});
        assert_eq!(in_version(&old, &served, "g/v2"), Some(vec![both, entry("b", "g/v2", "f:z")]));
    }
}
