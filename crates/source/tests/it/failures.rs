//! Servers that refuse, stall, lie and flood.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plumb_core::ErrorClass;
use plumb_source::{Cancel, Credentials, Limits, Mirrors, Remote, Revision, SourceError, Tls};

use crate::repo::Repo;
use crate::server::{ADVERTISEMENT, RESULT, Reply, Server, backend};
use crate::{World, branch, remote};

fn resolve(remote: &Remote) -> Result<Revision, SourceError> {
    resolve_within(remote, Limits::default())
}

fn resolve_within(remote: &Remote, limits: Limits) -> Result<Revision, SourceError> {
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::open(dir.path(), limits).unwrap();
    mirrors.resolve(remote, &branch("main"), &Cancel::new())
}

/// The text of an error with all its causes, as a status shows it.
pub(crate) fn whole(error: &SourceError) -> String {
    let mut text = format!("{error} {error:?} {:?}", error.hint());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        write!(text, ": {error} {error:?}").unwrap();
        cause = error.source();
    }
    text
}

#[test]
fn basic_authentication() {
    let mut world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let root = world.dir.path().join("git");
    world.server = Server::with(move |request| match request.header("authorization") {
        // ada:s3cret
        Some("Basic YWRhOnMzY3JldA==") => backend(&root, request),
        Some(_) => Reply::status(403),
        None => Reply::Whole(
            401,
            vec![("www-authenticate".into(), "Basic realm=\"git\"".into())],
            Vec::new(),
        ),
    });
    let with = |credentials| {
        let remote = Remote { credentials, ..world.remote() };
        resolve(&remote)
    };
    let basic =
        |password: &str| Credentials::Basic { username: "ada".into(), password: password.into() };
    assert_eq!(with(basic("s3cret")).unwrap().commit, first);

    let wrong = with(basic("hunter2")).unwrap_err();
    assert!(matches!(wrong, SourceError::Unauthorized { status: 403, sent: true, .. }));
    assert_eq!(wrong.reason(), "AuthenticationFailed");
    assert_eq!(wrong.class(), ErrorClass::WaitForUser);
    let text = whole(&wrong);
    assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");

    let none = with(Credentials::Anonymous).unwrap_err();
    assert!(matches!(none, SourceError::Unauthorized { status: 401, sent: false, .. }));
    assert!(none.hint().unwrap().contains("secretRef"));
}

#[test]
fn redirects_are_followed_and_credentials_are_not() {
    let mut world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let root = world.dir.path().join("git");
    let elsewhere = Server::backend(&root);
    let target = elsewhere.url("");
    world.server = Server::with(move |request| {
        let to = match request.path.as_str() {
            "/old.git/info/refs" => "/app.git/info/refs?service=git-upload-pack".to_owned(),
            "/moved.git/info/refs" => format!("{target}app.git/info/refs?{}", request.query),
            "/login/info/refs" => "/sign-in?next=login".into(),
            "/file/info/refs" => "file:///etc/info/refs?service=git-upload-pack".into(),
            "/loop/info/refs" => "/loop/info/refs?service=git-upload-pack".into(),
            _ => return backend(&root, request),
        };
        Reply::Whole(302, vec![("location".into(), to)], Vec::new())
    });
    let at = |path: &str| {
        resolve(&Remote {
            credentials: Credentials::Basic { username: "ada".into(), password: "s3cret".into() },
            ..remote(&world.server.url(path))
        })
    };
    assert_eq!(at("old.git").unwrap().commit, first);
    let log = world.server.take_log();
    assert_eq!(log.len(), 4);
    assert!(log.iter().all(|r| r.header("authorization").is_some()));
    assert!(log[2].path.starts_with("/app.git/"));

    // Another port is another origin.
    assert_eq!(at("moved.git").unwrap().commit, first);
    let log = elsewhere.take_log();
    assert_eq!(log.len(), 3);
    assert!(log.iter().all(|r| r.header("authorization").is_none()));

    for path in ["login", "file", "loop"] {
        let error = at(path).unwrap_err();
        assert_eq!(error.reason(), "RedirectRefused", "{path}: {error}");
    }
}

