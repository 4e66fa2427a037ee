//! The plan of a run: what has to be done with each object, decided from the index alone.

use std::collections::HashMap;

use plumb_core::{Digest, Hasher, ObjectKey};
use tokio::time::Instant;

use crate::engine::Engine;
use crate::live::Live;
use crate::marks::Ssa;
use crate::members::{Members, Standing};
use crate::prepare::Prepared;
use crate::report::{Drift, Report};
use crate::sync::Job;
use crate::transient::recall;

/// What is to be done with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Apply without force: it is not known as ours.
    Claim,
    /// Apply without force what was ours and is gone.
    Recreate(Drift),
    /// Apply with force: it is ours, and Git asks for something else now.
    Update,
    /// Apply with force: it is ours, and somebody changed it. Whether Git asks for the same as before:
    /// if not, what is not as desired says nothing of what somebody did.
    Correct { as_before: bool },
    /// Apply with force to see whether anything changes. Whether Git asks for the same as before: if
    /// so, what changes was changed by somebody else.
    Verify { as_before: bool },
}

impl Action {
    /// Whether it undoes what somebody did. What was changed by hand and is asked for differently
    /// by now is another try of that; what is gone can only become what is asked for now.
    pub(crate) fn is_correction(&self) -> bool {
        matches!(self, Self::Recreate(_) | Self::Correct { as_before: true })
    }
}

/// Decides about one object. `recorded` says whether Git asks for what was in place as a whole when an
/// earlier process wrote so. `None` means that it is as desired; `Err` that it is going away.
pub(crate) fn decide(
    standing: Standing,
    desired: u64,
    recorded: bool,
) -> Result<Option<Action>, ()> {
    Ok(Some(match standing {
        Standing::Same(verified) if verified == desired => return Ok(None),
        Standing::Suspect(verified) if verified == desired => Action::Verify { as_before: true },
        Standing::Same(_) | Standing::Suspect(_) => Action::Update,
        Standing::Unverified => Action::Verify { as_before: recorded },
        Standing::Drifted(verified) => Action::Correct { as_before: verified == desired },
        Standing::Expired(verified) | Standing::Expiring(verified) if verified == desired => {
            return Ok(None);
        }
        Standing::Gone => Action::Recreate(Drift::Deleted),
        Standing::Replaced => Action::Recreate(Drift::Replaced),
        Standing::Unknown if recorded => Action::Recreate(Drift::Deleted),
        Standing::Unknown | Standing::Unclaimed | Standing::Foreign | Standing::Expired(_) => {
            Action::Claim
        }
        Standing::Terminating | Standing::Expiring(_) => return Err(()),
    }))
}

impl Engine {
    /// Compares desired objects with the index. What goes away is put into the report. What somebody
    /// does again and again to an object that Git asks for as before has to wait. `desired` are those
    /// that are not left alone. What was
    /// refused a moment ago is told, and left for later.
    pub(crate) fn plan<'p>(
        &self,
        job: &Job<'_>,
        prepared: &'p [Prepared],
        desired: &HashMap<ObjectKey, u64>,
        report: &mut Report,
    ) -> Vec<(&'p Prepared, Action)> {
        let (set, recorded) = (job.set, job.recorded);
        report.planned = true;
        let mut refusals = self.refusals();
        refusals.retain(&set.id, desired);
        let mut members = self.members();
        // After a restart nothing is verified. When both sides are as they were recorded, all is; when
        // only Git is, somebody changed something meanwhile.
        let recorded = recorded.filter(|(was_desired, _)| {
            report.failures.is_empty() && report.desired == Some(*was_desired)
        });
        if let Some((_, was_cluster)) = recorded {
            let there = lasting(&members, &set.id, desired);
            let is_unverified = |members: &Members, key: &ObjectKey| {
                members.standing(key, &set.id, &set.manager) == Standing::Unverified
            };
            if there.keys().all(|key| is_unverified(&members, key))
                && members.cluster_digest(&set.id, &set.manager, &there) == Some(was_cluster)
            {
                members.adopt_verified(&set.id, &set.manager, &there);
            } else {
                let unchanged = |key: &ObjectKey| {
                    is_unverified(&members, key)
                        && members.is_witnessed(key, &set.id, &set.manager, was_cluster)
                };
                let unchanged: HashMap<_, _> =
                    there.into_iter().filter(|(key, _)| unchanged(key)).collect();
                members.adopt_verified(&set.id, &set.manager, &unchanged);
            }
        }
        members.forget_witness(&set.id);
        let (mut todo, mut put_off) = (Vec::new(), Vec::new());
        let now = Instant::now();
        for p in prepared {
            let standing = members.standing(&p.key, &set.id, &set.manager);
            if left_alone(p, members.live(&p.key)) {
                report.marked += 1;
                // Once the other set goes, no watch tells of it any more.
                report.unwatched |= members.live(&p.key).is_some_and(|live| {
                    live.marks.hands_off() && live.part_of.as_deref() != Some(&*set.id)
                });
                members.left_alone(&p.key);
                report.left_alone.extend(members.live(&p.key).map(|_| p.key.clone()));
                continue;
            }
            let as_before = members.verified_against(&p.key) == Some(p.digest)
                || members.was_seen(&p.key, p.digest);
            let waits = as_before && members.waits(&p.key, standing, now).is_some();
            match recall(&mut members, job, p, recorded.is_some()) {
                Ok(false) => {}
                Ok(true) => continue,
                Err(failure) => {
                    report.failures.push(*failure);
                    continue;
                }
            }
            match decide(standing, p.digest, recorded.is_some()) {
                Ok(Some(_)) if waits => {}
                Ok(None) => {}
                Ok(Some(action)) => {
                    let tries = job.asked || job.policy.observe;
                    let held = refusals.held(&set.id, p, members.live(&p.key), now);
                    if refusals.was_left(&set.id, &p.key) {
                        report.marked += 1;
                    } else if let Some(held) = held.filter(|_| !tries) {
                        put_off.push((p, held));
                    } else {
                        todo.push((p, action));
                    }
                }
                Err(()) => report.terminating.push(p.key.clone()),
            }
        }
        // Those that are refused again and again keep no other one from its first try.
        todo.sort_by_key(|(p, _)| refusals.has(&set.id, &p.key));
        drop((members, refusals));
        for (p, held) in put_off {
            let shut = self.told(p, Ok(held), job, report);
            report.put_off(shut);
        }
        todo
    }
}

