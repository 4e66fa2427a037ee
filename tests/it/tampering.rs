//! What somebody does by hand beside an edit: fields taken away by other means, our marks forged, the
//! finalizer of an Application taken off.

use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use plumb_testkit::{runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::tenants::{Tenant, config_maps};
use crate::world::{LIMIT, World, condition, config_map};

const PART_OF: &str = "applyset.kubernetes.io/part-of";
const APPROVE: &str = "plumb.dev/approve-prune";

async fn ready(world: &World, name: &str) -> Value {
    world.wait_condition(&world.apps(), name, ("Ready", "True"), |_| true).await
}

/// Applies an object under the name of the manager of the Application `web`.
async fn apply_as_web(world: &World, object: &Value) {
    let params = PatchParams::apply(&format!("plumb:{}/web", world.ns)).force();
    let name = object["metadata"]["name"].as_str().unwrap();
    world.config_maps().patch(name, &params, &Patch::Apply(object)).await.unwrap();
}

/// A config map, with what bears the label of a set if it is given.
fn live(namespace: &str, name: &str, set: Option<&Value>) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace}, "data": {"theirs": "1"},
    });
    if let Some(set) = set {
        object["metadata"]["labels"] = json!({PART_OF: set});
    }
    object
}

/// How many deletions the agent has asked for since a mark.
async fn deletions(world: &World, mark: plumb_testkit::control_plane::Mark) -> usize {
    world.plane.settled().await;
    let requests = world.plane.audit().requests(mark).by(&world.identity.user());
    requests.only(|event| event.verb == "delete").len()
}

#[test]
fn what_is_taken_away_by_any_means_is_put_back_and_told() {
    runtime().block_on(async {
        let world = World::new("means").await;
        let names = ["removed", "emptied", "replaced", "reset", "in-our-name"];
        let maps: Vec<String> =
            names.iter().map(|name| format!("{}  more: \"1\"\n", config_map(name, "1"))).collect();
        let file = maps.join("---\n");
        let commit = world.repo.commit(&[("app/all.yaml", Some(&file))], "five");
        let _agent = world.agent();
        world.sync("web", "app", &commit).await;
        let maps = world.config_maps();
        let uid = world.get(&maps, "reset").await["metadata"]["uid"].clone();
        let manager = format!("plumb:{}/web", world.ns);
        let set = world.get(&maps, "reset").await["metadata"]["labels"][PART_OF].clone();
        // As in Git, and what is in Git is ours.
        let whole = |object: &Value| {
            let metadata = &object["metadata"];
            let entries = metadata["managedFields"].as_array().into_iter().flatten();
            let mut ours = entries.filter(|entry| entry["manager"] == manager);
            object["data"] == json!({"value": "1", "more": "1"})
                && metadata["labels"][PART_OF] == set
                && metadata["annotations"]["plumb.dev/application"] == format!("{}/web", world.ns)
                && ours.any(|entry| {
                    let fields = &entry["fieldsV1"];
                    !fields["f:data"]["f:value"].is_null()
                        && !fields["f:metadata"]["f:labels"][format!("f:{PART_OF}")].is_null()
                })
        };
        let by_hand = PostParams { field_manager: Some("by-hand".into()), ..PostParams::default() };

        // One field, by a JSON patch.
        let patch = r#"[{"op": "remove", "path": "/data/value"}]"#;
        let args = ["-n", &world.ns, "patch", "configmap", "removed", "--type=json", "-p", patch];
        assert!(world.plane.kubectl(args).status.success());
        world.wait_event("web", &["DriftCorrected", "/removed was changed", "data.value"]).await;
        world.wait_object(&maps, "removed", &whole).await;

        // All fields, by a PUT that leaves our label, and by one that leaves nothing.
        let mut emptied = world.get(&maps, "emptied").await;
        emptied.as_object_mut().unwrap().remove("data");
        let emptied: DynamicObject = serde_json::from_value(emptied).unwrap();
        maps.replace("emptied", &by_hand, &emptied).await.unwrap();
        world.wait_event("web", &["DriftCorrected", "/emptied was changed", "data"]).await;
        world.wait_object(&maps, "emptied", &whole).await;
        let bare: DynamicObject =
            serde_json::from_value(live(&world.ns, "replaced", None)).unwrap();
        maps.replace("replaced", &by_hand, &bare).await.unwrap();
        world.wait_event("web", &["DriftCorrected", "/replaced had lost its label"]).await;
        world
            .wait_object(&maps, "replaced", |object| {
                // What they added is theirs.
                let mut object = object.clone();
                object["data"].as_object_mut().unwrap().remove("theirs").is_some() && whole(&object)
            })
            .await;

        // All that says whose fields are.
        let reset = json!({"metadata": {"managedFields": [{}]}});
        world.edit(&maps, "reset", &reset).await;
        world.wait_event("web", &["DriftCorrected", "/reset was changed"]).await;
        world.wait_object(&maps, "reset", &whole).await;

        // Under our own name, by which our other fields go.
        apply_as_web(&world, &live(&world.ns, "in-our-name", Some(&set))).await;
        world.wait_event("web", &["DriftCorrected", "/in-our-name was changed", "data"]).await;
        world.wait_object(&maps, "in-our-name", &whole).await;

        // All of it is Git's again: what goes there goes here.
        let maps_of_less: Vec<String> = names.iter().map(|name| config_map(name, "2")).collect();
        let commit =
            world.repo.commit(&[("app/all.yaml", Some(&maps_of_less.join("---\n")))], "less");
        world.look().await;
        world.wait_applied("web", &commit).await;
        for name in names {
            let mut data = world.data(name).await.unwrap();
            data.as_object_mut().unwrap().remove("theirs");
            assert_eq!(data, json!({"value": "2"}), "{name}");
        }
        assert_eq!(world.get(&maps, "reset").await["metadata"]["uid"], uid);
    });
}