#[test]
fn after_a_redirect_errors_name_the_host_that_was_asked() {
    let elsewhere = Server::with(|_| Reply::status(401));
    let strict = elsewhere.url("app.git");
    let server = Server::with(move |request| {
        let to = match request.path.as_str() {
            "/strict/info/refs" => &strict,
            _ => "http://127.0.0.1:1/app.git",
        };
        let to = format!("{to}/info/refs?{}", request.query);
        Reply::Whole(302, vec![("location".into(), to)], Vec::new())
    });
    let at = |path: &str, credentials| {
        resolve(&Remote { credentials, ..remote(&server.url(path)) }).unwrap_err()
    };
    let ours = || Credentials::Basic { username: "ada".into(), password: "s3cret".into() };
    let error = at("strict", ours());
    let host = elsewhere.url("").replace("http://", "").replace('/', "");
    assert_eq!(error.reason(), "RedirectRefused", "{error}");
    assert!(error.to_string().contains(&format!("it leads to {host}, which wants")), "{error}");
    let error = at("strict", Credentials::Anonymous);
    assert_eq!(error.reason(), "AuthenticationFailed", "{error}");
    let error = at("gone", ours());
    assert_eq!(error.to_string(), "127.0.0.1:1 refused the connection");
}

#[test]
fn a_repository_that_moves_is_found_again() {
    let mut world = World::new();
    world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let root = world.dir.path().join("git");
    std::fs::rename(root.join("app.git"), root.join("one.git")).unwrap();
    let moved = root.clone();
    world.server = Server::with(move |request| {
        let now = if moved.join("one.git").exists() { "one" } else { "two" };
        if request.path == "/app.git/info/refs" {
            let to = format!("/{now}.git/info/refs?{}", request.query);
            return Reply::Whole(301, vec![("location".into(), to)], Vec::new());
        }
        backend(&moved, request)
    });
    let first = world.main();
    std::fs::rename(root.join("one.git"), root.join("two.git")).unwrap();
    assert_eq!(world.main(), first);
}

/// Whoever could answer for a server once must not answer for it ever after.
#[test]
fn where_a_redirect_led_for_now_or_to_another_host_is_not_remembered() {
    for (status, away) in [(302, true), (307, true), (301, true), (308, true), (302, false)] {
        let mut world = World::new();
        world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
        let root = world.dir.path().join("git");
        let other = Repo::init(&root.join("other.git"));
        let there = other.commit("refs/heads/main", &[("a.yaml", "another repository")]);
        let elsewhere = Server::backend(&root);
        let target = if away { elsewhere.url("") } else { "/".into() };
        let redirecting = Arc::new(AtomicBool::new(true));
        let on = Arc::clone(&redirecting);
        world.server = Server::with(move |request| {
            if on.load(Ordering::SeqCst) && request.path == "/app.git/info/refs" {
                let to = format!("{target}other.git/info/refs?{}", request.query);
                return Reply::Whole(status, vec![("location".into(), to)], Vec::new());
            }
            backend(&root, request)
        });
        for _ in 0..2 {
            assert_eq!(world.main().commit, there);
        }
        redirecting.store(false, Ordering::SeqCst);
        let here = world.repo.commit("refs/heads/main", &[("a.yaml", "2")]);
        assert_eq!(world.main().commit, here, "{status}, to another host: {away}");
        elsewhere.take_log();
        world.server.take_log();
        world.main();
        assert_eq!((elsewhere.take_log().len(), world.server.take_log().len()), (0, 1));
    }
}

#[test]
fn where_a_url_leads_for_good_on_its_host_is_remembered_for_some_looks() {
    let mut world = World::new();
    world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let root = world.dir.path().join("git");
    world.server = Server::with(move |request| {
        if request.path == "/app/info/refs" {
            let to = format!("/app.git/info/refs?{}", request.query);
            return Reply::Whole(301, vec![("location".into(), to)], Vec::new());
        }
        backend(&root, request)
    });
    let remote = remote(&world.server.url("app"));
    let look = || {
        world.server.take_log();
        world.mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap();
        world.server.take_log().len()
    };
    // Both ways to the server, its references, and a commit.
    assert_eq!(look(), 4);
    for _ in 0..2 {
        assert_eq!((0..10).map(|_| look()).collect::<Vec<_>>(), [1; 10]);
        assert_eq!(look(), 3, "the url is asked again");
    }
}

