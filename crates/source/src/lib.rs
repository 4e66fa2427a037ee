//! Turns a URL and a ref into a verified commit whose tree is read straight from the object
//! database.
//!
//! [`Mirrors`] keeps one bare repository per URL and credential. [`Mirrors::resolve`] asks the
//! server for one reference and fetches its commit, without history, if it is new;
//! [`Mirrors::snapshot`] opens a commit as a [`plumb_core::Tree`] without any network.
//! [`Mirrors::verify`] says who signed a commit, or the tag that leads to it.
//!
//! Everything here blocks; asynchronous callers use a thread for it and [`Cancel`] to get it back.
//!
//! Invariants: no work tree, no hooks, no filters, nothing from a repository is ever run; no
//! credential in an error or a log; no unsafe code; the only home of git2.

#![forbid(unsafe_code)]

mod address;
mod agents;
mod board;
mod call;
mod cancel;
mod care;
mod concerns;
mod error;
mod github;
mod gitmodules;
mod history;
mod http;
mod listings;
mod lookup;
mod mask;
mod mirror;
mod mirrors;
mod pause;
mod pkt;
mod polls;
mod reference;
mod remote;
mod room;
mod session;
mod snapshot;
mod ssh;
mod submodules;
mod tags;
mod tidy;
mod unpack;
mod verify;
mod version;
mod wire;

pub use address::is_ssh;
pub use cancel::Cancel;
pub use concerns::Concerns;
pub use error::{Cause, SourceError};
pub use github::{GitHubApp, Installation};
pub use history::Descent;
pub use mirrors::{Limits, Looked, Mirrors, Question, Traffic};
pub use reference::{CommitId, Reference, Resolved, Revision};
pub use remote::{
    ClientCertificate, Credentials, Proxy, ProxyLogin, Remote, Tls, Way, same_mirror,
};
pub use snapshot::{CommitInfo, Snapshot};
pub use submodules::Ask;
pub use tags::TagId;
pub use tidy::{Moment, Usage};
pub use verify::{
    KeysError, Mode, Refusal, Signer, Tagged, TrustedKeys, Verified, verify_commit, verify_tag,
};
