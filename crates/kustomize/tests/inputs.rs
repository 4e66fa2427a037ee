//! What a build depends on, and that nothing leaves the tree.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;

use plumb_core::{DirTree, MemTree, Recorder, RelPath, Tree};
use plumb_kustomize::{LoadRestrictions, Options, build};

const OVERLAY: &str = "\
resources:
- ../base
- own.yaml
components:
- ../component
configMapGenerator:
- name: generated
  envs: [settings.env]
  files: [text.txt]
patches:
- path: patch.yaml
- target: {kind: ConfigMap, name: own}
  path: patch.json
replacements:
- path: replacements.yaml
configurations:
- fields.yaml
crds:
- definitions.json
openapi:
  path: schema.json
generators:
- generator.yaml
transformers:
- transformer
validators:
- validator.yaml
";

fn object(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata: {{a: b}}\n")
}

fn tree() -> MemTree {
    let transformer = "apiVersion: builtin\nkind: PrefixTransformer\nmetadata: {name: t}\nprefix: t-\nfieldSpecs: [{path: metadata/name}]\n";
    let validator = "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: v}\ntarget: {kind: Nothing}\npath: validation.json\n";
    let generator = "apiVersion: builtin\nkind: SecretGenerator\nmetadata: {name: secret}\nenvs: [secret.env]\n";
    MemTree::new()
        .file("overlay/kustomization.yaml", OVERLAY)
        .file("overlay/own.yaml", object("own"))
        .file("overlay/settings.env", "A=1\n")
        .file("overlay/text.txt", "text\n")
        .file("overlay/patch.yaml", object("own"))
        .file("overlay/patch.json", r#"[{"op": "add", "path": "/data/c", "value": "d"}]"#)
        .file("overlay/replacements.yaml", "sourceValue: x\ntargets:\n- select: {name: own}\n  fieldPaths: [data.a]\n")
        .file("overlay/fields.yaml", "images: [{path: spec/image}]\n")
        .file("overlay/definitions.json", "{}")
        .file("overlay/schema.json", r#"{"definitions": {}}"#)
        .file("overlay/generator.yaml", generator)
        .file("overlay/secret.env", "A=1\n")
        .file("overlay/transformer/kustomization.yaml", "resources: [t.yaml]\n")
        .file("overlay/transformer/t.yaml", transformer)
        .file("overlay/validator.yaml", validator)
        .file("overlay/validation.json", "[]")
        .file("overlay/unused.yaml", object("unused"))
        .file("base/kustomization.yml", "resources: [base.yaml]\n")
        .file("base/base.yaml", object("base"))
        .file("base/unused.yaml", object("unused"))
        .file("component/Kustomization", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [component.yaml]\n")
        .file("component/component.yaml", object("component"))
        .link("links/a", "../base")
        .file("README.md", "about")
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn built(tree: &dyn Tree, dir: &str) -> Result<String, String> {
    build(tree, &path(dir), &Options::default(), &|| false)
        .map(|built| built.to_yaml())
        .map_err(|error| error.to_string())
}

/// Files that matter to the overlay, and names that would if something was there.
const USED: [&str; 25] = [
    "overlay/kustomization.yaml",
    "overlay/own.yaml",
    "overlay/settings.env",
    "overlay/text.txt",
    "overlay/patch.yaml",
    "overlay/patch.json",
    "overlay/replacements.yaml",
    "overlay/fields.yaml",
    "overlay/definitions.json",
    "overlay/schema.json",
    "overlay/generator.yaml",
    "overlay/secret.env",
    "overlay/transformer/kustomization.yaml",
    "overlay/transformer/t.yaml",
    "overlay/validator.yaml",
    "base/kustomization.yml",
    "base/base.yaml",
    "component/Kustomization",
    "component/component.yaml",
    "overlay/kustomization.yml",
    "overlay/Kustomization",
    "base/kustomization.yaml",
    "base/Kustomization",
    "component/kustomization.yaml",
    "overlay/transformer/Kustomization",
];

#[test]
fn what_matters_and_nothing_else() {
    let before = tree();
    let recorder = Recorder::new(&before);
    built(&recorder, "overlay").unwrap();
    let inputs = recorder.finish();
    assert!(inputs.unchanged_in(&before).unwrap());
    for file in USED {
        let changed = before.clone().file(file, "# changed\n");
        assert!(!inputs.unchanged_in(&changed).unwrap(), "{file} changed, and that is not noticed");
    }
    for file in [
        "README.md",
        "overlay/unused.yaml",
        "overlay/new.yaml",
        "base/unused.yaml",
        "base/new.yaml",
        "other/kustomization.yaml",
    ] {
        let changed = before.clone().file(file, "# changed\n");
        assert!(inputs.unchanged_in(&changed).unwrap(), "{file} does not matter");
    }
    // Whatever is recorded is one of these, or a directory on the way to one.
    for (recorded, _) in inputs.iter() {
        let known = USED.iter().chain(&[
            "component/kustomization.yml",
            "overlay/validation.json",
            "overlay/transformer/kustomization.yml",
        ]);
        let mut files = known.map(|file| path(file));
        assert!(files.any(|file| file.is_within(recorded)), "{recorded} is recorded");
    }
}

#[test]
fn what_is_recorded_decides_what_is_built() {
    // For each file alone: with another content the output or the error is another one, or else
    // recording it would build for nothing.
    let before = tree();
    let output = built(&before, "overlay");
    for file in [
        "overlay/own.yaml",
        "overlay/settings.env",
        "overlay/text.txt",
        "overlay/secret.env",
        "base/base.yaml",
        "component/component.yaml",
    ] {
        let changed = before.clone().file(file, object("changed"));
        assert_ne!(built(&changed, "overlay"), output, "{file}");
    }
}

#[test]
fn a_failed_build_depends_on_what_it_looked_for() {
    let tree = MemTree::new().file("kustomization.yaml", "resources: [missing.yaml]\n");
    let recorder = Recorder::new(&tree);
    built(&recorder, "").unwrap_err();
    let inputs = recorder.finish();
    assert!(inputs.unchanged_in(&tree).unwrap());
    let mended = tree.clone().file("missing.yaml", object("a"));
    assert!(!inputs.unchanged_in(&mended).unwrap());
}

#[test]
fn links_are_followed_and_recorded() {
    let tree = MemTree::new()
        .file("app/kustomization.yaml", "resources:\n- dir\n- file.yaml\n")
        .link("app/dir", "../base")
        .link("app/file.yaml", "real.yaml")
        .file("app/real.yaml", object("real"))
        .file("base/kustomization.yaml", "resources: [a.yaml]\n")
        .file("base/a.yaml", object("a"))
        .file("other/kustomization.yaml", "resources: []\n");
    let recorder = Recorder::new(&tree);
    built(&recorder, "app").unwrap();
    let inputs = recorder.finish();
    assert!(inputs.unchanged_in(&tree).unwrap());
    for changed in [
        tree.clone().link("app/dir", "../other"),
        tree.clone().link("app/file.yaml", "other.yaml"),
        tree.clone().file("app/real.yaml", object("changed")),
        tree.clone().file("base/a.yaml", object("changed")),
    ] {
        assert!(!inputs.unchanged_in(&changed).unwrap());
    }
}

/// All ways in which a kustomization names a file or a directory.
const WAYS: [&str; 14] = [
    "resources: [PATH]\n",
    "components: [PATH]\n",
    "patches: [{path: PATH}]\n",
    "patchesStrategicMerge: [PATH]\n",
    "patchesJson6902: [{path: PATH, target: {name: a}}]\n",
    "replacements: [{path: PATH}]\n",
    "configurations: [PATH]\n",
    "crds: [PATH]\n",
    "openapi: {path: PATH}\n",
    "generators: [PATH]\n",
    "transformers: [PATH]\n",
    "configMapGenerator: [{name: a, files: [a=PATH]}]\n",
    "configMapGenerator: [{name: a, envs: [PATH]}]\n",
    "validators: [PATH]\n",
];

#[test]
fn nothing_leaves_the_tree() {
    // The tree is a directory of another one; what lies beside it says something that is found in
    // no output.
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("tree");
    std::fs::create_dir_all(inner.join("app")).unwrap();
    std::fs::create_dir_all(outer.path().join("outside")).unwrap();
    let bait = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bait}\ndata: {a: bait}\n";
    std::fs::write(outer.path().join("bait.yaml"), bait).unwrap();
    std::fs::write(outer.path().join("outside/kustomization.yaml"), "namePrefix: bait-\n").unwrap();
    symlink("../../bait.yaml", inner.join("app/link.yaml")).unwrap();
    symlink(outer.path().join("bait.yaml"), inner.join("app/absolute.yaml")).unwrap();
    symlink("../../outside", inner.join("app/dir")).unwrap();
    symlink("loop.yaml", inner.join("app/loop.yaml")).unwrap();
    symlink("link.yaml", inner.join("app/link-to-link.yaml")).unwrap();
    let paths = [
        "../../bait.yaml",
        "../../tree/../bait.yaml",
        "/etc/passwd",
        "link.yaml",
        "link-to-link.yaml",
        "absolute.yaml",
        "loop.yaml",
        "dir",
        "dir/kustomization.yaml",
        "../../outside",
    ];
    let options = Options { load_restrictions: LoadRestrictions::None, ..Options::default() };
    for path in paths {
        for way in WAYS {
            let text = way.replace("PATH", path);
            std::fs::write(inner.join("app/kustomization.yaml"), &text).unwrap();
            let dir = RelPath::parse("app").unwrap();
            let built = build(&DirTree::new(&inner), &dir, &options, &|| false);
            let Err(error) = built else { panic!("{text} is built") };
            assert!(!error.to_string().contains("root:"), "{error}");
        }
    }
    // Neither may the kustomization itself be a link to the outside.
    std::fs::remove_file(inner.join("app/kustomization.yaml")).unwrap();
    symlink("../../outside/kustomization.yaml", inner.join("app/kustomization.yaml")).unwrap();
    let built = build(&DirTree::new(&inner), &path("app"), &options, &|| false);
    assert!(built.is_err());
}
