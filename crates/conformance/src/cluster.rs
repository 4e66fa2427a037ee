//! The cluster that an agent is put to: objects as JSON, and an account for the agent.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, Config, Error};
use serde_json::{Value, json};

use crate::error::SuiteError;

/// A kind, as URLs need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) api_version: String,
    pub(crate) name: String,
    pub(crate) plural: String,
}

impl Kind {
    pub(crate) fn new(api_version: &str, name: &str, plural: &str) -> Self {
        Self { api_version: api_version.into(), name: name.into(), plural: plural.into() }
    }

    fn resource(&self) -> ApiResource {
        let (group, version) =
            self.api_version.split_once('/').unwrap_or(("", self.api_version.as_str()));
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(group, version, &self.name),
            &self.plural,
        )
    }
}

/// What most scenarios apply.
pub(crate) fn config_maps() -> Kind {
    Kind::new("v1", "ConfigMap", "configmaps")
}

/// The administrator.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    config: Config,
}

fn refused(what: impl Into<String>) -> impl FnOnce(Error) -> SuiteError {
    let what = what.into();
    move |error| SuiteError::Cluster { what, source: Box::new(error) }
}

impl Cluster {
    /// By a kubeconfig file, or the usual places when there is none.
    pub(crate) async fn of(kubeconfig: Option<&Path>) -> Result<Self, SuiteError> {
        let unusable = |error: String| SuiteError::Kubeconfig { why: error };
        let config = match kubeconfig {
            Some(path) => {
                let read = Kubeconfig::read_from(path).map_err(|e| unusable(e.to_string()))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(read, &options)
                    .await
                    .map_err(|e| unusable(e.to_string()))?
            }
            None => Config::infer().await.map_err(|e| unusable(e.to_string()))?,
        };
        let client = Client::try_from(config.clone()).map_err(|e| unusable(e.to_string()))?;
        Ok(Self { client, config })
    }

    /// How the API server is reached with a token. There are clients that show none to a server that speaks
    /// plain HTTP, as the proxy does: it shows it for them.
    pub(crate) fn with_token(&self, token: &str) -> Config {
        let mut config = self.config.clone();
        config.auth_info = AuthInfo::default();
        config.auth_info.token = Some(token.to_owned().into());
        config
    }

    fn api(&self, kind: &Kind, namespace: &str) -> Api<DynamicObject> {
        let (client, resource) = (self.client.clone(), kind.resource());
        if namespace.is_empty() {
            Api::all_with(client, &resource)
        } else {
            Api::namespaced_with(client, namespace, &resource)
        }
    }

    pub(crate) async fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, SuiteError> {
        let found = self.api(kind, namespace).get_opt(name).await;
        Ok(found.map_err(refused(format!("get {} {namespace}/{name}", kind.name)))?.map(to_json))
    }

    pub(crate) async fn list(
        &self,
        kind: &Kind,
        namespace: &str,
    ) -> Result<Vec<Value>, SuiteError> {
        let found = self.api(kind, namespace).list(&ListParams::default()).await;
        let found = found.map_err(refused(format!("list {} in {namespace}", kind.plural)))?;
        Ok(found.items.into_iter().map(to_json).collect())
    }

