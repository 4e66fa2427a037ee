//! Reads what the API server was asked in a round, and names what must never be done.
//!
//! Every deletion carries the uid and version it was meant for, so what it deleted is looked up
//! there. What was written is looked up in the commits by the number that each manifest carries.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use plumb_testkit::{AuditEvent, Version};
use serde_json::Value;

use super::checker::{entry, label, owner, text};
use super::hands::{PART_OF, Traces, is_left_alone, stays};
use super::kinds::{CLAIM, KINDS, Key, STAMP};
use super::model::{Desired, File, Model, Standing};

/// As many deletions are never held for their share.
const FREE: usize = 10;
/// Members that hands may have taken away between a plan and its first deletion.
const SLACK: usize = 3;

/// One run of an application, as the log tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// `Application one/app-00`.
    object: String,
    /// When it began, as the audit log writes times.
    begin: String,
    /// Whether it is told of the end.
    pub(super) ended: bool,
    number: u64,
}

/// The runs in a log of JSON lines, and lines that no log must have.
pub(super) fn read_log(log: &str) -> (Vec<Run>, Vec<String>) {
    let (mut runs, mut wrong): (Vec<Run>, _) = (Vec::new(), Vec::new());
    for line in log.lines() {
        if line.contains("panicked") {
            wrong.push(format!("in the log: {line}"));
        }
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let (span, time) = (&line["span"], text(&line["timestamp"]));
        let Some(number) = span["run"].as_u64() else { continue };
        let object = text(&span["object"]).to_owned();
        match text(&line["message"]) {
            "begins" => runs.push(Run { object, begin: time.to_owned(), ended: false, number }),
            "ends" => {
                for run in runs.iter_mut().rev().filter(|run| run.number == number).take(1) {
                    run.ended = true;
                }
            }
            _ => {}
        }
    }
    (runs, wrong)
}

/// What is known of a round.
pub(super) struct Evidence<'e> {
    pub(super) model: &'e Model,
    pub(super) ids: &'e [String],
    pub(super) traces: &'e Traces,
    /// Which commit each application had applied when the round began.
    pub(super) applied: &'e [usize],
    /// How each application stood then; those that were made since are not in it.
    pub(super) stood: &'e [Standing],
    /// Uids of objects that a mark kept everybody off when the round began.
    pub(super) left_alone: &'e BTreeSet<String>,
    /// What the one under test asked, in the order of time.
    pub(super) events: &'e [AuditEvent],
    pub(super) runs: &'e [Run],
    /// Every version of the round, with the one before it.
    pub(super) versions: &'e [(Option<Version>, Version)],
    /// A version by uid and number.
    pub(super) at: &'e dyn Fn(&str, u64) -> Option<Version>,
    /// What was live when the counter stood there.
    pub(super) live_at: &'e dyn Fn(u64) -> Vec<Version>,
}

/// Requests that changed something or tried to, and were not refused.
pub(super) fn writes(events: &[AuditEvent]) -> Vec<&AuditEvent> {
    let writes = events.iter().filter(|event| {
        !matches!(event.verb.as_str(), "get" | "list" | "watch")
            && event.counts()
            && event.code < 300
            && event.resource != "leases"
    });
    writes.collect()
}

fn key_of(event: &AuditEvent) -> Option<Key> {
    let kind = KINDS.into_iter().find(|kind| {
        kind.plural == event.resource && kind.group() == event.group && event.subresource.is_empty()
    })?;
    Some(Key { kind, namespace: event.namespace.clone(), name: event.name.clone() })
}

fn key_of_version(version: &Version) -> Key {
    let metadata = &version.object["metadata"];
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    Key { kind: version.kind, namespace: namespace.into(), name: name.into() }
}

/// The manager in the query of a patch.
fn manager_of(event: &AuditEvent) -> String {
    let (_, query) = event.uri.split_once('?').unwrap_or_default();
    let manager = query.split('&').find_map(|part| part.strip_prefix("fieldManager="));
    manager.unwrap_or_default().replace("%3A", ":").replace("%2F", "/")
}

/// Whether a patch changes nothing but who has which fields, or takes off what says whose the object
/// is.
fn is_hand_over(patch: &Value) -> bool {
    let label = format!("/metadata/labels/{}", PART_OF.replace('/', "~1"));
    let name = "/metadata/annotations/plumb.dev~1application";
    let steps = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    let may_be = |step: &Value| match text(&step["path"]) {
        "/metadata/resourceVersion" | "/metadata/managedFields" => true,
        path => step["op"] == "remove" && (path == label || path == name),
    };
    !steps.is_empty() && steps.iter().all(may_be)
}

/// What was done by application and run: to which objects, and of which commit or uid they were.
type Acts = BTreeMap<(usize, Option<usize>), Vec<(Key, String)>>;

