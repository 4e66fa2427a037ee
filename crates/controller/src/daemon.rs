//! The daemon: watches our own kinds, hands work to bounded workers while this process leads, and
//! stops in good order.

mod blocking;
mod follow;
mod house;
mod named;
mod objects;
mod receiver;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plumb_api::names;
use plumb_core::{GroupKind, Gvk};
use plumb_engine::{
    ApiError, ApplyHow, ApplySet, Cluster, ClusterOptions, Engine, EngineOptions, Resource, Signal,
    Target, is_later,
};
use plumb_source::{Mirrors, Traffic};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub(crate) use self::blocking::Panicked;
use self::blocking::UnderWay;
use self::receiver::Inbox;
use crate::apps::application_resource;
use crate::error::ControllerError;
use crate::events::{self, ClusterEvents, Event, Events, Regarding, Severity};
use crate::lease::{self, ClusterLease, Elector, LeaderState, Leadership};
use crate::metrics::{
    BuildInfo, CacheFigures, Kind, Metrics, ObjectState, Outcome, QueueFigures, SightFigures,
};
use crate::names::{Key, Name};
use crate::opened::Opened;
use crate::queue::{self, Lane, QueueHandle, RunOptions};
use crate::queues::{LOOKS_PER_RUN, Queues};
use crate::receiver::server::Receiver;
use crate::server::{Heartbeat, Probes, Readiness, Server};
use crate::sources::{Polls, moved};
use crate::state::{State, epoch_of};

/// What the daemon is told from outside, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where mirrors live; no other process may use the directory.
    pub cache_dir: PathBuf,
    /// Bytes that all of them may take; `None` for as many as there are.
    pub cache_limit: Option<u64>,
    /// Where probes and metrics are served; `None` serves none.
    pub metrics_addr: Option<SocketAddr>,
    /// Runs under way at once.
    pub concurrent: usize,
    /// The namespaces whose objects are looked after; empty for all.
    pub namespaces: BTreeSet<String>,
    /// How long a lease lasts that is not renewed.
    pub lease_duration: Duration,
    /// The namespace of the Lease: where the daemon itself runs.
    pub namespace: String,
    /// Who this process is among its replicas: the pod's uid.
    pub identity: String,
    /// The commit that the binary was built from, empty when not known.
    pub build: String,
    /// Who acts for an Application that names nobody: a service account of its namespace.
    pub default_service_account: Option<String>,
    /// Whether what names no account, and has no default, is refused.
    pub impersonate_only: bool,
    /// Whether an Application may name only what is in its own namespace.
    pub no_cross_namespace_refs: bool,
    /// In this time each object is verified once although nothing shows that it changed; never
    /// when it is zero.
    pub audit_interval: Duration,
    /// How often is looked for members of kinds that no record names; never when it is zero.
    pub survey_interval: Duration,
    /// Where webhooks are taken; `None` takes none.
    pub receiver: Option<ReceiverSettings>,
    /// Seeds jitter.
    pub seed: u64,
}

/// Where webhooks are taken, and what they are checked with.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// The address to listen on.
    pub addr: SocketAddr,
    /// The Secret, in the daemon's own namespace, each value of which is accepted.
    pub secret: String,
}

/// The manager of what we write to the status of our own kinds.
const STATUS_MANAGER: &str = "plumb";

/// The deadline of one request. Admission webhooks may take up to 30 s, but then something is
/// wrong; this must stay well below the lease so that a holder can write at all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a shutdown waits for runs that are under way. Kubernetes kills after 30 s.
const DRAIN: Duration = Duration::from_secs(15);

/// How long events that wait may still be sent at shutdown.
const FLUSH: Duration = Duration::from_secs(2);

/// The cache that readiness waits for: our own kinds, and the members of what they manage.
const OWN_KINDS: &str = "custom resources";

/// How often the main loop shows that it lives.
const BEAT: Duration = Duration::from_secs(5);

