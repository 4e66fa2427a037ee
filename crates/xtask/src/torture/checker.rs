//! Compares the cluster with Git, with eyes of its own: nothing here is from the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::hands::{HeldPlan, PART_OF, Traces, content, is_left_alone, stays, uid};
use super::kinds::{CLAIM, Key, Object, THEIRS, difference};
use super::model::{App, Desired, Model, Standing};

/// Fewer deletions are never held for their share.
const FREE: usize = 10;
/// A status lists no more of a held plan.
const LISTED: usize = 20;

/// Everything that is there at one moment.
pub(super) struct View<'v> {
    pub(super) model: &'v Model,
    /// The ids of the commits of each repository, as the model has the commits.
    pub(super) commits: &'v [Vec<String>],
    /// The label of each application's objects.
    pub(super) ids: &'v [String],
    pub(super) traces: &'v Traces,
    /// Which commit each application was last seen to have applied.
    pub(super) applied: &'v [usize],
    pub(super) live: &'v BTreeMap<Key, Arc<Value>>,
    /// The Applications, as the model has them.
    pub(super) apps: &'v [Arc<Value>],
    /// The GitRepositories with the repository that each is of.
    pub(super) sources: &'v [(usize, Arc<Value>)],
    /// The last look that was asked for at each of them.
    pub(super) asked: &'v str,
}

/// A cluster that is as Git asks, or says truthfully why not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rested {
    /// Which commit each application has applied.
    pub(super) applied: Vec<usize>,
    /// What is held.
    pub(super) held: BTreeMap<usize, HeldPlan>,
    /// Applications whose newest commit is unsound.
    pub(super) unsound: usize,
    /// Applications that wait for an object of others.
    pub(super) blocked: usize,
    /// Objects that are as they should be.
    pub(super) objects: usize,
    /// How many corrections each application has told of.
    pub(super) corrected: Vec<u64>,
    /// Uids of objects to which nothing may be done, by a mark on them.
    pub(super) left_alone: BTreeSet<String>,
}

/// What is found of one application.
#[derive(Default)]
struct Found {
    /// Its newest commit is unsound, and it is to say so.
    unsound: bool,
    /// What hands put in the way.
    by_hand: Vec<Key>,
    /// Objects that are still another application's.
    waits: Vec<(Key, usize)>,
    /// Objects that it has and should not have, with their uids.
    extras: BTreeMap<Key, String>,
}

/// The entry of a manager that applied the object.
pub(super) fn entry<'o>(live: &'o Value, manager: &str) -> Option<&'o Value> {
    let mut entries = live["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.find(|entry| entry["manager"] == manager && entry["operation"] == "Apply")
}

/// The application that an object is labelled for.
pub(super) fn label(live: &Value) -> Option<&str> {
    live["metadata"]["labels"][PART_OF].as_str()
}

/// The application that an object is of: it carries the label, and the manager put it there.
pub(super) fn owner(live: &Value, apps: &[App], ids: &[String]) -> Option<usize> {
    let label = label(live)?;
    let app = ids.iter().position(|id| id == label)?;
    let fields = &entry(live, &apps[app].manager())?["fieldsV1"]["f:metadata"]["f:labels"];
    fields.get(format!("f:{PART_OF}")).is_some().then_some(app)
}

fn condition<'s>(object: &'s Value, kind: &str) -> Option<&'s Value> {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind)
}

