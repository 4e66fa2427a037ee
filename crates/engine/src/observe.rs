//! Looking without touching: what a run would do, as the API server answers dry runs.

use std::collections::{HashMap, HashSet};

use futures::FutureExt as _;
use plumb_core::ObjectKey;
use tokio::time::Instant;

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, ApplyHow};
use crate::correct::is_untouched;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::explain::{FieldChange, explain};
use crate::failure::failure;
use crate::plan::Action;
use crate::prepare::Prepared;
use crate::report::Report;
use crate::sync::{Job, ends_run};

/// How an object differs from what Git asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// It would be changed; the fields that somebody else took, as far as that is known.
    Changed(Vec<FieldChange>),
    /// It would be deleted, if the guard let it.
    Extra,
}

const DRY: ApplyHow = ApplyHow { force: true, dry_run: true };

impl Engine {
    /// Finds out what of `todo` and of what is left over differs, and writes nothing. What somebody
    /// writes again and again is not looked at each time: it is told as it was last seen.
    pub(crate) async fn observe(
        &self,
        job: &Job<'_>,
        prepared: &[Prepared],
        todo: &[(&Prepared, Action)],
        desired: &HashMap<ObjectKey, u64>,
        report: &mut Report,
    ) -> Result<(), EngineError> {
        self.watch(&desired.keys().map(|key| key.group_kind.clone()).collect()).await?;
        let look = |p| async move { (p, self.look_at(job.set, p).await) }.boxed();
        let looks: Vec<_> = todo.iter().map(|(p, _)| look(*p)).collect();
        let mut looks = self.work_off(looks);
        let mut found: Vec<_> = {
            let due: HashSet<&ObjectKey> = todo.iter().map(|(p, _)| &p.key).collect();
            let (members, now) = (self.members(), Instant::now());
            let waits = |p: &&Prepared| {
                let standing = members.standing(&p.key, &job.set.id, &job.set.manager);
                !due.contains(&p.key) && members.waits(&p.key, standing, now).is_some()
            };
            let seen =
                |p: &Prepared| Some((p.key.clone(), members.seen(&p.key, p.digest)?.clone()));
            prepared.iter().filter(waits).filter_map(seen).collect()
        };
        while let Some((p, result)) = looks.next().await {
            if let Ok(seen) = &result {
                self.members().looked(&p.key, p.digest, seen.clone(), Instant::now());
            }
            match result {
                Ok(None) => {}
                Ok(Some(difference)) => found.push((p.key.clone(), difference)),
                Err(source) if ends_run(&source) => {
                    return Err(EngineError::Interrupted { source });
                }
                Err(error) => {
                    if let Some(error) = self.disowned(job.set, &error, report).await {
                        return Err(error);
                    }
                    report.failures.push(failure(p, &error, job.set, report.account));
                }
            }
        }
        if job.policy.prune {
            let extras = self.extras(job.set, desired).into_iter();
            found.extend(extras.map(|(key, _)| (key, Difference::Extra)));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        report.observed = Some(found);
        Ok(())
    }

    async fn look_at(&self, set: &ApplySet, p: &Prepared) -> Result<Option<Difference>, ApiError> {
        let before = self.members().live(&p.key).cloned();
        let scaled = before.as_ref().is_some_and(|before| before.scaled);
        let asks = scaled || !p.ignored.is_empty();
        let decided =
            if asks { self.without_decided(set, p, before.as_ref()).await? } else { None };
        let p = decided.as_ref().unwrap_or(p);
        let target = p.target();
        let live = match self.acting(set).apply(&target, p.object.body(), &set.manager, DRY).await {
            Ok(live) => live,
            // Its definition or its namespace is not there either.
            Err(error) if error.is_namespace_missing() || error.is_kind_missing() => {
                return Ok(Some(Difference::Missing));
            }
            Err(error) => return Err(error),
        };
        if live.resource_version == 0 {
            return Ok(Some(Difference::Missing));
        }
        let has_status = p.resource.subresources.contains("status");
        let same = |before| is_untouched(before, &live, &set.manager, has_status);
        if before.as_ref().is_some_and(same) {
            self.members().verified(&set.id, &set.manager, &p.key, live, p.digest);
            return Ok(None);
        }
        let found = self.acting(set).get_metadata(&target).await?;
        let managed = found.map(|found| found.managed_fields).unwrap_or_default();
        Ok(Some(Difference::Changed(explain(p.object.body(), &managed, &set.manager))))
    }
}
