//! What work costs the API server, counted in its audit log.

use std::collections::BTreeMap;
use std::time::Instant;

use kube::api::{Patch, PatchParams};
use plumb_testkit::sample::App;
use plumb_testkit::{AuditEvent, Requests, runtime, wait_for};
use serde_json::json;

use crate::scrape::{Probe, Scrape};
use crate::world::{LIMIT, World, condition};

/// Everything that is not about one application: discovery, LISTs, watches, the Lease, and the
/// repository's own status and event. Not the renewals of the Lease, which are a matter of time.
const BESIDE: usize = 60;

/// Facts, four objects, a status, an event.
const EACH: usize = 7;

/// Of a process that starts: the kinds of the cluster, and a LIST of each kind in use. Kinds whose health
/// is asked for are listed once more, with their bodies.
const RESTART: usize = 16;

fn name(number: usize) -> String {
    format!("app-{number:03}")
}

/// Commits that many applications of four objects, each in a folder of its name.
fn commit(world: &World, count: usize) -> String {
    let files: Vec<(String, String)> = (0..count)
        .flat_map(|number| App::new(&name(number)).files(&format!("apps/{}", name(number))))
        .collect();
    let changes: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    world.repo.commit(&changes, "all applications")
}

async fn create(world: &World, count: usize, interval: &str) {
    for number in 0..count {
        let path = format!("apps/{}", name(number));
        world.apply(&world.app(&name(number), &path, interval)).await;
    }
    world.apply(&world.source(interval)).await;
}

/// Waits until so many applications are Ready at a commit.
async fn wait_all_applied(world: &World, count: usize, commit: &str) {
    let revision = format!("main@sha1:{commit}");
    wait_for("all applications to be ready", 4 * LIMIT, async || {
        let list = world.apps().list(&kube::api::ListParams::default()).await.unwrap();
        let ready = list.items.iter().filter(|app| {
            let app = serde_json::to_value(app).unwrap();
            condition(&app, "Ready")["status"] == "True"
                && app["status"]["lastAppliedRevision"] == revision
        });
        let ready = ready.count();
        if ready == count { Ok(()) } else { Err(format!("{ready} of {count} are ready")) }
    })
    .await;
}

/// Whether a request is about the Application of this name, an object of that name, or an Event
/// about it.
fn is_about(event: &AuditEvent, app: &str) -> bool {
    event.name == app || event.name.strip_prefix(app).is_some_and(|rest| rest.starts_with('.'))
}

/// Whether a request renews the Lease.
fn is_renewal(event: &AuditEvent) -> bool {
    event.resource == "leases" && event.verb == "update"
}

/// The requests that the agent has sent since, each attributed: by application, and the rest, without
/// renewals of the Lease.
fn attribute(requests: &Requests, count: usize) -> (BTreeMap<String, usize>, Requests) {
    let each = (0..count)
        .map(|number| {
            let app = name(number);
            let about = requests.iter().filter(|event| is_about(event, &app)).count();
            (app, about)
        })
        .collect();
    let rest = requests
        .clone()
        .only(|event| !is_renewal(event) && !(0..count).any(|n| is_about(event, &name(n))));
    (each, rest)
}

