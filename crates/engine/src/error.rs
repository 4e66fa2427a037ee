//! Why a whole run of a set ended without a report. What concerns single objects is in the report.

use plumb_core::ErrorClass;

use crate::account::Account;
use crate::cluster::ApiError;

/// See the module's description.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kinds that the cluster has could not be read.
    #[error("cannot read which kinds the cluster has")]
    Discover {
        /// The API server's answer.
        #[source]
        source: ApiError,
    },
    /// The facts on the parent object could not be written, so nothing was applied.
    #[error("cannot write the facts of {parent}")]
    Parent {
        /// `namespace/name` of the parent.
        parent: String,
        /// The API server's answer.
        #[source]
        source: ApiError,
    },
    /// Whether the definition of the parent's kind goes too could not be read, so nothing was
    /// deleted.
    #[error("cannot tell whether the definition {name} is being deleted, so nothing is deleted")]
    Definition {
        /// The definition's name.
        name: String,
        /// The API server's answer.
        #[source]
        source: ApiError,
    },
    /// Whether the parent's namespace goes too could not be read, so nothing was deleted.
    #[error("cannot tell whether the namespace {name} is being deleted, so nothing is deleted")]
    Namespace {
        /// The namespace's name.
        name: String,
        /// The API server's answer.
        #[source]
        source: ApiError,
    },
    /// A later leader has written the parent's facts: this process must not act any more.
    #[error("{parent} was last handled by leader {theirs}, and this process is leader {ours}")]
    StaleEpoch {
        /// `namespace/name` of the parent.
        parent: String,
        /// The epoch on the parent.
        theirs: u64,
        /// The epoch of this process.
        ours: u64,
    },
    /// The parent is gone or is another object now.
    #[error("{parent} does not exist any more")]
    ParentGone {
        /// `namespace/name` of the parent.
        parent: String,
    },
    /// The run took longer than it may; what was not done is left to the next one.
    #[error("the run of {parent} was not done after {} s", limit.as_secs())]
    OutOfTime {
        /// `namespace/name` of the parent.
        parent: String,
        /// How long it could take.
        limit: std::time::Duration,
    },
    /// Nobody is named to act for the set, and this process does not.
    #[error("{parent} names no service account, and this agent applies nothing as itself")]
    NoAccount {
        /// `namespace/name` of the parent.
        parent: String,
    },
    /// The set's account was refused, and is not there.
    #[error("the service account {account} does not exist")]
    AccountMissing {
        /// The account.
        account: Account,
    },
    /// This process may not act as the set's account.
    #[error("Plumb's own account may not act as the service account {account}")]
    NotImpersonated {
        /// The account.
        account: Account,
        /// The API server's answer.
        #[source]
        source: ApiError,
    },
    /// The API server could not be reached or this process lost its lease; the rest of the run was
    /// not tried.
    #[error("the run was cut short")]
    Interrupted {
        /// The error that ended it.
        #[source]
        source: ApiError,
    },
}

impl EngineError {
    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Discover { source }
            | Self::Parent { source, .. }
            | Self::Definition { source, .. }
            | Self::Namespace { source, .. }
            | Self::Interrupted { source } => source.class(),
            Self::StaleEpoch { .. } | Self::ParentGone { .. } | Self::OutOfTime { .. } => {
                ErrorClass::Retry
            }
            Self::NoAccount { .. } | Self::AccountMissing { .. } | Self::NotImpersonated { .. } => {
                ErrorClass::WaitForUser
            }
        }
    }

    /// The API server's answer behind it.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Discover { source }
            | Self::Parent { source, .. }
            | Self::Definition { source, .. }
            | Self::Namespace { source, .. }
            | Self::NotImpersonated { source, .. }
            | Self::Interrupted { source } => Some(source),
            Self::StaleEpoch { .. }
            | Self::ParentGone { .. }
            | Self::OutOfTime { .. }
            | Self::NoAccount { .. }
            | Self::AccountMissing { .. } => None,
        }
    }
}
