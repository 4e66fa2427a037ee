use serde_json::json;

use super::*;

fn holds(text: &str, object: &Value) -> Result<bool, CelError> {
    Expression::compile(text)?.holds(&Variables::of(object))
}

#[test]
fn expressions_see_the_fields_of_the_object() {
    let object = json!({
        "kind": "Widget",
        "metadata": {"generation": 3, "labels": {"app.kubernetes.io/name": "a"}},
        "spec": {"replicas": 2, "ratio": 0.5, "names": ["a", "b"], "none": null},
        "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Stalled", "status": "False"},
        ], "observedGeneration": 3},
    });
    for text in [
        "kind == 'Widget'",
        "status.observedGeneration == metadata.generation",
        "status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True')",
        "status.conditions.exists(e, e.type == 'Ready' && e.status == 'True')",
        "has(status.conditions) && !has(status.phase)",
        "spec.ratio < 1 && spec.replicas > 1.5",
        "spec.none == null",
        "status.?phase.orValue('Pending') == 'Pending'",
        "status.conditions[?0].optMap(c, c.type).orValue('') == 'Ready'",
        "metadata.labels['app.kubernetes.io/name'] == 'a'",
        "'b' in spec.names && 'replicas' in spec",
        "sets.contains(spec.names, ['a']) && !sets.intersects(spec.names, ['c'])",
        "sets.equivalent(spec.names, ['b', 'a', 'b'])",
        "spec.names.join('-').upperAscii() == 'A-B'",
        "base64.decode('YQ==') == b'a'",
        "timestamp(status.conditions[0].lastTransitionTime) < timestamp('2027-01-01T00:00:00Z')",
        "spec == {'replicas': 2, 'ratio': 0.5, 'names': ['a', 'b'], 'none': null}",
        "size(status.conditions) == 2 && status.conditions.map(c, c.type) == ['Ready', 'Stalled']",
    ] {
        assert_eq!(holds(text, &object), Ok(true), "{text}");
    }
}

#[test]
fn what_is_not_there_yet_is_told_apart_from_what_is_wrong() {
    let object = json!({"spec": {"replicas": 2, "names": []}});
    for text in ["status.phase == 'Ready'", "spec.ready", "spec.names[0] == 'a'"] {
        let error = holds(text, &object).unwrap_err();
        assert!(matches!(error, CelError::NotThere { .. }), "{text}: {error}");
    }
    for (text, says) in [
        ("spec.replicas == ", "does not compile"),
        ("", "does not compile"),
        ("spec.replicas + 'a' == ''", "cannot be evaluated"),
        ("1 / 0 == 1", "a division by zero"),
        ("spec.replicas", "gives int and not true or false"),
        ("nothing(spec)", "asks for `nothing`"),
        ("@turn()", "does not compile"),
    ] {
        let error = holds(text, &object).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn errors_do_not_quote_values() {
    let object = json!({"spec": {"token": "hunter2", "list": ["hunter2"]}});
    for text in [
        "spec.token > 3",
        "spec.token + 1 == 2",
        "spec.list['hunter'] == 1",
        "spec.list[spec.token] == 1",
        "int(spec.token) == 1",
        "timestamp(spec.token) == timestamp(spec.token)",
        "spec.token",
        "spec[spec.token] == 1",
    ] {
        let error = holds(text, &object).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }
}

#[test]
fn expressions_that_run_too_long_or_grow_too_large_are_ended() {
    let list: Vec<u32> = (0..1000).collect();
    let object = json!({"spec": {"list": list, "text": "x".repeat(1000)}});
    let long = "spec.list.all(a, spec.list.all(b, spec.list.all(c, a + b + c >= 0)))";
    assert!(matches!(holds(long, &object), Err(CelError::TooLong { .. })));
    let absorbed = "spec.list.exists(a, spec.list.all(b, spec.list.all(c, a + b + c >= 0)))";
    assert!(matches!(holds(absorbed, &object), Err(CelError::TooLong { .. })));
    assert_eq!(holds("spec.list.all(a, a >= 0)", &object), Ok(true));
    let grows = "spec.text.replace('x', spec.text).replace('x', spec.text).size() > 0";
    assert!(matches!(holds(grows, &object), Err(CelError::TooLong { .. })));
    for deep in [
        format!("{}1{} == 1", "(".repeat(500), ")".repeat(500)),
        format!("{}true", "!(".repeat(300) + &")".repeat(300)),
        format!("spec{}", ".a".repeat(1000)),
        "true ? true : ".repeat(200) + "true",
        format!("{}1 == 1", "1 + ".repeat(900)),
        format!("{}1{} == [1]", "[".repeat(300), "]".repeat(300)),
        "x".repeat(5000),
    ] {
        let error = Expression::compile(&deep).unwrap_err();
        assert!(
            matches!(error, CelError::TooLarge { .. } | CelError::Syntax { .. }),
            "{deep}: {error}"
        );
    }
}
