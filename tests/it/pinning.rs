//! Which commit and which files are applied, and when: pins, refs, suspension, requests, ignore
//! rules and changed specs.

use plumb_testkit::{Scratch, runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

/// Waits until the application has handled this generation and is ready.
async fn handled(world: &World, name: &str) -> Value {
    let generation = world.get(&world.apps(), name).await["metadata"]["generation"].clone();
    world
        .wait_condition(&world.apps(), name, ("Ready", "True"), |object| {
            object["status"]["observedGeneration"] == generation
        })
        .await
}

#[test]
fn a_pin_holds_an_application_at_a_commit() {
    runtime().block_on(async {
        let world = World::new("pin").await;
        let value = |n: usize| config_map("a", &n.to_string());
        // Two commits that the agent has not seen when it starts.
        let mut commits = Vec::new();
        for n in 0..2 {
            commits.push(world.repo.commit(&[("app/a.yaml", Some(&value(n)))], "older"));
        }
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commits[1]).await;

        let pin = async |commit: &Value| {
            world.edit(&world.apps(), "web", &json!({"spec": {"revision": commit}})).await;
        };
        // To one that was never fetched: the mirror has the tips only.
        pin(&json!(commits[0])).await;
        let object = handled(&world, "web").await;
        assert_eq!(object["status"]["lastAppliedRevision"], format!("sha1:{}", commits[0]));
        assert_eq!(world.data("a").await, Some(json!({"value": "0"})));

        // The branch goes on without it, and drift is corrected to the pinned commit.
        commits.push(world.repo.commit(&[("app/a.yaml", Some(&value(2)))], "while pinned"));
        world.look().await;
        let tip = format!("main@sha1:{}", commits[2]);
        world
            .wait_condition(&world.sources(), "repo", ("Ready", "True"), |object| {
                object["status"]["revision"] == tip
            })
            .await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "0").await;

        // A commit that does not exist changes nothing, and what is there stays enforced.
        pin(&json!("0".repeat(40))).await;
        let kept = format!("sha1:{} stays applied and is kept as it is", &commits[0][..12]);
        let parts = ["spec.revision", "0000000000", "was not found", &*kept];
        world.wait_refused(&world.apps(), "web", "RevisionNotFound", &parts).await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "0").await;
        let object = world.get(&world.apps(), "web").await;
        assert_eq!(condition(&object, "Ready")["reason"], "RevisionNotFound", "{object}");

        pin(&Value::Null).await;
        world.wait_applied("web", &commits[2]).await;
        assert_eq!(world.data("a").await, Some(json!({"value": "2"})));

        // The history has the newest first, ten at most, and each can be gone back to.
        for n in 3..13 {
            commits.push(world.repo.commit(&[("app/a.yaml", Some(&value(n)))], "more"));
            world.look().await;
            world.wait_applied("web", &commits[n]).await;
        }
        let object = world.get(&world.apps(), "web").await;
        let history = object["status"]["history"].as_array().unwrap();
        let revisions: Vec<_> = history.iter().map(|entry| entry["revision"].clone()).collect();
        let newest: Vec<_> = commits
            .iter()
            .rev()
            .take(10)
            .map(|commit| json!(format!("main@sha1:{commit}")))
            .collect();
        assert_eq!(revisions, newest);
        assert!(history.iter().all(|entry| entry["result"] == "Succeeded"), "{history:?}");
        world.git.stop().await;
        pin(&json!(commits[3])).await;
        world.wait_value("a", "3").await;
        let object = handled(&world, "web").await;
        assert_eq!(
            object["status"]["history"][0]["revision"],
            format!("sha1:{}", commits[3]),
            "{object}"
        );
    });
}