/// Everything that must not have been done.
pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut applied = Acts::new();
    let mut deleted = Acts::new();
    for event in writes(evidence.events) {
        let own = event.group == "plumb.dev" && event.verb == "patch";
        if own || event.resource == "events" {
            continue;
        }
        match (key_of(event), event.verb.as_str()) {
            (Some(key), "patch") if !event.uri.contains("dryRun=") => {
                if let Some((app, stamp)) = evidence.patch(event, &key, &mut wrong) {
                    let run = evidence.run_of(app, &event.received);
                    applied.entry((app, run)).or_default().push((key, stamp));
                }
            }
            (Some(key), "delete") => {
                if let Some((app, uid)) = evidence.delete(event, &key, &mut wrong) {
                    let run = evidence.run_of(app, &event.received);
                    deleted.entry((app, run)).or_default().push((key, uid));
                }
            }
            _ => wrong.push(format!("an unexpected request: {} {}", event.what(), event.uri)),
        }
    }
    for ((app, run), objects) in &applied {
        if !evidence.is_of_one_commit(*app, objects) {
            let name = &evidence.model.apps[*app].name;
            let texts: Vec<_> =
                objects.iter().map(|(key, stamp)| format!("{key} of {stamp}")).collect();
            wrong.push(format!(
                "{name}: run {run:?} applied from two commits: {}",
                texts.join(", ")
            ));
        }
    }
    for ((app, _), objects) in &deleted {
        evidence.guarded(*app, objects, &mut wrong);
    }
    for (before, now) in evidence.versions {
        if let (Some(before), false) = (before, now.deleted) {
            evidence.transition(before, now, &mut wrong);
            evidence.let_go(before, now, &mut wrong);
        }
    }
    wrong
}

/// Whether a version is the first of an object that an application had and nobody has any more,
/// its entry gone with the label.
pub(super) fn is_let_go(before: &Version, now: &Version, model: &Model, ids: &[String]) -> bool {
    let managed = || model.apps.iter().any(|app| entry(&now.object, &app.manager()).is_some());
    !now.deleted
        && label(&now.object).is_none()
        && owner(&before.object, &model.apps, ids).is_some()
        && !managed()
}

