use serde_json::json;

use super::*;
use crate::health::Health;

fn said(group: &str, kind: &str, object: &Value) -> (Health, String, bool) {
    let verdict = assess(group, kind, object).unwrap();
    (verdict.health, verdict.reason, verdict.is_final)
}

/// Checks objects that differ from a healthy one in what is merged into it.
fn check(group: &str, kind: &str, healthy: &Value, cases: &[(Value, Health, &str)]) {
    assert_eq!(said(group, kind, healthy), (Healthy, String::new(), false), "{kind}");
    for (change, health, words) in cases {
        let mut object = healthy.clone();
        merge(&mut object, change);
        let (found, reason, _) = said(group, kind, &object);
        assert_eq!((found, reason.as_str()), (*health, *words), "{kind} with {change}");
    }
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (name, value) in change {
                if value.is_null() {
                    into.remove(name);
                } else {
                    merge(into.entry(name.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, change) => *into = change.clone(),
    }
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "so it is"})
}

#[test]
fn a_deployment_is_healthy_when_its_newest_pods_are_available() {
    let healthy = json!({
        "metadata": {"generation": 2}, "spec": {"replicas": 3},
        "status": {
            "observedGeneration": 2, "replicas": 3, "updatedReplicas": 3,
            "availableReplicas": 3, "readyReplicas": 3,
            "conditions": [condition("Available", "True", "MinimumReplicasAvailable")],
        },
    });
    let late = json!([condition("Progressing", "False", "ProgressDeadlineExceeded")]);
    let unavailable = json!([condition("Available", "False", "MinimumReplicasUnavailable")]);
    let cases = [
        (
            json!({"status": {"observedGeneration": 1}}),
            Progressing,
            "its newest spec has not been acted on yet",
        ),
        (json!({"status": null}), Progressing, "0 of 3 replicas are updated"),
        (
            json!({"spec": {"replicas": null}, "status": {"updatedReplicas": 0}}),
            Progressing,
            "0 of 1 replica is updated",
        ),
        (json!({"status": {"updatedReplicas": 2}}), Progressing, "2 of 3 replicas are updated"),
        (
            json!({"spec": {"paused": true}, "status": {"updatedReplicas": 1}}),
            Suspended,
            "its rollout is paused",
        ),
        (json!({"status": {"replicas": 4}}), Progressing, "1 replica has yet to go"),
        (json!({"status": {"availableReplicas": 1}}), Progressing, "1 of 3 replicas are available"),
        (json!({"status": {"readyReplicas": 2}}), Progressing, "2 of 3 replicas are ready"),
        (
            json!({"status": {"conditions": unavailable}}),
            Progressing,
            "MinimumReplicasUnavailable: so it is",
        ),
        (json!({"status": {"conditions": late}}), Degraded, "ProgressDeadlineExceeded: so it is"),
        (
            json!({"spec": {"replicas": 0}, "status": {"replicas": 0, "updatedReplicas": 0, "availableReplicas": 0, "readyReplicas": 0}}),
            Healthy,
            "",
        ),
    ];
    check("apps", "Deployment", &healthy, &cases);
}

