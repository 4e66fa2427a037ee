//! Objects that move between applications: they change hands, and nothing is deleted.

use kube::Api;
use kube::api::DynamicObject;
use plumb_testkit::{Agent, Fault, Match, Proxy, Rule, runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

const PART_OF: &str = "applyset.kubernetes.io/part-of";

/// A ConfigMap with another key beside `value`.
fn with_more(name: &str, value: &str, more: &str) -> String {
    format!("{}  {more}: \"1\"\n", config_map(name, value))
}

/// One run at a time, so that the order of the names is the order of the runs.
pub(crate) fn one_at_a_time(world: &World) -> Agent {
    world.agent_with(world.identity.kubeconfig().to_owned(), &["--concurrent", "1"])
}

pub(crate) async fn ready(world: &World, name: &str) -> Value {
    world.wait_condition(&world.apps(), name, ("Ready", "True"), |_| true).await
}

pub(crate) async fn uid(world: &World, name: &str) -> Value {
    world.get(&world.config_maps(), name).await["metadata"]["uid"].clone()
}

/// Waits until an application has a config map, wholly.
pub(crate) async fn wait_owner(world: &World, app: &str, name: &str) {
    wait_owner_of(world, app, &world.config_maps(), name).await;
}

/// Waits until an application has an object, wholly.
pub(crate) async fn wait_owner_of(world: &World, app: &str, api: &Api<DynamicObject>, name: &str) {
    let id = world.get(&world.apps(), app).await["metadata"]["labels"]["applyset.kubernetes.io/id"]
        .clone();
    wait_for(&format!("{name} to be {app}'s"), LIMIT, async || {
        let object = world.get(api, name).await;
        let metadata = &object["metadata"];
        let entries = metadata["managedFields"].as_array().unwrap();
        let ours: Vec<_> = entries
            .iter()
            .filter_map(|entry| entry["manager"].as_str()?.strip_prefix("plumb:"))
            .collect();
        let owner = format!("{}/{app}", world.ns);
        let whole = metadata["labels"][PART_OF] == id
            && metadata["annotations"]["plumb.dev/application"] == owner
            && ours == [owner];
        if whole { Ok(()) } else { Err(metadata.clone()) }
    })
    .await;
}

/// Two folders that keep an object each, and one object that may move, in the first.
fn all_in_one(world: &World) {
    world.repo.commit(
        &[
            ("a/keep.yaml", Some(&config_map("keep-a", "1"))),
            ("b/keep.yaml", Some(&config_map("keep-b", "1"))),
            ("a/x.yaml", Some(&config_map("x", "1"))),
        ],
        "all in one",
    );
}

/// Two applications, of two sources that follow the same branch.
async fn two_of_twins(world: &World) {
    world.apply(&world.source("1h")).await;
    let mut twin = world.source("1h");
    twin["metadata"]["name"] = "twin".into();
    world.apply(&twin).await;
    world.apply(&world.app("a", "a", "1h")).await;
    let mut app = world.app("b", "b", "1h");
    app["spec"]["sourceRef"]["name"] = "twin".into();
    world.apply(&app).await;
    for app in ["a", "b"] {
        ready(world, app).await;
    }
}

/// What the agent deleted since a mark, and the warnings about an application.
pub(crate) async fn assert_quiet(
    world: &World,
    mark: plumb_testkit::control_plane::Mark,
    apps: &[&str],
) {
    world.plane.settled().await;
    let deletes: Vec<_> = world
        .plane
        .audit()
        .since(mark)
        .into_iter()
        .filter(|event| event.user == world.identity.user() && event.verb == "delete")
        .map(|event| event.what())
        .collect();
    assert!(deletes.is_empty(), "{deletes:?}");
    for app in apps {
        let events = world.events_of(app).await;
        assert!(!events.iter().any(|event| event.contains("OwnedByAnother")), "{events:?}");
    }
}

#[test]
fn an_object_that_moves_is_handed_over_whichever_application_looks_first() {
    runtime().block_on(async {
        let world = World::new("move").await;
        let keep = |name: &str| config_map(name, "1");
        world.repo.commit(
            &[
                ("a/keep.yaml", Some(&keep("keep-a"))),
                ("b/keep.yaml", Some(&keep("keep-b"))),
                ("a/x.yaml", Some(&with_more("x", "1", "from-a"))),
                ("b/y.yaml", Some(&with_more("y", "1", "from-b"))),
            ],
            "one each",
        );
        let _agent = one_at_a_time(&world);
        world.sync_each(&["a", "b"]).await;
        let before = (uid(&world, "x").await, uid(&world, "y").await);
        let mark = world.plane.audit().mark();

        // In one commit each gets the other's: `a`, which looks first, finds `y` still wanted, and
        // has let `x` go before `b` asks for it.
        let commit = world.repo.commit(
            &[
                ("a/x.yaml", None),
                ("b/y.yaml", None),
                ("a/y.yaml", Some(&with_more("y", "2", "from-a"))),
                ("b/x.yaml", Some(&with_more("x", "2", "from-b"))),
            ],
            "moved",
        );
        world.look().await;
        for app in ["a", "b"] {
            world.wait_applied(app, &commit).await;
        }
        wait_owner(&world, "a", "y").await;
        wait_owner(&world, "b", "x").await;
        assert_eq!((uid(&world, "x").await, uid(&world, "y").await), before);
        // What only the former owner declared went with it.
        assert_eq!(world.data("x").await, Some(json!({"value": "2", "from-b": "1"})));
        assert_eq!(world.data("y").await, Some(json!({"value": "2", "from-a": "1"})));
        assert_quiet(&world, mark, &["a", "b"]).await;

        // They are enforced and deleted as if they had been there from the start.
        world.edit(&world.config_maps(), "x", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("x", "2").await;
        world.repo.commit(&[("b/x.yaml", None)], "gone");
        world.look().await;
        world.wait_gone(&world.config_maps(), "x").await;
        ready(&world, "b").await;
    });
}

#[test]
fn an_application_can_be_split_and_merged() {
    runtime().block_on(async {
        let world = World::new("split").await;
        let names = ["m-0", "m-1", "m-2", "m-3", "m-4", "m-5"];
        let maps: Vec<_> = names.iter().map(|name| config_map(name, "1")).collect();
        let paths = |dirs: [&str; 6]| -> Vec<String> {
            dirs.iter().zip(names).map(|(dir, name)| format!("{dir}/{name}.yaml")).collect()
        };
        let (whole, parts) =
            (paths(["one"; 6]), paths(["one", "one", "three", "three", "two", "two"]));
        let put = |paths: &[String]| -> Vec<(String, Option<String>)> {
            let maps = maps.iter().map(|map| Some(map.clone()));
            paths.iter().cloned().zip(maps).collect()
        };
        let commit = |changes: Vec<(String, Option<String>)>, message: &str| {
            let changes: Vec<_> =
                changes.iter().map(|(path, text)| (path.as_str(), text.as_deref())).collect();
            world.repo.commit(&changes, message)
        };
        let mut first = put(&whole);
        for dir in ["one", "two", "three"] {
            first.push((format!("{dir}/own.yaml"), Some(config_map(&format!("own-{dir}"), "1"))));
        }
        commit(first, "one");
        let _agent = one_at_a_time(&world);
        world.apply(&world.source("1h")).await;
        let apps = ["one", "three", "two"];
        for app in apps {
            world.apply(&world.app(app, app, "1h")).await;
        }
        for app in apps {
            ready(&world, app).await;
        }
        let mut uids = Vec::new();
        for name in names {
            uids.push(uid(&world, name).await);
        }
        let mark = world.plane.audit().mark();
        let without = |paths: &[String], others: &[String]| -> Vec<(String, Option<String>)> {
            paths.iter().filter(|path| !others.contains(path)).map(|p| (p.clone(), None)).collect()
        };
        for (to, from) in [(&parts, &whole), (&whole, &parts)] {
            let changes = put(to).into_iter().chain(without(from, to)).collect();
            commit(changes, "moved");
            world.look().await;
            for (path, name) in to.iter().zip(names) {
                wait_owner(&world, path.split_once('/').unwrap().0, name).await;
            }
        }
        for (name, before) in names.iter().zip(uids) {
            assert_eq!(uid(&world, name).await, before);
        }
        for app in apps {
            ready(&world, app).await;
        }
        assert_quiet(&world, mark, &apps).await;
    });
}

#[test]
fn an_application_under_a_new_name_takes_over_what_the_old_one_had() {
    runtime().block_on(async {
        let world = World::new("rename").await;
        world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "1"))),
                ("app/b.yaml", Some(&config_map("b", "1"))),
            ],
            "two",
        );
        let _agent = one_at_a_time(&world);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("old", "app", "1h")).await;
        ready(&world, "old").await;
        let before = (uid(&world, "a").await, uid(&world, "b").await);
        let mark = world.plane.audit().mark();
        world.apply(&world.app("new", "app", "1h")).await;
        world.delete(&world.apps(), "old").await;
        world.wait_gone(&world.apps(), "old").await;
        ready(&world, "new").await;
        wait_owner(&world, "new", "a").await;
        wait_owner(&world, "new", "b").await;
        assert_eq!((uid(&world, "a").await, uid(&world, "b").await), before);
        assert_quiet(&world, mark, &[]).await;
        let new = world.get(&world.apps(), "new").await;
        assert_eq!(condition(&new, "Ready")["status"], "True");
    });
}

