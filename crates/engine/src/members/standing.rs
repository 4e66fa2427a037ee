//! How objects stand to what was last verified of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use plumb_core::ObjectKey;
use plumb_health::Health;
use tokio::time::Instant;

use super::Members;
use super::audit::Audit;
use crate::attention::Told;
use crate::live::Live;
use crate::marks::Ssa;
use crate::report::Drift;
use crate::sabotage::{Sabotage, leaves_out};

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
    /// set does not show, or it is time to make sure. The desired digest it was verified against.
    Suspect(u64),
    /// Our fields were changed by somebody. The desired digest it was verified against.
    Drifted(u64),
    /// Verified before, now gone, or no longer labelled.
    Gone,
    /// Verified before, and gone by itself since it is done; the desired digest it was verified against.
    Expired(u64),
    /// Verified before, and on its way out by itself since it is done; as above.
    Expiring(u64),
    /// Verified before, now another object of the same name.
    Replaced,
    /// On its way out.
    Terminating,
}

/// Who put our label on an object beside us, or in our place: another Application's manager, which did so
/// by taking our entry over.
pub(crate) fn taker<'l>(live: &'l Live, manager: &str) -> Option<&'l str> {
    let mut others = live.entries.iter().filter(|entry| *entry.manager != *manager);
    others.find(|entry| entry.owns_part_of).map(|entry| &*entry.manager)
}

impl Members {
    /// Whether every verified object of the set still is as it was, or has to wait, and nothing else
    /// is labelled for it.
    pub(crate) fn in_sync(&self, set: &str, manager: &str, now: Instant) -> bool {
        self.sets.get(set).into_iter().flatten().all(|key| {
            let marks = self.live(key).map(|live| live.marks).unwrap_or_default();
            match self.standing(key, set, manager) {
                // Nothing is done to it as long as it is there and marked so.
                Standing::Gone => self.waits(key, Standing::Gone, now).is_some(),
                _ if marks.hands_off() || marks.ssa == Ssa::IfNotPresent => true,
                // Nothing asks for it any more, and it is not ours to delete.
                Standing::Unverified if marks.stays() => true,
                Standing::Unverified
                    if self.live(key).is_some_and(|l| l.is_owned_beside(manager)) =>
                {
                    true
                }
                standing if self.waits(key, standing, now).is_some() => true,
                // Controllers copy labels, from a Service to its EndpointSlices for instance. A copy
                // was never applied by us: nothing to do here.
                Standing::Same(_)
                | Standing::Unclaimed
                | Standing::Expired(_)
                | Standing::Expiring(_) => true,
                // Labelled for another set now and not ours any more: nothing to do here.
                Standing::Foreign => !self.is_verified_for(key, set),
                _ => false,
            }
        })
    }

    /// Which of a set's objects go by themselves when they are done.
    pub(crate) fn note_expiring(&mut self, set: &str, keys: HashSet<ObjectKey>) {
        if keys.is_empty() {
            self.expiring.remove(set);
        } else {
            self.expiring.insert(set.into(), keys);
        }
    }

    /// Whether an object of a set goes by itself once it is done.
    pub(crate) fn expires(&self, key: &ObjectKey, set: &str) -> bool {
        self.expiring.get(set).is_some_and(|keys| keys.contains(key))
    }

    /// Whether an object of a set is gone or on its way out, and that by itself since it is done, as far
    /// as is known: not one that was seen before it was done. Where nobody asks how it is, it counts as
    /// done: to do it a second time can harm more than to leave it undone.
    pub(crate) fn has_expired(&self, key: &ObjectKey, set: &str) -> bool {
        self.expires(key, set)
            && self.objects.get(key).is_none_or(|slot| {
                let is_done = |told: &Told| {
                    told.is_final || matches!(told.health, Health::Healthy | Health::Degraded)
                };
                slot.live.as_ref().is_none_or(|live| live.terminating)
                    && slot.told.as_deref().is_none_or(is_done)
            })
    }

    /// The objects of a set that another one began to take over and did not apply: each with that one's
    /// manager. Our label is on them, and its entry owns that, whether we have applied it since or not.
    pub(crate) fn half_taken(&self, set: &str, manager: &str) -> Vec<(ObjectKey, String)> {
        let keys = self.sets.get(set).into_iter().flatten();
        let taken = keys.filter_map(|key| {
            let live = self.live(key)?;
            let is_ours = live.part_of.as_deref() == Some(set);
            let taker = taker(live, manager)?;
            (is_ours && !live.terminating && !live.marks.hands_off())
                .then(|| (ObjectKey::clone(key), taker.to_owned()))
        });
        taken.collect()
    }