#[test]
fn a_hundred_applications_cost_seven_requests_each_and_a_commit_only_its_own() {
    const COUNT: usize = 100;
    runtime().block_on(async {
        let world = World::new("hundred").await;
        let audit = world.plane.audit();
        let user = world.identity.user();
        let first = commit(&world, COUNT);
        create(&world, COUNT, "1h").await;

        let mark = audit.mark();
        let start = Instant::now();
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        wait_all_applied(&world, COUNT, &first).await;
        // Every application and the repository are told about once each. Events are paced, so
        // they come last.
        wait_for("the last event", LIMIT, async || {
            let sent = audit.requests(mark).by(&user).count("create events.k8s.io/events");
            if sent > COUNT { Ok(()) } else { Err(sent) }
        })
        .await;
        let scrape = probe.idle(COUNT as u64 + 1).await;
        world.plane.settled().await;

        let requests = audit.requests(mark).by(&user);
        let (each, rest) = attribute(&requests, COUNT);
        eprintln!("first sync of {COUNT} applications:\n{}", requests.table());
        eprintln!("of these not about one application:\n{}", rest.table());
        eprintln!("runs: {}; peak memory: {} KiB", scrape.runs(), agent.rss_peak() / 1024);
        let over: Vec<_> = each.iter().filter(|(_, count)| **count > EACH).collect();
        for (app, _) in &over {
            let about = requests.clone().only(|event| is_about(event, app));
            eprintln!("{app}:\n{}", about.table());
        }
        assert_eq!(over, Vec::<(&String, &usize)>::new(), "applications with too many requests");
        assert!(rest.len() <= BESIDE, "{} requests beside", rest.len());
        // One in a third of the lease of 15 s.
        let renewals = requests.only(is_renewal).len() as u64;
        assert!(renewals <= start.elapsed().as_secs() / 5 + 1, "{renewals} renewals");

        // A commit that touches one.
        let changed = App::new(&name(42)).image("registry.example.com/app:2.0.0");
        let path = format!("apps/{}/deployment.yaml", name(42));
        let files = changed.files(&format!("apps/{}", name(42)));
        let text = &files.iter().find(|(file, _)| *file == path).unwrap().1;
        let mark = audit.mark();
        let second = world.repo.commit(&[(&path, Some(text))], "one image");
        world.look().await;
        world.wait_applied(&name(42), &second).await;
        let scrape = probe.idle(scrape.runs() + COUNT as u64 + 1).await;
        // One more look, which finds nothing: what the commit had caused is over by then.
        world.look().await;
        let scrape = probe.idle(scrape.runs() + COUNT as u64 + 1).await;
        wait_for("the events of the commit", LIMIT, async || {
            let sent = audit.requests(mark).by(&user).count("create events.k8s.io/events");
            if sent >= 2 { Ok(()) } else { Err(sent) }
        })
        .await;
        world.plane.settled().await;
        let requests = audit.requests(mark).by(&user).writes();
        let requests = requests.only(|event| event.resource != "leases");
        eprintln!("a commit that touches one, and a look at nothing new:\n{}", requests.table());
        let (each, rest) = attribute(&requests, COUNT);
        let touched: Vec<_> = each.iter().filter(|(_, count)| **count > 0).collect();
        assert_eq!(touched, [(&name(42), &3)], "object, status, event\n{}", requests.table());
        assert_eq!(requests.count("patch apps/deployments"), 1);
        // The repository's own: the commit, and that the second look was taken.
        assert_eq!(rest.count("patch plumb.dev/gitrepositories/status"), 2);
        assert_eq!(rest.count("create events.k8s.io/events"), 1);
        assert_eq!(rest.len(), 3, "{}", rest.table());
        eprintln!("runs: {}; peak memory: {} KiB", scrape.runs(), agent.rss_peak() / 1024);
    });
}

