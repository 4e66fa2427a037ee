//! Waiting for objects to be ready, without holding anything: a run looks, says what there is to say,
//! and ends.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use plumb_api::conditions::{HEALTHY, READY, reasons};
use plumb_api::{Application, ApplicationStatus, Condition, HealthCheckExpr, Mode, Time};
use plumb_core::ObjectKey;
use plumb_engine::{Asks, Change, Report, Wellbeing};
use plumb_health::{Exprs, Rules};

use super::Run;
use crate::checks;
use crate::daemon::{Daemon, chain};
use crate::events::Severity;
use crate::metrics::{Kind, Outcome};
use crate::names::Key;
use crate::queue::Lane;
use crate::state::{App, Applied, scope_of};
use crate::status::Say;
use crate::waiting::{
    Look, Said, Telling, Verdict, Wait, Wanted, all_ready, beside, decide, waiting,
};

/// The rules of one generation of a spec, or what is wrong with them.
pub(crate) type OwnRules = (Option<i64>, Result<Arc<Rules>, String>);

/// Whether health is asked for. Of what only observes, or does nothing, nothing is said.
pub(crate) fn asks(object: &Application) -> bool {
    let spec = &object.spec;
    (spec.wait || !spec.health_checks.is_empty())
        && !spec.suspend
        && spec.mode == Mode::Enforce
        && object.metadata.deletion_timestamp.is_none()
}

fn compile(exprs: &[HealthCheckExpr]) -> Result<Arc<Rules>, String> {
    let exprs: Vec<_> = exprs
        .iter()
        .cloned()
        .map(|expr| Exprs {
            api_version: expr.api_version,
            kind: expr.kind,
            suspended: expr.suspended,
            in_progress: expr.in_progress,
            failed: expr.failed,
            current: expr.current,
            missing: expr.missing,
            unknown: expr.unknown,
            message: None,
        })
        .collect();
    let compiled = Rules::compile(&exprs);
    compiled.map(Arc::new).map_err(|error| format!("spec.healthCheckExprs: {}", chain(&error)))
}

fn condition<'s>(status: &'s ApplicationStatus, kind: &str) -> Option<&'s Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

impl Daemon {
    /// Tells the engine what is asked of an Application's objects.
    pub(crate) fn attend(&self, app: &mut App) {
        let generation = app.object.metadata.generation;
        if app.rules.as_ref().is_none_or(|(of, _)| *of != generation) {
            app.rules = Some((generation, compile(&app.object.spec.health_check_exprs)));
        }
        let rules = app.rules.as_ref().and_then(|(_, rules)| rules.as_ref().ok());
        let asks = rules.filter(|_| asks(&app.object)).map(|rules| Asks {
            rules: rules.clone(),
            all: app.object.spec.wait,
            named: Arc::new(checks::named(&app.object)),
        });
        if app.asks || asks.is_some() {
            app.asks = asks.is_some();
            let kinds = scope_of(&app.object, app.written.as_deref()).kinds;
            self.engine.attend(&app.set, asks, &kinds);
        }
    }

    /// How the objects are that an Application asks about; `None` when it asks about none.
    fn wellbeing(&self, run: &Run) -> Option<Wellbeing> {
        let mut found = self.engine.wellbeing(&run.set)?;
        let mut store = self.state.lock();
        let may_quote = |key: &ObjectKey, set: Option<&str>| self.engine.may_quote(key, set);
        let others = std::mem::take(&mut found.others);
        found.add(store.checked(&run.name, &others, &may_quote));
        if found.is_ready() {
            store.note_pods(&run.name, None);
        }
        store.explain(&run.name, &mut found, |namespace| self.engine.pods_may_quote(namespace));
        Some(found)
    }

    /// What there is to say of the objects, all of which are applied; `None` when nobody asks. The
    /// report is that of a run that has just applied them.
    fn weigh(&self, run: &Run, revision: &str, report: Option<&Report>) -> Option<Verdict> {
        // Now it is known which of those that are named are its own.
        let others = self.engine.wellbeing(&run.set)?.others;
        self.state.lock().note_others(&run.name, &others);
        let found = self.wellbeing(run)?;
        let generation = run.object.metadata.generation;
        let before = &run.before;
        let has = |wanted: fn(&Change) -> bool| {
            report.is_some_and(|report| report.outcomes.iter().any(|o| wanted(&o.change)))
        };
        let ready = condition(before, READY);
        let is_true = |kind| condition(before, kind).is_some_and(|c| c.status == "True");
        let look = Look {
            wanted: Wanted { revision: revision.to_owned(), generation },
            found: &found,
            applied: has(|change| {
                matches!(change, Change::Created | Change::Updated | Change::Recreated(_))
            }),
            corrected: has(|change| matches!(change, Change::Corrected(_))),
            said: Said {
                is_current: before.last_applied_revision.as_deref() == Some(revision)
                    && before.observed_generation == generation,
                is_ready: is_true(READY) && is_true(HEALTHY),
                reason: ready.map_or("", |ready| &ready.reason),
                message: ready.map_or("", |ready| &ready.message),
                since: before.waiting.as_ref().map(|waiting| waiting.since.0),
            },
            timeout: run.object.spec.timeout,
        };
        let mut store = self.state.lock();
        let app = store.apps.get_mut(&run.name)?;
        let verdict = decide(&mut app.wait, &look, Timestamp::now());
        let is_told = app.wait.as_ref().is_some_and(Wait::is_told);
        store.note_pods(&run.name, is_told.then_some(&found));
        Some(verdict)
    }

