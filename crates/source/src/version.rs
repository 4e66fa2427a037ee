//! Picks the highest version among tags.
//!
//! Tags are plain semantic versions with an optional leading `v`, or hold one where a pattern says.
//! Ranges are those of npm, which hold those of Helm and Flux: commas mean "and", `!=` excludes.
//! Pre-releases count only when the range itself names one, and then all of them do.

use nodejs_semver::Range;
use regex::{Regex, RegexBuilder};
use regex_syntax::hir::literal::Extractor;
use semver::Version;

use crate::SourceError;

/// Bytes of a pattern when it is compiled. One with a dozen parts has some ten thousand, or some hundred
/// thousand if they are of letters of all alphabets. What a tag takes to be matched grows with it.
const MAX_PATTERN: usize = 1 << 20;

/// A parsed version range.
#[derive(Debug)]
pub(crate) struct VersionRange {
    text: String,
    alternatives: Vec<Alternative>,
    pre_releases: bool,
}

#[derive(Debug)]
struct Alternative {
    within: Range,
    except: Vec<Range>,
}

impl VersionRange {
    pub(crate) fn parse(text: &str) -> Result<Self, SourceError> {
        let bad = || SourceError::InvalidRange { range: text.into() };
        let mut alternatives = Vec::new();
        for part in text.split("||") {
            let spaced = part.replace(',', " ").replace("!= ", "!=");
            let (except, within): (Vec<&str>, Vec<&str>) =
                spaced.split_whitespace().partition(|word| word.starts_with("!="));
            // The parser passes over words that it does not know; nobody means that.
            if !within.iter().all(|word| is_range_word(word)) {
                return Err(bad());
            }
            let within = within.join(" ");
            let except = except
                .iter()
                .map(|word| match &word[2..] {
                    "" => Err(bad()),
                    version => Range::parse(version).map_err(|_| bad()),
                })
                .collect::<Result<_, _>>()?;
            let within = Range::parse(&within).map_err(|_| bad())?;
            alternatives.push(Alternative { within, except });
        }
        if text.trim().is_empty() {
            return Err(bad());
        }
        Ok(Self { text: text.into(), alternatives, pre_releases: names_pre_release(text) })
    }

    fn holds(&self, version: &Version) -> bool {
        if !version.pre.is_empty() && !self.pre_releases {
            return false;
        }
        let Ok(version) = nodejs_semver::Version::parse(version.to_string()) else {
            return false;
        };
        let inside = |range: &Range| range.satisfies_with_prerelease(&version, self.pre_releases);
        self.alternatives.iter().any(|a| inside(&a.within) && !a.except.iter().any(inside))
    }
}

/// Which tags are versions, and which of those will do.
#[derive(Debug)]
pub(crate) struct Versions {
    range: VersionRange,
    pattern: Option<Pattern>,
}

/// Where in a tag its version stands.
#[derive(Debug)]
struct Pattern {
    /// Matches whole tags.
    regex: Regex,
    /// What every tag that matches starts with.
    prefix: String,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, SourceError> {
        // Of the last lines of the parser's picture only the first says what is wrong.
        let bad = |error: &dyn std::fmt::Display| SourceError::InvalidPattern {
            pattern: text.into(),
            why: error.to_string().lines().last().unwrap_or_default().trim().into(),
        };
        let alone = regex_syntax::parse(text).map_err(|error| bad(&error))?;
        let whole = format!("^(?:{text})$");
        let regex = RegexBuilder::new(&whole).size_limit(MAX_PATTERN).build();
        let regex = regex.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => bad(&"it stands for too much"),
            error => bad(&error),
        })?;
        let prefixes = Extractor::new().extract(&alone);
        let prefix = prefixes.longest_common_prefix().unwrap_or_default();
        // A prefix may end inside a character, and in a listing it must not hold a line's end.
        let prefix = std::str::from_utf8(prefix).unwrap_or_default();
        let plain = prefix.chars().all(|c| !c.is_whitespace() && !c.is_control());
        Ok(Self { regex, prefix: if plain { prefix.into() } else { String::new() } })
    }

    fn version<'t>(&self, tag: &'t str) -> Option<&'t str> {
        let found = self.regex.captures(tag)?;
        Some(found.get(1).or_else(|| found.get(0))?.as_str())
    }
}

impl Versions {
    pub(crate) fn parse(range: &str, pattern: Option<&str>) -> Result<Self, SourceError> {
        let range = VersionRange::parse(range)?;
        Ok(Self { range, pattern: pattern.map(Pattern::parse).transpose()? })
    }

