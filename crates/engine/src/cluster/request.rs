//! One call: time-out, tries, gate, and the answer's bytes.
//!
//! kube's own `request*` functions are not used. They log the whole body at WARN when decoding
//! fails, and a body can hold a Secret; [`kube::Client::send`] leaves reading to us.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::time::Instant;

use super::Cluster;
use super::error::{ApiError, Refusal};
use super::resource::{Resource, Target, encode};
use super::window::Inside;

/// Asks for an object's metadata instead of the object.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Asks for a list of metadata.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// Aggregated discovery, newest form first; servers without it answer in the plain form.
pub(super) const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
     application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
const JSON: &str = "application/json";

/// An object in etcd has at most 1.5 MB by default, and its metadata no more. Our own kinds, read
/// whole, are as small.
pub(super) const OBJECT_LIMIT: usize = 8 << 20;
/// A page of 500 objects is 1 to 2 MB of metadata; a page that is larger than this is asked for
/// again in smaller ones.
pub(super) const PAGE_LIMIT: usize = 32 << 20;
/// A Status is small; more than this is not one.
const STATUS_LIMIT: usize = 1 << 20;

/// Tries of a call that the server was too busy for, counting the first.
const BUSY_TRIES: u32 = 5;
/// Tries of a call that failed on the way, counting the first: enough for one server of several
/// to go away, few enough to notice that all did.
const BROKEN_TRIES: u32 = 3;
/// Waits between the latter, growing fourfold from this.
const BROKEN_WAIT: Duration = Duration::from_millis(100);
/// How long to wait when a busy server does not say.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// How much earlier than we the server is to give up, so that its answer arrives.
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// A try that has less time than this is not worth sending.
const LEAST_TRY: Duration = Duration::from_millis(100);
/// The longest wait that a server can ask for inside a call; above it the caller is told at once.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What the answer is asked to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Metadata,
    MetadataList,
    /// JSON as the server holds it.
    Whole,
    Discovery,
}

impl Answer {
    fn accept(self) -> &'static str {
        match self {
            Self::Metadata => METADATA,
            Self::MetadataList => METADATA_LIST,
            Self::Whole => JSON,
            Self::Discovery => DISCOVERY,
        }
    }
}

/// What a call may do when it is not known whether it was carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Doing it twice is the same as once.
    Safe,
    /// Only a call that was turned away at the door (HTTP 429) is sent again.
    IfRefused,
}

/// What a call is about; put in words only for an error.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    Object(Target<'a>),
    Collection(&'a Resource, Option<&'a str>),
    Words(&'a str),
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(target) => target.key().fmt(f),
            Self::Collection(resource, namespace) => f.write_str(&resource.collection(*namespace)),
            Self::Words(words) => f.write_str(words),
        }
    }
}

impl Subject<'_> {
    pub(super) fn is_secret(&self) -> bool {
        match self {
            Self::Object(target) => target.secret,
            Self::Collection(resource, _) => resource.is_secret(),
            Self::Words(_) => false,
        }
    }

    fn is_core(&self) -> bool {
        match self {
            Self::Object(target) => target.resource.gvk.group.is_empty(),
            Self::Collection(resource, _) => resource.gvk.group.is_empty(),
            Self::Words(_) => true,
        }
    }
}

/// One call, before it is sent.
pub(super) struct Call<'a> {
    /// A verb for errors.
    pub(super) operation: &'static str,
    pub(super) subject: Subject<'a>,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) answer: Answer,
    pub(super) body: Option<(&'static str, Bytes)>,
    pub(super) repeat: Repeat,
    /// The largest answer that is read.
    pub(super) limit: usize,
}

/// Parameters of a call.
#[derive(Clone, Default)]
pub(super) struct Query(String);

impl Query {
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&encode(value));
        self
    }
}

/// Which objects of a kind are meant.
#[derive(Clone, Default)]
pub(super) struct Selector {
    labels: String,
    name: String,
}

impl Selector {
    /// Those with these labels; all when it is empty.
    pub(super) fn labels(labels: &str) -> Self {
        Self { labels: labels.into(), name: String::new() }
    }

    /// The one of this name.
    pub(super) fn name(name: &str) -> Self {
        Self { labels: String::new(), name: name.into() }
    }

    pub(super) fn narrow(&self, mut query: Query) -> Query {
        if !self.labels.is_empty() {
            query = query.with("labelSelector", &self.labels);
        }
        if !self.name.is_empty() {
            query = query.with("fieldSelector", &format!("metadata.name={}", self.name));
        }
        query
    }
}

impl<'a> Call<'a> {
    /// A GET.
    pub(super) fn get(
        operation: &'static str,
        subject: Subject<'a>,
        path: String,
        answer: Answer,
    ) -> Self {
        Self {
            operation,
            subject,
            method: Method::GET,
            path,
            query: Query::default(),
            answer,
            body: None,
            repeat: Repeat::Safe,
            limit: OBJECT_LIMIT,
        }
    }

    fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    /// The request, for one try that has this long.
    fn request(
        &self,
        cluster: &Cluster,
        accept: &str,
        left: Option<Duration>,
    ) -> Result<Request<Body>, ApiError> {
        let mut query = self.query.clone();
        if let Some(left) = left.filter(|_| self.is_write()) {
            // So that the server does not carry out later what we have given up on, and says so
            // itself before we do.
            let asked = left.saturating_sub(ON_THE_WAY).max(left / 2);
            query = query.with("timeout", &format!("{}ms", asked.as_millis().max(1)));
        }
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(format!("{}{}", self.path, query.0))
            .header(ACCEPT, accept);
        if let Some((kind, _)) = &self.body {
            request = request.header(CONTENT_TYPE, *kind);
        }
        if left.is_none() {
            // Since Kubernetes 1.37 watches are compressed one event at a time, which readers of
            // one gzip stream take for its end.
            request = request.header(ACCEPT_ENCODING, "identity");
        }
        if let Some(agent) = &cluster.shared.options.user_agent {
            request = request.header(USER_AGENT, agent);
        }
        if let Some(user) = &cluster.user {
            request = request.header("impersonate-user", &**user);
        }
        let body = self.body.as_ref().map(|(_, body)| body.clone());
        request.body(Body::from(body.unwrap_or_default())).map_err(|error| {
            ApiError::Unaddressable {
                operation: self.operation,
                subject: self.subject.to_string(),
                what: error.to_string(),
            }
        })
    }

    pub(super) fn undecodable(&self, what: impl Into<String>) -> ApiError {
        ApiError::Decode {
            operation: self.operation,
            subject: self.subject.to_string(),
            what: what.into(),
        }
    }

