//! The cluster layer against a real kube-apiserver, through a proxy that sees every byte.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "they end the test, as they should")]

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use plumb_core::{GroupKind, Gvk};
use plumb_engine::{
    ApiError, ApplyHow, Cluster, ClusterOptions, Deleted, Live, PART_OF, Propagation, Resource,
    Target, WatchEvent, WriteGate, watch,
};
use plumb_testkit::{ControlPlane, Fault, Match, Proxy, Rule};
use serde_json::{Value, json};

const MANAGER: &str = "plumb:web/one";
const FIRST: ApplyHow = ApplyHow { force: false, dry_run: false };
const FORCED: ApplyHow = ApplyHow { force: true, dry_run: false };
const DRY: ApplyHow = ApplyHow { force: true, dry_run: true };
/// In base64, as it travels: `hunter2-hunter2`.
const CONTENT: &str = "aHVudGVyMi1odW50ZXIy";
/// How long a test waits for anything.
const LIMIT: Duration = Duration::from_mins(1);

/// One test's view of the control plane.
struct Fixture {
    proxy: Proxy,
    cluster: Cluster,
    namespace: String,
    gate: Arc<Gate>,
    token: String,
    secrets: Resource,
    maps: Resource,
}

/// Open until it is shut.
#[derive(Default)]
struct Gate {
    shut: AtomicBool,
    asked: AtomicU64,
}

impl WriteGate for Gate {
    fn admit(&self, _needs: Duration) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        !self.shut.load(Ordering::SeqCst)
    }
}

impl Fixture {
    async fn new() -> Self {
        let plane = ControlPlane::shared().await;
        let namespace = plane.namespace("cluster").await;
        let proxy = Proxy::to_api(plane, 1).await;
        let identity = plane.service_account(&namespace, "engine", "cluster-admin").await;
        let file = Kubeconfig::read_from(identity.through(&proxy.url())).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
        config.default_retry = false;
        let gate = Arc::new(Gate::default());
        let cluster = Cluster::new(
            kube::Client::try_from(config).unwrap(),
            ClusterOptions {
                request_timeout: Duration::from_secs(20),
                user_agent: Some("plumb/test".into()),
                gate: Some(gate.clone()),
                observer: None,
                seed: 1,
            },
        );
        Self {
            proxy,
            cluster,
            namespace,
            gate,
            token: identity.token().into(),
            secrets: Resource::known(Gvk::new("v1", "Secret"), "secrets", true),
            maps: Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true),
        }
    }

    fn secret<'a>(&'a self, name: &'a str) -> Target<'a> {
        Target::new(&self.secrets, &self.namespace, name)
    }

    fn map<'a>(&'a self, name: &'a str) -> Target<'a> {
        Target::new(&self.maps, &self.namespace, name)
    }

    async fn apply_map(&self, name: &str, data: Value) -> Live {
        let body = body("ConfigMap", name, json!({ "data": data }));
        self.cluster.apply(&self.map(name), &body, MANAGER, FORCED).await.unwrap()
    }

    /// The ConfigMaps of this test, watched.
    fn watch(&self) -> Pin<Box<dyn Stream<Item = WatchEvent> + Send>> {
        Box::pin(watch(&self.cluster, &self.maps, PART_OF, Some(&self.namespace)))
    }

    fn watches(&self) -> Match {
        Match::method("GET").path("/configmaps").query("watch=true").path(&self.namespace)
    }
}

fn body(kind: &str, name: &str, rest: Value) -> Value {
    let mut body = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {"name": name, "labels": {PART_OF: "applyset-x"}},
    });
    let (Value::Object(body_fields), Value::Object(rest)) = (&mut body, rest) else { panic!() };
    for (key, value) in rest {
        match (body_fields.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
            (_, value) => {
                body_fields.insert(key, value);
            }
        }
    }
    body
}

