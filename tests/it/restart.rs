//! What a restart finds out, and what it costs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use plumb_testkit::sample::{self, App};
use plumb_testkit::{Agent, Match, Proxy, Requests, Scratch, runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, config_map};

const COUNT: usize = 10;
/// Four of the sample, a ConfigMap and a Secret.
const KINDS: [&str; 6] = [
    "serviceaccounts",
    "services",
    "networking.k8s.io/ingresses",
    "apps/deployments",
    "configmaps",
    "secrets",
];

fn name(number: usize) -> String {
    format!("app-{number}")
}

/// Ten applications of six kinds that an agent has applied.
struct Applied {
    world: World,
    cache: Scratch,
    commit: String,
}

impl Applied {
    /// Everything is in sync, and the agent that did it still runs.
    async fn new(prefix: &str) -> (Self, Agent) {
        let world = World::new(prefix).await;
        let mut files = Vec::new();
        for app in (0..COUNT).map(name) {
            files.extend(App::new(&app).files(&app));
            files.push((format!("{app}/config.yaml"), config_map(&app, "1")));
            files.push((format!("{app}/secret.yaml"), sample::secret(&app, "password", "p")));
        }
        let changes: Vec<(&str, Option<&str>)> =
            files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        let commit = world.repo.commit(&changes, "all applications");
        world.apply(&world.source("1h")).await;
        for app in (0..COUNT).map(name) {
            world.apply(&world.app(&app, &app, "1h")).await;
        }
        let applied = Self { world, cache: Scratch::new("cache"), commit };
        let mut agent = applied.agent();
        let probe = Probe::of(&mut agent).await;
        for app in (0..COUNT).map(name) {
            applied.world.wait_applied(&app, &applied.commit).await;
        }
        wait_for("the last event", LIMIT, async || {
            let sent = probe.scrape().await.sum("plumb_events_sent_total", "");
            if sent > COUNT as u64 { Ok(()) } else { Err(sent) }
        })
        .await;
        probe.idle(COUNT as u64 + 1).await;
        (applied, agent)
    }

    /// The same pod again: same uid, and a cache that outlives its containers.
    fn agent(&self) -> Agent {
        self.agent_on(self.cache.path())
    }

    fn agent_on(&self, cache: &Path) -> Agent {
        let kubeconfig = self.world.identity.kubeconfig().to_owned();
        let args = ["--identity", "one-pod", "--cache-dir", cache.to_str().unwrap()];
        self.world.agent_with(kubeconfig, &args)
    }

    /// Starts an agent and returns what it asked until every application had its look, the
    /// requests about its Lease left out.
    async fn requests_of_start(&self, cache: &Path) -> (Requests, Agent) {
        let audit = self.world.plane.audit();
        self.world.plane.settled().await;
        let mark = audit.mark();
        let mut agent = self.agent_on(cache);
        let probe = Probe::of(&mut agent).await;
        wait_for("all applications to be seen as ready", LIMIT, async || {
            let scrape = probe.scrape().await;
            let ready = scrape.sum("plumb_ready", "kind=\"Application\"");
            if ready == COUNT as u64 { Ok(()) } else { Err(scrape) }
        })
        .await;
        probe.idle(COUNT as u64 + 1).await;
        // A watch that has brought nothing new is not in the figures otherwise.
        self.wait_watched(mark).await;
        self.world.plane.settled().await;
        let requests = audit.requests(mark).by(&self.world.identity.user());
        // Further pages of a LIST hold what other tests have in this cluster.
        let requests =
            requests.only(|event| event.resource != "leases" && !event.uri.contains("continue="));
        (requests, agent)
    }

    /// Waits until every kind is watched.
    async fn wait_watched(&self, mark: plumb_testkit::control_plane::Mark) {
        let user = self.world.identity.user();
        wait_for("a watch of every kind", LIMIT, async || {
            let requests = self.world.plane.audit().requests(mark).by(&user);
            let missing: Vec<_> = KINDS
                .into_iter()
                .filter(|kind| requests.count(&format!("watch {kind}")) == 0)
                .collect();
            if missing.is_empty() { Ok(()) } else { Err(missing) }
        })
        .await;
    }
}

