//! What a run's report means for its Application.

use std::fmt::Write as _;

use jiff::Timestamp;
use plumb_api::conditions::{self, reasons};
use plumb_api::{
    ApplicationStatus, HeldPrune, MAX_FAILURES, MAX_HELD_OBJECTS, MAX_YIELDED, Yielded,
};
use plumb_core::ErrorClass;
use plumb_engine::{Failure, Held, Kept, Report, Yield};

use super::{Say, Waits, brief, count_drift, list_transient, shorten, with_hint};

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
    } else if let Some(message) = behind_text(report) {
        Say::not_ready(reasons::PROGRESSING, format!("at {revision} {message}"), Waits::Retry)
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
    hold(&mut say, report, namespace, name);
    say
}

/// Says which deletions wait for approval, if any do and that is not said yet.
fn hold(say: &mut Say, report: &Report, namespace: &str, name: &str) {
    let is_said = say.more.iter().any(|(type_, ..)| *type_ == conditions::PRUNE_HELD);
    if let (Some(held), false) = (&report.held, is_said) {
        let text = held_text(held, namespace, name);
        say.more.push((conditions::PRUNE_HELD, "True", held.reason.reason().into(), text));
    }
}

/// How far a run came whose rest follows.
pub(crate) fn say_of_progress(report: &Report, revision: &str) -> Say {
    let failed = report.failures.len();
    let open = report.unsent + report.terminating.len() + failed;
    let applied = report.total.saturating_sub(open);
    let failed = match failed {
        0 => String::new(),
        _ => format!("; {failed} not applied so far: {}", failures_text(&report.failures)),
    };
    let (total, revision) = (report.total, brief(revision));
    let rest = match report.undeleted {
        0 => "the rest follows".to_owned(),
        n => format!("{n} that left Git are still to be deleted"),
    };
    let message = format!(
        "{applied} of {total} objects applied at {revision}; {rest}, in turns with other \
         applications{failed}"
    );
    Say::not_ready(reasons::PROGRESSING, message, Waits::Turn)
}

