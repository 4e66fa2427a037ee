//! What it costs to follow repositories, on a real control plane and a Git server on loopback that
//! counts what it is asked.
//!
//! Bytes are those of bodies, as they go over the wire: of headers each request has some hundred more.
//! One repository of many files, commits and references is served under several URLs, so that each
//! GitRepository has a mirror of its own and can be counted by its path. Counted are looks without news by
//! each kind of reference, a commit of one file and an amended one. Measured in pairs are a walk over a
//! mirror after a thousand fetches and over one after a single fetch (by `git`, which reads the same packs),
//! and many GitRepositories of one URL beside one of another, over the same minutes.

mod peer;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plumb_testkit::{GitRequest, Kind, Options};
use serde_json::{Value, json};

use super::pairs::{Variant, measure};
use super::stage::{NAMESPACE, REPOSITORY, Stage, cpu_of, is_true, refused};
use super::{BenchArgs, Measuring};
use crate::error::TaskError;

/// What the repository holds.
const FILES: usize = 10_000;
const COMMITS: usize = 5_000;
const BRANCHES: usize = 2_000;
const VERSIONS: usize = 1_000;
const PARTS: usize = 100;
const PULLS: usize = 10_000 - BRANCHES - VERSIONS - PARTS;

/// How many GitRepositories follow one URL, unless something else is asked for.
const MANY: usize = 500;
/// How often they look, and for how long they are counted.
const INTERVAL: Duration = Duration::from_secs(10);
const COUNTED: Duration = Duration::from_mins(2);
/// How many commits are fetched before the walk.
const FETCHES: usize = 1_000;
/// How long it may take until a push that the agent is called for stands in the status.
const PUSH: Duration = Duration::from_secs(1);
/// How often each mirror is walked over.
const WALKS: usize = 7;
/// How often everything is done beside Flux.
const ROUNDS: usize = 5;
/// The longest that is waited for anything.
const LIMIT: Duration = Duration::from_mins(10);

pub(super) fn run<'a>(args: &'a BenchArgs, plumb: &'a Path) -> Measuring<'a> {
    Box::pin(measured(args, plumb))
}

/// Who follows repositories.
struct Who {
    /// How that is asked for.
    kind: Kind,
    annotation: &'static str,
    /// Where it says what it came to.
    revision: fn(&Value) -> Option<&str>,
    process: u32,
}

/// A kind of reference: its name, which is that of its URL, too, and what a look may cost at most.
struct Follower {
    name: &'static str,
    reference: Value,
    requests: usize,
    bytes: u64,
}

fn followers() -> Vec<Follower> {
    let follower = |name, reference, bytes| Follower { name, reference, requests: 2, bytes };
    // A line of a listing, and some bytes more for each.
    let tags = |count: usize| 1024 + 80 * count as u64;
    vec![
        follower("branch", json!({"branch": "main"}), 1024),
        follower("tag", json!({"tag": "v1.0.0"}), 1024),
        follower("name", json!({"name": "refs/pull/1/head"}), 1024),
        follower("semver-part", json!({"semver": "*", "semverPattern": "part-(.*)"}), tags(PARTS)),
        follower("semver-all", json!({"semver": "*", "semverPattern": "v(.*)"}), tags(VERSIONS)),
    ]
}

/// One thing that was counted, and what it may be at most.
fn row(what: &str, requests: &[GitRequest], most: (usize, u64)) -> Value {
    let (count, bytes) = (requests.len(), bytes_of(requests));
    json!({
        "what": what,
        "requests": count, "at_most_requests": most.0,
        "bytes": bytes, "at_most_bytes": most.1,
        "holds": count <= most.0 && bytes <= most.1,
    })
}

fn bytes_of(requests: &[GitRequest]) -> u64 {
    requests.iter().map(|request| request.sent + request.received).sum()
}

