use plumb_testkit::{Change, GitServer, Proxy, Scratch};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Git as a client, on a thread where it may wait for the server.
async fn git(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("git");
    command
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        // It would win over the option that a test gives.
        .env_remove("GIT_SSL_CAINFO");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn refs(dir: &Path, url: &str) -> Vec<(String, String)> {
    let output = git(dir, &["ls-remote", url]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(id, name)| (name.to_owned(), id.to_owned()))
        .collect()
}

#[tokio::test]
async fn a_scripted_repository_is_cloned_as_it_was_written() {
    let server = GitServer::start().await;
    let repo = server.repo("app");
    let scratch = Scratch::new("clone");
    assert_eq!(refs(scratch.path(), &server.url("app")).await, [], "an empty repository");

    let first = repo.commit(&[("a.yaml", Some("a: 1\n")), ("sub/b.yaml", Some("b"))], "First");
    let second = repo.commit_changes(
        &[
            Change::Delete("sub".into()),
            Change::Executable("run \"it\".sh".into(), b"#!/bin/sh\n".to_vec()),
            Change::Link("link".into(), "a.yaml".into()),
        ],
        "Second",
    );
    assert_ne!(first, second);
    let cloned = git(scratch.path(), &["clone", "--quiet", &server.url("app"), "copy"]).await;
    assert!(cloned.status.success(), "{}", String::from_utf8_lossy(&cloned.stderr));
    let copy = scratch.path().join("copy");
    assert_eq!(std::fs::read_to_string(copy.join("a.yaml")).unwrap(), "a: 1\n");
    assert!(!copy.join("sub").exists());
    assert_eq!(std::fs::read_link(copy.join("link")).unwrap(), Path::new("a.yaml"));
    let listed = git(&copy, &["ls-tree", "-z", "HEAD"]).await;
    assert!(String::from_utf8_lossy(&listed.stdout).contains("100755 blob"));
    let history = git(&copy, &["log", "--format=%H %an %aI %s"]).await;
    let history = String::from_utf8(history.stdout).unwrap();
    assert_eq!(
        history.lines().collect::<Vec<_>>(),
        [
            format!("{second} Plumb Test 2024-01-01T00:00:01Z Second"),
            format!("{first} Plumb Test 2024-01-01T00:00:00Z First"),
        ]
        .map(|line| line.replace('Z', "+00:00"))
    );

    // The same script, the same ids.
    let again = server.repo("again");
    assert_eq!(
        again.commit(&[("a.yaml", Some("a: 1\n")), ("sub/b.yaml", Some("b"))], "First"),
        first
    );
    let requests = server.requests();
    let packs: Vec<_> =
        requests.iter().filter(|request| request.path == "/app.git/git-upload-pack").collect();
    assert!(packs.iter().any(|request| request.received > 200), "{packs:?}");
    assert!(requests.iter().all(|request| request.protocol == "version=2"), "{requests:?}");
    assert!(requests.iter().all(|request| request.status == Some(200)), "{requests:?}");
}

#[tokio::test]
async fn refs_move_as_told() {
    let server = GitServer::start().await;
    let repo = server.repo("app");
    let scratch = Scratch::new("refs");
    let url = server.url("app");
    let one = repo.commit(&[("a", Some("1"))], "One");
    let two = repo.commit(&[("a", Some("2")), ("b", Some("2"))], "Two");
    let amended = repo.amend(&[("b", Some("3"))], "Two, better");
    assert_ne!(amended, two);
    assert_eq!(repo.git(&["rev-parse", "HEAD^"]), one);
    assert_eq!(repo.git(&["show", "HEAD:a"]), "2");
    assert_eq!(repo.git(&["show", "HEAD:b"]), "3");

    let orphan = repo.on("pages").commit(&[("c", Some("1"))], "Alone");
    assert_eq!(repo.git(&["log", "--format=%P", "pages"]), "");
    repo.branch("stable", &one);
    repo.tag("v1.0.0", &one);
    let tag = repo.annotated_tag("v1.1.0", &amended, "Release");
    let mut want = vec![
        ("HEAD", &amended),
        ("refs/heads/main", &amended),
        ("refs/heads/pages", &orphan),
        ("refs/heads/stable", &one),
        ("refs/tags/v1.0.0", &one),
        ("refs/tags/v1.1.0", &tag),
        ("refs/tags/v1.1.0^{}", &amended),
    ];
    let owned = |want: &[(&str, &String)]| {
        want.iter().map(|(name, id)| ((*name).to_owned(), (*id).clone())).collect::<Vec<_>>()
    };
    assert_eq!(refs(scratch.path(), &url).await, owned(&want));

    repo.delete_branch("pages");
    repo.delete_tag("v1.0.0");
    repo.reset(&two);
    want.retain(|(name, _id)| !name.contains("pages") && !name.contains("v1.0.0"));
    want[0].1 = &two;
    want[1].1 = &two;
    assert_eq!(refs(scratch.path(), &url).await, owned(&want));

    repo.empty();
    assert_eq!(refs(scratch.path(), &url).await, []);
    server.remove("app");
    let gone = git(scratch.path(), &["ls-remote", &url]).await;
    assert!(String::from_utf8_lossy(&gone.stderr).contains("not found"), "{gone:?}");
}

#[tokio::test]
async fn a_password_is_asked_for() {
    let server = GitServer::start().await;
    let scratch = Scratch::new("auth");
    let head = server.repo("private").commit(&[("a", Some("1"))], "One");
    server.require("private", "bob", "s3cret");
    let url = server.url("private");
    let refused = git(scratch.path(), &["ls-remote", &url]).await;
    assert!(!refused.status.success());
    assert!(server.requests().iter().all(|request| request.status == Some(401)));
    let wrong = url.replace("http://", "http://bob:wrong@");
    assert!(!git(scratch.path(), &["ls-remote", &wrong]).await.status.success());
    let right = url.replace("http://", "http://bob:s3cret@");
    assert_eq!(refs(scratch.path(), &right).await[0].1, head);
    server.open_to_all("private");
    assert_eq!(refs(scratch.path(), &url).await[0].1, head);
}

#[tokio::test]
async fn a_server_is_down_stalls_and_comes_back() {
    let server = GitServer::start().await;
    let scratch = Scratch::new("down");
    let url = server.url("app");
    server.repo("app").commit(&[("a", Some("1"))], "One");
    server.stop().await;
    let refused = git(scratch.path(), &["ls-remote", &url]).await;
    let said = String::from_utf8_lossy(&refused.stderr).to_lowercase();
    assert!(said.contains("refused") || said.contains("failed to connect"), "{said}");
    server.restart().await;
    assert_eq!(refs(scratch.path(), &url).await.len(), 2);

    server.forget();
    server.stall(true);
    let listing = refs(scratch.path(), &url);
    tokio::pin!(listing);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut listing).await;
    assert!(early.is_err(), "answered while stalled: {early:?}");
    assert_eq!(server.requests().len(), 1);
    assert_eq!(server.requests()[0].status, None);
    server.stall(false);
    assert_eq!(listing.await.len(), 2);
}

