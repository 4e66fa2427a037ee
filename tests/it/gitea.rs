//! Gitea as people run it, for `cargo xtask test --peers`: a private repository, its webhook, its tags and
//! its pull requests. It is built first, which takes minutes.

use plumb_testkit::{Gitea, runtime};
use serde_json::json;

use crate::receiver::{FLAGS, Hooks};
use crate::world::{World, config_map};

const PASSWORD: &str = "password-of-gitea-5d20c7";
const HOOK: &str = "hook-secret-of-gitea-9e41b3";

/// Nothing is looked at within the hour but what Gitea tells of.
#[test]
fn pushes_tags_and_pull_requests_come_by_its_webhook() {
    if std::env::var_os("PLUMB_TEST_PEERS").is_none() {
        return;
    }
    runtime().block_on(async {
        let gitea = Gitea::start(PASSWORD).await.unwrap();
        gitea.create("deploy").await;
        let world = World::new("gitea").await;
        let url = gitea.push_url("deploy");
        let push = |reference: &str| world.repo.git(&["push", "--quiet", &url, reference]);
        let value = |text: &str| config_map("a", text);
        let first = world.repo.commit(&[("app/a.yaml", Some(&value("1")))], "one");
        push("main");

        world.apply(&world.secret("hooks", &json!({"gitea": HOOK}))).await;
        let mut agent = world.agent_with(world.identity.kubeconfig().to_owned(), &FLAGS);
        let hooks = Hooks::of(&mut agent).await;
        let login = json!({"username": Gitea::USER, "password": PASSWORD});
        world.apply(&world.secret("git", &login)).await;
        let source = |name: &str, reference| {
            let mut source = world.source("1h");
            source["metadata"]["name"] = json!(name);
            source["spec"]["url"] = json!(gitea.url("deploy"));
            source["spec"]["secretRef"] = json!({"name": "git"});
            source["spec"]["ref"] = reference;
            source
        };
        world.apply(&source("repo", json!({"branch": "main"}))).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;
        // From now on hooks are taken.
        hooks.wait("https://git.example/nobody/follows", HOOK, 202).await;
        let hook = json!({
            "type": "gitea", "active": true,
            "events": ["push", "create", "delete", "pull_request", "pull_request_sync"],
            "config": {"url": hooks.url("gitea"), "content_type": "json", "secret": HOOK},
        });
        gitea.post("repos/ada/deploy/hooks", &hook).await;

        let second = world.repo.commit(&[("app/a.yaml", Some(&value("2")))], "two");
        push("main");
        world.wait_applied("web", &second).await;
        world.wait_value("a", "2").await;

        let at = async |name: &str, revision: &str| {
            world
                .wait_condition(&world.sources(), name, ("Ready", "True"), |object| {
                    object["status"]["revision"] == revision
                })
                .await;
        };
        world.repo.tag("v1.0.0", &first);
        push("v1.0.0");
        world.apply(&source("tagged", json!({"semver": "1.x"}))).await;
        at("tagged", &format!("v1.0.0@sha1:{first}")).await;
        world.repo.annotated_tag("v1.1.0", &second, "a release");
        push("v1.1.0");
        at("tagged", &format!("v1.1.0@sha1:{second}")).await;

        let feature = world.repo.on("feature");
        world.repo.branch("feature", &second);
        let third = feature.commit(&[("app/a.yaml", Some(&value("3")))], "three");
        push("feature");
        let pull = json!({"head": "feature", "base": "main", "title": "three"});
        let pull = gitea.post("repos/ada/deploy/pulls", &pull).await;
        let name = format!("refs/pull/{}/head", pull["number"]);
        world.apply(&source("pull", json!({"name": &name}))).await;
        at("pull", &format!("{name}@sha1:{third}")).await;
        let fourth = feature.commit(&[("app/a.yaml", Some(&value("4")))], "four");
        push("feature");
        at("pull", &format!("{name}@sha1:{fourth}")).await;
        let logs = agent.logs();
        assert!(!logs.contains(PASSWORD) && !logs.contains(HOOK), "a secret is in the log");
    });
}
