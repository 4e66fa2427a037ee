use std::collections::BTreeSet;

use super::*;

const KIND: Kind = Kind::Application;

const READY: ObjectState = ObjectState { ready: true, suspended: false };

fn metrics() -> Metrics {
    Metrics::new(BuildInfo { version: "1.2.3".into(), revision: "abc".into() })
}

/// Metrics with one of everything.
fn filled() -> Metrics {
    let metrics = metrics();
    metrics.watch_queue(KIND, || QueueFigures { waiting: 7, busy: 2 });
    metrics.reconciled(KIND, Outcome::Changed, Duration::from_millis(30));
    metrics.reconciled(KIND, Outcome::Panic, Duration::from_secs(3));
    metrics.set_state(KIND, "apps", "web", READY);
    metrics.rendered();
    metrics.applied("apps", "web", 4);
    metrics.pruned("apps", "web", 1);
    metrics.drift_corrected("apps", "web", 2);
    metrics.watch_sight(|| SightFigures { members: 5, unreadable_kinds: 1 });
    let (limit, evicted) = (Some(3 << 30), 4);
    let cache = CacheFigures { mirrors: 6, bytes: 1 << 20, limit, evicted, rebuilt: 1 };
    metrics.watch_cache(move || cache);
    metrics.watch_hosts(|| 2);
    metrics.git_polled(GitOutcome::Ok);
    metrics.git_polled(GitOutcome::PutOff);
    metrics.git_shared();
    metrics.git_fetched(GitOutcome::Failed, 1);
    metrics.git_received(212);
    metrics.hook(Service::GitHub, HookOutcome::Asked);
    metrics.answered("apply", 200);
    metrics.event_sent();
    metrics.event_dropped("queue-full");
    metrics.set_leading(Some(3));
    metrics
}

#[test]
fn a_scrape_reads_as_documented() {
    let text = filled().encode().unwrap();
    for line in [
        r#"plumb_build_info{version="1.2.3",revision="abc"} 1"#,
        r#"plumb_reconciles_total{kind="Application",outcome="changed"} 1"#,
        r#"plumb_reconciles_total{kind="Application",outcome="panic"} 1"#,
        r#"plumb_reconcile_duration_seconds_count{kind="Application"} 2"#,
        r#"plumb_reconcile_duration_seconds_bucket{le="0.05",kind="Application"} 1"#,
        r#"plumb_panics_total{kind="Application"} 1"#,
        "plumb_renders_total 1",
        r#"plumb_queue_length{kind="Application"} 7"#,
        r#"plumb_workers_busy{kind="Application"} 2"#,
        r#"plumb_ready{kind="Application",namespace="apps",name="web"} 1"#,
        r#"plumb_suspended{kind="Application",namespace="apps",name="web"} 0"#,
        r#"plumb_objects_applied_total{namespace="apps",name="web"} 4"#,
        r#"plumb_objects_pruned_total{namespace="apps",name="web"} 1"#,
        r#"plumb_drift_corrected_total{namespace="apps",name="web"} 2"#,
        "plumb_members 5",
        "plumb_unreadable_kinds 1",
        r#"plumb_git_polls_total{outcome="ok"} 1"#,
        r#"plumb_git_polls_total{outcome="put_off"} 1"#,
        "plumb_git_polls_shared_total 1",
        "plumb_git_hosts_waited_for 2",
        r#"plumb_git_fetches_total{outcome="failed"} 1"#,
        "plumb_git_received_bytes_total 212",
        "plumb_mirrors 6",
        "plumb_cache_bytes 1048576",
        "plumb_cache_limit_bytes 3221225472",
        "plumb_mirrors_evicted_total 4",
        "plumb_mirrors_rebuilt_total 1",
        r#"plumb_hooks_total{service="github",outcome="asked"} 1"#,
        r#"plumb_api_requests_total{verb="apply",code="200"} 1"#,
        "plumb_events_sent_total 1",
        r#"plumb_events_dropped_total{reason="queue-full"} 1"#,
        "plumb_leader 1",
        "plumb_leader_epoch 3",
        "# EOF",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\nnot in\n{text}");
    }
}

/// Every description is of a metric that is exposed under that name and type, and the other way
/// round.
#[test]
fn descriptions_match_a_scrape() {
    let text = filled().encode().unwrap();
    let exposed: BTreeSet<(String, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| {
            let ending = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (format!("{name}{ending}"), kind)
        })
        .collect();
    let described = describe();
    let names: BTreeSet<(String, &str)> =
        described.iter().map(|description| (description.name.clone(), description.kind)).collect();
    assert_eq!(names, exposed);
    assert_eq!(names.len(), described.len(), "no name twice");
    for description in described {
        assert!(
            text.lines().any(|line| {
                line.strip_prefix(description.name.as_str())
                    .is_some_and(|rest| rest.starts_with([' ', '{', '_']))
            }),
            "no sample of {}",
            description.name
        );
        assert!(!description.help.is_empty() && !description.help.ends_with('.'));
    }
}

#[test]
fn an_object_that_is_gone_leaves_nothing() {
    let metrics = filled();
    let state = ObjectState { ready: false, suspended: true };
    metrics.set_state(Kind::GitRepository, "apps", "web", state);
    metrics.forget(KIND, "apps", "web");
    let text = metrics.encode().unwrap();
    let left: Vec<&str> = text.lines().filter(|line| line.contains("web")).collect();
    assert_eq!(
        left,
        [
            r#"plumb_ready{kind="GitRepository",namespace="apps",name="web"} 0"#,
            r#"plumb_suspended{kind="GitRepository",namespace="apps",name="web"} 1"#,
        ]
    );
}

#[test]
fn a_standby_says_so() {
    let metrics = filled();
    metrics.set_leading(None);
    let text = metrics.encode().unwrap();
    assert!(text.contains("plumb_leader 0\n"));
    assert!(text.contains("plumb_leader_epoch 3\n"));
}

/// The README's table is the list of metrics: names, kinds and meanings as the code has them.
#[test]
fn the_readme_lists_every_metric() {
    let row = |m: Description| format!("| `{}` | {} | {} |\n", m.name, m.kind, m.help);
    let rows: Vec<String> = describe().into_iter().map(row).collect();
    let table = format!("| metric | kind | tells |\n|---|---|---|\n{}", rows.concat());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    assert!(readme.contains(&table), "README.md should have this table:\n{table}");
}
