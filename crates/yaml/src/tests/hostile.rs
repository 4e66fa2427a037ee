//! Seeded noise: random bytes and damaged manifests neither panic nor take long.

use std::sync::Arc;

use crate::{Limits, read, to_string_all};
use plumb_core::RelPath;

const MANIFEST: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: &name web
  annotations: {a: 1, b: 0x10, c: 2001-12-14}
spec:
  template: &t
    containers:
    - name: *name
      image: \"nginx:1.27\\u00e9\"
      args: ['--a=b', \"\\x41\", !!str 12, !!binary aGk=]
      script: |-
        set -e
        echo \"hi\"
      note: >
        folded
        text
  other:
    <<: [*t, {x: 1_000.5}]
    mode: 0644
---
kind: List
items:
- {kind: ConfigMap, metadata: {name: a}, data: {k: |+
...
";

const PIECES: [&[u8]; 24] = [
    b"---\n",
    b"...\n",
    b": ",
    b"- ",
    b"? ",
    b"&a ",
    b"*a ",
    b"<<: *a\n",
    b"!!int ",
    b"!",
    b"|\n",
    b">-\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"'",
    b"\t",
    b"\n",
    b"  ",
    b"\xef\xbb\xbf",
    b"%YAML 1.1\n",
    b"\xff",
];

#[test]
fn damaged_files_are_answered() {
    let seed = 20_261_122;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let file = Arc::new(RelPath::parse("a.json").unwrap());
    let limits = Limits { bytes: 100_000, depth: 40, nodes: 2_000, documents: 50 };
    let (mut good, mut bad) = (0, 0);
    for round in 0..4_000 {
        let mut bytes: Vec<u8> = match round % 4 {
            0 => (0..random.usize(0..200)).map(|_| random.u8(..)).collect(),
            1 => (0..random.usize(0..60))
                .flat_map(|_| PIECES[random.usize(..PIECES.len())].to_vec())
                .collect(),
            2 => serde_json::json!({"a": [1, "b\\u0041", {"c": null}], "kind": "X"})
                .to_string()
                .into_bytes(),
            _ => MANIFEST.as_bytes().to_vec(),
        };
        for _ in 0..random.usize(0..4) {
            let at = random.usize(..=bytes.len());
            match random.u8(0..3) {
                0 => {
                    let end = (at + random.usize(0..20)).min(bytes.len());
                    bytes.drain(at..end);
                }
                1 => {
                    let piece = PIECES[random.usize(..PIECES.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
                _ => {
                    let end = (at + random.usize(0..80)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    let to = random.usize(..=bytes.len());
                    bytes.splice(to..to, copy);
                }
            }
        }
        match read(&bytes, &file, &limits) {
            Ok(documents) => {
                good += 1;
                // What was read can be written, and reads as the same.
                let values: Vec<_> = documents.into_iter().map(|d| d.value).collect();
                let text = to_string_all(&values);
                let again = read(text.as_bytes(), &file, &limits);
                let again: Vec<_> = again
                    .unwrap_or_else(|e| panic!("{e}\n{text}"))
                    .into_iter()
                    .map(|d| d.value)
                    .collect();
                assert_eq!(again, values, "{text}");
            }
            Err(errors) => {
                bad += 1;
                assert!(!errors.problems.is_empty());
                assert!(errors.problems.len() <= 100);
            }
        }
    }
    println!("{good} good, {bad} bad");
    assert!(good > 100 && bad > 100);
}
