//! Which revision is told, and what the history says of it.

use jiff::Timestamp;
use plumb_api::conditions;
use plumb_api::{ApplicationStatus, HistoryEntry, HistoryResult, MAX_HISTORY, Time};
use plumb_engine::{Change, Report};

use super::shorten;

/// The revision to tell of a run: an Application that was at rest stays at the revision whose
/// content it has when a newer one asks for the same. After a restart no inputs are recorded, so
/// this is how a commit that touches others is told from one that touches this Application.
pub(crate) fn revision_to_tell<'a>(
    before: &'a ApplicationStatus,
    report: &Report,
    generation: Option<i64>,
    newest: &'a str,
) -> &'a str {
    let ready =
        before.conditions.iter().any(|c| c.type_ == conditions::READY && c.status == "True");
    let rested = ready
        && before.observed_generation == generation
        && before.last_attempted_revision == before.last_applied_revision;
    let quiet = report.is_complete()
        && report.held.is_none()
        && report.pruned.is_empty()
        && report
            .outcomes
            .iter()
            .all(|outcome| matches!(outcome.change, Change::Verified | Change::Corrected(_)));
    let same = report.desired.is_some_and(|digest| before.digest == Some(digest.to_string()));
    match &before.last_applied_revision {
        Some(applied) if rested && quiet && same => applied,
        _ => newest,
    }
}

/// Whether a run came to something that the history does not say yet.
pub(crate) fn is_another_outcome(
    history: &[HistoryEntry],
    revision: &str,
    report: &Report,
) -> bool {
    let failed = !report.failures.is_empty();
    if !failed && !report.is_complete() {
        // It waits for objects to be gone, which is neither yet.
        return false;
    }
    let result = if failed { HistoryResult::Failed } else { HistoryResult::Succeeded };
    match history.first() {
        Some(newest) if newest.revision == revision && newest.result == result => {
            // Tries of the same and corrections of drift are not another outcome.
            let drift = |change: &Change| matches!(change, Change::Corrected(_) | Change::Verified);
            let applied = report.outcomes.iter().any(|outcome| !drift(&outcome.change));
            !failed && (applied || !report.pruned.is_empty())
        }
        _ => true,
    }
}

/// Adds an outcome to the history: the newest entry is counted up when it is the same again.
pub(crate) fn remember(
    history: &mut Vec<HistoryEntry>,
    revision: &str,
    digest: Option<String>,
    failed: Option<&str>,
    now: Timestamp,
) {
    let result = if failed.is_some() { HistoryResult::Failed } else { HistoryResult::Succeeded };
    let message = failed.map(|text| shorten(text.to_owned(), 256));
    if let Some(newest) = history.first_mut()
        && newest.revision == revision
        && newest.digest == digest
        && newest.result == result
    {
        newest.message = message;
        newest.last_time = Time(now);
        newest.count += 1;
        return;
    }
    // A commit that comes back (a revert, a pin) moves up instead of filling the list.
    history.retain(|e| !(e.revision == revision && e.digest == digest && e.result == result));
    let entry = HistoryEntry {
        revision: revision.into(),
        digest,
        result,
        message,
        first_time: Time(now),
        last_time: Time(now),
        count: 1,
    };
    history.insert(0, entry);
    history.truncate(MAX_HISTORY);
}

#[cfg(test)]
mod tests {
    use plumb_core::ErrorClass;
    use plumb_engine::{Drift, Failure};

