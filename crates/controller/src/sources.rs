//! One look at a GitRepository: read its ref, fetch its commit, say so, wake its applications.

mod credentials;
mod mirror;
mod places;
mod polls;
mod recall;
mod rewrite;
mod trust;

pub(crate) use places::moved;
pub(crate) use polls::Polls;
pub(crate) use rewrite::Turn;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plumb_api::conditions::{self, READY, reasons};
use plumb_api::{Condition, GitReference, GitRepository, GitRepositoryStatus, names};
use plumb_core::ErrorClass;
use plumb_source::{Reference, Remote, Resolved, Revision, SourceError};

use crate::daemon::{Daemon, PANICKED, Panicked, chain};
use crate::events::Severity;
use crate::metrics::{Kind, Outcome};
use crate::names::{Key, Name};
use crate::queue::Lane;
use crate::state::{Source, annotation, commit_of};
use crate::status::{Say, Waits, brief, build_conditions, with_hint};

use self::mirror::FOR_ROOM;
use self::places::Place;
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
    /// It waits for its place at the server, and is called.
    Parked,
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

/// The share of its interval that a source rests at least: a look may take longer than that.
const LEAST: f64 = 0.1;

/// A look that came to a revision.
struct Come {
    remote: Remote,
    revision: Revision,
    /// When the listing began that says so.
    began: Instant,
    /// The place at the server, if it needed one.
    place: Option<Place>,
}

impl Daemon {
    /// Looks at a GitRepository once and plans the next look.
    pub(crate) async fn run_source(self: &Arc<Self>, name: &Name) -> Outcome {
        let started = Instant::now();
        let object = self.state.lock().sources.get_mut(name).map(|source| {
            source.paused = None;
            Arc::clone(&source.object)
        });
        let Some(object) = object else {
            self.withdraw(name);
            return Outcome::Unchanged;
        };
        let (mut distrusted, keys) = self.take_keys(name, &object).await;
        if keys.is_ok() {
            distrusted.extend(self.review(name, &object).await);
        }
        // What they stand on has to be verified anew, and was if it is at hand.
        self.call_all(distrusted);
        let result = match keys {
            Err(missed) => Err(missed),
            Ok(()) if object.spec.suspend => self.stand_still(&object).await,
            Ok(()) => {
                let resolved = self.resolve(name, &object).await;
                if let Err(Missed::Problem(problem)) = &resolved
                    && problem.class != ErrorClass::Retry
                {
                    self.fetch_last(name, &object).await;
                }
                resolved
            }
        };
        let (result, began, mut place) = match result {
            Ok(Come { remote, revision, began, place }) => (Ok((remote, revision)), began, place),
            Err(missed) => (Err(missed), Instant::now(), None),
        };
        if !self.state.lock().sources.get(name).is_some_and(|source| source.wants.any()) {
            // The rest of the look needs no server.
            place = None;
        }
        if place.is_none() && !matches!(result, Err(Missed::Parked)) {
            // What was kept for it is for others.
            self.give_back(name);
        }
        if !matches!(result, Err(Missed::Parked))
            && let Some(source) = self.state.lock().sources.get_mut(name)
        {
            source.called = source.called.filter(|called| *called > started);
        }
        let outcome = self.conclude(name, &object, &result, began, place).await;
        self.give_back(name);
        outcome
    }

