//! Git servers: Git's own `git http-backend` behind a small HTTP server, and OpenSSH.

mod cgi;
mod gitea;
mod repo;
mod signing;
mod sshd;

pub use gitea::Gitea;
pub use repo::{Change, Repo};
pub use signing::SshKey;
pub use sshd::{HOST_KEYS, Sshd};

use crate::pki::Authority;
use crate::scratch::Scratch;
use crate::server::{Answer, Body, Cut, Handler, Server, plain};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use http::request::Parts;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// One request that a Git server was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitRequest {
    /// `GET` or `POST`.
    pub method: String,
    /// Path without the query: `/app.git/info/refs`.
    pub path: String,
    /// Query without the question mark.
    pub query: String,
    /// The `Git-Protocol` header: `version=2`.
    pub protocol: String,
    /// Bytes of the request body.
    pub sent: u64,
    /// The request body, uncompressed as it came.
    pub body: Bytes,
    /// HTTP status, nothing while it is unanswered.
    pub status: Option<u16>,
    /// Bytes of the response body so far.
    pub received: u64,
}

/// A server on loopback with any number of repositories.
pub struct GitServer {
    server: Server,
    state: Arc<State>,
    ca: Option<PathBuf>,
}

struct State {
    root: Scratch,
    passwords: Mutex<HashMap<String, String>>,
    requests: Mutex<Vec<Arc<Mutex<GitRequest>>>>,
    stalled: watch::Sender<bool>,
    dripping: watch::Sender<bool>,
}

impl GitServer {
    /// Starts a server without repositories that speaks plain HTTP.
    pub async fn start() -> GitServer {
        let state = State::new();
        let handler: Arc<dyn Handler> = Arc::<State>::clone(&state);
        GitServer { server: Server::start(handler).await, state, ca: None }
    }

    /// Starts one that speaks HTTPS. Nobody trusts it but who is given [`GitServer::ca`], for
    /// instance by `SSL_CERT_FILE`.
    pub async fn start_tls() -> GitServer {
        let state = State::new();
        let handler: Arc<dyn Handler> = Arc::<State>::clone(&state);
        let authority = Authority::create();
        let ca = state.root.write("ca.crt", authority.pem());
        GitServer { server: Server::start_tls(handler, &authority).await, state, ca: Some(ca) }
    }

    /// The file with the certificate of the authority that vouches for an HTTPS server.
    ///
    /// # Panics
    /// On a server that speaks plain HTTP.
    pub fn ca(&self) -> &Path {
        self.ca.as_deref().expect("a server that was started with start_tls")
    }

    /// The URL of a repository, whether it exists or not.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}.git", self.base())
    }

    /// The URL before any repository: `http://127.0.0.1:PORT`, or with `https`.
    pub fn base(&self) -> String {
        self.server.base()
    }

    /// A repository, created empty if it does not exist.
    pub fn repo(&self, name: &str) -> Repo {
        Repo::open(self.state.root.path().join(format!("{name}.git")))
    }

    /// Removes a repository: its URL answers 404.
    pub fn remove(&self, name: &str) {
        let dir = self.state.root.path().join(format!("{name}.git"));
        std::fs::remove_dir_all(&dir)
            .unwrap_or_else(|error| panic!("cannot remove {}: {error}", dir.display()));
    }

    /// From now on the repository is for this user only (basic auth).
    pub fn require(&self, name: &str, user: &str, password: &str) {
        self.expect(name, format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
    }

    /// From now on the repository is for who has this token.
    pub fn require_bearer(&self, name: &str, token: &str) {
        self.expect(name, format!("Bearer {token}"));
    }

    fn expect(&self, name: &str, authorization: String) {
        let mut passwords = self.state.passwords.lock().expect("not poisoned");
        passwords.insert(format!("{name}.git"), authorization);
    }

    /// From now on the repository is for everybody.
    pub fn open_to_all(&self, name: &str) {
        self.state.passwords.lock().expect("not poisoned").remove(&format!("{name}.git"));
    }

    /// Everything that was asked so far, in the order of arrival.
    pub fn requests(&self) -> Vec<GitRequest> {
        let requests = self.state.requests.lock().expect("not poisoned");
        requests.iter().map(|request| request.lock().expect("not poisoned").clone()).collect()
    }

    /// Forgets what was asked so far.
    pub fn forget(&self) {
        self.state.requests.lock().expect("not poisoned").clear();
    }

    /// Closes the port and every connection.
    pub async fn stop(&self) {
        self.server.down().await;
    }

    /// Listens again on the same port.
    pub async fn restart(&self) {
        self.server.up().await.expect("the port is still ours");
    }

    /// Takes connections and answers nothing, until called with `false`.
    pub fn stall(&self, stalled: bool) {
        self.state.stalled.send_replace(stalled);
    }

    /// Answers with a byte now and then and comes to no end, until called with `false`. No time-out
    /// for a silent server notices that.
    pub fn drip(&self, dripping: bool) {
        self.state.dripping.send_replace(dripping);
    }
}