async fn measured(args: &BenchArgs, plumb: &Path) -> Result<Value, TaskError> {
    let many = args.objects.first().copied().unwrap_or(MANY);
    let mut stage = Stage::new(Options { nodes: 0, controllers: false }, &[REPOSITORY]).await?;
    fill(stage.repo.dir())?;
    stage.start(plumb);
    let who = &Who {
        kind: REPOSITORY,
        annotation: "reconcile.plumb.dev/requestedAt",
        revision: |object| object["status"]["revision"].as_str(),
        process: stage.process(),
    };
    let mut rows = Vec::new();
    for Follower { name, reference, .. } in followers() {
        stage.git.forget();
        let (begun, cpu) = (Instant::now(), cpu_of(who.process));
        follow(&stage, who, name, name, &reference, "1h").await?;
        wait(&stage, who, name, |object| is_true(object, "Ready")).await?;
        let mut row = row(&format!("first fetch, {name}"), &asked(&stage, name), (3, 8 << 20));
        row["milliseconds"] = json!(begun.elapsed().as_millis());
        row["cpu_milliseconds"] = json!(cpu_of(who.process).saturating_sub(cpu).as_millis());
        rows.push(row);
    }
    for Follower { name, requests, bytes, .. } in followers() {
        stage.git.forget();
        look(&stage, who, name, "without news").await?;
        rows.push(row(&format!("poll, {name}"), &asked(&stage, name), (requests, bytes)));
    }

    let change = |number: usize| format!("kind: ConfigMap\nnumber: {number}\n");
    let push = async |amend: bool, number: usize| {
        let text = change(number);
        let changes = [("dir00/file00000.yaml", Some(&*text))];
        let commit = if amend {
            stage.repo.amend(&changes, "amended")
        } else {
            stage.repo.commit(&changes, "one file")
        };
        stage.git.forget();
        look(&stage, who, "branch", &commit).await?;
        wait(&stage, who, "branch", |object| is_at(who, object, &commit)).await?;
        Ok::<_, TaskError>(asked(&stage, "branch"))
    };
    let requests = push(false, 1).await?;
    rows.push(row("commit of one file", &requests, (2, 2048)));
    let requests = push(true, 2).await?;
    rows.push(row("amended history", &requests, (2, 2048)));

    let mut taken = Vec::with_capacity(FETCHES);
    for number in 0..FETCHES {
        let begun = Instant::now();
        push(false, 3 + number).await?;
        taken.push(begun.elapsed().as_millis());
    }
    taken.sort_unstable();
    let (median, slow) = (taken[FETCHES / 2], taken[FETCHES * 99 / 100]);
    rows.push(json!({
        "what": "from push and call to the status", "times": FETCHES,
        "median_milliseconds": median, "of_a_hundred_the_slowest": slow,
        "at_most": PUSH.as_millis(), "holds": slow <= PUSH.as_millis(),
    }));
    let head = stage.repo.head();
    let after = mirror_of(stage.cache(), &head)?;
    follow(&stage, who, "fresh", "fresh", &json!({"branch": "main"}), "1h").await?;
    wait(&stage, who, "fresh", |object| is_at(who, object, &head)).await?;
    let fresh = mirrors_of(stage.cache(), &head)?.into_iter().find(|mirror| *mirror != after);
    let fresh = fresh.ok_or_else(|| missing("a second mirror has the commit", &head))?;
    let mut failed = (None, None);
    let walks = measure(
        args.pairs.unwrap_or(WALKS),
        Variant {
            name: "after 1,000 fetches",
            run: &mut || failed.0 = walk(&after, &head).err().or(failed.0.take()),
        },
        Variant {
            name: "after one",
            run: &mut || failed.1 = walk(&fresh, &head).err().or(failed.1.take()),
        },
    );
    if let Some(error) = failed.0.or(failed.1) {
        return Err(error);
    }

    for number in 0..many {
        let name = format!("many-{number}");
        follow(&stage, who, &name, "many", &of_many(number), &format!("{}s", INTERVAL.as_secs()))
            .await?;
    }
    follow(&stage, who, "single", "single", &of_many(0), &format!("{}s", INTERVAL.as_secs()))
        .await?;
    for number in 0..many {
        wait(&stage, who, &format!("many-{number}"), |object| is_true(object, "Ready")).await?;
    }
    wait(&stage, who, "single", |object| is_true(object, "Ready")).await?;
    // The first looks are over, and those that were due meanwhile.
    tokio::time::sleep(2 * INTERVAL).await;
    stage.git.forget();
    let cpu = cpu_of(who.process);
    tokio::time::sleep(COUNTED).await;
    let [all, one] = ["many", "single"].map(|url| asked(&stage, url));
    let cpu = cpu_of(who.process).saturating_sub(cpu);
    let minutes = COUNTED.as_secs_f64() / 60.0;
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let a_minute = |requests: &[GitRequest]| requests.len() as f64 / minutes;
    let in_a_minute = |requests: &[GitRequest]| bytes_of(requests) * 60 / COUNTED.as_secs();
    let bytes = (in_a_minute(&all), in_a_minute(&one));
    let ratio = a_minute(&all) / a_minute(&one).max(1e-9);
    let sharing = json!({
        "what": "GitRepositories of one URL", "objects": many,
        "requests_a_minute": a_minute(&all), "requests_a_minute_of_one": a_minute(&one),
        "ratio": ratio, "at_most": 1.25, "holds": ratio <= 1.25,
        "bytes_a_minute": bytes.0, "bytes_a_minute_of_one": bytes.1,
        "cpu_milliseconds_a_minute": cpu.as_secs_f64() * 1000.0 / minutes,
    });
    let median = walks["ratio"]["spread"]["median"].as_f64().unwrap_or(f64::MAX);
    let walking = json!({
        "what": "walk", "objects": FILES, "at_most": 1.5, "holds": median <= 1.5,
        "packs": [packs(&after), packs(&fresh)],
        "figures": walks,
    });
    for name in (0..many).map(|number| format!("many-{number}")).chain(["single".to_owned()]) {
        stage.hand.delete(who.kind, NAMESPACE, &name).await.map_err(refused)?;
    }
    let beside = if args.alone {
        Vec::new()
    } else {
        peer::beside(&stage, who, args.pairs.unwrap_or(ROUNDS)).await?
    };
    let holds = |rows: &[Value]| rows.iter().all(|row| row["holds"] == true);
    let ends = [walking, sharing];
    Ok(json!({
        "agree": holds(&rows) && holds(&ends) && holds(&beside),
        "measured": rows.into_iter().chain(ends).chain(beside).collect::<Vec<_>>(),
    }))
}

