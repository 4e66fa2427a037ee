//! A real control plane, real Git servers and a proxy that records and injects faults.
//!
//! Nothing here is shipped. Tests, the demo and the benches use it to run `plumb` as a process
//! against the real thing:
//!
//! - [`ControlPlane`]: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok on
//!   loopback, with an audit log that tests count requests in.
//! - [`Tools`]: where those binaries come from, built from the pinned Go modules in
//!   `controlplane/` when they are missing.
//!
//! Whatever is started ends with the process that started it, even after SIGKILL: see
//! [`watchdog`].
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test helper that cannot do its work must end the test, and a panic does that"
)]

pub mod control_plane;
pub mod process;
mod runtime;
mod scratch;
pub mod tools;
pub mod wait;
pub mod watchdog;

pub use control_plane::{Audit, AuditEvent, ControlPlane, Options, Requests};
pub use process::Process;
pub use runtime::runtime;
pub use scratch::Scratch;
pub use tools::{Tool, ToolError, Tools};
pub use wait::wait_for;
