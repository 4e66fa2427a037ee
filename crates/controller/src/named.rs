//! ConfigMaps and Secrets that specs of Applications and GitRepositories name. They are read whole, in
//! the runs that need them, and watched by metadata alone, so that a change is acted on at once.
//!
//! One watch a kind sees all objects of it, and runs only while a spec names one; what is kept of it
//! is the versions of those that are named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use plumb_api::{Application, GitRepository, ValuesKind};
use plumb_core::Gvk;
use plumb_engine::Resource;
use tokio::sync::watch;

use crate::askers::{Askers, Turned};
use crate::names::{Key, Name};

/// Kinds whose objects can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum NamedKind {
    ConfigMap,
    Secret,
}

impl NamedKind {
    pub(crate) const ALL: [Self; 2] = [Self::ConfigMap, Self::Secret];

    pub(crate) fn resource(self) -> Resource {
        let (kind, plural) = match self {
            Self::ConfigMap => ("ConfigMap", "configmaps"),
            Self::Secret => ("Secret", "secrets"),
        };
        Resource::known(Gvk::new("v1", kind), plural, true)
    }
}

impl From<ValuesKind> for NamedKind {
    fn from(kind: ValuesKind) -> Self {
        match kind {
            ValuesKind::ConfigMap => Self::ConfigMap,
            ValuesKind::Secret => Self::Secret,
        }
    }
}

/// One object that a spec names; displays as `Secret namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Named {
    pub(crate) kind: NamedKind,
    pub(crate) name: Name,
}

impl Named {
    pub(crate) fn new(kind: impl Into<NamedKind>, namespace: &str, name: &str) -> Self {
        Self { kind: kind.into(), name: Name::new(namespace, name) }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.name)
    }
}

/// Everything that an Application's spec names: what its runs read, and what wakes it.
pub(crate) fn named_by(app: &Application) -> BTreeSet<Named> {
    let namespace = app.metadata.namespace.as_deref().unwrap_or_default();
    let values = app.spec.post_build.iter().flat_map(|post| &post.substitute_from);
    let values = values.map(|from| Named::new(from.kind, namespace, &from.name));
    let keys =
        app.spec.decryption.iter().map(|decryption| {
            Named::new(NamedKind::Secret, namespace, &decryption.secret_ref.name)
        });
    values.chain(keys).collect()
}

/// Everything that a GitRepository's spec names: what its looks read, and what wakes it.
pub(crate) fn named_by_source(source: &GitRepository) -> BTreeSet<Named> {
    let namespace = source.metadata.namespace.as_deref().unwrap_or_default();
    let spec = &source.spec;
    let secrets = [&spec.secret_ref, &spec.proxy_secret_ref].into_iter().flatten();
    let secrets = secrets.chain(spec.verify.as_ref().map(|verify| &verify.secret_ref));
    secrets.map(|secret| Named::new(NamedKind::Secret, namespace, &secret.name)).collect()
}

/// What an object holds.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) version: u64,
    pub(crate) data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {}: {:?}", self.version, self.data.keys())
    }
}

/// What was read of everything that a spec names; of what is not there that it is not.
pub(crate) type Found = BTreeMap<Named, Option<Arc<Content>>>;

/// What is there of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Absent,
    At(u64),
}

impl Version {
    /// What was found.
    pub(crate) fn of(content: Option<&Arc<Content>>) -> Self {
        content.map_or(Self::Absent, |content| Self::At(content.version))
    }
}

/// A part of the world that one watch sees: a kind, in one namespace or in all.
pub(crate) type Part = (NamedKind, Option<String>);

/// What the watches say.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    names: Askers<Named, Key>,
    /// The version of what is named, as far as it is known.
    seen: BTreeMap<Named, Version>,
    /// The parts in which nothing is missed.
    synced: BTreeSet<Part>,
    needed: watch::Sender<BTreeSet<NamedKind>>,
}

/// What a watch tells of a part.
pub(crate) enum Told {
    /// Nothing is known until the next list.
    Lost,
    /// All that is there.
    Listed(BTreeMap<Name, u64>),
    /// One that changed.
    Changed(Name, u64),
    /// One that is gone.
    Gone(Name),
}

impl Sight {
    /// An object of ours names these from now on.
    pub(crate) fn put(&mut self, who: &Key, names: BTreeSet<Named>) {
        let Turned { came, went } = self.names.put(who, names);
        for named in &went {
            self.seen.remove(named);
        }
        self.needed.send_if_modified(|needed| {
            let mut changed = false;
            for named in &came {
                changed |= needed.insert(named.kind);
            }
            for Named { kind, .. } in &went {
                if !self.names.all().any(|named| named.kind == *kind) {
                    changed |= needed.remove(kind);
                }
            }
            changed
        });
    }

    /// Which kinds are to be watched, and when that changes.
    pub(crate) fn needed(&self) -> watch::Receiver<BTreeSet<NamedKind>> {
        self.needed.subscribe()
    }

    /// The version that is there now; nothing when that is not known.
    pub(crate) fn current(&self, named: &Named) -> Option<Version> {
        let all = (named.kind, None);
        let one = (named.kind, Some(named.name.namespace.to_string()));
        let in_sight = self.synced.contains(&all) || self.synced.contains(&one);
        self.seen.get(named).filter(|_| in_sight).copied()
    }

    /// A run has read an object. What a watch said meanwhile is newer.
    pub(crate) fn note(&mut self, named: &Named, version: Version) {
        if self.names.is_asked(named) {
            self.seen.entry(named.clone()).or_insert(version);
        }
    }

