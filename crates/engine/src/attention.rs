//! Which sets ask how their objects are, and so of which kinds more than metadata is watched.
//!
//! An object's body is read while its line of the watch is decoded, judged, and dropped: a verdict is
//! all that is kept. Of kinds whose objects work by being there nothing is read, and of Secrets never.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plumb_core::{GroupKind, ObjectKey};
use plumb_health::{Health, Rules, Verdict};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::cluster::{Decode, Resource, live};
use crate::live::Live;
use crate::pods::selector_of;

/// The longest reason that is kept of a verdict: some lines of a terminal.
const MAX_REASON: usize = 400;

/// What a set asks to know of its objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asks {
    /// How objects are judged whose kinds they name.
    pub rules: Arc<Rules>,
    /// Whether it asks about all of them.
    pub all: bool,
    /// Objects that it asks about in any case, whether they are its own or not. Of kinds without
    /// namespaces theirs says nothing.
    pub named: Arc<BTreeSet<ObjectKey>>,
}

impl Asks {
    /// Whether bodies of a kind are read for this.
    fn reads(&self, kind: &GroupKind) -> bool {
        let is_asked = self.all || self.named.iter().any(|named| named.group_kind == *kind);
        is_asked && is_read(&self.rules, kind)
    }

    /// Whether it asks about an object.
    fn minds(&self, kind: &GroupKind, namespace: &str, name: &str) -> bool {
        let is_it = |named: &ObjectKey| {
            named.name == name
                && (namespace.is_empty() || named.namespace == namespace)
                && named.group_kind == *kind
        };
        self.all || self.named.iter().any(is_it)
    }
}

/// A set that asks.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) asks: Asks,
    /// Counts what all sets ever asked, so that a verdict by former rules can be told.
    pub(crate) number: u64,
    /// The kinds of its objects whose bodies tell how they are.
    bodies: Box<[GroupKind]>,
}

impl Asking {
    /// Whether bodies of a kind tell how its objects are.
    pub(crate) fn reads(&self, kind: &GroupKind) -> bool {
        self.bodies.contains(kind)
    }

    /// Whether it asks about an object.
    pub(crate) fn minds(&self, key: &ObjectKey) -> bool {
        self.asks.minds(&key.group_kind, &key.namespace, &key.name)
    }

    #[cfg(test)]
    pub(crate) fn of(number: u64, bodies: &[GroupKind]) -> Self {
        let asks = Asks { all: true, ..Asks::default() };
        Self { asks, number, bodies: bodies.iter().cloned().collect() }
    }

    /// One that asks about these only.
    #[cfg(test)]
    pub(crate) fn about(self, named: &[ObjectKey]) -> Self {
        let named = Arc::new(named.iter().cloned().collect());
        Self { asks: Asks { all: false, named, ..self.asks }, ..self }
    }
}

/// Judges an object by its body. The reason is cut where it is long.
pub fn judge(object: &Value, rules: &Rules) -> Verdict {
    let (verdict, _) = plumb_health::assess(object, rules);
    Verdict { reason: shorten(verdict.reason, MAX_REASON), ..verdict }
}

/// Cuts a text that is longer, between two characters.
pub(crate) fn shorten(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.push('…');
    }
    text
}

/// Whether bodies of a kind are read for a set with these rules.
fn is_read(rules: &Rules, kind: &GroupKind) -> bool {
    let is_secret = kind.group.is_empty() && kind.kind == "Secret";
    let by_being_there = plumb_health::works_by_being_there(&kind.group, &kind.kind);
    !is_secret && (!by_being_there || rules.speak_of(&kind.group, &kind.kind))
}

/// All that is asked, shared with the watches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attention(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    asking: HashMap<Arc<str>, Arc<Asking>>,
    kinds: BTreeMap<GroupKind, Depth>,
    /// How many rules, and lists for their sake, there have been.
    count: u64,
}

