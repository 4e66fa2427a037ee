//! What values are written as, and that reading gives them back.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{Limits, read, to_string, to_string_all};
use plumb_core::RelPath;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

fn read_back(text: &str) -> Vec<Value> {
    let file = Arc::new(RelPath::parse("a.yaml").unwrap());
    read(text.as_bytes(), &file, &Limits::default())
        .unwrap_or_else(|e| panic!("{e}\n{text}"))
        .into_iter()
        .map(|document| document.value)
        .collect()
}

#[test]
fn scalars() {
    let long = "word ".repeat(20) + "end";
    let folded = format!("v: {}word\n  word word word word end\n", "word ".repeat(15));
    let cases = [
        (json!("a"), "v: a\n"),
        (json!(""), "v: \"\"\n"),
        (json!(null), "v: null\n"),
        (json!(true), "v: true\n"),
        (json!(12), "v: 12\n"),
        (json!(1000.0), "v: 1000\n"),
        (json!(1.5), "v: 1.5\n"),
        (json!(1e20), "v: 1e+20\n"),
        (json!(1_234_567.5), "v: 1.2345675e+06\n"),
        (json!(18_446_744_073_709_551_615u64), "v: 18446744073709551615\n"),
        (json!("true"), "v: \"true\"\n"),
        (json!("yes"), "v: \"yes\"\n"),
        (json!("y"), "v: \"y\"\n"),
        (json!("off"), "v: \"off\"\n"),
        (json!("null"), "v: \"null\"\n"),
        (json!("~"), "v: \"~\"\n"),
        (json!("1"), "v: \"1\"\n"),
        (json!("0644"), "v: \"0644\"\n"),
        (json!("1_000"), "v: \"1_000\"\n"),
        (json!("1.10"), "v: \"1.10\"\n"),
        (json!("12:30:45"), "v: \"12:30:45\"\n"),
        (json!("2001-12-14"), "v: \"2001-12-14\"\n"),
        (json!("1e400"), "v: 1e400\n"),
        (json!("10.0.0.1"), "v: 10.0.0.1\n"),
        (json!("a: b"), "v: 'a: b'\n"),
        (json!("a:b"), "v: a:b\n"),
        (json!("a #b"), "v: 'a #b'\n"),
        (json!("#a"), "v: '#a'\n"),
        (json!("- a"), "v: '- a'\n"),
        (json!("-a"), "v: -a\n"),
        (json!("--- a"), "v: '--- a'\n"),
        (json!("*"), "v: '*'\n"),
        (json!("{a}"), "v: '{a}'\n"),
        (json!("it's"), "v: it's\n"),
        (json!("'it's'"), "v: '''it''s'''\n"),
        (json!(" a"), "v: ' a'\n"),
        (json!("a "), "v: 'a '\n"),
        (json!("a\tb"), "v: \"a\\tb\"\n"),
        (json!("a\u{7f}\u{0}\u{1}\u{1b}"), "v: \"a\\x7F\\0\\x01\\e\"\n"),
        (json!("é\u{1f600}"), "v: \"é\\U0001F600\"\n"),
        (json!("\u{feff}ab"), "v: \"\\uFEFF\\x61\\x62\"\n"),
        (json!("a\u{2028}b"), "v: \"a\\Lb\"\n"),
        (json!("a\nb"), "v: |-\n  a\n  b\n"),
        (json!("a\nb\n"), "v: |\n  a\n  b\n"),
        (json!("a\n\n"), "v: |+\n  a\n\n"),
        (json!("\n"), "v: |2+\n\n"),
        (json!("  a\nb"), "v: |2-\n    a\n  b\n"),
        (json!("a \nb"), "v: \"a \\nb\"\n"),
        (json!("a\nb "), "v: \"a\\nb \"\n"),
        (json!("a\r\nb"), "v: \"a\\r\\nb\"\n"),
        (json!({}), "v: {}\n"),
        (json!([]), "v: []\n"),
        (
            json!([1, [2, [3]], {"a": 1, "b": [4]}]),
            "v:\n- 1\n- - 2\n  - - 3\n- a: 1\n  b:\n  - 4\n",
        ),
        (json!({"a": {"b": 1}}), "v:\n  a:\n    b: 1\n"),
        (json!(["a\nb\n", "c"]), "v:\n- |\n  a\n  b\n- c\n"),
        (json!(long), &folded),
    ];
    for (value, want) in cases {
        let value = json!({"v": value});
        let text = to_string(&value);
        assert_eq!(text, want);
        // Whole floats come back as integers; that is the dialect.
        if value["v"] != json!(1000.0) {
            assert_eq!(read_back(&text), [value]);
        }
    }
}

