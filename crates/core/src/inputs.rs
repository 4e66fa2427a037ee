//! What a render read, so that a new commit renders only what it touched.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::{ContentId, Digest, Entry, EntryKind, Hasher, Purpose, RelPath, Tree, TreeError};

/// What was found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Content was read, or asked for by id.
    Content(ContentId),
    /// A directory was listed: its id, and a digest of the names and kinds in it. Equal ids are
    /// equal all the way down; equal names are enough when the files were recorded one by one.
    Listing(ContentId, Digest),
    /// A directory is there; what is in it did not matter.
    Directory,
    /// Nothing was there, and that mattered.
    Absent,
}

/// The paths a render read, with what it found. A later tree that gives the same answers gives
/// the same render.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs(Box<[(RelPath, Seen)]>);

impl Inputs {
    /// Whether `tree` would give every answer that was given before.
    pub fn unchanged_in(&self, tree: &dyn Tree) -> Result<bool, TreeError> {
        // Sorted by path, so a directory stands before what is below it: once its id is equal,
        // all below is equal too and needs no look.
        let mut same: Option<&RelPath> = None;
        for (path, seen) in &self.0 {
            if same.is_some_and(|dir| path.is_within(dir)) {
                continue;
            }
            let now = tree.entry(path)?;
            let equal = match (seen, now) {
                (Seen::Absent, None) => true,
                (Seen::Content(id), Some(now)) => *id == now.id,
                (Seen::Directory, Some(now)) => now.kind == EntryKind::Directory,
                (Seen::Listing(id, names), Some(now)) if now.kind == EntryKind::Directory => {
                    if *id == now.id {
                        same = Some(path);
                        true
                    } else {
                        *names == names_digest(&tree.list(path)?)
                    }
                }
                _ => false,
            };
            if !equal {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Names these paths and what was found there.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        for (path, seen) in &self.0 {
            hasher.part(path.as_str().as_bytes());
            match seen {
                Seen::Content(id) => hasher.part(b"content").part(&id.0),
                Seen::Listing(_, names) => hasher.part(b"listing").part(names.as_bytes()),
                Seen::Directory => hasher.part(b"directory"),
                Seen::Absent => hasher.part(b"absent"),
            };
        }
        hasher.finish()
    }

    /// The recorded paths, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &(RelPath, Seen)> {
        self.0.iter()
    }

    /// How many paths were recorded.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was recorded; such inputs are never unchanged news.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn names_digest(entries: &[(String, Entry)]) -> Digest {
    let mut hasher = Hasher::new();
    for (name, entry) in entries {
        hasher.part(name.as_bytes()).part(&[entry.kind as u8]);
    }
    hasher.finish()
}

/// A tree that notes each answer it gives.
pub struct Recorder<'t> {
    tree: &'t dyn Tree,
    seen: RefCell<BTreeMap<RelPath, Seen>>,
}

impl<'t> Recorder<'t> {
    /// Records what is read from `tree`.
    pub fn new(tree: &'t dyn Tree) -> Self {
        Self { tree, seen: RefCell::default() }
    }

    /// What was read so far.
    pub fn finish(self) -> Inputs {
        Inputs(self.seen.into_inner().into_iter().collect())
    }

    /// Notes that a directory was listed, by somebody who got the listing from the tree itself.
    pub fn note_list(&self, dir: &RelPath, entries: &[(String, Entry)]) -> Result<(), TreeError> {
        if let Some(entry) = self.tree.entry(dir)? {
            self.note(dir, Seen::Listing(entry.id, names_digest(entries)));
        }
        Ok(())
    }

    fn note(&self, path: &RelPath, seen: Seen) {
        let mut all = self.seen.borrow_mut();
        // A listing says more than that the directory is there.
        if !matches!(all.get(path), Some(Seen::Listing(..))) {
            all.insert(path.clone(), seen);
        }
    }
}

impl Tree for Recorder<'_> {
    /// Notes absences, the content of files, and that a directory is one. Its id is not noted: who
    /// depends on what is in it lists it.
    fn entry(&self, path: &RelPath) -> Result<Option<Entry>, TreeError> {
        let entry = self.tree.entry(path)?;
        match entry {
            None => self.note(path, Seen::Absent),
            Some(Entry { kind: EntryKind::Directory, .. }) => self.note(path, Seen::Directory),
            Some(Entry { id, .. }) => self.note(path, Seen::Content(id)),
        }
        Ok(entry)
    }

    fn list(&self, dir: &RelPath) -> Result<Vec<(String, Entry)>, TreeError> {
        let entries = self.tree.list(dir)?;
        self.note_list(dir, &entries)?;
        Ok(entries)
    }

    fn read(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, TreeError> {
        self.read_for(path, limit, Purpose::Manifest)
    }

    fn read_for(&self, path: &RelPath, limit: u64, purpose: Purpose) -> Result<Vec<u8>, TreeError> {
        if let Some(entry) = self.tree.entry(path)? {
            self.note(path, Seen::Content(entry.id));
        } else {
            self.note(path, Seen::Absent);
        }
        self.tree.read_for(path, limit, purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemTree;

    #[test]
    fn only_what_was_read_counts() {
        let base =
            MemTree::new().file("app/a.yaml", "1").file("app/README.md", "x").file("b/c", "1");
        let recorder = Recorder::new(&base);
        let dir = RelPath::parse("app").unwrap();
        recorder.list(&dir).unwrap();
        recorder.read(&dir.child("a.yaml"), 10).unwrap();
        assert!(recorder.entry(&dir.child(".plumbignore")).unwrap().is_none());
        assert!(recorder.entry(&RelPath::parse("b").unwrap()).unwrap().is_some());
        let inputs = recorder.finish();
        let cases = [
            ("the same", base.clone(), true),
            ("a file elsewhere", base.clone().file("b/c", "2"), true),
            (
                "a new file in a directory that was only looked at",
                base.clone().file("b/d", ""),
                true,
            ),
            ("a file in its place", MemTree::new().file("app/a.yaml", "1").file("b", ""), false),
            ("a file beside that was not read", base.clone().file("app/README.md", "y"), true),
            ("the file that was read", base.clone().file("app/a.yaml", "2"), false),
            ("a new name in the listing", base.clone().file("app/b.yaml", "1"), false),
            ("a file where there was none", base.clone().file("app/.plumbignore", ""), false),
            ("the directory gone", MemTree::new().file("b/c", "1"), false),
        ];
        for (what, tree, want) in cases {
            assert_eq!(inputs.unchanged_in(&tree).unwrap(), want, "{what}");
        }
    }
}
