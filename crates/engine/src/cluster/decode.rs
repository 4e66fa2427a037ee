//! Reads the server's answers into what is kept of them.
//!
//! Invariant: labels other than the part-of label, annotations other than our own, but for marks and
//! the order of objects, and whatever else an object holds are skipped while reading and never kept,
//! but for names in the marks of other tools. An annotation can hold a whole Secret
//! (`kubectl.kubernetes.io/last-applied-configuration`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use jiff::Timestamp;
use plumb_core::ObjectKey;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

use super::error::describe;
use super::fields::{self, FieldSet, Words};
use super::resource::Resource;
use super::tools::{Tool, tool_of};
use crate::live::{Entry, Live};

/// What is kept of objects of some kind, and how it is read.
pub(crate) trait Decode: Send + Sync {
    /// What is kept.
    type Item: Send + 'static;
    /// Whether the server is asked for metadata only.
    fn wants_metadata(&self) -> bool {
        true
    }
    /// Reads one object; the error says what is wrong without quoting it.
    fn item(&self, json: &str) -> Result<Self::Item, String>;
}

/// Keeps fingerprints.
pub(super) struct Fingerprints;

impl Decode for Fingerprints {
    type Item = Live;

    fn item(&self, json: &str) -> Result<Live, String> {
        live(json.as_bytes())
    }
}

/// Keeps fingerprints, each with what the object says that it comes after.
pub(super) struct Ordered;

impl Decode for Ordered {
    type Item = (Live, Option<Box<str>>);

    fn item(&self, json: &str) -> Result<Self::Item, String> {
        live_in_order(json.as_bytes())
    }
}

/// Keeps which version each is.
pub(super) struct Versions;

impl Decode for Versions {
    type Item = u64;

    fn item(&self, json: &str) -> Result<u64, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version<'a> {
            #[serde(borrow)]
            resource_version: Cow<'a, str>,
        }
        let object: Envelope<Version<'_>> =
            serde_json::from_str(json).map_err(|error| describe(&error))?;
        let version = object.metadata.resource_version.parse();
        version.map_err(|_| "the resource version is not a number".to_owned())
    }
}

/// Keeps whole objects of a type of our own.
pub(super) struct Whole<T>(PhantomData<fn() -> T>);

impl<T> Whole<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: DeserializeOwned + Send + 'static> Decode for Whole<T> {
    type Item = T;

    fn wants_metadata(&self) -> bool {
        false
    }

    fn item(&self, json: &str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| describe(&error))
    }
}

/// What an object that is to be handed over, adopted or released needs beyond its fingerprint.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// The fingerprint.
    pub live: Live,
    /// The raw entries of `managedFields`, in the server's order.
    pub managed_fields: Vec<serde_json::Value>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Which other tool's marks are on it.
    pub tool: Option<Tool>,
    /// The annotations of `plumb.dev`, its subdomains and `applyset.kubernetes.io`. All others are
    /// dropped.
    pub annotations: BTreeMap<String, String>,
    /// Whether `kubectl.kubernetes.io/last-applied-configuration` is there.
    pub has_last_applied: bool,
    /// The finalizers, in order.
    pub finalizers: Vec<String>,
    /// The raw owner references, in order.
    pub owner_references: Vec<serde_json::Value>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When its deletion was asked for.
    pub deleted: Option<Timestamp>,
}

/// One page of a LIST.
pub(super) struct Page<I> {
    /// The objects that could be read.
    pub(super) items: Vec<(ObjectKey, I)>,
    /// The others, and what is wrong with each.
    pub(super) unreadable: Vec<(ObjectKey, String)>,
    /// The resource version of the list.
    pub(super) resource_version: String,
    /// Where the next page begins.
    pub(super) next: Option<String>,
}

/// One line of a watch.
pub(super) enum Line<I> {
    /// Added or modified.
    Changed(ObjectKey, I),
    /// Deleted, or no longer selected.
    Deleted(ObjectKey, I),
    /// An object that cannot be read.
    Unreadable(ObjectKey, String),
    /// Nothing but a newer resource version.
    Bookmark,
    /// The server ends the watch with an error: a Status, as JSON.
    Error(Box<RawValue>),
}

