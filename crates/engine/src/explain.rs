//! Who changed which field: what `managedFields` says about a drifted object.

use plumb_core::{FieldPath, Step};
use serde_json::Value;

/// One field that is not ours any more although we declare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// The field.
    pub path: FieldPath,
    /// The manager that holds it now; `None` when nobody does, so it was removed.
    pub manager: Option<String>,
    /// When that manager last wrote, as the API server says it (RFC 3339).
    pub time: Option<String>,
}

/// A report names at most this many fields: enough to recognise the change, small in a status.
const MAX_FIELDS: usize = 10;

/// Compares what we declare with who owns it. The schema is not known here, and need not be: a
/// list is a set of keyed items exactly where some manager's entry says so.
pub fn explain(desired: &Value, managed_fields: &[Value], manager: &str) -> Vec<FieldChange> {
    let none = Value::Object(serde_json::Map::new());
    let ours = fields_of(managed_fields, manager).unwrap_or(&none);
    let mut others: Vec<&Value> =
        managed_fields.iter().filter(|entry| entry["manager"] != manager).collect();
    // The latest writer first: it is the one that took the field.
    others.sort_by(|a, b| b["time"].as_str().cmp(&a["time"].as_str()));
    let mut changes: Vec<FieldChange> = Vec::new();
    for other in others {
        let mut taken = Vec::new();
        walk_taken(desired, &other["fieldsV1"], Some(ours), &mut FieldPath::root(), &mut taken);
        for path in taken {
            if !changes.iter().any(|change| change.path == path) {
                changes.push(FieldChange {
                    path,
                    manager: other["manager"].as_str().map(String::from),
                    time: other["time"].as_str().map(String::from),
                });
            }
        }
    }
    let mut removed = Vec::new();
    walk_removed(desired, ours, &mut FieldPath::root(), &mut removed);
    for path in removed {
        let known = |change: &FieldChange| change.path.steps().starts_with(path.steps());
        if !changes.iter().any(known) {
            changes.push(FieldChange { path, manager: None, time: None });
        }
    }
    changes.truncate(MAX_FIELDS);
    changes
}

/// The fields that a manager of ours applied.
pub(crate) fn fields_of<'m>(managed_fields: &'m [Value], manager: &str) -> Option<&'m Value> {
    let ours = managed_fields.iter().find(|e| {
        e["manager"] == manager && e["operation"] == "Apply" && e["subresource"].is_null()
    });
    ours.map(|entry| &entry["fieldsV1"])
}

/// Finds the value in `desired` that one key of a field set stands for.
pub(crate) fn child<'v>(desired: &'v Value, key: &str) -> Option<(Step, &'v Value)> {
    let (kind, rest) = key.split_once(':')?;
    match kind {
        "f" => Some((Step::Key(rest.into()), desired.get(rest)?)),
        "k" => {
            let keys: Value = serde_json::from_str(rest).ok()?;
            let keys = keys.as_object()?;
            let items = desired.as_array()?;
            // A key that the manifest leaves out has a default (a port's protocol).
            let matches = |item: &Value| {
                keys.iter().all(|(k, v)| item.get(k).is_none_or(|w| w == v))
                    && keys.iter().any(|(k, v)| item.get(k) == Some(v))
            };
            let index = items.iter().position(matches)?;
            Some((Step::Index(index), &items[index]))
        }
        "v" => {
            let value: Value = serde_json::from_str(rest).ok()?;
            let index = desired.as_array()?.iter().position(|item| *item == value)?;
            Some((Step::Index(index), &desired[index]))
        }
        _ => None,
    }
}

/// Whether a field set has nothing below, so that what it stands for is owned as a whole.
pub(crate) fn is_leaf(fields: &Value) -> bool {
    fields.as_object().is_none_or(|map| map.keys().all(|key| key == "."))
}

/// Leaves of another manager's set that we declare and do not own.
fn walk_taken(
    desired: &Value,
    theirs: &Value,
    ours: Option<&Value>,
    path: &mut FieldPath,
    out: &mut Vec<FieldPath>,
) {
    for (key, below) in theirs.as_object().into_iter().flatten() {
        let Some((step, value)) = child(desired, key) else { continue };
        let own = ours.and_then(|ours| ours.get(key));
        path.push(step);
        if is_leaf(below) {
            if own.is_none() {
                out.push(path.clone());
            }
        } else {
            walk_taken(value, below, own, path, out);
        }
        path.pop();
    }
}

