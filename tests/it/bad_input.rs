//! What is wrong gets a condition with reason, place and cure, touches nothing else, and recovers
//! by itself when the cause is gone.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use plumb_testkit::{runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

/// A source that nothing is wrong with but what the caller changes.
fn source(world: &World, name: &str, spec: &Value) -> Value {
    let mut object = world.source("1h");
    object["metadata"]["name"] = json!(name);
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

/// An application of that source.
fn app_of(world: &World, name: &str) -> Value {
    let mut object = world.app(name, "./", "1h");
    object["spec"]["sourceRef"]["name"] = json!(name);
    object
}

#[test]
fn a_source_that_cannot_be_read_says_why_and_recovers() {
    runtime().block_on(async {
        let world = World::new("bad-source").await;
        let manifest = |name: &str| config_map(name, "1");
        // Every source has a repository of its own, so that each has its own fault.
        for name in ["bystander", "lost-host", "no-ref", "no-tag", "late", "moved"] {
            world.git.repo(name).commit(&[("a.yaml", Some(&manifest(name)))], "one");
        }
        world.git.repo("empty");
        world.git.remove("late");
        let agent = world.agent();

        world
            .apply(&source(&world, "bystander", &json!({"url": world.git.url("bystander")})))
            .await;
        world.apply(&app_of(&world, "bystander")).await;
        world.wait_value("bystander", "1").await;
        let before = world.get(&world.config_maps(), "bystander").await["metadata"].clone();

        // Too long for a name: no name server is asked, whatever this machine's would say.
        let host = format!("{}.invalid", "a".repeat(64));
        let cases = [
            (
                "lost-host",
                json!({"url": format!("http://{host}/a.git")}),
                "UnknownHost",
                [&*host, "spec.url"],
            ),
            (
                "no-ref",
                json!({"url": world.git.url("no-ref"), "ref": {"branch": "next"}}),
                "RefNotFound",
                ["branch \"next\"", "it has the branches: main"],
            ),
            (
                "no-tag",
                json!({"url": world.git.url("no-tag"), "ref": {"semver": "^2.0"}}),
                "NoMatchingVersion",
                ["^2.0", "push a tag that is a version"],
            ),
            (
                "empty",
                json!({"url": world.git.url("empty")}),
                "EmptyRepository",
                ["the repository is empty", "push a first commit"],
            ),
            (
                "late",
                json!({"url": world.git.url("late")}),
                "RepositoryNotFound",
                ["late.git", "check the url"],
            ),
        ];
        for (name, spec, ..) in &cases {
            world.apply(&source(&world, name, spec)).await;
            world.apply(&app_of(&world, name)).await;
        }
        for (name, _, reason, parts) in &cases {
            let object = world.wait_refused(&world.sources(), name, reason, parts).await;
            assert_eq!(condition(&object, "Fetched")["status"], "False", "{object}");
            let parts = [&format!("{}/{name}", world.ns), parts[0]];
            world.wait_refused(&world.apps(), name, "SourceNotReady", &parts).await;
            world.wait_event(name, &[reason, parts[1]]).await;
            assert_eq!(world.data(name).await, None);
        }

        // The cause goes, and nobody says so to the agent but where the cause is the spec.
        let url = json!({"spec": {"url": world.git.url("moved")}});
        world.edit(&world.sources(), "lost-host", &url).await;
        let no_ref = world.git.repo("no-ref");
        no_ref.branch("next", &no_ref.head());
        let no_tag = world.git.repo("no-tag");
        no_tag.tag("v2.3.4", &no_tag.head());
        world.git.repo("empty").commit(&[("a.yaml", Some(&manifest("empty")))], "first");
        world.git.repo("late").commit(&[("a.yaml", Some(&manifest("late")))], "first");
        for (name, ..) in &cases {
            world.wait_condition(&world.sources(), name, ("Ready", "True"), |_| true).await;
            let app = world.wait_condition(&world.apps(), name, ("Ready", "True"), |_| true).await;
            assert_eq!(condition(&app, "Stalled"), Value::Null);
            assert_eq!(condition(&app, "Reconciling"), Value::Null);
            let object = if *name == "lost-host" { "moved" } else { name };
            world.wait_value(object, "1").await;
        }
        let after = world.get(&world.config_maps(), "bystander").await["metadata"].clone();
        assert_eq!(before, after);
        drop(agent);
    });
}

#[test]
fn credentials_are_asked_for_checked_and_never_shown() {
    runtime().block_on(async {
        let world = World::new("bad-secret").await;
        world.repo.commit(&[("a.yaml", Some(&config_map("a", "1")))], "one");
        let (right, wrong) = ("right-hunter2", "wrong-hunter2");
        world.git.require("repo", "robot", right);
        let agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "./", "1h")).await;
        let sources = world.sources();
        let source_refused = async |reason: &str, parts: &[&str]| {
            world.wait_refused(&sources, "repo", reason, parts).await;
            world.wait_event("repo", &[reason, parts[0]]).await;
        };
        let refused = async |reason: &str, parts: &[&str]| {
            source_refused(reason, parts).await;
            world.wait_refused(&world.apps(), "web", "SourceNotReady", parts).await;
        };
        refused("AuthenticationFailed", &["credentials are needed", "secretRef"]).await;

        let named = json!({"spec": {"secretRef": {"name": "git"}}});
        world.edit(&sources, "repo", &named).await;
        refused("SecretNotFound", &["Secret git does not exist", "create it"]).await;

        // From here on only the Secret changes, and the agent finds out by itself.
        world.apply(&world.secret("git", &json!({"username": "robot"}))).await;
        refused("InvalidSecret", &["the Secret git", "no password", "add the key"]).await;

        world.apply(&world.secret("git", &json!({"username": "robot", "password": wrong}))).await;
        refused("AuthenticationFailed", &["not accepted", "check username and password"]).await;
        assert_eq!(world.data("a").await, None);

        world.apply(&world.secret("git", &json!({"username": "robot", "password": right}))).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        world.wait_value("a", "1").await;

        // Credentials that stop working take nothing away.
        world.git.require("repo", "robot", "another-hunter2");
        world.look().await;
        let parts = ["not accepted", "check username and password"];
        source_refused("AuthenticationFailed", &parts).await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;
        world.git.open_to_all("repo");
        world.wait_condition(&sources, "repo", ("Ready", "True"), |_| true).await;

        let mut said = agent.logs();
        for api in [world.sources(), world.apps(), world.api("events.k8s.io/v1", "Event")] {
            let list = api.list(&ListParams::default()).await.unwrap();
            said.push_str(&serde_json::to_string(&list.items).unwrap());
        }
        // The API server encodes it as a header would.
        let forms = json!({
            "right": right, "wrong": wrong,
            "right-header": format!("robot:{right}"), "wrong-header": format!("robot:{wrong}"),
        });
        world.apply(&world.secret("forms", &forms)).await;
        let encoded = world.get(&world.api("v1", "Secret"), "forms").await["data"].clone();
        let encoded = encoded.as_object().unwrap().values().map(|value| value.as_str().unwrap());
        for shown in [right, wrong].into_iter().chain(encoded) {
            assert!(!said.contains(shown), "{shown}");
        }
        assert!(said.contains("AuthenticationFailed"), "{said}");
    });
}

