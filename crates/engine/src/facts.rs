//! What stands on the parent: who it is, where its members are, and in which leader's time it was
//! last written.

use std::collections::BTreeSet;

use plumb_core::GroupKind;
use serde_json::{Value, json};

use crate::applyset::{self, ApplySet, Scope};
use crate::cluster::{Metadata, Target};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::live::Live;
use crate::members::KindState;
use crate::prepare::Prepared;
use crate::report::Report;
use crate::sync::{FORCED, Parent, RACES};

/// What stands on a parent, as it stands there: a set of each would take ten times as much.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    kinds: Box<str>,
    namespaces: Box<str>,
}

impl Facts {
    /// Those of a parent in `own`.
    fn of(scope: &Scope, own: &str) -> Self {
        let (kinds, namespaces) = (scope.kinds_text(), scope.namespaces_text(own));
        Self { kinds: kinds.into(), namespaces: namespaces.into() }
    }

    /// The kinds of members.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = GroupKind> {
        self.kinds.split(',').filter_map(GroupKind::parse)
    }
}

impl Engine {
    /// Writes the facts of a parent. Returns the scope as written: with what somebody else has
    /// added to it since it was last read.
    pub(crate) async fn write_facts(
        &self,
        set: &ApplySet,
        parent: &mut Parent,
        mut scope: Scope,
        epoch: u64,
    ) -> Result<Scope, EngineError> {
        let api_version = parent.resource.gvk.api_version();
        let target = Target::new(&parent.resource, &set.namespace, &set.name);
        let mut version = parent.resource_version;
        let mut race = 0;
        loop {
            let object = (parent.uid.as_str(), version);
            let body =
                applyset::parent_facts(set, &api_version, &scope, parent.finalizer, epoch, object);
            self.note_facts(set, &scope);
            let written =
                self.cluster.apply(&target, &body, applyset::PARENT_MANAGER, FORCED).await;
            match written {
                Ok(live) => {
                    parent.resource_version = live.resource_version;
                    parent.has_facts = true;
                    parent.hints = scope.clone();
                    return Ok(scope);
                }
                // Our view of the parent was late. Look again, and mind who else is writing.
                Err(error) if error.is_conflict() && race < RACES => {
                    race += 1;
                    let found = self.cluster.get_metadata(&target).await;
                    let found = found
                        .map_err(|source| EngineError::Parent { parent: set.owner(), source })?;
                    let same = |live: &Live| *live.uid == *parent.uid && !live.terminating;
                    let Some(found) = found.filter(|found| same(&found.live)) else {
                        return Err(EngineError::ParentGone { parent: set.owner() });
                    };
                    parent.epoch = epoch_in(&found, &parent.uid);
                    check_epoch(parent.epoch, set, epoch)?;
                    let hints = Scope::from_annotations(&found.annotations);
                    scope = scope.union(&hints.without(&parent.hints));
                    parent.hints = hints;
                    version = found.live.resource_version;
                }
                Err(source) => return Err(EngineError::Parent { parent: set.owner(), source }),
            }
        }
    }

    /// Notes what stands on a parent, so that an edit by others can be told from our own writes.
    pub(crate) fn note_facts(&self, set: &ApplySet, scope: &Scope) {
        self.facts().insert(set.id.as_str().into(), Facts::of(scope, &set.namespace));
    }

    /// Whether annotations of a parent say something else than this process last left there.
    pub fn is_edited(&self, set: &ApplySet, hints: &Scope) -> bool {
        let facts = self.facts();
        facts.get(&*set.id).is_some_and(|facts| *facts != Facts::of(hints, &set.namespace))
    }

    /// Where members are as the watches tell, whatever stands on the parent.
    pub(crate) fn seen_scope(&self, set: &ApplySet) -> Scope {
        let mut scope = Scope::default();
        for key in self.members().labelled(&set.id, &set.manager) {
            scope.add(&key.group_kind, &key.namespace);
        }
        scope
    }

