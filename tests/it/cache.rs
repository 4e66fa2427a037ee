//! The cache of Git objects as the agent keeps it: its limit, a disk that is full, damage, and that one
//! process has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plumb_testkit::{Agent, Scratch, runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

/// Text of about this many bytes that does not get shorter by much.
fn noise(seed: u64, bytes: usize) -> String {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    std::iter::repeat_with(next).take(bytes / 16).collect()
}

fn agent_on(world: &World, cache: &Path, args: &[&str]) -> Agent {
    let mut all = vec!["--identity", "one-pod", "--cache-dir", cache.to_str().unwrap()];
    all.extend(args);
    world.agent_with(world.identity.kubeconfig().to_owned(), &all)
}

/// A GitRepository of another repository of the world's server.
fn source(world: &World, name: &str) -> Value {
    let mut source = world.source("1h");
    source["metadata"]["name"] = json!(name);
    source["spec"]["url"] = json!(world.git.url(name));
    source
}

fn mirrors(cache: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(cache.join("mirrors")).unwrap();
    all.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_full_cache_is_told_and_takes_more_once_a_repository_goes() {
    runtime().block_on(async {
        let world = World::new("cache-full").await;
        let map = config_map("a", "1");
        let commit = world.repo.commit(&[("app/a.yaml", Some(&map))], "one");
        for (name, bytes) in [("other", 600_000), ("large", 1_000_000)] {
            world.git.repo(name).commit(&[("a.txt", Some(&noise(7, bytes)))], "one");
        }
        let cache = Scratch::new("cache");
        let mut agent = agent_on(&world, cache.path(), &["--cache-limit", "900Ki"]);
        let probe = Probe::of(&mut agent).await;
        world.sync("web", "app", &commit).await;
        world.apply(&source(&world, "other")).await;
        world.wait_condition(&world.sources(), "other", ("Ready", "True"), |_| true).await;
        world.apply(&source(&world, "large")).await;
        let parts = ["the cache is full: ", " of 900Ki are taken", "--cache-limit"];
        let object = world.wait_refused(&world.sources(), "large", "CacheFull", &parts).await;
        assert_eq!(condition(&object, "Stalled"), Value::Null, "it may pass: {object}");
        let scrape = probe.scrape().await;
        assert_eq!(scrape.sum("plumb_cache_limit_bytes", ""), 900 << 10);
        assert_eq!(scrape.sum("plumb_mirrors_evicted_total", ""), 0);
        assert!(scrape.sum("plumb_cache_bytes", "") <= 900 << 10, "{scrape:?}");

        // What is there goes on.
        let map = config_map("a", "2");
        let commit = world.repo.commit(&[("app/a.yaml", Some(&map))], "two");
        world.look().await;
        world.wait_applied("web", &commit).await;

        // With nothing but the deletion to tell that there is room.
        world.delete(&world.sources(), "other").await;
        world.wait_condition(&world.sources(), "large", ("Ready", "True"), |_| true).await;
        let scrape = probe.scrape().await;
        assert_eq!(scrape.sum("plumb_mirrors_evicted_total", ""), 1, "{scrape:?}");
        assert_eq!(scrape.sum("plumb_mirrors", ""), 2, "{scrape:?}");
        assert_eq!(mirrors(cache.path()).len(), 2);
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "2").await;
    });
}

/// After a restart nothing of a repository goes that nobody could read yet, whoever wants room.
#[test]
fn a_mirror_whose_secret_is_away_stays() {
    runtime().block_on(async {
        let world = World::new("cache-unread").await;
        let map = config_map("a", "1");
        let commit = world.repo.commit(&[("app/a.yaml", Some(&map))], "one");
        world.git.require("repo", "robot", "secret");
        let secret = world.secret("git", &json!({"username": "robot", "password": "secret"}));
        world.apply(&secret).await;
        let mut private = world.source("1h");
        private["spec"]["secretRef"] = json!({"name": "git"});
        let cache = Scratch::new("cache");
        let args = ["--cache-limit", "900Ki"];
        let mut agent = agent_on(&world, cache.path(), &args);
        world.apply(&private).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        agent.stop();

        let secrets = world.api("v1", "Secret");
        world.delete(&secrets, "git").await;
        world.git.repo("large").commit(&[("a.txt", Some(&noise(7, 2_400_000)))], "one");
        world.apply(&source(&world, "large")).await;
        let mut agent = agent_on(&world, cache.path(), &args);
        let probe = Probe::of(&mut agent).await;
        world.wait_refused(&world.sources(), "repo", "SecretNotFound", &["git"]).await;
        world.wait_refused(&world.sources(), "large", "CacheFull", &["the cache is full"]).await;
        // It comes back without the server.
        world.git.forget();
        world.git.stop().await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.apply(&secret).await;
        world.wait_value("a", "1").await;
        assert_eq!(probe.scrape().await.sum("plumb_mirrors_evicted_total", ""), 0);
    });
}

/// Fills all files of the packs with zeros, as a power loss may leave them. What is open stays as it is.
fn damage(cache: &Path) {
    for mirror in mirrors(cache) {
        for entry in fs::read_dir(mirror.join("objects/pack")).unwrap() {
            let file = entry.unwrap().path();
            let length = fs::metadata(&file).unwrap().len();
            fs::remove_file(&file).unwrap();
            fs::write(&file, vec![0; usize::try_from(length).unwrap()]).unwrap();
        }
    }
}

