//! SSH for one call: one command on the server, which all requests go to and all answers come from.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write as _};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use plumb_ssh::{Identity, KnownHosts, Running, SshError, Stop, Times, run};

use crate::agents::{CONNECT_TIMEOUT, STALL_TIMEOUT};
use crate::cancel::{Watch, lock};
use crate::pkt::PktReader;
use crate::remote::CheckedSsh;
use crate::session::{Answer, Body, Carrier, Endpoint, wire_error};
use crate::wire::{self, Server, clean};
use crate::{Cancel, SourceError};

/// The variable by which Git's command is asked for version 2. Servers that do not take it speak
/// version 0, and so do those that have no other.
const ENVIRONMENT: [(&str, &str); 1] = [("GIT_PROTOCOL", "version=2")];

/// What the shell says when there is no such command.
const NO_COMMAND: u32 = 127;

/// Parts of what hosts write when there is no such repository for this key: git-upload-pack itself,
/// GitHub, GitLab, Gitea, Bitbucket and Gitolite.
const MISSING: [&str; 5] = [
    "does not appear to be a git repository",
    "not found",
    "could not be found",
    "does not exist",
    "denied",
];

/// A private key that has been opened, for the next calls: opening one takes time on purpose.
pub(crate) type OpenIdentity = Mutex<Option<Identity>>;

/// The command's pipes, which a session and its answers share.
pub(crate) struct Line(RefCell<Option<Running>>);

impl Line {
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match &mut *self.0.borrow_mut() {
            Some(running) => running.read(into),
            None => Ok(0),
        }
    }
}

/// What the server waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// There is none, or it is in the middle of something.
    Not,
    V0,
    V2,
}

/// The commands of one call: one, unless something goes wrong and is tried again.
pub(crate) struct Session<'a> {
    remote: &'a CheckedSsh,
    identity: &'a OpenIdentity,
    cancel: &'a Cancel,
    deadline: Instant,
    line: RefCell<Rc<Line>>,
    waits: Cell<Waits>,
    stop: Stop,
    _watch: Watch,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        remote: &'a CheckedSsh,
        identity: &'a OpenIdentity,
        cancel: &'a Cancel,
        deadline: Instant,
    ) -> Self {
        let stop = Stop::new();
        let other = stop.clone();
        Self {
            remote,
            identity,
            cancel,
            deadline,
            line: RefCell::new(Rc::new(Line(RefCell::new(None)))),
            waits: Cell::new(Waits::Not),
            stop,
            _watch: cancel.on_cancel(move || other.stop()),
        }
    }

    /// Starts the command, which begins with what the server offers.
    pub(crate) fn advertisement(&self, limit: u64) -> Result<(Endpoint, Answer), SourceError> {
        self.cancel.check()?;
        self.waits.set(Waits::Not);
        let CheckedSsh { address, known_hosts, .. } = self.remote;
        let known_hosts = KnownHosts::parse(known_hosts).map_err(|error| self.error(error))?;
        let identity = self.identity()?;
        let times =
            Times { connect: CONNECT_TIMEOUT, stall: STALL_TIMEOUT, deadline: self.deadline };
        let command = address.command();
        let command = (command.as_str(), &ENVIRONMENT[..]);
        let running = run(&address.server, &identity, &known_hosts, command, times, &self.stop)
            .map_err(|error| self.error(error))?;
        let line = Rc::new(Line(RefCell::new(Some(running))));
        *self.line.borrow_mut() = Rc::clone(&line);
        let endpoint = Endpoint { url: address.url.clone(), trusted: true, uses: None };
        Ok((endpoint, PktReader::new(Body::Ssh(line), limit)))
    }

    fn identity(&self) -> Result<Identity, SourceError> {
        let mut open = lock(self.identity);
        if let Some(identity) = &*open {
            return Ok(identity.clone());
        }
        let CheckedSsh { identity, passphrase, .. } = self.remote;
        let identity =
            Identity::parse(identity, passphrase.as_deref()).map_err(|error| self.error(error))?;
        Ok(open.insert(identity).clone())
    }

    /// Sends a request. A command that waits for one gets it, or else a new one.
    pub(crate) fn post(&self, body: &[u8], v2: bool, limit: u64) -> Result<Answer, SourceError> {
        let wanted = if v2 { Waits::V2 } else { Waits::V0 };
        if self.waits.replace(Waits::Not) != wanted {
            self.begin(wanted, limit)?;
        }
        let line = Rc::clone(&self.line.borrow());
        if let Some(running) = &mut *line.0.borrow_mut() {
            running.write_all(body).map_err(|error| self.io_error(error))?;
        }
        Ok(PktReader::new(Body::Ssh(line), limit))
    }

    /// Starts a command and reads over what the server offers, which is known.
    fn begin(&self, wanted: Waits, limit: u64) -> Result<(), SourceError> {
        let (_, mut answer) = self.advertisement(limit)?;
        let (server, _) = wire::read_advertisement(&mut answer, usize::MAX, |_| false)
            .map_err(|error| wire_error(self, error, "bytes", limit))?;
        if waits_of(&server) != wanted {
            return Err(SourceError::Protocol {
                why: "it is in another version of the protocol than before".into(),
            });
        }
        Ok(())
    }

    /// Says that the server waits for the next request.
    pub(crate) fn finish(&self, server: &Server) {
        self.waits.set(waits_of(server));
    }

    /// What is no matter of SSH is the same error as over HTTP.
    fn error(&self, error: SshError) -> SourceError {
        if self.cancel.is_cancelled() {
            return SourceError::Cancelled;
        }
        match error {
            SshError::Stopped => SourceError::Cancelled,
            SshError::UnknownHost { host } => SourceError::UnknownHost { host },
            SshError::ConnectionRefused { host } => SourceError::ConnectionRefused { host },
            SshError::Connect { host, source } => SourceError::Connect { host, source },
            SshError::Timeout { doing } => SourceError::Timeout { doing },
            SshError::Interrupted { host, source } => SourceError::Interrupted { host, source },
            error => SourceError::Ssh(error),
        }
    }
}

