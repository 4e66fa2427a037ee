//! The kinds of objects that applications have, and what their manifests say.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plumb_testkit::Kind;
use serde_json::{Value, json};

/// Says how often an object was changed in Git. Hands change it too.
pub(super) const VALUE: &str = "example.com/value";
/// Says which commit wrote the manifest.
pub(super) const STAMP: &str = "example.com/commit";
/// What hands add, and nobody may take away.
pub(super) const THEIRS: &str = "example.com/theirs";

const fn kind(api_version: &'static str, name: &'static str, plural: &'static str) -> Kind {
    Kind { api_version, name, plural }
}

pub(super) const CONFIG_MAP: Kind = kind("v1", "ConfigMap", "configmaps");
const SECRET: Kind = kind("v1", "Secret", "secrets");
const SERVICE: Kind = kind("v1", "Service", "services");
const ACCOUNT: Kind = kind("v1", "ServiceAccount", "serviceaccounts");
const DEPLOYMENT: Kind = kind("apps/v1", "Deployment", "deployments");
const ROLE: Kind = kind("rbac.authorization.k8s.io/v1", "Role", "roles");
const INGRESS: Kind = kind("networking.k8s.io/v1", "Ingress", "ingresses");
/// A kind of a definition of our own.
const WIDGET: Kind = kind("torture.example.com/v1", "Widget", "widgets");
/// What is deleted only after a person agreed.
pub(super) const CLAIM: Kind = kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims");

/// All of them. Claims come last, and are drawn seldom.
pub(super) const KINDS: [Kind; 9] =
    [CONFIG_MAP, SECRET, SERVICE, ACCOUNT, DEPLOYMENT, ROLE, INGRESS, WIDGET, CLAIM];

/// Our own kinds.
pub(super) const APPLICATION: Kind = kind("plumb.dev/v1alpha1", "Application", "applications");
pub(super) const REPOSITORY: Kind = kind("plumb.dev/v1alpha1", "GitRepository", "gitrepositories");

/// What makes an object itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// As statuses name objects: `Deployment.apps web/api`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.kind.group().is_empty() { "" } else { "." };
        let (kind, group) = (self.kind.name, self.kind.group());
        write!(f, "{kind}{dot}{group} {}/{}", self.namespace, self.name)
    }
}

/// An object as Git has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) key: Key,
    /// Everything in the body follows from it.
    pub(super) value: u32,
    /// The commit that wrote the manifest.
    pub(super) stamp: u32,
}

impl Object {
    /// The manifest.
    pub(super) fn manifest(&self) -> Value {
        let mut object = self.wanted();
        if self.key.kind == SECRET && self.value.is_multiple_of(2) {
            object["stringData"] = json!({ "value": self.text() });
            object.as_object_mut().and_then(|object| object.remove("data"));
        }
        object
    }

    /// What a live object must have.
    pub(super) fn wanted(&self) -> Value {
        let mut object = self.body();
        object["apiVersion"] = self.key.kind.api_version.into();
        object["kind"] = self.key.kind.name.into();
        object["metadata"] = json!({
            "name": self.key.name,
            "namespace": self.key.namespace,
            "annotations": { VALUE: self.text(), STAMP: self.stamp.to_string() },
        });
        object
    }

    fn text(&self) -> String {
        format!("v{}", self.value)
    }

    fn body(&self) -> Value {
        let (name, value, text) = (&self.key.name, self.value, self.text());
        match self.key.kind {
            // Every third has a second entry, so that entries come and go.
            CONFIG_MAP if value.is_multiple_of(3) => {
                json!({ "data": { "value": text, "third": "yes" } })
            }
            CONFIG_MAP => json!({ "data": { "value": text } }),
            SECRET => json!({ "data": { "value": STANDARD.encode(text) } }),
            SERVICE => json!({
                "spec": {
                    "selector": { "app": text },
                    "ports": [{ "name": "web", "port": 1000 + value % 1000 }],
                },
            }),
            ACCOUNT => json!({ "automountServiceAccountToken": value.is_multiple_of(2) }),
            DEPLOYMENT => json!({
                "spec": {
                    "replicas": 0,
                    "selector": { "matchLabels": { "app": name } },
                    "template": {
                        "metadata": { "labels": { "app": name } },
                        "spec": { "containers": [{ "name": "main", "image": format!("example.com/main:{text}") }] },
                    },
                },
            }),
            ROLE => json!({
                "rules": [{
                    "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [text],
                    "verbs": ["get"],
                }],
            }),
            INGRESS => json!({
                "spec": {
                    "rules": [{
                        "host": format!("{text}.example.com"),
                        "http": {
                            "paths": [{
                                "path": "/", "pathType": "Prefix",
                                "backend": { "service": { "name": name, "port": { "number": 80 } } },
                            }],
                        },
                    }],
                },
            }),
            WIDGET => json!({ "spec": { "size": value, "note": text } }),
            // Hardly anything of a claim may change; its annotations do.
            _ => json!({
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": { "requests": { "storage": "1Gi" } },
                },
            }),
        }
    }

    /// A merge patch by which a hand changes fields that we apply.
    pub(super) fn foreign_edit(&self, deep: bool) -> Value {
        let other = Object { value: self.value + 500, ..self.clone() };
        let mut patch = if deep { other.body() } else { json!({}) };
        match self.key.kind {
            CLAIM => patch = json!({}),
            // An entry that is added would be the hand's own, and stay.
            CONFIG_MAP if deep => patch = json!({ "data": { "value": patch["data"]["value"] } }),
            _ => {}
        }
        patch["metadata"] = json!({ "annotations": { VALUE: "by hand" } });
        patch
    }
}

