//! Which requests a fault is for, and what it does.

use super::exchange::Seen;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

type Predicate = Arc<dyn Fn(&Seen) -> bool + Send + Sync>;

/// Chooses requests. Everything that is set must hold; nothing set chooses all.
#[derive(Clone, Default)]
pub struct Match {
    method: Option<String>,
    path: Vec<String>,
    query: Vec<String>,
    body: Vec<Vec<u8>>,
    predicates: Vec<Predicate>,
    nth: Option<u32>,
}

impl Match {
    /// Every request.
    pub fn any() -> Match {
        Match::default()
    }

    /// Requests of this method.
    pub fn method(method: &str) -> Match {
        Match { method: Some(method.to_owned()), ..Match::default() }
    }

    /// The path contains this.
    #[must_use]
    pub fn path(mut self, part: &str) -> Match {
        self.path.push(part.to_owned());
        self
    }

    /// The query contains this: `watch=true`, `dryRun=All`.
    #[must_use]
    pub fn query(mut self, part: &str) -> Match {
        self.query.push(part.to_owned());
        self
    }

    /// The request body contains this.
    #[must_use]
    pub fn body(mut self, part: impl AsRef<[u8]>) -> Match {
        self.body.push(part.as_ref().to_owned());
        self
    }

    /// Anything else about the request.
    #[must_use]
    pub fn when(mut self, holds: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Match {
        self.predicates.push(Arc::new(holds));
        self
    }

    /// Only the `nth` of the requests for which the rest holds, beginning with 1.
    #[must_use]
    pub fn nth(mut self, nth: u32) -> Match {
        self.nth = Some(nth);
        self
    }

    /// Whether all but `nth` holds.
    pub(super) fn chooses(&self, seen: &Seen) -> bool {
        self.method.as_ref().is_none_or(|method| *method == seen.method)
            && self.path.iter().all(|part| seen.path.contains(part.as_str()))
            && self.query.iter().all(|part| seen.query.contains(part.as_str()))
            && self.body.iter().all(|part| contains(&seen.body, part))
            && self.predicates.iter().all(|holds| holds(seen))
    }
}

impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Match")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("body", &self.body.len())
            .field("predicates", &self.predicates.len())
            .field("nth", &self.nth)
            .finish()
    }
}

/// What happens to a chosen request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// It is passed on that much later.
    Delay(Duration),
    /// It is passed on at once; what comes back of it, piece by piece that much later, such as the
    /// events of a watch.
    Lag(Duration),
    /// The connection closes; the server never sees the request.
    CutBefore,
    /// The server answers; the client gets a closed connection instead.
    CutAfter,
    /// The connection closes after that many bytes of the response body.
    CutBody(usize),
    /// The response body ends after that many bytes as if it were whole.
    EndBody(usize),
    /// The byte of the response body at this place, counted from 0, is another one.
    Damage(usize),
    /// Answered by the proxy with this status, in the API server's form.
    Status {
        /// HTTP status.
        code: u16,
        /// Seconds in a `Retry-After` header.
        retry_after: Option<u32>,
    },
    /// Answered by the proxy with this text as JSON, whatever it is: what a broken server says.
    Answer {
        /// HTTP status.
        code: u16,
        /// The whole body.
        body: String,
    },
    /// Answered by the proxy as this says: a redirect, or what a hostile server sends.
    Respond {
        /// HTTP status.
        code: u16,
        /// Names and values.
        headers: Vec<(&'static str, String)>,
        /// The whole body.
        body: Vec<u8>,
    },
    /// Answered by the proxy with this status and, wherever an answer of a Git server has room for it,
    /// with the client's Authorization header.
    Quote {
        /// HTTP status.
        code: u16,
    },
    /// A watch that is answered with the event `410 Expired`.
    Expired,
    /// Never answered, for as long as the rule is there. Then it is passed on.
    Stall,
    /// No byte passes for anybody from this request on, until
    /// [`Proxy::heal`](super::Proxy::heal).
    Partition,
}

/// A fault and the requests that it is for.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(super) when: Match,
    pub(super) what: Fault,
    pub(super) times: Option<u32>,
    pub(super) probability: f64,
}

impl Rule {
    /// Each chosen request gets the fault.
    pub fn new(when: Match, what: Fault) -> Rule {
        Rule { when, what, times: None, probability: 1.0 }
    }

    /// At most that often.
    #[must_use]
    pub fn times(mut self, times: u32) -> Rule {
        self.times = Some(times);
        self
    }

    /// With this probability, drawn from the proxy's seed.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Rule {
        self.probability = probability;
        self
    }
}

/// Names a rule, to remove it and to ask how often it hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(pub(super) u64);

/// What the proxy does with one request.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Pass,
    Fault(Fault, Gate),
    HoldRequest(Held),
    HoldAnswer(Held),
}

/// Open once the rule is gone.
pub(super) type Gate = watch::Receiver<bool>;

