//! A control plane with Plumb on it, and somebody who watches both.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plumb_testkit::{
    Agent, ControlPlane, GitServer, Hand, History, Identity, Kind, Options, Refused, Repo, Scratch,
    Version,
};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::error::TaskError;
use crate::process::kubectl;

/// Where everything that is applied is.
pub(super) const NAMESPACE: &str = "bench";
/// Where Plumb is.
const HOME: &str = "plumb-system";
/// The longest that is waited for anything.
const LIMIT: Duration = Duration::from_mins(10);

const fn kind(api_version: &'static str, name: &'static str, plural: &'static str) -> Kind {
    Kind { api_version, name, plural }
}

pub(super) const DEPLOYMENT: Kind = kind("apps/v1", "Deployment", "deployments");
pub(super) const CONFIG_MAP: Kind = kind("v1", "ConfigMap", "configmaps");
pub(super) const APPLICATION: Kind = kind("plumb.dev/v1alpha1", "Application", "applications");
pub(super) const REPOSITORY: Kind = kind("plumb.dev/v1alpha1", "GitRepository", "gitrepositories");

/// Versions as a watch that is not Plumb's tells of them, with the moment of each.
pub(super) type News = UnboundedReceiver<(Instant, Version)>;

/// In the order in which they are to end.
pub(super) struct Stage {
    agent: Option<Agent>,
    cache: PathBuf,
    history: History,
    pub(super) hand: Hand,
    identity: Identity,
    pub(super) repo: Repo,
    pub(super) git: GitServer,
    pub(super) plane: ControlPlane,
}

impl Stage {
    /// Everything but Plumb, which is started when there is something to do.
    pub(super) async fn new(options: Options, watched: &[Kind]) -> Result<Self, TaskError> {
        let plane = ControlPlane::try_start(options).await.map_err(TaskError::Tools)?;
        for namespace in [NAMESPACE, HOME] {
            kubectl(&plane, &["create", "namespace", namespace])?;
        }
        define(&plane, &Scratch::new("bench"), &[])?;
        let git = GitServer::start().await;
        Ok(Self {
            agent: None,
            cache: PathBuf::new(),
            history: History::follow(&plane, watched).await,
            hand: Hand::new(&plane, "bench").await,
            identity: plane.service_account(HOME, "plumb", "cluster-admin").await,
            repo: git.repo("bench"),
            git,
            plane,
        })
    }

    /// A repository, and an Application for each folder.
    pub(super) async fn ask(&self, specs: &[(String, Value)]) -> Result<(), TaskError> {
        let source = json!({
            "apiVersion": REPOSITORY.api_version, "kind": REPOSITORY.name,
            "metadata": { "name": "bench" },
            "spec": { "url": self.git.url("bench"), "ref": { "branch": "main" }, "interval": "1h" },
        });
        self.hand.create(REPOSITORY, NAMESPACE, &source).await.map_err(refused)?;
        for (name, more) in specs {
            let mut app = json!({
                "apiVersion": APPLICATION.api_version, "kind": APPLICATION.name,
                "metadata": { "name": name },
                "spec": { "sourceRef": { "name": "bench" }, "path": name, "interval": "1h" },
            });
            for (field, value) in more.as_object().into_iter().flatten() {
                app["spec"][field] = value.clone();
            }
            self.hand.create(APPLICATION, NAMESPACE, &app).await.map_err(refused)?;
        }
        Ok(())
    }

    /// Starts Plumb with eight workers.
    pub(super) fn start(&mut self, plumb: &Path) {
        let builder = Agent::builder(plumb)
            .kubeconfig(self.identity.kubeconfig())
            .env("POD_NAMESPACE", HOME)
            .env("PLUMB_METRICS_ADDR", "127.0.0.1:0");
        let cache = builder.dir().join("cache");
        self.cache.clone_from(&cache);
        let builder = builder.env("PLUMB_CACHE_DIR", cache);
        self.agent = Some(builder.args(["controller", "--concurrent", "8"]).start());
    }

    /// Where Plumb's mirrors are.
    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Plumb's process.
    pub(super) fn process(&self) -> u32 {
        self.agent.as_ref().map_or(0, Agent::id)
    }

    /// The identity that Plumb has.
    pub(super) fn kubeconfig(&self) -> &Path {
        self.identity.kubeconfig()
    }

