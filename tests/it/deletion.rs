//! What goes when it leaves Git or its Application goes, what stays, and what waits for a person.

use std::fmt::Write as _;
use std::time::Duration;

use kube::api::{DynamicObject, PostParams};
use plumb_testkit::{Agent, Fault, Match, Proxy, Rule, runtime, wait_for};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, condition, config_map};

const PART_OF: &str = "applyset.kubernetes.io/part-of";
const APPROVE: &str = "plumb.dev/approve-prune";

async fn ready(world: &World, name: &str) -> Value {
    world.wait_condition(&world.apps(), name, ("Ready", "True"), |_| true).await
}

/// `count` config maps in one file, named after a prefix.
fn many(prefix: &str, from: usize, to: usize) -> String {
    (from..to).fold(String::new(), |mut text, n| {
        write!(text, "---\n{}", config_map(&format!("{prefix}-{n}"), "1")).unwrap();
        text
    })
}

/// How many config maps are there whose name begins so.
async fn count(world: &World, prefix: &str) -> usize {
    let list = world.config_maps().list(&kube::api::ListParams::default()).await.unwrap();
    let names = list.items.into_iter().filter_map(|object| object.metadata.name);
    names.filter(|name| name.starts_with(&format!("{prefix}-"))).count()
}

/// Nothing of ours is on an object that was let go.
fn assert_let_go(object: &Value) {
    let metadata = &object["metadata"];
    assert!(metadata["labels"][PART_OF].is_null(), "{metadata}");
    assert!(metadata["annotations"]["plumb.dev/application"].is_null(), "{metadata}");
    let entries = metadata["managedFields"].to_string();
    assert!(!entries.contains("plumb:"), "{entries}");
}

#[test]
fn an_application_that_goes_takes_what_its_policy_says() {
    runtime().block_on(async {
        let world = World::new("farewell").await;
        // Name, policy, prune, and whether its object is gone afterwards.
        let cases = [
            ("mirror", Some("MirrorPrune"), true, true),
            ("default", None, true, true),
            ("mirror-off", Some("MirrorPrune"), false, false),
            ("delete", Some("Delete"), false, true),
            ("orphan", Some("Orphan"), true, false),
            ("wait", Some("WaitForTermination"), false, true),
        ];
        let files: Vec<(String, String)> = cases
            .iter()
            .map(|(name, ..)| {
                let two = format!(
                    "{}---\n{}",
                    config_map(name, "1"),
                    config_map(&format!("{name}-2"), "1")
                );
                (format!("{name}/a.yaml"), two)
            })
            .collect();
        let changes: Vec<_> = files.iter().map(|(p, c)| (p.as_str(), Some(c.as_str()))).collect();
        world.repo.commit(&changes, "one application a policy");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        for (name, policy, prune, _) in cases {
            let mut app = world.app(name, name, "1h");
            app["spec"]["prune"] = json!(prune);
            if let Some(policy) = policy {
                app["spec"]["deletionPolicy"] = json!(policy);
            }
            world.apply(&app).await;
        }
        for (name, ..) in cases {
            ready(&world, name).await;
        }
        let maps = world.config_maps();
        // Somebody else has a field of his own on one of them, which stays his.
        world.edit(&maps, "orphan", &json!({"data": {"theirs": "x"}})).await;
        let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
        world.edit(&maps, "wait", &hold).await;
        for (name, ..) in cases {
            world.delete(&world.apps(), name).await;
        }
        for (name, _, _, gone) in cases {
            if name == "wait" {
                continue;
            }
            world.wait_gone(&world.apps(), name).await;
            if gone {
                world.wait_gone(&maps, name).await;
            } else {
                assert_let_go(&world.get(&maps, name).await);
                assert_let_go(&world.get(&maps, &format!("{name}-2")).await);
            }
        }
        assert_eq!(world.data("orphan").await, Some(json!({"value": "1", "theirs": "x"})));

        let parts = [&*format!("ConfigMap {}/wait", world.ns), "waiting for", "finalizers"];
        world.wait_refused(&world.apps(), "wait", "Terminating", &parts).await;
        world.wait_gone(&maps, "wait-2").await;
        world.edit(&maps, "wait", &json!({"metadata": {"finalizers": null}})).await;
        world.wait_gone(&world.apps(), "wait").await;
        assert_eq!(world.data("wait").await, None);

        // A later application of the same name does not inherit what was let go.
        let one = config_map("orphan", "1");
        let commit = world.repo.commit(&[("orphan/a.yaml", Some(&one))], "only one");
        world.look().await;
        world
            .wait_condition(&world.sources(), "repo", ("Ready", "True"), |source| {
                source["status"]["revision"] == format!("main@sha1:{commit}")
            })
            .await;
        world.apply(&world.app("orphan", "orphan", "1h")).await;
        let object = ready(&world, "orphan").await;
        assert_eq!(object["status"]["objects"], 1);
        assert_eq!(world.data("orphan-2").await, Some(json!({"value": "1"})));
        world.delete(&world.apps(), "orphan").await;
        world.wait_gone(&maps, "orphan").await;
        assert_eq!(world.data("orphan-2").await, Some(json!({"value": "1"})));
    });
}

