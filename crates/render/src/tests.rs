//! What paths of in-memory trees render to.

mod kustomize;
mod sealed;
mod substitute;

use std::cell::Cell;
use std::error::Error as _;

use plumb_core::{
    ContentId, Entry, EntryKind, ErrorClass, FieldPath, MemTree, RelPath, Tree, TreeError,
};

use crate::{Failure, RenderError, RenderLimits, RenderOptions, Rendered, render};

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n")
}

fn try_render(tree: &dyn Tree, at: &str, options: &RenderOptions) -> Result<Rendered, Failure> {
    render(tree, &path(at), options, &|| false)
}

fn done(tree: &dyn Tree, at: &str) -> Rendered {
    try_render(tree, at, &RenderOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn failed(tree: &dyn Tree, at: &str) -> Failure {
    try_render(tree, at, &RenderOptions::default()).unwrap_err()
}

fn names(rendered: &Rendered) -> String {
    let names: Vec<&str> = rendered.objects.iter().map(plumb_core::Object::name).collect();
    names.join(" ")
}

/// A tree of files that hold a ConfigMap named after the last digit-free part of their path.
fn tree(files: &[&str]) -> MemTree {
    files.iter().fold(MemTree::new(), |tree, file| {
        let name = file.replace(['/', '.', '_'], "-");
        tree.file(file, config_map(&name))
    })
}

#[test]
fn a_directory_is_read_in_the_order_of_names() {
    let tree = tree(&["app/b.yaml", "app/a/z.yml", "app/a.json", "app/c/d/e.yaml", "other/x.yaml"])
        .file("app/README.md", "# no manifest")
        .file("app/two.yaml", format!("---\n{}---\n{}", config_map("two"), config_map("three")))
        .file("app/empty.yaml", "# nothing\n---\n")
        .file("app/list.yaml", "{\"kind\": \"List\", \"items\": [{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"in-list\"}}]}");
    let rendered = done(&tree, "app");
    assert_eq!(
        names(&rendered),
        "app-a-z-yml app-a-json app-b-yaml app-c-d-e-yaml in-list two three"
    );
    let three = &rendered.objects[6];
    assert_eq!(three.place().to_string(), "app/two.yaml:7");
    let name = FieldPath::keys(["metadata", "name"]);
    assert_eq!(three.field_place(&name).to_string(), "app/two.yaml:10");
    assert_eq!(names(&done(&tree, "app/two.yaml")), "two three");
    assert_eq!(done(&tree, "").objects.len(), 8);
    assert_eq!(names(&done(&MemTree::new().file("app/x.md", ""), "app")), "");
}

#[test]
fn inputs_say_what_matters() {
    let base = tree(&["apps/web/a.yaml", "apps/web/sub/b.yaml", "apps/api/c.yaml"])
        .file("apps/web/README.md", "x")
        .file("apps/web/secret/.plumbignore", "*")
        .file("apps/web/.plumbignore", "skipped/\n")
        .file("apps/web/skipped/d.yaml", "1");
    let rendered = done(&base, "apps/web");
    let cases = [
        ("the same", base.clone(), true),
        ("elsewhere", base.clone().file("apps/api/c.yaml", "x"), true),
        ("a new directory beside", base.clone().file("apps/new/c.yaml", "x"), true),
        ("a new file at the root", base.clone().file("README.md", "x"), true),
        ("no manifest", base.clone().file("apps/web/README.md", "y"), true),
        ("an ignored file", base.clone().file("apps/web/skipped/d.yaml", "2"), true),
        ("a manifest", base.clone().file("apps/web/sub/b.yaml", "x"), false),
        ("a new manifest", base.clone().file("apps/web/sub/c.yaml", "x"), false),
        ("an ignore file", base.clone().file("apps/web/.plumbignore", "x"), false),
        ("an ignore file above", base.clone().file("apps/.sourceignore", "x"), false),
        ("an ignore file at the root", base.clone().file(".plumbignore", "x"), false),
    ];
    for (what, tree, want) in cases {
        assert_eq!(rendered.inputs.unchanged_in(&tree).unwrap(), want, "{what}");
    }

    // A failure knows its inputs as well.
    let broken = base.clone().file("apps/web/a.yaml", "a: [");
    let failure = failed(&broken, "apps/web");
    assert!(failure.inputs.unchanged_in(&broken).unwrap());
    let elsewhere = broken.clone().file("apps/api/c.yaml", "x");
    assert!(failure.inputs.unchanged_in(&elsewhere).unwrap());
    assert!(!failure.inputs.unchanged_in(&base).unwrap());

    let failure = failed(&base, "apps/nope/deeper");
    assert!(failure.inputs.unchanged_in(&base).unwrap());
    assert!(
        !failure.inputs.unchanged_in(&base.clone().file("apps/nope/deeper/a.yaml", "")).unwrap()
    );
}

#[test]
fn the_digest_is_of_the_objects() {
    let digest = |tree: &MemTree| done(tree, "a").digest;
    let base = tree(&["a/x.yaml", "a/y.yaml"]);
    assert_eq!(digest(&base), digest(&base.clone().file("a/z.md", "z")));
    let commented = base.clone().file("a/x.yaml", format!("# c\n{}", config_map("a-x-yaml")));
    assert_eq!(digest(&base), digest(&commented));
    assert_ne!(digest(&base), digest(&base.clone().file("a/x.yaml", config_map("q"))));
    let swapped = MemTree::new()
        .file("a/x.yaml", config_map("a-y-yaml"))
        .file("a/y.yaml", config_map("a-x-yaml"));
    assert_ne!(digest(&base), digest(&swapped));
}

/// What is tested, ignore files with their text, the options' patterns, the names that are left.
type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], Option<&'c str>, &'c str);