    /// What a webhook of the Git server does after a push.
    pub(super) async fn look(&self) -> Result<(), TaskError> {
        let patch = json!({ "metadata": { "annotations": {
            "reconcile.plumb.dev/requestedAt": self.repo.head(),
        } } });
        self.hand.merge(REPOSITORY, NAMESPACE, "bench", &patch).await.map_err(refused)?;
        Ok(())
    }

    /// What comes from now on.
    pub(super) fn news(&self) -> News {
        self.history.news()
    }

    /// The user that Plumb is.
    pub(super) fn user(&self) -> String {
        self.identity.user()
    }

    /// The next version of what is watched.
    pub(super) async fn next(
        &mut self,
        what: &str,
        news: &mut News,
    ) -> Result<(Instant, Version), TaskError> {
        if let Ok(Some(next)) = tokio::time::timeout(LIMIT, news.recv()).await {
            return Ok(next);
        }
        let mut found = format!("nothing changed for {LIMIT:?}");
        if let Some(agent) = &mut self.agent {
            let logs = agent.logs();
            let last: Vec<_> = logs.lines().rev().take(10).collect();
            let _infallible = write!(found, "; plumb ({:?}) said last: {last:#?}", agent.ended());
        }
        Err(TaskError::Evidence { what: what.to_owned(), found })
    }
}

/// Defines our kinds, and those of these files and folders.
pub(super) fn define(
    plane: &ControlPlane,
    scratch: &Scratch,
    more: &[PathBuf],
) -> Result<(), TaskError> {
    let crds = plumb_api::crd_documents()
        .map_err(|source| TaskError::Json { what: "the definitions", source })?;
    let crds = json!({ "apiVersion": "v1", "kind": "List", "items": crds });
    let ours = scratch.write("crds.json", crds.to_string());
    for file in std::iter::once(&ours).chain(more) {
        let file = file.display().to_string();
        kubectl(plane, &["apply", "--server-side", "-f", &file])?;
        kubectl(plane, &["wait", "--for=condition=Established", "--timeout=60s", "-f", &file])?;
    }
    Ok(())
}

/// What a process has used of the processors, its children's share aside.
pub(super) fn cpu_of(process: u32) -> Duration {
    ticks(process, 2)
}

/// The same with that of its children which have ended.
pub(super) fn cpu_with_children(process: u32) -> Duration {
    ticks(process, 4)
}

/// The sum of so many of the times that Linux tells of a process: in user space, in the kernel, and both
/// of its children.
fn ticks(process: u32, fields: usize) -> Duration {
    /// Ticks a second, which Linux tells to user space whatever it uses itself.
    const TICKS: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is a name in parentheses that may hold anything.
    let all = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = all.skip(11).take(fields).filter_map(|text| text.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

pub(super) fn refused(Refused { code, message }: Refused) -> TaskError {
    let found = format!("{code}: {message}");
    TaskError::Evidence { what: "the API server takes what is written".into(), found }
}

/// Whether a condition of an object is True.
pub(super) fn is_true(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
}

/// Whether an Application says that a commit is in place and all is well.
pub(super) fn is_ready(object: &Value, commit: &str) -> bool {
    let status = &object["status"];
    let applied = status["lastAppliedRevision"].as_str().unwrap_or_default();
    status["observedGeneration"] == object["metadata"]["generation"]
        && applied.ends_with(commit)
        && is_true(object, "Ready")
}

/// Whether all Pods of a Deployment's newest spec are available.
pub(super) fn is_available(object: &Value) -> bool {
    let status = &object["status"];
    status["observedGeneration"] == object["metadata"]["generation"]
        && status["updatedReplicas"] == object["spec"]["replicas"]
        && status["availableReplicas"] == object["spec"]["replicas"]
        && is_true(object, "Available")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_older_spec_or_commit_does_not_count() {
        let condition = |kind: &str| json!([{ "type": kind, "status": "True" }]);
        let mut app = json!({
            "metadata": { "generation": 2 },
            "status": {
                "observedGeneration": 2, "lastAppliedRevision": "main@sha1:abc",
                "conditions": condition("Ready"),
            },
        });
        assert!(is_ready(&app, "abc"));
        assert!(!is_ready(&app, "def"));
        app["status"]["observedGeneration"] = json!(1);
        assert!(!is_ready(&app, "abc"));
        let mut deployment = json!({
            "metadata": { "generation": 1 },
            "spec": { "replicas": 1 },
            "status": {
                "observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1,
                "conditions": condition("Available"),
            },
        });
        assert!(is_available(&deployment));
        deployment["status"]["updatedReplicas"] = json!(0);
        assert!(!is_available(&deployment));
    }
}
