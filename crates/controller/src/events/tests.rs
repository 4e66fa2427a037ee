use plumb_engine::Refusal;
use tokio::sync::oneshot;

use super::*;
use crate::metrics::BuildInfo;

pub(super) fn event(note: &str) -> Event {
    Event {
        regarding: Regarding {
            api_version: "plumb.dev/v1alpha1".into(),
            kind: "Application".into(),
            namespace: "apps".into(),
            name: "web".into(),
            uid: "1-2-3".into(),
        },
        severity: Severity::Normal,
        reason: "Succeeded".into(),
        action: "Apply".into(),
        note: note.into(),
        revision: Some("main@sha1:abc".into()),
    }
}

fn metrics() -> Metrics {
    Metrics::new(BuildInfo { version: String::new(), revision: String::new() })
}

/// The samples of a metric.
fn samples(metrics: &Metrics, name: &str) -> Vec<String> {
    let text = metrics.encode().unwrap();
    text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

/// Answers with the errors it is told to, from the last to the first, and then with success.
#[derive(Default)]
struct Fake {
    answers: Mutex<Vec<Option<ApiError>>>,
    hangs: bool,
    created: Mutex<Vec<Value>>,
    tries: Mutex<u32>,
}

impl EventSink for Fake {
    async fn create(&self, event: &Value) -> Result<(), ApiError> {
        *self.tries.lock().unwrap() += 1;
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if let Some(Some(error)) = self.answers.lock().unwrap().pop() {
            return Err(error);
        }
        self.created.lock().unwrap().push(event.clone());
        Ok(())
    }
}

fn refused(code: u16, reason: &str) -> ApiError {
    ApiError::Refused(Box::new(Refusal {
        operation: "create one of",
        subject: "events.events.k8s.io in apps".into(),
        code,
        reason: reason.into(),
        message: "refused".into(),
        causes: Vec::new(),
        about: (String::new(), String::new()),
        retry_after: None,
        class: if code >= 500 { ErrorClass::Retry } else { ErrorClass::WaitForUser },
        busy: false,
    }))
}

impl Fake {
    fn notes(&self) -> Vec<String> {
        let created = self.created.lock().unwrap();
        let notes = created.iter().map(|event| event["note"].as_str().unwrap());
        notes.map(str::to_owned).collect()
    }
}

const FLUSH: Duration = Duration::from_secs(5);

#[test]
fn an_event_has_what_the_api_server_asks_for() {
    let object = event("applied 4 objects").object("plumb-0", 1_767_323_045_600_000_000, 1);
    assert_eq!(
        object,
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": "web.1886caf240597800",
                "namespace": "apps",
                "annotations": {"plumb.dev/revision": "main@sha1:abc"},
            },
            "eventTime": "2026-01-02T03:04:05.600000Z",
            "type": "Normal",
            "reason": "Succeeded",
            "action": "Apply",
            "note": "applied 4 objects",
            "regarding": {
                "apiVersion": "plumb.dev/v1alpha1",
                "kind": "Application",
                "namespace": "apps",
                "name": "web",
                "uid": "1-2-3",
            },
            "reportingController": "plumb.dev/controller",
            "reportingInstance": "plumb-0",
        })
    );
    let repeated = event("again").object("plumb-0", 1_767_323_045_600_000_000, 7);
    assert_eq!(repeated["series"]["count"], 7);
    assert_eq!(repeated["series"]["lastObservedTime"], repeated["eventTime"]);
}

#[test]
fn what_is_too_long_is_cut_between_characters() {
    let mut long = event(&"ä".repeat(1000));
    long.regarding.name = format!("{}.{}", "a".repeat(235), "b".repeat(17));
    long.reason = "R".repeat(200);
    let object = long.object(&"i".repeat(200), 1_767_323_045_600_000_000, 1);
    let text = |pointer: &str| object.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let note = text("/note");
    assert!(note.len() <= 1024 && note.len() > 1020 && note.ends_with("ä…"));
    assert_eq!(text("/reason").len(), 128);
    assert_eq!(text("/reportingInstance").len(), 128);
    let name = text("/metadata/name");
    assert!(name.len() <= 253 && name.starts_with("aaa") && !name.contains(".."), "{name}");
}

