//! The daemon before an API server that answers as a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::client::Body;
use plumb_api::{Application, GitRepository};
use plumb_core::Inputs;
use plumb_engine::{Cluster, ClusterOptions};
use plumb_source::{Cancel, Credentials, Limits, Mirrors, Remote, Revision, Tls};
use serde_json::{Value, json};

use super::*;
use crate::apps::how::How;
use crate::state::Rendered;

/// What a method on a path is answered, if not as usual.
type Answer = dyn Fn(&str, &str) -> Option<StatusCode> + Send + Sync;

/// An API server: what it was asked to write, and how it answers.
#[derive(Clone)]
pub(crate) struct Api {
    written: Arc<Mutex<Vec<Value>>>,
    secrets: Arc<Mutex<BTreeMap<String, Value>>>,
    answer: Arc<Answer>,
}

impl Api {
    /// It takes everything that is written, and has nothing else but the Secrets that it is given.
    pub(crate) fn new() -> Self {
        Self::with(|_, _| None)
    }

    /// It answers requests by method and path with a status, when `answer` gives one.
    fn with(answer: impl Fn(&str, &str) -> Option<StatusCode> + Send + Sync + 'static) -> Self {
        Self { written: Arc::default(), secrets: Arc::default(), answer: Arc::new(answer) }
    }

    fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let (code, answer) = api.take(parts.method.as_str(), parts.uri.path(), &body);
                let answer = Body::from(answer.to_string().into_bytes());
                Ok::<_, tower::BoxError>(Response::builder().status(code).body(answer)?)
            }
        });
        kube::Client::new(service, "default")
    }

    fn take(&self, method: &str, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let secret = self.secrets.lock().unwrap().get(path).cloned();
        if let ("GET", Some(secret)) = (method, secret) {
            return (StatusCode::OK, secret);
        }
        let code = (self.answer)(method, path).unwrap_or(match method {
            "GET" => StatusCode::NOT_FOUND,
            _ => StatusCode::OK,
        });
        if code != StatusCode::OK {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
                "message": "as the test wants it", "reason": "Unknown",
            });
            return (code, status);
        }
        let written: Value = serde_json::from_slice(body).unwrap();
        self.written.lock().unwrap().push(written.clone());
        let mut metadata = written["metadata"].clone();
        metadata["resourceVersion"] = json!("7");
        let answer = json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata,
        });
        (code, answer)
    }

    /// The Secret of this name holds these texts from now on, or is gone.
    pub(crate) fn put_secret(&self, name: &str, version: u64, data: Option<&[(String, String)]>) {
        use base64::Engine as _;
        let encode = |text: &String| base64::engine::general_purpose::STANDARD.encode(text);
        let path = format!("/api/v1/namespaces/ns/secrets/{name}");
        let mut secrets = self.secrets.lock().unwrap();
        let Some(data) = data else {
            secrets.remove(&path);
            return;
        };
        let data: BTreeMap<_, _> = data.iter().map(|(key, text)| (key, encode(text))).collect();
        let metadata = json!({"name": name, "resourceVersion": version.to_string()});
        secrets.insert(path, json!({"metadata": metadata, "data": data}));
    }

    /// The statuses that were written.
    pub(crate) fn statuses(&self) -> Vec<Value> {
        let written = self.written.lock().unwrap();
        written.iter().map(|object| object["status"].clone()).collect()
    }

    /// The Ready conditions that were written to statuses.
    fn said(&self) -> Vec<(String, String)> {
        let written = self.written.lock().unwrap();
        let ready = written.iter().filter_map(|object| {
            let conditions = object["status"]["conditions"].as_array()?;
            conditions.iter().find(|condition| condition["type"] == "Ready")
        });
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        ready.map(|ready| (text(&ready["reason"]), text(&ready["message"]))).collect()
    }
}

pub(crate) struct Stand {
    pub(crate) api: Api,
    pub(crate) daemon: Arc<Daemon>,
    dir: tempfile::TempDir,
}

