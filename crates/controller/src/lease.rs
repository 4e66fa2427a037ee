//! Who leads: one Lease of `coordination.k8s.io/v1`, one active replica, hot standbys.
//!
//! [`Elector`] is the decision, pure: it is told what the API server answered and when, and says
//! which request to send next. [`run`] is the loop around it. [`Leadership`] is what the rest of
//! the process sees: the state, and the gate every write passes.
//!
//! Why two replicas never write at once:
//!
//! - The holder counts its lease from the moment it **sent** the renewal, by its own monotonic
//!   clock. It starts no write that could outlast that ([`Leadership::admit`]), so a process that
//!   was stopped past its lease sends nothing when it is woken, but for a request that was admitted
//!   and not yet sent in that very moment.
//! - A standby counts from the moment it **received** a record it had not seen, by its own
//!   monotonic clock, and waits for that record's whole duration and a twentieth of it, for clocks
//!   that do not run alike. Wall clocks are written for people and never compared.
//! - Every write of the Lease carries the resourceVersion it was decided on.
//!
//! A watch tells a standby of each renewal as it comes, so that it is at work within a lease and a
//! twentieth of it after the holder died, and at once when the lease is released. Without a watch it
//! looks twice a lease.
//!
//! What it does not cover: a write that the holder gave up before its lease ended, and that an API
//! server carries out later all the same; what it does is then seen as anybody's change. Nor a Lease
//! that somebody deletes while it is held. A process that has seen
//! the record waits as if it were still there; one that starts in that moment cannot know of it.
//! Nor a machine that is frozen as a whole, because its monotonic clock stands still too.

mod leadership;
mod store;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

pub use leadership::{LeaderState, Leadership, run};
pub use store::{ClusterLease, LeaseStore};

/// The Lease's name, one for each installation, in the controller's own namespace.
pub const LEASE_NAME: &str = "plumb";

/// By which part of a lease a standby waits longer than it lasts.
const MARGIN: u32 = 20;

/// The duration of a released lease: the shortest the API server takes.
const RELEASED_SECONDS: u64 = 1;

/// The figures of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a lease lasts without renewal; whole seconds, at least 3.
    pub duration: Duration,
    /// The deadline of every write that passes the gate, which ends with the lease at the latest. At most
    /// half of `duration`, or the gate closes between renewals.
    pub request_timeout: Duration,
}

impl Settings {
    /// Rounds a duration to what a Lease can hold and bounds the time-out by it.
    pub fn new(duration: Duration, request_timeout: Duration) -> Self {
        let duration = Duration::from_secs(duration.as_secs().max(3));
        Self { duration, request_timeout: request_timeout.min(duration / 2) }
    }

    /// How often a holder renews.
    pub fn period(&self) -> Duration {
        self.duration / 3
    }

    /// How often a standby looks that is told of no change: not as often as the holder writes, or it would
    /// look twice for each.
    pub fn look(&self) -> Duration {
        self.duration / 2
    }

    /// The deadline of a request for the Lease itself: shorter than the period, so that two more
    /// tries fit into the lease after one that hangs.
    fn lease_timeout(&self) -> Duration {
        self.request_timeout.min(self.duration / 4)
    }

    /// The pause after a request that failed while leading: at least three tries before the end.
    fn retry(&self) -> Duration {
        self.duration / 12
    }
}

/// A Lease as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// `holderIdentity`, empty when nobody holds it.
    pub holder: String,
    /// `leaseDurationSeconds`; absent or absurd values count as nothing known.
    pub duration: Option<Duration>,
    /// `leaseTransitions`: how often the lease changed hands, the epoch of its holder.
    pub transitions: u64,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// The whole object, so that what others put on it survives our writes.
    object: Value,
}

impl Record {
    /// Reads a Lease; `None` when it has no resourceVersion and so is no answer of an API server.
    pub fn parse(object: Value) -> Option<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64);
        Some(Self {
            holder: text("/spec/holderIdentity").unwrap_or_default().to_owned(),
            duration: number("/spec/leaseDurationSeconds")
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
            transitions: number("/spec/leaseTransitions").unwrap_or_default(),
            resource_version: text("/metadata/resourceVersion")?.to_owned(),
            object,
        })
    }
}

