//! Runs that came to an early end.

use std::sync::Arc;

use jiff::Timestamp;
use plumb_api::conditions::reasons;
use plumb_engine::{ApiError, EngineError, Report};
use plumb_source::Revision;

use super::Run;
use crate::daemon::{Daemon, PANICKED, chain};
use crate::metrics::Outcome;
use crate::names::{Key, Name};
use crate::queue::Lane;
use crate::status::{Say, Waits, count_drift, failed_before, list_failures, with_hint};

impl Daemon {
    /// The run could not begin.
    pub(super) async fn failed_run(
        self: &Arc<Self>,
        run: &Run,
        revision: Option<&Revision>,
        error: &EngineError,
    ) -> Outcome {
        self.cut_short(run, revision, error, &Report::default()).await
    }

    /// The run had to end before all was tried; `done` is what it did until there.
    pub(super) async fn cut_short(
        self: &Arc<Self>,
        run: &Run,
        revision: Option<&Revision>,
        error: &EngineError,
        done: &Report,
    ) -> Outcome {
        self.again(run);
        self.wait_no_more(run);
        if let EngineError::StaleEpoch { theirs, .. } = error {
            // Whoever leads now writes the status, unless we do.
            if self.outlasts(*theirs) {
                self.queue.add(Key::App(run.name.clone()), Lane::Urgent);
            } else {
                tracing::warn!(application = %run.name, "{}", chain(error));
                self.plan_retry(run, "");
            }
            return Outcome::Retry;
        }
        if matches!(error, EngineError::ParentGone { .. }) {
            return Outcome::Unchanged;
        }
        if matches!(error.api(), Some(ApiError::NotLeading { .. })) {
            // A new leader looks at everything anyway; a renewal that was only late is followed by
            // nothing.
            self.plan_retry(run, "");
            return Outcome::Retry;
        }
        let mut message = with_hint(chain(error), Some(cure_of(error, run)));
        if let Some(failed) = failed_before(done) {
            message = format!("{message}; {failed}");
        }
        tracing::warn!(application = %run.name, "{message}");
        let reason = match error {
            EngineError::OutOfTime { .. } => reasons::TIMED_OUT,
            EngineError::NoAccount { .. } | EngineError::AccountMissing { .. } => {
                reasons::ACCESS_DENIED
            }
            error if error.api().is_some_and(ApiError::is_forbidden) => reasons::ACCESS_DENIED,
            _ => reasons::CLUSTER_UNAVAILABLE,
        };
        let say = Say::not_ready(reason, message, error.class().into());
        let status = Self::status_with(run, &say, |status| {
            if let Some(revision) = revision {
                status.last_attempted_revision = Some(revision.to_string());
            }
            count_drift(status, done, Timestamp::now());
            list_failures(status, done);
            if done.released {
                status.prune = None;
            }
        });
        self.say_app(run, status, &say, revision).await;
        let revision = revision.map(ToString::to_string).unwrap_or_default();
        let rest = error.api().and_then(ApiError::retry_after).max(done.rest);
        self.plan_retry_in(run, &revision, rest);
        Outcome::Retry
    }

    /// A run panicked: a mistake of ours, told where its owner looks.
    pub(crate) async fn panicked_app(self: &Arc<Self>, name: &Name) {
        let Some(run) = self.begin(name) else { return };
        self.again(&run);
        let say = Say::not_ready(reasons::INTERNAL_ERROR, PANICKED, Waits::User);
        let status = Self::status_with(&run, &say, |_| {});
        self.say_app(&run, status, &say, None).await;
        self.plan_retry(&run, "panic");
        if let Some(app) = self.state.lock().apps.get_mut(name) {
            // Putting something back may be what panics.
            app.pause.in_vain = true;
        }
    }
}

/// What helps against an error that ended a run.
fn cure_of(error: &EngineError, run: &Run) -> String {
    let deleted = run.object.metadata.deletion_timestamp.is_some();
    let or = if deleted {
        "; or let it go without its objects by spec.deletionPolicy: Orphan or the annotation \
         plumb.dev/abandon: \"true\""
    } else {
        ""
    };
    match error.api() {
        _ if matches!(error, EngineError::NoAccount { .. }) => {
            return format!(
                "name one of this namespace in spec.serviceAccountName, or give the agent \
                 --default-service-account{or}"
            );
        }
        _ if matches!(error, EngineError::AccountMissing { .. }) => {
            return format!("create it, or correct spec.serviceAccountName{or}");
        }
        _ if matches!(error, EngineError::NotImpersonated { .. }) => {
            return format!(
                "bind a ClusterRole to Plumb's own account that lets it impersonate service \
                 accounts, as deploy/ does{or}"
            );
        }
        _ if matches!(error, EngineError::OutOfTime { .. }) => {
            "the next run goes on where this one ended; spec.timeout gives it more time"
        }
        Some(error) if error.is_forbidden() => match &run.set.account {
            Some(account) if error.is_refused_to(&account.user()) => {
                return format!("give that right to the service account {account}");
            }
            _ => "give that right to Plumb's own account",
        },
        Some(error) if error.is_too_many_requests() => {
            "the API server is busy; this is tried again by itself"
        }
        Some(ApiError::Timeout { .. } | ApiError::Transport { .. }) => {
            "the API server, or the way to it, failed; this is tried again by itself"
        }
        _ => "this is tried again by itself",
    }
    .to_owned()
}

pub(super) fn out_of_time(run: &Run) -> EngineError {
    EngineError::OutOfTime { parent: run.set.owner(), limit: run.object.spec.timeout.into() }
}
