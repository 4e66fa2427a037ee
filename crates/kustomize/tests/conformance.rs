//! Builds the cases of the reference's own test suite and compares bytes. The data is found at
//! `PLUMB_CONFORMANCE_DIR`, by default beside the checkout; without it there is nothing to do.
//! `PLUMB_CONFORMANCE_CASE` picks cases by a part of their name and shows what differs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plumb_core::{DirTree, RelPath};
use plumb_kustomize::{LoadRestrictions, Options, Reorder, build};
use serde_json::Value;

/// Cases that are known to differ: name, a tab, and why.
const EXPECTED_MISSES: &str = include_str!("expected-misses.txt");

fn cases() -> Option<PathBuf> {
    let dir = std::env::var_os("PLUMB_CONFORMANCE_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
        PathBuf::from,
    );
    let dir = dir.join("kustomize");
    dir.is_dir().then_some(dir)
}

fn options(case: &Value) -> Options {
    let option = |name: &str| case["options"][name].as_str();
    Options {
        load_restrictions: match option("LoadRestrictions") {
            Some("none") => LoadRestrictions::None,
            _ => LoadRestrictions::RootOnly,
        },
        reorder: match option("Reorder") {
            Some("legacy") => Reorder::Legacy,
            _ => Reorder::Fifo,
        },
        ..Options::default()
    }
}

fn scalars(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(scalars).sum(),
        Value::Array(items) => items.iter().map(scalars).sum(),
        _ => 1,
    }
}

#[test]
fn builds_what_the_reference_builds() {
    let Some(dir) = cases() else {
        println!("conformance data is not there, nothing is compared");
        return;
    };
    let only = std::env::var("PLUMB_CONFORMANCE_CASE").ok();
    let mut expected: BTreeMap<&str, &str> = EXPECTED_MISSES
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once('\t').expect("a name, a tab and a reason"))
        .collect();
    let mut names: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let (mut outputs, mut bytes, mut json, mut errors, mut failed) = (0, 0, 0, 0, 0);
    let mut surprises = Vec::new();
    for name in names {
        let name = name.into_string().unwrap();
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let at = dir.join(&name);
        let case: Value =
            serde_json::from_slice(&std::fs::read(at.join("case.json")).unwrap()).unwrap();
        let tree = DirTree::new(at.join("input"));
        let path = RelPath::parse(case["path"].as_str().unwrap()).unwrap();
        let built = build(&tree, &path, &options(&case), &|| false);
        if let Ok(built) = &built {
            // To know where fields come from changes nothing, and is known of all.
            let options = Options { origins: true, ..options(&case) };
            let with = build(&tree, &path, &options, &|| false).unwrap();
            assert_eq!(with.to_yaml(), built.to_yaml(), "{name}");
            for object in &with.objects {
                let want = scalars(object.body());
                assert_eq!(object.fields().len(), want, "{name}: {}", object.key());
            }
        }
        let passed = if case["expect"] == "output" {
            outputs += 1;
            let want = std::fs::read_to_string(at.join("expected.yaml")).unwrap();
            match &built {
                Ok(built) => {
                    let got = built.to_yaml();
                    let same_json = || {
                        let file = std::sync::Arc::new(RelPath::root());
                        let limits = plumb_yaml::Limits::default();
                        let read = |text: &str| plumb_yaml::read(text.as_bytes(), &file, &limits);
                        let values = |text: &str| {
                            read(text).map(|docs| {
                                docs.into_iter().map(|doc| doc.value).collect::<Vec<_>>()
                            })
                        };
                        values(&got).ok() == values(&want).ok()
                    };
                    json += usize::from(got == want || same_json());
                    bytes += usize::from(got == want);
                    if only.is_some() && got != want {
                        println!("=== {name}: got\n{got}=== want\n{want}===");
                    }
                    got == want
                }
                Err(error) => {
                    if only.is_some() {
                        println!("=== {name}: {error}\n=== want\n{want}===");
                    }
                    false
                }
            }
        } else {
            errors += 1;
            failed += usize::from(built.is_err());
            if only.is_some() {
                println!("=== {name}: {:?}", built.as_ref().map(plumb_kustomize::Built::to_yaml));
            }
            built.is_err()
        };
        match (passed, expected.remove(name.as_str())) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => surprises.push(format!("{name} passes, but is listed as a miss")),
            (false, None) => surprises.push(match built {
                Ok(_) => format!("{name} differs"),
                Err(error) => format!("{name} fails: {error}"),
            }),
        }
    }
    println!("{bytes}/{outputs} byte-equal, {json}/{outputs} JSON-equal, {failed}/{errors} errors");
    if only.is_none() {
        surprises.extend(expected.keys().map(|name| format!("{name} is listed and not there")));
        assert!(surprises.is_empty(), "{}", surprises.join("\n"));
    }
}
