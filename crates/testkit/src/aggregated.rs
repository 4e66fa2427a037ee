//! An aggregated API server of the old kind: it serves one kind, which can be read, applied and deleted,
//! but not watched, and it cannot answer in metadata.

use crate::pki::Authority;
use crate::server::{Answer, Body, Cut, Handler, Server, full};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A running server of the kind `Gadget`. Closed when dropped.
pub struct Aggregated {
    server: Server,
    gadgets: Arc<Gadgets>,
}

struct Gadgets {
    group: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    version: u64,
    broken: bool,
    /// By namespace and name.
    objects: BTreeMap<(String, String), Value>,
}

impl Aggregated {
    /// One that serves the version `v1` of a group.
    pub async fn start(group: &str) -> Aggregated {
        let gadgets = Arc::new(Gadgets { group: group.to_owned(), state: Mutex::default() });
        let handler: Arc<dyn Handler> = Arc::<Gadgets>::clone(&gadgets);
        let server = Server::start_tls(handler, &Authority::create()).await;
        Aggregated { server, gadgets }
    }

    /// What makes a cluster ask it: a Service in a namespace, and an APIService.
    pub fn registration(&self, namespace: &str) -> [Value; 2] {
        let group = &self.gadgets.group;
        let port: u16 = self
            .server
            .base()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("a URL with a port");
        [
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "gadgets", "namespace": namespace},
                "spec": {"type": "ExternalName", "externalName": "localhost"},
            }),
            json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": format!("v1.{group}")},
                "spec": {
                    "group": group, "version": "v1", "insecureSkipTLSVerify": true,
                    "groupPriorityMinimum": 1000, "versionPriority": 15,
                    "service": {"name": "gadgets", "namespace": namespace, "port": port},
                },
            }),
        ]
    }

    /// From now on it answers everything with 503, or as it should.
    pub fn set_broken(&self, broken: bool) {
        self.gadgets.lock().broken = broken;
    }

    /// An object as it is now.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Value> {
        self.gadgets.lock().objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Changes `spec.size` of an object as a person would: whoever applied it has it no more.
    pub fn resize(&self, namespace: &str, name: &str, size: u32) {
        let mut state = self.gadgets.lock();
        state.version += 1;
        let version = state.version.to_string();
        let key = (namespace.to_owned(), name.to_owned());
        let object = state.objects.get_mut(&key).expect("an object to resize");
        object["spec"]["size"] = size.into();
        object["metadata"]["resourceVersion"] = version.into();
        let entries = object["metadata"]["managedFields"].as_array_mut().expect("entries");
        for entry in &mut *entries {
            if let Some(spec) = entry["fieldsV1"]["f:spec"].as_object_mut() {
                spec.remove("f:size");
            }
        }
        entries.push(entry(
            "by-hand",
            "Update",
            &self.gadgets.group,
            &json!({"f:spec": {"f:size": {}}}),
        ));
    }
}

fn entry(manager: &str, operation: &str, group: &str, fields: &Value) -> Value {
    json!({
        "manager": manager, "operation": operation, "apiVersion": format!("{group}/v1"),
        "time": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    })
}

/// The field set of a value; lists are taken as wholes.
fn fields_of(value: &Value) -> Value {
    let Value::Object(map) = value else { return json!({}) };
    let below = map.iter().map(|(key, value)| (format!("f:{key}"), fields_of(value)));
    Value::Object(below.collect::<Map<_, _>>())
}

