//! Applications that act by service accounts of their namespaces, and what those may not.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{ListParams, Patch, PatchParams};
use plumb_testkit::control_plane::Mark;
use plumb_testkit::{Change, ControlPlane, Options, Proxy, Requests, runtime};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{World, condition, config_map};

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// A service account, if it is to be there, and what it may do in the test's namespace.
pub(crate) struct Tenant<'w> {
    world: &'w World,
    name: &'static str,
}

impl<'w> Tenant<'w> {
    pub(crate) async fn new(world: &'w World, name: &'static str, rules: Value) -> Self {
        let tenant = Self::without_account(world, name, rules).await;
        tenant.create().await;
        tenant
    }

    async fn without_account(world: &'w World, name: &'static str, rules: Value) -> Self {
        let tenant = Self { world, name };
        tenant.may(rules).await;
        let binding = json!({
            "apiVersion": RBAC, "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": world.ns},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": world.ns}],
        });
        world.apply(&binding).await;
        tenant
    }

    async fn create(&self) {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": self.name, "namespace": self.world.ns},
        });
        self.world.apply(&account).await;
    }

    pub(crate) async fn may(&self, rules: Value) {
        let role = json!({
            "apiVersion": RBAC, "kind": "Role",
            "metadata": {"name": self.name, "namespace": self.world.ns}, "rules": rules,
        });
        self.world.apply(&role).await;
    }

    pub(crate) fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.world.ns, self.name)
    }

    /// An Application that acts by it.
    fn app(&self, name: &str, path: &str) -> Value {
        let mut app = self.world.app(name, path, "1h");
        app["spec"]["serviceAccountName"] = json!(self.name);
        app
    }
}

/// All that a tenant needs for config maps.
pub(crate) fn config_maps() -> Value {
    json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch", "delete"]}])
}

/// A config map that cannot be changed.
fn fixed(name: &str, value: &str) -> String {
    format!("{}immutable: true\n", config_map(name, value))
}

/// What the agent asked of the API server since.
async fn asked(world: &World, mark: Mark) -> Requests {
    world.plane.settled().await;
    world.plane.audit().requests(mark).by(&world.identity.user())
}

/// Nothing about a single config map or Secret was asked as anybody but the account, and nothing else.
fn assert_acted_as(requests: &Requests, user: &str) {
    for event in requests.iter() {
        let single = matches!(&*event.resource, "configmaps" | "secrets")
            && !matches!(event.verb.as_str(), "list" | "watch");
        let whose = if single { user } else { "" };
        assert_eq!(event.impersonated, whose, "{} {}", event.what(), event.name);
    }
}

#[test]
fn what_is_about_objects_is_done_as_the_account_and_what_is_about_the_application_is_not() {
    runtime().block_on(async {
        let world = World::new("tenant").await;
        let tenant = Tenant::new(&world, "tenant", config_maps()).await;
        let first = world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "1"))),
                ("app/b.yaml", Some(&fixed("b", "1"))),
                ("app/c.yaml", Some(&config_map("c", "1"))),
            ],
            "three config maps",
        );
        let mark = world.plane.audit().mark();
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = tenant.app("web", "app");
        app["spec"]["force"] = json!(true);
        world.apply(&app).await;
        world.wait_applied("web", &first).await;
        // Corrected, made anew, deleted.
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;
        let second = world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "2"))),
                ("app/b.yaml", Some(&fixed("b", "2"))),
                ("app/c.yaml", None),
            ],
            "a change, one that needs force, and one less",
        );
        world.look().await;
        world.wait_applied("web", &second).await;
        world.wait_value("b", "2").await;
        world.wait_gone(&world.config_maps(), "c").await;
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.apps(), "web").await;
        world.wait_gone(&world.config_maps(), "a").await;
        let requests = asked(&world, mark).await;
        assert_acted_as(&requests, &tenant.user());
        assert_eq!(requests.count("delete configmaps"), 4, "{}", requests.table());
        assert!(requests.count("patch configmaps") >= 6, "{}", requests.table());
    });
}

