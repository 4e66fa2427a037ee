//! What is told of the Pods of a workload that does not become ready. The parts of the control plane that
//! make them run; what a kubelet says of them is said by the tests.

use plumb_testkit::control_plane::Mark;
use plumb_testkit::{Fault, Match, Proxy, Rule, runtime, wait_for};
use serde_json::{Value, json};

use crate::waiting::deployment;
use crate::world::{LIMIT, World, condition, config_map};

/// A status of a Pod whose container crashes again and again.
fn crashes(message: &str) -> Value {
    json!({"phase": "Running", "containerStatuses": [{
        "name": "main", "image": "main:1", "imageID": "", "ready": false, "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": message}},
    }]})
}

/// The requests for the Pods that a label selects, by the agent.
fn looks(world: &World, mark: Mark, app: &str) -> Vec<String> {
    let sent = world.plane.audit().requests(mark).by(&world.identity.user());
    let label = format!("labelSelector=app%3D{app}");
    let looks = sent.only(|e| e.resource == "pods" && e.uri.contains(&label));
    looks.iter().map(|event| format!("{} {}", event.verb, event.uri)).collect()
}

#[test]
fn a_workload_that_does_not_become_ready_is_told_with_what_its_pods_say() {
    runtime().block_on(async {
        let world = World::new("pods").await;
        let files = [
            ("web/a.yaml", Some(&*deployment("web", "web:1"))),
            ("web/c.yaml", Some(&*config_map("web", "1"))),
        ];
        let commit = world.repo.commit(&files, "one");
        // It has the labels, and is none of the Deployment's.
        world
            .apply(&json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a-stranger", "namespace": world.ns, "labels": {"app": "web"}},
                "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "main", "image": "x"}]},
            }))
            .await;
        world.set_status(&world.pods(), "a-stranger", &crashes("a secret of others")).await;
        let mark = world.plane.audit().mark();
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.waiting("web", &json!({"timeout": "1h"}))).await;
        world.wait_progress("web", "0 of 1 replica is available").await;
        let pod = world.pod_of("app=web,pod-template-hash").await;
        world.set_status(&world.pods(), &pod, &crashes("no route to db\nat main.c:7")).await;
        let said = format!(
            "0 of 1 replica is available; Pod {pod}: container main is in CrashLoopBackOff: it ended \
             with 1: no route to db"
        );
        let object = world.wait_progress("web", &said).await;
        assert_eq!(object["status"]["waiting"]["objects"][0]["message"], said, "{object}");
        assert!(!object["status"].to_string().contains("main.c"), "{object}");
        assert!(!object["status"].to_string().contains("stranger"), "{object}");

        world.set_status(&world.pods(), &pod, &json!({"containerStatuses": null})).await;
        world.set_ready("web", true).await;
        world.wait_applied("web", &commit).await;
        world.plane.settled().await;
        let first = looks(&world, mark, "web");
        assert!(!first.is_empty());
        assert!(first.iter().all(|look| !look.contains("continue=")), "{first:#?}");

        // It breaks, which is told at once, and with the reason soon after.
        world.set_ready("web", false).await;
        world.set_status(&world.pods(), &pod, &crashes("disk full")).await;
        world.wait_progress("web", "it ended with 1: disk full").await;
    });
}

