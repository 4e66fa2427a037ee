//! Whose an object is, and whose its fields are.

use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, PostParams};
use plumb_testkit::{runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

const PART_OF: &str = "applyset.kubernetes.io/part-of";

/// Creates an object as a person would.
async fn create(api: &Api<DynamicObject>, object: &Value) -> Value {
    let object = serde_json::from_value(object.clone()).unwrap();
    serde_json::to_value(api.create(&PostParams::default(), &object).await.unwrap()).unwrap()
}

fn live_config_map(world: &World, name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": world.ns}, "data": data,
    })
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.map(|entry| entry["manager"].as_str().unwrap().to_owned()).collect()
}

/// A person applied these objects with kubectl before.
#[test]
fn what_was_there_before_is_adopted_when_equal_and_left_alone_when_not() {
    runtime().block_on(async {
        let world = World::new("adopt").await;
        let manifests =
            format!("{}---\n{}", config_map("same", "1"), config_map("other", "theirs"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), manifests).unwrap();
        let path = file.path().to_str().unwrap();
        let output = world.plane.kubectl(["-n", &world.ns, "apply", "-f", path]);
        assert!(output.status.success(), "{output:?}");
        let before = world.get(&world.config_maps(), "other").await;

        world.repo.commit(
            &[
                ("app/same.yaml", Some(&config_map("same", "1"))),
                ("app/other.yaml", Some(&config_map("other", "ours"))),
                ("app/new.yaml", Some(&config_map("new", "1"))),
            ],
            "three",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let parts = [
            "app/other.yaml:6",
            "exists already",
            "kubectl-client-side-apply",
            "data.value",
            "delete the live object",
        ];
        world.wait_refused(&world.apps(), "web", "FieldConflict", &parts).await;
        world.wait_value("new", "1").await;
        assert_eq!(world.get(&world.config_maps(), "other").await, before);

        // The equal one is ours now and enforced.
        let manager = format!("plumb:{}/web", world.ns);
        let same = world.get(&world.config_maps(), "same").await;
        assert!(same["metadata"]["labels"][PART_OF].is_string());
        assert!(managers(&same).contains(&manager), "{same}");
        world.edit(&world.config_maps(), "same", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("same", "1").await;

        // The message's own cure.
        world.delete(&world.config_maps(), "other").await;
        world.wait_value("other", "ours").await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
    });
}

#[test]
fn a_label_that_is_taken_off_comes_back() {
    runtime().block_on(async {
        let world = World::new("label").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let before = world.get(&world.config_maps(), "a").await;
        let edit = json!({"metadata": {"labels": {PART_OF: null}}, "data": {"value": "by hand"}});
        world.edit(&world.config_maps(), "a", &edit).await;
        world.wait_value("a", "1").await;
        let after = world.get(&world.config_maps(), "a").await;
        assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
        assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"]);
        world.wait_event("web", &["DriftCorrected", "had lost its label"]).await;

        // It is followed as before.
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "again"}})).await;
        world.wait_value("a", "1").await;
        world.wait_event("web", &["DriftCorrected", "data.value", "by-hand"]).await;
    });
}

#[test]
fn what_another_application_has_taken_is_not_fought_over() {
    runtime().block_on(async {
        let world = World::new("taken").await;
        let same = config_map("shared", "1");
        world.repo.commit(&[("one/a.yaml", Some(&same)), ("two/a.yaml", Some(&same))], "both");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("one", "one", "1h")).await;
        world.wait_condition(&world.apps(), "one", ("Ready", "True"), |_| true).await;

        // Somebody hands it over while its application is suspended.
        world.edit(&world.apps(), "one", &json!({"spec": {"suspend": true}})).await;
        probe.suspended("one").await;
        let edit = json!({"metadata": {
            "labels": {PART_OF: null}, "annotations": {"plumb.dev/application": null},
        }});
        world.edit(&world.config_maps(), "shared", &edit).await;
        world.apply(&world.app("two", "two", "1h")).await;
        world.wait_condition(&world.apps(), "two", ("Ready", "True"), |_| true).await;
        probe.idle(0).await;
        let taken = world.get(&world.config_maps(), "shared").await;

        world.edit(&world.apps(), "one", &json!({"spec": {"suspend": false}})).await;
        let other = format!("application {}/two", world.ns);
        world.wait_refused(&world.apps(), "one", "OwnedByAnother", &[&other]).await;
        assert_eq!(world.get(&world.config_maps(), "shared").await, taken);
        let second = world.get(&world.apps(), "two").await;
        assert_eq!(condition(&second, "Ready")["status"], "True", "{second}");
    });
}