/// What it may not is told with kind, verb, namespace and account, and holds up nothing else.
#[test]
fn what_an_account_may_not_is_refused_with_the_rule_that_would_let_it() {
    runtime().block_on(async {
        let world = World::new("tenant-may-not").await;
        let tenant = Tenant::new(&world, "tenant", config_maps()).await;
        let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: b\n";
        world.repo.commit(
            &[("app/a.yaml", Some(&config_map("a", "1"))), ("app/b.yaml", Some(account))],
            "one that it may not apply",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&tenant.app("web", "app")).await;
        let user = tenant.user();
        let account = format!("give the service account {}/tenant a Role in {0}", world.ns);
        let rule = "apiGroups: [\"\"], resources: [serviceaccounts], verbs: [get, create, patch, delete]";
        let parts = ["app/b.yaml:1", "serviceaccounts", "cannot patch", &user, &account, rule];
        world.wait_refused(&world.apps(), "web", "AccessDenied", &parts).await;
        world.wait_value("a", "1").await;

        // With less it may not delete, and that is said. With more all goes on by itself.
        let less = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch"]}]);
        tenant.may(less).await;
        world.repo.commit(
            &[
                ("app/a.yaml", None),
                ("app/b.yaml", None),
                ("app/c.yaml", Some(&config_map("c", "1"))),
            ],
            "another",
        );
        world.look().await;
        let parts = ["not all that left Git is deleted", "cannot delete", &user, &account];
        world.wait_refused(&world.apps(), "web", "PruneFailed", &parts).await;
        tenant.may(config_maps()).await;
        world.wait_gone(&world.config_maps(), "a").await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
    });
}

#[test]
fn an_application_without_account_acts_by_the_default_one_or_not_at_all() {
    runtime().block_on(async {
        let world = World::new("tenant-default").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let mut agent =
            world.agent_with(world.identity.kubeconfig().to_owned(), &["--impersonate-only"]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let parts =
            ["names no service account", "spec.serviceAccountName", "--default-service-account"];
        let object = world.wait_refused(&world.apps(), "web", "AccessDenied", &parts).await;
        assert_eq!(condition(&object, "Stalled")["status"], "True");
        assert_eq!(world.data("a").await, None);
        agent.stop();

        let tenant = Tenant::new(&world, "everybody", config_maps()).await;
        let mark = world.plane.audit().mark();
        let args = ["--impersonate-only", "--default-service-account=everybody"];
        let _agent = world.agent_with(world.identity.kubeconfig().to_owned(), &args);
        world.wait_applied("web", &commit).await;
        assert_acted_as(&asked(&world, mark).await, &tenant.user());

        // One that is named comes before the default, and what was applied stays when it changes.
        let other = Tenant::new(&world, "other", config_maps()).await;
        let before = world.get(&world.config_maps(), "a").await;
        world.apply(&other.app("web", "app")).await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["observedGeneration"] == 2
            })
            .await;
        assert_eq!(world.get(&world.config_maps(), "a").await, before);
        let mark = world.plane.audit().mark();
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "another value");
        world.look().await;
        world.wait_value("a", "2").await;
        assert_acted_as(&asked(&world, mark).await, &other.user());
    });
}

#[test]
fn an_account_that_is_missing_is_named_and_its_coming_noticed() {
    runtime().block_on(async {
        let world = World::new("tenant-missing").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let nobody = Tenant { world: &world, name: "tenant" };
        world.apply(&nobody.app("web", "app")).await;
        let parts = [
            &*format!("the service account {}/tenant does not exist", world.ns),
            "create it, or correct spec.serviceAccountName",
        ];
        world.wait_refused(&world.apps(), "web", "AccessDenied", &parts).await;
        let tenant = Tenant::new(&world, "tenant", config_maps()).await;
        world.wait_applied("web", &commit).await;

        // It goes again, and the Application after it: nothing is let go unasked.
        let accounts = world.api("v1", "ServiceAccount");
        for kind in ["RoleBinding", "Role"] {
            world.delete(&world.api(RBAC, kind), tenant.name).await;
        }
        world.delete(&accounts, tenant.name).await;
        world.delete(&world.apps(), "web").await;
        let parts = ["does not exist", "deletionPolicy: Orphan", "plumb.dev/abandon"];
        world.wait_refused(&world.apps(), "web", "AccessDenied", &parts).await;
        world.wait_value("a", "1").await;
        let orphan = json!({"spec": {"deletionPolicy": "Orphan"}});
        let params = PatchParams::default();
        world.apps().patch("web", &params, &Patch::Merge(&orphan)).await.unwrap();
        world.wait_gone(&world.apps(), "web").await;
        world.wait_value("a", "1").await;
    });
}

