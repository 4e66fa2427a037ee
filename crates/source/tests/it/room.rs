//! How much of the disk mirrors take: the limit, a disk that is full, and what is let go.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plumb_core::{ErrorClass, RelPath, Tree as _};
use plumb_source::{Cancel, CommitId, Limits, Mirrors, Reference, Remote, SourceError};

use crate::repo::Repo;
use crate::{World, branch};

/// Text of about this many bytes that does not get shorter by much.
pub(crate) fn noise(seed: u64, bytes: usize) -> String {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        write!(text, "{state:016x}").unwrap();
    }
    text
}

const KI: u64 = 1024;

/// A world whose mirrors have these limits.
fn world(limits: Limits) -> World {
    let mut world = World::new();
    let cache = world.dir.path().join("limited");
    world.mirrors = Mirrors::open(&cache, limits).unwrap();
    world
}

fn limited(cache_bytes: u64) -> World {
    world(Limits { cache_bytes: Some(cache_bytes), ..Limits::default() })
}

/// A repository with one commit of this many bytes, on the world's server.
fn repo(world: &World, name: &str, bytes: usize) -> (Repo, Remote) {
    let repo = Repo::init(&world.dir.path().join(format!("git/{name}.git")));
    let seed = name.bytes().map(u64::from).sum();
    repo.commit("refs/heads/main", &[("a.yaml", &noise(seed, bytes))]);
    (repo, crate::remote(&world.server.url(&format!("{name}.git"))))
}

fn fetch(world: &World, remote: &Remote) -> Result<CommitId, SourceError> {
    Ok(world.mirrors.resolve(remote, &branch("main"), &Cancel::new())?.commit)
}

fn is_here(world: &World, remote: &Remote, commit: &CommitId) -> bool {
    let has = world.mirrors.has(remote, commit).unwrap();
    assert!(!has || world.mirrors.is_whole(remote, commit).unwrap());
    has
}

fn retain(world: &World, remotes: &[&Remote]) {
    let remotes: Vec<Remote> = remotes.iter().copied().cloned().collect();
    world.mirrors.retain(world.mirrors.moment(), &remotes, &[]).unwrap();
}

#[test]
fn a_full_cache_takes_no_more_until_there_is_room() {
    let world = limited(1000 * KI);
    // About 230, 230 and 620 kilobytes of packs.
    let [a, b, c] = [("a", 400_000), ("b", 400_000), ("c", 1_100_000)]
        .map(|(name, bytes)| repo(&world, name, bytes).1);
    let (at_a, at_b) = (fetch(&world, &a).unwrap(), fetch(&world, &b).unwrap());
    // Nobody has said yet who is named: nothing goes.
    let full = |names: &[&str]| {
        let before = world.mirrors.usage();
        let error = fetch(&world, &c).unwrap_err();
        assert!(matches!(error, SourceError::CacheFull { .. }), "{error}");
        assert_eq!((error.reason(), error.class()), ("CacheFull", ErrorClass::Retry));
        let text = error.to_string();
        assert!(
            text.starts_with("the cache is full: ") && text.ends_with(" of 1000Ki are taken"),
            "{text}"
        );
        assert!(error.hint().unwrap().contains("--cache-limit"));
        assert!(is_here(&world, &a, &at_a) && is_here(&world, &b, &at_b), "{names:?}");
        let after = world.mirrors.usage();
        // The frame of the new mirror, without any part of a pack.
        assert!(after.bytes < before.bytes + 100 * KI, "{before:?} {after:?}");
        assert!(after.bytes <= 1000 * KI && after.evicted == 0, "{after:?}");
    };
    full(&[]);
    retain(&world, &[&a, &b, &c]);
    full(&["a", "b", "c"]);
    // A small commit of what is there fits all the same.
    assert_eq!(fetch(&world, &a).unwrap(), at_a);
    // One is named no more.
    retain(&world, &[&a, &c]);
    fetch(&world, &c).unwrap();
    assert!(is_here(&world, &a, &at_a) && !is_here(&world, &b, &at_b));
}

#[test]
fn what_nobody_names_goes_from_the_one_used_longest_ago() {
    let world = limited(4300 * KI);
    let all = ["a", "b", "c", "d"].map(|name| {
        let remote = repo(&world, name, 1_600_000).1;
        (fetch(&world, &remote).unwrap(), remote)
    });
    // Somebody reads from all of them while it is said who is named.
    let open =
        all.each_ref().map(|(commit, remote)| world.mirrors.snapshot(remote, commit).unwrap());
    retain(&world, &[&all[1].1]);
    drop(open);
    assert_eq!(world.mirrors.usage().mirrors, 4);
    let (_, e) = repo(&world, "e", 1_600_000);
    fetch(&world, &e).unwrap();
    let usage = world.mirrors.usage();
    assert!(usage.bytes <= 4300 * KI, "{usage:?}");
    let here = all.each_ref().map(|(commit, remote)| is_here(&world, remote, commit));
    assert_eq!(here, [false, true, true, true], "{usage:?}");
    assert_eq!(usage.evicted, 1);
}