#[test]
fn what_others_labelled_for_an_application_is_not_let_go_with_it() {
    runtime().block_on(async {
        let world = World::new("forged").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        app["spec"]["deletionPolicy"] = "Orphan".into();
        world.apply(&app).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let mut copy = live_config_map(&world, "copy", &json!({"value": "mine"}));
        copy["metadata"]["labels"] =
            world.get(&world.config_maps(), "a").await["metadata"]["labels"].clone();
        let made = create(&world.config_maps(), &copy).await;
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.apps(), "web").await;
        assert!(world.get(&world.config_maps(), "a").await["metadata"]["labels"].is_null());
        assert_eq!(world.get(&world.config_maps(), "copy").await, made);
    });
}

#[test]
fn objects_go_where_they_belong() {
    runtime().block_on(async {
        let world = World::new("places").await;
        let other = world.plane.namespace("places-other").await;
        let role = format!("{}-reader", world.ns);
        let aggregated = format!("{}-all", world.ns);
        let label = format!("{}/aggregate", world.ns);
        let manifests = format!(
            "{}---\n{}---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: {role}\n  \
             labels:\n    {label}: \"true\"\nrules:\n- apiGroups: [\"\"]\n  resources: [pods]\n  \
             verbs: [get]\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: \
             {aggregated}\naggregationRule:\n  clusterRoleSelectors:\n  - matchLabels:\n      \
             {label}: \"true\"\nrules: []\n",
            config_map("here", "1"),
            config_map("there", "1").replace("there\n", &format!("there\n  namespace: {other}\n")),
        );
        world.repo.commit(&[("app/all.yaml", Some(&manifests))], "all");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let object =
            world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations["applyset.kubernetes.io/additional-namespaces"], other);
        assert_eq!(
            annotations["applyset.kubernetes.io/contains-group-kinds"],
            "ClusterRole.rbac.authorization.k8s.io,ConfigMap"
        );
        world.wait_value("here", "1").await;
        assert_eq!(world.data("there").await, None);
        let resource = kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
            "", "v1", "ConfigMap",
        ));
        let there: Api<DynamicObject> =
            Api::namespaced_with(world.client.clone(), &other, &resource);
        assert_eq!(world.get(&there, "there").await["data"]["value"], "1");

        // A cluster role is enforced like anything else.
        let roles = world.cluster_api("rbac.authorization.k8s.io/v1", "ClusterRole");
        let more = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}]});
        world.edit(&roles, &role, &more).await;
        wait_for("the rules to be put back", LIMIT, async || {
            let verbs = world.get(&roles, &role).await["rules"][0]["verbs"].clone();
            if verbs == json!(["get"]) { Ok(()) } else { Err(verbs) }
        })
        .await;

        // The rules of an aggregating one are the aggregation controller's, and nobody fights.
        // The edit above went through it too, unless it has not seen it yet: it takes some time.
        let settled = wait_for("the aggregated rules to rest", LIMIT, async || {
            let before = world.get(&roles, &aggregated).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let object = world.get(&roles, &aggregated).await;
            let rests = object["rules"][0]["verbs"] == json!(["get"]) && object == before;
            if rests { Ok(object) } else { Err(object["rules"].clone()) }
        })
        .await;
        probe.idle(0).await;
        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        world.request(&world.apps(), "web", "once").await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["lastHandledReconcileAt"] == "once"
            })
            .await;
        world.plane.settled().await;
        let object = world.get(&roles, &aggregated).await;
        assert_eq!(object["rules"], settled["rules"]);
        assert_eq!(object["metadata"]["resourceVersion"], settled["metadata"]["resourceVersion"]);
        let writes: Vec<_> = world
            .plane
            .audit()
            .since(mark)
            .into_iter()
            .filter(|e| e.user == world.identity.user() && e.verb == "patch")
            .filter(|e| e.resource != "applications" && e.resource != "leases")
            .map(|e| e.what())
            .collect();
        assert!(writes.len() <= 2, "a verified object may be sent once: {writes:?}");

        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.apps(), "web").await;
        world.wait_gone(&roles, &role).await;
        // The aggregation controller applies what it computes, and makes the role anew when it has not
        // heard yet that it is gone. That one was never ours.
        wait_for("the aggregating role to be gone", LIMIT, async || {
            let found = roles.get_metadata_opt(&aggregated).await.unwrap();
            let labels = found.and_then(|found| found.metadata.labels).unwrap_or_default();
            if labels.contains_key(PART_OF) { Err(labels) } else { Ok(()) }
        })
        .await;
        world.wait_gone(&there, "there").await;
    });
}

