//! The binaries of the control plane and of peers: found in the cache, or built from pinned Go
//! modules.
//!
//! Versions stand in one place, the `go.mod` files in `controlplane/` and `peers/`. The cache lies
//! outside the checkout, `${XDG_CACHE_HOME:-$HOME/.cache}/plumb/<module>-<version>/`, so that a
//! fresh clone builds nothing twice. `KUBEBUILDER_ASSETS` names a directory whose binaries of the
//! control plane come first, `PLUMB_KUSTOMIZE`, `PLUMB_SOPS`, `PLUMB_GITEA`, `PLUMB_SOURCE_CONTROLLER`,
//! `PLUMB_KUSTOMIZE_CONTROLLER` and `PLUMB_ARGOCD` the peers of those names.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The oldest Go that the pinned modules build with.
const GO: (u32, u32) = (1, 26);

/// How often a running build is mentioned.
const PROGRESS: Duration = Duration::from_secs(15);

/// The Stage files that make kwok's nodes ready and its pods run at once.
const STAGES: [&str; 3] =
    ["kustomize/stage/node/fast", "kustomize/stage/node/heartbeat", "kustomize/stage/pod/fast"];

/// Why a binary cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There is no `go` to build with.
    #[error(
        "{tool} is not in {dir} and there is no Go to build it with; install Go {}.{} or newer \
         (https://go.dev/dl, or a package such as `golang`), or set {instead}", GO.0, GO.1
    )]
    NoGo {
        /// The binary that is missing.
        tool: &'static str,
        /// The variable that names one that is there.
        instead: &'static str,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The `go` found is too old, and may not fetch a newer one.
    #[error(
        "{tool} has to be built and needs Go {}.{} or newer, found {found}; install a newer one \
         (https://go.dev/dl), or let Go 1.21 and newer fetch it with GOTOOLCHAIN=auto", GO.0, GO.1
    )]
    OldGo {
        /// The binary that is missing.
        tool: &'static str,
        /// What `go` says of itself.
        found: String,
    },
    /// `go` ran and failed.
    #[error("`{command}` failed in {dir}:\n{output}")]
    Go {
        /// The command line.
        command: String,
        /// Where it ran.
        dir: PathBuf,
        /// The end of what it printed.
        output: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A `go.mod` does not pin the module.
    #[error("{path} does not require {module}")]
    Unpinned {
        /// The `go.mod`.
        path: PathBuf,
        /// The module that is looked for.
        module: &'static str,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set.
    #[error("no place for built binaries: set HOME or XDG_CACHE_HOME")]
    NoCache,
}

/// A binary of the control plane, or one that we are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The store.
    Etcd,
    /// The API server.
    Apiserver,
    /// The controllers: Deployments, garbage collection, namespaces, service accounts.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// The command line, for demo and tests.
    Kubectl,
    /// Simulated nodes.
    Kwok,
    /// A peer: the reference for Kustomize. No part of a control plane.
    Kustomize,
    /// A peer: what encrypts files in repositories.
    Sops,
    /// A peer: a Git server with webhooks and pull requests.
    Gitea,
    /// A peer: what fetches repositories for Flux.
    SourceController,
    /// A peer: what applies for Flux.
    KustomizeController,
    /// A peer: all of Argo CD in one binary, which acts as the part that it is called by.
    ArgoCd,
}

/// A folder with a `go.mod` and what is built from it.
struct Module {
    home: &'static str,
    folder: &'static str,
    path: &'static str,
}

impl Module {
    const fn new(home: &'static str, folder: &'static str, path: &'static str) -> Self {
        Self { home, folder, path }
    }
}

const ETCD: Module = Module::new("controlplane", "etcd", "go.etcd.io/etcd/server/v3");
const KUBERNETES: Module = Module::new("controlplane", "kubernetes", "k8s.io/kubernetes");
const KWOK: Module = Module::new("controlplane", "kwok", "sigs.k8s.io/kwok");
const KUSTOMIZE: Module = Module::new("peers", "kustomize", "sigs.k8s.io/kustomize/kustomize/v5");
const SOPS: Module = Module::new("peers", "sops", "github.com/getsops/sops/v3");
const GITEA: Module = Module::new("peers", "gitea", "code.gitea.io/gitea");

