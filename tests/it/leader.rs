//! Two replicas: one leads, the other is ready to, and never both at once.
//!
//! A standby waits until it has seen the leader's last renewal, of which a watch tells it, stay unchanged
//! for the lease and a twentieth of it. So after a kill it leads within that. The tests assert who writes and in which order; the times are printed, not asserted, because
//! the machine may be busy.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use plumb_testkit::control_plane::Mark;
use plumb_testkit::{Agent, Exchange, Identity, Match, Proxy, Requests, runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, config_map};

/// The shortest there is.
const LEASE: &str = "3s";

/// For tests in which nobody may lose the lease by being slow: the machine may be too busy to renew
/// the shortest in time.
const STEADY: Duration = Duration::from_secs(10);

/// A world with two identities, so that the audit log tells the replicas apart.
struct Pair {
    world: World,
    one: Identity,
    two: Identity,
}

impl Pair {
    async fn new(prefix: &str) -> Self {
        let world = World::new(prefix).await;
        let one = world.plane.service_account(&world.ns, "one", "cluster-admin").await;
        let two = world.plane.service_account(&world.ns, "two", "cluster-admin").await;
        Self { world, one, two }
    }

    fn start(&self, kubeconfig: PathBuf, name: &str, lease: &str) -> Agent {
        let args = ["--identity", name, "--lease-duration", lease];
        self.world.agent_with(kubeconfig, &args)
    }

    /// Starts the first replica and waits until it leads, then the second.
    async fn start_both(&self, lease: &str) -> (Agent, Agent) {
        let one = self.start(self.one.kubeconfig().into(), "one", lease);
        self.wait_holder("one").await;
        let two = self.start(self.two.kubeconfig().into(), "two", lease);
        (one, two)
    }

    async fn lease(&self) -> Option<Value> {
        let lease = self.world.api("coordination.k8s.io/v1", "Lease").get_opt("plumb").await;
        lease.unwrap().map(|lease| lease.data["spec"].clone())
    }

