//! The same beside Flux's source-controller, on the same control plane, Git server and repository.

use std::time::{Duration, Instant};

use plumb_testkit::process::{Launch, Output, Process};
use plumb_testkit::{Kind, Scratch, Tool};
use serde_json::{Value, json};

use super::{Who, asked, bytes_of, follow, is_at, look, missing, wait};
use crate::bench::cluster::ground::{free, in_module};
use crate::bench::pairs::{spread, summary};
use crate::bench::stage::{Stage, cpu_of, is_true};
use crate::error::TaskError;
use crate::process::kubectl;

const REPOSITORY: Kind = Kind {
    api_version: "source.toolkit.fluxcd.io/v1",
    name: "GitRepository",
    plural: "gitrepositories",
};
/// The module that pins it, and its definitions in that.
const MODULE: &str = "github.com/fluxcd/source-controller";
const DEFINITIONS: &str = "config/crd/bases";
/// How often each looks without news in one round, so that there is something to measure.
const POLLS: usize = 20;

/// What one of them took for one thing.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    time: Duration,
    cpu: Duration,
    bytes: u64,
}

/// A source-controller with its folder.
pub(super) struct Flux {
    process: Process,
    scratch: Scratch,
}

impl Flux {
    /// Builds it if need be, and starts it.
    pub(super) async fn start(stage: &Stage) -> Result<Self, TaskError> {
        let build = tokio::task::spawn_blocking(|| Tool::SourceController.peer()).await;
        let binary = build
            .map_err(|error| missing("source-controller is built", &error.to_string()))?
            .map_err(TaskError::Tools)?;
        let definitions = in_module(&Tool::SourceController.module_dir(), MODULE, DEFINITIONS)?;
        let definitions = definitions.display().to_string();
        kubectl(&stage.plane, &["apply", "--server-side", "-f", &definitions])?;
        let established = ["wait", "--for=condition=Established", "--timeout=60s", "-f"];
        kubectl(&stage.plane, &[&established[..], &[definitions.as_str()]].concat())?;
        let scratch = Scratch::new("flux");
        let storage = scratch.path().join("storage");
        std::fs::create_dir_all(&storage)
            .map_err(|error| missing("a folder can be made", &error.to_string()))?;
        let storage_addr = free()?;
        let launch = Launch::new(&binary)
            .env("KUBECONFIG", stage.kubeconfig())
            .env("RUNTIME_NAMESPACE", "flux-system")
            .env("HOME", scratch.path())
            .env("TMPDIR", scratch.path())
            .env("NO_PROXY", "127.0.0.1,localhost")
            .arg("--watch-all-namespaces")
            .arg("--concurrent=8")
            .arg("--log-level=error")
            .arg(format!("--metrics-addr={}", free()?))
            .arg(format!("--health-addr={}", free()?))
            .arg(format!("--storage-path={}", storage.display()))
            .arg(format!("--storage-addr={storage_addr}"))
            .arg(format!("--storage-adv-addr={storage_addr}"));
        let log = scratch.path().join("flux.log");
        let process = Process::spawn("source-controller", &launch, Output::File(log));
        Ok(Self { process, scratch })
    }

    fn who(&self) -> Who {
        Who {
            kind: REPOSITORY,
            annotation: "reconcile.fluxcd.io/requestedAt",
            revision: |object| object["status"]["artifact"]["revision"].as_str(),
            process: self.process.id(),
        }
    }

    /// What went wrong, with what it said last.
    fn failed(&mut self, error: &TaskError) -> TaskError {
        let log = std::fs::read_to_string(self.scratch.path().join("flux.log"));
        let log = log.unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(10).collect();
        let found = format!("{error}; source-controller ({:?}): {last:#?}", self.process.ended());
        missing("both do what they are asked", &found)
    }
}

/// First fetches, commits of one file and looks without news, by turns.
pub(super) async fn beside(
    stage: &Stage,
    plumb: &Who,
    rounds: usize,
) -> Result<Vec<Value>, TaskError> {
    let mut flux = Flux::start(stage).await?;
    let who = flux.who();
    let measured = rounds_of(stage, [plumb, &who], rounds.max(1)).await;
    measured.map_err(|error| flux.failed(&error))
}

