//! What somebody changes is seen, told, and put back without a fight.

use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use plumb_testkit::{Fault, Match, Proxy, Rule, runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

const SECRET: &str =
    "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  key: from-git\n";

/// A right is missing, or a webhook that converts a kind is down.
#[test]
fn a_kind_that_cannot_be_read_is_told_and_nothing_of_it_is_taken_for_gone() {
    runtime().block_on(async {
        let world = World::new("blind").await;
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let forbidden = || Fault::Status { code: 403, retry_after: None };
        let watches = Match::method("GET").path("/configmaps").query("watch=true");
        proxy.add(Rule::new(watches, forbidden()));
        let lists = Match::method("GET").path("/secrets").query("labelSelector");
        let lists = proxy.add(Rule::new(lists, forbidden()));
        let files = [("app/a.yaml", Some(&*config_map("a", "1"))), ("app/s.yaml", Some(SECRET))];
        let commit = world.repo.commit(&files, "two kinds");
        let kubeconfig = world.identity.through(&proxy.url());
        let mut agent = world.agent_with(kubeconfig, &[]);
        let probe = Probe::of(&mut agent).await;
        world.sync("web", "app", &commit).await;
        let object =
            world.wait_condition(&world.apps(), "web", ("Drifted", "Unknown"), |_| true).await;
        let drifted = condition(&object, "Drifted");
        assert_eq!(drifted["reason"], "KindUnreadable");
        let message = drifted["message"].as_str().unwrap();
        assert!(message.contains("cannot list secrets: Forbidden"), "{message}");
        assert_eq!(condition(&object, "Ready")["status"], "True");
        assert_eq!(probe.scrape().await.sum("plumb_unreadable_kinds", ""), 1);

        // What can be listed but not watched is looked at now and then.
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;

        // Gone from Git, and nobody knows what of it is left.
        world.repo.commit(&[("app/s.yaml", None)], "no secret");
        world.look().await;
        let parts = ["Secret", "cannot tell which", "Forbidden"];
        world.wait_refused(&world.apps(), "web", "PruneFailed", &parts).await;
        let secrets = world.api("v1", "Secret");
        world.get(&secrets, "s").await;

        proxy.remove(lists);
        world.wait_gone(&secrets, "s").await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                condition(object, "Drifted").is_null()
            })
            .await;
        assert_eq!(object["status"]["failures"], Value::Null);
        assert_eq!(probe.scrape().await.sum("plumb_unreadable_kinds", ""), 0);
    });
}

/// Another controller, or an autoscaler, wants a field that Git has.
#[test]
fn a_fight_over_a_field_slows_down_and_is_told_once() {
    runtime().block_on(async {
        let world = World::new("fight").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "git")))], "one");
        let _agent = world.agent();
        world.sync("web", "app", &commit).await;
        let maps = world.config_maps();
        world.plane.settled().await;
        let mark = world.plane.audit().mark();

        let fighter = async {
            loop {
                if world.data("a").await.unwrap()["value"] == "git" {
                    world.edit(&maps, "a", &json!({"data": {"value": "theirs"}})).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(30), fighter).await;
        world.plane.settled().await;
        let writes = |resource: &str| {
            let events = world.plane.audit().since(mark).into_iter();
            let ours = events.filter(|e| e.user == world.identity.user() && e.verb == "patch");
            ours.filter(|e| e.resource == resource).count()
        };
        let (objects, statuses) = (writes("configmaps"), writes("applications"));
        assert!((5..=12).contains(&objects), "{objects} corrections in 30 s");
        assert!(statuses <= objects + 3, "{statuses} writes of the status");
        let object =
            world.wait_condition(&world.apps(), "web", ("Drifted", "True"), |_| true).await;
        let drifted = condition(&object, "Drifted");
        assert_eq!(drifted["reason"], "DriftFoughtOver");
        let message = drifted["message"].as_str().unwrap();
        for part in ["/a is changed", "data.value by by-hand", "again and again"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(condition(&object, "Ready")["status"], "True");

        // Giving in ends it at once.
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  other: x\n";
        let commit = world.repo.commit(&[("app/a.yaml", Some(map))], "theirs");
        world.look().await;
        world.wait_applied("web", &commit).await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                condition(object, "Drifted").is_null()
            })
            .await;
        assert!(object["status"]["drift"]["count"].as_u64().unwrap() >= 4, "{object}");
    });
}

