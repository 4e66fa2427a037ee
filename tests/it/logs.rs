//! The log as other programs read it.

use plumb_testkit::runtime;
use serde_json::Value;

use crate::world::{LIMIT, World, config_map};

/// Lines of runs that go on at the same time stand between each other.
#[test]
fn the_lines_of_a_run_carry_its_number_and_its_object() {
    runtime().block_on(async {
        let world = World::new("logs").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let flags = ["--log-format", "json", "--log-level", "info,plumb_controller=debug"];
        let mut agent = world.agent_with(world.identity.kubeconfig().to_owned(), &flags);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        agent.wait_for_log("\"applied\"", LIMIT).await;
        agent.stop();

        let logs = agent.logs();
        let lines: Vec<Value> =
            logs.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let object = format!("Application {}/web", world.ns);
        let applied = lines.iter().find(|line| line["message"] == "applied").unwrap();
        assert_eq!(applied["span"]["object"], object.as_str(), "{applied}");
        let run: Vec<_> =
            lines.iter().filter(|line| line["span"]["run"] == applied["span"]["run"]).collect();
        assert!(run.iter().all(|line| line["span"]["object"] == object.as_str()), "{run:?}");
        let (first, last) = (run.first().unwrap(), run.last().unwrap());
        assert_eq!((&first["message"], &last["message"]), (&"begins".into(), &"ends".into()));
    });
}

/// A Pod can be asked to go as soon as it has come.
#[test]
fn a_stop_right_after_the_start_ends_in_good_order() {
    runtime().block_on(async {
        let world = World::new("stop").await;
        for _ in 0..5 {
            let mut agent = world.agent();
            agent.wait_for_log("starting", LIMIT).await;
            let status = agent.stop();
            assert!(status.success(), "{status}: {}", agent.logs());
        }
    });
}
