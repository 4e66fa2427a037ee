//! The manifests in deploy/, on a real control plane.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::path::{Path, PathBuf};
use std::process::Output;

use plumb_testkit::{ControlPlane, Options};

/// The account of the Deployment.
const ACCOUNT: &str = "system:serviceaccount:plumb-system:plumb";

/// What is not for `kubectl apply`: the kustomization itself, and components of overlays.
const NOT_RESOURCES: [&str; 2] = ["kustomization.yaml", "components"];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// All YAML files of the base, relative to `deploy/`.
fn files(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if NOT_RESOURCES.contains(&path.file_name().unwrap().to_str().unwrap()) {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path.strip_prefix(deploy()).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// The resources that `deploy/kustomization.yaml` lists.
fn resources() -> Vec<String> {
    let text = std::fs::read_to_string(deploy().join("kustomization.yaml")).unwrap();
    let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    serde_json::from_value(value["resources"].clone()).unwrap()
}

/// Standard output of a command that must succeed.
fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn every_manifest_is_listed() {
    let (mut found, mut listed) = (Vec::new(), resources());
    files(&deploy(), &mut found);
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}

#[test]
fn the_image_has_our_version_and_stands_in_one_place() {
    let image = format!("image: registry.example.com/plumb:{}", env!("CARGO_PKG_VERSION"));
    let with_image: Vec<_> = resources()
        .into_iter()
        .filter(|file| {
            std::fs::read_to_string(deploy().join(file)).unwrap().contains("registry.example.com")
        })
        .collect();
    assert_eq!(with_image, ["deployment.yaml"]);
    let text = std::fs::read_to_string(deploy().join("deployment.yaml")).unwrap();
    assert_eq!(text.matches(&image).count(), 1, "{text}");
}

#[tokio::test]
async fn the_manifests_are_taken_and_grant_what_they_say() {
    // One of its own: the account's rights must be those of these files alone.
    let plane = ControlPlane::start(Options::default()).await;
    let apply = |path: &Path, flag: &str| {
        said(&plane.kubectl(["apply", "--server-side", flag, path.to_str().unwrap()]))
    };
    for file in resources().iter().filter(|file| *file != "rbac/apply.yaml") {
        apply(&deploy().join(file), "-f");
    }

    let can = |verb: &str, resource: &str, namespace: &str| {
        let output =
            plane.kubectl(["auth", "can-i", verb, resource, "-n", namespace, "--as", ACCOUNT]);
        String::from_utf8_lossy(&output.stdout).trim() == "yes"
    };
    let grants = [
        ("patch", "applications.plumb.dev", "default"),
        ("watch", "gitrepositories.plumb.dev", "default"),
        ("patch", "applications.plumb.dev/status", "default"),
        ("patch", "gitrepositories.plumb.dev/status", "default"),
        ("get", "secrets", "default"),
        ("get", "namespaces", "default"),
        ("get", "serviceaccounts", "default"),
        ("create", "events.events.k8s.io", "default"),
        ("list", "deployments.apps", "default"),
        ("watch", "configmaps", "kube-system"),
        ("create", "leases.coordination.k8s.io", "plumb-system"),
        ("update", "leases.coordination.k8s.io/plumb", "plumb-system"),
    ];
    let refusals = [
        ("delete", "applications.plumb.dev", "default"),
        ("create", "configmaps", "default"),
        ("patch", "deployments.apps", "default"),
        ("delete", "secrets", "default"),
        ("impersonate", "users", "default"),
        ("update", "leases.coordination.k8s.io/other", "plumb-system"),
        ("create", "leases.coordination.k8s.io", "kube-system"),
    ];
    let wait = std::time::Duration::from_secs(30);
    // Rights reach the authorizer by a watch.
    plumb_testkit::wait_for("the rights of the account", wait, || async {
        let missing: Vec<_> =
            grants.iter().filter(|(verb, what, place)| !can(verb, what, place)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    for (verb, what, place) in refusals {
        assert!(!can(verb, what, place), "may {verb} {what} in {place}");
    }

    apply(&deploy(), "-k");
    assert!(can("create", "configmaps", "default"));
    // The Pod passes the security level of its namespace, else there is none.
    said(&plane.kubectl([
        "-n",
        "plumb-system",
        "wait",
        "deployment/plumb",
        "--for=condition=Available",
        "--timeout=60s",
    ]));
}

#[test]
fn the_component_puts_the_cache_on_a_volume_claim() {
    let dir = tempfile::tempdir().unwrap();
    // Kustomize takes no absolute paths.
    let text = "resources: [base]\ncomponents: [base/components/persistent-cache]\n";
    std::fs::write(dir.path().join("kustomization.yaml"), text).unwrap();
    copy(&deploy(), &dir.path().join("base"));
    let kubectl = plumb_testkit::Tools::ready().unwrap();
    let output = std::process::Command::new(kubectl.path(plumb_testkit::Tool::Kubectl))
        .arg("kustomize")
        .arg(dir.path())
        .output()
        .unwrap();
    let built = said(&output);
    let deployment = built
        .split("---\n")
        .find(|document| document.contains("kind: Deployment"))
        .map(|document| serde_yaml::from_str::<serde_json::Value>(document).unwrap())
        .unwrap();
    assert_eq!(
        deployment["spec"]["template"]["spec"]["volumes"],
        serde_json::json!([
            { "name": "cache", "persistentVolumeClaim": { "claimName": "plumb-cache" } }
        ])
    );
    assert_eq!(deployment["spec"]["strategy"], serde_json::json!({ "type": "Recreate" }));
    assert!(built.contains("kind: PersistentVolumeClaim"));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
