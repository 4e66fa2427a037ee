//! A webhook of admission that does as it is told, and converts objects.

use crate::pki::Authority;
use crate::server::{Answer, Body, Cut, Handler, Server, full};
use base64::Engine as _;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

/// What a webhook does with each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Lets it pass.
    Allow,
    /// Refuses it with these words.
    Deny(String),
    /// Lets it pass with these changes, a JSON patch.
    Change(Value),
    /// Never answers.
    Hang,
}

/// A webhook on loopback. What it is to convert it converts by name alone. Closed when dropped.
pub struct Webhook {
    server: Server,
    ca: String,
    does: watch::Sender<Admission>,
}

struct Judge(watch::Receiver<Admission>);

impl Webhook {
    /// One that lets everything pass.
    pub async fn start() -> Webhook {
        let (does, told) = watch::channel(Admission::Allow);
        let authority = Authority::create();
        let server = Server::start_tls(Arc::new(Judge(told)), &authority).await;
        let ca = base64::engine::general_purpose::STANDARD.encode(authority.pem());
        Webhook { server, ca, does }
    }

    /// From now on it does so, also with what it has not answered yet.
    pub fn set(&self, admission: Admission) {
        self.does.send_replace(admission);
    }

    /// Closes its port: whoever calls it is refused a connection.
    pub async fn down(&self) {
        self.server.down().await;
    }

    /// Opens its port again.
    pub async fn up(&self) {
        self.server.up().await.expect("the port is still ours");
    }

    /// What a definition says of a conversion that is asked of it: its `spec.conversion`.
    pub fn conversion(&self) -> Value {
        json!({
            "strategy": "Webhook",
            "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("{}/", self.server.base()), "caBundle": self.ca},
            },
        })
    }

    /// The configuration that has one kind's writes in one namespace asked of it. A `policy` of
    /// `Ignore` lets pass what it does not answer.
    pub fn configuration(&self, name: &str, namespace: &str, plural: &str, policy: &str) -> Value {
        self.configured("ValidatingWebhookConfiguration", name, namespace, plural, policy)
    }

    /// The same before anything is validated, so that it may change what is written.
    pub fn mutating(&self, name: &str, namespace: &str, plural: &str) -> Value {
        self.configured("MutatingWebhookConfiguration", name, namespace, plural, "Fail")
    }

    fn configured(
        &self,
        kind: &str,
        name: &str,
        namespace: &str,
        plural: &str,
        policy: &str,
    ) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "webhooks": [{
                "name": format!("{name}.example.com"),
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": policy,
                "clientConfig": {"url": format!("{}/", self.server.base()), "caBundle": self.ca},
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": namespace},
                },
                "rules": [{
                    "apiGroups": ["*"], "apiVersions": ["*"], "resources": [plural],
                    "operations": ["CREATE", "UPDATE"],
                }],
            }],
        })
    }
}

impl Handler for Judge {
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(async move {
            let body = request.into_body().collect().await.map_err(|_gone| Cut)?.to_bytes();
            let review: Value = serde_json::from_slice(&body).map_err(|_not_json| Cut)?;
            if review["kind"] == "ConversionReview" {
                return Ok(answered(&converted(&review["request"])));
            }
            let mut told = self.0.clone();
            let does = told.wait_for(|does| *does != Admission::Hang).await;
            let does = does.map_err(|_over| Cut)?.clone();
            let mut response = json!({
                "uid": review["request"]["uid"],
                "allowed": matches!(does, Admission::Allow | Admission::Change(_)),
            });
            match does {
                Admission::Deny(words) => response["status"] = json!({"message": words}),
                Admission::Change(patch) => {
                    let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
                    response["patchType"] = json!("JSONPatch");
                    response["patch"] = json!(patch);
                }
                Admission::Allow | Admission::Hang => {}
            }
            let answer = json!({
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "response": response,
            });
            Ok(answered(&answer))
        })
    }
}

/// The objects of a request in the version that is asked for.
fn converted(request: &Value) -> Value {
    let mut objects = request["objects"].clone();
    for object in objects.as_array_mut().into_iter().flatten() {
        object["apiVersion"] = request["desiredAPIVersion"].clone();
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {
            "uid": request["uid"], "convertedObjects": objects, "result": {"status": "Success"},
        },
    })
}

fn answered(answer: &Value) -> Response<Body> {
    let mut response = Response::new(full(answer.to_string()));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
