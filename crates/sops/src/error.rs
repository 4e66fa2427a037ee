//! Why a file cannot be opened, and why keys cannot be used. Nothing secret is in any of it.

use plumb_yaml::YamlError;

/// Why a file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is too large.
    #[error("it is encrypted and has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// It asks for too much work.
    #[error("its SOPS metadata has more than {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// It is no YAML.
    #[error("it is encrypted and cannot be read: {problem} (line {line})", problem = .0.problem, line = .0.place.line)]
    Yaml(YamlError),
    /// It is not of its format.
    #[error("it is encrypted and cannot be read: line {line} {what}")]
    Syntax {
        /// The line, counted from one.
        line: usize,
        /// What is wrong, in words that follow the line.
        what: &'static str,
    },
    /// A text that is not UTF-8 in a format that is text.
    #[error("{} is not UTF-8 text", path(.0))]
    NotText(Vec<String>),
    /// It is encrypted in a format that is not supported.
    #[error("it is encrypted as an INI file, which is not supported")]
    Ini,
    /// The metadata cannot be used.
    #[error("its SOPS metadata cannot be used: {0}")]
    Metadata(String),
    /// None of the keys opens it.
    #[error("none of the keys opens it; it needs one of: {}{}", .needs.join(", "), given(.have))]
    NoKey {
        /// The keys for which it is encrypted.
        needs: Vec<String>,
        /// What is public of those given.
        have: Vec<String>,
        /// Entries among the keys that were not taken for any.
        unused: Vec<String>,
    },
    /// It is encrypted only for keys that are not supported.
    #[error("it is encrypted for {} alone, and only age and OpenPGP keys are supported", .needs.join(", "))]
    Unsupported {
        /// The keys for which it is encrypted.
        needs: Vec<String>,
    },
    /// Too few groups of keys open.
    #[error(
        "keys for {opened} of its {} groups of keys are here, and {threshold} are needed; those \
         that lack one need one of: {}{}",
        .groups, any_of(.closed), given(.have)
    )]
    Threshold {
        /// How many groups opened.
        opened: usize,
        /// How many are needed.
        threshold: usize,
        /// How many there are.
        groups: usize,
        /// The keys of those that did not open.
        closed: Vec<Vec<String>>,
        /// What is public of the keys given.
        have: Vec<String>,
    },
    /// A key opened, and gave something that is no data key.
    #[error("what {0} opens is no data key")]
    DataKey(String),
    /// A value cannot be decrypted.
    #[error("{} cannot be decrypted: it, its key or the SOPS metadata was changed", path(.0))]
    Value(Vec<String>),
    /// A value should be encrypted by the rules in the metadata, and is not.
    #[error("{} is not encrypted, but by the SOPS metadata it should be", path(.0))]
    NotEncrypted(Vec<String>),
    /// A value decrypts to something else than its type says.
    #[error("{} is not of the type that it has by its ciphertext", path(.0))]
    Type(Vec<String>),
    /// There is no MAC.
    #[error("it has no MAC, so that nobody can say whether it was changed")]
    NoMac,
    /// The MAC itself cannot be decrypted.
    #[error("its MAC cannot be decrypted: the MAC or lastmodified was changed")]
    MacSealed,
    /// The MAC is another.
    #[error("its MAC does not match: values were changed, moved, added or removed without sops")]
    MacMismatch,
}

fn path(keys: &[String]) -> String {
    if keys.is_empty() { "a value".into() } else { keys.join(".") }
}

fn given(have: &[String]) -> String {
    if have.is_empty() {
        "; there are no keys".into()
    } else {
        format!("; the keys given are {}", have.join(", "))
    }
}

fn any_of(groups: &[Vec<String>]) -> String {
    groups.iter().map(|keys| keys.join(", ")).collect::<Vec<_>>().join("; or one of: ")
}

impl Error {
    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::TooLarge { .. } | Self::TooMuch { .. } | Self::NotText(_) => return None,
            Self::Yaml(error) => return error.hint(),
            Self::Syntax { .. } | Self::Metadata(_) | Self::DataKey(_) | Self::Type(_) => {
                "encrypt the file anew with sops".into()
            }
            Self::Ini => "encrypt it as a binary file, with --input-type binary".into(),
            Self::NoKey { unused, .. } if !unused.is_empty() => format!(
                "{} was not used: names of age keys end in .agekey, those of OpenPGP keys in .asc",
                unused.join(", ")
            ),
            Self::NoKey { .. } | Self::Threshold { .. } => {
                "add the private key of one that it needs, or add a key that is here with \
                 `sops updatekeys`"
                    .into()
            }
            Self::Unsupported { .. } => {
                "add an age key to .sops.yaml and run `sops updatekeys` on the file".into()
            }
            Self::NotEncrypted(_) => "encrypt it with `sops encrypt --in-place`".into(),
            Self::Value(_) | Self::MacSealed | Self::MacMismatch | Self::NoMac => {
                "restore what was encrypted last, or edit it with `sops edit`, which writes a new MAC"
                    .into()
            }
        })
    }
}

/// Why keys cannot be used. The name is that of the entry among the keys.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// There are no keys.
    #[error("there is no key in it{}", unused(.0))]
    None(Vec<String>),
    /// There are too many.
    #[error("there are more than {limit} keys in it")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A line is no age key.
    #[error("{name}: line {line} is no age key")]
    Age {
        /// The entry.
        name: String,
        /// The line, counted from one.
        line: usize,
    },
    /// A file of age keys without any.
    #[error("{name} has no age key")]
    NoAge {
        /// The entry.
        name: String,
    },
    /// A key of a kind that is not supported.
    #[error("{name}: {what} cannot be used")]
    Unsupported {
        /// The entry.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A text that is no OpenPGP key.
    #[error("{name} is no armored OpenPGP private key")]
    Pgp {
        /// The entry.
        name: String,
    },
    /// A key that wants a passphrase.
    #[error("{name}: the OpenPGP key {fingerprint} is protected by a passphrase")]
    Locked {
        /// The entry.
        name: String,
        /// The key.
        fingerprint: String,
    },
}

fn unused(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(", only {}", names.join(", ")) }
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::None(_) | Self::NoAge { .. } | Self::TooMany { .. } => {
                "names of age keys end in .agekey, those of OpenPGP keys in .asc".into()
            }
            Self::Age { .. } => {
                "age keys are lines that begin with AGE-SECRET-KEY-1, as age-keygen writes them"
                    .into()
            }
            Self::Unsupported { .. } => "make a key of its own for this with age-keygen".into(),
            Self::Pgp { .. } => "export it with `gpg --export-secret-keys --armor`".into(),
            Self::Locked { .. } => {
                "remove the passphrase before the export, with `gpg --edit-key` and `passwd`".into()
            }
        }
    }
}
