//! Two texts with a line `===` between them: an object, and a patch that is merged into it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_core::{MemTree, RelPath};
use plumb_kustomize::{Options, build};

fuzz_target!(|text: &str| {
    let (object, patch) = text.split_once("\n===\n").unwrap_or((text, text));
    let kustomization = "resources: [a.yaml]\npatches: [{target: {kind: .*}, path: patch.yaml}]\n";
    let tree = MemTree::new()
        .file("kustomization.yaml", kustomization)
        .file("a.yaml", object)
        .file("patch.yaml", patch);
    if let Ok(built) = build(&tree, &RelPath::root(), &Options::default(), &|| false) {
        let _ = built.to_yaml();
    }
});
