use serde_json::json;

use super::*;

fn refused(is_secret: bool, code: u16, status: &serde_json::Value) -> ApiError {
    let kind = if is_secret { "Secret" } else { "ConfigMap" };
    ApiError::Refused(Box::new(Refusal::read(
        "apply",
        format!("{kind} web/a"),
        is_secret,
        code,
        None,
        status.to_string().as_bytes(),
    )))
}

/// Answers of kube-apiserver 1.37.2.
fn conflict() -> serde_json::Value {
    json!({
        "kind": "Status", "code": 409, "reason": "Conflict",
        "message": "Apply failed with 2 conflicts: conflicts with \"plumb:default/one\":\n- .data.p\nconflicts with \"kubectl-edit\" using v1:\n- .metadata.labels.x",
        "details": {"causes": [
            {"reason": "FieldManagerConflict", "message": "conflict with \"plumb:default/one\"", "field": ".data.p"},
            {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-edit\" using v1", "field": ".metadata.labels.x"},
        ]},
    })
}

fn stale() -> serde_json::Value {
    json!({
        "kind": "Status", "code": 409, "reason": "Conflict",
        "message": "Operation cannot be fulfilled on secrets \"a\": the object has been modified; please apply your changes to the latest version and try again",
        "details": {"name": "a", "kind": "secrets"},
    })
}

#[test]
fn conflicts_name_managers_and_fields() {
    for is_secret in [false, true] {
        let error = refused(is_secret, 409, &conflict());
        assert!(error.is_conflict() && error.is_ownership_conflict());
        assert_eq!(error.class(), ErrorClass::WaitForUser);
        assert_eq!(
            error.conflicts(),
            [
                ("plumb:default/one".into(), ".data.p".into()),
                ("kubectl-edit".into(), ".metadata.labels.x".into()),
            ]
        );
        assert!(error.to_string().contains("conflicts with \"kubectl-edit\" using v1"));
    }
    let error = refused(false, 409, &stale());
    assert!(error.is_conflict() && !error.is_ownership_conflict());
    assert_eq!(error.class(), ErrorClass::Retry);
    assert_eq!(error.conflicts(), []);
}

#[test]
fn another_object_of_the_name_is_told_by_its_uid() {
    let answer = |field: &str| {
        json!({
            "reason": "Invalid",
            "message": "Secret \"a\" is invalid: metadata.uid: Invalid value: \"u\": field is immutable",
            "details": {"causes": [{"reason": "FieldValueInvalid", "message": "Invalid value: \"u\": field is immutable", "field": field}]},
        })
    };
    for is_secret in [false, true] {
        assert!(refused(is_secret, 422, &answer("metadata.uid")).is_other_object());
        assert!(!refused(is_secret, 422, &answer("spec.clusterIP")).is_other_object());
        assert!(!refused(is_secret, 409, &answer("metadata.uid")).is_other_object());
    }
}