/// One request more an application is a tenth of the budget of a first sync, and all of that of a restart.
#[test]
fn a_commit_to_all_a_forced_round_and_a_restart_cost_what_they_must_and_no_more() {
    const COUNT: usize = 20;
    runtime().block_on(async {
        let world = World::new("phases").await;
        let audit = world.plane.audit();
        let user = world.identity.user();
        let first = commit(&world, COUNT);
        create(&world, COUNT, "1h").await;
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        let events = async |probe: &Probe, count: usize| {
            wait_for("the last event", LIMIT, async || {
                let sent = probe.scrape().await.sum("plumb_events_sent_total", "");
                if sent >= count as u64 { Ok(()) } else { Err(sent) }
            })
            .await;
        };
        let asked = |mark| {
            let requests = audit.requests(mark).by(&user);
            requests.only(|event| event.verb != "watch" && event.resource != "leases").counts()
        };
        let wanted = |all: &[(&str, usize)]| -> BTreeMap<String, usize> {
            all.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
        };
        wait_all_applied(&world, COUNT, &first).await;
        events(&probe, COUNT + 1).await;
        let scrape = probe.idle(COUNT as u64 + 1).await;

        // Each has another image: one object, a status, an event.
        world.plane.settled().await;
        let mark = audit.mark();
        let files: Vec<(String, String)> = (0..COUNT)
            .flat_map(|number| {
                let app = App::new(&name(number)).image("registry.example.com/app:2.0.0");
                app.files(&format!("apps/{}", name(number)))
            })
            .collect();
        let changes: Vec<_> =
            files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        let second = world.repo.commit(&changes, "all images");
        world.look().await;
        wait_all_applied(&world, COUNT, &second).await;
        events(&probe, 2 * (COUNT + 1)).await;
        let after = probe.idle(scrape.runs() + COUNT as u64 + 1).await;
        world.plane.settled().await;
        let counts = asked(mark);
        let budget = wanted(&[
            ("create events.k8s.io/events", COUNT + 1),
            ("patch apps/deployments", COUNT),
            ("patch plumb.dev/applications/status", COUNT),
            ("patch plumb.dev/gitrepositories/status", 1),
        ]);
        assert_eq!(counts, budget, "a commit to all");
        let renders = |scrape: &Scrape| scrape.sum("plumb_renders_total", "");
        assert_eq!(renders(&after) - renders(&scrape), COUNT as u64, "one render each");

        // Everybody is asked to look, and nothing has changed: a status each, which says that. Kinds of
        // Kubernetes itself are as they were, so that nobody looks at those.
        let mark = audit.mark();
        for number in 0..COUNT {
            world.request(&world.apps(), &name(number), "again").await;
        }
        for number in 0..COUNT {
            world
                .wait_condition(&world.apps(), &name(number), ("Ready", "True"), |object| {
                    object["status"]["lastHandledReconcileAt"] == "again"
                })
                .await;
        }
        probe.idle(after.runs() + COUNT as u64).await;
        world.plane.settled().await;
        let counts = asked(mark);
        let budget = wanted(&[("patch plumb.dev/applications/status", COUNT)]);
        assert_eq!(counts, budget, "a forced round");

        // A process that finds all as it was: LISTs, and nothing of any Application's own.
        agent.stop();
        world.plane.settled().await;
        let mark = audit.mark();
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        let unchanged = "kind=\"Application\",outcome=\"unchanged\"";
        wait_for("all applications to be found in sync", LIMIT, async || {
            let scrape = probe.scrape().await;
            let found = scrape.sum("plumb_reconciles_total", unchanged);
            if found >= COUNT as u64 { Ok(()) } else { Err(scrape) }
        })
        .await;
        let scrape = probe.idle(COUNT as u64 + 1).await;
        // Once it waits for the source, once for the LISTs, and then it runs. What a LIST finds of it while
        // it is about to wait for the others calls it once more, with nothing to do: on a busy machine
        // that happens to many, and to few of them twice.
        let runs = scrape.sum("plumb_reconciles_total", "kind=\"Application\"");
        assert!(runs <= (4 * COUNT + COUNT / 2) as u64, "{runs} runs of {COUNT} Applications");
        assert_eq!(scrape.sum("plumb_renders_total", ""), COUNT as u64, "one render each");
        world.plane.settled().await;
        let counts = asked(mark);
        let other: Vec<_> = counts
            .iter()
            .filter(|(what, _)| !what.starts_with("list ") && !what.starts_with("get /api"))
            .collect();
        assert_eq!(other, Vec::<(&String, &usize)>::new(), "a restart");
        assert!(counts.values().sum::<usize>() <= RESTART, "{counts:?}");
    });
}

/// The other order: what the agent sees one by one costs no more than what it finds.
#[test]
fn applications_that_come_one_by_one_cost_the_same() {
    const COUNT: usize = 10;
    runtime().block_on(async {
        let world = World::new("one-by-one").await;
        let audit = world.plane.audit();
        let user = world.identity.user();
        let first = commit(&world, COUNT);
        let mark = audit.mark();
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.wait_condition(&world.sources(), "repo", ("Ready", "True"), |_| true).await;
        create(&world, COUNT, "1h").await;
        wait_all_applied(&world, COUNT, &first).await;
        wait_for("the last event", LIMIT, async || {
            let sent = audit.requests(mark).by(&user).count("create events.k8s.io/events");
            if sent > COUNT { Ok(()) } else { Err(sent) }
        })
        .await;
        probe.idle(COUNT as u64 + 1).await;
        world.plane.settled().await;
        let requests = audit.requests(mark).by(&user);
        let (each, rest) = attribute(&requests, COUNT);
        eprintln!("{COUNT} applications that came one by one:\n{}", requests.table());
        assert!(each.values().all(|count| *count <= EACH), "{each:?}");
        assert!(rest.len() <= BESIDE, "{}", rest.table());
    });
}