#[test]
fn ignore_rules() {
    let base = || {
        tree(&["a/x.yaml", "a/y.yaml", "a/b/x.yaml", "a/b/c/x.yaml"])
            .file("a/.github/workflow.yaml", "on: push")
            .file("a/cloudbuild.yaml", "steps: []")
            .file("a/.sops.yaml", "x: y")
    };
    let all = "a-b-c-x-yaml a-b-x-yaml a-x-yaml a-y-yaml";
    let cases: [Case<'_>; 14] = [
        ("nothing", &[], None, all),
        ("a name", &[("a/.plumbignore", "y.yaml")], None, "a-b-c-x-yaml a-b-x-yaml a-x-yaml"),
        ("a name at all depths", &[("a/.plumbignore", "x.yaml\n")], None, "a-y-yaml"),
        (
            "anchored",
            &[("a/.plumbignore", "/x.yaml\r\n")],
            None,
            "a-b-c-x-yaml a-b-x-yaml a-y-yaml",
        ),
        ("Flux's file", &[("a/.sourceignore", "b/")], None, "a-x-yaml a-y-yaml"),
        ("ours after Flux's", &[("a/.sourceignore", "b/"), ("a/.plumbignore", "!b/")], None, all),
        (
            "a directory's own",
            &[("a/b/.plumbignore", "/x.yaml")],
            None,
            "a-b-c-x-yaml a-x-yaml a-y-yaml",
        ),
        ("not outside it", &[("a/b/.plumbignore", "y.yaml")], None, all),
        (
            "inner after outer",
            &[("a/.plumbignore", "x.yaml"), ("a/b/.plumbignore", "!x.yaml")],
            None,
            "a-b-c-x-yaml a-b-x-yaml a-y-yaml",
        ),
        ("above the path", &[(".plumbignore", "/a/b\n# c\n\n")], None, "a-x-yaml a-y-yaml"),
        ("options", &[], Some("/a/b/\n"), "a-x-yaml a-y-yaml"),
        (
            "options are last",
            &[("a/.plumbignore", "*.yaml")],
            Some("!x.yaml"),
            "a-b-c-x-yaml a-b-x-yaml a-x-yaml",
        ),
        (
            "an excluded directory stays",
            &[("a/.plumbignore", "b/")],
            Some("!x.yaml"),
            "a-x-yaml a-y-yaml",
        ),
        (
            "only one directory",
            &[(".plumbignore", "/*\n!/a\n/a/*\n!/a/b")],
            None,
            "a-b-c-x-yaml a-b-x-yaml",
        ),
    ];
    for (what, files, ignore, want) in cases {
        let tree = files.iter().fold(base(), |tree, (file, text)| tree.file(file, *text));
        let options =
            RenderOptions { ignore: ignore.map(str::to_owned), ..RenderOptions::default() };
        let rendered = try_render(&tree, "a", &options).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(names(&rendered), want, "{what}");
    }
    // Built-in patterns give way, too.
    let options =
        RenderOptions { ignore: Some("!cloudbuild.yaml".into()), ..RenderOptions::default() };
    let error = try_render(&base(), "a", &options).unwrap_err().to_string();
    assert_eq!(error, "a/cloudbuild.yaml:1: object has no kind");
}

