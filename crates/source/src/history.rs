//! Whether a commit follows an earlier one, or history was written anew.

use std::collections::HashSet;

use git2::{Commit, Oid, Repository};

use crate::call::Call;
use crate::mirror::Store;
use crate::wire::{FULL_DEPTH, FetchRequest};
use crate::{CommitId, SourceError};

/// How a commit stands to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descent {
    /// The earlier one is among its ancestors, or is the commit itself.
    Follows,
    /// It is not: somebody pushed with force, or moved a tag.
    Rewritten,
}

/// How many commits back the server is asked for, one try after the other. Most pushes bring a few;
/// commits without their trees are some hundreds of bytes each.
const DEPTHS: [u32; 4] = [16, 256, 4096, FULL_DEPTH];

impl Call<'_> {
    /// Whether `to` descends from `from`. The mirror often knows: a commit that is here names its
    /// parents. Otherwise the server is asked for commits without their trees, in steps.
    pub(crate) fn descent(&self, from: CommitId, to: CommitId) -> Result<Descent, SourceError> {
        let (from, to) = (from.oid(), to.oid());
        let mut past = HashSet::new();
        if let Some(repo) = self.mirror.store.open()? {
            past = ancestors(&repo, from);
            if let Some(known) = walk(&repo, &past, from, to) {
                return Ok(known);
            }
        }
        let _writing = self.mirror.board.write(self.cancel, self.deadline)?;
        let scratch = Store { path: self.mirror.store.path.with_extension("history") };
        let asked = self.ask_history(&scratch, &past, from, to);
        scratch.wipe()?;
        asked
    }

    fn ask_history(
        &self,
        scratch: &Store,
        past: &HashSet<Oid>,
        from: Oid,
        to: Oid,
    ) -> Result<Descent, SourceError> {
        self.with_session(|session| {
            let (endpoint, server, _) = self.advertisement(session, |_| false)?;
            for depth in DEPTHS {
                scratch.wipe()?;
                let repo = scratch.open_or_create()?;
                let request = FetchRequest {
                    wants: vec![to],
                    haves: Vec::new(),
                    shallow: Vec::new(),
                    depth,
                    commits_only: true,
                };
                let mut incoming = self.all.incoming();
                let admit = |bytes| incoming.admit(bytes);
                let server = (session, &endpoint, &server);
                scratch.receive(&repo, server, &request, self.limits, admit)?;
                if let Some(known) = walk(&repo, past, from, to) {
                    return Ok(known);
                }
            }
            // All that the server has was looked through: its own history is cut off.
            Ok(Descent::Rewritten)
        })
    }
}

/// The ancestors of a commit, as far as it and they are here, with the parents of the last ones that are.
fn ancestors(repo: &Repository, of: Oid) -> HashSet<Oid> {
    let mut past = HashSet::new();
    let mut todo = vec![of];
    while let Some(id) = todo.pop() {
        if let Ok(commit) = repo.find_commit(id) {
            todo.extend(parents(&commit).filter(|parent| past.insert(*parent)));
        }
    }
    past
}

/// What the commits of a repository tell; `None` where those that are missing may tell more. Nothing of
/// the past of the earlier commit can have that among its own ancestors, so there the search ends: of a
/// commit that was amended its parent says enough.
fn walk(repo: &Repository, past: &HashSet<Oid>, from: Oid, to: Oid) -> Option<Descent> {
    let mut seen = HashSet::from([to]);
    let mut todo = vec![to];
    let mut whole = true;
    while let Some(id) = todo.pop() {
        if id == from {
            return Some(Descent::Follows);
        }
        if past.contains(&id) {
            continue;
        }
        match repo.find_commit(id) {
            Ok(commit) => todo.extend(parents(&commit).filter(|parent| seen.insert(*parent))),
            Err(_) => whole = false,
        }
    }
    whole.then_some(Descent::Rewritten)
}

/// The parents that a commit names: the lines right after its tree, where alone Git looks for them.
/// Whoever makes a commit writes what he likes into the lines below. libgit2 itself may leave out those
/// that lie beyond the `shallow` file.
fn parents(commit: &Commit<'_>) -> impl Iterator<Item = Oid> {
    let header = commit.raw_header_bytes().split(|byte| *byte == b'\n');
    let ids = header.skip(1).map_while(|line| line.strip_prefix(b"parent "));
    ids.filter_map(|id| Oid::from_str(std::str::from_utf8(id).ok()?).ok())
}
