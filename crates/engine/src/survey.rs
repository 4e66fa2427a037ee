//! Looking after what is watched: for members of kinds that no record names, and for kinds that no
//! set needs any more.
//!
//! Where members are stands on the parent and in its status. Whoever restores or replaces the parent
//! wipes both, and what is of a kind that left Git would stay for ever.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use plumb_core::GroupKind;

use crate::applyset::{ApplySet, PART_OF};
use crate::cluster::Resource;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::live::Live;

/// The longest pause between the lists of two kinds. A hundred kinds take a quarter of an hour.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The sets of the caller, by id.
pub type Sets<'s> = dyn Fn(&str) -> Option<Arc<ApplySet>> + Send + Sync + 's;

/// What a survey came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Kinds that were listed.
    pub listed: usize,
    /// Kinds that could not be listed: nothing is known of them.
    pub refused: BTreeSet<GroupKind>,
    /// Kinds that have members and were not known to.
    pub found: BTreeSet<GroupKind>,
}

impl Engine {
    /// Lists all kinds that are not watched, one after the other, for what is labelled as a member of
    /// these sets. A kind with members is watched from then on, and its sets are called. It takes
    /// no longer than `within`, and with little to list much less.
    pub async fn survey(&self, sets: &Sets<'_>, within: Duration) -> Result<Survey, EngineError> {
        let discovery = self.discovery_again().await?;
        let kinds: Vec<Resource> =
            discovery.kinds().filter(|resource| may_have_members(resource)).cloned().collect();
        let parts = u32::try_from(kinds.len()).unwrap_or(u32::MAX).max(1);
        let pause = (within / parts).min(LONGEST_PAUSE);
        let mut survey = Survey::default();
        for resource in kinds {
            let kind = resource.gvk.group_kind();
            if self.is_watched(&kind) {
                continue;
            }
            tokio::time::sleep(pause).await;
            match self.cluster.glance(&resource, PART_OF).await {
                Ok(objects) => {
                    survey.listed += 1;
                    if objects.iter().any(|live| is_member(live, sets)) {
                        tracing::info!(%kind, "members of a kind that no record names");
                        survey.found.insert(kind);
                        self.watch(&survey.found).await?;
                    }
                }
                Err(error) => {
                    tracing::debug!(%kind, %error, "cannot look for members");
                    survey.refused.insert(kind);
                }
            }
        }
        Ok(survey)
    }

    /// Ends the watches of kinds that are not `needed`, that no set asks for, and of which nothing is
    /// left, and forgets them. Only the second call in a row ends one: what leaves Git may come back
    /// with the next commit, and a run may be about to need what it has not written down yet. Returns
    /// whether there is anything for a second call.
    pub fn end_watches(&self, needed: &BTreeSet<GroupKind>, sets: &Sets<'_>) -> bool {
        let mut idle: BTreeSet<GroupKind> = {
            let members = self.members();
            let kinds = members.kinds().map(|(kind, _)| kind);
            kinds.filter(|kind| !needed.contains(*kind)).cloned().collect()
        };
        idle.retain(|kind| {
            // One lock at a time: the caller has locks of its own.
            let wanted = self.claims().wants_any_of(kind)
                || self.facts().values().any(|facts| facts.kinds().any(|known| known == *kind));
            let live = self.members().of_kind(kind).cloned().collect::<Vec<_>>();
            !wanted && !live.iter().any(|live| is_member(live, sets))
        });
        let mut before = self.idle();
        for kind in before.intersection(&idle) {
            tracing::info!(%kind, "no application needs it any more; its watch ends");
            self.end_watch(kind);
        }
        *before = idle;
        !before.is_empty()
    }
}

/// Whether objects of a kind can be members. Events go by themselves, and there are very many.
fn may_have_members(resource: &Resource) -> bool {
    let events =
        resource.gvk.kind == "Event" && matches!(resource.gvk.group.as_str(), "" | "events.k8s.io");
    resource.can("list") && resource.can("patch") && !events
}

/// Whether an object is a member of one of these sets, rather than a copy of its label.
fn is_member(live: &Live, sets: &Sets<'_>) -> bool {
    let set = live.part_of.as_deref().and_then(sets);
    set.is_some_and(|set| live.entry(&set.manager).is_some())
}
