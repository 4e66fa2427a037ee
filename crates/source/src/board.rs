//! Who may do what with one mirror at a time: one writer, and one run for equal questions.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::cancel::lock;
use crate::concerns::WAITING;
use crate::{Cancel, SourceError};

/// Waiting for others, with a deadline and a switch.
pub(crate) struct Board<K, V> {
    state: Mutex<State<K, V>>,
    changed: Condvar,
}

struct State<K, V> {
    writing: bool,
    questions: HashMap<K, Question<V>>,
}

/// Calls that ask the same.
struct Question<V> {
    running: bool,
    /// The run that starts when the running one is over, and everybody who came meanwhile.
    next: Option<Arc<Answer<V>>>,
}

type Answer<V> = OnceLock<Result<V, SourceError>>;

impl<K: Clone + Eq + Hash + Send + 'static, V: Clone + Send + Sync + 'static> Board<K, V> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { writing: false, questions: HashMap::new() }),
            changed: Condvar::new(),
        })
    }

    /// Waits for the right to write.
    pub(crate) fn write(
        self: &Arc<Self>,
        cancel: &Cancel,
        deadline: Instant,
    ) -> Result<Writing<K, V>, SourceError> {
        let _watch = self.wake_on(cancel);
        let mut state = lock(&self.state);
        while state.writing {
            state = self.wait(state, cancel, deadline)?;
        }
        state.writing = true;
        Ok(Writing(self.clone()))
    }

    /// Answers a question by `run`, at most once at a time. Who asks while a run is under way
    /// shares the next one with all others who do: the running one may have looked before they
    /// asked, and who asks after a push must see that push.
    pub(crate) fn ask(
        self: &Arc<Self>,
        key: &K,
        cancel: &Cancel,
        deadline: Instant,
        run: impl Fn() -> Result<V, SourceError>,
    ) -> Result<V, SourceError> {
        let _watch = self.wake_on(cancel);
        let mut state = lock(&self.state);
        loop {
            let question = state.question(key);
            let answer = if question.running || question.next.is_some() {
                question.next.get_or_insert_default().clone()
            } else {
                let answer = Arc::default();
                question.next = Some(Arc::clone(&answer));
                answer
            };
            loop {
                let mine = state.questions.get_mut(key).filter(|question| {
                    let next = question.next.as_ref();
                    !question.running && next.is_some_and(|next| Arc::ptr_eq(next, &answer))
                });
                if let Some(question) = mine {
                    question.running = true;
                    question.next = None;
                    drop(state);
                    let running = Running { board: self, key, answer: &answer };
                    let result = run();
                    // Set only here, by the one run; an answer already given is not possible.
                    let _ = running.answer.set(result.clone());
                    return result;
                }
                match answer.get() {
                    // Whoever ran it gave up; that is no answer for us.
                    Some(Err(SourceError::Cancelled)) => break,
                    Some(result) => return result.clone(),
                    None => state = self.wait(state, cancel, deadline)?,
                }
            }
        }
    }

    fn wait<'s>(
        &self,
        state: MutexGuard<'s, State<K, V>>,
        cancel: &Cancel,
        deadline: Instant,
    ) -> Result<MutexGuard<'s, State<K, V>>, SourceError> {
        cancel.check()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SourceError::Timeout { doing: WAITING });
        }
        let (state, _) =
            self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        Ok(state)
    }

    fn wake_on(self: &Arc<Self>, cancel: &Cancel) -> crate::cancel::Watch {
        let board = self.clone();
        cancel.on_cancel(move || {
            // With the lock held nobody is between looking at the switch and waiting.
            let _state = lock(&board.state);
            board.changed.notify_all();
        })
    }
}

impl<K: Clone + Eq + Hash, V> State<K, V> {
    fn question(&mut self, key: &K) -> &mut Question<V> {
        self.questions.entry(key.clone()).or_insert(Question { running: false, next: None })
    }
}

/// The right to write; given back on drop.
pub(crate) struct Writing<K, V>(Arc<Board<K, V>>);

impl<K, V> Drop for Writing<K, V> {
    fn drop(&mut self) {
        lock(&self.0.state).writing = false;
        self.0.changed.notify_all();
    }
}

