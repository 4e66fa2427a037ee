//! One run of a set: plan from the index, then write ahead, apply by turns, prune, tidy up.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use plumb_core::{Digest, ErrorClass, GroupKind, Object, ObjectKey};

use crate::applyset::{ApplySet, Scope};
use crate::claims::Others;
use crate::cluster::{ApiError, ApplyHow, Resource};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::facts::check_epoch;
use crate::guard::Occasion;
use crate::ignore::Ignores;
use crate::live::Live;
use crate::marks::Ssa;
use crate::members::KindState;
use crate::order::{Missing, turns};
use crate::plan::{desired_digest, lasting, left_alone};
use crate::policy::Policy;
use crate::prepare::{self, Prepared};
use crate::prune::unlisted;
use crate::report::{Failure, Kept, Report, Yield};
use crate::sabotage::{Sabotage, leaves_out};
use crate::share::Slice;
use crate::transient::Transient;

/// The parent object as the caller last saw it.
#[derive(Debug, Clone)]
pub struct Parent {
    /// Its kind.
    pub resource: Resource,
    /// Its uid.
    pub uid: String,
    /// Its resource version; the first write of a run is refused when it has moved since.
    pub resource_version: u64,
    /// Whether label, tooling annotation and finalizer are on it.
    pub has_facts: bool,
    /// What its annotations say.
    pub hints: Scope,
    /// What a copy elsewhere says (its status), in case somebody wiped the annotations.
    pub recorded: Scope,
    /// The epoch in its annotations.
    pub epoch: Option<u64>,
    /// Our finalizer.
    pub finalizer: &'static str,
    /// When it was created, in seconds since the epoch.
    pub created: Option<i64>,
    /// The kinds of which it is known that nothing is live that an earlier parent of its name left
    /// behind.
    pub settled: BTreeSet<GroupKind>,
}

impl Parent {
    /// Whether an earlier parent of the same name may have applied this object. The API server
    /// counts in seconds: what was applied in the second of the parent's birth is taken for its own,
    /// lest it has to ask for what it just applied.
    pub(crate) fn inherits(&self, set: &ApplySet, key: &ObjectKey, live: &Live) -> bool {
        let applied = live.entry(&set.manager).map_or(0, |entry| entry.time);
        !self.settled.contains(&key.group_kind) && self.created.is_some_and(|born| applied < born)
    }
}

/// What a run is to do.
pub struct Job<'a> {
    /// Whose members.
    pub set: &'a ApplySet,
    /// The parent.
    pub parent: Parent,
    /// What Git asks for.
    pub objects: Vec<Object>,
    /// How its owner wants it dealt with.
    pub policy: &'a Policy,
    /// Fields that others may decide.
    pub ignores: &'a Ignores,
    /// The digest of a held plan that a person approved.
    pub approved: Option<String>,
    /// Names what the objects are made from. It stands for those that hold values of Secrets where what
    /// is desired is named: a digest of such a value, which people read, could be guessed.
    pub origin: Digest,
    /// Digests of the desired objects and of the live ones, as recorded when they were equal.
    pub recorded: Option<(Digest, Digest)>,
    /// What is recorded of objects that go by themselves, by their names.
    pub transient: &'a BTreeMap<String, Transient>,
    /// Whether only what others changed is put back, and all else left to a later run.
    pub only_drift: bool,
    /// Whether where members were said to be stays said, since nobody records what is left of it.
    pub keeps_scope: bool,
    /// The epoch of this leader.
    pub epoch: u64,
    /// Whether a person asks for it, so that nothing is put off that was tried in vain.
    pub asked: bool,
    /// The longest pause between tries of an object that is refused.
    pub longest_pause: Duration,
    /// Whether a newer run waits, so that this one should end early.
    pub superseded: &'a (dyn Fn() -> bool + Sync),
    /// The other sets of the caller.
    pub others: &'a dyn Others,
}

/// An apply that takes our fields back from whoever holds them.
pub(crate) const FORCED: ApplyHow = ApplyHow { force: true, dry_run: false };

/// How often a write is tried again when the object changed between reading and writing. Three
/// lost races in a row mean a busy writer; the next run comes soon enough.
pub(crate) const RACES: usize = 3;

impl Engine {
    /// Runs a set once. The report says what became of every object; an error means that the run
    /// could not begin, or had to end before all was tried. Then the report, like that of a run
    /// that is dropped, says what was done until there.
    pub async fn sync(&self, job: Job<'_>, report: &mut Report) -> Result<(), EngineError> {
        let set = job.set;
        if job.parent.has_facts && !self.facts().contains_key(&*set.id) {
            self.claims().note_resumed(&set.id, true);
        }
        let is_whole = !job.keeps_scope && !job.only_drift;
        let result = self.run(job, report).await;
        self.note_account(set, &result);
        if result.is_ok() && report.is_complete() && is_whole {
            self.claims().note_resumed(&set.id, false);
        }
        if report.unsent == 0 {
            self.refusals().over(&set.id);
        }
        result
    }

