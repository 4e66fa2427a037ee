//! Waiting for objects to be ready: by watch, without holding anything.

use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use plumb_testkit::{AuditEvent, runtime, wait_for};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, condition, config_map};

/// A Deployment of one replica, whose Pods stay pending: there is no such node.
pub(crate) fn deployment(name: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  \
         selector:\n    matchLabels: {{app: {name}}}\n  template:\n    metadata:\n      \
         labels: {{app: {name}}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      \
         nodeSelector: {{no: node}}\n      containers:\n        - {{name: main, image: {image:?}}}\n"
    )
}

fn job(name: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: {name}\nspec:\n  suspend: false\n  \
         backoffLimit: 0\n  template:\n    spec:\n      restartPolicy: Never\n      \
         terminationGracePeriodSeconds: 0\n      nodeSelector: {{no: node}}\n      containers:\n        \
         - {{name: main, image: job}}\n"
    )
}

impl World {
    /// An Application that waits, of the path of its name.
    pub(crate) fn waiting(&self, name: &str, more: &Value) -> Value {
        let mut app = self.app(name, name, "1h");
        app["spec"]["retryInterval"] = json!("1h");
        app["spec"]["wait"] = json!(true);
        for (field, value) in more.as_object().into_iter().flatten() {
            app["spec"][field] = value.clone();
        }
        app
    }

    pub(crate) fn pods(&self) -> Api<DynamicObject> {
        self.api("v1", "Pod")
    }

    /// The newest Pod of a Deployment or Job, by the label that its template gives it.
    pub(crate) async fn pod_of(&self, label: &str) -> String {
        wait_for(&format!("a pod with {label}"), LIMIT, async || {
            let list = self.pods().list(&ListParams::default().labels(label)).await.unwrap();
            let mut pods: Vec<_> = list
                .items
                .into_iter()
                .filter(|p| p.metadata.deletion_timestamp.is_none())
                .collect();
            pods.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
            let newest = pods.pop().and_then(|pod| pod.metadata.name);
            newest.ok_or("none")
        })
        .await
    }

