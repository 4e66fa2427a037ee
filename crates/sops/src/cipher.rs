//! One encrypted value: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`.

use aes_gcm::aead::consts::{U12, U16, U32};
use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Key, KeyInit as _, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of the key that all values of a file are encrypted with.
pub(crate) const KEY: usize = 32;
/// Bytes of a tag.
const TAG: usize = 16;

/// What a value is once it is decrypted.
#[derive(Clone, PartialEq)]
pub(crate) enum Plain {
    /// Text; bytes, where the file is binary.
    Text(Vec<u8>),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// A date in RFC 3339 form.
    Time(String),
    Comment(String),
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// It is not of that form.
    Form,
    /// It does not open.
    Closed,
    /// It opened to something else than its type.
    Type,
}

impl Plain {
    /// What goes into the MAC.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(bytes) => bytes.clone(),
            Self::Int(number) => number.to_string().into_bytes(),
            Self::Float(number) => number.to_string().into_bytes(),
            Self::Bool(true) => b"True".to_vec(),
            Self::Bool(false) => b"False".to_vec(),
            Self::Time(text) | Self::Comment(text) => text.clone().into_bytes(),
        }
    }
}

/// Whether a text looks encrypted.
pub(crate) fn looks_sealed(text: &str) -> bool {
    parts(text).is_some()
}

fn parts(text: &str) -> Option<[&str; 4]> {
    let inner = text.strip_prefix("ENC[AES256_GCM,data:")?.strip_suffix(']')?;
    let (data, rest) = inner.split_once(",iv:")?;
    let (iv, rest) = rest.split_once(",tag:")?;
    let (tag, name) = rest.split_once(",type:")?;
    Some([data, iv, tag, name])
}

/// Decrypts a value that belongs to `place`.
pub(crate) fn open(text: &str, key: &[u8; KEY], place: &str) -> Result<Plain, Sealed> {
    let [data, iv, tag, name] = parts(text).ok_or(Sealed::Form)?;
    let decode = |part: &str| STANDARD.decode(part).map_err(|_| Sealed::Form);
    let (mut sealed, iv, tag) = (decode(data)?, decode(iv)?, decode(tag)?);
    if tag.len() != TAG {
        return Err(Sealed::Form);
    }
    sealed.extend(tag);
    let payload = Payload { msg: &sealed, aad: place.as_bytes() };
    let key = Key::<Aes256>::from_slice(key);
    // Sops takes 32 bytes for the nonce, others who write such files take what is usual.
    let opened = match iv.len() {
        12 => AesGcm::<Aes256, U12>::new(key).decrypt(Nonce::from_slice(&iv), payload),
        16 => AesGcm::<Aes256, U16>::new(key).decrypt(Nonce::from_slice(&iv), payload),
        32 => AesGcm::<Aes256, U32>::new(key).decrypt(Nonce::from_slice(&iv), payload),
        _ => return Err(Sealed::Form),
    };
    typed(name, opened.map_err(|_| Sealed::Closed)?).ok_or(Sealed::Type)
}

fn typed(name: &str, bytes: Vec<u8>) -> Option<Plain> {
    if matches!(name, "str" | "bytes") {
        return Some(Plain::Text(bytes));
    }
    let text = String::from_utf8(bytes).ok()?;
    Some(match name {
        "int" => Plain::Int(text.parse().ok()?),
        "float" => Plain::Float(text.parse().ok().filter(|number: &f64| number.is_finite())?),
        "bool" => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Plain::Bool(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Plain::Bool(false),
            _ => return None,
        },
        "time" => Plain::Time(text),
        "comment" => Plain::Comment(text),
        _ => return None,
    })
}
