//! The order of the output.

use crate::acc::Acc;
use crate::error::{Result, invalid};
use crate::kustomization::SortOptions;
use crate::openapi::Schemas;
use crate::resid::{Gvk, Id};

const FIRST: &[&str] = &[
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];
const LAST: &[&str] = &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Orders kinds as the reference orders its field specs.
pub(crate) fn stable_key(gvk: &Gvk) -> (i64, String) {
    (rank(gvk, FIRST, LAST), joined(gvk))
}

fn rank<S: AsRef<str>>(gvk: &Gvk, first: &[S], last: &[S]) -> i64 {
    let position = |kinds: &[S]| {
        let at = kinds.iter().rposition(|kind| kind.as_ref() == gvk.kind)?;
        i64::try_from(at).ok()
    };
    let len = i64::try_from(first.len()).unwrap_or(i64::MAX);
    // A kind in both lists counts where it comes last.
    match (position(last), position(first)) {
        (Some(at), _) => 1 + at,
        (None, Some(at)) => at - len,
        (None, None) => 0,
    }
}

fn or<'t>(text: &'t str, none: &'t str) -> &'t str {
    if text.is_empty() { none } else { text }
}

fn joined(gvk: &Gvk) -> String {
    format!("{}_{}_{}", or(&gvk.group, "~G"), or(&gvk.version, "~V"), or(&gvk.kind, "~K"))
}

fn text(id: &Id) -> String {
    let Gvk { group, version, kind } = &id.gvk;
    format!(
        "{}.{}.{}|{}|{}",
        or(kind, "[noKind]"),
        or(version, "[noVer]"),
        or(group, "[noGrp]"),
        or(&id.namespace, "~X"),
        or(&id.name, "~N")
    )
}

/// Sorts as `sortOptions` say.
pub(crate) fn sort(acc: &mut Acc, options: &SortOptions, schemas: &Schemas) -> Result<()> {
    match (options.order.as_str(), &options.legacy) {
        ("fifo", None) => Ok(()),
        ("fifo", Some(_)) => Err(invalid!("legacySortOptions are for the order legacy, not fifo")),
        ("legacy", None) => {
            legacy(acc, FIRST, LAST, schemas);
            Ok(())
        }
        ("legacy", Some(lists)) => {
            legacy(acc, &lists.first, &lists.last, schemas);
            Ok(())
        }
        (other, _) => Err(invalid!("sortOptions.order is legacy or fifo, not {other:?}")),
    }
}

/// Sorts in the order that people know from `kustomize build`.
pub(crate) fn default_legacy(acc: &mut Acc, schemas: &Schemas) {
    legacy(acc, FIRST, LAST, schemas);
}

fn legacy<S: AsRef<str>>(acc: &mut Acc, first: &[S], last: &[S], schemas: &Schemas) {
    acc.changed();
    let mut keyed: Vec<_> = std::mem::take(&mut acc.items)
        .into_iter()
        .map(|res| {
            let id = res.id(schemas);
            ((rank(&id.gvk, first, last), joined(&id.gvk), text(&id)), res)
        })
        .collect();
    keyed.sort_by(|((rank_a, kind_a, id_a), a), ((rank_b, kind_b, id_b), b)| {
        // Namespaces of the core group stand behind those of others.
        let namespaces = a.kind() == "Namespace" && b.kind() == "Namespace";
        let core = !a.api_version().contains('/') || !b.api_version().contains('/');
        let kinds = if namespaces && core { kind_b.cmp(kind_a) } else { kind_a.cmp(kind_b) };
        rank_a.cmp(rank_b).then(kinds).then_with(|| id_a.cmp(id_b))
    });
    acc.items = keyed.into_iter().map(|(_, res)| res).collect();
}
