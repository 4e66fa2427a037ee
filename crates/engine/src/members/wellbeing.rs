//! How objects are, as far as their watches told.

use std::collections::HashSet;
use std::sync::Arc;

use plumb_core::{GroupKind, ObjectKey};
use plumb_health::Health;
use smol_str::SmolStr;

use super::{KindState, Members, Slot};
use crate::applyset::ApplySet;
use crate::attention::{Asking, Told, Unready, Wellbeing};
use crate::marks::Ssa;

/// What is told of an object that may quote a Secret's value: it holds one, is a Pod beside one that does,
/// or nobody has said whether it does.
pub const HIDDEN: &str = "why is not told here, since it may quote a value of a Secret";

impl Slot {
    /// What was told of the object as it is now: a verdict on what it was before our last request
    /// changed it says nothing.
    fn told_now(&self) -> Option<&Told> {
        let version = self.live.as_ref()?.resource_version;
        self.told.as_deref().filter(|told| told.version >= version)
    }
}

impl Members {
    /// What was told of an object as it is now.
    pub(crate) fn told(&self, key: &ObjectKey) -> Option<&Told> {
        self.objects.get(key)?.told_now()
    }

    /// Whether anything was ever told of an object.
    pub(crate) fn was_told(&self, key: &ObjectKey) -> bool {
        self.objects.get(key).is_some_and(|slot| slot.told.is_some())
    }

    /// The watch tells how an object is, or that nobody asks. `before` is what was told before this
    /// event. Returns the set for which that is news.
    pub(crate) fn tell(
        &mut self,
        key: &ObjectKey,
        told: Option<Box<Told>>,
        before: Option<&Told>,
    ) -> Option<Arc<str>> {
        let slot = self.objects.get_mut(key)?;
        // How it was before it goes says whether it was done.
        let goes = slot.live.as_ref().is_some_and(|live| live.terminating);
        if !goes {
            slot.told = told.filter(|_| slot.live.is_some());
        }
        let what = |told: &Told| (told.number, told.health, told.reason.clone(), told.is_final);
        let now = slot.told_now();
        if now.map(what) == before.map(what) {
            return None;
        }
        if !goes {
            now?;
        }
        slot.live.as_ref()?.part_of.as_deref().map(Into::into)
    }

    /// Whether all live objects of a set and a kind that are asked about were judged by these rules.
    pub(crate) fn is_judged(&self, set: &str, kind: &GroupKind, asking: &Asking) -> bool {
        let keys = self.sets.get(set).into_iter().flatten();
        keys.filter(|key| key.group_kind == *kind && asking.minds(key)).all(|key| {
            let Some(slot) = self.objects.get(key) else { return true };
            slot.live.as_ref().is_none_or(|live| live.part_of.as_deref() != Some(set))
                || slot.told.as_ref().is_some_and(|told| told.number == asking.number)
        })
    }

    /// Which of a set's objects hold values of Secrets. What they say may quote one.
    pub(crate) fn note_secret(&mut self, set: &str, keys: HashSet<ObjectKey>) {
        self.secret.insert(set.into(), keys);
    }

    /// The set is no more.
    pub(crate) fn forget_set(&mut self, set: &str) {
        self.secret.remove(set);
        self.expiring.remove(set);
        self.forget_witness(set);
    }

    /// Whether an object, which is labelled as of a set, may quote a value of a Secret, as far as is
    /// known. Of a set that did not say what it has put where, any may.
    pub(crate) fn may_quote(&self, key: &ObjectKey, set: Option<&str>) -> bool {
        set.is_some_and(|set| !self.secret.contains_key(set))
            || self.secret.values().any(|keys| keys.contains(key))
            || is_pod(key) && self.pods_may_quote(&key.namespace)
    }

    /// Whether Pods of a namespace may quote a value of a Secret that somebody put into a ConfigMap there,
    /// as far as is known: any of them may be given that.
    pub(crate) fn pods_may_quote(&self, namespace: &str) -> bool {
        let holds = |key: &ObjectKey| key.namespace == namespace && is_core(key, "ConfigMap");
        let mut unsaid = self.sets.iter().filter(|(set, _)| !self.secret.contains_key(*set));
        self.secret.values().flatten().any(holds)
            || unsaid.any(|(_, keys)| keys.iter().any(|key| holds(key)))
    }