    async fn run(&self, mut job: Job<'_>, report: &mut Report) -> Result<(), EngineError> {
        let _counts = self.under_way();
        let set = job.set;
        check_epoch(job.parent.epoch, set, job.epoch)?;
        if let Err(error) = self.check_account(set) {
            // It has no say, and nobody waits for it.
            job.others.spoken();
            return Err(error);
        }
        let wanted = job.objects.iter().map(Object::gvk);
        let discovery = self.discovery_with(wanted, Some(&set.id)).await?;
        let preparation =
            prepare::prepare(std::mem::take(&mut job.objects), set, &discovery, job.ignores);
        let prepared = preparation.objects;
        *report = Report {
            total: prepared.len() + preparation.failures.len() + preparation.refusals.len(),
            failures: preparation.failures,
            scope: job.parent.hints.union(&job.parent.recorded).union(&self.seen_scope(set)),
            settled: job.parent.settled.clone(),
            ..Report::default()
        };
        let failed = report.failures.iter().chain(&preparation.refusals).map(|f| f.key.clone());
        let wants = prepared.iter().map(|p| p.key.clone()).chain(failed).collect();
        let whole = report.failures.is_empty() && preparation.refusals.is_empty();
        let freed = self.claims().publish(set, job.policy.adopt, wants, whole);
        job.others.spoken();
        self.freed(set, &freed);
        if !preparation.refusals.is_empty() {
            report.failures.extend(preparation.refusals);
            report.refused = true;
            sort_failures(&mut report.failures);
            return Ok(());
        }
        let desired: HashMap<ObjectKey, u64> =
            prepared.iter().map(|p| (p.key.clone(), p.digest)).collect();
        report.desired = Some(desired_digest(&prepared, job.origin));

        // What is left alone is not compared.
        let compared: HashMap<ObjectKey, u64> = {
            let members = self.members();
            let compared = prepared.iter().filter(|p| {
                p.marks.ssa != Ssa::IfNotPresent && !left_alone(p, members.live(&p.key))
            });
            compared.map(|p| (p.key.clone(), p.digest)).collect()
        };
        let secret = prepared.iter().filter(|p| p.object.is_secret()).map(|p| p.key.clone());
        self.members().note_secret(&set.id, secret.collect());
        let expiring = prepared.iter().filter(|p| p.expires()).map(|p| p.key.clone());
        self.members().note_expiring(&set.id, expiring.collect());
        if !job.policy.observe {
            self.members().forget_looks(&set.id);
        }
        let half_taken = self.take_back(&job, report).await?;
        let failed = report.failures.len();
        let mut todo = self.plan(&job, &prepared, &compared, report);
        todo.retain(|(p, _)| !half_taken.contains(&p.key));
        let put_off = report.failures.len() > failed;
        let slice = self.slice();
        if job.only_drift {
            return self.correct_alone(&job, &prepared, todo, &slice, report).await;
        }
        if job.policy.observe {
            self.observe(&job, &prepared, &todo, &desired, report).await?;
            sort_failures(&mut report.failures);
            return Ok(());
        }
        if job.policy.validate
            && (put_off || !self.validate(set, &todo, &job, &slice, report).await?)
        {
            report.refused = report.unsent == 0;
            sort_failures(&mut report.failures);
            return Ok(());
        }
        let mut wanted = report.scope.clone();
        for p in &prepared {
            wanted.add(&p.key.group_kind, &p.key.namespace);
        }
        let mut parent = job.parent.clone();
        if !parent.has_facts || !wanted.reads_as(&parent.hints, &set.namespace) {
            wanted = self.write_facts(set, &mut parent, wanted, job.epoch).await?;
        } else {
            self.note_facts(set, &wanted);
        }
        report.scope = wanted;
        self.attend_more(set, &report.scope.kinds);
        self.watch(&report.scope.kinds).await?;

        let mut missing = Missing::new(&prepared, report);
        for turn in turns(&prepared, &todo).into_values() {
            if report.unsent > 0 {
                report.unsent += turn.batch.len();
                continue;
            }
            if (job.superseded)() {
                report.superseded = true;
                break;
            }
            self.apply_turn(set, &turn.batch, &job, &slice, &mut missing, report).await?;
            if self.look_at_definitions(set, &turn.definitions, report).await? {
                // What was just defined can be watched from here on.
                self.watch(&report.scope.kinds).await?;
            }
        }

        // The last moment to notice that pruning was turned off, or the wanted revision went back.
        report.superseded |= (job.superseded)();
        if !report.superseded && report.unsent == 0 {
            self.tried().remove(&set.id);
            let mut wanted = Cow::Borrowed(&desired);
            if !report.failures.is_empty() {
                let applied = self.members().applied(&set.id, &set.manager).into_iter();
                let failed =
                    applied.filter(|(key, _)| report.failures.iter().any(|f| may_be(&f.key, key)));
                wanted.to_mut().extend(failed.map(|(key, _)| (key, 0)));
            }
            self.members().retain_verified(&set.id, &wanted);
            let blocked = !report.is_complete();
            self.prune(&desired, &job, blocked, &slice, report).await?;
            let mut scope = self.remaining_scope(set, &prepared, report).await;
            if job.keeps_scope {
                scope = scope.union(&report.scope);
            }
            if !blocked && !report.superseded && !scope.reads_as(&report.scope, &set.namespace) {
                scope = self.write_facts(set, &mut parent, scope, job.epoch).await?;
            }
            if !blocked {
                report.scope = scope;
            }
            report.settled = self.settled(set, &parent, &desired, &report.scope.kinds);
        }
        report.yielded = self.yields(&prepared);
        report.transient = Some(self.transient(&job, &prepared, report));
        if report.is_complete() {
            let members = self.members();
            let compared = lasting(&members, &set.id, &compared);
            report.cluster = if leaves_out(Sabotage::DigestOverDrift) {
                members.cluster_digest(&set.id, &set.manager, &compared)
            } else {
                members.verified_digest(&set.id, &compared)
            };
        }
        sort_failures(&mut report.failures);
        report.outcomes.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(())
    }

