//! One connection, one command.
//!
//! russh is asynchronous. Its tasks live on a runtime of the connection's own, which runs in the
//! thread of the caller and only while a call is under way: no thread is started but for a look at
//! the name server, and what nobody reads is not received.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::client::{self, AuthResult, DisconnectReason, Handle, Msg};
use russh::keys::agent::AgentSessionBinding;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, ChannelMsg, MethodKind, Preferred, SshId};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep_until, timeout};

use crate::{HostKeys, Identity, KnownHosts, SshError, Stop};

/// The one algorithm of signatures that hashes with SHA-1, of keys that have others.
const SHA1: &[u8] = b"ssh-rsa";

/// What we call ourselves.
const ID: &str = concat!("SSH-2.0-plumb_", env!("CARGO_PKG_VERSION"));

/// Bytes that are kept of what a command writes to its standard error.
const MAX_STDERR: usize = 8 << 10;

/// How long a connection that has ended is waited for to say why.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Bytes of output after which a command that should end is not waited for any more.
const MAX_IGNORED: usize = 64 << 10;

/// Characters of a server's words in an error.
const MAX_WORDS: usize = 300;

/// Where to log in, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The port, mostly 22.
    pub port: u16,
    /// The user's name.
    pub user: String,
}

impl Server {
    /// As messages name it.
    fn shown(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 22 { host } else { format!("{host}:{}", self.port) }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// One try to connect to one address.
    pub connect: Duration,
    /// Any wait for the server to do the next thing.
    pub stall: Duration,
    /// The end of everything.
    pub deadline: Instant,
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Its exit status, if the server told it.
    pub status: Option<u32>,
    /// The first kilobytes of what it wrote to its standard error.
    pub stderr: String,
}

/// Logs in and starts a command, which the user's shell on the server gets as one text. The server
/// may refuse to set a variable of its environment, and does not tell.
pub fn run(
    server: &Server,
    identity: &Identity,
    known_hosts: &KnownHosts,
    (command, environment): (&str, &[(&str, &str)]),
    times: Times,
    stop: &Stop,
) -> Result<Running, SshError> {
    let keys = known_hosts.of(&server.host, server.port)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| SshError::Runtime { source: Arc::new(error) })?;
    let words = Arc::default();
    let host = server.shown();
    let driver = Driver { runtime: Some(runtime), stop: stop.clone(), times, host, words };

    let stream = driver.connect(server)?;
    let mut handle = driver.greet(stream, keys)?;
    driver.log_in(&mut handle, &server.user, identity)?;
    let channel = driver.start(&mut handle, command, environment)?;
    Ok(Running {
        driver,
        handle: Some(handle),
        channel,
        rest: Vec::new(),
        at: 0,
        output_ended: false,
        closed: false,
        broken: None,
        status: None,
        stderr: Vec::new(),
    })
}

/// Runs what is asynchronous, within the time that there is.
struct Driver {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    stop: Stop,
    times: Times,
    host: String,
    /// What the server said when it closed the connection.
    words: Arc<Mutex<String>>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A look at the name server may still be under way, and cannot be ended.
            runtime.shutdown_background();
        }
    }
}

