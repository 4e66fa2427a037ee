//! Putting back what somebody changed, and telling what that was.

use serde_json::json;

use crate::applyset::{ApplySet, PART_OF};
use crate::cluster::ApiError;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::explain::explain;
use crate::live::Live;
use crate::order::{Missing, turns};
use crate::plan::Action;
use crate::prepare::{Prepared, planned_for, planned_on};
use crate::report::{Drift, Report};
use crate::share::Slice;
use crate::sync::{Job, RACES};

impl Engine {
    /// Puts back what others changed and leaves all else to a later run.
    pub(crate) async fn correct_alone(
        &self,
        job: &Job<'_>,
        prepared: &[Prepared],
        mut todo: Vec<(&Prepared, Action)>,
        slice: &Slice,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        todo.retain(|(_, action)| action.is_correction());
        // What stands on something that fails is put back all the same.
        let mut missing = Missing::new(prepared, &Report::default());
        for turn in turns(prepared, &todo).into_values() {
            if report.unsent > 0 {
                report.unsent += turn.batch.len();
                continue;
            }
            self.apply_turn(job.set, &turn.batch, job, slice, &mut missing, report).await?;
        }
        report.outcomes.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(())
    }

    /// Puts our fields back, on the version whose differences are reported.
    pub(crate) async fn correct(
        &self,
        set: &ApplySet,
        p: &Prepared,
    ) -> Result<(Live, Drift), ApiError> {
        let target = p.target();
        let uid = self.members().live(&p.key).map(|live| live.uid.clone());
        let mut race = 0;
        loop {
            let found = self.acting(set).get_metadata(&target).await?;
            let Some(found) = found.filter(|found| Some(&found.live.uid) == uid.as_ref()) else {
                return Ok((self.claim(set, p).await?, Drift::Deleted));
            };
            if is_taken(&found.live, set) {
                return Ok((self.claim(set, p).await?, Drift::Unlabelled));
            }
            let fields = explain(p.object.body(), &found.managed_fields, &set.manager);
            let mut version = found.live.resource_version;
            if found.managed_fields.is_empty() {
                match self.sign(set, p, version).await {
                    Ok(signed) => version = signed,
                    Err(error) if error.is_conflict() && race < RACES => {
                        race += 1;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            if !found.managed_fields.is_empty() {
                version = p.decided_on.unwrap_or(version);
            }
            match self.force(set, p, &planned_on(p.object.body(), version)).await {
                Ok(live) => return Ok((live, Drift::Fields(fields))),
                Err(error) if error.is_conflict() && p.decided_on.is_none() && race < RACES => {
                    race += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts our name on an object of ours of which nobody is known to have written anything, since
    /// somebody reset that. Returns its version. If an apply were the first to do so, the API server
    /// would give all fields to a manager `before-first-apply` as well, and what Git drops would stay.
    async fn sign(&self, set: &ApplySet, p: &Prepared, version: u64) -> Result<u64, ApiError> {
        let label = format!("f:{PART_OF}");
        let entry = json!({
            "manager": set.manager, "operation": "Apply", "apiVersion": p.resource.gvk.api_version(),
            "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {label: {}}}},
        });
        let patch = json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version.to_string()},
            {"op": "add", "path": "/metadata/managedFields", "value": [entry]},
        ]);
        let live = self.acting(set).json_patch(&p.target(), &patch, None).await?;
        Ok(live.resource_version)
    }

    /// Sends what should be as it is, on the version that is known, to see whether anything changes.
    /// Returns what somebody had changed.
    pub(crate) async fn verify(
        &self,
        set: &ApplySet,
        p: &Prepared,
        known: Option<Live>,
    ) -> Result<(Live, Option<Drift>), ApiError> {
        let target = p.target();
        let has_status = p.resource.subresources.contains("status");
        let uid = known.as_ref().map(|known| known.uid.clone());
        // Who took a field of ours while nobody looked has written after us. Only then is there
        // anything to be read.
        let seen = self.members().is_verified_for(&p.key, &set.id);
        let mut known = known.filter(|known| seen || !known.is_written_after(&set.manager));
        let mut fields = Vec::new();
        let mut race = 0;
        loop {
            let before = if let Some(before) = known.take() {
                before
            } else {
                let found = self.acting(set).get_metadata(&target).await?;
                let Some(found) = found.filter(|found| Some(&found.live.uid) == uid.as_ref())
                else {
                    return Ok((self.claim(set, p).await?, Some(Drift::Deleted)));
                };
                if is_taken(&found.live, set) {
                    return Ok((self.claim(set, p).await?, Some(Drift::Unlabelled)));
                }
                fields = explain(p.object.body(), &found.managed_fields, &set.manager);
                found.live
            };
            let version = p.decided_on.unwrap_or(before.resource_version);
            let body = planned_on(p.object.body(), version);
            match self.force(set, p, &planned_for(&body, &before.uid)).await {
                Ok(live) if is_untouched(&before, &live, &set.manager, has_status) => {
                    return Ok((live, None));
                }
                Ok(live) if fields.is_empty() => return Ok((live, Some(Drift::Unseen))),
                Ok(live) => return Ok((live, Some(Drift::Fields(fields)))),
                Err(error) if error.is_conflict() && p.decided_on.is_none() && race < RACES => {
                    race += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether another set has an object that was ours: it bears its label, and a manager of ours other
/// than this set's put it there. A label that somebody changed by hand is drift instead.
pub(crate) fn is_taken(live: &Live, set: &ApplySet) -> bool {
    live.part_of.as_deref().is_some_and(|part_of| part_of != set.id)
        && live.entries.iter().any(|entry| entry.owns_part_of && *entry.manager != *set.manager)
}

/// Whether an apply of ours changed nothing. It would have changed the fields or the time of our
/// entry; the resource version alone may have been moved by somebody else's status just before.
/// Times are told in seconds, so of two applies within one the second does not show. Where there is
/// no status, what moved the version without a trace in other entries was ours.
pub(crate) fn is_untouched(before: &Live, after: &Live, manager: &str, has_status: bool) -> bool {
    before.uid == after.uid
        && after.entry(manager).is_some()
        && before.entry(manager) == after.entry(manager)
        && (has_status
            || before.resource_version == after.resource_version
            || before.others != after.others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Entry;
    use crate::marks::Marks;

    #[test]
    fn what_another_set_has_is_not_taken_back_by_force() {
        let set =
            ApplySet::new(plumb_core::GroupKind::new("plumb.dev", "Application"), "ns", "app");
        let entry = |manager: &str, owns_part_of| Entry {
            manager: manager.into(),
            fields: 7,
            time: 100,
            owns_part_of,
            owners: 0,
        };
        for (part_of, ours, theirs, taken) in [
            (&*set.id, true, false, false),
            ("applyset-other-v1", false, true, true),
            ("applyset-other-v1", true, false, false),
            ("applyset-other-v1", false, false, false),
        ] {
            let live = Live {
                uid: "u1".into(),
                resource_version: 10,
                generation: 1,
                terminating: false,
                owners: 0,
                marks: Marks::default(),
                scaled: false,
                part_of: Some(part_of.into()),
                entries: Box::new([entry(&set.manager, ours), entry("plumb:ns/other", theirs)]),
                others: 3,
                others_time: 0,
            };
            assert_eq!(is_taken(&live, &set), taken, "{live:?}");
        }
    }

    #[test]
    fn a_status_written_meanwhile_does_not_make_an_apply_a_change() {
        const MANAGER: &str = "plumb:ns/app";
        let entry =
            Entry { manager: MANAGER.into(), fields: 7, time: 100, owns_part_of: true, owners: 0 };
        let before = Live {
            uid: "u1".into(),
            resource_version: 10,
            generation: 1,
            terminating: false,
            owners: 0,
            marks: Marks::default(),
            scaled: false,
            part_of: Some("set".into()),
            entries: Box::new([entry]),
            others: 3,
            others_time: 0,
        };
        let after = |change: fn(&mut Live)| {
            let mut live = Live { resource_version: 11, ..before.clone() };
            change(&mut live);
            is_untouched(&before, &live, MANAGER, true)
        };
        assert!(after(|_| {}));
        assert!(after(|live| live.others = 4));
        assert!(!after(|live| live.entries[0].fields = 8));
        assert!(!after(|live| live.entries[0].time = 101));
        assert!(!after(|live| live.entries = Box::default()));
        assert!(!after(|live| live.uid = "u2".into()));
    }

    #[test]
    fn a_change_within_the_second_of_the_last_one_shows_where_there_is_no_status() {
        const MANAGER: &str = "plumb:ns/app";
        let before = Live {
            uid: "u1".into(),
            resource_version: 10,
            generation: 0,
            terminating: false,
            owners: 0,
            marks: Marks::default(),
            scaled: false,
            part_of: Some("set".into()),
            entries: Box::new([Entry {
                manager: MANAGER.into(),
                fields: 7,
                time: 100,
                owns_part_of: true,
                owners: 0,
            }]),
            others: 3,
            others_time: 0,
        };
        let untouched = |version: u64, others: u64, has_status: bool| {
            let after = Live { resource_version: version, others, ..before.clone() };
            is_untouched(&before, &after, MANAGER, has_status)
        };
        assert!(untouched(10, 3, false));
        assert!(!untouched(11, 3, false));
        assert!(untouched(11, 4, false), "somebody else moved it");
        assert!(untouched(11, 3, true), "a status may have moved it");
    }
}
