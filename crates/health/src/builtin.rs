//! The kinds that Kubernetes itself has.
//!
//! Rules for workloads follow kstatus (sigs.k8s.io/cli-utils), with three differences, since what
//! is waited for should have happened: a Job that runs is Progressing, a Pod that failed is
//! Degraded, and a Service of type `LoadBalancer` is Progressing until it has an address.

use serde_json::Value;

use crate::conditions::{self, find, is_stale};
use crate::health::Health::{Degraded, Healthy, Progressing, Suspended, Unknown};
use crate::health::Verdict;

/// The groups of Kubernetes itself. Objects of their kinds work by being there, unless there is a
/// rule that says otherwise.
const GROUPS: [&str; 21] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// Whether a group is one of Kubernetes itself, and its kinds so as they are for the life of an API server.
pub fn is_kubernetes(group: &str) -> bool {
    GROUPS.contains(&group)
}

/// Kinds of Kubernetes itself whose objects have no status: there is nothing to be seen in them.
const WITHOUT_STATUS: [(&str, &[&str]); 10] = [
    (
        "",
        &[
            "ConfigMap",
            "Endpoints",
            "Event",
            "LimitRange",
            "PodTemplate",
            "Secret",
            "ServiceAccount",
        ],
    ),
    (
        "admissionregistration.k8s.io",
        &[
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    ("apps", &["ControllerRevision"]),
    ("coordination.k8s.io", &["Lease"]),
    ("discovery.k8s.io", &["EndpointSlice"]),
    ("networking.k8s.io", &["IngressClass", "NetworkPolicy"]),
    ("node.k8s.io", &["RuntimeClass"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]),
    ("scheduling.k8s.io", &["PriorityClass"]),
    ("storage.k8s.io", &["CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass"]),
];

/// Whether objects of a kind work by being there, so that nothing in them tells more, unless a user
/// has a rule for them.
pub fn works_by_being_there(group: &str, kind: &str) -> bool {
    WITHOUT_STATUS.iter().any(|(of, kinds)| *of == group && kinds.contains(&kind))
}

/// Says how an object of Kubernetes' own kinds is; nothing about others.
pub(crate) fn assess(group: &str, kind: &str, object: &Value) -> Option<Verdict> {
    if !is_kubernetes(group) {
        return None;
    }
    if is_stale(object) {
        return Some(Verdict::new(Progressing, "its newest spec has not been acted on yet"));
    }
    let conditions = conditions::all(object);
    if let Some(stalled) = conditions.iter().find(|c| c.kind == "Stalled" && c.is("True")) {
        return Some(Verdict::new(Degraded, stalled.words()));
    }
    Some(match (group, kind) {
        ("apps", "Deployment") => deployment(object),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => replica_set(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("batch", "Job") => job(object),
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "PersistentVolume") => volume(object),
        ("", "Service") => service(object),
        ("", "Namespace") => namespace(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        ("apiregistration.k8s.io", "APIService") => must_be(object, "Available"),
        ("policy", "PodDisruptionBudget") => budget(object),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler(object),
        ("certificates.k8s.io", "CertificateSigningRequest") => signing_request(object),
        _ => Verdict::new(Healthy, ""),
    })
}

fn healthy() -> Verdict {
    Verdict::new(Healthy, "")
}

fn progressing(reason: impl Into<String>) -> Verdict {
    Verdict::new(Progressing, reason)
}

/// A number of the status; what is left out is zero.
fn status(object: &Value, field: &str) -> i64 {
    object["status"][field].as_i64().unwrap_or(0)
}

/// How many replicas the spec asks for; one when it does not say.
fn replicas(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

/// "2 of 3 replicas are ready".
fn of(have: i64, want: i64, what: &str, are: &str) -> Verdict {
    let (noun, verb) =
        if want == 1 { (what.to_owned(), "is") } else { (format!("{what}s"), "are") };
    progressing(format!("{have} of {want} {noun} {verb} {are}"))
}

fn to_go(count: i64) -> Verdict {
    progressing(match count {
        1 => "1 replica has yet to go".to_owned(),
        count => format!("{count} replicas have yet to go"),
    })
}

fn must_be(object: &Value, kind: &str) -> Verdict {
    match find(object, kind) {
        Some(condition) if condition.is("True") => healthy(),
        Some(condition) => progressing(condition.words()),
        None => progressing(format!("it does not say yet whether it is {kind}")),
    }
}

/// <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status>
fn deployment(object: &Value) -> Verdict {
    let progress = find(object, "Progressing");
    if let Some(progress) = progress
        && progress.reason == "ProgressDeadlineExceeded"
    {
        return Verdict::new(Degraded, progress.words()).for_good();
    }
    let (want, have) = (replicas(object), status(object, "replicas"));
    let (updated, available) =
        (status(object, "updatedReplicas"), status(object, "availableReplicas"));
    if object["spec"]["paused"] == true && updated < want {
        return Verdict::new(Suspended, "its rollout is paused");
    }
    if updated < want {
        return of(updated, want, "replica", "updated");
    }
    if have > want {
        return to_go(have - want);
    }
    if available < updated {
        return of(available, want, "replica", "available");
    }
    if status(object, "readyReplicas") < want {
        return of(status(object, "readyReplicas"), want, "replica", "ready");
    }
    match find(object, "Available") {
        Some(available) if !available.is("True") => progressing(available.words()),
        _ => healthy(),
    }
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/replica-set-v1/#ReplicaSetStatus>
fn replica_set(object: &Value) -> Verdict {
    if let Some(failure) = find(object, "ReplicaFailure").filter(|c| c.is("True")) {
        return Verdict::new(Degraded, failure.words());
    }
    let want = replicas(object);
    for (field, are) in [
        ("fullyLabeledReplicas", "labelled"),
        ("availableReplicas", "available"),
        ("readyReplicas", "ready"),
    ] {
        if status(object, field) < want {
            return of(status(object, field), want, "replica", are);
        }
    }
    let have = status(object, "replicas");
    if have > want {
        return to_go(have - want);
    }
    healthy()
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/stateful-set-v1/#StatefulSetStatus>
fn stateful_set(object: &Value) -> Verdict {
    let strategy = &object["spec"]["updateStrategy"];
    let (want, have) = (replicas(object), status(object, "replicas"));
    if have < want {
        return of(have, want, "replica", "created");
    }
    if status(object, "readyReplicas") < want {
        return of(status(object, "readyReplicas"), want, "replica", "ready");
    }
    if have > want {
        return to_go(have - want);
    }
    if strategy["type"] == "OnDelete" {
        return healthy();
    }
    let updated = status(object, "updatedReplicas");
    let partition = strategy["rollingUpdate"]["partition"].as_i64().unwrap_or(0);
    if partition > 0 {
        let wanted = (want - partition).max(0);
        if updated < wanted {
            return of(updated, wanted, "replica", "updated");
        }
        return healthy();
    }
    let (current, update) =
        (&object["status"]["currentRevision"], &object["status"]["updateRevision"]);
    if current != update {
        return of(updated, want, "replica", "updated");
    }
    healthy()
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/daemon-set-v1/#DaemonSetStatus>
fn daemon_set(object: &Value) -> Verdict {
    let state = &object["status"];
    if state["observedGeneration"].is_null() || state["desiredNumberScheduled"].is_null() {
        return progressing("no nodes have been chosen yet");
    }
    let want = status(object, "desiredNumberScheduled");
    let mut fields = vec![("currentNumberScheduled", "scheduled")];
    if object["spec"]["updateStrategy"]["type"] != "OnDelete" {
        fields.push(("updatedNumberScheduled", "updated"));
    }
    fields.extend([("numberAvailable", "available"), ("numberReady", "ready")]);
    for (field, are) in fields {
        if status(object, field) < want {
            return of(status(object, field), want, "pod", are);
        }
    }
    healthy()
}

/// <https://kubernetes.io/docs/concepts/workloads/controllers/job/>
fn job(object: &Value) -> Verdict {
    if let Some(failed) = find(object, "Failed").filter(|c| c.is("True")) {
        return Verdict::new(Degraded, failed.words()).for_good();
    }
    if find(object, "Complete").is_some_and(|c| c.is("True")) {
        return healthy();
    }
    if object["spec"]["suspend"] == true {
        return Verdict::new(Suspended, "it is suspended");
    }
    if object["status"]["startTime"].is_null() {
        return progressing("it has not started yet");
    }
    let want = object["spec"]["completions"].as_i64().unwrap_or(1);
    of(status(object, "succeeded"), want, "pod", "complete")
}

/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>
fn pod(object: &Value) -> Verdict {
    let state = &object["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let phase = state["phase"].as_str().unwrap_or_default();
    match phase {
        "Succeeded" => return healthy(),
        "Failed" => {
            let reason = trouble(object).unwrap_or_else(|| {
                let (reason, message) = (text(&state["reason"]), text(&state["message"]));
                if message.is_empty() { reason } else { message }
            });
            return Verdict::new(Degraded, reason).for_good();
        }
        "Unknown" => return Verdict::new(Unknown, "its node does not answer"),
        _ => {}
    }
    if let Some(trouble) = trouble(object) {
        return Verdict::new(Degraded, trouble);
    }
    if phase == "Running" && find(object, "Ready").is_some_and(|c| c.is("True")) {
        return healthy();
    }
    if let Some(scheduled) = find(object, "PodScheduled").filter(|c| c.is("False")) {
        return progressing(scheduled.words());
    }
    match find(object, "Ready") {
        Some(ready) if !ready.message.is_empty() => progressing(ready.words()),
        _ if phase.is_empty() => progressing("no node has been chosen yet"),
        _ => progressing(format!("it is {phase}")),
    }
}

/// Why containers wait that will not start by waiting.
/// <https://kubernetes.io/docs/tasks/debug/debug-application/debug-pods/>
const STUCK: [&str; 9] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Whether what is said of a container that waits may quote what it is given: a runtime names the command
/// that it cannot start, and a kubelet the path that it cannot mount, with the values that stand in them.
fn quotes(waiting: &Value) -> bool {
    let text = |field: &str| waiting[field].as_str().unwrap_or_default();
    match text("reason") {
        "CreateContainerError" | "RunContainerError" => true,
        "CreateContainerConfigError" => text("message").contains("SubPath"),
        _ => false,
    }
}

/// Takes from a Pod the words that may quote what its containers are given: their last ones, and those on
/// why one could not be started. The reasons are left.
pub fn hush(pod: &mut Value) {
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    for list in lists {
        let containers = pod.pointer_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for ended in ["/state/terminated", "/lastState/terminated"] {
                forget_message(container, ended);
            }
            if quotes(&container["state"]["waiting"]) {
                forget_message(container, "/state/waiting");
            }
        }
    }
}

fn forget_message(container: &mut Value, of: &str) {
    if let Some(state) = container.pointer_mut(of).and_then(Value::as_object_mut) {
        state.remove("message");
    }
}

/// Whether containers of a Pod are given values of Secrets, which their last words may quote: a program
/// that cannot connect likes to say with which password.
fn is_given_secrets(pod: &Value) -> bool {
    let items = |list: &'static str, of: &Value, holds: fn(&Value) -> bool| {
        of[list].as_array().into_iter().flatten().any(holds)
    };
    let spec = &pod["spec"];
    let is_secret = |volume: &Value| volume["secret"].is_object();
    let mounts = spec["volumes"].as_array().into_iter().flatten().any(|volume| {
        is_secret(volume)
            || items("sources", &volume["projected"], |source| source["secret"].is_object())
    });
    let lists = ["initContainers", "containers"].into_iter();
    let mut containers = lists.filter_map(|list| spec[list].as_array()).flatten();
    mounts
        || containers.any(|container| {
            items("env", container, |one| one["valueFrom"]["secretKeyRef"].is_object())
                || items("envFrom", container, |one| one["secretRef"].is_object())
        })
}

/// What keeps a Pod from running, in the words of its container.
fn trouble(pod: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    let lists = ["initContainerStatuses", "containerStatuses"].into_iter();
    let mut containers = lists.filter_map(|list| pod["status"][list].as_array()).flatten();
    containers.find_map(|container| {
        let name = text(&container["name"]);
        // Its own words, where it left some and they cannot hold what is not to be told.
        let why = |ended: &Value| match text(&ended["message"]) {
            message if message.is_empty() || is_given_secrets(pod) => text(&ended["reason"]),
            message => message,
        };
        let waiting = &container["state"]["waiting"];
        let reason = text(&waiting["reason"]);
        if STUCK.contains(&&*reason) {
            let last = &container["lastState"]["terminated"];
            let said = match last["exitCode"].as_i64() {
                Some(code) => format!(": it ended with {code}: {}", why(last)),
                None => match text(&waiting["message"]) {
                    message if message.is_empty() => message,
                    _ if quotes(waiting) && is_given_secrets(pod) => String::new(),
                    message => format!(": {message}"),
                },
            };
            return Some(format!("container {name} is in {reason}{said}"));
        }
        let ended = &container["state"]["terminated"];
        let code = ended["exitCode"].as_i64().filter(|code| *code != 0)?;
        let failed = pod["status"]["phase"] == "Failed";
        failed.then(|| format!("container {name} ended with {code}: {}", why(ended)))
    })
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/persistent-volume-claim-v1/#PersistentVolumeClaimStatus>
fn claim(object: &Value) -> Verdict {
    match object["status"]["phase"].as_str().unwrap_or_default() {
        "Bound" => healthy(),
        "Lost" => Verdict::new(Degraded, "its volume is lost").for_good(),
        "" => progressing("it is not bound to a volume yet"),
        phase => progressing(format!("it is {phase}")),
    }
}

/// <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#phase>
fn volume(object: &Value) -> Verdict {
    match object["status"]["phase"].as_str().unwrap_or_default() {
        "Available" | "Bound" | "Released" => healthy(),
        "Failed" => {
            let message = object["status"]["message"].as_str().unwrap_or_default();
            Verdict::new(Degraded, message)
        }
        "" => progressing("it is not available yet"),
        phase => progressing(format!("it is {phase}")),
    }
}

/// <https://kubernetes.io/docs/concepts/services-networking/service/#loadbalancer>
fn service(object: &Value) -> Verdict {
    let balances = object["spec"]["type"] == "LoadBalancer";
    let addresses = object["status"]["loadBalancer"]["ingress"].as_array();
    if balances && addresses.is_none_or(Vec::is_empty) {
        return progressing("its load balancer has no address yet");
    }
    healthy()
}

fn namespace(object: &Value) -> Verdict {
    if object["status"]["phase"] == "Terminating" {
        return progressing("it is being deleted");
    }
    healthy()
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/#CustomResourceDefinitionStatus>
fn definition(object: &Value) -> Verdict {
    if find(object, "Terminating").is_some_and(|c| c.is("True")) {
        return progressing("it is being deleted");
    }
    if let Some(names) = find(object, "NamesAccepted").filter(|c| c.is("False")) {
        return Verdict::new(Degraded, names.words());
    }
    if let Some(schema) = find(object, "NonStructuralSchema").filter(|c| c.is("True")) {
        return Verdict::new(Degraded, schema.words());
    }
    match find(object, "Established") {
        Some(established) if established.is("True") => healthy(),
        Some(established) if established.is("False") && established.reason != "Installing" => {
            Verdict::new(Degraded, established.words())
        }
        Some(established) => progressing(established.words()),
        None => progressing("it is not established yet"),
    }
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/pod-disruption-budget-v1/#PodDisruptionBudgetStatus>
fn budget(object: &Value) -> Verdict {
    if object["status"]["observedGeneration"].is_null() {
        return progressing("it has not been looked at yet");
    }
    match find(object, "DisruptionAllowed") {
        Some(allowed) if allowed.reason == "SyncFailed" => Verdict::new(Degraded, allowed.words()),
        Some(allowed) if allowed.reason == "InsufficientPods" => progressing(allowed.words()),
        _ => healthy(),
    }
}

/// <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale-walkthrough/#appendix-horizontal-pod-autoscaler-status-conditions>
fn autoscaler(object: &Value) -> Verdict {
    if let Some(able) = find(object, "AbleToScale").filter(|c| c.is("False")) {
        return Verdict::new(Degraded, able.words());
    }
    match find(object, "ScalingActive") {
        Some(active) if active.is("False") && active.reason == "ScalingDisabled" => {
            Verdict::new(Suspended, active.words())
        }
        Some(active) if active.is("False") => Verdict::new(Degraded, active.words()),
        Some(_) => healthy(),
        None => progressing("it has not looked at its target yet"),
    }
}

/// <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>
fn signing_request(object: &Value) -> Verdict {
    for kind in ["Denied", "Failed"] {
        if let Some(condition) = find(object, kind).filter(|c| c.is("True")) {
            return Verdict::new(Degraded, condition.words()).for_good();
        }
    }
    if object["status"]["certificate"].is_null() {
        return progressing("there is no certificate yet");
    }
    healthy()
}

#[cfg(test)]
#[path = "builtin_tests.rs"]
mod tests;
