//! Status as a pure function of what happened and when.
//!
//! Invariant: a status is written only when it says something new; no text in it changes by the
//! clock alone.

mod drift;
mod history;
mod report;
mod transient;

use jiff::Timestamp;
use plumb_api::conditions::{self, reasons};
use plumb_api::{ApplicationStatus, Condition, Time};
use plumb_core::ErrorClass;

pub(crate) use self::drift::{
    Drifted, blind_text, count_drift, drift_text, fights_text, observed_text,
};
pub(crate) use self::history::{is_another_outcome, remember, revision_to_tell};
pub(crate) use self::report::{
    apply_report, failed_before, failures_of, list_failures, list_farewell, say_of_farewell,
    say_of_progress, say_of_report,
};
pub(crate) use self::transient::{list_transient, recorded_transient};

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
    /// Whether it is worth an event where it is not ready for a reason that is new.
    pub(crate) is_event: bool,
}

/// What an object that is not ready waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Time, or another try.
    Retry,
    /// A person.
    User,
    /// Its next turn.
    Turn,
    /// Its objects.
    Health,
    /// What its spec names as dependencies.
    Others,
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
            is_event: true,
        }
    }

    pub(crate) fn not_ready(reason: &str, message: impl Into<String>, waits: Waits) -> Self {
        Self {
            ready: false,
            reason: reason.into(),
            message: message.into(),
            waits: Some(waits),
            more: Vec::new(),
            is_event: true,
        }
    }

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
        Some(Waits::Turn) => wanted.push((
            conditions::RECONCILING,
            "True",
            reasons::PROGRESSING.into(),
            "the rest follows".into(),
        )),
        Some(Waits::Health) => wanted.push((
            conditions::RECONCILING,
            "True",
            reasons::PROGRESSING.into(),
            "waiting for objects to become ready".into(),
        )),
        Some(Waits::Others) => wanted.push((
            conditions::RECONCILING,
            "True",
            say.reason.clone(),
            "going on as soon as that is over".into(),
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
pub(crate) const BRIEF_COMMIT: usize = 12;

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

#[cfg(test)]
mod tests {
    use plumb_api::HeldPrune;

    use super::*;

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
    fn people_read_twelve_digits_of_a_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(brief(&format!("main@sha1:{commit}")), "main@sha1:0123456789ab");
        assert_eq!(brief(&format!("sha1:{commit}")), "sha1:0123456789ab");
        assert_eq!(brief("main@sha1:abc"), "main@sha1:abc");
        assert_eq!(brief(&format!("sha1:x@sha1:{commit}")), "sha1:x@sha1:0123456789ab");
        assert_eq!(brief(""), "");
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
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(shorten("ääää".into(), 7), "ää…");
        assert_eq!(shorten("short".into(), 7), "short");
    }
}
