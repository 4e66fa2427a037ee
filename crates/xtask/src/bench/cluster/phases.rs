//! What each system is put through, in this order, on a control plane of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plumb_testkit::control_plane::Mark;
use serde_json::{Value, json};

use super::ground::{Begun, Ground, folder, missing};
use super::replay::Script;
use super::system::Running;
use crate::bench::pairs::spread;
use crate::bench::stage::{CONFIG_MAP, NAMESPACE, refused};
use crate::error::TaskError;

/// How many edits of others are undone.
const EDITS: usize = 100;
/// For how long nothing happens in the idle phase.
const IDLE: Duration = Duration::from_mins(1);
/// The pause between two edits at rest: a status and an event tell of the one before, and take less.
const SAID: Duration = Duration::from_millis(200);
/// The pause between two edits during a sync: all of them fall into it, and it goes on.
const BETWEEN: Duration = Duration::from_millis(20);

/// Everything that was counted, and what can be sent again.
pub(super) struct Played {
    pub(super) phases: Vec<Value>,
    pub(super) scripts: Vec<Script>,
}

/// Plays all phases.
pub(super) async fn play(ground: &mut Ground, binary: &Path) -> Result<Played, TaskError> {
    let (mut phases, mut scripts) = (Vec::new(), Vec::new());
    let system = ground.system;
    let apps = ground.apps;
    let head = ground.repo.head();

    let begun = ground.begin();
    ground.start(binary)?;
    let done = ground.all("are ready", |app| (system.ready)(app, &head)).await?;
    let until = Timestamp::now();
    phases.push(took(ground, "first sync", &begun, done).await?);
    scripts.push(script(ground, "first sync", &begun, done, until));

    // One in the middle, wherever a queue begins.
    let chosen = apps / 2;
    let renders = ground.figure(RENDERS).await;
    let commit = ground.commit(ground.files(chosen, "1", "one").into_iter());
    let begun = ground.begin();
    ground.look(&commit).await?;
    let live = |object: &Value| object["data"]["value"] == "one";
    let done = ground.one(CONFIG_MAP, &folder(chosen), live).await?;
    let mut phase = took(ground, "commit to one", &begun, done).await?;
    if let (Some(before), Some(after)) = (renders, ground.figure(RENDERS).await) {
        phase["renders"] = json!(after - before);
    }
    phases.push(phase);

    let commit = ground.commit(ground.all_files("2", "2"));
    let begun = ground.begin();
    ground.look(&commit).await?;
    let done = ground.all("are at the commit", |app| (system.ready)(app, &commit)).await?;
    let until = Timestamp::now();
    phases.push(took(ground, "commit to all", &begun, done).await?);
    scripts.push(script(ground, "commit to all", &begun, done, until));

    let begun = ground.begin();
    ground.look_each("again").await?;
    let done = ground.all("did what was asked", |app| (system.handled)(app, "again")).await?;
    phases.push(took(ground, "forced round", &begun, done).await?);

    let begun = ground.begin();
    tokio::time::sleep(IDLE).await;
    phases.push(ground.counted("idle, 60 s", &begun, Some(IDLE)).await);

    if system.corrects {
        phases.push(at_rest(ground).await?);
        phases.push(during_a_sync(ground).await?);
    }

    ground.stop();
    let begun = ground.begin();
    ground.start(binary)?;
    let told = in_sync(ground).await?;
    let mut phase = ground.end("restart", &begun, told).await?;
    if told.is_none() {
        // Nothing tells when it is done: the last of what it asked for does.
        phase["seconds"] = phase["quiet_after_seconds"].clone();
    }
    phase["lists"] = lists(ground, begun.mark);
    if let Some(renders) = ground.figure(RENDERS).await {
        phase["renders"] = json!(renders);
    }
    phases.push(phase);
    if let Some(standby) = system.standby {
        let second = standby(ground, binary, "standby")?;
        phases.push(takeover(ground, second, false).await?);
        let third = standby(ground, binary, "second standby")?;
        phases.push(takeover(ground, third, true).await?);
    }
    Ok(Played { phases, scripts })
}

