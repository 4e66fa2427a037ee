//! Objects that a spec names to be waited for: `spec.healthChecks`. Nothing here comes by itself within
//! an hour.

use plumb_testkit::{Proxy, runtime, wait_for};
use serde_json::{Value, json};

use crate::waiting::{deployment, install_widgets};
use crate::world::{LIMIT, World, condition, config_map};

impl World {
    /// An Application, of the path of its name, that waits for what it names.
    fn checking(&self, name: &str, checks: &Value, more: &Value) -> Value {
        let mut spec = json!({"wait": false, "timeout": "1h", "healthChecks": checks});
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.waiting(name, &spec)
    }

    /// A Deployment that no Application has.
    async fn make_deployment(&self, name: &str) {
        let pod = json!({
            "terminationGracePeriodSeconds": 0, "nodeSelector": {"no": "node"},
            "containers": [{"name": "main", "image": "image:1"}],
        });
        self.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": self.ns},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
            },
        }))
        .await;
    }
}

#[test]
fn only_what_is_named_is_waited_for_and_whoever_made_it() {
    runtime().block_on(async {
        let world = World::new("checks").await;
        let files = [
            ("web/a.yaml", Some(&*deployment("web", "web:1"))),
            ("web/b.yaml", Some(&*deployment("slow", "slow:1"))),
            ("web/c.yaml", Some(&*config_map("web", "1"))),
        ];
        let commit = world.repo.commit(&files, "one");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        let checks = json!([
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            {"kind": "Deployment", "name": "made", "namespace": world.ns},
            {"apiVersion": "v1", "kind": "Namespace", "name": world.ns},
        ]);
        world.apply(&world.checking("web", &checks, &json!({}))).await;
        // One is its own, one is nobody's so far, and the Namespace is there.
        let object = world.wait_progress("web", "1 of 3 objects are ready").await;
        let waiting = &object["status"]["waiting"]["objects"];
        let made = format!("Deployment.apps {}/made", world.ns);
        assert_eq!(waiting[0]["object"], made, "{object}");
        assert_eq!(waiting[0]["health"], "Missing", "{object}");
        assert_eq!(waiting[0]["message"], "it is not there", "{object}");
        assert_eq!(waiting.as_array().unwrap().len(), 2, "{object}");

        world.set_ready("web", true).await;
        world.make_deployment("made").await;
        world.wait_progress("web", &format!("{made}: 0 of 1 replica is available")).await;
        world.set_ready("made", true).await;
        // The third Deployment never becomes ready.
        let object = world.wait_applied("web", &commit).await;
        assert_eq!(condition(&object, "Healthy")["message"], "3 objects are ready", "{object}");

        world.set_ready("made", false).await;
        world.wait_progress("web", &format!("{made}: 0 of 1 replica is available")).await;
        world.wait_event("web", &["Progressing: ", &made]).await;
        world.set_ready("made", true).await;
        world.wait_applied("web", &commit).await;
        world.set_ready("web", false).await;
        world.wait_progress("web", "/web: 0 of 1 replica is available").await;
        world.set_ready("web", true).await;
        world.wait_applied("web", &commit).await;

        // A restart writes nothing, and sees what breaks.
        assert!(agent.stop().success());
        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        let mut agent = world.agent();
        let probe = crate::scrape::Probe::of(&mut agent).await;
        probe.idle(2).await;
        world.plane.settled().await;
        let sent = world.plane.audit().requests(mark).by(&world.identity.user());
        let writes = sent.writes().only(|event| event.resource != "leases");
        assert_eq!(writes.counts(), [].into(), "{}", writes.table());
        world.delete(&world.api("apps/v1", "Deployment"), "made").await;
        let parts = [&*made, "it is not there"];
        world.wait_refused(&world.apps(), "web", "HealthCheckFailed", &parts).await;

        // It is asked for no more.
        let some = json!([checks[0]]);
        world.apply(&world.checking("web", &some, &json!({}))).await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Healthy", "True"), |object| {
                condition(object, "Ready")["status"] == "True"
            })
            .await;
        assert_eq!(condition(&object, "Healthy")["message"], "1 object is ready", "{object}");
    });
}

