//! How objects are applied: what holds one up holds up nothing else, and what the API server
//! refuses is told where it stands.

use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use plumb_testkit::{Admission, Match, Proxy, Webhook, runtime, wait_for};
use serde_json::json;

use crate::world::{LIMIT, World, condition, config_map};

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - name: web\n    \
         port: {port}\n"
    )
}

fn deployment(name: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  replicas: 0\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: \
         {name}}}}}\n    spec:\n      containers:\n      - {{name: main, image: example.com/main}}\n"
    )
}

/// A webhook for Services that does not answer keeps the Services of an Application, and nothing
/// that comes after them.
#[test]
fn a_webhook_that_hangs_costs_only_its_kind() {
    runtime().block_on(async {
        let world = World::new("hang").await;
        let webhook = Webhook::start().await;
        let name = format!("{}-services", world.ns);
        let hooks = "ValidatingWebhookConfiguration";
        let hooks = world.cluster_api("admissionregistration.k8s.io/v1", hooks);
        let configuration = webhook.configuration(&name, &world.ns, "services", "Fail");
        let params = PatchParams::apply("test");
        hooks.patch(&name, &params, &Patch::Apply(&configuration)).await.unwrap();
        webhook.set(Admission::Hang);
        let mut files: Vec<(String, String)> = (0..20)
            .map(|n| (format!("app/service-{n}.yaml"), service(&format!("s{n}"), 80)))
            .collect();
        files.push(("app/a.yaml".into(), config_map("a", "1")));
        files.push(("app/web.yaml".into(), deployment("web")));
        let files: Vec<_> =
            files.iter().map(|(f, text)| (f.as_str(), Some(text.as_str()))).collect();
        world.repo.commit(&files, "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;

        let parts = ["20 of 22 objects", "service-", "admission webhook"];
        let object = world.wait_refused(&world.apps(), "web", "NoAnswer", &parts).await;
        assert_eq!(object["status"]["failureCount"], 20, "{object}");
        assert_eq!(condition(&object, "Stalled"), json!(null), "{object}");
        world.wait_value("a", "1").await;
        world.get(&world.api("apps/v1", "Deployment"), "web").await;
        // Later commits get through as well.
        let two = config_map("a", "2");
        world.repo.commit(&[("app/a.yaml", Some(&two))], "two");
        world.look().await;
        world.wait_value("a", "2").await;

        webhook.set(Admission::Allow);
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let object = world.get(&world.apps(), "web").await;
        assert_eq!(object["status"]["failures"], json!(null), "{object}");

        // What refuses is told in its own words, and what is down too.
        webhook.set(Admission::Deny("port 81 is not for you".into()));
        world.repo.commit(&[("app/service-3.yaml", Some(&service("s3", 81)))], "three");
        world.look().await;
        let parts = ["1 of 22", "service-3.yaml", "port 81 is not for you"];
        world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                let message = condition(object, "Ready")["message"].as_str().unwrap().to_owned();
                parts.iter().all(|part| message.contains(part))
            })
            .await;
        webhook.down().await;
        let three = config_map("a", "3");
        world.repo.commit(&[("app/a.yaml", Some(&three))], "four");
        world.look().await;
        world.wait_value("a", "3").await;
        let parts = ["1 of 22", "service-3.yaml", "failed calling webhook"];
        world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                let message = condition(object, "Ready")["message"].as_str().unwrap().to_owned();
                parts.iter().all(|part| message.contains(part))
            })
            .await;
        world.delete(&hooks, &name).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
    });
}

fn definition(group: &str, fields: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("tubes.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": "Tube", "plural": "tubes", "singular": "tube", "listKind": "TubeList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": fields},
                }}},
            }],
        },
    })
}

fn tube(group: &str, name: &str, version: &str, spec: &serde_json::Value) -> String {
    json!({
        "apiVersion": format!("{group}/{version}"), "kind": "Tube",
        "metadata": {"name": name}, "spec": spec,
    })
    .to_string()
}