    /// Does what a kubelet would: says of an object's status what it is told.
    pub(crate) async fn set_status(&self, api: &Api<DynamicObject>, name: &str, status: &Value) {
        let patch = json!({ "status": status });
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// A Pod of a Deployment becomes ready, or ceases to be so.
    pub(crate) async fn set_ready(&self, app: &str, ready: bool) {
        let pod = self.pod_of(&format!("app={app}")).await;
        let status = json!({
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        });
        self.set_status(&self.pods(), &pod, &status).await;
    }

    /// Waits until an Application says that it waits, and returns its message.
    pub(crate) async fn wait_progress(&self, app: &str, part: &str) -> Value {
        self.wait_condition(&self.apps(), app, ("Ready", "False"), |object| {
            let ready = condition(object, "Ready");
            ready["reason"] == "Progressing" && ready["message"].as_str().unwrap().contains(part)
        })
        .await
    }
}

#[test]
fn an_application_is_ready_when_its_objects_are_and_says_when_they_break() {
    runtime().block_on(async {
        let world = World::new("waits").await;
        let files = [
            ("web/deployment.yaml", Some(&*deployment("web", "web:1"))),
            ("web/config.yaml", Some(&*config_map("web", "1"))),
        ];
        let commit = world.repo.commit(&files, "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.waiting("web", &json!({}))).await;
        let object = world.wait_progress("web", "1 of 2 objects are ready").await;
        let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
        assert!(message.contains("waiting for Deployment.apps"), "{message}");
        assert!(message.contains("0 of 1 replica is available"), "{message}");
        assert_eq!(condition(&object, "Reconciling")["status"], "True", "{object}");
        assert_eq!(condition(&object, "Healthy")["status"], "False", "{object}");
        let waiting = &object["status"]["waiting"];
        assert_eq!((&waiting["ready"], &waiting["total"]), (&json!(1), &json!(2)), "{object}");
        assert_eq!(waiting["objects"][0]["health"], "Progressing", "{object}");

        world.set_ready("web", true).await;
        let object = world.wait_applied("web", &commit).await;
        assert_eq!(condition(&object, "Healthy")["status"], "True", "{object}");
        assert_eq!(condition(&object, "Reconciling"), Value::Null, "{object}");
        assert_eq!(object["status"]["waiting"], Value::Null, "{object}");

        // Every interval is an hour: what tells of it is a watch.
        world.set_ready("web", false).await;
        let object = world.wait_progress("web", "0 of 1 replica is available").await;
        assert_eq!(condition(&object, "Healthy")["status"], "False", "{object}");
        assert_eq!(object["status"]["lastAppliedRevision"], format!("main@sha1:{commit}"));
        world.wait_event("web", &["Progressing: ", "0 of 1 replica is available"]).await;
        world.set_ready("web", true).await;
        world.wait_applied("web", &commit).await;
        world.wait_event("web", &["Healthy: 2 objects are ready"]).await;
    });
}

#[test]
fn what_is_ready_at_once_costs_no_more_than_what_is_not_waited_for() {
    runtime().block_on(async {
        let world = World::new("no-wait").await;
        let files: Vec<(String, String)> = ["plain", "waits"]
            .iter()
            .flat_map(|app| {
                (0..3).map(move |n| {
                    (format!("{app}/{n}.yaml"), config_map(&format!("{app}-{n}"), "1"))
                })
            })
            .collect();
        let changes: Vec<_> = files.iter().map(|(p, c)| (p.as_str(), Some(c.as_str()))).collect();
        let commit = world.repo.commit(&changes, "maps");
        let audit = world.plane.audit();
        let mark = audit.mark();
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("plain", "plain", "1h")).await;
        world.apply(&world.waiting("waits", &json!({}))).await;
        world.wait_applied("plain", &commit).await;
        let object = world.wait_applied("waits", &commit).await;
        assert_eq!(condition(&object, "Healthy")["status"], "True");
        assert_eq!(condition(&object, "Healthy")["message"], "3 objects are ready");
        world.plane.settled().await;
        let sent = audit.requests(mark).by(&world.identity.user());
        let of = |app: &str| {
            let about = sent.clone().writes();
            about.only(|e| e.name == app && e.resource == "applications").counts()
        };
        assert_eq!(of("waits"), of("plain"));
        let watched = |requests: &plumb_testkit::Requests| {
            // Other tests leave enough for several pages.
            let first = |uri: &str| !uri.contains("continue=");
            let of = |e: &AuditEvent| e.resource == "configmaps" && e.verb != "patch";
            requests.clone().only(|e| of(e) && first(&e.uri)).counts()
        };
        let lists = watched(&sent);
        assert_eq!(lists.values().sum::<usize>(), 2, "{lists:?}");

        // A healthy Application at rest writes nothing after a restart.
        assert!(agent.stop().success());
        world.plane.settled().await;
        let mark = audit.mark();
        let mut agent = world.agent();
        let probe = crate::scrape::Probe::of(&mut agent).await;
        probe.idle(3).await;
        world.plane.settled().await;
        let sent = audit.requests(mark).by(&world.identity.user());
        let writes =
            sent.writes().only(|e| e.resource == "applications" || e.resource == "configmaps");
        assert_eq!(writes.counts(), [].into(), "{}", writes.table());
    });
}

#[test]
fn what_takes_too_long_is_told_and_becomes_ready_all_the_same() {
    runtime().block_on(async {
        let world = World::new("too-long").await;
        let commit =
            world.repo.commit(&[("web/d.yaml", Some(&*deployment("web", "web:1")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.waiting("web", &json!({"timeout": "7s"}))).await;
        world
            .wait_refused(
                &world.apps(),
                "web",
                "HealthCheckFailed",
                &["0 of 1 object is ready", "after 7s", "still waiting for Deployment.apps"],
            )
            .await;
        world.wait_event("web", &["HealthCheckFailed: ", "after 7s"]).await;
        world.set_ready("web", true).await;
        world.wait_applied("web", &commit).await;
    });
}

#[test]
fn what_can_no_longer_become_ready_fails_at_once_and_a_new_revision_takes_over() {
    runtime().block_on(async {
        let world = World::new("final").await;
        world.repo.commit(&[("web/job.yaml", Some(&*job("migrate")))], "a job");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.waiting("web", &json!({"timeout": "1h"}))).await;
        world.wait_progress("web", "0 of 1 object is ready").await;
        let pod = world.pod_of("job-name=migrate").await;
        world.set_status(&world.pods(), &pod, &json!({"phase": "Failed"})).await;
        let parts = ["one cannot become so by itself: Job.batch", "BackoffLimitExceeded"];
        let object = world.wait_refused(&world.apps(), "web", "HealthCheckFailed", &parts).await;
        assert_eq!(condition(&object, "Stalled")["status"], "True", "{object}");
        assert_eq!(object["status"]["waiting"]["objects"][0]["health"], "Degraded", "{object}");

        let second = world.repo.commit(
            &[("web/job.yaml", None), ("web/a.yaml", Some(&*config_map("a", "1")))],
            "no job",
        );
        world.look().await;
        let object = world.wait_applied("web", &second).await;
        assert_eq!(condition(&object, "Stalled"), Value::Null, "{object}");

        // The same while it waits: the newer revision does not wait for the older one.
        let third = world.repo.commit(
            &[("web/d.yaml", Some(&*deployment("web", "web:1")))],
            "a deployment that nobody runs",
        );
        world.look().await;
        world.wait_progress("web", &third[..12]).await;
        let fourth = world.repo.commit(&[("web/d.yaml", None)], "none again");
        world.look().await;
        world.wait_applied("web", &fourth).await;
    });
}

/// A Job that is gone since its time to live is over was done, and stays gone until Git asks for
/// something else; also for another process. It would run again and again.
#[test]
fn a_job_that_is_done_and_goes_by_itself_is_not_made_again() {
    runtime().block_on(async {
        let world = World::new("ttl").await;
        let short = |image: &str| {
            job("migrate")
                .replace("spec:\n  suspend", "spec:\n  ttlSecondsAfterFinished: 1\n  suspend")
                .replace("image: job", &format!("image: {image}"))
        };
        let files =
            [("web/job.yaml", Some(&*short("one"))), ("web/a.yaml", Some(&config_map("a", "1")))];
        let commit = world.repo.commit(&files, "a job");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.waiting("web", &json!({}))).await;
        world.wait_progress("web", "1 of 2 objects are ready").await;
        // Before it is done it is missed.
        let jobs = world.api("batch/v1", "Job");
        let uid = world.get(&jobs, "migrate").await["metadata"]["uid"].clone();
        world.delete(&jobs, "migrate").await;
        let uid = wait_for("another job", LIMIT, async || {
            let job = jobs.get_opt("migrate").await.unwrap();
            let found = job.and_then(|job| job.metadata.uid).unwrap_or_default();
            if !found.is_empty() && uid != found { Ok(found) } else { Err(found) }
        })
        .await;
        let pod = world.pod_of(&format!("batch.kubernetes.io/controller-uid={uid}")).await;
        world.set_status(&world.pods(), &pod, &json!({"phase": "Succeeded"})).await;
        world.wait_applied("web", &commit).await;
        wait_for("the Job to go", LIMIT, async || match jobs.get_opt("migrate").await.unwrap() {
            None => Ok(()),
            Some(job) => Err(job.metadata.deletion_timestamp),
        })
        .await;
        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        let by_hand = json!({"data": {"value": "by hand"}});
        world.edit(&world.config_maps(), "a", &by_hand).await;
        world.wait_value("a", "1").await;
        assert!(agent.stop().success());
        let _agent = world.agent();
        world.request(&world.apps(), "web", "now").await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                object["status"]["lastHandledReconcileAt"] == "now"
            })
            .await;
        world.edit(&world.config_maps(), "a", &by_hand).await;
        world.wait_value("a", "1").await;
        world.plane.settled().await;
        let asked = world.plane.audit().requests(mark).by(&world.identity.user());
        assert_eq!(asked.count("patch batch/jobs"), 0, "{}", asked.table());
        world.repo.commit(&[("web/job.yaml", Some(&*short("two")))], "another job");
        world.look().await;
        world.wait_progress("web", "1 of 2 objects are ready").await;
        world.get(&jobs, "migrate").await;
    });
}

