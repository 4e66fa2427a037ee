//! One look at a GitRepository: read its ref, fetch its commit, say so, wake its applications.

mod credentials;
mod mirror;
mod rewrite;
mod trust;

pub(crate) use rewrite::Turn;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use plumb_api::conditions::{self, READY, reasons};
use plumb_api::{Condition, GitReference, GitRepository, GitRepositoryStatus, names};
use plumb_core::ErrorClass;
use plumb_source::{Cancel, Reference, Remote, Resolved, Revision, SourceError};

use crate::daemon::{Daemon, PANICKED, Panicked, chain};
use crate::events::Severity;
use crate::metrics::{GitOutcome, Kind, Outcome};
use crate::names::{Key, Name};
use crate::queue::Lane;
use crate::state::{annotation, commit_of};
use crate::status::{Say, Waits, brief, build_conditions, with_hint};

use self::trust::By;
pub(crate) use self::trust::{Trust, Word};

/// Why a GitRepository is not ready, or a commit of it not at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) class: ErrorClass,
}

impl Problem {
    fn user(reason: &str, message: String) -> Self {
        Self { reason: reason.into(), message, class: ErrorClass::WaitForUser }
    }

    fn panicked() -> Self {
        let reason = reasons::INTERNAL_ERROR.into();
        Self { reason, message: PANICKED.into(), class: ErrorClass::Bug }
    }
}

/// Why a look came to no revision.
#[derive(Debug)]
enum Missed {
    /// It was cut short, by a shutdown or with the lease, and found out nothing.
    CutShort,
    Problem(Problem),
}

impl From<Problem> for Missed {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<SourceError> for Missed {
    fn from(error: SourceError) -> Self {
        if matches!(error, SourceError::Cancelled) {
            return Self::CutShort;
        }
        Self::Problem(error.into())
    }
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        let message = with_hint(chain(&error), error.hint());
        Self { reason: error.reason().into(), message, class: error.class() }
    }
}

impl From<Panicked> for Missed {
    fn from(_: Panicked) -> Self {
        Self::Problem(Problem::panicked())
    }
}

/// The longest wait between tries, when the interval is longer: the server, the Secret or the ref
/// may be mended where no watch tells.
const SLOW_RETRY: Duration = Duration::from_mins(1);

/// When a status that could not be written is tried again: the API server is away or busy, and has
/// been asked for some time already.
pub(crate) const STATUS_RETRY: Duration = Duration::from_secs(5);

