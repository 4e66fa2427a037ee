//! Who has an object: the API server is asked by an apply without force, and force follows only
//! where our manager has an entry.

use serde_json::{Value, json};

use crate::apply::without_others;
use crate::applyset::ApplySet;
use crate::cluster::{ApiError, ApplyHow, Metadata, Tool};
use crate::correct::is_taken;
use crate::engine::Engine;
use crate::live::Live;
use crate::members::taker;
use crate::policy::Adopt;
use crate::prepare::{Prepared, planned_for, planned_on};
use crate::sabotage::{Sabotage, leaves_out};
use crate::sync::{FORCED, RACES};

/// An apply in which the API server says who else owns what we declare.
const UNFORCED: ApplyHow = ApplyHow { force: false, dry_run: false };

impl Engine {
    pub(crate) async fn force(
        &self,
        set: &ApplySet,
        p: &Prepared,
        body: &Value,
    ) -> Result<Live, ApiError> {
        self.send(set, p, body, FORCED).await
    }

    /// Applies with force over the very object that is known as ours.
    pub(crate) async fn overwrite(
        &self,
        set: &ApplySet,
        p: &Prepared,
        known: Option<&Live>,
    ) -> Result<Live, ApiError> {
        let Some(known) = known else { return self.claim(set, p).await };
        let mut body = planned_for(p.object.body(), &known.uid);
        if let Some(version) = p.decided_on {
            body = planned_on(&body, version);
        }
        match self.force(set, p, &body).await {
            Err(error) if p.decided_on.is_some() && error.is_conflict() => Err(error),
            // It is gone, or another object has its name, which is not ours to overwrite.
            Err(error) if error.is_conflict() || error.is_other_object() => {
                self.claim(set, p).await
            }
            result => result,
        }
    }

