//! A process that is killed at any moment leaves a mirror that the next one can use, and nothing that
//! grows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plumb_source::{Cancel, CommitId, Limits, Mirrors};

use crate::repo::Repo;
use crate::server::{RESULT, Reply, Server, backend};
use crate::{World, branch};

const CACHE: &str = "PLUMB_TEST_CACHE";
const URL: &str = "PLUMB_TEST_URL";

fn limits() -> Limits {
    Limits { packs: 3, ..Limits::default() }
}

/// What the tests below kill.
#[test]
#[ignore = "it is a process of its own for the tests that kill it"]
fn victim() {
    let (Ok(cache), Ok(url)) = (std::env::var(CACHE), std::env::var(URL)) else { return };
    let mirrors = Mirrors::open(Path::new(&cache), limits()).unwrap();
    let remote = crate::remote(&url);
    let mut last = None;
    loop {
        let commit = mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap().commit;
        let kept: Vec<CommitId> = last.into_iter().chain([commit]).collect();
        mirrors.keep(&remote, &kept).unwrap();
        last = Some(commit);
    }
}

struct Victim(Child);

impl Victim {
    fn start(cache: &Path, url: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::victim", "--ignored"])
            .env(CACHE, cache)
            .env(URL, url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn kill(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "it ended by itself");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_mins(1), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The files and directories below a directory.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(below(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

#[test]
fn in_the_middle_of_a_pack() {
    let mut world = World::new();
    let root = world.dir.path().join("git");
    let stalls = Arc::new(AtomicBool::new(false));
    let stalled = Arc::clone(&stalls);
    world.server = Server::with(move |request| match backend(&root, request) {
        Reply::Whole(200, _, body) if request.is_fetch() && stalled.load(Ordering::SeqCst) => {
            Reply::Stall(RESULT, body[..body.len() / 2].to_vec())
        }
        reply => reply,
    });
    let numbers = |seed: u64| {
        let numbers = (0..200_000).map(|i| (i * seed % 100_003).to_string());
        numbers.collect::<Vec<_>>().join("\n")
    };
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", &numbers(31))]);
    world.main();
    let (cache, remote) = (world.cache(), world.remote());
    let packs = world.mirror_dir().join("objects/pack");
    drop(world.mirrors);
    let before = below(&cache.join("mirrors"));
    let second = world.repo.commit("refs/heads/main", &[("a.yaml", &numbers(71))]);

    for _ in 0..3 {
        stalls.store(true, Ordering::SeqCst);
        let victim = Victim::start(&cache, &remote.url);
        let arriving = || {
            let all = fs::read_dir(&packs).unwrap().map(|entry| entry.unwrap().path());
            let mut halves = all.filter(|path| !path.to_str().unwrap().contains("pack-"));
            halves.any(|path| fs::metadata(path).is_ok_and(|half| half.len() > 10_000))
        };
        wait_until("a part of a pack", arriving);
        victim.kill();
        assert!(arriving(), "there is something to clean");
        // The lock went with it.
        let mirrors = Mirrors::open(&cache, limits()).unwrap();
        assert_eq!(below(&cache.join("mirrors")), before);
        assert!(mirrors.is_whole(&remote, &first).unwrap());
    }
    stalls.store(false, Ordering::SeqCst);
    let mirrors = Mirrors::open(&cache, limits()).unwrap();
    let main = mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap();
    assert_eq!(main.commit, second);
    assert!(mirrors.is_whole(&remote, &second).unwrap());
}

/// Each request brings another commit, so that it fetches, lets go and tidies all the time.
#[test]
fn at_any_moment() {
    let mut world = World::new();
    let commits: Vec<CommitId> = (0..150)
        .map(|i| {
            let text = format!("{i}\n").repeat(3000);
            world.repo.commit("refs/heads/all", &[("a.yaml", &text), ("b.yaml", &i.to_string())])
        })
        .collect();
    let root = world.dir.path().join("git");
    let repo = Repo { path: world.repo.path.clone() };
    let next = Arc::new(AtomicUsize::new(0));
    let (asked, all) = (Arc::clone(&next), commits.clone());
    world.server = Server::with(move |request| {
        if request.method == "POST" && !request.is_fetch() {
            let n = asked.fetch_add(1, Ordering::SeqCst);
            repo.point("refs/heads/main", &all[n % all.len()]);
        }
        backend(&root, request)
    });
    let (cache, remote) = (world.cache(), world.remote());
    drop(world.mirrors);
    let mut most = 0;
    for round in 0..12_usize {
        let victim = Victim::start(&cache, &remote.url);
        let from = next.load(Ordering::SeqCst);
        wait_until("fetches", || next.load(Ordering::SeqCst) > from + 3 + round % 5);
        // At another moment each time.
        for _ in 0..round * 20_000 {
            std::hint::spin_loop();
        }
        victim.kill();
        let mirrors = Mirrors::open(&cache, limits()).unwrap();
        let count = below(&cache.join("mirrors")).len();
        most = most.max(count);
        let here = commits.iter().filter(|commit| mirrors.has(&remote, commit).unwrap());
        let here: Vec<&CommitId> = here.collect();
        assert!(!here.is_empty(), "round {round}");
        for commit in here {
            assert!(mirrors.is_whole(&remote, commit).unwrap(), "round {round}: {commit}");
        }
        let main = mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap();
        assert!(mirrors.is_whole(&remote, &main.commit).unwrap());
        assert_eq!(mirrors.usage().rebuilt, 0, "a kill damages nothing");
    }
    // Four packs with their indexes, what is anchored, and what every repository has.
    assert!(most < 60, "{most}");
}
