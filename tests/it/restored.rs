//! An Application that comes from a backup or from another cluster, with our marks on it already.

use kube::api::{Patch, PatchParams};
use plumb_testkit::{Fault, Match, Proxy, Rule, runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

/// An Application as a backup tool restores it: with all that an agent had written on it, under the
/// tool's own name as a field manager.
fn restored(world: &World, name: &str, mark: &str) -> Value {
    let mut app = world.app(name, "app", "1h");
    let metadata = app["metadata"].as_object_mut().unwrap();
    metadata.insert("finalizers".into(), json!(["plumb.dev/finalizer"]));
    let id = format!("applyset-of-{name}");
    metadata.insert("labels".into(), json!({"applyset.kubernetes.io/id": id}));
    metadata.insert(
        "annotations".into(),
        json!({
            "applyset.kubernetes.io/tooling": "plumb/v0.1.0",
            "applyset.kubernetes.io/contains-group-kinds": "ConfigMap",
            "applyset.kubernetes.io/additional-namespaces": "",
            "plumb.dev/epoch": mark,
        }),
    );
    app
}

#[test]
fn a_finalizer_that_others_hold_too_does_not_keep_an_application_for_ever() {
    runtime().block_on(async {
        let world = World::new("restored").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&restored(&world, "web", "0")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.config_maps(), "a").await;
        world.wait_gone(&world.apps(), "web").await;
    });
}

#[test]
fn a_mark_from_elsewhere_or_by_hand_keeps_no_application_from_its_runs() {
    runtime().block_on(async {
        let world = World::new("marks").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&restored(&world, "web", "57@another-uid")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;

        let uid = world.get(&world.apps(), "web").await["metadata"]["uid"].clone();
        let uid = uid.as_str().unwrap();
        let mut value = 1;
        for mark in ["9999", "18446744073709551614", "18446744073709551615"] {
            value += 1;
            world.annotate(&world.apps(), "web", "plumb.dev/epoch", &format!("{mark}@{uid}")).await;
            let map = config_map("a", &value.to_string());
            let commit = world.repo.commit(&[("app/a.yaml", Some(&map))], "next");
            world.look().await;
            world.wait_applied("web", &commit).await;
        }
        // What is written next stands above the one that could be true, and far below the others.
        let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n";
        let commit = world.repo.commit(&[("app/s.yaml", Some(secret))], "a kind more");
        world.look().await;
        let app = world.wait_applied("web", &commit).await;
        let mark = app["metadata"]["annotations"]["plumb.dev/epoch"].as_str().unwrap();
        assert_eq!(mark, format!("10000@{uid}"));
        // The facts are this Application's, not those of the name it was copied from.
        let id = app["metadata"]["labels"]["applyset.kubernetes.io/id"].as_str().unwrap();
        assert!(id.starts_with("applyset-") && id.ends_with("-v1"), "{id}");
    });
}

#[test]
fn facts_that_others_take_off_or_edit_come_back() {
    const KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
    runtime().block_on(async {
        let world = World::new("wiped").await;
        let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n";
        let map = config_map("a", "1");
        world.repo.commit(&[("app/a.yaml", Some(&map)), ("app/s.yaml", Some(secret))], "two");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let facts = |object: &Value| {
            let metadata = &object["metadata"];
            json!([metadata["labels"], metadata["annotations"], metadata["finalizers"]])
        };
        let before = facts(&world.get(&world.apps(), "web").await);
        let edits = [
            json!({KINDS: null, "applyset.kubernetes.io/tooling": null,
                "applyset.kubernetes.io/additional-namespaces": null, "plumb.dev/epoch": null}),
            json!({KINDS: ""}),
            json!({KINDS: "ConfigMap,Nonsense.example.com,Secret"}),
            json!({"applyset.kubernetes.io/additional-namespaces": "kube-system"}),
        ];
        let edits = edits.map(|annotations| json!({"metadata": {"annotations": annotations}}));
        let label = json!({"metadata": {"labels": {"applyset.kubernetes.io/id": "x"}}});
        let finalizer = json!({"metadata": {"finalizers": null}});
        for edit in edits.iter().chain([&label, &finalizer]) {
            world.edit(&world.apps(), "web", edit).await;
            wait_for(&format!("the facts to come back after {edit}"), LIMIT, async || {
                let now = facts(&world.get(&world.apps(), "web").await);
                if now == before { Ok(()) } else { Err(now) }
            })
            .await;
        }
        let probe = Probe::of(&mut agent).await;
        probe.idle(0).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;

        // Wiped while nobody looked, the status knows where members are, and the other way round.
        let secrets = world.api("v1", "Secret");
        for wiped in ["annotations", "status"] {
            let file = format!("app/{wiped}.yaml");
            let secret = secret.replace("name: s", &format!("name: {wiped}"));
            let commit = world.repo.commit(&[(&file, Some(&secret))], "a secret");
            world.look().await;
            world.wait_applied("web", &commit).await;
            assert!(agent.stop().success());
            if wiped == "annotations" {
                world.edit(&world.apps(), "web", &edits[0]).await;
            } else {
                let status = json!({"status": {"scope": null}});
                let params = PatchParams::default();
                world.apps().patch_status("web", &params, &Patch::Merge(&status)).await.unwrap();
            }
            world.repo.commit(&[(&file, None), ("app/s.yaml", None)], "no secret");
            agent = world.agent();
            world.look().await;
            world.wait_gone(&secrets, wiped).await;
        }
        world.wait_gone(&secrets, "s").await;
    });
}

