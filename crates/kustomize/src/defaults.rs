//! The built-in field specs.

use crate::config::{BackReferences, Config};
use crate::fieldspec::FieldSpec;
use crate::resid::Gvk;

fn gvk(group: &str, version: &str, kind: &str) -> Gvk {
    Gvk { group: group.into(), version: version.into(), kind: kind.into() }
}

fn spec(group: &str, version: &str, kind: &str, path: &str, create: bool) -> FieldSpec {
    FieldSpec::new(gvk(group, version, kind), path, create)
}

/// Makes specs of `(group, version, kind, path)`.
fn specs(table: &[(&str, &str, &str, &str)], create: bool) -> Vec<FieldSpec> {
    table
        .iter()
        .map(|(group, version, kind, path)| spec(group, version, kind, path, create))
        .collect()
}

/// Where labels go that select nothing.
const METADATA_LABELS: &[(&str, &str, &str, &str)] = &[
    ("", "", "", "metadata/labels"),
    ("", "v1", "ReplicationController", "spec/template/metadata/labels"),
    ("", "", "Deployment", "spec/template/metadata/labels"),
    ("", "", "ReplicaSet", "spec/template/metadata/labels"),
    ("", "", "DaemonSet", "spec/template/metadata/labels"),
    ("apps", "", "StatefulSet", "spec/template/metadata/labels"),
    ("batch", "", "Job", "spec/template/metadata/labels"),
    ("batch", "", "CronJob", "spec/jobTemplate/metadata/labels"),
    ("batch", "", "CronJob", "spec/jobTemplate/spec/template/metadata/labels"),
];

const CLAIM_LABELS: &[(&str, &str, &str, &str)] =
    &[("apps", "", "StatefulSet", "spec/volumeClaimTemplates[]/metadata/labels")];

const ANNOTATIONS: &[(&str, &str, &str, &str)] = &[
    ("", "", "", "metadata/annotations"),
    ("", "v1", "ReplicationController", "spec/template/metadata/annotations"),
    ("", "", "Deployment", "spec/template/metadata/annotations"),
    ("", "", "ReplicaSet", "spec/template/metadata/annotations"),
    ("", "", "DaemonSet", "spec/template/metadata/annotations"),
    ("", "", "StatefulSet", "spec/template/metadata/annotations"),
    ("batch", "", "Job", "spec/template/metadata/annotations"),
    ("batch", "", "CronJob", "spec/jobTemplate/metadata/annotations"),
    ("batch", "", "CronJob", "spec/jobTemplate/spec/template/metadata/annotations"),
];

/// Selectors that get labels even where there is none yet.
const SELECTORS_MADE: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "Service", "spec/selector"),
    ("", "v1", "ReplicationController", "spec/selector"),
    ("", "", "Deployment", "spec/selector/matchLabels"),
    ("", "", "ReplicaSet", "spec/selector/matchLabels"),
    ("", "", "DaemonSet", "spec/selector/matchLabels"),
    ("apps", "", "StatefulSet", "spec/selector/matchLabels"),
];

/// Selectors that get labels where they are.
const SELECTORS_FOUND: &[(&str, &str, &str, &str)] = &[
    ("batch", "", "Job", "spec/selector/matchLabels"),
    ("batch", "", "CronJob", "spec/jobTemplate/spec/selector/matchLabels"),
    ("policy", "", "PodDisruptionBudget", "spec/selector/matchLabels"),
    ("networking.k8s.io", "", "NetworkPolicy", "spec/podSelector/matchLabels"),
    ("networking.k8s.io", "", "NetworkPolicy", "spec/ingress/from/podSelector/matchLabels"),
    ("networking.k8s.io", "", "NetworkPolicy", "spec/egress/to/podSelector/matchLabels"),
];

/// Selectors inside the pod template of a Deployment or StatefulSet.
const SCHEDULING_SELECTORS: &[&str] = &[
    "affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
    "affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
    "affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "topologySpreadConstraints/labelSelector/matchLabels",
];

