//! Timestamps, which the Resource dialect rewrites to RFC 3339.
//!
//! The forms are the four that go-yaml tries; the reading of each field is that of Go's
//! `time.Parse`, which takes one digit where two are usual.

/// Rewrites a timestamp to RFC 3339: `2001-12-14` to `2001-12-14T00:00:00Z`. `None` for a text
/// that is no timestamp.
pub(crate) fn rewrite(text: &str) -> Option<String> {
    let mut rest = Rest(text);
    let year = rest.digits(4, 4)?;
    rest.take('-')?;
    let month = rest.digits(1, 2)?;
    rest.take('-')?;
    let day = rest.digits(1, 2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let date = format!("{year:04}-{month:02}-{day:02}");
    if rest.0.is_empty() {
        return Some(format!("{date}T00:00:00Z"));
    }
    let zoned = if rest.take('T').or_else(|| rest.take('t')).is_some() {
        true
    } else {
        rest.take(' ')?;
        rest.0 = rest.0.trim_start_matches(' ');
        false
    };
    let hour = rest.digits(1, 2)?;
    rest.take(':')?;
    let minute = rest.digits(1, 2)?;
    rest.take(':')?;
    let second = rest.digits(1, 2)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction = rest.fraction();
    let zone = if zoned { rest.zone()? } else { "Z".into() };
    rest.0.is_empty().then(|| format!("{date}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}"))
}

fn days_in(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

struct Rest<'t>(&'t str);

impl Rest<'_> {
    fn take(&mut self, c: char) -> Option<()> {
        self.0 = self.0.strip_prefix(c)?;
        Some(())
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<u32> {
        let count = self.0.bytes().take_while(u8::is_ascii_digit).take(most).count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        digits.parse().ok()
    }

    /// `.` or `,` and digits; written with at most nine digits and without trailing zeros.
    fn fraction(&mut self) -> String {
        let Some(after) = self.0.strip_prefix(['.', ',']) else {
            return String::new();
        };
        let count = after.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return String::new();
        }
        let (digits, rest) = after.split_at(count);
        self.0 = rest;
        let digits = digits[..count.min(9)].trim_end_matches('0');
        if digits.is_empty() { String::new() } else { format!(".{digits}") }
    }

    fn zone(&mut self) -> Option<String> {
        if self.take('Z').is_some() {
            return Some("Z".into());
        }
        let sign = if self.take('+').is_some() {
            '+'
        } else {
            self.take('-')?;
            '-'
        };
        let hour = self.digits(2, 2)?;
        self.take(':')?;
        let minute = self.digits(2, 2)?;
        if hour > 23 || minute > 59 {
            return None;
        }
        Some(match (hour, minute) {
            (0, 0) => "Z".into(),
            _ => format!("{sign}{hour:02}:{minute:02}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_what_go_yaml_takes_for_a_timestamp() {
        let cases = [
            ("2001-12-14", Some("2001-12-14T00:00:00Z")),
            ("2001-1-2", Some("2001-01-02T00:00:00Z")),
            ("2001-12-14T21:59:43Z", Some("2001-12-14T21:59:43Z")),
            ("2001-12-14T21:59:43.000Z", Some("2001-12-14T21:59:43Z")),
            ("2001-12-14t21:59:43.10-05:00", Some("2001-12-14T21:59:43.1-05:00")),
            ("2001-12-14T1:2:3+00:00", Some("2001-12-14T01:02:03Z")),
            ("2001-12-14 21:59:43.10", Some("2001-12-14T21:59:43.1Z")),
            ("2001-12-14  21:59:43", Some("2001-12-14T21:59:43Z")),
            ("2000-02-29", Some("2000-02-29T00:00:00Z")),
            ("2001-02-29", None),
            ("2001-02-30", None),
            ("2001-13-01", None),
            ("01-12-14", None),
            ("20011-12-14", None),
            ("2001-12-14T21:59:43", None),
            ("2001-12-14 21:59:43 -5", None),
            ("2001-12-14T24:00:00Z", None),
            ("2001-12", None),
            ("2001-12-14x", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(rewrite(text).as_deref(), want, "{text}");
        }
    }
}
