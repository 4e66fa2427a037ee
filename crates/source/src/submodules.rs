//! Submodules: commits of other repositories that stand in a commit's tree. Each repository has a
//! mirror of its own, like any other.
//!
//! Which commits of which mirrors belong to a commit is recorded in its own mirror, in
//! `plumb-modules/<commit>`, once all of them are here. The record says what is read with the commit,
//! without any network, and what others' commits are kept for; it goes with its commit.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use git2::Oid;
use plumb_core::RelPath;

use crate::call::Call;
use crate::cancel::lock;
use crate::gitmodules;
use crate::http::may_see_credentials;
use crate::mirror::{Store, cache_error, files, has_extension, remove_dir, write_whole};
use crate::mirrors::Mirror;
use crate::remote::{Place, redacted};
use crate::snapshot::{Part, Snapshot};
use crate::wire::clean;
use crate::{Cancel, CommitId, Credentials, Mirrors, Remote, SourceError};

/// The directory of the records.
const RECORDS: &str = "plumb-modules";

/// Submodules in submodules; nobody is known to have more than three levels. One repository that has another,
/// which has the first again, is as deep as their histories.
const MAX_DEPTH: usize = 8;

/// Bytes of a path of a submodule, from the root of the outermost repository: what Linux opens at most.
/// Each directory above it is kept by its whole path.
const MAX_PATH: usize = 4096;

/// One submodule of a commit, at any depth.
pub(crate) struct Module {
    /// The name of its mirror.
    pub(crate) mirror: String,
    pub(crate) commit: CommitId,
    /// From the root of the outermost repository.
    pub(crate) path: RelPath,
}

impl Module {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let mirror = words.next()?.to_owned();
        let commit = words.next()?.parse().ok()?;
        let text = words.next()?;
        let path = RelPath::parse(text).ok().filter(|path| path.as_str() == text)?;
        (text.len() <= MAX_PATH).then_some(Self { mirror, commit, path })
    }

    /// What a record says; `None` for one that is not whole, as a power loss may leave it.
    fn parse_all(text: &str) -> Option<Vec<Self>> {
        let mut lines: Vec<&str> = text.lines().collect();
        let last = lines.pop()?;
        (last == end(lines.len())).then(|| lines.into_iter().map(Self::parse).collect())?
    }
}

/// The last line of a record, without which it is not whole.
fn end(modules: usize) -> String {
    format!("{modules} in all")
}

impl Store {
    fn record(&self, commit: &str) -> PathBuf {
        self.path.join(RECORDS).join(commit)
    }

    /// The submodules of a commit, which were here once; `None` when they were not asked for yet, or what
    /// is recorded cannot be read: that is written anew.
    pub(crate) fn modules(&self, commit: Oid) -> Option<Vec<Module>> {
        self.read_record(&commit.to_string())
    }

    fn read_record(&self, commit: &str) -> Option<Vec<Module>> {
        let path = self.record(commit);
        match fs::read_to_string(&path) {
            Ok(text) => Module::parse_all(&text),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let path = crate::mirror::told(&path);
                    tracing::warn!(path = %path.display(), %error, "cannot read what submodules there are");
                }
                None
            }
        }
    }

    pub(crate) fn write_modules(&self, commit: Oid, modules: &[Module]) -> Result<(), SourceError> {
        let path = self.record(&commit.to_string());
        let line = |module: &Module| {
            let Module { mirror, commit, path } = module;
            format!("{mirror} {commit} {}\n", path.as_str())
        };
        let text: String = modules.iter().map(line).chain([end(modules.len())]).collect();
        let dir = self.path.join(RECORDS);
        fs::create_dir_all(&dir).map_err(|e| cache_error("create", &dir, e))?;
        if path.is_dir() {
            remove_dir(&path)?;
        }
        write_whole(&path, &text)
    }

    /// The submodules of all commits.
    pub(crate) fn all_modules(&self) -> Result<Vec<Module>, SourceError> {
        let mut all = Vec::new();
        for name in files(&self.path.join(RECORDS))? {
            all.extend(self.read_record(&name).unwrap_or_default());
        }
        Ok(all)
    }

    /// Forgets the submodules of all commits but these. Returns the mirrors that they were in.
    pub(crate) fn keep_modules(
        &self,
        kept: &BTreeSet<Oid>,
    ) -> Result<BTreeSet<String>, SourceError> {
        let kept: BTreeSet<String> = kept.iter().map(ToString::to_string).collect();
        let mut left = BTreeSet::new();
        for name in files(&self.path.join(RECORDS))? {
            if !kept.contains(&name) {
                let modules = self.read_record(&name).unwrap_or_default();
                left.extend(modules.into_iter().map(|module| module.mirror));
                remove_dir(&self.record(&name))?;
            }
        }
        Ok(left)
    }

    /// Removes what a kill or a power loss left behind.
    pub(crate) fn clean_modules(&self) -> Result<(), SourceError> {
        for name in files(&self.path.join(RECORDS))? {
            if has_extension(&name, "new") || self.read_record(&name).is_none() {
                remove_dir(&self.record(&name))?;
            }
        }
        Ok(())
    }
}

