//! The world under torture: a control plane, repositories, proxies before both, and the agent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_testkit::control_plane::Mark;
use plumb_testkit::{
    Agent, AuditEvent, ControlPlane, GitServer, Hand, History, Match, Options, Proxy, Repo, Scratch,
};
use serde_json::{Value, json};

use super::audit::{self, Evidence, Run};
use super::checker::{self, Rested, View};
use super::faults::{self, Side, Trouble};
use super::hands::{self, Act, BY_HAND, HeldPlan, Traces};
use super::kinds::{APPLICATION, KINDS, Key, REPOSITORY};
use super::model::{Model, NAMESPACES, REPOSITORIES};
use super::moves::Push;
use super::script::Step;
use crate::error::TaskError;
use crate::process::root;

/// Where the agent itself lives.
const HOME: &str = "plumb-system";
/// How often repositories are looked at: a look is what rest is measured by.
const INTERVAL: &str = "2s";
/// The longest that anything may take. A watch that was cut often waits for half a minute, a lease
/// that was lost for a quarter; the rest is for a machine that compiles at the same time.
const LIMIT: Duration = Duration::from_mins(2);
/// Between two looks of the checker.
const POLL: Duration = Duration::from_millis(250);
/// A definition of a kind that the API server does not have.
const WIDGETS: &str = include_str!("widgets.yaml");

/// What was found wrong.
pub(super) type Violations = Vec<String>;

/// Everything that a chapter needs, and what is known of it.
pub(super) struct Stand {
    pub(super) model: Model,
    /// The ids of the commits, as the model has the commits.
    commits: Vec<Vec<String>>,
    ids: Vec<String>,
    traces: Traces,
    applied: Vec<usize>,
    held: BTreeMap<usize, HeldPlan>,
    agent: Option<Agent>,
    /// How much of the agent's log has been read.
    read: usize,
    /// The log of agents that have ended in this round.
    log: String,
    /// When the agent goes on, and when a proxy lets pass again.
    thaw: Option<Instant>,
    heal: Option<(Side, Instant)>,
    /// It is to be started without its cache.
    forget_cache: bool,
    audited: Mark,
    seen: usize,
    looks: u32,
    binary: PathBuf,
    kubeconfig: PathBuf,
    user: String,
    cache: Scratch,
    hand: Hand,
    history: History,
    api: Proxy,
    way: Proxy,
    repos: Vec<Repo>,
    git: GitServer,
    plane: ControlPlane,
}

/// The name of a GitRepository.
fn source(repository: usize) -> String {
    format!("repo-{repository}")
}

impl Stand {
    /// Starts everything but the agent.
    pub(super) async fn new(model: Model, binary: &Path, seed: u64) -> Result<Self, TaskError> {
        let plane = ControlPlane::try_start(Options { nodes: 0, controllers: true })
            .await
            .map_err(TaskError::Tools)?;
        let scratch = Scratch::new("torture");
        let widgets = scratch.write("widgets.yaml", WIDGETS);
        let crds = root().join("deploy/crds");
        for namespace in NAMESPACES.iter().chain([&HOME]) {
            kubectl(&plane, &["create", "namespace", namespace])?;
        }
        let (crds, widgets) = (crds.display().to_string(), widgets.display().to_string());
        kubectl(&plane, &["apply", "--server-side", "-f", &crds, "-f", &widgets])?;
        let names =
            ["applications.plumb.dev", "gitrepositories.plumb.dev", "widgets.torture.example.com"];
        let crds = names.map(|name| format!("crd/{name}"));
        let mut wait: Vec<&str> = vec!["wait", "--for=condition=Established", "--timeout=60s"];
        wait.extend(crds.iter().map(String::as_str));
        kubectl(&plane, &wait)?;

        let git = GitServer::start().await;
        let repos = (0..REPOSITORIES).map(|index| git.repo(&source(index))).collect();
        let api = Proxy::to_api(&plane, seed).await;
        let way = Proxy::to_http(&git.base(), seed).await;
        let identity = plane.service_account(HOME, "plumb", "cluster-admin").await;
        let followed: Vec<_> = KINDS.into_iter().chain([APPLICATION, REPOSITORY]).collect();
        let history = History::follow(&plane, &followed).await;
        let hand = Hand::new(&plane, BY_HAND).await;
        let mut traces = Traces::default();
        hands::plant(&hand, &mut traces).await.map_err(|refused| TaskError::Evidence {
            what: "objects can be created".into(),
            found: refused.to_string(),
        })?;
        let apps = model.apps.len();
        Ok(Self {
            commits: vec![Vec::new(); REPOSITORIES],
            ids: vec![String::new(); apps],
            traces,
            applied: vec![0; apps],
            held: BTreeMap::new(),
            agent: None,
            read: 0,
            log: String::new(),
            thaw: None,
            heal: None,
            forget_cache: false,
            audited: plane.audit().mark(),
            seen: history.mark(),
            looks: 0,
            binary: binary.to_owned(),
            kubeconfig: identity.through(&api.url()),
            user: identity.user(),
            cache: scratch,
            hand,
            history,
            api,
            way,
            repos,
            git,
            plane,
            model,
        })
    }

