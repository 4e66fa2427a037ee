use super::*;
use crate::torture::hands::canaries;
use crate::torture::kinds::{Object, STAMP, VALUE};
use crate::torture::model::tests::{map, tree};
use crate::torture::model::{File, Folder, Tree};
use serde_json::json;

/// A cluster at rest that a case changes.
struct World {
    model: Model,
    commits: Vec<Vec<String>>,
    ids: Vec<String>,
    traces: Traces,
    applied: Vec<usize>,
    live: BTreeMap<Key, Arc<Value>>,
    apps: Vec<Arc<Value>>,
    sources: Vec<(usize, Arc<Value>)>,
}

/// Fields of a manager's entry with the label among them.
fn managed(manager: &str) -> Value {
    let labels = json!({ format!("f:{PART_OF}"): {} });
    json!({
        "manager": manager, "operation": "Apply",
        "fieldsV1": { "f:metadata": { "f:labels": labels } },
    })
}

/// An object as it is when its application has applied it.
fn member(world: &World, app: usize, object: &Object) -> Arc<Value> {
    let mut live = object.wanted();
    live["metadata"]["uid"] = format!("uid-{}-{}", object.key.name, object.value).into();
    live["metadata"]["labels"] = json!({ PART_OF: world.ids[app] });
    live["metadata"]["managedFields"] = json!([managed(&world.model.apps[app].manager())]);
    Arc::new(live)
}

fn application(revision: &str) -> Value {
    json!({
        "metadata": { "generation": 1 },
        "status": {
            "observedGeneration": 1,
            "lastAppliedRevision": format!("main@sha1:{revision}"),
            "conditions": [{ "type": "Ready", "status": "True", "reason": "Succeeded" }],
        },
    })
}

impl World {
    /// Two applications of one repository: the first has a and b, the second c.
    fn new() -> Self {
        let mut world = Self {
            model: Model::new(2),
            commits: vec![Vec::new(); 3],
            ids: vec!["set-0".into(), "set-1".into()],
            traces: Traces::default(),
            applied: vec![0, 0],
            live: BTreeMap::new(),
            apps: Vec::new(),
            sources: Vec::new(),
        };
        let mut first = tree(0, &[map("a", 1), map("b", 1)]);
        first.extend(tree(1, &[map("c", 1)]));
        world.commit(first);
        for (app, object) in world.model.objects() {
            let live = member(&world, app, &object);
            world.live.insert(object.key, live);
        }
        world.say_applied();
        let canary = canaries().remove(0);
        let mut live = canary.wanted();
        live["metadata"]["uid"] = "canary".into();
        world.traces.canaries.insert(canary.key.clone(), ("canary".into(), content(&live)));
        world.live.insert(canary.key, Arc::new(live));
        world
    }

    /// A commit that the repository is at, and nobody else yet.
    fn commit(&mut self, tree: Tree) {
        assert!(!self.model.commit(0, tree).is_empty());
        let id = format!("c{}", self.commits[0].len());
        self.commits[0].push(id);
        self.say_fetched();
    }

    fn say_fetched(&mut self) {
        let head = self.commits[0].last().unwrap();
        let status = json!({
            "revision": format!("main@sha1:{head}"), "lastHandledReconcileAt": "7",
            "conditions": [{ "type": "Ready", "status": "True" }],
        });
        self.sources = vec![(0, Arc::new(json!({ "status": status })))];
    }

    fn say_applied(&mut self) {
        let head = self.commits[0].last().unwrap();
        self.apps = vec![Arc::new(application(head)), Arc::new(application(head))];
    }

    fn app(&mut self, app: usize) -> &mut Value {
        Arc::make_mut(&mut self.apps[app])
    }

    fn not_ready(&mut self, app: usize, reason: &str) {
        let ready = json!([{ "type": "Ready", "status": "False", "reason": reason }]);
        self.app(app)["status"]["conditions"] = ready;
    }

    fn object(&mut self, name: &str) -> &mut Value {
        Arc::make_mut(self.live.get_mut(&map(name, 1).key).unwrap())
    }

