//! The vocabulary that every other crate speaks: objects with provenance, keys, paths, trees,
//! inputs, digests and error classes.
//!
//! Invariant: no tokio, no kube, no clock, no environment. Everything here is a value.

#![forbid(unsafe_code)]

mod class;
mod digest;
mod field;
mod inputs;
mod key;
mod object;
mod path;
mod place;
mod tree;

pub use class::ErrorClass;
pub use digest::{Digest, Hasher};
pub use field::{FieldHash, FieldPath, Step};
pub use inputs::{Inputs, Recorder, Seen};
pub use key::{GroupKind, Gvk, ObjectKey};
pub use object::Object;
pub use path::{PathError, RelPath};
pub use place::{BuildStep, FieldPlaces, Place};
pub use tree::{
    ContentId, DirTree, Entry, EntryKind, MemTree, Purpose, Tree, TreeError, follow, is_lfs_pointer,
};
