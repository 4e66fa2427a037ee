//! Applications that act by service accounts of their namespaces, and what those may not.

use kube::api::{Patch, PatchParams};
use plumb_testkit::control_plane::Mark;
use plumb_testkit::{Requests, runtime};
use serde_json::{Value, json};

use crate::world::{World, condition, config_map};

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// A service account, if it is to be there, and what it may do in the test's namespace.
struct Tenant<'w> {
    world: &'w World,
    name: &'static str,
}

impl<'w> Tenant<'w> {
    async fn new(world: &'w World, name: &'static str, rules: Value) -> Self {
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

    async fn may(&self, rules: Value) {
        let role = json!({
            "apiVersion": RBAC, "kind": "Role",
            "metadata": {"name": self.name, "namespace": self.world.ns}, "rules": rules,
        });
        self.world.apply(&role).await;
    }

    fn user(&self) -> String {
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
fn config_maps() -> Value {
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

/// Nothing about a single config map was asked as anybody but the account, and nothing else was.
fn assert_acted_as(requests: &Requests, user: &str) {
    for event in requests.iter() {
        let single =
            event.resource == "configmaps" && !matches!(event.verb.as_str(), "list" | "watch");
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
