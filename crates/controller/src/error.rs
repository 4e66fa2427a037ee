//! Why the daemon could not start, or ended by itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use plumb_core::ErrorClass;

/// See the module's description.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The cache directory cannot be used.
    #[error("cannot use the cache directory {}", dir.display())]
    Cache {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: plumb_source::SourceError,
    },
    /// Probes and metrics cannot be served.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A part of the start panicked.
    #[error("{what} panicked")]
    Panicked {
        /// What was being done.
        what: &'static str,
    },
    /// A part of the daemon ended that must not end before it.
    #[error("{what} ended, which is a mistake in Plumb")]
    Ended {
        /// What was being done.
        what: &'static str,
    },
}

impl ControllerError {
    /// What a person can do about it, where there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Cache { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Cache { .. } | Self::Listen { .. } => ErrorClass::WaitForUser,
            Self::Panicked { .. } | Self::Ended { .. } => ErrorClass::Bug,
        }
    }
}
