//! What an owner says about when deletions wait for approval.

use plumb_testkit::runtime;
use serde_json::{Value, json};

use crate::world::{World, condition, config_map};

const APPROVE: &str = "plumb.dev/approve-prune";

async fn ready(world: &World, name: &str) -> Value {
    world.wait_condition(&world.apps(), name, ("Ready", "True"), |_| true).await
}

#[test]
fn its_owner_says_from_when_on_deletions_wait() {
    runtime().block_on(async {
        let world = World::new("guard-share").await;
        let (a, b) = (config_map("a", "1"), config_map("b", "1"));
        world.repo.commit(&[("app/a.yaml", Some(&a)), ("app/b.yaml", Some(&b))], "two");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        app["spec"]["pruneGuard"] = json!({"count": 0, "share": 0});
        world.apply(&app).await;
        ready(&world, "web").await;
        world.repo.commit(&[("app/b.yaml", None)], "one");
        world.look().await;
        let parts = ["1 of 2 objects would be deleted, more than 0 %", APPROVE];
        world.wait_refused(&world.apps(), "web", "PruneHeld", &parts).await;

        // As soon as it says otherwise, nothing waits.
        world.edit(&world.apps(), "web", &json!({"spec": {"pruneGuard": null}})).await;
        world.wait_gone(&world.config_maps(), "b").await;
        let object = ready(&world, "web").await;
        assert_eq!(condition(&object, "PruneHeld"), Value::Null);
    });
}

#[test]
fn what_its_owner_protects_waits_also_when_the_application_goes() {
    runtime().block_on(async {
        let world = World::new("guard-kinds").await;
        let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n";
        let (a, b) = (config_map("a", "1"), config_map("b", "1"));
        let files =
            [("app/a.yaml", Some(&*a)), ("app/b.yaml", Some(&*b)), ("app/s.yaml", Some(secret))];
        world.repo.commit(&files, "three");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        app["spec"]["pruneGuard"] = json!({"protect": ["Secret"]});
        world.apply(&app).await;
        ready(&world, "web").await;
        world.repo.commit(&[("app/b.yaml", None)], "two");
        world.look().await;
        world.wait_gone(&world.config_maps(), "b").await;

        world.delete(&world.apps(), "web").await;
        let said = format!("Secret {}/s would be deleted: spec.pruneGuard protects", world.ns);
        let object = world.wait_refused(&world.apps(), "web", "PruneHeld", &[&said]).await;
        assert_eq!(object["status"]["prune"]["reason"], "ProtectedObjects");
        assert!(world.data("a").await.is_some(), "the plan is held as a whole");
        let digest = object["status"]["prune"]["digest"].as_str().unwrap();
        world.annotate(&world.apps(), "web", APPROVE, digest).await;
        world.wait_gone(&world.apps(), "web").await;
        world.wait_gone(&world.config_maps(), "a").await;
    });
}

#[test]
fn an_object_that_is_marked_so_waits_for_approval() {
    runtime().block_on(async {
        let world = World::new("guard-mark").await;
        let marked = config_map("b", "1")
            .replace("name: b", "name: b\n  annotations:\n    plumb.dev/prune: confirm");
        let a = config_map("a", "1");
        world.repo.commit(&[("app/a.yaml", Some(&*a)), ("app/b.yaml", Some(&*marked))], "two");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        ready(&world, "web").await;
        world.repo.commit(&[("app/b.yaml", None)], "one");
        world.look().await;
        let said =
            format!("ConfigMap {}/b would be deleted: it is marked plumb.dev/prune", world.ns);
        let object = world.wait_refused(&world.apps(), "web", "PruneHeld", &[&said]).await;
        let digest = object["status"]["prune"]["digest"].as_str().unwrap();
        world.annotate(&world.apps(), "web", APPROVE, digest).await;
        world.wait_gone(&world.config_maps(), "b").await;
    });
}
