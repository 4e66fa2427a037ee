//! What the runs of one Application may expect of the others: what one lets go of is deleted only
//! when all that may want it have looked at what is newest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_core::ObjectKey;
use plumb_engine::{MANAGER_PREFIX, Others, Report};

use super::Run;
use super::build::{Base, Built};
use super::policy::policy_of;
use crate::daemon::Daemon;
use crate::names::{Key, Name};
use crate::state::Looked;

/// How long a deletion waits for applications that have not looked yet. They do so as soon as a
/// worker is free; one that takes longer is held up by something that may last.
const SILENCE: Duration = Duration::from_mins(5);

/// How long an application that goes waits until what others ask for is taken.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long nothing is said of it. Most of it is over in a second.
const QUIET: Duration = Duration::from_secs(10);

/// How long something of an Application has waited until others have looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Patience {
    /// Nothing waits.
    #[default]
    Whole,
    /// Since then.
    Since(Instant),
    /// So long, and what waited could not be done then. For the sake of what it looked at it does not
    /// wait again: its status would go to and fro.
    Spent(Option<Looked>, Duration),
}

impl Patience {
    /// How long a run that looks at this has waited.
    fn waited(self, looked: Option<Looked>, now: Instant) -> Duration {
        match self {
            Self::Since(since) => now.saturating_duration_since(since),
            Self::Spent(of, waited) if of == looked => waited,
            Self::Whole | Self::Spent(..) => Duration::ZERO,
        }
    }

    /// After a run that looked at this: whether something waits, and if not, whether something is
    /// still to be done. It was not to wait for longer than `limit`.
    fn after(
        self,
        looked: Option<Looked>,
        (waits, left): (bool, bool),
        limit: Duration,
        now: Instant,
    ) -> Self {
        let waited = self.waited(looked, now);
        match self {
            Self::Since(_) if waits => self,
            _ if waits => Self::Since(now.checked_sub(waited).unwrap_or(now)),
            _ if left && waited >= limit => Self::Spent(looked, waited),
            _ => Self::Whole,
        }
    }
}

/// The other applications, as seen from one run.
pub(super) struct Neighbours<'r> {
    daemon: &'r Daemon,
    run: &'r Run,
    looked: Option<Looked>,
    waited: Duration,
}

impl Others for Neighbours<'_> {
    fn spoken(&self) {
        if let Some(looked) = self.looked {
            self.daemon.mended(&self.run.name);
            self.daemon.looked(&self.run.name, looked);
        }
    }

    fn is_silent(&self, manager: &str) -> bool {
        let name = manager.strip_prefix(MANAGER_PREFIX).and_then(|name| name.split_once('/'));
        let Some((namespace, name)) = name else { return false };
        let other = Name::new(namespace, name);
        // Like one that has not looked yet, one that goes may let go of anything in a moment.
        self.waited < SILENCE
            && (self.daemon.state.lock().is_silent_to(&other, &self.run.name)
                || self.daemon.goes(&other))
    }

    fn any_silent(&self) -> bool {
        self.waited < SILENCE && self.daemon.state.lock().any_silent(&self.run.name)
    }

    fn broken(&self) -> Option<String> {
        let found = self.daemon.state.lock().broken_neighbour(&self.run.name);
        found.map(|name| name.to_string())
    }

    fn is_patient(&self) -> bool {
        self.waited < PATIENCE
    }
}

impl Daemon {
    /// The others, for a run that is about a commit.
    pub(super) fn neighbours<'r>(&'r self, run: &'r Run, looked: Option<Looked>) -> Neighbours<'r> {
        let patience = self.state.lock().apps.get(&run.name).map(|app| app.patience);
        let waited = patience.unwrap_or_default().waited(looked, Instant::now());
        Neighbours { daemon: self, run, looked, waited }
    }

    /// Whether an Application is being deleted, or is about to be, because what applied it does not ask
    /// for it any more.
    fn goes(&self, name: &Name) -> bool {
        let (deleted, parent) = {
            let store = self.state.lock();
            let Some(app) = store.apps.get(name) else { return false };
            (app.object.metadata.deletion_timestamp.is_some(), app.set.parent.clone())
        };
        deleted || self.engine.is_let_go(&ObjectKey::new(parent, &name.namespace, &name.name))
    }

