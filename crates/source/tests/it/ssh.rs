//! Repositories on a real OpenSSH server.

use std::fs::File;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use plumb_core::ErrorClass;
use plumb_source::{
    Cancel, CommitId, Credentials, Limits, Mirrors, Reference, Remote, Revision, SourceError,
};

use crate::repo::Repo;
use crate::sshd::{HOST_KEYS, Sshd};
use crate::{branch, remote, semver};

/// Longer than anything takes that is not broken: logging in is much work for a slow machine.
const LONG: Duration = Duration::from_mins(2);

/// A repository, a server for it, who may read it, and a cache.
struct World {
    dir: tempfile::TempDir,
    repo: Repo,
    sshd: Sshd,
    credentials: Credentials,
    mirrors: Mirrors,
}

impl World {
    fn new() -> Self {
        Self::of(Sshd::start())
    }

    fn of(sshd: Sshd) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::init(&dir.path().join("git/it's $(mine).git"));
        let mirrors = Mirrors::open(&dir.path().join("cache"), Limits::default()).unwrap();
        let credentials = key(sshd.client(), None, sshd.known_hosts());
        Self { dir, repo, sshd, credentials, mirrors }
    }

    fn remote(&self) -> Remote {
        self.remote_at(&self.repo.path)
    }

    fn remote_at(&self, path: &std::path::Path) -> Remote {
        let (credentials, timeout) = (self.credentials.clone(), LONG);
        Remote { credentials, timeout, ..remote(&self.sshd.url(path)) }
    }

    fn resolve(&self, reference: &Reference) -> Result<Revision, SourceError> {
        self.mirrors.resolve(&self.remote(), reference, &Cancel::new())
    }

    fn resolve_with(&self, credentials: Credentials) -> Result<Revision, SourceError> {
        let remote = Remote { credentials, ..self.remote() };
        self.mirrors.resolve(&remote, &branch("main"), &Cancel::new())
    }

    fn read(&self, commit: &CommitId, path: &str) -> String {
        use plumb_core::Tree as _;
        let snapshot = self.mirrors.snapshot(&self.remote(), commit).unwrap();
        let path = plumb_core::RelPath::parse(path).unwrap();
        String::from_utf8(snapshot.read(&path, 1 << 20).unwrap()).unwrap()
    }
}

fn key(identity: String, passphrase: Option<&str>, known_hosts: String) -> Credentials {
    Credentials::Ssh { identity, passphrase: passphrase.map(String::from), known_hosts }
}

/// Everything that can be asked for, with a server that speaks version 2 and one that does not.
#[test]
fn commits_come_in_both_versions_of_the_protocol() {
    for configuration in ["AcceptEnv GIT_PROTOCOL", ""] {
        let world = World::of(Sshd::with(configuration));
        let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
        world.repo.git(&["tag", "-a", "-m", "x", "v1.0.0", "refs/heads/main"]);
        let found = world.resolve(&branch("main")).unwrap();
        assert_eq!((found.commit, found.name.as_str()), (first, "main"));
        assert_eq!(world.read(&first, "a.yaml"), "1");
        let commands = |connections| assert_eq!(world.sshd.connections(), connections);
        commands(1);
        // A poll is one command, and one that finds news fetches by the same.
        world.resolve(&branch("main")).unwrap();
        commands(2);
        let second = world.repo.commit("refs/heads/main", &[("a.yaml", "2")]);
        assert_eq!(world.resolve(&branch("main")).unwrap().commit, second);
        assert_eq!(world.read(&second, "a.yaml"), "2");
        commands(3);
        for reference in [
            Reference::Default,
            Reference::Tag("v1.0.0".into()),
            semver("1.x"),
            Reference::Name("refs/heads/main".into()),
        ] {
            let want = if reference.to_string().contains('1') { first } else { second };
            assert_eq!(world.resolve(&reference).unwrap().commit, want, "{reference}");
        }
        commands(7);
        // What is here needs nobody.
        world.mirrors.fetch_commit(&world.remote(), &first, &Cancel::new()).unwrap();
        commands(7);
        // A commit that no reference names any more, and then what the repository has instead.
        let third = world.repo.commit("refs/heads/other", &[("a.yaml", "3")]);
        let by_id = Reference::Commit { id: third.to_string(), branch: None };
        assert_eq!(world.resolve(&by_id).unwrap().commit, third);
        let error = world.resolve(&branch("none")).unwrap_err();
        assert_eq!(error.reason(), "RefNotFound", "{error:?}");
        assert_eq!(error.hint().unwrap(), "it has the branches: main, other");
    }
}

