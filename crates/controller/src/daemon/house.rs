//! What is done now and then, whatever happens: audits, surveys, and the end of watches that nobody
//! needs any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use plumb_engine::ApplySet;

use super::Daemon;
use crate::lease::LeaderState;

/// How often is looked for watches that nobody needs. Each costs little, so there is no haste.
const SWEEP: Duration = Duration::from_secs(30);

/// How long after it began to lead a process begins its first survey, in shares of the interval: ten
/// minutes of a day, so that one that restarts again and again does not list everything each time.
const HEAD_START: u32 = 144;

impl Daemon {
    /// Never ends.
    pub(super) async fn keep_house(self: Arc<Self>) {
        // A clock before 1970 says nothing, and need not.
        let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let close = Arc::clone(&self.opened).close_idle();
        tokio::join!(self.engine.audit(since_1970), self.sweep(), self.survey(), close);
    }

    async fn sweep(&self) {
        let mut last = None;
        loop {
            tokio::time::sleep(SWEEP).await;
            // Only a run changes which kinds are needed, and this goes through all Applications.
            let runs = Some(self.runs.load(Ordering::Relaxed));
            if last == runs {
                continue;
            }
            let needed = {
                let store = self.state.lock();
                let mut needed = store.kinds();
                needed.extend(store.apps.values().flat_map(|app| app.waits_for.iter().cloned()));
                needed
            };
            let idle = self.engine.end_watches(&needed, &|id| self.set_of(id));
            last = runs.filter(|_| !idle);
        }
    }

    /// Looks for members that no record names, soon after this process begins to lead and then again
    /// and again.
    async fn survey(&self) {
        let interval = self.settings.survey_interval;
        if interval.is_zero() {
            return;
        }
        let mut leader = self.leadership.subscribe();
        let leads = |state: &LeaderState| matches!(state, LeaderState::Leading { .. });
        loop {
            if leader.wait_for(leads).await.is_err() {
                return;
            }
            let mut lost = self.leadership.subscribe();
            tokio::select! {
                _ = lost.wait_for(|state| !leads(state)) => {}
                () = self.surveys(interval) => {}
            }
        }
    }

    fn set_of(&self, id: &str) -> Option<Arc<ApplySet>> {
        let store = self.state.lock();
        let app = store.app_of_set(id).and_then(|name| store.apps.get(name));
        app.map(|app| Arc::clone(&app.set))
    }

    async fn surveys(&self, interval: Duration) {
        tokio::time::sleep(interval / HEAD_START).await;
        loop {
            let begun = Instant::now();
            match self.engine.survey(&|id| self.set_of(id), interval).await {
                Ok(survey) => {
                    let (listed, refused) = (survey.listed, survey.refused.len());
                    tracing::info!(
                        listed,
                        refused,
                        "looked for members of kinds that no record names"
                    );
                }
                Err(error) => tracing::warn!(%error, "cannot look for members"),
            }
            tokio::time::sleep(interval.saturating_sub(begun.elapsed())).await;
        }
    }
}
