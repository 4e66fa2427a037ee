//! What a test of the agent needs: a namespace, a Git server, an identity, and the agent itself.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use plumb_testkit::agent::{Agent, Builder};
use plumb_testkit::{ControlPlane, GitServer, Identity, Repo, wait_for};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// The longest that any single step may take before a test gives up. Generous: the machine may be
/// busy, and nothing is measured by it. Longer than the agent's longest back-off of a minute.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

static CRDS: OnceCell<()> = OnceCell::const_new();

/// Where the world is.
pub(crate) enum Plane {
    Shared(&'static ControlPlane),
    /// Ended with the test.
    Own(Box<ControlPlane>),
}

impl Deref for Plane {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        match self {
            Self::Shared(plane) => plane,
            Self::Own(plane) => plane,
        }
    }
}

/// A test's own part of the world.
pub(crate) struct World {
    pub(crate) plane: Plane,
    pub(crate) client: kube::Client,
    /// The namespace that everything of the test is in, the agent's Lease included.
    pub(crate) ns: String,
    pub(crate) git: GitServer,
    pub(crate) repo: Repo,
    /// Who the agent is: a service account with cluster-admin, so that its requests can be told
    /// apart in the audit log.
    pub(crate) identity: Identity,
}

impl World {
    /// A namespace, a Git server with one repository named `repo`, and the CRDs.
    pub(crate) async fn new(prefix: &str) -> Self {
        let plane = ControlPlane::shared().await;
        let client = plane.client().await;
        CRDS.get_or_init(|| install_crds(client.clone())).await;
        Self::with_crds(Plane::Shared(plane), client, prefix).await
    }

    /// The same on a control plane that the test has for itself.
    pub(crate) async fn on(plane: ControlPlane, prefix: &str) -> Self {
        let client = plane.client().await;
        install_crds(client.clone()).await;
        Self::with_crds(Plane::Own(Box::new(plane)), client, prefix).await
    }

    async fn with_crds(plane: Plane, client: kube::Client, prefix: &str) -> Self {
        let ns = plane.namespace(prefix).await;
        let git = GitServer::start().await;
        let repo = git.repo("repo");
        let identity = plane.service_account(&ns, "plumb", "cluster-admin").await;
        Self { plane, client, ns, git, repo, identity }
    }

    /// Starts the agent for this namespace only, with short leases.
    pub(crate) fn agent(&self) -> Agent {
        self.agent_with(self.identity.kubeconfig().to_owned(), &[])
    }

    /// Starts the agent with a kubeconfig (through a proxy, say) and further arguments. The last
    /// of equal arguments counts.
    pub(crate) fn agent_with(&self, kubeconfig: PathBuf, args: &[&str]) -> Agent {
        self.agent_builder(kubeconfig).args(args).start()
    }

    /// The agent before it is started.
    pub(crate) fn agent_builder(&self, kubeconfig: PathBuf) -> Builder {
        let builder = Agent::builder(env!("CARGO_BIN_EXE_plumb"))
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAMESPACE", &self.ns)
            .env("PLUMB_NAMESPACES", &self.ns)
            .env("PLUMB_METRICS_ADDR", "127.0.0.1:0")
            .env("PLUMB_LEASE_DURATION", "15s");
        let cache = builder.dir().join("cache");
        builder.env("PLUMB_CACHE_DIR", cache).arg("controller")
    }

    /// Waits until an object is so.
    pub(crate) async fn wait_object(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        holds: impl Fn(&Value) -> bool,
    ) {
        wait_for(&format!("{name} to be as wanted"), LIMIT, async || {
            let object = self.get(api, name).await;
            if holds(&object) { Ok(()) } else { Err(object.to_string()) }
        })
        .await;
    }