#[tokio::test(start_paused = true)]
async fn events_are_sent_in_order_under_names_that_differ() {
    let metrics = metrics();
    let (events, outbox) = Events::new("plumb-0", &metrics);
    for note in ["one", "two", "one", "three"] {
        events.publish(&event(note));
    }
    drop(events);
    let sink = Fake::default();
    run(outbox, &sink, std::future::pending(), FLUSH).await;
    assert_eq!(sink.notes(), ["one", "two", "three"]);
    let created = sink.created.lock().unwrap();
    let names: std::collections::HashSet<String> =
        created.iter().map(|event| event["metadata"]["name"].to_string()).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(samples(&metrics, "plumb_events_sent"), ["plumb_events_sent_total 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_for_a_moment_loses_nothing_and_a_refusal_one_event() {
    let metrics = metrics();
    let (events, outbox) = Events::new("plumb-0", &metrics);
    for note in ["one", "two", "three", "four"] {
        events.publish(&event(note));
    }
    drop(events);
    let sink = Fake::default();
    let closed = ApiError::NotLeading { operation: "create one of", subject: "events".into() };
    *sink.answers.lock().unwrap() = vec![
        Some(refused(409, "AlreadyExists")),
        Some(refused(403, "Forbidden")),
        None,
        Some(closed),
        Some(refused(503, "ServiceUnavailable")),
        Some(refused(500, "InternalError")),
    ];
    run(outbox, &sink, std::future::pending(), FLUSH).await;
    assert_eq!(sink.notes(), ["one", "four"], "two is refused, three was there");
    assert_eq!(*sink.tries.lock().unwrap(), 7);
    assert_eq!(
        samples(&metrics, "plumb_events_dropped_total"),
        [r#"plumb_events_dropped_total{reason="refused"} 1"#]
    );
}

#[tokio::test(start_paused = true)]
async fn a_standby_sends_nothing() {
    let metrics = metrics();
    let (events, outbox) = Events::new("plumb-0", &metrics);
    events.publish(&event("one"));
    drop(events);
    let sink = Fake::default();
    *sink.answers.lock().unwrap() = (0..4)
        .map(|_| {
            Some(ApiError::NotLeading { operation: "create one of", subject: "events".into() })
        })
        .collect();
    run(outbox, &sink, std::future::pending(), FLUSH).await;
    assert!(sink.notes().is_empty());
    assert_eq!(
        samples(&metrics, "plumb_events_dropped_total"),
        [r#"plumb_events_dropped_total{reason="not-leading"} 1"#]
    );
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_takes_no_events_delays_nobody_else() {
    let metrics = metrics();
    let (events, outbox) = Events::new("plumb-0", &metrics);
    for number in 0..100 {
        let mut event = event("note");
        event.regarding.uid = number.to_string();
        events.publish(&event);
    }
    let mut other = event("other");
    other.regarding.namespace = "elsewhere".into();
    events.publish(&other);
    drop(events);
    let sink = Fake::default();
    *sink.answers.lock().unwrap() = (0..4).map(|_| Some(refused(500, "InternalError"))).collect();
    let start = now();
    run(outbox, &sink, std::future::pending(), FLUSH).await;
    assert_eq!(sink.notes(), ["other"]);
    assert_eq!(*sink.tries.lock().unwrap(), 5);
    assert!(now() - start < Duration::from_secs(25), "{:?}", now() - start);
    assert_eq!(
        samples(&metrics, "plumb_events_dropped_total"),
        [r#"plumb_events_dropped_total{reason="unreachable"} 100"#]
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_the_lease_is_lost_is_not_sent_hours_later() {
    let metrics = metrics();
    let (events, outbox) = Events::new("plumb-0", &metrics);
    for number in 0..100 {
        let mut event = event("note");
        event.regarding.uid = number.to_string();
        events.publish(&event);
    }
    drop(events);
    let sink = Fake::default();
    let closed = || ApiError::NotLeading { operation: "create one of", subject: "events".into() };
    *sink.answers.lock().unwrap() = (0..103).map(|_| Some(closed())).collect();
    let start = now();
    run(outbox, &sink, std::future::pending(), FLUSH).await;
    assert_eq!(*sink.tries.lock().unwrap(), 103, "four of the first, one of each other");
    assert!(now() - start < Duration::from_secs(25), "{:?}", now() - start);
    assert!(sink.notes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_and_publishing_never_waits() {
    let metrics = metrics();
    let (events, outbox) = Events::new("plumb-0", &metrics);
    for number in 0..QUEUE + 10 {
        let mut event = event("note");
        event.regarding.uid = number.to_string();
        events.publish(&event);
    }
    drop(outbox);
    events.publish(&event("late"));
    let mut dropped = samples(&metrics, "plumb_events_dropped_total");
    dropped.sort();
    assert_eq!(
        dropped,
        [
            r#"plumb_events_dropped_total{reason="queue-full"} 10"#,
            r#"plumb_events_dropped_total{reason="stopped"} 1"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_flushes_within_its_deadline() {
    for (hangs, sent) in [(false, 3), (true, 0)] {
        let metrics = metrics();
        let (events, outbox) = Events::new("plumb-0", &metrics);
        for note in ["one", "two", "three"] {
            events.publish(&event(note));
        }
        let sink = Fake { hangs, ..Fake::default() };
        let (stop, stopped) = oneshot::channel::<()>();
        stop.send(()).unwrap();
        let stopped = async {
            let _ = stopped.await;
        };
        let start = now();
        run(outbox, &sink, stopped, FLUSH).await;
        assert_eq!(now() - start, if hangs { FLUSH } else { Duration::ZERO });
        assert_eq!(sink.notes().len(), sent);
        if hangs {
            // One is on its way and may or may not arrive.
            assert_eq!(
                samples(&metrics, "plumb_events_dropped_total"),
                [r#"plumb_events_dropped_total{reason="stopped"} 3"#]
            );
        }
        events.publish(&event("late"));
    }
}
