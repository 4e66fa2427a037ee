//! Waiting for objects and for each other, on a real control plane with kwok.
//!
//! Many Applications with `wait`, each of one Deployment of one Pod: how much later than a watch that
//! is not Plumb's saw the last Deployment available does the last Application say that it is ready?
//! Both are counted from the first Deployment that was there. And a chain of Applications of one
//! ConfigMap each, each of which depends on the one before: how long does a commit take from link to
//! link, beside a loop that writes as often, and each time waits until a watch has told of the write
//! before? Events are not counted as writes: they hold nothing up.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use plumb_testkit::control_plane::Mark;
use plumb_testkit::{Options, Requests, sample};
use serde_json::{Value, json};

use super::pairs::{spread, summary};
use super::stage::{
    APPLICATION, CONFIG_MAP, DEPLOYMENT, NAMESPACE, Stage, is_available, is_ready, refused,
};
use super::{BenchArgs, Measuring};
use crate::error::TaskError;

/// How many Deployments, unless something else is asked for.
const DEPLOYMENTS: usize = 500;
/// How many Applications are in a row.
const LINKS: usize = 20;
/// How many commits go through it in one run.
const COMMITS: usize = 5;
/// How often everything is measured.
const RUNS: usize = 3;

pub(super) fn run<'a>(args: &'a BenchArgs, plumb: &'a Path) -> Measuring<'a> {
    Box::pin(measured(args, plumb))
}

async fn measured(args: &BenchArgs, plumb: &Path) -> Result<Value, TaskError> {
    let sizes = if args.objects.is_empty() { &[DEPLOYMENTS][..] } else { &args.objects };
    let runs = args.pairs.unwrap_or(RUNS).max(1);
    let mut measured = Vec::new();
    for size in sizes {
        let mut all = Vec::new();
        for _ in 0..runs {
            all.push(deployments(plumb, *size).await?);
        }
        let pairs: Vec<_> = all.iter().map(|one| [one.ready, one.available]).collect();
        measured.push(json!({
            "what": "Deployments",
            "objects": size,
            "at_most": 1.1,
            "figures": summary(["ready", "available"], &pairs),
            "milliseconds_behind": all.iter().map(|one| one.behind.clone()).collect::<Vec<_>>(),
            "requests": all.iter().map(|one| one.requests.clone()).collect::<Vec<_>>(),
        }));
    }
    for wait in [false, true] {
        let mut all = Vec::new();
        for _ in 0..runs {
            all.push(chain(plumb, wait).await?);
        }
        let pairs: Vec<_> = all.iter().map(|one| [one.link, one.bare]).collect();
        measured.push(json!({
            "what": if wait { "chain that waits" } else { "chain" },
            "objects": LINKS,
            "at_most": 3.0,
            "figures": summary(["a link", "as many writes"], &pairs),
            "milliseconds_of_links": all.iter().map(|one| one.links.clone()).collect::<Vec<_>>(),
            "writes": all.iter().map(|one| one.writes).collect::<Vec<_>>(),
            "requests": all.iter().map(|one| one.requests.clone()).collect::<Vec<_>>(),
        }));
    }
    // Nothing is measured that did not come to its end.
    Ok(json!({ "agree": true, "measured": measured }))
}

/// What one run of the Deployments took, from the first that was there.
struct Deployed {
    available: Duration,
    ready: Duration,
    /// How long after its Deployment each Application was ready.
    behind: Value,
    requests: Value,
}

