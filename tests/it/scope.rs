//! Where members may be, as it stands on an Application, while that cannot be told.

use plumb_testkit::{Fault, Match, Proxy, Rule, runtime};
use serde_json::{Value, json};

use crate::world::{World, config_map};

/// The kinds and the other namespaces that stand on an Application.
fn scope(object: &Value) -> (Value, Value) {
    let annotations = &object["metadata"]["annotations"];
    let name = |fact: &str| format!("applyset.kubernetes.io/{fact}");
    let of = |fact: &str| annotations[name(fact)].clone();
    (of("contains-group-kinds"), of("additional-namespaces"))
}

/// While a right is missing, or a webhook that converts a kind is down. With pruning turned off nothing
/// else would remember that there may be something left.
#[test]
fn a_kind_that_cannot_be_listed_stays_in_the_scope_and_so_do_namespaces() {
    runtime().block_on(async {
        let world = World::new("blind-scope").await;
        let elsewhere = world.plane.namespace("elsewhere").await;
        let secret = |name: &str| {
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: {elsewhere}\n"
            )
        };
        let apps = ["off", "on"];
        let files: Vec<_> = apps
            .iter()
            .flat_map(|app| {
                let map = (format!("{app}/a.yaml"), config_map(app, "1"));
                [map, (format!("{app}/s.yaml"), secret(app))]
            })
            .collect();
        let changes: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), Some(t.as_str()))).collect();
        let commit = world.repo.commit(&changes, "two kinds");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        for app in apps {
            let mut object = world.app(app, app, "1h");
            object["spec"]["prune"] = json!(app == "on");
            world.apply(&object).await;
        }
        let whole = (json!("ConfigMap,Secret"), json!(elsewhere));
        for app in apps {
            let object = world.wait_applied(app, &commit).await;
            assert_eq!(scope(&object), whole, "{app}");
        }
        assert!(agent.stop().success());

        let proxy = Proxy::to_api(&world.plane, 1).await;
        let lists = Match::method("GET").path("/secrets").query("labelSelector");
        let forbidden = Fault::Status { code: 403, retry_after: None };
        let blind = proxy.add(Rule::new(lists, forbidden));
        let commit = world.repo.commit(&[("off/s.yaml", None), ("on/s.yaml", None)], "no secret");
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.look().await;
        let parts = ["Secret", "cannot tell which", "Forbidden"];
        let object = world.wait_refused(&world.apps(), "on", "PruneFailed", &parts).await;
        assert_eq!(scope(&object), whole);
        let object = world.wait_applied("off", &commit).await;
        assert_eq!(scope(&object), whole);
        let kinds = object["status"]["scope"]["groupKinds"].clone();
        assert_eq!(kinds, json!(["ConfigMap", "Secret"]), "{object}");

        // So it is found once it can be listed, and the scope shrinks when nothing of it is left.
        proxy.remove(blind);
        let secrets = kube::Api::<kube::api::DynamicObject>::namespaced_with(
            world.client.clone(),
            &elsewhere,
            &kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("", "v1", "Secret")),
        );
        world.wait_gone(&secrets, "on").await;
        world
            .wait_condition(&world.apps(), "off", ("Ready", "True"), |object| {
                let message = crate::world::condition(object, "Ready")["message"].to_string();
                message.contains("pruning is off")
            })
            .await;
        assert!(secrets.get_opt("off").await.unwrap().is_some());
        world.edit(&world.apps(), "off", &json!({"spec": {"prune": true}})).await;
        world.wait_gone(&secrets, "off").await;
        let bare = (json!("ConfigMap"), json!(""));
        for app in apps {
            world.wait_object(&world.apps(), app, |object| scope(object) == bare).await;
        }
    });
}
