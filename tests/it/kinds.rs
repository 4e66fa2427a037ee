//! Kinds that go, change, or are half there.

use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use plumb_testkit::{Aggregated, ControlPlane, Match, Options, Proxy, Webhook, runtime, wait_for};
use serde_json::{Value, json};

use crate::bad_input::{definition, widget};
use crate::world::{LIMIT, World, condition, config_map};

fn definitions(world: &World) -> Api<DynamicObject> {
    world.cluster_api("apiextensions.k8s.io/v1", "CustomResourceDefinition")
}

/// Puts a definition into the cluster as somebody else, and waits until it is served.
async fn define(world: &World, crd: &Value) {
    let name = crd["metadata"]["name"].as_str().unwrap();
    let params = PatchParams::apply("test").force();
    definitions(world).patch(name, &params, &Patch::Apply(crd)).await.unwrap();
    world.wait_condition(&definitions(world), name, ("Established", "True"), |_| true).await;
}

/// How often the agent has asked which kinds there are.
fn looks(world: &World, mark: plumb_testkit::control_plane::Mark) -> usize {
    let requests = world.plane.audit().requests(mark).by(&world.identity.user());
    requests.count("get /apis")
}

/// Its definition changes, or one of several API servers lags behind.
#[test]
fn a_kind_that_is_missing_for_a_moment_is_not_taken_for_gone() {
    runtime().block_on(async {
        let world = World::new("glitch").await;
        let group = format!("{}.example.com", world.ns);
        let mut crd = definition(&group);
        define(&world, &crd).await;
        let files =
            [("app/a.yaml", Some(&*config_map("a", "0"))), ("app/w.yaml", Some(&*widget(&group)))];
        let commit = world.repo.commit(&files, "two kinds");
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        let widgets = world.api(&format!("{group}/v1"), "Widget");
        let before = world.get(&widgets, "w").await;

        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        crd["spec"]["versions"][0]["served"] = json!(false);
        let name = crd["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("test").force();
        definitions(&world).patch(name, &params, &Patch::Apply(&crd)).await.unwrap();
        // A watch goes on for some minutes; a list is refused at once.
        wait_for("the kind not to be served", LIMIT, async || {
            match widgets.list(&kube::api::ListParams::default()).await {
                Ok(_) => Err("served"),
                Err(_) => Ok(()),
            }
        })
        .await;
        proxy.cut_open(&Match::method("GET").path(&group));
        // Nothing is sent, so nothing fails; but what becomes of the widget is not seen.
        let object =
            world.wait_condition(&world.apps(), "web", ("Drifted", "Unknown"), |_| true).await;
        let message = condition(&object, "Drifted")["message"].to_string();
        assert!(message.contains("does not serve the kind"), "{message}");
        // Longer than it takes a kind to count as gone; its definition says that it is not. Others
        // are applied all the same, and no run looks for the kind again in vain.
        let begun = std::time::Instant::now();
        let mut runs = 0;
        while begun.elapsed() < Duration::from_secs(20) {
            runs += 1;
            let map = config_map("a", &runs.to_string());
            world.repo.commit(&[("app/a.yaml", Some(&map))], "another value");
            world.look().await;
            world.wait_value("a", &runs.to_string()).await;
        }
        let parts = ["app/w.yaml:1", "the cluster has no"];
        let object = world.wait_refused(&world.apps(), "web", "UnknownKind", &parts).await;
        let message = condition(&object, "Ready")["message"].to_string();
        assert!(!message.contains("left Git"), "{message}");
        world.plane.settled().await;
        let looked = looks(&world, mark);
        assert!(runs > 8 && looked <= 8, "{looked} looks in {runs} runs");

        crd["spec"]["versions"][0]["served"] = json!(true);
        define(&world, &crd).await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                condition(object, "Drifted").is_null()
            })
            .await;
        assert_eq!(object["status"]["drift"], Value::Null);
        assert_eq!(world.get(&widgets, "w").await, before);
        let events = world.events_of("web").await;
        assert!(!events.iter().any(|event| event.starts_with("DriftCorrected")), "{events:?}");
        // It is watched again.
        world.edit(&widgets, "w", &json!({"spec": {"size": 4}})).await;
        wait_for("the widget to be corrected", LIMIT, async || {
            let size = world.get(&widgets, "w").await["spec"]["size"].clone();
            if size == 3 { Ok(()) } else { Err(size) }
        })
        .await;
    });
}

