//! What the daemon keeps in memory: the last seen objects of our own kinds, and what was found out
//! about each. All of it can be lost: a restart rebuilds it.

mod mirrors;
mod neighbours;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plumb_api::{Application, GitRepository, names};
use plumb_core::{Digest, GroupKind, Inputs, ObjectKey};
use plumb_engine::{ApplySet, Scope, marked_epoch};
use plumb_source::{CommitId, Remote, Revision};
use tokio::sync::watch;

use crate::apps::after::Waiting;
use crate::apps::due::Pause;
use crate::apps::how::How;
use crate::apps::others::Patience;
use crate::apps::wait::OwnRules;
use crate::askers::Askers;
use crate::backoff::Backoff;
use crate::depends::{self, Compiled};
use crate::metrics::Kind;
use crate::named::{Found, Named, Sight, Version, named_by, named_by_source};
use crate::names::{Key, Name};
use crate::objects::{ObjectRef, Seen};
use crate::pods::Workload;
use crate::sources::{Trust, Turn, Word};
use crate::status::Say;
use crate::waiting::Wait;
use crate::wants::Wants;

/// The first wait after a failure; back-off doubles it up to the object's retry interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// A GitRepository and what is known of it.
pub(crate) struct Source {
    pub(crate) object: Arc<GitRepository>,
    /// What its ref stands for, as last read.
    pub(crate) revision: Option<Revision>,
    /// Counts the revisions that this process has seen, as [`Store::number`] does.
    pub(crate) seq: u64,
    /// Where it was read, with credentials.
    pub(crate) remote: Option<Arc<Remote>>,
    /// When a look was last asked for: what was heard before is no answer to that.
    pub(crate) asked: Instant,
    /// When somebody asked for the look that is to come, if anybody did.
    pub(crate) called: Option<Instant>,
    /// What it was last told that its reference leads to, by a listing of another one.
    pub(crate) told: Option<CommitId>,
    /// When the listing began that last answered it.
    pub(crate) looked: Option<Instant>,
    /// Until when its server asked its last look to wait.
    pub(crate) paused: Option<Instant>,
    /// What was last read of the Secrets that its spec names.
    pub(crate) found: Arc<Found>,
    /// The commits that are trusted, if its spec asks for signatures.
    pub(crate) trust: Option<Trust>,
    /// What was last found out of signatures.
    pub(crate) word: Option<Word>,
    /// Why it is not ready, for the applications that wait for it.
    pub(crate) problem: Option<String>,
    /// The status that was written last, in case the watch has not brought it back yet.
    pub(crate) written: Option<plumb_api::GitRepositoryStatus>,
    /// What was last found out about history, so that it is asked for once.
    pub(crate) turn: Option<Turn>,
    /// The commits that were last asked to be kept.
    pub(crate) kept: BTreeSet<String>,
    /// The commits that applications need and that are not at hand.
    pub(crate) wants: Wants,
    pub(crate) backoff: Backoff,
}

/// What a render was made of and came to.
#[derive(Clone)]
pub(crate) struct Rendered {
    pub(crate) remote: Arc<Remote>,
    pub(crate) revision: Revision,
    pub(crate) how: Arc<How>,
    pub(crate) inputs: Arc<Inputs>,
    /// Whether its last run left nothing to do.
    pub(crate) settled: bool,
    /// What its last run left where it is, since it is not Plumb's to change or to delete.
    pub(crate) kept: Box<[ObjectKey]>,
    /// What its last run found marked to be left alone. It is made again once it goes.
    pub(crate) left_alone: Box<[ObjectKey]>,
    /// Whether it rendered at all; if not, only another input helps.
    pub(crate) broken: bool,
    /// Whether it was refused as a whole.
    pub(crate) refused: bool,
}

/// What there is to say of an Application of which all is applied, once its objects are ready.
#[derive(Clone)]
pub(crate) struct Applied {
    pub(crate) say: Say,
    /// What is to be written, when that has not been done yet, with the conditions that stand.
    pub(crate) status: Option<Box<plumb_api::ApplicationStatus>>,
}

/// What an Application was asked for: a commit, by a generation of its spec.
pub(crate) type Looked = (CommitId, Option<i64>);

