//! What keeps one mirror in order. What a kill has left by half is removed at the start, and what can be
//! seen to be damaged without reading everything is found; many packs are made one; and what can still
//! be read of a damaged mirror is carried over into a new one.
//!
//! Nothing is forced to the disk when it is written: a mirror can be fetched again, and after a power loss
//! the damage is found. Whatever is read is compared with its id in any case.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use git2::{ObjectType, Oid, PackBuilder, Repository};

use crate::mirror::{
    ANCHORS, Check, Store, cache_error, files, has_extension, remove_dir, remove_file, write_whole,
};
use crate::tags::TAG_ANCHORS;
use crate::tidy::GoOn;
use crate::{Limits, SourceError};

/// Bytes above which files are not compared with each other when packs are made one: each would be in
/// memory, and all that are compared with it.
const MAX_COMPARED: u64 = 1 << 20;

/// It says nothing, and libgit2 opens no repository without it.
const HEAD: &str = "ref: refs/heads/main\n";

/// Bytes of a checksum of Git.
const CHECKSUM: usize = 20;

/// Bytes in which the system counts what a file takes on the disk.
const BLOCK: u64 = 512;

impl Store {
    /// Puts a mirror in order that an earlier process has left. Returns whether something of it may be
    /// damaged. Of files of any size only the ends are read.
    pub(crate) fn mend(&self) -> Result<bool, SourceError> {
        let mut doubtful = self.mend_frame()?;
        // Nothing of ours, and it would speak for anchors.
        remove_file(&self.path.join("packed-refs"))?;
        for name in files(&self.path)? {
            if is_left_over(&name) {
                remove_file(&self.path.join(&name))?;
            }
        }
        self.clean_modules()?;
        doubtful |= self.mend_packs()?;
        doubtful |= mend_anchors(&self.path.join(ANCHORS))?;
        let tags = self.path.join(TAG_ANCHORS);
        for commit in files(&tags)? {
            // A tag comes before its commit, and a kill may have come between.
            if self.path.join(ANCHORS).join(&commit).exists() {
                doubtful |= mend_anchors(&tags.join(&commit))?;
            } else {
                remove_dir(&tags.join(&commit))?;
            }
        }
        let Some(repo) = self.open()? else { return Ok(true) };
        let odb = repo.odb().map_err(|e| self.git_error("read", e))?;
        let named = self.anchors(&repo)?.into_iter().chain(self.all_tags(&repo)?);
        for id in named {
            doubtful |= !odb.exists(id);
        }
        self.write_shallow(&repo);
        Ok(doubtful)
    }