/// What a commit does to files.
type Files<'a> = &'a [(&'a str, Option<&'a str>)];

/// Commits that do not render: each leaves the live object as it is and enforced, says where the
/// mistake is, and is over with the next good commit.
/// What was refused had widened the scope, and what stays enforced does not need it.
#[test]
fn while_a_commit_does_not_render_the_scope_is_left_as_it_is() {
    runtime().block_on(async {
        let world = World::new("bad-scope").await;
        let secret = |value: &str| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "data": {"key": value},
                "metadata": {"name": "theirs", "namespace": world.ns},
            })
        };
        world.apply(&secret("aGFuZA==")).await;
        let good = config_map("a", "1");
        world.repo.commit(&[("app/a.yaml", Some(&good))], "good");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_value("a", "1").await;
        let taken = serde_json::to_string(&secret("Z2l0")).unwrap();
        world.repo.commit(&[("app/s.yaml", Some(&taken))], "refused");
        world.look().await;
        world.wait_not_ready("web", "FieldConflict").await;
        world.repo.commit(&[("app/b.yaml", Some("kind: [ConfigMap\n"))], "broken");
        world.look().await;
        world.wait_not_ready("web", "BuildFailed").await;
        probe.idle(0).await;

        let mark = world.plane.audit().mark();
        for hand in ["one", "two"] {
            world.edit(&world.config_maps(), "a", &json!({"data": {"value": hand}})).await;
            world.wait_value("a", "1").await;
            world.request(&world.apps(), "web", hand).await;
            wait_for("an answer", LIMIT, async || {
                let object = world.get(&world.apps(), "web").await;
                let handled = &object["status"]["lastHandledReconcileAt"];
                if *handled == hand { Ok(()) } else { Err(object) }
            })
            .await;
        }
        probe.idle(0).await;
        world.plane.settled().await;
        let facts = world.plane.audit().since(mark).into_iter().filter(|event| {
            event.user == world.identity.user() && event.what() == "patch plumb.dev/applications"
        });
        assert_eq!(facts.count(), 0);
    });
}

