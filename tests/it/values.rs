//! Values of the cluster in objects of Git: `spec.postBuild`.

use kube::api::{Patch, PatchParams};
use plumb_testkit::{runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

/// A ConfigMap or Secret of text, made by somebody else.
fn values(world: &World, kind: &str, name: &str, data: &[(&str, &str)]) -> Value {
    let field = if kind == "Secret" { "stringData" } else { "data" };
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {"name": name, "namespace": world.ns}, field: data,
    })
}

/// An Application with values, of which nothing comes by itself within an hour.
fn with_values(world: &World, name: &str, post_build: &Value) -> Value {
    let mut app = world.app(name, "app", "1h");
    app["spec"]["postBuild"] = post_build.clone();
    app["spec"]["retryInterval"] = json!("1h");
    app
}

#[test]
fn a_value_that_changes_comes_or_goes_is_applied_at_once() {
    runtime().block_on(async {
        let world = World::new("values").await;
        let text = "${TIER} ${REGION} ${TOKEN:=none} ${EXTRA:-none}";
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", text)))], "one");
        world.apply(&values(&world, "ConfigMap", "region", &[("REGION", "eu")])).await;
        world.apply(&values(&world, "Secret", "token", &[("TOKEN", "t1"), ("TIER", "x")])).await;
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        let from = |kind: &str, name: &str| json!({"kind": kind, "name": name});
        let mut extra = from("ConfigMap", "extra");
        extra["optional"] = json!(true);
        let post_build = json!({
            "substitute": {"TIER": "gold"},
            "substituteFrom": [from("ConfigMap", "region"), from("Secret", "token"), extra],
        });
        world.apply(&with_values(&world, "web", &post_build)).await;
        world.wait_applied("web", &commit).await;
        world.wait_value("a", "gold eu t1 none").await;

        let region = |value: &str| json!({"data": {"REGION": value}});
        world.edit(&world.config_maps(), "region", &region("us")).await;
        world.wait_value("a", "gold us t1 none").await;
        let secrets = world.api("v1", "Secret");
        world.edit(&secrets, "token", &json!({"stringData": {"TOKEN": "t2"}})).await;
        world.wait_value("a", "gold us t2 none").await;
        world.apply(&values(&world, "ConfigMap", "extra", &[("EXTRA", "more")])).await;
        world.wait_value("a", "gold us t2 more").await;
        world.delete(&world.config_maps(), "extra").await;
        world.wait_value("a", "gold us t2 none").await;

        // Without one that is needed, what was applied last stays and is kept so.
        world.delete(&world.config_maps(), "region").await;
        let parts = [format!("ConfigMap {}/region", world.ns), "substituteFrom[0]".to_owned()];
        let parts = parts.each_ref().map(String::as_str);
        let object = world.wait_refused(&world.apps(), "web", "ValuesNotFound", &parts).await;
        assert_eq!(condition(&object, "Stalled")["status"], "True");
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "gold us t2 none").await;
        world.apply(&values(&world, "ConfigMap", "region", &[("REGION", "ap")])).await;
        world.wait_value("a", "gold ap t2 none").await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;

        // What is written again as it is renders nothing, nor does a start.
        let sum = async |agent: &mut plumb_testkit::Agent| {
            let probe = Probe::of(agent).await;
            probe.scrape().await.sum("plumb_applied_objects_total", "")
        };
        let before = sum(&mut agent).await;
        let status = world.get(&world.apps(), "web").await["status"].clone();
        world.annotate(&world.config_maps(), "region", "note", "unchanged").await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "gold ap t2 none").await;
        wait_for("the correction to be told", LIMIT, async || {
            let now = world.get(&world.apps(), "web").await["status"].clone();
            if now["drift"]["count"] == 1 { Ok(()) } else { Err(now) }
        })
        .await;
        assert_eq!(sum(&mut agent).await, before, "corrected, and nothing applied");
        let after = world.get(&world.apps(), "web").await["status"].clone();
        assert_eq!(after["history"], status["history"]);
        assert!(agent.stop().success());
        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        wait_for("the Application to be seen as ready", LIMIT, async || {
            let scrape = probe.scrape().await;
            let ready = scrape.sum("plumb_ready", "kind=\"Application\"");
            if ready == 1 { Ok(()) } else { Err(scrape) }
        })
        .await;
        world.plane.settled().await;
        let asked = world.plane.audit().requests(mark).by(&world.identity.user());
        let writes = asked.writes().only(|event| event.resource != "leases");
        assert_eq!(writes.counts().len(), 0, "{}", writes.table());
    });
}

#[test]
fn a_variable_without_value_and_a_bad_name_are_told_with_their_place() {
    runtime().block_on(async {
        let world = World::new("novalue").await;
        let lines = config_map("a", "x ${NONE} y");
        world.repo.commit(&[("app/a.yaml", Some(&lines))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let post_build = json!({
            "substitute": {"OTHER": "1"},
            "substituteFrom": [{"kind": "ConfigMap", "name": "names", "optional": true}],
        });
        world.apply(&with_values(&world, "web", &post_build)).await;
        let parts = ["app/a.yaml:6", "${NONE} has no value", "data.value", "postBuild"];
        let object = world.wait_refused(&world.apps(), "web", "BuildFailed", &parts).await;
        assert_eq!(object["status"]["failures"][0]["place"], "app/a.yaml:6");
        world.apply(&values(&world, "ConfigMap", "names", &[("not-a-name", "1")])).await;
        let parts = ["names", "\"not-a-name\"", "no name of a variable"];
        world.wait_refused(&world.apps(), "web", "InvalidValues", &parts).await;
        let data = json!({"data": {"not-a-name": null, "NONE": "42"}});
        let params = PatchParams::default();
        world.config_maps().patch("names", &params, &Patch::Merge(&data)).await.unwrap();
        world.wait_value("a", "x 42 y").await;
    });
}
