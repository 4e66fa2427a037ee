//! What waits for others: `spec.dependsOn`. Nothing here comes by itself within an hour.

use std::cell::Cell;
use std::time::{Duration, Instant};

use plumb_testkit::{AuditEvent, runtime, wait_for};
use serde_json::{Value, json};

use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

/// An Application of the path of its name, after others.
fn after(world: &World, name: &str, depends_on: Value) -> Value {
    let mut app = world.app(name, name, "1h");
    app["spec"]["dependsOn"] = depends_on;
    app["spec"]["retryInterval"] = json!("1h");
    app
}

/// Waits until a person is told what an Application waits for.
async fn waits_for(world: &World, app: &str, parts: &[&str]) -> Value {
    world.wait_refused(&world.apps(), app, "DependencyNotReady", parts).await
}

async fn version(world: &World, name: &str) -> u64 {
    let object = world.get(&world.config_maps(), name).await;
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_chain_goes_through_at_once_link_by_link() {
    const LINKS: usize = 20;
    runtime().block_on(async {
        let world = World::new("chain").await;
        let names: Vec<String> = (0..LINKS).map(|number| format!("link-{number}")).collect();
        let commit = |value: &str, also: &str| {
            let mut files: Vec<(String, String)> = names
                .iter()
                .map(|name| (format!("{name}/a.yaml"), config_map(name, value)))
                .collect();
            files.push(("elsewhere".into(), also.into()));
            let files: Vec<(&str, Option<&str>)> =
                files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
            world.repo.commit(&files, "all")
        };
        let ordered = async || {
            let mut last = 0;
            for name in &names {
                let version = version(&world, name).await;
                assert!(version > last, "{name} before the one that it waits for");
                last = version;
            }
        };
        let first = commit("1", "");
        let audit = world.plane.audit();
        let mark = audit.mark();
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        for (number, name) in names.iter().enumerate().rev() {
            let on = number.checked_sub(1).map(|before| json!([{"name": names[before]}]));
            world.apply(&after(&world, name, on.unwrap_or_else(|| json!([])))).await;
        }
        for name in &names {
            world.wait_applied(name, &first).await;
        }
        ordered().await;
        let second = commit("2", "");
        world.look().await;
        for name in &names {
            world.wait_applied(name, &second).await;
        }
        ordered().await;
        world.plane.settled().await;
        let asked = audit.requests(mark).by(&world.identity.user()).within(&world.ns);
        let statuses = asked.count("patch plumb.dev/applications/status");
        assert!(statuses <= 8 * LINKS, "{statuses} writes of statuses");

        // A commit that changes nothing of them writes nothing, and neither does a start.
        world.plane.settled().await;
        let mark = audit.mark();
        commit("2", "another");
        world.look().await;
        assert!(agent.stop().success());
        let _agent = world.agent();
        world.edit(&world.config_maps(), "link-19", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("link-19", "2").await;
        world.plane.settled().await;
        let asked = audit.requests(mark).by(&world.identity.user()).within(&world.ns);
        let status = |event: &plumb_testkit::control_plane::AuditEvent| {
            event.resource == "applications" && event.name != "link-19"
        };
        let writes = asked.writes().only(status);
        assert_eq!(writes.counts().len(), 0, "{}", writes.table());
    });
}

/// No link has anything by which it would come by itself within the time of this test: while they wait
/// nothing runs, and then each link is run by the end of the one before.
#[test]
fn a_chain_that_waits_costs_nothing_and_each_link_runs_when_the_one_before_is_ready() {
    const LINKS: usize = 20;
    // A look of each once a minute takes nearly two.
    const SOON: Duration = Duration::from_secs(75);
    runtime().block_on(async {
        let world = World::new("chain-at-rest").await;
        let names: Vec<String> = (0..LINKS).map(|number| format!("link-{number}")).collect();
        let files: Vec<_> =
            names.iter().map(|name| (format!("{name}/a.yaml"), config_map(name, "1"))).collect();
        let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), Some(t.as_str()))).collect();
        let commit = world.repo.commit(&files, "all");
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        for pair in names.windows(2) {
            world.apply(&after(&world, &pair[1], json!([{"name": pair[0]}]))).await;
        }
        for name in &names[1..] {
            waits_for(&world, name, &["waits for"]).await;
        }
        // Once all have told for what they wait they are silent, for three renewals of the Lease, which
        // are ten seconds at least.
        let audit = world.plane.audit();
        let asked = |mark| audit.requests(mark).by(&world.identity.user()).within(&world.ns);
        let renewal = |event: &AuditEvent| event.resource == "leases" && event.verb == "update";
        let begin = Cell::new((audit.mark(), probe.idle(0).await.runs()));
        wait_for("three renewals of the Lease without a run", LIMIT, async || {
            let (mark, before) = begin.get();
            let runs = probe.scrape().await.runs();
            if runs != before {
                begin.set((audit.mark(), runs));
            }
            let renewals = asked(mark).only(renewal).len();
            if runs == before && renewals >= 3 { Ok(()) } else { Err((runs, renewals)) }
        })
        .await;
        let (mark, _) = begin.get();
        // What was told before is sent as events one by one.
        let rest = asked(mark)
            .only(|event| !renewal(event) && event.verb != "watch" && event.resource != "events");
        assert_eq!(rest.len(), 0, "{}", rest.table());

        let begun = Instant::now();
        world.apply(&after(&world, &names[0], json!([]))).await;
        for name in &names {
            world.wait_applied(name, &commit).await;
        }
        // Whoever looked less often than that silence was long would take longer than that.
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        world.plane.settled().await;
        assert_eq!(asked(mark).count("patch configmaps"), LINKS, "each is applied once");
    });
}