/// The next event, in words.
async fn next(stream: &mut Pin<Box<dyn Stream<Item = WatchEvent> + Send>>) -> String {
    let event = tokio::time::timeout(LIMIT, stream.next()).await.expect("an event in time");
    match event.expect("a stream without end") {
        WatchEvent::Restarted => "restarted".into(),
        WatchEvent::Listed(items, _) => {
            let mut names: Vec<_> = items.iter().map(|(key, _)| &*key.name).collect();
            names.sort_unstable();
            format!("listed {}", names.join(" "))
        }
        WatchEvent::Changed(key, live) => format!("changed {} {}", key.name, live.resource_version),
        WatchEvent::Deleted(key, _) => format!("deleted {}", key.name),
        WatchEvent::Unreadable(key, error) => format!("unreadable {key}: {error}"),
        WatchEvent::Failed(error) => format!("failed: {error}"),
    }
}

#[tokio::test]
async fn no_answer_carries_a_body() {
    let f = Fixture::new().await;
    let to = f.secret("s");
    let secret = |rest: Value| {
        let mut all = json!({"data": {"password": CONTENT}});
        all.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        body("Secret", "s", all)
    };
    let held = secret(json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    f.cluster.apply(&to, &held, MANAGER, DRY).await.unwrap();
    let live = f.cluster.apply(&to, &held, MANAGER, FIRST).await.unwrap();
    let again = f.cluster.apply(&to, &held, MANAGER, FORCED).await.unwrap();
    assert_eq!(live, again, "a repeated apply changes nothing");
    let entry = live.entry(MANAGER).expect("our entry");
    assert!(entry.owns_part_of && entry.time > 0);
    assert_eq!(live.part_of.as_deref(), Some("applyset-x"));

    let patch = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": live.resource_version.to_string()},
        {"op": "add", "path": "/metadata/labels/mine", "value": "1"},
    ]);
    let patched = f.cluster.json_patch(&to, &patch, Some("tests")).await.unwrap();
    assert!(patched.resource_version > live.resource_version);
    assert_eq!(patched.entries, live.entries);
    assert_ne!(patched.others, live.others);

    let found = f.cluster.get_metadata(&to).await.unwrap().expect("it is there");
    assert_eq!(found.live, patched);
    assert_eq!(found.finalizers, ["example.com/hold"]);
    assert_eq!(found.managed_fields.len(), 2);
    let (listed, _) = f.cluster.list(&f.secrets, PART_OF, Some(&f.namespace)).await.unwrap();
    assert_eq!(listed, [(to.key(), patched.clone())]);

    let mut events = Box::pin(watch(&f.cluster, &f.secrets, PART_OF, Some(&f.namespace)))
        as Pin<Box<dyn Stream<Item = WatchEvent> + Send>>;
    assert_eq!(next(&mut events).await, "restarted");
    assert_eq!(next(&mut events).await, "listed s");
    let delete = |version| f.cluster.delete(&to, &live.uid, version, Propagation::Background);
    assert_eq!(delete(Some(patched.resource_version)).await.unwrap(), Deleted::Terminating);
    assert!(next(&mut events).await.starts_with("changed s"));
    let release = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    f.cluster.json_patch(&to, &release, None).await.unwrap();
    assert_eq!(next(&mut events).await, "deleted s");
    assert_eq!(delete(None).await.unwrap(), Deleted::AlreadyGone);

    assert!(f.proxy.exchanges().len() >= 10);
    assert_eq!(f.proxy.leaks(CONTENT), Vec::<String>::new());
    // The proxy does see what travels: reading it whole shows.
    f.cluster.apply(&to, &secret(json!({})), MANAGER, FIRST).await.unwrap();
    f.cluster.get_json::<Value>(&to).await.unwrap().expect("it is there");
    assert_eq!(f.proxy.leaks(CONTENT).len(), 1);
}

