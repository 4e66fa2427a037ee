use plumb_testkit::{ControlPlane, Hand, History, Kind, Version, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

const CONFIG_MAP: Kind = Kind { api_version: "v1", name: "ConfigMap", plural: "configmaps" };

#[tokio::test]
async fn every_version_of_an_object_is_kept_until_it_is_forgotten() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace("history").await;
    // The controllers put a ConfigMap of their own into each namespace.
    let is_ours = |object: &Value| {
        let metadata = &object["metadata"];
        metadata["namespace"] == namespace.as_str() && metadata["name"] != "kube-root-ca.crt"
    };
    let map = |name: &str, value: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name }, "data": { "k": value },
        })
    };
    let hand = Hand::new(plane, "somebody").await;
    hand.create(CONFIG_MAP, &namespace, &map("before", "1")).await.unwrap();
    let history = History::follow(plane, &[CONFIG_MAP]).await;
    let live =
        |name: &str| history.live().get(&(CONFIG_MAP, namespace.clone(), name.to_owned())).cloned();
    let first = live("before").unwrap();
    let mark = history.mark();

    hand.create(CONFIG_MAP, &namespace, &map("a", "1")).await.unwrap();
    hand.merge(CONFIG_MAP, &namespace, "a", &json!({ "data": { "k": "2" } })).await.unwrap();
    hand.named("another").apply(CONFIG_MAP, &namespace, "a", &map("a", "3")).await.unwrap();
    hand.delete(CONFIG_MAP, &namespace, "before").await.unwrap();
    hand.delete(CONFIG_MAP, &namespace, "a").await.unwrap();
    wait_for("the end", Duration::from_secs(30), async || live("a").is_none().then_some(())).await;

    let mut ours = history.since(mark);
    ours.retain(|(_, version)| is_ours(&version.object));
    let value = |version: &Version| version.object["data"]["k"].as_str().unwrap().to_owned();
    let told: Vec<_> = ours
        .iter()
        .map(|(before, now)| (before.as_ref().map(value), value(now), now.deleted))
        .collect();
    let said = |before: Option<&str>, now: &str, deleted| {
        (before.map(str::to_owned), now.to_owned(), deleted)
    };
    assert_eq!(
        told,
        [
            said(None, "1", false),
            said(Some("1"), "2", false),
            said(Some("2"), "3", false),
            said(Some("1"), "1", true),
            said(Some("3"), "3", true),
        ]
    );
    let (before, end) = (ours[4].0.clone().unwrap(), &ours[4].1);
    assert_eq!(history.at(before.uid(), before.number).as_ref(), Some(&before));
    let live_at = |number: u64| -> Vec<_> {
        let live = history.live_at(number).into_iter();
        live.filter(|v| is_ours(&v.object)).map(|v| v.number).collect()
    };
    assert_eq!(live_at(first.number), [first.number]);
    assert_eq!(live_at(before.number).len(), 2, "the deletion of the other came later");
    assert_eq!(live_at(end.number), [0; 0]);

    history.caught_up().await;
    history.forget();
    assert_eq!(history.at(before.uid(), before.number), None);
    let refused = hand.delete(CONFIG_MAP, &namespace, "a").await.unwrap_err();
    assert_eq!(refused.code, 404, "{refused}");
    assert!(!hand.list(CONFIG_MAP).await.unwrap().iter().any(is_ours));
    assert_eq!(hand.get(CONFIG_MAP, &namespace, "a").await, Ok(None));
}