fn settings(dir: &tempfile::TempDir) -> Settings {
    Settings {
        cache_dir: dir.path().into(),
        cache_limit: None,
        metrics_addr: None,
        concurrent: 1,
        namespaces: BTreeSet::new(),
        lease_duration: Duration::from_secs(15),
        default_service_account: None,
        impersonate_only: false,
        no_cross_namespace_refs: false,
        audit_interval: Duration::ZERO,
        survey_interval: Duration::ZERO,
        receiver: None,
        namespace: "plumb".into(),
        identity: "one".into(),
        build: String::new(),
        seed: 1,
    }
}

impl Stand {
    pub(crate) fn new(api: Api) -> Self {
        Self::with(api, Limits::default())
    }

    /// With limits of what a repository may cost.
    pub(crate) fn with(api: Api, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::open(dir.path(), limits).unwrap();
        let options = ClusterOptions {
            request_timeout: Duration::from_secs(5),
            user_agent: None,
            gate: None,
            observer: None,
            seed: 1,
        };
        let cluster = Cluster::new(api.client(), options);
        let (leadership, metrics) = (
            Leadership::default(),
            Metrics::new(BuildInfo { version: String::new(), revision: String::new() }),
        );
        let (daemon, ..) = Daemon::new(&cluster, mirrors, &leadership, &metrics, settings(&dir));
        Self { api, daemon, dir }
    }

    /// A GitRepository that nobody answers for, ready once at a revision or never.
    pub(crate) fn source(&self, name: &str, url: &str, revision: Option<&str>) -> Name {
        let object: GitRepository = serde_json::from_value(json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1},
            "spec": {"url": url, "interval": "1m"},
            "status": {"conditions": [], "revision": revision},
        }))
        .unwrap();
        self.daemon.state.lock().put_source(object);
        Name::new("ns", name)
    }

    pub(crate) fn app(&self, name: &str) -> Name {
        let object: Application = serde_json::from_value(json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1},
            "spec": {"sourceRef": {"name": "repo"}, "interval": "1h"},
        }))
        .unwrap();
        self.daemon.state.lock().put_app(object);
        Name::new("ns", name)
    }

    pub(crate) fn stop(&self) {
        self.daemon.stopping.store(true, Ordering::Relaxed);
    }

    fn metric(&self, line: &str) -> bool {
        self.daemon.metrics.encode().unwrap().lines().any(|found| found == line)
    }
}

/// A repository that nobody answers for: port 1 is nobody's.
const NOBODY: &str = "http://127.0.0.1:1/repo.git";

fn anonymous(url: &str) -> Remote {
    Remote {
        url: url.into(),
        credentials: Credentials::Anonymous,
        tls: Tls::default(),
        proxy: None,
        timeout: Duration::from_secs(1),
        submodules: false,
    }
}

#[tokio::test]
async fn a_panic_is_told_in_the_status_in_our_words() {
    let stand = Stand::new(Api::new());
    let (source, app) = (stand.source("repo", NOBODY, None), stand.app("web"));
    Arc::clone(&stand.daemon).panicked(Key::Source(source)).await;
    Arc::clone(&stand.daemon).panicked(Key::App(app)).await;
    let told = ("InternalError".to_owned(), PANICKED.to_owned());
    assert_eq!(stand.api.said(), [told.clone(), told]);
}

#[tokio::test]
async fn a_panic_of_blocking_work_is_counted_and_keeps_its_words_for_itself() {
    let stand = Stand::new(Api::new());
    let secret = "hunter2".to_owned();
    let work = move |_: &Cancel| assert_eq!(secret, "another", "quotes {secret}");
    let result = stand.daemon.blocking(Kind::Application, work).await;
    assert_eq!(result, Err(Panicked));
    assert!(stand.metric("plumb_panics_total{kind=\"Application\"} 1"));
}