/// A definition and its objects in one commit, then a field more in both, then a version that is not
/// served: no run waits for the API server to catch up, and none of it is taken for a failure but
/// what will never be served.
#[test]
fn a_definition_may_change_together_with_its_objects() {
    runtime().block_on(async {
        let world = World::new("defining").await;
        let group = format!("{}.example.com", world.ns);
        let number = json!({"size": {"type": "integer"}});
        let both = json!({"size": {"type": "integer"}, "colour": {"type": "string"}});
        world.repo.commit(
            &[
                ("app/tube.json", Some(&tube(&group, "t", "v1", &json!({"size": 3})))),
                ("app/definition.json", Some(&definition(&group, &number).to_string())),
            ],
            "one",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;

        let colours = json!({"size": 3, "colour": "red"});
        let two = world.repo.commit(
            &[
                ("app/tube.json", Some(&tube(&group, "t", "v1", &colours))),
                ("app/definition.json", Some(&definition(&group, &both).to_string())),
            ],
            "two",
        );
        world.look().await;
        world.wait_applied("web", &two).await;
        let tubes = world.api(&format!("{group}/v1"), "Tube");
        assert_eq!(world.get(&tubes, "t").await["spec"]["colour"], "red");
        let warned = world.events_of("web").await;
        assert!(!warned.iter().any(|event| event.contains("UnknownField")), "{warned:?}");

        // Many of a version that is not served: told at once, and the rest goes on.
        let mut files: Vec<_> = (0..100)
            .map(|n| (format!("app/late-{n}.json"), tube(&group, &format!("l{n}"), "v2", &colours)))
            .collect();
        files.push(("app/a.yaml".into(), config_map("a", "1")));
        let files: Vec<_> =
            files.iter().map(|(f, text)| (f.as_str(), Some(text.as_str()))).collect();
        world.repo.commit(&files, "three");
        world.look().await;
        let parts = ["100 of 103 objects", "late-0.json:1", "serves v1"];
        world.wait_refused(&world.apps(), "web", "UnknownKind", &parts).await;
        world.wait_value("a", "1").await;
    });
}

/// Objects whose definition is refused hold nobody up.
#[test]
fn a_definition_that_is_refused_costs_no_time() {
    runtime().block_on(async {
        let world = World::new("refused-crd").await;
        let group = format!("{}.example.com", world.ns);
        let mut bad = definition(&group, &json!({"size": {"type": "nonsense"}}));
        bad["metadata"]["name"] = json!(format!("tubes.{group}"));
        let mut files: Vec<_> = (0..100)
            .map(|n| {
                (
                    format!("app/t{n}.json"),
                    tube(&group, &format!("t{n}"), "v1", &json!({"size": 1})),
                )
            })
            .collect();
        files.push(("app/definition.json".into(), bad.to_string()));
        files.push(("app/a.yaml".into(), config_map("a", "1")));
        let files: Vec<_> =
            files.iter().map(|(f, text)| (f.as_str(), Some(text.as_str()))).collect();
        world.repo.commit(&files, "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.wait_condition(&world.sources(), "repo", ("Ready", "True"), |_| true).await;
        let began = Instant::now();
        world.apply(&world.app("web", "app", "1h")).await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                let failures = object["status"]["failures"].to_string();
                object["status"]["failureCount"] == 101 && failures.contains("nonsense")
            })
            .await;
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        world.wait_value("a", "1").await;
    });
}