/// What Gitea reads when it runs, beside its binary.
const GITEA_FILES: [&str; 3] = ["options", "public", "templates"];
const SOURCE_CONTROLLER: Module =
    Module::new("peers", "source-controller", "github.com/fluxcd/source-controller");
const KUSTOMIZE_CONTROLLER: Module =
    Module::new("peers", "kustomize-controller", "github.com/fluxcd/kustomize-controller");
const ARGOCD: Module = Module::new("peers", "argocd", "github.com/argoproj/argo-cd/v3");

impl Module {
    fn dir(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.home).join(self.folder)
    }

    fn version(&self) -> Result<String, ToolError> {
        let path = self.dir().join("go.mod");
        let text = fs::read_to_string(&path).map_err(io_at(&path))?;
        pinned(&text, self.path)
            .map(str::to_owned)
            .ok_or(ToolError::Unpinned { path, module: self.path })
    }
}

impl Tool {
    /// Those of the control plane, the slowest to build last.
    pub const CONTROL_PLANE: [Tool; 6] = [
        Tool::Etcd,
        Tool::Kubectl,
        Tool::Kwok,
        Tool::Scheduler,
        Tool::ControllerManager,
        Tool::Apiserver,
    ];

    /// The file name.
    pub const fn name(self) -> &'static str {
        match self {
            Tool::Etcd => "etcd",
            Tool::Apiserver => "kube-apiserver",
            Tool::ControllerManager => "kube-controller-manager",
            Tool::Scheduler => "kube-scheduler",
            Tool::Kubectl => "kubectl",
            Tool::Kwok => "kwok",
            Tool::Kustomize => "kustomize",
            Tool::Sops => "sops",
            Tool::Gitea => "gitea",
            Tool::SourceController => "source-controller",
            Tool::KustomizeController => "kustomize-controller",
            Tool::ArgoCd => "argocd",
        }
    }

    const fn module(self) -> &'static Module {
        match self {
            Tool::Etcd => &ETCD,
            Tool::Kwok => &KWOK,
            Tool::Kustomize => &KUSTOMIZE,
            Tool::Sops => &SOPS,
            Tool::Gitea => &GITEA,
            Tool::SourceController => &SOURCE_CONTROLLER,
            Tool::KustomizeController => &KUSTOMIZE_CONTROLLER,
            Tool::ArgoCd => &ARGOCD,
            _ => &KUBERNETES,
        }
    }

    /// The folder whose `go.mod` pins it.
    pub fn module_dir(self) -> PathBuf {
        self.module().dir()
    }

    const fn package(self) -> &'static str {
        match self {
            Tool::Etcd => "go.etcd.io/etcd/server/v3",
            Tool::Apiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Tool::ControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Tool::Scheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Tool::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Tool::Kwok => "sigs.k8s.io/kwok/cmd/kwok",
            Tool::Kustomize => "sigs.k8s.io/kustomize/kustomize/v5",
            Tool::Sops => "github.com/getsops/sops/v3/cmd/sops",
            Tool::SourceController => "github.com/fluxcd/source-controller",
            Tool::KustomizeController => "github.com/fluxcd/kustomize-controller",
            Tool::ArgoCd => "github.com/argoproj/argo-cd/v3/cmd",
            Tool::Gitea => "code.gitea.io/gitea",
        }
    }

    /// What `go build` is told beyond what all are: build tags, and whether there is C in it.
    const fn build(self) -> (&'static [&'static str], &'static str) {
        match self {
            // Its database is SQLite, in C.
            Tool::Gitea => (&["-tags", "sqlite,sqlite_unlock_notify"], "1"),
            _ => (&[], "0"),
        }
    }

    /// Minutes on two cores with nothing compiled before, as measured.
    const fn minutes(self) -> &'static str {
        match self {
            Tool::Etcd => "half a minute",
            Tool::Apiserver => "6 minutes",
            Tool::ControllerManager => "4 minutes",
            Tool::Scheduler | Tool::Kubectl | Tool::Kustomize => "a minute",
            Tool::Kwok => "2 minutes",
            Tool::Sops => "3 minutes",
            Tool::Gitea | Tool::ArgoCd => "10 minutes",
            Tool::SourceController | Tool::KustomizeController => "5 minutes",
        }
    }

    /// The variable with which a binary that is there is named.
    const fn instead(self) -> &'static str {
        match self {
            Tool::Kustomize => "PLUMB_KUSTOMIZE to the path of one",
            Tool::Sops => "PLUMB_SOPS to the path of one",
            Tool::Gitea => "PLUMB_GITEA to the path of one",
            Tool::SourceController => "PLUMB_SOURCE_CONTROLLER to the path of one",
            Tool::KustomizeController => "PLUMB_KUSTOMIZE_CONTROLLER to the path of one",
            Tool::ArgoCd => "PLUMB_ARGOCD to the path of one",
            _ => "KUBEBUILDER_ASSETS to a directory with etcd, kube-apiserver and kubectl",
        }
    }

    /// The peer, built first when it is missing. What a variable names is taken as it is.
    pub fn peer(self) -> Result<PathBuf, ToolError> {
        let variable = match self {
            Tool::Kustomize => Some("PLUMB_KUSTOMIZE"),
            Tool::Sops => Some("PLUMB_SOPS"),
            Tool::Gitea => Some("PLUMB_GITEA"),
            Tool::SourceController => Some("PLUMB_SOURCE_CONTROLLER"),
            Tool::KustomizeController => Some("PLUMB_KUSTOMIZE_CONTROLLER"),
            Tool::ArgoCd => Some("PLUMB_ARGOCD"),
            _ => None,
        };
        let given = variable.and_then(std::env::var_os);
        match given.filter(|path| !path.is_empty()) {
            Some(path) => Ok(path.into()),
            None => self.peer_in(&cache()?, Path::new("go")),
        }
    }

    /// As [`Tool::peer`] with every place passed in.
    fn peer_in(self, cache: &Path, go: &Path) -> Result<PathBuf, ToolError> {
        if let Some(path) = find(self, cache, None)? {
            return Ok(path);
        }
        let _lock = lock(cache)?;
        if find(self, cache, None)?.is_none() {
            build(self, cache, go, "1 of 1")?;
        }
        Ok(self.cache_dir(cache)?.join(self.name()))
    }

    fn cache_dir(self, cache: &Path) -> Result<PathBuf, ToolError> {
        let module = self.module();
        Ok(cache.join(format!("{}-{}", module.folder, module.version()?)))
    }
}