#[test]
fn sets_of_pods_are_healthy_when_they_are_whole() {
    let healthy = json!({
        "spec": {"replicas": 2},
        "status": {"replicas": 2, "fullyLabeledReplicas": 2, "availableReplicas": 2, "readyReplicas": 2},
    });
    let cases = [
        (
            json!({"status": {"fullyLabeledReplicas": 1}}),
            Progressing,
            "1 of 2 replicas are labelled",
        ),
        (
            json!({"status": {"availableReplicas": null}}),
            Progressing,
            "0 of 2 replicas are available",
        ),
        (json!({"status": {"readyReplicas": 1}}), Progressing, "1 of 2 replicas are ready"),
        (json!({"status": {"replicas": 3}}), Progressing, "1 replica has yet to go"),
        (
            json!({"status": {"conditions": [condition("ReplicaFailure", "True", "FailedCreate")]}}),
            Degraded,
            "FailedCreate: so it is",
        ),
    ];
    check("apps", "ReplicaSet", &healthy, &cases);

    let healthy = json!({
        "spec": {"replicas": 2},
        "status": {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2, "currentRevision": "a", "updateRevision": "a"},
    });
    let rolling = |partition: u32| json!({"rollingUpdate": {"partition": partition}});
    let cases = [
        (json!({"status": {"replicas": 1}}), Progressing, "1 of 2 replicas are created"),
        (json!({"status": {"readyReplicas": 1}}), Progressing, "1 of 2 replicas are ready"),
        (json!({"status": {"replicas": 3}}), Progressing, "1 replica has yet to go"),
        (
            json!({"status": {"updateRevision": "b", "updatedReplicas": 1}}),
            Progressing,
            "1 of 2 replicas are updated",
        ),
        (
            json!({"spec": {"updateStrategy": rolling(1)}, "status": {"updateRevision": "b", "updatedReplicas": 1}}),
            Healthy,
            "",
        ),
        (
            json!({"spec": {"updateStrategy": rolling(1)}, "status": {"updateRevision": "b", "updatedReplicas": 0}}),
            Progressing,
            "0 of 1 replica is updated",
        ),
        (
            json!({"spec": {"updateStrategy": {"type": "OnDelete"}}, "status": {"updateRevision": "b"}}),
            Healthy,
            "",
        ),
    ];
    check("apps", "StatefulSet", &healthy, &cases);

    let healthy = json!({
        "status": {
            "observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
            "updatedNumberScheduled": 2, "numberAvailable": 2, "numberReady": 2,
        },
    });
    let cases = [
        (json!({"status": null}), Progressing, "no nodes have been chosen yet"),
        (
            json!({"status": {"currentNumberScheduled": 1}}),
            Progressing,
            "1 of 2 pods are scheduled",
        ),
        (json!({"status": {"updatedNumberScheduled": 1}}), Progressing, "1 of 2 pods are updated"),
        (
            json!({"spec": {"updateStrategy": {"type": "OnDelete"}}, "status": {"updatedNumberScheduled": 1}}),
            Healthy,
            "",
        ),
        (json!({"status": {"numberAvailable": null}}), Progressing, "0 of 2 pods are available"),
        (json!({"status": {"numberReady": 0}}), Progressing, "0 of 2 pods are ready"),
        (json!({"status": {"desiredNumberScheduled": 0, "numberReady": 0}}), Healthy, ""),
    ];
    check("apps", "DaemonSet", &healthy, &cases);
}

#[test]
fn a_job_is_healthy_when_it_is_complete_and_not_while_it_runs() {
    let healthy = json!({
        "spec": {"completions": 3},
        "status": {"startTime": "t", "succeeded": 3, "conditions": [condition("Complete", "True", "")]},
    });
    let cases = [
        (
            json!({"status": {"conditions": null, "succeeded": 1}}),
            Progressing,
            "1 of 3 pods are complete",
        ),
        (
            json!({"status": {"conditions": null, "startTime": null}}),
            Progressing,
            "it has not started yet",
        ),
        (
            json!({"status": {"conditions": null}, "spec": {"suspend": true}}),
            Suspended,
            "it is suspended",
        ),
        (
            json!({"status": {"conditions": [condition("Failed", "True", "BackoffLimitExceeded")]}}),
            Degraded,
            "BackoffLimitExceeded: so it is",
        ),
    ];
    check("batch", "Job", &healthy, &cases);
    let failed =
        json!({"status": {"conditions": [condition("Failed", "True", "DeadlineExceeded")]}});
    assert!(said("batch", "Job", &failed).2, "it does not start again");
    check("batch", "CronJob", &json!({"spec": {"suspend": true}}), &[]);
}

/// They may quote one.
#[test]
fn the_last_words_of_a_container_that_is_given_secrets_are_not_told() {
    let pod = |spec: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec, "status": {
            "phase": "Failed", "containerStatuses": [{"name": "web", "state": {"terminated": {
                "exitCode": 1, "reason": "Error", "message": "cannot reach db with hunter2",
            }}}],
        }})
    };
    let key = json!({"name": "db", "key": "password"});
    for (spec, told) in [
        (json!({}), true),
        (json!({"containers": [{"env": [{"name": "A", "value": "1"}]}]}), true),
        (json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]}), true),
        (
            json!({"containers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": key}}]}]}),
            false,
        ),
        (json!({"initContainers": [{"envFrom": [{"secretRef": {"name": "db"}}]}]}), false),
        (json!({"volumes": [{"secret": {"secretName": "db"}}]}), false),
        (json!({"volumes": [{"projected": {"sources": [{"secret": {"name": "db"}}]}}]}), false),
    ] {
        let (verdict, _) = crate::assess(&pod(spec.clone()), &crate::Rules::default());
        assert_eq!(verdict.reason.contains("hunter2"), told, "{spec}: {}", verdict.reason);
        assert!(verdict.reason.starts_with("container web ended with 1: "), "{}", verdict.reason);
    }
}

