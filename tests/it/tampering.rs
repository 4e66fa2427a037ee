//! What somebody does by hand beside an edit: fields taken away by other means.

use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use plumb_testkit::runtime;
use serde_json::{Value, json};

use crate::world::{World, config_map};

const PART_OF: &str = "applyset.kubernetes.io/part-of";

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
