//! Paths that Kustomize builds, and what an Application adds to its path.

use std::collections::BTreeMap;

use super::{config_map, done, failed, names, path, tree, try_render};
use crate::{
    CommonMetadata, LoadRestrictions, Overlay, OverlayImage, OverlayPatch, RenderLimits,
    RenderOptions, Reorder, render,
};
use plumb_core::{ErrorClass, FieldPath, MemTree, TreeError};

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: main, image: 'nginx:1'}]}\n";

/// A base, an overlay of it, and a component.
fn overlays() -> MemTree {
    tree(&["shared/x.yaml", "other/y.yaml"])
        .file("base/kustomization.yaml", "resources: [deployment.yaml, ../shared/x.yaml]\n")
        .file("base/deployment.yaml", DEPLOYMENT)
        .file("base/README.md", "unused")
        .file("prod/kustomization.yaml", "resources: [../base]\nnamePrefix: p-\nconfigMapGenerator:\n- name: made\n  literals: [a=b]\n")
        .file("prod/unlisted.yaml", "no: object")
        .file("part/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnameSuffix: -s\n")
}

fn with(overlay: Overlay) -> RenderOptions {
    RenderOptions { overlay, ..RenderOptions::default() }
}

fn patch(text: &str) -> Overlay {
    let patches = vec![OverlayPatch { patch: text.into(), target: None }];
    Overlay { patches, ..Overlay::default() }
}

#[test]
fn a_kustomization_names_what_is_built() {
    let rendered = done(&overlays(), "prod");
    assert_eq!(names(&rendered), "p-web p-shared-x-yaml p-made-4h2mbtbbt6");
    assert_eq!(rendered.objects[0].place().to_string(), "base/deployment.yaml:1");
    // Where fields are not looked up, an object stands in for them.
    let image = FieldPath::keys(["spec", "template"]);
    assert_eq!(rendered.objects[0].field_place(&image).to_string(), "base/deployment.yaml:1");
    assert_eq!(rendered.objects[2].place().to_string(), "prod/kustomization.yaml:4");
    let linked = overlays().link("here", "prod");
    assert_eq!(names(&done(&linked, "here")), names(&rendered));
}

#[test]
fn only_what_a_kustomization_names_is_an_input() {
    let base = overlays();
    let rendered = done(&base, "prod");
    let cases = [
        ("the same", base.clone(), true),
        ("a new directory beside", base.clone().file("new/a.yaml", "x"), true),
        ("elsewhere", base.clone().file("other/y.yaml", "x"), true),
        ("an unlisted file", base.clone().file("prod/unlisted.yaml", "x"), true),
        ("a new file", base.clone().file("prod/new.yaml", "x"), true),
        ("a new file in the base", base.clone().file("base/new.yaml", "x"), true),
        ("the base", base.clone().file("base/deployment.yaml", "x"), false),
        ("the base's kustomization", base.clone().file("base/kustomization.yaml", "x"), false),
        ("a file of the base", base.clone().file("shared/x.yaml", "x"), false),
        ("a second kustomization", base.clone().file("base/Kustomization", "x"), false),
        ("a second kustomization of its own", base.clone().file("prod/Kustomization", ""), false),
        ("an ignore file", base.clone().file("prod/.plumbignore", "kustomization.yaml"), false),
        ("an ignore file above", base.clone().file(".sourceignore", "prod"), false),
    ];
    for (what, tree, want) in cases {
        assert_eq!(rendered.inputs.unchanged_in(&tree).unwrap(), want, "{what}");
    }
}