#[test]
fn an_application_under_a_new_name_waits_for_the_old_one_that_is_being_deleted() {
    runtime().block_on(async {
        let world = World::new("rename-late").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let mut agent = one_at_a_time(&world);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("old", "app", "1h")).await;
        ready(&world, "old").await;
        let before = uid(&world, "a").await;
        agent.stop();
        let mark = world.plane.audit().mark();
        world.apply(&world.app("new", "app", "1h")).await;
        world.delete(&world.apps(), "old").await;
        // The new one is the first to look.
        let _agent = one_at_a_time(&world);
        world.wait_gone(&world.apps(), "old").await;
        ready(&world, "new").await;
        wait_owner(&world, "new", "a").await;
        assert_eq!(uid(&world, "a").await, before);
        assert_quiet(&world, mark, &["new"]).await;
    });
}

#[test]
fn what_an_application_leaves_behind_goes_to_those_who_want_it() {
    runtime().block_on(async {
        let world = World::new("rename-orphan").await;
        world.repo.commit(
            &[
                ("app/a.yaml", Some(&config_map("a", "1"))),
                ("app/b.yaml", Some(&config_map("b", "1"))),
                ("next/a.yaml", Some(&config_map("a", "2"))),
            ],
            "one of two with another value",
        );
        let _agent = one_at_a_time(&world);
        world.apply(&world.source("1h")).await;
        let mut old = world.app("old", "app", "1h");
        old["spec"]["deletionPolicy"] = json!("Orphan");
        world.apply(&old).await;
        ready(&world, "old").await;
        world.apply(&world.app("new", "next", "1h")).await;
        world.wait_refused(&world.apps(), "new", "OwnedByAnother", &["/old"]).await;
        world.delete(&world.apps(), "old").await;
        world.wait_gone(&world.apps(), "old").await;
        ready(&world, "new").await;
        wait_owner(&world, "new", "a").await;
        assert_eq!(world.data("a").await, Some(json!({"value": "2"})));
        let left = world.get(&world.config_maps(), "b").await;
        assert_eq!(left["metadata"]["labels"], Value::Null);
    });
}

