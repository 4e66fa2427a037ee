//! The workload that speed is measured with, here for its counts only: each application is a
//! Deployment, a Service, a ConfigMap, a ServiceAccount and an Ingress under one kustomization with
//! namespace, prefix, labels, annotations, images and a patch on every Deployment.

use plumb_core::{MemTree, Recorder, RelPath};
use plumb_kustomize::{Options, build};

fn workload(objects: usize) -> MemTree {
    let mut tree = MemTree::new();
    let mut list = String::new();
    for i in 0..objects / 5 {
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web{i}}}\nspec:\n  template:\n    spec:\n      serviceAccountName: account{i}\n      containers:\n      - name: main\n        image: nginx:1.0\n        envFrom: [{{configMapRef: {{name: settings{i}}}}}]\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: web{i}}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
             apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings{i}}}\ndata: {{a: b}}\n---\n\
             apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: account{i}}}\n---\n\
             apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: web{i}}}\nspec: {{rules: [{{host: h, http: {{paths: [{{path: /, backend: {{service: {{name: web{i}}}}}}}]}}}}]}}\n"
        );
        tree = tree.file(&format!("app{i}.yaml"), text);
        list += "- app";
        list += &i.to_string();
        list += ".yaml\n";
    }
    tree.file(
        "kustomization.yaml",
        format!(
            "namespace: prod\nnamePrefix: p-\ncommonLabels: {{team: x}}\ncommonAnnotations: {{note: text}}\nimages: [{{name: nginx, newTag: '2.0'}}]\npatches:\n- target: {{kind: Deployment}}\n  patch: |\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata: {{name: any}}\n    spec: {{template: {{spec: {{containers: [{{name: main, env: [{{name: A, value: b}}]}}]}}}}}}\nresources:\n{list}"
        ),
    )
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
        assert_eq!(count("image: nginx:2.0"), apps);
        assert_eq!(count("value: b"), apps);
        assert_eq!(count("serviceAccountName: p-account"), apps);
        assert_eq!(count("name: p-settings"), 2 * apps, "the ConfigMaps and what refers to them");
        assert_eq!(count("name: p-web"), 4 * apps);
        // Each file, the kustomization, and the names that a kustomization might have had.
        assert_eq!(recorder.finish().len(), apps + 4);
    }
}