#[test]
fn a_commit_that_does_not_render_changes_nothing_and_names_every_place() {
    runtime().block_on(async {
        let world = World::new("bad-files").await;
        let good = config_map("a", "1");
        world.repo.commit(&[("app/a.yaml", Some(&good))], "good");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_value("a", "1").await;
        let reserved = format!(
            "{good}---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n  labels:\n    \
             applyset.kubernetes.io/part-of: mine\n"
        );
        let no_kind = "apiVersion: v1\nmetadata:\n  name: x\n";
        let no_name = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  labels: {}\n";
        let new = config_map("new", "1");
        let cases: [(&str, Files<'_>, &str, &[&str]); 5] = [
            (
                "two broken files",
                &[
                    ("app/b.yaml", Some("kind: ConfigMap\ndata: {a: 1\n")),
                    ("app/sub/c.yaml", Some("a: 1\na: 2\n")),
                    ("app/new.yaml", Some(&new)),
                ],
                "BuildFailed",
                &["2 problems", "app/b.yaml:", "app/sub/c.yaml:2"],
            ),
            (
                "no kind, no name",
                &[("app/b.yaml", Some(no_kind)), ("app/c.yaml", Some(no_name))],
                "BuildFailed",
                &["app/b.yaml:1", "no kind", "app/c.yaml:1", "no metadata.name"],
            ),
            (
                "twice the same object",
                &[("app/b.yaml", Some(&good))],
                "BuildFailed",
                &["app/b.yaml:1", "already defined at app/a.yaml:1", "remove one of the two"],
            ),
            (
                "our label",
                &[("app/b.yaml", Some(&reserved)), ("app/a.yaml", None)],
                "ReservedLabel",
                &["app/b.yaml:13", "applyset.kubernetes.io/part-of", "remove the label"],
            ),
            (
                "no such path",
                &[("app", None), ("apps/web/x.yaml", Some(&new))],
                "PathNotFound",
                &["path app does not exist"],
            ),
        ];
        for (what, files, reason, parts) in cases {
            println!("-- {what}");
            world.repo.commit(files, what);
            world.look().await;
            let object = world.wait_refused(&world.apps(), "web", reason, parts).await;
            assert_eq!(condition(&object, "Stalled")["status"], "True", "{object}");
            world.wait_event("web", &[reason, parts[0]]).await;
            // Nothing new is applied, nothing old goes, and what is there stays enforced.
            let edit = json!({"data": {"value": "by hand"}});
            world.edit(&world.config_maps(), "a", &edit).await;
            world.wait_value("a", "1").await;
            assert_eq!(world.data("new").await, None, "{what}");
            assert_eq!(world.data("b").await, None, "{what}");
            let after = world.get(&world.apps(), "web").await;
            assert_eq!(condition(&after, "Ready")["reason"], reason, "{what}");

            let fixed = world.repo.commit(
                &[("app", None), ("apps", None), ("app/a.yaml", Some(&good))],
                &format!("no more {what}"),
            );
            world.look().await;
            let object = world.wait_applied("web", &fixed).await;
            assert_eq!(condition(&object, "Stalled"), Value::Null);
            assert_eq!(object["status"]["failures"], Value::Null);
            assert_eq!(object["status"]["failureCount"], Value::Null);
        }
    });
}

#[test]
fn what_the_api_server_refuses_holds_up_nothing_else() {
    runtime().block_on(async {
        let world = World::new("refused").await;
        let service = |port: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: bad\nspec:\n  ports:\n  - name: \
                 http\n    port: {port}\n"
            )
        };
        let later = format!("{}-later", world.ns);
        let elsewhere = config_map("c", "1").replace("name: c", &format!("name: c\n  namespace: {later}"));
        world.repo.commit(
            &[
                ("invalid/a.yaml", Some(&config_map("a", "1"))),
                ("invalid/service.yaml", Some(&service("99999"))),
                ("schema/a.yaml", Some(&config_map("schema-a", "1"))),
                ("schema/b.yaml", Some("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: schema-b\ndaat:\n  a: b\n")),
                ("namespace/b.yaml", Some(&config_map("b", "1"))),
                ("namespace/c.yaml", Some(&elsewhere)),
            ],
            "one bad object each",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        for name in ["invalid", "schema", "namespace"] {
            world.apply(&world.app(name, name, "1h")).await;
        }
        // The line of the field that is refused, and what the server says of it.
        let parts = ["invalid/service.yaml:8", "Service", "1 of 2 objects", "99999", "65535"];
        let object = world.wait_refused(&world.apps(), "invalid", "Invalid", &parts).await;
        let failure = &object["status"]["failures"][0];
        assert_eq!(failure["place"], "invalid/service.yaml:8");
        assert_eq!(failure["object"], format!("Service {}/bad", world.ns));
        world.wait_value("a", "1").await;

        let parts = ["schema/b.yaml:5", "daat", "check the field's name"];
        world.wait_refused(&world.apps(), "schema", "UnknownField", &parts).await;
        world.wait_value("schema-a", "1").await;

        let missing = format!("the namespace {later} does not exist");
        let parts = ["namespace/c.yaml:1", &missing, "create the namespace"];
        world.wait_refused(&world.apps(), "namespace", "NamespaceMissing", &parts).await;
        world.wait_value("b", "1").await;

        // A namespace that comes is noticed without a hand.
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": later}});
        let namespaces = world.cluster_api("v1", "Namespace");
        namespaces
            .create(&PostParams::default(), &serde_json::from_value(namespace).unwrap())
            .await
            .unwrap();
        world.wait_condition(&world.apps(), "namespace", ("Ready", "True"), |_| true).await;
        let object = world.get(&world.apps(), "namespace").await;
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations["applyset.kubernetes.io/additional-namespaces"], later);

        let fixed = world.repo.commit(
            &[
                ("invalid/service.yaml", Some(&service("99"))),
                ("schema/b.yaml", Some(&config_map("schema-b", "1"))),
            ],
            "mended",
        );
        world.look().await;
        for name in ["invalid", "schema"] {
            let object = world.wait_applied(name, &fixed).await;
            assert_eq!(object["status"]["failures"], Value::Null);
            assert_eq!(object["status"]["objects"], 2);
        }
        world.delete(&world.apps(), "namespace").await;
        world.wait_gone(&world.apps(), "namespace").await;
        world.delete(&namespaces, &later).await;
    });
}