/// A kill between both halves of a hand-over, and then the new owner does not want it any more: the
/// label is the one's, the entry the other's. It was kept by nobody, for ever.
#[test]
fn what_was_half_taken_and_is_wanted_no_more_goes_back() {
    runtime().block_on(async {
        let world = World::new("half-taken").await;
        all_in_one(&world);
        let y = config_map("y", "1");
        world.repo.commit(&[("a/y.yaml", Some(&*y))], "one more");
        let proxy = Proxy::to_api(&world.plane, 1).await;
        let mut agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.sync_each(&["a", "b"]).await;
        let second_half = Match::method("PATCH").path("/configmaps/").query("force=true");
        let rule = proxy.add(Rule::new(second_half, Fault::Stall));
        let x = config_map("x", "1");
        let both = [
            ("a/x.yaml", None),
            ("a/y.yaml", None),
            ("b/x.yaml", Some(&*x)),
            ("b/y.yaml", Some(&*y)),
        ];
        world.repo.commit(&both, "both move");
        world.look().await;
        let half = format!("plumb:{}/b", world.ns);
        for name in ["x", "y"] {
            world
                .wait_object(&world.config_maps(), name, |object| {
                    object["metadata"]["managedFields"].to_string().contains(&half)
                })
                .await;
        }
        agent.kill9();
        proxy.remove(rule);
        let last = [("b/x.yaml", None), ("b/y.yaml", None), ("a/y.yaml", Some(&*y))];
        let commit = world.repo.commit(&last, "one goes, and one goes back");
        let _agent = world.agent();
        world.look().await;
        world.wait_applied("a", &commit).await;
        world.wait_gone(&world.config_maps(), "x").await;
        wait_owner(&world, "a", "y").await;
    });
}

