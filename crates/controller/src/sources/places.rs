//! Looks at Git servers: when an answer is new enough, who else is told it, and how a server that does
//! not answer is spared.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plumb_api::GitRepository;
use plumb_source::{
    Cancel, CommitId, Concerns, Looked, Question, Reference, Remote, SourceError, Way,
};

use super::polls::{Ask, Polls, Turn, Verdict};
use super::{Missed, Problem, reference_of, trust};
use crate::daemon::Daemon;
use crate::metrics::{GitOutcome, Kind};
use crate::names::{Key, Name};
use crate::queue::Lane;
use crate::state::{Source, Store};

/// A listing of others answers a look if it is younger than this share of the interval. It has to be
/// less than one, and than what an interval is moved by, so that a look that is due is never answered
/// by the listing that its last one was answered by.
const NEWS: f64 = 0.9;

impl Source {
    /// From when on a listing is news enough: from when somebody asked for a look, and never older
    /// than the interval.
    pub(super) fn since(&self, now: Instant) -> Instant {
        let interval = Duration::from(self.object.spec.interval).mul_f64(NEWS);
        now.checked_sub(interval).map_or(self.asked, |oldest| oldest.max(self.asked))
    }

    /// Whether both read the same repository by the same names, and so with the same credentials.
    fn is_mate(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.object.spec, &other.object.spec);
        let alike = ours.url == theirs.url
            && ours.secret_ref == theirs.secret_ref
            && ours.proxy_secret_ref == theirs.proxy_secret_ref;
        let named = ours.secret_ref.is_some() || ours.proxy_secret_ref.is_some();
        alike && (!named || self.object.metadata.namespace == other.object.metadata.namespace)
    }
}

impl Store {
    /// The others that read the same repository.
    fn mates<'s>(&'s self, of: &'s Name) -> impl Iterator<Item = (&'s Name, &'s Source)> {
        let source = self.sources.get(of);
        let others = self.sources.iter().filter(move |(name, _)| *name != of);
        others.filter(move |(_, other)| {
            !other.object.spec.suspend && source.is_some_and(|source| source.is_mate(other))
        })
    }

    /// What the others follow, those first that have not heard anything for the longest time. Ranges of
    /// versions, which can be long to list, only of those that are due: what lists as often as the
    /// most impatient one has to be short.
    fn followed_by_mates(&self, of: &Name, now: Instant) -> Vec<Reference> {
        let mut mates: Vec<(Option<Instant>, Reference)> = self
            .mates(of)
            .map(|(_, mate)| (mate, reference_of(mate.object.spec.reference.as_ref())))
            .filter(|(mate, reference)| {
                // One that fails looks often, and hears what is new then.
                let is_due = mate.problem.is_none()
                    && mate.looked.is_none_or(|looked| looked < mate.since(now));
                is_due || !matches!(reference, Reference::Semver { .. })
            })
            .map(|(mate, reference)| (mate.looked, reference))
            .collect();
        mates.sort_by_key(|(looked, _)| *looked);
        mates.into_iter().map(|(_, reference)| reference).collect()
    }
}

/// How long a server may take for a listing before it counts as one that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A place at a server, until it is dropped.
pub(super) struct Place {
    daemon: Arc<Daemon>,
    way: Way,
    began: Instant,
    verdict: Verdict,
}

impl Place {
    /// Notes what came of a fetch. That a commit does not come says nothing of the repository.
    pub(super) fn note_fetch<T>(&mut self, fetched: &Result<T, SourceError>) {
        if fetched.is_ok() || matches!(fetched, Err(SourceError::Busy { .. })) {
            self.note(fetched, false);
        }
    }