/// A runtime quotes the command that it cannot start, with the values that stand in it by then.
#[test]
fn a_command_that_may_hold_a_value_of_a_secret_is_not_told() {
    let words = "exec: \"/app --t=hunter2\": no such file";
    let path = "error SubPath `/hunter2` must not be an absolute path";
    let env = |source: &str| {
        let value = json!({"valueFrom": {source: {"name": "values", "key": "token"}}});
        json!({"containers": [{"command": ["/app --t=$(TOKEN)"], "env": [value]}]})
    };
    for (reason, words, spec, told) in [
        ("CreateContainerError", words, env("secretKeyRef"), false),
        ("RunContainerError", words, env("secretKeyRef"), false),
        ("CreateContainerConfigError", path, env("secretKeyRef"), false),
        ("RunContainerError", words, env("configMapKeyRef"), true),
        // Nothing that was given stands in these.
        ("CreateContainerConfigError", "secret \"values\" not found", env("secretKeyRef"), true),
        ("ImagePullBackOff", "no such image", env("secretKeyRef"), true),
    ] {
        let pod = |list: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec, "status": {
                "phase": "Pending", list: [{"name": "web",
                    "state": {"waiting": {"reason": reason, "message": words}}}],
            }})
        };
        for list in ["containerStatuses", "initContainerStatuses"] {
            let (verdict, _) = crate::assess(&pod(list), &crate::Rules::default());
            let said = if told { format!(": {words}") } else { String::new() };
            assert_eq!(verdict.reason, format!("container web is in {reason}{said}"));
        }
    }
}

#[test]
fn a_pod_that_is_hushed_tells_reasons_only() {
    let crash = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}});
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "hunter2"}});
    let no_image = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
    let no_start = json!({"waiting": {"reason": "RunContainerError", "message": "hunter2"}});
    for (list, state, last, told) in [
        ("containerStatuses", &crash, &ended, " is in CrashLoopBackOff: it ended with 1: Error"),
        (
            "initContainerStatuses",
            &crash,
            &ended,
            " is in CrashLoopBackOff: it ended with 1: Error",
        ),
        ("containerStatuses", &ended, &Value::Null, " ended with 1: Error"),
        ("containerStatuses", &no_start, &Value::Null, " is in RunContainerError"),
        ("containerStatuses", &no_image, &Value::Null, " is in ErrImagePull: no such image"),
    ] {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "status": {
            "phase": "Failed", list: [{"name": "web", "state": state, "lastState": last}],
        }});
        crate::hush(&mut pod);
        let (verdict, _) = crate::assess(&pod, &crate::Rules::default());
        assert_eq!(verdict.reason, format!("container web{told}"));
    }
    let mut odd = json!({"status": {"containerStatuses": "none"}});
    crate::hush(&mut odd);
    assert_eq!(odd, json!({"status": {"containerStatuses": "none"}}));
}

#[test]
fn a_pod_says_what_its_containers_suffer_from() {
    let healthy =
        json!({"status": {"phase": "Running", "conditions": [condition("Ready", "True", "")]}});
    let waits = |reason: &str, last: Value| {
        json!({"status": {
            "conditions": [condition("Ready", "False", "ContainersNotReady")],
            "containerStatuses": [{
                "name": "web",
                "state": {"waiting": {"reason": reason, "message": "no such image"}},
                "lastState": last,
            }],
        }})
    };
    let last =
        json!({"terminated": {"exitCode": 3, "reason": "Error", "message": "no database\n"}});
    let unschedulable = json!([condition("PodScheduled", "False", "Unschedulable")]);
    let cases = [
        (json!({"status": {"phase": "Succeeded", "conditions": []}}), Healthy, ""),
        (
            json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "no memory"}}),
            Degraded,
            "no memory",
        ),
        (
            json!({"status": {"phase": "Failed", "containerStatuses": [{"name": "web", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}}),
            Degraded,
            "container web ended with 1: Error",
        ),
        (json!({"status": {"phase": "Unknown"}}), Unknown, "its node does not answer"),
        (
            waits("CrashLoopBackOff", last),
            Degraded,
            "container web is in CrashLoopBackOff: it ended with 3: no database",
        ),
        (
            waits("ImagePullBackOff", Value::Null),
            Degraded,
            "container web is in ImagePullBackOff: no such image",
        ),
        (waits("ContainerCreating", Value::Null), Progressing, "ContainersNotReady: so it is"),
        (
            json!({"status": {"phase": "Pending", "conditions": unschedulable}}),
            Progressing,
            "Unschedulable: so it is",
        ),
        (
            json!({"status": {"phase": null, "conditions": null}}),
            Progressing,
            "no node has been chosen yet",
        ),
        (json!({"status": {"phase": "Pending", "conditions": null}}), Progressing, "it is Pending"),
    ];
    check("", "Pod", &healthy, &cases);
}

