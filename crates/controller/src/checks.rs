//! Objects that a spec names to be waited for: `spec.healthChecks`. Those of the Application itself are
//! seen by the watches of its kinds; all others are watched one by one, as what it depends on is.

use std::collections::BTreeSet;

use plumb_api::{Application, HealthCheck};
use plumb_core::{Gvk, ObjectKey};
use plumb_engine::{HIDDEN, Health, Unready};

use crate::apps::wait::asks;
use crate::names::Name;
use crate::objects::{Ask, MayQuote, ObjectRef, Seen};
use crate::pods;
use crate::state::{App, Store};

fn key(namespace: &str, check: &HealthCheck) -> ObjectKey {
    let kind = Gvk::new(&check.api_version, &check.kind).group_kind();
    ObjectKey::new(kind, check.namespace.as_deref().unwrap_or(namespace), &check.name)
}

/// What an Application's spec names.
pub(crate) fn named(app: &Application) -> BTreeSet<ObjectKey> {
    let namespace = app.metadata.namespace.as_deref().unwrap_or_default();
    app.spec.health_checks.iter().map(|check| key(namespace, check)).collect()
}

/// The first that is in another namespace.
pub(crate) fn elsewhere<'a>(name: &Name, app: &'a Application) -> Option<(usize, &'a str)> {
    name.first_elsewhere(app.spec.health_checks.iter().map(|check| check.namespace.as_deref()))
}

/// What is watched to tell how its objects are: what it names and has not applied itself, and Pods.
pub(crate) fn objects_of(name: &Name, app: &App) -> BTreeSet<ObjectRef> {
    if !asks(&app.object) {
        return BTreeSet::new();
    }
    let pods = app.explained.iter().map(|workload| pods::object(app, workload));
    let checks = app.object.spec.health_checks.iter();
    let others = checks.filter(|check| app.others.contains(&key(&name.namespace, check)));
    others.map(|check| object(name, app, check)).chain(pods).collect()
}

fn object(name: &Name, app: &App, check: &HealthCheck) -> ObjectRef {
    // What is judged by what is known of its kind can be shared.
    let own_rules = !app.object.spec.health_check_exprs.is_empty();
    ObjectRef {
        api_version: check.api_version.clone(),
        kind: check.kind.clone(),
        namespace: check.namespace.clone().unwrap_or_else(|| name.namespace.to_string()),
        name: check.name.clone(),
        ask: Ask::Health,
        account: app.set.account.as_deref().cloned(),
        of: own_rules.then(|| (name.clone(), app.object.metadata.generation)),
    }
}

impl Store {
    /// Which of the objects that an Application names are to be watched one by one.
    pub(crate) fn note_others(&mut self, name: &Name, others: &[ObjectKey]) {
        let Some(app) = self.apps.get_mut(name) else { return };
        if app.others.iter().eq(others) {
            return;
        }
        app.others = others.iter().cloned().collect();
        self.note_dependencies(name);
    }

