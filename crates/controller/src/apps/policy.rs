//! What the spec of an Application means to the engine.

use plumb_api::{ApplicationSpec, DeletionPolicy, PruneGuard};
use plumb_core::GroupKind;
use plumb_engine::{Adopt, Farewell, Limits, Policy};

/// The only place that turns fields of a spec into what the engine does.
pub(super) fn policy_of(spec: &ApplicationSpec) -> Policy {
    Policy {
        prune: spec.prune,
        farewell: match spec.deletion_policy {
            _ if spec.suspend => Farewell::Orphan,
            DeletionPolicy::MirrorPrune if !spec.prune => Farewell::Orphan,
            DeletionPolicy::Orphan => Farewell::Orphan,
            DeletionPolicy::MirrorPrune | DeletionPolicy::Delete => Farewell::Delete,
            DeletionPolicy::WaitForTermination => Farewell::DeleteAndWait,
        },
        limits: spec.prune_guard.as_ref().map(limits_of).unwrap_or_default(),
        force: spec.force,
        adopt: match spec.adopt {
            plumb_api::Adopt::Never => Adopt::Never,
            plumb_api::Adopt::IfUnowned => Adopt::IfUnowned,
            plumb_api::Adopt::Always => Adopt::Always,
        },
    }
}

fn limits_of(guard: &PruneGuard) -> Limits {
    Limits {
        free: guard.count.try_into().unwrap_or(usize::MAX),
        share: guard.share.into(),
        protect: guard.protect.iter().filter_map(|kind| GroupKind::parse(kind)).collect(),
    }
}
