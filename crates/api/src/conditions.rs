//! Types and reasons of the conditions in the status of our kinds.
//!
//! Types and reasons are part of the API: alerts and scripts compare them.

/// The wanted revision is in place. Suspended objects keep their last value.
pub const READY: &str = "Ready";
/// Present only while work is going on or is tried again: says why and when.
pub const RECONCILING: &str = "Reconciling";
/// Present only when nothing changes until a person changes something: says what.
pub const STALLED: &str = "Stalled";
/// GitRepository: the ref was read, and its commit is in the cache.
pub const FETCHED: &str = "Fetched";
/// GitRepository: what `spec.verify` asks to be signed is signed by a trusted key. Unknown while nothing
/// was looked at by the keys and the mode that it names now. Absent where it asks for nothing.
pub const SOURCE_VERIFIED: &str = "SourceVerified";
/// Application: all objects are ready, where `spec.wait` asks for that; False the moment one is not,
/// whatever else is wrong. Absent otherwise.
pub const HEALTHY: &str = "Healthy";
/// Application: live objects differ from Git and stay so, since their correction is held or fought
/// over. Unknown while objects of a kind cannot be read. Absent otherwise.
pub const DRIFTED: &str = "Drifted";
/// Application: the guard holds deletions until a person approves them. Absent otherwise.
pub const PRUNE_HELD: &str = "PruneHeld";

/// Values of `reason`.
pub mod reasons {
    /// All that was asked for is done.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Work is going on.
    pub const PROGRESSING: &str = "Progressing";
    /// A try failed; the next one comes by itself.
    pub const PROGRESSING_WITH_RETRY: &str = "ProgressingWithRetry";
    /// `spec.suspend` is set.
    pub const SUSPENDED: &str = "Suspended";
    /// The spec has a value that the CRD's own rules cannot refuse.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// A mistake of ours; the message says where, please report it.
    pub const INTERNAL_ERROR: &str = "InternalError";
    /// The API server cannot be reached or is overloaded.
    pub const CLUSTER_UNAVAILABLE: &str = "ClusterUnavailable";

    /// The Secret that `secretRef` names does not exist.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// The Secret lacks a key, or has keys that exclude each other.
    pub const INVALID_SECRET: &str = "InvalidSecret";
    /// The Git server refused the credentials, or wants some.
    pub const AUTHENTICATION_FAILED: &str = "AuthenticationFailed";
    /// The Git server has no such repository.
    pub const REPOSITORY_NOT_FOUND: &str = "RepositoryNotFound";
    /// The repository has no commit yet.
    pub const EMPTY_REPOSITORY: &str = "EmptyRepository";
    /// The repository has no such branch, tag, ref or commit, or no tag in the range.
    pub const REF_NOT_FOUND: &str = "RefNotFound";
    /// The ref's new commit does not follow the last one.
    pub const HISTORY_REWRITTEN: &str = "HistoryRewritten";
    /// The Git server cannot be reached: unknown host, connection refused, TLS.
    pub const SERVER_UNREACHABLE: &str = "ServerUnreachable";
    /// The Git server took longer than `spec.timeout`.
    pub const TIMED_OUT: &str = "TimedOut";
    /// The repository passes a size limit.
    pub const TOO_LARGE: &str = "TooLarge";
    /// The commit, or the tag that leads to it, is not signed as `spec.verify` asks.
    pub const VERIFICATION_FAILED: &str = "VerificationFailed";
    /// Any other failure of reading from the Git server.
    pub const FETCH_FAILED: &str = "FetchFailed";

    /// The object that `sourceRef` names does not exist.
    pub const SOURCE_NOT_FOUND: &str = "SourceNotFound";
    /// The source exists but has no revision yet.
    pub const SOURCE_NOT_READY: &str = "SourceNotReady";
    /// `spec.revision` names a commit that the repository does not have.
    pub const REVISION_NOT_FOUND: &str = "RevisionNotFound";
    /// The revision has no directory at `spec.path`.
    pub const PATH_NOT_FOUND: &str = "PathNotFound";
    /// Something that `dependsOn` names is not ready; it goes on as soon as it is.
    pub const DEPENDENCY_NOT_READY: &str = "DependencyNotReady";
    /// The Application waits for itself by way of others.
    pub const DEPENDENCY_CYCLE: &str = "DependencyCycle";
    /// A ConfigMap or Secret that `postBuild.substituteFrom` names does not exist.
    pub const VALUES_NOT_FOUND: &str = "ValuesNotFound";
    /// A ConfigMap or Secret that `postBuild.substituteFrom` names has a key that is no name of a
    /// variable, or a value that is no text.
    pub const INVALID_VALUES: &str = "InvalidValues";
    /// Files do not render; nothing was applied and nothing was pruned.
    pub const BUILD_FAILED: &str = "BuildFailed";
    /// Some objects were not applied; the others were.
    pub const APPLY_FAILED: &str = "ApplyFailed";
    /// An object belongs to another Application.
    pub const OWNED_BY_ANOTHER: &str = "OwnedByAnother";
    /// The API server refused us a right that we need.
    pub const ACCESS_DENIED: &str = "AccessDenied";
    /// Objects did not become ready in time, cannot become so any more, or ceased to be so.
    pub const HEALTH_CHECK_FAILED: &str = "HealthCheckFailed";
    /// An expression of `spec.healthCheckExprs` does not compile.
    pub const INVALID_CEL_EXPRESSION: &str = "InvalidCELExpression";
    /// Objects that left Git could not be deleted.
    pub const PRUNE_FAILED: &str = "PruneFailed";
    /// Objects that left Git wait for a person's approval to be deleted.
    pub const PRUNE_HELD: &str = "PruneHeld";
    /// What was changed by hand was put back, but it is changed again and again.
    pub const DRIFT_FOUGHT_OVER: &str = "DriftFoughtOver";
    /// Live objects differ, and `spec.mode` says only to observe.
    pub const OBSERVED: &str = "Observed";
    /// Objects of a kind cannot be listed, so nobody sees whether they are changed or left over.
    pub const KIND_UNREADABLE: &str = "KindUnreadable";
    /// The Application is being deleted, its objects are not gone yet.
    pub const TERMINATING: &str = "Terminating";
}