/// It may be the new name of the old one, and what depends on it must not be left with neither.
#[test]
fn a_new_name_that_is_refused_leaves_the_old_one_until_it_is_there() {
    runtime().block_on(async {
        let world = World::new("renamed").await;
        let service = |name: &str, port: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - name: \
                 http\n    port: {port}\n"
            )
        };
        let (a, old) = (config_map("a", "1"), service("old", "80"));
        let files = [("app/a.yaml", Some(&*a)), ("app/web.yaml", Some(&*old))];
        let first = world.repo.commit(&files, "two");
        let mut agent = world.agent();
        world.sync("web", "app", &first).await;
        let services = world.api("v1", "Service");
        let before = world.get(&services, "old").await;

        // In the same file, as a rename is.
        let a = config_map("a", "2");
        let refused = service("new", "99999");
        let files = [("app/a.yaml", Some(&*a)), ("app/web.yaml", Some(&*refused))];
        world.repo.commit(&files, "renamed");
        world.look().await;
        let parts = ["app/web.yaml:8", &*format!("Service {}/new", world.ns), "99999"];
        world.wait_refused(&world.apps(), "web", "Invalid", &parts).await;
        world.wait_value("a", "2").await;
        let probe = Probe::of(&mut agent).await;
        probe.idle(0).await;
        assert_eq!(world.get(&services, "old").await, before);

        // Nor does another process know better, or one that is asked.
        assert!(agent.stop().success());
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.request(&world.apps(), "web", "again").await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |app| {
                app["status"]["lastHandledReconcileAt"] == "again"
            })
            .await;
        probe.idle(1).await;
        assert_eq!(world.get(&services, "old").await, before);

        let new = service("new", "81");
        let mended = world.repo.commit(&[("app/web.yaml", Some(&new))], "mended");
        world.look().await;
        world.wait_gone(&services, "old").await;
        assert_eq!(world.get(&services, "new").await["spec"]["ports"][0]["port"], 81);
        world.wait_applied("web", &mended).await;
    });
}

