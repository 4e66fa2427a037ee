//! Who asks for what, to be looked up from both sides.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::Name;

/// What each asker asks for, mostly an Application, and who asks for each thing. A change costs what it
/// changes, however much there is.
#[derive(Debug)]
pub(crate) struct Askers<T, W = Name> {
    of: BTreeMap<W, BTreeSet<T>>,
    by: BTreeMap<T, BTreeSet<W>>,
}

/// What a change came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Turned<T> {
    /// What nobody asked for before.
    pub(crate) came: Vec<T>,
    /// What nobody asks for any more.
    pub(crate) went: Vec<T>,
}

impl<T, W> Default for Askers<T, W> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), by: BTreeMap::new() }
    }
}

impl<T: Ord + Clone, W: Ord + Clone> Askers<T, W> {
    /// It asks for these from now on, and for nothing else.
    pub(crate) fn put(&mut self, who: &W, what: BTreeSet<T>) -> Turned<T> {
        let mut turned = Turned { came: Vec::new(), went: Vec::new() };
        let before = self.of.remove(who).unwrap_or_default();
        for one in before.difference(&what) {
            let Some(askers) = self.by.get_mut(one) else { continue };
            askers.remove(who);
            if askers.is_empty() {
                self.by.remove(one);
                turned.went.push(one.clone());
            }
        }
        for one in what.difference(&before) {
            let askers = self.by.entry(one.clone()).or_default();
            if askers.is_empty() {
                turned.came.push(one.clone());
            }
            askers.insert(who.clone());
        }
        if !what.is_empty() {
            self.of.insert(who.clone(), what);
        }
        turned
    }

    /// Who asks for something.
    pub(crate) fn who<'s>(&'s self, what: &T) -> impl Iterator<Item = &'s W> + use<'s, T, W> {
        self.by.get(what).into_iter().flatten()
    }

    /// Whether anybody asks for it.
    pub(crate) fn is_asked(&self, what: &T) -> bool {
        self.by.contains_key(what)
    }

    /// All that is asked for.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.by.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_as_was_last_said() {
        let mut askers = Askers::default();
        let [web, api] = ["web", "api"].map(|name| Name::new("ns", name));
        let turned = |came: &[u8], went: &[u8]| Turned { came: came.into(), went: went.into() };
        assert_eq!(askers.put(&web, [1, 2].into()), turned(&[1, 2], &[]));
        assert_eq!(askers.put(&api, [2, 3].into()), turned(&[3], &[]));
        assert_eq!(askers.who(&2).collect::<Vec<_>>(), [&api, &web]);
        assert_eq!(askers.put(&web, [1, 2].into()), turned(&[], &[]), "the same again");
        assert_eq!(askers.put(&web, [4].into()), turned(&[4], &[1]), "somebody else asks for 2");
        assert!(askers.is_asked(&2) && !askers.is_asked(&1));
        assert_eq!(askers.all().collect::<Vec<_>>(), [&2, &3, &4]);
        assert_eq!(askers.put(&api, [].into()), turned(&[], &[2, 3]));
        assert_eq!(askers.put(&web, [].into()), turned(&[], &[4]));
        assert!(askers.of.is_empty() && askers.by.is_empty());
    }
}
