//! One call's dialogue with a Git server, whatever carries it.

use std::io::{self, Read};
use std::rc::Rc;

use url::Url;

use crate::pkt::{PktError, PktReader};
use crate::wire::{Server, WireError};
use crate::{Cancel, SourceError, http, ssh};

/// Where a repository answers, after redirects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The repository's URL without a final slash.
    pub(crate) url: Url,
    /// Whether it is the origin that the credentials were given for.
    pub(crate) trusted: bool,
    /// How many more questions may go there before the URL that was given is asked again; `None` for
    /// as long as it answers.
    pub(crate) uses: Option<u32>,
}

/// A reader of packets from an answer.
pub(crate) type Answer = PktReader<Body>;

/// The bytes of an answer.
pub(crate) enum Body {
    Http(ureq::BodyReader<'static>),
    /// All answers of a dialogue over SSH come on one line.
    Ssh(Rc<ssh::Line>),
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Http(body) => body.read(into),
            Self::Ssh(line) => line.read(into),
        }
    }
}

/// What carries it.
pub(crate) enum Session<'a> {
    Http(&'a http::Session<'a>),
    Ssh(&'a ssh::Session<'a>),
}

impl Session<'_> {
    pub(crate) fn cancel(&self) -> &Cancel {
        match self {
            Self::Http(http) => http.cancel(),
            Self::Ssh(ssh) => ssh.cancel(),
        }
    }

    /// An error without what the server was sent to get in.
    pub(crate) fn hide_secrets(&self, error: SourceError) -> SourceError {
        match self {
            Self::Http(http) => http.hide_secrets(error),
            Self::Ssh(_) => error,
        }
    }

    /// Whether a text that the server chose holds what it was sent to get in.
    pub(crate) fn gives_away(&self, text: &str) -> bool {
        match self {
            Self::Http(http) => http.gives_away(text),
            // Neither key nor passphrase is sent.
            Self::Ssh(_) => false,
        }
    }

    /// Asks what the server offers.
    pub(crate) fn advertisement(&self, limit: u64) -> Result<(Endpoint, Answer), SourceError> {
        match self {
            Self::Http(http) => http.advertisement(limit),
            Self::Ssh(ssh) => ssh.advertisement(limit),
        }
    }

    /// Sends a request to the endpoint, in version 2 of the protocol if `protocol` says so.
    pub(crate) fn post(
        &self,
        endpoint: &Endpoint,
        body: &[u8],
        protocol: Option<&str>,
        limit: u64,
    ) -> Result<Answer, SourceError> {
        match self {
            Self::Http(http) => http.post(endpoint, body, protocol, limit),
            Self::Ssh(ssh) => ssh.post(body, protocol.is_some(), limit),
        }
    }

    /// Says that an answer has been read to its end, after which the server waits for a request, so
    /// that its connection can be used for that.
    pub(crate) fn finish(&self, mut answer: Answer, server: &Server) {
        match self {
            Self::Http(_) => drop(answer.next()),
            Self::Ssh(ssh) => ssh.finish(server),
        }
    }

    /// As [`Session::finish`], after a pack, where an HTTP server that holds its answer open would
    /// be waited for.
    pub(crate) fn received(&self, server: &Server) {
        if let (Self::Ssh(ssh), Server::V2(_)) = (self, server) {
            ssh.finish(server);
        }
    }

    /// Our error for one of the wire's.
    pub(crate) fn wire_error(
        &self,
        error: WireError,
        what: &'static str,
        limit: u64,
    ) -> SourceError {
        match self {
            Self::Http(http) => wire_error(*http, error, what, limit),
            Self::Ssh(ssh) => wire_error(*ssh, error, what, limit),
        }
    }
}

/// What the two ways tell differently of an answer that is not understood.
pub(crate) trait Carrier {
    fn cancel(&self) -> &Cancel;

    /// What the server said elsewhere instead of answering.
    fn last_words(&self) -> Option<SourceError>;

    /// Our error for one of reading.
    fn io_error(&self, error: io::Error) -> SourceError;

    /// The repository as errors name it.
    fn shown(&self) -> String;
}

/// Our error for one of the wire's.
pub(crate) fn wire_error(
    carrier: &impl Carrier,
    error: WireError,
    what: &'static str,
    limit: u64,
) -> SourceError {
    // A shutdown shows as an end of the stream.
    if carrier.cancel().is_cancelled() {
        return SourceError::Cancelled;
    }
    let ended_early = matches!(
        error,
        WireError::NotGit(_) | WireError::Protocol(_) | WireError::Pkt(PktError::Truncated)
    );
    if ended_early && let Some(error) = carrier.last_words() {
        return error;
    }
    match error {
        WireError::Pkt(PktError::Io(error)) => carrier.io_error(error),
        WireError::Pkt(PktError::Limit) => SourceError::TooLarge { what, limit },
        WireError::Pkt(PktError::Truncated) => {
            SourceError::Protocol { why: "it ends in the middle".into() }
        }
        WireError::Pkt(PktError::Length(head)) => SourceError::Protocol {
            why: format!("{:?} is no length of a packet", String::from_utf8_lossy(&head)),
        },
        WireError::Server(message) => SourceError::Server { message },
        WireError::NotGit(why) => SourceError::NotGit { url: carrier.shown(), why },
        WireError::Protocol(why) => SourceError::Protocol { why },
        WireError::Sha256 => SourceError::Sha256Repository,
        WireError::Partial => SourceError::Incomplete { why: "it is a partial clone itself" },
        WireError::TooManyRefs => SourceError::TooLarge { what: "references", limit },
    }
}