#[test]
fn a_namespace_that_is_deleted_under_an_application_is_waited_for() {
    runtime().block_on(async {
        let world = World::new("under").await;
        let doomed = world.plane.namespace("under-doomed").await;
        let within = |name: &str, value: &str| {
            let place = format!("name: {name}\n  namespace: {doomed}");
            config_map(name, value).replace(&format!("name: {name}"), &place)
        };
        let (a, b, c) = (config_map("a", "1"), within("b", "1"), within("c", "1"));
        let files =
            [("app/a.yaml", Some(&*a)), ("app/b.yaml", Some(&*b)), ("app/c.yaml", Some(&*c))];
        let commit = world.repo.commit(&files, "one here, two there");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.sync("web", "app", &commit).await;
        let gvk = GroupVersionKind::gvk("", "v1", "ConfigMap");
        let there: Api<DynamicObject> =
            Api::namespaced_with(world.client.clone(), &doomed, &ApiResource::from_gvk(&gvk));
        // Something that goes slowly holds the namespace up.
        let slow = json!({"metadata": {"finalizers": ["example.com/hold"]}});
        world.edit(&there, "c", &slow).await;
        probe.idle(0).await;

        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        let namespaces = world.cluster_api("v1", "Namespace");
        world.delete(&namespaces, &doomed).await;
        let said = format!("the namespace {doomed} is being deleted");
        let parts = ["app/b.yaml:5", &*said];
        world.wait_refused(&world.apps(), "web", "NamespaceTerminating", &parts).await;
        // What is elsewhere is applied and kept true all the same.
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "another value");
        world.look().await;
        world.wait_value("a", "2").await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "2").await;
        world.wait_refused(&world.apps(), "web", "NamespaceTerminating", &parts).await;
        world.plane.settled().await;
        let writes = world.plane.audit().requests(mark).by(&world.identity.user());
        let writes = writes.within(&doomed).writes();
        println!("{}", writes.table());
        assert_eq!(writes.count("delete configmaps"), 0, "{}", writes.table());
        assert!(writes.len() < 20, "{}", writes.table());

        world.edit(&there, "c", &json!({"metadata": {"finalizers": null}})).await;
        world.wait_gone(&namespaces, &doomed).await;
        let missing = format!("the namespace {doomed} does not exist");
        let parts = [&*missing, "create the namespace"];
        world.wait_refused(&world.apps(), "web", "NamespaceMissing", &parts).await;
        let anew = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": doomed}});
        let anew = serde_json::from_value(anew).unwrap();
        namespaces.create(&PostParams::default(), &anew).await.unwrap();
        let object = world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        assert_eq!(object["status"]["objects"], 3);
        for name in ["b", "c"] {
            assert_eq!(world.get(&there, name).await["data"]["value"], "1");
        }
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.apps(), "web").await;
        world.delete(&namespaces, &doomed).await;
    });
}

/// A definition of a kind in a group of a test's own.
pub(crate) fn definition(group: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}},
            }],
        },
    })
}

