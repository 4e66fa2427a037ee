//! What a run did, object by object. Partial failure is a value, not the first error.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plumb_core::{Digest, ErrorClass, FieldPath, GroupKind, ObjectKey, Place};

use crate::account::Presence;
use crate::applyset::Scope;
use crate::circuit::Shut;
use crate::explain::FieldChange;
use crate::guard::Held;
use crate::observe::Difference;
use crate::transient::Transient;

/// What was done to one object that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Created,
    /// Git asks for something else than before.
    Updated,
    /// It was sent to make sure; the API server changed nothing.
    Verified,
    /// It is there, which is all that is wanted. Not among the outcomes, but counted in `marked`.
    Left,
    /// It was deleted and made anew, because this field cannot be changed.
    Recreated(String),
    /// Somebody had changed, deleted or replaced it.
    Corrected(Drift),
}

/// How a live object had left its desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// These fields were changed or removed.
    Fields(Vec<FieldChange>),
    /// Something of it was changed that its managed fields do not tell of.
    Unseen,
    /// It was deleted.
    Deleted,
    /// Its label was taken off.
    Unlabelled,
    /// It was deleted and another was created under its name.
    Replaced,
}

/// One object that was sent, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The object.
    pub key: ObjectKey,
    /// What was done.
    pub change: Change,
}

/// Why one object is not as desired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The object.
    pub key: ObjectKey,
    /// Where Git has it; `None` for objects that Git has no more.
    pub place: Option<Place>,
    /// One CamelCase word.
    pub reason: &'static str,
    /// What happened, for people.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether time alone can help.
    pub class: ErrorClass,
}

/// An object that Git has no more and that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The object.
    pub key: ObjectKey,
    /// Why it is not ours to delete, for people.
    pub why: &'static str,
}

/// Fields of one object that Git has and that are left to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Yield {
    /// The object.
    pub key: ObjectKey,
    /// The fields; `None` when this process has not asked yet, so that it is as it was before.
    pub fields: Option<Vec<FieldPath>>,
}

/// The result of one run of a set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Objects that Git asks for.
    pub total: usize,
    /// Objects that were sent, in the order of their keys. What was equal is not here.
    pub outcomes: Vec<Outcome>,
    /// Objects that are not as desired, sorted by place.
    pub failures: Vec<Failure>,
    /// Objects that were deleted.
    pub pruned: Vec<ObjectKey>,
    /// Deletions that wait for approval.
    pub held: Option<Held>,
    /// Whether there was something to delete that does not wait for approval any more, if it did.
    pub released: bool,
    /// Objects that Git has no more but that stay, because pruning is off.
    pub left: usize,
    /// Objects that differ and were not sent, because others had to have their turn. The next run
    /// goes on with them.
    pub unsent: usize,
    /// Objects that are to be deleted, or let go, and were not tried, because others had to have their
    /// turn. The next run goes on with them.
    pub undeleted: usize,
    /// Objects that Git has no more but that stay until all else is in place.
    pub held_back: usize,
    /// When to run again, because definitions that were changed are not served yet.
    pub again: Option<Duration>,
    /// When something that failed is to be tried again that no run tries before.
    pub due: Option<Duration>,
    /// Whether the account that acts is there; asked when it was refused something.
    pub account: Presence,
    /// How long the server asked to be left alone with what failed.
    pub rest: Option<Duration>,
    /// Whether something waits until other sets have said what they want.
    pub waits: bool,
    /// Objects that Git has no more but that stay, because other sets want them, or began to take them.
    pub handed_over: usize,
    /// Objects that Git has no more but that are not ours to delete, in the order of their keys.
    pub kept: Vec<Kept>,
    /// Objects that are to be deleted but stay until another, which comes after them, is gone: each
    /// with that one, in the order of keys.
    pub behind: Vec<(ObjectKey, ObjectKey)>,
    /// How what is live differs, when nothing was to be written; in the order of keys.
    pub observed: Option<Vec<(ObjectKey, Difference)>>,
    /// What is left to others, in the order of the objects.
    pub yielded: Vec<Yield>,
    /// Objects that are left alone because they are marked so.
    pub marked: usize,
    /// Those of them that were there when the run planned.
    pub left_alone: Vec<ObjectKey>,
    /// Whether some of these are not ours, so that no watch tells when their marks go.
    pub unwatched: bool,
    /// Objects that are being deleted by somebody; they are applied when they are gone.
    pub terminating: Vec<ObjectKey>,
    /// Whether what is desired was compared with what is there.
    pub planned: bool,
    /// Digest of what was desired.
    pub desired: Option<Digest>,
    /// Digest of what the members look like, but for those that go by themselves, when every one was
    /// verified equal to desired.
    pub cluster: Option<Digest>,
    /// What is to be recorded of objects that go by themselves, by their names; `None` when the run did
    /// not come so far.
    pub transient: Option<BTreeMap<String, Transient>>,
    /// Where members are.
    pub scope: Scope,
    /// The kinds of these of which nothing is live that an earlier parent of the name left behind.
    pub settled: BTreeSet<GroupKind>,
    /// The run ended early because a newer revision or spec is waiting.
    pub superseded: bool,
    /// A failure makes the objects doubtful as a whole, so nothing was applied.
    pub refused: bool,
}

impl Report {
    /// Whether everything desired is applied, and nothing else is left to do.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
            && self.terminating.is_empty()
            && self.behind.is_empty()
            && self.unsent == 0
            && self.undeleted == 0
            && !self.superseded
            && !self.waits
            && self.again.is_none()
    }

    /// Something is not tried, or not again before its time.
    pub(crate) fn shut(&mut self, Shut { failure, left }: Shut) {
        self.failures.push(*failure);
        self.due = match (self.due, left) {
            (Some(due), Some(left)) => Some(due.min(left)),
            (due, left) => due.or(left),
        };
    }

    /// The same, unless there is nothing to tell.
    pub(crate) fn put_off(&mut self, shut: Option<Shut>) {
        if let Some(shut) = shut {
            self.shut(shut);
        }
    }

    /// The class of the failures together: one that can pass by itself asks for a retry.
    pub fn class(&self) -> Option<ErrorClass> {
        self.failures.iter().map(|failure| failure.class).min()
    }

    /// How many objects were created, updated, corrected.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Change) -> bool| {
            self.outcomes.iter().filter(|outcome| wanted(&outcome.change)).count()
        };
        (
            count(|change| matches!(change, Change::Created)),
            count(|change| matches!(change, Change::Updated | Change::Recreated(_))),
            count(|change| matches!(change, Change::Corrected(_))),
        )
    }
}