const IMAGES: &[&str] = &[
    "spec/containers[]/image",
    "spec/initContainers[]/image",
    "spec/volumes[]/image/reference",
    "spec/template/spec/containers[]/image",
    "spec/template/spec/initContainers[]/image",
    "spec/template/spec/volumes[]/image/reference",
    "spec/jobTemplate/spec/template/spec/volumes[]/image/reference",
];

/// Where the pod spec is in the kinds whose references to ConfigMaps and Secrets are followed.
const PODS: &[(&str, &str)] = &[
    ("Pod", "spec/"),
    ("PodTemplate", "template/spec/"),
    ("Deployment", "spec/template/spec/"),
    ("ReplicaSet", "spec/template/spec/"),
    ("DaemonSet", "spec/template/spec/"),
    ("StatefulSet", "spec/template/spec/"),
    ("Job", "spec/template/spec/"),
    ("CronJob", "spec/jobTemplate/spec/template/spec/"),
];

/// Where the pod spec is in the kinds whose other references are followed.
const OTHER_PODS: &[(&str, &str)] = &[
    ("Pod", "spec/"),
    ("StatefulSet", "spec/template/spec/"),
    ("Deployment", "spec/template/spec/"),
    ("ReplicationController", "spec/template/spec/"),
    ("CronJob", "spec/jobTemplate/spec/template/spec/"),
    ("Job", "spec/template/spec/"),
    ("DaemonSet", "spec/template/spec/"),
];

const CONFIG_MAP_IN_POD: &[&str] = &[
    "volumes/configMap/name",
    "containers/env/valueFrom/configMapKeyRef/name",
    "initContainers/env/valueFrom/configMapKeyRef/name",
    "containers/envFrom/configMapRef/name",
    "initContainers/envFrom/configMapRef/name",
    "volumes/projected/sources/configMap/name",
];

const SECRET_IN_POD: &[&str] = &[
    "volumes/secret/secretName",
    "containers/env/valueFrom/secretKeyRef/name",
    "initContainers/env/valueFrom/secretKeyRef/name",
    "containers/envFrom/secretRef/name",
    "initContainers/envFrom/secretRef/name",
    "imagePullSecrets/name",
    "volumes/projected/sources/secret/name",
];

