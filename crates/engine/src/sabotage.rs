//! Mistakes on purpose: each leaves out one thing that an agent has to do, so that a search for such
//! mistakes can show that it finds them. The first ones are for `torture --broken`, the others, a duty of
//! GitOps each, for `conformance --broken`.
//!
//! Only in builds with the feature `sabotage`, which nothing that is shipped has, and there only the
//! one that the variable `PLUMB_SABOTAGE` names.

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// What carries our label is deleted, whoever applied it.
    PruneWithoutOwner,
    /// The first apply of an object is forced.
    ForcedClaim,
    /// A kind that cannot be listed has no objects.
    FailedListIsEmpty,
    /// What is recorded as equal is what is live, not what was verified.
    DigestOverDrift,
    /// An event counts, however old it is.
    EventsUnordered,
    /// What somebody did to an object is not put back.
    IgnoresDrift,
    /// Nobody is asked before the last objects are deleted.
    PrunesOnAnEmptyRender,
    /// Every second object is of the commit before.
    TearsRevisions,
    /// All is well, whatever failed.
    DropsErrors,
    /// A status is written that says nothing new.
    WritesAtRest,
    /// What failed is not tried again.
    NeverRetries,
    /// Nobody is told of a tag that was moved, or of history that was written anew.
    TrustsAMovedTag,
    /// What a process did not apply itself is not its own.
    ForgetsAtRestart,
    /// Signatures are asked for, and not looked at.
    AppliesUnverifiedCommits,
}

/// Whether a check is left out.
#[cfg(not(feature = "sabotage"))]
pub const fn leaves_out(_: Sabotage) -> bool {
    false
}

/// Whether a check is left out.
#[cfg(feature = "sabotage")]
pub fn leaves_out(what: Sabotage) -> bool {
    static NAMED: std::sync::OnceLock<Option<Sabotage>> = std::sync::OnceLock::new();
    *NAMED.get_or_init(|| {
        let name = std::env::var("PLUMB_SABOTAGE").unwrap_or_default();
        let named = match name.as_str() {
            "prune-without-owner" => Some(Sabotage::PruneWithoutOwner),
            "forced-claim" => Some(Sabotage::ForcedClaim),
            "failed-list-is-empty" => Some(Sabotage::FailedListIsEmpty),
            "digest-over-drift" => Some(Sabotage::DigestOverDrift),
            "events-unordered" => Some(Sabotage::EventsUnordered),
            "ignores-drift" => Some(Sabotage::IgnoresDrift),
            "prunes-on-an-empty-render" => Some(Sabotage::PrunesOnAnEmptyRender),
            "tears-revisions" => Some(Sabotage::TearsRevisions),
            "drops-errors" => Some(Sabotage::DropsErrors),
            "writes-at-rest" => Some(Sabotage::WritesAtRest),
            "never-retries" => Some(Sabotage::NeverRetries),
            "trusts-a-moved-tag" => Some(Sabotage::TrustsAMovedTag),
            "forgets-at-restart" => Some(Sabotage::ForgetsAtRestart),
            "applies-unverified-commits" => Some(Sabotage::AppliesUnverifiedCommits),
            _ => None,
        };
        tracing::warn!(?named, "this build makes mistakes on purpose: use it for tests only");
        named
    }) == Some(what)
}
