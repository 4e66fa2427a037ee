//! One run of an Application: find its revision, render what changed, make the cluster match, say
//! what was done.

pub(crate) mod after;
mod apply;
mod build;
mod cut;
pub(crate) mod due;
mod farewell;
pub(crate) mod how;
mod keep;
pub(crate) mod others;
mod plan;
mod policy;
mod say;
pub(crate) mod values;
pub(crate) mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use plumb_api::conditions::{READY, reasons};
use plumb_api::{Application, ApplicationSpec, ApplicationStatus, Condition, names};
use plumb_engine::{Account, ApplySet, Ignores, Resource, Sabotage, Transient, leaves_out};

use self::build::{Base, Blocked, Built, Failed};
use self::due::{Due, Pause};
use self::keep::{Stays, and_stays};
use self::policy::ignores_of;
use self::values::Given;
use crate::checks;
use crate::daemon::Daemon;
use crate::depends::{self, Unready};
use crate::metrics::Outcome;
use crate::names::{Key, Name};
use crate::state::{Looked, Rendered, annotation, has_finalizer, scope_of};
use crate::status::{
    Drifted, Say, Waits, blind_text, brief, fights_text, recorded_transient, remember,
};

/// What one run works on, copied out of the state.
#[derive(Clone)]
struct Run {
    name: Name,
    object: Arc<Application>,
    set: Arc<ApplySet>,
    rendered: Option<Arc<Rendered>>,
    before: ApplicationStatus,
    /// What that says of objects that go by themselves.
    transient: Arc<BTreeMap<String, Transient>>,
    forced: bool,
    news: bool,
    pause: Pause,
    /// A person asked for it.
    asked: bool,
    orphans: bool,
    wanted: u64,
    /// How what is live differs from Git for longer than a moment.
    drifted: Option<Drifted>,
    /// Fields that others may decide.
    ignores: Arc<Ignores>,
    /// Its objects' health is asked for.
    asks: bool,
    /// What is wrong with its rules for health.
    misruled: Option<String>,
    /// What is said of health while something else keeps it from being ready.
    healthy: Option<Condition>,
}

impl Run {
    fn looks_at(&self, base: &Base) -> Looked {
        (base.revision.commit, self.object.metadata.generation)
    }

    /// Whether it was told to be ready as it is asked for now.
    fn was_ready(&self) -> bool {
        let told = &self.before;
        told.observed_generation == self.object.metadata.generation
            && told.conditions.iter().any(|c| c.type_ == READY && c.status == "True")
    }
}

impl Daemon {
    /// Runs an Application once and plans its next run.
    pub(crate) async fn run_app(self: &Arc<Self>, name: &Name) -> Outcome {
        let Some(mut run) = self.begin(name) else { return Outcome::Unchanged };
        run.healthy = self.healthy_beside(&run);
        match self.due(&run) {
            Due::Run => {}
            Due::Correct if self.engine.check_account(&run.set).is_err() => {
                self.plan_as_before(&run);
                return Outcome::Waiting;
            }
            Due::Correct => return self.correct_drift(&run).await,
            Due::Later(wait, lane) => {
                self.queue.add_after(Key::App(name.clone()), wait, lane);
                if run.pause.rest.is_none() {
                    self.say_beside(&run).await;
                }
                return Outcome::Waiting;
            }
        }
        let metadata = &run.object.metadata;
        if metadata.deletion_timestamp.is_some() {
            if has_finalizer(metadata) {
                return self.say_farewell(&run).await;
            }
            return Outcome::Unchanged;
        }
        if let Err(error) = self.engine.check_account(&run.set) {
            // Nothing is asked for it, and nobody waits for what it wants.
            if let Ok(base) = self.base(&run, Given::default()) {
                self.looked(&run.name, run.looks_at(&base));
            }
            if run.object.spec.suspend {
                self.say_suspended(&run).await;
                return Outcome::Waiting;
            }
            return self.failed_run(&run, None, &error).await;
        }
        if run.object.spec.suspend {
            self.wait_no_more(&run);
            self.say_suspended(&run).await;
            self.speak(&run).await;
            return Outcome::Waiting;
        }
        let scope = scope_of(&run.object, Some(&run.before));
        let asked = annotation(&run.object.metadata, names::REQUESTED_AT);
        if asked != run.before.last_handled_reconcile_at.as_deref()
            && (!run.was_ready() || self.engine.may_have_changed(&scope.kinds))
            && self.state.lock().kinds_are_due(name)
        {
            // Somebody may just have installed what was missing, or changed a definition.
            self.engine.look_at_kinds_again().await;
        }
        if let Err(error) = self.engine.watch(&scope.kinds).await {
            return self.failed_run(&run, None, &error).await;
        }
        if self.waits_for(&run, &scope.kinds) {
            // Nothing is held while the first LISTs are under way: their end calls again.
            return Outcome::Waiting;
        }
        run.drifted = self.drifted(&run.set, &scope.kinds);
        let (ignores, wrong) = ignores_of(&run.object.spec);
        run.ignores = Arc::new(ignores);
        if let Some(message) = wrong {
            let reason = reasons::INVALID_SPEC.into();
            let blocked = Blocked { reason, message, waits: Waits::User, again: false };
            return self.blocked(&run, blocked).await;
        }
        if let Some((field, index, namespace)) = elsewhere(&run)
            && !self.may_name_elsewhere()
        {
            let message = format!(
                "spec.{field}[{index}] names something in namespace {namespace}, and this agent lets \
                 an Application name only what is in its own: it runs with --no-cross-namespace-refs"
            );
            let reason = reasons::ACCESS_DENIED.into();
            let blocked = Blocked { reason, message, waits: Waits::User, again: false };
            return self.blocked(&run, blocked).await;
        }
        if let Some(message) = run.misruled.clone() {
            let reason = reasons::INVALID_CEL_EXPRESSION.into();
            let blocked = Blocked { reason, message, waits: Waits::User, again: false };
            return self.blocked(&run, blocked).await;
        }
        let unready = self.unready(&run);
        if let Some(unready) = &unready
            && unready.reason != reasons::DEPENDENCY_NOT_READY
        {
            return self.wait_for_others(&run, None, unready.clone()).await;
        }
        let values = match self.values(&run).await {
            Ok(values) => values,
            Err(why) => {
                // What it waits for may bring them.
                return match unready {
                    Some(unready) => self.wait_for_others(&run, None, unready).await,
                    None => self.without_values(&run, why).await,
                };
            }
        };
        match self.base(&run, values) {
            Ok(base) => self.converge(&run, base, unready).await,
            Err(blocked) => self.blocked(&run, blocked).await,
        }
    }