#[test]
fn a_mirror_that_is_damaged_is_fetched_anew() {
    let world = World::new();
    world.repo.commit("refs/heads/main", &[("a.yaml", "1"), ("b.yaml", "1")]);
    world.resolve(&branch("main")).unwrap();
    let mirrors = world.dir.path().join("cache/mirrors");
    let mirror = std::fs::read_dir(mirrors).unwrap().next().unwrap().unwrap().path();
    for entry in std::fs::read_dir(mirror.join("objects/pack")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::remove_file(&path).unwrap();
    }
    let second = world.repo.commit("refs/heads/main", &[("a.yaml", "2"), ("b.yaml", "1")]);
    assert_eq!(world.resolve(&branch("main")).unwrap().commit, second);
    assert_eq!(world.read(&second, "b.yaml"), "1");
}

#[test]
fn host_keys_of_each_type_do_alone_and_wrong_ones_do_not() {
    let world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let identity = world.sshd.client();
    for kind in HOST_KEYS {
        let line = world.sshd.known_host(kind);
        let found = world.resolve_with(key(identity.clone(), None, line.clone()));
        assert_eq!(found.unwrap().commit, first, "{kind}");
        let hashed = world.dir.path().join(kind);
        std::fs::write(&hashed, &line).unwrap();
        let keygen = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&hashed).output();
        assert!(keygen.unwrap().status.success());
        let hashed = std::fs::read_to_string(&hashed).unwrap();
        assert!(!hashed.contains("127.0.0.1"), "{hashed}");
        let found = world.resolve_with(key(identity.clone(), None, hashed));
        assert_eq!(found.unwrap().commit, first, "{kind}");

        let (_, other) = world.sshd.make_key(kind, "");
        let host = line.split(' ').next().unwrap();
        for (known_hosts, reason) in [
            (format!("{host} {other}"), "HostKeyChanged"),
            (format!("{line}@revoked {line}"), "HostKeyRevoked"),
            (line.replace("127.0.0.1", "127.0.0.2"), "HostKeyUnknown"),
            ("nonsense".into(), "KnownHostsInvalid"),
        ] {
            let error = world.resolve_with(key(identity.clone(), None, known_hosts)).unwrap_err();
            assert_eq!((error.reason(), error.class()), (reason, ErrorClass::WaitForUser));
        }
    }
}

#[test]
fn keys_of_each_type_get_in_and_errors_hold_nothing_of_them() {
    let world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let known = || world.sshd.known_hosts();
    for kind in HOST_KEYS {
        for passphrase in [None, Some("hunter2")] {
            let (private, public) = world.sshd.make_key(kind, passphrase.unwrap_or_default());
            let not_yet =
                world.resolve_with(key(private.clone(), passphrase, known())).unwrap_err();
            assert_eq!(not_yet.reason(), "AuthenticationFailed", "{not_yet:?}");
            world.sshd.authorize(&public);
            let found = world.resolve_with(key(private.clone(), passphrase, known())).unwrap();
            assert_eq!(found.commit, first, "{kind}");
            if passphrase.is_none() {
                continue;
            }
            for (wrong, reason) in
                [(None, "PassphraseMissing"), (Some("hunter3"), "PassphraseWrong")]
            {
                let error = world.resolve_with(key(private.clone(), wrong, known())).unwrap_err();
                assert_eq!((error.reason(), error.class()), (reason, ErrorClass::WaitForUser));
                let text = format!("{error} {error:?} {:?}", error.hint());
                assert!(!text.contains("hunter"), "{text}");
            }
        }
    }
    let error = world.resolve_with(key("hunter2".into(), None, known())).unwrap_err();
    assert_eq!(error.reason(), "IdentityInvalid");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[test]
fn a_repository_that_is_missing_is_told_in_the_servers_words() {
    let world = World::new();
    let none = world.remote_at(&world.repo.path.with_extension("none"));
    let error = world.mirrors.resolve(&none, &branch("main"), &Cancel::new()).unwrap_err();
    assert_eq!(
        (error.reason(), error.class()),
        ("RepositoryNotFound", ErrorClass::WaitForUser),
        "{error:?}"
    );
    assert!(error.to_string().contains("does not appear to be a git repository"), "{error}");

    // One that goes later, and one that is empty.
    world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    world.resolve(&branch("main")).unwrap();
    let moved = world.repo.path.with_extension("moved");
    std::fs::rename(&world.repo.path, &moved).unwrap();
    assert_eq!(world.resolve(&branch("main")).unwrap_err().reason(), "RepositoryNotFound");
    Repo::init(&world.repo.path);
    assert_eq!(world.resolve(&branch("main")).unwrap_err().reason(), "EmptyRepository");
}

#[test]
fn what_a_host_says_instead_is_told() {
    for (script, reason, words) in [
        ("echo 'ERROR: Repository not found.' >&2; exit 1", "RepositoryNotFound", "Repository not"),
        (
            "printf 'remote: \\nremote: ====\\nremote: ERROR: no.\\n' >&2; exit 1",
            "ServerError",
            "ERROR: no.",
        ),
        ("echo sh: git-upload-pack: not found >&2; exit 127", "ServerError", "not found"),
        ("exit 3", "ServerError", "status 3"),
        ("echo Welcome!", "NotAGitRepository", "Welc"),
        ("exit 0", "ProtocolError", "middle"),
        ("printf '0013ERR you may not'", "ServerError", "you may not"),
    ] {
        let world = World::of(Sshd::with(&format!("ForceCommand {script}")));
        let error = world.resolve(&branch("main")).unwrap_err();
        assert_eq!(error.reason(), reason, "{script}: {error:?}");
        assert!(error.to_string().contains(words), "{script}: {error}");
    }
}

/// A server that takes connections, hands each to `each`, and is otherwise as the real one that it
/// stands in front of.
fn front(sshd: &Sshd, each: impl Fn(TcpStream, TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), sshd.port());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            each(stream, TcpStream::connect(("127.0.0.1", behind)).unwrap());
        }
    });
    port
}