    /// What bears the label of a set and was applied by it, or taken from it by half.
    pub(crate) fn labelled(&self, set: &str, manager: &str) -> Vec<ObjectKey> {
        let applied = self.applied(set, manager).into_iter().map(|(key, _)| key);
        let taken = self.half_taken(set, manager).into_iter().map(|(key, _)| key);
        applied.chain(taken).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether somebody changed a verified object of the set, and it need not wait.
    pub(crate) fn drifts(&self, set: &str, manager: &str, now: Instant) -> bool {
        self.sets.get(set).into_iter().flatten().any(|key| {
            let standing = self.standing(key, set, manager);
            let changed = match standing {
                Standing::Drifted(_) | Standing::Replaced => {
                    !self.live(key).is_some_and(|live| live.marks.hands_off())
                }
                standing => standing == Standing::Gone,
            };
            changed && self.waits(key, standing, now).is_none()
        })
    }

    /// How an object stands to a set.
    pub(crate) fn standing(&self, key: &ObjectKey, set: &str, manager: &str) -> Standing {
        let Some(slot) = self.objects.get(key) else { return Standing::Unknown };
        let verified = slot.verified.as_ref().filter(|v| &*v.set == set);
        let Some(live) = &slot.live else {
            return match verified {
                Some(verified) if self.has_expired(key, set) => Standing::Expired(verified.desired),
                Some(_) => Standing::Gone,
                None => Standing::Unknown,
            };
        };
        if live.terminating {
            return match verified {
                Some(verified) if self.has_expired(key, set) => {
                    Standing::Expiring(verified.desired)
                }
                _ => Standing::Terminating,
            };
        }
        let entry = live.entry(manager);
        if leaves_out(Sabotage::IgnoresDrift)
            && let Some(verified) = verified
        {
            return Standing::Same(verified.desired);
        }
        match verified {
            _ if live.part_of.as_deref() != Some(set) && verified.is_none() => Standing::Foreign,
            None if entry.is_some_and(|entry| entry.owns_part_of) => Standing::Unverified,
            None => Standing::Unclaimed,
            Some(v) if v.uid != live.uid => Standing::Replaced,
            Some(v)
                if v.entry != entry.map(|e| (e.fields, e.time))
                    || live.part_of.as_deref() != Some(set) =>
            {
                Standing::Drifted(v.desired)
            }
            Some(v)
                if v.generation != live.generation
                    || v.others != live.others
                    || v.audit == Audit::Due =>
            {
                Standing::Suspect(v.desired)
            }
            Some(v) => Standing::Same(v.desired),
        }
    }

    /// Until when what somebody does to an object again and again has to wait for an answer.
    pub(crate) fn waits(
        &self,
        key: &ObjectKey,
        standing: Standing,
        now: Instant,
    ) -> Option<Instant> {
        let heats = self.objects.get(key)?.heats.as_ref()?;
        let until = match standing {
            // While it is only observed nothing is done but to look.
            Standing::Unverified
            | Standing::Suspect(_)
            | Standing::Drifted(_)
            | Standing::Replaced
                if heats.next_look().is_some() =>
            {
                heats.next_look()
            }
            Standing::Suspect(_) => heats.next_check(),
            Standing::Drifted(_) | Standing::Gone | Standing::Replaced => heats.next_correction(),
            _ => None,
        };
        until.filter(|until| now < *until)
    }

    /// Which of these sets, called for a change of an object, have to wait how long.
    pub(crate) fn called_later(
        &self,
        key: &ObjectKey,
        sets: &BTreeSet<Arc<str>>,
        now: Instant,
    ) -> BTreeMap<Arc<str>, Duration> {
        let wait = |set: &Arc<str>| {
            let manager = self.manager_of(key, set)?;
            let until = self.waits(key, self.standing(key, set, &manager), now)?;
            Some((Arc::clone(set), until.saturating_duration_since(now)))
        };
        sets.iter().filter_map(wait).collect()
    }

    /// When something is due for a set whose time has not come: an answer that has to wait, or the
    /// end of a fight that can be told.
    pub(crate) fn next_due(&self, set: &str, manager: &str, now: Instant) -> Option<Instant> {
        let hot = self.sets.get(set).into_iter().flatten().filter_map(|key| {
            let heats = self.objects.get(key)?.heats.as_ref()?;
            let waits = self.waits(key, self.standing(key, set, manager), now);
            waits.into_iter().chain(heats.fight(now).map(|(_, end)| end)).min()
        });
        hot.min()
    }

    /// The objects of a set that somebody else writes as often as we do, and what was last put back,
    /// in key order.
    pub(crate) fn fights(&self, set: &str, now: Instant) -> Vec<(ObjectKey, Drift)> {
        let keys = self.sets.get(set).into_iter().flatten();
        let mut fights: Vec<_> = keys
            .filter_map(|key| {
                let (drift, _) = self.objects.get(key)?.heats.as_ref()?.fight(now)?;
                Some(((**key).clone(), drift.clone()))
            })
            .collect();
        fights.sort_by(|a, b| a.0.cmp(&b.0));
        fights
    }

    pub(crate) fn is_verified_for(&self, key: &ObjectKey, set: &str) -> bool {
        let verified = self.objects.get(key).and_then(|slot| slot.verified.as_ref());
        verified.is_some_and(|v| &*v.set == set)
    }
}