/// How a kind is watched.
#[derive(Debug)]
struct Depth {
    /// The sets that ask for bodies.
    sets: HashSet<Arc<str>>,
    /// Zero for metadata; any other number asks for a list of bodies of its own.
    edition: watch::Sender<u64>,
}

impl Default for Depth {
    fn default() -> Self {
        Self { sets: HashSet::new(), edition: watch::Sender::new(0) }
    }
}

impl Attention {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What a panic can leave behind is a kind that is read in more depth than needed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a set asks.
    pub(crate) fn of(&self, set: &str) -> Option<Arc<Asking>> {
        self.lock().asking.get(set).cloned()
    }

    /// How deep a kind is to be read, and each change of that.
    pub(crate) fn depth(&self, kind: &GroupKind) -> watch::Receiver<u64> {
        self.lock().kinds.entry(kind.clone()).or_default().edition.subscribe()
    }

    /// A set asks, no longer asks, or asks otherwise; its objects are of these kinds. `is_known` says
    /// whether what is live of the set, is of a kind, and is asked about was judged by these rules.
    pub(crate) fn attend(
        &self,
        set: &str,
        asks: Option<Asks>,
        kinds: &BTreeSet<GroupKind>,
        is_known: impl Fn(&Asking, &GroupKind) -> bool,
    ) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let before = inner.asking.remove(set);
        let set: Arc<str> = set.into();
        let now = asks.map(|asks| {
            let bodies = kinds.iter().filter(|kind| asks.reads(kind)).cloned().collect();
            let number = match &before {
                Some(before) if before.asks == asks => before.number,
                _ => {
                    inner.count += 1;
                    inner.count
                }
            };
            Asking { asks, number, bodies }
        });
        let bodies = now.as_ref().map(|now| now.bodies.clone()).unwrap_or_default();
        let gone = before.iter().flat_map(|before| before.bodies.iter());
        for kind in gone.filter(|kind| !bodies.contains(kind)) {
            let Some(depth) = inner.kinds.get_mut(kind) else { continue };
            depth.sets.remove(&set);
            if depth.sets.is_empty() {
                depth.edition.send_replace(0);
            }
        }
        let Some(now) = now else { return };
        for kind in bodies {
            let depth = inner.kinds.entry(kind.clone()).or_default();
            depth.sets.insert(Arc::clone(&set));
            // What is applied from now on is judged when its watch brings it.
            let is_new = before
                .as_ref()
                .is_none_or(|before| before.number != now.number || !before.reads(&kind));
            if *depth.edition.borrow() == 0 || is_new && !is_known(&now, &kind) {
                inner.count += 1;
                depth.edition.send_replace(inner.count);
            }
        }
        inner.asking.insert(set, Arc::new(now));
    }

    /// A set that asks comes to have objects of these kinds, too.
    pub(crate) fn grow(
        &self,
        set: &str,
        kinds: &BTreeSet<GroupKind>,
        is_known: impl Fn(&Asking, &GroupKind) -> bool,
    ) {
        let Some(asking) = self.of(set) else { return };
        let more = kinds.iter().any(|kind| !asking.reads(kind) && asking.asks.reads(kind));
        if more {
            let all = asking.bodies.iter().chain(kinds).cloned().collect();
            self.attend(set, Some(asking.asks.clone()), &all, is_known);
        }
    }
}

/// How an object is, as its watch last told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// The object's resource version.
    pub(crate) version: u64,
    /// Which rules judged it.
    pub(crate) number: u64,
    pub(crate) health: Health,
    pub(crate) reason: Box<str>,
    /// It stays so until somebody changes it.
    pub(crate) is_final: bool,
    /// What selects its Pods, where it is a workload that is not ready.
    pub(crate) pods: Option<Box<str>>,
}

/// An object as a watch tells of it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) live: Live,
    pub(crate) told: Option<Box<Told>>,
}

