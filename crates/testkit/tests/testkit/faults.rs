use futures::{AsyncBufReadExt, TryStreamExt};
use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use plumb_testkit::{ControlPlane, Fault, Match, Proxy, Rule, wait_for};
use serde_json::json;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
/// Long enough to see that nothing comes, short enough not to be felt.
const MOMENT: Duration = Duration::from_millis(300);

struct Setup {
    proxy: Proxy,
    client: Client,
    namespace: String,
}

/// A proxy to the shared control plane and a client behind it that tries nothing twice.
async fn setup(name: &str) -> Setup {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace(name).await;
    let identity = plane.service_account(&namespace, "client", "cluster-admin").await;
    let proxy = Proxy::to_api(plane, 42).await;
    let file = Kubeconfig::read_from(identity.through(&proxy.url())).unwrap();
    let mut config =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    Setup { proxy, client: Client::try_from(config).unwrap(), namespace }
}

impl Setup {
    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    async fn create(&self, name: &str) -> Result<ConfigMap, kube::Error> {
        let map = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        Api::namespaced(self.client.clone(), &self.namespace)
            .create(&PostParams::default(), &map)
            .await
    }

    /// Past the proxy.
    async fn exists(&self, name: &str) -> bool {
        let client = ControlPlane::shared().await.client().await;
        let maps: Api<ConfigMap> = Api::namespaced(client, &self.namespace);
        maps.get_opt(name).await.unwrap().is_some()
    }

    fn watch(&self) -> Request<Vec<u8>> {
        Request::get(format!("{}?watch=true", self.path())).body(Vec::new()).unwrap()
    }
}