    /// Notes what came of asking. What is worth more to others is kept.
    fn note<T>(&mut self, asked: &Result<T, SourceError>, listed: bool) {
        let verdict = match asked {
            Ok(_) => Verdict::Answered,
            Err(error) => match verdict_of(error, &self.way, listed) {
                // Who has little time says nothing of the server.
                Verdict::Silent(_) if self.began.elapsed() < PATIENCE => Verdict::Nothing,
                verdict => verdict,
            },
        };
        if verdict != Verdict::Nothing {
            self.verdict = verdict;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let verdict = std::mem::replace(&mut self.verdict, Verdict::Nothing);
        let mut polls = self.daemon.polls();
        polls.leave(&self.way, self.began, verdict, Instant::now());
        self.daemon.run_called(polls);
    }
}

/// What an error says to others; `listed` when the references were listed before it came.
fn verdict_of(error: &SourceError, way: &Way, listed: bool) -> Verdict {
    let problem = Problem::from(error.clone());
    match error.concerns(way) {
        Concerns::Pause { until, all: true } => Verdict::Pause(problem, instant_of(until)),
        Concerns::Pause { until, all: false } => Verdict::PauseOne(problem, instant_of(until)),
        _ if listed => Verdict::Answered,
        Concerns::Host => Verdict::Unreachable(problem),
        Concerns::Silence => Verdict::Silent(problem),
        Concerns::Repository => Verdict::Refused(problem),
        Concerns::Question => Verdict::Nothing,
    }
}

/// A time of the wall clock by ours.
fn instant_of(until: Timestamp) -> Instant {
    let wait = until.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(wait).unwrap_or_default()
}

impl Daemon {
    fn polls(&self) -> MutexGuard<'_, Polls> {
        self.polls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has those run that can go on.
    fn run_called(&self, mut polls: MutexGuard<'_, Polls>) {
        let called = polls.take_called();
        drop(polls);
        for (name, lane) in called {
            self.queue.add(Key::Source(name), lane);
        }
    }

    /// A look has come to its end.
    pub(super) fn give_back(&self, name: &Name) {
        let mut polls = self.polls();
        polls.give_back(name, Instant::now());
        self.run_called(polls);
    }

    /// A GitRepository is gone.
    pub(crate) fn withdraw(&self, name: &Name) {
        let mut polls = self.polls();
        polls.withdraw(name, Instant::now());
        self.run_called(polls);
    }

    /// Everything is looked at anew, at once.
    pub(crate) fn withdraw_all(&self) {
        self.polls().clear();
    }

    /// How many servers are waited for.
    pub(crate) fn servers_waited_for(&self) -> usize {
        self.polls().waited_for(Instant::now())
    }

    /// Takes a place at the server of a repository.
    pub(super) fn enter(self: &Arc<Self>, name: &Name, remote: &Remote) -> Result<Place, Missed> {
        let way = remote.way()?;
        let now = Instant::now();
        let (since, lane) = {
            let store = self.state.lock();
            let source = store.sources.get(name).ok_or(Missed::CutShort)?;
            (source.since(now), if source.called.is_some() { Lane::Urgent } else { Lane::Routine })
        };
        let mut polls = self.polls();
        let turn = polls.enter(&Ask { who: name, way: &way, since, lane }, now);
        self.run_called(polls);
        match turn {
            Turn::Go => {
                let daemon = Arc::clone(self);
                Ok(Place { daemon, way, began: now, verdict: Verdict::Nothing })
            }
            Turn::Park => Err(Missed::Parked),
            Turn::Told(told) => {
                if told.until.is_some() {
                    self.metrics.git_polled(GitOutcome::PutOff);
                }
                if let Some(source) = self.state.lock().sources.get_mut(name) {
                    source.paused = told.until;
                }
                Err(told.problem.into())
            }
        }
    }

