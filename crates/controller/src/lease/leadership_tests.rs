use std::sync::atomic::{AtomicU32, Ordering};

use futures::Stream;
use plumb_core::ErrorClass;
use plumb_engine::Refusal;
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::lease::Settings;

const SECOND: Duration = Duration::from_secs(1);

/// A Lease in memory, behind a server that can be made to fail.
#[derive(Default)]
struct Fake {
    lease: Mutex<(Option<Value>, u64)>,
    requests: AtomicU32,
    fault: Mutex<Fault>,
    /// Counts the writes, for who watches.
    written: watch::Sender<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Fault {
    #[default]
    None,
    /// Nothing is answered.
    Hangs,
    /// Writes are done, but nothing is answered.
    Loses,
    /// Everything is refused.
    Forbids,
}

fn refused(code: u16, reason: &str) -> ApiError {
    ApiError::Refused(Box::new(Refusal {
        operation: "replace",
        subject: "Lease.coordination.k8s.io plumb-system/plumb".into(),
        code,
        reason: reason.into(),
        message: "refused".into(),
        causes: Vec::new(),
        about: (String::new(), String::new()),
        retry_after: None,
        class: ErrorClass::Retry,
        busy: false,
    }))
}

impl Fake {
    async fn answer<T>(&self, act: impl FnOnce() -> Result<T, ApiError>) -> Result<T, ApiError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let fault = *lock(&self.fault);
        match fault {
            Fault::None => act(),
            Fault::Forbids => Err(refused(403, "Forbidden")),
            Fault::Loses => {
                let _ = act();
                std::future::pending().await
            }
            Fault::Hangs => std::future::pending().await,
        }
    }

    fn put(&self, lease: &Value) -> Value {
        let mut stored = lock(&self.lease);
        stored.1 += 1;
        let mut lease = lease.clone();
        lease["metadata"]["resourceVersion"] = json!(stored.1.to_string());
        stored.0 = Some(lease.clone());
        self.written.send_replace(stored.1);
        lease
    }

    fn holder(&self) -> String {
        let stored = lock(&self.lease);
        let holder = stored.0.as_ref().map(|lease| &lease["spec"]["holderIdentity"]);
        holder.and_then(Value::as_str).unwrap_or("-").to_owned()
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }

    fn set(&self, fault: Fault) {
        *lock(&self.fault) = fault;
    }
}

impl LeaseStore for Arc<Fake> {
    async fn read(&self) -> Result<Option<Value>, ApiError> {
        self.answer(|| Ok(lock(&self.lease).0.clone())).await
    }

    async fn create(&self, lease: &Value) -> Result<Value, ApiError> {
        self.answer(|| {
            if lock(&self.lease).0.is_some() {
                return Err(refused(409, "AlreadyExists"));
            }
            Ok(self.put(lease))
        })
        .await
    }

    async fn replace(&self, lease: &Value) -> Result<Value, ApiError> {
        self.answer(|| {
            let known = lock(&self.lease).0.clone();
            let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
            match known {
                None => Err(refused(404, "NotFound")),
                Some(known) if version(&known) != version(lease) => Err(refused(409, "Conflict")),
                Some(_) => Ok(self.put(lease)),
            }
        })
        .await
    }

    fn changes(&self) -> impl Stream<Item = ()> + Send {
        futures::stream::unfold(self.written.subscribe(), |mut written| async move {
            written.changed().await.ok()?;
            Some(((), written))
        })
    }
}

/// A replica that runs for leadership.
struct Replica {
    leadership: Leadership,
    state: watch::Receiver<LeaderState>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(name: &'static str, store: &Arc<Fake>) -> Self {
        let leadership = Leadership::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let (store, handle) = (Arc::clone(store), leadership.clone());
        let settings = Settings::new(SECOND * 15, SECOND * 4);
        let task = tokio::spawn(async move {
            let elector = Elector::new(name, settings);
            let stopped = async {
                let _ = stopped.await;
            };
            run(&store, elector, &handle, stopped).await;
        });
        Self { state: leadership.subscribe(), leadership, stop: Some(stop), task }
    }

    /// Waits until it leads and says in which epoch, and after how many seconds.
    async fn leads(&mut self) -> (u64, u64) {
        let start = now();
        let state = self.state.wait_for(|state| matches!(state, LeaderState::Leading { .. }));
        match *state.await.unwrap() {
            LeaderState::Leading { epoch } => (epoch, (now() - start).as_secs()),
            LeaderState::Standby { .. } => unreachable!("waited for"),
        }
    }

