//! Opens files that SOPS encrypted, with age and OpenPGP keys that are given.
//!
//! [`open`] reads YAML, JSON, dotenv and binary files, takes the data key out of them with
//! [`Keys`], decrypts each value, and holds the whole against the file's MAC before it gives anything
//! out. Keys that a cloud or a Vault keeps cannot be had here: the error names what the file needs.
//!
//! Invariant: bytes in, bytes out. No file, no process, no network, no clock. No error has a value
//! or a key in it: values are named by their path, keys by what is public of them.

#![forbid(unsafe_code)]

mod cipher;
mod dotenv;
mod error;
mod format;
mod json;
mod keys;
mod metadata;
mod open;
mod pgp;
mod rules;
mod shamir;
mod yaml;

pub use error::{Error, KeyError};
pub use format::Format;
pub use keys::Keys;
pub use open::{Options, Shape, open};