/// An Application and what is known of it.
pub(crate) struct App {
    pub(crate) object: Arc<Application>,
    pub(crate) set: Arc<ApplySet>,
    /// What was last read of the ConfigMaps and Secrets that its spec names.
    pub(crate) found: Arc<Found>,
    /// Shared with `good`, and with the run under way.
    pub(crate) rendered: Option<Arc<Rendered>>,
    /// The last render that was applied as a whole: what stays enforced while a newer one, or
    /// another path, is broken.
    pub(crate) good: Option<Arc<Rendered>>,
    /// The commit, and how it is rendered, that this process has seen in place as a whole since it
    /// last applied anything else.
    pub(crate) kept: Option<(CommitId, Arc<How>)>,
    /// A run was asked for that must not be skipped: spec, approval or request changed.
    pub(crate) forced: bool,
    /// A person asked for that run: it tries again what was put off.
    pub(crate) asked: bool,
    /// Which of all such requests was the last for it, counted.
    pub(crate) asked_as: u64,
    /// It was deleted with the word that what it has is to stay. That is seen for a moment only.
    pub(crate) orphans: bool,
    /// What it last looked at and said what it wants of.
    pub(crate) looked: Option<Looked>,
    /// What it was last asked for that is in place, or was, while its dependencies were ready.
    pub(crate) done: Option<Looked>,
    /// The expressions of its dependencies.
    pub(crate) exprs: Arc<[Compiled]>,
    /// Since when it waits for its dependencies.
    pub(crate) waits: Option<Waiting>,
    /// The revision of its source, counted, that was the first not to render since one did.
    pub(crate) broken: Option<u64>,
    /// The revision of its source, counted, at which nothing was left to do last.
    pub(crate) clean: Option<u64>,
    /// How long something of it has waited until others have looked.
    pub(crate) patience: Patience,
    /// How its objects are judged.
    pub(crate) rules: Option<OwnRules>,
    /// Its objects' health is asked for.
    pub(crate) asks: bool,
    /// What its last run is to say, if all of it was applied.
    pub(crate) applied: Option<Applied>,
    /// Its objects are not ready.
    pub(crate) wait: Option<Wait>,
    /// What its spec names to be waited for and it has not applied itself.
    pub(crate) others: BTreeSet<ObjectKey>,
    /// Which of its workloads is looked into.
    pub(crate) explained: Option<Workload>,
    /// It waits until these kinds are listed.
    pub(crate) waits_for: BTreeSet<GroupKind>,
    /// What keeps it from its next run.
    pub(crate) pause: Pause,
    /// Something came that may end what it failed for.
    pub(crate) news: bool,
    /// What was last written. Once it is seen, the object has none of its own, so that it is not kept
    /// twice.
    pub(crate) written: Option<Box<plumb_api::ApplicationStatus>>,
    /// Changes when a run under way has become pointless.
    pub(crate) wanted: u64,
    pub(crate) backoff: Backoff,
}

impl Source {
    /// Whether an object, which was taken before, is still the one that it is about, with the same spec.
    pub(crate) fn is_of(&self, object: &GitRepository) -> bool {
        let (now, then) = (&self.object.metadata, &object.metadata);
        now.uid == then.uid && now.generation == then.generation
    }

    /// Whether both follow the same ref of the same repository.
    fn is_twin(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.object.spec, &other.object.spec);
        ours.url == theirs.url && ours.reference == theirs.reference
    }

    /// Whether it stands at another commit than its twin, and can be expected to move. One that cannot
    /// be read may move in a moment, too: what the twin saw it will see.
    fn lags(&self, twin: &Self) -> bool {
        !self.object.spec.suspend && self.revision.is_some() && self.revision != twin.revision
    }

    /// Drops what was found out, as at a start of the process.
    pub(crate) fn forget(&mut self) {
        self.revision = None;
        self.remote = None;
        self.looked = None;
        self.paused = None;
        self.told = None;
        self.found = Arc::default();
        self.trust = None;
        self.word = None;
        self.problem = None;
        self.written = None;
        self.kept.clear();
        self.wants.clear();
        self.backoff.succeeded();
    }
}

impl App {
    /// The newest status that is known.
    pub(crate) fn status(&self) -> Option<&plumb_api::ApplicationStatus> {
        self.written.as_deref().or(self.object.status.as_deref())
    }