#[test]
fn applications_that_wait_hold_no_worker() {
    const COUNT: usize = 100;
    runtime().block_on(async {
        let world = World::new("hundred-wait").await;
        let files: Vec<(String, String)> =
            (0..COUNT).map(|n| (format!("app-{n}/job.yaml"), job(&format!("job-{n}")))).collect();
        let mut changes: Vec<_> =
            files.iter().map(|(p, c)| (p.as_str(), Some(c.as_str()))).collect();
        let free = config_map("free", "1");
        changes.push(("free/a.yaml", Some(&free)));
        let commit = world.repo.commit(&changes, "many");
        world.apply(&world.source("1h")).await;
        for n in 0..COUNT {
            world.apply(&world.waiting(&format!("app-{n}"), &json!({"timeout": "1h"}))).await;
        }
        let kubeconfig = world.identity.kubeconfig().to_owned();
        let mut agent = world.agent_with(kubeconfig, &["--concurrent", "1"]);
        for n in 0..COUNT {
            world.wait_progress(&format!("app-{n}"), "0 of 1 object is ready").await;
        }
        // All of them wait, and another one goes through.
        world.apply(&world.app("free", "free", "1h")).await;
        world.wait_applied("free", &commit).await;

        // Each becomes ready by itself, and nothing else is done meanwhile.
        let probe = crate::scrape::Probe::of(&mut agent).await;
        probe.idle(1).await;
        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        for n in [0, COUNT - 1] {
            let pod = world.pod_of(&format!("job-name=job-{n}")).await;
            world.set_status(&world.pods(), &pod, &json!({"phase": "Succeeded"})).await;
            world.wait_applied(&format!("app-{n}"), &commit).await;
            world.wait_event(&format!("app-{n}"), &["Healthy: 1 object is ready"]).await;
        }
        world.plane.settled().await;
        let sent = world.plane.audit().requests(mark).by(&world.identity.user());
        let sent = sent.only(|event| event.resource != "leases" && event.verb != "watch");
        // A status and an event each.
        assert_eq!(sent.len(), 4, "{}", sent.table());
    });
}

