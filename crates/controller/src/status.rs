//! Status as a pure function of what happened and when.
//!
//! Invariant: a status is written only when it says something new; no text in it changes by the
//! clock alone.

use std::fmt::Write as _;

use jiff::Timestamp;
use plumb_api::conditions::{self, reasons};
use plumb_api::{
    ApplicationStatus, Condition, HeldPrune, HistoryEntry, HistoryResult, MAX_DRIFTED_FIELDS,
    MAX_FAILURES, MAX_HELD_OBJECTS, MAX_HISTORY, Time,
};
use plumb_core::ErrorClass;
use plumb_engine::{Change, Difference, Drift, Failure, Held, Kept, Report};

/// What is to be said of an object as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Say {
    /// Whether it is as its spec asks.
    pub(crate) ready: bool,
    /// One CamelCase word.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
    /// What it waits for, when it is not ready.
    pub(crate) waits: Option<Waits>,
    /// Conditions of its own kind: type, status, reason, message.
    pub(crate) more: Vec<(&'static str, &'static str, String, String)>,
}

/// What an object that is not ready waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Time, or another try.
    Retry,
    /// A person.
    User,
}

impl From<ErrorClass> for Waits {
    fn from(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Retry => Self::Retry,
            ErrorClass::WaitForUser | ErrorClass::Bug => Self::User,
        }
    }
}

impl Say {
    pub(crate) fn ready(message: impl Into<String>) -> Self {
        Self {
            ready: true,
            reason: reasons::SUCCEEDED.into(),
            message: message.into(),
            waits: None,
            more: Vec::new(),
        }
    }

    pub(crate) fn not_ready(reason: &str, message: impl Into<String>, waits: Waits) -> Self {
        Self {
            ready: false,
            reason: reason.into(),
            message: message.into(),
            waits: Some(waits),
            more: Vec::new(),
        }
    }
}

impl Say {
    /// Says of a held prune what was said before, if this run did not judge it but left it in the
    /// status.
    pub(crate) fn with_held(
        mut self,
        before: &ApplicationStatus,
        status: &ApplicationStatus,
    ) -> Self {
        let said = self.more.iter().any(|(type_, ..)| *type_ == conditions::PRUNE_HELD);
        let held = before.conditions.iter().find(|c| c.type_ == conditions::PRUNE_HELD);
        if let (false, Some(held), Some(_)) = (said, held, &status.prune) {
            let (reason, message) = (held.reason.clone(), held.message.clone());
            self.more.push((conditions::PRUNE_HELD, "True", reason, message));
        }
        self
    }
}

/// The API server refuses longer condition messages.
const MAX_MESSAGE: usize = 32 * 1024;

/// Builds the conditions. A transition time changes only with the condition's status.
pub(crate) fn build_conditions(
    before: &[Condition],
    say: &Say,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let ready = if say.ready { "True" } else { "False" };
    let mut wanted = vec![(conditions::READY, ready, say.reason.clone(), say.message.clone())];
    match say.waits {
        Some(Waits::Retry) => wanted.push((
            conditions::RECONCILING,
            "True",
            reasons::PROGRESSING_WITH_RETRY.into(),
            "trying again by itself".into(),
        )),
        Some(Waits::User) => wanted.push((
            conditions::STALLED,
            "True",
            say.reason.clone(),
            "waiting for a change of the spec, the repository or the cluster".into(),
        )),
        None => {}
    }
    wanted.extend(say.more.iter().cloned());
    wanted
        .into_iter()
        .map(|(type_, status, reason, message)| {
            let same = before.iter().find(|c| c.type_ == type_ && c.status == status);
            Condition {
                type_: type_.into(),
                status: status.into(),
                reason,
                message: shorten(message, MAX_MESSAGE),
                observed_generation: generation,
                last_transition_time: same.map_or(Time(now), |c| c.last_transition_time.clone()),
            }
        })
        .collect()
}

