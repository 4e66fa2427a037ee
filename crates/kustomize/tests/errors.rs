//! What people are told when something is wrong: each message, and its hint.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use plumb_core::{MemTree, RelPath};
use plumb_kustomize::{Limits, Options, build};

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n";

fn message(tree: &MemTree, path: &str, options: &Options) -> String {
    let error = build(tree, &RelPath::parse(path).unwrap(), options, &|| false).unwrap_err();
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

fn check(files: &[(&str, &str)], want: &str) {
    let tree = files.iter().fold(MemTree::new(), |tree, (path, text)| tree.file(path, *text));
    assert_eq!(message(&tree, "", &Options::default()), want);
}

fn kustomization(text: &str, want: &str) {
    check(&[("kustomization.yaml", text), ("a.yaml", CONFIG_MAP)], want);
}

#[test]
fn fields_of_the_kustomization() {
    kustomization(
        "resources: [a.yaml]\nnameprefx: x-\n",
        "kustomization.yaml:2: unknown field \"nameprefx\"\nhint: did you mean \"namePrefix\"?",
    );
    kustomization(
        "resources:\n- a.yaml\nimages:\n- name: nginx\n  newTag: 1.10\n",
        "kustomization.yaml:5: images[0].newTag must be a string, not a number\nhint: put quotes around the value",
    );
    kustomization(
        "resources: a.yaml\n",
        "kustomization.yaml:1: resources must be a list, not a string",
    );
    kustomization("kind: Kustomization\n", "kustomization.yaml:1: the kustomization is empty");
}

#[test]
fn files_and_directories() {
    kustomization(
        "resources:\n- b.yaml\n",
        "kustomization.yaml:1: cannot load \"b.yaml\": b.yaml does not exist",
    );
    kustomization(
        "resources: [.]\n",
        "kustomization.yaml:1: . is included by ., which it contains or is\nhint: a directory cannot include itself or one above it",
    );
    check(
        &[("kustomization.yaml", "resources: [a]\n"), ("Kustomization", "resources: [a]\n")],
        ". has more than one kustomization: kustomization.yaml, Kustomization\nhint: keep one of them",
    );
    check(
        &[("kustomization.yaml", "resources: [base]\n"), ("base/a.yaml", CONFIG_MAP)],
        "kustomization.yaml: base has no kustomization.yaml, kustomization.yml or Kustomization\nhint: add a kustomization.yaml that lists what to build",
    );
    let tree = MemTree::new()
        .file("overlay/kustomization.yaml", "resources: [../a.yaml]\n")
        .file("a.yaml", CONFIG_MAP);
    assert_eq!(
        message(&tree, "overlay", &Options::default()),
        "overlay/kustomization.yaml:1: cannot load \"../a.yaml\": file a.yaml is not in or below overlay\nhint: move the file, or include its directory as a base with a kustomization"
    );
    let tree = tree.file("out/kustomization.yaml", "resources: [../../etc]\n");
    assert_eq!(
        message(&tree, "out", &Options::default()),
        "out/kustomization.yaml:1: cannot load \"../../etc\": path \"../../etc\" leaves the repository"
    );
}

#[test]
fn objects_and_patches() {
    check(
        &[
            ("kustomization.yaml", "resources: [a.yaml, b.yaml]\n"),
            ("a.yaml", CONFIG_MAP),
            ("b.yaml", CONFIG_MAP),
        ],
        "b.yaml:1: ConfigMap a is already defined at a.yaml:1\nhint: remove one of the two, or patch the first",
    );
    kustomization(
        "resources: [a.yaml]\npatches:\n- patch: |\n    apiVersion: v1\n    kind: Secret\n    metadata: {name: a}\n",
        "kustomization.yaml:3: no object is Secret a, so the patch has no target",
    );
    kustomization(
        "resources: [a.yaml]\npatches:\n- patch: just text\n",
        "kustomization.yaml:3: the patch is no object: a manifest must be a map, not a string",
    );
    kustomization(
        "resources: [a.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |\n    - {op: remove, path: /data/x}\n",
        "kustomization.yaml:3: ConfigMap a: path \"/data/x\" leads nowhere in the object",
    );
    kustomization(
        "resources: [a.yaml]\npatches:\n- target: {name: 'a('}\n  patch: |\n    kind: A\n    metadata: {name: a}\n",
        "kustomization.yaml:3: \"a(\" is no regular expression: unclosed group",
    );
    kustomization(
        "resources: [a.yaml]\npatches:\n- target: {labelSelector: 'a in b'}\n  patch: |\n    kind: A\n    metadata: {name: a}\n",
        "kustomization.yaml:3: \"a in b\" is no label selector",
    );
}

#[test]
fn replacements_that_are_ambiguous() {
    let two = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n";
    check(
        &[
            (
                "kustomization.yaml",
                "resources: [a.yaml]\nreplacements:\n- source: {kind: ConfigMap}\n  targets: [{select: {name: a}}]\n",
            ),
            ("a.yaml", two),
        ],
        "kustomization.yaml:3: the source of a replacement is ambiguous: ConfigMap is at a.yaml:1 and at a.yaml:5",
    );
}

#[test]
fn what_would_run_or_fetch_is_refused() {
    kustomization(
        "resources: ['https://me:secret@example.com/x?ref=v1']\n",
        "kustomization.yaml:1: remote resource https://example.com/x?ref=v1 is not supported\nhint: commit a copy of it to the repository and list that",
    );
}

#[test]
fn plugins_and_charts_are_refused() {
    kustomization(
        "resources: [a.yaml]\nhelmCharts: [{name: x}]\n",
        "kustomization.yaml:1: helmCharts is not supported\nhint: commit the output of `helm template` and list it in resources",
    );
    kustomization(
        "resources: [a.yaml]\ntransformers:\n- |\n  apiVersion: v1\n  kind: Run\n  metadata: {name: x}\n",
        "kustomization.yaml:4: plugin v1 Run is not supported\nhint: run it before the commit and list its output in resources",
    );
}

#[test]
fn a_secret_is_never_told() {
    let tree = MemTree::new()
        .file("kustomization.yaml", "secretGenerator:\n- name: s\n  literals: [hunter2]\n");
    let text = message(&tree, "", &Options::default());
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn the_way_is_told() {
    check(
        &[
            ("kustomization.yaml", "resources: [one]\n"),
            ("one/kustomization.yaml", "resources: [two]\n"),
            ("one/two/kustomization.yaml", "resources: [a.yaml]\n"),
            ("one/two/a.yaml", "kind: ConfigMap\n"),
        ],
        "one/two/a.yaml:1: ConfigMap has no metadata.name (by way of kustomization.yaml > one/kustomization.yaml > one/two/kustomization.yaml)",
    );
}

#[test]
fn limits_are_named() {
    let tree = MemTree::new()
        .file("kustomization.yaml", "resources: [a.yaml]\n")
        .file("a.yaml", format!("{CONFIG_MAP}data: {{a: {}}}\n", "x".repeat(1000)));
    let with = |limits: Limits| message(&tree, "", &Options { limits, ..Options::default() });
    assert_eq!(
        with(Limits { bytes: 500, ..Limits::default() }),
        "kustomization.yaml:1: cannot load \"a.yaml\": the build has more than 500 bytes"
    );
    assert_eq!(
        with(Limits { objects: 0, ..Limits::default() }),
        "kustomization.yaml: the build has more than 0 objects"
    );
    let bomb = format!("a: &a [x,x,x,x,x,x,x,x,x]\n{}", (0..9).fold(String::new(), |text, i| {
        let (from, to) = (char::from(b'a' + i), char::from(b'b' + i));
        format!("{text}{to}: &{to} [*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from}]\n")
    }));
    check(
        &[("kustomization.yaml", "resources: [a.yaml]\n"), ("a.yaml", &bomb)],
        "a.yaml:7: more than 1000000 values once aliases are expanded",
    );
    let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    check(
        &[("kustomization.yaml", "resources: [a.yaml]\n"), ("a.yaml", &deep)],
        "a.yaml:1: maps and lists are nested more than 250 deep",
    );
}
