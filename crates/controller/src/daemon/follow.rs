//! What the watches tell: of our own kinds, and of the members of applications.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt as _;
use futures::stream::SelectAll;
use plumb_api::{Application, GitRepository};
use plumb_core::Digest;
use plumb_engine::{ApiError, Signal, WatchEvent, watch_typed};
use tokio::sync::mpsc;

use super::{BEAT, Daemon, OWN_KINDS, source_resource};
use crate::apps::application_resource;
use crate::metrics::Kind;
use crate::names::{Key, Name};
use crate::queue::Lane;
use crate::server::{Heartbeat, Readiness};
use crate::state::{App, Store, hints_of, scope_of};

impl Daemon {
    /// Feeds the watches of our own kinds into the state, for ever.
    pub(super) async fn follow_own_kinds(
        self: Arc<Self>,
        readiness: Readiness,
        heartbeat: Heartbeat,
    ) {
        let scopes: Vec<Option<String>> = if self.settings.namespaces.is_empty() {
            vec![None]
        } else {
            self.settings.namespaces.iter().cloned().map(Some).collect()
        };
        let mut missing = 2 * scopes.len();
        let mut events = SelectAll::new();
        for (index, scope) in scopes.iter().enumerate() {
            let cluster = self.engine.cluster();
            let sources =
                watch_typed::<GitRepository>(cluster, &source_resource(), "", scope.as_deref());
            let apps =
                watch_typed::<Application>(cluster, &application_resource(), "", scope.as_deref());
            events.push(sources.map(move |event| (index, Own::Source(event))).boxed());
            events.push(apps.map(move |event| (index, Own::App(event))).boxed());
        }
        let mut listed = BTreeSet::new();
        let mut unreadable: BTreeMap<(usize, bool), BTreeSet<Name>> = BTreeMap::new();
        let mut beat = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                _ = beat.tick() => heartbeat.beat(),
                event = events.next() => {
                    let Some((index, event)) = event else { return };
                    let kind = matches!(event, Own::App(_));
                    let part = Part {
                        namespace: scopes[index].as_deref(),
                        unreadable: unreadable.entry((index, kind)).or_default(),
                    };
                    let complete = match event {
                        Own::Source(event) => self.take_source(event, part),
                        Own::App(event) => self.take_app(event, part),
                    };
                    if complete && listed.insert((index, kind)) {
                        missing -= 1;
                        if missing == 0 {
                            let kinds = self.state.lock().kinds();
                            // A failure is told by the runs that need these kinds.
                            let _ = self.engine.watch(&kinds).await;
                            readiness.filled(OWN_KINDS);
                        }
                    }
                }
            }
        }
    }

    /// Returns whether this was a complete list.
    fn take_source(self: &Arc<Self>, event: WatchEvent<GitRepository>, part: Part<'_>) -> bool {
        match event {
            WatchEvent::Restarted => part.unreadable.clear(),
            WatchEvent::Listed(objects, _) => {
                let present = objects.iter().map(|(_, o)| Name::of(&o.metadata)).collect();
                let gone = part.gone(self.state.lock().sources.keys(), &present);
                for name in gone {
                    self.drop_source(&name);
                }
                let mut store = self.state.lock();
                let keys: Vec<Key> =
                    objects.into_iter().flat_map(|(_, o)| store.put_source(o)).collect();
                drop(store);
                self.call_all(keys);
                return true;
            }
            WatchEvent::Changed(_, object) => {
                let keys = self.state.lock().put_source(object);
                self.call_all(keys);
            }
            WatchEvent::Deleted(_, object) => {
                self.drop_source(&Name::of(&object.metadata));
            }
            WatchEvent::Unreadable(key, error) => part.keep(&key, &error),
            WatchEvent::Failed(error) => tracing::warn!(%error, "cannot watch GitRepositories"),
        }
        false
    }

    fn drop_source(self: &Arc<Self>, name: &Name) {
        let (gone, keys) = self.state.lock().remove_source(name);
        self.metrics.forget(Kind::GitRepository, &name.namespace, &name.name);
        self.events
            .forget(gone.and_then(|o| o.metadata.uid.clone()).as_deref().unwrap_or_default());
        self.queue.remove(&Key::Source(name.clone()));
        self.withdraw(name);
        self.call_all(keys);
        let daemon = Arc::clone(self);
        tokio::spawn(async move { daemon.forget_mirrors().await });
    }

    fn take_app(self: &Arc<Self>, event: WatchEvent<Application>, part: Part<'_>) -> bool {
        match event {
            WatchEvent::Restarted => part.unreadable.clear(),
            WatchEvent::Listed(objects, _) => {
                let present = objects.iter().map(|(_, o)| Name::of(&o.metadata)).collect();
                let gone = part.gone(self.state.lock().apps.keys(), &present);
                for name in gone {
                    self.drop_app(&name);
                }
                let mut store = self.state.lock();
                self.follow_kinds(&objects.iter().map(|(_, app)| app).collect::<Vec<_>>());
                let keys: Vec<Key> =
                    objects.into_iter().flat_map(|(_, o)| self.put_app(&mut store, o)).collect();
                drop(store);
                self.call_all(keys);
                return true;
            }
            WatchEvent::Changed(_, object) => {
                self.follow_kinds(&[&object]);
                let keys = self.put_app(&mut self.state.lock(), object);
                self.call_all(keys);
            }
            WatchEvent::Deleted(_, object) => {
                self.drop_app(&Name::of(&object.metadata));
            }
            WatchEvent::Unreadable(key, error) => part.keep(&key, &error),
            WatchEvent::Failed(error) => tracing::warn!(%error, "cannot watch Applications"),
        }
        false
    }

    /// Takes an Application in. One whose facts somebody has edited is run, too.
    fn put_app(&self, store: &mut Store, object: Application) -> Vec<Key> {
        let name = Name::of(&object.metadata);
        let mut keys = store.put_app(object);
        if let Some(app) = store.apps.get_mut(&name) {
            self.attend(app);
            self.witness(app);
            let runs = keys.contains(&Key::App(name.clone()));
            if !runs && self.engine.is_edited(&app.set, &hints_of(&app.object)) {
                app.forced = true;
                keys.push(Key::App(name));
            }
        }
        keys
    }

    pub(super) fn drop_app(self: &Arc<Self>, name: &Name) {
        let gone = self.state.lock().remove_app(name);
        self.tell_waiting(name);
        self.metrics.forget(Kind::Application, &name.namespace, &name.name);
        self.queue.remove(&Key::App(name.clone()));
        let Some(gone) = gone else { return };
        self.engine.forget_set(&gone.set.id);
        self.events.forget(gone.object.metadata.uid.as_deref().unwrap_or_default());
        // It may have been the last to name the mirror of a source that is gone or has moved.
        let source = Name::new(&name.namespace, &gone.object.spec.source_ref.name);
        let store = self.state.lock();
        let named = store.sources.get(&source).and_then(|source| source.remote.as_ref());
        let mut mirrors = gone.rendered.iter().chain(&gone.good).map(|rendered| &rendered.remote);
        if mirrors.any(|remote| named != Some(remote)) {
            let daemon = Arc::clone(self);
            tokio::spawn(async move { daemon.forget_mirrors().await });
        }
    }

    /// Turns what the member watches find into runs.
    pub(super) async fn follow_signals(
        self: Arc<Self>,
        mut signals: mpsc::UnboundedReceiver<Signal>,
    ) {
        while let Some(signal) = signals.recv().await {
            let mut store = self.state.lock();
            let app_of = |set: &str| store.app_of_set(set).cloned().map(Key::App);
            if let Signal::Set(set) | Signal::Later(set, _) = &signal
                && let Some(app) = app_of(set).and_then(|key| store.apps.get(key.name()))
            {
                self.witness(app);
            }
            match signal {
                Signal::Set(set) => {
                    if let Some(key) = app_of(&set) {
                        let app = store.apps.get(key.name());
                        // Of one that is still being applied a run is more than putting something back.
                        let rendered = app.and_then(|app| app.rendered.as_ref());
                        let settled = rendered.is_some_and(|rendered| rendered.settled);
                        if !app.is_some_and(|app| self.waits_for_lists(app)) {
                            self.queue.add(key, if settled { Lane::Drift } else { Lane::Urgent });
                        }
                    }
                }
                Signal::Health(set) => {
                    if let Some(key) = app_of(&set)
                        && !store.apps.get(key.name()).is_some_and(|app| self.waits_for_lists(app))
                    {
                        self.queue.add(key, Lane::Urgent);
                    }
                }
                Signal::Later(set, wait) => {
                    if let Some(key) = app_of(&set) {
                        self.queue.add_after(key, wait, Lane::Routine);
                    }
                }
                Signal::Freed(set) => {
                    if let Some(key) = app_of(&set) {
                        store.note_news(&key, Instant::now());
                        self.queue.add(key, Lane::Urgent);
                    }
                }
                Signal::Kind(kind) => {
                    let waiting = store.apps.iter_mut().filter(|(_, app)| {
                        app.waits_for.contains(&kind) && !self.waits_for_lists(app)
                    });
                    for (name, app) in waiting {
                        app.news = true;
                        self.queue.add(Key::App(name.clone()), Lane::Urgent);
                    }
                }
                Signal::Sight(kind) => {
                    for (name, app) in &store.apps {
                        let status = app.status();
                        if scope_of(&app.object, status).kinds.contains(&kind) {
                            self.queue.add(Key::App(name.clone()), Lane::Routine);
                        }
                    }
                }
            }
        }
    }

    /// Whether an Application waits until kinds are listed, and one of them is not. It is called with the
    /// last of them, and whatever else calls it before that finds nothing else to do than to wait.
    fn waits_for_lists(&self, app: &App) -> bool {
        !app.waits_for.is_empty() && !self.engine.pending(&app.waits_for).is_empty()
    }

    /// A standby notes how the objects of an Application are when all are as its status says, whichever of
    /// both watches is the later one.
    fn witness(&self, app: &App) {
        let recorded = || app.status()?.cluster_digest.as_deref().and_then(Digest::parse);
        if self.leadership.epoch().is_none()
            && let Some(recorded) = recorded()
        {
            self.engine.witness(&app.set, recorded);
        }
    }

    /// A standby follows the kinds that come into use, so that it has them when it takes over. A
    /// leader does so in its runs.
    fn follow_kinds(self: &Arc<Self>, apps: &[&Application]) {
        if self.leadership.epoch().is_some() {
            return;
        }
        let kinds: BTreeSet<_> = apps.iter().flat_map(|app| scope_of(app, None).kinds).collect();
        let daemon = Arc::clone(self);
        tokio::spawn(async move {
            // A failure is told by the runs that need these kinds.
            let _ = daemon.engine.watch(&kinds).await;
        });
    }
}