fn script(
    ground: &Ground,
    what: &'static str,
    begun: &Begun,
    done: Instant,
    until: Timestamp,
) -> Script {
    let took = done.saturating_duration_since(begun.at);
    Script::of(what, took, ground.requests(begun.mark), until)
}

/// How often Plumb rendered, by its own count.
const RENDERS: &str = "plumb_renders_total";
/// Applications that wait for a run of Plumb, and those that have one.
const WAITING: &str = "plumb_queue_length{kind=\"Application\"}";
const BUSY: &str = "plumb_workers_busy{kind=\"Application\"}";

async fn took(
    ground: &mut Ground,
    what: &str,
    begun: &Begun,
    done: Instant,
) -> Result<Value, TaskError> {
    ground.end(what, begun, Some(done.saturating_duration_since(begun.at))).await
}

/// Waits until each Application was found in sync; nothing where that is not told.
async fn in_sync(ground: &Ground) -> Result<Option<Duration>, TaskError> {
    let begun = Instant::now();
    if ground.running.iter().all(|running| running.metrics.is_none()) {
        return Ok(None);
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let all = ground.apps as f64;
    while begun.elapsed() < Duration::from_mins(2) {
        // Each is rendered once, and none has anything left to do.
        if ground.figure(RENDERS).await.is_some_and(|count| count >= all)
            && ground.figure(WAITING).await == Some(0.0)
            && ground.figure(BUSY).await == Some(0.0)
        {
            return Ok(Some(begun.elapsed()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let found = ground.figure(RENDERS).await;
    Err(missing("all Applications are in sync after a restart", &format!("{found:?}")))
}

/// A second process has seen everything; the first ends, and in that moment somebody changes an object.
/// The phase lasts until that is undone.
async fn takeover(ground: &mut Ground, standby: Running, kill: bool) -> Result<Value, TaskError> {
    /// What the watches have to bring.
    const MEMBERS: &str = "plumb_members";
    let what = if kill { "takeover after a kill" } else { "takeover after a stop" };
    ground.running.push(standby);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let all = (ground.each * ground.apps) as f64;
    let waiting = Instant::now();
    while ground.last_figure(MEMBERS).await.is_none_or(|members| members < all) {
        if waiting.elapsed() > Duration::from_mins(2) {
            return Err(missing("a standby sees all members", "it does not"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ground.rest().await;
    let begun = ground.begin();
    let mut first = ground.running.remove(0);
    if kill {
        first.process.kill();
    } else {
        first.process.signal(rustix::process::Signal::TERM);
    }
    let name = folder(0);
    edit(ground, &name).await?;
    let back = |object: &Value| object["data"]["value"] == "2";
    let done = ground.one(CONFIG_MAP, &name, back).await?;
    let told = took(ground, what, &begun, done).await?;
    drop(first);
    Ok(told)
}

/// From the first LIST that was asked to the last that was answered.
fn lists(ground: &Ground, mark: Mark) -> Value {
    let requests = ground.requests(mark).only(|event| event.verb == "list");
    let times = |of: fn(&plumb_testkit::AuditEvent) -> &str| {
        requests.iter().filter_map(move |event| of(event).parse::<Timestamp>().ok())
    };
    let (first, last) = (times(|e| &e.received).min(), times(|e| &e.answered).max());
    let span = first.zip(last).map(|(first, last)| last.duration_since(first).as_secs_f64());
    json!({ "requests": requests.len(), "seconds": span })
}

/// One after the other, while nothing else happens; then the same edits with a loop in this process
/// that watches and patches.
async fn at_rest(ground: &mut Ground) -> Result<Value, TaskError> {
    let begun = ground.begin();
    let mut undone = Vec::new();
    for number in 0..EDITS.min(ground.apps) {
        let name = folder(number);
        let edited = edit(ground, &name).await?;
        let back = ground.one(CONFIG_MAP, &name, |object| object["data"]["value"] == "2").await?;
        undone.push(millis(back, edited));
        tokio::time::sleep(SAID).await;
    }
    let mut phase = ground.end("edits at rest", &begun, None).await?;
    let mut bare = Vec::new();
    let other = ground.hand.named("bare-loop");
    for number in 0..EDITS.min(ground.apps) {
        let name = format!("bare-{number}");
        let object = |value: &str| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
                "data": { "value": value, "level": "info", "greeting": "hello" },
            })
        };
        let wanted = object("2");
        other.apply(CONFIG_MAP, NAMESPACE, &name, &wanted).await.map_err(refused)?;
        ground.one(CONFIG_MAP, &name, |object| object["data"]["value"] == "2").await?;
        let edited = edit(ground, &name).await?;
        other.apply(CONFIG_MAP, NAMESPACE, &name, &wanted).await.map_err(refused)?;
        let back = ground.one(CONFIG_MAP, &name, |object| object["data"]["value"] == "2").await?;
        bare.push(millis(back, edited));
        tokio::time::sleep(SAID).await;
    }
    phase["undone_milliseconds"] = percentiles(undone);
    phase["bare_milliseconds"] = percentiles(bare);
    Ok(phase)
}

/// While a commit to all is applied.
async fn during_a_sync(ground: &mut Ground) -> Result<Value, TaskError> {
    let system = ground.system;
    let apps = ground.apps;
    // What is edited is as it was, so that an edit can be told from the commit.
    let commit = ground.commit(ground.all_files("3", "2"));
    let begun = ground.begin();
    ground.look(&commit).await?;
    let hand = ground.hand.named("editor");
    let edits = EDITS.min(apps);
    let editing = tokio::spawn(async move {
        for number in 0..edits {
            let patch = json!({ "data": { "value": format!("edited-{number}") } });
            // From the end on: those are the last that the sync comes to.
            let name = folder(apps - 1 - number);
            hand.merge(CONFIG_MAP, NAMESPACE, &name, &patch).await.map_err(refused)?;
            tokio::time::sleep(BETWEEN).await;
        }
        Ok::<_, TaskError>(())
    });
    let mut edited = std::collections::HashMap::new();
    let mut undone = Vec::new();
    let mut ready = std::collections::HashSet::new();
    let mut done = begun.at;
    while undone.len() < edits || ready.len() < apps {
        let (at, version) = ground.next("all edits are undone during a sync").await?;
        let name = version.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if version.kind == system.application {
            if (system.ready)(&version.object, &commit) && ready.insert(name) {
                done = at;
            }
        } else if version.kind == CONFIG_MAP {
            let value = version.object["data"]["value"].as_str().unwrap_or_default();
            if value.starts_with("edited-") {
                edited.entry(name).or_insert(at);
            } else if value == "2"
                && let Some(edited) = edited.remove(&name)
            {
                undone.push(millis(at, edited));
            }
        }
    }
    editing.await.map_err(|error| missing("somebody edits", &error.to_string()))??;
    let mut phase = took(ground, "edits during a sync", &begun, done).await?;
    phase["undone_milliseconds"] = percentiles(undone);
    Ok(phase)
}

/// Somebody else changes a value; gives the moment in which a watch tells of it.
async fn edit(ground: &mut Ground, name: &str) -> Result<Instant, TaskError> {
    let patch = json!({ "data": { "value": "edited" } });
    let hand = ground.hand.named("editor");
    hand.merge(CONFIG_MAP, NAMESPACE, name, &patch).await.map_err(refused)?;
    ground.one(CONFIG_MAP, name, |object| object["data"]["value"] == "edited").await
}

fn millis(later: Instant, earlier: Instant) -> f64 {
    later.saturating_duration_since(earlier).as_secs_f64() * 1000.0
}

fn percentiles(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let at =
        |part: usize| values.get((values.len() * part / 100).min(values.len().saturating_sub(1)));
    let mut told = spread(values.clone());
    told["p50"] = json!(at(50));
    told["p99"] = json!(at(99));
    told
}
