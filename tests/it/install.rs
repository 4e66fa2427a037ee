//! What deploy/ and `plumb install` put into a cluster, and the binary as its image starts it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use plumb_testkit::{Agent, ControlPlane, GitServer, Scratch, runtime, wait_for};
use serde_json::json;

use crate::world::{LIMIT, World, config_map};

const PLUMB: &str = env!("CARGO_BIN_EXE_plumb");

/// What gcr.io/distroless/cc has of shared libraries.
const LIBRARIES: [&str; 4] = ["libc.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux-x86-64.so.2"];

fn plumb(args: &[&str]) -> String {
    let output = Command::new(PLUMB).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn apply(plane: &ControlPlane, manifests: &str) {
    let mut kubectl = Command::new(plane.kubectl_path())
        .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
        .env("KUBECONFIG", plane.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut kubectl.stdin.take().unwrap(), manifests.as_bytes()).unwrap();
    assert!(kubectl.wait().unwrap().success());
}

fn kubectl(plane: &ControlPlane, args: &[&str]) -> String {
    let output = plane.kubectl(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The shared objects that the binary is linked with.
fn libraries() -> Vec<String> {
    let output = Command::new("ldd").arg(PLUMB).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let paths =
        text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(String::from).collect()
}

#[test]
fn the_binary_needs_no_library_that_its_image_lacks() {
    let names: BTreeSet<String> =
        libraries().iter().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
    let image = LIBRARIES.map(String::from).into();
    assert!(names.is_subset(&image), "{names:?}");
}

/// The printed manifests go into a real API server; the Pod passes its namespace's security level
/// and becomes ready. Then the binary runs with the rights of that ServiceAccount and nothing but
/// what the image and the Pod give it: another root, a user nobody knows, one writable directory,
/// the account's files where the kubelet puts them.
#[test]
fn what_install_prints_runs_as_the_image_starts_it() {
    runtime().block_on(async {
        let plane = ControlPlane::shared().await;
        apply(plane, &plumb(&["install", "--image", "registry.example.com/plumb:test"]));
        wait_for("the Deployment to be available", LIMIT, async || {
            let path = "jsonpath={.status.availableReplicas}";
            let ready =
                kubectl(plane, &["-n", "plumb-system", "get", "deployment", "plumb", "-o", path]);
            if ready == "1" { Ok(()) } else { Err(ready) }
        })
        .await;

        if kubectl_id() != "0" {
            println!("skipped: only root can give the agent another root directory");
            return;
        }
        let world = World::new("install").await;
        let commit = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let root = Scratch::new("image");
        let root = root.path();
        lay_out(root, plane);
        let address = plane.server().trim_start_matches("https://").to_owned();
        let (host, port) = address.rsplit_once(':').unwrap();
        let _agent = Agent::builder("chroot")
            .args([
                "--userspec=54321:54321",
                root.to_str().unwrap(),
                "/usr/local/bin/plumb",
                "controller",
            ])
            .env("KUBERNETES_SERVICE_HOST", host)
            .env("KUBERNETES_SERVICE_PORT", port)
            .env("PLUMB_CACHE_DIR", "/var/cache/plumb")
            .env("PLUMB_METRICS_ADDR", "127.0.0.1:0")
            .env("PLUMB_NAMESPACES", &world.ns)
            .env("PLUMB_LOG_FORMAT", "json")
            .env("POD_NAMESPACE", "plumb-system")
            .env("POD_UID", "7a6f4f67-0000-4000-8000-000000000001")
            .env("HOME", "/nonexistent")
            .start();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &commit).await;
        assert_eq!(world.data("a").await, Some(json!({"value": "1"})));
    });
}

fn kubectl_id() -> String {
    let output = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A root directory like that of the container.
fn lay_out(root: &Path, plane: &ControlPlane) {
    let account = root.join("var/run/secrets/kubernetes.io/serviceaccount");
    let cache = root.join("var/cache/plumb");
    for dir in [&account, &cache, &root.join("usr/local/bin")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    // Copied by a child: what this process has open for writing, so has every child that is being
    // started meanwhile, and nothing that is open for writing can be started.
    let copy = |from: &str, to: &Path| {
        assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success(), "{from}");
    };
    copy(PLUMB, &root.join("usr/local/bin/plumb"));
    for library in libraries() {
        let to = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        copy(&library, &to);
    }
    let token = kubectl(plane, &["-n", "plumb-system", "create", "token", "plumb"]);
    std::fs::write(account.join("token"), token).unwrap();
    std::fs::write(account.join("ca.crt"), plane.ca()).unwrap();
    std::fs::write(account.join("namespace"), "plumb-system").unwrap();
    let owned = Command::new("chown").arg("54321:54321").arg(&cache).status().unwrap();
    assert!(owned.success());
}

/// The examples are what people copy: each manifest of the sample repository is applied from Git,
/// and each custom resource is taken by the API server as it stands.
#[test]
fn the_examples_are_rendered_and_applied() {
    runtime().block_on(async {
        let world = World::new("examples").await;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        for file in std::fs::read_dir(&root).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "yaml") {
                let path = path.to_str().unwrap();
                kubectl(&world.plane, &["apply", "--dry-run=server", "-f", path]);
            }
        }
        let git = GitServer::start().await;
        let repo = git.repo("examples");
        let mut files = Vec::new();
        collect(&root.join("repository"), "", &mut files);
        let changes: Vec<(&str, Option<&str>)> =
            files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        let commit = repo.commit(&changes, "the examples");
        let mut agent = world.agent();
        let mut source = world.source("1h");
        source["spec"]["url"] = json!(git.url("examples"));
        world.apply(&source).await;
        for folder in std::fs::read_dir(root.join("repository/apps")).unwrap() {
            let name = folder.unwrap().file_name().into_string().unwrap();
            let path = format!("apps/{name}");
            let printed = plumb(&["build", root.join("repository").join(&path).to_str().unwrap()]);
            assert!(printed.contains("kind: "), "{printed}");
            let mut app = world.app(&name, &path, "1h");
            if name == "shop" {
                for (field, value) in spec_of(&root.join("overlay.yaml")) {
                    if field != "sourceRef" {
                        app["spec"][field] = value;
                    }
                }
            }
            world.apply(&app).await;
            world.wait_applied(&name, &commit).await;
        }
        let path = "jsonpath={.metadata.labels.team} {.spec.replicas} {..image}";
        let shop = kubectl(&world.plane, &["-n", "shop", "get", "deployment", "shop", "-o", path]);
        assert_eq!(shop, "shop 2 registry.k8s.io/e2e-test-images/agnhost:2.54");
        // The examples have namespaces of their own; another run on the same control plane must
        // find them free.
        agent.stop();
        for (_, text) in files.iter().filter(|(path, _)| path.ends_with("namespace.yaml")) {
            let name = text.lines().find_map(|line| line.strip_prefix("  name: ")).unwrap();
            kubectl(&world.plane, &["delete", "namespace", name]);
        }
    });
}

/// The spec of an example.
fn spec_of(file: &Path) -> serde_json::Map<String, serde_json::Value> {
    let text = std::fs::read(file).unwrap();
    let name = std::sync::Arc::new(plumb_core::RelPath::root());
    let limits = plumb_yaml::Limits::default();
    let mut documents = plumb_yaml::read(&text, &name, &limits).unwrap();
    documents.remove(0).value["spec"].as_object().unwrap().clone()
}

fn collect(dir: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.push((name, std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
}
