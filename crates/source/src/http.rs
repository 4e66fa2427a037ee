//! HTTP for one call: one agent, one deadline, one switch to cancel it, and errors that say what
//! happened.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http};
use url::Url;

use crate::cancel::Watch;
use crate::pkt::{PktError, PktReader};
use crate::remote::CheckedRemote;
use crate::wire::{AGENT, WireError};
use crate::{Cancel, SourceError};

/// A host that accepts no connection within this time is taken for unreachable, so that the next
/// of its addresses, or the next try, gets a chance inside the remote's own time-out.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Git servers send something every five seconds while they prepare a pack
/// (`uploadpack.keepAlive`); one that is silent six times as long has stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Hosts redirect from `http` to `https`, from an old name to a new one and to a `.git` suffix;
/// more hops than that are a circle.
const MAX_REDIRECTS: usize = 5;

/// Content type of the first answer; anything else is a web page or the dumb protocol.
const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const REQUEST: &str = "application/x-git-upload-pack-request";
const RESULT: &str = "application/x-git-upload-pack-result";

/// Where a repository answers, after redirects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The repository's URL without a final slash.
    pub(crate) url: Url,
    /// Whether it is the origin that the credentials were given for.
    pub(crate) trusted: bool,
}

/// A reader of packets from an answer.
pub(crate) type Answer = PktReader<ureq::BodyReader<'static>>;

/// Makes the agent that a remote's calls share one after the other: it keeps the parsed
/// certificates and an idle connection.
pub(crate) fn agent(remote: &CheckedRemote) -> Result<Agent, SourceError> {
    let roots = match &remote.ca {
        None => RootCerts::PlatformVerifier,
        Some(pem) => {
            let bad = |why: String| SourceError::InvalidCertificates { why };
            let mut certificates = Vec::new();
            for item in parse_pem(pem.as_bytes()) {
                match item {
                    Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                    Ok(_) => {}
                    Err(_) => return Err(bad("it is not valid PEM".into())),
                }
            }
            if certificates.is_empty() {
                return Err(bad("it holds no certificate".into()));
            }
            RootCerts::Specific(Arc::new(certificates))
        }
    };
    let config = Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .user_agent(AGENT)
        // Redirects are followed by our own rules, and statuses have errors of our own.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_per_read(Some(STALL_TIMEOUT))
        .timeout_per_write(Some(STALL_TIMEOUT))
        .build();
    Ok(config.new_agent())
}

/// The requests of one call.
pub(crate) struct Session<'a> {
    remote: &'a CheckedRemote,
    agent: Agent,
    cancel: &'a Cancel,
    deadline: Instant,
    /// What was asked last, which after a redirect is on another host.
    asked: RefCell<Url>,
    /// Whether there may be a connection that has been idle.
    rested: Cell<bool>,
    _watch: Watch,
}

impl<'a> Session<'a> {
    /// A session with an agent that is new or has rested.
    pub(crate) fn new(
        remote: &'a CheckedRemote,
        (agent, rested): (Agent, bool),
        cancel: &'a Cancel,
        deadline: Instant,
    ) -> Self {
        let doomed = agent.clone();
        Self {
            remote,
            agent,
            cancel,
            deadline,
            asked: RefCell::new(remote.url.clone()),
            rested: Cell::new(rested),
            _watch: cancel.on_cancel(move || doomed.clone().shutdown()),
        }
    }

    pub(crate) fn cancel(&self) -> &Cancel {
        self.cancel
    }

    /// Asks what the server offers, following redirects. Credentials go to the origin they were
    /// given for and to no other.
    pub(crate) fn advertisement(&self, limit: u64) -> Result<(Endpoint, Answer), SourceError> {
        let mut at = self.remote.url.clone();
        at.set_path(&format!("{}/info/refs", at.path()));
        at.set_query(Some("service=git-upload-pack"));
        let mut trusted = true;
        for _ in 0..=MAX_REDIRECTS {
            *self.asked.borrow_mut() = at.clone();
            let response = self.answer(|left| {
                let mut request = self
                    .agent
                    .get(at.as_str())
                    .config()
                    .timeout_global(Some(left))
                    .build()
                    .header("git-protocol", "version=2")
                    .header("pragma", "no-cache");
                if let Some(value) = self.authorization(trusted) {
                    request = request.header("authorization", value);
                }
                request.call()
            })?;
            if response.status().is_redirection() {
                let to = self.redirect(&at, &response)?;
                trusted = trusted && may_see_credentials(&at, &to);
                at = to;
                continue;
            }
            self.check_status(&response, trusted)?;
            let content_type = content_type(&response);
            if content_type != ADVERTISEMENT {
                return Err(self.not_git(match content_type.as_str() {
                    "text/html" => "it is a web page".into(),
                    "text/plain" => "it speaks only the dumb HTTP protocol".into(),
                    other => format!("its content type is {other:?}"),
                }));
            }
            let path = at.path().trim_end_matches("/info/refs").to_owned();
            at.set_path(&path);
            at.set_query(None);
            let endpoint = Endpoint { url: at, trusted };
            return Ok((endpoint, reader(response, limit)));
        }
        Err(SourceError::Redirect {
            url: self.shown(),
            why: format!("more than {MAX_REDIRECTS} redirects"),
        })
    }

