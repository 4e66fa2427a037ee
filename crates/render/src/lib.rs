//! Chooses and runs the renderer for a path, and records every input it read.
//!
//! A path with a kustomization is built by it. Another directory, or a single file, is plain
//! manifests, and directories below it that have a kustomization are bases. Charts are refused by
//! name. [`Rendered::inputs`] says what was read, so that a later commit that touches none of it
//! need not be rendered; a failure says so too.
//!
//! Invariant: a tree and options in, objects out. No cluster, no Git, no clock, and the same tree
//! and options give the same bytes on any machine.

#![forbid(unsafe_code)]

mod envsubst;
mod error;
mod ignore;
mod kustomize;
mod options;
mod plain;
mod render;
mod sealed;
mod substitute;
#[cfg(test)]
mod tests;
mod walk;

pub use envsubst::{Variable, Why};
pub use error::{Defect, Failure, Problem, RenderError};
pub use options::{CommonMetadata, RenderLimits, RenderOptions, Substitution};
pub use plumb_kustomize::{
    LoadRestrictions, ObjectSelector, Overlay, OverlayImage, OverlayPatch, PatchTarget, Reorder,
};
pub use plumb_sops::{KeyError, Keys};
pub use render::{Rendered, render};
