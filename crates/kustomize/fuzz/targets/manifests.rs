//! Any bytes as a manifest: what is read is written, and read again as the same.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use plumb_core::RelPath;
use plumb_yaml::{Limits, LineMark, Marking, read, read_any, read_nodes, to_string_all};

fuzz_target!(|bytes: &[u8]| {
    let file = Arc::new(RelPath::root().child("a.yaml"));
    let limits = Limits { nodes: 10_000, ..Limits::default() };
    let marking = Marking::Below(LineMark::new(1, 0));
    let _ = read_any(bytes, &file, &limits);
    if let Ok(nodes) = read_nodes(bytes, &file, &limits, marking) {
        for document in nodes {
            let _ = document.value.to_value();
        }
    }
    if let Ok(documents) = read(bytes, &file, &limits) {
        let values: Vec<_> = documents.into_iter().map(|document| document.value).collect();
        let text = to_string_all(&values);
        let again = read(text.as_bytes(), &file, &Limits::default()).expect("it was written here");
        let again: Vec<_> = again.into_iter().map(|document| document.value).collect();
        assert_eq!(again, values, "{text}");
    }
});