#[test]
fn errors_of_the_path() {
    let tree = tree(&["apps/web/a.yaml"])
        .link("out", "../elsewhere")
        .link("gone", "nowhere")
        .link("to-file", "apps/web/a.yaml")
        .file("apps/.plumbignore", "drafts/\n*.tmp.yaml\n")
        .file("apps/drafts/x.yaml", "")
        .file("apps/x.tmp.yaml", "")
        .file("kust/Kustomization", "")
        .file("deep/er/kustomization.yml", "")
        .file("chart/Chart.yaml", "")
        .file("chart/templates/x.yaml", "{{ no yaml }}")
        .file("chart-below/a.yaml", config_map("a"))
        .file("chart-below/chart/Chart.yaml", "name: c")
        .file("chart-below/chart/templates/x.yaml", "{{ no yaml }}");
    let cases = [
        (
            "nope",
            "path nope does not exist in the repository [the path is relative to the root of the repository]",
        ),
        ("apps/nope/x", "path apps/nope/x does not exist in the repository [apps exists]"),
        (
            "apps/web/a.yaml/x",
            "path apps/web/a.yaml/x does not exist in the repository [apps/web/a.yaml exists]",
        ),
        (
            "gone",
            "path gone does not exist in the repository [the path is relative to the root of the repository]",
        ),
        (
            "out/x",
            "cannot follow the path out/x: symbolic link out points to \"../elsewhere\", outside the repository",
        ),
        (
            "apps/drafts",
            "path apps/drafts is excluded by the pattern `drafts/` of apps/.plumbignore [remove `drafts/`, or take the path back in with a `!` pattern]",
        ),
        (
            "apps/x.tmp.yaml",
            "path apps/x.tmp.yaml is excluded by the pattern `*.tmp.yaml` of apps/.plumbignore [remove `*.tmp.yaml`, or take the path back in with a `!` pattern]",
        ),
        (
            "kust",
            "kust/Kustomization:1: the kustomization is empty [list in resources what to build]",
        ),
        (
            "kust/Kustomization",
            "path kust/Kustomization is a kustomization; what is built is its directory [set the path to kust]",
        ),
        (
            "deep",
            "deep/er/kustomization.yml:1: the kustomization is empty [list in resources what to build]",
        ),
        (
            "chart",
            "chart/Chart.yaml makes chart a Helm chart, which cannot be rendered [commit the output of `helm template` instead]",
        ),
    ];
    for (at, want) in cases {
        let failure = failed(&tree, at);
        let mut got = failure.to_string();
        if let Some(source) = failure.source() {
            got = format!("{got}: {source}");
        }
        if let Some(hint) = failure.error.hint() {
            got = format!("{got} [{hint}]");
        }
        assert_eq!(got, want, "{at}");
        assert_eq!(failure.error.class(), ErrorClass::WaitForUser);
        assert!(failure.inputs.unchanged_in(&tree).unwrap(), "{at}");
        assert!(!failure.inputs.is_empty(), "{at}");
    }
    assert_eq!(names(&done(&tree, "to-file")), "apps-web-a-yaml");
    assert_eq!(names(&done(&tree, "chart-below")), "a");
    // An ignored kustomization makes no Kustomize directory.
    let ignored = tree.file("deep/.plumbignore", "kustomization.yml");
    assert_eq!(names(&done(&ignored, "deep")), "");
}