/// One LIST and one watch of each kind, ours included, and the two documents of discovery.
fn only_reads() -> BTreeMap<String, usize> {
    let kinds = ["plumb.dev/applications", "plumb.dev/gitrepositories"];
    let mut wanted = BTreeMap::from([("get /api".to_owned(), 1), ("get /apis".to_owned(), 1)]);
    for kind in kinds.into_iter().chain(KINDS) {
        wanted.insert(format!("list {kind}"), 1);
        wanted.insert(format!("watch {kind}"), 1);
    }
    wanted
}

#[test]
fn a_restart_with_nothing_changed_reads_once_and_writes_nothing() {
    runtime().block_on(async {
        let (applied, mut agent) = Applied::new("restart").await;

        assert!(agent.stop().success());
        let (requests, mut agent) = applied.requests_of_start(applied.cache.path()).await;
        assert_eq!(requests.counts(), only_reads(), "after SIGTERM");

        agent.kill9();
        let (requests, mut agent) = applied.requests_of_start(applied.cache.path()).await;
        assert_eq!(requests.counts(), only_reads(), "after SIGKILL");

        // A new node: the cache is gone, and the commit is fetched again.
        assert!(agent.stop().success());
        let empty = Scratch::new("cache");
        applied.world.git.forget();
        let (requests, mut agent) = applied.requests_of_start(empty.path()).await;
        assert_eq!(requests.counts(), only_reads(), "on an empty cache");
        let fetches = applied
            .world
            .git
            .requests()
            .into_iter()
            .filter(|request| String::from_utf8_lossy(&request.body).contains("command=fetch"));
        assert_eq!(fetches.count(), 1, "{:?}", applied.world.git.requests());

        // The index that was taken over without a write sees drift as the old one did.
        let edit = json!({"data": {"value": "by hand"}});
        let api = applied.world.config_maps();
        api.patch(&name(3), &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
        applied
            .world
            .wait_condition(&applied.world.apps(), &name(3), ("Ready", "True"), |object| {
                object["status"]["drift"]["count"] == 1
            })
            .await;
        assert_eq!(applied.world.data(&name(3)).await, Some(json!({"value": "1"})));
        assert!(agent.stop().success());
    });
}

/// An autoscaler moves the generation of what it scales, so the digest in the status gets old. The
/// first restart after that makes sure; the second knows.
#[test]
fn a_generation_that_others_moved_costs_one_restart_not_all() {
    runtime().block_on(async {
        let (applied, mut agent) = Applied::new("generation").await;
        let world = &applied.world;
        let audit = world.plane.audit();
        let user = world.identity.user();
        world.plane.settled().await;
        let mark = audit.mark();
        let deployments = world.api("apps/v1", "Deployment");
        let edit = Patch::Merge(json!({"spec": {"minReadySeconds": 7}}));
        deployments.patch(&name(5), &PatchParams::default(), &edit).await.unwrap();
        wait_for("the change to be looked at", LIMIT, async || {
            let sent = audit.requests(mark).by(&user).count("patch apps/deployments");
            if sent > 0 { Ok(()) } else { Err(sent) }
        })
        .await;
        assert!(agent.stop().success());

        let before = statuses(world, &[name(5)]).await;
        let (requests, mut agent) = applied.requests_of_start(applied.cache.path()).await;
        let writes = requests.writes();
        assert!(writes.iter().all(|event| event.name == name(5)), "{}", writes.table());
        let mut wanted: BTreeMap<String, usize> =
            KINDS.into_iter().map(|kind| (format!("patch {kind}"), 1)).collect();
        wanted.insert("patch plumb.dev/applications/status".to_owned(), 1);
        assert_eq!(writes.counts(), wanted);
        let mut after = statuses(world, &[name(5)]).await;
        assert_ne!(after[0]["clusterDigest"], before[0]["clusterDigest"]);
        after[0]["clusterDigest"] = before[0]["clusterDigest"].clone();
        assert_eq!(after, before, "nothing else is new");

        assert!(agent.stop().success());
        let (requests, mut agent) = applied.requests_of_start(applied.cache.path()).await;
        assert_eq!(requests.counts(), only_reads());
        assert!(agent.stop().success());
    });
}

#[test]
fn what_changed_during_a_restart_is_put_right_by_those_concerned() {
    runtime().block_on(async {
        let (applied, mut agent) = Applied::new("meanwhile").await;
        let Applied { world, commit, .. } = &applied;
        let audit = world.plane.audit();
        let user = world.identity.user();
        for kill in [false, true] {
            if kill {
                agent.kill9();
            } else {
                assert!(agent.stop().success());
            }

            // A foreign edit, a deleted object, a new commit, and an object that somebody labelled
            // as a member, each of another application.
            let config_maps = world.config_maps();
            let edit = json!({"data": {"value": "by hand"}});
            let by_hand = PatchParams::default();
            config_maps.patch(&name(1), &by_hand, &Patch::Merge(&edit)).await.unwrap();
            let services = world.api("v1", "Service");
            services.delete(&name(2), &DeleteParams::default()).await.unwrap();
            let value = if kill { "3" } else { "2" };
            let path = format!("{}/config.yaml", name(3));
            let text = config_map(&name(3), value);
            let second = world.repo.commit(&[(&path, Some(&text))], "another value");
            assert_ne!(*commit, second);

            let others = [0, 4, 5, 6, 7, 8, 9].map(name);
            let before = statuses(world, &others).await;
            world.plane.settled().await;
            let mark = audit.mark();
            agent = applied.agent();
            let probe = Probe::of(&mut agent).await;
            world.wait_applied(&name(3), &second).await;
            wait_for("the edited config map", LIMIT, async || {
                let data = world.data(&name(1)).await;
                if data == Some(json!({"value": "1"})) { Ok(()) } else { Err(data) }
            })
            .await;
            assert_eq!(world.data(&name(3)).await, Some(json!({"value": value})));
            wait_for("the deleted service", LIMIT, async || {
                services.get_opt(&name(2)).await.unwrap().map(|_| ())
            })
            .await;
            // Events come last: one of the repository, one of each that did something.
            wait_for("the events", LIMIT, async || {
                let sent = audit.requests(mark).by(&user).count("create events.k8s.io/events");
                if sent >= 4 { Ok(()) } else { Err(sent) }
            })
            .await;
            probe.idle(COUNT as u64 + 1).await;
            assert_eq!(statuses(world, &others).await, before);
            world.plane.settled().await;
            let requests = audit.requests(mark).by(&user).writes();
            let requests = requests.only(|event| event.resource != "leases");
            let concerned: BTreeSet<&str> = requests
                .iter()
                .map(|event| event.name.split('.').next().unwrap_or_default())
                .collect();
            let wanted = ["app-1", "app-2", "app-3", "repo"];
            assert_eq!(concerned, BTreeSet::from(wanted), "{}", requests.table());
            let statuses = requests.count("patch plumb.dev/applications/status");
            assert!(statuses <= 3, "{}", requests.table());
        }
        assert!(agent.stop().success());
    });
}

async fn statuses(world: &World, apps: &[String]) -> Vec<Value> {
    let mut statuses = Vec::new();
    for app in apps {
        statuses.push(world.apps().get(app).await.unwrap().data["status"].clone());
    }
    statuses
}

#[test]
fn an_edit_that_comes_while_another_object_is_applied_is_seen_after_a_kill_too() {
    runtime().block_on(async {
        let world = World::new("restart-edit").await;
        let maps = world.config_maps();
        let files = [("app/a.yaml", config_map("a", "1")), ("app/b.yaml", config_map("b", "1"))];
        world.repo.commit(&files.each_ref().map(|(path, text)| (*path, Some(&**text))), "two");
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let cache = Scratch::new("cache");
        let cache = cache.path().to_str().unwrap();
        let agent = || {
            let args = ["--identity", "one-pod", "--cache-dir", cache];
            world.agent_with(world.identity.through(&proxy.url()), &args)
        };
        let mut first = agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_condition(&world.apps(), "web", ("Ready", "True"), |_| true).await;

        let mut applied = proxy.hold_answer(Match::method("PATCH").path("/configmaps/a"));
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "a");
        world.look().await;
        applied.arrived(LIMIT).await;
        world.edit(&maps, "b", &json!({"data": {"value": "by hand"}})).await;
        // Time for the watch to tell of it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut told = proxy.hold_answer(Match::method("PATCH").path("/applications/web/status"));
        applied.release();
        told.arrived(LIMIT).await;
        first.kill9();
        told.release();
        world.wait_applied("web", &commit).await;
        let _second = agent();
        world.wait_value("b", "1").await;
    });
}

