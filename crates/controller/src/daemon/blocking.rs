//! Work that blocks its thread: Git and rendering.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use plumb_source::Cancel;

use super::Daemon;
use crate::metrics::GitOutcome;

impl Daemon {
    /// Runs Git or rendering work on a thread that may block. It is told to end at shutdown. The
    /// error is a panic's message.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancel) -> T + Send + 'static,
    ) -> Result<T, String> {
        let cancel = Cancel::new();
        let number = self.blocking_calls.fetch_add(1, Ordering::Relaxed);
        let ours = cancel.clone();
        {
            let mut cancels = self.cancels.lock().unwrap_or_else(PoisonError::into_inner);
            cancels.push((number, cancel.clone()));
        }
        if self.stopping.load(Ordering::Relaxed) {
            cancel.cancel();
        }
        let result = tokio::task::spawn_blocking(move || work(&ours)).await;
        let mut cancels = self.cancels.lock().unwrap_or_else(PoisonError::into_inner);
        cancels.retain(|(known, _)| *known != number);
        drop(cancels);
        self.tell_traffic();
        result.map_err(|error| {
            let message = error.to_string();
            tracing::error!(message, "blocking work panicked");
            message
        })
    }

    fn tell_traffic(&self) {
        let now = self.mirrors.traffic();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.git_fetched(GitOutcome::Ok, now.fetches.saturating_sub(told.fetches));
        self.metrics.git_fetched(GitOutcome::Failed, now.failed.saturating_sub(told.failed));
        self.metrics.git_received(now.bytes.saturating_sub(told.bytes));
        *told = now;
    }

    /// Tells everything that [`Daemon::blocking`] runs to end.
    pub(super) fn cancel_blocking(&self) {
        for (_, cancel) in self.cancels.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            cancel.cancel();
        }
    }
}
