//! The listener that hooks come to.
//!
//! It answers from memory and does nothing itself: what a hook names is handed on, and whoever follows
//! it is asked to look. It is plain HTTP/1.1; TLS ends before it. Everything that a stranger can have
//! it spend is bounded: connections, time, headers, bodies, and the memory of all bodies together.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use super::Service;
use super::limits::{Bucket, Seen};
use super::payload::{self, News, Said};
use super::signature::{Check, Delivery, Secrets, Signed};

/// Requests under way at once. Services send one a push; more wait to be accepted.
const CONNECTIONS: usize = 64;

/// How long a client may take for its headers: those of a hook fit into one packet or two.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// How long a body may take. GitHub gives up after ten seconds itself.
const BODY_TIME: Duration = Duration::from_secs(10);

/// How long a connection may be there at all, whatever it does; it carries one request.
const CONNECTION_TIME: Duration = Duration::from_secs(20);

/// Room for all headers of a request. Real ones have about two thousand bytes.
const HEADER_BYTES: usize = 16 << 10;

/// How many headers there may be.
const HEADERS: usize = 64;

/// The longest body: GitHub, which lists up to 2,048 commits of a push, sends none that is longer.
/// <https://docs.github.com/en/webhooks/webhook-events-and-payloads#payload-cap>
const MOST_BYTES: usize = 25 << 20;

/// What every request may hold of its body without asking. Nearly all hooks are shorter.
const FREE_BYTES: usize = 64 << 10;

/// What all requests together may hold beyond that, in steps of [`STEP`]. Whether a body is signed is known
/// at its end only, so strangers who send large ones without a pause can have all of this.
const SHARED_STEPS: usize = 32;

/// A step of what is held.
const STEP: usize = 1 << 20;

/// So many wrong signatures are answered and told of at once, and one more after each pause. Above that
/// the answer is 429. Right ones are taken at any time: nobody can keep a service's hooks of up to
/// [`FREE_BYTES`] out by sending wrong ones.
const FAILURES: u32 = 20;

/// See [`FAILURES`].
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// How long a delivery is known, and how many are.
const SEEN_FOR: Duration = Duration::from_mins(10);

/// See [`SEEN_FOR`].
const SEEN_MOST: usize = 4096;

/// How much is read of a body that is not wanted, and for how long.
const DRAIN_BYTES: usize = 1 << 20;

/// See [`DRAIN_BYTES`].
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// When to come again while hooks cannot be taken.
const COME_AGAIN: Duration = Duration::from_secs(10);

/// How long answers that are on their way may take after the stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Who takes what the listener lets through.
pub trait Hooks: Send + Sync + 'static {
    /// The secrets that are accepted now; `None` while there are none.
    fn secrets(&self) -> Option<Arc<Secrets>>;

    /// Whether what is taken now is acted on.
    fn is_open(&self) -> bool;

    /// Asks all who follow what has news to look. Says how many do.
    fn take(&self, news: &News) -> usize;

    /// Counts an answer.
    fn count(&self, service: Service, outcome: Outcome);
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Somebody follows what it names, and looks.
    Asked,
    /// Nobody follows what it names.
    Nobody,
    /// It names nothing that could move, or tests the connection.
    Ignored,
    /// It came before.
    Repeated,
    /// No accepted secret signed it.
    Unsigned,
    /// It is too large, too slow, or not what the service's documentation says.
    Malformed,
    /// This process cannot take it now.
    Unavailable,
}

impl Outcome {
    /// In one word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Nobody => "nobody",
            Self::Ignored => "ignored",
            Self::Repeated => "repeated",
            Self::Unsigned => "unsigned",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// An answer, and what it is counted as.
struct Answer {
    outcome: Outcome,
    status: StatusCode,
    text: &'static str,
    retry: Option<Duration>,
}

impl Answer {
    fn new(outcome: Outcome, status: StatusCode, text: &'static str) -> Self {
        Self { outcome, status, text, retry: None }
    }

    fn malformed(status: StatusCode, text: &'static str) -> Self {
        Self::new(Outcome::Malformed, status, text)
    }

