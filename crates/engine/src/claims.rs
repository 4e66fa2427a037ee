//! Which set wants which object. What one set lets go of and another one asks for changes hands: it
//! is neither deleted nor fought over.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use plumb_core::ObjectKey;

use crate::account::{Account, Stranger};
use crate::applyset::ApplySet;
use crate::policy::Adopt;

/// What a run asks about the other sets of its caller.
pub trait Others: Sync {
    /// This set has just said what it wants.
    fn spoken(&self);
    /// Whether the set with this field manager has yet to say what it wants of what is newest.
    fn is_silent(&self, manager: &str) -> bool;
    /// Whether any set that may want what this one lets go has yet to say so.
    fn any_silent(&self) -> bool;
    /// A set that may want what this one lets go, and cannot say so until a person helps it.
    fn broken(&self) -> Option<String>;
    /// Whether there still is time to wait for others.
    fn is_patient(&self) -> bool;
}

/// What each set asked for last.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    sets: HashMap<Arc<str>, Wants>,
    /// What bears marks to be left alone, and was let go.
    marked: HashSet<ObjectKey>,
    /// Sets that an earlier process worked on. What that one found marked is not known to this one
    /// before it has been through their objects once.
    resumed: HashSet<String>,
}

#[derive(Debug)]
struct Wants {
    manager: String,
    keys: Keys,
    adopt: Adopt,
    /// What bears marks that say that it is not ours, as a claim found out.
    foreign: HashSet<ObjectKey>,
    account: Option<Arc<Account>>,
    /// What its account may not have, as it was asked when another set let it go.
    denied: HashSet<ObjectKey>,
    /// While it does nothing: what it asked for when it last did something. What it has of that stays
    /// its own.
    idle: Option<Keys>,
}

/// Keys in order, in as much room as they take: most sets say the same again and again.
#[derive(Debug, Clone, Default)]
struct Keys(Box<[ObjectKey]>);

impl Keys {
    fn contains(&self, key: &ObjectKey) -> bool {
        self.0.binary_search(key).is_ok()
    }

    fn iter(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.iter()
    }
}

impl From<HashSet<ObjectKey>> for Keys {
    fn from(keys: HashSet<ObjectKey>) -> Self {
        let mut keys: Box<[ObjectKey]> = keys.into_iter().collect();
        keys.sort_unstable();
        Self(keys)
    }
}

impl Claims {
    /// A set says what it wants. When that is not all, it may still want what it did before.
    /// Returns what it wants no more.
    pub(crate) fn publish(
        &mut self,
        set: &ApplySet,
        adopt: Adopt,
        mut keys: HashSet<ObjectKey>,
        all: bool,
    ) -> Vec<ObjectKey> {
        let before = self.sets.get(&*set.id).into_iter();
        let asked = before
            .flat_map(|wants| wants.keys.iter().chain(wants.idle.iter().flat_map(Keys::iter)));
        let left: HashSet<_> = asked.filter(|key| !keys.contains(*key)).cloned().collect();
        let mut freed = Vec::new();
        if all {
            freed.extend(left);
        } else {
            keys.extend(left);
        }
        self.note(set, adopt, keys.into(), None);
        freed
    }

    /// Whether any set wants an object of a kind.
    pub(crate) fn wants_any_of(&self, kind: &plumb_core::GroupKind) -> bool {
        self.sets.values().any(|wants| wants.keys.iter().any(|key| key.group_kind == *kind))
    }

    /// A set that does nothing says what it would want. Of what it has it lets nothing go. Returns what
    /// it would want no more: it may not have it.
    pub(crate) fn publish_idle(
        &mut self,
        set: &ApplySet,
        adopt: Adopt,
        keys: HashSet<ObjectKey>,
    ) -> Vec<ObjectKey> {
        let before = self.sets.get(&*set.id);
        let asked = before.into_iter().flat_map(|wants| wants.keys.iter());
        let freed = asked.filter(|key| !keys.contains(*key)).cloned().collect();
        let had = before.map(|wants| wants.idle.as_ref().unwrap_or(&wants.keys).clone());
        self.note(set, adopt, keys.into(), Some(had.unwrap_or_default()));
        freed
    }

    /// Notes what a set wants. What was found out of that before counts as long as it is wanted, and
    /// what an account may not have as long as it is the same account: a run of another set may be
    /// about to delete it.
    fn note(&mut self, set: &ApplySet, adopt: Adopt, keys: Keys, idle: Option<Keys>) {
        let (mut foreign, mut denied) = match self.sets.remove(&*set.id) {
            Some(before) if before.account == set.account => (before.foreign, before.denied),
            Some(before) => (before.foreign, HashSet::new()),
            None => Default::default(),
        };
        let idle_has = |key: &ObjectKey| idle.as_ref().is_some_and(|idle| idle.contains(key));
        foreign.retain(|key| keys.contains(key) || idle_has(key));
        denied.retain(|key| keys.contains(key));
        let (manager, account) = (set.manager.clone(), set.account.clone());
        let wants = Wants { manager, keys, adopt, foreign, account, denied, idle };
        self.sets.insert(set.id.as_str().into(), wants);
    }

