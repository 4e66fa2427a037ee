//! Files that sops itself encrypted, each with what sops makes of it again. A case is a directory:
//! `plain.*`, the rules in `config.yaml`, `sealed.*`, which `cargo xtask generate --peers` makes when
//! it is not there, `expected.*`, which it always makes, and options for that in `decrypt`.
//!
//! All keys below `keys` were made for these tests and open nothing else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_core::RelPath;
use plumb_sops::{Error, Keys, Options, Shape, open};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn keys(names: &[&str]) -> Keys {
    let read = |name: &&str| std::fs::read(root().join("keys").join(name)).unwrap();
    let contents: Vec<Vec<u8>> = names.iter().map(read).collect();
    Keys::of_secret(names.iter().copied().zip(contents.iter().map(Vec::as_slice))).unwrap()
}

fn opened(name: &str, content: &[u8], keys: &Keys, shape: Shape) -> Result<Option<Vec<u8>>, Error> {
    let file = Arc::new(RelPath::parse(name).unwrap());
    let limits = plumb_yaml::Limits::default();
    open(&file, content, &Options { keys, shape, marks: &[], limits })
}

/// The names of the cases, each with the encrypted file and what is expected of it.
fn cases() -> Vec<(String, PathBuf, Vec<u8>)> {
    let mut cases: Vec<_> = std::fs::read_dir(root().join("golden"))
        .unwrap()
        .map(|case| {
            let case = case.unwrap();
            let file = |name: &str| {
                let mut files = std::fs::read_dir(case.path()).unwrap().map(|file| file.unwrap());
                files.find(|file| file.path().file_stem().unwrap() == name).unwrap().path()
            };
            let expected = std::fs::read(file("expected")).unwrap();
            (case.file_name().into_string().unwrap(), file("sealed"), expected)
        })
        .collect();
    cases.sort();
    assert!(cases.len() > 10);
    cases
}

#[test]
fn files_open_as_with_sops() {
    let keys = keys(&["age.agekey", "second.agekey", "curve.asc", "rsa.asc"]);
    for (case, file, expected) in cases() {
        let name = file.file_name().unwrap().to_str().unwrap();
        let sealed = std::fs::read(&file).unwrap();
        let found = opened(name, &sealed, &keys, Shape::Text)
            .unwrap_or_else(|error| panic!("{case}: {error}"))
            .unwrap_or_else(|| panic!("{case} is not seen to be encrypted"));
        if let (Ok(found), Ok(expected)) =
            (std::str::from_utf8(&found), std::str::from_utf8(&expected))
        {
            assert_eq!(found, expected, "{case}");
        }
        assert_eq!(found, expected, "{case}");
        assert!(opened(name, &found, &keys, Shape::Text).unwrap().is_none(), "{case}: once more");
    }
}

#[test]
fn lines_of_yaml_stay_where_they_were() {
    let keys = keys(&["age.agekey", "curve.asc", "rsa.asc"]);
    let file = Arc::new(RelPath::parse("a.yaml").unwrap());
    let values = |text: &[u8]| -> Vec<_> {
        plumb_yaml::read_any(text, &file, &plumb_yaml::Limits::default())
            .unwrap_or_else(|errors| panic!("{:?}", errors.problems))
            .into_iter()
            .map(|document| document.value.to_value().unwrap())
            .collect()
    };
    let mut count = 0;
    for (case, file, expected) in cases() {
        let sealed = std::fs::read_to_string(&file).unwrap();
        if file.extension().unwrap() != "yaml" {
            continue;
        }
        count += 1;
        let found = opened("a.yaml", sealed.as_bytes(), &keys, Shape::Lines).unwrap().unwrap();
        assert_eq!(values(&found), values(&expected), "{case}");
        let found = String::from_utf8(found).unwrap();
        assert_eq!(found.lines().count(), sealed.lines().count(), "{case}");
        let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
        for (before, after) in
            sealed.lines().zip(found.lines()).filter(|(_, line)| !line.is_empty())
        {
            if !before.trim_start().starts_with(['#', '-']) {
                assert_eq!(key(before), key(after), "{case}");
            }
        }
    }
    assert!(count > 5);
}

#[test]
fn each_key_alone_opens_what_is_for_it() {
    let sealed = |case: &str| {
        let dir = root().join("golden").join(case);
        std::fs::read(dir.join("sealed.yaml"))
            .or_else(|_| std::fs::read(dir.join("sealed.bin")))
            .unwrap()
    };
    let cases: [(&str, &str, &[&str]); 5] = [
        ("yaml", "a.yaml", &["age.agekey"]),
        ("yaml-pgp", "a.yaml", &["curve.asc"]),
        ("yaml-rsa", "a.yaml", &["rsa.asc"]),
        ("binary", "a.bin", &["age.agekey", "curve.asc"]),
        ("yaml-groups", "a.yaml", &[]),
    ];
    let all = ["age.agekey", "curve.asc", "rsa.asc", "second.agekey", "stranger.agekey"];
    for (case, name, those) in cases {
        for key in all {
            let result = opened(name, &sealed(case), &keys(&[key]), Shape::Text);
            assert_eq!(result.is_ok(), those.contains(&key), "{case} with {key}: {result:?}");
        }
    }
}

#[test]
fn any_two_of_three_groups_are_enough() {
    let three = ["age.agekey", "second.agekey", "curve.asc"];
    let sealed = std::fs::read(root().join("golden/yaml-groups/sealed.yaml")).unwrap();
    for i in 0..3 {
        let two: Vec<&str> = (0..3).filter(|j| *j != i).map(|j| three[j]).collect();
        let found = opened("a.yaml", &sealed, &keys(&two), Shape::Text).unwrap().unwrap();
        assert_eq!(found, b"a: one\n", "without {}", three[i]);
    }
    let error = opened("a.yaml", &sealed, &keys(&three[..1]), Shape::Text).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("keys for 1 of its 3 groups of keys are here, and 2 are needed"),
        "{text}"
    );
    assert!(text.contains("OpenPGP F24959A3CD0C7FFA1038B57035712D29928F1F4B"), "{text}");
}