/// What to write into the Lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The record it replaces; `None` creates the Lease.
    pub replaces: Option<Record>,
    /// The new holder, empty for a release.
    pub holder: String,
    /// The new duration.
    pub duration: Duration,
    /// The new epoch.
    pub transitions: u64,
    /// Whether the holder is a new one, which dates `acquireTime`.
    pub acquires: bool,
}

impl Claim {
    /// The Lease to send, with the resourceVersion of what it replaces.
    pub fn object(&self, wall: Timestamp) -> Value {
        let mut object = match &self.replaces {
            Some(record) => record.object.clone(),
            None => json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": LEASE_NAME},
            }),
        };
        let time = wall.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let spec = &mut object["spec"];
        if !spec.is_object() {
            *spec = json!({});
        }
        spec["holderIdentity"] = json!(self.holder);
        spec["leaseDurationSeconds"] = json!(self.duration.as_secs());
        spec["leaseTransitions"] = json!(self.transitions);
        spec["renewTime"] = json!(time);
        if self.acquires {
            spec["acquireTime"] = json!(time);
        }
        object
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Read the Lease.
    Read,
    /// Write the Lease: acquire it, renew it or release it.
    Write(Claim),
    /// Do nothing before this moment.
    Wait(Instant),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The Lease as it was read, `None` when there is none.
    Found(Option<Record>),
    /// The Lease as our write left it.
    Written(Record),
    /// Our write was refused because the Lease is another one by now.
    Conflict,
    /// No usable answer; a write may have been done all the same.
    Failed,
}

/// One candidate's view of the election.
#[derive(Debug)]
pub struct Elector {
    me: String,
    settings: Settings,
    view: View,
    /// The record read last, kept while the view is in doubt.
    last: Option<Sighting>,
    term: Option<Term>,
    /// The highest epoch this process wrote or tried to write: a Lease in our name with a higher
    /// one was written by another process that goes by the same name.
    claimed: Option<u64>,
    not_before: Option<Instant>,
}

/// What is known of the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// It has to be read.
    Unknown,
    /// There is none, and none is to be created before that moment.
    Absent { free: Option<Instant> },
    /// It is as it was read last.
    Known,
}

/// A record, and since when we know it.
#[derive(Debug)]
struct Sighting {
    record: Record,
    /// When this resourceVersion was first received.
    since: Instant,
    /// When it was last confirmed.
    checked: Instant,
}

/// A lease that we hold.
#[derive(Debug, Clone, Copy)]
struct Term {
    epoch: u64,
    valid_until: Instant,
    renew_at: Instant,
}

impl Elector {
    /// A candidate. `me` is its identity (the pod's uid), which no other running process has.
    pub fn new(me: &str, settings: Settings) -> Self {
        Self {
            me: me.to_owned(),
            settings,
            view: View::Unknown,
            last: None,
            term: None,
            claimed: None,
            not_before: None,
        }
    }

    /// The request to send next, or how long to wait with it.
    pub fn decide(&self, now: Instant) -> Action {
        if let Some(earliest) = self.not_before.filter(|earliest| *earliest > now) {
            return Action::Wait(earliest);
        }
        let last = match (self.view, &self.last) {
            (View::Absent { free }, _) => {
                return match free.filter(|free| *free > now) {
                    Some(free) => Action::Wait(free),
                    None => self.claim(None, true),
                };
            }
            (View::Known, Some(last)) => last,
            (View::Unknown | View::Known, _) => return Action::Read,
        };
        if let Some(term) = self.term_at(now) {
            return if now >= term.renew_at {
                self.claim(Some((&last.record, term.epoch)), false)
            } else {
                Action::Wait(term.renew_at)
            };
        }
        if self.term.is_some() {
            // It ended under us: this process stood still, or was cut off. What has become of the
            // lease meanwhile is read before anything is sent.
            return Action::Read;
        }
        let record = &last.record;
        let free = last.since + self.waits_for(record);
        if self.is_mine(record) || record.holder.is_empty() || now >= free {
            return self.claim(Some((record, record.transitions + 1)), true);
        }
        let look = last.checked + self.settings.look();
        if now >= look { Action::Read } else { Action::Wait(look.min(free)) }
    }