    /// How a set deals with what is there already.
    pub(crate) fn adopt(&self, set: &str) -> Adopt {
        self.sets.get(set).map(|wants| wants.adopt).unwrap_or_default()
    }

    /// Notes whether an object bears another tool's marks.
    pub(crate) fn note_foreign(&mut self, set: &str, key: &ObjectKey, foreign: bool) {
        let Some(wants) = self.sets.get_mut(set) else { return };
        if foreign {
            wants.foreign.insert(key.clone());
        } else {
            wants.foreign.remove(key);
        }
    }

    /// Notes whether an object that no set has bears marks to be left alone. The watches, which see
    /// what is labelled, do not tell that.
    pub(crate) fn note_marked(&mut self, key: &ObjectKey, marked: bool) {
        if marked {
            self.marked.insert(key.clone());
        } else {
            self.marked.remove(key);
        }
    }

    /// An earlier process worked on a set, or that is over: all of it was looked at.
    pub(crate) fn note_resumed(&mut self, set: &str, resumed: bool) {
        if resumed {
            self.resumed.insert(set.to_owned());
        } else {
            self.resumed.remove(set);
        }
    }

    /// Whether an object is looked at before it is claimed. A first claim need not: it is given back
    /// where it met a mark.
    pub(crate) fn looks_first(&self, set: &str, key: &ObjectKey) -> bool {
        self.meets_foreign(set) || self.marked.contains(key) || self.resumed.contains(set)
    }

    /// Whether anything that a set asks for bore another tool's marks when it was last looked at. Then
    /// what else is there most likely does, too: the set moves from one tool to another.
    fn meets_foreign(&self, set: &str) -> bool {
        self.sets.get(set).is_some_and(|wants| !wants.foreign.is_empty())
    }

    /// The set is no more.
    pub(crate) fn forget(&mut self, set: &str) {
        self.sets.remove(set);
        self.resumed.remove(set);
    }

    /// Whatever was said was said to an earlier leader, and may have changed since.
    pub(crate) fn clear(&mut self) {
        self.sets.clear();
        self.marked.clear();
        self.resumed.clear();
    }

    /// The sets that want an object.
    pub(crate) fn wanting(&self, key: &ObjectKey) -> BTreeSet<Arc<str>> {
        let wanting = self.sets.iter().filter(|(_, wants)| wants.keys.contains(key));
        wanting.map(|(set, _)| Arc::clone(set)).collect()
    }

    /// Whether another set wants an object, and is not known not to be let.
    pub(crate) fn others_want(&self, set: &str, key: &ObjectKey) -> bool {
        self.sets.iter().any(|(other, wants)| {
            **other != *set && wants.keys.contains(key) && !wants.denied.contains(key)
        })
    }

