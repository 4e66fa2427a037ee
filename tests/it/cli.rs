//! The command line: what it prints and the codes it ends with.

use std::process::{Command, Output};

use plumb_testkit::Scratch;
use serde_json::Value;

fn plumb(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_plumb")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn tree(files: &[(&str, &str)]) -> Scratch {
    let dir = Scratch::new("build");
    std::fs::create_dir(dir.path().join(".git")).unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

const GOOD: &str =
    "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata: {b: 'yes', a: \"1\"}\n";

#[test]
fn build_prints_what_the_agent_would_apply() {
    let dir = tree(&[
        ("app/a.yaml", GOOD),
        ("app/skip/b.yaml", "not: an object"),
        (".plumbignore", "skip/\n"),
    ]);
    let path = dir.path().join("app");
    let output = plumb(&["build", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let want =
        "apiVersion: v1\ndata:\n  a: \"1\"\n  b: \"yes\"\nkind: ConfigMap\nmetadata:\n  name: a\n";
    assert_eq!(text(&output.stdout), want);
    let output = plumb(&["build", "-o", "json", path.to_str().unwrap()]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["items"][0]["data"]["b"], "yes");
}

/// A kustomization that lists a Namespace last and a file beside its directory.
fn kustomization() -> Scratch {
    tree(&[
        ("base/a.yaml", GOOD),
        ("base/ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"),
        ("base/kustomization.yaml", "namePrefix: p-\nresources:\n- a.yaml\n- ns.yaml\n"),
        ("prod/kustomization.yaml", "resources:\n- ../base\n"),
        ("far/kustomization.yaml", "resources:\n- ../base/a.yaml\n"),
        ("typo/kustomization.yaml", "resources:\n- ../base\nnameprefx: x\n"),
    ])
}

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: team\n";
const PREFIXED: &str =
    "apiVersion: v1\ndata:\n  a: \"1\"\n  b: \"yes\"\nkind: ConfigMap\nmetadata:\n  name: p-a\n";

#[test]
fn build_prints_what_kustomize_build_prints() {
    let dir = kustomization();
    let build = |path: &str, args: &[&str]| {
        let path = dir.path().join(path);
        let mut all = vec!["build", path.to_str().unwrap()];
        all.extend(args);
        plumb(&all)
    };
    let printed = |path: &str, args: &[&str]| {
        let output = build(path, args);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let legacy = format!("{NAMESPACE}---\n{PREFIXED}");
    assert_eq!(printed("prod", &[]), legacy);
    assert_eq!(printed("prod", &["--reorder", "legacy"]), legacy);
    assert_eq!(printed("prod", &["--reorder", "none"]), format!("{PREFIXED}---\n{NAMESPACE}"));
    let any = printed("far", &["--load-restrictor", "LoadRestrictionsNone"]);
    assert_eq!(any, PREFIXED.replace("p-a", "a"));
    for (path, said) in [
        (
            "far",
            "error: far/kustomization.yaml:2: cannot load \"../base/a.yaml\": file base/a.yaml is not in or below far\nhint: move the file, include its directory as a base with a kustomization, or lift the restriction with LoadRestrictionsNone\n",
        ),
        (
            "typo",
            "error: typo/kustomization.yaml:3: unknown field \"nameprefx\"\nhint: did you mean \"namePrefix\"?\n",
        ),
    ] {
        let output = build(path, &[]);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(3), said));
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn outside_a_repository_the_current_directory_is_its_root() {
    let dir = kustomization();
    std::fs::remove_dir(dir.path().join(".git")).unwrap();
    let build = |current: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plumb"));
        command.current_dir(dir.path().join(current)).arg("build").args(args).output().unwrap()
    };
    assert_eq!(build("", &["prod"]).status.code(), Some(0));
    assert_eq!(build("prod", &[".", "--root", ".."]).status.code(), Some(0));
    let output = build("prod", &["."]);
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stderr);
    assert!(said.contains("leaves the repository") && said.contains("--root"), "{said}");
}

#[test]
fn exit_codes_are_those_of_the_table() {
    let dir = tree(&[("app/a.yaml", "kind: ["), ("app/b.yaml", "metadata: {name: x}")]);
    let path = dir.path().join("app");
    let missing = dir.path().join("none");
    let cases: [(&[&str], i32, &str); 5] = [
        (&["version"], 0, ""),
        (&["nonsense"], 2, "unrecognized subcommand"),
        (&["build", path.to_str().unwrap()], 3, "app/b.yaml:1"),
        (&["build", missing.to_str().unwrap()], 3, "cannot open"),
        (&["controller", "--kubeconfig", "/nonexistent"], 3, "/nonexistent"),
    ];
    for (args, code, part) in cases {
        let output = plumb(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
    }
    let help = text(&plumb(&["--help"]).stdout);
    assert!(help.contains("Exit codes:"), "{help}");
}

#[test]
fn crds_are_those_that_are_deployed() {
    let printed = text(&plumb(&["crds"]).stdout);
    let documents: Vec<String> = printed.split("---\n").map(String::from).collect();
    assert_eq!(documents.len(), 2);
    for (document, file) in documents.iter().zip(["applications", "gitrepositories"]) {
        let path = format!("{}/deploy/crds/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
        let deployed = std::fs::read_to_string(path).unwrap();
        let body = |text: &str| {
            text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(body(document), body(&deployed), "{file}");
    }
}

#[test]
fn health_says_of_live_objects_whether_they_work() {
    let dir = tree(&[
        (
            "job.yaml",
            "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\nstatus: {startTime: t}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n",
        ),
        ("bad.yaml", "a: b: c\n"),
    ]);
    let file = dir.path().join("job.yaml").display().to_string();
    let output = plumb(&["health", "-f", &file]);
    assert_eq!(
        text(&output.stdout),
        "Progressing  Job a  0 of 1 pod is complete\nHealthy      ConfigMap b\n"
    );
    let output = plumb(&["health", "-o", "json", "-f", &file]);
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reason = "0 of 1 pod is complete";
    let job = serde_json::json!({"file": file, "health": "Progressing", "reason": reason});
    assert_eq!(lines, [job, serde_json::json!({"file": file, "health": "Healthy", "reason": ""})]);
    let bad = dir.path().join("bad.yaml").display().to_string();
    let output = plumb(&["health", "-f", &bad]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("bad.yaml:1: "), "{}", text(&output.stderr));
    assert_eq!(plumb(&["health", "-f", "/none"]).status.code(), Some(3));
}

#[test]
fn build_opens_encrypted_files_with_keys_of_this_machine() {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/sops/tests");
    let sealed = std::fs::read_to_string(tests.join("golden/yaml-regex/sealed.yaml")).unwrap();
    let dir = tree(&[("app/a.yaml", &sealed)]);
    let path = dir.path().join("app");
    let build = |keys: &[&str]| {
        let mut args = vec!["build".to_owned(), path.to_str().unwrap().to_owned()];
        for key in keys {
            args.push("--decryption-key".into());
            args.push(tests.join("keys").join(key).to_str().unwrap().into());
        }
        plumb(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let output = build(&["curve.asc", "age.agekey"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("user: admin"));
    for (keys, wanted) in [
        (&[][..], "there is no key for it"),
        (&["stranger.agekey"], "none of the keys opens it"),
        (&["locked.asc"], "protected by a passphrase"),
        (&["../golden.rs"], "is no age key"),
        (&["none"], "cannot open"),
    ] {
        let output = build(keys);
        assert_ne!(output.status.code(), Some(0));
        assert!(text(&output.stderr).contains(wanted), "{}", text(&output.stderr));
    }
}
