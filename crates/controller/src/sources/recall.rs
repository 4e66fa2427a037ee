//! Where a source stood before: after a restart, and while it is suspended.

use std::sync::Arc;
use std::time::Instant;

use plumb_api::GitRepository;
use plumb_api::conditions::reasons;
use plumb_core::ErrorClass;
use plumb_source::{Cancel, CommitId, Reference, Remote, Resolved, Revision};

use super::trust::{self, By};
use super::{Come, Missed, Place, Problem, revision_of};
use crate::daemon::Daemon;
use crate::metrics::Kind;
use crate::names::{Key, Name};

impl Daemon {
    /// After a restart the commit that the status names may still be in the cache: then it stays
    /// enforced even while the Git server cannot be reached. So may one that an Application is pinned
    /// to, whatever became of that of the status.
    pub(super) async fn recall(
        self: &Arc<Self>,
        name: &Name,
        object: &GitRepository,
        remote: &Remote,
    ) {
        if self.is_known(name) {
            return;
        }
        let mut revision = told_revision(object);
        if let Some(Revision { name: tag, commit }) = revision.clone() {
            // A status is not proof enough.
            let by = By::Named(tag);
            if !self.is_here(remote, commit).await
                || self.verify(name, object, remote, commit, &by).await.is_err()
            {
                revision = None;
            }
        }
        self.put_back(name, object, remote, revision);
    }

    /// After a restart that lost the cache, too, the commit that the status names is fetched when that
    /// of the ref cannot be taken: it was taken before, and stays enforced.
    pub(super) async fn fetch_last(self: &Arc<Self>, name: &Name, object: &GitRepository) {
        if self.is_known(name) {
            return;
        }
        let Some(revision) = told_revision(object) else { return };
        let Ok(remote) = self.remote(name, object).await else { return };
        let mut place = None;
        let told = (object, &revision);
        let by = match self.fetch_told(name, told, &remote, &mut place).await {
            Ok(by) => by,
            Err(missed) => {
                if matches!(missed, Missed::Parked) {
                    // What is to be said does not wait for that: the next look tries it again.
                    self.withdraw(name);
                }
                return;
            }
        };
        // What is to be said is why that of the ref is not taken.
        let verified = self.verify_aside(name, object, &remote, revision.commit, &by).await;
        if verified.is_ok()
            && self.bring_submodules(name, &remote, revision.commit, &mut place).await.is_ok()
        {
            self.put_back(name, object, &remote, Some(revision));
        }
    }

    /// Whether this process knows a revision of a source, or there is no such source any more.
    fn is_known(&self, name: &Name) -> bool {
        self.state.lock().sources.get(name).is_none_or(|source| source.revision.is_some())
    }

    /// A source stands where it stood before a restart, if that is known.
    fn put_back(
        &self,
        name: &Name,
        object: &GitRepository,
        remote: &Remote,
        revision: Option<Revision>,
    ) {
        let waiting: Vec<Key> = {
            let mut store = self.state.lock();
            let Some(source) = store.sources.get_mut(name).filter(|s| s.is_of(object)) else {
                return;
            };
            let found = source.remote.replace(Arc::new(remote.clone())).is_none();
            let known = revision.is_some();
            source.revision = revision;
            let pinned = |key: &Key| {
                store.apps.get(key.name()).is_some_and(|app| app.object.spec.revision.is_some())
            };
            store.dependants(name).filter(|key| known || found && pinned(key)).collect()
        };
        // Nobody else tells them: for the rest of this look the revision is no news any more.
        for key in waiting {
            self.call(key);
        }
    }

    /// A suspended source stays at the commit that its status names.
    pub(super) async fn stand_still(
        self: &Arc<Self>,
        object: &GitRepository,
    ) -> Result<Come, Missed> {
        let began = Instant::now();
        let mut place = None;
        let name = Name::of(&object.metadata);
        let known = {
            let store = self.state.lock();
            let source = store.sources.get(&name);
            source.and_then(|source| Some((source.remote.clone()?, source.revision.clone()?)))
        };
        if let Some((remote, revision)) = known {
            let by = By::Named(revision.name.clone());
            self.verify(&name, object, &remote, revision.commit, &by).await?;
            return Ok(Come { remote: Remote::clone(&remote), revision, began, place });
        }
        let Some(revision) = told_revision(object) else {
            let message = "suspended before it was ever read".to_owned();
            return Err(Problem::user(reasons::SUSPENDED, message).into());
        };
        let remote = self.remote(&name, object).await?;
        let by = self.fetch_told(&name, (object, &revision), &remote, &mut place).await?;
        self.verify(&name, object, &remote, revision.commit, &by).await?;
        self.bring_submodules(&name, &remote, revision.commit, &mut place).await?;
        Ok(Come { remote, revision, began, place })
    }

    /// Brings the revision that a status names, unless it is here. Returns by what it is verified.
    async fn fetch_told(
        self: &Arc<Self>,
        name: &Name,
        (object, revision): (&GitRepository, &Revision),
        remote: &Remote,
        place: &mut Option<Place>,
    ) -> Result<By, Missed> {
        let Revision { name: tag, commit } = revision.clone();
        if self.is_here(remote, commit).await {
            return Ok(By::Named(tag));
        }
        // A commit does not bring the tag along that it was verified by.
        if trust::wants_tag(object) {
            if place.is_none() {
                *place = Some(self.enter(name, remote)?);
            }
            let (mirrors, target, tag) = (Arc::clone(&self.mirrors), remote.clone(), tag_of(&tag));
            let resolve = move |cancel: &Cancel| mirrors.resolve_tag(&target, &tag, cancel);
            let resolved = self.blocking(Kind::GitRepository, resolve).await?;
            if let Some(place) = place {
                place.note_fetch(&resolved);
            }
            match resolved {
                Ok(Resolved { revision, tag }) if revision.commit == commit => {
                    return Ok(By::Resolved(revision.name, tag));
                }
                Err(error) if error.class() == ErrorClass::Retry => return Err(error.into()),
                // It is gone or was moved, and so is what it proved.
                _ => {}
            }
        }
        self.fetch(name, remote, commit, place).await?;
        Ok(By::Named(tag))
    }

    /// Whether a commit, with its submodules where they are asked for, can be read whole, as far as is known.
    pub(super) async fn is_sound(&self, remote: &Remote, commit: CommitId) -> bool {
        let (mirrors, target) = (Arc::clone(&self.mirrors), remote.clone());
        let look = move |_: &Cancel| mirrors.is_sound(&target, &commit).unwrap_or(false);
        self.blocking(Kind::GitRepository, look).await == Ok(true)
    }

    /// Whether a commit is in the mirror.
    pub(super) async fn is_here(&self, remote: &Remote, commit: CommitId) -> bool {
        let (mirrors, target) = (Arc::clone(&self.mirrors), remote.clone());
        let look = move |_: &Cancel| mirrors.has(&target, &commit).unwrap_or(false);
        self.blocking(Kind::GitRepository, look).await == Ok(true)
    }
}

/// Which tag a revision is named after.
fn tag_of(name: &str) -> Reference {
    let name = name.to_owned();
    if name.starts_with("refs/") { Reference::Name(name) } else { Reference::Tag(name) }
}

/// Where a status says that a source stood.
fn told_revision(object: &GitRepository) -> Option<Revision> {
    revision_of(object.status.as_ref()?.revision.as_deref()?)
}
