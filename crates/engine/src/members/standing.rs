//! How objects stand to what was last verified of them.

use plumb_core::ObjectKey;

use super::Members;

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

impl Members {
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

    fn is_verified_for(&self, key: &ObjectKey, set: &str) -> bool {
        let verified = self.objects.get(key).and_then(|slot| slot.verified.as_ref());
        verified.is_some_and(|v| &*v.set == set)
    }
}