/// The part of one of our kinds that one watch sees.
struct Part<'p> {
    /// Its namespace; all of them when there is none.
    namespace: Option<&'p str>,
    /// What its LIST could not read.
    unreadable: &'p mut BTreeSet<Name>,
}

impl Part<'_> {
    fn keep(self, key: &plumb_core::ObjectKey, error: &ApiError) {
        tracing::warn!(%key, %error, "cannot read");
        self.unreadable.insert(Name::new(&key.namespace, &key.name));
    }

    /// Which known objects of this part are not there any more.
    fn gone<'n>(
        &self,
        known: impl Iterator<Item = &'n Name>,
        present: &BTreeSet<Name>,
    ) -> Vec<Name> {
        known
            .filter(|name| self.namespace.is_none_or(|namespace| namespace == name.namespace))
            .filter(|name| !present.contains(name) && !self.unreadable.contains(name))
            .cloned()
            .collect()
    }
}

/// An event of one of the two watches.
enum Own {
    Source(WatchEvent<GitRepository>),
    App(WatchEvent<Application>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_list_lacks_is_gone_but_for_what_it_cannot_read() {
        let name = |text: &str| {
            let (namespace, name) = text.split_once('/').unwrap();
            Name::new(namespace, name)
        };
        let known = ["a/1", "a/2", "a/3", "b/1"].map(name);
        let present = BTreeSet::from([name("a/1")]);
        let mut unreadable = BTreeSet::from([name("a/2")]);
        for (namespace, gone) in [(None, vec!["a/3", "b/1"]), (Some("a"), vec!["a/3"])] {
            let part = Part { namespace, unreadable: &mut unreadable };
            let gone: Vec<Name> = gone.into_iter().map(name).collect();
            assert_eq!(part.gone(known.iter(), &present), gone);
        }
    }
}
