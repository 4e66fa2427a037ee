//! The daemon: when to run, what to write to status, who leads.

pub mod backoff;
pub mod queue;
