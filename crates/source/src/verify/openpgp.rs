//! OpenPGP signatures, and the keys that may make them.
//!
//! The library checks one signature at a time. Which of them count for a key, and what they say of it,
//! is decided here, after RFC 9580 and as gpg does: of the newest that is valid.

use std::io::Read as _;

use jiff::Timestamp;
use pgp::armor::{BlockType, Dearmor};
use pgp::composed::{Deserializable as _, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{
    KeyFlags, Packet, PacketParser, PacketTrait as _, Signature, SignatureType, SignatureVersion,
    SubpacketData, SubpacketType,
};
use pgp::ser::Serialize as _;
use pgp::types::{
    EcdsaPublicParams, EddsaLegacyPublicParams, Fingerprint, KeyDetails, KeyId, PublicParams, Tag,
};

use crate::verify::{KeysError, Refusal, Signer};

/// Bits of an RSA key, at least.
const RSA_BITS: u16 = 2048;

/// Seconds by which the clock of who signs may be ahead of ours.
const AHEAD: i64 = 5 * 60;

/// A main key with its subkeys and all that is known of both.
#[derive(Debug, Clone)]
pub(super) struct PgpKey {
    key: SignedPublicKey,
}

/// Who made a signature.
enum Component<'k> {
    Main,
    Sub(&'k SignedPublicSubKey),
}

/// Says which of the keys made a signature.
pub(super) fn verify(
    keys: &[PgpKey],
    payload: &[u8],
    armored: &str,
    now: Timestamp,
) -> Result<Signer, Refusal> {
    let signature = parse(armored)?;
    let issuer = Issuer::of(&signature)?;
    let mut refused = None;
    for PgpKey { key } in keys {
        let subs = key.public_subkeys.iter();
        let component = if issuer.is(&key.primary_key) {
            Component::Main
        } else if let Some(sub) = subs.clone().find(|sub| issuer.is(&sub.key)) {
            Component::Sub(sub)
        } else {
            continue;
        };
        match check(&signature, payload, key, &component, now) {
            Ok(signer) => return Ok(signer),
            Err(refusal) => refused = Some(refusal),
        }
    }
    Err(refused.unwrap_or(Refusal::UnknownKey { key: format!("OpenPGP key {}", issuer.name()) }))
}

fn parse(armored: &str) -> Result<Signature, Refusal> {
    let unreadable = |why: &str| Refusal::Unreadable { why: why.to_owned() };
    let (mut found, _) = DetachedSignature::from_armor_many_buf(armored.as_bytes())
        .map_err(|error| unreadable(&error.to_string()))?;
    let signature = match found.next() {
        Some(Ok(signature)) => signature.signature,
        Some(Err(error)) => return Err(unreadable(&error.to_string())),
        None => return Err(unreadable("there is none in it")),
    };
    if found.next().is_some() {
        return Err(unreadable("there is more than one in it"));
    }
    let Some(config) = signature.config() else {
        let what = format!("version {:?} of signatures", signature.version());
        return Err(Refusal::Unsupported { what });
    };
    match (config.version(), config.typ()) {
        (SignatureVersion::V4 | SignatureVersion::V6, SignatureType::Binary) => {}
        (SignatureVersion::V4 | SignatureVersion::V6, _) => {
            return Err(unreadable("it is not one of a document as it is"));
        }
        (version, _) => {
            return Err(Refusal::Unsupported {
                what: format!("version {version:?} of signatures"),
            });
        }
    }
    Ok(signature)
}

/// The key that a signature names.
struct Issuer<'s> {
    fingerprints: Vec<&'s Fingerprint>,
    ids: Vec<&'s KeyId>,
}

