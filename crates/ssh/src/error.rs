//! What can go wrong between a key and a running command.

use std::sync::Arc;

use plumb_core::ErrorClass;

/// The error below one of ours.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why a command does not run, or does no longer. No variant holds a part of a private key or a
/// passphrase.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SshError {
    /// What was given as a private key is none, or none that can be used.
    #[error("the private key is not usable: {why}")]
    InvalidIdentity {
        /// What is wrong with it.
        why: String,
    },
    /// The private key is encrypted, and no passphrase was given.
    #[error("the private key is encrypted, and its passphrase is missing")]
    PassphraseMissing,
    /// The private key does not open with the passphrase.
    #[error("the private key does not open with the passphrase")]
    PassphraseWrong,
    /// A line of the known hosts cannot be read.
    #[error("line {line} of known_hosts cannot be read: {why}")]
    InvalidKnownHosts {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The known hosts have no key to check the server with.
    #[error("known_hosts has no key of {host}{why}")]
    HostKeyUnknown {
        /// As known hosts name it: `host`, or `[host]:port`.
        host: String,
        /// What they have instead: words that follow, or nothing.
        why: String,
    },
    /// The server has keys only of other types than the known hosts.
    #[error("{host} has keys of the types {offered}, and known_hosts has only {known}")]
    HostKeyTypes {
        /// As known hosts name it.
        host: String,
        /// The types that the server offers.
        offered: String,
        /// The types that the known hosts have of it.
        known: String,
    },
    /// The server shows another key than the known hosts have.
    #[error("{host} shows another {algorithm} key than known_hosts has: {fingerprint}")]
    HostKeyChanged {
        /// As known hosts name it.
        host: String,
        /// The type of the key.
        algorithm: String,
        /// What `ssh-keygen -l` shows of the key that the server has.
        fingerprint: String,
    },
    /// The server's key is marked as revoked.
    #[error("known_hosts says that the {algorithm} key of {host} is revoked: {fingerprint}")]
    HostKeyRevoked {
        /// As known hosts name it.
        host: String,
        /// The type of the key.
        algorithm: String,
        /// What `ssh-keygen -l` shows of it.
        fingerprint: String,
    },
    /// The server does not let the user in with this key.
    #[error("{host} does not let {user} in with the key {fingerprint}: {why}")]
    Refused {
        /// Host and port.
        host: String,
        /// The user's name.
        user: String,
        /// What `ssh-keygen -l` shows of the key's public part.
        fingerprint: String,
        /// What the server said.
        why: String,
    },
    /// The server let us in and does not run the command.
    #[error("{host} does not run the command: {why}")]
    NotRun {
        /// Host and port.
        host: String,
        /// What it said.
        why: String,
    },
    /// The host name does not resolve.
    #[error("host {host:?} cannot be resolved")]
    UnknownHost {
        /// The host name.
        host: String,
    },
    /// The host answered that nothing listens there.
    #[error("{host} refused the connection")]
    ConnectionRefused {
        /// Host and port.
        host: String,
    },
    /// The connection could not be made for another reason.
    #[error("cannot connect to {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// The operating system's error.
        #[source]
        source: Cause,
    },
    /// Time ran out.
    #[error("timed out while {doing}")]
    Timeout {
        /// What was waited for, in words that follow "while".
        doing: &'static str,
    },
    /// Somebody used the [`Stop`](crate::Stop).
    #[error("cancelled")]
    Stopped,
    /// The connection broke, or the server closed it.
    #[error("the connection to {host} broke")]
    Interrupted {
        /// Host and port.
        host: String,
        /// What the other side did or said.
        #[source]
        source: Cause,
    },
    /// The server's answer breaks the SSH protocol, or it is no SSH server.
    #[error("{host} does not answer as an SSH server should: {why}")]
    Protocol {
        /// Host and port.
        host: String,
        /// In what way.
        why: String,
    },
    /// The runtime that a connection needs could not be made.
    #[error("no runtime for a connection")]
    Runtime {
        /// The operating system's error.
        #[source]
        source: Cause,
    },
}

