//! What a scalar means: the rules of go-yaml v3 with Kustomize's trip through JSON behind it, and
//! the words that YAML 1.1 readers take for something else, which the writer quotes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Number, Value};

use crate::error::Problem;
use crate::node::ScalarTag;
use crate::{number, timestamp};

/// Go's standard encoding wants padding and ignores bits left over in the last character.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// What a plain scalar stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meaning {
    Null,
    Bool(bool),
    Integer(Number),
    Float(f64),
    /// In RFC 3339 form.
    Timestamp(String),
    Text,
}

/// Resolves a plain scalar.
pub(crate) fn meaning(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
        "true" | "True" | "TRUE" => return Meaning::Bool(true),
        "false" | "False" | "FALSE" => return Meaning::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Meaning::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Meaning::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Meaning::Float(f64::NEG_INFINITY),
        _ => {}
    }
    match text.as_bytes()[0] {
        b'.' => number::dotted_float(text).map_or(Meaning::Text, Meaning::Float),
        b'+' | b'-' | b'0'..=b'9' => {
            if let Some(stamp) = timestamp::rewrite(text) {
                return Meaning::Timestamp(stamp);
            }
            let plain = if text.contains('_') {
                Cow::Owned(text.replace('_', ""))
            } else {
                Cow::Borrowed(text)
            };
            if let Some(integer) = number::integer(&plain) {
                Meaning::Integer(integer)
            } else {
                number::float(&plain).map_or(Meaning::Text, Meaning::Float)
            }
        }
        _ => Meaning::Text,
    }
}

impl Meaning {
    /// What a scalar that means this counts as.
    pub(crate) fn tag(&self) -> ScalarTag {
        match self {
            Self::Null => ScalarTag::Null,
            Self::Bool(_) => ScalarTag::Bool,
            Self::Integer(_) => ScalarTag::Int,
            Self::Float(_) => ScalarTag::Float,
            Self::Timestamp(_) => ScalarTag::Timestamp,
            Self::Text => ScalarTag::Str,
        }
    }

    /// The value, unless it is the text itself.
    pub(crate) fn value(self) -> Result<Option<Value>, Problem> {
        Ok(Some(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Integer(value) => Value::Number(value),
            Self::Float(value) => float(value)?,
            Self::Timestamp(value) => Value::String(value),
            Self::Text => return Ok(None),
        }))
    }
}

/// The value of a plain scalar without a tag.
pub(crate) fn plain(text: &str) -> Result<Value, Problem> {
    Ok(meaning(text).value()?.unwrap_or_else(|| Value::String(text.to_owned())))
}

/// The value of a plain scalar in a file that is read into a Go struct, unless it is the text
/// itself: YAML 1.1 words, dates as they are written.
pub(crate) fn plain_config(text: &str) -> Result<Option<Value>, Problem> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(Some(Value::Bool(true))),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(Some(Value::Bool(false))),
        _ => match meaning(text) {
            Meaning::Timestamp(_) => Ok(None),
            meaning => meaning.value(),
        },
    }
}

/// What a plain scalar without a tag counts as.
pub(crate) fn implicit_tag(text: &str) -> ScalarTag {
    meaning(text).tag()
}

/// What a scalar with a tag of the YAML namespace counts as.
pub(crate) fn explicit_tag(tag: &str) -> ScalarTag {
    match tag {
        "null" => ScalarTag::Null,
        "bool" => ScalarTag::Bool,
        "int" => ScalarTag::Int,
        "float" => ScalarTag::Float,
        "timestamp" => ScalarTag::Timestamp,
        "binary" => ScalarTag::Binary,
        _ => ScalarTag::Str,
    }
}