#[test]
fn directories_with_a_kustomization_are_bases_of_plain_ones() {
    let tree = tree(&["app/a.yaml", "app/m/n/o.yaml", "app/z.json"])
        .file("app/base/kustomization.yaml", "resources: [b.yaml]\nnamePrefix: p-\n")
        .file("app/base/b.yaml", config_map("b"))
        .file("app/base/c.yaml", "no: object")
        .file("app/base/deeper/kustomization.yaml", "resources: [nowhere.yaml]\n")
        .file("app/drafts/kustomization.yaml", "resources: [nowhere.yaml]\n")
        .file("app/.plumbignore", "drafts/\n");
    let rendered = done(&tree, "app");
    assert_eq!(names(&rendered), "app-a-yaml p-b app-m-n-o-yaml app-z-json");
    let unchanged = |tree: &MemTree| rendered.inputs.unchanged_in(tree).unwrap();
    assert!(unchanged(&tree.clone().file("app/base/new.yaml", "")));
    assert!(!unchanged(&tree.clone().file("app/m/new.yaml", "")));
    assert!(!unchanged(&tree.clone().file("app/m/kustomization.yaml", "")));
    // What a base lists is built whatever the ignore files say.
    let ignored = tree.clone().file("app/.plumbignore", "drafts/\nb.yaml\n");
    assert_eq!(names(&done(&ignored, "app")), names(&rendered));
    // A kustomization that is left out makes no base.
    let plain = tree.clone().file("app/.plumbignore", "drafts/\nkustomization.yaml\nc.yaml\n");
    assert_eq!(names(&done(&plain, "app")), "app-a-yaml b app-m-n-o-yaml app-z-json");

    let broken = tree.file("app/a.yaml", "a: [").file("app/z.json", "{").link("app/l", "../..");
    assert_eq!(
        failed(&broken, "app").to_string(),
        "app/a.yaml:1: invalid YAML: unclosed bracket '['\nsymbolic link app/l points to \"../..\", outside the repository\napp/z.json:1: invalid JSON: EOF while parsing an object"
    );
}

#[test]
fn an_overlay_works_on_any_path() {
    let replicas =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 2}\n";
    let overlay = Overlay {
        components: vec!["../part".into()],
        name_prefix: "o-".into(),
        target_namespace: "n".into(),
        images: vec![OverlayImage {
            name: "nginx".into(),
            new_tag: "2".into(),
            ..OverlayImage::default()
        }],
        ..patch(replicas)
    };
    let tree = overlays().file("plain/deployment.yaml", DEPLOYMENT);
    for (at, want) in [
        ("base", "o-web-s o-shared-x-yaml-s"),
        ("prod", "o-p-web-s o-p-shared-x-yaml-s o-p-made-s-"),
        ("plain", "o-web-s"),
        ("plain/deployment.yaml", "o-web-s"),
    ] {
        // The overlay's own prefix takes the place of the one of the kustomization.
        let want = want.replace("o-p-", "o-");
        let rendered = try_render(&tree, at, &with(overlay.clone()));
        let rendered = rendered.unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(names(&rendered).starts_with(&want), "{at}: {}", names(&rendered));
        let body = rendered.objects[0].body();
        assert_eq!(body["spec"]["replicas"], 2, "{at}");
        assert_eq!(body["metadata"]["namespace"], "n", "{at}");
        let container = &body["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "nginx:2", "{at}");
    }
    let plain = try_render(&tree, "plain", &RenderOptions::default()).unwrap();
    assert_ne!(try_render(&tree, "plain", &with(overlay)).unwrap().digest, plain.digest);
}

#[test]
fn common_metadata_is_set_on_metadata_only() {
    let pairs = |key: &str| BTreeMap::from([(key.to_owned(), "new".to_owned())]);
    let common_metadata = CommonMetadata { labels: pairs("app"), annotations: pairs("note") };
    let options = RenderOptions { common_metadata, ..RenderOptions::default() };
    let tree = overlays()
        .file("plain/a.yaml", DEPLOYMENT)
        .file("plain/b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, labels: null, annotations: {note: old, x: y}}\n");
    for at in ["base", "plain"] {
        let rendered = try_render(&tree, at, &options).unwrap();
        let deployment = rendered.objects[0].body();
        assert_eq!(deployment["metadata"]["labels"]["app"], "new", "{at}");
        assert_eq!(deployment["metadata"]["annotations"]["note"], "new", "{at}");
        let spec = &deployment["spec"];
        assert_eq!(spec["selector"]["matchLabels"]["app"], "web", "{at}");
        assert_eq!(spec["template"]["metadata"]["labels"]["app"], "web", "{at}");
        assert!(rendered.objects.iter().all(|object| object.label("app") == Some("new")), "{at}");
        assert_ne!(rendered.digest, done(&tree, at).digest, "{at}");
    }
    let rendered = try_render(&tree, "plain", &options).unwrap();
    assert_eq!(rendered.objects[1].annotation("note"), Some("new"));
    assert_eq!(rendered.objects[1].annotation("x"), Some("y"));
}