    /// Where members still are, or may be.
    pub(crate) async fn remaining_scope(
        &self,
        set: &ApplySet,
        prepared: &[Prepared],
        report: &Report,
    ) -> Scope {
        let mut scope = Scope::default();
        for p in prepared {
            scope.add(&p.key.group_kind, &p.key.namespace);
        }
        for failure in &report.failures {
            scope.add(&failure.key.group_kind, &failure.key.namespace);
        }
        // What the cluster does not have takes its objects along; an API that is away does not.
        let mut gone = BTreeSet::new();
        if let Ok(discovery) = self.discovery().await {
            for kind in &report.scope.kinds {
                if self.is_gone(kind, &discovery).await {
                    gone.insert(kind.clone());
                }
            }
        }
        let members = self.members();
        for key in members.labelled(&set.id, &set.manager) {
            scope.add(&key.group_kind, &key.namespace);
        }
        let mut unsure = false;
        for kind in &report.scope.kinds {
            if members.kind(kind) != Some(&KindState::Synced) && !gone.contains(kind) {
                scope.kinds.insert(kind.clone());
                unsure = true;
            }
        }
        if unsure {
            // What could not be listed may be in any namespace that was in use.
            scope.namespaces.extend(report.scope.namespaces.iter().cloned());
        }
        scope
    }

    /// Where members of a parent that goes can be. What the caller last saw may lack what was
    /// written ahead since, and nobody looks again once the parent is gone.
    pub(crate) async fn last_scope(
        &self,
        set: &ApplySet,
        parent: &Parent,
        epoch: u64,
    ) -> Result<Scope, EngineError> {
        let target = Target::new(&parent.resource, &set.namespace, &set.name);
        let read = self.cluster.get_metadata(&target).await;
        let found = read.map_err(|source| EngineError::Parent { parent: set.owner(), source })?;
        let Some(found) = found.filter(|found| *found.live.uid == *parent.uid) else {
            return Err(EngineError::ParentGone { parent: set.owner() });
        };
        check_epoch(epoch_in(&found, &parent.uid), set, epoch)?;
        let hints = Scope::from_annotations(&found.annotations);
        Ok(hints.union(&parent.hints).union(&parent.recorded).union(&self.seen_scope(set)))
    }

    /// Takes our facts and the finalizer off a parent whose members are dealt with.
    pub async fn release(&self, set: &ApplySet, parent: &Parent) -> Result<(), EngineError> {
        let body = json!({
            "apiVersion": parent.resource.gvk.api_version(),
            "kind": set.parent.kind,
            "metadata": { "name": set.name, "namespace": set.namespace, "uid": parent.uid },
        });
        let target = Target::new(&parent.resource, &set.namespace, &set.name);
        let failed = |source| EngineError::Parent { parent: set.owner(), source };
        let mut refused = None;
        match self.cluster.apply(&target, &body, applyset::PARENT_MANAGER, FORCED).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_other_object() => return Ok(()),
            // Gone, so that the uid met nothing; or a lost race, and the finalizer is still there.
            Err(error) if error.is_conflict() => refused = Some(error),
            Err(error) => return Err(failed(error)),
        }
        for _ in 0..RACES {
            let found = self.cluster.get_metadata(&target).await.map_err(failed)?;
            let Some(found) = found.filter(|found| *found.live.uid == *parent.uid) else {
                return Ok(());
            };
            if !found.finalizers.iter().any(|one| one == parent.finalizer) {
                return Ok(());
            }
            // Others hold it too: whoever made the object with it, from a backup for instance.
            let patch = without_finalizer(&found, parent.finalizer);
            match self.cluster.json_patch(&target, &patch, Some(applyset::PARENT_MANAGER)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.is_conflict() => refused = Some(error),
                Err(error) => return Err(failed(error)),
            }
        }
        refused.map_or(Ok(()), |error| Err(failed(error)))
    }
}

/// The JSON patch that takes a finalizer off, on exactly this version.
fn without_finalizer(found: &Metadata, finalizer: &str) -> Value {
    let rest: Vec<_> = found.finalizers.iter().filter(|one| *one != finalizer).collect();
    let version = found.live.resource_version.to_string();
    json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        {"op": "replace", "path": "/metadata/finalizers", "value": rest},
    ])
}

fn epoch_in(found: &Metadata, uid: &str) -> Option<u64> {
    applyset::marked_epoch(found.annotations.get(applyset::EPOCH)?, uid)
}

pub(crate) fn check_epoch(
    theirs: Option<u64>,
    set: &ApplySet,
    ours: u64,
) -> Result<(), EngineError> {
    match theirs {
        Some(theirs) if applyset::is_later(theirs, ours) => {
            Err(EngineError::StaleEpoch { parent: set.owner(), theirs, ours })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_leader_is_minded() {
        let set =
            ApplySet::new(plumb_core::GroupKind::new("plumb.dev", "Application"), "ns", "app");
        for (theirs, ours, may) in
            [(None, 0, true), (Some(3), 3, true), (Some(2), 3, true), (Some(4), 3, false)]
        {
            assert_eq!(check_epoch(theirs, &set, ours).is_ok(), may, "{theirs:?} {ours}");
        }
    }
}