#[test]
fn standing_still_costs_ref_listings_watches_and_the_lease() {
    const COUNT: usize = 20;
    // In full a minute. The suite waits for three polls only, to save time.
    let polls = if std::env::var_os("PLUMB_LONG_TESTS").is_some_and(|v| v == "1") { 12 } else { 3 };
    runtime().block_on(async {
        let world = World::new("still").await;
        let first = commit(&world, COUNT);
        create(&world, COUNT, "5s").await;
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        wait_all_applied(&world, COUNT, &first).await;
        let scrape = probe.idle(COUNT as u64 + 1).await;
        let user = world.identity.user();
        wait_for("the last event", LIMIT, async || {
            let sent = scrape.sum("plumb_events_sent_total", "");
            let sent = sent.max(probe.scrape().await.sum("plumb_events_sent_total", ""));
            if sent > COUNT as u64 { Ok(()) } else { Err(sent) }
        })
        .await;

        world.plane.settled().await;
        let mark = world.plane.audit().mark();
        world.git.forget();
        let before = probe.scrape().await;
        wait_for("further polls of the repository", 2 * LIMIT, async || {
            let seen = world.git.requests();
            if seen.len() >= polls { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        // The applications have an interval of their own, and all had their turn.
        let runs = (polls * (COUNT + 1)) as u64 - COUNT as u64;
        let scrape = probe.idle(before.runs() + runs).await;
        world.plane.settled().await;

        let seen = world.git.requests();
        assert!(
            seen.iter().all(|request| request.method == "POST"
                && String::from_utf8_lossy(&request.body).contains("command=ls-refs")),
            "only ref listings: {seen:?}"
        );
        let requests = world.plane.audit().requests(mark).by(&user);
        eprintln!(
            "{} polls and {} runs with nothing new:\n{}",
            seen.len(),
            scrape.runs() - before.runs(),
            requests.table()
        );
        let other = requests.only(|event| {
            let watch = event.verb == "watch";
            // A renewal reads nothing: what was written last names the version to write on.
            let renewal = event.resource == "leases"
                && matches!(event.verb.as_str(), "get" | "patch" | "update");
            !(watch || renewal)
        });
        assert_eq!(other.counts(), BTreeMap::new());
    });
}

#[test]
fn drift_costs_a_look_a_correction_a_status_and_an_event() {
    runtime().block_on(async {
        let world = World::new("drift").await;
        let audit = world.plane.audit();
        let user = world.identity.user();
        let first = commit(&world, 2);
        create(&world, 2, "1h").await;
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        wait_all_applied(&world, 2, &first).await;
        wait_for("the last event", LIMIT, async || {
            let sent = probe.scrape().await.sum("plumb_events_sent_total", "");
            if sent > 2 { Ok(()) } else { Err(sent) }
        })
        .await;
        probe.idle(3).await;

        // Ours.
        world.plane.settled().await;
        let mark = audit.mark();
        let services = world.api("v1", "Service");
        let edit = json!({"metadata": {"labels": {"app.kubernetes.io/name": "by-hand"}}});
        let params = PatchParams { field_manager: Some("by-hand".into()), ..Default::default() };
        services.patch(&name(0), &params, &Patch::Merge(&edit)).await.unwrap();
        let object = world
            .wait_condition(&world.apps(), &name(0), ("Ready", "True"), |o| {
                o["status"]["drift"]["count"] == 1
            })
            .await;
        let drift = &object["status"]["drift"];
        assert_eq!(drift["fields"], json!(["metadata.labels[\"app.kubernetes.io/name\"]"]));
        assert_eq!(drift["manager"], "by-hand");
        let service = services.get(&name(0)).await.unwrap();
        assert_eq!(service.metadata.labels.unwrap()["app.kubernetes.io/name"], name(0));
        wait_for("the event", LIMIT, async || {
            let sent = audit.requests(mark).by(&user).count("create events.k8s.io/events");
            if sent > 0 { Ok(()) } else { Err(sent) }
        })
        .await;

        // Not ours, and after it a second drift elsewhere, whose end shows that the first change
        // was looked at before.
        let edit = json!({"metadata": {"labels": {"team": "red"}},
            "spec": {"sessionAffinity": "ClientIP"}});
        services.patch(&name(0), &params, &Patch::Merge(&edit)).await.unwrap();
        wait_for("the foreign change to be looked at", LIMIT, async || {
            let sent = audit.requests(mark).by(&user).count("patch services");
            if sent >= 2 { Ok(()) } else { Err(sent) }
        })
        .await;
        probe.idle(5).await;
        world.plane.settled().await;
        let requests = audit.requests(mark).by(&user).only(|e| e.resource != "leases");
        eprintln!("one drift and one foreign field:\n{}", requests.table());
        let wanted = [
            ("create events.k8s.io/events", 1),
            ("get services", 1),
            ("patch plumb.dev/applications/status", 1),
            // The correction, and one apply to make sure that the foreign change left ours alone.
            ("patch services", 2),
        ];
        let wanted: BTreeMap<String, usize> =
            wanted.into_iter().map(|(what, count)| (what.to_owned(), count)).collect();
        let counts: BTreeMap<String, usize> =
            requests.counts().into_iter().filter(|(what, _)| !what.starts_with("watch")).collect();
        assert_eq!(counts, wanted);
        let service = services.get(&name(0)).await.unwrap();
        assert_eq!(service.data["spec"]["sessionAffinity"], "ClientIP");
        assert_eq!(service.metadata.labels.unwrap()["team"], "red");
    });
}

/// The API server's own controllers copy a Service's labels to its EndpointSlices, the part-of label
/// too.
#[test]
fn copies_of_a_label_belong_to_nobody_and_cost_nothing() {
    runtime().block_on(async {
        let world = World::new("copies").await;
        let audit = world.plane.audit();
        let user = world.identity.user();
        let service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  selector:\n    \
                       app: web\n  ports:\n    - port: 80\n";
        let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: \
                     outside\naddressType: IPv4\nendpoints: []\n";
        let first = world.repo.commit(
            &[("web/service.yaml", Some(service)), ("outside/slice.yaml", Some(slice))],
            "a service, and a slice so that slices are watched",
        );
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("outside", "outside", "1h")).await;
        world.wait_applied("outside", &first).await;
        world.apply(&world.app("web", "web", "1h")).await;
        world.wait_applied("web", &first).await;
        let slices = world.api("discovery.k8s.io/v1", "EndpointSlice");
        let copied = kube::api::ListParams::default()
            .labels("kubernetes.io/service-name=web,applyset.kubernetes.io/part-of");
        wait_for("a slice with the label of its service", LIMIT, async || {
            (!slices.list(&copied).await.unwrap().items.is_empty()).then_some(())
        })
        .await;
        wait_for("the events", LIMIT, async || {
            let sent = probe.scrape().await.sum("plumb_events_sent_total", "");
            if sent >= 3 { Ok(()) } else { Err(sent) }
        })
        .await;

        world.plane.settled().await;
        let mark = audit.mark();
        let scrape = probe.idle(3).await;
        world.request(&world.apps(), "web", "now").await;
        world
            .wait_condition(&world.apps(), "web", ("Ready", "True"), |o| {
                o["status"]["lastHandledReconcileAt"] == "now"
            })
            .await;
        probe.idle(scrape.runs() + 1).await;
        world.plane.settled().await;
        let requests = audit.requests(mark).by(&user).writes();
        let requests = requests.only(|event| event.resource != "leases");
        let wanted = BTreeMap::from([("patch plumb.dev/applications/status".to_owned(), 1)]);
        assert_eq!(requests.counts(), wanted);
        let object = world.apps().get("web").await.unwrap();
        let kinds = &object.metadata.annotations.unwrap()["applyset.kubernetes.io/contains-group-kinds"];
        assert_eq!(kinds, "Service");
        assert_eq!(slices.list(&copied).await.unwrap().items.len(), 1, "nothing is pruned");
    });
}
