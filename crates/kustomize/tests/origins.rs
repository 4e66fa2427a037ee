//! Where fields of built objects come from.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use plumb_core::{DirTree, FieldHash, FieldPath, MemTree, Object, RelPath, Step};
use plumb_kustomize::{
    Built, LoadRestrictions, Options, Overlay, OverlayImage, OverlayPatch, PatchTarget, build,
};
use serde_json::Value;

const FILES: &[(&str, &str)] = &[
    (
        "base/kustomization.yaml",
        "\
resources:
- web.yaml
- route.yaml
configMapGenerator:
- name: settings
  literals:
  - color=red
  - shape=round
  files:
  - motd.txt
  envs:
  - base.env
  options:
    labels: {generated: 'yes'}
secretGenerator:
- name: token
  type: example.com/token
  literals: [key=value]
",
    ),
    (
        "base/web.yaml",
        "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations:
    number: 1
spec:
  replicas: 1
  template:
    spec:
      containers:
      - name: web
        image: nginx:1.0
        args:
        - one
        - two
        envFrom:
        - configMapRef:
            name: settings
      - name: log
        image: fluentd:1.0
",
    ),
    (
        "base/route.yaml",
        "\
{apiVersion: v1, kind: Service, metadata: {name: web},
 spec: {ports: [{port: 80, name: http}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
spec:
  rules:
  - host: example.com
",
    ),
    ("base/motd.txt", "hello\nthere\n"),
    ("base/base.env", "# comment\nUSER=me\nHOME=here\n"),
    (
        "debug/kustomization.yaml",
        "\
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources: [tool.yaml]
patches:
- target: {kind: Deployment}
  patch: |

    # a shell
    - op: add
      path: /spec/template/spec/containers/0/args/0
      value: --debug
    - op: replace
      path: /spec/template/spec/containers/1
      value:
        name: log
        image: busybox
",
    ),
    ("debug/tool.yaml", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: tool\n"),
    (
        "prod/kustomization.yaml",
        "\
namespace: shop
namePrefix: p-
resources:
- ../base
components:
- ../debug
commonLabels:
  team: x
labels:
- pairs:
    tier: front
commonAnnotations: {note: text}
images:
- name: nginx
  newTag: '2.0'
replicas:
- name: web
  count: 3
patches:
- path: strategy.yaml
- target:
    kind: Service
  path: port.json
- patch: |-
    apiVersion: networking.k8s.io/v1
    kind: Ingress
    metadata: {name: web}
    spec:
      defaultBackend:
        service: {name: web}
- target: {kind: Ingress}
  patch: '[{\"op\": \"add\", \"path\": \"/spec/tls\", \"value\": [{\"secretName\": \"cert\"}]}]'
configMapGenerator:
- name: settings
  behavior: merge
  literals:
  - shape=square
replacements:
- source: {kind: Service, fieldPath: 'spec.ports.0.port'}
  targets:
  - select: {kind: Deployment}
    fieldPaths: ['spec.template.metadata.annotations.port']
    options: {create: true}
- sourceValue: shop.example.com
  targets:
  - select: {kind: Ingress}
    fieldPaths: [spec.rules.0.host]
transformers:
- |-
  apiVersion: builtin
  kind: AnnotationsTransformer
  metadata: {name: any}
  annotations:
    by: plugin
  fieldSpecs: [{path: metadata/annotations, create: true, kind: Pod}]
- suffix.yaml
",
    ),
    (
        "prod/suffix.yaml",
        "\
apiVersion: builtin
kind: SuffixTransformer
metadata: {name: any}
suffix: -s
fieldSpecs: [{path: metadata/name, kind: Pod}]
",
    ),
    (
        "prod/strategy.yaml",
        "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  strategy:
    type: Recreate
  template:
    spec:
      containers:
      - name: log
        env:
        - {name: LEVEL,
           value: info}
",
    ),
    (
        "prod/port.json",
        "[\n  {\"op\": \"replace\", \"path\": \"/spec/ports/0/name\",\n   \"value\": \"web\"}\n]\n",
    ),
];

fn tree() -> MemTree {
    FILES.iter().fold(MemTree::new(), |tree, (path, text)| tree.file(path, *text))
}

fn built(tree: &MemTree, path: &str, origins: bool) -> Built {
    let options = Options { origins, ..Options::default() };
    let built = build(tree, &RelPath::parse(path).unwrap(), &options, &|| false);
    built.unwrap_or_else(|error| panic!("{error}"))
}

/// A path written `a.b.0`; only the key of a file has a dot.
fn path(text: &str) -> FieldPath {
    if let Some(("data", file)) = text.split_once('.') {
        return FieldPath::keys(["data", file]);
    }
    text.split('.').fold(FieldPath::root(), |path, part| match part.parse() {
        Ok(index) => path.join(Step::Index(index)),
        Err(_) => path.join(Step::Key(part.to_owned())),
    })
}

fn object<'b>(built: &'b Built, kind: &str) -> &'b Object {
    built.objects.iter().find(|object| object.kind() == kind).unwrap()
}

/// The places of all scalars, which no field around them may lend.
fn scalars(object: &Object) -> Vec<(FieldPath, Option<String>)> {
    fn walk(
        object: &Object,
        value: &Value,
        path: &FieldPath,
        found: &mut Vec<(FieldPath, Option<String>)>,
    ) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                walk(object, value, &path.join(Step::Key(key.clone())), found);
            }),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .for_each(|(i, value)| walk(object, value, &path.join(Step::Index(i)), found)),
            _ => {
                let place = object.fields().get(path).map(|place| place.to_string());
                found.push((path.clone(), place));
            }
        }
    }
    let mut found = Vec::new();
    walk(object, object.body(), &FieldPath::root(), &mut found);
    found
}

