use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::*;
use Lane::{Drift, Routine, Urgent};

const SECOND: Duration = Duration::from_secs(1);

/// Takes and finishes everything that is due.
fn drained(queue: &mut Queue<&'static str>, now: Instant) -> Vec<&'static str> {
    std::iter::from_fn(|| {
        let key = queue.next(now)?;
        queue.done(&key);
        Some(key)
    })
    .collect()
}

#[test]
fn keys_come_out_once_in_the_order_they_were_added() {
    let now = Instant::now();
    let mut queue = Queue::default();
    for key in ["a", "b", "a", "c", "b"] {
        queue.add(key, Urgent);
    }
    assert_eq!(queue.len(), 3);
    assert_eq!(drained(&mut queue, now), ["a", "b", "c"]);
    assert_eq!(queue.next(now), None);
    assert!(queue.entries.is_empty(), "an idle key costs nothing");
}

#[test]
fn a_key_added_while_it_runs_runs_once_more() {
    let now = Instant::now();
    let mut queue = Queue::default();
    queue.add("a", Urgent);
    assert_eq!(queue.next(now), Some("a"));
    queue.add("a", Urgent);
    queue.add("a", Routine);
    queue.add("b", Urgent);
    assert_eq!(queue.next(now), Some("b"), "a is being worked on");
    assert_eq!(queue.next(now), None);
    queue.done(&"a");
    assert_eq!(queue.next(now), Some("a"));
    queue.done(&"a");
    queue.done(&"a");
    assert_eq!(queue.next(now), None);
    assert_eq!(queue.running(), 1, "b; done twice counts once");
}

#[test]
fn the_earliest_time_wins_and_an_add_overrides_it() {
    let start = Instant::now();
    let at = |seconds: u32| start + SECOND * seconds;
    let mut queue = Queue::default();
    queue.add_at("a", at(9), Routine);
    queue.add_at("a", at(3), Routine);
    queue.add_at("a", at(5), Routine);
    queue.add_at("b", at(2), Routine);
    queue.add_at("c", at(4), Routine);
    assert_eq!(queue.next_deadline(), Some(at(2)));
    assert_eq!(queue.delayed(), 3);
    assert_eq!(queue.next(at(1)), None);
    assert_eq!(drained(&mut queue, at(3)), ["b", "a"]);
    queue.add("c", Urgent);
    queue.add_at("c", at(1), Routine);
    assert_eq!(queue.next_deadline(), None);
    assert_eq!(drained(&mut queue, at(3)), ["c"]);
}

#[test]
fn a_time_given_while_the_key_runs_counts_after_the_run() {
    let start = Instant::now();
    let mut queue = Queue::default();
    queue.add("a", Urgent);
    assert_eq!(queue.next(start), Some("a"));
    queue.add_at("a", start + SECOND, Routine);
    assert_eq!(queue.next_deadline(), None, "not while it runs");
    assert_eq!(queue.next(start + SECOND * 2), None);
    queue.done(&"a");
    assert_eq!(queue.next_deadline(), Some(start + SECOND));
    assert_eq!(queue.next(start + SECOND), Some("a"));
}

#[test]
fn urgent_keys_go_first_but_never_for_ever() {
    let now = Instant::now();
    let mut queue = Queue::default();
    queue.add(1000, Routine);
    queue.add(1001, Routine);
    queue.add(1001, Urgent);
    for key in 0..20 {
        queue.add(key, Urgent);
    }
    let order: Vec<u32> = std::iter::from_fn(|| queue.next(now)).collect();
    assert_eq!(order[0], 1001, "moved to the urgent lane");
    assert_eq!(order[8], 1000, "the ninth is the routine one");
    assert_eq!(order.len(), 22);
}

/// Named after what it was before: an edit of what waits for its turn in a commit to all waited with it.
#[test]
fn what_somebody_changed_goes_before_a_commit_to_all_and_does_not_stop_it() {
    let now = Instant::now();
    let mut queue = Queue::default();
    for key in 0..100 {
        queue.add(key, Urgent);
    }
    queue.add(99, Drift);
    assert_eq!(queue.next(now), Some(99));
    for key in 200..300 {
        queue.add(key, Drift);
    }
    queue.add(1000, Routine);
    let order: Vec<u32> = std::iter::from_fn(|| queue.next(now)).collect();
    let first = |found: &dyn Fn(&u32) -> bool| order.iter().position(found).unwrap();
    assert_eq!(first(&|key| *key < 100), 8, "a part of the commit goes on");
    assert!(first(&|key| *key == 1000) < 12, "{order:?}");
    assert_eq!(order.iter().take(90).filter(|key| **key >= 200).count(), 80);
    assert_eq!(order.len(), 200);
}

#[test]
fn a_removed_key_is_forgotten() {
    let start = Instant::now();
    let mut queue = Queue::default();
    queue.add("now", Urgent);
    queue.add_at("later", start + SECOND, Urgent);
    queue.add("running", Urgent);
    queue.remove(&"now");
    queue.remove(&"later");
    assert_eq!(queue.next(start + SECOND), Some("running"));
    queue.add("running", Urgent);
    queue.remove(&"running");
    queue.done(&"running");
    assert_eq!(queue.next(start + SECOND), None);
    assert_eq!(queue.next_deadline(), None);
    assert!(queue.entries.is_empty());
}

/// Random adds, takes and ends against a model: a key that was asked for is worked on afterwards,
/// and never by two workers at once.
#[test]
fn no_key_is_lost_and_none_runs_twice_at_once() {
    for seed in 0..200 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let start = Instant::now();
        let mut now = start;
        let mut queue = Queue::default();
        // For each key, the earliest time at which it must be taken, if it is wanted.
        let mut owed: HashMap<u8, Instant> = HashMap::new();
        let mut running: HashSet<u8> = HashSet::new();
        for _ in 0..500 {
            let key = random.u8(0..8);
            let lane = [Drift, Urgent, Routine][random.usize(0..3)];
            match random.u8(0..10) {
                0..3 => {
                    queue.add(key, lane);
                    owed.insert(key, start);
                }
                3..5 => {
                    let when = now + SECOND * random.u32(0..20);
                    queue.add_at(key, when, lane);
                    let due = owed.entry(key).or_insert(when);
                    *due = when.min(*due);
                }
                5..7 => now += SECOND * random.u32(0..5),
                7..9 => {
                    if let Some(key) = queue.next(now) {
                        assert!(running.insert(key), "key {key} runs twice");
                        let due = owed.remove(&key).expect("only wanted keys are taken");
                        assert!(due <= now, "key {key} is taken before its time");
                    } else {
                        let late =
                            owed.iter().find(|(key, due)| **due <= now && !running.contains(*key));
                        assert_eq!(late, None, "a due key is not taken");
                    }
                }
                _ => {
                    if let Some(key) = running.iter().next().copied() {
                        running.remove(&key);
                        queue.done(&key);
                    }
                }
            }
            assert_eq!(queue.running(), running.len());
        }
        for key in running {
            queue.done(&key);
        }
        now += SECOND * 100;
        while let Some(key) = queue.next(now) {
            owed.remove(&key).expect("only wanted keys are taken");
            queue.done(&key);
        }
        assert_eq!(owed, HashMap::new(), "keys are lost");
        assert!(queue.entries.is_empty());
        assert_eq!((queue.len(), queue.delayed(), queue.running()), (0, 0, 0));
    }
}

