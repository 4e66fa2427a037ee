//! What Prometheus sees: one registry, typed labels, OpenMetrics text.
//!
//! Everything that names an object is removed when the object is gone ([`Metrics::forget`]), so a
//! scrape never grows beyond what exists. No label holds text from a repository or an error.

mod process;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use crate::receiver::{Service, server::Outcome as HookOutcome};
use plumb_engine::Observer;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{
        MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge,
        histogram::Histogram, info::Info,
    },
    registry::{Metric, Registry, Unit},
};
use smol_str::SmolStr;

/// Seconds; from a run that finds nothing to do to one that waits for a slow API server.
const DURATION_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What this binary is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BuildInfo {
    /// Our version, as in `0.1.0`.
    pub version: String,
    /// The commit it was built from, empty when not known.
    pub revision: String,
}

/// What is reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A GitRepository.
    GitRepository,
    /// An Application.
    Application,
}

impl Kind {
    /// The kind as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitRepository => "GitRepository",
            Self::Application => "Application",
        }
    }

    fn labels(self) -> KindLabels {
        KindLabels { kind: self.as_str() }
    }
}

/// What an object's gauges show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectState {
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// Whether it is suspended.
    pub suspended: bool,
}

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The cluster was changed to what is wanted.
    Changed,
    /// Everything was as wanted.
    Unchanged,
    /// It waits: for a dependency, a health check, an approval, its next turn, or the end of a
    /// suspension.
    Waiting,
    /// It failed and is tried again by itself.
    Retry,
    /// It failed and needs a person.
    Stalled,
    /// It panicked.
    Panic,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Waiting => "waiting",
            Self::Retry => "retry",
            Self::Stalled => "stalled",
            Self::Panic => "panic",
        }
    }
}

/// How something that was asked of a Git server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitOutcome {
    /// It was answered.
    Ok,
    /// It was not.
    Failed,
    /// It was not, or not asked at all, since the server wants to be left alone.
    PutOff,
}

impl GitOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::PutOff => "put_off",
        }
    }
}

/// What a queue looks like at the moment of a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFigures {
    /// Keys that wait for a worker.
    pub waiting: usize,
    /// Workers that are busy.
    pub busy: usize,
}

/// What is known of the cluster at the moment of a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SightFigures {
    /// Live objects that carry the label of an Application.
    pub members: usize,
    /// Kinds whose objects cannot be read.
    pub unreadable_kinds: usize,
}

/// What the mirrors of Git repositories take at the moment of a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheFigures {
    /// How many there are.
    pub mirrors: usize,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes that they may take, if that is limited.
    pub limit: Option<u64>,
    /// Mirrors removed since the start because nobody named them.
    pub evicted: u64,
    /// Mirrors found damaged since the start, and made anew.
    pub rebuilt: u64,
}

/// One metric, for the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The name of its samples, but for the endings of a histogram's.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: &'static str,
    /// What it tells.
    pub help: &'static str,
}

