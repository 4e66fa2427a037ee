//! Who may ask which Git server when, decided by a state machine without a clock of its own.
//!
//! A look that needs a server asks for a place. It gets one, or is parked, which holds no worker and
//! no thread, or is told what others have just found out. Whoever leaves a place says what came of it.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use plumb_source::Way;

use super::Problem;
use crate::names::Name;
use crate::queue::Lane;
use crate::queues::LOOKS_PER_RUN;

/// How many looks may be under way at one server. Half of the workers that there are at least, so that
/// one server that has just got stuck leaves the other half to others; and as many as a small server,
/// which prepares a pack in one process each, can stand.
pub(crate) const PLACES: usize = LOOKS_PER_RUN / 2;

/// How long what somebody else found wrong is told. Who failed tries again within a minute, so what is
/// older is not the last word.
const FRESH: Duration = Duration::from_mins(1);

/// How many urgent looks go before one that only is due, if there is any: those who are asked for more often
/// than the server answers would be the only ones.
const IN_A_ROW: u32 = 3;

/// After how long that nobody asks a server it is forgotten what became of it. Those that failed try
/// again before that.
const FORGOTTEN: Duration = Duration::from_mins(5);

/// A look that needs a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) who: &'a Name,
    pub(crate) way: &'a Way,
    /// What others found out counts from here on.
    pub(crate) since: Instant,
    /// How soon it is wanted.
    pub(crate) lane: Lane,
}

/// What becomes of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has the place, until that is left.
    Go,
    /// It has to wait, and is called.
    Park,
    /// It need not ask: this is so.
    Told(Told),
}

/// What is wrong, as somebody found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) problem: Problem,
    /// When the look began that found it out.
    pub(crate) began: Instant,
    /// When it did.
    pub(crate) found: Instant,
    /// Until when the server asked to be left alone.
    pub(crate) until: Option<Instant>,
}

/// What came of a look at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server answers.
    Answered,
    /// It answers, and this to everybody who asks for this repository.
    Refused(Problem),
    /// It does not answer in time, at least not for this repository.
    Silent(Problem),
    /// Nobody gets through to it.
    Unreachable(Problem),
    /// It asks to be left alone until then.
    Pause(Problem, Instant),
    /// It asks that of who asks for this repository with these credentials.
    PauseOne(Problem, Instant),
    /// Nothing was found out.
    Nothing,
}

/// All servers that something is known of.
#[derive(Debug, Default)]
pub(crate) struct Polls {
    hosts: BTreeMap<String, Host>,
    /// Those that are parked or called: where, and their ticket while they are parked.
    parked: BTreeMap<Name, (Way, Option<Ticket>)>,
    /// Those that are to look now.
    called: Vec<(Name, Lane)>,
    tickets: u64,
}

/// A place in the queue for a server: the urgent ones come first.
type Ticket = (Lane, u64);

/// One server.
#[derive(Debug, Default)]
struct Host {
    /// The repositories that are looked at, each by one at a time: the others can mostly be told what
    /// that one hears. One that was called and has not come yet is named.
    places: BTreeMap<String, Option<Name>>,
    parked: BTreeMap<Ticket, Parked>,
    /// The last look had no answer: one at a time tries.
    troubled: bool,
    /// The repository of that look, whoever asked for it.
    silent: Option<String>,
    /// How many urgent ones were called since one that was not.
    urgent: u32,
    /// What is told to everybody.
    down: Option<Told>,
    /// The same, until a time that the server named.
    pause: Option<Told>,
    /// When it was last known to be asked.
    asked: Option<Instant>,
    /// What is told to those of a repository.
    failures: BTreeMap<String, Told>,
}

#[derive(Debug)]
struct Parked {
    who: Name,
    mirror: String,
    since: Instant,
}

