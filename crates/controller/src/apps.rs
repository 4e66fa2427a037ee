//! One run of an Application: find its revision, render what changed, make the cluster match, say
//! what was done.

mod build;
mod farewell;
pub(crate) mod how;
mod others;
mod policy;
mod say;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plumb_api::conditions::reasons;
use plumb_api::{Application, ApplicationStatus, Mode, names};
use plumb_core::{Digest, Object};
use plumb_engine::{
    ApiError, ApplySet, Change, EngineError, Ignores, Job, Others, Parent, Policy, Report, Resource,
};
use plumb_source::Revision;

use self::build::{Base, Blocked, Built, Failed};
use self::policy::{ignores_of, policy_of};
use crate::daemon::{Daemon, PANICKED, chain};
use crate::metrics::Outcome;
use crate::names::{Key, Name};
use crate::queue::Lane;
use crate::sources::revision_of;
use crate::state::{
    Looked, Rendered, annotation, epoch_of, has_facts, has_finalizer, recorded_scope, scope_of,
    settled_kinds,
};
use crate::status::{
    Drifted, Say, Waits, apply_report, blind_text, brief, count_drift, failed_before, fights_text,
    is_another_outcome, list_failures, remember, revision_to_tell, say_of_report, with_hint,
};

/// How long an Application without `retryInterval` waits at most between tries: long enough not to
/// matter in numbers, short enough that nobody waits for it after mending the cause.
const RETRY_CAP: Duration = Duration::from_mins(1);

/// What one run works on, copied out of the state.
#[derive(Clone)]
struct Run {
    name: Name,
    object: Arc<Application>,
    set: Arc<ApplySet>,
    rendered: Option<Rendered>,
    before: ApplicationStatus,
    forced: bool,
    orphans: bool,
    wanted: u64,
    /// How what is live differs from Git for longer than a moment.
    drifted: Option<Drifted>,
    /// Fields that others may decide.
    ignores: Arc<Ignores>,
}

impl Run {
    fn looks_at(&self, base: &Base) -> Looked {
        (base.revision.commit, self.object.metadata.generation)
    }
}

impl Daemon {
    /// Runs an Application once and plans its next run.
    pub(crate) async fn run_app(self: &Arc<Self>, name: &Name) -> Outcome {
        let Some(mut run) = self.begin(name) else { return Outcome::Unchanged };
        let metadata = &run.object.metadata;
        if metadata.deletion_timestamp.is_some() {
            if has_finalizer(metadata) {
                return self.say_farewell(&run).await;
            }
            return Outcome::Unchanged;
        }
        if run.object.spec.suspend {
            self.say_suspended(&run).await;
            return Outcome::Waiting;
        }
        if self.rests(&run) {
            return Outcome::Waiting;
        }
        let scope = scope_of(&run.object, Some(&run.before));
        if let Err(error) = self.engine.watch(&scope.kinds).await {
            return self.failed_run(&run, None, &error).await;
        }
        let pending = self.engine.pending(&scope.kinds);
        if !pending.is_empty() {
            // Nothing is held while the first LISTs are under way: their end calls again.
            self.wait_for(&run, &pending);
            return Outcome::Waiting;
        }
        run.drifted = self.drifted(&run.set, &scope.kinds);
        let (ignores, wrong) = ignores_of(&run.object.spec);
        run.ignores = Arc::new(ignores);
        if let Some(message) = wrong {
            let reason = reasons::INVALID_SPEC.into();
            return self.blocked(&run, Blocked { reason, message, waits: Waits::User }).await;
        }
        match self.base(&run) {
            Ok(base) => self.converge(&run, base).await,
            Err(blocked) => self.blocked(&run, blocked).await,
        }
    }

    fn begin(&self, name: &Name) -> Option<Run> {
        let mut store = self.state.lock();
        let app = store.apps.get_mut(name)?;
        app.waits_for.clear();
        Some(Run {
            name: name.clone(),
            object: Arc::clone(&app.object),
            set: Arc::clone(&app.set),
            rendered: app.rendered.clone(),
            before: app.written.clone().or_else(|| app.object.status.clone()).unwrap_or_default(),
            forced: std::mem::take(&mut app.forced),
            orphans: app.orphans,
            wanted: app.wanted,
            drifted: None,
            ignores: Arc::default(),
        })
    }

