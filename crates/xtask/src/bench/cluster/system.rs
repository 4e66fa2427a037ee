//! Who keeps the cluster true to Git: Plumb, and those that it stands beside.

use std::path::{Path, PathBuf};

use plumb_testkit::process::{Launch, Output, Process};
use plumb_testkit::{Kind, Tool};
use serde_json::{Value, json};

use super::ground::{Ground, free, in_module, missing};
use crate::bench::stage::{APPLICATION, CONFIG_MAP, NAMESPACE, REPOSITORY, is_ready};
use crate::error::TaskError;

/// A system under measure, as data: nothing else knows which one it is.
pub(super) struct System {
    pub(super) name: &'static str,
    /// What names a source, and in which namespace sources and applications are; `None` where an
    /// application names the URL itself.
    pub(super) source: Option<Kind>,
    pub(super) application: Kind,
    pub(super) namespace: &'static str,
    /// The definitions of its kinds.
    pub(super) definitions: fn() -> Result<Vec<PathBuf>, TaskError>,
    /// What else it needs to find.
    pub(super) extra: fn() -> Vec<(Kind, Value)>,
    /// The source, when there is one, and an application of a folder.
    pub(super) objects: fn(url: &str, folder: Option<&str>) -> Value,
    /// The annotation that asks for a look.
    pub(super) look: &'static str,
    /// Its value.
    pub(super) value: fn(token: &str) -> String,
    /// Whether an application has a commit in place and all of it works.
    pub(super) ready: fn(&Value, commit: &str) -> bool,
    /// Whether it has done what was asked for by that annotation.
    pub(super) handled: fn(&Value, token: &str) -> bool,
    /// Whether it puts back by itself what others change.
    pub(super) corrects: bool,
    /// Starts its processes.
    pub(super) start: Start<Vec<Running>>,
    /// Starts a replica that waits for the end of the first.
    pub(super) standby: Option<Standby>,
}

/// Starts something, with the binary of Plumb.
type Start<T> = fn(&Ground, &Path) -> Result<T, TaskError>;

