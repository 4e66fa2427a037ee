//! What an owner decided about their set.

use crate::farewell::Farewell;
use crate::guard::Limits;

/// How a set is dealt with, as its owner wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether members that Git does not ask for are deleted.
    pub prune: bool,
    /// What becomes of the members when the parent goes.
    pub farewell: Farewell,
    /// From when on deletions wait for a person.
    pub limits: Limits,
}