#[test]
fn what_cannot_be_built_is_told_with_its_place() {
    let tree = overlays()
        .file("typo/kustomization.yaml", "resources:\n- ../base\nnameprefx: x-\n")
        .file("bad/a.yaml", "kind: ConfigMap\nmetadata: {name: a}\n")
        .file("bad/kustomization.yaml", "resources: [a.yaml]\n")
        .file("far/kustomization.yaml", "resources: [../typo]\n")
        .file("two/kustomization.yaml", "resources: []\n")
        .file("two/Kustomization", "resources: []\n")
        .file("plain/a.yaml", config_map("a"))
        .file("plain/b.yaml", "kind: ConfigMap\nmetadata: {name: b}\n")
        .file(
            "plain/part/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: []\n",
        )
        .file("rules/.plumbignore", "a[b\n")
        .file("rules/kustomization.yaml", "resources: []\n");
    let cases = [
        (
            "typo",
            Overlay::default(),
            "typo/kustomization.yaml:3: unknown field \"nameprefx\" [did you mean \"namePrefix\"?]",
        ),
        (
            "far",
            Overlay::default(),
            "typo/kustomization.yaml:3: unknown field \"nameprefx\" (by way of far/kustomization.yaml > typo/kustomization.yaml) [did you mean \"namePrefix\"?]",
        ),
        (
            "bad",
            Overlay::default(),
            "bad/a.yaml:1: ConfigMap a has no apiVersion [give it an apiVersion]",
        ),
        (
            "two",
            Overlay::default(),
            "two has more than one kustomization: kustomization.yaml, Kustomization [keep one of them]",
        ),
        (
            "rules",
            Overlay::default(),
            "rules/.plumbignore:1: invalid pattern: error parsing glob 'a[b': unclosed character class; missing ']'",
        ),
        (
            "base",
            patch("kind: A\nmetadata: {name: a}\n"),
            "spec.patches[0]: no object is A a, so the patch has no target",
        ),
        (
            "plain",
            Overlay::default(),
            "plain/b.yaml:1: ConfigMap has no apiVersion [if it is no manifest, list plain/b.yaml in .plumbignore]",
        ),
        (
            "plain/a.yaml",
            patch("{"),
            "spec.patches[0]: the patch is neither an object nor a JSON patch: invalid YAML: unclosed bracket '{' [an object has a kind and a name, a JSON patch is a list]",
        ),
    ];
    for (at, overlay, want) in cases {
        let failure = try_render(&tree, at, &with(overlay)).unwrap_err();
        let mut got = failure.to_string();
        if let Some(hint) = failure.error.hint() {
            got = format!("{got} [{hint}]");
        }
        assert_eq!(got, want, "{at}");
        assert_eq!(failure.error.class(), ErrorClass::WaitForUser, "{at}");
        assert_eq!(failure.error.problems().len(), 1, "{at}");
        assert!(failure.inputs.unchanged_in(&tree).unwrap(), "{at}");
    }
    let component = failed(&tree.clone().file("plain/b.yaml", ""), "plain").to_string();
    assert_eq!(component, "plain/part is a Component, which belongs in components");

    let failure = failed(&tree, "typo");
    assert_eq!(failure.error.problems()[0].place.as_ref().map(|place| place.line), Some(3));
    let mended = tree.clone().file("typo/kustomization.yaml", "resources: [../base]\n");
    assert!(!failure.inputs.unchanged_in(&mended).unwrap());
    assert!(failure.inputs.unchanged_in(&tree.file("base/deployment.yaml", "x")).unwrap());
}

