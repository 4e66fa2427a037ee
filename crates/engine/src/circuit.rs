//! Kinds that the API server does not get done: a webhook for them hangs or is down. What is left of
//! such a kind is not sent in that run, so that it costs no other kind its time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plumb_core::{ErrorClass, GroupKind};

use crate::cluster::ApiError;
use crate::prepare::Prepared;
use crate::report::Failure;

/// Requests of a kind that may fail fast and in a row before the rest is not sent.
const FAST: u32 = 8;

/// The kinds of one run.
#[derive(Debug, Default)]
pub(crate) struct Circuits {
    kinds: Mutex<HashMap<GroupKind, Circuit>>,
}

#[derive(Debug, Default)]
struct Circuit {
    failed: u32,
    /// The first object that got no answer, and what was said of it.
    open: Option<(String, String)>,
}

/// What an error says about the kind as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It took all the time there was.
    Slow,
    /// It came at once.
    Fast,
}

fn trouble(error: &ApiError) -> Option<Trouble> {
    match error {
        ApiError::Timeout { .. } => Some(Trouble::Slow),
        ApiError::Refused(refusal) if refusal.code == 504 => Some(Trouble::Slow),
        error if error.is_webhook_down() => Some(Trouble::Fast),
        _ => None,
    }
}

impl Circuits {
    fn lock(&self) -> MutexGuard<'_, HashMap<GroupKind, Circuit>> {
        // A count and a text: no panic leaves them half written.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why an object is not sent, if it is not.
    pub(crate) fn shut(&self, p: &Prepared) -> Option<Failure> {
        let kinds = self.lock();
        let (first, why) = kinds.get(&p.key.group_kind)?.open.as_ref()?;
        Some(Failure {
            key: p.key.clone(),
            place: Some(p.object.place().clone()),
            reason: NO_ANSWER,
            message: format!("not tried, because of {first}: {why}"),
            hint: None,
            class: ErrorClass::Retry,
        })
    }

    /// Notes an answer. Returns whether the API server as a whole may be the cause.
    pub(crate) fn note(&self, p: &Prepared, error: Option<&ApiError>) -> bool {
        let mut kinds = self.lock();
        let Some((trouble, error)) = error.and_then(|error| Some((trouble(error)?, error))) else {
            kinds.remove(&p.key.group_kind);
            return false;
        };
        let circuit = kinds.entry(p.key.group_kind.clone()).or_default();
        circuit.failed += if trouble == Trouble::Slow { FAST } else { 1 };
        let opens = circuit.failed >= FAST && circuit.open.is_none();
        if opens {
            circuit.open = Some((p.key.to_string(), said(error)));
        }
        opens && trouble == Trouble::Slow
    }
}

/// The reason of what got no answer.
pub(crate) const NO_ANSWER: &str = "NoAnswer";

/// An error without what it is about.
pub(crate) fn said(error: &ApiError) -> String {
    match error {
        ApiError::Timeout { after, .. } => format!("no answer within {} s", after.as_secs_f32()),
        error => error.refusal().map_or_else(|| error.to_string(), |r| r.message.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::Refusal;
    use crate::failure::tests::service;

    fn refused(code: u16, message: &str) -> ApiError {
        ApiError::Refused(Box::new(Refusal {
            operation: "apply",
            subject: "Service shop/web".into(),
            code,
            reason: String::new(),
            message: message.into(),
            causes: Vec::new(),
            about: (String::new(), String::new()),
            retry_after: None,
            class: ErrorClass::Retry,
        }))
    }

    #[test]
    fn a_kind_that_gets_no_answer_is_left_alone_for_the_rest_of_the_run() {
        let after = Duration::from_secs(7);
        let timeout = ApiError::Timeout { operation: "apply", subject: String::new(), after };
        let down = refused(500, "failed calling webhook \"w\": connection refused");
        let p = service();
        // What was answered, whether the server itself is asked, and whether the kind is shut then.
        let cases: [(&[Option<&ApiError>], bool, bool); 6] = [
            (&[Some(&timeout)], true, true),
            (&[Some(&refused(504, "too long"))], true, true),
            (&[Some(&down); 7], false, false),
            (&[Some(&down); 8], false, true),
            (
                &[Some(&down), Some(&down), Some(&down), Some(&down), None, Some(&down)],
                false,
                false,
            ),
            (&[Some(&refused(422, "port 99999"))], false, false),
        ];
        for (answers, asks, shut) in cases {
            let circuits = Circuits::default();
            let asked = answers.iter().fold(false, |asked, e| asked | circuits.note(&p, *e));
            assert_eq!((asked, circuits.shut(&p).is_some()), (asks, shut), "{answers:?}");
        }
    }
}