    /// Takes in the answer to a request that was sent and answered at these moments.
    pub fn apply(&mut self, sent: Instant, received: Instant, action: &Action, answer: Answer) {
        self.not_before = None;
        if let Action::Write(claim) = action
            && claim.holder == self.me
        {
            self.claimed = self.claimed.max(Some(claim.transitions));
        }
        match answer {
            Answer::Found(Some(record)) => {
                let epoch = (record.holder == self.me).then_some(record.transitions);
                self.term = self.term_at(received).filter(|term| Some(term.epoch) == epoch);
                self.see(record, received);
            }
            Answer::Found(None) => {
                // Whoever held it may have renewed it just before it was deleted.
                let held = self
                    .last
                    .as_ref()
                    .map(|last| &last.record)
                    .filter(|record| !record.holder.is_empty() && !self.is_mine(record));
                self.view =
                    View::Absent { free: held.map(|record| received + self.waits_for(record)) };
            }
            Answer::Written(record) => {
                if record.holder == self.me {
                    self.term = Some(Term {
                        epoch: record.transitions,
                        valid_until: sent + self.settings.duration,
                        renew_at: sent + self.settings.period(),
                    });
                }
                self.see(record, received);
            }
            Answer::Conflict => {
                self.view = View::Unknown;
                // A holder must know at once; a candidate most likely has lost against another.
                if self.term_at(received).is_none() {
                    self.not_before = Some(received + self.settings.retry());
                }
            }
            // A write may have been done: then the next one meets a conflict, and reads.
            Answer::Failed => {
                let pause = match self.term_at(received) {
                    Some(_) => self.settings.retry(),
                    None => self.settings.period(),
                };
                self.not_before = Some(received + pause);
            }
        }
    }

    /// Ends our term and says what to send so that another can take over at once, until there is
    /// nothing of ours left in the Lease. Call it when the last write has ended.
    pub fn release(&mut self) -> Option<Action> {
        self.term = None;
        let record = &self.last.as_ref()?.record;
        if self.claimed.is_none() || !self.is_mine(record) {
            return None;
        }
        match self.view {
            View::Absent { .. } => None,
            View::Unknown => Some(Action::Read),
            View::Known => Some(Action::Write(Claim {
                replaces: Some(record.clone()),
                holder: String::new(),
                duration: Duration::from_secs(RELEASED_SECONDS),
                transitions: record.transitions,
                acquires: false,
            })),
        }
    }

    /// The state at a moment.
    pub fn state(&self, now: Instant) -> LeaderState {
        if let Some(term) = self.term_at(now) {
            return LeaderState::Leading { epoch: term.epoch };
        }
        let holder = self.last.as_ref().map(|last| &last.record.holder);
        LeaderState::Standby {
            holder: holder.filter(|holder| !holder.is_empty() && **holder != self.me).cloned(),
        }
    }

    /// Until when our term lasts without another renewal.
    pub fn valid_until(&self) -> Option<Instant> {
        self.term.map(|term| term.valid_until)
    }

    fn term_at(&self, now: Instant) -> Option<Term> {
        self.term.filter(|term| now < term.valid_until)
    }

    /// Whether a record was written by us, in this process or in one before it that had our name.
    fn is_mine(&self, record: &Record) -> bool {
        record.holder == self.me && self.claimed.is_none_or(|claimed| record.transitions <= claimed)
    }

    /// How long a record must stay unchanged before another may replace it: until no write of its holder
    /// is on its way, also when clocks differ by two of a hundred, which none of machines do.
    fn waits_for(&self, record: &Record) -> Duration {
        let duration = record.duration.unwrap_or(self.settings.duration);
        duration + duration / MARGIN
    }

    /// Somebody has written the Lease: a standby reads it.
    pub fn changed(&mut self) {
        if self.term.is_none() {
            self.view = View::Unknown;
        }
    }

    fn claim(&self, replaces: Option<(&Record, u64)>, acquires: bool) -> Action {
        let known = self.last.as_ref().map(|last| last.record.transitions);
        let transitions = match replaces {
            Some((_, transitions)) => transitions,
            None => known.max(self.claimed).unwrap_or_default() + 1,
        };
        Action::Write(Claim {
            replaces: replaces.map(|(record, _)| record.clone()),
            holder: self.me.clone(),
            duration: self.settings.duration,
            transitions,
            acquires,
        })
    }

    fn see(&mut self, record: Record, received: Instant) {
        let known = self
            .last
            .as_ref()
            .filter(|last| last.record.resource_version == record.resource_version)
            .map(|last| last.since);
        self.last = Some(Sighting { record, since: known.unwrap_or(received), checked: received });
        self.view = View::Known;
    }
}

#[cfg(test)]
mod elector_tests;
#[cfg(test)]
mod simulation;
