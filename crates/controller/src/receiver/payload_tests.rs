//! Bodies as each service documents them, down to the fields that say which repository and which ref;
//! the rest is kept where it could be mistaken for one of them.

use http::{HeaderName, HeaderValue};

use super::*;

fn said(
    service: Service,
    (header, event): (&'static str, &str),
    body: &str,
) -> Result<Said, Unreadable> {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(header), HeaderValue::from_str(event).unwrap());
    read(service, &headers, body.as_bytes())
}

/// That a hook names a repository by each of these URLs, by no other one, and these refs; `*` for any.
#[track_caller]
fn assert_news(said: Result<Said, Unreadable>, urls: &[&str], refs: &[&str]) {
    let Ok(Said::News(news)) = said else { panic!("{said:?}") };
    for url in urls {
        assert!(news.is_of(&Address::parse(url).unwrap()), "{url} is not in {news:?}");
    }
    let known: BTreeSet<Address> = urls.iter().filter_map(|url| Address::parse(url)).collect();
    for place in &news.places {
        let Place::At(address) = place else { continue };
        assert!(known.contains(address), "{address} is too much");
    }
    let want = match refs {
        ["*"] => Refs::Any,
        refs => Refs::These(refs.iter().map(ToString::to_string).collect()),
    };
    assert_eq!(news.refs, want);
}

/// <https://github.com/octokit/webhooks/tree/main/payload-examples/api.github.com/push>
const GITHUB_PUSH: &str = r#"{
  "ref": "refs/tags/simple-tag",
  "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
  "after": "0000000000000000000000000000000000000000",
  "created": false, "deleted": true, "forced": false, "base_ref": null,
  "compare": "https://github.com/Codertocat/Hello-World/compare/d70c5c6fa638^...000000000000",
  "commits": [], "head_commit": null,
  "repository": {
    "id": 186853002, "name": "Hello-World", "full_name": "Codertocat/Hello-World",
    "owner": {"name": "Codertocat", "html_url": "https://github.com/Codertocat"},
    "html_url": "https://github.com/Codertocat/Hello-World", "fork": false,
    "url": "https://github.com/Codertocat/Hello-World",
    "branches_url": "https://api.github.com/repos/Codertocat/Hello-World/branches{/branch}",
    "git_url": "git://github.com/Codertocat/Hello-World.git",
    "ssh_url": "git@github.com:Codertocat/Hello-World.git",
    "clone_url": "https://github.com/Codertocat/Hello-World.git",
    "svn_url": "https://github.com/Codertocat/Hello-World",
    "homepage": "https://github.com/somebody/else", "mirror_url": null,
    "default_branch": "master", "master_branch": "master"
  },
  "pusher": {"name": "Codertocat", "email": "21031067+Codertocat@users.noreply.github.com"},
  "sender": {"login": "Codertocat", "id": 21031067, "html_url": "https://github.com/Codertocat"}
}"#;

const HELLO_WORLD: [&str; 3] = [
    "https://github.com/codertocat/hello-world",
    "ssh://git@github.com/Codertocat/Hello-World.git",
    "git@github.com:Codertocat/Hello-World",
];

