//! Runs one command on an SSH server, and gives the blocking ends of its pipes.
//!
//! [`run`] connects, checks the server's key against [`KnownHosts`], logs in with an [`Identity`]
//! and starts a command; [`Running`] is its standard input and output. Everything that a connection
//! needs is given to it: no file, agent, environment or configuration of the machine is read.
//!
//! Everything here blocks, each call for a bounded time; [`Stop`] ends a call from another thread
//! at once.
//!
//! Invariants: no server is spoken to whose key is not checked, and none is asked for a type of key
//! that cannot be; no part of a private key or a passphrase is in an error or a log; no signature
//! is made with SHA-1, and no server is logged in to that proves its key with one.

#![forbid(unsafe_code)]

mod client;
mod error;
mod identity;
mod known_hosts;
mod stop;

pub use client::{End, Running, Server, Times, run};
pub use error::{Cause, SshError};
pub use identity::Identity;
pub use known_hosts::{HostKeys, KnownHosts};
pub use stop::Stop;
