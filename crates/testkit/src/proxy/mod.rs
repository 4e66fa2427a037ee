//! A proxy that records what passes and injects faults.
//!
//! It stands between Plumb and the API server (TLS towards the server, plain HTTP towards Plumb,
//! so that it sees everything; the client's own token passes through) or a Git server.

mod exchange;
mod rule;

pub use exchange::{Exchange, Seen};
pub use rule::{Fault, Match, Rule, RuleId};

use crate::control_plane::ControlPlane;
use crate::runtime;
use crate::server::{Answer, Body, Cut, Handler, Server, full};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use exchange::Record;
use futures::stream;
use http::request::Parts;
use http::{HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use kube::{Client, Config};
use rule::{Action, Gate, Held, Kind, Rules};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Headers that are about one connection, not about the message (RFC 9110, 7.6.1), and those that
/// each side writes itself. Without Accept-Encoding no secret hides in a compressed body.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::ACCEPT_ENCODING,
    header::CONTENT_LENGTH,
];

/// A running proxy.
pub struct Proxy {
    server: Server,
    state: Arc<State>,
    seed: u64,
}

struct State {
    upstream: Client,
    started: Instant,
    records: Mutex<Vec<Arc<Record>>>,
    rules: Mutex<Rules>,
    partitioned: watch::Sender<bool>,
}

impl Proxy {
    /// In front of an API server. The seed decides what rules with a probability hit; it is
    /// printed, so that a failed run can be repeated.
    pub async fn to_api(plane: &ControlPlane, seed: u64) -> Proxy {
        let mut config = Config::new(plane.server().parse().expect("a URL"));
        let pem = plane.ca().lines().filter(|line| !line.starts_with("-----"));
        let der = STANDARD.decode(pem.collect::<String>());
        config.root_cert = Some(vec![der.expect("PEM is base64")]);
        Proxy::start(config, seed).await
    }

    /// In front of the API server of any cluster, as this says how to reach it. Who asks shows a token of
    /// his own.
    pub async fn to_cluster(config: Config, seed: u64) -> Proxy {
        Proxy::start(config, seed).await
    }

    /// In front of any server that speaks plain HTTP: `http://127.0.0.1:1234`.
    pub async fn to_http(base: &str, seed: u64) -> Proxy {
        Proxy::start(Config::new(base.parse().expect("a URL")), seed).await
    }

    #[expect(clippy::print_stderr, reason = "a failed test must show its seed")]
    async fn start(mut config: Config, seed: u64) -> Proxy {
        eprintln!("testkit: proxy to {} with seed {seed}", config.cluster_url);
        // What fails is for the client behind us to try again.
        config.default_retry = false;
        let upstream = runtime()
            .spawn(async { Client::try_from(config) })
            .await
            .expect("no panic in there")
            .expect("a client");
        let state = Arc::new(State {
            upstream,
            started: Instant::now(),
            records: Mutex::default(),
            rules: Mutex::new(Rules::new(seed)),
            partitioned: watch::Sender::new(false),
        });
        let handler: Arc<dyn Handler> = Arc::<State>::clone(&state);
        Proxy { server: Server::start(handler).await, state, seed }
    }

