//! Who asks, and by whom: real servers that want credentials, and real proxies.

use std::sync::Arc;

use plumb_core::ErrorClass;
use plumb_source::{
    Cancel, ClientCertificate, CommitId, Credentials, Limits, Mirrors, Proxy, ProxyLogin, Remote,
    Revision, SourceError, Tls,
};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::failures::whole;
use crate::programs::{Authority, Issued, Nginx, Socks, Squid, users};
use crate::repo::Repo;
use crate::server::{Reply, Server, backend};
use crate::{branch, remote};

/// A directory with one repository, `app.git`.
struct Root {
    dir: tempfile::TempDir,
    commit: CommitId,
}

impl Root {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::init(&dir.path().join("app.git"));
        let commit = repo.commit("refs/heads/main", &[("a.yaml", "1")]);
        Self { dir, commit }
    }

    fn path(&self) -> &std::path::Path {
        self.dir.path()
    }
}

fn resolve(remote: &Remote) -> Result<Revision, SourceError> {
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::open(dir.path(), Limits::default()).unwrap();
    mirrors.resolve(remote, &branch("main"), &Cancel::new())
}

fn basic(password: &str) -> Credentials {
    Credentials::Basic { username: "ada".into(), password: password.into() }
}

fn bearer(token: &str) -> Credentials {
    Credentials::Bearer { token: token.into() }
}

fn shown(issued: &Issued) -> ClientCertificate {
    ClientCertificate { certificate: issued.certificate.clone(), key: issued.key.clone() }
}

#[test]
fn nginx_with_basic_authentication_and_an_authority_of_its_own() {
    let root = Root::new();
    let authority = Authority::new();
    let (_dir, file) = users("ada", "s3cret");
    let directives = format!("auth_basic git; auth_basic_user_file {file};");
    let nginx = Nginx::new(root.path(), Some(&authority.issue("127.0.0.1")), &directives);
    let with = |credentials| {
        let tls = Tls { ca: Some(authority.pem.clone()), client: None };
        resolve(&Remote { credentials, tls, ..remote(&nginx.url("app.git")) })
    };
    assert_eq!(with(basic("s3cret")).unwrap().commit, root.commit);
    for credentials in [basic("hunter2"), bearer("hunter2")] {
        let error = with(credentials).unwrap_err();
        assert!(matches!(error, SourceError::Unauthorized { status: 401, sent: true, .. }));
        let text = whole(&error);
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
    }
    let error = with(Credentials::Anonymous).unwrap_err();
    assert!(matches!(error, SourceError::Unauthorized { status: 401, sent: false, .. }));
    let untrusted =
        resolve(&Remote { credentials: basic("s3cret"), ..remote(&nginx.url("app.git")) });
    assert_eq!(untrusted.unwrap_err().reason(), "TLSFailed");
}

#[test]
fn nginx_with_bearer_tokens() {
    let root = Root::new();
    let nginx = Nginx::new(
        root.path(),
        None,
        "if ($http_authorization = '') { return 401; }
         if ($http_authorization != 'Bearer t0ken') { return 403; }",
    );
    let with = |credentials| resolve(&Remote { credentials, ..remote(&nginx.url("app.git")) });
    assert_eq!(with(bearer("t0ken")).unwrap().commit, root.commit);
    let log = nginx.log();
    assert!(log.lines().count() >= 3 && log.lines().all(|line| line.contains("[Bearer t0ken]")));
    let error = with(bearer("hunter2")).unwrap_err();
    assert!(matches!(error, SourceError::Unauthorized { status: 403, sent: true, .. }));
    assert!(!whole(&error).contains("hunter2"));
    let error = with(Credentials::Anonymous).unwrap_err();
    assert!(matches!(error, SourceError::Unauthorized { status: 401, sent: false, .. }));
    for token in ["", "hunter2 x", "hunter2\nx-other: y", "hunter2\u{e9}"] {
        let error = with(bearer(token)).unwrap_err();
        assert_eq!(error.reason(), "CredentialsInvalid", "{error}");
        assert!(!whole(&error).contains("hunter2"));
    }
}

