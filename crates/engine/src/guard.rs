//! The prune guard: what is deleted at once, and what waits for a person.
//!
//! Accidents delete much at a time, or what cannot come back. Such a plan is held until somebody
//! approves its digest; a plan that changes is another plan.

use std::collections::BTreeSet;
use std::sync::Arc;

use plumb_core::{Digest, GroupKind, Hasher, ObjectKey};

use crate::sabotage::{Sabotage, leaves_out};

/// A member that nothing in Git asks for any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The object.
    pub key: ObjectKey,
    /// Its uid: the plan is about this object, not a later one of the same name.
    pub uid: Arc<str>,
    /// Why deleting it loses what Git cannot bring back; `None` for most objects.
    pub precious: Option<&'static str>,
    /// Whether it is older than the application itself, so that nobody knows whether it was ever
    /// its own.
    pub inherited: bool,
}

/// What is known of a kind without reading the object: why deleting one cannot be undone from Git.
pub(crate) fn precious_kind(key: &ObjectKey, limits: &Limits) -> Option<&'static str> {
    match (key.group_kind.group.as_str(), key.group_kind.kind.as_str()) {
        ("", "Namespace") => Some("deleting a namespace deletes everything in it"),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            Some("deleting a definition deletes every object of its kind")
        }
        ("", "PersistentVolume" | "PersistentVolumeClaim") => Some("its data may go with it"),
        ("apiregistration.k8s.io", "APIService") => Some("deleting it takes an API away"),
        _ => (limits.protect.contains(&key.group_kind))
            .then_some("spec.pruneGuard protects its kind"),
    }
}

/// What the guard has to know of the set as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A render asks for this many objects, and the set has this many members.
    Sync {
        /// Objects that Git asks for.
        desired: usize,
        /// Live members, the candidates included.
        members: usize,
    },
    /// The application itself is deleted: its owner's word, but for what cannot come back and for
    /// what it inherited.
    Deletion {
        /// Its namespace goes, and takes it along: that says nothing of what is elsewhere.
        with_namespace: bool,
    },
}

/// Why a plan is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldReason {
    /// Nothing is left to apply where there was something.
    Empty,
    /// Too large a share of the members.
    Share,
    /// A candidate is precious.
    Precious,
    /// The candidates are older than the application.
    Inherited,
    /// Another application may want the candidates, and cannot say so.
    Broken,
}

impl HoldReason {
    /// One word, for conditions and events.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Empty => "EmptyRender",
            Self::Share => "LargeShare",
            Self::Precious => "ProtectedObjects",
            Self::Inherited => "InheritedObjects",
            Self::Broken => "NeighbourBroken",
        }
    }
}

/// A plan that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Names this plan: the objects with their uids.
    pub digest: Digest,
    /// What would be deleted, sorted.
    pub objects: Vec<ObjectKey>,
    /// Why it is held.
    pub reason: HoldReason,
    /// The reason in words.
    pub message: String,
}

/// What an owner wants to be asked about before it is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// So many deletions are never held for their share: renaming a handful of objects of a small
    /// application is daily work.
    pub free: usize,
    /// The largest share of the members that is deleted at once, in percent.
    pub share: usize,
    /// Kinds that are held like those that are precious by nature.
    pub protect: BTreeSet<GroupKind>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { free: 10, share: 50, protect: BTreeSet::new() }
    }
}

/// A person's word for one plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The digest that was named.
    pub digest: String,
    /// What was tried of the plan so far, as its digest counts it.
    done: BTreeSet<String>,
}

impl Approval {
    /// The word for the plan of this digest, of which nothing is done yet.
    pub fn of(digest: &str) -> Self {
        Self { digest: digest.to_owned(), done: BTreeSet::new() }
    }

    /// This object of it is to be deleted now. Whether that comes about, nobody may ever learn.
    pub(crate) fn note(&mut self, key: &ObjectKey, uid: &str) {
        self.done.insert(line(key, uid));
    }

    /// It was refused.
    pub(crate) fn take_back(&mut self, key: &ObjectKey, uid: &str) {
        self.done.remove(&line(key, uid));
    }

    /// Whether something of it was tried.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.done.is_empty()
    }

    /// Whether these are what is left of the plan.
    pub(crate) fn is_for(&self, candidates: &[Candidate]) -> bool {
        plan_digest(candidates, &self.done).to_string() == self.digest
    }
}

fn line(key: &ObjectKey, uid: &str) -> String {
    format!("{key} {uid}")
}