#[test]
fn managers_are_read_out_of_messages() {
    for (message, manager) in [
        (r#"conflict with "kubectl-edit" using v1"#, "kubectl-edit"),
        (
            r#"conflict with "a" with subresource "scale" using apps/v1 at 2026-11-22T21:58:12Z"#,
            "a",
        ),
        (r#"conflict with "odd \"name\"" using v1"#, r#"odd "name""#),
        ("something else", "something else"),
        (r#"conflict with "cut"#, r#"conflict with "cut"#),
    ] {
        assert_eq!(manager_in(message), manager);
    }
}

/// What each answer is taken for: missing (object, namespace, kind), forbidden, class.
#[test]
fn answers_are_told_apart() {
    let missing = |kind: &str, name: &str| json!({"reason": "NotFound", "message": format!("{kind} \"{name}\" not found"), "details": {"name": name, "kind": kind}});
    let error = refused(false, 404, &missing("configmaps", "a"));
    assert!(error.is_not_found() && !error.is_namespace_missing() && !error.is_kind_missing());
    let error = refused(false, 404, &missing("namespaces", "web"));
    assert!(error.is_namespace_missing() && !error.is_kind_missing());
    assert_eq!(error.class(), ErrorClass::WaitForUser);
    let gone = json!({"reason": "NotFound", "message": "the server could not find the requested resource", "details": {}});
    assert!(refused(false, 404, &gone).is_kind_missing());
    let terminating = json!({
        "reason": "Forbidden", "message": "configmaps \"a\" is forbidden: unable to create new content in namespace web because it is being terminated",
        "details": {"name": "a", "kind": "configmaps", "causes": [{"reason": "NamespaceTerminating", "message": "namespace web is being terminated", "field": "metadata.namespace"}]},
    });
    let error = refused(false, 403, &terminating);
    assert!(error.is_forbidden() && error.is_terminating_namespace());
    assert_eq!(error.class(), ErrorClass::Retry);
    let schema = json!({"message": "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dta: field not declared in schema"});
    let error = refused(false, 500, &schema);
    assert!(error.is_not_in_schema());
    assert_eq!(error.class(), ErrorClass::WaitForUser);
    let said = ("dta".to_owned(), "dta: field not declared in schema".to_owned());
    assert_eq!(error.schema_field(), Some(said));
    assert_eq!(refused(true, 500, &schema).schema_field(), None, "a Secret's is withheld");
    let invalid = |messages: &[&str]| {
        let causes: Vec<_> =
            messages.iter().map(|m| json!({"field": "spec.x", "message": m})).collect();
        let error = json!({"reason": "Invalid", "message": "bad", "details": {"causes": causes}});
        refused(true, 422, &error).immutable_field()
    };
    let fixed = "Invalid value: \"hunter2\": field is immutable";
    assert_eq!(invalid(&[fixed, fixed]).as_deref(), Some("spec.x"));
    assert_eq!(invalid(&[fixed, "Required value"]), None, "it would be refused as well");
    assert_eq!(invalid(&[]), None);
    for (code, class) in [
        (400, ErrorClass::WaitForUser),
        (401, ErrorClass::WaitForUser),
        (409, ErrorClass::Retry),
        (410, ErrorClass::Retry),
        (422, ErrorClass::WaitForUser),
        (429, ErrorClass::Retry),
        (500, ErrorClass::Retry),
        (503, ErrorClass::Retry),
    ] {
        assert_eq!(refused(false, code, &json!({})).class(), class, "{code}");
    }
}

#[test]
fn a_proxy_on_the_way_is_not_quoted() {
    let refusal = Refusal::read(
        "list",
        "secrets".into(),
        true,
        502,
        Some(Duration::from_secs(3)),
        b"<html>hunter2</html>",
    );
    assert_eq!(
        refusal.to_string(),
        "cannot list secrets: the server answered HTTP 502 Bad Gateway"
    );
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(3)));
    let told = json!({"reason": "Timeout", "message": "slow", "details": {"retryAfterSeconds": 5}});
    let error = refused(false, 504, &told);
    assert_eq!(error.refusal().unwrap().retry_after, Some(Duration::from_secs(5)));
}

/// Messages of kube-apiserver 1.37.2 and of webhooks, and what is left of them for a Secret.
#[test]
fn messages_about_secrets_hold_no_content() {
    let withheld = "(the server's message is withheld, it could quote the Secret)";
    let cases = [
        (500, "", "failed to create typed patch object (/s2; /v1, Kind=Secret): .data.p: expected string, got &value.valueUnstructured{Value:hunter2}", json!([]), format!("HTTP 500: .data.p {withheld}")),
        (500, "", "failed to create typed patch object (/s2; /v1, Kind=Secret): hunter2: .x: field not declared in schema", json!([]), format!("HTTP 500: field not declared in schema {withheld}")),
        (500, "", "failed to convert new object (/s2; /v1, Kind=Secret) to proper version: error decoding from json: illegal base64 data at input byte 7: hunter2", json!([]), format!("HTTP 500: illegal base64 data {withheld}")),
        (422, "Invalid", "Secret \"s2\" is invalid: data[.key]: Invalid value: \"hunter2\": invalid character 'h'", json!([{"reason": "FieldValueInvalid", "message": "Invalid value: \"hunter2\": invalid", "field": "data[.key]"}]), format!("Invalid: data[.key] {withheld}")),
        (422, "Invalid", "Secret \"s3\" is invalid: data: Forbidden: field is immutable when `immutable` is set", json!([{"reason": "FieldValueForbidden", "message": "Forbidden: field is immutable when `immutable` is set", "field": "data"}]), format!("Invalid: data: field is immutable {withheld}")),
        (400, "BadRequest", "admission webhook \"x.example.com\" denied the request: hunter2 is weak", json!([]), format!("BadRequest {withheld}")),
        (403, "Forbidden", "secrets \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: you cannot use hunter2", json!([]), format!("Forbidden {withheld}")),
        (404, "NotFound", "admission webhook \"x\" denied the request: hunter2", json!([]), format!("NotFound {withheld}")),
        (409, "Conflict", "hunter2 is in the way", json!([]), format!("Conflict {withheld}")),
        (409, "Conflict", "Operation cannot be fulfilled on secrets \"a\": the object has been modified; please apply your changes to the latest version and try again", json!([]), "Operation cannot be fulfilled on secrets \"a\": the object has been modified; please apply your changes to the latest version and try again".into()),
        (403, "Forbidden", "secrets \"a\" is forbidden: User \"u\" cannot patch resource \"secrets\" in API group \"\" in the namespace \"web\"", json!([]), "secrets \"a\" is forbidden: User \"u\" cannot patch resource \"secrets\" in API group \"\" in the namespace \"web\"".into()),
        (404, "NotFound", "namespaces \"web\" not found", json!([]), "namespaces \"web\" not found".into()),
    ];
    for (code, reason, message, causes, expected) in cases {
        let status = json!({"reason": reason, "message": message, "details": {"causes": causes}});
        let error = refused(true, code, &status);
        assert_eq!(error.to_string(), format!("cannot apply Secret web/a: {expected}"));
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        let open = refused(false, code, &status);
        assert_eq!(open.to_string(), format!("cannot apply ConfigMap web/a: {message}"));
    }
}