#[test]
fn a_secret_in_plain_text_is_enforced() {
    runtime().block_on(async {
        let world = World::new("secret").await;
        world.repo.commit(
            &[(
                "app/secret.yaml",
                Some("apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  key: from-git\n"),
            )],
            "a secret",
        );
        let agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let secrets = world.api("v1", "Secret");
        let from_git = "ZnJvbS1naXQ=";
        assert_eq!(world.get(&secrets, "s").await["data"]["key"], from_git);
        world.edit(&secrets, "s", &json!({"data": {"key": "Ynk="}})).await;
        wait_for("the secret to be put back", LIMIT, async || {
            let key = world.get(&secrets, "s").await["data"]["key"].clone();
            if key == from_git { Ok(()) } else { Err(key) }
        })
        .await;
        let event = world.wait_event("web", &["DriftCorrected", "data.key", "by-hand"]).await;
        let said = format!("{event}{}{}", agent.logs(), world.get(&world.apps(), "web").await);
        assert!(!said.contains("from-git") && !said.contains(from_git), "{said}");
    });
}

#[test]
fn what_is_deleted_is_made_again_when_it_is_gone() {
    runtime().block_on(async {
        let world = World::new("remade").await;
        world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "1"))),
                ("app/b.yaml", Some(&config_map("b", "1"))),
            ],
            "two",
        );
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let maps = world.config_maps();

        // Somebody's finalizer holds it up: it is said, and nothing fights.
        world.edit(&maps, "a", &json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
        let old = world.get(&maps, "a").await["metadata"]["uid"].clone();
        world.delete(&maps, "a").await;
        let parts = [&*format!("{}/a", world.ns), "being deleted", "finalizers"];
        world.wait_refused(&world.apps(), "web", "Progressing", &parts).await;
        world.edit(&maps, "a", &json!({"metadata": {"finalizers": null}})).await;
        wait_for("a new object", LIMIT, async || {
            match maps.get_opt("a").await.map_err(|e| e.to_string())? {
                Some(new) if new.metadata.uid.as_deref() != old.as_str() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let object = world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        assert_eq!(condition(&object, "Reconciling"), Value::Null);

        // Deleted and made anew by hand, from an export, while nobody looked.
        world.edit(&world.apps(), "web", &json!({"spec": {"suspend": true}})).await;
        probe.suspended("web").await;
        let mut copy = live_config_map(&world, "b", &json!({"value": "by hand"}));
        copy["metadata"]["labels"] = world.get(&maps, "b").await["metadata"]["labels"].clone();
        world.delete(&maps, "b").await;
        let made = create(&maps, &copy).await;
        world.edit(&world.apps(), "web", &json!({"spec": {"suspend": false}})).await;
        world.wait_value("b", "1").await;
        let now = world.get(&maps, "b").await;
        assert_eq!(now["metadata"]["uid"], made["metadata"]["uid"]);
        world.wait_event("web", &["DriftCorrected", "/b was deleted and created anew"]).await;

        // One that does not say it is ours may be somebody else's: nothing of it is overwritten.
        world.edit(&world.apps(), "web", &json!({"spec": {"suspend": true}})).await;
        probe.suspended("web").await;
        world.delete(&maps, "b").await;
        create(&maps, &live_config_map(&world, "b", &json!({"value": "mine"}))).await;
        world.edit(&world.apps(), "web", &json!({"spec": {"suspend": false}})).await;
        let parts = ["app/b.yaml:6", "data.value", "delete the live object"];
        world.wait_refused(&world.apps(), "web", "FieldConflict", &parts).await;
        world.wait_value("b", "mine").await;
        world.delete(&maps, "b").await;
        world.wait_value("b", "1").await;
    });
}
