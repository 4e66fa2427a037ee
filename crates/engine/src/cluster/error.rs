//! What can go wrong between us and the API server, told without ever quoting an answer's body.

use std::fmt;
use std::time::Duration;

use plumb_core::ErrorClass;
use serde::Deserialize;

/// Why a call to the API server did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// No complete answer came in time. Whether a write was carried out is not known.
    #[error("cannot {operation} {subject}: no answer within {} s", after.as_secs_f32())]
    Timeout {
        /// What was tried, a verb.
        operation: &'static str,
        /// On what.
        subject: String,
        /// How long was waited, tries included.
        after: Duration,
    },
    /// The connection failed. Whether a write was carried out is not known.
    #[error("cannot {operation} {subject}: the connection to the API server failed")]
    Transport {
        /// What was tried, a verb.
        operation: &'static str,
        /// On what.
        subject: String,
        /// The client's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer was not what the API promises. The answer itself is never part of this error.
    #[error("cannot {operation} {subject}: the API server's answer cannot be read: {what}")]
    Decode {
        /// What was tried, a verb.
        operation: &'static str,
        /// On what.
        subject: String,
        /// What is wrong, and where, in words of our own.
        what: String,
    },
    /// The answer is larger than a reader takes.
    #[error("cannot {operation} {subject}: the answer has more than {limit} bytes")]
    TooLarge {
        /// What was tried, a verb.
        operation: &'static str,
        /// On what.
        subject: String,
        /// The limit.
        limit: usize,
    },
    /// The write gate was shut, so nothing was sent.
    #[error("did not {operation} {subject}: this process does not lead")]
    NotLeading {
        /// What was to be done, a verb.
        operation: &'static str,
        /// On what.
        subject: String,
    },
    /// Somebody else has it, and it is left alone.
    #[error("{subject} exists already{}", owner.as_ref().map_or(String::new(), |owner| format!(", and belongs to {owner}")))]
    NotOurs {
        /// The object.
        subject: String,
        /// Who has it, if its marks say so.
        owner: Option<String>,
        /// The fields that they own and that were to be applied, where these are in the way.
        fields: Vec<String>,
    },
    /// No request can be made for it, so nothing was sent.
    #[error("cannot {operation} {subject}: {what}")]
    Unaddressable {
        /// What was to be done, a verb.
        operation: &'static str,
        /// On what.
        subject: String,
        /// What is wrong.
        what: String,
    },
}

/// An error answer of the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was tried, a verb.
    pub operation: &'static str,
    /// On what.
    pub subject: String,
    /// The HTTP status.
    pub code: u16,
    /// The server's reason in one word, as in `NotFound`; empty when it gave none.
    pub reason: String,
    /// The server's message; for Secrets without anything that could be content.
    pub message: String,
    /// What the message is made of, field by field.
    pub causes: Vec<Cause>,
    /// What the answer is about: plural and name, empty when not told.
    pub about: (String, String),
    /// When the server wants to be asked again.
    pub retry_after: Option<Duration>,
    /// What is to be done about it.
    pub class: ErrorClass,
    /// Whether the server itself, and not a webhook, has too much to do.
    pub busy: bool,
}

/// One cause of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Cause {
    /// In one word, as in `FieldManagerConflict`.
    #[serde(default)]
    pub reason: String,
    /// The field, as in `.spec.replicas`.
    #[serde(default)]
    pub field: String,
    /// In words.
    #[serde(default)]
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.subject, self.message)
    }
}