    /// Drops what was found out, as at a start of the process.
    pub(crate) fn forget(&mut self) {
        self.found = Arc::default();
        self.rendered = None;
        self.good = None;
        self.kept = None;
        self.forced = true;
        self.looked = None;
        self.done = None;
        self.waits = None;
        self.broken = None;
        self.clean = None;
        self.patience = Patience::Whole;
        self.waits_for.clear();
        self.applied = None;
        self.wait = None;
        self.news = true;
        if let Some(written) = self.written.take()
            && self.object.status.is_none()
        {
            Arc::make_mut(&mut self.object).status = Some(written);
        }
        self.backoff.succeeded();
    }
}

/// All of it, by name.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) sources: BTreeMap<Name, Source>,
    /// Each in a place of its own: those of a map are half empty on average.
    pub(crate) apps: BTreeMap<Name, Box<App>>,
    /// The applications that wait until their neighbours have looked.
    pub(crate) patient: BTreeSet<Name>,
    /// What is seen of the ConfigMaps and Secrets that specs name.
    pub(crate) named: Sight,
    /// The applications that wait for their dependencies.
    pub(crate) waiting: BTreeSet<Name>,
    /// Who names an application as a dependency.
    pub(crate) behind: Askers<Name>,
    /// How objects of any kind are that somebody waits for or tells of, and who does.
    pub(crate) objects: BTreeMap<ObjectRef, Seen>,
    pub(crate) depended_on: Askers<ObjectRef>,
    pub(crate) wanted_objects: watch::Sender<BTreeSet<ObjectRef>>,
    /// The applications that would have a workload looked into, as soon as there is room for it.
    pub(crate) unexplained: BTreeSet<Name>,
    /// How many revisions of all sources were seen.
    seqs: u64,
    /// How often a run of an Application was asked for.
    asks: u64,
    /// So many of them were seen when the kinds of the cluster were last looked at for one.
    answered: u64,
    by_set: BTreeMap<String, Name>,
}

/// The store, shared. Locked for moments only, never across an await.
#[derive(Clone, Default)]
pub(crate) struct State(Arc<Mutex<Store>>);

impl State {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Store> {
        // A panic while it is locked leaves whole entries behind: every change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Takes a GitRepository from the watch. Returns the work that it asks for.
    pub(crate) fn put_source(&mut self, mut object: GitRepository) -> Vec<Key> {
        lighten(&mut object.metadata);
        let name = Name::of(&object.metadata);
        let object = Arc::new(object);
        self.named.put(&Key::Source(name.clone()), named_by_source(&object));
        let Some(known) = self.sources.get_mut(&name) else {
            let backoff = Backoff::new(FIRST_RETRY, seed(&name));
            let source = Source {
                object,
                revision: None,
                seq: 0,
                remote: None,
                asked: Instant::now(),
                called: Some(Instant::now()),
                told: None,
                looked: None,
                paused: None,
                found: Arc::default(),
                trust: None,
                word: None,
                problem: None,
                written: None,
                turn: None,
                kept: BTreeSet::new(),
                wants: Wants::new(backoff.clone()),
                backoff,
            };
            self.sources.insert(name.clone(), source);
            return std::iter::once(Key::Source(name.clone()))
                .chain(self.dependants(&name))
                .collect();
        };
        let before = std::mem::replace(&mut known.object, Arc::clone(&object));
        if before.metadata.uid != object.metadata.uid {
            // Deleted and created again between two looks.
            known.forget();
            known.turn = None;
            return std::iter::once(Key::Source(name.clone()))
                .chain(self.dependants(&name))
                .collect();
        }
        if before.spec.verify != object.spec.verify {
            known.word = None;
        }
        let asked = asks(&before.metadata, &object.metadata, names::REQUESTED_AT)
            || asks(&before.metadata, &object.metadata, names::ACCEPT_REWRITE);
        if asked || before.metadata.generation != object.metadata.generation {
            return vec![Key::Source(name)];
        }
        Vec::new()
    }

    /// Forgets a GitRepository. Returns it, and the applications that used it.
    pub(crate) fn remove_source(&mut self, name: &Name) -> (Option<Arc<GitRepository>>, Vec<Key>) {
        let gone = self.sources.remove(name).map(|source| source.object);
        self.named.put(&Key::Source(name.clone()), BTreeSet::new());
        (gone, self.dependants(name).collect())
    }