#[derive(Deserialize)]
struct Envelope<M> {
    metadata: M,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LiveMeta<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    /// Missing in the answer to a dry run that would create the object.
    #[serde(default, borrow)]
    resource_version: Cow<'a, str>,
    #[serde(default)]
    generation: Option<i64>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(default)]
    owner_references: Option<Vec<IgnoredAny>>,
    #[serde(default, deserialize_with = "fields::words")]
    labels: Words,
    #[serde(default, deserialize_with = "fields::words")]
    annotations: Words,
    #[serde(default, borrow)]
    managed_fields: Option<Vec<ManagedFields<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedFields<'a> {
    #[serde(default, borrow)]
    manager: Cow<'a, str>,
    #[serde(default, borrow)]
    operation: Cow<'a, str>,
    #[serde(default, borrow)]
    api_version: Cow<'a, str>,
    #[serde(default, borrow)]
    time: Cow<'a, str>,
    #[serde(default, borrow)]
    subresource: Cow<'a, str>,
    #[serde(default, borrow, rename = "fieldsV1")]
    fields: Option<&'a RawValue>,
}

/// Reads an object's fingerprint out of its metadata.
pub(crate) fn live(json: &[u8]) -> Result<Live, String> {
    live_in_order(json).map(|(live, _)| live)
}

fn live_in_order(json: &[u8]) -> Result<(Live, Option<Box<str>>), String> {
    let object: Envelope<LiveMeta<'_>> =
        serde_json::from_slice(json).map_err(|error| describe(&error))?;
    let meta = object.metadata;
    let resource_version = match &*meta.resource_version {
        "" => 0,
        version => {
            version.parse().map_err(|_| "the resource version is not a number".to_owned())?
        }
    };
    let mut live = Live {
        uid: meta.uid.into(),
        resource_version,
        generation: meta.generation.unwrap_or_default(),
        terminating: meta.deletion_timestamp.is_some(),
        owners: meta
            .owner_references
            .map_or(0, |owners| u32::try_from(owners.len()).unwrap_or(u32::MAX)),
        part_of: meta.labels.part_of,
        marks: meta.labels.marks.or(meta.annotations.marks),
        scaled: false,
        entries: Box::default(),
        others: 0,
        others_time: 0,
    };
    // Most objects have one of ours: a vector that grows would be four times as large.
    let mut entries = Vec::with_capacity(1);
    for entry in meta.managed_fields.unwrap_or_default() {
        let set = entry.fields.map(FieldSet::read).unwrap_or_default();
        let time = &*entry.time;
        let seconds = time.parse::<Timestamp>().map_or(0, Timestamp::as_second);
        if entry.operation == "Apply"
            && entry.subresource.is_empty()
            && entry.manager.starts_with(crate::MANAGER_PREFIX)
        {
            entries.push(Entry {
                manager: entry.manager.into(),
                fields: fields::combine(&[fields::text(&entry.api_version), set.digest]),
                time: seconds,
                owns_part_of: set.part_of,
                owners: set.owners,
            });
        } else if entry.subresource != "status" {
            // A person with kubectl is no autoscaler.
            live.scaled |= entry.subresource == "scale"
                && set.replicas
                && !entry.manager.starts_with("kubectl");
            live.others_time = live.others_time.max(seconds);
            // The server sorts entries by time, so their order says nothing: a sum again.
            live.others = live.others.wrapping_add(fields::combine(&[
                fields::text(&entry.manager),
                fields::text(&entry.operation),
                fields::text(&entry.api_version),
                fields::text(&entry.subresource),
                fields::text(time),
                set.digest,
            ]));
        }
    }
    entries.sort_by(|a: &Entry, b| a.manager.cmp(&b.manager));
    live.entries = entries.into();
    Ok((live, meta.annotations.after))
}

/// Reads all that is kept of one object's metadata.
pub(super) fn metadata(json: &[u8]) -> Result<Metadata, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Rest {
        #[serde(default)]
        managed_fields: Option<Vec<serde_json::Value>>,
        #[serde(default)]
        labels: Option<BTreeMap<String, String>>,
        #[serde(default)]
        annotations: Option<BTreeMap<String, String>>,
        #[serde(default)]
        finalizers: Option<Vec<String>>,
        #[serde(default)]
        owner_references: Option<Vec<serde_json::Value>>,
        #[serde(default)]
        creation_timestamp: Option<Timestamp>,
        #[serde(default)]
        deletion_timestamp: Option<Timestamp>,
    }

    let live = live(json)?;
    let object: Envelope<Rest> = serde_json::from_slice(json).map_err(|error| describe(&error))?;
    let rest = object.metadata;
    let mut annotations = rest.annotations.unwrap_or_default();
    let labels = rest.labels.unwrap_or_default();
    let tool = tool_of(&labels, &annotations);
    let has_last_applied =
        annotations.contains_key("kubectl.kubernetes.io/last-applied-configuration");
    annotations.retain(|key, _| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        domain == "plumb.dev"
            || domain.ends_with(".plumb.dev")
            || domain == "applyset.kubernetes.io"
    });
    Ok(Metadata {
        live,
        managed_fields: rest.managed_fields.unwrap_or_default(),
        labels,
        tool,
        annotations,
        has_last_applied,
        finalizers: rest.finalizers.unwrap_or_default(),
        owner_references: rest.owner_references.unwrap_or_default(),
        created: rest.creation_timestamp,
        deleted: rest.deletion_timestamp,
    })
}