/// What cannot be changed is told where it stands; with `force` it is made anew, but never what holds
/// data.
#[test]
fn what_cannot_be_changed_is_made_anew_only_when_asked_for() {
    let secret = |kind: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: secret\ntype: example.com/{kind}\n\
             data: {{key: aHVudGVyMg==}}\n"
        )
    };
    let fixed = |value: &str| format!("{}immutable: true\n", config_map("fixed", value));
    let job = |image: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: job\nspec:\n  template:\n    spec:\n      \
             restartPolicy: Never\n      containers:\n      - name: main\n        image: {image}\n"
        )
    };
    let headless = |more: &str| format!("{}{more}", service("service", 80));
    let binding = |role: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata:\n  name: \
             binding\nroleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: ClusterRole\n  name: \
             {role}\n"
        )
    };
    let claim = |size: &str| {
        format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: claim\nspec:\n  \
             accessModes: [ReadWriteOnce]\n  resources:\n    requests:\n      storage: {size}\n"
        )
    };
    // Before and after, where it is refused, and whether it can be made anew.
    let cases = [
        ("v1", "Secret", "secret", secret("one"), secret("two"), 5, true),
        ("v1", "ConfigMap", "fixed", fixed("1"), fixed("2"), 5, true),
        ("batch/v1", "Job", "job", job("example.com/a"), job("example.com/b"), 6, true),
        ("v1", "Service", "service", headless(""), headless("  clusterIP: None\n"), 5, true),
        (
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            "binding",
            binding("view"),
            binding("edit"),
            5,
            true,
        ),
        ("v1", "PersistentVolumeClaim", "claim", claim("2Gi"), claim("1Gi"), 5, false),
    ];
    runtime().block_on(async {
        let world = World::new("immutable").await;
        let file = |name: &str| format!("app/{name}.yaml");
        for (_, _, name, before, ..) in &cases {
            world.repo.commit(&[(&file(name), Some(before))], name);
        }
        let agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let uid = async |version: &str, kind: &str, name: &str| {
            world.get(&world.api(version, kind), name).await["metadata"]["uid"].clone()
        };
        let mut uids = Vec::new();
        for (version, kind, name, _, after, ..) in &cases {
            uids.push(uid(version, kind, name).await);
            world.repo.commit(&[(&file(name), Some(after))], name);
        }
        world.look().await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                object["status"]["failureCount"] == cases.len()
            })
            .await;
        assert_eq!(condition(&object, "Ready")["reason"], "Immutable", "{object}");
        assert_eq!(condition(&object, "Stalled")["status"], "True", "{object}");
        for ((version, kind, name, _, _, line, _), before) in cases.iter().zip(&uids) {
            let failures = object["status"]["failures"].as_array().unwrap();
            let place = format!("app/{name}.yaml:{line}");
            let failure = failures.iter().find(|failure| failure["place"] == place);
            let failure = failure.unwrap_or_else(|| panic!("{place}: {failures:#?}"));
            println!("{place}: {}", failure["message"]);
            assert!(failure["message"].as_str().unwrap().contains("plumb.dev/force"), "{failure}");
            assert_eq!(uid(version, kind, name).await, *before, "{name}");
        }

        // One of them may be made anew by a mark of its own.
        let annotated = cases[1].4.replace(
            "  name: fixed\n",
            "  name: fixed\n  annotations:\n    plumb.dev/force: enabled\n",
        );
        world.repo.commit(&[(&file("fixed"), Some(&annotated))], "marked");
        world.look().await;
        world.wait_value("fixed", "2").await;
        assert_eq!(uid("v1", "Secret", "secret").await, uids[0]);

        world.edit(&world.apps(), "web", &json!({"spec": {"force": true}})).await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                object["status"]["failureCount"] == 1
            })
            .await;
        assert_eq!(object["status"]["failures"][0]["place"], "app/claim.yaml:5", "{object}");
        for ((version, kind, name, .., anew), before) in cases.iter().zip(&uids) {
            assert_eq!(uid(version, kind, name).await != *before, *anew, "{name}");
        }
        world.wait_event("web", &["Recreated", "Service"]).await;
        let told = agent.logs() + &world.events_of("web").await.join("\n") + &object.to_string();
        assert!(!told.contains("hunter2") && !told.contains("aHVudGVyMg"), "{told}");
        world.repo.commit(&[(&file("claim"), Some(&claim("2Gi")))], "as it was");
        world.look().await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
    });
}

/// A claim that has its volume is refused for another reason than one that has none, and neither is
/// made anew.
#[test]
fn a_bound_claim_that_shrinks_is_told_and_keeps_its_volume() {
    runtime().block_on(async {
        let world = World::new("shrinks").await;
        let volume = format!("{}-disk", world.ns);
        let disk = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
            "spec": {
                "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/nowhere"},
                "claimRef": {"namespace": world.ns, "name": "claim"},
            },
        });
        let volumes = world.cluster_api("v1", "PersistentVolume");
        let params = PatchParams::apply("test");
        volumes.patch(&volume, &params, &Patch::Apply(&disk)).await.unwrap();
        let commit = |size: &str, value: &str| {
            let claim = format!(
                "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: claim\nspec:\n  \
                 accessModes: [ReadWriteOnce]\n  storageClassName: \"\"\n  resources:\n    \
                 requests:\n      storage: {size}\n"
            );
            let map = config_map("a", value);
            let files = [("app/claim.yaml", Some(&*claim)), ("app/a.yaml", Some(&*map))];
            world.repo.commit(&files, size)
        };
        let first = commit("2Gi", "1");
        let _agent = world.agent();
        world.sync("web", "app", &first).await;
        let claims = world.api("v1", "PersistentVolumeClaim");
        world.wait_object(&claims, "claim", |claim| claim["status"]["phase"] == "Bound").await;
        let before = world.get(&claims, "claim").await;
        world.edit(&world.apps(), "web", &json!({"spec": {"force": true}})).await;
        commit("1Gi", "2");
        world.look().await;
        let parts = [
            "1 of 2 objects",
            "app/claim.yaml:10",
            "spec.resources.requests.storage: Forbidden: field can not be less than",
            "a volume does not become smaller",
        ];
        let object = world.wait_refused(&world.apps(), "web", "Invalid", &parts).await;
        assert_eq!(condition(&object, "Stalled")["status"], "True", "{object}");
        world.wait_value("a", "2").await;
        let after = world.get(&claims, "claim").await;
        for field in ["/metadata/uid", "/metadata/deletionTimestamp", "/spec", "/status/phase"] {
            assert_eq!(after.pointer(field), before.pointer(field), "{field}");
        }
        let third = commit("2Gi", "3");
        world.look().await;
        world.wait_applied("web", &third).await;
        world.delete(&volumes, &volume).await;
    });
}

