use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchParams};
use plumb_testkit::control_plane::{AUDIT_LOG_ENV, KUBECONFIG_ENV};
use plumb_testkit::{ControlPlane, Options, sample, wait_for};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_deployment_becomes_available() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace("available").await;
    let file = plane.dir().join("available.yaml");
    std::fs::write(&file, sample::App::new("web").replicas(2).manifest()).unwrap();
    let applied = plane.kubectl(["apply", "-n", &namespace, "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));

    let deployments: Api<Deployment> = Api::namespaced(plane.client().await, &namespace);
    wait_for("2 available replicas", LIMIT, || async {
        let status = deployments.get("web").await.unwrap().status.unwrap_or_default();
        if status.available_replicas == Some(2) { Ok(()) } else { Err(status) }
    })
    .await;
}

/// Runs one test of this binary again, as the next binary of a test run would be started.
#[tokio::test]
async fn the_next_process_uses_the_control_plane_that_is_named() {
    let plane = ControlPlane::shared().await;
    let mut next = Command::new(std::env::current_exe().unwrap());
    next.args(["--exact", "control_plane::namespaces_differ_and_end"])
        .env(KUBECONFIG_ENV, plane.kubeconfig())
        .env(AUDIT_LOG_ENV, plane.audit().path());
    plane.settled().await;
    let mark = plane.audit().mark();
    let output = tokio::task::spawn_blocking(move || next.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    plane.settled().await;
    let deleted = plane.audit().requests(mark).by("admin");
    assert!(deleted.count("delete namespaces") > 0, "{}", deleted.table());
}

#[tokio::test]
async fn namespaces_differ_and_end() {
    let plane = ControlPlane::shared().await;
    let (one, two) = (plane.namespace("same").await, plane.namespace("same").await);
    assert_ne!(one, two);
    let namespaces: Api<Namespace> = Api::all(plane.client().await);
    namespaces.delete(&one, &kube::api::DeleteParams::default()).await.unwrap();
    wait_for("the end of a deleted namespace", LIMIT, || async {
        let left = namespaces.get_opt(&one).await.unwrap();
        left.map_or(Ok(()), |namespace| Err(namespace.status))
    })
    .await;
}

#[tokio::test]
async fn an_account_can_what_its_role_allows_and_the_log_tells_it_apart() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace("account").await;
    let viewer = plane.service_account(&namespace, "viewer", "view").await;
    let editor = plane.service_account(&namespace, "editor", "edit").await;
    plane.settled().await;
    let mark = plane.audit().mark();

    let view: Api<ConfigMap> =
        Api::namespaced(plane.client_of(viewer.kubeconfig()).await, &namespace);
    let edit: Api<ConfigMap> =
        Api::namespaced(plane.client_of(editor.kubeconfig()).await, &namespace);
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap();
    edit.create(&PostParams::default(), &map).await.unwrap();
    let manager = PatchParams::apply("test");
    for value in ["1", "2"] {
        let patch = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "k": value } });
        edit.patch("a", &manager, &Patch::Apply(patch)).await.unwrap();
    }
    view.list(&ListParams::default()).await.unwrap();
    let refused = view.create(&PostParams::default(), &map).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
    drop(view.watch(&WatchParams::default().timeout(5), "0").await.unwrap());

    plane.settled().await;
    let requests = plane.audit().requests(mark).within(&namespace);
    let edited = requests.clone().by(&editor.user());
    let counts: Vec<_> = edited.counts().into_iter().collect();
    assert_eq!(counts, [("create configmaps".into(), 1), ("patch configmaps".into(), 2)]);
    assert_eq!(edited.clone().writes().len(), 3);
    let patched = edited.iter().find(|event| event.verb == "patch").unwrap();
    assert_eq!((patched.name.as_str(), patched.code), ("a", 200));
    assert!(patched.uri.contains("fieldManager=test"), "{}", patched.uri);
    assert_eq!(patched.body["data"]["k"], "1", "what processes under test send is in the log");
    assert!(patched.received.ends_with('Z'), "{}", patched.received);
    let viewed = requests.by(&viewer.user());
    assert_eq!(viewed.count("list configmaps"), 1, "{}", viewed.table());
    assert_eq!(viewed.count("watch configmaps"), 1, "{}", viewed.table());
    let refused = viewed.iter().find(|event| event.verb == "create").unwrap();
    assert_eq!(refused.code, 403);
}

#[tokio::test]
async fn a_stopped_or_held_api_server_comes_back_with_what_it_knew() {
    let plane = ControlPlane::start(Options { nodes: 0, controllers: false }).await;
    let namespace = plane.namespace("kept").await;
    let namespaces: Api<Namespace> = Api::all(plane.client().await);

    plane.stop_apiserver();
    let port = plane.server().rsplit(':').next().unwrap().parse().unwrap();
    let refused = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    plane.start_apiserver().await;
    namespaces.get(&namespace).await.unwrap();

    plane.pause_apiserver();
    let fresh: Api<Namespace> = Api::all(plane.client().await);
    let held = tokio::time::timeout(Duration::from_millis(300), fresh.get(&namespace)).await;
    assert!(held.is_err(), "{held:?}");
    plane.resume_apiserver();
    fresh.get(&namespace).await.unwrap();
}
