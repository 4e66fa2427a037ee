//! What a render may be told.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_kustomize::{LoadRestrictions, Overlay, Reorder};
use plumb_sops::Keys;

use crate::Variable;

/// How to render. By default as an Application is rendered whose spec says nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderOptions {
    /// Patterns in gitignore syntax, relative to the root of the tree. They count after all ignore
    /// files, so `!name` takes back in what those exclude.
    pub ignore: Option<String>,
    /// What works as if it stood at the end of the path's kustomization.
    pub overlay: Overlay,
    /// What all objects get in the end.
    pub common_metadata: CommonMetadata,
    /// What variables in objects become, before that.
    pub substitution: Substitution,
    /// Opens files that SOPS encrypted. Without keys they are refused.
    pub keys: Option<Arc<Keys>>,
    /// Which files a kustomization may use.
    pub load_restrictions: LoadRestrictions,
    /// The order of what Kustomize builds, when the kustomization does not say.
    pub reorder: Reorder,
    /// How much one render may take.
    pub limits: RenderLimits,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            ignore: None,
            overlay: Overlay::default(),
            common_metadata: CommonMetadata::default(),
            substitution: Substitution::default(),
            keys: None,
            // The tree is one repository, and who may write to a part of it is Git's affair.
            load_restrictions: LoadRestrictions::None,
            // Stages of the engine put objects in the order that matters.
            reorder: Reorder::Fifo,
            limits: RenderLimits::default(),
        }
    }
}

/// Labels and annotations that are set on every object, and nowhere else: not in selectors, not in
/// templates. They override what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommonMetadata {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Values for variables in objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Substitution {
    /// By name.
    pub values: BTreeMap<String, Variable>,
    /// Whether defaults count also where there are no values at all.
    pub always: bool,
    /// Whether it is an error when a variable has no value and no default.
    pub strict: bool,
}

/// Bounds on one render, so that a hostile repository delays nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderLimits {
    /// Bytes of all files read together; a file counts each time it is used.
    pub bytes: u64,
    /// Names looked at in all directories together; a directory counts each time that a symbolic
    /// link leads to it.
    pub entries: usize,
    /// Directories inside each other, and kustomizations that include each other.
    pub depth: usize,
    /// Objects.
    pub objects: usize,
    /// Bounds on each file.
    pub file: plumb_yaml::Limits,
}

impl Default for RenderLimits {
    fn default() -> Self {
        Self {
            // Four times the largest single bundle; in memory it becomes about six times as much.
            bytes: 64 << 20,
            // A monorepo of several clusters has some ten thousand.
            entries: 100_000,
            // Each level is a level of the stack.
            depth: 64,
            // The largest applications in the open have a few thousand.
            objects: 50_000,
            file: plumb_yaml::Limits::default(),
        }
    }
}