#[test]
fn what_is_named_is_waited_for_beside_all_that_an_application_has() {
    runtime().block_on(async {
        let world = World::new("checks-all").await;
        let files = [
            ("web/a.yaml", Some(&*deployment("web", "web:1"))),
            ("web/c.yaml", Some(&*config_map("web", "1"))),
        ];
        let commit = world.repo.commit(&files, "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let checks = json!([
            {"kind": "Deployment", "name": "web"},
            {"kind": "Deployment", "name": "made"},
        ]);
        let app = |timeout: &str| {
            world.checking("web", &checks, &json!({"wait": true, "timeout": timeout}))
        };
        world.apply(&app("7s")).await;
        world.set_ready("web", true).await;
        let parts = ["2 of 3 objects are ready", "after 7s", "/made: it is not there"];
        world.wait_refused(&world.apps(), "web", "HealthCheckFailed", &parts).await;
        world.wait_event("web", &["HealthCheckFailed: ", "/made: it is not there"]).await;
        world.make_deployment("made").await;
        world.set_ready("made", true).await;
        let object = world.wait_applied("web", &commit).await;
        assert_eq!(condition(&object, "Healthy")["message"], "3 objects are ready", "{object}");

        // It comes into the path, and leaves it again.
        let files = [("web/b.yaml", Some(&*deployment("made", "image:1")))];
        let commit = world.repo.commit(&files, "ours");
        world.look().await;
        let object = world.wait_applied("web", &commit).await;
        assert_eq!(condition(&object, "Healthy")["message"], "3 objects are ready", "{object}");
        let commit = world.repo.commit(&[("web/b.yaml", None)], "nobody's");
        world.look().await;
        let parts = [&commit[..12], "2 of 3 objects are ready", "/made: it is not there"];
        world.wait_refused(&world.apps(), "web", "HealthCheckFailed", &parts).await;
    });
}

/// A kind of its own, which comes after the Application and is judged by a rule of its spec; and a
/// Secret, of which nobody reads more than that it is there.
#[test]
fn a_kind_that_comes_later_is_judged_by_own_rules_and_a_secret_is_not_read() {
    runtime().block_on(async {
        let world = World::new("checks-kind").await;
        let commit = world.repo.commit(&[("web/c.yaml", Some(&*config_map("web", "1")))], "one");
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.apply(&world.source("1h")).await;
        let version = format!("{}.example.com/v1", world.ns);
        let checks = json!([
            {"apiVersion": version, "kind": "Widget", "name": "w"},
            {"apiVersion": "v1", "kind": "Secret", "name": "made"},
        ]);
        let rule = json!([{
            "apiVersion": version, "kind": "Widget", "current": "status.phase == 'Done'",
            "failed": "status.phase == 'Broken'",
        }]);
        let app = world.checking("web", &checks, &json!({"healthCheckExprs": rule}));
        world.apply(&app).await;
        let object = world.wait_progress("web", "0 of 2 objects are ready").await;
        let waiting = object["status"]["waiting"].to_string();
        assert!(waiting.contains(&format!("the cluster has no {version} Widget")), "{waiting}");
        assert!(waiting.contains("Secret"), "{waiting}");

        world.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "made", "namespace": world.ns},
            "stringData": {"a": "hidden"},
        })).await;
        world.wait_progress("web", "1 of 2 objects are ready").await;
        install_widgets(&world).await;
        world.wait_progress("web", "/w: it is not there").await;
        let widgets = world.api(&version, "Widget");
        let object = json!({
            "apiVersion": version, "kind": "Widget",
            "metadata": {"name": "w", "namespace": world.ns}, "spec": {"size": 3},
        });
        world.apply(&object).await;
        world.wait_progress("web", "it has no status yet").await;
        world.set_status(&widgets, "w", &json!({"phase": "Broken"})).await;
        let parts = ["one cannot become so by itself", "Widget"];
        world.wait_refused(&world.apps(), "web", "HealthCheckFailed", &parts).await;
        world.set_status(&widgets, "w", &json!({"phase": "Done"})).await;
        world.wait_applied("web", &commit).await;
        // A generation later, by another rule.
        let mut other = app.clone();
        other["spec"]["healthCheckExprs"][0]["current"] = json!("status.phase == 'Over'");
        world.apply(&other).await;
        world.wait_progress("web", "1 of 2 objects are ready").await;
        world.set_status(&widgets, "w", &json!({"phase": "Over"})).await;
        world.wait_applied("web", &commit).await;

        let secrets = world.api("v1", "Secret");
        world.delete(&secrets, "made").await;
        let parts = ["/made: it is not there"];
        world.wait_refused(&world.apps(), "web", "HealthCheckFailed", &parts).await;
        assert_eq!(proxy.leaks("aGlkZGVu"), Vec::<String>::new());
    });
}

