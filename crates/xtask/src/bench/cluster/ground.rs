//! A control plane of its own for each run, a Git server, N applications on both, and what is counted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plumb_testkit::control_plane::Mark;
use plumb_testkit::{
    AuditEvent, ControlPlane, GitServer, Hand, History, Identity, Kind, Options, Refused, Repo,
    Requests, Scratch, Version,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::system::{Running, System};
use crate::bench::stage::{CONFIG_MAP, NAMESPACE, News, cpu_with_children, define, refused};
use crate::error::TaskError;
use crate::process::kubectl;

/// Where the system runs.
pub(super) const HOME: &str = "bench-system";
/// The longest that is waited for anything: the slowest of those measured takes four minutes for a
/// thousand applications.
const LIMIT: Duration = Duration::from_mins(20);
/// For so long nothing is asked of the API server before a phase is over.
const QUIET: Duration = Duration::from_secs(4);
/// Requests of ours that are under way at once, where many are made.
const HANDS: usize = 8;

/// In the order in which they are to end.
pub(super) struct Ground {
    pub(super) running: Vec<Running>,
    pub(super) system: &'static System,
    pub(super) apps: usize,
    /// Objects of each.
    pub(super) each: usize,
    history: History,
    pub(super) news: News,
    pub(super) hand: Hand,
    pub(super) repo: Repo,
    pub(super) git: GitServer,
    identity: Identity,
    /// What the system reaches the API server by.
    kubeconfig: PathBuf,
    scratch: Scratch,
    pub(super) plane: ControlPlane,
}

/// The beginning of a phase.
pub(super) struct Begun {
    pub(super) at: Instant,
    pub(super) mark: Mark,
    cpu: BTreeMap<&'static str, Duration>,
}

pub(super) fn folder(number: usize) -> String {
    format!("app-{number:05}")
}

/// What lies in the folder of an application: four objects and `more` ConfigMaps, and a kustomization
/// that puts one label on all of them.
fn files(number: usize, more: usize, version: &str, value: &str) -> Vec<(String, String)> {
    let name = folder(number);
    let file = |file: &str, text: String| (format!("{name}/{file}.yaml"), text);
    let mut maps = String::new();
    for number in 0..more {
        let _infallible = write!(
            maps,
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}-{number}\n  namespace: {NAMESPACE}\ndata:\n  \
             number: \"{number}\"\n"
        );
    }
    let listed = if more > 0 { ", more.yaml" } else { "" };
    let more = (more > 0).then(|| file("more", maps));
    let four = [
        file(
            "kustomization",
            format!(
                "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [account.yaml, config.yaml, service.yaml, deployment.yaml{listed}]\nlabels:\n  \
                 - pairs: {{version: \"{version}\"}}\n"
            ),
        ),
        file(
            "account",
            format!(
                "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\n"
            ),
        ),
        file(
            "config",
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\ndata:\n  \
                 value: \"{value}\"\n  level: info\n  greeting: hello\n"
            ),
        ),
        file(
            "service",
            format!(
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\nspec:\n  selector:\n    \
                 app: {name}\n  ports:\n    - name: http\n      port: 80\n      targetPort: 8080\n"
            ),
        ),
        file(
            "deployment",
            format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\nspec:\n  \
                 replicas: 0\n  selector:\n    matchLabels:\n      app: {name}\n  template:\n    metadata:\n      \
                 labels:\n        app: {name}\n    spec:\n      serviceAccountName: {name}\n      containers:\n        \
                 - name: main\n          image: registry.example.com/{name}:1.0.0\n          args: [\"--listen=:8080\"]\n          \
                 envFrom:\n            - configMapRef:\n                name: {name}\n          ports:\n            \
                 - name: http\n              containerPort: 8080\n          resources:\n            requests:\n              \
                 cpu: 10m\n              memory: 32Mi\n"
            ),
        ),
    ];
    four.into_iter().chain(more).collect()
}

