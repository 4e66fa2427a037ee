//! What an API server looks like to an agent, without one: for numbers of objects that a real one does
//! not hold beside everything else on one machine.
//!
//! It takes every write, remembers the metadata of members and the whole of everything else, and tells
//! all watches of it, as the real one does. It checks nothing: what an agent does is shown on a real one.

use crate::control_plane::kubeconfig;
use crate::scratch::Scratch;
use crate::server::{Answer, Body, Cut, Handler, Server, full};
use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// What it serves: group, version, plural, kind.
const KINDS: [(&str, &str, &str, &str); 6] = [
    ("", "v1", "configmaps", "ConfigMap"),
    ("plumb.dev", "v1alpha1", "applications", "Application"),
    ("plumb.dev", "v1alpha1", "gitrepositories", "GitRepository"),
    ("coordination.k8s.io", "v1", "leases", "Lease"),
    ("events.k8s.io", "v1", "events", "Event"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"),
];

/// A running feeder.
pub struct Feeder {
    server: Server,
    store: Arc<Store>,
    scratch: Scratch,
}

#[derive(Default)]
struct Store(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    version: u64,
    /// By plural, then by `namespace/name`.
    objects: HashMap<String, BTreeMap<String, Value>>,
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    requests: BTreeMap<String, usize>,
}

impl Feeder {
    /// Starts one that has nothing.
    pub async fn start() -> Feeder {
        let store = Arc::new(Store::default());
        let handler: Arc<dyn Handler> = Arc::<Store>::clone(&store);
        Feeder { server: Server::start(handler).await, store, scratch: Scratch::new("feeder") }
    }

    /// A kubeconfig for it.
    pub fn kubeconfig(&self) -> PathBuf {
        let text = kubeconfig::text(&self.server.base(), None, "agent", "token");
        self.scratch.write("kubeconfig", text)
    }

    /// Has an object from now on.
    pub fn put(&self, plural: &str, object: Value) {
        let mut kept = self.store.lock();
        let key = key_of(&object);
        kept.write(plural, &key, |stored| *stored = object);
    }

    /// How many objects of a kind there are for which this holds.
    pub fn count(&self, plural: &str, holds: impl Fn(&Value) -> bool) -> usize {
        let kept = self.store.lock();
        kept.objects
            .get(plural)
            .map_or(0, |all| all.values().filter(|object| holds(object)).count())
    }

    /// How often each was asked for, by method and plural.
    pub fn requests(&self) -> BTreeMap<String, usize> {
        self.store.lock().requests.clone()
    }
}

fn key_of(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

fn kind_of(plural: &str) -> (&'static str, &'static str, &'static str) {
    let found = KINDS.iter().find(|(_, _, known, _)| *known == plural);
    found.map_or(("", "v1", "Unknown"), |(group, version, _, kind)| (group, version, kind))
}

impl Kept {
    /// Changes an object, gives it what the server gives, and tells the watches. Returns it.
    fn write(&mut self, plural: &str, key: &str, change: impl FnOnce(&mut Value)) -> Value {
        self.version += 1;
        let version = self.version;
        let all = self.objects.entry(plural.to_owned()).or_default();
        let event = if all.contains_key(key) { "MODIFIED" } else { "ADDED" };
        let object = all.entry(key.to_owned()).or_insert_with(|| json!({}));
        change(object);
        let (group, api, kind) = kind_of(plural);
        object["apiVersion"] =
            json!(if group.is_empty() { api.to_owned() } else { format!("{group}/{api}") });
        object["kind"] = json!(kind);
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(name);
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("00000000-0000-4000-8000-{version:012x}"));
            metadata["creationTimestamp"] = json!("2026-01-02T03:04:05Z");
            metadata["generation"] = json!(1);
        }
        metadata["resourceVersion"] = json!(version.to_string());
        let object = object.clone();
        let shown = if kind == "ConfigMap" { metadata_of(&object) } else { object.clone() };
        let line = Bytes::from(format!("{}\n", json!({ "type": event, "object": shown })));
        self.watches.retain(|(of, tell)| of != plural || tell.send(line.clone()).is_ok());
        object
    }
}

fn metadata_of(object: &Value) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": object["metadata"],
    })
}