/// What Git LFS keeps elsewhere is told wherever a kustomization reads it, also as data.
#[test]
fn pointers_of_git_lfs_are_told_and_never_applied() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    for fields in [
        "resources: [big]",
        "resources: [a.yaml]\npatches: [{path: big}]",
        "resources: [a.yaml]\nconfigMapGenerator: [{name: b, files: [big]}]",
        "resources: [a.yaml]\nconfigMapGenerator: [{name: b, envs: [big]}]",
        "resources: [a.yaml]\nsecretGenerator: [{name: b, files: [big]}]",
    ] {
        let tree = overlays()
            .file("lfs/kustomization.yaml", fields)
            .file("lfs/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
            .file("lfs/big", pointer);
        let failure = failed(&tree, "lfs");
        let text = failure.to_string();
        let want = "the file is a Git LFS pointer, its content is not in the repository";
        assert!(text.contains("lfs/big:1: ") && text.contains(want), "{fields}: {text}");
        assert_eq!(failure.error.class(), ErrorClass::WaitForUser, "{fields}");
        assert!(failure.error.hint().unwrap().contains("Git LFS"), "{fields}");
    }
}

#[test]
fn limits_hold_for_kustomize_too() {
    let defaults = RenderLimits::default();
    let tree = overlays()
        .file("a/kustomization.yaml", "resources: [../b]\n")
        .file("b/kustomization.yaml", "resources: [../base]\n");
    for (limits, want) in [
        (
            RenderLimits { bytes: 100, ..defaults },
            "base/kustomization.yaml:1: base/deployment.yaml has 207 bytes, with which the build reads more than 100 (by way of a/kustomization.yaml > b/kustomization.yaml > base/kustomization.yaml)",
        ),
        (
            RenderLimits { objects: 1, ..defaults },
            "base/kustomization.yaml:1: the build has more than 1 objects (by way of a/kustomization.yaml > b/kustomization.yaml > base/kustomization.yaml)",
        ),
        (
            RenderLimits { depth: 1, ..defaults },
            "b/kustomization.yaml:1: the build has more than 1 directories inside each other (by way of a/kustomization.yaml > b/kustomization.yaml)",
        ),
    ] {
        let options = RenderOptions { limits, ..RenderOptions::default() };
        assert_eq!(try_render(&tree, "a", &options).unwrap_err().to_string(), want);
    }
    let stop = render(&tree, &path("a"), &RenderOptions::default(), &|| true).unwrap_err();
    assert_eq!(stop.error.class(), ErrorClass::Retry);
}

#[test]
fn order_and_load_restrictions_can_be_chosen() {
    let tree = overlays()
        .file("n/kustomization.yaml", "resources: [../base, ns.yaml]\n")
        .file("n/ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n");
    let ordered = |reorder| {
        let options = RenderOptions { reorder, ..RenderOptions::default() };
        names(&try_render(&tree, "n", &options).unwrap())
    };
    assert_eq!(ordered(Reorder::Fifo), "web shared-x-yaml n");
    assert_eq!(ordered(Reorder::Legacy), "n shared-x-yaml web");
    let load_restrictions = LoadRestrictions::RootOnly;
    let options = RenderOptions { load_restrictions, ..RenderOptions::default() };
    let error = try_render(&tree, "base", &options).unwrap_err().to_string();
    assert_eq!(
        error,
        "base/kustomization.yaml:1: cannot load \"../shared/x.yaml\": file shared/x.yaml is not in or below base"
    );
}

#[test]
fn a_store_that_fails_is_tried_again() {
    let tree = super::Odd {
        tree: overlays(),
        submodule: None,
        broken: Some(path("base/deployment.yaml")),
    };
    let failure = failed(&tree, "prod");
    assert!(matches!(failure.error, crate::RenderError::Tree(TreeError::Read { .. })));
    assert_eq!(failure.error.class(), ErrorClass::Retry);
}