/// Digest that names a plan, of which some of the lines may be done.
fn plan_digest(candidates: &[Candidate], done: &BTreeSet<String>) -> Digest {
    let left = candidates.iter().map(|c| line(&c.key, &c.uid));
    let lines: BTreeSet<String> = left.chain(done.iter().cloned()).collect();
    let mut hasher = Hasher::new();
    for line in lines {
        hasher.part(line.as_bytes());
    }
    hasher.finish()
}

/// Decides about one plan. `Ok` means delete now. `approved` is what a person named.
pub fn judge(
    candidates: &[Candidate],
    occasion: Occasion,
    limits: &Limits,
    approved: Option<&Approval>,
) -> Result<(), Box<Held>> {
    let count = candidates.len();
    if count == 0 {
        return Ok(());
    }
    let precious = candidates.iter().find_map(|c| Some((&c.key, c.precious?)));
    let inherited = candidates.iter().filter(|c| c.inherited).count();
    let (reason, message) = match (occasion, precious) {
        _ if inherited > 0 => (
            HoldReason::Inherited,
            format!(
                "{} before this application was created, by an earlier one of its name",
                if inherited == 1 {
                    "1 object was applied".into()
                } else {
                    format!("{inherited} objects were applied")
                }
            ),
        ),
        (Occasion::Sync { desired: 0, .. }, _) if !leaves_out(Sabotage::PrunesOnAnEmptyRender) => (
            HoldReason::Empty,
            format!("the path renders no object any more, and {count} are live"),
        ),
        (_, Some((key, why))) => (HoldReason::Precious, format!("{key} would be deleted: {why}")),
        (Occasion::Sync { members, .. }, None)
            if count > limits.free && count * 100 > members * limits.share =>
        {
            let share = limits.share;
            let message =
                format!("{count} of {members} objects would be deleted, more than {share} %");
            (HoldReason::Share, message)
        }
        _ => return Ok(()),
    };
    hold(candidates, reason, message, approved)
}