#[test]
fn a_new_name_that_cannot_say_yet_what_it_wants_is_waited_for() {
    runtime().block_on(async {
        let world = World::new("rename-unheard").await;
        world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let mut agent = one_at_a_time(&world);
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("old", "app", "1h")).await;
        ready(&world, "old").await;
        let before = uid(&world, "a").await;
        assert!(agent.stop().success());
        let mark = world.plane.audit().mark();
        world.apply(&world.app("new", "app", "1h")).await;
        world.delete(&world.apps(), "old").await;

        // Who leads now knows neither the repository nor what was wanted of it.
        world.git.stop().await;
        let _agent = one_at_a_time(&world);
        world.wait_refused(&world.apps(), "new", "SourceNotReady", &[]).await;
        let parts = ["waiting for other applications"];
        world.wait_refused(&world.apps(), "old", "Terminating", &parts).await;
        world.git.restart().await;
        world.look().await;
        world.wait_gone(&world.apps(), "old").await;
        ready(&world, "new").await;
        wait_owner(&world, "new", "a").await;
        assert_eq!(uid(&world, "a").await, before);
        assert_quiet(&world, mark, &[]).await;
    });
}

#[test]
fn what_may_have_gone_to_an_application_that_does_not_render_is_kept_until_it_does() {
    runtime().block_on(async {
        let world = World::new("move-broken").await;
        world.repo.commit(
            &[
                ("a/keep.yaml", Some(&config_map("keep-a", "1"))),
                ("b/keep.yaml", Some(&config_map("keep-b", "1"))),
                ("a/x.yaml", Some(&config_map("x", "1"))),
                ("a/y.yaml", Some(&config_map("y", "1"))),
            ],
            "all in one",
        );
        let _agent = one_at_a_time(&world);
        world.sync_each(&["a", "b"]).await;
        let before = uid(&world, "x").await;
        let mark = world.plane.audit().mark();

        // The commit that moves one and drops another breaks where the first was to go.
        let moved = config_map("x", "2");
        world.repo.commit(
            &[
                ("a/x.yaml", None),
                ("a/y.yaml", None),
                ("b/x.yaml", Some(&moved)),
                ("b/bad.yaml", Some("kind: [")),
            ],
            "moved, with a slip",
        );
        world.look().await;
        world.wait_refused(&world.apps(), "b", "BuildFailed", &["b/bad.yaml"]).await;
        let other = format!("{}/b has not rendered", world.ns);
        let parts = ["2 deletions are held", &other, "plumb.dev/approve-prune"];
        let object = world.wait_refused(&world.apps(), "a", "PruneHeld", &parts).await;
        assert_eq!(object["status"]["prune"]["reason"], "NeighbourBroken");

        // Mended, it takes what it asks for; nobody asks for the other.
        world.repo.commit(&[("b/bad.yaml", None)], "mended");
        world.look().await;
        wait_owner(&world, "b", "x").await;
        world.wait_gone(&world.config_maps(), "y").await;
        assert_eq!(uid(&world, "x").await, before);
        for app in ["a", "b"] {
            ready(&world, app).await;
        }
        world.plane.settled().await;
        let deletes = world
            .plane
            .audit()
            .since(mark)
            .into_iter()
            .filter(|event| event.user == world.identity.user() && event.verb == "delete");
        assert_eq!(deletes.map(|event| event.name).collect::<Vec<_>>(), ["y"]);

        // One that stays broken holds up what leaves Git later no more.
        world.repo.commit(&[("b/bad.yaml", Some("kind: ["))], "broken");
        world.look().await;
        world.wait_refused(&world.apps(), "b", "BuildFailed", &["b/bad.yaml"]).await;
        ready(&world, "a").await;
        world.repo.commit(&[("a/z.yaml", Some(&config_map("z", "1")))], "more");
        world.look().await;
        world.wait_value("z", "1").await;
        let commit = world.repo.commit(&[("a/z.yaml", None)], "less");
        world.look().await;
        world.wait_applied("a", &commit).await;
        assert_eq!(world.data("z").await, None);
    });
}

