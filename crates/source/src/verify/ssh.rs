//! SSH signatures, and the keys that may make them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, PublicKey, SshSig};

use crate::verify::{KeysError, Refusal, Signer};

/// What a signature for Git was made for.
const NAMESPACE: &str = "git";

/// Bits of an RSA key, at least.
const RSA_BITS: u32 = 2048;

/// The flag of a security key that says that somebody touched it.
const TOUCHED: u8 = 1;

/// A key that is trusted, as long as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SshKey {
    key: PublicKey,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

impl SshKey {
    fn name(&self) -> String {
        name(self.key.key_data())
    }

    fn check(&self, signed_at: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        if let Some(at) = self.before.filter(|before| now >= *before || signed_at >= *before) {
            return Err(Refusal::KeyExpired { key: self.name(), at });
        }
        if self.after.is_some_and(|after| now < after || signed_at < after) {
            return Err(Refusal::BeforeKey { key: self.name(), at: signed_at });
        }
        Ok(())
    }
}

fn name(key: &KeyData) -> String {
    format!("SSH key {}", key.fingerprint(HashAlg::Sha256))
}

/// Says which of the keys made a signature.
pub(super) fn verify(
    keys: &[SshKey],
    payload: &[u8],
    armored: &str,
    signed_at: i64,
    now: Timestamp,
) -> Result<Signer, Refusal> {
    let unreadable = |why: String| Refusal::Unreadable { why };
    let signature = SshSig::from_pem(armored).map_err(|error| unreadable(error.to_string()))?;
    if signature.version() != SshSig::VERSION {
        return Err(unreadable(format!("version {} is not known", signature.version())));
    }
    if signature.public_key().is_certificate() {
        return Err(Refusal::Unsupported { what: "an SSH certificate".into() });
    }
    let key = name(signature.public_key());
    let trusted: Vec<&SshKey> =
        keys.iter().filter(|trusted| trusted.key.key_data() == signature.public_key()).collect();
    let Some(first) = trusted.first() else { return Err(Refusal::UnknownKey { key }) };
    if signature.namespace() != NAMESPACE {
        return Err(Refusal::OtherPurpose { key, found: signature.namespace().to_owned() });
    }
    match signature.signature().algorithm() {
        Algorithm::Rsa { hash: Some(_) } | Algorithm::Ecdsa { .. } | Algorithm::Ed25519 => {}
        Algorithm::Rsa { hash: None } => {
            return Err(Refusal::WeakHash { key, hash: "SHA-1".into() });
        }
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {
            let bytes = signature.signature().as_bytes();
            // One byte of flags and four of a counter end it.
            let flags = bytes.len().checked_sub(5).and_then(|at| bytes.get(at)).copied();
            if flags.unwrap_or_default() & TOUCHED == 0 {
                return Err(unreadable("nobody touched the security key".into()));
            }
        }
        other => return Err(Refusal::Unsupported { what: other.to_string() }),
    }
    if first.key.verify(NAMESPACE, payload, &signature).is_err() {
        return Err(Refusal::Broken { key });
    }
    let signed_at = Timestamp::from_second(signed_at)
        .map_err(|_| unreadable("the time of the commit or tag is out of range".into()))?;
    let mut refused = None;
    for trusted in trusted {
        match trusted.check(signed_at, now) {
            Ok(()) => return Ok(Signer { key, name: trusted.key.comment().to_string() }),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or(Refusal::UnknownKey { key }))
}

/// Reads the keys of an entry: lines as in `id_ed25519.pub`, or as in the file of allowed signers of
/// ssh-keygen.
pub(super) fn read(entry: &str, content: &[u8]) -> Result<Vec<SshKey>, KeysError> {
    let wrong =
        |line, why: &str| Err(KeysError::Ssh { name: entry.to_owned(), line, why: why.to_owned() });
    let Ok(text) = str::from_utf8(content) else { return wrong(1, "it is no text") };
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains("PRIVATE KEY-----") {
            return Err(KeysError::Private { name: entry.to_owned() });
        }
        match read_line(line) {
            Ok(key) => keys.push(key),
            Err(why) => return wrong(number, &why),
        }
    }
    if keys.is_empty() { wrong(text.lines().count().max(1), "there is none") } else { Ok(keys) }
}

