//! What becomes of objects that were there before: whose they are, and what of them stays.

use kube::api::{Patch, PatchParams};
use plumb_testkit::{runtime, wait_for};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, condition, config_map};

const PART_OF: &str = "applyset.kubernetes.io/part-of";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(crate) fn kubectl_apply(world: &World, manifests: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), manifests).unwrap();
    let output =
        world.plane.kubectl(["-n", &world.ns, "apply", "-f", file.path().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
}

/// Puts a config map there as a tool does: with its mark, under its name as a field manager.
async fn tool_applies(world: &World, manager: &str, name: &str, metadata: Value, data: Value) {
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data,
    });
    object["metadata"]["name"] = name.into();
    let params = PatchParams::apply(manager);
    world.config_maps().patch(name, &params, &Patch::Apply(&object)).await.unwrap();
}

fn app(world: &World, name: &str, adopt: &str) -> Value {
    let mut app = world.app(name, name, "1h");
    app["spec"]["adopt"] = adopt.into();
    app
}

fn managers(object: &Value) -> Vec<&str> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.map(|entry| entry["manager"].as_str().unwrap()).collect()
}

#[test]
fn what_kubectl_applied_is_taken_over_wholly() {
    runtime().block_on(async {
        let world = World::new("kubectl").await;
        // Git lacks a field that kubectl applied; somebody else added one of his own.
        let live = format!("{}  gone: \"1\"\n", config_map("a", "1"));
        kubectl_apply(&world, &live);
        world.edit(&world.config_maps(), "a", &json!({"data": {"theirs": "x"}})).await;
        let before = world.get(&world.config_maps(), "a").await;
        assert!(before["metadata"]["annotations"][LAST_APPLIED].is_string());

        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        let after = world.get(&world.config_maps(), "a").await;
        assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
        assert_eq!(after["data"], json!({"value": "1", "theirs": "x"}));
        assert!(after["metadata"]["annotations"][LAST_APPLIED].is_null(), "{after}");
        let ours = format!("plumb:{}/web", world.ns);
        assert_eq!(managers(&after), [&ours, "by-hand"]);

        // What leaves Git leaves the object, as nobody else holds it.
        let two = format!("{}  more: \"1\"\n", config_map("a", "2"));
        let commit = world.repo.commit(&[("app/a.yaml", Some(&two))], "two");
        world.look().await;
        world.wait_applied("web", &commit).await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "three");
        world.look().await;
        world.wait_applied("web", &commit).await;
        assert_eq!(world.data("a").await, Some(json!({"value": "2", "theirs": "x"})));
    });
}

#[test]
fn what_other_tools_manage_is_theirs_and_they_are_named() {
    runtime().block_on(async {
        let world = World::new("tools").await;
        let helm = json!({
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                "meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "prod",
            },
        });
        let flux = json!({"labels": {
            "kustomize.toolkit.fluxcd.io/name": "apps",
            "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
        }});
        let tracking = format!("shop:/ConfigMap:{}/argo", world.ns);
        let argo = json!({"annotations": {"argocd.argoproj.io/tracking-id": tracking}});
        // One with the value of Git, which no field manager would be in the way of, and one without.
        let cases = [
            ("helm", "helm", helm, "the Helm release prod/shop"),
            ("flux", "kustomize-controller", flux, "the Kustomization of Flux flux-system/apps"),
            ("argo", "argocd-controller", argo, "the application of Argo CD shop"),
        ];
        let mut files = vec![];
        for (name, manager, metadata, _) in &cases {
            let differs = format!("{name}-differs");
            for (object, value) in [(*name, "1"), (&*differs, "theirs")] {
                let data = json!({"value": value, "more": "x"});
                tool_applies(&world, manager, object, metadata.clone(), data).await;
            }
            files.push((format!("{name}/a.yaml"), config_map(name, "1")));
            files.push((format!("{name}-differs/a.yaml"), config_map(&differs, "1")));
        }
        let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), Some(t.as_str()))).collect();
        world.repo.commit(&files, "all");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        for (name, _, _, owner) in &cases {
            for (object, field) in
                [((*name).to_owned(), ""), (format!("{name}-differs"), "data.value")]
            {
                world.apply(&world.app(&object, &object, "1h")).await;
                let parts = [*owner, "a.yaml:1", field, "spec.adopt: Always"];
                world.wait_refused(&world.apps(), &object, "OwnedByAnother", &parts).await;
                let live = world.get(&world.config_maps(), &object).await;
                assert!(live["metadata"]["labels"][PART_OF].is_null(), "{live}");
                assert!(!managers(&live).iter().any(|manager| manager.starts_with("plumb:")));
            }
        }

        // Taken on purpose, nothing of the tool stays that Git does not have.
        for (name, ..) in &cases {
            for object in [(*name).to_owned(), format!("{name}-differs")] {
                world.apply(&app(&world, &object, "Always")).await;
                world.wait_condition(&world.apps(), &object, ("Ready", "True"), |_| true).await;
                let live = world.get(&world.config_maps(), &object).await;
                assert_eq!(live["data"], json!({"value": "1"}), "{live}");
                assert_eq!(managers(&live), [format!("plumb:{}/{object}", world.ns)]);
                let metadata = &live["metadata"];
                let labels = metadata["labels"].as_object().unwrap();
                let annotations = metadata["annotations"].as_object().unwrap();
                assert_eq!((labels.len(), annotations.len()), (1, 1), "{metadata}");
            }
        }
    });
}