/// Everything that runs share.
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    pub(crate) mirrors: Arc<Mirrors>,
    pub(crate) state: State,
    pub(crate) queue: Queues,
    pub(crate) leadership: Leadership,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) random: Mutex<fastrand::Rng>,
    /// What marks the facts that this process writes while it leads.
    epoch: AtomicU64,
    /// The latest mark of a later leader, and when it was met.
    outranked: Mutex<Option<(u64, Instant)>>,
    /// Numbers the runs, so that the lines of one can be told from others' in the log.
    runs: AtomicU64,
    settings: Settings,
    stopping: AtomicBool,
    under_way: UnderWay,
    pub(crate) opened: Arc<Opened>,
    /// Whether there may be mirrors that nobody names, of an earlier process or a former object.
    pub(crate) untidy: AtomicBool,
    /// What of the mirrors' traffic the metrics have been told.
    told: Mutex<Traffic>,
    /// Who may ask which Git server.
    pub(crate) polls: Mutex<Polls>,
    /// What moments are counted from.
    pub(crate) started: Instant,
}

/// Runs until `stop` ends. Errors are those of the start; later faults are retried.
pub async fn run(
    client: kube::Client,
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> Result<(), ControllerError> {
    let metrics = Metrics::new(BuildInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        revision: settings.build.clone(),
    });
    let lease_settings = lease::Settings::new(settings.lease_duration, REQUEST_TIMEOUT);
    let leadership = Leadership::default();
    let cluster = Cluster::new(
        client,
        ClusterOptions {
            request_timeout: lease_settings.request_timeout,
            user_agent: Some(concat!("plumb/", env!("CARGO_PKG_VERSION")).into()),
            gate: Some(Arc::new(leadership.clone())),
            observer: Some(Arc::new(metrics.clone())),
            seed: settings.seed,
        },
    );
    let dir = settings.cache_dir.clone();
    let limits = plumb_source::Limits { cache_bytes: settings.cache_limit, ..Default::default() };
    let mirrors = tokio::task::spawn_blocking(move || Mirrors::open(&dir, limits))
        .await
        .map_err(|_| ControllerError::Panicked { what: "opening the cache" })?
        .map_err(|source| ControllerError::Cache { dir: settings.cache_dir.clone(), source })?;
    let (daemon, outbox, signals) =
        Daemon::new(&cluster, mirrors, &leadership, &metrics, settings.clone());
    let Queues { sources, apps } = daemon.queue.clone();
    for (kind, queue) in [(Kind::GitRepository, sources), (Kind::Application, apps)] {
        metrics.watch_queue(kind, move || QueueFigures {
            waiting: queue.len(),
            busy: queue.running(),
        });
    }
    let seen = Arc::downgrade(&daemon);
    metrics.watch_hosts(move || seen.upgrade().map_or(0, |daemon| daemon.servers_waited_for()));
    let seen = Arc::downgrade(&daemon);
    metrics.watch_sight(move || {
        let daemon = seen.upgrade();
        let engine = daemon.as_ref().map(|daemon| &daemon.engine);
        SightFigures {
            members: engine.map_or(0, plumb_engine::Engine::member_count),
            unreadable_kinds: engine.map_or(0, plumb_engine::Engine::blind_count),
        }
    });

    let (kept, limit) = (Arc::downgrade(&daemon.mirrors), settings.cache_limit);
    metrics.watch_cache(move || {
        let usage = kept.upgrade().map(|mirrors| mirrors.usage()).unwrap_or_default();
        CacheFigures {
            mirrors: usage.mirrors,
            bytes: usage.bytes,
            limit,
            evicted: usage.evicted,
            rebuilt: usage.rebuilt,
        }
    });

    let heartbeat = Heartbeat::default();
    let readiness = Readiness::new([OWN_KINDS]);
    let (end, ended) = watch::channel(false);
    let serving = match settings.metrics_addr {
        Some(addr) => {
            let bound = Server::bind(addr).await;
            let server = bound.map_err(|source| ControllerError::Listen { addr, source })?;
            tracing::info!(address = %server.address(), "serving probes and metrics");
            let probes = Probes {
                heartbeat: heartbeat.clone(),
                stale_after: 12 * BEAT,
                readiness: readiness.clone(),
                leadership: leadership.clone(),
                metrics: metrics.clone(),
            };
            Some(tokio::spawn(server.serve(probes, until(ended.clone()))))
        }
        None => None,
    };

    let receiver = match &settings.receiver {
        Some(ReceiverSettings { addr, secret }) => {
            let bound = Receiver::bind(*addr).await;
            let receiver =
                bound.map_err(|source| ControllerError::Listen { addr: *addr, source })?;
            tracing::info!(address = %receiver.address(), secret, "taking webhooks");
            Some((receiver, Arc::new(Inbox::new(&daemon)), secret.clone()))
        }
        None => None,
    };

    let (guard, mut early) = Guard::new();
    let (stopped, stop_seen) = watch::channel(false);
    let receiving = receiver.map(|(receiver, inbox, secret)| {
        let secrets = Arc::clone(&inbox).follow_secret(secret);
        let secrets = guard.spawn("following the secret of webhooks", secrets);
        let served = receiver.serve(inbox, until(stop_seen.clone()));
        (guard.spawn("taking webhooks", served), secrets)
    });
    let watching = Arc::clone(&daemon).follow_own_kinds(readiness.clone(), heartbeat);
    let watching = guard.spawn("watching custom resources", watching);
    let signalling = guard.spawn("following members", Arc::clone(&daemon).follow_signals(signals));
    let naming = guard.spawn("following what specs name", Arc::clone(&daemon).follow_named());
    let looking = guard.spawn("following what is waited for", Arc::clone(&daemon).follow_objects());
    let housekeeping = guard.spawn("keeping house", Arc::clone(&daemon).keep_house());
    let publishing = {
        let (sink, ended) = (ClusterEvents::new(&cluster), ended.clone());
        guard.spawn("publishing events", async move {
            events::run(outbox, &sink, until(ended), FLUSH).await;
        })
    };
    let (release, released) = watch::channel(false);
    let electing = {
        let store = ClusterLease::new(&cluster, &settings.namespace);
        let elector = Elector::new(&settings.identity, lease_settings);
        let leadership = leadership.clone();
        guard.spawn("holding the lease", async move {
            lease::run(&store, elector, &leadership, until(released)).await;
        })
    };
    let working =
        guard.spawn("working the queue off", Arc::clone(&daemon).lead(readiness, stop_seen));

    let outcome = tokio::select! {
        () = stop => Ok(()),
        what = early.ended() => Err(ControllerError::Ended { what }),
    };
    match &outcome {
        Ok(()) => tracing::info!("stopping"),
        Err(error) => tracing::error!(%error, "stopping, so that another one can take over"),
    }
    daemon.stopping.store(true, Ordering::Relaxed);
    daemon.cancel_blocking();
    let _ = stopped.send(true);
    let _ = working.await;
    watching.abort();
    signalling.abort();
    naming.abort();
    looking.abort();
    housekeeping.abort();
    if let Some((serving, secrets)) = receiving {
        secrets.abort();
        let _ = serving.await;
    }
    let _ = end.send(true);
    let _ = publishing.await;
    // Only now may another replica write.
    let _ = release.send(true);
    let _ = electing.await;
    if let Some(serving) = serving {
        let _ = serving.await;
    }
    tracing::info!("stopped");
    outcome
}

