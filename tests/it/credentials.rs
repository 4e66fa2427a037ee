//! Secrets that a GitRepository names.

use plumb_testkit::{runtime, wait_for};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, config_map};

#[test]
fn a_secret_that_changes_is_taken_up_at_once_and_read_only_then() {
    runtime().block_on(async {
        let world = World::new("credentials").await;
        world.repo.commit(&[("a.yaml", Some(&config_map("a", "1")))], "one");
        let login = |password: &str| json!({"username": "robot", "password": password});
        world.git.require("repo", "robot", "first-hunter2");
        world.apply(&world.secret("git", &login("first-hunter2"))).await;
        let mark = world.plane.audit().mark();
        let agent = world.agent();
        let mut source = world.source("1h");
        source["spec"]["secretRef"] = json!({"name": "git"});
        world.apply(&source).await;
        world.apply(&world.app("web", "./", "1h")).await;
        world.wait_value("a", "1").await;
        world.wait_condition(&world.sources(), "repo", ("Ready", "True"), |_| true).await;
        let user = world.identity.user();
        let asked = |mark, verb: &'static str| {
            let requests = world.plane.audit().requests(mark).by(&user);
            let secrets = requests.only(|event| event.verb == verb && event.resource == "secrets");
            secrets.counts().values().sum::<usize>()
        };
        wait_for("a watch of Secrets", LIMIT, async || {
            if asked(mark, "watch") > 0 { Ok(()) } else { Err("none") }
        })
        .await;

        // A look without news reads nothing of it again.
        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        for value in ["one", "two", "three"] {
            world.request(&world.sources(), "repo", value).await;
            let handled = |object: &Value| object["status"]["lastHandledReconcileAt"] == value;
            world.wait_object(&world.sources(), "repo", handled).await;
        }
        world.plane.settled().await;
        assert_eq!(asked(mark, "get"), 0);

        // Nothing else says within an hour that there is something new.
        world.repo.commit(&[("a.yaml", Some(&config_map("a", "2")))], "two");
        world.git.require("repo", "robot", "second-hunter2");
        world.apply(&world.secret("git", &login("second-hunter2"))).await;
        world.wait_value("a", "2").await;
        world.plane.settled().await;
        assert_eq!(asked(mark, "get"), 1);

        // One that goes is told, one that comes is taken up, and of a proxy as well.
        let sources = world.sources();
        let secrets = world.api("v1", "Secret");
        world.delete(&secrets, "git").await;
        let parts = ["Secret git does not exist", "spec.secretRef.name"];
        world.wait_refused(&sources, "repo", "SecretNotFound", &parts).await;
        world.apply(&world.secret("git", &login("second-hunter2"))).await;
        world.wait_condition(&sources, "repo", ("Ready", "True"), |_| true).await;
        let named = json!({"spec": {"proxySecretRef": {"name": "proxy"}}});
        world.edit(&sources, "repo", &named).await;
        let parts = ["Secret proxy does not exist", "spec.proxySecretRef.name"];
        world.wait_refused(&sources, "repo", "SecretNotFound", &parts).await;
        let address = json!({"address": "http://ada:hunter2@127.0.0.1:1"});
        world.apply(&world.secret("proxy", &address)).await;
        let parts = ["http://127.0.0.1:1", "carries credentials"];
        world.wait_refused(&sources, "repo", "ProxyInvalid", &parts).await;
        world.apply(&world.secret("proxy", &json!({"address": "http://127.0.0.1:1"}))).await;
        let parts = ["cannot connect to the proxy 127.0.0.1:1"];
        world.wait_refused(&sources, "repo", "ProxyUnreachable", &parts).await;
        assert!(!agent.logs().contains("hunter2"), "{}", agent.logs());
    });
}
