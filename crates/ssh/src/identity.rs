//! The private key that a user logs in with.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use russh::keys::pkcs8::decode_pkcs8;
use russh::keys::ssh_key::Kdf as OpenSshKdf;
use russh::keys::{Algorithm, Error as KeyError, HashAlg, PrivateKey, decode_secret_key};

use crate::SshError;

/// Bytes of a key's text. One of RSA with 16,384 bits has some 13,000.
const MAX_TEXT: usize = 64 << 10;

/// Rounds of OpenSSH's derivation of a key from a passphrase. `ssh-keygen` takes 16 or 24 unless it
/// is told otherwise; this many are some seconds.
const MAX_ROUNDS: u32 = 1000;

/// Rounds of PBKDF2. OpenSSL takes 2048; this many are some seconds.
const MAX_ITERATIONS: u32 = 10_000_000;

/// Bytes that scrypt may use. OpenSSL takes 16 MB.
const MAX_MEMORY: u64 = 256 << 20;

/// How many passes scrypt may make over them. OpenSSL makes one.
const MAX_PASSES: u16 = 8;

/// A private key, open.
#[derive(Clone)]
pub struct Identity {
    pub(crate) key: Arc<PrivateKey>,
}

impl fmt::Debug for Identity {
    /// By its public part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.fingerprint()).finish()
    }
}

impl Identity {
    /// Opens a private key: Ed25519, ECDSA or RSA, in OpenSSH's format or in PEM (PKCS#1, SEC 1,
    /// PKCS#8). The passphrase of a key that is not encrypted is not looked at.
    pub fn parse(text: &str, passphrase: Option<&str>) -> Result<Self, SshError> {
        if text.len() > MAX_TEXT {
            return Err(invalid("it is too long"));
        }
        let text = text.trim_start();
        let Some(block) = Block::first(text)? else {
            return Err(if text.starts_with("PuTTY-User-Key-File") {
                invalid("it is in PuTTY's format")
            } else if text.starts_with("ssh-") || text.starts_with("ecdsa-") {
                invalid("it is a public key")
            } else {
                invalid("it does not begin as a private key does")
            });
        };
        let key = match block.label {
            "OPENSSH PRIVATE KEY" => openssh(&block, passphrase)?,
            "RSA PRIVATE KEY" | "EC PRIVATE KEY" if block.cipher.is_some() => {
                old_pem(&block, passphrase)?
            }
            "RSA PRIVATE KEY" | "EC PRIVATE KEY" | "PRIVATE KEY" => {
                decode_secret_key(&block.alone()?, None).map_err(|error| not_read(&error))?
            }
            "ENCRYPTED PRIVATE KEY" => pkcs8(&block, passphrase)?,
            "DSA PRIVATE KEY" => return Err(invalid("DSA keys are not supported")),
            other if other.ends_with("PRIVATE KEY") => {
                return Err(invalid("it is in a format that is not supported"));
            }
            _ => return Err(invalid("what it holds is no private key")),
        };
        match key.algorithm() {
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => {}
            other => return Err(invalid(&format!("keys of the type {other} are not supported"))),
        }
        Ok(Self { key: Arc::new(key) })
    }

    /// What `ssh-keygen -l` shows of its public part.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }
}

fn invalid(why: &str) -> SshError {
    SshError::InvalidIdentity { why: why.to_owned() }
}

/// The parsers' words say where in the structure they stopped, and nothing of what is in it; they
/// are no help to anybody all the same.
fn not_read(error: &KeyError) -> SshError {
    match error {
        KeyError::UnknownAlgorithm(_) | KeyError::UnsupportedKeyType { .. } => {
            invalid("its type is not supported")
        }
        _ => invalid("it cannot be decoded; a part of it may be missing"),
    }
}

/// What stands between the first two lines with marks.
struct Block<'t> {
    /// What it says that it is.
    label: &'t str,
    /// The line of its head that names a cipher.
    cipher: Option<&'t str>,
    /// Base64, a line each.
    lines: Vec<&'t str>,
}