    /// Says that all is applied, and how far it is ready. `pending` is what is to be written then, if
    /// anything is but for what is said of health, with the conditions that stand. Returns what was
    /// said; nothing when it has time.
    pub(super) async fn say_applied(
        self: &Arc<Self>,
        run: &Run,
        say: Say,
        pending: Option<ApplicationStatus>,
        report: Option<&Report>,
    ) -> Option<Say> {
        let mut status = pending.clone().unwrap_or_else(|| run.before.clone());
        status.waiting = None;
        let revision = status.last_applied_revision.clone().unwrap_or_default();
        let (said, next) = match self.weigh(run, &revision, report) {
            None => (say, None),
            Some(Verdict::Ready(total)) => {
                let mut said = say.clone();
                said.more.push((HEALTHY, "True", reasons::SUCCEEDED.into(), all_ready(total)));
                self.keep_applied(run, Applied { say, status: None });
                (said, None)
            }
            Some(Verdict::Tell(telling)) => {
                let Telling { reason, message, waits, is_event, waiting, next } = telling;
                let mut said = Say::not_ready(reason, message.clone(), waits);
                said.is_event = is_event;
                said.more.clone_from(&say.more);
                said.more.push((HEALTHY, "False", reason.into(), message));
                self.keep_applied(run, Applied { say, status: None });
                status.waiting = Some(waiting);
                (said, next)
            }
            Some(Verdict::Hold { next }) => {
                self.keep_applied(run, Applied { say, status: pending.map(Box::new) });
                self.look_again(run, next);
                return None;
            }
        };
        self.look_again(run, next);
        let base = Run { before: status, ..run.clone() };
        let status = Self::status_with(&base, &said, |_| {});
        let revision = crate::sources::revision_of(&revision);
        self.say_app(run, status, &said, revision.as_ref()).await;
        if said.ready && run.before.waiting.is_some() {
            let message = condition_text(&said);
            let about = (Kind::Application, &run.object.metadata);
            self.note(about, Severity::Normal, ("Healthy", "Wait"), &message, None);
        }
        Some(said)
    }

    fn keep_applied(&self, run: &Run, applied: Applied) {
        if let Some(app) = self.state.lock().apps.get_mut(&run.name) {
            app.applied = Some(applied);
        }
    }

    fn look_again(&self, run: &Run, next: Option<Duration>) {
        if let Some(next) = next {
            self.queue.add_after(Key::App(run.name.clone()), next, Lane::Urgent);
        }
    }

    /// All is as the last run left it: what there is to say of the objects' health.
    pub(super) async fn tend(self: &Arc<Self>, run: &Run) -> Outcome {
        let applied = {
            let store = self.state.lock();
            store.apps.get(&run.name).filter(|app| app.asks).and_then(|app| app.applied.clone())
        };
        let Some(Applied { say, status }) = applied else { return Outcome::Unchanged };
        match self.say_applied(run, say, status.map(|status| *status), None).await {
            Some(said) if said.ready => Outcome::Unchanged,
            _ => Outcome::Waiting,
        }
    }

    /// What is said of health while something else keeps an Application from being ready: as before,
    /// but where it has turned.
    pub(super) fn healthy_beside(&self, run: &Run) -> Option<Condition> {
        let found = self.wellbeing(run)?;
        let before = condition(&run.before, HEALTHY);
        let seen = found.unready.iter().any(|unready| unready.is_seen);
        let is_healthy = match before.map(|before| before.status == "True") {
            Some(true) if seen => false,
            Some(false) if found.is_ready() && found.total > 0 => true,
            _ => return before.cloned(),
        };
        let (status, reason, message) = if is_healthy {
            ("True", reasons::SUCCEEDED, all_ready(found.total))
        } else {
            ("False", reasons::HEALTH_CHECK_FAILED, beside(&found))
        };
        Some(Condition {
            type_: HEALTHY.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            observed_generation: run.object.metadata.generation,
            last_transition_time: Time(Timestamp::now()),
        })
    }

    /// Writes that health has turned, where nothing else is said.
    pub(super) async fn say_beside(self: &Arc<Self>, run: &Run) {
        let Some(healthy) = &run.healthy else { return };
        let before = condition(&run.before, HEALTHY);
        if before.is_none_or(|before| before.status == healthy.status) {
            return;
        }
        let mut status = run.before.clone();
        status.conditions.retain(|condition| condition.type_ != HEALTHY);
        status.conditions.push(healthy.clone());
        status.waiting = None;
        if healthy.status == "False"
            && let Some(found) = self.wellbeing(run)
        {
            status.waiting = Some(waiting(Timestamp::now(), &found));
        }
        self.write_app(run, &status).await;
    }
}

fn condition_text(say: &Say) -> String {
    let healthy = say.more.iter().find(|(kind, ..)| *kind == HEALTHY);
    healthy.map_or_else(String::new, |(.., message)| message.clone())
}
