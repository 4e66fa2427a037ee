//! The index of live members: what each kind's watch and our own answers say about every labelled
//! object, and how each object was when it was last known to equal its desired state.
//!
//! A pure state machine: events go in, names of sets that need a look come out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use plumb_core::{Digest, GroupKind, Hasher, ObjectKey};

use crate::live::Live;

/// How an object was when it was last known to equal its desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verified {
    set: Arc<str>,
    manager: Arc<str>,
    uid: Box<str>,
    entry: Option<(u64, i64)>,
    generation: i64,
    others: u64,
    desired: u64,
}

/// What is known of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KindState {
    /// The first LIST has not ended.
    Pending,
    /// The index holds every labelled object of the kind.
    Synced,
    /// The last LIST or watch failed. What is in the index may be old; absence says nothing.
    Failed(String),
}

/// How an object stands to what was last verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Never verified by this process, and not there.
    Unknown,
    /// There, labelled as ours, never verified by this process.
    Unverified,
    /// There, labelled for this set, but our manager has no entry that owns the label.
    Unclaimed,
    /// There, labelled for another set.
    Foreign,
    /// As it was when verified; the desired digest it was verified against.
    Same(u64),
    /// Our fields as they were, but something else moved that can change them in ways the field
    /// set does not show. The desired digest it was verified against.
    Suspect(u64),
    /// Our fields were changed by somebody.
    Drifted,
    /// Verified before, now gone, or no longer labelled.
    Gone,
    /// Verified before, now another object of the same name.
    Replaced,
    /// On its way out.
    Terminating,
}

#[derive(Debug, Default)]
struct Slot {
    live: Option<Live>,
    verified: Option<Verified>,
    /// When `live` was last set, counted in calls; a LIST that began earlier does not remove it.
    touched: u64,
}

/// The index. See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Members {
    objects: HashMap<Arc<ObjectKey>, Slot>,
    kinds: BTreeMap<GroupKind, (KindState, u64)>,
    /// Every key that is labelled for a set or was verified for it.
    sets: HashMap<Arc<str>, HashSet<Arc<ObjectKey>>>,
    clock: u64,
}

impl Members {
    /// A kind is about to be watched.
    pub(crate) fn expect(&mut self, kind: &GroupKind) {
        self.kinds.entry(kind.clone()).or_insert((KindState::Pending, 0));
    }

    /// What is known of a kind; `None` when it is not watched.
    pub(crate) fn kind(&self, kind: &GroupKind) -> Option<&KindState> {
        self.kinds.get(kind).map(|(state, _)| state)
    }

