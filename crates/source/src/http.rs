//! HTTP for one call: its agents, one deadline, one switch to cancel it, and errors that say what
//! happened.

use std::cell::{Cell, RefCell};
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::AlertDescription;
use serde_json::Value;
use ureq::{Body, Proxy, ProxyProtocol, http};
use url::Url;

use crate::agents::Agents;
use crate::cancel::Watch;
use crate::concerns::ASKING_FOR_A_TOKEN;
use crate::mask::Secrets;
use crate::pause::retry_after;
use crate::pkt::PktReader;
use crate::remote::{Authorization, CheckedRemote, basic};
use crate::session::{Answer, Body as AnswerBody, Carrier, Endpoint};
use crate::{Cancel, SourceError};

/// Hosts redirect from `http` to `https`, from an old name to a new one and to a `.git` suffix;
/// more hops than that are a circle.
const MAX_REDIRECTS: usize = 5;

/// How many questions go to where a URL led for good (301, 308) on the same host, before that is asked
/// again: hosts do so for each URL without `.git`, and a name that was given up may be taken anew. What
/// leads elsewhere, or for now, is asked each time.
const REDIRECTED_USES: u32 = 10;

/// Content type of the first answer; anything else is a web page or the dumb protocol.
const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const REQUEST: &str = "application/x-git-upload-pack-request";
const RESULT: &str = "application/x-git-upload-pack-result";

/// The version of GitHub's API that we know, and how many bytes it answers with at most; it is some
/// kilobytes.
const API_VERSION: &str = "2022-11-28";
const MAX_API_ANSWER: u64 = 1 << 20;

/// Bytes of a user's name from which on it may be a token, which some hosts take there. Those of hosts
/// have 20 and more, and names of people fewer.
const MIN_TOKEN: usize = 20;

/// Digits of the longest object ids.
const MAX_ID: u64 = 64;

/// The requests of one call.
pub(crate) struct Session<'a> {
    remote: &'a CheckedRemote,
    agents: Agents,
    cancel: &'a Cancel,
    deadline: Instant,
    /// What was asked last, which after a redirect is on another host.
    asked: RefCell<Url>,
    /// The value of the Authorization header.
    authorization: Option<String>,
    /// Whether there may be a connection that has been idle.
    rested: Cell<bool>,
    _watch: Watch,
}

impl<'a> Session<'a> {
    /// A session with agents that are new or have rested.
    pub(crate) fn new(
        remote: &'a CheckedRemote,
        (agents, rested): (Agents, bool),
        cancel: &'a Cancel,
        deadline: Instant,
    ) -> Self {
        let doomed = agents.clone();
        Self {
            remote,
            agents,
            cancel,
            deadline,
            asked: RefCell::new(remote.url.clone()),
            authorization: match &remote.authorization {
                Authorization::Header(value) => Some(value.clone()),
                Authorization::None | Authorization::App { .. } => None,
            },
            rested: Cell::new(rested),
            _watch: cancel.on_cancel(move || {
                doomed.own.clone().shutdown();
                doomed.other.clone().shutdown();
            }),
        }
    }

    /// Asks with a user and a password from now on.
    pub(crate) fn authorize(&mut self, username: &str, password: &str) {
        self.authorization = Some(basic(username, password));
    }

    /// A server, or a proxy, may say what it was sent. Nobody is told that.
    pub(crate) fn hide_secrets(&self, error: SourceError) -> SourceError {
        let secrets = self.secrets();
        error.reword(|text| secrets.hide(text))
    }

    /// What was sent to log in.
    fn secrets(&self) -> Secrets {
        let sent = self.authorization.as_deref().and_then(|value| value.split_once(' '));
        let login = self.remote.proxy.as_ref().and_then(|proxy| {
            let pair = (proxy.username().unwrap_or_default(), proxy.password()?);
            Some(STANDARD.encode(format!("{}:{}", pair.0, pair.1)))
        });
        let values = sent.map(|(_, value)| value.to_owned()).into_iter().chain(login);
        let mut secrets = Vec::new();
        for value in values {
            let pair = STANDARD.decode(&value).ok().and_then(|pair| String::from_utf8(pair).ok());
            if let Some((username, password)) = pair.as_deref().and_then(|p| p.split_once(':')) {
                secrets.push(password.to_owned());
                secrets.extend((username.len() >= MIN_TOKEN).then(|| username.to_owned()));
            }
            // Some writings of base64 do without these, and with others of these.
            let value = value.trim_end_matches('=');
            secrets.push(value.replace('+', "-").replace('/', "_"));
            secrets.push(value.to_owned());
        }
        Secrets::new(secrets)
    }

