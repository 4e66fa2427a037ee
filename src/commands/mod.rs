//! One function a command.

mod build;
mod controller;
mod health;
mod install;

use std::io::Write as _;

use crate::args::{Args, Command};
use crate::exit::Failure;

/// Runs what the command line asks for.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Controller(args) => controller::run(*args),
        Command::Build(args) => build::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Crds => install::crds(),
        Command::Install(args) => install::run(&args),
        Command::Version => print(&format!("plumb {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::input(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