    /// The first sync of everything.
    pub(super) async fn begin(&mut self, pushes: Vec<Push>) -> Result<Rested, Violations> {
        for push in pushes {
            self.push(&push);
        }
        self.start();
        let person = self.hand.named("person");
        for (namespace, repository) in self.model.sources() {
            let name = source(repository);
            let object = json!({
                "apiVersion": REPOSITORY.api_version, "kind": REPOSITORY.name,
                "metadata": { "name": name },
                "spec": {
                    "url": self.way.through(&self.git.url(&name)),
                    "ref": { "branch": "main" }, "interval": INTERVAL, "timeout": "5s",
                },
            });
            let applied = person.apply(REPOSITORY, namespace, &name, &object).await;
            applied.map_err(|refused| vec![refused.to_string()])?;
        }
        for (index, app) in self.model.apps.iter().enumerate() {
            // Looks in between are to change nothing.
            let interval = ["5s", "1m", "1h"][index % 3];
            let object = json!({
                "apiVersion": APPLICATION.api_version, "kind": APPLICATION.name,
                "metadata": { "name": app.name },
                "spec": {
                    "sourceRef": { "name": source(app.repository) }, "path": app.name,
                    "interval": interval, "retryInterval": "3s",
                },
            });
            let applied = person.apply(APPLICATION, app.namespace, &app.name, &object).await;
            applied.map_err(|refused| vec![refused.to_string()])?;
        }
        let begun = Instant::now();
        loop {
            let ids: Option<Vec<String>> = (0..self.model.apps.len())
                .map(|app| {
                    let label = &self.object(APPLICATION, app)["metadata"]["labels"];
                    label["applyset.kubernetes.io/id"].as_str().map(str::to_owned)
                })
                .collect();
            if let Some(ids) = ids {
                self.ids = ids;
                break;
            }
            if begun.elapsed() > LIMIT {
                return Err(vec!["an Application has no id of its set".into()]);
            }
            tokio::time::sleep(POLL).await;
        }
        self.rest().await
    }

    fn object(&self, kind: plumb_testkit::Kind, app: usize) -> Arc<Value> {
        let app = &self.model.apps[app];
        let key = (kind, app.namespace.to_owned(), app.name.clone());
        self.history.live().get(&key).map(|version| Arc::clone(&version.object)).unwrap_or_default()
    }

    fn push(&mut self, push: &Push) {
        let commit = self.repos[push.repository].commit_changes(&push.changes, &push.what);
        debug_assert_eq!(self.commits[push.repository].len(), push.index);
        self.commits[push.repository].push(commit);
    }

    /// Does one thing.
    pub(super) async fn step(&mut self, step: &Step) -> Result<(), Violations> {
        let now = Instant::now();
        if self.thaw.is_some_and(|at| at <= now) {
            self.go_on();
        }
        if self.heal.is_some_and(|(_, at)| at <= now) {
            self.heal();
        }
        match step {
            Step::Push(push) => self.push(push),
            Step::Pause(time) => tokio::time::sleep(*time).await,
            Step::Hand(act) => self.hand(act).await?,
            Step::Trouble(trouble) => self.trouble(trouble)?,
        }
        Ok(())
    }

    /// Whether there is anything to do.
    pub(super) fn is_about_something(&self, step: &Step) -> bool {
        match step {
            Step::Hand(Act::Approve { app }) => self.held.contains_key(app),
            _ => true,
        }
    }

    async fn hand(&mut self, act: &Act) -> Result<(), Violations> {
        let world = (&self.model, self.ids.as_slice());
        hands::act(&self.hand, act, world, &self.held, &mut self.traces)
            .await
            .map_err(|refused| vec![format!("{act}: {refused}")])
    }

    fn proxy(&self, side: Side) -> &Proxy {
        match side {
            Side::Api => &self.api,
            Side::Git => &self.way,
        }
    }