/// What stays until others that depend on it are gone.
fn behind_text(report: &Report) -> Option<String> {
    let (key, dependant) = report.behind.first()?;
    let more = match report.behind.len() - 1 {
        0 => String::new(),
        n => format!("; so do {n} more for others"),
    };
    Some(format!(
        "{key} is not deleted before {dependant}, which depends on it, is gone; if that takes long, \
         look at its finalizers{more}"
    ))
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

/// What is still to be done before an Application can go.
pub(crate) fn say_of_farewell(report: &Report, namespace: &str, name: &str) -> Say {
    let mut say = say_of_rest(report, namespace, name);
    hold(&mut say, report, namespace, name);
    say
}

fn say_of_rest(report: &Report, namespace: &str, name: &str) -> Say {
    if report.undeleted > 0 {
        let failed = match report.failures.len() {
            0 => String::new(),
            _ => format!("; {}", failures_text(&report.failures)),
        };
        let message = format!(
            "{} objects are still to be dealt with, in turns with other applications{failed}",
            report.undeleted
        );
        return Say::not_ready(reasons::TERMINATING, message, Waits::Turn);
    }
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
        if let Some(message) = behind_text(report) {
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

/// Lists what keeps an Application from its end. Nothing is applied there: what a status says of that
/// stays.
pub(crate) fn list_farewell(status: &mut ApplicationStatus, report: &Report) {
    list_failures(status, report);
    status.prune = report.held.as_ref().map(held_prune);
}

fn held_prune(held: &Held) -> HeldPrune {
    HeldPrune {
        digest: held.digest.to_string(),
        count: i64::try_from(held.objects.len()).unwrap_or(i64::MAX),
        objects: held.objects.iter().take(MAX_HELD_OBJECTS).map(ToString::to_string).collect(),
        reason: held.reason.reason().into(),
    }
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
    let is_held = !report.is_complete() && !report.released && report.held.is_none();
    status.prune = status.prune.take().filter(|_| is_held);
    if let Some(held) = &report.held {
        status.prune = Some(held_prune(held));
    }
    if report.is_complete() {
        status.last_applied_revision = Some(revision.into());
        status.objects = i64::try_from(report.total).ok();
        status.digest = report.desired.map(|digest| digest.to_string());
        status.cluster_digest = report.cluster.map(|digest| digest.to_string());
    }
    list_transient(status, report);
    count_drift(status, report, now);
    let before = std::mem::take(&mut status.yielded);
    status.yielded = yielded_of(report, &before);
}

/// What is left to others. Of what was not asked in this run it is as before.
fn yielded_of(report: &Report, before: &[Yielded]) -> Vec<Yielded> {
    let mut told = Vec::new();
    for Yield { key, fields } in &report.yielded {
        let object = key.to_string();
        let fields = if let Some(fields) = fields {
            fields.iter().take(MAX_YIELDED).map(ToString::to_string).collect()
        } else {
            let known = before.iter().find(|known| known.object == object);
            known.map_or_else(Vec::new, |known| known.fields.clone())
        };
        if !fields.is_empty() {
            told.push(Yielded { object, fields });
        }
    }
    told.truncate(MAX_YIELDED);
    told
}

fn count(n: usize) -> Option<i64> {
    if n == 0 { None } else { i64::try_from(n).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_numbers() {
        let report = Report { total: 50, undeleted: 1200, ..Report::default() };
        assert_eq!(
            say_of_progress(&report, "main@sha1:0123456789abcdef").message,
            "50 of 50 objects applied at main@sha1:0123456789ab; 1200 that left Git are still to be \
             deleted, in turns with other applications"
        );
        let say = say_of_farewell(&report, "ns", "app");
        assert_eq!(
            say.message,
            "1200 objects are still to be dealt with, in turns with other applications"
        );
        let report = Report { total: 5000, unsent: 3500, ..Report::default() };
        assert!(!report.is_complete());
        let say = say_of_progress(&report, "main@sha1:0123456789abcdef");
        assert!(!say.ready && say.waits == Some(Waits::Turn));
        let said = "1500 of 5000 objects applied at main@sha1:0123456789ab; the rest follows, in \
                    turns with other applications";
        assert_eq!(say.message, said);
        let key = plumb_core::ObjectKey::new(plumb_core::GroupKind::new("", "A"), "ns", "a");
        let failure = Failure {
            key,
            place: None,
            reason: "X",
            message: "no".into(),
            hint: None,
            class: ErrorClass::WaitForUser,
        };
        let report = Report { failures: vec![failure], ..report };
        let message = say_of_progress(&report, "main@sha1:a").message;
        assert!(message.starts_with("1499 of 5000"), "{message}");
        assert!(message.ends_with("; 1 not applied so far: A ns/a: no"), "{message}");
    }

    #[test]
    fn what_stays_until_another_is_gone_is_told() {
        let key =
            |name| plumb_core::ObjectKey::new(plumb_core::GroupKind::new("", "A"), "ns", name);
        let behind = vec![(key("a"), key("b")), (key("c"), key("d"))];
        let report = Report { behind, ..Report::default() };
        assert!(!report.is_complete());
        let said = "A ns/a is not deleted before A ns/b, which depends on it, is gone";
        for say in [say_of_report(&report, "r", "ns", "web"), say_of_farewell(&report, "ns", "web")]
        {
            assert!(!say.ready && say.message.contains(said), "{}", say.message);
            assert!(say.message.ends_with("so do 1 more for others"), "{}", say.message);
        }
    }

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
        let mut done = status.clone();
        apply_report(&mut done, &Report::default(), "r", at(2));
        assert_eq!(done.prune, None);
        // It was approved, and one of its objects cannot be deleted.
        apply_report(&mut status, &Report { released: true, ..failed }, "r", at(2));
        assert_eq!(status.prune, None);
    }

    /// What others want is let go in turns, whatever waits for approval meanwhile.
    #[test]
    fn what_is_held_at_the_end_of_an_application_is_told_while_its_rest_has_its_turns() {
        let key = plumb_core::ObjectKey::new(plumb_core::GroupKind::new("", "A"), "ns", "a");
        let held = Held {
            digest: plumb_core::Digest::of(b"plan"),
            objects: vec![key.clone()],
            reason: plumb_engine::HoldReason::Precious,
            message: "precious".into(),
        };
        let failure = Failure {
            key,
            place: None,
            reason: "X",
            message: "broken".into(),
            hint: None,
            class: ErrorClass::Retry,
        };
        let held = Report { held: Some(held), ..Report::default() };
        for report in [
            held.clone(),
            Report { undeleted: 3, ..held.clone() },
            Report { failures: vec![failure], ..held },
        ] {
            let mut status = ApplicationStatus::default();
            list_farewell(&mut status, &report);
            assert_eq!(status.prune.as_ref().map(|prune| prune.count), Some(1), "{report:?}");
            let say = say_of_farewell(&report, "ns", "web");
            let told: Vec<_> = say.more.iter().map(|(type_, ..)| *type_).collect();
            assert_eq!(told, [conditions::PRUNE_HELD], "{report:?}");
            list_farewell(&mut status, &Report { held: None, ..report });
            assert_eq!(status.prune, None);
        }
    }

    #[test]
    fn what_is_left_to_others_is_told_as_long_as_it_is_so() {
        let key = |name: &str| {
            plumb_core::ObjectKey::new(plumb_core::GroupKind::new("", "A"), "ns", name)
        };
        let replicas = || plumb_core::FieldPath::keys(["spec", "replicas"]);
        let yielded = vec![
            Yield { key: key("asked"), fields: Some(vec![replicas()]) },
            Yield { key: key("known"), fields: None },
            Yield { key: key("new"), fields: None },
        ];
        let told = |name: &str, field: &str| Yielded {
            object: format!("A ns/{name}"),
            fields: vec![field.to_owned()],
        };
        let before = [told("asked", "spec.old"), told("known", "data.a"), told("gone", "data.b")];
        let report = Report { yielded, ..Report::default() };
        assert_eq!(
            yielded_of(&report, &before),
            [told("asked", "spec.replicas"), told("known", "data.a")]
        );
        let many =
            (0..50).map(|n| Yield { key: key(&n.to_string()), fields: Some(vec![replicas(); 50]) });
        let report = Report { yielded: many.collect(), ..Report::default() };
        let told = yielded_of(&report, &[]);
        assert_eq!((told.len(), told[0].fields.len()), (MAX_YIELDED, MAX_YIELDED));
    }
}
