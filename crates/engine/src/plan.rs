//! The plan of a run: what has to be done with each object, decided from the index alone.

use std::collections::HashMap;

use plumb_core::{Digest, Hasher, ObjectKey};

use crate::applyset::ApplySet;
use crate::engine::Engine;
use crate::members::Standing;
use crate::prepare::Prepared;
use crate::report::{Drift, Report};

/// What is to be done with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Apply without force: it is not known as ours.
    Claim,
    /// Apply without force what was ours and is gone.
    Recreate(Drift),
    /// Apply with force: it is ours, and Git asks for something else now.
    Update,
    /// Apply with force: it is ours, and somebody changed it.
    Correct,
    /// Apply with force to see whether anything changes.
    Verify,
}

/// Decides about one object. `None` means that it is as desired; `Err` that it is going away.
pub(crate) fn decide(standing: Standing, desired: u64) -> Result<Option<Action>, ()> {
    Ok(Some(match standing {
        Standing::Same(verified) if verified == desired => return Ok(None),
        Standing::Suspect(verified) if verified == desired => Action::Verify,
        Standing::Same(_) | Standing::Suspect(_) => Action::Update,
        Standing::Unverified => Action::Verify,
        Standing::Drifted => Action::Correct,
        Standing::Gone => Action::Recreate(Drift::Deleted),
        Standing::Replaced => Action::Recreate(Drift::Replaced),
        Standing::Unknown | Standing::Unclaimed | Standing::Foreign => Action::Claim,
        Standing::Terminating => return Err(()),
    }))
}

impl Engine {
    /// Compares desired objects with the index. What goes away is put into the report.
    pub(crate) fn plan<'p>(
        &self,
        set: &ApplySet,
        prepared: &'p [Prepared],
        desired: &HashMap<ObjectKey, u64>,
        recorded: Option<(Digest, Digest)>,
        report: &mut Report,
    ) -> Vec<(&'p Prepared, Action)> {
        let mut members = self.members();
        // After a restart nothing is verified. When both sides are as they were recorded, all is.
        if let Some((was_desired, was_cluster)) = recorded
            && prepared
                .iter()
                .all(|p| members.standing(&p.key, &set.id, &set.manager) == Standing::Unverified)
            && report.failures.is_empty()
            && report.desired == Some(was_desired)
            && members.cluster_digest(&set.id, &set.manager, desired) == Some(was_cluster)
        {
            members.adopt_verified(&set.id, &set.manager, desired);
        }
        let mut todo = Vec::new();
        for p in prepared {
            match decide(members.standing(&p.key, &set.id, &set.manager), p.digest) {
                Ok(None) => {}
                Ok(Some(action)) => todo.push((p, action)),
                Err(()) => report.terminating.push(p.key.clone()),
            }
        }
        todo
    }
}

pub(crate) fn desired_digest(desired: &HashMap<ObjectKey, u64>) -> Digest {
    let mut sorted: Vec<_> = desired.iter().collect();
    sorted.sort_unstable();
    let mut hasher = Hasher::new();
    for (key, digest) in sorted {
        hasher.part(key.to_string().as_bytes()).part(&digest.to_be_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_with_an_object_follows_its_standing() {
        const WANTED: u64 = 1;
        const OTHER: u64 = 2;
        let cases = [
            (Standing::Same(WANTED), Ok(None)),
            (Standing::Same(OTHER), Ok(Some(Action::Update))),
            (Standing::Suspect(WANTED), Ok(Some(Action::Verify))),
            (Standing::Suspect(OTHER), Ok(Some(Action::Update))),
            (Standing::Unverified, Ok(Some(Action::Verify))),
            (Standing::Drifted, Ok(Some(Action::Correct))),
            (Standing::Gone, Ok(Some(Action::Recreate(Drift::Deleted)))),
            (Standing::Replaced, Ok(Some(Action::Recreate(Drift::Replaced)))),
            // What was never ours is claimed: without force.
            (Standing::Unknown, Ok(Some(Action::Claim))),
            (Standing::Unclaimed, Ok(Some(Action::Claim))),
            (Standing::Foreign, Ok(Some(Action::Claim))),
            (Standing::Terminating, Err(())),
        ];
        for (standing, action) in cases {
            assert_eq!(decide(standing, WANTED), action, "{standing:?}");
        }
    }
}
