//! Deletions that take more than one turn.
//!
//! Between two turns of a set others have theirs. What a person approved is then partly done, and
//! is the same plan all the same; what failed in one turn is not tried again in the next, so that
//! each object has been tried once before one is tried twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plumb_core::ObjectKey;
use tokio::time::Instant;

use crate::cluster::ApiError;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::guard::{Approval, Candidate};
use crate::prune::{Member, failure_of};
use crate::report::{Failure, Report};
use crate::share::Slice;
use crate::sync::Job;

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

    /// A candidate is to be deleted now, or is not after all.
    pub(crate) fn note_deleted(&self, set: &str, key: &ObjectKey, uid: &str, is_sent: bool) {
        if let Some(Deleting { approval: Some(approval), .. }) = self.deleting().get_mut(set) {
            if is_sent {
                approval.note(key, uid);
            } else {
                approval.take_back(key, uid);
            }
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

    /// These are all that is to be deleted. If they are not what is left of the plan that was approved,
    /// that is no longer the plan, whatever of it was done.
    pub(crate) fn compare_plan(&self, set: &str, candidates: &[Candidate]) {
        if let Some(of) = self.deleting().get_mut(set)
            && of.approval.as_ref().is_some_and(|approval| !approval.is_for(candidates))
        {
            of.approval = None;
        }
    }

    /// Nothing is to be deleted any more.
    pub(crate) fn void_plan(&self, set: &str) {
        self.deleting().remove(set);
    }

    /// No turn follows those that were: what failed in them is tried again when it is its time.
    pub(crate) fn end_turns(&self, set: &str) {
        if let Some(of) = self.deleting().get_mut(set) {
            of.failed.clear();
        }
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

    /// Does the same with each of these members, until others have their turn or a newer run waits: its
    /// spec, or what it wants, may say otherwise. What is under way is waited for. Returns what came of
    /// those that were dealt with; failures, each of this `reason`, are in the report.
    pub(crate) async fn take_turn<'m, T: Send>(
        &self,
        (job, slice, reason): (&Job<'_>, &Slice, &'static str),
        members: impl Iterator<Item = (usize, &'m Member)>,
        act: impl Fn(&'m Member) -> BoxFuture<'m, Result<T, ApiError>> + Sync,
        report: &mut Report,
    ) -> (Vec<(usize, &'m Member, T)>, Result<(), EngineError>) {
        let (ended, superseded) = (AtomicBool::new(false), AtomicBool::new(false));
        let later = AtomicUsize::new(0);
        let mut tries = Vec::new();
        for (number, member) in members {
            if let Some(failure) = self.undeleted(&job.set.id, &member.key) {
                report.failures.push(failure);
                continue;
            }
            let (ended, superseded, later, act) = (&ended, &superseded, &later, &act);
            let one = async move {
                if ended.load(Ordering::Relaxed) {
                    return (number, member, None);
                }
                if (job.superseded)() {
                    superseded.store(true, Ordering::Relaxed);
                    return (number, member, None);
                }
                if !slice.take(Instant::now()) {
                    later.fetch_add(1, Ordering::Relaxed);
                    return (number, member, None);
                }
                (number, member, Some(act(member).await))
            };
            tries.push(one.boxed());
        }
        let mut results = self.work_off(tries);
        let (mut interrupted, mut done) = (None, Vec::new());
        while let Some((number, member, result)) = results.next().await {
            match result {
                None => {}
                Some(Ok(came)) => done.push((number, member, came)),
                // What was under way with it has met the same.
                Some(Err(error))
                    if interrupted.is_some() && matches!(error, ApiError::Timeout { .. })
                        || self.ends(job, &error).await =>
                {
                    ended.store(true, Ordering::Relaxed);
                    interrupted.get_or_insert(EngineError::Interrupted { source: error });
                }
                Some(Err(error)) => {
                    if let Some(error) = self.disowned(job.set, &error, report).await {
                        ended.store(true, Ordering::Relaxed);
                        interrupted.get_or_insert(error);
                        continue;
                    }
                    let of = (&member.resource, &member.key);
                    let failure = failure_of(job.set, of, reason, &error, report.account);
                    self.note_undeleted(&job.set.id, failure, report);
                }
            }
        }
        drop(results);
        report.undeleted += later.into_inner();
        report.superseded |= superseded.into_inner();
        (done, interrupted.map_or(Ok(()), Err))
    }
}