#[test]
fn what_was_let_go_makes_room_before_any_mirror_goes() {
    let world = limited(1000 * KI);
    let (_, unnamed) = repo(&world, "unnamed", 200_000);
    let at = fetch(&world, &unnamed).unwrap();
    let (app, remote) = repo(&world, "app", 400_000);
    let mut commits = vec![fetch(&world, &remote).unwrap()];
    for seed in 0..2 {
        app.commit("refs/heads/main", &[("a.yaml", &noise(seed, 400_000))]);
        commits.push(fetch(&world, &remote).unwrap());
    }
    let open = world.mirrors.snapshot(&unnamed, &at).unwrap();
    retain(&world, &[&remote]);
    drop(open);
    for _ in 0..2 {
        world.mirrors.keep(&remote, &commits[2..]).unwrap();
    }
    let before = world.mirrors.usage();
    app.commit("refs/heads/main", &[("a.yaml", &noise(9, 600_000))]);
    let last = fetch(&world, &remote).unwrap();
    let after = world.mirrors.usage();
    assert!(after.bytes <= 1000 * KI, "{before:?} {after:?}");
    assert_eq!(after.evicted, 0);
    assert!(is_here(&world, &unnamed, &at) && is_here(&world, &remote, &last));
    assert!(is_here(&world, &remote, &commits[2]) && !is_here(&world, &remote, &commits[0]));
}

#[test]
fn commits_that_were_let_go_leave_the_disk() {
    let world = world(Limits::default());
    let (app, remote) = repo(&world, "app", 40_000_000);
    let first = fetch(&world, &remote).unwrap();
    let small = app.commit("refs/heads/main", &[("a.yaml", "small")]);
    assert_eq!(fetch(&world, &remote).unwrap(), small);
    let before = world.mirrors.usage().bytes;
    world.mirrors.keep(&remote, &[small]).unwrap();
    assert!(is_here(&world, &remote, &first), "it was new");
    // Whoever asks may name it.
    world.mirrors.keep(&remote, &[small]).unwrap();
    world.mirrors.keep(&remote, &[small]).unwrap();
    let after = world.mirrors.usage().bytes;
    assert!(before > 20_000 * KI && after < 200 * KI, "{before} {after}");
    assert!(!is_here(&world, &remote, &first) && is_here(&world, &remote, &small));
}

/// A hostile repository has few objects and more paths than anybody can walk, or more levels than a stack.
#[test]
fn trees_that_have_the_same_below_again_and_again_are_packed_at_once() {
    let world = world(Limits { packs: 1, ..Limits::default() });
    let (app, remote) = repo(&world, "app", 1000);
    let names: Vec<String> = (0..10).map(|n| format!("entry-{n}")).collect();
    let (mut id, mut mode) = (app.blob("x"), "100644");
    for _ in 0..14 {
        let entries: Vec<_> = names.iter().map(|name| (mode, name.as_str(), id.as_str())).collect();
        id = app.directory(&entries);
        mode = "040000";
    }
    for _ in 0..500 {
        id = app.directory(&[(mode, "deeper", &id)]);
    }
    let bomb = app.commit_tree(&id, &[], "many");
    let mut commits = vec![fetch(&world, &remote).unwrap()];
    app.point("refs/heads/main", &bomb);
    commits.push(fetch(&world, &remote).unwrap());
    world.mirrors.keep(&remote, &commits).unwrap();
    let mirror = fs::read_dir(world.dir.path().join("limited/mirrors")).unwrap().next();
    let packs = mirror.unwrap().unwrap().path().join("objects/pack");
    assert_eq!(crate::count(&packs, ".pack"), 1);
    assert!(commits.iter().all(|commit| world.mirrors.is_whole(&remote, commit).unwrap()));
    Repo { path: packs.join("../..") }.git(&["fsck", "--full"]);
}

/// Every file below a directory, with its size.
fn files(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.insert(path.clone(), 0);
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), fs::metadata(&path).unwrap().len());
        }
    }
    all
}

