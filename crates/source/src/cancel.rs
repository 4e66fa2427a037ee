//! Lets another thread end a blocking call.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::SourceError;

/// A switch that ends the calls it was given to, at once, also in the middle of a read. Clones
/// are the same switch. It cannot be reset.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Shared>);

type Wake = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    wakes: Mutex<Wakes>,
}

#[derive(Default)]
struct Wakes {
    next: u64,
    by_id: BTreeMap<u64, Wake>,
}

impl Cancel {
    /// A switch that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the calls that use this switch, now and later, with [`SourceError::Cancelled`].
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        // Called outside the lock: a wake takes locks of its own.
        let wakes: Vec<Wake> = lock(&self.0.wakes).by_id.values().cloned().collect();
        for wake in wakes {
            wake();
        }
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn check(&self) -> Result<(), SourceError> {
        if self.is_cancelled() {
            return Err(SourceError::Cancelled);
        }
        Ok(())
    }

    /// Calls `wake` on cancellation, at once when that has already happened, until the returned
    /// value is dropped.
    pub(crate) fn on_cancel(&self, wake: impl Fn() + Send + Sync + 'static) -> Watch {
        let wake: Wake = Arc::new(wake);
        let mut wakes = lock(&self.0.wakes);
        let id = wakes.next;
        wakes.next += 1;
        wakes.by_id.insert(id, wake.clone());
        drop(wakes);
        if self.is_cancelled() {
            wake();
        }
        Watch { cancel: self.clone(), id }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

/// A registration with a [`Cancel`].
pub(crate) struct Watch {
    cancel: Cancel,
    id: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.cancel.0.wakes).by_id.remove(&self.id);
    }
}

/// Locks, also when a panic elsewhere left the lock poisoned: every value behind our locks is
/// whole at any moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn wakes_while_registered_and_when_late() {
        let count = Arc::new(AtomicU32::new(0));
        let wake = |count: &Arc<AtomicU32>| {
            let count = count.clone();
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let cancel = Cancel::new();
        drop(cancel.on_cancel(wake(&count)));
        let _kept = cancel.on_cancel(wake(&count));
        assert!(cancel.check().is_ok());
        cancel.clone().cancel();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let _late = cancel.on_cancel(wake(&count));
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert!(matches!(cancel.check(), Err(SourceError::Cancelled)));
    }
}