    fn view(&self) -> Result<Rested, Vec<String>> {
        judge(&View {
            model: &self.model,
            commits: &self.commits,
            ids: &self.ids,
            traces: &self.traces,
            applied: &self.applied,
            live: &self.live,
            apps: &self.apps,
            sources: &self.sources,
            asked: "7",
        })
    }

    /// Whether one difference is found, and that it says this.
    #[track_caller]
    fn says(&self, part: &str) {
        let wrong = self.view().unwrap_err();
        assert!(wrong.len() == 1 && wrong[0].contains(part), "{part}: {wrong:?}");
    }
}

/// The first application's folder without b.
fn without_b() -> Tree {
    let mut next = tree(0, &[map("a", 1)]);
    next.extend(tree(1, &[map("c", 1)]));
    next
}

#[test]
fn a_cluster_that_is_as_git_asks_is_at_rest() {
    let rested = World::new().view().unwrap();
    assert_eq!((rested.objects, rested.applied), (3, vec![0, 0]));
}

#[test]
fn every_way_to_differ_is_found() {
    type Change = fn(&mut World);
    let cases: [(&str, Change); 18] = [
        ("a is missing", |w| drop(w.live.remove(&map("a", 1).key))),
        ("data.value is \"x\" instead", |w| w.object("a")["data"]["value"] = "x".into()),
        ("data.more is too much", |w| w.object("a")["data"]["more"] = "x".into()),
        ("is not its own: labelled None", |w| w.object("a")["metadata"]["labels"] = json!({})),
        ("is not its own", |w| w.object("a")["metadata"]["managedFields"] = json!([])),
        ("is going", |w| w.object("a")["metadata"]["deletionTimestamp"] = "now".into()),
        ("Ready=False", |w| w.not_ready(0, "X")),
        ("of an earlier generation", |w| w.app(0)["metadata"]["generation"] = 2.into()),
        ("of no commit", |w| w.app(0)["status"]["lastAppliedRevision"] = Value::Null),
        ("left over: ConfigMap one/d", |w| {
            let live = member(w, 0, &map("d", 1));
            w.live.insert(map("d", 1).key, live);
        }),
        ("which is nobody's, is gone", |w| {
            let key = canaries().remove(0).key;
            w.live.remove(&key);
        }),
        ("which is nobody's, was changed", |w| {
            let key = canaries().remove(0).key;
            Arc::make_mut(w.live.get_mut(&key).unwrap())["metadata"]["uid"] = "other".into();
        }),
        ("lost what a hand had added", |w| {
            let added = ("uid-a-1".to_owned(), "token".to_owned());
            w.traces.added.insert(map("a", 1).key, added);
        }),
        ("the newest is c1", |w| {
            w.commits[0].push("c1".into());
            let again = Arc::clone(&w.model.commits[0][0]);
            w.model.commits[0].push(again);
        }),
        ("answers request 6, not 7", |w| {
            Arc::make_mut(&mut w.sources[0].1)["status"]["lastHandledReconcileAt"] = "6".into();
        }),
        ("has an entry of app-00", |w| {
            let mut live = (*member(w, 0, &map("d", 1))).clone();
            live["metadata"]["labels"] = json!({});
            w.live.insert(map("d", 1).key, Arc::new(live));
        }),
        ("ConfigMap one/c is still app-00's", |w| {
            let live = member(w, 0, &map("c", 1));
            w.live.insert(map("c", 1).key, live);
        }),
        ("says that it applied commit 1, which is unsound", |w| {
            let mut next = tree(0, &[map("a", 1), map("a", 1)]);
            next.extend(tree(1, &[map("c", 1)]));
            w.commit(next);
            w.app(0)["status"]["lastAppliedRevision"] = "main@sha1:c1".into();
            w.not_ready(0, "DuplicateObject");
        }),
    ];
    for (part, change) in cases {
        let mut world = World::new();
        change(&mut world);
        let wrong = world.view().unwrap_err();
        assert!(wrong.iter().any(|what| what.contains(part)), "{part}: {wrong:?}");
    }
}

