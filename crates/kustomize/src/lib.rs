//! Builds Kustomize directories: a tree of files in, ordered objects out, with the bytes of
//! `kustomize build` v5.8.2.
//!
//! Invariant: pure. Everything is read through [`plumb_core::Tree`], so that a recorder around the
//! tree sees every file and every absence that mattered. No process, no network, no clock, no state
//! between builds. Time is linear in the number of objects.

#![forbid(unsafe_code)]

mod acc;
mod budget;
mod build;
mod config;
mod crds;
mod decode;
mod defaults;
mod error;
mod fieldspec;
mod generate;
mod images;
mod include;
mod json_patch;
mod known;
mod kustomization;
mod load;
mod merge;
mod merge_lists;
mod nameref;
mod openapi;
mod origins;
mod output;
mod overlay;
mod patch;
mod plugins;
mod replacements;
mod resid;
mod resource;
mod selector;
mod shared;
mod simple;
mod sort;
mod vars;

use plumb_core::{Object, RelPath, Tree};

pub use error::{Error, Problem};
pub use overlay::{Overlay, OverlayImage, OverlayPatch, PatchTarget};
pub use selector::ObjectSelector;

/// Which files a kustomization may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoadRestrictions {
    /// Files in or below its directory. Directories may be anywhere in the tree.
    #[default]
    RootOnly,
    /// Any file in the tree.
    None,
}

/// The order of objects when the kustomization does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reorder {
    /// The order in which they are listed.
    #[default]
    Fifo,
    /// Namespaces first, webhooks last, by kind and name between them.
    Legacy,
}

/// How much one build may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together; a file counts each time it is used.
    pub bytes: u64,
    /// Objects.
    pub objects: usize,
    /// Kustomizations inside each other.
    pub depth: usize,
    /// Bytes that patches, labels, replacements and the like put into objects.
    pub made: u64,
    /// Bounds on each file, and on the levels of each object.
    pub file: plumb_yaml::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // As much as a directory of plain manifests may have.
            bytes: 64 << 20,
            // The largest applications in the open have a few thousand.
            objects: 50_000,
            // Each level is some levels of the stack; people nest five.
            depth: 64,
            // Some fifty times what an application of 2,000 objects is given.
            made: 128 << 20,
            file: plumb_yaml::Limits::default(),
        }
    }
}

/// How to build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Which files may be used.
    pub load_restrictions: LoadRestrictions,
    /// The order of objects when the kustomization does not say.
    pub reorder: Reorder,
    /// Whether objects know where each of their fields comes from.
    pub origins: bool,
    /// What comes at the end of the kustomization that is built.
    pub overlay: Overlay,
    /// How much the build may take.
    pub limits: Limits,
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// The objects in the order of the output.
    pub objects: Vec<Object>,
}

impl Built {
    /// The text that `kustomize build` prints.
    pub fn to_yaml(&self) -> String {
        plumb_yaml::to_string_all(self.objects.iter().map(Object::body))
    }
}

/// Builds the kustomization of a directory. `interrupted` is asked for each object of each step; when it answers
/// yes, the build ends with [`Problem::Interrupted`].
pub fn build(
    tree: &dyn Tree,
    path: &RelPath,
    options: &Options,
    interrupted: &dyn Fn() -> bool,
) -> Result<Built, Error> {
    let source = load::Source::new(tree, options, interrupted);
    let objects = build::run(&source, path)?;
    Ok(Built { objects })
}

/// Builds as if a directory had a kustomization that lists `resources`: files, and directories with
/// a kustomization of their own, by their paths in the tree. Paths of the overlay are relative to
/// the directory.
pub fn build_resources(
    tree: &dyn Tree,
    dir: &RelPath,
    resources: &[RelPath],
    options: &Options,
    interrupted: &dyn Fn() -> bool,
) -> Result<Built, Error> {
    let source = load::Source::new(tree, options, interrupted);
    let objects = overlay::run_generated(&source, dir, resources)?;
    Ok(Built { objects })
}
