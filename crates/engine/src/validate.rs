//! Trying all changes before any is made: the API server is asked for each what would be, and when it
//! refuses one, none is sent.

use std::collections::HashSet;

use futures::{FutureExt as _, StreamExt as _};
use plumb_core::GroupKind;

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, ApplyHow, Target};
use crate::definitions::defines;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::failure::failure;
use crate::plan::Action;
use crate::policy::Adopt;
use crate::prepare::Prepared;
use crate::report::Report;
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
    /// not, the report says why.
    pub(crate) async fn validate(
        &self,
        set: &ApplySet,
        todo: &[(&Prepared, Action)],
        job: &Job<'_>,
        report: &mut Report,
    ) -> Result<bool, EngineError> {
        let namespace = GroupKind::new("", "Namespace");
        let brings = Brings {
            kinds: todo.iter().filter_map(|(p, _)| defines(p)).collect(),
            namespaces: (todo.iter().filter(|(p, _)| p.key.group_kind == namespace))
                .map(|(p, _)| &*p.key.name)
                .collect(),
        };
        let changes =
            todo.iter().filter(|(_, action)| matches!(action, Action::Claim | Action::Update));
        let tries = changes.map(|(p, action)| {
            async move {
                match self.admit(p, job) {
                    Err(shut) => (*p, Err(shut)),
                    Ok(()) => (*p, Ok(self.try_one(set, p, action, job).await)),
                }
            }
            .boxed()
        });
        let tries: Vec<_> = tries.collect();
        let mut results = futures::stream::iter(tries).buffer_unordered(self.options.concurrency);
        let before = report.failures.len();
        while let Some((p, tried)) = results.next().await {
            match tried {
                Err(shut) => report.shut(shut),
                Ok(result) => {
                    let result = result.map(|()| None);
                    self.note_answer(p, &result);
                    match result {
                        Ok(_) => {}
                        Err(source) if ends_run(&source) => {
                            return Err(EngineError::Interrupted { source });
                        }
                        Err(error) if brings.explains(p, &error) => {}
                        Err(error) => report.failures.push(failure(p, &error, set)),
                    }
                }
            }
        }
        Ok(report.failures.len() == before)
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
            let target = Target::new(&p.resource, &p.key.namespace, &p.key.name);
            let found = self.cluster.get_metadata(&target).await?;
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
