//! Somebody sets the clock of the machine that the agent is on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use plumb_testkit::{Agent, runtime};
use serde_json::json;

use crate::world::{LIMIT, World, condition, config_map};

/// A clock of its own for an agent.
struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    fn in_dir(dir: &Path) -> Self {
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        fs::write(&source, include_str!("clock.c")).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl");
        assert!(compiler.status().unwrap().success());
        Self { library, offset: dir.join("offset") }
    }

    fn set(&self, seconds: i64) {
        let next = self.offset.with_extension("next");
        fs::write(&next, seconds.to_string()).unwrap();
        fs::rename(&next, &self.offset).unwrap();
    }
}

/// The time of day is no measure of what has passed: all goes on, nothing is held for an earlier
/// Application's sake, and the lease stays where it is.
#[test]
fn a_clock_that_is_set_back_an_hour_and_forward_again_changes_nothing() {
    runtime().block_on(async {
        let world = World::new("clock").await;
        let one = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let builder = world.agent_builder(world.identity.kubeconfig().to_owned());
        let clock = Clock::in_dir(builder.dir());
        clock.set(0);
        let builder = builder.env("LD_PRELOAD", &clock.library).env("CLOCK_OFFSET", &clock.offset);
        let mut first: Agent = builder.start();
        world.sync("web", "app", &one).await;
        let leases = world.api("coordination.k8s.io/v1", "Lease");
        let lease = world.get(&leases, "plumb").await;
        let holder = lease["spec"]["holderIdentity"].clone();
        let mut standby = world.agent();
        standby.wait_for_log("standing by", LIMIT).await;
        for (round, seconds) in [-3600, 3600, 0].into_iter().enumerate() {
            clock.set(seconds);
            // It is the clock of the agent that was set.
            world
                .wait_object(&leases, "plumb", |lease| {
                    let renewed: Timestamp =
                        lease["spec"]["renewTime"].as_str().unwrap().parse().unwrap();
                    (renewed.duration_since(Timestamp::now()).as_secs() - seconds).abs() < 600
                })
                .await;
            world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
            let value = format!("{}", round + 1);
            world.wait_value("a", &value).await;
            // A commit that brings something, changes something and takes something away.
            let (next, before) = (format!("n{}", round + 1), format!("n{round}"));
            let (a, n) = (config_map("a", &format!("{}", round + 2)), config_map(&next, "1"));
            let (next_file, before_file) =
                (format!("app/{next}.yaml"), format!("app/{before}.yaml"));
            let mut files = vec![("app/a.yaml", Some(&*a)), (&*next_file, Some(&*n))];
            if round > 0 {
                files.push((&*before_file, None));
            }
            let commit = world.repo.commit(&files, &next);
            world.look().await;
            world.wait_applied("web", &commit).await;
            world.wait_value(&next, "1").await;
            world.wait_gone(&world.config_maps(), &before).await;
            // A new Application's first deletion is not taken for one of an earlier Application.
            let name = format!("new-{round}");
            let two =
                [config_map(&format!("{name}-x"), "1"), config_map(&format!("{name}-y"), "1")];
            let path = format!("{name}/all.yaml");
            let commit = world.repo.commit(&[(&*path, Some(&*two.join("---\n")))], &name);
            world.look().await;
            world.apply(&world.app(&name, &name, "1h")).await;
            world.wait_applied(&name, &commit).await;
            let commit = world.repo.commit(&[(&*path, Some(&*two[0]))], "one less");
            world.look().await;
            let object = world.wait_applied(&name, &commit).await;
            assert_eq!(condition(&object, "PruneHeld"), json!(null), "{object}");
            world.wait_gone(&world.config_maps(), &format!("{name}-y")).await;
            let lease = world.get(&leases, "plumb").await;
            assert_eq!(lease["spec"]["holderIdentity"], holder, "{lease}");
        }
        assert!(first.ended().is_none(), "{}", first.logs());
    });
}