    use super::super::{Say, Waits, build_conditions};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_commit_that_asks_for_the_same_after_a_restart_is_no_news() {
        let digest = plumb_core::Digest::of(b"desired");
        let at_rest = ApplicationStatus {
            observed_generation: Some(1),
            conditions: build_conditions(&[], &Say::ready("a"), Some(1), at(1)),
            last_applied_revision: Some("main@sha1:a".into()),
            last_attempted_revision: Some("main@sha1:a".into()),
            digest: Some(digest.to_string()),
            ..ApplicationStatus::default()
        };
        let quiet = Report { desired: Some(digest), ..Report::default() };
        let told = |before: &ApplicationStatus, report: &Report, generation| {
            revision_to_tell(before, report, Some(generation), "main@sha1:b").to_owned()
        };
        assert_eq!(told(&at_rest, &quiet, 1), "main@sha1:a");
        assert_eq!(told(&at_rest, &quiet, 2), "main@sha1:b", "the spec asks anew");
        let broken = ApplicationStatus {
            last_attempted_revision: Some("main@sha1:broken".into()),
            ..at_rest.clone()
        };
        assert_eq!(told(&broken, &quiet, 1), "main@sha1:b", "a newer one was tried");
        let failed = Say::not_ready("X", "c", Waits::User);
        let failed = ApplicationStatus {
            conditions: build_conditions(&[], &failed, Some(1), at(1)),
            ..at_rest.clone()
        };
        assert_eq!(told(&failed, &quiet, 1), "main@sha1:b", "it was not ready");
        assert_eq!(told(&ApplicationStatus::default(), &quiet, 1), "main@sha1:b", "the first");
        let other = Report { desired: Some(plumb_core::Digest::of(b"other")), ..Report::default() };
        assert_eq!(told(&at_rest, &other, 1), "main@sha1:b", "it asks for something else");
        let key = plumb_core::ObjectKey::new(plumb_core::GroupKind::new("", "A"), "ns", "a");
        let outcomes = vec![plumb_engine::Outcome { key, change: Change::Created }];
        let worked = Report { outcomes, ..quiet };
        assert_eq!(told(&at_rest, &worked, 1), "main@sha1:b", "something was done");
    }

    #[test]
    fn history_counts_repeats_and_keeps_ten() {
        let mut history = Vec::new();
        for second in 0..3 {
            remember(&mut history, "main@sha1:a", Some("d".into()), None, at(second));
        }
        assert_eq!((history.len(), history[0].count), (1, 3));
        assert_eq!((&history[0].first_time, &history[0].last_time), (&Time(at(0)), &Time(at(2))));
        remember(&mut history, "main@sha1:a", Some("d".into()), Some("broken"), at(3));
        assert_eq!(history[0].result, HistoryResult::Failed);
        for n in 0..20 {
            remember(&mut history, &format!("main@sha1:{n}"), None, None, at(4));
        }
        assert_eq!(history.len(), MAX_HISTORY);
        remember(&mut history, "main@sha1:15", None, None, at(5));
        assert_eq!((history.len(), history[0].revision.as_str()), (MAX_HISTORY, "main@sha1:15"));
    }

    #[test]
    fn the_history_says_what_became_of_a_revision() {
        let key =
            |name| plumb_core::ObjectKey::new(plumb_core::GroupKind::new("", "A"), "ns", name);
        let did = |change| Report {
            outcomes: vec![plumb_engine::Outcome { key: key("a"), change }],
            ..Report::default()
        };
        let quiet = Report::default;
        let failed = || Report {
            failures: vec![Failure {
                key: key("a"),
                place: None,
                reason: "X",
                message: "broken".into(),
                hint: None,
                class: ErrorClass::Retry,
            }],
            ..did(Change::Updated)
        };
        let waiting = Report { terminating: vec![key("b")], ..did(Change::Updated) };
        let (good, bad) = (Some(("r1", None)), Some(("r1", Some("broken"))));
        let cases = [
            ("the first", None, "r1", did(Change::Created), true),
            ("nothing to do", good, "r1", quiet(), false),
            ("another revision of the same", good, "r2", quiet(), true),
            ("applied again", good, "r1", did(Change::Updated), true),
            ("pruned", good, "r1", Report { pruned: vec![key("b")], ..quiet() }, true),
            ("drift", good, "r1", did(Change::Corrected(Drift::Deleted)), false),
            ("waits", good, "r1", waiting.clone(), false),
            ("waits at another revision", good, "r2", waiting, false),
            ("fails", good, "r1", failed(), true),
            ("fails again", bad, "r1", failed(), false),
            ("mended by itself", bad, "r1", quiet(), true),
            ("mended with drift", bad, "r1", did(Change::Corrected(Drift::Deleted)), true),
        ];
        for (what, newest, revision, report, another) in cases {
            let mut history = Vec::new();
            if let Some((revision, message)) = newest {
                remember(&mut history, revision, None, message, at(0));
            }
            assert_eq!(is_another_outcome(&history, revision, &report), another, "{what}");
        }
    }
}