/// Leader election writes an annotation of a member every second.
#[test]
fn a_chatty_neighbour_costs_little_and_holds_no_correction_up() {
    runtime().block_on(async {
        let world = World::new("chatty").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "git")))], "one");
        let _agent = world.agent();
        world.sync("web", "app", &commit).await;
        let maps = world.config_maps();
        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        for second in 0..30 {
            let edit = json!({"metadata": {"annotations": {"leader": second.to_string()}}});
            world.edit(&maps, "a", &edit).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        world.plane.settled().await;
        let events = world.plane.audit().since(mark).into_iter();
        let ours = events.filter(|e| e.user == world.identity.user() && e.verb == "patch");
        let what: Vec<_> = ours.filter(|e| e.resource != "leases").map(|e| e.what()).collect();
        assert!(what.len() <= 12, "{what:?}");

        let begun = std::time::Instant::now();
        world.edit(&maps, "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "git").await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    });
}

/// In Plumb's spelling and in Flux's, as labels and as annotations, in any case.
#[test]
fn marks_on_objects_say_how_they_are_dealt_with() {
    runtime().block_on(async {
        let world = World::new("marks").await;
        let marked = |name: &str, value: &str, place: &str, mark: &str| {
            let text = config_map(name, value);
            text.replace("\ndata:", &format!("\n  {place}: {{{mark}}}\ndata:"))
        };
        let once =
            |value: &str| marked("once", value, "annotations", "plumb.dev/ssa: IfNotPresent");
        let flux = "kustomize.toolkit.fluxcd.io";
        let files = [
            ("app/keep.yaml", marked("keep", "1", "annotations", "plumb.dev/prune: disabled")),
            ("app/too.yaml", marked("too", "1", "labels", &format!("{flux}/prune: Disabled"))),
            ("app/once.yaml", once("1")),
            (
                "app/there.yaml",
                marked("there", "1", "labels", &format!("{flux}/ssa: ifnotpresent")),
            ),
            ("app/not.yaml", marked("not", "1", "annotations", &format!("{flux}/ssa: Ignore"))),
            ("app/off.yaml", marked("off", "1", "labels", "plumb.dev/reconcile: disabled")),
            ("app/free.yaml", config_map("free", "1")),
        ];
        let changes: Vec<_> = files.iter().map(|(path, text)| (*path, Some(&**text))).collect();
        let commit = world.repo.commit(&changes, "marks");
        let maps = world.config_maps();
        let there = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "there", "namespace": world.ns}, "data": {"value": "theirs"},
        });
        world.apply(&there).await;
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let object = world.wait_applied("web", &commit).await;
        let message = condition(&object, "Ready")["message"].to_string();
        assert!(message.contains("7 objects; 3 left alone, as marked"), "{message}");
        assert_eq!((world.data("not").await, world.data("off").await), (None, None));
        let there = world.get(&maps, "there").await;
        assert_eq!(there["data"]["value"], "theirs");
        assert_eq!(there["metadata"]["labels"], Value::Null);

        // Made once, and again only when it is gone.
        world.edit(&maps, "once", &json!({"data": {"value": "by hand"}})).await;
        // Marked on the live object, by somebody who needs it so for a while.
        let mark = "plumb.dev/reconcile";
        let edit = json!({
            "metadata": {"annotations": {mark: "disabled"}}, "data": {"value": "by hand"},
        });
        world.edit(&maps, "free", &edit).await;
        let (once2, free2) = (once("2"), config_map("free", "2"));
        let changes = [("app/once.yaml", Some(&*once2)), ("app/free.yaml", Some(&*free2))];
        let commit = world.repo.commit(&changes, "two");
        world.look().await;
        world.wait_applied("web", &commit).await;
        probe.idle(0).await;
        assert_eq!(world.data("once").await.unwrap()["value"], "by hand");
        assert_eq!(world.data("free").await.unwrap()["value"], "by hand");
        world.delete(&maps, "once").await;
        world.wait_value("once", "2").await;
        world.edit(&maps, "free", &json!({"metadata": {"annotations": {mark: null}}})).await;
        world.wait_value("free", "2").await;

        // What leaves Git goes, unless it is marked.
        let gone: Vec<_> =
            ["keep", "too", "once", "there"].map(|name| format!("app/{name}.yaml")).into();
        let changes: Vec<_> = gone.iter().map(|path| (&**path, None)).collect();
        let commit = world.repo.commit(&changes, "gone");
        world.look().await;
        let object = world.wait_applied("web", &commit).await;
        world.wait_gone(&maps, "once").await;
        for name in ["keep", "too", "there", "free"] {
            assert!(world.data(name).await.is_some(), "{name}");
        }
        let message = condition(&object, "Ready")["message"].to_string();
        assert!(message.contains("3 objects; 2 left alone, as marked"), "{message}");
        assert!(message.contains("left Git but is not deleted: it is marked to stay"), "{message}");

        // So with the Application.
        probe.idle(0).await;
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.apps(), "web").await;
        world.wait_gone(&maps, "free").await;
        assert!(world.data("keep").await.is_some() && world.data("too").await.is_some());
    });
}

