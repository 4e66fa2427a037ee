//! The API server, as the engine and the controller speak with it.
//!
//! Invariants: the answers to LIST, WATCH, apply, dry run, JSON patch and DELETE are asked as
//! metadata, so that no object's body travels back; no error, log line or panic holds any part of
//! an answer's body but the messages of the server, and those without what could be content where
//! they are about a Secret; every call ends in time; every write asks the gate first.

mod decode;
mod discovery;
mod error;
mod fields;
mod request;
mod resource;
#[cfg(test)]
pub(crate) mod script;
mod tools;
mod watch;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use plumb_core::{Gvk, ObjectKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Semaphore;

pub(crate) use fields::digest_of;

pub use decode::Metadata;
pub(crate) use decode::{Decode, live};
pub use discovery::Discovery;
pub use error::{ApiError, Cause, Refusal};
pub use resource::{Resource, Target};
pub use tools::Tool;
pub(crate) use watch::watch_by;
pub use watch::{WatchEvent, watch, watch_one, watch_one_version, watch_typed, watch_versions};

use crate::live::Live;
use decode::{Fingerprints, Ordered};
use request::{Answer, Call, OBJECT_LIMIT, PAGE_LIMIT, Query, Repeat, Selector, Subject};
use window::Doors;

/// Objects a page: what client-go asks for.
const PAGE_SIZE: u32 = 500;
/// Times that a list is begun anew because its pages expired under us.
const LIST_TRIES: u32 = 3;
/// Lists that run at once. After a restart every kind is listed; more at a time would only push
/// the API server into shedding load. Pages of half the size, two lists at once, take no less memory at the
/// peak of a restart.
const LISTS_AT_ONCE: usize = 4;

const APPLY_PATCH: &str = "application/apply-patch+yaml";
const JSON_PATCH: &str = "application/json-patch+json";
const JSON: &str = "application/json";

/// Says whether this process may write.
pub trait WriteGate: Send + Sync {
    /// Asked immediately before each request that is not a GET. `needs` is how long the write may
    /// take at most. When it answers no, nothing is sent.
    fn admit(&self, needs: Duration) -> bool;
}

/// Is told of every answer, for metrics.
pub trait Observer: Send + Sync {
    /// A request was answered: what was done, a verb, and the HTTP status; 0 without an answer.
    fn answered(&self, operation: &'static str, code: u16);
}

/// How a [`Cluster`] behaves.
#[derive(Clone)]
pub struct ClusterOptions {
    /// How long one call may take, all its tries included. A page of a list is a call of its own.
    pub request_timeout: Duration,
    /// What to call ourselves, as in `plumb/0.1.0`.
    pub user_agent: Option<String>,
    /// Who is asked before each write; `None` admits all.
    pub gate: Option<Arc<dyn WriteGate>>,
    /// Who is told of each answer.
    pub observer: Option<Arc<dyn Observer>>,
    /// Seeds the jitter of watches and pauses, so that replicas and kinds do not move in step.
    pub seed: u64,
}

impl fmt::Debug for ClusterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterOptions")
            .field("request_timeout", &self.request_timeout)
            .field("user_agent", &self.user_agent)
            .field("gated", &self.gate.is_some())
            .finish_non_exhaustive()
    }
}

/// How an apply is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyHow {
    /// Whether fields are taken from other managers; otherwise they are a conflict.
    pub force: bool,
    /// Whether the server only says what would be.
    pub dry_run: bool,
}

/// Of which moment a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// Not older than the call.
    Now,
    /// Of some moment, from the server's cache.
    AtHand,
}

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// What a delete came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It was deleted.
    Gone,
    /// It is on its way: finalizers or a grace period hold it.
    Terminating,
    /// The object with that uid was not there any more.
    AlreadyGone,
}

struct Shared {
    options: ClusterOptions,
    lists: Semaphore,
    doors: Doors,
}

