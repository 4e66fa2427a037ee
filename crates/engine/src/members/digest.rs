//! Digests of what members look like, to know after a restart whether anything moved.

use std::collections::HashMap;

use plumb_core::{Digest, Hasher, ObjectKey};

use super::Members;
use crate::live::Live;
use crate::marks::Ssa;

impl Members {
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

    /// Notes how each member is, if all are as they were when their set's state was recorded by this
    /// digest. Of what goes by itself, or is left alone, a standby does not know that; sets with such
    /// objects are noted only while there are none.
    pub(crate) fn witness(&mut self, set: &str, manager: &str, recorded: Digest) {
        if self.witnesses.get(set).is_some_and(|witness| witness.recorded == recorded) {
            return;
        }
        let compared = |live: &Live| {
            !live.marks.hands_off() && live.marks.ssa != Ssa::IfNotPresent && !live.terminating
        };
        let applied = self.applied(set, manager).into_iter().filter(|(_, live)| compared(live));
        let keys: HashMap<ObjectKey, u64> = applied.map(|(key, _)| (key, 0)).collect();
        if self.cluster_digest(set, manager, &keys) != Some(recorded) {
            return;
        }
        let mut each: Box<[u64]> =
            keys.keys().filter_map(|key| self.looks(key, set, manager)).collect();
        each.sort_unstable();
        self.witnesses.insert(self.intern_set(set), Witness { recorded, each });
    }

    /// Whether a member is as it was when this digest was recorded of its set, although others are not.
    pub(crate) fn is_witnessed(
        &self,
        key: &ObjectKey,
        set: &str,
        manager: &str,
        recorded: Digest,
    ) -> bool {
        let witness = self.witnesses.get(set).filter(|witness| witness.recorded == recorded);
        let looks = self.looks(key, set, manager);
        looks.zip(witness).is_some_and(|(looks, w)| w.each.binary_search(&looks).is_ok())
    }

    /// A leader knows more.
    pub(crate) fn forget_witness(&mut self, set: &str) {
        self.witnesses.remove(set);
    }

    /// What a member looks like from outside, as above.
    fn looks(&self, key: &ObjectKey, set: &str, manager: &str) -> Option<u64> {
        let live = self.live(key).filter(|live| live.part_of.as_deref() == Some(set))?;
        let entry = live.entry(manager)?;
        let mut hasher = Hasher::new();
        mix(&mut hasher, key, &live.uid, live.generation, (entry.fields, entry.time));
        Some(hasher.finish().short())
    }
}

/// How the members of a set were when all were as they were recorded. When a standby takes over and one
/// of them has changed, it tells which one: the digest of all of them only tells that one has.
#[derive(Debug)]
pub(super) struct Witness {
    recorded: Digest,
    /// Of each a digest, in order.
    each: Box<[u64]>,
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
