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
            Self::Object(target) => target.resource.is_secret(),
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
            // So that the server does not carry out later what we have given up on.
            query = query.with("timeout", &format!("{}ms", left.as_millis().max(1)));
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
        let after = cluster.shared.options.request_timeout;
        let deadline = Instant::now() + after;
        tokio::time::timeout_at(deadline, self.tries(cluster, deadline))
            .await
            .unwrap_or_else(|_| Err(self.timeout(after)))
    }

    async fn tries(&self, cluster: &Cluster, deadline: Instant) -> Result<Bytes, ApiError> {
        let mut accept = self.answer.accept();
        let mut tries = 0;
        loop {
            tries += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            if self.is_write() && !cluster.may_write(left) {
                return Err(ApiError::NotLeading {
                    operation: self.operation,
                    subject: self.subject.to_string(),
                });
            }
            let error = match self.attempt(cluster, accept, left).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
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
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
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

    async fn attempt(
        &self,
        cluster: &Cluster,
        accept: &str,
        left: Duration,
    ) -> Result<Bytes, ApiError> {
        let request = self.request(cluster, accept, Some(left))?;
        let response = cluster.client.send(request).await;
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
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use plumb_core::Gvk;
    use serde_json::json;

    use super::super::script::{Says, Script};
    use super::super::{ApplyHow, Deleted, Propagation, WriteGate};
    use super::*;

    const LIVE: &str = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"a","uid":"u","resourceVersion":"5"}}"#;
    const FIRST: ApplyHow = ApplyHow { force: false, dry_run: false };

    fn secrets() -> Resource {
        Resource::known(Gvk::new("v1", "Secret"), "secrets", true)
    }

    fn things() -> Resource {
        Resource::known(Gvk::new("example.com/v1", "Thing"), "things", true)
    }

    fn busy(seconds: u64) -> Says {
        Says::Status(429, Some(seconds), "Too many requests".into())
    }

    fn down() -> Says {
        Says::Status(503, None, String::new())
    }

    async fn apply(script: &Script) -> Result<crate::live::Live, ApiError> {
        let secrets = secrets();
        script
            .cluster()
            .apply(&Target::new(&secrets, "web", "a"), &json!({}), "plumb:a/b", FIRST)
            .await
    }

    #[tokio::test]
    async fn requests_are_what_the_server_expects() {
        let secrets = secrets();
        let to = Target::new(&secrets, "web", "a");
        let script = Script::new((0..9).map(|_| Says::ok(LIVE)));
        let cluster = script.cluster();
        let dry = ApplyHow { force: true, dry_run: true };
        cluster.apply(&to, &json!({"a": 1}), "plumb:web/x", FIRST).await.unwrap();
        cluster
            .as_user("system:serviceaccount:web:x")
            .apply(&to, &json!({}), "m", dry)
            .await
            .unwrap();
        cluster.apply_status(&to, &json!({}), "m", FIRST).await.unwrap();
        cluster.merge_status(&to, &json!({}), "m").await.unwrap();
        cluster.merge_patch(&to, &json!({}), "m").await.unwrap();
        cluster.json_patch(&to, &json!([]), None).await.unwrap();
        cluster.create(&secrets, "web", &json!({})).await.unwrap();
        cluster.get_metadata(&to).await.unwrap().unwrap();
        let gone = cluster.delete(&to, "u", Some(5), Propagation::Background).await;
        assert_eq!(gone.unwrap(), Deleted::Gone);
        let path = "/api/v1/namespaces/web/secrets";
        let expected = [
            (
                "PATCH",
                format!("{path}/a?fieldManager=plumb:web%2Fx&fieldValidation=Strict&force=false"),
                APPLY,
            ),
            (
                "PATCH",
                format!("{path}/a?fieldManager=m&fieldValidation=Strict&force=true&dryRun=All"),
                APPLY,
            ),
            (
                "PATCH",
                format!("{path}/a/status?fieldManager=m&fieldValidation=Strict&force=false"),
                APPLY,
            ),
            ("PATCH", format!("{path}/a/status?fieldManager=m"), "application/merge-patch+json"),
            ("PATCH", format!("{path}/a?fieldManager=m"), "application/merge-patch+json"),
            ("PATCH", format!("{path}/a"), "application/json-patch+json"),
            ("POST", path.to_string(), JSON),
            ("GET", format!("{path}/a"), ""),
            ("DELETE", format!("{path}/a"), JSON),
        ];
        let asked = script.asked();
        assert_eq!(asked.len(), expected.len());
        for (asked, (method, uri, kind)) in asked.iter().zip(&expected) {
            let (begin, timeout) = asked.uri.split_once("timeout=").unwrap_or((&asked.uri, ""));
            assert_eq!(asked.method.as_str(), *method);
            assert_eq!(begin.trim_end_matches(['?', '&']), uri);
            assert_eq!(asked.header("content-type"), *kind);
            assert_eq!(asked.header("accept"), METADATA);
            assert_eq!(asked.header("user-agent"), "plumb/test");
            // The server is told how long a write may take.
            assert_eq!(timeout.is_empty(), *method == "GET", "{}", asked.uri);
        }
        assert_eq!(asked[0].body, r#"{"a":1}"#);
        assert_eq!(asked[0].header("impersonate-user"), "");
        assert_eq!(asked[1].header("impersonate-user"), "system:serviceaccount:web:x");
        let options: serde_json::Value = serde_json::from_str(&asked[8].body).unwrap();
        assert_eq!(options["preconditions"], json!({"uid": "u", "resourceVersion": "5"}));
        assert_eq!(options["propagationPolicy"], "Background");
    }

    const APPLY: &str = "application/apply-patch+yaml";

    #[tokio::test]
    async fn what_cannot_be_addressed_is_not_sent() {
        let secrets = secrets();
        let script = Script::new([]);
        let cluster = script.cluster();
        let escaping = Target::new(&secrets, "web", "../../nodes");
        let error = cluster.get_metadata(&escaping).await.unwrap_err();
        assert!(matches!(error, ApiError::Unaddressable { .. }));
        let error = cluster
            .as_user("a\nb")
            .get_metadata(&Target::new(&secrets, "web", "a"))
            .await
            .unwrap_err();
        assert!(matches!(error, ApiError::Unaddressable { .. }));
        assert!(script.asked().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_asked_again_when_it_wants() {
        let script = Script::new([busy(2), busy(3), Says::ok(LIVE)]);
        assert_eq!(apply(&script).await.unwrap().resource_version, 5);
        let times: Vec<u64> = script.asked().iter().map(|asked| asked.after.as_secs()).collect();
        assert_eq!(times, [0, 2, 5]);
        // The later tries tell the server how much less time they have.
        let left = script.asked()[2].parameter("timeout").unwrap();
        let left: u64 = left.strip_suffix("ms").unwrap().parse().unwrap();
        assert!((24_900..=25_000).contains(&left), "{left}");
    }

    #[tokio::test(start_paused = true)]
    async fn tries_end() {
        let stays_busy = || (0..9).map(|_| busy(1));
        for (answers, tries) in [
            (stays_busy().collect::<Vec<_>>(), 5),
            // Longer than is waited for inside a call, or than the call may take.
            (vec![busy(60)], 1),
            (vec![busy(10), busy(10), busy(10), busy(10)], 3),
            ((0..9).map(|_| down()).collect(), 3),
            ((0..9).map(|_| Says::Refuses).collect(), 3),
            (vec![Says::Status(500, None, String::new())], 1),
            (vec![Says::Status(409, None, String::new())], 1),
        ] {
            let script = Script::new(answers);
            let error = apply(&script).await.unwrap_err();
            assert_eq!(script.asked().len(), tries, "{error}");
            if let Some(refusal) = error.refusal().filter(|refusal| refusal.code == 429) {
                assert!(refusal.retry_after.is_some());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_safe_to_repeat_is_not_repeated() {
        let secrets = secrets();
        let to = Target::new(&secrets, "web", "a");
        for (answer, tries) in [(down(), 1), (Says::Refuses, 1), (busy(1), 2)] {
            let script = Script::new([answer, Says::ok(LIVE)]);
            let _ = script.cluster().json_patch(&to, &json!([]), None).await;
            assert_eq!(script.asked().len(), tries);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_call_ends_in_time() {
        let script = Script::new([Says::Hangs]);
        let error = apply(&script).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot apply Secret web/a: no answer within 30 s");
        // Also when the answer only begins.
        let script = Script::new([Says::Stays(vec!["{".into()])]);
        assert!(matches!(apply(&script).await, Err(ApiError::Timeout { .. })));
    }

    /// Admits a number of writes.
    struct Few(AtomicU32);

    impl WriteGate for Few {
        fn admit(&self, needs: Duration) -> bool {
            assert!(needs <= Duration::from_secs(30) && !needs.is_zero());
            self.0
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_lead_sends_nothing() {
        let secrets = secrets();
        let to = Target::new(&secrets, "web", "a");
        let script = Script::new([busy(1), Says::ok(LIVE), Says::ok(LIVE), Says::ok(LIVE)]);
        let gate = Arc::new(Few(AtomicU32::new(1)));
        let cluster = script.cluster_with(|options| options.gate = Some(gate));
        // The gate shuts while the call waits for a busy server.
        let error = cluster.apply(&to, &json!({}), "m", FIRST).await.unwrap_err();
        assert!(matches!(error, ApiError::NotLeading { .. }));
        assert_eq!(script.asked().len(), 1);
        for error in [
            cluster.apply_status(&to, &json!({}), "m", FIRST).await.unwrap_err(),
            cluster.merge_status(&to, &json!({}), "m").await.unwrap_err(),
            cluster.json_patch(&to, &json!([]), None).await.unwrap_err(),
            cluster.as_user("x").merge_patch(&to, &json!({}), "m").await.unwrap_err(),
            cluster.delete(&to, "u", None, Propagation::Background).await.unwrap_err(),
            cluster.create(&secrets, "web", &json!({})).await.unwrap_err(),
            cluster.put_json::<_, serde_json::Value>(&to, &json!({})).await.unwrap_err(),
            cluster
                .post_json::<_, serde_json::Value>(&secrets, "web", &json!({}))
                .await
                .unwrap_err(),
        ] {
            assert!(matches!(error, ApiError::NotLeading { .. }), "{error}");
        }
        assert_eq!(script.asked().len(), 1);
        cluster.get_metadata(&to).await.unwrap();
        cluster.ungated().apply(&to, &json!({}), "m", FIRST).await.unwrap();
        assert_eq!(script.asked().len(), 3);
    }

    #[tokio::test]
    async fn only_old_aggregated_servers_may_answer_whole() {
        let refuses = || Says::Status(406, None, String::new());
        let things = things();
        let script = Script::new([refuses(), Says::ok(LIVE)]);
        let to = Target::new(&things, "web", "a");
        script.cluster().apply(&to, &json!({}), "m", FIRST).await.unwrap();
        assert_eq!(script.asked()[1].header("accept"), JSON);
        let script = Script::new([refuses(), Says::ok(LIVE)]);
        assert!(apply(&script).await.is_err());
        assert_eq!(script.asked().len(), 1);
    }

    #[tokio::test]
    async fn large_answers_are_not_read() {
        let script = Script::new([Says::ok("x".repeat(OBJECT_LIMIT + 1))]);
        assert!(matches!(apply(&script).await, Err(ApiError::TooLarge { .. })));
    }

    fn page(names: &[&str], next: &str) -> String {
        let items: Vec<_> = names
            .iter()
            .map(|name| json!({"metadata": {"name": name, "namespace": "web", "uid": "u", "resourceVersion": "1"}}))
            .collect();
        json!({"metadata": {"resourceVersion": "7", "continue": next}, "items": items}).to_string()
    }

    async fn list(script: &Script) -> Result<Vec<String>, ApiError> {
        let listed = script.cluster().list(&things(), "x=y", Some("web")).await;
        listed.map(|(items, version)| {
            assert_eq!(version, "7");
            items.into_iter().map(|(key, _)| key.name).collect()
        })
    }

    #[tokio::test]
    async fn lists_are_paged() {
        let script = Script::new([Says::ok(page(&["a", "b"], "t1")), Says::ok(page(&["c"], ""))]);
        assert_eq!(list(&script).await.unwrap(), ["a", "b", "c"]);
        let uris: Vec<_> = script.asked().into_iter().map(|asked| asked.uri).collect();
        let path = "/apis/example.com/v1/namespaces/web/things?limit=500&labelSelector=x%3Dy";
        assert_eq!(uris, [path.to_owned(), format!("{path}&continue=t1")]);
        assert_eq!(script.asked()[0].header("accept"), METADATA_LIST);
    }

    #[tokio::test]
    async fn lists_whose_pages_expire_begin_anew() {
        let expired = || Says::Status(410, None, json!({"reason": "Expired"}).to_string());
        let script = Script::new([
            Says::ok(page(&["old"], "t1")),
            expired(),
            Says::ok(page(&["a"], "t2")),
            Says::ok(page(&["b"], "")),
        ]);
        assert_eq!(list(&script).await.unwrap(), ["a", "b"]);
        let first = || Says::ok(page(&["old"], "t"));
        let script = Script::new([first(), expired(), first(), expired(), first(), expired()]);
        assert!(list(&script).await.unwrap_err().is_gone());
    }

    #[tokio::test]
    async fn pages_that_are_too_large_are_asked_for_in_parts() {
        let script =
            Script::new([Says::ok("x".repeat(PAGE_LIMIT + 1)), Says::ok(page(&["a"], ""))]);
        assert_eq!(list(&script).await.unwrap(), ["a"]);
        assert_eq!(script.asked()[1].parameter("limit").unwrap(), "62");
    }

    #[tokio::test]
    async fn a_list_is_whole_or_an_error() {
        let bad = json!({"metadata": {"resourceVersion": "7"}, "items": [
            {"metadata": {"name": "a", "namespace": "web", "uid": "u", "resourceVersion": "1"}},
            {"metadata": {"name": "b", "namespace": "web", "uid": "u", "resourceVersion": "hunter2"}},
        ]});
        let error = list(&Script::new([Says::ok(bad.to_string())])).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot list things.example.com in web: the API server's answer cannot be read: \
             Thing.example.com web/b: the resource version is not a number"
        );
        // Not even a missing kind is an empty list.
        let missing = Says::Status(404, None, "404 page not found".into());
        assert!(list(&Script::new([missing])).await.unwrap_err().is_kind_missing());
    }

    #[tokio::test]
    async fn missing_objects_and_missing_kinds_differ() {
        let secrets = secrets();
        let to = Target::new(&secrets, "web", "a");
        let object = || {
            let status = json!({"reason": "NotFound", "details": {"kind": "secrets", "name": "a"}});
            Says::Status(404, None, status.to_string())
        };
        let kind = || Says::Status(404, None, "404 page not found".into());
        let script = Script::new([object(), kind(), object(), kind(), object(), kind()]);
        let cluster = script.cluster();
        assert_eq!(cluster.get_metadata(&to).await.unwrap(), None);
        assert!(cluster.get_metadata(&to).await.is_err());
        assert_eq!(cluster.get_json::<serde_json::Value>(&to).await.unwrap(), None);
        assert!(cluster.get_json::<serde_json::Value>(&to).await.is_err());
        let delete = || cluster.delete(&to, "u", None, Propagation::Background);
        assert_eq!(delete().await.unwrap(), Deleted::AlreadyGone);
        assert!(delete().await.is_err());
    }

    /// Holds what the subscriber of a test logs.
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_cannot_be_read_are_quoted_nowhere() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        tracing::info!("the log is kept");

        let secrets = secrets();
        let to = Target::new(&secrets, "web", "a");
        let bodies = [
            "hunter2",
            r#"{"metadata":"hunter2"}"#,
            r#"{"metadata":{"uid":["hunter2"]}}"#,
            r#"{"metadata":{"name":"a","uid":"u","resourceVersion":"5","labels":"hunter2"}}"#,
            r#"{"metadata":{"uid":"u","resourceVersion":"hunter2"},"data":{"p":"hunter2"}}"#,
            r#"{"metadata":{},"items":["hunter2"]}"#,
            r#"{"metadata":{"annotations":{"hunter2""#,
        ];
        let mut errors = Vec::new();
        for body in bodies {
            for code in [200, 500] {
                let script = Script::new((0..6).map(|_| Says::Status(code, None, body.into())));
                let cluster = script.cluster();
                errors.extend(cluster.apply(&to, &json!({}), "m", FIRST).await.err());
                errors.extend(cluster.get_metadata(&to).await.err());
                errors.extend(cluster.json_patch(&to, &json!([]), None).await.err());
                errors.extend(cluster.list(&secrets, "", None).await.err());
                errors.extend(cluster.delete(&to, "u", None, Propagation::Background).await.err());
                #[derive(Debug, serde::Deserialize)]
                struct Own {
                    #[serde(rename = "spec")]
                    _spec: u8,
                }
                errors.extend(cluster.get_json::<Own>(&to).await.err());
            }
        }
        assert!(errors.len() > 60, "{}", errors.len());
        for error in &errors {
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains("the log is kept"));
        assert!(!log.contains("hunter2"), "{log}");
    }

    #[test]
    fn json_for_yaml_escapes_what_yaml_changes() {
        let value = json!({"a\u{85}": "b\u{2028}\u{7f}\u{feff}\u{1f600}é\n\"\\"});
        let bytes = json_for_yaml(&value);
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            "{\"a\\u0085\":\"b\\u2028\\u007f\\ufeff\u{1f600}é\\n\\\"\\\\\"}"
        );
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).unwrap(), value);
    }
}