#[test]
fn statuses_are_told_apart() {
    for (status, reason, class) in [
        (404, "RepositoryNotFound", ErrorClass::WaitForUser),
        (410, "RepositoryNotFound", ErrorClass::WaitForUser),
        (429, "ServerError", ErrorClass::Retry),
        (500, "ServerError", ErrorClass::Retry),
        (503, "ServerError", ErrorClass::Retry),
    ] {
        let server = Server::with(move |_| Reply::status(status));
        let error = resolve(&remote(&server.url("a.git"))).unwrap_err();
        assert_eq!((error.reason(), error.class()), (reason, class), "{status}");
    }
    let world = World::new();
    let error = resolve(&remote(&world.server.url("missing.git"))).unwrap_err();
    assert_eq!(error.reason(), "RepositoryNotFound");
}

#[test]
fn hosts_that_cannot_be_reached() {
    // Too long for a name: no name server is asked, whatever this machine's would say.
    let name = format!("{}.invalid", "a".repeat(64));
    let error = resolve(&remote(&format!("http://{name}/a.git"))).unwrap_err();
    assert!(matches!(&error, SourceError::UnknownHost { host } if *host == name), "{error:?}");
    // Nobody gets this port by chance, as one that was free a moment ago.
    let error = resolve(&remote("http://127.0.0.1:1/a.git")).unwrap_err();
    assert!(matches!(error, SourceError::ConnectionRefused { .. }), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");

    // A server without TLS where TLS is asked for.
    let server = Server::with(|_| Reply::status(200));
    let url = server.url("a.git").replace("http://", "https://");
    let error = resolve(&remote(&url)).unwrap_err();
    assert!(
        matches!(error, SourceError::Tls { .. } | SourceError::Interrupted { .. }),
        "{error:?}"
    );
    let bad_ca =
        Remote { tls: Tls { ca: Some("no certificate".into()), ..Tls::default() }, ..remote(&url) };
    let error = resolve(&bad_ca).unwrap_err();
    assert_eq!(error.reason(), "CertificatesInvalid");
}

#[test]
fn a_silent_server_times_out() {
    for stage in ["advertisement", "listing", "pack"] {
        let mut world = World::new();
        world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
        let root = world.dir.path().join("git");
        world.server = Server::with(move |request| match stage {
            "advertisement" if request.method == "GET" => {
                Reply::Stall(ADVERTISEMENT, b"000eversion ".to_vec())
            }
            "listing" if request.method == "POST" => Reply::Stall(RESULT, Vec::new()),
            "pack" if request.is_fetch() => {
                Reply::Stall(RESULT, b"000dpackfile\n0008\x01PAC".to_vec())
            }
            _ => backend(&root, request),
        });
        let impatient = Remote { timeout: Duration::from_millis(700), ..world.remote() };
        let error = resolve(&impatient).unwrap_err();
        assert!(matches!(error, SourceError::Timeout { .. }), "{stage}: {error:?}");
    }
}

#[test]
fn floods_are_cut_off() {
    let mut world = World::new();
    let noise: Vec<String> = (0..60_000).map(|i| (i * 7919).to_string()).collect();
    let noise = noise.concat();
    world.repo.commit("refs/heads/main", &[("big.txt", &noise), ("b", "2")]);
    for i in 0..50 {
        let name = format!("refs/tags/v1.0.{i}");
        world.repo.git(&["update-ref", &name, "refs/heads/main"]);
    }
    let too_large = |error: SourceError, what: &str| match error {
        SourceError::TooLarge { what: found, .. } => assert_eq!(found, what),
        error => panic!("{error:?}"),
    };
    let bytes = Limits { pack_bytes: 10_000, ..Limits::default() };
    too_large(resolve_within(&world.remote(), bytes.clone()).unwrap_err(), "bytes");
    let objects = Limits { objects: 3, ..Limits::default() };
    too_large(resolve_within(&world.remote(), objects).unwrap_err(), "objects");
    let refs = Limits { refs: 20, ..Limits::default() };
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::open(dir.path(), refs).unwrap();
    let tags = crate::semver("*");
    let error = mirrors.resolve(&world.remote(), &tags, &Cancel::new());
    too_large(error.unwrap_err(), "references");

    let root = world.dir.path().join("git");
    for (head, piece) in [
        ("000dpackfile\n", &b"0009\x01PACK"[..]),
        ("000dpackfile\n0009\x01PACK", b"000a\x02noise"),
        ("0011shallow-info\n", b"0035shallow 1111111111111111111111111111111111111111\n"),
    ] {
        let root = root.clone();
        world.server = Server::with(move |request| {
            if request.is_fetch() {
                return Reply::Endless(RESULT, head.into(), piece.repeat(1000));
            }
            backend(&root, request)
        });
        let error = resolve_within(&world.remote(), bytes.clone()).unwrap_err();
        assert!(
            matches!(error, SourceError::TooLarge { .. } | SourceError::BadObjects { .. }),
            "{error:?}"
        );
    }
    let line = b"003d1111111111111111111111111111111111111111 refs/heads/main\n".to_vec();
    world.server = Server::with(move |request| {
        if request.method == "POST" {
            return Reply::Endless(RESULT, Vec::new(), line.repeat(1000));
        }
        Reply::git(ADVERTISEMENT, "000eversion 2\n000cls-refs\n000afetch\n0000")
    });
    too_large(resolve(&world.remote()).unwrap_err(), "references");
}

#[test]
fn what_inflates_to_too_much_is_refused_before_it_is_loaded() {
    let too_large = |error: SourceError, what: &str, limit: u64| match error {
        SourceError::TooLarge { what: found, limit: at } => assert_eq!((found, at), (what, limit)),
        error => panic!("{error:?}"),
    };
    let world = World::new();
    // Some kilobytes on the wire each.
    let letters = "a".repeat(3 << 20);
    world.repo.commit("refs/heads/main", &[("big.txt", &letters), ("b", "2")]);
    let files = Limits { object_bytes: 1 << 20, ..Limits::default() };
    too_large(resolve_within(&world.remote(), files).unwrap_err(), "bytes of one object", 1 << 20);
    let all = Limits { unpacked_bytes: 2 << 20, ..Limits::default() };
    too_large(resolve_within(&world.remote(), all).unwrap_err(), "unpacked bytes", 2 << 20);
    resolve(&world.remote()).unwrap();

    let blob = world.repo.blob("1");
    let tree = world.repo.tree(&[("100644", "a.yaml", &blob)]);
    let commit = world.repo.commit_tree(&tree, &[], &letters);
    world.repo.point("refs/heads/main", &commit);
    let error = world.resolve(&branch("main")).unwrap_err();
    assert!(error.hint().unwrap().contains("without large files"), "{error}");
    too_large(error, "bytes of one object", 1 << 20);
    // Nothing of it stays, and a commit that is as it should be is fetched as before.
    assert_eq!(world.packs(), 0);
    let good = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    assert_eq!(world.main().commit, good);
}

#[test]
fn what_is_no_git_server() {
    let page = |content_type: &'static str, body: &'static str| {
        let server = Server::with(move |_| Reply::git(content_type, body));
        resolve(&remote(&server.url("a.git"))).unwrap_err()
    };
    for error in [
        page("text/html", "<html>"),
        page("text/plain", "1111 refs/heads/main"),
        page("application/json", "{}"),
        page(ADVERTISEMENT, "<html>"),
    ] {
        assert_eq!(error.reason(), "NotAGitRepository", "{error}");
    }
    for garbage in
        ["", "0000", "0005", "zzzz", "000eversion 2\n", "000eversion 2\n0000", "0009ERR x"]
    {
        let error = page(ADVERTISEMENT, garbage);
        assert!(
            matches!(
                error.reason(),
                "ProtocolError" | "NotAGitRepository" | "ServerError" | "EmptyRepository"
            ),
            "{garbage}: {error:?}"
        );
    }
}

/// A pack in its side band.
fn framed(pack: &[u8]) -> Vec<u8> {
    let mut body = b"000dpackfile\n".to_vec();
    for piece in pack.chunks(1000) {
        body.extend(format!("{:04x}\x01", piece.len() + 5).bytes());
        body.extend(piece);
    }
    body.extend(b"0000");
    body
}

fn pack_of(repo: &crate::repo::Repo, objects: &[String]) -> Vec<u8> {
    let file = repo.path.join("sent");
    let name = repo.git_with(&["pack-objects", "-q", file.to_str().unwrap()], &objects.join("\n"));
    std::fs::read(repo.path.join(format!("sent-{name}.pack"))).unwrap()
}

#[test]
fn lies_about_objects_are_found_out() {
    let mut world = World::new();
    let root = world.dir.path().join("git");
    let blob = world.repo.blob("1");
    let tree = world.repo.tree(&[("100644", "a.yaml", &blob)]);
    let commit = world.repo.commit_tree(&tree, &[], "x");
    let other = world.repo.commit_tree(&tree, &[], "y");
    world.repo.point("refs/heads/main", &commit);
    let objects = |list: &[&str]| list.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let (id, other) = (commit.to_string(), other.to_string());
    let good = pack_of(&world.repo, &objects(&[&id, &tree, &blob]));
    let no_blob = pack_of(&world.repo, &objects(&[&id, &tree]));
    let wrong_commit = pack_of(&world.repo, &objects(&[&other, &tree, &blob]));
    let mut flipped = good.clone();
    flipped[20] ^= 0x55;
    let mut huge_count = good.clone();
    huge_count[8..12].copy_from_slice(&[0xff; 4]);
    let truncated = good[..good.len() - 15].to_vec();
    let bodies: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("a missing blob", framed(&no_blob), &["IncompleteRepository"]),
        ("another commit", framed(&wrong_commit), &["ProtocolError"]),
        ("a flipped byte", framed(&flipped), &["ProtocolError"]),
        ("a huge count", framed(&huge_count), &["RepositoryTooLarge"]),
        ("a truncated pack", framed(&truncated), &["ProtocolError"]),
        ("a broken stream", framed(&good)[..60].to_vec(), &["ProtocolError", "ConnectionBroken"]),
        ("no pack", b"0000".to_vec(), &["ProtocolError"]),
        ("an empty pack", framed(b""), &["ProtocolError"]),
        ("text", b"hello".to_vec(), &["ProtocolError"]),
        ("an error with a NUL", b"000dERR a\0b\x1bc".to_vec(), &["ServerError"]),
        ("a fatal band", b"000dpackfile\n0009\x03dead".to_vec(), &["ServerError"]),
        ("the truth", framed(&good), &[]),
    ];
    for (what, body, reasons) in bodies {
        let root = root.clone();
        world.server = Server::with(move |request| {
            if request.is_fetch() {
                return Reply::git(RESULT, body.clone());
            }
            backend(&root, request)
        });
        let result = world.resolve(&branch("main"));
        match (&result, reasons) {
            (Ok(_), []) => {}
            (Err(error), reasons) if reasons.contains(&error.reason()) => {
                assert!(!error.to_string().contains('\0'), "{error:?}");
                // Nothing of it stays.
                assert_eq!(world.packs(), 0, "{what}");
            }
            _ => panic!("{what}: {result:?}"),
        }
        world.mirrors.retain(world.mirrors.moment(), &[], &[]).unwrap();
    }
}