    fn trouble(&mut self, trouble: &Trouble) -> Result<(), Violations> {
        match trouble {
            Trouble::Requests { side, which, fault, share, times } => {
                faults::arm(self.proxy(*side), *which, fault.clone(), *share, *times);
            }
            Trouble::Cut(side) => {
                self.proxy(*side).cut_open(&Match::any());
            }
            Trouble::Partition { side, lasts } => {
                self.heal();
                self.proxy(*side).partition();
                self.heal = Some((*side, Instant::now() + *lasts));
            }
            Trouble::Kill { keeps_cache } | Trouble::Down { keeps_cache } => {
                self.alive()?;
                if let Some(mut agent) = self.agent.take() {
                    agent.kill9();
                    self.keep_log(&agent);
                }
                self.forget_cache |= !keeps_cache;
                if matches!(trouble, Trouble::Kill { .. }) {
                    self.start();
                }
            }
            Trouble::Stop { keeps_cache } => {
                self.go_on();
                self.alive()?;
                if let Some(mut agent) = self.agent.take() {
                    agent.sigterm();
                    let status = agent.wait(Duration::from_secs(30));
                    // Before its first line it does not listen to signals yet.
                    let awake = agent.logs().contains("\"starting\"");
                    self.keep_log(&agent);
                    if awake && !status.is_some_and(|status| status.success()) {
                        return Err(vec![format!("after SIGTERM it ended with {status:?}")]);
                    }
                }
                self.forget_cache |= !keeps_cache;
                self.start();
            }
            Trouble::Freeze { lasts } => {
                if let Some(agent) = &mut self.agent {
                    agent.sigstop();
                    self.thaw = Some(Instant::now() + *lasts);
                }
            }
        }
        Ok(())
    }

    /// It must not end by itself.
    fn alive(&mut self) -> Result<(), Violations> {
        match self.agent.as_mut().and_then(Agent::ended) {
            Some(status) => Err(vec![format!("it ended by itself with {status}")]),
            None => Ok(()),
        }
    }

    fn keep_log(&mut self, agent: &Agent) {
        let log = agent.logs();
        self.log.push_str(log.get(self.read..).unwrap_or_default());
        self.read = 0;
        self.thaw = None;
    }

    fn start(&mut self) {
        if std::mem::take(&mut self.forget_cache) {
            self.cache = Scratch::new("torture");
        }
        let cache = self.cache.path().join("cache").display().to_string();
        let builder = Agent::builder(&self.binary)
            .kubeconfig(&self.kubeconfig)
            .env("POD_NAMESPACE", HOME)
            .env("PLUMB_NAMESPACES", NAMESPACES.join(","))
            .env("PLUMB_METRICS_ADDR", "127.0.0.1:0")
            .env("PLUMB_LOG_FORMAT", "json")
            .env("PLUMB_LOG_LEVEL", "info,plumb_controller=debug")
            // Always the same pod: it may take its own lease at once.
            .args(["controller", "--identity", "torture", "--cache-dir", &cache]);
        self.agent = Some(builder.start());
        self.read = 0;
    }

    fn go_on(&mut self) {
        self.thaw = None;
        if let Some(agent) = &mut self.agent {
            agent.sigcont();
        }
    }

    fn heal(&mut self) {
        self.heal = None;
        self.api.heal();
        self.way.heal();
    }

    /// Nothing goes wrong any more.
    fn calm(&mut self) {
        self.api.clear();
        self.way.clear();
        self.heal();
        self.go_on();
        if self.agent.is_none() {
            self.start();
        }
    }

    /// Waits until the cluster is as Git asks and nothing is written any more, and then looks
    /// whether it stays so.
    pub(super) async fn rest(&mut self) -> Result<Rested, Violations> {
        self.calm();
        // As a webhook of the Git server would.
        self.looks += 1;
        let person = self.hand.named("person");
        for (namespace, repository) in self.model.sources() {
            let asked = json!({ "reconcile.plumb.dev/requestedAt": self.looks.to_string() });
            let patch = json!({ "metadata": { "annotations": asked } });
            let asked = person.merge(REPOSITORY, namespace, &source(repository), &patch).await;
            asked.map_err(|refused| vec![refused.to_string()])?;
        }
        let begun = Instant::now();
        loop {
            self.alive()?;
            let late = begun.elapsed() > LIMIT;
            if let Err(wrong) = self.look() {
                if late {
                    return Err(wrong);
                }
                tokio::time::sleep(POLL).await;
                continue;
            }
            let written = self.written_during(1).await?;
            if !written.is_empty() {
                if late {
                    return Err(written);
                }
                continue;
            }
            self.history.caught_up().await;
            if self.look().is_err() {
                continue;
            }
            let written = self.written_during(2).await?;
            if !written.is_empty() {
                return Err(written);
            }
            return self.look();
        }
    }

    /// What is written while every repository is looked at so many times.
    async fn written_during(&mut self, looks: usize) -> Result<Violations, Violations> {
        self.plane.settled().await;
        let mark = self.plane.audit().mark();
        let before: Vec<usize> = (0..REPOSITORIES).map(|index| self.polls(index)).collect();
        let begun = Instant::now();
        while (0..REPOSITORIES).any(|index| self.polls(index) < before[index] + looks) {
            self.alive()?;
            if begun.elapsed() > LIMIT {
                return Err(vec!["a repository is not looked at any more".into()]);
            }
            tokio::time::sleep(POLL).await;
        }
        self.plane.settled().await;
        let events = self.asked_since(mark);
        let texts = audit::writes(&events).into_iter().map(|event| {
            format!("written at rest: {} {} at {}", event.what(), event.uri, event.received)
        });
        Ok(texts.collect())
    }

