//! OpenSSH's server on loopback.
//!
//! This file uses the standard library and `tempfile` only: crates that a testkit would be too
//! heavy for take it as a module of their tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

/// Where packages put it; it wants to be started by its whole path.
const SSHD: &str = "/usr/sbin/sshd";

/// The types of its host keys, as `ssh-keygen -t` names them, with their bits where there are several.
pub const HOST_KEYS: [&str; 5] = ["ed25519", "ecdsa", "ecdsa-384", "ecdsa-521", "rsa"];

/// An SSH server that lets in who runs the test, with the keys that were authorised. Each connection
/// has a process of its own, which ends with it.
#[derive(Debug)]
pub struct Sshd {
    dir: TempDir,
    user: String,
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    stopped: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    log: Mutex<Vec<String>>,
}

impl Sshd {
    /// A server with a host key of each type, that lets clients ask for protocol version 2.
    pub fn start() -> Sshd {
        Sshd::with("AcceptEnv GIT_PROTOCOL")
    }

    /// A server with lines of a configuration of its own.
    pub fn with(configuration: &str) -> Sshd {
        assert!(Path::new(SSHD).exists(), "{SSHD} is missing: install openssh-server");
        // The system makes it when it starts the service, which it may never have done.
        let _not_root = fs::create_dir_all("/run/sshd");
        let dir = TempDir::with_prefix("plumb-sshd-").expect("a directory");
        // Of what stands twice the first counts.
        let mut lines = vec![
            configuration.to_owned(),
            format!("AuthorizedKeysFile {}", dir.path().join("authorized_keys").display()),
            "StrictModes no".into(),
            "UsePAM no".into(),
            "PermitRootLogin prohibit-password".into(),
            "PasswordAuthentication no".into(),
            "KbdInteractiveAuthentication no".into(),
            "LogLevel VERBOSE".into(),
        ];
        for kind in HOST_KEYS {
            let path = dir.path().join(format!("host-{kind}"));
            keygen(&path, kind, "");
            lines.push(format!("HostKey {}", path.display()));
        }
        let config = dir.path().join("sshd_config");
        fs::write(&config, lines.join("\n") + "\n").expect("a file");
        fs::write(dir.path().join("authorized_keys"), "").expect("a file");

        let user = Command::new("id").arg("-un").output().expect("id").stdout;
        let user = String::from_utf8(user).expect("a name").trim().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (state, config) = (Arc::clone(&serving), config.clone());
                std::thread::spawn(move || state.serve(&stream, &config));
            }
        });
        Sshd { dir, user, address, state }
    }

    /// The only user that it knows.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The URL of a repository.
    pub fn url(&self, path: &Path) -> String {
        format!("ssh://{}@{}{}", self.user, self.address, path.display())
    }

    /// The line of one of its host keys as a known_hosts file has it.
    pub fn known_host(&self, kind: &str) -> String {
        let public = self.dir.path().join(format!("host-{kind}.pub"));
        let public = fs::read_to_string(public).expect("it was made");
        format!("[127.0.0.1]:{} {}\n", self.port(), public.trim())
    }

    /// The lines of all its host keys.
    pub fn known_hosts(&self) -> String {
        HOST_KEYS.map(|kind| self.known_host(kind)).concat()
    }

    /// Makes a key that it does not know: the private key and the line of the public one.
    pub fn make_key(&self, kind: &str, passphrase: &str) -> (String, String) {
        let made = fs::read_dir(self.dir.path()).expect("it is ours").count();
        let path = self.dir.path().join(format!("client-{kind}-{made}"));
        keygen(&path, kind, passphrase);
        let read = |path: PathBuf| fs::read_to_string(path).expect("it was made");
        (read(path.clone()), read(path.with_extension("pub")))
    }

    /// Lets in who has the private key of this line, and nobody else any more.
    pub fn authorize(&self, public: &str) {
        fs::write(self.dir.path().join("authorized_keys"), public).expect("a file");
    }

    /// A key that it lets in.
    pub fn client(&self) -> String {
        let (private, public) = self.make_key("ed25519", "");
        self.authorize(&public);
        private
    }

    /// How many connections came so far.
    pub fn connections(&self) -> usize {
        self.state.streams.lock().expect("not poisoned").len()
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for stream in self.state.streams.lock().expect("not poisoned").iter() {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.state.log.lock().expect("not poisoned").join("\n")
    }
}

impl State {
    fn serve(&self, stream: &TcpStream, config: &Path) {
        // Noted first, so that a server that is dropped meanwhile cuts it.
        self.streams.lock().expect("not poisoned").push(stream.try_clone().expect("a descriptor"));
        let input: OwnedFd = stream.try_clone().expect("a descriptor").into();
        let output: OwnedFd = stream.try_clone().expect("a descriptor").into();
        let mut child = Command::new(SSHD)
            .args(["-i", "-e", "-f"])
            .arg(config)
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was there a moment ago");
        let lines = BufReader::new(child.stderr.take().expect("a pipe"));
        for line in lines.lines().map_while(Result::ok) {
            self.log.lock().expect("not poisoned").push(line);
        }
        let _ended = child.wait();
        // Ours are open still.
        let _gone = stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        self.cut();
        let _last = TcpStream::connect(self.address);
    }
}

fn keygen(path: &Path, kind: &str, passphrase: &str) {
    let (kind, bits) = kind.split_once('-').unwrap_or(match kind {
        "rsa" => (kind, "2048"),
        _ => (kind, "256"),
    });
    let run = Command::new("ssh-keygen")
        // Few rounds and short keys: they protect nothing here.
        .args(["-q", "-a", "2", "-b", bits, "-C", "", "-t", kind, "-N", passphrase, "-f"])
        .arg(path)
        .output()
        .expect("ssh-keygen is missing: install openssh-client");
    assert!(run.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&run.stderr));
}
