//! What an overlay adds, and kustomizations that nobody wrote.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use plumb_core::{MemTree, Object, Recorder, RelPath};
use plumb_kustomize::{
    Options, Overlay, OverlayImage, OverlayPatch, PatchTarget, build, build_resources,
};

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 1\n  template:\n    spec:\n      containers:\n      - {name: main, image: 'nginx:1'}\n      - {name: side, image: 'redis:1'}\n";

const KUSTOMIZATION: &str = "\
resources: [deployment.yaml]
namespace: own
namePrefix: own-
components: [c1]
images:
- {name: nginx, newName: mirror/nginx, newTag: '2', digest: 'sha256:aa'}
- {name: redis, newTag: '2'}
patches:
- patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: web}
    spec: {replicas: 2}
";

fn component(suffix: &str) -> String {
    format!(
        "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnameSuffix: {suffix}\npatches:\n- patch: '[{{\"op\": \"add\", \"path\": \"/metadata/annotations\", \"value\": {{\"by\": \"{suffix}\"}}}}]'\n  target: {{kind: Deployment}}\n"
    )
}

fn tree() -> MemTree {
    MemTree::new()
        .file("app/kustomization.yaml", KUSTOMIZATION)
        .file("app/deployment.yaml", DEPLOYMENT)
        .file("app/c1/kustomization.yaml", component("-c1"))
        .file("c2/kustomization.yaml", component("-c2"))
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn options(overlay: Overlay) -> Options {
    Options { overlay, ..Options::default() }
}

fn built(tree: &MemTree, overlay: Overlay) -> String {
    let built = build(tree, &path("app"), &options(overlay), &|| false);
    built.unwrap_or_else(|error| panic!("{error}")).to_yaml()
}

fn failed(tree: &MemTree, overlay: Overlay) -> String {
    build(tree, &path("app"), &options(overlay), &|| false).unwrap_err().to_string()
}

fn patch(text: &str, kind: Option<&str>) -> OverlayPatch {
    let target = kind.map(|kind| PatchTarget { kind: kind.into(), ..PatchTarget::default() });
    OverlayPatch { patch: text.into(), target }
}

fn image(name: &str, new_name: &str, new_tag: &str, digest: &str) -> OverlayImage {
    OverlayImage {
        name: name.into(),
        new_name: new_name.into(),
        new_tag: new_tag.into(),
        digest: digest.into(),
    }
}

/// Every field at once gives what the same fields give at the end of the file.
#[test]
fn an_overlay_works_as_if_it_stood_in_the_file() {
    let replicas = "- {op: replace, path: /spec/replicas, value: 3}";
    let overlay = Overlay {
        components: vec!["../c2".into()],
        patches: vec![patch(replicas, Some("Deploy.*"))],
        images: vec![image("nginx", "", "3", ""), image("other", "x", "", "")],
        name_prefix: "new-".into(),
        name_suffix: "-s".into(),
        target_namespace: "new".into(),
        ..Overlay::default()
    };
    let written = KUSTOMIZATION
        .replace("own", "new")
        .replace("[c1]", "[c1, ../c2]\nnameSuffix: -s")
        .replace("newTag: '2', digest: 'sha256:aa'", "newTag: '3'")
        .replace("redis, newTag: '2'}", "redis, newTag: '2'}\n- {name: other, newName: x}")
        + "- target: {kind: Deploy.*}\n  patch: |\n    "
        + replicas
        + "\n";
    let written = tree().file("app/kustomization.yaml", written);
    let text = built(&tree(), overlay);
    assert_eq!(text, built(&written, Overlay::default()));
    for part in ["name: new-web-c1-c2-s\n", "namespace: new\n", "replicas: 3\n", "by: -c2\n"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn images_are_merged_by_name() {
    let cases = [
        (vec![], "mirror/nginx:2@sha256:aa", "redis:2"),
        (vec![image("nginx", "", "3", "")], "mirror/nginx:3", "redis:2"),
        (vec![image("nginx", "n", "", "")], "n:2@sha256:aa", "redis:2"),
        (vec![image("redis", "", "", "sha256:bb")], "mirror/nginx:2@sha256:aa", "redis@sha256:bb"),
    ];
    for (images, nginx, redis) in cases {
        let text = built(&tree(), Overlay { images: images.clone(), ..Overlay::default() });
        let lines: Vec<_> = text.lines().filter_map(|line| line.split_once("image: ")).collect();
        let lines: Vec<_> = lines.iter().map(|(_, image)| *image).collect();
        assert_eq!(lines, [nginx, redis], "{images:?}");
    }
}

#[test]
fn patches_can_delete_and_need_their_object() {
    let delete = "$patch: delete\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n";
    let overlay = |patches| Overlay { patches, ..Overlay::default() };
    assert_eq!(built(&tree(), overlay(vec![patch(delete, None)])), "");
    let twice = overlay(vec![patch(delete, None), patch(delete, None)]);
    assert_eq!(
        failed(&tree(), twice),
        "spec.patches[1]: no object is Deployment.apps web, so the patch has no target"
    );
}

#[test]
fn errors_name_the_field() {
    let with = |patches| Overlay { patches, ..Overlay::default() };
    let component = |name: &str| Overlay { components: vec![name.into()], ..Overlay::default() };
    let cases = [
        (
            with(vec![patch("x", None)]),
            "spec.patches[0]: the patch is neither an object nor a JSON patch: a manifest must be a map, not a string",
        ),
        (
            with(vec![patch("- {op: remove, path: /spec/x}", None)]),
            "spec.patches[0]: a JSON patch needs a target",
        ),
        (
            with(vec![patch("- {op: remove, path: /spec/x}", Some("Deployment"))]),
            "spec.patches[0]: Deployment web-c1: remove of \"/spec/x\": there is nothing at this path",
        ),
        (
            with(vec![patch("", Some("("))]),
            "spec.patches[0]: a patch has neither a path nor a patch",
        ),
        (
            with(vec![patch("kind: A\nmetadata: {name: a}", Some("("))]),
            "spec.patches[0]: kind: \"(\" is no regular expression: unclosed group",
        ),
        (
            with(vec![patch(
                "kind: A\nmetadata: {name: a}\nspec: {template: {$patch: x}}",
                Some("Deployment"),
            )]),
            "spec.patches[0]: Deployment web-c1: ",
        ),
        (component("../c3"), "spec.components[0]: cannot load \"../c3\": c3 does not exist"),
        (component("/c2"), "spec.components[0]: path \"/c2\" is absolute"),
        (component("../../c2"), "spec.components[0]: path \"../../c2\" leaves the repository"),
        (
            component("https://example.com/c.git"),
            "spec.components[0]: remote resource https://example.com/c.git is not supported",
        ),
        (
            component("../base"),
            "spec.components[0]: ../base is listed in components but its kind is Kustomization, not Component",
        ),
        (
            component("../broken"),
            "broken/kustomization.yaml:3: spec.components[0]: unknown field \"x\" (by way of app/kustomization.yaml > broken/kustomization.yaml)",
        ),
        (
            component("../deep"),
            "deep/a.yaml:1: ConfigMap has no metadata.name (by way of app/kustomization.yaml > deep/kustomization.yaml)",
        ),
    ];
    let kind = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n";
    let tree = tree()
        .file("base/kustomization.yaml", "resources: []\n")
        .file("broken/kustomization.yaml", format!("{kind}x: y\n"))
        .file("deep/kustomization.yaml", format!("{kind}resources: [a.yaml]\n"))
        .file("deep/a.yaml", "kind: ConfigMap\n");
    for (overlay, want) in cases {
        let got = failed(&tree, overlay.clone());
        assert!(got.starts_with(want), "{overlay:?}\n got {got}\nwant {want}");
    }
    let missing = Overlay { ignore_missing_components: true, ..component("../c3") };
    assert_eq!(built(&tree, missing), built(&tree, Overlay::default()));
}

#[test]
fn a_namespace_that_makes_two_objects_one_is_named() {
    let map = |namespace: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: {namespace}}}\n")
    };
    let tree = MemTree::new()
        .file("app/kustomization.yaml", "resources: [a.yaml, b.yaml]\n")
        .file("app/a.yaml", map("a"))
        .file("app/b.yaml", map("b"));
    let overlay = Overlay { target_namespace: "c".into(), ..Overlay::default() };
    assert_eq!(
        failed(&tree, overlay),
        "app/b.yaml:1: spec.targetNamespace: ConfigMap c/a is already defined at app/a.yaml:1"
    );
}

