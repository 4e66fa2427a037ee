//! From rendered objects to objects ready to be sent: resource, namespace, label, digest, stage.

use std::collections::HashMap;
use std::sync::Arc;

use plumb_core::{Digest, ErrorClass, FieldPath, GroupKind, Gvk, Object, ObjectKey, Place, Step};
use serde_json::{Map, Value};
use smol_str::SmolStr;

use crate::account::Account;
use crate::applyset::{APPLICATION, ApplySet, PARENT_ID, PART_OF};
use crate::cluster::{Discovery, Resource, Target};
use crate::edges::Level;
use crate::ignore::{Ignores, Pointer};
use crate::marks::Marks;
use crate::order::{needs, put_in_order};
use crate::report::Failure;
use crate::size::too_large;
use crate::stage::Stage;
use crate::versions::served_as;

/// An object as it will be sent.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) key: ObjectKey,
    /// With namespace, label and annotation as they are sent.
    pub(crate) object: Object,
    pub(crate) resource: Resource,
    /// Whom it is sent as; ourselves when there is none.
    pub(crate) account: Option<Arc<Account>>,
    /// When it has its turn.
    pub(crate) level: Level,
    /// What it must come after, as it says itself.
    pub(crate) after: Vec<ObjectKey>,
    /// How people want it dealt with.
    pub(crate) marks: Marks,
    /// Fields that others may decide.
    pub(crate) ignored: Vec<Pointer>,
    /// Fields that Git has and that are left out, because others decide them.
    pub(crate) yielded: Vec<FieldPath>,
    /// The version by which that was decided, where others may decide: on a later one it may be wrong.
    pub(crate) decided_on: Option<u64>,
    /// Short digest of the object's JSON, and of what of it is ignored.
    pub(crate) digest: u64,
    /// The kind is defined by an object of this very run, so the API server may not know it yet.
    pub(crate) defined_here: bool,
}

impl Prepared {
    /// Whether it is deleted by itself when it is done, which is no reason to do it again: a Job with
    /// `ttlSecondsAfterFinished`.
    pub(crate) fn expires(&self) -> bool {
        self.key.group_kind.group == "batch"
            && self.key.group_kind.kind == "Job"
            && !self.object.body()["spec"]["ttlSecondsAfterFinished"].is_null()
    }

    /// The live object to act on.
    pub(crate) fn target(&self) -> Target<'_> {
        let target = Target::new(&self.resource, &self.key.namespace, &self.key.name);
        Target { secret: self.object.is_secret(), ..target }
    }
}

/// Everything prepared, or what stands in the way.
#[derive(Debug, Default)]
pub(crate) struct Preparation {
    pub(crate) objects: Vec<Prepared>,
    /// Objects that cannot be sent; the others can.
    pub(crate) failures: Vec<Failure>,
    /// Mistakes that make the whole set doubtful: nothing is sent.
    pub(crate) refusals: Vec<Failure>,
}

/// Metadata that only the API server sets; in a manifest it is left over from an export, and
/// would be refused or pin the object to a state of the past.
const SERVER_FIELDS: [&str; 6] =
    ["creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"];

