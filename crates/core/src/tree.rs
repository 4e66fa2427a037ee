//! Read-only trees of files: what a snapshot is to a renderer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::{Digest, PathError, RelPath};

/// Names content: equal ids mean equal content. For a Git tree this is the object id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub [u8; 20]);

impl ContentId {
    /// An id for content that has none of its own.
    pub fn of(bytes: &[u8]) -> Self {
        let mut id = [0; 20];
        id.copy_from_slice(&Digest::of(bytes).as_bytes()[..20]);
        Self(id)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a name in a tree stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A regular file, executable or not.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; reading it gives its target.
    Symlink,
    /// A Git submodule, whose content is not in this tree.
    Submodule,
}

/// A name's kind and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// What it holds.
    pub id: ContentId,
}

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Nothing has that name, or not of the kind asked for.
    #[error("{0} does not exist")]
    NotFound(RelPath),
    /// The entry is there but is not a directory (for a listing) or a file (for a read).
    #[error("{path} is not a {wanted}")]
    WrongKind {
        /// The entry.
        path: RelPath,
        /// What was asked for: `file` or `directory`.
        wanted: &'static str,
    },
    /// The store behind the tree failed.
    #[error("cannot read {path}")]
    Read {
        /// The entry.
        path: RelPath,
        /// The store's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file is larger than a reader takes.
    #[error("{path} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The file.
        path: RelPath,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file is encrypted and cannot be opened.
    #[error("cannot decrypt {path}: {why}")]
    Sealed {
        /// The file.
        path: RelPath,
        /// Why, in words that follow "cannot decrypt".
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A symbolic link points above the root or in a circle.
    #[error("symbolic link {path} {why}")]
    Link {
        /// The link.
        path: RelPath,
        /// In words that follow the path.
        why: String,
    },
}

/// What a file is read for. It makes a difference where files are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Manifests, patches and the like.
    Manifest,
    /// Data of a Secret, byte for byte.
    Secret,
    /// Data that anybody may read.
    Public,
}

/// A read-only tree of files. Implementations do not follow symbolic links; [`follow`] does.
pub trait Tree {
    /// The entry at a path; the root is a directory. `None` when there is nothing.
    fn entry(&self, path: &RelPath) -> Result<Option<Entry>, TreeError>;

    /// The entries of a directory, sorted by name in byte order.
    fn list(&self, dir: &RelPath) -> Result<Vec<(String, Entry)>, TreeError>;

    /// The content of a file, or the target of a symbolic link. Files larger than `limit` bytes
    /// are refused before they are read.
    fn read(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, TreeError>;

    /// The same, where a tree that opens encrypted files has to know what for.
    fn read_for(&self, path: &RelPath, limit: u64, purpose: Purpose) -> Result<Vec<u8>, TreeError> {
        let _ = purpose;
        self.read(path, limit)
    }
}

/// Hops after which symbolic links are taken for a circle; Linux allows as many.
const MAX_LINKS: u32 = 40;

/// Follows symbolic links, in every segment, to a path without any. What leaves the root or runs
/// in a circle is an error; a missing target is [`TreeError::NotFound`].
pub fn follow(tree: &dyn Tree, path: &RelPath) -> Result<RelPath, TreeError> {
    let mut links = 0;
    let mut done = RelPath::root();
    let mut rest: Vec<String> = path.segments().rev().map(Into::into).collect();
    while let Some(segment) = rest.pop() {
        let next = done.child(&segment);
        match tree.entry(&next)? {
            None => return Err(TreeError::NotFound(path.clone())),
            Some(Entry { kind: EntryKind::Symlink, .. }) => {
                links += 1;
                let refuse = |why: String| TreeError::Link { path: next.clone(), why };
                if links > MAX_LINKS {
                    return Err(refuse("leads in a circle".into()));
                }
                let target = tree.read(&next, 4096)?;
                let target = String::from_utf8(target)
                    .map_err(|_| refuse("has a target that is not UTF-8".into()))?;
                let target = done.resolve(&target).map_err(|e| {
                    refuse(match e {
                        PathError::Escapes(to) => {
                            format!("points to {to:?}, outside the repository")
                        }
                        PathError::Absolute(to) => format!("points to the absolute path {to:?}"),
                        PathError::Nul(_) => "has a NUL byte in its target".into(),
                    })
                })?;
                rest.extend(target.segments().rev().map(String::from).collect::<Vec<_>>());
                done = RelPath::root();
            }
            Some(_) => done = next,
        }
    }
    Ok(done)
}

/// A tree in memory, for tests and generated input.
#[derive(Debug, Clone, Default)]
pub struct MemTree {
    files: BTreeMap<RelPath, (EntryKind, Vec<u8>)>,
}

impl MemTree {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// This tree with a file.
    ///
    /// # Panics
    /// When the path leaves the root.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a builder for literals")]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        let path = RelPath::parse(path).expect("a literal path");
        self.files.insert(path, (EntryKind::File, content.into()));
        self
    }

