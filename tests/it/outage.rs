//! API servers and Git servers that are away, busy, forgetful or half dead.
//!
//! `PLUMB_LONG_TESTS=1` keeps the API server away for a minute instead of some seconds.
//! `PLUMB_TEST_SEED` repeats another run of the random cuts.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::api::{DynamicObject, ListParams, PostParams};
use plumb_testkit::{
    Agent, ControlPlane, Fault, GitServer, Match, Options, Proxy, Rule, runtime, wait_for,
};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, condition, config_map};

/// Short, so that tests see leadership come and go.
const LEASE: &str = "3s";

fn long() -> bool {
    std::env::var_os("PLUMB_LONG_TESTS").is_some_and(|value| value == "1")
}

fn seed() -> u64 {
    std::env::var("PLUMB_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// A world with a proxy before each of its servers.
struct Outage {
    world: World,
    api: Proxy,
    git: Proxy,
}

impl Outage {
    async fn new(prefix: &str) -> Self {
        Self::on(World::new(prefix).await).await
    }

    async fn on(world: World) -> Self {
        let api = Proxy::to_api(&world.plane, seed()).await;
        let git = Proxy::to_http(&world.git.base(), seed()).await;
        Self { world, api, git }
    }

    fn agent(&self, kubeconfig: &Path) -> Agent {
        let args = ["--identity", "outage", "--lease-duration", LEASE];
        self.world.agent_with(kubeconfig.to_owned(), &args)
    }

    /// The way to the API server through its proxy.
    fn kubeconfig(&self) -> PathBuf {
        self.world.identity.through(&self.api.url())
    }

    /// One Application `web` of these config maps, synced through the proxies.
    async fn synced(&self, names: &[&str], interval: &str) -> Agent {
        self.synced_by(&self.kubeconfig(), names, interval).await
    }

    /// The same by another way to the API server.
    async fn synced_by(&self, kubeconfig: &Path, names: &[&str], interval: &str) -> Agent {
        let first = self.commit(names, "1");
        let agent = self.agent(kubeconfig);
        let mut source = self.world.source(interval);
        source["spec"]["url"] = self.git.through(&self.world.git.url("repo")).into();
        // A server that stalls is found out soon.
        source["spec"]["timeout"] = "5s".into();
        self.world.apply(&source).await;
        self.world.apply(&self.world.app("web", "app", "1h")).await;
        self.world.wait_applied("web", &first).await;
        agent
    }

    fn commit(&self, names: &[&str], value: &str) -> String {
        let files: Vec<_> = names
            .iter()
            .map(|name| (format!("app/{name}.yaml"), config_map(name, value)))
            .collect();
        let files: Vec<_> =
            files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        self.world.repo.commit(&files, value)
    }

    async fn drift(&self, name: &str) {
        let edit = json!({"data": {"value": "by hand"}});
        self.world.edit(&self.world.config_maps(), name, &edit).await;
    }

    /// A config map that is nobody's.
    async fn bystander(&self, name: &str) -> String {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let created = self.world.config_maps().create(&PostParams::default(), &object).await;
        created.unwrap().metadata.uid.unwrap()
    }

    async fn uid(&self, name: &str) -> Option<String> {
        self.world.config_maps().get_opt(name).await.unwrap()?.metadata.uid
    }
}

#[test]
fn an_api_server_that_is_gone_for_a_while() {
    runtime().block_on(async {
        let outage = Outage::new("outage-api").await;
        let world = &outage.world;
        let mut agent = outage.synced(&["a", "b", "c", "d"], "1h").await;
        let (a, bystander) = (outage.uid("a").await, outage.bystander("bystander").await);

        let from = agent.logs().len();
        outage.api.stop().await;
        // Drift of each sort, and a commit that the agent cannot be told of.
        outage.drift("a").await;
        world.delete(&world.config_maps(), "b").await;
        world.delete(&world.config_maps(), "c").await;
        outage.bystander("c").await;
        let second = world
            .repo
            .commit(&[("app/d.yaml", None), ("app/e.yaml", Some(&config_map("e", "1")))], "d to e");
        agent.wait_for_log_after(from, "standing by", LIMIT).await;
        if long() {
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        assert!(agent.ended().is_none(), "{}", agent.logs());
        outage.api.restart().await;

        world.look().await;
        world.wait_applied("web", &second).await;
        for name in ["a", "b", "c", "e"] {
            world.wait_value(name, "1").await;
        }
        world.wait_gone(&world.config_maps(), "d").await;
        assert_eq!(outage.uid("a").await, a);
        assert_eq!(outage.uid("bystander").await, Some(bystander));
    });
}

#[test]
fn an_api_server_that_crashes_and_one_that_hangs() {
    runtime().block_on(async {
        // One of its own, which may be taken down.
        let options = Options { nodes: 0, controllers: false };
        let plane = ControlPlane::start(options).await;
        let outage = Outage::on(World::on(plane, "outage-crash").await).await;
        let world = &outage.world;
        let plane = &world.plane;
        let mut agent = outage.synced_by(world.identity.kubeconfig(), &["a", "b"], "1h").await;
        let a = outage.uid("a").await;
        for (value, crashes) in [("2", true), ("3", false)] {
            let second = outage.commit(&["a", "b"], value);
            let from = agent.logs().len();
            if crashes {
                plane.stop_apiserver();
            } else {
                plane.pause_apiserver();
            }
            agent.wait_for_log_after(from, "standing by", LIMIT).await;
            assert!(agent.ended().is_none(), "{}", agent.logs());
            if crashes {
                plane.start_apiserver().await;
            } else {
                plane.resume_apiserver();
            }
            // By hand, in the moment in which nobody leads.
            outage.drift("a").await;
            world.delete(&world.config_maps(), "b").await;
            world.look().await;
            world.wait_applied("web", &second).await;
            world.wait_value("a", value).await;
            world.wait_value("b", value).await;
            assert_eq!(outage.uid("a").await, a);
        }
        agent.stop();
    });
}

#[test]
fn a_status_that_could_not_be_written_is_written_later() {
    runtime().block_on(async {
        let outage = Outage::new("outage-status").await;
        let world = &outage.world;
        let _agent = outage.synced(&["a"], "1h").await;
        let fault = Fault::Status { code: 500, retry_after: None };
        let rules = ["gitrepositories/repo/status", "applications/web/status"].map(|path| {
            let when = Match::method("PATCH").path(path);
            outage.api.add(Rule::new(when, fault.clone()).times(1))
        });
        let second = outage.commit(&["a"], "2");
        world.look().await;
        world.wait_applied("web", &second).await;
        world
            .wait_condition(&world.sources(), "repo", ("Ready", "True"), |object| {
                object["status"]["revision"] == format!("main@sha1:{second}")
            })
            .await;
        assert_eq!(rules.map(|rule| outage.api.hits(rule)), [1, 1]);
    });
}

#[test]
fn a_busy_api_server_is_given_the_time_it_asks_for() {
    runtime().block_on(async {
        let outage = Outage::new("outage-busy").await;
        let world = &outage.world;
        let names = ["a", "b", "c", "d", "e", "f"];
        let _agent = outage.synced(&names, "1h").await;
        let busy = |retry_after| Fault::Status { code: 429, retry_after };

        // Some applies.
        let applies = Match::method("PATCH").path("/configmaps/");
        let rule = outage.api.add(Rule::new(applies.clone(), busy(Some(1))).times(3));
        let mark = outage.api.mark();
        let second = outage.commit(&names, "2");
        world.look().await;
        world.wait_applied("web", &second).await;
        assert_eq!(outage.api.hits(rule), 3);
        // Each refused one came again, and not before its second was over.
        let seen = outage.api.since(mark);
        let refused = seen.iter().filter(|e| e.status == Some(429) && e.request.method == "PATCH");
        for first in refused {
            let again = seen
                .iter()
                .find(|e| e.request.path == first.request.path && e.at > first.at)
                .unwrap_or_else(|| panic!("never tried again: {}", first.line()));
            assert!(again.at >= first.at + Duration::from_secs(1), "{}", first.line());
        }

        // Half of everything, lists, watches and the Lease included, for as long as a sync takes.
        outage.api.clear();
        let rule = outage.api.add(Rule::new(Match::any(), busy(Some(1))).probability(0.5));
        outage.api.cut_open(&Match::any().query("watch=true"));
        let third = outage.commit(&names, "3");
        // It leads now and then only, and waits twice as long after each failure.
        let asked: Cell<Option<Instant>> = Cell::new(None);
        wait_for("the commit to be applied", LIMIT, async || {
            if asked.get().is_none_or(|at| at.elapsed() > Duration::from_secs(5)) {
                world.look().await;
                asked.set(Some(Instant::now()));
            }
            let status = world.get(&world.apps(), "web").await["status"].clone();
            let done = status["lastAppliedRevision"] == format!("main@sha1:{third}");
            if done { Ok(()) } else { Err(status) }
        })
        .await;
        println!("busy: {} requests were refused", outage.api.hits(rule));

        // Everything, until leadership is lost.
        outage.api.clear();
        let rule = outage.api.add(Rule::new(Match::any(), busy(None)));
        outage.api.cut_open(&Match::any().query("watch=true"));
        outage.drift("a").await;
        let fourth = outage.commit(&names, "4");
        wait_for("many refusals", LIMIT, async || {
            let hits = outage.api.hits(rule);
            if hits > 20 { Ok(()) } else { Err(hits) }
        })
        .await;
        outage.api.clear();
        world.look().await;
        world.wait_applied("web", &fourth).await;
        world.wait_value("a", "4").await;
    });
}

#[test]
fn what_the_api_server_does_not_do_is_told_with_what_helps() {
    runtime().block_on(async {
        let outage = Outage::new("outage-told").await;
        let world = &outage.world;
        let _agent = outage.synced(&["a"], "1h").await;
        let bystander = outage.bystander("bystander").await;
        let applies = || Match::method("PATCH").path("/configmaps/");
        let away = ["the way to it", "tried again by itself"];
        for (number, (fault, reason, parts)) in [
            (
                Fault::Status { code: 429, retry_after: None },
                "ClusterUnavailable",
                ["busy", "tried again by itself"],
            ),
            // The server is there, and this object is what it does not take.
            (Fault::Status { code: 503, retry_after: None }, "Refused", ["app/a.yaml:1", "503"]),
            (Fault::CutBefore, "ClusterUnavailable", away),
            (Fault::Stall, "NoAnswer", ["app/a.yaml:1", "admission webhook"]),
        ]
        .into_iter()
        .enumerate()
        {
            println!("{fault:?}");
            let rule = outage.api.add(Rule::new(applies(), fault));
            let value = format!("{}", number + 2);
            let commit = outage.commit(&["a"], &value);
            world.look().await;
            let place = format!("ConfigMap {}/a", world.ns);
            let parts = [&*place, parts[0], parts[1]];
            let object = world.wait_refused(&world.apps(), "web", reason, &parts).await;
            let again = condition(&object, "Reconciling");
            assert_eq!(again["message"], "trying again by itself", "{object}");
            assert!(outage.api.hits(rule) > 0);
            outage.api.remove(rule);
            world.wait_applied("web", &commit).await;
            world.wait_value("a", &value).await;
        }
        assert_eq!(outage.uid("bystander").await, Some(bystander));
    });
}

#[test]
fn watches_that_expired_lose_nothing() {
    runtime().block_on(async {
        let outage = Outage::new("outage-gone").await;
        let world = &outage.world;
        let _agent = outage.synced(&["a", "b"], "1h").await;
        for (round, plural) in
            ["configmaps", "gitrepositories", "applications"].into_iter().enumerate()
        {
            // The watch ends, the next one is answered with 410, and while the list that must
            // follow is held, things happen that no watch ever tells. The watch after that list
            // expires too.
            let watch = Match::any().query("watch=true").path(&format!("/{plural}"));
            let list = Match::method("GET")
                .path(&format!("/{plural}"))
                .when(|seen| !seen.query.contains("watch=true"));
            let mut hold = outage.api.hold(list);
            let rule = outage.api.add(Rule::new(watch.clone(), Fault::Expired).times(2));
            assert!(outage.api.cut_open(&watch) > 0);
            hold.arrived(LIMIT).await;
            let value = format!("{}", round + 2);
            match plural {
                "configmaps" => {
                    outage.drift("a").await;
                    world.delete(&world.config_maps(), "b").await;
                }
                "gitrepositories" => {
                    outage.commit(&["a", "b"], &value);
                    world.look().await;
                }
                _ => {
                    outage.commit(&["a", "b"], &value);
                    let app = world.app("more", "app-more", "1h");
                    world
                        .repo
                        .commit(&[("app-more/more.yaml", Some(&config_map("more", "1")))], "more");
                    world.apply(&app).await;
                }
            }
            hold.release();
            match plural {
                "configmaps" => {
                    world.wait_value("a", "1").await;
                    world.wait_value("b", "1").await;
                }
                "gitrepositories" => {
                    world.wait_value("a", &value).await;
                    world.wait_value("b", &value).await;
                }
                _ => {
                    world.look().await;
                    world.wait_value("more", "1").await;
                    world.wait_value("a", &value).await;
                }
            }
            wait_for("the second expiry", LIMIT, async || {
                let hits = outage.api.hits(rule);
                if hits == 2 { Ok(()) } else { Err(hits) }
            })
            .await;
        }
    });
}

#[test]
fn connections_cut_at_random_while_commits_are_applied() {
    const COMMITS: usize = 30;
    let seed = seed();
    println!("PLUMB_TEST_SEED={seed}");
    runtime().block_on(async {
        let outage = Outage::new("outage-cut").await;
        let world = &outage.world;
        let mut agent = outage.synced(&["kept", "changed"], "1h").await;
        let (kept, bystander) = (outage.uid("kept").await, outage.bystander("bystander").await);
        // A look at Git needs several requests, and waits twice as long after each failure: with as
        // many faults there as at the API server, five in a row would come now and then.
        for (proxy, share) in [(&outage.api, 1.0), (&outage.git, 0.3)] {
            for (fault, probability) in [
                (Fault::CutBefore, 0.06),
                (Fault::CutAfter, 0.06),
                (Fault::CutBody(100), 0.06),
                (Fault::Status { code: 503, retry_after: None }, 0.03),
            ] {
                let rule = Rule::new(Match::any(), fault).probability(share * probability);
                proxy.add(rule);
            }
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let mut last = String::new();
        for round in 1..=COMMITS {
            let before = format!("app/renamed-{}.yaml", round - 1);
            let (name, value) = (format!("renamed-{round}"), format!("{round}"));
            let (path, renamed) = (format!("app/{name}.yaml"), config_map(&name, "same"));
            let changed = config_map("changed", &value);
            let mut files = vec![("app/changed.yaml", Some(&*changed)), (&*path, Some(&*renamed))];
            if round > 1 {
                files.push((&before, None));
            }
            last = world.repo.commit(&files, &value);
            world.look().await;
            // Some commits come one upon the other, others when the one before is in place.
            if random.bool() {
                world.wait_value("changed", &value).await;
            }
            if random.u8(0..4) == 0 {
                outage.api.cut_open(&Match::any());
            }
            if random.u8(0..4) == 0 {
                outage.drift("kept").await;
            }
        }
        let cuts = outage.api.exchanges().iter().filter(|e| e.fault.is_some()).count();
        println!("{cuts} of {} requests met a fault", outage.api.mark());
        outage.api.clear();
        outage.git.clear();
        // Whatever is due again only after a long back-off is due now.
        world.look().await;
        world.wait_applied("web", &last).await;
        world.wait_value("kept", "1").await;
        world.wait_value("changed", &format!("{COMMITS}")).await;
        wait_for("exactly what Git asks for", LIMIT, async || {
            let list = world.config_maps().list(&ListParams::default()).await.unwrap();
            let names: Vec<_> =
                list.into_iter().filter_map(|object| object.metadata.name).collect();
            let last = format!("renamed-{COMMITS}");
            let want = ["bystander", "changed", "kept", "kube-root-ca.crt", &last];
            if names == want { Ok(()) } else { Err(names) }
        })
        .await;
        assert_eq!(outage.uid("kept").await, kept, "deleted and created again");
        assert_eq!(outage.uid("bystander").await, Some(bystander));
        assert!(agent.ended().is_none(), "{}", agent.logs());
    });
}

#[test]
fn a_git_server_that_is_away_leaves_the_last_revision_enforced() {
    runtime().block_on(async {
        let outage = Outage::new("outage-git").await;
        let world = &outage.world;
        let _agent = outage.synced(&["a", "b"], "1s").await;
        for (number, how) in ["refuses", "stalls", "fails"].into_iter().enumerate() {
            println!("a Git server that {how}");
            let rule = match how {
                "refuses" => {
                    outage.git.stop().await;
                    None
                }
                "stalls" => {
                    outage.git.add(Rule::new(Match::any(), Fault::Stall));
                    None
                }
                _ => {
                    let fault = Fault::Status { code: 500, retry_after: None };
                    Some(outage.git.add(Rule::new(Match::any(), fault)))
                }
            };
            let value = format!("{}", number + 2);
            let next = outage.commit(&["a", "b"], &value);
            let object =
                world.wait_condition(&world.sources(), "repo", ("Ready", "False"), |_| true).await;
            let ready = condition(&object, "Ready");
            println!("{}: {}", ready["reason"], ready["message"]);
            assert_eq!(condition(&object, "Fetched")["status"], "False");
            assert_ne!(ready["reason"], "InternalError");
            // What was applied last stays as it is, and status says which.
            let old = format!("{}", number + 1);
            outage.drift("a").await;
            world.delete(&world.config_maps(), "b").await;
            world.wait_value("a", &old).await;
            world.wait_value("b", &old).await;
            // It recovers by itself.
            match (how, rule) {
                ("refuses", _) => outage.git.restart().await,
                _ => outage.git.clear(),
            }
            world.wait_applied("web", &next).await;
            world
                .wait_condition(&world.sources(), "repo", ("Ready", "True"), |object| {
                    object["status"]["revision"] == format!("main@sha1:{next}")
                })
                .await;
        }
    });
}

#[test]
fn stalled_git_servers_hold_no_other_repository_back() {
    // More than there are workers, of which few may wait for one server.
    const STALLED: usize = 12;
    const AT_ONE_SERVER: usize = 4;
    runtime().block_on(async {
        let outage = Outage::new("outage-stall").await;
        let world = &outage.world;
        let dead = GitServer::start().await;
        dead.stall(true);
        let mut agent = outage.agent(&outage.kubeconfig());
        agent.wait_for_log("leading", LIMIT).await;
        for number in 0..STALLED {
            let mut source = world.source("1s");
            source["metadata"]["name"] = format!("dead-{number}").into();
            // Each of its own, so that none shares a fetch with another.
            dead.repo(&format!("dead-{number}"));
            source["spec"]["url"] = dead.url(&format!("dead-{number}")).into();
            // Longer than the test: whoever waits for one of them waits in vain.
            source["spec"]["timeout"] = "10m".into();
            world.apply(&source).await;
        }
        let asked = || {
            let paths = dead.requests().into_iter().map(|request| request.path);
            paths.collect::<BTreeSet<_>>().len()
        };
        wait_for("as many of them to be asked as may be", LIMIT, async || {
            let asked = asked();
            if asked >= AT_ONE_SERVER { Ok(()) } else { Err(asked) }
        })
        .await;
        let commit = outage.commit(&["a"], "1");
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        // Nor do they keep what drifts from being put back.
        outage.drift("a").await;
        world.wait_value("a", "1").await;
        assert_eq!(asked(), AT_ONE_SERVER, "the others wait");
    });
}

#[test]
fn pins_that_a_slow_git_server_is_to_bring_hold_no_application_back() {
    // As many as there are workers.
    const PINNED: [&str; 2] = ["pinned-0", "pinned-1"];
    runtime().block_on(async {
        let world = World::new("outage-pins").await;
        let slow = GitServer::start().await;
        let repo = slow.repo("slow");
        let commit = |value: &str| {
            let files = PINNED.map(|name| (format!("{name}/a.yaml"), config_map(name, value)));
            let files = files.each_ref().map(|(path, text)| (path.as_str(), Some(text.as_str())));
            repo.commit(&files, value)
        };
        let (older, newer) = (commit("older"), commit("newer"));

        let workers = PINNED.len().to_string();
        let args = ["--concurrent", &*workers];
        let _agent = world.agent_with(world.identity.kubeconfig().to_owned(), &args);
        let mut source = world.source("1h");
        source["metadata"]["name"] = "slow".into();
        source["spec"]["url"] = slow.url("slow").into();
        // Longer than the test: whoever waits for it waits in vain.
        source["spec"]["timeout"] = "10m".into();
        world.apply(&source).await;
        for name in PINNED {
            let mut app = world.app(name, name, "1h");
            app["spec"]["sourceRef"]["name"] = "slow".into();
            app["spec"]["timeout"] = "10m".into();
            world.apply(&app).await;
            world.wait_applied(name, &newer).await;
        }

        // The mirror has the tip only.
        slow.drip(true);
        slow.forget();
        for name in PINNED {
            world.edit(&world.apps(), name, &json!({"spec": {"revision": older}})).await;
        }
        wait_for("the server to be asked", LIMIT, async || {
            if slow.requests().is_empty() { Err(()) } else { Ok(()) }
        })
        .await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        // What was applied last stays enforced meanwhile.
        let by_hand = json!({"data": {"value": "by hand"}});
        world.edit(&world.config_maps(), PINNED[0], &by_hand).await;
        world.wait_value(PINNED[0], "newer").await;

        slow.drip(false);
        for name in PINNED {
            world.wait_value(name, "older").await;
        }
    });
}

#[test]
fn after_a_partition_nothing_is_written_before_it_leads_again() {
    runtime().block_on(async {
        let outage = Outage::new("outage-split").await;
        let world = &outage.world;
        let mut agent = outage.synced(&["a", "b"], "1h").await;
        let said = agent.logs().len();
        outage.api.partition();
        // Work that it can neither see nor do.
        outage.drift("a").await;
        let second = outage.commit(&["a", "b"], "2");
        world.look().await;
        agent.wait_for_log_after(said, "standing by", LIMIT).await;
        let from = world.plane.audit().mark();
        outage.api.heal();
        world.wait_applied("web", &second).await;
        world.wait_value("a", "2").await;
        world.plane.settled().await;
        let writes = world.plane.audit().requests(from).by(&world.identity.user()).writes();
        // A renewal that hung in the partition may come through, and is refused or is our own.
        let first = writes.iter().position(|event| event.resource == "leases" && event.code < 300);
        let first = first.expect("it leads again");
        assert!(
            writes[..first].iter().all(|event| event.resource == "leases"),
            "{:#?}",
            &writes[..=first]
        );
        let lease: Value = world.get(&world.api("coordination.k8s.io/v1", "Lease"), "plumb").await;
        assert!(lease["spec"]["leaseTransitions"].as_u64() >= Some(2), "{lease}");
    });
}

/// Then every write is refused, that of the Lease included; what only deletes is not.
#[test]
fn a_store_that_is_full_is_named_and_nothing_is_pruned_until_there_is_space() {
    runtime().block_on(async {
        let options = Options { nodes: 0, controllers: false };
        let plane = ControlPlane::start_small(options, 16 << 20).await;
        let world = World::on(plane, "full").await;
        let files = [("app/a.yaml", config_map("a", "1")), ("app/b.yaml", config_map("b", "1"))];
        let changes: Vec<_> = files.iter().map(|(path, text)| (*path, Some(&**text))).collect();
        let first = world.repo.commit(&changes, "two");
        let mut agent = world.agent();
        world.apply(&world.source("1s")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;

        let from = agent.logs().len();
        world.plane.fill_store().await;
        // A rename: what is new is refused, and what is old could be deleted.
        let (a, c) = (config_map("a", "2"), config_map("c", "1"));
        let files = [("app/a.yaml", Some(&*a)), ("app/b.yaml", None), ("app/c.yaml", Some(&*c))];
        let second = world.repo.commit(&files, "a rename");
        agent.wait_for_log_after(from, "database space exceeded", LIMIT).await;
        wait_for("the agent to lead no more", LIMIT, async || {
            let logs = agent.logs();
            if logs[from..].contains("standing by") { Ok(()) } else { Err(logs[from..].to_owned()) }
        })
        .await;
        assert!(agent.ended().is_none(), "{}", agent.logs());
        assert_eq!(world.data("a").await.unwrap()["value"], "1");
        assert!(world.data("b").await.is_some());
        assert!(world.data("c").await.is_none());

        world.plane.empty_store().await;
        world.wait_applied("web", &second).await;
        world.wait_value("a", "2").await;
        world.wait_value("c", "1").await;
        world.wait_gone(&world.config_maps(), "b").await;
        assert!(agent.ended().is_none(), "{}", agent.logs());
    });
}
