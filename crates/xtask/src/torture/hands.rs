//! Hands of others on the objects of applications, and on what belongs to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fastrand::Rng;
use plumb_testkit::{Hand, Refused};
use serde_json::{Value, json};

use super::checker::entry;
use super::kinds::{APPLICATION, CONFIG_MAP, KINDS, Key, Object, STAMP, THEIRS, VALUE};
use super::model::{App, Model, NAMESPACES};

/// The label that makes an object a member.
pub(super) const PART_OF: &str = "applyset.kubernetes.io/part-of";
const KINDS_ANNOTATION: &str = "applyset.kubernetes.io/contains-group-kinds";
const APPROVE: &str = "plumb.dev/approve-prune";

/// Who the hands are to the API server.
pub(super) const BY_HAND: &str = "by-hand";

/// What a hand does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Changes fields that the application applies.
    Edit { object: Object, deep: bool },
    /// Adds a field of its own.
    Add { key: Key, token: u32 },
    /// Deletes.
    Delete { key: Key },
    /// Takes the label off.
    Unlabel { key: Key },
    /// Labels it for another application.
    Relabel { key: Key, app: usize },
    /// Puts another object in its place, with the label or without.
    Replace { object: Object, app: usize, labelled: bool },
    /// Labels what is nobody's for an application.
    Forge { canary: usize, app: usize },
    /// Wipes the annotation that says which kinds an application has.
    Wipe { app: usize },
    /// Marks the live object so that it is dealt with in another way.
    Mark { key: Key, mark: Mark },
    /// Takes all marks off.
    Unmark,
    /// Approves the deletions that an application holds.
    Approve { app: usize },
    /// Removes what earlier hands left in the way of an application.
    TidyUp,
}

/// What a hand writes on an object, for the one under test to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It stays when nothing asks for it any more.
    Stays,
    /// Nothing at all is done to it.
    Alone,
    /// The same in other words.
    Ignored,
}

const MARKS: [(Mark, &str, &str); 3] = [
    (Mark::Stays, "plumb.dev/prune", "disabled"),
    (Mark::Alone, "plumb.dev/reconcile", "disabled"),
    (Mark::Ignored, "plumb.dev/ssa", "Ignore"),
];

impl Mark {
    fn name_and_value(self) -> (&'static str, &'static str) {
        let [stays, alone, ignored] = MARKS.map(|(_, name, value)| (name, value));
        match self {
            Self::Stays => stays,
            Self::Alone => alone,
            Self::Ignored => ignored,
        }
    }
}

/// Whether a live object is marked so that it is not deleted.
pub(super) fn stays(live: &Value) -> bool {
    MARKS.iter().any(|(_, name, value)| live["metadata"]["annotations"][*name] == *value)
}

/// Whether a live object is marked so that nothing at all is done to it.
pub(super) fn is_left_alone(live: &Value) -> bool {
    let marks = MARKS.iter().filter(|(mark, ..)| *mark != Mark::Stays);
    marks.into_iter().any(|(_, name, value)| live["metadata"]["annotations"][*name] == *value)
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edit { object, deep } => {
                write!(
                    f,
                    "a hand changes {} {}",
                    if *deep { "much of" } else { "a bit of" },
                    object.key
                )
            }
            Self::Add { key, .. } => write!(f, "a hand adds to {key}"),
            Self::Delete { key } => write!(f, "a hand deletes {key}"),
            Self::Unlabel { key } => write!(f, "a hand takes the label off {key}"),
            Self::Relabel { key, app } => write!(f, "a hand labels {key} for app {app}"),
            Self::Replace { object, labelled, .. } => {
                let label = if *labelled { "with" } else { "without" };
                write!(f, "a hand replaces {}, {label} the label", object.key)
            }
            Self::Forge { canary, app } => write!(f, "a hand labels canary {canary} for app {app}"),
            Self::Wipe { app } => write!(f, "a hand wipes the kinds of app {app}"),
            Self::Mark { key, mark } => write!(f, "a hand marks {key}: {mark:?}"),
            Self::Unmark => write!(f, "hands take all marks off"),
            Self::Approve { app } => write!(f, "a person approves what app {app} holds"),
            Self::TidyUp => write!(f, "hands clear the way"),
        }
    }
}

