//! The loop around the elector, and what the rest of the process sees of it.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use jiff::Timestamp;
use plumb_engine::{ApiError, WriteGate};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{Action, Answer, Elector, LeaseStore, Record};

/// How often a release is tried before the lease is left to expire: the first can meet a renewal
/// that was on its way, the second reads what it left, the third releases, the fourth is spare.
const RELEASE_TRIES: u32 = 4;

/// How long all of that may take. Kubernetes kills 30 s after the stop, half of which runs may have
/// needed already.
const RELEASE: Duration = Duration::from_secs(5);

/// Whether this process leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaderState {
    /// Another process leads, or nobody does yet.
    Standby {
        /// The identity of the holder as it was read last.
        holder: Option<String>,
    },
    /// This process leads.
    Leading {
        /// The lease's `leaseTransitions`: higher with every term.
        epoch: u64,
    },
}

/// The handle on our leadership that every writer holds; clones share one state.
#[derive(Debug, Clone)]
pub struct Leadership {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    term: Mutex<Option<Granted>>,
    state: watch::Sender<LeaderState>,
    problem: Mutex<Option<String>>,
}

#[derive(Debug, Clone, Copy)]
struct Granted {
    renewed: Instant,
    valid_until: Instant,
    epoch: u64,
}

impl Default for Leadership {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                term: Mutex::default(),
                state: watch::Sender::new(LeaderState::Standby { holder: None }),
                problem: Mutex::default(),
            }),
        }
    }
}

impl WriteGate for Leadership {
    /// A write may start only while the lease lasts longer than its deadline.
    fn admit(&self, needs: Duration) -> bool {
        lock(&self.shared.term).is_some_and(|term| now() + needs <= term.valid_until)
    }
}

impl Leadership {
    /// The epoch of our term, while it lasts.
    pub fn epoch(&self) -> Option<u64> {
        let term = *lock(&self.shared.term);
        term.filter(|term| now() < term.valid_until).map(|term| term.epoch)
    }

    /// When the renewal was asked for that our term rests on.
    pub(crate) fn renewed(&self) -> Option<Instant> {
        let term = *lock(&self.shared.term);
        term.filter(|term| now() < term.valid_until).map(|term| term.renewed)
    }

    /// The state, and its changes.
    pub fn subscribe(&self) -> watch::Receiver<LeaderState> {
        self.shared.state.subscribe()
    }

    /// Why the Lease could not be read or written last, until that works again.
    pub fn problem(&self) -> Option<String> {
        lock(&self.shared.problem).clone()
    }

    fn publish(&self, elector: &Elector) {
        let state = elector.state(now());
        *lock(&self.shared.term) = match (&state, elector.valid_until()) {
            (LeaderState::Leading { epoch }, Some(valid_until)) => {
                let renewed = valid_until.checked_sub(elector.settings.duration);
                renewed.map(|renewed| Granted { renewed, valid_until, epoch: *epoch })
            }
            _ => None,
        };
        self.announce(state);
    }

    fn announce(&self, state: LeaderState) {
        self.shared.state.send_if_modified(|old| {
            let changed = *old != state;
            if changed {
                match &state {
                    LeaderState::Leading { epoch } => info!(epoch, "leading"),
                    LeaderState::Standby { holder } => info!(holder, "standing by"),
                }
                *old = state;
            }
            changed
        });
    }

    fn note(&self, problem: Option<String>) {
        let mut known = lock(&self.shared.problem);
        match (&problem, known.is_some()) {
            (Some(problem), false) => warn!(problem, "the lease cannot be reached"),
            (Some(problem), true) => debug!(problem, "the lease cannot be reached yet"),
            (None, true) => info!("the lease can be reached again"),
            (None, false) => {}
        }
        *known = problem;
    }
}

/// Closes the gate and says standby when the loop ends, however it ends.
struct Closing<'a>(&'a Leadership);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        *lock(&self.0.shared.term) = None;
        self.0.announce(LeaderState::Standby { holder: None });
    }
}

/// What the loop did.
enum Step {
    /// Nothing, until it was time.
    Waited,
    /// It was told that somebody wrote the Lease.
    Changed,
    /// It sent a request at this moment.
    Answered(Instant, Answer),
}

