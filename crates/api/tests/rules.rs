//! The rules of the CRDs, as the real API server applies them.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Client, CustomResourceExt, ResourceExt};
use plumb_api::{Application, ApplicationStatus, Condition, GitRepository, Time, names};
use plumb_testkit::{ControlPlane, wait_for};
use serde_json::{Value, json};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Applies the CRDs and waits until they are served.
async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in plumb_api::crds() {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply("plumb-tests").force(), &Patch::Apply(&crd))
            .await
            .unwrap_or_else(|error| panic!("the API server refuses the CRD {name}: {error}"));
        wait_for("an established CRD", Duration::from_mins(1), || async {
            let conditions = api.get(&name).await.ok()?.status?.conditions?;
            conditions
                .iter()
                .any(|condition| condition.type_ == "Established" && condition.status == "True")
                .then_some(())
        })
        .await;
    }
}

/// Sends a create as a dry run and returns the object as it would be stored, or the message.
async fn create(
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
    spec: &Value,
) -> Result<Value, String> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": names::API_VERSION,
        "kind": resource.kind,
        "metadata": { "name": "tried" },
        "spec": spec,
    }))
    .unwrap();
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match api.create(&params, &object).await {
        Ok(object) => Ok(serde_json::to_value(object).unwrap()),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => panic!("the API server was not asked: {error}"),
    }
}

/// `base` with the fields of `change` set; null takes a field away.
fn changed(base: &Value, change: &Value) -> Value {
    let mut spec = base.clone();
    for (key, value) in change.as_object().unwrap() {
        if value.is_null() {
            spec.as_object_mut().unwrap().remove(key);
        } else {
            spec[key] = value.clone();
        }
    }
    spec
}

