//! The process itself: what it looks after, its probes, and how it ends.

use std::time::Duration;

use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use plumb_testkit::{ControlPlane, Match, Options, Proxy, runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, config_map};

/// One that watches everything would handle the objects of all other tests: this one has a control
/// plane for itself.
#[test]
fn an_agent_looks_after_its_namespaces_or_after_all() {
    runtime().block_on(async {
        let plane = ControlPlane::start(Options { nodes: 0, controllers: false }).await;
        let world = World::on(plane, "mine").await;
        let theirs = world.plane.namespace("theirs").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let in_theirs = |kind: &str| {
            let gvk = GroupVersionKind::gvk("plumb.dev", "v1alpha1", kind);
            let api: Api<DynamicObject> =
                Api::namespaced_with(world.client.clone(), &theirs, &ApiResource::from_gvk(&gvk));
            api
        };
        let (sources, apps) = (in_theirs("GitRepository"), in_theirs("Application"));
        for (api, mut object) in
            [(&sources, world.source("1h")), (&apps, world.app("web", "app", "1h"))]
        {
            world.apply(&object).await;
            object["metadata"]["namespace"] = json!(theirs);
            let params = PatchParams::apply("test");
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            api.patch(&name, &params, &Patch::Apply(&object)).await.unwrap();
        }

        let mut agent = world.agent();
        world.wait_applied("web", &commit).await;
        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        world.look().await;
        world.request(&world.apps(), "web", "now").await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["lastHandledReconcileAt"] == "now"
            })
            .await;
        assert!(agent.stop().success());
        world.plane.settled().await;
        let asked = world.plane.audit().requests(mark).by(&world.identity.user());
        assert!(asked.len() > 1);
        assert_eq!(asked.within(&theirs).counts(), [].into());
        for (api, name) in [(&sources, "repo"), (&apps, "web")] {
            let object = world.get(api, name).await;
            assert_eq!(object["status"], Value::Null, "{object}");
            assert_eq!(object["metadata"]["finalizers"], Value::Null, "{object}");
        }

        // All of them, which is what it does when nothing is said.
        let kubeconfig = world.identity.kubeconfig().to_owned();
        let _agent = world.agent_with(kubeconfig, &["--namespaces", ""]);
        world
            .wait_condition(&apps, "web", ("Ready", "True"), |object| {
                object["status"]["lastAppliedRevision"] == format!("main@sha1:{commit}")
            })
            .await;
        let second = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "two");
        world.look().await;
        world.wait_applied("web", &second).await;
    });
}

#[test]
fn probes_answer_and_it_is_ready_when_it_has_seen_everything() {
    runtime().block_on(async {
        let world = World::new("probes").await;
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        wait_for("readiness", LIMIT, async || {
            let answer = probe.get("/readyz").await;
            if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
        })
        .await;
        let alive = probe.get("/livez").await;
        assert!(alive.starts_with("HTTP/1.1 200"), "{alive}");
        let other = probe.get("/other").await;
        assert!(other.starts_with("HTTP/1.1 404"), "{other}");
    });
}

#[test]
fn a_stop_in_the_middle_of_a_run_lets_it_end_before_the_lease_is_given_back() {
    const OBJECTS: usize = 30;
    runtime().block_on(async {
        let world = World::new("stopped").await;
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let files: Vec<(String, String)> = (0..OBJECTS)
            .map(|n| (format!("app/{n}.yaml"), config_map(&format!("many-{n}"), "1")))
            .collect();
        let changes: Vec<_> = files.iter().map(|(p, c)| (p.as_str(), Some(c.as_str()))).collect();
        let commit = world.repo.commit(&changes, "many");
        let apply = Match::method("PATCH").path("/configmaps/many-").nth(5);
        let mut hold = proxy.hold_answer(apply);
        let mark = world.plane.audit().mark();
        let mut agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        hold.arrived(LIMIT).await;
        agent.sigterm();
        agent.wait_for_log("stopping", LIMIT).await;
        hold.release();
        let ended = agent.wait(Duration::from_secs(30));
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}: {}", agent.logs());
        assert!(!agent.logs().contains("cut off"), "{}", agent.logs());

        // All of it is in place, and nothing was written once another one could.
        let object = world.get(&world.apps(), "web").await;
        assert_eq!(object["status"]["lastAppliedRevision"], format!("main@sha1:{commit}"));
        world.plane.settled().await;
        let writes = world.plane.audit().requests(mark).by(&world.identity.user()).writes();
        assert_eq!(writes.count("patch configmaps"), OBJECTS);
        let last = writes.last().unwrap();
        assert_eq!(last.what(), "update coordination.k8s.io/leases", "{:#?}", &writes[..]);
        let lease = world.get(&world.api("coordination.k8s.io/v1", "Lease"), "plumb").await;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        assert_eq!(holder, "", "{lease}");
    });
}
