//! Work that blocks its thread: Git and rendering.

use std::sync::{Mutex, PoisonError};

use plumb_source::Cancel;

use super::Daemon;
use crate::metrics::{GitOutcome, Kind};

/// The work panicked, which is counted and logged already. What it said may quote anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Work under way, each piece with what tells it to end.
#[derive(Default)]
pub(super) struct UnderWay(Mutex<(u64, Vec<(u64, Cancel)>)>);

impl UnderWay {
    fn enter(&self) -> Entered<'_> {
        let cancel = Cancel::new();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.0 += 1;
        let number = known.0;
        known.1.push((number, cancel.clone()));
        drop(known);
        Entered { of: self, number, cancel }
    }

    fn cancel(&self) {
        for (_, cancel) in &self.0.lock().unwrap_or_else(PoisonError::into_inner).1 {
            cancel.cancel();
        }
    }
}

/// One piece of work. Dropped too early, with a run that was cut off, it ends the work: nobody
/// waits for it any more.
struct Entered<'u> {
    of: &'u UnderWay,
    number: u64,
    cancel: Cancel,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.cancel.cancel();
        let mut known = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.1.retain(|(number, _)| *number != self.number);
    }
}

impl Daemon {
    /// Runs work for an object of this kind on a thread that may block. It is told to end at
    /// shutdown and when the lease is lost.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        kind: Kind,
        work: impl FnOnce(&Cancel) -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let entered = self.under_way.enter();
        if self.is_stopping() {
            entered.cancel.cancel();
        }
        let cancel = entered.cancel.clone();
        let span = tracing::Span::current();
        let result = tokio::task::spawn_blocking(move || span.in_scope(|| work(&cancel))).await;
        drop(entered);
        self.tell_traffic();
        result.map_err(|_| {
            self.metrics.panicked(kind);
            Panicked
        })
    }

    fn tell_traffic(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that nobody tells what another one has told.
        let now = self.mirrors.traffic();
        self.metrics.git_fetched(GitOutcome::Ok, now.fetches.saturating_sub(told.fetches));
        self.metrics.git_fetched(GitOutcome::Failed, now.failed.saturating_sub(told.failed));
        self.metrics.git_received(now.bytes.saturating_sub(told.bytes));
        *told = now;
    }

    /// Tells everything that [`Daemon::blocking`] runs to end.
    pub(super) fn cancel_blocking(&self) {
        self.under_way.cancel();
    }
}
