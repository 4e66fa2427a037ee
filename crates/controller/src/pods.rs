//! What the Pods of a workload say that is not ready. They are looked at only while an Application says
//! that it waits for it: of each the first that is told, and of few at a time.

use std::collections::BTreeMap;

use plumb_core::ObjectKey;
use plumb_engine::{Health, Pod, PodState, Wellbeing, Words};

use crate::names::Name;
use crate::objects::{Ask, ObjectRef, Seen};
use crate::state::{App, Store};

/// How many workloads are looked into at once: each is a watch. When something is wrong with the whole
/// cluster, what these say is enough.
const MAX_LOOKS: usize = 8;

/// A workload, and what selects its Pods.
pub(crate) type Workload = (ObjectKey, String);

/// What is asked about the Pods of an Application's workload.
pub(crate) fn object(app: &App, (key, selector): &Workload) -> ObjectRef {
    ObjectRef {
        api_version: format!("{}/v1", key.group_kind.group),
        kind: key.group_kind.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        ask: Ask::Pods(selector.clone()),
        account: app.set.account.as_deref().cloned(),
        of: None,
    }
}

impl Store {
    /// What of an Application is told as not ready, if anything is: its Pods are looked at from now on.
    pub(crate) fn note_pods(&mut self, name: &Name, told: Option<&Wellbeing>) {
        let mut unready = told.iter().flat_map(|found| &found.unready);
        let wanted = unready
            .find_map(|unready| Some((unready.key.clone(), unready.pods.as_deref()?.to_owned())));
        let Some(app) = self.apps.get(name) else { return };
        if app.explained == wanted {
            return;
        }
        let is_more = app.explained.is_none();
        let is_asked = |of: &&ObjectRef| matches!(of.ask, Ask::Pods(_));
        if is_more && self.wanted_objects.borrow().iter().filter(is_asked).count() >= MAX_LOOKS {
            return;
        }
        if let Some(app) = self.apps.get_mut(name) {
            app.explained = wanted;
        }
        self.note_dependencies(name);
    }

    /// Adds what the Pods of a workload say to what it says itself. `may_quote` says of a namespace whether
    /// what its containers say is not to be told.
    pub(crate) fn explain(
        &self,
        name: &Name,
        found: &mut Wellbeing,
        may_quote: impl Fn(&str) -> bool,
    ) {
        let Some(app) = self.apps.get(name) else { return };
        let Some(workload) = &app.explained else { return };
        let Some(Seen::Pods(Some(said))) = self.objects.get(&object(app, workload)) else { return };
        let (key, selector) = workload;
        let mut unready = found.unready.iter_mut();
        // What may quote a Secret has no selector, whatever it had before.
        let is_it = |pods: Option<&str>| pods == Some(selector.as_str());
        if let Some(one) = unready.find(|one| one.key == *key && is_it(one.pods.as_deref())) {
            if !one.reason.is_empty() {
                one.reason.push_str("; ");
            }
            let is_bare = may_quote(&key.namespace);
            one.reason.push_str(if is_bare { &said.bare } else { &said.full });
        }
    }
}

/// The Pods of a workload that do not get on.
#[derive(Debug)]
pub(crate) struct Stuck {
    kind: String,
    name: String,
    pods: BTreeMap<String, (Health, Words)>,
}

impl Stuck {
    pub(crate) fn of(workload: &ObjectRef) -> Self {
        let (kind, name) = (workload.kind.clone(), workload.name.clone());
        Self { kind, name, pods: BTreeMap::new() }
    }

    /// These are all Pods.
    pub(crate) fn list(&mut self, pods: Vec<(ObjectKey, Pod)>) {
        self.pods.retain(|name, _| pods.iter().any(|(key, _)| key.name == *name));
        for (key, pod) in pods {
            self.put(key, pod);
        }
    }

