//! What stays on disk: anchors, packs, leftovers and locks.

use std::fs;

use plumb_core::{RelPath, Tree as _};
use plumb_source::{Cancel, CommitId, Credentials, Limits, Mirrors, Remote, SourceError};

use crate::{World, branch, count};

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

#[test]
fn snapshots_need_no_server() {
    let mut world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    world.main();
    let remote = world.remote();
    world.server = crate::Server::with(|_| panic!("nobody may ask"));
    let snapshot = world.mirrors.snapshot(&remote, &first).unwrap();
    assert_eq!(snapshot.read(&path("a.yaml"), 9).unwrap(), b"1");
    drop(snapshot);

    // Also in the next process.
    drop(std::mem::replace(
        &mut world.mirrors,
        Mirrors::open(&world.dir.path().join("other"), Limits::default()).unwrap(),
    ));
    let again = Mirrors::open(&world.cache(), Limits::default()).unwrap();
    again.snapshot(&remote, &first).unwrap();

    // Other credentials are another mirror: what one may read says nothing about the other.
    let other = Remote {
        credentials: Credentials::Basic { username: "eve".into(), password: "x".into() },
        ..remote.clone()
    };
    let error = again.snapshot(&other, &first).unwrap_err();
    assert!(matches!(error, SourceError::NotInCache { .. }), "{error}");
    let has = |remote| again.has(remote, &first).unwrap();
    assert!(has(&remote) && !has(&other));

    // The directory is emptied under us.
    fs::remove_dir_all(world.cache().join("mirrors")).unwrap();
    assert!(!has(&remote));
    let error = again.snapshot(&remote, &first).unwrap_err();
    assert_eq!(error.reason(), "NotInCache");
    assert!(error.hint().unwrap().contains("cache"));
}

#[test]
fn a_lost_cache_fills_again() {
    let world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    world.main();
    fs::remove_dir_all(world.cache().join("mirrors")).unwrap();
    world.main();
    assert_eq!(world.read(&first, "a.yaml"), "1");
}

#[test]
fn one_process_a_directory() {
    let world = World::new();
    let error = Mirrors::open(&world.cache(), Limits::default()).unwrap_err();
    assert!(matches!(error, SourceError::Locked { .. }), "{error}");
    let cache = world.cache();
    drop(world.mirrors);
    Mirrors::open(&cache, Limits::default()).unwrap();
}

#[test]
fn leftovers_of_a_kill_are_removed() {
    let world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    world.main();
    let (cache, mirror, remote) = (world.cache(), world.mirror_dir(), world.remote());
    let packs = mirror.join("objects/pack");
    let anchor_lock = mirror.join(format!("refs/plumb/{first}.lock"));
    let leftovers = [
        packs.join("pack_git2_a1b2c3"),
        packs.join("pack-1234.pack"),
        packs.join("pack-5678.idx"),
        mirror.join("shallow.new"),
        anchor_lock,
    ];
    for file in &leftovers {
        fs::write(file, "half").unwrap();
    }
    fs::create_dir_all(cache.join("mirrors/half.new/objects")).unwrap();
    // And the anchor itself did not make it.
    fs::remove_file(mirror.join(format!("refs/plumb/{first}"))).unwrap();
    drop(world.mirrors);

    let mirrors = Mirrors::open(&cache, Limits::default()).unwrap();
    for file in &leftovers {
        assert!(!file.exists(), "{}", file.display());
    }
    assert!(!cache.join("mirrors/half.new").exists());
    assert_eq!(count(&packs, ".pack"), 1);
    world.server.take_log();
    mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap();
    // The pack was there already.
    assert!(world.server.take_log().iter().all(|r| !r.is_fetch()));
    mirrors.snapshot(&remote, &first).unwrap();
}

#[test]
fn a_kill_while_a_mirror_is_put_into_its_place_loses_nothing() {
    let world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    world.main();
    let (cache, mirror, remote) = (world.cache(), world.mirror_dir(), world.remote());
    drop(world.mirrors);
    // The old one was moved away, and the new one is not there yet.
    fs::rename(&mirror, mirror.with_extension("old")).unwrap();
    fs::create_dir_all(mirror.with_extension("rebuild").join("objects")).unwrap();
    let mirrors = Mirrors::open(&cache, Limits::default()).unwrap();
    assert!(mirrors.is_whole(&remote, &first).unwrap());
    drop(mirrors);
    // It is, and the old one has not gone yet.
    fs::create_dir_all(mirror.with_extension("old").join("objects")).unwrap();
    let mirrors = Mirrors::open(&cache, Limits::default()).unwrap();
    assert!(mirrors.is_whole(&remote, &first).unwrap());
    assert_eq!(count(&cache.join("mirrors"), ""), 1);
}

/// Commits `n` times and fetches each.
fn commits(world: &World, n: usize) -> Vec<CommitId> {
    (0..n)
        .map(|i| {
            let text = format!("{i}");
            world.repo.commit("refs/heads/main", &[("a.yaml", &text), ("dir/same.yaml", "same")]);
            world.main().commit
        })
        .collect()
}

