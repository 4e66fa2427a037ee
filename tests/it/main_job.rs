//! A commit becomes live objects, stays enforced, and goes away again.

use kube::api::{DeleteParams, Patch, PatchParams};
use plumb_testkit::{runtime, wait_for};
use serde_json::json;

use crate::world::{LIMIT, World, condition, config_map};

#[test]
fn a_commit_is_applied_enforced_pruned_and_let_go() {
    runtime().block_on(async {
        let world = World::new("main-job").await;
        let first = world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "1"))),
                ("app/b.yaml", Some(&config_map("b", "1"))),
            ],
            "two config maps",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let object = world.wait_applied("web", &first).await;
        assert_eq!(object["status"]["objects"], 2);
        assert_eq!(
            object["metadata"]["annotations"]["applyset.kubernetes.io/contains-group-kinds"],
            "ConfigMap"
        );
        assert_eq!(world.data("a").await, Some(json!({"value": "1"})));

        // A field of ours that somebody changes comes back; one that is not ours stays.
        let edit = json!({"data": {"value": "by hand", "other": "mine"}});
        world
            .config_maps()
            .patch("a", &PatchParams::default(), &Patch::Merge(&edit))
            .await
            .unwrap();
        wait_for("the value to be put back", LIMIT, async || {
            let data = world.data("a").await;
            if data == Some(json!({"value": "1", "other": "mine"})) {
                Ok(())
            } else {
                Err(format!("{data:?}"))
            }
        })
        .await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |o| {
                o["status"]["drift"]["count"] == 1
            })
            .await;
        assert_eq!(object["status"]["drift"]["fields"], json!(["data.value"]));

        // So does an object that somebody deletes.
        world.config_maps().delete("b", &DeleteParams::default()).await.unwrap();
        wait_for("b to be back", LIMIT, async || world.data("b").await.ok_or("gone")).await;

        // Another commit changes one and takes the other away.
        let second = world.repo.commit(
            &[("app/a.yaml", Some(&config_map("a", "2"))), ("app/b.yaml", None)],
            "one config map",
        );
        world.look().await;
        world.wait_applied("web", &second).await;
        assert_eq!(world.data("a").await, Some(json!({"value": "2", "other": "mine"})));
        assert_eq!(world.data("b").await, None);

        // A file that is broken changes nothing.
        world.repo.commit(&[("app/a.yaml", Some("kind: ["))], "broken");
        world.look().await;
        let message = world.wait_not_ready("web", "BuildFailed").await;
        assert!(message.contains("app/a.yaml:"), "{message}");
        assert_eq!(world.data("a").await, Some(json!({"value": "2", "other": "mine"})));

        // An emptied folder prunes nothing, and says what it waits for.
        world.repo.commit(&[("app/a.yaml", None), ("app/README.md", Some("empty"))], "nothing");
        world.look().await;
        let message = world.wait_not_ready("web", "PruneHeld").await;
        assert!(message.contains("plumb.dev/approve-prune=sha256:"), "{message}");
        assert!(world.data("a").await.is_some());
        let object = serde_json::to_value(world.apps().get("web").await.unwrap()).unwrap();
        assert_eq!(condition(&object, "PruneHeld")["status"], "True");
        let digest = object["status"]["prune"]["digest"].as_str().unwrap().to_owned();
        world.annotate(&world.apps(), "web", "plumb.dev/approve-prune", &digest).await;
        world.wait_gone(&world.config_maps(), "a").await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;

        world.apps().delete("web", &DeleteParams::default()).await.unwrap();
        world.wait_gone(&world.apps(), "web").await;
    });
}
