//! Objects that the API server refused: when each is tried again. A run that was called by something
//! else, a commit or the drift of a neighbour, does not try them before, but tells of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use plumb_core::ObjectKey;
use tokio::time::Instant;

use crate::cluster::ApiError;
use crate::live::Live;
use crate::prepare::Prepared;

/// The first pause; it doubles up to what the caller says.
const FIRST: Duration = Duration::from_secs(1);

/// What was tried in vain, by set.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    sets: HashMap<String, Tried>,
}

#[derive(Debug, Default)]
struct Tried {
    refused: HashMap<ObjectKey, Refused>,
    /// What was looked at since the last run that came to its end, and left alone.
    left: HashSet<ObjectKey>,
}

#[derive(Debug)]
struct Refused {
    /// What was asked for.
    digest: u64,
    /// What was there then.
    live: Option<Live>,
    error: Arc<ApiError>,
    pause: Duration,
    until: Instant,
    /// Since it was tried no run came to its end: the others are tried first.
    fresh: bool,
}

/// What was refused before, and when it is tried again.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) error: Arc<ApiError>,
    /// `None` for what is tried again as soon as the others were.
    pub(crate) left: Option<Duration>,
}

/// What is there, as far as it can make a difference to a refusal: a status that moves does not.
fn seen(live: Option<&Live>) -> Option<Live> {
    live.map(|live| Live { resource_version: 0, ..live.clone() })
}

/// Whether time or a change of the object decides about an error. Who else has an object, or whether
/// its namespace and its kind are there, can change at any moment, and whoever lets it go calls for a
/// run.
fn lasts(error: &ApiError) -> bool {
    match error {
        ApiError::Refused(refusal) => {
            !matches!(refusal.code, 404 | 409 | 429) && !error.is_terminating_namespace()
        }
        ApiError::NotOurs { .. } | ApiError::NotLeading { .. } | ApiError::Transport { .. } => {
            false
        }
        ApiError::Timeout { .. }
        | ApiError::Decode { .. }
        | ApiError::TooLarge { .. }
        | ApiError::Unaddressable { .. } => true,
    }
}

impl Refusals {
    /// Why an object is not tried now.
    pub(crate) fn held(
        &self,
        set: &str,
        p: &Prepared,
        live: Option<&Live>,
        now: Instant,
    ) -> Option<Held> {
        let refused = self.sets.get(set)?.refused.get(&p.key)?;
        let same = refused.digest == p.digest && refused.live == seen(live);
        let left =
            Some(refused.until.saturating_duration_since(now)).filter(|left| !left.is_zero());
        (same && (refused.fresh || left.is_some()))
            .then(|| Held { error: Arc::clone(&refused.error), left })
    }

    /// An object was refused. Returns how long it is left alone, if it is.
    pub(crate) fn note(
        &mut self,
        set: &str,
        p: &Prepared,
        live: Option<&Live>,
        error: &Arc<ApiError>,
        longest: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let refused = &mut self.sets.entry(set.to_owned()).or_default().refused;
        let before = refused.remove(&p.key).filter(|before| before.digest == p.digest);
        let before = before.map(|before| before.pause).filter(|pause| !pause.is_zero());
        let pause = if lasts(error) {
            before.map_or(FIRST, |pause| pause * 2).min(longest)
        } else {
            Duration::ZERO
        };
        let (live, error, until) = (seen(live), Arc::clone(error), now + pause);
        let (digest, fresh) = (p.digest, true);
        let refusal = Refused { digest, live, error, pause, until, fresh };
        refused.insert(p.key.clone(), refusal);
        (!pause.is_zero()).then_some(pause)
    }

    /// An object was only looked at, and left alone.
    pub(crate) fn left(&mut self, set: &str, key: &ObjectKey) {
        self.sets.entry(set.to_owned()).or_default().left.insert(key.clone());
    }

    /// Whether it was, since the last run that came to its end.
    pub(crate) fn was_left(&self, set: &str, key: &ObjectKey) -> bool {
        self.sets.get(set).is_some_and(|tried| tried.left.contains(key))
    }

    /// Whether an object was refused when it was last tried.
    pub(crate) fn has(&self, set: &str, key: &ObjectKey) -> bool {
        self.sets.get(set).is_some_and(|tried| tried.refused.contains_key(key))
    }

    /// An object was applied, or is going to be tried whatever was said before.
    pub(crate) fn applied(&mut self, set: &str, key: &ObjectKey) {
        if let Some(tried) = self.sets.get_mut(set) {
            tried.refused.remove(key);
        }
    }

    /// A run came to its end, having tried all that it was to try.
    pub(crate) fn over(&mut self, set: &str) {
        let Some(tried) = self.sets.get_mut(set) else { return };
        tried.left.clear();
        tried.refused.retain(|_, refused| {
            refused.fresh = false;
            !refused.pause.is_zero()
        });
        if tried.refused.is_empty() {
            self.sets.remove(set);
        }
    }

