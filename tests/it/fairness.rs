//! What is huge, fails or hangs takes its share and no more.

use plumb_testkit::{Admission, Webhook, runtime};

use crate::world::{World, config_map};

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
        world.wait_refused(&world.apps(), "first", "NoAnswer", &["no answer within"]).await;
        let audit = world.plane.audit();
        let mark = audit.mark();
        world.apply(&world.app("second", "second", "1h")).await;
        let parts = ["8 of 9", "like Service", "/first: no answer within", "webhook"];
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
