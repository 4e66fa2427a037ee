//! Why a commit or tag is not taken for verified, and why keys are of no use.

use jiff::Timestamp;

/// Why a commit or tag, of which the text speaks as "it", is not verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not exactly as Git writes one, so that it may mean different things to different readers.
    #[error("it is not as Git writes one: {why}")]
    Malformed {
        /// What is wrong with it.
        why: &'static str,
    },
    /// It has no signature.
    #[error("it is not signed")]
    Unsigned,
    /// The tag is a mere name of a commit, which has no room for a signature.
    #[error("it is a lightweight tag, which cannot be signed")]
    Lightweight,
    /// A commit was asked for in place of a tag, and none of its tags is known.
    #[error("no annotated tag of it is known here")]
    NoTag,
    /// The tag was made under another name, and shows up under this one.
    #[error("it was made under the name {found:?}")]
    OtherName {
        /// Its own name.
        found: String,
    },
    /// The tag points to another commit.
    #[error("it points to {found}")]
    OtherCommit {
        /// The commit that it points to.
        found: String,
    },
    /// The signature cannot be read.
    #[error("its signature cannot be read: {why}")]
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
    /// The signature is of a kind that is not supported.
    #[error("its signature cannot be checked: {what} is not supported")]
    Unsupported {
        /// What it has or uses.
        what: String,
    },
    /// None of the trusted keys made the signature.
    #[error("it is signed by the {key}, which is not among the trusted ones")]
    UnknownKey {
        /// As the signature names it.
        key: String,
    },
    /// The signature does not fit the content.
    #[error("its signature by the {key} does not fit its content")]
    Broken {
        /// The key that the signature names.
        key: String,
    },
    /// The signature was made for something else than Git.
    #[error("its signature by the {key} was made for {found:?}, not for Git")]
    OtherPurpose {
        /// The key.
        key: String,
        /// What it was made for.
        found: String,
    },
    /// The signature rests on a hash function for which collisions can be made.
    #[error("its signature by the {key} uses {hash}, which is too weak")]
    WeakHash {
        /// The key.
        key: String,
        /// The hash function.
        hash: String,
    },
    /// The signature says itself that it is no longer good.
    #[error("its signature by the {key} expired at {at}")]
    SignatureExpired {
        /// The key.
        key: String,
        /// When.
        at: Timestamp,
    },
    /// The signature was made later than now.
    #[error("its signature by the {key} is dated {at}, which is yet to come")]
    Future {
        /// The key.
        key: String,
        /// When.
        at: Timestamp,
    },
    /// The signature was made before there was the key.
    #[error("its signature is dated {at}, when the {key} was not yet made or valid")]
    BeforeKey {
        /// The key.
        key: String,
        /// When.
        at: Timestamp,
    },
    /// The key is of a kind or size that can be broken.
    #[error("the {key} that signed it is too weak: {why}")]
    WeakKey {
        /// The key.
        key: String,
        /// What is weak.
        why: String,
    },
    /// The key has expired.
    #[error("the {key} that signed it expired at {at}")]
    KeyExpired {
        /// The key.
        key: String,
        /// When.
        at: Timestamp,
    },
    /// The key was revoked.
    #[error("the {key} that signed it was revoked")]
    KeyRevoked {
        /// The key.
        key: String,
    },
    /// The key was not made for signing.
    #[error("the {key} that signed it may not sign")]
    MayNotSign {
        /// The key.
        key: String,
    },
    /// A subkey that does not say itself whose it is: anybody could put it under a key.
    #[error("the {key} that signed it does not vouch for its main key")]
    NotCrossCertified {
        /// The key.
        key: String,
    },
    /// The key does not say validly what it is for and how long.
    #[error("the {key} that signed it has no valid signature of itself{}", if *.weak { ", but one with a weak hash" } else { "" })]
    NoSelfSignature {
        /// The key.
        key: String,
        /// Whether there is one with SHA-1 or the like.
        weak: bool,
    },
}