/// Where a live object differs from what is wanted of it: a wanted field that it lacks, or an entry
/// of `data` that is too much.
pub(super) fn difference(wanted: &Value, live: &Value) -> Option<String> {
    missing(wanted, live, "").or_else(|| {
        let data = live["data"].as_object()?;
        let extra = data.keys().find(|key| wanted["data"].get(*key).is_none())?;
        Some(format!("data.{extra} is too much"))
    })
}

fn missing(wanted: &Value, live: &Value, at: &str) -> Option<String> {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().find_map(|(key, value)| {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            missing(value, live.get(key).unwrap_or(&Value::Null), &at)
        }),
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            let both = wanted.iter().zip(live).enumerate();
            both.map(|(index, (wanted, live))| missing(wanted, live, &format!("{at}[{index}]")))
                .find_map(|found| found)
        }
        _ if wanted == live => None,
        // Contents of Secrets are made up here, and may be shown.
        _ => Some(format!("{at} is {live} instead of {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: Kind, value: u32) -> Object {
        let key = Key { kind, namespace: "ns".into(), name: "a".into() };
        Object { key, value, stamp: 7 }
    }

    #[test]
    fn every_change_of_the_value_is_seen_in_a_live_object() {
        for kind in KINDS {
            let (before, after) = (object(kind, 3), object(kind, 4));
            assert_eq!(difference(&before.wanted(), &before.wanted()), None);
            assert_ne!(difference(&after.wanted(), &before.wanted()), None, "{}", kind.name);
        }
        let (third, plain) = (object(CONFIG_MAP, 3), object(CONFIG_MAP, 1));
        let mut live = third.wanted();
        live["data"]["value"] = "v1".into();
        live["metadata"] = plain.wanted()["metadata"].clone();
        let found = difference(&plain.wanted(), &live);
        assert_eq!(found.as_deref(), Some("data.third is too much"));
    }

    #[test]
    fn what_a_server_adds_is_no_difference() {
        let service = object(SERVICE, 5);
        let mut live = service.wanted();
        live["spec"]["ports"][0]["protocol"] = "TCP".into();
        live["spec"]["clusterIP"] = "10.0.0.1".into();
        live["metadata"]["annotations"][THEIRS] = "x".into();
        assert_eq!(difference(&service.wanted(), &live), None);
        live["spec"]["ports"] = json!([]);
        let found = difference(&service.wanted(), &live).unwrap();
        assert!(found.starts_with("spec.ports is [] instead of"), "{found}");
    }

    #[test]
    fn a_hand_changes_what_we_apply() {
        for kind in KINDS {
            for deep in [false, true] {
                let object = object(kind, 8);
                let patch = object.foreign_edit(deep);
                assert_eq!(patch["metadata"]["annotations"][VALUE], "by hand");
                if deep && kind != CLAIM {
                    let mut body = patch.clone();
                    body.as_object_mut().unwrap().remove("metadata");
                    assert_ne!(missing(&object.wanted(), &patch, ""), None, "{}", kind.name);
                    assert!(!body.as_object().unwrap().is_empty());
                }
            }
        }
    }

    #[test]
    fn objects_are_named_as_statuses_name_them() {
        assert_eq!(object(DEPLOYMENT, 1).key.to_string(), "Deployment.apps ns/a");
        assert_eq!(object(CONFIG_MAP, 1).key.to_string(), "ConfigMap ns/a");
    }

    #[test]
    fn secrets_come_as_text_and_as_bytes() {
        assert!(object(SECRET, 2).manifest().get("data").is_none());
        assert_eq!(object(SECRET, 2).manifest()["stringData"]["value"], "v2");
        assert_eq!(object(SECRET, 1).manifest()["data"]["value"], "djE=");
    }
}
