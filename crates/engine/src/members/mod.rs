//! The index of live members: what each kind's watch and our own answers say about every labelled
//! object, and how each object was when it was last known to equal its desired state.
//!
//! A pure state machine: events go in, names of sets that need a look come out.

mod audit;
mod digest;
mod heat;
mod standing;
#[cfg(test)]
mod tests;
mod wellbeing;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use plumb_core::{FieldPath, GroupKind, ObjectKey};
use plumb_health::Health;
use tokio::time::Instant;

use self::audit::Audit;
use self::heat::Heats;
use crate::attention::Told;
use crate::live::Live;
use crate::observe::Difference;
use crate::report::Drift;
use crate::sabotage::{Sabotage, leaves_out};

pub(crate) use self::audit::Audits;
pub(crate) use self::standing::{Standing, taker};
pub use self::wellbeing::HIDDEN;

/// How an object was when it was last known to equal its desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verified {
    set: Arc<str>,
    manager: Arc<str>,
    uid: Arc<str>,
    entry: Option<(u64, i64)>,
    generation: i64,
    others: u64,
    desired: u64,
    audit: Audit,
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

/// What a failure to read a kind says of the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Most likely it succeeds, or a run tells what is wrong: the server is away, or lacks the kind.
    Passing,
    /// It may be refused as well.
    Refused,
    /// It fails until somebody changes something.
    Lasting,
}

/// Refusals in a row after which a kind counts as unreadable. With the pauses between them they take
/// about half a minute.
const REFUSALS: u32 = 6;

#[derive(Debug)]
struct Kind {
    state: KindState,
    /// When the last LIST began, as [`Slot::touched`] counts.
    began: u64,
    /// The resource version that the watch has brought us to; 0 while that is not known.
    seen: u64,
    refusals: u32,
}

#[derive(Debug, Default)]
struct Slot {
    live: Option<Live>,
    verified: Option<Verified>,
    /// When `live` was last set, counted in calls; a LIST that began earlier does not remove it.
    touched: u64,
    /// What was done about it again and again. Most objects have none.
    heats: Option<Box<Heats>>,
    /// Fields that were left to others when it was last sent. Of most objects that is not asked.
    yielded: Option<Box<[FieldPath]>>,
    /// How it is, if anybody asks.
    told: Option<Box<Told>>,
}

/// The index. See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Each in a place of its own: those of a map are a third empty on average.
    objects: HashMap<Arc<ObjectKey>, Box<Slot>>,
    kinds: BTreeMap<GroupKind, Kind>,
    /// Every key that is labelled for a set or was verified for it.
    sets: HashMap<Arc<str>, HashSet<Arc<ObjectKey>>>,
    /// What holds values of Secrets, by each set that has said so.
    secret: HashMap<Arc<str>, HashSet<ObjectKey>>,
    /// Which of a set's objects go by themselves when they are done.
    expiring: HashMap<Arc<str>, HashSet<ObjectKey>>,
    /// What a standby saw; a leader has none.
    witnesses: HashMap<Arc<str>, digest::Witness>,
    clock: u64,
}

impl Members {
    /// A kind is about to be watched.
    pub(crate) fn expect(&mut self, kind: &GroupKind) {
        let new = || Kind { state: KindState::Pending, began: 0, seen: 0, refusals: 0 };
        self.kinds.entry(kind.clone()).or_insert_with(new);
    }

    /// What is known of a kind; `None` when it is not watched.
    pub(crate) fn kind(&self, kind: &GroupKind) -> Option<&KindState> {
        self.kinds.get(kind).map(|kind| &kind.state)
    }

