//! The marks that other tools leave on what they manage.

use std::collections::BTreeMap;

/// Who else manages an object, as its marks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// What of the tool it is part of, for people.
    pub name: String,
    /// The label or annotation that says so.
    pub mark: &'static str,
}

/// Labels or annotations that name a thing, the one that names its namespace, and what it is.
const MARKS: [(&str, &str, &str); 5] = [
    ("meta.helm.sh/release-name", "meta.helm.sh/release-namespace", "Helm release"),
    (
        "kustomize.toolkit.fluxcd.io/name",
        "kustomize.toolkit.fluxcd.io/namespace",
        "Kustomization of Flux",
    ),
    ("helm.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/namespace", "HelmRelease of Flux"),
    ("argocd.argoproj.io/tracking-id", "", "application of Argo CD"),
    ("argocd.argoproj.io/instance", "", "application of Argo CD"),
];

/// Names are shown to people, and anybody can write them.
const MAX_NAME: usize = 253;

/// Reads the marks. A release that Flux installs bears those of Helm too, so Flux is asked first.
pub(super) fn tool_of(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Option<Tool> {
    let value = |key: &str| labels.get(key).or_else(|| annotations.get(key));
    let (flux, others): (Vec<_>, Vec<_>) =
        MARKS.into_iter().partition(|(mark, ..)| mark.ends_with("toolkit.fluxcd.io/name"));
    flux.into_iter().chain(others).find_map(|(mark, namespace, what)| {
        // A tracking id goes on with kind, namespace and name of the object.
        let name = value(mark)?.split(':').next().unwrap_or_default();
        let name = match value(namespace) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let name: String = name.chars().filter(|c| plain(*c)).take(MAX_NAME).collect();
        Some(Tool { name: format!("the {what} {name}"), mark })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_known_by_their_marks() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let helm =
            [("meta.helm.sh/release-name", "web"), ("meta.helm.sh/release-namespace", "shop")];
        let flux = [
            ("helm.toolkit.fluxcd.io/name", "web"),
            ("helm.toolkit.fluxcd.io/namespace", "flux-system"),
        ];
        let argo = [("argocd.argoproj.io/tracking-id", "web:apps/Deployment:shop/web")];
        let name = |labels: &[_], annotations: &[_]| {
            tool_of(&map(labels), &map(annotations)).map(|tool| tool.name)
        };
        assert_eq!(name(&[], &helm), Some("the Helm release shop/web".into()));
        assert_eq!(name(&flux, &helm), Some("the HelmRelease of Flux flux-system/web".into()));
        assert_eq!(name(&[], &argo), Some("the application of Argo CD web".into()));
        assert_eq!(
            name(&[("argocd.argoproj.io/instance", "w\neb")], &[]),
            Some("the application of Argo CD web".into())
        );
        assert_eq!(
            name(&[("kustomize.toolkit.fluxcd.io/name", "apps")], &[]),
            Some("the Kustomization of Flux apps".into())
        );
        // Charts that are rendered into a repository say so too, and belong to nobody.
        assert_eq!(name(&[("app.kubernetes.io/managed-by", "Helm")], &[]), None);
    }
}