/// Where every binary is.
#[derive(Debug, Clone)]
pub struct Tools {
    found: Vec<(Tool, PathBuf)>,
    stages: PathBuf,
}

impl Tools {
    /// Finds all binaries and builds those that are missing, with progress on stderr.
    ///
    /// Two processes do not build at once: the second waits for the first.
    pub fn ready() -> Result<Tools, ToolError> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        Tools::ready_in(&cache()?, assets.as_deref(), Path::new("go"))
    }

    /// As [`Tools::ready`] with every place passed in.
    pub fn ready_in(cache: &Path, assets: Option<&Path>, go: &Path) -> Result<Tools, ToolError> {
        if let Some(tools) = Tools::present(cache, assets)? {
            return Ok(tools);
        }
        let _lock = lock(cache)?;
        let mut missing = Vec::new();
        for tool in Tool::CONTROL_PLANE {
            if find(tool, cache, assets)?.is_none() {
                missing.push(tool);
            }
        }
        for (index, tool) in missing.iter().enumerate() {
            build(*tool, cache, go, &format!("{} of {}", index + 1, missing.len()))?;
        }
        let stages = stages_file(cache)?;
        if !stages.exists() {
            write_stages(&stages, go)?;
        }
        Tools::present(cache, assets)?.ok_or_else(|| ToolError::Io {
            path: cache.to_owned(),
            source: io::Error::other("built binaries vanished"),
        })
    }

    /// All binaries, or nothing when one is missing.
    fn present(cache: &Path, assets: Option<&Path>) -> Result<Option<Tools>, ToolError> {
        let mut found = Vec::new();
        for tool in Tool::CONTROL_PLANE {
            match find(tool, cache, assets)? {
                Some(path) => found.push((tool, path)),
                None => return Ok(None),
            }
        }
        let stages = stages_file(cache)?;
        Ok(stages.exists().then_some(Tools { found, stages }))
    }

    /// The binary.
    pub fn path(&self, tool: Tool) -> &Path {
        let (_, path) = self.found.iter().find(|(have, _)| *have == tool).expect("all are there");
        path
    }

    /// kwok's Stage objects in one file.
    pub fn stages(&self) -> &Path {
        &self.stages
    }
}

