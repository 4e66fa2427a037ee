//! The Pods of a workload that is not ready: they know what is wrong with it.
//!
//! Of a body nothing is kept but a line, and that only of a Pod that does not get on.

use futures::Stream;
use plumb_core::{GroupKind, Gvk};
use plumb_health::{Health, Rules, hush};
use serde_json::Value;

use crate::attention::{body_of, judge, shorten};
use crate::cluster::{Cluster, Decode, Resource, WatchEvent, watch_by};

/// A workload with more Pods is not looked into: that costs more than it tells.
const MAX_PODS: i64 = 200;

/// The longest line of a Pod.
const MAX_LINE: usize = 200;

/// What selects the Pods of a workload, which says of what kind it is; nothing for other kinds.
pub fn pod_selector(object: &Value) -> Option<Box<str>> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    selector_of(&Gvk::new(text("apiVersion"), text("kind")).group_kind(), object)
}

/// The same of an object of a kind.
pub(crate) fn selector_of(kind: &GroupKind, body: &Value) -> Option<Box<str>> {
    let is_workload = match &*kind.group {
        "apps" => matches!(&*kind.kind, "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet"),
        "batch" => kind.kind == "Job",
        _ => false,
    };
    let (spec, status) = (&body["spec"], &body["status"]);
    let counts = [
        &spec["replicas"],
        &spec["completions"],
        &spec["parallelism"],
        &status["replicas"],
        &status["desiredNumberScheduled"],
    ];
    if !is_workload || counts.iter().any(|count| count.as_i64() > Some(MAX_PODS)) {
        return None;
    }
    let selector = &spec["selector"];
    let mut parts = Vec::new();
    for (label, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{label}={}", value.as_str()?));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let label = expression["key"].as_str()?;
        let values = expression["values"].as_array().into_iter().flatten();
        let values = values.filter_map(Value::as_str).collect::<Vec<_>>().join(",");
        parts.push(match expression["operator"].as_str()? {
            "In" => format!("{label} in ({values})"),
            "NotIn" => format!("{label} notin ({values})"),
            "Exists" => label.to_owned(),
            "DoesNotExist" => format!("!{label}"),
            _ => return None,
        });
    }
    // Without any it would be those of everybody.
    (!parts.is_empty()).then(|| parts.join(",").into())
}

/// A Pod, as far as it tells something of its workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// How it gets on.
    pub state: PodState,
    /// The kind and the name of its controller.
    pub owner: Option<(String, String)>,
}

/// How a Pod gets on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodState {
    /// It works, has done its work, or goes.
    Fine,
    /// It may start yet: for the first time, or again, after it ended.
    OnItsWay {
        /// A container of it has ended before.
        again: bool,
    },
    /// It does not get on: how bad that is, and why.
    Stuck(Health, Words),
}

/// Why a Pod does not get on, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// With what its containers said.
    pub full: String,
    /// Without what may quote something that they were given.
    pub bare: String,
}

/// Whether a container has ended before, and so is started again. One that prepares the Pod is done when
/// it ended well.
fn is_started_again(pod: &Value) -> bool {
    let containers = |list: &str| pod["status"][list].as_array().into_iter().flatten();
    let ended = |container: &Value, state: &str| container[state]["terminated"].is_object();
    let any = |container: &Value| ended(container, "lastState") || ended(container, "state");
    let is_done = |container: &&Value| container["state"]["terminated"]["exitCode"] == 0;
    containers("containerStatuses").any(any)
        || containers("initContainerStatuses").filter(|one| !is_done(one)).any(any)
}

fn first_line(text: &str) -> String {
    shorten(text.lines().next().unwrap_or_default().trim_end().to_owned(), MAX_LINE)
}

fn state_of(mut pod: Value) -> PodState {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return PodState::Fine;
    }
    let verdict = judge(&pod, &Rules::default());
    let conditions = pod["status"]["conditions"].as_array();
    let is_placed = conditions
        .into_iter()
        .flatten()
        .all(|condition| condition["type"] != "PodScheduled" || condition["status"] != "False");
    match verdict.health {
        health if health.is_ready() => PodState::Fine,
        Health::Progressing if is_placed => PodState::OnItsWay { again: is_started_again(&pod) },
        health => {
            hush(&mut pod);
            let bare = judge(&pod, &Rules::default()).reason;
            let (full, bare) = (first_line(&verdict.reason), first_line(&bare));
            PodState::Stuck(health, Words { full, bare })
        }
    }
}

/// Reads Pods.
struct Pods;

impl Decode for Pods {
    type Item = Pod;

    fn wants_metadata(&self) -> bool {
        false
    }

    fn item(&self, json: &str) -> Result<Pod, String> {
        let pod = body_of("v1", "Pod", json).ok_or("it is no object")?;
        let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let mut controllers = owners.filter(|owner| owner["controller"] == true);
        let owner = controllers.next().and_then(|owner| {
            Some((owner["kind"].as_str()?.to_owned(), owner["name"].as_str()?.to_owned()))
        });
        Ok(Pod { state: state_of(pod), owner })
    }
}