impl<'s> Issuer<'s> {
    fn of(signature: &'s Signature) -> Result<Self, Refusal> {
        let (fingerprints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
        if fingerprints.is_empty() && ids.is_empty() {
            return Err(Refusal::Unreadable { why: "it names no key".into() });
        }
        Ok(Self { fingerprints, ids })
    }

    fn is(&self, key: &impl KeyDetails) -> bool {
        match &self.fingerprints[..] {
            [] => self.ids.contains(&&key.legacy_key_id()),
            named => named.contains(&&key.fingerprint()),
        }
    }

    fn name(&self) -> String {
        match (self.fingerprints.first(), self.ids.first()) {
            (Some(fingerprint), _) => format!("{fingerprint:X}"),
            (None, Some(id)) => id.to_string().to_uppercase(),
            (None, None) => String::new(),
        }
    }
}

fn check(
    signature: &Signature,
    payload: &[u8],
    key: &SignedPublicKey,
    component: &Component<'_>,
    now: Timestamp,
) -> Result<Signer, Refusal> {
    let main = &key.primary_key;
    let name = match component {
        Component::Main => format!("OpenPGP key {:X}", main.fingerprint()),
        Component::Sub(sub) => {
            format!("OpenPGP key {:X} (subkey {:X})", main.fingerprint(), sub.fingerprint())
        }
    };
    let of = || name.clone();
    let params = match component {
        Component::Main => main.public_params(),
        Component::Sub(sub) => sub.key.public_params(),
    };
    usable(params, &name)?;
    if let Some(hash) = signature.hash_alg().filter(|hash| !is_strong(*hash)) {
        return Err(Refusal::WeakHash { key: of(), hash: hash.to_string() });
    }
    let fits = match component {
        Component::Main => signature.verify(main, payload),
        Component::Sub(sub) => signature.verify(&sub.key, payload),
    };
    if fits.is_err() {
        return Err(Refusal::Broken { key: of() });
    }
    if let Some(what) = unknown_demand(signature) {
        return Err(Refusal::Unsupported { what });
    }
    let Some(created) = signature.created().map(|at| i64::from(at.as_secs())) else {
        return Err(Refusal::Unreadable { why: "it has no time".into() });
    };
    let today = now.as_second();
    if created > today + AHEAD {
        return Err(Refusal::Future { key: of(), at: at(created) });
    }
    if let Some(end) = end(created, signature.signature_expiration_time()).filter(|e| *e <= today) {
        return Err(Refusal::SignatureExpired { key: of(), at: at(end) });
    }

    let says = SelfSigned::of(key, &name, today)?;
    if is_revoked(key, &says) {
        return Err(Refusal::KeyRevoked { key: of() });
    }
    let made = i64::from(main.created_at().as_secs());
    let mut valid = vec![(made, says.expires)];
    let flags = match component {
        Component::Main => says.flags,
        Component::Sub(sub) => {
            let bound = bound(key, sub, &name, today)?;
            let made = i64::from(sub.key.created_at().as_secs());
            valid.push((made, end(made, bound.key_expiration_time())));
            flags(bound)
        }
    };
    for (made, expires) in valid {
        if created < made {
            return Err(Refusal::BeforeKey { key: of(), at: at(created) });
        }
        // Also what was signed before: who has the key of somebody else can set back a clock.
        if let Some(end) = expires.filter(|end| *end <= today || *end <= created) {
            return Err(Refusal::KeyExpired { key: of(), at: at(end) });
        }
    }
    // Keys that say nothing of what they are for may do all that they can, as with gpg.
    if flags.is_some_and(|flags| !flags.sign()) {
        return Err(Refusal::MayNotSign { key: of() });
    }
    let user = key.details.users.first().map(|user| String::from_utf8_lossy(user.id.id()));
    Ok(Signer { key: name, name: user.unwrap_or_default().into_owned() })
}

/// What a main key says of itself.
struct SelfSigned<'k> {
    flags: Option<&'k KeyFlags>,
    expires: Option<i64>,
    /// The keys that may revoke it.
    revokers: Vec<&'k [u8]>,
}

