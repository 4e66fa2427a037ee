//! An Application that comes from a backup or from another cluster, with our marks on it already.

use plumb_testkit::runtime;
use serde_json::{Value, json};

use crate::world::{World, config_map};

/// An Application as a backup tool restores it: with all that an agent had written on it, under the
/// tool's own name as a field manager.
fn restored(world: &World, name: &str, mark: &str) -> Value {
    let mut app = world.app(name, "app", "1h");
    let metadata = app["metadata"].as_object_mut().unwrap();
    metadata.insert("finalizers".into(), json!(["plumb.dev/finalizer"]));
    let id = format!("applyset-of-{name}");
    metadata.insert("labels".into(), json!({"applyset.kubernetes.io/id": id}));
    metadata.insert(
        "annotations".into(),
        json!({
            "applyset.kubernetes.io/tooling": "plumb/v0.1.0",
            "applyset.kubernetes.io/contains-group-kinds": "ConfigMap",
            "applyset.kubernetes.io/additional-namespaces": "",
            "plumb.dev/epoch": mark,
        }),
    );
    app
}

#[test]
fn a_finalizer_that_others_hold_too_does_not_keep_an_application_for_ever() {
    runtime().block_on(async {
        let world = World::new("restored").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&restored(&world, "web", "0")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.config_maps(), "a").await;
        world.wait_gone(&world.apps(), "web").await;
    });
}