#[tokio::test]
async fn requests_and_responses_are_recorded() {
    let setup = setup("recorded").await;
    let secret = serde_json::from_value::<Secret>(
        json!({ "metadata": { "name": "s" }, "data": { "password": "aHVudGVyMg==" } }),
    )
    .unwrap();
    let admin = ControlPlane::shared().await.client().await;
    Api::namespaced(admin, &setup.namespace).create(&PostParams::default(), &secret).await.unwrap();
    setup.create("a").await.unwrap();
    assert_eq!(setup.proxy.leaks("aHVudGVyMg=="), [""; 0], "nobody has asked for it");

    let mark = setup.proxy.mark();
    let secrets: Api<Secret> = Api::namespaced(setup.client.clone(), &setup.namespace);
    secrets.get("s").await.unwrap();
    let leaks = setup.proxy.leaks("aHVudGVyMg==");
    let path = format!("/api/v1/namespaces/{}/secrets/s", setup.namespace);
    assert_eq!(leaks, [format!("GET {path} -> 200")]);
    assert_eq!(setup.proxy.since(mark).len(), 1);

    let created = &setup.proxy.exchanges()[mark - 1];
    assert_eq!((created.request.method.as_str(), created.status), ("POST", Some(201)));
    assert_eq!(created.request.path, setup.path());
    assert!(String::from_utf8_lossy(&created.request.body).contains("\"name\":\"a\""));
    wait_for("the end of the response", LIMIT, || async {
        setup.proxy.exchanges()[mark - 1].complete.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_watch_streams_is_recorded_and_can_be_cut() {
    let setup = setup("watched").await;
    let mut lines = Box::pin(setup.client.request_stream(setup.watch()).await.unwrap()).lines();
    setup.create("first").await.unwrap();
    // Every namespace has kube-root-ca.crt, before or after.
    while !lines.try_next().await.unwrap().unwrap().contains("\"first\"") {}
    let watch = Match::any().query("watch=true");
    let seen = setup.proxy.exchanges();
    let recorded = seen.iter().find(|exchange| exchange.request.query == "watch=true").unwrap();
    assert!(String::from_utf8_lossy(&recorded.response).contains("\"first\""));
    assert!(!recorded.complete);

    assert_eq!(setup.proxy.cut_open(&Match::any().path("/secrets")), 0);
    assert_eq!(setup.proxy.cut_open(&watch), 1);
    while let Ok(line) = lines.try_next().await {
        assert!(line.is_some(), "a cut watch must not end as if it were whole");
    }
    assert_eq!(setup.proxy.cut_open(&watch), 0);
}

#[tokio::test]
async fn statuses_are_injected_so_often() {
    let setup = setup("status").await;
    let overload = Fault::Status { code: 429, retry_after: Some(7) };
    let rule = setup.proxy.add(Rule::new(Match::method("POST"), overload).times(2));
    for _ in 0..2 {
        let kube::Error::Api(status) = setup.create("a").await.unwrap_err() else { panic!() };
        assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    }
    setup.create("a").await.unwrap();
    assert_eq!(setup.proxy.hits(rule), 2);

    for code in [500, 503] {
        let rule = Rule::new(Match::any(), Fault::Status { code, retry_after: None });
        let rule = setup.proxy.add(rule);
        let kube::Error::Api(status) = setup.create("b").await.unwrap_err() else { panic!() };
        assert_eq!(status.code, code);
        setup.proxy.remove(rule);
    }
    let nonsense = Fault::Answer { code: 201, body: "no object".to_owned() };
    let rule = setup.proxy.add(Rule::new(Match::method("POST"), nonsense));
    assert!(matches!(setup.create("b").await.unwrap_err(), kube::Error::SerdeError(_)));
    setup.proxy.remove(rule);
    assert!(!setup.exists("b").await);
    setup.proxy.add(Rule::new(Match::any().query("watch=true"), Fault::Expired));
    let mut lines = Box::pin(setup.client.request_stream(setup.watch()).await.unwrap()).lines();
    let event = lines.try_next().await.unwrap().unwrap();
    assert!(event.contains("\"ERROR\"") && event.contains("410"), "{event}");
    assert!(lines.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn cuts_come_before_after_and_within() {
    let setup = setup("cut").await;
    for (name, fault, done) in
        [("before", Fault::CutBefore, false), ("after", Fault::CutAfter, true)]
    {
        let rule = setup.proxy.add(Rule::new(Match::any().body(name), fault));
        setup.create(name).await.unwrap_err();
        assert_eq!(setup.exists(name).await, done, "{name}");
        setup.proxy.remove(rule);
    }
    let get = || Request::get(format!("{}/after", setup.path())).body(Vec::new()).unwrap();
    let whole = setup.client.request_text(get()).await.unwrap();
    setup.proxy.add(Rule::new(Match::method("GET"), Fault::CutBody(20)));
    setup.client.request_text(get()).await.unwrap_err();
    let cut = setup.proxy.exchanges().pop().unwrap();
    assert_eq!(cut.response, whole.as_bytes()[..20]);
    assert!(!cut.complete);
    setup.proxy.clear();
    setup.proxy.add(Rule::new(Match::method("GET"), Fault::EndBody(20)));
    assert_eq!(setup.client.request_text(get()).await.unwrap(), whole[..20]);
    assert!(setup.proxy.exchanges().pop().unwrap().complete);
    setup.proxy.clear();
    setup.proxy.add(Rule::new(Match::method("GET"), Fault::Damage(1)));
    let damaged = setup.client.request_text(get()).await.unwrap();
    let changed: Vec<usize> =
        (0..whole.len()).filter(|at| whole.as_bytes()[*at] != damaged.as_bytes()[*at]).collect();
    assert_eq!((changed, damaged.len()), (vec![1], whole.len()));
}

#[tokio::test]
async fn answers_of_its_own_are_what_was_said_or_sent() {
    let setup = setup("own").await;
    let get = || {
        let request = Request::get(setup.path()).header("authorization", "Bearer hunter2");
        setup.client.send(request.body(kube::client::Body::empty()).unwrap())
    };
    let headers = vec![("location", "/there".to_owned())];
    let moved = Fault::Respond { code: 302, headers, body: b"moved".to_vec() };
    setup.proxy.add(Rule::new(Match::any(), moved));
    let response = get().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["location"]),
        (302, &"/there".parse().unwrap())
    );
    setup.proxy.clear();
    setup.proxy.add(Rule::new(Match::any(), Fault::Quote { code: 500 }));
    let response = get().await.unwrap();
    assert_eq!(response.status().as_u16(), 500);
    let body = response.into_body().collect_bytes().await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let length = usize::from_str_radix(&text[..4], 16).unwrap();
    assert_eq!(length, text.len(), "{text}");
    assert!(text[4..].starts_with("ERR Bearer "), "{text}");
}

#[tokio::test]
async fn a_watch_that_lags_tells_of_everything_later() {
    let setup = setup("lag").await;
    setup.proxy.add(Rule::new(Match::any().query("watch=true"), Fault::Lag(MOMENT)));
    let mut lines = Box::pin(setup.client.request_stream(setup.watch()).await.unwrap()).lines();
    setup.create("late").await.unwrap();
    let start = Instant::now();
    while !lines.try_next().await.unwrap().unwrap().contains("\"late\"") {}
    // The answer to the creation may itself have come after the event.
    assert!(start.elapsed() >= MOMENT / 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn delays_stalls_and_partitions_hold_up() {
    let setup = setup("slow").await;
    let rule = setup.proxy.add(Rule::new(Match::method("POST"), Fault::Delay(MOMENT)));
    let start = Instant::now();
    setup.create("delayed").await.unwrap();
    assert!(start.elapsed() >= MOMENT);
    setup.proxy.remove(rule);

    let rule = setup.proxy.add(Rule::new(Match::method("POST"), Fault::Stall));
    let stalled = setup.create("stalled");
    tokio::pin!(stalled);
    assert!(tokio::time::timeout(MOMENT, &mut stalled).await.is_err());
    assert!(!setup.exists("stalled").await);
    setup.proxy.remove(rule);
    stalled.await.unwrap();

    let mut lines = Box::pin(setup.client.request_stream(setup.watch()).await.unwrap()).lines();
    setup.proxy.add(Rule::new(Match::any().body("partitioned"), Fault::Partition).times(1));
    let partitioned = setup.create("partitioned");
    tokio::pin!(partitioned);
    assert!(tokio::time::timeout(MOMENT, &mut partitioned).await.is_err());
    let admin = ControlPlane::shared().await.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(admin, &setup.namespace);
    let map = serde_json::from_value(json!({ "metadata": { "name": "unseen" } })).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let silence = async { while !lines.try_next().await.unwrap().unwrap().contains("unseen") {} };
    tokio::pin!(silence);
    assert!(tokio::time::timeout(MOMENT, &mut silence).await.is_err());
    setup.proxy.heal();
    silence.await;
    partitioned.await.unwrap();
}

#[tokio::test]
async fn a_stopped_proxy_refuses_and_comes_back() {
    let setup = setup("refused").await;
    setup.create("a").await.unwrap();
    setup.proxy.stop().await;
    setup.create("b").await.unwrap_err();
    setup.proxy.restart().await;
    setup.create("c").await.unwrap();
    assert!(!setup.exists("b").await);
}

#[tokio::test]
async fn a_hold_tells_and_waits() {
    let setup = setup("held").await;
    let mut hold = setup.proxy.hold(Match::method("POST").body("before"));
    let held = setup.create("before");
    tokio::pin!(held);
    tokio::select! {
        created = &mut held => panic!("not held: {created:?}"),
        seen = hold.arrived(LIMIT) => assert_eq!(seen.path, setup.path()),
    }
    setup.create("other").await.unwrap();
    assert!(!setup.exists("before").await);
    hold.release();
    held.await.unwrap();

    let mut hold = setup.proxy.hold_answer(Match::method("POST").body("after"));
    let mut held = Box::pin(setup.create("after"));
    tokio::select! {
        created = &mut held => panic!("not held: {created:?}"),
        _seen = hold.arrived(LIMIT) => {}
    }
    assert!(setup.exists("after").await);
    drop(hold);
    held.await.unwrap();

    // A client that dies while its request is held takes the request with it.
    let mut hold = setup.proxy.hold(Match::method("POST").body("dead"));
    let mut held = Box::pin(setup.create("dead"));
    tokio::select! {
        created = &mut held => panic!("not held: {created:?}"),
        _seen = hold.arrived(LIMIT) => {}
    }
    drop(held);
    let waiting = setup.proxy.mark();
    wait_for("the end of the dead client's connection", LIMIT, || async {
        (setup.proxy.open() == 0).then_some(())
    })
    .await;
    hold.release();
    setup.create("last").await.unwrap();
    assert_eq!(setup.proxy.since(waiting).len(), 1);
    assert!(!setup.exists("dead").await);
}
