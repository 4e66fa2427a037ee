use std::sync::Arc;

use plumb_core::{FieldPlaces, Gvk, Place, RelPath};
use serde_json::{Value, json};

use super::*;
use crate::cluster::script::{Says, Script};
use crate::cluster::{Discovery, Resource};
use crate::engine::EngineOptions;
use crate::ignore::Ignores;
use crate::prepare::prepare;

fn set() -> ApplySet {
    ApplySet::new(GroupKind::new("plumb.dev", "Application"), "apps", "web")
}

/// Objects in files named by their numbers, with the annotation at line 9, and what the cluster has.
fn prepared(bodies: Vec<Value>) -> Preparation {
    let discovery = Discovery::of([
        Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true),
        Resource::known(Gvk::new("v1", "Namespace"), "namespaces", false),
        Resource::known(Gvk::new("apps/v1", "Deployment"), "deployments", true),
        Resource::known(
            Gvk::new("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            "customresourcedefinitions",
            false,
        ),
    ]);
    let objects = bodies.into_iter().enumerate().map(|(number, body)| {
        let file = Arc::new(RelPath::parse(&format!("{number}.yaml")).unwrap());
        let place = Place { file, document: 0, line: 1, column: 1 };
        let Value::Object(body) = body else { unreachable!("an object") };
        let files = Arc::from([Arc::clone(&place.file)]);
        let fields = FieldPlaces::collect(files, [(depends_on().hash(), 0, 9, 5)]);
        Object::new(body, place, fields).unwrap()
    });
    prepare(objects.collect(), &set(), &discovery, &Ignores::default())
}

fn object(kind: (&str, &str), name: &str, after: &str) -> Value {
    let mut body = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"name": name}});
    if !after.is_empty() {
        body["metadata"]["annotations"] = json!({DEPENDS_ON: after});
    }
    body
}

const MAP: (&str, &str) = ("v1", "ConfigMap");
const NAMESPACE: (&str, &str) = ("v1", "Namespace");
const DEPLOYMENT: (&str, &str) = ("apps/v1", "Deployment");

#[test]
fn an_annotation_names_objects_as_they_are_going_to_be() {
    let result = prepared(vec![
        object(MAP, "a", "/ConfigMap/b, /Namespace/n,/namespaces/n/ConfigMap/c, /ConfigMap/b"),
        object(NAMESPACE, "n", "/ConfigMap/b, new.example.com/Tube/t"),
    ]);
    assert_eq!(result.refusals, []);
    let after = |number: usize| {
        let after: Vec<_> = result.objects[number].after.iter().map(ToString::to_string).collect();
        after.join(", ")
    };
    assert_eq!(after(0), "ConfigMap apps/b, Namespace n, ConfigMap n/c");
    assert_eq!(after(1), "ConfigMap apps/b, Tube.new.example.com t");
    // Like any other field it counts for what is desired.
    let other = prepared(vec![object(MAP, "a", "/ConfigMap/b")]);
    assert_ne!(result.objects[0].digest, other.objects[0].digest);
}

#[test]
fn what_an_annotation_gets_wrong_is_told_where_it_stands_and_nothing_is_sent() {
    for (text, said) in [
        ("apps/v1/Deployment/web", "\"apps/v1/Deployment/web\" has neither three nor five parts"),
        ("/ConfigMap/b,", "\"\" names nothing"),
        (
            "/namespaces/shop/Namespace/n",
            "\"/namespaces/shop/Namespace/n\" names a namespace, and a Namespace is in none",
        ),
    ] {
        let result = prepared(vec![object(MAP, "a", text), object(MAP, "b", "")]);
        let [refusal] = &result.refusals[..] else { panic!("{text}: {:?}", result.refusals) };
        assert_eq!(refusal.reason, "InvalidDependency");
        assert!(refusal.message.ends_with(said), "{}", refusal.message);
        assert_eq!(refusal.place.as_ref().unwrap().to_string(), "0.yaml:9");
        assert!(refusal.hint.as_ref().unwrap().contains("GROUP/KIND/NAME"));
    }
}

#[test]
fn objects_that_wait_for_each_other_are_named_with_their_places() {
    let result = prepared(vec![
        object(MAP, "a", "/ConfigMap/b"),
        object(MAP, "b", "apps/Deployment/c"),
        object(DEPLOYMENT, "c", "/ConfigMap/a"),
        object(MAP, "d", "/ConfigMap/a"),
        object(MAP, "e", "/ConfigMap/e"),
    ]);
    let [circle, alone] = &result.refusals[..] else { panic!("{:?}", result.refusals) };
    assert_eq!((circle.reason, alone.reason), ("DependencyCycle", "DependencyCycle"));
    let all = "ConfigMap apps/a (0.yaml:9), ConfigMap apps/b (1.yaml:9), Deployment.apps apps/c \
               (2.yaml:9)";
    assert!(circle.message.ends_with(all), "{}", circle.message);
    assert_eq!(circle.place.as_ref().unwrap().to_string(), "0.yaml:9");
    assert_eq!(alone.message, "ConfigMap apps/e waits for itself");

    // Nothing can be in a namespace before that is there.
    let mut inside = object(MAP, "a", "");
    inside["metadata"]["namespace"] = json!("n");
    let result = prepared(vec![object(NAMESPACE, "n", "/namespaces/n/ConfigMap/a"), inside]);
    let said = &result.refusals[0].message;
    assert!(said.ends_with("Namespace n (0.yaml:9), ConfigMap n/a (1.yaml:1)"), "{said}");
}