#[test]
fn only_what_is_kept_stays() {
    let world = World::new();
    let all = commits(&world, 4);
    let remote = world.remote();
    let here = |commit: &CommitId| match world.mirrors.snapshot(&remote, commit) {
        Ok(_) => true,
        Err(SourceError::NotInCache { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    // All are new: their names may not have reached anybody yet.
    world.mirrors.keep(&remote, &all[..1]).unwrap();
    assert!(all.iter().all(here));
    let open = world.mirrors.snapshot(&remote, &all[1]).unwrap();
    world.mirrors.keep(&remote, &all[..1]).unwrap();
    assert_eq!(all.iter().map(here).collect::<Vec<_>>(), [true, true, false, false]);
    drop(open);
    world.mirrors.keep(&remote, &all[..1]).unwrap();
    assert_eq!(all.iter().map(here).collect::<Vec<_>>(), [true, false, false, false]);
    // Wanted again, it comes back without the network as long as its pack is there.
    world.server.take_log();
    world.mirrors.fetch_commit(&remote, &all[3], &Cancel::new()).unwrap();
    assert!(world.server.take_log().is_empty());
    assert!(here(&all[3]));
    // A remote without a mirror has nothing to keep.
    let other = crate::remote(&world.server.url("other.git"));
    world.mirrors.keep(&other, &all).unwrap();
}

#[test]
fn many_packs_become_one() {
    let mut world = World::new();
    drop(world.mirrors);
    let limits = Limits { packs: 5, ..Limits::default() };
    world.mirrors = Mirrors::open(&world.dir.path().join("cache"), limits).unwrap();
    let module = "1234567890123456789012345678901234567890";
    let tree = world.repo.tree(&[("160000", "vendor", module)]);
    let with_module = world.repo.commit_tree(&tree, &[], "a submodule");
    world.repo.point("refs/heads/main", &with_module);
    world.main();
    let all = commits(&world, 8);
    let remote = world.remote();
    assert_eq!(world.packs(), 9);
    let open = world.mirrors.snapshot(&remote, &all[2]).unwrap();
    let kept = [with_module, all[0], all[7]];
    world.mirrors.keep(&remote, &[]).unwrap();
    assert_eq!(world.packs(), 1);
    for (i, commit) in all.iter().enumerate() {
        assert_eq!(world.read(commit, "a.yaml"), format!("{i}"), "new ones stay once more");
    }
    commits(&world, 6);
    world.mirrors.keep(&remote, &kept).unwrap();
    assert_eq!(world.packs(), 1);
    assert_eq!(open.read(&path("a.yaml"), 9).unwrap(), b"2");
    assert_eq!(open.read(&path("dir/same.yaml"), 9).unwrap(), b"same");
    assert_eq!(world.read(&all[0], "a.yaml"), "0");
    world.mirrors.snapshot(&remote, &with_module).unwrap();
    let gone = world.mirrors.snapshot(&remote, &all[5]).unwrap_err();
    assert!(matches!(gone, SourceError::NotInCache { .. }));

    // What was let go comes back from the server, also when a fetch builds on what is left.
    world.mirrors.fetch_commit(&remote, &all[5], &Cancel::new()).unwrap();
    assert_eq!(world.read(&all[5], "a.yaml"), "5");
    let last = world.repo.commit("refs/heads/main", &[("a.yaml", "5")]);
    world.main();
    assert_eq!(world.read(&last, "a.yaml"), "5");
    let mirror = crate::repo::Repo { path: world.mirror_dir() };
    mirror.git(&["fsck", "--full", "--connectivity-only"]);
}

#[test]
fn mirrors_that_nobody_names_go() {
    let world = World::new();
    world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let main = world.main();
    let remote = world.remote();
    let retain = |remotes: &[Remote], urls: &[String]| {
        world.mirrors.retain(world.mirrors.moment(), remotes, urls).unwrap();
    };
    let here = || count(&world.cache().join("mirrors"), "");
    retain(std::slice::from_ref(&remote), &[]);
    world.mirrors.snapshot(&remote, &main.commit).unwrap();
    // Whoever asks for the URL.
    retain(&[], std::slice::from_ref(&remote.url));
    let open = world.mirrors.snapshot(&remote, &main.commit).unwrap();
    retain(&[], &[world.server.url("other.git")]);
    assert_eq!(open.read(&path("a.yaml"), 9).unwrap(), b"1");
    drop(open);
    // Somebody took it up after it was asked who names what.
    let moment = world.mirrors.moment();
    assert!(world.mirrors.has(&remote, &main.commit).unwrap());
    world.mirrors.retain(moment, &[], &[]).unwrap();
    assert_eq!((here(), world.mirrors.usage().mirrors), (1, 1));
    retain(&[], &[]);
    assert_eq!((here(), world.mirrors.usage().mirrors), (0, 0));
    assert_eq!((world.mirrors.usage().bytes, world.mirrors.usage().evicted), (0, 1));
    assert_eq!(world.main(), main);
}
