//! kill -9 at seeded moments of a sync: whatever the agent was doing, its next start ends in
//! exactly what Git asks for, with nothing orphaned and nothing wrongly deleted.
//!
//! A round commits changes, creations, renames and moves between kinds and namespaces. The agent
//! stands behind proxies; one of them holds the request of the moment before the server sees it,
//! or its answer after the server has done what was asked. There the agent is killed and started
//! again, half of the time with an empty cache as a new pod has it.
//!
//! `PLUMB_LONG_TESTS=1` runs ten times as many rounds. `PLUMB_TEST_SEED` repeats others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use plumb_testkit::{Agent, Hold, Match, Proxy, Scratch, runtime, wait_for};
use serde_json::json;

use crate::world::{LIMIT, World};

/// A kind whose objects wander, and what its manifest needs beside metadata.
struct Kind {
    api_version: &'static str,
    name: &'static str,
    body: &'static str,
}

const CONFIG_MAP: Kind = Kind { api_version: "v1", name: "ConfigMap", body: "" };

/// Where the movers go, one after the other. Each round brings a kind in and takes one away, so
/// that the scope in the parent grows and shrinks.
const WAY: [Kind; 5] = [
    Kind { api_version: "v1", name: "ServiceAccount", body: "" },
    Kind { api_version: "rbac.authorization.k8s.io/v1", name: "Role", body: "rules: []\n" },
    Kind { api_version: "v1", name: "Secret", body: "stringData: {password: hunter2}\n" },
    Kind {
        api_version: "networking.k8s.io/v1",
        name: "NetworkPolicy",
        body: "spec: {podSelector: {}}\n",
    },
    Kind { api_version: "v1", name: "LimitRange", body: "spec: {limits: []}\n" },
];

/// What every object of the model carries, so that its content can be read from any kind.
const VALUE: &str = "example.com/value";
/// The label that makes an object a member.
const PART_OF: &str = "applyset.kubernetes.io/part-of";
/// Renamed in each round.
const RENAMED: usize = 2;
/// Changed in each round.
const CHANGED: usize = 3;
/// Moved in each round.
const MOVED: usize = 2;
/// Objects sent in each round: the changed, renamed and moved ones, and one that is new.
const SENT: u32 = 8;
/// Objects deleted in each round but the first: the old forms of those, and the former new one.
const DELETED: u32 = 5;

