//! First syncs through an API server that takes little, and through one that fails now and then: all
//! applications come through, nothing is lost, and what was turned away does not come back in step.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plumb_testkit::proxy::Seen;
use plumb_testkit::{Exchange, Fault, Match, Proxy, Rule};
use serde_json::{Value, json};

use super::ground::{Ground, folder, missing};
use super::system::PLUMB;
use crate::bench::stage::{CONFIG_MAP, refused};
use crate::error::TaskError;

/// What the throttled API server takes in a second.
const PER_SECOND: f64 = 50.0;
/// How many requests of a hundred fail at the failing one.
const FAILING: f64 = 5.0;
/// What repeats the failing one's choices.
const SEED: u64 = 8;

/// Retries within this time of each other are in step when too many of them are.
const STEP: Duration = Duration::from_millis(100);
/// Of all retries so many at most may come within one step.
const IN_STEP: f64 = 0.1;

/// Both runs.
pub(super) async fn faults(apps: usize, each: u16, plumb: &Path) -> Result<Vec<Value>, TaskError> {
    let asked = |seen: &Seen| !seen.query.contains("watch=");
    let bucket = Mutex::new((PER_SECOND, Instant::now()));
    let dry = move |seen: &Seen| asked(seen) && !take(&bucket);
    let busy = Fault::Status { code: 429, retry_after: Some(1) };
    let throttled = Rule::new(Match::any().when(dry), busy);
    let failing =
        Rule::new(Match::any().when(asked), Fault::Status { code: 500, retry_after: None });
    let failing = failing.probability(FAILING / 100.0);
    Ok(vec![
        through("first sync, 50 requests a second", throttled, (apps, each), plumb).await?,
        through("first sync, 5 % errors", failing, (apps, each), plumb).await?,
    ])
}

/// Takes one from a bucket that fills by the second, if one is left.
fn take(bucket: &Mutex<(f64, Instant)>) -> bool {
    let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
    let (left, at) = *bucket;
    let now = Instant::now();
    let left = (left + (now - at).as_secs_f64() * PER_SECOND).min(PER_SECOND);
    let taken = left >= 1.0;
    *bucket = (if taken { left - 1.0 } else { left }, now);
    taken
}

async fn through(
    what: &str,
    rule: Rule,
    (apps, each): (usize, u16),
    plumb: &Path,
) -> Result<Value, TaskError> {
    eprintln!("{what}: {apps} applications");
    let mut ground = Ground::new(&PLUMB, apps, each).await?;
    let proxy = Arc::new(Proxy::to_api(&ground.plane, SEED).await);
    let hits = proxy.add(rule);
    ground.go_through(&proxy.url());
    let head = ground.repo.head();
    let begun = ground.begin();
    ground.start(plumb)?;
    let done = ground.all("are ready", |app| (PLUMB.ready)(app, &head)).await?;
    let took = done.saturating_duration_since(begun.at);
    let mut told = ground.end(what, &begun, Some(took)).await?;
    let maps = ground.hand.list(CONFIG_MAP).await.map_err(refused)?;
    let there: BTreeMap<&str, &Value> = maps
        .iter()
        .map(|map| (map["metadata"]["name"].as_str().unwrap_or_default(), &map["data"]["value"]))
        .collect();
    let lost =
        (0..apps).filter(|number| there.get(&*folder(*number)).is_none_or(|value| *value != "1"));
    let lost = lost.count();
    let retries = retries(&proxy.exchanges());
    let most = most_within(&retries, STEP);
    if lost > 0 {
        return Err(missing("nothing is lost", &format!("{lost} objects are not as in Git")));
    }
    told["refused"] = json!(proxy.hits(hits));
    told["retries"] = json!(retries.len());
    told["most_within_100_ms"] = json!(most);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let (most, all) = (most as f64, retries.len() as f64);
    told["holds"] = json!(most <= (all * IN_STEP).max(4.0));
    ground.stop();
    Ok(told)
}

/// When what was refused came again, from the start of the proxy.
fn retries(exchanges: &[Exchange]) -> Vec<Duration> {
    let mut refused: HashMap<(&str, &str, &[u8]), usize> = HashMap::new();
    let mut times = Vec::new();
    for exchange in exchanges {
        let Seen { method, path, body, .. } = &exchange.request;
        // What is created has one path for all.
        let body = if method == "POST" { &body[..] } else { &[] };
        let what = (&**method, &**path, body);
        let open = refused.entry(what).or_default();
        if *open > 0 {
            *open -= 1;
            times.push(exchange.at);
        }
        if exchange.status.is_some_and(|status| status == 429 || status >= 500) {
            *open += 1;
        }
    }
    times.sort_unstable();
    times
}

/// The most that came within so long of each other.
fn most_within(times: &[Duration], span: Duration) -> usize {
    let within =
        |from: usize| times[from..].iter().take_while(|time| **time <= times[from] + span).count();
    (0..times.len()).map(within).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_at_once_is_counted() {
        let millis =
            |all: &[u64]| all.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(most_within(&millis(&[]), STEP), 0);
        assert_eq!(most_within(&millis(&[0, 50, 100, 101, 400]), STEP), 3);
    }

    #[test]
    fn a_bucket_gives_no_more_than_it_holds() {
        let bucket = Mutex::new((PER_SECOND, Instant::now()));
        assert!((40..60).contains(&(0..200).filter(|_| take(&bucket)).count()));
    }
}
