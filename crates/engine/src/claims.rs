//! Which set wants which object. What one set lets go of and another one asks for changes hands: it
//! is neither deleted nor fought over.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use plumb_core::ObjectKey;

use crate::applyset::ApplySet;

/// What a run asks about the other sets of its caller.
pub trait Others: Sync {
    /// This set has just said what it wants.
    fn spoken(&self);
    /// Whether the set with this field manager has yet to say what it wants of what is newest.
    fn is_silent(&self, manager: &str) -> bool;
    /// Whether any set that may want what this one lets go has yet to say so.
    fn any_silent(&self) -> bool;
    /// Whether there still is time to wait for others.
    fn is_patient(&self) -> bool;
}

/// What each set asked for last.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    sets: HashMap<Arc<str>, Wants>,
}

#[derive(Debug)]
struct Wants {
    manager: String,
    keys: HashSet<ObjectKey>,
}

impl Claims {
    /// A set says what it wants. When that is not all, it may still want what it did before.
    /// Returns what it wants no more.
    pub(crate) fn publish(
        &mut self,
        set: &ApplySet,
        mut keys: HashSet<ObjectKey>,
        all: bool,
    ) -> Vec<ObjectKey> {
        let before = self.sets.remove(&*set.id).map(|wants| wants.keys).unwrap_or_default();
        let freed = if all {
            before.into_iter().filter(|key| !keys.contains(key)).collect()
        } else {
            keys.extend(before);
            Vec::new()
        };
        let wants = Wants { manager: set.manager.clone(), keys };
        self.sets.insert(set.id.as_str().into(), wants);
        freed
    }

    /// The set is no more.
    pub(crate) fn forget(&mut self, set: &str) {
        self.sets.remove(set);
    }

    /// The sets that want an object.
    pub(crate) fn wanting(&self, key: &ObjectKey) -> BTreeSet<Arc<str>> {
        let wanting = self.sets.iter().filter(|(_, wants)| wants.keys.contains(key));
        wanting.map(|(set, _)| Arc::clone(set)).collect()
    }

    /// Whether another set wants an object.
    pub(crate) fn others_want(&self, set: &str, key: &ObjectKey) -> bool {
        self.sets.iter().any(|(other, wants)| **other != *set && wants.keys.contains(key))
    }

    /// The field manager of a set that is known not to want an object.
    pub(crate) fn lets_go(&self, set: &str, key: &ObjectKey) -> Option<String> {
        let wants = self.sets.get(set).filter(|wants| !wants.keys.contains(key))?;
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
    fn a_set_lets_go_of_what_it_no_longer_asks_for() {
        let (one, two) = (set("one"), set("two"));
        let [x] = keys(&["x"]).into_iter().collect::<Vec<_>>().try_into().unwrap();
        let mut claims = Claims::default();
        assert_eq!(claims.lets_go(&one.id, &x), None, "it may want anything");
        assert!(claims.publish(&one, keys(&["x", "y"]), true).is_empty());
        assert_eq!(claims.lets_go(&one.id, &x), None);
        claims.publish(&two, keys(&["x"]), true);
        assert!(claims.others_want(&one.id, &x) && claims.others_want(&two.id, &x));
        assert_eq!(claims.wanting(&x).len(), 2);

        // What it cannot tell as a whole it may still want.
        assert!(claims.publish(&one, keys(&["y"]), false).is_empty());
        assert_eq!(claims.lets_go(&one.id, &x), None);
        let freed = claims.publish(&one, keys(&["y"]), true);
        assert!(freed.len() == 1 && freed[0] == x);
        assert_eq!(claims.lets_go(&one.id, &x), Some("plumb:ns/one".into()));
        assert!(!claims.others_want(&two.id, &x));

        claims.forget(&one.id);
        assert_eq!(claims.lets_go(&one.id, &x), None);
    }
}
