//! One listing for all who follow references of one repository.

use std::time::Instant;

use plumb_source::{
    Cancel, Concerns, Credentials, Looked, Question, Reference, Remote, SourceError,
};

use crate::server::{Reply, Request, Server, backend};
use crate::{World, branch, remote, semver};

fn look(
    world: &World,
    reference: &Reference,
    others: &[Reference],
    since: Instant,
) -> Result<Looked, SourceError> {
    let question = Question { reference, with_tag: false, others, since };
    let looked = world.mirrors.look(&world.remote(), &question, &Cancel::new());
    let known = world.mirrors.known(&world.remote(), &question);
    if let (Ok(looked), Some(known)) = (&looked, known) {
        let known = known.unwrap();
        assert_eq!((known.resolved, known.began), (looked.resolved.clone(), looked.began));
    }
    looked
}

/// What is followed: branches, tags, versions, pull requests, and a commit.
fn followed(world: &World) -> Vec<Reference> {
    let repo = &world.repo;
    let first = repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    repo.git(&["tag", "-a", "v1.2.0", "-m", "release", &first.to_string()]);
    repo.git(&["tag", "web-3.0.0", &first.to_string()]);
    repo.commit("refs/heads/next", &[("a.yaml", "2")]);
    repo.commit("refs/pull/1/head", &[("a.yaml", "3")]);
    let web = Reference::Semver { range: "*".into(), pattern: Some("web-(.*)".into()) };
    vec![
        branch("main"),
        branch("next"),
        Reference::Default,
        Reference::Tag("v1.2.0".into()),
        Reference::Name("refs/pull/1/head".into()),
        semver(">=1.0.0"),
        semver("1.x"),
        web,
    ]
}

#[test]
fn twenty_who_follow_one_repository_ask_as_often_as_one() {
    let world = World::new();
    let followed = followed(&world);
    let twenty: Vec<&Reference> = followed.iter().cycle().take(20).collect();
    // What one of them costs: what the server offers, a listing, a fetch.
    look(&world, twenty[0], &[], Instant::now()).unwrap();
    assert_eq!(world.server.take_log().len(), 3);
    for reference in &followed {
        look(&world, reference, &[], Instant::now()).unwrap();
    }
    world.server.take_log();

    for first in [0, 5, 7] {
        let round = Instant::now();
        let mut answers = Vec::new();
        for at in 0..20 {
            let reference = twenty[(first + at) % 20];
            let looked = look(&world, reference, &followed, round).unwrap();
            assert_eq!(looked.listed, at == 0, "{reference}");
            answers.push((reference, looked.resolved.revision));
        }
        assert_eq!(world.server.take_log().len(), 1, "one request for all of them");
        for (reference, revision) in answers {
            assert_eq!(world.resolve(reference).unwrap(), revision, "{reference}");
        }
        world.server.take_log();
    }
}

#[test]
fn news_of_one_are_listed_once_and_fetched_once() {
    let world = World::new();
    let followed = followed(&world);
    for reference in &followed {
        look(&world, reference, &followed, Instant::now()).unwrap();
    }
    let next = world.repo.commit("refs/heads/next", &[("a.yaml", "4")]);
    world.server.take_log();
    let round = Instant::now();
    look(&world, &followed[0], &followed, round).unwrap();
    let listed = world.mirrors.listed(&world.remote(), &followed[1], round);
    assert_eq!(listed, Some(next), "it is known, and not here");
    let question = Question { reference: &followed[1], with_tag: false, others: &[], since: round };
    assert!(world.mirrors.known(&world.remote(), &question).is_none());
    for _ in 0..10 {
        let looked = look(&world, &followed[1], &followed, round).unwrap();
        assert_eq!(looked.resolved.revision.commit, next);
        assert!(!looked.listed);
    }
    let log = world.server.take_log();
    assert_eq!(log.iter().map(Request::is_fetch).collect::<Vec<_>>(), [false, true]);
    assert_eq!(world.read(&next, "a.yaml"), "4");

    // A push after the listing is seen by who asks after the push.
    let later = world.repo.commit("refs/heads/next", &[("a.yaml", "5")]);
    let looked = look(&world, &followed[1], &followed, Instant::now()).unwrap();
    assert_eq!(looked.resolved.revision.commit, later);

    // One that is gone on the server meanwhile is no reason to fail.
    let lost = world.repo.commit("refs/heads/next", &[("a.yaml", "6")]);
    let round = Instant::now();
    look(&world, &followed[0], &followed, round).unwrap();
    world.repo.point("refs/heads/next", &later);
    for args in [&["reflog", "expire", "--expire=now", "--all"][..], &["gc", "-q", "--prune=now"]] {
        world.repo.git(args);
    }
    let looked = look(&world, &followed[1], &followed, round).unwrap();
    assert_eq!(looked.resolved.revision.commit, later, "not {lost}");
}

#[test]
fn what_is_not_there_costs_its_own_look() {
    let world = World::new();
    let followed = followed(&world);
    let missing = branch("gone");
    let all = [followed.clone(), vec![missing.clone()]].concat();
    let round = Instant::now();
    look(&world, &followed[0], &all, round).unwrap();
    world.server.take_log();
    for asked in [2, 0, 0] {
        // A listing, and one more that says what there is.
        let error = look(&world, &missing, &all, round).unwrap_err();
        assert_eq!(error.hint().unwrap(), "it has the branches: main, next");
        assert_eq!(error.concerns(&world.remote().way().unwrap()), Concerns::Question);
        assert_eq!(world.server.take_log().len(), asked);
    }
}