/// Looks at everything; the differences when it is not as it should be.
pub(super) fn judge(view: &View<'_>) -> Result<Rested, Vec<String>> {
    let mut wrong = Vec::new();
    let mut rested = Rested::default();
    let mut found = Vec::new();
    for app in 0..view.model.apps.len() {
        let (of_app, applied) = view.look_at(app, &mut wrong, &mut rested);
        found.push(of_app);
        rested.applied.push(applied);
        let drift = &view.apps[app]["status"]["drift"]["count"];
        rested.corrected.push(drift.as_u64().unwrap_or(0));
    }
    view.strangers(&mut found, &mut wrong);
    let stuck = view.stuck(&found, &mut wrong);
    for (app, of_app) in found.iter().enumerate() {
        view.status(app, of_app, stuck.contains(&app), &mut wrong, &mut rested);
    }
    view.nobodys(&mut wrong);
    let left_alone = view.live.values().filter(|live| is_left_alone(live));
    rested.left_alone = left_alone.map(|live| uid(live)).collect();
    for (repository, source) in view.sources {
        let head = view.commits[*repository].last().map_or("", String::as_str);
        let revision = source["status"]["revision"].as_str().unwrap_or_default();
        let ready = condition(source, "Ready").is_some_and(|ready| ready["status"] == "True");
        if !revision.ends_with(head) || !ready {
            let name = &source["metadata"]["name"];
            wrong.push(format!("GitRepository {name} is at {revision}, the newest is {head}"));
        }
        let handled = source["status"]["lastHandledReconcileAt"].as_str().unwrap_or_default();
        if handled != view.asked {
            let (name, asked) = (&source["metadata"]["name"], view.asked);
            wrong.push(format!("GitRepository {name} answers request {handled}, not {asked}"));
        }
    }
    if wrong.is_empty() { Ok(rested) } else { Err(wrong) }
}