/// A port under another number is another item of its list for the API server, which finds the name
/// twice when ours comes back.
#[test]
fn a_port_that_was_given_another_number_is_put_back() {
    runtime().block_on(async {
        let world = World::new("ports").await;
        world.repo.commit(&[("app/web.yaml", Some(&service("web", 1088)))], "one");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let services = world.api("v1", "Service");
        let edit = json!({"spec": {"ports": [{"name": "web", "port": 1588}]}});
        let is_back = async || {
            wait_for("the port to be back", LIMIT, async || {
                let ports = world.get(&services, "web").await["spec"]["ports"].clone();
                if ports.as_array().unwrap().len() == 1 && ports[0]["port"] == 1088 {
                    Ok(())
                } else {
                    Err(ports)
                }
            })
            .await;
        };
        world.edit(&services, "web", &edit).await;
        is_back().await;
        world.wait_event("web", &["DriftCorrected", "ports"]).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;

        // Also when it lost its label, and does not look like ours any more.
        let mut stripped = edit.clone();
        stripped["metadata"]["labels"]["applyset.kubernetes.io/part-of"] = json!(null);
        world.edit(&services, "web", &stripped).await;
        is_back().await;

        // Also when it happened while nobody looked.
        for edit in [edit, stripped] {
            agent.stop();
            world.edit(&services, "web", &edit).await;
            agent = world.agent();
            is_back().await;
        }

        // What is twice in Git itself is told there.
        let twice = service("web", 1088) + "  - name: web\n    port: 1089\n";
        world.repo.commit(&[("app/web.yaml", Some(&twice))], "two");
        world.look().await;
        let parts = ["app/web.yaml:9", "Duplicate value"];
        world.wait_refused(&world.apps(), "web", "Invalid", &parts).await;
        let ports = world.get(&services, "web").await["spec"]["ports"].clone();
        assert_eq!(ports.as_array().unwrap().len(), 1, "{ports}");

        // The same key twice is refused before anything is compared.
        let twice = service("web", 1088) + "  - name: other\n    port: 1088\n";
        world.repo.commit(&[("app/web.yaml", Some(&twice))], "three");
        world.look().await;
        let parts = ["app/web.yaml:", "duplicate entries"];
        let object = world.wait_refused(&world.apps(), "web", "Invalid", &parts).await;
        assert_eq!(condition(&object, "Stalled")["status"], "True", "{object}");
    });
}

/// The next owner takes over the item that a hand put there, too.
#[test]
fn a_port_that_was_given_another_number_is_put_back_by_the_next_owner() {
    runtime().block_on(async {
        let world = World::new("ports-moved").await;
        let web = service("web", 1088);
        world.repo.commit(
            &[
                ("a/keep.yaml", Some(&config_map("keep-a", "1"))),
                ("b/keep.yaml", Some(&config_map("keep-b", "1"))),
                ("a/web.yaml", Some(&web)),
            ],
            "one",
        );
        let mut agent = world.agent();
        world.sync_each(&["a", "b"]).await;
        agent.stop();
        let services = world.api("v1", "Service");
        let before = world.get(&services, "web").await["metadata"]["uid"].clone();
        let edit = json!({"spec": {"ports": [{"name": "web", "port": 1588}]}});
        world.edit(&services, "web", &edit).await;
        let moves = [("a/web.yaml", None), ("b/web.yaml", Some(&*web))];
        let commit = world.repo.commit(&moves, "moved");
        let _agent = world.agent();
        for app in ["a", "b"] {
            world.wait_applied(app, &commit).await;
        }
        let after = world.get(&services, "web").await;
        assert_eq!(after["metadata"]["uid"], before);
        let ports = after["spec"]["ports"].as_array().unwrap();
        assert!(ports.len() == 1 && ports[0]["port"] == 1088, "{ports:?}");
    });
}