fn at(world: &World, port: u16) -> Remote {
    let [theirs, ours] = [world.sshd.port(), port].map(|port| format!("127.0.0.1:{port}"));
    let mut remote = world.remote();
    remote.url = remote.url.replace(&theirs, &ours);
    let known_hosts = world.sshd.known_hosts();
    let known_hosts = known_hosts.replace(&world.sshd.port().to_string(), &port.to_string());
    remote.credentials = key(world.sshd.client(), None, known_hosts);
    remote
}

#[test]
fn a_silent_server_costs_the_timeout_and_no_more() {
    let world = World::new();
    let port = front(&world.sshd, |stream, _| std::mem::forget(stream));
    let remote = Remote { timeout: Duration::from_millis(300), ..at(&world, port) };
    let error = world.mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap_err();
    assert_eq!((error.reason(), error.class()), ("Timeout", ErrorClass::Retry), "{error:?}");
}

#[test]
fn a_connection_that_is_cut_anywhere_is_told_and_the_next_one_does() {
    let world = World::new();
    let big = (0..50_000).map(|number| number.to_string()).collect::<Vec<_>>().join("\n");
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", &big)]);
    // In the greeting, among the keys, and in the pack.
    for bytes in [10, 800, 20_000] {
        let port = front(&world.sshd, move |client, server| {
            let mut from = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from.0, &mut from.1));
            let _gone = std::io::copy(&mut server.take(bytes), &mut &client);
            let _gone = client.shutdown(std::net::Shutdown::Both);
        });
        let remote = at(&world, port);
        let error = world.mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap_err();
        assert_eq!(
            (error.reason(), error.class()),
            ("ConnectionBroken", ErrorClass::Retry),
            "{bytes}: {error:?}"
        );
    }
    let again = key(world.sshd.client(), None, world.sshd.known_hosts());
    assert_eq!(world.resolve_with(again).unwrap().commit, first);
}

#[test]
fn cancel_ends_a_call_in_the_middle() {
    // The command says that it has begun, by a pipe that is no one's but ours, and then nothing.
    let dir = tempfile::tempdir().unwrap();
    let begun = dir.path().join("begun");
    assert!(Command::new("mkfifo").arg(&begun).status().unwrap().success());
    let script = format!("echo begun >{}; exec cat >/dev/null", begun.display());
    let world = World::of(Sshd::with(&format!("ForceCommand {script}")));
    let cancel = Cancel::new();
    let (remote, other) = (world.remote(), cancel.clone());
    let pipe = begun.clone();
    let cancelling = thread::spawn(move || {
        // Opening waits for the command.
        std::fs::read_to_string(pipe).unwrap();
        other.cancel();
    });
    let error = world.mirrors.resolve(&remote, &branch("main"), &cancel).unwrap_err();
    // Whatever came of it, nobody waits any more.
    let release = File::options().read(true).write(true).open(&begun).unwrap();
    drop(release);
    cancelling.join().unwrap();
    assert!(matches!(error, SourceError::Cancelled), "{error:?}");
}

#[test]
fn a_short_url_leads_to_its_host() {
    // Its server is the usual port's, so all that can be seen here is where it goes to.
    let world = World::new();
    let short = Remote {
        url: "git@nowhere.invalid:app.git".into(),
        credentials: world.credentials.clone(),
        ..world.remote()
    };
    let error = world.mirrors.resolve(&short, &branch("main"), &Cancel::new()).unwrap_err();
    assert_eq!(error.reason(), "HostKeyUnknown");
    assert!(error.to_string().contains("nowhere.invalid"), "{error}");
}
