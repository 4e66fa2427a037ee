//! Testkit against the real thing. One binary, so that one control plane serves all of it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests; only the tests themselves are exempt")]

mod agent;
mod control_plane;
mod faults;
mod git_server;
mod history;
mod watchdog;