    /// Takes an Application from the watch. Returns the work that it asks for.
    pub(crate) fn put_app(&mut self, mut object: Application) -> Vec<Key> {
        lighten(&mut object.metadata);
        let name = Name::of(&object.metadata);
        if let Some(known) = self.apps.get(&name)
            && known.object.metadata.uid == object.metadata.uid
            && known
                .written
                .as_deref()
                .is_some_and(|written| object.status.as_deref() == Some(written))
        {
            object.status = None;
        }
        let object = Arc::new(object);
        self.named.put(&Key::App(name.clone()), named_by(&object));
        let Some(known) = self.apps.get_mut(&name) else {
            let parent = GroupKind::new(names::GROUP, "Application");
            let set = Arc::new(ApplySet::new(parent, &name.namespace, &name.name));
            self.by_set.insert(set.id.clone(), name.clone());
            let backoff = Backoff::new(FIRST_RETRY, seed(&name));
            let app = App {
                orphans: orphans(&object.metadata),
                object: Arc::clone(&object),
                set,
                found: Arc::default(),
                rendered: None,
                good: None,
                kept: None,
                forced: true,
                asked: false,
                asked_as: 0,
                looked: None,
                done: None,
                exprs: depends::compile(&object.spec.depends_on),
                waits: None,
                broken: None,
                clean: None,
                patience: Patience::Whole,
                rules: None,
                asks: false,
                applied: None,
                wait: None,
                others: BTreeSet::new(),
                explained: None,
                waits_for: BTreeSet::new(),
                pause: Pause::default(),
                news: true,
                written: None,
                wanted: 0,
                backoff,
            };
            self.apps.insert(name.clone(), Box::new(app));
            self.note_dependencies(&name);
            let mut keys = self.all_behind(&name);
            keys.push(Key::App(name));
            return keys;
        };
        let before = std::mem::replace(&mut known.object, Arc::clone(&object));
        let (old, new) = (&before.metadata, &object.metadata);
        if old.uid != new.uid {
            // Deleted and created again between two looks.
            known.rendered = None;
            known.good = None;
            known.looked = None;
            known.done = None;
            known.broken = None;
            known.clean = None;
            known.written = None;
            known.rules = None;
            known.applied = None;
            known.wait = None;
            known.orphans = false;
            known.patience = Patience::Whole;
        }
        known.orphans |= orphans(new);
        let changed = old.uid != new.uid
            || old.generation != new.generation
            || old.deletion_timestamp != new.deletion_timestamp
            || asks(old, new, names::REQUESTED_AT)
            || asks(old, new, names::APPROVE_PRUNE)
            || asks(old, new, names::ABANDON)
            || (known.rendered.is_some()
                && has_facts(old, &known.set)
                && !has_facts(new, &known.set));
        if changed {
            known.forced = true;
            known.asked = true;
            self.asks += 1;
            known.asked_as = self.asks;
            known.wanted += 1;
        }
        let turned = before.spec.depends_on != object.spec.depends_on;
        if turned {
            known.exprs = depends::compile(&object.spec.depends_on);
        }
        if old.generation != new.generation {
            self.note_dependencies(&name);
        }
        // Who was in a circle may be free, and who was not may be in one.
        let mut keys = if turned {
            self.all_behind(&name)
        } else {
            self.waiting_for(&name).0.into_iter().map(Key::App).collect()
        };
        if changed {
            keys.retain(|key| *key.name() != name);
            keys.push(Key::App(name));
        }
        keys
    }

    /// Whether the kinds of the cluster have to be looked at for what an Application was asked for: one look
    /// does for all that asked before it.
    pub(crate) fn kinds_are_due(&mut self, name: &Name) -> bool {
        let due = self.apps.get(name).is_some_and(|app| app.asked_as >= self.answered);
        if due {
            self.answered = self.asks + 1;
        }
        due
    }

    /// Something came that may end what an Application failed for, or asks for a look at a
    /// GitRepository: at what it is from then on.
    pub(crate) fn note_news(&mut self, key: &Key, now: Instant) {
        match key {
            Key::App(name) => {
                if let Some(app) = self.apps.get_mut(name) {
                    app.news = true;
                }
            }
            Key::Source(name) => {
                if let Some(source) = self.sources.get_mut(name) {
                    source.asked = source.asked.max(now);
                    source.called = Some(now);
                }
            }
        }
    }

