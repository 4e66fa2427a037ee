//! The scenarios, principle by principle. None of them knows an agent.

pub(crate) mod declared;
pub(crate) mod pulled;
pub(crate) mod reconciled;
pub(crate) mod versioned;