#[test]
fn what_is_in_a_namespace_that_waits_waits_too() {
    use Stage::{Foundations as F, Workloads as W};
    let mut inside = object(MAP, "inside", "");
    inside["metadata"]["namespace"] = json!("n");
    let result = prepared(vec![
        inside,
        object(NAMESPACE, "n", "apps/Deployment/web"),
        object(DEPLOYMENT, "web", ""),
        object(MAP, "other", ""),
    ]);
    let levels: Vec<Level> = result.objects.iter().map(|p| p.level).collect();
    assert_eq!(levels, [(W, 2), (W, 1), (W, 0), (F, 0)]);
}

/// What failed keeps back what comes after it, in the words and the class of the first; what merely
/// has to wait is told elsewhere.
#[tokio::test]
async fn nothing_is_sent_before_what_it_comes_after_is_there() {
    let there = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"t","namespace":"apps",
        "uid":"u","resourceVersion":"5"}}"#;
    let kinds = json!({"kind": "APIGroupDiscoveryList", "items": []}).to_string();
    let core = json!({"kind": "APIGroupDiscoveryList", "items": [{
        "metadata": {"name": ""},
        "versions": [{"version": "v1", "freshness": "Current", "resources": [{
            "resource": "configmaps", "responseKind": {"group": "", "version": "", "kind": "ConfigMap"},
            "scope": "Namespaced", "verbs": ["get", "list", "patch"],
        }]}],
    }]})
    .to_string();
    let script = Script::new([
        Says::ok(core),
        Says::ok(kinds),
        Says::ok(there),
        Says::Status(404, None, gone("nowhere")),
        Says::ok(
            there.replace("\"uid\"", "\"deletionTimestamp\":\"2026-11-22T21:58:12Z\",\"uid\""),
        ),
    ]);
    let engine = Engine::new(script.cluster(), EngineOptions::default()).0;
    let after = |name: &str| object(MAP, "x", &format!("/ConfigMap/{name}"));
    let mut bodies: Vec<Value> =
        vec![object(MAP, "bad", ""), object(MAP, "late", ""), object(MAP, "good", "")];
    let names = ["bad", "late", "good", "there", "nowhere", "nowhere", "going"];
    for (number, name) in names.iter().enumerate() {
        let mut body = after(name);
        body["metadata"]["name"] = json!(format!("x{number}"));
        bodies.push(body);
    }
    let result = prepared(bodies);
    let mut report = Report::default();
    let mut missing = Missing::new(&result.objects, &report);
    missing.note(&result.objects[0], Some(ErrorClass::WaitForUser));
    missing.note(&result.objects[1], None);
    let mut sent = Vec::new();
    for (p, name) in result.objects[3..].iter().zip(names) {
        if engine.has_its_turn(&set(), p, &mut missing, &mut report).await.unwrap() {
            sent.push(name);
        }
    }
    assert_eq!(sent, ["good", "there"]);
    let told: Vec<_> = report.failures.iter().map(|f| (f.message.as_str(), f.class)).collect();
    let nowhere = "waits for ConfigMap apps/nowhere, which is neither in this application nor in the \
                   cluster";
    assert_eq!(
        told,
        [
            ("waits for ConfigMap apps/bad, which could not be applied", ErrorClass::WaitForUser),
            (nowhere, ErrorClass::Retry),
            (nowhere, ErrorClass::Retry),
            ("waits for ConfigMap apps/going, which is being deleted", ErrorClass::Retry),
        ]
    );
    assert!(script.is_done(), "each is asked for once");
}

#[tokio::test]
async fn what_depends_on_a_definition_of_this_run_waits_until_it_is_served() {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "tubes.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "versions": [],
            "names": {"kind": "Tube", "plural": "tubes"}},
    });
    let needs = "apiextensions.k8s.io/CustomResourceDefinition/tubes.example.com";
    let result = prepared(vec![definition, object(MAP, "a", needs)]);
    let engine = Engine::new(Script::new([]).cluster(), EngineOptions::default()).0;
    let mut report = Report::default();
    let mut missing = Missing::new(&result.objects, &report);
    let p = &result.objects[1];
    assert!(engine.has_its_turn(&set(), p, &mut missing, &mut report).await.unwrap());
    assert_eq!(report.again, None);
    engine.defining().changed(GroupKind::new("example.com", "Tube"));
    assert!(!engine.has_its_turn(&set(), p, &mut missing, &mut report).await.unwrap());
    assert!(report.again.is_some() && report.failures.is_empty(), "another run comes for it");
}

fn gone(name: &str) -> String {
    json!({"kind": "Status", "reason": "NotFound", "code": 404,
        "details": {"name": name, "kind": "configmaps"}})
    .to_string()
}
