//! What holds for any kustomization, tried on small ones made at random. A failure prints the seed
//! and the smallest case that was found.

use std::fmt::Write as _;

use plumb_core::{DirTree, MemTree, RelPath, Tree};
use plumb_kustomize::{LoadRestrictions, Options, Reorder, build};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Paths with their texts.
type Files = Vec<(String, String)>;

fn object() -> impl Strategy<Value = String> {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: NAME, labels: {a: b}}\nspec:\n  template:\n    spec:\n      containers: [{name: main, image: 'nginx:1', ports: [{containerPort: 80}]}]\n      volumes: [{name: v, configMap: {name: NAME}}]\n";
    let kinds = select(vec![
        deployment,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {a: b, c: 'd.e.f'}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: NAME, namespace: other}\nspec: {ports: [{port: 80}]}\n",
        "apiVersion: example.org/v1\nkind: Custom\nmetadata: {name: NAME, annotations: {a: '1'}}\nspec: {list: [a, {name: b}], a: 1.50}\n",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: NAME}\n",
    ]);
    (kinds, select(vec!["web", "db", "x1"])).prop_map(|(text, name)| text.replace("NAME", name))
}

/// One field of a kustomization, sound or not.
fn field() -> impl Strategy<Value = String> {
    let fields = vec![
        "namePrefix: p-",
        "nameSuffix: -s",
        "namespace: ns",
        "commonLabels: {a: x, l: y}",
        "commonAnnotations: {n: '1'}",
        "labels: [{pairs: {a: z}, includeTemplates: true}]",
        "images: [{name: nginx, newTag: '2'}]",
        "replicas: [{name: web, count: 2}]",
        "configMapGenerator: [{name: g, literals: [a=b]}]",
        "secretGenerator: [{name: g, literals: [a=b]}]",
        "configMapGenerator: [{name: web, behavior: merge, literals: [a=z]}]",
        "generatorOptions: {disableNameSuffixHash: true}",
        "sortOptions: {order: legacy}",
        "buildMetadata: [originAnnotations, transformerAnnotations]",
        "vars: [{name: V, objref: {apiVersion: v1, kind: ConfigMap, name: web}}]",
        "patches: [{target: {kind: ConfigMap}, patch: '[{\"op\": \"add\", \"path\": \"/data/z\", \"value\": 1}]'}]",
        "patches: [{target: {name: w.*}, patch: '{kind: A, metadata: {name: a}, spec: {a: null}}'}]",
        "patches: [{target: {kind: .*}, patch: '{kind: A, metadata: {name: a}, $patch: delete}'}]",
        "replacements: [{source: {kind: ConfigMap}, targets: [{select: {kind: Custom}, fieldPaths: [spec.a]}]}]",
        "replacements: [{sourceValue: q, targets: [{select: {kind: Custom}, fieldPaths: ['spec.list.[name=b].c', metadata.name], options: {create: true}}]}]",
        "transformers: ['{apiVersion: builtin, kind: SuffixTransformer, metadata: {name: t}, suffix: -t, fieldSpecs: [{path: metadata/name}]}']",
        "openapi: {version: v1.21.2}",
        "nameprefix: q-",
        "wrong: field",
    ];
    select(fields).prop_map(str::to_owned)
}

prop_compose! {
    /// A base, and maybe an overlay over it.
    fn files()(
        objects in prop::collection::vec(object(), 1..4),
        base in prop::collection::vec(field(), 0..3),
        overlay in prop::collection::vec(field(), 0..4),
    ) -> Files {
        let kustomization = |resource: &str, fields: &[String]| {
            format!("resources: [{resource}]\n{}\n", fields.join("\n"))
        };
        vec![
            ("kustomization.yaml".into(), kustomization("base", &overlay)),
            ("base/kustomization.yaml".into(), kustomization("objects.yaml", &base)),
            ("base/objects.yaml".into(), objects.join("---\n")),
        ]
    }
}

fn memory(files: &Files) -> MemTree {
    files.iter().fold(MemTree::new(), |tree, (path, text)| tree.file(path, text.as_str()))
}

fn outcome(tree: &dyn Tree, options: &Options) -> Result<String, String> {
    build(tree, &RelPath::root(), options, &|| false)
        .map(|built| built.to_yaml())
        .map_err(|error| error.to_string())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn a_build_is_the_same_every_time(files in files()) {
        let tree = memory(&files);
        let first = outcome(&tree, &Options::default());
        prop_assert_eq!(&outcome(&tree, &Options::default()), &first);
        // What is asked for beside the objects does not change them.
        let origins = Options { origins: true, ..Options::default() };
        prop_assert_eq!(&outcome(&tree, &origins), &first);
    }

    #[test]
    fn parallel_builds_are_as_serial_ones_are(all in prop::collection::vec(files(), 4)) {
        let serial: Vec<_> =
            all.iter().map(|files| outcome(&memory(files), &Options::default())).collect();
        let parallel: Vec<_> = std::thread::scope(|scope| {
            let builds: Vec<_> = all
                .iter()
                .map(|files| scope.spawn(|| outcome(&memory(files), &Options::default())))
                .collect();
            builds.into_iter().map(|build| build.join().unwrap()).collect()
        });
        prop_assert_eq!(parallel, serial);
    }

    #[test]
    fn an_empty_patch_changes_nothing(files in files(), which in any::<Index>()) {
        let before = outcome(&memory(&files), &Options::default());
        prop_assume!(before.is_ok());
        let empty = [
            "patches: [{target: {kind: .*}, patch: '{kind: A, metadata: {name: a}}'}]",
            "patches: [{target: {kind: .*}, patch: '[]'}]",
            "patches: [{target: {kind: Nothing}, patch: '[{\"op\": \"remove\", \"path\": \"/kind\"}]'}]",
            "replacements: [{sourceValue: x, targets: [{select: {kind: Nothing}}]}]",
            "commonLabels: {}",
            "images: [{name: nothing, newTag: '9'}]",
        ];
        // One more kustomization around it, that does only this.
        let mut around = String::from("resources: [inner]\n");
        writeln!(around, "{}", which.get(&empty)).unwrap();
        let inner = files.iter().map(|(path, text)| (format!("inner/{path}"), text.clone()));
        let all: Files = inner.chain([("kustomization.yaml".into(), around)]).collect();
        // What the inner one says of the order and of metadata is for the outermost only.
        prop_assume!(!files[0].1.contains("sortOptions") && !files[0].1.contains("buildMetadata"));
        let fifo = Options { reorder: Reorder::Fifo, ..Options::default() };
        prop_assert_eq!(outcome(&memory(&all), &fifo), before);
    }

    #[test]
    fn nothing_that_is_written_panics(files in files(), at in any::<Index>(), cut in any::<Index>(), piece in "\\PC{0,12}") {
        // Any text in place of a part of one of the files.
        let mut files = files;
        let text = &mut at.get_mut(&mut files).1;
        let cut = cut.index(text.len() + 1);
        let cut = (0..=cut).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.insert_str(cut, &piece);
        let options = Options { load_restrictions: LoadRestrictions::None, ..Options::default() };
        let _ = outcome(&memory(&files), &options);
    }
}

proptest! {
    // Disks are slow.
    #![proptest_config(config(8))]

    #[test]
    fn disk_and_memory_build_the_same(files in files()) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in &files {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let disk = outcome(&DirTree::new(dir.path()), &Options::default());
        prop_assert_eq!(disk, outcome(&memory(&files), &Options::default()));
    }
}
