//! Objects that a mark keeps all off, while what they belong to goes or comes.

use plumb_testkit::{Fault, Match, Proxy, Rule, runtime};
use serde_json::Value;

use crate::handover::{assert_quiet, one_at_a_time, ready, uid, wait_owner};
use crate::world::{LIMIT, World, config_map};

#[test]
fn what_a_mark_keeps_all_off_holds_up_no_end() {
    runtime().block_on(async {
        let world = World::new("rename-marked").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = one_at_a_time(&world);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("old", "app", "1h")).await;
        ready(&world, "old").await;
        let (maps, mark) = (world.config_maps(), "plumb.dev/reconcile");
        world.annotate(&maps, "a", mark, "disabled").await;
        let before = uid(&world, "a").await;
        let from = world.plane.audit().mark();
        world.apply(&world.app("new", "app", "1s")).await;
        ready(&world, "new").await;
        world.delete(&world.apps(), "old").await;
        world.wait_gone(&world.apps(), "old").await;
        assert_quiet(&world, from, &["new"]).await;
        let said = world.plane.audit().since(from).into_iter().map(|event| event.body.to_string());
        let waits: Vec<_> = said.filter(|body| body.contains("waiting for other")).collect();
        assert!(waits.is_empty(), "{waits:?}");
        assert_eq!(world.get(&maps, "a").await["metadata"]["labels"], Value::Null);
        world.annotate(&maps, "a", mark, "enabled").await;
        wait_owner(&world, "new", "a").await;
        assert_eq!(uid(&world, "a").await, before);
    });
}

/// The owner goes before it knows of the mark, and waits for one that will not take it.
#[test]
fn a_mark_that_is_seen_late_ends_the_waiting_for_whoever_does_not_take_it() {
    runtime().block_on(async {
        let world = World::new("rename-marked-unseen").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let proxy = Proxy::to_api(&world.plane, 1).await;
        // What cannot be watched is listed every half minute.
        let watches = Match::method("GET").path("/configmaps").query("watch=true");
        proxy.add(Rule::new(watches, Fault::Status { code: 403, retry_after: None }));
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("old", "app", "1h")).await;
        ready(&world, "old").await;
        let (maps, mark) = (world.config_maps(), "plumb.dev/reconcile");
        // The list that follows this one is half a minute away.
        let lists = Match::method("GET").path("/configmaps").query("labelSelector");
        let lists = lists.when(|seen| {
            ["watch=true", "part-of%3D", "part-of="].iter().all(|part| !seen.query.contains(part))
        });
        proxy.hold(lists.clone()).arrived(LIMIT).await;
        let mut hold = proxy.hold(lists);
        world.annotate(&maps, "a", mark, "disabled").await;
        world.apply(&world.app("new", "app", "1h")).await;
        ready(&world, "new").await;
        world.delete(&world.apps(), "old").await;
        hold.arrived(LIMIT).await;
        world.get(&world.apps(), "old").await;
        hold.release();
        world.wait_gone(&world.apps(), "old").await;
        assert_eq!(world.get(&maps, "a").await["metadata"]["labels"], Value::Null);
    });
}

#[test]
fn what_a_mark_keeps_all_off_is_not_claimed_by_the_next() {
    runtime().block_on(async {
        let world = World::new("rename-marked-late").await;
        world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "1"))),
                ("app/b.yaml", Some(&config_map("b", "1"))),
            ],
            "two",
        );
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("old", "app", "1h")).await;
        ready(&world, "old").await;
        let (maps, mark) = (world.config_maps(), "plumb.dev/reconcile");
        world.annotate(&maps, "a", mark, "disabled").await;
        world.delete(&world.apps(), "old").await;
        world.wait_gone(&world.apps(), "old").await;
        world.wait_gone(&maps, "b").await;
        world.plane.settled().await;
        let from = world.plane.audit().mark();
        world.apply(&world.app("new", "app", "1s")).await;
        ready(&world, "new").await;
        wait_owner(&world, "new", "b").await;
        // Another process does not know of the mark, nor does the watch tell it.
        assert!(agent.stop().success());
        let _agent = world.agent();
        world.request(&world.apps(), "new", "now").await;
        world
            .wait_condition(&world.apps(), "new", ("Ready", "True"), |object| {
                object["status"]["lastHandledReconcileAt"] == "now"
            })
            .await;
        world.plane.settled().await;
        let written = world.plane.audit().since(from).into_iter().filter(|event| {
            event.user == world.identity.user() && event.name == "a" && event.verb != "get"
        });
        assert_eq!(written.map(|event| event.what()).collect::<Vec<_>>(), [""; 0]);
        world.annotate(&maps, "a", mark, "enabled").await;
        wait_owner(&world, "new", "a").await;
    });
}