impl View<'_> {
    fn name(&self, app: usize) -> &str {
        &self.model.apps[app].name
    }

    /// Which commit an application says it has applied.
    fn applied(&self, app: usize) -> Option<usize> {
        let revision = self.apps[app]["status"]["lastAppliedRevision"].as_str()?;
        let (_, id) = revision.rsplit_once(':')?;
        let commits = &self.commits[self.model.apps[app].repository];
        commits.iter().position(|commit| commit == id)
    }

    /// The objects that an application wants. What the newest commit asks for; when that is
    /// unsound, what was applied last.
    fn look_at(&self, app: usize, wrong: &mut Vec<String>, rested: &mut Rested) -> (Found, usize) {
        let name = self.name(app);
        let mut found = Found::default();
        match self.model.apps[app].standing {
            Standing::Active => {}
            Standing::Suspended { .. } => {
                return (found, self.applied(app).unwrap_or(self.applied[app]));
            }
            Standing::Gone { .. } => {
                found.extras = self.extras(app, &BTreeMap::new());
                return (found, self.applied[app]);
            }
        }
        let told = self.applied(app);
        let applied = told.unwrap_or(self.applied[app]);
        let then = self.model.wanted_at(app, applied);
        let desired = match self.model.wanted(app) {
            Desired::Objects(objects) => objects,
            Desired::Unsound(_) => {
                found.unsound = true;
                rested.unsound += 1;
                if told.is_none() {
                    // It was made when there was nothing to apply yet.
                    return (found, applied);
                }
                if applied < self.applied[app] {
                    wrong.push(format!("{name} went back to commit {applied}"));
                }
                let Some(objects) = then.objects() else {
                    wrong.push(format!(
                        "{name} says that it applied commit {applied}, which is unsound"
                    ));
                    return (found, applied);
                };
                objects.clone()
            }
        };
        for (key, object) in &desired {
            let Some(live) = self.live.get(key) else {
                wrong.push(format!("{name}: {key} is missing"));
                continue;
            };
            if is_left_alone(live) {
                continue;
            }
            let owner = owner(live, &self.model.apps, self.ids);
            if self.is_in_the_way(app, object, live) {
                found.by_hand.push(key.clone());
            } else if let Some(other) = owner.filter(|owner| *owner != app) {
                // It may have gone there in a commit that its former application cannot read.
                let theirs = self.model.wanted(other);
                let theirs = theirs.objects().is_some_and(|theirs| theirs.contains_key(key));
                if !(found.unsound && theirs) {
                    found.waits.push((key.clone(), other));
                }
            } else if owner.is_none() {
                let (label, manager) = (label(live), self.model.apps[app].manager());
                let entry = entry(live, &manager).is_some();
                wrong.push(format!(
                    "{name}: {key} is not its own: labelled {label:?}, entry of {manager}: {entry}"
                ));
            } else if !live["metadata"]["deletionTimestamp"].is_null() {
                wrong.push(format!("{name}: {key} is going"));
            } else if let Some(what) = difference(&object.wanted(), live) {
                wrong.push(format!("{name}: {key}: {what}"));
            } else {
                rested.objects += 1;
            }
        }
        found.extras = self.extras(app, &desired);
        // One that is new has not applied anything as long as it is kept from some of it.
        if told.is_none() && found.by_hand.is_empty() && found.waits.is_empty() {
            wrong.push(format!("{name} says of no commit that it is applied"));
        }
        (found, applied)
    }

    /// What an application has beside what is wanted of it, and may be deleted. What is meant for a
    /// suspended one stays until that one takes it.
    fn extras(&self, app: usize, desired: &BTreeMap<Key, Object>) -> BTreeMap<Key, String> {
        let extra = |(key, live): &(&Key, &Arc<Value>)| {
            let its_own = owner(live, &self.model.apps, self.ids) == Some(app);
            its_own
                && !desired.contains_key(*key)
                && !stays(live)
                && !self.model.is_meant_for_suspended(key)
        };
        let extras = self.live.iter().filter(extra);
        extras.map(|(key, live)| (key.clone(), uid(live))).collect()
    }

    /// Whether a hand left the object so that the application must not take it: it is the hand's
    /// own, or labelled for another application.
    fn is_in_the_way(&self, app: usize, object: &Object, live: &Value) -> bool {
        let (uid, label) = (uid(live), label(live));
        let managed = self.model.apps.iter().any(|app| entry(live, &app.manager()).is_some());
        if self.traces.placed.contains(&uid) && !managed {
            return true;
        }
        // What another one left when it went is taken unless it differs from what is wanted.
        if self.traces.orphans.contains(&uid)
            && !managed
            && label.is_none()
            && difference(&object.wanted(), live).is_some()
        {
            return true;
        }
        let elsewhere = match label {
            Some(label) => label != self.ids[app],
            // Its label is gone, and it was never this application's.
            None => entry(live, &self.model.apps[app].manager()).is_none() && managed,
        };
        elsewhere
            && self.traces.freed.contains(&uid)
            && owner(live, &self.model.apps, self.ids).is_none()
    }

    /// Objects that carry a manager of ours and are no application's, or of one that does not know.
    fn strangers(&self, found: &mut [Found], wrong: &mut Vec<String>) {
        for (key, live) in self.live {
            for (index, app) in self.model.apps.iter().enumerate() {
                if entry(live, &app.manager()).is_none()
                    || owner(live, &self.model.apps, self.ids) == Some(index)
                    || self.traces.freed.contains(&uid(live))
                {
                    continue;
                }
                let wanted = self.model.wanted(index);
                let known = wanted.objects().is_some_and(|wanted| wanted.contains_key(key))
                    || found[index].by_hand.contains(key);
                if !known {
                    let name = &app.name;
                    wrong.push(format!("{key} has an entry of {name} and is not its own"));
                }
            }
        }
    }

    /// Applications that rightly do not get on: their newest commit is unsound, they hold
    /// deletions, a hand is in the way, or they wait for one of those.
    fn stuck(&self, found: &[Found], wrong: &mut Vec<String>) -> BTreeSet<usize> {
        let mut stuck: BTreeSet<usize> = (0..found.len())
            .filter(|app| {
                if self.model.apps[*app].is_suspended() {
                    return true;
                }
                let of_app = &found[*app];
                let held = condition(&self.apps[*app], "PruneHeld").is_some();
                of_app.unsound || !of_app.by_hand.is_empty() || (held && !of_app.extras.is_empty())
            })
            .collect();
        loop {
            let more: Vec<usize> = (0..found.len())
                .filter(|app| !stuck.contains(app))
                .filter(|app| found[*app].waits.iter().any(|(_, other)| stuck.contains(other)))
                .collect();
            if more.is_empty() {
                break;
            }
            stuck.extend(more);
        }
        for (app, of_app) in found.iter().enumerate() {
            for (key, other) in &of_app.waits {
                if !stuck.contains(other) {
                    let (name, other) = (self.name(app), self.name(*other));
                    wrong.push(format!("{name}: {key} is still {other}'s"));
                }
            }
        }
        stuck
    }

    /// What an application says of itself, and what it has too much.
    fn status(
        &self,
        app: usize,
        found: &Found,
        stuck: bool,
        wrong: &mut Vec<String>,
        rested: &mut Rested,
    ) {
        let (name, object) = (self.name(app), &self.apps[app]);
        if self.model.apps[app].is_gone() {
            return self.farewell(app, found, wrong, rested);
        }
        let ready = condition(object, "Ready");
        let (ready, reason) = ready.map_or(("", ""), |r| (text(&r["status"]), text(&r["reason"])));
        if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
            wrong.push(format!("{name}: its status is of an earlier generation"));
        }
        if self.model.apps[app].is_suspended() {
            return;
        }
        let blocked = !found.by_hand.is_empty() || !found.waits.is_empty();
        if let Desired::Unsound(reasons) = self.model.wanted(app) {
            if ready != "False" || !reasons.contains(&reason) {
                let message = &object["status"]["conditions"][0]["message"];
                wrong.push(format!(
                    "{name}: Ready={ready} {reason} instead of {reasons:?}: {message}"
                ));
            }
        } else if blocked {
            rested.blocked += 1;
            let failures = object["status"]["failures"].as_array();
            let keys = found.by_hand.iter().chain(found.waits.iter().map(|(key, _)| key));
            for key in keys {
                let told = failures.into_iter().flatten().any(|f| f["object"] == key.to_string());
                if !told || ready != "False" {
                    wrong.push(format!(
                        "{name}: {key} is not its own, and its status says {reason}"
                    ));
                }
            }
        } else if stuck && !found.extras.is_empty() {
            self.held(app, found, wrong, rested);
        } else if !self.left_over(found).is_empty() {
            let keys: Vec<_> = self.left_over(found).iter().map(ToString::to_string).collect();
            wrong.push(format!("{name}: left over: {}", keys.join(", ")));
        } else if ready != "True" {
            let message = condition(object, "Ready").map(|ready| &ready["message"]);
            wrong.push(format!("{name}: Ready={ready} {reason}: {message:?}"));
        } else {
            let applied = rested.applied[app];
            let then = self.model.wanted_at(app, applied);
            if then != self.model.wanted(app) {
                wrong.push(format!(
                    "{name} says that commit {applied} is applied, which is not the newest"
                ));
            }
        }
    }

    /// An application that was deleted is gone, or says what it holds.
    fn farewell(&self, app: usize, found: &Found, wrong: &mut Vec<String>, rested: &mut Rested) {
        let (name, object) = (self.name(app), &self.apps[app]);
        if object.is_null() {
            // What stays by a mark is to bear nothing of it.
            let its_own = |(_, live): &(&Key, &Arc<Value>)| {
                owner(live, &self.model.apps, self.ids) == Some(app)
            };
            let left: Vec<_> =
                self.live.iter().filter(its_own).map(|(key, _)| key.to_string()).collect();
            if !left.is_empty() {
                wrong.push(format!("{name} is gone, and has left: {}", left.join(", ")));
            }
        } else if condition(object, "PruneHeld").is_none() {
            let message = condition(object, "Ready").map(|ready| &ready["message"]);
            wrong.push(format!("{name} was deleted and is still there: {message:?}"));
        } else {
            self.held(app, found, wrong, rested);
        }
    }

    /// Whether another application of the same repository is unsound: what is left over may have gone
    /// there.
    fn has_unsound_neighbour(&self, app: usize) -> bool {
        let apps = &self.model.apps;
        (0..apps.len()).any(|other| {
            other != app
                && !apps[other].is_gone()
                && apps[other].repository == apps[app].repository
                && self.model.wanted(other).objects().is_none()
        })
    }

    /// What of it cannot be meant for others.
    fn left_over<'f>(&self, found: &'f Found) -> BTreeSet<&'f Key> {
        found.extras.keys().filter(|key| !self.model.was_meant_for_suspended(key)).collect()
    }

    /// A plan is held for a reason, and says what it is.
    fn held(&self, app: usize, found: &Found, wrong: &mut Vec<String>, rested: &mut Rested) {
        let (name, status) = (self.name(app), &self.apps[app]["status"]);
        let plan = &status["prune"];
        let extras = &found.extras;
        let desired = self.model.wanted(app).objects().map_or(0, BTreeMap::len);
        let its_own = |live: &&Arc<Value>| owner(live, &self.model.apps, self.ids) == Some(app);
        let members = self.live.values().filter(its_own).count();
        let left_over = self.left_over(found);
        if extras.is_empty() {
            wrong.push(format!("{name} holds deletions, and nothing is left to delete: {plan}"));
            return;
        }
        let count = plan["count"].as_u64().and_then(|count| usize::try_from(count).ok());
        let count = count.unwrap_or(0).clamp(left_over.len().max(1), extras.len());
        let gone = self.model.apps[app].is_gone();
        let reason = if desired == 0 && !gone {
            "EmptyRender"
        } else if extras.keys().any(|key| key.kind == CLAIM) {
            "ProtectedObjects"
        } else if gone {
            wrong.push(format!("{name} was deleted and holds {count} objects without reason"));
            return;
        } else if count > FREE && 2 * count > members {
            "LargeShare"
        } else if self.has_unsound_neighbour(app) {
            "NeighbourBroken"
        } else {
            wrong.push(format!("{name}: {count} of {members} deletions are held without reason"));
            return;
        };
        if plan["reason"] != reason || plan["count"] != count {
            wrong.push(format!("{name}: {count} are held for {reason}, its status says {plan}"));
        }
        let listed: BTreeSet<&str> =
            plan["objects"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let known: BTreeSet<String> = extras.keys().map(ToString::to_string).collect();
        let all = count > LISTED || left_over.iter().all(|key| listed.contains(&*key.to_string()));
        if listed.len() != count.min(LISTED)
            || !all
            || !listed.iter().all(|key| known.contains(*key))
        {
            wrong.push(format!("{name}: {known:?} are held, its status lists {listed:?}"));
        }
        let digest = text(&plan["digest"]).to_owned();
        rested.held.insert(app, HeldPlan { digest, uids: extras.values().cloned().collect() });
    }

    /// What belongs to others is as they left it.
    fn nobodys(&self, wrong: &mut Vec<String>) {
        for (key, (planted, was)) in &self.traces.canaries {
            let Some(live) = self.live.get(key) else {
                wrong.push(format!("{key}, which is nobody's, is gone"));
                continue;
            };
            if uid(live) != *planted || content(live) != *was {
                wrong.push(format!("{key}, which is nobody's, was changed"));
            }
        }
        for (key, (added, token)) in &self.traces.added {
            let Some(live) = self.live.get(key).filter(|live| uid(live) == *added) else {
                continue;
            };
            if text(&live["metadata"]["annotations"][THEIRS]) != token {
                wrong.push(format!("{key} lost what a hand had added"));
            }
        }
        for (key, live) in self.live {
            // What was put there under a label became its application's, which may leave it.
            let uid = uid(live);
            let placed = self.traces.placed.contains(&uid) && !self.traces.orphans.contains(&uid);
            let managed = live["metadata"]["managedFields"].as_array().into_iter().flatten();
            let mut managers = managed.map(|entry| text(&entry["manager"]));
            if placed && !managers.any(|manager| manager.starts_with("plumb")) {
                let value = text(&live["metadata"]["annotations"][super::kinds::VALUE]);
                if !matches!(value, "in its place" | "by hand") {
                    wrong.push(format!("{key}, which a hand put there, says {value:?}"));
                }
            }
        }
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
