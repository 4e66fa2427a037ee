use super::*;
use crate::cluster::script::{Says, Script};
use crate::engine::EngineOptions;
use crate::live::Entry;
use crate::marks::Marks;
use plumb_core::Gvk;

fn applications() -> Resource {
    Resource::known(Gvk::new("plumb.dev/v1alpha1", "Application"), "applications", true)
}

fn engine(script: &Script) -> Engine {
    let options = EngineOptions { concurrency: 1, ..EngineOptions::default() };
    Engine::new(script.cluster(), options).0
}

/// An object as its set applied it.
fn member(set: &ApplySet, uid: &str) -> Live {
    Live {
        uid: uid.into(),
        resource_version: 5,
        generation: 1,
        terminating: false,
        owners: 0,
        marks: Marks::default(),
        scaled: false,
        part_of: Some(set.id.as_str().into()),
        entries: vec![Entry {
            manager: set.manager.as_str().into(),
            fields: 7,
            time: 100,
            owns_part_of: true,
            owners: 0,
        }],
        others: 3,
        others_time: 0,
    }
}

#[tokio::test]
async fn an_inner_application_is_precious_while_it_has_members_whatever_its_annotations_say() {
    let bare = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"inner","namespace":"ns",
        "uid":"u","resourceVersion":"5"}}"#;
    let script = Script::new([Says::ok(bare), Says::ok(bare)]);
    let engine = engine(&script);
    let applications = applications();
    let inner = applications.key("ns", "inner");
    let precious = engine.precious_object(&applications, &inner).await.unwrap();
    assert_eq!(precious, None);

    let set = ApplySet::new(inner.group_kind.clone(), "ns", "inner");
    let key = ObjectKey::new(GroupKind::new("", "ConfigMap"), "ns", "a");
    engine.members().changed(key, member(&set, "u1"));
    let precious = engine.precious_object(&applications, &inner).await.unwrap();
    assert!(precious.is_some());
}

#[tokio::test]
async fn a_kind_that_cannot_be_listed_is_unknown_and_not_empty() {
    let script = Script::new([Says::Status(403, None, String::new())]);
    let engine = engine(&script);
    let applications = applications();
    let set = ApplySet::new(applications.gvk.group_kind(), "ns", "app");
    let mut report = Report::default();
    let listed = engine.list_members(&set, &applications, &mut report).await.unwrap();
    assert!(listed.is_empty() && !report.is_complete());
    assert_eq!(report.failures[0].reason, "PruneFailed");
}