/// Puts what is applied over what is there, as far as agents apply: maps are joined, all else is taken.
fn join(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                join(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// The fields of what is applied, as `managedFields` tells them; lists are owned as a whole.
fn fields_of(value: &Value) -> Value {
    let Some(map) = value.as_object() else { return json!({}) };
    let below = map.iter().map(|(key, value)| (format!("f:{key}"), fields_of(value)));
    Value::Object(below.collect::<Map<_, _>>())
}

/// Applies a member or one of our kinds under a manager.
fn apply(object: &mut Value, body: &Value, manager: &str) {
    let mut fields = body.clone();
    for field in ["apiVersion", "kind"] {
        fields.as_object_mut().map(|map| map.remove(field));
    }
    if let Some(metadata) = fields["metadata"].as_object_mut() {
        for field in ["name", "namespace", "uid", "resourceVersion"] {
            metadata.remove(field);
        }
    }
    let mut managers = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    managers.retain(|entry| entry["manager"] != manager);
    managers.push(json!({
        "manager": manager, "operation": "Apply", "apiVersion": body["apiVersion"],
        "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1", "fieldsV1": fields_of(&fields),
    }));
    // Of members only metadata is asked for, ever.
    if body["kind"] == "ConfigMap" {
        join(&mut object["metadata"], &fields["metadata"]);
    } else {
        join(object, &fields);
    }
    object["metadata"]["managedFields"] = json!(managers);
}

impl Store {
    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().expect("not poisoned")
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> Response<Body> {
        if path == "/api" || path == "/apis" {
            return discovery(path == "/api");
        }
        // /api/v1/namespaces/NS/PLURAL/NAME/SUB, or /apis/GROUP/VERSION/...
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        parts.drain(..if parts[0] == "api" { 2 } else { 3.min(parts.len()) });
        let namespace = match parts.first() {
            Some(&"namespaces") if parts.len() > 2 => {
                let namespace = parts[1];
                parts.drain(..2);
                namespace
            }
            _ => "",
        };
        let plural = parts.first().copied().unwrap_or_default().to_owned();
        let name = parts.get(1).copied();
        let parameter = |wanted: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.clone().find(|(name, _)| *name == wanted).map(|(_, value)| decoded(value))
        };
        let parsed = || serde_json::from_slice::<Value>(body).unwrap_or_default();
        let mut kept = self.lock();
        *kept.requests.entry(format!("{method} {plural}")).or_default() += 1;
        match (method.as_str(), name) {
            ("GET", None) if parameter("watch").is_some() => watch(&mut kept, plural),
            ("GET", None) => list(&kept, &plural, parameter("limit"), parameter("continue")),
            ("GET", Some(name)) => {
                let key = format!("{namespace}/{name}");
                match kept.objects.get(&plural).and_then(|all| all.get(&key)) {
                    Some(object) => whole(StatusCode::OK, object),
                    None => not_found(&plural, name),
                }
            }
            ("POST", _) => {
                let object = parsed();
                let key =
                    format!("{namespace}/{}", key_of(&object).rsplit('/').next().unwrap_or(""));
                if plural == "events" {
                    // Nobody reads them, and each would stay.
                    kept.version += 1;
                    let mut object = object;
                    object["metadata"]["resourceVersion"] = json!(kept.version.to_string());
                    object["metadata"]["uid"] = json!("event");
                    return whole(StatusCode::CREATED, &metadata_of(&object));
                }
                let made = kept.write(&plural, &key, |stored| *stored = object);
                whole(StatusCode::CREATED, &made)
            }
            ("PUT", Some(name)) => {
                let key = format!("{namespace}/{name}");
                let object = parsed();
                let made = kept.write(&plural, &key, |stored| {
                    let uid = stored["metadata"]["uid"].clone();
                    *stored = object;
                    stored["metadata"]["uid"] = uid;
                });
                whole(StatusCode::OK, &made)
            }
            ("PATCH", Some(name)) => {
                let key = format!("{namespace}/{name}");
                let manager = parameter("fieldManager").unwrap_or_default();
                let body = parsed();
                let status = parts.get(2) == Some(&"status");
                let made = kept.write(&plural, &key, |stored| {
                    if status {
                        stored["status"] = body["status"].clone();
                    } else {
                        apply(stored, &body, &manager);
                    }
                });
                whole(StatusCode::OK, &metadata_of(&made))
            }
            _ => not_found(&plural, name.unwrap_or_default()),
        }
    }
}

/// What percent signs stand for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let code = more.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = code.and_then(|two| u8::from_str_radix(two, 16).ok());
        if let Some(byte) = code.filter(|_| *first == b'%') {
            bytes.push(byte);
            rest = &more[2..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn whole(status: StatusCode, object: &Value) -> Response<Body> {
    json_of(status, "application/json", object.to_string())
}

fn json_of(status: StatusCode, content: &str, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let content = content.parse().expect("a header");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content);
    response
}

fn not_found(plural: &str, name: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
        "code": 404, "message": format!("{plural} \"{name}\" not found"),
        "details": { "name": name, "kind": plural },
    });
    whole(StatusCode::NOT_FOUND, &status)
}

