//! Trying all changes before any is made: the API server is asked for each what would be, and when it
//! refuses one, none is sent.

use std::collections::HashSet;
use std::sync::Arc;

use futures::FutureExt as _;
use plumb_core::GroupKind;
use tokio::time::Instant;

use crate::applyset::ApplySet;
use crate::circuit::Shut;
use crate::cluster::{ApiError, ApplyHow};
use crate::definitions::defines;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::failure::failure;
use crate::plan::Action;
use crate::policy::Adopt;
use crate::prepare::Prepared;
use crate::report::Report;
use crate::share::Slice;
use crate::sync::{Job, ends_run};

/// What a plan brings along, and what needs it cannot be tried before it is there.
struct Brings<'p> {
    kinds: HashSet<GroupKind>,
    namespaces: HashSet<&'p str>,
}

impl Brings<'_> {
    fn explains(&self, p: &Prepared, error: &ApiError) -> bool {
        let late = error.is_kind_missing() || error.is_not_in_schema();
        late && self.kinds.contains(&p.key.group_kind)
            || error.is_namespace_missing() && self.namespaces.contains(&*p.key.namespace)
    }
}

impl Engine {
    /// Tries what is to be changed because Git changed. Returns whether all of it may be sent; if
    /// not, the report says why, or that there is more to try in the next run.
    pub(crate) async fn validate(
        &self,
        set: &ApplySet,
        todo: &[(&Prepared, Action)],
        job: &Job<'_>,
        slice: &Slice,
        report: &mut Report,
    ) -> Result<bool, EngineError> {
        let namespace = GroupKind::new("", "Namespace");
        let brings = Brings {
            kinds: todo.iter().filter_map(|(p, _)| defines(p)).collect(),
            namespaces: (todo.iter().filter(|(p, _)| p.key.group_kind == namespace))
                .map(|(p, _)| &*p.key.name)
                .collect(),
        };
        let tried = self.tried().get(&set.id).cloned().unwrap_or_default();
        let changes = todo.iter().filter(|(p, action)| {
            matches!(action, Action::Claim | Action::Update) && tried.get(&p.key) != Some(&p.digest)
        });
        let before = report.failures.len();
        let mut left = self.try_all(changes.collect(), job, Some(slice), &brings, report).await?;
        if report.failures.len() > before {
            // Whoever mends one of them wants to know of all.
            left = self.try_all(left, job, None, &brings, report).await?;
        }
        if report.failures.len() > before {
            self.tried().remove(&set.id);
            return Ok(false);
        }
        report.unsent = if left.is_empty() { 0 } else { todo.len() };
        Ok(left.is_empty())
    }

    /// Tries these, and returns those that others have their turn before.
    async fn try_all<'t>(
        &self,
        changes: Vec<&'t (&'t Prepared, Action)>,
        job: &Job<'_>,
        slice: Option<&Slice>,
        brings: &Brings<'_>,
        report: &mut Report,
    ) -> Result<Vec<&'t (&'t Prepared, Action)>, EngineError> {
        let set = job.set;
        let tries = changes.into_iter().map(|change| {
            async move {
                let (p, action) = change;
                let tried = if slice.is_some_and(|slice| !slice.take(Instant::now())) {
                    None
                } else {
                    Some(match self.admit(p, job) {
                        Err(shut) => Err(shut),
                        Ok(()) => Ok(self.try_one(set, p, action, job).await),
                    })
                };
                (change, tried)
            }
            .boxed()
        });
        let mut results = self.work_off(tries.collect());
        let mut left = Vec::new();
        while let Some((change, tried)) = results.next().await {
            let p = change.0;
            let result = match tried {
                None => {
                    left.push(change);
                    continue;
                }
                Some(Err(shut)) => {
                    report.shut(shut);
                    continue;
                }
                Some(Ok(result)) => result.map(|()| None),
            };
            self.note_answer(p, &result);
            match result {
                Err(source) if ends_run(&source) => {
                    return Err(EngineError::Interrupted { source });
                }
                Err(error) if !brings.explains(p, &error) => {
                    if let Some(error) = self.disowned(set, &error, report).await {
                        return Err(error);
                    }
                    let refused = self.refused(p, &Arc::new(error), job);
                    report.shut(refused.map_or_else(
                        |shut| shut,
                        |held| Shut {
                            failure: Box::new(failure(p, &held.error, set, report.account)),
                            left: held.left,
                        },
                    ));
                }
                Ok(_) | Err(_) => {
                    let mut tried = self.tried();
                    tried.entry(set.id.clone()).or_default().insert(p.key.clone(), p.digest);
                }
            }
        }
        Ok(left)
    }

    async fn try_one(
        &self,
        set: &ApplySet,
        p: &Prepared,
        action: &Action,
        job: &Job<'_>,
    ) -> Result<(), ApiError> {
        let how = ApplyHow { force: *action != Action::Claim, dry_run: true };
        let Err(error) = self.send(set, p, p.object.body(), how).await else { return Ok(()) };
        if error.immutable_field().is_some() && self.may_recreate(p, job).await? {
            return Ok(());
        }
        if error.is_ownership_conflict() {
            // Whether it is ours all the same, or becomes so, is for the apply itself to find out.
            let target = p.target();
            let found = self.acting(set).get_metadata(&target).await?;
            let ours = found.is_some_and(|found| {
                let owner = found.live.part_of.as_deref().filter(|owner| *owner != set.id);
                found.live.entry(&set.manager).is_some()
                    || owner.is_some_and(|owner| self.claims().lets_go(owner, &p.key).is_some())
            });
            if ours || job.policy.adopt == Adopt::Always {
                return Ok(());
            }
        }
        Err(error)
    }
}
