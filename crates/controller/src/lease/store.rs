//! Where the Lease is kept.

use std::future::Future;

use futures::{Stream, StreamExt as _};
use plumb_core::Gvk;
use plumb_engine::{ApiError, Cluster, Resource, Target, WatchEvent, watch_one_version};
use serde_json::Value;

use super::LEASE_NAME;

/// The API server as the election needs it: one object, and writes that carry the version they
/// were decided on.
pub trait LeaseStore: Sync {
    /// The Lease, `None` when there is none.
    fn read(&self) -> impl Future<Output = Result<Option<Value>, ApiError>> + Send;
    /// Creates it and answers with it as stored; an error when there is one already.
    fn create(&self, lease: &Value) -> impl Future<Output = Result<Value, ApiError>> + Send;
    /// Replaces the version named in it and answers with it as stored; a conflict when the version
    /// is another one by now.
    fn replace(&self, lease: &Value) -> impl Future<Output = Result<Value, ApiError>> + Send;
    /// Tells of each change of it, as far as that can be watched.
    fn changes(&self) -> impl Stream<Item = ()> + Send;
}

/// The Lease named [`LEASE_NAME`] in one namespace of a cluster.
#[derive(Debug)]
pub struct ClusterLease {
    cluster: Cluster,
    resource: Resource,
    namespace: String,
}

impl ClusterLease {
    /// The Lease in the namespace that the controller runs in. Its writes pass no gate: they are
    /// what opens it.
    pub fn new(cluster: &Cluster, namespace: &str) -> Self {
        let gvk = Gvk::new("coordination.k8s.io/v1", "Lease");
        Self {
            cluster: cluster.ungated(),
            resource: Resource::known(gvk, "leases", true),
            namespace: namespace.to_owned(),
        }
    }

    fn target(&self) -> Target<'_> {
        Target::new(&self.resource, &self.namespace, LEASE_NAME)
    }
}

impl LeaseStore for ClusterLease {
    async fn read(&self) -> Result<Option<Value>, ApiError> {
        self.cluster.get_json(&self.target()).await
    }

    async fn create(&self, lease: &Value) -> Result<Value, ApiError> {
        self.cluster.post_json(&self.resource, &self.namespace, lease).await
    }

    async fn replace(&self, lease: &Value) -> Result<Value, ApiError> {
        self.cluster.put_json(&self.target(), lease).await
    }

    fn changes(&self) -> impl Stream<Item = ()> + Send {
        let namespace = Some(self.namespace.as_str());
        let events = watch_one_version(&self.cluster, &self.resource, namespace, LEASE_NAME);
        // Where it may not be watched there is the look that comes now and then.
        let changes = |event| matches!(event, WatchEvent::Changed(..) | WatchEvent::Deleted(..));
        events.filter_map(move |event| std::future::ready(changes(event).then_some(())))
    }
}
