//! Waiting on a condition instead of for a time.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

/// Between two looks: short enough that no test feels it, long enough for the API server.
const POLL: Duration = Duration::from_millis(50);

/// The result of one look at a condition.
pub trait Look {
    /// What is there once the condition holds.
    type Found;

    /// What was found, or what was seen instead.
    fn found(self) -> Result<Self::Found, String>;
}

impl<T> Look for Option<T> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Debug> Look for Result<T, E> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Looks until `look` finds something: `Some(value)`, or `Ok(value)` where the error tells what
/// was there instead.
///
/// # Panics
/// When `limit` has passed, with `what` and what was seen last.
pub async fn wait_for<L, F, A>(what: &str, limit: Duration, mut look: L) -> A::Found
where
    L: FnMut() -> F,
    F: Future<Output = A>,
    A: Look,
{
    let start = Instant::now();
    let mut seen = "nothing: the first look did not return".to_owned();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let Ok(result) = tokio::time::timeout(left, look()).await else {
            panic!("waited {limit:?} for {what}; last seen: {seen}")
        };
        match result.found() {
            Ok(found) => return found,
            Err(last) => seen = last,
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}; last seen: {seen}");
        tokio::time::sleep(POLL).await;
    }
}
