//! What goes wrong on the way to the API server and to Git, and with the process itself.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use plumb_testkit::proxy::Seen;
use plumb_testkit::{Fault, Match, Proxy, Rule};

/// Which of the two proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Api,
    Git,
}

/// Which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    Lists,
    Watches,
    Writes,
    Deletes,
    Statuses,
}

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Trouble {
    /// Some requests end so.
    Requests { side: Side, which: Which, fault: Fault, share: f64, times: u32 },
    /// Watches tell of everything so much later. Nothing that is done or said may depend on it.
    Lag { lasts: Duration },
    /// Everything that is open is cut.
    Cut(Side),
    /// Nothing passes for a while.
    Partition { side: Side, lasts: Duration },
    /// SIGKILL, and a new start.
    Kill { keeps_cache: bool },
    /// SIGTERM, and a new start.
    Stop { keeps_cache: bool },
    /// SIGKILL; it starts again when the round is over.
    Down { keeps_cache: bool },
    /// SIGSTOP for a while.
    Freeze { lasts: Duration },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = |keeps: bool| if keeps { "with its cache" } else { "without cache" };
        match self {
            Self::Requests { side, which, fault, share, times } => {
                write!(f, "{side:?}: {fault:?} for {share:.2} of {which:?}, {times} times")
            }
            Self::Lag { lasts } => write!(f, "watches are late by {lasts:?}"),
            Self::Cut(side) => write!(f, "{side:?}: open connections are cut"),
            Self::Partition { side, lasts } => write!(f, "{side:?}: nothing passes for {lasts:?}"),
            Self::Kill { keeps_cache } => write!(f, "killed, and started {}", cache(*keeps_cache)),
            Self::Stop { keeps_cache } => write!(f, "stopped, and started {}", cache(*keeps_cache)),
            Self::Down { keeps_cache } => {
                write!(f, "killed, to be started {} later", cache(*keeps_cache))
            }
            Self::Freeze { lasts } => write!(f, "frozen for {lasts:?}"),
        }
    }
}

fn millis(random: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

/// Draws what even a calm round may have.
pub(super) fn draw_calm(random: &mut Rng) -> Trouble {
    Trouble::Lag { lasts: millis(random, 50..700) }
}

/// Draws one.
pub(super) fn draw(random: &mut Rng) -> Trouble {
    match random.u8(0..100) {
        0..50 => requests(random),
        50..55 => draw_calm(random),
        55..62 => Trouble::Cut(side(random)),
        62..68 => Trouble::Partition { side: side(random), lasts: millis(random, 200..3000) },
        // Longer than a request may take, and than a lease lasts.
        68..70 => Trouble::Partition { side: Side::Api, lasts: millis(random, 4000..8000) },
        70..80 => Trouble::Kill { keeps_cache: random.bool() },
        80..88 => Trouble::Stop { keeps_cache: random.bool() },
        88..93 => Trouble::Down { keeps_cache: random.bool() },
        _ => Trouble::Freeze { lasts: millis(random, 200..3000) },
    }
}

fn side(random: &mut Rng) -> Side {
    if random.u8(0..3) == 0 { Side::Git } else { Side::Api }
}

fn requests(random: &mut Rng) -> Trouble {
    let side = side(random);
    let which = match random.u8(0..10) {
        _ if side == Side::Git => Which::All,
        0..3 => Which::Lists,
        3..5 => Which::Watches,
        5..7 => Which::Writes,
        7 => Which::Deletes,
        8 => Which::Statuses,
        _ => Which::All,
    };
    let fault = match random.u8(0..12) {
        0..3 => Fault::Delay(millis(random, 10..1500)),
        3 | 4 => Fault::CutBefore,
        5 | 6 => Fault::CutAfter,
        7 => Fault::CutBody(random.usize(0..3000)),
        8 => Fault::Status { code: 429, retry_after: Some(1) },
        9 => Fault::Status { code: 500, retry_after: None },
        10 => Fault::Status { code: 503, retry_after: None },
        _ if which == Which::Watches => Fault::Expired,
        _ => Fault::Stall,
    };
    // A few in a row, or many with others between them.
    let (share, times) =
        if random.bool() { (1.0, random.u32(1..5)) } else { (0.1 + random.f64() / 2.0, 30) };
    let times = if fault == Fault::Stall { times.min(3) } else { times };
    Trouble::Requests { side, which, fault, share, times }
}

/// Tells the proxy of requests that are to go wrong.
pub(super) fn arm(proxy: &Proxy, which: Which, fault: Fault, share: f64, times: u32) {
    let chosen = Match::any().when(move |seen| chooses(which, seen));
    proxy.add(Rule::new(chosen, fault).probability(share).times(times));
}

fn chooses(which: Which, seen: &Seen) -> bool {
    let watch = seen.query.contains("watch=");
    let status = seen.path.ends_with("/status");
    // The lease has tests of its own; without it nothing else would be tried here.
    let lease = seen.path.contains("/leases/");
    match which {
        Which::All => !lease,
        Which::Lists => seen.method == "GET" && !watch && seen.query.contains("limit="),
        Which::Watches => watch,
        Which::Writes => seen.method == "PATCH" && !status && !lease,
        Which::Deletes => seen.method == "DELETE",
        Which::Statuses => seen.method == "PATCH" && status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_trouble_is_drawn_now_and_then_and_the_same_for_the_same_seed() {
        let draws = |seed| {
            let mut random = Rng::with_seed(seed);
            (0..2000).map(|_| draw(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draws(2), draws(2));
        let mut kinds = BTreeSet::new();
        for trouble in draws(2) {
            kinds.insert(match trouble {
                Trouble::Requests { which, fault, .. } => {
                    let fault = format!("{fault:?}");
                    let name = fault.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
                    format!("{which:?} {name}")
                }
                other => other.to_string().split(' ').next().unwrap_or_default().to_owned(),
            });
        }
        for kind in ["All Stall", "Lists Status", "Watches Expired", "Writes CutAfter", "killed,"] {
            assert!(kinds.contains(kind), "never {kind}: {kinds:?}");
        }
    }
}
