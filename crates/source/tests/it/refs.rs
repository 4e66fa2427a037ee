//! Every kind of reference, found and not found.

use plumb_source::{CommitId, Reference, SourceError};

use crate::World;
use crate::repo::Repo;

fn commit_ref(id: &CommitId) -> Reference {
    Reference::Commit { id: id.to_string(), branch: None }
}

/// A repository with a bit of everything.
struct History {
    first: CommitId,
    second: CommitId,
    pull: CommitId,
    lost: CommitId,
}

fn history(repo: &Repo) -> History {
    let first = repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    repo.git(&["tag", "-a", "v1.2.0", "-m", "release", &first.to_string()]);
    repo.git(&["tag", "v1.10.0", &first.to_string()]);
    repo.git(&["tag", "v2.0.0-rc.1", &first.to_string()]);
    repo.git(&["tag", "latest", &first.to_string()]);
    repo.git(&["tag", "web/v3.0.0", &first.to_string()]);
    // A tag of a tag.
    repo.git(&["tag", "-a", "nested", "-m", "again", "v1.2.0"]);
    let second = repo.commit("refs/heads/main", &[("a.yaml", "2")]);
    let pull = repo.commit("refs/pull/1/head", &[("a.yaml", "3")]);
    let lost = repo.commit("refs/heads/gone", &[("a.yaml", "4")]);
    repo.git(&["update-ref", "-d", "refs/heads/gone"]);
    repo.git(&["branch", "main-2", &first.to_string()]);
    History { first, second, pull, lost }
}

fn cases(h: &History) -> Vec<(Reference, String, CommitId)> {
    let name = |name: &str| name.to_owned();
    vec![
        (Reference::Default, name("main"), h.second),
        (Reference::Branch(name("main")), name("main"), h.second),
        (Reference::Branch(name("main-2")), name("main-2"), h.first),
        (Reference::Tag(name("latest")), name("latest"), h.first),
        (Reference::Tag(name("v1.2.0")), name("v1.2.0"), h.first),
        (Reference::Tag(name("nested")), name("nested"), h.first),
        (crate::semver(">=1.0.0"), name("v1.10.0"), h.first),
        (crate::semver("1.2.x"), name("v1.2.0"), h.first),
        (
            Reference::Semver { range: name("*"), pattern: Some(name("web/(.*)")) },
            name("web/v3.0.0"),
            h.first,
        ),
        (Reference::Name(name("refs/pull/1/head")), name("refs/pull/1/head"), h.pull),
        (Reference::Name(name("refs/heads/main")), name("refs/heads/main"), h.second),
        (commit_ref(&h.first), name(""), h.first),
        (
            Reference::Commit { id: h.first.to_string(), branch: Some(name("main")) },
            name("main"),
            h.first,
        ),
    ]
}

#[test]
fn every_kind_resolves_to_its_commit() {
    let world = World::new();
    let history = history(&world.repo);
    for (reference, name, commit) in cases(&history) {
        let revision = world.resolve(&reference).unwrap();
        assert_eq!((revision.name, revision.commit), (name, commit), "{reference}");
        world.mirrors.snapshot(&world.remote(), &commit).unwrap();
    }
    // No branch reaches it; only its id is known.
    let revision = world.resolve(&commit_ref(&history.lost)).unwrap();
    assert_eq!(revision.to_string(), format!("sha1:{}", history.lost));
    assert_eq!(world.read(&history.lost, "a.yaml"), "4");
}

#[test]
fn every_kind_alone_in_a_fresh_cache() {
    let world = World::new();
    let history = history(&world.repo);
    for (reference, _, commit) in cases(&history) {
        let revision = world.resolve(&reference).unwrap();
        assert_eq!(revision.commit, commit, "{reference}");
        assert!(!world.read(&commit, "a.yaml").is_empty());
        world.mirrors.retain(world.mirrors.moment(), &[], &[]).unwrap();
    }
}

#[test]
fn servers_without_version_2() {
    let mut world = World::new();
    let history = history(&world.repo);
    let root = world.dir.path().join("git");
    world.server = crate::Server::with(move |request| {
        let mut request = request.clone();
        request.headers.retain(|(name, _)| name != "git-protocol");
        crate::server::backend(&root, &request)
    });
    for _ in 0..2 {
        for (reference, name, commit) in cases(&history) {
            let revision = world.resolve(&reference).unwrap();
            assert_eq!((revision.name, revision.commit), (name, commit), "{reference}");
            assert!(!world.read(&commit, "a.yaml").is_empty());
        }
    }
    // The listing comes with the first answer: one request a poll.
    world.server.take_log();
    world.main();
    assert_eq!(world.server.take_log().len(), 1);

    let third = world.repo.commit("refs/heads/main", &[("a.yaml", "5")]);
    assert_eq!(world.main().commit, third);
    assert_eq!(world.read(&third, "a.yaml"), "5");

    let lost = world.resolve(&commit_ref(&history.lost)).unwrap_err();
    assert_eq!(lost.reason(), "RefNotFound", "{lost}");
    let missing = world.resolve(&crate::branch("nope")).unwrap_err();
    assert_eq!(missing.reason(), "RefNotFound");
}