    /// Puts a run off for as long as the API server asked to be left alone, whatever called for it.
    fn rests(&self, run: &Run) -> bool {
        let left = {
            let mut store = self.state.lock();
            let Some(app) = store.apps.get_mut(&run.name) else { return false };
            let left = app.rests_until.map(|end| end.saturating_duration_since(Instant::now()));
            let Some(left) = left.filter(|left| !left.is_zero()) else { return false };
            app.forced |= run.forced;
            left
        };
        self.queue.add_after(Key::App(run.name.clone()), left, Lane::Routine);
        true
    }

    /// How what is live differs from Git for longer than a moment, as far as the engine knows.
    fn drifted(&self, set: &ApplySet, kinds: &BTreeSet<plumb_core::GroupKind>) -> Option<Drifted> {
        fights_text(&self.engine.fights(set)).or_else(|| blind_text(&self.engine.blind(kinds)))
    }

    fn wait_for(&self, run: &Run, kinds: &BTreeSet<plumb_core::GroupKind>) {
        {
            let mut store = self.state.lock();
            let Some(app) = store.apps.get_mut(&run.name) else { return };
            app.waits_for.clone_from(kinds);
            app.forced |= run.forced;
        }
        self.plan_interval(run);
        // If the watch of one of them never says a word, this looks after it.
        self.queue.add_after(Key::App(run.name.clone()), RETRY_CAP, Lane::Routine);
        // One of them may have been listed between the look and this note of it.
        if self.engine.pending(kinds).is_empty() {
            self.queue.add(Key::App(run.name.clone()), Lane::Urgent);
        }
    }

    /// There is no revision to run. What was applied last stays enforced as long as it is at hand.
    async fn blocked(self: &Arc<Self>, run: &Run, blocked: Blocked) -> Outcome {
        self.again(run);
        let mut say = Say::not_ready(&blocked.reason, blocked.message.clone(), blocked.waits);
        let sound = run.rendered.clone().filter(|r| !r.broken && !r.refused);
        let mut kept = true;
        if let Some(rendered) = sound.or_else(|| self.last_good(run)) {
            let revision = brief(&rendered.revision);
            kept = self.enforce(run, rendered.into()).await;
            let how = if kept { "and is kept as it is" } else { "but not all of it is in place" };
            say.message = format!("{}; {revision} stays applied {how}", blocked.message);
        } else if run.before.last_applied_revision.is_some() {
            say.message =
                format!("{}; until then nothing is corrected and nothing pruned", blocked.message);
        }
        // The first look at a source takes a moment; a status that says so helps nobody.
        let starting = blocked.reason == reasons::SOURCE_NOT_READY && {
            let name = Name::new(&run.name.namespace, &run.object.spec.source_ref.name);
            let store = self.state.lock();
            store.sources.get(&name).is_some_and(|source| source.problem.is_none())
        };
        if !starting {
            let status = Self::status_with(run, &say, |_| {});
            self.say_app(run, status, &say, None).await;
        }
        self.plan_kept(run, kept);
        Outcome::Waiting
    }

