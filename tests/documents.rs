//! Holds the tests that documents name against those that there are.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a directory with this ending.
fn files(dir: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the directory can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            files(&path, end, found);
        } else if path.extension().is_some_and(|extension| extension == end) {
            found.push(path);
        }
    }
}

/// What a file of tests is called: `prune` for `prune_tests.rs`, `members` for `members/tests.rs`.
fn module(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    if matches!(stem, "tests" | "mod") {
        return Some(path.parent()?.file_name()?.to_str()?.to_owned());
    }
    Some(stem.strip_suffix("_tests").unwrap_or(stem).to_owned())
}

/// The tests of a file, each as `module::test`.
fn tests(module: &str, text: &str) -> BTreeSet<String> {
    let mut marked = false;
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| marked) {
            let name = rest.split('(').next().unwrap_or(rest);
            found.insert(format!("{module}::{name}"));
            marked = false;
        }
    }
    found
}

/// What the rows of tables in a text say of tests.
fn named(text: &str) -> BTreeSet<&str> {
    let is_test = |code: &&str| {
        code.split_once("::").is_some_and(|(module, name)| {
            let is_name =
                |text: &str| text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            is_name(module) && is_name(name)
        })
    };
    let rows = text.lines().filter(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(is_test).collect()
}

#[test]
fn tests_that_documents_name_are_there() {
    let (mut sources, mut documents) = (Vec::new(), Vec::new());
    for dir in ["tests", "crates"] {
        files(&root().join(dir), "rs", &mut sources);
    }
    files(&root().join("docs"), "md", &mut documents);
    let mut there = BTreeSet::new();
    for path in sources {
        there.extend(tests(&module(&path).unwrap_or_default(), &read(&path)));
    }
    for document in documents {
        let text = read(&document);
        let names = named(&text);
        assert!(!names.is_empty(), "{} names no test", document.display());
        let missing: Vec<_> = names.iter().filter(|name| !there.contains(**name)).collect();
        assert!(
            missing.is_empty(),
            "{} names tests that are not there: {missing:#?}",
            document.display()
        );
    }
}

#[test]
fn names_are_found_where_they_stand() {
    let text = "`a::not_in_a_row`\n| a promise with `code` | engine `b::c_1`, `Vec::new`, - |\n";
    assert_eq!(named(text), BTreeSet::from(["b::c_1"]));
    let text = "#[tokio::test]\n#[ignore = \"x\"]\nasync fn a() {}\nfn b() {}\n    #[test]\n    fn c() {}\n";
    assert_eq!(tests("m", text), BTreeSet::from(["m::a".into(), "m::c".into()]));
}
