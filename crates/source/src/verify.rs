//! Who signed a commit or a tag, by keys that are given.
//!
//! [`verify_commit`] and [`verify_tag`] are pure: the object as it is stored, keys and the time in, who
//! signed it or a [`Refusal`] out. [`Mirrors::verify`] reads the objects for them. Nothing is left to
//! libgit2 here, which splits signatures off but checks neither form nor key.

mod error;
mod keys;
mod openpgp;
mod split;
mod ssh;

use std::fmt;

use git2::ObjectType;
use jiff::Timestamp;

pub use self::error::{KeysError, Refusal};
pub use self::keys::TrustedKeys;
use self::split::{Armored, Signed};
use crate::mirror::Store;
use crate::{CommitId, Mirrors, Remote, SourceError, TagId};

/// Digits of a commit's id that tell it apart in a message.
const BRIEF: usize = 12;

/// Who made a signature; displays as `OpenPGP key <fingerprint>, Ada <ada@example.com>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The kind and fingerprint of the key.
    pub key: String,
    /// What the key, or the line that it stands in, says of its owner; may be nothing.
    pub name: String,
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, ", {}", self.name) }
    }
}

/// What has to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// The commit.
    Head,
    /// The annotated tag that leads to it.
    Tag,
    /// Both.
    TagAndHead,
}

/// By which tag a commit is to be verified, in the modes that ask for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tagged<'t> {
    /// By the tag that a reference of this name led to, if it was an annotated one.
    Resolved(&'t str, Option<TagId>),
    /// By a tag of this name that is here.
    Named(&'t str),
    /// By any tag of it that is here.
    Any,
}

/// What was found to be signed, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The tag's name, and who signed it.
    pub tag: Option<(String, Signer)>,
    /// Who signed the commit.
    pub commit: Option<Signer>,
}

impl fmt::Display for Verified {
    /// `commit signed by …`, `tag v1 signed by …`, or both.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, signer)) = &self.tag {
            write!(f, "tag {name} signed by {signer}")?;
        }
        match &self.commit {
            Some(signer) if self.tag.is_some() => write!(f, "; commit signed by {signer}"),
            Some(signer) => write!(f, "commit signed by {signer}"),
            None => Ok(()),
        }
    }
}

/// Says who signed a commit, given the content of its object.
pub fn verify_commit(raw: &[u8], keys: &TrustedKeys, now: Timestamp) -> Result<Signer, Refusal> {
    signer(&split::commit(raw)?, keys, now)
}

/// Says what an annotated tag is called and who signed it, given the content of its object. It has to
/// point to the commit, and to have this name, or it may be an old one that somebody shows anew.
pub fn verify_tag(
    raw: &[u8],
    commit: &CommitId,
    name: Option<&str>,
    keys: &TrustedKeys,
    now: Timestamp,
) -> Result<(String, Signer), Refusal> {
    let tag = split::tag(raw)?;
    let Some(signed) = &tag.signed else { return Err(Refusal::Unsigned) };
    let signer = signer(signed, keys, now)?;
    if name.is_some_and(|name| name != tag.name) {
        return Err(Refusal::OtherName { found: tag.name });
    }
    if tag.target != commit.to_string() {
        return Err(Refusal::OtherCommit { found: tag.target });
    }
    Ok((tag.name, signer))
}

fn signer(signed: &Signed, keys: &TrustedKeys, now: Timestamp) -> Result<Signer, Refusal> {
    match &signed.signature {
        Armored::OpenPgp(text) => openpgp::verify(&keys.pgp, &signed.payload, text, now),
        Armored::Ssh(text) => ssh::verify(&keys.ssh, &signed.payload, text, signed.time, now),
    }
}

impl Mirrors {
    /// Says who signed a commit that is here. No network; [`SourceError::Unverified`] when it is not
    /// signed as it should be.
    pub fn verify(
        &self,
        remote: &Remote,
        commit: &CommitId,
        mode: Mode,
        tagged: Tagged<'_>,
        (keys, now): (&TrustedKeys, Timestamp),
    ) -> Result<Verified, SourceError> {
        let mirror = self.mirror(&remote.check()?);
        let not_here = || SourceError::NotInCache { commit: *commit };
        let repo = mirror.store.open()?.ok_or_else(not_here)?;
        if !Store::is_anchored(&repo, commit.oid()) {
            return Err(not_here());
        }
        let read = |id, kind| {
            let raw = mirror.store.raw(&repo, id, kind);
            raw.inspect_err(|error| {
                if matches!(error, SourceError::Corrupt { .. }) {
                    mirror.doubt();
                }
            })
        };
        let unverified = |what: String| move |source| SourceError::Unverified { what, source };
        let brief = format!("commit {}", &commit.to_string()[..BRIEF]);
        let mut verified = Verified { tag: None, commit: None };
        if mode != Mode::Head {
            let (name, ids) = match tagged {
                Tagged::Resolved(name, Some(tag)) => (Some(name), vec![tag.oid()]),
                Tagged::Resolved(name, None) => {
                    return Err(unverified(format!("tag {name:?}"))(Refusal::Lightweight));
                }
                Tagged::Named(name) => (Some(name), mirror.store.tags(&repo, commit.oid())?),
                Tagged::Any => (None, mirror.store.tags(&repo, commit.oid())?),
            };
            let mut refused = None;
            for id in ids {
                match verify_tag(&read(id, ObjectType::Tag)?, commit, name, keys, now) {
                    Ok(found) => {
                        verified.tag = Some(found);
                        break;
                    }
                    // One by another name is not the one that was asked for.
                    Err(error @ Refusal::OtherName { .. }) => refused = refused.or(Some(error)),
                    Err(error) => refused = Some(error),
                }
            }
            if verified.tag.is_none() {
                let what = name.map_or_else(|| brief.clone(), |name| format!("tag {name:?}"));
                return Err(unverified(what)(refused.unwrap_or(Refusal::NoTag)));
            }
        }
        if mode != Mode::Tag {
            let raw = read(commit.oid(), ObjectType::Commit)?;
            verified.commit = Some(verify_commit(&raw, keys, now).map_err(unverified(brief))?);
        }
        Ok(verified)
    }
}
