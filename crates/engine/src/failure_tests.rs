use std::sync::Arc;

use plumb_core::{ErrorClass, FieldPath, FieldPlaces, GroupKind, Gvk, Object, Place, RelPath};
use serde_json::json;

use super::*;
use crate::cluster::{Cause, Refusal, Resource};
use crate::stage::Stage;

const OURS: &str = "plumb:apps/web";

fn set() -> ApplySet {
    ApplySet::new(GroupKind::new("plumb.dev", "Application"), "apps", "web")
}

/// A Service at line 1 of `web.yaml`, with `spec.ports` at line 6.
pub(crate) fn service() -> Prepared {
    let body = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"ports": [{"port": 80}]},
    });
    let serde_json::Value::Object(body) = body else { unreachable!("an object") };
    let file = Arc::new(RelPath::parse("web.yaml").unwrap());
    let place = Place { file, document: 0, line: 1, column: 1 };
    let ports = FieldPath::keys(["spec", "ports"]).hash();
    let fields = FieldPlaces::collect(Arc::from([Arc::clone(&place.file)]), [(ports, 0, 6, 3)]);
    let object = Object::new(body, place, fields).unwrap();
    Prepared {
        marks: crate::marks::Marks::default(),
        ignored: Vec::new(),
        yielded: Vec::new(),
        decided_on: None,
        account: None,
        key: object.key(),
        object,
        resource: Resource::known(Gvk::new("v1", "Service"), "services", true),
        level: (Stage::Foundations, 0),
        after: Vec::new(),
        digest: 1,
        defined_here: false,
    }
}

/// Both limits of the store, in the words of kube-apiserver 1.37, and that of the API server itself.
#[test]
fn what_the_store_finds_too_large_is_told_at_its_largest_part() {
    for (code, words) in [
        (500, "etcdserver: request is too large"),
        (
            500,
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max \
             (2900653 vs. 2097152)",
        ),
        (413, "Request entity too large: limit is 3145728"),
    ] {
        let failure =
            failure(&service(), &refused(code, "", words, Vec::new()), &set(), Presence::Unasked);
        assert_eq!((failure.reason, failure.class), ("TooLarge", ErrorClass::WaitForUser));
        assert!(failure.message.contains(words), "{}", failure.message);
        assert!(failure.hint.is_some() && failure.place.is_some());
    }
}

/// An answer of the API server; `class` is what its own tests say it is.
fn refused(code: u16, reason: &str, message: &str, causes: Vec<Cause>) -> ApiError {
    ApiError::Refused(Box::new(Refusal {
        operation: "apply",
        subject: "Service shop/web".into(),
        code,
        reason: reason.into(),
        message: message.into(),
        causes,
        about: ("services".into(), "web".into()),
        retry_after: None,
        class: ErrorClass::WaitForUser,
        busy: false,
    }))
}

fn cause(reason: &str, field: &str, message: &str) -> Cause {
    Cause { reason: reason.into(), field: field.into(), message: message.into() }
}

fn about(mut error: ApiError, kind: &str, name: &str) -> ApiError {
    if let ApiError::Refused(refusal) = &mut error {
        refusal.about = (kind.into(), name.into());
    }
    error
}

fn conflict_with(owners: &[(&str, &str)]) -> ApiError {
    let causes = owners.iter().map(|(manager, field)| {
        cause("FieldManagerConflict", field, &format!("conflict with \"{manager}\" using v1"))
    });
    refused(409, "Conflict", "Apply failed with conflicts", causes.collect())
}