#[test]
fn a_restart_while_git_is_away_pins_what_is_in_the_cache_and_says_what_is_not() {
    runtime().block_on(async {
        let world = World::new("pin-restart").await;
        let files = |value: &str| {
            let (a, b) = (config_map("a", value), config_map("b", value));
            world.repo.commit(&[("app/a.yaml", Some(&a)), ("free/b.yaml", Some(&b))], value)
        };
        let (cache, empty) = (Scratch::new("cache"), Scratch::new("cache"));
        let agent_on = |cache: &Scratch| {
            let args = ["--identity", "one-pod", "--cache-dir", cache.path().to_str().unwrap()];
            world.agent_with(world.identity.kubeconfig().to_owned(), &args)
        };
        let mut agent = agent_on(&cache);
        world.apply(&world.source("1h")).await;
        let first = files("1");
        for (name, path) in [("web", "app"), ("free", "free")] {
            world.apply(&world.app(name, path, "1h")).await;
            world.wait_applied(name, &first).await;
        }
        let second = files("2");
        world.look().await;
        for name in ["web", "free"] {
            world.wait_applied(name, &second).await;
        }
        agent.stop();
        world.git.stop().await;

        // What the history names is there also when the agent has just started.
        let mut agent = agent_on(&cache);
        world.edit(&world.apps(), "web", &json!({"spec": {"revision": first}})).await;
        handled(&world, "web").await;
        assert_eq!(world.data("a").await, Some(json!({"value": "1"})));
        world.edit(&world.config_maps(), "b", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("b", "2").await;
        agent.stop();

        // With an empty cache nothing can be done before Git is back, and that is said.
        let mut agent = agent_on(&empty);
        let nothing = "nothing is corrected and nothing pruned";
        let absent = format!("commit {} is not in the cache and cannot be fetched", &first[..12]);
        let parts = [&*absent, "refused the connection", nothing];
        world.wait_refused(&world.apps(), "web", "ConnectionRefused", &parts).await;
        let parts = ["refused the connection", nothing];
        world.wait_refused(&world.apps(), "free", "SourceNotReady", &parts).await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.git.restart().await;
        world.look().await;
        world.wait_value("a", "1").await;
        world.wait_applied("free", &second).await;
        handled(&world, "web").await;
        agent.stop();
    });
}

#[test]
fn suspension_stops_all_and_resuming_goes_on() {
    runtime().block_on(async {
        let world = World::new("suspend").await;
        let first = world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "1"))),
                ("other/b.yaml", Some(&config_map("b", "1"))),
            ],
            "one",
        );
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.apply(&world.app("other", "other", "1h")).await;
        world.wait_applied("web", &first).await;
        world.wait_applied("other", &first).await;

        world.edit(&world.apps(), "web", &json!({"spec": {"suspend": true}})).await;
        probe.suspended("web").await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        let second = world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "2"))),
                ("app/new.yaml", Some(&config_map("new", "2"))),
                ("other/b.yaml", Some(&config_map("b", "2"))),
            ],
            "two",
        );
        world.look().await;
        // The other one shows that the commit went round.
        world.wait_applied("other", &second).await;
        world.edit(&world.config_maps(), "b", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("b", "2").await;
        assert_eq!(world.data("a").await, Some(json!({"value": "by hand"})));
        assert_eq!(world.data("new").await, None);
        let object = world.get(&world.apps(), "web").await;
        assert_eq!(object["status"]["lastAppliedRevision"], format!("main@sha1:{first}"));
        assert_eq!(condition(&object, "Ready")["status"], "True");

        world.edit(&world.apps(), "web", &json!({"spec": {"suspend": false}})).await;
        world.wait_applied("web", &second).await;
        assert_eq!(world.data("a").await, Some(json!({"value": "2"})));
        assert_eq!(world.data("new").await, Some(json!({"value": "2"})));

        // A source that is suspended stays where it is; its applications go on with that.
        world.edit(&world.sources(), "repo", &json!({"spec": {"suspend": true}})).await;
        let third = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "3")))], "three");
        world.git.forget();
        world.request(&world.sources(), "repo", "while suspended").await;
        world
            .wait_condition(&world.sources(), "repo", ("Ready", "True"), |object| {
                object["status"]["lastHandledReconcileAt"] == "while suspended"
            })
            .await;
        assert_eq!(world.git.requests(), []);
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "2").await;
        world.edit(&world.sources(), "repo", &json!({"spec": {"suspend": false}})).await;
        world.wait_applied("web", &third).await;
    });
}