const OPTIONS: RunOptions = RunOptions { concurrency: 3, drain: Duration::from_secs(10) };

fn no_panics<K: std::fmt::Debug>(key: &K) {
    unreachable!("key {key:?}");
}

#[tokio::test(start_paused = true)]
async fn workers_are_bounded_and_every_key_is_worked_on() {
    let handle = QueueHandle::default();
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (worked, mut seen) = mpsc::unbounded_channel();
    for key in 0..20_u32 {
        handle.add(key, Urgent);
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = |key| {
        let (busy, most, worked) = (Arc::clone(&busy), Arc::clone(&most), worked.clone());
        async move {
            most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(SECOND).await;
            busy.fetch_sub(1, Ordering::SeqCst);
            worked.send(key).unwrap();
        }
    };
    let stopped = async {
        let _ = stopped.await;
    };
    let watch = async {
        let mut keys = HashSet::new();
        while keys.len() < 20 {
            assert!(keys.insert(seen.recv().await.unwrap()));
        }
        stop.send(()).unwrap();
    };
    let (ended, ()) = tokio::join!(run(&handle, OPTIONS, worker, no_panics, stopped), watch);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(ended.cut_off, 0);
    assert!(handle.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_delayed_key_wakes_the_loop_and_an_earlier_one_wakes_it_earlier() {
    let handle = QueueHandle::default();
    handle.add_after(1_u32, SECOND * 100, Routine);
    let (worked, mut seen) = mpsc::unbounded_channel();
    let start = now();
    let worker = move |key| {
        let worked = worked.clone();
        async move { worked.send((key, now() - start)).unwrap() }
    };
    let watch = async {
        tokio::time::sleep(SECOND).await;
        handle.add_after(2, SECOND * 4, Routine);
        handle.add(3, Urgent);
        let mut all = Vec::new();
        for _ in 0..3 {
            let (key, after) = seen.recv().await.unwrap();
            all.push((key, after.as_secs()));
        }
        assert_eq!(all, [(3, 1), (2, 5), (1, 100)]);
    };
    run(&handle, OPTIONS, worker, no_panics, watch).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_reported_and_the_rest_goes_on() {
    let handle = QueueHandle::default();
    for key in 0..4_u32 {
        handle.add(key, Urgent);
    }
    let (worked, mut seen) = mpsc::unbounded_channel();
    let worker = |key| {
        let worked = worked.clone();
        async move {
            assert!(key != 1, "key {key} is bad");
            worked.send(key).unwrap();
        }
    };
    let panics = Mutex::new(Vec::new());
    let on_panic = |key: &u32| {
        panics.lock().unwrap().push(*key);
        // A callback may ask for a retry.
        handle.add(key + 10, Urgent);
    };
    let watch = async {
        let mut keys = HashSet::new();
        for _ in 0..4 {
            keys.insert(seen.recv().await.unwrap());
        }
        assert_eq!(keys, HashSet::from([0, 2, 3, 11]));
    };
    run(&handle, OPTIONS, worker, on_panic, watch).await;
    assert_eq!(*panics.lock().unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_runs_up_to_the_deadline_and_keeps_the_keys() {
    let handle = QueueHandle::default();
    // Key n works n seconds; the fourth waits for a free worker.
    for key in [5_u32, 8, 100, 1] {
        handle.add(key, Urgent);
    }
    let (worked, mut seen) = mpsc::unbounded_channel();
    let worker = |key: u32| {
        let worked = worked.clone();
        async move {
            tokio::time::sleep(SECOND * key).await;
            worked.send(key).unwrap();
        }
    };
    let start = now();
    let stop = tokio::time::sleep(SECOND * 2);
    let ended = run(&handle, OPTIONS, worker, no_panics, stop).await;
    assert_eq!((now() - start).as_secs(), 12, "2 and the 10 of the deadline");
    assert_eq!(ended, Drained { finished: 2, cut_off: 1 });
    assert_eq!((handle.len(), handle.running()), (2, 0));

    // The same queue goes on where it was stopped.
    let watch = async {
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(seen.recv().await.unwrap());
        }
        assert_eq!(all, [5, 8, 1, 100]);
    };
    run(&handle, OPTIONS, worker, no_panics, watch).await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_is_dropped_gives_its_keys_back() {
    let handle = QueueHandle::default();
    handle.add(1_u32, Urgent);
    let worker = |_| std::future::pending();
    let endless = run(&handle, OPTIONS, worker, no_panics, std::future::pending());
    assert!(tokio::time::timeout(SECOND, endless).await.is_err());
    assert_eq!((handle.len(), handle.running()), (1, 0));
}
