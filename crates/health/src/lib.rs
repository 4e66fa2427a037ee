//! Says whether a live object works: built-in rules for Kubernetes' own kinds, rules in CEL for
//! kinds that are known, and a careful guess for all others.
//!
//! Nothing here reads a clock, a cluster or a file: an object goes in, a [`Verdict`] comes out.

#![forbid(unsafe_code)]

mod builtin;
mod cel;
mod conditions;
mod generic;
mod health;
mod known;
mod rules;

pub use builtin::{hush, is_kubernetes, works_by_being_there};
pub use cel::{CelError, Expression, Variables};
pub use generic::assess as assess_unknown;
pub use health::{Health, Verdict};
pub use rules::{Basis, Exprs, RuleError, Rules, assess};
