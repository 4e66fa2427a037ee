//! What others have decided of an object stays when the object comes to another owner.

use kube::api::{DynamicObject, Patch, PatchParams, Request, WatchParams};
use kube::{Api, ResourceExt as _};
use plumb_testkit::runtime;
use serde_json::{Value, json};

use crate::adopt::kubectl_apply;
use crate::drift::{deployment, field, scale};
use crate::handover::wait_owner_of;
use crate::scrape::Probe;
use crate::world::{World, config_map};

/// Puts a Deployment there as Flux does.
async fn flux_applies(api: &Api<DynamicObject>, name: &str, replicas: u8) {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {
            "kustomize.toolkit.fluxcd.io/name": "web", "kustomize.toolkit.fluxcd.io/namespace": "flux",
        }},
    });
    object["spec"] = json!({
        "replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [
                {"name": "side", "image": "side:1"}, {"name": "main", "image": "main:1"},
            ]}},
    });
    let params = PatchParams::apply("kustomize-controller").force();
    api.patch(name, &params, &Patch::Apply(&object)).await.unwrap();
}

/// The numbers of replicas that an object has had since a version, by what a watch tells in a second.
async fn replicas_since(api: &Api<DynamicObject>, name: &str, version: &str) -> Vec<u64> {
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(1);
    let request = Request::new(api.resource_url()).watch(&params, version).unwrap();
    let told = api.clone().into_client().request_text(request).await.unwrap();
    let events = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut seen: Vec<u64> = events
        .filter(|event| event["type"] == "MODIFIED")
        .map(|event| event["object"]["spec"]["replicas"].as_u64().unwrap())
        .collect();
    seen.dedup();
    seen
}

fn app(world: &World, name: &str, adopt: &str, ignore: bool) -> Value {
    let mut app = world.app(name, name, "1h");
    app["spec"]["adopt"] = adopt.into();
    if ignore {
        app["spec"]["ignore"] = json!([{"paths": ["/spec/replicas"]}]);
    }
    app
}

#[test]
fn the_number_that_an_autoscaler_has_set_stays_when_a_deployment_is_adopted() {
    runtime().block_on(async {
        let world = World::new("adopt-scaled").await;
        let api = world.api("apps/v1", "Deployment");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        for (name, adopt, ignore) in [
            ("flux", "Always", false),
            ("flux-ignoring", "Always", true),
            ("kubectl", "IfUnowned", false),
            ("kubectl-ignoring", "IfUnowned", true),
        ] {
            if name.starts_with("flux") {
                flux_applies(&api, name, 2).await;
            } else {
                kubectl_apply(&world, &deployment(name, 2, "main:1", "a"));
            }
            scale(&api, name, "kube-controller-manager", 5).await;
            let before = api.get(name).await.unwrap().resource_version().unwrap();
            // Whoever adopts what is free finds the same; who takes all may change it.
            let image = if adopt == "Always" { "main:2" } else { "main:1" };
            let path = format!("{name}/web.yaml");
            let text = deployment(name, 2, image, "a");
            let commit = world.repo.commit(&[(&path, Some(&text))], name);
            world.look().await;
            world.apply(&app(&world, name, adopt, ignore)).await;
            world.wait_applied(name, &commit).await;
            probe.idle(0).await;
            let found = field(&api, name, "/spec/template/spec/containers/1/image").await;
            assert_eq!(found, image, "{name}");
            assert_eq!(replicas_since(&api, name, &before).await, [5], "{name}");
            let told = world.get(&world.apps(), name).await["status"]["yielded"].clone();
            assert_eq!(told[0]["fields"], json!(["spec.replicas"]), "{name}: {told}");
        }
    });
}

/// Fields that whoever had the object before has set are not somebody else's decision: they come along, and
/// are not dropped on the way.
#[test]
fn an_ignored_field_has_a_value_all_the_time_while_its_object_changes_hands() {
    runtime().block_on(async {
        let world = World::new("ignored-moves").await;
        let api = world.api("apps/v1", "Deployment");
        flux_applies(&api, "web", 4).await;
        let before = api.get("web").await.unwrap().resource_version().unwrap();
        let first = deployment("web", 3, "main:2", "a");
        let files = [
            ("one/web.yaml", Some(&*first)),
            ("one/stays.yaml", Some(&config_map("one", "1"))),
            ("two/stays.yaml", Some(&config_map("two", "1"))),
        ];
        let commit = world.repo.commit(&files, "adopted");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&app(&world, "one", "Always", true)).await;
        world.wait_applied("one", &commit).await;
        assert_eq!(replicas_since(&api, "web", &before).await, [4, 3], "adopted");

        let before = api.get("web").await.unwrap().resource_version().unwrap();
        world.apply(&app(&world, "two", "Always", true)).await;
        let moved =
            world.repo.commit(&[("one/web.yaml", None), ("two/web.yaml", Some(&first))], "moved");
        world.look().await;
        world.wait_applied("two", &moved).await;
        world.wait_applied("one", &moved).await;
        wait_owner_of(&world, "two", &api, "web").await;
        assert_eq!(replicas_since(&api, "web", &before).await, [3], "moved");
    });
}
