//! Live objects as the API server gives them, of kinds that are judged in different ways.

use plumb_health::{Basis, Exprs, Health};
use serde_json::{Value, json};

/// Objects that the same basis speaks for, each with what is to be said of it.
pub(super) struct Sort {
    pub(super) what: &'static str,
    pub(super) basis: Basis,
    pub(super) objects: Vec<(Value, Health)>,
}

/// A rule as a user writes it, for the kind of one sort.
pub(super) fn own_rule() -> Exprs {
    Exprs {
        api_version: "bench.example.com/v1".into(),
        kind: Some("Database".into()),
        in_progress: Some("status.phase in ['Pending', 'Creating']".into()),
        failed: Some(
            "status.phase == 'Failed' || \
             status.conditions.exists(c, c.type == 'Degraded' && c.status == 'True')"
                .into(),
        ),
        current: "status.conditions.filter(c, c.type == 'Ready').all(c, c.status == 'True') && \
                  status.readyInstances == spec.instances"
            .into(),
        ..Exprs::default()
    }
}

pub(super) fn sorts() -> Vec<Sort> {
    let sort = |what, basis, objects| Sort { what, basis, objects };
    vec![
        sort("Kubernetes' own kinds", Basis::BuiltIn, built_in()),
        sort("rules that come along", Basis::Known, known()),
        sort("a rule of a user", Basis::User, own()),
        sort("a guess", Basis::Generic, guessed()),
    ]
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-02T03:04:05Z", "lastUpdateTime": "2026-01-02T03:04:05Z",
    })
}

/// With the metadata that an object has after it was applied and some controller looked at it.
fn object(api_version: &str, kind: &str, spec: Value, status: Value) -> Value {
    let fields =
        |entry: &str| json!({ entry: { ".": {}, "f:one": {}, "f:two": {}, "f:three": {} } });
    let mut object = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": "sample",
            "namespace": "bench",
            "uid": "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9",
            "resourceVersion": "123456",
            "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": { "app.kubernetes.io/name": "sample", "app.kubernetes.io/part-of": "bench" },
            "annotations": { "plumb.dev/application": "bench/sample" },
            "managedFields": [
                {
                    "manager": "plumb:bench/sample", "operation": "Apply", "apiVersion": api_version,
                    "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1",
                    "fieldsV1": { "f:metadata": fields("f:labels"), "f:spec": fields("f:template") },
                },
                {
                    "manager": "manager", "operation": "Update", "apiVersion": api_version,
                    "time": "2026-01-02T03:04:06Z", "fieldsType": "FieldsV1",
                    "fieldsV1": { "f:status": fields("f:conditions") }, "subresource": "status",
                },
            ],
        },
    });
    object["spec"] = spec;
    object["status"] = status;
    object
}

/// What workloads make Pods of.
fn template() -> Value {
    json!({
        "metadata": { "labels": { "app.kubernetes.io/name": "sample" } },
        "spec": {
            "serviceAccountName": "sample",
            "terminationGracePeriodSeconds": 30,
            "containers": [{
                "name": "main",
                "image": "registry.example.com/sample:1.2.3",
                "args": ["--listen=:8080", "--log=json"],
                "env": [{ "name": "LEVEL", "value": "info" }, { "name": "REGION", "value": "one" }],
                "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }],
                "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
                "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" } },
                "volumeMounts": [{ "name": "config", "mountPath": "/etc/sample" }],
            }],
            "volumes": [{ "name": "config", "configMap": { "name": "sample" } }],
        },
    })
}