/// The desired objects but for those that go by themselves, each of which is recorded by itself.
pub(crate) fn lasting(
    members: &Members,
    set: &str,
    desired: &HashMap<ObjectKey, u64>,
) -> HashMap<ObjectKey, u64> {
    let lasting = desired.iter().filter(|(key, _)| !members.expires(key, set));
    lasting.map(|(key, digest)| (key.clone(), *digest)).collect()
}

/// Whether marks say that nothing is done to an object as it is.
pub(crate) fn left_alone(p: &Prepared, live: Option<&Live>) -> bool {
    let marked = live.is_some_and(|live| live.marks.hands_off());
    marked || p.marks.hands_off() || p.marks.ssa == Ssa::IfNotPresent && live.is_some()
}

/// Names what is desired of an object, for people to read. `origin` names what all are made from.
pub(crate) fn named(p: &Prepared, origin: Digest) -> u64 {
    if p.object.is_secret() { origin.short() } else { p.digest }
}

/// Names what is desired as a whole, as above.
pub(crate) fn desired_digest(prepared: &[Prepared], origin: Digest) -> Digest {
    let mut sorted: Vec<_> = prepared.iter().map(|p| (&p.key, named(p, origin))).collect();
    sorted.sort_unstable();
    let mut hasher = Hasher::new();
    for (key, digest) in sorted {
        hasher.part(key.to_string().as_bytes()).part(&digest.to_be_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use plumb_core::FieldPlaces;

    use super::*;

    /// People read it, and a password of six digits would be found by trying them.
    #[test]
    fn what_names_the_desired_objects_tells_nothing_of_the_values_of_secrets() {
        let object = |kind: &str, password: &str, digest: u64| {
            let body = serde_json::json!({
                "apiVersion": "v1", "kind": kind, "metadata": {"name": "web", "namespace": "shop"},
                "stringData": {"password": password},
            });
            let serde_json::Value::Object(body) = body else { unreachable!("an object") };
            let service = crate::failure::tests::service();
            let place = service.object.place().clone();
            let object = plumb_core::Object::new(body, place, FieldPlaces::default()).unwrap();
            Prepared { key: object.key(), object, digest, ..service }
        };
        let origins = [Digest::of(b"one"), Digest::of(b"two")];
        let named = |kind, password, digest, origin: usize| {
            desired_digest(&[object(kind, password, digest)], origins[origin])
        };
        assert_eq!(named("Secret", "123456", 1, 0), named("Secret", "654321", 2, 0));
        assert_ne!(named("Secret", "123456", 1, 0), named("Secret", "123456", 1, 1));
        assert_ne!(named("Other", "123456", 1, 0), named("Other", "654321", 2, 0));
        assert_eq!(named("Other", "123456", 1, 0), named("Other", "123456", 1, 1));
    }

    #[test]
    fn what_is_done_with_an_object_follows_its_standing() {
        const WANTED: u64 = 1;
        const OTHER: u64 = 2;
        let cases = [
            (Standing::Same(WANTED), Ok(None)),
            (Standing::Same(OTHER), Ok(Some(Action::Update))),
            (Standing::Suspect(WANTED), Ok(Some(Action::Verify { as_before: true }))),
            (Standing::Suspect(OTHER), Ok(Some(Action::Update))),
            (Standing::Unverified, Ok(Some(Action::Verify { as_before: false }))),
            (Standing::Drifted(WANTED), Ok(Some(Action::Correct { as_before: true }))),
            (Standing::Drifted(OTHER), Ok(Some(Action::Correct { as_before: false }))),
            (Standing::Gone, Ok(Some(Action::Recreate(Drift::Deleted)))),
            (Standing::Replaced, Ok(Some(Action::Recreate(Drift::Replaced)))),
            // What was never ours is claimed: without force.
            (Standing::Unknown, Ok(Some(Action::Claim))),
            (Standing::Unclaimed, Ok(Some(Action::Claim))),
            (Standing::Foreign, Ok(Some(Action::Claim))),
            (Standing::Terminating, Err(())),
            // What went by itself is asked for anew only when Git asks for something else.
            (Standing::Expired(WANTED), Ok(None)),
            (Standing::Expired(OTHER), Ok(Some(Action::Claim))),
            (Standing::Expiring(WANTED), Ok(None)),
            (Standing::Expiring(OTHER), Err(())),
        ];
        for (standing, action) in cases {
            assert_eq!(decide(standing, WANTED, false), action, "{standing:?}");
        }
        // After a restart, with what Git asked for before: what lacks or differs was somebody.
        for (standing, action) in [
            (Standing::Unverified, Ok(Some(Action::Verify { as_before: true }))),
            (Standing::Unknown, Ok(Some(Action::Recreate(Drift::Deleted)))),
            (Standing::Unclaimed, Ok(Some(Action::Claim))),
            (Standing::Foreign, Ok(Some(Action::Claim))),
        ] {
            assert_eq!(decide(standing, WANTED, true), action, "{standing:?}");
        }
    }
}
