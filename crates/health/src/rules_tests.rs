use serde_json::json;

use super::*;

fn rules(exprs: &Exprs) -> Rules {
    Rules::compile([exprs]).unwrap()
}

fn of_widgets() -> Exprs {
    Exprs {
        api_version: "example.com/v1".into(),
        kind: Some("Widget".into()),
        suspended: Some("has(spec.paused) && spec.paused".into()),
        in_progress: Some("status.phase == 'Busy'".into()),
        failed: Some("status.phase == 'Broken'".into()),
        current: "status.phase == 'Done'".into(),
        ..Exprs::default()
    }
}

fn widget(status: &Value) -> Value {
    json!({"apiVersion": "example.com/v2", "kind": "Widget", "spec": {}, "status": status})
}

#[test]
fn the_first_expression_that_holds_decides() {
    let rules = rules(&of_widgets());
    let said = |object: &Value| {
        let (verdict, basis) = assess(object, &rules);
        assert_eq!(basis, Basis::User);
        (verdict.health, verdict.is_final)
    };
    for (phase, health, is_final) in [
        ("Busy", Progressing, false),
        ("Broken", Degraded, true),
        ("Done", Healthy, false),
        ("Other", Progressing, false),
    ] {
        assert_eq!(said(&widget(&json!({"phase": phase}))), (health, is_final), "{phase}");
    }
    let mut paused = widget(&json!({"phase": "Broken"}));
    paused["spec"] = json!({"paused": true});
    assert_eq!(said(&paused), (Suspended, false));
    let mut stale = widget(&json!({"phase": "Done", "observedGeneration": 1}));
    stale["metadata"] = json!({"generation": 2});
    assert_eq!(said(&stale), (Progressing, false));
    let mut goes = widget(&json!({"phase": "Done"}));
    goes["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    assert_eq!(said(&goes), (Progressing, false));
}

#[test]
fn what_cannot_be_told_is_not_healthy() {
    let rules = rules(&of_widgets());
    let (verdict, _) = assess(&json!({"apiVersion": "example.com/v1", "kind": "Widget"}), &rules);
    assert_eq!((verdict.health, &*verdict.reason), (Progressing, "it has no status yet"));
    let (verdict, _) = assess(&widget(&json!({"other": 1})), &rules);
    assert_eq!(verdict.health, Progressing);
    assert_eq!(
        verdict.reason,
        "inProgress: `status.phase == 'Busy'` asks for `phase`, which is not there; `has()` tells whether a field is"
    );
    let wrong = Exprs { current: "status.phase".into(), ..of_widgets() };
    let (verdict, _) = assess(&widget(&json!({"phase": "x"})), &self::rules(&wrong));
    assert_eq!(verdict.health, Unknown);
    assert_eq!(verdict.reason, "current: `status.phase` gives string and not true or false");
}

#[test]
fn a_rule_is_for_a_kind_or_else_for_its_group() {
    let group = Exprs { kind: None, current: "true".into(), ..Exprs::default() };
    let group = Exprs { api_version: "example.com/v1".into(), ..group };
    let rules = Rules::compile([&group, &of_widgets()]).unwrap();
    let object = |kind: &str, version: &str| json!({"apiVersion": version, "kind": kind});
    let healthy = |object: &Value| assess(object, &rules).0.health == Healthy;
    assert!(healthy(&object("Gadget", "example.com/v1")));
    assert!(!healthy(&object("Widget", "example.com/v1")));
    assert!(!healthy(&object("Gadget", "other.example.com/v1")));
    // A user's word is above those for Kubernetes' own kinds.
    let pods = Exprs { api_version: "v1".into(), kind: Some("Pod".into()), ..group };
    let rules = self::rules(&pods);
    assert_eq!(assess(&object("Pod", "v1"), &rules), (Verdict::new(Healthy, ""), Basis::User));
}

#[test]
fn a_rule_that_does_not_compile_is_told_with_its_kind_and_field() {
    let wrong = Exprs { failed: Some("status.".into()), ..of_widgets() };
    let error = Rules::compile([&wrong]).unwrap_err();
    let said = format!("{error}");
    assert!(
        said.starts_with(
            "the rule for Widget of example.com/v1: failed: `status.` does not compile: "
        ),
        "{said}"
    );
}
