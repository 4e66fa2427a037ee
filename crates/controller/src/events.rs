//! Kubernetes Events about our objects, for `kubectl describe` and whatever collects them.
//!
//! [`Events::publish`] never waits and never fails: what cannot be sent is dropped and counted.
//! [`Filter`] is the decision what is worth sending, pure; [`run`] sends it.
//!
//! Invariant: an Event is a convenience. No run waits for one, and none is needed for a decision.

mod filter;

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use plumb_core::{ErrorClass, Gvk};
use plumb_engine::{ApiError, Cluster, Resource};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::debug;

pub use filter::{Filter, Verdict};

use crate::metrics::Metrics;

/// The annotation that says which revision an Event is about.
pub const REVISION: &str = "plumb.dev/revision";

/// What we call ourselves in an Event.
const CONTROLLER: &str = "plumb.dev/controller";

/// The API server refuses a longer note.
const LONGEST_NOTE: usize = 1024;
/// The API server refuses a longer reason, action or reporting instance.
const LONGEST_WORD: usize = 128;
/// The API server refuses a longer name.
const LONGEST_NAME: usize = 253;

/// Events that wait to be sent. A first sync of a thousand Applications fits; as the text that is sent
/// each takes less than a kilobyte, so that they stay a small part of our memory.
const QUEUE: usize = 2048;

/// The pauses between the tries of one Event, while the API server is away for a moment.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(15)];

/// How long a namespace in which all tries failed gets no Events: those of others must not wait for
/// it, and a webhook that hangs takes its time for each.
const SHUNNED: Duration = Duration::from_mins(1);

/// Events in a second, when there are many: a small part of what an API server takes.
const PER_SECOND: u32 = 50;

/// Whether an Event is good news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Something was done.
    Normal,
    /// Something went wrong.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The object that an Event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// As in `plumb.dev/v1alpha1`.
    pub api_version: String,
    /// As in `Application`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub regarding: Regarding,
    /// Whether it is good news.
    pub severity: Severity,
    /// The reason of a condition, in one word.
    pub reason: String,
    /// What was being done, in one word: `Fetch`, `Apply`, `Prune`...
    pub action: String,
    /// What happened, in a sentence; cut to 1,024 bytes.
    pub note: String,
    /// The revision it happened with.
    pub revision: Option<String>,
}

impl Event {
    /// The object to create. `nanoseconds` since the epoch make its name, and must differ between
    /// the Events of one object; `count` says how often it happened.
    pub fn object(&self, instance: &str, nanoseconds: i128, count: u32) -> Value {
        let wall = Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::MIN);
        let time = wall.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let of = &self.regarding;
        let ending = format!(".{nanoseconds:x}");
        let name = cut(&of.name, LONGEST_NAME - ending.len(), "");
        let name = name.trim_end_matches(['.', '-']);
        let mut object = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": format!("{name}{ending}"), "namespace": of.namespace},
            "eventTime": time,
            "type": self.severity.as_str(),
            "reason": cut(&self.reason, LONGEST_WORD, ""),
            "action": cut(&self.action, LONGEST_WORD, ""),
            "note": cut(&self.note, LONGEST_NOTE, "…"),
            "regarding": {
                "apiVersion": of.api_version,
                "kind": of.kind,
                "namespace": of.namespace,
                "name": of.name,
                "uid": of.uid,
            },
            "reportingController": CONTROLLER,
            "reportingInstance": cut(instance, LONGEST_WORD, ""),
        });
        if let Some(revision) = &self.revision {
            object["metadata"]["annotations"] = json!({REVISION: revision});
        }
        if count > 1 {
            object["series"] = json!({"count": count, "lastObservedTime": time});
        }
        object
    }
}

/// The start of a text that fits into that many bytes, with `mark` in place of what is missing.
fn cut(text: &str, most: usize, mark: &str) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most - mark.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{mark}", &text[..end])
}

/// Where Events go.
pub trait EventSink: Sync {
    /// Creates an Event in its namespace.
    fn create(&self, event: &Value) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// Events of a cluster. Creating one is a write: it passes the cluster's gate.
#[derive(Debug)]
pub struct ClusterEvents {
    cluster: Cluster,
    resource: Resource,
}

impl ClusterEvents {
    /// The Events of a cluster.
    pub fn new(cluster: &Cluster) -> Self {
        let gvk = Gvk::new("events.k8s.io/v1", "Event");
        Self { cluster: cluster.clone(), resource: Resource::known(gvk, "events", true) }
    }
}

impl EventSink for ClusterEvents {
    async fn create(&self, event: &Value) -> Result<(), ApiError> {
        let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
        let created = self.cluster.create(&self.resource, namespace, event);
        created.await.map(|_| ())
    }
}

/// An Event's object while it waits: as a tree it would take five times as much.
#[derive(Debug)]
struct Sealed(Box<str>);

impl Sealed {
    fn of(object: &Value) -> Self {
        Self(object.to_string().into())
    }

