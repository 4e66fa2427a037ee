//! Private keys, and the data keys that they open.

use std::fmt;
use std::io::Read as _;

use age::armor::ArmoredReader;
use age::x25519;
use plumb_core::{Digest, Hasher};

use crate::cipher::KEY;
use crate::metadata::{MasterKey, Metadata};
use crate::{Error, KeyError, pgp, shamir};

/// Keys that are taken from one place. Each of them may be tried.
const MAX_KEYS: usize = 100;
/// Private keys that are tried for one file: more than one a group only where one failed.
const MAX_TRIES: usize = 64;
/// Bytes of a share with its number, the largest that a data key has.
const MAX_SHARE: u64 = KEY as u64 + 1;

/// Private keys. Shown and compared without what is private in them.
pub struct Keys {
    age: Vec<Age>,
    pgp: Vec<pgp::Private>,
    unused: Vec<String>,
    digest: Digest,
}

struct Age {
    identity: x25519::Identity,
    recipient: String,
}

/// What an entry among keys is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Age,
    Pgp,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.names()).finish()
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Keys {}

impl Keys {
    /// Takes the keys of a Secret: those of entries named `*.agekey` and `*.asc`.
    pub fn of_secret<'e>(
        entries: impl IntoIterator<Item = (&'e str, &'e [u8])>,
    ) -> Result<Self, KeyError> {
        Self::read(entries.into_iter().map(|(name, content)| {
            let kind = match name.rsplit_once('.') {
                Some((_, "agekey")) => Some(Kind::Age),
                Some((_, "asc")) => Some(Kind::Pgp),
                _ => None,
            };
            (name, kind, content)
        }))
    }

    /// Takes the keys of files, whatever their names are.
    pub fn of_files<'e>(
        files: impl IntoIterator<Item = (&'e str, &'e [u8])>,
    ) -> Result<Self, KeyError> {
        Self::read(files.into_iter().map(|(name, content)| {
            let armor = String::from_utf8_lossy(content).contains("-----BEGIN PGP");
            (name, Some(if armor { Kind::Pgp } else { Kind::Age }), content)
        }))
    }

    fn read<'e>(
        entries: impl IntoIterator<Item = (&'e str, Option<Kind>, &'e [u8])>,
    ) -> Result<Self, KeyError> {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(name, ..)| *name);
        let mut hasher = Hasher::new();
        let (mut age, mut pgp, mut unused) = (Vec::new(), Vec::new(), Vec::new());
        for (name, kind, content) in entries {
            hasher.part(name.as_bytes());
            match kind {
                Some(Kind::Age) => age.extend(age_keys(name, content)?),
                Some(Kind::Pgp) => pgp.extend(pgp::Private::read(name, content, MAX_KEYS)?),
                None => {
                    unused.push(name.to_owned());
                    continue;
                }
            }
            hasher.part(content);
        }
        match age.len() + pgp.len() {
            0 => Err(KeyError::None(unused)),
            count if count > MAX_KEYS => Err(KeyError::TooMany { limit: MAX_KEYS }),
            _ => Ok(Self { age, pgp, unused, digest: hasher.finish() }),
        }
    }

    /// A digest of the keys, which differs when they do. It is no more secret than what it is of is
    /// random, and is not to be told nevertheless.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What is public of each key.
    pub fn names(&self) -> Vec<String> {
        let age = self.age.iter().map(|key| format!("age {}", key.recipient));
        let pgp = self.pgp.iter().map(|key| format!("OpenPGP {}", key.fingerprint()));
        age.chain(pgp).collect()
    }

    /// The key that the values of a file are encrypted with.
    pub(crate) fn data_key(&self, metadata: &Metadata) -> Result<[u8; KEY], Error> {
        let mut tries = 0;
        let mut shares = Vec::new();
        let mut by = Vec::new();
        let mut closed: Vec<Vec<String>> = Vec::new();
        for group in &metadata.groups {
            let mut found = None;
            for key in group {
                if let Some(share) = self.share(key, &mut tries)? {
                    found = Some((share, key.name()));
                    break;
                }
            }
            match found {
                Some((share, name)) => {
                    shares.push(share);
                    by.push(name);
                }
                None => closed.push(group.iter().map(MasterKey::name).collect()),
            }
        }
        let secret = if metadata.groups.len() == 1 {
            match shares.pop() {
                Some(share) => Some(share),
                None => return Err(self.none_opens(metadata)),
            }
        } else {
            let (opened, threshold) = (shares.len(), metadata.threshold.max(2));
            if opened < threshold {
                let groups = metadata.groups.len();
                let have = self.names();
                return Err(Error::Threshold { opened, threshold, groups, closed, have });
            }
            shamir::combine(&shares)
        };
        secret
            .and_then(|secret| secret.try_into().ok())
            .ok_or_else(|| Error::DataKey(by.join(" and ")))
    }

    fn none_opens(&self, metadata: &Metadata) -> Error {
        let keys = metadata.groups.iter().flatten();
        let needs = keys.clone().map(MasterKey::name).collect();
        if keys.clone().all(|key| matches!(key, MasterKey::Remote { .. })) {
            return Error::Unsupported { needs };
        }
        Error::NoKey { needs, have: self.names(), unused: self.unused.clone() }
    }

    /// What is encrypted for a key, if it is one of these. Another key is not tried, so that a file
    /// cannot keep anybody busy.
    fn share(&self, key: &MasterKey, tries: &mut usize) -> Result<Option<Vec<u8>>, Error> {
        let mut once = || {
            *tries += 1;
            if *tries > MAX_TRIES {
                return Err(Error::TooMuch {
                    what: "keys of ours that do not open",
                    limit: MAX_TRIES,
                });
            }
            Ok(())
        };
        match key {
            MasterKey::Age { recipient, sealed } => {
                let Some(key) = self.age.iter().find(|key| key.recipient == *recipient) else {
                    return Ok(None);
                };
                once()?;
                Ok(key.open(sealed))
            }
            MasterKey::Pgp { fingerprint, sealed } => {
                for key in self.pgp.iter().filter(|key| key.is(fingerprint)) {
                    once()?;
                    if let Some(share) = key.open(sealed, MAX_SHARE) {
                        return Ok(Some(share));
                    }
                }
                Ok(None)
            }
            MasterKey::Remote { .. } => Ok(None),
        }
    }
}

