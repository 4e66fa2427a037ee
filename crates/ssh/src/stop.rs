//! Lets another thread end a blocking call.

use tokio::sync::watch;

/// A switch that ends the calls it was given to, at once, also in the middle of a read. Clones are
/// the same switch. It cannot be reset.
#[derive(Debug, Clone, Default)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    /// A switch that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the calls that use this switch, now and later, with
    /// [`SshError::Stopped`](crate::SshError::Stopped).
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Comes when it is set.
    pub(crate) async fn stopped(&self) {
        let mut watch = self.0.subscribe();
        // We hold a sender, so this ends only when the switch is set.
        let _set = watch.wait_for(|stopped| *stopped).await;
    }
}