    /// The kinds that are watched.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&GroupKind, &KindState)> {
        self.kinds.iter().map(|(name, kind)| (name, &kind.state))
    }

    /// Why objects of a kind have not been readable for longer than a moment.
    pub(crate) fn blind(&self, kind: &GroupKind) -> Option<&str> {
        match self.kinds.get(kind)? {
            Kind { state: KindState::Failed(why), refusals: REFUSALS.., .. } => Some(why),
            _ => None,
        }
    }

    /// How many live objects the index holds.
    pub(crate) fn len(&self) -> usize {
        self.objects.values().filter(|slot| slot.live.is_some()).count()
    }

    /// The live objects of a kind.
    pub(crate) fn of_kind<'m>(&'m self, kind: &'m GroupKind) -> impl Iterator<Item = &'m Live> {
        let of_kind = self.objects.iter().filter(move |(key, _)| key.group_kind == *kind);
        of_kind.filter_map(|(_, slot)| slot.live.as_ref())
    }

    /// The kind is not watched any more: nothing is known of it.
    pub(crate) fn forget_kind(&mut self, kind: &GroupKind) {
        self.kinds.remove(kind);
        let keys: Vec<_> =
            self.objects.keys().filter(|key| key.group_kind == *kind).map(Arc::clone).collect();
        for key in keys {
            self.remove(&key);
        }
    }

    /// A LIST of the kind begins.
    pub(crate) fn restarted(&mut self, kind: &GroupKind) {
        self.clock += 1;
        let clock = self.clock;
        if let Some(kind) = self.kinds.get_mut(kind) {
            kind.began = clock;
            kind.seen = 0;
        }
    }

    /// The watch of a kind has told everything up to this version.
    pub(crate) fn watched(&mut self, kind: &GroupKind, version: u64) {
        if let Some(kind) = self.kinds.get_mut(kind) {
            kind.seen = kind.seen.max(version);
        }
    }

    /// Whether an answer came after the watch told that the object of it was gone, or without its label:
    /// what was there at that version is not there any more.
    pub(crate) fn is_past(&self, key: &ObjectKey, live: &Live) -> bool {
        live.part_of.is_some()
            && self.live(key).is_none()
            && self.kinds.get(&key.group_kind).is_some_and(|kind| {
                kind.state == KindState::Synced && kind.seen >= live.resource_version
            })
    }

    /// The LIST or watch of the kind failed. Returns whether that is news.
    pub(crate) fn failed(&mut self, kind: &GroupKind, why: String, trouble: Trouble) -> bool {
        let Some(kind) = self.kinds.get_mut(kind) else { return false };
        let news = !matches!(kind.state, KindState::Failed(_));
        let told = kind.refusals >= REFUSALS;
        match trouble {
            Trouble::Passing => {}
            Trouble::Refused => kind.refusals = kind.refusals.saturating_add(1),
            Trouble::Lasting => kind.refusals = kind.refusals.max(REFUSALS),
        }
        // Words of a server can differ from one try to the next, and what is told must not.
        if news || !told {
            kind.state = KindState::Failed(why);
        }
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
        (objects, version): (Vec<(ObjectKey, Live)>, u64),
        unreadable: &[ObjectKey],
    ) -> BTreeSet<Arc<str>> {
        let Some(listed) = self.kinds.get_mut(kind) else { return BTreeSet::new() };
        let began = listed.began;
        listed.seen = version;
        (listed.state, listed.refusals) = match unreadable.first() {
            None => (KindState::Synced, 0),
            Some(key) => (KindState::Failed(format!("{key} cannot be read")), REFUSALS),
        };
        let mut sets = BTreeSet::new();
        let mut seen: HashSet<ObjectKey> = unreadable.iter().cloned().collect();
        for (key, live) in objects {
            seen.insert(key.clone());
            // After a restore of the API server's store, versions go on from below those of before.
            // So only what came since the LIST began may be newer than it.
            let newer = self.objects.get(&key).is_some_and(|slot| {
                let known = slot.live.as_ref();
                slot.touched >= began
                    && known.is_some_and(|known| known.resource_version >= live.resource_version)
            });
            if !newer {
                sets.extend(self.observed(key, live));
            }
        }
        let gone: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, slot)| {
                // What was answered meanwhile may be newer than the LIST.
                let older = |live: &Live| slot.touched < began || live.resource_version <= version;
                key.group_kind == *kind
                    && slot.live.as_ref().is_some_and(older)
                    && !seen.contains(&***key)
            })
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in gone {
            sets.extend(self.unset(&key));
        }
        sets
    }

    /// A request that was not about what is desired was answered. Returns the sets to look at.
    pub(crate) fn answered(&mut self, key: ObjectKey, live: Live) -> BTreeSet<Arc<str>> {
        if self.is_past(&key, &live) { BTreeSet::new() } else { self.changed(key, live) }
    }

    /// An object was added or changed. Returns the sets to look at.
    pub(crate) fn changed(&mut self, key: ObjectKey, live: Live) -> BTreeSet<Arc<str>> {
        let known = self.objects.get(&key).and_then(|slot| slot.live.as_ref());
        // Events up to our own last answer tell nothing new; equal ones are that answer.
        if known.is_some_and(|known| known.resource_version >= live.resource_version)
            && !leaves_out(Sabotage::EventsUnordered)
        {
            return BTreeSet::new();
        }
        self.observed(key, live)
    }

    /// Takes in how an object is now. Returns the sets to look at.
    fn observed(&mut self, key: ObjectKey, live: Live) -> BTreeSet<Arc<str>> {
        let key = self.intern(key);
        let known = self.objects.get(&key).and_then(|slot| slot.live.as_ref());
        // Whoever had to be called was called for this state already.
        let known = known.is_some_and(|known| {
            *known == Live { resource_version: known.resource_version, ..live.clone() }
        });
        let (before, was_left) = (self.concerned(&key), self.is_left(&key));
        self.put(&key, live);
        if known {
            return BTreeSet::new();
        }
        let left = self.is_left(&key);
        let mut sets: BTreeSet<Arc<str>> = before.union(&self.concerned(&key)).cloned().collect();
        // Whoever waits for somebody to take it has to know that nobody will any more.
        if left && !was_left {
            return sets;
        }
        sets.retain(|set| {
            let manager = self.manager_of(&key, set);
            let standing = self.standing(&key, set, manager.as_deref().unwrap_or(""));
            !matches!(standing, Standing::Same(_)) && !left
        });
        sets
    }

    /// Whether a mark keeps all off an object.
    fn is_left(&self, key: &ObjectKey) -> bool {
        self.live(key).is_some_and(|live| live.marks.hands_off())
    }

    /// An object left the watch: it was deleted, or lost its label. Returns the sets to look at.
    pub(crate) fn deleted(&mut self, key: &ObjectKey, live: &Live) -> BTreeSet<Arc<str>> {
        let known = self.objects.get(key).and_then(|slot| slot.live.as_ref());
        if known.is_some_and(|known| known.resource_version > live.resource_version) {
            return BTreeSet::new();
        }
        self.unset(key)
    }

    /// Our own request was answered: the object equals `desired` now. Returns whether it is there still.
    pub(crate) fn verified(
        &mut self,
        set: &str,
        manager: &str,
        key: &ObjectKey,
        live: Live,
        desired: u64,
    ) -> bool {
        let past = self.is_past(key, &live);
        let key = self.intern(key.clone());
        let set = self.intern_set(set);
        let newer = self.objects.get(&key).and_then(|slot| slot.live.as_ref());
        let newer = newer.filter(|known| known.resource_version > live.resource_version).cloned();
        let live = self.shared(live);
        let entry = live.entry(manager);
        let verified = Verified {
            set: Arc::clone(&set),
            manager: entry.map_or_else(|| manager.into(), |entry| Arc::clone(&entry.manager)),
            uid: Arc::clone(&live.uid),
            entry: entry.map(|entry| (entry.fields, entry.time)),
            generation: live.generation,
            others: live.others,
            desired,
            audit: Audit::Answered,
        };
        if !past {
            self.put(&key, newer.unwrap_or(live));
        }
        let slot = self.objects.entry(Arc::clone(&key)).or_default();
        if slot.verified.as_ref().is_some_and(|before| before.desired != desired) {
            // Git may ask for it differently because of a fight over what it asked for.
            slot.heats = None;
        }
        slot.verified = Some(verified);
        self.sets.entry(set).or_default().insert(key);
        !past
    }

    /// An object that goes by itself is gone, or about to go, and was in place as it is desired when that
    /// was recorded, with how it was if it was not ready: nothing can change that any more.
    pub(crate) fn note_expired(
        &mut self,
        set: &str,
        manager: &str,
        key: &ObjectKey,
        desired: u64,
        unready: Option<(Health, String)>,
    ) {
        let (key, set) = (self.intern(key.clone()), self.intern_set(set));
        let slot = self.objects.entry(Arc::clone(&key)).or_default();
        if let (Some((health, reason)), None) = (unready, &slot.told) {
            let (reason, is_final) = (reason.into(), true);
            let told = Told { version: 0, number: 0, health, reason, is_final, pods: None };
            slot.told = Some(Box::new(told));
        }
        slot.verified = Some(Verified {
            set: Arc::clone(&set),
            manager: manager.into(),
            uid: "".into(),
            entry: None,
            generation: 0,
            others: 0,
            desired,
            audit: Audit::Answered,
        });
        self.sets.entry(set).or_default().insert(key);
    }

    /// Whether this process knows of itself how an object is to be.
    pub(crate) fn has_verified(&self, key: &ObjectKey) -> bool {
        self.objects.get(key).is_some_and(|slot| slot.verified.is_some())
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
                let verified = self.objects.get_mut(key).and_then(|slot| slot.verified.as_mut());
                if let Some(verified) = verified {
                    verified.audit = Audit::Adopted;
                }
            }
        }
    }

    /// Our own request was answered: the object with that uid is gone, or ours no more. Another of
    /// its name may be there already.
    pub(crate) fn gone(&mut self, key: &ObjectKey, uid: &str) {
        if self.live(key).is_none_or(|live| &*live.uid == uid) {
            self.remove(key);
        }
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

    /// Somebody's change of an object was put back.
    pub(crate) fn corrected(&mut self, key: &ObjectKey, drift: &Drift, now: Instant) {
        if let Some(slot) = self.objects.get_mut(key) {
            slot.heats.get_or_insert_default().corrected(drift, now);
        }
    }

    /// An object that somebody touched was sent to see whether anything changes.
    pub(crate) fn checked(&mut self, key: &ObjectKey, now: Instant) {
        if let Some(slot) = self.objects.get_mut(key) {
            slot.heats.get_or_insert_default().checked(now);
        }
    }

    /// An object was looked at for a set that only observes: how it differs from what is desired.
    pub(crate) fn looked(
        &mut self,
        key: &ObjectKey,
        desired: u64,
        found: Option<Difference>,
        now: Instant,
    ) {
        if let Some(slot) = self.objects.get_mut(key) {
            slot.heats.get_or_insert_default().looked(desired, found, now);
        }
    }

    /// A set does more than to observe: looks count no more.
    pub(crate) fn forget_looks(&mut self, set: &str) {
        let Some(keys) = self.sets.get(set) else { return };
        for key in keys {
            if let Some(heats) = self.objects.get_mut(key).and_then(|slot| slot.heats.as_mut()) {
                heats.forget_look();
            }
        }
    }

    /// Whether an object was looked at with this desired of it.
    pub(crate) fn was_seen(&self, key: &ObjectKey, desired: u64) -> bool {
        let heats = self.objects.get(key).and_then(|slot| slot.heats.as_ref());
        heats.and_then(|heats| heats.seen()).is_some_and(|(then, _)| then == desired)
    }

    /// How an object differed when it was last looked at with this desired of it, if it did.
    pub(crate) fn seen(&self, key: &ObjectKey, desired: u64) -> Option<&Difference> {
        let (then, found) = self.objects.get(key)?.heats.as_ref()?.seen()?;
        found.filter(|_| then == desired)
    }

    /// An object is sent without these fields, which others decide.
    pub(crate) fn note_yielded(&mut self, key: &ObjectKey, fields: Vec<FieldPath>) {
        if let Some(slot) = self.objects.get_mut(key) {
            slot.yielded = Some(fields.into());
        }
    }

    /// The fields of an object that are left to others; `None` when that is not known.
    pub(crate) fn yielded(&self, key: &ObjectKey) -> Option<&[FieldPath]> {
        self.objects.get(key)?.yielded.as_deref()
    }

    /// The uid of the object that was last verified under this key.
    pub(crate) fn verified_uid(&self, key: &ObjectKey) -> Option<Arc<str>> {
        Some(self.objects.get(key)?.verified.as_ref()?.uid.clone())
    }

    /// The digest of what was desired of an object when it was last verified.
    pub(crate) fn verified_against(&self, key: &ObjectKey) -> Option<u64> {
        Some(self.objects.get(key)?.verified.as_ref()?.desired)
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

    fn manager_of(&self, key: &ObjectKey, set: &str) -> Option<Arc<str>> {
        let verified = self.objects.get(key)?.verified.as_ref()?;
        (&*verified.set == set).then(|| Arc::clone(&verified.manager))
    }

    fn concerned(&self, key: &ObjectKey) -> BTreeSet<Arc<str>> {
        let mut sets = BTreeSet::new();
        if let Some(slot) = self.objects.get(key) {
            sets.extend(slot.verified.as_ref().map(|v| Arc::clone(&v.set)));
            sets.extend(slot.live.as_ref().and_then(|live| live.part_of.clone()));
        }
        sets
    }

    /// The same with the texts that are here already.
    fn shared(&self, mut live: Live) -> Live {
        let Some(part_of) = &mut live.part_of else { return live };
        let Some((set, keys)) = self.sets.get_key_value(part_of) else { return live };
        *part_of = Arc::clone(set);
        // Any other one of the set has its manager's name.
        let other = keys.iter().next().and_then(|key| self.objects.get(key)?.live.as_ref());
        for entry in &mut live.entries {
            if let Some(known) = other.and_then(|other| other.entry(&entry.manager)) {
                entry.manager = Arc::clone(&known.manager);
            }
        }
        live
    }

    fn put(&mut self, key: &Arc<ObjectKey>, live: Live) {
        self.clock += 1;
        let touched = self.clock;
        let mut live = self.shared(live);
        if let Some(set) = live.part_of.as_deref().map(|part_of| self.intern_set(part_of)) {
            live.part_of = Some(Arc::clone(&set));
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
            for set in slot.verified.map(|v| v.set).into_iter().chain(part_of) {
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
