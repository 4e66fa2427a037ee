//! What a run came to: for people in a terminal, for programs, and for people with a browser.

use std::fmt::Write as _;

use serde::Serialize;

use crate::duty::{DUTIES, PRINCIPLES};

/// How a duty was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    Holds,
    Fails,
    NotTestable,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Fails => "FAILS",
            Self::NotTestable => "not testable",
        }
    }
}

/// One duty.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    pub(crate) duty: &'static str,
    pub(crate) text: &'static str,
    pub(crate) how: &'static str,
    pub(crate) verdict: Verdict,
    /// Why it does not hold, or cannot be tested.
    pub(crate) reason: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) evidence: Vec<String>,
}

/// A run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) agent: String,
    pub(crate) about: String,
    pub(crate) seed: u64,
    pub(crate) interval_seconds: u64,
    pub(crate) slack_seconds: u64,
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    /// How many duties hold, of those that were played.
    pub(crate) fn count(&self) -> (usize, usize) {
        let holds = self.findings.iter().filter(|one| one.verdict == Verdict::Holds).count();
        (holds, self.findings.len())
    }

    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let _infallible = writeln!(
                text,
                "{:6} {:13} {:6.1} s  {}",
                finding.duty,
                finding.verdict.word(),
                finding.seconds,
                finding.text
            );
            if let Some(reason) = &finding.reason {
                let _infallible = writeln!(text, "       {reason}");
            }
        }
        let (holds, all) = self.count();
        let _infallible =
            writeln!(text, "{}: {holds} of {all} hold, seed {}", self.agent, self.seed);
        text
    }

    pub(crate) fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        format!("{text}\n")
    }

    /// One page that needs nothing else.
    pub(crate) fn html(&self) -> String {
        let (holds, all) = self.count();
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\">\n<title>{agent}: OpenGitOps conformance</title>\n<style>{STYLE}</style></head>\n\
             <body><main>\n<header><h1>{agent}</h1><p class=\"sum\">{holds} of {all} duties hold</p>\n<p>{about}</p>\n\
             <p class=\"how\">Interval {interval} s, {slack} s allowed beside it, seed {seed}. What is beyond a bound \
             counts as not done.</p></header>\n",
            agent = escaped(&self.agent),
            about = escaped(&self.about),
            interval = self.interval_seconds,
            slack = self.slack_seconds,
            seed = self.seed,
        );
        for (id, name) in PRINCIPLES {
            let own: Vec<&Finding> =
                self.findings.iter().filter(|one| one.duty.starts_with(id)).collect();
            if own.is_empty() {
                continue;
            }
            let holds = own.iter().filter(|one| one.verdict == Verdict::Holds).count();
            let _infallible = writeln!(
                page,
                "<section><h2>{id} {name} <span>{holds} of {}</span></h2>",
                own.len()
            );
            for finding in own {
                finding.write(&mut page);
            }
            page.push_str("</section>\n");
        }
        page.push_str("</main></body></html>\n");
        page
    }
}

