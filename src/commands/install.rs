//! `plumb crds` and `plumb install`: what a cluster needs, printed.

use plumb_core::ErrorClass;

use crate::args::Install;
use crate::exit::Failure;

/// The files of deploy/, in the order in which a cluster takes them. The definitions come from the
/// code between the namespace and the rest.
const NAMESPACE: &str = include_str!("../../deploy/namespace.yaml");
const REST: [&str; 4] = [
    include_str!("../../deploy/rbac/controller.yaml"),
    include_str!("../../deploy/rbac/apply.yaml"),
    include_str!("../../deploy/deployment.yaml"),
    include_str!("../../deploy/networkpolicy.yaml"),
];

/// How the line that names the image begins.
const IMAGE: &str = "        image: ";

/// Prints the custom resource definitions.
pub(crate) fn crds() -> Result<(), Failure> {
    super::print(&crds_text()?)
}

/// Prints the custom resource definitions and what runs the agent.
pub(crate) fn run(args: &Install) -> Result<(), Failure> {
    super::print(&text(args.image.as_deref())?)
}

fn crds_text() -> Result<String, Failure> {
    let documents =
        plumb_api::crd_documents().map_err(|error| Failure::new(ErrorClass::Bug, &error))?;
    Ok(plumb_yaml::to_string_all(&documents))
}

fn text(image: Option<&str>) -> Result<String, Failure> {
    let crds = crds_text()?;
    let mut parts = vec![NAMESPACE.to_owned(), crds];
    parts.extend(REST.map(|file| match image {
        Some(image) => with_image(file, image),
        None => file.to_owned(),
    }));
    Ok(parts.join("---\n"))
}

fn with_image(file: &str, image: &str) -> String {
    let image = plumb_yaml::to_string(&serde_json::Value::String(image.to_owned()));
    file.split_inclusive('\n')
        .map(
            |line| {
                if line.starts_with(IMAGE) { format!("{IMAGE}{image}") } else { line.to_owned() }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_of_deploy_is_printed_once() {
        let text = text(None).unwrap();
        let kinds: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
        let want = [
            "Namespace",
            "CustomResourceDefinition",
            "CustomResourceDefinition",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
            "ClusterRoleBinding",
            "Deployment",
            "NetworkPolicy",
        ];
        assert_eq!(kinds, want);
    }

    #[test]
    fn the_image_is_replaced_in_one_place() {
        let text = text(Some("ghcr.io/me/plumb@sha256:0")).unwrap();
        assert_eq!(text.matches("image: ").count(), 1 + text.matches("names the image: ").count());
        assert!(text.contains("        image: ghcr.io/me/plumb@sha256:0\n"));
        assert!(!text.contains("registry.example.com/plumb:0.1.0\n        args"));
    }
}