    /// Where clients connect to: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.server.base()
    }

    /// The same URL through this proxy: `http://127.0.0.1:PORT/app.git`.
    pub fn through(&self, url: &str) -> String {
        let (_scheme, rest) = url.split_once("://").expect("an absolute URL");
        format!("{}{}", self.url(), rest.find('/').map_or("", |start| &rest[start..]))
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Everything that passed so far, in the order of arrival.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.since(0)
    }

    /// Forgets what has ended, so that a long run does not fill the memory. Marks from before do not
    /// hold any more.
    pub fn forget(&self) {
        let mut records = self.state.records.lock().expect("not poisoned");
        records.retain(|record| Arc::strong_count(record) > 1);
    }

    /// How many requests have arrived: a mark for [`Proxy::since`].
    pub fn mark(&self) -> usize {
        self.state.records.lock().expect("not poisoned").len()
    }

    /// Everything that arrived after a mark.
    pub fn since(&self, mark: usize) -> Vec<Exchange> {
        let records = self.state.records.lock().expect("not poisoned");
        records[mark..].iter().map(|record| record.snapshot()).collect()
    }

    /// The responses that hold these bytes, as lines for a message: what a test on secrets wants
    /// empty.
    pub fn leaks(&self, bytes: impl AsRef<[u8]>) -> Vec<String> {
        let holds = |exchange: &Exchange| rule::contains(&exchange.response, bytes.as_ref());
        self.exchanges().iter().filter(|exchange| holds(exchange)).map(Exchange::line).collect()
    }

    /// Adds a rule behind those that are there.
    pub fn add(&self, rule: Rule) -> RuleId {
        let kind = Kind::Fault(rule.what.clone());
        self.rules(|rules| rules.add(rule, kind))
    }

    /// Removes a rule. What it stalls goes on.
    pub fn remove(&self, id: RuleId) {
        self.rules(|rules| rules.remove(|other| other != id));
    }

    /// Removes all rules and holds.
    pub fn clear(&self) {
        self.rules(|rules| rules.remove(|_id| false));
    }

    /// How often a rule hit, also after it was removed.
    pub fn hits(&self, id: RuleId) -> u32 {
        self.rules(|rules| rules.hits(id))
    }

    /// Holds the first such request before the server sees it. A client that goes away meanwhile
    /// takes the request with it.
    pub fn hold(&self, when: Match) -> Hold {
        self.held(when, Kind::HoldRequest)
    }

    /// Holds the answer to the first such request: the server has done what was asked, and the
    /// client does not know yet.
    pub fn hold_answer(&self, when: Match) -> Hold {
        self.held(when, Kind::HoldAnswer)
    }

    fn held(&self, when: Match, kind: fn(Held) -> Kind) -> Hold {
        let arrived = Arc::new(watch::Sender::new(None));
        let (release, released) = watch::channel(false);
        let hold = Hold { arrived: arrived.subscribe(), release };
        // The fault is never read; a hold is a kind of its own.
        let rule = Rule::new(when, Fault::Stall).times(1);
        self.rules(|rules| rules.add(rule, kind(Held { arrived, released })));
        hold
    }

    /// Cuts every exchange that is open and chosen, such as a watch, and returns how many.
    pub fn cut_open(&self, when: &Match) -> usize {
        let records = self.state.records.lock().expect("not poisoned");
        let open = records.iter().filter(|record| {
            !record.is_complete() && when.chooses(&record.request) && !*record.cut.borrow()
        });
        // Without a receiver the client or the server has ended it before.
        open.filter(|record| record.cut.send(true).is_ok()).count()
    }

    /// How many chosen exchanges, such as watches, go on now.
    pub fn open_of(&self, when: &Match) -> usize {
        let records = self.state.records.lock().expect("not poisoned");
        // Without a receiver the client or the server has ended it.
        let open = records.iter().filter(|record| {
            !record.is_complete()
                && when.chooses(&record.request)
                && !*record.cut.borrow()
                && record.cut.receiver_count() > 0
        });
        open.count()
    }

    /// How many exchanges go on now: waiting, held, or a response under way such as a watch's.
    pub fn open(&self) -> usize {
        let records = self.state.records.lock().expect("not poisoned");
        // The exchange itself holds its record, the list the other.
        records.iter().filter(|record| Arc::strong_count(record) > 1).count()
    }

    /// No byte passes for anybody, in open connections and new ones. Nothing is closed, as when a
    /// cable is pulled.
    pub fn partition(&self) {
        self.state.partitioned.send_replace(true);
    }

    /// Ends a partition: what waited goes on.
    pub fn heal(&self) {
        self.state.partitioned.send_replace(false);
    }

    /// Closes the port and every connection: clients are refused.
    pub async fn stop(&self) {
        self.server.down().await;
    }

    /// Listens again on the same port.
    pub async fn restart(&self) {
        self.server.up().await.expect("the port is still ours");
    }

    fn rules<T>(&self, work: impl FnOnce(&mut Rules) -> T) -> T {
        work(&mut self.state.rules.lock().expect("not poisoned"))
    }
}

/// A barrier at one request, released on drop.
#[derive(Debug)]
pub struct Hold {
    arrived: watch::Receiver<Option<Seen>>,
    release: watch::Sender<bool>,
}

impl Hold {
    /// Waits until the request, or its answer, is there and held.
    ///
    /// # Panics
    /// When `limit` has passed.
    pub async fn arrived(&mut self, limit: Duration) -> Seen {
        let arrived = self.arrived.wait_for(Option::is_some);
        let Ok(arrived) = tokio::time::timeout(limit, arrived).await else {
            panic!("waited {limit:?} for a request to hold")
        };
        let seen = arrived.expect("a hold that was not removed before any request arrived");
        seen.clone().expect("just looked")
    }

    /// Lets it go on.
    pub fn release(self) {
        self.release.send_replace(true);
    }
}

impl Held {
    async fn wait(mut self, seen: &Seen) {
        self.arrived.send_replace(Some(seen.clone()));
        // An error is a dropped Hold, which lets go too.
        let _dropped = self.released.wait_for(|released| *released).await;
    }
}

