//! Kinds that are wanted, or have members, and that the cluster does not list. They are looked up less
//! and less often. A list of kinds lacks one for a moment now and then, while a definition changes or
//! one of several API servers lags behind, and nothing may be concluded from that: a kind counts as
//! gone, with all its objects, when it has no definition either. One that never had any, as it is
//! Kubernetes' own, must have been missing in two looks with a pause between them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use plumb_core::{GroupKind, Gvk};
use smol_str::SmolStr;
use tokio::time::Instant;

use crate::cluster::{ApiError, Discovery, Resource};
use crate::engine::Engine;
use crate::error::EngineError;

/// The shortest and the longest pause between two looks for kinds that are missing. Who installs a
/// definition by other means than Plumb waits no longer than for a retry.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));

/// How long a kind of Kubernetes itself must have been missing before it can count as gone: servers
/// of two versions may answer in turns.
const CONFIRM: Duration = Duration::from_secs(5);

/// Where definitions of kinds are.
const DEFINITIONS: (&str, &str, &str) =
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions");

/// What is known of kinds that were looked for and not found. A kind without a version stands for
/// all of its versions.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    kinds: HashMap<Gvk, Absent>,
    /// What the collections of kinds are called that were served once.
    plurals: HashMap<GroupKind, String>,
}

#[derive(Debug)]
struct Absent {
    since: Instant,
    next: Instant,
    pause: Duration,
    /// Whether it was asked, after the last look, for what definitions there are.
    asked: bool,
    gone: bool,
    /// Whether it has a definition all the same.
    defined: bool,
    /// Who wants it.
    sets: BTreeSet<Arc<str>>,
}

impl Missing {
    /// Whether it is time to look for a kind that is not known.
    fn is_due(&self, kind: &Gvk, now: Instant) -> bool {
        self.kinds.get(kind).is_none_or(|absent| absent.next <= now)
    }

    /// A look did not find it. Returns whether that is news.
    fn absent(&mut self, kind: &Gvk, now: Instant) -> bool {
        let mut news = false;
        let absent = self.kinds.entry(kind.clone()).or_insert_with(|| {
            news = true;
            let sets = BTreeSet::new();
            Absent {
                since: now,
                next: now,
                pause: PAUSES.0 / 2,
                asked: true,
                gone: false,
                defined: false,
                sets,
            }
        });
        if absent.next <= now {
            absent.pause = (absent.pause * 2).min(PAUSES.1);
            absent.next = now + absent.pause;
            absent.asked = false;
        }
        news
    }

    /// A look found other kinds.
    pub(crate) fn looked(&mut self, discovery: &Discovery) {
        self.kinds.retain(|kind, _| lacks(discovery, kind));
    }

    /// What the collection of a kind is called, and so its definition.
    pub(crate) fn named(&mut self, kind: &GroupKind, plural: &str) {
        if !self.plurals.contains_key(kind) {
            self.plurals.insert(kind.clone(), plural.to_owned());
        }
    }

    /// Whether it may count as gone if it has no definition, and that was not asked yet.
    fn may_be_gone(&mut self, kind: &Gvk, now: Instant) -> bool {
        let Some(absent) = self.kinds.get_mut(kind) else { return false };
        let confirmed = !is_built_in(kind) || now >= absent.since + CONFIRM;
        confirmed && !std::mem::replace(&mut absent.asked, true)
    }

    /// Something new may be served. Returns who waits for something that is missing.
    pub(crate) fn look_again(&mut self, now: Instant) -> BTreeSet<Arc<str>> {
        for absent in self.kinds.values_mut() {
            absent.pause = PAUSES.0 / 2;
            absent.next = now;
        }
        self.kinds.values().flat_map(|absent| absent.sets.iter().cloned()).collect()
    }

    fn wants(&mut self, kind: &Gvk, set: &str) {
        if let Some(absent) = self.kinds.get_mut(kind) {
            absent.sets.insert(set.into());
        }
    }
}

/// Whether a kind may be one that comes without a definition.
fn is_built_in(kind: &Gvk) -> bool {
    !kind.group.contains('.') || kind.group.ends_with(".k8s.io")
}

/// A kind in any version.
fn any_version(kind: &GroupKind) -> Gvk {
    Gvk { group: kind.group.clone(), version: SmolStr::default(), kind: kind.kind.clone() }
}

fn lacks(discovery: &Discovery, kind: &Gvk) -> bool {
    if kind.version.is_empty() {
        discovery.preferred(&kind.group_kind()).is_none()
    } else {
        discovery.find(kind).is_none()
    }
}

impl Engine {
    /// The kinds of the cluster, read again when one that is wanted is not among them and it is time to
    /// look for it. `set` wants them.
    pub(crate) async fn discovery_with(
        &self,
        wanted: impl Iterator<Item = Gvk>,
        set: Option<&str>,
    ) -> Result<Arc<Discovery>, EngineError> {
        let mut discovery = self.discovery().await?;
        let lacking: BTreeSet<Gvk> = wanted.filter(|kind| lacks(&discovery, kind)).collect();
        let now = Instant::now();
        let due = lacking.iter().any(|kind| self.missing().is_due(kind, now));
        if due {
            discovery = self.discovery_again().await?;
        }
        let mut missing = self.missing();
        for kind in lacking.iter().filter(|kind| lacks(&discovery, kind)) {
            if due {
                missing.absent(kind, now);
            }
            if let Some(set) = set {
                missing.wants(kind, set);
            }
        }
        drop(missing);
        Ok(discovery)
    }

    /// The same for kinds in any version.
    pub(crate) async fn discovery_of(
        &self,
        kinds: impl IntoIterator<Item = &GroupKind>,
    ) -> Result<Arc<Discovery>, EngineError> {
        let kinds: Vec<Gvk> = kinds.into_iter().map(any_version).collect();
        self.discovery_with(kinds.into_iter(), None).await
    }