/// What one of many follows: several references, with versions.
fn of_many(number: usize) -> Value {
    match number % 4 {
        0 => json!({"branch": "main"}),
        1 => json!({"tag": "v1.0.0"}),
        2 => json!({"name": format!("refs/pull/{}/head", 1 + number % 50)}),
        _ => json!({"semver": "*", "semverPattern": "part-(.*)"}),
    }
}

/// The repository: one commit of all files, then commits of one file each, and references to the last.
fn fill(repo: &Path) -> Result<(), TaskError> {
    let mut child = Command::new("git")
        .args(["fast-import", "--quiet", "--force", "--done"])
        .current_dir(repo)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| missing("git runs", &error.to_string()))?;
    let mut text = String::new();
    let file = |number: usize, round: usize| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map-{number}}}\ndata:\n  \
             value: \"{:032x}-{round}\"\n",
            (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834),
        )
    };
    let commit = |text: &mut String, number: usize| {
        let time = 1_704_067_200 + number;
        let _infallible = write!(
            text,
            "commit refs/heads/main\nmark :{number}\ncommitter Bench <bench@example.com> {time} \
             +0000\ndata 5\nbench\n",
        );
        if number > 1 {
            let _infallible = writeln!(text, "from :{}", number - 1);
        }
    };
    let put = |text: &mut String, number: usize, round: usize| {
        let content = file(number, round);
        let (dir, length) = (number % 100, content.len());
        let path = format!("dir{dir:02}/file{number:05}.yaml");
        let _infallible = writeln!(text, "M 100644 inline {path}\ndata {length}\n{content}");
    };
    commit(&mut text, 1);
    for number in 0..FILES {
        put(&mut text, number, 0);
    }
    for number in 2..=COMMITS {
        commit(&mut text, number);
        put(&mut text, number % FILES, number);
    }
    let mut names: Vec<String> = (0..BRANCHES).map(|n| format!("heads/branch-{n}")).collect();
    names.extend((0..VERSIONS).map(|n| format!("tags/v1.{n}.0")));
    names.extend((0..PARTS).map(|n| format!("tags/part-1.{n}.0")));
    names.extend((1..=PULLS).map(|n| format!("pull/{n}/head")));
    for (number, name) in names.iter().enumerate() {
        let _infallible = writeln!(text, "reset refs/{name}\nfrom :{}\n", COMMITS - number % 1000);
    }
    text.push_str("done\n");
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(text.as_bytes())
            .map_err(|error| missing("git reads", &error.to_string()))?;
    }
    let status = child.wait().map_err(|error| missing("git ends", &error.to_string()))?;
    if !status.success() {
        return Err(missing("git imports the repository", &status.to_string()));
    }
    git(repo, &["pack-refs", "--all"])
}

