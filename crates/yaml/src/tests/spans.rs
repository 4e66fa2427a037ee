use std::sync::Arc;

use plumb_core::RelPath;

use crate::{Limits, Part, Spanned, quote, read_any, read_spans, spell};

fn file() -> Arc<RelPath> {
    Arc::new(RelPath::parse("a.yaml").unwrap())
}

/// Each scalar with its path, and the bytes that it says it has.
fn scalars<'t>(text: &'t str, node: &Spanned, path: &str, out: &mut Vec<(String, &'t str)>) {
    match &node.part {
        Part::Map(fields) => fields.iter().for_each(|(key, value)| {
            assert!(text[key.span.clone()].contains(key.text.as_str()));
            scalars(text, value, &format!("{path}/{}", key.text), out);
        }),
        Part::List(items) => {
            for item in items {
                scalars(text, item, &format!("{path}/-"), out);
            }
        }
        Part::Scalar(_) => out.push((path.to_owned(), &text[node.span.clone()])),
    }
}

#[test]
fn each_part_knows_its_bytes() {
    let text = "# ä\na: ü # one\n\"b\": [x, 'y', {c: \"z\"}]\nd:\n  - |\n    block\n  - e: !!str 5\n    f:\n---\ng: ß\n";
    let documents = read_spans(text, &file(), &Limits::default()).unwrap();
    assert_eq!(documents.len(), 2);
    let mut found = Vec::new();
    for document in &documents {
        scalars(text, document.root.as_ref().unwrap(), "", &mut found);
    }
    let found: Vec<_> = found.iter().map(|(path, text)| (path.as_str(), text.trim_end())).collect();
    assert_eq!(
        found,
        [
            ("/a", "ü"),
            ("/b/-", "x"),
            ("/b/-", "'y'"),
            ("/b/-/c", "\"z\""),
            ("/d/-", "block"),
            ("/d/-/e", "5"),
            ("/d/-/f", ""),
            ("/g", "ß"),
        ]
    );
    let comments: Vec<_> = documents[0].comments.iter().map(|bytes| &text[bytes.clone()]).collect();
    assert_eq!(comments, ["# ä", "# one"]);
    let root = documents[0].root.as_ref().unwrap();
    assert_eq!(root.get("a").unwrap().text(), Some("ü"));
    assert_eq!(root.get("d").unwrap().line, 5);
    assert_eq!(&text[..root.get("a").unwrap().end()], "# ä\na: ü");
}

#[test]
fn what_has_no_place_or_is_too_much_is_refused() {
    let limits = Limits { bytes: 40, depth: 3, nodes: 6, documents: 2 };
    let cases = [
        ("a: &x 1\nb: *x\n", "a.yaml:2: invalid YAML: an alias cannot be read here"),
        ("a: *x\n", "a.yaml:1: invalid YAML: an alias cannot be read here"),
        ("1: a\n", "a.yaml:1: key \"1\" is not a string, keys must be strings"),
        ("? [a]\n: b\n", "a.yaml:1: a key must be a string, not a map or a list"),
        ("a: [[[[1]]]]\n", "a.yaml:1: maps and lists are nested more than 3 deep"),
        ("[1,2,3,4,5,6,7]\n", "a.yaml:1: more than 6 values once aliases are expanded"),
        ("a: 1\n---\nb: 1\n---\nc: 1\n---\nd: 1\n", "a.yaml:6: more than 2 documents in one file"),
        ("%YAML 1.1\n---\na: 1\n", "a.yaml:1: YAML directives are not allowed"),
        ("a: b: c\n", "a.yaml:1: invalid YAML: "),
        ("01234567890123456789012345678901234567890123456789", "a.yaml:1: more than 40 bytes"),
    ];
    for (text, want) in cases {
        let error = read_spans(text, &file(), &limits).unwrap_err().to_string();
        assert!(error.starts_with(want), "{text}: {error}");
    }
}

#[test]
fn what_is_spelled_reads_as_it_was() {
    let texts = [
        "",
        "a",
        "yes",
        "5",
        "<<",
        "a: b",
        "- a",
        "it's",
        "a # b",
        " a",
        "a\tb",
        "é\u{1F600}",
        "a\nb",
        "a\nb\n",
        "a\n\n",
        "\n",
        "\na",
        " a\n b",
        "a \nb",
        "a\tb\nc",
        "\u{feff}",
        "---",
        "null",
        "~",
        "1:20",
        "{}",
        "a\r\nb",
        "a\u{85}b",
        "\"",
        "'",
        "|",
        "a\n  b\n c\n",
    ];
    for text in texts {
        let document = |value: String| {
            let yaml = format!("a:\n    b: {value}\n    c: d\n");
            let documents = read_any(yaml.as_bytes(), &file(), &Limits::default());
            let documents =
                documents.unwrap_or_else(|errors| panic!("{yaml}{:?}", errors.problems));
            documents[0].value.at(&["a", "b"]).unwrap().to_owned().to_value().unwrap()
        };
        for value in [quote(text), spell(text, None), spell(text, Some((8, 4)))] {
            assert_eq!(document(value.clone()), text, "{value}");
        }
        assert!(!quote(text).contains('\n') && !spell(text, None).contains('\n'), "{text:?}");
    }
}