#[test]
fn a_request_is_handled_and_a_new_interval_writes_no_object() {
    runtime().block_on(async {
        let world = World::new("request").await;
        let first = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let _agent = world.agent();
        world.sync("web", "app", &first).await;
        world.wait_event("web", &["Applied"]).await;
        world.wait_event("repo", &["NewRevision"]).await;
        world.plane.settled().await;
        let mark = world.plane.audit().mark();

        world.request(&world.apps(), "web", "2026-01-01T00:00:00Z").await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["lastHandledReconcileAt"] == "2026-01-01T00:00:00Z"
            })
            .await;
        world.edit(&world.apps(), "web", &json!({"spec": {"interval": "2h"}})).await;
        let object = handled(&world, "web").await;
        assert_eq!(object["status"]["history"].as_array().unwrap().len(), 1, "{object}");

        world.plane.settled().await;
        let wrote: Vec<_> = world
            .plane
            .audit()
            .since(mark)
            .into_iter()
            .filter(|event| event.user == world.identity.user() && event.resource != "leases")
            .filter(|event| !matches!(&*event.verb, "get" | "list" | "watch"))
            .map(|event| event.what())
            .collect();
        assert_eq!(wrote, ["patch plumb.dev/applications/status"; 2]);

        // The request of a source brings the new commit at once.
        let second = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "two");
        world.request(&world.sources(), "repo", "now").await;
        world.wait_applied("web", &second).await;
        let source = world.get(&world.sources(), "repo").await;
        assert_eq!(source["status"]["lastHandledReconcileAt"], "now");
    });
}

#[test]
fn every_kind_of_ref_is_followed() {
    runtime().block_on(async {
        let world = World::new("refs").await;
        let names = ["branch", "tag", "semver", "name", "commit", "head"];
        let commit = |value: &str, on: &str| {
            let files: Vec<_> = names
                .iter()
                .map(|name| (format!("{name}/a.yaml"), config_map(name, value)))
                .collect();
            let files: Vec<_> = files.iter().map(|(p, c)| (p.as_str(), Some(c.as_str()))).collect();
            world.repo.on(on).commit(&files, value)
        };
        let repo = &world.repo;
        let first = commit("1", "main");
        repo.tag("v1.0.0", &first);
        let second = commit("2", "main");
        repo.annotated_tag("v1.1.0", &second, "release");
        let third = commit("3", "main");
        repo.tag("v2.0.0", &third);
        repo.tag("v1.2.0-rc.1", &third);
        let proposed = commit("4", "proposal");
        repo.set_ref("refs/pull/7/head", &proposed);
        repo.delete_branch("proposal");
        let cases = [
            ("branch", json!({"branch": "main"}), format!("main@sha1:{third}"), "3"),
            ("tag", json!({"tag": "v1.0.0"}), format!("v1.0.0@sha1:{first}"), "1"),
            ("semver", json!({"semver": "1.x"}), format!("v1.1.0@sha1:{second}"), "2"),
            (
                "name",
                json!({"name": "refs/pull/7/head"}),
                format!("refs/pull/7/head@sha1:{proposed}"),
                "4",
            ),
            ("commit", json!({"commit": first}), format!("sha1:{first}"), "1"),
            ("head", Value::Null, format!("main@sha1:{third}"), "3"),
        ];
        let _agent = world.agent();
        for (name, reference, ..) in &cases {
            let mut source = world.source("1h");
            source["metadata"]["name"] = json!(name);
            source["spec"]["ref"] = reference.clone();
            if reference.is_null() {
                source["spec"].as_object_mut().unwrap().remove("ref");
            }
            world.apply(&source).await;
            let mut app = world.app(name, name, "1h");
            app["spec"]["sourceRef"]["name"] = json!(name);
            world.apply(&app).await;
        }
        let applied = async |name: &str, revision: &str, value: &str| {
            world
                .wait_condition(&world.apps(), name, ("Ready", "True"), |object| {
                    object["status"]["lastAppliedRevision"] == revision
                })
                .await;
            assert_eq!(world.data(name).await, Some(json!({"value": value})), "{name}");
        };
        for (name, _, revision, value) in &cases {
            applied(name, revision, value).await;
        }

        // Each follows what moves under it, and only that.
        let fifth = commit("5", "main");
        repo.annotated_tag("v1.3.0", &fifth, "release");
        repo.tag("v1.0.0", &second);
        repo.set_ref("refs/pull/7/head", &fifth);
        for (name, ..) in &cases {
            world.request(&world.sources(), name, "moved").await;
        }
        let moved = [
            ("branch", format!("main@sha1:{fifth}"), "5"),
            ("tag", format!("v1.0.0@sha1:{second}"), "2"),
            ("semver", format!("v1.3.0@sha1:{fifth}"), "5"),
            ("name", format!("refs/pull/7/head@sha1:{fifth}"), "5"),
            ("commit", format!("sha1:{first}"), "1"),
            ("head", format!("main@sha1:{fifth}"), "5"),
        ];
        for (name, revision, value) in &moved {
            applied(name, revision, value).await;
        }
    });
}