/// Reads objects of one kind for their fingerprints, and where sets ask for it, for how they are.
pub(crate) struct Watched {
    api_version: String,
    kind: GroupKind,
    whole: bool,
    attention: Attention,
}

impl Watched {
    pub(crate) fn new(resource: &Resource, whole: bool, attention: Attention) -> Self {
        let gvk = &resource.gvk;
        Self { api_version: gvk.api_version(), kind: gvk.group_kind(), whole, attention }
    }

    fn told(&self, live: &Live, json: &str) -> Option<Box<Told>> {
        let asking = self.attention.of(live.part_of.as_deref()?)?;
        // What is no object was not taken for one before this.
        let body = body_of(&self.api_version, &self.kind.kind, json)?;
        let named = |field: &str| body["metadata"][field].as_str().unwrap_or_default();
        if !asking.asks.minds(&self.kind, named("namespace"), named("name")) {
            return None;
        }
        let Verdict { health, reason, is_final } = judge(&body, &asking.asks.rules);
        let pods = if health.is_ready() { None } else { selector_of(&self.kind, &body) };
        let (version, number) = (live.resource_version, asking.number);
        Some(Box::new(Told { version, number, health, reason: reason.into(), is_final, pods }))
    }
}

impl Decode for Watched {
    type Item = Seen;

    fn wants_metadata(&self) -> bool {
        !self.whole
    }

    fn item(&self, json: &str) -> Result<Seen, String> {
        let live = live(json.as_bytes())?;
        let told = if self.whole { self.told(&live, json) } else { None };
        Ok(Seen { live, told })
    }
}

/// An object of a kind, which items of a list do not say; `None` where it is no object.
pub(crate) fn body_of(api_version: &str, kind: &str, json: &str) -> Option<Value> {
    let Body(mut body) = serde_json::from_str(json).ok()?;
    body.insert("apiVersion".into(), api_version.into());
    body.insert("kind".into(), kind.into());
    Some(Value::Object(body))
}

/// An object without its managed fields, which are the larger part of many and tell nothing here.
struct Body(Map<String, Value>);

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Top;
        struct Metadata;

        impl<'de> Visitor<'de> for Top {
            type Value = Map<String, Value>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut body = Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = if key == "metadata" {
                        map.next_value_seed(Metadata)?
                    } else {
                        map.next_value()?
                    };
                    body.insert(key, value);
                }
                Ok(body)
            }
        }

        impl<'de> serde::de::DeserializeSeed<'de> for Metadata {
            type Value = Value;

            fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
                d.deserialize_map(self)
            }
        }

        impl<'de> Visitor<'de> for Metadata {
            type Value = Value;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("metadata")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut metadata = Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "managedFields" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        metadata.insert(key, map.next_value()?);
                    }
                }
                Ok(Value::Object(metadata))
            }
        }

        deserializer.deserialize_map(Top).map(Self)
    }
}

/// How the objects of a set are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wellbeing {
    /// How many there are that count.
    pub total: usize,
    /// Those that are not ready, the worst first.
    pub unready: Vec<Unready>,
    /// Objects that were asked about by name and are none that the set has applied. They are not among
    /// the others until somebody adds them.
    pub others: Vec<ObjectKey>,
}

/// An object that is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unready {
    /// The object.
    pub key: ObjectKey,
    /// How it is.
    pub health: Health,
    /// Why; empty when there is nothing to add.
    pub reason: String,
    /// It stays so until somebody changes it.
    pub is_final: bool,
    /// Whether it was seen as it was last applied, rather than that nothing is known of it yet.
    pub is_seen: bool,
    /// Selects its Pods, which may know more, where it is a workload.
    pub pods: Option<Box<str>>,
}

impl Wellbeing {
    /// Whether all objects are ready.
    pub fn is_ready(&self) -> bool {
        self.unready.is_empty()
    }