impl Ground {
    /// A control plane with the repository and all custom resources on it, and nothing that acts.
    pub(super) async fn new(
        system: &'static System,
        apps: usize,
        each: u16,
    ) -> Result<Self, TaskError> {
        // A Deployment of no replicas is looked at by the controller-manager and becomes ready;
        // simulated Pods would measure the machine, not who applies them.
        let options = Options { nodes: 0, controllers: true };
        let plane = ControlPlane::try_start(options).await.map_err(TaskError::Tools)?;
        for namespace in BTreeSet::from([NAMESPACE, HOME, system.namespace]) {
            kubectl(&plane, &["create", "namespace", namespace])?;
        }
        let scratch = Scratch::new("bench");
        define(&plane, &scratch, &(system.definitions)()?)?;
        let git = GitServer::start().await;
        let mut watched = vec![CONFIG_MAP, system.application];
        watched.extend(system.source);
        let history = History::follow(&plane, &watched).await;
        let identity = plane.service_account(HOME, "bench", "cluster-admin").await;
        let ground = Self {
            kubeconfig: identity.kubeconfig().to_owned(),
            running: Vec::new(),
            system,
            apps,
            each: each.into(),
            news: history.news(),
            history,
            hand: Hand::new(&plane, "bench").await,
            repo: git.repo("bench"),
            git,
            identity,
            scratch,
            plane,
        };
        ground.commit(ground.all_files("1", "1"));
        for (kind, object) in (system.extra)() {
            ground.hand.create(kind, system.namespace, &object).await.map_err(refused)?;
        }
        if let Some(source) = system.source {
            let object = (system.objects)(&ground.git.url("bench"), None);
            ground.hand.create(source, system.namespace, &object).await.map_err(refused)?;
        }
        let url = ground.git.url("bench");
        ground
            .each(|hand, number| {
                let object = (system.objects)(&url, Some(&folder(number)));
                async move {
                    hand.create(system.application, system.namespace, &object).await.map(drop)
                }
            })
            .await?;
        Ok(ground)
    }

    /// The folder of one application.
    pub(super) fn files(&self, number: usize, version: &str, value: &str) -> Vec<(String, String)> {
        files(number, self.each.saturating_sub(super::EACH.into()), version, value)
    }

