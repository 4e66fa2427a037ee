//! Somebody else writes between what the agent has read and what it sends: that is planned on what is
//! no more, refused by the API server, and looked at anew.

use kube::api::{Patch, PatchParams, PostParams};
use plumb_testkit::{Agent, Exchange, Match, Proxy, runtime};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, condition, config_map};

/// An Application `web` of these files, applied by an agent behind a proxy.
async fn behind_proxy(prefix: &str, files: &[(&str, String)]) -> (World, Proxy, Agent) {
    behind_proxy_with(prefix, files, &[]).await
}

/// The same, started with these arguments.
async fn behind_proxy_with(
    prefix: &str,
    files: &[(&str, String)],
    args: &[&str],
) -> (World, Proxy, Agent) {
    let world = World::new(prefix).await;
    let proxy = Proxy::to_api(&world.plane, 1).await;
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, Some(&**text))).collect();
    let commit = world.repo.commit(&files, "all");
    let agent = world.agent_with(world.identity.through(&proxy.url()), args);
    world.sync("web", "app", &commit).await;
    (world, proxy, agent)
}

/// The forced applies of a config map.
fn corrections(name: &str) -> Match {
    Match::method("PATCH").path(&format!("/configmaps/{name}")).query("force=true")
}

/// The answers to the forced applies of a config map, each with the version that it was planned on.
fn answers(exchanges: &[Exchange], name: &str) -> Vec<(Option<u16>, Value)> {
    let sent = exchanges.iter().filter(|e| {
        e.request.method == "PATCH"
            && e.request.path.ends_with(&format!("/configmaps/{name}"))
            && e.request.query.contains("force=true")
    });
    let version = |e: &Exchange| {
        let body: Value = serde_json::from_slice(&e.request.body).unwrap();
        body["metadata"]["resourceVersion"].clone()
    };
    sent.map(|e| (e.status, version(e))).collect()
}

async fn version(world: &World, name: &str) -> Value {
    world.get(&world.config_maps(), name).await["metadata"]["resourceVersion"].clone()
}

/// Puts another object in the place of one, as somebody who knows nothing of us.
async fn replace(world: &World, name: &str, value: &str) -> Value {
    world.delete(&world.config_maps(), name).await;
    let other = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"value": value},
    });
    let other = serde_json::from_value(other).unwrap();
    let params = PostParams { field_manager: Some("somebody".into()), ..Default::default() };
    serde_json::to_value(world.config_maps().create(&params, &other).await.unwrap()).unwrap()
}

#[test]
fn a_correction_that_somebody_comes_before_is_explained_anew_and_sent_again() {
    runtime().block_on(async {
        let a = format!("{}  more: \"1\"\n", config_map("a", "git"));
        let (world, proxy, _agent) = behind_proxy("stale", &[("app/a.yaml", a)]).await;
        let maps = world.config_maps();
        let mark = proxy.mark();
        let mut hold = proxy.hold(corrections("a"));
        world.edit(&maps, "a", &json!({"data": {"value": "by hand"}})).await;
        hold.arrived(LIMIT).await;
        let first = version(&world, "a").await;
        // Another one, of a field that the correction under way knows nothing of.
        let params = PatchParams { field_manager: Some("another".into()), ..Default::default() };
        let edit = Patch::Merge(json!({"data": {"more": "theirs", "own": "x"}}));
        maps.patch("a", &params, &edit).await.unwrap();
        let second = version(&world, "a").await;
        hold.release();

        let restored = json!({"value": "git", "more": "1", "own": "x"});
        world.wait_object(&maps, "a", |object| object["data"] == restored).await;
        let parts = [
            "DriftCorrected",
            "/a was changed",
            "data.value (by by-hand at",
            "data.more (by another at",
        ];
        world.wait_event("web", &parts).await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["drift"]["count"] == 1
            })
            .await;
        let sent = answers(&proxy.since(mark), "a");
        assert_eq!(sent, [(Some(409), first), (Some(200), second)]);
    });
}

