//! What objects say about their order: what they come after is applied before them, and deleted
//! after them.

use plumb_testkit::{Requests, runtime, wait_for};
use serde_json::json;

use crate::world::{LIMIT, World, condition, config_map};

const KEY: &str = "config.kubernetes.io/depends-on";

/// A manifest with an annotation that says what it comes after.
fn after(manifest: &str, name: &str, needs: &str) -> String {
    let metadata = format!("  name: {name}\n");
    let more = format!("{metadata}  annotations:\n    {KEY}: {needs}\n");
    manifest.replacen(&metadata, &more, 1)
}

fn account(name: &str) -> String {
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n")
}

fn quota(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata:\n  name: {name}\nspec: {{hard: {{pods: 9}}}}\n"
    )
}

/// Something of the stage of workloads.
fn budget(name: &str) -> String {
    format!(
        "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: {name}\nspec:\n  \
         minAvailable: 1\n  selector: {{matchLabels: {{app: {name}}}}}\n"
    )
}

/// The names of what was written or deleted, in the order in which the API server was asked.
fn names(requests: &Requests, verb: &str) -> Vec<String> {
    let mut asked: Vec<_> = requests
        .iter()
        .filter(|event| event.verb == verb && event.group != "plumb.dev" && event.code < 300)
        .filter(|event| event.group != "events.k8s.io" && event.group != "coordination.k8s.io")
        .collect();
    asked.sort_by(|a, b| a.received.cmp(&b.received));
    asked.iter().map(|event| event.name.clone()).collect()
}

fn position(names: &[String], name: &str) -> usize {
    names.iter().position(|n| n == name).unwrap_or_else(|| panic!("{name} of {names:?}"))
}

/// A ConfigMap after a workload, a chain within a stage, one in another namespace of the same commit:
/// applied in that order, deleted in the reverse one, and what goes slowly keeps what it depends on.
#[test]
fn objects_are_applied_after_what_they_depend_on_and_deleted_before_it() {
    runtime().block_on(async {
        let world = World::new("order").await;
        let there = format!("{}-there", world.ns);
        let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {there}\n");
        // By name and by stage each would come before what it depends on.
        let away = after(&config_map("a-away", "1"), "a-away", "/ServiceAccount/m-account")
            .replacen("  name: a-away\n", &format!("  name: a-away\n  namespace: {there}\n"), 1)
            .replace("/ServiceAccount", &format!("/namespaces/{}/ServiceAccount", world.ns));
        let files = [
            ("app/away.yaml", away),
            ("app/b.yaml", after(&config_map("b", "1"), "b", "policy/PodDisruptionBudget/web")),
            ("app/c.yaml", after(&config_map("c", "1"), "c", "/ConfigMap/d, /ConfigMap/z")),
            ("app/d.yaml", after(&config_map("d", "1"), "d", "/ServiceAccount/m-account")),
            ("app/m.yaml", after(&account("m-account"), "m-account", "/ResourceQuota/q")),
            ("app/q.yaml", quota("q")),
            ("app/web.yaml", budget("web")),
            ("app/z.yaml", config_map("z", "1")),
            ("app/namespace.yaml", namespace),
        ];
        let commit: Vec<_> =
            files.iter().map(|(path, text)| (*path, Some(text.as_str()))).collect();
        let one = world.repo.commit(&commit, "one");
        let audit = world.plane.audit();
        let agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mark = audit.mark();
        let mut app = world.app("web", "app", "1h");
        app["spec"]["pruneGuard"] = json!({"count": 100});
        world.apply(&app).await;
        world.wait_applied("web", &one).await;
        world.plane.settled().await;
        let applied = names(&audit.requests(mark).by(&world.identity.user()), "patch");
        for (first, second) in [
            ("web", "b"),
            ("q", "m-account"),
            ("m-account", "d"),
            ("m-account", "a-away"),
            ("d", "c"),
            ("z", "c"),
            ("z", "web"),
        ] {
            let (before, later) = (position(&applied, first), position(&applied, second));
            assert!(before < later, "{first} before {second}: {applied:?}");
        }

        // Back in the reverse order, also after a restart: the order is read from what is live.
        drop(agent);
        let held = json!({"metadata": {"finalizers": ["example.com/slow"]}});
        world.edit(&world.config_maps(), "c", &held).await;
        let mark = audit.mark();
        let none: Vec<_> = files[..8].iter().map(|(path, _)| (*path, None)).collect();
        let two = world.repo.commit(&none, "two");
        let agent = world.agent();
        world.look().await;
        let parts = ["ConfigMap", "/c, which depends on it", "finalizers"];
        world.wait_refused(&world.apps(), "web", "Progressing", &parts).await;
        let there = async |kind: &str, name: &str| {
            world.api("v1", kind).get_opt(name).await.unwrap().is_some()
        };
        assert!(there("ConfigMap", "d").await && there("ConfigMap", "z").await);
        assert!(there("ServiceAccount", "m-account").await && there("ResourceQuota", "q").await);
        assert!(!there("ConfigMap", "b").await);
        world.edit(&world.config_maps(), "c", &json!({"metadata": {"finalizers": []}})).await;
        world.wait_applied("web", &two).await;
        world.plane.settled().await;
        let deleted = names(&audit.requests(mark).by(&world.identity.user()), "delete");
        for (first, second) in [
            ("b", "web"),
            ("c", "d"),
            ("c", "z"),
            ("d", "m-account"),
            ("a-away", "m-account"),
            ("m-account", "q"),
        ] {
            let (before, later) = (position(&deleted, first), position(&deleted, second));
            assert!(before < later, "{first} before {second}: {deleted:?}");
        }
        drop(agent);
    });
}