/// As `kubectl get` shows a field, by its JSON pointer.
pub(crate) async fn field(api: &Api<DynamicObject>, name: &str, pointer: &str) -> Value {
    let object = serde_json::to_value(api.get(name).await.unwrap()).unwrap();
    object.pointer(pointer).cloned().unwrap_or_default()
}

async fn wait_field(api: &Api<DynamicObject>, name: &str, pointer: &str, wanted: Value) {
    wait_for(&format!("{name} to have {wanted} at {pointer}"), LIMIT, async || {
        let found = field(api, name, pointer).await;
        if found == wanted { Ok(()) } else { Err(found) }
    })
    .await;
}

pub(crate) fn deployment(name: &str, replicas: u8, image: &str, tier: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  labels: {{tier: {tier}}}\n\
         spec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: x}}}}\n  template:\n    \
         metadata: {{labels: {{app: x}}}}\n    spec:\n      containers:\n      - {{name: side, \
         image: side:1}}\n      - {{name: main, image: '{image}'}}\n"
    )
}

#[test]
fn ignored_fields_are_filled_in_once_and_then_for_others_to_decide() {
    const REPLICAS: &str = "/spec/replicas";
    const IMAGE: &str = "/spec/template/spec/containers/1/image";
    runtime().block_on(async {
        let world = World::new("ignore").await;
        let (web, other) =
            (deployment("web", 2, "main:1", "a"), deployment("other", 2, "main:1", "a"));
        let files = [("app/web.yaml", Some(&*web)), ("app/other.yaml", Some(&*other))];
        let commit = world.repo.commit(&files, "one");
        let mut agent = world.agent();
        let mut probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        let target = json!({"kind": "Deployment", "name": "w.b"});
        app["spec"]["ignore"] = json!([{"paths": [REPLICAS, IMAGE], "target": target}]);
        world.apply(&app).await;
        world.wait_applied("web", &commit).await;
        let api = world.api("apps/v1", "Deployment");
        assert_eq!(field(&api, "web", REPLICAS).await, 2, "Git fills it in");

        // One edit of ignored fields and of others: only the others are put back.
        let scale = json!({"metadata": {"labels": {"tier": "b"}}, "spec": {"replicas": 5}});
        world.edit(&api, "web", &scale).await;
        world.edit(&api, "other", &json!({"spec": {"replicas": 5}})).await;
        wait_field(&api, "web", "/metadata/labels/tier", json!("a")).await;
        wait_field(&api, "other", REPLICAS, json!(2)).await;
        assert_eq!(field(&api, "web", REPLICAS).await, 5);
        let event = world.wait_event("web", &["/web was changed", "metadata.labels.tier"]).await;
        assert!(!event.contains("replicas"), "{event}");

        // In a keyed list, and by an apply of somebody else.
        let theirs = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": world.ns},
            "spec": {"template": {"spec": {"containers": [{"name": "main", "image": "main:9"}]}}},
        });
        world.apply(&theirs).await;
        probe.idle(0).await;
        assert_eq!(field(&api, "web", IMAGE).await, "main:9");
        // Which is told once, and stands in the status as long as it is so.
        let fields = ["spec.template.spec.containers[1].image", "spec.replicas"];
        let yielded = |object: &Value| {
            let yielded = &object["status"]["yielded"];
            let object = yielded[0]["object"].as_str().unwrap_or_default();
            yielded.as_array().map_or(0, Vec::len) == 1
                && object.ends_with("/web")
                && fields
                    .iter()
                    .all(|f| yielded[0]["fields"].as_array().unwrap().contains(&json!(f)))
        };
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), yielded).await;
        world.wait_event("web", &["Yielded", "/web", fields[0]]).await;

        // A commit brings the rest.
        let web = deployment("web", 3, "main:2", "c");
        let commit = world.repo.commit(&[("app/web.yaml", Some(&web))], "two");
        world.look().await;
        world.wait_applied("web", &commit).await;
        assert_eq!(field(&api, "web", "/metadata/labels/tier").await, "c");
        assert_eq!(field(&api, "web", REPLICAS).await, 5);
        assert_eq!(field(&api, "web", IMAGE).await, "main:9");

        // A restart forgets nothing.
        assert!(agent.stop().success());
        agent = world.agent();
        probe = Probe::of(&mut agent).await;
        world.edit(&api, "web", &json!({"metadata": {"labels": {"tier": "b"}}})).await;
        wait_field(&api, "web", "/metadata/labels/tier", json!("c")).await;
        probe.idle(1).await;
        assert_eq!(field(&api, "web", REPLICAS).await, 5);
        assert_eq!(field(&api, "web", IMAGE).await, "main:9");
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), yielded).await;
        let events = world.events_of("web").await;
        let told = events.iter().filter(|event| event.starts_with("Yielded"));
        let told = told.filter(|event| event.contains(fields[0])).count();
        assert_eq!(told, 1, "{events:?}");

        // Made anew, it is as in Git; and so are fields that are ignored no more.
        world.delete(&api, "web").await;
        wait_for("a new object", LIMIT, async || match api.get_opt("web").await.unwrap() {
            Some(object) if object.data["spec"]["replicas"] == 3 => Ok(()),
            other => Err(other),
        })
        .await;
        world.edit(&api, "web", &json!({"spec": {"replicas": 7}})).await;
        probe.idle(0).await;
        world.edit(&world.apps(), "web", &json!({"spec": {"ignore": null}})).await;
        wait_field(&api, "web", REPLICAS, json!(3)).await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["yielded"].is_null()
            })
            .await;

        let bad = json!([{"paths": [REPLICAS], "target": {"name": "("}}]);
        world.edit(&world.apps(), "web", &json!({"spec": {"ignore": bad}})).await;
        let parts = ["spec.ignore[0].target", "name"];
        world.wait_refused(&world.apps(), "web", "InvalidSpec", &parts).await;
    });
}

