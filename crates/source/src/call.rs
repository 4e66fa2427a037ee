//! One call that may need the network: find a commit, fetch it, check it, anchor it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use git2::{ObjectType, Oid, Repository};

use crate::agents::Agents;
use crate::cancel::lock;
use crate::concerns::{MAKING, SEARCHING};
use crate::github::{self, CheckedApp, Tokens};
use crate::http;
use crate::lookup::{self, Found};
use crate::mirror::{Check, Store, peel};
use crate::mirrors::{Counters, Looked, Mirror, Mirrors, Want};
use crate::polls::{Asked, Heard};
use crate::remote::{Authorization, CheckedRemote};
use crate::session::{Endpoint, Session};
use crate::ssh;
use crate::wire::{self, FULL_DEPTH, FetchRequest, Listed, Server};
use crate::{Cancel, CommitId, Limits, Reference, Resolved, Revision, SourceError, TagId};

/// Bytes that an answer without a pack may have. A hundred thousand references of common length
/// are about ten megabytes.
const MAX_LISTING: u64 = 64 << 20;

/// How long whoever asks looks for the versions of others in what it has listed. Who was not answered by
/// then asks himself.
const FOR_OTHERS: Duration = Duration::from_secs(1);

/// Commits that a server is told of beside those that are known to be like what is wanted: the newest, for
/// after a restart, and for a reference that is new.
const OFFERED: usize = 8;

/// One call with network.
pub(crate) struct Call<'a> {
    pub(crate) all: &'a Mirrors,
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) remote: CheckedRemote,
    pub(crate) limits: &'a Limits,
    pub(crate) traffic: &'a Counters,
    pub(crate) tokens: &'a Tokens,
    pub(crate) cancel: &'a Cancel,
    pub(crate) deadline: Instant,
    /// Bytes of the packs that came.
    pub(crate) received: Cell<u64>,
}

/// What to ask a server for to get a commit.
struct Target<'t> {
    /// The object the server lists, which is a tag for annotated ones.
    listed: Oid,
    /// The commit. A server that does not peel its tags lists only the tag, which then is here too.
    commit: Oid,
    /// The annotated tag in between, where it is wanted, too.
    tag: Option<Oid>,
    /// The branch to search on servers that give only what they list.
    branch: Option<&'t str>,
    /// Whether `listed` stands in the server's listing.
    advertised: bool,
    /// The commit that the reference led to before: the new one has most of it.
    after: Option<Oid>,
}