/// A version of a kind goes as people take one away: another becomes the one that is stored, all
/// objects are written anew, and then the first is served no more.
async fn drop_version(world: &World, crd: &mut Value, widgets: &Api<DynamicObject>) {
    let mut new = crd["spec"]["versions"][0].clone();
    new["name"] = json!("v1");
    crd["spec"]["versions"][0]["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().unwrap().push(new);
    define(world, crd).await;
    for object in widgets.list(&kube::api::ListParams::default()).await.unwrap() {
        let name = object.metadata.name.clone().unwrap();
        widgets.replace(&name, &kube::api::PostParams::default(), &object).await.unwrap();
    }
    let name = crd["metadata"]["name"].as_str().unwrap();
    let stored = Patch::Merge(json!({"status": {"storedVersions": ["v1"]}}));
    let params = PatchParams::default();
    definitions(world).patch_status(name, &params, &stored).await.unwrap();
    crd["spec"]["versions"].as_array_mut().unwrap().remove(0);
    define(world, crd).await;
}

#[test]
fn a_version_that_is_no_longer_served_is_named_and_its_objects_are_not_lost() {
    runtime().block_on(async {
        let world = World::new("versions").await;
        let group = format!("{}.example.com", world.ns);
        let mut crd = definition(&group);
        crd["spec"]["versions"][0]["name"] = json!("v1beta1");
        define(&world, &crd).await;
        let old = |name: &str| {
            let text = widget(&group).replace("/v1\n", "/v1beta1\n");
            text.replace("name: w", &format!("name: {name}"))
        };
        let files = [("app/w.yaml", Some(&*old("w"))), ("app/x.yaml", Some(&*old("x")))];
        let commit = world.repo.commit(&files, "an old version");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        let widgets = world.api(&format!("{group}/v1beta1"), "Widget");
        drop_version(&world, &mut crd, &widgets).await;
        let widgets = world.api(&format!("{group}/v1"), "Widget");
        world.request(&world.apps(), "web", "now").await;
        let parts = ["app/w.yaml:1", "v1beta1", &*format!("serves this kind as {group}/v1")];
        world.wait_refused(&world.apps(), "web", "UnknownKind", &parts).await;
        assert_eq!(world.get(&widgets, "w").await["spec"]["size"], 3);
        world.get(&widgets, "x").await;

        let new = widget(&group).replace("size: 3", "size: 5");
        let files = [("app/w.yaml", Some(&*new)), ("app/x.yaml", None)];
        let commit = world.repo.commit(&files, "the new one");
        world.look().await;
        let object = world.wait_applied("web", &commit).await;
        world.wait_gone(&widgets, "x").await;
        let widget = world.get(&widgets, "w").await;
        assert_eq!(widget["spec"]["size"], 5);
        let entries = widget["metadata"]["managedFields"].as_array().unwrap();
        assert!(entries.iter().all(|entry| entry["apiVersion"] == format!("{group}/v1")));
        assert_eq!(object["status"]["drift"], Value::Null);
        // As enforced as before.
        world.edit(&widgets, "w", &json!({"spec": {"size": 4}})).await;
        wait_for("the widget to be corrected", LIMIT, async || {
            let size = world.get(&widgets, "w").await["spec"]["size"].clone();
            if size == 5 { Ok(()) } else { Err(size) }
        })
        .await;
    });
}

fn gadget(group: &str, size: u32) -> String {
    format!("apiVersion: {group}/v1\nkind: Gadget\nmetadata:\n  name: g\nspec:\n  size: {size}\n")
}

/// One of the old kind, which can neither watch nor answer in metadata.
#[test]
fn an_aggregated_api_without_watch_is_kept_true_and_a_broken_one_holds_up_nobody_else() {
    runtime().block_on(async {
        // One of its own: an API that is broken holds up the end of every namespace.
        let plane = ControlPlane::start(Options { nodes: 0, controllers: false }).await;
        let world = World::on(plane, "aggregated").await;
        let group = format!("{}.example.com", world.ns);
        let server = Aggregated::start(&group).await;
        let [service, registration] = server.registration(&world.ns);
        world.apply(&service).await;
        let params = PatchParams::apply("test").force();
        let services = world.cluster_api("apiregistration.k8s.io/v1", "APIService");
        let name = registration["metadata"]["name"].as_str().unwrap();
        services.patch(name, &params, &Patch::Apply(&registration)).await.unwrap();
        let available = |status: &'static str| {
            let (world, services) = (&world, &services);
            async move {
                world.wait_condition(services, name, ("Available", status), |_| true).await;
            }
        };
        available("True").await;

        let files = [
            ("app/a.yaml", Some(&*config_map("a", "1"))),
            ("app/g.yaml", Some(&*gadget(&group, 3))),
            ("plain/b.yaml", Some(&*config_map("b", "1"))),
        ];
        let commit = world.repo.commit(&files, "a gadget");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.apply(&world.app("plain", "plain", "1h")).await;
        world.wait_applied("web", &commit).await;
        world.wait_applied("plain", &commit).await;
        let size = || server.get(&world.ns, "g").map(|gadget| gadget["spec"]["size"].clone());
        assert_eq!(size(), Some(json!(3)));

        // Seen by the next list.
        server.resize(&world.ns, "g", 4);
        wait_for("the gadget to be put back", LIMIT, async || {
            if size() == Some(json!(3)) { Ok(()) } else { Err(size()) }
        })
        .await;
        world
            .wait_event("web", &["DriftCorrected", "/g was changed", "spec.size (by by-hand"])
            .await;

        // Broken: who has gadgets is told, and who has none does not notice.
        server.set_broken(true);
        available("False").await;
        let files = [
            ("app/a.yaml", Some(&*config_map("a", "2"))),
            ("app/g.yaml", Some(&*gadget(&group, 5))),
            ("plain/b.yaml", Some(&*config_map("b", "2"))),
        ];
        let commit = world.repo.commit(&files, "a larger gadget");
        world.look().await;
        world.wait_applied("plain", &commit).await;
        world.wait_value("b", "2").await;
        world.wait_value("a", "2").await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                object["status"]["failureCount"] == 1
            })
            .await;
        let failure = object["status"]["failures"][0].to_string();
        assert!(failure.contains("app/g.yaml:1"), "{failure}");

        // Nothing of what cannot be read is taken for gone.
        let files = [("app/g.yaml", None), ("plain/b.yaml", Some(&*config_map("b", "3")))];
        let commit = world.repo.commit(&files, "no gadget");
        world.look().await;
        world.wait_applied("plain", &commit).await;
        assert_eq!(size(), Some(json!(3)));

        server.set_broken(false);
        available("True").await;
        wait_for("the gadget to be deleted", LIMIT, async || {
            if size().is_none() { Ok(()) } else { Err(size()) }
        })
        .await;
        world.wait_applied("web", &commit).await;
    });
}

