//! Keeps up with all objects of a kind: one paged LIST, then a WATCH from where it ended, over and
//! over.
//!
//! Invariants: between a `Listed` and the next `Restarted` no change is lost, in whatever way
//! connections end; a list that failed is never told as an empty one; every `Failed` is followed
//! by a fresh list; the loop never spins.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::stream::{self, Stream};
use http_body_util::BodyExt as _;
use kube::client::Body;
use plumb_core::ObjectKey;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Cluster;
use super::decode::{self, Decode, Fingerprints, Line, Whole};
use super::error::{ApiError, Refusal};
use super::fields;
use super::request::{Answer, Call, Query, Subject};
use super::resource::Resource;
use crate::live::Live;

/// How long a watch is asked to last, at least; the server's own default is half an hour and more.
const WATCH_SECONDS: u64 = 270;
/// What jitter adds to it at most, so that not all watches end at once.
const WATCH_JITTER: u64 = 40;
/// How long after its end a watch may still be silent.
const GRACE: Duration = Duration::from_secs(15);
/// The API server sends bookmarks once a minute. After the first one, silence of more than two
/// means that the connection is dead and only our side does not know.
const SILENCE: Duration = Duration::from_secs(150);
/// A watch that ends sooner than this after its start was not served.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest line: an object is at most a few MB.
const LINE_LIMIT: usize = 16 << 20;
/// Failures in a row after which a watch that only lost its server is told as failed. They take
/// some five seconds, in which another server has usually taken over, and going on from where the
/// watch was is cheaper for a cluster in trouble than a list of everything.
const QUIET_FAILURES: u32 = 3;
/// The first wait after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(800);
/// The longest wait after a failure: what a cluster that comes back waits for its drift to be seen.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What a watch tells.
#[derive(Debug)]
pub enum WatchEvent<T = Live> {
    /// A fresh LIST begins; what it brings replaces everything.
    Restarted,
    /// The LIST is complete: these are all objects, but for the unreadable ones told just before.
    Listed(Vec<(ObjectKey, T)>),
    /// An object is new or changed, or is selected now.
    Changed(ObjectKey, T),
    /// An object is gone, or is no longer selected; this is its last state.
    Deleted(ObjectKey, T),
    /// An object is there but cannot be read: keep what was known of it.
    Unreadable(ObjectKey, ApiError),
    /// The LIST failed, or the WATCH did more than for a moment. It is tried again by itself, with
    /// back-off; until the next `Listed` nothing is known of what changes.
    Failed(ApiError),
}

/// Fingerprints of all objects of a kind that a label selector matches, in one namespace or in
/// all. The stream never ends.
pub fn watch(
    cluster: &Cluster,
    resource: &Resource,
    selector: &str,
    namespace: Option<&str>,
) -> impl Stream<Item = WatchEvent> + Send + use<> {
    run::<Fingerprints>(cluster, resource, selector, namespace)
}

/// Like [`watch`], with whole objects of a type of our own.
pub fn watch_typed<T: DeserializeOwned + Send + 'static>(
    cluster: &Cluster,
    resource: &Resource,
    selector: &str,
    namespace: Option<&str>,
) -> impl Stream<Item = WatchEvent<T>> + Send + use<T> {
    run::<Whole<T>>(cluster, resource, selector, namespace)
}

fn run<D: Decode + 'static>(
    cluster: &Cluster,
    resource: &Resource,
    selector: &str,
    namespace: Option<&str>,
) -> impl Stream<Item = WatchEvent<D::Item>> + Send + use<D> {
    let path = resource.path(namespace.unwrap_or_default(), "", "");
    let seed = cluster.shared.options.seed ^ fields::text(&path);
    let watcher = Watcher::<D> {
        cluster: cluster.clone(),
        resource: resource.clone(),
        selector: selector.into(),
        namespace: namespace.map(Into::into),
        phase: Phase::Start,
        pace: Pace::new(seed),
        ready: VecDeque::new(),
        kept: PhantomData,
    };
    stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await;
        Some((event, watcher))
    })
}