fn read_line(line: &str) -> Result<SshKey, String> {
    let words = words(line)?;
    let Some(kind) = words.iter().position(|word| is_kind(word)) else {
        return Err("it names no kind of key, such as ssh-ed25519".into());
    };
    let options = match &words[..kind] {
        [] => None,
        [one] => Some(*one).filter(|one| are_options(one)),
        [_, options] => Some(*options),
        _ => return Err("there is more than principals and options before the key".into()),
    };
    let Some(data) = words.get(kind + 1) else { return Err("the key itself is missing".into()) };
    if words[kind].contains("-cert-v01@") {
        return Err("a certificate is no key; put the key in its place".into());
    }
    let mut key = PublicKey::from_openssh(&format!("{} {data}", words[kind]))
        .map_err(|error| error.to_string())?;
    key.set_comment(words[kind + 2..].join(" "));
    match key.key_data() {
        KeyData::Ecdsa(_)
        | KeyData::Ed25519(_)
        | KeyData::SkEcdsaSha2NistP256(_)
        | KeyData::SkEd25519(_) => {}
        KeyData::Rsa(rsa) if rsa.key_size() >= RSA_BITS => {}
        KeyData::Rsa(rsa) => {
            return Err(format!("an RSA key of {} bits is too weak", rsa.key_size()));
        }
        KeyData::Dsa(_) => return Err("DSA is too weak".into()),
        _ => return Err(format!("{} is not supported", words[kind])),
    }
    let mut key = SshKey { key, after: None, before: None };
    for (name, value) in options.map(parse_options).transpose()?.unwrap_or_default() {
        match name {
            "namespaces" if value.split(',').any(|one| one.trim() == NAMESPACE || one == "*") => {}
            "namespaces" => return Err("its namespaces do not include git".into()),
            "valid-after" => key.after = Some(time(value)?),
            "valid-before" => key.before = Some(time(value)?),
            other => return Err(format!("the option {other} is not supported")),
        }
    }
    Ok(key)
}

fn is_kind(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"].iter().any(|start| word.starts_with(start))
        && !word.contains([',', '='])
}

/// Whether the only word before a key is options, and not principals.
fn are_options(word: &str) -> bool {
    let first = word.split([',', '=']).next().unwrap_or_default();
    let flags = ["cert-authority", "restrict", "pty", "agent-forwarding", "port-forwarding"];
    word.contains('=') || flags.contains(&first) || first.starts_with("no-")
}

/// The words of a line; quotes keep blanks together.
fn words(line: &str) -> Result<Vec<&str>, String> {
    let (mut words, mut start, mut quoted) = (Vec::new(), None, false);
    for (at, c) in line.char_indices() {
        match c {
            ' ' | '\t' if !quoted => words.extend(start.take().map(|start| &line[start..at])),
            _ => {
                quoted ^= c == '"';
                start.get_or_insert(at);
            }
        }
    }
    if quoted {
        return Err("a quote is not closed".into());
    }
    words.extend(start.map(|start| &line[start..]));
    Ok(words)
}

/// Options and their values, without the quotes.
fn parse_options(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let (mut options, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            ',' if !quoted => {
                options.push(option(&text[start..at])?);
                start = at + 1;
            }
            _ => quoted ^= c == '"',
        }
    }
    options.push(option(&text[start..])?);
    Ok(options)
}

fn option(text: &str) -> Result<(&str, &str), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    if inner.contains('"') {
        return Err(format!("the option {name} has a quote in its value"));
    }
    Ok((name, inner))
}

/// A time as ssh-keygen has it: YYYYMMDD or YYYYMMDDHHMM[SS], here always in UTC.
fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is no time such as 20250131 or 202501311200Z");
    let digits = text.strip_suffix('Z').unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let full = match digits.len() {
        8 => format!("{digits}000000"),
        12 => format!("{digits}00"),
        14 => digits.to_owned(),
        _ => return Err(wrong()),
    };
    let zoned = DateTime::strptime("%Y%m%d%H%M%S", &full).and_then(|t| t.to_zoned(TimeZone::UTC));
    zoned.map(|zoned| zoned.timestamp()).map_err(|_| wrong())
}
