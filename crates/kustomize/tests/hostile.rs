//! Small kustomizations that ask for much: each ends soon, with an error that names the limit and
//! the entry that passed it. The messages lie beside those of `errors.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;

use plumb_core::{MemTree, RelPath};
use plumb_kustomize::{Limits, Options, Problem, build};

const CUSTOM: &str = "apiVersion: example.org/v1\nkind: Custom\nmetadata: {name: a}\nspec:\n  list: [a, a, a, a, a]\n";

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect::<Vec<_>>().concat()
}

fn config_maps(count: usize) -> String {
    lines(count, |i| {
        format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a{i}}}\ndata: {{a: b}}\n")
    })
}

/// What a kustomization with these fields and objects may add to them is little.
fn little() -> Options {
    Options { limits: Limits { made: 10_000, ..Limits::default() }, ..Options::default() }
}

fn message(fields: &str, objects: &str, more: &[(&str, &str)], options: &Options) -> String {
    let tree = MemTree::new()
        .file("kustomization.yaml", format!("resources:\n- a.yaml\n{fields}\n"))
        .file("a.yaml", objects);
    let tree = more.iter().fold(tree, |tree, (path, text)| tree.file(path, *text));
    let error = build(&tree, &RelPath::root(), options, &|| false).unwrap_err();
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}\n"),
        None => format!("{error}\n"),
    }
}

/// Compares a message with the file of its case.
fn check(name: &str, message: &str) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors").join(name);
    if std::env::var_os("PLUMB_BLESS").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("expected.txt"), message).unwrap();
    }
    let want = std::fs::read_to_string(dir.join("expected.txt")).unwrap_or_default();
    assert_eq!(message, want, "{name}");
}

#[test]
fn long_texts_in_many_places() {
    let long = "x".repeat(3_000);
    let objects = config_maps(5);
    let merge = format!("'{{kind: A, metadata: {{name: a}}, a: {long}}}'");
    let json = format!("'[{{\"op\": \"add\", \"path\": \"/data/b\", \"value\": \"{long}\"}}]'");
    for (name, fields) in [
        ("bytes-of-labels", format!("commonLabels: {{a: {long}}}")),
        ("bytes-of-annotations", format!("commonAnnotations: {{a: {long}}}")),
        ("bytes-of-prefixes", format!("namePrefix: {long}")),
        ("bytes-of-namespaces", format!("namespace: {long}")),
        ("bytes-of-merge-patches", format!("patches:\n- target: {{kind: .*}}\n  patch: {merge}")),
        ("bytes-of-json-patches", format!("patches:\n- target: {{kind: .*}}\n  patch: {json}")),
    ] {
        check(name, &message(&fields, &objects, &[], &little()));
    }
    let images = format!("images:\n- {{name: nginx, newName: {long}}}");
    let containers = format!("{CUSTOM}  containers: [{}]\n", ["{image: nginx}"; 5].join(", "));
    check("bytes-of-images", &message(&images, &containers, &[], &little()));
    let fields = format!(
        "replacements:\n- sourceValue: {long}\n  targets: [{{select: {{kind: .*}}, fieldPaths: ['spec.list.*']}}]"
    );
    check("bytes-of-replacements", &message(&fields, CUSTOM, &[], &little()));
    let fields = "configurations: [fields.yaml]\nvars:\n- name: V\n  objref: {apiVersion: example.org/v1, kind: Custom, name: a}\n  fieldref: {fieldPath: spec.long}";
    let objects = format!("{CUSTOM}  long: {long}\n  text: {}\n", "$(V)".repeat(5));
    let specs = ("fields.yaml", "varReference: [{kind: Custom, path: spec/text}]\n");
    check("bytes-of-variables", &message(fields, &objects, &[specs], &little()));
}

#[test]
fn copies_of_copies() {
    // The second half of a list becomes a copy of the first, over and over.
    let copies = lines(60, |i| format!("- {{op: copy, from: /spec, path: /spec/copy{i}}}\n"));
    let fields = "patches:\n- target: {kind: .*}\n  path: copies.yaml";
    let more = [("copies.yaml", copies.as_str())];
    // With the defaults, which stop it before memory is short.
    check("copies-that-nest", &message(fields, CUSTOM, &more, &Options::default()));
    let copies = "- {op: copy, from: /spec/list, path: /spec/list/-}\n".repeat(60);
    let more = [("copies.yaml", copies.as_str())];
    check("copies-of-copies", &message(fields, CUSTOM, &more, &little()));
}