    /// How objects that an Application names are: nothing of one that is ready. `may_quote` says whether
    /// what one says of itself, which is labelled as of a set, is not to be told.
    pub(crate) fn checked(
        &self,
        name: &Name,
        others: &[ObjectKey],
        may_quote: &MayQuote<'_>,
    ) -> Vec<Option<Unready>> {
        let Some(app) = self.apps.get(name) else { return Vec::new() };
        let checks = &app.object.spec.health_checks;
        let one = |other: &ObjectKey| {
            let check = checks.iter().find(|check| key(&name.namespace, check) == *other);
            match check.and_then(|check| self.objects.get(&object(name, app, check))) {
                Some(Seen::Is(seen)) if seen.unready.health.is_ready() => None,
                Some(Seen::Is(seen)) => {
                    let mut unready = seen.unready.clone();
                    if may_quote(&unready.key, seen.part_of.as_deref()) {
                        unready.reason = HIDDEN.into();
                        unready.pods = None;
                    }
                    Some(unready)
                }
                _ => Some(Unready {
                    key: other.clone(),
                    health: Health::Progressing,
                    reason: "nothing is known of it yet".into(),
                    is_final: false,
                    is_seen: false,
                    pods: None,
                }),
            }
        };
        others.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::GroupKind;
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::Checked;

    fn app(generation: i64, spec: &Value) -> Application {
        let mut object = json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "generation": generation},
            "spec": {"sourceRef": {"name": "repo"}, "interval": "1h"},
        });
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn deployment(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey::new(GroupKind::new("apps", "Deployment"), namespace, name)
    }

    fn spec() -> Value {
        json!({"healthChecks": [
            {"kind": "Deployment", "name": "a"},
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "b", "namespace": "other"},
        ]})
    }

    #[test]
    fn what_is_named_is_of_the_namespace_of_its_application_unless_it_says_otherwise() {
        let app = app(1, &spec());
        let keys = BTreeSet::from([deployment("ns", "a"), deployment("other", "b")]);
        assert_eq!(named(&app), keys);
        assert_eq!(elsewhere(&Name::new("ns", "web"), &app), Some((1, "other")));
        assert_eq!(elsewhere(&Name::new("other", "web"), &app), None);
    }

    #[test]
    fn what_is_not_its_own_is_watched_while_it_is_asked_about() {
        let mut store = Store::default();
        let name = Name::new("ns", "web");
        let others = [deployment("ns", "a"), deployment("other", "b")];
        let wanted = |store: &Store| -> Vec<String> {
            store.wanted_objects.borrow().iter().map(|of| of.name.clone()).collect()
        };
        store.put_app(app(1, &spec()));
        assert!(wanted(&store).is_empty(), "nobody knows yet whose they are");
        store.note_others(&name, &others);
        assert_eq!(wanted(&store), ["a", "b"]);
        store.note_others(&name, &others[1..]);
        assert_eq!(wanted(&store), ["b"], "the other one is its own");
        let mut still = spec();
        still["suspend"] = json!(true);
        store.put_app(app(2, &still));
        assert!(wanted(&store).is_empty());
        store.put_app(app(3, &json!({"wait": true})));
        assert!(wanted(&store).is_empty());
        store.put_app(app(4, &spec()));
        assert_eq!(wanted(&store), ["b"]);
        store.remove_app(&name);
        assert!(wanted(&store).is_empty());
    }

    #[test]
    fn what_was_seen_of_others_counts_and_values_of_secrets_are_not_told() {
        let mut store = Store::default();
        let name = Name::new("ns", "web");
        let others = [deployment("ns", "a"), deployment("other", "b")];
        store.put_app(app(1, &spec()));
        store.note_others(&name, &others);
        let found = store.checked(&name, &others, &|_, _| false);
        assert!(found.iter().all(|found| found.as_ref().is_some_and(|unready| !unready.is_seen)));
        let seen = |key: &ObjectKey, health: Health, part_of: Option<&str>| {
            let unready = Unready {
                key: key.clone(),
                health,
                reason: "it quotes".into(),
                is_final: false,
                is_seen: true,
                pods: Some("app=b".into()),
            };
            Seen::Is(Box::new(Checked { unready, part_of: part_of.map(Into::into) }))
        };
        let refs: Vec<_> = store.wanted_objects.borrow().iter().cloned().collect();
        store.objects.insert(refs[0].clone(), seen(&others[0], Health::Suspended, None));
        store.objects.insert(refs[1].clone(), seen(&others[1], Health::Degraded, Some("set")));
        let told = |quotes: bool| {
            let found = store.checked(&name, &others, &|_, set| quotes && set == Some("set"));
            let told = found.into_iter().map(|found| found.map(|one| (one.reason, one.pods)));
            told.collect::<Vec<_>>()
        };
        assert_eq!(told(false), [None, Some(("it quotes".into(), Some("app=b".into())))]);
        assert_eq!(told(true), [None, Some((HIDDEN.into(), None))]);
    }
}
