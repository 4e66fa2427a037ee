//! The `plumb` binary: words in; words, tables and exit codes out.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod exit;
mod logging;

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    let args = args::Args::parse();
    match commands::run(args) {
        Ok(()) => exit::OK.into(),
        Err(failure) => failure.tell(),
    }
}