/// What Git asks for: kind, namespace and name, with the value.
type Model = BTreeMap<(&'static str, String, String), String>;

/// Where in a sync the agent is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// At this Git command.
    Fetch { command: &'static str, answered: bool },
    /// Between the end of the fetch and the first write of the sync.
    Render { after: Duration },
    /// At a write of the parent's facts: the one that grows the scope, or the one that shrinks it.
    WriteAhead { shrinks: bool, answered: bool },
    /// At the nth object.
    Apply { nth: u32, answered: bool },
    /// At the nth deletion.
    Prune { nth: u32, answered: bool },
    /// At the status of the Application, or of the GitRepository.
    Status { of: &'static str, answered: bool },
}

struct Stand {
    world: World,
    /// The second namespace that members are in.
    far: String,
    api: Proxy,
    git: Proxy,
    random: fastrand::Rng,
    cache: Scratch,
    agent: Agent,
    model: Model,
    round: usize,
    /// What nobody may touch: kind, namespace, name and uid.
    canaries: Vec<(&'static Kind, String, String, String)>,
}

#[test]
fn killed_while_fetching() {
    torture("fetch", 4, |random, index| Moment::Fetch {
        command: if index % 2 == 0 { "command=fetch" } else { "command=ls-refs" },
        answered: random.bool(),
    });
}

#[test]
fn killed_while_rendering() {
    // From the last byte of the fetch to the first write takes some tens of milliseconds in a debug
    // build.
    torture("render", 3, |random, _| Moment::Render {
        after: Duration::from_millis(random.u64(0..60)),
    });
}

#[test]
fn killed_while_writing_ahead() {
    torture("write-ahead", 4, |_, index| Moment::WriteAhead {
        shrinks: index % 2 == 1,
        answered: index % 4 >= 2,
    });
}

#[test]
fn killed_while_applying() {
    torture("apply", 4, |random, index| Moment::Apply {
        nth: random.u32(1..=SENT),
        answered: index % 2 == 1,
    });
}

#[test]
fn killed_while_pruning() {
    torture("prune", 4, |random, index| Moment::Prune {
        nth: random.u32(1..=DELETED),
        answered: index % 2 == 1,
    });
}

#[test]
fn killed_while_writing_status() {
    torture("status", 4, |_, index| Moment::Status {
        of: if index % 2 == 0 { "applications/web" } else { "gitrepositories/repo" },
        answered: index % 4 >= 2,
    });
}

#[test]
fn killed_in_its_first_sync() {
    let seed = seed();
    println!("first sync: PLUMB_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for moment in [
        Moment::WriteAhead { shrinks: false, answered: true },
        Moment::Apply { nth: random.u32(2..=SENT), answered: random.bool() },
        Moment::Status { of: "applications/web", answered: false },
    ] {
        runtime().block_on(async {
            let mut stand = Stand::new("first", seed, Some(moment)).await;
            stand.agent.stop();
        });
    }
}

/// Kills the agent at `rounds` moments that `choose` draws.
fn torture(phase: &str, rounds: usize, choose: impl Fn(&mut fastrand::Rng, usize) -> Moment) {
    let long = std::env::var_os("PLUMB_LONG_TESTS").is_some_and(|value| value == "1");
    let rounds = if long { 10 * rounds } else { rounds };
    let seed = seed();
    println!("{phase}: {rounds} moments with PLUMB_TEST_SEED={seed}");
    runtime().block_on(async {
        let mut stand = Stand::new(phase, seed, None).await;
        for index in 0..rounds {
            let moment = choose(&mut stand.random, index);
            stand.round(moment).await;
        }
        // At its end the Application goes, by way of another kill.
        let answered = stand.random.bool();
        let farewell = if stand.random.bool() {
            Moment::Prune { nth: stand.random.u32(1..=DELETED), answered }
        } else {
            Moment::WriteAhead { shrinks: false, answered }
        };
        stand.farewell(farewell).await;
        stand.agent.stop();
    });
}

/// The seed of all moments.
fn seed() -> u64 {
    let seed = std::env::var("PLUMB_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    seed.unwrap_or(1)
}

impl Stand {
    /// A namespace with everything in place, synced once, perhaps with a kill on the way.
    async fn new(phase: &str, seed: u64, moment: Option<Moment>) -> Self {
        let world = World::new(phase).await;
        let far = world.plane.namespace(&format!("{phase}-far")).await;
        let api = Proxy::to_api(&world.plane, seed).await;
        let git = Proxy::to_http(&world.git.base(), seed).await;
        let cache = Scratch::new("torture");
        let agent = start(&world, &api, &cache);
        // Each phase draws its own.
        let salt: u64 = phase.bytes().map(u64::from).sum();
        let random = fastrand::Rng::with_seed(seed.wrapping_add(salt));
        let mut stand = Self {
            world,
            far,
            api,
            git,
            random,
            cache,
            agent,
            model: Model::new(),
            round: 0,
            canaries: Vec::new(),
        };
        let commit = stand.commit();
        let mut source = stand.world.source("1h");
        source["spec"]["url"] = stand.git.through(&stand.world.git.url("repo")).into();
        let hold = moment.map(|moment| stand.arm(moment));
        stand.world.apply(&source).await;
        for name in ["web", "other"] {
            stand.world.apply(&stand.world.app(name, name, "1h")).await;
        }
        if let Some(mut hold) = hold {
            hold.arrived(LIMIT).await;
            stand.kill(true);
            drop(hold);
        }
        stand.world.wait_applied("web", &commit).await;
        stand.world.wait_applied("other", &commit).await;
        stand.plant().await;
        for name in ["other-a", "other-b"] {
            let (ns, uid) = (stand.world.ns.clone(), stand.uid(&CONFIG_MAP, name).await);
            stand.canaries.push((&CONFIG_MAP, ns, name.into(), uid));
        }
        stand.check("the first sync", &BTreeMap::new()).await;
        stand
    }

    /// Creates objects that are not the Application's, by a hand that is not ours.
    async fn plant(&mut self) {
        let web = self.set_id("web").await;
        let elsewhere = "applyset-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-v1".to_owned();
        let (near, far) = (self.world.ns.clone(), self.far.clone());
        for (kind, ns, name, part_of) in [
            (&CONFIG_MAP, &near, "unlabelled", None),
            (&CONFIG_MAP, &near, "of-another-tool", Some(&elsewhere)),
            // Labelled as ours by somebody who is not us.
            (&CONFIG_MAP, &near, "labelled-by-hand", Some(&web)),
            (&WAY[0], &near, "unlabelled", None),
            (&WAY[0], &far, "unlabelled", None),
            (&WAY[2], &far, "of-another-tool", Some(&elsewhere)),
        ] {
            let mut object = json!({
                "apiVersion": kind.api_version, "kind": kind.name,
                "metadata": {"name": name, "namespace": ns, "annotations": {VALUE: "theirs"}},
            });
            if let Some(part_of) = part_of {
                object["metadata"]["labels"] = json!({PART_OF: part_of});
            }
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            let created =
                self.api_of(kind, Some(ns)).create(&PostParams::default(), &object).await.unwrap();
            let uid = created.metadata.uid.unwrap();
            self.canaries.push((kind, ns.clone(), name.into(), uid));
        }
    }

    /// Commits the next model and returns the commit.
    fn commit(&mut self) -> String {
        self.round += 1;
        let round = self.round;
        let mut next = Model::new();
        let near = self.world.ns.clone();
        let mut add = |kind: &Kind, ns: &str, name: String, value: String| {
            next.insert((kind.name, ns.to_owned(), name), value);
        };
        for n in 0..CHANGED {
            add(&CONFIG_MAP, &near, format!("kept-{n}"), "always".into());
            let value = format!("{round}-{}", self.random.u32(..));
            add(&CONFIG_MAP, &near, format!("changed-{n}"), value);
        }
        for n in 0..RENAMED {
            add(&CONFIG_MAP, &near, format!("renamed-{n}-{round}"), "same".into());
        }
        add(&CONFIG_MAP, &near, format!("new-{round}"), "new".into());
        let ns = if round.is_multiple_of(2) { &near } else { &self.far };
        for n in 0..MOVED {
            add(&WAY[round % WAY.len()], ns, format!("moved-{n}"), "same".into());
        }
        // So that rendering takes a moment.
        add(&CONFIG_MAP, &near, "large".into(), "many words ".repeat(10_000));

        let path =
            |(kind, ns, name): &(&str, String, String)| format!("web/{kind}-{ns}-{name}.yaml");
        let mut changes: Vec<(String, Option<String>)> = Vec::new();
        for key in self.model.keys().filter(|key| !next.contains_key(*key)) {
            changes.push((path(key), None));
        }
        for (key, value) in &next {
            if self.model.get(key) != Some(value) {
                changes.push((path(key), Some(manifest(key, value))));
            }
        }
        if round == 1 {
            for name in ["other-a", "other-b"] {
                let key = (CONFIG_MAP.name, near.clone(), name.to_owned());
                changes.push((format!("other/{name}.yaml"), Some(manifest(&key, "other"))));
            }
        }
        self.model = next;
        let changes: Vec<_> =
            changes.iter().map(|(path, text)| (path.as_str(), text.as_deref())).collect();
        self.world.repo.commit(&changes, &format!("round {round}"))
    }

    /// One commit, one kill, one start.
    async fn round(&mut self, moment: Moment) {
        let before = self.uids().await;
        let commit = self.commit();
        let keeps_cache = self.random.bool();
        let what = format!("round {}, killed at {moment:?}", self.round);
        println!("{what}, cache {}", if keeps_cache { "kept" } else { "lost" });

        let mut hold = self.arm(moment);
        // The first write of the sync does not get through while rendering is cut short.
        let first = Match::method("PATCH").path("/applications/web").query("plumb-applyset");
        let first = matches!(moment, Moment::Render { .. }).then(|| self.api.hold(first));
        self.world.look().await;
        hold.arrived(LIMIT).await;
        if let Moment::Render { after } = moment {
            hold.release();
            tokio::time::sleep(after).await;
        }
        self.kill(keeps_cache);
        drop(first);
        self.world.wait_applied("web", &commit).await;
        // The status may be from before the kill; this run is not.
        self.world.request(&self.world.apps(), "web", &what).await;
        self.world
            .wait_condition(&self.world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["lastHandledReconcileAt"] == what
            })
            .await;
        self.check(&what, &before).await;
    }

    /// SIGKILL, and another start.
    fn kill(&mut self, keeps_cache: bool) {
        self.agent.kill9();
        self.api.clear();
        self.git.clear();
        if !keeps_cache {
            self.cache = Scratch::new("torture");
        }
        self.agent = start(&self.world, &self.api, &self.cache);
    }

    /// The Application is deleted, and its objects with it.
    async fn farewell(&mut self, moment: Moment) {
        let what = format!("its deletion, killed at {moment:?}");
        println!("{what}");
        let id = self.set_id("web").await;
        let mut hold = self.arm(moment);
        self.world.delete(&self.world.apps(), "web").await;
        hold.arrived(LIMIT).await;
        self.kill(true);
        drop(hold);
        self.world.wait_gone(&self.world.apps(), "web").await;
        self.model.clear();
        self.check_members(&what, &id, &BTreeMap::new()).await;
    }

    /// Holds the moment.
    fn arm(&self, moment: Moment) -> Hold {
        let hold = |proxy: &Proxy, when: Match, answered: bool| {
            if answered { proxy.hold_answer(when) } else { proxy.hold(when) }
        };
        let members = || is_write().when(|seen| !seen.path.contains("/apis/plumb.dev/"));
        match moment {
            Moment::Fetch { command, answered } => {
                hold(&self.git, Match::method("POST").body(command), answered)
            }
            Moment::Render { .. } => {
                self.git.hold_answer(Match::method("POST").body("command=fetch"))
            }
            Moment::WriteAhead { shrinks, answered } => {
                let facts = Match::method("PATCH")
                    .path("/applications/web")
                    .query("fieldManager=plumb-applyset")
                    .nth(if shrinks { 2 } else { 1 });
                hold(&self.api, facts, answered)
            }
            Moment::Apply { nth, answered } => {
                let apply = members().when(|seen| seen.method == "PATCH").nth(nth);
                hold(&self.api, apply, answered)
            }
            Moment::Prune { nth, answered } => {
                let delete = members().when(|seen| seen.method == "DELETE").nth(nth);
                hold(&self.api, delete, answered)
            }
            Moment::Status { of, answered } => {
                let status = Match::method("PATCH").path(&format!("/{of}/status"));
                hold(&self.api, status, answered)
            }
        }
    }

    /// Everything that must hold at the end of a round.
    async fn check(&self, what: &str, before: &BTreeMap<(&str, String, String), String>) {
        let id = self.set_id("web").await;
        self.check_members(what, &id, before).await;
        let parent = self.world.get(&self.world.apps(), "web").await;
        let annotation = |key: &str| parent["metadata"]["annotations"][key].as_str().unwrap();
        let kinds: BTreeSet<String> =
            self.model.keys().map(|(kind, ..)| group_kind(kind)).collect();
        let kinds: Vec<_> = kinds.into_iter().collect();
        assert_eq!(
            annotation("applyset.kubernetes.io/contains-group-kinds"),
            kinds.join(","),
            "{what}"
        );
        let far = self.model.keys().any(|(_, ns, _)| *ns == self.far);
        assert_eq!(
            annotation("applyset.kubernetes.io/additional-namespaces"),
            if far { &*self.far } else { "" },
            "{what}"
        );
    }

    /// Every object that carries our label or our manager is one that Git asks for, and nobody
    /// else's was touched.
    async fn check_members(
        &self,
        what: &str,
        id: &str,
        before: &BTreeMap<(&str, String, String), String>,
    ) {
        let manager = format!("plumb:{}/web", self.world.ns);
        let (mut live, mut uids) = (Model::new(), BTreeMap::new());
        for kind in WAY.iter().chain([&CONFIG_MAP]) {
            for ns in [&self.world.ns, &self.far] {
                let list = self.api_of(kind, Some(ns)).list(&ListParams::default()).await.unwrap();
                for object in list {
                    let metadata = object.metadata;
                    let name = metadata.name.unwrap();
                    let labelled = metadata
                        .labels
                        .as_ref()
                        .and_then(|l| l.get(PART_OF))
                        .is_some_and(|set| set == id);
                    let managed = metadata
                        .managed_fields
                        .iter()
                        .flatten()
                        .any(|entry| entry.manager.as_ref() == Some(&manager));
                    // A member without its label is an orphan; one without our manager is not ours.
                    if managed || (labelled && name != "labelled-by-hand") {
                        assert!(managed && labelled, "{what}: {} {ns}/{name}", kind.name);
                    }
                    assert!(metadata.deletion_timestamp.is_none(), "{what}: {name} is going");
                    if managed {
                        let value = metadata.annotations.unwrap_or_default().remove(VALUE);
                        let key = (kind.name, ns.clone(), name);
                        live.insert(key.clone(), value.unwrap_or_default());
                        uids.insert(key, metadata.uid.unwrap());
                    }
                }
            }
        }
        assert_eq!(live, self.model, "{what}: the cluster, and what Git asks for");
        for (key, uid) in before {
            if let Some(now) = uids.get(key) {
                assert_eq!(now, uid, "{what}: {key:?} was deleted and created again");
            }
        }
        for (kind, ns, name, uid) in &self.canaries {
            let found = self.api_of(kind, Some(ns)).get_opt(name).await.unwrap();
            let found =
                found.unwrap_or_else(|| panic!("{what}: {} {ns}/{name} is gone", kind.name));
            assert_eq!(found.metadata.uid.as_ref(), Some(uid), "{what}: {} {ns}/{name}", kind.name);
        }
    }

    /// The uids of the members.
    async fn uids(&self) -> BTreeMap<(&'static str, String, String), String> {
        let mut uids = BTreeMap::new();
        for key in self.model.keys() {
            let kind = WAY.iter().chain([&CONFIG_MAP]).find(|kind| kind.name == key.0).unwrap();
            let object = self.api_of(kind, Some(&key.1)).get_metadata(&key.2).await.unwrap();
            uids.insert(key.clone(), object.metadata.uid.unwrap());
        }
        uids
    }

    async fn uid(&self, kind: &Kind, name: &str) -> String {
        let api = self.api_of(kind, None);
        wait_for(name, LIMIT, async || api.get_opt(name).await.unwrap()?.metadata.uid).await
    }

    /// The objects of a kind in a namespace; in the world's own when none is given.
    fn api_of(&self, kind: &Kind, ns: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = kind.api_version.split_once('/').unwrap_or(("", kind.api_version));
        let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.name));
        if kind.name == "NetworkPolicy" {
            resource.plural = "networkpolicies".into();
        }
        let ns = ns.unwrap_or(&self.world.ns);
        Api::namespaced_with(self.world.client.clone(), ns, &resource)
    }

    /// The id of an Application's set, as its label says.
    async fn set_id(&self, app: &str) -> String {
        let parent = self.world.get(&self.world.apps(), app).await;
        parent["metadata"]["labels"]["applyset.kubernetes.io/id"].as_str().unwrap().to_owned()
    }
}

/// Starts the agent behind the proxies, always as the same pod: it may take its own lease at once.
fn start(world: &World, api: &Proxy, cache: &Scratch) -> Agent {
    let cache = cache.path().join("cache");
    let args = ["--identity", "torture", "--cache-dir", cache.to_str().unwrap()];
    world.agent_with(world.identity.through(&api.url()), &args)
}

/// Requests that change members or the parent, but for the Lease and Events.
fn is_write() -> Match {
    Match::any().when(|seen| {
        matches!(seen.method.as_str(), "PATCH" | "DELETE")
            && !seen.path.contains("/leases/")
            && !seen.path.contains("/events")
    })
}

fn manifest((kind, ns, name): &(&str, String, String), value: &str) -> String {
    let kind = WAY.iter().chain([&CONFIG_MAP]).find(|known| known.name == *kind).unwrap();
    format!(
        "apiVersion: {}\nkind: {}\nmetadata:\n  name: {name}\n  namespace: {ns}\n  annotations:\n    \
         {VALUE}: {value:?}\n{}",
        kind.api_version, kind.name, kind.body,
    )
}

fn group_kind(kind: &str) -> String {
    match kind {
        "Role" => "Role.rbac.authorization.k8s.io".into(),
        "NetworkPolicy" => "NetworkPolicy.networking.k8s.io".into(),
        core => core.into(),
    }
}