impl Evidence<'_> {
    /// The run of an application that was going on when a request arrived.
    fn run_of(&self, app: usize, received: &str) -> Option<usize> {
        let app = &self.model.apps[app];
        let object = format!("Application {}/{}", app.namespace, app.name);
        let begun = |run: &Run| run.object == object && run.begin.as_str() <= received;
        let runs = self.runs.iter().enumerate().filter(|(_, run)| begun(run));
        runs.max_by(|a, b| a.1.begin.cmp(&b.1.begin)).map(|(index, _)| index)
    }

    /// Commits that an application may have been at in this round, with what they ask for. One that
    /// is deleted asks for nothing.
    fn candidates(&self, app: usize) -> Vec<BTreeMap<Key, super::kinds::Object>> {
        let of = &self.model.apps[app];
        let count = match self.rested(app) {
            Some(Standing::Suspended { since }) => since,
            _ => self.model.commits[of.repository].len(),
        };
        let asked = (self.applied[app]..count).map(|commit| self.model.wanted_at(app, commit));
        let asked = asked.filter_map(|desired| match desired {
            Desired::Objects(objects) => Some(objects),
            Desired::Unsound(_) => None,
        });
        asked.chain(of.is_gone().then(BTreeMap::new)).collect()
    }

    /// How an application stood all through the round, if people did nothing with it.
    fn rested(&self, app: usize) -> Option<Standing> {
        let stood = self.stood.get(app).copied();
        stood.filter(|stood| *stood == self.model.apps[app].standing)
    }

    /// Why an application must not have written anything in this round.
    fn is_idle(&self, app: usize) -> Option<&'static str> {
        match self.rested(app)? {
            Standing::Active => None,
            Standing::Suspended { .. } => Some("is suspended"),
            Standing::Gone { .. } => Some("was deleted"),
        }
    }

    /// Whether one application may have let an object go, and another have asked for it.
    fn may_hand_over(&self, from: usize, to: usize, key: &Key) -> bool {
        self.candidates(from).iter().any(|objects| !objects.contains_key(key))
            && self.candidates(to).iter().any(|objects| objects.contains_key(key))
    }

    /// An object was applied: by an application, from a commit of its repository.
    fn patch(
        &self,
        event: &AuditEvent,
        key: &Key,
        wrong: &mut Vec<String>,
    ) -> Option<(usize, String)> {
        let manager = manager_of(event);
        if manager.is_empty() && is_hand_over(&event.body) {
            // Who took it from whom is seen in the versions.
            return None;
        }
        let stamp = text(&event.body["metadata"]["annotations"][STAMP]).to_owned();
        let Some(app) = self.model.apps.iter().position(|app| app.manager() == manager) else {
            wrong.push(format!("{key} was written by {manager:?}"));
            return None;
        };
        if let Some(why) = self.is_idle(app) {
            wrong.push(format!("{key} was written by {manager}, which {why}"));
            return None;
        }
        if !self.is_of_one_commit(app, &[(key.clone(), stamp.clone())]) {
            wrong.push(format!("{key} was written by {manager} as no commit has it: {stamp:?}"));
            return None;
        }
        Some((app, stamp))
    }

    /// Whether one commit has all these objects as they were written.
    fn is_of_one_commit(&self, app: usize, objects: &[(Key, String)]) -> bool {
        let commits = &self.model.commits[self.model.apps[app].repository];
        commits.iter().rev().any(|tree| {
            let Some(folder) = tree.get(&self.model.apps[app].folder) else { return false };
            objects.iter().all(|(key, stamp)| {
                let mut all = folder.values().filter_map(|file| match file {
                    File::Objects(objects) => Some(objects),
                    File::Broken { .. } => None,
                });
                all.any(|all| all.iter().any(|o| o.key == *key && o.stamp.to_string() == *stamp))
            })
        })
    }

    /// An object was deleted: its application's own, which that does not ask for.
    fn delete(
        &self,
        event: &AuditEvent,
        key: &Key,
        wrong: &mut Vec<String>,
    ) -> Option<(usize, String)> {
        let preconditions = &event.body["preconditions"];
        let uid = text(&preconditions["uid"]);
        let number = text(&preconditions["resourceVersion"]).parse().unwrap_or(0);
        let Some(state) = (self.at)(uid, number) else {
            wrong.push(format!("{key} was deleted by {preconditions}, and never was there so"));
            return None;
        };
        let Some(app) = owner(&state.object, &self.model.apps, self.ids) else {
            let managed = state.object["metadata"]["managedFields"].as_array();
            let managers: Vec<_> =
                managed.into_iter().flatten().map(|entry| text(&entry["manager"])).collect();
            let label = label(&state.object);
            wrong.push(format!(
                "{key} was deleted and was nobody's: labelled {label:?}, managed by {managers:?}"
            ));
            return None;
        };
        let standing = self.model.apps[app].standing;
        let keeps_all = match standing {
            Standing::Active => false,
            Standing::Suspended { .. } => self.rested(app).is_some(),
            Standing::Gone { orphans, .. } => orphans && self.rested(app).is_some(),
        };
        if keeps_all {
            let name = &self.model.apps[app].name;
            wrong.push(format!(
                "{key} was deleted from {name}, which deletes nothing: {standing:?}"
            ));
            return None;
        }
        if self.candidates(app).iter().all(|objects| objects.contains_key(key)) {
            let name = &self.model.apps[app].name;
            wrong.push(format!("{key} was deleted from {name}, which wants it"));
            return None;
        }
        if stays(&state.object) {
            wrong.push(format!("{key} was deleted, and a mark on it says that it stays"));
            return None;
        }
        if let Some(goal) = self.is_given_to(app, key) {
            let (name, goal) = (&self.model.apps[app].name, &self.model.apps[goal].name);
            wrong.push(format!("{key} was deleted from {name}, and Git gives it to {goal}"));
            return None;
        }
        Some((app, uid.to_owned()))
    }

    /// An application of the same repository that has an object in every commit in which this one
    /// has it no more.
    fn is_given_to(&self, app: usize, key: &Key) -> Option<usize> {
        let apps = &self.model.apps;
        let has = |app: usize, commit: usize| {
            let desired = self.model.wanted_at(app, commit);
            desired.objects().map(|objects| objects.contains_key(key))
        };
        let repository = apps[app].repository;
        let commits = self.applied[app]..self.model.commits[repository].len();
        let (gone, heir) = match apps[app].standing {
            Standing::Gone { heir, .. } => (true, heir),
            _ => (false, None),
        };
        let without = |commit: &usize| gone || has(app, *commit) == Some(false);
        let without: Vec<usize> = commits.filter(without).collect();
        // Who came, went or stood still in between may not have been heard in time; but who takes
        // over the whole folder was there before its former owner went.
        let heard = |goal: &usize| {
            apps[*goal].repository == repository
                && !apps[*goal].is_gone()
                && (self.rested(*goal).is_some() || heir == Some(*goal))
        };
        let mut goals = (0..apps.len()).filter(|goal| *goal != app).filter(heard);
        goals.find(|goal| without.iter().all(|commit| has(*goal, *commit) == Some(true)))
    }

    /// What one run deleted did not need approval, or had it.
    fn guarded(&self, app: usize, deleted: &[(Key, String)], wrong: &mut Vec<String>) {
        let ends: HashMap<&str, u64> = self
            .versions
            .iter()
            .rev()
            .map(|(_, version)| version)
            .filter(|v| v.deleted || !v.object["metadata"]["deletionTimestamp"].is_null())
            .map(|version| (version.uid(), version.number))
            .collect();
        let first = deleted.iter().filter_map(|(_, uid)| ends.get(uid.as_str())).min();
        let name = &self.model.apps[app].name;
        let Some(first) = first else {
            wrong.push(format!("{name}: the end of {} was not seen", deleted[0].0));
            return;
        };
        let mut members = (self.live_at)(first - 1);
        members.retain(|version| owner(&version.object, &self.model.apps, self.ids) == Some(app));
        let is_approved = |plan: &BTreeSet<&str>| {
            let approved = &self.traces.approved;
            approved
                .iter()
                .any(|(of, uids)| *of == app && plan.iter().all(|uid| uids.contains(*uid)))
        };
        if self.model.apps[app].is_gone() {
            // Its deletion is the approval of all but what is precious.
            let precious = deleted.iter().filter(|(key, _)| key.kind == CLAIM);
            let precious: BTreeSet<&str> = precious.map(|(_, uid)| uid.as_str()).collect();
            if !precious.is_empty() && !is_approved(&precious) {
                let count = precious.len();
                wrong.push(format!("{name}, which goes, deleted {count} claims without approval"));
            }
            return;
        }
        let count = deleted.len();
        let large = count > FREE && 2 * count > members.len() + SLACK;
        let claim = deleted.iter().any(|(key, _)| key.kind == CLAIM);
        let allowed = self.candidates(app).iter().any(|objects| {
            if deleted.iter().any(|(key, _)| objects.contains_key(key)) {
                return false;
            }
            let too_much = members.iter().filter(|member| {
                let key = key_of_version(member);
                !objects.contains_key(&key)
                    && !stays(&member.object)
                    && !self.model.is_meant_for_suspended(&key)
            });
            let plan: BTreeSet<&str> = too_much.map(Version::uid).collect();
            is_approved(&plan) || !(large || claim || objects.is_empty())
        });
        if !allowed {
            let keys: Vec<_> = deleted.iter().map(|(key, _)| key.to_string()).collect();
            wrong.push(format!(
                "{name} deleted {count} of {} without approval: {}",
                members.len(),
                keys.join(", ")
            ));
        }
    }

    /// An application takes its hands off an object only when it goes, or another takes over.
    fn let_go(&self, before: &Version, now: &Version, wrong: &mut Vec<String>) {
        let Some(app) = owner(&before.object, &self.model.apps, self.ids) else { return };
        let of = &self.model.apps[app];
        if !of.is_gone() && is_let_go(before, now, self.model, self.ids) {
            wrong.push(format!("{} let go of {}", of.name, key_of_version(now)));
        }
    }

    /// Who wrote a version may write to that object, and left to others what was theirs.
    fn transition(&self, before: &Version, now: &Version, wrong: &mut Vec<String>) {
        for (index, (app, id)) in self.model.apps.iter().zip(self.ids).enumerate() {
            let manager = app.manager();
            let (was, is) = (entry(&before.object, &manager), entry(&now.object, &manager));
            let uid = before.uid();
            // Who takes fields from the entry does not move its time.
            let time = |entry: Option<&Value>| entry.map(|entry| entry["time"].clone());
            if is.is_some()
                && time(is) != time(was)
                && is_left_alone(&before.object)
                && self.left_alone.contains(uid)
                && !self.traces.marked.contains(uid)
            {
                let key = key_of_version(now);
                wrong.push(format!("{} wrote to {key}, and a mark keeps all off it", app.name));
            }
            if is.is_none() || is == was || was.is_some() || label(&before.object) == Some(id) {
                continue;
            }
            let key = key_of_version(now);
            let from = owner(&before.object, &self.model.apps, self.ids);
            let handed_over = from.filter(|from| self.may_hand_over(*from, index, &key));
            let handed_over = handed_over.map(|from| self.model.apps[from].manager());
            if let (Some(other), None) = (from, &handed_over) {
                let other = &self.model.apps[other].name;
                wrong.push(format!("{} wrote to {key}, which is {other}'s", app.name));
            }
            let entries = before.object["metadata"]["managedFields"].as_array();
            for entry in entries.into_iter().flatten() {
                let after = now.object["metadata"]["managedFields"].as_array();
                let kept = after.into_iter().flatten().any(|after| {
                    ["manager", "operation", "subresource", "fieldsV1"]
                        .iter()
                        .all(|part| after[*part] == entry[*part])
                });
                let theirs = text(&entry["manager"]);
                if !kept && handed_over.as_deref() != Some(theirs) {
                    wrong.push(format!("{} took fields of {key} from {theirs}", app.name));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