    /// The kinds that are watched.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&GroupKind, &KindState)> {
        self.kinds.iter().map(|(kind, (state, _))| (kind, state))
    }

    /// How many live objects the index holds.
    pub(crate) fn len(&self) -> usize {
        self.objects.values().filter(|slot| slot.live.is_some()).count()
    }

    /// A LIST of the kind begins.
    pub(crate) fn restarted(&mut self, kind: &GroupKind) {
        self.clock += 1;
        let clock = self.clock;
        if let Some((_, began)) = self.kinds.get_mut(kind) {
            *began = clock;
        }
    }

    /// The LIST or watch of the kind failed. Returns whether that is news.
    pub(crate) fn failed(&mut self, kind: &GroupKind, why: String) -> bool {
        let Some((state, _)) = self.kinds.get_mut(kind) else { return false };
        let news = !matches!(state, KindState::Failed(_));
        *state = KindState::Failed(why);
        news
    }

    /// The sets that have members of a kind, as far as is known.
    pub(crate) fn sets_with(&self, kind: &GroupKind) -> BTreeSet<Arc<str>> {
        let of_kind = self.objects.keys().filter(|key| key.group_kind == *kind);
        of_kind.flat_map(|key| self.concerned(key)).collect()
    }

    /// The cluster does not have the kind any more, and what takes a kind away takes its objects
    /// along, whether a watch told so or not. Returns the sets to look at.
    pub(crate) fn vanished(&mut self, kind: &GroupKind) -> BTreeSet<Arc<str>> {
        let live: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, slot)| key.group_kind == *kind && slot.live.is_some())
            .map(|(key, _)| Arc::clone(key))
            .collect();
        live.iter().flat_map(|key| self.unset(key)).collect()
    }

    /// A LIST ended: these objects exist, others of the kind do not, but for those that could not
    /// be read. Returns the sets to look at.
    pub(crate) fn listed(
        &mut self,
        kind: &GroupKind,
        objects: Vec<(ObjectKey, Live)>,
        unreadable: &[ObjectKey],
    ) -> BTreeSet<Arc<str>> {
        let Some((state, began)) = self.kinds.get_mut(kind) else { return BTreeSet::new() };
        let began = *began;
        *state = match unreadable.first() {
            None => KindState::Synced,
            Some(key) => KindState::Failed(format!("{key} cannot be read")),
        };
        let mut sets = BTreeSet::new();
        let mut seen: HashSet<ObjectKey> = unreadable.iter().cloned().collect();
        for (key, live) in objects {
            seen.insert(key.clone());
            sets.extend(self.changed(key, live));
        }
        let gone: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, slot)| {
                key.group_kind == *kind
                    && slot.live.is_some()
                    && slot.touched < began
                    && !seen.contains(&***key)
            })
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in gone {
            sets.extend(self.unset(&key));
        }
        sets
    }

    /// An object was added or changed. Returns the sets to look at.
    pub(crate) fn changed(&mut self, key: ObjectKey, live: Live) -> BTreeSet<Arc<str>> {
        let key = self.intern(key);
        let known = self.objects.get(&key).and_then(|slot| slot.live.as_ref());
        // Events up to our own last answer tell nothing new; equal ones are that answer.
        if known.is_some_and(|known| known.resource_version >= live.resource_version) {
            return BTreeSet::new();
        }
        // Whoever had to be called was called for this state already.
        let known = known.is_some_and(|known| {
            *known == Live { resource_version: known.resource_version, ..live.clone() }
        });
        let before = self.concerned(&key);
        self.put(&key, live);
        if known {
            return BTreeSet::new();
        }
        let mut sets: BTreeSet<Arc<str>> = before.union(&self.concerned(&key)).cloned().collect();
        sets.retain(|set| {
            let manager = self.manager_of(&key, set);
            !matches!(self.standing(&key, set, manager.as_deref().unwrap_or("")), Standing::Same(_))
        });
        sets
    }

    /// An object left the watch: it was deleted, or lost its label. Returns the sets to look at.
    pub(crate) fn deleted(&mut self, key: &ObjectKey, live: &Live) -> BTreeSet<Arc<str>> {
        let known = self.objects.get(key).and_then(|slot| slot.live.as_ref());
        if known.is_some_and(|known| known.resource_version > live.resource_version) {
            return BTreeSet::new();
        }
        self.unset(key)
    }

    /// Our own request was answered: the object equals `desired` now.
    pub(crate) fn verified(
        &mut self,
        set: &str,
        manager: &str,
        key: &ObjectKey,
        live: Live,
        desired: u64,
    ) {
        let key = self.intern(key.clone());
        let set = self.intern_set(set);
        let newer = self.objects.get(&key).and_then(|slot| slot.live.as_ref());
        let newer = newer.filter(|known| known.resource_version > live.resource_version).cloned();
        let verified = Verified {
            set: Arc::clone(&set),
            manager: manager.into(),
            uid: live.uid.clone(),
            entry: live.entry(manager).map(|entry| (entry.fields, entry.time)),
            generation: live.generation,
            others: live.others,
            desired,
        };
        self.put(&key, newer.unwrap_or(live));
        self.objects.entry(Arc::clone(&key)).or_default().verified = Some(verified);
        self.sets.entry(set).or_default().insert(key);
    }

    /// Takes every labelled member that is there as verified: used after a restart, when the
    /// digests of both sides equal what was recorded.
    pub(crate) fn adopt_verified(
        &mut self,
        set: &str,
        manager: &str,
        desired: &HashMap<ObjectKey, u64>,
    ) {
        for (key, digest) in desired {
            if let Some(live) = self.live(key).cloned() {
                self.verified(set, manager, key, live, *digest);
            }
        }
    }

    /// Our own delete was answered: the object is gone.
    pub(crate) fn gone(&mut self, key: &ObjectKey) {
        self.remove(key);
    }

    /// The set no longer wants these verified objects, or any when `keep` is empty.
    pub(crate) fn retain_verified(&mut self, set: &str, keep: &HashMap<ObjectKey, u64>) {
        let Some(keys) = self.sets.get(set) else { return };
        let stale: Vec<_> =
            keys.iter().filter(|key| !keep.contains_key(&***key)).cloned().collect();
        for key in stale {
            let Some(slot) = self.objects.get_mut(&key) else { continue };
            if slot.verified.as_ref().is_some_and(|v| &*v.set == set) {
                slot.verified = None;
            }
            if slot.live.is_none() {
                self.remove(&key);
            }
        }
    }

    /// Our own request may have changed a live object: what was verified of it counts no more.
    pub(crate) fn doubt(&mut self, set: &str, key: &ObjectKey) {
        let Some((key, _)) = self.objects.get_key_value(key) else { return };
        let key = Arc::clone(key);
        let Some(slot) = self.objects.get_mut(&key) else { return };
        let ours = slot.verified.as_ref().is_some_and(|verified| &*verified.set == set);
        if ours && slot.live.is_some() {
            slot.verified = None;
            self.tidy(&key, set);
        }
    }

    /// The uid of the object that was last verified under this key.
    pub(crate) fn verified_uid(&self, key: &ObjectKey) -> Option<Box<str>> {
        Some(self.objects.get(key)?.verified.as_ref()?.uid.clone())
    }

    /// Nothing counts as verified any more: somebody else may have applied since.
    pub(crate) fn forget_verified(&mut self) {
        let verified: Vec<_> = self
            .objects
            .iter()
            .filter(|(_, slot)| slot.verified.is_some())
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in verified {
            let Some(slot) = self.objects.get_mut(&key) else { continue };
            let set = slot.verified.take().map(|verified| verified.set);
            if slot.live.is_none() {
                self.objects.remove(&key);
            }
            if let Some(set) = set {
                self.tidy(&key, &set);
            }
        }
    }

    /// What is known of a live object.
    pub(crate) fn live(&self, key: &ObjectKey) -> Option<&Live> {
        self.objects.get(key)?.live.as_ref()
    }

    /// The live objects that are labelled for a set and that its manager applied, in key order. What
    /// somebody else labelled, or a controller that copies labels, is left out.
    pub(crate) fn applied(&self, set: &str, manager: &str) -> Vec<(ObjectKey, Live)> {
        let mut members: Vec<_> = self
            .sets
            .get(set)
            .into_iter()
            .flatten()
            .filter_map(|key| Some(((**key).clone(), self.live(key)?.clone())))
            .filter(|(_, live)| live.part_of.as_deref() == Some(set))
            .filter(|(_, live)| live.entry(manager).is_some())
            .collect();
        members.sort_by(|a, b| a.0.cmp(&b.0));
        members
    }

    /// Whether every verified object of the set still is as it was, and nothing else is labelled
    /// for it.
    pub(crate) fn in_sync(&self, set: &str, manager: &str) -> bool {
        self.sets.get(set).into_iter().flatten().all(|key| {
            match self.standing(key, set, manager) {
                // Controllers copy labels, from a Service to its EndpointSlices for instance. A copy
                // was never applied by us: nothing to do here.
                Standing::Same(_) | Standing::Unclaimed => true,
                // Labelled for another set now and not ours any more: nothing to do here.
                Standing::Foreign => !self.is_verified_for(key, set),
                _ => false,
            }
        })
    }

    /// How an object stands to a set.
    pub(crate) fn standing(&self, key: &ObjectKey, set: &str, manager: &str) -> Standing {
        let Some(slot) = self.objects.get(key) else { return Standing::Unknown };
        let verified = slot.verified.as_ref().filter(|v| &*v.set == set);
        let Some(live) = &slot.live else {
            return if verified.is_some() { Standing::Gone } else { Standing::Unknown };
        };
        if live.terminating {
            return Standing::Terminating;
        }
        let entry = live.entry(manager);
        match verified {
            _ if live.part_of.as_deref() != Some(set) && verified.is_none() => Standing::Foreign,
            None if entry.is_some_and(|entry| entry.owns_part_of) => Standing::Unverified,
            None => Standing::Unclaimed,
            Some(v) if v.uid != live.uid => Standing::Replaced,
            Some(v)
                if v.entry != entry.map(|e| (e.fields, e.time))
                    || live.part_of.as_deref() != Some(set) =>
            {
                Standing::Drifted
            }
            Some(v) if v.generation != live.generation || v.others != live.others => {
                Standing::Suspect(v.desired)
            }
            Some(v) => Standing::Same(v.desired),
        }
    }

    /// Digest over what members look like from outside: key, uid, generation, and our entry.
    /// `None` while one of them is missing.
    pub(crate) fn cluster_digest(
        &self,
        set: &str,
        manager: &str,
        keys: &HashMap<ObjectKey, u64>,
    ) -> Option<Digest> {
        let mut sorted: Vec<_> = keys.keys().collect();
        sorted.sort_unstable();
        let mut hasher = Hasher::new();
        for key in sorted {
            let live = self.live(key).filter(|live| live.part_of.as_deref() == Some(set))?;
            let entry = live.entry(manager)?;
            mix(&mut hasher, key, &live.uid, live.generation, (entry.fields, entry.time));
        }
        Some(hasher.finish())
    }

    /// The same digest over how the members were when each was verified against what is desired
    /// of it: a change that came since is not in it. `None` while one was not verified.
    pub(crate) fn verified_digest(
        &self,
        set: &str,
        desired: &HashMap<ObjectKey, u64>,
    ) -> Option<Digest> {
        let mut sorted: Vec<_> = desired.iter().collect();
        sorted.sort_unstable();
        let mut hasher = Hasher::new();
        for (key, digest) in sorted {
            let verified = self.objects.get(key)?.verified.as_ref()?;
            if &*verified.set != set || verified.desired != *digest {
                return None;
            }
            mix(&mut hasher, key, &verified.uid, verified.generation, verified.entry?);
        }
        Some(hasher.finish())
    }

    fn is_verified_for(&self, key: &ObjectKey, set: &str) -> bool {
        let verified = self.objects.get(key).and_then(|slot| slot.verified.as_ref());
        verified.is_some_and(|v| &*v.set == set)
    }

    fn manager_of(&self, key: &ObjectKey, set: &str) -> Option<Arc<str>> {
        let verified = self.objects.get(key)?.verified.as_ref()?;
        (&*verified.set == set).then(|| Arc::clone(&verified.manager))
    }

    fn concerned(&self, key: &ObjectKey) -> BTreeSet<Arc<str>> {
        let mut sets = BTreeSet::new();
        if let Some(slot) = self.objects.get(key) {
            sets.extend(slot.verified.as_ref().map(|v| Arc::clone(&v.set)));
            if let Some(part_of) = slot.live.as_ref().and_then(|live| live.part_of.as_deref()) {
                sets.insert(part_of.into());
            }
        }
        sets
    }

    fn put(&mut self, key: &Arc<ObjectKey>, live: Live) {
        self.clock += 1;
        let touched = self.clock;
        if let Some(part_of) = live.part_of.as_deref() {
            let set = self.intern_set(part_of);
            self.sets.entry(set).or_default().insert(Arc::clone(key));
        }
        let slot = self.objects.entry(Arc::clone(key)).or_default();
        let before = slot.live.replace(live).and_then(|live| live.part_of);
        slot.touched = touched;
        if let Some(before) = before {
            self.tidy(key, &before);
        }
    }

    fn unset(&mut self, key: &ObjectKey) -> BTreeSet<Arc<str>> {
        let sets = self.concerned(key);
        let Some(slot) = self.objects.get_mut(key) else { return sets };
        if slot.verified.is_none() {
            self.remove(key);
        } else {
            let before = slot.live.take().and_then(|live| live.part_of);
            if let (Some(before), Some((key, _))) = (before, self.objects.get_key_value(key)) {
                let key = Arc::clone(key);
                self.tidy(&key, &before);
            }
        }
        sets
    }

    fn remove(&mut self, key: &ObjectKey) {
        if let Some((key, slot)) = self.objects.remove_entry(key) {
            let part_of = slot.live.and_then(|live| live.part_of);
            for set in slot.verified.map(|v| v.set.to_string().into()).into_iter().chain(part_of) {
                self.tidy(&key, &set);
            }
        }
    }

    /// Takes a key out of a set that it has nothing to do with any more.
    fn tidy(&mut self, key: &Arc<ObjectKey>, set: &str) {
        if self.concerned(key).contains(set) {
            return;
        }
        if let Some(keys) = self.sets.get_mut(set) {
            keys.remove(key);
            if keys.is_empty() {
                self.sets.remove(set);
            }
        }
    }

    fn intern(&self, key: ObjectKey) -> Arc<ObjectKey> {
        self.objects.get_key_value(&key).map_or_else(|| Arc::new(key), |(key, _)| Arc::clone(key))
    }

    fn intern_set(&self, set: &str) -> Arc<str> {
        self.sets.get_key_value(set).map_or_else(|| set.into(), |(set, _)| Arc::clone(set))
    }
}