/// Whether a DELETE was answered with the object, still there and on its way out, rather than with
/// a Status or the last state of an object that is gone.
pub(super) fn is_terminating(json: &[u8]) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        kind: String,
        #[serde(default)]
        metadata: Option<Meta>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        #[serde(default)]
        deletion_timestamp: Option<IgnoredAny>,
    }

    let answer: Answer = serde_json::from_slice(json).map_err(|error| describe(&error))?;
    Ok(answer.kind != "Status"
        && answer.metadata.is_some_and(|meta| meta.deletion_timestamp.is_some()))
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default, borrow)]
    namespace: Cow<'a, str>,
}

fn key(resource: &Resource, json: &str) -> Result<ObjectKey, String> {
    let object: Envelope<Named<'_>> =
        serde_json::from_str(json).map_err(|error| describe(&error))?;
    Ok(resource.key(&object.metadata.namespace, &object.metadata.name))
}

/// Reads one page of a LIST. An object without a name fails the page; any other flaw of one object
/// is told beside the rest.
pub(super) fn page<D: Decode>(
    decoder: &D,
    resource: &Resource,
    json: &[u8],
) -> Result<Page<D::Item>, String> {
    #[derive(Deserialize)]
    struct List<'a> {
        metadata: ListMeta,
        #[serde(default, borrow)]
        items: Option<Vec<&'a RawValue>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ListMeta {
        #[serde(default)]
        resource_version: String,
        #[serde(default, rename = "continue")]
        next: Option<String>,
    }

    let list: List<'_> = serde_json::from_slice(json).map_err(|error| describe(&error))?;
    let raw = list.items.unwrap_or_default();
    let mut page = Page {
        items: Vec::with_capacity(raw.len()),
        unreadable: Vec::new(),
        resource_version: list.metadata.resource_version,
        next: list.metadata.next.filter(|next| !next.is_empty()),
    };
    for item in raw {
        let key = key(resource, item.get())?;
        match decoder.item(item.get()) {
            Ok(item) => page.items.push((key, item)),
            Err(what) => page.unreadable.push((key, what)),
        }
    }
    Ok(page)
}

/// Reads one line of a watch and the resource version that it brings the watcher to.
pub(super) fn line<D: Decode>(
    decoder: &D,
    resource: &Resource,
    json: &[u8],
) -> Result<(Line<D::Item>, Option<String>), String> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        resource_version: String,
    }

    let event: Event<'_> = serde_json::from_slice(json).map_err(|error| describe(&error))?;
    let object = event.object.get();
    let deleted = match &*event.kind {
        "ADDED" | "MODIFIED" => false,
        "DELETED" => true,
        "BOOKMARK" => {
            let Envelope { metadata } = serde_json::from_str::<Envelope<Version>>(object)
                .map_err(|error| describe(&error))?;
            return Ok((Line::Bookmark, Some(metadata.resource_version)));
        }
        "ERROR" => return Ok((Line::Error(event.object.to_owned()), None)),
        _ => return Err("it has events of an unknown type".into()),
    };
    let Envelope { metadata } =
        serde_json::from_str::<Envelope<Version>>(object).map_err(|error| describe(&error))?;
    let key = key(resource, object)?;
    let line = match decoder.item(object) {
        Ok(item) if deleted => Line::Deleted(key, item),
        Ok(item) => Line::Changed(key, item),
        Err(what) => Line::Unreadable(key, what),
    };
    Ok((line, Some(metadata.resource_version)))
}

#[cfg(test)]
mod tests {
    use plumb_core::Gvk;
    use serde_json::json;

    use super::*;
    use crate::marks::Marks;

