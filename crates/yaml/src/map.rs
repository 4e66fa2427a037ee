//! Maps whose entries lie beside each other in one vector, sorted by key: the maps of manifests are
//! small and there are many of them.

use std::{iter, slice};

use crate::{Node, Text};

/// A map; the order of keys means nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Map(Vec<Entry>);

impl Map {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a key is, or where it would be.
    fn find(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_str().cmp(key))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key is there.
    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_ok()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.find(key).ok().map(|at| &self.0[at].1)
    }

    /// The value of a key, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.find(key).ok().map(|at| &mut self.0[at].1)
    }

    /// The value of a key, made when it is not there. Takes time by the number of entries when it
    /// is made, unless the key is the last.
    pub fn get_or_insert_with(&mut self, key: &str, make: impl FnOnce() -> Node) -> &mut Node {
        let at = self.find(key).unwrap_or_else(|at| {
            self.put(at, key.into(), make());
            at
        });
        &mut self.0[at].1
    }

    /// Sets the value of a key and gives the old one.
    pub fn insert(&mut self, key: impl Into<Text>, value: Node) -> Option<Node> {
        let key = key.into();
        match self.find(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.put(at, key, value);
                None
            }
        }
    }

    fn put(&mut self, at: usize, key: Text, value: Node) {
        if self.0.len() == self.0.capacity() {
            // By a quarter, since most maps never grow again.
            self.0.reserve_exact(1 + self.0.len() / 4);
        }
        self.0.insert(at, (key, value));
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Node> {
        self.find(key).ok().map(|at| self.0.remove(at).1)
    }

    /// Keeps the entries that are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&Text, &mut Node) -> bool) {
        self.0.retain_mut(|(key, value)| wanted(key, value));
    }

    /// The entries by key.
    pub fn iter(&self) -> Iter<'_> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The entries by key, the values to change.
    pub fn iter_mut(&mut self) -> IterMut<'_> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Text> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values by key.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values by key, to change.
    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Node> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

type Entry = (Text, Node);
type Iter<'m> = iter::Map<slice::Iter<'m, Entry>, fn(&'m Entry) -> (&'m Text, &'m Node)>;
type IterMut<'m> =
    iter::Map<slice::IterMut<'m, Entry>, fn(&'m mut Entry) -> (&'m Text, &'m mut Node)>;

impl<'m> IntoIterator for &'m Map {
    type Item = (&'m Text, &'m Node);
    type IntoIter = Iter<'m>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'m> IntoIterator for &'m mut Map {
    type Item = (&'m Text, &'m mut Node);
    type IntoIter = IterMut<'m>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl IntoIterator for Map {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Into<Text>> FromIterator<(K, Node)> for Map {
    /// Of equal keys the last wins.
    fn from_iter<I: IntoIterator<Item = (K, Node)>>(entries: I) -> Self {
        let mut entries: Vec<Entry> =
            entries.into_iter().map(|(key, value)| (key.into(), value)).collect();
        if !entries.is_sorted_by(|(a, _), (b, _)| a < b) {
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            entries.dedup_by(|later, earlier| {
                let equal = later.0 == earlier.0;
                if equal {
                    std::mem::swap(&mut later.1, &mut earlier.1);
                }
                equal
            });
        }
        entries.shrink_to_fit();
        Self(entries)
    }
}

impl<K: Into<Text>, const N: usize> From<[(K, Node); N]> for Map {
    fn from(entries: [(K, Node); N]) -> Self {
        entries.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_node_is_four_words() {
        assert_eq!(size_of::<Node>(), 32);
    }

    #[test]
    fn does_what_a_tree_does() {
        let seed = 11;
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let node = |n: u8| Node::string(n.to_string());
        let (mut map, mut tree) = (Map::new(), BTreeMap::<String, Node>::new());
        for round in 0..4000 {
            let key = format!("k{}", random.u8(0..20));
            let value = node(random.u8(..));
            match random.u8(0..5) {
                0 => assert_eq!(map.insert(key.as_str(), value.clone()), tree.insert(key, value)),
                1 => assert_eq!(map.remove(&key), tree.remove(&key)),
                2 => {
                    let made = map.get_or_insert_with(&key, || value.clone()).clone();
                    assert_eq!(made, *tree.entry(key).or_insert(value));
                }
                3 => assert_eq!(map.get(&key), tree.get(&key)),
                _ if round % 50 == 0 => {
                    let list: Vec<(String, Node)> = (0..random.u8(0..30))
                        .map(|i| (format!("k{}", random.u8(0..20)), node(i)))
                        .collect();
                    map = list.iter().cloned().collect();
                    tree = list.into_iter().collect();
                }
                _ => assert_eq!(map.contains_key(&key), tree.contains_key(&key)),
            }
            assert!(map.keys().eq(tree.keys()) && map.values().eq(tree.values()));
        }
    }
}