/// Starts a replica of this name, which has a cache of its own.
type Standby = fn(&Ground, &Path, &'static str) -> Result<Running, TaskError>;

/// A process of a system, by the name that tables give it.
pub(super) struct Running {
    pub(super) name: &'static str,
    pub(super) process: Process,
    pub(super) log: PathBuf,
    /// Where it tells figures, if that is known.
    pub(super) metrics: Option<String>,
}

impl Running {
    pub(super) fn spawn(name: &'static str, dir: &Path, launch: &Launch) -> Self {
        let log = dir.join(format!("{name}.log"));
        let process = Process::spawn(name, launch, Output::File(log.clone()));
        Self { name, process, log, metrics: None }
    }
}

/// Plumb itself.
pub(super) const PLUMB: System = System {
    name: "plumb",
    source: Some(REPOSITORY),
    application: APPLICATION,
    namespace: NAMESPACE,
    definitions: || Ok(Vec::new()),
    extra: Vec::new,
    objects: |url, folder| match folder {
        None => json!({
            "apiVersion": REPOSITORY.api_version, "kind": REPOSITORY.name,
            "metadata": { "name": "bench" },
            "spec": { "url": url, "ref": { "branch": "main" }, "interval": "60m" },
        }),
        Some(folder) => json!({
            "apiVersion": APPLICATION.api_version, "kind": APPLICATION.name,
            "metadata": { "name": folder },
            "spec": {
                "sourceRef": { "name": "bench" }, "path": folder, "interval": "60m",
                "prune": true, "wait": true,
            },
        }),
    },
    look: "reconcile.plumb.dev/requestedAt",
    value: str::to_owned,
    ready: is_ready,
    handled: |object, token| object["status"]["lastHandledReconcileAt"] == token,
    corrects: true,
    start: |ground, binary| Ok(vec![plumb(ground, binary, "plumb")?]),
    standby: Some(plumb),
};

fn plumb(ground: &Ground, binary: &Path, name: &'static str) -> Result<Running, TaskError> {
    let metrics = free()?;
    let launch = Launch::new(binary)
        .arg("controller")
        .env("KUBECONFIG", ground.kubeconfig())
        .env("HOME", ground.dir())
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("POD_NAMESPACE", super::ground::HOME)
        .env("PLUMB_METRICS_ADDR", &metrics)
        // As in deploy/deployment.yaml.
        .env("MALLOC_ARENA_MAX", "2")
        .env("MALLOC_TRIM_THRESHOLD_", "131072")
        .env("PLUMB_CACHE_DIR", ground.dir().join(format!("cache-{name}")))
        .env_remove("RUST_LOG");
    let mut running = Running::spawn(name, ground.dir(), &launch);
    running.metrics = Some(metrics);
    Ok(running)
}

const FLUX_REPOSITORY: Kind = Kind {
    api_version: "source.toolkit.fluxcd.io/v1",
    name: "GitRepository",
    plural: "gitrepositories",
};
const KUSTOMIZATION: Kind = Kind {
    api_version: "kustomize.toolkit.fluxcd.io/v1",
    name: "Kustomization",
    plural: "kustomizations",
};

/// Flux's source-controller and kustomize-controller.
pub(super) const FLUX: System = System {
    name: "flux",
    source: Some(FLUX_REPOSITORY),
    application: KUSTOMIZATION,
    namespace: NAMESPACE,
    definitions: || {
        [
            (Tool::SourceController, "github.com/fluxcd/source-controller"),
            (Tool::KustomizeController, "github.com/fluxcd/kustomize-controller"),
        ]
        .into_iter()
        .map(|(tool, module)| in_module(&tool.module_dir(), module, "config/crd/bases"))
        .collect()
    },
    extra: Vec::new,
    objects: |url, folder| match folder {
        None => json!({
            "apiVersion": FLUX_REPOSITORY.api_version, "kind": FLUX_REPOSITORY.name,
            "metadata": { "name": "bench" },
            "spec": { "url": url, "ref": { "branch": "main" }, "interval": "60m" },
        }),
        Some(folder) => json!({
            "apiVersion": KUSTOMIZATION.api_version, "kind": KUSTOMIZATION.name,
            "metadata": { "name": folder },
            "spec": {
                "sourceRef": { "kind": "GitRepository", "name": "bench" },
                "path": format!("./{folder}"), "interval": "60m",
                "prune": true, "wait": true, "timeout": "5m",
            },
        }),
    },
    look: "reconcile.fluxcd.io/requestedAt",
    value: str::to_owned,
    ready: is_ready,
    handled: |object, token| object["status"]["lastHandledReconcileAt"] == token,
    // At its interval only.
    corrects: false,
    start: |ground, _| {
        let storage = ground.dir().join("storage");
        std::fs::create_dir_all(&storage)
            .map_err(|error| missing("a folder can be made", &error.to_string()))?;
        let serving = free()?;
        let source = flux(ground, Tool::SourceController)?
            .arg(format!("--storage-path={}", storage.display()))
            .arg(format!("--storage-addr={serving}"))
            .arg(format!("--storage-adv-addr={serving}"));
        let apply = flux(ground, Tool::KustomizeController)?;
        Ok(vec![
            Running::spawn("source-controller", ground.dir(), &source),
            Running::spawn("kustomize-controller", ground.dir(), &apply),
        ])
    },
    standby: None,
};

fn flux(ground: &Ground, tool: Tool) -> Result<Launch, TaskError> {
    let dir = ground.dir().join(format!("{}.tmp", tool.name()));
    std::fs::create_dir_all(&dir)
        .map_err(|error| missing("a folder can be made", &error.to_string()))?;
    Ok(Launch::new(tool.peer().map_err(TaskError::Tools)?)
        .env("KUBECONFIG", ground.kubeconfig())
        .env("RUNTIME_NAMESPACE", super::ground::HOME)
        .env("HOME", &dir)
        .env("TMPDIR", &dir)
        .env("NO_PROXY", "127.0.0.1,localhost")
        .args(["--watch-all-namespaces", "--concurrent=20", "--events-addr=", "--log-level=error"])
        .arg(format!("--metrics-addr={}", free()?))
        .arg(format!("--health-addr={}", free()?)))
}

/// Where Argo CD and its applications are.
const ARGO: &str = "argocd";

const ARGO_APPLICATION: Kind =
    Kind { api_version: "argoproj.io/v1alpha1", name: "Application", plural: "applications" };
const PROJECT: Kind =
    Kind { api_version: "argoproj.io/v1alpha1", name: "AppProject", plural: "appprojects" };
const ARGO_MODULE: &str = "github.com/argoproj/argo-cd/v3";

/// Argo CD's application controller, repo-server and redis; nothing asks its API server.
pub(super) const ARGOCD: System = System {
    name: "argocd",
    source: None,
    application: ARGO_APPLICATION,
    namespace: ARGO,
    definitions: || {
        ["application-crd.yaml", "appproject-crd.yaml"]
            .into_iter()
            .map(|file| {
                let path = format!("manifests/crds/{file}");
                in_module(&Tool::ArgoCd.module_dir(), ARGO_MODULE, &path)
            })
            .collect()
    },
    extra: || {
        let settings = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": "argocd-cm", "labels": { "app.kubernetes.io/part-of": ARGO },
            },
        });
        let any = json!([{ "group": "*", "kind": "*" }]);
        // Its API server would make this one.
        let project = json!({
            "apiVersion": PROJECT.api_version, "kind": PROJECT.name,
            "metadata": { "name": "default" },
            "spec": {
                "sourceRepos": ["*"], "clusterResourceWhitelist": any,
                "destinations": [{ "server": "*", "namespace": "*" }],
            },
        });
        vec![(CONFIG_MAP, settings), (PROJECT, project)]
    },
    objects: |url, folder| {
        json!({
            "apiVersion": ARGO_APPLICATION.api_version, "kind": ARGO_APPLICATION.name,
            "metadata": { "name": folder },
            "spec": {
                "project": "default",
                "source": { "repoURL": url, "path": folder, "targetRevision": "main" },
                "destination": {
                    "server": "https://kubernetes.default.svc", "namespace": NAMESPACE,
                },
                "syncPolicy": { "automated": { "prune": true, "selfHeal": true } },
            },
        })
    },
    look: REFRESH,
    value: |_| "normal".into(),
    ready: |object, commit| {
        let status = &object["status"];
        let operation = &status["operationState"];
        status["sync"]["status"] == "Synced"
            && status["sync"]["revision"] == commit
            && operation["phase"] == "Succeeded"
            && operation["syncResult"]["revision"] == commit
            && status["health"]["status"] == "Healthy"
    },
    // It takes the annotation off.
    handled: |object, _| object["metadata"]["annotations"][REFRESH].is_null(),
    corrects: true,
    start: argo,
    standby: None,
};