    /// Who has not read an object as it is now. Runs of Applications under way end early, and keys that
    /// are in it count no more.
    pub(crate) fn wake_askers(&mut self, named: &Named) -> Vec<Key> {
        let now = self.named.last(named);
        let is_old = |found: &Found| found.get(named).map(|f| Version::of(f.as_ref())) != now;
        let mut woken = Vec::new();
        let askers: Vec<Key> = self.named.askers(named).cloned().collect();
        for who in askers {
            let old = match &who {
                Key::App(name) => self.apps.get_mut(name).is_some_and(|app| {
                    let old = is_old(&app.found);
                    app.wanted += u64::from(old);
                    old
                }),
                Key::Source(name) => {
                    let old = self.sources.get(name).is_some_and(|source| is_old(&source.found));
                    if old {
                        woken.extend(self.distrust(name, named));
                    }
                    old
                }
            };
            if old {
                woken.push(who);
            }
        }
        woken
    }

    /// What an object of ours has last read of what it names.
    pub(crate) fn found(&self, who: &Key) -> Arc<Found> {
        let found = match who {
            Key::App(name) => self.apps.get(name).map(|app| &app.found),
            Key::Source(name) => self.sources.get(name).map(|source| &source.found),
        };
        found.cloned().unwrap_or_default()
    }

    /// Takes in what an object of ours has read of what it names.
    pub(crate) fn note_found(&mut self, who: &Key, found: &Arc<Found>) {
        for (named, content) in &**found {
            self.named.note(named, Version::of(content.as_ref()));
        }
        let known = match who {
            Key::App(name) => self.apps.get_mut(name).map(|app| &mut app.found),
            Key::Source(name) => self.sources.get_mut(name).map(|source| &mut source.found),
        };
        if let Some(known) = known {
            *known = Arc::clone(found);
        }
    }

    /// Forgets an Application that is gone, and returns it.
    pub(crate) fn remove_app(&mut self, name: &Name) -> Option<App> {
        let app = self.apps.remove(name)?;
        self.named.put(&Key::App(name.clone()), BTreeSet::new());
        self.waiting.remove(name);
        self.note_dependencies(name);
        self.by_set.remove(&app.set.id);
        Some(*app)
    }

    /// Whether an object of ours is there.
    pub(crate) fn has(&self, kind: Kind, name: &Name) -> bool {
        match kind {
            Kind::GitRepository => self.sources.contains_key(name),
            Kind::Application => self.apps.contains_key(name),
        }
    }

    /// The Application of a set.
    pub(crate) fn app_of_set(&self, set: &str) -> Option<&Name> {
        self.by_set.get(set)
    }

    /// The applications that take a source.
    pub(crate) fn dependants(&self, source: &Name) -> impl Iterator<Item = Key> + '_ {
        let source = source.clone();
        self.apps
            .iter()
            .filter(move |(name, app)| {
                name.namespace == source.namespace && app.object.spec.source_ref.name == source.name
            })
            .map(|(name, _)| Key::App(name.clone()))
    }

    /// Every kind that some application has, or may have, members of.
    pub(crate) fn kinds(&self) -> BTreeSet<GroupKind> {
        // Of a thousand applications most have the same; what is said a thousand times is read once.
        let mut texts = BTreeSet::new();
        for app in self.apps.values() {
            texts.extend(annotation(&app.object.metadata, names::APPLYSET_GROUP_KINDS));
            let scope = app.status().and_then(|status| status.scope.as_ref());
            texts.extend(scope.iter().flat_map(|scope| &scope.group_kinds).map(String::as_str));
        }
        let kinds = texts.into_iter().flat_map(|text| text.split(',')).map(str::trim);
        kinds.filter_map(GroupKind::parse).collect()
    }

    /// The commits of a source's repository that must stay readable: what its applications last
    /// applied, may go back to, or are pinned to, and what it stands for now.
    pub(crate) fn commits_to_keep(&self, source: &Name) -> BTreeSet<String> {
        let mut commits = BTreeSet::new();
        if let Some(known) = self.sources.get(source) {
            let status = known.written.as_ref().or(known.object.status.as_ref());
            // What stood before a restart will be wanted again.
            let told = || status.and_then(|status| commit_of(status.revision.as_deref()?));
            let commit = known.revision.as_ref().map(|revision| revision.commit).or_else(told);
            commits.extend(commit.map(|commit| commit.to_string()));
        }
        for key in self.dependants(source) {
            let Some(app) = self.apps.get(key.name()) else { continue };
            commits.extend(app.object.spec.revision.clone());
            for rendered in app.rendered.iter().chain(&app.good) {
                commits.insert(rendered.revision.commit.to_string());
            }
            let Some(status) = app.status() else { continue };
            let named = status.history.iter().map(|entry| &entry.revision);
            for revision in named.chain(&status.last_applied_revision) {
                commits.extend(commit_of(revision).map(|commit| commit.to_string()));
            }
        }
        commits
    }
}