impl<'k> SelfSigned<'k> {
    fn of(key: &'k SignedPublicKey, name: &str, today: i64) -> Result<Self, Refusal> {
        let main = &key.primary_key;
        let mut weak = false;
        let mut newest = None;
        let mut revokers = Vec::new();
        for signature in &key.details.direct_signatures {
            if signature.typ() == Some(SignatureType::Key) && signature.verify_key(main).is_ok() {
                consider(signature, today, &mut newest, &mut weak);
                revokers.extend(signature.revocation_key().map(|key| &key.fingerprint[..]));
            }
        }
        let direct = newest.take();
        for user in &key.details.users {
            let good = |signature: &&Signature| {
                signature.verify_certification(main, Tag::UserId, &user.id).is_ok()
            };
            // The library counts the revocation of a certification among them.
            let is_revocation = |s: &&Signature| s.typ() == Some(SignatureType::CertRevocation);
            let (revocations, certs): (Vec<_>, Vec<_>) =
                user.signatures.iter().filter(|s| s.is_certification()).partition(is_revocation);
            let mut cert = None;
            for signature in certs.into_iter().filter(good) {
                consider(signature, today, &mut cert, &mut weak);
            }
            let revoked = revocations.into_iter().filter(good).filter_map(Signature::created).max();
            if let Some(cert) = cert
                && cert.created() > revoked
            {
                consider(cert, today, &mut newest, &mut weak);
            }
        }
        if direct.is_none() && newest.is_none() {
            return Err(Refusal::NoSelfSignature { key: name.to_owned(), weak });
        }
        let made = i64::from(main.created_at().as_secs());
        let both = || [direct, newest].into_iter().flatten();
        // Where both say until when, the earlier counts.
        let expires = both().filter_map(|s| end(made, s.key_expiration_time())).min();
        let flags = both().filter_map(|s| Some((s.created(), flags(s)?)));
        let flags = flags.max_by_key(|(created, _)| *created).map(|(_, flags)| flags);
        Ok(Self { flags, expires, revokers })
    }
}

/// Whether a main key was revoked, by itself or by one that it names for that. With which hash does not
/// matter: nobody gains by revoking.
fn is_revoked(key: &SignedPublicKey, says: &SelfSigned<'_>) -> bool {
    let by_other = |signature: &Signature| {
        let issuers = signature.issuer_fingerprint();
        issuers.iter().any(|issuer| says.revokers.contains(&issuer.as_bytes()))
    };
    let mut revocations = key.details.revocation_signatures.iter();
    revocations
        .any(|signature| signature.verify_key(&key.primary_key).is_ok() || by_other(signature))
}

/// The newest valid word of a main key on a subkey.
fn bound<'k>(
    key: &SignedPublicKey,
    sub: &'k SignedPublicSubKey,
    name: &str,
    today: i64,
) -> Result<&'k Signature, Refusal> {
    let main = &key.primary_key;
    let (mut newest, mut weak) = (None, false);
    for signature in &sub.signatures {
        if signature.verify_subkey_binding(main, &sub.key).is_err() {
            continue;
        }
        if signature.typ() == Some(SignatureType::SubkeyRevocation) {
            return Err(Refusal::KeyRevoked { key: name.to_owned() });
        }
        consider(signature, today, &mut newest, &mut weak);
    }
    let Some(newest) = newest else {
        return Err(Refusal::NoSelfSignature { key: name.to_owned(), weak });
    };
    if flags(newest).is_some_and(|flags| !flags.sign()) {
        return Err(Refusal::MayNotSign { key: name.to_owned() });
    }
    let back = newest.embedded_signature().is_some_and(|back| {
        back.hash_alg().is_some_and(is_strong)
            && back.verify_primary_key_binding(&sub.key, main).is_ok()
    });
    if back { Ok(newest) } else { Err(Refusal::NotCrossCertified { key: name.to_owned() }) }
}

/// Takes a signature that fits if it counts and is newer.
fn consider<'k>(
    signature: &'k Signature,
    today: i64,
    newest: &mut Option<&'k Signature>,
    weak: &mut bool,
) {
    if !signature.hash_alg().is_some_and(is_strong) {
        *weak = true;
        return;
    }
    let Some(created) = signature.created().map(|at| i64::from(at.as_secs())) else { return };
    let over = end(created, signature.signature_expiration_time()).is_some_and(|end| end <= today);
    if created > today + AHEAD || over || unknown_demand(signature).is_some() {
        return;
    }
    if newest.is_none_or(|newest| newest.created() <= signature.created()) {
        *newest = Some(signature);
    }
}