    /// The other sets that want one of these objects and act by other accounts than this one.
    pub(crate) fn strangers<'k>(
        &self,
        set: &ApplySet,
        keys: impl Iterator<Item = &'k ObjectKey>,
    ) -> Vec<Stranger> {
        let others = self.sets.iter().filter(|(id, wants)| {
            ***id != *set.id && wants.account.is_some() && wants.account != set.account
        });
        let others: Vec<_> = others.collect();
        if others.is_empty() {
            return Vec::new();
        }
        let mut strangers = Vec::new();
        for key in keys {
            for (id, wants) in others.iter().filter(|(_, wants)| wants.keys.contains(key)) {
                let Some(account) = wants.account.clone() else { continue };
                strangers.push(Stranger { set: Arc::clone(id), account, key: key.clone() });
            }
        }
        strangers
    }

    /// Notes whether a set's account may have an object that it wants.
    pub(crate) fn note_stranger(&mut self, set: &str, key: ObjectKey, may: bool) {
        let Some(wants) = self.sets.get_mut(set) else { return };
        if may {
            wants.denied.remove(&key);
        } else {
            wants.denied.insert(key);
        }
    }

    /// The field manager of a set that is known not to want an object.
    pub(crate) fn lets_go(&self, set: &str, key: &ObjectKey) -> Option<String> {
        let wants = self.sets.get(set)?;
        if wants.idle.is_some() || wants.keys.contains(key) {
            return None;
        }
        Some(wants.manager.clone())
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::GroupKind;

    use super::*;

    fn set(name: &str) -> ApplySet {
        ApplySet::new(GroupKind::new("plumb.dev", "Application"), "ns", name)
    }

    fn keys(names: &[&str]) -> HashSet<ObjectKey> {
        let key = |name: &&str| ObjectKey::new(GroupKind::new("", "ConfigMap"), "ns", name);
        names.iter().map(key).collect()
    }

    #[test]
    fn what_bears_marks_of_another_tool_makes_its_set_careful() {
        let (one, two) = (set("one"), set("two"));
        let [x] = keys(&["x"]).into_iter().collect::<Vec<_>>().try_into().unwrap();
        let mut claims = Claims::default();
        claims.note_foreign(&one.id, &x, true);
        assert!(!claims.meets_foreign(&one.id), "it is no set yet");
        for set in [&one, &two] {
            claims.publish(set, Adopt::IfUnowned, keys(&["x", "y"]), true);
        }
        claims.note_foreign(&one.id, &x, true);
        assert!(claims.meets_foreign(&one.id) && !claims.meets_foreign(&two.id));
        claims.publish(&one, Adopt::IfUnowned, keys(&["x", "y"]), true);
        assert!(claims.meets_foreign(&one.id), "also in the next run");
        claims.publish(&one, Adopt::IfUnowned, keys(&["y"]), true);
        assert!(!claims.meets_foreign(&one.id), "it asks for that no more");
        claims.publish(&one, Adopt::IfUnowned, keys(&["x"]), true);
        claims.note_foreign(&one.id, &x, true);
        claims.note_foreign(&one.id, &x, false);
        assert!(!claims.meets_foreign(&one.id));
    }

    #[test]
    fn what_an_account_may_not_have_it_does_not_get_by_asking_again() {
        let account = |name: &str| Some(Account { namespace: "ns".into(), name: name.into() });
        let (one, two) = (set("one"), set("two").acting_as(account("a")));
        let [x] = keys(&["x"]).into_iter().collect::<Vec<_>>().try_into().unwrap();
        let mut claims = Claims::default();
        for all in [true, false] {
            claims.publish(&two, Adopt::Always, keys(&["x"]), all);
            assert!(claims.others_want(&one.id, &x));
            claims.note_stranger(&two.id, x.clone(), false);
            assert!(!claims.others_want(&one.id, &x));
            claims.publish(&two, Adopt::Always, keys(&["x", "y"]), all);
            assert!(!claims.others_want(&one.id, &x), "while the other one is about to delete it");
            claims.publish_idle(&two, Adopt::Always, keys(&["x"]));
            assert!(!claims.others_want(&one.id, &x));
            claims.note_stranger(&two.id, x.clone(), true);
            assert!(claims.others_want(&one.id, &x));
        }
        claims.note_stranger(&two.id, x.clone(), false);
        let two = set("two").acting_as(account("b"));
        claims.publish(&two, Adopt::Always, keys(&["x"]), true);
        assert!(claims.others_want(&one.id, &x), "nobody asked about this account yet");
    }

    #[test]
    fn a_set_lets_go_of_what_it_no_longer_asks_for() {
        let (one, two) = (set("one"), set("two"));
        let [x] = keys(&["x"]).into_iter().collect::<Vec<_>>().try_into().unwrap();
        let mut claims = Claims::default();
        assert_eq!(claims.lets_go(&one.id, &x), None, "it may want anything");
        assert!(claims.publish(&one, Adopt::IfUnowned, keys(&["x", "y"]), true).is_empty());
        assert_eq!(claims.lets_go(&one.id, &x), None);
        claims.publish(&two, Adopt::IfUnowned, keys(&["x"]), true);
        assert!(claims.others_want(&one.id, &x) && claims.others_want(&two.id, &x));
        assert_eq!(claims.wanting(&x).len(), 2);

        // What it cannot tell as a whole it may still want.
        assert!(claims.publish(&one, Adopt::IfUnowned, keys(&["y"]), false).is_empty());
        assert_eq!(claims.lets_go(&one.id, &x), None);
        let freed = claims.publish(&one, Adopt::IfUnowned, keys(&["y"]), true);
        assert!(freed.len() == 1 && freed[0] == x);
        assert_eq!(claims.lets_go(&one.id, &x), Some("plumb:ns/one".into()));
        assert!(!claims.others_want(&two.id, &x));

        // What does nothing keeps what it has, and says what it would want besides.
        claims.publish_idle(&one, Adopt::IfUnowned, keys(&["z"]));
        assert_eq!(claims.lets_go(&one.id, &x), None);
        let [z] = keys(&["z"]).into_iter().collect::<Vec<_>>().try_into().unwrap();
        assert!(claims.others_want(&two.id, &z));
        let freed = claims.publish_idle(&one, Adopt::IfUnowned, keys(&[]));
        assert!(!claims.others_want(&two.id, &z), "it went elsewhere meanwhile");
        assert_eq!(freed, [z], "whoever has it hears of that");
        let [y] = keys(&["y"]).into_iter().collect::<Vec<_>>().try_into().unwrap();
        let freed = claims.publish(&one, Adopt::IfUnowned, keys(&["z"]), true);
        assert_eq!(freed, [y], "which it asked for before");
        assert_eq!(claims.lets_go(&one.id, &x), Some("plumb:ns/one".into()));

        claims.clear();
        assert_eq!(claims.lets_go(&one.id, &x), None);
        claims.publish(&one, Adopt::IfUnowned, keys(&["y"]), true);
        claims.forget(&one.id);
        assert_eq!(claims.lets_go(&one.id, &x), None);
    }
}