#[test]
fn a_moved_reference_is_followed_also_backwards() {
    let world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    assert_eq!(world.main().commit, first);
    let second = world.repo.commit("refs/heads/main", &[("a.yaml", "2")]);
    assert_eq!(world.main().commit, second);
    // Amend: another commit in place of the second.
    world.repo.point("refs/heads/main", &first);
    let amended = world.repo.commit("refs/heads/main", &[("a.yaml", "2b")]);
    assert_eq!(world.main().commit, amended);
    world.repo.point("refs/heads/main", &first);
    assert_eq!(world.main().commit, first);
    for (commit, text) in [(first, "1"), (second, "2"), (amended, "2b")] {
        assert_eq!(world.read(&commit, "a.yaml"), text);
    }
}

#[test]
fn what_is_not_there_is_named() {
    let world = World::new();
    history(&world.repo);
    let blob = world.repo.blob("just a blob");
    world.repo.git(&["tag", "blob", &blob]);
    let check = |reference: Reference, reason: &str, message: &str| {
        let error = world.resolve(&reference).unwrap_err();
        assert_eq!(error.reason(), reason, "{reference}: {error}");
        assert!(error.to_string().contains(message), "{error}");
        error.hint().unwrap_or_default()
    };
    let unknown = "1234567890123456789012345678901234567890";
    let hint = check(Reference::Branch("nope".into()), "RefNotFound", "branch \"nope\"");
    assert_eq!(hint, "it has the branches: main, main-2");
    let hint = check(Reference::Branch("latest".into()), "RefNotFound", "branch");
    assert!(hint.contains("ref.tag"), "{hint}");
    check(Reference::Tag("nope".into()), "RefNotFound", "tag \"nope\"");
    check(Reference::Name("refs/x/y".into()), "RefNotFound", "refs/x/y");
    let hint = check(crate::semver(">=3"), "NoMatchingVersion", ">=3");
    assert!(hint.contains("v2.0.0-rc.1"), "{hint}");
    check(crate::semver("x y"), "VersionRangeInvalid", "x y");
    let unclosed = Reference::Semver { range: "*".into(), pattern: Some("web-(".into()) };
    check(unclosed, "VersionPatternInvalid", "web-(");
    check(Reference::Tag("blob".into()), "NotACommit", "tag \"blob\"");
    let commit = |id: &str| Reference::Commit { id: id.into(), branch: None };
    check(commit(unknown), "RefNotFound", unknown);
    let hint = check(commit("1234567"), "ReferenceInvalid", "1234567");
    assert!(hint.contains("40"));
    check(commit(&blob), "NotACommit", "");
}

#[test]
fn an_empty_repository_says_so_and_recovers() {
    let world = World::new();
    for reference in [Reference::Default, crate::branch("main"), crate::semver("*")] {
        let error = world.resolve(&reference).unwrap_err();
        assert!(matches!(error, SourceError::EmptyRepository), "{error}");
    }
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    assert_eq!(world.main().commit, first);
}

#[test]
fn a_head_that_points_to_no_branch() {
    let world = World::new();
    world.repo.commit("refs/heads/dev", &[("a.yaml", "1")]);
    let error = world.resolve(&Reference::Default).unwrap_err();
    assert_eq!(error.reason(), "RefNotFound");
    assert!(error.hint().unwrap().contains("name one"));
}

#[test]
fn sha256_repositories_are_refused_clearly() {
    for v0 in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::init_with(&dir.path().join("app.git"), &["--object-format=sha256"]);
        let blob = repo.blob("1");
        let tree = repo.tree(&[("100644", "a.yaml", &blob)]);
        let commit = repo.git(&["commit-tree", &tree, "-m", "x"]);
        repo.git(&["update-ref", "refs/heads/main", &commit]);
        let root = dir.path().to_owned();
        let server = crate::Server::with(move |request| {
            let mut request = request.clone();
            if v0 {
                request.headers.retain(|(name, _)| name != "git-protocol");
            }
            crate::server::backend(&root, &request)
        });
        let mirrors =
            plumb_source::Mirrors::open(&dir.path().join("cache"), plumb_source::Limits::default())
                .unwrap();
        let error = mirrors
            .resolve(
                &crate::remote(&server.url("app.git")),
                &crate::branch("main"),
                &plumb_source::Cancel::new(),
            )
            .unwrap_err();
        assert!(matches!(error, SourceError::Sha256Repository), "{error}");
        assert!(error.hint().unwrap().contains("SHA-1"), "{error:?}");
    }
}