#[test]
fn nginx_that_asks_for_a_certificate() {
    let root = Root::new();
    let (servers, clients) = (Authority::new(), Authority::new());
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), &clients.pem).unwrap();
    let directives =
        format!("ssl_client_certificate {}; ssl_verify_client on;", authority.path().display());
    let nginx = Nginx::new(root.path(), Some(&servers.issue("127.0.0.1")), &directives);
    let with = |client: Option<ClientCertificate>| {
        let tls = Tls { ca: Some(servers.pem.clone()), client };
        resolve(&Remote { tls, ..remote(&nginx.url("app.git")) })
    };
    let ours = clients.issue("plumb");
    assert_eq!(with(Some(shown(&ours))).unwrap().commit, root.commit);
    assert!(nginx.log().lines().all(|line| line.ends_with("[SUCCESS]")), "{}", nginx.log());

    // nginx says so by a status of no meaning.
    let error = with(None).unwrap_err();
    assert!(matches!(error, SourceError::HttpStatus { status: 400, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("tls.crt"), "{error:?}");
    with(Some(shown(&Authority::new().issue("plumb")))).unwrap_err();

    let theirs = clients.issue("other");
    let mixed = ClientCertificate { key: theirs.key.clone(), ..shown(&ours) };
    let no_key = ClientCertificate { key: "hunter2".into(), ..shown(&ours) };
    let no_certificate = ClientCertificate { certificate: "hunter2".into(), ..shown(&ours) };
    for (client, words) in [
        (mixed, "tls.key is not the key of the certificate"),
        (no_key, "tls.key holds no private key"),
        (no_certificate, "tls.crt holds no certificate"),
    ] {
        let error = with(Some(client)).unwrap_err();
        assert_eq!(error.reason(), "CertificatesInvalid");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!whole(&error).contains("hunter2"));
    }
    let plain = Remote {
        tls: Tls { ca: None, client: Some(shown(&ours)) },
        ..remote(&nginx.url("app.git").replace("https://", "http://"))
    };
    assert_eq!(resolve(&plain).unwrap_err().reason(), "URLInvalid");
}

/// A server that ends the handshake, as TLS has it, unless it is shown a certificate by an authority.
fn strict(authority: &Authority, own: &Issued) -> std::net::SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let _ = connection.complete_io(&mut stream);
            let _ = connection.write_tls(&mut stream);
            // What was sent meanwhile is read, or the alert may be lost.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    address
}

#[test]
fn a_server_that_ends_the_handshake_for_want_of_a_certificate() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let address = strict(&clients, &servers.issue("127.0.0.1"));
    let stranger = shown(&Authority::new().issue("plumb"));
    for (client, words) in
        [(None, "wants a client certificate"), (Some(stranger), "did not accept the client")]
    {
        let tls = Tls { ca: Some(servers.pem.clone()), client };
        let error = resolve(&Remote { tls, ..remote(&format!("https://{address}/app.git")) });
        let error = error.unwrap_err();
        assert_eq!(error.reason(), "AuthenticationFailed", "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint().unwrap().contains("tls.crt"));
    }
}