fn built_in() -> Vec<(Value, Health)> {
    let selector = json!({ "matchLabels": { "app.kubernetes.io/name": "sample" } });
    let workload = |kind: &str, replicas: i64, status: Value| {
        let spec = json!({ "replicas": replicas, "selector": selector, "template": template() });
        object("apps/v1", kind, spec, status)
    };
    let deployed = |available: i64| {
        let minimum = if available == 3 { "True" } else { "False" };
        json!({
            "observedGeneration": 3, "replicas": 3, "updatedReplicas": 3,
            "readyReplicas": available, "availableReplicas": available,
            "conditions": [
                condition("Progressing", "True", "NewReplicaSetAvailable", "it has progressed"),
                condition("Available", minimum, "MinimumReplicas", "how many there are at least"),
            ],
        })
    };
    vec![
        (workload("Deployment", 3, deployed(3)), Health::Healthy),
        (workload("Deployment", 3, deployed(1)), Health::Progressing),
        (
            workload(
                "StatefulSet",
                2,
                json!({
                    "observedGeneration": 3, "replicas": 2, "readyReplicas": 2,
                    "currentReplicas": 2, "updatedReplicas": 2, "availableReplicas": 2,
                    "currentRevision": "sample-1", "updateRevision": "sample-1",
                }),
            ),
            Health::Healthy,
        ),
        (
            object(
                "batch/v1",
                "Job",
                json!({ "completions": 1, "template": template() }),
                json!({
                    "failed": 4,
                    "conditions": [
                        condition("Failed", "True", "BackoffLimitExceeded", "it failed too often"),
                    ],
                }),
            ),
            Health::Degraded,
        ),
        (
            object(
                "v1",
                "Pod",
                template()["spec"].clone(),
                json!({
                    "phase": "Running", "podIP": "10.0.0.1", "hostIP": "10.1.0.1",
                    "conditions": [
                        condition("PodScheduled", "True", "", ""),
                        condition("Initialized", "True", "", ""),
                        condition("ContainersReady", "True", "", ""),
                        condition("Ready", "True", "", ""),
                    ],
                    "containerStatuses": [{
                        "name": "main", "ready": true, "restartCount": 0,
                        "state": { "running": { "startedAt": "2026-01-02T03:04:05Z" } },
                    }],
                }),
            ),
            Health::Healthy,
        ),
        (
            object(
                "v1",
                "Service",
                json!({ "type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }] }),
                json!({ "loadBalancer": {} }),
            ),
            Health::Healthy,
        ),
        (
            object(
                "v1",
                "PersistentVolumeClaim",
                json!({ "resources": { "requests": { "storage": "1Gi" } } }),
                json!({ "phase": "Pending" }),
            ),
            Health::Progressing,
        ),
    ]
}

fn known() -> Vec<(Value, Health)> {
    let certificate = |conditions: Value| {
        object(
            "cert-manager.io/v1",
            "Certificate",
            json!({ "secretName": "sample", "dnsNames": ["sample.example.com"] }),
            json!({ "revision": 1, "conditions": conditions }),
        )
    };
    let rollout = |phase: &str| {
        object(
            "argoproj.io/v1alpha1",
            "Rollout",
            json!({ "replicas": 3, "template": template(), "strategy": { "canary": {} } }),
            json!({
                "phase": phase, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3,
                "currentPodHash": "abc", "stableRS": "abc",
                "conditions": [condition("Progressing", "True", "ReplicaSetUpdated", "it goes on")],
            }),
        )
    };
    let release = |status: &str, reason: &str| {
        object(
            "helm.toolkit.fluxcd.io/v2",
            "HelmRelease",
            json!({ "chart": { "spec": { "chart": "sample", "version": "1.x" } }, "interval": "1h" }),
            json!({
                "observedGeneration": 3,
                "conditions": [
                    condition("Ready", status, reason, "what became of the release"),
                    condition("Released", status, reason, "what became of the release"),
                ],
            }),
        )
    };
    vec![
        (certificate(json!([condition("Ready", "True", "Ready", "it is there")])), Health::Healthy),
        (
            certificate(json!([
                condition("Ready", "False", "DoesNotExist", "it is not there"),
                condition("Issuing", "True", "DoesNotExist", "it is being made"),
            ])),
            Health::Progressing,
        ),
        (rollout("Healthy"), Health::Healthy),
        (rollout("Progressing"), Health::Progressing),
        (release("True", "InstallSucceeded"), Health::Healthy),
        (release("False", "InstallFailed"), Health::Degraded),
    ]
}

fn own() -> Vec<(Value, Health)> {
    let database = |phase: &str, ready: i64| {
        let is = |holds| if holds { "True" } else { "False" };
        object(
            "bench.example.com/v1",
            "Database",
            json!({ "instances": 3, "storage": { "size": "1Gi" } }),
            json!({
                "phase": phase, "readyInstances": ready,
                "conditions": [
                    condition("Degraded", is(phase == "Broken"), "Instances", "how they are"),
                    condition("Ready", is(ready == 3), "Instances", "how many are ready"),
                ],
            }),
        )
    };
    vec![
        (database("Running", 3), Health::Healthy),
        (database("Creating", 1), Health::Progressing),
        (database("Broken", 2), Health::Degraded),
    ]
}

fn guessed() -> Vec<(Value, Health)> {
    let widget = |phase: &str, ready: &str, reason: &str| {
        object(
            "unheard-of.example.com/v1",
            "Widget",
            json!({ "size": 3, "colour": "green" }),
            json!({
                "observedGeneration": 3, "phase": phase,
                "conditions": [
                    condition("Synced", "True", "ReconcileSuccess", "it was looked at"),
                    condition("Ready", ready, reason, "how it is"),
                    condition("CertificateIssued", "True", "Issued", "it has one"),
                ],
            }),
        )
    };
    vec![
        (widget("Running", "True", "AllReplicasReady"), Health::Healthy),
        (widget("Creating", "False", "WaitingForReplicas"), Health::Progressing),
        (widget("Failed", "False", "CrashLoopBackOff"), Health::Degraded),
    ]
}