/// The value of a scalar with a tag of the YAML namespace, by the tag's last part. Tags without a
/// meaning of their own give the text.
pub(crate) fn tagged(tag: &str, text: &str) -> Result<Value, Problem> {
    let mismatch = || Problem::TagMismatch(format!("!!{tag}"));
    match (tag, meaning(text)) {
        ("int", Meaning::Integer(value)) => Ok(Value::Number(value)),
        // Only what fits an int64 turns into a float.
        ("float", Meaning::Integer(value)) if value.is_i64() => Ok(Value::Number(value)),
        ("float", Meaning::Float(value)) => float(value),
        ("bool", Meaning::Bool(value)) => Ok(Value::Bool(value)),
        ("null", Meaning::Null) => Ok(Value::Null),
        ("timestamp", Meaning::Timestamp(value)) => Ok(Value::String(value)),
        ("int" | "float" | "bool" | "null" | "timestamp", _) => Err(mismatch()),
        ("binary", _) => {
            let compact: Vec<u8> =
                text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
            let bytes = BASE64.decode(compact).map_err(|_| Problem::Binary)?;
            let text = String::from_utf8(bytes).map_err(|_| Problem::Binary)?;
            Ok(Value::String(text))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn float(value: f64) -> Result<Value, Problem> {
    number::through_json(value).map(Value::Number).ok_or(Problem::NotFinite)
}

/// What a value is, with its article, in words for people.
pub(crate) fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// Whether a reader of YAML 1.1 or 1.2 may take this plain text for something other than a string.
pub(crate) fn needs_quotes(text: &str) -> bool {
    matches!(
        text,
        "y" | "Y"
            | "yes"
            | "Yes"
            | "YES"
            | "on"
            | "On"
            | "ON"
            | "n"
            | "N"
            | "no"
            | "No"
            | "NO"
            | "off"
            | "Off"
            | "OFF"
    ) || meaning(text) != Meaning::Text
        || is_base60(text)
}

/// `12:30:45`, which YAML 1.1 reads as a number to the base 60.
fn is_base60(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let mut parts = text.split(':');
    let (Some(first), Some(mut last)) = (parts.next(), parts.next_back()) else {
        return false;
    };
    let digits_or = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if let Some((whole, fraction)) = last.split_once('.') {
        if !digits_or(fraction) {
            return false;
        }
        last = whole;
    }
    let sixty = |s: &str| match s.as_bytes() {
        [one] => one.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    };
    digits_or(first) && sixty(last) && parts.all(sixty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars() {
        let cases = [
            ("0644", json!(420)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("0x_1", json!(1)),
            ("0b101", json!(5)),
            ("1_000", json!(1000)),
            ("1__0", json!(10)),
            ("_1", json!("_1")),
            ("+12", json!(12)),
            ("08", json!(8)),
            ("yes", json!("yes")),
            ("no", json!("no")),
            ("on", json!("on")),
            ("off", json!("off")),
            ("y", json!("y")),
            ("n", json!("n")),
            ("12:30:45", json!("12:30:45")),
            ("True", json!(true)),
            ("TRUE", json!(true)),
            ("tRue", json!("tRue")),
            ("~", json!(null)),
            ("", json!(null)),
            ("null", json!(null)),
            ("1.0", json!(1)),
            ("1e3", json!(1000)),
            ("1e20", json!(1e20)),
            ("1e-7", json!(1e-7)),
            ("1234567.5", json!(1_234_567.5)),
            ("1_000.5", json!(1000.5)),
            ("1e400", json!("1e400")),
            ("0e12345", json!(0)),
            ("123e4567", json!("123e4567")),
            ("50%", json!("50%")),
            ("=", json!("=")),
            (".", json!(".")),
            ("-", json!("-")),
            ("2001-12-14", json!("2001-12-14T00:00:00Z")),
            ("18446744073709551615", json!(18_446_744_073_709_551_615u64)),
        ];
        for (text, want) in cases {
            assert_eq!(plain(text), Ok(want), "{text}");
        }
        for text in [".inf", "-.INF", "+.Inf", ".nan", ".NaN"] {
            assert_eq!(plain(text), Err(Problem::NotFinite), "{text}");
        }
    }

    #[test]
    fn tags() {
        let cases = [
            ("str", "123", Ok(json!("123"))),
            ("int", "12", Ok(json!(12))),
            ("int", "0o17", Ok(json!(15))),
            ("int", "1.5", Err(Problem::TagMismatch("!!int".into()))),
            ("int", "x", Err(Problem::TagMismatch("!!int".into()))),
            ("float", "3", Ok(json!(3))),
            ("float", "1_0.5", Ok(json!(10.5))),
            ("bool", "true", Ok(json!(true))),
            ("bool", "yes", Err(Problem::TagMismatch("!!bool".into()))),
            ("null", "", Ok(json!(null))),
            ("null", "x", Err(Problem::TagMismatch("!!null".into()))),
            ("timestamp", "2001-12-14", Ok(json!("2001-12-14T00:00:00Z"))),
            ("binary", "aGVs\nbG8=", Ok(json!("hello"))),
            ("binary", "aGVsbG8", Err(Problem::Binary)),
            ("binary", "/w==", Err(Problem::Binary)),
            ("set", "a", Ok(json!("a"))),
        ];
        for (tag, text, want) in cases {
            assert_eq!(tagged(tag, text), want, "!!{tag} {text}");
        }
    }

    #[test]
    fn base60_is_quoted() {
        for text in ["1:20", "12:30:45", "-1:5", "190:20:30.15", "1_0:00"] {
            assert!(needs_quotes(text), "{text}");
        }
        for text in ["1:60", "a:1", "1:", "1:200", ":1", "10.0.0.1:80", "1:2:"] {
            assert!(!needs_quotes(text), "{text}");
        }
    }
}