    fn unavailable(text: &'static str) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { retry: Some(COME_AGAIN), ..Self::new(Outcome::Unavailable, status, text) }
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = plain(self.status, self.text);
        if let Some(wait) = self.retry {
            // In whole seconds, not before its time.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A listener that is bound and not yet started.
#[derive(Debug)]
pub struct Receiver {
    listener: TcpListener,
    address: SocketAddr,
}

impl Receiver {
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

    /// Takes hooks until `stop` ends, then lets the answers that are on their way arrive.
    pub async fn serve(self, hooks: Arc<dyn Hooks>, stop: impl Future<Output = ()>) {
        let desk = Arc::new(Desk::new(hooks));
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let full = connections.len() >= CONNECTIONS;
            tokio::select! {
                () = &mut stop => break,
                _ = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.listener.accept(), if !full => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(converse(stream, Arc::clone(&desk)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection of a hook");
                        // Out of file descriptors, mostly.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(self.listener);
        let rest = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_ANSWERS, rest).await;
    }
}

/// One request on one connection: hooks are rare, and a connection that is kept is one that can be
/// held.
async fn converse(stream: TcpStream, desk: Arc<Desk>) {
    let service = service_fn(|request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of a hook ended early"),
        Err(_) => tracing::debug!("a connection of a hook took too long"),
    }
}

/// Where requests are answered.
struct Desk {
    hooks: Arc<dyn Hooks>,
    failures: Mutex<Bucket>,
    seen: Mutex<Seen<Delivery>>,
    memory: Semaphore,
}

impl Desk {
    fn new(hooks: Arc<dyn Hooks>) -> Self {
        Self {
            hooks,
            failures: Mutex::new(Bucket::new(FAILURES, FAILURE_PAUSE)),
            seen: Mutex::new(Seen::new(SEEN_FOR, SEEN_MOST)),
            memory: Semaphore::new(SHARED_STEPS),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let Some(service) = Service::of_path(request.uri().path()) else {
            return plain(StatusCode::NOT_FOUND, "there is nothing here\n");
        };
        if request.method() != Method::POST {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "hooks are posted\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let (head, mut body) = request.into_parts();
        let answer = match self.admit(service, &head.headers) {
            Ok(Admitted::Body(check)) => {
                self.receive(service, &head.headers, &mut body, check).await
            }
            Ok(Admitted::Test) => Ok(Answer::new(Outcome::Ignored, StatusCode::OK, PONG)),
            Err(answer) => Err(answer),
        };
        let (Ok(answer) | Err(answer)) = answer;
        // Who is still sending would see a connection that breaks instead of the answer.
        let _ = tokio::time::timeout(DRAIN_TIME, drain(&mut body)).await;
        self.hooks.count(service, answer.outcome);
        answer.response()
    }

    /// What can be said before the body is there.
    fn admit(&self, service: Service, headers: &HeaderMap) -> Result<Admitted, Answer> {
        if !self.hooks.is_open() {
            return Err(Answer::unavailable("another replica leads\n"));
        }
        let Some(secrets) = self.hooks.secrets() else {
            return Err(Answer::unavailable("there is no secret to check hooks with\n"));
        };
        if payload::is_unsigned_test(service, headers) {
            return Ok(Admitted::Test);
        }
        check_form(headers)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let check = Check::begin(service, headers, &secrets, now);
        check.map(Admitted::Body).ok_or_else(|| self.refuse(service))
    }

    async fn receive(
        &self,
        service: Service,
        headers: &HeaderMap,
        body: &mut Incoming,
        mut check: Check,
    ) -> Result<Answer, Answer> {
        let (body, _held) =
            tokio::time::timeout(BODY_TIME, self.read(body, &mut check)).await.map_err(
                |_| Answer::malformed(StatusCode::REQUEST_TIMEOUT, "the body is slow\n"),
            )??;
        let signed = check.finish().ok_or_else(|| self.refuse(service))?;
        match payload::read(service, headers, &body) {
            Ok(Said::Ping) => Ok(Answer::new(Outcome::Ignored, StatusCode::OK, PONG)),
            Ok(Said::Ignored) => {
                Ok(Answer::new(Outcome::Ignored, StatusCode::OK, "ignored: it moves no ref\n"))
            }
            Ok(Said::News(news)) => Ok(self.hand_on(service, signed, &news)),
            Err(error) => {
                tracing::warn!(service = service.as_str(), %error, "cannot read a hook");
                let text = "the signature holds, but the body is not one of this event\n";
                Err(Answer::malformed(StatusCode::BAD_REQUEST, text))
            }
        }
    }

    fn hand_on(&self, service: Service, signed: Signed, news: &News) -> Answer {
        if let Some(delivery) = signed.delivery
            && !lock(&self.seen).is_new(&delivery, now())
        {
            return Answer::new(Outcome::Repeated, StatusCode::OK, "it came before\n");
        }
        let asked = self.hooks.take(news);
        let service = service.as_str();
        // The same answer for all: who may send hooks need not learn what is followed here.
        let outcome = if asked == 0 { Outcome::Nobody } else { Outcome::Asked };
        if asked == 0 {
            // Escaped: it comes from outside.
            tracing::debug!(service, places = ?news.places, refs = ?news.refs, "nobody follows what a hook names");
        }
        Answer::new(outcome, StatusCode::ACCEPTED, "accepted\n")
    }

    /// The body, and the right to hold it.
    async fn read(
        &self,
        body: &mut Incoming,
        check: &mut Check,
    ) -> Result<(Vec<u8>, Vec<SemaphorePermit<'_>>), Answer> {
        let mut room = FREE_BYTES;
        let (mut bytes, mut held) = (Vec::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|_| Answer::malformed(StatusCode::BAD_REQUEST, "the body is cut\n"))?;
            let Ok(part) = frame.into_data() else { continue };
            let length = bytes.len() + part.len();
            if length > MOST_BYTES {
                return Err(too_large());
            }
            if length > room {
                let wanted = length.next_power_of_two().max(STEP);
                let steps =
                    (wanted.min(MOST_BYTES).div_ceil(STEP)).saturating_sub(held_steps(&held));
                let steps = u32::try_from(steps).unwrap_or(u32::MAX);
                let more = self.memory.try_acquire_many(steps).map_err(|_| {
                    Answer::unavailable("other hooks are too large at the moment\n")
                })?;
                held.push(more);
                room = held_steps(&held) * STEP;
                // No more than what is held: a vector would double by itself.
                bytes.reserve_exact(room - bytes.len());
            }
            check.update(&part);
            bytes.extend_from_slice(&part);
        }
        Ok((bytes, held))
    }

    /// The answer to who does not know a secret: the same whatever is wrong.
    fn refuse(&self, service: Service) -> Answer {
        match lock(&self.failures).take(now()) {
            Ok(()) => {
                tracing::warn!(
                    service = service.as_str(),
                    "a hook is not signed with an accepted secret"
                );
                let text = "the signature is missing or not of an accepted secret\n";
                Answer::new(Outcome::Unsigned, StatusCode::UNAUTHORIZED, text)
            }
            Err(wait) => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                let answer = Answer::new(Outcome::Unsigned, status, "too many wrong signatures\n");
                Answer { retry: Some(wait), ..answer }
            }
        }
    }
}

const PONG: &str = "hooks are taken here\n";

/// What the head of a request comes to.
enum Admitted {
    /// Its body is to be checked.
    Body(Check),
    /// It only tests the connection.
    Test,
}

/// Reads what is left of a body that nobody wants, if it is not much.
async fn drain(body: &mut Incoming) {
    let mut read = 0;
    while read < DRAIN_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

fn held_steps(held: &[SemaphorePermit<'_>]) -> usize {
    held.iter().map(SemaphorePermit::num_permits).sum()
}

fn too_large() -> Answer {
    Answer::malformed(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 25 MiB\n")
}

/// What the headers say of the body, before it is read.
fn check_form(headers: &HeaderMap) -> Result<(), Answer> {
    let unsupported = |text| Err(Answer::malformed(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return unsupported("send the body as it is, without an encoding\n");
    }
    if let Some(kind) = headers.get(CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return unsupported(
                "choose the content type application/json where the hook is set up\n",
            );
        }
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > MOST_BYTES) {
        return Err(too_large());
    }
    Ok(())
}

/// Tokio's clock, which is the system's monotonic one outside of tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Nothing of the caller's runs under this lock, so a panic cannot leave it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