/// The failures that a status lists.
fn failures(object: &Value) -> Vec<(String, String, String)> {
    let text = |failure: &Value, key: &str| failure[key].as_str().unwrap_or_default().to_owned();
    let all = object["status"]["failures"].as_array().cloned().unwrap_or_default();
    all.iter().map(|f| (text(f, "object"), text(f, "reason"), text(f, "message"))).collect()
}

fn after(object: &str, need: &str) -> String {
    let annotation = format!("  annotations:\n    config.kubernetes.io/depends-on: {need}\n");
    object.replacen("metadata:\n", &format!("metadata:\n{annotation}"), 1)
}

/// What a tenant may not: every object of its path is one, but for the last, that shows that it is
/// alive.
/// What an Application depends on is looked at as its account: whether it is there, and what is in it,
/// is for those to know who may read it.
#[test]
fn an_account_learns_of_dependencies_what_it_may_read() {
    runtime().block_on(async {
        let world = World::new("tenant-depends").await;
        let elsewhere = world.plane.namespace("depends").await;
        let tenant = Tenant::new(&world, "tenant", config_maps()).await;
        let here = ["-n", &*world.ns, "create", "configmap", "mine", "--from-literal=key=a"];
        said(&world.plane, &here);
        said(
            &world.plane,
            &["-n", &*elsewhere, "create", "configmap", "theirs", "--from-literal=key=a"],
        );
        let apps = ["app", "checks-own", "checks", "checks-none"];
        let maps = apps.map(|app| (format!("{app}/c.yaml"), config_map(app, "1")));
        let files = maps.each_ref().map(|(path, text)| (path.as_str(), Some(text.as_str())));
        let commit = world.repo.commit(&files, "one");
        let agent = world.agent();
        world.apply(&world.source("1h")).await;
        let depends = |app: &mut Value, kind: Value, name: &str, namespace: &str, expr: &str| {
            let mut on = json!({"name": name, "namespace": namespace, "readyExpr": expr});
            on.as_object_mut().unwrap().append(&mut kind.as_object().unwrap().clone());
            app["spec"]["dependsOn"] = json!([on]);
        };
        let map = || json!({"apiVersion": "v1", "kind": "ConfigMap"});
        let mut app = tenant.app("own", "app");
        depends(&mut app, map(), "mine", &world.ns, "dep.data.key == 'a'");
        world.apply(&app).await;
        world.wait_applied("own", &commit).await;

        let mut said = Vec::new();
        for (app, kind, name) in [
            ("there", map(), "theirs"),
            ("absent", map(), "none"),
            ("application", json!({}), "none"),
        ] {
            let mut object = tenant.app(app, "app");
            depends(&mut object, kind, name, &elsewhere, "dep.data.key == 'a'");
            world.apply(&object).await;
            let parts = ["which the service account", "may not read"];
            world.wait_refused(&world.apps(), app, "DependencyNotReady", &parts).await;
            let object = world.get(&world.apps(), app).await;
            let message = condition(&object, "Ready")["message"].to_string();
            said.push(message.replace("theirs", "none"));
        }
        assert_eq!(said[0], said[1], "what is there and what is not are told alike");
        // The same of what it is to wait for afterwards.
        let checks = |app: &str, name: &str, namespace: &str| {
            let mut object = tenant.app(app, app);
            let check = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name});
            object["spec"]["healthChecks"] = json!([check]);
            object["spec"]["healthChecks"][0]["namespace"] = json!(namespace);
            object
        };
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "name": "s", "namespace": world.ns});
        let mut object = checks("checks-own", "mine", &world.ns);
        world.apply(&object).await;
        world.wait_applied("checks-own", &commit).await;
        object["spec"]["healthChecks"].as_array_mut().unwrap().push(secret);
        world.apply(&object).await;
        world.wait_progress("checks-own", "the service account").await;
        let mut said = Vec::new();
        for (app, name) in [("checks", "theirs"), ("checks-none", "none")] {
            world.apply(&checks(app, name, &elsewhere)).await;
            let object = world.wait_progress(app, "may not read it").await;
            let message = condition(&object, "Ready")["message"].to_string();
            said.push(message.replace("theirs", "none"));
        }
        assert_eq!(said[0], said[1], "what is there and what is not are told alike");
        drop(agent);
        let args = ["--no-cross-namespace-refs"];
        let _agent = world.agent_with(world.identity.kubeconfig().to_owned(), &args);
        let parts = ["spec.dependsOn[0]", &elsewhere, "--no-cross-namespace-refs"];
        world.wait_refused(&world.apps(), "application", "AccessDenied", &parts).await;
        let parts = ["spec.healthChecks[0]", &elsewhere, "--no-cross-namespace-refs"];
        world.wait_refused(&world.apps(), "checks", "AccessDenied", &parts).await;
    });
}