/// What hands have done that has to be known to judge what the cluster looks like.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// What nobody's objects were when they were made: uid and content.
    pub(super) canaries: BTreeMap<Key, (String, Value)>,
    /// Uids of objects that hands put in the place of others.
    pub(super) placed: BTreeSet<String>,
    /// Uids of objects that an application left when it went.
    pub(super) orphans: BTreeSet<String>,
    /// Uids of objects whose label a hand took off or changed.
    pub(super) freed: BTreeSet<String>,
    /// Fields that hands added: uid and value.
    pub(super) added: BTreeMap<Key, (String, String)>,
    /// What was approved: the application, and the uids of the whole plan.
    pub(super) approved: Vec<(usize, BTreeSet<String>)>,
    /// Uids of objects that hands marked, or took marks off, since the last round.
    pub(super) marked: BTreeSet<String>,
    /// How often hands were on the objects of each application since the last round.
    pub(super) touched: BTreeMap<usize, u32>,
}

impl Traces {
    /// Notes that a hand is on an object: for whoever has it now, and for whoever is to have it. The
    /// model is at the end of the round while hands are still at its beginning.
    fn touch(&mut self, model: &Model, folder: Option<usize>, live: Option<&Value>) {
        let mut apps = BTreeSet::new();
        apps.extend(folder.and_then(|folder| model.holder(folder)));
        if let Some(live) = live {
            let has = |app: &&App| entry(live, &app.manager()).is_some();
            let having = model.apps.iter().enumerate().filter(|(_, app)| has(app));
            apps.extend(having.map(|(index, _)| index));
        }
        for app in apps {
            *self.touched.entry(app).or_default() += 1;
        }
    }
}

/// A plan of deletions that an application holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeldPlan {
    pub(super) digest: String,
    pub(super) uids: BTreeSet<String>,
}

/// Draws an act on what the newest commits say.
pub(super) fn draw(model: &Model, random: &mut Rng) -> Option<Act> {
    let objects = model.objects();
    if objects.is_empty() {
        return None;
    }
    let (folder, object) = objects[random.usize(..objects.len())].clone();
    let app = model.holder(folder).unwrap_or(folder);
    let key = object.key.clone();
    let other = random.usize(..model.apps.len());
    Some(match random.u8(0..100) {
        0..24 => Act::Edit { object, deep: random.bool() },
        24..34 => Act::Add { key, token: random.u32(..) },
        34..42 => Act::Mark { key, mark: MARKS[random.usize(..MARKS.len())].0 },
        42..45 => Act::Unmark,
        45..58 => Act::Delete { key },
        58..66 => Act::Unlabel { key },
        66..72 => Act::Relabel { key, app: other },
        72..82 => Act::Replace { object, app, labelled: random.bool() },
        82..92 => Act::Forge { canary: random.usize(..canaries().len()), app: other },
        92..95 => Act::Wipe { app: other },
        _ => Act::TidyUp,
    })
}

/// What belongs to nobody, by its place in all canaries.
pub(super) fn canaries() -> Vec<Object> {
    let mut canaries = Vec::new();
    for namespace in NAMESPACES {
        for kind in KINDS {
            let key = Key { kind, namespace: namespace.into(), name: "canary".into() };
            canaries.push(Object { key, value: 1, stamp: 0 });
        }
    }
    canaries
}

/// Creates what belongs to nobody.
pub(super) async fn plant(hand: &Hand, traces: &mut Traces) -> Result<(), Refused> {
    for canary in canaries() {
        let Key { kind, namespace, .. } = &canary.key;
        let live = hand.create(*kind, namespace, &canary.manifest()).await?;
        traces.canaries.insert(canary.key.clone(), (uid(&live), content(&live)));
    }
    Ok(())
}

/// What must stay of an object that belongs to nobody.
pub(super) fn content(live: &Value) -> Value {
    let mut content = live.clone();
    if let Some(object) = content.as_object_mut() {
        // Controllers write there, and hands label it.
        object.remove("status");
        object.insert("metadata".into(), live["metadata"]["annotations"].clone());
    }
    // The controllers of volumes and of Deployments note what they saw.
    if let Some(annotations) = content["metadata"].as_object_mut() {
        annotations.retain(|name, _| name.starts_with("example.com/"));
    }
    content
}

