//! The crate's promises, tested through its public functions.

mod hostile;
mod read;
mod write;
