//! Whom an error is about beside who asked, so that others need not find it out for themselves.

use jiff::Timestamp;

use crate::submodules::READING;
use crate::{SourceError, Way};

/// What runs out of time where it is not the Git server that lets us wait.
pub(crate) const WAITING: &str = "waiting for another fetch of the same repository";
/// What we take our time for ourselves.
pub(crate) const MAKING: &str = "making room in the cache";
pub(crate) const SEARCHING: &str = "looking for the highest version";
pub(crate) const ASKING_FOR_A_TOKEN: &str = "waiting for a token of the GitHub App";

/// Whom an error of a listing is about, beside who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concerns {
    /// Everybody: nobody gets through to this host.
    Host,
    /// This repository, and perhaps the whole host: there is no answer in time.
    Silence,
    /// The host wants to be left alone until then: by everybody, or by who asks with these credentials.
    Pause {
        /// Until when.
        until: Timestamp,
        /// Whether by everybody.
        all: bool,
    },
    /// All who ask for the same repository with the same credentials. The host answers.
    Repository,
    /// This question alone. It may not have come to the host at all.
    Question,
}

impl SourceError {
    /// Whom it is about, if a look by this way came to it.
    pub fn concerns(&self, way: &Way) -> Concerns {
        match self {
            // After a redirect it may be another host's.
            Self::UnknownHost { host }
            | Self::ConnectionRefused { host }
            | Self::Connect { host, .. }
                if !way.leads_to(host) =>
            {
                Concerns::Repository
            }
            Self::UnknownHost { .. }
            | Self::ConnectionRefused { .. }
            | Self::Connect { .. }
            | Self::ProxyUnreachable { .. } => Concerns::Host,
            Self::Timeout { doing } => match *doing {
                WAITING | SEARCHING | MAKING | READING => Concerns::Question,
                ASKING_FOR_A_TOKEN => Concerns::Repository,
                _ => Concerns::Silence,
            },
            // What counts somebody's requests counts them by who is logged in.
            Self::Busy { until, status, sent, .. } => {
                Concerns::Pause { until: *until, all: *status == 503 || !*sent }
            }

            Self::ProxyUnauthorized { .. }
            | Self::ProxyRefused { .. }
            | Self::Tls { .. }
            | Self::Unauthorized { .. }
            | Self::ClientCertificate { .. }
            | Self::NoAppToken { .. }
            | Self::RepositoryNotFound { .. }
            | Self::HttpStatus { .. }
            | Self::Redirect { .. }
            | Self::CommandFailed { .. }
            | Self::NotGit { .. }
            | Self::DumbHttp { .. }
            | Self::Incomplete { .. }
            | Self::EmptyRepository
            | Self::Sha256Repository
            | Self::Interrupted { .. }
            | Self::Ssh(_)
            | Self::Server { .. }
            | Self::Protocol { .. } => Concerns::Repository,
            Self::InvalidUrl { .. }
            | Self::UnsupportedScheme { .. }
            | Self::CredentialsInUrl { .. }
            | Self::InvalidCertificates { .. }
            | Self::InvalidClientCertificate { .. }
            | Self::InvalidCredentials { .. }
            | Self::InvalidProxy { .. }
            | Self::InvalidReference { .. }
            | Self::ShortCommit { .. }
            | Self::InvalidRange { .. }
            | Self::InvalidPattern { .. }
            | Self::RefNotFound { .. }
            | Self::NotACommit { .. }
            | Self::NoSemverMatch { .. }
            | Self::TooLarge { .. }
            | Self::Cancelled
            | Self::BadObjects { .. }
            | Self::Unverified { .. }
            | Self::NotInCache { .. }
            | Self::Corrupt { .. }
            | Self::CacheIo { .. }
            | Self::CacheFull { .. }
            | Self::DiskFull { .. }
            | Self::Submodule { .. }
            | Self::InvalidModules { .. }
            | Self::Locked { .. } => Concerns::Question,
        }
    }
}