impl SshError {
    /// What happens next.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::UnknownHost { .. }
            | Self::ConnectionRefused { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Stopped
            | Self::Interrupted { .. }
            | Self::Protocol { .. }
            | Self::Runtime { .. } => ErrorClass::Retry,
            Self::InvalidIdentity { .. }
            | Self::PassphraseMissing
            | Self::PassphraseWrong
            | Self::InvalidKnownHosts { .. }
            | Self::HostKeyUnknown { .. }
            | Self::HostKeyTypes { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::Refused { .. }
            | Self::NotRun { .. } => ErrorClass::WaitForUser,
        }
    }

    /// A condition reason in CamelCase, one for each cause.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidIdentity { .. } => "IdentityInvalid",
            Self::PassphraseMissing => "PassphraseMissing",
            Self::PassphraseWrong => "PassphraseWrong",
            Self::InvalidKnownHosts { .. } => "KnownHostsInvalid",
            Self::HostKeyUnknown { .. } | Self::HostKeyTypes { .. } => "HostKeyUnknown",
            Self::HostKeyChanged { .. } => "HostKeyChanged",
            Self::HostKeyRevoked { .. } => "HostKeyRevoked",
            Self::Refused { .. } => "AuthenticationFailed",
            Self::NotRun { .. } => "CommandRefused",
            Self::UnknownHost { .. } => "UnknownHost",
            Self::ConnectionRefused { .. } => "ConnectionRefused",
            Self::Connect { .. } => "ConnectionFailed",
            Self::Timeout { .. } => "Timeout",
            Self::Stopped => "Cancelled",
            Self::Interrupted { .. } => "ConnectionBroken",
            Self::Protocol { .. } => "ProtocolError",
            Self::Runtime { .. } => "InternalError",
        }
    }

    /// What a person can do about it, where there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::InvalidIdentity { .. } => {
                "give the private key as `ssh-keygen -t ed25519` writes it; `ssh-keygen -p -f FILE` \
                 brings an older one into that form"
            }
            Self::PassphraseMissing => "give it as password beside the key",
            Self::PassphraseWrong => "`ssh-keygen -y -f FILE` shows whether a passphrase fits",
            Self::InvalidKnownHosts { .. } => {
                "give the lines as `ssh-keyscan` or a known_hosts file has them"
            }
            Self::HostKeyUnknown { host, .. } | Self::HostKeyTypes { host, .. } => {
                return Some(format!(
                    "add what `{}` prints, after comparing it with what the host's owner publishes",
                    keyscan(host)
                ));
            }
            Self::HostKeyChanged { host, .. } => {
                return Some(format!(
                    "either somebody answers in the host's place, or its key was changed: if its \
                     owner publishes this fingerprint, put what `{}` prints into known_hosts",
                    keyscan(host)
                ));
            }
            Self::HostKeyRevoked { .. } => {
                "do not trust this server before its owner has given it another key; put that one \
                 into known_hosts"
            }
            Self::Refused { .. } => {
                "add the public key to those that may read the repository, and check the user's \
                 name in the url"
            }
            Self::UnknownHost { .. } => {
                "check the host in the url; if it is right, the name server does not know it"
            }
            Self::ConnectionRefused { .. } | Self::Connect { .. } => {
                "check host and port in the url, and whether a network policy or firewall is in \
                 the way"
            }
            Self::Timeout { .. } => "the server may be slow or out of reach",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// The command that asks a host, as known hosts name it, for its keys.
fn keyscan(host: &str) -> String {
    match host.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")) {
        Some((host, port)) => format!("ssh-keyscan -p {port} {host}"),
        None => format!("ssh-keyscan {host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_the_port() {
        let unknown =
            |host: &str| SshError::HostKeyUnknown { host: host.into(), why: String::new() };
        for (host, want) in [
            ("example.com", "`ssh-keyscan example.com`"),
            ("[example.com]:2222", "`ssh-keyscan -p 2222 example.com`"),
            ("[::1]:2222", "`ssh-keyscan -p 2222 ::1`"),
            ("::1", "`ssh-keyscan ::1`"),
        ] {
            let hint = unknown(host).hint().unwrap();
            assert!(hint.contains(want), "{hint}");
        }
    }
}