/// Watches over the tasks that must not end before the process does. One that panicked would leave
/// a process that holds the lease, answers its probes and does a part of its work.
struct Guard(mpsc::UnboundedSender<&'static str>);

/// The other end of a [`Guard`].
struct Early(mpsc::UnboundedReceiver<&'static str>);

impl Guard {
    fn new() -> (Self, Early) {
        let (to, from) = mpsc::unbounded_channel();
        (Self(to), Early(from))
    }

    fn spawn(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        /// Tells of the end, also of one by a panic.
        struct Told(mpsc::UnboundedSender<&'static str>, &'static str);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(self.1);
            }
        }
        let told = Told(self.0.clone(), what);
        tokio::spawn(async move {
            let _told = told;
            task.await;
        })
    }
}

impl Early {
    /// Waits for the first task that ends.
    async fn ended(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(what) => what,
            None => std::future::pending().await,
        }
    }
}

/// Ends when the value becomes true, or its sender is gone.
async fn until(mut seen: watch::Receiver<bool>) {
    let _ = seen.wait_for(|value| *value).await;
}

impl Daemon {
    fn new(
        cluster: &Cluster,
        mirrors: Mirrors,
        leadership: &Leadership,
        metrics: &Metrics,
        settings: Settings,
    ) -> (Arc<Self>, events::Outbox, mpsc::UnboundedReceiver<Signal>) {
        let (events, outbox) = Events::new(&settings.identity, metrics);
        let options = EngineOptions {
            audit_interval: settings.audit_interval,
            impersonate_only: settings.impersonate_only,
            ..EngineOptions::default()
        };
        let (engine, signals) = Engine::new(cluster.clone(), options);
        let daemon = Self {
            engine,
            mirrors: Arc::new(mirrors),
            state: State::default(),
            queue: Queues::default(),
            leadership: leadership.clone(),
            events,
            metrics: metrics.clone(),
            random: Mutex::new(fastrand::Rng::with_seed(settings.seed)),
            epoch: AtomicU64::default(),
            outranked: Mutex::default(),
            runs: AtomicU64::default(),
            settings,
            stopping: AtomicBool::default(),
            under_way: UnderWay::default(),
            opened: Arc::default(),
            untidy: AtomicBool::new(true),
            told: Mutex::default(),
            polls: Mutex::default(),
            started: Instant::now(),
        };
        (Arc::new(daemon), outbox, signals)
    }

