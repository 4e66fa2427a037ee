//! OpenPGP private keys, and what is encrypted for them.

use std::io::Read as _;

use ::pgp::composed::{Deserializable as _, Message, SignedSecretKey};
use ::pgp::types::{KeyDetails as _, Password, SecretParams};

use crate::KeyError;

/// Keys for which one message may be encrypted; sops encrypts each for one.
const RECIPIENTS: usize = 4;
/// Characters of a fingerprint that tell keys apart. Older files name keys by the last sixteen.
const MIN_FINGERPRINT: usize = 16;

/// One private key with its subkeys.
pub(crate) struct Private {
    key: SignedSecretKey,
    /// Of the key and its subkeys.
    fingerprints: Vec<String>,
}

impl Private {
    /// The keys of an armored text.
    pub(crate) fn read(name: &str, content: &[u8], limit: usize) -> Result<Vec<Self>, KeyError> {
        let bad = || KeyError::Pgp { name: name.to_owned() };
        let (found, _) = SignedSecretKey::from_armor_many_buf(content).map_err(|_| bad())?;
        let mut keys = Vec::new();
        for key in found {
            let key = key.map_err(|_| bad())?;
            let subkeys = key.secret_subkeys.iter();
            let fingerprints: Vec<String> = std::iter::once(key.primary_key.fingerprint())
                .chain(subkeys.clone().map(|subkey| subkey.key.fingerprint()))
                .map(|fingerprint| format!("{fingerprint:X}"))
                .collect();
            let mut params = std::iter::once(key.primary_key.secret_params())
                .chain(subkeys.map(|subkey| subkey.key.secret_params()));
            if params.all(SecretParams::is_encrypted) {
                let fingerprint = fingerprints.first().cloned().unwrap_or_default();
                return Err(KeyError::Locked { name: name.to_owned(), fingerprint });
            }
            keys.push(Self { key, fingerprints });
            if keys.len() > limit {
                return Err(KeyError::TooMany { limit });
            }
        }
        if keys.is_empty() { Err(bad()) } else { Ok(keys) }
    }

    /// The fingerprint of the key itself.
    pub(crate) fn fingerprint(&self) -> &str {
        self.fingerprints.first().map_or("", String::as_str)
    }

    /// Whether a file means it or one of its subkeys.
    pub(crate) fn is(&self, fingerprint: &str) -> bool {
        fingerprint.len() >= MIN_FINGERPRINT
            && self.fingerprints.iter().any(|own| own.ends_with(fingerprint))
    }

    /// What an armored message for it says.
    pub(crate) fn open(&self, sealed: &str, limit: u64) -> Option<Vec<u8>> {
        let (message, _) = Message::from_armor(sealed.as_bytes()).ok()?;
        let Message::Encrypted { esk, .. } = &message else { return None };
        if esk.len() > RECIPIENTS {
            return None;
        }
        let mut message = message.decrypt(&Password::empty(), &self.key).ok()?;
        if message.is_compressed() {
            message = message.decompress().ok()?;
        }
        let mut opened = Vec::new();
        // A byte more shows that there is more.
        message.take(limit + 1).read_to_end(&mut opened).ok()?;
        Some(opened)
    }
}