fn list(kept: &Kept, plural: &str, limit: Option<String>, after: Option<String>) -> Response<Body> {
    let limit = limit.and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    let (group, api, kind) = kind_of(plural);
    let metadata = kind == "ConfigMap" || kind == "CustomResourceDefinition";
    let after = after.filter(|after| !after.is_empty());
    let empty = BTreeMap::new();
    let all = kept.objects.get(plural).unwrap_or(&empty);
    let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    let page: Vec<_> = all.range((from, std::ops::Bound::Unbounded)).take(limit).collect();
    let more = page.len() == limit
        && all.last_key_value().map(|(key, _)| key) != page.last().map(|(key, _)| *key);
    let next = page.last().filter(|_| more).map(|(key, _)| (*key).clone());
    let items: Vec<_> = page
        .iter()
        .map(|(_, object)| if metadata { metadata_of(object) } else { (*object).clone() })
        .collect();
    let (api, kind) = if metadata {
        ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned())
    } else {
        (format!("{group}/{api}"), format!("{kind}List"))
    };
    let text = json!({
        "apiVersion": api, "kind": kind, "items": items,
        "metadata": { "resourceVersion": kept.version.to_string(), "continue": next },
    });
    whole(StatusCode::OK, &text)
}

fn watch(kept: &mut Kept, plural: String) -> Response<Body> {
    let (tell, told) = mpsc::unbounded_channel();
    kept.watches.push((plural, tell));
    let lines = stream::unfold(told, |mut told: mpsc::UnboundedReceiver<Bytes>| async move {
        let line = told.recv().await?;
        Some((Ok::<_, Cut>(Frame::data(line)), told))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(lines)));
    let content = "application/json".parse().expect("a header");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content);
    response
}

/// Aggregated discovery of all that is served.
fn discovery(core: bool) -> Response<Body> {
    let mut groups: BTreeMap<&str, (&str, Vec<Value>)> = BTreeMap::new();
    for (group, version, plural, kind) in KINDS {
        if group.is_empty() != core {
            continue;
        }
        let scope = if plural == "customresourcedefinitions" { "Cluster" } else { "Namespaced" };
        let status = json!([{
            "subresource": "status", "verbs": ["get", "patch", "update"],
            "responseKind": { "group": group, "version": version, "kind": kind },
        }]);
        let resource = json!({
            "resource": plural, "scope": scope, "singularResource": kind.to_lowercase(),
            "responseKind": { "group": group, "version": version, "kind": kind },
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            "subresources": if kind == "ConfigMap" { json!([]) } else { status },
        });
        groups.entry(group).or_insert((version, Vec::new())).1.push(resource);
    }
    let items: Vec<_> = groups
        .into_iter()
        .map(|(group, (version, resources))| {
            json!({
                "metadata": { "name": group },
                "versions": [{ "version": version, "freshness": "Current", "resources": resources }],
            })
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {}, "items": items,
    });
    let content = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    json_of(StatusCode::OK, content, list.to_string())
}

impl Handler for Store {
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_gone| Cut)?.to_bytes();
            let query = head.uri.query().unwrap_or_default();
            Ok(self.answer(&head.method, head.uri.path(), query, &body))
        })
    }
}
