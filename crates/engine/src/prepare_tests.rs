use std::sync::Arc;

use plumb_core::{FieldPlaces, RelPath};
use serde_json::json;

use super::*;

fn set() -> ApplySet {
    ApplySet::new(GroupKind::new("plumb.dev", "Application"), "apps", "web")
}

/// What a cluster serves: the kinds that the tests use, some of them with a status subresource.
fn discovery() -> Discovery {
    let known = |api_version: &str, kind: &str, plural: &str, namespaced: bool| {
        Resource::known(Gvk::new(api_version, kind), plural, namespaced)
    };
    let mut deployment = known("apps/v1", "Deployment", "deployments", true);
    deployment.subresources.insert("status".into());
    let mut review = known("authentication.k8s.io/v1", "TokenReview", "tokenreviews", false);
    review.verbs = std::iter::once("create".into()).collect();
    let registration = "admissionregistration.k8s.io/v1";
    let mut discovery = Discovery::of([
        known("v1", "ConfigMap", "configmaps", true),
        known("v1", "Secret", "secrets", true),
        known("v1", "Namespace", "namespaces", false),
        deployment,
        review,
        known("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
        known(registration, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false),
        known(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            false,
        ),
        known("apiregistration.k8s.io/v1", "APIService", "apiservices", false),
        known("example.com/v1", "Mirror", "mirrors", true),
    ]);
    discovery.set_unknown("metrics.k8s.io");
    discovery
}

/// Objects as if each stood in a file of its own: `0.yaml`, `1.yaml`, with its fields at line 1.
fn objects(bodies: Vec<Value>) -> Vec<Object> {
    let place = |n: usize| Place {
        file: Arc::new(RelPath::parse(&format!("{n}.yaml")).unwrap()),
        document: 0,
        line: 1,
        column: 1,
    };
    bodies
        .into_iter()
        .enumerate()
        .map(|(n, body)| {
            let Value::Object(body) = body else { unreachable!("an object") };
            let label = FieldPath::keys(["metadata", "labels", PART_OF]).hash();
            let files = Arc::from([place(n).file]);
            let fields = FieldPlaces::collect(files, [(label, 0, 7, 5)]);
            Object::new(body, place(n), fields).unwrap()
        })
        .collect()
}

fn prepared(bodies: Vec<Value>) -> Preparation {
    prepare(objects(bodies), &set(), &discovery(), &Ignores::default())
}

/// The one object as it is sent, without what every object gets.
fn sent(body: Value) -> Value {
    let mut result = prepared(vec![body]);
    assert_eq!((&result.failures, &result.refusals), (&Vec::new(), &Vec::new()));
    let mut body = result.objects.remove(0).object.into_body();
    let metadata = body["metadata"].as_object_mut().unwrap();
    for key in ["name", "namespace", "labels", "annotations"] {
        metadata.remove(key);
    }
    if metadata.is_empty() {
        body.as_object_mut().unwrap().remove("metadata");
    }
    for key in ["apiVersion", "kind"] {
        body.as_object_mut().unwrap().remove(key);
    }
    body
}

fn merged(mut body: Value, more: Value) -> Value {
    let (Value::Object(into), Value::Object(more)) = (&mut body, more) else {
        unreachable!("two objects")
    };
    into.extend(more);
    body
}

fn config_map(metadata: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
}

#[test]
fn an_object_goes_where_its_kind_and_its_application_say() {
    let namespace =
        |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let mut stray = namespace("b");
    stray["metadata"]["namespace"] = json!("other");
    let cases = [
        (config_map(&json!({"name": "a"})), "ConfigMap apps/a", Some("apps")),
        (config_map(&json!({"name": "a", "namespace": null})), "ConfigMap apps/a", Some("apps")),
        (
            config_map(&json!({"name": "a", "namespace": "other"})),
            "ConfigMap other/a",
            Some("other"),
        ),
        (namespace("a"), "Namespace a", None),
        (stray, "Namespace b", None),
    ];
    for (body, key, namespace) in cases {
        let result = prepared(vec![body]);
        let object = &result.objects[0];
        assert_eq!(object.key.to_string(), key);
        let metadata = &object.object.body()["metadata"];
        assert_eq!(metadata.get("namespace").and_then(Value::as_str), namespace, "{key}");
        assert_eq!(metadata["labels"][PART_OF], set().id);
        assert_eq!(metadata["annotations"][APPLICATION], "apps/web");
    }
}

#[test]
fn labels_and_annotations_of_the_manifest_stay() {
    let metadata = json!({"name": "a", "labels": {"x": "1"}, "annotations": {"y": "2"}});
    let result = prepared(vec![config_map(&metadata)]);
    let metadata = &result.objects[0].object.body()["metadata"];
    assert_eq!(metadata["labels"], json!({"x": "1", PART_OF: set().id}));
    assert_eq!(metadata["annotations"], json!({"y": "2", APPLICATION: "apps/web"}));
}

/// Who put an object there is no reason to start its Pods anew.
#[test]
fn nothing_is_put_into_templates_of_pods() {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}});
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template});
    let deployment =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}});
    assert_eq!(sent(merged(deployment, json!({"spec": spec}))), json!({"spec": spec}));
}

