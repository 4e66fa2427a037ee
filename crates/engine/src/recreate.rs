//! Making an object anew, because a field of it cannot be changed: only where its owner asked for
//! that, only what is ours, and never what takes more than itself along.

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, Deleted, Propagation, Target};
use crate::engine::Engine;
use crate::guard::precious_kind;
use crate::live::Live;
use crate::prepare::Prepared;
use crate::report::Change;
use crate::sync::{Job, is_ours_to_delete};

impl Engine {
    /// Whether an object may be made anew, if it is ours.
    pub(crate) async fn may_recreate(&self, p: &Prepared, job: &Job<'_>) -> Result<bool, ApiError> {
        Ok((job.policy.force || p.marks.force)
            && precious_kind(&p.key, &job.policy.limits).is_none()
            && self.precious_object(&p.resource, &p.key).await?.is_none())
    }

    /// Deletes an object whose field cannot be changed and makes it anew. When it takes its time to
    /// go, the next run makes it. Otherwise gives the error back.
    pub(crate) async fn recreate(
        &self,
        set: &ApplySet,
        p: &Prepared,
        job: &Job<'_>,
        error: ApiError,
    ) -> Result<(Live, Change), ApiError> {
        let Some(field) = error.immutable_field() else { return Err(error) };
        if !self.may_recreate(p, job).await? {
            return Err(error);
        }
        let target = Target::new(&p.resource, &p.key.namespace, &p.key.name);
        let Some(found) = self.cluster.get_metadata(&target).await? else { return Err(error) };
        let live = found.live;
        if !is_ours_to_delete(set, &live) {
            return Err(error);
        }
        let version = Some(live.resource_version);
        let deleted =
            self.cluster.delete(&target, &live.uid, version, Propagation::Background).await?;
        self.members().gone(&p.key, &live.uid);
        let change = Change::Recreated(field);
        match deleted {
            Deleted::Terminating => Ok((Live { terminating: true, ..live }, change)),
            Deleted::Gone | Deleted::AlreadyGone => Ok((self.claim(set, p).await?, change)),
        }
    }
}
