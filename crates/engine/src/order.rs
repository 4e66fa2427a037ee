//! The order of one run: what an object says that it comes after, when each has its turn, and what of
//! a run is not in place, for those that come after it.

use std::collections::{BTreeMap, HashMap};

use plumb_core::{ErrorClass, FieldPath, GroupKind, Object, ObjectKey};

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, Target};
use crate::definitions::defines;
use crate::edges::{self, DEPENDS_ON, FORMS, Level};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::failure::failure;
use crate::live::Live;
use crate::plan::Action;
use crate::prepare::{Preparation, Prepared};
use crate::report::{Failure, Report};
use crate::stage::Stage;
use crate::sync::ends_run;

/// What an object says that it comes after.
pub(crate) fn needs(
    object: &Object,
    key: &ObjectKey,
    set: &ApplySet,
    is_namespaced: impl Fn(&GroupKind) -> Option<bool>,
) -> Result<Vec<ObjectKey>, Box<Failure>> {
    let Some(text) = object.annotation(DEPENDS_ON) else { return Ok(Vec::new()) };
    let wrong = |part: &str, why: &str| {
        Box::new(Failure {
            key: key.clone(),
            place: Some(object.field_place(&depends_on())),
            reason: "InvalidDependency",
            message: format!("{DEPENDS_ON}: {part:?} {why}"),
            hint: Some(FORMS.into()),
            class: ErrorClass::WaitForUser,
        })
    };
    let here: &str = if key.namespace.is_empty() { &set.namespace } else { &key.namespace };
    let mut needs = Vec::new();
    for reference in edges::references(text).map_err(|(part, why)| wrong(&part, why))? {
        let namespaced = is_namespaced(&reference.kind);
        if let (Some(false), Some(namespace)) = (namespaced, &reference.namespace) {
            let GroupKind { group, kind } = &reference.kind;
            let part = format!("{group}/namespaces/{namespace}/{kind}/{}", reference.name);
            return Err(wrong(&part, &format!("names a namespace, and a {kind} is in none")));
        }
        let need = reference.key(namespaced == Some(true), here);
        if !needs.contains(&need) {
            needs.push(need);
        }
    }
    Ok(needs)
}

fn depends_on() -> FieldPath {
    FieldPath::keys(["metadata", "annotations", DEPENDS_ON])
}

/// Gives each object its turn, or tells which of them wait for each other. A namespace or definition
/// that an edge moves takes along what is in it.
pub(crate) fn put_in_order(result: &mut Preparation) {
    let objects = &mut result.objects;
    if objects.iter().all(|p| p.after.is_empty()) {
        return;
    }
    let namespace = GroupKind::new("", "Namespace");
    let numbers: HashMap<&ObjectKey, usize> =
        objects.iter().enumerate().map(|(number, p)| (&p.key, number)).collect();
    let kinds: HashMap<GroupKind, usize> = (objects.iter().enumerate())
        .filter_map(|(number, p)| Some((defines(p)?, number)))
        .collect();
    let after: Vec<Vec<usize>> = objects
        .iter()
        .map(|p| {
            let within = ObjectKey::new(namespace.clone(), "", &p.key.namespace);
            let said = p.after.iter().chain([&within]).filter_map(|key| numbers.get(key));
            said.chain(kinds.get(&p.key.group_kind)).copied().collect()
        })
        .collect();
    let stages: Vec<Stage> = objects.iter().map(|p| p.level.0).collect();
    match edges::levels(&stages, &after) {
        Ok(levels) => {
            for (p, level) in objects.iter_mut().zip(levels) {
                p.level = level;
            }
        }
        Err(cycles) => {
            let refusals = cycles.iter().map(|cycle| {
                let members: Vec<&Prepared> =
                    cycle.iter().map(|number| &objects[*number]).collect();
                circle(&members)
            });
            result.refusals.extend(refusals.collect::<Vec<_>>());
        }
    }
}

/// The refusal of objects of which each waits for the next, and the last for the first.
fn circle(members: &[&Prepared]) -> Failure {
    let place = |p: &Prepared| {
        if p.after.is_empty() {
            p.object.place().clone()
        } else {
            p.object.field_place(&depends_on())
        }
    };
    let named = |p: &&Prepared| format!("{} ({})", p.key, place(p));
    let message = match members {
        [p] => format!("{} waits for itself", p.key),
        members => format!(
            "each of these waits for the next, and the last for the first: {}",
            members.iter().map(named).collect::<Vec<_>>().join(", ")
        ),
    };
    Failure {
        key: members[0].key.clone(),
        place: Some(place(members[0])),
        reason: "DependencyCycle",
        message,
        hint: Some(format!(
            "take one of them out of {DEPENDS_ON}; an object also comes after its namespace and its \
             definition, where they are applied with it"
        )),
        class: ErrorClass::WaitForUser,
    }
}

/// What has its turn together.
#[derive(Debug, Default)]
pub(crate) struct Turn<'p> {
    pub(crate) batch: Vec<&'p (&'p Prepared, Action)>,
    /// The definitions of it, whether there is anything to do with them or not.
    pub(crate) definitions: Vec<&'p Prepared>,
}

