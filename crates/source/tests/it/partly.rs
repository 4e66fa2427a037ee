//! Servers that give less than all: parts of history, parts of trees, or plain files only.

use plumb_core::ErrorClass;
use plumb_source::{Cancel, Limits, Mirrors, Reference, Revision, SourceError};

use crate::programs::Nginx;
use crate::repo::Repo;
use crate::server::{Request, Server, backend};
use crate::{branch, remote};

/// A directory with `origin.git` of two commits, and a server of what is in it.
struct Copies {
    dir: tempfile::TempDir,
    origin: Repo,
    server: Server,
}

/// The versions of the protocol.
const VERSIONS: [&str; 2] = ["2", "0"];

impl Copies {
    fn new(version: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("git");
        let origin = Repo::init(&root.join("origin.git"));
        origin.commit("refs/heads/main", &[("a.yaml", "1")]);
        origin.commit("refs/heads/main", &[("a.yaml", "2"), ("dir/b.yaml", "3")]);
        origin.git(&["config", "uploadpack.allowFilter", "true"]);
        let server = Server::with(move |request| {
            let mut request = Request::clone(request);
            if version == "0" {
                request.headers.retain(|(name, _)| name != "git-protocol");
            }
            backend(&root, &request)
        });
        Self { dir, origin, server }
    }

    /// Makes a bare clone with these options.
    fn copy(&self, name: &str, options: &[&str]) -> Repo {
        let path = self.dir.path().join("git").join(name);
        let from = format!("file://{}", self.origin.path.display());
        let mut args = vec!["clone", "-q", "--bare"];
        args.extend(options);
        let to = path.display().to_string();
        args.extend([from.as_str(), to.as_str()]);
        self.origin.git(&args);
        Repo { path }
    }

    fn resolve(&self, name: &str, reference: &Reference) -> Result<Revision, SourceError> {
        let cache = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::open(cache.path(), Limits::default()).unwrap();
        mirrors.resolve(&remote(&self.server.url(name)), reference, &Cancel::new())
    }
}

#[test]
fn a_partial_clone_as_server_is_told_as_that() {
    for version in VERSIONS {
        let copies = Copies::new(version);
        for filter in ["blob:none", "tree:0"] {
            let name = filter.replace(':', "-");
            copies.copy(&name, &[&format!("--filter={filter}")]);
            // Where it would have them from.
            let away = copies.dir.path().join("away.git");
            std::fs::rename(&copies.origin.path, &away).unwrap();
            let error = copies.resolve(&name, &branch("main")).unwrap_err();
            assert_eq!(error.reason(), "IncompleteRepository", "{version} {filter}: {error:?}");
            assert_eq!(error.class(), ErrorClass::WaitForUser);
            assert!(error.hint().unwrap().contains("without --filter"), "{error:?}");
            std::fs::rename(&away, &copies.origin.path).unwrap();
        }
    }
}

#[test]
fn a_shallow_clone_as_server_gives_what_it_has() {
    for version in VERSIONS {
        let copies = Copies::new(version);
        copies.copy("shallow.git", &["--depth=1"]);
        let tip = copies.origin.git(&["rev-parse", "main"]);
        let revision = copies.resolve("shallow.git", &branch("main")).unwrap();
        assert_eq!(revision.commit.to_string(), tip);
        let older = copies.origin.git(&["rev-parse", "main~1"]);
        let older = Reference::Commit { id: older, branch: None };
        let error = copies.resolve("shallow.git", &older).unwrap_err();
        assert_eq!(error.reason(), "RefNotFound", "{version}: {error:?}");
        copies.resolve("origin.git", &older).unwrap();
    }
}

#[test]
fn a_server_of_plain_files_is_told_as_that() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::init(&dir.path().join("plain/app.git"));
    repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    repo.git(&["update-server-info"]);
    for kind in ["text/plain", "application/octet-stream", "text/html"] {
        let root = dir.path().display();
        let plain = format!("location /plain/ {{ root {root}; default_type {kind}; }}");
        let nginx = Nginx::new(dir.path(), None, &plain);
        let cache = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::open(cache.path(), Limits::default()).unwrap();
        let url = nginx.url("plain/app.git");
        let error = mirrors.resolve(&remote(&url), &branch("main"), &Cancel::new()).unwrap_err();
        assert_eq!(error.reason(), "DumbHTTP", "{kind}: {error:?}");
        assert_eq!(error.to_string(), format!("{url} speaks only the dumb HTTP protocol"));
        assert!(error.hint().unwrap().contains("git http-backend"), "{error:?}");
    }
}
