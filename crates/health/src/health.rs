//! What can be said of an object.

use std::fmt;

use serde::Serialize;

/// How an object is.
///
/// | state | meaning | for `Ready` of an Application that waits |
/// |---|---|---|
/// | Healthy | it does what it is there for | counts |
/// | Suspended | somebody paused it, and it has reached what can be reached so | counts |
/// | Progressing | it is on its way, or nothing is known yet | is waited for |
/// | Unknown | it says of itself that it cannot tell | is waited for |
/// | Missing | it, or what it stands for, is not there | is waited for |
/// | Degraded | it does not work | ends the wait when it can no longer become healthy by itself |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Health {
    /// It does what it is there for.
    Healthy,
    /// Somebody paused it.
    Suspended,
    /// It is on its way.
    Progressing,
    /// It cannot tell.
    Unknown,
    /// It, or what it stands for, is not there.
    Missing,
    /// It does not work.
    Degraded,
}

impl Health {
    /// Whether an Application that waits for it is content.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Healthy | Self::Suspended)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "Healthy",
            Self::Suspended => "Suspended",
            Self::Progressing => "Progressing",
            Self::Unknown => "Unknown",
            Self::Missing => "Missing",
            Self::Degraded => "Degraded",
        })
    }
}

/// How an object is, and why, in words for its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How it is.
    pub health: Health,
    /// Why; empty when there is nothing to add.
    pub reason: String,
    /// Whether it stays so until somebody changes it: waiting any longer is of no use.
    pub is_final: bool,
}

impl Verdict {
    pub(crate) fn new(health: Health, reason: impl Into<String>) -> Self {
        Self { health, reason: reason.into(), is_final: false }
    }

    /// The same, and it stays so.
    pub(crate) fn for_good(mut self) -> Self {
        self.is_final = true;
        self
    }
}