/// All metrics of a process; clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// A label of a series that there is one of for each object: most take no room beside the series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Text(SmolStr);

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    kind: &'static str,
    namespace: Text,
    name: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApplicationLabels {
    namespace: Text,
    name: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    service: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

type CacheReader = Box<dyn Fn() -> CacheFigures + Send + Sync>;
type QueueReader = Box<dyn Fn() -> QueueFigures + Send + Sync>;
type HostsReader = Box<dyn Fn() -> usize + Send + Sync>;
type SightReader = Box<dyn Fn() -> SightFigures + Send + Sync>;

struct Inner {
    registry: Registry,
    descriptions: Vec<Description>,
    queues: Mutex<Vec<(Kind, QueueReader)>>,
    sight: Mutex<Option<SightReader>>,
    cache: Mutex<Option<CacheReader>>,
    hosts: Mutex<Option<HostsReader>>,
    reconciles: Family<RunLabels, Counter>,
    durations: Family<KindLabels, Histogram, fn() -> Histogram>,
    renders: Counter,
    panics: Family<KindLabels, Counter>,
    queue_length: Family<KindLabels, Gauge>,
    workers_busy: Family<KindLabels, Gauge>,
    ready: Family<ObjectLabels, Gauge>,
    suspended: Family<ObjectLabels, Gauge>,
    applied: Family<ApplicationLabels, Counter>,
    pruned: Family<ApplicationLabels, Counter>,
    drift: Family<ApplicationLabels, Counter>,
    members: Gauge,
    unreadable_kinds: Gauge,
    git_polls: Family<OutcomeLabels, Counter>,
    git_shared: Counter,
    git_hosts_waited_for: Gauge,
    git_fetches: Family<OutcomeLabels, Counter>,
    git_received: Counter,
    mirrors: Gauge,
    cache_bytes: Gauge,
    cache_limit: Gauge,
    mirrors_evicted: Counter,
    mirrors_rebuilt: Counter,
    hooks: Family<HookLabels, Counter>,
    api_requests: Family<RequestLabels, Counter>,
    events_sent: Counter,
    events_dropped: Family<ReasonLabels, Counter>,
    leader: Gauge,
    leader_epoch: Gauge,
}

/// Registers metrics and keeps what is told about them.
struct Registrar {
    registry: Registry,
    descriptions: Vec<Description>,
}

impl Registrar {
    fn add<M: Metric + TypedMetric + Clone>(
        &mut self,
        name: &'static str,
        help: &'static str,
        metric: M,
    ) -> M {
        self.describe::<M>(name.to_owned(), help);
        self.registry.register(name, help, metric.clone());
        metric
    }

    fn add_with_unit<M: Metric + TypedMetric + Clone>(
        &mut self,
        name: &'static str,
        unit: Unit,
        help: &'static str,
        metric: M,
    ) -> M {
        self.describe::<M>(format!("{name}_{}", unit.as_str()), help);
        self.registry.register_with_unit(name, help, unit, metric.clone());
        metric
    }

    fn describe<M: TypedMetric>(&mut self, name: String, help: &'static str) {
        self.descriptions.push(Description::new(name, M::TYPE, help));
    }
}

impl Description {
    fn new(name: impl Into<String>, kind: MetricType, help: &'static str) -> Self {
        let (ending, kind) = match kind {
            MetricType::Counter => ("_total", "counter"),
            MetricType::Gauge => ("", "gauge"),
            MetricType::Histogram => ("", "histogram"),
            MetricType::Info => ("_info", "info"),
            MetricType::Unknown => ("", "unknown"),
        };
        Self { name: name.into() + ending, kind, help }
    }
}

/// Every metric there is, in the order of a scrape.
pub fn describe() -> Vec<Description> {
    let metrics = Metrics::new(BuildInfo { version: String::new(), revision: String::new() });
    let mut descriptions = metrics.inner.descriptions.clone();
    descriptions.extend(process::describe());
    descriptions
}

impl Observer for Metrics {
    fn answered(&self, operation: &'static str, code: u16) {
        add(&self.inner.api_requests, &RequestLabels { verb: operation, code }, 1);
    }
}

impl Metrics {
    /// Registers everything, all at zero.
    pub fn new(build: BuildInfo) -> Self {
        let mut to = Registrar { registry: Registry::default(), descriptions: Vec::new() };
        to.describe::<Info<BuildInfo>>("plumb_build".into(), "What this binary is");
        to.registry.register("plumb_build", "What this binary is", Info::new(build));
        let durations: Family<KindLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
        let inner = Inner {
            queues: Mutex::default(),
            sight: Mutex::default(),
            cache: Mutex::default(),
            hosts: Mutex::default(),
            reconciles: to.add(
                "plumb_reconciles",
                "Reconciles by how they ended",
                Family::default(),
            ),
            durations: to.add_with_unit(
                "plumb_reconcile_duration",
                Unit::Seconds,
                "How long reconciles took",
                durations,
            ),
            panics: to.add(
                "plumb_panics",
                "Reconciles that panicked; each is a bug",
                Family::default(),
            ),
            renders: to.add(
                "plumb_renders",
                "Times that the path of an Application was rendered from a commit",
                Counter::default(),
            ),
            queue_length: to.add(
                "plumb_queue_length",
                "Objects that wait for a worker",
                Family::default(),
            ),
            workers_busy: to.add(
                "plumb_workers_busy",
                "Workers that are reconciling",
                Family::default(),
            ),
            ready: to.add(
                "plumb_ready",
                "1 for an object whose Ready condition is True, else 0",
                Family::default(),
            ),
            suspended: to.add(
                "plumb_suspended",
                "1 for an object that is suspended, else 0",
                Family::default(),
            ),
            applied: to.add(
                "plumb_objects_applied",
                "Objects created or changed by an Application",
                Family::default(),
            ),
            pruned: to.add(
                "plumb_objects_pruned",
                "Objects deleted by an Application",
                Family::default(),
            ),
            drift: to.add(
                "plumb_drift_corrected",
                "Foreign changes undone by an Application, counted by object",
                Family::default(),
            ),
            members: to.add(
                "plumb_members",
                "Live objects that carry the label of an Application",
                Gauge::default(),
            ),
            unreadable_kinds: to.add(
                "plumb_unreadable_kinds",
                "Kinds whose objects cannot be listed, so that drift of them is not seen",
                Gauge::default(),
            ),
            git_polls: to.add(
                "plumb_git_polls",
                "Ref listings asked of Git servers; put_off are those that a server asked to wait with",
                Family::default(),
            ),
            git_shared: to.add(
                "plumb_git_polls_shared",
                "Looks at GitRepositories that a ref listing answered which another look had asked for",
                Counter::default(),
            ),
            git_hosts_waited_for: to.add(
                "plumb_git_hosts_waited_for",
                "Git servers that do not answer, or asked to wait",
                Gauge::default(),
            ),
            git_fetches: to.add(
                "plumb_git_fetches",
                "Fetches asked of Git servers",
                Family::default(),
            ),
            git_received: to.add_with_unit(
                "plumb_git_received",
                Unit::Bytes,
                "Packs received from Git servers",
                Counter::default(),
            ),
            mirrors: to.add(
                "plumb_mirrors",
                "Mirrors of Git repositories in the cache",
                Gauge::default(),
            ),
            cache_bytes: to.add_with_unit(
                "plumb_cache",
                Unit::Bytes,
                "What the mirrors take on the disk",
                Gauge::default(),
            ),
            cache_limit: to.add_with_unit(
                "plumb_cache_limit",
                Unit::Bytes,
                "What the mirrors may take on the disk; 0 for as much as there is",
                Gauge::default(),
            ),
            mirrors_evicted: to.add(
                "plumb_mirrors_evicted",
                "Mirrors removed because nobody names them",
                Counter::default(),
            ),
            mirrors_rebuilt: to.add(
                "plumb_mirrors_rebuilt",
                "Mirrors that were found damaged and made anew",
                Counter::default(),
            ),
            hooks: to.add(
                "plumb_hooks",
                "Webhooks by service and by what became of them",
                Family::default(),
            ),
            api_requests: to.add(
                "plumb_api_requests",
                "Requests to the API server by verb and HTTP status; code 0 had no answer",
                Family::default(),
            ),
            events_sent: to.add(
                "plumb_events_sent",
                "Kubernetes Events written",
                Counter::default(),
            ),
            events_dropped: to.add(
                "plumb_events_dropped",
                "Kubernetes Events not written, by reason; repeats within the window are not counted",
                Family::default(),
            ),
            leader: to.add("plumb_leader", "1 while this process leads", Gauge::default()),
            leader_epoch: to.add(
                "plumb_leader_epoch",
                "The transitions of the Lease as this process last held it",
                Gauge::default(),
            ),
            registry: {
                to.registry.register_collector(Box::new(process::Process));
                to.registry
            },
            descriptions: to.descriptions,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The text of a scrape.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        {
            let queues = self.inner.queues.lock();
            for (kind, read) in queues.unwrap_or_else(PoisonError::into_inner).iter() {
                let (kind, figures) = (kind.labels(), read());
                set(&self.inner.queue_length, &kind, figures.waiting);
                set(&self.inner.workers_busy, &kind, figures.busy);
            }
            let sight = self.inner.sight.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(read) = &*sight {
                let figures = read();
                show(&self.inner.members, figures.members);
                show(&self.inner.unreadable_kinds, figures.unreadable_kinds);
            }
            let cache = self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(read) = &*cache {
                let figures = read();
                show(&self.inner.mirrors, figures.mirrors);
                show_bytes(&self.inner.cache_bytes, figures.bytes);
                show_bytes(&self.inner.cache_limit, figures.limit.unwrap_or(0));
                self.inner.mirrors_evicted.inner().store(figures.evicted, Ordering::Relaxed);
                self.inner.mirrors_rebuilt.inner().store(figures.rebuilt, Ordering::Relaxed);
            }
            let hosts = self.inner.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(read) = &*hosts {
                show(&self.inner.git_hosts_waited_for, read());
            }
        }
        let mut text = String::new();
        text::encode(&mut text, &self.inner.registry)?;
        Ok(text)
    }

    /// Has the queue for a kind read at every scrape.
    pub fn watch_queue(&self, kind: Kind, read: impl Fn() -> QueueFigures + Send + Sync + 'static) {
        let mut queues = self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.push((kind, Box::new(read)));
    }

    /// Has what is known of the cluster read at every scrape.
    pub fn watch_sight(&self, read: impl Fn() -> SightFigures + Send + Sync + 'static) {
        let mut sight = self.inner.sight.lock().unwrap_or_else(PoisonError::into_inner);
        *sight = Some(Box::new(read));
    }

    /// Has what mirrors take read at every scrape.
    pub fn watch_cache(&self, read: impl Fn() -> CacheFigures + Send + Sync + 'static) {
        let mut cache = self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner);
        *cache = Some(Box::new(read));
    }

    /// Has the number of Git servers that are waited for read at every scrape.
    pub fn watch_hosts(&self, read: impl Fn() -> usize + Send + Sync + 'static) {
        let mut hosts = self.inner.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        *hosts = Some(Box::new(read));
    }

    /// Counts one reconcile of a kind; a panic is also counted as such.
    pub fn reconciled(&self, kind: Kind, outcome: Outcome, took: Duration) {
        let labels = RunLabels { kind: kind.as_str(), outcome: outcome.as_str() };
        self.inner.reconciles.get_or_create(&labels).inc();
        let kind = kind.labels();
        self.inner.durations.get_or_create(&kind).observe(took.as_secs_f64());
        if outcome == Outcome::Panic {
            self.inner.panics.get_or_create(&kind).inc();
        }
    }

    /// Counts a panic in a part of a reconcile that went on.
    pub fn panicked(&self, kind: Kind) {
        self.inner.panics.get_or_create(&kind.labels()).inc();
    }

    /// Sets whether an object is ready and whether it is suspended.
    pub fn set_state(&self, kind: Kind, namespace: &str, name: &str, state: ObjectState) {
        let labels = object(kind, namespace, name);
        set(&self.inner.ready, &labels, usize::from(state.ready));
        set(&self.inner.suspended, &labels, usize::from(state.suspended));
    }

    /// Removes everything that names an object, which is gone.
    pub fn forget(&self, kind: Kind, namespace: &str, name: &str) {
        let labels = object(kind, namespace, name);
        self.inner.ready.remove(&labels);
        self.inner.suspended.remove(&labels);
        if kind == Kind::Application {
            let labels = application(namespace, name);
            for family in [&self.inner.applied, &self.inner.pruned, &self.inner.drift] {
                family.remove(&labels);
            }
        }
    }

    /// Counts objects that an Application created or changed.
    pub fn applied(&self, namespace: &str, name: &str, objects: u64) {
        add(&self.inner.applied, &application(namespace, name), objects);
    }

    /// Counts objects that an Application deleted.
    pub fn pruned(&self, namespace: &str, name: &str, objects: u64) {
        add(&self.inner.pruned, &application(namespace, name), objects);
    }

    /// Counts objects whose foreign changes an Application undid.
    pub fn drift_corrected(&self, namespace: &str, name: &str, objects: u64) {
        add(&self.inner.drift, &application(namespace, name), objects);
    }

    /// Counts a ref listing.
    pub fn git_polled(&self, outcome: GitOutcome) {
        let outcome = outcome.as_str();
        add(&self.inner.git_polls, &OutcomeLabels { outcome }, 1);
    }

    /// Counts a look that another one's listing answered.
    pub fn git_shared(&self) {
        self.inner.git_shared.inc();
    }

    /// Counts fetches that ended alike.
    pub fn git_fetched(&self, outcome: GitOutcome, times: u64) {
        let outcome = outcome.as_str();
        add(&self.inner.git_fetches, &OutcomeLabels { outcome }, times);
    }

    /// Counts bytes of packs that Git servers sent.
    pub fn git_received(&self, bytes: u64) {
        self.inner.git_received.inc_by(bytes);
    }

    /// Counts a webhook.
    pub fn hook(&self, service: Service, outcome: HookOutcome) {
        let (service, outcome) = (service.as_str(), outcome.as_str());
        add(&self.inner.hooks, &HookLabels { service, outcome }, 1);
    }

    /// Counts a render.
    pub fn rendered(&self) {
        self.inner.renders.inc();
    }

    /// Counts an Event that was written.
    pub fn event_sent(&self) {
        self.inner.events_sent.inc();
    }

    /// Counts an Event that was not, and why in one word.
    pub fn event_dropped(&self, reason: &'static str) {
        add(&self.inner.events_dropped, &ReasonLabels { reason }, 1);
    }

    /// Sets the epoch that this process leads in, `None` when it does not.
    pub fn set_leading(&self, epoch: Option<u64>) {
        self.inner.leader.set(i64::from(epoch.is_some()));
        if let Some(epoch) = epoch {
            let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
            self.inner.leader_epoch.set(epoch);
        }
    }
}

fn object(kind: Kind, namespace: &str, name: &str) -> ObjectLabels {
    ObjectLabels { kind: kind.as_str(), namespace: Text(namespace.into()), name: Text(name.into()) }
}

fn application(namespace: &str, name: &str) -> ApplicationLabels {
    ApplicationLabels { namespace: Text(namespace.into()), name: Text(name.into()) }
}

fn add<L: Clone + std::hash::Hash + Eq>(family: &Family<L, Counter>, labels: &L, count: u64) {
    family.get_or_create(labels).inc_by(count);
}

fn set<L: Clone + std::hash::Hash + Eq>(family: &Family<L, Gauge>, labels: &L, value: usize) {
    show(&family.get_or_create(labels), value);
}

fn show(gauge: &Gauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn show_bytes(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests;
