//! Numbers as Go reads and writes them: manifests are read by tools written in Go.

use serde_json::Number;

/// Reads an integer the way Go's base-0 `ParseInt` and `ParseUint` do after `_` was removed: an
/// optional sign, then `0x`, `0o`, `0b`, a bare `0` for octal, or decimal digits.
pub(crate) fn integer(plain: &str) -> Option<Number> {
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain),
    };
    let prefix = digits.get(..2).unwrap_or("");
    let (digits, radix) = match prefix {
        "0x" | "0X" => (&digits[2..], 16),
        "0o" | "0O" => (&digits[2..], 8),
        "0b" | "0B" => (&digits[2..], 2),
        _ if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        _ => (digits, 10),
    };
    // `from_str_radix` would take a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        0i64.checked_sub_unsigned(magnitude).map(Number::from)
    } else if let Ok(value) = i64::try_from(magnitude) {
        Some(Number::from(value))
    } else if plain.starts_with('+') {
        // Go reads what exceeds an int64 as unsigned, which takes no sign.
        None
    } else {
        Some(Number::from(magnitude))
    }
}

/// Whether the text has the form of a YAML float: digits, a dot somewhere, an exponent.
pub(crate) fn looks_like_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        None => digits(mantissa),
        Some(("", after)) => digits(after),
        Some((before, after)) => digits(before) && (after.is_empty() || digits(after)),
    };
    mantissa_fits
        && exponent
            .is_none_or(|exponent| digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)))
}

/// Reads a float; `None` for other text and for what exceeds the range, which stays a string.
pub(crate) fn float(plain: &str) -> Option<f64> {
    if !looks_like_float(plain) {
        return None;
    }
    let value: f64 = plain.parse().ok()?;
    value.is_finite().then_some(value)
}

/// Reads a float that starts with a dot; here Go takes `_` between digits, and only there.
pub(crate) fn dotted_float(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    for (i, byte) in bytes.iter().enumerate() {
        let digit = |i: Option<usize>| i.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_digit);
        if *byte == b'_' && !(digit(i.checked_sub(1)) && digit(Some(i + 1))) {
            return None;
        }
    }
    float(&text.replace('_', ""))
}

/// A float as it is after a trip through JSON: what is whole and fits becomes an integer.
pub(crate) fn through_json(value: f64) -> Option<Number> {
    if value.fract() == 0.0 && value.abs() < 1e21 {
        // Shortest digits padded with zeros, as Go writes it to JSON, read again.
        let text = format!("{value}");
        if let Some(whole) = integer(&text) {
            return Some(whole);
        }
    }
    Number::from_f64(value)
}

/// Writes a number as the Go emitter does: integers in full, floats like C's `%g` with the
/// shortest digits that read back the same.
pub(crate) fn write(number: &Number) -> String {
    if !number.is_f64() {
        return number.to_string();
    }
    let Some(value) = number.as_f64() else {
        return number.to_string();
    };
    match through_json(value) {
        Some(number) if !number.is_f64() => number.to_string(),
        _ => shortest(value),
    }
}

/// Go's `FormatFloat(value, 'g', -1, 64)`.
fn shortest(value: f64) -> String {
    // `{:e}` gives the shortest digits as `d.ddde±x`.
    let text = format!("{value:e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        format!("{value}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_as_go_reads_them() {
        let cases: [(&str, Option<&str>); 27] = [
            ("0", Some("0")),
            ("-0", Some("0")),
            ("+12", Some("12")),
            ("0644", Some("420")),
            ("-0644", Some("-420")),
            ("08", None),
            ("0o17", Some("15")),
            ("0O17", Some("15")),
            ("-0o17", Some("-15")),
            ("0o8", None),
            ("0x1F", Some("31")),
            ("0X1f", Some("31")),
            ("+0x10", Some("16")),
            ("0b101", Some("5")),
            ("-0b11", Some("-3")),
            ("0b2", None),
            ("0x", None),
            ("0x+1", None),
            ("--1", None),
            ("", None),
            ("-", None),
            ("9223372036854775807", Some("9223372036854775807")),
            ("9223372036854775808", Some("9223372036854775808")),
            ("+9223372036854775808", None),
            ("18446744073709551615", Some("18446744073709551615")),
            ("18446744073709551616", None),
            ("-9223372036854775808", Some("-9223372036854775808")),
        ];
        for (text, want) in cases {
            let got = integer(text).map(|n| n.to_string());
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn floats_as_go_reads_and_writes_them() {
        let cases: [(&str, Option<&str>); 22] = [
            ("1.0", Some("1")),
            ("1.", Some("1")),
            (".5", Some("0.5")),
            ("-.5", Some("-0.5")),
            ("-0.0", Some("0")),
            ("08", Some("8")),
            ("09.5", Some("9.5")),
            ("1e3", Some("1000")),
            ("1.0e+15", Some("1000000000000000")),
            ("1e18", Some("1000000000000000000")),
            ("1e19", Some("10000000000000000000")),
            ("1e20", Some("1e+20")),
            ("18446744073709551616", Some("1.8446744073709552e+19")),
            ("123456789012345678901234567890", Some("1.2345678901234568e+29")),
            ("1e-7", Some("1e-07")),
            ("0.0001", Some("0.0001")),
            ("0.00001", Some("1e-05")),
            ("123456.7", Some("123456.7")),
            ("1234567.5", Some("1.2345675e+06")),
            ("1.7976931348623157e308", Some("1.7976931348623157e+308")),
            ("1e400", None),
            ("0x1p4", None),
        ];
        for (text, want) in cases {
            let got = float(text).and_then(through_json).map(|n| write(&n));
            assert_eq!(got.as_deref(), want, "{text}");
        }
        for (text, want) in [(".1_0", Some(0.1)), ("._1", None), (".1__0", None), (".1_", None)] {
            assert_eq!(dotted_float(text), want, "{text}");
        }
    }
}
