//! How many requests are under way at once, as far as the API server lets us.
//!
//! A server that says 429 asks everybody to wait, not one request: who goes on beside the one that was
//! turned away would be turned away, too, and all that were would come back in the same moment. So one
//! 429 shuts the door for the time that it names and a little more, and half as many may come in
//! afterwards; each answer that is none lets a part of one more in. Each account has a door of its own,
//! as the server counts them apart, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::fields;

/// As many as all runs together have under way when nothing holds them up, with their statuses and
/// Events.
const WIDEST: f64 = 64.0;

/// What a pause is longer at most than the server asks for, as a part of it: so that replicas, and other
/// clients that were turned away in the same moment, do not come back with us.
const LATER: u32 = 4;

/// The decisions, without a clock.
#[derive(Debug)]
struct Window {
    width: f64,
    under_way: usize,
    /// Nobody comes in before this.
    shut: Option<Instant>,
    random: u64,
}

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Now,
    /// It may ask again then.
    At(Instant),
    /// It may ask again when another one has ended.
    WhenFree,
}

impl Window {
    fn new(seed: u64) -> Self {
        Self { width: WIDEST, under_way: 0, shut: None, random: seed }
    }

    fn ask(&mut self, now: Instant) -> Entry {
        if let Some(until) = self.shut.filter(|until| *until > now) {
            return Entry::At(until);
        }
        self.shut = None;
        #[expect(clippy::cast_precision_loss, reason = "some dozens")]
        let under_way = self.under_way as f64;
        if under_way >= self.width.floor() {
            return Entry::WhenFree;
        }
        self.under_way += 1;
        Entry::Now
    }

    /// A request was turned away, to come again after `wait`.
    fn busy(&mut self, now: Instant, wait: Duration) {
        // Those that were sent together with the first one tell nothing new.
        if self.shut.is_none_or(|until| until <= now) {
            self.width = (self.width / 2.0).max(1.0);
        }
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let most = u64::try_from((wait / LATER).as_millis()).unwrap_or_default();
        let later = Duration::from_millis(fields::combine(&[self.random]) % (most + 1));
        let until = now + wait + later;
        self.shut = Some(self.shut.map_or(until, |before| before.max(until)));
    }

    fn answered(&mut self) {
        self.width = (self.width + 1.0 / self.width).min(WIDEST);
    }

    fn ended(&mut self) {
        self.under_way -= 1;
    }
}

/// The doors that all requests of a [`Cluster`](super::Cluster) go through, but those of the Lease and
/// watches.
pub(super) struct Doors {
    own: Arc<Door>,
    others: Mutex<HashMap<Arc<str>, Arc<Door>>>,
    seed: u64,
}

impl Doors {
    pub(super) fn new(seed: u64) -> Self {
        Self { own: Arc::new(Door::new(seed)), others: Mutex::default(), seed }
    }

    /// The door of an account, our own when there is none.
    pub(super) fn of(&self, user: Option<&Arc<str>>) -> Arc<Door> {
        let Some(user) = user else { return Arc::clone(&self.own) };
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let door = others.entry(Arc::clone(user));
        let seed = self.seed ^ fields::text(user);
        Arc::clone(door.or_insert_with(|| Arc::new(Door::new(seed))))
    }
}

#[derive(Debug)]
pub(super) struct Door {
    window: Mutex<Window>,
    free: Notify,
}

/// One request under way.
pub(super) struct Inside(Arc<Door>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.window().ended();
        self.0.free.notify_one();
    }
}

impl Inside {
    /// The server answered something else than that it is busy.
    pub(super) fn answered(&self) {
        self.0.window().answered();
        // There may be room for one more than those that end.
        self.0.free.notify_one();
    }

    /// The server asks to come again after `wait`.
    pub(super) fn busy(&self, wait: Duration) {
        self.0.window().busy(Instant::now(), wait);
    }
}

impl Door {
    fn new(seed: u64) -> Self {
        Self { window: Mutex::new(Window::new(seed)), free: Notify::new() }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request may be sent.
    pub(super) async fn enter(self: &Arc<Self>) -> Inside {
        loop {
            let freed = self.free.notified();
            let entry = self.window().ask(Instant::now());
            match entry {
                Entry::Now => return Inside(Arc::clone(self)),
                Entry::At(until) => tokio::time::sleep_until(until).await,
                Entry::WhenFree => freed.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_is_turned_away_keeps_all_off_and_half_come_back() {
        let start = Instant::now();
        let mut window = Window::new(7);
        for _ in 0..64 {
            assert_eq!(window.ask(start), Entry::Now);
        }
        assert_eq!(window.ask(start), Entry::WhenFree);
        let second = Duration::from_secs(1);
        for _ in 0..10 {
            window.busy(start, second);
            window.ended();
        }
        let Entry::At(until) = window.ask(start) else { panic!("the door is open") };
        assert!(until >= start + second && until <= start + second + second / 4, "{until:?}");
        // Thirty-two may be under way now, and fifty-four are.
        assert_eq!(window.ask(until), Entry::WhenFree);
        for _ in 0..23 {
            window.ended();
        }
        assert_eq!(window.ask(until), Entry::Now);
        assert_eq!(window.ask(until), Entry::WhenFree);
        for _ in 0..33 {
            window.answered();
        }
        assert_eq!(window.ask(until), Entry::Now);
    }

    #[test]
    fn somebody_always_comes_in() {
        let now = Instant::now();
        let mut window = Window::new(7);
        let mut later = now;
        for _ in 0..20 {
            later += Duration::from_mins(1);
            window.busy(later, Duration::ZERO);
        }
        assert_eq!(window.ask(later + Duration::from_mins(1)), Entry::Now);
    }

    #[test]
    fn each_account_has_a_door_of_its_own() {
        let doors = Doors::new(7);
        let [one, other]: [Arc<str>; 2] = ["one".into(), "other".into()];
        assert!(Arc::ptr_eq(&doors.of(Some(&one)), &doors.of(Some(&one))));
        assert!(!Arc::ptr_eq(&doors.of(Some(&one)), &doors.of(Some(&other))));
        assert!(!Arc::ptr_eq(&doors.of(Some(&one)), &doors.of(None)));
    }

    /// Everybody who waits comes in, also when some of them give up.
    #[tokio::test(start_paused = true)]
    async fn whoever_waits_comes_in_although_others_give_up() {
        let door = Arc::new(Door::new(7));
        let inside: Vec<_> = futures::future::join_all((0..64).map(|_| door.enter())).await;
        let waiting: Vec<_> = (0..64)
            .map(|number| {
                let door = Arc::clone(&door);
                tokio::spawn(async move {
                    let patience = Duration::from_secs(if number % 2 == 0 { 1 } else { 3600 });
                    tokio::time::timeout(patience, async { drop(door.enter().await) }).await.is_ok()
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(inside);
        let came: Vec<_> = futures::future::join_all(waiting).await;
        assert_eq!(came.into_iter().filter(|came| *came.as_ref().unwrap()).count(), 32);
    }
}