/// Holds a plan, unless a person named it.
pub(crate) fn hold(
    candidates: &[Candidate],
    reason: HoldReason,
    message: String,
    approved: Option<&Approval>,
) -> Result<(), Box<Held>> {
    if approved.is_some_and(|approved| approved.is_for(candidates)) {
        return Ok(());
    }
    let digest = plan_digest(candidates, &BTreeSet::new());
    let mut objects: Vec<_> = candidates.iter().map(|c| c.key.clone()).collect();
    objects.sort_unstable();
    Err(Box::new(Held { digest, objects, reason, message }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_core::GroupKind;

    fn candidates(kind: &str, count: usize) -> Vec<Candidate> {
        (0..count)
            .map(|i| {
                let key = ObjectKey::new(GroupKind::parse(kind).unwrap(), "ns", &format!("o{i}"));
                let precious = precious_kind(&key, &Limits::default());
                Candidate { key, uid: format!("u{i}").into(), precious, inherited: false }
            })
            .collect()
    }

    fn held(
        candidates: &[Candidate],
        occasion: Occasion,
        approved: Option<&str>,
    ) -> Result<(), Box<Held>> {
        judge(candidates, occasion, &Limits::default(), approved.map(Approval::of).as_ref())
    }

    const DELETION: Occasion = Occasion::Deletion { with_namespace: false };

    fn sync(desired: usize, members: usize) -> Occasion {
        Occasion::Sync { desired, members }
    }

    #[test]
    fn holds_what_looks_like_an_accident() {
        let cases = [
            ("ConfigMap", 0, sync(0, 0), None),
            ("ConfigMap", 1, sync(3, 4), None),
            ("ConfigMap", 10, sync(1, 11), None),
            ("ConfigMap", 11, sync(11, 22), None),
            ("ConfigMap", 11, sync(10, 21), Some(HoldReason::Share)),
            ("ConfigMap", 1, sync(0, 1), Some(HoldReason::Empty)),
            ("Namespace", 1, sync(30, 31), Some(HoldReason::Precious)),
            ("PersistentVolumeClaim", 1, sync(30, 31), Some(HoldReason::Precious)),
            ("PersistentVolume", 1, sync(30, 31), Some(HoldReason::Precious)),
            (
                "CustomResourceDefinition.apiextensions.k8s.io",
                1,
                sync(30, 31),
                Some(HoldReason::Precious),
            ),
            ("APIService.apiregistration.k8s.io", 1, sync(30, 31), Some(HoldReason::Precious)),
            ("Secret", 1, sync(30, 31), None),
            ("ConfigMap", 500, DELETION, None),
            ("Namespace", 1, DELETION, Some(HoldReason::Precious)),
        ];
        for (kind, count, occasion, want) in cases {
            let got = held(&candidates(kind, count), occasion, None).err();
            assert_eq!(got.map(|held| held.reason), want, "{kind} {count} {occasion:?}");
        }
    }

    #[test]
    fn its_owner_says_what_is_much() {
        let limits = |free, share| Limits { free, share, ..Limits::default() };
        let cases = [
            (limits(0, 0), 1, 100, true),
            (limits(3, 0), 3, 100, false),
            (limits(3, 0), 4, 100, true),
            (limits(0, 20), 20, 100, false),
            (limits(0, 20), 21, 100, true),
            (limits(0, 100), 99, 100, false),
            (limits(usize::MAX, 0), 99, 100, false),
        ];
        for (limits, count, members, held) in cases {
            let occasion = sync(members - count, members);
            let got = judge(&candidates("ConfigMap", count), occasion, &limits, None);
            assert_eq!(got.is_err(), held, "{count} of {members} with {limits:?}");
        }
        // What cannot come back, and what is suddenly nothing, is held all the same.
        let off = limits(usize::MAX, 100);
        assert!(judge(&candidates("Namespace", 1), sync(9, 10), &off, None).is_err());
        assert!(judge(&candidates("ConfigMap", 1), sync(0, 1), &off, None).is_err());
    }

    #[test]
    fn its_owner_says_which_kinds_are_precious() {
        let kind = |text| GroupKind::parse(text).unwrap();
        let limits =
            Limits { protect: BTreeSet::from([kind("Deployment.apps")]), ..Limits::default() };
        let key = |text| ObjectKey::new(kind(text), "ns", "a");
        assert!(precious_kind(&key("Deployment.apps"), &limits).is_some());
        assert!(precious_kind(&key("Namespace"), &limits).is_some());
        assert_eq!(precious_kind(&key("Deployment.example.com"), &limits), None);
    }

    #[test]
    fn what_an_earlier_application_applied_is_nobodys_word() {
        for occasion in [sync(5, 7), DELETION] {
            let mut plan = candidates("ConfigMap", 2);
            assert_eq!(held(&plan, occasion, None), Ok(()));
            plan[1].inherited = true;
            let hold = held(&plan, occasion, None).unwrap_err();
            assert_eq!(hold.reason, HoldReason::Inherited);
            assert!(hold.message.starts_with("1 object was applied before"), "{}", hold.message);
            assert_eq!(held(&plan, occasion, Some(&hold.digest.to_string())), Ok(()));
        }
    }

    #[test]
    fn approval_is_for_one_plan_only() {
        let plan = candidates("ConfigMap", 12);
        let plan_held = held(&plan, sync(0, 12), None).unwrap_err();
        let digest = plan_held.digest.to_string();
        assert_eq!(held(&plan, sync(0, 12), Some(&digest)), Ok(()));
        let mut other = plan.clone();
        other[3].uid = "new".into();
        assert!(held(&other, sync(0, 12), Some(&digest)).is_err());
        assert!(held(&plan[1..], sync(0, 12), Some(&digest)).is_err());
        let mut shuffled = plan;
        shuffled.reverse();
        assert_eq!(held(&shuffled, sync(0, 12), Some(&digest)), Ok(()));
    }

    #[test]
    fn a_plan_that_is_partly_done_is_the_same_plan() {
        let plan = candidates("ConfigMap", 12);
        let digest = held(&plan, sync(0, 12), None).unwrap_err().digest.to_string();
        let mut approval = Approval::of(&digest);
        let judge = |rest: &[Candidate], approval: &Approval| {
            judge(rest, sync(0, 12), &Limits::default(), Some(approval)).is_ok()
        };
        for candidate in &plan[..5] {
            approval.note(&candidate.key, &candidate.uid);
        }
        assert!(judge(&plan[5..], &approval));
        // One of them that got no answer may be there still.
        assert!(judge(&plan[4..], &approval));
        // More than the plan, less than the rest, and something else than the rest.
        assert!(!judge(&[&plan[5..], &candidates("Secret", 1)].concat(), &approval));
        assert!(!judge(&plan[6..], &approval));
        // One that was refused and is asked for again is not part of what was done.
        approval.take_back(&plan[0].key, &plan[0].uid);
        assert!(!judge(&plan[5..], &approval));
        approval.note(&plan[0].key, &plan[0].uid);
        let mut other = plan[5..].to_vec();
        other[0].uid = "new".into();
        assert!(!judge(&other, &approval));
    }
}
