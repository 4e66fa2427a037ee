//! What is told, in errors, by `Debug` and in the log, holds no password, token or key, whatever a
//! server answers.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plumb_source::{
    Cancel, ClientCertificate, Credentials, GitHubApp, Installation, Limits, Mirrors, Proxy,
    ProxyLogin, Question, Reference, Remote, Tls,
};

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::failures::whole;
use crate::programs::{Authority, Socks, Squid, users};
use crate::server::{ADVERTISEMENT, RESULT, Reply, Request, Server, backend};
use crate::{World, branch, remote};

/// With what URLs and quotes escape, and a capital, which hosts and types of content lose.
const PASSWORD: &str = "Pass\"7f1c9e52b0d4";
const BEARER: &str = "bearer-2a86d3f0c971";
const PROXY: &str = "proxy-b45e0a7d19c3";
const INSTALLATION: &str = "ghs_e90c41d7ab65";
/// Stands where a user's name does.
const TOKEN: &str = "ghp_0d81c3a97b52e64f1a20";

/// What the log holds.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers with what it was sent, wherever an answer has room for it.
fn echo(kind: &str, request: &Request) -> Reply {
    let sent = request.header("authorization").unwrap_or("nothing");
    let plain = sent
        .strip_prefix("Basic ")
        .map(|pair| String::from_utf8(STANDARD.decode(pair).unwrap()).unwrap())
        .unwrap_or_default();
    let words = format!("{sent} {plain}");
    let line = |text: String| format!("{:04x}{text}", text.len() + 4);
    let with = |status, header: &str, value: String| {
        Reply::Whole(status, vec![(header.into(), value)], words.clone().into_bytes())
    };
    let dashes = words.replace([' ', ':', '='], "-");
    let name = sent.rsplit(' ').next().unwrap_or_default().replace('=', "");
    match kind {
        "api" if request.path.ends_with("/access_tokens") => {
            let body =
                format!("{{\"token\":\"{INSTALLATION}\",\"expires_at\":\"2999-01-01T00:00:00Z\"}}");
            Reply::Whole(201, Vec::new(), body.into_bytes())
        }
        "refused" | "api" => with(403, "www-authenticate", words.clone()),
        "failed" => with(500, "x-words", words.clone()),
        "moved" => {
            with(302, "location", format!("/{dashes}/info/refs?service=git-upload-pack&x={dashes}"))
        }
        "away" => with(302, "location", format!("http://{dashes}@127.0.0.1:1/{dashes}")),
        "host" => {
            let path = "info/refs?service=git-upload-pack";
            with(302, "location", format!("http://{name}.invalid/{path}"))
        }
        "page" => with(200, "content-type", format!("text/{words}")),
        "cut" => Reply::git(ADVERTISEMENT, line(format!("ERR {}{words}", "x".repeat(280)))),
        "head" | "tags" if request.method == "POST" => {
            let id = "1".repeat(40);
            let text = match kind {
                "head" => format!("{id} HEAD symref-target:refs/heads/{name}\n"),
                _ => format!("{id} refs/tags/v1.0.0+{name}\n"),
            };
            Reply::git(RESULT, format!("{}0000", line(text)))
        }
        "error" => Reply::git(ADVERTISEMENT, line(format!("ERR {words}"))),
        "format" => Reply::git(
            ADVERTISEMENT,
            format!("000eversion 2\n{}0000", line(format!("object-format={words}"))),
        ),
        "refs" if request.method == "POST" => {
            let id = "1".repeat(40);
            let refs = line(format!("{id} refs/heads/{dashes}\n"));
            Reply::git(RESULT, format!("{refs}0000"))
        }
        "listing" if request.method == "POST" => Reply::git(RESULT, line(format!("ERR {words}"))),
        _ => Reply::git(ADVERTISEMENT, "000eversion 2\n000cls-refs\n000afetch\n0000"),
    }
}