#[test]
fn what_a_suspended_or_broken_application_had_stays_its_own() {
    runtime().block_on(async {
        let world = World::new("move-held").await;
        world.repo.commit(
            &[
                ("a/keep.yaml", Some(&config_map("keep-a", "1"))),
                ("b/keep.yaml", Some(&config_map("keep-b", "1"))),
                ("a/x.yaml", Some(&config_map("x", "1"))),
                ("a/y.yaml", Some(&config_map("y", "1"))),
            ],
            "all in one",
        );
        let mut agent = one_at_a_time(&world);
        let probe = Probe::of(&mut agent).await;
        world.sync_each(&["a", "b"]).await;
        let before = (uid(&world, "x").await, uid(&world, "y").await);
        let mark = world.plane.audit().mark();
        let other = format!("application {}/a", world.ns);

        world.edit(&world.apps(), "a", &json!({"spec": {"suspend": true}})).await;
        probe.suspended("a").await;
        world.edit(&world.config_maps(), "x", &json!({"data": {"value": "by hand"}})).await;
        let moved = config_map("x", "2");
        world.repo.commit(&[("a/x.yaml", None), ("b/x.yaml", Some(&moved))], "moved");
        world.look().await;
        world.wait_refused(&world.apps(), "b", "OwnedByAnother", &[&other]).await;
        world.wait_value("x", "by hand").await;
        world.edit(&world.apps(), "a", &json!({"spec": {"suspend": false}})).await;
        // With the object goes the right to undo what others did to it.
        world.wait_value("x", "2").await;
        wait_owner(&world, "b", "x").await;
        ready(&world, "b").await;

        let moved = config_map("y", "2");
        world.repo.commit(
            &[("a/y.yaml", None), ("b/y.yaml", Some(&moved)), ("a/bad.yaml", Some("kind: ["))],
            "moved, with a slip",
        );
        world.look().await;
        world.wait_refused(&world.apps(), "b", "OwnedByAnother", &[&other]).await;
        world.wait_value("y", "1").await;
        world.repo.commit(&[("a/bad.yaml", None)], "mended");
        world.look().await;
        wait_owner(&world, "b", "y").await;
        for app in ["a", "b"] {
            ready(&world, app).await;
        }
        assert_eq!((uid(&world, "x").await, uid(&world, "y").await), before);
        assert_quiet(&world, mark, &[]).await;
    });
}

#[test]
fn what_goes_to_a_suspended_application_stays_for_it() {
    runtime().block_on(async {
        let world = World::new("move-suspended").await;
        world.repo.commit(
            &[
                ("a/keep.yaml", Some(&config_map("keep-a", "1"))),
                ("b/keep.yaml", Some(&config_map("keep-b", "1"))),
                ("a/x.yaml", Some(&config_map("x", "1"))),
                ("a/gone.yaml", Some(&config_map("gone", "1"))),
            ],
            "all in one",
        );
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.sync_each(&["a", "b"]).await;
        let before = uid(&world, "x").await;
        world.edit(&world.apps(), "b", &json!({"spec": {"suspend": true}})).await;
        probe.suspended("b").await;

        let moved = config_map("x", "2");
        let commit = [("a/x.yaml", None), ("a/gone.yaml", None), ("b/x.yaml", Some(&*moved))];
        world.repo.commit(&commit, "moved");
        world.look().await;
        // What nobody asks for goes, and what is meant for the other one stays as it was.
        wait_for("what nobody asks for to go", LIMIT, async || {
            match world.config_maps().get_opt("gone").await.unwrap() {
                None => Ok(()),
                Some(object) => Err(object),
            }
        })
        .await;
        world.wait_value("x", "1").await;
        world.edit(&world.apps(), "b", &json!({"spec": {"suspend": false}})).await;
        world.wait_value("x", "2").await;
        wait_owner(&world, "b", "x").await;
        for app in ["a", "b"] {
            ready(&world, app).await;
        }
        assert_eq!(uid(&world, "x").await, before);
    });
}

