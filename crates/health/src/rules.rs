//! Rules in CEL for kinds, and which rule speaks for an object.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::builtin;
use crate::cel::{CelError, Expression, Variables};
use crate::conditions::is_stale;
use crate::generic;
use crate::health::Health::{Degraded, Healthy, Missing, Progressing, Suspended, Unknown};
use crate::health::{Health, Verdict};
use crate::known;

/// A rule as it is written: which kind, and an expression for each state. The first that holds
/// decides, in the order of the fields; when none does, the object is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exprs {
    /// The group and version of the kind. Only the group counts.
    pub api_version: String,
    /// The kind; every kind of the group when left out.
    #[serde(default)]
    pub kind: Option<String>,
    /// Holds while it is paused.
    #[serde(default)]
    pub suspended: Option<String>,
    /// Holds while it is on its way.
    #[serde(default)]
    pub in_progress: Option<String>,
    /// Holds when it does not work.
    #[serde(default)]
    pub failed: Option<String>,
    /// Holds when it does what it is there for.
    pub current: String,
    /// Holds when what it stands for is not there.
    #[serde(default)]
    pub missing: Option<String>,
    /// Holds when it says that it cannot tell.
    #[serde(default)]
    pub unknown: Option<String>,
    /// What to say about it: an expression that gives a text.
    #[serde(default)]
    pub message: Option<String>,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rule for {subject}: {field}: {source}")]
pub struct RuleError {
    /// The kind, or the group.
    pub subject: String,
    /// The field of the rule.
    pub field: &'static str,
    /// What is wrong with its expression.
    #[source]
    pub source: CelError,
}

/// A rule that can be asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    kind: Option<String>,
    states: Vec<(Health, &'static str, Expression)>,
    message: Option<Expression>,
    /// Whether it is a user's, who is told what is wrong with it.
    is_users: bool,
}

impl Rule {
    pub(crate) fn compile(exprs: &Exprs, is_users: bool) -> Result<Self, RuleError> {
        let subject = exprs.kind.as_ref().map_or_else(
            || exprs.api_version.clone(),
            |kind| format!("{kind} of {}", exprs.api_version),
        );
        let compile = |field, text: &str| {
            Expression::compile(text).map_err(|source| RuleError {
                subject: subject.clone(),
                field,
                source,
            })
        };
        let written = [
            (Suspended, "suspended", exprs.suspended.as_deref()),
            (Progressing, "inProgress", exprs.in_progress.as_deref()),
            (Degraded, "failed", exprs.failed.as_deref()),
            (Healthy, "current", Some(&*exprs.current)),
            (Missing, "missing", exprs.missing.as_deref()),
            (Unknown, "unknown", exprs.unknown.as_deref()),
        ];
        let mut states = Vec::new();
        for (health, field, text) in written {
            if let Some(text) = text {
                states.push((health, field, compile(field, text)?));
            }
        }
        let message = exprs.message.as_deref().map(|text| compile("message", text)).transpose()?;
        Ok(Self { kind: exprs.kind.clone(), states, message, is_users })
    }

    pub(crate) fn assess(&self, object: &Value) -> Verdict {
        if is_stale(object) {
            return Verdict::new(Progressing, "its newest spec has not been acted on yet");
        }
        let variables = Variables::of(object);
        let mut not_there = None;
        for (health, field, expression) in &self.states {
            match expression.holds(&variables) {
                Ok(true) => return Verdict::new(*health, self.words(*health, object, &variables)),
                Ok(false) => {}
                Err(error) if matches!(error, CelError::NotThere { .. }) || !self.is_users => {
                    not_there.get_or_insert((field, error));
                }
                Err(error) => return Verdict::new(Unknown, format!("{field}: {error}")),
            }
        }
        let reason = match self.words(Progressing, object, &variables) {
            words if !words.is_empty() => words,
            _ if object["status"].is_null() => "it has no status yet".to_owned(),
            _ => not_there
                .filter(|_| self.is_users)
                .map(|(field, error)| format!("{field}: {error}"))
                .unwrap_or_default(),
        };
        Verdict::new(Progressing, reason)
    }

    fn words(&self, health: Health, object: &Value, variables: &Variables<'_>) -> String {
        let said = self.message.as_ref().and_then(|message| message.says(variables).ok().flatten());
        said.unwrap_or_else(|| generic::words(health, object))
    }
}

/// The rules that a user wrote, by group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    groups: HashMap<String, Vec<Rule>>,
}

impl Rules {
    /// Compiles them.
    pub fn compile<'a>(exprs: impl IntoIterator<Item = &'a Exprs>) -> Result<Self, RuleError> {
        let mut rules = Self::default();
        for exprs in exprs {
            let group = group_of(&exprs.api_version).to_owned();
            rules.groups.entry(group).or_default().push(Rule::compile(exprs, true)?);
        }
        Ok(rules)
    }

    /// Whether one of them is about a kind.
    pub fn speak_of(&self, group: &str, kind: &str) -> bool {
        self.find(group, kind).is_some()
    }

    /// The rule for a kind, else the one for all kinds of its group.
    fn find(&self, group: &str, kind: &str) -> Option<&Rule> {
        let rules = self.groups.get(group)?;
        let of_kind = rules.iter().find(|rule| rule.kind.as_deref() == Some(kind));
        of_kind.or_else(|| rules.iter().find(|rule| rule.kind.is_none()))
    }
}

fn group_of(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or("", |(group, _)| group)
}

/// Which kind of rule spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// One that the user wrote.
    User,
    /// One for Kubernetes' own kinds.
    BuiltIn,
    /// One in CEL that comes with Plumb.
    Known,
    /// The guess for all others.
    Generic,
}

/// Says how an object is, and on what basis.
pub fn assess(object: &Value, own: &Rules) -> (Verdict, Basis) {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, kind) = (group_of(text("apiVersion")), text("kind"));
    let goes = !object["metadata"]["deletionTimestamp"].is_null();
    let (verdict, basis) = by_rule(group, kind, object, own);
    // What goes is on its way, unless it says that something is wrong with that.
    if goes && (verdict.health != Degraded || basis == Basis::BuiltIn) {
        return (Verdict::new(Progressing, "it is being deleted"), basis);
    }
    (verdict, basis)
}

fn by_rule(group: &str, kind: &str, object: &Value, own: &Rules) -> (Verdict, Basis) {
    if let Some(rule) = own.find(group, kind) {
        let mut verdict = rule.assess(object);
        // Whoever writes `failed` says that waiting is of no use then.
        verdict.is_final = verdict.health == Degraded;
        return (verdict, Basis::User);
    }
    if let Some(verdict) = builtin::assess(group, kind, object) {
        return (verdict, Basis::BuiltIn);
    }
    if let Some(verdict) = known::assess(group, kind, object) {
        return (verdict, Basis::Known);
    }
    (generic::assess(object), Basis::Generic)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
