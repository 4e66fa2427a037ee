//! The engine: what it knows of the cluster, and the watches that keep it knowing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use plumb_core::{GroupKind, Gvk, ObjectKey};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::account::Awaited;
use crate::applyset::PART_OF;
use crate::attention::{Asking, Asks, Attention, Seen, Watched, Wellbeing};
use crate::circuit::Circuits;
use crate::claims::Claims;
use crate::cluster::{ApiError, Cluster, Discovery, Resource, WatchEvent, watch_by};
use crate::definitions::{Defining, is_definition};
use crate::deleting::Deleting;
use crate::error::EngineError;
use crate::facts::Facts;
use crate::ignore::Ignores;
use crate::members::{Audits, KindState, Members, Trouble};
use crate::missing::Missing;
use crate::prepare::prepare;
use crate::refusals::Refusals;
use crate::report::Drift;
use crate::sabotage::{Sabotage, leaves_out};
use crate::share::{SLICE_TIME, SLICE_WRITES, Slice};

/// News from the watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A member of this set is not as it was verified, or is one too many.
    Set(Arc<str>),
    /// The same, but it happens again and again, so it has to wait that long.
    Later(Arc<str>, Duration),
    /// What this set may have waited for is over: another one lets go of an object, a kind gets
    /// answers again, or its account is there.
    Freed(Arc<str>),
    /// How a member of this set is, has changed.
    Health(Arc<str>),
    /// The first LIST of a kind ended, well or not: sets that waited for it can go on.
    Kind(GroupKind),
    /// Objects of a kind cannot be read for longer than a moment, or can again.
    Sight(GroupKind),
}

/// Settings that come from the command line.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Requests that one run has under way at once.
    pub concurrency: usize,
    /// Requests that all runs together have under way at once, as long as there are fewer runs.
    pub writes: usize,
    /// How many objects a run tries before others have their turn, and for how long at most.
    pub slice: (usize, Duration),
    /// How long new definitions may take to be served.
    pub definition_timeout: Duration,
    /// In this time each object is verified once although nothing shows that it changed; never
    /// when it is zero.
    pub audit_interval: Duration,
    /// Whether only sets with an account of their own are worked on.
    pub impersonate_only: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            // One run does not keep the API server from others: it takes about ten writes at once
            // before latency grows.
            concurrency: 8,
            // Four runs at full speed; with more, each has a part of it.
            writes: 32,
            slice: (SLICE_WRITES, SLICE_TIME),
            // The API server needs up to ten seconds to serve a new definition under load; three
            // times that is a fault.
            definition_timeout: Duration::from_secs(30),
            // What leaves no trace is rare, and each look is a request.
            audit_interval: Duration::from_hours(24),
            impersonate_only: false,
        }
    }
}

/// A look at the kinds that is younger than this is not repeated for a kind that it lacks.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(2);

/// A kind that is not served any more is looked up again after this long: the API server's list of
/// kinds follows a changed definition within a second or two.
const SETTLE: Duration = Duration::from_secs(3);

/// Knows the cluster's kinds and the members of all sets; runs sets against it.
pub struct Engine {
    pub(crate) cluster: Cluster,
    pub(crate) options: EngineOptions,
    members: Arc<Mutex<Members>>,
    attention: Attention,
    claims: Mutex<Claims>,
    facts: Mutex<HashMap<Arc<str>, Facts>>,
    defining: Mutex<Defining>,
    circuits: Mutex<Circuits>,
    refusals: Mutex<Refusals>,
    tried: Mutex<HashMap<String, HashMap<ObjectKey, u64>>>,
    pub(crate) deleting: Mutex<HashMap<String, Deleting>>,
    pub(crate) runs: AtomicUsize,
    pub(crate) discovery: tokio::sync::Mutex<Option<(Arc<Discovery>, Instant)>>,
    watches: Mutex<BTreeMap<GroupKind, JoinHandle<()>>>,
    /// Kinds that nobody needed when that was last looked at.
    idle: Mutex<BTreeSet<GroupKind>>,
    missing: Arc<Mutex<Missing>>,
    awaited: Arc<Mutex<Awaited>>,
    signals: mpsc::UnboundedSender<Signal>,
}