#[test]
fn of_an_ignored_field_with_more_below_each_part_is_for_others_to_decide() {
    runtime().block_on(async {
        let world = World::new("ignore-parts").await;
        let map = |value: &str| {
            let data = format!("data: {{a: '{value}', b: '{value}'}}");
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web}}\n{data}\n")
        };
        let web = deployment("web", 2, "main:1", "a");
        let files = [("app/map.yaml", Some(&*map("1"))), ("app/web.yaml", Some(&*web))];
        let commit = world.repo.commit(&files, "one");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        app["spec"]["ignore"] = json!([
            {"paths": ["/data"], "target": {"kind": "ConfigMap"}},
            {"paths": ["/spec/replicas"], "target": {"kind": "Deployment"}},
        ]);
        world.apply(&app).await;
        world.wait_applied("web", &commit).await;

        // A hand takes one of two keys: it keeps it, and the other one follows Git.
        let maps = world.api("v1", "ConfigMap");
        world.edit(&maps, "web", &json!({"data": {"a": "hand"}})).await;
        probe.idle(0).await;
        let commit = world.repo.commit(&[("app/map.yaml", Some(&*map("2")))], "two");
        world.look().await;
        world.wait_applied("web", &commit).await;
        assert_eq!(field(&maps, "web", "/data/a").await, "hand");
        assert_eq!(field(&maps, "web", "/data/b").await, "2");

        // An autoscaler agrees at first, then has a will of its own, and then lets go. What the API
        // server makes of a field that nobody has is not Git's either.
        let deployments = world.api("apps/v1", "Deployment");
        let theirs = |spec: Value| {
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": world.ns}, "spec": spec,
            })
        };
        for replicas in [2, 7] {
            world.apply(&theirs(json!({"replicas": replicas}))).await;
            probe.idle(0).await;
            assert_eq!(field(&deployments, "web", "/spec/replicas").await, replicas);
        }
        world.apply(&theirs(json!({"minReadySeconds": 1}))).await;
        let web = deployment("web", 3, "main:2", "a");
        let commit = world.repo.commit(&[("app/web.yaml", Some(&*web))], "three");
        world.look().await;
        world.wait_applied("web", &commit).await;
        assert_eq!(field(&deployments, "web", "/spec/replicas").await, 1, "the default");
        assert_eq!(
            field(&deployments, "web", "/spec/template/spec/containers/1/image").await,
            "main:2"
        );
    });
}