/// Runs for leadership until `stop` ends, then closes the gate and releases the lease.
///
/// End `stop` only when the last write has ended: the release lets another replica write at once.
pub async fn run(
    store: &impl LeaseStore,
    mut elector: Elector,
    leadership: &Leadership,
    stop: impl Future<Output = ()>,
) {
    let closing = Closing(leadership);
    let mut stop = pin!(stop);
    let mut changes = None;
    loop {
        leadership.publish(&elector);
        let action = elector.decide(now());
        let step = async {
            if let Action::Wait(until) = action {
                let end = elector.valid_until().map_or(until, |end| end.min(until));
                // A term that is over is announced above; never wait for it again.
                let end = if end <= now() { until } else { end };
                let wait = tokio::time::sleep_until(end.into());
                if elector.valid_until().is_some() {
                    // Whoever holds the lease writes it, and need not be told.
                    changes = None;
                    wait.await;
                    return Step::Waited;
                }
                let changes = changes.get_or_insert_with(|| Box::pin(store.changes()));
                return tokio::select! {
                    () = wait => Step::Waited,
                    Some(()) = changes.next() => Step::Changed,
                };
            }
            let sent = now();
            Step::Answered(sent, request(store, &elector, leadership, &action).await)
        };
        let step = tokio::select! {
            biased;
            () = &mut stop => break,
            step = step => step,
        };
        match step {
            Step::Waited => {}
            Step::Changed => elector.changed(),
            Step::Answered(sent, answer) => elector.apply(sent, now(), &action, answer),
        }
    }
    drop(changes);
    drop(closing);
    let _ = tokio::time::timeout(RELEASE, release(store, &mut elector, leadership)).await;
    if elector.release().is_some() {
        warn!("the lease could not be released and has to expire");
    }
}

/// Hands the lease back, as well as can be done in a few tries.
async fn release(store: &impl LeaseStore, elector: &mut Elector, leadership: &Leadership) {
    for _ in 0..RELEASE_TRIES {
        let Some(action) = elector.release() else {
            return;
        };
        let sent = now();
        let answer = request(store, elector, leadership, &action).await;
        elector.apply(sent, now(), &action, answer);
    }
}

/// Sends one request for the Lease. Announces the end of our term if it comes meanwhile.
async fn request(
    store: &impl LeaseStore,
    elector: &Elector,
    leadership: &Leadership,
    action: &Action,
) -> Answer {
    let settings = elector.settings;
    let call = async {
        match action {
            Action::Read => store.read().await,
            Action::Write(claim) => {
                let object = claim.object(Timestamp::now());
                let written = match claim.replaces {
                    Some(_) => store.replace(&object).await,
                    None => store.create(&object).await,
                };
                written.map(Some)
            }
            Action::Wait(_) => Ok(None),
        }
    };
    let limited = tokio::time::timeout(settings.lease_timeout(), call);
    let expiry = async {
        match elector.valid_until().filter(|end| *end > now()) {
            Some(end) => tokio::time::sleep_until(end.into()).await,
            None => std::future::pending().await,
        }
        leadership.publish(elector);
        std::future::pending::<()>().await;
    };
    let answered = tokio::select! {
        biased;
        answered = limited => answered,
        () = expiry => return Answer::Failed,
    };
    let problem = match answered {
        Ok(Ok(found)) => match (action, found.map(Record::parse)) {
            (_, Some(None)) => "the answer is not a lease".to_owned(),
            (Action::Write(_), Some(Some(record))) => {
                leadership.note(None);
                return Answer::Written(record);
            }
            (_, found) => {
                leadership.note(None);
                return Answer::Found(found.flatten());
            }
        },
        Ok(Err(error)) if is_conflict(action, &error) => return Answer::Conflict,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {:?}", settings.lease_timeout()),
    };
    leadership.note(Some(problem));
    Answer::Failed
}

/// Whether a write was refused because the Lease is not the one it was decided on.
fn is_conflict(action: &Action, error: &ApiError) -> bool {
    match action {
        Action::Write(claim) if claim.replaces.is_some() => {
            error.is_conflict() || error.is_not_found()
        }
        Action::Write(_) => error.is_already_exists(),
        Action::Read | Action::Wait(_) => false,
    }
}

/// Nothing of the caller's runs under these locks, so a panic cannot leave them half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tokio's clock, which is the system's monotonic one outside of tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
#[path = "leadership_tests.rs"]
mod tests;
