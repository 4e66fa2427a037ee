//! Reads and writes Kubernetes YAML: the scalar rules, limits and positions that manifests need,
//! and output that any reader takes back unchanged.
//!
//! The dialect of [`read`] is that of Kustomize's resource files, which is also what Flux applies:
//! YAML 1.1 numbers (`0644` is 420), YAML 1.2 words (`yes` is a string), merge keys, and no second
//! value for a key. [`to_string`] writes the bytes that `kustomize build` writes.
//!
//! [`read_nodes`] keeps the spelling of scalars beside their meaning, for tools that change manifests
//! as text; [`read_spans`] tells where each stands. [`read_config`] reads the other dialect that people write beside manifests: YAML 1.1 as
//! tools written in Go read their own files.
//!
//! Invariant: text in, values out. Nothing here touches a file, a network, a clock or a process,
//! and no error quotes a value, because the value may be a Secret's.

#![forbid(unsafe_code)]

mod compose;
mod error;
mod expand;
mod form;
mod json;
mod limits;
mod map;
mod mark;
mod natural;
mod node;
mod number;
mod quick;
mod read;
mod reprint;
mod scalar;
mod spans;
#[cfg(test)]
mod tests;
mod timestamp;
mod write;

pub use error::{Problem, YamlError, YamlErrors};
pub use limits::Limits;
pub use map::Map;
pub use mark::{LineMark, Marking};
pub use node::{Node, Scalar, ScalarTag, Style};
use read::Dialect;
pub use read::{Document, read, read_any, read_config, read_nodes};
/// A text that is cheap to copy: up to 23 bytes lie in it, longer ones are shared.
pub use smol_str::SmolStr as Text;
pub use spans::{Key, Part, Spanned, SpannedDocument, read_spans};
pub use write::{quote, spell, to_string, to_string_all};