    async fn wait_holder(&self, name: &str) {
        wait_for(&format!("{name} to hold the lease"), LIMIT, async || {
            let lease = self.lease().await;
            match &lease {
                Some(spec) if spec["holderIdentity"] == name => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    fn requests(&self, identity: &Identity, mark: Mark) -> Requests {
        self.world.plane.audit().requests(mark).by(&identity.user())
    }

    /// Waits until the second replica watches these, given as `group/plural` or `plural`.
    async fn wait_caches(&self, mark: Mark, plurals: &[&str]) {
        wait_for("the standby's caches", LIMIT, async || {
            let seen = self.requests(&self.two, mark).counts();
            let all = plurals.iter().all(|plural| seen.contains_key(&format!("watch {plural}")));
            if all { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }

    async fn epoch(&self) -> u64 {
        let app = self.world.get(&self.world.apps(), "web").await;
        let mark = app["metadata"]["annotations"]["plumb.dev/epoch"].as_str().unwrap();
        let (epoch, uid) = mark.split_once('@').unwrap();
        assert_eq!(uid, app["metadata"]["uid"]);
        epoch.parse().unwrap()
    }

    fn commit(&self, files: &[(&str, &str)]) -> String {
        let files: Vec<_> = files
            .iter()
            .map(|(name, value)| (format!("app/{name}.yaml"), config_map(name, value)))
            .collect();
        let files: Vec<_> =
            files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        self.world.repo.commit(&files, "more")
    }
}

const OWN_AND_MEMBERS: [&str; 3] =
    ["plumb.dev/gitrepositories", "plumb.dev/applications", "configmaps"];

#[test]
fn a_standby_keeps_its_caches_writes_nothing_and_takes_over_after_a_kill() {
    runtime().block_on(async {
        let pair = Pair::new("leader-kill").await;
        let world = &pair.world;
        let mark = world.plane.audit().mark();
        let (mut one, _two) = pair.start_both(&format!("{}s", STEADY.as_secs())).await;
        pair.wait_caches(mark, &OWN_AND_MEMBERS[..2]).await;
        let first = pair.commit(&[("a", "1"), ("b", "1")]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;
        // Also of kinds that came into use after it was started.
        pair.wait_caches(mark, &OWN_AND_MEMBERS).await;
        let before = pair.epoch().await;

        world.plane.settled().await;
        let writes = pair.requests(&pair.two, mark).writes();
        assert!(writes.is_empty(), "a standby wrote:\n{}", writes.table());

        let second = pair.commit(&[("a", "2")]);
        let mark = world.plane.audit().mark();
        let killed = Instant::now();
        one.kill9();
        world.look().await;
        pair.wait_holder("two").await;
        let led = killed.elapsed();
        world.wait_applied("web", &second).await;
        println!(
            "killed: the other led after {led:.1?} and had applied a commit after {:.1?}; bound \
             {:.1?}",
            killed.elapsed(),
            STEADY.mul_f64(1.05),
        );
        world.plane.settled().await;
        let writes = pair.requests(&pair.two, mark).writes();
        assert_eq!(writes[0].resource, "leases", "the lease comes first:\n{}", writes.table());
        // What it had in its caches it did not ask for again.
        let all = pair.requests(&pair.two, mark);
        assert_eq!(all.count("list configmaps"), 0, "{}", all.table());
        assert_eq!(all.count("list plumb.dev/applications"), 0, "{}", all.table());

        // The parent's facts are written when the scope changes, and name the new leader's epoch.
        let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n";
        let third = world.repo.commit(&[("app/s.yaml", Some(secret))], "a kind more");
        world.look().await;
        world.wait_applied("web", &third).await;
        let after = pair.epoch().await;
        assert!(after > before, "epoch {after} after {before}");
    });
}

#[test]
fn a_standby_that_takes_over_verifies_what_changed_and_nothing_else() {
    runtime().block_on(async {
        let pair = Pair::new("leader-change").await;
        let world = &pair.world;
        let mark = world.plane.audit().mark();
        let (mut one, mut two) = pair.start_both(&format!("{}s", STEADY.as_secs())).await;
        let first = pair.commit(&[("a", "1"), ("b", "1"), ("c", "1")]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;
        let probe = Probe::of(&mut two).await;
        pair.wait_caches(mark, &OWN_AND_MEMBERS).await;
        world.plane.settled().await;

        let mark = world.plane.audit().mark();
        one.kill9();
        let edit = json!({"data": {"value": "by hand"}});
        let api = world.config_maps();
        api.patch("b", &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
        wait_for("the edit to be undone", LIMIT, async || match world.data("b").await {
            Some(data) if data["value"] == "1" => Ok(()),
            other => Err(other),
        })
        .await;
        probe.idle(2).await;
        world.plane.settled().await;
        let asked = pair.requests(&pair.two, mark);
        assert_eq!(asked.count("patch configmaps"), 1, "{}", asked.table());
        assert_eq!(asked.count("list configmaps"), 0, "{}", asked.table());
    });
}

#[test]
fn a_graceful_stop_hands_over_without_waiting_for_the_lease() {
    runtime().block_on(async {
        let pair = Pair::new("leader-stop").await;
        let world = &pair.world;
        // Far longer than anything here takes: nobody can wait for it to expire.
        let (mut one, two) = pair.start_both("10m").await;
        let first = pair.commit(&[("a", "1")]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &first).await;

        let second = pair.commit(&[("a", "2")]);
        let stopped = Instant::now();
        assert!(one.stop().success(), "{}", one.logs());
        let ended = stopped.elapsed();
        world.look().await;
        pair.wait_holder("two").await;
        println!("stopped: ended after {ended:.1?}, the other led after {:.1?}", stopped.elapsed());
        world.wait_applied("web", &second).await;
        drop(two);
    });
}

#[test]
fn one_that_stood_still_past_its_lease_sends_nothing_when_it_is_woken() {
    const OBJECTS: usize = 60;
    runtime().block_on(async {
        let pair = Pair::new("leader-still").await;
        let world = &pair.world;
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let lease = format!("{}s", STEADY.as_secs());
        let mut one = pair.start(pair.one.through(&proxy.url()), "one", &lease);
        pair.wait_holder("one").await;
        let mut two = pair.start(pair.two.kubeconfig().into(), "two", &lease);

        // It stands still in the middle of a sync, with an answer on its way to it.
        let many = |value: &str| {
            let names: Vec<_> = (0..OBJECTS).map(|n| format!("many-{n}")).collect();
            let files: Vec<_> = names.iter().map(|name| (name.as_str(), value)).collect();
            pair.commit(&files)
        };
        many("1");
        let apply = || Match::method("PATCH").path("/configmaps/many-");
        let mut hold = proxy.hold_answer(apply().nth(10));
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        hold.arrived(LIMIT).await;
        one.sigstop();
        let still = Instant::now();

        pair.wait_holder("two").await;
        println!("stood still: the other led after {:.1?}", still.elapsed());
        let second = many("2");
        world.look().await;
        world.wait_applied("web", &second).await;
        // What was in flight has arrived long since.
        world.plane.settled().await;
        let (mark, passed) = (world.plane.audit().mark(), proxy.mark());
        let said = one.logs().len();
        hold.release();
        one.sigcont();
        one.wait_for_log_after(said, "standing by", LIMIT).await;

        // Give it every reason to write: a commit, a request, and drift.
        let third = many("3");
        world.look().await;
        world.request(&world.apps(), "web", "now").await;
        world.edit(&world.config_maps(), "many-1", &json!({"data": {"value": "by hand"}})).await;
        world.wait_applied("web", &third).await;
        world.wait_value("many-1", "3").await;
        // It has seen all that: it reads the lease again and again.
        let reads = pair.requests(&pair.one, mark).count("get coordination.k8s.io/leases");
        wait_for("two more looks at the lease", LIMIT, async || {
            let now = pair.requests(&pair.one, mark).count("get coordination.k8s.io/leases");
            if now >= reads + 2 { Ok(()) } else { Err(now) }
        })
        .await;
        let writes = pair.requests(&pair.one, mark).writes();
        let sent: Vec<_> = proxy.since(passed).iter().map(Exchange::line).collect();
        assert!(writes.is_empty(), "woken, it wrote:\n{}\n{sent:#?}", writes.table());

        // When it leads again, what it remembers is two commits old, and Git is away: it may not
        // go back to that.
        world.git.stop().await;
        two.kill9();
        pair.wait_holder("one").await;
        world.request(&world.apps(), "web", "again").await;
        world.wait_refused(&world.apps(), "web", "SourceNotReady", &[]).await;
        world.plane.settled().await;
        let again = pair.requests(&pair.one, mark).writes();
        let members = again.only(|event| event.resource == "configmaps");
        assert!(members.is_empty(), "back to what it remembered:\n{}", members.table());
        world.git.restart().await;
        let fourth = many("4");
        world.look().await;
        world.wait_applied("web", &fourth).await;
    });
}

#[test]
fn a_lease_that_was_deleted_with_the_installation_holds_up_no_application() {
    runtime().block_on(async {
        let pair = Pair::new("leader-new").await;
        let world = &pair.world;
        let first = pair.commit(&[("a", "1")]);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        // Terms come and go, and the last one leaves its epoch in the parent.
        for name in ["one", "two", "three"] {
            let mut agent = pair.start(pair.one.kubeconfig().into(), name, LEASE);
            pair.wait_holder(name).await;
            world.wait_applied("web", &first).await;
            agent.stop();
        }
        world.repo.commit(
            &[("app/s.yaml", Some("apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n"))],
            "s",
        );
        let mut agent = pair.start(pair.one.kubeconfig().into(), "four", LEASE);
        world.wait_applied("web", &world.repo.head()).await;
        agent.stop();
        let before = pair.epoch().await;
        assert!(before >= 4, "{before}");

        world.delete(&world.api("coordination.k8s.io/v1", "Lease"), "plumb").await;
        let _agent = pair.start(pair.one.kubeconfig().into(), "five", LEASE);
        let again = world.repo.commit(&[("app/s.yaml", None)], "no secret");
        world.look().await;
        world.wait_applied("web", &again).await;
        let after = pair.epoch().await;
        assert!(after > before, "epoch {after} after {before}");
    });
}
