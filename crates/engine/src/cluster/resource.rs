//! Where objects live in the API: kinds as the server serves them, and the paths to them.

use std::collections::BTreeSet;

use plumb_core::{Gvk, ObjectKey};

/// One kind as the API server serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Group, version and kind.
    pub gvk: Gvk,
    /// The name in paths, as in `deployments`.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it, as in `list` or `patch`.
    pub verbs: BTreeSet<String>,
    /// Its subresources, as in `status` or `scale`.
    pub subresources: BTreeSet<String>,
}

impl Resource {
    /// A kind that is known without asking the server; it is taken to allow everything.
    pub fn known(gvk: Gvk, plural: &str, namespaced: bool) -> Self {
        let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
        Self {
            gvk,
            plural: plural.into(),
            namespaced,
            verbs: verbs.into_iter().map(String::from).collect(),
            subresources: BTreeSet::new(),
        }
    }

    /// Whether the server offers a verb for it.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.contains(verb)
    }

    /// Whether these are the Secrets of the core group, whose content must stay out of messages.
    pub fn is_secret(&self) -> bool {
        self.gvk.group.is_empty() && self.gvk.kind == "Secret"
    }

    /// The key of one of its objects; the namespace of a cluster-scoped kind is dropped.
    pub fn key(&self, namespace: &str, name: &str) -> ObjectKey {
        let namespace = if self.namespaced { namespace } else { "" };
        ObjectKey::new(self.gvk.group_kind(), namespace, name)
    }

    /// The path of an object or, with an empty name, of the collection; an empty namespace means
    /// all of them, an empty subresource the object itself. Every part is percent-encoded, so that
    /// no name from a repository can lead to another path.
    pub fn path(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let root = if self.gvk.group.is_empty() { "/api" } else { "/apis" };
        let mut path = String::from(root);
        let mut add = |part: &str| {
            if !part.is_empty() {
                path.push('/');
                path.push_str(&encode(part));
            }
        };
        add(&self.gvk.group);
        add(&self.gvk.version);
        if self.namespaced && !namespace.is_empty() {
            add("namespaces");
            add(namespace);
        }
        add(&self.plural);
        add(name);
        if !name.is_empty() {
            add(subresource);
        }
        path
    }

    /// The collection in the words of an error, as in `deployments.apps in web`.
    pub(super) fn collection(&self, namespace: Option<&str>) -> String {
        let mut text = self.plural.clone();
        if !self.gvk.group.is_empty() {
            text.push('.');
            text.push_str(&self.gvk.group);
        }
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            text.push_str(" in ");
            text.push_str(namespace);
        }
        text
    }
}

/// One object to act on.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its kind.
    pub resource: &'a Resource,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Whether its content is as secret as that of a Secret, whatever its kind.
    pub secret: bool,
}

impl<'a> Target<'a> {
    /// An object of a kind.
    pub fn new(resource: &'a Resource, namespace: &'a str, name: &'a str) -> Self {
        Self { resource, namespace, name, secret: resource.is_secret() }
    }

    /// Its key.
    pub fn key(&self) -> ObjectKey {
        self.resource.key(self.namespace, self.name)
    }

    /// Why no path leads to it, if so. The server would refuse such names too, but only once they
    /// reach it as names: `..` or an empty one would address something else.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        if self.name.is_empty() {
            return Some("it has no name");
        }
        if self.resource.namespaced && self.namespace.is_empty() {
            return Some("it has no namespace");
        }
        let bad = |part: &str| part == "." || part == ".." || part.contains(['/', '%']);
        (bad(self.name) || bad(self.namespace))
            .then_some("names must not be `.` or `..` or contain `/` or `%`")
    }
}

/// Percent-encodes one part of a path or a query.
pub(super) fn encode(part: &str) -> String {
    use std::fmt::Write as _;

    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let deployment = Resource::known(Gvk::new("apps/v1", "Deployment"), "deployments", true);
        let role = Resource::known(
            Gvk::new("rbac.authorization.k8s.io/v1", "ClusterRole"),
            "clusterroles",
            false,
        );
        let secret = Resource::known(Gvk::new("v1", "Secret"), "secrets", true);
        for (resource, namespace, name, subresource, expected) in [
            (&deployment, "web", "api", "", "/apis/apps/v1/namespaces/web/deployments/api"),
            (
                &deployment,
                "web",
                "api",
                "status",
                "/apis/apps/v1/namespaces/web/deployments/api/status",
            ),
            (&deployment, "web", "", "status", "/apis/apps/v1/namespaces/web/deployments"),
            (&deployment, "", "", "", "/apis/apps/v1/deployments"),
            (
                &role,
                "ignored",
                "system:x y/z?",
                "",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:x%20y%2Fz%3F",
            ),
            (&secret, "web", "é", "", "/api/v1/namespaces/web/secrets/%C3%A9"),
        ] {
            assert_eq!(resource.path(namespace, name, subresource), expected);
        }
        assert_eq!(deployment.collection(Some("web")), "deployments.apps in web");
        assert_eq!(secret.collection(None), "secrets");
        assert_eq!(role.key("ignored", "x").to_string(), "ClusterRole.rbac.authorization.k8s.io x");
        assert!(secret.is_secret() && !deployment.is_secret());
        assert!(deployment.can("patch") && !deployment.can("deletecollection"));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let resource = Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true);
        for (namespace, name, fine) in [
            ("web", "a", true),
            ("web", "system:a.b", true),
            ("web", "", false),
            ("", "a", false),
            ("web", "..", false),
            (".", "a", false),
            ("web", "a/status", false),
            ("we/b", "a", false),
            ("web", "a%2f", false),
        ] {
            let flaw = Target::new(&resource, namespace, name).flaw();
            assert_eq!(flaw.is_none(), fine, "{namespace} {name}: {flaw:?}");
        }
    }
}
