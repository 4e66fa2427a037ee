//! What Applications say that they want, and what that keeps from being deleted or touched.

use plumb_testkit::control_plane::Mark;
use plumb_testkit::{Fault, Match, Proxy, Rule, runtime, wait_for};
use serde_json::{Value, json};

use crate::handover::{assert_quiet, one_at_a_time, uid, wait_owner};
use crate::scrape::Probe;
use crate::world::{LIMIT, World, config_map};

/// The applies of a config map without force that the API server refused since: how often somebody
/// asked for what another one had.
fn refused_claims(world: &World, mark: Mark, name: &str) -> usize {
    let requests = world.plane.audit().requests(mark).by(&world.identity.user());
    let claims = requests.only(|event| {
        event.name == name
            && event.verb == "patch"
            && event.code == 409
            && !event.uri.contains("force=true")
    });
    claims.len()
}

/// The same object, there and back. Whoever looks first: the one that gives or the one that takes.
#[test]
fn one_object_goes_there_and_back_whoever_of_both_looks_first() {
    runtime().block_on(async {
        let world = World::new("both-orders").await;
        let x = |value: &str| config_map("x", value);
        world.repo.commit(
            &[
                ("a/keep.yaml", Some(&config_map("keep-a", "1"))),
                ("b/keep.yaml", Some(&config_map("keep-b", "1"))),
                ("a/x.yaml", Some(&x("0"))),
            ],
            "one in a",
        );
        let _agent = one_at_a_time(&world);
        world.sync_each(&["a", "b"]).await;
        let before = uid(&world, "x").await;
        // `a` always has its turn first. Who takes after the other one gave is refused once, and then
        // takes over; who takes before is refused, waits, and is refused and takes over later.
        for (value, from, to, refused) in [("1", "a", "b", 1), ("2", "b", "a", 2)] {
            world.plane.settled().await;
            let mark = world.plane.audit().mark();
            let (old, new) = (format!("{from}/x.yaml"), format!("{to}/x.yaml"));
            let commit = world.repo.commit(&[(&old, None), (&new, Some(&x(value)))], "moved");
            world.look().await;
            for app in ["a", "b"] {
                world.wait_applied(app, &commit).await;
            }
            wait_owner(&world, to, "x").await;
            world.wait_value("x", value).await;
            assert_eq!(uid(&world, "x").await, before);
            assert_quiet(&world, mark, &["a", "b"]).await;
            assert_eq!(refused_claims(&world, mark, "x"), refused, "from {from} to {to}");
        }
        // It is enforced and deleted as if it had been there from the start.
        world.edit(&world.config_maps(), "x", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("x", "2").await;
        world.repo.commit(&[("a/x.yaml", None)], "gone");
        world.look().await;
        world.wait_gone(&world.config_maps(), "x").await;
    });
}

/// It never had a finalizer, so nothing else tells that it is gone.
#[test]
fn what_an_application_wanted_that_is_deleted_during_its_first_run_holds_nothing() {
    runtime().block_on(async {
        let world = World::new("phantom").await;
        let (x, keep) = (config_map("x", "1"), config_map("keep", "1"));
        let files = [
            ("one/x.yaml", Some(&*x)),
            ("one/keep.yaml", Some(&*keep)),
            ("two/x.yaml", Some(&*x)),
            ("after/a.yaml", Some("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: a\n")),
        ];
        world.repo.commit(&files, "two want one object");
        let values = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "values", "namespace": world.ns}, "data": {"key": "value"},
        });
        world.apply(&values).await;
        let proxy = Proxy::to_api(&world.plane, 1).await;
        // With that lease it waits for an answer for half a minute.
        let args = ["--lease-duration", "60s"];
        let mut agent = world.agent_with(world.identity.through(&proxy.url()), &args);
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("one", "one", "1h")).await;
        world.wait_condition(&world.apps(), "one", ("Ready", "True"), |_| true).await;

        // Its run is under way, and has not said yet what it wants, when it goes.
        let mark = proxy.mark();
        let mut hold = proxy.hold(Match::method("GET").path("/configmaps/values"));
        let mut two = world.app("two", "two", "1h");
        two["spec"]["postBuild"] =
            json!({"substituteFrom": [{"kind": "ConfigMap", "name": "values"}]});
        world.apply(&two).await;
        hold.arrived(LIMIT).await;
        world.delete(&world.apps(), "two").await;
        world.wait_gone(&world.apps(), "two").await;
        // The watch tells in order: who is done with this one knows that the other one is gone.
        world.apply(&world.app("after", "after", "1h")).await;
        world.wait_condition(&world.apps(), "after", ("Ready", "True"), |_| true).await;
        hold.release();
        probe.idle(0).await;
        let read = proxy.since(mark).into_iter();
        let read = read.filter(|e| e.request.path.ends_with("/configmaps/values"));
        assert_eq!(read.map(|e| e.status).collect::<Vec<_>>(), [Some(200)], "it went on");

        let commit = world.repo.commit(&[("one/x.yaml", None)], "gone");
        world.look().await;
        world.wait_applied("one", &commit).await;
        world.wait_gone(&world.config_maps(), "x").await;
    });
}

