//! What it costs to follow a repository: one listing for all who do, and a server that does not answer
//! or wants to be left alone is spared.

use plumb_testkit::proxy::{Fault, Match, Proxy, Rule};
use plumb_testkit::{Agent, GitRequest, GitServer, Scratch, runtime, wait_for};
use serde_json::{Value, json};

use crate::receiver::{FLAGS, Hooks, NEW, secret};
use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

/// How many GitRepositories there are.
const MANY: usize = 20;

/// What they follow, by turns.
fn follows(number: usize) -> Value {
    match number % 5 {
        0 => json!({"branch": "main"}),
        1 => json!({"branch": "next"}),
        2 => json!({"tag": "v1.0.0"}),
        3 => json!({"semver": "1.x"}),
        _ => json!({"name": "refs/heads/main"}),
    }
}

fn source(world: &World, name: &str, url: &str, reference: &Value, interval: &str) -> Value {
    json!({
        "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
        "metadata": {"name": name, "namespace": world.ns},
        "spec": {"url": url, "ref": reference, "interval": interval},
    })
}

/// Many of one repository, of several references and intervals.
async fn follow(world: &World) {
    for number in 0..MANY {
        let interval = format!("{}h", 1 + number % 3);
        let (name, url) = (format!("s{number}"), world.git.url("repo"));
        world.apply(&source(world, &name, &url, &follows(number), &interval)).await;
    }
}

async fn wait_ready(world: &World, name: &str) -> Value {
    world.wait_condition(&world.sources(), name, ("Ready", "True"), |_| true).await
}

/// What was asked, in words.
fn words(requests: &[GitRequest]) -> Vec<&'static str> {
    let word = |request: &GitRequest| {
        let holds = |part: &str| String::from_utf8_lossy(&request.body).contains(part);
        match request.method.as_str() {
            "GET" => "offers",
            _ if holds("command=ls-refs") => "listing",
            _ if holds("command=fetch") => "fetch",
            _ => "other",
        }
    };
    requests.iter().map(word).collect()
}

/// The second start of a process with this cache, and its metrics.
async fn again(world: &World, cache: &Scratch) -> (Agent, Probe) {
    let cache = cache.path().to_str().unwrap();
    let args = [&["--identity", "one-pod", "--cache-dir", cache], &FLAGS[..]].concat();
    let mut agent = world.agent_with(world.identity.kubeconfig().to_owned(), &args);
    let probe = Probe::of(&mut agent).await;
    (agent, probe)
}

#[test]
fn twenty_sources_of_one_repository_cost_what_one_costs() {
    runtime().block_on(async {
        let world = World::new("polling").await;
        let first = world.repo.commit(&[("a.yaml", Some(&config_map("a", "1")))], "one");
        world.repo.branch("next", &first);
        world.repo.tag("v1.0.0", &first);
        world.apply(&secret(&world, &[("new", NEW)])).await;
        let cache = Scratch::new("cache");
        let (mut agent, _) = again(&world, &cache).await;
        follow(&world).await;
        for number in 0..MANY {
            wait_ready(&world, &format!("s{number}")).await;
        }
        agent.stop();

        // After a restart all are looked at: what one of them costs, for all.
        world.git.forget();
        let (mut agent, probe) = again(&world, &cache).await;
        let hooks = Hooks::of(&mut agent).await;
        let scrape = probe.idle(MANY as u64).await;
        assert_eq!(words(&world.git.requests()), ["offers", "listing"]);
        let polls = scrape.sum("plumb_git_polls_total", "outcome=\"ok\"");
        let shared = scrape.sum("plumb_git_polls_shared_total", "");
        assert_eq!((polls, shared), (1, MANY as u64 - 1), "{scrape:?}");
        assert_eq!(scrape.sum("plumb_git_hosts_waited_for", ""), 0);

        // So it is with a push that a hook tells to those that follow the branch.
        hooks.wait("https://git.example/nobody/follows", NEW, 202).await;
        world.git.forget();
        let second = world.repo.commit(&[("a.yaml", Some(&config_map("a", "2")))], "two");
        assert_eq!(hooks.push(&world.git.url("repo"), NEW, "1").await, 202);
        for number in (0..MANY).filter(|number| matches!(number % 5, 0 | 4)) {
            let moved = |object: &Value| {
                object["status"]["revision"].as_str().is_some_and(|text| text.ends_with(&second))
            };
            world.wait_object(&world.sources(), &format!("s{number}"), moved).await;
        }
        probe.idle(MANY as u64).await;
        assert_eq!(words(&world.git.requests()), ["listing", "fetch"]);

        // Who asks for one look is not answered by what was heard before, and hears of a push that
        // nobody told. What was listed for the others they are told, too.
        world.git.forget();
        let third = world.repo.commit(&[("a.yaml", Some(&config_map("a", "3")))], "three");
        world.repo.branch("next", &third);
        world.request(&world.sources(), "s2", "now").await;
        for number in (0..MANY).filter(|number| !matches!(number % 5, 2 | 3)) {
            let moved = |object: &Value| {
                object["status"]["revision"].as_str().is_some_and(|text| text.ends_with(&third))
            };
            world.wait_object(&world.sources(), &format!("s{number}"), moved).await;
        }
        probe.idle(MANY as u64).await;
        assert_eq!(words(&world.git.requests()), ["listing", "fetch"]);
    });
}

