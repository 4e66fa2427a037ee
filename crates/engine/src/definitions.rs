//! The definitions of kinds: those that a run itself brings, and that of the parent.

use std::collections::BTreeSet;

use plumb_core::{ErrorClass, Gvk, ObjectKey};
use serde_json::Value;

use crate::cluster::{ApiError, Resource, Target};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::plan::Action;
use crate::prepare::Prepared;
use crate::report::{Failure, Report};

impl Engine {
    /// Whether the definition of a kind is gone or going. The API server then deletes every object
    /// of the kind, and whoever asked for that spoke of the kind, not of each object.
    pub async fn is_going(&self, kind: &Resource) -> Result<bool, EngineError> {
        let gvk = Gvk::new("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let definitions = Resource::known(gvk, "customresourcedefinitions", false);
        let name = format!("{}.{}", kind.plural, kind.gvk.group);
        let read = self.cluster.get_metadata(&Target::new(&definitions, "", &name)).await;
        let found = read.map_err(|source| EngineError::Definition { name, source })?;
        Ok(found.is_none_or(|found| found.live.terminating))
    }

    /// Waits until the definitions of this run are served.
    pub(crate) async fn await_definitions(
        &self,
        batch: &[&(&Prepared, Action)],
        report: &mut Report,
    ) -> Result<(), EngineError> {
        let applied: BTreeSet<&ObjectKey> = report.outcomes.iter().map(|o| &o.key).collect();
        let definitions: Vec<&Prepared> = batch
            .iter()
            .map(|(p, _)| *p)
            .filter(|p| {
                p.key.group_kind.kind == "CustomResourceDefinition" && applied.contains(&p.key)
            })
            .collect();
        if definitions.is_empty() {
            return Ok(());
        }
        let give_up = tokio::time::Instant::now() + self.options.definition_timeout;
        for p in definitions {
            let target = Target::new(&p.resource, "", &p.key.name);
            let mut pause = std::time::Duration::from_millis(20);
            loop {
                let read: Result<Option<Value>, ApiError> = self.cluster.get_json(&target).await;
                let definition = read.map_err(|source| EngineError::Interrupted { source })?;
                if definition.as_ref().is_some_and(is_established) {
                    break;
                }
                if tokio::time::Instant::now() >= give_up {
                    report.failures.push(Failure {
                        key: p.key.clone(),
                        place: Some(p.object.place().clone()),
                        reason: "NotEstablished",
                        message: "the API server does not serve this definition yet".into(),
                        hint: Some("look at its conditions".into()),
                        class: ErrorClass::Retry,
                    });
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(std::time::Duration::from_secs(1));
            }
        }
        self.forget_discovery().await;
        Ok(())
    }
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
}
