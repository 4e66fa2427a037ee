//! GitHub Apps, against a server that checks what they sign as GitHub does.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use plumb_core::ErrorClass;
use plumb_source::{
    Cancel, CommitId, Credentials, GitHubApp, Installation, Limits, Mirrors, Remote, Revision,
    SourceError,
};
use serde_json::{Value, json};

use crate::failures::whole;
use crate::repo::Repo;
use crate::server::{Reply, Request, Server, backend};
use crate::{branch, remote};

fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("these tests need openssl");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

/// What the server knows and does.
struct State {
    /// PEM of the app's public key.
    public: Vec<u8>,
    /// How long a new token counts.
    life: Duration,
    /// The tokens that count.
    valid: Vec<String>,
    given: usize,
    /// Answers requests for tokens, whatever they hold.
    down: Option<u16>,
}

impl State {
    /// Whether a token is the app's, by the rules that GitHub documents.
    fn is_app(&self, request: &Request) -> bool {
        let Some(token) = request.header("authorization").and_then(|v| v.strip_prefix("Bearer "))
        else {
            return false;
        };
        let parts: Vec<&str> = token.split('.').collect();
        let [head, claims, signature] = parts[..] else { return false };
        let json = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        let verified = Command::new("openssl")
            .args(["dgst", "-sha256", "-verify", &at("public", &self.public)])
            .args(["-signature", &at("signature", &URL_SAFE_NO_PAD.decode(signature).unwrap())])
            .arg(at("signed", format!("{head}.{claims}").as_bytes()))
            .output()
            .unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = json(claims);
        let (from, until) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        verified.status.success()
            && json(head)["alg"] == "RS256"
            && claims["iss"] == "1234"
            && from <= now
            && now < until
            && until <= now + 600
    }

    fn give(&mut self) -> Reply {
        self.given += 1;
        // As long as GitHub's newer ones.
        let token = format!("ghs_{}_{}", self.given, "x".repeat(300));
        let expires = jiff::Timestamp::now() + self.life;
        self.valid.push(token.clone());
        let body = json!({"token": token, "expires_at": expires.to_string()});
        Reply::Whole(201, Vec::new(), body.to_string().into_bytes())
    }
}

/// A GitHub with one app, which has one installation, that of the organization `org`.
struct GitHub {
    server: Server,
    state: Arc<Mutex<State>>,
    commit: CommitId,
    root: tempfile::TempDir,
    key: String,
}

impl GitHub {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let repo = Repo::init(&root.path().join("app.git"));
        let commit = repo.commit("refs/heads/main", &[("a.yaml", "1")]);
        // The form in which GitHub gives them.
        let key = openssl(&["genrsa", "-traditional", "2048"], b"");
        let state = Arc::new(Mutex::new(State {
            public: openssl(&["rsa", "-pubout"], &key),
            life: Duration::from_hours(1),
            valid: Vec::new(),
            given: 0,
            down: None,
        }));
        let (served, known) = (root.path().to_owned(), Arc::clone(&state));
        let server = Server::with(move |request| answer(&served, &known, request));
        Self { server, state, commit, root, key: String::from_utf8(key).unwrap() }
    }

    fn app(&self) -> GitHubApp {
        GitHubApp {
            id: "1234".into(),
            installation: Installation::Id("56".into()),
            key: self.key.clone(),
            api: Some(self.server.url("api/v3")),
        }
    }

    fn remote(&self, app: GitHubApp) -> Remote {
        Remote { credentials: Credentials::GitHubApp(app), ..remote(&self.server.url("app.git")) }
    }

    fn given(&self) -> usize {
        self.state.lock().unwrap().given
    }
}

fn answer(root: &std::path::Path, state: &Mutex<State>, request: &Request) -> Reply {
    let mut state = state.lock().unwrap();
    if let Some(path) = request.path.strip_prefix("/api/v3/") {
        let json = |value: Value| Reply::Whole(200, Vec::new(), value.to_string().into_bytes());
        return match (request.method.as_str(), path) {
            _ if state.down.is_some() => Reply::status(state.down.unwrap()),
            _ if !state.is_app(request) => {
                // What a hostile one would do: quote what it was sent.
                let quoted = request.header("authorization").unwrap_or_default();
                Reply::Whole(401, Vec::new(), json!({"message": quoted}).to_string().into())
            }
            ("POST", "app/installations/56/access_tokens") => state.give(),
            ("GET", "users/org/installation") => json(json!({"id": 56})),
            _ => Reply::status(404),
        };
    }
    let shown = request.header("authorization").unwrap_or_default();
    let is = |token: &String| {
        shown == format!("Basic {}", STANDARD.encode(format!("x-access-token:{token}")))
    };
    if state.valid.iter().any(is) { backend(root, request) } else { Reply::status(401) }
}

fn resolve(mirrors: &Mirrors, remote: &Remote) -> Result<Revision, SourceError> {
    mirrors.resolve(remote, &branch("main"), &Cancel::new())
}

fn mirrors() -> (tempfile::TempDir, Mirrors) {
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::open(dir.path(), Limits::default()).unwrap();
    (dir, mirrors)
}

