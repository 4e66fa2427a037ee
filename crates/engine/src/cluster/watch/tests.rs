use std::pin::Pin;

use futures::StreamExt as _;
use plumb_core::Gvk;
use serde_json::json;

use super::*;
use crate::cluster::script::{Says, Script};

fn meta(name: &str, version: &str) -> serde_json::Value {
    json!({"metadata": {"name": name, "namespace": "web", "uid": name, "resourceVersion": version}})
}

fn list(names: &[&str], version: &str) -> Says {
    let items: Vec<_> = names.iter().map(|name| meta(name, "1")).collect();
    Says::ok(json!({"metadata": {"resourceVersion": version}, "items": items}).to_string())
}

fn event(kind: &str, object: &serde_json::Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn bookmark(version: &str) -> String {
    event("BOOKMARK", &json!({"metadata": {"resourceVersion": version}}))
}

fn error(code: u16) -> String {
    event("ERROR", &json!({"kind": "Status", "code": code, "message": "told", "reason": "Expired"}))
}

struct Told {
    script: Script,
    stream: Pin<Box<dyn Stream<Item = WatchEvent> + Send>>,
}

impl Told {
    fn new(answers: impl IntoIterator<Item = Says>) -> Self {
        let script = Script::new(answers);
        let resource = Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true);
        let stream = Box::pin(watch(&script.cluster(), &resource, "x", None));
        Self { script, stream }
    }

    /// The next events, each in one word.
    async fn next(&mut self, count: usize) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..count {
            told.push(match self.stream.next().await.unwrap() {
                WatchEvent::Restarted => "restarted".into(),
                WatchEvent::Listed(items, _) => {
                    let names: Vec<_> = items.iter().map(|(key, _)| &*key.name).collect();
                    format!("listed {}", names.join(" "))
                }
                WatchEvent::Changed(key, live) => {
                    format!("changed {} {}", key.name, live.resource_version)
                }
                WatchEvent::Deleted(key, _) => format!("deleted {}", key.name),
                WatchEvent::Unreadable(key, error) => format!("unreadable {key}: {error}"),
                WatchEvent::Failed(error) => format!("failed: {error}"),
            });
        }
        told
    }

    /// From which resource versions it watched; `list` for lists.
    fn asked(&self) -> Vec<String> {
        let asked = self.script.asked();
        asked
            .iter()
            .map(|asked| match asked.parameter("watch") {
                Some(_) => asked.parameter("resourceVersion").unwrap(),
                None => "list".into(),
            })
            .collect()
    }

    fn seconds(&self) -> Vec<u64> {
        let asked = self.script.asked();
        asked.iter().map(|asked| asked.after.as_secs()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_then_its_changes() {
    let mut told = Told::new([
        list(&["a", "b"], "5"),
        Says::Stays(vec![
            event("ADDED", &meta("c", "6")) + &event("MODIFIED", &meta("a", "7")),
            "\n".into(),
            event("DELETED", &meta("b", "8")),
        ]),
    ]);
    assert_eq!(
        told.next(5).await,
        ["restarted", "listed a b", "changed c 6", "changed a 7", "deleted b"]
    );
    let asked = told.script.asked();
    let watch = &asked[1];
    assert_eq!(watch.parameter("allowWatchBookmarks").unwrap(), "true");
    assert_eq!(watch.parameter("labelSelector").unwrap(), "x");
    assert_eq!(watch.header("accept-encoding"), "identity");
    assert!(watch.header("accept").contains("as=PartialObjectMetadata;"));
    let seconds: u64 = watch.parameter("timeoutSeconds").unwrap().parse().unwrap();
    assert!((270..310).contains(&seconds), "{seconds}");
    assert_eq!(watch.parameter("timeout"), None);
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_off_comes_again() {
    let line = event("MODIFIED", &meta("a", "7"));
    let (head, tail) = line.split_at(20);
    let mut told = Told::new([
        list(&["a"], "5"),
        // In the middle of a line, after a bookmark.
        Says::Breaks(vec![bookmark("6"), head.into()]),
        // Over two frames, then an end as servers make it.
        Says::Pieces(vec![head.into(), tail.into()]),
        Says::Stays(vec![event("ADDED", &meta("b", "9"))]),
    ]);
    assert_eq!(told.next(4).await, ["restarted", "listed a", "changed a 7", "changed b 9"]);
    assert_eq!(told.asked(), ["list", "5", "6", "7"]);
}

/// A right that is missing may be given later; a verb that a kind does not have is not asked for.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_watched_is_listed_again_and_again() {
    let mut told = Told::new([
        list(&["a"], "5"),
        Says::Status(403, None, String::new()),
        list(&["a", "b"], "6"),
        Says::Status(405, None, String::new()),
        list(&["b"], "7"),
        Says::Stays(vec![event("ADDED", &meta("c", "8"))]),
    ]);
    assert_eq!(
        told.next(7).await,
        [
            "restarted",
            "listed a",
            "restarted",
            "listed a b",
            "restarted",
            "listed b",
            "changed c 8"
        ]
    );
    assert_eq!(told.asked(), ["list", "5", "list", "6", "list", "7"]);
    let seconds = told.seconds();
    assert!((15..=30).contains(&seconds[2]) && (30..=60).contains(&seconds[4]), "{seconds:?}");

    let mut resource = Resource::known(Gvk::new("v1", "ConfigMap"), "configmaps", true);
    resource.verbs.remove("watch");
    let script = Script::new([list(&["a"], "5"), list(&["b"], "6")]);
    let stream = Box::pin(watch(&script.cluster(), &resource, "x", None));
    let mut told = Told { script, stream };
    assert_eq!(told.next(4).await, ["restarted", "listed a", "restarted", "listed b"]);
    assert_eq!(told.asked(), ["list", "list"]);
}

#[tokio::test(start_paused = true)]
async fn expired_versions_lead_to_a_list() {
    let mut told = Told::new([
        list(&["a"], "5"),
        Says::Stays(vec![event("MODIFIED", &meta("a", "6")), error(410)]),
        list(&["b"], "9"),
        Says::Status(410, None, String::new()),
        // Again and nothing heard in between: told, and waited for.
        list(&["c"], "10"),
        Says::Stays(vec![error(410)]),
        list(&["d"], "11"),
        Says::Stays(vec![bookmark("12"), event("ADDED", &meta("e", "13"))]),
    ]);
    assert_eq!(
        told.next(11).await,
        [
            "restarted",
            "listed a",
            "changed a 6",
            "restarted",
            "listed b",
            "failed: cannot watch configmaps: the server answered HTTP 410 Gone",
            "restarted",
            "listed c",
            "failed: cannot watch configmaps: told",
            "restarted",
            "listed d",
        ]
    );
    assert_eq!(told.next(1).await, ["changed e 13"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_is_tried_until_it_succeeds() {
    let down = || Says::Status(403, None, json!({"message": "no"}).to_string());
    let mut told = Told::new((0..9).map(|_| down()).chain([list(&["a"], "5")]));
    let events = told.next(11).await;
    assert_eq!(events[0], "restarted");
    assert!(events[1..10].iter().all(|event| event == "failed: cannot list configmaps: no"));
    assert_eq!(events[10], "listed a");
    // Doubling with jitter, up to half a minute.
    let seconds = told.seconds();
    let waits: Vec<u64> = seconds.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[0] <= 1 && (15..=31).contains(&waits[8]), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_for_a_moment_is_not_worth_a_word() {
    let mut told = Told::new([
        list(&["a"], "5"),
        Says::Refuses,
        Says::Status(503, None, String::new()),
        Says::Pieces(vec![]),
        Says::Stays(vec![event("MODIFIED", &meta("a", "6"))]),
    ]);
    assert_eq!(told.next(3).await, ["restarted", "listed a", "changed a 6"]);
    assert_eq!(told.asked(), ["list", "5", "5", "5", "5"]);

    let mut told = Told::new([
        list(&["a"], "5"),
        Says::Refuses,
        Says::Refuses,
        Says::Refuses,
        Says::Refuses,
        list(&["b"], "9"),
    ]);
    assert_eq!(
        told.next(5).await,
        [
            "restarted",
            "listed a",
            "failed: cannot watch configmaps: the connection to the API server failed",
            "restarted",
            "listed b"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn silence_means_a_dead_connection() {
    let mut told = Told::new([
        list(&[], "5"),
        Says::Stays(vec![bookmark("6")]),
        Says::Stays(vec![]),
        Says::Stays(vec![event("ADDED", &meta("a", "7"))]),
    ]);
    assert_eq!(told.next(3).await, ["restarted", "listed ", "changed a 7"]);
    assert_eq!(told.asked(), ["list", "5", "6", "6"]);
    let seconds = told.seconds();
    // Sooner where bookmarks are known to come.
    assert!((150..155).contains(&(seconds[2] - seconds[1])), "{seconds:?}");
    assert!((285..330).contains(&(seconds[3] - seconds[2])), "{seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn nonsense_leads_to_a_list() {
    for line in ["hunter2\n".to_owned(), event("hunter2", &meta("a", "6"))] {
        let mut told = Told::new([list(&[], "5"), Says::Stays(vec![line]), list(&["a"], "6")]);
        let events = told.next(5).await;
        assert!(events[2].starts_with("failed: cannot watch configmaps: "), "{events:?}");
        assert!(!events[2].contains("hunter2"), "{events:?}");
        assert_eq!(events[3..], ["restarted", "listed a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_bad_object_is_told_beside_the_others() {
    #[derive(Debug, serde::Deserialize)]
    struct Thing {
        spec: u8,
    }
    let thing = |name: &str, spec: serde_json::Value| {
        let mut thing = meta(name, "6");
        thing["spec"] = spec;
        thing
    };
    let items = [thing("a", 1.into()), thing("b", "hunter2".into())];
    let script = Script::new([
        Says::ok(json!({"metadata": {"resourceVersion": "5"}, "items": items}).to_string()),
        Says::Stays(vec![
            event("MODIFIED", &thing("a", "hunter2".into())),
            event("MODIFIED", &thing("b", 2.into())),
        ]),
    ]);
    let resource = Resource::known(Gvk::new("example.com/v1", "Thing"), "things", true);
    let mut stream =
        std::pin::pin!(watch_typed::<Thing>(&script.cluster(), &resource, "", Some("web")));
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(match stream.next().await.unwrap() {
            WatchEvent::Restarted => "restarted".to_owned(),
            WatchEvent::Listed(items, _) => {
                let items = items.iter().map(|(key, thing)| format!("{} {}", key.name, thing.spec));
                items.collect::<Vec<_>>().join(", ")
            }
            WatchEvent::Changed(key, thing) => format!("{} {}", key.name, thing.spec),
            WatchEvent::Unreadable(key, error) => {
                assert!(!format!("{error} {error:?}").contains("hunter2"));
                format!("unreadable {key}")
            }
            other => format!("{other:?}"),
        });
    }
    assert_eq!(
        told,
        [
            "restarted",
            "unreadable Thing.example.com web/b",
            "a 1",
            "unreadable Thing.example.com web/a",
            "b 2"
        ]
    );
    let asked = script.asked();
    assert!(asked.iter().all(|asked| asked.header("accept") == "application/json"));
    assert!(asked[0].uri.starts_with("/apis/example.com/v1/namespaces/web/things?"));
}
