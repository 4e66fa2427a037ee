//! What Applications wait for, by what the store knows: sources, twins, pins, namespaces.

use plumb_core::ObjectKey;
use plumb_engine::{HIDDEN, Health};
use plumb_source::{CommitId, Revision};
use serde_json::{Value, json};

use plumb_api::ApplicationStatus;

use super::*;
use crate::objects::Checked;

fn commit(c: char) -> CommitId {
    c.to_string().repeat(40).parse().unwrap()
}

/// Applications and sources as the API server told of them.
#[derive(Default)]
struct World(Store);

impl World {
    /// A source that stands at a commit.
    fn source(&mut self, name: (&str, &str), url: &str, at: char) {
        let object = serde_json::from_value(json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
            "metadata": {"name": name.1, "namespace": name.0, "uid": name.1, "generation": 1},
            "spec": {"url": url, "interval": "1h", "ref": {"branch": "main"}},
        }));
        self.0.put_source(object.unwrap());
        let name = Name::new(name.0, name.1);
        let seq = self.0.number(&name, commit(at));
        let known = self.0.sources.get_mut(&name).unwrap();
        known.revision = Some(Revision { name: "main".into(), commit: commit(at) });
        known.seq = seq;
    }

    /// An Application that has, and says that it has, done what it was asked for at a commit.
    fn done(&mut self, name: (&str, &str), source: &str, spec: &Value, at: char) {
        let mut object = json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": name.1, "namespace": name.0, "uid": name.1, "generation": 1},
            "spec": {"sourceRef": {"name": source}, "interval": "1h"},
            "status": {"observedGeneration": 1, "conditions": [{
                "type": "Ready", "status": "True", "reason": "Succeeded", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        self.0.put_app(serde_json::from_value(object).unwrap());
        let name = Name::new(name.0, name.1);
        self.0.note_dependencies(&name);
        let app = self.0.apps.get_mut(&name).unwrap();
        app.exprs = compile(&app.object.spec.depends_on);
        app.looked = Some((commit(at), Some(1)));
        app.done = app.looked;
    }

    fn app(&mut self, name: (&str, &str)) -> &mut App {
        self.0.apps.get_mut(&Name::new(name.0, name.1)).unwrap()
    }

    /// It says so of itself.
    fn say(&mut self, name: (&str, &str), change: impl FnOnce(&mut ApplicationStatus)) {
        let app = self.app(name);
        let mut status = app.status().cloned().unwrap();
        change(&mut status);
        app.written = Some(Box::new(status));
    }

    /// What `ns/web` waits for.
    fn waits(&self) -> Option<String> {
        self.0.unready(&Name::new("ns", "web"), &|_, _| false).map(|unready| unready.message)
    }
}

const WEB: (&str, &str) = ("ns", "web");
const DATABASE: (&str, &str) = ("ns", "db");

/// `web` waits for `db`; both are at commit 1 of one source.
fn one_source() -> World {
    let mut world = World::default();
    world.source(("ns", "repo"), "https://a", '1');
    world.done(DATABASE, "repo", &json!({}), '1');
    world.done(WEB, "repo", &json!({"dependsOn": [{"name": "db"}]}), '1');
    assert_eq!(world.waits(), None);
    world
}

#[test]
fn an_application_is_waited_for_until_it_has_done_what_it_is_asked_for_now() {
    type Change = fn(&mut World);
    let cases: [(&str, Change, &str); 6] = [
        (
            "the source has moved on",
            |world| world.source(("ns", "repo"), "https://a", '2'),
            "waits for ns/db, which has yet to look at what is newest",
        ),
        (
            "it has looked, and is at it",
            |world| {
                world.source(("ns", "repo"), "https://a", '2');
                world.app(DATABASE).looked = Some((commit('2'), Some(1)));
            },
            "waits for ns/db, which is being applied",
        ),
        (
            "it says that it is not ready",
            |world| {
                world.say(DATABASE, |status| {
                    let ready = &mut status.conditions[0];
                    (ready.status, ready.reason) = ("False".into(), "BuildFailed".into());
                    ready.message = "kustomization.yaml:3: what?".into();
                });
            },
            "waits for ns/db: BuildFailed: kustomization.yaml:3: what?",
        ),
        (
            "its status is of an earlier generation",
            |world| world.say(DATABASE, |status| status.observed_generation = Some(0)),
            "waits for ns/db, which has yet to look at what is newest",
        ),
        (
            "it is suspended where it was",
            |world| {
                world.source(("ns", "repo"), "https://a", '2');
                std::sync::Arc::make_mut(&mut world.app(DATABASE).object).spec.suspend = true;
            },
            "waits for ns/db, which is suspended",
        ),
        (
            "it is not there",
            |world| {
                world.0.apps.remove(&Name::new("ns", "db"));
            },
            "waits for ns/db, which does not exist",
        ),
    ];
    for (what, change, message) in cases {
        let mut world = one_source();
        change(&mut world);
        assert_eq!(world.waits().as_deref(), Some(message), "{what}");
    }
}

#[test]
fn one_that_is_pinned_is_to_be_at_its_pin() {
    let mut world = one_source();
    let pinned = json!({"revision": "3".repeat(40)});
    world.done(DATABASE, "repo", &pinned, '3');
    assert_eq!(world.waits(), None, "whatever the source stands at");
    world.source(("ns", "repo"), "https://a", '2');
    assert_eq!(world.waits(), None);
    world.done(DATABASE, "repo", &pinned, '1');
    assert!(world.waits().is_some());
}

#[test]
fn one_of_another_source_is_to_be_at_its_newest_revision() {
    let mut world = one_source();
    world.source(("ns", "other"), "https://b", '7');
    world.done(DATABASE, "other", &json!({}), '7');
    assert_eq!(world.waits(), None);
    world.source(("ns", "repo"), "https://a", '2');
    assert_eq!(world.waits(), None, "its own source has not moved");
    world.source(("ns", "other"), "https://b", '8');
    assert!(world.waits().is_some());
}

/// Two sources of one branch of one repository: what one of them has seen, the other will see.
#[test]
fn one_of_a_twin_source_is_to_come_to_the_same_commit() {
    let mut world = one_source();
    world.source(("ns", "twin"), "https://a", '1');
    world.done(DATABASE, "twin", &json!({}), '1');
    assert_eq!(world.waits(), None);
    world.source(("ns", "repo"), "https://a", '2');
    assert!(world.waits().is_some(), "the twin has not seen it yet");
    world.source(("ns", "twin"), "https://a", '2');
    assert!(world.waits().is_some(), "it is not applied yet");
    world.app(DATABASE).done = Some((commit('2'), Some(1)));
    assert_eq!(world.waits(), None);
}

#[test]
fn what_one_of_another_namespace_says_is_not_told() {
    let mut world = one_source();
    let elsewhere = ("shop", "db");
    world.source(("shop", "repo"), "https://b", '1');
    world.done(elsewhere, "repo", &json!({}), '1');
    world.done(WEB, "repo", &json!({"dependsOn": [{"name": "db", "namespace": "shop"}]}), '1');
    assert_eq!(world.waits(), None);
    world.say(elsewhere, |status| {
        let ready = &mut status.conditions[0];
        (ready.status, ready.reason) = ("False".into(), "BuildFailed".into());
        ready.message = "precious".into();
    });
    assert_eq!(world.waits().as_deref(), Some("waits for shop/db: BuildFailed"));
}

#[test]
fn who_holds_all_up_is_named_and_what_waits_for_itself() {
    let mut world = one_source();
    let on = |name: &str| json!({"dependsOn": [{"name": name}]});
    world.done(("ns", "disk"), "repo", &json!({}), '1');
    world.done(DATABASE, "repo", &on("disk"), '1');
    assert_eq!(world.waits(), None);
    world.source(("ns", "repo"), "https://a", '2');
    let message =
        "waits for ns/db, which waits for ns/disk, which has yet to look at what is newest";
    assert_eq!(world.waits().as_deref(), Some(message));
    world.done(("ns", "disk"), "repo", &on("web"), '2');
    let unready = world.0.unready(&Name::new("ns", "web"), &|_, _| false).unwrap();
    assert_eq!(unready.reason, reasons::DEPENDENCY_CYCLE);
    assert!(unready.message.contains("ns/web waits for ns/db waits for ns/disk waits for ns/web"));
}

#[test]
fn what_stands_behind_one_of_another_namespace_is_not_told() {
    let mut world = one_source();
    world.source(("shop", "repo"), "https://b", '1');
    world.done(("shop", "disk"), "repo", &json!({}), '1');
    world.done(("shop", "db"), "repo", &json!({"dependsOn": [{"name": "disk"}]}), '1');
    world.done(WEB, "repo", &json!({"dependsOn": [{"name": "db", "namespace": "shop"}]}), '1');
    assert_eq!(world.waits(), None);
    world.source(("shop", "repo"), "https://b", '2');
    world.app(("shop", "disk")).looked = Some((commit('2'), Some(1)));
    world.say(("shop", "disk"), |status| {
        let ready = &mut status.conditions[0];
        (ready.status, ready.reason) = ("False".into(), "BuildFailed".into());
        ready.message = "precious".into();
    });
    let told = "waits for shop/db, which waits for others";
    assert_eq!(world.waits().as_deref(), Some(told));
}

/// Of an object of any kind it is told why it is not ready, unless that may quote a Secret.
#[test]
fn what_an_object_says_is_told_unless_it_may_quote_a_secret() {
    let mut world = World::default();
    world.source(("ns", "repo"), "https://a", '1');
    let on = json!({"dependsOn": [{"apiVersion": "batch/v1", "kind": "Job", "name": "migration"}]});
    world.done(WEB, "repo", &on, '1');
    let of = world.0.wanted_objects.borrow().first().unwrap().clone();
    let key = ObjectKey::new(of.gvk().group_kind(), "ns", "migration");
    for is_final in [false, true] {
        let unready = plumb_engine::Unready {
            key: key.clone(),
            health: Health::Degraded,
            reason: "it says hunter2".into(),
            is_final,
            is_seen: true,
            pods: None,
        };
        let seen = Checked { unready, part_of: Some("set".into()) };
        world.0.objects.insert(of.clone(), Seen::Is(Box::new(seen)));
        let told = |quotes: bool| {
            let may_quote = |asked: &ObjectKey, set: Option<&str>| {
                quotes && *asked == key && set == Some("set")
            };
            world.0.unready(&Name::new("ns", "web"), &may_quote).unwrap()
        };
        let is = "waits for Job ns/migration is Degraded";
        assert_eq!(told(false).message, format!("{is}: it says hunter2"));
        assert_eq!(told(true).message, format!("{is}: {HIDDEN}"));
        assert_eq!(
            (told(true).lasting, told(true).reason),
            (is_final, reasons::DEPENDENCY_NOT_READY)
        );
    }
}