    /// A GitRepository named `repo` that follows main, with an interval.
    pub(crate) fn source(&self, interval: &str) -> Value {
        json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
            "metadata": {"name": "repo", "namespace": self.ns},
            "spec": {"url": self.git.url("repo"), "ref": {"branch": "main"}, "interval": interval},
        })
    }

    /// An Application of `repo`.
    pub(crate) fn app(&self, name: &str, path: &str, interval: &str) -> Value {
        json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": name, "namespace": self.ns},
            "spec": {"sourceRef": {"name": "repo"}, "path": path, "interval": interval},
        })
    }

    /// A Secret with these texts.
    pub(crate) fn secret(&self, name: &str, data: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": self.ns},
            "stringData": data,
        })
    }

    /// The source and one Application of it, and waits until that is ready at a commit.
    pub(crate) async fn sync(&self, name: &str, path: &str, commit: &str) {
        self.apply(&self.source("1h")).await;
        self.apply(&self.app(name, path, "1h")).await;
        self.wait_applied(name, commit).await;
    }

    /// The source and Applications of it, each of the path of its name, and waits until they are
    /// ready.
    pub(crate) async fn sync_each(&self, names: &[&str]) {
        self.apply(&self.source("1h")).await;
        for name in names {
            self.apply(&self.app(name, name, "1h")).await;
        }
        for name in names {
            self.wait_condition(&self.apps(), name, ("Ready", "True"), |_| true).await;
        }
    }

    /// Applies an object as a person would, by server-side apply under the name `test`.
    pub(crate) async fn apply(&self, object: &Value) {
        let params = PatchParams::apply("test").force();
        let api = self.api_of(object);
        let name = object["metadata"]["name"].as_str().unwrap();
        api.patch(name, &params, &Patch::Apply(object)).await.unwrap();
    }

    fn api_of(&self, object: &Value) -> Api<DynamicObject> {
        let (api_version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
        self.api(api_version.unwrap(), kind.unwrap())
    }

    /// The objects of a kind in this namespace.
    pub(crate) fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        // The plurals that the API server gives to the kinds used here follow the rule that kube
        // guesses by.
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), &self.ns, &resource)
    }

    /// The objects of a kind that has no namespace.
    pub(crate) fn cluster_api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::all_with(self.client.clone(), &resource)
    }

    /// The Applications.
    pub(crate) fn apps(&self) -> Api<DynamicObject> {
        self.api("plumb.dev/v1alpha1", "Application")
    }

    /// The GitRepositories.
    pub(crate) fn sources(&self) -> Api<DynamicObject> {
        self.api("plumb.dev/v1alpha1", "GitRepository")
    }

    /// The config maps.
    pub(crate) fn config_maps(&self) -> Api<DynamicObject> {
        self.api("v1", "ConfigMap")
    }

    /// Asks for a look at an object at once, with a new value each time.
    pub(crate) async fn request(&self, api: &Api<DynamicObject>, name: &str, value: &str) {
        self.annotate(api, name, "reconcile.plumb.dev/requestedAt", value).await;
    }

    /// Sets an annotation as a person would.
    pub(crate) async fn annotate(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        key: &str,
        value: &str,
    ) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Pushes have no webhook here: tells the agent to look.
    pub(crate) async fn look(&self) {
        let value = format!("{:?}", std::time::SystemTime::now());
        self.request(&self.sources(), "repo", &value).await;
    }

    /// Waits until an object's condition is as wanted and returns the object.
    pub(crate) async fn wait_condition(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        (kind, status): (&str, &str),
        also: impl Fn(&Value) -> bool,
    ) -> Value {
        let what = format!("{name} to have {kind}={status}");
        wait_for(&what, LIMIT, async || {
            let object =
                serde_json::to_value(api.get(name).await.map_err(|e| e.to_string())?).unwrap();
            let found = condition(&object, kind);
            if found["status"] == status && also(&object) {
                Ok(object)
            } else {
                Err(format!("{}", object["status"]))
            }
        })
        .await
    }

    /// Waits until an Application is ready at a commit.
    pub(crate) async fn wait_applied(&self, app: &str, commit: &str) -> Value {
        let revision = format!("main@sha1:{commit}");
        self.wait_condition(&self.apps(), app, ("Ready", "True"), |object| {
            object["status"]["lastAppliedRevision"] == revision
        })
        .await
    }

    /// Waits until an Application is not ready for a reason, and returns the message.
    pub(crate) async fn wait_not_ready(&self, app: &str, reason: &str) -> String {
        let object = self
            .wait_condition(&self.apps(), app, ("Ready", "False"), |object| {
                condition(object, "Ready")["reason"] == reason
            })
            .await;
        condition(&object, "Ready")["message"].as_str().unwrap().to_owned()
    }

    /// Waits until an object's Ready is False for a reason, with a message that holds all these
    /// parts, and returns the object. The message is printed, to be read as a person would.
    pub(crate) async fn wait_refused(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        reason: &str,
        parts: &[&str],
    ) -> Value {
        let object = self
            .wait_condition(api, name, ("Ready", "False"), |object| {
                let ready = condition(object, "Ready");
                let message = ready["message"].as_str().unwrap();
                ready["reason"] == reason && parts.iter().all(|part| message.contains(part))
            })
            .await;
        show(&format!("{reason}: {}", condition(&object, "Ready")["message"].as_str().unwrap()));
        object
    }

    /// Waits until a config map holds this under the key `value`.
    pub(crate) async fn wait_value(&self, name: &str, value: &str) {
        wait_for(&format!("{name} to hold {value}"), LIMIT, async || {
            let data = self.data(name).await;
            match &data {
                Some(data) if data["value"] == value => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// An object as it is now.
    pub(crate) async fn get(&self, api: &Api<DynamicObject>, name: &str) -> Value {
        serde_json::to_value(api.get(name).await.unwrap()).unwrap()
    }

    /// Changes an object as a person would, by a merge patch.
    pub(crate) async fn edit(&self, api: &Api<DynamicObject>, name: &str, patch: &Value) {
        let params = PatchParams { field_manager: Some("by-hand".into()), ..Default::default() };
        api.patch(name, &params, &Patch::Merge(patch)).await.unwrap();
    }

    /// Deletes an object as a person would.
    pub(crate) async fn delete(&self, api: &Api<DynamicObject>, name: &str) {
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The notes of all events about an object, each after its reason.
    pub(crate) async fn events_of(&self, name: &str) -> Vec<String> {
        let events = self.api("events.k8s.io/v1", "Event").list(&ListParams::default()).await;
        let events = events.unwrap().items.into_iter().map(|event| event.data);
        events
            .filter(|event| event["regarding"]["name"] == name)
            .map(|event| {
                let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
                format!("{}: {}", text("reason"), text("note"))
            })
            .collect()
    }

    /// Waits for an event about an object that holds all these parts, and returns it.
    pub(crate) async fn wait_event(&self, name: &str, parts: &[&str]) -> String {
        let event = wait_for(&format!("an event of {name} with {parts:?}"), LIMIT, async || {
            let events = self.events_of(name).await;
            let found = events.iter().find(|note| parts.iter().all(|part| note.contains(part)));
            found.cloned().ok_or(events)
        })
        .await;
        show(&format!("event {event}"));
        event
    }

    /// Waits until an object is gone.
    pub(crate) async fn wait_gone(&self, api: &Api<DynamicObject>, name: &str) {
        wait_for(&format!("{name} to be gone"), LIMIT, async || {
            match api.get_opt(name).await.map_err(|e| e.to_string())? {
                None => Ok(()),
                Some(object) => Err(format!("{:?}", object.metadata)),
            }
        })
        .await;
    }

    /// A config map's data, `None` when there is no such object.
    pub(crate) async fn data(&self, name: &str) -> Option<Value> {
        let object = self.config_maps().get_opt(name).await.unwrap()?;
        Some(object.data["data"].clone())
    }
}

/// Prints what the agent says to people, for those who run a test with `--nocapture` to read it.
#[expect(clippy::print_stdout, reason = "a test's output")]
fn show(text: &str) {
    println!("{text}");
}

/// A condition of an object; null when it has none of that type.
pub(crate) fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
    found.cloned().unwrap_or(Value::Null)
}

/// A ConfigMap's manifest with one key `value`.
pub(crate) fn config_map(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  value: {value:?}\n"
    )
}

/// Puts our definitions into a cluster and waits until they are served.
pub(crate) async fn install_crds(client: kube::Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    for crd in plumb_api::crds() {
        let name = crd.metadata.name.clone().unwrap();
        let params = PatchParams::apply("test").force();
        api.patch(&name, &params, &Patch::Apply(&crd)).await.unwrap();
        wait_for(&format!("{name} to be served"), LIMIT, async || {
            let crd = api.get(&name).await.map_err(|e| e.to_string())?;
            let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
            let served = conditions.iter().any(|c| c.type_ == "Established" && c.status == "True");
            if served { Ok(()) } else { Err("not established".to_owned()) }
        })
        .await;
    }
}