    /// Adds objects that were looked at elsewhere: those that are not ready, and `None` for each that is.
    pub fn add(&mut self, found: impl IntoIterator<Item = Option<Unready>>) {
        for found in found {
            self.total += 1;
            self.unready.extend(found);
        }
        self.sort();
    }

    /// Sorts what is not ready by how bad it is, and then by name.
    pub(crate) fn sort(&mut self) {
        self.unready.sort_by(|a, b| {
            let by = |one: &Unready| (one.is_final, one.health);
            by(b).cmp(&by(a)).then_with(|| a.key.cmp(&b.key))
        });
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::Gvk;
    use serde_json::json;

    use super::*;

    fn kind(text: &str) -> GroupKind {
        GroupKind::parse(text).unwrap()
    }

    fn rules(api_version: &str, of: Option<&str>) -> Arc<Rules> {
        let exprs = plumb_health::Exprs {
            api_version: api_version.into(),
            kind: of.map(Into::into),
            current: "has(data.ready)".into(),
            ..Default::default()
        };
        Arc::new(Rules::compile([&exprs]).unwrap())
    }

    #[test]
    fn bodies_are_read_of_kinds_that_have_health_in_them_and_never_of_secrets() {
        let none = Rules::default();
        for (text, read) in [
            ("Deployment.apps", true),
            ("Widget.example.com", true),
            ("Namespace", true),
            ("ConfigMap", false),
            ("Secret", false),
            ("Role.rbac.authorization.k8s.io", false),
        ] {
            assert_eq!(is_read(&none, &kind(text)), read, "{text}");
        }
        assert!(is_read(&rules("v1", Some("ConfigMap")), &kind("ConfigMap")));
        for rules in [rules("v1", None), rules("v1", Some("Secret"))] {
            assert!(!is_read(&rules, &kind("Secret")));
        }
    }

    #[test]
    fn a_kind_is_read_in_depth_as_long_as_a_set_asks() {
        let attention = Attention::default();
        let deployments = kind("Deployment.apps");
        let depth = attention.depth(&deployments);
        let deep = || *depth.borrow();
        let kinds = BTreeSet::from([deployments.clone(), kind("ConfigMap")]);
        let asks = || Some(Asks { all: true, ..Asks::default() });
        assert_eq!(deep(), 0);
        attention.attend("one", asks(), &kinds, |_, _| true);
        let first = deep();
        assert_ne!(first, 0);
        assert_eq!(*attention.depth(&kind("ConfigMap")).borrow(), 0, "works by being there");
        // What was just applied and did not come back yet is not listed for that.
        attention.attend("one", asks(), &kinds, |_, _| false);
        attention.attend("two", asks(), &kinds, |_, _| true);
        assert_eq!(deep(), first, "nothing new to read");
        // What of it is live was not judged yet.
        attention.attend("three", asks(), &kinds, |_, _| false);
        assert_ne!(deep(), first);
        let number = attention.of("three").unwrap().number;
        let rules = Asks { rules: rules("v1", Some("ConfigMap")), ..asks().unwrap() };
        attention.attend("three", Some(rules), &kinds, |asking, _| asking.number == number);
        assert_ne!(attention.of("three").unwrap().number, number, "by other rules");
        assert_ne!(*attention.depth(&kind("ConfigMap")).borrow(), 0);
        attention.attend("three", None, &kinds, |_, _| true);
        assert_eq!(*attention.depth(&kind("ConfigMap")).borrow(), 0);
        attention.attend("one", None, &kinds, |_, _| true);
        assert_ne!(deep(), 0);
        attention.attend("two", asks(), &BTreeSet::new(), |_, _| true);
        assert_eq!(deep(), 0, "it has none of them any more");
        attention.grow("two", &kinds, |_, _| true);
        assert_ne!(deep(), 0);
        attention.grow("nobody", &BTreeSet::from([kind("Job.batch")]), |_, _| true);
        assert_eq!(*attention.depth(&kind("Job.batch")).borrow(), 0);
    }

    #[test]
    fn only_what_belongs_to_a_set_that_asks_is_judged_and_no_body_is_kept() {
        let attention = Attention::default();
        let resource = Resource::known(Gvk::new("apps/v1", "Deployment"), "deployments", true);
        let kinds = BTreeSet::from([kind("Deployment.apps")]);
        let asks = Asks { all: true, ..Asks::default() };
        attention.attend("mine", Some(asks), &kinds, |_, _| true);
        let object = |set: &str| {
            json!({
                "metadata": {
                    "name": "web", "uid": "u", "resourceVersion": "7", "generation": 2,
                    "labels": {"applyset.kubernetes.io/part-of": set},
                    "managedFields": [{"manager": "x", "fieldsV1": {"f:a": {}}}],
                },
                "spec": {"replicas": 3},
                "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3,
                    "availableReplicas": 1},
            })
            .to_string()
        };
        let whole = Watched::new(&resource, true, attention.clone());
        assert!(!whole.wants_metadata());
        let told = whole.item(&object("mine")).unwrap().told.unwrap();
        assert_eq!((told.version, told.health), (7, Health::Progressing));
        assert_eq!(&*told.reason, "1 of 3 replicas are available");
        assert_eq!(whole.item(&object("theirs")).unwrap().told, None);
        let lean = Watched::new(&resource, false, attention.clone());
        assert!(lean.wants_metadata());
        assert_eq!(lean.item(&object("mine")).unwrap().told, None);
        assert_eq!(
            lean.item(&object("mine")).unwrap().live,
            whole.item(&object("mine")).unwrap().live
        );
        // One that asks about others only.
        for (name, judged) in [("web", true), ("api", false)] {
            let named = ObjectKey::new(kind("Deployment.apps"), "ns", name);
            let asks = Asks { named: Arc::new([named].into()), ..Asks::default() };
            attention.attend("mine", Some(asks), &kinds, |_, _| true);
            assert_eq!(whole.item(&object("mine")).unwrap().told.is_some(), judged, "{name}");
        }
    }