    fn begin(&self, name: &Name) -> Option<Run> {
        let mut store = self.state.lock();
        let app = store.apps.get_mut(name)?;
        let account = self.account(&app.object.spec, &name.namespace);
        if account.as_ref() != app.set.account.as_deref() {
            app.set = Arc::new(ApplySet::clone(&app.set).acting_as(account));
            // What one account could read another may not.
            app.found = Arc::default();
            store.note_dependencies(name);
        }
        let app = store.apps.get_mut(name)?;
        let before = app.status().cloned().unwrap_or_default();
        Some(Run {
            name: name.clone(),
            object: Arc::clone(&app.object),
            set: Arc::clone(&app.set),
            rendered: app.rendered.clone(),
            transient: Arc::new(recorded_transient(&before, app.asks)),
            before,
            forced: std::mem::take(&mut app.forced),
            news: std::mem::take(&mut app.news),
            pause: app.pause,
            asked: std::mem::take(&mut app.asked),
            orphans: app.orphans,
            wanted: app.wanted,
            drifted: None,
            ignores: Arc::default(),
            asks: app.asks,
            misruled: app.rules.as_ref().and_then(|(_, rules)| rules.as_ref().err().cloned()),
            healthy: None,
        })
    }

    /// Who acts for an Application.
    fn account(&self, spec: &ApplicationSpec, namespace: &str) -> Option<Account> {
        let name = spec.service_account_name.as_ref().or(self.default_account())?;
        Some(Account { namespace: namespace.into(), name: name.clone() })
    }

    /// How what is live differs from Git for longer than a moment, as far as the engine knows.
    fn drifted(&self, set: &ApplySet, kinds: &BTreeSet<plumb_core::GroupKind>) -> Option<Drifted> {
        fights_text(&self.engine.fights(set)).or_else(|| blind_text(&self.engine.blind(kinds)))
    }

    /// There is no revision to run. What was applied last stays enforced as long as it is at hand.
    async fn blocked(self: &Arc<Self>, run: &Run, blocked: Blocked) -> Outcome {
        self.blocked_at(run, blocked, None).await
    }

