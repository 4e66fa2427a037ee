//! What the Pods of a workload say that is not ready. They are looked at only while an Application says
//! that it waits for it: of each the first that is told, and of few at a time.

use std::collections::BTreeMap;

use plumb_core::ObjectKey;
use plumb_engine::{Health, Pod, PodState, Wellbeing, Words};
use smol_str::SmolStr;

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
        kind: key.group_kind.kind.to_string(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
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
            self.unexplained.remove(name);
            self.offer_looks();
            return;
        }
        let mut before = app.explained.iter();
        let has_room = before.any(|workload| self.is_look(&object(app, workload)));
        let wanted = if wanted.is_none() || has_room || self.free_looks() > 0 {
            self.unexplained.remove(name);
            wanted
        } else {
            self.unexplained.insert(name.clone());
            None
        };
        if let Some(app) = self.apps.get_mut(name) {
            app.explained = wanted;
        }
        self.note_dependencies(name);
    }

    /// Whether the Pods of a workload are watched for this.
    fn is_look(&self, of: &ObjectRef) -> bool {
        matches!(of.ask, Ask::Pods(_)) && self.objects.get(of) != Some(&Seen::PodsDenied)
    }

    /// How many more workloads can be looked into.
    fn free_looks(&self) -> usize {
        let wanted = self.wanted_objects.borrow();
        MAX_LOOKS.saturating_sub(wanted.iter().filter(|of| self.is_look(of)).count())
    }

    /// Tells the one who follows objects that there may be room for those who had none.
    pub(crate) fn offer_looks(&self) {
        let is_news = !self.unexplained.is_empty() && self.free_looks() > 0;
        self.wanted_objects.send_if_modified(|_| is_news);
    }

    /// Those that had no room for a look, as many as there is room for now: each is to run, and says then
    /// whether it still wants one.
    pub(crate) fn next_unexplained(&mut self) -> Vec<Name> {
        let free = self.free_looks();
        (0..free).map_while(|_| self.unexplained.pop_first()).collect()
    }

    /// An account may read the Pods of a workload after all: those who asked for that have their turn once
    /// more.
    pub(crate) fn look_anew(&mut self, of: &ObjectRef) {
        self.objects.remove(of);
        let askers: Vec<Name> = self.depended_on.who(of).cloned().collect();
        for name in askers {
            if let Some(app) = self.apps.get_mut(&name) {
                app.explained = None;
            }
            self.unexplained.insert(name.clone());
            self.note_dependencies(&name);
        }
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
    pods: BTreeMap<SmolStr, (Health, Words)>,
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

    /// Some that look into a workload each, and as many that would.
    fn crowd() -> (Store, Vec<Name>, impl Fn(&mut Store, usize)) {
        let mut store = Store::default();
        let names: Vec<Name> = (0..2 * MAX_LOOKS)
            .map(|number| waiting(&mut store, &format!("app-{number:02}")))
            .collect();
        let all = names.clone();
        let note = move |store: &mut Store, number: usize| {
            let one = found(vec![unready(&format!("w-{number:02}"), Some("app=w"))]);
            store.note_pods(&all[number], Some(&one));
        };
        for number in 0..names.len() {
            note(&mut store, number);
        }
        (store, names, note)
    }

    #[test]
    fn who_had_no_room_is_called_when_there_is_some() {
        for way in ["well", "gone", "asks no more", "denied"] {
            let (mut store, names, note) = crowd();
            let mut wanting = store.wanted_objects.subscribe();
            assert!(store.next_unexplained().is_empty(), "there is no room");
            assert!(!wanting.has_changed().unwrap());
            match way {
                "well" => store.note_pods(&names[0], None),
                "gone" => _ = store.remove_app(&names[0]),
                "asks no more" => {
                    let mut object = (*store.apps[&names[0]].object).clone();
                    object.spec.wait = false;
                    object.metadata.generation = Some(2);
                    store.put_app(object);
                }
                _ => {
                    let of = wanted(&store)[0].clone();
                    store.objects.insert(of, Seen::PodsDenied);
                    store.offer_looks();
                }
            }
            assert!(wanting.has_changed().unwrap(), "{way}");
            wanting.mark_unchanged();
            assert_eq!(store.next_unexplained(), [names[MAX_LOOKS].clone()], "{way}");
            // It wants none any more: the next one is called.
            store.note_pods(&names[MAX_LOOKS], None);
            assert!(wanting.has_changed().unwrap(), "{way}");
            assert_eq!(store.next_unexplained(), [names[MAX_LOOKS + 1].clone()], "{way}");
            note(&mut store, MAX_LOOKS + 1);
            assert!(store.next_unexplained().is_empty(), "{way}: there is no room left");
            wanting.mark_unchanged();
            // And it comes too late.
            note(&mut store, MAX_LOOKS);
            store.note_pods(&names[1], None);
            assert_eq!(store.next_unexplained(), [names[MAX_LOOKS].clone()], "{way}");
        }
    }

    #[test]
    fn who_is_gone_or_asks_no_more_is_not_called() {
        let (mut store, names, _) = crowd();
        store.remove_app(&names[MAX_LOOKS]);
        let mut object = (*store.apps[&names[MAX_LOOKS + 1]].object).clone();
        object.spec.suspend = true;
        object.metadata.generation = Some(2);
        store.put_app(object);
        store.note_pods(&names[MAX_LOOKS + 2], None);
        store.note_pods(&names[0], None);
        assert_eq!(store.next_unexplained(), [names[MAX_LOOKS + 3].clone()]);
    }

    #[test]
    fn who_may_not_read_pods_takes_no_room_and_has_its_turn_when_it_may() {
        let (mut store, names, note) = crowd();
        let of = wanted(&store)[0].clone();
        store.objects.insert(of.clone(), Seen::PodsDenied);
        for name in store.next_unexplained() {
            note(&mut store, names.iter().position(|other| *other == name).unwrap());
        }
        assert_eq!(wanted(&store).len(), MAX_LOOKS + 1);
        // It goes on being told as not ready, and is not asked about anew for that.
        note(&mut store, 0);
        assert!(wanted(&store).contains(&of));
        store.look_anew(&of);
        assert!(!wanted(&store).contains(&of) && store.next_unexplained().is_empty());
        note(&mut store, 0);
        assert!(!wanted(&store).contains(&of), "there is no room");
        store.note_pods(&names[1], None);
        assert_eq!(store.next_unexplained(), [names[0].clone()]);
        note(&mut store, 0);
        assert!(wanted(&store).contains(&of) && !store.objects.contains_key(&of));
        // What is another workload of an account that may not takes room of its own.
        store.objects.insert(of.clone(), Seen::PodsDenied);
        for number in MAX_LOOKS + 1..names.len() {
            note(&mut store, number);
        }
        store.note_pods(&names[0], Some(&found(vec![unready("other", Some("app=w"))])));
        assert!(
            !wanted(&store).iter().any(|of| of.name == "other") && !wanted(&store).contains(&of)
        );
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
