//! What the API server was asked, read from its audit log.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// The audit log of a control plane, one JSON object a line.
#[derive(Debug, Clone)]
pub struct Audit {
    path: PathBuf,
}

/// A moment: how long the log was then, in bytes, and when it was. The line of a request that was
/// received before may be written after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    length: u64,
    time: Timestamp,
}

/// One line of the log. What a request does not have is an empty string: the group of a core
/// resource, the name of a LIST, the resource of discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// API group.
    pub group: String,
    /// Plural.
    pub resource: String,
    /// `status`, `scale`, `token` and so on.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Who asked, such as `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// Whom they acted as; empty when as themselves.
    pub impersonated: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// Path and query.
    pub uri: String,
    /// HTTP status.
    pub code: u16,
    /// When it arrived, as `2024-01-01T00:00:00.000000Z`.
    pub received: String,
    /// When it was answered; of a watch, when that began or ended.
    pub answered: String,
    /// The body of a patch, deletion or new Event by a service account, null for all others.
    pub body: Value,
    /// `ResponseComplete`; for a watch `ResponseStarted` and, once it has ended,
    /// `ResponseComplete` too.
    pub stage: String,
}

impl AuditEvent {
    /// Whether this line is the one to count its request by: the only one, or the first of two.
    pub fn counts(&self) -> bool {
        self.verb != "watch" || self.stage == "ResponseStarted"
    }

    /// `patch apps/deployments/status`, `list secrets`, or `get /readyz` without a resource.
    pub fn what(&self) -> String {
        if self.resource.is_empty() {
            let path = self.uri.split('?').next().unwrap_or_default();
            return format!("{} {path}", self.verb);
        }
        let mut text = format!("{} ", self.verb);
        for part in [&self.group, &self.resource, &self.subresource] {
            if !part.is_empty() {
                if !text.ends_with(' ') {
                    text.push('/');
                }
                text.push_str(part);
            }
        }
        text
    }
}

impl Audit {
    /// Reads that file, which may not exist yet.
    pub fn new(path: PathBuf) -> Audit {
        Audit { path }
    }

    /// The log file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Now. To leave out everything that was asked before, call
    /// [`ControlPlane::settled`](super::ControlPlane::settled) first.
    pub fn mark(&self) -> Mark {
        let length = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        // No finer than the log tells it.
        let time = Timestamp::from_microsecond(Timestamp::now().as_microsecond());
        Mark { length, time: time.expect("now is a timestamp") }
    }

    /// All lines about requests received since, in the order of writing. A line that is still being
    /// written is left for the next call.
    pub fn since(&self, mark: Mark) -> Vec<AuditEvent> {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(&self.path) {
            file.seek(SeekFrom::Start(mark.length)).expect("the log only grows");
            file.read_to_end(&mut text).expect("the log is readable");
        }
        let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        text[..complete]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .filter_map(parse)
            .filter(|event| event.received.parse().is_ok_and(|time: Timestamp| time >= mark.time))
            .collect()
    }

    /// As [`Audit::since`], each request once.
    pub fn requests(&self, mark: Mark) -> Requests {
        Requests(self.since(mark).into_iter().filter(AuditEvent::counts).collect())
    }
}

/// Requests, each once, with what tests ask of them.
#[derive(Debug, Clone, Default)]
pub struct Requests(Vec<AuditEvent>);

impl Requests {
    /// Those of one user.
    #[must_use]
    pub fn by(self, user: &str) -> Requests {
        self.only(|event| event.user == user)
    }

    /// Those about one namespace.
    #[must_use]
    pub fn within(self, namespace: &str) -> Requests {
        self.only(|event| event.namespace == namespace)
    }

    /// Those that may change something.
    #[must_use]
    pub fn writes(self) -> Requests {
        self.only(|event| !matches!(event.verb.as_str(), "get" | "list" | "watch"))
    }

    /// Those that hold.
    #[must_use]
    pub fn only(mut self, holds: impl FnMut(&AuditEvent) -> bool) -> Requests {
        self.0.retain(holds);
        self
    }