impl Daemon {
    /// Looks at a GitRepository once and plans the next look.
    pub(crate) async fn run_source(self: &Arc<Self>, name: &Name) -> Outcome {
        let Some(object) = self.state.lock().sources.get(name).map(|s| Arc::clone(&s.object))
        else {
            return Outcome::Unchanged;
        };
        let key = Key::Source(name.clone());
        let spec = &object.spec;
        let (distrusted, keys) = self.take_keys(name, &object).await;
        let result = match keys {
            Err(problem) => Err(problem.into()),
            Ok(()) if spec.suspend => self.stand_still(&object).await,
            Ok(()) => self.resolve(name, &object).await,
        };
        // What they stand on has to be verified anew.
        for key in distrusted {
            self.call(key);
        }
        let interval = Duration::from(spec.interval);
        let bring = async || self.bring_wanted(name, &object, &result).await;
        match &result {
            Ok((remote, revision)) => {
                let moved = {
                    let store = self.state.lock();
                    let known = store.sources.get(name).and_then(|source| source.remote.as_ref());
                    known.is_some_and(|known| known != remote)
                };
                let untidy = moved || self.untidy.load(Ordering::Relaxed);
                // At once: their runs under way end early for this revision.
                for key in self.take_revision(name, &object, remote.clone(), revision) {
                    self.call(key);
                }
                if untidy {
                    self.forget_mirrors().await;
                }
                let news = self.say_source(name, &object, Ok(revision)).await;
                let missing = bring().await;
                self.keep_commits(name).await;
                let next = (!spec.suspend).then(|| self.jitter(interval));
                if let Some(wait) = next.into_iter().chain(missing).min() {
                    self.queue.add_after(key, wait, Lane::Routine);
                }
                if news { Outcome::Changed } else { Outcome::Unchanged }
            }
            Err(Missed::CutShort) => {
                // Who leads next looks at everything; one whose renewal was only late looks again.
                self.queue.add_after(key, STATUS_RETRY, Lane::Routine);
                Outcome::Retry
            }
            Err(Missed::Problem(problem)) => {
                tracing::warn!(source = %name, reason = problem.reason, "{}", problem.message);
                let (wait, first) = {
                    let mut store = self.state.lock();
                    let Some(source) = store.sources.get_mut(name) else {
                        return Outcome::Unchanged;
                    };
                    let first = source.problem.replace(problem.message.clone()).is_none();
                    let generation = object.metadata.generation.unwrap_or(0);
                    // Another problem than before means that somebody is at work on it.
                    let cap = interval.min(SLOW_RETRY);
                    (source.backoff.failed(generation, &problem.reason, cap), first)
                };
                let news = self.say_source(name, &object, Err(problem)).await;
                // After a restart the status may have told it already, and those that wait have not.
                if news || first {
                    let waiting: Vec<Key> = self.state.lock().dependants(name).collect();
                    for key in waiting {
                        self.queue.add(key, Lane::Routine);
                    }
                }
                let wait = bring().await.map_or(wait, |missing| missing.min(wait));
                self.queue.add_after(key, wait, Lane::Routine);
                match problem.class {
                    ErrorClass::Retry => Outcome::Retry,
                    ErrorClass::WaitForUser | ErrorClass::Bug => Outcome::Stalled,
                }
            }
        }
    }

    async fn resolve(
        self: &Arc<Self>,
        name: &Name,
        object: &GitRepository,
    ) -> Result<(Remote, Revision), Missed> {
        let remote = self.remote(name, object).await?;
        self.recall(name, object, &remote).await;
        let reference = reference_of(object.spec.reference.as_ref());
        let (mirrors, target) = (Arc::clone(&self.mirrors), remote.clone());
        let with_tag = trust::wants_tag(object);
        let resolved = self
            .blocking(Kind::GitRepository, move |cancel: &Cancel| {
                if with_tag {
                    return mirrors.resolve_tag(&target, &reference, cancel);
                }
                let revision = mirrors.resolve(&target, &reference, cancel)?;
                Ok(Resolved { revision, tag: None })
            })
            .await?;
        if matches!(resolved, Err(SourceError::Cancelled)) {
            return Err(Missed::CutShort);
        }
        let outcome = if resolved.is_ok() { GitOutcome::Ok } else { GitOutcome::Failed };
        self.metrics.git_polled(outcome);
        let Resolved { revision, tag } = resolved?;
        let by = By::Resolved(revision.name.clone(), tag);
        self.verify(name, object, &remote, revision.commit, by).await?;
        let rewritten = self.check_history(name, object, &remote, &revision).await?;
        self.bring_submodules(&remote, revision.commit).await?;
        if let Some(text) = rewritten {
            self.tell_rewrite(object, &revision, &text);
        }
        Ok((remote, revision))
    }

