//! Applications that are objects of another Application.

use plumb_testkit::{runtime, wait_for};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, condition, config_map};

/// An Application's manifest, as it stands in Git.
fn manifest(world: &World, name: &str, path: &str) -> String {
    format!(
        "apiVersion: plumb.dev/v1alpha1\nkind: Application\nmetadata:\n  name: {name}\n  namespace: {}\n\
         spec:\n  sourceRef:\n    name: repo\n  path: {path}\n  interval: 1h\n",
        world.ns
    )
}

async fn ready(world: &World, name: &str) -> Value {
    world.wait_condition(&world.apps(), name, ("Ready", "True"), |_| true).await
}

#[test]
fn an_application_manages_applications_and_neither_strips_the_other() {
    runtime().block_on(async {
        let world = World::new("nested").await;
        world.repo.commit(
            &[
                ("outer/inner.yaml", Some(&manifest(&world, "inner", "inner"))),
                ("outer/own.yaml", Some(&config_map("own", "1"))),
                ("inner/a.yaml", Some(&config_map("a", "1"))),
            ],
            "nested",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("outer", "outer", "1h")).await;
        ready(&world, "outer").await;
        ready(&world, "inner").await;
        let inner = world.get(&world.apps(), "inner").await;
        let facts = |object: &Value| {
            let metadata = &object["metadata"];
            json!([metadata["labels"], metadata["annotations"], metadata["finalizers"]])
        };
        // It is a member of the one set and the parent of the other.
        for label in ["applyset.kubernetes.io/part-of", "applyset.kubernetes.io/id"] {
            assert!(inner["metadata"]["labels"][label].is_string(), "{inner}");
        }

        // A commit that changes the inner one, and an edit that is put back, leave its facts alone.
        let changed = manifest(&world, "inner", "inner").replace("1h", "2h");
        world.repo.commit(&[("outer/inner.yaml", Some(&changed))], "slower");
        world.look().await;
        let spec_is = async |interval: &str| {
            wait_for(&format!("an interval of {interval}"), LIMIT, async || {
                let object = world.get(&world.apps(), "inner").await;
                let found = object["spec"]["interval"].clone();
                if found == interval { Ok(object) } else { Err(found) }
            })
            .await
        };
        assert_eq!(facts(&spec_is("2h").await), facts(&inner));
        world.edit(&world.apps(), "inner", &json!({"spec": {"interval": "3h"}})).await;
        assert_eq!(facts(&spec_is("2h").await), facts(&inner));
        ready(&world, "inner").await;

        // Taking the inner one out of Git would take its objects along, so it is asked about.
        world.repo.commit(&[("outer/inner.yaml", None)], "gone");
        world.look().await;
        let parts = ["1 deletion is held", "the objects that it applied go with it"];
        let object = world.wait_refused(&world.apps(), "outer", "PruneHeld", &parts).await;
        assert_eq!(condition(&world.get(&world.apps(), "inner").await, "Ready")["status"], "True");
        let digest = object["status"]["prune"]["digest"].as_str().unwrap();
        world.annotate(&world.apps(), "outer", "plumb.dev/approve-prune", digest).await;
        world.wait_gone(&world.apps(), "inner").await;
        world.wait_gone(&world.config_maps(), "a").await;
        ready(&world, "outer").await;
    });
}

#[test]
fn an_inner_application_is_renamed_without_a_question_and_without_a_deletion() {
    runtime().block_on(async {
        let world = World::new("nested-name").await;
        world.repo.commit(
            &[
                ("outer/app.yaml", Some(&manifest(&world, "old", "inner"))),
                ("outer/own.yaml", Some(&config_map("own", "1"))),
                ("inner/a.yaml", Some(&config_map("a", "1"))),
                ("inner/b.yaml", Some(&config_map("b", "1"))),
            ],
            "nested",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("outer", "outer", "1h")).await;
        ready(&world, "old").await;
        ready(&world, "outer").await;
        let a = world.get(&world.config_maps(), "a").await;
        let renamed = manifest(&world, "new", "inner");
        let commit = world.repo.commit(&[("outer/app.yaml", Some(&renamed))], "renamed");
        world.look().await;
        world.wait_applied("outer", &commit).await;
        world.wait_gone(&world.apps(), "old").await;
        ready(&world, "new").await;
        let after = world.get(&world.config_maps(), "a").await;
        assert_eq!(after["metadata"]["uid"], a["metadata"]["uid"]);
        let owner = format!("{}/new", world.ns);
        assert_eq!(after["metadata"]["annotations"]["plumb.dev/application"], owner);
        let events = world.events_of("outer").await;
        assert!(!events.iter().any(|event| event.contains("held")), "{events:?}");
        let events = world.events_of("new").await;
        assert!(!events.iter().any(|event| event.contains("OwnedByAnother")), "{events:?}");
    });
}
