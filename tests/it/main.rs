//! The `plumb` binary against a real control plane and real Git servers.
//!
//! One binary, so that one control plane serves all of it; each test has a namespace, a Git server
//! and an agent of its own, and looks at nothing else.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]
#![expect(clippy::print_stdout, reason = "seeds, times and messages to people, to be read")]

mod adopt;
mod applying;
mod bad_input;
mod bounds;
mod cache;
mod checks;
mod claims;
mod cli;
mod clock;
mod counts;
mod credentials;
mod decided;
mod decryption;
mod deletion;
mod dependencies;
mod drift;
mod end;
mod fairness;
mod faults;
mod gitea;
mod guard;
mod handover;
mod inherit;
mod install;
mod kept;
mod kinds;
mod kustomize;
mod leader;
mod logs;
mod main_job;
mod marks;
mod nested;
mod ordering;
mod outage;
mod ownership;
mod pinning;
mod pods;
mod polling;
#[path = "../../crates/source/tests/it/programs.rs"]
#[expect(dead_code, reason = "it is shared, and not all of it is used here")]
#[expect(clippy::expect_used, reason = "it says which program is missing")]
mod programs;
mod quiet;
mod races;
mod receiver;
mod restart;
mod restored;
mod retry;
mod rewrite;
mod running;
mod scope;
mod scrape;
mod secrecy;
mod secrets;
#[path = "../../crates/source/tests/it/signers.rs"]
#[expect(dead_code, reason = "it is shared, and not all of it is used here")]
mod signers;
mod ssh;
mod submodules;
mod tampering;
mod tenants;
mod torture;
mod uninstall;
mod values;
mod verification;
mod waiting;
mod world;