    async fn converge(self: &Arc<Self>, run: &Run, base: Base) -> Outcome {
        let known = run.rendered.as_ref().filter(|r| r.how == base.how && r.remote == base.remote);
        if let Some(known) = known
            && !run.forced
        {
            let same = known.revision.commit == base.revision.commit
                || self.inputs_unchanged(known, &base).await;
            if same {
                self.remember_render(run, |rendered| rendered.revision = base.revision.clone());
                self.looked(&run.name, run.looks_at(&base));
                if known.broken {
                    let kept = self.enforce_last_good(run, &base).await;
                    self.plan_kept(run, kept);
                    return Outcome::Stalled;
                }
                if known.settled && run.drifted_is_told() && self.engine.in_sync(&run.set) {
                    self.note_clean(run, base.seq);
                    self.plan_interval(run);
                    return Outcome::Unchanged;
                }
            }
        }
        let (built, inputs) = match self.build(run, &base).await {
            Ok(built) => built,
            Err(Failed::CutShort) => {
                // Who leads next looks at everything; one whose renewal was only late looks again.
                self.again(run);
                self.plan_retry(run, "");
                return Outcome::Retry;
            }
            Err(Failed::Because { reason, message, class }) => {
                self.looked(&run.name, run.looks_at(&base));
                let say = Say::not_ready(&reason, message, class.into());
                let status = Self::status_with(run, &say, |status| {
                    status.last_attempted_revision = Some(base.revision.to_string());
                });
                // Otherwise equal inputs would end the next run before it says that this has passed.
                self.again(run);
                self.say_app(run, status, &say, Some(&base.revision)).await;
                self.enforce_last_good(run, &base).await;
                self.plan_retry(run, &base.revision.to_string());
                return Outcome::Retry;
            }
        };
        if let Built::Objects(objects) = &built
            && run.before.last_applied_revision.is_none()
        {
            // What an earlier Application of this name left behind must be known before the first
            // run says that all is in place.
            let kinds = objects.iter().map(|object| object.gvk().group_kind()).collect();
            if let Err(error) = self.engine.watch(&kinds).await {
                return self.failed_run(run, Some(&base.revision), &error).await;
            }
            let pending = self.engine.pending(&kinds);
            if !pending.is_empty() {
                self.wait_for(run, &pending);
                return Outcome::Waiting;
            }
        }
        let rendered = Rendered {
            remote: base.remote.clone(),
            revision: base.revision.clone(),
            how: Arc::clone(&base.how),
            inputs: Arc::new(inputs),
            settled: false,
            broken: matches!(built, Built::Broken { .. }),
            refused: false,
        };
        self.store_render(run, rendered);
        match built {
            Built::Objects(objects) => self.apply(run, &base, objects).await,
            Built::Broken { reason, message, problems } => {
                self.note_broken(run, base.seq);
                self.looked(&run.name, run.looks_at(&base));
                let revision = base.revision.to_string();
                let say =
                    Say::not_ready(reason, format!("{}: {message}", brief(&revision)), Waits::User);
                let now = Timestamp::now();
                let status = Self::status_with(run, &say, |status| {
                    status.last_attempted_revision = Some(revision.clone());
                    status.failure_count = i64::try_from(problems.len()).ok();
                    status.failures = problems;
                    status.failures.truncate(plumb_api::MAX_FAILURES);
                    let new = run.before.last_attempted_revision.as_ref() != Some(&revision);
                    if new {
                        remember(&mut status.history, &revision, None, Some(&message), now);
                    }
                });
                self.say_app(run, status, &say, Some(&base.revision)).await;
                let kept = self.enforce_last_good(run, &base).await;
                self.plan_kept(run, kept);
                Outcome::Stalled
            }
        }
    }