/// What an object waits for that is meant for a suspended Application ends when Git asks for it there no
/// more: whoever still has it hears of that, also where its own repository is another one.
#[test]
fn what_a_suspended_application_would_want_no_more_goes_where_it_still_is() {
    runtime().block_on(async {
        let world = World::new("unwanted-suspended").await;
        let mine = world.git.repo("mine");
        let [keep_a, keep_b, x] = ["keep-a", "keep-b", "x"].map(|name| config_map(name, "1"));
        mine.commit(&[("a/keep.yaml", Some(&keep_a)), ("a/x.yaml", Some(&x))], "mine");
        world.repo.commit(&[("b/keep.yaml", Some(&keep_b))], "theirs");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.sync_each(&["b"]).await;
        let mut source = world.source("1h");
        source["metadata"]["name"] = json!("mine");
        source["spec"]["url"] = json!(world.git.url("mine"));
        world.apply(&source).await;
        let mut app = world.app("a", "a", "1h");
        app["spec"]["sourceRef"]["name"] = json!("mine");
        world.apply(&app).await;
        ready(&world, "a").await;
        world.edit(&world.apps(), "b", &json!({"spec": {"suspend": true}})).await;
        probe.suspended("b").await;

        let commit = world.repo.commit(&[("b/x.yaml", Some(&x))], "theirs, too");
        world.look().await;
        world
            .wait_condition(&world.sources(), "repo", ("Ready", "True"), |source| {
                source["status"]["revision"].as_str().is_some_and(|at| at.contains(&commit))
            })
            .await;
        world.request(&world.apps(), "b", "look").await;
        world
            .wait_condition(&world.apps(), "b", ("Ready", "True"), |app| {
                app["status"]["lastHandledReconcileAt"] == "look"
            })
            .await;
        probe.idle(0).await;
        let commit = mine.commit(&[("a/x.yaml", None)], "not mine");
        world.request(&world.sources(), "mine", "moved").await;
        world.wait_applied("a", &commit).await;
        world.wait_value("x", "1").await;
        world.repo.commit(&[("b/x.yaml", None)], "nobody's");
        world.look().await;
        wait_for("what nobody asks for to go", LIMIT, async || {
            match world.config_maps().get_opt("x").await.unwrap() {
                None => Ok(()),
                Some(object) => Err(object),
            }
        })
        .await;
    });
}

/// The one that had it says where its members are, and that is known to be less only once it is taken.
#[test]
fn who_has_let_an_object_go_forgets_its_kind_once_it_is_taken() {
    runtime().block_on(async {
        let world = World::new("move-scope").await;
        let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: x\n";
        let [keep_a, keep_b] = ["keep-a", "keep-b"].map(|name| config_map(name, "1"));
        let files = [("a/keep.yaml", &*keep_a), ("b/keep.yaml", &*keep_b), ("a/x.yaml", account)];
        world.repo.commit(&files.map(|(path, text)| (path, Some(text))), "all in one");
        let _agent = world.agent();
        world.sync_each(&["a", "b"]).await;
        let kinds = async |app: &str, expected: &str| {
            wait_for(&format!("{app} to have {expected}"), LIMIT, async || {
                let object = world.get(&world.apps(), app).await;
                let kinds = &object["metadata"]["annotations"]
                    ["applyset.kubernetes.io/contains-group-kinds"];
                if kinds == expected { Ok(()) } else { Err(kinds.clone()) }
            })
            .await;
        };
        kinds("a", "ConfigMap,ServiceAccount").await;
        world.repo.commit(&[("a/x.yaml", None), ("b/x.yaml", Some(account))], "moved");
        world.look().await;
        kinds("b", "ConfigMap,ServiceAccount").await;
        kinds("a", "ConfigMap").await;
        for app in ["a", "b"] {
            ready(&world, app).await;
        }
    });
}