/// Links in a repository that lead out of it.
const LINKS: [(&str, &str); 3] = [
    ("climbing", "../../../../../../etc/passwd"),
    ("absolute", "/etc/passwd"),
    ("proc", "/proc/self/environ"),
];

#[test]
fn a_tenant_reaches_nothing_that_its_account_does_not() {
    runtime().block_on(async {
        let world = World::new("tenant-attack").await;
        let elsewhere = world.plane.namespace("victim").await;
        let victim = Tenant::new(&world, "victim", config_maps()).await;
        let rules = json!([{"apiGroups": [""], "resources": ["services"], "verbs": ["*"]}]);
        let attacker = Tenant::new(&world, "attacker", rules).await;
        for name in ["prize", "treasure"] {
            let create = ["create", "configmap", name, "--from-literal=value=hunter2"];
            said(&world.plane, &[&["-n", &*elsewhere][..], &create].concat());
        }
        let foreign = |text: String| text.replacen("metadata:\n", &format!("metadata:\n  namespace: {elsewhere}\n"), 1);
        let cluster = |kind: &str, api: &str, more: &str| format!("apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {}-stolen\n{more}", world.ns);
        let service = |name: &str| format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: 80\n");
        let there = format!("/namespaces/{elsewhere}/ConfigMap/treasure");
        let absent = format!("/namespaces/{elsewhere}/ConfigMap/absent");
        let member = format!("/namespaces/{}/ConfigMap/x", world.ns);
        let files = [
            ("victim/v.yaml", config_map("v", "precious")),
            ("victim/w.yaml", config_map("w", "precious")),
            ("victim/x.yaml", config_map("x", "precious")),
            ("attacker/v.yaml", config_map("v", "stolen")),
            ("attacker/w.yaml", config_map("w", "stolen")),
            ("attacker/prize.yaml", foreign(config_map("prize", "stolen"))),
            ("attacker/service.yaml", foreign(service("elsewhere"))),
            ("attacker/namespace.yaml", cluster("Namespace", "v1", "")),
            ("attacker/role.yaml", cluster("ClusterRole", RBAC, "rules: []\n")),
            ("attacker/crd.yaml", crate::bad_input::definition(&format!("{}.example.com", world.ns)).to_string()),
            ("attacker/there.yaml", after(&service("there"), &there)),
            ("attacker/absent.yaml", after(&service("absent"), &absent)),
            ("attacker/member.yaml", after(&service("member"), &member)),
            ("attacker/own.yaml", service("own")),
            ("outside/kustomization.yaml", "resources: [../../../../../etc/passwd]\n".to_owned()),
        ];
        let changes: Vec<_> =
            files.iter().map(|(path, text)| (*path, Some(text.as_str()))).collect();
        world.repo.commit(&changes, "an attack");
        let links = LINKS.map(|(app, target)| Change::Link(format!("{app}/a.yaml"), target.to_owned()));
        let first = world.repo.commit_changes(&links, "links");
        let mark = world.plane.audit().mark();
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&victim.app("victim", "victim")).await;
        world.wait_applied("victim", &first).await;
        let mut app = attacker.app("attacker", "attacker");
        app["spec"]["adopt"] = json!("Always");
        app["spec"]["force"] = json!(true);
        world.apply(&app).await;
        let object = world
            .wait_condition(&world.apps(), "attacker", ("Ready", "False"), |object| {
                failures(object).len() == 10
            })
            .await;
        for (name, reason, message) in failures(&object) {
            assert_eq!(reason, "AccessDenied", "{name}: {message}");
            assert!(message.contains(&format!("User {:?} cannot ", attacker.user())), "{message}");
        }
        // What is there and what is not are told alike.
        let said = |name: &str| {
            let name = format!("Service {}/{name}", world.ns);
            let all = failures(&object);
            let (.., message) = all.into_iter().find(|(object, ..)| *object == name).unwrap();
            message.replace("treasure", "absent").replace("\"x\"", "\"absent\"")
        };
        assert_eq!(said("there"), said("absent"));
        assert_eq!(said("member").replace(&world.ns, &elsewhere), said("absent").replace(&world.ns, &elsewhere));
        world.get(&world.api("v1", "Service"), "own").await;
        world.wait_value("v", "precious").await;
        let events = world.events_of("attacker").await.join("\n");
        for text in [object["status"].to_string(), events] {
            for hidden in ["hunter2", "precious"] {
                assert!(!text.contains(hidden), "{text}");
            }
        }

        let outside = [("outside", "outside/kustomization.yaml")];
        let links = LINKS.iter().map(|(app, _)| (*app, "/a.yaml"));
        for (app, file) in outside.into_iter().chain(links) {
            world.apply(&attacker.app(app, app)).await;
            let object = world.wait_refused(&world.apps(), app, "BuildFailed", &[app, file]).await;
            assert!(!object["status"].to_string().contains("root:"), "{}", object["status"]);
            world.delete(&world.apps(), app).await;
        }

        // What it asks for keeps nothing of others from being deleted, whether it works or is suspended.
        let second = world.repo.commit(&[("victim/v.yaml", None)], "one less");
        world.look().await;
        world.wait_applied("victim", &second).await;
        world.wait_gone(&world.config_maps(), "v").await;
        world.edit(&world.apps(), "attacker", &json!({"spec": {"suspend": true}})).await;
        let third = world.repo.commit(&[("victim/w.yaml", None)], "another less");
        world.look().await;
        world.wait_applied("victim", &third).await;
        world.wait_gone(&world.config_maps(), "w").await;
        world.wait_value("x", "precious").await;
        for event in asked(&world, mark).await.iter() {
            let single = matches!(event.verb.as_str(), "patch" | "delete" | "create");
            let ours = matches!(&*event.resource, "applications" | "gitrepositories" | "events" | "leases");
            assert!(!single || ours || !event.impersonated.is_empty(), "{} {}", event.what(), event.name);
        }
    });
}

