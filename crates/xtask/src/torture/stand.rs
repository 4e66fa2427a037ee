//! The world under torture: a control plane, repositories, proxies before both, and the agent.

mod acts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_testkit::control_plane::Mark;
use plumb_testkit::{
    Agent, AuditEvent, ControlPlane, GitServer, Hand, History, Match, Options, Proxy, Repo, Scratch,
};
use serde_json::{Value, json};

use self::acts::WATCH;
use super::audit::{self, Evidence, Run};
use super::checker::{self, Rested, View};
use super::faults::Side;
use super::hands::{self, BY_HAND, HeldPlan, Traces};
use super::kinds::{APPLICATION, KINDS, Key, REPOSITORY};
use super::model::{Model, NAMESPACES, REPOSITORIES, Standing};
use super::moves::Push;
use crate::error::TaskError;
use crate::process::kubectl;

/// Where the agent itself lives.
const HOME: &str = "plumb-system";
/// How often repositories are looked at, as often as can be: a look is what rest is measured by, and
/// a round has three of them at the least.
const INTERVAL: &str = "1s";
/// The longest that anything may take. A watch that was cut often waits for half a minute; the rest
/// is for a machine that compiles at the same time.
const LIMIT: Duration = Duration::from_mins(2);
/// The longest that is waited for watches that were cut. One less than before may be right: nobody
/// needs the kind any more.
const REOPENED: Duration = Duration::from_secs(40);
/// Between two looks of the checker.
const POLL: Duration = Duration::from_millis(100);
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
    /// The newest commit of each repository when the last round ended.
    first: Vec<usize>,
    /// How each application stood then.
    stood: Vec<Standing>,
    /// Uids of objects that a mark kept everybody off at the end of the last round.
    left_alone: BTreeSet<String>,
    held: BTreeMap<usize, HeldPlan>,
    /// How many corrections each application had told of.
    corrected: Vec<u64>,
    agent: Option<Agent>,
    /// How much of the agent's log has been read.
    read: usize,
    /// The log of agents that have ended in this round.
    log: String,
    /// When the agent goes on, and when a proxy lets pass again.
    thaw: Option<Instant>,
    heal: Option<(Side, Instant)>,
    /// Watches are late.
    late: bool,
    /// How many watches there were when the last round ended.
    watches: usize,
    /// It is to be started without its cache.
    forget_cache: bool,
    audited: Mark,
    seen: usize,
    looks: u32,
    binary: PathBuf,
    broken: Option<String>,
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
    pub(super) async fn new(
        model: Model,
        binary: &Path,
        broken: Option<&str>,
        seed: u64,
    ) -> Result<Self, TaskError> {
        let plane = ControlPlane::try_start(Options { nodes: 0, controllers: true })
            .await
            .map_err(TaskError::Tools)?;
        let scratch = Scratch::new("torture");
        let widgets = scratch.write("widgets.yaml", WIDGETS);
        let crds = plumb_api::crd_documents()
            .map_err(|source| TaskError::Json { what: "the definitions", source })?;
        let crds = json!({ "apiVersion": "v1", "kind": "List", "items": crds });
        let crds = scratch.write("crds.json", crds.to_string());
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
            first: vec![0; REPOSITORIES],
            stood: vec![Standing::Active; apps],
            left_alone: BTreeSet::new(),
            held: BTreeMap::new(),
            corrected: vec![0; apps],
            agent: None,
            read: 0,
            log: String::new(),
            thaw: None,
            heal: None,
            late: false,
            watches: 0,
            forget_cache: false,
            audited: plane.audit().mark(),
            seen: history.mark(),
            looks: 0,
            binary: binary.to_owned(),
            broken: broken.map(str::to_owned),
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
        for app in 0..self.model.apps.len() {
            self.create(app).await?;
        }
        let begun = Instant::now();
        loop {
            self.learn_ids();
            if self.ids.iter().all(|id| !id.is_empty()) {
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

    /// Makes an Application.
    async fn create(&self, app: usize) -> Result<(), Violations> {
        let folder = &self.model.apps[self.model.apps[app].folder].name;
        // Looks in between are to change nothing.
        let interval = ["1s", "1m", "1h"][app % 3];
        let app = &self.model.apps[app];
        let object = json!({
            "apiVersion": APPLICATION.api_version, "kind": APPLICATION.name,
            "metadata": { "name": app.name },
            "spec": {
                "sourceRef": { "name": source(app.repository) }, "path": folder,
                "interval": interval, "retryInterval": "1s", "deletionPolicy": app.policy(),
            },
        });
        let person = self.hand.named("person");
        let applied = person.apply(APPLICATION, app.namespace, &app.name, &object).await;
        applied.map(drop).map_err(|refused| vec![refused.to_string()])
    }

    /// Reads what the objects of new Applications are labelled with.
    fn learn_ids(&mut self) {
        self.ids.resize(self.model.apps.len(), String::new());
        for app in 0..self.model.apps.len() {
            if self.ids[app].is_empty() {
                let object = self.object(APPLICATION, app);
                let label = &object["metadata"]["labels"]["applyset.kubernetes.io/id"];
                label.as_str().unwrap_or_default().clone_into(&mut self.ids[app]);
            }
        }
    }

    /// Notes what those that went have left, as the versions tell.
    fn learn_orphans(&mut self) {
        for (before, now) in self.history.since(self.seen) {
            let Some(before) = before else { continue };
            if audit::is_let_go(&before, &now, &self.model, &self.ids) {
                self.traces.orphans.insert(now.uid().to_owned());
            }
        }
    }

    fn push(&mut self, push: &Push) {
        let commit = self.repos[push.repository].commit_changes(&push.changes, &push.what);
        debug_assert_eq!(self.commits[push.repository].len(), push.index);
        self.commits[push.repository].push(commit);
    }

    /// Asks for a look at every repository, as a webhook of the Git server would.
    async fn look_at_git(&mut self) -> Result<(), Violations> {
        self.looks += 1;
        let person = self.hand.named("person");
        for (namespace, repository) in self.model.sources() {
            let asked = json!({ "reconcile.plumb.dev/requestedAt": self.looks.to_string() });
            let patch = json!({ "metadata": { "annotations": asked } });
            let asked = person.merge(REPOSITORY, namespace, &source(repository), &patch).await;
            asked.map_err(|refused| vec![refused.to_string()])?;
        }
        Ok(())
    }

    /// Waits until the cluster is as Git asks and nothing is written any more, and then looks
    /// whether it stays so.
    pub(super) async fn rest(&mut self) -> Result<Rested, Violations> {
        self.calm();
        for app in &self.model.apps[self.applied.len()..] {
            self.applied.push(self.first[app.repository]);
        }
        self.look_at_git().await?;
        let begun = Instant::now();
        let watching = Match::any().query(WATCH);
        loop {
            self.alive()?;
            let late = begun.elapsed() > LIMIT;
            // Until its watches are back the agent cannot know of everything that it has to do.
            if self.api.open_of(&watching) < self.watches && begun.elapsed() < REOPENED {
                tokio::time::sleep(POLL).await;
                continue;
            }
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
                    return Err(at_rest(&written));
                }
                continue;
            }
            self.history.caught_up().await;
            if self.look().is_err() {
                continue;
            }
            let written = self.written_during(2).await?;
            // Events wait for one that did not get through at once, up to twenty seconds. They end
            // all the same.
            if written.is_empty() {
                self.watches = self.api.open_of(&watching);
                return self.look();
            }
            if late || written.iter().any(|event| event.resource != "events") {
                return Err(at_rest(&written));
            }
        }
    }

    /// What is written while every repository is looked at so many times.
    async fn written_during(&mut self, looks: usize) -> Result<Vec<AuditEvent>, Violations> {
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
        Ok(audit::writes(&events).into_iter().cloned().collect())
    }

    /// How often a repository was looked at; one without applications counts as often as is asked.
    fn polls(&self, repository: usize) -> usize {
        if self.model.folders_of(repository).is_empty() {
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
    fn look(&mut self) -> Result<Rested, Violations> {
        self.learn_ids();
        self.learn_orphans();
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
            asked: &self.looks.to_string(),
        })
    }

    /// Judges everything that was asked since the last call, and forgets it.
    /// After a calm round what is said of drift is counted too: every correction was one of
    /// something that a hand did.
    pub(super) fn audit(&mut self, rested: &Rested, calm: bool) -> Result<(), Violations> {
        let (runs, mut wrong) = self.runs();
        for (app, corrected) in rested.corrected.iter().enumerate() {
            let told = corrected.saturating_sub(self.corrected.get(app).copied().unwrap_or(0));
            let done = self.traces.touched.get(&app).copied().unwrap_or(0);
            if calm && told > done.into() {
                let name = &self.model.apps[app].name;
                wrong.push(format!("{name} tells of {told} corrections, hands did {done} things"));
            }
        }
        let events = self.asked_since(self.audited);
        let versions = self.history.since(self.seen);
        wrong.extend(audit::judge(&Evidence {
            model: &self.model,
            ids: &self.ids,
            traces: &self.traces,
            applied: &self.applied,
            stood: &self.stood,
            left_alone: &self.left_alone,
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
        self.corrected.clone_from(&rested.corrected);
        self.left_alone.clone_from(&rested.left_alone);
        // What was done to the objects of a suspended one is put right when it is resumed.
        let model = &self.model;
        self.traces.touched.retain(|app, _| model.apps[*app].is_suspended());
        self.stood = model.apps.iter().map(|app| app.standing).collect();
        self.first = model.commits.iter().map(|commits| commits.len().saturating_sub(1)).collect();
        self.model.turned.clear();
        self.traces.marked.clear();
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

fn at_rest(written: &[AuditEvent]) -> Violations {
    let text = |event: &AuditEvent| {
        format!("written at rest: {} {} at {}", event.what(), event.uri, event.received)
    };
    written.iter().map(text).collect()
}