/// Of who does not wait, and of what may quote a Secret.
#[test]
fn pods_are_not_looked_at_where_nothing_of_them_is_to_be_told() {
    runtime().block_on(async {
        let world = World::new("pods-quiet").await;
        let quoting = deployment("quotes", "image:${TOKEN}");
        let files = [
            ("plain/a.yaml", Some(&*deployment("plain", "image:1"))),
            ("web/a.yaml", Some(&*quoting)),
        ];
        let commit = world.repo.commit(&files, "one");
        world
            .apply(&json!({
                "apiVersion": "v1", "kind": "Secret", "stringData": {"TOKEN": "hunter2"},
                "metadata": {"name": "values", "namespace": world.ns},
            }))
            .await;
        let mark = world.plane.audit().mark();
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("plain", "plain", "1h")).await;
        let from = json!({"substituteFrom": [{"kind": "Secret", "name": "values"}]});
        world.apply(&world.waiting("web", &json!({"timeout": "1h", "postBuild": from}))).await;
        world.wait_applied("plain", &commit).await;
        world.wait_progress("web", "why is not told here").await;
        let pod = world.pod_of("app=quotes").await;
        world.set_status(&world.pods(), &pod, &crashes("hunter2")).await;
        world.set_status(&world.pods(), &pod, &json!({"containerStatuses": null})).await;
        world.set_ready("quotes", true).await;
        let object = world.wait_applied("web", &commit).await;
        assert!(!object["status"].to_string().contains("hunter2"), "{object}");
        world.plane.settled().await;
        for app in ["plain", "quotes"] {
            assert_eq!(looks(&world, mark, app), Vec::<String>::new());
        }
    });
}

/// A Pod may be given the ConfigMap, and quote it.
#[test]
fn beside_a_config_map_with_a_value_of_a_secret_pods_tell_reasons_only() {
    runtime().block_on(async {
        let world = World::new("pods-beside").await;
        let files = [
            ("them/c.yaml", Some(&*config_map("config", "${TOKEN}"))),
            ("web/a.yaml", Some(&*deployment("web", "web:1"))),
        ];
        let commit = world.repo.commit(&files, "one");
        world
            .apply(&json!({
                "apiVersion": "v1", "kind": "Secret", "stringData": {"TOKEN": "hunter2"},
                "metadata": {"name": "values", "namespace": world.ns},
            }))
            .await;
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut them = world.app("them", "them", "1h");
        them["spec"]["postBuild"] =
            json!({"substituteFrom": [{"kind": "Secret", "name": "values"}]});
        world.apply(&them).await;
        world.wait_applied("them", &commit).await;
        world.apply(&world.waiting("web", &json!({"timeout": "1h"}))).await;
        world.wait_progress("web", "0 of 1 replica is available").await;
        let pod = world.pod_of("app=web").await;
        world.set_status(&world.pods(), &pod, &crashes("cannot log in with hunter2")).await;
        let object = world.wait_progress("web", "it ended with 1: Error").await;
        assert!(!object["status"].to_string().contains("hunter2"), "{object}");
    });
}

#[test]
fn who_had_no_room_is_told_when_another_one_gets_well() {
    runtime().block_on(async {
        let world = World::new("pods-many").await;
        let names: Vec<_> = (1..=9).map(|number| format!("web-{number}")).collect();
        let texts: Vec<_> = names
            .iter()
            .map(|name| (format!("{name}/a.yaml"), deployment(name, "image:1")))
            .collect();
        let files: Vec<_> =
            texts.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        world.repo.commit(&files, "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        for name in &names {
            world.apply(&world.waiting(name, &json!({"timeout": "1h"}))).await;
        }
        for name in &names {
            world.wait_progress(name, "0 of 1 replica is available").await;
            let pod = world.pod_of(&format!("app={name}")).await;
            world.set_status(&world.pods(), &pod, &crashes("no route to db")).await;
        }
        let (told, rest) = wait_for("eight that tell why", LIMIT, async || {
            let (mut told, mut rest) = (Vec::new(), Vec::new());
            for name in &names {
                let object = world.get(&world.apps(), name).await;
                let is_told = object["status"].to_string().contains("no route to db");
                if is_told { told.push(name) } else { rest.push(name) }
            }
            if told.len() == 8 { Ok((told, rest)) } else { Err(rest.len()) }
        })
        .await;
        let pod = world.pod_of(&format!("app={}", told[0])).await;
        world.set_status(&world.pods(), &pod, &json!({"containerStatuses": null})).await;
        world.set_ready(told[0], true).await;
        world.wait_progress(rest[0], "no route to db").await;
    });
}

