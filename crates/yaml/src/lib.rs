//! Reads and writes Kubernetes YAML: the scalar rules, limits and positions that manifests need,
//! and output that any reader takes back unchanged.
//!
//! The dialect of [`read`] is that of Kustomize's resource files, which is also what Flux applies:
//! YAML 1.1 numbers (`0644` is 420), YAML 1.2 words (`yes` is a string), merge keys, and no second
//! value for a key. [`to_string`] writes the bytes that `kustomize build` writes.
//!
//! Invariant: text in, values out. Nothing here touches a file, a network, a clock or a process,
//! and no error quotes a value, because the value may be a Secret's.

#![forbid(unsafe_code)]

mod compose;
mod error;
mod expand;
mod json;
mod limits;
mod natural;
mod number;
mod read;
mod scalar;
#[cfg(test)]
mod tests;
mod timestamp;
mod write;

pub use error::{Problem, YamlError, YamlErrors};
pub use limits::Limits;
pub use read::{Document, read};
pub use write::{to_string, to_string_all};