/// What fetches one submodule is run by who is asked: with the remote of that, and when it may be asked.
pub type Ask<'a> =
    &'a dyn Fn(&Remote, &mut dyn FnMut() -> Result<(), SourceError>) -> Result<(), SourceError>;

/// What runs out of time where no server lets us wait.
pub(crate) const READING: &str = "reading which submodules there are";

/// Commits whose submodules are being fetched, or were not all, of which it is known how much came.
const MAX_UNDER_WAY: usize = 1024;

/// One submodule that is wanted, and for which commit of which mirror.
#[derive(Clone, Copy)]
struct Wanted<'w> {
    top: (&'w str, Oid),
    url: &'w str,
    commit: CommitId,
}

/// A repository whose submodules are to be fetched.
struct Node {
    remote: Remote,
    part: Part,
    path: RelPath,
    /// The mirrors from the outermost repository to this one.
    line: Vec<String>,
}

impl Node {
    /// The submodules that the commit has and names a repository for: path, URL as it is written,
    /// commit. As with Git, what stands in one place only is none.
    fn modules(
        &self,
        go_on: impl Fn() -> Result<(), SourceError>,
    ) -> Result<Vec<(RelPath, String, CommitId)>, SourceError> {
        let file = self.path.child(gitmodules::FILE);
        let bad = |why: String| SourceError::InvalidModules { file: file.to_string(), why };
        let limit = gitmodules::MAX_BYTES;
        let text = match self.part.read_at_root(gitmodules::FILE, limit)? {
            None => return Ok(Vec::new()),
            Some(Err(size)) => {
                return Err(bad(format!("it has {size} bytes, more than the limit of {limit}")));
            }
            Some(Ok(text)) => String::from_utf8(text).map_err(|_| bad("it is not UTF-8".into()))?,
        };
        let named = gitmodules::parse(&text)
            .map_err(|line| bad(format!("line {line} is not in the syntax of Git")))?;
        let mut modules = Vec::new();
        // A directory may be large: those in one are looked up together.
        let mut named: Vec<(RelPath, String)> = named.into_iter().collect();
        named.sort_by(|(a, _), (b, _)| (a.parent(), a).cmp(&(b.parent(), b)));
        let mut dirs = self.part.directories();
        for (path, url) in named {
            go_on()?;
            if let Some(commit) = dirs.gitlink(&path)? {
                if self.path.as_str().len() + 1 + path.as_str().len() > MAX_PATH {
                    return Err(bad(format!("a path is longer than {MAX_PATH} bytes")));
                }
                modules.push((path, url, commit));
            }
        }
        if self.line.len() > MAX_DEPTH && !modules.is_empty() {
            let again = self.line.iter().enumerate().any(|(i, id)| self.line[..i].contains(id));
            let why = if again { ", and one of the repositories contains itself" } else { "" };
            return Err(bad(format!(
                "submodules are more than {MAX_DEPTH} levels deep in one another{why}"
            )));
        }
        Ok(modules)
    }

    fn join(&self, path: &RelPath) -> RelPath {
        path.segments().fold(self.path.clone(), |at, segment| at.child(segment))
    }
}

