//! What goes over the network, and what does not.

use std::sync::{Arc, Condvar, Mutex};

use plumb_source::{Cancel, Limits, Mirrors, SourceError};

use crate::server::{Request, Server, backend};
use crate::{World, branch};

fn bytes(log: &[Request]) -> usize {
    log.iter().map(|r| r.body.len() + r.answered).sum()
}

#[test]
fn a_poll_is_one_small_request() {
    let world = World::new();
    world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    for i in 0..200 {
        let name = format!("refs/heads/other-{i}");
        world.repo.git(&["update-ref", &name, "refs/heads/main"]);
    }
    world.main();
    let first: Vec<String> = world.server.take_log().into_iter().map(|r| r.method).collect();
    assert_eq!(first, ["GET", "POST", "POST"]);
    for _ in 0..3 {
        world.main();
        let log = world.server.take_log();
        assert_eq!(log.len(), 1);
        assert_eq!(log[0].header("git-protocol"), Some("version=2"));
        assert!(!log[0].is_fetch() && bytes(&log) < 250, "{}", bytes(&log));
    }
}

#[test]
fn a_commit_by_id_is_fetched_once_and_never_listed() {
    let world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let reference = plumb_source::Reference::Commit { id: first.to_string(), branch: None };
    world.resolve(&reference).unwrap();
    let log = world.server.take_log();
    assert_eq!(log.len(), 2);
    assert!(log[1].is_fetch());
    world.resolve(&reference).unwrap();
    let remote = world.remote();
    world.mirrors.fetch_commit(&remote, &first, &Cancel::new()).unwrap();
    assert!(world.server.take_log().is_empty());
}

/// A hundred files in ten directories, one of them changed.
fn files(changed: &str) -> Vec<(String, String)> {
    (0..100)
        .map(|i| {
            let content = if i == 42 {
                changed.to_owned()
            } else {
                format!("kind: ConfigMap\nnumber: {i}\n{}", "x".repeat(500))
            };
            (format!("dir{}/file{i}.yaml", i % 10), content)
        })
        .collect()
}

fn commit(world: &World, changed: &str) -> plumb_source::CommitId {
    let files = files(changed);
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    world.repo.commit("refs/heads/main", &files)
}

#[test]
fn a_small_change_costs_little_also_when_history_is_rewritten() {
    let world = World::new();
    let base = commit(&world, "one");
    for i in 0..20 {
        commit(&world, &format!("before {i}"));
    }
    world.main();
    world.server.take_log();
    let check = |world: &World, text: &str| {
        let revision = world.main();
        let log = world.server.take_log();
        assert_eq!(log.len(), 2);
        assert!(bytes(&log) < 2048, "{} bytes for {text}", bytes(&log));
        assert_eq!(world.read(&revision.commit, "dir2/file42.yaml"), text);
        assert!(world.read(&revision.commit, "dir3/file3.yaml").contains("number: 3"));
    };
    commit(&world, "two");
    check(&world, "two");
    world.repo.point("refs/heads/main", &base);
    commit(&world, "amended");
    check(&world, "amended");
    // Content that an unfetched ancestor had: the server must not think that we have it.
    commit(&world, "before 5");
    check(&world, "before 5");
    commit(&world, "one");
    check(&world, "one");
    // git itself agrees that everything is there.
    let mirror = crate::repo::Repo { path: world.mirror_dir() };
    mirror.git(&["fsck", "--full", "--connectivity-only"]);
}

#[test]
fn a_small_change_costs_no_more_where_many_commits_are_here() {
    let mut world = World::new();
    let change = |world: &World, n: usize, text: &str| {
        let text = format!("{text} {n}\n{}", "y".repeat(200));
        let files = files(&text);
        let files: Vec<(&str, &str)> =
            files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        world.repo.commit(&format!("refs/heads/b{n}"), &files)
    };
    for n in 0..60 {
        let commit = change(&world, n, "first");
        assert_eq!(world.resolve(&branch(&format!("b{n}"))).unwrap().commit, commit);
    }
    for restarted in [false, true] {
        if restarted {
            let other = tempfile::tempdir().unwrap();
            // It gives the directory back first.
            world.mirrors = Mirrors::open(other.path(), Limits::default()).unwrap();
            world.mirrors = Mirrors::open(&world.cache(), Limits::default()).unwrap();
        }
        world.resolve(&branch("b59")).unwrap();
        world.server.take_log();
        let commit = change(&world, 7, if restarted { "third" } else { "second" });
        assert_eq!(world.resolve(&branch("b7")).unwrap().commit, commit);
        let log = world.server.take_log();
        assert!(log.len() == 2 && bytes(&log) < 2048, "{} bytes", bytes(&log));
    }
}

/// A server that holds its answers to listings until it is let go.
fn gated(world: &World) -> (Server, Arc<(Mutex<bool>, Condvar)>) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (root, held) = (world.dir.path().join("git"), gate.clone());
    let server = Server::with(move |request| {
        if request.method == "POST" {
            let (open, changed) = &*held;
            let _open = changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap();
        }
        backend(&root, request)
    });
    (server, gate)
}

fn open(gate: &(Mutex<bool>, Condvar)) {
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
}

#[test]
fn equal_calls_at_once_fetch_once() {
    let mut world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let (server, gate) = gated(&world);
    world.server = server;
    std::thread::scope(|scope| {
        let world = &world;
        let resolve = || world.main().commit;
        let leader = scope.spawn(resolve);
        world.server.wait_for(2);
        let others: Vec<_> = (0..8).map(|_| scope.spawn(resolve)).collect();
        open(&gate);
        assert_eq!(leader.join().unwrap(), first);
        for other in others {
            assert_eq!(other.join().unwrap(), first);
        }
    });
    let log = world.server.take_log();
    let fetches = log.iter().filter(|r| r.is_fetch()).count();
    assert_eq!(fetches, 1);
    // GET, listing and fetch of the first. The others came later and share what follows; how many
    // of them are in time for that is up to the scheduler, and counted where threads can be held
    // (see the board's own tests).
    assert!((4..=3 + 8).contains(&log.len()), "{}", log.len());
}

#[test]
fn cancel_ends_a_blocked_read_at_once_and_others_go_on() {
    let mut world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let (server, gate) = gated(&world);
    world.server = server;
    let cancel = Cancel::new();
    let remote = world.remote();
    std::thread::scope(|scope| {
        let world = &world;
        let reading = scope.spawn(|| world.mirrors.resolve(&remote, &branch("main"), &cancel));
        world.server.wait_for(2);
        let queued = scope.spawn(|| world.main());
        cancel.cancel();
        // The gate is still closed: nothing but the switch can have ended it.
        let error = reading.join().unwrap().unwrap_err();
        assert!(matches!(error, SourceError::Cancelled), "{error}");
        let again = world.mirrors.resolve(&remote, &branch("main"), &cancel);
        assert!(matches!(again, Err(SourceError::Cancelled)));
        open(&gate);
        assert_eq!(queued.join().unwrap().commit, first);
    });
}