fn flags(signature: &Signature) -> Option<&KeyFlags> {
    signature.config()?.hashed_subpackets().find_map(|part| match &part.data {
        SubpacketData::KeyFlags(flags) => Some(flags),
        _ => None,
    })
}

/// What a signature says must be understood, and is not.
fn unknown_demand(signature: &Signature) -> Option<String> {
    signature.config()?.hashed_subpackets().find_map(|part| match part.typ() {
        SubpacketType::Experimental(_) | SubpacketType::Other(_) | SubpacketType::Notation
            if part.is_critical =>
        {
            Some("something that its signature asks to be heeded".to_owned())
        }
        _ => None,
    })
}

/// Hashes of less than 256 bits are not taken, whether or not collisions are known.
fn is_strong(hash: HashAlgorithm) -> bool {
    matches!(
        hash,
        HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512
    )
}

/// Refuses keys that are too weak, or that cannot be used here.
fn usable(params: &PublicParams, name: &str) -> Result<(), Refusal> {
    let weak = |why: String| Err(Refusal::WeakKey { key: name.to_owned(), why });
    let unsupported = |what: String| Err(Refusal::Unsupported { what });
    match params {
        PublicParams::RSA(rsa) => {
            // The modulus comes first, behind the number of its bits.
            let bytes = rsa.to_bytes().unwrap_or_default();
            match bytes.first_chunk().map(|bits| u16::from_be_bytes(*bits)) {
                Some(bits) if bits >= RSA_BITS => Ok(()),
                bits => weak(format!("it is RSA of {} bits", bits.unwrap_or_default())),
            }
        }
        PublicParams::DSA(_) => weak("it is DSA".into()),
        PublicParams::ECDSA(EcdsaPublicParams::Unsupported { curve, .. })
        | PublicParams::EdDSALegacy(EddsaLegacyPublicParams::Unsupported { curve, .. }) => {
            unsupported(format!("the curve {}", curve.name()))
        }
        // The library takes one of two forms of its signatures only, and gpg makes both.
        PublicParams::ECDSA(EcdsaPublicParams::Secp256k1 { .. }) => {
            unsupported("the curve secp256k1".into())
        }
        PublicParams::ECDSA(_)
        | PublicParams::EdDSALegacy(_)
        | PublicParams::Ed25519(_)
        | PublicParams::Ed448(_) => Ok(()),
        _ => unsupported("the algorithm of its key".into()),
    }
}

/// When something ends that began then; zero means never.
fn end(begin: i64, length: Option<pgp::types::Duration>) -> Option<i64> {
    let length = length.map(pgp::types::Duration::as_secs).filter(|length| *length > 0)?;
    Some(begin + i64::from(length))
}

