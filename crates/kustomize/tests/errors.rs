//! What people are told when something is wrong. Each case is a directory: what is built, the
//! message with its hint in `expected.txt`, and in `options` the directory below it that is built,
//! if it is not the first. Cases that are too large for files are made here; their directories
//! hold the message alone. `PLUMB_BLESS` writes the messages as they are.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use plumb_core::{DirTree, MemTree, RelPath, Tree};
use plumb_kustomize::{Limits, Options, build};

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n";
const USES_A: &str = "namePrefix: p-\nresources:\n- a.yaml\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors")
}

fn message(tree: &dyn Tree, path: &str, options: &Options) -> String {
    let error = build(tree, &RelPath::parse(path).unwrap(), options, &|| false).unwrap_err();
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}\n"),
        None => format!("{error}\n"),
    }
}

/// Compares a message with the file of its case.
fn check(name: &str, message: &str) {
    let file = root().join(name).join("expected.txt");
    if std::env::var_os("PLUMB_BLESS").is_some() {
        std::fs::create_dir_all(root().join(name)).unwrap();
        std::fs::write(&file, message).unwrap();
    }
    let want = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(message, want, "{name}");
}

/// Cases whose files lie beside the message.
fn cases() -> Vec<String> {
    let names = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap());
    let has_files = |dir: &Path| {
        std::fs::read_dir(dir).unwrap().any(|f| f.unwrap().file_name() != "expected.txt")
    };
    let mut names: Vec<String> = names
        .filter(|entry| has_files(&entry.path()))
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn messages_of_directories() {
    for name in cases() {
        let dir = root().join(&name);
        let path = std::fs::read_to_string(dir.join("options")).unwrap_or_default();
        check(&name, &message(&DirTree::new(dir), path.trim(), &Options::default()));
    }
}

#[test]
fn nothing_of_a_secret_is_told() {
    // What is secret in these cases is called hunter2 or hunter3.
    for name in cases() {
        let text = std::fs::read_to_string(root().join(&name).join("expected.txt")).unwrap();
        assert!(!text.contains("hunter"), "{name}: {text}");
    }
}

fn with_a(text: impl Into<Vec<u8>>) -> MemTree {
    MemTree::new().file("kustomization.yaml", USES_A).file("a.yaml", text)
}

#[test]
fn limits_of_one_file() {
    let defaults = Options::default();
    let bomb =
        (b'b'..=b'j').fold(format!("{CONFIG_MAP}a: &a [x,x,x,x,x,x,x,x,x,x]\n"), |text, c| {
            let (this, before) = (char::from(c), char::from(c - 1));
            let aliases = vec![format!("*{before}"); 10].join(",");
            format!("{text}{this}: &{this} [{aliases}]\n")
        });
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    check("alias-bomb", &message(&with_a(bomb.clone()), "", &defaults));
    check(
        "alias-bomb-in-the-kustomization",
        &message(&MemTree::new().file("kustomization.yaml", bomb), "", &defaults),
    );
    let lists = format!("{CONFIG_MAP}data: {}\n", deep("[", "]"));
    check("nesting-of-lists", &message(&with_a(lists.clone()), "", &defaults));
    let maps = format!("{CONFIG_MAP}data: {}\n", deep("{a: ", "}"));
    check("nesting-of-maps", &message(&with_a(maps), "", &defaults));
    // More levels take more bytes than a file may have.
    let blocks = (0..2_000).fold(String::new(), |text, i| text + &" ".repeat(i) + "a:\n");
    check("nesting-of-blocks", &message(&with_a(blocks), "", &defaults));
    let json = format!("{{\"apiVersion\":\"v1\",\"kind\":\"A\",\"a\":{}}}", deep("[", "]"));
    check("nesting-in-json", &message(&with_a(json), "", &defaults));
    check(
        "nesting-in-the-kustomization",
        &message(&MemTree::new().file("kustomization.yaml", lists), "", &defaults),
    );
    let patch = format!("patches:\n- target: {{kind: A}}\n  patch: '{}'\n", deep("[", "]"));
    let tree = MemTree::new().file("kustomization.yaml", patch);
    check("nesting-in-a-json-patch", &message(&tree, "", &defaults));
    let documents = format!("---\n{CONFIG_MAP}").repeat(10_001);
    check("documents-in-one-file", &message(&with_a(documents), "", &defaults));
    let large = format!("{CONFIG_MAP}data:\n  a: {}\n", "x".repeat(17 << 20));
    check("manifest-of-17-megabytes", &message(&with_a(large), "", &defaults));
}

#[test]
fn limits_of_a_build() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("kustomization.yaml"), USES_A).unwrap();
    // Nothing of it is read, so it may be empty as far as the disk goes.
    let file = std::fs::File::create(dir.path().join("a.yaml")).unwrap();
    file.set_len(100 << 20).unwrap();
    let tree = DirTree::new(dir.path());
    check("file-of-100-megabytes", &message(&tree, "", &Options::default()));

    let with = |limits| Options { limits, ..Options::default() };
    let tree = with_a(CONFIG_MAP);
    let few_bytes = with(Limits { bytes: USES_A.len() as u64 + 10, ..Limits::default() });
    check("bytes-of-a-build", &message(&tree, "", &few_bytes));

    let two = CONFIG_MAP.replace("name: a", "name: b");
    let one_object = with(Limits { objects: 1, ..Limits::default() });
    let tree = with_a(CONFIG_MAP)
        .file("kustomization.yaml", "resources:\n- a.yaml\n- b.yaml\n")
        .file("b.yaml", two);
    check("objects-of-a-build", &message(&tree, "", &one_object));
    let generated = "configMapGenerator:\n- name: a\n- name: b\n- name: c\n";
    let tree = MemTree::new().file("kustomization.yaml", generated);
    check("objects-of-generators", &message(&tree, "", &one_object));

    let tree = (0..100).fold(MemTree::new(), |tree, i| {
        let path = format!("{}kustomization.yaml", "a/".repeat(i));
        tree.file(&path, "resources:\n- a\n")
    });
    check("directories-inside-each-other", &message(&tree, "", &Options::default()));

    let regex =
        "replacements:\n- sourceValue: x\n  targets:\n  - select:\n      name: (\\d{1000}){1000}\n";
    let tree = MemTree::new().file("kustomization.yaml", regex);
    check("size-of-an-expression", &message(&tree, "", &Options::default()));
}

#[test]
fn a_build_ends_when_it_is_asked_to() {
    let tree = with_a(CONFIG_MAP);
    let error = build(&tree, &RelPath::root(), &Options::default(), &|| true).unwrap_err();
    assert_eq!(error.to_string(), "the build was interrupted");
}