/// Prepares a render for its set. Namespaced objects that name no namespace go where their
/// application is.
pub(crate) fn prepare(
    objects: Vec<Object>,
    set: &ApplySet,
    discovery: &Discovery,
    ignores: &Ignores,
) -> Preparation {
    let defined = defined_kinds(&objects);
    let mut result = Preparation::default();
    let mut places: HashMap<ObjectKey, Place> = HashMap::with_capacity(objects.len());
    for object in objects {
        let place = object.place().clone();
        let gvk = object.gvk();
        let known = discovery.find(&gvk).cloned();
        let defined_here = known.is_none();
        let here = defined.iter().find(|d| d.resource.gvk.group_kind() == gvk.group_kind());
        let Some(resource) = known.or_else(|| {
            let found = here.filter(|d| d.served.iter().any(|version| gvk.version == *version))?;
            Some(Resource { gvk: gvk.clone(), ..found.resource.clone() })
        }) else {
            result.failures.push(unknown_kind(&object, here, discovery));
            continue;
        };
        let namespace = match (resource.namespaced, object.namespace()) {
            (false, _) => "",
            (true, "") => set.namespace.as_str(),
            (true, namespace) => namespace,
        };
        let key = ObjectKey::new(gvk.group_kind(), namespace, object.name());
        if let Some(label) = [PART_OF, PARENT_ID].into_iter().find(|l| object.label(l).is_some()) {
            let path = FieldPath::keys(["metadata", "labels", label]);
            result.refusals.push(Failure {
                place: Some(object.field_place(&path)),
                key,
                reason: "ReservedLabel",
                message: format!("the object carries the label {label}, which says who applies it"),
                hint: Some("remove the label from the manifest; Plumb sets it".into()),
                class: ErrorClass::WaitForUser,
            });
            continue;
        }
        if let Some(first) = places.insert(key.clone(), place.clone()) {
            result.refusals.push(Failure {
                key,
                reason: "DuplicateObject",
                message: format!("the object stands at {first} already"),
                hint: Some(
                    "remove one of them; without a namespace an object goes into the \
                     namespace of its application"
                        .into(),
                ),
                place: Some(place),
                class: ErrorClass::WaitForUser,
            });
            continue;
        }
        if !resource.can("patch") {
            result.failures.push(Failure {
                message: format!("the kind {gvk} cannot be patched, so it cannot be applied"),
                key,
                place: Some(place),
                reason: "NotApplicable",
                hint: None,
                class: ErrorClass::WaitForUser,
            });
            continue;
        }
        let mut object = object;
        let marks = Marks::of(&object.body()["metadata"]);
        let yielded = dress(object.body_mut(), &key, set);
        if resource.subresources.contains("status") {
            // Only controllers write it; a manifest has it from an export, and it would be dropped.
            object.body_mut().as_object_mut().map(|body| body.remove("status"));
        }
        let ignored = ignores.of(&object);
        let mut digest = object.digest();
        if !ignored.is_empty() {
            digest = Digest::of(format!("{digest} {ignored:?}").as_bytes());
        }
        let digest = digest.short();
        if let Some(failure) = too_large(&object, &key) {
            result.failures.push(failure);
            continue;
        }
        let kind = |kind: &GroupKind| {
            let here = defined.iter().map(|defined| &defined.resource);
            let mut here = here.filter(|resource| resource.gvk.group_kind() == *kind);
            discovery.preferred(kind).or_else(|| here.next()).map(|kind| kind.namespaced)
        };
        let after = match needs(&object, &key, set, kind) {
            Ok(after) => after,
            Err(refusal) => {
                result.refusals.push(*refusal);
                continue;
            }
        };
        let level = (Stage::of(&key.group_kind), 0);
        result.objects.push(Prepared {
            key,
            object,
            resource,
            account: set.account.clone(),
            level,
            after,
            marks,
            ignored,
            yielded,
            decided_on: None,
            digest,
            defined_here,
        });
    }
    put_in_order(&mut result);
    result
}

/// A kind that a custom resource definition of this run brings along.
struct Defined {
    resource: Resource,
    /// The versions that it is to be served in.
    served: Vec<String>,
    place: Place,
}

fn unknown_kind(object: &Object, here: Option<&Defined>, discovery: &Discovery) -> Failure {
    let gvk = object.gvk();
    let (reason, message, hint) = if discovery.is_unknown(&gvk.group) {
        (
            "ApiUnavailable",
            format!("the API server cannot say which kinds {} has at the moment", gvk.group),
            Some("look at the APIService that serves this group".into()),
        )
    } else if let Some(Defined { served, place, .. }) = here {
        let served = if served.is_empty() { "nothing".to_owned() } else { served.join(", ") };
        (
            "UnknownKind",
            format!("the cluster has no {gvk}"),
            Some(format!("the definition at {place} serves {served}")),
        )
    } else if let [_, ..] = discovery.by_group_kind(&gvk.group_kind()) {
        let versions = served_as(discovery, &gvk.group_kind()).join(", ");
        (
            "UnknownKind",
            format!("the cluster has no {gvk}"),
            Some(format!("it serves this kind as {versions}")),
        )
    } else {
        (
            "UnknownKind",
            format!("the cluster has no {gvk}"),
            Some("install the CustomResourceDefinition, or check apiVersion and kind".into()),
        )
    };
    Failure {
        key: object.key(),
        place: Some(object.place().clone()),
        reason,
        message,
        hint,
        class: ErrorClass::Retry,
    }
}

/// Kinds that custom resource definitions of this run bring along.
fn defined_kinds(objects: &[Object]) -> Vec<Defined> {
    let crd = GroupKind::new("apiextensions.k8s.io", "CustomResourceDefinition");
    let mut kinds = Vec::new();
    for object in objects.iter().filter(|object| object.gvk().group_kind() == crd) {
        let spec = &object.body()["spec"];
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let gvk = Gvk {
            group: text(&spec["group"]).into(),
            version: SmolStr::default(),
            kind: text(&spec["names"]["kind"]).into(),
        };
        let plural = text(&spec["names"]["plural"]);
        let versions = spec["versions"].as_array();
        let served = versions.into_iter().flatten().filter(|version| version["served"] == true);
        kinds.push(Defined {
            resource: Resource::known(gvk, &plural, spec["scope"] == "Namespaced"),
            served: served.map(|version| text(&version["name"])).collect(),
            place: object.place().clone(),
        });
    }
    kinds
}

