//! `cargo xtask demo`: the main job on a real control plane, shown with kubectl's own output.
//!
//! Each step says what it does, prints each command and what it answers, and fails when what it
//! claims cannot be seen.

mod kubectl;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use plumb_testkit::{Agent, Change, ControlPlane, GitServer, Options, Repo, Scratch, Tools};

use crate::error::TaskError;
use crate::process::{cargo, interrupted, root, run as run_command};

use self::kubectl::Kubectl;

/// The longest that a step waits for anything. Steps take a second or two; a machine that compiles
/// at the same time takes longer.
const TIMEOUT: &str = "--timeout=90s";

/// As in examples/gitrepository.yaml, where the demo puts the address of its own server.
const EXAMPLE_URL: &str = "https://git.example.com/org/example.git";

/// How much of the agent's log is shown when a step fails.
const LOG_TAIL: usize = 30;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave everything running until ctrl-C, and print the path of the kubeconfig.
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(args: &DemoArgs) -> Result<(), TaskError> {
    let start = Instant::now();
    step("Build what is missing: plumb and the control plane");
    run_command(cargo(&["build", "--package", "plumb", "--bin", "plumb"])).await?;
    tokio::task::spawn_blocking(Tools::ready)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        .map_err(TaskError::Tools)?;

    step("Start a control plane, and serve examples/repository over HTTP");
    let plane = ControlPlane::try_start(Options::default()).await.map_err(TaskError::Tools)?;
    let server = GitServer::start().await;
    let mut demo = Demo::new(&plane, &server);
    let first = demo.repo.commit_changes(&sample()?, "Add the samples");
    println!("Kubernetes at {}, Git at {}, commit {first}", plane.server(), server.url("example"));

    let result = demo.show(&first).await;
    if let (Err(error), Some(agent)) = (&result, &demo.agent) {
        error.print();
        let logs = agent.logs();
        let lines: Vec<_> = logs.lines().collect();
        println!(
            "The end of plumb's log:\n{}",
            lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
        );
    }
    if args.keep {
        println!("\nEverything goes on until ctrl-C. For kubectl:");
        println!("  export KUBECONFIG={}", plane.kubeconfig().display());
        println!("  {} get plumb -A", plane.kubectl_path().display());
        println!("Git: {} (bare repository {})", server.url("example"), demo.repo.dir().display());
        if let Some(agent) = &demo.agent {
            println!("The log of plumb: {}", agent.log_file().display());
        }
        interrupted().await;
    }
    if let Some(agent) = &mut demo.agent {
        let status = agent.stop();
        result?;
        holds(status.success(), "plumb ends in good order", || status.to_string())?;
    } else {
        result?;
    }
    println!("\nAll steps showed what they claim, in {} s.", start.elapsed().as_secs());
    Ok(())
}

fn step(title: &str) {
    println!("\n## {title}\n");
}

/// Fails when `fact` does not hold.
fn holds(fact: bool, what: &str, found: impl FnOnce() -> String) -> Result<(), TaskError> {
    if fact {
        println!("✓ {what}");
        return Ok(());
    }
    Err(TaskError::Evidence { what: what.to_owned(), found: found() })
}

struct Demo {
    kubectl: Kubectl,
    repo: Repo,
    url: String,
    agent: Option<Agent>,
    kubeconfig: PathBuf,
    scratch: Scratch,
    /// A new value for each request to look at once.
    requests: u32,
}

impl Demo {
    fn new(plane: &ControlPlane, server: &GitServer) -> Self {
        let scratch = Scratch::new("demo");
        Self {
            kubectl: Kubectl::new(plane.kubectl_path(), plane.kubeconfig(), scratch.path()),
            repo: server.repo("example"),
            url: server.url("example"),
            agent: None,
            kubeconfig: plane.kubeconfig().to_owned(),
            scratch,
            requests: 0,
        }
    }

    async fn show(&mut self, first: &str) -> Result<(), TaskError> {
        self.install().await?;
        self.first_sync(first).await?;
        self.commit_applied().await?;
        self.change_undone().await?;
        self.file_pruned().await?;
        self.mass_deletion_held().await?;
        step("What an operator sees");
        self.kubectl.show(&["get", "plumb"]).await?;
        self.kubectl.show(&["events", "--for=application/web"]).await?;
        Ok(())
    }

    async fn install(&mut self) -> Result<(), TaskError> {
        step("Install the custom resources, and run `plumb controller`");
        let deploy = root().join("deploy");
        let (crds, namespace) = (deploy.join("crds"), deploy.join("namespace.yaml"));
        self.kubectl
            .show(&["apply", "--server-side", "-f", &text(&crds), "-f", &text(&namespace)])
            .await?;
        let crd = ["crd/applications.plumb.dev", "crd/gitrepositories.plumb.dev"];
        self.kubectl
            .show(&["wait", crd[0], crd[1], "--for=condition=Established", TIMEOUT])
            .await?;

        let cache = self.scratch.path().join("cache");
        fs::create_dir_all(&cache).map_err(at(&cache))?;
        let args = ["--metrics-addr", "127.0.0.1:0", "--log-format", "text"];
        println!("$ plumb controller --cache-dir {} {}", cache.display(), args.join(" "));
        let agent = Agent::builder(binary()?)
            .kubeconfig(&self.kubeconfig)
            .env("POD_NAMESPACE", "plumb-system")
            .args(["controller", "--cache-dir", &text(&cache)])
            .args(args)
            .start();
        self.agent = Some(agent);
        Ok(())
    }