/// What is marked to be left alone is made again once it is gone, also when that happens in the middle of a
/// run that has just left it alone, and no run of this process has verified it.
#[test]
fn what_is_left_alone_and_deleted_during_a_run_is_made_again() {
    runtime().block_on(async {
        let world = World::new("left-alone").await;
        let maps = world.config_maps();
        let files = ["app/a.yaml", "app/marked.yaml", "other/o.yaml"];
        let texts = ["a", "marked", "o"].map(|name| config_map(name, "1"));
        let changes = files.iter().zip(&texts).map(|(path, text)| (*path, Some(&**text)));
        world.repo.commit(&changes.collect::<Vec<_>>(), "three");
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let agent =
            || world.agent_with(world.identity.through(&proxy.url()), &["--identity", "one-pod"]);
        let mut first = agent();
        world.apply(&world.source("1h")).await;
        for name in ["app", "other"] {
            world.apply(&world.app(name, name, "1h")).await;
            world.wait_condition(&world.apps(), name, ("Ready", "True"), |_| true).await;
        }
        first.kill9();
        world.annotate(&maps, "marked", "plumb.dev/reconcile", "disabled").await;
        let mut agent = agent();
        let probe = Probe::of(&mut agent).await;
        probe.idle(2).await;

        let mut applied = proxy.hold_answer(Match::method("PATCH").path("/configmaps/a"));
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "a");
        world.look().await;
        applied.arrived(LIMIT).await;
        world.delete(&maps, "marked").await;
        // The watch that tells of this has told of that.
        world.edit(&maps, "o", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("o", "1").await;
        applied.release();
        world.wait_applied("app", &commit).await;
        world.wait_value("marked", "1").await;
    });
}