fn git(dir: &Path, args: &[&str]) -> Result<(), TaskError> {
    let output = Command::new("git").args(args).current_dir(dir).stdout(Stdio::null()).status();
    match output {
        Ok(status) if status.success() => Ok(()),
        other => Err(missing(&format!("git {args:?} works"), &format!("{other:?}"))),
    }
}

fn missing(what: &str, found: &str) -> TaskError {
    TaskError::Evidence { what: what.to_owned(), found: found.to_owned() }
}

/// A GitRepository of a URL that is made up for it if there is none.
async fn follow(
    stage: &Stage,
    who: &Who,
    name: &str,
    url: &str,
    reference: &Value,
    interval: &str,
) -> Result<(), TaskError> {
    let root = stage.repo.dir().parent().unwrap_or(Path::new("/"));
    let link = root.join(format!("{url}.git"));
    if !link.exists() {
        symlink(stage.repo.dir(), &link)
            .map_err(|error| missing("a link can be made", &error.to_string()))?;
    }
    let object = json!({
        "apiVersion": who.kind.api_version, "kind": who.kind.name,
        "metadata": { "name": name },
        "spec": { "url": stage.git.url(url), "ref": reference, "interval": interval },
    });
    stage.hand.create(who.kind, NAMESPACE, &object).await.map_err(refused)?;
    Ok(())
}

/// Asks for a look and waits until it is over.
async fn look(stage: &Stage, who: &Who, name: &str, value: &str) -> Result<(), TaskError> {
    let patch = json!({ "metadata": { "annotations": { (who.annotation): value } } });
    stage.hand.merge(who.kind, NAMESPACE, name, &patch).await.map_err(refused)?;
    wait(stage, who, name, |object| object["status"]["lastHandledReconcileAt"] == value).await
}

