//! `cargo xtask torture`: random commits, hands of others and faults on both sides, against a real
//! control plane, and after each round a comparison of the cluster with Git.
//!
//! Nothing here knows the code under test. The model says what every commit asks for, the checker
//! compares that with what is live once all is quiet, and the audit reads what the API server was
//! asked in between. Everything is drawn from the seed. Rounds come in chapters, each in a world of
//! its own, so that a chapter can be done again without those before it.

mod audit;
pub(crate) mod broken;
mod checker;
mod faults;
mod hands;
mod kinds;
mod model;
mod moves;
mod notes;
mod script;
mod stand;
mod turns;

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use fastrand::Rng;
use plumb_testkit::{Scratch, Tools};

use self::broken::{Broken, Finder};
use self::checker::Rested;
use self::model::Model;
use self::notes::{Note, Notes, write};
use self::script::Step;
use self::stand::{Stand, Violations};
use crate::error::TaskError;
use crate::process::{cargo, run as run_command};

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
    /// All of these, one after the other
    #[arg(long, value_name = "A..=B", value_parser = seeds, conflicts_with = "seed")]
    seeds: Option<RangeInclusive<u64>>,
    /// The last round
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// The first round, or one of its chapter
    #[arg(long, default_value_t = 1, conflicts_with = "resume")]
    from: u32,
    /// How many Applications
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    apps: u16,
    /// Leave out the chapters that are noted as done
    #[arg(long)]
    resume: bool,
    /// After a violation go on with the next chapter
    #[arg(long, conflicts_with = "broken")]
    keep_going: bool,
    /// Where it is noted what was done, and what is known of violations; instead of torture in the
    /// cache of the user
    #[arg(long, value_name = "DIRECTORY")]
    notes: Option<PathBuf>,
    /// Make a mistake on purpose, which must be found
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "resume")]
    broken: Option<Broken>,
}

impl TortureArgs {
    /// A short run: less of everything.
    pub(crate) fn for_ci() -> Self {
        Self {
            seed: 1,
            seeds: None,
            rounds: 6,
            from: 1,
            apps: 12,
            resume: false,
            keep_going: false,
            notes: None,
            broken: None,
        }
    }

    fn seeds(&self) -> RangeInclusive<u64> {
        self.seeds.clone().unwrap_or(self.seed..=self.seed)
    }
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let ends = text.split_once("..=").map(|(first, last)| (first.parse(), last.parse()));
    match ends {
        Some((Ok(first), Ok(last))) if first <= last => Ok(first..=last),
        _ => Err("two numbers, such as 1..=10".into()),
    }
}

pub(crate) async fn run(args: &TortureArgs) -> Result<(), TaskError> {
    if let Some(broken) = args.broken {
        return find(args, &broken.name()).await;
    }
    let build = notes::build().await?;
    run_command(cargo(&["build", "--package", "plumb", "--bin", "plumb"])).await?;
    let ours = std::env::current_exe().map_err(at(Path::new("/proc/self/exe")))?;
    // Whatever is built from here on, all rounds are of this build.
    let aside = Scratch::new("torture-build");
    let (built, binary) = (ours.with_file_name("plumb"), aside.path().join("plumb"));
    fs::copy(&built, &binary).map_err(at(&built))?;
    torture(args, &binary, Build::Whole(&build)).await
}

/// What the rounds are played with.
#[derive(Clone, Copy)]
enum Build<'a> {
    /// Told by this.
    Whole(&'a str),
    /// With one check left out.
    Broken(&'a str),
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
                match torture(args, &binary, Build::Broken(name)).await {
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

async fn torture(args: &TortureArgs, binary: &Path, build: Build<'_>) -> Result<(), TaskError> {
    tokio::task::spawn_blocking(Tools::ready)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        .map_err(TaskError::Tools)?;
    let notes = Notes::in_dir(args.notes.as_deref())?;
    let begun = Instant::now();
    let mut done = 0;
    let mut violation = None;
    for seed in args.seeds() {
        let mut next = args.from.saturating_sub(1) / CHAPTER * CHAPTER;
        while next < args.rounds {
            let (first, last) = (next + 1, (next + CHAPTER).min(args.rounds));
            next = last;
            if args.resume && notes.has(seed, args.apps, (first, last))? {
                continue;
            }
            let chapter = Chapter { args, notes: &notes, seed, first, last };
            match (chapter.run(binary, build).await, build) {
                (Ok(()), Build::Whole(build)) => {
                    let (apps, build) = (args.apps, build.to_owned());
                    notes.write(&Note { seed, apps, first, last, build })?;
                    done += last + 1 - first;
                }
                (Ok(()), Build::Broken(_)) => {}
                (Err(found @ TaskError::Violation { .. }), _) if args.keep_going => {
                    violation.get_or_insert(found);
                }
                (Err(error), _) => return Err(error),
            }
        }
        if matches!(build, Build::Whole(_)) {
            println!("{}", notes.told(seed, args.apps)?);
        }
    }
    println!("{done} of these rounds now, in {} s", begun.elapsed().as_secs());
    violation.map_or(Ok(()), Err)
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> TaskError {
    move |source| TaskError::File { path: path.to_owned(), source }
}

/// Some rounds in one world.
struct Chapter<'a> {
    args: &'a TortureArgs,
    notes: &'a Notes,
    seed: u64,
    first: u32,
    last: u32,
}

impl Chapter<'_> {
    async fn run(&self, binary: &Path, build: Build<'_>) -> Result<(), TaskError> {
        let begun = Instant::now();
        let broken = match build {
            Build::Whole(_) => None,
            Build::Broken(name) => Some(name),
        };
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.first.into());
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
        let (seed, apps) = (self.seed, self.args.apps);
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
        let dir = self.notes.evidence(seed, round);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range() {
        assert_eq!(seeds("3..=5"), Ok(3..=5));
        for wrong in ["3", "5..=3", "a..=b", "1..5", ""] {
            assert!(seeds(wrong).is_err(), "{wrong:?}");
        }
    }
}