    /// Finds out what a GitRepository's ref leads to: by what is known, or by asking its server, and
    /// then for all who read the same repository. The place that this took is for the rest of the look.
    pub(super) async fn look(
        self: &Arc<Self>,
        name: &Name,
        object: &GitRepository,
        remote: &Remote,
    ) -> Result<(Looked, Option<Place>), Missed> {
        let reference = reference_of(object.spec.reference.as_ref());
        let with_tag = trust::wants_tag(object);
        let since = self.state.lock().sources.get(name).map(|source| source.since(Instant::now()));
        let since = since.ok_or(Missed::CutShort)?;
        let known = {
            let (mirrors, remote, reference) =
                (Arc::clone(&self.mirrors), remote.clone(), reference.clone());
            let ask = move |_: &Cancel| {
                let question = Question { reference: &reference, with_tag, others: &[], since };
                mirrors.known(&remote, &question)
            };
            self.blocking(Kind::GitRepository, ask).await?
        };
        if let Some(known) = known {
            if !matches!(reference, Reference::Commit { .. }) {
                self.metrics.git_shared();
            }
            return Ok((known?, None));
        }
        // Who gives tokens may be another server, and no place is held for it.
        let (mirrors, target) = (Arc::clone(&self.mirrors), remote.clone());
        let log_in = move |cancel: &Cancel| mirrors.log_in(&target, cancel);
        self.blocking(Kind::GitRepository, log_in).await??;
        let mut place = self.enter(name, remote)?;
        let began = place.began;
        let others = self.state.lock().followed_by_mates(name, began);
        let (mirrors, target, followed) =
            (Arc::clone(&self.mirrors), remote.clone(), reference.clone());
        let ask = move |cancel: &Cancel| {
            let question = Question { reference: &followed, with_tag, others: &others, since };
            let looked = mirrors.look(&target, &question, cancel);
            let listed = mirrors.listed(&target, &followed, began).is_some();
            let fetched = matches!(followed, Reference::Commit { .. })
                || mirrors.listed(&target, &followed, since).is_some();
            (looked, listed, fetched)
        };
        let (looked, listed, fetched) = self.blocking(Kind::GitRepository, ask).await?;
        if matches!(looked, Err(SourceError::Cancelled)) {
            return Err(Missed::CutShort);
        }
        if fetched && !listed {
            place.note_fetch(&looked);
        } else {
            place.note(&looked, listed);
        }
        match &looked {
            Ok(looked) if looked.listed => self.metrics.git_polled(GitOutcome::Ok),
            Ok(_) => {}
            Err(error) => {
                let until = match error.concerns(&place.way) {
                    Concerns::Pause { until, .. } => Some(instant_of(until)),
                    _ => None,
                };
                let outcome = if until.is_some() { GitOutcome::PutOff } else { GitOutcome::Failed };
                self.metrics.git_polled(outcome);
                if let Some(source) = self.state.lock().sources.get_mut(name) {
                    source.paused = until;
                }
            }
        }
        if listed {
            self.call_mates(name, remote, began);
        }
        Ok((looked?, Some(place)))
    }

    /// Calls the others for whom a listing has news.
    fn call_mates(&self, name: &Name, remote: &Remote, began: Instant) {
        let mates: Vec<(Name, Reference, CommitId)> = {
            let store = self.state.lock();
            let mates = store.mates(name).filter_map(|(name, mate)| {
                // Those that failed look again soon, whatever is new.
                let revision = mate.revision.as_ref().filter(|_| mate.problem.is_none())?;
                let reference = reference_of(mate.object.spec.reference.as_ref());
                Some((name.clone(), reference, revision.commit))
            });
            mates.collect()
        };
        let mut heard: HashMap<Reference, Option<CommitId>> = HashMap::new();
        for (mate, reference, stands_at) in mates {
            let ask = |reference: &Reference| self.mirrors.listed(remote, reference, began);
            let commit = *heard.entry(reference).or_insert_with_key(ask);
            let Some(commit) = commit.filter(|commit| *commit != stands_at) else { continue };
            if let Some(source) = self.state.lock().sources.get_mut(&mate)
                // It may be a tag that the server does not say the commit of.
                && source.told.replace(commit) != Some(commit)
            {
                self.queue.add(Key::Source(mate), Lane::Urgent);
            }
        }
    }

    /// Fetches a commit unless it is here, which takes a place if there is none yet.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        name: &Name,
        remote: &Remote,
        commit: CommitId,
        place: &mut Option<Place>,
    ) -> Result<(), Missed> {
        // Its submodules are brought when it was verified.
        let alone = Remote { submodules: false, ..remote.clone() };
        if self.is_sound(&alone, commit).await {
            return Ok(());
        }
        let place = match place {
            Some(place) => place,
            None => place.insert(self.enter(name, remote)?),
        };
        let (mirrors, target) = (Arc::clone(&self.mirrors), remote.clone());
        let fetch = move |cancel: &Cancel| mirrors.fetch_commit(&target, &commit, cancel);
        let fetched = self.blocking(Kind::GitRepository, fetch).await?;
        place.note_fetch(&fetched);
        Ok(fetched?)
    }

    /// How long after a listing began the next one is due: the interval, moved a little. For all who
    /// heard of that listing by the same, so that those with the same interval go on together.
    pub(super) fn pace(&self, began: Instant, interval: Duration) -> Duration {
        let moment = began.saturating_duration_since(self.started).as_nanos();
        let seed = u64::try_from(moment).unwrap_or(u64::MAX) ^ self.seed();
        moved(interval, fastrand::Rng::with_seed(seed).f64())
    }
}