#[test]
fn changed_ignore_rules_and_paths_take_effect_at_once() {
    runtime().block_on(async {
        let world = World::new("ignore").await;
        world.repo.commit(
            &[
                (".plumbignore", Some("drafts/\n")),
                (".sourceignore", Some("flux.yaml\n")),
                ("app/flux.yaml", Some(&config_map("flux", "1"))),
                ("app/a.yaml", Some(&config_map("a", "1"))),
                ("app/test.yaml", Some(&config_map("test", "1"))),
                ("app/drafts/c.yaml", Some("kind: [")),
                ("app/.plumbignore", Some("local.yaml\n")),
                ("app/local.yaml", Some(&config_map("local", "1"))),
                ("other/b.yaml", Some(&config_map("b", "1"))),
            ],
            "with ignored files",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let object = handled(&world, "web").await;
        assert_eq!(object["status"]["objects"], 2);
        world.wait_value("test", "1").await;
        assert_eq!(world.data("local").await, None);
        assert_eq!(world.data("flux").await, None);

        // A rule that comes takes the object out, as if it had left Git.
        world.edit(&world.sources(), "repo", &json!({"spec": {"ignore": "test.yaml\n"}})).await;
        world.wait_gone(&world.config_maps(), "test").await;
        // One that takes back in is stronger than those in the repository.
        world.edit(&world.sources(), "repo", &json!({"spec": {"ignore": "!local.yaml\n"}})).await;
        world.wait_value("local", "1").await;
        world.wait_value("test", "1").await;
        let object = world.get(&world.apps(), "web").await;
        let ready = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["objects"] == 3
            })
            .await;
        assert_eq!(
            ready["status"]["lastAppliedRevision"], object["status"]["lastAppliedRevision"],
            "the commit is the same"
        );
        world.edit(&world.sources(), "repo", &json!({"spec": {"ignore": "a[\n"}})).await;
        let parts = ["spec.ignore:1", "invalid pattern"];
        world.wait_refused(&world.apps(), "web", "BuildFailed", &parts).await;
        world.edit(&world.sources(), "repo", &json!({"spec": {"ignore": null}})).await;
        world.wait_gone(&world.config_maps(), "local").await;

        // A path that is not there takes nothing away; what was applied stays enforced.
        world.edit(&world.apps(), "web", &json!({"spec": {"path": "othr"}})).await;
        let parts = ["path othr does not exist"];
        world.wait_refused(&world.apps(), "web", "PathNotFound", &parts).await;
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "1").await;

        world.edit(&world.apps(), "web", &json!({"spec": {"path": "./other/"}})).await;
        handled(&world, "web").await;
        wait_for("the other path alone", LIMIT, async || {
            let found = (world.data("a").await, world.data("test").await, world.data("b").await);
            match &found {
                (None, None, Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    });
}
