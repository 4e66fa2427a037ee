//! Cases of this project's own, each with the output of the reference beside it: a directory with a
//! kustomization, `expected.yaml`, and `options` if the reference was called with some, one a line.
//! `cargo xtask generate --peers` writes that output.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use plumb_core::{DirTree, MemTree, RelPath};
use plumb_kustomize::{LoadRestrictions, Options, Reorder, build};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn options(case: &str) -> Options {
    let text = std::fs::read_to_string(root().join(case).join("options")).unwrap_or_default();
    let mut options = Options { reorder: Reorder::Legacy, ..Options::default() };
    for flag in text.lines() {
        match flag {
            "--load-restrictor=LoadRestrictionsNone" => {
                options.load_restrictions = LoadRestrictions::None;
            }
            "--reorder=none" => options.reorder = Reorder::Fifo,
            _ => panic!("{case}: option {flag:?} is not known here"),
        }
    }
    options
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

fn built(tree: &dyn plumb_core::Tree, case: &str) -> String {
    let path = RelPath::parse(case).unwrap();
    build(tree, &path, &options(case), &|| false)
        .unwrap_or_else(|error| panic!("{case}: {error}"))
        .to_yaml()
}

#[test]
fn outputs_are_those_of_the_reference() {
    for case in cases() {
        let dir = root().join(&case);
        let want = std::fs::read_to_string(dir.join("expected.yaml")).unwrap();
        assert_eq!(built(&DirTree::new(root()), &case), want, "{case}");
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
    for case in cases() {
        let tree = load(MemTree::new(), &root().join(&case), &format!("{case}/"));
        let memory = built(&tree, &case);
        assert_eq!(memory, built(&DirTree::new(root()), &case), "{case}");
        // Nothing is left from one build for the next.
        assert_eq!(memory, built(&tree, &case), "{case}");
    }
}

#[test]
fn parallel_builds_are_as_serial_ones() {
    let tree = DirTree::new(root());
    let serial: Vec<String> = cases().iter().map(|case| built(&tree, case)).collect();
    let parallel: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = cases()
            .into_iter()
            .map(|case| {
                let tree = &tree;
                scope.spawn(move || built(tree, &case))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(parallel, serial);
}