    async fn first_sync(&mut self, commit: &str) -> Result<(), TaskError> {
        step("First sync: a GitRepository and two Applications, to Pods that are ready");
        let example = root().join("examples/gitrepository.yaml");
        let repository = self.scratch.path().join("gitrepository.yaml");
        let given = fs::read_to_string(&example).map_err(at(&example))?;
        holds(given.contains(EXAMPLE_URL), "the example names a repository", || given.clone())?;
        fs::write(&repository, given.replace(EXAMPLE_URL, &self.url)).map_err(at(&repository))?;
        let applications = root().join("examples/application.yaml");
        self.kubectl.show(&["apply", "-f", &text(&repository), "-f", &text(&applications)]).await?;

        let both = ["application/web", "application/settings"];
        self.kubectl.show(&["wait", both[0], both[1], "--for=condition=Ready", TIMEOUT]).await?;
        self.kubectl.show(&["get", "plumb"]).await?;
        let available = "--for=condition=Available";
        self.kubectl.show(&["-n", "web", "wait", "deployment/web", available, TIMEOUT]).await?;
        self.kubectl.show(&["-n", "web", "get", "deployments,services,pods"]).await?;

        let revision =
            self.kubectl.field("application/web", "default", ".status.lastAppliedRevision").await?;
        holds(revision.ends_with(commit), "the Application is at the commit", || revision.clone())?;
        let ready = self.kubectl.field("deployment/web", "web", ".status.readyReplicas").await?;
        holds(ready == "2", "two Pods are ready", || ready.clone())
    }

    async fn commit_applied(&mut self) -> Result<(), TaskError> {
        step("A commit: three replicas instead of two");
        let commit =
            self.edit("apps/web/deployment.yaml", "replicas: 2", "replicas: 3", "Run three")?;
        self.look_at_once().await?;
        self.applied("web", &commit).await?;
        let three = "--for=jsonpath={.status.readyReplicas}=3";
        self.kubectl.show(&["-n", "web", "wait", "deployment/web", three, TIMEOUT]).await?;
        self.kubectl.show(&["-n", "web", "get", "deployments,pods"]).await?;
        let message = self.condition("web", "Ready", "message").await?;
        println!("✓ the Application says: {message}");
        let untouched = self
            .kubectl
            .field("application/settings", "default", ".status.lastAppliedRevision")
            .await?;
        holds(!untouched.ends_with(&commit), "the other Application was not touched", || {
            untouched.clone()
        })
    }

    async fn change_undone(&mut self) -> Result<(), TaskError> {
        step("A change by hand is undone, and it is said who changed which field");
        let field = ".spec.template.spec.containers[0].image";
        let wanted = self.kubectl.field("deployment/web", "web", field).await?;
        let image = "web=registry.example.com/changed-by-hand:1";
        self.kubectl.show(&["-n", "web", "set", "image", "deployment/web", image]).await?;
        let corrected = "--for=jsonpath={.status.drift.object}";
        self.kubectl.show(&["wait", "application/web", corrected, TIMEOUT]).await?;
        let drift = "jsonpath={.status.drift}{\"\\n\"}";
        self.kubectl.show(&["get", "application/web", "-o", drift]).await?;

        let live = self.kubectl.field("deployment/web", "web", field).await?;
        holds(live == wanted, "the image is that of Git again", || live.clone())?;
        let manager =
            self.kubectl.field("application/web", "default", ".status.drift.manager").await?;
        holds(manager == "kubectl-set", "the status names who changed it: kubectl-set", || {
            manager.clone()
        })?;
        let fields =
            self.kubectl.field("application/web", "default", ".status.drift.fields").await?;
        holds(fields.contains("image"), "the status names the field that was changed", || {
            fields.clone()
        })
    }

    async fn file_pruned(&mut self) -> Result<(), TaskError> {
        step("A file is deleted, and its object goes");
        let commit = self.repo.commit(&[("apps/web/service.yaml", None)], "Take the Service away");
        println!("commit {commit}: Take the Service away");
        self.look_at_once().await?;
        self.kubectl.show(&["-n", "web", "wait", "service/web", "--for=delete", TIMEOUT]).await?;
        self.applied("web", &commit).await?;
        let left =
            self.kubectl.show(&["-n", "web", "get", "services,configmaps,deployments"]).await?;
        holds(left.contains("deployment.apps/web"), "the others are still there", || left.clone())?;
        holds(!left.contains("service/web"), "the Service is gone", || left.clone())
    }