pub(super) fn uid(live: &Value) -> String {
    live["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// Does it. An object that is not there (any more) is left alone.
pub(super) async fn act(
    hand: &Hand,
    act: &Act,
    (model, ids): (&Model, &[String]),
    held: &BTreeMap<usize, HeldPlan>,
    traces: &mut Traces,
) -> Result<(), Refused> {
    let done = carry_out(hand, act, (model, ids), held, traces).await;
    match done {
        // Gone, there already, or changed at the same moment by the one under test.
        Err(Refused { code: 404 | 409, .. }) => Ok(()),
        done => done,
    }
}

async fn carry_out(
    hand: &Hand,
    act: &Act,
    (model, ids): (&Model, &[String]),
    held: &BTreeMap<usize, HeldPlan>,
    traces: &mut Traces,
) -> Result<(), Refused> {
    if matches!(act, Act::Relabel { app, .. } | Act::Replace { app, .. } | Act::Forge { app, .. } if ids[*app].is_empty())
    {
        // It was just made, and nobody knows its label yet.
        return Ok(());
    }
    let on = |key: &Key| (key.kind, key.namespace.clone(), key.name.clone());
    let touched = async |traces: &mut Traces, key: &Key| -> Result<(), Refused> {
        let live = hand.get(key.kind, &key.namespace, &key.name).await?;
        traces.touch(model, model.owners.get(key).copied(), live.as_ref());
        Ok(())
    };
    match act {
        Act::Edit { object, deep } => {
            let (kind, namespace, name) = on(&object.key);
            touched(traces, &object.key).await?;
            hand.merge(kind, &namespace, &name, &object.foreign_edit(*deep)).await?;
        }
        Act::Add { key, token } => {
            let (kind, namespace, name) = on(key);
            let token = token.to_string();
            let patch = json!({ "metadata": { "annotations": { THEIRS: token } } });
            let live = hand.merge(kind, &namespace, &name, &patch).await?;
            traces.added.insert(key.clone(), (uid(&live), token));
        }
        Act::Delete { key } => {
            let (kind, namespace, name) = on(key);
            touched(traces, key).await?;
            hand.delete(kind, &namespace, &name).await?;
        }
        Act::Unlabel { key } | Act::Relabel { key, .. } => {
            let (kind, namespace, name) = on(key);
            let label = match act {
                Act::Relabel { app, .. } => json!(ids[*app]),
                _ => Value::Null,
            };
            touched(traces, key).await?;
            let patch = json!({ "metadata": { "labels": { PART_OF: label } } });
            // Noted before: whatever comes of it, a hand was on it.
            if let Some(live) = hand.get(kind, &namespace, &name).await? {
                traces.freed.insert(uid(&live));
            }
            let live = hand.merge(kind, &namespace, &name, &patch).await?;
            traces.freed.insert(uid(&live));
        }
        Act::Replace { object, app, labelled } => {
            let (kind, namespace, name) = on(&object.key);
            // Once for the deletion, once for what is in its place.
            touched(traces, &object.key).await?;
            touched(traces, &object.key).await?;
            hand.delete(kind, &namespace, &name).await?;
            let mut other = Object { value: object.value + 300, ..object.clone() }.manifest();
            // An entry that is added would be the hand's own, and stay.
            if let (CONFIG_MAP, Some(data)) = (kind, other["data"].as_object_mut()) {
                data.retain(|key, _| key == "value");
            }
            other["metadata"]["annotations"] = json!({ VALUE: "in its place" });
            if *labelled {
                other["metadata"]["labels"] = json!({ PART_OF: ids[*app] });
            }
            let live = hand.create(kind, &namespace, &other).await?;
            traces.placed.insert(uid(&live));
        }
        Act::Forge { canary, app } => {
            let (kind, namespace, name) = on(&canaries()[*canary].key);
            let patch = json!({ "metadata": { "labels": { PART_OF: ids[*app] } } });
            hand.merge(kind, &namespace, &name, &patch).await?;
        }
        Act::Wipe { app } => {
            let app = &model.apps[*app];
            let patch = json!({ "metadata": { "annotations": { KINDS_ANNOTATION: null } } });
            hand.merge(APPLICATION, app.namespace, &app.name, &patch).await?;
        }
        Act::Approve { app } => {
            let Some(plan) = held.get(app) else { return Ok(()) };
            traces.approved.push((*app, plan.uids.clone()));
            let app = &model.apps[*app];
            let patch = json!({ "metadata": { "annotations": { APPROVE: plan.digest } } });
            hand.merge(APPLICATION, app.namespace, &app.name, &patch).await?;
        }
        Act::Mark { key, mark } => {
            let (kind, namespace, name) = on(key);
            let (mark, value) = mark.name_and_value();
            let patch = json!({ "metadata": { "annotations": { mark: value } } });
            // Noted before, so that whoever acts on it is not ahead of us.
            if let Some(live) = hand.get(kind, &namespace, &name).await? {
                traces.marked.insert(uid(&live));
            }
            let live = hand.merge(kind, &namespace, &name, &patch).await?;
            traces.marked.insert(uid(&live));
        }
        Act::Unmark => unmark(hand, model, traces).await?,
        Act::TidyUp => tidy_up(hand, model, ids, traces).await?,
    }
    Ok(())
}

/// Takes the marks off all objects, also off those that left Git and stayed for that.
async fn unmark(hand: &Hand, model: &Model, traces: &mut Traces) -> Result<(), Refused> {
    let none: serde_json::Map<String, Value> =
        MARKS.iter().map(|(_, name, _)| ((*name).to_owned(), Value::Null)).collect();
    let patch = json!({ "metadata": { "annotations": none } });
    for (key, folder) in &model.owners {
        let Key { kind, namespace, name } = key;
        let Some(live) = hand.get(*kind, namespace, name).await? else { continue };
        if !stays(&live) {
            continue;
        }
        traces.marked.insert(uid(&live));
        // What was done to it meanwhile is put right now.
        traces.touch(model, Some(*folder), Some(&live));
        match hand.merge(*kind, namespace, name, &patch).await {
            Err(Refused { code: 404, .. }) => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// Deletes what hands put in the way of an application or took from it, so that it can go on.
async fn tidy_up(
    hand: &Hand,
    model: &Model,
    ids: &[String],
    traces: &mut Traces,
) -> Result<(), Refused> {
    for (folder, object) in model.objects() {
        let Some(app) = model.holder(folder) else { continue };
        let Key { kind, namespace, name } = &object.key;
        let Some(live) = hand.get(*kind, namespace, name).await? else { continue };
        let uid = uid(&live);
        let label = live["metadata"]["labels"][PART_OF].as_str();
        let in_the_way = [&traces.placed, &traces.freed, &traces.orphans]
            .into_iter()
            .any(|uids| uids.contains(&uid));
        if in_the_way
            && (label != Some(&ids[app]) || live["metadata"]["annotations"][STAMP].is_null())
        {
            traces.touch(model, Some(folder), Some(&live));
            match hand.delete(*kind, namespace, name).await {
                Err(Refused { code: 404, .. }) => {}
                done => done?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::moves;

    #[test]
    fn every_act_is_drawn_now_and_then_and_the_same_for_the_same_seed() {
        let (mut model, mut random) = (Model::new(9), Rng::with_seed(1));
        moves::first(&mut model, &mut random);
        let acts = |seed| {
            let mut random = Rng::with_seed(seed);
            (0..300).filter_map(|_| draw(&model, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(acts(5), acts(5));
        let said: BTreeSet<String> = acts(5)
            .iter()
            .map(|act| act.to_string().split_whitespace().take(3).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(said.len(), 10, "{said:?}");
    }

    #[test]
    fn hands_are_on_objects_of_those_who_have_them_and_of_those_who_get_them() {
        let model = Model::new(9);
        let entry =
            |app: usize| json!({ "manager": model.apps[app].manager(), "operation": "Apply" });
        let live = json!({ "metadata": { "managedFields": [entry(3), { "manager": "by-hand" }] } });
        let mut traces = Traces::default();
        traces.touch(&model, Some(5), Some(&live));
        traces.touch(&model, Some(3), Some(&live));
        traces.touch(&model, Some(5), None);
        traces.touch(&model, None, None);
        assert_eq!(traces.touched, BTreeMap::from([(3, 2), (5, 2)]));
    }

    #[test]
    fn marks_say_what_is_not_done() {
        let live =
            |name: &str, value: &str| json!({ "metadata": { "annotations": { name: value } } });
        for (mark, kept, alone) in
            [(Mark::Stays, true, false), (Mark::Alone, true, true), (Mark::Ignored, true, true)]
        {
            let (name, value) = mark.name_and_value();
            let live = live(name, value);
            assert_eq!((stays(&live), is_left_alone(&live)), (kept, alone), "{mark:?}");
        }
        assert!(!stays(&live("plumb.dev/ssa", "Merge")) && !is_left_alone(&json!({})));
    }

    #[test]
    fn a_canary_is_its_content_without_what_controllers_and_hands_note() {
        let live = json!({
            "kind": "Secret", "data": { "a": "b" }, "status": { "x": 1 },
            "metadata": {
                "uid": "u", "labels": { PART_OF: "x" },
                "annotations": { VALUE: "v1", "deployment.kubernetes.io/revision": "1" },
            },
        });
        let kept = json!({ "kind": "Secret", "data": { "a": "b" }, "metadata": { VALUE: "v1" } });
        assert_eq!(content(&live), kept);
        assert_eq!(uid(&live), "u");
    }
}