/// A run under way; over on drop, also by a panic.
struct Running<'b, K: Eq + Hash, V> {
    board: &'b Board<K, V>,
    key: &'b K,
    answer: &'b Answer<V>,
}

impl<K: Eq + Hash, V> Drop for Running<'_, K, V> {
    fn drop(&mut self) {
        // After a panic there is no answer; the others run it themselves.
        let _ = self.answer.set(Err(SourceError::Cancelled));
        let mut state = lock(&self.board.state);
        if let Some(question) = state.questions.get_mut(self.key) {
            question.running = false;
            if question.next.is_none() {
                state.questions.remove(self.key);
            }
        }
        drop(state);
        self.board.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn waiting<K, V>(board: &Board<K, V>, key: &K) -> usize
    where
        K: Eq + Hash,
    {
        let state = lock(&board.state);
        let next = state.questions.get(key).and_then(|q| q.next.as_ref());
        next.map_or(0, |next| Arc::strong_count(next) - 1)
    }

    fn wait_until(holds: impl Fn() -> bool) {
        let limit = soon();
        while !holds() {
            assert!(Instant::now() < limit, "waited in vain");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_asks_meanwhile_shares_the_next_run() {
        let board: Arc<Board<&str, u32>> = Board::new();
        let runs = AtomicU32::new(0);
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let cancel = Cancel::new();
        let ask = || {
            board.ask(&"main", &cancel, soon(), || {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                if run == 0 {
                    lock(&wait).recv().unwrap();
                }
                Ok(run)
            })
        };
        std::thread::scope(|scope| {
            // Gone when this ends too early: nobody waits for it then.
            let go = go;
            let first = scope.spawn(ask);
            wait_until(|| runs.load(Ordering::SeqCst) > 0);
            let others: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            wait_until(|| waiting(&board, &"main") == 8);
            // Another question is not held up.
            assert_eq!(board.ask(&"dev", &cancel, soon(), || Ok(9)).unwrap(), 9);
            go.send(()).unwrap();
            assert_eq!(first.join().unwrap().unwrap(), 0);
            for other in others {
                assert_eq!(other.join().unwrap().unwrap(), 1);
            }
        });
        assert!(lock(&board.state).questions.is_empty());
    }

    #[test]
    fn a_cancelled_or_panicked_run_is_taken_over() {
        let board: Arc<Board<(), u32>> = Board::new();
        for panics in [false, true] {
            let runs = AtomicU32::new(0);
            let (go, wait) = mpsc::channel::<()>();
            let wait = Mutex::new(wait);
            let (mine, theirs) = (Cancel::new(), Cancel::new());
            let ask = |cancel: &Cancel| {
                board.ask(&(), cancel, soon(), || {
                    if runs.fetch_add(1, Ordering::SeqCst) < 2 {
                        lock(&wait).recv().unwrap();
                        assert!(!panics, "as the test wants it");
                        return Err(SourceError::Cancelled);
                    }
                    Ok(7)
                })
            };
            std::thread::scope(|scope| {
                let go = go;
                let first = scope.spawn(|| ask(&mine));
                wait_until(|| runs.load(Ordering::SeqCst) > 0);
                let second = scope.spawn(|| ask(&mine));
                let third = scope.spawn(|| ask(&theirs));
                wait_until(|| waiting(&board, &()) == 2);
                go.send(()).unwrap();
                go.send(()).unwrap();
                let results = [second.join(), third.join()];
                let good = results.iter().filter(|r| matches!(r, Ok(Ok(7)))).count();
                assert!(good >= 1, "{results:?}");
                assert!(!matches!(first.join(), Ok(Ok(_))));
            });
        }
    }

    #[test]
    fn waiting_ends_by_cancel_and_by_deadline() {
        let board: Arc<Board<(), u32>> = Board::new();
        let held = board.write(&Cancel::new(), soon()).unwrap();
        let late = board.write(&Cancel::new(), Instant::now());
        assert!(matches!(late, Err(SourceError::Timeout { .. })));
        let cancel = Cancel::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| board.write(&cancel, soon()).map(|_| ()));
            cancel.cancel();
            assert!(matches!(waiter.join().unwrap(), Err(SourceError::Cancelled)));
        });
        drop(held);
        assert!(board.write(&Cancel::new(), soon()).is_ok());
    }
}