    /// What the tags that count start with, so that a server need not list the others.
    pub(crate) fn prefix(&self) -> &str {
        self.pattern.as_ref().map_or("", |pattern| &pattern.prefix)
    }

    fn of(&self, tag: &str) -> Option<Version> {
        match &self.pattern {
            Some(pattern) => parse_version(pattern.version(tag)?),
            None => parse_version(tag),
        }
    }

    /// The tag with the highest version in the range. Versions that differ in build metadata only
    /// are ordered by it; of `1.0.0` and `v1.0.0` the one with the `v` wins, so that the choice
    /// never depends on the server's order. A pattern may be slow and a list of tags long: `go_on` is
    /// asked before each tag.
    pub(crate) fn highest<'t>(
        &self,
        tags: impl Iterator<Item = &'t str>,
        go_on: impl Fn() -> Result<(), SourceError>,
    ) -> Result<&'t str, SourceError> {
        let mut count = 0;
        let mut versions: Vec<(Version, &str)> = Vec::new();
        for tag in tags {
            go_on()?;
            count += 1;
            versions.extend(self.of(tag).map(|version| (version, tag)));
        }
        let found = versions.iter().filter(|(version, _)| self.range.holds(version)).max();
        match found {
            Some((_, tag)) => Ok(tag),
            None => Err(SourceError::NoSemverMatch {
                range: self.range.text.clone(),
                tags: count,
                versions: versions.len(),
                highest: versions.iter().max().map(|(_, tag)| (*tag).to_owned()),
            }),
        }
    }
}

fn parse_version(text: &str) -> Option<Version> {
    Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

/// Whether a word belongs into a range: an operator, a whole or partial version, both together,
/// or the hyphen between two versions.
fn is_range_word(word: &str) -> bool {
    let version = word.trim_start_matches(['<', '>', '=', '~', '^']);
    let operator = &word[..word.len() - version.len()];
    if !matches!(operator, "" | "<" | "<=" | ">" | ">=" | "=" | "~" | "^" | "~>") {
        return false;
    }
    if version.is_empty() || word == "-" {
        return true;
    }
    let version = version.strip_prefix('v').unwrap_or(version);
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = numbers.split('.');
    numbers.clone().count() <= 3
        && numbers.all(|n| {
            matches!(n, "x" | "X" | "*") || !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())
        })
}