#[test]
fn labels_that_say_who_applies_an_object_are_refused() {
    for label in [PART_OF, PARENT_ID] {
        let ours = config_map(&json!({"name": "a", "labels": {label: "applyset-x-v1"}}));
        let result = prepared(vec![ours, config_map(&json!({"name": "b"}))]);
        let [refusal] = &result.refusals[..] else { unreachable!("one refusal") };
        assert_eq!((refusal.reason, refusal.class), ("ReservedLabel", ErrorClass::WaitForUser));
        assert!(refusal.message.contains(label), "{}", refusal.message);
        let line = if label == PART_OF { "0.yaml:7" } else { "0.yaml:1" };
        assert_eq!(refusal.place.as_ref().map(ToString::to_string).as_deref(), Some(line));
    }
}

#[test]
fn an_object_stands_once_whatever_its_namespace_is_written_as() {
    let result = prepared(vec![
        config_map(&json!({"name": "a"})),
        config_map(&json!({"name": "a", "namespace": "other"})),
        config_map(&json!({"name": "a", "namespace": "apps"})),
    ]);
    let [refusal] = &result.refusals[..] else { unreachable!("one refusal") };
    assert_eq!(refusal.reason, "DuplicateObject");
    assert_eq!(refusal.message, "the object stands at 0.yaml:1 already");
    assert_eq!(refusal.place.as_ref().map(ToString::to_string).as_deref(), Some("2.yaml:1"));
    assert_eq!(refusal.key.to_string(), "ConfigMap apps/a");
}

#[test]
fn a_kind_that_cannot_be_applied_fails_alone() {
    let of = |api_version: &str, kind: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
    let cases = [
        (
            of("example.com/v2", "Mirror"),
            ("UnknownKind", ErrorClass::Retry),
            "the cluster has no example.com/v2 Mirror",
            Some("it serves this kind as example.com/v1"),
        ),
        (
            of("example.com/v1", "Miror"),
            ("UnknownKind", ErrorClass::Retry),
            "the cluster has no example.com/v1 Miror",
            Some("install the CustomResourceDefinition, or check apiVersion and kind"),
        ),
        (
            of("metrics.k8s.io/v1", "PodMetrics"),
            ("ApiUnavailable", ErrorClass::Retry),
            "the API server cannot say which kinds metrics.k8s.io has at the moment",
            Some("look at the APIService that serves this group"),
        ),
        (
            of("authentication.k8s.io/v1", "TokenReview"),
            ("NotApplicable", ErrorClass::WaitForUser),
            "the kind authentication.k8s.io/v1 TokenReview cannot be patched, so it cannot be applied",
            None,
        ),
    ];
    for (body, (reason, class), message, hint) in cases {
        let result = prepared(vec![body, config_map(&json!({"name": "b"}))]);
        let [failure] = &result.failures[..] else { unreachable!("one failure") };
        assert_eq!((failure.reason, failure.class), (reason, class));
        assert_eq!((failure.message.as_str(), failure.hint.as_deref()), (message, hint));
        assert!(result.refusals.is_empty());
        assert_eq!(result.objects.len(), 1, "{reason}: the other one can be sent");
    }
}