    async fn apply(self: &Arc<Self>, run: &Run, base: &Base, objects: Vec<Object>) -> Outcome {
        let first_look = run.rendered.is_none();
        let looks_at = Some(run.looks_at(base));
        let (report, result) =
            self.sync(run, objects, &policy_of(&run.object.spec), looks_at, first_look).await;
        self.note_kept(run, base, &report, &result);
        let drifted = self.drifted(&run.set, &report.scope.kinds);
        let run = &Run { drifted, ..run.clone() };
        if let Err(error) = result {
            self.tell(run, &report, &base.revision.to_string());
            return self.cut_short(run, Some(&base.revision), &error, &report).await;
        }
        if report.superseded {
            // The newer run is in the queue already, and will say how it went. It finds what this
            // one has done as it should be, so only this one can tell that.
            self.tell(run, &report, &base.revision.to_string());
            self.again(run);
            return Outcome::Unchanged;
        }
        let quiet = self.note_waits(run, report.waits);
        if quiet && report.failures.is_empty() && report.terminating.is_empty() {
            // The next run comes with the last of those that are waited for, and says how it went.
            self.tell(run, &report, &base.revision.to_string());
            self.again(run);
            self.plan_retry(run, &base.revision.to_string());
            return Outcome::Waiting;
        }
        if let Some(again) = report.again
            && report.failures.is_empty()
            && report.terminating.is_empty()
        {
            // What was just defined is not served yet: that is no failure so far.
            self.tell(run, &report, &base.revision.to_string());
            self.again(run);
            self.queue.add_after(Key::App(run.name.clone()), again, Lane::Urgent);
            return Outcome::Waiting;
        }
        if let Some(observed) = &report.observed {
            return self.say_observed(run, base, &report, observed).await;
        }
        let generation = run.object.metadata.generation;
        let newest = base.revision.to_string();
        let revision = revision_to_tell(&run.before, &report, generation, &newest).to_owned();
        // What is held or left is in the status, so the run after its end has something to say.
        let settled = report.is_complete()
            && report.held.is_none()
            && report.left == 0
            && report.handed_over == 0
            && report.kept.is_empty();
        self.remember_render(run, |rendered| {
            rendered.settled = settled;
            rendered.refused = report.refused;
        });
        if settled {
            self.note_clean(run, base.seq);
        }
        if report.is_complete() {
            self.remember_good(run);
        }
        let say = say_of_report(&report, &revision, &run.name.namespace, &run.name.name);
        let now = Timestamp::now();
        let worked = !report.failures.is_empty()
            || report.outcomes.iter().any(|outcome| outcome.change != Change::Verified)
            || !report.pruned.is_empty()
            || run.before.last_applied_revision.as_deref() != Some(revision.as_str());
        let status = Self::status_with(run, &say, |status| {
            apply_report(status, &report, &revision, now);
            if let Some(scope) = &mut status.scope {
                scope.settled_for.clone_from(&run.object.metadata.uid);
            }
            if is_another_outcome(&status.history, &revision, &report) {
                let failed = (!report.failures.is_empty()).then_some(say.message.as_str());
                let digest = report.desired.map(|digest| digest.to_string());
                remember(&mut status.history, &revision, digest, failed, now);
            }
        });
        self.say_app(run, status, &say, Some(&base.revision)).await;
        self.tell(run, &report, &revision);
        if self.drifted(&run.set, &report.scope.kinds) != run.drifted {
            self.queue.add(Key::App(run.name.clone()), Lane::Routine);
        }
        if report.refused {
            self.enforce_last_good(run, base).await;
        }
        if report.is_complete() {
            self.succeeded(run);
            self.plan_interval(run);
        } else {
            self.plan_retry_in(run, &base.revision.to_string(), report.rest);
            if let Some(again) = report.again {
                self.queue.add_after(Key::App(run.name.clone()), again, Lane::Routine);
            }
        }
        self.keep_commits(&Name::new(&run.name.namespace, &run.object.spec.source_ref.name)).await;
        match say.waits {
            Some(Waits::Retry) => Outcome::Retry,
            Some(Waits::User) if report.held.is_some() => Outcome::Waiting,
            Some(Waits::User) => Outcome::Stalled,
            None if worked => Outcome::Changed,
            None => Outcome::Unchanged,
        }
    }

    async fn sync(
        self: &Arc<Self>,
        run: &Run,
        objects: Vec<Object>,
        policy: &Policy,
        looks_at: Option<Looked>,
        first_look: bool,
    ) -> (Report, Result<(), EngineError>) {
        let digests = (run.before.digest.as_deref().and_then(Digest::parse))
            .zip(run.before.cluster_digest.as_deref().and_then(Digest::parse));
        let superseded = self.superseded(run);
        let others = self.neighbours(run, looks_at);
        let mut job = self.job(run, objects, policy, &superseded, &others);
        job.recorded = digests.filter(|_| first_look);
        let limit = Duration::from(run.object.spec.timeout);
        let mut report = Report::default();
        let result = tokio::time::timeout(limit, self.engine.sync(job, &mut report)).await;
        (report, result.unwrap_or_else(|_| Err(out_of_time(run))))
    }

    /// Whether a newer run of it waits.
    fn superseded(&self, run: &Run) -> impl Fn() -> bool + Sync + use<> {
        let (state, name, wanted) = (self.state.clone(), run.name.clone(), run.wanted);
        move || state.lock().apps.get(&name).is_none_or(|app| app.wanted != wanted)
    }

