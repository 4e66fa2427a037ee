//! Directories as they were read last, shared by all snapshots.
//!
//! A repository of a thousand applications has a thousand folders in its root, and each of them is
//! reached through it: without this the root would be unpacked and hashed anew for each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use git2::{Oid, Tree};

/// What all listings that are kept may take: the roots of some dozens of repositories of a thousand
/// folders each. One that is larger than this is kept alone.
const ROOM: usize = 1 << 20;

/// What an entry takes beside its name, as near as need be.
const ENTRY: usize = size_of::<Item>();

/// The entries of one directory.
#[derive(Debug)]
pub(crate) struct Listing {
    names: Vec<u8>,
    /// Sorted by name.
    items: Vec<Item>,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    begin: u32,
    end: u32,
    mode: i32,
    id: Oid,
}

impl Listing {
    pub(crate) fn of(tree: &Tree<'_>) -> Self {
        let mut listing = Self { names: Vec::new(), items: Vec::with_capacity(tree.len()) };
        let end = |names: &Vec<u8>| u32::try_from(names.len()).unwrap_or(u32::MAX);
        for entry in tree {
            let begin = end(&listing.names);
            listing.names.extend_from_slice(entry.name_bytes());
            let end = end(&listing.names);
            listing.items.push(Item { begin, end, mode: entry.filemode(), id: entry.id() });
        }
        let Self { names, items } = &mut listing;
        // Git sorts directories as if their names ended in a slash.
        items.sort_by(|a, b| name_of(names, a).cmp(name_of(names, b)));
        listing
    }

    /// The mode and the object of a name.
    pub(crate) fn get(&self, name: &[u8]) -> Option<(i32, Oid)> {
        let at = self.items.partition_point(|item| name_of(&self.names, item) < name);
        let item = self.items.get(at).filter(|item| name_of(&self.names, item) == name)?;
        Some((item.mode, item.id))
    }

    /// All entries, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], i32, Oid)> {
        self.items.iter().map(|item| (name_of(&self.names, item), item.mode, item.id))
    }

    fn size(&self) -> usize {
        self.names.len() + self.items.len() * ENTRY
    }
}

fn name_of<'n>(names: &'n [u8], item: &Item) -> &'n [u8] {
    // A directory beyond 4 GiB would have been refused long before.
    names.get(item.begin as usize..item.end as usize).unwrap_or_default()
}

/// Which mirror a listing was read from: what one repository says an object is, says nothing of
/// another one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place(u64);

impl Place {
    /// One that nobody else has.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The listings that were used last.
#[derive(Debug, Default)]
pub(crate) struct Listings(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    all: HashMap<(Place, Oid), (Arc<Listing>, u64)>,
    bytes: usize,
    uses: u64,
}

impl Listings {
    /// A listing that is kept, or the one that is read now.
    pub(crate) fn get<E>(
        &self,
        place: Place,
        id: Oid,
        read: impl FnOnce() -> Result<Listing, E>,
    ) -> Result<Arc<Listing>, E> {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = kept().find(place, id) {
            return Ok(listing);
        }
        // Not while all others wait.
        let listing = Arc::new(read()?);
        kept().put(place, id, &listing);
        Ok(listing)
    }
}

impl Kept {
    fn find(&mut self, place: Place, id: Oid) -> Option<Arc<Listing>> {
        self.uses += 1;
        let (listing, used) = self.all.get_mut(&(place, id))?;
        *used = self.uses;
        Some(Arc::clone(listing))
    }

    fn put(&mut self, place: Place, id: Oid, listing: &Arc<Listing>) {
        self.bytes += listing.size() + ENTRY;
        if let Some((before, _)) = self.all.insert((place, id), (Arc::clone(listing), self.uses)) {
            self.bytes -= before.size() + ENTRY;
        }
        if self.bytes <= ROOM {
            return;
        }
        // Half of them at once, so that this is not done again for the next.
        let mut uses: Vec<u64> = self.all.values().map(|(_, used)| *used).collect();
        uses.sort_unstable();
        let middle = uses[uses.len() / 2];
        self.all.retain(|key, (_, used)| *used > middle || *key == (place, id));
        self.bytes = self.all.values().map(|(listing, _)| listing.size() + ENTRY).sum();
    }
}

#[cfg(test)]
mod tests {
    use git2::{ObjectType, Repository};

    use super::*;

    fn listing(repo: &Repository, names: &[(&str, i32)]) -> Listing {
        let blob = repo.blob(b"content").unwrap();
        let mut tree = repo.treebuilder(None).unwrap();
        for (name, mode) in names {
            let id = match mode {
                0o040_000 => repo.treebuilder(None).unwrap().write().unwrap(),
                _ => blob,
            };
            tree.insert(name, id, *mode).unwrap();
        }
        Listing::of(&repo.find_tree(tree.write().unwrap()).unwrap())
    }

    #[test]
    fn names_are_found_whatever_git_sorts_them_by() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init_bare(dir.path()).unwrap();
        let names = [("a", 0o040_000), ("a-b", 0o100_644), ("a.b", 0o120_000), ("ab", 0o100_755)];
        let listing = listing(&repo, &names);
        for (name, mode) in names {
            assert_eq!(listing.get(name.as_bytes()).unwrap().0, mode, "{name}");
        }
        for name in ["", "A", "a/", "b"] {
            assert_eq!(listing.get(name.as_bytes()), None, "{name}");
        }
        let all: Vec<_> = listing.iter().map(|(name, mode, _)| (name.to_vec(), mode)).collect();
        assert_eq!(all, names.map(|(name, mode)| (name.as_bytes().to_vec(), mode)));
    }

    #[test]
    fn a_listing_is_read_once_for_each_mirror_and_what_is_not_used_goes() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init_bare(dir.path()).unwrap();
        let large: Vec<_> = (0..500).map(|number| format!("a-long-name-{number}")).collect();
        let large: Vec<_> = large.iter().map(|name| (&**name, 0o100_644)).collect();
        let listings = Listings::default();
        let (one, other) = (Place::new(), Place::new());
        let mut reads = 0;
        let mut get = |place, id| {
            let read = || {
                reads += 1;
                Ok::<_, ()>(listing(&repo, &large))
            };
            listings.get(place, id, read).unwrap();
        };
        let id = |number: usize| {
            Oid::hash_object(ObjectType::Blob, number.to_string().as_bytes()).unwrap()
        };
        get(one, id(0));
        get(one, id(0));
        get(other, id(0));
        for number in 0..1000 {
            get(one, id(number));
            get(other, id(0));
        }
        assert_eq!(reads, 1001);
        let kept = listings.0.lock().unwrap();
        assert!(kept.bytes <= ROOM && kept.all.len() > 20, "{} {}", kept.bytes, kept.all.len());
    }
}
