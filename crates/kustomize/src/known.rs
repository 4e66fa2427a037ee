//! What the reference knows about built-in kinds, as of Kubernetes 1.21.2: which are
//! cluster-scoped, and which lists are merged by keys.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::resid;

/// Kinds that are cluster-scoped for certain, with their versions.
const CLUSTER_SCOPED: &[(&str, &[&str])] = &[
    (
        "admissionregistration.k8s.io/v1",
        &[
            "MutatingWebhookConfiguration",
            "ValidatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
        ],
    ),
    (
        "admissionregistration.k8s.io/v1beta1",
        &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"],
    ),
    ("apiextensions.k8s.io/v1", &["CustomResourceDefinition"]),
    ("apiextensions.k8s.io/v1beta1", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io/v1", &["APIService"]),
    ("apiregistration.k8s.io/v1beta1", &["APIService"]),
    ("certificates.k8s.io/v1", &["CertificateSigningRequest"]),
    ("certificates.k8s.io/v1beta1", &["CertificateSigningRequest"]),
    ("flowcontrol.apiserver.k8s.io/v1beta1", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("networking.k8s.io/v1", &["IngressClass"]),
    ("networking.k8s.io/v1beta1", &["IngressClass"]),
    ("node.k8s.io/v1", &["RuntimeClass"]),
    ("node.k8s.io/v1beta1", &["RuntimeClass"]),
    ("policy/v1beta1", &["PodSecurityPolicy"]),
    ("rbac.authorization.k8s.io/v1", &["ClusterRole", "ClusterRoleBinding"]),
    ("rbac.authorization.k8s.io/v1beta1", &["ClusterRole", "ClusterRoleBinding"]),
    ("scheduling.k8s.io/v1", &["PriorityClass"]),
    ("scheduling.k8s.io/v1beta1", &["PriorityClass"]),
    ("storage.k8s.io/v1", &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"]),
    ("storage.k8s.io/v1beta1", &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"]),
    ("v1", &["ComponentStatus", "Namespace", "Node", "NodeProxyOptions", "PersistentVolume"]),
];

/// Kinds that live in namespaces; their metadata has lists that are merged.
const NAMESPACED: &[(&str, &[&str])] = &[
    ("apps/v1", &["ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"]),
    ("autoscaling/v1", &["HorizontalPodAutoscaler", "Scale"]),
    ("autoscaling/v2beta1", &["HorizontalPodAutoscaler"]),
    ("autoscaling/v2beta2", &["HorizontalPodAutoscaler"]),
    ("batch/v1", &["CronJob", "Job"]),
    ("batch/v1beta1", &["CronJob"]),
    ("coordination.k8s.io/v1", &["Lease"]),
    ("coordination.k8s.io/v1beta1", &["Lease"]),
    ("discovery.k8s.io/v1", &["EndpointSlice"]),
    ("discovery.k8s.io/v1beta1", &["EndpointSlice"]),
    ("events.k8s.io/v1", &["Event"]),
    ("events.k8s.io/v1beta1", &["Event"]),
    ("extensions/v1beta1", &["Ingress"]),
    ("networking.k8s.io/v1", &["Ingress", "NetworkPolicy"]),
    ("networking.k8s.io/v1beta1", &["Ingress"]),
    ("policy/v1", &["PodDisruptionBudget"]),
    ("policy/v1beta1", &["PodDisruptionBudget"]),
    ("rbac.authorization.k8s.io/v1", &["Role", "RoleBinding"]),
    ("rbac.authorization.k8s.io/v1beta1", &["Role", "RoleBinding"]),
    ("storage.k8s.io/v1beta1", &["CSIStorageCapacity"]),
    (
        "v1",
        &[
            "ConfigMap",
            "Endpoints",
            "Event",
            "LimitRange",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
            "Secret",
            "Service",
            "ServiceAccount",
        ],
    ),
];

/// A type of which some list, here or further in, is merged.
#[derive(Debug)]
pub(crate) struct Type(&'static [Field]);

type Field = (&'static str, Merge, Option<&'static Type>);

/// How a list is merged: not at all, or item by item where these keys are equal; no key means the
/// items themselves.
pub(crate) type Merge = Option<&'static [&'static str]>;

impl Type {
    /// How a field's list is merged, and the type of the field or of its items.
    pub(crate) fn field(&self, name: &str) -> (Merge, Option<&'static Self>) {
        let field = self.0.iter().find(|(field, ..)| *field == name);
        field.map_or((None, None), |(_, merge, inner)| (*merge, *inner))
    }
}

const BY_TYPE: Merge = Some(&["type"]);
const BY_NAME: Merge = Some(&["name"]);

static META: Type =
    Type(&[("finalizers", Some(&[]), None), ("ownerReferences", Some(&["uid"]), None)]);
static PLAIN: Type = Type(&[("metadata", None, Some(&META))]);
static CONDITIONS: Type = Type(&[("conditions", BY_TYPE, None)]);
static WITH_CONDITIONS: Type =
    Type(&[("metadata", None, Some(&META)), ("status", None, Some(&CONDITIONS))]);
static WEBHOOKS: Type = Type(&[("metadata", None, Some(&META)), ("webhooks", BY_NAME, None)]);
static COMPONENT_STATUS: Type =
    Type(&[("metadata", None, Some(&META)), ("conditions", BY_TYPE, None)]);
static CONTAINER: Type = Type(&[
    ("env", BY_NAME, None),
    ("ports", Some(&["containerPort", "protocol"]), None),
    ("volumeDevices", Some(&["devicePath"]), None),
    ("volumeMounts", Some(&["mountPath"]), None),
]);
static EPHEMERAL_CONTAINER: Type = Type(&[
    ("env", BY_NAME, None),
    ("volumeDevices", Some(&["devicePath"]), None),
    ("volumeMounts", Some(&["mountPath"]), None),
]);
static EPHEMERAL_VOLUME: Type = Type(&[("volumeClaimTemplate", None, Some(&PLAIN))]);
static VOLUME: Type = Type(&[("ephemeral", None, Some(&EPHEMERAL_VOLUME))]);
static POD_SPEC: Type = Type(&[
    ("containers", BY_NAME, Some(&CONTAINER)),
    ("ephemeralContainers", BY_NAME, Some(&EPHEMERAL_CONTAINER)),
    ("hostAliases", Some(&["ip"]), None),
    ("imagePullSecrets", BY_NAME, None),
    ("initContainers", BY_NAME, Some(&CONTAINER)),
    ("topologySpreadConstraints", Some(&["topologyKey", "whenUnsatisfiable"]), None),
    ("volumes", BY_NAME, Some(&VOLUME)),
]);
static POD_STATUS: Type = Type(&[("conditions", BY_TYPE, None), ("podIPs", Some(&["ip"]), None)]);
static POD: Type = Type(&[
    ("metadata", None, Some(&META)),
    ("spec", None, Some(&POD_SPEC)),
    ("status", None, Some(&POD_STATUS)),
]);
static POD_TEMPLATE_SPEC: Type =
    Type(&[("metadata", None, Some(&META)), ("spec", None, Some(&POD_SPEC))]);
static POD_TEMPLATE: Type =
    Type(&[("metadata", None, Some(&META)), ("template", None, Some(&POD_TEMPLATE_SPEC))]);
static WORKLOAD_SPEC: Type = Type(&[("template", None, Some(&POD_TEMPLATE_SPEC))]);
static WORKLOAD: Type = Type(&[
    ("metadata", None, Some(&META)),
    ("spec", None, Some(&WORKLOAD_SPEC)),
    ("status", None, Some(&CONDITIONS)),
]);
static STATEFUL_SET_SPEC: Type = Type(&[
    ("template", None, Some(&POD_TEMPLATE_SPEC)),
    ("volumeClaimTemplates", None, Some(&WITH_CONDITIONS)),
]);
static STATEFUL_SET: Type = Type(&[
    ("metadata", None, Some(&META)),
    ("spec", None, Some(&STATEFUL_SET_SPEC)),
    ("status", None, Some(&CONDITIONS)),
]);
static JOB_TEMPLATE: Type =
    Type(&[("metadata", None, Some(&META)), ("spec", None, Some(&WORKLOAD_SPEC))]);
static CRON_JOB_SPEC: Type = Type(&[("jobTemplate", None, Some(&JOB_TEMPLATE))]);
static CRON_JOB: Type =
    Type(&[("metadata", None, Some(&META)), ("spec", None, Some(&CRON_JOB_SPEC))]);
static NODE_SPEC: Type = Type(&[("podCIDRs", Some(&[]), None)]);
static NODE_STATUS: Type = Type(&[("addresses", BY_TYPE, None), ("conditions", BY_TYPE, None)]);
static NODE: Type = Type(&[
    ("metadata", None, Some(&META)),
    ("spec", None, Some(&NODE_SPEC)),
    ("status", None, Some(&NODE_STATUS)),
]);
static SERVICE_SPEC: Type = Type(&[("ports", Some(&["port", "protocol"]), None)]);
static SERVICE: Type = Type(&[
    ("metadata", None, Some(&META)),
    ("spec", None, Some(&SERVICE_SPEC)),
    ("status", None, Some(&CONDITIONS)),
]);
static SERVICE_ACCOUNT: Type = Type(&[("metadata", None, Some(&META)), ("secrets", BY_NAME, None)]);
static CSI_NODE_SPEC: Type = Type(&[("drivers", BY_NAME, None)]);
static CSI_NODE: Type =
    Type(&[("metadata", None, Some(&META)), ("spec", None, Some(&CSI_NODE_SPEC))]);

/// Whether each kind is namespaced, by kind: group, version, answer.
fn kinds(kind: &str) -> &'static [(&'static str, &'static str, bool)] {
    type Kinds = HashMap<&'static str, Vec<(&'static str, &'static str, bool)>>;
    static KINDS: LazyLock<Kinds> = LazyLock::new(|| {
        let mut all = Kinds::new();
        for (table, namespaced) in [(NAMESPACED, true), (CLUSTER_SCOPED, false)] {
            for (api_version, kinds) in table {
                let (group, version) = resid::split(api_version);
                for kind in *kinds {
                    all.entry(kind).or_default().push((group, version, namespaced));
                }
            }
        }
        all
    });
    KINDS.get(kind).map_or(&[], Vec::as_slice)
}

/// Whether a kind is known to be namespaced (`true`) or cluster-scoped (`false`).
pub(crate) fn scope(group: &str, version: &str, kind: &str) -> Option<bool> {
    let mut known = kinds(kind).iter();
    let found = known.find(|known| known.0 == group && known.1 == version);
    found.map(|(.., namespaced)| *namespaced)
}

/// The built-in type of a kind.
pub(crate) fn type_of(api_version: &str, kind: &str) -> Option<&'static Type> {
    let (group, version) = resid::split(api_version);
    scope(group, version, kind)?;
    Some(match kind {
        // These came after the version whose types are known.
        "ValidatingAdmissionPolicy" | "ValidatingAdmissionPolicyBinding" => return None,
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => &WEBHOOKS,
        "Deployment" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => &WORKLOAD,
        "StatefulSet" => &STATEFUL_SET,
        "CronJob" => &CRON_JOB,
        "Pod" => &POD,
        "PodTemplate" => &POD_TEMPLATE,
        "Service" => &SERVICE,
        "ServiceAccount" => &SERVICE_ACCOUNT,
        "Node" => &NODE,
        "CSINode" => &CSI_NODE,
        "ComponentStatus" => &COMPONENT_STATUS,
        "Namespace" | "PersistentVolumeClaim" | "PodDisruptionBudget" | "APIService" => {
            &WITH_CONDITIONS
        }
        _ => &PLAIN,
    })
}

/// The built-in type of a definition, as OpenAPI documents name it; for schemas that refer to
/// types without bringing them along.
pub(crate) fn definition(name: &str) -> Option<&'static Type> {
    let name = name.strip_prefix("io.k8s.")?;
    let (group, name) = name.rsplit_once('.')?;
    Some(match (group, name) {
        ("apimachinery.pkg.apis.meta.v1", "ObjectMeta") => &META,
        ("api.core.v1", "PodTemplateSpec") => &POD_TEMPLATE_SPEC,
        ("api.core.v1", "PodSpec") => &POD_SPEC,
        ("api.core.v1", "Pod") => &POD,
        ("api.core.v1", "PodTemplate") => &POD_TEMPLATE,
        ("api.core.v1", "PodStatus") => &POD_STATUS,
        ("api.core.v1", "Container") => &CONTAINER,
        ("api.core.v1", "EphemeralContainer") => &EPHEMERAL_CONTAINER,
        ("api.core.v1", "Volume") => &VOLUME,
        ("api.core.v1", "EphemeralVolumeSource") => &EPHEMERAL_VOLUME,
        ("api.core.v1", "PersistentVolumeClaimTemplate") => &PLAIN,
        ("api.core.v1", "PersistentVolumeClaim" | "Namespace") => &WITH_CONDITIONS,
        ("api.core.v1", "Service") => &SERVICE,
        ("api.core.v1", "ServiceSpec") => &SERVICE_SPEC,
        ("api.core.v1", "ServiceAccount") => &SERVICE_ACCOUNT,
        ("api.core.v1", "NodeSpec") => &NODE_SPEC,
        ("api.core.v1", "NodeStatus") => &NODE_STATUS,
        ("api.core.v1", "ReplicationControllerSpec")
        | ("api.apps.v1", "DeploymentSpec" | "DaemonSetSpec" | "ReplicaSetSpec")
        | ("api.batch.v1", "JobSpec") => &WORKLOAD_SPEC,
        ("api.apps.v1", "StatefulSetSpec") => &STATEFUL_SET_SPEC,
        ("api.apps.v1", "StatefulSet") => &STATEFUL_SET,
        ("api.core.v1", "ReplicationController")
        | ("api.apps.v1", "Deployment" | "DaemonSet" | "ReplicaSet")
        | ("api.batch.v1", "Job") => &WORKLOAD,
        ("api.batch.v1" | "api.batch.v1beta1", "JobTemplateSpec") => &JOB_TEMPLATE,
        ("api.batch.v1" | "api.batch.v1beta1", "CronJobSpec") => &CRON_JOB_SPEC,
        ("api.batch.v1" | "api.batch.v1beta1", "CronJob") => &CRON_JOB,
        ("api.storage.v1" | "api.storage.v1beta1", "CSINodeSpec") => &CSI_NODE_SPEC,
        _ => return None,
    })
}