async fn deployments(plumb: &Path, count: usize) -> Result<Deployed, TaskError> {
    let options = Options { nodes: 2, controllers: true };
    let mut stage = Stage::new(options, &[DEPLOYMENT, APPLICATION]).await?;
    let name = |number: usize| format!("web-{number}");
    let files: Vec<_> =
        (0..count).map(|n| (format!("{}/web.yaml", name(n)), deployment(&name(n)))).collect();
    let commit = commit(&stage, &files);
    let specs: Vec<_> = (0..count).map(|n| (name(n), json!({ "wait": true }))).collect();
    stage.ask(&specs).await?;
    let mark = stage.plane.audit().mark();
    let mut news = stage.news();
    stage.start(plumb);
    let mut begun = None;
    let (mut available, mut ready) = (HashMap::new(), HashMap::new());
    while available.len() < count || ready.len() < count {
        let what = format!(
            "all {count} are ready, of which {} are available and {} are",
            available.len(),
            ready.len()
        );
        let (at, version) = stage.next(&what, &mut news).await?;
        let name = version.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if version.kind == DEPLOYMENT {
            begun.get_or_insert(at);
            if is_available(&version.object) {
                available.entry(name).or_insert(at);
            }
        } else if is_ready(&version.object, &commit) {
            ready.entry(name).or_insert(at);
        }
    }
    let begun = begun.unwrap_or_else(Instant::now);
    let last = |all: &HashMap<String, Instant>| {
        all.values().max().map(|at| at.duration_since(begun)).unwrap_or_default()
    };
    let behind = available.iter().filter_map(|(name, at)| {
        let late = ready.get(name)?.saturating_duration_since(*at);
        Some(late.as_secs_f64() * 1000.0)
    });
    Ok(Deployed {
        available: last(&available),
        ready: last(&ready),
        behind: spread(behind.collect()),
        requests: json!(asked(&stage, mark).await.counts()),
    })
}

/// What one run of the chain took, per link.
struct Chained {
    link: Duration,
    /// How far apart they are.
    links: Value,
    bare: Duration,
    /// All writes of all links for one commit, events aside.
    writes: usize,
    requests: Value,
}

async fn chain(plumb: &Path, wait: bool) -> Result<Chained, TaskError> {
    let options = Options { nodes: 0, controllers: true };
    let mut stage = Stage::new(options, &[CONFIG_MAP, APPLICATION]).await?;
    let name = |number: usize| format!("link-{number}");
    let files = |value: &str| -> Vec<_> {
        let map = |n| sample::config_map(&name(n), "value", value);
        (0..LINKS).map(|n| (format!("{}/map.yaml", name(n)), map(n))).collect()
    };
    let first = commit(&stage, &files("1"));
    let specs: Vec<_> = (0..LINKS)
        .map(|n| {
            let before: Vec<_> = n.checked_sub(1).map(name).into_iter().collect();
            let before: Vec<_> = before.iter().map(|name| json!({ "name": name })).collect();
            (name(n), json!({ "dependsOn": before, "wait": wait }))
        })
        .collect();
    stage.ask(&specs).await?;
    let mut news = stage.news();
    stage.start(plumb);
    all_ready(&mut stage, &mut news, &first).await?;
    stage.plane.settled().await;

    let (mut links, mut bare_links) = (Vec::new(), Duration::ZERO);
    let (mut writes, mut counts) = (0, Value::Null);
    // By turns, so that a moment in which the machine is busy falls on both.
    for round in 0..COMMITS {
        let mark = stage.plane.audit().mark();
        let next = commit(&stage, &files(&format!("next-{round}")));
        stage.look().await?;
        let times = all_ready(&mut stage, &mut news, &next).await?;
        // The first one's own time is not seen in this, nor is the fetch.
        links.extend(times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])));
        let requests = asked(&stage, mark).await;
        counts = json!(requests.counts());
        let ours = |resource: &str| matches!(resource, "configmaps" | "applications");
        writes = requests.writes().only(|event| ours(&event.resource)).len();
        bare_links += bare(&mut stage, writes).await? / u32::try_from(LINKS).unwrap_or(1);
    }
    let one = |all: Duration, of: usize| all / u32::try_from(of).unwrap_or(1).max(1);
    Ok(Chained {
        link: one(links.iter().sum(), links.len()),
        links: spread(links.iter().map(|link| link.as_secs_f64() * 1000.0).collect()),
        bare: one(bare_links, COMMITS),
        writes,
        requests: counts,
    })
}