impl Finding {
    fn write(&self, page: &mut String) {
        let class = match self.verdict {
            Verdict::Holds => "holds",
            Verdict::Fails => "fails",
            Verdict::NotTestable => "none",
        };
        // What does not hold is read first.
        let open = if self.verdict == Verdict::Fails { " open" } else { "" };
        let _infallible = write!(
            page,
            "<details class=\"{class}\"{open}><summary><b>{}</b> <span>{}</span> \
             <i>{}</i></summary>\n<p class=\"how\">{}</p>\n",
            self.duty,
            escaped(self.text),
            self.verdict.word().to_lowercase(),
            escaped(self.how),
        );
        if let Some(reason) = &self.reason {
            let _infallible = writeln!(page, "<p class=\"reason\">{}</p>", escaped(reason));
        }
        let evidence: Vec<String> = self.evidence.iter().map(|line| escaped(line)).collect();
        let _infallible = writeln!(page, "<pre>{}</pre></details>", evidence.join("\n"));
    }
}

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8883;--good:#1a7f37;--bad:#c4302b;--none:#777}\
body{font:16px/1.5 system-ui,sans-serif;margin:0}\
main{max-width:60rem;margin:0 auto;padding:1.5rem}\
h1{margin:0;font-size:1.8rem}\
h2{font-size:1.15rem;border-bottom:1px solid var(--line);padding-bottom:.3rem;margin:2rem 0 .5rem}\
h2 span{float:right;font-weight:normal;color:var(--none)}\
.sum{font-size:1.2rem;margin:.2rem 0}.how{color:var(--none);margin:.3rem 0}\
details{border-bottom:1px solid var(--line);padding:.35rem 0}\
summary{cursor:pointer;display:grid;grid-template-columns:3.5rem 1fr 7rem;gap:.5rem}\
summary i{text-align:right;font-style:normal}\
.holds i{color:var(--good)}.fails i{color:var(--bad);font-weight:bold}.none i{color:var(--none)}\
.reason{margin:.4rem 0;color:var(--bad);overflow-wrap:anywhere}.none .reason{color:inherit}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem;background:#8881;padding:.6rem;margin:.4rem 0}";

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A finding of a duty, by its id.
pub(crate) fn finding(
    id: &str,
    verdict: Verdict,
    reason: Option<String>,
    (seconds, evidence): (f64, Vec<String>),
) -> Option<Finding> {
    let duty = DUTIES.iter().find(|duty| duty.id == id)?;
    let (duty, text, how) = (duty.id, duty.text, duty.how);
    Some(Finding { duty, text, how, verdict, reason, seconds, evidence })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let one = |id: &str, verdict, reason: Option<&str>| {
            let evidence = vec!["   1.0 s  <b> & \"c\"".to_owned()];
            finding(id, verdict, reason.map(String::from), (1.0, evidence)).unwrap()
        };
        Report {
            agent: "agent".into(),
            about: "what it is".into(),
            seed: 7,
            interval_seconds: 5,
            slack_seconds: 20,
            findings: vec![
                one("P1.1", Verdict::Holds, None),
                one("P4.1", Verdict::Fails, Some("it was not put back")),
                one("P4.5", Verdict::NotTestable, Some("there is no such mode")),
            ],
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_duty_and_says_why() {
        let table = report().table();
        assert!(table.contains("P1.1   holds"), "{table}");
        assert!(table.contains("P4.1   FAILS") && table.contains("it was not put back"), "{table}");
        assert!(table.ends_with("agent: 1 of 3 hold, seed 7\n"), "{table}");
    }

    #[test]
    fn a_page_goes_by_principles_and_escapes_what_was_seen() {
        let page = report().html();
        assert!(page.contains("<h2>P4 Continuously Reconciled <span>0 of 2</span></h2>"), "{page}");
        assert!(
            page.contains("&lt;b&gt; &amp; &quot;c&quot;") && !page.contains("<h2>P2"),
            "{page}"
        );
        assert!(!page.contains("http"), "it needs nothing from elsewhere");
    }

    #[test]
    fn duties_are_25_and_each_belongs_to_a_principle() {
        let ids: std::collections::BTreeSet<_> = DUTIES.iter().map(|duty| duty.id).collect();
        assert_eq!(ids.len(), 25);
        let of = |id: &str| PRINCIPLES.iter().any(|(principle, _)| id.starts_with(principle));
        assert!(ids.iter().all(|id| of(id)));
    }

    #[test]
    fn the_page_on_conformance_says_of_each_duty_what_the_suite_does() {
        let page = include_str!("../../../docs/conformance.md");
        for duty in DUTIES {
            let row = format!("| {} | {} | {} |\n", duty.id, duty.text, duty.how);
            assert!(page.contains(&row), "docs/conformance.md lacks: {row}");
        }
    }
}