impl Refusal {
    /// A condition reason in CamelCase, one for each thing to do about it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "MalformedObject",
            Self::Unsigned | Self::Lightweight | Self::NoTag => "NotSigned",
            Self::OtherName { .. } | Self::OtherCommit { .. } => "WrongTag",
            Self::Unreadable { .. } | Self::Broken { .. } | Self::OtherPurpose { .. } => {
                "InvalidSignature"
            }
            Self::Unsupported { .. } => "UnsupportedSignature",
            Self::UnknownKey { .. } => "UnknownKey",
            Self::WeakHash { .. } => "WeakSignature",
            Self::SignatureExpired { .. } => "SignatureExpired",
            Self::Future { .. } | Self::BeforeKey { .. } => "SignatureTimeInvalid",
            Self::WeakKey { .. } => "WeakKey",
            Self::KeyExpired { .. } => "KeyExpired",
            Self::KeyRevoked { .. } => "KeyRevoked",
            Self::MayNotSign { .. }
            | Self::NotCrossCertified { .. }
            | Self::NoSelfSignature { .. } => "UnusableKey",
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "make it anew with git",
            Self::Unsigned => "sign it: `git commit -S` or `git tag -s`",
            Self::Lightweight => "make an annotated and signed one: `git tag -s`",
            Self::NoTag => {
                "a commit is verified by a tag only where the GitRepository's ref led to it by that \
                 tag; set ref.tag to one of it"
            }
            Self::OtherName { .. } | Self::OtherCommit { .. } => {
                "somebody may have renamed or moved a signed tag; make a new one: `git tag -s`"
            }
            Self::Unreadable { .. } | Self::Broken { .. } => {
                "it was changed after it was signed, or the signature was made by mistake; sign it anew"
            }
            Self::OtherPurpose { .. } => "sign with git, or with `ssh-keygen -Y sign -n git`",
            Self::Unsupported { .. } => {
                "sign with OpenPGP (RSA, ECDSA on NIST curves, Ed25519, Ed448) or with an SSH key itself"
            }
            Self::UnknownKey { .. } => {
                "if the key is to be trusted, add its public part to the Secret that verify.secretRef \
                 names; if not, find out who pushed this"
            }
            Self::WeakHash { .. } => "sign it anew with SHA-256 or better",
            Self::SignatureExpired { .. } => "sign it anew",
            Self::Future { .. } => "set the clock of the machine that signed it, or of this one",
            Self::BeforeKey { .. } => "set the clock of the machine that signed it; sign it anew",
            Self::WeakKey { .. } => "sign with Ed25519, ECDSA, or RSA of at least 2048 bits",
            Self::KeyExpired { .. } => {
                "extend the key and put its new public part into the Secret, or sign with another one"
            }
            Self::KeyRevoked { .. } => "sign it anew with another key",
            Self::MayNotSign { .. } => "sign with a key or subkey that is for signing",
            Self::NotCrossCertified { .. } => {
                "have gpg add what is missing: `gpg --edit-key KEY cross-certify`"
            }
            Self::NoSelfSignature { .. } => {
                "renew it, `gpg --quick-set-expire KEY 2y`, and put its public part into the Secret anew"
            }
        }
    }
}

/// Why the entries of a Secret are no keys to trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It has no entry at all.
    #[error("it holds no keys")]
    None,
    /// The end of an entry's name does not tell what is in it.
    #[error("its entry {name} ends neither in .asc nor in .sshpub")]
    UnknownKind {
        /// The entry.
        name: String,
    },
    /// OpenPGP keys that cannot be read.
    #[error("its entry {name} holds no readable OpenPGP public keys: {why}")]
    OpenPgp {
        /// The entry.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A line that is no SSH key.
    #[error("its entry {name} holds no readable SSH public key in line {line}: {why}")]
    Ssh {
        /// The entry.
        name: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A private key, which is nothing that Plumb should get to see.
    #[error("its entry {name} holds a private key")]
    Private {
        /// The entry.
        name: String,
    },
}

impl KeysError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::None | Self::UnknownKind { .. } => {
                "put armored OpenPGP public keys into entries named *.asc, and SSH public keys into \
                 entries named *.sshpub"
            }
            Self::OpenPgp { .. } => "`gpg --export --armor KEY` prints what belongs there",
            Self::Ssh { .. } => {
                "a line is as in id_ed25519.pub, or as in the allowed_signers of ssh-keygen with \
                 namespaces, valid-after and valid-before"
            }
            Self::Private { .. } => {
                "replace it by the public key, and consider the private key as known to others"
            }
        }
    }
}
