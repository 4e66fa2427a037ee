//! Why the suite itself could not do its work. What an agent does wrong is a verdict, and no error.

use std::path::PathBuf;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuiteError {
    /// The adapter cannot be used.
    #[error("{}: {why}", path.display())]
    Adapter {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A template names what nobody has given.
    #[error("`{text}` names ${{{name}}}, which has no value; give it with --set {name}=VALUE")]
    NoValue {
        /// The name.
        name: String,
        /// Where it stands.
        text: String,
    },
    /// The cluster did not do what it was asked.
    #[error("cannot {what}: {source}")]
    Cluster {
        /// What was asked.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig: {why}")]
    Kubeconfig {
        /// Why.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no such duty.
    #[error("there is no duty {id}; `gitops-conformance list` names all")]
    NoDuty {
        /// What was asked for.
        id: String,
    },
    /// A scenario could not be played, through no fault of the agent.
    #[error("{what}")]
    Scenario {
        /// What went wrong.
        what: String,
    },
}
