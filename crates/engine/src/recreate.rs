//! Making an object anew, because a field of it cannot be changed: only where its owner asked for
//! that, only what is ours, and never what takes more than itself along.

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, Deleted, Propagation};
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
            && self.precious_object(job.set, &p.resource, &p.key).await?.is_none())
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
        let target = p.target();
        let Some(found) = self.acting(set).get_metadata(&target).await? else { return Err(error) };
        let (live, change) = (found.live, Change::Recreated(field));
        if live.terminating && live.part_of.as_deref() == Some(&set.id) {
            return Ok((self.goes(p, live), change));
        }
        if !is_ours_to_delete(set, &live) {
            return Err(error);
        }
        let version = Some(live.resource_version);
        let deleted =
            self.acting(set).delete(&target, &live.uid, version, Propagation::Background).await?;
        match deleted {
            Deleted::Terminating => Ok((self.goes(p, live), change)),
            Deleted::Gone | Deleted::AlreadyGone => {
                self.members().gone(&p.key, &live.uid);
                Ok((self.claim(set, p).await?, change))
            }
        }
    }

    /// Notes that an object is on its way out, whether the watch has told so already or not: its end
    /// is waited for then, and nothing was verified of it that somebody else could undo.
    fn goes(&self, p: &Prepared, live: Live) -> Live {
        let live = Live { terminating: true, ..live };
        let mut members = self.members();
        let past = members.is_past(&p.key, &live);
        members.gone(&p.key, &live.uid);
        if !past {
            members.changed(p.key.clone(), live.clone());
        }
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::script::Script;
    use crate::engine::EngineOptions;
    use crate::failure::tests::service;
    use crate::live::Entry;
    use crate::marks::Marks;
    use crate::members::Standing;

    /// The watch may tell before the answer to the deletion comes, and then nothing more until the end.
    #[tokio::test]
    async fn what_goes_slowly_is_waited_for_whichever_tells_first() {
        let set = ApplySet::new(plumb_core::GroupKind::new("plumb.dev", "Application"), "ns", "a");
        let entry = Entry {
            manager: set.manager.as_str().into(),
            fields: 7,
            time: 100,
            owns_part_of: true,
            owners: 0,
        };
        let live = Live {
            uid: "u".into(),
            resource_version: 5,
            generation: 1,
            terminating: false,
            owners: 0,
            marks: Marks::default(),
            scaled: false,
            part_of: Some(set.id.as_str().into()),
            entries: Box::new([entry]),
            others: 3,
            others_time: 0,
        };
        let p = service();
        for told_first in [true, false] {
            let engine = Engine::new(Script::new([]).cluster(), EngineOptions::default()).0;
            let going = Live { resource_version: 6, terminating: true, ..live.clone() };
            let tell = || engine.members().changed(p.key.clone(), going.clone());
            engine.members().verified(&set.id, &set.manager, &p.key, live.clone(), 1);
            if told_first {
                tell();
            }
            engine.goes(&p, live.clone());
            if !told_first {
                tell();
            }
            let standing = |key| engine.members().standing(key, &set.id, &set.manager);
            assert_eq!(standing(&p.key), Standing::Terminating, "{told_first}");
            let called = engine.members().deleted(&p.key, &Live { resource_version: 7, ..going });
            assert!(called.contains(&*set.id), "its end is told");
            assert_eq!(standing(&p.key), Standing::Unknown, "it is made, not put back");
        }
    }
}