#[test]
fn github_tells_of_pushes_tags_and_pull_requests() {
    let github = |event, body: &str| said(Service::GitHub, ("x-github-event", event), body);
    assert_news(github("push", GITHUB_PUSH), &HELLO_WORLD, &["refs/tags/simple-tag"]);
    let branch = GITHUB_PUSH.replace("refs/tags/simple-tag", "refs/heads/feature/x");
    assert_news(github("push", &branch), &HELLO_WORLD, &["refs/heads/feature/x"]);
    // https://docs.github.com/en/webhooks/webhook-events-and-payloads#create: a short name.
    for event in ["create", "delete"] {
        for (kind, full) in [("tag", "refs/tags/simple-tag"), ("branch", "refs/heads/simple-tag")] {
            let named = format!(r#""ref": "simple-tag", "ref_type": "{kind}""#);
            let body = GITHUB_PUSH.replace(r#""ref": "refs/tags/simple-tag""#, &named);
            assert_news(github(event, &body), &HELLO_WORLD, &[full]);
        }
        let body = GITHUB_PUSH.replace(r#""ref": "refs/tags/simple-tag""#, r#""ref": null"#);
        assert_eq!(github(event, &body), Ok(Said::Ignored), "a repository");
    }
    // https://docs.github.com/en/webhooks/webhook-events-and-payloads#pull_request
    let pull = GITHUB_PUSH.replace(
        r#""ref": "refs/tags/simple-tag""#,
        r#""action": "synchronize", "number": 2, "pull_request": {"head": {"ref": "changes"}}"#,
    );
    let refs = ["refs/pull/2/head", "refs/pull/2/merge"];
    assert_news(github("pull_request", &pull), &HELLO_WORLD, &refs);
    // https://docs.github.com/en/webhooks/webhook-events-and-payloads#ping
    let ping = r#"{"zen": "Design for failure.", "hook_id": 1, "hook": {"type": "Repository"}}"#;
    assert_eq!(github("ping", ping), Ok(Said::Ping));
    for event in ["issues", "star", "workflow_run", "check_suite", ""] {
        assert_eq!(github(event, GITHUB_PUSH), Ok(Said::Ignored), "{event}");
    }
}

/// <https://docs.gitea.com/usage/webhooks#event-information>
const GITEA_PUSH: &str = r#"{
  "ref": "refs/heads/develop",
  "before": "28e1879d029cb852e4844d9c718537df08844e03",
  "after": "bffeb74224043ba2feb48d137756c8a9331c449a",
  "compare_url": "http://localhost:3000/gitea/webhooks/compare/28e1879d029cb852e4844d9c718537df08844e03...bffeb74224043ba2feb48d137756c8a9331c449a",
  "commits": [{
    "id": "bffeb74224043ba2feb48d137756c8a9331c449a", "message": "Webhooks Yay!",
    "url": "http://localhost:3000/gitea/webhooks/commit/bffeb74224043ba2feb48d137756c8a9331c449a",
    "author": {"name": "Gitea", "email": "someone@gitea.io", "username": "gitea"},
    "timestamp": "2017-03-13T13:52:11-04:00"
  }],
  "repository": {
    "id": 140, "name": "webhooks", "full_name": "gitea/webhooks",
    "owner": {"id": 1, "login": "gitea", "full_name": "Gitea"},
    "private": false, "fork": false,
    "html_url": "http://localhost:3000/gitea/webhooks",
    "ssh_url": "ssh://gitea@localhost:2222/gitea/webhooks.git",
    "clone_url": "http://localhost:3000/gitea/webhooks.git",
    "website": "", "default_branch": "master"
  },
  "pusher": {"id": 1, "login": "gitea"}, "sender": {"id": 1, "login": "gitea"}
}"#;

#[test]
fn gitea_and_forgejo_tell_it_in_githubs_form() {
    let urls =
        ["http://localhost:3000/gitea/webhooks", "ssh://git@localhost:2222/gitea/webhooks.git"];
    for header in ["x-gitea-event", "x-forgejo-event", "x-github-event"] {
        let gitea = |event, body: &str| said(Service::Gitea, (header, event), body);
        assert_news(gitea("push", GITEA_PUSH), &urls, &["refs/heads/develop"]);
        let tag = GITEA_PUSH
            .replace(r#""ref": "refs/heads/develop""#, r#""ref": "v1.0.0", "ref_type": "tag""#);
        assert_news(gitea("create", &tag), &urls, &["refs/tags/v1.0.0"]);
        assert_news(gitea("delete", &tag), &urls, &["refs/tags/v1.0.0"]);
        let pull = GITEA_PUSH
            .replace(r#""ref": "refs/heads/develop""#, r#""action": "synchronized", "number": 7"#);
        let refs = ["refs/pull/7/head", "refs/pull/7/merge"];
        assert_news(gitea("pull_request", &pull), &urls, &refs);
        assert_eq!(gitea("issues", GITEA_PUSH), Ok(Said::Ignored));
    }
}

/// <https://docs.gitlab.com/user/project/integrations/webhook_events/#push-events>
const GITLAB_PUSH: &str = r#"{
  "object_kind": "push", "event_name": "push",
  "before": "95790bf891e76fee5e1747ab589903a6a1f80f22",
  "after": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
  "ref": "refs/heads/master", "ref_protected": true,
  "checkout_sha": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
  "user_id": 4, "user_name": "John Smith", "project_id": 15,
  "project": {
    "id": 15, "name": "Diaspora", "description": "",
    "web_url": "http://example.com/mike/diaspora", "avatar_url": null,
    "git_ssh_url": "git@example.com:mike/diaspora.git",
    "git_http_url": "http://example.com/mike/diaspora.git",
    "namespace": "Mike", "visibility_level": 0, "path_with_namespace": "mike/diaspora",
    "default_branch": "master", "homepage": "http://example.com/mike/diaspora",
    "url": "git@example.com:mike/diaspora.git",
    "ssh_url": "git@example.com:mike/diaspora.git", "http_url": "http://example.com/mike/diaspora.git"
  },
  "commits": [{
    "id": "b6568db1bc1dcd7f8b4d5a946b0b91f9dacd7327",
    "url": "http://example.com/mike/diaspora/commit/b6568db1bc1dcd7f8b4d5a946b0b91f9dacd7327",
    "added": ["CHANGELOG"], "modified": ["app/controller/application.rb"], "removed": []
  }],
  "total_commits_count": 4
}"#;

#[test]
fn gitlab_tells_of_pushes_tags_and_merge_requests() {
    let gitlab = |body: &str| said(Service::GitLab, ("x-gitlab-event", "Push Hook"), body);
    let urls = ["https://example.com/mike/diaspora", "git@example.com:mike/diaspora.git"];
    assert_news(gitlab(GITLAB_PUSH), &urls, &["refs/heads/master"]);
    // https://docs.gitlab.com/user/project/integrations/webhook_events/#tag-events
    let tag = GITLAB_PUSH
        .replace(r#""push""#, r#""tag_push""#)
        .replace("refs/heads/master", "refs/tags/v1.0.0");
    assert_news(gitlab(&tag), &urls, &["refs/tags/v1.0.0"]);
    // https://docs.gitlab.com/user/project/integrations/webhook_events/#merge-request-events
    let merge = GITLAB_PUSH
        .replace(r#""object_kind": "push""#, r#""object_kind": "merge_request""#)
        .replace(r#""ref_protected": true"#, r#""object_attributes": {"id": 99, "iid": 1}"#);
    let refs = ["refs/merge-requests/1/head", "refs/merge-requests/1/merge"];
    assert_news(gitlab(&merge), &urls, &refs);
    // https://docs.gitlab.com/administration/system_hooks/ names the event in one field only.
    let system = GITLAB_PUSH.replace(r#""object_kind": "push", "#, "");
    assert_news(gitlab(&system), &urls, &["refs/heads/master"]);
    let update = system
        .replace(r#""event_name": "push""#, r#""event_name": "repository_update""#)
        .replace(r#""ref": "refs/heads/master""#, r#""refs": ["refs/heads/master"]"#);
    assert_news(gitlab(&update), &urls, &["*"]);
    for kind in ["issue", "note", "pipeline", "wiki_page", "release"] {
        let body =
            GITLAB_PUSH.replace(r#""object_kind": "push""#, &format!(r#""object_kind": "{kind}""#));
        assert_eq!(gitlab(&body), Ok(Said::Ignored), "{kind}");
    }
}

/// <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/#Push>
const BITBUCKET_CLOUD: &str = r#"{
  "actor": {"type": "user", "nickname": "emmap1"},
  "repository": {
    "type": "repository", "name": "repo_name", "full_name": "team_name/repo_name",
    "links": {
      "self": {"href": "https://api.bitbucket.org/2.0/repositories/bitbucket/bitbucket"},
      "html": {"href": "https://bitbucket.org/bitbucket/bitbucket"},
      "avatar": {"href": "https://api-staging-assetroot.s3.amazonaws.com/c/photos/2014/Aug/01/bitbucket-logo-2629490769-3_avatar.png"}
    },
    "uuid": "{673a6070-3421-46c9-9d48-90745f7bfe8e}", "scm": "git", "is_private": true
  },
  "push": {
    "changes": [{
      "new": {
        "type": "branch", "name": "name-of-branch",
        "target": {"type": "commit", "hash": "709d658dc5b6d6afcd46049c2f332ee3f515a67d"},
        "links": {"html": {"href": "https://bitbucket.org/user_name/repo_name/branch/master"}}
      },
      "old": {"type": "branch", "name": "name-of-branch"},
      "created": false, "forced": false, "closed": false, "truncated": false
    }]
  }
}"#;

/// <https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html#Eventpayload-Push>
const BITBUCKET_SERVER: &str = r#"{
  "eventKey": "repo:refs_changed", "date": "2017-09-19T09:45:32+1000",
  "actor": {"name": "admin", "id": 1, "slug": "admin", "type": "NORMAL"},
  "repository": {
    "slug": "repository", "id": 84, "name": "repository", "scmId": "git", "state": "AVAILABLE",
    "project": {"key": "PROJECT_1", "id": 84, "name": "Project 1", "public": false, "type": "NORMAL"},
    "public": false
  },
  "changes": [{
    "ref": {"id": "refs/heads/master", "displayId": "master", "type": "BRANCH"},
    "refId": "refs/heads/master",
    "fromHash": "ecddabb624f6f5ba43816f5926e580a5f680a932",
    "toHash": "178864a7d521b6f5e720b386b2c2b0ef8563e0dc", "type": "UPDATE"
  }]
}"#;

#[test]
fn bitbucket_cloud_tells_of_pushes() {
    let cloud = |event, body: &str| said(Service::Bitbucket, ("x-event-key", event), body);
    let urls =
        ["https://bitbucket.org/bitbucket/bitbucket.git", "git@bitbucket.org:bitbucket/bitbucket"];
    assert_news(cloud("repo:push", BITBUCKET_CLOUD), &urls, &["refs/heads/name-of-branch"]);
    // What is created or deleted has a null on one side.
    for side in ["new", "old"] {
        let mut body: serde_json::Value = serde_json::from_str(BITBUCKET_CLOUD).unwrap();
        body["push"]["changes"][0][side] = serde_json::Value::Null;
        let other = if side == "new" { "old" } else { "new" };
        body["push"]["changes"][0][other]["type"] = "tag".into();
        let told = cloud("repo:push", &body.to_string());
        assert_news(told, &urls, &["refs/tags/name-of-branch"]);
    }
    let mut body: serde_json::Value = serde_json::from_str(BITBUCKET_CLOUD).unwrap();
    body["push"]["changes"] = serde_json::json!([]);
    assert_news(cloud("repo:push", &body.to_string()), &urls, &["*"]);
    for event in ["repo:fork", "issue:created", "pullrequest:created"] {
        assert_eq!(cloud(event, BITBUCKET_CLOUD), Ok(Said::Ignored), "{event}");
    }
}

#[test]
fn bitbucket_data_center_tells_of_pushes_and_pull_requests() {
    let server = |event, body: &str| said(Service::Bitbucket, ("x-event-key", event), body);
    // Without links, as it is documented, the end of the path counts.
    let urls = [
        "https://bitbucket.example/scm/project_1/repository.git",
        "ssh://git@bitbucket.example:7999/PROJECT_1/repository.git",
    ];
    assert_news(server("repo:refs_changed", BITBUCKET_SERVER), &urls, &["refs/heads/master"]);
    // With links, as 6.5 and later send them, only those URLs do.
    let links = r#""public": false, "links": {"clone": [
        {"href": "https://bitbucket.example/scm/project_1/repository.git", "name": "http"},
        {"href": "ssh://git@bitbucket.example:7999/project_1/repository.git", "name": "ssh"}],
        "self": [{"href": "https://bitbucket.example/projects/PROJECT_1/repos/repository/browse"}]}
      },
      "changes""#;
    let end = BITBUCKET_SERVER.rfind(r#""public": false"#).unwrap();
    let changes = BITBUCKET_SERVER.find(r#""changes""#).unwrap();
    let rest = &BITBUCKET_SERVER[changes + r#""changes""#.len()..];
    let linked = format!("{}{links}{rest}", &BITBUCKET_SERVER[..end]);
    assert_news(server("repo:refs_changed", &linked), &urls, &["refs/heads/master"]);
    let Ok(Said::News(news)) = server("repo:refs_changed", &linked) else { panic!("{linked}") };
    let other = Address::parse("https://other.example/scm/project_1/repository.git").unwrap();
    assert!(!news.is_of(&other));
    // https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html#Eventpayload-Opened
    let mut body: serde_json::Value = serde_json::from_str(BITBUCKET_SERVER).unwrap();
    let repository = body["repository"].take();
    let pull = serde_json::json!({
        "eventKey": "pr:opened",
        "pullRequest": {
            "id": 1, "version": 0, "title": "a new file added",
            "fromRef": {"id": "refs/heads/a-branch", "repository": {"slug": "fork"}},
            "toRef": {"id": "refs/heads/master", "repository": repository},
        },
    });
    let refs = ["refs/pull-requests/1/from", "refs/pull-requests/1/merge"];
    for event in ["pr:opened", "pr:from_ref_updated", "pr:modified"] {
        assert_news(server(event, &pull.to_string()), &urls, &refs);
    }
    for event in ["pr:merged", "pr:comment:added", "repo:forked", "mirror:repo_synchronized"] {
        assert_eq!(server(event, &pull.to_string()), Ok(Said::Ignored), "{event}");
    }
    assert_eq!(server("diagnostics:ping", r#"{"test": true}"#), Ok(Said::Ping));
}

#[test]
fn only_bitbuckets_test_may_come_without_a_signature() {
    let headers = |names: &[(&'static str, &'static str)]| {
        let pairs = names
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect::<HeaderMap>()
    };
    let test = ("x-event-key", "diagnostics:ping");
    assert!(is_unsigned_test(Service::Bitbucket, &headers(&[test])));
    assert!(!is_unsigned_test(Service::GitHub, &headers(&[test])));
    let signed = headers(&[test, ("x-hub-signature", "sha256=0")]);
    assert!(!is_unsigned_test(Service::Bitbucket, &signed), "then it is to hold");
    let push = headers(&[("x-event-key", "repo:push")]);
    assert!(!is_unsigned_test(Service::Bitbucket, &push));
}

#[test]
fn a_generic_hook_names_a_url_and_may_name_a_ref() {
    let generic = |body: &str| said(Service::Generic, ("x-any", "x"), body);
    let url = "https://git.example/org/repo.git";
    let both = format!(r#"{{"url": "{url}", "ref": "refs/heads/main"}}"#);
    assert_news(generic(&both), &[url], &["refs/heads/main"]);
    let short = format!(r#"{{"url": "{url}", "ref": "v1"}}"#);
    assert_news(generic(&short), &[url], &["refs/heads/v1", "refs/tags/v1"]);
    for none in ["", r#", "ref": null"#] {
        assert_news(generic(&format!(r#"{{"url": "{url}"{none}}}"#)), &[url], &["*"]);
    }
    assert_news(generic(r#"{"url": "git@git.example:org/repo"}"#), &[url], &["*"]);
}

#[test]
fn what_cannot_be_read_is_refused_without_being_quoted() {
    let events = [
        (Service::GitHub, ("x-github-event", "push")),
        (Service::Gitea, ("x-gitea-event", "push")),
        (Service::GitLab, ("x-gitlab-event", "Push Hook")),
        (Service::Bitbucket, ("x-event-key", "repo:push")),
        (Service::Generic, ("x-any", "x")),
    ];
    for (service, event) in events {
        for body in ["", "null", "[]", "{", "hunter2", r#"{"ref": 1, "url": 1, "push": 1}"#] {
            assert_eq!(said(service, event, body), Err(Unreadable::Body), "{service:?} {body}");
        }
        let deep = format!("{}{}", r#"{"a":"#.repeat(100_000), "1");
        assert_eq!(said(service, event, &deep), Err(Unreadable::Body));
    }
    for (service, event, body) in [
        (Service::GitHub, ("x-github-event", "push"), r#"{"ref": "refs/heads/main"}"#),
        (Service::GitHub, ("x-github-event", "push"), r#"{"repository": {"clone_url": "x"}}"#),
        (Service::GitLab, ("x", "x"), r#"{"object_kind": "push", "project": {}}"#),
        (Service::Bitbucket, ("x-event-key", "repo:push"), r#"{"push": {"changes": []}}"#),
        (Service::Generic, ("x", "x"), r#"{"url": "file:///etc/passwd"}"#),
        (Service::Generic, ("x", "x"), r"{}"),
    ] {
        assert_eq!(said(service, event, body), Err(Unreadable::NoRepository), "{body}");
    }
    for service in [Service::GitHub, Service::Gitea, Service::Bitbucket] {
        assert_eq!(said(service, ("x-any", "push"), "{}"), Err(Unreadable::NoEvent));
    }
}

#[test]
fn a_push_of_very_many_refs_is_one_of_any() {
    let changes = |count: usize| {
        let changes: Vec<_> =
            (0..count).map(|n| serde_json::json!({"refId": format!("refs/tags/{n}")})).collect();
        let mut body: serde_json::Value = serde_json::from_str(BITBUCKET_SERVER).unwrap();
        body["changes"] = changes.into();
        said(Service::Bitbucket, ("x-event-key", "repo:refs_changed"), &body.to_string())
    };
    let refs = |count| match changes(count) {
        Ok(Said::News(news)) => news.refs,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refs(MOST_REFS), Refs::These(names) if names.len() == MOST_REFS));
    assert_eq!(refs(MOST_REFS + 1), Refs::Any);
}