/// The version that a `go.mod` requires of a module. A `replace` is not a requirement.
fn pinned<'a>(text: &'a str, module: &str) -> Option<&'a str> {
    text.lines().filter(|line| !line.contains("=>")).find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module)).then(|| words.next()).flatten()
    })
}

/// Where everything is that outlives a checkout: `${XDG_CACHE_HOME:-$HOME/.cache}/plumb`.
pub fn cache() -> Result<PathBuf, ToolError> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("XDG_CACHE_HOME")
        .or_else(|| Some(named("HOME")?.join(".cache")))
        .map(|dir| dir.join("plumb"))
        .ok_or(ToolError::NoCache)
}

fn find(tool: Tool, cache: &Path, assets: Option<&Path>) -> Result<Option<PathBuf>, ToolError> {
    let given = assets.map(|dir| dir.join(tool.name())).filter(|path| path.is_file());
    if given.is_some() {
        return Ok(given);
    }
    let built = tool.cache_dir(cache)?.join(tool.name());
    Ok(built.is_file().then_some(built))
}

fn stages_file(cache: &Path) -> Result<PathBuf, ToolError> {
    Ok(Tool::Kwok.cache_dir(cache)?.join("stages.yaml"))
}

/// Held until dropped; also released by the system when we die.
fn lock(cache: &Path) -> Result<File, ToolError> {
    fs::create_dir_all(cache).map_err(io_at(cache))?;
    let path = cache.join("build.lock");
    let file = File::create(&path).map_err(io_at(&path))?;
    if file.try_lock().is_err() {
        say(&format!("waiting for another process that builds binaries ({})", path.display()));
        file.lock().map_err(io_at(&path))?;
    }
    Ok(file)
}

fn build(tool: Tool, cache: &Path, go: &Path, count: &str) -> Result<(), ToolError> {
    let module = tool.module();
    let version = module.version()?;
    let dir = tool.cache_dir(cache)?;
    check_go(tool, go, &dir)?;
    fs::create_dir_all(&dir).map_err(io_at(&dir))?;

    // Built beside its place and renamed, so that a killed build leaves no half binary behind.
    let target = dir.join(tool.name());
    let temporary = dir.join(format!(".{}.{}", tool.name(), std::process::id()));
    let mut flags = "-s -w".to_owned();
    if module.folder == KUBERNETES.folder {
        // The API server tells its version to clients, which decide by it what it can do.
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("0"));
        let package = "k8s.io/component-base/version";
        let _infallible = write!(
            flags,
            " -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X \
             {package}.gitMinor={minor}"
        );
    }

    let name = tool.name();
    say(&format!("building {name} {version} ({count}), about {} on two cores", tool.minutes()));
    let start = Instant::now();
    let done = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let progress = scope.spawn(|| {
            let mut told = Instant::now();
            while !done.load(Ordering::Relaxed) {
                std::thread::park_timeout(PROGRESS.saturating_sub(told.elapsed()));
                if told.elapsed() >= PROGRESS {
                    told = Instant::now();
                    say(&format!("building {name}: {} s", start.elapsed().as_secs()));
                }
            }
        });
        let (more, cgo) = tool.build();
        let result = run(
            Command::new(go)
                .args(["build", "-trimpath", "-ldflags", &flags, "-o"])
                .arg(&temporary)
                .args(more)
                .arg(tool.package())
                .env("CGO_ENABLED", cgo),
            &module.dir(),
        );
        done.store(true, Ordering::Relaxed);
        progress.thread().unpark();
        result
    });
    if let Err(error) = result {
        let _absent = fs::remove_file(&temporary);
        return Err(error);
    }
    if tool == Tool::Gitea {
        copy_files(&dir, go)?;
    }
    fs::rename(&temporary, &target).map_err(io_at(&target))?;
    say(&format!("built {name} in {} s: {}", start.elapsed().as_secs(), target.display()));
    Ok(())
}