#[test]
fn an_application_that_adopts_nothing_leaves_alone_what_is_there() {
    runtime().block_on(async {
        let world = World::new("adopts-nothing").await;
        kubectl_apply(&world, &config_map("a", "1"));
        let before = world.get(&world.config_maps(), "a").await;
        world.repo.commit(
            &[
                ("web/a.yaml", Some(&config_map("a", "1"))),
                ("web/b.yaml", Some(&config_map("b", "1"))),
            ],
            "two",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&app(&world, "web", "Never")).await;
        let parts = ["web/a.yaml:1", "exists already", "spec.adopt is Never"];
        world.wait_refused(&world.apps(), "web", "AlreadyExists", &parts).await;
        world.wait_value("b", "1").await;
        assert_eq!(world.get(&world.config_maps(), "a").await, before);

        // What it applied itself it keeps true, and the message's cure helps.
        world.edit(&world.config_maps(), "b", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("b", "1").await;
        world.delete(&world.config_maps(), "a").await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
    });
}

#[test]
fn an_application_that_adopts_all_takes_nothing_from_another_application() {
    runtime().block_on(async {
        let world = World::new("adopts-all").await;
        kubectl_apply(&world, &format!("{}  gone: \"1\"\n", config_map("free", "theirs")));
        world.edit(&world.config_maps(), "free", &json!({"data": {"value": "by hand"}})).await;
        world.repo.commit(
            &[
                ("one/a.yaml", Some(&config_map("shared", "one"))),
                ("two/a.yaml", Some(&config_map("shared", "two"))),
                ("two/b.yaml", Some(&config_map("free", "two"))),
            ],
            "both",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&app(&world, "one", "Always")).await;
        world.wait_condition(&world.apps(), "one", ("Ready", "True"), |_| true).await;
        world.apply(&app(&world, "two", "Always")).await;
        let other = format!("application {}/one", world.ns);
        world.wait_refused(&world.apps(), "two", "OwnedByAnother", &[&other]).await;
        world.wait_value("shared", "one").await;
        wait_for("the other to be taken", LIMIT, async || {
            let data = world.data("free").await;
            if data == Some(json!({"value": "two"})) { Ok(()) } else { Err(data) }
        })
        .await;
    });
}

/// As Flux does, which reads the mark on what is live before it applies.
#[test]
fn what_is_marked_to_be_left_alone_is_not_even_adopted() {
    runtime().block_on(async {
        let world = World::new("adopt-marked").await;
        let marks = ["plumb.dev/reconcile", "kustomize.toolkit.fluxcd.io/reconcile"];
        let theirs = |name: &str, mark: &str, data: Value| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": data,
                "metadata": {
                    "name": name, "namespace": world.ns, "annotations": {mark: "disabled"},
                },
            })
        };
        // One that Git would add to, and one that it would change.
        world.apply(&theirs("more", marks[0], json!({"theirs": "1"}))).await;
        world.apply(&theirs("other", marks[1], json!({"value": "theirs"}))).await;
        let files = ["more", "other", "own"].map(|name| config_map(name, "git"));
        let commit = world.repo.commit(
            &[
                ("app/more.yaml", Some(&files[0])),
                ("app/other.yaml", Some(&files[1])),
                ("app/own.yaml", Some(&files[2])),
            ],
            "marked",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let object = world.wait_applied("web", &commit).await;
        let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
        assert!(message.contains("2 left alone, as marked"), "{message}");
        world.request(&world.apps(), "web", "again").await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["lastHandledReconcileAt"] == "again"
            })
            .await;
        assert_eq!(world.data("more").await, Some(json!({"theirs": "1"})));
        assert_eq!(world.data("other").await, Some(json!({"value": "theirs"})));
        for name in ["more", "other"] {
            let object = world.get(&world.config_maps(), name).await;
            assert_eq!(managers(&object), ["test"], "{object}");
            assert_eq!(object["metadata"]["labels"], Value::Null, "{object}");
        }

        // Without the mark the next run takes it, which comes although nothing else is to be done.
        world.edit(&world.apps(), "web", &json!({"spec": {"interval": "1s"}})).await;
        world.annotate(&world.config_maps(), "more", marks[0], "enabled").await;
        world.wait_value("more", "git").await;
    });
}