    /// Whether the cluster does not have a kind any more, so that it has no objects of it. While that
    /// is not sure, it is not said.
    pub(crate) async fn is_gone(&self, kind: &GroupKind, discovery: &Discovery) -> bool {
        let key = any_version(kind);
        if !lacks(discovery, &key) || discovery.is_unknown(&kind.group) {
            return false;
        }
        let (gone, ask) = {
            let mut missing = self.missing();
            let gone = missing.kinds.get(&key).is_some_and(|absent| absent.gone);
            (gone, !gone && missing.may_be_gone(&key, Instant::now()))
        };
        if !ask {
            return gone;
        }
        match self.is_defined(kind).await {
            Ok(true) => {
                if let Some(absent) = self.missing().kinds.get_mut(&key) {
                    absent.defined = true;
                }
                false
            }
            Ok(false) => {
                if let Some(absent) = self.missing().kinds.get_mut(&key) {
                    absent.gone = true;
                }
                true
            }
            Err(error) => {
                tracing::warn!(%kind, %error, "cannot tell whether a kind is defined");
                false
            }
        }
    }

    /// Whether a kind has been missing for longer than a moment although it has a definition.
    pub(crate) fn is_only_defined(&self, kind: &GroupKind) -> bool {
        self.missing().kinds.get(&any_version(kind)).is_some_and(|absent| absent.defined)
    }

    /// How long until a kind that was found missing just now can count as gone.
    pub(crate) fn confirms(&self, kind: &GroupKind) -> Option<Duration> {
        let missing = self.missing();
        let absent = missing.kinds.get(&any_version(kind)).filter(|absent| !absent.gone)?;
        let end = absent.since + CONFIRM;
        Some(end.max(absent.next).saturating_duration_since(Instant::now()))
    }

    /// Whether there is a definition of a kind that is not served, and that is not on its way out.
    async fn is_defined(&self, kind: &GroupKind) -> Result<bool, ApiError> {
        let (version, name, plural) = DEFINITIONS;
        let definitions = Resource::known(Gvk::new(version, name), plural, false);
        let (found, _) = self.cluster.list(&definitions, "", None).await?;
        let names = names_of(kind, self.missing().plurals.get(kind));
        Ok(found
            .iter()
            .any(|(key, live)| !live.terminating && names.iter().any(|name| key.name == *name)))
    }

    /// Other kinds may be served than before: the next run that needs to know looks.
    pub async fn look_at_kinds_again(&self) {
        self.forget_discovery().await;
        self.missing().look_again(Instant::now());
    }
}

/// What the definition of a kind can be called. The name of its collection is not known when it was not
/// served in the time of this process; most are formed like this.
fn names_of(kind: &GroupKind, plural: Option<&String>) -> Vec<String> {
    if let Some(plural) = plural {
        return vec![format!("{plural}.{}", kind.group)];
    }
    let one = kind.kind.to_lowercase();
    let mut names = vec![format!("{one}s"), format!("{one}es"), one.clone()];
    names.extend(one.strip_suffix('y').map(|stem| format!("{stem}ies")));
    names.into_iter().map(|name| format!("{name}.{}", kind.group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_is_looked_for_less_and_less_often() {
        let kind = Gvk::new("example.com/v1", "Widget");
        let begun = Instant::now();
        let mut missing = Missing::default();
        let mut looks = Vec::new();
        for second in 0..300 {
            let now = begun + Duration::from_secs(second);
            // A run a second.
            if missing.is_due(&kind, now) {
                looks.push(second);
                assert_eq!(missing.absent(&kind, now), second == 0);
            }
        }
        assert_eq!(looks, [0, 2, 6, 14, 30, 62, 122, 182, 242]);
        missing.wants(&kind, "set");
        let now = begun + Duration::from_mins(5);
        assert!(!missing.is_due(&kind, now));
        assert_eq!(missing.look_again(now), BTreeSet::from(["set".into()]));
        assert!(missing.is_due(&kind, now), "something new is served");
        missing.looked(&Discovery::default());
        assert_eq!(missing.kinds.len(), 1);
        missing.looked(&Discovery::of([Resource::known(kind, "widgets", true)]));
        assert!(missing.kinds.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_for_a_moment_is_not_gone() {
        let custom = Gvk::new("example.com/v1", "Widget");
        let kind = Gvk::new("policy/v1beta1", "PodSecurityPolicy");
        let begun = Instant::now();
        let mut missing = Missing::default();
        missing.absent(&custom, begun);
        assert!(missing.may_be_gone(&custom, begun), "its definition is asked for");
        assert!(!missing.may_be_gone(&kind, begun));
        missing.absent(&kind, begun);
        assert!(!missing.may_be_gone(&kind, begun + CONFIRM - Duration::from_secs(1)));
        assert!(missing.may_be_gone(&kind, begun + CONFIRM));
        assert!(!missing.may_be_gone(&kind, begun + CONFIRM), "asked already");
        missing.absent(&kind, begun + CONFIRM);
        assert!(missing.may_be_gone(&kind, begun + CONFIRM), "after another look");
    }

    #[test]
    fn definitions_are_called_after_their_kind() {
        let names = |kind| names_of(&GroupKind::new("example.com", kind), None);
        assert!(names("Widget").contains(&"widgets.example.com".to_owned()));
        assert!(names("Policy").contains(&"policies.example.com".to_owned()));
        assert!(names("Ingress").contains(&"ingresses.example.com".to_owned()));
        let fish = GroupKind::new("example.com", "Goose");
        assert_eq!(names_of(&fish, Some(&"geese".into())), ["geese.example.com"]);
    }
}