#[test]
fn what_is_forged_under_our_name_is_ours_and_deleted_with_the_guard_as_the_account() {
    runtime().block_on(async {
        let world = World::new("forged-entry").await;
        let elsewhere = world.plane.namespace("forged-elsewhere").await;
        let tenant = Tenant::new(&world, "tenant", config_maps()).await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        app["spec"]["serviceAccountName"] = json!("tenant");
        app["spec"]["pruneGuard"] = json!({"count": 0, "share": 0});
        world.apply(&app).await;
        ready(&world, "web").await;
        let maps = world.config_maps();
        let set = world.get(&maps, "a").await["metadata"]["labels"][PART_OF].clone();
        let mark = world.plane.audit().mark();

        // Our name alone is nothing, and neither is our label.
        apply_as_web(&world, &live(&world.ns, "named", None)).await;
        world.apply(&live(&world.ns, "labelled", Some(&set))).await;
        // Both together are what we know our own by.
        apply_as_web(&world, &live(&world.ns, "forged", Some(&set))).await;
        let parts = ["1 of 2 objects would be deleted", APPROVE];
        let object = world.wait_refused(&world.apps(), "web", "PruneHeld", &parts).await;
        let forged = json!([format!("ConfigMap {}/forged", world.ns)]);
        assert_eq!(object["status"]["prune"]["objects"], forged);
        assert_eq!(deletions(&world, mark).await, 0);

        world.edit(&world.apps(), "web", &json!({"spec": {"pruneGuard": null}})).await;
        world.wait_gone(&maps, "forged").await;
        world.wait_event("web", &["Applied", "1 pruned"]).await;
        ready(&world, "web").await;

        // Where the account may not delete, neither may who forged that.
        let theirs: kube::Api<DynamicObject> = kube::Api::namespaced_with(
            world.client.clone(),
            &elsewhere,
            &kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
                "",
                "v1",
                "ConfigMap",
            )),
        );
        let params = PatchParams::apply(&format!("plumb:{}/web", world.ns)).force();
        let object = live(&elsewhere, "victim", Some(&set));
        theirs.patch("victim", &params, &Patch::Apply(&object)).await.unwrap();
        let victim = format!("{elsewhere}/victim");
        let parts = [&*victim, &tenant.user()];
        let object = world.wait_condition(&world.apps(), "web", ("Ready", "False"), |_| true).await;
        let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
        println!("{}: {message}", condition(&object, "Ready")["reason"]);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");

        probe.idle(0).await;
        for name in ["named", "labelled"] {
            let live = world.get(&maps, name).await;
            assert!(live["metadata"]["deletionTimestamp"].is_null(), "{live}");
        }
        let victim = world.get(&theirs, "victim").await;
        assert!(victim["metadata"]["deletionTimestamp"].is_null(), "{victim}");
        world.plane.settled().await;
        let requests = world.plane.audit().requests(mark).by(&world.identity.user());
        let deleted = requests.only(|event| event.verb == "delete");
        assert!(deleted.count("delete configmaps") >= 2, "{}", deleted.table());
        for event in deleted.iter() {
            assert_eq!(event.impersonated, tenant.user(), "{} {}", event.what(), event.name);
        }
    });
}

