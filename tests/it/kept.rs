//! What was applied last stays enforced as a whole while the newest commit is broken.

use kube::api::PostParams;
use plumb_testkit::runtime;
use serde_json::json;

use crate::world::{LIMIT, World, config_map};

const BROKEN: &str = "kind: [ConfigMap\n";

/// A config map by somebody else.
async fn squat(world: &World, name: &str) {
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name}, "data": {"value": "theirs"},
    });
    let params = PostParams { field_manager: Some("by-hand".into()), ..PostParams::default() };
    let object = serde_json::from_value(theirs).unwrap();
    world.config_maps().create(&params, &object).await.unwrap();
}

#[test]
fn what_stood_in_the_way_of_the_last_good_commit_is_waited_for() {
    runtime().block_on(async {
        let world = World::new("in-the-way").await;
        let files = ["a", "b"].map(|name| (format!("app/{name}.yaml"), config_map(name, "1")));
        let files = files.each_ref().map(|(path, text)| (path.as_str(), Some(text.as_str())));
        let commit = world.repo.commit(&files, "one");
        let mut agent = world.agent();
        world.sync("web", "app", &commit).await;
        agent.stop();

        // While nobody watches, one goes, another takes the name of one, and Git breaks.
        world.delete(&world.config_maps(), "a").await;
        world.delete(&world.config_maps(), "b").await;
        squat(&world, "b").await;
        world.repo.commit(&[("app/c.yaml", Some(BROKEN))], "broken");
        let mut agent = world.agent();
        agent.wait_for_log("it exists already, and by-hand set", LIMIT).await;
        world.wait_value("a", "1").await;
        world.wait_not_ready("web", "BuildFailed").await;
        assert_eq!(world.data("b").await, Some(json!({"value": "theirs"})));

        // No watch tells that the way is free: the other was never ours.
        world.delete(&world.config_maps(), "b").await;
        world.wait_value("b", "1").await;
    });
}

#[test]
fn what_is_all_gone_after_a_restart_comes_back_from_the_last_good_commit() {
    runtime().block_on(async {
        let world = World::new("all-gone").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let mut agent = world.agent();
        world.sync("web", "app", &commit).await;
        agent.stop();
        world.delete(&world.config_maps(), "a").await;
        world.repo.commit(&[("app/b.yaml", Some(BROKEN))], "broken");
        let _agent = world.agent();
        world.wait_not_ready("web", "BuildFailed").await;
        world.wait_value("a", "1").await;
    });
}

#[test]
fn a_commit_that_was_applied_in_part_gives_way_to_the_last_good_one() {
    runtime().block_on(async {
        let world = World::new("in-part").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.sync("web", "app", &commit).await;

        squat(&world, "b").await;
        let (a, b) = (config_map("a", "2"), config_map("b", "2"));
        world.repo.commit(&[("app/a.yaml", Some(&a)), ("app/b.yaml", Some(&b))], "two");
        world.look().await;
        world.wait_not_ready("web", "FieldConflict").await;
        world.wait_value("a", "2").await;
        world.repo.commit(&[("app/c.yaml", Some(BROKEN))], "broken");
        world.look().await;
        world.wait_value("a", "1").await;
        assert_eq!(world.data("b").await, Some(json!({"value": "theirs"})));
    });
}
