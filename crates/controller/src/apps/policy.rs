//! What the spec of an Application means to the engine.

use plumb_api::{ApplicationSpec, DeletionPolicy};
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
        limits: Limits::default(),
        adopt: match spec.adopt {
            plumb_api::Adopt::Never => Adopt::Never,
            plumb_api::Adopt::IfUnowned => Adopt::IfUnowned,
            plumb_api::Adopt::Always => Adopt::Always,
        },
    }
}
