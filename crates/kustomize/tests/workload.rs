//! The workload that speed is measured with by `cargo xtask bench kustomize`, here for its counts
//! only: each application is a Deployment, a Service, a ConfigMap, a ServiceAccount and an Ingress
//! under one kustomization with namespace, prefix, labels, annotations, images and a patch on every
//! Deployment.

use std::fmt::Write as _;

use plumb_core::{MemTree, Recorder, RelPath};
use plumb_kustomize::{Options, build};

const APP: &str = include_str!("workload/app.yaml");
const KUSTOMIZATION: &str = include_str!("workload/kustomization.yaml");

fn workload(objects: usize) -> MemTree {
    let mut tree = MemTree::new();
    let mut kustomization = KUSTOMIZATION.to_owned();
    for number in 0..objects / 5 {
        let name = format!("app-{number}.yaml");
        let _infallible = writeln!(kustomization, "- {name}");
        tree = tree.file(&name, APP.replace("NUMBER", &number.to_string()));
    }
    tree.file("kustomization.yaml", kustomization)
}

#[test]
fn every_object_went_through_every_step() {
    for objects in [5, 100, 1000] {
        let tree = workload(objects);
        let recorder = Recorder::new(&tree);
        let built = build(&recorder, &RelPath::root(), &Options::default(), &|| false).unwrap();
        assert_eq!(built.objects.len(), objects);
        let text = built.to_yaml();
        let count = |part: &str| text.matches(part).count();
        let apps = objects / 5;
        assert_eq!(count("namespace: prod"), objects);
        assert_eq!(count("note: text"), objects + apps, "objects and pod templates");
        assert_eq!(count("image: registry.example.com/web:2.0.0"), apps);
        assert_eq!(count("value: by the patch"), apps);
        assert_eq!(count("serviceAccountName: p-web-"), apps);
        assert_eq!(count("name: p-settings-"), 3 * apps, "the ConfigMaps and what refers to them");
        assert_eq!(count(" name: p-web-"), 5 * apps);
        // Each file, the kustomization, and the names that a kustomization might have had.
        assert_eq!(recorder.finish().len(), apps + 4);
    }
}