/// The Pod stays as it is: no event would bring the next look.
#[test]
fn a_look_at_a_pod_that_fails_for_a_moment_is_made_again() {
    runtime().block_on(async {
        let world = World::new("pods-error").await;
        world.repo.commit(&[("web/a.yaml", Some(&*deployment("web", "web:1")))], "one");
        let verbs = json!(["get", "create", "patch", "delete"]);
        let rules = json!([
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": verbs},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        ]);
        crate::tenants::Tenant::new(&world, "tenant", rules).await;
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let broken = Fault::Status { code: 500, retry_after: None };
        let rule = proxy.add(Rule::new(Match::method("GET").path("/pods/"), broken));
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.apply(&world.source("1h")).await;
        let app = json!({"timeout": "1h", "serviceAccountName": "tenant"});
        world.apply(&world.waiting("web", &app)).await;
        world.wait_progress("web", "0 of 1 replica is available").await;
        let pod = world.pod_of("app=web").await;
        world.set_status(&world.pods(), &pod, &crashes("no route to db")).await;
        wait_for("a look that fails", LIMIT, async || {
            if proxy.hits(rule) > 0 { Ok(()) } else { Err("none") }
        })
        .await;
        let object = world.get(&world.apps(), "web").await;
        assert!(!object["status"].to_string().contains("no route"), "{object}");
        proxy.remove(rule);
        world.wait_progress("web", "no route to db").await;
    });
}

/// The watch is Plumb's, and says when to look; what a Pod says is told to an account that may read it.
#[test]
fn what_pods_say_is_told_as_far_as_the_account_may_read_them() {
    runtime().block_on(async {
        let world = World::new("pods-tenant").await;
        let names = ["may", "may-not"];
        let texts = names.map(|name| (format!("{name}/a.yaml"), deployment(name, "image:1")));
        let files = texts.each_ref().map(|(path, text)| (path.as_str(), Some(text.as_str())));
        world.repo.commit(&files, "one");
        let verbs = json!(["get", "create", "patch", "delete"]);
        let deployments =
            json!({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": verbs});
        let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        let all = json!([deployments, pods]);
        let may = crate::tenants::Tenant::new(&world, "may", all.clone()).await;
        let may_not = crate::tenants::Tenant::new(&world, "may-not", json!([deployments])).await;
        let mark = world.plane.audit().mark();
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        for name in names {
            let mut app = world.waiting(name, &json!({"timeout": "1h"}));
            app["spec"]["serviceAccountName"] = json!(name);
            world.apply(&app).await;
        }
        for name in names {
            world.wait_progress(name, "0 of 1 replica is available").await;
            let pod = world.pod_of(&format!("app={name}")).await;
            world.set_status(&world.pods(), &pod, &crashes("no route to db")).await;
        }
        world.wait_progress("may", "no route to db").await;
        let refused = wait_for("a look that is refused", LIMIT, async || {
            let sent = world.plane.audit().requests(mark).by(&world.identity.user());
            let looks = sent.only(|e| e.resource == "pods" && e.verb == "get");
            let of = |user: String| looks.clone().only(|e| e.impersonated == user);
            let (may, may_not) = (of(may.user()), of(may_not.user()));
            if may.len() == 1 && !may_not.is_empty() { Ok(may_not) } else { Err(looks.table()) }
        })
        .await;
        assert!(refused.iter().all(|event| event.code == 403), "{}", refused.table());
        let object = world.get(&world.apps(), "may-not").await;
        let message = condition(&object, "Ready")["message"].to_string();
        assert!(!message.contains("Pod"), "{message}");

        // The Pod stays as it is, and the account comes to have the right.
        may_not.may(all).await;
        world.wait_progress("may-not", "no route to db").await;
    });
}
