//! Decrypts the values of a file, and holds them against its MAC.

use std::fmt::Write as _;
use std::sync::Arc;

use plumb_core::RelPath;
use sha2::{Digest as _, Sha256, Sha512};

use crate::cipher::{self, KEY, Plain, Sealed};
use crate::metadata::Metadata;
use crate::{Error, Format, Keys, dotenv, json, yaml};

/// Bytes of an encrypted file. An object may have three million in the API server.
const MAX_BYTES: usize = 5 << 20;

/// In what form an opened file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As sops prints it.
    Text,
    /// With each line of YAML where it was, so that errors name the line of the encrypted file.
    Lines,
}

/// How to open files.
#[derive(Debug, Clone, Copy)]
pub struct Options<'o> {
    /// The keys that there are.
    pub keys: &'o Keys,
    /// The form that is wanted.
    pub shape: Shape,
    /// Annotations that, with the value `disabled`, have an object left as it is.
    pub marks: &'o [&'o str],
    /// Bounds on a file of YAML.
    pub limits: plumb_yaml::Limits,
}

/// Decrypts a file, if it is encrypted. `file` is where errors say that something is.
pub fn open(
    file: &Arc<RelPath>,
    content: &[u8],
    options: &Options<'_>,
) -> Result<Option<Vec<u8>>, Error> {
    let Some(format) = Format::of(file.as_str(), content) else { return Ok(None) };
    let (size, limit) = (content.len(), MAX_BYTES);
    if size > limit {
        return Err(Error::TooLarge { size, limit });
    }
    let text = std::str::from_utf8(content).map_err(|_| Error::NotText(Vec::new()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Yaml => yaml::open(text, file, options),
        Format::Json => json::open(text, options),
        Format::Binary => json::open_envelope(text, options),
        Format::Dotenv => dotenv::open(text, options.keys).map(Some),
        Format::Ini => Err(Error::Ini),
    }
}

/// One file while it is opened: what its values are decrypted with, and what they sum up to.
pub(crate) struct Opening {
    key: [u8; KEY],
    metadata: Metadata,
    mac: Sha512,
}

impl Opening {
    pub(crate) fn begin(metadata: Metadata, keys: &Keys) -> Result<Self, Error> {
        let key = keys.data_key(&metadata)?;
        let mut mac = Sha512::new();
        if metadata.mac_only_encrypted {
            // So that it never equals one of all values.
            mac.update(Sha256::digest(b"sops"));
        }
        Ok(Self { key, metadata, mac })
    }

    /// Decrypts the next value, if it is encrypted. What comes out as a comment is no value.
    pub(crate) fn value(&mut self, path: &[String], given: Plain) -> Result<Plain, Error> {
        let text = match &given {
            Plain::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        let decrypted = match (self.metadata.rules.encrypted(path), text) {
            (Some(false), _) => None,
            (Some(true), Some("")) => Some(given.clone()),
            (Some(true), Some(text)) if cipher::looks_sealed(text) => Some(
                cipher::open(text, &self.key, &place(path)).map_err(|sealed| match sealed {
                    Sealed::Form | Sealed::Closed => Error::Value(path.to_vec()),
                    Sealed::Type => Error::Type(path.to_vec()),
                })?,
            ),
            (Some(true), _) => return Err(Error::NotEncrypted(path.to_vec())),
            (None, text) => text.and_then(|text| cipher::open(text, &self.key, &place(path)).ok()),
        };
        // Of a comment inside a list sops makes an item, which it then misses in its own MAC.
        if let Some(comment @ Plain::Comment(_)) = decrypted {
            return Ok(comment);
        }
        if decrypted.is_some() || !self.metadata.mac_only_encrypted {
            self.mac.update(decrypted.as_ref().unwrap_or(&given).bytes());
        }
        Ok(decrypted.unwrap_or(given))
    }

    /// Decrypts a comment that belongs to one of some places, if it is encrypted. No MAC is over
    /// comments, but each is bound to its place.
    pub(crate) fn comment(&self, text: &str, paths: &[&[String]]) -> Option<String> {
        paths.iter().find_map(|path| match cipher::open(text, &self.key, &place(path)) {
            Ok(Plain::Comment(text)) => Some(text),
            Ok(Plain::Text(bytes)) => String::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// Whether the values are those that were encrypted, in their order.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let Metadata { mac, last_modified, .. } = &self.metadata;
        let Ok(Plain::Text(wanted)) = cipher::open(mac, &self.key, last_modified) else {
            return Err(Error::MacSealed);
        };
        let mut found = String::new();
        for byte in self.mac.finalize() {
            // A String takes all that is written to it.
            let _ = write!(found, "{byte:02X}");
        }
        if wanted == found.as_bytes() { Ok(()) } else { Err(Error::MacMismatch) }
    }
}

/// What a value is bound to: the keys that lead to it, without places in lists.
fn place(path: &[String]) -> String {
    let mut place = path.join(":");
    place.push(':');
    place
}