/// Objects of others that the agent wrote, and as whom.
async fn assert_wrote_as(world: &World, mark: Mark, user: &str) {
    for event in asked(world, mark).await.writes().iter() {
        let ours =
            matches!(&*event.resource, "applications" | "gitrepositories" | "events" | "leases");
        let whose = if ours { "" } else { user };
        assert_eq!(event.impersonated, whose, "{} {}", event.what(), event.name);
    }
}

/// An earlier stage makes no room for what comes after it but by the account's own rights.
#[test]
fn an_account_makes_no_namespace_and_no_kind_for_itself() {
    runtime().block_on(async {
        let world = World::new("tenant-room").await;
        let room = format!("{}-room", world.ns);
        let group = format!("{}.example.com", world.ns);
        // It may have widgets, once there are any.
        let mut rules = config_maps();
        let widgets = json!({"apiGroups": [group], "resources": ["widgets"], "verbs": ["*"]});
        rules.as_array_mut().unwrap().push(widgets);
        let tenant = Tenant::new(&world, "tenant", rules).await;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": room}});
        let definition = crate::bad_input::definition(&group);
        let inside = config_map("inside", "1").replacen(
            "metadata:\n",
            &format!("metadata:\n  namespace: {room}\n"),
            1,
        );
        world.repo.commit(
            &[
                ("app/namespace.json", Some(&namespace.to_string())),
                ("app/inside.yaml", Some(&inside)),
                ("app/definition.json", Some(&definition.to_string())),
                ("app/widget.yaml", Some(&crate::bad_input::widget(&group))),
                ("app/own.yaml", Some(&config_map("own", "1"))),
            ],
            "room, and what is in it",
        );
        let mark = world.plane.audit().mark();
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&tenant.app("web", "app")).await;
        let refused = async |wanted: &[(&str, &str)]| {
            let told = |object: &Value| {
                let mut told: Vec<_> = failures(object)
                    .into_iter()
                    .map(|(object, reason, _)| {
                        format!("{}: {reason}", object.split([' ', '.']).next().unwrap())
                    })
                    .collect();
                told.sort();
                told
            };
            let wanted: Vec<_> =
                wanted.iter().map(|(kind, why)| format!("{kind}: {why}")).collect();
            world
                .wait_condition(&world.apps(), "web", ("Ready", "False"), |o| told(o) == wanted)
                .await
        };
        let object = refused(&[
            ("ConfigMap", "AccessDenied"),
            ("CustomResourceDefinition", "AccessDenied"),
            ("Namespace", "AccessDenied"),
            ("Widget", "UnknownKind"),
        ])
        .await;
        for (name, reason, message) in failures(&object) {
            let said = message.contains(&format!("User {:?} cannot ", tenant.user()));
            assert!(said || reason == "UnknownKind", "{name}: {message}");
        }
        world.wait_value("own", "1").await;
        let namespaces = world.cluster_api("v1", "Namespace");
        let definitions = world.cluster_api("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let name = definition["metadata"]["name"].as_str().unwrap();
        assert!(namespaces.get_opt(&room).await.unwrap().is_none());
        assert!(definitions.get_opt(name).await.unwrap().is_none());

        // Made by somebody else, they let in what the account may have, and nothing more.
        let params = PatchParams::apply("test");
        namespaces.patch(&room, &params, &Patch::Apply(&namespace)).await.unwrap();
        definitions.patch(name, &params, &Patch::Apply(&definition)).await.unwrap();
        world.request(&world.apps(), "web", "now").await;
        refused(&[
            ("ConfigMap", "AccessDenied"),
            ("CustomResourceDefinition", "AccessDenied"),
            ("Namespace", "AccessDenied"),
        ])
        .await;
        world.get(&world.api(&format!("{group}/v1"), "Widget"), "w").await;
        assert_wrote_as(&world, mark, &tenant.user()).await;
        world.delete(&definitions, name).await;
        world.delete(&namespaces, &room).await;
    });
}