/// Stored in a version that only a webhook can bring about.
#[test]
fn a_kind_that_cannot_be_converted_is_told_and_applied_once_it_can() {
    const WIDGETS: usize = 12;
    runtime().block_on(async {
        let world = World::new("unconverted").await;
        let group = format!("{}.example.com", world.ns);
        let webhook = Webhook::start().await;
        webhook.down().await;
        let mut crd = definition(&group);
        let mut stored = crd["spec"]["versions"][0].clone();
        stored["name"] = json!("v2");
        crd["spec"]["versions"][0]["storage"] = json!(false);
        crd["spec"]["versions"].as_array_mut().unwrap().push(stored);
        crd["spec"]["conversion"] = webhook.conversion();
        define(&world, &crd).await;
        let widgets = (0..WIDGETS).map(|n| {
            let text = widget(&group).replace("name: w", &format!("name: w{n}"));
            (format!("app/w{n}.yaml"), text)
        });
        let widgets: Vec<_> = widgets.collect();
        let commit = |value: &str| {
            let maps =
                [("app/a.yaml", config_map("a", value)), ("plain/b.yaml", config_map("b", value))];
            let maps = maps.iter().map(|(path, text)| (*path, Some(&**text)));
            let widgets = widgets.iter().map(|(path, text)| (&**path, Some(&**text)));
            world.repo.commit(&maps.chain(widgets).collect::<Vec<_>>(), value)
        };
        let first = commit("1");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.apply(&world.app("plain", "plain", "1h")).await;
        let all = format!("{WIDGETS} of {} objects", WIDGETS + 1);
        let parts = [
            &*all,
            "app/w",
            ".yaml:1",
            "conversion webhook for",
            "connection refused",
            "look at the webhook that it names",
        ];
        let object = world.wait_refused(&world.apps(), "web", "NoAnswer", &parts).await;
        assert_eq!(condition(&object, "Stalled"), Value::Null, "{object}");
        world.wait_value("a", "1").await;
        world.wait_applied("plain", &first).await;

        // Later commits get through, and the kind is left alone but for a try from time to time.
        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        let second = commit("2");
        world.look().await;
        world.wait_value("a", "2").await;
        world.wait_applied("plain", &second).await;
        world.plane.settled().await;
        let sent = world.plane.audit().requests(mark).by(&world.identity.user());
        let tries = sent.only(|event| event.resource == "widgets" && event.verb == "patch");
        assert!(tries.len() < WIDGETS / 2, "{}", tries.table());

        webhook.up().await;
        world.wait_applied("web", &second).await;
        let widgets = world.api(&format!("{group}/v1"), "Widget");
        for n in 0..WIDGETS {
            assert_eq!(world.get(&widgets, &format!("w{n}")).await["spec"]["size"], 3);
        }
        // It goes while it can be read.
        world.delete(&definitions(&world), crd["metadata"]["name"].as_str().unwrap()).await;
    });
}