#[tokio::test]
async fn https_is_for_those_who_trust_it() {
    let server = GitServer::start_tls().await;
    let scratch = Scratch::new("tls");
    let head = server.repo("app").commit(&[("a", Some("1"))], "One");
    let url = server.url("app");
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    assert!(!git(scratch.path(), &["ls-remote", &url]).await.status.success());
    let trust = format!("http.sslCAInfo={}", server.ca().display());
    let listed = git(scratch.path(), &["-c", &trust, "ls-remote", &url]).await;
    let text = String::from_utf8_lossy(&listed.stdout);
    assert!(text.starts_with(&head), "{}", String::from_utf8_lossy(&listed.stderr));
}

#[tokio::test]
async fn git_goes_through_a_proxy() {
    let server = GitServer::start().await;
    let proxy = Proxy::to_http(&server.base(), 1).await;
    let scratch = Scratch::new("proxied");
    let head = server.repo("app").commit(&[("a", Some("1"))], "One");
    let url = proxy.through(&server.url("app"));
    assert_eq!(refs(scratch.path(), &url).await[0].1, head);
    let cloned = git(scratch.path(), &["clone", "--quiet", &url, "copy"]).await;
    assert!(cloned.status.success(), "{}", String::from_utf8_lossy(&cloned.stderr));
    assert_eq!(proxy.leaks(&head).len(), 2, "two listings tell the id");
}