/// Fields that we declare in a map that our entry goes into, and that the entry does not hold.
fn walk_removed(desired: &Value, ours: &Value, path: &mut FieldPath, out: &mut Vec<FieldPath>) {
    let Some(fields) = ours.as_object() else { return };
    if let Value::Object(map) = desired {
        let is_map = path.steps().is_empty() || fields.keys().any(|key| key.starts_with("f:"));
        for (name, value) in map {
            // Identity and null are never in a field set.
            let top = path.steps().is_empty() && matches!(name.as_str(), "apiVersion" | "kind");
            let meta = *path == FieldPath::keys(["metadata"])
                && matches!(name.as_str(), "name" | "namespace" | "resourceVersion");
            if top || meta || value.is_null() || !is_map {
                continue;
            }
            path.push(Step::Key(name.clone()));
            match fields.get(&format!("f:{name}")) {
                Some(below) if !is_leaf(below) => walk_removed(value, below, path, out),
                Some(_) => {}
                None => out.push(path.clone()),
            }
            path.pop();
        }
    } else {
        for (key, below) in fields {
            if let Some((step, value)) = child(desired, key)
                && !is_leaf(below)
            {
                path.push(step);
                walk_removed(value, below, path, out);
                path.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(manager: &str, operation: &str, time: &str, fields: &Value) -> Value {
        json!({"manager": manager, "operation": operation, "time": time, "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    fn desired() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "ns", "labels": {"app": "web", "tier": "front"}},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [
                {"name": "sidecar", "image": "s:1"},
                {"name": "web", "image": "w:1", "ports": [{"containerPort": 80}]},
            ]}}},
        })
    }

    fn ours() -> Value {
        json!({
            "f:metadata": {"f:labels": {"f:app": {}, "f:tier": {}}},
            "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                r#"k:{"name":"sidecar"}"#: {".": {}, "f:name": {}, "f:image": {}},
                r#"k:{"name":"web"}"#: {".": {}, "f:name": {}, "f:image": {},
                    "f:ports": {r#"k:{"containerPort":80,"protocol":"TCP"}"#: {".": {}, "f:containerPort": {}}}},
            }}}},
        })
    }

    fn lines(managed: &[Value]) -> Vec<String> {
        explain(&desired(), managed, "plumb:a/b")
            .into_iter()
            .map(|c| format!("{} {}", c.path, c.manager.as_deref().unwrap_or("-")))
            .collect()
    }

    #[test]
    fn nothing_changed() {
        let helper = json!({"f:metadata": {"f:annotations": {"f:x": {}}}, "f:status": {}});
        let managed = [
            entry("plumb:a/b", "Apply", "2026-01-01T00:00:00Z", &ours()),
            entry("kube-controller-manager", "Update", "2026-01-02T00:00:00Z", &helper),
        ];
        assert_eq!(lines(&managed), [] as [&str; 0]);
    }

    #[test]
    fn names_the_latest_manager_of_each_field() {
        let mut left = ours();
        left["f:spec"].as_object_mut().unwrap().remove("f:replicas");
        let containers = &mut left["f:spec"]["f:template"]["f:spec"]["f:containers"];
        containers[r#"k:{"name":"web"}"#].as_object_mut().unwrap().remove("f:image");
        let edit = json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
            r#"k:{"name":"web"}"#: {"f:image": {}}}}}}});
        let scale = json!({"f:spec": {"f:replicas": {}}});
        let managed = [
            entry("plumb:a/b", "Apply", "2026-01-01T00:00:00Z", &left),
            entry("kubectl-edit", "Update", "2026-01-02T00:00:00Z", &edit),
            entry("scaler", "Update", "2026-01-03T00:00:00Z", &scale),
        ];
        assert_eq!(
            lines(&managed),
            ["spec.replicas scaler", "spec.template.spec.containers[1].image kubectl-edit"]
        );
    }

    #[test]
    fn a_removed_field_has_no_manager() {
        let mut left = ours();
        left["f:metadata"]["f:labels"].as_object_mut().unwrap().remove("f:tier");
        let containers =
            left["f:spec"]["f:template"]["f:spec"]["f:containers"].as_object_mut().unwrap();
        containers[r#"k:{"name":"web"}"#].as_object_mut().unwrap().remove("f:ports");
        let managed = [entry("plumb:a/b", "Apply", "2026-01-01T00:00:00Z", &left)];
        assert_eq!(
            lines(&managed),
            ["metadata.labels.tier -", "spec.template.spec.containers[1].ports -"]
        );
    }

    #[test]
    fn our_entry_may_be_gone_as_a_whole() {
        let edit = json!({"f:spec": {"f:replicas": {}}});
        let got = lines(&[entry("kubectl-replace", "Update", "2026-01-02T00:00:00Z", &edit)]);
        assert_eq!(got, ["spec.replicas kubectl-replace", "metadata -"]);
    }
}