    /// What of these objects is left to others.
    fn yields(&self, prepared: &[Prepared]) -> Vec<Yield> {
        let members = self.members();
        let mut yields = Vec::new();
        for p in prepared {
            let scaled = members.live(&p.key).is_some_and(|live| live.scaled);
            let mut fields = Some(p.yielded.clone());
            if scaled || !p.ignored.is_empty() {
                let noted = members.yielded(&p.key);
                fields = noted.map(|noted| [&p.yielded, noted].concat());
            }
            if fields.as_ref().is_none_or(|fields| !fields.is_empty()) {
                yields.push(Yield { key: p.key.clone(), fields });
            }
        }
        yields.sort_by(|a, b| a.key.cmp(&b.key));
        yields
    }

    /// Deletes what nothing asks for any more, if it is time for that.
    pub(crate) async fn prune(
        &self,
        desired: &HashMap<ObjectKey, u64>,
        job: &Job<'_>,
        blocked: bool,
        slice: &Slice,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let set = job.set;
        let (kinds, occasion) = match self.to_prune(desired, job, blocked, report).await {
            Ok(Some(plan)) => plan,
            rests => {
                // No turn follows the last one, so that what failed in that is tried again one day.
                self.end_turns(&set.id);
                return rests.map(|_| ());
            }
        };
        let result = self.delete_members(job, &kinds, (desired, occasion), slice, report).await;
        self.end_turn(&set.id, report, result.is_err());
        report.kept = self.kept(set, desired);
        result.map(|_| ())
    }

    /// The kinds of which members are to be deleted now; `None` when there are none, or they wait.
    async fn to_prune(
        &self,
        desired: &HashMap<ObjectKey, u64>,
        job: &Job<'_>,
        blocked: bool,
        report: &mut Report,
    ) -> Result<Option<(BTreeSet<GroupKind>, Occasion)>, EngineError> {
        let set = job.set;
        report.kept = self.kept(set, desired);
        // What is on its way to another set is named by this one's scope until it is there.
        let half_taken = self.members().half_taken(&set.id, &set.manager);
        report.handed_over =
            half_taken.iter().filter(|(key, _)| !desired.contains_key(key)).count();
        let mut extras = self.extras(set, desired);
        if job.policy.prune {
            report.failures.extend(self.out_of_sight(&report.scope.kinds, desired, &extras));
        }
        if extras.is_empty() {
            self.void_plan(&set.id);
            return Ok(None);
        }
        if job.policy.prune && job.others.any_silent() {
            report.waits = true;
            return Ok(None);
        }
        if !self.ask_strangers(set, extras.iter().map(|(key, _)| key)).await? {
            report.waits = true;
            return Ok(None);
        }
        let live = extras.len();
        extras.retain(|(key, _)| !self.claims().others_want(&set.id, key));
        report.handed_over += live - extras.len();
        if extras.is_empty() {
            self.void_plan(&set.id);
            return Ok(None);
        }
        if !job.policy.prune {
            report.left = extras.len();
            return Ok(None);
        }
        // An object that could not be applied may be the new form of one that is left over.
        if blocked {
            // What could not even be prepared has not left Git.
            extras.retain(|(key, _)| !report.failures.iter().any(|f| may_be(&f.key, key)));
            report.held_back = extras.len();
            return Ok(None);
        }
        let kinds: BTreeSet<_> = extras.iter().map(|(key, _)| key.group_kind.clone()).collect();
        let occasion = Occasion::Sync {
            desired: desired.len(),
            members: self.members().applied(&set.id, &set.manager).len(),
        };
        // A new Application may be a new name of one that goes, and has not been heard yet.
        let renaming = kinds.contains(&set.parent)
            && report.outcomes.iter().any(|outcome| outcome.key.group_kind == set.parent);
        if renaming && job.others.is_patient() {
            report.waits = true;
            return Ok(None);
        }
        Ok(Some((kinds, occasion)))
    }