impl Handler for State {
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_gone| Cut)?.to_bytes();
            let text = |name: &str| {
                head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
            };
            let note = Arc::new(Mutex::new(GitRequest {
                method: head.method.to_string(),
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or_default().to_owned(),
                protocol: text("git-protocol").to_owned(),
                sent: body.len() as u64,
                body: body.clone(),
                status: None,
                received: 0,
            }));
            self.requests.lock().expect("not poisoned").push(Arc::clone(&note));
            self.flowing().await;
            if *self.dripping.borrow() {
                return Ok(self.dripped(&head));
            }

            let repo = head.uri.path().trim_start_matches('/').split('/').next().unwrap_or("");
            let expected = self.passwords.lock().expect("not poisoned").get(repo).cloned();
            let response = match expected {
                Some(expected) if text(header::AUTHORIZATION.as_str()) != expected => {
                    let mut refusal = plain(StatusCode::UNAUTHORIZED, "wrong or no password\n");
                    let realm = "Basic realm=\"testkit\"".parse().expect("a header");
                    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
                    refusal
                }
                _ => cgi::run(self.root.path(), &head, body).await.unwrap_or_else(|error| {
                    plain(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        &format!("git http-backend: {error}\n"),
                    )
                }),
            };
            note.lock().expect("not poisoned").status = Some(response.status().as_u16());
            Ok(self.watched(note, response))
        })
    }
}

impl State {
    fn new() -> Arc<State> {
        Arc::new(State {
            root: Scratch::new("git"),
            passwords: Mutex::default(),
            requests: Mutex::default(),
            stalled: watch::Sender::new(false),
            dripping: watch::Sender::new(false),
        })
    }

    async fn flowing(&self) {
        let mut stalled = self.stalled.subscribe();
        let _closed = stalled.wait_for(|stalled| !stalled).await;
    }

    /// The longest line of the protocol, as slow as can be.
    fn dripped(self: Arc<Self>, head: &Parts) -> Response<Body> {
        let service = head.uri.path().rsplit('/').next().unwrap_or_default();
        let content = match service {
            "git-upload-pack" => "application/x-git-upload-pack-result",
            _ => "application/x-git-upload-pack-advertisement",
        };
        let frames = futures::stream::unfold(0, move |sent| {
            let state = Arc::clone(&self);
            async move {
                if sent > 0 {
                    let mut dripping = state.dripping.subscribe();
                    let end = dripping.wait_for(|dripping| !dripping);
                    if tokio::time::timeout(Duration::from_secs(1), end).await.is_ok() {
                        return None;
                    }
                }
                let piece = if sent == 0 { "fff0" } else { "x" };
                Some((Ok(Frame::data(piece.into())), sent + 1))
            }
        });
        let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
        let content = content.parse().expect("a header");
        response.headers_mut().insert(header::CONTENT_TYPE, content);
        response
    }

    /// Counts the body and holds it back while the server is stalled.
    fn watched(
        self: Arc<Self>,
        note: Arc<Mutex<GitRequest>>,
        response: Response<Body>,
    ) -> Response<Body> {
        response.map(|body| {
            let frames = body.into_data_stream().then(move |piece| {
                let (state, note) = (Arc::clone(&self), Arc::clone(&note));
                async move {
                    state.flowing().await;
                    let piece = piece?;
                    note.lock().expect("not poisoned").received += piece.len() as u64;
                    Ok(Frame::data(piece))
                }
            });
            BodyExt::boxed_unsync(StreamBody::new(frames))
        })
    }
}
