//! `cargo xtask test`: all tests, on one real control plane.

use clap::Args;
use plumb_testkit::control_plane::{AUDIT_LOG_ENV, KUBECONFIG_ENV};
use plumb_testkit::{ControlPlane, Options, Tools};

use crate::error::TaskError;
use crate::generate::{self, GenerateArgs};
use crate::process::{cargo, run as run_command};

/// Tells tests that other programs may be compared with.
const PEERS_ENV: &str = "PLUMB_TEST_PEERS";

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Also run what compares with other programs that have to be built first.
    #[arg(long)]
    peers: bool,
    /// Arguments for `cargo test`: `-p plumb-api`, or `-- --nocapture` for the tests themselves.
    #[arg(last = true)]
    args: Vec<String>,
}

impl TestArgs {
    /// Everything, with the lock file as it is.
    pub(crate) fn for_ci() -> Self {
        Self { peers: false, args: vec!["--locked".into()] }
    }
}

pub(crate) async fn run(args: &TestArgs) -> Result<(), TaskError> {
    // The compiler has its say before minutes are spent on the control plane.
    let mut build = cargo(&["test"]);
    build.args(cargo_args(&args.args, true));
    run_command(build).await?;

    if args.peers {
        println!("==> cargo xtask generate --check --peers");
        generate::run(&GenerateArgs { check: true, peers: true }).await?;
    }
    println!("==> the control plane, built first when it is missing");
    tokio::task::spawn_blocking(Tools::ready)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        .map_err(TaskError::Tools)?;
    let plane = ControlPlane::try_start(Options::default()).await.map_err(TaskError::Tools)?;
    println!("control plane at {}, logs in {}/logs", plane.server(), plane.dir().display());

    let mut tests = cargo(&["test"]);
    tests
        .args(cargo_args(&args.args, false))
        .env(KUBECONFIG_ENV, plane.kubeconfig())
        .env(AUDIT_LOG_ENV, plane.audit().path());
    if args.peers {
        tests.env(PEERS_ENV, "1");
    }
    run_command(tests).await
}

/// The arguments of `cargo test`: all packages unless some are named, and no stop at the first test
/// binary that fails.
fn cargo_args(given: &[String], build_only: bool) -> Vec<String> {
    let split = given.iter().position(|arg| arg == "--").unwrap_or(given.len());
    let (ours, theirs) = given.split_at(split);
    let mut args = Vec::new();
    if !ours.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package")) {
        args.push("--workspace".to_owned());
    }
    args.extend(ours.iter().cloned());
    if build_only {
        args.push("--no-run".to_owned());
    } else {
        if !ours.iter().any(|arg| arg == "--no-fail-fast") {
            args.push("--no-fail-fast".to_owned());
        }
        args.extend(theirs.iter().cloned());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_go_to_cargo_and_to_the_tests() {
        for (given, build, test) in [
            ("", "--workspace --no-run", "--workspace --no-fail-fast"),
            ("-p plumb-api", "-p plumb-api --no-run", "-p plumb-api --no-fail-fast"),
            (
                "--test rules -- --nocapture name",
                "--workspace --test rules --no-run",
                "--workspace --test rules --no-fail-fast -- --nocapture name",
            ),
            ("-- -p", "--workspace --no-run", "--workspace --no-fail-fast -- -p"),
        ] {
            let given: Vec<_> = given.split_whitespace().map(str::to_owned).collect();
            assert_eq!(cargo_args(&given, true).join(" "), build);
            assert_eq!(cargo_args(&given, false).join(" "), test);
        }
    }
}
