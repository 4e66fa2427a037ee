//! A real control plane, real Git servers and a proxy that records and injects faults.
//!
//! Nothing here is shipped. Tests, the demo and the benches use it to run `plumb` as a process
//! against the real thing:
//!
//! - [`ControlPlane`]: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok on
//!   loopback, with an audit log that tests count requests in.
//! - [`Tools`]: where those binaries come from, built from the pinned Go modules in
//!   `controlplane/` when they are missing. [`Tool::peer`] gives those of `peers/`, which we are
//!   compared with, in the same way.
//! - [`GitServer`] and [`Repo`]: Git's own server, and repositories that a test scripts. [`Sshd`]:
//!   OpenSSH's. [`Gitea`]: a whole host.
//! - [`Proxy`]: stands before either, records what passes and injects faults.
//! - [`Webhook`]: an admission webhook that allows, refuses or hangs.
//! - [`Aggregated`]: an API server beside Kubernetes' own, that can do little and may break.
//! - [`Hand`] and [`History`]: somebody else who changes objects, and a witness of every version.
//! - [`Feeder`]: what an API server looks like to an agent, for numbers that a real one does not hold.
//! - [`Agent`]: the `plumb` binary as a process that can be killed at any moment.
//! - [`wait_for`], [`golden`] and [`sample`]: what nearly every test needs.
//!
//! Whatever is started ends with the process that started it, even after SIGKILL: see
//! [`watchdog`].
#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test helper that cannot do its work must end the test, and a panic does that"
)]

pub mod agent;
mod aggregated;
pub mod control_plane;
mod feeder;
pub mod git;
mod golden;
mod history;
mod objects;
mod pki;
pub mod process;
pub mod proxy;
mod runtime;
pub mod sample;
mod scratch;
mod server;
pub mod tools;
pub mod wait;
pub mod watchdog;
mod webhook;

pub use agent::Agent;
pub use aggregated::Aggregated;
pub use control_plane::{Audit, AuditEvent, ControlPlane, Identity, Options, Requests};
pub use feeder::Feeder;
pub use git::{Change, GitRequest, GitServer, Gitea, HOST_KEYS, Repo, SshKey, Sshd};
pub use golden::golden;
pub use history::{History, Version};
pub use objects::{Hand, Kind, Refused};
pub use process::Process;
pub use proxy::{Exchange, Fault, Hold, Match, Proxy, Rule, RuleId};
pub use runtime::runtime;
pub use scratch::Scratch;
pub use tools::{Tool, ToolError, Tools};
pub use wait::wait_for;
pub use webhook::{Admission, Webhook};