impl Engine {
    /// An engine that watches nothing yet. The receiver gets what the watches find.
    pub fn new(
        cluster: Cluster,
        options: EngineOptions,
    ) -> (Self, mpsc::UnboundedReceiver<Signal>) {
        let (signals, receiver) = mpsc::unbounded_channel();
        let engine = Self {
            cluster,
            options,
            members: Arc::default(),
            attention: Attention::default(),
            claims: Mutex::default(),
            facts: Mutex::default(),
            defining: Mutex::default(),
            circuits: Mutex::default(),
            refusals: Mutex::default(),
            tried: Mutex::default(),
            deleting: Mutex::default(),
            runs: AtomicUsize::new(0),
            discovery: tokio::sync::Mutex::default(),
            watches: Mutex::default(),
            idle: Mutex::default(),
            missing: Arc::default(),
            awaited: Arc::default(),
            signals,
        };
        (engine, receiver)
    }

    /// The client, for what the caller reads and writes itself.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn members(&self) -> MutexGuard<'_, Members> {
        // Members has no state in which a panic could leave it broken for others.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn claims(&self) -> MutexGuard<'_, Claims> {
        // Each change is one assignment.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands on each parent, by set id.
    pub(crate) fn facts(&self) -> MutexGuard<'_, HashMap<Arc<str>, Facts>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn defining(&self) -> MutexGuard<'_, Defining> {
        // Each change is one assignment.
        self.defining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn idle(&self) -> MutexGuard<'_, BTreeSet<GroupKind>> {
        // Each change is one assignment.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn missing(&self) -> MutexGuard<'_, Missing> {
        // Each change is one assignment.
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn awaited(&self) -> MutexGuard<'_, Awaited> {
        // Whoever waits in vain is tried again in its time.
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn awaited_by_all(&self) -> Arc<Mutex<Awaited>> {
        Arc::clone(&self.awaited)
    }

    pub(crate) fn signals(&self) -> &mpsc::UnboundedSender<Signal> {
        &self.signals
    }

    /// What was tried of each set and not refused, by what is desired of it, while its run is not
    /// over.
    pub(crate) fn tried(&self) -> MutexGuard<'_, HashMap<String, HashMap<ObjectKey, u64>>> {
        // Each change is one assignment.
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn refusals(&self) -> MutexGuard<'_, Refusals> {
        // Each change is one assignment.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn circuits(&self) -> MutexGuard<'_, Circuits> {
        // Counts and times: whatever a panic leaves of them is put right by the next answer.
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one run may do before others have their turn.
    pub(crate) fn slice(&self) -> Slice {
        let (writes, time) = self.options.slice;
        Slice::new(writes, time)
    }

    /// Asks for a run of these sets.
    pub(crate) fn signal(&self, sets: BTreeSet<Arc<str>>) {
        for set in sets {
            let _ = self.signals.send(Signal::Set(set));
        }
    }

    /// Asks for a run of these sets, whose waiting has come to an end.
    pub(crate) fn tell_freed(&self, sets: BTreeSet<Arc<str>>) {
        for set in sets {
            let _ = self.signals.send(Signal::Freed(set));
        }
    }

    /// A set is no more, and what it wanted says nothing about its objects.
    pub fn forget_set(&self, set: &str) {
        self.claims().forget(set);
        self.facts().remove(set);
        self.refusals().forget(set);
        self.tried().remove(set);
        self.deleting().remove(set);
        self.members().forget_set(set);
        self.forget_account(set);
        self.attention.attend(set, None, &BTreeSet::new(), |_, _| true);
    }

    /// A set asks how its objects are, or does not ask any more; they may be of these kinds. What is
    /// asked stands until it is asked otherwise, and costs bodies in the watches of kinds that have
    /// health in them.
    pub fn attend(&self, set: &crate::ApplySet, asks: Option<Asks>, kinds: &BTreeSet<GroupKind>) {
        let written: Vec<GroupKind> =
            self.facts().get(&*set.id).into_iter().flat_map(Facts::kinds).collect();
        let kinds = written.iter().chain(kinds).cloned().collect();
        let is_judged =
            |asking: &Asking, kind: &GroupKind| self.members().is_judged(&set.id, kind, asking);
        self.attention.attend(&set.id, asks, &kinds, is_judged);
    }

    /// A set comes to have objects of these kinds.
    pub(crate) fn attend_more(&self, set: &crate::ApplySet, kinds: &BTreeSet<GroupKind>) {
        let is_judged =
            |asking: &Asking, kind: &GroupKind| self.members().is_judged(&set.id, kind, asking);
        self.attention.grow(&set.id, kinds, is_judged);
    }

    /// How the objects of a set are, if it asks.
    pub fn wellbeing(&self, set: &crate::ApplySet) -> Option<Wellbeing> {
        let asking = self.attention.of(&set.id)?;
        Some(self.members().wellbeing(set, &asking))
    }

    /// Whether what an object says of itself may quote a value of a Secret, so that it is not to be told.
    /// The set is the one that its label names.
    pub fn may_quote(&self, key: &plumb_core::ObjectKey, set: Option<&str>) -> bool {
        self.members().may_quote(key, set)
    }

    /// Whether what containers of a namespace say of themselves may quote a value of a Secret that some
    /// set has put into a ConfigMap there.
    pub fn pods_may_quote(&self, namespace: &str) -> bool {
        self.members().pods_may_quote(namespace)
    }

    /// The kinds of the cluster, as last read.
    pub(crate) async fn discovery(&self) -> Result<Arc<Discovery>, EngineError> {
        let mut cached = self.discovery.lock().await;
        if let Some((discovery, _)) = &*cached {
            return Ok(Arc::clone(discovery));
        }
        self.read_discovery(&mut cached).await
    }

    /// The kinds of the cluster, read again unless that was just done.
    pub(crate) async fn discovery_again(&self) -> Result<Arc<Discovery>, EngineError> {
        let mut cached = self.discovery.lock().await;
        if let Some((discovery, at)) = &*cached
            && at.elapsed() < DISCOVERY_PAUSE
        {
            return Ok(Arc::clone(discovery));
        }
        self.read_discovery(&mut cached).await
    }

    /// The next look at the kinds asks the API server.
    pub(crate) async fn forget_discovery(&self) {
        *self.discovery.lock().await = None;
    }

    async fn read_discovery(
        &self,
        cached: &mut Option<(Arc<Discovery>, Instant)>,
    ) -> Result<Arc<Discovery>, EngineError> {
        let discovery =
            self.cluster.discover().await.map_err(|source| EngineError::Discover { source })?;
        let discovery = Arc::new(discovery);
        self.missing().looked(&discovery);
        *cached = Some((Arc::clone(&discovery), Instant::now()));
        Ok(discovery)
    }

    /// The resource of one exact version of a kind, looked up again when it is not known.
    pub async fn resource(&self, gvk: &Gvk) -> Result<Option<Resource>, EngineError> {
        if let Some(resource) = self.discovery().await?.find(gvk) {
            return Ok(Some(resource.clone()));
        }
        Ok(self.discovery_again().await?.find(gvk).cloned())
    }

    /// Watches these kinds from now on. Kinds that the cluster does not have, or that cannot be
    /// listed, are known as failed.
    pub async fn watch(&self, kinds: &BTreeSet<GroupKind>) -> Result<(), EngineError> {
        let new: Vec<GroupKind> = {
            let members = self.members();
            kinds
                .iter()
                .filter(|kind| {
                    // A kind that was missing may have come.
                    !self.is_watched(kind) || members.kind(kind).is_none()
                })
                .cloned()
                .collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let mut discovery = self.discovery_of(&new).await?;
        let ended = |kind: &GroupKind| discovery.preferred(kind).is_some() && self.has_ended(kind);
        if new.iter().any(ended) {
            self.discovery_again().await?;
            discovery = self.discovery_of(&new).await?;
        }
        for kind in new {
            let resource = discovery.preferred(&kind);
            self.members().expect(&kind);
            match resource {
                Some(resource) if resource.can("list") => {
                    self.start_watch(kind, resource.clone());
                }
                found => {
                    let gone = self.is_gone(&kind, &discovery).await;
                    let (why, trouble) = match found {
                        Some(_) => ("the kind cannot be listed", Trouble::Lasting),
                        None if self.is_only_defined(&kind) => (
                            "the cluster does not serve the kind that is defined",
                            Trouble::Lasting,
                        ),
                        None => ("the cluster does not have the kind", Trouble::Passing),
                    };
                    if gone {
                        let sets = self.members().vanished(&kind);
                        self.signal(sets);
                    } else if let Some(wait) = self.confirms(&kind) {
                        for set in self.members().sets_with(&kind) {
                            let _ = self.signals.send(Signal::Later(set, wait));
                        }
                    }
                    let (news, sight) = {
                        let mut members = self.members();
                        let blind = members.blind(&kind).is_some();
                        let news = members.failed(&kind, why.into(), trouble);
                        (news, news || blind != members.blind(&kind).is_some())
                    };
                    if sight {
                        let _ = self.signals.send(Signal::Sight(kind.clone()));
                    }
                    if news {
                        let _ = self.signals.send(Signal::Kind(kind));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a watch of the kind runs; one whose kind is not served any more has ended.
    pub(crate) fn is_watched(&self, kind: &GroupKind) -> bool {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.get(kind).is_some_and(|task| !task.is_finished())
    }

    fn has_ended(&self, kind: &GroupKind) -> bool {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.get(kind).is_some_and(JoinHandle::is_finished)
    }

    /// Watches a kind that is known to be served because an object of it was just applied.
    pub(crate) fn watch_served(&self, resource: &Resource) {
        let kind = resource.gvk.group_kind();
        if resource.can("list") && !self.is_watched(&kind) {
            self.members().expect(&kind);
            self.start_watch(kind, resource.clone());
        }
    }

    /// Ends the watch of a kind, and forgets what it told.
    pub(crate) fn end_watch(&self, kind: &GroupKind) {
        let task = {
            let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches.remove(kind)
        };
        if let Some(task) = task {
            task.abort();
        }
        self.members().forget_kind(kind);
    }

    fn start_watch(&self, kind: GroupKind, resource: Resource) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if watches.get(&kind).is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.missing().named(&kind, &resource.plural);
        let feed = Feed {
            members: Arc::clone(&self.members),
            attention: self.attention.clone(),
            missing: Arc::clone(&self.missing),
            signals: self.signals.clone(),
        };
        let task = tokio::spawn(follow(self.cluster.clone(), resource, kind.clone(), feed));
        watches.insert(kind, task);
    }

    /// Asks for a run of sets of which objects are due to be verified, for ever. `since_1970` is the
    /// time now.
    pub async fn audit(&self, since_1970: Duration) {
        if self.options.audit_interval.is_zero() {
            return std::future::pending().await;
        }
        let audits = Audits::new(self.options.audit_interval, Instant::now(), since_1970);
        loop {
            tokio::time::sleep(audits.pause()).await;
            let sets = self.members().audit(&audits, Instant::now());
            self.signal(sets);
        }
    }

    /// Which of these kinds have not been listed yet.
    pub fn pending(&self, kinds: &BTreeSet<GroupKind>) -> BTreeSet<GroupKind> {
        let members = self.members();
        let pending =
            |kind: &&GroupKind| matches!(members.kind(kind), None | Some(KindState::Pending));
        kinds.iter().filter(pending).cloned().collect()
    }

    /// How many live objects are known.
    pub fn member_count(&self) -> usize {
        self.members().len()
    }

    /// Which of these kinds cannot be read for longer than a moment, and why: what becomes of their
    /// objects is not seen.
    pub fn blind(&self, kinds: &BTreeSet<GroupKind>) -> Vec<(GroupKind, String)> {
        let members = self.members();
        let why = |kind: &GroupKind| Some((kind.clone(), members.blind(kind)?.to_owned()));
        kinds.iter().filter_map(why).collect()
    }

    /// Whether what is served of these kinds may be another thing than before without any watch telling so:
    /// they are defined in the cluster, or cannot be read.
    pub fn may_have_changed(&self, kinds: &BTreeSet<GroupKind>) -> bool {
        let defined = |kind: &GroupKind| !plumb_health::is_kubernetes(&kind.group);
        kinds.iter().any(defined) || !self.blind(kinds).is_empty()
    }

    /// How many kinds cannot be read for longer than a moment.
    pub fn blind_count(&self) -> usize {
        let members = self.members();
        members.kinds().filter(|(kind, _)| members.blind(kind).is_some()).count()
    }

    /// Drops what this process verified, wrote and heard; what the watches say of live objects stays.
    pub fn forget_verified(&self) {
        self.claims().clear();
        self.facts().clear();
        self.circuits().clear();
        self.refusals().clear();
        self.tried().clear();
        self.deleting().clear();
        self.members().forget_verified();
    }

    /// Whether every member of a set is as it was verified and none is too many: then a run would
    /// find nothing to do.
    pub fn in_sync(&self, set: &crate::ApplySet) -> bool {
        let in_sync = self.members().in_sync(&set.id, &set.manager, Instant::now());
        in_sync && self.left_half_taken(set).is_empty()
    }

    /// Whether somebody changed what a set applied, and that need not wait for its answer.
    pub fn drifts(&self, set: &crate::ApplySet) -> bool {
        self.members().drifts(&set.id, &set.manager, Instant::now())
    }

    /// For a standby: if the members of a set are as they were when its state was recorded by this digest,
    /// how each is is noted. Should one of them change before this process takes over, no other one has to
    /// be verified.
    pub fn witness(&self, set: &crate::ApplySet, recorded: plumb_core::Digest) {
        self.members().witness(&set.id, &set.manager, recorded);
    }

    /// How long it takes until something is due for a set that is in sync.
    pub fn next_due(&self, set: &crate::ApplySet) -> Option<Duration> {
        let now = Instant::now();
        let due = self.members().next_due(&set.id, &set.manager, now);
        due.map(|due| due.saturating_duration_since(now))
    }

    /// Whether all of these are there still. What is left alone is verified by no run, and may be no
    /// member, so that its end is seen only by asking for it.
    pub fn are_there(&self, keys: &[ObjectKey]) -> bool {
        let members = self.members();
        keys.iter().all(|key| members.live(key).is_some())
    }

    /// Hears what a set would want that does nothing: what another one lets go stays for it. What it
    /// has it keeps, unless it lets go what it does not want any more.
    pub async fn hear(
        &self,
        set: &crate::ApplySet,
        adopt: crate::Adopt,
        objects: Vec<plumb_core::Object>,
        lets_go: bool,
    ) -> Result<(), EngineError> {
        let kinds = objects.iter().map(plumb_core::Object::gvk);
        let discovery = self.discovery_with(kinds, None).await?;
        let prepared = prepare(objects, set, &discovery, &Ignores::default());
        let whole = prepared.failures.is_empty() && prepared.refusals.is_empty();
        let failed = prepared.failures.into_iter().chain(prepared.refusals).map(|f| f.key);
        let wants = prepared.objects.into_iter().map(|p| p.key).chain(failed).collect();
        let freed = if lets_go {
            self.claims().publish(set, adopt, wants, whole)
        } else {
            self.claims().publish_idle(set, adopt, wants)
        };
        self.freed(set, &freed);
        Ok(())
    }

    /// The members of a set that somebody else writes again and again, and what was last put back.
    pub fn fights(&self, set: &crate::ApplySet) -> Vec<(ObjectKey, Drift)> {
        self.members().fights(&set.id, Instant::now())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for task in self.watches.lock().unwrap_or_else(PoisonError::into_inner).values() {
            task.abort();
        }
    }
}

/// Where a watch puts what it finds.
struct Feed {
    members: Arc<Mutex<Members>>,
    attention: Attention,
    missing: Arc<Mutex<Missing>>,
    signals: mpsc::UnboundedSender<Signal>,
}

impl Feed {
    /// A definition is new or has changed, and what it defines may be missing.
    fn defined(&self) {
        let waiting = {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.look_again(Instant::now())
        };
        for set in waiting {
            let _ = self.signals.send(Signal::Later(Arc::clone(&set), SETTLE));
            let _ = self.signals.send(Signal::Set(set));
        }
    }
}

/// Feeds one kind's watch into the index. Whenever more, or less, is asked of the kind than metadata,
/// or something else, it is listed anew; what is known of it counts until that is done.
async fn follow(cluster: Cluster, resource: Resource, kind: GroupKind, feed: Feed) {
    let mut depth = feed.attention.depth(&kind);
    loop {
        let whole = *depth.borrow_and_update() > 0;
        let decoder = Watched::new(&resource, whole, feed.attention.clone());
        let events = watch_by(decoder, &cluster, &resource, PART_OF, None);
        if !follow_as(events, &mut depth, &kind, &feed).await {
            return;
        }
    }
}

/// Feeds a watch into the index until something else is asked of the kind. Returns whether that is why
/// it ended.
async fn follow_as(
    events: impl Stream<Item = WatchEvent<Seen>>,
    depth: &mut watch::Receiver<u64>,
    kind: &GroupKind,
    feed: &Feed,
) -> bool {
    let Feed { members, signals, .. } = feed;
    let defines = is_definition(kind);
    let mut events = std::pin::pin!(events);
    let mut unreadable = Vec::new();
    // A list that is under way comes to its end, so that none is begun in vain for ever.
    let mut listing = true;
    loop {
        let event = tokio::select! {
            biased;
            Ok(()) = depth.changed(), if !listing => return true,
            event = events.next() => event,
        };
        let Some(event) = event else { return false };
        match event {
            WatchEvent::Restarted => listing = true,
            WatchEvent::Listed(..) | WatchEvent::Failed(_) => listing = false,
            _ => {}
        }
        let mut sets = BTreeSet::new();
        let mut well = BTreeSet::new();
        let mut later = BTreeMap::new();
        let mut news = false;
        let mut ended = false;
        let sight;
        {
            let mut members = members.lock().unwrap_or_else(PoisonError::into_inner);
            let blind = members.blind(kind).is_some();
            match event {
                WatchEvent::Restarted => {
                    unreadable.clear();
                    members.restarted(kind);
                }
                WatchEvent::Listed(objects, version) => {
                    news = members.kind(kind) != Some(&KindState::Synced);
                    let mut lives = Vec::with_capacity(objects.len());
                    let mut tells = Vec::with_capacity(objects.len());
                    for (key, Seen { live, told }) in objects {
                        if told.is_some() || members.was_told(&key) {
                            tells.push((key.clone(), told, members.told(&key).cloned()));
                        }
                        lives.push((key, live));
                    }
                    sets = members.listed(kind, (lives, version), &unreadable);
                    for (key, told, before) in tells {
                        well.extend(members.tell(&key, told, before.as_ref()));
                    }
                }
                WatchEvent::Changed(key, Seen { live, told }) => {
                    if defines {
                        feed.defined();
                    }
                    let before = members.told(&key).cloned();
                    members.watched(kind, live.resource_version);
                    let called = members.changed(key.clone(), live);
                    well.extend(members.tell(&key, told, before.as_ref()));
                    later = members.called_later(&key, &called, Instant::now());
                    sets = called;
                }
                WatchEvent::Deleted(key, Seen { live, .. }) => {
                    members.watched(kind, live.resource_version);
                    let called = members.deleted(&key, &live);
                    later = members.called_later(&key, &called, Instant::now());
                    sets = called;
                }
                // One object that cannot be read says nothing about the others; what is known of it
                // stays, and a run that needs more asks for it.
                WatchEvent::Unreadable(key, error) => {
                    tracing::warn!(%key, %error, "cannot read a member");
                    unreadable.push(key);
                }
                WatchEvent::Failed(_) if leaves_out(Sabotage::FailedListIsEmpty) => {
                    news = members.kind(kind) != Some(&KindState::Synced);
                    sets = members.listed(kind, (Vec::new(), 0), &[]);
                }
                WatchEvent::Failed(error) => {
                    tracing::warn!(%kind, %error, "cannot watch");
                    ended = error.is_kind_missing();
                    news = members.failed(kind, error.to_string(), trouble(&error));
                    // Also when the kind was known as failed before: it was missing until an object
                    // of it was applied, and this was the first LIST.
                    if ended {
                        sets = members.sets_with(kind);
                    }
                }
            }
            sight = blind != members.blind(kind).is_some();
        }
        if ended {
            tokio::time::sleep(SETTLE).await;
        }
        for set in well {
            let _ = signals.send(Signal::Health(set));
        }
        for set in sets {
            let _ = signals.send(match later.remove(&set) {
                Some(wait) => Signal::Later(set, wait),
                None => Signal::Set(set),
            });
        }
        if news {
            let _ = signals.send(Signal::Kind(kind.clone()));
        }
        if sight {
            let _ = signals.send(Signal::Sight(kind.clone()));
        }
        if ended {
            // The next run that needs the kind looks up how it is served now.
            return false;
        }
    }
}

/// What an error of a LIST or watch says of the next.
fn trouble(error: &ApiError) -> Trouble {
    match error {
        error if error.is_kind_missing() => Trouble::Passing,
        error if error.is_forbidden() => Trouble::Lasting,
        ApiError::Refused(refusal) if !matches!(refusal.code, 429 | 504) => Trouble::Refused,
        ApiError::Decode { .. } | ApiError::TooLarge { .. } => Trouble::Refused,
        _ => Trouble::Passing,
    }
}