/// All turns in order.
pub(crate) fn turns<'p>(
    prepared: &'p [Prepared],
    todo: &'p [(&'p Prepared, Action)],
) -> BTreeMap<Level, Turn<'p>> {
    let mut turns: BTreeMap<Level, Turn<'p>> = BTreeMap::new();
    for one in todo {
        turns.entry(one.0.level).or_default().batch.push(one);
    }
    for p in prepared.iter().filter(|p| defines(p).is_some()) {
        turns.entry(p.level).or_default().definitions.push(p);
    }
    turns
}

/// What of a run is not in place, for those that come after it.
#[derive(Debug)]
pub(crate) struct Missing<'p> {
    /// What failed, with the class of its failure, and what merely has to wait.
    keys: HashMap<ObjectKey, Option<ErrorClass>>,
    /// What this run applies, and the kind that it defines, if it does.
    ours: HashMap<&'p ObjectKey, Option<GroupKind>>,
    /// What it does not apply and was asked for: why it does not count as there.
    others: HashMap<ObjectKey, Option<&'static str>>,
}

impl<'p> Missing<'p> {
    pub(crate) fn new(prepared: &'p [Prepared], report: &Report) -> Self {
        let failed =
            report.failures.iter().map(|failure| (failure.key.clone(), Some(failure.class)));
        let waiting = report.terminating.iter().map(|key| (key.clone(), None));
        Self {
            keys: failed.chain(waiting).collect(),
            ours: prepared.iter().map(|p| (&p.key, defines(p))).collect(),
            others: HashMap::new(),
        }
    }

    /// An object failed, or has to wait.
    pub(crate) fn note(&mut self, p: &Prepared, class: Option<ErrorClass>) {
        self.keys.insert(p.key.clone(), class);
    }
}

/// Why an object has to wait for another.
enum Wait {
    /// What it waits for passes by itself, and is told.
    Quietly,
    Because(Failure),
}

impl Engine {
    /// Whether all that an object comes after is in place. If not, the report says why, or has
    /// another run come for it.
    pub(crate) async fn has_its_turn(
        &self,
        set: &ApplySet,
        p: &Prepared,
        missing: &mut Missing<'_>,
        report: &mut Report,
    ) -> Result<bool, EngineError> {
        for need in &p.after {
            let Some(wait) = self.wait(set, p, need, missing, report).await? else { continue };
            match wait {
                Wait::Quietly => missing.note(p, None),
                Wait::Because(failure) => {
                    missing.note(p, Some(failure.class));
                    report.failures.push(failure);
                }
            }
            return Ok(false);
        }
        Ok(true)
    }

    async fn wait(
        &self,
        set: &ApplySet,
        p: &Prepared,
        need: &ObjectKey,
        missing: &mut Missing<'_>,
        report: &mut Report,
    ) -> Result<Option<Wait>, EngineError> {
        let because = |why: &str, hint: Option<String>, class| {
            Wait::Because(Failure {
                key: p.key.clone(),
                place: Some(p.object.field_place(&depends_on())),
                reason: "WaitsForDependency",
                message: format!("waits for {need}, which {why}"),
                hint,
                class,
            })
        };
        match missing.keys.get(need) {
            Some(None) => return Ok(Some(Wait::Quietly)),
            Some(Some(class)) => {
                return Ok(Some(because("could not be applied", None, *class)));
            }
            None => {}
        }
        if let Some(kind) = missing.ours.get(need) {
            let late = kind.as_ref().is_some_and(|kind| self.is_unserved(kind, report));
            return Ok(late.then_some(Wait::Quietly));
        }
        let absent = match missing.others.get(need) {
            Some(absent) => *absent,
            None => match self.absence(set, need).await? {
                Ok(absent) => {
                    missing.others.insert(need.clone(), absent);
                    absent
                }
                Err(error) if ends_run(&error) => {
                    return Err(EngineError::Interrupted { source: error });
                }
                Err(error) => {
                    return Ok(Some(Wait::Because(failure(p, &error, set, report.account))));
                }
            },
        };
        let hint = || format!("add it to this application, create it, or correct {DEPENDS_ON}");
        Ok(absent.map(|why| because(why, Some(hint()), ErrorClass::Retry)))
    }

    /// Why an object that the run does not apply does not count as there.
    async fn absence(
        &self,
        set: &ApplySet,
        key: &ObjectKey,
    ) -> Result<Result<Option<&'static str>, ApiError>, EngineError> {
        // What is known of the members of others is not everybody's to know.
        let known = |live: &Live| {
            let ours = set.account.is_none() || live.part_of.as_deref() == Some(&*set.id);
            ours && !live.terminating
        };
        if self.members().live(key).is_some_and(known) {
            return Ok(Ok(None));
        }
        let mut discovery = self.discovery().await?;
        if discovery.preferred(&key.group_kind).is_none() {
            discovery = self.discovery_again().await?;
        }
        let Some(resource) = discovery.preferred(&key.group_kind) else {
            return Ok(Ok(Some("is of a kind that the cluster does not have")));
        };
        let target = Target::new(resource, &key.namespace, &key.name);
        Ok(match self.acting(set).get_metadata(&target).await {
            Ok(None) => Ok(Some("is neither in this application nor in the cluster")),
            Ok(Some(found)) if found.live.terminating => Ok(Some("is being deleted")),
            Ok(Some(_)) => Ok(None),
            Err(error) => Err(error),
        })
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