/// Waits until every link is ready at a commit, and tells when each was, in this order.
async fn all_ready(
    stage: &mut Stage,
    news: &mut super::stage::News,
    commit: &str,
) -> Result<Vec<Instant>, TaskError> {
    let mut ready = HashMap::new();
    while ready.len() < LINKS {
        let what = format!("all {LINKS} links are ready, of which {} are", ready.len());
        let (at, version) = stage.next(&what, news).await?;
        if version.kind == APPLICATION && is_ready(&version.object, commit) {
            ready.entry(version.object["metadata"]["name"].to_string()).or_insert(at);
        }
    }
    let mut times: Vec<_> = ready.into_values().collect();
    times.sort();
    Ok(times)
}

/// How long it takes to write so often, and to see each write by a watch before the next.
async fn bare(stage: &mut Stage, writes: usize) -> Result<Duration, TaskError> {
    let map = |number: usize, value: &str| {
        let name = format!("bare-{}", number % LINKS);
        let object = json!({
            "apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.name,
            "metadata": { "name": &name }, "data": { "value": value },
        });
        (name, object)
    };
    for number in 0..LINKS {
        let (name, object) = map(number, "before");
        stage.hand.apply(CONFIG_MAP, NAMESPACE, &name, &object).await.map_err(refused)?;
    }
    let mut news = stage.news();
    let begun = Instant::now();
    for number in 0..writes {
        let (name, object) = map(number, &number.to_string());
        let written = stage.hand.apply(CONFIG_MAP, NAMESPACE, &name, &object).await;
        let written = written.map_err(refused)?;
        let version = &written["metadata"]["resourceVersion"];
        while stage.next("a write is seen", &mut news).await?.1.object["metadata"]["resourceVersion"]
            != *version
        {}
    }
    Ok(begun.elapsed())
}

fn commit(stage: &Stage, files: &[(String, String)]) -> String {
    let files: Vec<_> = files.iter().map(|(path, text)| (&**path, Some(&**text))).collect();
    stage.repo.commit(&files, "bench")
}

/// What Plumb asked of the API server since.
async fn asked(stage: &Stage, mark: Mark) -> Requests {
    stage.plane.settled().await;
    let asked = stage.plane.audit().requests(mark).by(&stage.user());
    asked.only(|event| !event.resource.is_empty() && event.resource != "leases")
}

fn deployment(name: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  replicas: 1\n  \
         selector:\n    matchLabels: {{app: {name}}}\n  template:\n    metadata:\n      labels: \
         {{app: {name}}}\n    spec:\n      containers:\n        - {{name: main, image: web:1}}\n"
    )
}

/// The figures for people.
pub(super) fn table(result: &Value) -> String {
    let mut table = String::from(
        "objects  what                 median of both      ratio  least  most  at most\n",
    );
    for row in result["measured"].as_array().into_iter().flatten() {
        let figures = &row["figures"];
        let millis = |index: usize| {
            figures["variants"][index]["milliseconds"]["median"].as_f64().unwrap_or_default()
        };
        let ratio = |field: &str| figures["ratio"]["spread"][field].as_f64().unwrap_or_default();
        let _infallible = writeln!(
            table,
            "{:7}  {:16}  {:8.1} {:8.1} ms  {:5.2}  {:5.2} {:5.2}  {:7} ({})",
            row["objects"].as_u64().unwrap_or_default(),
            row["what"].as_str().unwrap_or_default(),
            millis(0),
            millis(1),
            ratio("median"),
            ratio("least"),
            ratio("greatest"),
            row["at_most"].as_f64().unwrap_or_default(),
            figures["ratio"]["of"].as_str().unwrap_or_default(),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_measure() {
        let pair = [Duration::from_millis(1100), Duration::from_secs(1)];
        let row = json!({
            "what": "Deployments", "objects": 500, "at_most": 1.1,
            "figures": summary(["ready", "available"], &[pair]),
        });
        let table = table(&json!({ "measured": [row] }));
        assert!(table.contains("    500  Deployments"), "{table}");
        assert!(table.contains("1.10 "), "{table}");
        assert!(table.contains("(ready to available)"), "{table}");
    }
}