/// What an object of another Application says is told, unless it was given a value of a Secret.
#[test]
fn what_an_object_of_another_application_says_is_told_unless_it_may_quote_a_secret() {
    runtime().block_on(async {
        let world = World::new("checks-quote").await;
        let quoting = deployment("quotes", "image:${TOKEN}");
        let files = [
            ("them/a.yaml", Some(&*deployment("plain", "image:1"))),
            ("them/b.yaml", Some(&*quoting)),
            ("web/c.yaml", Some(&*config_map("web", "1"))),
        ];
        let commit = world.repo.commit(&files, "one");
        world.apply(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "values", "namespace": world.ns}, "stringData": {"TOKEN": "hunter2"},
        })).await;
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut them = world.app("them", "them", "1h");
        them["spec"]["postBuild"] =
            json!({"substituteFrom": [{"kind": "Secret", "name": "values"}]});
        world.apply(&them).await;
        world.wait_applied("them", &commit).await;
        let checks = json!([
            {"kind": "Deployment", "name": "plain"}, {"kind": "Deployment", "name": "quotes"},
        ]);
        world.apply(&world.checking("web", &checks, &json!({}))).await;
        let object = world.wait_progress("web", "0 of 2 objects are ready").await;
        let waiting = &object["status"]["waiting"]["objects"];
        assert_eq!(waiting[0]["message"], "0 of 1 replica is available", "{object}");
        let message = waiting[1]["message"].as_str().unwrap();
        assert!(message.starts_with("why is not told here"), "{object}");
    });
}

/// Both tell it within seconds, and hold nothing meanwhile.
#[test]
fn two_that_wait_for_each_other_say_so() {
    runtime().block_on(async {
        let world = World::new("checks-circle").await;
        let maps = ["a", "b"].map(|name| (format!("{name}/a.yaml"), config_map(name, "1")));
        let files = maps.each_ref().map(|(path, text)| (path.as_str(), Some(text.as_str())));
        world.repo.commit(&files, "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let on = |name: &str| {
            json!([{"apiVersion": "plumb.dev/v1alpha1", "kind": "Application", "name": name}])
        };
        for (name, other) in [("a", "b"), ("b", "a")] {
            world.apply(&world.checking(name, &on(other), &json!({}))).await;
        }
        for (name, other) in [("a", "b"), ("b", "a")] {
            let part = format!("waiting for Application.plumb.dev {}/{other}", world.ns);
            world.wait_progress(name, &part).await;
        }
        // Itself it does not wait for.
        world.apply(&world.checking("b", &on("b"), &json!({}))).await;
        for name in ["b", "a"] {
            wait_for(&format!("{name} to be ready"), LIMIT, async || {
                let object = world.get(&world.apps(), name).await;
                let is_ready = condition(&object, "Ready")["status"] == "True";
                if is_ready { Ok(()) } else { Err(object["status"].clone()) }
            })
            .await;
        }
    });
}