#[test]
fn a_target_namespace_gives_an_account_no_rights_in_it() {
    runtime().block_on(async {
        let world = World::new("tenant-target").await;
        let elsewhere = world.plane.namespace("target").await;
        let tenant = Tenant::new(&world, "tenant", config_maps()).await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let mark = world.plane.audit().mark();
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = tenant.app("web", "app");
        app["spec"]["targetNamespace"] = json!(elsewhere);
        world.apply(&app).await;
        let there = format!("in the namespace \"{elsewhere}\"");
        let parts = ["app/a.yaml:1", "configmaps", "cannot patch", &tenant.user(), &there];
        world.wait_refused(&world.apps(), "web", "AccessDenied", &parts).await;
        let output = world.plane.kubectl(["-n", &elsewhere, "get", "configmap", "a"]);
        assert!(!output.status.success(), "it is there");
        assert_eq!(world.data("a").await, None);
        assert_wrote_as(&world, mark, &tenant.user()).await;
    });
}

/// Not even Plumb reads it, so that nothing of it can be told.
#[test]
fn a_secret_that_the_account_may_not_read_is_not_read_for_it() {
    const TOKEN: &str = "vault-71c0e5b9d24a";
    runtime().block_on(async {
        let world = World::new("tenant-values").await;
        let elsewhere = world.plane.namespace("vault").await;
        let tenant = Tenant::new(&world, "tenant", config_maps()).await;
        for namespace in [&world.ns, &elsewhere] {
            let token = format!("--from-literal=TOKEN={TOKEN}");
            said(&world.plane, &["-n", namespace, "create", "secret", "generic", "vault", &token]);
        }
        let files = [("app/a.yaml", Some(&*config_map("a", "${TOKEN:=none}")))];
        let commit = world.repo.commit(&files, "one");
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let kubeconfig = world.identity.through(&proxy.url());
        let mut agent = world.agent_with(kubeconfig, &["--log-level", "trace"]);
        world.apply(&world.source("1h")).await;
        let from = |app: &str, mut secret: Value| {
            secret["kind"] = json!("Secret");
            let mut app = tenant.app(app, "app");
            app["spec"]["postBuild"] = json!({"substituteFrom": [secret]});
            app
        };
        let mut keys = tenant.app("keys", "app");
        keys["spec"]["decryption"] = json!({"provider": "sops", "secretRef": {"name": "vault"}});
        let mut messages = Vec::new();
        for (name, secret, app) in [
            ("there", "vault", from("there", json!({"name": "vault"}))),
            ("absent", "none", from("absent", json!({"name": "none"}))),
            ("optional", "vault", from("optional", json!({"name": "vault", "optional": true}))),
            ("keys", "vault", keys),
        ] {
            world.apply(&app).await;
            let secret = format!("Secret {}/{secret}", world.ns);
            let parts = [&*secret, "cannot get", &tenant.user()];
            let object = world.wait_refused(&world.apps(), name, "AccessDenied", &parts).await;
            messages
                .push(condition(&object, "Ready")["message"].to_string().replace("vault", "none"));
        }
        assert_eq!(messages[0], messages[1], "what is there and what is not are told alike");
        // Another namespace cannot be named.
        let far = from("far", json!({"name": "vault", "namespace": elsewhere}));
        let params = PatchParams::apply("test");
        let refused = world.apps().patch("far", &params, &Patch::Apply(&far)).await.unwrap_err();
        assert!(refused.to_string().contains("field not declared in schema"), "{refused}");
        assert_eq!(world.data("a").await, None);

        let encoded = STANDARD.encode(TOKEN);
        for secret in [TOKEN, &encoded] {
            assert_eq!(proxy.leaks(secret), Vec::<String>::new());
        }
        let mut told = format!("{:?}", Probe::of(&mut agent).await.scrape().await);
        told.push_str(&agent.logs());
        for api in [world.apps(), world.sources(), world.api("events.k8s.io/v1", "Event")] {
            let list = api.list(&ListParams::default()).await.unwrap();
            told.push_str(&serde_json::to_string(&list.items).unwrap());
        }
        assert!(told.contains("AccessDenied") && told.contains("plumb_"), "{told}");
        assert!(!told.contains(TOKEN) && !told.contains(&encoded), "{told}");

        // With the right it is read: this is the Secret, and this the way to its value.
        for app in ["absent", "optional", "keys"] {
            world.delete(&world.apps(), app).await;
            world.wait_gone(&world.apps(), app).await;
        }
        let mut rules = config_maps();
        rules
            .as_array_mut()
            .unwrap()
            .push(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}));
        tenant.may(rules).await;
        world.request(&world.apps(), "there", "now").await;
        world.wait_applied("there", &commit).await;
        world.wait_value("a", TOKEN).await;
        assert!(!proxy.leaks(&encoded).is_empty(), "it came along");
    });
}