    /// Sends a request to the endpoint.
    pub(crate) fn post(
        &self,
        endpoint: &Endpoint,
        body: &[u8],
        protocol: Option<&str>,
        limit: u64,
    ) -> Result<Answer, SourceError> {
        *self.asked.borrow_mut() = endpoint.url.clone();
        let url = format!("{}/git-upload-pack", endpoint.url.as_str().trim_end_matches('/'));
        let response = self.answer(|left| {
            let mut request = self
                .agent
                .post(&url)
                .config()
                .timeout_global(Some(left))
                .build()
                .header("content-type", REQUEST)
                .header("accept", RESULT);
            if let Some(protocol) = protocol {
                request = request.header("git-protocol", protocol);
            }
            if let Some(value) = self.authorization(endpoint.trusted) {
                request = request.header("authorization", value);
            }
            request.send(body)
        })?;
        if response.status().is_redirection() {
            return Err(SourceError::Redirect {
                url: self.shown(),
                why: "only the first request may be redirected".into(),
            });
        }
        self.check_status(&response, endpoint.trusted)?;
        let content_type = content_type(&response);
        if content_type != RESULT {
            return Err(self.not_git(format!("its content type is {content_type:?}")));
        }
        Ok(reader(response, limit))
    }

    /// Asks, within the time that is left. A server may close an idle connection at the moment that
    /// it is used again, which says nothing about the server: then the question, which changes
    /// nothing there, is asked once more, on another connection.
    fn answer(
        &self,
        ask: impl Fn(Duration) -> Result<http::Response<Body>, ureq::Error>,
    ) -> Result<http::Response<Body>, SourceError> {
        let rested = self.rested.replace(false);
        let asked = match ask(self.remaining()?) {
            Err(ureq::Error::Io(error)) if rested && is_broken(&error) => ask(self.remaining()?),
            asked => asked,
        };
        let response = asked.map_err(|error| self.error(error))?;
        self.rested.set(true);
        Ok(response)
    }

    /// Our error for one of the wire's.
    pub(crate) fn wire_error(
        &self,
        error: WireError,
        what: &'static str,
        limit: u64,
    ) -> SourceError {
        match error {
            // A shutdown shows as an end of the stream.
            _ if self.cancel.is_cancelled() => SourceError::Cancelled,
            WireError::Pkt(PktError::Io(error)) => self.error(ureq::Error::from(error)),
            WireError::Pkt(PktError::Limit) => SourceError::TooLarge { what, limit },
            WireError::Pkt(PktError::Truncated) => {
                SourceError::Protocol { why: "it ends in the middle".into() }
            }
            WireError::Pkt(PktError::Length(head)) => SourceError::Protocol {
                why: format!("{:?} is no length of a packet", String::from_utf8_lossy(&head)),
            },
            WireError::Server(message) => SourceError::Server { message },
            WireError::NotGit(why) => self.not_git(why),
            WireError::Protocol(why) => SourceError::Protocol { why },
            WireError::Sha256 => SourceError::Sha256Repository,
            WireError::TooManyRefs => SourceError::TooLarge { what: "references", limit },
        }
    }

    fn not_git(&self, why: String) -> SourceError {
        SourceError::NotGit { url: self.shown(), why }
    }

    fn authorization(&self, trusted: bool) -> Option<&str> {
        self.remote.authorization.as_deref().filter(|_| trusted)
    }

    /// The repository as errors name it; a checked URL has no credentials.
    fn shown(&self) -> String {
        self.remote.url.to_string()
    }