#[test]
fn nothing_that_is_told_holds_a_secret() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        // As in the program, which leaves out the library that logs what a server answers.
        .finish()
        .with(filter_fn(|metadata| !metadata.target().starts_with("ureq")))
        .init();
    let authority = Authority::new();
    let client = authority.issue("plumb");
    let key = std::process::Command::new("openssl")
        .args(["genrsa", "2048"])
        .output()
        .expect("these tests need openssl");
    let key = String::from_utf8(key.stdout).unwrap();
    let (_dir, file) = users("bob", PROXY);
    let squid = Squid::new(Some(&file), "");
    let socks = Socks::new(Some(("bob", PROXY)));

    let basic = Credentials::Basic { username: "ada".into(), password: PASSWORD.into() };
    let bearer = Credentials::Bearer { token: BEARER.into() };
    let token = Credentials::Basic { username: TOKEN.into(), password: "x-oauth-basic".into() };
    let login =
        |password: &str| Some(ProxyLogin { username: "bob".into(), password: password.into() });
    let wrong = format!("{PROXY}-not");
    let mut proxies = vec![
        None,
        Some(Proxy { address: format!("http://127.0.0.1:{}", squid.port), login: login(PROXY) }),
        Some(Proxy { address: format!("http://127.0.0.1:{}", squid.port), login: login(&wrong) }),
        Some(Proxy { address: format!("socks5://127.0.0.1:{}", socks.port), login: login(PROXY) }),
        Some(Proxy { address: format!("socks5://127.0.0.1:{}", socks.port), login: login(&wrong) }),
    ];
    // Written into the address, in ways that do and do not parse.
    for address in [
        format!("http://bob:{PROXY}@127.0.0.1"),
        format!("http://bob:{PROXY}/more@127.0.0.1:1"),
        format!("http://bob:{PROXY}?more@127.0.0.1:1"),
        format!("http://bob:{PROXY}#more@127.0.0.1:1"),
        format!("http:///bob:{PROXY}@127.0.0.1:1"),
        format!("http:/bob:{PROXY}@127.0.0.1:1"),
        format!("bob:{PROXY}@127.0.0.1:1"),
    ] {
        proxies.push(Some(Proxy { address, login: None }));
    }
    let world = World::new();
    world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    for proxy in [&proxies[0], &proxies[1], &proxies[3]] {
        let remote = Remote { credentials: basic.clone(), proxy: proxy.clone(), ..world.remote() };
        world.mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap();
    }
    let (mut told, mut kept) = (String::new(), 0);
    let mut tell = |remote: &Remote, reference: &Reference| {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::open(dir.path(), Limits::default()).unwrap();
        let since = std::time::Instant::now();
        let error = mirrors.resolve(remote, reference, &Cancel::new()).unwrap_err();
        writeln!(told, "{remote:?} {mirrors:?} {}", whole(&error)).unwrap();
        // Another one that follows the same is told what was kept.
        let question = Question { reference, with_tag: false, others: &[], since };
        if let Some(Err(error)) = mirrors.known(remote, &question) {
            kept += 1;
            writeln!(told, "{}", whole(&error)).unwrap();
        }
    };
    for kind in [
        "api", "refused", "failed", "moved", "away", "host", "page", "error", "cut", "format",
        "refs", "listing", "head", "tags",
    ] {
        let server = Server::with(move |request| echo(kind, request));
        let app = Credentials::GitHubApp(GitHubApp {
            id: "1".into(),
            installation: Installation::Id("2".into()),
            key: key.clone(),
            api: Some(server.url("api")),
        });
        for credentials in [&basic, &bearer, &token, &app] {
            // A proxy may look for a host that is not there for long.
            for proxy in proxies.iter().filter(|proxy| kind != "host" || proxy.is_none()) {
                let (credentials, proxy) = (credentials.clone(), proxy.clone());
                let remote = Remote { credentials, proxy, ..remote(&server.url("app.git")) };
                tell(&remote, &branch("main"));
                if remote.proxy.is_none() {
                    tell(&remote, &crate::semver("*"));
                    tell(&remote, &Reference::Default);
                }
            }
        }
    }
    let client = ClientCertificate { certificate: client.certificate, key: client.key };
    let shown = Remote {
        tls: Tls { ca: None, client: Some(client.clone()) },
        ..remote("https://127.0.0.1:1/app.git")
    };
    tell(&shown, &branch("main"));
    let inside = remote(&format!("https://ada:{PASSWORD}@127.0.0.1/app.git"));
    tell(&inside, &branch("main"));

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(kept > 20, "{kept}");
    // Both hold what they are to hold.
    assert!(told.contains("(hidden)") && told.contains("Unauthorized"), "{told}");
    assert!(log.contains("plumb_source") && log.contains("fetched"), "{log}");
    // A branch and a tag that are named so would stand in a status, also of who comes second.
    let named = "it names a reference by what it was sent to get in\"";
    assert_eq!(told.matches(named).count(), 2 * 2 * 3, "{told}");
    let lines = |pem: &str| {
        let lines = pem.lines().filter(|line| !line.starts_with("-----") && line.len() > 20);
        lines.map(String::from).collect::<Vec<_>>()
    };
    let mut secrets: Vec<String> =
        [PASSWORD, BEARER, PROXY, INSTALLATION, TOKEN].map(String::from).into();
    for (user, password) in [
        ("ada", PASSWORD),
        ("bob", PROXY),
        ("x-access-token", INSTALLATION),
        ("bob", &wrong),
        (TOKEN, "x-oauth-basic"),
    ] {
        secrets.push(STANDARD.encode(format!("{user}:{password}")));
    }
    secrets.extend(lines(&key));
    secrets.extend(lines(&client.key));
    // Whatever becomes of them on the way, and also when only their beginning is left.
    let plain = |text: &str| text.replace("%22", "\"").replace('\\', "").to_ascii_lowercase();
    for (what, text) in [("told", plain(&told)), ("logged", plain(&log))] {
        for secret in &secrets {
            let start: String = plain(secret).chars().take(10).collect();
            let line = text.lines().find(|line| line.contains(&start));
            assert!(line.is_none(), "{secret} is {what}: {line:?}");
        }
    }
    for (what, text) in [("told", &told), ("logged", &log)] {
        // What an app signs begins so.
        let line = text.lines().find(|line| line.contains("eyJ"));
        assert!(line.is_none(), "a token of an app is {what}: {line:?}");
    }
}

