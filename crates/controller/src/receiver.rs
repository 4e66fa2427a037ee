//! Webhooks of Git services: a push is looked at within a moment, whatever the interval is.
//!
//! A hook is only ever a reason to look at once. What it names is compared with what GitRepositories
//! follow, those are asked to look, and nothing else of it is used: a forged or repeated one costs a
//! listing of refs at most. There is no object for a hook; one secret, or several while they are
//! rotated, is accepted for all.
//!
//! Reading and checking are pure ([`address`], [`payload`], [`signature`], [`limits`]); [`server`] is
//! the listener around them.

pub mod address;
pub mod limits;
pub mod payload;
pub(crate) mod refs;
pub mod server;
pub mod signature;

/// Who sends hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// GitHub and GitHub Enterprise.
    GitHub,
    /// GitLab.
    GitLab,
    /// Gitea and Forgejo.
    Gitea,
    /// Bitbucket Cloud and Data Center.
    Bitbucket,
    /// Anybody who signs a body of our own form.
    Generic,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::GitHub, Self::GitLab, Self::Gitea, Self::Bitbucket, Self::Generic];

    /// Its name, in paths and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
            Self::Generic => "generic",
        }
    }

    /// The service whose hooks come to this path: `/hook/github`.
    pub fn of_path(path: &str) -> Option<Self> {
        let name = path.strip_prefix("/hook/")?;
        Self::ALL.into_iter().find(|service| service.as_str() == name)
    }
}