/// Somebody's copy bears the label of ours and is no member: nothing of it was ever verified.
#[test]
fn a_copy_that_is_left_alone_and_goes_at_rest_is_made_as_git_asks() {
    runtime().block_on(async {
        let world = World::new("left-copy").await;
        let maps = world.config_maps();
        let keep = config_map("keep", "1");
        let first = world.repo.commit(&[("app/keep.yaml", Some(&keep))], "first");
        let _agent = world.agent();
        world.sync("app", "app", &first).await;
        let id = world.get(&world.apps(), "app").await["metadata"]["labels"]
            ["applyset.kubernetes.io/id"]
            .clone();
        world
            .apply(&json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": {"value": "a copy"},
                "metadata": {
                    "name": "copy", "namespace": world.ns,
                    "labels": {"applyset.kubernetes.io/part-of": id},
                    "annotations": {"plumb.dev/reconcile": "disabled"},
                },
            }))
            .await;
        let copy = config_map("copy", "1");
        let second = world.repo.commit(&[("app/copy.yaml", Some(&copy))], "second");
        world.look().await;
        world.wait_applied("app", &second).await;
        world.wait_value("copy", "a copy").await;
        world.delete(&maps, "copy").await;
        world.wait_value("copy", "1").await;
    });
}

#[test]
fn what_somebody_changed_while_the_agent_was_down_is_told_as_drift() {
    runtime().block_on(async {
        let world = World::new("down").await;
        let files = ["a", "b", "c", "d"].map(|n| (format!("app/{n}.yaml"), config_map(n, "git")));
        let changes: Vec<_> = files.iter().map(|(path, text)| (&**path, Some(&**text))).collect();
        let commit = world.repo.commit(&changes, "four");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let before = world.wait_applied("web", &commit).await;
        assert!(agent.stop().success());

        let maps = world.config_maps();
        world.edit(&maps, "a", &json!({"data": {"value": "by hand"}})).await;
        world.delete(&maps, "b").await;
        let unlabelled = json!({"metadata": {"labels": {"applyset.kubernetes.io/part-of": null}}});
        world.edit(&maps, "c", &unlabelled).await;
        world.edit(&maps, "d", &json!({"data": {"other": "theirs"}})).await;
        // A commit that touches nothing of it does not make another revision of what is put back.
        world.repo.commit(&[("elsewhere/x.yaml", Some(&config_map("x", "1")))], "elsewhere");
        agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["drift"]["count"] == 3
            })
            .await;
        let status = |object: &Value, field: &str| object["status"][field].clone();
        for field in ["history", "lastAppliedRevision", "digest"] {
            assert_eq!(status(&object, field), status(&before, field), "{field}");
        }
        let changed = ["DriftCorrected", "/a was changed", "data.value (by by-hand at 20"];
        world.wait_event("web", &changed).await;
        world.wait_event("web", &["DriftCorrected", "/b was deleted"]).await;
        world.wait_event("web", &["DriftCorrected", "/c had lost its label"]).await;
        for name in ["a", "b", "c", "d"] {
            assert_eq!(world.data(name).await.unwrap()["value"], "git", "{name}");
        }
        let scrape = probe.idle(2).await;
        assert_eq!(scrape.sum("plumb_drift_corrected_total", "web"), 3);
        assert_eq!(scrape.sum("plumb_objects_applied_total", "web"), 0);
        assert!(agent.stop().success());

        // What Git asks for anew is no drift, whatever somebody did to it.
        world.edit(&maps, "a", &json!({"data": {"value": "by hand"}})).await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "anew");
        agent = world.agent();
        world.look().await;
        let object = world.wait_applied("web", &commit).await;
        assert_eq!(status(&object, "drift")["count"], 3);
        world.wait_value("a", "2").await;
        assert!(agent.stop().success());
    });
}

