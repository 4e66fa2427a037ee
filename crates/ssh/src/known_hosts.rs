//! The keys of servers, as the known_hosts files of OpenSSH have them.
//!
//! The format and what matches are those of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT", and of OpenSSH's
//! own client, so that a file that works there works here.

use std::str::FromStr as _;

use ring::hmac;
use russh::keys::ssh_key::known_hosts::{HostPatterns, Marker};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};

use crate::SshError;

/// The port that known hosts leave out.
const PORT: u16 = 22;

/// Types of keys, the one that is asked for first in front, by the name that stands in the files.
/// Those that are left out cannot be checked: DSA is broken, and security keys are for users.
const TYPES: [(&str, &[Algorithm]); 5] = [
    ("ssh-ed25519", &[Algorithm::Ed25519]),
    ("ecdsa-sha2-nistp256", &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }]),
    ("ecdsa-sha2-nistp384", &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 }]),
    ("ecdsa-sha2-nistp521", &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 }]),
    (
        "ssh-rsa",
        // The name of the key's type is also that of signatures with SHA-1, which are not taken.
        &[
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ],
    ),
];

/// The lines of a known_hosts file.
#[derive(Debug, Clone)]
pub struct KnownHosts {
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    /// Counted from 1.
    number: usize,
    marker: Option<Marker>,
    hosts: HostPatterns,
    key: Key,
}

#[derive(Debug, Clone)]
enum Key {
    Usable(PublicKey),
    /// Of a type that is not checked.
    Foreign(String),
    /// It says that it is of a type that is, and is not.
    Broken,
}

/// What is known of one host.
#[derive(Debug, Clone)]
pub struct HostKeys {
    /// As known hosts name it.
    host: String,
    trusted: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

impl KnownHosts {
    /// Reads the text of a file. A line whose parts cannot be told is an error. What its key is
    /// worth matters only where it is of the host that is asked for.
    pub fn parse(text: &str) -> Result<Self, SshError> {
        let mut lines = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let bad = |why| SshError::InvalidKnownHosts { line: number, why };
            let mut words = text.split_ascii_whitespace().peekable();
            let marker = words.next_if(|word| word.starts_with('@'));
            let marker = marker.map(Marker::from_str).transpose();
            let marker = marker.map_err(|_| bad("its marker is not known"))?;
            let (Some(hosts), Some(kind), Some(key)) = (words.next(), words.next(), words.next())
            else {
                return Err(bad("it is not a host, a type and a key"));
            };
            let hosts = HostPatterns::from_str(hosts)
                .map_err(|_| bad("its host is hashed in a way that is not known"))?;
            let key = if TYPES.iter().any(|(name, _)| *name == kind) {
                match PublicKey::from_openssh(&format!("{kind} {key}")) {
                    Ok(key) => Key::Usable(key),
                    Err(_) => Key::Broken,
                }
            } else {
                Key::Foreign(kind.to_owned())
            };
            lines.push(Line { number, marker, hosts, key });
        }
        Ok(Self { lines })
    }

    /// The keys of a host. An error when there is none to check it with.
    ///
    /// A host on another port than 22 is looked for as `[host]:port`, and when that has no key, as
    /// OpenSSH does, without the port.
    pub fn of(&self, host: &str, port: u16) -> Result<HostKeys, SshError> {
        let plain = host.to_ascii_lowercase();
        let name = if port == PORT { plain.clone() } else { format!("[{plain}]:{port}") };
        let mut found = self.matching(&name)?;
        if name != plain {
            let mut other = self.matching(&plain)?;
            found.revoked.append(&mut other.revoked);
            if found.trusted.is_empty() {
                found.trusted = other.trusted;
                found.rest.extend(other.rest);
            }
        }
        let Found { trusted, revoked, rest } = found;
        let is_revoked = |key: &PublicKey| revoked.iter().any(|r| r.key_data() == key.key_data());
        if let Some(key) = trusted.iter().find(|key| is_revoked(key))
            && trusted.iter().all(is_revoked)
        {
            return Err(revoked_error(&name, key));
        }
        let trusted: Vec<PublicKey> = trusted.into_iter().filter(|key| !is_revoked(key)).collect();
        if trusted.is_empty() {
            let why = match rest.into_iter().next() {
                None => String::new(),
                Some(Rest::Authority) => {
                    ", only a certificate authority, which is not supported".to_owned()
                }
                Some(Rest::Foreign(kind)) => {
                    format!(", only one of the type {kind:?}, which is not supported")
                }
            };
            return Err(SshError::HostKeyUnknown { host: name, why });
        }
        Ok(HostKeys { host: name, trusted, revoked })
    }