#[test]
fn a_definition_of_the_same_run_makes_its_kind_known() {
    let definition = |scope: &str| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "tubes.example.com"},
            "spec": {
                "group": "example.com", "scope": scope, "names": {"kind": "Tube", "plural": "tubes"},
                "versions": [{"name": "v1", "served": true}, {"name": "v2", "served": false}],
            },
        })
    };
    let tube = json!({"apiVersion": "example.com/v1", "kind": "Tube", "metadata": {"name": "a"}});
    for (scope, key) in
        [("Namespaced", "Tube.example.com apps/a"), ("Cluster", "Tube.example.com a")]
    {
        // Whatever the order of the files.
        let result = prepared(vec![tube.clone(), definition(scope)]);
        assert!(result.failures.is_empty());
        let [tube, definition] = &result.objects[..] else { unreachable!("two objects") };
        assert_eq!(tube.key.to_string(), key);
        assert!(tube.defined_here && !definition.defined_here);
        assert_eq!(tube.resource.gvk.to_string(), "example.com/v1 Tube");
        assert_eq!(tube.resource.plural, "tubes");
        assert!(definition.level < tube.level);
    }
    // A version that it does not serve will not come.
    let mut later = tube;
    later["apiVersion"] = json!("example.com/v2");
    let result = prepared(vec![later, definition("Namespaced")]);
    assert_eq!(result.failures[0].reason, "UnknownKind");
    let hint = result.failures[0].hint.as_deref().unwrap();
    assert!(hint.starts_with("the definition at ") && hint.ends_with(" serves v1"), "{hint}");
}

#[test]
fn the_plain_text_of_a_secret_is_sent_as_data() {
    let secret = |more: Value| {
        merged(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}), more)
    };
    let cases = [
        (json!({"stringData": {"k": "plain"}}), json!({"data": {"k": "cGxhaW4="}})),
        (
            json!({"data": {"k": "b2xk", "other": "eA=="}, "stringData": {"k": "new"}}),
            json!({"data": {"k": "bmV3", "other": "eA=="}}),
        ),
        (json!({"data": null, "stringData": {"k": ""}}), json!({"data": {"k": ""}})),
        (json!({"stringData": null}), json!({})),
        (json!({"stringData": {}}), json!({"data": {}})),
        // These the API server refuses, in its own words.
        (json!({"stringData": {"k": 1}}), json!({"data": {"k": 1}})),
        (json!({"stringData": "text"}), json!({"stringData": "text"})),
    ];
    for (body, want) in cases {
        assert_eq!(sent(secret(body.clone())), want, "{body}");
    }
    let map = merged(config_map(&json!({"name": "a"})), json!({"stringData": {"k": "v"}}));
    assert_eq!(sent(map), json!({"stringData": {"k": "v"}}), "only a Secret has it");
}

#[test]
fn rules_of_an_aggregated_role_are_left_to_the_controller() {
    let role = |kind: &str, api_version: &str, rule: Value| {
        json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": "a"},
            "aggregationRule": rule, "rules": [],
        })
    };
    let rbac = "rbac.authorization.k8s.io/v1";
    let rule = json!({"clusterRoleSelectors": []});
    assert_eq!(
        sent(role("ClusterRole", rbac, rule.clone())),
        json!({"aggregationRule": rule.clone()})
    );
    let plain = sent(role("ClusterRole", rbac, Value::Null));
    assert_eq!(plain, json!({"aggregationRule": null, "rules": []}));
    let other = sent(role("Mirror", "example.com/v1", rule.clone()));
    assert_eq!(other, json!({"aggregationRule": rule, "rules": []}));
}

#[test]
fn an_empty_authority_is_left_to_whoever_fills_it_in() {
    let of = |api_version: &str, kind: &str, more: Value| {
        merged(json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}}), more)
    };
    let hooks = |ca: &Value| json!({"webhooks": [{"name": "x", "clientConfig": {"caBundle": ca, "url": "u"}}]});
    let conversion = |ca: &Value| json!({"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": ca, "url": "u"}}}}});
    let service = |ca: &Value| json!({"spec": {"caBundle": ca, "group": "g"}});
    for (ca, kept) in [
        (json!(""), false),
        (Value::Null, false),
        (json!("Cg=="), false),
        (json!("LS0tLS1CRUdJTg=="), true),
    ] {
        let strip = |body: Value, pointer: &str| {
            let mut body = body;
            if !kept {
                body.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove("caBundle");
            }
            body
        };
        let webhooks =
            of("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", hooks(&ca));
        assert_eq!(sent(webhooks), strip(hooks(&ca), "/webhooks/0/clientConfig"), "{ca}");
        let crd = of("apiextensions.k8s.io/v1", "CustomResourceDefinition", conversion(&ca));
        let pointer = "/spec/conversion/webhook/clientConfig";
        assert_eq!(sent(crd), strip(conversion(&ca), pointer), "{ca}");
        let api = of("apiregistration.k8s.io/v1", "APIService", service(&ca));
        assert_eq!(sent(api), strip(service(&ca), "/spec"), "{ca}");
        let other = of("example.com/v1", "Mirror", hooks(&ca));
        assert_eq!(sent(other), hooks(&ca), "{ca}: another kind means what it says");
    }
}