#[test]
fn fields_come_from_the_line_that_sets_them() {
    let built = built(&tree(), "prod", true);
    let cases = [
        ("Deployment", "apiVersion", "base/web.yaml:1", "a patch only repeats it"),
        ("Deployment", "kind", "base/web.yaml:2", ""),
        ("Deployment", "metadata.name", "prod/kustomization.yaml:2", "namePrefix"),
        ("Deployment", "metadata.namespace", "prod/kustomization.yaml:1", "namespace"),
        ("Deployment", "metadata.annotations.number", "base/web.yaml:6", ""),
        ("Deployment", "metadata.annotations.note", "prod/kustomization.yaml:12", "annotations"),
        ("Deployment", "metadata.labels.team", "prod/kustomization.yaml:8", "commonLabels"),
        ("Deployment", "metadata.labels.tier", "prod/kustomization.yaml:11", "labels"),
        ("Deployment", "spec.selector.matchLabels.team", "prod/kustomization.yaml:8", ""),
        ("Deployment", "spec.replicas", "prod/kustomization.yaml:17", "replicas"),
        ("Deployment", "spec.strategy.type", "prod/strategy.yaml:7", "patch in a file"),
        ("Deployment", "spec.template.metadata.annotations.port", "base/route.yaml:2", "source"),
        ("Deployment", "spec.template.spec.containers.0.name", "base/web.yaml:20", "merge key"),
        ("Deployment", "spec.template.spec.containers.0.image", "debug/kustomization.yaml:16", ""),
        ("Deployment", "spec.template.spec.containers.0.env.0.value", "prod/strategy.yaml:14", ""),
        ("Deployment", "spec.template.spec.containers.1.image", "prod/kustomization.yaml:14", ""),
        ("Deployment", "spec.template.spec.containers.1.args.0", "debug/kustomization.yaml:11", ""),
        ("Deployment", "spec.template.spec.containers.1.args.1", "base/web.yaml:15", "moved on"),
        (
            "Deployment",
            "spec.template.spec.containers.1.envFrom.0.configMapRef.name",
            "prod/kustomization.yaml:2",
            "what it refers to has its name from there",
        ),
        ("Service", "spec.ports.0.port", "base/route.yaml:2", ""),
        ("Service", "spec.ports.0.name", "prod/port.json:3", "patch that is JSON"),
        ("Service", "spec.selector.team", "prod/kustomization.yaml:8", ""),
        ("Ingress", "spec.defaultBackend.service.name", "prod/kustomization.yaml:2", ""),
        ("Ingress", "spec.rules.0.host", "prod/kustomization.yaml:44", "sourceValue"),
        ("Ingress", "spec.tls.0.secretName", "prod/kustomization.yaml:32", "patch in one line"),
        ("ConfigMap", "data.color", "base/kustomization.yaml:7", "literal"),
        ("ConfigMap", "data.shape", "prod/kustomization.yaml:37", "literal that is merged in"),
        ("ConfigMap", "data.motd.txt", "base/motd.txt:1", "file"),
        ("ConfigMap", "data.HOME", "base/base.env:3", "line of a file"),
        ("ConfigMap", "metadata.labels.generated", "base/kustomization.yaml:14", "options"),
        ("ConfigMap", "kind", "base/kustomization.yaml:5", "entry"),
        ("Secret", "type", "base/kustomization.yaml:17", ""),
        ("Pod", "metadata.annotations.by", "prod/kustomization.yaml:54", "transformer in place"),
        ("Pod", "metadata.name", "prod/suffix.yaml:4", "transformer in a file"),
    ];
    for (kind, field, want, why) in cases {
        let got = object(&built, kind).fields().get(&path(field)).map(|place| place.to_string());
        assert_eq!(got.as_deref(), Some(want), "{kind} {field} {why}");
    }
    let places: Vec<String> = built.objects.iter().map(|o| o.place().to_string()).collect();
    assert_eq!(
        places,
        [
            "base/web.yaml:1",
            "base/route.yaml:1",
            "base/route.yaml:4",
            "base/kustomization.yaml:5",
            "base/kustomization.yaml:16",
            "debug/tool.yaml:1",
        ]
    );
}