    /// A Pod is as follows. One that is started again and again is told until it runs.
    pub(crate) fn put(&mut self, key: ObjectKey, pod: Pod) {
        match pod.state {
            _ if !self.owns(&pod) => {}
            PodState::Stuck(health, words) => _ = self.pods.insert(key.name, (health, words)),
            PodState::OnItsWay { again: true } => {}
            PodState::OnItsWay { again: false } | PodState::Fine => self.remove(&key.name),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.pods.remove(name);
    }

    /// Labels alone say nothing: who may make a workload could have any Pod selected.
    fn owns(&self, pod: &Pod) -> bool {
        let Some((kind, name)) = &pod.owner else { return false };
        if self.kind != "Deployment" {
            return *kind == self.kind && *name == self.name;
        }
        let hash = name.strip_prefix(&*self.name).and_then(|rest| rest.strip_prefix('-'));
        kind == "ReplicaSet" && hash.is_some_and(|hash| !hash.contains('-'))
    }

    /// The worst of them, by its name.
    pub(crate) fn worst(&self) -> Option<(&str, &Words)> {
        let mut worst: Option<(&str, &(Health, Words))> = None;
        for (name, pod) in &self.pods {
            if worst.is_none_or(|(_, before)| before.0 < pod.0) {
                worst = Some((name, pod));
            }
        }
        worst.map(|(name, (_, words))| (name, words))
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::GroupKind;
    use plumb_engine::Unready;
    use serde_json::json;

    use super::*;

    fn deployment(name: &str) -> ObjectKey {
        ObjectKey::new(GroupKind::new("apps", "Deployment"), "ns", name)
    }

    fn unready(name: &str, pods: Option<&str>) -> Unready {
        Unready {
            key: deployment(name),
            health: Health::Progressing,
            reason: "0 of 1".into(),
            is_final: false,
            is_seen: true,
            pods: pods.map(Into::into),
        }
    }

    fn found(unready: Vec<Unready>) -> Wellbeing {
        Wellbeing { total: unready.len(), unready, others: Vec::new() }
    }

    fn waiting(store: &mut Store, name: &str) -> Name {
        let app = json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1},
            "spec": {"sourceRef": {"name": "repo"}, "interval": "1h", "wait": true},
        });
        store.put_app(serde_json::from_value(app).unwrap());
        Name::new("ns", name)
    }

    fn words(full: &str, bare: &str) -> Words {
        Words { full: full.into(), bare: bare.into() }
    }

    fn wanted(store: &Store) -> Vec<ObjectRef> {
        store.wanted_objects.borrow().iter().cloned().collect()
    }

    #[test]
    fn the_first_workload_that_is_told_is_looked_into_until_it_is_ready() {
        let mut store = Store::default();
        let name = waiting(&mut store, "web");
        let all = [unready("a", None), unready("b", Some("app=b")), unready("c", Some("app=c"))];
        let mut now = found(all.to_vec());
        store.note_pods(&name, Some(&now));
        let asked = wanted(&store);
        let names: Vec<_> = asked.iter().map(|of| (&*of.name, &of.ask)).collect();
        assert_eq!(names, [("b", &Ask::Pods("app=b".into()))]);
        store.explain(&name, &mut now, |_| false);
        assert_eq!(now.unready[1].reason, "0 of 1", "nobody looked yet");
        let said = words("Pod b-1: it crashes: no database", "Pod b-1: it crashes");
        store.objects.insert(asked[0].clone(), Seen::Pods(Some(said)));
        for (quotes, told) in [
            (true, "0 of 1; Pod b-1: it crashes"),
            (false, "0 of 1; Pod b-1: it crashes: no database"),
        ] {
            now = found(all.to_vec());
            store.explain(&name, &mut now, |namespace| quotes && namespace == "ns");
            assert_eq!(now.unready[1].reason, told);
        }
        assert_eq!(now.unready[2].reason, "0 of 1");
        // It was given a value of a Secret meanwhile.
        let mut now = found(vec![unready("b", None)]);
        store.explain(&name, &mut now, |_| false);
        assert_eq!(now.unready[0].reason, "0 of 1");
        store.note_pods(&name, Some(&found(all[2..].to_vec())));
        assert_eq!(wanted(&store)[0].name, "c");
        store.note_pods(&name, None);
        assert!(wanted(&store).is_empty());
    }

    #[test]
    fn few_workloads_are_looked_into_at_once() {
        let mut store = Store::default();
        let names: Vec<Name> =
            (0..=MAX_LOOKS).map(|number| waiting(&mut store, &format!("app-{number}"))).collect();
        let one = |number: usize| found(vec![unready(&format!("w-{number}"), Some("app=w"))]);
        for (number, name) in names.iter().enumerate() {
            store.note_pods(name, Some(&one(number)));
        }
        assert_eq!(wanted(&store).len(), MAX_LOOKS);
        store.note_pods(&names[0], None);
        store.note_pods(&names[MAX_LOOKS], Some(&one(MAX_LOOKS)));
        assert_eq!(wanted(&store).len(), MAX_LOOKS);
        assert!(wanted(&store).iter().any(|of| of.name == format!("w-{MAX_LOOKS}")));
    }

    #[test]
    fn the_worst_pod_is_told_until_it_runs_and_no_pod_of_others() {
        let workload = |kind: &str| {
            let mut store = Store::default();
            let name = waiting(&mut store, "web");
            let of = object(&store.apps[&name], &(deployment("web"), "app=web".into()));
            Stuck::of(&ObjectRef { kind: kind.into(), ..of })
        };
        let key = |name: &str| ObjectKey::new(GroupKind::new("", "Pod"), "ns", name);
        let pod = |owner: Option<(&str, &str)>, state: PodState| Pod {
            state,
            owner: owner.map(|(kind, name)| (kind.into(), name.into())),
        };
        let said = words("stuck: why", "stuck");
        let stuck = |health: Health| PodState::Stuck(health, said.clone());
        let set = Some(("ReplicaSet", "web-1a2b"));
        let mut pods = workload("Deployment");
        for (owner, told) in [
            (set, true),
            (None, false),
            (Some(("ReplicaSet", "web-api-1a2b")), false),
            (Some(("ReplicaSet", "website")), false),
            (Some(("StatefulSet", "web-1a2b")), false),
        ] {
            pods.list(vec![(key("a"), pod(owner, stuck(Health::Degraded)))]);
            assert_eq!(pods.worst().is_some(), told, "{owner:?}");
            pods.list(Vec::new());
            assert_eq!(pods.worst(), None);
        }
        let mut set_of = workload("StatefulSet");
        set_of.put(key("a"), pod(Some(("StatefulSet", "web")), stuck(Health::Degraded)));
        assert_eq!(set_of.worst(), Some(("a", &said)));

        pods.put(key("a"), pod(set, stuck(Health::Progressing)));
        pods.put(key("c"), pod(set, stuck(Health::Degraded)));
        pods.put(key("b"), pod(set, stuck(Health::Degraded)));
        assert_eq!(pods.worst(), Some(("b", &said)));
        // It is started once more.
        pods.put(key("b"), pod(set, PodState::OnItsWay { again: true }));
        assert_eq!(pods.worst(), Some(("b", &said)));
        pods.put(key("b"), pod(set, PodState::Fine));
        assert_eq!(pods.worst(), Some(("c", &said)));
        pods.remove("c");
        assert_eq!(pods.worst(), Some(("a", &said)));
    }
}