/// What an earlier process found marked, and let go, this one has to find out: until it has been through
/// all of its Application once, each object that it does not have is looked at before it is claimed.
/// Putting back what somebody changed is no such round.
#[test]
fn a_correction_in_between_is_no_reason_to_claim_without_a_look() {
    const MARK: &str = "plumb.dev/reconcile";
    runtime().block_on(async {
        let world = World::new("unlooked").await;
        let maps = world.config_maps();
        let first = "apiVersion: v1\nkind: Service\nmetadata:\n  name: first\nspec:\n  ports:\n  \
                     - {port: 80}\n";
        // It has its turn after that.
        let after = format!(
            "\n  annotations: {{config.kubernetes.io/depends-on: \
             /namespaces/{}/Service/first}}\ndata:",
            world.ns
        );
        let late = config_map("a", "1").replace("\ndata:", &after);
        let b = config_map("b", "1");
        let files = [
            ("old/a.yaml", Some(&*late)),
            ("old/first.yaml", Some(first)),
            ("web/b.yaml", Some(&*b)),
        ];
        world.repo.commit(&files, "two folders");
        let mut agent = world.agent();
        world.sync_each(&["old", "web"]).await;
        world.annotate(&maps, "a", MARK, "disabled").await;
        world.delete(&world.apps(), "old").await;
        world.wait_gone(&world.apps(), "old").await;
        assert_eq!(world.get(&maps, "a").await["metadata"]["labels"], Value::Null);
        assert!(agent.stop().success());
        world.plane.settled().await;
        let mark = world.plane.audit().mark();

        // No run of the next process comes to it, since each ends at what comes before.
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let first_one = Match::method("PATCH").path("/services/first");
        let cut = proxy.add(Rule::new(first_one, Fault::CutBefore));
        let files = [("web/first.yaml", Some(first)), ("web/a.yaml", Some(&*late))];
        let commit = world.repo.commit(&files, "two more");
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.look().await;
        // From then on it waits long, and what somebody changes is put back in between.
        let mut tried = wait_for("some tries", LIMIT, async || {
            let tries = proxy.hits(cut);
            if tries >= 4 { Ok(tries) } else { Err(tries) }
        })
        .await;
        loop {
            world.edit(&maps, "b", &json!({"data": {"value": "by hand"}})).await;
            world.wait_value("b", "1").await;
            let before = std::mem::replace(&mut tried, proxy.hits(cut));
            if before == tried {
                break;
            }
        }
        proxy.remove(cut);
        world.wait_applied("web", &commit).await;
        world.plane.settled().await;
        let written = world.plane.audit().since(mark).into_iter().filter(|event| {
            event.user == world.identity.user() && event.name == "a" && event.verb != "get"
        });
        assert_eq!(written.map(|event| event.what()).collect::<Vec<_>>(), [""; 0]);
        world.annotate(&maps, "a", MARK, "enabled").await;
        world.request(&world.apps(), "web", "now").await;
        wait_owner(&world, "web", "a").await;
    });
}

/// Events are the one kind of the API server that it serves in two groups: what stands in Git under
/// another one is the same object.
#[test]
fn what_was_applied_under_another_kind_is_not_pruned_under_the_first() {
    runtime().block_on(async {
        let world = World::new("two-kinds").await;
        let event = |version: &str, about: &str, text: &str| {
            format!(
                "apiVersion: {version}\nkind: Event\nmetadata: {{name: e}}\nreason: Made\n\
                 type: Normal\n{text}: by Git\n{about}: {{apiVersion: v1, kind: ConfigMap, \
                 name: keep, namespace: {}}}\n",
                world.ns
            )
        };
        let (old, new) = (
            event("v1", "involvedObject", "message"),
            event("events.k8s.io/v1", "regarding", "note"),
        );
        let keep = config_map("keep", "1");
        let files = [("app/keep.yaml", Some(&*keep)), ("app/e.yaml", Some(&*old))];
        let commit = world.repo.commit(&files, "an event");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.sync("web", "app", &commit).await;
        let events = world.api("v1", "Event");
        let before = world.get(&events, "e").await["metadata"]["uid"].clone();
        world.plane.settled().await;
        let mark = world.plane.audit().mark();

        let commit = world.repo.commit(&[("app/e.yaml", Some(&*new))], "of another group");
        world.look().await;
        world.wait_applied("web", &commit).await;
        probe.idle(0).await;
        assert_quiet(&world, mark, &["web"]).await;
        assert_eq!(world.get(&events, "e").await["metadata"]["uid"], before);

        // It goes when Git has it under no kind.
        world.repo.commit(&[("app/e.yaml", None)], "none");
        world.look().await;
        world.wait_gone(&events, "e").await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
    });
}
