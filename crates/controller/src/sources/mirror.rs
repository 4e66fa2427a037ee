//! What a look does with the mirror besides reading the ref: it brings what applications ask for, and
//! lets go of what nobody names any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plumb_api::GitRepository;
use plumb_core::ErrorClass;
use plumb_source::{Cancel, CommitId, Remote, Revision};

use super::trust::By;
use super::{Missed, SLOW_RETRY};
use crate::daemon::{Daemon, Panicked};
use crate::metrics::Kind;
use crate::names::{Key, Name};
use crate::state::Source;

impl Daemon {
    /// Brings the commits that applications ask for, after a look that came to this. Returns when the
    /// next look is due for those that did not come.
    pub(super) async fn bring_wanted(
        self: &Arc<Self>,
        name: &Name,
        object: &GitRepository,
        look: &Result<(Remote, Revision), Missed>,
    ) -> Option<Duration> {
        let wanted = {
            let mut store = self.state.lock();
            let named = store.commits_to_keep(name);
            store.sources.get_mut(name)?.wants.retain(|commit| named.contains(&commit.to_string()))
        };
        if wanted.is_empty() {
            return None;
        }
        let mut failed = None;
        let remote = match look {
            Ok((remote, _)) => Ok(remote.clone()),
            Err(Missed::CutShort) => return None,
            // What kept the ref from being read keeps commits from coming, too.
            Err(Missed::Problem(problem)) if problem.class == ErrorClass::Retry => {
                Err(problem.clone())
            }
            Err(Missed::Problem(_)) => self.remote(name, object).await,
        };
        for commit in wanted {
            let result = match (&remote, &failed) {
                (Err(problem), _) | (_, Some(problem)) => Err(problem.clone()),
                (Ok(remote), None) => {
                    let (mirrors, target) = (Arc::clone(&self.mirrors), remote.clone());
                    let fetch =
                        move |cancel: &Cancel| mirrors.fetch_commit(&target, &commit, cancel);
                    let brought = async {
                        self.blocking(Kind::GitRepository, fetch).await??;
                        self.verify(name, object, remote, commit, By::Any).await?;
                        self.bring_submodules(remote, commit).await
                    };
                    match brought.await {
                        Ok(()) => Ok(()),
                        Err(Missed::CutShort) => return None,
                        Err(Missed::Problem(problem)) => Err(problem),
                    }
                }
            };
            // A server that does not answer is not waited for once more.
            if let Err(problem) = &result
                && problem.class == ErrorClass::Retry
            {
                failed = Some(problem.clone());
            }
            let told = {
                let mut store = self.state.lock();
                store.sources.get_mut(name)?.wants.answer(&commit, &result)
            };
            for app in told {
                self.call(Key::App(app));
            }
        }
        let cap = Duration::from(object.spec.interval).min(SLOW_RETRY);
        self.state.lock().sources.get_mut(name)?.wants.next_look(cap)
    }

    /// Brings the submodules of a commit that is at hand, where the spec asks for them. That comes
    /// after its verification: nobody is asked for what an unsigned commit names.
    pub(super) async fn bring_submodules(
        self: &Arc<Self>,
        remote: &Remote,
        commit: CommitId,
    ) -> Result<(), Missed> {
        if !remote.submodules {
            return Ok(());
        }
        let (mirrors, target) = (Arc::clone(&self.mirrors), remote.clone());
        let fetch = move |cancel: &Cancel| mirrors.fetch_submodules(&target, &commit, cancel);
        self.blocking(Kind::GitRepository, fetch).await??;
        Ok(())
    }

    /// Tells the mirror which commits are still named by somebody.
    pub(crate) async fn keep_commits(self: &Arc<Self>, name: &Name) {
        let (remote, wanted, commits) = {
            let store = self.state.lock();
            let wanted = store.commits_to_keep(name);
            let Some(source) = store.sources.get(name) else { return };
            let Some(remote) = source.remote.clone() else { return };
            if source.kept == wanted {
                return;
            }
            // Other objects may name the same repository: their commits stay, too.
            let others: Vec<Name> = store
                .sources
                .iter()
                .filter(|(other, _)| *other != name)
                .filter(|(_, s)| s.remote.as_ref().is_some_and(|r| r.is_same_repository(&remote)))
                .map(|(other, _)| other.clone())
                .collect();
            let mut all = wanted.clone();
            for other in others {
                all.extend(store.commits_to_keep(&other));
            }
            // What was applied stays enforced when its source is deleted.
            let applied = store.apps.values().flat_map(|app| app.rendered.iter().chain(&app.good));
            let here = applied.filter(|rendered| rendered.remote.is_same_repository(&remote));
            all.extend(here.map(|rendered| rendered.revision.commit.to_string()));
            (remote, wanted, all)
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
            Ok(Err(error)) => tracing::warn!(source = %name, %error, "cannot tidy the mirror"),
            Err(Panicked) => {}
        }
    }

    /// Mirrors that nobody names any more are deleted.
    pub(crate) async fn forget_mirrors(self: &Arc<Self>) {
        let remotes: Vec<Remote> = {
            let store = self.state.lock();
            // One that was not read yet in this process may name any mirror, if it was read ever.
            let may_have_one = |source: &Source| {
                let status = source.written.as_ref().or(source.object.status.as_ref());
                status.is_some_and(|status| status.revision.is_some())
            };
            if store.sources.values().any(|s| s.remote.is_none() && may_have_one(s)) {
                return;
            }
            let named = store.sources.values().filter_map(|source| source.remote.clone());
            // What was applied stays enforced when its source is deleted.
            named
                .chain(
                    store
                        .apps
                        .values()
                        .flat_map(|app| app.rendered.iter().chain(&app.good))
                        .map(|rendered| rendered.remote.clone()),
                )
                .collect()
        };
        self.untidy.store(false, Ordering::Relaxed);
        let mirrors = Arc::clone(&self.mirrors);
        let retain = move |_: &Cancel| mirrors.retain(&remotes);
        if let Ok(Err(error)) = self.blocking(Kind::GitRepository, retain).await {
            tracing::warn!(%error, "cannot delete unused mirrors");
        }
    }
}