#[test]
fn what_stays_when_its_application_goes_is_free_for_the_next() {
    runtime().block_on(async {
        let world = World::new("farewell-kept").await;
        let marked = |value: &str| {
            let text = config_map("stays", value);
            text.replace("\ndata:", "\n  annotations: {plumb.dev/prune: disabled}\ndata:")
        };
        let (stays, plain) = (marked("1"), config_map("plain", "1"));
        let files = [("app/stays.yaml", Some(&*stays)), ("app/plain.yaml", Some(&*plain))];
        world.repo.commit(&files, "one is marked");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("old", "app", "1h")).await;
        ready(&world, "old").await;
        let maps = world.config_maps();
        // By somebody who needs it so for a while.
        world.annotate(&maps, "plain", "plumb.dev/reconcile", "disabled").await;
        world.delete(&world.apps(), "old").await;
        world.wait_gone(&world.apps(), "old").await;
        for name in ["stays", "plain"] {
            assert_let_go(&world.get(&maps, name).await);
        }

        world.apply(&world.app("new", "app", "1h")).await;
        ready(&world, "new").await;
        world.repo.commit(&[("app/stays.yaml", Some(&marked("2")))], "another value");
        world.look().await;
        world.wait_value("stays", "2").await;
        // No watch tells of what nobody has, but each run looks.
        world.annotate(&maps, "plain", "plumb.dev/reconcile", "enabled").await;
        world.request(&world.apps(), "new", "enabled").await;
        wait_for("what is not left alone any more to be the new one's", LIMIT, async || {
            let object = world.get(&maps, "plain").await;
            let owner = object["metadata"]["annotations"]["plumb.dev/application"].clone();
            if owner == format!("{}/new", world.ns) { Ok(()) } else { Err(object) }
        })
        .await;
    });
}

