//! History that is written anew under a GitRepository.

use plumb_testkit::runtime;
use serde_json::json;

use crate::world::{World, config_map};

#[test]
fn history_written_anew_waits_for_a_person_where_that_is_asked_for() {
    runtime().block_on(async {
        let world = World::new("rewrite-hold").await;
        let value = |text: &str| config_map("a", text);
        let first = world.repo.commit(&[("app/a.yaml", Some(&value("1")))], "first");
        let _agent = world.agent();
        let mut source = world.source("1h");
        source["spec"]["onRewrite"] = json!("Hold");
        world.apply(&source).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;

        // Commits on top are no rewrite, however many come at once.
        for text in ["2", "3", "4"] {
            world.repo.commit(&[("app/a.yaml", Some(&value(text)))], "on top");
        }
        let fourth = world.repo.head();
        world.look().await;
        world.wait_applied("web", &fourth).await;

        let amended = world.repo.amend(&[("app/a.yaml", Some(&value("5")))], "with force");
        world.look().await;
        let step = format!("{fourth}..{amended}");
        let parts = [
            &*format!("main@sha1:{}", &amended[..12]),
            &*format!("does not follow main@sha1:{}", &fourth[..12]),
            "plumb.dev/accept-rewrite",
            &step,
        ];
        world.wait_refused(&world.sources(), "repo", "HistoryRewritten", &parts).await;
        // What was there stays, and stays enforced.
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "4").await;

        // Another commit than the one that was pushed is not meant.
        let accept = async |commit: &str| {
            let name = "plumb.dev/accept-rewrite";
            world.annotate(&world.sources(), "repo", name, commit).await;
        };
        accept(&fourth).await;
        world.look().await;
        world.wait_refused(&world.sources(), "repo", "HistoryRewritten", &parts).await;
        accept(&step).await;
        world.wait_applied("web", &amended).await;
        world.wait_value("a", "5").await;

        // From there on it is history like any other.
        let next = world.repo.commit(&[("app/a.yaml", Some(&value("6")))], "on top");
        world.look().await;
        world.wait_applied("web", &next).await;
    });
}

#[test]
fn history_written_anew_is_told_where_it_is_taken() {
    runtime().block_on(async {
        let world = World::new("rewrite-take").await;
        let value = |text: &str| config_map("a", text);
        let first = world.repo.commit(&[("app/a.yaml", Some(&value("1")))], "first");
        world.repo.tag("v1.0.0", &first);
        let _agent = world.agent();
        world.sync("web", "app", &first).await;
        let amended = world.repo.amend(&[("app/a.yaml", Some(&value("2")))], "with force");
        world.look().await;
        world.wait_applied("web", &amended).await;
        let told = ["HistoryRewritten", "does not follow", &first[..12]];
        world.wait_event("repo", &told).await;

        // A tag that is moved forward is as much a surprise as one that is moved elsewhere.
        let mut source = world.source("1h");
        source["metadata"]["name"] = json!("tagged");
        source["spec"]["ref"] = json!({"semver": "1.x"});
        source["spec"]["onRewrite"] = json!("Hold");
        world.apply(&source).await;
        world.wait_condition(&world.sources(), "tagged", ("Ready", "True"), |_| true).await;
        let next = world.repo.commit(&[("app/a.yaml", Some(&value("3")))], "on top");
        world.repo.delete_tag("v1.0.0");
        world.repo.tag("v1.0.0", &next);
        world.request(&world.sources(), "tagged", "moved").await;
        let parts = ["the tag was moved", "v1.0.0@sha1:", &*next];
        world.wait_refused(&world.sources(), "tagged", "HistoryRewritten", &parts).await;
        // A new version is none.
        world.repo.tag("v1.1.0", &next);
        world.request(&world.sources(), "tagged", "released").await;
        let tip = format!("v1.1.0@sha1:{next}");
        world
            .wait_condition(&world.sources(), "tagged", ("Ready", "True"), |object| {
                object["status"]["revision"] == tip
            })
            .await;
    });
}