#[test]
fn a_server_that_trusts_a_broken_mirror_is_asked_without_it() {
    // The server leaves out what it believes we have, once.
    let mut world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    world.main();
    let blob = world.repo.blob("2");
    let tree = world.repo.tree(&[("100644", "a.yaml", &blob)]);
    let second = world.repo.commit_tree(&tree, &[&first.to_string()], "x");
    world.repo.point("refs/heads/main", &second);
    let lean = framed(&pack_of(&world.repo, &[second.to_string(), tree]));
    let root = world.dir.path().join("git");
    let log = world.server.take_log();
    assert_eq!(log.len(), 3);
    world.server = Server::with(move |request| {
        let have = format!("have {first}");
        if request.body.windows(have.len()).any(|w| w == have.as_bytes()) {
            return Reply::git(RESULT, lean.clone());
        }
        backend(&root, request)
    });
    // The first commit is also in the mirror of this server's address.
    world.mirrors.fetch_commit(&world.remote(), &first, &Cancel::new()).unwrap();
    assert_eq!(world.main().commit, second);
    assert_eq!(world.read(&second, "a.yaml"), "2");
    let fetches = world.server.take_log().iter().filter(|r| r.is_fetch()).count();
    assert_eq!(fetches, 3);
}

#[test]
fn a_connection_that_is_closed_as_it_is_used_again_is_no_failure() {
    let mut world = World::new();
    let root = world.dir.path().join("git");
    world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    world.server = Server::with(move |request| match backend(&root, request) {
        Reply::Whole(status, headers, body) => Reply::Kept(status, headers, body),
        reply => reply,
    });
    world.main();
    let second = world.repo.commit("refs/heads/main", &[("a.yaml", "2")]);
    // The first connection is one that rested, the others have just been used.
    assert_eq!(world.main().commit, second);
    // What is closed did not answer, and nothing was asked twice.
    assert_eq!(world.server.take_log().len(), 5);
}
