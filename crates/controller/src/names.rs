//! Which object a piece of work is about.

use std::fmt;

use smol_str::SmolStr;

/// Namespace and name of one of our objects; displays as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The namespace.
    pub namespace: SmolStr,
    /// The name.
    pub name: SmolStr,
}

impl Name {
    /// From both parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The first of these namespaces that is another one than its own.
    pub(crate) fn first_elsewhere<'n>(
        &self,
        namespaces: impl Iterator<Item = Option<&'n str>>,
    ) -> Option<(usize, &'n str)> {
        let mut all = namespaces.enumerate();
        all.find_map(|(index, found)| {
            Some((index, found.filter(|found| *found != self.namespace)?))
        })
    }

    /// Of an object that has both, as every stored object of ours does.
    pub(crate) fn of(metadata: &kube::core::ObjectMeta) -> Self {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        Self { namespace: text(&metadata.namespace), name: text(&metadata.name) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A key of the work queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Look at a GitRepository: poll it, fetch it.
    Source(Name),
    /// Run an Application.
    App(Name),
}

impl Key {
    /// The kind, for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Source(_) => "GitRepository",
            Self::App(_) => "Application",
        }
    }

    /// The object.
    pub fn name(&self) -> &Name {
        match self {
            Self::Source(name) | Self::App(name) => name,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}