#[test]
fn a_namespace_among_the_members_waits_for_approval() {
    runtime().block_on(async {
        let world = World::new("protected").await;
        let inner = format!("{}-inner", world.ns);
        let manifests = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {inner}\n---\n{}",
            config_map("a", "1").replace("name: a\n", &format!("name: a\n  namespace: {inner}\n"))
        );
        let first = world.repo.commit(&[("app/a.yaml", Some(&manifests))], "a namespace");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        ready(&world, "web").await;

        world.delete(&world.apps(), "web").await;
        let parts = ["2 deletions are held", "deletes everything in it", &inner, APPROVE];
        let object = world.wait_refused(&world.apps(), "web", "PruneHeld", &parts).await;
        assert_eq!(object["status"]["prune"]["reason"], "ProtectedObjects");
        assert_eq!(object["status"]["lastAppliedRevision"], format!("main@sha1:{first}"));
        let namespaces = world.cluster_api("v1", "Namespace");
        let live = world.get(&namespaces, &inner).await;
        assert!(live["metadata"]["deletionTimestamp"].is_null());

        let digest = object["status"]["prune"]["digest"].as_str().unwrap();
        world.annotate(&world.apps(), "web", APPROVE, digest).await;
        world.wait_gone(&world.apps(), "web").await;
        wait_for("the namespace to go", LIMIT, async || {
            match namespaces.get_opt(&inner).await.map_err(|e| e.to_string())? {
                Some(live) if live.metadata.deletion_timestamp.is_none() => Err("there".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
    });
}

#[test]
fn a_mass_deletion_waits_for_the_approval_of_that_very_plan() {
    runtime().block_on(async {
        let world = World::new("guard").await;
        world.repo.commit(&[("app/a.yaml", Some(&many("m", 0, 24)))], "24");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        ready(&world, "web").await;

        // Half of them go at once; more than half wait.
        let commit = world.repo.commit(&[("app/a.yaml", Some(&many("m", 0, 22)))], "22");
        world.look().await;
        world.wait_applied("web", &commit).await;
        assert_eq!(count(&world, "m").await, 22);
        world.repo.commit(&[("app/a.yaml", Some(&many("m", 0, 10)))], "10");
        world.look().await;
        let parts = ["12 deletions are held", "12 of 22", "more than 50 %", APPROVE];
        let object = world.wait_refused(&world.apps(), "web", "PruneHeld", &parts).await;
        assert_eq!(condition(&object, "PruneHeld")["status"], "True");
        let prune = &object["status"]["prune"];
        assert_eq!((&prune["count"], &prune["reason"]), (&json!(12), &json!("LargeShare")));
        let first = prune["digest"].as_str().unwrap().to_owned();
        assert_eq!(count(&world, "m").await, 22);

        // Approval of something else does nothing.
        let handled = async |value: &str| {
            world.request(&world.apps(), "web", value).await;
            world
                .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                    object["status"]["lastHandledReconcileAt"] == value
                })
                .await
        };
        let other = format!("sha256:{}", "0".repeat(64));
        world.annotate(&world.apps(), "web", APPROVE, &other).await;
        handled("1").await;
        assert_eq!(count(&world, "m").await, 22);

        // Neither does approval of what the plan was before it changed.
        world.repo.commit(&[("app/a.yaml", Some(&many("m", 0, 9)))], "9");
        world.look().await;
        let parts = ["13 deletions are held"];
        world.wait_refused(&world.apps(), "web", "PruneHeld", &parts).await;
        world.annotate(&world.apps(), "web", APPROVE, &first).await;
        let object = handled("2").await;
        assert_eq!(count(&world, "m").await, 22);

        // A file that breaks meanwhile does not take the hold away, and deletes nothing.
        world.repo.commit(&[("app/b.yaml", Some("kind: ["))], "broken");
        world.look().await;
        world.wait_refused(&world.apps(), "web", "BuildFailed", &["app/b.yaml"]).await;
        world.repo.commit(&[("app/b.yaml", None)], "mended");
        world.look().await;
        world.wait_refused(&world.apps(), "web", "PruneHeld", &parts).await;
        assert_eq!(count(&world, "m").await, 22);

        let digest = object["status"]["prune"]["digest"].as_str().unwrap();
        assert_ne!(digest, first);
        world.annotate(&world.apps(), "web", APPROVE, digest).await;
        let object = ready(&world, "web").await;
        assert_eq!(condition(&object, "PruneHeld"), Value::Null);
        assert_eq!(object["status"]["prune"], Value::Null);
        assert_eq!(count(&world, "m").await, 9);
    });
}

#[test]
fn what_is_not_ours_to_delete_stays() {
    runtime().block_on(async {
        let world = World::new("not-ours").await;
        let three = format!(
            "{}---\n{}---\n{}",
            config_map("a", "1"),
            config_map("owned", "1"),
            config_map("left", "1")
        );
        world.repo.commit(&[("app/a.yaml", Some(&three))], "three");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        ready(&world, "web").await;
        let maps = world.config_maps();
        let labels = world.get(&maps, "a").await["metadata"]["labels"].clone();

        // Somebody's own object with our label, and one of ours that another object owns now.
        let foreign = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "foreign", "namespace": world.ns, "labels": labels},
        });
        let foreign = serde_json::from_value(foreign).unwrap();
        let foreign: DynamicObject = maps.create(&PostParams::default(), &foreign).await.unwrap();
        let owner = json!([{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "foreign",
            "uid": foreign.metadata.uid,
        }]);
        world.edit(&maps, "owned", &json!({"metadata": {"ownerReferences": owner}})).await;

        // Without pruning, what leaves Git stays, and that is said.
        world.edit(&world.apps(), "web", &json!({"spec": {"prune": false}})).await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        world.look().await;
        let object = world.wait_applied("web", &commit).await;
        let message = condition(&object, "Ready")["message"].clone();
        println!("{message}");
        assert!(message.as_str().unwrap().contains("pruning is off"), "{message}");
        assert!(world.data("left").await.is_some());

        world.edit(&world.apps(), "web", &json!({"spec": {"prune": true}})).await;
        world.wait_gone(&maps, "left").await;
        let object = ready(&world, "web").await;
        let message = condition(&object, "Ready")["message"].clone();
        let said = format!("ConfigMap {}/owned left Git but is not deleted: it has an", world.ns);
        assert!(message.as_str().unwrap().contains(&said), "{message}");
        for name in ["foreign", "owned"] {
            let live = world.get(&maps, name).await;
            assert!(live["metadata"]["deletionTimestamp"].is_null(), "{live}");
        }
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.apps(), "web").await;
        world.wait_gone(&maps, "a").await;
        for name in ["foreign", "owned"] {
            let live = world.get(&maps, name).await;
            assert!(live["metadata"]["deletionTimestamp"].is_null(), "{live}");
        }
    });
}

#[test]
fn what_git_itself_gave_an_owner_is_pruned_like_all_else() {
    runtime().block_on(async {
        let world = World::new("owner-in-git").await;
        let maps = world.config_maps();
        let owner = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "owner", "namespace": world.ns},
        });
        world.apply(&owner).await;
        let uid = world.get(&maps, "owner").await["metadata"]["uid"].clone();
        let owner = format!(
            "\n  ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]\ndata:"
        );
        let child = config_map("child", "1").replace("\ndata:", &owner);
        world.repo.commit(
            &[("app/a.yaml", Some(&config_map("a", "1"))), ("app/child.yaml", Some(&child))],
            "two",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        ready(&world, "web").await;
        let live = world.get(&maps, "child").await;
        assert_eq!(live["metadata"]["ownerReferences"][0]["uid"], uid);

        world.repo.commit(&[("app/child.yaml", None)], "one");
        world.look().await;
        world.wait_gone(&maps, "child").await;
    });
}