/// What a server calls the commit that it gives stands in statuses and events.
#[test]
fn a_reference_that_is_named_by_what_was_sent_is_not_taken() {
    let mut world = World::new();
    let commit = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let name = Arc::new(Mutex::new(String::new()));
    let (root, named) = (world.dir.path().join("git"), Arc::clone(&name));
    world.server = Server::with(move |request| {
        if !request.body.windows(15).any(|words| words == b"command=ls-refs") {
            return backend(&root, request);
        }
        let named = named.lock().unwrap();
        let lines = [
            format!("{commit} HEAD symref-target:refs/heads/{named}\n"),
            format!("{commit} refs/tags/1.0.0+{named}\n"),
        ];
        let lines = lines.map(|line| format!("{:04x}{line}", line.len() + 4)).concat();
        Reply::git(RESULT, format!("{lines}0000"))
    });
    let basic = |username: &str, password: &str| Credentials::Basic {
        username: username.into(),
        password: password.into(),
    };
    let pair = STANDARD.encode(format!("ada:{PASSWORD}"));
    let bearer = Credentials::Bearer { token: BEARER.into() };
    for (credentials, secret) in [
        (basic("ada", PASSWORD), PASSWORD),
        (basic("ada", PASSWORD), pair.as_str()),
        (basic(TOKEN, "x-oauth-basic"), TOKEN),
        (bearer.clone(), BEARER),
    ] {
        for (before, after) in [("", ""), ("x", "y")] {
            *name.lock().unwrap() = format!("{before}{secret}{after}");
            let remote = Remote { credentials: credentials.clone(), ..world.remote() };
            for reference in [Reference::Default, crate::semver("*")] {
                let in_version = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
                if reference != Reference::Default && !secret.bytes().all(in_version) {
                    continue;
                }
                let error = world.mirrors.resolve(&remote, &reference, &Cancel::new()).unwrap_err();
                assert_eq!(error.reason(), "ProtocolError", "{error:?}");
                assert!(!whole(&error).contains(secret), "{error:?}");
            }
        }
    }
    // What is short is there by chance.
    for credentials in [basic("main", "main"), bearer] {
        *name.lock().unwrap() = "main".into();
        let remote = Remote { credentials, ..world.remote() };
        let found = world.mirrors.resolve(&remote, &Reference::Default, &Cancel::new()).unwrap();
        assert_eq!(found.to_string(), format!("main@sha1:{commit}"));
    }
}
