//! Digests of what members look like, to know after a restart whether anything moved.

use std::collections::HashMap;

use plumb_core::{Digest, Hasher, ObjectKey};

use super::Members;

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
