use super::*;
use serde_json::json;

pub(super) fn app(generation: i64, annotations: &serde_json::Value) -> Application {
    serde_json::from_value(json!({
        "apiVersion": "plumb.dev/v1alpha1", "kind": "Application",
        "metadata": {"name": "web", "namespace": "ns", "uid": "u", "generation": generation,
            "annotations": annotations},
        "spec": {"sourceRef": {"name": "repo"}, "interval": "1h"},
    }))
    .unwrap()
}

#[test]
fn only_what_asks_for_work_causes_it() {
    let mut store = Store::default();
    let key = vec![Key::App(Name::new("ns", "web"))];
    assert_eq!(store.put_app(app(1, &json!({}))), key, "new");
    assert_eq!(store.put_app(app(1, &json!({}))), [], "the same again");
    let ours = json!({names::APPLYSET_GROUP_KINDS: "ConfigMap"});
    assert_eq!(store.put_app(app(1, &ours)), [], "our own facts");
    assert_eq!(store.put_app(app(2, &json!({}))), key, "another spec");
    let asked = json!({names::REQUESTED_AT: "now"});
    assert_eq!(store.put_app(app(2, &asked)), key, "asked for");
    assert_eq!(store.put_app(app(2, &asked)), [], "asked for before");
    assert_eq!(store.put_app(app(2, &json!({}))), [], "the request taken off");
    let approved = json!({names::APPROVE_PRUNE: "sha256:1"});
    assert_eq!(store.put_app(app(2, &approved)), key, "approved");
}

#[test]
fn what_is_settled_is_settled_for_one_application() {
    let kinds = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut status = plumb_api::ApplicationStatus::default();
    assert!(settled_kinds(&status, Some("u")).is_empty());
    assert!(settled_kinds(&status, None).is_empty());
    let scope = plumb_api::Scope {
        group_kinds: kinds(&["ConfigMap", "Deployment.apps"]),
        ..Default::default()
    };
    status.scope = Some(scope.clone());
    assert!(settled_kinds(&status, Some("u")).is_empty(), "never found out");
    assert!(settled_kinds(&status, None).is_empty());
    let settled_for = Some("u".to_owned());
    let unsettled_kinds = kinds(&["ConfigMap"]);
    status.scope = Some(plumb_api::Scope { settled_for, unsettled_kinds, ..scope });
    let deployments = GroupKind::new("apps", "Deployment");
    assert_eq!(settled_kinds(&status, Some("u")), BTreeSet::from([deployments]));
    assert!(settled_kinds(&status, Some("other")).is_empty(), "restored from a backup");
}

pub(super) fn source(name: &str, url: &str) -> GitRepository {
    serde_json::from_value(json!({
        "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
        "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1},
        "spec": {"url": url, "interval": "1m"},
    }))
    .unwrap()
}

#[test]
fn a_source_that_was_made_again_begins_anew() {
    let mut store = Store::default();
    let name = Name::new("ns", "repo");
    store.put_source(source("repo", "https://git.example/a"));
    store.put_app(app(1, &json!({})));
    store.sources.get_mut(&name).unwrap().revision =
        Some(Revision { name: "main".into(), commit: "1".repeat(40).parse().unwrap() });
    assert_eq!(store.put_source(source("repo", "https://git.example/a")), []);
    assert!(store.sources[&name].revision.is_some());
    let mut again = source("repo", "https://git.example/b");
    again.metadata.uid = Some("another".into());
    let keys = store.put_source(again);
    assert_eq!(keys, [Key::Source(name.clone()), Key::App(Name::new("ns", "web"))]);
    assert_eq!(store.sources[&name].revision, None);
}

#[test]
fn one_look_at_the_kinds_does_for_all_who_asked_before_it() {
    let mut store = Store::default();
    let asked = |value: &str| {
        let mut object = app(1, &json!({}));
        let annotations = [(names::REQUESTED_AT.to_owned(), value.to_owned())];
        object.metadata.annotations = Some(annotations.into());
        object
    };
    let named = |name: &str, mut object: Application| {
        object.metadata.name = Some(name.into());
        object
    };
    let name = |name: &str| Name::new("ns", name);
    for each in ["a", "b", "c"] {
        store.put_app(named(each, asked("0")));
    }
    assert!(store.kinds_are_due(&name("a")), "nobody has looked for it yet");
    assert!(!store.kinds_are_due(&name("b")));
    store.put_app(named("a", asked("1")));
    store.put_app(named("b", asked("1")));
    assert!(!store.kinds_are_due(&name("c")), "it did not ask again");
    assert!(store.kinds_are_due(&name("b")));
    assert!(!store.kinds_are_due(&name("a")));
    assert!(!store.kinds_are_due(&name("none")));
}

#[test]
fn commits_of_status_are_kept() {
    let mut store = Store::default();
    let mut object = app(1, &json!({}));
    let (a, b) = ("a".repeat(40), "b".repeat(40));
    object.spec.revision = Some(b.clone());
    object.status = Some(Box::new(plumb_api::ApplicationStatus {
        last_applied_revision: Some(format!("main@sha1:{a}")),
        ..Default::default()
    }));
    store.put_app(object);
    let kept = store.commits_to_keep(&Name::new("ns", "repo"));
    assert_eq!(kept, BTreeSet::from([a, b]));
    assert!(store.commits_to_keep(&Name::new("ns", "other")).is_empty());
}
