//! Keeps up with all objects of a kind: one paged LIST, then a WATCH from where it ended, over and
//! over. A kind that can be listed but not watched is listed over and over.
//!
//! Invariants: between a `Listed` and the next `Restarted` no change is lost, in whatever way
//! connections end; a list that failed is never told as an empty one; every `Failed` is followed
//! by a fresh list; the loop never spins.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::stream::{self, Stream};
use http_body_util::BodyExt as _;
use kube::client::Body;
use plumb_core::ObjectKey;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Cluster;
use super::decode::{self, Decode, Fingerprints, Line, Versions, Whole};
use super::error::{ApiError, Refusal};
use super::fields;
use super::request::{Answer, Call, Query, Selector, Subject};
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
/// The pause between two lists of a kind that cannot be watched: long enough to be no load, short
/// enough for somebody who waits for a change of theirs to be put back.
const POLL: Duration = Duration::from_secs(30);

/// What a watch tells.
#[derive(Debug)]
pub enum WatchEvent<T = Live> {
    /// A fresh LIST begins; what it brings replaces everything.
    Restarted,
    /// The LIST is complete: these are all objects, but for the unreadable ones told just before, at
    /// this resource version; 0 when it is not one that can be compared.
    Listed(Vec<(ObjectKey, T)>, u64),
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

impl<T> WatchEvent<T> {
    /// The same with something else of each object.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> WatchEvent<U> {
        match self {
            Self::Restarted => WatchEvent::Restarted,
            Self::Listed(objects, version) => {
                let objects = objects.into_iter().map(|(key, one)| (key, f(one)));
                WatchEvent::Listed(objects.collect(), version)
            }
            Self::Changed(key, one) => WatchEvent::Changed(key, f(one)),
            Self::Deleted(key, one) => WatchEvent::Deleted(key, f(one)),
            Self::Unreadable(key, error) => WatchEvent::Unreadable(key, error),
            Self::Failed(error) => WatchEvent::Failed(error),
        }
    }
}

/// Fingerprints of all objects of a kind that a label selector matches, in one namespace or in
/// all. The stream never ends.
pub fn watch(
    cluster: &Cluster,
    resource: &Resource,
    selector: &str,
    namespace: Option<&str>,
) -> impl Stream<Item = WatchEvent> + Send + use<> {
    watch_by(Fingerprints, cluster, resource, selector, namespace)
}

/// Like [`watch`], with nothing but the resource versions of all objects.
pub fn watch_versions(
    cluster: &Cluster,
    resource: &Resource,
    namespace: Option<&str>,
) -> impl Stream<Item = WatchEvent<u64>> + Send + use<> {
    watch_by(Versions, cluster, resource, "", namespace)
}

/// Like [`watch`], with whole objects of a type of our own.
pub fn watch_typed<T: DeserializeOwned + Send + 'static>(
    cluster: &Cluster,
    resource: &Resource,
    selector: &str,
    namespace: Option<&str>,
) -> impl Stream<Item = WatchEvent<T>> + Send + use<T> {
    watch_by(Whole::new(), cluster, resource, selector, namespace)
}

/// Like [`watch_typed`], of the one object that has a name.
pub fn watch_one<T: DeserializeOwned + Send + 'static>(
    cluster: &Cluster,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
) -> impl Stream<Item = WatchEvent<T>> + Send + use<T> {
    run(Whole::new(), cluster, resource, Selector::name(name), namespace)
}

/// Like [`watch_one`], with nothing but the object's resource version, by metadata alone.
pub fn watch_one_version(
    cluster: &Cluster,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
) -> impl Stream<Item = WatchEvent<u64>> + Send + use<> {
    run(Versions, cluster, resource, Selector::name(name), namespace)
}

/// Like [`watch`], with what a decoder keeps of each object.
pub(crate) fn watch_by<D: Decode + 'static>(
    decoder: D,
    cluster: &Cluster,
    resource: &Resource,
    selector: &str,
    namespace: Option<&str>,
) -> impl Stream<Item = WatchEvent<D::Item>> + Send + use<D> {
    run(decoder, cluster, resource, Selector::labels(selector), namespace)
}

fn run<D: Decode + 'static>(
    decoder: D,
    cluster: &Cluster,
    resource: &Resource,
    selector: Selector,
    namespace: Option<&str>,
) -> impl Stream<Item = WatchEvent<D::Item>> + Send + use<D> {
    let path = resource.path(namespace.unwrap_or_default(), "", "");
    let seed = cluster.shared.options.seed ^ fields::text(&path);
    let watcher = Watcher {
        decoder,
        cluster: cluster.clone(),
        resource: resource.clone(),
        selector,
        namespace: namespace.map(Into::into),
        phase: Phase::Start,
        pace: Pace::new(seed),
        polls: false,
        ready: VecDeque::new(),
    };
    stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await;
        Some((event, watcher))
    })
}

struct Watcher<D: Decode> {
    decoder: D,
    cluster: Cluster,
    resource: Resource,
    selector: Selector,
    namespace: Option<String>,
    phase: Phase,
    pace: Pace,
    /// That it may not watch was told.
    polls: bool,
    ready: VecDeque<WatchEvent<D::Item>>,
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
            .pages(
                &self.decoder,
                &self.resource,
                &self.selector,
                self.namespace.as_deref(),
                super::Freshness::Now,
            )
            .await;
        match listed {
            Ok(page) => {
                for (key, what) in page.unreadable {
                    self.unreadable("list", key, what);
                }
                let version = page.resource_version.parse().unwrap_or(0);
                self.ready.push_back(WatchEvent::Listed(page.items, version));
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
        if !self.resource.can("watch") {
            self.pace.poll();
            return;
        }
        let seconds = WATCH_SECONDS + self.pace.random() % WATCH_JITTER;
        let mut query = Query::default()
            .with("watch", "true")
            .with("allowWatchBookmarks", "true")
            .with("resourceVersion", &version)
            .with("timeoutSeconds", &seconds.to_string());
        query = self.selector.narrow(query);
        let call = self.call();
        let opened = Call { query, ..call }.open(&self.cluster).await;
        match opened {
            Ok(body) => {
                self.polls = false;
                self.phase = Phase::Read(Box::new(Reading {
                    version,
                    lines: Lines::new(body),
                    opened: Instant::now(),
                    lasts: Duration::from_secs(seconds),
                    heard: false,
                    bookmarks: false,
                }));
            }
            // What was listed holds; it is the right or the verb to watch that lacks, and may come.
            Err(error)
                if error.is_forbidden() || error.refusal().is_some_and(|r| r.code == 405) =>
            {
                if !std::mem::replace(&mut self.polls, true) {
                    tracing::warn!(%error, "listing again and again what cannot be watched");
                }
                self.pace.poll();
            }
            Err(error) => self.fail(error, Some(version)),
        }
    }

    /// What errors of the watch are told with, and the request that it makes.
    fn call(&self) -> Call<'_> {
        let namespace = self.namespace.as_deref();
        let answer = if self.decoder.wants_metadata() { Answer::Metadata } else { Answer::Whole };
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
        let (line, version) = match decode::line(&self.decoder, &self.resource, &line) {
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
        self.spread(full);
    }

    /// The pause until a list is due again because there is no watch.
    fn poll(&mut self) {
        self.succeeded();
        self.spread(POLL);
    }

    fn spread(&mut self, full: Duration) {
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
mod tests;
