//! Kinds that the API server does not get done in a namespace: a webhook for them hangs or is down.
//! No set sends any more of them, so that they cost no other kind its time, but for one try from time
//! to time, which finds out when it is over.
//!
//! Webhooks are chosen by namespace, so what hangs in one says nothing of another.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use plumb_core::{ErrorClass, GroupKind};
use smol_str::SmolStr;
use tokio::time::Instant;

use crate::account::Account;
use crate::cluster::ApiError;
use crate::prepare::Prepared;
use crate::report::Failure;

/// Requests of a kind that may fail fast and in a row before the rest is not sent.
const FAST: u32 = 8;

/// The first and the longest pause between tries of what got no answer. A try can take half a minute
/// of the API server's time; whoever mended the cause waits no longer than that for the next.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));

/// A try that is under way is waited for, unless its run was dropped: no request takes longer.
const TRY: Duration = Duration::from_secs(35);

/// The kinds of the cluster, by namespace and by who asks.
#[derive(Debug, Default)]
pub(crate) struct Circuits {
    kinds: HashMap<Place, Circuit>,
}

/// Whose requests fare alike: a webhook may judge by who asks, and what one account hears is not for
/// another's ears.
type Place = (GroupKind, SmolStr, Option<Arc<Account>>);

fn place(p: &Prepared) -> Place {
    (p.key.group_kind.clone(), p.key.namespace.clone(), p.account.clone())
}

#[derive(Debug, Default)]
struct Circuit {
    failed: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// The first object that got no answer, and what was said of it. Later ones are told as being
    /// like it, so that what is told does not change from try to try.
    first: String,
    why: String,
    pause: Duration,
    /// When the next try may be made; while one is under way, when it is given up.
    until: Instant,
    trying: bool,
    /// The sets that wait for the end of it.
    waiting: BTreeSet<Arc<str>>,
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

/// What an answer means for a kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Nothing,
    /// The API server as a whole may be the cause.
    AskServer,
    /// It is over, and these sets waited for that.
    Over(BTreeSet<Arc<str>>),
}

/// Why an object is not sent, and when it may be.
#[derive(Debug)]
pub(crate) struct Shut {
    pub(crate) failure: Box<Failure>,
    /// `None` while somebody else finds out.
    pub(crate) left: Option<Duration>,
}

impl Circuits {
    fn of(&mut self, p: &Prepared) -> Option<&mut Circuit> {
        self.kinds.get_mut(&place(p))
    }

    /// Whether an object of a set may be sent, and why not if it may not. `asked` is whether a person
    /// asks for a try now.
    pub(crate) fn admit(
        &mut self,
        p: &Prepared,
        set: &str,
        asked: bool,
        now: Instant,
    ) -> Result<(), Shut> {
        let Some(open) = self.of(p).and_then(|circuit| circuit.open.as_mut()) else {
            return Ok(());
        };
        if now >= open.until || asked && !open.trying {
            open.trying = true;
            open.until = now + TRY;
            return Ok(());
        }
        open.waiting.insert(set.into());
        let left = (!open.trying).then(|| open.until.saturating_duration_since(now));
        Err(Shut { failure: open.failure(p), left })
    }

    /// Notes an answer.
    pub(crate) fn note(&mut self, p: &Prepared, error: Option<&ApiError>, now: Instant) -> News {
        let key = place(p);
        let Some(error) = error else {
            let open = self.kinds.remove(&key).and_then(|circuit| circuit.open);
            return open.map_or(News::Nothing, |open| News::Over(open.waiting));
        };
        let Some(trouble) = trouble(error).or_else(|| self.broken(p, error)) else {
            if !self.release(p, now) {
                self.kinds.remove(&key);
            }
            return News::Nothing;
        };
        let circuit = self.kinds.entry(key).or_default();
        let asks = if trouble == Trouble::Slow { News::AskServer } else { News::Nothing };
        if let Some(open) = &mut circuit.open {
            // Those that were under way when it opened say nothing new.
            if !open.trying {
                return News::Nothing;
            }
            open.trying = false;
            open.pause = (open.pause * 2).min(PAUSES.1);
            open.until = now + open.pause;
            return asks;
        }
        circuit.failed += if trouble == Trouble::Slow { FAST } else { 1 };
        if circuit.failed < FAST {
            return News::Nothing;
        }
        circuit.open = Some(Open {
            first: p.key.to_string(),
            why: said(error),
            pause: PAUSES.0,
            until: now + PAUSES.0,
            trying: false,
            waiting: BTreeSet::new(),
        });
        asks
    }

    /// An API server that ends a request for lack of time may close the connection before it says so.
    fn broken(&mut self, p: &Prepared, error: &ApiError) -> Option<Trouble> {
        let open = self.of(p)?.open.as_ref()?;
        (open.trying && matches!(error, ApiError::Transport { .. })).then_some(Trouble::Slow)
    }

    /// A try came to its end, perhaps before any webhook was asked: the next one may try. Returns
    /// whether the kind is left alone but for tries.
    pub(crate) fn release(&mut self, p: &Prepared, now: Instant) -> bool {
        let Some(open) = self.of(p).and_then(|circuit| circuit.open.as_mut()) else { return false };
        if open.trying {
            (open.trying, open.until) = (false, now);
        }
        true
    }

