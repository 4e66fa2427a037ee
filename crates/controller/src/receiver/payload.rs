//! What a hook tells: which repository has news, and of which refs. Nothing else of it is read.

use std::collections::BTreeSet;

use http::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Service;
use super::address::Address;

/// A push of more refs than this is as good as one of all.
const MOST_REFS: usize = 256;

/// What a hook says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// That it is there: a test of the connection.
    Ping,
    /// Something that moves no ref.
    Ignored,
    /// That a repository has news.
    News(News),
}

/// Which repository may have changed, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// All names that the service has for the repository.
    pub places: Vec<Place>,
    /// What moved.
    pub refs: Refs,
}

/// One name of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A URL of it.
    At(Address),
    /// The end of its path, where a service tells no URL.
    Ending(String),
}

/// The refs that a hook names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refs {
    /// It may be any.
    Any,
    /// These, by their full names.
    These(BTreeSet<String>),
}

impl News {
    /// Whether the repository is the one at this address.
    pub fn is_of(&self, address: &Address) -> bool {
        self.places.iter().any(|place| match place {
            Place::At(place) => place == address,
            Place::Ending(end) => address.ends_with(end),
        })
    }
}

/// Why a hook cannot be read. The body is quoted nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not what the service's documentation says.
    #[error("the body is not the JSON that this event has")]
    Body,
    /// It names nothing that could be looked for.
    #[error("the body names no repository")]
    NoRepository,
    /// The event itself is missing.
    #[error("no header names the event")]
    NoEvent,
}

/// Reads a hook whose signature holds.
pub fn read(service: Service, headers: &HeaderMap, body: &[u8]) -> Result<Said, Unreadable> {
    let event = |names: &[&str]| {
        let value = names.iter().find_map(|name| headers.get(*name));
        value.and_then(|value| value.to_str().ok()).ok_or(Unreadable::NoEvent)
    };
    match service {
        Service::GitHub => read_github(event(&["x-github-event"])?, body),
        Service::Gitea => {
            read_github(event(&["x-forgejo-event", "x-gitea-event", "x-github-event"])?, body)
        }
        Service::GitLab => read_gitlab(body),
        Service::Bitbucket => read_bitbucket(event(&["x-event-key"])?, body),
        Service::Generic => read_generic(body),
    }
}

/// Whether a request is Bitbucket's test of the connection, which it does not sign.
pub fn is_unsigned_test(service: Service, headers: &HeaderMap) -> bool {
    service == Service::Bitbucket
        && headers.get("x-event-key").is_some_and(|event| event == BITBUCKET_TEST)
        && !headers.contains_key("x-hub-signature")
}

const BITBUCKET_TEST: &str = "diagnostics:ping";

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(body).map_err(|_| Unreadable::Body)
}

fn news(places: Vec<Place>, refs: Refs) -> Result<Said, Unreadable> {
    if places.is_empty() {
        return Err(Unreadable::NoRepository);
    }
    Ok(Said::News(News { places, refs }))
}

fn at<'u>(urls: impl IntoIterator<Item = &'u Option<String>>) -> Vec<Place> {
    let urls = urls.into_iter().filter_map(|url| url.as_deref());
    urls.filter_map(Address::parse).map(Place::At).collect()
}

fn these(names: impl IntoIterator<Item = String>) -> Refs {
    let names: BTreeSet<String> =
        names.into_iter().filter(|name| !name.is_empty()).take(MOST_REFS + 1).collect();
    if names.is_empty() || names.len() > MOST_REFS { Refs::Any } else { Refs::These(names) }
}

/// The full name of a branch or tag that may have it already.
fn full_name(kind: &str, name: &str) -> String {
    if name.starts_with("refs/") { name.to_owned() } else { format!("refs/{kind}/{name}") }
}

/// <https://docs.github.com/en/webhooks/webhook-events-and-payloads> and
/// <https://docs.gitea.com/usage/webhooks>, which has GitHub's form.
fn read_github(event: &str, body: &[u8]) -> Result<Said, Unreadable> {
    #[derive(Deserialize)]
    struct Hook {
        repository: Option<Repository>,
        #[serde(rename = "ref")]
        name: Option<String>,
        ref_type: Option<String>,
        number: Option<u64>,
    }
    #[derive(Deserialize)]
    #[expect(clippy::struct_field_names, reason = "the names are those of the body")]
    struct Repository {
        clone_url: Option<String>,
        ssh_url: Option<String>,
        git_url: Option<String>,
        html_url: Option<String>,
    }
    if event == "ping" {
        return Ok(Said::Ping);
    }
    if !matches!(event, "push" | "create" | "delete") && !event.starts_with("pull_request") {
        return Ok(Said::Ignored);
    }
    let hook: Hook = parse(body)?;
    let refs = match (event, hook.ref_type.as_deref()) {
        ("push", _) => these(hook.name),
        ("create" | "delete", Some("tag")) => these(hook.name.map(|name| full_name("tags", &name))),
        ("create" | "delete", Some("branch")) => {
            these(hook.name.map(|name| full_name("heads", &name)))
        }
        ("create" | "delete", _) => return Ok(Said::Ignored),
        _ => match hook.number {
            Some(number) => these(["head", "merge"].map(|end| format!("refs/pull/{number}/{end}"))),
            None => return Ok(Said::Ignored),
        },
    };
    let places = hook.repository.map_or_else(Vec::new, |repository| {
        let Repository { clone_url, ssh_url, git_url, html_url } = repository;
        at(&[clone_url, ssh_url, git_url, html_url])
    });
    news(places, refs)
}