#[test]
fn every_bad_file_is_named() {
    let tree = MemTree::new()
        .file("a/1.yaml", format!("a: [\n---\n{}", config_map("twice")))
        .file(
            "a/2.yaml",
            "kind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nmetadata: {name: a}\n",
        )
        .file("a/3.yaml", "---\napiVersion: v1\nkind: Pod\nmetadata:\n  generateName: a-\n")
        .file("a/4.json", "{\"a\" 1}")
        .file("a/5.yaml", "- 1")
        .file("a/6.yaml", format!("\n\n{}", config_map("twice")))
        .file("a/7.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n")
        .file(
            "a/8.yaml",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {x: hunter2, x: hunter2}",
        )
        .file("a/9.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: 123}")
        .file("a/.plumbignore", "ok\na[b\n")
        .link("a/l1.yaml", "nowhere")
        .link("a/l2", "../..")
        .link("a/l3", "../a")
        .link("a/l4.yaml", "l4.yaml");
    let failure = failed(&tree, "a");
    let want = "\
a/.plumbignore:2: invalid pattern: error parsing glob 'a[b': unclosed character class; missing ']'
a/1.yaml:1: invalid YAML: unclosed bracket '['
a/2.yaml:1: ConfigMap has no apiVersion
a/2.yaml:4: object has no kind
a/3.yaml:2: Pod has no metadata.name
a/4.json:1: invalid JSON: expected `:`
a/5.yaml:1: a manifest must be a map, not a list
a/6.yaml:3: ConfigMap twice is already defined at a/1.yaml:3
a/7.yaml: the file is a Git LFS pointer, its content is not in the repository
a/8.yaml:4: key \"x\" is already defined on line 4
a/9.yaml:1: Pod has a metadata.name that is not a string
a/l1.yaml: symbolic link leads to nothing
symbolic link a/l2 points to \"../..\", outside the repository
a/l3: symbolic link leads back to a, which contains it
symbolic link a/l4.yaml leads in a circle";
    assert_eq!(failure.to_string(), want);
    let hints: Vec<String> =
        failure.error.problems().iter().map(|problem| problem.hint().unwrap_or_default()).collect();
    assert_eq!(
        hints,
        [
            "",
            "",
            "if it is no manifest, list a/2.yaml in .plumbignore",
            "if it is no manifest, list a/2.yaml in .plumbignore",
            "give it a fixed name, generateName makes a new object each time",
            "",
            "if it is no manifest, list a/5.yaml in .plumbignore",
            "remove one of the two",
            "keep manifests out of Git LFS",
            "remove one of the two",
            "if it is no manifest, list a/9.yaml in .plumbignore",
            "if it is no manifest, list a/l1.yaml in .plumbignore",
            "if it is no manifest, list a/l2 in .plumbignore",
            "list a/l3 in .plumbignore",
            "if it is no manifest, list a/l4.yaml in .plumbignore",
        ]
    );
    assert!(failure.inputs.unchanged_in(&tree).unwrap());

    let many = (0..70).fold(MemTree::new(), |tree, i| tree.file(&format!("{i:02}.yaml"), "1"));
    let failure = failed(&many, "");
    assert_eq!(failure.error.problems().len(), 50);
    assert!(failure.to_string().ends_with("\nand 20 more problems"), "{failure}");
}

#[test]
fn same_names_in_other_namespaces_and_groups_are_other_objects() {
    let object = |api: &str, kind: &str, namespace: &str| {
        format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a{namespace}}}\n---\n")
    };
    let text = object("v1", "A", "")
        + &object("v1", "A", ", namespace: b")
        + &object("g/v1", "A", "")
        + &object("v1", "B", "");
    assert_eq!(done(&MemTree::new().file("a.yaml", text.as_str()), "").objects.len(), 4);
    let text = text + &object("g/v2", "A", "");
    let error = failed(&MemTree::new().file("a.yaml", text), "").to_string();
    assert_eq!(error, "a.yaml:17: A.g a is already defined at a.yaml:9");
}

#[test]
fn links_are_followed_inside_the_tree() {
    let base = tree(&["shared/x.yaml", "shared/deep/y.yaml", "base/z.yaml"])
        .link("app/dir", "../shared")
        .link("app/z.yaml", "../base/z.yaml")
        .link("app/.plumbignore", "../rules")
        .link("app/README", "dir/x.yaml")
        .link("alias", "app")
        .file("rules", "deep/\nREADME");
    let rendered = done(&base, "app");
    assert_eq!(names(&rendered), "shared-x-yaml base-z-yaml");
    assert_eq!(rendered.objects[0].place().to_string(), "app/dir/x.yaml:1");
    assert_eq!(names(&done(&base, "alias")), "shared-x-yaml base-z-yaml");
    assert_eq!(names(&done(&base, "app/dir/deep")), "shared-deep-y-yaml");
    let changed = [
        base.clone().file("shared/x.yaml", "x"),
        base.clone().file("base/z.yaml", "x"),
        base.clone().file("rules", ""),
        base.clone().link("app/dir", "../base"),
        base.clone().file("shared/new.yaml", ""),
    ];
    for tree in &changed {
        assert!(!rendered.inputs.unchanged_in(tree).unwrap());
    }
    let by_alias = done(&base, "alias");
    assert!(!by_alias.inputs.unchanged_in(&base.clone().link("alias", "base")).unwrap());
    assert!(by_alias.inputs.unchanged_in(&base.clone().file("q/r", "")).unwrap());
}