/// What an autoscaler does, without one.
pub(crate) async fn scale(api: &Api<DynamicObject>, name: &str, manager: &str, replicas: u8) {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let params = PatchParams { field_manager: Some(manager.into()), ..Default::default() };
    api.patch_subresource("scale", name, &params, &patch).await.unwrap();
}

#[test]
fn the_number_of_replicas_is_left_to_an_autoscaler_but_not_to_kubectl() {
    const REPLICAS: &str = "/spec/replicas";
    runtime().block_on(async {
        let world = World::new("scale").await;
        let web = deployment("web", 2, "main:1", "a");
        let commit = world.repo.commit(&[("app/web.yaml", Some(&web))], "one");
        let mut agent = world.agent();
        world.sync("web", "app", &commit).await;
        let api = world.api("apps/v1", "Deployment");
        scale(&api, "web", "kubectl", 9).await;
        wait_field(&api, "web", REPLICAS, json!(2)).await;

        scale(&api, "web", "kube-controller-manager", 5).await;
        world.wait_event("web", &["Yielded", "/web", "spec.replicas"]).await;
        let web = deployment("web", 3, "main:2", "b");
        let commit = world.repo.commit(&[("app/web.yaml", Some(&web))], "two");
        world.look().await;
        world.wait_applied("web", &commit).await;
        assert_eq!(field(&api, "web", "/metadata/labels/tier").await, "b");
        assert_eq!(field(&api, "web", REPLICAS).await, 5);

        // A restart, and more load, change nothing about that.
        assert!(agent.stop().success());
        agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        scale(&api, "web", "kube-controller-manager", 7).await;
        world.edit(&api, "web", &json!({"metadata": {"labels": {"tier": "c"}}})).await;
        wait_field(&api, "web", "/metadata/labels/tier", json!("b")).await;
        probe.idle(1).await;
        assert_eq!(field(&api, "web", REPLICAS).await, 7);
        let events = world.events_of("web").await;
        let yielded = events.iter().filter(|event| event.starts_with("Yielded")).count();
        assert_eq!(yielded, 1, "{events:?}");
    });
}