/// The definition of a kind with a status that anybody may write.
fn definition(group: &str) -> Value {
    let mut definition = crate::bad_input::definition(group);
    let version = &mut definition["spec"]["versions"][0];
    version["subresources"] = json!({"status": {}});
    version["schema"]["openAPIV3Schema"]["x-kubernetes-preserve-unknown-fields"] = json!(true);
    definition
}

/// Such a kind of the test's own.
pub(crate) async fn install_widgets(world: &World) -> String {
    let group = format!("{}.example.com", world.ns);
    let definition = definition(&group);
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    let definitions = world.cluster_api("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let params = PatchParams::apply("test");
    definitions.patch(&name, &params, &Patch::Apply(&definition)).await.unwrap();
    world.wait_condition(&definitions, &name, ("Established", "True"), |_| true).await;
    group
}

fn widget(group: &str, name: &str) -> String {
    format!("apiVersion: {group}/v1\nkind: Widget\nmetadata:\n  name: {name}\nspec:\n  size: 3\n")
}

#[test]
fn rules_of_an_application_judge_its_objects_and_what_is_wrong_with_them_is_told() {
    runtime().block_on(async {
        let world = World::new("own-rules").await;
        let group = install_widgets(&world).await;
        let widgets = world.api(&format!("{group}/v1"), "Widget");
        let commit = world.repo.commit(&[("web/w.yaml", Some(&*widget(&group, "w")))], "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let rule = |current: &str| {
            json!({"timeout": "1h", "healthCheckExprs": [{
                "apiVersion": format!("{group}/v1"), "kind": "Widget", "current": current,
                "failed": "status.phase == 'Broken'",
            }]})
        };
        world.apply(&world.waiting("web", &rule("status.phase ="))).await;
        let parts = ["spec.healthCheckExprs: the rule for Widget of", "current: "];
        let object = world.wait_refused(&world.apps(), "web", "InvalidCELExpression", &parts).await;
        assert_eq!(condition(&object, "Stalled")["status"], "True", "{object}");
        assert!(widgets.get_opt("w").await.unwrap().is_none());

        world.apply(&world.waiting("web", &rule("status.phase == 'Fine'"))).await;
        world.wait_progress("web", "0 of 1 object is ready").await;
        world.set_status(&widgets, "w", &json!({"phase": "Fine"})).await;
        world.wait_applied("web", &commit).await;
        world.set_status(&widgets, "w", &json!({"phase": "Broken"})).await;
        world.wait_refused(&world.apps(), "web", "HealthCheckFailed", &["Widget."]).await;

        // Another rule judges what is there already. This one turns without end.
        let list: Vec<u32> = (0..1000).collect();
        world.set_status(&widgets, "w", &json!({"phase": "Fine", "list": list})).await;
        world.wait_applied("web", &commit).await;
        let long = "status.list.all(a, status.list.all(b, status.list.all(c, a + b + c >= 0)))";
        world.apply(&world.waiting("web", &rule(long))).await;
        let object = world.wait_progress("web", "Widget.").await;
        let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
        for part in ["current: ", "takes too long"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(object["status"]["waiting"]["objects"][0]["health"], "Unknown", "{object}");
    });
}

/// No run waits for the definition to be served, and nothing of it is told as a failure.
#[test]
fn a_definition_and_its_objects_in_one_commit_are_waited_for_together() {
    runtime().block_on(async {
        let world = World::new("defines").await;
        let group = format!("{}.example.com", world.ns);
        let files = [
            // The object stands before what defines it.
            ("web/1-w.yaml", Some(&*widget(&group, "w"))),
            ("web/2-definition.json", Some(&*definition(&group).to_string())),
        ];
        let commit = world.repo.commit(&files, "a definition and its object");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.waiting("web", &json!({"timeout": "1h"}))).await;
        let object = world.wait_progress("web", "1 of 2 objects are ready").await;
        let waiting = object["status"]["waiting"]["objects"].to_string();
        assert!(waiting.contains("Widget.") && waiting.contains("Progressing"), "{object}");
        let widgets = world.api(&format!("{group}/v1"), "Widget");
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        world.set_status(&widgets, "w", &ready).await;
        let object = world.wait_applied("web", &commit).await;
        assert_eq!(condition(&object, "Healthy")["message"], "2 objects are ready", "{object}");
        assert_eq!(object["status"]["history"].as_array().unwrap().len(), 1, "{object}");
        assert_eq!(object["status"]["history"][0]["count"], 1, "{object}");
        for event in world.events_of("web").await {
            assert!(event.starts_with("Applied: ") || event.starts_with("Healthy: "), "{event}");
        }
    });
}

#[test]
fn waiting_can_be_turned_on_and_off_and_outlives_a_restart() {
    runtime().block_on(async {
        let world = World::new("on-off").await;
        let group = install_widgets(&world).await;
        let widgets = world.api(&format!("{group}/v1"), "Widget");
        let commit = world.repo.commit(&[("web/w.yaml", Some(&*widget(&group, "w")))], "one");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        let audit = world.plane.audit();
        let user = world.identity.user();
        let mark = audit.mark();
        world.apply(&world.app("web", "web", "1h")).await;
        let object = world.wait_applied("web", &commit).await;
        assert_eq!(condition(&object, "Healthy"), Value::Null, "nobody asked");
        world.plane.settled().await;
        let lists = |mark| {
            let of = audit.requests(mark).by(&user).only(|e| e.resource == "widgets");
            // A kind that was just defined can be missing for a moment.
            of.only(|e| e.verb == "list" && e.code == 200).len()
        };
        assert_eq!(lists(mark), 1);

        let mark = audit.mark();
        world.apply(&world.waiting("web", &json!({"timeout": "1h"}))).await;
        let object = world.wait_progress("web", "it has no status").await;
        let since = object["status"]["waiting"]["since"].clone();
        world.plane.settled().await;
        assert_eq!(lists(mark), 1, "for the bodies");

        // The time is that from before, and what happened meanwhile is seen.
        agent.kill9();
        let mark = audit.mark();
        let mut agent = world.agent();
        let probe = crate::scrape::Probe::of(&mut agent).await;
        probe.idle(2).await;
        world.plane.settled().await;
        let sent = audit.requests(mark).by(&user);
        let writes = sent.clone().writes().only(|e| e.resource != "leases");
        assert_eq!(writes.counts(), [].into(), "{}", writes.table());
        assert_eq!(lists(mark), 1, "with the bodies at once");
        let status = json!({"conditions": [{"type": "Ready", "status": "False",
            "reason": "Slow", "message": "in a while"}]});
        world.set_status(&widgets, "w", &status).await;
        let object = world.wait_progress("web", "in a while").await;
        assert_eq!(object["status"]["waiting"]["since"], since);
        agent.kill9();
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        world.set_status(&widgets, "w", &status).await;
        let _agent = world.agent();
        world.wait_applied("web", &commit).await;

        // Off again: nobody reads bodies, and nothing is said of health.
        let mark = audit.mark();
        world.apply(&world.waiting("web", &json!({"wait": false}))).await;
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |object| {
                condition(object, "Healthy") == Value::Null
            })
            .await;
        assert_eq!(object["status"]["waiting"], Value::Null);
        wait_for("a list of metadata", LIMIT, async || {
            world.plane.settled().await;
            if lists(mark) == 1 { Ok(()) } else { Err(lists(mark)) }
        })
        .await;
    });
}

