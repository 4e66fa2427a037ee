//! Deletions that take more than one turn.
//!
//! Between two turns of a set others have theirs. What a person approved is then partly done, and
//! is the same plan all the same; what failed in one turn is not tried again in the next, so that
//! each object has been tried once before one is tried twice.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use plumb_core::ObjectKey;

use crate::engine::Engine;
use crate::guard::Approval;
use crate::report::{Failure, Report};

/// What is known of the deletions of one set that are not over.
#[derive(Debug, Default)]
pub(crate) struct Deleting {
    approval: Option<Approval>,
    failed: HashMap<ObjectKey, Failure>,
}

impl Deleting {
    /// The plan that is approved, if this is what a person names.
    fn approval(&mut self, named: Option<&str>) -> Option<&Approval> {
        if self.approval.as_ref().map(|approval| &*approval.digest) != named {
            self.approval = named.map(Approval::of);
        }
        self.approval.as_ref()
    }
}

impl Engine {
    pub(crate) fn deleting(&self) -> MutexGuard<'_, HashMap<String, Deleting>> {
        // Each change is one assignment.
        self.deleting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a person approved, with what was already done of it.
    pub(crate) fn approval(&self, set: &str, named: Option<&str>) -> Option<Approval> {
        let named = named.map(str::trim);
        self.deleting().entry(set.to_owned()).or_default().approval(named).cloned()
    }

    /// A candidate is gone, or on its way.
    pub(crate) fn note_deleted(&self, set: &str, key: &ObjectKey, uid: &str) {
        if let Some(Deleting { approval: Some(approval), .. }) = self.deleting().get_mut(set) {
            approval.note(key, uid);
        }
    }

    /// An object could not be deleted, or let go.
    pub(crate) fn note_undeleted(&self, set: &str, failure: Failure, report: &mut Report) {
        let failed = (failure.key.clone(), failure.clone());
        self.deleting().entry(set.to_owned()).or_default().failed.extend([failed]);
        report.failures.push(failure);
    }

    /// Why an object could not be deleted in an earlier turn of the same deletions.
    pub(crate) fn undeleted(&self, set: &str, key: &ObjectKey) -> Option<Failure> {
        self.deleting().get(set)?.failed.get(key).cloned()
    }

    /// Nothing is to be deleted any more, or something else than was: what was approved is no longer
    /// the plan, whatever of it was done.
    pub(crate) fn void_plan(&self, set: &str) {
        self.deleting().remove(set);
    }

    /// A turn has ended. Where no other one follows it at once, the next tries all that is left once
    /// more, and an approval is used up with the last of what it is for.
    pub(crate) fn end_turn(&self, set: &str, report: &Report, is_cut_short: bool) {
        let is_over = !is_cut_short && !report.superseded;
        if is_over && report.undeleted > 0 {
            return;
        }
        let mut deleting = self.deleting();
        let Some(of) = deleting.get_mut(set) else { return };
        of.failed.clear();
        if is_over
            && report.behind.is_empty()
            && report.failures.is_empty()
            && report.held.is_none()
        {
            deleting.remove(set);
        }
    }
}
