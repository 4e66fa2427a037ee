//! What passed through a proxy.

use bytes::Bytes;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;

/// A request as the proxy saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, `POST`, `PATCH`, ...
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Query without the question mark, still encoded.
    pub query: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// The whole body.
    pub body: Bytes,
}

/// A request and what became of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The request.
    pub request: Seen,
    /// When it arrived, since the proxy was started.
    pub at: Duration,
    /// Status that the client got, nothing while it waits or when it was cut.
    pub status: Option<u16>,
    /// What the client got of the response body so far; of a watch all events.
    pub response: Bytes,
    /// Whether the response was passed on to its end.
    pub complete: bool,
    /// The fault that was injected, in words.
    pub fault: Option<String>,
}

impl Exchange {
    /// `PATCH /api/v1/... -> 200`, for messages.
    pub fn line(&self) -> String {
        let Seen { method, path, query, .. } = &self.request;
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let status = self.status.map_or_else(|| "nothing".to_owned(), |code| code.to_string());
        let fault = self.fault.as_ref().map_or_else(String::new, |fault| format!(" ({fault})"));
        format!("{method} {path}{query} -> {status}{fault}")
    }
}

/// An exchange while it lasts.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) request: Seen,
    pub(super) at: Duration,
    /// Set to cut the response.
    pub(super) cut: watch::Sender<bool>,
    result: Mutex<Result>,
}

#[derive(Debug, Default)]
struct Result {
    status: Option<u16>,
    response: Vec<u8>,
    complete: bool,
    fault: Option<String>,
}

impl Record {
    pub(super) fn new(request: Seen, at: Duration) -> Record {
        Record { request, at, cut: watch::Sender::new(false), result: Mutex::default() }
    }

    pub(super) fn status(&self, status: u16) {
        self.result.lock().expect("not poisoned").status = Some(status);
    }

    pub(super) fn received(&self, piece: &[u8]) {
        self.result.lock().expect("not poisoned").response.extend_from_slice(piece);
    }

    pub(super) fn complete(&self) {
        self.result.lock().expect("not poisoned").complete = true;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.result.lock().expect("not poisoned").complete
    }

    pub(super) fn fault(&self, what: String) {
        self.result.lock().expect("not poisoned").fault = Some(what);
    }

    pub(super) fn snapshot(&self) -> Exchange {
        let result = self.result.lock().expect("not poisoned");
        Exchange {
            request: self.request.clone(),
            at: self.at,
            status: result.status,
            response: Bytes::copy_from_slice(&result.response),
            complete: result.complete,
            fault: result.fault.clone(),
        }
    }
}
