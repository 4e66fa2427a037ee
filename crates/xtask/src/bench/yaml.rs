//! Reading manifests.

use std::hint::black_box;
use std::sync::Arc;

use plumb_core::RelPath;
use plumb_yaml::Limits;
use serde_json::{Value, json};

use super::BenchArgs;
use super::pairs::{Variant, measure};
use crate::error::TaskError;

/// A Deployment of common size, a file each.
fn manifests(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| {
            plumb_yaml::to_string(&json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {
                    "name": format!("web-{number}"),
                    "namespace": "bench",
                    "labels": { "app.kubernetes.io/name": "web", "number": number.to_string() },
                },
                "spec": {
                    "replicas": number % 7,
                    "selector": { "matchLabels": { "number": number.to_string() } },
                    "template": {
                        "metadata": { "labels": { "number": number.to_string() } },
                        "spec": { "containers": [{
                            "name": "web",
                            "image": "registry.example.com/web:1.2.3",
                            "args": ["--listen=:8080", "--log=json"],
                            "env": [{ "name": "NUMBER", "value": number.to_string() }],
                            "ports": [{ "name": "http", "containerPort": 8080 }],
                            "resources": {
                                "requests": { "cpu": "10m", "memory": "32Mi" },
                                "limits": { "memory": "64Mi" },
                            },
                            "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" } },
                        }] },
                    },
                },
            }))
        })
        .collect()
}

fn with_places(text: &str, file: &Arc<RelPath>, limits: &Limits) -> Option<Value> {
    plumb_yaml::read(text.as_bytes(), file, limits).ok()?.pop().map(|document| document.value)
}

fn plain(text: &str) -> Option<Value> {
    serde_yaml::from_str(text).ok()
}

#[expect(clippy::unnecessary_wraps, reason = "all benches have one shape")]
pub(super) fn run(args: &BenchArgs) -> Result<Value, TaskError> {
    let sizes = if args.objects.is_empty() { &[1000][..] } else { &args.objects };
    let all: Vec<_> = sizes.iter().map(|objects| one(*objects, args.pairs.unwrap_or(15))).collect();
    let agree = all.iter().all(|(agree, _)| *agree);
    let measured: Vec<_> = all.into_iter().map(|(_, measured)| measured).collect();
    Ok(json!({ "agree": agree, "measured": measured }))
}

fn one(objects: usize, pairs: usize) -> (bool, Value) {
    let texts = manifests(objects);
    let file = Arc::new(RelPath::root());
    let limits = Limits::default();
    // What differs must not be compared.
    let agree = texts.iter().all(|text| {
        let read = with_places(text, &file, &limits);
        read.is_some() && read == plain(text)
    });
    let mut first = || {
        for text in &texts {
            black_box(with_places(text, &file, &limits));
        }
    };
    let mut second = || {
        for text in &texts {
            black_box(plain(text));
        }
    };
    let figures = measure(
        pairs,
        Variant { name: "plumb-yaml", run: &mut first },
        Variant { name: "yaml_serde", run: &mut second },
    );
    let measured = json!({
        "objects": texts.len(),
        "bytes": texts.iter().map(String::len).sum::<usize>(),
        "figures": figures,
    });
    (agree, measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_read_the_same() {
        let file = Arc::new(RelPath::root());
        for text in manifests(20) {
            let read = with_places(&text, &file, &Limits::default());
            assert!(read.is_some());
            assert_eq!(read, plain(&text));
        }
    }
}