    /// An Application has said what it wants of a commit, or that it cannot say. Those that waited
    /// for the last of their neighbours go on.
    pub(super) fn looked(&self, name: &Name, looked: Looked) {
        let go_on = {
            let mut store = self.state.lock();
            let Some(app) = store.apps.get_mut(name) else { return };
            if app.looked.replace(looked) == Some(looked) {
                return;
            }
            store.take_patient()
        };
        for name in go_on {
            self.call(Key::App(name));
        }
    }

    /// A suspended Application does nothing, but what others let go may be meant for it: it says what
    /// it would want of what is newest.
    pub(super) async fn speak(self: &Arc<Self>, run: &Run) {
        // Who has no values says nothing, and is waited for like one that has not looked yet.
        let Ok(values) = self.values(run).await else { return };
        let Ok(base) = self.base(run, values) else { return };
        self.note_still(run, &base).await;
        self.speak_of(run, &base, false).await;
    }

    /// Says what an Application would want of a commit that it does not apply yet.
    pub(super) async fn speak_of(self: &Arc<Self>, run: &Run, base: &Base, lets_go: bool) {
        let looks_at = run.looks_at(base);
        let app = self.state.lock().apps.get(&run.name).map(|app| app.looked);
        if app.is_none_or(|looked| looked == Some(looks_at)) {
            return;
        }
        let heard = match self.build(run, base).await {
            Ok((Built::Objects(objects), _)) => {
                let adopt = policy_of(&run.object.spec).adopt;
                self.engine.hear(&run.set, adopt, objects, lets_go).await.is_ok()
            }
            Ok((Built::Broken { .. }, _)) => {
                self.note_broken(run, base.seq);
                self.looked(&run.name, looks_at);
                return;
            }
            Err(_) => false,
        };
        if heard {
            self.succeeded(run);
            self.mended(&run.name);
            self.looked(&run.name, looks_at);
        } else {
            // Those who wait for it do so for some time only.
            self.plan_retry(run, &base.revision.to_string());
        }
    }

    /// An Application does not render, from this revision of its source on.
    pub(super) fn note_broken(&self, run: &Run, seq: u64) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.broken.get_or_insert(seq);
        }
    }

    /// An Application renders. What was held for its sake is judged again.
    fn mended(&self, name: &Name) {
        let mut store = self.state.lock();
        let Some(app) = store.apps.get_mut(name) else { return };
        if app.broken.take().is_none() {
            return;
        }
        let source = Name::new(&name.namespace, &app.object.spec.source_ref.name);
        let relatives = store.relatives(&source);
        drop(store);
        for key in relatives.into_iter().filter(|key| key.name() != name) {
            self.call(key);
        }
    }

    /// An Application has all that this revision of its source asks for, and nothing too many.
    pub(super) fn note_clean(&self, run: &Run, seq: u64) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.clean = Some(seq);
        }
    }

    /// Notes whether a run has left something that waits for others. Returns whether that is too
    /// young to be told.
    pub(super) fn note_waits(&self, run: &Run, looked: Option<Looked>, report: &Report) -> bool {
        let left = !report.is_complete() || report.held.is_some();
        let now = Instant::now();
        let mut store = self.state.lock();
        let Some(app) = store.apps.get_mut(&run.name) else { return false };
        let goes = run.object.metadata.deletion_timestamp.is_some();
        let limit = if goes { PATIENCE } else { SILENCE };
        app.patience = app.patience.after(looked, (report.waits, left), limit, now);
        let waited = app.patience.waited(looked, now);
        if report.waits {
            store.patient.insert(run.name.clone());
        }
        report.waits && waited < QUIET
    }

    /// A run came to nothing. What waited is not known to wait any longer, and until it does again the
    /// others may have much new to look at: that is waited for as ever.
    pub(super) fn wait_no_more(&self, run: &Run) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.patience = Patience::Whole;
        }
    }
}

#[cfg(test)]
mod tests {
    use plumb_engine::EngineError;

    use super::*;
    use crate::daemon::tests::{Api, Stand};

