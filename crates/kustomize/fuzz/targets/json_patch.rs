//! Any text as a JSON patch, in YAML or JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_core::{MemTree, RelPath};
use plumb_kustomize::{Options, build};

const OBJECTS: &str = include_str!("objects.yaml");

fuzz_target!(|text: &str| {
    let kustomization = "resources: [a.yaml]\npatches: [{target: {kind: .*}, path: patch.yaml}]\n";
    let tree = MemTree::new()
        .file("kustomization.yaml", kustomization)
        .file("a.yaml", OBJECTS)
        .file("patch.yaml", text);
    if let Ok(built) = build(&tree, &RelPath::root(), &Options::default(), &|| false) {
        let _ = built.to_yaml();
    }
});
