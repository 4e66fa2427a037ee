//! What an owner decided about their set.

use crate::farewell::Farewell;
use crate::guard::Limits;

/// What becomes of a desired object that is there already and is nobody's of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Adopt {
    /// It is left alone.
    Never,
    /// It becomes a member if no field manager and no other tool is in the way.
    #[default]
    IfUnowned,
    /// It becomes a member whoever has it.
    Always,
}

/// How a set is dealt with, as its owner wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether nothing is written, and only told what would be.
    pub observe: bool,
    /// Whether members that Git does not ask for are deleted.
    pub prune: bool,
    /// What becomes of the members when the parent goes.
    pub farewell: Farewell,
    /// From when on deletions wait for a person.
    pub limits: Limits,
    /// Whether all changes are tried before any is made.
    pub validate: bool,
    /// Whether an object is deleted and made anew when a field of it cannot be changed.
    pub force: bool,
    /// What becomes of desired objects that are there already.
    pub adopt: Adopt,
}