/// The component of deploy/ for tenants, as it is: Plumb may write nothing but its own work.
#[test]
fn the_rights_of_an_installation_for_tenants_are_enough_and_no_more() {
    runtime().block_on(async {
        let plane = ControlPlane::start(Options { nodes: 0, controllers: false }).await;
        let dir = plumb_testkit::Scratch::new("tenants");
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(&deploy).arg(dir.path().join("plumb"));
        assert!(copy.status().unwrap().success());
        let text = "resources: [plumb]\ncomponents: [plumb/components/tenants]\n";
        std::fs::write(dir.path().join("kustomization.yaml"), text).unwrap();
        let path = dir.path().to_str().unwrap();
        said(&plane, &["apply", "--server-side", "-k", path]);
        let world = World::on(plane, "install-tenants").await;
        let token = said(&world.plane, &["-n", "plumb-system", "create", "token", "plumb"]);
        let kubeconfig = dir.path().join("kubeconfig");
        let account = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "plumb",
            "clusters": [{"name": "c", "cluster": {
                "server": world.plane.server(),
                "certificate-authority-data": STANDARD.encode(world.plane.ca()),
            }}],
            "users": [{"name": "plumb", "user": {"token": token.trim()}}],
            "contexts": [{"name": "plumb", "context": {"cluster": "c", "user": "plumb"}}],
        });
        std::fs::write(&kubeconfig, account.to_string()).unwrap();

        let first = world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "${VALUE}"))),
                ("app/b.yaml", Some(&config_map("b", "1"))),
            ],
            "two config maps",
        );
        let tenant = Tenant::new(&world, "default", config_maps()).await;
        let values = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"VALUE": "one"},
            "metadata": {"name": "values", "namespace": world.ns},
        });
        world.apply(&values).await;
        // What the component puts into the Deployment.
        let args =
            ["--impersonate-only", "--default-service-account=default", "--namespace=plumb-system"];
        let mark = world.plane.audit().mark();
        let mut agent = world.agent_with(kubeconfig.clone(), &args);
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        let from = |name: &str| json!({"substituteFrom": [{"kind": "ConfigMap", "name": name}]});
        app["spec"]["postBuild"] = from("values");
        world.apply(&app).await;
        world.wait_applied("web", &first).await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "one").await;
        let second = world.repo.commit(&[("app/b.yaml", None)], "one less");
        world.look().await;
        world.wait_applied("web", &second).await;
        world.wait_gone(&world.config_maps(), "b").await;
        // What the account may not read Plumb does not read for it.
        app["spec"]["postBuild"] =
            json!({"substituteFrom": [{"kind": "Secret", "name": "values"}]});
        world.apply(&app).await;
        let parts =
            ["Secret", "cannot get", &*tenant.user(), "give that right to the service account"];
        world.wait_refused(&world.apps(), "web", "AccessDenied", &parts).await;
        app["spec"]["postBuild"] = from("values");
        world.apply(&app).await;
        world.wait_applied("web", &second).await;
        world.delete(&world.apps(), "web").await;
        world.wait_gone(&world.apps(), "web").await;
        world.wait_gone(&world.config_maps(), "a").await;
        world.plane.settled().await;
        let plumb = "system:serviceaccount:plumb-system:plumb";
        let requests = world.plane.audit().requests(mark).by(plumb);
        assert_acted_as(&requests, &tenant.user());
        agent.stop();

        // Without the right to act as others it says so, and what would help.
        said(&world.plane, &["delete", "clusterrolebinding", "plumb-impersonate"]);
        let _agent = world.agent_with(kubeconfig, &args);
        // The API server remembers for some seconds what it let be done as whom.
        let other = Tenant::new(&world, "other", config_maps()).await;
        world.apply(&other.app("web", "app")).await;
        let parts = ["cannot impersonate", "let Plumb's own account act as the service account"];
        world.wait_refused(&world.apps(), "web", "AccessDenied", &parts).await;
        assert_eq!(world.data("a").await, None);
    });
}

fn said(plane: &ControlPlane, args: &[&str]) -> String {
    let output = plane.kubectl(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