/// Asked inside the module, where `GOTOOLCHAIN=auto` has already chosen what will build it.
fn check_go(tool: Tool, go: &Path, dir: &Path) -> Result<(), ToolError> {
    let module = tool.module().dir();
    let output = choosing(Command::new(go).args(["env", "GOVERSION"]))
        .current_dir(&module)
        .output()
        .map_err(|_missing| ToolError::NoGo {
            tool: tool.name(),
            instead: tool.instead(),
            dir: dir.to_owned(),
        })?;
    let said = String::from_utf8_lossy(if output.status.success() {
        &output.stdout
    } else {
        &output.stderr
    });
    let said = said.trim();
    if !output.status.success() || go_version(said).is_none_or(|found| found < GO) {
        return Err(ToolError::OldGo { tool: tool.name(), found: said.to_owned() });
    }
    Ok(())
}

/// `go1.26.8` as (1, 26); also `go1.27rc1` and `devel go1.27-abc`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("go"))?;
    let mut numbers = version.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse::<u32>().ok()
    });
    Some((numbers.next()??, numbers.next()??))
}

/// Where Go keeps the source of a module.
fn source(module: &Module, go: &Path) -> Result<PathBuf, ToolError> {
    run(Command::new(go).args(["mod", "download", module.path]), &module.dir())?;
    let list = ["list", "-m", "-f", "{{.Dir}}", module.path];
    Ok(run(Command::new(go).args(list), &module.dir())?.trim().into())
}

/// Puts what Gitea reads when it runs beside its binary: Go may clean its own places.
fn copy_files(to: &Path, go: &Path) -> Result<(), ToolError> {
    fn copy(from: &Path, to: &Path) -> io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let to = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                copy(&entry.path(), &to)?;
            } else {
                // A copy of the file would be as read-only as that is.
                fs::write(&to, fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }
    let from = source(&GITEA, go)?;
    for name in GITEA_FILES {
        let from = from.join(name);
        copy(&from, &to.join(name)).map_err(io_at(&from))?;
    }
    Ok(())
}

fn write_stages(path: &Path, go: &Path) -> Result<(), ToolError> {
    check_go(Tool::Kwok, go, path)?;
    let source = source(&KWOK, go)?;
    let mut all = String::new();
    for stage in STAGES {
        let dir = source.join(stage);
        let mut files: Vec<PathBuf> = fs::read_dir(&dir)
            .map_err(io_at(&dir))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .filter(|path| path.file_name().is_some_and(|name| name != "kustomization.yaml"))
            .collect();
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).map_err(io_at(&file))?;
            let _infallible = writeln!(all, "---\n{text}");
        }
    }
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, all).map_err(io_at(&temporary))?;
    fs::rename(&temporary, path).map_err(io_at(path))
}

/// Lets Go fetch the version that a module asks for, where nobody has decided that.
fn choosing(command: &mut Command) -> &mut Command {
    if std::env::var_os("GOTOOLCHAIN").is_none() {
        command.env("GOTOOLCHAIN", "auto");
    }
    command
}

fn run(command: &mut Command, dir: &Path) -> Result<String, ToolError> {
    let output = choosing(command).current_dir(dir).output().map_err(io_at(dir))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    Err(ToolError::Go {
        command: format!("{command:?}"),
        dir: dir.to_owned(),
        output: lines[lines.len().saturating_sub(30)..].join("\n"),
    })
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> ToolError + use<> {
    let path = path.to_owned();
    move |source| ToolError::Io { path, source }
}

/// Straight to stderr: the test harness would keep `eprintln!` until the test fails.
fn say(text: &str) {
    let _closed = writeln!(io::stderr(), "testkit: {text}");
}

#[cfg(test)]
mod tests;
