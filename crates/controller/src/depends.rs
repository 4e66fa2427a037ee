//! What must be ready before an Application is applied: others of its kind, and objects of any kind.
//!
//! Nothing here waits or asks: it is found out from what the watches said last, and who waits is
//! called when that changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use plumb_api::conditions::{READY, STALLED, reasons};
use plumb_api::{Application, Dependency};
use plumb_health::{CelError, Expression, Variables};
use serde_json::Value;

use crate::apps::wait::asks;
use crate::askers::Turned;
use crate::checks;
use crate::names::{Key, Name};
use crate::objects::{Ask, MayQuote, ObjectRef, Seen};
use crate::state::{App, Store};
use crate::status::{shorten, with_hint};

/// How much is quoted of what another Application says.
const QUOTE: usize = 300;

/// What an Application waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unready {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// It does not pass by itself.
    pub(crate) lasting: bool,
}

/// A compiled `readyExpr`, or what is wrong with it.
pub(crate) type Compiled = Option<Result<Expression, CelError>>;

/// Compiles the expressions of a spec, one for each dependency.
pub(crate) fn compile(depends_on: &[Dependency]) -> Arc<[Compiled]> {
    let compile = |on: &Dependency| on.ready_expr.as_deref().map(Expression::compile);
    depends_on.iter().map(compile).collect()
}

/// The Application that a dependency names, unless it names something else.
fn application(name: &Name, on: &Dependency) -> Option<Name> {
    let ours = on.kind.as_deref().is_none_or(|kind| {
        kind == "Application"
            && on.api_version.as_deref().is_some_and(|v| v.starts_with("plumb.dev/"))
    });
    let namespace = on.namespace.as_deref().unwrap_or(&name.namespace);
    ours.then(|| Name::new(namespace, &on.name))
}

/// Whether a dependency is an Application, of another namespace, that an account has a question about:
/// it has to look for itself.
fn is_asked_by_account(name: &Name, app: &App, on: &Dependency) -> bool {
    let elsewhere = on.namespace.as_ref().is_some_and(|namespace| *namespace != name.namespace);
    elsewhere && on.ready_expr.is_some() && app.set.account.is_some()
}

/// The first dependency in another namespace.
pub(crate) fn elsewhere<'a>(name: &Name, app: &'a Application) -> Option<(usize, &'a str)> {
    name.first_elsewhere(app.spec.depends_on.iter().map(|on| on.namespace.as_deref()))
}

/// The Applications that a spec names as dependencies.
fn applications<'a>(name: &'a Name, app: &'a Application) -> impl Iterator<Item = Name> + 'a {
    app.spec.depends_on.iter().filter_map(|on| application(name, on))
}

/// The other objects that an Application's spec waits for.
fn objects_of(name: &Name, app: &App) -> BTreeSet<ObjectRef> {
    let dependencies = app.object.spec.depends_on.iter().zip(&*app.exprs);
    dependencies.filter_map(|(on, expr)| object(name, app, on, expr)).collect()
}

fn object(name: &Name, app: &App, on: &Dependency, expr: &Compiled) -> Option<ObjectRef> {
    if application(name, on).is_some() && !is_asked_by_account(name, app, on) {
        return None;
    }
    let expression = match expr {
        None => None,
        Some(Ok(expression)) => Some(expression.clone()),
        Some(Err(_)) => return None,
    };
    // Most expressions ask about the other object only, and can be shared.
    let asks_for_self = expression.as_ref().is_some_and(|e| e.text().contains("self"));
    Some(ObjectRef {
        api_version: on.api_version.clone().unwrap_or_else(|| "plumb.dev/v1alpha1".into()),
        kind: on.kind.clone().unwrap_or_else(|| "Application".into()),
        namespace: on.namespace.clone().unwrap_or_else(|| name.namespace.to_string()),
        name: on.name.clone(),
        ask: Ask::Ready(on.ready_expr.clone()),
        account: app.set.account.as_deref().cloned(),
        of: asks_for_self.then(|| (name.clone(), app.object.metadata.generation)),
    })
}

/// What is found out of one dependency that is not ready: words that follow "waits for".
struct Wait {
    reason: &'static str,
    text: String,
    lasting: bool,
}

impl Wait {
    fn lasting(text: String) -> Self {
        Self { reason: reasons::DEPENDENCY_NOT_READY, text, lasting: true }
    }

    fn passing(text: String) -> Self {
        Self { lasting: false, ..Self::lasting(text) }
    }

    fn wrong(text: String) -> Self {
        Self { reason: reasons::INVALID_CEL_EXPRESSION, ..Self::lasting(text) }
    }
}

impl Store {
    /// Takes in what an Application's spec, if there still is one, says of dependencies and health, and
    /// whose account looks at these objects.
    pub(crate) fn note_dependencies(&mut self, name: &Name) {
        let app = self.apps.get(name);
        if !app.is_some_and(|app| asks(&app.object)) {
            self.unexplained.remove(name);
        }
        let others = app.iter().flat_map(|app| applications(name, &app.object)).collect();
        let mut objects = app.map(|app| objects_of(name, app)).unwrap_or_default();
        objects.extend(app.into_iter().flat_map(|app| checks::objects_of(name, app)));
        self.behind.put(name, others);
        let Turned { came, went } = self.depended_on.put(name, objects);
        self.wanted_objects.send_if_modified(|wanted| {
            let changed = !came.is_empty() || !went.is_empty();
            for of in &went {
                wanted.remove(of);
            }
            wanted.extend(came);
            changed
        });
    }

