//! What the spec of an Application means to the engine.

use plumb_api::{ApplicationSpec, DeletionPolicy, Mode, PruneGuard, Validate};
use plumb_core::GroupKind;
use plumb_engine::{Adopt, Farewell, Ignores, Limits, Pointer, Policy};
use plumb_render::ObjectSelector;

use super::how::target;

/// The only place that turns fields of a spec into what the engine does.
pub(super) fn policy_of(spec: &ApplicationSpec) -> Policy {
    Policy {
        observe: spec.mode == Mode::Observe,
        prune: spec.prune,
        farewell: match spec.deletion_policy {
            _ if spec.suspend || spec.mode == Mode::Observe => Farewell::Orphan,
            DeletionPolicy::MirrorPrune if !spec.prune => Farewell::Orphan,
            DeletionPolicy::Orphan => Farewell::Orphan,
            DeletionPolicy::MirrorPrune | DeletionPolicy::Delete => Farewell::Delete,
            DeletionPolicy::WaitForTermination => Farewell::DeleteAndWait,
        },
        limits: spec.prune_guard.as_ref().map(limits_of).unwrap_or_default(),
        force: spec.force,
        validate: spec.validate == Validate::DryRun,
        adopt: match spec.adopt {
            plumb_api::Adopt::Never => Adopt::Never,
            plumb_api::Adopt::IfUnowned => Adopt::IfUnowned,
            plumb_api::Adopt::Always => Adopt::Always,
        },
    }
}

/// The fields that a spec lets others decide, and what is wrong with its selectors.
pub(super) fn ignores_of(spec: &ApplicationSpec) -> (Ignores, Option<String>) {
    let mut ignores = Ignores::default();
    let mut wrong = None;
    for (index, rule) in spec.ignore.iter().enumerate() {
        match ObjectSelector::new(&rule.target.clone().map(target).unwrap_or_default()) {
            Ok(selector) => {
                let fields = rule.paths.iter().filter_map(|path| Pointer::parse(path)).collect();
                ignores.add(move |object| selector.selects(object), fields);
            }
            Err(error) => {
                wrong.get_or_insert(format!("spec.ignore[{index}].target: {error}"));
            }
        }
    }
    (ignores, wrong)
}

fn limits_of(guard: &PruneGuard) -> Limits {
    Limits {
        free: guard.count.try_into().unwrap_or(usize::MAX),
        share: guard.share.into(),
        protect: guard.protect.iter().filter_map(|kind| GroupKind::parse(kind)).collect(),
    }
}