#[test]
fn nothing_follows_to_another_host() {
    let root = Root::new();
    let authority = Authority::new();
    // Says whether it was shown a certificate, whoever vouches for that.
    let elsewhere = Nginx::new(
        root.path(),
        Some(&authority.issue("127.0.0.1")),
        "ssl_verify_client optional_no_ca;",
    );
    let to = elsewhere.url("app.git/info/refs");
    let nginx = Nginx::new(
        root.path(),
        Some(&authority.issue("127.0.0.1")),
        &format!(
            "ssl_verify_client optional_no_ca;
             location /moved.git {{ return 302 {to}?service=git-upload-pack; }}"
        ),
    );
    let tls = Tls {
        ca: Some(authority.pem.clone()),
        client: Some(shown(&Authority::new().issue("plumb"))),
    };
    for credentials in [basic("s3cret"), bearer("t0ken")] {
        let at = |url: String| {
            let credentials = credentials.clone();
            resolve(&Remote { credentials, tls: tls.clone(), ..remote(&url) }).unwrap()
        };
        at(nginx.url("moved.git"));
        let log = elsewhere.log();
        assert!(log.lines().count() >= 3, "{log}");
        assert!(log.lines().all(|line| line.ends_with(" [-] [NONE]")), "{log}");
    }
    assert!(nginx.log().lines().all(|line| !line.contains("[-]") && !line.contains("[NONE]")));
    // What is shown to it when it is asked by its own name is seen there.
    let remote = Remote { credentials: basic("s3cret"), tls, ..remote(&elsewhere.url("app.git")) };
    resolve(&remote).unwrap();
    let log = elsewhere.log();
    let last = log.lines().last().unwrap();
    assert!(last.contains("[Basic ") && last.contains("[FAILED:"), "{last}");
}

fn by(address: String) -> Proxy {
    Proxy { address, login: None }
}

fn login(proxy: Proxy, password: &str) -> Proxy {
    let login = ProxyLogin { username: "bob".into(), password: password.into() };
    Proxy { login: Some(login), ..proxy }
}

#[test]
fn squid_connects_to_http_and_https() {
    let root = Root::new();
    let authority = Authority::new();
    let plain = Nginx::new(root.path(), None, "");
    let secure = Nginx::new(root.path(), Some(&authority.issue("127.0.0.1")), "");
    let squid = Squid::new(None, "");
    let address = format!("http://127.0.0.1:{}", squid.port);
    for (url, ca) in [(plain.url("app.git"), None), (secure.url("app.git"), Some(&authority.pem))] {
        let tls = Tls { ca: ca.cloned(), client: None };
        let remote = Remote { tls, proxy: Some(by(address.clone())), ..remote(&url) };
        assert_eq!(resolve(&remote).unwrap().commit, root.commit, "{url}");
    }
    assert_eq!(squid.log().matches("TCP_TUNNEL/200").count(), 2, "{}", squid.log());

    // A server that is not there is told apart from a proxy that is not.
    let gone = Remote { proxy: Some(by(address)), ..remote("http://127.0.0.1:1/app.git") };
    let error = resolve(&gone).unwrap_err();
    assert_eq!(error.reason(), "ProxyRefused", "{error}");
    assert_eq!(error.class(), ErrorClass::Retry);
    let words =
        format!("proxy 127.0.0.1:{} does not connect to 127.0.0.1:1: it answered", squid.port);
    assert!(error.to_string().contains(&words), "{error}");
    let nobody = by("http://127.0.0.1:1".into());
    let error = resolve(&Remote { proxy: Some(nobody), ..remote(&plain.url("app.git")) });
    let error = error.unwrap_err();
    assert_eq!(error.reason(), "ProxyUnreachable", "{error}");
    assert_eq!(error.to_string(), "cannot connect to the proxy 127.0.0.1:1");
    let name = format!("http://{}.invalid:3128", "a".repeat(64));
    let error = resolve(&Remote { proxy: Some(by(name)), ..remote(&plain.url("app.git")) });
    assert_eq!(error.unwrap_err().reason(), "ProxyUnreachable");
}