/// The first application says that it holds these.
fn hold(world: &mut World, reason: &str, objects: &[&str]) {
    world.not_ready(0, "PruneHeld");
    let held = json!({ "type": "PruneHeld", "status": "True", "reason": reason });
    world.app(0)["status"]["conditions"].as_array_mut().unwrap().push(held);
    world.app(0)["status"]["prune"] = json!({
        "digest": "d", "count": objects.len(), "objects": objects, "reason": reason,
    });
}

#[test]
fn what_may_have_gone_to_a_broken_neighbour_may_be_held() {
    let mut world = World::new();
    let broken =
        File::Broken { how: crate::torture::model::Broken::Syntax, was: vec![map("c", 1)] };
    let mut next = without_b();
    next.insert(1, Arc::new(Folder::from([("g.yaml".into(), broken)])));
    world.commit(next);
    world.say_applied();
    world.apps[1] = Arc::new(application("c0"));
    world.not_ready(1, "BuildFailed");
    hold(&mut world, "NeighbourBroken", &["ConfigMap one/b"]);
    assert!(world.view().is_ok(), "{:?}", world.view());
    // One that is suspended may have it meant for it, too; one that is gone may not.
    world.model.apps[1].standing = Standing::Suspended { since: 1 };
    assert!(world.view().is_ok(), "{:?}", world.view());
    world.model.apps[1].standing = Standing::Gone { orphans: true, heir: None };
    assert!(world.view().unwrap_err()[0].contains("1 of 2 deletions are held without reason"));
}

/// It panicked over the size of such a plan.
#[test]
fn a_held_plan_of_which_nothing_is_left_is_told() {
    let mut world = World::new();
    world.model.apps[0].standing = Standing::Gone { orphans: false, heir: None };
    world.commit(without_b());
    hold(&mut world, "ProtectedObjects", &["ConfigMap one/a", "ConfigMap one/b"]);
    for name in ["a", "b"] {
        world.live.remove(&map(name, 1).key);
    }
    let wrong = world.view().unwrap_err();
    assert!(wrong.iter().any(|what| what.contains("nothing is left to delete")), "{wrong:?}");
}

#[test]
fn what_a_suspended_neighbour_asked_for_before_it_broke_may_be_left_out_of_a_plan() {
    let mut world = World::new();
    let live = member(&world, 0, &map("d", 1));
    world.live.insert(map("d", 1).key, live);
    // The second one was asked for b once.
    let mut next = tree(0, &[map("a", 1)]);
    next.extend(tree(1, &[map("b", 1), map("c", 1)]));
    world.commit(next.clone());
    let broken =
        File::Broken { how: crate::torture::model::Broken::Syntax, was: vec![map("c", 1)] };
    next.insert(1, Arc::new(Folder::from([("g.yaml".into(), broken)])));
    world.commit(next);
    world.say_applied();
    world.apps[1] = Arc::new(application("c0"));
    world.not_ready(1, "BuildFailed");
    hold(&mut world, "NeighbourBroken", &["ConfigMap one/d"]);
    let wrong = world.view().unwrap_err();
    assert!(wrong[0].contains("2 are held for NeighbourBroken"), "{wrong:?}");
    world.model.apps[1].standing = Standing::Suspended { since: 1 };
    assert!(world.view().is_ok(), "{:?}", world.view());
    hold(&mut world, "NeighbourBroken", &["ConfigMap one/b"]);
    world.says("its status lists");
    hold(&mut world, "NeighbourBroken", &["ConfigMap one/b", "ConfigMap one/d"]);
    assert!(world.view().is_ok(), "{:?}", world.view());
}