    /// Failures about kinds that nothing is wanted of any more, and of which something may be left
    /// that cannot be read.
    fn out_of_sight(
        &self,
        kinds: &BTreeSet<GroupKind>,
        desired: &HashMap<ObjectKey, u64>,
        extras: &[(ObjectKey, Live)],
    ) -> Vec<Failure> {
        let known = |kind: &GroupKind| {
            let mut keys = desired.keys().chain(extras.iter().map(|(key, _)| key));
            keys.any(|key| key.group_kind == *kind)
        };
        let blind = self.blind(kinds).into_iter();
        let unseen = blind.filter(|(kind, _)| !known(kind));
        unseen.map(|(kind, why)| unlisted(&kind, &why, ErrorClass::Retry)).collect()
    }

    /// The kinds of these of which nothing is left that the parent inherits.
    fn settled(
        &self,
        set: &ApplySet,
        parent: &Parent,
        desired: &HashMap<ObjectKey, u64>,
        kinds: &BTreeSet<GroupKind>,
    ) -> BTreeSet<GroupKind> {
        let members = self.members();
        let inherited: BTreeSet<GroupKind> = members
            .applied(&set.id, &set.manager)
            .into_iter()
            .filter(|(key, live)| !desired.contains_key(key) && !live.terminating)
            .filter(|(key, live)| parent.inherits(set, key, live))
            .map(|(key, _)| key.group_kind)
            .collect();
        let known = |kind: &GroupKind| members.kind(kind) == Some(&KindState::Synced);
        kinds
            .iter()
            .filter(|&kind| {
                parent.settled.contains(kind) || known(kind) && !inherited.contains(kind)
            })
            .cloned()
            .collect()
    }

    /// The members of a set that are not verified and not ours to delete: what left Git and stays all
    /// the same, and what is left alone. Once a run is over, this tells whether any of that changed.
    pub fn kept_at_rest(&self, set: &ApplySet) -> Box<[ObjectKey]> {
        let verified: HashMap<ObjectKey, u64> = {
            let members = self.members();
            let keys = members.applied(&set.id, &set.manager).into_iter().map(|(key, _)| key);
            keys.filter(|key| members.is_verified_for(key, &set.id)).map(|key| (key, 0)).collect()
        };
        self.kept(set, &verified).into_iter().map(|kept| kept.key).collect()
    }

    /// Members that nothing asks for and that are not ours to delete, and why.
    fn kept(&self, set: &ApplySet, desired: &HashMap<ObjectKey, u64>) -> Vec<Kept> {
        let applied = self.members().applied(&set.id, &set.manager);
        applied
            .into_iter()
            .filter(|(key, live)| !desired.contains_key(key) && !live.terminating)
            .filter(|(_, live)| !is_ours_to_delete(set, live))
            .filter(|(key, _)| !self.claims().others_want(&set.id, key))
            .map(|(key, live)| {
                let owned = live.is_owned_beside(&set.manager);
                Kept {
                    key,
                    why: if live.marks.stays() {
                        "it is marked to stay"
                    } else if owned {
                        "it has an owner"
                    } else {
                        "somebody else put its label there"
                    },
                }
            })
            .collect()
    }