#[test]
fn squid_that_wants_a_password_or_does_not_let_through() {
    let root = Root::new();
    let nginx = Nginx::new(root.path(), None, "");
    let (_dir, file) = users("bob", "pr0xy p@ss:word");
    let squid = Squid::new(Some(&file), "");
    let proxy = by(format!("http://127.0.0.1:{}", squid.port));
    let with = |proxy| resolve(&Remote { proxy: Some(proxy), ..remote(&nginx.url("app.git")) });
    let right = login(proxy.clone(), "pr0xy p@ss:word");
    assert_eq!(with(right).unwrap().commit, root.commit);
    for (proxy, words) in [
        (proxy.clone(), "wants a username and a password"),
        (login(proxy, "hunter2"), "did not accept"),
    ] {
        let error = with(proxy).unwrap_err();
        assert_eq!(error.reason(), "ProxyAuthenticationFailed", "{error}");
        assert_eq!(error.class(), ErrorClass::WaitForUser);
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint().unwrap().contains("proxySecretRef"));
        assert!(!whole(&error).contains("hunter2"));
    }
    // The server's own words are not the proxy's.
    let strange = Server::with(|_| Reply::status(407));
    let error = resolve(&remote(&strange.url("app.git"))).unwrap_err();
    assert!(matches!(error, SourceError::HttpStatus { status: 407, .. }), "{error:?}");

    let strict = Squid::new(None, "http_access deny CONNECT");
    let error = with(by(format!("http://127.0.0.1:{}", strict.port))).unwrap_err();
    assert_eq!(error.reason(), "ProxyRefused", "{error}");
    assert!(error.to_string().ends_with("it answered with HTTP status 403"), "{error}");
}

#[test]
fn a_proxy_over_tls() {
    let root = Root::new();
    let authority = Authority::new();
    let nginx = Nginx::new(root.path(), Some(&authority.issue("127.0.0.1")), "");
    let squid = Squid::with_tls(&authority.issue("127.0.0.1"));
    let proxy = by(format!("https://127.0.0.1:{}", squid.port));
    let with =
        |tls| resolve(&Remote { tls, proxy: Some(proxy.clone()), ..remote(&nginx.url("app.git")) });
    let trusting = Tls { ca: Some(authority.pem.clone()), client: None };
    assert_eq!(with(trusting.clone()).unwrap().commit, root.commit);
    assert!(squid.log().contains("TCP_TUNNEL/200"));
    let error = with(Tls::default()).unwrap_err();
    assert_eq!(error.reason(), "TLSFailed", "{error}");
    assert!(error.to_string().contains("or to its proxy 127.0.0.1"), "{error}");
    // The proxy would be shown it, too.
    let client = Some(shown(&authority.issue("plumb")));
    let error = with(Tls { client, ..trusting }).unwrap_err();
    assert_eq!(error.reason(), "ProxyInvalid", "{error}");
}