#[test]
fn what_left_git_goes_or_is_held_for_a_reason() {
    let mut world = World::new();
    world.commit(without_b());
    world.says("app-00: left over: ConfigMap one/b");
    world.say_applied();
    world.says("app-00: left over: ConfigMap one/b");

    // Held without reason.
    hold(&mut world, "LargeShare", &["ConfigMap one/b"]);
    world.says("1 of 2 deletions are held without reason");

    // All of them gone from Git at once is a reason.
    let mut empty = tree(1, &[map("c", 1)]);
    empty.insert(0, Arc::new(Folder::new()));
    world.commit(empty);
    world.say_applied();
    world.says("left over: ConfigMap one/a, ConfigMap one/b");
    hold(&mut world, "EmptyRender", &["ConfigMap one/a"]);
    let wrong = world.view().unwrap_err();
    assert!(wrong.iter().any(|what| what.contains("its status lists")), "{wrong:?}");
    hold(&mut world, "EmptyRender", &["ConfigMap one/a", "ConfigMap one/b"]);
    let rested = world.view().unwrap();
    let uids = ["uid-a-1", "uid-b-1"].map(str::to_owned).into();
    assert_eq!(rested.held[&0], HeldPlan { digest: "d".into(), uids });
}

#[test]
fn what_is_unsound_keeps_what_was_applied_last() {
    let mut world = World::new();
    let mut next = without_b();
    let broken =
        File::Broken { how: crate::torture::model::Broken::Syntax, was: vec![map("b", 1)] };
    Arc::make_mut(next.get_mut(&0).unwrap()).insert("g.yaml".into(), broken);
    world.commit(next);
    world.says("Ready=True Succeeded instead of [\"BuildFailed\"]");
    world.not_ready(0, "BuildFailed");
    assert_eq!(world.view().unwrap().unsound, 1);
    // What it has beside that stays too: it may be from a commit that was applied in part.
    let live = member(&world, 0, &map("d", 1));
    world.live.insert(map("d", 1).key, live);
    assert!(world.view().is_ok());
    world.live.remove(&map("b", 1).key);
    world.says("app-00: ConfigMap one/b is missing");
}

#[test]
fn an_object_may_wait_for_an_application_that_does_not_get_on() {
    let mut world = World::new();
    // b goes from the first to the second, and the first breaks in the same commit.
    let mut next = tree(0, &[map("a", 1), map("a", 1)]);
    next.extend(tree(1, &[map("c", 1), map("b", 1)]));
    world.commit(next);
    world.not_ready(0, "DuplicateObject");
    world.says("app-01: ConfigMap one/b is not its own, and its status says Succeeded");
    world.not_ready(1, "OwnedByAnother");
    world.app(1)["status"]["failures"] = json!([{ "object": "ConfigMap one/b" }]);
    let rested = world.view().unwrap();
    assert_eq!((rested.unsound, rested.blocked), (1, 1));
    // Once the first is mended nothing is to be waited for.
    let mut next = without_b();
    next.extend(tree(1, &[map("c", 1), map("b", 1)]));
    world.commit(next);
    Arc::make_mut(&mut world.apps[0])["status"] = application("c2")["status"].clone();
    let wrong = world.view().unwrap_err();
    assert!(wrong.iter().any(|what| what.contains("b is still app-00's")), "{wrong:?}");
}

#[test]
fn what_a_hand_put_in_the_way_must_be_told() {
    let mut world = World::new();
    let mut other = Object { value: 301, ..map("a", 1) }.wanted();
    other["metadata"]["uid"] = "placed".into();
    other["metadata"]["annotations"] = json!({ VALUE: "in its place" });
    world.live.insert(map("a", 1).key, Arc::new(other));
    let wrong = world.view().unwrap_err();
    assert!(wrong[0].contains("a is not its own"), "nobody knows of a hand: {wrong:?}");
    world.traces.placed.insert("placed".into());
    world.says("its status says Succeeded");
    world.not_ready(0, "FieldConflict");
    world.app(0)["status"]["failures"] = json!([{ "object": "ConfigMap one/a" }]);
    assert_eq!(world.view().unwrap().blocked, 1);
    world.object("a")["metadata"]["annotations"] = json!({ VALUE: "v1", STAMP: "1" });
    let wrong = world.view().unwrap_err();
    assert!(wrong[0].contains("which a hand put there, says \"v1\""), "{wrong:?}");
    // It had become its application's, which went and left it.
    world.traces.orphans.insert("placed".into());
    let wrong = world.view().err().into_iter().flatten();
    assert!(!wrong.into_iter().any(|what| what.contains("which a hand put there")));
}