    fn job<'a>(
        &self,
        run: &'a Run,
        objects: Vec<Object>,
        policy: &'a Policy,
        superseded: &'a (dyn Fn() -> bool + Sync),
        others: &'a dyn Others,
    ) -> Job<'a> {
        Job {
            set: &run.set,
            parent: parent(run),
            objects,
            policy,
            ignores: &run.ignores,
            approved: annotation(&run.object.metadata, names::APPROVE_PRUNE).map(String::from),
            recorded: None,
            epoch: self.epoch(),
            superseded,
            others,
        }
    }

    /// What is wanted cannot be applied at all: what was applied last is kept in place. Returns
    /// whether all of it is.
    async fn enforce_last_good(self: &Arc<Self>, run: &Run, wanted: &Base) -> bool {
        let last = if let Some(good) = self.last_good(run) {
            good.into()
        } else {
            // After a restart only the revision is known.
            let last = run.before.last_applied_revision.as_deref();
            let Some(revision) = last.and_then(revision_of) else { return true };
            let (remote, how) = (wanted.remote.clone(), Arc::clone(&wanted.how));
            Base { remote, revision, how, seq: wanted.seq }
        };
        self.enforce(run, last).await
    }

    /// Corrects drift to something else than what is wanted. Nothing is pruned, and the only thing
    /// said is what was corrected. Returns whether all of it is in place.
    async fn enforce(self: &Arc<Self>, run: &Run, base: Base) -> bool {
        if run.object.spec.mode == Mode::Observe {
            return true;
        }
        let kept = self.state.lock().apps.get(&run.name).and_then(|app| app.kept.clone());
        if kept == Some(base.what()) && self.engine.in_sync(&run.set) {
            return true;
        }
        let Ok((Built::Objects(objects), _)) = self.build(run, &base).await else { return false };
        let policy = Policy { prune: false, validate: false, ..policy_of(&run.object.spec) };
        let (report, result) = self.sync(run, objects, &policy, None, run.rendered.is_none()).await;
        self.tell(run, &report, &base.revision.to_string());
        if let Err(error) = &result {
            tracing::warn!(application = %run.name, "cannot correct drift: {}", chain(error));
        }
        self.note_kept(run, &base, &report, &result);
        result.is_ok() && report.is_complete()
    }

    /// The run could not begin.
    async fn failed_run(
        self: &Arc<Self>,
        run: &Run,
        revision: Option<&Revision>,
        error: &EngineError,
    ) -> Outcome {
        self.cut_short(run, revision, error, &Report::default()).await
    }

    /// The run had to end before all was tried; `done` is what it did until there.
    async fn cut_short(
        self: &Arc<Self>,
        run: &Run,
        revision: Option<&Revision>,
        error: &EngineError,
        done: &Report,
    ) -> Outcome {
        self.again(run);
        if let EngineError::StaleEpoch { theirs, .. } = error {
            // Whoever leads now writes the status, unless we do.
            if self.outlasts(*theirs) {
                self.queue.add(Key::App(run.name.clone()), Lane::Urgent);
            } else {
                tracing::warn!(application = %run.name, "{}", chain(error));
                self.plan_retry(run, "");
            }
            return Outcome::Retry;
        }
        if matches!(error, EngineError::ParentGone { .. }) {
            return Outcome::Unchanged;
        }
        if matches!(error.api(), Some(ApiError::NotLeading { .. })) {
            // A new leader looks at everything anyway; a renewal that was only late is followed by
            // nothing.
            self.plan_retry(run, "");
            return Outcome::Retry;
        }
        let mut message = with_hint(chain(error), Some(cure_of(error).to_owned()));
        if let Some(failed) = failed_before(done) {
            message = format!("{message}; {failed}");
        }
        tracing::warn!(application = %run.name, "{message}");
        let reason = match error {
            EngineError::OutOfTime { .. } => reasons::TIMED_OUT,
            error if error.api().is_some_and(ApiError::is_forbidden) => reasons::ACCESS_DENIED,
            _ => reasons::CLUSTER_UNAVAILABLE,
        };
        let say = Say::not_ready(reason, message, error.class().into());
        let status = Self::status_with(run, &say, |status| {
            if let Some(revision) = revision {
                status.last_attempted_revision = Some(revision.to_string());
            }
            count_drift(status, done, Timestamp::now());
            list_failures(status, done);
        });
        self.say_app(run, status, &say, revision).await;
        self.plan_retry(run, &revision.map(ToString::to_string).unwrap_or_default());
        Outcome::Retry
    }

    /// A run panicked: a mistake of ours, told where its owner looks.
    pub(crate) async fn panicked_app(self: &Arc<Self>, name: &Name) {
        let Some(run) = self.begin(name) else { return };
        self.again(&run);
        let say = Say::not_ready(reasons::INTERNAL_ERROR, PANICKED, Waits::User);
        let status = Self::status_with(&run, &say, |_| {});
        self.say_app(&run, status, &say, None).await;
        self.plan_retry(&run, "panic");
    }

    fn store_render(&self, run: &Run, rendered: Rendered) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.rendered = Some(rendered);
        }
    }

    fn remember_render(&self, run: &Run, change: impl FnOnce(&mut Rendered)) {
        let mut store = self.state.lock();
        if let Some(rendered) = store.apps.get_mut(&run.name).and_then(|app| app.rendered.as_mut())
        {
            change(rendered);
        }
    }

    /// What was just applied is what stays enforced from now on.
    fn remember_good(&self, run: &Run) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.good.clone_from(&app.rendered);
        }
    }

    /// Notes what is in place as a whole, so that what was applied in part is put back or tried again
    /// when there is nothing newer to apply.
    fn note_kept(&self, run: &Run, base: &Base, report: &Report, result: &Result<(), EngineError>) {
        if report.refused {
            return;
        }
        let whole = result.is_ok() && report.is_complete();
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.kept = whole.then(|| base.what());
        }
    }

    fn last_good(&self, run: &Run) -> Option<Rendered> {
        self.state.lock().apps.get(&run.name)?.good.clone()
    }

    /// What made this run necessary still does.
    fn again(&self, run: &Run) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.forced = true;
        }
    }

    fn succeeded(&self, run: &Run) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.backoff.succeeded();
        }
    }

    fn plan_interval(&self, run: &Run) {
        let wait = self.jitter(run.object.spec.interval.into());
        let wait = self.engine.next_due(&run.set).map_or(wait, |due| due.min(wait));
        self.queue.add_after(Key::App(run.name.clone()), wait, Lane::Routine);
    }

    /// Plans the next look while what was applied last is kept: soon, if not all of it is in place.
    fn plan_kept(&self, run: &Run, kept: bool) {
        if kept {
            self.plan_interval(run);
        } else {
            self.plan_retry(run, "enforce");
        }
    }

    fn plan_retry(&self, run: &Run, revision: &str) {
        self.plan_retry_in(run, revision, None);
    }

    /// Plans the next try, not before the server's `rest` is over.
    fn plan_retry_in(&self, run: &Run, revision: &str, rest: Option<Duration>) {
        let spec = &run.object.spec;
        let cap = spec.retry_interval.map_or(RETRY_CAP, Duration::from);
        let generation = run.object.metadata.generation.unwrap_or(0);
        let wait = {
            let mut store = self.state.lock();
            let Some(app) = store.apps.get_mut(&run.name) else { return };
            app.rests_until = rest.map(|rest| Instant::now() + rest);
            app.backoff.failed(generation, revision, cap)
        };
        let wait = wait.max(rest.unwrap_or_default());
        self.queue.add_after(Key::App(run.name.clone()), wait, Lane::Routine);
    }
}

