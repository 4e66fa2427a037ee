//! Names of kinds and of objects.

use std::fmt;

use smol_str::SmolStr;

/// A kind in one version of its group; displays as `apps/v1 Deployment`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvk {
    /// The API group, empty for the core group.
    pub group: SmolStr,
    /// The version in that group.
    pub version: SmolStr,
    /// The kind.
    pub kind: SmolStr,
}

impl Gvk {
    /// Splits an `apiVersion` and joins a `kind`.
    pub fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `group/version`, or the version alone for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The same kind whatever its version.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }
}

impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version(), self.kind)
    }
}

/// A kind whatever its version; displays as `Deployment.apps`, the form of ApplySet annotations.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKind {
    /// The API group, empty for the core group.
    pub group: SmolStr,
    /// The kind.
    pub kind: SmolStr,
}

impl GroupKind {
    /// From a group and a kind.
    pub fn new(group: &str, kind: &str) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, group) = text.split_once('.').unwrap_or((text, ""));
        (!kind.is_empty()).then(|| Self::new(group, kind))
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.kind)
        } else {
            write!(f, "{}.{}", self.kind, self.group)
        }
    }
}

/// What makes an object itself in one cluster: its kind whatever the version, its namespace (empty
/// for cluster-scoped objects) and its name. Displays as `Deployment.apps web/api`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Group and kind.
    pub group_kind: GroupKind,
    /// The namespace, empty for cluster-scoped objects.
    pub namespace: SmolStr,
    /// The name.
    pub name: SmolStr,
}

impl ObjectKey {
    /// From a kind, a namespace (empty for none) and a name.
    pub fn new(group_kind: GroupKind, namespace: &str, name: &str) -> Self {
        Self { group_kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.group_kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_display_and_parse() {
        let gvk = Gvk::new("networking.k8s.io/v1", "Ingress");
        assert_eq!(gvk.to_string(), "networking.k8s.io/v1 Ingress");
        assert_eq!(gvk.group_kind().to_string(), "Ingress.networking.k8s.io");
        assert_eq!(GroupKind::parse("Ingress.networking.k8s.io"), Some(gvk.group_kind()));
        assert_eq!(GroupKind::parse("ConfigMap"), Some(GroupKind::new("", "ConfigMap")));
        assert_eq!(GroupKind::parse(""), None);
        assert_eq!(Gvk::new("v1", "Pod").api_version(), "v1");
        let key = ObjectKey::new(GroupKind::new("apps", "Deployment"), "web", "api");
        assert_eq!(key.to_string(), "Deployment.apps web/api");
    }
}