    async fn mass_deletion_held(&mut self) -> Result<(), TaskError> {
        step("A mass deletion is held until a person approves it");
        let dir = root().join("examples/repository/apps/settings");
        let mut files: Vec<String> = fs::read_dir(&dir)
            .map_err(at(&dir))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name != "namespace.yaml")
            .collect();
        files.sort();
        // One stays: an emptied folder is held for another reason.
        let (kept, gone) = files.split_first().ok_or_else(|| TaskError::Evidence {
            what: "there are settings to delete".to_owned(),
            found: dir.display().to_string(),
        })?;
        let names: Vec<String> = gone.iter().map(|file| format!("apps/settings/{file}")).collect();
        let changes: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
        let message = format!("Delete {} settings", gone.len());
        println!("commit {}: {message}", self.repo.commit(&changes, &message));
        self.look_at_once().await?;

        self.kubectl
            .show(&["wait", "application/settings", "--for=condition=PruneHeld", TIMEOUT])
            .await?;
        self.kubectl.show(&["get", "application/settings"]).await?;
        println!("✓ it says: {}", self.condition("settings", "PruneHeld", "message").await?);
        let live =
            self.kubectl.show(&["-n", "settings", "get", "configmaps", "-o", "name"]).await?;
        let all = files.iter().all(|file| live.contains(object_name(file)));
        holds(all, "all of them are still there", || live.clone())?;

        let digest =
            self.kubectl.field("application/settings", "default", ".status.prune.digest").await?;
        let approval = format!("plumb.dev/approve-prune={digest}");
        self.kubectl.show(&["annotate", "application/settings", &approval]).await?;
        let mut wait = vec!["-n", "settings", "wait", "--for=delete", TIMEOUT];
        let objects: Vec<_> =
            gone.iter().map(|file| format!("configmap/{}", object_name(file))).collect();
        wait.extend(objects.iter().map(String::as_str));
        self.kubectl.show(&wait).await?;
        self.kubectl
            .show(&["wait", "application/settings", "--for=condition=Ready", TIMEOUT])
            .await?;
        let live =
            self.kubectl.show(&["-n", "settings", "get", "configmaps", "-o", "name"]).await?;
        let none = gone.iter().all(|file| !live.contains(object_name(file)));
        holds(none, "the approved deletions are done", || live.clone())?;
        holds(live.contains(object_name(kept)), "what Git still has is still there", || {
            live.clone()
        })
    }

    /// Commits a change of one file.
    fn edit(&self, path: &str, from: &str, to: &str, message: &str) -> Result<String, TaskError> {
        let file = root().join("examples/repository").join(path);
        let text = fs::read_to_string(&file).map_err(at(&file))?;
        let changed = text.replace(from, to);
        if text == changed {
            let what = format!("{path} has {from:?}");
            return Err(TaskError::Evidence { what, found: text });
        }
        let commit = self.repo.commit(&[(path, Some(&changed))], message);
        println!("commit {commit}: {message}");
        Ok(commit)
    }

    /// Asks for a look at the repository now, instead of within a minute.
    async fn look_at_once(&mut self) -> Result<(), TaskError> {
        self.requests += 1;
        let annotation = format!("reconcile.plumb.dev/requestedAt=demo-{}", self.requests);
        self.kubectl
            .show(&["annotate", "--overwrite", "gitrepository/example", &annotation])
            .await?;
        Ok(())
    }

    /// Waits until an Application is at a commit of the main branch, and is ready.
    async fn applied(&self, name: &str, commit: &str) -> Result<(), TaskError> {
        let application = format!("application/{name}");
        let at = format!("--for=jsonpath={{.status.lastAppliedRevision}}=main@sha1:{commit}");
        self.kubectl.show(&["wait", &application, &at, TIMEOUT]).await?;
        self.kubectl.show(&["wait", &application, "--for=condition=Ready", TIMEOUT]).await?;
        self.kubectl.show(&["get", &application]).await?;
        Ok(())
    }

    /// A field of a condition of an Application.
    async fn condition(&self, name: &str, type_: &str, field: &str) -> Result<String, TaskError> {
        let path = format!(".status.conditions[?(@.type==\"{type_}\")].{field}");
        self.kubectl.field(&format!("application/{name}"), "default", &path).await
    }
}

/// All files of the sample repository.
fn sample() -> Result<Vec<Change>, TaskError> {
    let top = root().join("examples/repository");
    let mut changes = Vec::new();
    let mut dirs = vec![top.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).map_err(at(&dir))? {
            let path = entry.map_err(at(&dir))?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(&top).unwrap_or(&path).display().to_string();
                changes.push(Change::File(name, fs::read(&path).map_err(at(&path))?));
            }
        }
    }
    Ok(changes)
}

/// The name of the object in a file of the sample.
fn object_name(file: &str) -> &str {
    file.trim_end_matches(".yaml")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> TaskError {
    move |source| TaskError::File { path: path.to_owned(), source }
}

/// The binary that was just built stands beside ours.
fn binary() -> Result<PathBuf, TaskError> {
    let ours = std::env::current_exe().map_err(at(Path::new("/proc/self/exe")))?;
    Ok(ours.with_file_name("plumb"))
}