#[test]
fn a_server_that_is_stuck_holds_one_look_and_nobody_else() {
    runtime().block_on(async {
        let world = World::new("stuck").await;
        world.repo.commit(&[("a.yaml", Some(&config_map("a", "1")))], "one");
        let other = GitServer::start().await;
        other.repo("repo").commit(&[("a.yaml", Some(&config_map("a", "1")))], "one");
        world.git.stall(true);
        // Eight looks may be under way at once.
        let kubeconfig = world.identity.kubeconfig().to_owned();
        let mut agent = world.agent_with(kubeconfig, &["--concurrent", "1"]);
        let probe = Probe::of(&mut agent).await;
        for number in 0..MANY {
            let (name, url) = (format!("s{number}"), world.git.url("repo"));
            world.apply(&source(&world, &name, &url, &json!({"branch": "main"}), "1h")).await;
        }
        let main = json!({"branch": "main"});
        world.apply(&source(&world, "other", &other.url("repo"), &main, "1h")).await;
        wait_ready(&world, "other").await;
        let looks = "kind=\"GitRepository\"";
        wait_for("all to wait for one", LIMIT, async || {
            let scrape = probe.scrape().await;
            let waiting = scrape.sum("plumb_queue_length", looks);
            let busy = scrape.sum("plumb_workers_busy", looks);
            let all = scrape.runs() >= MANY as u64;
            if all && (waiting, busy) == (0, 1) { Ok(()) } else { Err(scrape) }
        })
        .await;
        assert_eq!(words(&world.git.requests()), ["offers"], "one asks");
        world.git.stall(false);
        for number in 0..MANY {
            wait_ready(&world, &format!("s{number}")).await;
        }
        probe.idle(MANY as u64).await;
        // Those that were asked for later share what was listed later.
        assert_eq!(words(&world.git.requests()), ["offers", "listing", "fetch", "listing"]);
    });
}

#[test]
fn a_server_that_asks_to_wait_is_left_alone_until_then() {
    runtime().block_on(async {
        let world = World::new("busy").await;
        for name in ["repo", "more"] {
            let repo = world.git.repo(name);
            repo.commit(&[("a.yaml", Some(&config_map("a", "1")))], "one");
        }
        let proxy = Proxy::to_http(&world.git.base(), 1).await;
        let url = |name: &str| proxy.through(&world.git.url(name));
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        let main = json!({"branch": "main"});
        world.apply(&source(&world, "repo", &url("repo"), &main, "1h")).await;
        wait_ready(&world, "repo").await;

        // Once, and then it would answer: nobody asks.
        let busy = Fault::Status { code: 429, retry_after: Some(45) };
        let mark = proxy.mark();
        proxy.add(Rule::new(Match::any(), busy).times(1));
        let sources = world.sources();
        world.request(&sources, "repo", "now").await;
        let parts = ["429", "asks to wait until", "not even when a person"];
        let object = world.wait_refused(&sources, "repo", "ServerBusy", &parts).await;
        world.apply(&source(&world, "more", &url("more"), &main, "1h")).await;
        let told = world.wait_refused(&sources, "more", "ServerBusy", &parts).await;
        let message = |object: &Value| condition(object, "Ready")["message"].clone();
        assert_eq!(message(&told), message(&object), "the same time");
        world.request(&sources, "repo", "again").await;
        let handled = |object: &Value| object["status"]["lastHandledReconcileAt"] == "again";
        world.wait_object(&sources, "repo", handled).await;
        assert_eq!(proxy.since(mark).len(), 1, "{:?}", proxy.since(mark));
        let scrape = probe.scrape().await;
        assert!(scrape.sum("plumb_git_polls_total", "outcome=\"put_off\"") >= 3, "{scrape:?}");
        assert_eq!(scrape.sum("plumb_git_hosts_waited_for", ""), 1);
        // Then they are looked at without being asked for.
        for name in ["repo", "more"] {
            wait_ready(&world, name).await;
        }
        assert_eq!(probe.scrape().await.sum("plumb_git_hosts_waited_for", ""), 0);
    });
}