#[test]
fn socks5_with_and_without_a_password() {
    let root = Root::new();
    let authority = Authority::new();
    let nginx = Nginx::new(root.path(), Some(&authority.issue("git.inside")), "");
    // The name is one that the proxy alone can resolve.
    let url = nginx.url("app.git").replace("127.0.0.1", "git.inside");
    let with = |proxy: Proxy| {
        let tls = Tls { ca: Some(authority.pem.clone()), client: None };
        resolve(&Remote { tls, proxy: Some(proxy), ..remote(&url) })
    };
    let open = Socks::new(None);
    let address = |socks: &Socks| by(format!("socks5://127.0.0.1:{}", socks.port));
    assert_eq!(with(address(&open)).unwrap().commit, root.commit);
    let host = url.trim_start_matches("https://").split('/').next().unwrap();
    assert!(open.asked().iter().all(|asked| asked == host), "{:?}", open.asked());

    let closed = Socks::new(Some(("bob", "pr0xy")));
    assert_eq!(with(login(address(&closed), "pr0xy")).unwrap().commit, root.commit);
    for (proxy, words) in [
        (login(address(&closed), "hunter2"), "did not accept"),
        (address(&closed), "wants a username and a password"),
    ] {
        let error = with(proxy).unwrap_err();
        assert_eq!(error.reason(), "ProxyAuthenticationFailed", "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!whole(&error).contains("hunter2"));
    }
    let gone = Remote { proxy: Some(address(&open)), ..remote("http://127.0.0.1:1/app.git") };
    let error = resolve(&gone).unwrap_err();
    assert_eq!(error.reason(), "ProxyRefused", "{error}");
    assert!(error.to_string().contains("does not connect to 127.0.0.1:1"), "{error}");
    // What listens there is no SOCKS proxy.
    let error = with(by(nginx.url("").replace("https", "socks5"))).unwrap_err();
    assert!(matches!(error.reason(), "ProxyRefused" | "ConnectionBroken"), "{error:?}");
    let nobody = with(by("socks5://127.0.0.1:1".into())).unwrap_err();
    assert_eq!(nobody.reason(), "ProxyUnreachable", "{nobody}");
}

#[test]
fn proxies_that_cannot_be_used_are_told_without_passwords() {
    for (proxy, words) in [
        (by("proxy.example:3128".into()), "none of http, https and socks5"),
        (by("proxy".into()), "it is no URL"),
        (by("ftp://proxy".into()), "none of http, https and socks5"),
        (by("http://bob:hunter2@proxy".into()), "proxy \"http://proxy\" is not usable: it carries"),
        (by("http://bob:hun/ter2@proxy:3128".into()), "it is no URL"),
        (by("http://bob:hun?ter2@proxy:3128".into()), "it is no URL"),
        (by("http://bob:hun#ter2@proxy:3128".into()), "it is no URL"),
        (by("http:///bob:hunter2@proxy:3128".into()), "proxy \"http://proxy:3128\" is not usable"),
        (by("http:/bob:hunter2@proxy:3128".into()), "it carries credentials"),
        (by("bob:hunter2@proxy:3128".into()), "none of http, https and socks5"),
        // The first half looks like a port.
        (by("http://bob:2/hunter2@proxy:3128".into()), "proxy \"(hidden)\" is not usable"),
        (by("http://bob:2#hunter2@proxy:3128".into()), "proxy \"(hidden)\" is not usable"),
        (by("http://proxy/path".into()), "without a path"),
        (by("socks5://".into()), "it has no host"),
        (login(by("socks5://proxy".into()), &"hunter2".repeat(50)), "1 to 255 bytes"),
    ] {
        let remote = Remote { proxy: Some(proxy), ..remote("https://git.example/app.git") };
        let error = resolve(&remote).unwrap_err();
        assert_eq!(error.reason(), "ProxyInvalid", "{error}");
        let text = format!("{} {remote:?}", whole(&error));
        assert!(text.contains(words), "{text}");
        assert!(!text.contains("hun") && !text.contains("ter2"), "{text}");
    }
}

/// In a process of its own, since the environment is one's own.
#[test]
fn the_environment_names_the_proxy_of_those_that_name_none() {
    const URL: &str = "PLUMB_TEST_URL";
    const WANT: &str = "PLUMB_TEST_WANT";
    const OWN: &str = "PLUMB_TEST_PROXY";
    const CA: &str = "PLUMB_TEST_CA";
    const CERTIFICATE: &str = "PLUMB_TEST_CERTIFICATE";
    const KEY: &str = "PLUMB_TEST_KEY";
    if let Ok(url) = std::env::var(URL) {
        let proxy = std::env::var(OWN).ok().map(by);
        let var = |name| std::env::var(name).ok();
        let client = var(CERTIFICATE).zip(var(KEY));
        let client = client.map(|(certificate, key)| shown(&Issued { certificate, key }));
        let tls = Tls { ca: var(CA), client };
        let resolved = resolve(&Remote { tls, proxy, ..remote(&url) });
        let came = resolved.as_ref().map_or_else(SourceError::reason, |_| "Fetched");
        assert_eq!(came, std::env::var(WANT).unwrap(), "{resolved:?}");
        return;
    }
    let root = Root::new();
    let nginx = Nginx::new(root.path(), None, "");
    let (_dir, file) = users("bob", "pr0xy");
    let squid = Squid::new(Some(&file), "");
    let open = Squid::new(None, "");
    let child_at = |url: String, want: &str, vars: &[(&str, &str)]| {
        let name = "credentials::the_environment_names_the_proxy_of_those_that_name_none";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(URL, url)
            .env(WANT, want)
            .envs(vars.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{vars:?}: {}", String::from_utf8_lossy(&output.stdout));
    };
    let child = |want: &str, vars: &[_]| child_at(nginx.url("app.git"), want, vars);
    let address = format!("http://bob:pr0xy@127.0.0.1:{}", squid.port);
    let tunnels = |squid: &Squid| squid.log().matches("TCP_TUNNEL/200").count();
    child("Fetched", &[("HTTPS_PROXY", &address)]);
    assert_eq!(tunnels(&squid), 1, "{}", squid.log());
    child("Fetched", &[("HTTPS_PROXY", &address), ("NO_PROXY", "127.0.0.1")]);
    assert_eq!(tunnels(&squid), 1, "{}", squid.log());
    child("ProxyUnreachable", &[("HTTPS_PROXY", "http://127.0.0.1:1")]);
    let own = format!("http://127.0.0.1:{}", open.port);
    child("Fetched", &[("HTTPS_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "*"), (OWN, &own)]);
    assert_eq!(tunnels(&open), 1, "{}", open.log());

    // One that would be shown what is for the server is not even connected to.
    let authority = Authority::new();
    let own = authority.issue("127.0.0.1");
    let secure = Nginx::new(root.path(), Some(&own), "ssl_verify_client optional_no_ca;");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("https://bob:pr0xy@{}", listener.local_addr().unwrap());
    let client = authority.issue("plumb");
    let with = |want: &str, no_proxy: &str| {
        let vars = [
            ("ALL_PROXY", address.as_str()),
            ("NO_PROXY", no_proxy),
            (CA, &authority.pem),
            (CERTIFICATE, &client.certificate),
            (KEY, &client.key),
        ];
        child_at(secure.url("app.git"), want, &vars);
    };
    with("ProxyInvalid", "");
    with("Fetched", "127.0.0.1");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// What one may see is not what another may see, and what asks by another way may be answered by
/// somebody else.
#[test]
fn mirrors_are_parted_by_all_that_decides_what_one_may_see() {
    let root = Root::new();
    let served = root.path().to_owned();
    let server = Server::with(move |request| backend(&served, request));
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::open(dir.path(), Limits::default()).unwrap();
    let squid = Squid::new(None, "");
    let plain = remote(&server.url("app.git"));
    let by_proxy = |login: Option<&str>| {
        let proxy = by(format!("http://127.0.0.1:{}", squid.port));
        let proxy = match login {
            Some(password) => self::login(proxy, password),
            None => proxy,
        };
        Remote { proxy: Some(proxy), ..plain.clone() }
    };
    let all = [
        plain.clone(),
        Remote { credentials: basic("one"), ..plain.clone() },
        Remote { credentials: basic("two"), ..plain.clone() },
        Remote { credentials: bearer("one"), ..plain.clone() },
        by_proxy(None),
        by_proxy(Some("one")),
        by_proxy(Some("two")),
    ];
    for (count, remote) in all.iter().enumerate() {
        assert!(!mirrors.has(remote, &root.commit).unwrap(), "{remote:?}");
        mirrors.resolve(remote, &branch("main"), &Cancel::new()).unwrap();
        let made = std::fs::read_dir(dir.path().join("mirrors")).unwrap().count();
        assert_eq!(made, count + 1);
    }
    let trusting = Remote { tls: Tls { ca: Some("x".into()), client: None }, ..plain };
    assert!(mirrors.has(&trusting, &root.commit).unwrap(), "whom one trusts decides nothing");
}
