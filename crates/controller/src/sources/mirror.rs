//! What a look does with the mirror besides reading the ref: it brings what applications ask for, and
//! lets go of what nobody names any more.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plumb_api::GitRepository;
use plumb_api::conditions::READY;
use plumb_core::ErrorClass;
use plumb_source::{Cancel, CommitId, Remote, Revision, SourceError};

use super::trust::By;
use super::{Missed, Place, Problem, SLOW_RETRY};
use crate::daemon::{Daemon, Panicked};
use crate::events::Severity;
use crate::metrics::Kind;
use crate::names::{Key, Name};
use crate::state::Source;

/// Why a source is not ready that waits for room on the disk.
pub(super) const FOR_ROOM: [&str; 2] = ["CacheFull", "DiskFull"];

impl Daemon {
    /// Brings the commits that applications ask for, after a look that came to this. Returns when the
    /// next look is due for those that did not come.
    pub(super) async fn bring_wanted(
        self: &Arc<Self>,
        name: &Name,
        object: &GitRepository,
        look: &Result<(Remote, Revision), Missed>,
        place: &mut Option<Place>,
    ) -> Option<Duration> {
        let (known, wanted) = self.wanted(name)?;
        if wanted.is_empty() {
            return None;
        }
        // Where to ask, and why nobody is to be asked.
        let (remote, mut shut) = match look {
            Ok((remote, _)) => (Some(remote.clone()), None),
            Err(Missed::CutShort | Missed::Parked) => return None,
            // What kept the ref from being read keeps commits from coming, too.
            Err(Missed::Problem(problem)) if problem.class == ErrorClass::Retry => {
                (known, Some(problem.clone()))
            }
            Err(Missed::Problem(_)) => match self.remote(name, object).await {
                Ok(remote) => (Some(remote), None),
                Err(problem) => (known, Some(problem)),
            },
        };
        for commit in wanted {
            let from = match (&remote, &shut) {
                (Some(remote), Some(_)) => self.is_sound(remote, commit).await.then_some(remote),
                (remote, _) => remote.as_ref(),
            };
            let result = match (from, &shut) {
                (Some(remote), _) => match self.bring(name, object, remote, commit, place).await {
                    Ok(()) => Ok(()),
                    // One that waits for its place is called, and brings it then.
                    Err(Missed::CutShort | Missed::Parked) => return None,
                    Err(Missed::Problem(problem)) => Err(problem),
                },
                (None, Some(problem)) => Err(problem.clone()),
                (None, None) => continue,
            };
            // A server that does not answer is not waited for once more.
            if let Err(problem) = &result
                && problem.class == ErrorClass::Retry
            {
                shut = Some(problem.clone());
            }
            self.answer(name, &commit, &result);
        }
        let cap = Duration::from(object.spec.interval).min(SLOW_RETRY);
        self.state.lock().sources.get_mut(name)?.wants.next_look(cap)
    }

    /// The same of those that are at hand and found to be good, before any server is asked.
    pub(super) async fn bring_at_hand(&self, name: &Name, object: &GitRepository) {
        let Some((Some(remote), wanted)) = self.wanted(name) else { return };
        for commit in wanted {
            if self.is_sound(&remote, commit).await
                && self.verify_aside(name, object, &remote, commit, &By::Any).await.is_ok()
            {
                self.answer(name, &commit, &Ok(()));
            }
        }
    }

    /// The commits that applications ask for, and where the source was read last.
    fn wanted(&self, name: &Name) -> Option<(Option<Remote>, Vec<CommitId>)> {
        let mut store = self.state.lock();
        let named = store.commits_to_keep(name);
        let source = store.sources.get_mut(name)?;
        let wanted = source.wants.retain(|commit| named.contains(&commit.to_string()));
        Some((source.remote.as_deref().cloned(), wanted))
    }

    /// Brings one commit, without a server if it is at hand, and sees who signed it.
    async fn bring(
        self: &Arc<Self>,
        name: &Name,
        object: &GitRepository,
        remote: &Remote,
        commit: CommitId,
        place: &mut Option<Place>,
    ) -> Result<(), Missed> {
        self.fetch(name, remote, commit, place).await?;
        self.verify_aside(name, object, remote, commit, &By::Any).await?;
        self.bring_submodules(name, remote, commit, place).await
    }

    /// Tells those that ask for a commit what became of it.
    fn answer(&self, name: &Name, commit: &CommitId, result: &Result<(), Problem>) {
        let told = {
            let mut store = self.state.lock();
            let source = store.sources.get_mut(name);
            source.map(|source| source.wants.answer(commit, result)).unwrap_or_default()
        };
        for app in told {
            self.call(Key::App(app));
        }
    }

