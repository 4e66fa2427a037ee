//! What two builds of one directory say about each other, and of many directories in sum.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use plumb_core::RelPath;
use plumb_yaml::Limits;
use serde_json::{Value, json};

/// How many of what the reference builds must have the same bytes. All must be equal as JSON.
const BYTES_PERCENT: f64 = 99.5;

/// What an error of the reference has in it when it lacks something that we leave out.
const LEFT_OUT: [(&str, &str); 5] = [
    ("--enable-helm", "needs Helm"),
    ("external plugins disabled", "needs plugins"),
    ("no 'git' program on path", "needs the network"),
    ("proxyconnect", "needs the network"),
    ("dial tcp", "needs the network"),
];

/// What two builds of one directory say about each other.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The bytes are equal.
    Equal,
    /// Other bytes for the same objects.
    EqualJson(Difference),
    /// Other objects.
    Differs(Difference),
    /// The reference builds, ours fails.
    OursFails { ours: String },
    /// Neither builds.
    BothFail { theirs: String, ours: String },
    /// Ours builds, the reference fails.
    OursBuilds { theirs: String },
    /// Nothing to compare with.
    LeftOut { why: &'static str },
}

/// Where two texts begin to differ.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    line: usize,
    theirs: String,
    ours: String,
}

/// Compares what both print or why they do not.
pub(super) fn judge(theirs: Result<String, String>, ours: Result<String, String>) -> Verdict {
    match (theirs, ours) {
        (Ok(theirs), Ok(ours)) if theirs == ours => Verdict::Equal,
        (Ok(theirs), Ok(ours)) => {
            let difference = difference(&theirs, &ours);
            match (values(&theirs), values(&ours)) {
                (Some(theirs), Some(ours)) if theirs == ours => Verdict::EqualJson(difference),
                _ => Verdict::Differs(difference),
            }
        }
        (Ok(_), Err(ours)) => Verdict::OursFails { ours },
        (Err(theirs), ours) => {
            match (LEFT_OUT.iter().find(|(part, _)| theirs.contains(part)), ours) {
                (Some((_, why)), _) => Verdict::LeftOut { why },
                (None, Err(ours)) => Verdict::BothFail { theirs, ours },
                (None, Ok(_)) => Verdict::OursBuilds { theirs },
            }
        }
    }
}

fn values(text: &str) -> Option<Vec<Value>> {
    let documents =
        plumb_yaml::read(text.as_bytes(), &Arc::new(RelPath::root()), &Limits::default()).ok()?;
    Some(documents.into_iter().map(|document| document.value).collect())
}

fn difference(theirs: &str, ours: &str) -> Difference {
    let (mut left, mut right) = (theirs.lines(), ours.lines());
    let mut line = 1;
    loop {
        match (left.next(), right.next()) {
            (Some(left), Some(right)) if left == right => line += 1,
            (left, right) => {
                let show = |text: &str, found: Option<&str>| match found {
                    Some(_) if in_secret(text, line) => "(a line of a Secret)".to_owned(),
                    Some(found) => found.to_owned(),
                    None => "(end of text)".to_owned(),
                };
                return Difference { line, theirs: show(theirs, left), ours: show(ours, right) };
            }
        }
    }
}

/// Whether a line belongs to a Secret, whose content is shown nowhere.
fn in_secret(text: &str, line: usize) -> bool {
    let mut number = 0;
    text.split("---\n").any(|document| {
        let first = number + 1;
        number += document.lines().count() + 1;
        (first..=number).contains(&line) && document.lines().any(|line| line == "kind: Secret")
    })
}

impl Verdict {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::EqualJson(_) => "equal as JSON",
            Self::Differs(_) => "differs",
            Self::OursFails { .. } => "ours fails",
            Self::BothFail { .. } => "both fail",
            Self::OursBuilds { .. } => "ours builds, the reference does not",
            Self::LeftOut { .. } => "left out",
        }
    }

    fn to_json(&self, dir: &str) -> Value {
        let mut value = json!({ "directory": dir, "verdict": self.name() });
        match self {
            Self::Equal => {}
            Self::EqualJson(difference) | Self::Differs(difference) => {
                value["line"] = difference.line.into();
                value["reference"] = difference.theirs.as_str().into();
                value["ours"] = difference.ours.as_str().into();
            }
            Self::OursFails { ours } => value["ours"] = ours.as_str().into(),
            Self::BothFail { theirs, ours } => {
                value["reference"] = theirs.as_str().into();
                value["ours"] = ours.as_str().into();
            }
            Self::OursBuilds { theirs } => value["reference"] = theirs.as_str().into(),
            Self::LeftOut { why } => value["why"] = (*why).into(),
        }
        value
    }
}

/// All directories of a checkout.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Each directory with what was found.
    pub(super) found: Vec<(String, Verdict)>,
    /// How many are Components, which nobody builds by themselves.
    pub(super) components: usize,
}

/// How many of each.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    built: usize,
    json: usize,
    bytes: usize,
    both_fail: usize,
    ours_builds: usize,
    left_out: BTreeMap<&'static str, usize>,
}