    /// A set wants nothing but this.
    pub(crate) fn retain(&mut self, set: &str, wanted: &HashMap<ObjectKey, u64>) {
        if let Some(tried) = self.sets.get_mut(set) {
            tried.refused.retain(|key, _| wanted.contains_key(key));
        }
    }

    /// The set is no more.
    pub(crate) fn forget(&mut self, set: &str) {
        self.sets.remove(set);
    }

    /// What an earlier leader found out may be over.
    pub(crate) fn clear(&mut self) {
        self.sets.clear();
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::ErrorClass;

    use super::*;
    use crate::cluster::Refusal;
    use crate::failure::tests::service;
    use crate::marks::Marks;

    const CAP: Duration = Duration::from_mins(1);

    fn refused(code: u16) -> ApiError {
        ApiError::Refused(Box::new(Refusal {
            operation: "apply",
            subject: "Service shop/web".into(),
            code,
            reason: String::new(),
            message: "no".into(),
            causes: Vec::new(),
            about: (String::new(), String::new()),
            retry_after: None,
            class: ErrorClass::WaitForUser,
            busy: false,
        }))
    }

    fn live(resource_version: u64, generation: i64) -> Live {
        Live {
            uid: "u".into(),
            resource_version,
            generation,
            terminating: false,
            owners: 0,
            marks: Marks::default(),
            scaled: false,
            part_of: None,
            entries: Box::default(),
            others: 0,
            others_time: 0,
        }
    }

    #[test]
    fn what_is_refused_is_left_alone_for_longer_and_longer() {
        let (p, mut now) = (service(), Instant::now());
        let no = Arc::new(refused(422));
        let mut refusals = Refusals::default();
        assert!(refusals.held("a", &p, None, now).is_none() && !refusals.has("a", &p.key));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(seconds);
            assert_eq!(refusals.note("a", &p, None, &no, CAP, now), Some(pause));
            refusals.over("a");
            let held = refusals.held("a", &p, None, now).unwrap();
            assert_eq!((held.error.is_invalid(), held.left), (true, Some(pause)));
            now += pause;
            assert!(refusals.held("a", &p, None, now).is_none());
        }
        assert!(refusals.has("a", &p.key) && !refusals.has("b", &p.key));
        let short = Duration::from_millis(200);
        assert_eq!(refusals.note("a", &p, None, &no, short, now), Some(short));
        refusals.applied("a", &p.key);
        assert_eq!(refusals.note("a", &p, None, &no, CAP, now), Some(FIRST));
    }

    #[test]
    fn what_changed_is_tried_at_once() {
        let (p, now) = (service(), Instant::now());
        let mut refusals = Refusals::default();
        refusals.note("a", &p, Some(&live(1, 1)), &Arc::new(refused(422)), CAP, now);
        let held = |p: &Prepared, live: Option<&Live>| refusals.held("a", p, live, now).is_some();
        assert!(held(&p, Some(&live(1, 1))));
        assert!(held(&p, Some(&live(9, 1))), "its status moved");
        assert!(!held(&p, Some(&live(9, 2))));
        assert!(!held(&p, None), "it was deleted");
        let other = Prepared { digest: 7, ..p.clone() };
        assert!(!held(&other, Some(&live(1, 1))), "Git asks for something else");
        let wanted = HashMap::from([(p.key.clone(), 1)]);
        refusals.retain("a", &wanted);
        assert!(refusals.has("a", &p.key));
        refusals.retain("a", &HashMap::new());
        assert!(!refusals.has("a", &p.key));
    }

    /// Whatever an error says, what was tried is not tried again before all others were.
    #[test]
    fn all_are_tried_once_before_one_is_tried_again() {
        let (p, now) = (service(), Instant::now());
        for (error, lasts) in [
            (refused(403), true),
            (refused(422), true),
            (refused(500), true),
            (refused(404), false),
            (refused(409), false),
            (ApiError::NotOurs { subject: String::new(), owner: None, fields: Vec::new() }, false),
        ] {
            let mut refusals = Refusals::default();
            let text = error.to_string();
            let left = refusals.note("a", &p, None, &Arc::new(error), CAP, now);
            assert_eq!(left.is_some(), lasts, "{text}");
            assert_eq!(refusals.held("a", &p, None, now).unwrap().left, left, "{text}");
            refusals.over("a");
            assert_eq!(refusals.held("a", &p, None, now).is_some(), lasts, "{text}");
        }
        let mut refusals = Refusals::default();
        refusals.left("a", &p.key);
        assert!(refusals.was_left("a", &p.key) && !refusals.was_left("b", &p.key));
        refusals.over("a");
        assert!(!refusals.was_left("a", &p.key));
    }
}