#[test]
fn a_finalizer_that_is_taken_off_under_an_agent_deletes_nothing() {
    runtime().block_on(async {
        let world = World::new("unfinalized").await;
        let (a, b) = (config_map("a", "1"), config_map("b", "1"));
        let files = [("app/a.yaml", Some(&*a)), ("app/b.yaml", Some(&*b))];
        let commit = world.repo.commit(&files, "two");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        app["spec"]["pruneGuard"] = json!({"protect": ["ConfigMap"]});
        world.apply(&app).await;
        world.wait_applied("web", &commit).await;
        let mark = world.plane.audit().mark();
        let off = json!({"metadata": {"finalizers": null}});
        world.edit(&world.apps(), "web", &off).await;
        let mine = json!(["plumb.dev/finalizer"]);
        world
            .wait_object(&world.apps(), "web", |object| object["metadata"]["finalizers"] == mine)
            .await;

        // While its end is held, it comes back no more: the API server lets nobody add one then.
        world.delete(&world.apps(), "web").await;
        world.wait_refused(&world.apps(), "web", "PruneHeld", &["protects"]).await;
        world.edit(&world.apps(), "web", &off).await;
        world.wait_gone(&world.apps(), "web").await;
        let commit = world.repo.commit(&[("app/b.yaml", None)], "one");
        world.look().await;
        world
            .wait_condition(&world.sources(), "repo", ("Ready", "True"), |source| {
                source["status"]["revision"] == format!("main@sha1:{commit}")
            })
            .await;
        assert_eq!(deletions(&world, mark).await, 0);
        let fields = world.get(&world.config_maps(), "b").await["metadata"].clone();
        assert!(fields["labels"][PART_OF].is_string(), "{fields}");

        // The next of its name asks, although the same agent is at it.
        let applied = fields["managedFields"][0]["time"].as_str().unwrap();
        let applied: jiff::Timestamp = applied.parse().unwrap();
        wait_for("a second later than the objects'", LIMIT, async || {
            let now = jiff::Timestamp::now();
            if now.as_second() > applied.as_second() { Ok(()) } else { Err(now) }
        })
        .await;
        world.apply(&world.app("web", "app", "1h")).await;
        let parts = ["1 deletion is held", "before this application was created", APPROVE];
        let object = world.wait_refused(&world.apps(), "web", "PruneHeld", &parts).await;
        let objects = &object["status"]["prune"]["objects"];
        assert_eq!(*objects, json!([format!("ConfigMap {}/b", world.ns)]));
        assert_eq!(deletions(&world, mark).await, 0);
    });
}

#[test]
fn an_application_that_goes_before_it_is_looked_at_leaves_nothing_behind() {
    runtime().block_on(async {
        let world = World::new("never-begun").await;
        let names = ["asleep", "early", "doomed", "other"];
        let files: Vec<_> =
            names.map(|name| (format!("{name}/a.yaml"), config_map(name, "1"))).into();
        let changes: Vec<_> = files.iter().map(|(path, text)| (&**path, Some(&**text))).collect();
        world.repo.commit(&changes, "one each");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;

        // Suspended from the start.
        let mut app = world.app("asleep", "asleep", "1h");
        app["spec"]["suspend"] = json!(true);
        world.apply(&app).await;
        probe.suspended("asleep").await;
        assert_eq!(world.get(&world.apps(), "asleep").await["metadata"]["finalizers"], Value::Null);
        world.delete(&world.apps(), "asleep").await;
        world.wait_gone(&world.apps(), "asleep").await;
        wait_for("the agent to forget it", LIMIT, async || {
            let scrape = probe.scrape().await;
            let left = scrape.sum("plumb_suspended", "name=\"asleep\"");
            if left == 0 { Ok(()) } else { Err(scrape) }
        })
        .await;
        assert!(agent.stop().success());

        // While no agent runs; one of them with a finalizer of somebody else, so that an agent sees it.
        world.apply(&world.app("early", "early", "1h")).await;
        world.delete(&world.apps(), "early").await;
        world.wait_gone(&world.apps(), "early").await;
        let mut app = world.app("doomed", "doomed", "1h");
        app["metadata"]["finalizers"] = json!(["example.com/hold"]);
        world.apply(&app).await;
        world.delete(&world.apps(), "doomed").await;
        world.apply(&world.app("other", "other", "1h")).await;
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        ready(&world, "other").await;
        probe.idle(0).await;
        let doomed = world.get(&world.apps(), "doomed").await;
        assert_eq!(doomed["metadata"]["finalizers"], json!(["example.com/hold"]));
        for name in ["asleep", "early", "doomed"] {
            assert_eq!(world.data(name).await, None, "{name}");
        }
        world.edit(&world.apps(), "doomed", &json!({"metadata": {"finalizers": null}})).await;
        world.wait_gone(&world.apps(), "doomed").await;
        let events = world.events_of("doomed").await;
        assert!(events.is_empty(), "{events:?}");
    });
}
