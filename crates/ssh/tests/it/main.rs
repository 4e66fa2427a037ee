//! Commands on a real OpenSSH server, and servers that misbehave.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails here")]

mod handmade;
#[path = "../../../testkit/src/git/sshd.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is shared, and not all of it is used here")]
mod sshd;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use plumb_core::ErrorClass;
use plumb_ssh::{Identity, KnownHosts, Running, Server, SshError, Stop, Times, run};

use crate::sshd::{HOST_KEYS, Sshd};

/// Longer than anything takes that is not broken.
const LONG: Duration = Duration::from_mins(2);

fn times() -> Times {
    Times { connect: LONG, stall: LONG, deadline: Instant::now() + LONG }
}

/// A server, and how to get in.
struct World {
    sshd: Sshd,
    identity: Identity,
    known_hosts: KnownHosts,
    stop: Stop,
}

impl World {
    fn new() -> Self {
        Self::of(Sshd::start())
    }

    fn of(sshd: Sshd) -> Self {
        let identity = Identity::parse(&sshd.client(), None).unwrap();
        let known_hosts = KnownHosts::parse(&sshd.known_hosts()).unwrap();
        Self { sshd, identity, known_hosts, stop: Stop::new() }
    }

    fn server(&self) -> Server {
        Server { host: "127.0.0.1".into(), port: self.sshd.port(), user: self.sshd.user().into() }
    }

    fn run(&self, command: &str) -> Result<Running, SshError> {
        self.run_with(&self.known_hosts, command)
    }

    fn run_with(&self, known_hosts: &KnownHosts, command: &str) -> Result<Running, SshError> {
        let environment = [("GIT_PROTOCOL", "version=2")];
        let command = (command, &environment[..]);
        run(&self.server(), &self.identity, known_hosts, command, times(), &self.stop)
    }

    fn says(&self, known_hosts: &str) -> Result<String, SshError> {
        self.run_with(&KnownHosts::parse(known_hosts)?, "echo hello").map(output)
    }
}

fn output(mut running: Running) -> String {
    let mut text = String::new();
    running.read_to_string(&mut text).unwrap();
    text
}

/// What reading came to.
fn read_error(running: &mut Running) -> SshError {
    let error = running.read(&mut [0; 1]).unwrap_err();
    error.get_ref().unwrap().downcast_ref::<SshError>().unwrap().clone()
}

#[test]
fn pipes_and_the_end_of_a_command_are_the_callers() {
    let world = World::new();
    let mut running =
        world.run("echo \"$GIT_PROTOCOL\"; read -r line; echo \"<$line>\"; echo no >&2; exit 7");
    let running = running.as_mut().unwrap();
    let mut first = [0; 10];
    running.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"version=2\n");
    running.write_all(b"what's up\n").unwrap();
    let mut rest = String::new();
    running.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "<what's up>\n");

    let end = world.run("echo out; echo no >&2; exit 7").unwrap().end().unwrap();
    assert_eq!((end.status, end.stderr.as_str()), (Some(7), "no\n"));
    // What is written to it without end is kept up to a limit.
    let end = world.run("yes no | head -n 10000 >&2").unwrap().end().unwrap();
    assert_eq!((end.status, end.stderr.len()), (Some(0), 8 << 10));
}

#[test]
fn much_goes_through_in_both_directions() {
    let world = World::new();
    let mut running = world.run("cat").unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    for piece in sent.chunks(100_000) {
        running.write_all(piece).unwrap();
        let mut came = vec![0; piece.len()];
        running.read_exact(&mut came).unwrap();
        assert!(came == piece);
    }
    let mut running = world.run("head -c 10000000 /dev/zero").unwrap();
    assert_eq!(std::io::copy(&mut running, &mut std::io::sink()).unwrap(), 10_000_000);
}

#[test]
fn each_type_of_host_key_does_alone() {
    let world = World::new();
    for kind in HOST_KEYS {
        let line = world.sshd.known_host(kind);
        assert_eq!(world.says(&line).unwrap(), "hello\n", "{kind}");
        let (_, key) = world.sshd.make_key(kind, "");
        let wrong = format!("[127.0.0.1]:{} {key}", world.sshd.port());
        let error = world.says(&wrong).unwrap_err();
        assert_eq!(error.reason(), "HostKeyChanged", "{kind}: {error}");
        assert_eq!(error.class(), ErrorClass::WaitForUser);
        let shown = format!("{error} {:?}", error.hint());
        assert!(shown.contains("SHA256:") && shown.contains("ssh-keyscan -p"), "{shown}");
        assert_eq!(world.says(&format!("{wrong}\n{line}")).unwrap(), "hello\n", "{kind}");
        let revoked = format!("{line}@revoked {line}");
        let error = world.says(&revoked).unwrap_err();
        assert_eq!(error.reason(), "HostKeyRevoked", "{kind}: {error}");
    }
}

