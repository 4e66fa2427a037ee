//! Lengths of time as users of Kubernetes write them: `30s`, `1h30m`, `500ms`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What the API server accepts; the same pattern as Flux has, so that manifests carry over.
const PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

/// The longest text of a duration, so that the cost of its rule is bounded.
const MAX_LENGTH: usize = 64;

/// The longest duration in nanoseconds: that of Go, in which the API server reckons, 292 years.
const MAX_NANOS: u128 = i64::MAX as u128;

/// The units, longest first, in nanoseconds. `m` stands after `ms` where one is looked up by prefix.
const UNITS: [(&str, u128); 4] =
    [("h", 3_600_000_000_000), ("ms", 1_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000)];

/// A length of time, written as numbers with the units `h`, `m`, `s` and `ms`: `1h30m`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

impl Duration {
    /// A duration of whole seconds.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(std::time::Duration::from_secs(seconds as u64))
    }

    /// The same length in the standard library's type.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text is not a row of numbers with units.
    #[error("{text:?} is not a duration: write numbers with the units h, m, s or ms, like 1h30m")]
    Syntax {
        /// The offending text.
        text: String,
    },
    /// The number is right, but longer than 292 years.
    #[error("{text:?} is longer than a duration can be")]
    TooLong {
        /// The offending text.
        text: String,
    },
}

/// The digits at the start of a text, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// One number with its unit at the start of a text: nanoseconds, and what follows. `None` when it
/// is not one; the inner `None` when it is too long.
fn part(text: &str) -> Option<(Option<u128>, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("0", rest),
    };
    if whole.is_empty() || fraction.is_empty() {
        return None;
    }
    let (unit, rest) =
        UNITS.iter().find_map(|(name, nanos)| Some((*nanos, rest.strip_prefix(name)?)))?;
    // Fifteen digits of an hour are finer than a nanosecond, and the product stays in range.
    let fraction = &fraction[..fraction.len().min(15)];
    let scale = fraction.bytes().fold(1_u128, |scale, _| scale * 10);
    let nanos = whole
        .parse::<u64>()
        .ok()
        .map(|whole| u128::from(whole) * unit)
        .zip(fraction.parse::<u128>().ok())
        .map(|(whole, fraction)| whole + fraction * unit / scale);
    Some((nanos, rest))
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || DurationError::Syntax { text: text.into() };
        let too_long = || DurationError::TooLong { text: text.into() };
        if text.is_empty() {
            return Err(syntax());
        }
        let (mut total, mut rest) = (Some(0_u128), text);
        while !rest.is_empty() {
            let (nanos, after) = part(rest).ok_or_else(syntax)?;
            total = total
                .zip(nanos)
                .map(|(total, nanos)| total + nanos)
                .filter(|total| *total <= MAX_NANOS);
            rest = after;
        }
        let nanos = total.and_then(|total| u64::try_from(total).ok()).ok_or_else(too_long)?;
        Ok(Self(std::time::Duration::from_nanos(nanos)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let nanos = self.0.subsec_nanos();
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        for (count, unit) in [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(nanos / 1_000_000), "ms"),
        ] {
            let last = unit == "ms" && !nanos.is_multiple_of(1_000_000);
            match (count, last) {
                (0, false) => {}
                (count, false) => write!(f, "{count}{unit}")?,
                (count, true) => {
                    let fraction = format!("{:06}", nanos % 1_000_000);
                    write!(f, "{count}.{}{unit}", fraction.trim_end_matches('0'))?;
                }
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Where the pattern already refused the text, the rule keeps silent: one mistake, one
        // message.
        json_schema!({
            "type": "string",
            "maxLength": MAX_LENGTH,
            "pattern": PATTERN,
            "x-kubernetes-validations": [{
                "rule": format!("!self.matches(r'{PATTERN}') || duration(self) >= duration('1s')"),
                "message": "must be at least 1s",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_durations_and_back() {
        for (text, nanos, display) in [
            ("0s", 0, "0s"),
            ("1s", 1_000_000_000, "1s"),
            ("60s", 60_000_000_000, "1m"),
            ("90m", 5_400_000_000_000, "1h30m"),
            ("1h30m", 5_400_000_000_000, "1h30m"),
            ("30m1h", 5_400_000_000_000, "1h30m"),
            ("1m1m", 120_000_000_000, "2m"),
            ("500ms", 500_000_000, "500ms"),
            ("1.5s", 1_500_000_000, "1s500ms"),
            ("0.5ms", 500_000, "0.5ms"),
            ("0.000001ms", 1, "0.000001ms"),
            ("1h0.25ms", 3_600_000_250_000, "1h0.25ms"),
            ("0.333333333333333333333h", 1_199_999_999_999, "19m59s999.999999ms"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.get().as_nanos(), nanos, "{text}");
            assert_eq!(duration.to_string(), display, "{text}");
            assert_eq!(display.parse::<Duration>().unwrap(), duration, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused_by_name() {
        for text in
            ["", "5", "s", "5x", "5 s", "-5s", "+5s", ".5s", "5.s", "1d", "1s ", "5µs", "1hm"]
        {
            let error = text.parse::<Duration>().unwrap_err();
            assert_eq!(error, DurationError::Syntax { text: text.into() });
        }
        for text in ["2562048h", "99999999999999999999h", "2562047h2562047h"] {
            let error = text.parse::<Duration>().unwrap_err();
            assert_eq!(error, DurationError::TooLong { text: text.into() });
        }
        assert!("2562047h47m16s".parse::<Duration>().is_ok());
    }

    #[test]
    fn json_is_the_text() {
        let duration: Duration = serde_json::from_str("\"1h30m\"").unwrap();
        assert_eq!(serde_json::to_string(&duration).unwrap(), "\"1h30m\"");
        let error = serde_json::from_str::<Duration>("\"soon\"").unwrap_err();
        assert!(error.to_string().contains("\"soon\" is not a duration"));
    }
}
