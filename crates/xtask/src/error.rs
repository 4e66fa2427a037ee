//! What can go wrong in a task.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use plumb_testkit::ToolError;

/// What can go wrong in a task.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// A program could not be started.
    #[error("cannot run `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error; it has told its reason itself.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The user or the system asked us to end.
    #[error("interrupted")]
    Interrupted,
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Generated files differ from what the code says.
    #[error("not up to date: {}; run `cargo xtask generate` and commit", list(.paths))]
    Stale {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// A value could not be written as JSON.
    #[error("cannot write {what} as JSON")]
    Json {
        /// The value.
        what: &'static str,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// A step of the demo did not show what it should.
    #[error("no evidence that {what}: {found}")]
    Evidence {
        /// What should be seen.
        what: String,
        /// What was seen instead.
        found: String,
    },
    /// The control plane cannot be had.
    #[error("no control plane")]
    Tools(#[source] ToolError),
    /// The program that we are compared with cannot be had.
    #[error("no reference to compare with")]
    Reference(#[source] ToolError),
    /// We do not build what the reference builds.
    #[error("{what} is not built as by the reference")]
    Unequal {
        /// The checkout.
        what: PathBuf,
    },
    /// The torture found what must not be.
    #[error("seed {seed}, round {round}: {count} violations")]
    Violation {
        /// The seed.
        seed: u64,
        /// The round.
        round: u32,
        /// How many.
        count: usize,
    },
    /// There is no such bench.
    #[error("there is no bench {name:?}; there are: {known}")]
    UnknownBench {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

impl TaskError {
    /// Prints the error and its causes to standard error.
    pub(crate) fn print(&self) {
        eprintln!("xtask: {self}");
        let mut cause = self.source();
        while let Some(error) = cause {
            eprintln!("  because: {error}");
            cause = error.source();
        }
    }

    /// The exit code: that of the program that failed, else 1; 130 when interrupted, as shells have
    /// it.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed { status, .. } => {
                status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
            }
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}