fn at(second: i64) -> Timestamp {
    // OpenPGP counts in 32 bits; the sum of two such numbers is a time that jiff has.
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

/// Reads the keys of entries. Revocations may stand for themselves, as gpg writes them.
pub(super) fn read(entries: &[(&str, &[u8])]) -> Result<Vec<PgpKey>, KeysError> {
    let mut keys: Vec<PgpKey> = Vec::new();
    let mut revocations = Vec::new();
    for (name, content) in entries {
        let wrong = |why: &str| KeysError::OpenPgp { name: (*name).into(), why: why.into() };
        let Ok(text) = str::from_utf8(content) else {
            return Err(wrong("it is not armored, that is, no text"));
        };
        let mut blocks = blocks(text).map_err(wrong)?.into_iter().peekable();
        if blocks.peek().is_none() {
            return Err(wrong("it has no line -----BEGIN PGP PUBLIC KEY BLOCK-----"));
        }
        for block in blocks {
            if block.starts_with("-----BEGIN PGP PRIVATE") {
                return Err(KeysError::Private { name: (*name).into() });
            }
            let packets = packets(block).map_err(|why| wrong(&why))?;
            match packets.first() {
                Some(Packet::PublicKey(_)) => {}
                Some(Packet::SecretKey(_)) => {
                    return Err(KeysError::Private { name: (*name).into() });
                }
                Some(Packet::Signature(_)) => {
                    for packet in packets {
                        match packet {
                            Packet::Signature(signature)
                                if signature.typ() == Some(SignatureType::KeyRevocation) =>
                            {
                                revocations.push((*name, signature));
                            }
                            _ => return Err(wrong("a part of it is no key")),
                        }
                    }
                    continue;
                }
                _ => return Err(wrong("a part of it is no key")),
            }
            for key in SignedPublicKey::from_packets(packets.into_iter().map(Ok).peekable()) {
                join(&mut keys, key.map_err(|error| wrong(&error.to_string()))?);
            }
        }
    }
    for (name, signature) in revocations {
        let of =
            keys.iter_mut().find(|PgpKey { key }| signature.verify_key(&key.primary_key).is_ok());
        let Some(PgpKey { key }) = of else {
            let why = "it has a revocation of a key that is not there".into();
            return Err(KeysError::OpenPgp { name: name.into(), why });
        };
        key.details.revocation_signatures.push(signature);
    }
    Ok(keys)
}

/// The armored blocks of a text.
fn blocks(text: &str) -> Result<Vec<&str>, &'static str> {
    let mut blocks = Vec::new();
    let (mut begin, mut at) = (None, 0);
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let line = line.trim_end();
        if line.starts_with("-----BEGIN ") {
            if begin.replace(start).is_some() {
                return Err("a block of it begins before the one before has ended");
            }
        } else if line.starts_with("-----END ") {
            let Some(begin) = begin.take() else {
                return Err("a block of it ends but does not begin");
            };
            blocks.push(&text[begin..at]);
        }
    }
    if begin.is_some() { Err("a block of it has no end") } else { Ok(blocks) }
}

fn packets(block: &str) -> Result<Vec<Packet>, String> {
    let mut dearmor = Dearmor::new(block.as_bytes());
    dearmor.read_header().map_err(|error| error.to_string())?;
    if dearmor.typ != Some(BlockType::PublicKey) {
        return Err("a block of it is no public key".into());
    }
    let mut bytes = Vec::new();
    dearmor.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let mut packets = Vec::new();
    for packet in PacketParser::new(&bytes[..]) {
        match packet {
            Ok(packet) if matches!(packet.tag(), Tag::Marker | Tag::Padding | Tag::Trust) => {}
            Ok(packet) => packets.push(packet),
            // A subkey, or a word of somebody else, of a kind that is not known; the rest may do.
            Err(error) if !packets.is_empty() && is_foreign(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(packets)
}

fn is_foreign(error: &pgp::errors::Error) -> bool {
    use pgp::errors::Error;
    match error {
        Error::Unsupported { .. } => true,
        Error::InvalidPacketContent { source, .. } => matches!(**source, Error::Unsupported { .. }),
        _ => false,
    }
}

/// Adds a key. What is said of one key in two places is true together, a revocation above all.
fn join(keys: &mut Vec<PgpKey>, key: SignedPublicKey) {
    let same = keys.iter_mut().find(|known| known.key.fingerprint() == key.fingerprint());
    let Some(PgpKey { key: known }) = same else {
        keys.push(PgpKey { key });
        return;
    };
    let (ours, theirs) = (&mut known.details, key.details);
    ours.revocation_signatures.extend(theirs.revocation_signatures);
    ours.direct_signatures.extend(theirs.direct_signatures);
    for user in theirs.users {
        match ours.users.iter_mut().find(|known| known.id.id() == user.id.id()) {
            Some(known) => known.signatures.extend(user.signatures),
            None => ours.users.push(user),
        }
    }
    for sub in key.public_subkeys {
        match known.public_subkeys.iter_mut().find(|known| known.fingerprint() == sub.fingerprint())
        {
            Some(known) => known.signatures.extend(sub.signatures),
            None => known.public_subkeys.push(sub),
        }
    }
}