impl Call<'_> {
    /// Runs `work` with agents of its own, which go back to rest afterwards.
    pub(crate) fn with_session<T>(
        &self,
        work: impl Fn(&Session<'_>) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        if let Some(remote) = &self.remote.ssh {
            let identity = &self.mirror.identity;
            let session = ssh::Session::new(remote, identity, self.cancel, self.deadline);
            return work(&Session::Ssh(&session));
        }
        let ca = &self.remote.tls.ca;
        let rested = lock(&self.mirror.agents).take_if(|(made_for, _)| made_for == ca);
        let (agents, rested) = match rested {
            Some((_, agents)) => (agents, true),
            None => (Agents::new(&self.remote)?, false),
        };
        let mut session =
            http::Session::new(&self.remote, (agents.clone(), rested), self.cancel, self.deadline);
        let result = match &self.remote.authorization {
            Authorization::App { app, key } => self.as_app(&mut session, app, key, work),
            Authorization::None | Authorization::Header(_) => work(&Session::Http(&session)),
        };
        let result = result.map_err(|error| session.hide_secrets(error));
        drop(session);
        // A cancelled agent is shut down for good.
        if !self.cancel.is_cancelled() {
            *lock(&self.mirror.agents) = Some((ca.clone(), agents));
        }
        result
    }

    /// Runs `work` with a token of a GitHub App: the last one, or a new one.
    fn as_app<T>(
        &self,
        session: &mut http::Session<'_>,
        app: &CheckedApp,
        key: &str,
        work: impl Fn(&Session<'_>) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        if let Some(token) = self.tokens.get(key) {
            session.authorize(github::USERNAME, &token.text);
            match work(&Session::Http(session)) {
                // It may have been taken back before its time.
                Err(SourceError::Unauthorized { status: 401, .. }) => {
                    self.tokens.refuse(key, &token.text);
                }
                result => return result,
            }
        }
        let token = app.token(session)?;
        session.authorize(github::USERNAME, &token.text);
        self.tokens.put(key, token);
        work(&Session::Http(session))
    }

    /// Whether there is time left and nobody ended it, for work that waits for nothing.
    fn go_on(&self, doing: &'static str) -> Result<(), SourceError> {
        self.cancel.check()?;
        if Instant::now() >= self.deadline {
            return Err(SourceError::Timeout { doing });
        }
        Ok(())
    }

    /// Asks for a token, if that is how to get in and there is none.
    pub(crate) fn log_in(&self) -> Result<(), SourceError> {
        match &self.remote.authorization {
            Authorization::App { key, .. } if self.tokens.get(key).is_none() => {
                self.with_session(|_| Ok(()))
            }
            _ => Ok(()),
        }
    }

    /// Lists a reference, with those of others in the same question, and fetches its commit.
    pub(crate) fn resolve(
        &self,
        reference: &Reference,
        want: Want,
        others: &[Reference],
    ) -> Result<Looked, SourceError> {
        let asked = Asked::new(reference, others)?;
        self.with_session(|session| {
            let began = Instant::now();
            let listed = self.list(session, &asked.prefixes(), |name| asked.wants(name));
            let (endpoint, server, refs) = match listed {
                // That may be so for the others' sake.
                Err(SourceError::TooLarge { .. }) if !asked.is_alone() => {
                    let own = Asked::alone(reference)?;
                    self.list(session, &own.prefixes(), |name| own.wants(name))?
                }
                listed => listed?,
            };
            let chosen = |reference: &Reference| {
                matches!(reference, Reference::Default | Reference::Semver { .. })
            };
            // It would stand in a status, and with the commit nobody would hide it.
            let gives_away = |reference: &Reference, found: &Found| {
                chosen(reference) && session.gives_away(&found.name)
            };
            let found = match asked.own(&refs, || self.go_on(SEARCHING)) {
                Ok(found) if gives_away(reference, &found) => {
                    let why = "it names a reference by what it was sent to get in".into();
                    Err(SourceError::Protocol { why })
                }
                // It is told to others, too.
                found => found
                    .map_err(|error| session.hide_secrets(self.explain(session, reference, error))),
            };
            if let Err(error @ (SourceError::Cancelled | SourceError::Timeout { .. })) = found {
                // That says nothing of the repository.
                return Err(error);
            }
            let own = std::iter::once((reference, found.clone()));
            let end = Instant::now() + FOR_OTHERS;
            let others = asked
                .others(&refs, || {
                    if Instant::now() < end {
                        self.go_on(SEARCHING)
                    } else {
                        Err(SourceError::Cancelled)
                    }
                })
                .filter(|(other, found)| !gives_away(other, found));
            let answers: Vec<_> =
                own.chain(others.map(|(other, found)| (other, Ok(found)))).collect();
            lock(&self.mirror.answers).hear(self.remote.trust(), began, answers.into_iter());
            let known = Some((&endpoint, &server));
            let resolved = self.take(session, reference, want, &found?, known)?;
            Ok(Looked { resolved, began, listed: true })
        })
    }

    /// What a listing that began at a moment or later says of a reference, if its commit is here. No
    /// network at all.
    pub(crate) fn known(
        &self,
        reference: &Reference,
        want: Want,
        since: Instant,
    ) -> Option<Result<Looked, SourceError>> {
        let heard = self.heard(reference, since)?;
        let found = match heard.found {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        let (commit, tag) = parts(&found, want);
        self.mirror.is_here(commit, tag).then(|| {
            let revision = Revision { name: found.name, commit: CommitId::of(commit) };
            let resolved = Resolved { revision, tag: tag.map(TagId::of) };
            Ok(Looked { resolved, began: heard.began, listed: false })
        })
    }

    /// The same, and fetches its commit. `None` where the server has to be asked again: what it listed
    /// then it may not have any more.
    pub(crate) fn fetch_known(
        &self,
        reference: &Reference,
        want: Want,
        since: Instant,
    ) -> Option<Result<Looked, SourceError>> {
        let heard = self.heard(reference, since)?;
        let found = heard.found.ok()?;
        let (endpoint, server) = self.mirror.known_endpoint()?;
        let known = Some((&endpoint, &server));
        let resolved =
            self.with_session(|session| self.take(session, reference, want, &found, known));
        match resolved {
            Err(SourceError::Server { .. }) => None,
            Err(error) if is_stale(&error) => None,
            resolved => Some(resolved.map(|resolved| Looked {
                resolved,
                began: heard.began,
                listed: false,
            })),
        }
    }

    fn heard(&self, reference: &Reference, since: Instant) -> Option<Heard> {
        lock(&self.mirror.answers).since(self.remote.trust(), reference, since).cloned()
    }

    /// Makes sure that what was found is here.
    fn take(
        &self,
        session: &Session<'_>,
        reference: &Reference,
        want: Want,
        found: &Found,
        known: Option<(&Endpoint, &Server)>,
    ) -> Result<Resolved, SourceError> {
        let (commit, tag) = parts(found, want);
        let id = found.id;
        let after = lock(&self.mirror.holds).led_to.get(reference).copied();
        let target = Target { listed: id, commit, tag, branch: None, advertised: true, after };
        let commit = self.ensure(session, &target, known).map_err(|error| match error {
            SourceError::NotACommit { .. } => {
                SourceError::NotACommit { reference: reference.to_string() }
            }
            error => error,
        })?;
        lock(&self.mirror.holds).led_to.insert(reference.clone(), commit.oid());
        // A server that does not peel gave the tag in place of the commit.
        let tag = tag.or_else(|| Some(id).filter(|id| want == Want::Tag && *id != commit.oid()));
        let revision = Revision { name: found.name.clone(), commit };
        Ok(Resolved { revision, tag: tag.map(TagId::of) })
    }

    /// Fetches a commit by its id unless it is here.
    pub(crate) fn bring(&self, commit: CommitId, branch: Option<&str>) -> Result<(), SourceError> {
        if self.mirror.is_here(commit.oid(), None) {
            return Ok(());
        }
        if self.mirror.suspect.load(Ordering::SeqCst) {
            let _writing = self.mirror.board.write(self.cancel, self.deadline)?;
            match self.look_closely() {
                Ok(()) if self.mirror.is_here(commit.oid(), None) => return Ok(()),
                // Of what is damaged this may be whole.
                Err(SourceError::Corrupt { .. })
                    if self.mirror.is_whole(commit.oid(), self.limits) =>
                {
                    return Ok(());
                }
                Ok(()) | Err(SourceError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let target = Target {
            listed: commit.oid(),
            commit: commit.oid(),
            tag: None,
            branch,
            advertised: false,
            after: None,
        };
        self.with_session(|session| {
            let known = self.mirror.known_endpoint();
            if let Some((endpoint, server)) = &known {
                match self.ensure(session, &target, Some((endpoint, server))) {
                    Err(error) if is_stale(&error) => self.mirror.note_endpoint(None),
                    result => return result.map(|_| ()),
                }
            }
            self.ensure(session, &target, None).map(|_| ())
        })
    }

    /// One listing of the references that start with a prefix. What the server offers is
    /// remembered; when that turns out to be old it is asked for again, once.
    fn list(
        &self,
        session: &Session<'_>,
        prefixes: &[String],
        wants: impl Fn(&str) -> bool + Copy,
    ) -> Result<(Endpoint, Server, Vec<Listed>), SourceError> {
        let known = self.mirror.known_endpoint();
        if let Some((endpoint, server)) = known {
            match self.ls_refs(session, (&endpoint, &server), prefixes, wants) {
                Ok(refs) => return Ok((endpoint, server, refs)),
                Err(error) if is_stale(&error) => self.mirror.note_endpoint(None),
                Err(error) => return Err(error),
            }
        }
        let (endpoint, server, refs) = self.advertisement(session, wants)?;
        let refs = match server {
            Server::V0(_) => refs,
            Server::V2(_) => self.ls_refs(session, (&endpoint, &server), prefixes, wants)?,
        };
        Ok((endpoint, server, refs))
    }

    pub(crate) fn advertisement(
        &self,
        session: &Session<'_>,
        wants: impl Fn(&str) -> bool,
    ) -> Result<(Endpoint, Server, Vec<Listed>), SourceError> {
        let (endpoint, mut answer) = session.advertisement(MAX_LISTING)?;
        let (server, refs) = wire::read_advertisement(&mut answer, self.limits.refs, wants)
            .map_err(|e| session.wire_error(e, "references", self.limits.refs as u64))?;
        session.finish(answer, &server);
        if matches!(server, Server::V2(_)) {
            self.mirror.note_endpoint(Some((endpoint.clone(), server.clone())));
        }
        Ok((endpoint, server, refs))
    }

    fn ls_refs(
        &self,
        session: &Session<'_>,
        (endpoint, server): (&Endpoint, &Server),
        prefixes: &[String],
        wants: impl Fn(&str) -> bool,
    ) -> Result<Vec<Listed>, SourceError> {
        let body = wire::ls_refs_request(prefixes);
        let mut answer = session.post(endpoint, &body, Some("version=2"), MAX_LISTING)?;
        let refs = wire::read_refs(&mut answer, self.limits.refs, wants)
            .map_err(|e| session.wire_error(e, "references", self.limits.refs as u64))?;
        session.finish(answer, server);
        Ok(refs)
    }

    /// Adds to a "not found" what there is instead. Costs a second listing, on this path only.
    fn explain(
        &self,
        session: &Session<'_>,
        reference: &Reference,
        error: SourceError,
    ) -> SourceError {
        if !matches!(error, SourceError::RefNotFound { .. } | SourceError::NoSemverMatch { .. }) {
            return error;
        }
        let prefixes = ["HEAD", "refs/heads/", "refs/tags/"].map(String::from);
        let wants = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        match self.list(session, &prefixes, wants) {
            Ok((_, _, refs)) => lookup::explain(reference, &refs, error),
            Err(SourceError::Cancelled) => SourceError::Cancelled,
            Err(_) => error,
        }
    }

    /// Makes sure that a commit is here, and makes the mirror anew when it is damaged.
    fn ensure(
        &self,
        session: &Session<'_>,
        target: &Target<'_>,
        known: Option<(&Endpoint, &Server)>,
    ) -> Result<CommitId, SourceError> {
        if self.mirror.is_here(target.commit, target.tag) {
            return Ok(CommitId::of(target.commit));
        }
        let mirror = &*self.mirror;
        let _writing = mirror.board.write(self.cancel, self.deadline)?;
        let from = (session, known);
        let result = self
            .look_closely()
            .and_then(|()| self.ensure_in(&mirror.store, from, target, Haves::Anchors));
        let result = match result {
            Err(SourceError::Corrupt { source }) => {
                let url = &self.remote.url;
                tracing::warn!(%url, %source, "the mirror is damaged and is made anew");
                self.rebuild(from, target)
            }
            // What we said we have may not be what we have.
            Err(SourceError::BadObjects { .. } | SourceError::Incomplete { .. })
                if self.has_anchors()? =>
            {
                self.ensure_in(&mirror.store, from, target, Haves::Nothing)
            }
            result => result,
        };
        self.all.measure(mirror);
        result
    }

    fn has_anchors(&self) -> Result<bool, SourceError> {
        let store = &self.mirror.store;
        let repo = store.open_or_create()?;
        Ok(!store.anchors(&repo)?.is_empty())
    }

    /// Reads everything that is anchored, if somebody has met damage.
    fn look_closely(&self) -> Result<(), SourceError> {
        let mirror = &*self.mirror;
        if !mirror.suspect.load(Ordering::SeqCst) {
            return Ok(());
        }
        let repo = mirror.store.open_or_create()?;
        if !mirror.store.is_sound(&repo, self.limits)? {
            return Err(SourceError::Corrupt {
                source: Arc::new(git2::Error::from_str("an object is missing or is another one")),
            });
        }
        mirror.suspect.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Makes the mirror anew, with what can be read of it and what is wanted. The old one stays as long as
    /// that does not succeed: what can be read of it may be needed before the server answers.
    fn rebuild(
        &self,
        from: (&Session<'_>, Option<(&Endpoint, &Server)>),
        target: &Target<'_>,
    ) -> Result<CommitId, SourceError> {
        let mirror = &*self.mirror;
        let fresh = Store { path: mirror.store.path.with_extension("rebuild") };
        fresh.wipe()?;
        let whole = match mirror.store.salvage(&fresh, self.limits, &|| self.go_on(MAKING)) {
            Err(SourceError::Corrupt { .. }) => fresh.wipe().map(|()| false),
            salvaged => salvaged,
        };
        let ensure = || self.ensure_in(&fresh, from, target, Haves::Anchors);
        let made = whole.and_then(|whole| match ensure() {
            // What cannot be read whole takes the room of what can.
            Err(SourceError::CacheFull { .. } | SourceError::DiskFull { .. }) if !whole => {
                mirror.store.wipe()?;
                self.all.measure(mirror);
                ensure()
            }
            ensured => ensured,
        });
        let made = made.and_then(|commit| fresh.replace(&mirror.store).map(|()| commit));
        if made.is_ok() {
            mirror.suspect.store(false, Ordering::SeqCst);
            self.all.rebuilt.fetch_add(1, Ordering::Relaxed);
        } else {
            fresh.wipe()?;
        }
        made
    }

    /// Makes sure that a commit is in a store, and tries again when there was no room and some was made.
    fn ensure_in(
        &self,
        store: &Store,
        from: (&Session<'_>, Option<(&Endpoint, &Server)>),
        target: &Target<'_>,
        haves: Haves,
    ) -> Result<CommitId, SourceError> {
        loop {
            let result = self.ensure_once(store, from, target, haves);
            let wanted = match &result {
                // Nobody knows how much is still to come.
                Err(SourceError::CacheFull { brought, .. }) => Some(brought.saturating_mul(2)),
                Err(SourceError::DiskFull { .. }) => None,
                _ => return result,
            };
            if !self.all.make_room(wanted, &self.mirror, &|| self.go_on(MAKING)) {
                return result;
            }
        }
    }

    fn ensure_once(
        &self,
        store: &Store,
        (session, known): (&Session<'_>, Option<(&Endpoint, &Server)>),
        target: &Target<'_>,
        haves: Haves,
    ) -> Result<CommitId, SourceError> {
        let mirror = &*self.mirror;
        let repo = store.open_or_create()?;
        let anchors = store.anchors(&repo)?;
        if mirror.claim(&repo, target.commit, target.tag) {
            return Ok(CommitId::of(target.commit));
        }
        if target.tag.is_none_or(|tag| is_tag(&repo, tag))
            && is_commit(&repo, target.commit)
            && store.is_complete(&repo, target.commit, None, Check::Exists, self.limits)?
        {
            // A kill came between the pack and the anchor, or it was let go and is wanted again.
            return self.take_in(store, &repo, target.commit, target.tag);
        }
        let haves = match haves {
            Haves::Anchors => self.offer(&repo, target, &anchors),
            Haves::Nothing => BTreeSet::new(),
        };

        let (endpoint, server, refs) = match known {
            Some((endpoint, server)) => (endpoint.clone(), server.clone(), Vec::new()),
            None => self.advertisement(session, |_| true)?,
        };
        let (wants, depth) = plan(target, &server, &refs)?;
        let boundary = store.boundary(&repo, &haves)?;
        let request = FetchRequest {
            wants,
            haves: haves.iter().copied().collect(),
            shallow: boundary,
            depth,
            commits_only: false,
        };
        let packs = store.packs()?;
        let mut incoming = self.all.incoming();
        let admit = |bytes| incoming.admit(bytes);
        let from = (session, &endpoint, &server);
        let received = store.receive(&repo, from, &request, self.limits, admit);
        self.traffic.fetched(received.as_ref().ok().copied());
        let bytes = received.map_err(|error| not_our_ref(error, target))?;
        self.received.set(self.received.get() + bytes);
        tracing::debug!(url = %self.remote.url, bytes, "fetched");

        let taken = self.accept(store, &repo, target, depth);
        if taken.is_err() {
            // Nothing in the new pack is of use, and the next try brings it again.
            store.remove_packs_but(&packs)?;
        }
        // What came in counts until it is seen on the disk.
        self.all.measure(mirror);
        taken
    }

    /// Which commits the server is told that are here, of those that are. Each costs a hundred bytes, with
    /// what has to be told of its history, and one that is much like the new one is as good as all.
    fn offer(
        &self,
        repo: &Repository,
        target: &Target<'_>,
        anchors: &BTreeSet<Oid>,
    ) -> BTreeSet<Oid> {
        let last = lock(&self.mirror.holds).last;
        let known = [target.after, last].into_iter().flatten().filter(|id| anchors.contains(id));
        let mut offered: BTreeSet<Oid> = known.collect();
        let mut newest: Vec<(i64, Oid)> = anchors
            .iter()
            .filter_map(|id| Some((repo.find_commit(*id).ok()?.time().seconds(), *id)))
            .collect();
        newest.sort_unstable_by_key(|(time, _)| std::cmp::Reverse(*time));
        offered.extend(newest.into_iter().take(OFFERED).map(|(_, id)| id));
        offered
    }

    /// Checks what came and anchors it.
    fn accept(
        &self,
        store: &Store,
        repo: &Repository,
        target: &Target<'_>,
        depth: u32,
    ) -> Result<CommitId, SourceError> {
        let mirror = &*self.mirror;
        repo.odb().and_then(|odb| odb.refresh()).map_err(|e| store.git_error("read", e))?;
        let bad = |why: &str| SourceError::BadObjects { why: why.into() };
        let wanted = target.commit;
        let found = repo.odb().is_ok_and(|odb| odb.exists(wanted));
        if !found && depth == FULL_DEPTH {
            return Err(SourceError::RefNotFound {
                reference: format!("commit {wanted}"),
                hint: Some("no branch of the repository contains it".into()),
            });
        }
        if !found {
            return Err(bad("the wanted object is not among them"));
        }
        let commit = peel(repo, wanted)?
            .ok_or_else(|| SourceError::NotACommit { reference: format!("object {wanted}") })?;
        // What a server lists without peeling it may be a tag.
        let tag = target.tag.or(Some(wanted).filter(|wanted| *wanted != commit.oid()));
        if let Some(tag) = tag {
            if !is_tag(repo, tag) {
                return Err(bad("the wanted tag is not among them"));
            }
            // One that came as a difference shows its size only now.
            store.raw(repo, tag, ObjectType::Tag)?;
        }
        let base = lock(&mirror.holds).last.filter(|last| Store::is_anchored(repo, *last));
        match store.is_complete(repo, commit.oid(), base, Check::Exists, self.limits) {
            Ok(true) => self.take_in(store, repo, commit.oid(), tag),
            Ok(false) => Err(SourceError::Incomplete { why: "a part of its tree is missing" }),
            Err(SourceError::Corrupt { source }) => Err(bad(&source.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Anchors a complete commit, and its tag. When that fails neither is.
    fn take_in(
        &self,
        store: &Store,
        repo: &Repository,
        commit: Oid,
        tag: Option<Oid>,
    ) -> Result<CommitId, SourceError> {
        {
            let mut holds = lock(&self.mirror.holds);
            if let Some(tag) = tag {
                store.anchor_tag(repo, commit, tag)?;
            }
            if !Store::is_anchored(repo, commit)
                && let Err(error) = store.anchor(repo, commit)
            {
                tag.map_or(Ok(()), |tag| store.drop_tag(commit, tag))?;
                return Err(error);
            }
            holds.fresh.insert(commit);
            holds.last = Some(commit);
        }
        store.write_shallow(repo);
        Ok(CommitId::of(commit))
    }
}

/// The commit that was found, and the annotated tag before it where that is wanted.
fn parts(found: &Found, want: Want) -> (Oid, Option<Oid>) {
    let commit = found.peeled.unwrap_or(found.id);
    (commit, Some(found.id).filter(|id| want == Want::Tag && *id != commit))
}

/// Whether an object is here and is a commit.
fn is_commit(repo: &Repository, id: Oid) -> bool {
    repo.odb().and_then(|odb| odb.read_header(id)).is_ok_and(|(_, kind)| kind == ObjectType::Commit)
}

/// Whether an object is here and is an annotated tag.
fn is_tag(repo: &Repository, id: Oid) -> bool {
    repo.odb().and_then(|odb| odb.read_header(id)).is_ok_and(|(_, kind)| kind == ObjectType::Tag)
}

/// What a fetch may say is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haves {
    Anchors,
    Nothing,
}

/// What to want and how deep. Version 2 servers give any object by its id. Older ones give what
/// they list, so a commit in between takes the history of the branches that may hold it.
fn plan(
    target: &Target<'_>,
    server: &Server,
    refs: &[Listed],
) -> Result<(Vec<Oid>, u32), SourceError> {
    match server {
        // A tag brings its commit along.
        Server::V2(_) => Ok((vec![target.tag.unwrap_or(target.commit)], 1)),
        Server::V0(capabilities) => {
            let listed = refs.iter().any(|listed| listed.id == target.listed);
            if target.advertised || listed || capabilities.gives_any_commit() {
                return Ok((vec![target.listed], 1));
            }
            let name = target.branch.map(|branch| format!("refs/heads/{branch}"));
            let mut tips: Vec<Oid> = refs
                .iter()
                .filter(|listed| match &name {
                    Some(name) => listed.name == *name,
                    None => listed.name.starts_with("refs/heads/"),
                })
                .map(|listed| listed.id)
                .collect();
            tips.sort_unstable();
            tips.dedup();
            match target.branch {
                Some(branch) if tips.is_empty() => Err(SourceError::RefNotFound {
                    reference: Reference::Branch(branch.into()).to_string(),
                    hint: None,
                }),
                None if tips.is_empty() => Err(SourceError::EmptyRepository),
                _ => Ok((tips, FULL_DEPTH)),
            }
        }
    }
}

/// Whether an error can come from a remembered endpoint that is no longer right: the repository
/// moved, or the server changed its protocol.
fn is_stale(error: &SourceError) -> bool {
    match error {
        SourceError::Protocol { .. }
        | SourceError::NotGit { .. }
        | SourceError::Redirect { .. }
        | SourceError::RepositoryNotFound { .. } => true,
        // Who asks us to slow down gets no second request.
        SourceError::HttpStatus { status, .. } => (400..500).contains(status) && *status != 429,
        _ => false,
    }
}

/// A server that does not know a commit says so in words only.
fn not_our_ref(error: SourceError, target: &Target<'_>) -> SourceError {
    match error {
        SourceError::Server { message }
            if !target.advertised
                && (message.contains("not our ref") || message.contains("unadvertised object")) =>
        {
            SourceError::RefNotFound {
                reference: format!("commit {}", target.listed),
                hint: Some(
                    "it was never pushed, or the server removed it, or its repository is shallow \
                     and ends before it"
                        .into(),
                ),
            }
        }
        error => error,
    }
}