    /// Says what a look came to, and plans the next one.
    async fn conclude(
        self: &Arc<Self>,
        name: &Name,
        object: &Arc<GitRepository>,
        result: &Result<(Remote, Revision), Missed>,
        began: Instant,
        mut place: Option<Place>,
    ) -> Outcome {
        let key = Key::Source(name.clone());
        let spec = &object.spec;
        let interval = Duration::from(spec.interval);
        match result {
            Ok((remote, revision)) => {
                let moved = {
                    let store = self.state.lock();
                    let known = store.sources.get(name).and_then(|source| source.remote.as_deref());
                    known.is_some_and(|known| known != remote)
                };
                // At once: their runs under way end early for this revision.
                let Some((apps, twins)) =
                    self.take_revision(name, object, (remote, revision), began)
                else {
                    return self.out_of_date(name);
                };
                self.call_all(apps);
                for twin in twins {
                    self.queue.add(twin, Lane::Urgent);
                }
                if moved || self.untidy.load(Ordering::Relaxed) && self.knows_mirrors() {
                    self.forget_mirrors().await;
                }
                let news = self.say_source(name, object, Ok(revision)).await;
                let missing = self.bring_wanted(name, object, result, &mut place).await;
                drop(place);
                self.keep_commits(name).await;
                let next = (!spec.suspend).then(|| {
                    let due = self.pace(began, interval).saturating_sub(began.elapsed());
                    // A look may take longer than its interval.
                    due.max(interval.mul_f64(LEAST))
                });
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
            Err(Missed::Parked) => Outcome::Waiting,
            Err(Missed::Problem(problem)) => {
                tracing::warn!(source = %name, reason = problem.reason, "{}", problem.message);
                if FOR_ROOM.contains(&problem.reason.as_str()) {
                    self.forget_mirrors().await;
                }
                let (wait, first) = {
                    let mut store = self.state.lock();
                    let Some(source) = store.sources.get_mut(name).filter(|s| s.is_of(object))
                    else {
                        return self.out_of_date(name);
                    };
                    let first = source.problem.replace(problem.message.clone()).is_none();
                    // The next try is not told this again.
                    source.asked = Instant::now();
                    let generation = object.metadata.generation.unwrap_or(0);
                    // Another problem than before means that somebody is at work on it.
                    let cap = interval.min(SLOW_RETRY);
                    let wait = source.backoff.failed(generation, &problem.reason, cap);
                    let paused = source.paused.take();
                    let left = paused.map(|until| until.saturating_duration_since(Instant::now()));
                    (left.map_or(wait, |left| left.max(wait)), first)
                };
                let news = self.say_source(name, object, Err(problem)).await;
                // After a restart the status may have told it already, and those that wait have not.
                if news || first {
                    let waiting: Vec<Key> = self.state.lock().dependants(name).collect();
                    for key in waiting {
                        self.queue.add(key, Lane::Routine);
                    }
                }
                let missing = self.bring_wanted(name, object, result, &mut place).await;
                let wait = missing.map_or(wait, |missing| missing.min(wait));
                self.queue.add_after(key, wait, Lane::Routine);
                match problem.class {
                    ErrorClass::Retry => Outcome::Retry,
                    ErrorClass::WaitForUser | ErrorClass::Bug => Outcome::Stalled,
                }
            }
        }
    }

    /// What a look found out is not about its object any more: it was changed or replaced meanwhile, or
    /// the keys that it trusts were.
    fn out_of_date(&self, name: &Name) -> Outcome {
        tracing::debug!(source = %name, "what was found is out of date");
        self.queue.add(Key::Source(name.clone()), Lane::Urgent);
        Outcome::Unchanged
    }

    /// What can be told of what is at hand, before a server is asked that may not answer: whether it is
    /// signed by the keys that count now. Returns who is to be called, since what it stands on may be
    /// trusted no more.
    async fn review(&self, name: &Name, object: &GitRepository) -> Vec<Key> {
        let known = {
            let store = self.state.lock();
            let source = store.sources.get(name);
            source.and_then(|source| Some((source.remote.clone()?, source.revision.clone()?)))
        };
        let mut distrusted = Vec::new();
        if let Some((remote, Revision { name: tag, commit })) = known {
            distrusted = self.verify_again(name, object, &remote).await;
            // Why it is not is said, and what comes of that is the same as without this.
            let _ = self.verify(name, object, &remote, commit, &By::Named(tag)).await;
        }
        self.bring_at_hand(name, object).await;
        distrusted
    }

    async fn resolve(
        self: &Arc<Self>,
        name: &Name,
        object: &GitRepository,
    ) -> Result<Come, Missed> {
        let remote = self.remote(name, object).await?;
        self.recall(name, object, &remote).await;
        let (looked, mut place) = self.look(name, object, &remote).await?;
        let Resolved { revision, tag } = looked.resolved;
        let by = By::Resolved(revision.name.clone(), tag);
        self.verify(name, object, &remote, revision.commit, &by).await?;
        let turned = self.check_history(name, object, (&remote, &revision), &mut place).await?;
        self.bring_submodules(name, &remote, revision.commit, &mut place).await?;
        if let Some(text) = turned {
            self.tell_rewrite(object, &revision, &text);
        }
        Ok(Come { remote, revision, began: looked.began, place })
    }

    /// Takes a revision in, which a listing that began at a moment named, if its object is still what was
    /// looked at, and the keys that it was verified by still count. Returns who has to look at it: the
    /// applications, and sources that follow the same ref and stand elsewhere.
    fn take_revision(
        &self,
        name: &Name,
        object: &GitRepository,
        (remote, revision): (&Remote, &Revision),
        began: Instant,
    ) -> Option<(Vec<Key>, Vec<Key>)> {
        let mut store = self.state.lock();
        let counts = |source: &&Source| source.is_of(object) && source.trusts(&revision.commit);
        let before = store.sources.get(name).filter(counts)?;
        let moved = before.revision.as_ref() != Some(revision);
        let seq = moved.then(|| store.number(name, revision.commit));
        let source = store.sources.get_mut(name)?;
        let news = source.revision.as_ref() != Some(revision)
            || source.remote.as_deref() != Some(remote)
            || source.problem.is_some();
        let forced = annotation(&object.metadata, names::REQUESTED_AT)
            != object.status.as_ref().and_then(|s| s.last_handled_reconcile_at.as_deref());
        source.seq = seq.unwrap_or(source.seq);
        source.revision = Some(revision.clone());
        if source.remote.as_deref() != Some(remote) {
            source.remote = Some(Arc::new(remote.clone()));
        }
        source.looked = source.looked.max(Some(began));
        source.problem = None;
        source.backoff.succeeded();
        let ignores = object.metadata.generation
            != object.status.as_ref().and_then(|status| status.observed_generation);
        if !(news || ignores || forced) {
            return Some((Vec::new(), Vec::new()));
        }
        let keys: Vec<Key> = store.dependants(name).collect();
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
        let mut lagging = Vec::new();
        if moved {
            // What leaves the applications of one may have gone to those of another.
            for name in store.twins(name) {
                let Some(twin) = store.sources.get_mut(&name) else { continue };
                if twin.revision.as_ref() != Some(revision) {
                    // What was heard here is new enough for it, and what was heard before is not.
                    twin.asked = twin.asked.max(began);
                    lagging.push(Key::Source(name));
                }
            }
        }
        Some((keys, lagging))
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
        self.give_back(name);
        self.say_source(name, &object, Err(&Problem::panicked())).await;
        self.queue.add_after(Key::Source(name.clone()), SLOW_RETRY, Lane::Routine);
    }
}

/// The conditions of a GitRepository. A suspended one keeps those of before: that its last revision is at
/// hand says nothing of whether it can be fetched. What is found out also while it is suspended is told as
/// it is.
fn conditions_of(
    object: &GitRepository,
    before: &[Condition],
    say: &Say,
    now: Timestamp,
) -> Vec<Condition> {
    let told = build_conditions(before, say, object.metadata.generation, now);
    if !object.spec.suspend || !say.ready || before.is_empty() || is_over(object, before) {
        return told;
    }
    let of_signatures = |condition: &Condition| condition.type_ == conditions::SOURCE_VERIFIED;
    let kept = before.iter().filter(|condition| !of_signatures(condition)).cloned();
    kept.chain(told.into_iter().filter(of_signatures)).collect()
}

/// Whether what a suspended GitRepository failed for is over, now that a look found nothing wrong. What it
/// failed for before it was suspended may not be.
fn is_over(object: &GitRepository, before: &[Condition]) -> bool {
    let failed = |type_: &str| before.iter().find(|c| c.type_ == type_ && c.status == "False");
    let Some(ready) = failed(READY) else { return false };
    // To suspend it is a change of its spec.
    let since = ready.observed_generation == object.metadata.generation;
    // Keys are looked at all the time.
    let unsigned = ready.reason == reasons::VERIFICATION_FAILED
        || failed(conditions::SOURCE_VERIFIED).is_some_and(|of| of.reason == ready.reason);
    since || unsigned
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
mod look_tests;

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
        let since = build_conditions(&[], &failed, Some(2), at(0));
        assert!(
            ready(true, &since, &fetched),
            "it failed while it was suspended, and does no more"
        );
    }