    /// This tree with a symbolic link.
    ///
    /// # Panics
    /// When the path leaves the root.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a builder for literals")]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        let path = RelPath::parse(path).expect("a literal path");
        self.files.insert(path, (EntryKind::Symlink, target.into()));
        self
    }
}

impl Tree for MemTree {
    fn entry(&self, path: &RelPath) -> Result<Option<Entry>, TreeError> {
        if let Some((kind, content)) = self.files.get(path) {
            return Ok(Some(Entry { kind: *kind, id: ContentId::of(content) }));
        }
        let mut hasher = crate::Hasher::new();
        let mut any = path.is_root();
        for (file, (kind, content)) in self.files.iter().filter(|(file, _)| file.is_within(path)) {
            any = true;
            hasher.part(file.as_str().as_bytes()).part(&[*kind as u8]).part(content);
        }
        let id = ContentId::of(hasher.finish().as_bytes());
        Ok(any.then_some(Entry { kind: EntryKind::Directory, id }))
    }

    fn list(&self, dir: &RelPath) -> Result<Vec<(String, Entry)>, TreeError> {
        match self.entry(dir)? {
            None => return Err(TreeError::NotFound(dir.clone())),
            Some(Entry { kind: EntryKind::Directory, .. }) => {}
            Some(_) => {
                return Err(TreeError::WrongKind { path: dir.clone(), wanted: "directory" });
            }
        }
        let depth = dir.segments().count();
        let mut names: Vec<&str> = self
            .files
            .keys()
            .filter(|file| file.is_within(dir))
            .filter_map(|file| file.segments().nth(depth))
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut entries = Vec::new();
        for name in names {
            if let Some(entry) = self.entry(&dir.child(name))? {
                entries.push((name.to_owned(), entry));
            }
        }
        Ok(entries)
    }

    fn read(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, TreeError> {
        match self.files.get(path) {
            Some((_, content)) => {
                let size = content.len() as u64;
                if size > limit {
                    return Err(TreeError::TooLarge { path: path.clone(), size, limit });
                }
                Ok(content.clone())
            }
            None if self.entry(path)?.is_some() => {
                Err(TreeError::WrongKind { path: path.clone(), wanted: "file" })
            }
            None => Err(TreeError::NotFound(path.clone())),
        }
    }
}

/// A directory on disk, for the command line. Links are reported as links, never followed by the
/// operating system.
#[derive(Debug, Clone)]
pub struct DirTree {
    root: PathBuf,
}

impl DirTree {
    /// The tree below a directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &RelPath) -> PathBuf {
        self.root.join(path.as_str())
    }
}

fn read_error(path: &RelPath, source: std::io::Error) -> TreeError {
    TreeError::Read { path: path.clone(), source: Box::new(source) }
}

impl Tree for DirTree {
    fn entry(&self, path: &RelPath) -> Result<Option<Entry>, TreeError> {
        // A link in the middle of the path would be followed by the operating system.
        if let Some(parent) = path.parent()
            && !parent.is_root()
            && !matches!(self.entry(&parent)?, Some(Entry { kind: EntryKind::Directory, .. }))
        {
            return Ok(None);
        }
        let found = if path.is_root() {
            std::fs::metadata(self.at(path))
        } else {
            std::fs::symlink_metadata(self.at(path))
        };
        let found = match found {
            Ok(found) => found,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(read_error(path, e)),
        };
        let kind = if found.is_symlink() {
            EntryKind::Symlink
        } else if found.is_dir() {
            EntryKind::Directory
        } else {
            EntryKind::File
        };
        // A command line run reads the disk once; ids only have to differ when content may.
        let stamp =
            found.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        let id = ContentId::of(format!("{path} {} {stamp:?}", found.len()).as_bytes());
        Ok(Some(Entry { kind, id }))
    }

