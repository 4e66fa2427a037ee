//! Definitions of kinds: whether the API server serves them yet, and whether it ever will. Nothing
//! waits here: a run leaves out what is not served yet, and another comes for it.

use std::collections::HashMap;
use std::time::Duration;

use plumb_core::{ErrorClass, GroupKind, Gvk};
use serde_json::Value;
use tokio::time::Instant;

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, Resource, Target};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::prepare::Prepared;
use crate::report::{Change, Failure, Report};

/// The shortest and the longest pause before what is not served yet is looked at again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Kinds whose definitions were changed a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Defining {
    kinds: HashMap<GroupKind, Changed>,
}

#[derive(Debug, Clone, Copy)]
struct Changed {
    at: Instant,
    established: bool,
}

impl Defining {
    pub(crate) fn changed(&mut self, kind: GroupKind) {
        self.kinds.insert(kind, Changed { at: Instant::now(), established: false });
    }

    /// When a definition that was changed within this time was changed.
    fn since(&self, kind: &GroupKind, limit: Duration) -> Option<Instant> {
        let at = self.kinds.get(kind)?.at;
        (at.elapsed() < limit).then_some(at)
    }
}

impl Engine {
    /// Whether the definition of a kind is gone or on its way out. Then every object of the kind is
    /// deleted with it, and whoever asked for that spoke of the kind, not of each object.
    pub async fn is_going(&self, kind: &Resource) -> Result<bool, EngineError> {
        let gvk = Gvk::new("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let definitions = Resource::known(gvk, "customresourcedefinitions", false);
        let name = format!("{}.{}", kind.plural, kind.gvk.group);
        let read = self.cluster.get_metadata(&Target::new(&definitions, "", &name)).await;
        let found = read.map_err(|source| EngineError::Definition { name, source })?;
        Ok(found.is_none_or(|found| found.live.terminating))
    }

    /// Looks whether these definitions of a set, if they were changed a moment ago, are served. Returns
    /// whether one is that was not.
    pub(crate) async fn look_at_definitions(
        &self,
        set: &ApplySet,
        definitions: &[&Prepared],
        report: &mut Report,
    ) -> Result<bool, EngineError> {
        let mut established = false;
        for p in definitions {
            let Some(kind) = defines(p) else { continue };
            let sent = report.outcomes.iter().find(|outcome| outcome.key == p.key);
            if sent.is_some_and(|outcome| outcome.change != Change::Verified) {
                self.defining().changed(kind.clone());
            }
            let changed = self.defining().kinds.get(&kind).copied();
            let Some(Changed { at, .. }) = changed.filter(|changed| !changed.established) else {
                continue;
            };
            let target = p.target();
            let read: Result<Option<Value>, ApiError> = self.acting(set).get_json(&target).await;
            let definition = read.map_err(|source| EngineError::Interrupted { source })?;
            if definition.as_ref().is_some_and(is_established) {
                if let Some(changed) = self.defining().kinds.get_mut(&kind) {
                    changed.established = true;
                }
                established = true;
            } else if at.elapsed() < self.options.definition_timeout {
                report.look_again(at);
            } else {
                report.failures.push(Failure {
                    key: p.key.clone(),
                    place: Some(p.object.place().clone()),
                    reason: "NotEstablished",
                    message: "the API server does not serve this definition".into(),
                    hint: Some("look at its conditions".into()),
                    class: ErrorClass::Retry,
                });
            }
        }
        if established {
            self.forget_discovery().await;
        }
        Ok(established)
    }

    /// Whether the definition of a kind is known not to be served yet.
    pub(crate) fn is_unserved(&self, kind: &GroupKind, report: &mut Report) -> bool {
        let at = {
            let defining = self.defining();
            let waits = defining.kinds.get(kind).is_some_and(|changed| !changed.established);
            defining.since(kind, self.options.definition_timeout).filter(|_| waits)
        };
        at.is_some_and(|at| report.look_again(at))
    }

    /// Whether the API server is merely late with a definition that was just changed: it takes a
    /// moment to serve a new kind, and to know a new field.
    pub(crate) fn is_late(&self, p: &Prepared, error: &ApiError, report: &mut Report) -> bool {
        if !(error.is_kind_missing() || error.is_not_in_schema()) {
            return false;
        }
        let at = self.defining().since(&p.key.group_kind, self.options.definition_timeout);
        at.is_some_and(|at| report.look_again(at))
    }
}

impl Report {
    /// Asks for another run because of a definition that was changed then: soon at first.
    fn look_again(&mut self, changed: Instant) -> bool {
        let pause = (changed.elapsed() / 2).clamp(PAUSES.0, PAUSES.1);
        self.again = Some(self.again.map_or(pause, |again| again.min(pause)));
        true
    }
}

/// Whether objects of a kind define kinds.
pub(crate) fn is_definition(kind: &GroupKind) -> bool {
    (&*kind.group, &*kind.kind) == ("apiextensions.k8s.io", "CustomResourceDefinition")
}

/// The kind that an object defines.
pub(crate) fn defines(p: &Prepared) -> Option<GroupKind> {
    if !is_definition(&p.key.group_kind) {
        return None;
    }
    let spec = &p.object.body()["spec"];
    Some(GroupKind::new(spec["group"].as_str()?, spec["names"]["kind"].as_str()?))
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
}