const SECRET_ELSEWHERE: &[(&str, &str, &str, &str)] = &[
    ("", "", "Ingress", "spec/tls/secretName"),
    ("", "", "Ingress", "metadata/annotations/ingress.kubernetes.io\\/auth-secret"),
    ("", "", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-secret"),
    ("", "", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-tls-secret"),
    ("", "", "ServiceAccount", "imagePullSecrets/name"),
    ("", "", "StorageClass", "parameters/secretName"),
    ("", "", "StorageClass", "parameters/adminSecretName"),
    ("", "", "StorageClass", "parameters/userSecretName"),
    ("", "", "StorageClass", "parameters/secretRef"),
    ("", "", "Role", "rules/resourceNames"),
    ("", "", "ClusterRole", "rules/resourceNames"),
    (
        "serving.knative.dev",
        "v1",
        "Service",
        "spec/template/spec/containers/env/valueFrom/secretKeyRef/name",
    ),
    ("", "", "PersistentVolume", "spec/azureFile/secretName"),
];

const CONFIG_MAP_ELSEWHERE: &[(&str, &str, &str, &str)] = &[
    ("", "", "Node", "spec/configSource/configMap"),
    ("", "", "Role", "rules/resourceNames"),
    ("", "", "ClusterRole", "rules/resourceNames"),
    (
        "",
        "",
        "Ingress",
        "metadata/annotations/nginx.ingress.kubernetes.io\\/fastcgi-params-configmap",
    ),
];

const SERVICES: &[(&str, &str, &str, &str)] = &[
    ("apps", "", "StatefulSet", "spec/serviceName"),
    ("", "", "Ingress", "spec/rules/http/paths/backend/serviceName"),
    ("", "", "Ingress", "spec/backend/serviceName"),
    ("", "", "Ingress", "spec/rules/http/paths/backend/service/name"),
    ("", "", "Ingress", "spec/defaultBackend/service/name"),
    ("apiregistration.k8s.io", "", "APIService", "spec/service/name"),
    (
        "admissionregistration.k8s.io",
        "",
        "ValidatingWebhookConfiguration",
        "webhooks/clientConfig/service",
    ),
    (
        "admissionregistration.k8s.io",
        "",
        "MutatingWebhookConfiguration",
        "webhooks/clientConfig/service",
    ),
];

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// Where the pod spec is in the kinds in which variables are replaced.
const VAR_PODS: &[(&str, &str)] = &[
    ("CronJob", "spec/jobTemplate/spec/template/spec/"),
    ("DaemonSet", "spec/template/spec/"),
    ("Deployment", "spec/template/spec/"),
    ("Job", "spec/template/spec/"),
    ("Pod", "spec/"),
    ("ReplicaSet", "spec/template/spec/"),
    ("StatefulSet", "spec/template/spec/"),
];

const VARS_IN_POD: &[&str] = &[
    "containers/args",
    "containers/command",
    "containers/env/value",
    "containers/volumeMounts/mountPath",
    "initContainers/args",
    "initContainers/command",
    "initContainers/env/value",
    "initContainers/volumeMounts/mountPath",
];

const VARS_ELSEWHERE: &[(&str, &str, &str, &str)] = &[
    // Not where a CronJob has its volumes, but the reference looks there.
    ("", "", "CronJob", "spec/jobTemplate/spec/template/volumes/nfs/server"),
    ("", "", "DaemonSet", "spec/template/spec/volumes/nfs/server"),
    ("", "", "Deployment", "spec/template/spec/volumes/nfs/server"),
    ("", "", "Deployment", "spec/template/metadata/annotations"),
    ("", "", "Ingress", "spec/rules/host"),
    ("", "", "Ingress", "spec/tls/hosts"),
    ("", "", "Ingress", "spec/tls/secretName"),
    ("", "", "Job", "spec/template/spec/volumes/nfs/server"),
    ("", "", "Pod", "spec/volumes/nfs/server"),
    ("", "", "ReplicaSet", "spec/template/spec/volumes/nfs/server"),
    ("", "", "Service", "spec/ports/port"),
    ("", "", "Service", "spec/ports/targetPort"),
    ("", "", "StatefulSet", "spec/volumeClaimTemplates/spec/nfs/server"),
    ("", "", "PersistentVolume", "spec/nfs/server"),
    ("", "", "", "metadata/labels"),
    ("", "", "", "metadata/annotations"),
];

/// All of it.
pub(crate) fn config() -> Config {
    let mut common_labels = specs(SELECTORS_MADE, true);
    for kind in ["Deployment", "StatefulSet"] {
        for path in SCHEDULING_SELECTORS {
            let path = format!("spec/template/spec/{path}");
            common_labels.push(spec("apps", "", kind, &path, false));
        }
    }
    common_labels.extend(specs(SELECTORS_FOUND, false));
    common_labels.extend(specs(METADATA_LABELS, true));
    common_labels.extend(specs(CLAIM_LABELS, true));
    let mut var_reference = in_pods(VAR_PODS, VARS_IN_POD);
    var_reference.extend(specs(VARS_ELSEWHERE, false));
    let mut namespace = vec![
        spec("", "", "Namespace", "metadata/name", true),
        spec("apiregistration.k8s.io", "", "APIService", "spec/service/namespace", true),
    ];
    namespace.push(spec(
        "apiextensions.k8s.io",
        "",
        "CustomResourceDefinition",
        "spec/conversion/webhook/clientConfig/service/namespace",
        false,
    ));
    Config {
        name_prefix: specs(&[("", "", "", "metadata/name")], false),
        name_suffix: specs(&[("", "", "", "metadata/name")], false),
        namespace,
        common_labels,
        labels: Vec::new(),
        template_labels: specs(METADATA_LABELS, true),
        claim_labels: specs(CLAIM_LABELS, true),
        common_annotations: specs(ANNOTATIONS, true),
        name_reference: references(),
        var_reference,
        images: IMAGES.iter().map(|path| spec("", "", "", path, true)).collect(),
        replicas: ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"]
            .map(|kind| spec("", "", kind, "spec/replicas", true))
            .into(),
    }
}

fn in_pods(pods: &[(&str, &str)], paths: &[&str]) -> Vec<FieldSpec> {
    let mut specs = Vec::new();
    for (kind, prefix) in pods {
        specs
            .extend(paths.iter().map(|path| spec("", "", kind, &format!("{prefix}{path}"), false)));
    }
    specs
}

/// References from pods; those from the Pod itself only in version v1.
fn from_pods(paths: &[&str]) -> Vec<FieldSpec> {
    let mut specs = in_pods(PODS, paths);
    for spec in &mut specs {
        if spec.gvk.kind == "Pod" {
            spec.gvk.version = "v1".into();
        }
    }
    specs
}

fn references() -> Vec<BackReferences> {
    let mut all = Vec::new();
    let mut add = |group: &str, version: &str, kind: &str, referrers: Vec<FieldSpec>| {
        all.push(BackReferences { target: gvk(group, version, kind), referrers });
    };
    for kind in ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"] {
        add(
            "",
            "",
            kind,
            specs(&[("", "", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name")], false),
        );
    }
    let mut config_maps = from_pods(CONFIG_MAP_IN_POD);
    config_maps.extend(specs(CONFIG_MAP_ELSEWHERE, false));
    add("", "v1", "ConfigMap", config_maps);
    let mut secrets = from_pods(SECRET_IN_POD);
    secrets.extend(specs(SECRET_ELSEWHERE, false));
    add("", "v1", "Secret", secrets);
    add("", "v1", "Service", specs(SERVICES, false));
    add(RBAC, "", "Role", specs(&[(RBAC, "", "RoleBinding", "roleRef/name")], false));
    let bindings = [
        (RBAC, "", "RoleBinding", "roleRef/name"),
        (RBAC, "", "ClusterRoleBinding", "roleRef/name"),
    ];
    add(RBAC, "", "ClusterRole", specs(&bindings, false));
    let mut accounts = specs(
        &[(RBAC, "", "RoleBinding", "subjects"), (RBAC, "", "ClusterRoleBinding", "subjects")],
        false,
    );
    accounts.extend(in_pods(OTHER_PODS, &["serviceAccountName"]));
    add("", "v1", "ServiceAccount", accounts);
    let claims = in_pods(OTHER_PODS, &["volumes/persistentVolumeClaim/claimName"]);
    add("", "v1", "PersistentVolumeClaim", claims);
    let volumes = [
        ("", "", "PersistentVolumeClaim", "spec/volumeName"),
        ("", "", "ClusterRole", "rules/resourceNames"),
    ];
    add("", "v1", "PersistentVolume", specs(&volumes, false));
    let classes = [
        ("", "", "PersistentVolume", "spec/storageClassName"),
        ("", "", "PersistentVolumeClaim", "spec/storageClassName"),
        ("", "", "StatefulSet", "spec/volumeClaimTemplates/spec/storageClassName"),
    ];
    add("storage.k8s.io", "v1", "StorageClass", specs(&classes, false));
    add("scheduling.k8s.io", "v1", "PriorityClass", in_pods(OTHER_PODS, &["priorityClassName"]));
    // The group has a version in it, so that nothing ever matches; the reference has it so.
    let ingresses = [("", "", "Ingress", "spec/ingressClassName")];
    add("networking.k8s.io/v1", "v1", "IngressClass", specs(&ingresses, false));
    let policies = [(ADMISSION, "", "ValidatingAdmissionPolicyBinding", "spec/policyName")];
    add(ADMISSION, "", "ValidatingAdmissionPolicy", specs(&policies, false));
    all
}