#[test]
fn what_is_marked_is_left_as_it_is_or_stays() {
    let marks = [
        ("plumb.dev/prune", "disabled", false),
        ("plumb.dev/reconcile", "disabled", true),
        ("plumb.dev/ssa", "Ignore", true),
    ];
    for (name, value, alone) in marks {
        let mut world = World::new();
        world.object("a")["metadata"]["annotations"][name] = value.into();
        let rested = world.view().unwrap();
        assert_eq!(rested.left_alone.len(), usize::from(alone), "{name}");
        assert_eq!(rested.objects, if alone { 2 } else { 3 });

        // As Git has it, or in whatever way.
        world.object("a")["data"]["value"] = "x".into();
        world.object("a")["metadata"]["labels"] = json!({});
        assert_eq!(world.view().is_ok(), alone, "{name}");

        // What left Git stays, and what is gone comes back without its mark.
        world.object("b")["metadata"]["annotations"][name] = value.into();
        world.live.insert(map("a", 1).key, member(&world, 0, &map("a", 1)));
        world.commit(without_b());
        world.say_applied();
        assert!(world.view().is_ok(), "{name}: {:?}", world.view());
        world.live.remove(&map("a", 1).key);
        world.says("app-00: ConfigMap one/a is missing");
    }
}

#[test]
fn a_label_that_a_hand_took_off_comes_back() {
    let mut world = World::new();
    world.traces.freed.insert("uid-a-1".into());
    world.object("a")["metadata"]["labels"] = json!({});
    world.says("a is not its own: labelled None");
    // With the label of another application it is not known as ours after a restart.
    world.object("a")["metadata"]["labels"] = json!({ PART_OF: "set-1" });
    world.says("its status says Succeeded");
    world.not_ready(0, "FieldConflict");
    world.app(0)["status"]["failures"] = json!([{ "object": "ConfigMap one/a" }]);
    assert!(world.view().is_ok());
    world.traces.freed.clear();
    assert!(world.view().is_err());
}

#[test]
fn a_suspended_application_leaves_all_as_it_is_and_others_may_wait_for_it() {
    let mut world = World::new();
    world.model.apps[0].standing = Standing::Suspended { since: 1 };
    world.object("a")["data"]["value"] = "x".into();
    world.live.remove(&map("b", 1).key);
    let mut next = without_b();
    next.extend(tree(1, &[map("c", 1), map("a", 1)]));
    next.remove(&0);
    world.commit(next);
    world.app(1)["status"]["lastAppliedRevision"] = "main@sha1:c1".into();
    world.says("app-01: ConfigMap one/a is not its own, and its status says Succeeded");
    world.not_ready(1, "OwnedByAnother");
    world.app(1)["status"]["failures"] = json!([{ "object": "ConfigMap one/a" }]);
    let rested = world.view().unwrap();
    assert_eq!(
        (rested.unsound, rested.blocked),
        (0, 1),
        "its folder is gone, which it does not say"
    );
    world.app(0)["metadata"]["generation"] = 2.into();
    world.says("app-00: its status is of an earlier generation");
    world.model.apps[0].standing = Standing::Active;
    assert!(world.view().is_err(), "once it is resumed all is to be put right");
}

#[test]
fn what_goes_to_a_suspended_application_stays_where_it_is() {
    let mut world = World::new();
    let mut next = without_b();
    next.extend(tree(1, &[map("c", 1), map("b", 1)]));
    world.commit(next);
    world.app(0)["status"]["lastAppliedRevision"] = "main@sha1:c1".into();
    assert!(world.view().is_err(), "one that is at work takes it");
    world.model.apps[1].standing = Standing::Suspended { since: 1 };
    assert!(world.view().is_ok(), "{:?}", world.view());
}

/// The first application was deleted.
fn deleted() -> World {
    let mut world = World::new();
    world.model.apps[0].standing = Standing::Gone { orphans: false, heir: None };
    world
}