#[test]
fn an_application_that_observes_tells_what_it_would_do_and_writes_nothing() {
    runtime().block_on(async {
        let world = World::new("observe").await;
        let files = ["a", "b", "c"].map(|name| (format!("app/{name}.yaml"), config_map(name, "1")));
        let changes: Vec<_> = files.iter().map(|(path, text)| (&**path, Some(&**text))).collect();
        let commit = world.repo.commit(&changes, "three");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.sync("web", "app", &commit).await;
        world.edit(&world.apps(), "web", &json!({"spec": {"mode": "Observe"}})).await;
        let observed = |parts: &'static [&'static str]| {
            let world = &world;
            async move {
                let object = world.wait_refused(&world.apps(), "web", "Observed", parts).await;
                let drifted = condition(&object, "Drifted");
                assert_eq!(
                    (&drifted["status"], &drifted["reason"]),
                    (&json!("True"), &json!("Observed"))
                );
                object
            }
        };
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                condition(object, "Ready")["message"].as_str().unwrap().contains("as observed")
            })
            .await;

        let maps = world.config_maps();
        let before = world.get(&maps, "c").await;
        world.edit(&maps, "a", &json!({"data": {"value": "by hand"}})).await;
        let object = observed(&["/a would be changed: data.value (by by-hand)"]).await;
        assert_eq!(object["status"]["lastAppliedRevision"], format!("main@sha1:{commit}"));
        world.delete(&maps, "b").await;
        observed(&["/a would be changed", "/b would be created"]).await;
        let next = world.repo.commit(&[("app/c.yaml", None)], "two");
        world.look().await;
        let object =
            observed(&["/a would be changed", "/b would be created", "/c would be deleted"]).await;
        assert_eq!(object["status"]["lastAttemptedRevision"], format!("main@sha1:{next}"));
        assert_eq!(object["status"]["lastAppliedRevision"], format!("main@sha1:{commit}"));
        probe.idle(0).await;
        assert_eq!(world.data("a").await.unwrap()["value"], "by hand");
        assert_eq!(world.data("b").await, None);
        assert_eq!(world.get(&maps, "c").await, before);

        world.edit(&world.apps(), "web", &json!({"spec": {"mode": "Enforce"}})).await;
        world.wait_applied("web", &next).await;
        world.wait_value("a", "1").await;
        world.wait_value("b", "1").await;
        world.wait_gone(&maps, "c").await;
    });
}

/// Puts managed fields back as they were, as a webhook's change is without a trace in them: who edits
/// an object's data and then its managed fields leaves nothing behind that metadata would show.
async fn edit_without_a_trace(world: &World, name: &str, value: &str) {
    let maps = world.config_maps();
    let before = world.get(&maps, name).await["metadata"]["managedFields"].clone();
    world.edit(&maps, name, &json!({"data": {"value": value}})).await;
    let restore =
        json!([{"op": "replace", "path": "/metadata/managedFields", "value": before}]).to_string();
    let args = ["-n", &world.ns, "patch", "configmap", name, "--type=json", "-p", &restore];
    let output = world.plane.kubectl(args);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.get(&maps, name).await["metadata"]["managedFields"], before);
}