impl Driver {
    fn drive<T>(
        &self,
        doing: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, SshError>>,
    ) -> Result<T, SshError> {
        let Some(runtime) = &self.runtime else { return Err(SshError::Stopped) };
        let until = self.times.deadline.min(Instant::now() + limit);
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.stopped() => Err(SshError::Stopped),
                result = work => result,
                () = sleep_until(until.into()) => Err(SshError::Timeout { doing }),
            }
        })
    }

    fn connect(&self, server: &Server) -> Result<TcpStream, SshError> {
        let times = self.times;
        let unknown = || SshError::UnknownHost { host: server.host.clone() };
        let addresses = self.drive("resolving the host name", times.connect, async {
            let found = tokio::net::lookup_host((server.host.as_str(), server.port)).await;
            found.map(Iterator::collect::<Vec<SocketAddr>>).map_err(|_| unknown())
        })?;
        let doing = "connecting to the SSH server";
        self.drive(doing, times.stall.max(times.connect), async {
            let mut failed = unknown();
            for address in addresses {
                match timeout(times.connect, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => {
                        // Requests are small, and each is waited for.
                        let _slower = stream.set_nodelay(true);
                        return Ok(stream);
                    }
                    Ok(Err(error)) => failed = self.not_connected(error),
                    Err(_) => failed = SshError::Timeout { doing },
                }
            }
            Err(failed)
        })
    }

    fn not_connected(&self, error: io::Error) -> SshError {
        let host = self.host.clone();
        match error.kind() {
            io::ErrorKind::ConnectionRefused => SshError::ConnectionRefused { host },
            io::ErrorKind::TimedOut => SshError::Timeout { doing: "connecting to the SSH server" },
            _ => SshError::Connect { host, source: Arc::new(error) },
        }
    }

    /// Agrees on keys with the server and checks who it is.
    fn greet(&self, stream: TcpStream, keys: HostKeys) -> Result<Handle<Client>, SshError> {
        let config = client::Config {
            client_id: SshId::Standard(Cow::Borrowed(ID)),
            preferred: Preferred { key: Cow::Owned(keys.algorithms()), ..Preferred::DEFAULT },
            ..client::Config::default()
        };
        let (name, types) = (keys.host().to_owned(), keys.types());
        let client = Client { keys, words: Arc::clone(&self.words) };
        let doing = "waiting for the SSH server's greeting";
        self.drive(doing, self.times.stall, async {
            let connected = client::connect_stream(Arc::new(config), stream, client).await;
            let handle = connected.map_err(|failure| match failure {
                Failure::Ssh(russh::Error::NoCommonAlgo {
                    kind: AlgorithmKind::Key,
                    theirs,
                    ..
                }) => SshError::HostKeyTypes {
                    host: name,
                    offered: clean(&theirs.join(", ")),
                    known: types,
                },
                failure => self.failed(failure),
            })?;
            // The library checks a signature of any algorithm of the key, whatever was agreed on. Nothing
            // has been said to the server so far.
            let proof = handle.agent_session_binding().map(AgentSessionBinding::signature);
            if proof.and_then(algorithm).is_none_or(|algorithm| algorithm == SHA1) {
                let why = "it proves its key with SHA-1, which is broken".to_owned();
                return Err(SshError::Protocol { host: self.host.clone(), why });
            }
            Ok(handle)
        })
    }

    fn log_in(
        &self,
        handle: &mut Handle<Client>,
        user: &str,
        identity: &Identity,
    ) -> Result<(), SshError> {
        let refused = |why: String| SshError::Refused {
            host: self.host.clone(),
            user: user.to_owned(),
            fingerprint: identity.fingerprint(),
            why,
        };
        let doing = "logging in to the SSH server";
        let rest = self.drive(doing, self.times.stall, async {
            let hashes = if identity.key.algorithm().is_rsa() {
                match handle.best_supported_rsa_hash().await.map_err(|e| self.failed(e.into()))? {
                    // What it tells is what it knows, not what it takes.
                    Some(Some(_)) | None => vec![Some(HashAlg::Sha512), Some(HashAlg::Sha256)],
                    Some(None) => {
                        let why = "it takes RSA keys only with SHA-1, which is broken";
                        return Err(refused(why.to_owned()));
                    }
                }
            } else {
                vec![None]
            };
            let mut rest = None;
            for hash in hashes {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(&identity.key), hash);
                match handle.authenticate_publickey(user, key).await {
                    Ok(AuthResult::Success) => return Ok(None),
                    Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                        rest = Some((remaining_methods, partial_success));
                    }
                    Err(error) => return Err(self.failed(error.into())),
                }
            }
            Ok(rest)
        });
        let rest = match rest {
            Err(SshError::Interrupted { .. }) => return Err(self.lost(handle)),
            rest => rest?,
        };
        let Some((methods, partial)) = rest else { return Ok(()) };
        let takes_keys = methods.contains(&MethodKind::PublicKey);
        let methods: Vec<&str> = methods.iter().map(Into::into).collect();
        let methods = methods.join(", ");
        Err(refused(if partial {
            format!("it wants more than a key: {methods}")
        } else if takes_keys {
            "it is none of the user's".to_owned()
        } else if methods.is_empty() {
            "it takes no keys".to_owned()
        } else {
            format!("it takes no keys, only {methods}")
        }))
    }

    fn start(
        &self,
        handle: &mut Handle<Client>,
        command: &str,
        environment: &[(&str, &str)],
    ) -> Result<Channel<Msg>, SshError> {
        let doing = "starting a command on the SSH server";
        let started = self.drive(doing, self.times.stall, async {
            let start = async {
                let channel = handle.channel_open_session().await?;
                for (name, value) in environment {
                    channel.set_env(false, *name, *value).await?;
                }
                channel.exec(true, command).await?;
                Ok(channel)
            };
            start.await.map_err(|error| match error {
                russh::Error::ChannelOpenFailure(_) => SshError::NotRun {
                    host: self.host.clone(),
                    why: "it opens no channel for it".to_owned(),
                },
                error => self.failed(Failure::Ssh(error)),
            })
        });
        match started {
            Err(SshError::Interrupted { .. }) => Err(self.lost(handle)),
            started => started,
        }
    }

    /// Why a connection ended that should not have.
    fn lost(&self, handle: &mut Handle<Client>) -> SshError {
        let ended = self.drive("closing the connection", LAST_WORDS, async {
            match handle.await {
                Ok(()) => Ok(self.failed(russh::Error::Disconnect.into())),
                Err(failure) => Ok(self.failed(failure)),
            }
        });
        match ended {
            Ok(error) | Err(error @ SshError::Stopped) => error,
            Err(_) => self.failed(russh::Error::Disconnect.into()),
        }
    }

    /// Our error for one of the library's.
    fn failed(&self, failure: Failure) -> SshError {
        let host = self.host.clone();
        let error = match failure {
            Failure::HostKey(error) => return *error,
            Failure::Ssh(error) => error,
        };
        let broke = |why: &str| {
            let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
            let why = if words.is_empty() { why } else { words.as_str() };
            SshError::Interrupted { host: host.clone(), source: Arc::new(Words(why.to_owned())) }
        };
        match error {
            russh::Error::IO(error) => match error.kind() {
                io::ErrorKind::TimedOut => {
                    SshError::Timeout { doing: "waiting for the SSH server's answer" }
                }
                io::ErrorKind::UnexpectedEof => broke("the server closed it"),
                _ => broke(&error.to_string()),
            },
            russh::Error::Disconnect
            | russh::Error::HUP
            | russh::Error::SendError
            | russh::Error::RecvError => broke("the server closed it"),
            russh::Error::Version => {
                SshError::Protocol { host, why: "it does not begin as one does".to_owned() }
            }
            russh::Error::NoCommonAlgo { kind, theirs, .. } => SshError::Protocol {
                host,
                why: format!("there is no {kind:?} that both have: {}", clean(&theirs.join(", "))),
            },
            // A panic's words may hold anything.
            russh::Error::Join(_) => {
                SshError::Protocol { host, why: "it made the client fail".to_owned() }
            }
            error => SshError::Protocol { host, why: clean(&error.to_string()) },
        }
    }
}

