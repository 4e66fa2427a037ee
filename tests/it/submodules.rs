//! Submodules of a GitRepository.

use plumb_testkit::{Change, Scratch, runtime};
use serde_json::{Value, json};

use crate::world::{World, config_map};

/// Commits a submodule at a path, with what `git submodule add` writes about it.
fn add(world: &World, at: &str, commit: &str, url: &str) -> String {
    let names = format!("[submodule \"{at}\"]\n\tpath = {at}\n\turl = {url}\n");
    let changes = [
        Change::File(".gitmodules".into(), names.into_bytes()),
        Change::Submodule(at.into(), commit.into()),
    ];
    world.repo.commit_changes(&changes, "a submodule")
}

/// Waits until the source is ready at a commit.
async fn wait_fetched(world: &World, commit: &str) {
    let tip = format!("main@sha1:{commit}");
    let ready = |object: &Value| object["status"]["revision"] == tip;
    world.wait_condition(&world.sources(), "repo", ("Ready", "True"), ready).await;
}

#[test]
fn submodules_are_read_where_that_is_asked_for() {
    runtime().block_on(async {
        let world = World::new("submodules").await;
        let lib = world.git.repo("lib");
        let value = |name: &str, text: &str| config_map(name, text);
        let part = lib.commit(&[("app/b.yaml", Some(&value("b", "1")))], "a part");
        world.repo.commit(&[("app/a.yaml", Some(&value("a", "1")))], "without");
        let first = add(&world, "libs/lib", &part, "../lib.git");
        let cache = Scratch::new("cache");
        let start = || {
            let builder = world.agent_builder(world.identity.kubeconfig().to_owned());
            builder.env("PLUMB_CACHE_DIR", cache.path()).start()
        };
        let mut agent = start();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("own", "app", "1h")).await;
        world.apply(&world.app("lib", "libs/lib/app", "1h")).await;
        world.wait_applied("own", &first).await;
        let parts = ["libs/lib/app", "Git submodule libs/lib", "spec.recurseSubmodules"];
        world.wait_refused(&world.apps(), "lib", "BuildFailed", &parts).await;

        // A change of the field is acted on at once.
        let recurse = async |on: bool| {
            let patch = json!({"spec": {"recurseSubmodules": on}});
            world.edit(&world.sources(), "repo", &patch).await;
        };
        recurse(true).await;
        world.wait_applied("lib", &first).await;
        assert_eq!(world.data("b").await, Some(json!({"value": "1"})));

        // Another commit of the submodule is news for those that read it.
        let part = lib.commit(&[("app/b.yaml", Some(&value("b", "2")))], "a part");
        let second = add(&world, "libs/lib", &part, "../lib.git");
        world.look().await;
        world.wait_applied("lib", &second).await;
        assert_eq!(world.data("b").await, Some(json!({"value": "2"})));
        let own = world.get(&world.apps(), "own").await;
        assert_eq!(own["status"]["lastAppliedRevision"], format!("main@sha1:{first}"));

        // One that cannot be fetched refuses the commit, and what there is stays enforced.
        let lost = "1".repeat(40);
        add(&world, "libs/lib", &lost, "../lib.git");
        world.look().await;
        let url = world.git.url("lib");
        let parts = ["submodule libs/lib", &*url, &lost, "was not found"];
        world.wait_refused(&world.sources(), "repo", "SubmoduleFailed", &parts).await;
        world.edit(&world.config_maps(), "b", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("b", "2").await;
        let hostile = "https://ada:hunter2@git.example/lib.git";
        add(&world, "libs/lib", &part, hostile);
        world.look().await;
        let parts = ["submodule libs/lib", "https://git.example/lib.git", "carries credentials"];
        world.wait_refused(&world.sources(), "repo", "SubmoduleFailed", &parts).await;

        // What was fetched is there after a restart, without any server.
        let third = add(&world, "libs/lib", &part, "../lib.git");
        world.look().await;
        wait_fetched(&world, &third).await;
        assert!(!agent.logs().contains("hunter2"), "{}", agent.logs());
        assert!(agent.stop().success());
        world.git.stop().await;
        world.edit(&world.config_maps(), "b", &json!({"data": {"value": "by hand"}})).await;
        let _agent = start();
        world.wait_value("b", "2").await;
        world.git.restart().await;

        recurse(false).await;
        let parts = ["Git submodule libs/lib", "spec.recurseSubmodules"];
        world.wait_refused(&world.apps(), "lib", "BuildFailed", &parts).await;
        assert_eq!(world.data("b").await, Some(json!({"value": "2"})), "nothing is pruned");
    });
}

/// What nobody signed names no repository that is asked for anything.
#[test]
fn submodules_of_what_is_not_verified_are_not_fetched() {
    runtime().block_on(async {
        let world = World::new("submodules-signed").await;
        let lib = world.git.repo("lib");
        let part = lib.commit(&[("b.yaml", Some(&config_map("b", "1")))], "a part");
        add(&world, "lib", &part, "../lib.git");
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAZB7F+dVF/pXLyzww5B75BPWJp0iWZcxmGoDIVjaLmD";
        world.apply(&world.secret("keys", &json!({"ada.sshpub": key}))).await;
        let mut source = world.source("1h");
        source["spec"]["recurseSubmodules"] = json!(true);
        source["spec"]["verify"] = json!({"secretRef": {"name": "keys"}});
        let _agent = world.agent();
        world.apply(&source).await;
        world.wait_refused(&world.sources(), "repo", "VerificationFailed", &["commit"]).await;
        let asked = world.git.requests();
        assert!(asked.iter().any(|request| request.path.starts_with("/repo.git")));
        assert!(!asked.iter().any(|request| request.path.starts_with("/lib.git")), "{asked:?}");
    });
}