#[test]
fn an_application_that_was_deleted_is_gone_with_what_it_had() {
    let mut world = deleted();
    world.says("app-00 was deleted and is still there");
    world.apps[0] = Arc::default();
    world.says("app-00 is gone, and has left: ConfigMap one/a, ConfigMap one/b");
    world.live.remove(&map("a", 1).key);
    let mark = json!({ "plumb.dev/prune": "disabled" });
    world.object("b")["metadata"]["annotations"] = mark;
    world.says("app-00 is gone, and has left: ConfigMap one/b");
    world.object("b")["metadata"]["labels"] = json!({});
    world.object("b")["metadata"]["managedFields"] = json!([]);
    assert!(world.view().is_ok(), "{:?}", world.view());
    // What it left without its label is nobody's.
    let mut orphan = map("a", 1).wanted();
    orphan["metadata"]["uid"] = "uid-a-1".into();
    world.live.insert(map("a", 1).key, Arc::new(orphan));
    assert!(world.view().is_ok(), "{:?}", world.view());
    world.object("a")["metadata"]["managedFields"] = json!([managed("plumb:one/app-00")]);
    world.says("ConfigMap one/a has an entry of app-00 and is not its own");
}

#[test]
fn an_application_that_was_deleted_may_hold_what_is_precious() {
    let mut world = deleted();
    hold(&mut world, "ProtectedObjects", &["ConfigMap one/a", "ConfigMap one/b"]);
    world.says("app-00 was deleted and holds 2 objects without reason");
    let mut claim = map("p", 1);
    claim.key.kind = CLAIM;
    let live = member(&world, 0, &claim);
    world.live.insert(claim.key.clone(), live);
    let all = ["ConfigMap one/a", "ConfigMap one/b", &claim.key.to_string()];
    hold(&mut world, "ProtectedObjects", &all);
    let rested = world.view().unwrap();
    assert_eq!(rested.held[&0].uids.len(), 3);
    hold(&mut world, "LargeShare", &all);
    world.says("3 are held for ProtectedObjects");
}

#[test]
fn what_another_left_is_taken_unless_it_differs() {
    let mut world = World::new();
    world.traces.orphans.insert("uid-a-1".into());
    let metadata = &mut world.object("a")["metadata"];
    metadata["labels"] = json!({});
    metadata["managedFields"] = json!([{ "manager": "kube-controller-manager" }]);
    world.says("a is not its own: labelled None");
    world.object("a")["data"]["value"] = "of that time".into();
    world.says("a is not its own, and its status says Succeeded");
    world.not_ready(0, "FieldConflict");
    world.app(0)["status"]["failures"] = json!([{ "object": "ConfigMap one/a" }]);
    assert_eq!(world.view().unwrap().blocked, 1);
    world.traces.orphans.clear();
    assert!(world.view().is_err(), "nobody had left it");
}

#[test]
fn a_new_application_may_have_applied_nothing_while_it_is_kept_from_it() {
    let mut world = World::new();
    world.model.apps[0].standing = Standing::Suspended { since: 1 };
    let mut next = tree(1, &[map("c", 1), map("a", 1)]);
    next.extend(tree(0, &[map("b", 1)]));
    world.commit(next);
    world.not_ready(1, "OwnedByAnother");
    world.app(1)["status"]["lastAppliedRevision"] = Value::Null;
    world.app(1)["status"]["failures"] = json!([{ "object": "ConfigMap one/a" }]);
    assert!(world.view().is_ok(), "{:?}", world.view());
    // Nor while its files are broken from the start.
    let mut next = tree(1, &[map("c", 1), map("c", 1)]);
    next.extend(tree(0, &[map("b", 1)]));
    world.commit(next);
    world.not_ready(1, "DuplicateObject");
    assert!(world.view().is_ok(), "{:?}", world.view());
    world.commit(without_b());
    let wrong = world.view().unwrap_err();
    assert!(wrong.iter().any(|what| what.contains("app-01 says of no commit")), "{wrong:?}");
}
