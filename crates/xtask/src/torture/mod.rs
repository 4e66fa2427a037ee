//! `cargo xtask torture`: random commits, hands of others and faults on both sides, against a real
//! control plane, and after each round a comparison of the cluster with Git.
//!
//! Nothing here knows the code under test. The model says what every commit asks for, the checker
//! compares that with what is live once all is quiet, and the audit reads what the API server was
//! asked in between. Everything is drawn from the seed. Rounds come in chapters, each in a world of
//! its own, so that a chapter can be done again without those before it.

mod audit;
mod broken;
mod checker;
mod faults;
mod hands;
mod kinds;
mod model;
mod moves;
mod script;
mod stand;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use fastrand::Rng;
use plumb_testkit::Tools;
use serde_json::{Value, json};

use self::broken::{Broken, Finder};
use self::checker::Rested;
use self::model::Model;
use self::script::Step;
use self::stand::{Stand, Violations};
use crate::error::TaskError;
use crate::process::{cargo, root, run as run_command};

/// The rounds of a chapter.
const CHAPTER: u32 = 20;
/// Every so many rounds nothing goes wrong but what people do.
const CALM: u32 = 4;
/// How much of what is wrong is told.
const TOLD: usize = 20;

#[derive(Debug, Args)]
pub(crate) struct TortureArgs {
    /// What everything is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The last round
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// The first round, or one of its chapter
    #[arg(long, default_value_t = 1, conflicts_with = "resume")]
    from: u32,
    /// How many Applications
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    apps: u16,
    /// Go on after the last chapter that was done, as target/torture notes it
    #[arg(long)]
    resume: bool,
    /// Make a mistake on purpose, which must be found
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "resume")]
    broken: Option<Broken>,
}

impl TortureArgs {
    /// A short run: less of everything.
    pub(crate) fn for_ci() -> Self {
        Self { seed: 1, rounds: 6, from: 1, apps: 12, resume: false, broken: None }
    }
}

pub(crate) async fn run(args: &TortureArgs) -> Result<(), TaskError> {
    if let Some(broken) = args.broken {
        return find(args, &broken.name()).await;
    }
    run_command(cargo(&["build", "--package", "plumb", "--bin", "plumb"])).await?;
    let ours = std::env::current_exe().map_err(at(Path::new("/proc/self/exe")))?;
    torture(args, &ours.with_file_name("plumb"), None).await
}

/// Whether a mistake is found by everything that is said to find it.
async fn find(args: &TortureArgs, name: &str) -> Result<(), TaskError> {
    for finder in broken::finders(name)? {
        let begun = Instant::now();
        let found = match &finder {
            Finder::Test { of_engine, name: test } => {
                broken::is_found_by_test(*of_engine, test, name).await?
            }
            Finder::TortureRun => {
                let binary = broken::build().await?;
                match torture(args, &binary, Some(name)).await {
                    Err(TaskError::Violation { .. }) => true,
                    done => done.map(|()| false)?,
                }
            }
        };
        if !found {
            let what = format!("{name} is found by {finder}");
            return Err(TaskError::Evidence { what, found: "all is well".into() });
        }
        println!("{name} is found by {finder}, in {} s", begun.elapsed().as_secs());
    }
    Ok(())
}

async fn torture(args: &TortureArgs, binary: &Path, broken: Option<&str>) -> Result<(), TaskError> {
    tokio::task::spawn_blocking(Tools::ready)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        .map_err(TaskError::Tools)?;
    let state = State::of(args);
    let done =
        if args.resume { state.read()? } else { args.from.saturating_sub(1) / CHAPTER * CHAPTER };
    let begun = Instant::now();
    let mut next = done;
    while next < args.rounds {
        let last = (next + CHAPTER).min(args.rounds);
        Chapter { args, first: next + 1, last }.run(binary, broken).await?;
        next = last;
        if next.is_multiple_of(CHAPTER) && broken.is_none() {
            state.write(next)?;
        }
    }
    let rounds = args.rounds.saturating_sub(done);
    println!(
        "seed {}: {rounds} rounds without a violation, in {} s",
        args.seed,
        begun.elapsed().as_secs()
    );
    Ok(())
}

/// Where it is noted how far a seed has come.
struct State {
    path: PathBuf,
}

impl State {
    fn of(args: &TortureArgs) -> Self {
        Self { path: directory().join(format!("seed-{}-apps-{}.json", args.seed, args.apps)) }
    }

