//! The daemon: when to run, what to write to status, who leads.
//!
//! It watches our own kinds, polls Git, hands revisions to the renderer and objects to the engine,
//! and writes down what came of it. It is the only place that maps custom resources to options of
//! the other crates.
//!
//! Invariant: no rendering and no planning here; nobody waits while holding a worker.

#![forbid(unsafe_code)]

mod apps;
mod askers;
pub mod backoff;
mod checks;
mod daemon;
mod depends;
mod error;
pub mod events;
pub mod lease;
pub mod metrics;
mod named;
mod names;
mod objects;
mod opened;
mod pods;
pub mod queue;
mod queues;
pub mod receiver;
pub mod server;
mod sources;
mod state;
mod status;
mod waiting;
mod wants;

pub use daemon::{ReceiverSettings, Settings, run};
pub use error::ControllerError;
pub use names::{Key, Name};
pub use queues::blocking_threads;