    pub(super) fn transport(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ApiError {
        ApiError::Transport {
            operation: self.operation,
            subject: self.subject.to_string(),
            source: source.into(),
        }
    }

    fn timeout(&self, after: Duration) -> ApiError {
        ApiError::Timeout { operation: self.operation, subject: self.subject.to_string(), after }
    }

    async fn refusal(&self, response: Response<Body>) -> ApiError {
        let code = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let body = collect(response.into_body(), STATUS_LIMIT).await;
        let body = match body {
            Ok(Some(body)) => body,
            Ok(None) | Err(_) => Bytes::new(),
        };
        ApiError::Refused(Box::new(Refusal::read(
            self.operation,
            self.subject.to_string(),
            self.subject.is_secret(),
            code,
            retry_after,
            &body,
        )))
    }

    /// Sends it once, and again as far as that is of use, and reads the whole answer.
    pub(super) async fn send(&self, cluster: &Cluster) -> Result<Bytes, ApiError> {
        self.send_noting(cluster, &mut false).await
    }

    /// The same; notes whether it was sent again and an earlier try may have been carried out.
    pub(super) async fn send_noting(
        &self,
        cluster: &Cluster,
        repeated: &mut bool,
    ) -> Result<Bytes, ApiError> {
        let after = cluster.shared.options.request_timeout;
        let deadline = Instant::now() + after;
        tokio::time::timeout_at(deadline, self.tries(cluster, deadline, repeated))
            .await
            .unwrap_or_else(|_| Err(self.timeout(after)))
    }

    async fn tries(
        &self,
        cluster: &Cluster,
        deadline: Instant,
        repeated: &mut bool,
    ) -> Result<Bytes, ApiError> {
        let mut accept = self.answer.accept();
        let mut tries = 0;
        loop {
            tries += 1;
            let door = cluster.gated.then(|| cluster.shared.doors.of(cluster.user.as_ref()));
            let inside = match door {
                Some(door) => Some(door.enter().await),
                None => None,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if self.is_write() && !cluster.may_write(left) {
                return Err(ApiError::NotLeading {
                    operation: self.operation,
                    subject: self.subject.to_string(),
                });
            }
            let error = match self.attempt(cluster, accept, left).await {
                Ok(body) => {
                    inside.iter().for_each(Inside::answered);
                    return Ok(body);
                }
                Err(error) => error,
            };
            if let (Some(inside), Some(refusal)) = (&inside, error.refusal()) {
                if refusal.busy {
                    inside.busy(refusal.retry_after.unwrap_or(BUSY_WAIT).min(LONGEST_WAIT));
                } else {
                    inside.answered();
                }
            }
            drop(inside);
            // Old aggregated API servers cannot answer in metadata. Nothing was written then: the
            // form of the answer is settled first. Secrets never come this way.
            if accept != JSON
                && self.answer != Answer::Discovery
                && !self.subject.is_core()
                && error.refusal().is_some_and(|refusal| refusal.code == 406)
            {
                accept = JSON;
                continue;
            }
            let Some(wait) = wait(&error, self.repeat, tries) else {
                return Err(error);
            };
            if Instant::now() + wait + LEAST_TRY >= deadline {
                return Err(error);
            }
            *repeated |= !error.is_too_many_requests();
            tracing::debug!(
                operation = self.operation,
                subject = %self.subject,
                code = error.refusal().map(|refusal| refusal.code),
                ?wait,
                "asking the API server again"
            );
            tokio::time::sleep(wait).await;
        }
    }

    fn tell(&self, cluster: &Cluster, response: &Result<Response<Body>, kube::Error>) {
        if let Some(observer) = &cluster.shared.options.observer {
            let code = response.as_ref().map_or(0, |response| response.status().as_u16());
            observer.answered(self.operation, code);
        }
    }

    async fn attempt(
        &self,
        cluster: &Cluster,
        accept: &str,
        left: Duration,
    ) -> Result<Bytes, ApiError> {
        let request = self.request(cluster, accept, Some(left))?;
        let response = cluster.client.send(request).await;
        self.tell(cluster, &response);
        let response = response.map_err(|error| self.transport(error))?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let body = collect(response.into_body(), self.limit).await;
        let body = body.map_err(|error| self.transport(error))?;
        body.ok_or_else(|| ApiError::TooLarge {
            operation: self.operation,
            subject: self.subject.to_string(),
            limit: self.limit,
        })
    }

    /// Opens a stream, once; its answer is read by the caller.
    pub(super) async fn open(&self, cluster: &Cluster) -> Result<Body, ApiError> {
        let after = cluster.shared.options.request_timeout;
        let open = async {
            let mut accept = self.answer.accept();
            loop {
                let request = self.request(cluster, accept, None)?;
                let response = cluster.client.send(request).await;
                self.tell(cluster, &response);
                let response = response.map_err(|error| self.transport(error))?;
                if response.status().is_success() {
                    return Ok(response.into_body());
                }
                if response.status() == StatusCode::NOT_ACCEPTABLE
                    && accept != JSON
                    && !self.subject.is_core()
                {
                    accept = JSON;
                    continue;
                }
                return Err(self.refusal(response).await);
            }
        };
        tokio::time::timeout(after, open).await.unwrap_or_else(|_| Err(self.timeout(after)))
    }
}

/// How long to wait before the next try; `None` when there is to be none.
fn wait(error: &ApiError, repeat: Repeat, tries: u32) -> Option<Duration> {
    let broken = || {
        (repeat == Repeat::Safe && tries < BROKEN_TRIES).then(|| BROKEN_WAIT * 4_u32.pow(tries - 1))
    };
    match error {
        ApiError::Transport { .. } => broken(),
        ApiError::Refused(refusal) => match refusal.code {
            429 if tries < BUSY_TRIES => Some(refusal.retry_after.unwrap_or(BUSY_WAIT)),
            503 | 504 => broken().map(|wait| refusal.retry_after.unwrap_or(wait)),
            _ => None,
        },
        _ => None,
    }
    .filter(|wait| *wait <= LONGEST_WAIT)
}

/// The wait that a Retry-After header asks for. Dates are not understood: the API server sends
/// seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads a body; `None` when it is larger than the limit.
async fn collect(mut body: Body, limit: usize) -> Result<Option<Bytes>, kube::Error> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if all.len() + data.len() > limit {
                return Ok(None);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(Some(all.freeze()))
}

/// Writes JSON that reads the same as YAML. The server reads the body of an apply with a YAML
/// parser, which refuses some characters that JSON takes raw and folds others into spaces, but
/// takes all of them escaped. None is outside the basic plane, where YAML would not take JSON's
/// surrogate pairs.
pub(super) fn json_for_yaml(value: &serde_json::Value) -> Bytes {
    use std::io::{self, Write};

    struct Escaping;

    impl serde_json::ser::Formatter for Escaping {
        fn write_string_fragment<W: ?Sized + Write>(
            &mut self,
            writer: &mut W,
            fragment: &str,
        ) -> io::Result<()> {
            let mut rest = fragment;
            while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_trouble(*c)) {
                writer.write_all(&rest.as_bytes()[..at])?;
                write!(writer, "\\u{:04x}", u32::from(c))?;
                rest = &rest[at + c.len_utf8()..];
            }
            writer.write_all(rest.as_bytes())
        }
    }

    fn is_trouble(c: char) -> bool {
        matches!(
            c,
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
    }

    let mut bytes = Vec::new();
    // A `Value` has string keys only and a vector cannot fail, so neither can this.
    let _ = serde::Serialize::serialize(
        value,
        &mut serde_json::Serializer::with_formatter(&mut bytes, Escaping),
    );
    bytes.into()
}

#[cfg(test)]
mod tests;