/// While the agent is down, so that no watch tells of the two edits one by one.
#[test]
fn what_is_changed_without_a_trace_is_found_by_an_audit() {
    runtime().block_on(async {
        let world = World::new("audit").await;
        let files = ["a", "b", "once"].map(|name| {
            let mark = "\n  annotations: {plumb.dev/ssa: IfNotPresent}\ndata:";
            let text = config_map(name, "git");
            let text = if name == "once" { text.replace("\ndata:", mark) } else { text };
            (format!("app/{name}.yaml"), text)
        });
        let changes: Vec<_> = files.iter().map(|(path, text)| (&**path, Some(&**text))).collect();
        let commit = world.repo.commit(&changes, "three");
        let mut agent = world.agent();
        world.sync("web", "app", &commit).await;
        let maps = world.config_maps();
        world.edit(&maps, "once", &json!({"data": {"value": "by hand"}})).await;
        let probe = Probe::of(&mut agent).await;
        probe.idle(0).await;
        assert!(agent.stop().success());
        edit_without_a_trace(&world, "a", "by hand").await;

        // A restart reads metadata only, which says that nothing happened.
        agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        wait_for("the application to be looked at", LIMIT, async || {
            let scrape = probe.scrape().await;
            if scrape.sum("plumb_ready", "kind=\"Application\"") == 1 {
                Ok(())
            } else {
                Err(scrape)
            }
        })
        .await;
        probe.idle(2).await;
        assert_eq!(world.data("a").await.unwrap()["value"], "by hand");
        assert!(agent.stop().success());

        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        let args = ["--audit-interval", "5s"];
        let _agent = world.agent_with(world.identity.kubeconfig().to_owned(), &args);
        world.wait_value("a", "git").await;
        let parts = ["DriftCorrected", "ConfigMap", "/a was not as in Git", "do not tell"];
        world.wait_event("web", &parts).await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["drift"]["count"] == 1
            })
            .await;
        let drift = &object["status"]["drift"];
        assert!(drift["object"].as_str().unwrap().ends_with("/a"), "{drift}");
        // The others are audited as well, which changes and says nothing; but for what is made once.
        let sent = |name: &str| {
            let events = world.plane.audit().since(mark).into_iter();
            let ours = events.filter(|e| e.user == world.identity.user() && e.verb == "patch");
            ours.filter(|e| e.resource == "configmaps" && e.name == name).count()
        };
        wait_for("two audits of each", LIMIT, async || {
            let counts = (sent("a"), sent("b"));
            if counts.0 >= 3 && counts.1 >= 2 { Ok(()) } else { Err(counts) }
        })
        .await;
        assert_eq!(sent("once"), 0);
        assert_eq!(world.data("once").await.unwrap()["value"], "by hand");
        let object = world.get(&world.apps(), "web").await;
        assert_eq!(object["status"]["drift"]["count"], 1, "{object}");
        // Nobody looks after what is suspended, and what only observes writes nothing.
        world.edit(&world.apps(), "web", &json!({"spec": {"mode": "Observe"}})).await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                condition(object, "Ready")["message"].as_str().unwrap().contains("as observed")
            })
            .await;
        edit_without_a_trace(&world, "b", "by hand").await;
        world
            .wait_condition(&world.apps(), "web", ("Drifted", "True"), |object| {
                let message = condition(object, "Drifted")["message"].to_string();
                // By the audit, as the first of the two edits is seen at once.
                message.contains("/b would be changed") && !message.contains("data.value")
            })
            .await;
        assert_eq!(world.data("b").await.unwrap()["value"], "by hand");
    });
}

/// Waits until so many watches of secrets are open.
async fn wait_secret_watches(proxy: &Proxy, wanted: usize) {
    let watches = Match::method("GET").path("/secrets").query("watch=true");
    wait_for(&format!("{wanted} watches of secrets"), LIMIT, async || {
        let open = proxy.open_of(&watches);
        if open == wanted { Ok(()) } else { Err(open) }
    })
    .await;
}

#[test]
fn a_kind_that_nobody_needs_any_more_is_not_watched_until_it_is_needed_again() {
    runtime().block_on(async {
        let world = World::new("unneeded").await;
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let files = [("app/a.yaml", Some(&*config_map("a", "1"))), ("app/s.yaml", Some(SECRET))];
        let commit = world.repo.commit(&files, "two kinds");
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.sync("web", "app", &commit).await;
        wait_secret_watches(&proxy, 1).await;
        let commit = world.repo.commit(&[("app/s.yaml", None)], "one kind");
        world.look().await;
        world.wait_applied("web", &commit).await;
        wait_secret_watches(&proxy, 0).await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;

        let commit = world.repo.commit(&[("app/s.yaml", Some(SECRET))], "two kinds again");
        world.look().await;
        world.wait_applied("web", &commit).await;
        wait_secret_watches(&proxy, 1).await;
        let secrets = world.api("v1", "Secret");
        world.edit(&secrets, "s", &json!({"data": {"key": "eA=="}})).await;
        wait_for("the secret to be put back", LIMIT, async || {
            let data = world.get(&secrets, "s").await["data"]["key"].clone();
            if data == "ZnJvbS1naXQ=" { Ok(()) } else { Err(data) }
        })
        .await;
    });
}