/// A tree with a submodule, or a store that fails.
struct Odd {
    tree: MemTree,
    submodule: Option<RelPath>,
    broken: Option<RelPath>,
}

impl Tree for Odd {
    fn entry(&self, path: &RelPath) -> Result<Option<Entry>, TreeError> {
        match &self.submodule {
            Some(submodule) if path == submodule => {
                Ok(Some(Entry { kind: EntryKind::Submodule, id: ContentId::of(b"commit") }))
            }
            Some(submodule) if path.is_within(submodule) => Ok(None),
            _ => self.tree.entry(path),
        }
    }

    fn list(&self, dir: &RelPath) -> Result<Vec<(String, Entry)>, TreeError> {
        let mut entries = self.tree.list(dir)?;
        for (name, entry) in &mut entries {
            if let Some(other) = self.entry(&dir.child(name))? {
                *entry = other;
            }
        }
        Ok(entries)
    }

    fn read(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, TreeError> {
        if self.broken.as_ref() == Some(path) {
            return Err(TreeError::Read { path: path.clone(), source: "disk on fire".into() });
        }
        self.tree.read(path, limit)
    }
}

#[test]
fn submodules_are_passed_over_but_not_as_the_path() {
    let tree = Odd {
        tree: tree(&["a/x.yaml", "a/sub/y.yaml"]),
        submodule: Some(path("a/sub")),
        broken: None,
    };
    assert_eq!(names(&done(&tree, "a")), "a-x-yaml");
    for at in ["a/sub", "a/sub/y.yaml"] {
        let failure = failed(&tree, at);
        assert_eq!(failure.to_string(), format!("path {at} leads into the Git submodule a/sub"));
        assert!(failure.error.hint().unwrap().contains("recurseSubmodules"));
        assert!(failure.inputs.unchanged_in(&tree).unwrap());
        assert!(!failure.inputs.unchanged_in(&tree.tree).unwrap());
    }
}

#[test]
fn a_failing_store_is_tried_again() {
    let tree = Odd {
        tree: tree(&["a/x.yaml", "a/y.yaml"]),
        submodule: None,
        broken: Some(path("a/y.yaml")),
    };
    let failure = failed(&tree, "a");
    assert!(matches!(failure.error, RenderError::Tree(_)));
    assert_eq!(failure.error.class(), ErrorClass::Retry);
}

#[test]
fn it_can_be_interrupted_between_files() {
    let tree = tree(&["a/x.yaml", "a/y.yaml", "a/z.yaml"]);
    let asked = Cell::new(0);
    let interrupted = || {
        asked.set(asked.get() + 1);
        asked.get() == 3
    };
    let failure = render(&tree, &path("a"), &RenderOptions::default(), &interrupted).unwrap_err();
    assert!(matches!(failure.error, RenderError::Interrupted));
    assert_eq!((asked.get(), failure.error.class()), (3, ErrorClass::Retry));
}

#[test]
fn limits() {
    let base = tree(&["a/x.yaml", "a/y.yaml", "a/b/c/z.yaml"]);
    let defaults = RenderLimits::default();
    let file = plumb_yaml::Limits { bytes: 20, ..defaults.file };
    let cases = [
        (RenderLimits { bytes: 100, ..defaults }, "a has more than 100 bytes"),
        (RenderLimits { entries: 4, ..defaults }, "a has more than 4 names in its directories"),
        (RenderLimits { depth: 2, ..defaults }, "a has more than 2 levels of directories"),
        (RenderLimits { objects: 2, ..defaults }, "a has more than 2 objects"),
        (
            RenderLimits { file, ..defaults },
            "a/b/c/z.yaml has 62 bytes, more than the limit of 20\na/x.yaml has 58 bytes, more than the limit of 20\na/y.yaml has 58 bytes, more than the limit of 20",
        ),
    ];
    for (limits, want) in cases {
        let options = RenderOptions { limits, ..RenderOptions::default() };
        let got = try_render(&base, "a", &options).unwrap_err().to_string();
        assert_eq!(got, want);
    }
    // Links to links to links: 2^20 directories in 40 entries.
    let bomb = (0..20).fold(MemTree::new(), |tree, i| {
        let next = format!("../{}", i + 1);
        tree.link(&format!("{i}/a"), &next).link(&format!("{i}/b"), &next)
    });
    let bomb = bomb.file("20/x.md", "");
    let limits = RenderLimits { entries: 1000, ..defaults };
    let options = RenderOptions { limits, ..RenderOptions::default() };
    let error = try_render(&bomb, "0", &options).unwrap_err().to_string();
    assert_eq!(error, "0 has more than 1000 names in its directories");
}

#[test]
fn ignore_files_count_against_a_budget_too() {
    let each = |count: usize, text: &str| {
        (0..count).fold(MemTree::new(), |tree, i| tree.file(&format!("a/{i}/.plumbignore"), text))
    };
    let refused = |tree: &MemTree| failed(tree, "a").error.to_string();
    assert_eq!(refused(&each(1001, "x\n")), "a has more than 1000 ignore files");
    // A comment costs nothing but its bytes.
    let large = format!("# {}\n", "x".repeat(60_000));
    assert_eq!(refused(&each(18, &large)), "a has more than 1048576 bytes in its ignore files");
    try_render(&each(17, &large), "a", &RenderOptions::default()).unwrap();
}

/// Any tree of few names, so that links, ignore files and duplicates meet often.
fn any_tree(random: &mut fastrand::Rng, mut tree: MemTree, changes: usize) -> MemTree {
    let dirs = ["", "a/", "a/b/", "a/b/c/", "d/", "d/b/"];
    for _ in 0..changes {
        let dir = dirs[random.usize(..dirs.len())];
        let name = random.u8(0..4);
        tree = match random.u8(0..18) {
            0..5 | 12.. => tree.file(
                &format!("{dir}{name}.yaml"),
                config_map(&format!("n{name}{}", dir.replace('/', "-"))),
            ),
            5 if name == 0 => tree.file(&format!("{dir}{name}.yaml"), "kind: x: y"),
            6 => tree.file(&format!("{dir}README.md"), name.to_string()),
            7 => {
                let patterns = ["b/", "*.yaml", "!1.yaml", "/a/b", "0.yaml\nc", "["];
                let pattern = patterns[random.usize(..patterns.len())];
                tree.file(&format!("{dir}.plumbignore"), pattern)
            }
            8 => tree.file(&format!("{dir}.sourceignore"), format!("{name}.yaml")),
            9 => {
                let targets = ["../d", "b", "../b/c", "..", "nowhere", "../../..", "0.yaml"];
                tree.link(&format!("{dir}link"), targets[random.usize(..targets.len())])
            }
            10 if random.bool() => {
                let texts =
                    ["", "resources: [0.yaml]", "resources: [b, 1.yaml]", "{namePrefix: x}"];
                let text = texts[random.usize(..texts.len())];
                let name = ["kustomization.yaml", "Kustomization"][random.usize(..2)];
                tree.file(&format!("{dir}{name}"), text)
            }
            10 => tree.link(&format!("{dir}{name}.yaml"), "../d/0.yaml"),
            _ => tree.file(&format!("{dir}Chart.yaml"), ""),
        };
    }
    tree
}

#[test]
fn unchanged_inputs_mean_the_same_result() {
    let seed = 20_261_122;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let show = |result: &Result<Rendered, Failure>| match result {
        Ok(rendered) => format!("{} {}", rendered.digest, names(rendered)),
        Err(failure) => failure.to_string(),
    };
    let (mut kept, mut objects, mut failures) = (0, 0, 0);
    for _ in 0..1500 {
        let changes = random.usize(1..14);
        let before = any_tree(&mut random, MemTree::new(), changes);
        let changes = random.usize(1..3);
        let after = any_tree(&mut random, before.clone(), changes);
        let at = ["", "a", "a/b", "d", "a/link", "a/0.yaml", "a/link/b"][random.usize(..7)];
        let mut options = RenderOptions::default();
        if random.u8(0..4) == 0 {
            options.overlay.components = vec!["../d".into(), "b".into()];
            options.overlay.ignore_missing_components = random.bool();
        }
        let (old, new) = (try_render(&before, at, &options), try_render(&after, at, &options));
        let inputs = match &old {
            Ok(rendered) => {
                objects += rendered.objects.len();
                &rendered.inputs
            }
            Err(failure) => {
                failures += 1;
                &failure.inputs
            }
        };
        assert!(inputs.unchanged_in(&before).unwrap());
        if inputs.unchanged_in(&after).unwrap() {
            kept += 1;
            assert_eq!(show(&old), show(&new), "{at}: {before:?}\n{after:?}");
        }
    }
    println!("{kept} unchanged, {objects} objects, {failures} failures");
    assert!(kept > 300 && objects > 300 && failures > 300);
}