/// Whether a version in the text has a hyphen right after its number, as in `>=1.0.0-0`; the
/// hyphen of `1.0.0 - 2.0.0` stands between spaces.
fn names_pre_release(text: &str) -> bool {
    text.as_bytes()
        .windows(3)
        .any(|w| w[0].is_ascii_alphanumeric() && w[1] == b'-' && w[2].is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(range: &str, tags: &[&str]) -> Result<String, SourceError> {
        Versions::parse(range, None)?.highest(tags.iter().copied(), || Ok(())).map(String::from)
    }

    #[test]
    fn highest_in_range() {
        let tags = [
            "v1.9.0",
            "1.10.0",
            "v1.10.1-rc.1",
            "2.0.0",
            "v2.1.0-beta.2",
            "latest",
            "1.2",
            "chart-9.9.9",
            "0.3.1",
        ];
        for (range, want) in [
            ("*", "2.0.0"),
            ("1.x", "1.10.0"),
            ("^1.9", "1.10.0"),
            ("~1.9.0", "v1.9.0"),
            (">=1.0.0 <2.0.0", "1.10.0"),
            (">=1.0.0, <2.0.0", "1.10.0"),
            (">=1.0.0,<1.10.0", "v1.9.0"),
            (">= 1.0.0, < 2.0.0", "1.10.0"),
            (">=1.0.0, !=1.10.0, <2.0.0", "v1.9.0"),
            ("1.0.0 - 1.9.5", "v1.9.0"),
            ("0.x || 1.9.x", "v1.9.0"),
            ("2.0.0", "2.0.0"),
            ("=1.9.0", "v1.9.0"),
            (">=1.0.0-0 <2.0.0", "v1.10.1-rc.1"),
            (">=1.0.0-0", "v2.1.0-beta.2"),
            ("^2.1.0-beta.1", "v2.1.0-beta.2"),
            ("<1.0.0", "0.3.1"),
        ] {
            assert_eq!(pick(range, &tags).unwrap(), want, "{range}");
        }
    }

    #[test]
    fn the_choice_does_not_depend_on_order() {
        let mut tags = ["1.0.0", "v1.0.0", "1.0.0+1", "1.0.0+2"];
        assert_eq!(pick("*", &tags).unwrap(), "1.0.0+2");
        tags.reverse();
        assert_eq!(pick("*", &tags).unwrap(), "1.0.0+2");
        assert_eq!(pick("*", &["1.0.0", "v1.0.0"]).unwrap(), "v1.0.0");
        assert_eq!(pick("*", &["v1.0.0", "1.0.0"]).unwrap(), "v1.0.0");
    }

    #[test]
    fn no_match_says_what_there_is() {
        let error = pick("^9", &["v1.0.0", "latest"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no tag matches the version range \"^9\" (1 of 2 tags are versions)"
        );
        assert_eq!(error.hint().unwrap(), "the highest version is v1.0.0");
    }

    #[test]
    fn ranges_that_mean_nothing_are_refused() {
        for bad in [
            "",
            "  ",
            "main",
            "1.2.3.4.5",
            ">>1",
            "^",
            "[1,2)",
            "x y",
            "1.0 foo",
            "1.0 latest",
            "1..0",
            "=>1",
            "!=",
            "1.0 ||| 2",
        ] {
            let got = pick(bad, &["1.0.0"]);
            assert!(matches!(got, Err(SourceError::InvalidRange { .. })), "{bad}: {got:?}");
        }
    }

    #[test]
    fn a_pattern_says_where_the_version_stands() {
        let tags = [
            "1.0.0",
            "web-1.0.0",
            "web-v1.2.0",
            "web-1.3.0-rc.1",
            "webs-9.0.0",
            "2.0.0-web",
            "api/3.0.0",
        ];
        for (range, pattern, want) in [
            ("*", "web-(.*)", Ok("web-v1.2.0")),
            ("*", "^web-(.*)$", Ok("web-v1.2.0")),
            ("<1.2", "web-(.*)", Ok("web-1.0.0")),
            (">=1.0.0-0", "web-(.*)", Ok("web-1.3.0-rc.1")),
            ("*", "(?:web|webs)-(.*)", Ok("webs-9.0.0")),
            ("*", "web-(?<version>[^-]+)", Ok("web-v1.2.0")),
            ("*", r"(\d+\.\d+\.\d+)-web", Ok("2.0.0-web")),
            ("*", "api/(.*)", Ok("api/3.0.0")),
            // The whole tag, or nothing of it.
            ("*", "[0-9.]+", Ok("1.0.0")),
            ("*", "web", Err("no tag matches the version range \"*\" (0 of 7 tags are versions)")),
            ("*", "web-(.*", Err("the pattern \"web-(.*\" is not valid: error: unclosed group")),
        ] {
            let found = Versions::parse(range, Some(pattern))
                .and_then(|versions| versions.highest(tags.into_iter(), || Ok(())));
            assert_eq!(
                found.map_err(|error| error.to_string()),
                want.map_err(String::from),
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_pattern_that_stands_for_too_much_is_refused() {
        for pattern in ["((a{50}){50}){50}-(.*)", r"(?:\w{30}){30}-(.*)"] {
            let error = Versions::parse("*", Some(pattern)).unwrap_err();
            assert!(error.to_string().ends_with("is not valid: it stands for too much"), "{error}");
        }
        Versions::parse("*", Some(r"\w+-\w+-\w+/(v?\d+\.\d+\.\d+(?:-[\w.]+)?)")).unwrap();
    }

    #[test]
    fn a_search_among_many_tags_can_be_ended_at_each() {
        let versions = Versions::parse("*", Some("web-(.*)")).unwrap();
        let tags: Vec<String> = (0..1000).map(|i| format!("web-1.0.{i}")).collect();
        let asked = std::cell::Cell::new(0);
        let go_on = || {
            asked.set(asked.get() + 1);
            if asked.get() == 5 { Err(SourceError::Cancelled) } else { Ok(()) }
        };
        let ended = versions.highest(tags.iter().map(String::as_str), go_on);
        assert!(matches!(ended, Err(SourceError::Cancelled)), "{ended:?}");
        assert_eq!(asked.get(), 5);
    }

    #[test]
    fn a_server_lists_no_more_tags_than_the_pattern_needs() {
        for (pattern, prefix) in [
            ("web-(.*)", "web-"),
            ("^web-(.*)$", "web-"),
            ("web-?(.*)", "web"),
            ("(?:web|webs)-(.*)", "web"),
            ("(?:web|api)-(.*)", ""),
            ("(?i)web-(.*)", ""),
            ("(.*)", ""),
            ("", ""),
            ("a\nb(.*)", ""),
        ] {
            assert_eq!(Versions::parse("*", Some(pattern)).unwrap().prefix(), prefix, "{pattern}");
        }
    }
}