    /// Who waits for an object, or tells how it is.
    pub(crate) fn waiting_for_object(&self, of: &ObjectRef) -> Vec<Key> {
        let tells = !matches!(of.ask, Ask::Ready(_));
        let asking = self.depended_on.who(of);
        asking.filter(|name| tells || self.waiting.contains(*name)).cloned().map(Key::App).collect()
    }

    /// What an Application waits for before anything new of it is applied. `may_quote` says of an object
    /// whether why it is not ready is not to be told.
    pub(crate) fn unready(&self, name: &Name, may_quote: &MayQuote<'_>) -> Option<Unready> {
        let app = self.apps.get(name)?;
        if app.object.spec.depends_on.is_empty() {
            return None;
        }
        if let Some(circle) = self.circle(name) {
            let circle: Vec<_> = circle.iter().map(ToString::to_string).collect();
            let message = format!(
                "it waits for itself: {}; take one of these out of a spec.dependsOn",
                circle.join(" waits for ")
            );
            return Some(Unready { reason: reasons::DEPENDENCY_CYCLE, message, lasting: true });
        }
        let mut seen = BTreeSet::from([name.clone()]);
        let mut waits = self.waits(name, app, may_quote, &mut seen);
        let first = waits.next()?;
        let more = waits.count();
        let more = if more > 0 { format!(", and for {more} more") } else { String::new() };
        let message = format!("waits for {}{more}", first.text);
        Some(Unready { reason: first.reason, message, lasting: first.lasting })
    }

