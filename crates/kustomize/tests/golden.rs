//! Cases of this project's own, each with the output of the reference beside it. With
//! `PLUMB_KUSTOMIZE` naming its binary, that output is taken anew and compared too.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use plumb_core::{DirTree, MemTree, RelPath};
use plumb_kustomize::{Options, Reorder, build};

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn options() -> Options {
    Options { reorder: Reorder::Legacy, ..Options::default() }
}

fn cases() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

#[test]
fn outputs_are_those_of_the_reference() {
    let reference = std::env::var_os("PLUMB_KUSTOMIZE");
    for name in cases() {
        let want = std::fs::read_to_string(root().join(&name).join("expected.yaml")).unwrap();
        if let Some(binary) = &reference {
            let output =
                std::process::Command::new(binary).arg("build").arg(root().join(&name)).output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            assert_eq!(text, want, "{name}: expected.yaml is not what the reference prints");
        }
        let path = RelPath::parse(&name).unwrap();
        let built = build(&DirTree::new(root()), &path, &options(), &|| false)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(built.to_yaml(), want, "{name}");
    }
}

fn load(tree: MemTree, dir: &Path, at: &str) -> MemTree {
    std::fs::read_dir(dir).unwrap().fold(tree, |tree, entry| {
        let entry = entry.unwrap();
        let path = format!("{at}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            load(tree, &entry.path(), &format!("{path}/"))
        } else {
            tree.file(&path, std::fs::read(entry.path()).unwrap())
        }
    })
}

#[test]
fn memory_and_disk_build_the_same() {
    let tree = load(MemTree::new(), &root(), "");
    for name in cases() {
        let path = RelPath::parse(&name).unwrap();
        let disk = build(&DirTree::new(root()), &path, &options(), &|| false).unwrap();
        let memory = build(&tree, &path, &options(), &|| false).unwrap();
        assert_eq!(memory.to_yaml(), disk.to_yaml(), "{name}");
        // Nothing is left from one build for the next.
        let again = build(&tree, &path, &options(), &|| false).unwrap();
        assert_eq!(again.objects, memory.objects, "{name}");
    }
}

#[test]
fn parallel_builds_are_as_serial_ones() {
    let root = root();
    let serial: Vec<String> = cases()
        .iter()
        .map(|name| {
            let path = RelPath::parse(name).unwrap();
            build(&DirTree::new(&root), &path, &options(), &|| false).unwrap().to_yaml()
        })
        .collect();
    let parallel: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = cases()
            .into_iter()
            .map(|name| {
                let root = root.clone();
                scope.spawn(move || {
                    let path = RelPath::parse(&name).unwrap();
                    build(&DirTree::new(root), &path, &options(), &|| false).unwrap().to_yaml()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(parallel, serial);
}
