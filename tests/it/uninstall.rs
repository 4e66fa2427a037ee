//! What becomes of applied objects when Plumb's own definitions go.

use kube::api::DynamicObject;
use plumb_testkit::{ControlPlane, Fault, Match, Options, Proxy, Rule, runtime};
use serde_json::{Value, json};

use crate::world::{World, config_map, install_crds};

const DEFINITION: &str = "applications.plumb.dev";

async fn uid(world: &World, name: &str) -> Value {
    world.get(&world.config_maps(), name).await["metadata"]["uid"].clone()
}

/// Whoever deletes a definition, or all that `plumb install` printed, wants Plumb gone, not what it
/// applied: the API server deletes every Application then.
#[test]
fn what_was_applied_stays_when_the_definition_of_applications_is_deleted() {
    runtime().block_on(async {
        // One of its own: the definitions are taken away.
        let options = Options { nodes: 0, controllers: false };
        let world = World::on(ControlPlane::start(options).await, "uninstall").await;
        let policies = ["MirrorPrune", "Delete", "WaitForTermination", "Orphan"];
        let names: Vec<String> = policies.iter().map(|policy| policy.to_lowercase()).collect();
        let files: Vec<(String, String)> =
            names.iter().map(|name| (format!("{name}/a.yaml"), config_map(name, "1"))).collect();
        let changes: Vec<_> = files.iter().map(|(p, c)| (p.as_str(), Some(c.as_str()))).collect();
        let commit = world.repo.commit(&changes, "one application a policy");
        let install = async || {
            world.apply(&world.source("1h")).await;
            for (name, policy) in names.iter().zip(policies) {
                let mut app = world.app(name, name, "1h");
                app["spec"]["deletionPolicy"] = json!(policy);
                world.apply(&app).await;
            }
            for name in &names {
                world.wait_applied(name, &commit).await;
            }
        };
        let mut agent = world.agent();
        install().await;
        let mut before = Vec::new();
        for name in &names {
            before.push(uid(&world, name).await);
        }

        let definitions = world.cluster_api("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        world.delete(&definitions, DEFINITION).await;
        world.wait_gone(&definitions, DEFINITION).await;
        for (name, before) in names.iter().zip(&before) {
            let object = world.get(&world.config_maps(), name).await;
            assert_eq!(object["metadata"]["uid"], *before, "{object}");
            assert!(object["metadata"]["deletionTimestamp"].is_null(), "{object}");
            let labels = object["metadata"]["labels"].to_string();
            assert!(labels.contains("part-of"), "a later installation finds it: {labels}");
        }

        // Installed again, it takes up where it was.
        agent.stop();
        install_crds(world.client.clone()).await;
        let _agent = world.agent();
        install().await;
        for (name, before) in names.iter().zip(&before) {
            assert_eq!(uid(&world, name).await, *before);
        }
    });
}

#[test]
fn an_application_waits_while_it_cannot_be_told_whether_its_definition_goes_too() {
    runtime().block_on(async {
        let world = World::new("uninstall-denied").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let denied = proxy.add(Rule::new(
            Match::method("GET").path(&format!("customresourcedefinitions/{DEFINITION}")),
            Fault::Status { code: 403, retry_after: None },
        ));
        world.delete(&world.apps(), "web").await;
        let parts = ["cannot tell whether", DEFINITION, "nothing is deleted"];
        world.wait_refused(&world.apps(), "web", "AccessDenied", &parts).await;
        let live: DynamicObject = world.config_maps().get("a").await.unwrap();
        assert!(live.metadata.deletion_timestamp.is_none());
        proxy.remove(denied);
        world.wait_gone(&world.apps(), "web").await;
        world.wait_gone(&world.config_maps(), "a").await;
    });
}