    #[test]
    fn who_asks_about_some_objects_has_bodies_of_their_kinds_read() {
        let attention = Attention::default();
        let (jobs, deployments) = (kind("Job.batch"), kind("Deployment.apps"));
        let kinds = BTreeSet::from([jobs.clone(), deployments.clone(), kind("Secret")]);
        let asks = |all, named: &[(&GroupKind, &str)]| {
            let keys = named.iter().map(|(kind, name)| ObjectKey::new((*kind).clone(), "ns", name));
            Some(Asks { all, named: Arc::new(keys.collect()), ..Asks::default() })
        };
        let depth = |kind: &GroupKind| *attention.depth(kind).borrow();
        let secrets = kind("Secret");
        attention.attend("one", asks(false, &[(&jobs, "a"), (&secrets, "s")]), &kinds, |_, _| true);
        assert_ne!(depth(&jobs), 0);
        assert_eq!((depth(&deployments), depth(&secrets)), (0, 0));
        let asking = attention.of("one").unwrap();
        for (of, namespace, name, minds) in [
            (&jobs, "ns", "a", true),
            (&jobs, "ns", "b", false),
            (&jobs, "other", "a", false),
            (&deployments, "ns", "a", false),
            // As if the kind had no namespaces.
            (&jobs, "", "a", true),
        ] {
            let key = ObjectKey::new(of.clone(), namespace, name);
            assert_eq!(asking.minds(&key), minds, "{key}");
        }
        // Of a kind that is read already another one is asked about, which nobody judged.
        let before = depth(&jobs);
        attention.attend("one", asks(false, &[(&jobs, "b")]), &kinds, |_, _| false);
        assert_ne!(depth(&jobs), before);
        attention.attend("one", asks(true, &[(&jobs, "b")]), &kinds, |_, _| true);
        assert_ne!(depth(&deployments), 0);
    }
}