#[test]
fn fetches_leave_nothing_that_grows() {
    let limits = Limits { packs: 6, ..Limits::default() };
    let world = world(limits.clone());
    let (app, remote) = repo(&world, "app", 20_000);
    let mirrors = world.dir.path().join("limited/mirrors");
    let mut largest = Vec::new();
    for round in 0..6 {
        let (mut count, mut bytes) = (0, 0);
        for n in 0..10 {
            let text = noise(100 + 10 * round + n, 20_000);
            let commit = app.commit("refs/heads/main", &[("a.yaml", &text), ("b.yaml", "same")]);
            if n % 3 == 0 {
                app.git(&["tag", "-f", "-a", "-m", "t", "t", &commit.to_string()]);
                let tag = Reference::Tag("t".into());
                let resolved = world.mirrors.resolve_tag(&remote, &tag, &Cancel::new()).unwrap();
                assert!(resolved.tag.is_some());
            } else {
                assert_eq!(fetch(&world, &remote).unwrap(), commit);
            }
            world.mirrors.keep(&remote, &[commit]).unwrap();
            let files = files(&mirrors);
            count = count.max(files.len());
            bytes = bytes.max(files.values().sum());
            assert!(is_here(&world, &remote, &commit));
        }
        largest.push((count, bytes));
    }
    // The second round is as any other.
    let (count, bytes) = largest[1];
    for (round, now) in largest.iter().enumerate().skip(2) {
        assert!(now.0 <= count + 2 && now.1 <= bytes + bytes / 10, "{round}: {largest:?}");
    }
    assert!(count < 60 && bytes < 400_000, "{largest:?}");
}