pub(crate) fn widget(group: &str) -> String {
    format!("apiVersion: {group}/v1\nkind: Widget\nmetadata:\n  name: w\nspec:\n  size: 3\n")
}

#[test]
fn a_kind_that_comes_later_is_applied_when_it_comes() {
    runtime().block_on(async {
        let world = World::new("kinds").await;
        let group = format!("{}.example.com", world.ns);
        let together = format!("together.{group}");
        let staged = definition(&together).to_string();
        world.repo.commit(
            &[
                ("unknown/a.yaml", Some(&config_map("a", "1"))),
                ("unknown/widget.yaml", Some(&widget(&group))),
                // The object stands before what defines it.
                ("together/1-widget.yaml", Some(&widget(&together))),
                ("together/2-definition.json", Some(&staged)),
            ],
            "kinds of its own",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("together", "together", "1h")).await;
        world.wait_condition(&world.apps(), "together", ("Ready", "True"), |_| true).await;
        let widgets = world.api(&format!("{together}/v1"), "Widget");
        assert_eq!(world.get(&widgets, "w").await["spec"]["size"], 3);
        // The new kind is watched like any other.
        world.edit(&widgets, "w", &json!({"spec": {"size": 4}})).await;
        wait_for("the widget to be corrected", LIMIT, async || {
            let size = world.get(&widgets, "w").await["spec"]["size"].clone();
            if size == 3 { Ok(()) } else { Err(size) }
        })
        .await;

        world.apply(&world.app("unknown", "unknown", "1h")).await;
        let parts = ["unknown/widget.yaml:1", "Widget", &*group, "CustomResourceDefinition"];
        world.wait_refused(&world.apps(), "unknown", "UnknownKind", &parts).await;
        world.wait_value("a", "1").await;

        let crd = definition(&group);
        let definitions = world.cluster_api("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let params = PatchParams::apply("test").force();
        let name = crd["metadata"]["name"].as_str().unwrap();
        definitions.patch(name, &params, &Patch::Apply(&crd)).await.unwrap();
        world.wait_condition(&world.apps(), "unknown", ("Ready", "True"), |_| true).await;
        let widgets = world.api(&format!("{group}/v1"), "Widget");
        assert_eq!(world.get(&widgets, "w").await["spec"]["size"], 3);

        // A definition takes its objects with it: what was there need not be deleted any more.
        world.delete(&definitions, name).await;
        world.wait_refused(&world.apps(), "unknown", "UnknownKind", &parts).await;
        world.delete(&world.apps(), "unknown").await;
        world.wait_gone(&world.apps(), "unknown").await;
        assert_eq!(world.data("a").await, None);
        world.edit(&world.apps(), "together", &json!({"spec": {"prune": false}})).await;
        world.delete(&world.apps(), "together").await;
        world.wait_gone(&world.apps(), "together").await;
        world.delete(&definitions, &format!("widgets.{together}")).await;
    });
}

#[test]
fn a_missing_right_is_named_and_its_coming_noticed() {
    runtime().block_on(async {
        let world = World::new("rights").await;
        let name = format!("{}-weak", world.ns);
        let rules = json!([
            {"apiGroups": ["plumb.dev"], "resources": ["*"], "verbs": ["*"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["configmaps"],
             "verbs": ["get", "list", "watch", "create", "patch"]},
        ]);
        let role = |rules: Value| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": name}, "rules": rules,
            })
        };
        let roles = world.cluster_api("rbac.authorization.k8s.io/v1", "ClusterRole");
        let weak = serde_json::from_value(role(rules.clone())).unwrap();
        roles.create(&PostParams::default(), &weak).await.unwrap();
        let identity = world.plane.service_account(&world.ns, "weak", &name).await;
        world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "1"))),
                (
                    "app/b.yaml",
                    Some("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: b\n"),
                ),
            ],
            "one that may not be applied",
        );
        let _agent = world.agent_with(identity.kubeconfig().to_owned(), &[]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let parts = ["app/b.yaml:1", "ServiceAccount", "cannot patch", "serviceaccounts", "give"];
        world.wait_refused(&world.apps(), "web", "AccessDenied", &parts).await;
        world.wait_value("a", "1").await;

        // What may not be deleted stays, and that is said.
        world.repo.commit(
            &[
                ("app/a.yaml", None),
                ("app/b.yaml", None),
                ("app/c.yaml", Some(&config_map("c", "1"))),
            ],
            "another",
        );
        world.look().await;
        let parts = ["not all that left Git is deleted", "configmaps", "cannot delete", "give"];
        world.wait_refused(&world.apps(), "web", "PruneFailed", &parts).await;
        world.wait_value("c", "1").await;
        assert!(world.data("a").await.is_some());
        let all = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]});
        let mut more = rules;
        more.as_array_mut().unwrap().push(all);
        world.edit(&roles, &name, &role(more.clone())).await;
        world.wait_gone(&world.config_maps(), "a").await;
        // Whether there is something of the other kind nobody can tell.
        let parts = ["cannot list serviceaccounts", "nothing of this kind is pruned"];
        world.wait_refused(&world.apps(), "web", "PruneFailed", &parts).await;
        world.repo.commit(
            &[("app/b.yaml", Some("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: b\n"))],
            "the account again",
        );
        world.look().await;
        world.wait_refused(&world.apps(), "web", "AccessDenied", &["app/b.yaml:1"]).await;

        let right = json!({"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["*"]});
        more.as_array_mut().unwrap().push(right);
        world.edit(&roles, &name, &role(more)).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        assert_eq!(
            world.get(&world.api("v1", "ServiceAccount"), "b").await["metadata"]["name"],
            "b"
        );
        world.delete(&roles, &name).await;
    });
}

