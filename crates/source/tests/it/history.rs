//! Whether a commit follows another, and what it costs to know.

use std::sync::{Arc, OnceLock};

use plumb_source::{Cancel, CommitId, Descent, Limits, Mirrors};

use crate::server::{Server, backend};
use crate::{World, branch, remote};

fn descent(world: &World, from: &CommitId, to: &CommitId) -> Descent {
    world.mirrors.descent(&world.remote(), from, to, &Cancel::new()).unwrap()
}

/// A file that does not compress, so that it shows whether trees and files come along.
fn noise(seed: u32) -> String {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b'a' + u8::try_from(state % 26).unwrap())
    };
    (0..4000).map(|_| next()).collect()
}

fn commits(world: &World, count: u32) -> Vec<CommitId> {
    let commit = |i| world.repo.commit("refs/heads/main", &[("a.yaml", &noise(i))]);
    (1..=count).map(commit).collect()
}

#[test]
fn the_next_commit_is_known_to_follow_without_a_question() {
    let world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    world.main();
    let second = world.repo.commit("refs/heads/main", &[("a.yaml", "2")]);
    let side = world.repo.commit_tree(
        &world.repo.git(&["rev-parse", "main^{tree}"]),
        &[&first.to_string(), &second.to_string()],
        "merge",
    );
    world.main();
    world.repo.point("refs/heads/main", &side);
    world.main();
    world.server.take_log();
    for (from, to) in [(&first, &first), (&first, &second), (&first, &side), (&second, &side)] {
        assert_eq!(descent(&world, from, to), Descent::Follows);
    }
    assert!(world.server.take_log().is_empty());
}

#[test]
fn a_longer_history_is_asked_for_in_steps() {
    for (filters, v0) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut world = World::new();
        if v0 {
            let root = world.dir.path().join("git");
            world.server = Server::with(move |request| {
                let mut request = request.clone();
                request.headers.retain(|(name, _)| name != "git-protocol");
                backend(&root, &request)
            });
        }
        world.repo.git(&["config", "uploadpack.allowFilter", &filters.to_string()]);
        let all = commits(&world, 40);
        let last = all[39];
        world.main();
        for (behind, requests) in [(10, 2), (39, 3)] {
            world.server.take_log();
            assert_eq!(descent(&world, &all[39 - behind], &last), Descent::Follows);
            let log = world.server.take_log();
            let bytes: usize = log.iter().map(|r| r.body.len() + r.answered).sum();
            assert_eq!(log.len(), requests, "{behind} commits behind");
            // A commit of the test is about 150 bytes in a pack, a file 2,500.
            assert_eq!(bytes < 12_000, filters, "{bytes} bytes for {behind} commits");
        }
    }
}

#[test]
fn history_that_was_written_anew_is_told() {
    let world = World::new();
    let all = commits(&world, 20);
    world.main();
    world.repo.point("refs/heads/main", &all[4]);
    let amended = world.repo.commit("refs/heads/main", &[("a.yaml", "amended")]);
    world.main();
    assert_eq!(descent(&world, &all[19], &amended), Descent::Rewritten);
    assert_eq!(descent(&world, &all[4], &amended), Descent::Follows);
    // Back to where it was.
    assert_eq!(descent(&world, &all[19], &all[4]), Descent::Rewritten);
    let unrelated = world.repo.commit_tree(
        &world.repo.git(&["rev-parse", "main^{tree}"]),
        &[],
        "another history",
    );
    world.repo.point("refs/heads/main", &unrelated);
    world.main();
    assert_eq!(descent(&world, &amended, &unrelated), Descent::Rewritten);
    // Nothing of the question stays.
    let names = std::fs::read_dir(world.cache().join("mirrors")).unwrap();
    assert_eq!(names.count(), 1);
    for commit in [all[19], amended, unrelated] {
        world.mirrors.snapshot(&world.remote(), &commit).unwrap();
    }
}

/// Git looks for parents right after the tree, and for nothing that only looks like one.
#[test]
fn a_parent_that_stands_where_git_sees_none_is_none() {
    let world = World::new();
    let last = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    world.main();
    let tree = world.repo.git(&["rev-parse", "main^{tree}"]);
    let person = "Eve <eve@example.com> 1700000000 +0000";
    let head = format!("tree {tree}\nauthor {person}\ncommitter {person}\n");
    for after in [format!("parent {last}\n"), format!("encoding UTF-8\nparent {last}\n")] {
        let object = format!("{head}{after}\nanother history\n");
        let made = world.repo.git_with(&["hash-object", "-t", "commit", "-w", "--stdin"], &object);
        let made: CommitId = made.parse().unwrap();
        assert_eq!(world.repo.git(&["rev-list", "--count", &made.to_string()]), "1");
        world.repo.point("refs/heads/main", &made);
        world.main();
        assert_eq!(descent(&world, &last, &made), Descent::Rewritten, "{after}");
    }
}

/// However long the history is: that of both ends at what they have in common.
#[test]
fn an_amended_commit_is_known_to_be_one_without_a_question() {
    let world = World::new();
    let all = commits(&world, 40);
    world.main();
    world.repo.point("refs/heads/main", &all[38]);
    let amended = world.repo.commit("refs/heads/main", &[("a.yaml", "amended")]);
    world.main();
    world.server.take_log();
    assert_eq!(descent(&world, &all[39], &amended), Descent::Rewritten);
    assert!(world.server.take_log().is_empty());
    // And back to what was before it.
    world.repo.point("refs/heads/main", &all[38]);
    world.main();
    world.server.take_log();
    assert_eq!(descent(&world, &amended, &all[38]), Descent::Rewritten);
    assert!(world.server.take_log().is_empty());
    // With more on top one step is enough, where it took all of history before.
    let mut last = amended;
    world.repo.point("refs/heads/main", &amended);
    for i in 0..5 {
        last = world.repo.commit("refs/heads/main", &[("a.yaml", &format!("more {i}"))]);
    }
    world.main();
    world.server.take_log();
    assert_eq!(descent(&world, &all[39], &last), Descent::Rewritten);
    assert_eq!(world.server.take_log().len(), 2);
}

#[test]
fn what_a_question_is_answered_in_stays_while_other_mirrors_go() {
    let world = World::new();
    let all = commits(&world, 3);
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Arc::new(Mirrors::open(dir.path(), Limits::default()).unwrap());
    let asking: Arc<OnceLock<Arc<Mirrors>>> = Arc::default();
    let (root, hook) = (world.dir.path().join("git"), Arc::clone(&asking));
    let server = Server::with(move |request| {
        // Somebody lets go of all mirrors while the server looks for an answer.
        if let Some(mirrors) = hook.get().filter(|_| request.is_fetch()) {
            mirrors.retain(mirrors.moment(), &[], &[]).unwrap();
        }
        backend(&root, request)
    });
    let remote = remote(&server.url("app.git"));
    mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap();
    asking.set(Arc::clone(&mirrors)).unwrap();
    let found = mirrors.descent(&remote, &all[0], &all[2], &Cancel::new()).unwrap();
    assert_eq!(found, Descent::Follows);
    mirrors.snapshot(&remote, &all[2]).unwrap();
}