#[test]
fn what_somebody_else_labelled_again_stays_and_is_told() {
    runtime().block_on(async {
        let world = World::new("labelled-again").await;
        let maps = world.config_maps();
        let both = format!("{}---\n{}", config_map("a", "1"), config_map("b", "1"));
        world.repo.commit(&[("app/a.yaml", Some(&both))], "two");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        ready(&world, "web").await;
        agent.stop();
        // Taken off, and put back by a hand: it is the hand's label now.
        let id = world.get(&maps, "b").await["metadata"]["labels"][PART_OF].clone();
        for label in [Value::Null, id] {
            world.edit(&maps, "b", &json!({"metadata": {"labels": {PART_OF: label}}})).await;
        }
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        let object = world.wait_applied("web", &commit).await;
        let message = condition(&object, "Ready")["message"].clone();
        let said = format!("ConfigMap {}/b left Git but is not deleted: somebody else", world.ns);
        assert!(message.as_str().unwrap().contains(&said), "{message}");
        assert!(world.data("b").await.is_some());
    });
}

/// An agent whose deletions take a while each, so that they can be stopped on the way.
async fn slowly(world: &World) -> (Proxy, Agent) {
    let proxy = Proxy::to_api(&world.plane, 1).await;
    let slow = Fault::Delay(Duration::from_millis(700));
    proxy.add(Rule::new(Match::method("DELETE").path("/configmaps/"), slow));
    let agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
    (proxy, agent)
}

/// Waits until the first of so many is gone.
async fn begun(world: &World, prefix: &str, all: usize) {
    wait_for("the first deletion", LIMIT, async || {
        let left = count(world, prefix).await;
        if left < all { Ok(()) } else { Err(left) }
    })
    .await;
}

#[test]
fn a_farewell_that_is_stopped_on_the_way_lets_the_rest_go() {
    runtime().block_on(async {
        let world = World::new("stopped-farewell").await;
        world.repo.commit(&[("app/a.yaml", Some(&many("m", 0, 80)))], "80");
        let (_proxy, _agent) = slowly(&world).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        ready(&world, "web").await;
        world.delete(&world.apps(), "web").await;
        begun(&world, "m", 80).await;
        world.edit(&world.apps(), "web", &json!({"spec": {"suspend": true}})).await;
        world.wait_gone(&world.apps(), "web").await;
        let left = world.config_maps().list(&kube::api::ListParams::default()).await.unwrap();
        let ours = |object: &DynamicObject| {
            object.metadata.labels.iter().flatten().any(|(key, _)| key == PART_OF)
        };
        assert!(!left.items.iter().any(ours));
        assert!(count(&world, "m").await > 20, "{}", count(&world, "m").await);
    });
}

#[test]
fn pruning_that_is_turned_off_on_the_way_stops() {
    runtime().block_on(async {
        let world = World::new("stopped-prune").await;
        world.repo.commit(&[("app/a.yaml", Some(&many("m", 0, 160)))], "160");
        let (_proxy, _agent) = slowly(&world).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        ready(&world, "web").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&many("m", 0, 80)))], "80");
        world.look().await;
        begun(&world, "m", 160).await;
        world.edit(&world.apps(), "web", &json!({"spec": {"prune": false}})).await;
        let object = world.wait_applied("web", &commit).await;
        assert!(count(&world, "m").await > 100, "{}", count(&world, "m").await);
        let message = condition(&object, "Ready")["message"].clone();
        assert!(message.as_str().unwrap().contains("pruning is off"), "{message}");
    });
}

#[test]
fn a_farewell_takes_no_longer_at_once_than_its_spec_allows() {
    runtime().block_on(async {
        let world = World::new("long-farewell").await;
        world.repo.commit(&[("app/a.yaml", Some(&many("m", 0, 60)))], "60");
        let (_proxy, _agent) = slowly(&world).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        ready(&world, "web").await;
        world.edit(&world.apps(), "web", &json!({"spec": {"timeout": "2s"}})).await;
        ready(&world, "web").await;
        world.delete(&world.apps(), "web").await;
        world.wait_refused(&world.apps(), "web", "TimedOut", &["was not done after 2 s"]).await;
        assert!(count(&world, "m").await > 0);
        // What was not done is tried again.
        world.wait_gone(&world.apps(), "web").await;
        assert_eq!(count(&world, "m").await, 0);
    });
}
