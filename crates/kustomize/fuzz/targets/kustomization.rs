//! Any bytes as a kustomization, beside two objects that it may use.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb_core::{MemTree, RelPath};
use plumb_kustomize::{Options, build};

const OBJECTS: &str = include_str!("objects.yaml");

fuzz_target!(|bytes: &[u8]| {
    let tree = MemTree::new().file("kustomization.yaml", bytes).file("a.yaml", OBJECTS);
    if let Ok(built) = build(&tree, &RelPath::root(), &Options::default(), &|| false) {
        let _ = built.to_yaml();
    }
});