    fn list(&self, dir: &RelPath) -> Result<Vec<(String, Entry)>, TreeError> {
        match self.entry(dir)? {
            None => return Err(TreeError::NotFound(dir.clone())),
            Some(Entry { kind: EntryKind::Directory, .. }) => {}
            Some(_) => {
                return Err(TreeError::WrongKind { path: dir.clone(), wanted: "directory" });
            }
        }
        let mut names = Vec::new();
        for found in std::fs::read_dir(self.at(dir)).map_err(|e| read_error(dir, e))? {
            let found = found.map_err(|e| read_error(dir, e))?;
            // Git paths are bytes, ours are UTF-8: other names cannot be referred to.
            if let Ok(name) = found.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            if let Some(entry) = self.entry(&dir.child(&name))? {
                entries.push((name, entry));
            }
        }
        Ok(entries)
    }

    fn read(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, TreeError> {
        let entry = self.entry(path)?.ok_or_else(|| TreeError::NotFound(path.clone()))?;
        match entry.kind {
            EntryKind::Symlink => {
                let target = std::fs::read_link(self.at(path)).map_err(|e| read_error(path, e))?;
                Ok(target.to_string_lossy().into_owned().into_bytes())
            }
            EntryKind::File => {
                let size = std::fs::metadata(self.at(path)).map_err(|e| read_error(path, e))?.len();
                if size > limit {
                    return Err(TreeError::TooLarge { path: path.clone(), size, limit });
                }
                std::fs::read(self.at(path)).map_err(|e| read_error(path, e))
            }
            EntryKind::Directory | EntryKind::Submodule => {
                Err(TreeError::WrongKind { path: path.clone(), wanted: "file" })
            }
        }
    }
}

/// Whether a file is a pointer to content that Git LFS keeps elsewhere.
pub fn is_lfs_pointer(content: &[u8]) -> bool {
    content.starts_with(b"version https://git-lfs.github.com/spec/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    fn sample() -> MemTree {
        MemTree::new()
            .file("a/one.yaml", "1")
            .file("a/b/two.yaml", "2")
            .link("a/up", "../c")
            .link("c/self", "self")
            .link("c/out", "../../etc")
            .link("c/abs", "/etc")
            .file("c/three.yaml", "3")
    }

    #[test]
    fn memory_and_disk_agree() {
        let dir = std::env::temp_dir().join(format!("plumb-tree-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::create_dir_all(dir.join("c")).unwrap();
        for (file, text) in [("a/one.yaml", "1"), ("a/b/two.yaml", "2"), ("c/three.yaml", "3")] {
            std::fs::write(dir.join(file), text).unwrap();
        }
        for (link, to) in
            [("a/up", "../c"), ("c/self", "self"), ("c/out", "../../etc"), ("c/abs", "/etc")]
        {
            let _ = std::fs::remove_file(dir.join(link));
            std::os::unix::fs::symlink(to, dir.join(link)).unwrap();
        }
        let trees: [&dyn Tree; 2] = [&sample(), &DirTree::new(&dir)];
        for tree in trees {
            let names = |dir: &str| {
                let list = tree.list(&path(dir)).unwrap();
                list.into_iter().map(|(name, e)| (name, e.kind)).collect::<Vec<_>>()
            };
            assert_eq!(
                names("a"),
                [
                    ("b".into(), EntryKind::Directory),
                    ("one.yaml".into(), EntryKind::File),
                    ("up".into(), EntryKind::Symlink)
                ]
            );
            assert_eq!(tree.read(&path("a/b/two.yaml"), 10).unwrap(), b"2");
            assert!(matches!(tree.read(&path("a"), 10), Err(TreeError::WrongKind { .. })));
            assert!(matches!(tree.read(&path("x"), 10), Err(TreeError::NotFound(_))));
            assert!(matches!(tree.read(&path("a/one.yaml"), 0), Err(TreeError::TooLarge { .. })));
            assert!(tree.entry(&path("a/up/three.yaml")).unwrap().is_none());
            assert_eq!(follow(tree, &path("a/up/three.yaml")).unwrap(), path("c/three.yaml"));
            for (link, why) in [("c/self", "circle"), ("c/out", "outside"), ("c/abs", "absolute")] {
                let error = follow(tree, &path(link)).unwrap_err().to_string();
                assert!(error.contains(why), "{error}");
            }
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