#[test]
fn objects_that_nest_more_with_each_step() {
    let add = |i| format!("- {{op: add, path: /spec{}, value: {{a: b}}}}\n", "/a".repeat(i));
    let adds = lines(300, add);
    let fields = "patches:\n- target: {kind: .*}\n  path: adds.yaml";
    let more = [("adds.yaml", adds.as_str())];
    check("nesting-by-json-patches", &message(fields, CUSTOM, &more, &Options::default()));

    let path = vec!["a"; 300].join(".");
    let fields = format!(
        "replacements:\n- sourceValue: x\n  targets: [{{select: {{kind: .*}}, fieldPaths: [{path}], options: {{create: true}}}}]"
    );
    check(
        "nesting-by-the-path-of-a-replacement",
        &message(&fields, CUSTOM, &[], &Options::default()),
    );

    let into_itself = "- source: {kind: Custom, fieldPath: spec}\n  targets: [{select: {kind: .*}, fieldPaths: [spec.a.b], options: {create: true}}]\n";
    let fields = format!("replacements:\n{}", into_itself.repeat(200));
    check("nesting-by-replacements", &message(&fields, CUSTOM, &[], &Options::default()));

    let specs = format!("commonLabels:\n- path: {}\n  create: true\n", vec!["a"; 300].join("/"));
    let fields = "configurations: [fields.yaml]\ncommonLabels: {a: b}";
    let more = [("fields.yaml", specs.as_str())];
    check("nesting-by-field-specs", &message(fields, CUSTOM, &more, &Options::default()));
}

#[test]
fn what_is_compared_with_everything() {
    let specs = (0..10_001)
        .fold("commonLabels:\n".to_owned(), |text, i| text + "- path: a/b" + &i.to_string() + "\n");
    let more = [("fields.yaml", specs.as_str())];
    let fields = "configurations:\n- fields.yaml";
    check("field-specs-without-end", &message(fields, CUSTOM, &more, &Options::default()));

    let selector = vec!["a"; 1_001].join(",");
    let fields = format!("patches:\n- target: {{labelSelector: '{selector}'}}\n  patch: '[]'");
    check("conditions-without-end", &message(&fields, CUSTOM, &[], &Options::default()));

    // Half of the ports lack a protocol, so that none can be found by its keys alone.
    let ports = (0..3_000).fold(String::new(), |text, i| {
        text + &format!("  - {{port: {i}}}\n  - {{port: {i}, protocol: P{i}}}\n")
    });
    let service =
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec:\n  ports:\n{ports}");
    let fields = "patches:\n- patch: |\n    apiVersion: v1\n    kind: Service\n    metadata: {name: a}\n    spec: {ports: [{port: 1}]}";
    check("merged-items-without-end", &message(fields, &service, &[], &Options::default()));
}

#[test]
fn definitions_that_refer_to_each_other() {
    let kind = |properties: &str| {
        format!(
            r#"{{"Schema": {{"properties": {{"kind": {{}}, "apiVersion": {{}}, "metadata": {{}}, {properties}}}}}}}"#
        )
    };
    let circle = format!(r#"{{"A": {}}}"#, kind(r#""a": {"$ref": "A"}"#));
    let fields = "crds:\n- definitions.json";
    let more = [("definitions.json", circle.as_str())];
    check("definitions-in-a-circle", &message(fields, CUSTOM, &more, &Options::default()));

    // Each refers twice to the next.
    let definitions: Vec<String> = (0..40)
        .map(|i| {
            let next = format!(r#"{{"$ref": "A{}"}}"#, i + 1);
            format!(r#""A{i}": {}"#, kind(&format!(r#""a": {next}, "b": {next}"#)))
        })
        .collect();
    let definitions = format!("{{{}}}", definitions.join(", "));
    let more = [("definitions.json", definitions.as_str())];
    check("definitions-without-end", &message(fields, CUSTOM, &more, &Options::default()));
}

#[test]
fn it_is_asked_for_each_object_whether_to_stop() {
    let every_step = "\
namePrefix: p-
namespace: ns
commonLabels: {a: b}
commonAnnotations: {a: b}
images: [{name: nginx, newTag: '2'}]
patches:
- target: {kind: .*}
  patch: '{kind: A, metadata: {name: a}, b: c}'
- target: {kind: .*}
  patch: '[{\"op\": \"add\", \"path\": \"/d\", \"value\": \"1\"}]'
replacements: [{sourceValue: x, targets: [{select: {kind: .*}, fieldPaths: [d]}]}]
vars: [{name: V, objref: {apiVersion: v1, kind: ConfigMap, name: a0}}]
";
    let tree = MemTree::new()
        .file("kustomization.yaml", format!("resources: [a.yaml]\n{every_step}"))
        .file("a.yaml", config_maps(100));
    let asked = Cell::new(0);
    let count = || {
        asked.set(asked.get() + 1);
        false
    };
    build(&tree, &RelPath::root(), &Options::default(), &count).unwrap();
    let all = asked.get();
    assert!(all >= 10 * 100, "asked {all} times for ten steps on 100 objects");
    // Wherever it is stopped, it ends as interrupted.
    for stop in (0..all).step_by(37) {
        asked.set(0);
        let interrupted = || {
            asked.set(asked.get() + 1);
            asked.get() > stop
        };
        let error = build(&tree, &RelPath::root(), &Options::default(), &interrupted).unwrap_err();
        assert!(matches!(error.problem(), Problem::Interrupted), "{error}");
        assert_eq!(asked.get(), stop + 1, "it is not asked again");
    }
}