    /// Members that nothing asks for and that may go, as far as the watches know.
    pub(crate) fn extras(
        &self,
        set: &ApplySet,
        desired: &HashMap<ObjectKey, u64>,
    ) -> Vec<(ObjectKey, Live)> {
        let applied = self.members().applied(&set.id, &set.manager);
        applied
            .into_iter()
            .filter(|(key, live)| !desired.contains_key(key) && is_ours_to_delete(set, live))
            .filter(|(key, _)| {
                !leaves_out(Sabotage::ForgetsAtRestart) || self.members().has_verified(key)
            })
            .collect()
    }
}

/// Whether a labelled object may be deleted for its set: our manager put the label there, nobody
/// owns it or marked it to stay, and it is not going already.
pub(crate) fn is_ours_to_delete(set: &ApplySet, live: &Live) -> bool {
    !live.terminating
        && !live.is_owned_beside(&set.manager)
        && !live.marks.stays()
        && live.part_of.as_deref() == Some(&set.id)
        && (live.entry(&set.manager).is_some_and(|entry| entry.owns_part_of)
            || leaves_out(Sabotage::PruneWithoutOwner))
}

/// Whether an object that could not be prepared may be this one: of a kind that is not known it is not
/// known either whether its objects are in namespaces.
fn may_be(failed: &ObjectKey, key: &ObjectKey) -> bool {
    failed.group_kind == key.group_kind
        && failed.name == key.name
        && (failed.namespace.is_empty() || failed.namespace == key.namespace)
}

fn sort_failures(failures: &mut [Failure]) {
    failures.sort_by(|a, b| (&a.place, &a.key).cmp(&(&b.place, &b.key)));
}

/// Errors that would meet every other object too.
pub(crate) fn ends_run(error: &ApiError) -> bool {
    match error {
        ApiError::Transport { .. } | ApiError::NotLeading { .. } => true,
        error => error.is_too_many_requests() || error.refusal().is_some_and(|r| r.code == 401),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Entry;
    use crate::marks::{Marks, Prune};

    fn set() -> ApplySet {
        ApplySet::new(GroupKind::new("plumb.dev", "Application"), "ns", "app")
    }

    /// An object as its set applied it.
    fn member(set: &ApplySet) -> Live {
        Live {
            uid: "u1".into(),
            resource_version: 10,
            generation: 1,
            terminating: false,
            owners: 0,
            marks: Marks::default(),
            scaled: false,
            part_of: Some(set.id.as_str().into()),
            entries: Box::new([Entry {
                manager: set.manager.as_str().into(),
                fields: 7,
                time: 100,
                owns_part_of: true,
                owners: 0,
            }]),
            others: 3,
            others_time: 0,
        }
    }

    /// Times are the API server's: when its clock is set back, what was applied since seems older
    /// than its parent.
    #[test]
    fn a_clock_that_is_set_back_holds_too_much_and_never_too_little() {
        let set = set();
        let map = GroupKind::new("", "ConfigMap");
        let key = ObjectKey::new(map.clone(), "ns", "a");
        let parent = |created, settled: &[GroupKind]| Parent {
            resource: Resource::known(
                plumb_core::Gvk::new("plumb.dev/v1alpha1", "Application"),
                "applications",
                true,
            ),
            uid: "p1".into(),
            resource_version: 5,
            has_facts: true,
            hints: Scope::default(),
            recorded: Scope::default(),
            epoch: None,
            finalizer: "f",
            created: Some(created),
            settled: settled.iter().cloned().collect(),
        };
        let live = member(&set);
        assert!(!parent(99, &[]).inherits(&set, &key, &live));
        assert!(parent(100 + 3600, &[]).inherits(&set, &key, &live));
        // Once it is known that nothing is left of an earlier parent, times say nothing more.
        assert!(!parent(100 + 3600, &[map]).inherits(&set, &key, &live));
    }

    #[test]
    fn only_what_our_manager_labelled_is_ours_to_delete() {
        type Change = fn(&mut Live);
        let set = set();
        let member = member(&set);
        assert!(is_ours_to_delete(&set, &member));
        let cases: [(&str, Change); 9] = [
            ("not to be pruned", |l| l.marks.prune = Prune::Disabled),
            ("not to be touched", |l| l.marks.leave = true),
            ("not to be applied", |l| l.marks.ssa = Ssa::Ignore),
            ("going already", |l| l.terminating = true),
            ("owned by another object", |l| l.owners = 1),
            ("without label", |l| l.part_of = None),
            ("labelled for another set", |l| l.part_of = Some("applyset-x-v1".into())),
            ("never applied by us", |l| l.entries = Box::default()),
            ("labelled by somebody else", |l| l.entries[0].owns_part_of = false),
        ];
        for (what, change) in cases {
            let mut live = member.clone();
            change(&mut live);
            assert!(!is_ours_to_delete(&set, &live), "{what}");
        }
    }
}
