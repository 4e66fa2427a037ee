//! Who has an object: the API server is asked by an apply without force, and force follows only
//! where our manager has an entry.

use serde_json::Value;

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, ApplyHow, Target};
use crate::engine::Engine;
use crate::live::Live;
use crate::prepare::{Prepared, planned_for, planned_on};
use crate::sync::{FORCED, RACES};

/// An apply in which the API server says who else owns what we declare.
const UNFORCED: ApplyHow = ApplyHow { force: false, dry_run: false };

impl Engine {
    pub(crate) async fn force(
        &self,
        set: &ApplySet,
        p: &Prepared,
        body: &Value,
    ) -> Result<Live, ApiError> {
        self.send(set, p, body, FORCED).await
    }

    /// Applies with force over the very object that is known as ours.
    pub(crate) async fn overwrite(
        &self,
        set: &ApplySet,
        p: &Prepared,
        known: Option<&Live>,
    ) -> Result<Live, ApiError> {
        let Some(known) = known else { return self.claim(set, p).await };
        match self.force(set, p, &planned_for(p.object.body(), &known.uid)).await {
            // It is gone, or another object has its name, which is not ours to overwrite.
            Err(error) if error.is_conflict() || error.is_other_object() => {
                self.claim(set, p).await
            }
            result => result,
        }
    }

    /// Applies what is not known as ours: the API server says whether anybody else owns it.
    pub(crate) async fn claim(&self, set: &ApplySet, p: &Prepared) -> Result<Live, ApiError> {
        let refused = match self.send(set, p, p.object.body(), UNFORCED).await {
            Err(error) if error.is_ownership_conflict() => error,
            result => return result,
        };
        // It may be ours all the same: the label was taken off, or this process just started.
        let target = Target::new(&p.resource, &p.key.namespace, &p.key.name);
        for _ in 0..RACES {
            let Some(found) = self.cluster.get_metadata(&target).await? else {
                return Err(refused);
            };
            if let Some(owner) = found.live.part_of.as_deref().filter(|owner| *owner != set.id) {
                let Some(from) = self.claims().lets_go(owner, &p.key) else { return Err(refused) };
                match self.take_over(set, &target, &found, &from).await {
                    Ok(true) => return self.send(set, p, p.object.body(), UNFORCED).await,
                    Ok(false) => return Err(refused),
                    Err(error) if error.is_conflict() => continue,
                    Err(error) => return Err(error),
                }
            }
            if found.live.entry(&set.manager).is_none() {
                return Err(refused);
            }
            let body = planned_on(p.object.body(), found.live.resource_version);
            match self.force(set, p, &body).await {
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
        Err(refused)
    }

    /// Applies over an object that took the place of ours. When it carries our label, it is a copy
    /// of ours, and its values are drift; otherwise it is somebody's own, as in a claim.
    pub(crate) async fn retake(&self, set: &ApplySet, p: &Prepared) -> Result<Live, ApiError> {
        let version = {
            let members = self.members();
            let live = members.live(&p.key);
            live.filter(|l| l.part_of.as_deref() == Some(&set.id)).map(|l| l.resource_version)
        };
        if let Some(version) = version {
            match self.force(set, p, &planned_on(p.object.body(), version)).await {
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
        self.claim(set, p).await
    }
}