/// An interval, moved by a number between nothing and one.
pub(crate) fn moved(interval: Duration, by: f64) -> Duration {
    /// Intervals are moved by up to this share, so that objects created together do not stay together.
    const JITTER: f64 = 0.05;
    interval.mul_f64(1.0 + JITTER * (2.0 * by - 1.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::daemon::tests::{Api, Stand};

    fn source(name: &str, spec: &serde_json::Value) -> GitRepository {
        let mut object = json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1},
            "spec": {"url": "https://git.example/repo", "interval": "10m"},
        });
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_answer_is_as_new_as_was_asked_for_and_as_the_interval_says() {
        let mut store = Store::default();
        let name = Name::new("ns", "repo");
        store.put_source(source("repo", &json!({})));
        let known = store.sources.get_mut(&name).unwrap();
        let start = known.asked;
        let minutes = |minutes| start + Duration::from_mins(minutes);
        assert_eq!(known.since(minutes(1)), start, "it was asked for then");
        assert_eq!(known.since(minutes(9)), start);
        assert_eq!(known.since(minutes(30)), minutes(21), "nine tenths of the interval");
        known.asked = minutes(29);
        assert_eq!(known.since(minutes(30)), minutes(29));
        // Whenever the next look is due, what the last one heard is too old for it.
        for by in [0.0, 0.5, 1.0] {
            let due = minutes(40) + moved(Duration::from_mins(10), by);
            assert!(known.since(due) > minutes(40), "{by}");
        }
    }

    #[tokio::test]
    async fn one_listing_is_for_all_who_read_the_same_with_the_same_credentials() {
        let stand = Stand::new(Api::new());
        let mut store = stand.daemon.state.lock();
        for (name, spec) in [
            ("one", json!({"ref": {"branch": "main"}})),
            ("two", json!({"ref": {"branch": "next"}, "interval": "1h"})),
            ("tags", json!({"ref": {"semver": "*"}})),
            ("suspended", json!({"ref": {"branch": "x"}, "suspend": true})),
            ("elsewhere", json!({"ref": {"branch": "x"}, "url": "https://git.example/other"})),
            ("secret", json!({"ref": {"branch": "y"}, "secretRef": {"name": "git"}})),
            ("same", json!({"ref": {"branch": "z"}, "secretRef": {"name": "git"}})),
            ("proxy", json!({"ref": {"branch": "x"}, "proxySecretRef": {"name": "git"}})),
        ] {
            store.put_source(source(name, &spec));
        }
        let mut foreign = source("same", &json!({"secretRef": {"name": "git"}}));
        foreign.metadata.namespace = Some("other".into());
        store.put_source(foreign);
        let now = Instant::now();
        let followed = |store: &Store, name: &str| -> Vec<String> {
            let all = store.followed_by_mates(&Name::new("ns", name), now);
            all.iter().map(ToString::to_string).collect()
        };
        assert_eq!(followed(&store, "one"), ["version \"*\"", "branch \"next\""]);
        assert_eq!(followed(&store, "secret"), ["branch \"z\""]);
        assert!(followed(&store, "elsewhere").is_empty());
        // Versions are listed for those that are due, the rest always.
        for name in ["tags", "two"] {
            store.sources.get_mut(&Name::new("ns", name)).unwrap().looked = Some(now);
        }
        assert_eq!(followed(&store, "one"), ["branch \"next\""]);
        store.sources.get_mut(&Name::new("ns", "tags")).unwrap().asked = now + NANO;
        assert_eq!(followed(&store, "one").len(), 2, "somebody asked for it");
    }

    const NANO: Duration = Duration::from_nanos(1);

    #[tokio::test]
    async fn those_who_heard_the_same_are_due_together_and_others_are_not() {
        let daemon = &Stand::new(Api::new()).daemon;
        let interval = Duration::from_secs(1000);
        let start = Instant::now();
        let paces: Vec<Duration> = (0..200)
            .map(|second| daemon.pace(start + Duration::from_secs(second), interval))
            .collect();
        for (second, pace) in (0..).zip(&paces) {
            assert!((950..=1050).contains(&pace.as_secs()), "{pace:?}");
            assert_eq!(daemon.pace(start + Duration::from_secs(second), interval), *pace);
        }
        let (least, most) = (paces.iter().min().unwrap(), paces.iter().max().unwrap());
        assert!(most.saturating_sub(*least) > Duration::from_secs(80), "{least:?} to {most:?}");
    }
}