    async fn stands_by(&mut self) -> u64 {
        let start = now();
        let state = self.state.wait_for(|state| matches!(state, LeaderState::Standby { .. }));
        state.await.unwrap();
        (now() - start).as_secs()
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_leads_at_once_and_a_release_hands_over() {
    let store = Arc::new(Fake::default());
    let mut first = Replica::start("first", &store);
    assert_eq!(first.leads().await, (1, 0));
    assert_eq!(first.leadership.epoch(), Some(1));
    let mut second = Replica::start("second", &store);
    tokio::time::sleep(SECOND * 61).await;
    let holder = Some("first".to_owned());
    assert_eq!(*second.state.borrow(), LeaderState::Standby { holder });
    assert!(!second.leadership.admit(Duration::ZERO));
    assert!(first.leadership.admit(SECOND * 4));

    let gate = first.leadership.clone();
    first.stop().await;
    assert!(!gate.admit(Duration::ZERO));
    let (epoch, after) = second.leads().await;
    assert_eq!(epoch, 2);
    assert_eq!(after, 0, "it is told of it");
    assert_eq!(store.holder(), "second");
}

#[tokio::test(start_paused = true)]
async fn an_hour_costs_a_renewal_a_period_and_a_look_of_a_standby_at_each() {
    let store = Arc::new(Fake::default());
    let mut first = Replica::start("first", &store);
    first.leads().await;
    let _second = Replica::start("second", &store);
    let before = store.requests();
    tokio::time::sleep(SECOND * 3600).await;
    let sent = store.requests() - before;
    assert!((1436..=1444).contains(&sent), "{sent} requests");
    assert_eq!(*first.state.borrow(), LeaderState::Leading { epoch: 1 });
}

#[tokio::test(start_paused = true)]
async fn the_gate_closes_on_time_when_the_server_hangs() {
    let store = Arc::new(Fake::default());
    let mut first = Replica::start("first", &store);
    first.leads().await;
    let start = now();
    store.set(Fault::Hangs);
    tokio::time::sleep(SECOND * 11).await;
    assert!(first.leadership.admit(SECOND * 4), "four seconds are left");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!first.leadership.admit(SECOND * 4));
    assert!(first.leadership.admit(SECOND * 3));
    first.stands_by().await;
    assert_eq!((now() - start).as_secs(), 15);
    assert_eq!(first.leadership.epoch(), None);
    assert!(first.leadership.problem().unwrap().contains("no answer"));

    store.set(Fault::None);
    let (epoch, after) = first.leads().await;
    assert_eq!(epoch, 2);
    assert!(after <= 10);
    assert_eq!(first.leadership.problem(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_costs_nothing_but_a_read() {
    let store = Arc::new(Fake::default());
    let mut first = Replica::start("first", &store);
    first.leads().await;
    store.set(Fault::Loses);
    tokio::time::sleep(SECOND * 6).await;
    store.set(Fault::None);
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(*first.state.borrow(), LeaderState::Leading { epoch: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_told() {
    let store = Arc::new(Fake::default());
    store.set(Fault::Forbids);
    let first = Replica::start("first", &store);
    tokio::time::sleep(SECOND * 60).await;
    let problem = first.leadership.problem().unwrap();
    assert!(problem.contains("cannot replace Lease"), "{problem}");
    let requests = store.requests();
    assert!((11..=14).contains(&requests), "{requests} requests");
    store.set(Fault::None);
    let mut first = first;
    assert_eq!(first.leads().await.0, 1);
    first.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_is_dropped_closes_the_gate() {
    let store = Arc::new(Fake::default());
    let mut first = Replica::start("first", &store);
    first.leads().await;
    first.task.abort();
    first.stands_by().await;
    assert!(!first.leadership.admit(Duration::ZERO));
    assert_eq!(store.holder(), "first", "not released");

    let mut second = Replica::start("second", &store);
    let (epoch, after) = second.leads().await;
    assert_eq!(epoch, 2);
    assert!((15..=16).contains(&after), "after {after} s");
}

#[tokio::test(start_paused = true)]
async fn a_standby_leads_within_the_lease_and_a_twentieth_of_it_after_the_last_renewal() {
    let store = Arc::new(Fake::default());
    let mut first = Replica::start("first", &store);
    first.leads().await;
    let mut second = Replica::start("second", &store);
    tokio::time::sleep(SECOND * 60 + Duration::from_millis(1)).await;
    first.task.abort();
    let killed = now();
    assert_eq!(second.leads().await.0, 2);
    let after = now() - killed;
    assert!(after > SECOND * 15 && after < SECOND * 16, "after {after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_release_gives_up_on_a_server_that_hangs() {
    let store = Arc::new(Fake::default());
    let mut first = Replica::start("first", &store);
    first.leads().await;
    store.set(Fault::Hangs);
    let start = now();
    first.stop().await;
    assert!(now() - start <= SECOND * 16);
}
