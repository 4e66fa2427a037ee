//! Exit codes and the last words before them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use plumb_core::ErrorClass;

/// An exit code that scripts can rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(u8);

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}

/// Everything was done.
pub(crate) const OK: Code = Code(0);
/// A mistake of ours.
pub(crate) const BUG: Code = Code(1);
/// The input is wrong, or something must be changed by a person first.
pub(crate) const INPUT: Code = Code(3);
/// Something was out of reach; the same command may work later.
pub(crate) const UNAVAILABLE: Code = Code(4);

/// The table for `--help` and the README. Code 2 is the argument parser's own.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  everything was done
  1  a mistake in Plumb; please report it
  2  the command line was not understood
  3  the input is wrong, or something must be changed first
  4  something was out of reach; the same command may work later";

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// An error of a library, with what caused it.
    pub(crate) fn new(class: ErrorClass, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                // Writing to a String cannot fail.
                let _ = write!(message, ": {text}");
            }
            source = cause.source();
        }
        let code = match class {
            ErrorClass::Bug => BUG,
            ErrorClass::WaitForUser => INPUT,
            ErrorClass::Retry => UNAVAILABLE,
        };
        Self { code, message, hint: None }
    }

    /// A failure in our own words.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self { code: INPUT, message: message.into(), hint: None }
    }

    /// With what helps.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// Prints it and gives the exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        // If nobody reads standard error there is nobody left to tell.
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "error: {}", self.message);
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "hint: {hint}");
        }
        self.code.into()
    }
}