impl Mirrors {
    /// Makes sure that the submodules of a commit are here, where the remote asks for them; the
    /// commit itself is. No network when they are. Each that is not here is fetched within `ask`, which is
    /// given its remote and what fetches it, and may refuse. One call takes no longer than the remote's
    /// time-out, and all that is fetched for one commit is no larger than one fetch may be.
    pub fn fetch_submodules(
        &self,
        remote: &Remote,
        commit: &CommitId,
        cancel: &Cancel,
        ask: Ask<'_>,
    ) -> Result<(), SourceError> {
        if !remote.submodules {
            return Ok(());
        }
        let call = self.call(remote, cancel)?;
        // What may be damaged is looked at now.
        if self.has_modules(&call.mirror, *commit, |mirror, commit| mirror.is_here(commit, None)) {
            return Ok(());
        }
        let (top, deadline) = (Arc::clone(&call.mirror), call.deadline);
        let go_on = || {
            cancel.check()?;
            let late = Instant::now() >= deadline;
            if late { Err(SourceError::Timeout { doing: READING }) } else { Ok(()) }
        };
        let mut modules: Vec<Module> = Vec::new();
        // Nobody lets go of them before it is recorded what they are for.
        let mut parts = Vec::new();
        let mut todo = vec![Node {
            remote: remote.clone(),
            part: Self::part(Arc::clone(&top), commit)?,
            path: RelPath::root(),
            line: vec![call.remote.id.clone()],
        }];
        while let Some(node) = todo.pop() {
            for (path, url, module) in node.modules(go_on)? {
                let path = node.join(&path);
                if modules.len() >= self.limits().submodules {
                    let limit = self.limits().submodules as u64;
                    return Err(SourceError::TooLarge { what: "submodules", limit });
                }
                let wanted = Wanted { top: (&top.id, commit.oid()), url: &url, commit: module };
                let brought = self.bring_module(&node, wanted, (cancel, deadline), ask);
                let (remote, id, part) = brought.map_err(|error| match error {
                    SourceError::Cancelled => error,
                    // What is left of it is not what anybody knows of.
                    SourceError::TooLarge { what: "bytes", .. } => SourceError::TooLarge {
                        what: "bytes of the submodules",
                        limit: self.limits().pack_bytes,
                    },
                    error => {
                        let url = shown(&node.remote, &url);
                        let source = Box::new(with_url(error, &url));
                        SourceError::Submodule { path: path.to_string(), url, source }
                    }
                })?;
                let line = node.line.iter().cloned().chain([id.clone()]).collect();
                modules.push(Module { mirror: id, commit: module, path: path.clone() });
                todo.push(Node { remote, part, path, line });
            }
            parts.push(node.part);
        }
        // What is written is gone before its commit is, and not written after that.
        let _writing = top.board.write(cancel, deadline)?;
        top.store.write_modules(commit.oid(), &modules)?;
        lock(&self.brought).remove(&(top.id.clone(), commit.oid()));
        for module in &modules {
            // Who looked before who is named did not know of this.
            lock(&self.room).touch(&module.mirror);
        }
        drop(parts);
        Ok(())
    }

    /// Fetches the commit of one submodule.
    fn bring_module(
        &self,
        node: &Node,
        wanted: Wanted<'_>,
        (cancel, deadline): (&Cancel, Instant),
        ask: Ask<'_>,
    ) -> Result<(Remote, String, Part), SourceError> {
        let Wanted { top: (top, of), url, commit } = wanted;
        let url = gitmodules::resolve(&node.remote.url, url)
            .map_err(|why| SourceError::InvalidUrl { url: url.into(), why: why.into() })?;
        let remote = node.remote.of_submodule(url)?;
        let key = (top.to_owned(), of);
        let mut limits = self.limits().clone();
        // Also by tries that came to nothing.
        let before = lock(&self.brought).get(&key).copied().unwrap_or(0);
        limits.pack_bytes = limits.pack_bytes.saturating_sub(before);
        let call = Call { deadline, limits: &limits, ..self.call(&remote, cancel)? };
        if !call.mirror.is_here(commit.oid(), None) {
            let fetched = ask(&remote, &mut || call.bring(commit, None));
            let mut brought = lock(&self.brought);
            if brought.len() >= MAX_UNDER_WAY {
                brought.clear();
            }
            *brought.entry(key).or_default() += call.received.get();
            drop(brought);
            fetched?;
        }
        let (id, mirror) = (call.remote.id.clone(), Arc::clone(&call.mirror));
        let part = Self::part(mirror, &commit)?;
        Ok((remote, id, part))
    }

    /// Whether the submodules of a commit are known, and each is here in the sense asked for.
    pub(crate) fn has_modules(
        &self,
        mirror: &Mirror,
        commit: CommitId,
        is_here: impl Fn(&Mirror, Oid) -> bool,
    ) -> bool {
        let modules = mirror.store.modules(commit.oid());
        let is_here =
            |module: &Module| is_here(&self.mirror_of(&module.mirror), module.commit.oid());
        modules.is_some_and(|modules| modules.iter().all(is_here))
    }

