//! The crate's promises, tested through its public functions.

mod hostile;
mod quick;
mod read;
mod spans;
mod write;
