//! What is huge, fails or hangs takes its share and no more.

use plumb_testkit::{Admission, Webhook, runtime, wait_for};
use serde_json::json;

use crate::world::{LIMIT, World, condition, config_map};

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports: [{{port: 80}}]\n"
    )
}

/// What one Application found out about a webhook that hangs, another one need not, and when it is
/// over, all of them learn that from one try.
#[test]
fn a_webhook_that_hangs_is_not_asked_again_for_another_application() {
    runtime().block_on(async {
        let world = World::new("shared-hang").await;
        let webhook = Webhook::start().await;
        let name = format!("{}-services", world.ns);
        let hooks = "ValidatingWebhookConfiguration";
        let hooks = world.cluster_api("admissionregistration.k8s.io/v1", hooks);
        let configuration = webhook.configuration(&name, &world.ns, "services", "Fail");
        let params = kube::api::PatchParams::apply("test");
        hooks.patch(&name, &params, &kube::api::Patch::Apply(&configuration)).await.unwrap();
        webhook.set(Admission::Hang);
        let second: Vec<String> = (0..8).map(|n| service(&format!("second-{n}"))).collect();
        world.repo.commit(
            &[
                ("first/a.yaml", Some(service("first").as_str())),
                ("second/all.yaml", Some(&second.join("---\n"))),
                ("second/map.yaml", Some(&config_map("a", "1"))),
            ],
            "one",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("first", "first", "1h")).await;
        world.wait_refused(&world.apps(), "first", "NoAnswer", &["admission webhook"]).await;
        let audit = world.plane.audit();
        let mark = audit.mark();
        world.apply(&world.app("second", "second", "1h")).await;
        let parts = ["8 of 9", "like Service", "/first: ", "admission webhook"];
        world.wait_refused(&world.apps(), "second", "NoAnswer", &parts).await;
        world.wait_value("a", "1").await;
        webhook.set(Admission::Allow);
        for app in ["first", "second"] {
            world.wait_condition(&world.apps(), app, ("Ready", "True"), |_| true).await;
        }
        world.plane.settled().await;
        let asked = audit.requests(mark).by(&world.identity.user()).within(&world.ns);
        let failed = asked.only(|e| e.what() == "patch services" && e.code >= 500);
        // The first one's own tries may be among them: one at a time.
        assert!(failed.len() < 4, "{failed:#?}");
        world.delete(&hooks, &name).await;
    });
}

/// Many more huge Applications than workers: a small one has its turn while they are at it. They say
/// how far they are, and nothing of them is history before it is done.
#[test]
fn huge_applications_leave_a_small_one_its_turn() {
    const HUGE: [&str; 3] = ["huge-a", "huge-b", "huge-c"];
    runtime().block_on(async {
        let world = World::new("huge").await;
        let mut files = vec![("small/a.yaml".to_owned(), config_map("small", "1"))];
        for app in HUGE {
            let many = (0..1300).map(|n| config_map(&format!("{app}-{n}"), "1"));
            files.push((format!("{app}/all.yaml"), many.collect::<Vec<_>>().join("---\n")));
        }
        let files: Vec<_> =
            files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        let one = world.repo.commit(&files, "one");
        let kubeconfig = world.identity.kubeconfig().to_owned();
        let _agent = world.agent_with(kubeconfig, &["--concurrent", "2"]);
        world.apply(&world.source("1h")).await;
        for app in HUGE {
            world.apply(&world.app(app, app, "1h")).await;
        }
        let object = world
            .wait_condition(&world.apps(), HUGE[0], ("Ready", "False"), |object| {
                let message = condition(object, "Ready")["message"].to_string();
                message.contains(" of 1300 objects applied at main@sha1:")
            })
            .await;
        println!("{}", condition(&object, "Ready")["message"]);
        assert_eq!(condition(&object, "Reconciling")["reason"], "Progressing", "{object}");
        for field in ["lastAppliedRevision", "history", "digest", "clusterDigest", "objects"] {
            assert_eq!(object["status"][field], json!(null), "{field}: {object}");
        }
        world.apply(&world.app("small", "small", "1h")).await;
        world.wait_applied("small", &one).await;
        for app in HUGE {
            let object = world.get(&world.apps(), app).await;
            assert_eq!(object["status"]["lastAppliedRevision"], json!(null), "{app}: {object}");
        }
        // Still at it, they take a newer commit up where they are.
        let two = world.repo.commit(
            &[
                ("huge-a/more.yaml", Some(&config_map("huge-a-more", "1"))),
                ("huge-b/more.yaml", Some(&config_map("huge-b-more", "1"))),
            ],
            "two",
        );
        world.look().await;
        for app in HUGE {
            // What asks for the same may be at either of them.
            let object = world
                .wait_condition(&world.apps(), app, ("Ready", "True"), |object| {
                    let applied = object["status"]["lastAppliedRevision"].as_str().unwrap();
                    applied.ends_with(&two) || app == "huge-c" && applied.ends_with(&one)
                })
                .await;
            assert_eq!(object["status"]["history"].as_array().unwrap().len(), 1, "{object}");
        }
        for name in ["huge-a-1299", "huge-b-1299", "huge-c-1299", "huge-a-more"] {
            world.wait_value(name, "1").await;
        }
        they_go_in_turns_too(&world).await;
    });
}