/// Waits until no snapshot is open any more: what is read by one that is comes from the files of before.
async fn closed(agent: &Agent, cache: &Path) {
    let maps = format!("/proc/{}/maps", agent.id());
    let cache = cache.display().to_string();
    wait_for("all snapshots are closed", LIMIT, || async {
        let open = fs::read_to_string(&maps).unwrap();
        (!open.contains(&cache)).then_some(())
    })
    .await;
}

#[test]
fn damage_is_told_while_git_is_away_and_heals_once_it_is_back() {
    runtime().block_on(async {
        let world = World::new("cache-damage").await;
        let (one, two) = (config_map("a", "1"), config_map("a", "2"));
        let files = [("app/a.yaml", Some(one.as_str())), ("other/a.yaml", Some(two.as_str()))];
        let commit = world.repo.commit(&files, "one");
        let cache = Scratch::new("cache");
        let mut agent = agent_on(&world, cache.path(), &[]);
        let probe = Probe::of(&mut agent).await;
        world.sync("web", "app", &commit).await;

        closed(&agent, cache.path()).await;
        damage(cache.path());
        world.git.stop().await;
        world.edit(&world.apps(), "web", &json!({"spec": {"path": "other"}})).await;
        let absent = format!("commit {}", &commit[..12]);
        let parts = [absent.as_str(), "cannot be fetched"];
        world.wait_refused(&world.apps(), "web", "ConnectionRefused", &parts).await;
        assert_eq!(world.data("a").await, Some(json!({"value": "1"})), "nothing else is applied");

        world.git.restart().await;
        world.wait_value("a", "2").await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;
        assert_eq!(probe.scrape().await.sum("plumb_mirrors_rebuilt_total", ""), 1);

        // And what a start finds.
        agent.stop();
        damage(cache.path());
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        let mut agent = agent_on(&world, cache.path(), &[]);
        agent.wait_for_log("may be damaged", LIMIT).await;
        world.wait_value("a", "2").await;
        let probe = Probe::of(&mut agent).await;
        assert_eq!(probe.scrape().await.sum("plumb_mirrors_rebuilt_total", ""), 1);
    });
}

/// A small disk, gone with this value.
struct Disk(Scratch);

impl Disk {
    /// `None` where this process may not mount anything.
    fn mount(size: &str) -> Option<Self> {
        let dir = Scratch::new("disk");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "plumb-test"])
            .arg(dir.path())
            .output();
        if mounted.unwrap().status.success() {
            return Some(Self(dir));
        }
        println!("not tested: mounting a small disk is not permitted here");
        None
    }

    fn resize(&self, size: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(self.0.path())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_and_what_was_applied_stays() {
    let Some(disk) = Disk::mount("1m") else { return };
    runtime().block_on(async {
        let world = World::new("disk-full").await;
        let map = config_map("a", "1");
        let commit = world.repo.commit(&[("app/a.yaml", Some(&map))], "one");
        let cache = disk.0.path().join("cache");
        let _agent = agent_on(&world, &cache, &[]);
        world.sync("web", "app", &commit).await;

        let (map, large) = (config_map("a", "2"), noise(3, 4_000_000));
        let files = [("app/a.yaml", Some(&*map)), ("large.txt", Some(&*large))];
        let second = world.repo.commit(&files, "two");
        world.look().await;
        let parts = ["the disk is full", "No space left on device", "the volume of the cache"];
        let object = world.wait_refused(&world.sources(), "repo", "DiskFull", &parts).await;
        assert_eq!(condition(&object, "Stalled"), Value::Null, "it may pass: {object}");
        assert_eq!(object["status"]["revision"], format!("main@sha1:{commit}"));
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;
        wait_for("the half of a pack to be gone", LIMIT, async || {
            let packs = fs::read_dir(mirrors(&cache)[0].join("objects/pack")).unwrap();
            let names: Vec<_> = packs.map(|entry| entry.unwrap().file_name()).collect();
            let whole = names.iter().all(|name| name.to_str().unwrap().starts_with("pack-"));
            if whole { Ok(()) } else { Err(names) }
        })
        .await;

        // Nobody tells that there is room: it tries again by itself.
        disk.resize("16m");
        world.wait_applied("web", &second).await;
        world.wait_value("a", "2").await;
    });
}

#[test]
fn one_process_has_a_cache_and_a_killed_one_has_none() {
    runtime().block_on(async {
        let world = World::new("cache-locked").await;
        let map = config_map("a", "1");
        let commit = world.repo.commit(&[("app/a.yaml", Some(&map))], "one");
        let cache = Scratch::new("cache");
        let mut first = agent_on(&world, cache.path(), &[]);
        world.sync("web", "app", &commit).await;

        // A standby on the same volume ends before it asks anything, and says why.
        let mut second = agent_on(&world, cache.path(), &[]);
        let ended = second.wait(LIMIT).unwrap();
        assert_eq!(ended.code(), Some(3), "{}", second.logs());
        for part in [
            "error: cannot use the cache directory",
            "is in use by another process",
            "hint: give each process a cache directory of its own",
        ] {
            assert!(second.logs().contains(part), "{}", second.logs());
        }
        // The first one is none the worse for it.
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;

        first.kill9();
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        let _third = agent_on(&world, cache.path(), &[]);
        world.wait_value("a", "1").await;
    });
}
