//! The keys that are trusted, from a Secret in the format of Flux.

use std::fmt;

use plumb_core::{Digest, Hasher};

use crate::verify::KeysError;
use crate::verify::openpgp::{self, PgpKey};
use crate::verify::ssh::{self, SshKey};

/// Public keys whose signatures count.
pub struct TrustedKeys {
    pub(super) pgp: Vec<PgpKey>,
    pub(super) ssh: Vec<SshKey>,
    digest: Digest,
}

impl fmt::Debug for TrustedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedKeys({} OpenPGP, {} SSH)", self.pgp.len(), self.ssh.len())
    }
}

impl PartialEq for TrustedKeys {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for TrustedKeys {}

impl TrustedKeys {
    /// Takes the keys of a Secret: OpenPGP keys of entries named `*.asc`, SSH keys of entries named
    /// `*.sshpub`. An entry of another name is refused, since who put it there believes that it counts.
    pub fn of_secret<'e>(
        entries: impl IntoIterator<Item = (&'e str, &'e [u8])>,
    ) -> Result<Self, KeysError> {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(name, _)| *name);
        let mut hasher = Hasher::new();
        let (mut blocks, mut ssh) = (Vec::new(), Vec::new());
        for (name, content) in entries {
            match name.rsplit_once('.') {
                Some((_, "asc")) => blocks.push((name, content)),
                Some((_, "sshpub")) => ssh.extend(ssh::read(name, content)?),
                _ => return Err(KeysError::UnknownKind { name: name.to_owned() }),
            }
            hasher.part(name.as_bytes()).part(content);
        }
        let pgp = openpgp::read(&blocks)?;
        if pgp.is_empty() && ssh.is_empty() {
            return Err(KeysError::None);
        }
        Ok(Self { pgp, ssh, digest: hasher.finish() })
    }

    /// A digest of the keys, which differs when they do.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}
