//! An API server for unit tests that answers from a script, in the order of its lines, and keeps
//! what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use tokio::time::Instant;
use tower::BoxError;

use super::{Cluster, ClusterOptions};

/// One answer.
pub(crate) enum Says {
    /// A status, a Retry-After in seconds and a body.
    Status(u16, Option<u64>, String),
    /// HTTP 200 and a body in pieces, then the end.
    Pieces(Vec<String>),
    /// The same, then the connection breaks.
    Breaks(Vec<String>),
    /// The same, then silence.
    Stays(Vec<String>),
    /// No connection.
    Refuses,
    /// No answer.
    Hangs,
}

impl Says {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self::Status(200, None, body.into())
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) after: Duration,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A parameter of the query, decoded as far as tests need it.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let (_, query) = self.uri.split_once('?')?;
        let value = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)?
            .1;
        Some(value.replace("%2F", "/").replace("%3D", "="))
    }
}

/// The server.
#[derive(Clone)]
pub(crate) struct Script {
    answers: Arc<Mutex<VecDeque<Says>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Script {
    pub(crate) fn new(answers: impl IntoIterator<Item = Says>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), asked: Arc::default() }
    }

    /// A cluster before this server, with a time-out of 30 s.
    pub(crate) fn cluster(&self) -> Cluster {
        self.cluster_with(|_| {})
    }

    pub(crate) fn cluster_with(&self, change: impl FnOnce(&mut ClusterOptions)) -> Cluster {
        let mut options = ClusterOptions {
            request_timeout: Duration::from_secs(30),
            user_agent: Some("plumb/test".into()),
            gate: None,
            observer: None,
            seed: 7,
        };
        change(&mut options);
        let (script, begin) = (self.clone(), Instant::now());
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            async move { script.answer(request, begin).await }
        });
        Cluster::new(kube::Client::new(service, "default"), options)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Whether every line was said.
    pub(crate) fn is_done(&self) -> bool {
        self.answers.lock().unwrap().is_empty()
    }

    async fn answer(
        &self,
        request: Request<Body>,
        begin: Instant,
    ) -> Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        self.asked.lock().unwrap().push(Asked {
            method: parts.method,
            uri: parts.uri.to_string(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec())?,
            after: begin.elapsed(),
        });
        let says = self.answers.lock().unwrap().pop_front();
        let Some(says) = says else {
            return Err("the script has ended".into());
        };
        let mut response = Response::builder();
        let (pieces, end) = match says {
            Says::Status(code, retry_after, body) => {
                response = response.status(code);
                if let Some(seconds) = retry_after {
                    response = response.header("retry-after", seconds);
                }
                (vec![body], stream::empty().boxed())
            }
            Says::Pieces(pieces) => (pieces, stream::empty().boxed()),
            Says::Breaks(pieces) => {
                let error = BoxError::from("the connection was reset");
                (pieces, stream::iter([Err(error)]).boxed())
            }
            Says::Stays(pieces) => (pieces, stream::pending().boxed()),
            Says::Refuses => return Err("connection refused".into()),
            Says::Hangs => std::future::pending().await,
        };
        let frames = stream::iter(pieces).map(|piece| Ok(Frame::data(Bytes::from(piece))));
        Ok(response.body(StreamBody::new(frames.chain(end)).boxed_unsync())?)
    }
}