    /// Applies what is not known as ours: the API server says whether anybody else owns it.
    pub(crate) async fn claim(&self, set: &ApplySet, p: &Prepared) -> Result<Live, ApiError> {
        let (adopt, careful) = {
            let claims = self.claims();
            (claims.adopt(&set.id), claims.looks_first(&set.id, &p.key))
        };
        if (adopt == Adopt::Never || careful)
            && let Some(left) = self.look_first(set, p, adopt).await?
        {
            return Ok(left);
        }
        let refused = match self.send_first(set, p, adopt).await {
            Err(error) if error.is_ownership_conflict() => error,
            Ok(live) if live.marks.hands_off() => return self.give_back(set, p, live).await,
            // It was there before.
            Ok(live) if live.entries.len() > 1 || live.others != 0 => {
                return self.settle(set, p, live, adopt).await;
            }
            result => return result,
        };
        // It may be ours all the same: the label was taken off, or this process just started.
        let target = p.target();
        for _ in 0..RACES {
            let Some(found) = self.acting(set).get_metadata(&target).await? else {
                return Err(refused);
            };
            let ours = found.live.entry(&set.manager);
            if ours.is_none() && found.live.marks.hands_off() {
                self.claims().note_foreign(&set.id, &p.key, true);
                return Ok(found.live);
            }
            let without = self.without_decisions(set, p, &found, adopt);
            let p = without.as_ref().unwrap_or(p);
            let owner = found.live.part_of.as_deref().filter(|owner| *owner != set.id);
            let mut version = found.live.resource_version;
            // With the label of another set in our entry it was taken over, but not yet applied; unless
            // that one has applied it again.
            let is_taken_over =
                ours.is_some_and(|entry| entry.owns_part_of) && !is_taken(&found.live, set);
            if let (Some(owner), false) = (owner, is_taken_over) {
                let Some(from) = self.claims().lets_go(owner, &p.key) else { return Err(refused) };
                match self.take_over(set, &target, &found, &from).await {
                    Ok(Some(live)) => version = live.resource_version,
                    Ok(None) => return Err(refused),
                    Err(error) if error.is_conflict() => continue,
                    Err(error) => return Err(error),
                }
            } else if ours.is_none() {
                if adopt != Adopt::Always {
                    return Err(match found.tool.as_ref().filter(|tool| !declares(p, tool)) {
                        Some(tool) => not_ours(p, Some(tool), refused.conflicts()),
                        None => refused,
                    });
                }
                match self.migrate(set, p, &found, adopt).await {
                    Ok(Some(live)) => version = live.resource_version,
                    Ok(None) => {}
                    Err(error) if error.is_conflict() => continue,
                    Err(error) => return Err(error),
                }
            }
            match self.force(set, p, &planned_on(p.object.body(), version)).await {
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
        Err(refused)
    }

    /// Applies what may not be ours, without what others may decide and have decided.
    async fn send_first(
        &self,
        set: &ApplySet,
        p: &Prepared,
        adopt: Adopt,
    ) -> Result<Live, ApiError> {
        let how = if leaves_out(Sabotage::ForcedClaim) { FORCED } else { UNFORCED };
        let look = async || -> Result<Option<Prepared>, ApiError> {
            let found = self.acting(set).get_metadata(&p.target()).await?;
            Ok(found.and_then(|found| self.without_decisions(set, p, &found, adopt)))
        };
        let without = if p.ignored.is_empty() { None } else { look().await? };
        match self.send(set, p, without.as_ref().unwrap_or(p).object.body(), how).await {
            // Only the object itself tells an autoscaler from a person. Whoever takes everything looks later.
            Err(error) if without.is_none() && adopt != Adopt::Always && is_scaled(&error) => {
                let Some(without) = look().await? else { return Err(error) };
                self.send(set, p, without.object.body(), how).await
            }
            result => result,
        }
    }

    /// An object that is to become ours without the fields that others may decide and have decided, if there
    /// are any. Whoever hands it over has not: those fields come along, and would go if they were left out.
    fn without_decisions(
        &self,
        set: &ApplySet,
        p: &Prepared,
        found: &Metadata,
        adopt: Adopt,
    ) -> Option<Prepared> {
        if !found.live.scaled && p.ignored.is_empty() {
            return None;
        }
        let heritage = self.heritage(set, p, found, adopt);
        Some(without_others(p, found, heritage.as_ref()))
    }

    /// Refuses what is there already and must not be touched, before anything is sent. Returns what is
    /// marked to be left alone.
    async fn look_first(
        &self,
        set: &ApplySet,
        p: &Prepared,
        adopt: Adopt,
    ) -> Result<Option<Live>, ApiError> {
        let target = p.target();
        let found = self.acting(set).get_metadata(&target).await?;
        let marked = found.as_ref().is_some_and(|found| found.live.marks.hands_off());
        self.claims().note_marked(&p.key, marked);
        let Some(found) = found else { return Ok(None) };
        // One of ours, too: it may have been marked while nobody looked.
        if marked {
            return Ok(Some(found.live));
        }
        let owner = found.live.part_of.as_deref();
        let free = owner.is_some_and(|owner| self.claims().lets_go(owner, &p.key).is_some());
        let foreign = found.tool.as_ref().filter(|tool| !declares(p, tool));
        let refused = match adopt {
            Adopt::Never => found.live.entry(&set.manager).is_none() && !free,
            Adopt::IfUnowned => foreign.is_some(),
            Adopt::Always => false,
        };
        if refused {
            return Err(not_ours(p, foreign, Vec::new()));
        }
        self.claims().note_foreign(&set.id, &p.key, false);
        Ok(None)
    }

    /// Undoes the first apply of what turns out to be somebody else's, or marked to be left alone.
    /// Nobody refused it, so it changed nothing but what nobody had: what goes with our fields.
    async fn give_back(&self, set: &ApplySet, p: &Prepared, live: Live) -> Result<Live, ApiError> {
        let mut bare = json!({
            "apiVersion": p.resource.gvk.api_version(), "kind": p.resource.gvk.kind,
            "metadata": {"name": p.key.name, "uid": live.uid},
        });
        if !p.key.namespace.is_empty() {
            bare["metadata"]["namespace"] = p.key.namespace.as_str().into();
        }
        let undone = self.send(set, p, &bare, UNFORCED).await;
        // Where a field of ours cannot go, our name does.
        self.orphan_one(set, &p.resource, &p.key).await?;
        self.claims().note_foreign(&set.id, &p.key, true);
        Ok(undone.unwrap_or(live))
    }

    /// Settles who has an object that was there before its first apply, which nobody refused. What
    /// kubectl applied is taken over wholly; what another tool manages is let go again.
    async fn settle(
        &self,
        set: &ApplySet,
        p: &Prepared,
        live: Live,
        adopt: Adopt,
    ) -> Result<Live, ApiError> {
        let target = p.target();
        for _ in 0..RACES {
            let found = self.acting(set).get_metadata(&target).await?;
            let Some(found) = found.filter(|found| found.live.uid == live.uid) else {
                return Ok(live);
            };
            let without = self.without_decisions(set, p, &found, adopt);
            let p = without.as_ref().unwrap_or(p);
            if found.live.part_of.as_deref() == Some(&set.id)
                && let Some(taker) = taker(&found.live, &set.manager)
            {
                // It began to take the object over while we had let it go, and the API server saw no
                // conflict in two entries that say the same.
                match self.take_over(set, &target, &found, taker).await {
                    Ok(_) => return self.send(set, p, p.object.body(), UNFORCED).await,
                    Err(error) if error.is_conflict() => continue,
                    Err(error) => return Err(error),
                }
            }
            let foreign = found.tool.as_ref().filter(|tool| !declares(p, tool));
            if let (Some(tool), true) = (foreign, adopt != Adopt::Always) {
                self.give_back(set, p, live).await?;
                return Err(not_ours(p, Some(tool), Vec::new()));
            }
            match self.migrate(set, p, &found, adopt).await {
                Ok(None) => return Ok(live),
                Ok(Some(_)) => return self.send(set, p, p.object.body(), UNFORCED).await,
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(live)
    }

    /// Applies over an object that took the place of ours. When it carries our label, it is a copy
    /// of ours, and its values are drift; otherwise it is somebody's own, as in a claim.
    pub(crate) async fn retake(&self, set: &ApplySet, p: &Prepared) -> Result<Live, ApiError> {
        let version = {
            let members = self.members();
            let live = members.live(&p.key);
            live.filter(|l| l.part_of.as_deref() == Some(&set.id)).map(|l| l.resource_version)
        };
        if let Some(version) = version {
            match self.force(set, p, &planned_on(p.object.body(), version)).await {
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
        self.claim(set, p).await
    }
}

/// Whether the number of replicas is somebody else's.
fn is_scaled(error: &ApiError) -> bool {
    error.is_ownership_conflict()
        && error.conflicts().iter().any(|(_, field)| field == ".spec.replicas")
}

/// Whether Git itself has a tool's mark on an object, from an export for instance.
fn declares(p: &Prepared, tool: &Tool) -> bool {
    let metadata = &p.object.body()["metadata"];
    ["labels", "annotations"].iter().any(|map| !metadata[map][tool.mark].is_null())
}

/// The refusal of what somebody else has, with the managers and fields that are in the way.
fn not_ours(p: &Prepared, tool: Option<&Tool>, conflicts: Vec<(String, String)>) -> ApiError {
    ApiError::NotOurs {
        subject: p.key.to_string(),
        owner: tool.map(|tool| tool.name.clone()),
        fields: conflicts.into_iter().map(|(_, field)| field).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use plumb_core::GroupKind;

    use super::*;
    use crate::applyset::PART_OF;
    use crate::cluster::script::{Says, Script};
    use crate::prune::tests::in_slices;

    /// One set took an object over and did not apply it. Whoever wants it by then has it.
    #[tokio::test]
    async fn what_was_taken_by_half_is_not_taken_from_an_owner_who_wants_it_again() {
        let set =
            |name: &str| ApplySet::new(GroupKind::new("plumb.dev", "Application"), "ns", name);
        let (owner, taker) = (set("owner"), set("taker"));
        let p = crate::failure::tests::service();
        // Whether the owner's manager has an entry, and whether it wants the object: whether it is forced.
        for (applied, wants, forced) in
            [(false, true, true), (false, false, true), (true, false, true), (true, true, false)]
        {
            let managers = [Some(&taker), applied.then_some(&owner)];
            let entry = |set: &ApplySet| {
                json!({
                    "manager": set.manager, "operation": "Apply", "apiVersion": "v1",
                    "time": "2024-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:metadata": {"f:labels": {format!("f:{PART_OF}"): {}}}},
                })
            };
            let entries: Vec<_> = managers.into_iter().flatten().map(entry).collect();
            let object = json!({"kind": "PartialObjectMetadata", "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "5",
                "labels": {PART_OF: owner.id}, "managedFields": entries,
            }});
            let conflict = json!({
                "kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict",
                "message": "Apply failed with 1 conflict", "details": {"causes": [{
                    "reason": "FieldManagerConflict", "field": ".spec.ports",
                    "message": format!("conflict with \"{}\"", owner.manager),
                }]},
            });
            let ok = || Says::ok(object.to_string());
            let answers = [Says::Status(409, None, conflict.to_string()), ok(), ok(), ok()];
            let script = Script::new(answers);
            let engine = in_slices(&script, usize::MAX);
            let keys = HashSet::from([p.key.clone()]);
            engine.claims().publish(&taker, Adopt::IfUnowned, keys.clone(), true);
            let wanted = if wants { keys } else { HashSet::new() };
            engine.claims().publish(&owner, Adopt::IfUnowned, wanted, true);
            let result = engine.claim(&taker, &p).await;
            let asked = script.asked();
            let force = asked.iter().filter(|asked| asked.uri.contains("force=true")).count();
            assert_eq!((result.is_ok(), force == 1), (forced, forced), "{applied} {wants}");
            let expected = 3 + usize::from(applied && !wants) - usize::from(!forced);
            assert_eq!(asked.len(), expected, "{applied} {wants}: {asked:?}");
        }
    }

    /// Found by torture: an object moved and came back while the watch was late. The owner applied what
    /// another one had taken by half, and that one's entry stayed for ever.
    #[tokio::test]
    async fn what_another_one_took_by_half_is_taken_back_by_a_claim_that_nobody_refuses() {
        let set =
            |name: &str| ApplySet::new(GroupKind::new("plumb.dev", "Application"), "ns", name);
        let (owner, other) = (set("owner"), set("other"));
        let p = crate::failure::tests::service();
        let found = |sets: &[&ApplySet]| {
            let entry = |set: &&ApplySet| {
                json!({
                    "manager": set.manager, "operation": "Apply", "apiVersion": "v1",
                    "time": "2024-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:metadata": {"f:labels": {format!("f:{PART_OF}"): {}}}},
                })
            };
            let object = json!({"kind": "PartialObjectMetadata", "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "5",
                "labels": {PART_OF: owner.id}, "managedFields": sets.iter().map(entry).collect::<Vec<_>>(),
            }});
            Says::ok(object.to_string())
        };
        let both = [&other, &owner];
        let script =
            Script::new([found(&both), found(&both), found(&both[1..]), found(&both[1..])]);
        let engine = in_slices(&script, usize::MAX);
        let live = engine.claim(&owner, &p).await.unwrap();
        assert_eq!(taker(&live, &owner.manager), None);
        let asked = script.asked();
        assert_eq!(asked.len(), 4, "{asked:?}");
        assert!(asked[2].body.contains(&owner.manager) && !asked[2].body.contains(&other.manager));
        assert!(asked[3].uri.contains("force=false"), "and then what is only the other one's goes");
    }

    /// Found by torture: the first list of its kind failed after a restart, it was applied and, being
    /// marked, given back.
    #[tokio::test]
    async fn what_is_ours_and_marked_is_left_alone_by_a_process_that_does_not_know_it() {
        let set = ApplySet::new(GroupKind::new("plumb.dev", "Application"), "ns", "web");
        let p = crate::failure::tests::service();
        let object = json!({"kind": "PartialObjectMetadata", "metadata": {
            "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "5",
            "labels": {PART_OF: set.id}, "annotations": {"plumb.dev/reconcile": "disabled"},
            "managedFields": [{
                "manager": set.manager, "operation": "Apply", "apiVersion": "v1",
                "time": "2024-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {format!("f:{PART_OF}"): {}}}},
            }],
        }});
        let script = Script::new([Says::ok(object.to_string())]);
        let engine = in_slices(&script, usize::MAX);
        engine.claims().note_resumed(&set.id, true);
        let live = engine.claim(&set, &p).await.unwrap();
        assert!(live.marks.hands_off() && live.entry(&set.manager).is_some());
        let asked: Vec<String> =
            script.asked().into_iter().map(|asked| asked.method.to_string()).collect();
        assert_eq!(asked, ["GET"]);
    }
}