#[test]
fn a_host_that_is_not_known_is_not_spoken_to() {
    let world = World::new();
    for known_hosts in [String::new(), world.sshd.known_hosts().replace("127.0.0.1", "127.0.0.2")] {
        let error = world.says(&known_hosts).unwrap_err();
        assert_eq!(error.reason(), "HostKeyUnknown", "{error}");
        assert!(error.hint().unwrap().contains("ssh-keyscan -p"), "{error}");
    }
    assert_eq!(world.sshd.connections(), 0);
}

#[test]
fn a_server_without_the_known_types_says_which_it_has() {
    let world = World::of(Sshd::with("HostKeyAlgorithms ssh-ed25519"));
    let error = world.says(&world.sshd.known_host("rsa")).unwrap_err();
    assert!(
        matches!(&error, SshError::HostKeyTypes { offered, known, .. }
            if offered.contains("ssh-ed25519") && known == "ssh-rsa"),
        "{error:?}"
    );
    assert_eq!(error.reason(), "HostKeyUnknown");
}

#[test]
fn each_type_of_key_gets_in_and_one_that_is_not_known_does_not() {
    let mut world = World::new();
    for kind in HOST_KEYS {
        for passphrase in ["", "correct horse"] {
            let (private, public) = world.sshd.make_key(kind, passphrase);
            world.identity = Identity::parse(&private, Some(passphrase)).unwrap();
            let error = world.run("true").unwrap_err();
            assert!(matches!(error, SshError::Refused { .. }), "{kind}: {error:?}");
            assert_eq!(error.reason(), "AuthenticationFailed");
            let fingerprint = world.identity.fingerprint();
            assert!(error.to_string().contains(&fingerprint), "{error}");
            world.sshd.authorize(&public);
            assert_eq!(output(world.run("echo in").unwrap()), "in\n", "{kind}");
        }
    }

    let mut server = world.server();
    server.user = "nobody-of-that-name".into();
    let command = ("true", &[][..]);
    let error = run(&server, &world.identity, &world.known_hosts, command, times(), &world.stop);
    assert_eq!(error.unwrap_err().reason(), "AuthenticationFailed");
}

#[test]
fn a_server_that_proves_its_key_with_sha1_is_not_spoken_to() {
    let world = World::new();
    for (algorithm, hash) in
        [("ssh-rsa", "-sha1"), ("rsa-sha2-256", "-sha256"), ("rsa-sha2-512", "-sha512")]
    {
        let (server, known_host) = handmade::server(algorithm, hash);
        let known_hosts = KnownHosts::parse(&known_host).unwrap();
        let command = ("true", &[][..]);
        let error = run(&server, &world.identity, &known_hosts, command, times(), &world.stop);
        let error = error.unwrap_err();
        // The others are taken, and logged in to, which is more than this server knows.
        assert_eq!(error.reason() == "ProtocolError", algorithm == "ssh-rsa", "{error}");
        assert_eq!(error.to_string().contains("SHA-1"), algorithm == "ssh-rsa", "{error}");
    }
}

#[test]
fn rsa_signs_with_what_the_server_takes() {
    for algorithm in ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"] {
        let mut world = World::of(Sshd::with(&format!("PubkeyAcceptedAlgorithms {algorithm}")));
        let (private, public) = world.sshd.make_key("rsa", "");
        world.identity = Identity::parse(&private, None).unwrap();
        world.sshd.authorize(&public);
        match world.run("echo in") {
            Ok(running) => assert_eq!(output(running), "in\n"),
            Err(error) => {
                assert_eq!((algorithm, error.reason()), ("ssh-rsa", "AuthenticationFailed"));
            }
        }
    }
}

#[test]
fn a_server_that_wants_more_than_a_key_says_so() {
    let world = World::of(Sshd::with(
        "PasswordAuthentication yes\nAuthenticationMethods publickey,password",
    ));
    let error = world.run("true").unwrap_err().to_string();
    assert!(error.contains("more than a key: password"), "{error}");
    let world = World::of(Sshd::with("PasswordAuthentication yes\nPubkeyAuthentication no"));
    let error = world.run("true").unwrap_err().to_string();
    assert!(error.contains("takes no keys, only password"), "{error}");
}

