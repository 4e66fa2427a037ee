//! Applications that failed: what they do until their next try, and what comes before it.

use plumb_testkit::{runtime, wait_for};
use serde_json::json;

use crate::world::{LIMIT, World, condition, config_map};

/// What the API server refuses, whatever else is right.
const BAD: &str =
    "apiVersion: v1\nkind: Service\nmetadata:\n  name: bad\nspec:\n  ports:\n  - {port: 99999}\n";

#[test]
fn what_failed_is_tried_again_in_its_time_and_not_for_every_write_of_others() {
    // Each changed once by hand, so that none waits for having been fought over.
    const GOOD: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    runtime().block_on(async {
        let world = World::new("retry").await;
        let files = GOOD.map(|name| (format!("app/{name}.yaml"), config_map(name, "1")));
        let mut files: Vec<_> =
            files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        files.push(("app/bad.yaml", Some(BAD)));
        world.repo.commit(&files, "one is bad");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let parts = ["Service", "99999"];
        world.wait_refused(&world.apps(), "web", "Invalid", &parts).await;
        let begin = world.plane.audit().mark();
        let tries = |mark| {
            let requests = world.plane.audit().requests(mark).by(&world.identity.user());
            requests.count("patch services")
        };
        // From then on it waits long.
        wait_for("some tries", LIMIT, async || {
            world.plane.settled().await;
            let tries = tries(begin);
            if tries >= 4 { Ok(()) } else { Err(tries) }
        })
        .await;

        let mark = world.plane.audit().mark();
        for name in GOOD {
            // One writes a field of its own, and another one of ours.
            let note = json!({"metadata": {"annotations": {"leader": name}}});
            world.edit(&world.config_maps(), "a", &note).await;
            let by_hand = json!({"data": {"value": "by hand"}});
            world.edit(&world.config_maps(), name, &by_hand).await;
            world.wait_value(name, "1").await;
        }
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                object["status"]["drift"]["count"] == GOOD.len()
            })
            .await;
        assert_eq!(condition(&object, "Ready")["reason"], "Invalid", "{object}");
        world.plane.settled().await;
        assert!(tries(mark) <= GOOD.len() / 2, "{} tries", tries(mark));

        // What is asked for by hand does not wait.
        let mark = world.plane.audit().mark();
        world.request(&world.apps(), "web", "now").await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                object["status"]["lastHandledReconcileAt"] == "now"
            })
            .await;
        world.plane.settled().await;
        assert!(tries(mark) > 0);
        let mended = world.repo.commit(&[("app/bad.yaml", None)], "mended");
        world.look().await;
        world.wait_applied("web", &mended).await;
    });
}