    /// After a restart the commit that the status names may still be in the cache: then it stays
    /// enforced even while the Git server cannot be reached. So may one that an Application is pinned
    /// to, whatever became of that of the status.
    async fn recall(self: &Arc<Self>, name: &Name, object: &GitRepository, remote: &Remote) {
        if self.state.lock().sources.get(name).is_none_or(|s| s.revision.is_some()) {
            return;
        }
        let status = object.status.as_ref();
        let mut revision = status.and_then(|status| revision_of(status.revision.as_deref()?));
        if let Some(commit) = revision.as_ref().map(|revision| revision.commit) {
            let (mirrors, target) = (Arc::clone(&self.mirrors), remote.clone());
            let look = move |_: &Cancel| mirrors.has(&target, &commit).unwrap_or(false);
            let here = self.blocking(Kind::GitRepository, look).await;
            revision = revision.filter(|_| here == Ok(true));
        }
        if let Some(Revision { name: tag, commit }) = &revision {
            // A status is not proof enough.
            let by = By::Named(tag.clone());
            if self.verify(name, object, remote, *commit, by).await.is_err() {
                revision = None;
            }
        }
        let waiting: Vec<Key> = {
            let mut store = self.state.lock();
            let Some(source) = store.sources.get_mut(name) else { return };
            let found = source.remote.replace(remote.clone()).is_none();
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
    async fn stand_still(
        self: &Arc<Self>,
        object: &GitRepository,
    ) -> Result<(Remote, Revision), Missed> {
        let name = Name::of(&object.metadata);
        let known = {
            let store = self.state.lock();
            let source = store.sources.get(&name);
            source.and_then(|source| Some((source.remote.clone()?, source.revision.clone()?)))
        };
        if let Some((remote, revision)) = known {
            let by = By::Named(revision.name.clone());
            self.verify(&name, object, &remote, revision.commit, by).await?;
            return Ok((remote, revision));
        }
        let status = object.status.as_ref();
        let Some(revision) = status.and_then(|status| revision_of(status.revision.as_deref()?))
        else {
            let message = "suspended before it was ever read".to_owned();
            return Err(Problem::user(reasons::SUSPENDED, message).into());
        };
        let remote = self.remote(&name, object).await?;
        let (mirrors, target, commit) =
            (Arc::clone(&self.mirrors), remote.clone(), revision.commit);
        self.blocking(Kind::GitRepository, move |cancel: &Cancel| {
            mirrors.fetch_commit(&target, &commit, cancel)
        })
        .await??;
        let by = By::Named(revision.name.clone());
        self.verify(&name, object, &remote, commit, by).await?;
        self.bring_submodules(&remote, commit).await?;
        Ok((remote, revision))
    }

    /// Takes a revision in. Returns who has to look at it: the applications, and sources that follow the
    /// same ref and stand elsewhere.
    fn take_revision(
        &self,
        name: &Name,
        object: &GitRepository,
        remote: Remote,
        revision: &Revision,
    ) -> Vec<Key> {
        let mut store = self.state.lock();
        let before = store.sources.get(name).and_then(|source| source.revision.as_ref());
        let moved = before != Some(revision);
        let seq = moved.then(|| store.number(name, revision.commit));
        let Some(source) = store.sources.get_mut(name) else { return Vec::new() };
        let news = source.revision.as_ref() != Some(revision)
            || source.remote.as_ref() != Some(&remote)
            || source.problem.is_some();
        let forced = annotation(&object.metadata, names::REQUESTED_AT)
            != object.status.as_ref().and_then(|s| s.last_handled_reconcile_at.as_deref());
        source.seq = seq.unwrap_or(source.seq);
        source.revision = Some(revision.clone());
        source.remote = Some(remote);
        source.problem = None;
        source.backoff.succeeded();
        let ignores = object.metadata.generation
            != object.status.as_ref().and_then(|status| status.observed_generation);
        if !(news || ignores || forced) {
            return Vec::new();
        }
        let mut keys: Vec<Key> = store.dependants(name).collect();
        for key in &keys {
            if let Some(app) = store.apps.get_mut(key.name()) {
                // A newer revision takes over from a run that is under way.
                // A pinned one stays where it is.
                if app.object.spec.revision.is_none()
                    && app.rendered.as_ref().is_none_or(|r| r.revision.commit != revision.commit)
                {
                    app.wanted += 1;
                }
            }
        }
        if moved {
            // What leaves the applications of one may have gone to those of another.
            let lagging = |twin: &Name| {
                store.sources.get(twin).is_some_and(|twin| twin.revision.as_ref() != Some(revision))
            };
            let twins = store.twins(name).into_iter().filter(lagging);
            keys.extend(twins.map(Key::Source));
        }
        keys
    }

    /// Writes the status if it says something new. Returns whether it did.
    async fn say_source(
        &self,
        name: &Name,
        object: &GitRepository,
        result: Result<&Revision, &Problem>,
    ) -> bool {
        let (before, word) = {
            let store = self.state.lock();
            let Some(source) = store.sources.get(name) else { return false };
            let before = source.written.clone().or_else(|| object.status.clone());
            (before.unwrap_or_default(), source.word.clone())
        };
        let mut say = match result {
            Ok(revision) => {
                let mut say = Say::ready(format!("fetched {}", brief(revision)));
                say.more.push((
                    conditions::FETCHED,
                    "True",
                    say.reason.clone(),
                    say.message.clone(),
                ));
                say
            }
            Err(problem) => {
                let mut say = Say::not_ready(
                    &problem.reason,
                    problem.message.clone(),
                    Waits::from(problem.class),
                );
                say.more.push((
                    conditions::FETCHED,
                    "False",
                    say.reason.clone(),
                    say.message.clone(),
                ));
                say
            }
        };
        say.more.extend(trust::condition_of(object, word.as_ref(), &before.conditions));
        let generation = object.metadata.generation;
        let mode = object.spec.verify.as_ref().map(|verify| verify.mode);
        let conditions = conditions_of(object, &before.conditions, &say, Timestamp::now());
        let status = GitRepositoryStatus {
            observed_generation: generation,
            conditions,
            revision: result.ok().map(ToString::to_string).or_else(|| before.revision.clone()),
            source_verification_mode: match result {
                Ok(_) => mode,
                Err(_) => before.source_verification_mode,
            },
            last_handled_reconcile_at: annotation(&object.metadata, names::REQUESTED_AT)
                .map(String::from)
                .or_else(|| before.last_handled_reconcile_at.clone()),
        };
        if self.is_cut_short(&say) {
            return false;
        }
        let ready = status.conditions.iter().any(|c| c.type_ == READY && c.status == "True");
        self.show(Kind::GitRepository, name, ready, object.spec.suspend);
        if status == before {
            return false;
        }
        let moved = status.revision != before.revision;
        if let Err(error) = self.write_status(Kind::GitRepository, &object.metadata, &status).await
        {
            if !error.is_not_found() && !error.is_other_object() {
                tracing::warn!(source = %name, "cannot write status: {}", chain(&error));
                // What it says must not wait for the interval.
                self.queue.add_after(Key::Source(name.clone()), STATUS_RETRY, Lane::Routine);
            }
            return false;
        }
        if let Some(source) = self.state.lock().sources.get_mut(name) {
            source.written = Some(status.clone());
        }
        let about = (Kind::GitRepository, &object.metadata);
        match result {
            Ok(revision) if moved => {
                tracing::info!(source = %name, %revision, "new revision");
                let text = format!("fetched {}", brief(revision));
                let revision = revision.to_string();
                self.note(
                    about,
                    Severity::Normal,
                    ("NewRevision", "Fetch"),
                    &text,
                    Some(&revision),
                );
            }
            Ok(_) => {}
            Err(problem) => {
                let reason = (problem.reason.as_str(), "Fetch");
                self.note(about, Severity::Warning, reason, &problem.message, None);
            }
        }
        true
    }

    /// A look panicked: a mistake of ours, told where its owner looks.
    pub(crate) async fn panicked_source(self: &Arc<Self>, name: &Name) {
        let Some(object) = self.state.lock().sources.get(name).map(|s| Arc::clone(&s.object))
        else {
            return;
        };
        self.say_source(name, &object, Err(&Problem::panicked())).await;
        self.queue.add_after(Key::Source(name.clone()), SLOW_RETRY, Lane::Routine);
    }
}

/// The conditions of a GitRepository. A suspended one keeps its own: that its last revision is at
/// hand says nothing of whether it can be fetched.
fn conditions_of(
    object: &GitRepository,
    before: &[Condition],
    say: &Say,
    now: Timestamp,
) -> Vec<Condition> {
    // That it was not signed is over, and is not found out otherwise.
    let refused =
        before.iter().any(|c| c.type_ == READY && c.reason == reasons::VERIFICATION_FAILED);
    if object.spec.suspend && say.ready && !before.is_empty() && !refused {
        return before.to_vec();
    }
    build_conditions(before, say, object.metadata.generation, now)
}

/// Which reference a spec names. The order is the documented one of Flux: commit, name, semver,
/// tag, branch; the CRD's rules refuse most mixtures.
pub(crate) fn reference_of(reference: Option<&GitReference>) -> Reference {
    let Some(reference) = reference.cloned() else { return Reference::Default };
    match reference {
        GitReference { commit: Some(id), branch, .. } => Reference::Commit { id, branch },
        GitReference { name: Some(name), .. } => Reference::Name(name),
        GitReference { semver: Some(range), semver_pattern: pattern, .. } => {
            Reference::Semver { range, pattern }
        }
        GitReference { tag: Some(tag), .. } => Reference::Tag(tag),
        GitReference { branch: Some(branch), .. } => Reference::Branch(branch),
        _ => Reference::Default,
    }
}

/// Reads a revision as it stands in a status.
pub(crate) fn revision_of(text: &str) -> Option<Revision> {
    let name = text.split_once("@sha1:").map_or("", |(name, _)| name);
    Some(Revision { name: name.to_owned(), commit: commit_of(text)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_an_order() {
        let mut reference = GitReference {
            branch: Some("main".into()),
            tag: Some("v1".into()),
            semver: Some("1.x".into()),
            semver_pattern: None,
            name: Some("refs/x".into()),
            commit: Some("c".into()),
        };
        let commit = Reference::Commit { id: "c".into(), branch: Some("main".into()) };
        assert_eq!(reference_of(Some(&reference)), commit);
        reference.commit = None;
        assert_eq!(reference_of(Some(&reference)), Reference::Name("refs/x".into()));
        reference.name = None;
        assert_eq!(
            reference_of(Some(&reference)),
            Reference::Semver { range: "1.x".into(), pattern: None }
        );
        reference.semver = None;
        assert_eq!(reference_of(Some(&reference)), Reference::Tag("v1".into()));
        reference.tag = None;
        assert_eq!(reference_of(Some(&reference)), Reference::Branch("main".into()));
        assert_eq!(reference_of(None), Reference::Default);
    }

    #[test]
    fn a_suspended_source_keeps_what_it_said_last() {
        let source = |suspend: bool| -> GitRepository {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
                "metadata": {"name": "repo", "namespace": "ns", "generation": 2},
                "spec": {"url": "https://git.example/repo", "interval": "1m", "suspend": suspend},
            }))
            .unwrap()
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let failed = Say::not_ready("TimedOut", "no answer", Waits::Retry);
        let failing = build_conditions(&[], &failed, Some(1), at(0));
        let fetched = Say::ready("fetched");
        let ready = |suspend, before: &[Condition], say: &Say| {
            let conditions = conditions_of(&source(suspend), before, say, at(1));
            conditions[0].status == "True"
        };
        assert!(!ready(true, &failing, &fetched));
        assert!(ready(false, &failing, &fetched));
        assert!(ready(true, &[], &fetched), "there is nothing to keep");
        let good = build_conditions(&[], &fetched, Some(1), at(0));
        assert!(!ready(true, &good, &failed), "what it needs is not at hand");
    }
}