    #[test]
    fn a_suspended_source_tells_what_becomes_of_its_keys() {
        let object: GitRepository = serde_json::from_value(serde_json::json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
            "metadata": {"name": "repo", "namespace": "ns", "generation": 3},
            "spec": {"url": "https://git.example/repo", "interval": "1m", "suspend": true},
        }))
        .unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let of_keys = |status, reason: &str, message: &str| {
            (conditions::SOURCE_VERIFIED, status, reason.to_owned(), message.to_owned())
        };
        let say = |mut say: Say, of_keys| {
            say.more.extend(of_keys);
            say
        };
        let told = |before: &Say, now: &Say| {
            let before = build_conditions(&[], before, Some(2), at(0));
            let conditions = conditions_of(&object, &before, now, at(1));
            let texts = conditions.iter().map(|c| format!("{} {} {}", c.type_, c.status, c.reason));
            texts.collect::<Vec<_>>()
        };
        let fetched = || Say::ready("fetched");
        let signed = say(fetched(), Some(of_keys("True", "Succeeded", "signed by ada")));
        // They are gone and come again, or are needed no more, by another change of the spec.
        for reason in ["SecretNotFound", "InvalidSecret", "VerificationFailed"] {
            let wrong = Some(of_keys("False", reason, "wrong"));
            let failed = say(Say::not_ready(reason, "wrong", Waits::User), wrong);
            let all = ["Ready True Succeeded", "SourceVerified True Succeeded"];
            assert_eq!(told(&failed, &signed), all, "{reason}");
            assert_eq!(told(&failed, &fetched()), all[..1], "{reason}");
        }
        // What it failed for before it was suspended stays, and is no matter of keys.
        let failed = Say::not_ready("SecretNotFound", "no credentials", Waits::User);
        let failed = say(failed, Some(of_keys("True", "Succeeded", "signed by bob")));
        let kept = ["Ready False SecretNotFound", "Stalled True SecretNotFound"];
        assert_eq!(told(&failed, &fetched()), kept);
        let both = [&kept[..], &["SourceVerified True Succeeded"]].concat();
        assert_eq!(told(&failed, &signed), both);
    }
}
