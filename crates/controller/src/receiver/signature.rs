//! Whether a hook was sent by somebody who knows one of the accepted secrets.
//!
//! The body is taken in piece by piece. Nothing is told of why a signature does not hold, and all
//! comparisons take the same time wherever two values differ.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName};
use sha2::Sha256;

use super::Service;

/// Shorter secrets can be guessed, and who guesses right is not told from a service.
const SHORTEST: usize = 16;

/// So many secrets are tried. Rotation needs two, and each one costs a hash of every body.
pub const MOST_SECRETS: usize = 16;

/// Standard Webhooks lets a sender sign with several keys; so many signatures are tried.
const MOST_SIGNATURES: usize = 4;

/// How far a signed time may be from ours, in seconds: what the libraries of Standard Webhooks take.
/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
const TOLERANCE: u64 = 5 * 60;

/// What the keys of Standard Webhooks begin with, before the base64.
const STANDARD_KEY: &[u8] = b"whsec_";

type HmacSha256 = Hmac<Sha256>;

/// The accepted secrets. Their values are shown by nothing.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Secret>);

#[derive(Clone)]
struct Secret {
    /// Keyed with the value as it is.
    plain: HmacSha256,
    /// Keyed with what a `whsec_` value encodes.
    standard: Option<HmacSha256>,
    /// The value's own tag: compared in its place.
    own: [u8; 32],
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Secrets {
    /// Takes the values that are long enough, at most [`MOST_SECRETS`], each without the line end that
    /// `kubectl create secret --from-file` leaves.
    pub fn new<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Self {
        let secrets = values.into_iter().filter_map(|value| {
            let value = value.as_ref();
            let end = value.iter().rposition(|b| !matches!(b, b'\r' | b'\n'))? + 1;
            Secret::new(value.get(..end)?)
        });
        Self(secrets.take(MOST_SECRETS).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing can be checked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Secret {
    fn new(value: &[u8]) -> Option<Self> {
        if value.len() < SHORTEST {
            return None;
        }
        let plain = HmacSha256::new_from_slice(value).ok()?;
        let standard = match value.strip_prefix(STANDARD_KEY) {
            Some(text) => {
                let key = STANDARD.decode(text).ok().filter(|key| key.len() >= SHORTEST)?;
                Some(HmacSha256::new_from_slice(&key).ok()?)
            }
            None => None,
        };
        let own = tag(plain.clone(), value);
        Some(Self { plain, standard, own })
    }

    /// Whether a header holds the value itself.
    fn is(&self, value: &[u8]) -> bool {
        let mut mac = self.plain.clone();
        mac.update(value);
        mac.verify_slice(&self.own).is_ok()
    }
}

fn tag(mut mac: HmacSha256, text: &[u8]) -> [u8; 32] {
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// A check under way. It is fed the body.
pub struct Check {
    /// The secret itself was sent along, which says nothing of the body.
    known: bool,
    macs: Vec<HmacSha256>,
    claims: Vec<[u8; 32]>,
    /// What makes a delivery the same as another one, if anything does.
    delivery: Option<Delivery>,
}

/// What is known of a request whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What names the delivery, when anything does.
    pub delivery: Option<Delivery>,
}

/// Names a delivery: equal for one that is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Delivery([u8; 32]);

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a check with {} secrets of {} signatures", self.macs.len(), self.claims.len())
    }
}

impl Check {
    /// Reads what the headers claim. `None` when they claim nothing that could hold; then the body
    /// need not be read. `now` is in seconds since 1970.
    pub fn begin(
        service: Service,
        headers: &HeaderMap,
        secrets: &Secrets,
        now: u64,
    ) -> Option<Self> {
        let (mut known, mut macs, mut claims) = (false, Vec::new(), Vec::new());
        let plain = || secrets.0.iter().map(|secret| secret.plain.clone()).collect();
        match service {
            // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
            Service::GitHub => {
                claims.push(prefixed(headers, "x-hub-signature-256")?);
                macs = plain();
            }
            // https://docs.gitea.com/usage/webhooks and https://forgejo.org/docs/latest/user/webhooks/:
            // the same signature in several headers, without the `sha256=` in their own.
            Service::Gitea => {
                let own = ["x-forgejo-signature", "x-gitea-signature"];
                let own = own.into_iter().find(|name| headers.contains_key(*name));
                claims.push(match own {
                    Some(name) => from_hex(single(headers, name)?)?,
                    None => prefixed(headers, "x-hub-signature-256")?,
                });
                macs = plain();
            }
            // https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/ and
            // https://confluence.atlassian.com/bitbucketserver/manage-webhooks-938025878.html: a name
            // in front that may be another one some day, and is `sha256` today.
            Service::Bitbucket => {
                claims.push(prefixed(headers, "x-hub-signature")?);
                macs = plain();
            }
            // https://fluxcd.io/flux/components/notification/receivers/#generic-hmac
            Service::Generic => {
                claims.push(prefixed(headers, "x-signature")?);
                macs = plain();
            }
            // https://docs.gitlab.com/user/project/integrations/webhooks/: a secret token that is sent
            // along, or a signing token, by which the request is signed as Standard Webhooks has it.
            Service::GitLab => {
                if let Some(token) = single(headers, "x-gitlab-token") {
                    for secret in &secrets.0 {
                        known |= secret.is(token.as_bytes());
                    }
                }
                if !known {
                    claims = standard_claims(headers, now)?;
                    macs = standard_macs(headers, secrets)?;
                }
            }
        }
        if !known && (claims.is_empty() || macs.is_empty()) {
            return None;
        }
        let delivery = delivery_of(service, headers, &claims);
        Some(Self { known, macs, claims, delivery })
    }

    /// Takes in a part of the body.
    pub fn update(&mut self, part: &[u8]) {
        for mac in &mut self.macs {
            mac.update(part);
        }
    }

    /// Whether a secret signed the body.
    pub fn finish(self) -> Option<Signed> {
        let mut holds = self.known;
        for mac in &self.macs {
            for claim in &self.claims {
                holds |= mac.clone().verify_slice(claim).is_ok();
            }
        }
        holds.then_some(Signed { delivery: self.delivery })
    }
}

/// The value of a header that is there once.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// `sha256=<hex>`.
fn prefixed(headers: &HeaderMap, name: &str) -> Option<[u8; 32]> {
    from_hex(single(headers, name)?.strip_prefix("sha256=")?)
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = *pair else { return None };
        *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(bytes)
}

/// `v1,<base64>`, several with spaces between them, of other kinds too.
fn standard_claims(headers: &HeaderMap, now: u64) -> Option<Vec<[u8; 32]>> {
    let signed: u64 = single(headers, "webhook-timestamp")?.parse().ok()?;
    if signed.abs_diff(now) > TOLERANCE {
        return None;
    }
    let signatures = single(headers, "webhook-signature")?.split(' ');
    let signatures = signatures.filter_map(|text| text.strip_prefix("v1,"));
    let tags = signatures.filter_map(|text| STANDARD.decode(text).ok()?.try_into().ok());
    Some(tags.take(MOST_SIGNATURES).collect())
}

/// What is signed is `<id>.<time>.<body>`.
fn standard_macs(headers: &HeaderMap, secrets: &Secrets) -> Option<Vec<HmacSha256>> {
    let (id, time) = (single(headers, "webhook-id")?, single(headers, "webhook-timestamp")?);
    let before = format!("{id}.{time}.");
    let keyed = secrets.0.iter().filter_map(|secret| secret.standard.clone());
    let begun = keyed.map(|mut mac| {
        mac.update(before.as_bytes());
        mac
    });
    Some(begun.collect())
}

/// Where each service tells the id of a delivery, which it keeps when it sends it again. Most do not
/// sign it: who sends a hook again can change it, and meets the limits of the repository then.
fn delivery_of(service: Service, headers: &HeaderMap, claims: &[[u8; 32]]) -> Option<Delivery> {
    use sha2::Digest as _;
    let names: &[HeaderName] = match service {
        Service::GitHub => &[HeaderName::from_static("x-github-delivery")],
        Service::Gitea => &[
            HeaderName::from_static("x-forgejo-delivery"),
            HeaderName::from_static("x-gitea-delivery"),
            HeaderName::from_static("x-github-delivery"),
        ],
        Service::GitLab => {
            &[HeaderName::from_static("webhook-id"), HeaderName::from_static("idempotency-key")]
        }
        Service::Bitbucket => {
            &[HeaderName::from_static("x-request-uuid"), HeaderName::from_static("x-request-id")]
        }
        // The same body comes with each push.
        Service::Generic => return None,
    };
    let id = names.iter().find_map(|name| headers.get(name)).filter(|id| !id.is_empty())?;
    let mut digest = Sha256::new();
    digest.update(service.as_str());
    for claim in claims {
        digest.update(claim);
    }
    digest.update(id.as_bytes());
    Some(Delivery(digest.finalize().into()))
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
