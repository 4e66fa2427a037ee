//! What an Application adds to the kustomization of its path. Names and meanings are those of Flux's
//! Kustomization.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A patch for some objects.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.target) || !self.patch.startsWith('- ') && !self.patch.startsWith('[')").message("a JSON patch needs a target"))]
pub struct Patch {
    /// A strategic merge patch, or a list of JSON patch operations (RFC 6902), as YAML or JSON.
    #[schemars(length(min = 1, max = 65536), regex(pattern = r"\S"))]
    pub patch: String,

    /// Which objects are patched; what is left out of it selects all. Group, version, kind, name
    /// and namespace are regular expressions for the whole text. Without a target a strategic merge
    /// patch is for the object that it names; a JSON patch needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PatchTarget>,
}

/// Selects objects.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PatchTarget {
    /// The API group.
    #[schemars(length(max = 512))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,

    /// The version in the API group.
    #[schemars(length(max = 512))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,

    /// The kind.
    #[schemars(length(max = 512))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,

    /// The name, now or as it was in the file.
    #[schemars(length(max = 512))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,

    /// The namespace, now or as it was in the file.
    #[schemars(length(max = 512))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,

    /// A selector of labels, as kubectl get -l takes it.
    #[schemars(length(max = 2048))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label_selector: String,

    /// A selector of annotations, in the same form.
    #[schemars(length(max = 2048))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub annotation_selector: String,
}

/// Another name, tag or digest for an image.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.newName) || has(self.newTag) || has(self.digest)").message("set newName, newTag or digest"))]
pub struct Image {
    /// The image as the manifests name it, without tag and digest.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,

    /// The name to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub new_name: Option<String>,

    /// The tag to use instead of the tag and digest that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"))]
    pub new_tag: Option<String>,

    /// The digest to use instead of the tag and digest that are there: sha256:<64 digits>.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 256),
        regex(pattern = r"^[A-Za-z0-9]+([.+_-][A-Za-z0-9]+)*:[A-Za-z0-9=_-]{32,}$")
    )]
    pub digest: Option<String>,
}

/// Labels and annotations of all objects.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CommonMetadata {
    /// Labels. They override those in the manifests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    #[x_kube(validation = Rule::new("!self.exists(key, key.startsWith('applyset.kubernetes.io/'))").message("must not have labels of applyset.kubernetes.io, which Plumb sets"))]
    pub labels: BTreeMap<String, String>,

    /// Annotations. They override those in the manifests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        },
    })
}

fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 65536 },
    })
}