/// What helps against an error that ended a run.
fn cure_of(error: &EngineError) -> &'static str {
    match error.api() {
        _ if matches!(error, EngineError::OutOfTime { .. }) => {
            "the next run goes on where this one ended; spec.timeout gives it more time"
        }
        Some(error) if error.is_forbidden() => "give that right to Plumb's account",
        Some(error) if error.is_too_many_requests() => {
            "the API server is busy; this is tried again by itself"
        }
        Some(ApiError::Timeout { .. } | ApiError::Transport { .. }) => {
            "the API server, or the way to it, failed; this is tried again by itself"
        }
        _ => "this is tried again by itself",
    }
}

fn out_of_time(run: &Run) -> EngineError {
    EngineError::OutOfTime { parent: run.set.owner(), limit: run.object.spec.timeout.into() }
}

fn parent(run: &Run) -> Parent {
    let metadata = &run.object.metadata;
    let annotations = metadata.annotations.clone().unwrap_or_default();
    Parent {
        resource: application_resource(),
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata
            .resource_version
            .as_deref()
            .and_then(|v| v.parse().ok())
            .unwrap_or(0),
        has_facts: has_facts(metadata, &run.set),
        hints: plumb_engine::Scope::from_annotations(&annotations),
        recorded: recorded_scope(Some(&run.before)),
        epoch: epoch_of(metadata),
        finalizer: names::FINALIZER,
        created: metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        settled: settled_kinds(&run.before, metadata.uid.as_deref()),
    }
}

/// The kind of our parents.
pub(crate) fn application_resource() -> Resource {
    Resource::known(plumb_core::Gvk::new(names::API_VERSION, "Application"), "applications", true)
}