async fn wait(
    stage: &Stage,
    who: &Who,
    name: &str,
    holds: impl Fn(&Value) -> bool,
) -> Result<(), TaskError> {
    let begun = Instant::now();
    loop {
        let object = stage.hand.get(who.kind, NAMESPACE, name).await.map_err(refused)?;
        if object.as_ref().is_some_and(&holds) {
            return Ok(());
        }
        if begun.elapsed() > LIMIT {
            return Err(missing(&format!("{name} is as wanted"), &format!("{object:?}")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_at(who: &Who, object: &Value, commit: &str) -> bool {
    (who.revision)(object).is_some_and(|revision| revision.ends_with(commit))
}

/// What was asked of one URL.
fn asked(stage: &Stage, url: &str) -> Vec<GitRequest> {
    let path = format!("/{url}.git/");
    stage.git.requests().into_iter().filter(|request| request.path.starts_with(&path)).collect()
}

/// The mirrors that have a commit.
fn mirrors_of(cache: &Path, commit: &str) -> Result<Vec<PathBuf>, TaskError> {
    let entries = fs::read_dir(cache.join("mirrors"))
        .map_err(|error| missing("there are mirrors", &error.to_string()))?;
    let mirrors = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(mirrors.filter(|mirror| git(mirror, &["cat-file", "-e", commit]).is_ok()).collect())
}

fn mirror_of(cache: &Path, commit: &str) -> Result<PathBuf, TaskError> {
    mirrors_of(cache, commit)?.pop().ok_or_else(|| missing("a mirror has the commit", commit))
}

/// Reads every tree of a commit, and looks every file up.
fn walk(mirror: &Path, commit: &str) -> Result<(), TaskError> {
    git(mirror, &["ls-tree", "-r", "-t", "-l", commit])
}

fn packs(mirror: &Path) -> usize {
    let entries = fs::read_dir(mirror.join("objects/pack")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "pack")).count()
}

/// The figures for people.
pub(super) fn table(result: &Value) -> String {
    let mut table =
        String::from("what                                 requests        bytes  holds\n");
    for row in result["measured"].as_array().into_iter().flatten() {
        let text = |field: &str| match &row[field] {
            Value::Null => String::new(),
            value => value.to_string(),
        };
        let _infallible = match row["bytes"].as_u64() {
            _ if row["median_milliseconds"].is_number() => writeln!(
                table,
                "{:36} median {} ms, 99 of 100 within {} of at most {} ms: {}",
                row["what"].as_str().unwrap_or_default(),
                text("median_milliseconds"),
                text("of_a_hundred_the_slowest"),
                text("at_most"),
                text("holds"),
            ),
            Some(_) => writeln!(
                table,
                "{:36} {:>3} (of {:>2}) {:>8} of {:<8} {:5} {} ms",
                row["what"].as_str().unwrap_or_default(),
                text("requests"),
                text("at_most_requests"),
                text("bytes"),
                text("at_most_bytes"),
                text("holds"),
                text("milliseconds"),
            ),
            None => writeln!(
                table,
                "{:36} ratio {} of at most {}: {}",
                row["what"].as_str().unwrap_or_default(),
                match &row["ratio"] {
                    Value::Null => row["figures"]["ratio"]["spread"]["median"].to_string(),
                    ratio => ratio.to_string(),
                },
                text("at_most"),
                text("holds"),
            ),
        };
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_as_large_as_it_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "."]).unwrap();
        fill(dir.path()).unwrap();
        let count = |args: &[&str]| {
            let output = Command::new("git").args(args).current_dir(dir.path()).output().unwrap();
            assert!(output.status.success(), "{args:?}");
            output.stdout.split(|byte| *byte == b'\n').count() - 1
        };
        assert_eq!(count(&["ls-tree", "-r", "main"]), FILES);
        assert_eq!(count(&["rev-list", "main"]), COMMITS);
        // With main itself.
        assert_eq!(count(&["for-each-ref"]), 10_001);
    }

    #[test]
    fn the_table_tells_counts_and_ratios() {
        let counted = row("poll, branch", &[], (2, 1024));
        let walked = json!({
            "what": "walk", "at_most": 1.5, "holds": true,
            "figures": { "ratio": { "spread": { "median": 1.02 } } },
        });
        let table = table(&json!({ "measured": [counted, walked] }));
        assert!(table.contains("poll, branch") && table.contains("0 of 1024"), "{table}");
        assert!(table.contains("ratio 1.02 of at most 1.5: true"), "{table}");
    }
}