async fn rounds_of(stage: &Stage, both: [&Who; 2], rounds: usize) -> Result<Vec<Value>, TaskError> {
    let names = ["plumb", "flux"];
    let [mut first, mut commits, mut polls] = [Vec::new(), Vec::new(), Vec::new()];
    // The first round warms both up.
    for round in 0..=rounds {
        let mut costs = [[Cost::default(); 3]; 2];
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let (who, url) = (both[at], format!("{}-{round}", names[at]));
            let main = json!({"branch": "main"});
            let head = stage.repo.head();
            costs[at][0] = cost(stage, who, &url, async || {
                follow(stage, who, &url, &url, &main, "1h").await?;
                wait(stage, who, &url, |object| {
                    is_at(who, object, &head) && is_true(object, "Ready")
                })
                .await
            })
            .await?;
            let text = format!("kind: ConfigMap\nname: {url}\n");
            let commit = stage.repo.commit(&[("dir01/file00001.yaml", Some(&text))], "one file");
            costs[at][1] = cost(stage, who, &url, async || {
                look(stage, who, &url, &commit).await?;
                wait(stage, who, &url, |object| is_at(who, object, &commit)).await
            })
            .await?;
            costs[at][2] = cost(stage, who, &url, async || {
                for number in 0..POLLS {
                    look(stage, who, &url, &format!("without news {number}")).await?;
                }
                Ok(())
            })
            .await?;
        }
        if round > 0 {
            first.push([costs[0][0], costs[1][0]]);
            commits.push([costs[0][1], costs[1][1]]);
            polls.push([costs[0][2], costs[1][2]]);
        }
    }
    Ok(vec![
        told("first fetch, beside Flux", 1, &first),
        told("commit of one file, beside Flux", 1, &commits),
        told("poll, beside Flux", POLLS, &polls),
    ])
}

/// What something took of time, processor and network.
async fn cost(
    stage: &Stage,
    who: &Who,
    url: &str,
    work: impl AsyncFnOnce() -> Result<(), TaskError>,
) -> Result<Cost, TaskError> {
    stage.git.forget();
    let (begun, cpu) = (Instant::now(), cpu_of(who.process));
    work().await?;
    let time = begun.elapsed();
    // What it still does after it has told of it counts, too.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let cpu = cpu_of(who.process).saturating_sub(cpu);
    Ok(Cost { time, cpu, bytes: bytes_of(&asked(stage, url)) })
}

fn told(what: &str, times: usize, pairs: &[[Cost; 2]]) -> Value {
    let names = ["plumb", "flux"];
    let of = |part: fn(&Cost) -> Duration| -> Vec<[Duration; 2]> {
        pairs.iter().map(|[plumb, flux]| [part(plumb), part(flux)]).collect()
    };
    let (time, cpu) = (summary(names, &of(|cost| cost.time)), summary(names, &of(|cost| cost.cpu)));
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    let bytes = |at: usize| spread(pairs.iter().map(|pair| pair[at].bytes as f64).collect());
    let ahead = |summary: &Value| {
        summary["ratio"]["spread"]["median"].as_f64().is_some_and(|ratio| ratio < 1.0)
    };
    let fewer = bytes(0)["median"].as_f64() < bytes(1)["median"].as_f64();
    json!({
        "what": what, "times": times,
        "figures": time, "cpu": cpu,
        "bytes_of": { "plumb": bytes(0), "flux": bytes(1) },
        "at_most": 1, "holds": ahead(&time) && ahead(&cpu) && fewer,
        "ahead": { "time": ahead(&time), "cpu": ahead(&cpu), "bytes": fewer },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ahead_is_said_of_each_figure() {
        let cost = |millis, cpu, bytes| Cost {
            time: Duration::from_millis(millis),
            cpu: Duration::from_millis(cpu),
            bytes,
        };
        let told = told("poll", 20, &[[cost(10, 10, 200), cost(20, 5, 900)]]);
        assert_eq!(told["ahead"], json!({"time": true, "cpu": false, "bytes": true}));
        assert_eq!(told["holds"], false);
    }
}