#[tokio::test]
async fn deletes_hit_the_object_that_was_meant() {
    let f = Fixture::new().await;
    let live = f.apply_map("a", json!({"x": "1"})).await;
    let to = f.map("a");
    let delete = |uid: &str, version| {
        let (cluster, uid) = (f.cluster.clone(), uid.to_owned());
        async move { cluster.delete(&to, &uid, version, Propagation::Background).await }
    };
    let changed = f.apply_map("a", json!({"x": "2"})).await;
    let error = delete(&live.uid, Some(live.resource_version)).await.unwrap_err();
    assert!(error.is_conflict() && !error.is_ownership_conflict(), "{error}");
    let stranger = "11111111-1111-1111-1111-111111111111";
    assert_eq!(delete(stranger, None).await.unwrap(), Deleted::AlreadyGone);
    assert_eq!(delete(&live.uid, Some(changed.resource_version)).await.unwrap(), Deleted::Gone);
    assert_eq!(f.cluster.get_metadata(&to).await.unwrap(), None);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let f = Fixture::new().await;
    let live = f.apply_map("a", json!({"x": "1"})).await;
    let to = f.map("a");

    let theirs = body("ConfigMap", "a", json!({"data": {"x": "2"}}));
    let error = f.cluster.apply(&to, &theirs, "plumb:web/two", FIRST).await.unwrap_err();
    assert!(error.is_ownership_conflict(), "{error}");
    assert_eq!(error.conflicts(), [(MANAGER.to_owned(), ".data.x".to_owned())]);

    f.apply_map("a", json!({"x": "3"})).await;
    let mut stale = theirs.clone();
    stale["metadata"]["resourceVersion"] = live.resource_version.to_string().into();
    let error = f.cluster.apply(&to, &stale, MANAGER, FORCED).await.unwrap_err();
    assert!(error.is_conflict() && !error.is_ownership_conflict(), "{error}");

    let nowhere = Target::new(&f.maps, "does-not-exist", "a");
    let error = f.cluster.apply(&nowhere, &theirs, MANAGER, FIRST).await.unwrap_err();
    assert!(error.is_namespace_missing(), "{error}");

    let unknown = Resource::known(Gvk::new("example.com/v1", "Nothing"), "nothings", true);
    let to_unknown = Target::new(&unknown, &f.namespace, "a");
    let error = f.cluster.get_metadata(&to_unknown).await.unwrap_err();
    assert!(error.is_kind_missing(), "{error}");
    assert!(f.cluster.list(&unknown, "", None).await.unwrap_err().is_kind_missing());

    let typo = body("ConfigMap", "a", json!({"dta": {}}));
    let error = f.cluster.apply(&to, &typo, MANAGER, FIRST).await.unwrap_err();
    assert!(error.is_not_in_schema(), "{error}");
    assert_eq!(error.class(), plumb_core::ErrorClass::WaitForUser);

    let nobody = f.cluster.as_user(&format!("system:serviceaccount:{}:nobody", f.namespace));
    let error = nobody.apply(&to, &theirs, MANAGER, FIRST).await.unwrap_err();
    assert!(error.is_forbidden() && !error.is_terminating_namespace(), "{error}");
    assert!(error.to_string().contains("nobody"), "{error}");

    let namespaces = Resource::known(Gvk::new("v1", "Namespace"), "namespaces", false);
    let leaving = format!("{}-leaving", f.namespace);
    let namespace = Target::new(&namespaces, "", &leaving);
    let held = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": leaving}});
    let live = f.cluster.apply(&namespace, &held, MANAGER, FIRST).await.unwrap();
    let held_map = Target::new(&f.maps, &leaving, "held");
    let hold = body("ConfigMap", "held", json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    f.cluster.apply(&held_map, &hold, MANAGER, FIRST).await.unwrap();
    let deleted = f.cluster.delete(&namespace, &live.uid, None, Propagation::Background).await;
    assert_eq!(deleted.unwrap(), Deleted::Terminating);
    let late = Target::new(&f.maps, &leaving, "late");
    let error = f.cluster.apply(&late, &body("ConfigMap", "late", json!({})), MANAGER, FIRST).await;
    let error = error.unwrap_err();
    assert!(error.is_terminating_namespace(), "{error}");
    let release = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    f.cluster.json_patch(&held_map, &release, None).await.unwrap();
}

#[tokio::test]
async fn refusals_about_secrets_do_not_quote_them() {
    let f = Fixture::new().await;
    for data in [
        json!({"data": {"password": "hunter2!"}}),
        json!({"data": {"password": {"hunter2": 1}}}),
        json!({"data": {"hunter2 is no key": CONTENT}, "hunter2": "x"}),
        json!({"stringData": {"password": ["hunter2"]}}),
        json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": CONTENT}}),
        json!({"type": "kubernetes.io/tls", "stringData": {"tls.key": "hunter2"}}),
    ] {
        let secret = body("Secret", "s", data.clone());
        let error = f.cluster.apply(&f.secret("s"), &secret, MANAGER, FIRST).await.unwrap_err();
        let text = format!("{error}");
        assert!(!text.contains("hunter2!") && !text.contains("[hunter2"), "{data}: {text}");
        assert!(text.contains("withheld"), "{data}: {text}");
        assert_eq!(error.class(), plumb_core::ErrorClass::WaitForUser, "{text}");
    }
    let wrong = body("Secret", "s", json!({"data": {"password": 12_345_678}}));
    let error = f.cluster.apply(&f.secret("s"), &wrong, MANAGER, FIRST).await.unwrap_err();
    assert!(!format!("{error:?}").contains("12345678"), "{error:?}");
    assert!(error.to_string().contains(".data.password"), "{error}");
}

#[tokio::test]
async fn text_arrives_as_it_was_sent() {
    let f = Fixture::new().await;
    let text =
        "a\u{85}b\u{2028}c\u{2029}d\u{7f}e\u{9f}f\u{feff}g\u{1f600}h\té\u{e000}\n \"'\\: #-{}%@`";
    for (name, text) in [("odd", text), ("yaml", "yes"), ("number", "0123")] {
        f.apply_map(name, json!({"text": text})).await;
        let map = f.cluster.get_json::<Value>(&f.map(name)).await.unwrap().unwrap();
        assert_eq!(map["data"]["text"], text);
    }
}

#[tokio::test]
async fn discovery_knows_what_is_served() {
    let f = Fixture::new().await;
    let mark = f.proxy.mark();
    let discovery = f.cluster.discover().await.unwrap();
    assert_eq!(f.proxy.since(mark).len(), 2);
    let deployment = discovery.find(&Gvk::new("apps/v1", "Deployment")).unwrap();
    assert_eq!(deployment.plural, "deployments");
    assert!(deployment.namespaced && deployment.can("patch"));
    assert!(deployment.subresources.contains("scale"));
    assert!(!discovery.preferred(&GroupKind::new("", "Namespace")).unwrap().namespaced);
    assert_eq!(discovery.unknown_groups().count(), 0);

    // An aggregated API server that nobody runs.
    let services =
        Resource::known(Gvk::new("apiregistration.k8s.io/v1", "APIService"), "apiservices", false);
    let to = Target::new(&services, "", "v1.broken.example.com");
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.broken.example.com"},
        "spec": {
            "group": "broken.example.com", "version": "v1", "insecureSkipTLSVerify": true,
            "groupPriorityMinimum": 10, "versionPriority": 10,
            "service": {"name": "nobody", "namespace": f.namespace},
        },
    });
    let _guard = Broken(ControlPlane::shared().await);
    f.cluster.apply(&to, &service, MANAGER, FIRST).await.unwrap();
    let cluster = &f.cluster;
    plumb_testkit::wait_for("the broken group in discovery", LIMIT, || async move {
        let discovery = cluster.discover().await.unwrap();
        // Nothing else suffers.
        assert!(discovery.find(&Gvk::new("apps/v1", "Deployment")).is_some());
        assert!(!discovery.is_unknown("apps"));
        discovery.is_unknown("broken.example.com").then_some(())
    })
    .await;
}

