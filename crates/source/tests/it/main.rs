//! Mirrors against real `git http-backend` over HTTP, and against servers that misbehave.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails here")]

mod cache;
mod credentials;
mod damage;
mod failures;
mod github;
mod history;
mod kill;
mod partly;
mod polls;
mod programs;
mod refs;
mod repo;
mod room;
mod secrecy;
mod server;
mod signatures;
mod signers;
mod ssh;
#[path = "../../../testkit/src/git/sshd.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is shared, and not all of it is used here")]
mod sshd;
mod submodules;
mod tags;
mod tls;
mod transfer;
mod tree;

use std::path::Path;
use std::time::Duration;

use plumb_source::{
    Cancel, CommitId, Credentials, Limits, Mirrors, Reference, Remote, Revision, SourceError, Tls,
};

use crate::repo::Repo;
use crate::server::Server;

/// A repository, a server for it and a cache.
struct World {
    dir: tempfile::TempDir,
    repo: Repo,
    server: Server,
    mirrors: Mirrors,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::init(&dir.path().join("git/app.git"));
        let server = Server::backend(&dir.path().join("git"));
        let mirrors = Mirrors::open(&dir.path().join("cache"), Limits::default()).unwrap();
        Self { dir, repo, server, mirrors }
    }

    fn remote(&self) -> Remote {
        remote(&self.server.url("app.git"))
    }

    fn resolve(&self, reference: &Reference) -> Result<Revision, SourceError> {
        self.mirrors.resolve(&self.remote(), reference, &Cancel::new())
    }

    fn main(&self) -> Revision {
        self.resolve(&branch("main")).unwrap()
    }

    fn cache(&self) -> std::path::PathBuf {
        self.dir.path().join("cache")
    }

    /// The directory of the only mirror.
    fn mirror_dir(&self) -> std::path::PathBuf {
        let mut all = std::fs::read_dir(self.cache().join("mirrors")).unwrap();
        let only = all.next().unwrap().unwrap().path();
        assert!(all.next().is_none());
        only
    }

    fn packs(&self) -> usize {
        count(&self.mirror_dir().join("objects/pack"), ".pack")
    }

    fn read(&self, commit: &CommitId, path: &str) -> String {
        use plumb_core::Tree as _;
        let snapshot = self.mirrors.snapshot(&self.remote(), commit).unwrap();
        let path = plumb_core::RelPath::parse(path).unwrap();
        String::from_utf8(snapshot.read(&path, 1 << 20).unwrap()).unwrap()
    }
}

fn count(dir: &Path, suffix: &str) -> usize {
    std::fs::read_dir(dir)
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().ends_with(suffix)
        })
        .count()
}

fn remote(url: &str) -> Remote {
    Remote {
        url: url.into(),
        credentials: Credentials::Anonymous,
        tls: Tls::default(),
        proxy: None,
        timeout: Duration::from_secs(20),
        submodules: false,
    }
}

fn semver(range: &str) -> Reference {
    Reference::Semver { range: range.into(), pattern: None }
}

fn branch(name: &str) -> Reference {
    Reference::Branch(name.into())
}