#[test]
fn two_sources_of_one_branch_move_together() {
    runtime().block_on(async {
        let world = World::new("move-twins").await;
        world.repo.commit(
            &[
                ("a/keep.yaml", Some(&config_map("keep-a", "1"))),
                ("b/keep.yaml", Some(&config_map("keep-b", "1"))),
                ("a/x.yaml", Some(&config_map("x", "1"))),
                ("b/y.yaml", Some(&config_map("y", "1"))),
            ],
            "one each",
        );
        let _agent = world.agent();
        two_of_twins(&world).await;
        let before = (uid(&world, "x").await, uid(&world, "y").await);
        let mark = world.plane.audit().mark();

        // Only one of them is told that there is something new.
        let commit = world.repo.commit(
            &[
                ("a/x.yaml", None),
                ("b/y.yaml", None),
                ("a/y.yaml", Some(&config_map("y", "2"))),
                ("b/x.yaml", Some(&config_map("x", "2"))),
            ],
            "moved",
        );
        world.look().await;
        for app in ["a", "b"] {
            world.wait_applied(app, &commit).await;
        }
        wait_owner(&world, "a", "y").await;
        wait_owner(&world, "b", "x").await;
        assert_eq!((uid(&world, "x").await, uid(&world, "y").await), before);
        assert_quiet(&world, mark, &["a", "b"]).await;
    });
}

#[test]
fn what_goes_to_a_source_that_cannot_be_read_for_a_moment_is_waited_for() {
    runtime().block_on(async {
        let world = World::new("move-twin-away").await;
        all_in_one(&world);
        let _agent = world.agent();
        two_of_twins(&world).await;
        let before = uid(&world, "x").await;
        let mark = world.plane.audit().mark();
        let mut twin = world.source("1h");
        twin["metadata"]["name"] = "twin".into();
        let readable = twin.clone();
        twin["spec"]["secretRef"] = json!({"name": "not-there"});
        world.apply(&twin).await;
        world.wait_refused(&world.sources(), "twin", "SecretNotFound", &["not-there"]).await;

        let moved = config_map("x", "2");
        let moves = [("a/x.yaml", None), ("b/x.yaml", Some(&*moved))];
        let commit = world.repo.commit(&moves, "moved");
        world.look().await;
        let parts = [&commit[..12], "other applications have yet to look"];
        world.wait_refused(&world.apps(), "a", "Progressing", &parts).await;
        world.apply(&readable).await;
        wait_owner(&world, "b", "x").await;
        for app in ["a", "b"] {
            world.wait_applied(app, &commit).await;
        }
        assert_eq!(uid(&world, "x").await, before);
        assert_quiet(&world, mark, &["a", "b"]).await;
    });
}

#[test]
fn what_may_have_gone_to_a_broken_application_of_another_source_of_the_branch_is_kept() {
    runtime().block_on(async {
        let world = World::new("twin-broken").await;
        all_in_one(&world);
        let _agent = world.agent();
        two_of_twins(&world).await;
        let before = uid(&world, "x").await;
        let mark = world.plane.audit().mark();

        let moved = config_map("x", "2");
        world.repo.commit(
            &[("a/x.yaml", None), ("b/x.yaml", Some(&moved)), ("b/bad.yaml", Some("kind: ["))],
            "moved, with a slip",
        );
        world.look().await;
        world.wait_refused(&world.apps(), "b", "BuildFailed", &["b/bad.yaml"]).await;
        let other = format!("{}/b has not rendered", world.ns);
        let parts = ["1 deletion is held", &other];
        world.wait_refused(&world.apps(), "a", "PruneHeld", &parts).await;

        world.repo.commit(&[("b/bad.yaml", None)], "mended");
        world.look().await;
        wait_owner(&world, "b", "x").await;
        for app in ["a", "b"] {
            ready(&world, app).await;
        }
        assert_eq!(uid(&world, "x").await, before);
        assert_quiet(&world, mark, &[]).await;
    });
}
