//! What was sent to log in, found again in what somebody says. A server has it anyway; those who read
//! errors and statuses do not.

use std::io;
use std::sync::Arc;

use crate::SourceError;

/// What stands in its place.
const HIDDEN: &str = "(hidden)";

/// Bytes of the shortest one. Hiding what is shorter would hide letters everywhere, and tell it.
const MIN: usize = 3;

/// Bytes of a secret at the end of a text that are taken for one that was cut off there.
const MIN_CUT: usize = 4;

/// Bytes of a secret from which on a name that holds it was made of it. Shorter ones, such as `main`,
/// may be names of their own.
const MIN_NAME: usize = 8;

/// What was sent.
#[derive(Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut all: Vec<String> = secrets.into_iter().filter(|s| s.len() >= MIN).collect();
        // The whole one before its part, so that nothing of it is left.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(all)
    }

    /// Hides them in a text: in any case, with escapes of URLs and of quoted texts, and where the text
    /// ends in the middle of one.
    pub(crate) fn hide(&self, text: &mut String) {
        for secret in &self.0 {
            let mut rest = text.as_str();
            let mut masked = String::new();
            while let Some(c) = rest.chars().next() {
                if let Some(length) = matched(rest.as_bytes(), secret.as_bytes(), MIN_CUT) {
                    masked.push_str(HIDDEN);
                    rest = rest.get(length..).unwrap_or_default();
                } else {
                    masked.push(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
            *text = masked;
        }
    }

    /// Whether a name, which is told whole, holds one of them.
    pub(crate) fn are_in_name(&self, name: &str) -> bool {
        let long = || self.0.iter().filter(|secret| secret.len() >= MIN_NAME);
        let starts = (0..name.len()).map(|at| &name.as_bytes()[at..]);
        starts
            .into_iter()
            .any(|rest| long().any(|secret| matched(rest, secret.as_bytes(), usize::MAX).is_some()))
    }
}

/// How many bytes at the start of a text are a secret, or `cut` and more bytes of one at its end.
fn matched(text: &[u8], secret: &[u8], cut: usize) -> Option<usize> {
    let mut at = 0;
    for (i, wanted) in secret.iter().enumerate() {
        let rest = text.get(at..).unwrap_or_default();
        at += match rest {
            [] => return (i >= cut).then_some(at),
            [c, ..] if c.eq_ignore_ascii_case(wanted) => 1,
            [b'\\', c, ..] if c == wanted => 2,
            [b'%', high, low, ..] if decoded(*high, *low) == Some(*wanted) => 3,
            // Where the text itself ends in the middle of an escape.
            [b'%', ..] if rest.len() < 3 && i >= cut => return Some(text.len()),
            [b'+' | b' ', ..] if *wanted == b' ' || wanted.is_ascii_control() => 1,
            _ => return None,
        };
    }
    Some(at)
}

fn decoded(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

impl SourceError {
    /// Changes the texts that are a server's words, which may be of what it was sent, and hosts, which
    /// it may have sent us to.
    pub(crate) fn reword(mut self, change: impl Fn(&mut String)) -> Self {
        match &mut self {
            Self::UnknownHost { host: text }
            | Self::ConnectionRefused { host: text }
            | Self::Connect { host: text, .. }
            | Self::Tls { host: text, .. }
            | Self::ClientCertificate { host: text, .. }
            | Self::Interrupted { host: text, .. }
            | Self::Redirect { why: text, .. }
            | Self::NotGit { why: text, .. }
            | Self::RefNotFound { hint: Some(text), .. }
            | Self::NoSemverMatch { highest: Some(text), .. }
            | Self::Server { message: text }
            | Self::Protocol { why: text }
            | Self::BadObjects { why: text } => change(text),
            Self::ProxyRefused { host, why, .. } => {
                change(host);
                change(why);
            }
            _ => {}
        }
        // What is below may name the host, too.
        if let Self::Connect { source, .. }
        | Self::Tls { source, .. }
        | Self::Interrupted { source, .. }
        | Self::ProxyUnreachable { source, .. } = &mut self
        {
            let changed = |text: String| {
                let mut new = text.clone();
                change(&mut new);
                (new != text).then_some(new)
            };
            let shown = changed(source.to_string());
            if shown.is_some() || changed(format!("{source:?}")).is_some() {
                *source = Arc::new(io::Error::other(shown.unwrap_or_else(|| source.to_string())));
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_however_they_are_quoted() {
        for (secret, text, want) in [
            ("hunter2", "it is hunter2, yes", "it is (hidden), yes"),
            ("hunter2", "hunter2hunter2", "(hidden)(hidden)"),
            ("hunter2", "hhunter2", "h(hidden)"),
            ("Hunter2", "text/hunter2", "text/(hidden)"),
            ("p@ss \"w\"", "/p%40ss%20%22w%22/x", "/(hidden)/x"),
            ("p@ss \"w\"", "/p@ss%20%22w%22/x", "/(hidden)/x"),
            ("p@ss w", "q=p%40ss+w", "q=(hidden)"),
            ("a\"b\\c", "says \"a\\\"b\\\\c\"", "says \"(hidden)\""),
            ("ge\u{e4}nder\u{e4}t", "ge%C3%A4nder\u{e4}t!", "(hidden)!"),
            ("two\nlines", "two lines", "(hidden)"),
            // Cut off.
            ("hunter2", "it is hunter", "it is (hidden)"),
            ("hunter2 x", "it is hunter2%2", "it is (hidden)"),
            ("hunter2", "it is hun", "it is hun"),
            ("hunter2", "nothing \u{e4} of it", "nothing \u{e4} of it"),
            ("", "nothing", "nothing"),
            ("no", "nothing", "nothing"),
        ] {
            let mut masked = text.to_owned();
            Secrets::new([secret.to_owned()]).hide(&mut masked);
            assert_eq!(masked, want, "{secret:?}");
        }
        let mut text = "YWRhOmh1bnRlcjI ada:hunter2 hunter2".to_owned();
        let secrets = ["hunter2", "ada:hunter2", "YWRhOmh1bnRlcjI"].map(String::from);
        Secrets::new(secrets).hide(&mut text);
        assert_eq!(text, "(hidden) (hidden) (hidden)");
    }

    #[test]
    fn a_name_is_not_taken_for_a_short_secret() {
        let secrets = Secrets::new(["main".to_owned(), "hunter2-hunter2".to_owned()]);
        assert!(!secrets.are_in_name("main"));
        assert!(secrets.are_in_name("v1.0.0+HUNTER2-hunter2"));
        assert!(!secrets.are_in_name("to-hunter"), "a name is not cut off");
    }
}