impl Gadgets {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn answer(
        &self,
        method: &Method,
        uri: &http::Uri,
        accept: &str,
        body: &[u8],
    ) -> (StatusCode, Value) {
        let mut state = self.lock();
        if state.broken {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
        }
        let root = format!("/apis/{}/v1", self.group);
        let Some(path) = uri.path().strip_prefix(&root) else {
            return refusal(StatusCode::NOT_FOUND, "NotFound");
        };
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return (StatusCode::OK, self.resources());
        }
        if accept.contains("PartialObjectMetadata") {
            return refusal(StatusCode::NOT_ACCEPTABLE, "NotAcceptable");
        }
        let query = uri.query().unwrap_or_default();
        match (method, &*parts) {
            (&Method::GET, ["gadgets"]) => {
                let labelled = |object: &&Value| {
                    !query.contains("labelSelector")
                        || object["metadata"]["labels"]["applyset.kubernetes.io/part-of"]
                            .is_string()
                };
                let items: Vec<&Value> = state.objects.values().filter(labelled).collect();
                let list = json!({
                    "apiVersion": format!("{}/v1", self.group), "kind": "GadgetList",
                    "metadata": {"resourceVersion": state.version.to_string()}, "items": items,
                });
                (StatusCode::OK, list)
            }
            (method, ["namespaces", namespace, "gadgets", name]) => {
                let key = ((*namespace).to_owned(), (*name).to_owned());
                match *method {
                    Method::GET => match state.objects.get(&key) {
                        Some(object) => (StatusCode::OK, object.clone()),
                        None => refusal(StatusCode::NOT_FOUND, "NotFound"),
                    },
                    Method::DELETE => match state.objects.remove(&key) {
                        Some(object) => (StatusCode::OK, object),
                        None => refusal(StatusCode::NOT_FOUND, "NotFound"),
                    },
                    Method::PATCH => self.apply(&mut state, key, query, body),
                    _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
                }
            }
            _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    /// Server-side apply, as far as one manager goes.
    fn apply(
        &self,
        state: &mut State,
        key: (String, String),
        query: &str,
        body: &[u8],
    ) -> (StatusCode, Value) {
        let Ok(mut object) = serde_json::from_slice::<Value>(body) else {
            return refusal(StatusCode::BAD_REQUEST, "BadRequest");
        };
        let manager = query.split('&').find_map(|pair| pair.strip_prefix("fieldManager="));
        let manager = manager.unwrap_or_default().replace("%3A", ":").replace("%2F", "/");
        let known = state.objects.get(&key);
        let version = known.map(|known| known["metadata"]["resourceVersion"].clone());
        let wanted = &object["metadata"]["resourceVersion"];
        if !wanted.is_null() && version.as_ref() != Some(wanted) {
            return refusal(StatusCode::CONFLICT, "Conflict");
        }
        let mut fields = fields_of(&object);
        for name in ["f:apiVersion", "f:kind"] {
            fields.as_object_mut().expect("a map").remove(name);
        }
        let metadata = fields["f:metadata"].as_object_mut().expect("a map");
        metadata.retain(|name, _| matches!(&**name, "f:labels" | "f:annotations"));
        let same = known.filter(|known| {
            known["metadata"]["managedFields"][0]["fieldsV1"] == fields
                && known["spec"] == object["spec"]
        });
        if let Some(same) = same {
            return (StatusCode::OK, same.clone());
        }
        state.version += 1;
        let uid = state.objects.get(&key).map_or_else(
            || json!(format!("gadget-{}", state.version)),
            |o| o["metadata"]["uid"].clone(),
        );
        let metadata = &mut object["metadata"];
        metadata["uid"] = uid;
        metadata["resourceVersion"] = json!(state.version.to_string());
        metadata["managedFields"] = json!([entry(&manager, "Apply", &self.group, &fields)]);
        state.objects.insert(key, object.clone());
        (StatusCode::OK, object)
    }

    fn resources(&self) -> Value {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": format!("{}/v1", self.group),
            "resources": [{
                "name": "gadgets", "singularName": "gadget", "namespaced": true, "kind": "Gadget",
                "verbs": ["delete", "get", "list", "patch"],
            }],
        })
    }
}

fn refusal(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": format!("the server of gadgets says: {reason}"),
    });
    (code, status)
}

impl Handler for Gadgets {
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_gone| Cut)?.to_bytes();
            let accept = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
            let (code, answer) =
                self.answer(&head.method, &head.uri, accept.unwrap_or_default(), &body);
            let mut response: Response<Body> = Response::new(full(answer.to_string()));
            *response.status_mut() = code;
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            Ok(response)
        })
    }
}
