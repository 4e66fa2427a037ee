//! Service accounts for processes under test, so that their requests can be told apart.

use super::{ControlPlane, kubeconfig};
use crate::wait::wait_for;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, PostParams};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A service account with a token.
#[derive(Debug, Clone)]
pub struct Identity {
    kubeconfig: PathBuf,
    name: String,
    namespace: String,
    token: String,
}

impl Identity {
    /// A kubeconfig file that acts as this account.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The name in the audit log: `system:serviceaccount:NAMESPACE:NAME`.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// The bearer token, good for a day.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A second kubeconfig file beside the first: the same account through another server that
    /// speaks plain HTTP, such as a proxy of testkit.
    #[must_use]
    pub fn through(&self, server: &str) -> PathBuf {
        let text = kubeconfig::text(server, None, &self.name, &self.token);
        let port = server.rsplit(':').next().unwrap_or("other").trim_end_matches('/');
        let path = self.kubeconfig.with_extension(format!("{port}.kubeconfig"));
        std::fs::write(&path, text)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }
}

impl ControlPlane {
    /// A ServiceAccount bound to a ClusterRole, with a token and a kubeconfig file. Returns once
    /// the API server grants what the role allows.
    ///
    /// # Panics
    /// When the namespace or the role does not exist, or the account exists already.
    pub async fn service_account(&self, namespace: &str, name: &str, role: &str) -> Identity {
        let client = self.client().await;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let post = PostParams::default();
        let account = serde_json::from_value(json!({ "metadata": { "name": name } }))
            .expect("a service account");
        accounts
            .create(&post, &account)
            .await
            .unwrap_or_else(|error| panic!("cannot create account {namespace}/{name}: {error}"));
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": { "name": format!("{namespace}-{name}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": namespace }],
        }))
        .expect("a binding");
        Api::all(client.clone())
            .create(&post, &binding)
            .await
            .unwrap_or_else(|error| panic!("cannot bind {namespace}/{name} to {role}: {error}"));
        let request: TokenRequest = serde_json::from_value(json!({
            "spec": { "audiences": [], "expirationSeconds": 86_400 },
        }))
        .expect("a token request");
        let token = accounts
            .create_token_request(name, &post, &request)
            .await
            .unwrap_or_else(|error| panic!("no token for {namespace}/{name}: {error}"))
            .status
            .and_then(|status| status.token)
            .expect("an answered request has a token");

        let text = kubeconfig::text(self.server(), Some(self.ca()), name, &token);
        let path = self.dir().join(format!("account-{namespace}-{name}.kubeconfig"));
        std::fs::write(&path, text).expect("our own directory");
        let identity = Identity {
            kubeconfig: path,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            token,
        };
        self.await_role(&identity, role).await;
        identity
    }

    /// The authorizer learns of a binding by a watch, some milliseconds after it was created.
    async fn await_role(&self, identity: &Identity, role: &str) {
        let roles: Api<ClusterRole> = Api::all(self.client().await);
        let role = roles
            .get(role)
            .await
            .unwrap_or_else(|error| panic!("there is no ClusterRole {role}: {error}"));
        let wanted: Vec<_> = role
            .rules
            .unwrap_or_default()
            .into_iter()
            .filter(|rule| rule.resources.is_some())
            .collect();
        let client = self.client_of(&identity.kubeconfig).await;
        let reviews: Api<SelfSubjectRulesReview> = Api::all(client);
        let review: SelfSubjectRulesReview =
            serde_json::from_value(json!({ "spec": { "namespace": identity.namespace } }))
                .expect("a review");
        let limit = Duration::from_secs(30);
        wait_for("the role in the account's rules", limit, || async {
            let answer = reviews
                .create(&PostParams::default(), &review)
                .await
                .map_err(|error| error.to_string())?;
            let granted = answer.status.map(|status| status.resource_rules).unwrap_or_default();
            let all = wanted.iter().all(|rule| {
                granted.iter().any(|have| {
                    have.verbs == rule.verbs
                        && have.resources == rule.resources
                        && have.api_groups == rule.api_groups
                })
            });
            if all { Ok(()) } else { Err(format!("{granted:?}")) }
        })
        .await;
    }
}