    /// Works the queue off whenever this process leads and has seen everything once.
    async fn lead(self: Arc<Self>, readiness: Readiness, stop: watch::Receiver<bool>) {
        let mut leader = self.leadership.subscribe();
        // The Lease counts its holders, so it tells whether another one came in between.
        let mut last = None;
        loop {
            // The stop comes first in each choice: it stays true while the lease is still held, and
            // no run may begin then.
            tokio::select! {
                biased;
                () = until(stop.clone()) => return,
                () = readiness.complete() => {}
            }
            let epoch = tokio::select! {
                biased;
                () = until(stop.clone()) => return,
                state = leader.wait_for(|state| matches!(state, LeaderState::Leading { .. })) => match state {
                    Ok(state) => match &*state {
                        LeaderState::Leading { epoch } => *epoch,
                        LeaderState::Standby { .. } => continue,
                    },
                    Err(_) => return,
                },
            };
            self.metrics.set_leading(Some(epoch));
            self.take_over(epoch, last.replace(epoch));
            // Before anything is fetched: what is in nobody's way may be in the way of that.
            self.forget_mirrors().await;
            let work_off = async |queue: &QueueHandle<Key>, concurrency| {
                let mut lost = self.leadership.subscribe();
                let end = async {
                    tokio::select! {
                        () = until(stop.clone()) => {}
                        // Another term is as good as none: this one is over.
                        _ = lost.wait_for(|state| *state != LeaderState::Leading { epoch }) => {
                            // A Git server that stalls must not hold up the next term.
                            self.cancel_blocking();
                        }
                    }
                };
                let options = RunOptions { concurrency, drain: DRAIN };
                let daemon = Arc::clone(&self);
                let worker = move |key| Arc::clone(&daemon).work(key);
                let panicked = |key: &Key| {
                    tracing::error!(%key, "a run panicked");
                    self.metrics.reconciled(kind_of(key), Outcome::Panic, Duration::ZERO);
                    let (daemon, key) = (Arc::clone(&self), key.clone());
                    tokio::spawn(async move { daemon.panicked(key).await });
                };
                queue::run(queue, options, worker, panicked, end).await.cut_off
            };
            let runs = self.settings.concurrent;
            let looks = runs.saturating_mul(LOOKS_PER_RUN);
            let (looks, runs) = tokio::join!(
                work_off(&self.queue.sources, looks),
                work_off(&self.queue.apps, runs)
            );
            self.metrics.set_leading(None);
            if looks + runs > 0 {
                tracing::warn!(runs, looks, "runs were cut off");
            }
        }
    }