#[test]
fn a_missing_component_is_an_input() {
    let overlay = Overlay {
        components: vec!["../c3".into()],
        ignore_missing_components: true,
        ..Overlay::default()
    };
    let tree = tree();
    let recorder = Recorder::new(&tree);
    build(&recorder, &path("app"), &options(overlay), &|| false).unwrap();
    let inputs = recorder.finish();
    assert!(inputs.unchanged_in(&tree).unwrap());
    let added = tree.clone().file("c3/kustomization.yaml", component("-c3"));
    assert!(!inputs.unchanged_in(&added).unwrap());
}

#[test]
fn files_and_directories_build_without_a_kustomization() {
    let map = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
    let tree = MemTree::new()
        .file("app/a.yaml", map("a"))
        .file("app/a..b?ref=x.git/kustomization.yaml", "resources: [b.yaml]\nnamePrefix: p-\n")
        .file("app/a..b?ref=x.git/b.yaml", map("b"))
        .file("elsewhere/c.yaml", map("c"))
        .file("c2/kustomization.yaml", component("-c2"))
        .link("app/link.yaml", "../elsewhere/c.yaml");
    let build = |resources: &[&str], overlay| {
        let resources: Vec<_> = resources.iter().map(|text| path(text)).collect();
        build_resources(&tree, &path("app"), &resources, &options(overlay), &|| false)
    };
    let overlay = Overlay {
        components: vec!["../c2".into()],
        target_namespace: "n".into(),
        ..Overlay::default()
    };
    let all = ["app/a..b?ref=x.git", "app/a.yaml", "app/link.yaml"];
    let built = build(&all, overlay).unwrap();
    let names: Vec<_> = built.objects.iter().map(Object::name).collect();
    assert_eq!(names, ["p-b-c2", "a-c2", "c-c2"]);
    assert_eq!(built.objects[2].place().to_string(), "elsewhere/c.yaml:1");
    assert!(built.objects.iter().all(|object| object.namespace() == "n"));
    assert!(build(&[], Overlay::default()).unwrap().objects.is_empty());

    let failed = |resources: &[&str]| build(resources, Overlay::default()).unwrap_err().to_string();
    assert_eq!(
        failed(&["app/a.yaml", "app/a.yaml"]),
        "app/a.yaml:1: ConfigMap a is already defined at app/a.yaml:1"
    );
    assert_eq!(failed(&["app/x.yaml"]), "app/x.yaml does not exist");
    assert_eq!(failed(&["c2"]), "c2 is a Component, which belongs in components");
}

/// The place of a patch inside a kustomization is the kustomization's, not a line of the patch.
#[test]
fn an_inline_patch_that_cannot_be_merged_is_found() {
    let text = "resources: [deployment.yaml]\npatches:\n- target: {kind: Deployment}\n  patch: |\n    kind: A\n    metadata: {name: a}\n    spec: {template: {$patch: x}}\n";
    let error = failed(&tree().file("app/kustomization.yaml", text), Overlay::default());
    assert!(error.starts_with("app/kustomization.yaml:3: Deployment web: "), "{error}");
}