#[test]
fn an_object_that_vanishes_while_it_is_waited_for_is_made_again() {
    runtime().block_on(async {
        let world = World::new("vanishes").await;
        let group = install_widgets(&world).await;
        let widgets = world.api(&format!("{group}/v1"), "Widget");
        let files = [
            ("web/v.yaml", Some(&*widget(&group, "v"))),
            ("web/w.yaml", Some(&*widget(&group, "w"))),
        ];
        let commit = world.repo.commit(&files, "two");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.waiting("web", &json!({"timeout": "1h"}))).await;
        world.wait_progress("web", "0 of 2 objects are ready").await;
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        world.set_status(&widgets, "w", &ready).await;
        world.delete(&widgets, "w").await;
        world.set_status(&widgets, "v", &ready).await;
        // The new one has to become ready, too.
        world.wait_progress("web", "1 of 2 objects are ready").await;
        world.set_status(&widgets, "w", &ready).await;
        world.wait_applied("web", &commit).await;
    });
}

#[test]
fn a_kind_that_cannot_be_converted_while_it_is_waited_for_is_told() {
    runtime().block_on(async {
        let world = World::new("converts").await;
        let group = install_widgets(&world).await;
        let widgets = world.api(&format!("{group}/v1"), "Widget");
        let commit = world.repo.commit(&[("web/w.yaml", Some(&*widget(&group, "w")))], "one");
        let mut agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.waiting("web", &json!({"timeout": "1h"}))).await;
        world.wait_progress("web", "0 of 1 object is ready").await;
        agent.kill9();

        // Stored in a version that only a webhook can bring up, which is not there.
        let definitions = world.cluster_api("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let name = format!("widgets.{group}");
        let mut version = world.get(&definitions, &name).await["spec"]["versions"][0].clone();
        version["storage"] = json!(false);
        let mut newer = version.clone();
        (newer["name"], newer["storage"]) = (json!("v2"), json!(true));
        let url = json!({"url": "https://127.0.0.1:1/convert"});
        let webhook = json!({"conversionReviewVersions": ["v1"], "clientConfig": url});
        let patch = json!({"spec": {
            "versions": [version, newer],
            "conversion": {"strategy": "Webhook", "webhook": webhook},
        }});
        world.edit(&definitions, &name, &patch).await;
        let _agent = world.agent();
        let object = world
            .wait_condition(&world.apps(), "web", ("Ready", "False"), |object| {
                let conditions = object["status"].to_string();
                conditions.contains("conversion webhook")
            })
            .await;
        assert_ne!(condition(&object, "Healthy")["status"], "True", "{object}");

        let patch = json!({"spec": {"conversion": {"strategy": "None", "webhook": null}}});
        world.edit(&definitions, &name, &patch).await;
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let patch = json!({ "status": ready });
        // A read does not tell: only what is written is converted to the stored version.
        wait_for("the kind to be served again", LIMIT, async || {
            let params = PatchParams::default();
            let written = widgets.patch_status("w", &params, &Patch::Merge(&patch)).await;
            written.map(|_| ()).map_err(|error| error.to_string())
        })
        .await;
        world.wait_applied("web", &commit).await;
    });
}