    /// Looks at everything once. Unless nobody led since this process did, it begins as after a
    /// restart, but for the caches that its watches fill: what it remembers of an earlier term may
    /// be older than what another leader has done since.
    fn take_over(&self, lease: u64, last: Option<u64>) {
        // A Lease that counts anew was deleted meanwhile, and others may have led in between.
        let alone = last.is_some_and(|last| lease == last || lease == last + 1);
        if !alone {
            self.engine.forget_verified();
        }
        let mut store = self.state.lock();
        let marks = store.apps.values().filter_map(|app| epoch_of(&app.object.metadata));
        self.epoch.store(acting_epoch(lease, marks), Ordering::Relaxed);
        self.withdraw_all();
        let now = Instant::now();
        for (name, source) in &mut store.sources {
            if !alone {
                source.forget();
            }
            source.asked = now;
            source.called = Some(now);
            self.queue.add(Key::Source(name.clone()), Lane::Urgent);
        }
        for (name, app) in &mut store.apps {
            if alone {
                app.forced |= app.rendered.is_some();
                app.news = true;
            } else {
                app.forget();
            }
            self.queue.add(Key::App(name.clone()), Lane::Urgent);
        }
    }

    /// Asks for a run at once, because of something that is new to it: a failure before does not hold
    /// it up.
    pub(crate) fn call(&self, key: Key) {
        self.call_all([key]);
    }

    /// The same for many at one moment, so that one listing is news enough for all of them.
    pub(crate) fn call_all(&self, keys: impl IntoIterator<Item = Key>) {
        let keys: Vec<Key> = keys.into_iter().collect();
        let now = Instant::now();
        {
            let mut store = self.state.lock();
            for key in &keys {
                store.note_news(key, now);
            }
        }
        for key in keys {
            self.queue.add(key, Lane::Urgent);
        }
    }

    /// The epoch that this process acts in, since it last began to lead.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether this process leads although an Application bears the mark of a later leader: a
    /// renewal of the lease that was asked for after the mark was met proves that nobody else does.
    /// From then on it acts above that mark.
    pub(crate) fn outlasts(&self, theirs: u64) -> bool {
        let mut outranked = self.outranked.lock().unwrap_or_else(PoisonError::into_inner);
        let (highest, met) = *outranked.get_or_insert_with(|| (theirs, Instant::now()));
        if theirs > highest {
            *outranked = Some((theirs, Instant::now()));
            return false;
        }
        if self.leadership.renewed().is_none_or(|renewed| renewed <= met) {
            return false;
        }
        *outranked = None;
        self.epoch.fetch_max(highest.saturating_add(1), Ordering::Relaxed);
        tracing::info!(mark = highest, "a mark of a later leader, of which there is none");
        true
    }

    async fn work(self: Arc<Self>, key: Key) {
        use tracing::Instrument as _;
        let started = Instant::now();
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let span = tracing::info_span!("reconcile", run, object = %key);
        let work = async {
            tracing::debug!("begins");
            let outcome = match &key {
                Key::Source(name) => Box::pin(self.run_source(name)).await,
                Key::App(name) => {
                    let outcome = Box::pin(self.run_app(name)).await;
                    self.forget_if_gone(name);
                    // One that was called for a look and did not come to want it leaves the room.
                    self.state.lock().offer_looks();
                    outcome
                }
            };
            tracing::debug!("ends");
            outcome
        };
        let outcome = work.instrument(span).await;
        self.metrics.reconciled(kind_of(&key), outcome, started.elapsed());
    }

    /// An Application that is deleted while it runs may have said what it wants after that.
    fn forget_if_gone(&self, name: &Name) {
        let parent = GroupKind::new(names::GROUP, "Application");
        let set = ApplySet::new(parent, &name.namespace, &name.name);
        // One of its name that comes meanwhile asks after this.
        let store = self.state.lock();
        if !store.apps.contains_key(name) {
            self.engine.forget_set(&set.id);
        }
    }

    async fn panicked(self: Arc<Self>, key: Key) {
        match &key {
            Key::App(name) => {
                self.panicked_app(name).await;
                self.forget_if_gone(name);
            }
            Key::Source(name) => self.panicked_source(name).await,
        }
    }

