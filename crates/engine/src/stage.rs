//! The order in which objects are applied; pruning goes backwards.

use plumb_core::GroupKind;

/// Stages in order. An object is applied when every object of the earlier stages was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// What others live in or are instances of: namespaces, custom resource definitions, and
    /// cluster roles, which aggregate and are bound by later objects.
    Definitions,
    /// Kinds that end in `Class`: others refer to them by name when they are created.
    Classes,
    /// What admission reads when workloads arrive: quotas, accounts, their rights, configuration,
    /// volumes and addresses.
    Foundations,
    /// Everything else.
    Workloads,
    /// What intercepts requests of others: webhooks, policies, aggregated APIs. Last, so that the
    /// workloads that answer them exist.
    Interceptors,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 5] =
        [Self::Definitions, Self::Classes, Self::Foundations, Self::Workloads, Self::Interceptors];

    /// The stage of a kind.
    pub fn of(kind: &GroupKind) -> Self {
        match (kind.group.as_str(), kind.kind.as_str()) {
            ("", "Namespace")
            | ("apiextensions.k8s.io", "CustomResourceDefinition")
            | ("rbac.authorization.k8s.io", "ClusterRole") => Self::Definitions,
            (
                "",
                "ResourceQuota"
                | "LimitRange"
                | "ServiceAccount"
                | "ConfigMap"
                | "Secret"
                | "PersistentVolume"
                | "PersistentVolumeClaim"
                | "Service",
            )
            | ("rbac.authorization.k8s.io", _) => Self::Foundations,
            ("admissionregistration.k8s.io", _) | ("apiregistration.k8s.io", "APIService") => {
                Self::Interceptors
            }
            (_, kind) if kind.ends_with("Class") => Self::Classes,
            _ => Self::Workloads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_stage() {
        let cases = [
            ("Namespace", Stage::Definitions),
            ("CustomResourceDefinition.apiextensions.k8s.io", Stage::Definitions),
            ("ClusterRole.rbac.authorization.k8s.io", Stage::Definitions),
            ("StorageClass.storage.k8s.io", Stage::Classes),
            ("GatewayClass.gateway.networking.k8s.io", Stage::Classes),
            ("ServiceAccount", Stage::Foundations),
            ("ClusterRoleBinding.rbac.authorization.k8s.io", Stage::Foundations),
            ("Service", Stage::Foundations),
            ("Service.serving.knative.dev", Stage::Workloads),
            ("Deployment.apps", Stage::Workloads),
            ("MutatingWebhookConfiguration.admissionregistration.k8s.io", Stage::Interceptors),
            ("APIService.apiregistration.k8s.io", Stage::Interceptors),
        ];
        for (kind, stage) in cases {
            assert_eq!(Stage::of(&GroupKind::parse(kind).unwrap()), stage, "{kind}");
        }
        assert!(Stage::ALL.is_sorted());
    }
}