impl ApiError {
    /// The server's answer, if it was one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What is to be done about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Refused(refusal) => refusal.class,
            // An answer that cannot be read comes from something between us and the server.
            Self::Timeout { .. }
            | Self::Transport { .. }
            | Self::Decode { .. }
            | Self::NotLeading { .. } => ErrorClass::Retry,
            Self::TooLarge { .. } | Self::Unaddressable { .. } | Self::NotOurs { .. } => {
                ErrorClass::WaitForUser
            }
        }
    }

    fn refused(&self, test: impl FnOnce(&Refusal) -> bool) -> bool {
        self.refusal().is_some_and(test)
    }

    fn has_cause(&self, reason: &str) -> bool {
        self.refused(|refusal| refusal.has_cause(reason))
    }

    /// HTTP 404: the object, its namespace or its kind is not there.
    pub fn is_not_found(&self) -> bool {
        self.refused(|refusal| refusal.code == 404)
    }

    /// HTTP 404 that names the namespace instead of the object.
    pub fn is_namespace_missing(&self) -> bool {
        self.refused(|refusal| {
            // For a Namespace itself it is the object.
            refusal.code == 404
                && refusal.about.0 == "namespaces"
                && !refusal.subject.starts_with("Namespace ")
        })
    }

    /// HTTP 404 that names no object at all: the server does not serve the kind.
    pub fn is_kind_missing(&self) -> bool {
        self.refused(|refusal| refusal.code == 404 && refusal.about.1.is_empty())
    }

    /// HTTP 409 for whatever reason but that the object exists already.
    pub fn is_conflict(&self) -> bool {
        self.refused(|refusal| refusal.code == 409 && refusal.reason != "AlreadyExists")
    }

    /// HTTP 409 because an object of that name exists.
    pub fn is_already_exists(&self) -> bool {
        self.refused(|refusal| refusal.code == 409 && refusal.reason == "AlreadyExists")
    }

    /// HTTP 409 because other field managers own what was applied; see [`Self::conflicts`]. Without
    /// it a conflict means that the object changed since it was read.
    pub fn is_ownership_conflict(&self) -> bool {
        self.is_conflict() && self.has_cause(CONFLICT)
    }

    /// HTTP 403.
    pub fn is_forbidden(&self) -> bool {
        self.refused(|refusal| refusal.code == 403)
    }

    /// HTTP 403 because the authorizer lets this user not do this.
    pub fn is_refused_to(&self, user: &str) -> bool {
        self.is_forbidden()
            && self.refused(|refusal| refusal.has_word(&format!("User {user:?} cannot ")))
    }

    /// HTTP 403 by the authorizer: group, resource and namespace of what was refused.
    pub(crate) fn refused_resource(&self) -> Option<(&str, &str, &str)> {
        let refusal = self.refusal().filter(|refusal| refusal.code == 403)?;
        let (_, rest) = refusal.message.split_once(" cannot ")?;
        let quoted = |before: &str| {
            let (_, rest) = rest.split_once(before)?;
            rest.strip_prefix('"')?.split('"').next()
        };
        let namespace = quoted(" in the namespace ").unwrap_or_default();
        Some((quoted(" in API group ")?, quoted(" resource ")?, namespace))
    }

    /// HTTP 403 because we may not act as another user at all, whatever for.
    pub(crate) fn is_impersonation_refused(&self) -> bool {
        self.is_forbidden()
            && self.refused(|refusal| {
                refusal.has_word("\" cannot impersonate resource ")
                    || refusal.has_word("\" cannot impersonate:serviceaccount resource ")
            })
    }

    /// HTTP 403 because we may not do this as another user: the verb that is lacking.
    pub(crate) fn impersonated_verb(&self) -> Option<&str> {
        let refusal = self.refusal().filter(|refusal| refusal.code == 403)?;
        let (_, verb) = refusal.message.split_once("\" cannot impersonate-on:")?;
        let (verb, _) = verb.split_once(' ')?;
        let start = refusal.message.find("impersonate-on:")?;
        refusal.message.get(start..start + "impersonate-on:".len() + verb.len())
    }

    /// HTTP 403 because the namespace is being deleted.
    pub fn is_terminating_namespace(&self) -> bool {
        self.is_forbidden() && self.has_cause(TERMINATING)
    }

    /// HTTP 410: the resource version asked for is no longer kept.
    pub fn is_gone(&self) -> bool {
        self.refused(|refusal| refusal.code == 410)
    }

    /// HTTP 422: the object breaks the rules of its kind.
    pub fn is_invalid(&self) -> bool {
        self.refused(|refusal| refusal.code == 422)
    }

    /// HTTP 422 because the object of that name has another uid than the one that was meant.
    pub fn is_other_object(&self) -> bool {
        self.is_invalid()
            && self.refused(|r| r.causes.iter().any(|cause| cause.field == "metadata.uid"))
    }

    /// How long a busy server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal().filter(|refusal| refusal.code == 429)?.retry_after
    }

    /// HTTP 429.
    pub fn is_too_many_requests(&self) -> bool {
        self.refused(|refusal| refusal.code == 429)
    }

    /// The fields that cannot be changed, when nothing else is wrong. How that is said differs from
    /// kind to kind.
    pub fn immutable_field(&self) -> Option<String> {
        let refusal = self.refusal().filter(|refusal| refusal.code == 422)?;
        let is_fixed = |cause: &Cause| IMMUTABLE.iter().any(|words| cause.message.contains(words));
        let mut fields: Vec<&str> = refusal.causes.iter().map(|c| c.field.as_str()).collect();
        fields.dedup();
        let fixed = !fields.is_empty() && refusal.causes.iter().all(is_fixed);
        fixed.then(|| fields.join(", "))
    }

    /// HTTP 422: the field whose value another item of its list has already.
    pub fn duplicate_field(&self) -> Option<String> {
        let refusal = self.refusal().filter(|refusal| refusal.code == 422)?;
        let found = refusal.causes.iter().find(|cause| cause.reason == "FieldValueDuplicate");
        found.map(|cause| cause.field.clone())
    }

    /// HTTP 500 because a webhook for the kind, of admission or conversion, cannot be reached or did
    /// not answer.
    pub fn is_webhook_down(&self) -> bool {
        self.refused(|refusal| {
            refusal.code >= 500 && WEBHOOK_DOWN.iter().any(|words| refusal.has_word(words))
        })
    }

    /// An apply of a field that the schema does not have. It comes as HTTP 500, and for some
    /// seconds after a change of a CRD also for fields that it has.
    pub fn is_not_in_schema(&self) -> bool {
        self.refused(|refusal| {
            refusal.has_word("field not declared in schema")
                || refusal.has_word("strict decoding error: unknown field")
        })
    }

    /// An apply of an object of which something was written in a version that is not served any more.
    pub fn is_version_gone(&self) -> bool {
        self.refused(|refusal| {
            refusal.has_word("request to convert CR to an invalid group/version")
        })
    }

    /// The field that does not fit the schema of the kind, and what is wrong with it.
    pub fn schema_field(&self) -> Option<(String, String)> {
        let refusal = self.refusal()?;
        let (field, why) = refusal.typed_patch_field()?;
        let field = field.trim_start_matches('.');
        Some((field.to_owned(), format!("{field}: {why}")))
    }

    /// The field managers in the way of an apply and the field each owns, in the server's order.
    pub fn conflicts(&self) -> Vec<(String, String)> {
        let causes = self.refusal().map_or(&[][..], |refusal| &refusal.causes);
        causes
            .iter()
            .filter(|cause| cause.reason == CONFLICT)
            .map(|cause| (manager_in(&cause.message), cause.field.clone()))
            .collect()
    }
}