/// All mistakes are told at once, nothing is applied, and what was applied last stays enforced.
#[test]
fn a_commit_that_is_tried_first_is_applied_as_a_whole_or_not_at_all() {
    runtime().block_on(async {
        let world = World::new("validate").await;
        let one = config_map("a", "1");
        world.repo.commit(&[("app/a.yaml", Some(&one))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        app["spec"]["validate"] = json!("DryRun");
        world.apply(&app).await;
        world.wait_value("a", "1").await;

        let (two, b) = (config_map("a", "2"), config_map("b", "1"));
        let (bad, worse) =
            (service("bad", 80).replace("80", "99999"), b.replace("\ndata", "\ndaat"));
        world.repo.commit(
            &[
                ("app/a.yaml", Some(&two)),
                ("app/b.yaml", Some(&b)),
                ("app/bad.yaml", Some(&bad)),
                ("app/worse.yaml", Some(&worse.replace("name: b", "name: worse"))),
            ],
            "two",
        );
        world.look().await;
        let object = world
            .wait_refused(&world.apps(), "web", "ApplyFailed", &["nothing applied", "99999"])
            .await;
        assert_eq!(object["status"]["failureCount"], 2, "{object}");
        let failures = object["status"]["failures"].to_string();
        assert!(failures.contains("app/bad.yaml:8") && failures.contains("app/worse.yaml:5"));
        assert_eq!(world.data("b").await, None);
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;

        // A namespace that comes along, and what is in it.
        let there = format!("{}-there", world.ns);
        let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {there}\n");
        let inside =
            config_map("c", "1").replace("name: c", &format!("name: c\n  namespace: {there}"));
        let three = world.repo.commit(
            &[
                ("app/bad.yaml", None),
                ("app/worse.yaml", None),
                ("app/c.yaml", Some(&inside)),
                ("app/namespace.yaml", Some(&namespace)),
            ],
            "three",
        );
        world.look().await;
        world.wait_applied("web", &three).await;
        world.wait_value("a", "2").await;
        world.wait_value("b", "1").await;
    });
}

/// As much as the API server takes is applied; more is refused before it is sent.
#[test]
fn a_config_map_of_a_megabyte_is_applied_and_a_larger_one_is_told() {
    runtime().block_on(async {
        let world = World::new("large").await;
        let (most, more) = ("x".repeat(1 << 20), "x".repeat((1 << 20) + 1));
        let fits = config_map("fits", &most);
        world.repo.commit(
            &[("app/a.yaml", Some(&fits)), ("app/b.yaml", Some(&config_map("large", &more)))],
            "one",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let parts = ["app/b.yaml:6", "1048577 bytes", "data.value"];
        world.wait_refused(&world.apps(), "web", "TooLarge", &parts).await;
        assert_eq!(world.data("fits").await.unwrap()["value"].as_str().unwrap().len(), 1 << 20);
    });
}

/// An object of any kind: what no API server reads is not sent, what its store refuses is told in the
/// same way.
#[test]
fn a_large_object_of_any_kind_is_told_at_its_largest_part() {
    runtime().block_on(async {
        let world = World::new("large-any").await;
        let long = |name: &str, size: usize| {
            deployment(name).replace(
                "image: example.com/main}",
                &format!("image: example.com/main, args: [short, {}]}}", "x".repeat(size)),
            )
        };
        world.repo.commit(
            &[
                ("app/fits.yaml", Some(&long("fits", 1_000_000))),
                ("app/store.yaml", Some(&long("store", 1_700_000))),
                ("app/way.yaml", Some(&long("way", 2_500_000))),
                ("app/body.yaml", Some(&long("body", 3_200_000))),
            ],
            "one",
        );
        let audit = world.plane.audit();
        let mark = audit.mark();
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let parts = ["3 of 4 objects", "app/body.yaml:12", "may have 3145728", "args[1]"];
        let object = world.wait_refused(&world.apps(), "web", "TooLarge", &parts).await;
        assert_eq!(condition(&object, "Stalled")["status"], "True", "{object}");
        for (n, file) in ["body", "store", "way"].iter().enumerate() {
            let failure = &object["status"]["failures"][n];
            println!("{}", failure["message"]);
            assert_eq!(failure["place"], format!("app/{file}.yaml:12"), "{failure}");
            assert!(failure["message"].to_string().contains("split it"), "{failure}");
        }
        world.get(&world.api("apps/v1", "Deployment"), "fits").await;
        world.plane.settled().await;
        let asked = audit.requests(mark).by(&world.identity.user()).within(&world.ns);
        let body = asked.only(|event| event.name == "body");
        assert!(body.is_empty(), "{body:#?}");
    });
}

/// What was refused as a whole is never said to stay applied, nor enforced, when its source goes.
#[test]
fn what_was_refused_is_not_what_stays_applied() {
    runtime().block_on(async {
        let world = World::new("refused").await;
        let first = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;
        let reserved = config_map("a", "2")
            .replace("name: a", "name: a\n  labels: {applyset.kubernetes.io/part-of: mine}");
        world.repo.commit(&[("app/a.yaml", Some(&reserved))], "two");
        world.look().await;
        world.wait_refused(&world.apps(), "web", "ReservedLabel", &["app/a.yaml"]).await;
        world.delete(&world.sources(), "repo").await;
        let parts = [&*format!("main@sha1:{}", &first[..12]), "stays applied and is kept as it is"];
        let object = world.wait_refused(&world.apps(), "web", "SourceNotFound", &parts).await;
        assert_eq!(object["status"]["failures"], json!(null), "{object}");
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;
    });
}

/// An Application of 5,000 objects is applied as a whole, a small one beside it is not kept waiting,
/// and one object of the many is corrected by itself.
#[test]
fn five_thousand_objects_are_applied_and_delay_nobody() {
    runtime().block_on(async {
        let world = World::new("many").await;
        let many: Vec<String> =
            (0..5000).map(|n| config_map(&format!("m{n}"), &n.to_string())).collect();
        let small = config_map("small", "1");
        world.repo.commit(
            &[("many/all.yaml", Some(&many.join("---\n"))), ("small/a.yaml", Some(&small))],
            "one",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("many", "many", "1h")).await;
        let began = Instant::now();
        world.wait_value("m0", "0").await;
        world.apply(&world.app("small", "small", "1h")).await;
        world.wait_condition(&world.apps(), "small", ("Ready", "True"), |_| true).await;
        let small = began.elapsed();
        world.wait_condition(&world.apps(), "many", ("Ready", "True"), |_| true).await;
        println!("the small one after {small:?}, all after {:?}", began.elapsed());
        assert!(small * 2 < began.elapsed(), "{small:?}");
        let object = world.get(&world.apps(), "many").await;
        assert_eq!(object["status"]["objects"], 5000);
        world.edit(&world.config_maps(), "m4999", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("m4999", "4999").await;
    });
}

/// A run that is under way when a newer commit comes sends no more of its own: what is sent after
/// that is of the newer one.
#[test]
fn a_newer_commit_takes_over_in_the_middle_of_a_run() {
    runtime().block_on(async {
        let world = World::new("newer").await;
        let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: early\n";
        let late = |value: &str| {
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: late\n\
                 spec:\n  podSelector: {{matchLabels: {{from: {value}}}}}\n"
            )
        };
        let (old, new) = (late("old"), late("new"));
        let files = [("app/a.yaml", Some(account)), ("app/late.yaml", Some(&*old))];
        world.repo.commit(&files, "old");
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let mut first = proxy.hold(Match::method("PATCH").path("/serviceaccounts/early"));
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        first.arrived(LIMIT).await;
        let commit = world.repo.commit(&[("app/late.yaml", Some(&*new))], "new");
        world.look().await;
        world
            .wait_condition(&world.sources(), "repo", ("Ready", "True"), |source| {
                source["status"]["revision"] == format!("main@sha1:{commit}")
            })
            .await;
        first.release();
        world.wait_applied("web", &commit).await;
        let sent = proxy.exchanges().into_iter().map(|exchange| exchange.request);
        let late = sent.filter(|s| s.method == "PATCH" && s.path.contains("/networkpolicies/late"));
        let bodies: Vec<_> =
            late.map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect();
        assert!(bodies.len() == 1 && bodies[0].contains("new"), "{bodies:?}");
    });
}
