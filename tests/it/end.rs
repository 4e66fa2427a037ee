//! Ends of an Application that are not its owner's plain word: with its namespace, with
//! `--cascade=orphan`, abandoned, suspended.

use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams, PropagationPolicy,
};
use plumb_testkit::{Fault, Match, Proxy, Rule, runtime};
use serde_json::{Value, json};

use crate::world::{World, condition, config_map};

const PART_OF: &str = "applyset.kubernetes.io/part-of";
const APPROVE: &str = "plumb.dev/approve-prune";
const ABANDON: &str = "plumb.dev/abandon";

async fn ready(world: &World, name: &str) -> Value {
    world.wait_condition(&world.apps(), name, ("Ready", "True"), |_| true).await
}

async fn label(world: &World, name: &str) -> Value {
    let object = world.get(&world.config_maps(), name).await;
    assert!(object["metadata"]["deletionTimestamp"].is_null(), "{object}");
    object["metadata"]["labels"][PART_OF].clone()
}

/// The objects of one of our kinds in another namespace.
fn within(world: &World, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("plumb.dev", "v1alpha1", kind);
    Api::namespaced_with(world.client.clone(), namespace, &ApiResource::from_gvk(&gvk))
}

/// A world in which an Application `web` has applied the config map `a`.
async fn applied(prefix: &str) -> World {
    let world = World::new(prefix).await;
    world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
    world.apply(&world.source("1h")).await;
    world.apply(&world.app("web", "app", "1h")).await;
    world
}

#[test]
fn with_a_namespace_goes_only_what_is_in_it() {
    runtime().block_on(async {
        let world = World::new("end-namespace").await;
        let doomed = world.plane.namespace("end-doomed").await;
        let elsewhere = format!("name: b\n  namespace: {}", world.ns);
        let elsewhere = config_map("b", "1").replace("name: b", &elsewhere);
        let files =
            [("app/a.yaml", Some(&*config_map("a", "1"))), ("app/b.yaml", Some(&*elsewhere))];
        world.repo.commit(&files, "two");
        let _agent =
            world.agent_with(world.identity.kubeconfig().to_owned(), &["--namespaces", &doomed]);
        for mut object in [world.source("1h"), world.app("web", "app", "1h")] {
            object["metadata"]["namespace"] = json!(doomed);
            let api = within(&world, &doomed, object["kind"].as_str().unwrap());
            api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
                .await
                .unwrap();
        }
        let apps = within(&world, &doomed, "Application");
        world.wait_condition(&apps, "web", ("Ready", "True"), |_| true).await;

        let namespaces = world.cluster_api("v1", "Namespace");
        world.delete(&namespaces, &doomed).await;
        let said = format!("ConfigMap {}/b would be deleted: it is not in the namespace", world.ns);
        let object = world.wait_refused(&apps, "web", "PruneHeld", &[&said]).await;
        let held = &object["status"]["prune"];
        assert_eq!(held["count"], 1, "{held}");
        assert_ne!(label(&world, "b").await, Value::Null);
        let digest = held["digest"].as_str().unwrap();
        world.annotate(&apps, "web", APPROVE, digest).await;
        world.wait_gone(&world.config_maps(), "b").await;
        world.wait_gone(&namespaces, &doomed).await;
    });
}

#[test]
fn cascade_orphan_lets_the_objects_go() {
    runtime().block_on(async {
        let world = applied("end-orphan").await;
        let _agent = world.agent();
        ready(&world, "web").await;
        let how = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan),
            ..DeleteParams::default()
        };
        world.apps().delete("web", &how).await.unwrap();
        world.wait_gone(&world.apps(), "web").await;
        assert_eq!(label(&world, "a").await, Value::Null);
    });
}

#[test]
fn a_suspended_application_lets_its_objects_go() {
    runtime().block_on(async {
        let world = applied("end-suspended").await;
        let _agent = world.agent();
        ready(&world, "web").await;
        world.edit(&world.apps(), "web", &json!({"spec": {"suspend": true}})).await;
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.apps(), "web").await;
        assert_eq!(label(&world, "a").await, Value::Null);
    });
}

#[test]
fn an_application_whose_objects_are_out_of_reach_can_be_abandoned() {
    runtime().block_on(async {
        let world = applied("end-abandoned").await;
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        ready(&world, "web").await;
        let away = Fault::Status { code: 500, retry_after: None };
        let lists = Match::method("GET").path("/configmaps").query("labelSelector");
        proxy.add(Rule::new(lists, away));
        world.delete(&world.apps(), "web").await;
        let parts = ["cannot tell which ConfigMap are left over"];
        let object = world.wait_refused(&world.apps(), "web", "Terminating", &parts).await;
        assert_eq!(condition(&object, "PruneHeld"), Value::Null);
        world.annotate(&world.apps(), "web", ABANDON, "true").await;
        world.wait_gone(&world.apps(), "web").await;
        // A later Application of the name finds it, and asks.
        assert_ne!(label(&world, "a").await, Value::Null);
    });
}
