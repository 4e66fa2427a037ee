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