/// Cuts a text at a character boundary.
pub(crate) fn shorten(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let cut = (0..=limit - 3).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// A message and what helps, as one sentence group.
pub(crate) fn with_hint(message: String, hint: Option<String>) -> String {
    match hint {
        Some(hint) => format!("{message}; {hint}"),
        None => message,
    }
}

/// Hex digits of a commit that people read: enough to be the only one in any repository of
/// manifests, and what `git log --abbrev=12` shows.
const BRIEF_COMMIT: usize = 12;

/// A revision for people, `main@sha1:0123456789ab`. Fields that programs read keep all digits.
pub(crate) fn brief(revision: &(impl ToString + ?Sized)) -> String {
    let mut text = revision.to_string();
    if let Some(at) = text.rfind("sha1:") {
        let end = at + "sha1:".len() + BRIEF_COMMIT;
        if text.is_char_boundary(end) {
            text.truncate(end);
        }
    }
    text
}

fn failure_text(failure: &Failure) -> String {
    let place = failure.place.as_ref().map_or(String::new(), |place| format!("{place}: "));
    with_hint(format!("{place}{}: {}", failure.key, failure.message), failure.hint.clone())
}

/// The first failure, and how many more there are.
fn failures_text(failures: &[Failure]) -> String {
    let first = failures.first().map_or_else(String::new, failure_text);
    match failures.len().saturating_sub(1) {
        0 => first,
        n => format!("{first}; and {n} more, see status.failures"),
    }
}

/// What else there is to know of a run in which something failed.
fn and_what(report: &Report) -> String {
    let mut text = String::new();
    let waiting = report.failures.iter().filter(|f| f.class != ErrorClass::Retry).count();
    if waiting > 0 && report.class() == Some(ErrorClass::Retry) {
        // The whole is tried again, which alone would not tell that somebody is waited for.
        let _ = write!(text, "; {waiting} of them will not pass by themselves");
    }
    if report.held_back > 0 {
        let n = report.held_back;
        let _ = write!(text, "; until all is applied, {n} that left Git stay");
    }
    text
}

/// What a report means for the Application.
pub(crate) fn say_of_report(report: &Report, revision: &str, namespace: &str, name: &str) -> Say {
    let revision = brief(revision);
    let mut say = if let Some(first) = report.failures.first() {
        let alike = report.failures.iter().all(|failure| failure.reason == first.reason);
        let reason = if alike { first.reason } else { reasons::APPLY_FAILED };
        let count = report.failures.len();
        let what = if report.refused {
            format!("nothing applied of {revision}")
        } else if report.failures.iter().all(|failure| failure.place.is_none()) {
            format!("applied {revision}, but not all that left Git is deleted")
        } else {
            format!("{count} of {} objects not applied at {revision}", report.total.max(count))
        };
        let message = format!("{what}: {}{}", failures_text(&report.failures), and_what(report));
        let class = report.class().unwrap_or(ErrorClass::Retry);
        Say::not_ready(reason, message, class.into())
    } else if !report.terminating.is_empty() {
        let first = &report.terminating[0];
        let more = match report.terminating.len() - 1 {
            0 => String::new(),
            n => format!(", like {n} more"),
        };
        let message = format!(
            "{first} is being deleted{more}; it is applied again once it is gone; if \
             that takes long, look at its finalizers"
        );
        Say::not_ready(reasons::PROGRESSING, message, Waits::Retry)
    } else if report.waits {
        let message = format!(
            "at {revision} other applications have yet to look before objects change hands or are \
             deleted"
        );
        Say::not_ready(reasons::PROGRESSING, message, Waits::Retry)
    } else if let Some(held) = &report.held {
        let message = held_text(held, namespace, name);
        Say::not_ready(reasons::PRUNE_HELD, message, Waits::User)
    } else {
        let left = match report.left {
            0 => String::new(),
            n => format!("; {n} more are live that Git does not have, and pruning is off"),
        };
        let objects =
            if report.total == 1 { "1 object".into() } else { format!("{} objects", report.total) };
        let marked = match report.marked {
            0 => String::new(),
            n => format!("; {n} left alone, as marked"),
        };
        let kept = kept_text(&report.kept);
        Say::ready(format!("applied {revision}: {objects}{marked}{left}{kept}"))
    };
    if let Some(held) = &report.held {
        let text = held_text(held, namespace, name);
        say.more.push((conditions::PRUNE_HELD, "True", held.reason.reason().into(), text));
    }
    say
}

/// What left Git and stays all the same: the first, and how many more there are.
fn kept_text(kept: &[Kept]) -> String {
    let Some(Kept { key, why }) = kept.first() else { return String::new() };
    let more = match kept.len() - 1 {
        0 => String::new(),
        n => format!(", and {n} more"),
    };
    format!("; {key} left Git but is not deleted: {why}{more}")
}

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
        && report.outcomes.iter().all(|outcome| outcome.change == Change::Verified);
    let same = report.desired.is_some_and(|digest| before.digest == Some(digest.to_string()));
    match &before.last_applied_revision {
        Some(applied) if rested && quiet && same => applied,
        _ => newest,
    }
}