#[test]
fn an_answer_is_told_with_its_place_and_what_helps() {
    let cases = [
        (
            about(
                refused(404, "NotFound", "namespaces \"shop\" not found", vec![]),
                "namespaces",
                "shop",
            ),
            "NamespaceMissing",
            "the namespace shop does not exist",
            "web.yaml:1",
            true,
        ),
        (
            refused(
                403,
                "Forbidden",
                "because it is being terminated",
                vec![cause("NamespaceTerminating", "metadata.namespace", "being terminated")],
            ),
            "NamespaceTerminating",
            "the namespace shop is being deleted",
            "web.yaml:1",
            false,
        ),
        (
            refused(403, "Forbidden", "User \"u\" cannot patch", vec![]),
            "AccessDenied",
            "User \"u\" cannot patch",
            "web.yaml:1",
            true,
        ),
        (
            about(
                refused(404, "NotFound", "could not find the requested resource", vec![]),
                "",
                "",
            ),
            "UnknownKind",
            "the cluster has no v1 Service",
            "web.yaml:1",
            true,
        ),
        (
            refused(
                500,
                "",
                "failed to create typed patch object (shop/web; /v1, Kind=Service): .spec.ports[0].prt: field not declared in schema",
                vec![],
            ),
            "UnknownField",
            "spec.ports[0].prt: field not declared in schema",
            "web.yaml:6",
            true,
        ),
        (
            refused(
                422,
                "Invalid",
                "Service \"web\" is invalid: spec.ports[0].port: Invalid value: 0",
                vec![cause("FieldValueInvalid", "spec.ports[0].port", "Invalid value: 0")],
            ),
            "Invalid",
            "spec.ports[0].port: Invalid value: 0",
            "web.yaml:6",
            false,
        ),
        (
            refused(415, "UnsupportedMediaType", "the body was in an unknown format", vec![]),
            "ApplyUnsupported",
            "the API server of v1 Service takes no server-side apply",
            "web.yaml:1",
            true,
        ),
        (
            refused(
                422,
                "Invalid",
                "PersistentVolumeClaim \"web\" is invalid: spec.resources.requests.storage: Forbidden: field can not be less than status.capacity",
                vec![cause(
                    "FieldValueForbidden",
                    "spec.resources.requests.storage",
                    "Forbidden: field can not be less than status.capacity",
                )],
            ),
            "Invalid",
            "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity",
            "web.yaml:6",
            true,
        ),
        (
            refused(500, "InternalError", "a webhook failed", vec![]),
            "Refused",
            "a webhook failed",
            "web.yaml:1",
            false,
        ),
    ];
    for (error, reason, message, place, hinted) in cases {
        let failure = failure(&service(), &error, &set(), Presence::Unasked);
        assert_eq!((failure.reason, failure.message.as_str()), (reason, message));
        assert_eq!(
            failure.place.map(|place| place.to_string()).as_deref(),
            Some(place),
            "{reason}"
        );
        assert_eq!(failure.hint.is_some(), hinted, "{reason}");
        assert_eq!(failure.key.to_string(), "Service shop/web");
    }
}

#[test]
fn an_answer_that_never_came_is_tried_again() {
    let after = std::time::Duration::from_secs(7);
    let subject = "Service shop/web".to_owned();
    let error = ApiError::Timeout { operation: "apply", subject, after };
    let failure = failure(&service(), &error, &set(), Presence::Unasked);
    assert_eq!((failure.reason, failure.class), ("NoAnswer", ErrorClass::Retry));
    assert_eq!(failure.message, "no answer within 7 s");
}

#[test]
fn a_conflict_names_the_other_application_or_the_fields() {
    let cases = [
        (
            vec![("plumb:apps/other", ".metadata.labels.x"), ("kubectl", ".spec.ports")],
            "OwnedByAnother",
            "it belongs to application apps/other",
            // Nothing is wrong with the field: the object as a whole is in the wrong place.
            "web.yaml:1",
        ),
        (
            vec![("kubectl", ".spec.ports"), ("helm", ".spec.ports"), ("helm", ".spec.type")],
            "FieldConflict",
            "it exists already, and helm and kubectl set spec.ports, spec.type to something else",
            "web.yaml:6",
        ),
        (
            vec![(OURS, ".spec.ports")],
            "FieldConflict",
            "it exists already, and plumb:apps/web set spec.ports to something else",
            "web.yaml:6",
        ),
        (
            vec![
                ("x", ".a"),
                ("x", ".b"),
                ("x", ".c"),
                ("x", ".d"),
                ("x", ".e"),
                ("x", ".f"),
                ("x", ".g"),
            ],
            "FieldConflict",
            "it exists already, and x set a, b, c, d, e and 2 more to something else",
            "web.yaml:1",
        ),
    ];
    assert_eq!(set().manager, OURS);
    for (owners, reason, message, place) in cases {
        let failure = failure(&service(), &conflict_with(&owners), &set(), Presence::Unasked);
        assert_eq!((failure.reason, failure.message.as_str()), (reason, message));
        assert_eq!(
            failure.place.map(|place| place.to_string()).as_deref(),
            Some(place),
            "{reason}"
        );
        assert!(failure.hint.is_some());
    }
}

#[test]
fn the_object_is_not_named_twice() {
    let cases = [
        ("Service \"a\" is invalid: spec.ports: Required value", "spec.ports: Required value"),
        (
            "Service \"a\" is invalid: [b: Invalid value: 9: no, c: Required value]",
            "b: Invalid value: 9: no, c: Required value",
        ),
        ("data: Invalid value: \"x is invalid: y\"", "data: Invalid value: \"x is invalid: y\""),
        ("field is immutable", "field is immutable"),
    ];
    for (said, want) in cases {
        assert_eq!(without_subject(said), want);
    }
}

#[test]
fn what_a_server_failed_to_answer_may_have_been_done_all_the_same() {
    for (code, message, may) in [
        (409, "the object has been modified", false),
        (429, "etcdserver: too many requests", false),
        (500, "failed calling webhook \"x.example.com\": connection refused", false),
        (500, "etcdserver: request timed out", true),
        (504, "Timeout: request did not complete within requested timeout", true),
    ] {
        let error = refused(code, "X", message, Vec::new());
        assert_eq!(crate::apply::is_unanswered(&error), may, "{code} {message}");
    }
}