impl<'t> Block<'t> {
    /// The first of a text; `None` when none begins.
    fn first(text: &'t str) -> Result<Option<Self>, SshError> {
        // Text in YAML comes indented, or with the line ends of another system.
        let mut lines = text.lines().map(str::trim);
        let begin = |line: &'t str| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----");
        let Some(label) = lines.find_map(begin) else { return Ok(None) };
        let mut block = Self { label, cipher: None, lines: Vec::new() };
        for line in lines {
            if line.starts_with("-----BEGIN ") {
                return Err(invalid("another one begins before it ends"));
            }
            if line.starts_with("-----") {
                break;
            }
            if line.starts_with("DEK-Info:") {
                block.cipher = Some(line);
            } else if !line.contains(':') {
                block.lines.push(line);
            }
        }
        Ok(Some(block))
    }

    fn bytes(&self) -> Result<Vec<u8>, SshError> {
        STANDARD
            .decode(self.lines.concat())
            .map_err(|_| invalid("it cannot be decoded; a part of it may be missing"))
    }

    /// A text with this block and nothing else. Libraries that take a text choose by themselves which
    /// of its blocks they read, and in which format; what it costs to open was looked at in this one.
    fn alone(&self) -> Result<String, SshError> {
        let (label, cipher) = (self.label, self.cipher.unwrap_or_default());
        let body = STANDARD.encode(self.bytes()?);
        Ok(format!("-----BEGIN {label}-----\n{cipher}\n{body}\n-----END {label}-----\n"))
    }
}

fn openssh(block: &Block<'_>, passphrase: Option<&str>) -> Result<PrivateKey, SshError> {
    let key = PrivateKey::from_bytes(&block.bytes()?).map_err(|error| not_read(&error.into()))?;
    if !key.is_encrypted() {
        return Ok(key);
    }
    if let OpenSshKdf::Bcrypt { rounds, .. } = key.kdf()
        && *rounds > MAX_ROUNDS
    {
        return Err(invalid("its passphrase takes too many rounds"));
    }
    let passphrase = passphrase.ok_or(SshError::PassphraseMissing)?;
    key.decrypt(passphrase).map_err(|_| SshError::PassphraseWrong)
}

/// What OpenSSL wrote before PKCS#8, with a head that names the cipher. Only the one that
/// `ssh-keygen -m PEM` takes for RSA is in use.
fn old_pem(block: &Block<'_>, passphrase: Option<&str>) -> Result<PrivateKey, SshError> {
    let usual = block.cipher.is_some_and(|line| line.starts_with("DEK-Info: AES-128-CBC,"));
    if !usual || block.label != "RSA PRIVATE KEY" {
        return Err(invalid("it is encrypted in an old way that is not supported"));
    }
    let text = block.alone()?;
    let passphrase = passphrase.ok_or(SshError::PassphraseMissing)?;
    // There is no checksum: a wrong passphrase gives something that is no key.
    decode_secret_key(&text, Some(passphrase)).map_err(|_| SshError::PassphraseWrong)
}

fn pkcs8(block: &Block<'_>, passphrase: Option<&str>) -> Result<PrivateKey, SshError> {
    let body = block.bytes()?;
    let unreadable = || invalid("it cannot be decoded; a part of it may be missing");
    let info = EncryptedPrivateKeyInfoRef::try_from(body.as_slice()).map_err(|_| unreadable())?;
    let EncryptionScheme::Pbes2(scheme) = &info.encryption_algorithm else {
        return Err(invalid("it is encrypted in an old way that is not supported"));
    };
    // Memory that is not there ends the process, and time that is not bounded takes a thread.
    let bounded = match &scheme.kdf {
        Kdf::Pbkdf2(params) => params.iteration_count <= MAX_ITERATIONS,
        Kdf::Scrypt(params) => {
            let memory = params
                .cost_parameter
                .checked_mul(128)
                .and_then(|memory| memory.checked_mul(params.block_size.into()));
            memory.is_some_and(|memory| memory <= MAX_MEMORY)
                && params.parallelization <= MAX_PASSES
        }
        _ => false,
    };
    if !bounded {
        return Err(invalid("its passphrase takes too many rounds"));
    }
    let passphrase = passphrase.ok_or(SshError::PassphraseMissing)?;
    let opened = info.decrypt(passphrase).map_err(|error| match error {
        pkcs8::Error::Asn1(_) => SshError::PassphraseWrong,
        pkcs8::Error::EncryptedPrivateKey(error) => match error {
            pkcs8::pkcs5::Error::DecryptFailed => SshError::PassphraseWrong,
            _ => invalid("it is encrypted in a way that is not supported"),
        },
        _ => unreadable(),
    })?;
    decode_pkcs8(opened.as_bytes(), None).map_err(|error| not_read(&error))
}

#[cfg(test)]
mod tests;
