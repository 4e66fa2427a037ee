//! What an object that is looked after costs in memory, and what the API server's word about one costs
//! in allocations. Both are exact, whatever the machine: more than a tenth above the budget fails. Who
//! raises a budget says why in the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::client::Body;
use plumb_core::GroupKind;
use plumb_engine::{Cluster, ClusterOptions, Engine, EngineOptions};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Objects that are listed, in sets of ten.
const OBJECTS: usize = 10_000;
/// Events that come after that.
const EVENTS: usize = 10_000;

/// Bytes of an object: uid, versions, entries, digests, its key in the index and in its set.
const BYTES_EACH: usize = 531;
/// Allocations of an event of a known object.
const ALLOCATIONS_EACH: usize = 14;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Frames = stream::BoxStream<'static, Result<Frame<Bytes>, Error>>;

/// A ConfigMap of a set as a list or a watch tells of it.
fn object(number: usize, version: usize) -> String {
    let set = number / 10;
    format!(
        r#"{{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{{"name":"map-{number:05}","namespace":"team-{set:04}","uid":"00000000-0000-4000-8000-{number:012}","resourceVersion":"{version}","creationTimestamp":"2026-01-02T03:04:05Z","labels":{{"app.kubernetes.io/name":"map","applyset.kubernetes.io/part-of":"applyset-{set:043}-v1"}},"annotations":{{"plumb.dev/application":"team-{set:04}/app"}},"managedFields":[{{"manager":"plumb:team-{set:04}/app","operation":"Apply","apiVersion":"v1","time":"2026-01-02T03:04:05Z","fieldsType":"FieldsV1","fieldsV1":{{"f:data":{{"f:greeting":{{}},"f:level":{{}},"f:value":{{}}}},"f:metadata":{{"f:annotations":{{"f:plumb.dev/application":{{}}}},"f:labels":{{"f:app.kubernetes.io/name":{{}},"f:applyset.kubernetes.io/part-of":{{}}}}}}}}}},{{"manager":"somebody","operation":"Update","apiVersion":"v1","time":"2026-01-02T03:04:06Z","fieldsType":"FieldsV1","fieldsV1":{{"f:data":{{"f:theirs":{{}}}}}}}}]}}}}"#
    )
}

const CORE: &str = r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[{"metadata":{"name":""},"versions":[{"version":"v1","freshness":"Current","resources":[{"resource":"configmaps","responseKind":{"group":"","version":"v1","kind":"ConfigMap"},"scope":"Namespaced","singularResource":"configmap","verbs":["create","delete","get","list","patch","update","watch"]}]}]}]}"#;
const NO_GROUPS: &str = r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[]}"#;

/// Answers as an API server with these ConfigMaps; the watch waits until it may tell.
fn answer(
    request: &Request<Body>,
    list: Bytes,
    events: tokio::sync::watch::Receiver<Option<Bytes>>,
) -> Result<Response<StreamBody<Frames>>, Error> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let mut kind = "application/json";
    let whole = |text: Bytes| stream::iter([Ok(Frame::data(text))]).boxed();
    let body = if path == "/api" || path == "/apis" {
        kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        whole(Bytes::from_static(if path == "/api" { CORE } else { NO_GROUPS }.as_bytes()))
    } else if query.contains("watch=") {
        let told = stream::once(async move {
            let mut events = events;
            let told = events.wait_for(Option::is_some).await.map(|told| told.clone());
            Ok(Frame::data(told.ok().flatten().unwrap_or_default()))
        });
        told.chain(stream::pending()).boxed()
    } else {
        whole(list)
    };
    Ok(Response::builder().header("content-type", kind).body(StreamBody::new(body))?)
}

#[tokio::test]
async fn an_object_takes_no_more_bytes_and_an_event_no_more_allocations_than_the_budget() {
    let mut list = String::from(
        r#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"20000"},"items":["#,
    );
    let mut events = String::new();
    for number in 0..OBJECTS {
        let comma = if number == 0 { "" } else { "," };
        let _infallible = write!(list, "{comma}{}", object(number, 10_000 + number));
    }
    list.push_str("]}");
    for number in 0..EVENTS {
        let changed = object(number % OBJECTS, 30_000 + number);
        let _infallible = writeln!(events, r#"{{"type":"MODIFIED","object":{changed}}}"#);
    }
    // Once this one is there, all before it were read.
    let last = object(OBJECTS, 50_000);
    let _infallible = writeln!(events, r#"{{"type":"ADDED","object":{last}}}"#);
    let (list, events) = (Bytes::from(list), Bytes::from(events));
    let (tell, told) = tokio::sync::watch::channel(None);

    let service = tower::service_fn(move |request: Request<Body>| {
        std::future::ready(answer(&request, list.clone(), told.clone()))
    });
    let options = ClusterOptions {
        request_timeout: Duration::from_secs(30),
        user_agent: None,
        gate: None,
        observer: None,
        seed: 7,
    };
    let cluster = Cluster::new(kube::Client::new(service, "default"), options);
    let (engine, _signals) = Engine::new(cluster, EngineOptions::default());
    let kinds = BTreeSet::from([GroupKind::new("", "ConfigMap")]);

    let profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get();
    engine.watch(&kinds).await.unwrap();
    settled(|| engine.member_count() >= OBJECTS && engine.pending(&kinds).is_empty()).await;
    let listed = dhat::HeapStats::get();
    let bytes = (listed.curr_bytes - before.curr_bytes) / OBJECTS;
    tell.send_replace(Some(events));
    settled(|| engine.member_count() > OBJECTS).await;
    let after = dhat::HeapStats::get();
    let blocks = after.total_blocks - listed.total_blocks;
    let allocations = usize::try_from(blocks).unwrap() / EVENTS;
    drop(profiler);

    eprintln!("{bytes} bytes an object, {allocations} allocations an event");
    let figures = BTreeMap::from([
        ("bytes an object", (bytes, BYTES_EACH)),
        ("allocations an event", (allocations, ALLOCATIONS_EACH)),
    ]);
    let over: Vec<_> =
        figures.iter().filter(|(_, (found, budget))| found * 10 > budget * 11).collect();
    assert!(over.is_empty(), "more than a tenth above the budget: {over:?}");
}

/// Waits until that holds; what is asked meanwhile allocates nothing.
async fn settled(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_mins(1), waiting).await.is_ok(),
        "it comes in a minute"
    );
}