struct Watcher<D: Decode> {
    cluster: Cluster,
    resource: Resource,
    selector: String,
    namespace: Option<String>,
    phase: Phase,
    pace: Pace,
    ready: VecDeque<WatchEvent<D::Item>>,
    kept: PhantomData<fn() -> D>,
}

enum Phase {
    /// About to begin a list.
    Start,
    /// A list is due.
    List,
    /// A watch from this resource version is due.
    Open(String),
    /// A watch runs.
    Read(Box<Reading>),
}

struct Reading {
    /// What the watch has brought us to.
    version: String,
    lines: Lines,
    opened: Instant,
    /// How long the server was asked to serve it.
    lasts: Duration,
    heard: bool,
    bookmarks: bool,
}

impl<D: Decode + 'static> Watcher<D> {
    async fn next(&mut self) -> WatchEvent<D::Item> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            self.step().await;
        }
    }

    async fn step(&mut self) {
        if let Some(wait) = self.pace.take_wait() {
            tokio::time::sleep(wait).await;
        }
        match std::mem::replace(&mut self.phase, Phase::Start) {
            Phase::Start => {
                self.ready.push_back(WatchEvent::Restarted);
                self.phase = Phase::List;
            }
            Phase::List => self.list().await,
            Phase::Open(version) => self.open(version).await,
            Phase::Read(reading) => self.read(reading).await,
        }
    }

    async fn list(&mut self) {
        let listed = self
            .cluster
            .pages::<D>(&self.resource, &self.selector, self.namespace.as_deref())
            .await;
        match listed {
            Ok(page) => {
                for (key, what) in page.unreadable {
                    self.unreadable("list", key, what);
                }
                self.ready.push_back(WatchEvent::Listed(page.items));
                self.phase = Phase::Open(page.resource_version);
            }
            Err(error) => {
                self.pace.failed();
                self.ready.push_back(WatchEvent::Failed(error));
                self.phase = Phase::List;
            }
        }
    }

    async fn open(&mut self, version: String) {
        let seconds = WATCH_SECONDS + self.pace.random() % WATCH_JITTER;
        let mut query = Query::default()
            .with("watch", "true")
            .with("allowWatchBookmarks", "true")
            .with("resourceVersion", &version)
            .with("timeoutSeconds", &seconds.to_string());
        if !self.selector.is_empty() {
            query = query.with("labelSelector", &self.selector);
        }
        let call = self.call();
        let opened = Call { query, ..call }.open(&self.cluster).await;
        match opened {
            Ok(body) => {
                self.phase = Phase::Read(Box::new(Reading {
                    version,
                    lines: Lines::new(body),
                    opened: Instant::now(),
                    lasts: Duration::from_secs(seconds),
                    heard: false,
                    bookmarks: false,
                }));
            }
            Err(error) => self.fail(error, Some(version)),
        }
    }

    /// What errors of the watch are told with, and the request that it makes.
    fn call(&self) -> Call<'_> {
        let namespace = self.namespace.as_deref();
        let answer = if D::METADATA { Answer::Metadata } else { Answer::Whole };
        Call::get(
            "watch",
            Subject::Collection(&self.resource, namespace),
            self.resource.path(namespace.unwrap_or_default(), "", ""),
            answer,
        )
    }

    async fn read(&mut self, mut reading: Box<Reading>) {
        let silence = if reading.bookmarks { SILENCE } else { reading.lasts + GRACE };
        let line = match tokio::time::timeout(silence, reading.lines.next()).await {
            Ok(Ok(Some(line))) => line,
            // That a watch ends is its nature. Whether something is wrong shows when the next one
            // is opened, unless this one was hardly served.
            Ok(Ok(None) | Err(LineError::Cut(_))) if reading.opened.elapsed() >= SHORTEST => {
                self.pace.succeeded();
                self.phase = Phase::Open(reading.version);
                return;
            }
            Ok(Ok(None) | Err(LineError::Cut(_))) if reading.heard => {
                self.pace.breathe();
                self.phase = Phase::Open(reading.version);
                return;
            }
            Ok(Ok(None)) => {
                let error = self.call().transport("the watch ended as soon as it began");
                self.fail(error, Some(reading.version));
                return;
            }
            Ok(Err(LineError::Cut(error))) => {
                let error = self.call().transport(error);
                self.fail(error, Some(reading.version));
                return;
            }
            Ok(Err(LineError::TooLong)) => {
                let error = ApiError::TooLarge {
                    operation: "watch",
                    subject: self.call().subject.to_string(),
                    limit: LINE_LIMIT,
                };
                self.fail(error, None);
                return;
            }
            Err(_) => {
                let error = ApiError::Timeout {
                    operation: "watch",
                    subject: self.call().subject.to_string(),
                    after: silence,
                };
                self.fail(error, Some(reading.version));
                return;
            }
        };
        let (line, version) = match decode::line::<D>(&self.resource, &line) {
            Ok(decoded) => decoded,
            Err(what) => {
                let error = self.call().undecodable(what);
                self.fail(error, None);
                return;
            }
        };
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            reading.version = version;
        }
        match line {
            Line::Changed(key, item) => self.ready.push_back(WatchEvent::Changed(key, item)),
            Line::Deleted(key, item) => self.ready.push_back(WatchEvent::Deleted(key, item)),
            Line::Unreadable(key, what) => self.unreadable("watch", key, what),
            Line::Bookmark => reading.bookmarks = true,
            Line::Error(status) => {
                let call = self.call();
                let secret = call.subject.is_secret();
                let subject = call.subject.to_string();
                let status = serde_json::from_str(status.get()).unwrap_or_default();
                let refusal = Refusal::new("watch", subject, secret, None, status);
                self.fail(ApiError::Refused(Box::new(refusal)), None);
                return;
            }
        }
        reading.heard = true;
        self.pace.succeeded();
        self.phase = Phase::Read(reading);
    }

    fn unreadable(&mut self, operation: &'static str, key: ObjectKey, what: String) {
        let error = ApiError::Decode { operation, subject: key.to_string(), what };
        self.ready.push_back(WatchEvent::Unreadable(key, error));
    }

    /// Goes on after an error: with a watch from `version` where that can help, else with a list.
    fn fail(&mut self, error: ApiError, version: Option<String>) {
        if let Some(version) = version
            && keeps_version(&error)
            && self.pace.failures < QUIET_FAILURES
        {
            tracing::debug!(%error, "opening the watch again");
            self.pace.failed();
            self.phase = Phase::Open(version);
            return;
        }
        self.phase = Phase::Start;
        // Versions expire in the course of things, so the first time nobody is told and nothing is
        // waited for.
        if error.is_gone() && self.pace.expired() {
            return;
        }
        self.pace.failed();
        self.ready.push_back(WatchEvent::Failed(error));
    }
}