impl Carrier for Session<'_> {
    fn cancel(&self) -> &Cancel {
        self.cancel
    }

    /// What the command said when it ended instead of answering; `None` when it said nothing and
    /// ended well, or did not end.
    fn last_words(&self) -> Option<SourceError> {
        let running = self.line.borrow().0.borrow_mut().take()?;
        let end = match running.end() {
            Ok(end) => end,
            Err(error) => return Some(self.error(error)),
        };
        let words = tidy(&end.stderr);
        let message = match (words.is_empty(), end.status) {
            (false, _) => words,
            (true, Some(status)) if status > 0 => format!("it ended with the status {status}"),
            (true, _) => return None,
        };
        let lower = message.to_lowercase();
        let missing =
            end.status != Some(NO_COMMAND) && MISSING.iter().any(|words| lower.contains(words));
        Some(SourceError::CommandFailed { url: self.shown(), message, missing })
    }

    fn io_error(&self, error: io::Error) -> SourceError {
        let ours = error.get_ref().and_then(|error| error.downcast_ref::<SshError>());
        match ours {
            Some(error) => self.error(error.clone()),
            None => SourceError::Interrupted {
                host: self.remote.address.server.host.clone(),
                source: Arc::new(error),
            },
        }
    }

    /// Its URL has no password.
    fn shown(&self) -> String {
        self.remote.address.url.to_string()
    }
}

fn waits_of(server: &Server) -> Waits {
    match server {
        Server::V2(_) => Waits::V2,
        Server::V0(_) => Waits::V0,
    }
}

/// What a command wrote to its standard error, on one line: hosts frame their words with lines of
/// signs, and mark them as those of the other side.
fn tidy(stderr: &str) -> String {
    let lines = stderr.lines().map(|line| line.trim_start_matches("remote:").trim());
    let lines: Vec<&str> = lines.filter(|line| line.chars().any(char::is_alphanumeric)).collect();
    clean(&lines.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_hosts_become_one_line() {
        for (stderr, want) in [
            ("", ""),
            ("ERROR: Repository not found.\r\n", "ERROR: Repository not found."),
            (
                "remote: \nremote: ====\nremote: \nremote: ERROR: no project.\nremote: \n====\n",
                "ERROR: no project.",
            ),
            ("a\tb\n\u{1b}[31mc\n", "a b  [31mc"),
        ] {
            assert_eq!(tidy(stderr), want, "{stderr:?}");
        }
        assert!(tidy(&"word ".repeat(10_000)).len() <= 300);
    }
}
