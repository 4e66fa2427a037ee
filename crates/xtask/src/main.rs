//! Tasks of the project: `cargo xtask test`, `demo`, `bench`, `compare`, `conformance`, `torture`,
//! `generate`, `ci`.
//!
//! Nothing here is shipped. Each task can be run from a fresh clone: it builds what is missing,
//! says so, and ends whatever it started.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tasks talk to the terminal of a developer"
)]

mod bench;
mod ci;
mod compare;
mod conformance;
mod demo;
mod error;
mod generate;
mod process;
mod reference;
mod sealed;
mod test;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::TaskError;

/// Tasks of the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run all tests on one real control plane, built first when it is missing.
    Test(test::TestArgs),
    /// Write the files that are made: deploy/crds, and what kustomize prints for golden cases.
    Generate(generate::GenerateArgs),
    /// Check and test everything, as .ci/run does.
    Ci,
    /// Show the main job on a real control plane, step by step, with kubectl's own output.
    Demo(demo::DemoArgs),
    /// Build every kustomization of a checkout with kustomize and with ours, and compare.
    Compare(compare::CompareArgs),
    /// Measure two variants of one thing in pairs and print JSON; alone it lists what there is.
    Bench(bench::BenchArgs),
    /// Put an agent to the duties of the OpenGitOps principles, on a control plane of its own.
    Conformance(conformance::ConformanceArgs),
    /// Commits, hands of others and faults at random, on a real control plane: does the cluster
    /// end as Git asks, and was nothing done that must not be done?
    Torture(torture::TortureArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = tokio::select! {
        // A task that ends well when it is interrupted has the first word.
        biased;
        result = run(Args::parse().task) => result,
        error = process::interrupted() => Err(error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.code())
        }
    }
}

async fn run(task: Task) -> Result<(), TaskError> {
    match task {
        Task::Test(args) => test::run(&args).await,
        Task::Generate(args) => generate::run(&args).await,
        Task::Ci => ci::run().await,
        Task::Demo(args) => demo::run(&args).await,
        Task::Compare(args) => compare::run(args).await,
        Task::Bench(args) => bench::run(&args).await,
        Task::Conformance(args) => conformance::run(&args).await,
        Task::Torture(args) => torture::run(&args).await,
    }
}