#[test]
fn what_waits_is_kept_as_it_is_and_says_for_what_in_the_end() {
    runtime().block_on(async {
        let world = World::new("blocked").await;
        let files = |db: &str, value: &str| {
            let maps = ["web", "front"].map(|name| config_map(name, value));
            let files = [
                ("db/a.yaml", Some(db)),
                ("web/a.yaml", Some(maps[0].as_str())),
                ("front/a.yaml", Some(maps[1].as_str())),
            ];
            world.repo.commit(&files, "all")
        };
        let first = files(&config_map("db", "1"), "1");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&after(&world, "front", json!([{"name": "web"}]))).await;
        world.apply(&after(&world, "web", json!([{"name": "db"}]))).await;
        // What does not exist is told, and its coming seen.
        waits_for(&world, "web", &["waits for", "/db, which does not exist"]).await;
        waits_for(&world, "front", &["/web, which waits for", "/db, which does not exist"]).await;
        world.apply(&after(&world, "db", json!([]))).await;
        world.wait_applied("front", &first).await;

        files("kind: [", "2");
        world.look().await;
        let parts = ["/web, which waits for", "/db: Stalled: BuildFailed", "db/a.yaml"];
        let object = waits_for(&world, "front", &parts).await;
        assert_eq!(condition(&object, "Reconciling")["reason"], "DependencyNotReady");
        waits_for(&world, "web", &["waits for", "/db: Stalled: BuildFailed"]).await;
        world.edit(&world.config_maps(), "web", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("web", "1").await;

        let third = files(&config_map("db", "3"), "3");
        world.look().await;
        for app in ["db", "web", "front"] {
            world.wait_applied(app, &third).await;
            world.wait_value(app, "3").await;
        }

        // One that is suspended is not passed by a commit that changes it, and says so.
        world.edit(&world.apps(), "db", &json!({"spec": {"suspend": true}})).await;
        let fourth = files(&config_map("db", "4"), "4");
        world.look().await;
        waits_for(&world, "web", &["/db, which is suspended"]).await;
        world.edit(&world.apps(), "db", &json!({"spec": {"suspend": null}})).await;
        world.wait_applied("front", &fourth).await;

        // Deletion knows no order.
        world.delete(&world.apps(), "db").await;
        world.wait_gone(&world.apps(), "db").await;
        world.wait_gone(&world.config_maps(), "db").await;
        assert_eq!(condition(&world.get(&world.apps(), "web").await, "Ready")["status"], "True");
    });
}

/// Whoever deletes an Application that waits need not mend first what it waits for.
#[test]
fn what_waits_and_is_deleted_goes_without_waiting_any_longer() {
    runtime().block_on(async {
        let world = World::new("blocked-end").await;
        let files = |db: &str, value: &str| {
            let web = config_map("web", value);
            let files = [("db/a.yaml", Some(db)), ("web/a.yaml", Some(&*web))];
            world.repo.commit(&files, "both")
        };
        let first = files(&config_map("db", "1"), "1");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&after(&world, "db", json!([]))).await;
        world.apply(&after(&world, "web", json!([{"name": "db"}]))).await;
        world.wait_applied("web", &first).await;
        // One that was applied before, and one that never was.
        files("kind: [", "2");
        world.look().await;
        waits_for(&world, "web", &["/db: Stalled: BuildFailed"]).await;
        let mut new = after(&world, "new", json!([{"name": "db"}, {"name": "nobody"}]));
        new["spec"]["path"] = json!("web");
        world.apply(&new).await;
        waits_for(&world, "new", &["waits for"]).await;
        for app in ["new", "web"] {
            world.delete(&world.apps(), app).await;
            world.wait_gone(&world.apps(), app).await;
        }
        world.wait_gone(&world.config_maps(), "web").await;
        let db = world.get(&world.apps(), "db").await;
        assert_eq!(condition(&db, "Ready")["reason"], "BuildFailed", "{db}");
        world.wait_value("db", "1").await;
    });
}