#[test]
fn the_first_of_two_applications_keeps_the_object() {
    runtime().block_on(async {
        let world = World::new("two-owners").await;
        world.repo.commit(
            &[
                ("one/a.yaml", Some(&config_map("shared", "one"))),
                ("one/b.yaml", Some(&config_map("one", "1"))),
                ("two/a.yaml", Some(&config_map("shared", "two"))),
                ("two/b.yaml", Some(&config_map("two", "1"))),
            ],
            "both want it",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("one", "one", "1h")).await;
        world.wait_value("shared", "one").await;
        world.wait_value("one", "1").await;
        world.apply(&world.app("two", "two", "1h")).await;
        let other = format!("application {}/one", world.ns);
        let parts = ["two/a.yaml:1", "shared", &other, "keep it in one of the two"];
        world.wait_refused(&world.apps(), "two", "OwnedByAnother", &parts).await;
        world.wait_value("two", "1").await;
        assert_eq!(world.data("shared").await, Some(json!({"value": "one"})));
        let first = world.get(&world.apps(), "one").await;
        assert_eq!(condition(&first, "Ready")["status"], "True", "{first}");

        // The first lets go; the second takes it without a hand.
        let commit = world.repo.commit(&[("one/a.yaml", None)], "one of them");
        world.look().await;
        world.wait_applied("one", &commit).await;
        world.wait_value("shared", "two").await;
        world.wait_condition(&world.apps(), "two", ("Ready", "True"), |_| true).await;
        let first = world.get(&world.apps(), "one").await;
        assert_eq!(condition(&first, "Ready")["status"], "True", "{first}");
    });
}

#[test]
fn a_deleted_source_takes_nothing_with_it() {
    runtime().block_on(async {
        let world = World::new("no-source").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.apply(&world.app("web", "app", "1h")).await;
        let parts = [&*format!("{}/repo", world.ns), "does not exist", "create it"];
        world.wait_refused(&world.apps(), "web", "SourceNotFound", &parts).await;
        world.apply(&world.source("1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;

        world.delete(&world.sources(), "repo").await;
        let parts = [parts[0], "does not exist", "stays applied"];
        world.wait_refused(&world.apps(), "web", "SourceNotFound", &parts).await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;
        world.wait_event("web", &["DriftCorrected", "data.value"]).await;
        let object = world.get(&world.apps(), "web").await;
        assert_eq!(condition(&object, "Ready")["reason"], "SourceNotFound");

        let second = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "two");
        world.apply(&world.source("1h")).await;
        world.wait_applied("web", &second).await;
        world.wait_value("a", "2").await;
    });
}
