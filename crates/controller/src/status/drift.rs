//! How what is live differs from Git: what is told of it, and what was put back.

use jiff::Timestamp;
use plumb_api::conditions::reasons;
use plumb_api::{ApplicationStatus, MAX_DRIFTED_FIELDS, Time};
use plumb_engine::{Change, Difference, Drift, Report};

use super::shorten;

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
        Drift::Unseen => "changed without a trace".to_owned(),
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
            _ => (Vec::new(), None),
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

/// Sentence about a corrected drift, for the event.
pub(crate) fn drift_text(key: &plumb_core::ObjectKey, drift: &Drift) -> String {
    match drift {
        Drift::Deleted => format!("{key} was deleted and is back"),
        Drift::Unlabelled => format!("{key} had lost its label and has it back"),
        Drift::Replaced => {
            format!("{key} was deleted and created anew by somebody, and is as in Git again")
        }
        Drift::Unseen => format!(
            "{key} was not as in Git, although its managed fields do not tell of a change, and is put \
             back"
        ),
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

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
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
}