    /// Those of all.
    pub(super) fn all_files<'a>(
        &'a self,
        version: &'a str,
        value: &'a str,
    ) -> impl Iterator<Item = (String, String)> + 'a {
        (0..self.apps).flat_map(move |number| self.files(number, version, value))
    }

    pub(super) fn commit(&self, files: impl Iterator<Item = (String, String)>) -> String {
        let files: Vec<_> = files.collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (&**path, Some(&**text))).collect();
        self.repo.commit(&files, "bench")
    }

    /// Does something for each application, some at once.
    pub(super) async fn each<F>(
        &self,
        mut one: impl FnMut(Hand, usize) -> F,
    ) -> Result<(), TaskError>
    where
        F: Future<Output = Result<(), Refused>> + Send + 'static,
    {
        let mut under_way = JoinSet::<Result<(), Refused>>::new();
        for number in 0..self.apps {
            if under_way.len() >= HANDS
                && let Some(Ok(done)) = under_way.join_next().await
            {
                done.map_err(refused)?;
            }
            under_way.spawn(one(self.hand.clone(), number));
        }
        while let Some(done) = under_way.join_next().await {
            if let Ok(done) = done {
                done.map_err(refused)?;
            }
        }
        Ok(())
    }

    pub(super) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The system is to reach the API server at this URL.
    pub(super) fn go_through(&mut self, url: &str) {
        self.kubeconfig = self.identity.through(url);
    }

    /// Starts the system.
    pub(super) fn start(&mut self, binary: &Path) -> Result<(), TaskError> {
        self.running = (self.system.start)(self, binary)?;
        Ok(())
    }

    /// Asks all its processes to end, and waits for that.
    pub(super) fn stop(&mut self) {
        for running in &mut self.running {
            running.process.signal(rustix::process::Signal::TERM);
        }
        for mut running in self.running.drain(..) {
            if running.process.wait(Duration::from_secs(30)).is_none() {
                running.process.kill();
            }
        }
    }

    /// Begins to count.
    pub(super) fn begin(&mut self) -> Begun {
        self.git.forget();
        self.history.forget();
        while self.news.try_recv().is_ok() {}
        for running in &self.running {
            // From now on VmHWM is the peak of this phase. Only where the system permits it.
            let _denied = std::fs::write(format!("/proc/{}/clear_refs", running.process.id()), "5");
        }
        let cpu = self
            .running
            .iter()
            .map(|one| (one.name, cpu_with_children(one.process.id())))
            .collect();
        Begun { at: Instant::now(), mark: self.plane.audit().mark(), cpu }
    }

    /// Counts until all is quiet, and gives everything. `seconds` is what the phase took.
    pub(super) async fn end(
        &mut self,
        what: &str,
        begun: &Begun,
        seconds: Option<Duration>,
    ) -> Result<Value, TaskError> {
        self.quiet().await?;
        Ok(self.counted(what, begun, seconds).await)
    }

    /// As [`Ground::end`], without waiting.
    pub(super) async fn counted(
        &mut self,
        what: &str,
        begun: &Begun,
        seconds: Option<Duration>,
    ) -> Value {
        self.plane.settled().await;
        let requests = self.requests(begun.mark);
        let mut processes = BTreeMap::new();
        let (mut all_cpu, mut all_peak, mut all_settled) = (Duration::ZERO, 0, 0);
        for running in &self.running {
            let id = running.process.id();
            let before = begun.cpu.get(running.name).copied().unwrap_or_default();
            let cpu = cpu_with_children(id).saturating_sub(before);
            let (peak, settled) = (memory(id, "VmHWM"), memory(id, "VmRSS"));
            all_cpu += cpu;
            all_peak += peak;
            all_settled += settled;
            processes.insert(
                running.name,
                json!({ "cpu_seconds": cpu.as_secs_f64(), "peak_kib": peak, "settled_kib": settled }),
            );
        }
        let git = self.git.requests();
        let bytes: u64 = git.iter().map(|request| request.sent + request.received).sum();
        let told = json!({
            "what": what,
            "seconds": seconds.map(|time| time.as_secs_f64()),
            "quiet_after_seconds": begun.at.elapsed().as_secs_f64(),
            "requests": requests.len(),
            "writes": requests.clone().writes().only(|event| event.resource != "leases").len(),
            "beside": requests.clone().only(is_beside).len(),
            "by_kind": requests.counts(),
            "cpu_seconds": all_cpu.as_secs_f64(),
            "peak_kib": all_peak,
            "settled_kib": all_settled,
            "git_requests": git.len(),
            "git_bytes": bytes,
            "processes": processes,
        });
        eprintln!("  {told}");
        told
    }

    /// Waits until nobody writes, the controllers of Kubernetes included.
    pub(super) async fn rest(&self) {
        loop {
            let mark = self.plane.audit().mark();
            tokio::time::sleep(Duration::from_secs(2)).await;
            let writes = self.plane.audit().requests(mark).writes();
            if writes.only(|event| event.resource != "leases").is_empty() {
                return;
            }
        }
    }

    /// What the system asked for since.
    pub(super) fn requests(&self, mark: Mark) -> Requests {
        self.plane.audit().requests(mark).by(&self.identity.user())
    }

    /// Waits until the system asks for nothing but its Lease and Git.
    async fn quiet(&self) -> Result<(), TaskError> {
        let begun = Instant::now();
        let user = self.identity.user();
        loop {
            let mark = self.plane.audit().mark();
            tokio::time::sleep(QUIET).await;
            let counts = |event: &AuditEvent| event.resource != "leases" && event.verb != "watch";
            if self.plane.audit().requests(mark).by(&user).only(counts).is_empty() {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                let found = self.plane.audit().requests(mark).by(&user).table();
                return Err(missing(&format!("{} comes to rest", self.system.name), &found));
            }
        }
    }

    /// Waits until that holds of every application, and tells when the last was seen so.
    pub(super) async fn all(
        &mut self,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Instant, TaskError> {
        let mut left: HashSet<String> = (0..self.apps).map(folder).collect();
        let mut last = Instant::now();
        while !left.is_empty() {
            let waiting = format!("all {what}, of {} {} do not", self.apps, left.len());
            let (at, version) = self.next(&waiting).await?;
            let name = version.object["metadata"]["name"].as_str().unwrap_or_default();
            if version.kind == self.system.application
                && left.contains(name)
                && holds(&version.object)
            {
                left.remove(name);
                last = at;
            }
        }
        Ok(last)
    }

    /// Waits for a version of an object.
    pub(super) async fn one(
        &mut self,
        kind: Kind,
        name: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Instant, TaskError> {
        loop {
            let (at, version) = self.next(&format!("{name} is as wanted")).await?;
            if version.kind == kind
                && version.object["metadata"]["name"] == name
                && holds(&version.object)
            {
                return Ok(at);
            }
        }
    }

    pub(super) async fn next(&mut self, what: &str) -> Result<(Instant, Version), TaskError> {
        if let Ok(Some(next)) = tokio::time::timeout(LIMIT, self.news.recv()).await {
            return Ok(next);
        }
        let mut found = format!("nothing changed for {LIMIT:?}");
        for running in &mut self.running {
            let log = std::fs::read_to_string(&running.log).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(10).collect();
            let ended = running.process.ended();
            found = format!("{found}; {} ({ended:?}) said last: {last:#?}", running.name);
        }
        Err(missing(what, &found))
    }

    /// What a webhook of the Git server makes happen after a push.
    pub(super) async fn look(&self, token: &str) -> Result<(), TaskError> {
        let value = (self.system.value)(token);
        let patch = json!({ "metadata": { "annotations": { (self.system.look): value } } });
        match self.system.source {
            Some(kind) => {
                let looked = self.hand.merge(kind, self.system.namespace, "bench", &patch).await;
                looked.map(drop).map_err(refused)
            }
            None => self.look_each(token).await,
        }
    }

    /// Asks every application to look.
    pub(super) async fn look_each(&self, token: &str) -> Result<(), TaskError> {
        let system = self.system;
        let value = (system.value)(token);
        let patch = json!({ "metadata": { "annotations": { (system.look): value } } });
        self.each(|hand, number| {
            let patch = patch.clone();
            async move {
                let name = folder(number);
                hand.merge(system.application, system.namespace, &name, &patch).await.map(drop)
            }
        })
        .await
    }

    /// A figure of the first process that tells figures, by the beginning of its line.
    pub(super) async fn figure(&self, line: &str) -> Option<f64> {
        let address = self.running.iter().find_map(|running| running.metrics.clone())?;
        figure_at(address, line).await
    }

    /// The same of the process that was started last.
    pub(super) async fn last_figure(&self, line: &str) -> Option<f64> {
        figure_at(self.running.last()?.metrics.clone()?, line).await
    }
}

/// Whether a request is neither a write nor one of those that come again and again without asking for
/// anything new: watches, and the Lease.
fn is_beside(event: &AuditEvent) -> bool {
    matches!(event.verb.as_str(), "get" | "list") && event.resource != "leases"
}

/// An address that nobody listens on.
pub(in crate::bench) fn free() -> Result<String, TaskError> {
    let listener = TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.map_err(|error| missing("a port is free", &error.to_string()))?.to_string())
}