/// As a restore, or `kubectl replace`, of an Application does it: both records of where members are go,
/// and a kind of theirs has left Git.
#[test]
fn members_of_a_kind_that_no_record_names_are_found() {
    runtime().block_on(async {
        let world = World::new("survey").await;
        let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n";
        let map = config_map("a", "1");
        let files = [("app/a.yaml", Some(&*map)), ("app/s.yaml", Some(secret))];
        world.repo.commit(&files, "two kinds");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        // A secret that somebody else labelled for it is not its own.
        let secrets = world.api("v1", "Secret");
        let label = world.get(&secrets, "s").await["metadata"]["labels"].clone();
        let forged = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "forged", "namespace": world.ns, "labels": label},
        });
        world.apply(&forged).await;
        assert!(agent.stop().success());
        let wiped = json!({"metadata": {"annotations": {
            "applyset.kubernetes.io/contains-group-kinds": null,
            "applyset.kubernetes.io/additional-namespaces": null,
            "applyset.kubernetes.io/tooling": null,
        }}});
        world.edit(&world.apps(), "web", &wiped).await;
        let status = Patch::Merge(json!({"status": null}));
        world.apps().patch_status("web", &PatchParams::default(), &status).await.unwrap();
        let commit = world.repo.commit(&[("app/s.yaml", None)], "no secret");

        agent = world.agent();
        world.look().await;
        world.wait_applied("web", &commit).await;
        let probe = Probe::of(&mut agent).await;
        probe.idle(0).await;
        world.get(&secrets, "s").await;
        assert!(agent.stop().success());

        let proxy = Proxy::to_api(&world.plane, 1).await;
        // What cannot be listed holds nothing up.
        let refused = Fault::Status { code: 403, retry_after: None };
        proxy.add(Rule::new(Match::method("GET").path("/apis/apps/v1/daemonsets"), refused));
        let kubeconfig = world.identity.through(&proxy.url());
        let mut agent = world.agent_with(kubeconfig, &["--survey-interval", "20s"]);
        world.wait_gone(&secrets, "s").await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["scope"]["groupKinds"] == json!(["ConfigMap"])
            })
            .await;
        assert_eq!(condition(&object, "Drifted"), Value::Null);
        let line = agent.wait_for_log("looked for members", LIMIT).await;
        assert!(line.contains("refused=1"), "{line}");
        world.get(&secrets, "forged").await;
        // Metadata only, from the server's cache; what is watched is known anyway, and events are many.
        let lists: Vec<_> = (proxy.exchanges().into_iter())
            .filter(|exchange| exchange.request.query.contains("resourceVersion=0"))
            .collect();
        assert!(lists.len() > 10, "{}", lists.len());
        for exchange in lists {
            let request = &exchange.request;
            assert!(request.query.contains("labelSelector="), "{}", exchange.line());
            let answer = String::from_utf8_lossy(&exchange.response);
            let metadata = answer.contains("PartialObjectMetadataList");
            assert!(metadata || exchange.status != Some(200), "{}", exchange.line());
            let path = &request.path;
            assert!(!path.contains("/configmaps") && !path.contains("/events"), "{path}");
        }
    });
}

#[test]
fn other_tools_of_the_same_standard_leave_the_set_alone() {
    runtime().block_on(async {
        let world = World::new("applyset").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        let before = world.get(&world.apps(), "web").await;

        // kubectl would delete `a`, which its own set of manifests lacks.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config_map("b", "1")).unwrap();
        let path = file.path().to_str().unwrap();
        let set = "--applyset=applications.plumb.dev/web";
        let args = ["-n", &world.ns, "apply", "--prune", "--server-side", set, "-f", path];
        let output = world.plane.kubectl(args);
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("managed by tooling \"plumb\""), "{said}");
        assert_eq!(world.data("b").await, None);
        let after = world.get(&world.apps(), "web").await;
        assert_eq!(after["metadata"], before["metadata"]);
    });
}
