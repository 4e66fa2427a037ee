//! Identities of objects. Their texts are copied from objects without an allocation.

use std::fmt;

use plumb_yaml::Text;

/// The namespace that stands for none in identities of cluster-scoped objects.
pub(crate) const NOT_NAMESPACED: &str = "_non_namespaceable_";
/// The namespace of namespaced objects that name none.
pub(crate) const DEFAULT: &str = "default";

/// A kind in one version of its group. As a pattern, empty parts select all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Gvk {
    pub(crate) group: Text,
    pub(crate) version: Text,
    pub(crate) kind: Text,
}

impl Gvk {
    /// Splits an `apiVersion` and joins a kind.
    pub(crate) fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = split(api_version);
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `group/version`, or the version alone for the core group.
    pub(crate) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.to_string(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Whether it selects a kind, as a pattern.
    pub(crate) fn selects(&self, other: &Self) -> bool {
        self.selects_as(other, &other.kind)
    }

    /// Whether it selects what has the group and version of another and this kind.
    pub(crate) fn selects_as(&self, other: &Self, kind: &Text) -> bool {
        let fits = |pattern: &Text, text: &Text| pattern.is_empty() || pattern == text;
        fits(&self.kind, kind)
            && fits(&self.group, &other.group)
            && fits(&self.version, &other.version)
    }
}

/// The group and version in an `apiVersion`.
pub(crate) fn split(api_version: &str) -> (&str, &str) {
    match api_version.bytes().position(|byte| byte == b'/') {
        Some(at) => (&api_version[..at], &api_version[at + 1..]),
        None => ("", api_version),
    }
}

/// An object's identity now or at an earlier step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) gvk: Gvk,
    pub(crate) name: Text,
    /// The namespace as written.
    pub(crate) namespace: Text,
    /// Whether the kind is known to be cluster-scoped.
    pub(crate) cluster: bool,
}

impl Id {
    /// The namespace that counts: `default` for none.
    pub(crate) fn effective_namespace(&self) -> &str {
        if self.cluster {
            NOT_NAMESPACED
        } else if self.namespace.is_empty() {
            DEFAULT
        } else {
            &self.namespace
        }
    }

    /// What makes two identities equal.
    pub(crate) fn key(&self) -> Key {
        Key {
            gvk: self.gvk.clone(),
            name: self.name.clone(),
            namespace: self.effective_namespace().into(),
        }
    }

    /// Whether it is in the namespace that a selector names; "" is any.
    pub(crate) fn in_namespace(&self, namespace: &str) -> bool {
        namespace.is_empty() || self.effective_namespace() == namespace
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.gvk.kind)?;
        if !self.gvk.group.is_empty() {
            write!(f, ".{}", self.gvk.group)?;
        }
        f.write_str(" ")?;
        if !self.cluster && !self.namespace.is_empty() && self.namespace != NOT_NAMESPACED {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// An identity with the namespace that counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    gvk: Gvk,
    name: Text,
    namespace: Text,
}