impl Age {
    fn open(&self, sealed: &str) -> Option<Vec<u8>> {
        let file = age::Decryptor::new_buffered(ArmoredReader::new(sealed.as_bytes())).ok()?;
        let identity: &dyn age::Identity = &self.identity;
        let mut share = Vec::new();
        let mut opened = file.decrypt(std::iter::once(identity)).ok()?.take(MAX_SHARE + 1);
        opened.read_to_end(&mut share).ok()?;
        Some(share)
    }
}

/// The keys of a file as age-keygen writes it.
fn age_keys(name: &str, content: &[u8]) -> Result<Vec<Age>, KeyError> {
    let text = String::from_utf8_lossy(content);
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let unsupported = |what| Err(KeyError::Unsupported { name: name.to_owned(), what });
        if line.starts_with("AGE-SECRET-KEY-PQ-") {
            return unsupported("a post-quantum age key");
        }
        if line.starts_with("AGE-PLUGIN-") {
            return unsupported("a key of an age plugin");
        }
        if line.starts_with("age-encryption.org/") || line.starts_with("-----BEGIN AGE") {
            return unsupported("an age key behind a passphrase");
        }
        if line.starts_with("-----BEGIN OPENSSH") {
            return unsupported("an SSH key");
        }
        let identity: x25519::Identity =
            line.parse().map_err(|_| KeyError::Age { name: name.to_owned(), line: number })?;
        let recipient = identity.to_public().to_string();
        keys.push(Age { identity, recipient });
    }
    if keys.is_empty() {
        return Err(KeyError::NoAge { name: name.to_owned() });
    }
    Ok(keys)
}