/// A circle, or an annotation that cannot be read: the commit is refused as a whole, with every place,
/// before anything is sent.
#[test]
fn a_circle_or_a_wrong_reference_is_told_before_anything_is_sent() {
    runtime().block_on(async {
        let world = World::new("circle").await;
        let commit = |a: &str, b: &str| {
            let (a, b) =
                (after(&config_map("a", "1"), "a", a), after(&config_map("b", "1"), "b", b));
            world.repo.commit(
                &[
                    ("app/a.yaml", Some(a.as_str())),
                    ("app/b.yaml", Some(b.as_str())),
                    ("app/c.yaml", Some(&config_map("c", "1"))),
                ],
                "commit",
            )
        };
        commit("/ConfigMap/b", "/ConfigMap/a");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let parts =
            ["nothing applied", "app/a.yaml:6", "/b (app/b.yaml:6)", "take one of them out"];
        let object = world.wait_refused(&world.apps(), "web", "DependencyCycle", &parts).await;
        assert_eq!(condition(&object, "Stalled")["status"], "True", "{object}");
        commit("/v1/ConfigMap/b", "/ConfigMap/c");
        world.look().await;
        let parts = ["nothing applied", "app/a.yaml:6", "\"/v1/ConfigMap/b\"", "GROUP/KIND/NAME"];
        world.wait_refused(&world.apps(), "web", "InvalidDependency", &parts).await;
        assert_eq!(world.data("c").await, None);
        let good = commit("/ConfigMap/b", "/ConfigMap/c");
        world.look().await;
        world.wait_applied("web", &good).await;
    });
}

/// What depends on an object that is refused is not sent, nor what depends on that, until it is
/// mended. What another application or nobody has not made yet is waited for.
#[test]
fn what_depends_on_a_failure_or_on_nothing_waits_and_says_for_what() {
    runtime().block_on(async {
        let world = World::new("waits").await;
        let commit = |quota_text: &str| {
            let (b, c, d) = (
                after(&config_map("b", "1"), "b", "/ResourceQuota/a"),
                after(&config_map("c", "1"), "c", "/ConfigMap/b"),
                after(&config_map("d", "1"), "d", "/ConfigMap/elsewhere"),
            );
            world.repo.commit(
                &[
                    ("app/a.yaml", Some(quota_text)),
                    ("app/b.yaml", Some(b.as_str())),
                    ("app/c.yaml", Some(c.as_str())),
                    ("app/d.yaml", Some(d.as_str())),
                    ("app/e.yaml", Some(&config_map("e", "1"))),
                ],
                "commit",
            )
        };
        commit(&quota("a").replace("pods: 9", "pods: nonsense"));
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                object["status"]["failureCount"] == 4
            })
            .await;
        let failures = object["status"]["failures"].to_string();
        for said in [
            format!("waits for ResourceQuota {}/a, which could not be applied", world.ns),
            format!("waits for ConfigMap {}/b, which could not be applied", world.ns),
            format!("waits for ConfigMap {}/elsewhere, which is neither", world.ns),
        ] {
            assert!(failures.contains(&said), "{said}: {failures}");
        }
        world.wait_value("e", "1").await;
        for name in ["b", "c", "d"] {
            assert_eq!(world.data(name).await, None, "{name}");
        }
        let mended = commit(&quota("a"));
        world.look().await;
        let parts = ["1 of 5", "app/d.yaml:6", "elsewhere"];
        world.wait_refused(&world.apps(), "web", "WaitsForDependency", &parts).await;
        world.wait_value("c", "1").await;
        world
            .apply(&json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "elsewhere", "namespace": world.ns}}))
            .await;
        world.wait_applied("web", &mended).await;
        world.wait_value("d", "1").await;
    });
}

/// A workload that depends on a definition of the same commit is not sent before that is served.
#[test]
fn what_depends_on_a_definition_waits_until_it_is_served() {
    runtime().block_on(async {
        let world = World::new("served").await;
        let group = format!("{}.example.com", world.ns);
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("tubes.{group}"),
                "annotations": {KEY: format!("/namespaces/{}/ConfigMap/first", world.ns)}},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"kind": "Tube", "plural": "tubes", "singular": "tube", "listKind": "TubeList"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        });
        let tube = json!({"apiVersion": format!("{group}/v1"), "kind": "Tube", "metadata": {"name": "t"}});
        let needs = format!("apiextensions.k8s.io/CustomResourceDefinition/tubes.{group}");
        let one = world.repo.commit(
            &[
                ("app/a.yaml", Some(&after(&config_map("a", "1"), "a", &needs))),
                ("app/definition.json", Some(&definition.to_string())),
                ("app/tube.json", Some(&tube.to_string())),
                ("app/first.yaml", Some(&config_map("first", "1"))),
            ],
            "one",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &one).await;
        let (definition, map) = (format!("tubes.{group}"), world.get(&world.config_maps(), "a").await);
        let definitions =
            world.cluster_api("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let object = wait_for("the definition", LIMIT, async || {
            Ok::<_, String>(world.get(&definitions, &definition).await)
        })
        .await;
        let conditions = object["status"]["conditions"].as_array().unwrap();
        let established = conditions.iter().find(|c| c["type"] == "Established").unwrap();
        let (served, made) =
            (&established["lastTransitionTime"], &map["metadata"]["creationTimestamp"]);
        assert!(served.as_str() <= made.as_str(), "{served} {made}");
        world.get(&world.api(&format!("{group}/v1"), "Tube"), "t").await;
    });
}