/// A figure that is told at an address, by the beginning of its line.
pub(super) async fn figure_at(address: String, line: &str) -> Option<f64> {
    let text = tokio::task::spawn_blocking(move || scrape(&address)).await.ok()??;
    let found = text.lines().find(|candidate| candidate.starts_with(line))?;
    found.rsplit(' ').next()?.parse().ok()
}

/// The metrics, over a connection of their own.
fn scrape(address: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A line of a process's status, in KiB.
pub(super) fn memory(process: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    found.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

pub(super) fn missing(what: &str, found: &str) -> TaskError {
    TaskError::Evidence { what: what.to_owned(), found: found.to_owned() }
}

/// Where a file of a Go module that is pinned lies.
pub(crate) fn in_module(dir: &Path, module: &str, path: &str) -> Result<PathBuf, TaskError> {
    let output = std::process::Command::new("go")
        // A module may ask for a newer one than is installed.
        .env("GOTOOLCHAIN", "auto")
        .args(["list", "-m", "-f", "{{.Dir}}", module])
        .current_dir(dir)
        .output()
        .map_err(|error| missing("go runs", &error.to_string()))?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || found.is_empty() {
        return Err(missing("go knows the module", &String::from_utf8_lossy(&output.stderr)));
    }
    Ok(Path::new(&found).join(path))
}