/// A cause that is known by its words only.
#[derive(Debug)]
struct Words(String);

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Words {}

/// What a signature says that it was made by.
fn algorithm(signature: &[u8]) -> Option<&[u8]> {
    let (length, rest) = signature.split_first_chunk()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// A server's words on one line and of bounded length.
fn clean(words: &str) -> String {
    words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect()
}

/// What the library asks of us while it talks to the server.
struct Client {
    keys: HostKeys,
    words: Arc<Mutex<String>>,
}

#[derive(Debug)]
enum Failure {
    Ssh(russh::Error),
    HostKey(Box<SshError>),
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for Client {
    type Error = Failure;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        // None is asked for, so a server that sends one breaks the protocol.
        if key.certificate().is_some() {
            return Ok(false);
        }
        match self.keys.check(&key.public_key()) {
            Ok(()) => Ok(true),
            Err(error) => Err(Failure::HostKey(Box::new(error))),
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Failure>) -> Result<(), Failure> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                *self.words.lock().unwrap_or_else(PoisonError::into_inner) = clean(&info.message);
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

/// A command that runs. Reading gives its standard output, writing is its standard input. Errors of
/// both hold an [`SshError`]. When it is dropped the connection is closed.
pub struct Running {
    driver: Driver,
    /// There until the connection is lost.
    handle: Option<Handle<Client>>,
    channel: Channel<Msg>,
    /// A piece of the output, read up to `at`.
    rest: Vec<u8>,
    at: usize,
    output_ended: bool,
    /// Nothing comes any more.
    closed: bool,
    /// Why it cannot be read any more.
    broken: Option<SshError>,
    status: Option<u32>,
    stderr: Vec<u8>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("host", &self.driver.host).finish_non_exhaustive()
    }
}

impl Running {
    /// Closes the command's input and waits for its end, unless it goes on with its output instead
    /// or does not end within the time of one stall.
    pub fn end(mut self) -> Result<End, SshError> {
        let until = Instant::now() + self.driver.times.stall;
        let channel = &self.channel;
        let _gone = self.driver.drive("closing a command's input", LAST_WORDS, async {
            let _gone = channel.eof().await;
            Ok(())
        });
        let mut ignored = 0;
        while !self.closed && self.broken.is_none() && ignored < MAX_IGNORED {
            self.rest.clear();
            let left = until.saturating_duration_since(Instant::now());
            match self.next(left) {
                Err(SshError::Timeout { .. }) => break,
                Err(error @ SshError::Stopped) => return Err(error),
                _ => ignored += self.rest.len(),
            }
        }
        Ok(End { status: self.status, stderr: String::from_utf8_lossy(&self.stderr).into_owned() })
    }

    /// Takes the next thing that the server says.
    fn next(&mut self, limit: Duration) -> Result<(), SshError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let channel = &mut self.channel;
        let doing = "waiting for the SSH server's answer";
        let message = self.driver.drive(doing, limit, async { Ok(channel.wait().await) })?;
        match message {
            Some(ChannelMsg::Data { data }) => {
                self.rest = data.into();
                self.at = 0;
            }
            Some(ChannelMsg::ExtendedData { data, ext: 1 }) => {
                let room = MAX_STDERR - self.stderr.len();
                self.stderr.extend_from_slice(&data[..data.len().min(room)]);
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => self.status = Some(exit_status),
            Some(ChannelMsg::Eof) => self.output_ended = true,
            Some(ChannelMsg::Close) => {
                self.output_ended = true;
                self.closed = true;
            }
            Some(ChannelMsg::Failure) => {
                let host = self.driver.host.clone();
                let why = "it does not take it".to_owned();
                return Err(self.broken.insert(SshError::NotRun { host, why }).clone());
            }
            Some(_) => {}
            None if self.output_ended => self.closed = true,
            None => return Err(self.lost()),
        }
        Ok(())
    }

    fn lost(&mut self) -> SshError {
        let error = match self.handle.take() {
            Some(mut handle) => self.driver.lost(&mut handle),
            None => self.driver.failed(russh::Error::Disconnect.into()),
        };
        self.broken.insert(error).clone()
    }
}

impl io::Read for Running {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.rest.len() && !self.output_ended {
            self.next(self.driver.times.stall).map_err(io::Error::other)?;
        }
        let left = &self.rest[self.at..];
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        self.at += count;
        Ok(count)
    }
}

impl io::Write for Running {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = &self.broken {
            return Err(io::Error::other(error.clone()));
        }
        let (channel, driver) = (&self.channel, &self.driver);
        let sent = driver.drive("sending to the SSH server", driver.times.stall, async {
            channel.data_bytes(bytes.to_vec()).await.map_err(|error| driver.failed(error.into()))
        });
        match sent {
            Ok(()) => Ok(bytes.len()),
            Err(SshError::Interrupted { .. }) => Err(io::Error::other(self.lost())),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Nothing is held back, but it goes out only while something is waited for.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