#[tokio::test]
async fn a_look_that_the_loss_of_the_lease_cuts_short_says_nothing() {
    let stand = Stand::new(Api::new());
    // Takes the connection and answers nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/repo.git", silent.local_addr().unwrap());
    let name = stand.source("repo", &url, None);
    let daemon = Arc::clone(&stand.daemon);
    let look = tokio::spawn(async move { daemon.run_source(&name).await });
    let (connection, _) =
        tokio::task::spawn_blocking(move || silent.accept()).await.unwrap().unwrap();
    stand.daemon.cancel_blocking();
    assert_eq!(look.await.unwrap(), Outcome::Retry);
    drop(connection);
    assert_eq!(stand.api.said(), []);
    let store = stand.daemon.state.lock();
    assert_eq!(store.sources.values().next().unwrap().problem, None);
}

#[tokio::test]
async fn a_run_that_is_cut_off_ends_its_blocking_work() {
    let stand = Stand::new(Api::new());
    let (begun, seen) = std::sync::mpsc::channel();
    let daemon = Arc::clone(&stand.daemon);
    let run = tokio::spawn(async move {
        let work = move |cancel: &Cancel| {
            begun.send(()).unwrap();
            while !cancel.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        daemon.blocking(Kind::Application, work).await
    });
    tokio::task::spawn_blocking(move || seen.recv()).await.unwrap().unwrap();
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    // The runtime waits for its blocking threads at its end: without a cancel this hangs.
}

/// With whatever credentials it was read: its Secret may not be there just now.
#[tokio::test]
async fn what_was_not_read_yet_keeps_the_mirrors_of_its_url_and_no_others() {
    let stand = Stand::new(Api::new());
    let mirrors = stand.dir.path().join("mirrors");
    let mirror = |url: &str, password: &str| {
        let credentials = Credentials::Basic { username: "me".into(), password: password.into() };
        let remote = Remote { credentials, ..anonymous(url) };
        let count = || std::fs::read_dir(&mirrors).unwrap().count();
        let before = count();
        // It fails after the mirror was made.
        let commit = "1".repeat(40).parse().unwrap();
        stand.daemon.mirrors.fetch_commit(&remote, &commit, &Cancel::new()).unwrap_err();
        assert_eq!(count(), before + 1);
    };
    mirror(NOBODY, "old");
    mirror(NOBODY, "new");
    mirror("http://127.0.0.1:1/another.git", "old");
    let here = async || {
        stand.daemon.forget_mirrors().await;
        std::fs::read_dir(&mirrors).unwrap().count()
    };
    stand.source("repo", NOBODY, Some("main@sha1:1111111111111111111111111111111111111111"));
    assert_eq!(here().await, 2);
    assert!(stand.daemon.untidy.load(Ordering::Relaxed), "it is to be asked again");
    stand.daemon.state.lock().remove_source(&Name::new("ns", "repo"));
    assert_eq!(here().await, 0);
    assert!(!stand.daemon.untidy.load(Ordering::Relaxed));
}

#[tokio::test]
async fn the_last_application_of_a_former_mirror_takes_it_along() {
    let stand = Stand::new(Api::new());
    let name = stand.app("web");
    let old = stand.dir.path().join("mirrors").join("0".repeat(64));
    std::fs::create_dir_all(&old).unwrap();
    let remote = anonymous(NOBODY);
    let revision = Revision { name: "main".into(), commit: "1".repeat(40).parse().unwrap() };
    let spec = stand.daemon.state.lock().apps[&name].object.spec.clone();
    let rendered = Rendered {
        remote: Arc::new(remote),
        revision,
        how: How::new(&spec, None, crate::apps::values::Given::default()),
        inputs: Arc::new(Inputs::default()),
        settled: true,
        kept: Box::default(),
        left_alone: Box::default(),
        broken: false,
        refused: false,
    };
    stand.daemon.state.lock().apps.get_mut(&name).unwrap().rendered = Some(Arc::new(rendered));
    stand.daemon.drop_app(&name);
    let end = Instant::now() + Duration::from_secs(30);
    while old.exists() {
        assert!(Instant::now() < end, "the mirror stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_ends_by_itself_ends_the_process() {
    let api = Api::with(|method, path| {
        assert!(!path.ends_with("/applications"), "as the test wants it: {method} {path}");
        Some(StatusCode::NOT_FOUND)
    });
    let dir = tempfile::tempdir().unwrap();
    let ended = run(api.client(), settings(&dir), std::future::pending()).await.unwrap_err();
    assert!(matches!(ended, ControllerError::Ended { what: "watching custom resources" }));
    assert_eq!(ended.class(), plumb_core::ErrorClass::Bug);
}

#[test]
fn a_lease_that_counts_anew_does_not_fall_behind_earlier_leaders() {
    for (lease, marks, acting) in [
        (1, vec![], 1),
        (5, vec![3, 4], 5),
        (5, vec![5, 2], 5),
        (1, vec![7, 3], 8),
        (2, vec![u64::MAX, 4, u64::MAX - 1], 5),
    ] {
        assert_eq!(acting_epoch(lease, marks.iter().copied()), acting, "{lease} {marks:?}");
    }
}

/// What is remembered of an earlier term is used again only when nobody can have led in between.
#[tokio::test]
async fn a_lease_that_was_deleted_makes_what_was_remembered_stale() {
    for (lease, last, kept) in [
        (5, Some(5), true),
        (6, Some(5), true),
        (7, Some(5), false),
        (2, Some(5), false),
        (1, None, false),
    ] {
        let stand = Stand::new(Api::new());
        let name = stand.source("repo", NOBODY, None);
        stand.daemon.state.lock().sources.get_mut(&name).unwrap().problem = Some("known".into());
        stand.daemon.take_over(lease, last);
        let known = stand.daemon.state.lock().sources[&name].problem.is_some();
        assert_eq!(known, kept, "{lease} after {last:?}");
    }
}

#[tokio::test]
async fn that_a_suspended_application_was_looked_at_is_said_once() {
    let stand = Stand::new(Api::new());
    let name = stand.app("web");
    let status = json!({
        "observedGeneration": 1,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Succeeded", "message": "applied",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    {
        let mut store = stand.daemon.state.lock();
        let mut object = (*store.apps[&name].object).clone();
        object.spec.suspend = true;
        object.metadata.generation = Some(2);
        object.status = serde_json::from_value(status.clone()).unwrap();
        store.put_app(object);
    }
    for _ in 0..2 {
        assert_eq!(Box::pin(stand.daemon.run_app(&name)).await, Outcome::Waiting);
    }
    let written = stand.api.written.lock().unwrap();
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(written[0]["status"]["observedGeneration"], 2);
    assert_eq!(written[0]["status"]["conditions"], status["conditions"]);
}

/// What an Application asks stands until it is gone, and no longer, also when its last run panicked.
#[tokio::test]
async fn what_an_application_asks_is_forgotten_once_it_is_gone() {
    for (is_there, panics) in [(true, false), (true, true), (false, false), (false, true)] {
        let stand = Stand::new(Api::new());
        let (name, daemon) = (stand.app("web"), &stand.daemon);
        let set = Arc::clone(&daemon.state.lock().apps[&name].set);
        let asks = plumb_engine::Asks { all: true, ..plumb_engine::Asks::default() };
        daemon.engine.attend(&set, Some(asks), &BTreeSet::new());
        if !is_there {
            daemon.state.lock().remove_app(&name);
        }
        let (daemon, key) = (Arc::clone(daemon), Key::App(name));
        if panics {
            daemon.panicked(key).await;
        } else {
            daemon.work(key).await;
        }
        let asks = stand.daemon.engine.wellbeing(&set).is_some();
        assert_eq!(asks, is_there, "it panicked: {panics}");
    }
}

#[tokio::test]
async fn who_is_called_for_a_look_and_takes_none_leaves_the_room_to_the_next() {
    let stand = Stand::new(Api::new());
    let (name, next) = (stand.app("web"), stand.app("next"));
    let daemon = Arc::clone(&stand.daemon);
    let wanting = {
        let mut store = daemon.state.lock();
        store.unexplained.extend([next.clone()]);
        store.wanted_objects.subscribe()
    };
    daemon.work(Key::App(name)).await;
    assert!(wanting.has_changed().unwrap());
    assert_eq!(stand.daemon.state.lock().next_unexplained(), [next]);
}