    /// Brings the submodules of a commit that is at hand, where the spec asks for them. That comes
    /// after its verification: nobody is asked for what an unsigned commit names.
    pub(super) async fn bring_submodules(
        self: &Arc<Self>,
        name: &Name,
        remote: &Remote,
        commit: CommitId,
        place: &mut Option<Place>,
    ) -> Result<(), Missed> {
        if !remote.submodules {
            return Ok(());
        }
        // They may be on other servers, each of which has places of its own.
        *place = None;
        let missed: Arc<Mutex<Option<Missed>>> = Arc::default();
        let (mirrors, target) = (Arc::clone(&self.mirrors), remote.clone());
        let (daemon, who, stopped) = (Arc::clone(self), name.clone(), Arc::clone(&missed));
        let fetch = move |cancel: &Cancel| {
            let ask =
                |remote: &Remote, fetch: &mut dyn FnMut() -> Result<(), SourceError>| match daemon
                    .enter(&who, remote)
                {
                    Ok(mut place) => {
                        let fetched = fetch();
                        place.note_fetch(&fetched);
                        fetched
                    }
                    Err(why) => {
                        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                        Err(SourceError::Cancelled)
                    }
                };
            mirrors.fetch_submodules(&target, &commit, cancel, &ask)
        };
        let fetched = self.blocking(Kind::GitRepository, fetch).await?;
        let missed = missed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match missed {
            Some(missed) => Err(missed),
            None => Ok(fetched?),
        }
    }

    /// Tells the mirror which commits are still named by somebody.
    pub(crate) async fn keep_commits(self: &Arc<Self>, name: &Name) {
        let (object, remote, wanted, commits) = {
            let store = self.state.lock();
            let wanted = store.commits_to_keep(name);
            let Some(source) = store.sources.get(name) else { return };
            let object = Arc::clone(&source.object);
            let Some(remote) = source.remote.clone() else { return };
            if source.kept == wanted {
                return;
            }
            let all = store.commits_of_mirror(&remote);
            (object, remote, wanted, all)
        };
        let commits: Vec<_> = commits.iter().filter_map(|commit| commit.parse().ok()).collect();
        let mirrors = Arc::clone(&self.mirrors);
        let keep = move |_: &Cancel| mirrors.keep(&remote, &commits);
        let kept = self.blocking(Kind::GitRepository, keep).await;
        match kept {
            Ok(Ok(())) => {
                if let Some(source) = self.state.lock().sources.get_mut(name) {
                    source.kept = wanted;
                }
            }
            // Somebody is at work there, and looks again.
            Ok(Err(SourceError::Timeout { .. })) | Err(Panicked) => {}
            Ok(Err(error)) => {
                tracing::warn!(source = %name, %error, "cannot tidy the mirror");
                // Everything that is named is still there, so it is no problem of the source; yet.
                let message = Problem::from(error);
                let reason = (message.reason.as_str(), "Tidy");
                let about = (Kind::GitRepository, &object.metadata);
                self.note(about, Severity::Warning, reason, &message.message, None);
            }
        }
    }

    /// Whether it is known of each GitRepository which mirror it names, if it has one.
    pub(super) fn knows_mirrors(&self) -> bool {
        let may_have_one = |source: &Source| {
            let status = source.written.as_ref().or(source.object.status.as_ref());
            status.is_some_and(|status| status.revision.is_some())
        };
        let store = self.state.lock();
        !store.sources.values().any(|source| source.remote.is_none() && may_have_one(source))
    }

    /// Mirrors that nobody names any more are deleted.
    pub(crate) async fn forget_mirrors(self: &Arc<Self>) {
        if self.knows_mirrors() {
            self.untidy.store(false, Ordering::Relaxed);
        }
        let moment = self.mirrors.moment();
        let (remotes, urls): (Vec<Remote>, Vec<String>) = {
            let store = self.state.lock();
            let named = store.sources.values().filter_map(|source| source.remote.clone());
            // What was applied stays enforced when its source is deleted.
            let applied = store.apps.values().flat_map(|app| app.rendered.iter().chain(&app.good));
            let applied = applied.map(|rendered| Arc::clone(&rendered.remote));
            let mut remotes: Vec<_> = named.chain(applied).collect();
            // Most have one and the same.
            remotes.dedup_by(|a, b| Arc::ptr_eq(a, b));
            let remotes = remotes.iter().map(|remote| Remote::clone(remote)).collect();
            // One that was not read yet in this process may name any mirror of its URL: its Secret may
            // not be there just now.
            let unread = store.sources.values().filter(|source| source.remote.is_none());
            (remotes, unread.map(|source| source.object.spec.url.clone()).collect())
        };
        let mirrors = Arc::clone(&self.mirrors);
        let retain = move |_: &Cancel| mirrors.retain(moment, &remotes, &urls);
        let before = self.mirrors.usage().evicted;
        if let Ok(Err(error)) = self.blocking(Kind::GitRepository, retain).await {
            tracing::warn!(%error, "cannot delete unused mirrors");
        }
        if self.mirrors.usage().evicted == before {
            return;
        }
        // There is more room now.
        let waits = |source: &Source| {
            let status = source.written.as_ref().or(source.object.status.as_ref());
            let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
            conditions.iter().any(|c| c.type_ == READY && FOR_ROOM.contains(&c.reason.as_str()))
        };
        let waiting: Vec<Key> = {
            let store = self.state.lock();
            let waiting = store.sources.iter().filter(|(_, source)| waits(source));
            waiting.map(|(name, _)| Key::Source(name.clone())).collect()
        };
        for key in waiting {
            self.call(key);
        }
    }
}
