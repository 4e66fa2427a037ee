//! What somebody changes is seen, told, and put back without a fight.

use std::time::Duration;

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

/// Another controller, or an autoscaler, wants a field that Git has.
#[test]
fn a_fight_over_a_field_slows_down_and_is_told_once() {
    runtime().block_on(async {
        let world = World::new("fight").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "git")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        let maps = world.config_maps();
        world.plane.settled().await;
        let mark = world.plane.audit().mark();

        let fighter = async {
            loop {
                if world.data("a").await.unwrap()["value"] == "git" {
                    world.edit(&maps, "a", &json!({"data": {"value": "theirs"}})).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(30), fighter).await;
        world.plane.settled().await;
        let writes = |resource: &str| {
            let events = world.plane.audit().since(mark).into_iter();
            let ours = events.filter(|e| e.user == world.identity.user() && e.verb == "patch");
            ours.filter(|e| e.resource == resource).count()
        };
        let (objects, statuses) = (writes("configmaps"), writes("applications"));
        assert!((5..=12).contains(&objects), "{objects} corrections in 30 s");
        assert!(statuses <= objects + 3, "{statuses} writes of the status");
        let object =
            world.wait_condition(&world.apps(), "web", ("Drifted", "True"), |_| true).await;
        let drifted = condition(&object, "Drifted");
        assert_eq!(drifted["reason"], "DriftFoughtOver");
        let message = drifted["message"].as_str().unwrap();
        for part in ["/a is changed", "data.value by by-hand", "again and again"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(condition(&object, "Ready")["status"], "True");

        // Giving in ends it at once.
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  other: x\n";
        let commit = world.repo.commit(&[("app/a.yaml", Some(map))], "theirs");
        world.look().await;
        world.wait_applied("web", &commit).await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                condition(object, "Drifted").is_null()
            })
            .await;
        assert!(object["status"]["drift"]["count"].as_u64().unwrap() >= 4, "{object}");
    });
}

/// Leader election writes an annotation of a member every second.
#[test]
fn a_chatty_neighbour_costs_little_and_holds_no_correction_up() {
    runtime().block_on(async {
        let world = World::new("chatty").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "git")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        let maps = world.config_maps();
        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        for second in 0..30 {
            let edit = json!({"metadata": {"annotations": {"leader": second.to_string()}}});
            world.edit(&maps, "a", &edit).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        world.plane.settled().await;
        let events = world.plane.audit().since(mark).into_iter();
        let ours = events.filter(|e| e.user == world.identity.user() && e.verb == "patch");
        let what: Vec<_> = ours.filter(|e| e.resource != "leases").map(|e| e.what()).collect();
        assert!(what.len() <= 12, "{what:?}");

        let begun = std::time::Instant::now();
        world.edit(&maps, "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "git").await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    });
}

/// In Plumb's spelling and in Flux's, as labels and as annotations, in any case.
#[test]
fn marks_on_objects_say_how_they_are_dealt_with() {
    runtime().block_on(async {
        let world = World::new("marks").await;
        let marked = |name: &str, value: &str, place: &str, mark: &str| {
            let text = config_map(name, value);
            text.replace("\ndata:", &format!("\n  {place}: {{{mark}}}\ndata:"))
        };
        let once =
            |value: &str| marked("once", value, "annotations", "plumb.dev/ssa: IfNotPresent");
        let flux = "kustomize.toolkit.fluxcd.io";
        let files = [
            ("app/keep.yaml", marked("keep", "1", "annotations", "plumb.dev/prune: disabled")),
            ("app/too.yaml", marked("too", "1", "labels", &format!("{flux}/prune: Disabled"))),
            ("app/once.yaml", once("1")),
            (
                "app/there.yaml",
                marked("there", "1", "labels", &format!("{flux}/ssa: ifnotpresent")),
            ),
            ("app/not.yaml", marked("not", "1", "annotations", &format!("{flux}/ssa: Ignore"))),
            ("app/off.yaml", marked("off", "1", "labels", "plumb.dev/reconcile: disabled")),
            ("app/free.yaml", config_map("free", "1")),
        ];
        let changes: Vec<_> = files.iter().map(|(path, text)| (*path, Some(&**text))).collect();
        let commit = world.repo.commit(&changes, "marks");
        let maps = world.config_maps();
        let there = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "there", "namespace": world.ns}, "data": {"value": "theirs"},
        });
        world.apply(&there).await;
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let object = world.wait_applied("web", &commit).await;
        let message = condition(&object, "Ready")["message"].to_string();
        assert!(message.contains("7 objects; 3 left alone, as marked"), "{message}");
        assert_eq!((world.data("not").await, world.data("off").await), (None, None));
        let there = world.get(&maps, "there").await;
        assert_eq!(there["data"]["value"], "theirs");
        assert_eq!(there["metadata"]["labels"], Value::Null);

        // Made once, and again only when it is gone.
        world.edit(&maps, "once", &json!({"data": {"value": "by hand"}})).await;
        // Marked on the live object, by somebody who needs it so for a while.
        let mark = "plumb.dev/reconcile";
        let edit = json!({
            "metadata": {"annotations": {mark: "disabled"}}, "data": {"value": "by hand"},
        });
        world.edit(&maps, "free", &edit).await;
        let (once2, free2) = (once("2"), config_map("free", "2"));
        let changes = [("app/once.yaml", Some(&*once2)), ("app/free.yaml", Some(&*free2))];
        let commit = world.repo.commit(&changes, "two");
        world.look().await;
        world.wait_applied("web", &commit).await;
        probe.idle(0).await;
        assert_eq!(world.data("once").await.unwrap()["value"], "by hand");
        assert_eq!(world.data("free").await.unwrap()["value"], "by hand");
        world.delete(&maps, "once").await;
        world.wait_value("once", "2").await;
        world.edit(&maps, "free", &json!({"metadata": {"annotations": {mark: null}}})).await;
        world.wait_value("free", "2").await;

        // What leaves Git goes, unless it is marked.
        let gone: Vec<_> =
            ["keep", "too", "once", "there"].map(|name| format!("app/{name}.yaml")).into();
        let changes: Vec<_> = gone.iter().map(|path| (&**path, None)).collect();
        let commit = world.repo.commit(&changes, "gone");
        world.look().await;
        let object = world.wait_applied("web", &commit).await;
        world.wait_gone(&maps, "once").await;
        for name in ["keep", "too", "there", "free"] {
            assert!(world.data(name).await.is_some(), "{name}");
        }
        let message = condition(&object, "Ready")["message"].to_string();
        assert!(message.contains("3 objects; 2 left alone, as marked"), "{message}");
        assert!(message.contains("left Git but is not deleted: it is marked to stay"), "{message}");

        // So with the Application.
        probe.idle(0).await;
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.apps(), "web").await;
        world.wait_gone(&maps, "free").await;
        assert!(world.data("keep").await.is_some() && world.data("too").await.is_some());
    });
}