impl Handler for State {
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_gone| Cut)?.to_bytes();
            let seen = Seen {
                method: head.method.to_string(),
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or_default().to_owned(),
                user_agent: head
                    .headers
                    .get(header::USER_AGENT)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default()
                    .to_owned(),
                body: body.clone(),
            };
            let record = Arc::new(Record::new(seen.clone(), self.started.elapsed()));
            self.records.lock().expect("not poisoned").push(Arc::clone(&record));
            let action = self.rules.lock().expect("not poisoned").decide(&seen);
            match &action {
                Action::Pass => {}
                Action::Fault(fault, _gate) => record.fault(format!("{fault:?}")),
                Action::HoldRequest(_) => record.fault("held before the server".to_owned()),
                Action::HoldAnswer(_) => record.fault("answer held".to_owned()),
            }

            let mut shape = Shape::default();
            match action.clone() {
                Action::Pass | Action::HoldAnswer(_) => {}
                Action::HoldRequest(held) => held.wait(&seen).await,
                Action::Fault(fault, gate) => match fault {
                    Fault::Delay(time) => tokio::time::sleep(time).await,
                    Fault::Lag(time) => shape.lag = time,
                    Fault::CutBefore => return Err(Cut),
                    Fault::CutAfter => {}
                    Fault::CutBody(bytes) => shape.end = Some((bytes, End::Cut)),
                    Fault::EndBody(bytes) => shape.end = Some((bytes, End::Whole)),
                    Fault::Damage(at) => shape.damage = Some(at),
                    Fault::Status { code, retry_after } => {
                        return Ok(own(&record, status(code, retry_after)));
                    }
                    Fault::Answer { code, body } => {
                        let headers = [("content-type", "application/json".to_owned())];
                        return Ok(own(&record, answer(code, &headers, body.into())));
                    }
                    Fault::Respond { code, headers, body } => {
                        return Ok(own(&record, answer(code, &headers, body.into())));
                    }
                    Fault::Quote { code } => return Ok(own(&record, quoted(code, &head))),
                    Fault::Expired => return Ok(own(&record, expired())),
                    Fault::Stall => opened(gate).await,
                    Fault::Partition => {
                        self.partitioned.send_replace(true);
                    }
                },
            }
            self.connected().await;

            let mut request = Request::from_parts(head, kube::client::Body::from(body.to_vec()));
            for name in HOP_BY_HOP {
                request.headers_mut().remove(name);
            }
            let response = match self.upstream.send(request).await {
                Ok(response) => response,
                Err(error) => {
                    record.fault(format!("the server did not answer: {error}"));
                    return Err(Cut);
                }
            };
            self.connected().await;
            match action {
                Action::HoldAnswer(held) => held.wait(&seen).await,
                Action::Fault(Fault::CutAfter, _gate) => return Err(Cut),
                _ => {}
            }
            record.status(response.status().as_u16());
            Ok(self.recorded(record, response, shape))
        })
    }
}

impl State {
    async fn connected(&self) {
        let mut partitioned = self.partitioned.subscribe();
        let _closed = partitioned.wait_for(|partitioned| !partitioned).await;
    }

    /// Passes the body on piece by piece and notes what passed.
    fn recorded(
        self: Arc<Self>,
        record: Arc<Record>,
        response: Response<kube::client::Body>,
        shape: Shape,
    ) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        if matches!(shape.end, Some((_, End::Whole))) {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        for name in HOP_BY_HOP {
            // The length stays true: a body that is cut must be shorter than it promised.
            if name != header::CONTENT_LENGTH {
                head.headers.remove(name);
            }
        }
        // Nobody asks for more of a body whose promised length is there.
        let promised = head
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if promised == Some(0) {
            record.complete();
        }
        let flow = Flow {
            promised,
            cut: record.cut.subscribe(),
            state: self,
            record,
            body,
            shape,
            sent: 0,
            passed: None,
        };
        let frames = stream::try_unfold(flow, |mut flow| async move {
            Ok(flow.next().await?.map(|piece| (Frame::data(piece), flow)))
        });
        Response::from_parts(head, BodyExt::boxed_unsync(StreamBody::new(frames)))
    }
}

/// What becomes of a response body on its way.
#[derive(Default)]
struct Shape {
    /// Bytes after which it ends, and how.
    end: Option<(usize, End)>,
    /// The place of a byte that is changed.
    damage: Option<usize>,
    /// How much later each piece is passed on.
    lag: Duration,
}

#[derive(Clone, Copy)]
enum End {
    /// The connection is closed.
    Cut,
    /// As if it were whole.
    Whole,
}