/// The digest of what is desired names a Secret by what it is made from, so that its values cannot be
/// guessed. Which of its fields others may decide is a part of that.
#[test]
fn what_is_ignored_no_more_is_put_back_after_a_restart_also_in_a_secret() {
    runtime().block_on(async {
        let world = World::new("ignored-no-more").await;
        let (secret, map) = (sample::secret("s", "value", "git"), config_map("m", "git"));
        // Each alone, as the digest is one of all that an Application has.
        let files = [("secret/s.yaml", Some(&*secret)), ("map/m.yaml", Some(&*map))];
        let commit = world.repo.commit(&files, "two");
        let apps = ["secret", "map"];
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        for name in apps {
            let mut app = world.app(name, name, "1h");
            app["spec"]["ignore"] = json!([{"paths": ["/data/value"]}]);
            world.apply(&app).await;
            world.wait_applied(name, &commit).await;
        }
        let secrets = world.api("v1", "Secret");
        world.edit(&secrets, "s", &json!({"data": {"value": "eA=="}})).await;
        world.edit(&world.config_maps(), "m", &json!({"data": {"value": "by hand"}})).await;
        for name in apps {
            world
                .wait_condition(&world.apps(), name, ("Ready", "True"), |object| {
                    object["status"]["yielded"].as_array().is_some_and(|left| left.len() == 1)
                })
                .await;
        }
        probe.idle(0).await;
        assert!(agent.stop().success());
        for name in apps {
            world.edit(&world.apps(), name, &json!({"spec": {"ignore": null}})).await;
        }
        let _agent = world.agent();
        world.wait_value("m", "git").await;
        world.wait_object(&secrets, "s", |object| object["data"]["value"] == "Z2l0").await;
    });
}