/// The proxy's side of a [`Hold`](super::Hold).
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) arrived: Arc<watch::Sender<Option<Seen>>>,
    pub(super) released: watch::Receiver<bool>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Fault(Fault),
    HoldRequest(Held),
    HoldAnswer(Held),
}

/// A rule with its counters.
struct Active {
    id: RuleId,
    rule: Rule,
    kind: Kind,
    chosen: u32,
    hits: u32,
    gone: watch::Sender<bool>,
}

/// All rules, and the randomness that they draw from.
pub(super) struct Rules {
    active: Vec<Active>,
    hits: std::collections::HashMap<RuleId, u32>,
    next: u64,
    random: fastrand::Rng,
}

impl Rules {
    pub(super) fn new(seed: u64) -> Rules {
        Rules {
            active: Vec::new(),
            hits: std::collections::HashMap::new(),
            next: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    pub(super) fn add(&mut self, rule: Rule, kind: Kind) -> RuleId {
        let id = RuleId(self.next);
        self.next += 1;
        let gone = watch::Sender::new(false);
        self.active.push(Active { id, rule, kind, chosen: 0, hits: 0, gone });
        id
    }

    /// Removes a rule and lets go what it stalls.
    pub(super) fn remove(&mut self, keep: impl Fn(RuleId) -> bool) {
        for gone in self.active.extract_if(.., |active| !keep(active.id)) {
            gone.gone.send_replace(true);
        }
    }

    pub(super) fn hits(&self, id: RuleId) -> u32 {
        self.hits.get(&id).copied().unwrap_or(0)
    }

    /// What to do with this request: the first rule that is for it decides.
    pub(super) fn decide(&mut self, seen: &Seen) -> Action {
        for active in &mut self.active {
            if !active.rule.when.chooses(seen) {
                continue;
            }
            active.chosen += 1;
            let now = active.rule.when.nth.is_none_or(|nth| nth == active.chosen)
                && active.rule.times.is_none_or(|times| active.hits < times)
                && (active.rule.probability >= 1.0 || self.random.f64() < active.rule.probability);
            if !now {
                continue;
            }
            active.hits += 1;
            *self.hits.entry(active.id).or_default() += 1;
            return match &active.kind {
                Kind::Fault(fault) => Action::Fault(fault.clone(), active.gone.subscribe()),
                Kind::HoldRequest(held) => Action::HoldRequest(held.clone()),
                Kind::HoldAnswer(held) => Action::HoldAnswer(held.clone()),
            };
        }
        Action::Pass
    }
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn seen(method: &str, path: &str, query: &str, body: &'static str) -> Seen {
        Seen {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            user_agent: "test".to_owned(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn a_match_needs_all_its_parts() {
        let patch = seen("PATCH", "/api/v1/namespaces/a/secrets/b", "dryRun=All", "{\"kind\":1}");
        for (want, case) in [
            (true, Match::any()),
            (true, Match::method("PATCH").path("/secrets/").path("namespaces/a")),
            (true, Match::any().query("dryRun").body("kind")),
            (true, Match::any().when(|seen| seen.user_agent == "test")),
            (false, Match::method("GET")),
            (false, Match::method("PATCH").path("/configmaps/")),
            (false, Match::any().query("watch")),
            (false, Match::any().body("data")),
            (false, Match::any().when(|seen| seen.path.is_empty())),
        ] {
            assert_eq!(case.chooses(&patch), want, "{case:?}");
        }
    }

    fn is_fault(rules: &mut Rules, seen: &Seen) -> bool {
        matches!(rules.decide(seen), Action::Fault(..))
    }

    #[test]
    fn nth_times_and_order_decide() {
        let (get, post) = (seen("GET", "/a", "", ""), seen("POST", "/a", "", ""));
        let mut rules = Rules::new(1);
        let second = Rule::new(Match::method("GET").nth(2), Fault::CutBefore);
        let id = rules.add(second, Kind::Fault(Fault::CutBefore));
        let hits: Vec<bool> =
            [&get, &post, &get, &get].map(|seen| is_fault(&mut rules, seen)).into();
        assert_eq!(hits, [false, false, true, false]);
        assert_eq!(rules.hits(id), 1);

        let twice = Rule::new(Match::any(), Fault::CutAfter).times(2);
        rules.add(twice, Kind::Fault(Fault::CutAfter));
        let hits: Vec<bool> =
            [&get, &post, &get, &get].map(|seen| is_fault(&mut rules, seen)).into();
        assert_eq!(hits, [true, true, false, false]);

        rules.remove(|_| false);
        assert!(!is_fault(&mut rules, &get));
        assert_eq!(rules.hits(id), 1, "a removed rule still tells");
    }

    #[test]
    fn chance_follows_the_seed() {
        let get = seen("GET", "/a", "", "");
        let draw = |seed| {
            let mut rules = Rules::new(seed);
            let rule = Rule::new(Match::any(), Fault::CutBefore).probability(0.5);
            rules.add(rule, Kind::Fault(Fault::CutBefore));
            (0..64).map(|_| is_fault(&mut rules, &get)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((16..48).contains(&draw(7).iter().filter(|hit| **hit).count()));
    }
}