    /// Server-side apply by a manager, with force.
    pub(crate) async fn apply(
        &self,
        manager: &str,
        kind: &Kind,
        namespace: &str,
        object: &Value,
    ) -> Result<Value, SuiteError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let params = PatchParams::apply(manager).force();
        let applied = self.api(kind, namespace).patch(name, &params, &Patch::Apply(object)).await;
        Ok(to_json(applied.map_err(refused(format!("apply {} {namespace}/{name}", kind.name)))?))
    }

    /// Creates an object, or leaves the one that is there.
    pub(crate) async fn ensure(
        &self,
        kind: &Kind,
        namespace: &str,
        object: &Value,
    ) -> Result<(), SuiteError> {
        let what = format!("create {} {}", kind.name, object["metadata"]["name"]);
        let typed: DynamicObject = serde_json::from_value(object.clone())
            .map_err(|error| SuiteError::Scenario { what: format!("{what}: {error}") })?;
        match self.api(kind, namespace).create(&PostParams::default(), &typed).await {
            Err(Error::Api(status)) if status.code == 409 => Ok(()),
            answer => answer.map(drop).map_err(refused(what)),
        }
    }

    /// A merge patch by a manager.
    pub(crate) async fn merge(
        &self,
        manager: &str,
        kind: &Kind,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Value, SuiteError> {
        let params = PatchParams { field_manager: Some(manager.into()), ..Default::default() };
        let patched = self.api(kind, namespace).patch(name, &params, &Patch::Merge(patch)).await;
        Ok(to_json(patched.map_err(refused(format!("patch {} {namespace}/{name}", kind.name)))?))
    }

    /// Deletes an object; one that is not there is deleted.
    pub(crate) async fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<(), SuiteError> {
        match self.api(kind, namespace).delete(name, &DeleteParams::background()).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            answer => answer
                .map(drop)
                .map_err(refused(format!("delete {} {namespace}/{name}", kind.name))),
        }
    }

    /// An account with all rights; gives its token.
    pub(crate) async fn account(&self, namespace: &str, name: &str) -> Result<String, SuiteError> {
        let accounts = Kind::new("v1", "ServiceAccount", "serviceaccounts");
        let bindings =
            Kind::new("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings");
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name },
        });
        self.ensure(&accounts, namespace, &account).await?;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": format!("{namespace}-{name}") },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": namespace }],
        });
        self.ensure(&bindings, "", &binding).await?;
        // A Secret of this type is filled by the cluster with a token that does not end.
        let secrets = Kind::new("v1", "Secret", "secrets");
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "name": format!("{name}-token"),
                "annotations": { "kubernetes.io/service-account.name": name },
            },
            "type": "kubernetes.io/service-account-token",
        });
        self.ensure(&secrets, namespace, &secret).await?;
        let begun = std::time::Instant::now();
        let token = loop {
            let found = self.get(&secrets, namespace, &format!("{name}-token")).await?;
            let token = found.as_ref().and_then(|found| found["data"]["token"].as_str());
            if let Some(token) = token.and_then(|token| STANDARD.decode(token).ok()) {
                break String::from_utf8_lossy(&token).into_owned();
            }
            if begun.elapsed() > Duration::from_secs(30) {
                let what = format!("the cluster gives {namespace}/{name} no token");
                return Err(SuiteError::Scenario { what });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        Ok(token)
    }

    /// An account of a namespace that has all rights to these kinds, wherever, and to nothing else.
    pub(crate) async fn limited(
        &self,
        namespace: &str,
        name: &str,
        plurals: &[&str],
    ) -> Result<(), SuiteError> {
        let group = "rbac.authorization.k8s.io";
        let api = format!("{group}/v1");
        let full = format!("{namespace}-{name}");
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name },
        });
        let role = json!({
            "apiVersion": api, "kind": "ClusterRole", "metadata": { "name": full },
            "rules": [{ "apiGroups": [""], "resources": plurals, "verbs": ["*"] }],
        });
        let binding = json!({
            "apiVersion": api, "kind": "ClusterRoleBinding", "metadata": { "name": full },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": full },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": namespace }],
        });
        let manager = "gitops-conformance";
        let accounts = Kind::new("v1", "ServiceAccount", "serviceaccounts");
        self.apply(manager, &accounts, namespace, &account).await?;
        self.apply(manager, &Kind::new(&api, "ClusterRole", "clusterroles"), "", &role).await?;
        let bindings = Kind::new(&api, "ClusterRoleBinding", "clusterrolebindings");
        self.apply(manager, &bindings, "", &binding).await?;
        Ok(())
    }

    /// The authorizer learns of a binding some milliseconds after it was made, and there are agents that end
    /// when they are refused at their start.
    pub(crate) async fn await_rights(kubeconfig: &str) -> Result<(), SuiteError> {
        let unusable = |error: String| SuiteError::Kubeconfig { why: error };
        let read = Kubeconfig::from_yaml(kubeconfig).map_err(|e| unusable(e.to_string()))?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(read, &options).await;
        let config = config.map_err(|e| unusable(e.to_string()))?;
        let client = Client::try_from(config.clone()).map_err(|e| unusable(e.to_string()))?;
        let account = Self { client, config };
        let namespaces = Kind::new("v1", "Namespace", "namespaces");
        let begun = std::time::Instant::now();
        loop {
            match account.list(&namespaces, "").await {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > Duration::from_secs(30) => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// A kubeconfig by way of a server.
pub(crate) fn kubeconfig(server: &str, user: &str, token: &str) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{ "name": "suite", "cluster": { "server": server } }],
        "users": [{ "name": user, "user": { "token": token } }],
        "contexts": [{ "name": "suite", "context": { "cluster": "suite", "user": user } }],
        "current-context": "suite",
    });
    format!("{config:#}\n")
}

fn to_json(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