    /// The rounds that are done; none when nothing is noted.
    fn read(&self) -> Result<u32, TaskError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(at(&self.path)(error)),
        };
        let value: Value = serde_json::from_str(&text)
            .map_err(|source| TaskError::Json { what: "the state of a torture", source })?;
        let done = value["done"].as_u64().and_then(|done| u32::try_from(done).ok());
        Ok(done.unwrap_or(0) / CHAPTER * CHAPTER)
    }

    fn write(&self, done: u32) -> Result<(), TaskError> {
        write(&self.path, &json!({ "done": done }).to_string())
    }
}

fn directory() -> PathBuf {
    root().join("target/torture")
}

fn write(path: &Path, text: &str) -> Result<(), TaskError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    fs::write(path, text).map_err(at(path))
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> TaskError {
    move |source| TaskError::File { path: path.to_owned(), source }
}

/// Some rounds in one world.
struct Chapter<'a> {
    args: &'a TortureArgs,
    first: u32,
    last: u32,
}

impl Chapter<'_> {
    async fn run(&self, binary: &Path, broken: Option<&str>) -> Result<(), TaskError> {
        let begun = Instant::now();
        let seed = self.args.seed.wrapping_mul(1_000_003).wrapping_add(self.first.into());
        let mut random = Rng::with_seed(seed);
        let mut model = Model::new(self.args.apps.into());
        let pushes = moves::first(&mut model, &mut random);
        let mut stand = Stand::new(model, binary, broken, seed).await?;
        let first = stand.begin(pushes).await;
        let result = first.and_then(|rested| stand.audit(&rested, false).map(|()| rested));
        self.tell(self.first - 1, &stand, &[], begun, &result)?;

        for round in self.first..=self.last {
            let begun = Instant::now();
            let calm = round.is_multiple_of(CALM);
            let steps = script::draw(&mut stand.model, &mut random, calm);
            let mut told = Vec::new();
            let result = self.round(&mut stand, (&steps, calm), begun, &mut told).await;
            self.tell(round, &stand, &told, begun, &result)?;
        }
        let ended = stand.end().map(|()| Rested::default());
        if ended.is_err() {
            self.tell(self.last, &stand, &["SIGTERM at the end".into()], begun, &ended)?;
        }
        Ok(())
    }

    async fn round(
        &self,
        stand: &mut Stand,
        (steps, calm): (&[Step], bool),
        begun: Instant,
        told: &mut Vec<String>,
    ) -> Result<Rested, Violations> {
        for step in steps {
            if !stand.is_about_something(step) {
                continue;
            }
            told.push(format!("{:6.2} s  {step}", begun.elapsed().as_secs_f32()));
            stand.step(step).await?;
        }
        told.push(format!("{:6.2} s  quiet", begun.elapsed().as_secs_f32()));
        let rested = stand.rest().await?;
        stand.audit(&rested, calm)?;
        Ok(rested)
    }

    /// One line for a round that was well; all that is known of one that was not.
    fn tell(
        &self,
        round: u32,
        stand: &Stand,
        steps: &[String],
        begun: Instant,
        result: &Result<Rested, Violations>,
    ) -> Result<(), TaskError> {
        let (seed, apps) = (self.args.seed, self.args.apps);
        let wrong = match result {
            Ok(rested) => {
                println!(
                    "seed {seed}, round {round}: {} steps; {} objects are as Git asks, {} plans held, \
                     {} applications unsound, {} blocked; {:.1} s",
                    steps.len(),
                    rested.objects,
                    rested.held.len(),
                    rested.unsound,
                    rested.blocked,
                    begun.elapsed().as_secs_f32()
                );
                return Ok(());
            }
            Err(wrong) => wrong,
        };
        let dir = directory().join(format!("seed-{seed}-round-{round}"));
        write(&dir.join("steps.txt"), &(steps.join("\n") + "\n"))?;
        write(&dir.join("agent.log"), &stand.round_log())?;
        write(&dir.join("requests.txt"), &stand.round_requests())?;
        write(&dir.join("wrong.txt"), &(wrong.join("\n") + "\n"))?;
        println!("\nseed {seed}, round {round}: what happened last:");
        for step in &steps[steps.len().saturating_sub(2 * TOLD)..] {
            println!("  {step}");
        }
        println!("what is wrong:");
        for what in wrong.iter().take(TOLD) {
            println!("  {what}");
        }
        if wrong.len() > TOLD {
            println!("  and {} more", wrong.len() - TOLD);
        }
        println!("the log, the requests and all of this: {}", dir.display());
        println!(
            "again: cargo xtask torture --seed {seed} --apps {apps} --from {} --rounds {}{}",
            self.first,
            round.max(self.first),
            self.args
                .broken
                .map(|broken| format!(" --broken {}", broken.name()))
                .unwrap_or_default()
        );
        Err(TaskError::Violation { seed, round, count: wrong.len() })
    }
}