    /// Writes what libgit2 wants of a repository beside its content, where that is not as it was made.
    /// Returns whether it was not.
    pub(crate) fn mend_frame(&self) -> Result<bool, SourceError> {
        let mut mended = false;
        for name in ["objects/pack", "refs"] {
            let dir = self.path.join(name);
            if !dir.is_dir() {
                remove_file(&dir)?;
                fs::create_dir_all(&dir).map_err(|e| cache_error("create", &dir, e))?;
                mended = true;
            }
        }
        // The first of these two is what libgit2 1.9 takes for the second.
        let config = format!(
            "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\
             [pack]\n\tdeltaCacheSize = {MAX_COMPARED}\n\
             [core]\n\tbigFileThreshold = {MAX_COMPARED}\n"
        );
        for (name, text) in [("HEAD", HEAD), ("config", &config)] {
            let path = self.path.join(name);
            if !fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
                write_whole(&path, text)?;
                mended = true;
            }
        }
        Ok(mended)
    }

    /// Removes packs that are there by half, and looks whether the others can be whole.
    fn mend_packs(&self) -> Result<bool, SourceError> {
        let dir = self.pack_dir();
        let mut doubtful = false;
        let names: BTreeSet<String> = files(&dir)?.into_iter().collect();
        for name in &names {
            let half = |this: &str, other: &str| {
                name.strip_suffix(this)
                    .is_some_and(|stem| !names.contains(&format!("{stem}{other}")))
            };
            let is_half = half(".pack", ".idx") || half(".idx", ".pack");
            if is_half || !name.starts_with("pack-") {
                remove_file(&dir.join(name))?;
                doubtful |= is_half;
            }
        }
        for name in self.packs()? {
            let (pack, index) = (dir.join(format!("{name}.pack")), dir.join(format!("{name}.idx")));
            doubtful |= !belong_together(&pack, &index).unwrap_or(false);
        }
        Ok(doubtful)
    }

    /// The anchored commits of which everything is here as its id says.
    pub(crate) fn sound(
        &self,
        repo: &Repository,
        limits: &Limits,
    ) -> Result<BTreeSet<Oid>, SourceError> {
        let mut sound = BTreeSet::new();
        let mut base = None;
        for anchor in self.anchors(repo)? {
            if matches!(self.is_complete(repo, anchor, base, Check::Content, limits), Ok(true)) {
                base = Some(anchor);
                sound.insert(anchor);
            }
        }
        Ok(sound)
    }

    /// Whether everything that is anchored is here as its id says.
    pub(crate) fn is_sound(&self, repo: &Repository, limits: &Limits) -> Result<bool, SourceError> {
        let whole = self.sound(repo, limits)? == self.anchors(repo)?;
        let readable = |tag: &Oid| self.raw(repo, *tag, ObjectType::Tag).is_ok();
        Ok(whole && self.all_tags(repo)?.iter().all(readable))
    }

    /// Copies what can be read of a damaged mirror into a new one, as far as whole commits go. Returns
    /// whether there is any.
    pub(crate) fn salvage(
        &self,
        to: &Self,
        limits: &Limits,
        go_on: GoOn<'_>,
    ) -> Result<bool, SourceError> {
        self.mend()?;
        let Some(repo) = self.open()? else { return Ok(false) };
        let commits = self.sound(&repo, limits)?;
        if commits.is_empty() {
            return Ok(false);
        }
        let mut tags = Vec::new();
        for commit in &commits {
            for tag in self.tags(&repo, *commit)? {
                if self.raw(&repo, tag, ObjectType::Tag).is_ok() {
                    tags.push((*commit, tag));
                }
            }
        }
        let fresh = to.open_or_create()?;
        let ids = tags.iter().map(|(_, tag)| *tag);
        self.write_pack((&repo, go_on), &commits, ids, &to.pack_dir())?;
        for (commit, tag) in tags {
            to.anchor_tag(&fresh, commit, tag)?;
        }
        for commit in commits {
            if let Some(modules) = self.modules(commit) {
                to.write_modules(commit, &modules)?;
            }
            to.anchor(&fresh, commit)?;
        }
        Ok(true)
    }

    /// Writes one pack with the given commits and all tags, and removes all others. libgit2 has no garbage
    /// collection, and each fetch leaves a pack that every look-up has to search.
    pub(crate) fn consolidate(
        &self,
        repo: &Repository,
        commits: &BTreeSet<Oid>,
        go_on: GoOn<'_>,
    ) -> Result<(), SourceError> {
        let packs = self.packs()?;
        let tags = self.all_tags(repo)?;
        let written = self.write_pack((repo, go_on), commits, tags, &self.pack_dir());
        let kept = match &written {
            Ok(name) => name.iter().cloned().collect(),
            Err(_) => packs,
        };
        self.remove_packs_but(&kept)?;
        written?;
        repo.odb().and_then(|odb| odb.refresh()).map_err(|e| self.git_error("read", e))
    }

    /// Writes a pack of commits with their trees, and of tags. Returns its name, if there is anything in it.
    fn write_pack(
        &self,
        (repo, go_on): (&Repository, GoOn<'_>),
        commits: &BTreeSet<Oid>,
        tags: impl IntoIterator<Item = Oid>,
        to: &Path,
    ) -> Result<Option<String>, SourceError> {
        let failed = |e| self.git_error("write", e);
        let mut builder = repo.packbuilder().map_err(failed)?;
        builder.set_threads(1);
        let mut seen = HashSet::new();
        for commit in commits {
            builder.insert_object(*commit, None).map_err(failed)?;
            let tree = repo.find_commit(*commit).map_err(failed)?.tree_id();
            self.insert_tree((repo, go_on), &mut builder, tree, &mut seen)?;
        }
        for tag in tags {
            builder.insert_object(tag, None).map_err(failed)?;
        }
        if builder.object_count() == 0 {
            return Ok(None);
        }
        builder.set_progress_callback(|_, _, _| go_on().is_ok()).map_err(failed)?;
        let written = builder.write(to, 0);
        if written.is_err() {
            go_on()?;
        }
        written.map_err(failed)?;
        let name = builder.name().map_err(failed)?;
        Ok(name.map(|name| format!("pack-{name}")))
    }

    /// Adds a tree and all below it, each once. Not by libgit2, which goes down whatever it has seen, and
    /// calls itself for each level: trees of a hostile repository take years, or the whole stack.
    fn insert_tree(
        &self,
        (repo, go_on): (&Repository, GoOn<'_>),
        builder: &mut PackBuilder<'_>,
        tree: Oid,
        seen: &mut HashSet<Oid>,
    ) -> Result<(), SourceError> {
        let failed = |e| self.git_error("write", e);
        let mut todo = vec![(tree, Vec::new())];
        while let Some((id, name)) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            go_on()?;
            let name = String::from_utf8_lossy(&name);
            builder.insert_object(id, Some(&name)).map_err(failed)?;
            for entry in &repo.find_tree(id).map_err(failed)? {
                match entry.kind() {
                    Some(ObjectType::Tree) => todo.push((entry.id(), entry.name_bytes().to_vec())),
                    Some(ObjectType::Blob) if seen.insert(entry.id()) => {
                        let name = String::from_utf8_lossy(entry.name_bytes());
                        builder.insert_object(entry.id(), Some(&name)).map_err(failed)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Bytes that it takes on the disk. What goes meanwhile counts nothing.
    pub(crate) fn size(&self) -> u64 {
        disk_usage(&self.path)
    }

    /// When it last changed, in seconds since 1970; long ago when nobody can tell.
    pub(crate) fn changed(&self) -> u64 {
        let seconds = [self.pack_dir(), self.path.join(ANCHORS)]
            .iter()
            .filter_map(|dir| fs::metadata(dir).ok())
            .map(|metadata| metadata.mtime())
            .max();
        seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0)
    }
}

fn is_left_over(name: &str) -> bool {
    has_extension(name, "lock") || has_extension(name, "new")
}

/// Writes anchors anew that do not hold what their names say. Returns whether there were any.
fn mend_anchors(dir: &Path) -> Result<bool, SourceError> {
    let mut doubtful = false;
    for name in files(dir)? {
        let path = dir.join(&name);
        if name.len() != 2 * CHECKSUM || Oid::from_str(&name).is_err() {
            remove_dir(&path)?;
            doubtful |= !is_left_over(&name);
            continue;
        }
        let text = format!("{name}\n");
        if !fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            write_whole(&path, &text)?;
            doubtful = true;
        }
    }
    Ok(doubtful)
}

/// Whether a pack and its index are whole at both ends and made for each other: each ends with the
/// checksum of the pack.
fn belong_together(pack: &Path, index: &Path) -> io::Result<bool> {
    let (pack, index) = (File::open(pack)?, File::open(index)?);
    let (mut begin, mut end) = ([0; 4], [0; CHECKSUM]);
    pack.read_exact_at(&mut begin, 0)?;
    read_before_end(&pack, &mut end, 0)?;
    let (mut index_begin, mut index_end) = ([0; 4], [0; CHECKSUM]);
    index.read_exact_at(&mut index_begin, 0)?;
    // Its own checksum comes after it.
    read_before_end(&index, &mut index_end, CHECKSUM as u64)?;
    Ok(&begin == b"PACK" && &index_begin == b"\xfftOc" && end == index_end && end != [0; CHECKSUM])
}

/// Fills a buffer with what comes so many bytes before the end.
fn read_before_end(file: &File, into: &mut [u8], before: u64) -> io::Result<()> {
    let length = file.metadata()?.len();
    let at = length.checked_sub(before + into.len() as u64);
    file.read_exact_at(into, at.ok_or(io::ErrorKind::UnexpectedEof)?)
}

fn disk_usage(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let below = if metadata.is_dir() { fs::read_dir(path).ok() } else { None };
    let below: u64 =
        below.into_iter().flatten().flatten().map(|entry| disk_usage(&entry.path())).sum();
    metadata.blocks() * BLOCK + below
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case<'c> = (&'c str, &'c [u8], &'c [u8], Option<bool>);

    #[test]
    fn a_pack_and_its_index_are_known_by_their_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (pack, index) = (dir.path().join("pack"), dir.path().join("idx"));
        let of = |begin: &[u8], end: &[u8]| [begin, &[7; 50], end].concat();
        let sum = [1; CHECKSUM];
        let good = of(b"PACK", &sum);
        let good_index = of(b"\xfftOc", &[sum, [2; CHECKSUM]].concat());
        let zeros = vec![0; 200];
        let cases: [Case<'_>; 9] = [
            ("good", &good, &good_index, Some(true)),
            ("a pack cut off", &good[..60], &good_index, Some(false)),
            ("an empty pack", &[], &good_index, None),
            ("a pack of zeros", &zeros, &good_index, Some(false)),
            ("both of zeros", &zeros, &zeros, Some(false)),
            ("an index cut off", &good, &good_index[..70], Some(false)),
            ("an empty index", &good, &[], None),
            ("an index of zeros", &good, &zeros, Some(false)),
            ("of another pack", &of(b"PACK", &[3; CHECKSUM]), &good_index, Some(false)),
        ];
        for (what, pack_bytes, index_bytes, want) in cases {
            fs::write(&pack, pack_bytes).unwrap();
            fs::write(&index, index_bytes).unwrap();
            assert_eq!(belong_together(&pack, &index).ok(), want, "{what}");
        }
        fs::remove_file(&index).unwrap();
        assert!(belong_together(&pack, &index).is_err());
    }

    #[test]
    fn what_a_directory_takes_is_counted_with_all_below() {
        let dir = tempfile::tempdir().unwrap();
        let empty = disk_usage(dir.path());
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), vec![1; 100_000]).unwrap();
        let full = disk_usage(dir.path());
        assert!((100_000..200_000).contains(&(full - empty)), "{empty} {full}");
        assert_eq!(disk_usage(&dir.path().join("none")), 0);
    }
}