/// Takes the broken API away also when the test fails: nobody could delete a namespace any more.
struct Broken(&'static ControlPlane);

impl Drop for Broken {
    fn drop(&mut self) {
        let output = self.0.kubectl(["delete", "apiservice", "v1.broken.example.com"]);
        // A second panic would hide why the test failed.
        assert!(output.status.success() || std::thread::panicking(), "{output:?}");
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let f = Fixture::new().await;
    let maps = || Match::method("PATCH").path("/configmaps/a");
    let busy = Rule::new(maps(), Fault::Status { code: 429, retry_after: Some(1) }).times(2);
    let id = f.proxy.add(busy);
    let begin = std::time::Instant::now();
    f.apply_map("a", json!({})).await;
    assert_eq!(f.proxy.hits(id), 2);
    assert!(begin.elapsed() >= Duration::from_secs(2));

    // Cut after the server did it: an apply is repeated and finds nothing left to do.
    let id = f.proxy.add(Rule::new(maps(), Fault::CutAfter).times(1));
    let live = f.apply_map("a", json!({"x": "1"})).await;
    assert_eq!(f.proxy.hits(id), 1);
    assert_eq!(f.cluster.get_metadata(&f.map("a")).await.unwrap().unwrap().live, live);

    // A patch that cannot be repeated is not.
    let id = f.proxy.add(Rule::new(maps(), Fault::CutAfter).times(1));
    let patch = json!([{"op": "add", "path": "/data/y", "value": "1"}]);
    let error = f.cluster.json_patch(&f.map("a"), &patch, None).await.unwrap_err();
    assert!(matches!(error, ApiError::Transport { .. }), "{error}");
    assert_eq!(f.proxy.hits(id), 1);
}

#[tokio::test]
async fn who_does_not_lead_sends_nothing() {
    let f = Fixture::new().await;
    let live = f.apply_map("a", json!({})).await;
    f.gate.shut.store(true, Ordering::SeqCst);
    let mark = f.proxy.mark();
    let to = f.map("a");
    let map = body("ConfigMap", "a", json!({}));
    for error in [
        f.cluster.apply(&to, &map, MANAGER, FIRST).await.unwrap_err(),
        f.cluster.json_patch(&to, &json!([]), None).await.unwrap_err(),
        f.cluster.create(&f.maps, &f.namespace, &map).await.unwrap_err(),
        f.cluster.delete(&to, &live.uid, None, Propagation::Background).await.unwrap_err(),
    ] {
        assert!(matches!(error, ApiError::NotLeading { .. }), "{error}");
    }
    assert!(f.proxy.since(mark).is_empty());
    assert!(f.gate.asked.load(Ordering::SeqCst) >= 5);
    f.cluster.get_metadata(&to).await.unwrap().expect("reading is free");
    f.cluster.ungated().apply(&to, &map, MANAGER, FIRST).await.unwrap();
}

#[tokio::test]
async fn lists_of_many_pages_are_whole() {
    let f = Fixture::new().await;
    let names: Vec<String> = (0..501).map(|number| format!("a{number:03}")).collect();
    futures::stream::iter(&names)
        .for_each_concurrent(16, |name| async {
            f.apply_map(name, json!({})).await;
        })
        .await;
    // The first page is cut off and asked for again.
    let lists = || Match::method("GET").path("/configmaps").path(&f.namespace);
    let id = f.proxy.add(Rule::new(lists(), Fault::CutBody(1000)).times(1));
    let mark = f.proxy.mark();
    let (listed, version) = f.cluster.list(&f.maps, PART_OF, Some(&f.namespace)).await.unwrap();
    assert_eq!(f.proxy.hits(id), 1);
    assert_eq!(f.proxy.since(mark).len(), 3, "a page cut off and two pages");
    let listed_names: Vec<_> = listed.iter().map(|(key, _)| key.name.clone()).collect();
    assert_eq!(listed_names, names);
    let newest = listed.iter().map(|(_, live)| live.resource_version).max();
    assert!(version.parse::<u64>().ok() >= newest);
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn logs_hold_no_content_and_no_credential() {
    let f = Fixture::new().await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // For this thread, which is also the one that the client's tasks run on.
    let _guard = tracing::subscriber::set_default(subscriber);
    let to = f.secret("s");
    let secret = body("Secret", "s", json!({"data": {"password": CONTENT}}));
    f.cluster.apply(&to, &secret, MANAGER, FIRST).await.unwrap();
    f.cluster.get_json::<Value>(&to).await.unwrap().unwrap();
    // A type that the answer does not fit, and answers that are no JSON, fail or break off.
    f.cluster.get_json::<Vec<u8>>(&to).await.unwrap_err();
    let gets = || Match::method("GET").path("/secrets/s");
    for fault in
        [Fault::CutBody(200), Fault::CutAfter, Fault::Status { code: 500, retry_after: None }]
    {
        let id = f.proxy.add(Rule::new(gets(), fault));
        let error = f.cluster.get_json::<Value>(&to).await.unwrap_err();
        assert!(!format!("{error:?}").contains(CONTENT));
        f.proxy.remove(id);
    }
    assert!(!f.proxy.leaks(CONTENT).is_empty(), "it did travel");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("/secrets/s"), "requests are logged at this level");
    assert!(!log.contains(CONTENT) && !log.contains("hunter2"));
    assert!(!log.contains(&f.token));
}

#[tokio::test]
async fn a_watch_that_is_cut_loses_nothing() {
    let f = Fixture::new().await;
    f.apply_map("a", json!({})).await;
    let mut events = f.watch();
    assert_eq!(next(&mut events).await, "restarted");
    assert_eq!(next(&mut events).await, "listed a");
    let mark = f.proxy.mark();
    // The watch opens with the next poll, so an event is waited for first.
    let (told, b) = tokio::join!(next(&mut events), f.apply_map("b", json!({})));
    assert_eq!(told, format!("changed b {}", b.resource_version));
    // While it cannot be opened again, something changes.
    let id = f.proxy.add(Rule::new(f.watches(), Fault::CutBefore));
    assert_eq!(f.proxy.cut_open(&f.watches()), 1);
    let c = f.apply_map("c", json!({})).await;
    let d = f.apply_map("d", json!({})).await;
    let watching = async {
        let first = next(&mut events).await;
        (first, next(&mut events).await)
    };
    let healing =
        async {
            let proxy = &f.proxy;
            plumb_testkit::wait_for("a try", LIMIT, || async move {
                (proxy.hits(id) > 0).then_some(())
            })
            .await;
            f.proxy.remove(id);
        };
    let (told, ()) = tokio::join!(watching, healing);
    assert_eq!(
        told,
        (format!("changed c {}", c.resource_version), format!("changed d {}", d.resource_version))
    );
    let lists = f.proxy.since(mark).into_iter().filter(|exchange| {
        exchange.request.method == "GET" && !exchange.request.query.contains("watch=true")
    });
    assert_eq!(lists.count(), 0, "a cut is no reason for a list");
}

#[tokio::test]
async fn a_watch_whose_version_expired_lists_again() {
    let f = Fixture::new().await;
    f.apply_map("a", json!({})).await;
    let id = f.proxy.add(Rule::new(f.watches(), Fault::Expired).times(1));
    let mut events = f.watch();
    assert_eq!(next(&mut events).await, "restarted");
    assert_eq!(next(&mut events).await, "listed a");
    assert_eq!(next(&mut events).await, "restarted");
    assert_eq!(next(&mut events).await, "listed a");
    assert_eq!(f.proxy.hits(id), 1);
    let (told, b) = tokio::join!(next(&mut events), f.apply_map("b", json!({})));
    assert_eq!(told, format!("changed b {}", b.resource_version));
}

#[tokio::test]
async fn a_watch_outlives_its_server() {
    let f = Fixture::new().await;
    f.apply_map("a", json!({})).await;
    let mut events = f.watch();
    assert_eq!(next(&mut events).await, "restarted");
    assert_eq!(next(&mut events).await, "listed a");
    f.proxy.stop().await;
    assert!(next(&mut events).await.starts_with("failed: cannot watch configmaps in "));
    assert_eq!(next(&mut events).await, "restarted");
    assert!(next(&mut events).await.starts_with("failed: cannot list configmaps in "));
    f.proxy.restart().await;
    f.apply_map("b", json!({})).await;
    loop {
        let told = next(&mut events).await;
        if told == "listed a b" {
            break;
        }
        assert!(told.starts_with("failed: "), "{told}");
    }
}