fn steps(object: &Object) -> Vec<String> {
    object.steps().iter().map(ToString::to_string).collect()
}

#[test]
fn objects_know_the_steps_that_changed_them() {
    let built = built(&tree(), "prod", true);
    let names = [
        "namespace at prod/kustomization.yaml:1",
        "namePrefix at prod/kustomization.yaml:2",
        "labels at prod/kustomization.yaml:10",
        "commonLabels at prod/kustomization.yaml:7",
        "commonAnnotations at prod/kustomization.yaml:12",
    ];
    let component = "components at prod/kustomization.yaml:6 with debug/kustomization.yaml:1";
    let cases: [(&str, &[&str], &[&str]); 6] = [
        (
            "Deployment",
            &[
                "patches at debug/kustomization.yaml:5",
                component,
                "patches at prod/kustomization.yaml:20 with prod/strategy.yaml:1",
            ],
            &[
                "replicas at prod/kustomization.yaml:17",
                "images at prod/kustomization.yaml:14",
                "replacements at prod/kustomization.yaml:39",
                "nameReference at prod/kustomization.yaml:2",
            ],
        ),
        ("Service", &["patches at prod/kustomization.yaml:21 with prod/port.json:1"], &[]),
        (
            "Ingress",
            &["patches at prod/kustomization.yaml:24", "patches at prod/kustomization.yaml:31"],
            &[
                "replacements at prod/kustomization.yaml:44",
                "nameReference at prod/kustomization.yaml:2",
            ],
        ),
        (
            "ConfigMap",
            &[
                "configMapGenerator at base/kustomization.yaml:5",
                "configMapGenerator at prod/kustomization.yaml:34",
            ],
            &["nameSuffixHash at base/kustomization.yaml:5"],
        ),
        (
            "Secret",
            &["secretGenerator at base/kustomization.yaml:16"],
            &["nameSuffixHash at base/kustomization.yaml:16"],
        ),
        (
            "Pod",
            &[component],
            &[
                "transformers at prod/kustomization.yaml:50",
                "transformers at prod/kustomization.yaml:56 with prod/suffix.yaml:1",
            ],
        ),
    ];
    for (kind, before, after) in cases {
        let want = [before, &names, after].concat();
        assert_eq!(steps(object(&built, kind)), want, "{kind}");
    }
}

#[test]
fn a_step_that_changes_nothing_is_not_told() {
    let tree = MemTree::new()
        .file(
            "kustomization.yaml",
            "\
resources: [a.yaml]
namespace: shop
commonAnnotations: {number: '1'}
images: [{name: nginx, newTag: '1'}]
patches:
- patch: |
    kind: Pod
    apiVersion: v1
    metadata: {name: x, namespace: shop}
    spec: {hostname: host}
- target: {kind: Pod}
  patch: '[{\"op\": \"replace\", \"path\": \"/spec/hostname\", \"value\": \"host\"}]'
- target: {kind: Pod}
  patch: '[{\"op\": \"remove\", \"path\": \"/spec/nodeName\"}]'
patchesStrategicMerge:
- |-
  apiVersion: v1
  kind: Pod
  metadata: {name: x, namespace: shop}
  spec: {hostIPC: null}
",
        )
        .file(
            "a.yaml",
            "\
apiVersion: v1
kind: Pod
metadata:
  name: x
  namespace: shop
  annotations:
    number: '1'
spec:
  hostname: host
  nodeName: node
  containers:
  - image: nginx:1
",
        );
    let built = built(&tree, "", true);
    assert_eq!(steps(&built.objects[0]), ["patches at kustomization.yaml:13"]);
    for (path, place) in scalars(&built.objects[0]) {
        let place = place.unwrap();
        assert!(place.starts_with("a.yaml:"), "{path} comes from {place}, which only repeats it");
    }
}

#[test]
fn variables_and_build_metadata_are_steps() {
    let tree = MemTree::new()
        .file(
            "kustomization.yaml",
            "\
resources: [a.yaml]
buildMetadata:
- managedByLabel
- originAnnotations
vars:
- name: PORT
  objref: {apiVersion: v1, kind: Service, name: s}
  fieldref: {fieldPath: 'spec.ports[0].port'}
",
        )
        .file(
            "a.yaml",
            "\
apiVersion: v1
kind: Service
metadata: {name: s}
spec:
  ports:
  - port: 80
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - args: [$(PORT)]
",
        );
    let built = built(&tree, "", true);
    let metadata =
        ["buildMetadata at kustomization.yaml:3", "buildMetadata at kustomization.yaml:4"];
    assert_eq!(steps(&built.objects[0]), metadata);
    let want = [&["vars at kustomization.yaml:6"][..], &metadata].concat();
    assert_eq!(steps(&built.objects[1]), want);
    let arg = object(&built, "Pod").field_place(&path("spec.containers.0.args.0"));
    assert_eq!(arg.to_string(), "a.yaml:6");
}

