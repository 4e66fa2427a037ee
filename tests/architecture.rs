//! Holds the dependencies between crates against the tables of ARCHITECTURE.md.
//!
//! A new edge is a change of the design: it is made in the table, where it is read, and then in a
//! Cargo.toml.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What a crate ships with, by the name of the crate.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// Used by the tests of any crate, and shipped with none.
const TESTKIT: &str = "plumb-testkit";

/// Libraries that the second table must have; it may have more.
const LIBRARIES: [&str; 4] = ["git2", "kube", "axum", "granit-parser"];

fn architecture() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The first table under a heading: the first cell of each row, and the names in the second, which
/// are separated by commas. Code marks are dropped; a dash or an empty cell means none.
fn table(text: &str, heading: &str) -> Edges {
    let name = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let rows = text
        .lines()
        .skip_while(|line| line.trim() != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .map(str::trim)
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2); // the names of the columns, and the line below them
    let edges: Edges = rows
        .map(|row| {
            let mut cells = row.trim_matches('|').split('|');
            let first = name(cells.next().unwrap_or_default());
            let second = cells.next().unwrap_or_default();
            let names = second.split(',').map(name);
            (first, names.filter(|name| !matches!(name.as_str(), "" | "-" | "–" | "—")).collect())
        })
        .collect();
    assert!(!edges.is_empty(), "ARCHITECTURE.md has no table under `{heading}`");
    edges
}

/// The dependencies of each crate of the workspace that `take` wants, by their kind: none for what
/// is shipped, `build` or `dev`.
fn edges(metadata: &Value, take: impl Fn(&str, Option<&str>) -> bool) -> Edges {
    let packages = metadata["packages"].as_array().unwrap();
    let of = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies
            .map(|dependency| (dependency["name"].as_str().unwrap(), dependency["kind"].as_str()))
            .filter(|(name, kind)| take(name, *kind))
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap().to_owned(), of(package)))
        .collect()
}

/// The edges in `found` that `allowed` does not have, and the rows and edges of `allowed` that
/// `found` does not have.
fn differences(found: &Edges, allowed: &Edges) -> Vec<String> {
    let none = BTreeSet::new();
    let mut wrong = Vec::new();
    for (name, used) in found {
        if !allowed.contains_key(name) {
            wrong.push(format!("{name} is not in the table"));
        }
        for used in used.difference(allowed.get(name).unwrap_or(&none)) {
            wrong.push(format!("{name} uses {used}, the table does not let it"));
        }
    }
    for (name, used) in allowed {
        match found.get(name) {
            None => wrong.push(format!("the table has {name}, the workspace does not")),
            Some(found) => {
                for used in used.difference(found) {
                    wrong.push(format!("the table lets {name} use {used}, which it does not"));
                }
            }
        }
    }
    wrong
}

/// Fails with all differences, one a line.
fn check(heading: &str, found: &Edges, allowed: &Edges) {
    let wrong = differences(found, allowed);
    assert!(wrong.is_empty(), "`{heading}` in ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

/// The crates of the workspace.
fn members(metadata: &Value) -> BTreeSet<String> {
    edges(metadata, |_, _| false).into_keys().collect()
}

#[test]
fn crates_use_each_other_as_the_table_says() {
    let metadata = metadata();
    let members = members(&metadata);
    // Tests may also use what their crate may not, if it is made for tests.
    let found = edges(&metadata, |name, kind| {
        members.contains(name) && !(kind == Some("dev") && name == TESTKIT)
    });
    check("## Crates and edges", &found, &table(&architecture(), "## Crates and edges"));
}

#[test]
fn libraries_stay_in_their_named_homes() {
    let allowed = table(&architecture(), "## Named homes");
    for library in LIBRARIES {
        assert!(allowed.contains_key(library), "{library} has no named home in ARCHITECTURE.md");
    }
    // Tests may use whatever is handy.
    let used = edges(&metadata(), |name, kind| kind != Some("dev") && allowed.contains_key(name));
    let mut homes: Edges = allowed.keys().map(|name| (name.clone(), BTreeSet::new())).collect();
    for (name, libraries) in used {
        for library in libraries {
            homes.entry(library).or_default().insert(name.clone());
        }
    }
    check("## Named homes", &homes, &allowed);
}

/// Mistakes on purpose are for those who look for them.
#[test]
fn no_build_makes_mistakes_on_purpose_unless_it_is_told_to() {
    const FEATURE: &str = "sabotage";
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    for package in packages {
        let on = package["features"]["default"].as_array().into_iter().flatten();
        let asked = package["dependencies"].as_array().unwrap().iter();
        let asked = asked.flat_map(|edge| edge["features"].as_array().unwrap());
        let mut all = on.chain(asked).map(|feature| feature.as_str().unwrap());
        assert!(!all.any(|feature| feature.contains(FEATURE)), "{}", package["name"]);
    }
    // One place turns it on, and nothing turns everything on.
    let mut told = Vec::new();
    for (file, text) in texts(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        if text.contains(FEATURE) || text.contains("all-features") {
            told.push(file);
        }
    }
    assert_eq!(told, ["crates/xtask/src/torture/broken.rs"]);
}

/// The files that build something: scripts, recipes and tasks.
fn texts(root: &Path) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    let mut dirs: Vec<_> =
        [".ci", ".cargo", "deploy", "crates/xtask/src"].map(|dir| root.join(dir)).into();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                texts.push((name, String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into()));
            }
        }
    }
    assert!(texts.len() > 10, "{texts:?}");
    texts
}

#[test]
fn a_table_is_read_and_every_difference_is_named() {
    let text = "\
# Title
## Crates and edges
Some words.

| crate | may use |
|---|---|
| `a` | `b`, c |
| b | - |
| gone |  |

| not | this |
|---|---|
| x | y |
## Next
| crate | may use |
|---|---|
| z | y |
";
    let edges = |rows: &[(&str, &[&str])]| -> Edges {
        let names = |used: &[&str]| used.iter().map(|&used| used.to_owned()).collect();
        rows.iter().map(|&(name, used)| (name.to_owned(), names(used))).collect()
    };
    let allowed = table(text, "## Crates and edges");
    assert_eq!(allowed, edges(&[("a", &["b", "c"]), ("b", &[]), ("gone", &[])]));
    let found = edges(&[("a", &["b"]), ("b", &["a"]), ("new", &[])]);
    assert_eq!(
        differences(&found, &allowed),
        [
            "b uses a, the table does not let it",
            "new is not in the table",
            "the table lets a use c, which it does not",
            "the table has gone, the workspace does not",
        ]
    );
}