/// <https://docs.gitlab.com/user/project/integrations/webhook_events/>, and
/// <https://docs.gitlab.com/administration/system_hooks/>, which name the event otherwise.
fn read_gitlab(body: &[u8]) -> Result<Said, Unreadable> {
    #[derive(Deserialize)]
    struct Hook {
        object_kind: Option<String>,
        event_name: Option<String>,
        #[serde(rename = "ref")]
        name: Option<String>,
        project: Option<Project>,
        object_attributes: Option<Attributes>,
    }
    #[derive(Deserialize)]
    #[expect(clippy::struct_field_names, reason = "the names are those of the body")]
    struct Project {
        git_http_url: Option<String>,
        git_ssh_url: Option<String>,
        web_url: Option<String>,
    }
    #[derive(Deserialize)]
    struct Attributes {
        iid: Option<u64>,
    }
    let hook: Hook = parse(body)?;
    let event = hook.object_kind.or(hook.event_name).ok_or(Unreadable::Body)?;
    let refs = match event.as_str() {
        "push" | "tag_push" => these(hook.name),
        // Of all that one push moved.
        "repository_update" => Refs::Any,
        "merge_request" => match hook.object_attributes.and_then(|attributes| attributes.iid) {
            Some(iid) => {
                these(["head", "merge"].map(|end| format!("refs/merge-requests/{iid}/{end}")))
            }
            None => return Ok(Said::Ignored),
        },
        _ => return Ok(Said::Ignored),
    };
    let places = hook.project.map_or_else(Vec::new, |project| {
        let Project { git_http_url, git_ssh_url, web_url } = project;
        at(&[git_http_url, git_ssh_url, web_url])
    });
    news(places, refs)
}

/// <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/> has `repo:push`, and
/// <https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html> the others.
fn read_bitbucket(event: &str, body: &[u8]) -> Result<Said, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Hook {
        repository: Option<Repository>,
        push: Option<Push>,
        #[serde(default)]
        changes: Vec<Change>,
        pull_request: Option<PullRequest>,
    }
    #[derive(Deserialize)]
    struct Push {
        #[serde(default)]
        changes: Vec<Move>,
    }
    /// Bitbucket Cloud's; one of both is missing for what was created or deleted.
    #[derive(Deserialize)]
    struct Move {
        new: Option<Named>,
        old: Option<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "type")]
        kind: String,
        name: String,
    }
    /// Bitbucket Data Center's.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Change {
        ref_id: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct PullRequest {
        id: u64,
        to_ref: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        repository: Option<Repository>,
    }
    match event {
        BITBUCKET_TEST => return Ok(Said::Ping),
        "repo:push" | "repo:refs_changed" | "pr:opened" | "pr:from_ref_updated" | "pr:modified" => {
        }
        _ => return Ok(Said::Ignored),
    }
    let hook: Hook = parse(body)?;
    let (repository, refs) = if let Some(pull_request) = hook.pull_request {
        let id = pull_request.id;
        let refs = ["from", "merge"].map(|end| format!("refs/pull-requests/{id}/{end}"));
        (pull_request.to_ref.and_then(|target| target.repository), these(refs))
    } else if let Some(push) = hook.push {
        let moved = push.changes.into_iter().flat_map(|change| [change.new, change.old]).flatten();
        let names = moved.map(|named| {
            full_name(if named.kind == "tag" { "tags" } else { "heads" }, &named.name)
        });
        (hook.repository, these(names))
    } else {
        let names = hook.changes.into_iter().filter_map(|change| change.ref_id);
        (hook.repository, these(names))
    };
    news(repository.map_or_else(Vec::new, Repository::places), refs)
}

/// A repository of Bitbucket.
#[derive(Deserialize)]
struct Repository {
    links: Option<Links>,
    slug: Option<String>,
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Links {
    html: Option<Link>,
    #[serde(default)]
    clone: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    href: Option<String>,
}

#[derive(Deserialize)]
struct Project {
    key: Option<String>,
}

impl Repository {
    fn places(self) -> Vec<Place> {
        let links = self.links.map_or_else(Vec::new, |links| {
            links.clone.into_iter().chain(links.html).map(|link| link.href).collect()
        });
        let mut places = at(&links);
        // Data Center's documentation shows no links; current versions send some. Without any there
        // are the last two parts of the path: https://host/scm/KEY/SLUG.git, ssh://host/KEY/SLUG.git.
        if places.is_empty()
            && let (Some(slug), Some(Project { key: Some(key) })) = (self.slug, self.project)
            && !slug.is_empty()
            && !key.is_empty()
        {
            places.push(Place::Ending(format!("{key}/{slug}")));
        }
        places
    }
}

/// Our own: `{"url": "https://git.example/org/repo.git", "ref": "refs/heads/main"}`. A short name may
/// be a branch or a tag; without one it may be anything.
fn read_generic(body: &[u8]) -> Result<Said, Unreadable> {
    #[derive(Deserialize)]
    struct Hook {
        url: Option<String>,
        #[serde(rename = "ref")]
        name: Option<String>,
    }
    let hook: Hook = parse(body)?;
    let refs = match hook.name {
        Some(name) => these(["heads", "tags"].map(|kind| full_name(kind, &name))),
        None => Refs::Any,
    };
    news(at(&[hook.url]), refs)
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