    /// How the objects are that a set applied and asks about. What is left alone is not minded, nor the
    /// set's own parent, which cannot be ready before them.
    pub(crate) fn wellbeing(&self, set: &ApplySet, asking: &Asking) -> Wellbeing {
        let mut wellbeing = Wellbeing::default();
        let mut count = |key: &ObjectKey, slot: &Slot| {
            wellbeing.total += 1;
            wellbeing.unready.extend(self.judge(key, slot, set, asking));
        };
        let mut others = Vec::new();
        for named in &*asking.asks.named {
            let bare = ObjectKey { namespace: SmolStr::default(), ..named.clone() };
            let mut found = [named, &bare].into_iter().filter_map(|key| {
                let slot = self.minded(key, set)?;
                Some((key, slot))
            });
            match found.next() {
                Some((key, slot)) if !asking.asks.all => count(key, slot),
                None if !is_parent(named, set) => others.push(named.clone()),
                _ => {}
            }
        }
        if asking.asks.all {
            for key in self.sets.get(&*set.id).into_iter().flatten() {
                self.minded(key, set).into_iter().for_each(|slot| count(key, slot));
            }
        }
        wellbeing.others = others;
        wellbeing.sort();
        wellbeing
    }

    /// Whether an object of a set holds values of Secrets. Of a set that did not say so of any, all may.
    fn is_secret(&self, key: &ObjectKey, set: &str) -> bool {
        self.secret.get(set).is_none_or(|keys| keys.contains(key))
            || is_pod(key) && self.pods_may_quote(&key.namespace)
    }

    /// What is known of an object, if it counts as one that the set applied.
    fn minded(&self, key: &ObjectKey, set: &ApplySet) -> Option<&Slot> {
        let slot = self.objects.get(key)?;
        let marks = slot.live.as_ref().map(|live| live.marks).unwrap_or_default();
        let left_alone = marks.hands_off() || marks.ssa == Ssa::IfNotPresent;
        let counts = !left_alone && !is_parent(key, set) && self.is_verified_for(key, &set.id);
        counts.then_some(slot)
    }

    /// What there is to say of one of the set's objects, unless it is ready.
    fn judge(
        &self,
        key: &ObjectKey,
        slot: &Slot,
        set: &ApplySet,
        asking: &Asking,
    ) -> Option<Unready> {
        let unready = |health, reason: &str, is_final, is_seen| {
            let (key, reason) = (key.clone(), reason.to_owned());
            Some(Unready { key, health, reason, is_final, is_seen, pods: None })
        };
        match (&slot.live, slot.told_now()) {
            // How it ended was told before it went, and nobody can judge it by other rules any more.
            _ if self.has_expired(key, &set.id) => {
                let told = slot.told.as_deref()?;
                let reason = if self.is_secret(key, &set.id) { HIDDEN } else { &*told.reason };
                (!told.health.is_ready())
                    .then(|| unready(told.health, reason, told.is_final, true))?
            }
            (None, _) => unready(Health::Missing, "it is not there", false, true),
            (Some(live), _) if live.terminating => {
                unready(Health::Progressing, "it is being deleted", false, true)
            }
            _ if !asking.reads(&key.group_kind) => None,
            (_, Some(told)) if told.number == asking.number => {
                let Told { health, reason, is_final, pods, .. } = told;
                if health.is_ready() {
                    return None;
                }
                if self.is_secret(key, &set.id) {
                    return unready(*health, HIDDEN, *is_final, true);
                }
                let told = unready(*health, reason, *is_final, true)?;
                Some(Unready { pods: pods.clone(), ..told })
            }
            _ => match self.kind(&key.group_kind) {
                Some(KindState::Failed(why)) => {
                    unready(Health::Unknown, &format!("it cannot be read: {why}"), false, false)
                }
                _ => unready(Health::Progressing, "nothing is known of it yet", false, false),
            },
        }
    }
}

fn is_parent(key: &ObjectKey, set: &ApplySet) -> bool {
    key.group_kind == set.parent && key.namespace == set.namespace && key.name == set.name
}

fn is_core(key: &ObjectKey, kind: &str) -> bool {
    key.group_kind.group.is_empty() && key.group_kind.kind == kind
}