impl Polls {
    /// A look needs a server.
    pub(crate) fn enter(&mut self, ask: &Ask<'_>, now: Instant) -> Turn {
        if self.parked.get(ask.who).is_some_and(|(way, _)| way != ask.way) {
            self.withdraw(ask.who, now);
        }
        let ticket = self.parked.remove(ask.who).and_then(|(_, ticket)| ticket);
        let host = self.hosts.entry(ask.way.host.clone()).or_default();
        let mirror = &ask.way.mirror;
        if let Some(ticket) = &ticket {
            host.parked.remove(ticket);
        }
        let is_called =
            host.places.get(mirror).is_some_and(|called| called.as_ref() == Some(ask.who));
        let turn = if let Some(told) = host.told(mirror, ask.since, now) {
            if is_called {
                host.places.remove(mirror);
            }
            Turn::Told(told)
        } else if is_called || host.has_room_for(mirror) {
            host.places.insert(mirror.clone(), None);
            Turn::Go
        } else {
            let ticket = ticket.unwrap_or_else(|| {
                self.tickets += 1;
                (ask.lane, self.tickets)
            });
            let ticket = (ticket.0.min(ask.lane), ticket.1);
            let (who, mirror, since) = (ask.who.clone(), mirror.clone(), ask.since);
            host.parked.insert(ticket, Parked { who: who.clone(), mirror, since });
            self.parked.insert(who, (ask.way.clone(), Some(ticket)));
            Turn::Park
        };
        self.settle(&ask.way.host, now);
        turn
    }

    /// A look that began at a moment leaves its place.
    pub(crate) fn leave(&mut self, way: &Way, began: Instant, verdict: Verdict, now: Instant) {
        let Some(host) = self.hosts.get_mut(&way.host) else { return };
        let mirror = &way.mirror;
        host.places.remove(mirror);
        let told = |problem, until| Told { problem, began, found: now, until };
        host.asked = Some(now);
        match verdict {
            Verdict::Nothing => {}
            Verdict::Answered => {
                host.failures.remove(mirror);
                host.answers();
            }
            Verdict::Refused(problem) => {
                host.failures.insert(mirror.clone(), told(problem, None));
                host.answers();
            }
            Verdict::Silent(problem) => {
                let told = told(problem, None);
                host.failures.insert(mirror.clone(), told.clone());
                // One repository may be slow. Two in a row are no accident.
                let place = &way.place;
                let other = host.silent.replace(place.clone()).filter(|other| other != place);
                if other.is_some() || host.down.is_some() {
                    host.down = Some(told);
                }
                host.troubled = true;
            }
            Verdict::Unreachable(problem) => {
                host.down = Some(told(problem, None));
                host.troubled = true;
            }
            Verdict::PauseOne(problem, until) => {
                host.failures.insert(mirror.clone(), told(problem, Some(until)));
                host.answers();
            }
            Verdict::Pause(problem, until) => {
                let longer = host.pause.as_ref().and_then(|pause| pause.until);
                if longer.is_none_or(|longer| longer < until) {
                    host.pause = Some(told(problem, Some(until)));
                }
                host.troubled = true;
            }
        }
        self.settle(&way.host, now);
    }

    /// A look is over: if it was called and had no need of its place, that is for others.
    pub(crate) fn give_back(&mut self, who: &Name, now: Instant) {
        if self.parked.get(who).is_some_and(|(_, ticket)| ticket.is_none()) {
            self.withdraw(who, now);
        }
    }

    /// A look will not come: it takes up no place and waits for none.
    pub(crate) fn withdraw(&mut self, who: &Name, now: Instant) {
        let Some((way, ticket)) = self.parked.remove(who) else { return };
        let Some(host) = self.hosts.get_mut(&way.host) else { return };
        match ticket {
            Some(ticket) => drop(host.parked.remove(&ticket)),
            None => {
                if let Slot::Occupied(place) = host.places.entry(way.mirror)
                    && place.get().as_ref() == Some(who)
                {
                    place.remove();
                }
            }
        }
        self.settle(&way.host, now);
    }

