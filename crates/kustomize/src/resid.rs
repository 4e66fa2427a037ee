//! Identities of objects.

use std::fmt;

use plumb_core::Gvk;

/// The namespace that stands for none in identities of cluster-scoped objects.
pub(crate) const NOT_NAMESPACED: &str = "_non_namespaceable_";
const DEFAULT: &str = "default";

/// An object's identity now or at an earlier step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) gvk: Gvk,
    pub(crate) name: String,
    /// The namespace as written.
    pub(crate) namespace: String,
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
            namespace: self.effective_namespace().to_owned(),
        }
    }

    /// Whether it is in the namespace that a selector names; "" is any.
    pub(crate) fn in_namespace(&self, namespace: &str) -> bool {
        namespace.is_empty() || self.effective_namespace() == namespace
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.gvk.group_kind())?;
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
    name: String,
    namespace: String,
}

/// Whether a kind is selected by a pattern, whose empty parts select all.
pub(crate) fn selects(pattern: &Gvk, gvk: &Gvk) -> bool {
    let fits = |pattern: &str, text: &str| pattern.is_empty() || pattern == text;
    fits(&pattern.group, &gvk.group)
        && fits(&pattern.version, &gvk.version)
        && fits(&pattern.kind, &gvk.kind)
}
