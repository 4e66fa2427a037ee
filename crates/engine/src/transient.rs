//! Objects that go by themselves once they are done: Jobs with a time to live. That one is gone does
//! not say whether it was done, so each is recorded by itself: what was asked of it when it was last in
//! place, and what it looked like.

use std::collections::{BTreeMap, HashMap};

use plumb_core::{Digest, ErrorClass};
use plumb_health::Health;

use crate::engine::Engine;
use crate::members::{KindState, Members, Standing};
use crate::plan::named;
use crate::prepare::Prepared;
use crate::report::{Failure, Report};
use crate::sync::Job;

/// What is recorded of such an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transient {
    /// Names what was desired of it when it was last in place.
    pub digest: String,
    /// Digest of what it looked like then, where that is known.
    pub cluster: Option<Digest>,
    /// How it was when that was last told, and why, unless it was ready or nobody asked. If it is gone,
    /// it stays so.
    pub unready: Option<(Health, String)>,
}

impl Transient {
    fn of(p: &Prepared, origin: Digest, cluster: Option<Digest>) -> Self {
        Self { digest: format!("{:016x}", named(p, origin)), cluster, unready: None }
    }
}

/// Whether there is nothing to do about an object, since it goes by itself and was in place as Git asks
/// for it: it still is, or it went. `as_whole` says that all of its set was in place like this. An error
/// where nobody can tell whether it went.
pub(crate) fn recall(
    members: &mut Members,
    job: &Job<'_>,
    p: &Prepared,
    as_whole: bool,
) -> Result<bool, Box<Failure>> {
    if !p.expires() {
        return Ok(false);
    }
    let (set, wanted) = (job.set, Transient::of(p, job.origin, None).digest);
    let known = job.transient.get(&p.key.to_string()).filter(|known| known.digest == wanted);
    let standing = members.standing(&p.key, &set.id, &set.manager);
    match standing {
        Standing::Unverified => {
            let one = HashMap::from([(p.key.clone(), p.digest)]);
            let now = members.cluster_digest(&set.id, &set.manager, &one);
            let is_same = now.is_some() && known.is_some_and(|known| known.cluster == now);
            if is_same {
                members.adopt_verified(&set.id, &set.manager, &one);
            }
            Ok(is_same)
        }
        Standing::Unknown | Standing::Terminating
            if (as_whole || known.is_some()) && members.has_expired(&p.key, &set.id) =>
        {
            // What is not listed is unknown, not gone, and to do it a second time can do harm.
            if standing == Standing::Unknown
                && members.kind(&p.key.group_kind) != Some(&KindState::Synced)
            {
                return Err(Box::new(unseen(p, members)));
            }
            let unready = known.and_then(|known| known.unready.clone());
            members.note_expired(&set.id, &set.manager, &p.key, p.digest, unready);
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn unseen(p: &Prepared, members: &Members) -> Failure {
    let why = match members.kind(&p.key.group_kind) {
        Some(KindState::Failed(why)) => why.as_str(),
        _ => "its kind has not been listed yet",
    };
    Failure {
        key: p.key.clone(),
        place: Some(p.object.place().clone()),
        reason: "NotListed",
        message: format!("cannot tell whether it is there: {why}"),
        hint: Some(
            "it may be done and gone, so it is not applied again before that is known".into(),
        ),
        class: ErrorClass::Retry,
    }
}

impl Engine {
    /// What is to be recorded of the objects that go by themselves, by their names. Of one that could
    /// not be applied this time, what was recorded counts.
    pub(crate) fn transient(
        &self,
        job: &Job<'_>,
        prepared: &[Prepared],
        report: &Report,
    ) -> BTreeMap<String, Transient> {
        let (members, set) = (self.members(), job.set);
        let mut found = BTreeMap::new();
        for p in prepared.iter().filter(|p| p.expires()) {
            let one = HashMap::from([(p.key.clone(), p.digest)]);
            let now = Transient::of(p, job.origin, members.verified_digest(&set.id, &one));
            let known = job.transient.get(&p.key.to_string());
            let is_in_place = members.is_verified_for(&p.key, &set.id)
                && members.verified_against(&p.key) == Some(p.digest);
            let told = match known.filter(|known| known.digest == now.digest) {
                // Nobody has seen it since.
                Some(known) if now.cluster.is_none() => Some(known.clone()),
                _ => is_in_place.then_some(now),
            };
            found.extend(told.map(|told| (p.key.to_string(), told)));
        }
        for failure in &report.failures {
            let object = failure.key.to_string();
            if let Some(known) = job.transient.get(&object) {
                found.entry(object).or_insert_with(|| known.clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::{Gvk, Object};
    use serde_json::json;

    use super::*;
    use crate::cluster::Resource;
    use crate::cluster::script::Script;
    use crate::plan::Action;
    use crate::prune::tests::{in_slices, member, with_job};

    /// A Job with a time to live, or without one, of which this is desired.
    fn job_object(name: &str, expires: bool, digest: u64) -> Prepared {
        let mut spec = json!({"template": {}});
        if expires {
            spec["ttlSecondsAfterFinished"] = json!(1);
        }
        let body = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name, "namespace": "ns"}, "spec": spec,
        });
        let serde_json::Value::Object(body) = body else { unreachable!("an object") };
        let service = crate::failure::tests::service();
        let place = service.object.place().clone();
        let object = Object::new(body, place, plumb_core::FieldPlaces::default()).unwrap();
        let resource = Resource::known(Gvk::new("batch/v1", "Job"), "jobs", true);
        Prepared { key: object.key(), object, resource, digest, ..service }
    }

    /// An engine that has listed Jobs.
    fn engine(there: &[(&str, &crate::ApplySet)]) -> Engine {
        let engine = in_slices(&Script::new([]), usize::MAX);
        let kind = job_object("a", true, 1).key.group_kind;
        engine.members().expect(&kind);
        engine.members().restarted(&kind);
        let live =
            there.iter().map(|(name, set)| (job_object(name, true, 1).key, member(set, name)));
        engine.members().listed(&kind, (live.collect(), 0), &[]);
        engine
    }

    /// What a run plans with what was recorded of each, and what it records.
    fn planned(
        engine: &Engine,
        job: &Job<'_>,
        objects: &[Prepared],
        recorded: &BTreeMap<String, Transient>,
    ) -> (Vec<Action>, Report, BTreeMap<String, Transient>) {
        let expiring = objects.iter().filter(|p| p.expires()).map(|p| p.key.clone());
        engine.members().note_expiring(&job.set.id, expiring.collect());
        let desired = objects.iter().map(|p| (p.key.clone(), p.digest)).collect();
        let job = Job {
            parent: job.parent.clone(),
            objects: Vec::new(),
            approved: None,
            transient: recorded,
            ..*job
        };
        let mut report = Report::default();
        let todo = engine.plan(&job, objects, &desired, &mut report);
        let todo = todo.into_iter().map(|(_, action)| action).collect();
        let now = engine.transient(&job, objects, &report);
        (todo, report, now)
    }

    /// The rest of the set may have changed while no agent ran, or may be refused.
    #[tokio::test]
    async fn what_went_by_itself_is_known_by_what_is_recorded_of_it_alone() {
        with_job(async |job| {
            let object = [job_object("a", true, 1)];
            let recorded = |digest: u64| {
                let p = job_object("a", true, digest);
                BTreeMap::from([(p.key.to_string(), Transient::of(&p, job.origin, None))])
            };
            for (before, todo) in [
                (BTreeMap::new(), vec![Action::Claim]),
                (recorded(2), vec![Action::Claim]),
                (recorded(1), vec![]),
            ] {
                let engine = engine(&[]);
                let (planned, _, now) = planned(&engine, job, &object, &before);
                assert_eq!(planned, todo, "{before:?}");
                assert_eq!(now, if todo.is_empty() { before } else { BTreeMap::new() });
                let standing =
                    engine.members().standing(&object[0].key, &job.set.id, &job.set.manager);
                let is_gone = standing == Standing::Expired(1);
                assert_eq!(is_gone, todo.is_empty(), "{standing:?}");
            }
            // One that does not go by itself was deleted by somebody.
            let object = [job_object("a", false, 1)];
            let (todo, ..) = planned(&engine(&[]), job, &object, &recorded(1));
            assert_eq!(todo, [Action::Claim]);
        })
        .await;
    }

    #[tokio::test]
    async fn what_goes_by_itself_is_not_taken_for_gone_while_its_kind_cannot_be_listed() {
        with_job(async |job| {
            let object = [job_object("a", true, 1)];
            let [p] = &object;
            let before = Transient::of(p, job.origin, None);
            let before = BTreeMap::from([(p.key.to_string(), before)]);
            let engine = engine(&[]);
            let standing = || engine.members().standing(&p.key, &job.set.id, &job.set.manager);
            let kind = &p.key.group_kind;
            engine.members().failed(kind, "500".into(), crate::members::Trouble::Passing);
            let (todo, report, now) = planned(&engine, job, &object, &before);
            assert!(todo.is_empty() && now == before, "it is not done a second time");
            assert_eq!((report.failures[0].reason, standing()), ("NotListed", Standing::Unknown));
            engine.members().restarted(kind);
            engine.members().listed(kind, (vec![(p.key.clone(), member(job.set, "a"))], 0), &[]);
            assert_eq!(standing(), Standing::Unverified, "and is no other one when it is seen");
            let (todo, report, _) = planned(&engine, job, &object, &before);
            assert_eq!(todo, [Action::Verify { as_before: false }]);
            assert!(report.failures.is_empty());
        })
        .await;
    }

    /// While it is there, and when it is gone, all others are as they were recorded.
    #[tokio::test]
    async fn what_goes_by_itself_is_recorded_apart_from_the_others() {
        with_job(async |job| {
            let set = job.set;
            let objects = [job_object("a", true, 1), job_object("b", false, 2)];
            let [going, staying] = &objects;
            let desired: HashMap<_, _> =
                objects.iter().map(|p| (p.key.clone(), p.digest)).collect();
            let first = engine(&[]);
            for p in &objects {
                let live = member(set, &p.key.name);
                first.members().verified(&set.id, &set.manager, &p.key, live, p.digest);
            }
            let (todo, _, recorded) = planned(&first, job, &objects, &BTreeMap::new());
            assert!(todo.is_empty() && recorded[&going.key.to_string()].cluster.is_some());
            let digest = |engine: &Engine| {
                let members = engine.members();
                let lasting = crate::plan::lasting(&members, &set.id, &desired);
                members.verified_digest(&set.id, &lasting).unwrap()
            };
            let whole = digest(&first);
            first.members().deleted(&going.key, &member(set, "a"));
            assert_eq!(digest(&first), whole);
            let (todo, _, after) = planned(&first, job, &objects, &recorded);
            assert!(todo.is_empty() && after == recorded, "nothing is to be written for that");

            // Another process finds both, or only one.
            let names = crate::plan::desired_digest(&objects, job.origin);
            for there in [&["a", "b"][..], &["b"]] {
                let there: Vec<_> = there.iter().map(|name| (*name, set)).collect();
                let second = engine(&there);
                let expiring = std::collections::HashSet::from([going.key.clone()]);
                second.members().note_expiring(&set.id, expiring);
                let job = Job {
                    parent: job.parent.clone(),
                    objects: Vec::new(),
                    approved: None,
                    recorded: Some((names, whole)),
                    transient: &recorded,
                    ..*job
                };
                let mut report = Report { desired: Some(names), ..Report::default() };
                let todo = second.plan(&job, &objects, &desired, &mut report);
                assert!(todo.is_empty(), "{there:?}: {todo:?}");
                assert_eq!(second.transient(&job, &objects, &report), recorded, "{there:?}");
                let members = second.members();
                let standing = members.standing(&staying.key, &set.id, &set.manager);
                assert_eq!(standing, Standing::Same(2), "{there:?}");
            }
            // It is another one than was recorded.
            let third = engine(&[("a", set), ("b", set)]);
            third.members().changed(
                going.key.clone(),
                crate::live::Live { generation: 2, resource_version: 6, ..member(set, "a") },
            );
            let (todo, ..) = planned(&third, job, &objects[..1], &recorded);
            assert_eq!(todo, [Action::Verify { as_before: false }]);
        })
        .await;
    }
}
