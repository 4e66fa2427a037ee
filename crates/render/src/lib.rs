//! Chooses and runs the renderer for a path, and records every input it read.
//!
//! A path is a directory of plain manifests or a single file of them. Directories that need
//! another renderer (a kustomization, a chart) are refused by name. [`Rendered::inputs`] says what
//! was read, so that a later commit that touches none of it need not be rendered; a failure says
//! so too.
//!
//! Invariant: a tree and options in, objects out. No cluster, no Git, no clock, and the same tree
//! and options give the same bytes on any machine.

#![forbid(unsafe_code)]

mod error;
mod ignore;
mod options;
mod plain;
mod render;
#[cfg(test)]
mod tests;

pub use error::{Defect, Failure, Problem, RenderError};
pub use options::{RenderLimits, RenderOptions};
pub use render::{Rendered, render};