/// How many differing objects a message names.
const OBSERVED_OBJECTS: usize = 10;

/// What would be done, if anything; `None` when all is as in Git.
pub(crate) fn observed_text(observed: &[(plumb_core::ObjectKey, Difference)]) -> Option<String> {
    if observed.is_empty() {
        return None;
    }
    let one = |(key, difference): &(plumb_core::ObjectKey, Difference)| match difference {
        Difference::Missing => format!("{key} would be created"),
        Difference::Extra => format!("{key} would be deleted"),
        Difference::Changed(changes) if changes.is_empty() => format!("{key} would be changed"),
        Difference::Changed(changes) => {
            let fields: Vec<String> = changes
                .iter()
                .map(|change| match &change.manager {
                    Some(manager) => format!("{} (by {manager})", change.path),
                    None => change.path.to_string(),
                })
                .collect();
            format!("{key} would be changed: {}", fields.join(", "))
        }
    };
    let mut lines: Vec<String> = observed.iter().take(OBSERVED_OBJECTS).map(one).collect();
    if let Some(more @ 1..) = observed.len().checked_sub(OBSERVED_OBJECTS) {
        lines.push(format!("and {more} more objects"));
    }
    Some(lines.join("; "))
}

/// How what is live differs from Git for longer than a moment: a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drifted {
    pub(crate) status: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// That objects of some kinds cannot be read; `None` when all can.
pub(crate) fn blind_text(blind: &[(plumb_core::GroupKind, String)]) -> Option<Drifted> {
    let (kind, why) = blind.first()?;
    let more = match blind.len() - 1 {
        0 => String::new(),
        n => format!(", and that of {n} more kinds"),
    };
    let text = format!("{why}; meanwhile what is changed or left over of {kind} is not seen{more}");
    let message = shorten(text, 1024);
    Some(Drifted { status: "Unknown", reason: reasons::KIND_UNREADABLE, message })
}

/// That somebody writes objects as often as they are put back; `None` when nobody does.
pub(crate) fn fights_text(fights: &[(plumb_core::ObjectKey, Drift)]) -> Option<Drifted> {
    let (key, drift) = fights.first()?;
    let what = match drift {
        Drift::Deleted | Drift::Replaced => "deleted".to_owned(),
        Drift::Unlabelled => "robbed of its label".to_owned(),
        Drift::Fields(changes) => {
            let fields: Vec<String> = changes
                .iter()
                .map(|change| match &change.manager {
                    Some(manager) => format!(", {} by {manager}", change.path),
                    None => format!(", {}", change.path),
                })
                .collect();
            format!("changed{}", fields.concat())
        }
    };
    let more = match fights.len() - 1 {
        0 => String::new(),
        n => format!("; so are {n} more objects"),
    };
    let message = format!(
        "{key} is {what}, again and again, and put back less and less often; stop who does it, or \
         leave what they want to decide out of Git{more}"
    );
    let message = shorten(message, 1024);
    Some(Drifted { status: "True", reason: reasons::DRIFT_FOUGHT_OVER, message })
}

