//! What others do to our objects on the way or in between, and what must not become a loop of it.

use kube::api::{Patch, PatchParams};
use plumb_testkit::{Admission, Webhook, runtime, wait_for};
use serde_json::json;

use crate::world::{LIMIT, World, config_map};

/// Puts a neighbour back, which takes a run of the Application and its whole comparison.
async fn neighbour_drifts(world: &World, name: &str) {
    world.edit(&world.config_maps(), name, &json!({"data": {"value": "by hand"}})).await;
    world.wait_value(name, "1").await;
    world.plane.settled().await;
}

/// A webhook that adds to our objects and changes a value of ours in each write: applied once, and
/// then it is at rest, though what is there is not what Git asks for.
#[test]
fn what_a_webhook_changes_on_the_way_is_applied_once() {
    runtime().block_on(async {
        let world = World::new("mutating").await;
        let webhook = Webhook::start().await;
        let name = format!("{}-secrets", world.ns);
        let hooks = "MutatingWebhookConfiguration";
        let hooks = world.cluster_api("admissionregistration.k8s.io/v1", hooks);
        let configuration = webhook.mutating(&name, &world.ns, "services");
        hooks
            .patch(&name, &PatchParams::apply("test"), &Patch::Apply(&configuration))
            .await
            .unwrap();
        webhook.set(Admission::Change(json!([
            {"op": "add", "path": "/metadata/labels/injected", "value": "yes"},
            {"op": "replace", "path": "/spec/internalTrafficPolicy", "value": "Local"},
        ])));
        let service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  labels: {app: web}\n\
                       spec:\n  internalTrafficPolicy: Cluster\n  ports: [{port: 80}]\n";
        let one = world.repo.commit(
            &[("app/service.yaml", Some(service)), ("app/m.yaml", Some(&config_map("m", "1")))],
            "one",
        );
        let _agent = world.agent();
        let audit = world.plane.audit();
        let mark = audit.mark();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &one).await;
        let services = world.api("v1", "Service");
        let live = world.get(&services, "web").await;
        assert_eq!(live["metadata"]["labels"]["injected"], "yes", "the webhook is asked");
        assert_eq!(live["spec"]["internalTrafficPolicy"], "Local", "{live}");
        neighbour_drifts(&world, "m").await;
        let ours = |mark| {
            let asked = audit.requests(mark).by(&world.identity.user()).within(&world.ns);
            asked.count("patch services")
        };
        assert_eq!(ours(mark), 1, "applied once");

        // An edit of what is ours is put back once, as far as the webhook lets it.
        let mark = audit.mark();
        webhook.set(Admission::Allow);
        let edit = json!({"metadata": {"labels": {"app": "other"}}});
        world.edit(&services, "web", &edit).await;
        wait_for("the label to be back", LIMIT, async || {
            let live = world.get(&services, "web").await;
            if live["metadata"]["labels"]["app"] == "web" { Ok(()) } else { Err(live) }
        })
        .await;
        neighbour_drifts(&world, "m").await;
        assert_eq!(ours(mark), 1, "put back once");
        world.delete(&hooks, &name).await;
    });
}

/// The order of a list whose items have names is nobody's field: reordered by hand, it is looked at
/// once and left as the API server merges it.
#[test]
fn a_list_that_is_reordered_by_hand_is_no_endless_drift() {
    runtime().block_on(async {
        let world = World::new("reordered").await;
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [
                        {"name": "a", "image": "example.com/a", "env": [
                            {"name": "ONE", "value": "1"}, {"name": "TWO", "value": "2"}]},
                        {"name": "b", "image": "example.com/b"},
                    ]},
                },
            },
        });
        let one = world.repo.commit(
            &[
                ("app/web.json", Some(deployment.to_string().as_str())),
                ("app/m.yaml", Some(&config_map("m", "1"))),
            ],
            "one",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &one).await;
        let deployments = world.api("apps/v1", "Deployment");
        let audit = world.plane.audit();
        let mark = audit.mark();
        let containers =
            world.get(&deployments, "web").await["spec"]["template"]["spec"]["containers"].clone();
        let mut other = containers.as_array().unwrap().clone();
        other.reverse();
        let env = other[1]["env"].as_array_mut().unwrap();
        env.reverse();
        let edit = json!({"spec": {"template": {"spec": {"containers": other}}}});
        world.edit(&deployments, "web", &edit).await;
        let ours = |mark| {
            let asked = audit.requests(mark).by(&world.identity.user()).within(&world.ns);
            asked.count("patch apps/deployments")
        };
        wait_for("a look at it", LIMIT, async || match ours(mark) {
            0 => Err(0),
            _ => Ok(()),
        })
        .await;
        // The controller of Deployments writes to it, too, after each change, which is looked at.
        wait_for("it to be at rest", LIMIT, async || {
            let mark = audit.mark();
            neighbour_drifts(&world, "m").await;
            match ours(mark) {
                0 => Ok(()),
                more => Err(more),
            }
        })
        .await;
        let looked = ours(mark);
        assert!(looked <= 5, "{looked}");
        let object = world.wait_applied("web", &one).await;
        let history = object["status"]["history"].as_array().unwrap();
        assert_eq!(history.len(), 1, "{object}");
    });
}

/// An object that is made anew but goes slowly: deleted once, told as long as it takes, and made when
/// it is gone.
#[test]
fn what_is_made_anew_but_goes_slowly_is_waited_for() {
    runtime().block_on(async {
        let world = World::new("slow-anew").await;
        let fixed = |value: &str| format!("{}immutable: true\n", config_map("fixed", value));
        let one = world.repo.commit(
            &[("app/fixed.yaml", Some(&fixed("1"))), ("app/m.yaml", Some(&config_map("m", "1")))],
            "one",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        app["spec"]["force"] = json!(true);
        world.apply(&app).await;
        world.wait_applied("web", &one).await;
        let maps = world.config_maps();
        let before = world.get(&maps, "fixed").await["metadata"]["uid"].clone();
        let held = json!({"metadata": {"finalizers": ["example.com/slow"]}});
        world.edit(&maps, "fixed", &held).await;
        let audit = world.plane.audit();
        let mark = audit.mark();
        let two = world.repo.commit(&[("app/fixed.yaml", Some(&fixed("2")))], "two");
        world.look().await;
        let parts = ["fixed is being deleted", "finalizers"];
        world.wait_refused(&world.apps(), "web", "Progressing", &parts).await;
        neighbour_drifts(&world, "m").await;
        let live = world.get(&maps, "fixed").await;
        assert_eq!((&live["metadata"]["uid"], &live["data"]["value"]), (&before, &json!("1")));
        world.edit(&maps, "fixed", &json!({"metadata": {"finalizers": []}})).await;
        world.wait_applied("web", &two).await;
        world.wait_value("fixed", "2").await;
        assert_ne!(world.get(&maps, "fixed").await["metadata"]["uid"], before);
        world.plane.settled().await;
        let asked = audit.requests(mark).by(&world.identity.user()).within(&world.ns);
        assert_eq!(asked.count("delete configmaps"), 1, "{}", asked.table());
    });
}