/// The commit that a revision's text ends with, as in `main@sha1:<hex>`.
pub(crate) fn commit_of(revision: &str) -> Option<CommitId> {
    revision.rsplit_once("sha1:")?.1.parse().ok()
}

/// Where members of an application may be: its annotations, and the copy in its status.
pub(crate) fn scope_of(
    object: &Application,
    written: Option<&plumb_api::ApplicationStatus>,
) -> Scope {
    let hints = hints_of(object);
    let status = written.or(object.status.as_deref());
    hints.union(&recorded_scope(status))
}

/// Where members of an application may be, as its annotations say.
pub(crate) fn hints_of(object: &Application) -> Scope {
    object.metadata.annotations.as_ref().map_or_else(Scope::default, Scope::from_annotations)
}

/// The copy of the scope in a status.
pub(crate) fn recorded_scope(status: Option<&plumb_api::ApplicationStatus>) -> Scope {
    let recorded = status.and_then(|status| status.scope.as_ref());
    recorded.map_or_else(Scope::default, |scope| Scope {
        kinds: scope.group_kinds.iter().filter_map(|text| GroupKind::parse(text)).collect(),
        namespaces: scope.namespaces.iter().cloned().collect(),
    })
}

/// The kinds of which an Application is known to have inherited nothing.
pub(crate) fn settled_kinds(
    status: &plumb_api::ApplicationStatus,
    uid: Option<&str>,
) -> BTreeSet<GroupKind> {
    let settled =
        status.scope.iter().filter(|s| s.settled_for.is_some() && s.settled_for.as_deref() == uid);
    settled
        .flat_map(|scope| {
            scope.group_kinds.iter().filter(|kind| !scope.unsettled_kinds.contains(kind))
        })
        .filter_map(|text| GroupKind::parse(text))
        .collect()
}

/// Whether our label, annotations and finalizer are on an Application, and are about it: a copy
/// under another name brings those of the first along.
pub(crate) fn has_facts(metadata: &kube::core::ObjectMeta, set: &ApplySet) -> bool {
    annotation(metadata, names::APPLYSET_TOOLING).is_some_and(|tool| tool.starts_with("plumb/"))
        && annotation(metadata, names::APPLYSET_GROUP_KINDS).is_some()
        && annotation(metadata, names::APPLYSET_NAMESPACES).is_some()
        && annotation(metadata, names::APPLYSET_ID) == Some(&*set.id)
        && has_finalizer(metadata)
}

/// Whether our finalizer is on an object.
pub(crate) fn has_finalizer(metadata: &kube::core::ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == names::FINALIZER)
}

/// Whether it is being deleted with `--cascade=orphan`.
fn orphans(metadata: &kube::core::ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
        && metadata.finalizers.iter().flatten().any(|finalizer| finalizer == names::ORPHAN)
}

/// Which leader last wrote the facts of an Application.
pub(crate) fn epoch_of(metadata: &kube::core::ObjectMeta) -> Option<u64> {
    marked_epoch(annotation(metadata, names::EPOCH)?, metadata.uid.as_deref()?)
}

/// An annotation's value.
pub(crate) fn annotation<'m>(metadata: &'m kube::core::ObjectMeta, key: &str) -> Option<&'m str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn asks(old: &kube::core::ObjectMeta, new: &kube::core::ObjectMeta, key: &str) -> bool {
    annotation(new, key).is_some() && annotation(old, key) != annotation(new, key)
}

/// Drops what is never read and can be large. The one label that is read goes among the annotations: a map
/// for it alone would take half a kilobyte.
fn lighten(metadata: &mut kube::core::ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| {
            (key.contains("plumb.dev/") || key.contains("applyset.kubernetes.io/"))
                && key != names::APPLYSET_ID
        });
    }
    let id = metadata.labels.take().and_then(|mut labels| labels.remove(names::APPLYSET_ID));
    if let Some(id) = id {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(names::APPLYSET_ID.into(), id);
    }
}

fn seed(name: &Name) -> u64 {
    Digest::of(name.to_string().as_bytes()).short()
}

#[cfg(test)]
mod tests;