#[test]
fn maps_and_lists_are_where_their_first_field_of_the_file_is() {
    let built = built(&tree(), "prod", true);
    let place = |field: &str| object(&built, "Deployment").field_place(&path(field)).to_string();
    assert_eq!(place("spec.template.spec.containers.1"), "base/web.yaml:12");
    assert_eq!(place("spec.template.spec.containers"), "base/web.yaml:12");
    assert_eq!(place("spec.strategy"), "prod/strategy.yaml:7");
    assert_eq!(place("spec.paused"), "base/web.yaml:12", "it is not there");
}

#[test]
fn what_the_output_says_of_itself_comes_from_build_metadata() {
    let tree = MemTree::new()
        .file(
            "kustomization.yaml",
            "resources: [a.yaml]\nbuildMetadata: [managedByLabel,\n originAnnotations]\n",
        )
        .file("a.yaml", "kind: A\nmetadata:\n  name: x\n");
    let built = built(&tree, "", true);
    let place = |field: FieldHash| built.objects[0].fields().find(field).unwrap().to_string();
    let metadata = FieldHash::root().key("metadata");
    let label = metadata.key("labels").key("app.kubernetes.io/managed-by");
    assert_eq!(place(label), "kustomization.yaml:2");
    let note = metadata.key("annotations").key("config.kubernetes.io/origin");
    assert_eq!(place(note), "kustomization.yaml:3");
}

#[test]
fn fields_of_an_overlay_are_files_of_their_own() {
    let tree = MemTree::new()
        .file("kustomization.yaml", "resources: [a.yaml]\nimages: [{name: nginx, newTag: '1'}]\n")
        .file("a.yaml", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n  - image: nginx\n");
    let patch = "- op: add\n  path: /spec/hostname\n  value: host\n";
    let target = Some(PatchTarget { kind: "Pod".into(), ..PatchTarget::default() });
    let overlay = Overlay {
        name_prefix: "p-".into(),
        patches: vec![OverlayPatch { patch: patch.into(), target }],
        images: vec![OverlayImage {
            name: "nginx".into(),
            new_tag: "2".into(),
            ..OverlayImage::default()
        }],
        ..Overlay::default()
    };
    let options = Options { origins: true, overlay, ..Options::default() };
    let built = build(&tree, &RelPath::root(), &options, &|| false).unwrap();
    let place = |field| built.objects[0].field_place(&path(field)).to_string();
    assert_eq!(place("metadata.name"), "spec.namePrefix:1");
    assert_eq!(place("spec.hostname"), "spec.patches[0]:3");
    assert_eq!(place("spec.containers.0.image"), "spec.images[0]:1");
}

/// Every case that lies in this repository, built with and without origins.
#[test]
fn every_field_has_a_place_and_the_output_stays() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut scalars_seen = 0;
    for case in std::fs::read_dir(&golden).unwrap() {
        let case = case.unwrap().file_name().into_string().unwrap();
        let build = |origins| {
            let load_restrictions = LoadRestrictions::None;
            let options = Options { origins, load_restrictions, ..Options::default() };
            let tree = DirTree::new(&golden);
            build(&tree, &RelPath::parse(&case).unwrap(), &options, &|| false)
        };
        let (with, without) = match (build(true), build(false)) {
            (Ok(with), Ok(without)) => (with, without),
            (Err(with), Err(without)) => {
                assert_eq!(with.to_string(), without.to_string(), "{case}");
                continue;
            }
            (with, without) => panic!("{case}: {:?} {:?}", with.err(), without.err()),
        };
        assert_eq!(with.to_yaml(), without.to_yaml(), "{case}");
        for object in &with.objects {
            let own_file = object.place().file.to_string();
            for (path, place) in scalars(object) {
                let at = format!("{case}: {} {}: {path}", object.kind(), object.name());
                let place = place.unwrap_or_else(|| panic!("{at} has no place"));
                let elsewhere = !place.starts_with(&own_file);
                assert!(!elsewhere || !object.steps().is_empty(), "{at} is at {place} by no step");
                scalars_seen += 1;
            }
        }
        assert!(without.objects.iter().all(|o| o.fields().is_empty() && o.steps().is_empty()));
    }
    assert!(scalars_seen > 1000, "{scalars_seen}");
}
