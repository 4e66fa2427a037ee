//! What a file says of how it was encrypted.

use serde_json::{Map, Value};

use crate::Error;
use crate::rules::Rules;

/// Groups of keys in one file. Shares of a secret are numbered with a byte; people have two or three.
const GROUPS: usize = 32;
/// Keys in one file. Large teams have some dozens.
const KEYS: usize = 256;
/// Bytes of one encrypted data key. With an RSA key of 8,192 bits it is below three thousand.
const SEALED: usize = 16 << 10;
/// A suffix that is not written out.
const SUFFIX: &str = "_unencrypted";

/// The metadata of one file.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) groups: Vec<Vec<MasterKey>>,
    pub(crate) threshold: usize,
    pub(crate) mac: String,
    /// With what the MAC is bound up.
    pub(crate) last_modified: String,
    pub(crate) rules: Rules,
    /// Whether the MAC is one of the encrypted values alone.
    pub(crate) mac_only_encrypted: bool,
}

/// One key for which a data key, or a share of it, is encrypted.
#[derive(Debug)]
pub(crate) enum MasterKey {
    Age {
        recipient: String,
        sealed: String,
    },
    Pgp {
        fingerprint: String,
        sealed: String,
    },
    /// One that somebody else keeps.
    Remote {
        name: String,
    },
}

impl MasterKey {
    /// What people know it by.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Age { recipient, .. } => format!("age {recipient}"),
            Self::Pgp { fingerprint, .. } => format!("OpenPGP {fingerprint}"),
            Self::Remote { name } => name.clone(),
        }
    }
}

/// Kinds of keys that others keep: the field, what it is called, and the fields that name one.
const REMOTE: [(&str, &str, &[&str]); 5] = [
    ("kms", "AWS KMS", &["arn"]),
    ("gcp_kms", "GCP KMS", &["resource_id"]),
    ("azure_kv", "Azure Key Vault", &["vault_url", "name"]),
    ("hc_vault", "Vault", &["vault_address", "engine_path", "key_name"]),
    ("hckms", "Huawei Cloud KMS", &["key_id"]),
];

impl Metadata {
    /// Reads what stands below `sops`. Files without nested values have texts for everything.
    pub(crate) fn read(map: &Map<String, Value>) -> Result<Self, Error> {
        let metadata = Value::Object(map.clone());
        let text = |name: &str| text(&metadata, name);
        let mut groups = match group(&metadata)? {
            keys if keys.is_empty() => {
                list(&metadata, "key_groups").iter().map(group).collect::<Result<Vec<_>, _>>()?
            }
            keys => vec![keys],
        };
        if groups.len() > GROUPS {
            return Err(Error::TooMuch { what: "groups of keys", limit: GROUPS });
        }
        if groups.iter().map(Vec::len).sum::<usize>() > KEYS {
            return Err(Error::TooMuch { what: "keys", limit: KEYS });
        }
        if groups.is_empty() || groups.iter().any(Vec::is_empty) {
            return Err(Error::Metadata("a group of keys is empty, or there is no key".into()));
        }
        // Those that are cheap to try first.
        for group in &mut groups {
            group.sort_by_key(|key| match key {
                MasterKey::Age { .. } => 0,
                MasterKey::Pgp { .. } => 1,
                MasterKey::Remote { .. } => 2,
            });
        }
        let threshold = match text("shamir_threshold").as_str() {
            "" | "0" => groups.len(),
            number => number
                .parse()
                .map_err(|_| Error::Metadata("shamir_threshold is not a number".into()))?,
        };
        let last_modified = moment(&text("lastmodified"))
            .ok_or_else(|| Error::Metadata("lastmodified is not a date".into()))?;
        let mac = text("mac");
        if mac.is_empty() {
            return Err(Error::NoMac);
        }
        let rules = rules(&metadata)?;
        let mac_only_encrypted = matches!(text("mac_only_encrypted").as_str(), "true" | "1");
        Ok(Self { groups, threshold, mac, last_modified, rules, mac_only_encrypted })
    }
}

fn rules(metadata: &Value) -> Result<Rules, Error> {
    const NAMES: [&str; 6] = [
        "unencrypted_suffix",
        "encrypted_suffix",
        "unencrypted_regex",
        "encrypted_regex",
        "unencrypted_comment_regex",
        "encrypted_comment_regex",
    ];
    let mut given =
        NAMES.iter().map(|name| (*name, text(metadata, name))).filter(|(_, text)| !text.is_empty());
    let Some((name, text)) = given.next() else {
        return Ok(Rules::Unless(SUFFIX.into()));
    };
    if let Some((other, _)) = given.next() {
        return Err(Error::Metadata(format!("it has both {name} and {other}")));
    }
    let regex = |text: &str| {
        Rules::expression(text)
            .ok_or_else(|| Error::Metadata(format!("{name} is no regular expression")))
    };
    Ok(match name {
        "unencrypted_suffix" => Rules::Unless(text),
        "encrypted_suffix" => Rules::If(text),
        "unencrypted_regex" => Rules::UnlessMatch(regex(&text)?),
        "encrypted_regex" => Rules::IfMatch(regex(&text)?),
        _ => Rules::Comments,
    })
}

/// The keys of one group.
fn group(value: &Value) -> Result<Vec<MasterKey>, Error> {
    let sealed = |key: &Value| match text(key, "enc") {
        sealed if sealed.len() > SEALED => {
            Err(Error::TooMuch { what: "bytes in an encrypted data key", limit: SEALED })
        }
        sealed => Ok(sealed),
    };
    let mut keys = Vec::new();
    for key in list(value, "age") {
        keys.push(MasterKey::Age { recipient: text(key, "recipient"), sealed: sealed(key)? });
    }
    for key in list(value, "pgp") {
        let fingerprint = text(key, "fp").replace(' ', "").to_uppercase();
        keys.push(MasterKey::Pgp { fingerprint, sealed: sealed(key)? });
    }
    for (field, kind, names) in REMOTE {
        for key in list(value, field) {
            let names: Vec<String> =
                names.iter().map(|name| text(key, name)).filter(|name| !name.is_empty()).collect();
            keys.push(MasterKey::Remote { name: format!("{kind} {}", names.join("/")) });
        }
    }
    Ok(keys)
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// A date as sops writes it again once it has read it: whole seconds, `Z` for no offset.
fn moment(text: &str) -> Option<String> {
    let (day, time) = text.split_once('T')?;
    let at = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at(at);
    let clock = clock.split('.').next().unwrap_or(clock);
    let digits = |text: &str, form: &str| {
        text.len() == form.len()
            && text
                .bytes()
                .zip(form.bytes())
                .all(|(byte, form)| if form == b'0' { byte.is_ascii_digit() } else { byte == form })
    };
    let zone = if matches!(zone, "+00:00" | "-00:00") { "Z" } else { zone };
    let sound = digits(day, "0000-00-00")
        && digits(clock, "00:00:00")
        && (zone == "Z" || digits(zone.trim_start_matches(['+', '-']), "00:00"));
    sound.then(|| format!("{day}T{clock}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_sops_writes_them() {
        let cases = [
            ("2026-11-26T21:00:05Z", Some("2026-11-26T21:00:05Z")),
            ("2026-11-26T21:00:05.123Z", Some("2026-11-26T21:00:05Z")),
            ("2026-11-26T21:00:05+00:00", Some("2026-11-26T21:00:05Z")),
            ("2026-11-26T21:00:05+02:00", Some("2026-11-26T21:00:05+02:00")),
            ("2026-11-26", None),
            ("2026-11-26T21:00Z", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(moment(text).as_deref(), want, "{text}");
        }
    }
}
