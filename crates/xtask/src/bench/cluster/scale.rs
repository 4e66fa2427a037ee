//! What Plumb holds in memory at numbers that no API server on this machine would take beside it: a feeder
//! stands in its place, takes everything, and tells the watches.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use plumb_testkit::process::Launch;
use plumb_testkit::{Feeder, GitServer, Scratch};
use serde_json::{Value, json};

use super::ground::{figure_at, folder, free, memory, missing};
use super::system::Running;
use crate::bench::stage::{NAMESPACE, cpu_of};
use crate::error::TaskError;

/// How many objects each application has.
const EACH: usize = 10;
/// The longest that is waited for all of them.
const LIMIT: Duration = Duration::from_mins(15);

/// First sync and restart of so many applications, with what they take.
pub(super) async fn fed(apps: usize, plumb: &Path) -> Result<Value, TaskError> {
    eprintln!("fed: {apps} applications, {} objects", apps * EACH);
    let git = GitServer::start().await;
    let repo = git.repo("bench");
    let files: Vec<(String, String)> = (0..apps)
        .map(|number| {
            let name = folder(number);
            let mut text = String::new();
            for part in 0..EACH {
                let _infallible = write!(
                    text,
                    "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}-{part}\n  namespace: \
                     {NAMESPACE}\n  labels:\n    app.kubernetes.io/name: {name}\ndata:\n  value: \"{part}\"\n"
                );
            }
            (format!("{name}/maps.yaml"), text)
        })
        .collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (&**path, Some(&**text))).collect();
    repo.commit(&files, "all");
    let feeder = Feeder::start().await;
    let source = (super::system::PLUMB.objects)(&git.url("bench"), None);
    feeder.put("gitrepositories", within(source));
    for number in 0..apps {
        let app = (super::system::PLUMB.objects)("", Some(&folder(number)));
        feeder.put("applications", within(app));
    }
    let scratch = Scratch::new("bench");
    let kubeconfig = feeder.kubeconfig();
    let start = || -> Result<Running, TaskError> {
        let metrics = free()?;
        let launch = Launch::new(plumb)
            .arg("controller")
            .env("KUBECONFIG", &kubeconfig)
            .env("HOME", scratch.path())
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env("POD_NAMESPACE", super::ground::HOME)
            .env("PLUMB_METRICS_ADDR", &metrics)
            .env("MALLOC_ARENA_MAX", "2")
            .env("MALLOC_TRIM_THRESHOLD_", "131072")
            .env("PLUMB_CACHE_DIR", scratch.path().join("cache"))
            .env_remove("RUST_LOG");
        let mut running = Running::spawn("plumb", scratch.path(), &launch);
        running.metrics = Some(metrics);
        Ok(running)
    };
    let mut told = Vec::new();
    for (what, outcome) in [("first sync", "changed"), ("restart", "unchanged")] {
        let begun = Instant::now();
        let mut running = start()?;
        let line = format!("plumb_reconciles_total{{kind=\"Application\",outcome=\"{outcome}\"}}");
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let all = apps as f64;
        loop {
            let address = running.metrics.clone().unwrap_or_default();
            let count = figure_at(address, &line).await.unwrap_or_default();
            if count >= all {
                break;
            }
            if begun.elapsed() > LIMIT || running.process.ended().is_some() {
                let log = std::fs::read_to_string(&running.log).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(5).collect();
                return Err(missing("all are in sync", &format!("{count} are: {last:#?}")));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let id = running.process.id();
        let one = json!({
            "what": what, "apps": apps, "objects": apps * EACH, "seconds": seconds,
            "cpu_seconds": cpu_of(id).as_secs_f64(),
            "peak_kib": memory(id, "VmHWM"), "settled_kib": memory(id, "VmRSS"),
            "anonymous_kib": memory(id, "RssAnon"),
        });
        eprintln!("  {one}");
        told.push(one);
        running.process.signal(rustix::process::Signal::TERM);
        running.process.wait(Duration::from_secs(30));
    }
    Ok(json!({ "phases": told, "requests": feeder.requests() }))
}

fn within(mut object: Value) -> Value {
    object["metadata"]["namespace"] = json!(NAMESPACE);
    object
}