#[test]
fn other_kinds_of_kubernetes_have_what_they_are_for() {
    check(
        "",
        "PersistentVolumeClaim",
        &json!({"status": {"phase": "Bound"}}),
        &[
            (json!({"status": {"phase": "Pending"}}), Progressing, "it is Pending"),
            (json!({"status": null}), Progressing, "it is not bound to a volume yet"),
            (json!({"status": {"phase": "Lost"}}), Degraded, "its volume is lost"),
        ],
    );
    check(
        "",
        "PersistentVolume",
        &json!({"status": {"phase": "Available"}}),
        &[
            (json!({"status": {"phase": "Pending"}}), Progressing, "it is Pending"),
            (json!({"status": {"phase": "Failed", "message": "no disk"}}), Degraded, "no disk"),
        ],
    );
    let address = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    check(
        "",
        "Service",
        &json!({"spec": {"type": "LoadBalancer"}, "status": address}),
        &[
            (
                json!({"status": {"loadBalancer": {"ingress": []}}}),
                Progressing,
                "its load balancer has no address yet",
            ),
            (json!({"status": null}), Progressing, "its load balancer has no address yet"),
            (json!({"spec": {"type": "ClusterIP"}, "status": null}), Healthy, ""),
        ],
    );
    let established = json!({"status": {"conditions": [
        condition("NamesAccepted", "True", "NoConflicts"), condition("Established", "True", "InitialNamesAccepted"),
    ]}});
    let only = |kind: &str, status: &str, reason: &str| json!({"status": {"conditions": [condition(kind, status, reason)]}});
    check(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        &established,
        &[
            (only("NamesAccepted", "False", "NameConflict"), Degraded, "NameConflict: so it is"),
            (only("Established", "False", "NotAccepted"), Degraded, "NotAccepted: so it is"),
            (only("Established", "False", "Installing"), Progressing, "Installing: so it is"),
            (only("NonStructuralSchema", "True", "Violations"), Degraded, "Violations: so it is"),
            (
                only("Terminating", "True", "InstanceDeletionPending"),
                Progressing,
                "it is being deleted",
            ),
            (json!({"status": null}), Progressing, "it is not established yet"),
        ],
    );
    check(
        "policy",
        "PodDisruptionBudget",
        &json!({"status": {"observedGeneration": 1}}),
        &[
            (json!({"status": null}), Progressing, "it has not been looked at yet"),
            (
                only("DisruptionAllowed", "False", "InsufficientPods"),
                Progressing,
                "InsufficientPods: so it is",
            ),
            (only("DisruptionAllowed", "False", "SyncFailed"), Degraded, "SyncFailed: so it is"),
            (only("DisruptionAllowed", "True", "SufficientPods"), Healthy, ""),
        ],
    );
    check(
        "autoscaling",
        "HorizontalPodAutoscaler",
        &only("ScalingActive", "True", "ValidMetricFound"),
        &[
            (json!({"status": null}), Progressing, "it has not looked at its target yet"),
            (only("AbleToScale", "False", "FailedGetScale"), Degraded, "FailedGetScale: so it is"),
            (
                only("ScalingActive", "False", "ScalingDisabled"),
                Suspended,
                "ScalingDisabled: so it is",
            ),
            (
                only("ScalingActive", "False", "FailedGetResourceMetric"),
                Degraded,
                "FailedGetResourceMetric: so it is",
            ),
        ],
    );
    check(
        "apiregistration.k8s.io",
        "APIService",
        &only("Available", "True", "Passed"),
        &[
            (
                only("Available", "False", "MissingEndpoints"),
                Progressing,
                "MissingEndpoints: so it is",
            ),
            (json!({"status": null}), Progressing, "it does not say yet whether it is Available"),
        ],
    );
    check(
        "certificates.k8s.io",
        "CertificateSigningRequest",
        &json!({"status": {"certificate": "x"}}),
        &[
            (json!({"status": null}), Progressing, "there is no certificate yet"),
            (only("Denied", "True", "Policy"), Degraded, "Policy: so it is"),
        ],
    );
    check(
        "",
        "Namespace",
        &json!({"status": {"phase": "Active"}}),
        &[(json!({"status": {"phase": "Terminating"}}), Progressing, "it is being deleted")],
    );
    check("", "ConfigMap", &json!({"data": {}}), &[]);
    assert_eq!(assess("example.com", "Widget", &json!({})), None);
}

#[test]
fn what_works_by_being_there_has_nothing_to_tell() {
    for (group, kinds) in WITHOUT_STATUS {
        assert!(GROUPS.contains(&group), "{group}");
        for kind in kinds {
            let object = serde_json::json!({"metadata": {"name": "a", "generation": 3}});
            assert_eq!(assess(group, kind, &object), Some(healthy()), "{group} {kind}");
            assert!(works_by_being_there(group, kind));
        }
    }
    for (group, kind) in [("", "Pod"), ("apps", "Deployment"), ("example.com", "ConfigMap")] {
        assert!(!works_by_being_there(group, kind), "{group} {kind}");
    }
}