    /// A commit with its submodules in their places; `None` when not all are here.
    pub(crate) fn with_modules(&self, top: Part) -> Result<Option<Snapshot>, SourceError> {
        let Some(modules) = top.modules() else { return Ok(None) };
        let mut parts = Vec::new();
        for Module { mirror, commit, path } in modules {
            match Self::part(self.mirror_of(&mirror), &commit) {
                Ok(part) => parts.push((path, part)),
                Err(SourceError::NotInCache { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let (owner, commit) = (top.mirror(), top.commit());
        let snapshot = Snapshot::of(top, parts)?;
        if snapshot.is_none() {
            // What is recorded is not so: it is found out anew.
            remove_dir(&owner.store.record(&commit.to_string()))?;
        }
        Ok(snapshot)
    }

    /// The commits of a mirror that are submodules of others' commits.
    pub(crate) fn lent(&self, id: &str) -> Result<BTreeSet<Oid>, SourceError> {
        let mut lent = BTreeSet::new();
        for name in files(self.dir())? {
            let modules = Store { path: self.dir().join(name) }.all_modules()?;
            let here = modules.iter().filter(|module| module.mirror == id);
            lent.extend(here.map(|module| module.commit.oid()));
        }
        Ok(lent)
    }

    /// The mirrors in which the submodules of these mirrors' commits are.
    pub(crate) fn lenders<'i>(
        &self,
        ids: impl IntoIterator<Item = &'i String>,
    ) -> Result<BTreeSet<String>, SourceError> {
        let mut lenders = BTreeSet::new();
        for id in ids {
            let modules = Store { path: self.dir().join(id) }.all_modules()?;
            lenders.extend(modules.into_iter().map(|module| module.mirror));
        }
        Ok(lenders)
    }

    /// Lets go of what nobody names in mirrors that lent commits.
    pub(crate) fn tidy_modules(&self, mut ids: BTreeSet<String>, deadline: Instant) {
        // Those that were busy the last time.
        ids.append(&mut lock(&self.untidy));
        for id in ids {
            if let Err(error) = self.tidy_module(&id, deadline) {
                tracing::debug!(mirror = crate::tidy::shown(&id), %error, "cannot tidy a mirror yet");
                lock(&self.untidy).insert(id);
            }
        }
    }

    fn tidy_module(&self, id: &str, deadline: Instant) -> Result<(), SourceError> {
        let mirror = self.at_rest(id);
        let named = lock(&mirror.holds).named.clone();
        let is_named = lock(&self.named).as_ref().map(|names| names.has(id));
        let named = match (named, is_named) {
            (Some(named), _) => named,
            (None, Some(false)) => BTreeSet::new(),
            // Who may name it has not done so yet.
            (None, _) => return Ok(()),
        };
        let left = self.tidy(&mirror, &named, deadline)?;
        drop(mirror);
        if left == 0 && is_named == Some(false) {
            self.evict(id)?;
        }
        Ok(())
    }
}

impl Remote {
    /// Where a submodule of this repository is and how to get in. Credentials go along to the same
    /// origin only, and so to none that is named by a repository of another one. Authorities to
    /// trust and the proxy, which say by which way and not who, go along always.
    pub(crate) fn of_submodule(&self, url: String) -> Result<Self, SourceError> {
        let (here, there) = (Place::of(&self.url)?, Place::of(&url)?);
        let same = may_see_credentials(here.url(), there.url());
        if !same && matches!(there, Place::Ssh(_)) {
            return Err(SourceError::InvalidCredentials {
                why: format!(
                    "an ssh url needs a private key, and the one there is, if any, is for {}",
                    here.url().host_str().unwrap_or_default()
                ),
            });
        }
        let mut remote = Self { url, submodules: true, ..self.clone() };
        if !same {
            remote.credentials = Credentials::Anonymous;
            remote.tls.client = None;
        }
        Ok(remote)
    }
}

/// An error about a URL that was found in a repository, with what may be shown of that.
fn with_url(error: SourceError, shown: &str) -> SourceError {
    match error {
        SourceError::InvalidUrl { why, .. } => SourceError::InvalidUrl { url: shown.into(), why },
        SourceError::CredentialsInUrl { .. } => SourceError::CredentialsInUrl { url: shown.into() },
        error => error,
    }
}

/// A submodule's URL as errors show it: whole, in few words, and without what may be credentials.
fn shown(parent: &Remote, url: &str) -> String {
    let whole = gitmodules::resolve(&parent.url, url).unwrap_or_else(|_| url.to_owned());
    let end = whole.find(['?', '#']).unwrap_or(whole.len());
    clean(&redacted(&whole[..end]))
}

impl SourceError {
    /// What a person can do about it, of a submodule, whose URL and commit stand in the repository.
    pub(crate) fn submodule_hint(&self) -> Option<String> {
        let hint = match self {
            Self::InvalidUrl { .. } | Self::UnsupportedScheme { .. } => {
                "correct it in .gitmodules: an https://, http:// or ssh:// URL, or one relative to \
                 its own repository, such as ../other.git"
            }
            Self::CredentialsInUrl { .. } => {
                "remove them from .gitmodules; those of the GitRepository go to submodules at the \
                 same scheme, host and port"
            }
            Self::InvalidCredentials { .. } | Self::Unauthorized { sent: false, .. } => {
                "credentials go to submodules at the same scheme, host and port as spec.url only; \
                 name the submodule by a relative URL in .gitmodules if it is there, such as \
                 ../other.git"
            }
            Self::RefNotFound { .. } => {
                "push the submodule's commit to its own repository, too; servers without version \
                 2 of the protocol give only commits that are on a branch"
            }
            _ => return self.hint(),
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{ClientCertificate, Proxy, Tls};

    fn remote(url: &str, credentials: Credentials) -> Remote {
        Remote {
            url: url.into(),
            credentials,
            tls: Tls::default(),
            proxy: None,
            timeout: Duration::from_secs(1),
            submodules: true,
        }
    }

    #[test]
    fn credentials_go_along_to_the_same_origin_only() {
        let basic = || Credentials::Basic { username: "me".into(), password: "x".into() };
        let client = ClientCertificate { certificate: "x".into(), key: "y".into() };
        let proxy = Proxy { address: "http://proxy".into(), login: None };
        let from = |url: &str| Remote {
            tls: Tls { ca: Some("ca".into()), client: Some(client.clone()) },
            proxy: Some(proxy.clone()),
            ..remote(url, basic())
        };
        for (url, other, along) in [
            ("https://host/a", "https://host/b", true),
            ("https://host/a", "https://HOST:443/b", true),
            ("http://host/a", "https://host/b", true),
            ("https://host/a", "http://host/b", false),
            ("https://host/a", "https://host:8443/b", false),
            ("https://host/a", "https://host.evil/b", false),
            ("https://host/a", "https://evil/host/b", false),
        ] {
            let remote = from(url).of_submodule(other.to_owned()).unwrap();
            assert_eq!(remote.url, other);
            assert_eq!(remote.credentials != Credentials::Anonymous, along, "{url} {other}");
            assert_eq!(remote.tls.client.is_some(), along, "{url} {other}");
            assert!(remote.tls.ca.is_some() && remote.proxy.is_some(), "{url} {other}");
        }
        // Who had none there has none further on, either.
        let far = from("https://host/a").of_submodule("https://evil/b".into()).unwrap();
        let back = far.of_submodule("https://host/c".into()).unwrap();
        assert_eq!(back.credentials, Credentials::Anonymous);

        let ssh = |url: &str| {
            let (identity, known_hosts) = ("key".into(), "known".into());
            remote(url, Credentials::Ssh { identity, passphrase: None, known_hosts })
        };
        for (url, other, along) in [
            ("git@host:a", "git@host:b", true),
            ("git@host:a", "ssh://me@host:22/b", true),
            ("git@host:a", "git@other:b", false),
            ("git@host:a", "ssh://git@host:2222/b", false),
        ] {
            let remote = ssh(url).of_submodule(other.to_owned());
            let reason = remote.as_ref().err().map(SourceError::reason);
            assert_eq!(reason, (!along).then_some("CredentialsInvalid"), "{url} {other}");
        }
        let open = ssh("git@host:a").of_submodule("https://host/b".into()).unwrap();
        assert_eq!(open.credentials, Credentials::Anonymous);
        for other in ["file:///etc", "https://me:x@host/b", "ext::sh -c id", "/srv/b", ""] {
            assert!(from("https://host/a").of_submodule(other.into()).is_err(), "{other}");
        }
    }
}