/// One is let go, one is deleted, and of one nearly all leaves Git: again a small one has its turn,
/// and what a person approved is approved once, however many turns it takes.
async fn they_go_in_turns_too(world: &World) {
    let three = world.repo.commit(
        &[("huge-b/all.yaml", None), ("late/a.yaml", Some(config_map("late", "1").as_str()))],
        "three",
    );
    world.look().await;
    let object =
        world.wait_condition(&world.apps(), "huge-b", ("PruneHeld", "True"), |_| true).await;
    let plan = object["status"]["prune"]["digest"].as_str().unwrap().to_owned();
    let orphans = json!({"spec": {"deletionPolicy": "Orphan"}});
    world.edit(&world.apps(), "huge-c", &orphans).await;
    let audit = world.plane.audit();
    let mark = audit.mark();
    world.annotate(&world.apps(), "huge-b", "plumb.dev/approve-prune", &plan).await;
    for app in ["huge-a", "huge-c"] {
        world.delete(&world.apps(), app).await;
    }
    let rest = |object: &serde_json::Value, what: &str| {
        let message = condition(object, "Ready")["message"].to_string();
        message.contains(what) && message.contains(", in turns with other applications")
    };
    world
        .wait_condition(&world.apps(), "huge-b", ("Ready", "False"), |object| {
            rest(object, "1 of 1 objects applied at main@sha1:")
                && rest(object, " that left Git are still to be deleted")
        })
        .await;
    world.apply(&world.app("late", "late", "1h")).await;
    world.wait_applied("late", &three).await;
    for app in ["huge-a", "huge-c"] {
        world.wait_gone(&world.apps(), app).await;
    }
    let object = world.wait_condition(&world.apps(), "huge-b", ("Ready", "True"), |_| true).await;
    assert_eq!(object["status"]["prune"], json!(null), "{object}");
    world.plane.settled().await;
    let told = audit.requests(mark).by(&world.identity.user()).within(&world.ns);
    let all = told.only(|e| e.what() == "delete configmaps" || e.what() == "patch configmaps");
    let late = all.iter().position(|e| e.name == "late").unwrap();
    let before = |prefix: &str| all[..late].iter().filter(|e| e.name.starts_with(prefix)).count();
    let turns = ["huge-a-", "huge-b-", "huge-c-"].map(before);
    println!("before the small one: {turns:?} of 1301, 1300 and 1300");
    // Without turns the first worker that is free is one that has done with its own.
    assert!(turns.iter().all(|done| *done < 1300), "{turns:?}");
    assert_eq!((world.data("huge-a-7").await, world.data("huge-b-7").await), (None, None));
    let kept = world.get(&world.config_maps(), "huge-c-7").await;
    assert_eq!(kept["metadata"]["labels"], json!(null), "{kept}");
}

/// What the API server refuses is not sent again because a neighbour drifts or a commit changes one,
/// but when its time has come, when a person asks, and when Git asks for something else. It stays told all the while.
#[test]
fn what_is_refused_is_left_alone_while_its_neighbours_change() {
    const NEIGHBOURS: usize = 20;
    runtime().block_on(async {
        let world = World::new("left-alone").await;
        let bad = service("bad").replace("80", "99999");
        let maps: Vec<_> = (0..NEIGHBOURS).map(|n| config_map(&format!("m{n}"), "1")).collect();
        world.repo.commit(
            &[("app/bad.yaml", Some(&bad)), ("app/maps.yaml", Some(&maps.join("---\n")))],
            "one",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        app["spec"]["retryInterval"] = json!("1h");
        world.apply(&app).await;
        let parts = ["1 of 21", "app/bad.yaml", "99999"];
        world.wait_refused(&world.apps(), "web", "Invalid", &parts).await;
        world.plane.settled().await;
        let audit = world.plane.audit();
        let tries = |mark| {
            let asked = audit.requests(mark).by(&world.identity.user()).within(&world.ns);
            asked.count("patch services")
        };
        let mark = audit.mark();
        for n in 0..NEIGHBOURS {
            let name = format!("m{n}");
            let edit = json!({"data": {"value": "by hand"}});
            world.edit(&world.config_maps(), &name, &edit).await;
            world.wait_value(&name, "1").await;
        }
        for n in 0..NEIGHBOURS {
            let maps: Vec<_> = (0..NEIGHBOURS)
                .map(|m| config_map(&format!("m{m}"), if m <= n { "2" } else { "1" }))
                .collect();
            world.repo.commit(&[("app/maps.yaml", Some(&maps.join("---\n")))], "more");
            world.look().await;
            world.wait_value(&format!("m{n}"), "2").await;
        }
        world.plane.settled().await;
        // It is tried when its time has come, which is less and less often: in a minute six times.
        let tried = tries(mark);
        assert!(tried < NEIGHBOURS / 2, "{tried}");
        world.wait_refused(&world.apps(), "web", "Invalid", &parts).await;

        let mark = audit.mark();
        world.request(&world.apps(), "web", "now").await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                object["status"]["lastHandledReconcileAt"] == "now"
            })
            .await;
        wait_for("a try to be logged", LIMIT, async || match tries(mark) {
            0 => Err(0),
            _ => Ok(()),
        })
        .await;
        let two = world.repo.commit(&[("app/bad.yaml", Some(&service("bad")))], "two");
        world.look().await;
        world.wait_applied("web", &two).await;
    });
}
