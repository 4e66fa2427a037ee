//! What somebody changes is seen, told, and put back without a fight.

use plumb_testkit::{Fault, Match, Proxy, Rule, runtime};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{World, condition, config_map};

const SECRET: &str =
    "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  key: from-git\n";

/// A right is missing, or a webhook that converts a kind is down.
#[test]
fn a_kind_that_cannot_be_read_is_told_and_nothing_of_it_is_taken_for_gone() {
    runtime().block_on(async {
        let world = World::new("blind").await;
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let forbidden = || Fault::Status { code: 403, retry_after: None };
        let watches = Match::method("GET").path("/configmaps").query("watch=true");
        proxy.add(Rule::new(watches, forbidden()));
        let lists = Match::method("GET").path("/secrets").query("labelSelector");
        let lists = proxy.add(Rule::new(lists, forbidden()));
        let files = [("app/a.yaml", Some(&*config_map("a", "1"))), ("app/s.yaml", Some(SECRET))];
        let commit = world.repo.commit(&files, "two kinds");
        let kubeconfig = world.identity.through(&proxy.url());
        let mut agent = world.agent_with(kubeconfig, &[]);
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        let object =
            world.wait_condition(&world.apps(), "web", ("Drifted", "Unknown"), |_| true).await;
        let drifted = condition(&object, "Drifted");
        assert_eq!(drifted["reason"], "KindUnreadable");
        let message = drifted["message"].as_str().unwrap();
        assert!(message.contains("cannot list secrets: Forbidden"), "{message}");
        assert_eq!(condition(&object, "Ready")["status"], "True");
        assert_eq!(probe.scrape().await.sum("plumb_unreadable_kinds", ""), 1);

        // What can be listed but not watched is looked at now and then.
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;

        // Gone from Git, and nobody knows what of it is left.
        world.repo.commit(&[("app/s.yaml", None)], "no secret");
        world.look().await;
        let parts = ["Secret", "cannot tell which", "Forbidden"];
        world.wait_refused(&world.apps(), "web", "PruneFailed", &parts).await;
        let secrets = world.api("v1", "Secret");
        world.get(&secrets, "s").await;

        proxy.remove(lists);
        world.wait_gone(&secrets, "s").await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                condition(object, "Drifted").is_null()
            })
            .await;
        assert_eq!(object["status"]["failures"], Value::Null);
        assert_eq!(probe.scrape().await.sum("plumb_unreadable_kinds", ""), 0);
    });
}