    /// What the lines that a name matches say.
    fn matching(&self, name: &str) -> Result<Found, SshError> {
        let mut found = Found::default();
        for line in self.lines.iter().filter(|line| matches(&line.hosts, name)) {
            match (line.marker, &line.key) {
                (None, Key::Usable(key)) => found.trusted.push(key.clone()),
                (Some(Marker::Revoked), Key::Usable(key)) => found.revoked.push(key.clone()),
                (Some(Marker::CertAuthority), _) => found.rest.push(Rest::Authority),
                // No server is asked for such a key, so nothing can be said with one either.
                (Some(Marker::Revoked), Key::Foreign(_)) => {}
                (None, Key::Foreign(kind)) => found.rest.push(Rest::Foreign(kind.clone())),
                (None | Some(Marker::Revoked), Key::Broken) => {
                    let why = "its key is not one of the type that it names";
                    return Err(SshError::InvalidKnownHosts { line: line.number, why });
                }
            }
        }
        Ok(found)
    }
}

#[derive(Debug, Default)]
struct Found {
    trusted: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
    rest: Vec<Rest>,
}

/// What stands in the files and is of no use.
#[derive(Debug)]
enum Rest {
    Authority,
    Foreign(String),
}

impl HostKeys {
    /// As known hosts name the host.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// What to ask the server for: only what can be checked.
    pub(crate) fn algorithms(&self) -> Vec<Algorithm> {
        let types = TYPES.iter().filter(|(name, _)| self.names().any(|known| known == *name));
        types.flat_map(|(_, algorithms)| algorithms.iter().cloned()).collect()
    }

    /// The types of its keys, for a message.
    pub(crate) fn types(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in TYPES {
            if self.names().any(|known| known == name) {
                names.push(name);
            }
        }
        names.join(", ")
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.trusted.iter().map(|key| key.algorithm().as_str().to_owned())
    }

    /// Whether a server that has proved to have this key is the host.
    pub(crate) fn check(&self, key: &PublicKey) -> Result<(), SshError> {
        let is = |known: &PublicKey| known.key_data() == key.key_data();
        if self.revoked.iter().any(is) {
            return Err(revoked_error(&self.host, key));
        }
        if self.trusted.iter().any(is) {
            return Ok(());
        }
        Err(SshError::HostKeyChanged {
            host: self.host.clone(),
            algorithm: key.algorithm().to_string(),
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        })
    }

    /// As [`HostKeys::check`], of a line of a public key. For those who want to know whether a key
    /// is trusted without a server.
    pub fn trusts(&self, line: &str) -> bool {
        PublicKey::from_openssh(line).is_ok_and(|key| self.check(&key).is_ok())
    }
}

fn revoked_error(host: &str, key: &PublicKey) -> SshError {
    SshError::HostKeyRevoked {
        host: host.to_owned(),
        algorithm: key.algorithm().to_string(),
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
    }
}

/// Whether a line is about a host, whose name is in small letters.
fn matches(hosts: &HostPatterns, name: &str) -> bool {
    match hosts {
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, name.as_bytes(), hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let mut found = false;
            for pattern in patterns {
                let pattern = pattern.to_ascii_lowercase();
                match pattern.strip_prefix('!') {
                    Some(pattern) if is_like(pattern.as_bytes(), name.as_bytes()) => return false,
                    Some(_) => {}
                    None => found |= is_like(pattern.as_bytes(), name.as_bytes()),
                }
            }
            found
        }
    }
}

/// Whether a name is like a pattern with `*` and `?`. A star that was given too little is tried with
/// more; only the last one has to be, so the time is bounded by the product of both lengths.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests;