    /// Who was asked last, and whom an error is about.
    fn host(&self) -> String {
        let url = self.asked.borrow();
        let host = url.host_str().unwrap_or_default();
        match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.into(),
        }
    }

    fn remaining(&self) -> Result<Duration, SourceError> {
        self.cancel.check()?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SourceError::Timeout { doing: "talking to the Git server" });
        }
        Ok(left)
    }

    fn redirect(&self, at: &Url, response: &http::Response<Body>) -> Result<Url, SourceError> {
        let refuse = |why: String| SourceError::Redirect { url: self.shown(), why };
        let to = response
            .headers()
            .get("location")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| at.join(value).ok())
            .ok_or_else(|| refuse("it does not say where to".into()))?;
        // The target may carry a token of its own; it is named without its query.
        let shown = {
            let mut shown = to.clone();
            shown.set_query(None);
            crate::remote::redacted(shown.as_str())
        };
        match to.scheme() {
            "https" => {}
            "http" if at.scheme() == "http" => {}
            _ => return Err(refuse(format!("{shown} is not https"))),
        }
        let suffix = to.path().ends_with("/info/refs")
            && to.query().is_some_and(|q| q.contains("service=git-upload-pack"));
        if !suffix || !to.username().is_empty() {
            // Sign-in pages look like this.
            return Err(refuse(format!("{shown} is not a repository")));
        }
        Ok(to)
    }

    fn check_status(
        &self,
        response: &http::Response<Body>,
        trusted: bool,
    ) -> Result<(), SourceError> {
        let url = self.shown();
        match response.status().as_u16() {
            200 => Ok(()),
            401 | 403 if !trusted && self.remote.authorization.is_some() => {
                let host = self.host();
                let why = format!(
                    "it leads to {host}, which wants credentials; they are sent to the host of \
                     the url only, so set the url to that"
                );
                Err(SourceError::Redirect { url, why })
            }
            status @ (401 | 403) => Err(SourceError::Unauthorized {
                url,
                status,
                sent: self.authorization(trusted).is_some(),
            }),
            404 | 410 => Err(SourceError::RepositoryNotFound { url }),
            status => Err(SourceError::HttpStatus { url, status }),
        }
    }

    fn error(&self, error: ureq::Error) -> SourceError {
        if self.cancel.is_cancelled() {
            return SourceError::Cancelled;
        }
        let host = self.host();
        let asked = self.asked.borrow();
        let unknown =
            || SourceError::UnknownHost { host: asked.host_str().unwrap_or_default().into() };
        match error {
            ureq::Error::HostNotFound => unknown(),
            ureq::Error::Timeout(timeout) => SourceError::Timeout { doing: doing(timeout) },
            ureq::Error::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => SourceError::ConnectionRefused { host },
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    SourceError::Timeout { doing: "talking to the Git server" }
                }
                // rustls reports a certificate that it does not accept in this way.
                io::ErrorKind::InvalidData if asked.scheme() == "https" => {
                    SourceError::Tls { host, source: Arc::new(error) }
                }
                _ if is_broken(&error) => {
                    SourceError::Interrupted { host, source: Arc::new(error) }
                }
                // The standard library has no kind for a failed look-up.
                _ if error.to_string().starts_with("failed to lookup address") => unknown(),
                _ => SourceError::Connect { host, source: Arc::new(error) },
            },
            error @ (ureq::Error::Tls(_)
            | ureq::Error::Pem(_)
            | ureq::Error::Rustls(_)
            | ureq::Error::TlsRequired) => SourceError::Tls { host, source: Arc::new(error) },
            error @ (ureq::Error::Protocol(_)
            | ureq::Error::LargeResponseHeader(..)
            | ureq::Error::Decompress(..)
            | ureq::Error::BodyStalled) => SourceError::Protocol { why: error.to_string() },
            error => SourceError::Connect { host, source: Arc::new(error) },
        }
    }
}

/// Whether a connection ended that had been there.
fn is_broken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

fn doing(timeout: ureq::Timeout) -> &'static str {
    match timeout {
        ureq::Timeout::Resolve => "resolving the host name",
        ureq::Timeout::Connect => "connecting to the Git server",
        ureq::Timeout::PerRead | ureq::Timeout::RecvResponse | ureq::Timeout::RecvBody => {
            "waiting for the Git server's answer"
        }
        _ => "talking to the Git server",
    }
}

fn reader(response: http::Response<Body>, limit: u64) -> Answer {
    let body = response.into_body().into_with_config();
    // The packet reader counts; ureq's own limit would be an error of another kind.
    PktReader::new(body.limit(u64::MAX).reader(), limit)
}

fn content_type(response: &http::Response<Body>) -> String {
    response
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// Whether credentials given for one URL may go to another: the same origin, or the same host
/// moved from plain `http` to `https` on the usual ports.
fn may_see_credentials(from: &Url, to: &Url) -> bool {
    if from.host_str() != to.host_str() {
        return false;
    }
    let same =
        from.scheme() == to.scheme() && from.port_or_known_default() == to.port_or_known_default();
    let upgrade = (from.scheme(), to.scheme()) == ("http", "https")
        && from.port().is_none()
        && to.port().is_none();
    same || upgrade
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_with_their_origin() {
        for (from, to, want) in [
            ("https://a/x", "https://a/y", true),
            ("https://a/x", "https://a:443/y", true),
            ("http://a/x", "https://a/y", true),
            ("https://a/x", "http://a/y", false),
            ("https://a/x", "https://b/x", false),
            ("https://a/x", "https://a:8443/x", false),
            ("http://a:3000/x", "https://a/x", false),
            ("https://a/x", "https://a.evil/x", false),
        ] {
            let url = |text: &str| Url::parse(text).unwrap();
            assert_eq!(may_see_credentials(&url(from), &url(to)), want, "{from} {to}");
        }
    }
}