    /// What is told of an object that got no answer, if its kind gets none.
    pub(crate) fn told(&mut self, p: &Prepared, error: &ApiError, now: Instant) -> Option<Shut> {
        if trouble(error).is_none() && !matches!(error, ApiError::Transport { .. }) {
            return None;
        }
        let open = self.of(p)?.open.as_ref()?;
        let left = open.until.saturating_duration_since(now);
        Some(Shut { failure: open.failure(p), left: Some(left) })
    }

    /// The kind was not the cause.
    pub(crate) fn forget(&mut self, p: &Prepared) {
        self.kinds.remove(&place(p));
    }

    /// What an earlier leader found out may be over.
    pub(crate) fn clear(&mut self) {
        self.kinds.clear();
    }
}

impl Open {
    fn failure(&self, p: &Prepared) -> Box<Failure> {
        let message = if self.first == p.key.to_string() {
            self.why.clone()
        } else {
            format!("like {}: {}", self.first, self.why)
        };
        Box::new(Failure {
            key: p.key.clone(),
            place: Some(p.object.place().clone()),
            reason: NO_ANSWER,
            message,
            hint: Some(
                "an admission webhook for this kind, or one that converts it, may hang or be \
                 down; one object at a time is tried again"
                    .into(),
            ),
            class: ErrorClass::Retry,
        })
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
            busy: false,
        }))
    }

    fn timeout() -> ApiError {
        let after = Duration::from_secs(7);
        ApiError::Timeout { operation: "apply", subject: String::new(), after }
    }

    fn named(namespace: &str, name: &str) -> Prepared {
        let mut p = service();
        p.key.namespace = namespace.into();
        p.key.name = name.into();
        p
    }

    #[test]
    fn a_kind_that_gets_no_answer_is_left_alone() {
        let timeout = timeout();
        let down = refused(500, "failed calling webhook \"w\": connection refused");
        let p = service();
        let now = Instant::now();
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
            let mut circuits = Circuits::default();
            let asked = answers
                .iter()
                .fold(false, |asked, e| asked | (circuits.note(&p, *e, now) == News::AskServer));
            let is_shut = circuits.admit(&p, "set", false, now).is_err();
            assert_eq!((asked, is_shut), (asks, shut), "{answers:?}");
            assert!(circuits.admit(&named("other", "web"), "set", false, now).is_ok());
            let account = Account { namespace: "shop".into(), name: "tenant".into() };
            let other = Prepared { account: Some(Arc::new(account)), ..p.clone() };
            assert!(circuits.admit(&other, "set", false, now).is_ok(), "another account");
        }
    }

    /// One try when a pause is over, whoever comes first; the pauses grow, and what is told stays.
    #[test]
    fn one_object_at_a_time_finds_out_whether_it_is_over() {
        let (one, two) = (named("shop", "one"), named("shop", "two"));
        let second = Duration::from_secs(1);
        let mut now = Instant::now();
        let mut circuits = Circuits::default();
        assert_eq!(circuits.note(&one, Some(&timeout()), now), News::AskServer);
        // Another one that was under way.
        assert_eq!(circuits.note(&two, Some(&timeout()), now), News::Nothing);
        for pause in [5, 10, 20, 40, 60, 60] {
            let shut = circuits.admit(&two, "b", false, now + second * (pause - 1)).unwrap_err();
            assert_eq!(shut.left, Some(second));
            assert_eq!(shut.failure.message, "like Service shop/one: no answer within 7 s");
            now += second * pause;
            assert!(circuits.admit(&two, "a", false, now).is_ok());
            assert_eq!(circuits.admit(&one, "b", false, now).unwrap_err().left, None);
            assert!(circuits.admit(&one, "b", true, now).is_err(), "one is under way");
            assert_eq!(circuits.note(&two, Some(&timeout()), now), News::AskServer);
            let told = circuits.told(&one, &timeout(), now).unwrap().failure.message;
            assert_eq!(told, "no answer within 7 s");
        }
        // A person need not wait.
        assert!(circuits.admit(&two, "a", false, now).is_err());
        assert!(circuits.admit(&two, "a", true, now).is_ok());
        let over = circuits.note(&two, None, now);
        assert_eq!(over, News::Over(BTreeSet::from(["a".into(), "b".into()])));
        assert!(circuits.admit(&one, "b", false, now).is_ok());
    }

    #[test]
    fn what_says_nothing_of_the_webhook_lets_the_next_one_try() {
        let (one, two) = (named("shop", "one"), named("shop", "two"));
        let now = Instant::now();
        let mut circuits = Circuits::default();
        circuits.note(&one, Some(&timeout()), now);
        let later = now + PAUSES.0;
        assert!(circuits.admit(&one, "a", false, later).is_ok());
        assert_eq!(circuits.note(&one, Some(&refused(409, "taken")), later), News::Nothing);
        assert!(circuits.admit(&two, "a", false, later).is_ok());
        // Its run was dropped: no answer ever comes.
        assert!(circuits.admit(&one, "a", false, later + TRY - Duration::from_secs(1)).is_err());
        assert!(circuits.admit(&one, "a", false, later + TRY).is_ok());
        // A connection that breaks is the kind's affair only where it is known to get no answer.
        let broken = || ApiError::Transport {
            operation: "apply",
            subject: String::new(),
            source: "closed".into(),
        };
        assert_eq!(circuits.note(&one, Some(&broken()), later + TRY), News::AskServer);
        assert!(circuits.admit(&one, "a", false, later + TRY).is_err());
        circuits.forget(&one);
        assert_eq!(circuits.note(&one, Some(&broken()), later), News::Nothing);
        assert!(circuits.admit(&two, "a", false, later).is_ok());
    }
}
