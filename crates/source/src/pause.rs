//! What a server says with `Retry-After`.

use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};

/// The longest that a server is waited for at its word. One that asks for more is asked again after
/// this, which costs it one request.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// The moment that the header's value names: seconds from now, or a date. `None` for what is neither,
/// or is over.
pub(crate) fn retry_after(value: &str, now: Timestamp) -> Option<Timestamp> {
    let value = value.trim();
    let latest = now.checked_add(LONGEST).ok()?;
    let until = if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        // More digits than a number has are more than an hour.
        let seconds = value.parse().unwrap_or(i64::MAX).min(LONGEST.as_secs());
        now.checked_add(SignedDuration::from_secs(seconds)).ok()?
    } else {
        DateTimeParser::new().parse_timestamp(value).ok()?
    };
    let until = until.min(latest);
    // Whole seconds, as it stands in statuses.
    (until > now).then(|| Timestamp::from_second(until.as_second()).unwrap_or(until))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_within_an_hour() {
        let now: Timestamp = "2026-11-27T10:00:00Z".parse().unwrap();
        for (value, until) in [
            ("120", Some("2026-11-27T10:02:00Z")),
            (" 1 ", Some("2026-11-27T10:00:01Z")),
            ("3600", Some("2026-11-27T11:00:00Z")),
            ("3601", Some("2026-11-27T11:00:00Z")),
            ("99999999999999999999999", Some("2026-11-27T11:00:00Z")),
            ("Fri, 27 Nov 2026 10:07:00 GMT", Some("2026-11-27T10:07:00Z")),
            ("Sat, 28 Nov 2026 10:07:00 GMT", Some("2026-11-27T11:00:00Z")),
            ("Fri, 27 Nov 2026 09:59:00 GMT", None),
            ("0", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let until = until.map(|text| text.parse::<Timestamp>().unwrap());
            assert_eq!(retry_after(value, now), until, "{value:?}");
        }
    }
}