/// Flux's word for it says the same: what other tools added stays, and what Git has is put through in
/// any case.
#[test]
fn of_an_object_marked_to_be_merged_what_kubectl_applied_beside_git_stays() {
    runtime().block_on(async {
        let world = World::new("merged").await;
        let marks = [
            ("ours", "\n  annotations: {plumb.dev/ssa: Merge}\ndata:"),
            ("flux", "\n  annotations: {kustomize.toolkit.fluxcd.io/ssa: Merge}\ndata:"),
            ("none", "\ndata:"),
        ];
        let file = |name: &str, value: &str, more: &str| {
            let mark = marks.iter().find(|(other, _)| *other == name).unwrap().1;
            format!("{}{more}", config_map(name, value).replace("\ndata:", mark))
        };
        let mut files = Vec::new();
        for (name, _) in marks {
            // What Git has differs, too.
            kubectl_apply(&world, &file(name, "theirs", "  gone: \"1\"\n"));
            files.push((format!("web/{name}.yaml"), file(name, "1", "  more: \"1\"\n")));
        }
        let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), Some(t.as_str()))).collect();
        let commit = world.repo.commit(&files, "three");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&app(&world, "web", "Always")).await;
        world.wait_applied("web", &commit).await;
        let kubectl = "kubectl-client-side-apply";
        for (name, _) in marks {
            let live = world.get(&world.config_maps(), name).await;
            let merged = name != "none";
            let mut data = json!({"value": "1", "more": "1"});
            if merged {
                data["gone"] = "1".into();
            }
            assert_eq!(live["data"], data, "{name}");
            assert_eq!(managers(&live).contains(&kubectl), merged, "{live}");
            assert_eq!(live["metadata"]["annotations"][LAST_APPLIED].is_string(), merged, "{live}");
        }

        // So it is with what kubectl applies later: what it adds stays, what it changes is put back.
        for (name, _) in &marks[..2] {
            kubectl_apply(&world, &file(name, "again", "  gone: \"1\"\n  later: \"1\"\n"));
            let data = json!({"value": "1", "more": "1", "gone": "1", "later": "1"});
            world.wait_object(&world.config_maps(), name, |object| object["data"] == data).await;
        }
        // What leaves Git goes, as kubectl never had it.
        let files: Vec<_> =
            marks.map(|(name, _)| (format!("web/{name}.yaml"), file(name, "2", ""))).into();
        let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), Some(t.as_str()))).collect();
        let commit = world.repo.commit(&files, "less");
        world.look().await;
        world.wait_applied("web", &commit).await;
        for (name, _) in marks {
            let data = match name {
                "none" => json!({"value": "2"}),
                _ => json!({"value": "2", "gone": "1", "later": "1"}),
            };
            assert_eq!(world.data(name).await, Some(data), "{name}");
        }
    });
}