#[test]
fn keys_and_documents() {
    let value =
        json!({"f10": 1, "f9": 2, "b": 3, "yes": 4, "<<": 5, "": 6, "1": 7, "a b": 8, "a: b": 9});
    let text = to_string(&value);
    assert_eq!(
        text,
        "\"\": 6\n\"<<\": 5\n\"1\": 7\na b: 8\n'a: b': 9\nb: 3\nf9: 2\nf10: 1\n\"yes\": 4\n"
    );
    assert_eq!(read_back(&text), [value]);

    let long = "k".repeat(129);
    let value = json!({&long: {"a": 1}, "two\nlines": [1], "x": {"z\n": "t"}});
    let text = to_string(&value);
    assert_eq!(
        text,
        format!("? {long}\n: a: 1\n? |-\n  two\n  lines\n: - 1\nx:\n  ? |\n    z\n  : t\n")
    );
    assert_eq!(read_back(&text), [value]);

    let both = [json!({"a": 1}), json!({"b": 2})];
    assert_eq!(to_string_all(&both), "a: 1\n---\nb: 2\n");
    assert_eq!(to_string_all(&[]), "");
}

/// Texts that YAML readers trip over, and any others.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,6}",
        "[-+.0-9eEx_:oObTZ]{0,8}",
        "[ \\n\\t#:,'\"!&*?|>%@`{}\\[\\]<=~yYnN-]{0,8}",
        "[a-c \\n\\r\u{85}\u{2028}\u{feff}]{0,12}",
        "([a-z ]{1,9} ){0,30}",
        "([a-z'\" :]{1,9} ){0,30}x",
        any::<String>(),
        prop::sample::select(vec![
            "yes", "No", "on", "y", "null", "~", "<<", "=", "---", "...", ".inf"
        ])
        .prop_map(str::to_owned),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Whole floats come back as integers; that is the dialect.
        any::<f64>()
            .prop_filter("finite, not whole", |f| f.is_finite() && f.fract() != 0.0)
            .prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any_text(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

#[test]
fn what_is_written_reads_back_the_same() {
    // The seed is fixed: a failure repeats, and a run says nothing that the last one did not.
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[42; 32]);
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, rng)
        .run(&any_value(), |value| {
            let value = json!({"v": value});
            let text = to_string(&value);
            prop_assert_eq!(read_back(&text), vec![value], "{}", text);
            Ok(())
        })
        .unwrap();
}

/// Where the conformance data is, if it is.
fn conformance() -> Option<PathBuf> {
    let root = std::env::var_os("PLUMB_CONFORMANCE_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
        PathBuf::from,
    );
    if root.is_dir() {
        return Some(root);
    }
    println!("skipped: no conformance data at {}", root.display());
    None
}

#[test]
fn kustomize_output_is_written_byte_for_byte() {
    let Some(root) = conformance() else { return };
    let file = Arc::new(RelPath::parse("expected.yaml").unwrap());
    let (mut equal, mut different) = (0, Vec::new());
    for case in std::fs::read_dir(root.join("kustomize")).unwrap() {
        let path = case.unwrap().path().join("expected.yaml");
        let Ok(expected) = std::fs::read_to_string(&path) else {
            continue;
        };
        // Documents are read one by one, so that those of kind List stay whole.
        let mut got = Vec::new();
        let mut problem = None;
        for document in expected.split("\n---\n") {
            let document = document.replace("kind: List\n", "kind: Lis_t\n");
            match read(document.as_bytes(), &file, &Limits::default()) {
                Ok(documents) => got.extend(documents.into_iter().map(|d| d.value)),
                Err(error) => problem = Some(error.to_string()),
            }
        }
        let got = to_string_all(&got).replace("kind: Lis_t\n", "kind: List\n");
        if got == expected {
            equal += 1;
        } else {
            different.push((path, problem, got));
        }
    }
    println!("{equal} equal, {} different", different.len());
    for (path, problem, got) in &different {
        println!("{} {problem:?}\n{got}", path.display());
    }
    assert!(different.is_empty());
}
