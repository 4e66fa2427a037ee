//! The custom resources of `plumb.dev/v1alpha1`, their conditions and the names we put on objects.
//!
//! Doc comments of the fields become the descriptions of the CRDs, so they are written for users
//! of `kubectl explain`.
//!
//! Invariant: nothing here acts, and nothing here knows another crate of ours. The controller maps
//! these types to checked options at the edge.

#![forbid(unsafe_code)]

pub mod conditions;
pub mod names;

#[expect(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema copies each struct, with its visibility, into a function; each column \
              repeats the keys of its attribute"
)]
mod application;
mod crds;
mod duration;
#[expect(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema copies each struct, with its visibility, into a function; each column \
              repeats the keys of its attribute"
)]
mod git_repository;
#[expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, with its visibility, into a function"
)]
mod needs;
#[expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, with its visibility, into a function"
)]
mod overlay;

pub use application::{
    Adopt, Application, ApplicationSpec, ApplicationStatus, DeletionPolicy, Drift, Failure,
    HealthCheckExpr, HeldPrune, HistoryEntry, HistoryResult, IgnoreRule, MAX_DRIFTED_FIELDS,
    MAX_FAILURES, MAX_HELD_OBJECTS, MAX_HISTORY, MAX_TRANSIENT, MAX_UNREADY, MAX_YIELDED, Mode,
    PruneGuard, Scope, SourceKind, SourceRef, Transient, Unready, Validate, Waiting, Yielded,
};
pub use crds::{crd_documents, crds};
pub use duration::{Duration, DurationError};
pub use git_repository::{
    GitReference, GitRepository, GitRepositorySpec, GitRepositoryStatus, OnRewrite, SecretRef,
    Verification, VerificationMode,
};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use needs::{
    Decryption, DecryptionProvider, Dependency, HealthCheck, PostBuild, SubstituteReference,
    SubstituteStrategy, ValuesKind,
};
pub use overlay::{CommonMetadata, Image, Patch, PatchTarget};