#[test]
fn versions_are_listed_by_their_prefix_and_others_do_not_make_a_listing_too_long() {
    let mut world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    for i in 0..60 {
        for part in ["web", "api"] {
            let name = format!("refs/tags/{part}-1.{i}.0");
            world.repo.git(&["update-ref", &name, &first.to_string()]);
        }
    }
    let of = |pattern: &str| Reference::Semver { range: "*".into(), pattern: Some(pattern.into()) };
    let bytes = |world: &World| {
        let log = world.server.take_log();
        log.iter().map(|request| request.body.len() + request.answered).sum::<usize>()
    };
    let cost = |world: &World, reference: &Reference, others: &[Reference]| {
        look(world, reference, others, Instant::now()).unwrap();
        bytes(world)
    };
    cost(&world, &branch("main"), &[]);
    let one = cost(&world, &of("web-(.*)"), &[]);
    let all = cost(&world, &of("(?:web|api)-(.*)"), &[of("web-(.*)")]);
    assert!((one * 19 / 10..one * 21 / 10).contains(&all), "{one} and {all}");

    let limits = plumb_source::Limits { refs: 70, ..plumb_source::Limits::default() };
    let cache = world.dir.path().join("short");
    world.mirrors = plumb_source::Mirrors::open(&cache, limits).unwrap();
    let round = Instant::now();
    let main = branch("main");
    look(&world, &main, &[of("web-(.*)"), of("api-(.*)")], round).unwrap();
    assert_eq!(world.server.take_log().len(), 4, "offers, both listings, a fetch");
    let question =
        Question { reference: &of("web-(.*)"), with_tag: false, others: &[], since: round };
    assert!(world.mirrors.known(&world.remote(), &question).is_none());
}

#[test]
fn whom_an_error_is_about() {
    let world = World::new();
    world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let root = world.dir.path().join("git");
    let concerns = |url: &str, millis: u64| {
        let mut remote = remote(url);
        remote.timeout = std::time::Duration::from_millis(millis);
        let asked = world.mirrors.resolve(&remote, &branch("nope"), &Cancel::new());
        asked.unwrap_err().concerns(&remote.way().unwrap())
    };
    assert_eq!(concerns("http://127.0.0.1:1/a.git", 20_000), Concerns::Host);
    let silent = Server::with(|_| Reply::Stall(crate::server::ADVERTISEMENT, Vec::new()));
    assert_eq!(concerns(&silent.url("a.git"), 300), Concerns::Silence);
    // Somebody else's host is not this one.
    let elsewhere = Server::with(|request| {
        let to = format!("http://127.0.0.1:1/a.git/info/refs?{}", request.query);
        Reply::Whole(302, vec![("location".into(), to)], Vec::new())
    });
    assert_eq!(concerns(&elsewhere.url("a.git"), 20_000), Concerns::Repository);
    let refused = Server::with(|_| Reply::status(401));
    assert_eq!(concerns(&refused.url("a.git"), 20_000), Concerns::Repository);
    let here = Server::with(move |request| backend(&root, request));
    assert_eq!(concerns(&here.url("app.git"), 20_000), Concerns::Question);
}

#[test]
fn a_server_that_asks_to_wait_says_until_when() {
    for (status, value, waits) in [
        (429, Some("90"), true),
        (503, Some("90"), true),
        (503, Some("Fri, 27 Nov 2099 10:07:00 GMT"), true),
        (503, Some("soon"), false),
        (429, None, false),
        (403, Some("90"), true),
        (403, None, false),
        (500, Some("90"), false),
    ] {
        let before = jiff::Timestamp::now();
        let headers: Vec<_> =
            value.iter().map(|value| ("retry-after".into(), (*value).into())).collect();
        let server =
            Server::with(move |_| Reply::Whole(status, headers.clone(), b"slow down".to_vec()));
        let world = World::new();
        let remote = remote(&server.url("a.git"));
        let error = world.mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap_err();
        assert_eq!(server.take_log().len(), 1, "nothing is asked twice");
        assert_eq!(error.class() == plumb_core::ErrorClass::Retry, waits || status != 403);
        let Concerns::Pause { until, all: true } = error.concerns(&remote.way().unwrap()) else {
            let reason = if status == 403 { "AuthenticationFailed" } else { "ServerError" };
            assert!(!waits && error.reason() == reason, "{status} {value:?}: {error:?}");
            continue;
        };
        assert!(waits && error.reason() == "ServerBusy", "{status} {value:?}: {error:?}");
        assert!(
            until > before && until <= jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)
        );
        assert!(error.to_string().contains(&format!("asks to wait until {until}")), "{error}");
        // Who is logged in is counted alone.
        let credentials = Credentials::Bearer { token: "token-of-somebody".into() };
        let remote = Remote { credentials, ..remote };
        let error = world.mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap_err();
        let concerns = error.concerns(&remote.way().unwrap());
        assert!(matches!(concerns, Concerns::Pause { all, .. } if all == (status == 503)));
    }
}