#[test]
fn a_token_is_asked_for_once_and_again_when_it_is_refused_or_over() {
    let github = GitHub::new();
    let (dir, mirrors) = mirrors();
    let remote = github.remote(github.app());
    for _ in 0..3 {
        assert_eq!(resolve(&mirrors, &remote).unwrap().commit, github.commit);
    }
    assert_eq!(github.given(), 1, "it counts for an hour");
    // Another repository by the same app takes the same one.
    let other = Repo::init(&github.root.path().join("other.git"));
    other.commit("refs/heads/main", &[("b.yaml", "1")]);
    let url = github.server.url("other.git");
    resolve(&mirrors, &Remote { url, ..remote.clone() }).unwrap();
    assert_eq!(github.given(), 1);

    // It is taken back, and nobody notices.
    github.state.lock().unwrap().valid.clear();
    resolve(&mirrors, &remote).unwrap();
    assert_eq!(github.given(), 2);

    // One that ends within the next fetch is for this one alone.
    github.state.lock().unwrap().valid.clear();
    github.state.lock().unwrap().life = Duration::from_mins(4);
    for given in 3..5 {
        resolve(&mirrors, &remote).unwrap();
        assert_eq!(github.given(), given);
    }
    // The mirror is the app's, whatever token it was fetched with.
    assert_eq!(std::fs::read_dir(dir.path().join("mirrors")).unwrap().count(), 2);
}

#[test]
fn installations_can_be_named_by_their_owner() {
    let github = GitHub::new();
    let (_dir, mirrors) = mirrors();
    let of = |owner: &str| {
        let installation = Installation::Owner(owner.into());
        resolve(&mirrors, &github.remote(GitHubApp { installation, ..github.app() }))
    };
    assert_eq!(of("org").unwrap().commit, github.commit);
    let error = of("nobody").unwrap_err();
    assert_eq!(error.reason(), "GitHubAppRefused");
    assert!(error.to_string().contains("githubAppInstallationOwner"), "{error}");
}

#[test]
fn what_github_refuses_is_told_without_key_and_signature() {
    let github = GitHub::new();
    let (_dir, mirrors) = mirrors();
    let with = |app| resolve(&mirrors, &github.remote(app)).unwrap_err();
    let pkcs8 =
        |key: &[u8]| String::from_utf8(openssl(&["pkcs8", "-topk8", "-nocrypt"], key)).unwrap();
    let another = String::from_utf8(openssl(&["genrsa", "2048"], b"")).unwrap();
    let small = String::from_utf8(openssl(&["genrsa", "1024"], b"")).unwrap();
    let curve = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"], b"");
    for (app, reason, words) in [
        (GitHubApp { key: another, ..github.app() }, "GitHubAppRefused", "signature was not"),
        (GitHubApp { id: "4321".into(), ..github.app() }, "GitHubAppRefused", "githubAppID"),
        (
            GitHubApp { installation: Installation::Id("65".into()), ..github.app() },
            "GitHubAppRefused",
            "githubAppInstallationID",
        ),
        (
            GitHubApp { api: Some(github.server.url("api/v4")), ..github.app() },
            "GitHubAppRefused",
            "HTTP status 401",
        ),
        (GitHubApp { key: "hunter2".into(), ..github.app() }, "CredentialsInvalid", "no private"),
        (GitHubApp { key: small, ..github.app() }, "CredentialsInvalid", "2048 bits"),
        (GitHubApp { key: pkcs8(&curve), ..github.app() }, "CredentialsInvalid", "no RSA key"),
        (
            GitHubApp { api: Some("http://127.0.0.1:1".into()), ..github.app() },
            "ConnectionRefused",
            "127.0.0.1:1 refused",
        ),
    ] {
        let key = app.key.lines().nth(1).unwrap_or("hunter2").to_owned();
        let mut text = format!("{app:?}");
        let error = with(app);
        assert_eq!(error.reason(), reason, "{error}");
        write!(text, "{}", whole(&error)).unwrap();
        assert!(text.contains(words), "{text}");
        // All that is signed begins so.
        assert!(!text.contains(&key) && !text.contains("eyJ"), "{text}");
    }
    for (status, class) in [
        (403, ErrorClass::Retry),
        (404, ErrorClass::WaitForUser),
        (429, ErrorClass::Retry),
        (500, ErrorClass::Retry),
    ] {
        github.state.lock().unwrap().down = Some(status);
        let error = with(github.app());
        assert_eq!((error.reason(), error.class()), ("GitHubAppRefused", class), "{error}");
    }
    github.state.lock().unwrap().down = None;
    // Tools write keys in this form, too.
    let app = GitHubApp { key: pkcs8(github.key.as_bytes()), ..github.app() };
    resolve(&mirrors, &github.remote(app)).unwrap();
}

#[test]
fn the_token_stays_with_the_host_of_the_url() {
    let github = GitHub::new();
    let (_dir, mirrors) = mirrors();
    let served = github.root.path().to_owned();
    let elsewhere = Server::with(move |request| backend(&served, request));
    let to = elsewhere.url("app.git/info/refs");
    let state = Arc::clone(&github.state);
    let served = github.root.path().to_owned();
    let moved = Server::with(move |request| match request.path.as_str() {
        "/app.git/info/refs" => {
            let to = format!("{to}?{}", request.query);
            Reply::Whole(302, vec![("location".into(), to)], Vec::new())
        }
        _ => answer(&served, &state, request),
    });
    let app = GitHubApp { api: Some(moved.url("api/v3")), ..github.app() };
    let remote = Remote { url: moved.url("app.git"), ..github.remote(app) };
    resolve(&mirrors, &remote).unwrap();
    let log = elsewhere.take_log();
    assert!(log.len() >= 3 && log.iter().all(|r| r.header("authorization").is_none()), "{log:?}");
    let first = &moved.take_log()[1];
    assert!(first.header("authorization").unwrap().starts_with("Basic "), "{first:?}");
}