#[test]
fn what_only_the_server_sets_is_not_sent() {
    let exported = json!({
        "name": "a", "uid": "u", "resourceVersion": "1", "generation": 2, "selfLink": "/a",
        "creationTimestamp": null, "managedFields": [], "finalizers": ["x/y"],
    });
    assert_eq!(sent(config_map(&exported)), json!({"metadata": {"finalizers": ["x/y"]}}));
    let status = json!({"spec": {}, "status": {"replicas": 3}});
    let deployment =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}});
    assert_eq!(sent(merged(deployment, status.clone())), json!({"spec": {}}));
    let mirror =
        json!({"apiVersion": "example.com/v1", "kind": "Mirror", "metadata": {"name": "a"}});
    assert_eq!(
        sent(merged(mirror, status.clone())),
        status,
        "without the subresource it is a field like any other"
    );
}

#[test]
fn the_digest_is_that_of_what_is_sent() {
    let digest = |metadata: Value| prepared(vec![config_map(&metadata)]).objects[0].digest;
    let plain = digest(json!({"name": "a"}));
    assert_eq!(digest(json!({"name": "a", "namespace": "apps", "uid": "u"})), plain);
    assert_ne!(digest(json!({"name": "a", "labels": {"x": "1"}})), plain);
}

#[test]
fn writes_are_planned_on_a_version_or_an_object() {
    let body = json!({"metadata": {"name": "a"}});
    assert_eq!(planned_on(&body, 7)["metadata"], json!({"name": "a", "resourceVersion": "7"}));
    assert_eq!(planned_for(&body, "u")["metadata"], json!({"name": "a", "uid": "u"}));
    assert_eq!(body["metadata"], json!({"name": "a"}), "the object itself stays as it is");
}

#[test]
fn fields_of_api_errors_become_paths() {
    let key = |path: &[&str]| FieldPath::keys(path.iter().copied());
    let cases = [
        ("spec.replicas", key(&["spec", "replicas"])),
        (".spec.replicas", key(&["spec", "replicas"])),
        (
            "spec.ports[1].port",
            key(&["spec", "ports"]).join(Step::Index(1)).join(Step::Key("port".into())),
        ),
        ("args[0][2]", key(&["args"]).join(Step::Index(0)).join(Step::Index(2))),
        ("", FieldPath::root()),
        ("a..b[", key(&["a", "b"])),
    ];
    for (field, path) in cases {
        assert_eq!(parse_field(field), path, "{field}");
    }
}

#[test]
fn what_is_too_large_is_told_at_its_largest_value() {
    use base64::Engine as _;
    let object = |kind: &str, field: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"},
            field: {"big": value, "small": "YQ=="}})
    };
    let most = (1 << 20) - 4;
    let encoded = |size| base64::engine::general_purpose::STANDARD.encode(vec![b'x'; size]);
    for (fits, kind, field, value) in [
        (true, "ConfigMap", "data", "x".repeat(most)),
        (false, "ConfigMap", "data", "x".repeat(most + 1)),
        (true, "Secret", "stringData", "x".repeat(most)),
        (false, "Secret", "data", encoded(most + 4)),
        (true, "Secret", "data", encoded(most)),
    ] {
        let result = prepared(vec![object(kind, field, &value)]);
        assert_eq!(result.objects.len(), usize::from(fits), "{kind} {field} {}", value.len());
        if !fits {
            assert_eq!(result.failures[0].reason, "TooLarge");
            assert!(result.failures[0].message.contains("the largest, data.big, has"));
        }
    }
}

#[test]
fn a_body_that_no_api_server_reads_is_told_at_its_largest_part() {
    let object = |size: usize| {
        let long = "x".repeat(size);
        json!({"apiVersion": "example.com/v1", "kind": "Mirror", "metadata": {"name": "a"},
            "spec": {"short": "1", "long": long}})
    };
    let rest = prepared(vec![object(0)]).objects[0].object.body().to_string().len();
    let most = (3 << 20) - rest;
    assert!(prepared(vec![object(most)]).failures.is_empty());
    let result = prepared(vec![object(most + 1), object(1)]);
    let [failure] = &result.failures[..] else { panic!("{:?}", result.failures) };
    assert_eq!(failure.reason, "TooLarge");
    let said = format!("may have 3145728; the largest part, spec.long, has {}", most + 3);
    assert!(failure.message.ends_with(&said), "{}", failure.message);
}
