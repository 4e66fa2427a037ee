//! What all scenarios of a run share: the cluster, a Git server, the agent, and between each two of them
//! a proxy that counts and injects faults.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use plumb_testkit::process::{Launch, Output, Process};
use plumb_testkit::{GitServer, Proxy, Scratch};
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use crate::adapter::{Adapter, Values, fill, fill_text};
use crate::cluster::{Cluster, Kind, kubeconfig};
use crate::error::SuiteError;

/// The namespace of the agent itself.
const HOME: &str = "gitops-conformance";
/// How long a process may take to end when it is asked to.
const END: Duration = Duration::from_secs(30);
/// How long it may take until a kind is served that was defined.
const SERVED: Duration = Duration::from_secs(30);

pub(crate) struct Stage {
    pub(crate) adapter: Adapter,
    pub(crate) cluster: Cluster,
    pub(crate) git: GitServer,
    /// Between the agent and Git.
    pub(crate) git_proxy: Proxy,
    /// Between the agent and the API server.
    pub(crate) api: Proxy,
    pub(crate) seed: u64,
    values: Values,
    agent: AsyncMutex<Agent>,
    scratch: Scratch,
    /// Ports that were given out, by name.
    ports: Mutex<BTreeMap<String, String>>,
}

impl Stage {
    /// Everything but the agent. `values` are those that the command line gives.
    pub(crate) async fn new(
        adapter: Adapter,
        admin: Option<&Path>,
        values: Values,
        seed: u64,
    ) -> Result<Self, SuiteError> {
        let cluster = Cluster::of(admin).await?;
        let git = GitServer::start().await;
        let git_proxy = Proxy::to_http(&git.base(), seed).await;
        let scratch = Scratch::new("conformance");
        let namespaces = Kind::new("v1", "Namespace", "namespaces");
        let home = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": HOME },
        });
        cluster.ensure(&namespaces, "", &home).await?;
        let token = cluster.account(HOME, "agent").await?;
        let api = Proxy::to_cluster(cluster.with_token(&token), seed).await;
        let text = kubeconfig(&api.url(), "agent", &token);
        Cluster::await_rights(&text).await?;
        let kubeconfig = scratch.path().join("kubeconfig");
        write(&kubeconfig, &text)?;
        let mut all = values;
        all.insert("home".into(), HOME.into());
        all.insert("kubeconfig".into(), kubeconfig.display().to_string());
        all.insert("interval".into(), format!("{}s", adapter.interval));
        let stage = Self {
            adapter,
            cluster,
            git,
            git_proxy,
            api,
            seed,
            values: all,
            agent: AsyncMutex::new(Agent {
                running: Vec::new(),
                dir: scratch.path().join("agent"),
            }),
            scratch,
            ports: Mutex::default(),
        };
        stage.define().await?;
        Ok(stage)
    }

    async fn define(&self) -> Result<(), SuiteError> {
        let kind = Kind::new(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        );
        for pattern in &self.adapter.definitions {
            for path in files(&fill_text(pattern, &self.values)?)? {
                for object in documents(&path)? {
                    self.cluster.apply("gitops-conformance", &kind, "", &object).await?;
                }
            }
        }
        let adapter = &self.adapter;
        let objects = adapter.source.iter().chain([&adapter.application]).chain(&adapter.setup);
        for template in objects {
            self.served(&template.kind()).await?;
        }
        for template in &adapter.setup {
            let object = fill(&template.object, &self.values)?;
            self.cluster.apply("gitops-conformance", &template.kind(), HOME, &object).await?;
        }
        Ok(())
    }

    /// What was defined just now is not served at once.
    async fn served(&self, kind: &Kind) -> Result<(), SuiteError> {
        let begun = std::time::Instant::now();
        while let Err(error) = self.cluster.list(kind, HOME).await {
            if begun.elapsed() > SERVED {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// What texts of the adapter stand for, wherever they are.
    pub(crate) fn values(&self) -> Values {
        self.values.clone()
    }

    /// The agent's processes, for whoever stops or starts them.
    pub(crate) async fn agent(&self) -> Hold<'_> {
        Hold { stage: self, agent: self.agent.lock().await }
    }

    fn start(&self, agent: &mut Agent) -> Result<(), SuiteError> {
        std::fs::create_dir_all(&agent.dir)
            .map_err(|source| SuiteError::File { path: agent.dir.clone(), source })?;
        let mut values = self.values();
        values.insert("dir".into(), agent.dir.display().to_string());
        for part in &self.adapter.processes {
            let texts = part.command.iter().chain(part.env.values());
            for text in texts {
                self.give_ports(text, &mut values)?;
            }
            let mut command = part.command.iter().map(|text| fill_text(text, &values));
            let Some(program) = command.next() else { continue };
            let mut launch = Launch::new(program?).env("NO_PROXY", "127.0.0.1,localhost");
            for argument in command {
                launch = launch.arg(argument?);
            }
            for (name, value) in &part.env {
                launch = launch.env(name, fill_text(value, &values)?);
            }
            let log = self.scratch.path().join(format!("{}.log", part.name));
            agent.running.push(Process::spawn(&part.name, &launch, Output::File(log)));
        }
        Ok(())
    }

    /// `${port.NAME}` is a port that nobody listens on, the same one wherever it is named.
    fn give_ports(&self, text: &str, values: &mut Values) -> Result<(), SuiteError> {
        for part in text.split("${port.").skip(1) {
            let name = part.split('}').next().unwrap_or_default();
            let mut ports = self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let port = if let Some(port) = ports.get(name) {
                port.clone()
            } else {
                let port = free()?;
                ports.insert(name.into(), port.clone());
                port
            };
            values.insert(format!("port.{name}"), port);
        }
        Ok(())
    }

    /// The last lines that the agent wrote of a namespace, for evidence of what went wrong; the last of all
    /// where it names none.
    pub(crate) fn logs(&self, namespace: &str) -> Vec<String> {
        const LINES: usize = 5;
        let parts = self.adapter.processes.iter();
        let last = |name: &str| {
            let path = self.scratch.path().join(format!("{name}.log"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let about = |line: &&str| line.contains(namespace);
            let mut lines: Vec<_> = text.lines().rev().filter(about).take(LINES).collect();
            if lines.is_empty() {
                lines = text.lines().rev().take(LINES).collect();
            }
            lines.into_iter().rev().map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
        };
        parts.flat_map(|part| last(&part.name)).collect()
    }
}

/// The agent while one scenario decides whether it runs.
pub(crate) struct Hold<'s> {
    stage: &'s Stage,
    agent: MutexGuard<'s, Agent>,
}

struct Agent {
    running: Vec<Process>,
    /// Whatever it keeps on a disk.
    dir: PathBuf,
}

impl Hold<'_> {
    pub(crate) fn start(&mut self) -> Result<(), SuiteError> {
        if self.agent.running.is_empty() {
            self.stage.start(&mut self.agent)?;
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        for process in &mut self.agent.running {
            process.signal(rustix::process::Signal::TERM);
        }
        for mut process in self.agent.running.drain(..) {
            if process.wait(END).is_none() {
                process.kill();
            }
        }
    }

    /// Ends it at once, wherever it is.
    pub(crate) fn kill(&mut self) {
        for mut process in self.agent.running.drain(..) {
            process.kill();
        }
    }

    /// It ended by itself, if it did.
    pub(crate) fn has_ended(&mut self) -> Option<String> {
        let mut running = self.agent.running.iter_mut();
        running.find_map(|one| one.ended().map(|status| format!("{} ended: {status}", one.name())))
    }

    /// Starts all of it again if a part ended by itself, and tells which one did.
    pub(crate) fn revive(&mut self) -> Result<Option<String>, SuiteError> {
        let ended = self.has_ended();
        if ended.is_some() {
            self.kill();
            self.start()?;
        }
        Ok(ended)
    }

    /// Who is connected to a port that one of its processes listens on, but for its own processes.
    pub(crate) fn callers(&mut self) -> Vec<String> {
        let ids: Vec<u32> = self.agent.running.iter().map(Process::id).collect();
        crate::sockets::callers(&ids)
    }

    /// Everything that it kept on a disk is lost. What it had started itself may still be writing there.
    pub(crate) async fn wipe(&mut self) -> Result<(), SuiteError> {
        let dir = &self.agent.dir;
        let begun = std::time::Instant::now();
        loop {
            match std::fs::remove_dir_all(dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(source) if begun.elapsed() > END => {
                    return Err(SuiteError::File { path: dir.clone(), source });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(()) => return Ok(()),
            }
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), SuiteError> {
    std::fs::write(path, text).map_err(|source| SuiteError::File { path: path.into(), source })
}

fn free() -> Result<String, SuiteError> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port().to_string())
        .map_err(|error| SuiteError::Scenario { what: format!("no port is free: {error}") })
}

/// The files that a pattern means, whose last part may have a `*`.
fn files(pattern: &str) -> Result<Vec<PathBuf>, SuiteError> {
    let path = Path::new(pattern);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((before, after)) = name.split_once('*') else { return Ok(vec![path.into()]) };
    let dir = path.parent().unwrap_or(Path::new("."));
    let read = |source| SuiteError::File { path: dir.into(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(before) && name.ends_with(after) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The objects in a file of YAML.
fn documents(path: &Path) -> Result<Vec<Value>, SuiteError> {
    use serde::Deserialize as _;
    let text = std::fs::read_to_string(path)
        .map_err(|source| SuiteError::File { path: path.into(), source })?;
    let wrong = |why: String| SuiteError::Adapter { path: path.into(), why };
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object = Value::deserialize(document).map_err(|error| wrong(error.to_string()))?;
        if !object.is_null() {
            found.push(object);
        }
    }
    Ok(found)
}