/// One API server under one identity. Clones are cheap and share connections.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    shared: Arc<Shared>,
    user: Option<Arc<str>>,
    gated: bool,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("options", &self.shared.options)
            .field("user", &self.user)
            .field("gated", &self.gated)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster behind a client, whose `Config` must have `default_retry` off: tries are made
    /// here, where they ask the gate and keep the deadline.
    pub fn new(client: kube::Client, options: ClusterOptions) -> Self {
        Self {
            client,
            shared: Arc::new(Shared {
                lists: Semaphore::new(LISTS_AT_ONCE),
                doors: Doors::new(options.seed),
                options,
            }),
            user: None,
            gated: true,
        }
    }

    /// The same cluster as another user, by impersonation; the server adds the user's groups.
    #[must_use]
    pub fn as_user(&self, user: &str) -> Self {
        Self { user: Some(user.into()), ..self.clone() }
    }

    /// The same cluster without the gate, for the writes that decide who leads. They do not wait behind
    /// others either.
    #[must_use]
    pub fn ungated(&self) -> Self {
        Self { gated: false, ..self.clone() }
    }

    fn may_write(&self, needs: Duration) -> bool {
        match &self.shared.options.gate {
            Some(gate) if self.gated => gate.admit(needs),
            _ => true,
        }
    }

    /// Server-side apply of a full object. Unknown fields are errors.
    pub async fn apply(
        &self,
        to: &Target<'_>,
        body: &serde_json::Value,
        manager: &str,
        how: ApplyHow,
    ) -> Result<Live, ApiError> {
        let operation = if how.dry_run { "dry-run" } else { "apply" };
        self.server_side_apply(operation, to, "", body, manager, how).await
    }

    /// Server-side apply of an object's status.
    pub async fn apply_status(
        &self,
        to: &Target<'_>,
        body: &serde_json::Value,
        manager: &str,
        how: ApplyHow,
    ) -> Result<Live, ApiError> {
        self.server_side_apply(STATUS, to, "status", body, manager, how).await
    }

    async fn server_side_apply(
        &self,
        operation: &'static str,
        to: &Target<'_>,
        subresource: &str,
        body: &serde_json::Value,
        manager: &str,
        how: ApplyHow,
    ) -> Result<Live, ApiError> {
        let mut query = Query::default()
            .with("fieldManager", manager)
            .with("fieldValidation", "Strict")
            .with("force", if how.force { "true" } else { "false" });
        if how.dry_run {
            query = query.with("dryRun", "All");
        }
        let body = (APPLY_PATCH, request::json_for_yaml(body));
        self.patch(operation, to, subresource, query, body, Repeat::Safe).await
    }

    /// A JSON patch. It is not repeated when the connection breaks: its tests would fail the
    /// second time.
    pub async fn json_patch(
        &self,
        to: &Target<'_>,
        patch: &serde_json::Value,
        manager: Option<&str>,
    ) -> Result<Live, ApiError> {
        let mut query = Query::default();
        if let Some(manager) = manager {
            query = query.with("fieldManager", manager);
        }
        let body = (JSON_PATCH, patch.to_string().into());
        self.patch("patch", to, "", query, body, Repeat::IfRefused).await
    }

    async fn patch(
        &self,
        operation: &'static str,
        to: &Target<'_>,
        subresource: &str,
        query: Query,
        body: (&'static str, Bytes),
        repeat: Repeat,
    ) -> Result<Live, ApiError> {
        let call = Call {
            method: Method::PATCH,
            query,
            body: Some(body),
            repeat,
            ..object(operation, to, subresource, Answer::Metadata)?
        };
        let answer = call.send(self).await?;
        decode::live(&answer).map_err(|what| call.undecodable(what))
    }

    /// An object's metadata; `None` when there is no such object. A kind that is not served is an
    /// error instead.
    pub async fn get_metadata(&self, to: &Target<'_>) -> Result<Option<Metadata>, ApiError> {
        let call = object("read", to, "", Answer::Metadata)?;
        match call.send(self).await {
            Ok(answer) => {
                decode::metadata(&answer).map(Some).map_err(|what| call.undecodable(what))
            }
            Err(error) if error.is_not_found() && !error.is_kind_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the object with that uid and, where given, exactly that resource version; another
    /// version is a conflict.
    pub async fn delete(
        &self,
        to: &Target<'_>,
        uid: &str,
        resource_version: Option<u64>,
        propagation: Propagation,
    ) -> Result<Deleted, ApiError> {
        let mut preconditions = json!({ "uid": uid });
        if let Some(version) = resource_version {
            preconditions["resourceVersion"] = version.to_string().into();
        }
        let body = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": propagation.as_str(),
        });
        let call = Call {
            method: Method::DELETE,
            body: Some((JSON, body.to_string().into())),
            ..object("delete", to, "", Answer::Metadata)?
        };
        let mut repeated = false;
        let answer = call.send_noting(self, &mut repeated).await;
        // What is not there after a second try was most likely deleted by the first.
        let absent = if repeated { Deleted::Gone } else { Deleted::AlreadyGone };
        match answer {
            Ok(answer) => match decode::is_terminating(&answer) {
                Ok(true) => Ok(Deleted::Terminating),
                Ok(false) => Ok(Deleted::Gone),
                Err(what) => Err(call.undecodable(what)),
            },
            Err(error) if error.is_not_found() && !error.is_kind_missing() => Ok(absent),
            // It changed, or another object has taken its name. The message tells in words that
            // differ between releases, so the object itself is asked.
            Err(error) if error.is_conflict() => match self.get_metadata(to).await {
                Ok(None) => Ok(absent),
                Ok(Some(found)) if &*found.live.uid != uid => Ok(absent),
                Ok(Some(_)) | Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// All objects of a kind that a label selector matches, in one namespace or in all, with the
    /// resource version of the list. It is consistent: no resource version is asked for, so the
    /// answer is not older than the call. One object that cannot be read fails the list.
    pub async fn list(
        &self,
        resource: &Resource,
        selector: &str,
        namespace: Option<&str>,
    ) -> Result<(Vec<(ObjectKey, Live)>, String), ApiError> {
        let mut listed = self
            .pages(&Fingerprints, resource, &Selector::labels(selector), namespace, Freshness::Now)
            .await?;
        let items = listed.readable(resource, namespace)?;
        Ok((items, listed.resource_version))
    }

    /// The same, each with the annotation that says what it comes after.
    pub(crate) async fn list_in_order(
        &self,
        resource: &Resource,
        selector: &str,
    ) -> Result<Vec<(ObjectKey, (Live, Option<Box<str>>))>, ApiError> {
        let mut listed = self
            .pages(&Ordered, resource, &Selector::labels(selector), None, Freshness::Now)
            .await?;
        listed.readable(resource, None)
    }

    /// The objects of a kind that a label selector matches, as the server has them at hand: cheap for
    /// it, and perhaps not of this moment. Objects that cannot be read are left out.
    pub(crate) async fn glance(
        &self,
        resource: &Resource,
        selector: &str,
    ) -> Result<Vec<Live>, ApiError> {
        let page = self
            .pages(&Fingerprints, resource, &Selector::labels(selector), None, Freshness::AtHand)
            .await?;
        Ok(page.items.into_iter().map(|(_, live)| live).collect())
    }

    async fn pages<D: Decode>(
        &self,
        decoder: &D,
        resource: &Resource,
        selector: &Selector,
        namespace: Option<&str>,
        freshness: Freshness,
    ) -> Result<decode::Page<D::Item>, ApiError> {
        let subject = Subject::Collection(resource, namespace);
        // The semaphore is never closed; without a permit the list is merely not held back.
        let _permit = self.shared.lists.acquire().await.ok();
        let answer = if decoder.wants_metadata() { Answer::MetadataList } else { Answer::Whole };
        let mut size = PAGE_SIZE;
        let mut tries = 1;
        let mut all: Option<decode::Page<D::Item>> = None;
        loop {
            let mut query = Query::default().with("limit", &size.to_string());
            query = selector.narrow(query);
            if let Some(next) = all.as_ref().and_then(|all| all.next.as_deref()) {
                query = query.with("continue", next);
            } else if freshness == Freshness::AtHand {
                query = query.with("resourceVersion", "0");
            }
            let path = resource.path(namespace.unwrap_or_default(), "", "");
            let call =
                Call { query, limit: PAGE_LIMIT, ..Call::get("list", subject, path, answer) };
            let answer = match call.send(self).await {
                Ok(answer) => answer,
                Err(ApiError::TooLarge { .. }) if size > 1 => {
                    size = (size / 8).max(1);
                    continue;
                }
                // The snapshot that the pages belong to was compacted away.
                Err(error) if error.is_gone() && all.is_some() && tries < LIST_TRIES => {
                    tries += 1;
                    all = None;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let page =
                decode::page(decoder, resource, &answer).map_err(|what| call.undecodable(what))?;
            let all = match &mut all {
                Some(all) => {
                    all.items.extend(page.items);
                    all.unreadable.extend(page.unreadable);
                    all.resource_version = page.resource_version;
                    all.next = page.next;
                    all
                }
                None => all.insert(page),
            };
            if all.next.is_none() {
                break;
            }
        }
        // The loop is left with a page only.
        all.ok_or_else(|| ApiError::Decode {
            operation: "list",
            subject: subject.to_string(),
            what: "it has no page".into(),
        })
    }

    /// Whether this user may apply an object, as its own rules say.
    pub(crate) async fn may_patch(&self, to: &Target<'_>) -> Result<bool, ApiError> {
        let gvk = Gvk::new("authorization.k8s.io/v1", "SelfSubjectAccessReview");
        let reviews = Resource::known(gvk, "selfsubjectaccessreviews", false);
        let attributes = json!({
            "verb": "patch", "group": to.resource.gvk.group, "resource": to.resource.plural,
            "namespace": to.namespace, "name": to.name,
        });
        let review = json!({
            "apiVersion": reviews.gvk.api_version(), "kind": reviews.gvk.kind,
            "spec": {"resourceAttributes": attributes},
        });
        let answer: serde_json::Value = self.post_json(&reviews, "", &review).await?;
        Ok(answer["status"]["allowed"] == true)
    }

    /// An object of a type of our own, whole; `None` when there is none.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        to: &Target<'_>,
    ) -> Result<Option<T>, ApiError> {
        let call = object("read", to, "", Answer::Whole)?;
        match call.send(self).await {
            Ok(answer) => whole(&call, &answer).map(Some),
            Err(error) if error.is_not_found() && !error.is_kind_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces an object; with a `resourceVersion` in it only that version.
    pub async fn put_json<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        to: &Target<'_>,
        body: &B,
    ) -> Result<T, ApiError> {
        let mut call = object("replace", to, "", Answer::Whole)?;
        call.method = Method::PUT;
        call.repeat = Repeat::IfRefused;
        call.body = Some((JSON, written(&call, body)?));
        let answer = call.send(self).await?;
        whole(&call, &answer)
    }

    /// Creates an object and reads it back whole.
    pub async fn post_json<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: &str,
        body: &B,
    ) -> Result<T, ApiError> {
        let (call, answer) = self.post(resource, namespace, body, Answer::Whole).await?;
        whole(&call, &answer)
    }

    /// Creates an object, as an Event, and reads back its metadata.
    pub async fn create<B: Serialize + Sync>(
        &self,
        resource: &Resource,
        namespace: &str,
        body: &B,
    ) -> Result<Live, ApiError> {
        let (call, answer) = self.post(resource, namespace, body, Answer::Metadata).await?;
        decode::live(&answer).map_err(|what| call.undecodable(what))
    }

    async fn post<'a, B: Serialize + Sync>(
        &self,
        resource: &'a Resource,
        namespace: &'a str,
        body: &B,
        answer: Answer,
    ) -> Result<(Call<'a>, Bytes), ApiError> {
        let scope = Some(namespace).filter(|namespace| !namespace.is_empty());
        let subject = Subject::Collection(resource, scope);
        let mut call =
            Call::get("create one of", subject, resource.path(namespace, "", ""), answer);
        call.method = Method::POST;
        call.repeat = Repeat::IfRefused;
        call.body = Some((JSON, written(&call, body)?));
        let answer = call.send(self).await?;
        Ok((call, answer))
    }
}

const STATUS: &str = "write the status of";

/// A GET of one object, or what any other call on it starts from.
fn object<'a>(
    operation: &'static str,
    to: &Target<'a>,
    subresource: &str,
    answer: Answer,
) -> Result<Call<'a>, ApiError> {
    if let Some(what) = to.flaw() {
        return Err(ApiError::Unaddressable {
            operation,
            subject: to.key().to_string(),
            what: what.into(),
        });
    }
    let path = to.resource.path(to.namespace, to.name, subresource);
    Ok(Call { limit: OBJECT_LIMIT, ..Call::get(operation, Subject::Object(*to), path, answer) })
}

fn written<B: Serialize>(call: &Call<'_>, body: &B) -> Result<Bytes, ApiError> {
    let bytes = serde_json::to_vec(body).map_err(|_| ApiError::Unaddressable {
        operation: call.operation,
        subject: call.subject.to_string(),
        what: "it cannot be written as JSON".into(),
    })?;
    Ok(bytes.into())
}

fn whole<T: DeserializeOwned>(call: &Call<'_>, answer: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(answer).map_err(|error| call.undecodable(error::describe(&error)))
}

impl<I> decode::Page<I> {
    /// The items, unless one could not be read.
    fn readable(
        &mut self,
        resource: &Resource,
        namespace: Option<&str>,
    ) -> Result<Vec<(ObjectKey, I)>, ApiError> {
        match self.unreadable.first() {
            Some((key, what)) => Err(ApiError::Decode {
                operation: "list",
                subject: resource.collection(namespace),
                what: format!("{key}: {what}"),
            }),
            None => Ok(std::mem::take(&mut self.items)),
        }
    }
}
