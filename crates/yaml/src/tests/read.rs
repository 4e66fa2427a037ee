//! What files read as: the rules of resource files, problems with their lines, places, limits.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::{Document, Limits, LineMark, Marking, YamlErrors, read, read_nodes};
use plumb_core::{FieldPath, RelPath, Step};
use serde_json::{Value, json};

fn file(name: &str) -> Arc<RelPath> {
    Arc::new(RelPath::parse(name).unwrap())
}

fn read_text(text: &str) -> Result<Vec<Document>, YamlErrors> {
    read(text.as_bytes(), &file("a.yaml"), &Limits::default())
}

fn values(text: &str) -> Vec<Value> {
    let documents = read_text(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    documents.into_iter().map(|d| d.value).collect()
}

/// All problems, a line each: `line:column message [hint]`.
fn problems(text: &[u8], limits: &Limits) -> String {
    let errors = read(text, &file("a.yaml"), limits).unwrap_err();
    let mut out = String::new();
    for error in &errors.problems {
        let place = &error.place;
        write!(out, "{}:{} {}", place.line, place.column, error.problem).unwrap();
        if let Some(hint) = error.hint() {
            write!(out, " [{hint}]").unwrap();
        }
        out.push('\n');
    }
    if errors.omitted > 0 {
        writeln!(out, "and {} more", errors.omitted).unwrap();
    }
    out
}

#[test]
fn one_field() {
    let cases = [
        ("v: 0644", json!(420)),
        ("v: 0o17", json!(15)),
        ("v: 0x1F", json!(31)),
        ("v: 0b101", json!(5)),
        ("v: 1_000", json!(1000)),
        ("v: yes", json!("yes")),
        ("v: 12:30:45", json!("12:30:45")),
        ("v: 1.0", json!(1)),
        ("v: \"1.0\"", json!("1.0")),
        ("v: '0644'", json!("0644")),
        ("v: 2001-12-14", json!("2001-12-14T00:00:00Z")),
        ("v: \"2001-12-14\"", json!("2001-12-14")),
        ("v: ", json!(null)),
        ("v:\ta", json!("a")),
        ("v: [tar, -xf, -]", json!(["tar", "-xf", "-"])),
        ("v: {-: -, a: '-,-'}", json!({"-": "-", "a": "-,-"})),
        ("v: \u{10fffd}", json!("\u{10fffd}")),
        ("v: ! 12", json!(12)),
        ("v: ! \"12\"", json!("12")),
        ("v: !", json!(null)),
        ("v: !Ref 12", json!("12")),
        ("v: !foo {a: 1}", json!({"a": 1})),
        ("v: !!seq [a]", json!(["a"])),
        ("v: !!str 123", json!("123")),
        ("v: !!int \"12\"", json!(12)),
        ("v: !!binary aGVsbG8=", json!("hello")),
        ("v: !<tag:yaml.org,2002:str> 1", json!("1")),
        ("v: <<", json!("<<")),
        ("v: [1, \"a\", null,]", json!([1, "a", null])),
        ("v: \"\\x41\\u00e9\\U0001F600\"", json!("Aé\u{1f600}")),
        ("v: |\n  a\n  b\n", json!("a\nb\n")),
        ("v: |\n  a", json!("a")),
        ("v: |-\n  a\n", json!("a")),
        ("v: |+\n  a\n\n", json!("a\n\n")),
        ("v: >\n  a\n  b\n", json!("a b\n")),
        ("v: a\n  b", json!("a b")),
        ("v: {a: 1, b}", json!({"a": 1, "b": null})),
        ("v:\n- 1\n- 2", json!([1, 2])),
        ("? v\n: 2", json!(2)),
        ("!!str v: 2", json!(2)),
        ("v: https://a.example/b#c", json!("https://a.example/b#c")),
        ("v: a # b", json!("a")),
    ];
    for (text, want) in cases {
        assert_eq!(values(text), [json!({"v": want})], "{text}");
    }
    assert_eq!(values("yes: 1\ny: 2"), [json!({"yes": 1, "y": 2})]);
    assert_eq!(values("!!str 1: 2"), [json!({"1": 2})]);
    assert_eq!(values("'<<': {a: 1}"), [json!({"<<": {"a": 1}})]);
}

#[test]
fn documents() {
    let a = || json!({"a": 1});
    let b = || json!({"b": 2});
    let cases = [
        ("", vec![]),
        ("# only a comment\n", vec![]),
        ("---\n---\n# c\n---\n", vec![]),
        ("null\n---\n~\n---\n{}\n", vec![]),
        ("a: 1\n---\nb: 2\n", vec![a(), b()]),
        ("--- # c\na: 1\n--- # d\nb: 2\n...\n", vec![a(), b()]),
        ("--- {a: 1}\n", vec![a()]),
        ("a: 1\r\n---\r\nb: 2\r\n", vec![a(), b()]),
        ("\u{feff}a: 1\n---\n\u{feff}b: 2\n", vec![a(), b()]),
        ("a: 1\n\u{feff}---\nb: 2\n", vec![a(), b()]),
        ("a: 1\n...\n---\nb: 2", vec![a(), b()]),
        ("{\"a\": 1}\n---\n{\"b\": 2}", vec![a(), b()]),
        ("{\"a\": 1}{\"b\":\n\t2}", vec![a(), b()]),
        ("{\"a\"\n: 1}", vec![a()]),
        ("{a: 1} # not JSON", vec![a()]),
        (
            r#"{"a": "\/ \ud83d\ude00", "b": [1.0, -2, true, null, {}, []]}"#,
            vec![json!({"a": "/ \u{1f600}", "b": [1, -2, true, null, {}, []]})],
        ),
    ];
    for (text, want) in cases {
        assert_eq!(values(text), want, "{text:?}");
    }
}

#[test]
fn anchors_and_merge_keys() {
    let cases = [
        ("a: &x [1]\nb: *x", json!({"a": [1], "b": [1]})),
        ("&k a: 1\nb: *k", json!({"a": 1, "b": "a"})),
        ("a: &x b\n*x : 1", json!({"a": "b", "b": 1})),
        (
            "a: &x {b: 1, c: 1}\nd:\n  <<: *x\n  b: 2",
            json!({"a": {"b": 1, "c": 1}, "d": {"b": 2, "c": 1}}),
        ),
        ("a: &x {b: 1}\nd:\n  b: 2\n  <<: *x", json!({"a": {"b": 1}, "d": {"b": 2}})),
        (
            "a: &x {b: 1}\nd: {<<: [*x, {b: 3, e: 4}]}",
            json!({"a": {"b": 1}, "d": {"b": 1, "e": 4}}),
        ),
        (
            "a: &x\n  <<: {z: 1}\n  k: 2\nd:\n  <<: *x",
            json!({"a": {"z": 1, "k": 2}, "d": {"z": 1, "k": 2}}),
        ),
        (
            "a: &x {m: {p: 1}}\nd: {<<: *x, m: {q: 2}}",
            json!({"a": {"m": {"p": 1}}, "d": {"m": {"q": 2}}}),
        ),
        ("<<: &z {q: 1}\nd: *z", json!({"q": 1, "d": {"q": 1}})),
        ("!!merge <<: {a: 2}", json!({"a": 2})),
        ("a: &x 1\nb: &x 2\nc: *x", json!({"a": 1, "b": 2, "c": 2})),
    ];
    for (text, want) in cases {
        assert_eq!(values(text), [want], "{text}");
    }
}

#[test]
fn annotations_become_strings() {
    let annotations = "a: 1\n    b: true\n    c: null\n    d: 1.5\n    e: 0x10\n    f: 2001-12-14\n    \
                       g: 1e3\n    h: !!binary aGVsbG8=\n    i:\n    j: ~\n    k: q\n    l: {m: 1}";
    let text = format!(
        "metadata:\n  labels: {{a: 1}}\n  annotations:\n    {annotations}\nspec:\n  metadata:\n    \
         annotations: {{a: 1}}\n"
    );
    let want = json!({
        "metadata": {
            "labels": {"a": 1},
            "annotations": {
                "a": "1", "b": "true", "c": "null", "d": "1.5", "e": "0x10", "f": "2001-12-14",
                "g": "1e3", "h": "aGVsbG8=", "i": "", "j": "~", "k": "q", "l": {"m": 1},
            },
        },
        "spec": {"metadata": {"annotations": {"a": 1}}},
    });
    assert_eq!(values(&text), [want]);
    let text = "metadata: {name: 123, annotations: {}, labels: {}}\n---\n\
                metadata: {annotations: null, labels: null}";
    assert_eq!(
        values(text),
        [json!({"metadata": {"name": 123, "labels": {}}}), json!({"metadata": {"labels": null}})]
    );
}

#[test]
fn lists_give_their_items_last() {
    let text = "\
kind: List
items:
- kind: A
  metadata: {annotations: {a: 1}}
- null
- {}
- kind: BList
  items:
  - kind: B
---
kind: C
---
kind: DList
spec: 1
---
kind: EList
items: []
---
kind: FList
items: null
";
    let documents = read_text(text).unwrap();
    let values: Vec<&Value> = documents.iter().map(|d| &d.value).collect();
    assert_eq!(
        values,
        [
            &json!({"kind": "C"}),
            &json!({"kind": "DList", "spec": 1}),
            &json!({"kind": "A", "metadata": {"annotations": {"a": "1"}}}),
            &json!({"kind": "B"}),
        ]
    );
    let place = |i: usize| {
        let place = &documents[i].place;
        (place.document, place.line, place.column)
    };
    assert_eq!([place(0), place(2), place(3)], [(1, 11, 1), (0, 3, 3), (0, 9, 5)]);
    // Paths start at the item.
    let path = FieldPath::keys(["metadata", "annotations", "a"]);
    assert_eq!(at(&documents[2], &path), Some((4, 28)));
}

/// Line and column of a field.
fn at(document: &Document, path: &FieldPath) -> Option<(u32, u32)> {
    document.fields.get(path).map(|place| (place.line, place.column))
}

#[test]
fn every_field_has_a_place() {
    let text = "\
# comment
kind: A
spec:
  ports:
  - name: x
    port: 1
  - {name: y, port: 2}
  text: |
    a
base: &b
  k: v
derived:
  <<: *b
  alias: *b
";
    let documents = read_text(text).unwrap();
    let document = &documents[0];
    assert_eq!((document.place.line, document.place.column), (2, 1));
    let place = |path: FieldPath| at(document, &path);
    let keys = |keys: &[&str]| FieldPath::keys(keys.iter().copied());
    let port = |i| keys(&["spec", "ports"]).join(Step::Index(i));
    let cases = [
        (keys(&["kind"]), (2, 1)),
        (keys(&["spec", "ports"]), (4, 3)),
        (port(0), (5, 5)),
        (port(0).join(Step::Key("port".into())), (6, 5)),
        (port(1).join(Step::Key("port".into())), (7, 15)),
        (keys(&["spec", "text"]), (8, 3)),
        (keys(&["derived", "k"]), (11, 3)),
        (keys(&["derived", "alias"]), (14, 3)),
        (keys(&["derived", "alias", "k"]), (11, 3)),
    ];
    for (path, want) in cases {
        assert_eq!(place(path.clone()), Some(want), "{path}");
    }
    assert_eq!(place(keys(&["derived", "<<"])), None);
    assert_eq!(document.fields.len(), 16);

    let json = "{\"kind\": \"Ä\", \"spec\":\n  {\"a\": [1, {\"b\": 2}]}}";
    let documents = read_text(json).unwrap();
    let b = keys(&["spec", "a"]).join(Step::Index(1)).join(Step::Key("b".into()));
    assert_eq!(at(&documents[0], &keys(&["spec"])), Some((1, 15)));
    assert_eq!(at(&documents[0], &b), Some((2, 14)));
}

#[test]
fn scalars_are_marked_with_the_line_of_their_key() {
    let text = "kind: A\ntext: |\n  a\nlist:\n- |\n  b\n- {a: b,\n  c: null}\n- *x\n";
    let text = text.replacen("kind: A", "kind: &x A", 1);
    let lines = |marking| {
        let documents = read_nodes(text.as_bytes(), &file("a.yaml"), &Limits::default(), marking);
        let mut documents = documents.unwrap();
        let mut lines = Vec::new();
        documents[0].value.each_scalar(&mut |scalar| {
            lines.push((scalar.text.to_string(), scalar.mark.get().map(|(_, line)| line)));
        });
        lines
    };
    let mark = LineMark::new(1, 10);
    let got = lines(Marking::Below(mark));
    let want = [("A", 11), ("b\n", 16), ("b", 17), ("null", 18), ("A", 19), ("a\n", 12)];
    assert_eq!(got, want.map(|(text, line)| (text.to_owned(), Some(line))));
    assert!(lines(Marking::All(mark)).iter().all(|(_, line)| *line == Some(10)));
    assert!(lines(Marking::None).iter().all(|(_, line)| line.is_none()));
}

#[test]
fn problems_with_their_lines() {
    let cases: [(&str, &str); 31] = [
        (
            "a: 1\nb: 2\na: 3",
            "3:1 key \"a\" is already defined on line 1 [remove one of the two]\n",
        ),
        (
            "a: 1\n\"a\": 3\na: 4",
            "2:1 key \"a\" is already defined on line 1 [remove one of the two]\n\
             3:1 key \"a\" is already defined on line 1 [remove one of the two]\n",
        ),
        (
            "<<: {a: 1}\n<<: {b: 1}",
            "2:1 key \"<<\" is already defined on line 1 [remove one of the two]\n",
        ),
        (
            "{\"a\": 1,\n \"a\": 2}",
            "2:2 key \"a\" is already defined on line 1 [remove one of the two]\n",
        ),
        ("1: a", "1:1 key \"1\" is a number, keys must be strings [quote it: \"1\"]\n"),
        (
            "a:\n  true: a\n  0644: b",
            "2:3 key \"true\" is a boolean, keys must be strings [quote it: \"true\"]\n\
             3:3 key \"0644\" is a number, keys must be strings [quote it: \"0644\"]\n",
        ),
        ("null: a", "1:1 key \"null\" is null, keys must be strings [quote it: \"null\"]\n"),
        (
            "2001-12-14: a",
            "1:1 key \"2001-12-14\" is a timestamp, keys must be strings [quote it: \"2001-12-14\"]\n",
        ),
        ("? [a]\n: 2", "1:3 a key must be a string, not a list\n"),
        ("{{a: 1}: 2}", "1:2 a key must be a string, not a map\n"),
        ("<<: 3", "1:5 `<<` takes a map or a list of maps\n"),
        ("<<: null", "1:5 `<<` takes a map or a list of maps\n"),
        ("<<: [{a: 1}, 3]", "1:5 `<<` takes a map or a list of maps\n"),
        (
            "a: *nope\nb: *nope",
            "1:4 the alias has no anchor before it in this document [quote the value if it is no alias]\n\
             2:4 the alias has no anchor before it in this document [quote the value if it is no alias]\n",
        ),
        (
            "a: &x 1\n---\nb: *x",
            "3:4 the alias has no anchor before it in this document [quote the value if it is no alias]\n",
        ),
        ("a: &x [*x]", "1:8 the alias repeats the value that contains it\n"),
        ("a: &x {<<: *x}", "1:12 the alias repeats the value that contains it\n"),
        ("a: !!int x", "1:10 the value is not !!int, as its tag says\n"),
        ("a: !!binary x", "1:13 the !!binary value is not base64 of UTF-8 text\n"),
        (
            "a: .inf\nb: .nan",
            "1:4 infinity and not-a-number have no JSON form [quote it if it is meant as a string]\n\
             2:4 infinity and not-a-number have no JSON form [quote it if it is meant as a string]\n",
        ),
        ("- a: 1", "1:1 a manifest must be a map, not a list\n"),
        ("[1]", "1:1 a manifest must be a map, not a list\n"),
        ("text", "1:1 a manifest must be a map, not a string\n"),
        ("kind: FooList\nitems: 3", "2:8 items of a FooList must be a list, not a number\n"),
        ("kind: List\nitems:\n- 1\n- kind: A", "3:3 a manifest must be a map, not a number\n"),
        (
            "a: 1\n--- text\n---\nb: .inf",
            "2:5 there is content behind `---` on the same line [put it on the next line]\n\
             4:4 infinity and not-a-number have no JSON form [quote it if it is meant as a string]\n",
        ),
        (
            "%YAML 1.2\n---\na: 1",
            "1:1 YAML directives are not allowed [remove the line that starts with %]\n",
        ),
        (
            "a:\n\tb: 1",
            "2:2 invalid YAML: tabs disallowed within this context (block indentation) [indent with spaces]\n",
        ),
        (
            "a: [1\n---\nb: c: d\n---\ne: 1\n---\nf: 'g\n",
            "1:4 invalid YAML: unclosed bracket '['\n\
             3:5 invalid YAML: mapping values are not allowed in this context\n\
             7:4 invalid YAML: unclosed quote\n",
        ),
        (
            "a: \"\\q\"",
            "1:4 invalid YAML: while parsing a quoted scalar, found unknown escape character\n",
        ),
        ("{\"a\": \"\\ud83d\"}", "1:7 invalid JSON: a string has half of a surrogate pair\n"),
    ];
    let mut wrong = String::new();
    for (text, want) in cases {
        let got = problems(text.as_bytes(), &Limits::default());
        if got != want {
            write!(wrong, "--- {text}\n got {got} want {want}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(
        problems(b"a: 1\nb: \xff", &Limits::default()),
        "2:1 the file is not UTF-8 text [save the file as UTF-8]\n"
    );
}

#[test]
fn keys_of_large_maps_are_unique_too() {
    let mut text = String::from("a: 0\n<<: {b: 0}\n");
    for i in 0..100 {
        writeln!(text, "k{i}: {i}").unwrap();
    }
    text += "k0: 1\na: 1\n\"<<\": 1\nk99: 1\nlast: 1\n";
    let repeated = |line, key, first| {
        format!("{line}:1 key {key:?} is already defined on line {first} [remove one of the two]\n")
    };
    let want = [
        repeated(103, "k0", 3),
        repeated(104, "a", 1),
        repeated(105, "<<", 2),
        repeated(106, "k99", 102),
    ];
    assert_eq!(problems(text.as_bytes(), &Limits::default()), want.concat());
}

#[test]
fn json_files_get_json_errors() {
    let errors = read(b"{\"a\": 1,\n \"b\" 2}", &file("a.json"), &Limits::default()).unwrap_err();
    assert_eq!(errors.to_string(), "a.json:2: invalid JSON: expected `:`");
    // What YAML takes is taken, whatever the name.
    assert!(read(b"{\"a\": 1,}", &file("a.json"), &Limits::default()).is_ok());
}

#[test]
fn sound_documents_come_with_the_problems() {
    let errors = read_text("a: 1\n---\nb: [\n---\nc: 3\n").unwrap_err();
    let sound: Vec<&Value> = errors.sound.iter().map(|d| &d.value).collect();
    assert_eq!(sound, [&json!({"a": 1}), &json!({"c": 3})]);
    assert_eq!(errors.sound[1].place.document, 2);
}

#[test]
fn many_problems_are_counted() {
    let text = "1: a\n".repeat(150);
    let errors = read_text(&text).unwrap_err();
    assert_eq!((errors.problems.len(), errors.omitted), (100, 50));
    assert!(errors.to_string().ends_with("(and 149 more)"), "{errors}");
}

#[test]
fn no_error_quotes_a_value() {
    let cases = [
        "data: !!int hunter2",
        "data: *hunter2",
        "data: !!binary hunter2",
        "data: 'hunter2",
        "data: hunter2: x",
        "data: \"hunter2\\q\"",
        "data: [hunter2",
        "{\"data\": \"hunter2\\ud83d\"}",
        "{\"data\": \"hunter2\" \"hunter2\"}",
        "data: |\n   hunter2\n  hunter2\n x",
        "hunter2",
    ];
    for text in cases {
        let errors = read_text(text).unwrap_err();
        let all = format!("{errors} {:?}", errors.problems);
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn limits() {
    let small = Limits { bytes: 400, depth: 5, nodes: 30, documents: 3 };
    let cases = [
        ("a".repeat(401), "1:1 more than 400 bytes\n"),
        (
            format!("a: {}{}", "[".repeat(5), "]".repeat(5)),
            "1:8 maps and lists are nested more than 5 deep\n",
        ),
        ("a: &a [[[1]]]\nb: [[*a]]".into(), "1:1 maps and lists are nested more than 5 deep\n"),
        (
            format!("a: [{}]", "1,".repeat(40)),
            "1:4 more than 30 values once aliases are expanded\n",
        ),
        (
            "a: &a [1,1,1,1,1]\nb: &b [*a,*a]\nc: [*b,*b]".into(),
            "1:1 more than 30 values once aliases are expanded\n",
        ),
        (
            "a: &a xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\nb: [*a,*a,*a,*a,*a,*a,*a,*a]"
                .into(),
            "1:1 more than 400 bytes\n",
        ),
        (
            "a: 1\n---\na: 1\n---\na: 1\n---\na: 1\n---\na: 1\n".into(),
            "7:1 more than 3 documents in one file\n",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(problems(text.as_bytes(), &small), want, "{text}");
    }
    for text in ["a: [[[[1]]]]", "a: 1\n---\na: 1\n---\na: 1\n"] {
        assert!(read(text.as_bytes(), &file("a"), &small).is_ok(), "{text}");
    }
}

#[test]
fn bombs_and_pits_are_refused() {
    let mut laughs = String::from("a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n");
    for i in 1..30 {
        let aliases = vec![format!("*a{}", i - 1); 9].join(",");
        writeln!(laughs, "a{i}: &a{i} [{aliases}]").unwrap();
    }
    let merges = laughs.replace("a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]", "a0: &a0 {k: v}");
    let merges = merges.replace('[', "{<<: [").replace(']', "]}");
    let cases = [
        laughs,
        merges,
        "[".repeat(1_000_000),
        "{\"a\":".repeat(1_000_000),
        format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        "- ".repeat(500_000),
        "? ".repeat(500_000),
        (0..2000).fold(String::new(), |mut text, i| {
            writeln!(text, "{}a:", " ".repeat(i)).unwrap();
            text
        }),
        "&a ".repeat(100_000),
        "!!str ".repeat(100_000),
        "\"".repeat(100_001),
        "a: '".repeat(10_000),
    ];
    for text in cases {
        assert!(read_text(&text).is_err(), "{}", &text[..40]);
    }
}