/// Asks for a look at one of its applications.
const REFRESH: &str = "argocd.argoproj.io/refresh";

fn argo(ground: &Ground, _: &Path) -> Result<Vec<Running>, TaskError> {
    let port = || -> Result<String, TaskError> {
        Ok(free()?.rsplit(':').next().unwrap_or_default().to_owned())
    };
    let dir = ground.dir().join(ARGO);
    let failed = |error: std::io::Error| missing("a folder can be filled", &error.to_string());
    std::fs::create_dir_all(dir.join("bin")).map_err(failed)?;
    // Renders call it by this name; in the module it may not be run.
    let wrapper = in_module(&Tool::ArgoCd.module_dir(), ARGO_MODULE, "hack/git-verify-wrapper.sh")?;
    let script = std::fs::read(wrapper).map_err(failed)?;
    let copy = dir.join("bin/git-verify-wrapper.sh");
    std::fs::write(&copy, script).map_err(failed)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&copy, mode).map_err(failed)?;

    let kustomize = Tool::Kustomize.peer().map_err(TaskError::Tools)?;
    let mut places = vec![dir.join("bin")];
    places.extend(kustomize.parent().map(Path::to_path_buf));
    places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let places = std::env::join_paths(places)
        .map_err(|error| missing("programs are found", &error.to_string()))?;
    let binary = Tool::ArgoCd.peer().map_err(TaskError::Tools)?;
    let part = |name: &str| {
        Launch::new(&binary)
            .env("ARGOCD_BINARY_NAME", format!("argocd-{name}"))
            .env("PATH", &places)
            .env("HOME", &dir)
            .env("TMPDIR", &dir)
            .env("NO_PROXY", "127.0.0.1,localhost")
    };
    let (redis, repo) = (port()?, port()?);
    let cache = Launch::new("redis-server")
        .args(["--port", &redis, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(&dir);
    let server = part("repo-server")
        .env("ARGOCD_GPG_ENABLED", "false")
        .env("ARGOCD_ASK_PASS_SOCK", dir.join("s"))
        .args(["--address=127.0.0.1", "--metrics-address=127.0.0.1", "--loglevel=error"])
        .arg(format!("--port={repo}"))
        .arg(format!("--metrics-port={}", port()?))
        .arg(format!("--redis=127.0.0.1:{redis}"));
    let controller = part("application-controller")
        .env("KUBECONFIG", ground.kubeconfig())
        .env("ARGOCD_FAKE_IN_CLUSTER", "true")
        .env("ARGOCD_CONTROLLER_REPLICAS", "1")
        .args(["--namespace=argocd", "--loglevel=error"])
        .arg(format!("--repo-server=127.0.0.1:{repo}"))
        .arg(format!("--redis=127.0.0.1:{redis}"))
        .arg(format!("--metrics-port={}", port()?));
    Ok(vec![
        Running::spawn("redis", ground.dir(), &cache),
        Running::spawn("repo-server", ground.dir(), &server),
        Running::spawn("application-controller", ground.dir(), &controller),
    ])
}