/// A small disk of its own, gone with this value.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where this process may not mount anything.
    #[expect(clippy::print_stderr, reason = "what is not tested is said")]
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "plumb-test"])
            .arg(dir.path())
            .output()
            .unwrap();
        if !mounted.status.success() {
            eprintln!("not tested: mounting a small disk is not permitted here");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// What is free: blocks of the disk, and files.
    fn free(&self) -> (u64, u64) {
        let output = Command::new("stat").args(["-f", "-c", "%f %d"]).arg(self.path()).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let (blocks, files) = text.trim().split_once(' ').unwrap();
        (blocks.parse().unwrap(), files.parse().unwrap())
    }

    /// Takes all blocks but so many.
    fn fill(&self, left: u64) {
        let (blocks, _) = self.free();
        let bytes = usize::try_from(blocks.saturating_sub(left) * 4096).unwrap();
        fs::write(self.path().join("ballast"), vec![7; bytes]).unwrap();
    }

    /// Takes all files but so many.
    fn crowd(&self, left: u64) {
        let dir = self.path().join("crowd");
        fs::create_dir(&dir).unwrap();
        let (_, files) = self.free();
        for n in left..files {
            fs::write(dir.join(n.to_string()), "").unwrap();
        }
    }

    fn clear(&self) {
        let _ = fs::remove_file(self.path().join("ballast"));
        let _ = fs::remove_dir_all(self.path().join("crowd"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A world whose mirrors are on a small disk.
fn world_on(disk: &Disk, limits: Limits) -> World {
    let mut world = World::new();
    world.mirrors = Mirrors::open(&disk.path().join("cache"), limits).unwrap();
    world
}

fn assert_full(error: &SourceError) {
    assert!(matches!(error, SourceError::DiskFull { .. }), "{error:?}");
    assert_eq!((error.reason(), error.class()), ("DiskFull", ErrorClass::Retry));
    assert!(error.hint().unwrap().contains("volume"), "{error}");
    assert!(error.to_string().starts_with("the disk is full: cannot "), "{error}");
}

/// What a disk has too little of, and how that comes.
type Limit = (&'static str, fn(&Disk, u64));

/// Whatever cannot be written, the pack, its index or an anchor: it is told, nothing of it stays, what was
/// there can be read, and with room it works.
#[test]
fn a_disk_that_is_full_at_any_moment_of_a_fetch() {
    let Some(disk) = Disk::mount("size=6m,nr_inodes=400") else { return };
    let world = world_on(&disk, Limits::default());
    let (app, remote) = repo(&world, "app", 100_000);
    let tag = Reference::Tag("t".into());
    let mut failed = BTreeMap::new();
    let limits: [Limit; 2] = [("blocks", Disk::fill), ("files", Disk::crowd)];
    for (what, limit) in limits {
        for left in 0..40 {
            let first = fetch(&world, &remote).unwrap();
            world.mirrors.keep(&remote, &[first]).unwrap();
            let text = noise(left, 50_000);
            let next = app.commit("refs/heads/main", &[("a.yaml", &text)]);
            app.git(&["tag", "-f", "-a", "-m", "t", "t", &next.to_string()]);
            let before = files(&disk.path().join("cache"));
            limit(&disk, left);
            let result = world.mirrors.resolve_tag(&remote, &tag, &Cancel::new());
            if let Err(error) = &result {
                assert_full(error);
                *failed.entry(what).or_insert(0) += 1;
                let after = files(&disk.path().join("cache"));
                let new: Vec<_> = after.keys().filter(|file| !before.contains_key(*file)).collect();
                assert!(new.iter().all(|file| file.is_dir()), "{what} {left}: {new:?}");
                assert!(!world.mirrors.has(&remote, &next).unwrap());
            }
            assert!(is_here(&world, &remote, &first), "{what} {left}");
            disk.clear();
            let resolved = world.mirrors.resolve_tag(&remote, &tag, &Cancel::new()).unwrap();
            assert!(resolved.tag.is_some() && is_here(&world, &remote, &next));
            if result.is_ok() {
                break;
            }
        }
    }
    // The pack takes about seven blocks. Once there is room for the two files of a pack what lies around
    // can be made one, which makes more.
    assert!(failed["blocks"] > 7 && failed["files"] >= 2, "{failed:?}");
    assert!(failed.values().all(|times| *times < 40), "it worked in the end: {failed:?}");
}

#[test]
fn a_disk_that_is_full_when_packs_are_made_one() {
    let Some(disk) = Disk::mount("size=6m,nr_inodes=400") else { return };
    let world = world_on(&disk, Limits { packs: 2, ..Limits::default() });
    let (app, remote) = repo(&world, "app", 100_000);
    let mut failed = 0;
    for left in 0..60 {
        let mut commits = vec![fetch(&world, &remote).unwrap()];
        for n in 0..3 {
            let text = noise(1000 + 10 * left + n, 30_000);
            commits.push(app.commit("refs/heads/main", &[("a.yaml", &text)]));
            fetch(&world, &remote).unwrap();
        }
        let before = files(&disk.path().join("cache"));
        disk.fill(left);
        let kept = world.mirrors.keep(&remote, &commits);
        if let Err(error) = &kept {
            assert_full(error);
            failed += 1;
            let after = files(&disk.path().join("cache"));
            assert!(after.keys().all(|file| before.contains_key(file)), "{left}");
        }
        for commit in &commits {
            assert!(is_here(&world, &remote, commit), "{left}");
        }
        disk.clear();
        world.mirrors.keep(&remote, &commits[3..]).unwrap();
        world.mirrors.keep(&remote, &commits[3..]).unwrap();
        assert!(is_here(&world, &remote, &commits[3]));
        if kept.is_ok() {
            break;
        }
    }
    assert!((10..60).contains(&failed), "{failed}");
}

/// A disk that is smaller than the limit: what was let go makes room there, too.
#[test]
fn a_full_disk_is_tidied_before_a_fetch_fails() {
    let Some(disk) = Disk::mount("size=2m") else { return };
    let world = world_on(&disk, Limits::default());
    let (app, remote) = repo(&world, "app", 1_000_000);
    let first = fetch(&world, &remote).unwrap();
    let small = app.commit("refs/heads/main", &[("a.yaml", "small")]);
    fetch(&world, &remote).unwrap();
    for _ in 0..2 {
        world.mirrors.keep(&remote, &[small]).unwrap();
    }
    assert!(!is_here(&world, &remote, &first));
    disk.fill(100);
    app.commit("refs/heads/main", &[("a.yaml", &noise(5, 1_000_000))]);
    let last = fetch(&world, &remote).unwrap();
    assert!(is_here(&world, &remote, &last) && is_here(&world, &remote, &small));
}

/// Nothing is left of a mirror that cannot even be made.
#[test]
fn a_disk_that_is_full_when_a_mirror_is_made() {
    let Some(disk) = Disk::mount("size=1m,nr_inodes=100") else { return };
    let world = world_on(&disk, Limits::default());
    let (_, remote) = repo(&world, "app", 1000);
    let path = RelPath::parse("a.yaml").unwrap();
    for left in 0..30 {
        disk.crowd(left);
        let result = fetch(&world, &remote);
        disk.clear();
        let Err(error) = result else {
            assert!(left > 10, "{left}");
            let commit = result.unwrap();
            let snapshot = world.mirrors.snapshot(&remote, &commit).unwrap();
            assert!(snapshot.read(&path, 1 << 20).is_ok());
            return;
        };
        assert_full(&error);
        let all = files(&disk.path().join("cache/mirrors"));
        let packs = all.keys().filter(|file| file.to_str().unwrap().contains("pack-")).count();
        let new = all.keys().filter(|file| file.to_str().unwrap().contains(".new")).count();
        assert_eq!((packs, new), (0, 0), "{left}: {all:?}");
        let _ = fs::remove_dir_all(disk.path().join("cache/mirrors"));
        fs::create_dir(disk.path().join("cache/mirrors")).unwrap();
    }
    panic!("it never worked");
}