/// The reason of a cause that names another field manager.
const CONFLICT: &str = "FieldManagerConflict";
/// The reason of a cause that names a namespace on its way out.
const TERMINATING: &str = "NamespaceTerminating";
/// How the API server says that a field cannot be changed.
const IMMUTABLE: [&str; 6] = [
    "field is immutable",
    "may not change once set",
    "is immutable after creation",
    "updates to parameters are forbidden",
    "updates to statefulset spec for fields other than",
    "cannot change roleRef",
];
/// What stands in messages about webhooks that do not answer.
const WEBHOOK_DOWN: [&str; 2] = ["failed calling webhook", "conversion webhook for"];
/// How the messages of schema errors in an apply begin.
const TYPED_PATCH: &str = "failed to create typed patch object (";
/// How the messages begin of an apply whose values do not fit the kind.
const CONVERT: &str = "failed to convert new object (";

impl Refusal {
    fn has_cause(&self, reason: &str) -> bool {
        self.causes.iter().any(|cause| cause.reason == reason)
    }

    fn has_word(&self, words: &str) -> bool {
        self.message.contains(words)
    }

    fn judge(&self) -> ErrorClass {
        match self.code {
            // Flaws of what was applied come as HTTP 500.
            500 if self.has_word(TYPED_PATCH) || self.has_word(CONVERT) => ErrorClass::WaitForUser,
            409 if self.has_cause(CONFLICT) => ErrorClass::WaitForUser,
            403 if self.has_cause(TERMINATING) => ErrorClass::Retry,
            408 | 409 | 410 | 429 | 500.. => ErrorClass::Retry,
            _ => ErrorClass::WaitForUser,
        }
    }

    /// Reads an error answer. What is not a Status, as from a proxy on the way, is told by its
    /// HTTP status alone.
    pub(super) fn read(
        operation: &'static str,
        subject: String,
        is_secret: bool,
        code: u16,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let status: Status = serde_json::from_slice(body).unwrap_or_default();
        let status = Status { code: Some(code), ..status };
        Self::new(operation, subject, is_secret, retry_after, status)
    }

    /// From a Status that came in an answer or in a watch.
    pub(super) fn new(
        operation: &'static str,
        subject: String,
        is_secret: bool,
        retry_after: Option<Duration>,
        status: Status,
    ) -> Self {
        let code = status.code.unwrap_or(500);
        let details = status.details.unwrap_or_default();
        let told =
            details.retry_after_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let mut refusal = Self {
            operation,
            subject,
            code,
            reason: status.reason.unwrap_or_default(),
            message: status.message.unwrap_or_default(),
            causes: details.causes.unwrap_or_default(),
            about: (details.kind.unwrap_or_default(), details.name.unwrap_or_default()),
            retry_after: retry_after.or(told),
            class: ErrorClass::Retry,
            busy: false,
        };
        // Before the words that tell are masked.
        refusal.class = refusal.judge();
        refusal.busy = code == 429 && !refusal.has_word("webhook");
        if refusal.message.is_empty() {
            let name = http::StatusCode::from_u16(code)
                .ok()
                .and_then(|code| code.canonical_reason())
                .unwrap_or("error");
            refusal.message = format!("the server answered HTTP {code} {name}");
        } else if is_secret {
            refusal.mask();
        }
        refusal
    }