impl Report {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, verdict) in &self.found {
            match verdict {
                Verdict::BothFail { .. } => counts.both_fail += 1,
                Verdict::OursBuilds { .. } => counts.ours_builds += 1,
                Verdict::LeftOut { why } => *counts.left_out.entry(why).or_default() += 1,
                Verdict::Equal
                | Verdict::EqualJson(_)
                | Verdict::Differs(_)
                | Verdict::OursFails { .. } => {
                    counts.built += 1;
                    counts.json +=
                        usize::from(matches!(verdict, Verdict::Equal | Verdict::EqualJson(_)));
                    counts.bytes += usize::from(matches!(verdict, Verdict::Equal));
                }
            }
        }
        counts
    }

    /// Whether all that the reference builds is the same, nearly all to the byte, and nothing else
    /// builds.
    pub(super) fn is_good(&self) -> bool {
        let counts = self.counts();
        counts.json == counts.built
            && percent(counts.bytes, counts.built) >= BYTES_PERCENT
            && counts.ours_builds == 0
    }

    pub(super) fn to_json(&self) -> Value {
        let counts = self.counts();
        let shown = self.found.iter().filter(|(_, verdict)| !matches!(verdict, Verdict::Equal));
        json!({
            "reference_builds": counts.built,
            "equal_as_json": counts.json,
            "equal_as_bytes": counts.bytes,
            "both_fail": counts.both_fail,
            "only_ours_builds": counts.ours_builds,
            "left_out": counts.left_out,
            "components": self.components,
            "not_equal": shown.map(|(dir, verdict)| verdict.to_json(dir)).collect::<Vec<_>>(),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "directories are counted in thousands")]
fn percent(part: usize, all: usize) -> f64 {
    if all == 0 { 100.0 } else { 100.0 * part as f64 / all as f64 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = |text: &str| text.lines().last().unwrap_or_default().to_owned();
        for (dir, verdict) in &self.found {
            match verdict {
                Verdict::EqualJson(difference) | Verdict::Differs(difference) => {
                    writeln!(f, "{dir}: {} at line {}", verdict.name(), difference.line)?;
                    writeln!(
                        f,
                        "  reference: {}\n  ours:      {}",
                        difference.theirs, difference.ours
                    )?;
                }
                Verdict::OursFails { ours } => writeln!(f, "{dir}: ours fails: {ours}")?,
                Verdict::OursBuilds { theirs } => {
                    writeln!(f, "{dir}: only the reference fails: {}", first(theirs))?;
                }
                Verdict::Equal | Verdict::BothFail { .. } | Verdict::LeftOut { .. } => {}
            }
        }
        let counts = self.counts();
        let share = |part| format!("{part:5} {:6.2} %", percent(part, counts.built));
        writeln!(f, "the reference builds    {:5}", counts.built)?;
        writeln!(f, "  equal as JSON         {}", share(counts.json))?;
        writeln!(f, "  equal to the byte     {}", share(counts.bytes))?;
        writeln!(f, "the reference fails     {:5}", counts.both_fail + counts.ours_builds)?;
        writeln!(f, "  ours builds           {:5}", counts.ours_builds)?;
        writeln!(f, "left out                {:5}", counts.left_out.values().sum::<usize>())?;
        for (why, count) in &counts.left_out {
            writeln!(f, "  {why:21} {count:5}")?;
        }
        writeln!(f, "components, not built   {:5}", self.components)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_shown() {
        let shown = |theirs: &str, ours: &str| {
            let Difference { line, theirs, ours } = difference(theirs, ours);
            format!("{line}: {theirs} | {ours}")
        };
        assert_eq!(shown("a\nb\n", "a\nc\n"), "2: b | c");
        assert_eq!(shown("a\n", "a\nc\n"), "2: (end of text) | c");
        assert_eq!(shown("a\n", "a"), "2: (end of text) | (end of text)");
    }

    #[test]
    fn the_content_of_a_secret_is_not_shown() {
        let text = |value: &str| {
            format!(
                "kind: ConfigMap\nx: {value}\n---\ndata:\n  a: {value}\nkind: Secret\n---\nb: 1\n"
            )
        };
        let (one, other) = (text("x"), text("y"));
        assert_eq!(difference(&one, &other).theirs, "x: x");
        let other = other.replacen("x: y", "x: x", 1);
        let found = difference(&one, &other);
        assert_eq!((found.line, found.theirs.as_str()), (5, "(a line of a Secret)"));
        assert_eq!(found.ours, found.theirs);
        assert_eq!(difference(&one, &one.replace("b: 1", "b: 2")).theirs, "b: 1");
    }

    #[test]
    fn what_lacks_the_network_is_left_out_by_its_reason() {
        let judged = |theirs: &str| judge(Err(theirs.to_owned()), Ok(String::new()));
        for (theirs, want) in [
            ("Get \"https://a\": proxyconnect tcp", "needs the network"),
            ("a: must specify --enable-helm", "needs Helm"),
        ] {
            assert!(matches!(judged(theirs), Verdict::LeftOut { why } if why == want), "{theirs}");
        }
        assert!(matches!(judged("no such file"), Verdict::OursBuilds { .. }));
    }

    #[test]
    fn one_in_two_hundred_may_have_other_bytes_and_none_other_objects() {
        let report = |equal: usize, rest: Vec<Verdict>| {
            let equal = (0..equal).map(|_| Verdict::Equal);
            let found = equal.chain(rest).map(|verdict| ("dir".to_owned(), verdict)).collect();
            Report { found, components: 0 }
        };
        let other = || difference("a", "b");
        assert!(report(0, vec![]).is_good());
        assert!(report(199, vec![Verdict::EqualJson(other())]).is_good());
        assert!(!report(198, vec![Verdict::EqualJson(other())]).is_good());
        assert!(!report(999, vec![Verdict::Differs(other())]).is_good());
        assert!(!report(999, vec![Verdict::OursFails { ours: String::new() }]).is_good());
        assert!(!report(999, vec![Verdict::OursBuilds { theirs: String::new() }]).is_good());
        assert!(report(1, vec![Verdict::LeftOut { why: "needs Helm" }]).is_good());
    }
}