/// Whether a watch that failed with this can be opened again from where it was.
fn keeps_version(error: &ApiError) -> bool {
    match error {
        ApiError::Timeout { .. } | ApiError::Transport { .. } => true,
        ApiError::Refused(refusal) => matches!(refusal.code, 429 | 502..=504),
        _ => false,
    }
}

/// When to try again: doubling waits with jitter, forgotten when something was heard.
struct Pace {
    random: u64,
    failures: u32,
    expired: bool,
    wait: Option<Duration>,
}

impl Pace {
    fn new(seed: u64) -> Self {
        Self { random: seed, failures: 0, expired: false, wait: None }
    }

    /// SplitMix64: enough to keep watches from moving in step.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        fields::combine(&[self.random])
    }

    /// Between half and all of the due wait.
    fn failed(&mut self) {
        let full = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures += 1;
        let half = full / 2;
        // At most 30,000, which any integer holds.
        let millis = u64::try_from(half.as_millis()).unwrap_or_default();
        self.wait = Some(half + Duration::from_millis(self.random() % (millis + 1)));
    }

    /// Whether this is the first expiry since something was heard.
    fn expired(&mut self) -> bool {
        !std::mem::replace(&mut self.expired, true)
    }

    /// A pause that is not for a failure.
    fn breathe(&mut self) {
        self.wait = Some(FIRST_WAIT);
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.expired = false;
    }

    fn take_wait(&mut self) -> Option<Duration> {
        self.wait.take()
    }
}