/// What is still to be done before an Application can go.
pub(crate) fn say_of_farewell(report: &Report, namespace: &str, name: &str) -> Say {
    if !report.failures.is_empty() {
        let message = format!("cannot finish the deletion: {}", failures_text(&report.failures));
        let class = report.class().unwrap_or(ErrorClass::Retry);
        return Say::not_ready(reasons::TERMINATING, message, class.into());
    }
    let Some(first) = report.terminating.first() else {
        if report.waits {
            let message = "waiting for other applications to take over what they ask for";
            return Say::not_ready(reasons::TERMINATING, message, Waits::Retry);
        }
        let mut say = say_of_report(report, "", namespace, name);
        if report.held.is_some() {
            say.message.push_str("; to keep the objects, set spec.deletionPolicy to Orphan");
        }
        return say;
    };
    let more = match report.terminating.len() - 1 {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let message = format!(
        "waiting for {first}{more} to be gone; if that takes long, look for finalizers on them"
    );
    Say::not_ready(reasons::TERMINATING, message, Waits::Retry)
}

/// Why deletions are held and how to let them go.
pub(crate) fn held_text(held: &Held, namespace: &str, name: &str) -> String {
    let count = match held.objects.len() {
        1 => "1 deletion is held".to_owned(),
        n => format!("{n} deletions are held"),
    };
    format!(
        "{count}: {}; to approve, run: kubectl -n {namespace} annotate --overwrite \
         application.plumb.dev {name} {}={}",
        held.message,
        plumb_api::names::APPROVE_PRUNE,
        held.digest,
    )
}

/// Lists what a run could not do.
pub(crate) fn list_failures(status: &mut ApplicationStatus, report: &Report) {
    status.failures = failures_of(report);
    status.failure_count = count(report.failures.len());
}

/// What failed in a run before it was cut short.
pub(crate) fn failed_before(report: &Report) -> Option<String> {
    let what = match report.failures.len() {
        0 => return None,
        1 => "1 object was not applied before that".to_owned(),
        n => format!("{n} objects were not applied before that"),
    };
    Some(format!("{what}: {}", failures_text(&report.failures)))
}

/// The first failures of a run, as a status lists them.
pub(crate) fn failures_of(report: &Report) -> Vec<plumb_api::Failure> {
    report
        .failures
        .iter()
        .take(MAX_FAILURES)
        .map(|failure| plumb_api::Failure {
            object: Some(failure.key.to_string()),
            place: failure.place.as_ref().map(ToString::to_string),
            reason: failure.reason.into(),
            message: shorten(with_hint(failure.message.clone(), failure.hint.clone()), 1024),
        })
        .collect()
}

/// Fills in what a report says beside the conditions.
pub(crate) fn apply_report(
    status: &mut ApplicationStatus,
    report: &Report,
    revision: &str,
    now: Timestamp,
) {
    status.last_attempted_revision = Some(revision.into());
    status.scope = Some(plumb_api::Scope {
        group_kinds: report.scope.kinds.iter().map(ToString::to_string).collect(),
        namespaces: report.scope.namespaces.iter().cloned().collect(),
        settled_for: None,
        unsettled_kinds: (report.scope.kinds.difference(&report.settled))
            .map(ToString::to_string)
            .collect(),
    });
    list_failures(status, report);
    // What was held stays held until it is judged again, which waits until all is applied.
    let held_still = status.prune.take().filter(|_| !report.is_complete());
    status.prune = held_still.filter(|_| report.held.is_none());
    if let Some(held) = &report.held {
        status.prune = Some(HeldPrune {
            digest: held.digest.to_string(),
            count: i64::try_from(held.objects.len()).unwrap_or(i64::MAX),
            objects: held.objects.iter().take(MAX_HELD_OBJECTS).map(ToString::to_string).collect(),
            reason: held.reason.reason().into(),
        });
    }
    if report.is_complete() {
        status.last_applied_revision = Some(revision.into());
        status.objects = i64::try_from(report.total).ok();
        status.digest = report.desired.map(|digest| digest.to_string());
        status.cluster_digest = report.cluster.map(|digest| digest.to_string());
    }
    count_drift(status, report, now);
}

/// Adds the corrections of a run to the status: their number, and the last of them.
pub(crate) fn count_drift(status: &mut ApplicationStatus, report: &Report, now: Timestamp) {
    let corrected = report.outcomes.iter().filter_map(|outcome| match &outcome.change {
        Change::Corrected(drift) => Some((&outcome.key, drift)),
        _ => None,
    });
    for (key, drift) in corrected {
        let before = status.drift.as_ref().map_or(0, |drift| drift.count);
        let (fields, manager) = match drift {
            Drift::Fields(changes) => (
                changes.iter().take(MAX_DRIFTED_FIELDS).map(|c| c.path.to_string()).collect(),
                changes.iter().find_map(|c| c.manager.clone()),
            ),
            Drift::Deleted | Drift::Unlabelled | Drift::Replaced => (Vec::new(), None),
        };
        status.drift = Some(plumb_api::Drift {
            time: Time(now),
            object: key.to_string(),
            fields,
            manager,
            count: before + 1,
        });
    }
}

fn count(n: usize) -> Option<i64> {
    if n == 0 { None } else { i64::try_from(n).ok() }
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
            let drift = |change: &Change| {
                matches!(change, Change::Corrected(_) | Change::Verified | Change::Yielded)
            };
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

/// Sentence about a corrected drift, for the event.
pub(crate) fn drift_text(key: &plumb_core::ObjectKey, drift: &Drift) -> String {
    match drift {
        Drift::Deleted => format!("{key} was deleted and is back"),
        Drift::Unlabelled => format!("{key} had lost its label and has it back"),
        Drift::Replaced => {
            format!("{key} was deleted and created anew by somebody, and is as in Git again")
        }
        Drift::Fields(changes) if changes.is_empty() => {
            format!("{key} had been applied by somebody else in our name and is put back")
        }
        Drift::Fields(changes) => {
            let fields: Vec<String> = changes
                .iter()
                .map(|c| match (&c.manager, &c.time) {
                    (Some(manager), Some(time)) => format!("{} (by {manager} at {time})", c.path),
                    (Some(manager), None) => format!("{} (by {manager})", c.path),
                    (None, _) => format!("{} (removed)", c.path),
                })
                .collect();
            format!("{key} was changed and is put back: {}", fields.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_other_applications_is_not_ready() {
        let report = Report { waits: true, total: 2, ..Report::default() };
        let say = say_of_report(&report, "main@sha1:0123456789abcdef", "ns", "web");
        assert!(!say.ready && say.waits == Some(Waits::Retry));
        assert!(say.message.starts_with("at main@sha1:0123456789ab other"), "{}", say.message);
        let say = say_of_farewell(&report, "ns", "web");
        assert_eq!((say.ready, say.reason.as_str()), (false, reasons::TERMINATING));
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_times_follow_the_status_only() {
        let first = build_conditions(&[], &Say::ready("a"), Some(1), at(1));
        let second = build_conditions(&first, &Say::ready("b"), Some(2), at(2));
        assert_eq!(second[0].last_transition_time, Time(at(1)));
        assert_eq!((second[0].message.as_str(), second[0].observed_generation), ("b", Some(2)));
        let failed = Say::not_ready("X", "c", Waits::User);
        let third = build_conditions(&second, &failed, Some(2), at(3));
        let types: Vec<_> = third.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(types, [("Ready", "False"), ("Stalled", "True")]);
        assert_eq!(third[0].last_transition_time, Time(at(3)));
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
    fn what_failed_before_a_run_was_cut_short_is_told_and_listed() {
        let key = plumb_core::ObjectKey::new(plumb_core::GroupKind::new("", "A"), "ns", "a");
        let failure = Failure {
            key,
            place: None,
            reason: "Invalid",
            message: "port 99999".into(),
            hint: None,
            class: ErrorClass::WaitForUser,
        };
        let mut report = Report::default();
        assert_eq!(failed_before(&report), None);
        report.failures = vec![failure.clone(), failure];
        let text = failed_before(&report).unwrap();
        assert!(text.starts_with("2 objects were not applied before that: A ns/a: port"), "{text}");
        let mut status = ApplicationStatus::default();
        list_failures(&mut status, &report);
        assert_eq!((status.failures.len(), status.failure_count), (2, Some(2)));
        list_failures(&mut status, &Report::default());
        assert_eq!((status.failures.len(), status.failure_count), (0, None));

        // One that passes by itself does not hide the other, nor what stays because of both.
        report.failures[0].class = ErrorClass::Retry;
        report.held_back = 3;
        let say = say_of_report(&report, "main@sha1:a", "ns", "a");
        assert_eq!(say.waits, Some(Waits::Retry));
        let end =
            "1 of them will not pass by themselves; until all is applied, 3 that left Git stay";
        assert!(say.message.ends_with(end), "{}", say.message);
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
    fn people_read_twelve_digits_of_a_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(brief(&format!("main@sha1:{commit}")), "main@sha1:0123456789ab");
        assert_eq!(brief(&format!("sha1:{commit}")), "sha1:0123456789ab");
        assert_eq!(brief("main@sha1:abc"), "main@sha1:abc");
        assert_eq!(brief(&format!("sha1:x@sha1:{commit}")), "sha1:x@sha1:0123456789ab");
        assert_eq!(brief(""), "");
    }

    #[test]
    fn a_failure_does_not_let_go_of_a_held_prune() {
        let key = plumb_core::ObjectKey::new(plumb_core::GroupKind::new("", "A"), "ns", "a");
        let held = Held {
            digest: plumb_core::Digest::of(b"plan"),
            objects: vec![key.clone()],
            reason: plumb_engine::HoldReason::Inherited,
            message: "older".into(),
        };
        let failure = Failure {
            key,
            place: None,
            reason: "X",
            message: "broken".into(),
            hint: None,
            class: ErrorClass::Retry,
        };
        let mut status = ApplicationStatus::default();
        apply_report(&mut status, &Report { held: Some(held), ..Report::default() }, "r", at(0));
        assert!(status.prune.is_some());
        let failed = Report { failures: vec![failure], ..Report::default() };
        apply_report(&mut status, &failed, "r", at(1));
        assert!(status.prune.is_some(), "it was not judged");
        let going = Report {
            terminating: vec![plumb_core::ObjectKey::new(
                plumb_core::GroupKind::new("", "A"),
                "ns",
                "b",
            )],
            ..Report::default()
        };
        apply_report(&mut status, &going, "r", at(1));
        assert!(status.prune.is_some(), "it was not judged");
        apply_report(&mut status, &Report::default(), "r", at(2));
        assert_eq!(status.prune, None);
    }

    #[test]
    fn a_held_prune_is_said_as_long_as_it_is_in_the_status() {
        let held = Say {
            more: vec![(conditions::PRUNE_HELD, "True", "Share".into(), "12 of 20".into())],
            ..Say::not_ready(reasons::PRUNE_HELD, "12 of 20", Waits::User)
        };
        let plan =
            HeldPrune { digest: "d".into(), count: 12, objects: vec![], reason: "Share".into() };
        let before = ApplicationStatus {
            conditions: build_conditions(&[], &held, Some(1), at(0)),
            prune: Some(plan),
            ..ApplicationStatus::default()
        };
        let broken = Say::not_ready("BuildFailed", "x", Waits::User);
        let types = |say: &Say, status: &ApplicationStatus| {
            let say = say.clone().with_held(&before, status);
            let conditions = build_conditions(&before.conditions, &say, Some(1), at(1));
            conditions.into_iter().map(|c| c.type_).collect::<Vec<_>>()
        };
        assert_eq!(types(&broken, &before), ["Ready", "Stalled", "PruneHeld"]);
        assert_eq!(types(&held, &before), ["Ready", "Stalled", "PruneHeld"], "once");
        let gone = ApplicationStatus { prune: None, ..before.clone() };
        assert_eq!(types(&broken, &gone), ["Ready", "Stalled"]);
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

    #[test]
    fn drift_is_counted_whatever_became_of_the_run() {
        let key =
            |name| plumb_core::ObjectKey::new(plumb_core::GroupKind::new("", "A"), "ns", name);
        let outcome = |name, change| plumb_engine::Outcome { key: key(name), change };
        let report = Report {
            outcomes: vec![
                outcome("a", Change::Corrected(Drift::Deleted)),
                outcome("b", Change::Updated),
                outcome("c", Change::Corrected(Drift::Replaced)),
            ],
            ..Report::default()
        };
        let mut status = ApplicationStatus::default();
        count_drift(&mut status, &report, at(1));
        count_drift(&mut status, &Report::default(), at(2));
        let drift = status.drift.unwrap();
        assert_eq!((drift.object.as_str(), drift.count, drift.time), ("A ns/c", 2, Time(at(1))));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(shorten("ääää".into(), 7), "ää…");
        assert_eq!(shorten("short".into(), 7), "short");
    }
}