#[test]
fn what_takes_the_place_of_ours_while_it_is_corrected_is_not_overwritten() {
    runtime().block_on(async {
        let a = config_map("a", "git");
        let (world, proxy, _agent) = behind_proxy("replaced", &[("app/a.yaml", a)]).await;
        let maps = world.config_maps();
        let mark = proxy.mark();
        let mut hold = proxy.hold(corrections("a"));
        world.edit(&maps, "a", &json!({"data": {"value": "by hand"}})).await;
        hold.arrived(LIMIT).await;
        let other = replace(&world, "a", "theirs").await;
        hold.release();

        let parts = ["app/a.yaml:6", "exists already", "somebody", "data.value"];
        world.wait_refused(&world.apps(), "web", "FieldConflict", &parts).await;
        assert_eq!(world.get(&maps, "a").await, other);
        let sent = answers(&proxy.since(mark), "a");
        assert_eq!(sent.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [Some(409)]);
    });
}

#[test]
fn what_changes_while_it_is_deleted_is_deleted_only_if_it_still_is_ours_to_delete() {
    runtime().block_on(async {
        let names = ["keep", "noted", "marked", "replaced", "taken"];
        let files: Vec<_> = names.map(|name| (format!("app/{name}.yaml"), name)).into();
        let files: Vec<_> =
            files.iter().map(|(path, name)| (&**path, config_map(name, "1"))).collect();
        let (world, proxy, _agent) = behind_proxy("stale-prune", &files).await;
        let maps = world.config_maps();
        let mark = proxy.mark();
        let mut holds = Vec::new();
        for name in &names[1..] {
            let deletion = Match::method("DELETE").path(&format!("/configmaps/{name}"));
            holds.push(proxy.hold(deletion));
        }
        let gone: Vec<_> = files[1..].iter().map(|(path, _)| (*path, None)).collect();
        let commit = world.repo.commit(&gone, "one is left");
        world.look().await;
        for hold in &mut holds {
            hold.arrived(LIMIT).await;
        }
        world.annotate(&maps, "noted", "example.com/note", "x").await;
        world.annotate(&maps, "marked", "plumb.dev/prune", "disabled").await;
        let other = replace(&world, "replaced", "theirs").await;
        // Somebody makes it his own: he owns the label from now on.
        let own = json!({"metadata": {"labels": {"applyset.kubernetes.io/part-of": "mine"}}});
        world.edit(&maps, "taken", &own).await;
        holds.into_iter().for_each(plumb_testkit::Hold::release);

        world.wait_applied("web", &commit).await;
        let stays = "/marked left Git but is not deleted: it is marked to stay";
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                condition(object, "Ready")["message"].as_str().unwrap().contains(stays)
            })
            .await;
        world.wait_gone(&maps, "noted").await;
        assert_eq!(world.get(&maps, "replaced").await, other);
        for name in ["keep", "marked", "taken"] {
            assert_eq!(world.data(name).await, Some(json!({"value": "1"})), "{name}");
        }
        // Each was refused once, as it was not what had been listed; one was sent again.
        let sent = |name: &str| {
            let sent = proxy.since(mark).into_iter().filter(|e| {
                e.request.method == "DELETE"
                    && e.request.path.ends_with(&format!("/configmaps/{name}"))
            });
            sent.map(|e| e.status).collect::<Vec<_>>()
        };
        assert_eq!(sent("noted"), [Some(409), Some(200)]);
        for name in ["marked", "replaced", "taken"] {
            assert_eq!(sent(name), [Some(409)], "{name}");
        }
    });
}

/// The answer to an apply is on its way while somebody deletes the object, and the watch is faster.
#[test]
fn what_is_deleted_before_the_answer_to_its_apply_comes_is_made_again() {
    runtime().block_on(async {
        let files = [("app/a.yaml", config_map("a", "1")), ("other/c.yaml", config_map("c", "1"))];
        // With that lease it waits for an answer for half a minute.
        let args = ["--lease-duration", "60s"];
        let (world, proxy, _agent) = behind_proxy_with("late-answer", &files, &args).await;
        let maps = world.config_maps();
        world.apply(&world.app("other", "other", "1h")).await;
        world.wait_value("c", "1").await;
        for (name, file) in [("a", "app/a.yaml"), ("new", "app/new.yaml")] {
            let patch = Match::method("PATCH").path(&format!("/configmaps/{name}"));
            let mut hold = proxy.hold_answer(patch);
            let commit = world.repo.commit(&[(file, Some(&config_map(name, "2")))], name);
            world.look().await;
            hold.arrived(LIMIT).await;
            world.delete(&maps, name).await;
            // Once this is put back the watch has told of the deletion.
            world.edit(&maps, "c", &json!({"data": {"value": name}})).await;
            world.wait_value("c", "1").await;
            hold.release();
            world.wait_applied("web", &commit).await;
            world.wait_value(name, "2").await;
        }
    });
}