fn is_pod(key: &ObjectKey) -> bool {
    is_core(key, "Pod")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MANAGER, with};
    use super::*;
    use crate::live::Live;

    const NUMBER: u64 = 3;

    fn set() -> ApplySet {
        ApplySet::new(GroupKind::new("plumb.dev", "Application"), "ns", "app")
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(GroupKind::new("apps", "Deployment"), "ns", name)
    }

    fn live(version: u64) -> Live {
        with(version, |live| live.part_of = Some(set().id.into()))
    }

    fn told(version: u64, health: Health, reason: &str) -> Told {
        let is_final = reason == "for good";
        let pods = (!health.is_ready()).then(|| "app=a".into());
        Told { version, number: NUMBER, health, reason: reason.into(), is_final, pods }
    }

    fn asking() -> Asking {
        Asking::of(NUMBER, &[GroupKind::new("apps", "Deployment")])
    }

    /// One object that is applied, and what was told of it in this order: versions and states.
    fn members(tells: &[(u64, Health)]) -> (Members, usize) {
        let mut members = Members::default();
        members.expect(&key("a").group_kind);
        members.note_secret(&set().id, HashSet::new());
        members.verified(&set().id, MANAGER, &key("a"), live(10), 42);
        let mut news = 0;
        for (version, health) in tells {
            let before = members.told(&key("a")).cloned();
            members.changed(key("a"), live(*version));
            let told = told(*version, *health, "because");
            news +=
                usize::from(members.tell(&key("a"), Some(told.into()), before.as_ref()).is_some());
        }
        (members, news)
    }

    /// A controller that takes away what is done lets it be on its way out for a moment.
    #[test]
    fn what_goes_by_itself_counts_as_it_ended() {
        use Health::{Degraded, Healthy, Progressing, Suspended};
        for (told_last, expired, ready) in [
            (Some(Healthy), true, true),
            (Some(Degraded), true, false),
            (Some(Progressing), false, false),
            (Some(Suspended), false, false),
            (None, true, true),
        ] {
            let tells: Vec<_> = told_last.iter().map(|health| (11, *health)).collect();
            let (mut members, _) = members(&tells);
            let state = |members: &Members| {
                let wellbeing = members.wellbeing(&set(), &asking());
                (members.has_expired(&key("a"), &set().id), wellbeing.is_ready())
            };
            members.note_expiring(&set().id, HashSet::from([key("a")]));
            assert!(!members.has_expired(&key("a"), &set().id), "it is there");
            let before = members.told(&key("a")).cloned();
            members.changed(key("a"), Live { terminating: true, ..live(12) });
            let going = Some(told(12, Progressing, "it is being deleted").into());
            let news = members.tell(&key("a"), going, before.as_ref());
            assert_eq!(news.is_some(), told_last.is_some(), "{told_last:?}");
            assert_eq!(state(&members), (expired, ready), "{told_last:?}, on its way out");
            members.deleted(&key("a"), &live(13));
            assert_eq!(state(&members), (expired, ready), "{told_last:?}, gone");
            members.note_expiring(&set().id, HashSet::new());
            assert_eq!(state(&members), (false, false), "{told_last:?}, of another kind");
        }
    }

    /// Neither other rules nor another process make a failure good.
    #[test]
    fn what_went_by_itself_stays_as_it_ended() {
        use Health::{Degraded, Healthy, Unknown};
        let later = || Asking::of(NUMBER + 1, &[key("a").group_kind]);
        let told = |members: &Members| {
            let unready = members.wellbeing(&set(), &later()).unready;
            unready.first().map(|one| (one.health, one.reason.clone(), one.is_final))
        };
        for (health, unready) in
            [(Healthy, None), (Degraded, Some((Degraded, "because".to_owned(), false)))]
        {
            let (mut members, _) = members(&[(11, health)]);
            members.note_expiring(&set().id, HashSet::from([key("a")]));
            members.deleted(&key("a"), &live(12));
            assert_eq!(told(&members), unready);
        }
        for recorded in [None, Some((Degraded, "it failed")), Some((Unknown, "nobody knows"))] {
            let mut members = Members::default();
            members.note_secret(&set().id, HashSet::new());
            members.note_expiring(&set().id, HashSet::from([key("a")]));
            let recorded = recorded.map(|(health, why)| (health, why.to_owned()));
            members.note_expired(&set().id, MANAGER, &key("a"), 42, recorded.clone());
            assert!(members.has_expired(&key("a"), &set().id), "{recorded:?}");
            assert_eq!(members.wellbeing(&set(), &later()).total, 1);
            let unready = recorded.map(|(health, why)| (health, why, true));
            assert_eq!(told(&members), unready);
        }
    }

    #[test]
    fn a_verdict_counts_for_what_was_applied_last() {
        use Health::{Healthy, Progressing, Suspended};
        for (tells, is_ready, news) in [
            (&[][..], false, 0),
            (&[(9, Healthy)], false, 0),
            // The event of our own answer.
            (&[(10, Healthy)], true, 1),
            (&[(10, Progressing), (11, Progressing), (12, Healthy), (13, Healthy)], true, 2),
            (&[(11, Healthy), (12, Progressing)], false, 2),
            (&[(11, Suspended)], true, 1),
        ] {
            let (members, told) = members(tells);
            let wellbeing = members.wellbeing(&set(), &asking());
            assert_eq!(
                (wellbeing.total, wellbeing.is_ready(), told),
                (1, is_ready, news),
                "{tells:?}"
            );
        }
        // It is applied again, and what was told is about what it was.
        let (mut members, _) = members(&[(11, Healthy)]);
        members.verified(&set().id, MANAGER, &key("a"), live(12), 43);
        let unready = members.wellbeing(&set(), &asking()).unready;
        assert!(!unready[0].is_seen && unready[0].reason == "nothing is known of it yet");
        let before = members.told(&key("a")).cloned();
        members.changed(key("a"), live(12));
        let news = members.tell(&key("a"), Some(told(12, Healthy, "").into()), before.as_ref());
        assert_eq!(news.as_deref(), Some(&*set().id));
        assert!(members.wellbeing(&set(), &asking()).is_ready());
        // By rules that are not those of the set any more.
        assert!(
            !members.wellbeing(&set(), &Asking::of(NUMBER + 1, &[key("a").group_kind])).is_ready()
        );
        let later = Asking::of(NUMBER + 1, &[key("a").group_kind]);
        assert!(members.is_judged(&set().id, &key("a").group_kind, &asking()));
        assert!(!members.is_judged(&set().id, &key("a").group_kind, &later));
        assert!(members.is_judged(&set().id, &key("a").group_kind, &later.about(&[key("b")])));
    }

    #[test]
    fn what_is_not_ready_is_told_the_worst_first() {
        let mut members = Members::default();
        members.expect(&key("a").group_kind);
        for (name, health, reason) in [
            ("a", Health::Progressing, "slow"),
            ("b", Health::Degraded, "broken"),
            ("c", Health::Degraded, "for good"),
            ("d", Health::Healthy, ""),
        ] {
            members.verified(&set().id, MANAGER, &key(name), live(10), 42);
            members.tell(&key(name), Some(told(10, health, reason).into()), None);
        }
        // Gone, going, left alone, and not asked for.
        members.verified(&set().id, MANAGER, &key("e"), live(10), 42);
        members.deleted(&key("e"), &live(11));
        let going = Live { terminating: true, ..live(10) };
        members.verified(&set().id, MANAGER, &key("f"), going, 42);
        let mut left = live(10);
        left.marks.leave = true;
        members.verified(&set().id, MANAGER, &key("g"), left, 42);
        members.changed(key("h"), live(10));
        let found = members.wellbeing(&set(), &asking());
        let names: Vec<_> = found.unready.iter().map(|unready| &*unready.key.name).collect();
        assert_eq!((found.total, names), (6, vec!["c", "b", "e", "a", "f"]));
        assert!(found.unready[0].is_final && !found.unready[1].is_final);
        // Kinds whose objects work by being there.
        let found = members.wellbeing(&set(), &Asking::of(NUMBER, &[]));
        let names: Vec<_> = found.unready.iter().map(|unready| &*unready.key.name).collect();
        assert_eq!((found.total, names), (6, vec!["e", "f"]));
    }

    #[test]
    fn what_an_object_with_a_value_of_a_secret_says_is_not_told() {
        let (mut members, _) = members(&[(11, Health::Degraded)]);
        let told = |members: &Members| members.wellbeing(&set(), &asking()).unready.remove(0);
        let reason = |members: &Members| told(members).reason;
        assert_eq!(reason(&members), "because");
        assert_eq!(told(&members).pods.as_deref(), Some("app=a"));
        members.note_secret(&set().id, HashSet::from([key("a")]));
        assert_eq!(reason(&members), HIDDEN);
        assert_eq!(told(&members).pods, None, "nor what its Pods say");
        // It is deleted and made again, as what cannot be changed, and nothing else is the set's.
        members.gone(&key("a"), &live(11).uid);
        members.verified(&set().id, MANAGER, &key("a"), live(12), 43);
        members.changed(key("a"), live(12));
        let again = super::super::wellbeing::tests::told(12, Health::Degraded, "because");
        members.tell(&key("a"), Some(again.into()), None);
        assert_eq!(reason(&members), HIDDEN, "it was made again");
        let other = Some("of another set");
        assert!(members.may_quote(&key("a"), None), "whoever asks");
        assert!(members.may_quote(&key("b"), other), "nobody knows");
        members.note_secret("of another set", HashSet::new());
        assert!(!members.may_quote(&key("b"), other) && !members.may_quote(&key("b"), None));
        members.note_secret(&set().id, HashSet::new());
        assert_eq!(reason(&members), "because");
        assert!(!members.may_quote(&key("a"), None));
    }

    #[test]
    fn pods_may_quote_what_a_config_map_of_their_namespace_holds() {
        let mut members = Members::default();
        let of =
            |kind: &str, namespace: &str| ObjectKey::new(GroupKind::new("", kind), namespace, "a");
        let other = Some("of another set");
        members.note_secret("of another set", HashSet::new());
        for (holds, quotes) in [
            (None, false),
            (Some(of("ConfigMap", "ns")), true),
            (Some(of("ConfigMap", "other")), false),
            // These are not given to Pods as they are.
            (Some(of("Service", "ns")), false),
            (Some(ObjectKey::new(GroupKind::new("example.com", "ConfigMap"), "ns", "a")), false),
        ] {
            members.note_secret(&set().id, holds.iter().cloned().collect());
            assert_eq!(members.pods_may_quote("ns"), quotes, "{holds:?}");
            assert_eq!(members.may_quote(&of("Pod", "ns"), other), quotes, "{holds:?}");
            assert!(!members.may_quote(&key("a"), other), "{holds:?}: of itself it says no more");
        }
        // Nobody knows what stands in this one.
        let label = |live: &mut Live| live.part_of = Some("a third one".into());
        members.expect(&of("ConfigMap", "ns").group_kind);
        members.changed(of("ConfigMap", "ns"), with(10, label));
        assert!(members.pods_may_quote("ns") && !members.pods_may_quote("other"));
        members.note_secret("a third one", HashSet::new());
        assert!(!members.pods_may_quote("ns"));
    }

    #[test]
    fn what_a_pod_of_the_set_says_is_not_told_beside_such_a_config_map() {
        let mut members = Members::default();
        let pod = ObjectKey::new(GroupKind::new("", "Pod"), "ns", "a");
        members.expect(&pod.group_kind);
        members.verified(&set().id, MANAGER, &pod, live(10), 42);
        members.tell(&pod, Some(told(10, Health::Degraded, "because").into()), None);
        let asking = Asking::of(NUMBER, std::slice::from_ref(&pod.group_kind));
        for (kind, reason) in [("Service", "because"), ("ConfigMap", HIDDEN)] {
            let holds = ObjectKey::new(GroupKind::new("", kind), "ns", "a");
            members.note_secret(&set().id, HashSet::from([holds]));
            assert_eq!(members.wellbeing(&set(), &asking).unready[0].reason, reason, "{kind}");
        }
    }

    #[test]
    fn only_what_is_named_counts_where_it_is_and_what_is_not_the_sets_is_told() {
        let mut members = Members::default();
        members.expect(&key("a").group_kind);
        for name in ["a", "b", "left"] {
            members.verified(&set().id, MANAGER, &key(name), live(10), 42);
            members.tell(&key(name), Some(told(10, Health::Progressing, "slow").into()), None);
        }
        let mut left = live(11);
        left.marks.leave = true;
        members.changed(key("left"), left);
        let bare = ObjectKey::new(GroupKind::new("", "Namespace"), "", "a");
        members.verified(&set().id, MANAGER, &bare, live(10), 42);
        let itself = ObjectKey::new(set().parent, "ns", "app");
        let namespace = ObjectKey { namespace: "ns".into(), ..bare };
        let named = [key("a"), key("left"), key("theirs"), namespace, itself];
        let mut asking = asking().about(&named);
        let found = members.wellbeing(&set(), &asking);
        let names: Vec<_> = found.unready.iter().map(|unready| &*unready.key.name).collect();
        assert_eq!((found.total, names), (2, vec!["a"]));
        let others = vec![key("left"), key("theirs")];
        assert_eq!(found.others, others);
        // The same beside all that the set has.
        asking.asks.all = true;
        let mut found = members.wellbeing(&set(), &asking);
        assert_eq!((found.total, found.unready.len(), &found.others), (3, 2, &others));
        let theirs =
            Unready { key: key("theirs"), health: Health::Missing, ..found.unready[0].clone() };
        found.add([None, Some(theirs)]);
        assert_eq!(
            (found.total, found.unready.len(), &*found.unready[0].key.name),
            (5, 3, "theirs")
        );
    }

    #[test]
    fn an_application_does_not_wait_for_itself() {
        let mut members = Members::default();
        let itself = ObjectKey::new(set().parent, "ns", "app");
        members.verified(&set().id, MANAGER, &itself, live(10), 42);
        assert_eq!(members.wellbeing(&set(), &asking()), Wellbeing::default());
    }
}
