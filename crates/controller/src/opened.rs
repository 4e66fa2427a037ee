//! Snapshots that stay open from one render to the next.
//!
//! A commit that concerns a thousand applications is read by a thousand renders, one soon after the other,
//! and to open the repository for each took a seventh of the processor time of a restart. Nothing stays open
//! for long: while it does, its commit stays in the cache, and files that were deleted keep their room on
//! the disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plumb_source::{CommitId, Mirrors, Remote, Snapshot, SourceError};
use tokio::sync::Notify;

/// Beside those that are being read: renders are short, and each has some of its files in memory.
const MOST: usize = 2;
/// Longer than a render waits for the one before, and too short for anybody to notice.
const LINGER: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Default)]
pub(crate) struct Opened {
    idle: Mutex<Vec<Idle>>,
    kept: Notify,
}

struct Idle {
    remote: Arc<Remote>,
    commit: CommitId,
    snapshot: Snapshot,
    since: Instant,
}

impl Opened {
    /// A snapshot of a commit, as [`Mirrors::snapshot`] opens it.
    pub(crate) fn open(
        &self,
        mirrors: &Mirrors,
        remote: &Arc<Remote>,
        commit: &CommitId,
    ) -> Result<Snapshot, SourceError> {
        let known = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let same = |one: &Idle| {
                one.commit == *commit && (Arc::ptr_eq(&one.remote, remote) || one.remote == *remote)
            };
            idle.iter().position(same).map(|at| idle.swap_remove(at))
        };
        match known {
            Some(known) => Ok(known.snapshot),
            None => mirrors.snapshot(remote, commit),
        }
    }

    /// Keeps one that was read without an error for whoever is next.
    pub(crate) fn keep(&self, remote: Arc<Remote>, commit: CommitId, snapshot: Snapshot) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST {
            idle.push(Idle { remote, commit, snapshot, since: Instant::now() });
            self.kept.notify_one();
        }
    }

    /// Closes what nobody has asked for since. Never ends.
    pub(crate) async fn close_idle(self: Arc<Self>) {
        loop {
            self.kept.notified().await;
            loop {
                tokio::time::sleep(LINGER).await;
                let opened = Arc::clone(&self);
                // To let go of a commit waits for whoever changes the mirror.
                let close = move || opened.close(Instant::now());
                if tokio::task::spawn_blocking(close).await.unwrap_or(true) {
                    break;
                }
            }
        }
    }

    /// Returns whether nothing is left.
    fn close(&self, now: Instant) -> bool {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |one: &mut Idle| now.saturating_duration_since(one.since) >= LINGER;
        let old: Vec<Idle> = idle.extract_if(.., is_old).collect();
        let is_empty = idle.is_empty();
        drop(idle);
        drop(old);
        is_empty
    }
}

#[cfg(test)]
mod tests {
    use plumb_source::Credentials;
    use plumb_testkit::GitServer;

    use super::*;
    use crate::daemon::tests::{Api, Stand};
    use crate::metrics::Outcome;

    #[tokio::test]
    async fn a_snapshot_serves_the_next_render_of_its_commit_alone_and_is_closed_soon() {
        let git = GitServer::start().await;
        git.repo("repo").commit(&[("a.yaml", Some("a: 1"))], "one");
        let stand = Stand::new(Api::new());
        let daemon = &stand.daemon;
        let name = stand.source("repo", &git.url("repo"), None);
        assert_eq!(daemon.run_source(&name).await, Outcome::Changed);
        let (remote, commit) = {
            let store = daemon.state.lock();
            let source = &store.sources[&name];
            (source.remote.clone().unwrap(), source.revision.clone().unwrap().commit)
        };
        let opened = Opened::default();
        let held = || opened.idle.lock().unwrap().len();
        let snapshot = opened.open(&daemon.mirrors, &remote, &commit).unwrap();
        opened.keep(Arc::clone(&remote), commit, snapshot);
        assert_eq!(held(), 1);
        // Whoever has other credentials has to have brought it with those.
        let credentials = Credentials::Bearer { token: "other".into() };
        let other = Arc::new(Remote { credentials, ..(*remote).clone() });
        assert!(opened.open(&daemon.mirrors, &other, &commit).is_err());
        assert_eq!(held(), 1);
        let again = opened.open(&daemon.mirrors, &remote, &commit).unwrap();
        assert_eq!(held(), 0, "the one that is read is nobody else's");
        opened.keep(remote, commit, again);
        let now = Instant::now();
        assert!(!opened.close(now), "it may be asked for in a moment");
        assert!(opened.close(now + LINGER));
        assert_eq!(held(), 0);
    }
}