/// Puts the namespace, our label and annotation on, and takes off what is not ours to say. Returns what
/// of that says something; an empty place for others is meant as one.
fn dress(body: &mut Value, key: &ObjectKey, set: &ApplySet) -> Vec<FieldPath> {
    let mut yielded = Vec::new();
    let Some(object) = body.as_object_mut() else { return yielded };
    if key.group_kind == GroupKind::new("", "Secret") {
        encode_string_data(object);
    }
    if let Some(metadata) = map_at(object, "metadata") {
        for field in SERVER_FIELDS {
            metadata.remove(field);
        }
        if key.namespace.is_empty() {
            metadata.remove("namespace");
        } else {
            metadata.insert("namespace".into(), Value::String(key.namespace.to_string()));
        }
        if let Some(labels) = map_at(metadata, "labels") {
            labels.insert(PART_OF.into(), Value::String(set.id.clone()));
        }
        if let Some(annotations) = map_at(metadata, "annotations") {
            annotations.insert(APPLICATION.into(), Value::String(set.owner()));
        }
    }
    // What other controllers fill in is theirs: claiming an empty value would fight them for ever.
    let aggregates = object.get("aggregationRule").is_some_and(|rule| !rule.is_null());
    if aggregates && key.group_kind == GroupKind::new("rbac.authorization.k8s.io", "ClusterRole") {
        let rules = object.remove("rules");
        let says = rules.is_some_and(|rules| rules.as_array().is_some_and(|all| !all.is_empty()));
        yielded.extend(says.then(|| FieldPath::keys(["rules"])));
    }
    drop_empty_ca_bundles(body, &key.group_kind);
    yielded
}

fn map_at<'m>(map: &'m mut Map<String, Value>, key: &str) -> Option<&'m mut Map<String, Value>> {
    let value = map.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The API server stores `stringData` as `data` but would give us the field set of `stringData`,
/// in which edits of `data` do not show.
fn encode_string_data(secret: &mut Map<String, Value>) {
    use base64::Engine as _;
    // Anything but a map is left for the API server to refuse in its own words.
    let Some(Value::Object(_) | Value::Null) = secret.get("stringData") else { return };
    let Some(Value::Object(plain)) = secret.remove("stringData") else { return };
    if let Some(data) = map_at(secret, "data") {
        for (name, value) in plain {
            let value = match value {
                Value::String(text) => {
                    Value::String(base64::engine::general_purpose::STANDARD.encode(text))
                }
                other => other,
            };
            data.insert(name, value);
        }
    }
}

/// Authorities are often filled in by another controller, which an empty one in Git is the place
/// for.
fn drop_empty_ca_bundles(body: &mut Value, kind: &GroupKind) {
    let drop = |config: Option<&mut Value>| {
        // The placeholder is one line end, from when the API server refused an empty value.
        if let Some(Value::Object(config)) = config
            && config.get("caBundle").is_some_and(|ca| ca.is_null() || ca == "" || ca == "Cg==")
        {
            config.remove("caBundle");
        }
    };
    match (kind.group.as_str(), kind.kind.as_str()) {
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        ) => {
            let webhooks = body.get_mut("webhooks").and_then(Value::as_array_mut);
            webhooks.into_iter().flatten().for_each(|hook| drop(hook.get_mut("clientConfig")));
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            drop(body.pointer_mut("/spec/conversion/webhook/clientConfig"));
        }
        ("apiregistration.k8s.io", "APIService") => drop(body.get_mut("spec")),
        _ => {}
    }
}

/// Sets the resource version that a write is planned on.
pub(crate) fn planned_on(body: &Value, resource_version: u64) -> Value {
    with_metadata(body, "resourceVersion", resource_version.to_string())
}

/// Sets the uid of the object that a write is planned for: on another one, or none, it is a
/// conflict.
pub(crate) fn planned_for(body: &Value, uid: &str) -> Value {
    with_metadata(body, "uid", uid.to_owned())
}

fn with_metadata(body: &Value, field: &str, value: String) -> Value {
    let mut body = body.clone();
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert(field.into(), Value::String(value));
    }
    body
}

/// The place of the field that an API error names, `spec.ports[0].port` for instance.
pub(crate) fn parse_field(field: &str) -> FieldPath {
    let mut path = FieldPath::root();
    for part in field.split('.').filter(|part| !part.is_empty()) {
        let (name, indices) = part.split_once('[').unwrap_or((part, ""));
        if !name.is_empty() {
            path.push(Step::Key(name.into()));
        }
        for index in indices.split('[').map(|i| i.trim_end_matches(']')) {
            if let Ok(index) = index.parse() {
                path.push(Step::Index(index));
            }
        }
    }
    path
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
