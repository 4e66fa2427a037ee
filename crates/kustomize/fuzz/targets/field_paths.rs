//! Lines that are paths: the first one of the source of a replacement, the others of its targets,
//! with and without making what is missing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_core::{MemTree, RelPath};
use plumb_kustomize::{Options, build};

const OBJECTS: &str = include_str!("objects.yaml");

fuzz_target!(|text: &str| {
    let quoted = |path: &str| format!("'{}'", path.replace('\'', "''"));
    let mut lines = text.lines().map(quoted);
    let source = lines.next().unwrap_or_default();
    let targets = lines.collect::<Vec<_>>().join(", ");
    for options in ["{}", "{create: true}", "{delimiter: '.', index: 1}"] {
        let replacements = format!(
            "source: {{kind: ConfigMap, fieldPath: {source}}}\ntargets:\n- select: {{kind: .*}}\n  fieldPaths: [{targets}]\n  options: {options}\n"
        );
        let tree = MemTree::new()
            .file("kustomization.yaml", "resources: [a.yaml]\nreplacements: [{path: r.yaml}]\n")
            .file("a.yaml", OBJECTS)
            .file("r.yaml", replacements);
        if let Ok(built) = build(&tree, &RelPath::root(), &Options::default(), &|| false) {
            let _ = built.to_yaml();
        }
    }
});
