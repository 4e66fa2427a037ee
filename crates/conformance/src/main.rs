//! Puts a GitOps agent to the 25 duties that follow from the OpenGitOps principles, on a real cluster with
//! a real Git server, and reports which of them it does.
//!
//! Nothing but Git, the Kubernetes API and the agent's own objects is looked at, and no scenario knows an
//! agent: what has to be known of one is data, in an adapter.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to a terminal")]

mod adapter;
mod cluster;
mod duties;
mod duty;
mod error;
mod report;
mod scene;
mod sockets;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::adapter::{Adapter, Values};
use crate::duty::{DUTIES, Duty};
use crate::error::SuiteError;
use crate::report::{Finding, Report, Verdict, finding};
use crate::scene::{SLACK, Scene, Stop};
use crate::stage::Stage;

/// The OpenGitOps principles as 25 duties of an agent, each with a scenario.
#[derive(Debug, Parser)]
#[command(name = "gitops-conformance", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name all duties, and how each is observed.
    List,
    /// Put an agent to them.
    Run(RunArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// What has to be known of the agent.
    #[arg(long)]
    adapter: PathBuf,
    /// Only these duties, as in P4.1; several are given one by one or with commas.
    #[arg(long, value_delimiter = ',')]
    duty: Vec<String>,
    /// What chooses moments and faults; a run with the same seed makes the same choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the adapter names and does not know: NAME=VALUE.
    #[arg(long, value_parser = pair)]
    set: Vec<(String, String)>,
    /// The cluster, as its administrator sees it; KUBECONFIG when left out.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Write the report as JSON here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report as a page here.
    #[arg(long)]
    html: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// All duties hold, or cannot be tested for a reason.
const ALL_HOLD: u8 = 0;
/// One does not.
const NOT_ALL: u8 = 1;
/// The suite could not do its work.
const BROKEN: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::List => {
            for duty in DUTIES {
                println!("{:6} {}\n       {}", duty.id, duty.text, duty.how);
            }
            return ExitCode::from(ALL_HOLD);
        }
        Command::Run(args) => run(&args).await,
    };
    match outcome {
        Ok(report) => {
            print!("{}", report.table());
            let fails = report.findings.iter().any(|one| one.verdict == Verdict::Fails);
            ExitCode::from(if fails { NOT_ALL } else { ALL_HOLD })
        }
        Err(error) => {
            eprintln!("gitops-conformance: {error}");
            ExitCode::from(BROKEN)
        }
    }
}

async fn run(args: &RunArgs) -> Result<Report, SuiteError> {
    let adapter = Adapter::read(&args.adapter)?;
    let chosen = chosen(&args.duty)?;
    let values: Values = args.set.iter().cloned().collect();
    eprintln!("gitops-conformance: {}, seed {}", adapter.name, args.seed);
    let stage = Stage::new(adapter, args.kubeconfig.as_deref(), values, args.seed).await?;
    stage.agent().await.start()?;
    let mut findings = Vec::new();
    // Those that disturb nobody at once, the others one after the other.
    let (alone, together): (Vec<&Duty>, Vec<&Duty>) =
        chosen.into_iter().partition(|duty| duty.alone);
    let playing = together.iter().map(|duty| play(&stage, duty));
    for found in futures::future::join_all(playing).await {
        findings.push(found?);
    }
    for duty in alone {
        findings.push(play(&stage, duty).await?);
    }
    stage.agent().await.stop();
    let place = |finding: &Finding| DUTIES.iter().position(|duty| duty.id == finding.duty);
    findings.sort_by_key(place);
    let report = Report {
        agent: stage.adapter.name.clone(),
        about: stage.adapter.about.clone(),
        seed: args.seed,
        interval_seconds: stage.adapter.interval,
        slack_seconds: SLACK.as_secs(),
        findings,
    };
    for (path, text) in [(&args.json, report.json()), (&args.html, report.html())] {
        if let Some(path) = path {
            std::fs::write(path, text)
                .map_err(|source| SuiteError::File { path: path.clone(), source })?;
        }
    }
    Ok(report)
}

fn chosen(ids: &[String]) -> Result<Vec<&'static Duty>, SuiteError> {
    const ALL: &[Duty] = &DUTIES;
    if ids.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let find = |id: &String| {
        let known = ALL.iter().find(|duty| duty.id.eq_ignore_ascii_case(id));
        known.ok_or_else(|| SuiteError::NoDuty { id: id.clone() })
    };
    ids.iter().map(find).collect()
}

/// Plays one scenario, and says what it came to.
async fn play(stage: &Stage, duty: &Duty) -> Result<Finding, SuiteError> {
    let scene = Scene::new(stage, duty.id, stage.seed).await?;
    let untestable = stage.adapter.untestable.get(duty.id).cloned();
    let played = match untestable {
        Some(reason) => Err(Stop::Untestable(reason)),
        None => (duty.play)(&scene).await,
    };
    if let Some(ended) = stage.agent().await.has_ended() {
        scene.note(ended);
    }
    let (verdict, reason) = match played {
        Ok(()) => (Verdict::Holds, None),
        Err(Stop::Untestable(reason)) => (Verdict::NotTestable, Some(reason)),
        Err(Stop::Suite(error)) => return Err(error),
        Err(Stop::Fails(reason)) => {
            for line in stage.logs(&scene.ns) {
                scene.note(line);
            }
            (Verdict::Fails, Some(reason))
        }
    };
    eprintln!("{:6} {}", duty.id, verdict.word());
    let what = (scene.seconds(), scene.evidence());
    finding(duty.id, verdict, reason, what)
        .ok_or_else(|| SuiteError::NoDuty { id: duty.id.to_owned() })
}