fn mix(
    hasher: &mut Hasher,
    key: &ObjectKey,
    uid: &str,
    generation: i64,
    (fields, time): (u64, i64),
) {
    hasher
        .part(key.to_string().as_bytes())
        .part(uid.as_bytes())
        .part(&generation.to_be_bytes())
        .part(&fields.to_be_bytes())
        .part(&time.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Entry;

    const SET: &str = "set-1";
    const MANAGER: &str = "plumb:ns/app";

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(GroupKind::new("", "ConfigMap"), "ns", name)
    }

    fn live(version: u64) -> Live {
        Live {
            uid: "u1".into(),
            resource_version: version,
            generation: 1,
            terminating: false,
            owned: false,
            part_of: Some(SET.into()),
            entries: vec![Entry {
                manager: MANAGER.into(),
                fields: 7,
                time: 100,
                owns_part_of: true,
            }],
            others: 3,
        }
    }

    fn with(version: u64, change: impl FnOnce(&mut Live)) -> Live {
        let mut live = live(version);
        change(&mut live);
        live
    }

    fn verified() -> Members {
        let mut members = Members::default();
        members.expect(&key("a").group_kind);
        members.verified(SET, MANAGER, &key("a"), live(10), 42);
        members
    }

    #[test]
    fn standings_after_one_event() {
        type Change = fn(&mut Live);
        let cases: [(&str, Change, Standing, bool); 9] = [
            ("only the version moved", |_| {}, Standing::Same(42), false),
            ("our fields changed", |l| l.entries[0].fields = 8, Standing::Drifted, true),
            ("applied in our name", |l| l.entries[0].time = 101, Standing::Drifted, true),
            ("our entry went", |l| l.entries.clear(), Standing::Drifted, true),
            ("relabelled", |l| l.part_of = Some("set-2".into()), Standing::Drifted, true),
            ("generation moved", |l| l.generation = 2, Standing::Suspect(42), true),
            ("another manager wrote", |l| l.others = 4, Standing::Suspect(42), true),
            ("another object", |l| l.uid = "u2".into(), Standing::Replaced, true),
            ("deletion began", |l| l.terminating = true, Standing::Terminating, true),
        ];
        for (what, change, standing, signal) in cases {
            let mut members = verified();
            let sets = members.changed(key("a"), with(11, change));
            assert_eq!(members.standing(&key("a"), SET, MANAGER), standing, "{what}");
            assert_eq!(sets.contains(SET), signal, "{what}");
            assert_eq!(members.in_sync(SET, MANAGER), !signal, "{what}");
        }
    }

    #[test]
    fn events_older_than_our_answer_tell_nothing() {
        let mut members = verified();
        assert!(members.changed(key("a"), with(9, |l| l.entries.clear())).is_empty());
        assert!(members.changed(key("a"), with(10, |l| l.entries.clear())).is_empty());
        assert!(members.deleted(&key("a"), &live(9)).is_empty());
        assert!(members.in_sync(SET, MANAGER));
    }

    #[test]
    fn a_member_out_of_step_calls_its_set_once_for_each_state() {
        let mut members = verified();
        assert!(members.changed(key("a"), with(11, |l| l.entries.clear())).contains(SET));
        assert!(members.changed(key("a"), with(12, |l| l.entries.clear())).is_empty());
        assert_eq!(members.live(&key("a")).map(|live| live.resource_version), Some(12));
        let more = with(13, |l| {
            l.entries.clear();
            l.generation = 2;
        });
        assert!(members.changed(key("a"), more).contains(SET));
        assert!(members.changed(key("extra"), live(14)).contains(SET));
        assert!(members.changed(key("extra"), live(15)).is_empty());
    }

    #[test]
    fn a_deletion_of_a_verified_object_is_drift() {
        let mut members = verified();
        assert!(members.deleted(&key("a"), &live(12)).contains(SET));
        assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Gone);
        assert!(!members.in_sync(SET, MANAGER));
        members.gone(&key("a"));
        assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Unknown);
        assert!(members.in_sync(SET, MANAGER) && members.sets.is_empty());
    }

    #[test]
    fn an_extra_member_calls_its_set() {
        let mut members = verified();
        assert!(members.changed(key("b"), live(11)).contains(SET));
        assert_eq!(members.standing(&key("b"), SET, MANAGER), Standing::Unverified);
        assert_eq!(members.applied(SET, MANAGER).len(), 2);
        assert!(!members.in_sync(SET, MANAGER));
        let unclaimed = with(12, |l| l.entries.clear());
        members.changed(key("b"), unclaimed);
        assert_eq!(members.standing(&key("b"), SET, MANAGER), Standing::Unclaimed);
        assert_eq!(members.applied(SET, MANAGER).len(), 1);
        assert!(members.in_sync(SET, MANAGER), "a copy of the label is no member");
    }

    #[test]
    fn a_list_removes_what_it_does_not_hold_but_not_what_came_after_it_began() {
        let mut members = verified();
        let kind = key("a").group_kind;
        members.changed(key("old"), live(5));
        members.restarted(&kind);
        members.verified(SET, MANAGER, &key("new"), live(20), 1);
        let sets = members.listed(&kind, vec![(key("a"), live(10))], &[]);
        assert!(sets.contains(SET), "the old one went");
        assert_eq!(members.standing(&key("old"), SET, MANAGER), Standing::Unknown);
        assert_eq!(members.standing(&key("new"), SET, MANAGER), Standing::Same(1));
        assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Same(42));
        assert_eq!(members.kind(&kind), Some(&KindState::Synced));
    }

    #[test]
    fn a_failed_kind_is_unknown_not_empty() {
        let mut members = verified();
        let kind = key("a").group_kind;
        assert!(members.failed(&kind, "403".into()));
        assert!(!members.failed(&kind, "403".into()));
        assert_eq!(members.kind(&kind), Some(&KindState::Failed("403".into())));
        assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Same(42));
    }

    #[test]
    fn what_a_list_cannot_read_is_not_gone() {
        let mut members = verified();
        let kind = key("a").group_kind;
        members.restarted(&kind);
        members.listed(&kind, Vec::new(), &[key("a")]);
        assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Same(42));
        assert!(matches!(members.kind(&kind), Some(KindState::Failed(_))), "not fully known");
        members.restarted(&kind);
        members.listed(&kind, Vec::new(), &[]);
        assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Gone);
        assert_eq!(members.kind(&kind), Some(&KindState::Synced));
    }

    #[test]
    fn a_kind_names_the_sets_that_have_members_of_it() {
        let mut members = verified();
        members.changed(key("b"), with(11, |l| l.part_of = Some("set-2".into())));
        let sets = members.sets_with(&key("a").group_kind);
        assert_eq!(sets.iter().map(|set| &**set).collect::<Vec<_>>(), [SET, "set-2"]);
        assert!(members.sets_with(&GroupKind::new("apps", "Deployment")).is_empty());
    }

    #[test]
    fn the_cluster_digest_sees_our_side_only() {
        let desired = HashMap::from([(key("a"), 42)]);
        let digest = |members: &Members| members.cluster_digest(SET, MANAGER, &desired);
        let mut members = verified();
        let before = digest(&members);
        assert!(before.is_some());
        members.changed(key("a"), with(11, |l| l.others = 9));
        assert_eq!(digest(&members), before);
        members.changed(key("a"), with(12, |l| l.entries[0].fields = 9));
        assert_ne!(digest(&members), before);
        members.deleted(&key("a"), &live(13));
        assert_eq!(digest(&members), None);
    }

    #[test]
    fn the_effect_of_a_write_without_an_answer_is_not_drift() {
        let mut members = verified();
        members.doubt("set-2", &key("a"));
        assert!(members.in_sync(SET, MANAGER), "another set's write is not ours");
        members.doubt(SET, &key("a"));
        members.changed(key("a"), with(11, |l| l.entries[0].fields = 8));
        assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Unverified);
        assert!(!members.in_sync(SET, MANAGER));
        members.verified(SET, MANAGER, &key("a"), with(11, |l| l.entries[0].fields = 8), 42);
        members.deleted(&key("a"), &live(12));
        members.doubt(SET, &key("a"));
        assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Gone, "still missed");
    }

    #[test]
    fn objects_go_with_their_kind_also_when_no_watch_tells() {
        let mut members = verified();
        assert!(members.in_sync(SET, MANAGER));
        let kind = key("a").group_kind;
        assert_eq!(members.vanished(&kind), BTreeSet::from([SET.into()]));
        assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Gone);
        assert!(!members.in_sync(SET, MANAGER));
        assert_eq!(members.vanished(&kind), BTreeSet::new(), "told once");
    }

    #[test]
    fn what_another_leader_may_have_changed_is_not_verified() {
        let mut members = verified();
        members.verified(SET, MANAGER, &key("gone"), live(11), 1);
        members.deleted(&key("gone"), &live(12));
        members.forget_verified();
        assert_eq!(members.standing(&key("a"), SET, MANAGER), Standing::Unverified);
        assert_eq!(members.standing(&key("gone"), SET, MANAGER), Standing::Unknown);
        assert_eq!(members.applied(SET, MANAGER).len(), 1);
        members.deleted(&key("a"), &live(13));
        assert!(members.objects.is_empty() && members.sets.is_empty());
    }

    #[test]
    fn a_change_that_came_after_the_answer_is_not_recorded_as_equal() {
        let desired = HashMap::from([(key("a"), 42)]);
        let mut members = verified();
        let equal = members.cluster_digest(SET, MANAGER, &desired);
        assert!(equal.is_some());
        assert_eq!(members.verified_digest(SET, &desired), equal);
        members.changed(key("a"), with(11, |l| l.entries[0].fields = 9));
        assert_eq!(members.verified_digest(SET, &desired), equal);
        assert_ne!(members.cluster_digest(SET, MANAGER, &desired), equal);
        let other = HashMap::from([(key("a"), 43)]);
        assert_eq!(members.verified_digest(SET, &other), None, "verified against something else");
        let more = HashMap::from([(key("a"), 42), (key("b"), 1)]);
        assert_eq!(members.verified_digest(SET, &more), None, "one was never verified");
    }

    #[test]
    fn what_a_set_no_longer_wants_is_forgotten() {
        let mut members = verified();
        members.verified(SET, MANAGER, &key("b"), live(11), 1);
        members.retain_verified(SET, &HashMap::from([(key("a"), 42)]));
        assert_eq!(members.standing(&key("b"), SET, MANAGER), Standing::Unverified);
        members.deleted(&key("b"), &live(12));
        assert!(members.in_sync(SET, MANAGER));
        members.gone(&key("a"));
        assert!(members.objects.is_empty() && members.sets.is_empty());
    }
}