    /// Takes in what a watch tells. Returns what is another version than before, or may be.
    pub(crate) fn told(&mut self, part: &Part, told: Told) -> Vec<Named> {
        let (kind, namespace) = part;
        match told {
            Told::Lost => {
                self.synced.remove(part);
                Vec::new()
            }
            Told::Listed(versions) => {
                self.synced.insert(part.clone());
                let named = self.names.all().filter(|named| named.kind == *kind);
                let here = |named: &&Named| {
                    namespace.as_ref().is_none_or(|namespace| *namespace == named.name.namespace)
                };
                let named: Vec<Named> = named.filter(here).cloned().collect();
                for named in &named {
                    let version = versions.get(&named.name).copied();
                    self.seen.insert(named.clone(), version.map_or(Version::Absent, Version::At));
                }
                named
            }
            Told::Changed(name, version) => {
                let named = Named { kind: *kind, name };
                let known = self.seen.get(&named);
                let old = matches!(known, Some(Version::At(known)) if *known >= version);
                if old || !self.names.is_asked(&named) {
                    return Vec::new();
                }
                self.seen.insert(named.clone(), Version::At(version));
                vec![named]
            }
            Told::Gone(name) => {
                let named = Named { kind: *kind, name };
                if !self.names.is_asked(&named) {
                    return Vec::new();
                }
                self.seen.insert(named.clone(), Version::Absent);
                vec![named]
            }
        }
    }

    /// Who names an object.
    pub(crate) fn askers(&self, named: &Named) -> impl Iterator<Item = &Key> {
        self.names.who(named)
    }

    /// Whether an object is known to be newer than what was found of it.
    pub(crate) fn outdates(&self, named: &Named, found: &Found) -> bool {
        let Some(found) = found.get(named) else { return false };
        match (self.current(named), Version::of(found.as_ref())) {
            (Some(Version::At(now)), Version::At(found)) => now > found,
            (Some(Version::Absent), Version::At(_)) => true,
            _ => false,
        }
    }

    /// What a watch last said of an object, current or not.
    pub(crate) fn last(&self, named: &Named) -> Option<Version> {
        self.seen.get(named).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Named {
        Named::new(NamedKind::Secret, "ns", name)
    }

    #[test]
    fn only_what_is_named_is_kept_and_only_needed_kinds_are_watched() {
        let mut sight = Sight::default();
        let needed = sight.needed();
        let web = Key::App(Name::new("ns", "web"));
        let api = Key::Source(Name::new("ns", "web"));
        assert!(needed.borrow().is_empty());
        sight.put(&web, BTreeSet::from([named("a"), named("b")]));
        sight.put(&api, BTreeSet::from([named("b")]));
        assert_eq!(*needed.borrow(), BTreeSet::from([NamedKind::Secret]));

        let part = (NamedKind::Secret, None);
        assert_eq!(sight.current(&named("a")), None, "nothing was listed yet");
        let all = [("a", 1), ("c", 2)].map(|(name, at)| (Name::new("ns", name), at));
        let told = sight.told(&part, Told::Listed(all.into()));
        assert_eq!(told, [named("a"), named("b")]);
        assert_eq!(sight.current(&named("a")), Some(Version::At(1)));
        assert_eq!(sight.current(&named("b")), Some(Version::Absent), "it is not there");
        assert_eq!(sight.current(&named("c")), None, "nobody names it");

        let change = |name: &str, at| Told::Changed(Name::new("ns", name), at);
        assert_eq!(sight.told(&part, change("c", 3)), []);
        assert_eq!(sight.told(&part, change("a", 1)), [], "known already");
        assert_eq!(sight.told(&part, change("b", 4)), [named("b")]);
        assert_eq!(sight.askers(&named("b")).collect::<Vec<_>>(), [&api, &web]);
        assert_eq!(sight.told(&part, Told::Gone(Name::new("ns", "a"))), [named("a")]);
        assert_eq!(sight.current(&named("a")), Some(Version::Absent));
        sight.told(&part, Told::Lost);
        assert_eq!(sight.current(&named("b")), None, "it may have changed meanwhile");

        sight.put(&web, BTreeSet::new());
        sight.put(&api, BTreeSet::new());
        assert!(needed.borrow().is_empty() && sight.seen.is_empty());
    }

    #[test]
    fn what_a_watch_says_is_newer_than_what_a_run_read_before() {
        let mut sight = Sight::default();
        sight.put(&Key::App(Name::new("ns", "web")), BTreeSet::from([named("a")]));
        let part = (NamedKind::Secret, Some("ns".to_owned()));
        sight.told(&part, Told::Listed(BTreeMap::new()));
        sight.told(&part, Told::Changed(Name::new("ns", "a"), 2));
        sight.note(&named("a"), Version::At(1));
        assert_eq!(sight.current(&named("a")), Some(Version::At(2)));
        let found = |version| Found::from([(named("a"), version)]);
        let at = |version| Some(Arc::new(Content { version, data: BTreeMap::new() }));
        assert!(sight.outdates(&named("a"), &found(at(1))));
        assert!(!sight.outdates(&named("a"), &found(at(2))));
        assert!(!sight.outdates(&named("a"), &found(at(3))), "the watch is behind");
        assert!(!sight.outdates(&named("a"), &found(None)), "there is nothing that could count");
        // One that is named from now on was passed over before.
        sight.put(&Key::App(Name::new("ns", "api")), BTreeSet::from([named("b")]));
        assert_eq!(sight.current(&named("b")), None);
        sight.note(&named("b"), Version::At(1));
        assert_eq!(sight.current(&named("b")), Some(Version::At(1)));
        assert!(
            !format!(
                "{:?}",
                Content { version: 1, data: BTreeMap::from([("key".into(), b"hunter2".to_vec())]) }
            )
            .contains("hunter2")
        );
    }
}