    /// How many of each, by [`AuditEvent::what`].
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for event in &self.0 {
            *counts.entry(event.what()).or_default() += 1;
        }
        counts
    }

    /// How many of one kind: `requests.count("patch apps/deployments")`.
    pub fn count(&self, what: &str) -> usize {
        self.0.iter().filter(|event| event.what() == what).count()
    }

    /// The counts as lines of text, for messages.
    pub fn table(&self) -> String {
        let lines: Vec<String> =
            self.counts().iter().map(|(what, count)| format!("{count:6}  {what}")).collect();
        lines.join("\n")
    }
}

impl Deref for Requests {
    type Target = [AuditEvent];

    fn deref(&self) -> &[AuditEvent] {
        &self.0
    }
}

fn parse(line: &[u8]) -> Option<AuditEvent> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let object = line.object_ref.unwrap_or_default();
    Some(AuditEvent {
        verb: line.verb,
        group: object.api_group,
        resource: object.resource,
        subresource: object.subresource,
        namespace: object.namespace,
        name: object.name,
        user: line.user.username,
        impersonated: line.impersonated_user.map(|user| user.username).unwrap_or_default(),
        user_agent: line.user_agent,
        uri: line.request_uri,
        code: line.response_status.map_or(0, |status| status.code),
        received: line.request_received_timestamp,
        answered: line.stage_timestamp,
        body: line.request_object,
        stage: line.stage,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
    #[serde(default)]
    request_received_timestamp: String,
    #[serde(default)]
    stage_timestamp: String,
    #[serde(default)]
    request_object: Value,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    fn line(verb: &str, stage: &str, object: &str) -> String {
        line_at(Timestamp::now(), verb, stage, object)
    }

    fn line_at(received: Timestamp, verb: &str, stage: &str, object: &str) -> String {
        format!(
            r#"{{"kind":"Event","level":"Metadata","stage":"{stage}","requestURI":"/a?b=1","verb":"{verb}","user":{{"username":"me","groups":["g"]}},"userAgent":"plumb/1","objectRef":{object},"responseStatus":{{"metadata":{{}},"code":200}},"requestReceivedTimestamp":"{received:.6}"}}"#
        )
    }

    #[test]
    fn a_line_that_is_written_late_is_from_before_the_mark() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let audit = Audit::new(file.path().to_owned());
        let before = Timestamp::now() - Duration::from_millis(1);
        let mark = audit.mark();
        writeln!(file, "{}", line_at(before, "create", "ResponseComplete", "null")).unwrap();
        writeln!(file, "{}", line("patch", "ResponseComplete", "null")).unwrap();
        let verbs: Vec<_> = audit.since(mark).into_iter().map(|event| event.verb).collect();
        assert_eq!(verbs, ["patch"]);
    }

    #[test]
    fn a_watch_counts_once_and_half_a_line_not_at_all() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let audit = Audit::new(file.path().to_owned());
        writeln!(file, "{}", line("get", "ResponseComplete", "null")).unwrap();
        let mark = audit.mark();
        assert!(audit.since(mark).is_empty());

        let secrets = r#"{"resource":"secrets","namespace":"n","apiVersion":"v1"}"#;
        let status =
            r#"{"apiGroup":"apps","resource":"deployments","subresource":"status","name":"d"}"#;
        for (verb, stage, object) in [
            ("watch", "ResponseStarted", secrets),
            ("watch", "ResponseComplete", secrets),
            ("patch", "ResponseComplete", status),
            ("get", "ResponseComplete", "null"),
        ] {
            writeln!(file, "{}", line(verb, stage, object)).unwrap();
        }
        let half = line("list", "ResponseComplete", secrets);
        write!(file, "{}", &half[..40]).unwrap();

        assert_eq!(audit.since(mark).len(), 4);
        let requests = audit.requests(mark);
        assert_eq!(
            requests.counts().into_iter().collect::<Vec<_>>(),
            [
                ("get /a".to_owned(), 1),
                ("patch apps/deployments/status".to_owned(), 1),
                ("watch secrets".to_owned(), 1),
            ]
        );
        assert_eq!(requests.clone().writes().len(), 1);
        assert_eq!(requests.clone().within("n").len(), 1);
        assert_eq!(requests.clone().by("nobody").len(), 0);
        assert_eq!((requests[0].code, requests[0].user.as_str()), (200, "me"));

        writeln!(file, "{}", &half[40..]).unwrap();
        assert_eq!(audit.requests(mark).count("list secrets"), 1);
    }
}