    /// All dependencies that are not ready. Each Application is looked into once.
    fn waits<'s>(
        &'s self,
        name: &'s Name,
        app: &'s App,
        may_quote: &'s MayQuote<'_>,
        seen: &'s mut BTreeSet<Name>,
    ) -> impl Iterator<Item = Wait> + 's {
        let dependencies = app.object.spec.depends_on.iter().zip(&*app.exprs);
        dependencies.filter_map(move |(on, expr)| self.wait(name, app, (on, expr), may_quote, seen))
    }

    fn wait(
        &self,
        name: &Name,
        app: &App,
        (on, expr): (&Dependency, &Compiled),
        may_quote: &MayQuote<'_>,
        seen: &mut BTreeSet<Name>,
    ) -> Option<Wait> {
        if let Some(Err(error)) = expr {
            let other = application(name, on).map_or_else(
                || format!("{} {}", on.kind.as_deref().unwrap_or_default(), on.name),
                |other| other.to_string(),
            );
            return Some(Wait::wrong(format!("{other}, but its readyExpr {error}")));
        }
        let other = application(name, on).filter(|_| !is_asked_by_account(name, app, on));
        let Some(other) = other else {
            return self.wait_for_object(&object(name, app, on, expr)?, may_quote);
        };
        let Some(dependency) = self.apps.get(&other) else {
            return Some(Wait::lasting(format!("{other}, which does not exist")));
        };
        if let Some(Ok(expression)) = expr {
            return judge(expression, &json_of(app), &json_of(dependency), &other.to_string())
                .map(|(text, wrong)| if wrong { Wait::wrong(text) } else { Wait::passing(text) });
        }
        if self.is_ready_for(name, &other, dependency) {
            return None;
        }
        if seen.insert(other.clone())
            && let Some(wait) = self.waits(&other, dependency, may_quote, seen).next()
        {
            // What is behind one of another namespace is told to those who may look there.
            let behind = if other.namespace == name.namespace { &wait.text } else { "others" };
            return Some(Wait { text: format!("{other}, which waits for {behind}"), ..wait });
        }
        Some(self.state_of(name, &other, dependency))
    }

    /// Whether an Application is ready, at the same revision as one that waits for it where both are
    /// of one source.
    fn is_ready_for(&self, name: &Name, other: &Name, dependency: &App) -> bool {
        let metadata = &dependency.object.metadata;
        metadata.deletion_timestamp.is_none()
            && says_ready(dependency)
            && self
                .wanted_of(other)
                .is_some_and(|commit| dependency.done == Some((commit, metadata.generation)))
            && !self.lags_behind(other, name)
    }

    fn state_of(&self, name: &Name, other: &Name, dependency: &App) -> Wait {
        let (metadata, spec) = (&dependency.object.metadata, &dependency.object.spec);
        if metadata.deletion_timestamp.is_some() {
            return Wait::lasting(format!("{other}, which is being deleted"));
        }
        let wanted = self.wanted_of(other);
        let looked = wanted.is_none_or(|w| dependency.looked == Some((w, metadata.generation)));
        let status = dependency.status();
        let condition = |kind: &str| {
            let conditions = status.map_or(&[][..], |status| &status.conditions[..]);
            conditions.iter().find(|condition| condition.type_ == kind)
        };
        let current = status.is_some_and(|s| s.observed_generation == metadata.generation);
        match condition(READY).filter(|ready| looked && current && ready.status != "True") {
            Some(ready) => {
                let lasting = condition(STALLED).is_some_and(|stalled| stalled.status == "True");
                let stalled = if lasting { "Stalled: " } else { "" };
                // What is in another namespace is told to those who may look there.
                let said = if other.namespace == name.namespace {
                    format!(": {}", shorten(ready.message.clone(), QUOTE))
                } else {
                    String::new()
                };
                Wait {
                    lasting,
                    ..Wait::passing(format!("{other}: {stalled}{}{said}", ready.reason))
                }
            }
            None if spec.suspend => Wait::lasting(format!("{other}, which is suspended")),
            None if looked && current => Wait::passing(format!("{other}, which is being applied")),
            None => Wait::passing(format!("{other}, which has yet to look at what is newest")),
        }
    }

    fn wait_for_object(&self, of: &ObjectRef, may_quote: &MayQuote<'_>) -> Option<Wait> {
        match self.objects.get(of) {
            Some(Seen::Ready) => None,
            Some(Seen::NotReady(text)) => Some(Wait::passing(format!("{of}{text}"))),
            Some(Seen::Lasting(text)) => Some(Wait::lasting(format!("{of}{text}"))),
            Some(Seen::Wrong(text)) => Some(Wait::wrong(format!("{of}{text}"))),
            Some(Seen::Is(seen)) => {
                let text = format!("{of}{}", seen.words(may_quote));
                Some(Wait { lasting: seen.unready.is_final, ..Wait::passing(text) })
            }
            Some(Seen::Pods(_) | Seen::PodsDenied) | None => {
                Some(Wait::passing(format!("{of}, which is yet to be looked at")))
            }
        }
    }

    /// The shortest way on which an Application waits for itself.
    fn circle(&self, name: &Name) -> Option<Vec<Name>> {
        let mut came_from: BTreeMap<Name, Name> = BTreeMap::new();
        let mut open = VecDeque::from([name.clone()]);
        while let Some(at) = open.pop_front() {
            let Some(app) = self.apps.get(&at) else { continue };
            for next in applications(&at, &app.object) {
                if next == *name {
                    let mut circle = vec![next];
                    let mut step = Some(&at);
                    while let Some(at) = step {
                        circle.push(at.clone());
                        step = came_from.get(at);
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if !came_from.contains_key(&next) {
                    came_from.insert(next.clone(), at.clone());
                    open.push_back(next);
                }
            }
        }
        None
    }

    /// All that wait for an Application, if only in the end: those that may be in a circle with it.
    pub(crate) fn all_behind(&self, other: &Name) -> Vec<Key> {
        let mut behind = BTreeSet::new();
        let mut open = vec![other.clone()];
        while let Some(at) = open.pop() {
            for name in self.behind.who(&at) {
                if behind.insert(name.clone()) {
                    open.push(name.clone());
                }
            }
        }
        behind.into_iter().map(Key::App).collect()
    }

    /// Who waits for an Application directly, and who does in the end.
    pub(crate) fn waiting_for(&self, other: &Name) -> (Vec<Name>, Vec<Name>) {
        let waiting = |other: &Name| {
            let behind = self.behind.who(other);
            behind.filter(|name| self.waiting.contains(*name))
        };
        let direct: Vec<Name> = waiting(other).cloned().collect();
        let mut known: BTreeSet<&Name> = direct.iter().collect();
        let mut open: Vec<&Name> = direct.iter().collect();
        let mut indirect = Vec::new();
        while let Some(at) = open.pop() {
            for name in waiting(at) {
                if known.insert(name) {
                    open.push(name);
                    indirect.push(name.clone());
                }
            }
        }
        (direct, indirect)
    }
}

fn says_ready(app: &App) -> bool {
    app.status().is_some_and(|status| {
        status.observed_generation == app.object.metadata.generation
            && status.conditions.iter().any(|c| c.type_ == READY && c.status == "True")
    })
}

/// An Application as expressions see it, with the newest status.
pub(crate) fn json_of(app: &App) -> Value {
    let object =
        Application { status: app.status().cloned().map(Box::new), ..(*app.object).clone() };
    serde_json::to_value(object).unwrap_or_default()
}

/// Why an expression does not hold of an object, and whether something is wrong with it.
pub(crate) fn judge(
    expression: &Expression,
    this: &Value,
    other: &Value,
    subject: &str,
) -> Option<(String, bool)> {
    match expression.holds(&Variables::named([("self", this), ("dep", other)])) {
        Ok(true) => None,
        Ok(false) => Some((format!("{subject}: its readyExpr does not hold"), false)),
        Err(error @ CelError::NotThere { .. }) => {
            Some((format!("{subject}: its readyExpr {error}"), false))
        }
        Err(error) => {
            let hint = "correct it in spec.dependsOn".to_owned();
            Some((with_hint(format!("{subject}: its readyExpr {error}"), Some(hint)), true))
        }
    }
}

#[cfg(test)]
#[path = "depends_tests.rs"]
mod tests;