/// Tries each change of a good spec. An empty expectation means that it is accepted; otherwise the
/// message must have it, and must have nothing to say of another mistake.
async fn check(resource: &ApiResource, base: Value, table: &[(Value, &str)]) {
    let plane = ControlPlane::shared().await;
    let client = plane.client().await;
    install(&client).await;
    let namespace = plane.namespace("rules").await;
    let mut wrong = Vec::new();
    for (change, expected) in table {
        let spec = changed(&base, change);
        let result = create(&client, &namespace, resource, &spec).await;
        let fine = match (&result, *expected) {
            (Ok(_), expected) => expected.is_empty(),
            (Err(_), "") => false,
            (Err(message), expected) => message.contains(expected) && mistakes(message) == 1,
        };
        if !fine {
            let result = result.map(|_| "accepted");
            wrong.push(format!("{change}\n  expected: {expected:?}\n  was: {result:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How many mistakes a refusal names: each begins with the path of its field.
fn mistakes(message: &str) -> usize {
    message
        .split(' ')
        .map(|word| word.trim_start_matches('['))
        .filter(|word| word.starts_with("spec.") && word.ends_with(':'))
        .count()
}

#[tokio::test]
async fn a_git_repository_is_checked_when_it_is_applied() {
    let base = json!({ "url": "https://git.example.com/org/repo.git", "interval": "1m" });
    let reference = |value: Value| json!({ "ref": value });
    let verify = |mode: &str, reference: Value| json!({ "ref": reference, "verify": { "mode": mode, "secretRef": { "name": "keys" } } });
    check(
        &GitRepository::api_resource(),
        base,
        &[
            (json!({}), ""),
            (json!({ "url": "http://127.0.0.1:8080/repo" }), ""),
            (json!({ "url": "https://git.example.com/a@b" }), ""),
            (json!({ "url": null }), "spec.url: Required value"),
            (json!({ "url": "ssh://git@example.com:2222/org/repo" }), ""),
            (json!({ "url": "ssh://example.com/~/repo" }), ""),
            (json!({ "url": "git@example.com:org/repo.git" }), ""),
            (json!({ "url": "git@[2001:db8::1]:org/repo.git" }), ""),
            (json!({ "url": "example.com:repo" }), "must start with https://, http:// or ssh://"),
            (json!({ "url": "git:word@example.com:repo" }), "must start with https://, http://"),
            (json!({ "url": "file:///repo" }), "must start with https://, http:// or ssh://"),
            (json!({ "url": "ssh://git:word@example.com/r" }), "must not contain credentials"),
            (json!({ "url": "ssh:///repo" }), "must be a URL with a host"),
            (json!({ "url": "https://" }), "must be a URL with a host"),
            (json!({ "url": "https://name:word@example.com/r" }), "must not contain credentials"),
            (json!({ "interval": null }), "spec.interval: Required value"),
            (json!({ "interval": "1h30m" }), ""),
            (json!({ "interval": "1.5s" }), ""),
            (json!({ "interval": "999ms" }), "must be at least 1s"),
            (json!({ "interval": "5 minutes" }), "spec.interval in body should match"),
            (json!({ "interval": "1d" }), "spec.interval in body should match"),
            (json!({ "timeout": "0s" }), "must be at least 1s"),
            (json!({ "secretRef": { "name": "token" } }), ""),
            (json!({ "secretRef": {} }), "spec.secretRef.name: Required value"),
            (json!({ "verify": { "secretRef": { "name": "keys" } } }), ""),
            (json!({ "verify": {} }), "spec.verify.secretRef: Required value"),
            (verify("HEAD", json!({ "branch": "main" })), ""),
            (verify("Tag", json!({ "tag": "v1" })), ""),
            (verify("TagAndHEAD", json!({ "semver": "1.x" })), ""),
            (verify("Head", json!({ "tag": "v1" })), "Unsupported value: \"Head\""),
            (verify("Tag", json!(null)), "need ref.tag or ref.semver"),
            (verify("Tag", json!({ "branch": "main" })), "need ref.tag or ref.semver"),
            (verify("TagAndHEAD", json!({ "name": "refs/tags/v1" })), "need ref.tag or ref.semver"),
            (json!({ "ignore": "*.md\n!/deploy/" }), ""),
            (json!({ "suspend": true }), ""),
            (reference(json!({})), ""),
            (reference(json!({ "branch": "main" })), ""),
            (reference(json!({ "branch": "feature/x_1.2" })), ""),
            (reference(json!({ "branch": "a..b" })), "not a name that Git allows"),
            (reference(json!({ "branch": "a b" })), "not a name that Git allows"),
            (reference(json!({ "tag": "v1.0.0" })), ""),
            (reference(json!({ "tag": "v1^" })), "not a name that Git allows"),
            (reference(json!({ "semver": ">=1.2.0 <2.0.0 || ^3" })), ""),
            (reference(json!({ "name": "refs/pull/12/head" })), ""),
            (reference(json!({ "name": "main" })), "must be the full name of a ref"),
            (reference(json!({ "commit": COMMIT })), ""),
            (reference(json!({ "commit": COMMIT, "branch": "main" })), ""),
            (reference(json!({ "commit": "0123456" })), "must be a full commit id"),
            (reference(json!({ "commit": COMMIT.to_uppercase() })), "must be a full commit id"),
            (reference(json!({ "branch": "main", "tag": "v1" })), "set only one of"),
            (reference(json!({ "commit": COMMIT, "tag": "v1" })), "set only one of"),
            (reference(json!({ "semver": "1.x", "semverPattern": "web-(.*)" })), ""),
            (reference(json!({ "branch": "a", "semverPattern": "web-(.*)" })), "set semver, too"),
            (reference(json!({ "semver": "1.x", "name": "refs/tags/v1" })), "set only one of"),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_application_is_checked_when_it_is_applied() {
    let base = json!({ "sourceRef": { "name": "repo" }, "interval": "10m" });
    let on = |value: Value| json!({ "dependsOn": [value] });
    let checked = |value: Value| json!({ "healthChecks": [value] });
    let post = |value: Value| json!({ "postBuild": value });
    let from = |value: Value| post(json!({ "substituteFrom": [value] }));
    check(
        &Application::api_resource(),
        base,
        &[
            (json!({}), ""),
            (json!({ "sourceRef": null }), "spec.sourceRef: Required value"),
            (json!({ "sourceRef": { "kind": "GitRepository", "name": "repo" } }), ""),
            (json!({ "sourceRef": { "kind": "Bucket", "name": "repo" } }), "supported values"),
            (json!({ "interval": null }), "spec.interval: Required value"),
            (json!({ "interval": "10" }), "spec.interval in body should match"),
            (json!({ "retryInterval": "500ms" }), "must be at least 1s"),
            (json!({ "timeout": "30s", "retryInterval": "30s" }), ""),
            (json!({ "path": "" }), ""),
            (json!({ "path": "./apps/web" }), ""),
            (json!({ "path": "apps/..web/a..b" }), ""),
            (json!({ "path": "/apps" }), "leave out the leading /"),
            (json!({ "path": "apps/../../etc" }), "must not contain .. segments"),
            (json!({ "path": ".." }), "must not contain .. segments"),
            (json!({ "prune": false, "deletionPolicy": "Orphan" }), ""),
            (json!({ "deletionPolicy": "WaitForTermination" }), ""),
            (json!({ "deletionPolicy": "Keep" }), "supported values"),
            (json!({ "ignore": [{ "paths": ["/spec/replicas"] }] }), ""),
            (json!({ "ignore": [{ "paths": [] }] }), "at least 1"),
            (json!({ "ignore": [{ "paths": ["spec.replicas"] }] }), "must be JSON pointers"),
            (
                json!({ "ignore": [{ "paths": ["/metadata/labels"] }] }),
                "what an object is or whose",
            ),
            (on(json!({ "name": "db" })), ""),
            (on(json!({ "name": "db", "namespace": "other", "readyExpr": "true" })), ""),
            (on(json!({ "namespace": "other" })), "dependsOn[0].name: Required value"),
            (on(json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "db" })), ""),
            (on(json!({ "kind": "Deployment", "name": "db" })), "set both apiVersion and kind"),
            (
                on(json!({ "apiVersion": "v1", "kind": "Secret", "name": "db" })),
                "must not be a Secret",
            ),
            (checked(json!({ "kind": "Deployment", "name": "a", "namespace": "b" })), ""),
            (checked(json!({ "apiVersion": "v1", "kind": "Secret", "name": "a" })), ""),
            (
                checked(json!({ "apiVersion": "a.example.com/v1beta1", "kind": "A", "name": "a" })),
                "",
            ),
            (
                checked(json!({ "apiVersion": "apps", "kind": "Deployment", "name": "" })),
                "healthChecks[0].name",
            ),
            (
                checked(json!({ "apiVersion": "a/b/v1", "kind": "Deployment", "name": "a" })),
                "a group and a version, as apps/v1",
            ),
            (
                checked(json!({ "apiVersion": "apps/", "kind": "Deployment", "name": "a" })),
                "a group and a version, as apps/v1",
            ),
            (checked(json!({ "kind": "", "name": "a" })), "healthChecks[0].kind"),
            (checked(json!({ "name": "a" })), "healthChecks[0].kind: Required value"),
            (post(json!({})), ""),
            (post(json!({ "substitute": { "A_1": "", "_b": "x" } })), ""),
            (post(json!({ "substitute": { "1a": "x" } })), "names of letters, digits and _"),
            (post(json!({ "substitute": { "a-b": "x" } })), "names of letters, digits and _"),
            (post(json!({ "substitute": { "a": 1 } })), "must be of type string"),
            (post(json!({ "substituteStrategy": "Always" })), ""),
            (post(json!({ "substituteStrategy": "Never" })), "supported values"),
            (from(json!({ "kind": "ConfigMap", "name": "values" })), ""),
            (from(json!({ "kind": "Secret", "name": "values", "optional": true })), ""),
            (from(json!({ "kind": "Pod", "name": "values" })), "supported values"),
            (from(json!({ "kind": "Secret" })), "substituteFrom[0].name: Required value"),
            (json!({ "decryption": { "provider": "sops", "secretRef": { "name": "k" } } }), ""),
            (json!({ "decryption": { "provider": "sops" } }), "secretRef: Required value"),
            (json!({ "decryption": { "secretRef": { "name": "k" } } }), "provider: Required value"),
            (
                json!({ "decryption": { "provider": "gpg", "secretRef": { "name": "k" } } }),
                "supported values",
            ),
            (
                json!({ "decryption": { "provider": "sops", "secretRef": { "name": "" } } }),
                "secretRef.name",
            ),
            (json!({ "revision": COMMIT }), ""),
            (json!({ "revision": "main" }), "must be a full commit id"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_an_application_adds_to_its_path_is_checked() {
    let base = json!({ "sourceRef": { "name": "repo" }, "interval": "10m" });
    let patch = |value: Value| json!({ "patches": [value] });
    let image = |value: Value| json!({ "images": [value] });
    let component = |path: &str| json!({ "components": [path] });
    let label = |key: &str, value: &str| json!({ "commonMetadata": { "labels": { key: value } } });
    let merge = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let operations = "- {op: remove, path: /data}";
    let digest = format!("sha256:{}", "a".repeat(64));
    let many = |count: usize| vec![json!({ "patch": merge }); count];
    check(
        &Application::api_resource(),
        base,
        &[
            (patch(json!({ "patch": merge })), ""),
            (patch(json!({ "patch": operations, "target": { "kind": "ConfigMap" } })), ""),
            (patch(json!({ "patch": operations })), "a JSON patch needs a target"),
            (patch(json!({ "patch": "[]" })), "a JSON patch needs a target"),
            (patch(json!({ "patch": " \n" })), "should match"),
            (patch(json!({ "target": { "name": "a.*" } })), "patches[0].patch: Required value"),
            (patch(json!({ "patch": merge, "target": { "labelSelector": "a in (b)" } })), ""),
            (json!({ "patches": many(100) }), ""),
            (json!({ "patches": many(101) }), "spec.patches: Too many"),
            (image(json!({ "name": "nginx", "newTag": "1.10" })), ""),
            (image(json!({ "name": "nginx", "newTag": "a b" })), "should match"),
            (image(json!({ "name": "nginx", "newTag": 1.1 })), "must be of type string"),
            (image(json!({ "name": "nginx", "newName": "host:5000/n", "digest": digest })), ""),
            (image(json!({ "name": "nginx", "digest": "sha256:12" })), "should match"),
            (image(json!({ "name": "nginx" })), "set newName, newTag or digest"),
            (image(json!({ "newTag": "1" })), "images[0].name: Required value"),
            (
                json!({ "images": vec![json!({ "name": "nginx", "newTag": "1" }); 2] }),
                "Duplicate value",
            ),
            (component("../components/a"), ""),
            (component("/a"), "relative to the path"),
            (component("https://example.com/a.git"), "relative to the path"),
            (component(""), "at least 1 chars long"),
            (json!({ "components": ["../a"], "ignoreMissingComponents": true }), ""),
            (json!({ "namePrefix": "a-", "nameSuffix": "-z" }), ""),
            (json!({ "namePrefix": "" }), "at least 1 chars long"),
            (json!({ "nameSuffix": "x".repeat(201) }), "may not be more than 200"),
            (json!({ "serviceAccountName": "tenant.a-1" }), ""),
            (json!({ "serviceAccountName": "other/tenant" }), "should match"),
            (json!({ "serviceAccountName": "system:masters" }), "should match"),
            (json!({ "serviceAccountName": "" }), "at least 1 chars long"),
            (json!({ "targetNamespace": "web" }), ""),
            (json!({ "targetNamespace": "Web" }), "should match"),
            (json!({ "targetNamespace": "" }), "at least 1 chars long"),
            (json!({ "pruneGuard": {} }), ""),
            (json!({ "pruneGuard": { "share": 101 } }), "less than or equal to 100"),
            (json!({ "pruneGuard": { "count": -1 } }), "greater than or equal to 0"),
            (json!({ "pruneGuard": { "protect": ["Secret", "Deployment.apps"] } }), ""),
            (json!({ "pruneGuard": { "protect": ["deployments.apps"] } }), "should match"),
            (label("team", "a"), ""),
            (label("example.com/team", ""), ""),
            (label("team", "a b"), "should match"),
            (label("applyset.kubernetes.io/part-of", "a"), "which Plumb sets"),
            (json!({ "commonMetadata": { "annotations": { "note": "any text: at all" } } }), ""),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_stored_object_has_the_documented_defaults() {
    let plane = ControlPlane::shared().await;
    let client = plane.client().await;
    install(&client).await;
    let namespace = plane.namespace("defaults").await;
    let spec = json!({ "sourceRef": { "name": "repo" }, "interval": "10m", "revision": null });
    let stored = create(&client, &namespace, &Application::api_resource(), &spec).await.unwrap();
    assert_eq!(
        stored["spec"],
        json!({
            "sourceRef": { "kind": "GitRepository", "name": "repo" },
            "interval": "10m",
            "path": "./",
            "timeout": "5m",
            "prune": true,
            "deletionPolicy": "MirrorPrune",
            "mode": "Enforce",
            "adopt": "IfUnowned",
            "validate": "None",
        })
    );
}

#[tokio::test]
async fn a_status_is_applied_condition_by_condition() {
    let plane = ControlPlane::shared().await;
    let client = plane.client().await;
    install(&client).await;
    let namespace = plane.namespace("status").await;
    let api: Api<Application> = Api::namespaced(client.clone(), &namespace);
    let application: Application = serde_json::from_value(json!({
        "apiVersion": names::API_VERSION,
        "kind": "Application",
        "metadata": { "name": "web" },
        "spec": { "sourceRef": { "name": "repo" }, "interval": "10m" },
    }))
    .unwrap();
    api.create(&PostParams::default(), &application).await.unwrap();

    let condition = |type_: &str| Condition {
        type_: type_.into(),
        status: "True".into(),
        reason: "Succeeded".into(),
        message: String::new(),
        observed_generation: Some(1),
        last_transition_time: Time("2026-01-02T03:04:05Z".parse().unwrap()),
    };
    for (manager, type_) in [("one", "Ready"), ("two", "Reconciling")] {
        let status = ApplicationStatus {
            observed_generation: (manager == "one").then_some(1),
            conditions: vec![condition(type_)],
            ..ApplicationStatus::default()
        };
        let patch = json!({
            "apiVersion": names::API_VERSION,
            "kind": "Application",
            "status": status,
        });
        api.patch_status("web", &PatchParams::apply(manager), &Patch::Apply(&patch)).await.unwrap();
    }
    let status = api.get("web").await.unwrap().status.unwrap();
    let types: Vec<_> = status.conditions.iter().map(|one| one.type_.as_str()).collect();
    assert_eq!(types, ["Ready", "Reconciling"]);
    assert_eq!(status.observed_generation, Some(1));
    api.delete("web", &DeleteParams::default()).await.unwrap();
}
