//! Reads `status.conditions` and what is like them.

use serde_json::Value;

/// One entry of `status.conditions`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition<'a> {
    pub(crate) kind: &'a str,
    pub(crate) status: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
    /// The generation that it speaks of.
    pub(crate) generation: Option<i64>,
}

impl<'a> Condition<'a> {
    fn read(value: &'a Value) -> Option<Self> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        Some(Self {
            kind: value.get("type")?.as_str()?,
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
            generation: value.get("observedGeneration").and_then(Value::as_i64),
        })
    }

    pub(crate) fn is(&self, status: &str) -> bool {
        self.status.eq_ignore_ascii_case(status)
    }

    /// Its message, else its reason, else itself.
    pub(crate) fn words(&self) -> String {
        match (self.reason, self.message) {
            ("", "") => format!("{} is {}", self.kind, self.status),
            (reason, "") => format!("{} is {}: {reason}", self.kind, self.status),
            ("", message) => message.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }
}

/// All conditions of an object, in order.
pub(crate) fn all(object: &Value) -> Vec<Condition<'_>> {
    let list = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Condition::read).collect()
}

/// The condition of a type.
pub(crate) fn find<'a>(object: &'a Value, kind: &str) -> Option<Condition<'a>> {
    all(object).into_iter().find(|condition| condition.kind == kind)
}

/// Whether the status speaks of an older generation than the one that is wanted. Some kinds write a
/// negative one until they have been right once, which says nothing of what their conditions speak of.
pub(crate) fn is_stale(object: &Value) -> bool {
    let wanted = object["metadata"]["generation"].as_i64();
    let seen = &object["status"]["observedGeneration"];
    // Some kinds write it as text.
    let seen = seen.as_i64().or_else(|| seen.as_str().and_then(|text| text.parse().ok()));
    wanted.zip(seen).is_some_and(|(wanted, seen)| (0..wanted).contains(&seen))
}
