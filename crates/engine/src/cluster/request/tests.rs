use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use plumb_core::Gvk;
use serde_json::json;

use super::*;
use crate::cluster::script::{Says, Script};
use crate::cluster::{ApplyHow, Deleted, Propagation, WriteGate};

const LIVE: &str =
    r#"{"kind":"PartialObjectMetadata","metadata":{"name":"a","uid":"u","resourceVersion":"5"}}"#;
const FIRST: ApplyHow = ApplyHow { force: false, dry_run: false };

fn secrets() -> Resource {
    Resource::known(Gvk::new("v1", "Secret"), "secrets", true)
}

fn things() -> Resource {
    Resource::known(Gvk::new("example.com/v1", "Thing"), "things", true)
}

fn busy(seconds: u64) -> Says {
    Says::Status(429, Some(seconds), "Too many requests".into())
}

fn down() -> Says {
    Says::Status(503, None, String::new())
}

async fn apply(script: &Script) -> Result<crate::live::Live, ApiError> {
    let secrets = secrets();
    script.cluster().apply(&Target::new(&secrets, "web", "a"), &json!({}), "plumb:a/b", FIRST).await
}

#[tokio::test]
async fn requests_are_what_the_server_expects() {
    let secrets = secrets();
    let to = Target::new(&secrets, "web", "a");
    let script = Script::new((0..7).map(|_| Says::ok(LIVE)));
    let cluster = script.cluster();
    let dry = ApplyHow { force: true, dry_run: true };
    cluster.apply(&to, &json!({"a": 1}), "plumb:web/x", FIRST).await.unwrap();
    cluster.as_user("system:serviceaccount:web:x").apply(&to, &json!({}), "m", dry).await.unwrap();
    cluster.apply_status(&to, &json!({}), "m", FIRST).await.unwrap();
    cluster.json_patch(&to, &json!([]), None).await.unwrap();
    cluster.create(&secrets, "web", &json!({})).await.unwrap();
    cluster.get_metadata(&to).await.unwrap().unwrap();
    let gone = cluster.delete(&to, "u", Some(5), Propagation::Background).await;
    assert_eq!(gone.unwrap(), Deleted::Gone);
    let path = "/api/v1/namespaces/web/secrets";
    let expected = [
        (
            "PATCH",
            format!("{path}/a?fieldManager=plumb:web%2Fx&fieldValidation=Strict&force=false"),
            APPLY,
        ),
        (
            "PATCH",
            format!("{path}/a?fieldManager=m&fieldValidation=Strict&force=true&dryRun=All"),
            APPLY,
        ),
        (
            "PATCH",
            format!("{path}/a/status?fieldManager=m&fieldValidation=Strict&force=false"),
            APPLY,
        ),
        ("PATCH", format!("{path}/a"), "application/json-patch+json"),
        ("POST", path.to_string(), JSON),
        ("GET", format!("{path}/a"), ""),
        ("DELETE", format!("{path}/a"), JSON),
    ];
    let asked = script.asked();
    assert_eq!(asked.len(), expected.len());
    for (asked, (method, uri, kind)) in asked.iter().zip(&expected) {
        let (begin, timeout) = asked.uri.split_once("timeout=").unwrap_or((&asked.uri, ""));
        assert_eq!(asked.method.as_str(), *method);
        assert_eq!(begin.trim_end_matches(['?', '&']), uri);
        assert_eq!(asked.header("content-type"), *kind);
        assert_eq!(asked.header("accept"), METADATA);
        assert_eq!(asked.header("user-agent"), "plumb/test");
        // The server is told how long a write may take.
        assert_eq!(timeout.is_empty(), *method == "GET", "{}", asked.uri);
    }
    assert_eq!(asked[0].body, r#"{"a":1}"#);
    assert_eq!(asked[0].header("impersonate-user"), "");
    assert_eq!(asked[1].header("impersonate-user"), "system:serviceaccount:web:x");
    let options: serde_json::Value = serde_json::from_str(&asked[6].body).unwrap();
    assert_eq!(options["preconditions"], json!({"uid": "u", "resourceVersion": "5"}));
    assert_eq!(options["propagationPolicy"], "Background");
}

const APPLY: &str = "application/apply-patch+yaml";

#[tokio::test]
async fn what_cannot_be_addressed_is_not_sent() {
    let secrets = secrets();
    let script = Script::new([]);
    let cluster = script.cluster();
    let escaping = Target::new(&secrets, "web", "../../nodes");
    let error = cluster.get_metadata(&escaping).await.unwrap_err();
    assert!(matches!(error, ApiError::Unaddressable { .. }));
    let error =
        cluster.as_user("a\nb").get_metadata(&Target::new(&secrets, "web", "a")).await.unwrap_err();
    assert!(matches!(error, ApiError::Unaddressable { .. }));
    assert!(script.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_asked_again_when_it_wants() {
    let script = Script::new([busy(2), busy(3), Says::ok(LIVE)]);
    assert_eq!(apply(&script).await.unwrap().resource_version, 5);
    let times: Vec<f64> = script.asked().iter().map(|asked| asked.after.as_secs_f64()).collect();
    // A little later than it asks for, so that not everybody comes back at once.
    assert!((2.0..=2.5).contains(&times[1]), "{times:?}");
    assert!((times[1] + 3.0..=times[1] + 3.75).contains(&times[2]), "{times:?}");
    // The later tries tell the server how much less time they have.
    let left = script.asked()[2].parameter("timeout").unwrap();
    let left: u64 = left.strip_suffix("ms").unwrap().parse().unwrap();
    assert!((23_200..=24_500).contains(&left), "{left}");
}

#[tokio::test(start_paused = true)]
async fn tries_end() {
    let stays_busy = || (0..9).map(|_| busy(1));
    for (answers, tries) in [
        (stays_busy().collect::<Vec<_>>(), 5),
        // Longer than is waited for inside a call, or than the call may take.
        (vec![busy(60)], 1),
        (vec![busy(10), busy(10), busy(10), busy(10)], 3),
        ((0..9).map(|_| down()).collect(), 3),
        ((0..9).map(|_| Says::Refuses).collect(), 3),
        (vec![Says::Status(500, None, String::new())], 1),
        (vec![Says::Status(409, None, String::new())], 1),
    ] {
        let script = Script::new(answers);
        let error = apply(&script).await.unwrap_err();
        assert_eq!(script.asked().len(), tries, "{error}");
        if let Some(refusal) = error.refusal().filter(|refusal| refusal.code == 429) {
            assert!(refusal.retry_after.is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_safe_to_repeat_is_not_repeated() {
    let secrets = secrets();
    let to = Target::new(&secrets, "web", "a");
    for (answer, tries) in [(down(), 1), (Says::Refuses, 1), (busy(1), 2)] {
        let script = Script::new([answer, Says::ok(LIVE)]);
        let _ = script.cluster().json_patch(&to, &json!([]), None).await;
        assert_eq!(script.asked().len(), tries);
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_when_its_deletion_is_tried_again_was_deleted_by_us() {
    let secrets = secrets();
    let to = Target::new(&secrets, "web", "a");
    let gone = || {
        let status =
            r#"{"kind":"Status","reason":"NotFound","details":{"name":"a","kind":"secrets"}}"#;
        Says::Status(404, None, status.into())
    };
    for (answers, expected) in [
        (vec![gone()], Deleted::AlreadyGone),
        (vec![busy(1), gone()], Deleted::AlreadyGone),
        (vec![down(), gone()], Deleted::Gone),
        (vec![Says::Breaks(Vec::new()), gone()], Deleted::Gone),
        // Another one is there already.
        (vec![down(), Says::Status(409, None, String::new()), Says::ok(LIVE)], Deleted::Gone),
    ] {
        let script = Script::new(answers);
        let cluster = script.cluster();
        let deleted = cluster.delete(&to, "other", None, Propagation::Background).await;
        assert_eq!(deleted.unwrap(), expected, "{} requests", script.asked().len());
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_ends_in_time() {
    let script = Script::new([Says::Hangs]);
    let error = apply(&script).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot apply Secret web/a: no answer within 30 s");
    // Also when the answer only begins.
    let script = Script::new([Says::Stays(vec!["{".into()])]);
    assert!(matches!(apply(&script).await, Err(ApiError::Timeout { .. })));
}

/// Admits a number of writes.
struct Few(AtomicU32);

impl WriteGate for Few {
    fn admit(&self, needs: Duration) -> bool {
        assert!(needs <= Duration::from_secs(30) && !needs.is_zero());
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_sends_nothing() {
    let secrets = secrets();
    let to = Target::new(&secrets, "web", "a");
    let script = Script::new([busy(1), Says::ok(LIVE), Says::ok(LIVE), Says::ok(LIVE)]);
    let gate = Arc::new(Few(AtomicU32::new(1)));
    let cluster = script.cluster_with(|options| options.gate = Some(gate));
    // The gate shuts while the call waits for a busy server.
    let error = cluster.apply(&to, &json!({}), "m", FIRST).await.unwrap_err();
    assert!(matches!(error, ApiError::NotLeading { .. }));
    assert_eq!(script.asked().len(), 1);
    for error in [
        cluster.apply_status(&to, &json!({}), "m", FIRST).await.unwrap_err(),
        cluster.json_patch(&to, &json!([]), None).await.unwrap_err(),
        cluster.as_user("x").json_patch(&to, &json!([]), None).await.unwrap_err(),
        cluster.delete(&to, "u", None, Propagation::Background).await.unwrap_err(),
        cluster.create(&secrets, "web", &json!({})).await.unwrap_err(),
        cluster.put_json::<_, serde_json::Value>(&to, &json!({})).await.unwrap_err(),
        cluster.post_json::<_, serde_json::Value>(&secrets, "web", &json!({})).await.unwrap_err(),
    ] {
        assert!(matches!(error, ApiError::NotLeading { .. }), "{error}");
    }
    assert_eq!(script.asked().len(), 1);
    cluster.get_metadata(&to).await.unwrap();
    cluster.ungated().apply(&to, &json!({}), "m", FIRST).await.unwrap();
    assert_eq!(script.asked().len(), 3);
}

#[tokio::test]
async fn only_old_aggregated_servers_may_answer_whole() {
    let refuses = || Says::Status(406, None, String::new());
    let things = things();
    let script = Script::new([refuses(), Says::ok(LIVE)]);
    let to = Target::new(&things, "web", "a");
    script.cluster().apply(&to, &json!({}), "m", FIRST).await.unwrap();
    assert_eq!(script.asked()[1].header("accept"), JSON);
    let script = Script::new([refuses(), Says::ok(LIVE)]);
    assert!(apply(&script).await.is_err());
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test]
async fn large_answers_are_not_read() {
    let script = Script::new([Says::ok("x".repeat(OBJECT_LIMIT + 1))]);
    assert!(matches!(apply(&script).await, Err(ApiError::TooLarge { .. })));
}

fn page(names: &[&str], next: &str) -> String {
    let items: Vec<_> = names
        .iter()
        .map(|name| json!({"metadata": {"name": name, "namespace": "web", "uid": "u", "resourceVersion": "1"}}))
        .collect();
    json!({"metadata": {"resourceVersion": "7", "continue": next}, "items": items}).to_string()
}

async fn list(script: &Script) -> Result<Vec<String>, ApiError> {
    let listed = script.cluster().list(&things(), "x=y", Some("web")).await;
    listed.map(|(items, version)| {
        assert_eq!(version, "7");
        items.into_iter().map(|(key, _)| key.name.to_string()).collect()
    })
}

#[tokio::test]
async fn lists_are_paged() {
    let script = Script::new([Says::ok(page(&["a", "b"], "t1")), Says::ok(page(&["c"], ""))]);
    assert_eq!(list(&script).await.unwrap(), ["a", "b", "c"]);
    let uris: Vec<_> = script.asked().into_iter().map(|asked| asked.uri).collect();
    let path = "/apis/example.com/v1/namespaces/web/things?limit=500&labelSelector=x%3Dy";
    assert_eq!(uris, [path.to_owned(), format!("{path}&continue=t1")]);
    assert_eq!(script.asked()[0].header("accept"), METADATA_LIST);
}

#[tokio::test]
async fn lists_whose_pages_expire_begin_anew() {
    let expired = || Says::Status(410, None, json!({"reason": "Expired"}).to_string());
    let script = Script::new([
        Says::ok(page(&["old"], "t1")),
        expired(),
        Says::ok(page(&["a"], "t2")),
        Says::ok(page(&["b"], "")),
    ]);
    assert_eq!(list(&script).await.unwrap(), ["a", "b"]);
    let first = || Says::ok(page(&["old"], "t"));
    let script = Script::new([first(), expired(), first(), expired(), first(), expired()]);
    assert!(list(&script).await.unwrap_err().is_gone());
}

#[tokio::test]
async fn pages_that_are_too_large_are_asked_for_in_parts() {
    let script = Script::new([Says::ok("x".repeat(PAGE_LIMIT + 1)), Says::ok(page(&["a"], ""))]);
    assert_eq!(list(&script).await.unwrap(), ["a"]);
    assert_eq!(script.asked()[1].parameter("limit").unwrap(), "62");
}

#[tokio::test]
async fn a_list_is_whole_or_an_error() {
    let bad = json!({"metadata": {"resourceVersion": "7"}, "items": [
        {"metadata": {"name": "a", "namespace": "web", "uid": "u", "resourceVersion": "1"}},
        {"metadata": {"name": "b", "namespace": "web", "uid": "u", "resourceVersion": "hunter2"}},
    ]});
    let error = list(&Script::new([Says::ok(bad.to_string())])).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot list things.example.com in web: the API server's answer cannot be read: \
         Thing.example.com web/b: the resource version is not a number"
    );
    // Not even a missing kind is an empty list.
    let missing = Says::Status(404, None, "404 page not found".into());
    assert!(list(&Script::new([missing])).await.unwrap_err().is_kind_missing());
}

#[tokio::test]
async fn missing_objects_and_missing_kinds_differ() {
    let secrets = secrets();
    let to = Target::new(&secrets, "web", "a");
    let object = || {
        let status = json!({"reason": "NotFound", "details": {"kind": "secrets", "name": "a"}});
        Says::Status(404, None, status.to_string())
    };
    let kind = || Says::Status(404, None, "404 page not found".into());
    let script = Script::new([object(), kind(), object(), kind(), object(), kind()]);
    let cluster = script.cluster();
    assert_eq!(cluster.get_metadata(&to).await.unwrap(), None);
    assert!(cluster.get_metadata(&to).await.is_err());
    assert_eq!(cluster.get_json::<serde_json::Value>(&to).await.unwrap(), None);
    assert!(cluster.get_json::<serde_json::Value>(&to).await.is_err());
    let delete = || cluster.delete(&to, "u", None, Propagation::Background);
    assert_eq!(delete().await.unwrap(), Deleted::AlreadyGone);
    assert!(delete().await.is_err());
}

/// Holds what the subscriber of a test logs.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A type of our own that none of the answers fits.
#[derive(Debug, serde::Deserialize)]
struct Own {
    #[serde(rename = "spec")]
    _spec: u8,
}

#[tokio::test(start_paused = true)]
async fn answers_that_cannot_be_read_are_quoted_nowhere() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::info!("the log is kept");

    let secrets = secrets();
    let to = Target::new(&secrets, "web", "a");
    let bodies = [
        "hunter2",
        r#"{"metadata":"hunter2"}"#,
        r#"{"metadata":{"uid":["hunter2"]}}"#,
        r#"{"metadata":{"name":"a","uid":"u","resourceVersion":"5","labels":"hunter2"}}"#,
        r#"{"metadata":{"uid":"u","resourceVersion":"hunter2"},"data":{"p":"hunter2"}}"#,
        r#"{"metadata":{},"items":["hunter2"]}"#,
        r#"{"metadata":{"annotations":{"hunter2""#,
    ];
    let mut errors = Vec::new();
    for body in bodies {
        for code in [200, 500] {
            let script = Script::new((0..6).map(|_| Says::Status(code, None, body.into())));
            let cluster = script.cluster();
            errors.extend(cluster.apply(&to, &json!({}), "m", FIRST).await.err());
            errors.extend(cluster.get_metadata(&to).await.err());
            errors.extend(cluster.json_patch(&to, &json!([]), None).await.err());
            errors.extend(cluster.list(&secrets, "", None).await.err());
            errors.extend(cluster.delete(&to, "u", None, Propagation::Background).await.err());
            errors.extend(cluster.get_json::<Own>(&to).await.err());
        }
    }
    assert!(errors.len() > 60, "{}", errors.len());
    for error in &errors {
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("the log is kept"));
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn json_for_yaml_escapes_what_yaml_changes() {
    let value = json!({"a\u{85}": "b\u{2028}\u{7f}\u{feff}\u{1f600}é\n\"\\"});
    let bytes = json_for_yaml(&value);
    assert_eq!(
        std::str::from_utf8(&bytes).unwrap(),
        "{\"a\\u0085\":\"b\\u2028\\u007f\\ufeff\u{1f600}é\\n\\\"\\\\\"}"
    );
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).unwrap(), value);
}
