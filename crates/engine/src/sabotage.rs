//! Mistakes on purpose: each leaves out one check that keeps a cluster safe, so that a search for
//! such mistakes can show that it finds them.
//!
//! Only in builds with the feature `sabotage`, which nothing that is shipped has, and there only the
//! one that the variable `PLUMB_SABOTAGE` names.

/// A check that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
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
}

/// Whether a check is left out.
#[cfg(not(feature = "sabotage"))]
pub(crate) const fn leaves_out(_: Sabotage) -> bool {
    false
}

/// Whether a check is left out.
#[cfg(feature = "sabotage")]
pub(crate) fn leaves_out(what: Sabotage) -> bool {
    static NAMED: std::sync::OnceLock<Option<Sabotage>> = std::sync::OnceLock::new();
    *NAMED.get_or_init(|| {
        let name = std::env::var("PLUMB_SABOTAGE").unwrap_or_default();
        let named = match name.as_str() {
            "prune-without-owner" => Some(Sabotage::PruneWithoutOwner),
            "forced-claim" => Some(Sabotage::ForcedClaim),
            "failed-list-is-empty" => Some(Sabotage::FailedListIsEmpty),
            "digest-over-drift" => Some(Sabotage::DigestOverDrift),
            "events-unordered" => Some(Sabotage::EventsUnordered),
            _ => None,
        };
        tracing::warn!(?named, "this build makes mistakes on purpose: use it for tests only");
        named
    }) == Some(what)
}
