//! The small HTTP server: `/livez`, `/readyz` and `/metrics`.
//!
//! It answers from memory and touches neither the cluster nor Git, so a probe costs nothing and
//! cannot hang on what it watches.

use std::{
    collections::BTreeSet,
    future::{Future, IntoFuture},
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};
use tracing::warn;

use crate::{
    lease::{LeaderState, Leadership},
    metrics::Metrics,
};

/// The media type of OpenMetrics text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long answers that are on their way may take after the stop. They are small and made from
/// memory, so whoever has not read one by then reads nothing any more.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Shows that the main loop goes round; clones share one heart.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    last: Arc<Mutex<Instant>>,
}

impl Default for Heartbeat {
    /// A heart that has just beaten.
    fn default() -> Self {
        Self { last: Arc::new(Mutex::new(now())) }
    }
}

impl Heartbeat {
    /// The main loop went round.
    pub fn beat(&self) {
        *lock(&self.last) = now();
    }

    /// How long ago that was last.
    pub fn age(&self) -> Duration {
        now().saturating_duration_since(*lock(&self.last))
    }
}

/// Shows which caches still have to be filled; clones share the list.
#[derive(Debug, Clone)]
pub struct Readiness {
    missing: watch::Sender<BTreeSet<&'static str>>,
}

impl Readiness {
    /// Nothing in this list is filled yet.
    pub fn new(caches: impl IntoIterator<Item = &'static str>) -> Self {
        Self { missing: watch::Sender::new(caches.into_iter().collect()) }
    }

    /// A cache has been filled.
    pub fn filled(&self, cache: &str) {
        self.missing.send_if_modified(|missing| missing.remove(cache));
    }

    /// Waits until every cache is filled.
    pub async fn complete(&self) {
        let mut missing = self.missing.subscribe();
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = missing.wait_for(BTreeSet::is_empty).await;
    }
}

/// What the server tells about.
#[derive(Debug, Clone)]
pub struct Probes {
    /// The main loop's heart.
    pub heartbeat: Heartbeat,
    /// The age of its last beat from which `/livez` fails, and the kubelet restarts the container.
    pub stale_after: Duration,
    /// The caches that `/readyz` waits for.
    pub readiness: Readiness,
    /// Who leads; told by `/readyz`, which a standby passes as well.
    pub leadership: Leadership,
    /// What `/metrics` shows.
    pub metrics: Metrics,
}

/// A server that is bound and not yet started.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds an address; port 0 picks a free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address it is bound to, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` ends, then lets the answers that are on their way arrive.
    pub async fn serve(self, probes: Probes, stop: impl Future<Output = ()>) -> io::Result<()> {
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(probes);
        let (tell, told) = oneshot::channel::<()>();
        let server = axum::serve(self.listener, router).with_graceful_shutdown(async {
            // Told by dropping the other end.
            let _ = told.await;
        });
        let mut server = pin!(server.into_future());
        tokio::select! {
            served = &mut server => return served,
            () = stop => drop(tell),
        }
        tokio::time::timeout(LAST_ANSWERS, server).await.unwrap_or(Ok(()))
    }
}

async fn livez(State(probes): State<Probes>) -> Response {
    let age = probes.heartbeat.age();
    if age < probes.stale_after {
        return "ok\n".into_response();
    }
    let text = format!("the main loop has not gone round for {} s\n", age.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn readyz(State(probes): State<Probes>) -> Response {
    let missing: Vec<&str> = probes.readiness.missing.borrow().iter().copied().collect();
    if !missing.is_empty() {
        let text = format!("not ready: waiting for {}\n", missing.join(", "));
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let state = probes.leadership.subscribe().borrow().clone();
    let mut text = match state {
        LeaderState::Leading { epoch } => format!("ready: leading, epoch {epoch}\n"),
        LeaderState::Standby { holder: Some(holder) } => {
            format!("ready: standing by, {holder} leads\n")
        }
        LeaderState::Standby { holder: None } => "ready: standing by, nobody leads\n".into(),
    };
    if let Some(problem) = probes.leadership.problem() {
        text.push_str("the lease cannot be reached: ");
        text.push_str(&problem);
        text.push('\n');
    }
    text.into_response()
}

async fn metrics(State(probes): State<Probes>) -> Response {
    match probes.metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            warn!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Nothing of the caller's runs under this lock, so a panic cannot leave it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tokio's clock, which is the system's monotonic one outside of tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