/// The kind itself.
pub fn pod_resource() -> Resource {
    Resource::known(Gvk::new("v1", "Pod"), "pods", true)
}

/// Watches the Pods of a namespace that a label selector matches.
pub fn watch_pods(
    cluster: &Cluster,
    selector: &str,
    namespace: &str,
) -> impl Stream<Item = WatchEvent<Pod>> + Send + use<> {
    watch_by(Pods, cluster, &pod_resource(), selector, Some(namespace))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_those_that_the_selector_of_a_workload_matches() {
        let selected = |kind: &str, spec: Value| {
            let body = json!({"spec": spec, "status": {}});
            selector_of(&GroupKind::parse(kind).unwrap(), &body).map(String::from)
        };
        let labels = json!({"selector": {"matchLabels": {"app": "web", "tier": "a"}}});
        assert_eq!(selected("Deployment.apps", labels.clone()).as_deref(), Some("app=web,tier=a"));
        assert_eq!(selected("Service", labels.clone()), None);
        assert_eq!(selected("Widget.apps", labels), None);
        let expressions = json!([
            {"key": "a", "operator": "In", "values": ["1", "2"]},
            {"key": "b", "operator": "NotIn", "values": ["3"]},
            {"key": "c", "operator": "Exists"}, {"key": "d", "operator": "DoesNotExist"},
        ]);
        assert_eq!(
            selected("Job.batch", json!({"selector": {"matchExpressions": expressions}}))
                .as_deref(),
            Some("a in (1,2),b notin (3),c,!d")
        );
        // Nothing is not all, and what is not understood is not left out.
        assert_eq!(selected("StatefulSet.apps", json!({"selector": {}})), None);
        let odd = json!([{"key": "a", "operator": "Gt", "values": ["1"]}]);
        let odd = json!({"selector": {"matchLabels": {"a": "b"}, "matchExpressions": odd}});
        assert_eq!(selected("DaemonSet.apps", odd), None);
        // There are too many.
        let many = json!({"replicas": 201, "selector": {"matchLabels": {"a": "b"}}});
        assert_eq!(selected("ReplicaSet.apps", many), None);
    }

    #[test]
    fn a_pod_says_on_one_line_why_it_does_not_get_on() {
        let pod = |status: Value| {
            let json = json!({
                "metadata": {"name": "a", "ownerReferences": [
                    {"kind": "Other", "name": "x"},
                    {"kind": "ReplicaSet", "name": "web-1", "controller": true},
                ]},
                "status": status,
            });
            Pods.item(&json.to_string()).unwrap()
        };
        let crash = |message: &str| {
            json!({"phase": "Running", "containerStatuses": [{
                "name": "main", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "message": message}},
            }]})
        };
        let found = pod(crash("no route to db\nat line 7"));
        assert_eq!(found.owner, Some(("ReplicaSet".into(), "web-1".into())));
        let line = "container main is in CrashLoopBackOff: it ended with 1: ";
        let PodState::Stuck(Health::Degraded, words) = found.state else { panic!("fine") };
        assert_eq!(words.full, format!("{line}no route to db"));
        assert_eq!(words.bare, line.trim_end(), "it says no more");
        let PodState::Stuck(_, words) = pod(crash(&"é".repeat(500))).state else { panic!("fine") };
        assert!(words.full.len() < 210 && words.full.ends_with('…'), "{words:?}");
        let unplaced = json!({"phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available",
        }]});
        assert!(
            matches!(pod(unplaced).state, PodState::Stuck(Health::Progressing, words) if words.full.contains("0/3 nodes"))
        );
        assert_eq!(pod(json!({"phase": "Pending"})).state, PodState::OnItsWay { again: false });
        assert_eq!(pod(json!({"phase": "Succeeded"})).state, PodState::Fine);
        assert!(Pods.item("[]").is_err());
    }

    #[test]
    fn a_pod_of_which_a_container_has_ended_is_started_again() {
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let runs = json!({"running": {}});
        for (list, state, last, again) in [
            ("containerStatuses", &runs, json!({}), false),
            ("containerStatuses", &runs, ended(1), true),
            ("containerStatuses", &ended(0), json!({}), true),
            ("initContainerStatuses", &runs, json!({}), false),
            ("initContainerStatuses", &runs, ended(1), true),
            ("initContainerStatuses", &ended(1), json!({}), true),
            // It is done, whatever it took.
            ("initContainerStatuses", &ended(0), json!({}), false),
            ("initContainerStatuses", &ended(0), ended(1), false),
        ] {
            let status = json!({
                "phase": "Pending", list: [{"name": "main", "state": state, "lastState": last}],
            });
            let found = Pods.item(&json!({"metadata": {}, "status": status}).to_string()).unwrap();
            assert_eq!(found.state, PodState::OnItsWay { again }, "{status}");
        }
    }
}