    /// Forgets who waits: all look anew.
    pub(crate) fn clear(&mut self) {
        self.parked.clear();
        self.called.clear();
        for host in self.hosts.values_mut() {
            host.parked.clear();
            host.places.retain(|_, called| called.is_none());
        }
    }

    /// Those that are to look now, each once.
    pub(crate) fn take_called(&mut self) -> Vec<(Name, Lane)> {
        std::mem::take(&mut self.called)
    }

    /// How many servers are waited for: those that asked for it, and those that do not answer.
    pub(crate) fn waited_for(&mut self, now: Instant) -> usize {
        self.hosts.retain(|_, host| !host.is_over(now));
        let waited_for = |host: &&Host| host.troubled || host.paused_until(now).is_some();
        self.hosts.values().filter(waited_for).count()
    }

    /// Calls whoever can go now, or be told something.
    fn settle(&mut self, name: &str, now: Instant) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        let told: BTreeSet<Ticket> = host
            .parked
            .iter()
            .filter(|(_, parked)| host.told(&parked.mirror, parked.since, now).is_some())
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in told {
            if let Some(parked) = host.parked.remove(&ticket) {
                self.parked.remove(&parked.who);
                self.called.push((parked.who, ticket.0));
            }
        }
        while let Some(ticket) = host.next() {
            let Some(parked) = host.parked.remove(&ticket) else { break };
            if let Some(known) = self.parked.get_mut(&parked.who) {
                known.1 = None;
            }
            host.urgent = if ticket.0 == Lane::Urgent { host.urgent + 1 } else { 0 };
            host.places.insert(parked.mirror, Some(parked.who.clone()));
            self.called.push((parked.who, ticket.0));
        }
        host.failures.retain(|_, told| told.is_fresh(now) || told.is_on(now));
        if host.is_over(now) {
            self.hosts.remove(name);
        }
    }
}

impl Host {
    /// It answers. What it said itself of a time stands: this one may have begun before.
    fn answers(&mut self) {
        self.troubled = false;
        self.silent = None;
        self.down = None;
    }

    fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.pause.as_ref().and_then(|pause| pause.until).filter(|until| now < *until)
    }

    /// Whether nothing is left to be known of it.
    fn is_over(&self, now: Instant) -> bool {
        let quiet = !self.troubled && self.failures.is_empty();
        self.places.is_empty()
            && self.parked.is_empty()
            && !self.failures.values().any(|told| told.is_on(now))
            && self.paused_until(now).is_none()
            && (quiet || self.asked.is_none_or(|asked| asked + FORGOTTEN <= now))
    }

    /// What a look need not find out again.
    fn told(&self, mirror: &str, since: Instant, now: Instant) -> Option<Told> {
        // Nobody may ask, whoever asks for it.
        let paused = self.pause.as_ref().filter(|_| self.paused_until(now).is_some());
        let all = [self.failures.get(mirror), self.down.as_ref()];
        let tells = |told: &&Told| told.is_on(now) || told.began >= since && told.is_fresh(now);
        paused.or_else(|| all.into_iter().flatten().find(tells)).cloned()
    }

    fn has_room_for(&self, mirror: &str) -> bool {
        let places = if self.troubled { 1 } else { PLACES };
        self.places.len() < places && !self.places.contains_key(mirror)
    }

    /// Who is next.
    fn next(&self) -> Option<Ticket> {
        let mut free = self.parked.iter().filter(|(_, parked)| self.has_room_for(&parked.mirror));
        let first = free.clone().next();
        let routine = free.find(|(ticket, _)| ticket.0 == Lane::Routine);
        let next = if self.urgent >= IN_A_ROW { routine.or(first) } else { first };
        next.map(|(ticket, _)| *ticket)
    }
}

impl Told {
    fn is_fresh(&self, now: Instant) -> bool {
        now < self.found + FRESH
    }

    /// Whether the server named a time that is not over.
    fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
#[path = "polls_tests.rs"]
mod tests;