    /// An answer of kube-apiserver 1.37.2 to a metadata GET of a Secret after `kubectl edit`, with
    /// what else can be in metadata added.
    const EDITED: &str = r#"{
      "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
      "metadata": {
        "name": "s1", "namespace": "default", "uid": "43b825aa-d248-48f2-820d-2df801eb3537",
        "resourceVersion": "226", "generation": 3, "creationTimestamp": "2026-11-22T21:58:12Z",
        "labels": {"applyset.kubernetes.io/part-of": "x", "mine": "1"},
        "annotations": {
          "plumb.dev/application": "default/one", "reconcile.plumb.dev/requestedAt": "now",
          "applyset.kubernetes.io/tooling": "plumb/v1", "notplumb.dev/a": "b", "bare": "c",
          "kubectl.kubernetes.io/last-applied-configuration": "{\"data\":{\"p\":\"c2VjcmV0\"}}"
        },
        "finalizers": ["example.com/a"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"}],
        "managedFields": [
          {
            "manager": "plumb:default/one", "operation": "Apply", "apiVersion": "v1",
            "time": "2026-11-22T21:58:12Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:p": {}}, "f:metadata": {
              "f:annotations": {"f:plumb.dev/application": {}},
              "f:labels": {"f:applyset.kubernetes.io/part-of": {}}}}
          },
          {
            "manager": "kubectl-edit", "operation": "Update", "apiVersion": "v1",
            "time": "2026-11-22T21:58:13Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:mine": {}}}}
          }
        ]
      }
    }"#;

    fn edited() -> serde_json::Value {
        serde_json::from_str(EDITED).unwrap()
    }

    fn read(value: &serde_json::Value) -> Live {
        live(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_fingerprint_holds_what_is_ours() {
        let live = live(EDITED.as_bytes()).unwrap();
        assert_eq!(&*live.uid, "43b825aa-d248-48f2-820d-2df801eb3537");
        assert_eq!(live.resource_version, 226);
        assert_eq!(live.generation, 3);
        assert!(live.owners == 1 && !live.terminating);
        assert!(live.is_owned_beside("plumb:default/one"));
        assert_eq!(live.part_of.as_deref(), Some("x"));
        assert_eq!(live.entries.len(), 1);
        let entry = live.entry("plumb:default/one").unwrap();
        assert!(entry.owns_part_of);
        assert_eq!(entry.time, 1_795_384_692);
        assert_ne!(live.others, 0);
    }

    #[test]
    fn an_object_that_is_not_made_yet_has_no_version() {
        let dry = json!({"metadata": {"name": "a", "uid": "u"}});
        assert_eq!(read(&dry).resource_version, 0);
    }

    #[test]
    fn a_new_object_has_little_metadata() {
        let bare = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "1"}});
        let expected = Live {
            uid: "u".into(),
            resource_version: 1,
            generation: 0,
            terminating: false,
            owners: 0,
            marks: Marks::default(),
            scaled: false,
            part_of: None,
            entries: Box::default(),
            others: 0,
            others_time: 0,
        };
        assert_eq!(read(&bare), expected);
        let nulls = json!({"metadata": {
            "name": "a", "uid": "u", "resourceVersion": "1", "labels": null,
            "ownerReferences": null, "managedFields": null, "creationTimestamp": null,
        }});
        assert_eq!(read(&nulls), expected);
        let leaving = json!({"metadata": {
            "uid": "u", "resourceVersion": "1", "deletionTimestamp": "2026-11-22T21:58:12Z",
        }});
        assert!(read(&leaving).terminating);
    }

    /// Which part of a fingerprint each kind of change is seen in.
    #[test]
    fn changes_are_seen_where_they_belong() {
        let before = read(&edited());
        let change = |path: &str, to: serde_json::Value| {
            let mut value = edited();
            *value.pointer_mut(path).unwrap() = to;
            read(&value)
        };
        let fields = "/metadata/managedFields/0/fieldsV1";
        for (what, after, ours, others) in [
            ("nothing", read(&edited()), false, false),
            ("a field taken from us", change(&format!("{fields}/f:data"), json!({})), true, false),
            (
                "an apply under our name",
                change("/metadata/managedFields/0/time", "2026-11-22T22:00:00Z".into()),
                true,
                false,
            ),
            (
                "our entry in another version",
                change("/metadata/managedFields/0/apiVersion", "v2".into()),
                true,
                false,
            ),
            (
                "a foreign field",
                change("/metadata/managedFields/1/fieldsV1", json!({"f:data": {"f:q": {}}})),
                false,
                true,
            ),
            (
                "a foreign write",
                change("/metadata/managedFields/1/time", "2026-11-22T22:00:00Z".into()),
                false,
                true,
            ),
            (
                "our name in an update",
                change("/metadata/managedFields/0/operation", "Update".into()),
                true,
                true,
            ),
            (
                "a foreign entry turns into one of the status",
                {
                    let mut value = edited();
                    value["metadata"]["managedFields"][1]["subresource"] = "status".into();
                    read(&value)
                },
                false,
                true,
            ),
        ] {
            assert_eq!(before.entries != after.entries, ours, "{what}");
            assert_eq!(before.others != after.others, others, "{what}");
        }
    }

    #[test]
    fn the_order_of_entries_and_the_status_say_nothing() {
        let before = read(&edited());
        let mut value = edited();
        let entries = value["metadata"]["managedFields"].as_array_mut().unwrap();
        entries.reverse();
        entries.push(json!({
            "manager": "controller", "operation": "Update", "apiVersion": "v1",
            "subresource": "status", "fieldsV1": {"f:status": {}},
        }));
        assert_eq!(read(&value), before);
        let entries = value["metadata"]["managedFields"].as_array_mut().unwrap();
        entries.push(json!({
            "manager": "plumb:default/one", "operation": "Apply", "apiVersion": "v1",
            "subresource": "scale", "fieldsV1": {"f:spec": {}},
        }));
        let after = read(&value);
        assert_eq!(after.entries, before.entries);
        assert_ne!(after.others, before.others);
    }

    #[test]
    fn metadata_keeps_no_annotation_but_ours() {
        let found = metadata(EDITED.as_bytes()).unwrap();
        assert_eq!(
            found.annotations.keys().collect::<Vec<_>>(),
            [
                "applyset.kubernetes.io/tooling",
                "plumb.dev/application",
                "reconcile.plumb.dev/requestedAt"
            ]
        );
        assert!(found.has_last_applied);
        assert!(!format!("{found:?}").contains("c2VjcmV0"));
        assert_eq!(found.labels.len(), 2);
        assert_eq!(found.finalizers, ["example.com/a"]);
        assert_eq!(found.owner_references.len(), 1);
        assert_eq!(found.managed_fields.len(), 2);
        assert_eq!(found.created, Some("2026-11-22T21:58:12Z".parse().unwrap()));
        assert_eq!(found.deleted, None);
    }

    #[test]
    fn what_is_wrong_is_told_without_quoting() {
        for (json, expected) in [
            ("hunter2", "it is not JSON (line 1, column 1)"),
            (r#"{"metadata":{"uid":"hunter2""#, "it ends too early (line 1, column 28)"),
            (
                r#"{"metadata":{"resourceVersion":"hunter2"}}"#,
                "missing field `uid` (line 1, column 41)",
            ),
            (
                r#"{"metadata":{"uid":"u","resourceVersion":"hunter2"}}"#,
                "the resource version is not a number",
            ),
            (
                r#"{"metadata":"hunter2"}"#,
                "a value is not of the type that it should have (line 1, column 21)",
            ),
        ] {
            assert_eq!(live(json.as_bytes()).unwrap_err(), expected);
        }
    }

    #[test]
    fn answers_to_a_delete() {
        for (json, terminating) in [
            (r#"{"kind":"Status","metadata":{},"status":"Success"}"#, false),
            (r#"{"kind":"PartialObjectMetadata","metadata":{"name":"a"}}"#, false),
            (
                r#"{"kind":"PartialObjectMetadata","metadata":{"deletionTimestamp":"2026-11-22T21:58:12Z"}}"#,
                true,
            ),
        ] {
            assert_eq!(is_terminating(json.as_bytes()), Ok(terminating), "{json}");
        }
    }

    #[test]
    fn one_bad_object_does_not_hide_the_others() {
        let resource = Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true);
        let json = json!({"metadata": {"resourceVersion": "9", "continue": "t"}, "items": [
            {"metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1"}},
            {"metadata": {"name": "b", "namespace": "n", "uid": "u", "resourceVersion": "x"}},
        ]});
        let page = page(&Fingerprints, &resource, json.to_string().as_bytes()).unwrap();
        assert_eq!(page.items[0].0.to_string(), "ConfigMap n/a");
        assert_eq!(page.items.len(), 1);
        assert_eq!(page.unreadable[0].0.to_string(), "ConfigMap n/b");
        assert_eq!(page.resource_version, "9");
        assert_eq!(page.next.as_deref(), Some("t"));
        let empty = super::page(
            &Fingerprints,
            &resource,
            br#"{"metadata":{"resourceVersion":"9","continue":""},"items":null}"#,
        )
        .unwrap();
        assert!(empty.items.is_empty() && empty.next.is_none());
        assert!(super::page(&Fingerprints, &resource, b"{}").is_err());
    }
}
