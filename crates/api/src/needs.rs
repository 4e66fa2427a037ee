//! What an Application takes from the cluster. Names and meanings are those of Flux's Kustomization.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::SecretRef;

/// How encrypted files are opened.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Decryption {
    /// What encrypted them: sops.
    pub provider: DecryptionProvider,

    /// A Secret in the same namespace with private keys: age keys in entries named *.agekey, and
    /// OpenPGP keys in entries named *.asc. A change of it is acted on at once.
    pub secret_ref: SecretRef,
}

/// What encrypts files.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecryptionProvider {
    /// SOPS.
    #[serde(rename = "sops")]
    Sops,
}

/// What is done with the objects after they were built: variables in them get values.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PostBuild {
    /// Values by the names of their variables. They override those of `substituteFrom`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "variables")]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[A-Za-z_][A-Za-z0-9_]*$'))").message("must have names of letters, digits and _, which do not begin with a digit"))]
    pub substitute: BTreeMap<String, String>,

    /// ConfigMaps and Secrets in the same namespace whose keys are names of variables. Later ones
    /// override earlier ones. A change of one is acted on at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub substitute_from: Vec<SubstituteReference>,

    /// Whether variables are replaced where there are no values at all: WithVariables leaves the
    /// objects as they are then, Always has the defaults that they name. WithVariables when left
    /// out.
    #[serde(default)]
    pub substitute_strategy: SubstituteStrategy,
}

fn variables(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 500,
        "additionalProperties": { "type": "string", "maxLength": 65536 },
    })
}

/// A ConfigMap or Secret in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SubstituteReference {
    /// Its kind: ConfigMap or Secret.
    pub kind: ValuesKind,

    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Whether it is passed over while it is not there, instead of being an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Kinds that hold values.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValuesKind {
    /// Values that anybody may see.
    ConfigMap,
    /// Values that are told nowhere.
    Secret,
}

/// When variables are replaced.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SubstituteStrategy {
    /// When there are any values.
    #[default]
    WithVariables,
    /// Always.
    Always,
}

fn apps_v1() -> String {
    "apps/v1".into()
}

/// An object that an Application waits for once it is applied. It may be its own or not.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Its API version, apps/v1 when left out.
    #[serde(default = "apps_v1")]
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(validation = Rule::new("self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-z]([-a-z0-9]*[a-z0-9])?$')").message("must be a group and a version, as apps/v1, or v1"))]
    pub api_version: String,

    /// Its kind.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,

    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its namespace, that of this Application when left out. It says nothing for kinds without
    /// namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Something that must be ready before an Application is applied.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.apiVersion) == has(self.kind)").message("set both apiVersion and kind, or neither for an Application"))]
#[x_kube(validation = Rule::new("!has(self.kind) || self.kind != 'Secret' || self.apiVersion != 'v1'").message("must not be a Secret, into which nobody looks"))]
pub struct Dependency {
    /// Its API version, that of Applications when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub api_version: Option<String>,

    /// Its kind, Application when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,

    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its namespace, that of this Application when left out. It says nothing for kinds without
    /// namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,

    /// An expression in CEL that says whether it is ready, instead of what Plumb knows of it: `dep` is
    /// that object, `self` this Application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ready_expr: Option<String>,
}