    fn open(&self) -> Value {
        // It was written from one.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

/// The end that the rest of the controller holds; clones share one queue.
#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<Sealed>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    instance: String,
    metrics: Metrics,
    filter: Mutex<Filter>,
    /// The time in the name of the last Event, so that no two have the same.
    last: Mutex<i128>,
}

/// The end that [`run`] sends from.
#[derive(Debug)]
pub struct Outbox {
    queue: mpsc::Receiver<Sealed>,
    metrics: Metrics,
}

impl Events {
    /// A queue and its two ends. `instance` is our pod's name.
    pub fn new(instance: &str, metrics: &Metrics) -> (Self, Outbox) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let events = Self {
            queue: sender,
            shared: Arc::new(Shared {
                instance: instance.to_owned(),
                metrics: metrics.clone(),
                filter: Mutex::default(),
                last: Mutex::new(0),
            }),
        };
        let outbox = Outbox { queue: receiver, metrics: metrics.clone() };
        (events, outbox)
    }

    /// Has an Event sent, unless it was sent just now or there are too many of its object.
    pub fn publish(&self, event: &Event) {
        let shared = &self.shared;
        let verdict =
            shared.filter.lock().unwrap_or_else(PoisonError::into_inner).judge(event, now());
        let count = match verdict {
            Verdict::Send { count } => count,
            Verdict::Repeated => return,
            Verdict::TooMany => return shared.metrics.event_dropped("rate-limited"),
        };
        let nanoseconds = {
            let mut last = shared.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Timestamp::now().as_nanosecond().max(*last + 1);
            *last
        };
        let object = event.object(&shared.instance, nanoseconds, count);
        match self.queue.try_send(Sealed::of(&object)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => shared.metrics.event_dropped("queue-full"),
            Err(mpsc::error::TrySendError::Closed(_)) => shared.metrics.event_dropped("stopped"),
        }
    }

    /// Forgets what was published about an object, which is gone.
    pub fn forget(&self, uid: &str) {
        let filter = self.shared.filter.lock();
        filter.unwrap_or_else(PoisonError::into_inner).forget(uid);
    }
}

/// Sends what is published until `stop` ends, then what still waits, for `flush` at most.
pub async fn run(
    mut outbox: Outbox,
    sink: &impl EventSink,
    stop: impl Future<Output = ()>,
    flush: Duration,
) {
    let Outbox { queue, metrics } = &mut outbox;
    let mut stop = pin!(stop);
    let mut unsent = None;
    let mut losses = Losses::default();
    loop {
        let step = async {
            unsent = queue.recv().await;
            let Some(event) = &unsent else {
                return false;
            };
            deliver(sink, &event.open(), metrics, &PAUSES, &mut losses).await;
            unsent = None;
            // Paced, not dropped: the queue takes the peaks.
            tokio::time::sleep(Duration::from_secs(1) / PER_SECOND).await;
            true
        };
        tokio::select! {
            biased;
            () = &mut stop => break,
            more = step => if !more {
                return;
            },
        }
    }
    queue.close();
    let rest = async {
        // What is on its way stays in `unsent`, to be counted if it does not arrive.
        loop {
            if unsent.is_none() {
                unsent = queue.recv().await;
            }
            let Some(event) = &unsent else {
                return;
            };
            deliver(sink, &event.open(), metrics, &[], &mut losses).await;
            unsent = None;
        }
    };
    if tokio::time::timeout(flush, rest).await.is_err() {
        let left = usize::from(unsent.is_some()) + queue.len();
        for _ in 0..left {
            metrics.event_dropped("stopped");
        }
    }
}

/// Where Events did not get through, so that no other waits for the same.
#[derive(Default)]
struct Losses {
    /// Namespaces in which all tries of an Event failed, and until when they get none.
    shunned: HashMap<String, Instant>,
    /// This process did not lead through all tries of an Event, so it is not that a renewal was late.
    closed: bool,
}

/// Sends one Event, again after each of the pauses if that can help.
async fn deliver(
    sink: &impl EventSink,
    event: &Value,
    metrics: &Metrics,
    pauses: &[Duration],
    losses: &mut Losses,
) {
    let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
    if losses.shunned.get(namespace).is_some_and(|end| now() < *end) {
        return metrics.event_dropped("unreachable");
    }
    let mut pauses = pauses.iter();
    loop {
        let error = match sink.create(event).await {
            Ok(()) => break,
            // An earlier try got through although its answer did not.
            Err(error) if error.is_already_exists() => break,
            Err(error) => error,
        };
        let closed = matches!(error, ApiError::NotLeading { .. });
        let again = error.class() == ErrorClass::Retry && !error.is_terminating_namespace();
        if let Some(pause) = pauses.next().filter(|_| again && !(closed && losses.closed)) {
            tokio::time::sleep(*pause).await;
            continue;
        }
        debug!(%error, "an event is dropped");
        if closed {
            losses.closed = true;
            return metrics.event_dropped("not-leading");
        }
        if again {
            losses.shunned.insert(namespace.to_owned(), now() + SHUNNED);
            return metrics.event_dropped("unreachable");
        }
        return metrics.event_dropped("refused");
    }
    losses.closed = false;
    losses.shunned.remove(namespace);
    metrics.event_sent();
}

/// Tokio's clock, which is the system's monotonic one outside of tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