    /// How often a repository was looked at; one without applications counts as often as is asked.
    fn polls(&self, repository: usize) -> usize {
        if self.model.apps_of(repository).is_empty() {
            return usize::MAX / 2;
        }
        let path = format!("/{}.git/", source(repository));
        let requests = self.git.requests();
        let is_look = |body: &[u8]| body.windows(15).any(|part| part == b"command=ls-refs");
        requests.iter().filter(|r| r.path.starts_with(&path) && is_look(&r.body)).count()
    }

    fn asked_since(&self, mark: Mark) -> Vec<AuditEvent> {
        let mut events = self.plane.audit().since(mark);
        events.retain(|event| event.user == self.user);
        events
    }

    /// The checker's look at everything, as it is now.
    fn look(&self) -> Result<Rested, Violations> {
        let all = self.history.live();
        let mut live = BTreeMap::new();
        for ((kind, namespace, name), version) in &all {
            if KINDS.contains(kind) && NAMESPACES.contains(&namespace.as_str()) {
                let key = Key { kind: *kind, namespace: namespace.clone(), name: name.clone() };
                live.insert(key, Arc::clone(&version.object));
            }
        }
        let find = |kind, namespace: &str, name: &str| {
            let found = all.get(&(kind, namespace.to_owned(), name.to_owned()));
            found.map(|version| Arc::clone(&version.object)).unwrap_or_default()
        };
        let apps: Vec<_> =
            self.model.apps.iter().map(|app| find(APPLICATION, app.namespace, &app.name)).collect();
        let sources: Vec<_> = self
            .model
            .sources()
            .into_iter()
            .map(|(namespace, index)| (index, find(REPOSITORY, namespace, &source(index))))
            .collect();
        checker::judge(&View {
            model: &self.model,
            commits: &self.commits,
            ids: &self.ids,
            traces: &self.traces,
            applied: &self.applied,
            live: &live,
            apps: &apps,
            sources: &sources,
        })
    }

    /// Judges everything that was asked since the last call, and forgets it.
    pub(super) fn audit(&mut self, rested: &Rested) -> Result<(), Violations> {
        let (runs, mut wrong) = self.runs();
        let events = self.asked_since(self.audited);
        let versions = self.history.since(self.seen);
        wrong.extend(audit::judge(&Evidence {
            model: &self.model,
            ids: &self.ids,
            traces: &self.traces,
            applied: &self.applied,
            events: &events,
            runs: &runs,
            versions: &versions,
            at: &|uid, number| self.history.at(uid, number),
            live_at: &|number| self.history.live_at(number),
        }));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        self.applied.clone_from(&rested.applied);
        self.held.clone_from(&rested.held);
        self.traces.touched.clear();
        self.audited = self.plane.audit().mark();
        self.history.forget();
        self.seen = self.history.mark();
        self.api.forget();
        self.way.forget();
        self.git.forget();
        self.log.clear();
        self.read = self.agent.as_ref().map_or(0, |agent| agent.logs().len());
        Ok(())
    }

    fn runs(&self) -> (Vec<Run>, Violations) {
        audit::read_log(&self.round_log())
    }

    /// The log of this round.
    pub(super) fn round_log(&self) -> String {
        let now = self.agent.as_ref().map(Agent::logs).unwrap_or_default();
        format!("{}{}", self.log, now.get(self.read..).unwrap_or_default())
    }

    /// What the agent asked in this round, one request a line.
    pub(super) fn round_requests(&self) -> String {
        let events = self.asked_since(self.audited);
        let line = |event: &AuditEvent| {
            format!(
                "{} {} {} {} {}\n",
                event.received, event.code, event.verb, event.uri, event.body
            )
        };
        events.iter().map(line).collect()
    }

    /// Ends the agent in good order.
    pub(super) fn end(&mut self) -> Result<(), Violations> {
        self.alive()?;
        let Some(agent) = &mut self.agent else { return Ok(()) };
        agent.sigterm();
        match agent.wait(Duration::from_secs(30)) {
            Some(status) if status.success() => Ok(()),
            status => Err(vec![format!("after SIGTERM it ended with {status:?}")]),
        }
    }
}

fn kubectl(plane: &ControlPlane, args: &[&str]) -> Result<(), TaskError> {
    let output = plane.kubectl(args);
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(TaskError::Evidence { what: format!("kubectl {} works", args.join(" ")), found: said })
}