/// A listener that does something with each connection.
fn listener(each: impl Fn(TcpStream) + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(each));
    Server { host: "127.0.0.1".into(), port, user: "git".into() }
}

#[test]
fn servers_that_are_none_are_told() {
    let world = World::new();
    let known_hosts = world.sshd.known_hosts();
    let try_at = |server: &Server, times: Times| {
        let known = known_hosts.replace(
            &format!("[127.0.0.1]:{}", world.sshd.port()),
            &format!("[{}]:{}", server.host, server.port),
        );
        let known = KnownHosts::parse(&known).unwrap();
        let command = ("true", &[][..]);
        run(server, &world.identity, &known, command, times, &Stop::new()).unwrap_err()
    };
    let silent = listener(std::mem::forget);
    let short = Times { stall: Duration::from_millis(200), ..times() };
    assert_eq!(try_at(&silent, short).reason(), "Timeout");
    let soon = Times { deadline: Instant::now() + Duration::from_millis(200), ..times() };
    assert_eq!(try_at(&silent, soon).reason(), "Timeout");

    let gone = listener(drop);
    let error = try_at(&gone, times());
    assert_eq!(error.reason(), "ConnectionBroken", "{error:?}");
    let web = listener(|mut stream| {
        let _gone = stream.write_all(&b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(40));
    });
    let error = try_at(&web, times());
    assert_eq!(error.reason(), "ProtocolError", "{error:?}");
    // Nobody gets this port by chance, as one that was free a moment ago.
    let nobody = Server { port: 1, ..silent.clone() };
    let error = try_at(&nobody, times());
    assert_eq!(error.to_string(), "127.0.0.1:1 refused the connection");
    // Too long for a name: no name server is asked, whatever this machine's would say.
    let nowhere = Server { host: format!("{}.invalid", "a".repeat(64)), ..silent };
    assert_eq!(try_at(&nowhere, times()).reason(), "UnknownHost");
}

#[test]
fn what_is_read_may_stall_break_or_be_stopped() {
    let world = World::new();
    let wait = |times: Times, stop: &Stop| {
        let command = ("echo begun; exec cat >/dev/null", &[][..]);
        let (server, known_hosts) = (world.server(), &world.known_hosts);
        let mut running = run(&server, &world.identity, known_hosts, command, times, stop)?;
        // Where this fails, so does what comes.
        let _begun = running.read_exact(&mut [0; 6]);
        Ok(running)
    };
    // A slow machine may not even log in within this time, which must end in the same way.
    let second = Duration::from_secs(1);
    let stall = Times { stall: second, ..times() };
    let deadline = Times { deadline: Instant::now() + second, ..times() };
    for times in [stall, deadline] {
        let error = match wait(times, &Stop::new()) {
            Ok(mut running) => read_error(&mut running),
            Err(error) => error,
        };
        assert!(matches!(error, SshError::Timeout { .. }), "{error:?}");
    }

    let mut running = wait(times(), &Stop::new()).unwrap();
    world.sshd.cut();
    let error = read_error(&mut running);
    assert_eq!((error.reason(), error.class()), ("ConnectionBroken", ErrorClass::Retry));
    // It stays so.
    assert_eq!(read_error(&mut running).reason(), "ConnectionBroken");
    assert!(running.write_all(b"x").is_err());

    // Set before, while it is waited, and after.
    let stop = Stop::new();
    let mut running = wait(times(), &stop).unwrap();
    let other = stop.clone();
    let stopping = thread::spawn(move || other.stop());
    assert!(matches!(read_error(&mut running), SshError::Stopped));
    stopping.join().unwrap();
    assert!(matches!(read_error(&mut running), SshError::Stopped));
    let command = ("true", &[][..]);
    let error = run(&world.server(), &world.identity, &world.known_hosts, command, times(), &stop);
    assert!(matches!(error.unwrap_err(), SshError::Stopped));
}

#[test]
fn a_server_that_gives_no_shell_is_told() {
    let world = World::of(Sshd::with("ForceCommand exec false\nMaxSessions 0"));
    let error = world.run("true").unwrap_err();
    assert_eq!(error.reason(), "CommandRefused", "{error:?}");
}