#[test]
fn a_circle_is_told_in_all_of_it_and_over_when_it_is_broken() {
    runtime().block_on(async {
        let world = World::new("circle").await;
        let maps = ["a", "b", "c"].map(|name| (format!("{name}/a.yaml"), config_map(name, "1")));
        let files = maps.each_ref().map(|(path, text)| (path.as_str(), Some(text.as_str())));
        let commit = world.repo.commit(&files, "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&after(&world, "a", json!([]))).await;
        world.apply(&after(&world, "b", json!([{"name": "a"}]))).await;
        world.apply(&after(&world, "c", json!([{"name": "b"}]))).await;
        world.wait_applied("c", &commit).await;
        world.apply(&after(&world, "a", json!([{"name": "c"}]))).await;
        for name in ["a", "b", "c"] {
            let ns = &world.ns;
            let pair = format!("{ns}/a waits for {ns}/c");
            let pair = if name == "a" { pair } else { format!("{ns}/b waits for {ns}/a") };
            let parts = ["it waits for itself", &*pair, "spec.dependsOn"];
            let object = world.wait_refused(&world.apps(), name, "DependencyCycle", &parts).await;
            assert_eq!(condition(&object, "Stalled")["status"], "True");
        }
        world.apply(&after(&world, "a", json!([]))).await;
        for name in ["a", "b", "c"] {
            world.wait_condition(&world.apps(), name, ("Ready", "True"), |_| true).await;
        }
        world.apply(&after(&world, "a", json!([{"name": "a"}]))).await;
        let parts = ["/a waits for", "it waits for itself"];
        world.wait_refused(&world.apps(), "a", "DependencyCycle", &parts).await;
    });
}

#[test]
fn an_object_of_any_kind_is_waited_for_until_it_works_or_an_expression_holds() {
    runtime().block_on(async {
        let world = World::new("anykind").await;
        let commit = world.repo.commit(
            &[
                ("web/a.yaml", Some(&config_map("web", "1"))),
                ("api/a.yaml", Some(&config_map("api", "1"))),
            ],
            "one",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let flag = |expr: &str| {
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "flag", "readyExpr": expr}])
        };
        let holds = "dep.data.ready == 'yes' && self.metadata.name == 'web'";
        world.apply(&after(&world, "web", flag(holds))).await;
        waits_for(&world, "web", &["ConfigMap", "/flag, which does not exist"]).await;
        let object = |kind: &str, name: &str| {
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": world.ns}})
        };
        world.apply(&object("ConfigMap", "flag")).await;
        waits_for(&world, "web", &["/flag: its readyExpr", "asks for `data`"]).await;
        world.edit(&world.config_maps(), "flag", &json!({"data": {"ready": "no"}})).await;
        waits_for(&world, "web", &["/flag: its readyExpr does not hold"]).await;
        assert_eq!(world.data("web").await, None);
        world.edit(&world.config_maps(), "flag", &json!({"data": {"ready": "yes"}})).await;
        world.wait_applied("web", &commit).await;

        // Health, where nothing is said; a kind that is not there.
        let claim = json!([{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "disk"}]);
        world.apply(&after(&world, "api", claim.clone())).await;
        waits_for(&world, "api", &["PersistentVolumeClaim", "/disk, which does not exist"]).await;
        let mut disk = object("PersistentVolumeClaim", "disk");
        disk["spec"] = json!({
            "accessModes": ["ReadWriteOnce"], "storageClassName": "none",
            "resources": {"requests": {"storage": "1Gi"}},
        });
        world.apply(&disk).await;
        waits_for(&world, "api", &["/disk is Progressing"]).await;
        let kind = json!([{"apiVersion": "example.com/v1", "kind": "Nothing", "name": "x"}]);
        world.apply(&after(&world, "api", kind)).await;
        waits_for(&world, "api", &["the cluster has no example.com/v1 Nothing"]).await;
        // The claim again, which is there already: a list brings it.
        world.apply(&after(&world, "api", claim)).await;
        waits_for(&world, "api", &["/disk is Progressing"]).await;
        for (expr, what) in [
            ("dep.data.(", "does not compile"),
            ("dep.metadata.name", "not true or false"),
            (
                "[1,2,3,4,5,6,7,8,9,0].all(a, [1,2,3,4,5,6,7,8,9,0].all(b, \
                 [1,2,3,4,5,6,7,8,9,0].all(c, [1,2,3,4,5,6,7,8,9,0].all(d, \
                 [1,2,3,4,5,6,7,8,9,0].all(e, true)))))",
                "takes too long",
            ),
        ] {
            world.apply(&after(&world, "api", flag(expr))).await;
            let parts = ["flag", what];
            world.wait_refused(&world.apps(), "api", "InvalidCELExpression", &parts).await;
        }
        world.apply(&after(&world, "api", flag("dep.data.ready == 'yes'"))).await;
        world.wait_applied("api", &commit).await;
        let other = json!([{"name": "web", "readyExpr": "dep.status.objects == 1"}]);
        world.apply(&after(&world, "api", other)).await;
        wait_for("the Application to be ready", LIMIT, async || {
            let object = world.get(&world.apps(), "api").await;
            let ready = condition(&object, "Ready");
            let observed = &object["status"]["observedGeneration"];
            if ready["status"] == "True" && *observed == object["metadata"]["generation"] {
                return Ok(());
            }
            Err(object)
        })
        .await;
    });
}
