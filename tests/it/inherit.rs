//! What an earlier Application of the same name left behind: it is not deleted without asking.

use kube::Api;
use kube::api::DynamicObject;
use plumb_testkit::{Agent, Fault, Match, Proxy, Rule, runtime, wait_for};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, condition, config_map};

const APPROVE: &str = "plumb.dev/approve-prune";

async fn ready(world: &World, name: &str) -> Value {
    world.wait_condition(&world.apps(), name, ("Ready", "True"), |_| true).await
}

/// Takes the finalizer off and deletes: what happens when the agent was uninstalled in between, or
/// the namespace was restored from a backup without status.
async fn lose(world: &World, apps: &Api<DynamicObject>, name: &str) {
    let patch = json!({"metadata": {"finalizers": null}});
    world.edit(apps, name, &patch).await;
    world.delete(apps, name).await;
    world.wait_gone(apps, name).await;
}

/// A world in which an Application `web` applied `a` and `b` and was lost, and Git has only `a`
/// left. A new Application of the name is there, a second younger than the objects; no agent runs.
async fn inherited(prefix: &str, spec: &Value) -> World {
    let world = World::new(prefix).await;
    let (a, b) = (config_map("a", "1"), config_map("b", "1"));
    world.repo.commit(&[("app/a.yaml", Some(&a)), ("app/b.yaml", Some(&b))], "two");
    let mut agent = world.agent();
    world.apply(&world.source("1h")).await;
    world.apply(&world.app("web", "app", "1h")).await;
    ready(&world, "web").await;
    assert!(agent.stop().success());
    lose(&world, &world.apps(), "web").await;
    world.repo.commit(&[("app/b.yaml", None)], "one");
    // It is told by seconds what was there before.
    let fields = world.get(&world.config_maps(), "b").await["metadata"]["managedFields"].clone();
    let applied = fields[0]["time"].as_str().unwrap();
    wait_for("a second later than the objects'", LIMIT, async || {
        let mut app = world.app("web", "app", "1h");
        for (key, value) in spec.as_object().unwrap() {
            app["spec"][key] = value.clone();
        }
        world.apply(&app).await;
        let app = world.get(&world.apps(), "web").await;
        let created = app["metadata"]["creationTimestamp"].as_str().unwrap();
        if created > applied {
            return Ok(());
        }
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.apps(), "web").await;
        Err(created.to_owned())
    })
    .await;
    world
}

/// Starts an agent and lets it look at Git.
async fn start(world: &World) -> Agent {
    let agent = world.agent();
    world.look().await;
    agent
}

/// Waits until the deletion of `b` is held.
async fn held(world: &World) -> Value {
    let parts = ["1 deletion is held", "before this application was created", APPROVE];
    let object = world.wait_refused(&world.apps(), "web", "PruneHeld", &parts).await;
    let prune = &object["status"]["prune"];
    assert_eq!(prune["reason"], "InheritedObjects");
    assert_eq!(prune["objects"], json!([format!("ConfigMap {}/b", world.ns)]));
    assert!(world.data("b").await.is_some());
    object
}

#[test]
fn an_application_made_anew_asks_before_it_deletes_what_it_did_not_apply() {
    runtime().block_on(async {
        let world = inherited("inherit", &json!({})).await;
        let _agent = start(&world).await;
        held(&world).await;

        // It is asked for as long as nobody answers, whatever happens meanwhile.
        world.repo.commit(&[("app/c.yaml", Some("kind: ["))], "broken");
        world.look().await;
        world.wait_refused(&world.apps(), "web", "BuildFailed", &["app/c.yaml"]).await;
        world.repo.commit(&[("app/c.yaml", Some(&config_map("c", "1")))], "another");
        world.look().await;
        world.wait_value("c", "1").await;
        let object = held(&world).await;

        let digest = object["status"]["prune"]["digest"].as_str().unwrap();
        world.annotate(&world.apps(), "web", APPROVE, digest).await;
        world.wait_gone(&world.config_maps(), "b").await;
        ready(&world, "web").await;

        // What it applied itself it deletes without asking, and what it took over as well.
        world.repo.commit(&[("app/c.yaml", None)], "gone");
        world.look().await;
        world.wait_gone(&world.config_maps(), "c").await;
        ready(&world, "web").await;
        let other = config_map("d", "1");
        world.repo.commit(&[("app/a.yaml", None), ("app/d.yaml", Some(&other))], "renamed");
        world.look().await;
        world.wait_gone(&world.config_maps(), "a").await;
        ready(&world, "web").await;
    });
}

#[test]
fn it_also_asks_when_what_is_there_becomes_known_only_later() {
    runtime().block_on(async {
        let world = inherited("inherit-late", &json!({})).await;
        let proxy = Proxy::to_api(&world.plane, 1).await;
        // Nobody lists config maps at first.
        let denied = proxy.add(Rule::new(
            Match::method("GET").path("/api/v1/configmaps"),
            Fault::Status { code: 403, retry_after: None },
        ));
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.look().await;
        ready(&world, "web").await;
        assert!(proxy.hits(denied) > 0);
        assert!(world.data("b").await.is_some());
        proxy.remove(denied);
        held(&world).await;
    });
}

#[test]
fn it_also_asks_when_pruning_is_turned_on_later() {
    runtime().block_on(async {
        let world = inherited("inherit-off", &json!({"prune": false})).await;
        let _agent = start(&world).await;
        let object = ready(&world, "web").await;
        let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
        assert!(message.contains("pruning is off"), "{message}");
        world.edit(&world.apps(), "web", &json!({"spec": {"prune": true}})).await;
        held(&world).await;
    });
}

#[test]
fn its_own_deletion_says_nothing_about_what_it_did_not_apply() {
    runtime().block_on(async {
        let world = inherited("inherit-gone", &json!({})).await;
        let _agent = start(&world).await;
        held(&world).await;
        world.delete(&world.apps(), "web").await;
        let parts = ["before this application was created", "deletionPolicy"];
        world.wait_refused(&world.apps(), "web", "PruneHeld", &parts).await;
        assert!(world.data("b").await.is_some());
        assert!(world.data("a").await.is_some());
        // Its objects can be let go instead.
        let orphan = json!({"spec": {"deletionPolicy": "Orphan"}});
        world.edit(&world.apps(), "web", &orphan).await;
        world.wait_gone(&world.apps(), "web").await;
        let b: DynamicObject = world.config_maps().get("b").await.unwrap();
        assert!(b.metadata.labels.is_none(), "{:?}", b.metadata);
    });
}
