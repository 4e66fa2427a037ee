//! What is too large: what is known beforehand is told at the place of what is largest, and not sent.

use std::io;

use plumb_core::{ErrorClass, FieldPath, Object, ObjectKey, Step};
use serde_json::Value;

use crate::cluster::ApiError;
use crate::report::Failure;

/// What the values of a ConfigMap or Secret may have together, in bytes.
const DATA_LIMIT: usize = 1 << 20;

/// The longest body that an API server reads; it has no setting for that. Its store takes half of it
/// unless it is told otherwise, which only the answer to an apply tells.
const BODY_LIMIT: usize = 3 << 20;

const HINT: &str = "split it, or keep large files elsewhere";

/// Why an object is not sent, if it is known to be refused.
pub(crate) fn too_large(object: &Object, key: &ObjectKey) -> Option<Failure> {
    let (path, message) = too_much_data(object, key).or_else(|| {
        let size = json_size(object.body());
        (size > BODY_LIMIT).then(|| {
            let (path, part) = largest(object.body());
            let message = format!(
                "it has {size} bytes as JSON, and may have {BODY_LIMIT}; the largest part, {path}, \
                 has {part}"
            );
            (path, message)
        })
    })?;
    Some(Failure {
        key: key.clone(),
        place: Some(object.field_place(&path)),
        reason: TOO_LARGE,
        message,
        hint: Some(HINT.into()),
        class: ErrorClass::WaitForUser,
    })
}

/// The reason of what is too large.
pub(crate) const TOO_LARGE: &str = "TooLarge";

/// What is told of an object that was refused for its size: where its largest part is, the message
/// and what helps.
pub(crate) fn refused_as_too_large(
    object: &Object,
    error: &ApiError,
) -> Option<(FieldPath, String, &'static str)> {
    /// How the store, or the API server's way to it, says that.
    const WORDS: [&str; 2] = ["request is too large", "trying to send message larger than max"];
    let refusal = error.refusal()?;
    let too_large =
        refusal.code == 413 || WORDS.iter().any(|words| refusal.message.contains(words));
    too_large.then(|| {
        let (path, part) = largest(object.body());
        let size = json_size(object.body());
        let message = format!(
            "it has {size} bytes as JSON, which is more than the API server can store ({}); the \
             largest part, {path}, has {part}",
            refusal.message
        );
        (path, message, HINT)
    })
}

/// The values of a ConfigMap or Secret, where they are too many.
fn too_much_data(object: &Object, key: &ObjectKey) -> Option<(FieldPath, String)> {
    if !matches!((&*key.group_kind.group, &*key.group_kind.kind), ("", "ConfigMap" | "Secret")) {
        return None;
    }
    let secret = key.group_kind.kind == "Secret";
    let mut values = Vec::new();
    for field in ["data", "binaryData"] {
        for (name, value) in object.body()[field].as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            let encoded = secret || field == "binaryData";
            values.push((field, name, if encoded { decoded_size(text) } else { text.len() }));
        }
    }
    let sum: usize = values.iter().map(|(.., size)| size).sum();
    let (field, name, size) = values.into_iter().max_by_key(|(.., size)| *size)?;
    (sum > DATA_LIMIT).then(|| {
        let message = format!(
            "its values have {sum} bytes, and may have {DATA_LIMIT}; the largest, {field}.{name}, \
             has {size}"
        );
        (FieldPath::keys([field, name]), message)
    })
}

/// The bytes that a text in Base64 stands for.
fn decoded_size(text: &str) -> usize {
    let digits = text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=').count();
    digits * 3 / 4
}

/// The length of a value as JSON.
fn json_size(value: &Value) -> usize {
    struct Count(usize);

    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    // A `Value` has string keys only and counting cannot fail, so neither can this.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// The innermost part that has most of an object.
fn largest(body: &Value) -> (FieldPath, usize) {
    let (mut path, mut at, mut size) = (FieldPath::root(), body, json_size(body));
    let all = size;
    loop {
        let parts: Vec<(Step, &Value)> = match at {
            Value::Object(map) => {
                map.iter().map(|(key, value)| (Step::Key(key.clone()), value)).collect()
            }
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, value)| (Step::Index(index), value)).collect()
            }
            _ => return (path, size),
        };
        let sized = parts.into_iter().map(|(step, value)| (json_size(value), step, value));
        // The first step tells in any case, or nothing would be named where there are many parts.
        let found = sized.max_by_key(|(size, ..)| *size);
        match found.filter(|(part, ..)| path.steps().is_empty() || *part > all / 2) {
            Some((part, step, value)) => {
                path.push(step);
                (at, size) = (value, part);
            }
            None => return (path, size),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_largest_part_is_the_innermost_that_has_most_of_it() {
        let long = "x".repeat(1000);
        let cases = [
            (json!({"spec": {"a": {"b": long, "c": "d"}}}), "spec.a.b", 1002),
            (json!({"spec": {"args": ["a", long]}}), "spec.args[1]", 1002),
            (json!({"spec": {"rules": vec!["xxxx"; 100]}, "kind": "A"}), "spec.rules", 701),
            (json!({"a": {"b": "c"}, "d": {"e": "f"}}), "d", 9),
        ];
        for (body, path, size) in cases {
            let (found, has) = largest(&body);
            assert_eq!((found.to_string().as_str(), has), (path, size), "{body}");
        }
        let body = json!({"a": "\n\"", "b": [1, null]});
        assert_eq!(json_size(&body), body.to_string().len());
    }
}