/// One response on its way.
struct Flow {
    state: Arc<State>,
    record: Arc<Record>,
    body: kube::client::Body,
    cut: watch::Receiver<bool>,
    /// Bytes that the server still owes.
    promised: Option<usize>,
    shape: Shape,
    /// Bytes that were passed on.
    sent: usize,
    /// When the last piece was.
    passed: Option<Instant>,
}

impl Flow {
    async fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        let left = match self.shape.end {
            None => usize::MAX,
            Some((bytes, _)) if self.sent < bytes => bytes - self.sent,
            Some((_, End::Cut)) => return Err(Cut),
            Some((_, End::Whole)) => {
                self.record.complete();
                return Ok(None);
            }
        };
        let frame = tokio::select! {
            _ = self.cut.wait_for(|cut| *cut) => return Err(Cut),
            frame = self.body.frame() => frame,
        };
        // What comes in a burst is late together, lest it piles up.
        let lag = self.shape.lag;
        if !lag.is_zero() && self.passed.is_none_or(|at| at.elapsed() >= lag) {
            tokio::time::sleep(lag).await;
        }
        self.passed = Some(Instant::now());
        tokio::select! {
            _ = self.cut.wait_for(|cut| *cut) => return Err(Cut),
            () = self.state.connected() => {}
        }
        match frame {
            None => {
                self.record.complete();
                Ok(None)
            }
            Some(Err(_broken)) => Err(Cut),
            Some(Ok(frame)) => {
                let mut piece = frame.into_data().unwrap_or_default();
                piece.truncate(left);
                piece = self.damaged(piece);
                self.sent += piece.len();
                self.record.received(&piece);
                self.promised = self.promised.map(|owed| owed.saturating_sub(piece.len()));
                if self.promised == Some(0) {
                    self.record.complete();
                }
                Ok(Some(piece))
            }
        }
    }
}

impl Flow {
    fn damaged(&self, piece: Bytes) -> Bytes {
        let place = self.shape.damage.and_then(|at| at.checked_sub(self.sent));
        let Some(at) = place.filter(|at| *at < piece.len()) else { return piece };
        let mut bytes = piece.to_vec();
        bytes[at] ^= 0x55;
        bytes.into()
    }
}

async fn opened(mut gate: Gate) {
    let _gone = gate.wait_for(|gone| *gone).await;
}

/// An answer of the proxy itself.
fn own(record: &Record, response: Response<Bytes>) -> Response<Body> {
    record.status(response.status().as_u16());
    record.received(response.body());
    record.complete();
    response.map(full)
}

/// What an API server says when it is overloaded, starting or broken.
fn status(code: u16, retry_after: Option<u32>) -> Response<Bytes> {
    let code = StatusCode::from_u16(code).expect("an HTTP status");
    let reason = match code.as_u16() {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    let mut body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("testkit: injected {code}"),
        "reason": reason,
        "code": code.as_u16(),
    });
    let mut response = Response::builder().status(code).header("content-type", "application/json");
    if let Some(seconds) = retry_after {
        response = response.header(header::RETRY_AFTER, seconds);
        body["details"] = json!({ "retryAfterSeconds": seconds });
    }
    response.body(body.to_string().into()).expect("a response")
}

fn answer(code: u16, headers: &[(&str, String)], body: Bytes) -> Response<Bytes> {
    let mut response = Response::builder().status(code);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(body).expect("a response")
}

/// Says what the client sent of itself: in clear words, in headers, in a place to go to, and as an
/// error of Git.
fn quoted(code: u16, head: &Parts) -> Response<Bytes> {
    let sent = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.unwrap_or("nothing");
    let pair = sent.strip_prefix("Basic ").and_then(|pair| STANDARD.decode(pair).ok());
    let words = format!("{sent} {}", String::from_utf8_lossy(&pair.unwrap_or_default()));
    let dashes = words.replace([' ', ':', '='], "-");
    let kind = if head.method == Method::GET { "advertisement" } else { "result" };
    let body = format!("{:04x}ERR {words}", words.len() + 8);
    let headers = [
        ("content-type", format!("application/x-git-upload-pack-{kind}")),
        ("location", format!("/{dashes}/info/refs?service=git-upload-pack&x={dashes}")),
        ("www-authenticate", words.clone()),
        ("x-words", words),
    ];
    answer(code, &headers, body.into())
}

/// A watch begins with 200 whatever its resource version; that it is too old is its first event.
fn expired() -> Response<Bytes> {
    let event = json!({
        "type": "ERROR",
        "object": {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "too old resource version: 1 (2)",
            "reason": "Expired",
            "code": 410,
        },
    });
    Response::builder()
        .header("content-type", "application/json")
        .body(format!("{event}\n").into())
        .expect("a response")
}