enum LineError {
    Cut(kube::Error),
    TooLong,
}

/// The lines of a body.
struct Lines {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    seen: usize,
}

impl Lines {
    fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), seen: 0 }
    }

    /// The next whole line; `None` at the end. What is left of a line there is dropped: it was cut
    /// off, and the next watch brings it again.
    async fn next(&mut self) -> Result<Option<Bytes>, LineError> {
        loop {
            let unseen = &self.buffer[self.seen..];
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.seen + at).freeze();
                self.buffer.advance(1);
                self.seen = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.seen = self.buffer.len();
            if self.seen > LINE_LIMIT {
                return Err(LineError::TooLong);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(LineError::Cut(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures::StreamExt as _;
    use plumb_core::Gvk;
    use serde_json::json;

    use super::super::script::{Says, Script};
    use super::*;

    fn meta(name: &str, version: &str) -> serde_json::Value {
        json!({"metadata": {"name": name, "namespace": "web", "uid": name, "resourceVersion": version}})
    }

    fn list(names: &[&str], version: &str) -> Says {
        let items: Vec<_> = names.iter().map(|name| meta(name, "1")).collect();
        Says::ok(json!({"metadata": {"resourceVersion": version}, "items": items}).to_string())
    }

    fn event(kind: &str, object: &serde_json::Value) -> String {
        format!("{}\n", json!({"type": kind, "object": object}))
    }

    fn bookmark(version: &str) -> String {
        event("BOOKMARK", &json!({"metadata": {"resourceVersion": version}}))
    }

    fn error(code: u16) -> String {
        event(
            "ERROR",
            &json!({"kind": "Status", "code": code, "message": "told", "reason": "Expired"}),
        )
    }

    struct Told {
        script: Script,
        stream: Pin<Box<dyn Stream<Item = WatchEvent> + Send>>,
    }

    impl Told {
        fn new(answers: impl IntoIterator<Item = Says>) -> Self {
            let script = Script::new(answers);
            let resource = Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true);
            let stream = Box::pin(watch(&script.cluster(), &resource, "x", None));
            Self { script, stream }
        }

        /// The next events, each in one word.
        async fn next(&mut self, count: usize) -> Vec<String> {
            let mut told = Vec::new();
            for _ in 0..count {
                told.push(match self.stream.next().await.unwrap() {
                    WatchEvent::Restarted => "restarted".into(),
                    WatchEvent::Listed(items) => {
                        let names: Vec<_> = items.iter().map(|(key, _)| &*key.name).collect();
                        format!("listed {}", names.join(" "))
                    }
                    WatchEvent::Changed(key, live) => {
                        format!("changed {} {}", key.name, live.resource_version)
                    }
                    WatchEvent::Deleted(key, _) => format!("deleted {}", key.name),
                    WatchEvent::Unreadable(key, error) => format!("unreadable {key}: {error}"),
                    WatchEvent::Failed(error) => format!("failed: {error}"),
                });
            }
            told
        }

        /// From which resource versions it watched; `list` for lists.
        fn asked(&self) -> Vec<String> {
            let asked = self.script.asked();
            asked
                .iter()
                .map(|asked| match asked.parameter("watch") {
                    Some(_) => asked.parameter("resourceVersion").unwrap(),
                    None => "list".into(),
                })
                .collect()
        }

        fn seconds(&self) -> Vec<u64> {
            let asked = self.script.asked();
            asked.iter().map(|asked| asked.after.as_secs()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_then_its_changes() {
        let mut told = Told::new([
            list(&["a", "b"], "5"),
            Says::Stays(vec![
                event("ADDED", &meta("c", "6")) + &event("MODIFIED", &meta("a", "7")),
                "\n".into(),
                event("DELETED", &meta("b", "8")),
            ]),
        ]);
        assert_eq!(
            told.next(5).await,
            ["restarted", "listed a b", "changed c 6", "changed a 7", "deleted b"]
        );
        let asked = told.script.asked();
        let watch = &asked[1];
        assert_eq!(watch.parameter("allowWatchBookmarks").unwrap(), "true");
        assert_eq!(watch.parameter("labelSelector").unwrap(), "x");
        assert_eq!(watch.header("accept-encoding"), "identity");
        assert!(watch.header("accept").contains("as=PartialObjectMetadata;"));
        let seconds: u64 = watch.parameter("timeoutSeconds").unwrap().parse().unwrap();
        assert!((270..310).contains(&seconds), "{seconds}");
        assert_eq!(watch.parameter("timeout"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_cut_off_comes_again() {
        let line = event("MODIFIED", &meta("a", "7"));
        let (head, tail) = line.split_at(20);
        let mut told = Told::new([
            list(&["a"], "5"),
            // In the middle of a line, after a bookmark.
            Says::Breaks(vec![bookmark("6"), head.into()]),
            // Over two frames, then an end as servers make it.
            Says::Pieces(vec![head.into(), tail.into()]),
            Says::Stays(vec![event("ADDED", &meta("b", "9"))]),
        ]);
        assert_eq!(told.next(4).await, ["restarted", "listed a", "changed a 7", "changed b 9"]);
        assert_eq!(told.asked(), ["list", "5", "6", "7"]);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_versions_lead_to_a_list() {
        let mut told = Told::new([
            list(&["a"], "5"),
            Says::Stays(vec![event("MODIFIED", &meta("a", "6")), error(410)]),
            list(&["b"], "9"),
            Says::Status(410, None, String::new()),
            // Again and nothing heard in between: told, and waited for.
            list(&["c"], "10"),
            Says::Stays(vec![error(410)]),
            list(&["d"], "11"),
            Says::Stays(vec![bookmark("12"), event("ADDED", &meta("e", "13"))]),
        ]);
        assert_eq!(
            told.next(11).await,
            [
                "restarted",
                "listed a",
                "changed a 6",
                "restarted",
                "listed b",
                "failed: cannot watch configmaps: the server answered HTTP 410 Gone",
                "restarted",
                "listed c",
                "failed: cannot watch configmaps: told",
                "restarted",
                "listed d",
            ]
        );
        assert_eq!(told.next(1).await, ["changed e 13"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_tried_until_it_succeeds() {
        let down = || Says::Status(403, None, json!({"message": "no"}).to_string());
        let mut told = Told::new((0..9).map(|_| down()).chain([list(&["a"], "5")]));
        let events = told.next(11).await;
        assert_eq!(events[0], "restarted");
        assert!(events[1..10].iter().all(|event| event == "failed: cannot list configmaps: no"));
        assert_eq!(events[10], "listed a");
        // Doubling with jitter, up to half a minute.
        let seconds = told.seconds();
        let waits: Vec<u64> = seconds.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits[0] <= 1 && (15..=31).contains(&waits[8]), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_for_a_moment_is_not_worth_a_word() {
        let mut told = Told::new([
            list(&["a"], "5"),
            Says::Refuses,
            Says::Status(503, None, String::new()),
            Says::Pieces(vec![]),
            Says::Stays(vec![event("MODIFIED", &meta("a", "6"))]),
        ]);
        assert_eq!(told.next(3).await, ["restarted", "listed a", "changed a 6"]);
        assert_eq!(told.asked(), ["list", "5", "5", "5", "5"]);

        let mut told = Told::new([
            list(&["a"], "5"),
            Says::Refuses,
            Says::Refuses,
            Says::Refuses,
            Says::Refuses,
            list(&["b"], "9"),
        ]);
        assert_eq!(
            told.next(5).await,
            [
                "restarted",
                "listed a",
                "failed: cannot watch configmaps: the connection to the API server failed",
                "restarted",
                "listed b"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn silence_means_a_dead_connection() {
        let mut told = Told::new([
            list(&[], "5"),
            Says::Stays(vec![bookmark("6")]),
            Says::Stays(vec![]),
            Says::Stays(vec![event("ADDED", &meta("a", "7"))]),
        ]);
        assert_eq!(told.next(3).await, ["restarted", "listed ", "changed a 7"]);
        assert_eq!(told.asked(), ["list", "5", "6", "6"]);
        let seconds = told.seconds();
        // Sooner where bookmarks are known to come.
        assert!((150..155).contains(&(seconds[2] - seconds[1])), "{seconds:?}");
        assert!((285..330).contains(&(seconds[3] - seconds[2])), "{seconds:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nonsense_leads_to_a_list() {
        for line in ["hunter2\n".to_owned(), event("hunter2", &meta("a", "6"))] {
            let mut told = Told::new([list(&[], "5"), Says::Stays(vec![line]), list(&["a"], "6")]);
            let events = told.next(5).await;
            assert!(events[2].starts_with("failed: cannot watch configmaps: "), "{events:?}");
            assert!(!events[2].contains("hunter2"), "{events:?}");
            assert_eq!(events[3..], ["restarted", "listed a"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_object_is_told_beside_the_others() {
        #[derive(Debug, serde::Deserialize)]
        struct Thing {
            spec: u8,
        }
        let thing = |name: &str, spec: serde_json::Value| {
            let mut thing = meta(name, "6");
            thing["spec"] = spec;
            thing
        };
        let items = [thing("a", 1.into()), thing("b", "hunter2".into())];
        let script = Script::new([
            Says::ok(json!({"metadata": {"resourceVersion": "5"}, "items": items}).to_string()),
            Says::Stays(vec![
                event("MODIFIED", &thing("a", "hunter2".into())),
                event("MODIFIED", &thing("b", 2.into())),
            ]),
        ]);
        let resource = Resource::known(Gvk::new("example.com/v1", "Thing"), "things", true);
        let mut stream =
            std::pin::pin!(watch_typed::<Thing>(&script.cluster(), &resource, "", Some("web")));
        let mut told = Vec::new();
        for _ in 0..5 {
            told.push(match stream.next().await.unwrap() {
                WatchEvent::Restarted => "restarted".to_owned(),
                WatchEvent::Listed(items) => {
                    let items =
                        items.iter().map(|(key, thing)| format!("{} {}", key.name, thing.spec));
                    items.collect::<Vec<_>>().join(", ")
                }
                WatchEvent::Changed(key, thing) => format!("{} {}", key.name, thing.spec),
                WatchEvent::Unreadable(key, error) => {
                    assert!(!format!("{error} {error:?}").contains("hunter2"));
                    format!("unreadable {key}")
                }
                other => format!("{other:?}"),
            });
        }
        assert_eq!(
            told,
            [
                "restarted",
                "unreadable Thing.example.com web/b",
                "a 1",
                "unreadable Thing.example.com web/a",
                "b 2"
            ]
        );
        let asked = script.asked();
        assert!(asked.iter().all(|asked| asked.header("accept") == "application/json"));
        assert!(asked[0].uri.starts_with("/apis/example.com/v1/namespaces/web/things?"));
    }
}