    /// Whether this is not worth telling: what a shutdown cut short is no failure, and the next
    /// process finds out by itself.
    pub(crate) fn is_cut_short(&self, say: &crate::status::Say) -> bool {
        !say.ready && self.is_stopping()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Writes a whole status.
    pub(crate) async fn write_status(
        &self,
        kind: Kind,
        metadata: &kube::core::ObjectMeta,
        status: &(impl Serialize + Sync),
    ) -> Result<(), ApiError> {
        let resource = match kind {
            Kind::GitRepository => source_resource(),
            Kind::Application => application_resource(),
        };
        let name = Name::of(metadata);
        let body = serde_json::json!({
            "apiVersion": names::API_VERSION,
            "kind": kind.as_str(),
            "metadata": { "name": name.name, "namespace": name.namespace, "uid": metadata.uid },
            "status": status,
        });
        let target = Target::new(&resource, &name.namespace, &name.name);
        let how = ApplyHow { force: true, dry_run: false };
        self.engine.cluster().apply_status(&target, &body, STATUS_MANAGER, how).await?;
        Ok(())
    }

    /// Publishes an event about one of our objects, sooner or later.
    pub(crate) fn note(
        &self,
        (kind, metadata): (Kind, &kube::core::ObjectMeta),
        severity: Severity,
        (reason, action): (&str, &str),
        note: &str,
        revision: Option<&str>,
    ) {
        let name = Name::of(metadata);
        self.events.publish(&Event {
            regarding: Regarding {
                api_version: names::API_VERSION.into(),
                kind: kind.as_str().into(),
                namespace: name.namespace.into(),
                name: name.name.into(),
                uid: metadata.uid.clone().unwrap_or_default(),
            },
            severity,
            reason: reason.into(),
            action: action.into(),
            note: note.into(),
            revision: revision.map(String::from),
        });
    }

    pub(crate) fn show(&self, kind: Kind, name: &Name, ready: bool, suspended: bool) {
        // A run can end after its object did, and nobody would take its figures away again.
        if !self.state.lock().has(kind, name) {
            return;
        }
        self.metrics.set_state(kind, &name.namespace, &name.name, ObjectState { ready, suspended });
    }

    /// Which build this is.
    pub(crate) fn build_id(&self) -> &str {
        &self.settings.build
    }

    /// The account of those that name none.
    pub(crate) fn default_account(&self) -> Option<&String> {
        self.settings.default_service_account.as_ref()
    }

    /// Whether an Application may name what is in another namespace.
    pub(crate) fn may_name_elsewhere(&self) -> bool {
        !self.settings.no_cross_namespace_refs
    }

    /// An interval, moved a little.
    pub(crate) fn jitter(&self, interval: Duration) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        moved(interval, random.f64())
    }

    /// What seeds jitter.
    pub(crate) fn seed(&self) -> u64 {
        self.settings.seed
    }
}

/// What a status says after a panic. The panic's own message may quote anything.
pub(crate) const PANICKED: &str = "a run of this object panicked, which is a mistake in Plumb; \
                                   please report it with the log around this time";

/// The epoch to act in: the Lease's, or one above all marks of earlier leaders. The Lease counts
/// anew after it was deleted, with an earlier installation for instance, and the marks stay. Two
/// leaders of which neither has marked anything yet can so come to the same epoch; their terms do
/// not overlap all the same.
fn acting_epoch(lease: u64, marks: impl Iterator<Item = u64>) -> u64 {
    let marks: BTreeSet<u64> = marks.collect();
    let highest = marks
        .into_iter()
        .fold(lease, |highest, mark| if is_later(mark, highest) { mark } else { highest });
    if highest > lease { highest.saturating_add(1) } else { lease }
}

fn kind_of(key: &Key) -> Kind {
    match key {
        Key::Source(_) => Kind::GitRepository,
        Key::App(_) => Kind::Application,
    }
}

fn source_resource() -> Resource {
    Resource::known(Gvk::new(names::API_VERSION, "GitRepository"), "gitrepositories", true)
}

/// An error with everything that caused it, on one line; texts that repeat their cause are told
/// once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