/// Whatever a rule says, nobody asks for the content of Secrets.
#[test]
fn secrets_are_not_read_for_a_rule_that_names_them() {
    runtime().block_on(async {
        let world = World::new("secret-rule").await;
        let secret =
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  a: hidden\n";
        let files = [("web/s.yaml", Some(secret)), ("web/c.yaml", Some(&*config_map("c", "1")))];
        let commit = world.repo.commit(&files, "a secret");
        let proxy = plumb_testkit::Proxy::to_api(&world.plane, 1).await;
        let _agent = world.agent_with(world.identity.through(&proxy.url()), &[]);
        world.apply(&world.source("1h")).await;
        let exprs =
            json!([{"apiVersion": "v1", "current": "has(data.value) && data.value == '2'"}]);
        let spec = json!({"timeout": "1h", "healthCheckExprs": exprs});
        world.apply(&world.waiting("web", &spec)).await;
        // The Secret counts as ready by being there; the config map is judged.
        let object = world.wait_progress("web", "1 of 2 objects are ready").await;
        let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
        assert!(message.contains("ConfigMap"), "{message}");
        let second = world.repo.commit(&[("web/c.yaml", Some(&*config_map("c", "2")))], "two");
        world.look().await;
        world.wait_applied("web", &second).await;
        assert_ne!(commit, second);
        assert_eq!(proxy.leaks("aGlkZGVu"), Vec::<String>::new());
    });
}