    /// Takes out of the answer about a Secret whatever could be its content. Messages are kept
    /// only in shapes that are known to hold names alone; of all others the fields are told.
    fn mask(&mut self) {
        let ours = !["admission webhook", "denied request", "denied the request"]
            .iter()
            .any(|words| self.has_word(words));
        let names_only = match self.reason.as_str() {
            // The message of an ownership conflict lists managers and fields, that of a lost race
            // versions. What else is called a conflict comes from something on the way.
            "Conflict" => {
                self.has_cause(CONFLICT)
                    || ["Operation cannot be fulfilled on ", "Precondition failed: "]
                        .iter()
                        .any(|words| self.message.starts_with(words))
            }
            "NotFound"
            | "AlreadyExists"
            | "Unauthorized"
            | "TooManyRequests"
            | "Timeout"
            | "ServerTimeout"
            | "ServiceUnavailable"
            | "Expired"
            | "Gone"
            | "MethodNotAllowed"
            | "NotAcceptable"
            | "UnsupportedMediaType" => true,
            "Forbidden" => {
                self.has_cause(TERMINATING)
                    || self.has_word("cannot ")
                    || self.has_word("exceeded quota")
            }
            _ => false,
        };
        if ours && names_only {
            return;
        }
        let mut fields: Vec<String> = self
            .causes
            .iter()
            .map(|cause| cause.field.clone())
            .filter(|field| !field.is_empty())
            .collect();
        if fields.is_empty() {
            fields.extend(self.typed_patch_field().map(|(field, _)| field.to_owned()));
        }
        let known = [
            "illegal base64 data",
            "field not declared in schema",
            "field is immutable",
            "Required value",
            "Too long",
            "is not valid for type",
            "failed calling webhook",
            "context deadline exceeded",
        ];
        let mut parts = Vec::new();
        if !fields.is_empty() {
            parts.push(fields.join(", "));
        }
        let said: Vec<_> = known.into_iter().filter(|known| self.has_word(known)).collect();
        parts.extend(said.iter().map(ToString::to_string));
        let reason = if self.reason.is_empty() {
            format!("HTTP {}", self.code)
        } else {
            self.reason.clone()
        };
        let what =
            if parts.is_empty() { reason } else { format!("{reason}: {}", parts.join(": ")) };
        self.message =
            format!("{what} (the server's message is withheld, it could quote the Secret)");
        for cause in &mut self.causes {
            if cause.reason != CONFLICT && cause.reason != TERMINATING {
                let kept = known.into_iter().find(|known| cause.message.contains(known));
                cause.message = kept.unwrap_or_default().into();
            }
        }
    }

    /// The field named by a schema error of an apply, and the reason. The message is
    /// `failed to create typed patch object (NS/NAME; VERSION, Kind=KIND): .FIELD: REASON`.
    fn typed_patch_field(&self) -> Option<(&str, &str)> {
        let rest = self.message.strip_prefix(TYPED_PATCH)?;
        let (_, rest) = rest.split_once("): ")?;
        let (field, why) = rest.split_once(": ")?;
        let is_path = field.starts_with('.')
            && field.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-[]".contains(&byte));
        is_path.then_some((field, why))
    }
}

/// The manager in `conflict with "kubectl-edit" using v1`; the whole message when it reads
/// otherwise.
fn manager_in(message: &str) -> String {
    let quoted = || {
        let rest = message.strip_prefix("conflict with \"")?;
        let mut end = None;
        let mut escaped = false;
        for (at, c) in rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let name = &rest[..end?];
        // Go quotes like JSON but for characters that no manager's name has.
        Some(serde_json::from_str(&format!("\"{name}\"")).unwrap_or_else(|_| name.to_owned()))
    };
    quoted().unwrap_or_else(|| message.to_owned())
}

/// What serde says of a body, without the values that its own messages quote.
pub(super) fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = match error.classify() {
        serde_json::error::Category::Io => "it cannot be read",
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax => "it is not JSON",
        // This one names a field of our own types and nothing else.
        serde_json::error::Category::Data if text.starts_with("missing field `") => {
            text.split(" at line ").next().unwrap_or("a field is missing")
        }
        serde_json::error::Category::Data => "a value is not of the type that it should have",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// The error answer of the API server, as far as it is used.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Status {
    pub(super) code: Option<u16>,
    reason: Option<String>,
    message: Option<String>,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    name: Option<String>,
    kind: Option<String>,
    causes: Option<Vec<Cause>>,
    retry_after_seconds: Option<u64>,
}

#[cfg(test)]
mod tests;
