//! The examples: rendered, checked by the API server, and applied by the agent.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use plumb_core::RelPath;
use plumb_testkit::{Agent, ControlPlane, GitServer, wait_for};
use plumb_yaml::Limits;
use serde_json::Value;

const PLUMB: &str = env!("CARGO_BIN_EXE_plumb");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Standard output of a command that must succeed.
fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn plumb(args: &[&str]) -> String {
    said(&Command::new(PLUMB).args(args).output().unwrap())
}

/// `kubectl apply -f -` of a text.
fn apply(plane: &ControlPlane, text: &str, more: &[&str]) -> String {
    let mut child = Command::new(plane.kubectl_path())
        .env("KUBECONFIG", plane.kubeconfig())
        .env("HOME", plane.dir())
        .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    said(&child.wait_with_output().unwrap())
}

fn install_crds(plane: &ControlPlane) {
    apply(plane, &plumb(&["crds"]), &[]);
    let crds = ["crd/applications.plumb.dev", "crd/gitrepositories.plumb.dev"];
    said(&plane.kubectl(["wait", crds[0], crds[1], "--for=condition=Established"]));
}

/// The YAML files in a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read(path).unwrap();
    let documents =
        plumb_yaml::read(&text, &Arc::new(RelPath::root()), &Limits::default()).unwrap();
    documents.into_iter().map(|document| document.value).collect()
}

/// All files of the sample repository: paths and texts.
fn sample() -> Vec<(String, String)> {
    let top = root().join("examples/repository");
    let dirs = ["apps/web", "apps/settings"].map(|dir| top.join(dir));
    let files = dirs.iter().flat_map(|dir| files(dir));
    let relative = |path: &Path| path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned();
    files.map(|path| (relative(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn the_sample_repository_renders() {
    let top = root().join("examples/repository");
    for dir in ["apps/web", "apps/settings"] {
        let path = top.join(dir);
        let built = plumb(&["build", path.to_str().unwrap(), "--root", top.to_str().unwrap()]);
        assert_eq!(built.split("---\n").count(), files(&path).len(), "{built}");
    }
}

#[tokio::test]
async fn the_examples_of_custom_resources_are_taken() {
    let plane = ControlPlane::shared().await;
    install_crds(plane);
    let examples = files(&root().join("examples"));
    assert!(!examples.is_empty());
    for file in examples {
        let text = std::fs::read_to_string(&file).unwrap();
        let answer = apply(plane, &text, &["--dry-run=server", "--validate=strict"]);
        assert_eq!(answer.lines().count(), documents(&file).len(), "{answer}");
    }
}

#[tokio::test]
async fn the_examples_become_ready() {
    let plane = ControlPlane::shared().await;
    install_crds(plane);
    let namespace = plane.namespace("examples").await;
    let identity = plane.service_account(&namespace, "plumb", "cluster-admin").await;
    let server = GitServer::start().await;
    let sample = sample();
    let files: Vec<_> =
        sample.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    server.repo("example").commit(&files, "Add the samples");

    let agent = Agent::builder(PLUMB)
        .kubeconfig(identity.kubeconfig())
        .env("POD_NAMESPACE", &namespace)
        .args(["controller", "--namespaces", &namespace, "--metrics-addr", "none"]);
    let cache = agent.dir().join("cache");
    let mut agent = agent.env("PLUMB_CACHE_DIR", cache).start();
    for file in ["gitrepository.yaml", "application.yaml"] {
        let text = std::fs::read_to_string(root().join("examples").join(file)).unwrap();
        let text = text
            .replace("namespace: default", &format!("namespace: {namespace}"))
            .replace("https://git.example.com/org/example.git", &server.url("example"));
        apply(plane, &text, &[]);
    }
    wait_for("the examples to be ready", Duration::from_mins(1), || {
        assert!(agent.ended().is_none(), "plumb ended:\n{}", agent.logs());
        let ready = ["application/web", "application/settings"].iter().all(|application| {
            let wait = ["-n", &namespace, "wait", application, "--for=condition=Ready"];
            plane.kubectl(wait.iter().chain(&["--timeout=0"])).status.success()
        });
        std::future::ready(if ready { Ok(()) } else { Err(agent.logs()) })
    })
    .await;
    let available = "--for=condition=Available";
    said(&plane.kubectl(["-n", "web", "wait", "deployment/web", available, "--timeout=60s"]));
    let maps = said(&plane.kubectl(["-n", "settings", "get", "configmaps", "--no-headers"]));
    assert!(maps.contains("oslo"), "{maps}");
    assert!(agent.stop().success(), "{}", agent.logs());
    said(&plane.kubectl(["delete", "namespace", "web", "settings", "--wait=false"]));
}