    #[tokio::test]
    async fn a_farewell_waits_a_minute_for_others_and_a_deletion_five() {
        let stand = Stand::new(Api::new());
        // Nobody has read it, so what its applications want is not known.
        stand.source("repo", "http://127.0.0.1:1/repo.git", None);
        let web = stand.app("web");
        stand.app("other");
        let run = stand.daemon.begin(&web).unwrap();
        for (seconds, patient, silent) in [
            (None, true, true),
            (Some(59), true, true),
            (Some(61), false, true),
            (Some(299), false, true),
            (Some(301), false, false),
        ] {
            let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
            let patience = seconds.map_or(Patience::Whole, |seconds| Patience::Since(ago(seconds)));
            stand.daemon.state.lock().apps.get_mut(&web).unwrap().patience = patience;
            let others = stand.daemon.neighbours(&run, None);
            assert_eq!(
                (others.is_patient(), others.any_silent()),
                (patient, silent),
                "{seconds:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_waited_before_runs_that_came_to_nothing_waits_anew() {
        let stand = Stand::new(Api::new());
        stand.source("repo", "http://127.0.0.1:1/repo.git", None);
        let web = stand.app("web");
        let long_ago = Instant::now().checked_sub(Duration::from_hours(1)).unwrap();
        let after = async |suspend| {
            {
                let mut store = stand.daemon.state.lock();
                let app = store.apps.get_mut(&web).unwrap();
                Arc::make_mut(&mut app.object).spec.suspend = suspend;
                app.patience = Patience::Since(long_ago);
            }
            Box::pin(stand.daemon.run_app(&web)).await;
            stand.daemon.state.lock().apps[&web].patience
        };
        assert_eq!(after(false).await, Patience::Whole, "there is no revision");
        assert_eq!(after(true).await, Patience::Whole);
        // One that failed, as when the API server is away.
        stand.daemon.state.lock().apps.get_mut(&web).unwrap().patience = Patience::Since(long_ago);
        let error = EngineError::ParentGone { parent: "web".into() };
        let run = stand.daemon.begin(&web).unwrap();
        stand.daemon.failed_run(&run, None, &error).await;
        assert_eq!(stand.daemon.state.lock().apps[&web].patience, Patience::Whole);
    }

    #[test]
    fn what_waited_in_vain_does_not_wait_again_for_the_same_commit() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let looked = |c: char| Some((c.to_string().repeat(40).parse().unwrap(), Some(1)));
        let (one, two) = (looked('1'), looked('2'));
        let waits = Patience::Whole.after(one, (true, true), SILENCE, at(0));
        assert_eq!(waits, Patience::Since(at(0)));
        // Another commit begins no other wait, or one that comes every minute kept everything.
        let waits = waits.after(two, (true, true), SILENCE, at(200));
        assert_eq!((waits, waits.waited(two, at(299))), (Patience::Since(at(0)), at(299) - start));
        // All have looked, or nothing is left to do.
        assert_eq!(waits.after(two, (false, true), SILENCE, at(200)), Patience::Whole);
        assert_eq!(waits.after(two, (false, false), SILENCE, at(300)), Patience::Whole);
        // It was over, and a person has to say what becomes of it.
        let spent = waits.after(two, (false, true), SILENCE, at(300));
        assert_eq!(spent, Patience::Spent(two, SILENCE));
        assert!(spent.waited(two, at(301)) >= SILENCE);
        assert_eq!(spent.after(two, (false, true), SILENCE, at(400)), spent);
        assert_eq!(spent.after(two, (false, false), SILENCE, at(400)), Patience::Whole);
        // What leaves Git with another commit is waited for as ever.
        assert_eq!(spent.waited(one, at(301)), Duration::ZERO);
        assert_eq!(spent.after(one, (true, true), SILENCE, at(500)), Patience::Since(at(500)));
    }

    /// Its status went to and fro every minute.
    #[test]
    fn a_farewell_that_waited_its_minute_in_vain_does_not_wait_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let waits = Patience::Since(at(0));
        let spent = waits.after(None, (false, true), PATIENCE, at(61));
        assert!(spent.waited(None, at(70)) >= PATIENCE);
        assert_eq!(spent.after(None, (false, true), PATIENCE, at(100)), spent);
        // Who has not looked is waited for as long as ever.
        assert!(spent.waited(None, at(100)) < SILENCE);
        let silent = spent.after(None, (true, true), PATIENCE, at(100));
        assert_eq!(silent.waited(None, at(100)), Duration::from_secs(61));
        assert_eq!(waits.after(None, (false, true), PATIENCE, at(59)), Patience::Whole);
    }
}