    /// Whether a text that a server chose holds what it was sent.
    pub(crate) fn gives_away(&self, text: &str) -> bool {
        self.secrets().are_in_name(text)
    }

    /// Asks what the server offers, following redirects. Credentials go to the origin they were
    /// given for and to no other.
    pub(crate) fn advertisement(&self, limit: u64) -> Result<(Endpoint, Answer), SourceError> {
        let mut at = self.remote.url.clone();
        at.set_path(&format!("{}/info/refs", at.path()));
        at.set_query(Some("service=git-upload-pack"));
        let mut trusted = true;
        let mut uses = None;
        for _ in 0..=MAX_REDIRECTS {
            *self.asked.borrow_mut() = at.clone();
            let response = self.answer(|left| {
                let mut request = self
                    .agents
                    .of(trusted)
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
                let lasts = matches!(response.status().as_u16(), 301 | 308) && trusted;
                uses = if lasts && uses != Some(0) { Some(REDIRECTED_USES) } else { Some(0) };
                at = to;
                continue;
            }
            self.check_status(&response, trusted)?;
            let content_type = content_type(&response);
            if content_type != ADVERTISEMENT {
                // Servers of plain files give them any type.
                if lists_references(response) {
                    return Err(SourceError::DumbHttp { url: self.shown() });
                }
                return Err(self.not_git(match content_type.as_str() {
                    "text/html" => "it is a web page".into(),
                    other => format!("its content type is {other:?}"),
                }));
            }
            let path = at.path().trim_end_matches("/info/refs").to_owned();
            at.set_path(&path);
            at.set_query(None);
            let endpoint = Endpoint { url: at, trusted, uses };
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
                .agents
                .of(endpoint.trusted)
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

    /// Asks GitHub's API, which answers in JSON, with a token of its own. No redirect is followed.
    /// Returns the status and the answer.
    pub(crate) fn ask_api(
        &self,
        url: &Url,
        post: bool,
        token: &str,
    ) -> Result<(u16, Value), SourceError> {
        *self.asked.borrow_mut() = url.clone();
        let agent = self.agents.of(may_see_credentials(&self.remote.url, url));
        let token = format!("Bearer {token}");
        let headers = [
            ("authorization", token.as_str()),
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", API_VERSION),
        ];
        let asked = self.answer(|left| {
            if post {
                let request = agent.post(url.as_str()).config().timeout_global(Some(left)).build();
                headers
                    .iter()
                    .fold(request, |r, (name, value)| r.header(*name, *value))
                    .send_empty()
            } else {
                let request = agent.get(url.as_str()).config().timeout_global(Some(left)).build();
                headers.iter().fold(request, |r, (name, value)| r.header(*name, *value)).call()
            }
        });
        let slow = |error| match error {
            SourceError::Timeout { .. } => SourceError::Timeout { doing: ASKING_FOR_A_TOKEN },
            error => error,
        };
        let response = asked.map_err(slow)?;
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(MAX_API_ANSWER).read_to_vec();
        let body = body.map_err(|error| slow(self.error(error)))?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
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

    fn not_git(&self, why: String) -> SourceError {
        SourceError::NotGit { url: self.shown(), why }
    }

    fn authorization(&self, trusted: bool) -> Option<&str> {
        self.authorization.as_deref().filter(|_| trusted)
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

    /// The proxy by which it was asked.
    fn proxy(&self) -> Option<&Proxy> {
        let uri: http::Uri = self.asked.borrow().as_str().parse().ok()?;
        self.agents.own.config().proxy().filter(|proxy| !proxy.is_no_proxy(&uri))
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
            // Where there is no host there is nobody to name either.
            let _named = shown.set_password(None).and_then(|()| shown.set_username(""));
            shown
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
        // Where a redirect leads nobody may speak for the host of the url.
        let pause = pause_of(response).filter(|_| trusted);
        let sent = self.authorization(trusted).is_some();
        match (response.status().as_u16(), pause) {
            (200, _) => Ok(()),
            // GitHub says 403 of who asks too often.
            (status @ (403 | 429 | 503), Some(until)) => {
                Err(SourceError::Busy { host: self.host(), status, until, sent })
            }
            (401 | 403, _) if !trusted && self.authorization.is_some() => {
                let host = self.host();
                let why = format!(
                    "it leads to {host}, which wants credentials; they are sent to the host of \
                     the url only, so set the url to that"
                );
                Err(SourceError::Redirect { url, why })
            }
            (status @ (401 | 403), _) => Err(SourceError::Unauthorized { url, status, sent }),
            (404 | 410, _) => Err(SourceError::RepositoryNotFound { url }),
            (status, _) => Err(SourceError::HttpStatus { url, status }),
        }
    }

    fn error(&self, error: ureq::Error) -> SourceError {
        if self.cancel.is_cancelled() {
            return SourceError::Cancelled;
        }
        let host = self.host();
        let asked = self.asked.borrow();
        let error = match self.proxy() {
            Some(proxy) => match by_proxy(proxy, &host, error) {
                Ok(error) => return error,
                Err(error) => error,
            },
            None => error,
        };
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
                _ if is_about_our_certificate(&error) => {
                    let own = may_see_credentials(&self.remote.url, &asked);
                    let sent = own && self.remote.tls.client.is_some();
                    SourceError::ClientCertificate { host, sent }
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

impl Carrier for Session<'_> {
    fn cancel(&self) -> &Cancel {
        self.cancel
    }

    /// All that an HTTP server says is in its answer.
    fn last_words(&self) -> Option<SourceError> {
        None
    }

    fn io_error(&self, error: io::Error) -> SourceError {
        self.error(ureq::Error::from(error))
    }

    /// A checked URL has no credentials.
    fn shown(&self) -> String {
        self.remote.url.to_string()
    }
}

/// An error that is the proxy's, of a request to this host. Others are given back: nothing but the
/// proxy is connected to, and the rest comes through it.
fn by_proxy(proxy: &Proxy, host: &str, error: ureq::Error) -> Result<SourceError, ureq::Error> {
    let at = format!("{}:{}", proxy.host(), proxy.port());
    let socks = matches!(proxy.protocol(), ProxyProtocol::Socks5 | ProxyProtocol::Socks5h);
    let sent = proxy.username().is_some();
    let unauthorized = |proxy| SourceError::ProxyUnauthorized { proxy, sent };
    let refused = |proxy, why: String| SourceError::ProxyRefused { proxy, host: host.into(), why };
    let error = match error {
        // There is nothing else to tell them by than ureq's words.
        ureq::Error::ConnectProxyFailed(why) if why.contains(" 407/") => unauthorized(at),
        ureq::Error::ConnectProxyFailed(why) => {
            let status = why.rsplit('/').next().filter(|text| text.parse::<u16>().is_ok());
            refused(
                at,
                match status {
                    Some(status) => format!("it answered with HTTP status {status}"),
                    None => "it does not answer".into(),
                },
            )
        }
        ureq::Error::HostNotFound if !proxy.resolve_target() => {
            SourceError::ProxyUnreachable { proxy: at, source: Arc::new(error) }
        }
        ureq::Error::Timeout(ureq::Timeout::Connect) => {
            SourceError::Timeout { doing: "connecting to the Git server through the proxy" }
        }
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => return Err(error.into()),
            _ if is_broken(&error) => return Err(error.into()),
            _ if is_of_tls(&error) => match proxy.protocol() {
                // Which of the two it was is not told.
                ProxyProtocol::Https => SourceError::Tls {
                    host: format!("{host} or to its proxy {at}"),
                    source: Arc::new(error),
                },
                _ => return Err(error.into()),
            },
            io::ErrorKind::PermissionDenied if socks => unauthorized(at),
            io::ErrorKind::Other if socks && error.to_string().contains("auth method") => {
                unauthorized(at)
            }
            io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
                if socks =>
            {
                refused(at, error.to_string())
            }
            _ => SourceError::ProxyUnreachable { proxy: at, source: Arc::new(error) },
        },
        error => return Err(error),
    };
    Ok(error)
}

/// Whether rustls reports in this way that it does not accept something.
fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

/// Whether a server ends a connection for the certificate that it was shown, or was not.
fn is_about_our_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = inner else { return false };
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
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
    PktReader::new(AnswerBody::Http(body.limit(u64::MAX).reader()), limit)
}

/// Whether an answer is what `git update-server-info` writes: an object id, a tab and a name.
fn lists_references(response: http::Response<Body>) -> bool {
    let mut start = Vec::new();
    let body = response.into_body().into_reader();
    if body.take(MAX_ID + 1).read_to_end(&mut start).is_err() {
        return false;
    }
    let id = start.split(|byte| *byte == b'\t').next().unwrap_or_default();
    matches!(id.len(), 40 | 64) && id.len() < start.len() && id.iter().all(u8::is_ascii_hexdigit)
}

/// Until when a server asks to be left alone.
fn pause_of(response: &http::Response<Body>) -> Option<Timestamp> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    retry_after(value, Timestamp::now())
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
pub(crate) fn may_see_credentials(from: &Url, to: &Url) -> bool {
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