    /// The same, where it is known how the revision would be rendered.
    async fn blocked_at(
        self: &Arc<Self>,
        run: &Run,
        blocked: Blocked,
        base: Option<&Base>,
    ) -> Outcome {
        self.again(run);
        self.wait_no_more(run);
        let mut say = Say::not_ready(&blocked.reason, blocked.message.clone(), blocked.waits);
        let mut kept = true;
        if let Some(stays) = self.keep_last(run, base).await {
            kept = Stays::whole(Some(&stays));
            say.message = and_stays(blocked.message, Some(&stays));
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
        if blocked.again {
            self.plan_retry(run, "");
        } else {
            self.plan_kept(run, kept);
        }
        Outcome::Waiting
    }

    async fn converge(
        self: &Arc<Self>,
        run: &Run,
        base: Base,
        unready: Option<Unready>,
    ) -> Outcome {
        let trusted = self.trusts(run, &base);
        let known = run.rendered.as_ref().filter(|r| r.how == base.how && r.remote == base.remote);
        let known = known.filter(|_| trusted);
        // One that is to run anyway need not know, unless it may have to wait.
        if let Some(known) = known.filter(|_| !run.forced || unready.is_some()) {
            let same = known.revision.commit == base.revision.commit
                || self.inputs_unchanged(known, &base).await;
            if let Some(unready) = unready.clone().filter(|_| !same) {
                return self.wait_for_others(run, Some(&base), unready).await;
            }
            if same && !run.forced {
                self.remember_render(run, |rendered| rendered.revision = base.revision.clone());
                self.looked(&run.name, run.looks_at(&base));
                if known.broken {
                    let stays = self.enforce_last_good(run, &base).await;
                    self.say_beside(run).await;
                    self.plan_kept(run, Stays::whole(stays.as_ref()));
                    return Outcome::Stalled;
                }
                if known.settled && run.drifted_is_told() && self.is_at_rest(run, known) {
                    if leaves_out(Sabotage::WritesAtRest) {
                        self.write_app(run, &run.before).await;
                    }
                    self.note_clean(run, base.seq);
                    self.plan_interval(run);
                    let outcome = self.tend(run).await;
                    self.note_done(&run.name, run.looks_at(&base));
                    return outcome;
                }
            }
        } else if let Some(unready) = unready {
            return self.wait_for_others(run, Some(&base), unready).await;
        }
        let (built, inputs) = match self.build(run, &base).await {
            Ok(built) => built,
            Err(Failed::CutShort) => {
                // Who leads next looks at everything; one whose renewal was only late looks again.
                self.again(run);
                self.plan_retry(run, "");
                return Outcome::Retry;
            }
            Err(Failed::Asked) => {
                self.again(run);
                let stays = self.enforce_last_good(run, &base).await;
                self.plan_kept(run, Stays::whole(stays.as_ref()));
                return Outcome::Waiting;
            }
            Err(Failed::Because { reason, message, class }) => {
                self.looked(&run.name, run.looks_at(&base));
                self.wait_no_more(run);
                // Otherwise equal inputs would end the next run before it says that this has passed.
                self.again(run);
                let stays = self.enforce_last_good(run, &base).await;
                let say = Say::not_ready(&reason, and_stays(message, stays.as_ref()), class.into());
                let status = Self::status_with(run, &say, |status| {
                    status.last_attempted_revision = Some(base.revision.to_string());
                });
                self.say_app(run, status, &say, Some(&base.revision)).await;
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
            if self.waits_for(run, &kinds) {
                return Outcome::Waiting;
            }
        }
        let origin = self.origin(run, &base, &inputs);
        let rendered = Rendered {
            remote: Arc::clone(&base.remote),
            revision: base.revision.clone(),
            how: Arc::clone(&base.how),
            inputs: Arc::new(inputs),
            settled: false,
            kept: Box::default(),
            left_alone: Box::default(),
            broken: matches!(built, Built::Broken { .. }),
            refused: false,
        };
        self.store_render(run, rendered);
        match built {
            Built::Objects(objects) => self.apply(run, &base, objects, origin).await,
            Built::Broken { reason, message, problems } => {
                self.note_broken(run, base.seq);
                self.wait_no_more(run);
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
                let stays = self.enforce_last_good(run, &base).await;
                self.plan_kept(run, Stays::whole(stays.as_ref()));
                Outcome::Stalled
            }
        }
    }

    /// Whether all is as the last run left it, and nothing is due.
    fn is_at_rest(&self, run: &Run, known: &Rendered) -> bool {
        self.engine.in_sync(&run.set)
            && self.engine.kept_at_rest(&run.set) == known.kept
            && self.engine.are_there(&known.left_alone)
    }

    fn store_render(&self, run: &Run, rendered: Rendered) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.rendered = Some(Arc::new(rendered));
        }
    }

    fn forget_render(&self, run: &Run) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.rendered = None;
        }
    }

    fn remember_render(&self, run: &Run, change: impl FnOnce(&mut Rendered)) {
        let mut store = self.state.lock();
        if let Some(rendered) = store.apps.get_mut(&run.name).and_then(|app| app.rendered.as_mut())
        {
            change(Arc::make_mut(rendered));
        }
    }
}

/// The first field of a spec that names something in another namespace.
fn elsewhere(run: &Run) -> Option<(&str, usize, &str)> {
    let depends_on = depends::elsewhere(&run.name, &run.object).map(|(i, ns)| ("dependsOn", i, ns));
    let checks =
        || checks::elsewhere(&run.name, &run.object).map(|(i, ns)| ("healthChecks", i, ns));
    depends_on.or_else(checks)
}

/// The kind of our parents.
pub(crate) fn application_resource() -> Resource {
    Resource::known(plumb_core::Gvk::new(names::API_VERSION, "Application"), "applications", true)
}
