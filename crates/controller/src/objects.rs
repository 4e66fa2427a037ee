//! Objects of any kind that Applications wait for. Each is watched by itself, whole, since what its
//! status says decides; nothing of it is kept but whether it is ready.

use std::fmt;

use std::sync::Arc;

use plumb_core::{Gvk, ObjectKey};
use plumb_engine::{Account, HIDDEN, Health, PART_OF, Unready, Words, judge_health, pod_selector};
use plumb_health::{Expression, Rules};
use serde_json::Value;

use crate::depends;
use crate::names::Name;

/// An object, and what is asked about it; displays as `Deployment shop/web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectRef {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ask: Ask,
    /// Who looks at it, where that is not Plumb itself.
    pub(crate) account: Option<Account>,
    /// Whose expression or rules it is asked by, at a generation of its spec, where these are its own.
    pub(crate) of: Option<(Name, Option<i64>)>,
}

/// What is asked about an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ask {
    /// Whether what depends on it may go on: the expression that says so, if it is not its health.
    Ready(Option<String>),
    /// How it is.
    Health,
    /// What its Pods, which this selects, say.
    Pods(String),
}

impl ObjectRef {
    pub(crate) fn gvk(&self) -> Gvk {
        Gvk::new(&self.api_version, &self.kind)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// How an object was last seen; the texts follow its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Ready,
    /// It may become ready by itself.
    NotReady(String),
    /// It does not, as far as can be told.
    Lasting(String),
    /// The expression cannot be asked.
    Wrong(String),
    /// So it is, where that was asked, or is what keeps it from being ready.
    Is(Box<Checked>),
    /// This its Pods say, if one does not get on.
    Pods(Option<Words>),
    /// The account may not read its Pods: nobody watches them.
    PodsDenied,
}

/// How an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    /// How it is, though it may be ready.
    pub(crate) unready: Unready,
    /// The set that its label names.
    pub(crate) part_of: Option<Box<str>>,
}

impl Checked {
    /// How it is, as it follows its name. `may_quote` says whether why is not to be told.
    pub(crate) fn words(&self, may_quote: &MayQuote<'_>) -> String {
        let Unready { key, health, reason, .. } = &self.unready;
        let reason = match &**reason {
            "" => String::new(),
            _ if may_quote(key, self.part_of.as_deref()) => format!(": {HIDDEN}"),
            reason => format!(": {reason}"),
        };
        format!(" is {health}{reason}")
    }
}

/// Whether what an object says of itself, which is labelled as of a set, may quote a value of a Secret.
pub(crate) type MayQuote<'q> = dyn Fn(&ObjectKey, Option<&str>) -> bool + 'q;

/// What is found where an object is to be.
pub(crate) enum Found<'f> {
    Object(&'f Value),
    /// A Secret, into which nobody looks.
    Secret,
    Nothing,
    NoKind,
    /// The account may not look.
    Denied(&'f Account),
    /// It was looked at in vain.
    Failed(String),
    /// It is out of sight.
    Lost(String),
}

/// Who judges an object.
pub(crate) enum Judge {
    /// By an expression, about this Application; without one by its health.
    Ready(Option<Expression>, Value),
    Health(Arc<Rules>),
}

impl Judge {
    /// What is to be known of what was found.
    pub(crate) fn see(&self, of: &ObjectRef, namespaced: bool, found: Found<'_>) -> Seen {
        let namespace = if namespaced { &*of.namespace } else { "" };
        let key = ObjectKey::new(of.gvk().group_kind(), namespace, &of.name);
        match self {
            Self::Ready(expression, this) => {
                let expression = expression.as_ref().map(|expression| (expression, this));
                is_ready(of, key, expression, found)
            }
            Self::Health(rules) => Seen::Is(Box::new(check(of, key, rules, found))),
        }
    }
}

/// By its health, unless an expression says what counts.
fn is_ready(
    of: &ObjectRef,
    key: ObjectKey,
    expression: Option<(&Expression, &Value)>,
    found: Found<'_>,
) -> Seen {
    match found {
        Found::Object(object) => match expression {
            Some((expression, this)) => match depends::judge(expression, this, object, "") {
                None => Seen::Ready,
                Some((text, true)) => Seen::Wrong(text),
                Some((text, false)) => Seen::NotReady(text),
            },
            None => match check(of, key, &Rules::default(), found) {
                Checked { unready: Unready { health: Health::Healthy, .. }, .. } => Seen::Ready,
                checked => Seen::Is(Box::new(checked)),
            },
        },
        Found::Secret => {
            Seen::Lasting(", and nobody looks into Secrets: wait for what makes it".into())
        }
        Found::Nothing => Seen::Lasting(", which does not exist".into()),
        Found::NoKind => {
            Seen::Lasting(format!(": the cluster has no {} {}", of.api_version, of.kind))
        }
        // Whether it is there is not for this account to know.
        Found::Denied(account) => Seen::Lasting(format!(
            ", which the service account {account} may not read; give it the right to get it"
        )),
        Found::Failed(error) => Seen::NotReady(format!(": {error}")),
        Found::Lost(error) => Seen::NotReady(format!(", which is out of sight: {error}")),
    }
}

fn check(of: &ObjectRef, key: ObjectKey, rules: &Rules, found: Found<'_>) -> Checked {
    let (mut part_of, mut pods) = (None, None);
    // What is out of sight may be as it was.
    let is_seen = !matches!(found, Found::Failed(_) | Found::Lost(_));
    let (health, reason, is_final) = match found {
        Found::Object(object) => {
            part_of = object["metadata"]["labels"][PART_OF].as_str().map(Into::into);
            let verdict = judge_health(object, rules);
            pods = if verdict.health.is_ready() { None } else { pod_selector(object) };
            (verdict.health, verdict.reason, verdict.is_final)
        }
        Found::Secret => (Health::Healthy, String::new(), false),
        Found::Nothing => (Health::Missing, "it is not there".into(), false),
        Found::NoKind => {
            let reason = format!("the cluster has no {} {}", of.api_version, of.kind);
            (Health::Missing, reason, false)
        }
        Found::Denied(account) => {
            let reason = format!(
                "the service account {account} may not read it; give it the right to get it"
            );
            (Health::Unknown, reason, false)
        }
        Found::Failed(error) | Found::Lost(error) => {
            (Health::Unknown, format!("it cannot be read: {error}"), false)
        }
    };
    Checked { unready: Unready { key, health, reason, is_final, is_seen, pods }, part_of }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(phase: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "disk", "labels": {PART_OF: "set"}}, "status": {"phase": phase},
        })
    }

    fn disk(ask: Ask) -> ObjectRef {
        ObjectRef {
            api_version: "v1".into(),
            kind: "PersistentVolumeClaim".into(),
            namespace: "ns".into(),
            name: "disk".into(),
            ask,
            account: None,
            of: None,
        }
    }

    fn see(phase: &str, expression: Option<&str>) -> Seen {
        let compiled = expression.map(|text| Expression::compile(text).unwrap());
        let judge = Judge::Ready(compiled, json!({"spec": {"path": "a"}}));
        let of = disk(Ask::Ready(expression.map(Into::into)));
        judge.see(&of, true, Found::Object(&claim(phase)))
    }

    #[test]
    fn what_an_object_says_of_why_it_is_not_ready_is_told_unless_it_may_quote_a_secret() {
        let quotes = |key: &ObjectKey, set: Option<&str>| key.name == "disk" && set == Some("set");
        for (phase, is, why) in [
            ("Pending", " is Progressing", "it is Pending"),
            ("Lost", " is Degraded", "its volume is lost"),
        ] {
            let Seen::Is(seen) = see(phase, None) else { panic!("ready") };
            assert_eq!(seen.words(&|_, _| false), format!("{is}: {why}"));
            assert_eq!(seen.words(&quotes), format!("{is}: {HIDDEN}"));
        }
    }

    #[test]
    fn an_object_is_ready_when_it_is_healthy_or_its_expression_holds() {
        assert_eq!(see("Bound", None), Seen::Ready);
        let ask = |text: &str| see("Bound", Some(text));
        assert_eq!(ask("dep.status.phase == 'Bound' && self.spec.path == 'a'"), Seen::Ready);
        assert!(matches!(ask("dep.status.phase == 'Lost'"), Seen::NotReady(_)));
        assert!(
            matches!(ask("dep.status.capacity == '1'"), Seen::NotReady(t) if t.contains("capacity"))
        );
        assert!(matches!(ask("dep.status.phase"), Seen::Wrong(_)));
        let long = "[1,2,3,4,5,6,7,8,9,0].map(a, [1,2,3,4,5,6,7,8,9,0].map(b, [1,2,3,4,5,6,7,8,9,0].map(c, \
                    [1,2,3,4,5,6,7,8,9,0].map(d, [1,2,3,4,5,6,7,8,9,0].map(e, 1))))) == []";
        assert!(matches!(ask(long), Seen::Wrong(t) if t.contains("too long")));
    }

    #[test]
    fn what_is_found_of_an_object_that_is_named_is_told_as_its_health() {
        let account = Account { namespace: "ns".into(), name: "tenant".into() };
        let of = disk(Ask::Health);
        let claim = claim("Bound");
        let see = |found: Found<'_>, namespaced| {
            let Seen::Is(seen) = Judge::Health(Arc::default()).see(&of, namespaced, found) else {
                panic!("no health");
            };
            let Unready { key, health, reason, .. } = seen.unready;
            (key.to_string(), health, reason, seen.part_of.is_some())
        };
        let name = "PersistentVolumeClaim ns/disk".to_owned();
        for (found, health, reason, ours) in [
            (Found::Object(&claim), Health::Healthy, "", true),
            (Found::Secret, Health::Healthy, "", false),
            (Found::Nothing, Health::Missing, "it is not there", false),
            (Found::NoKind, Health::Missing, "the cluster has no v1 PersistentVolumeClaim", false),
            (
                Found::Denied(&account),
                Health::Unknown,
                "the service account ns/tenant may not read it; give it the right to get it",
                false,
            ),
            (Found::Lost("gone".into()), Health::Unknown, "it cannot be read: gone", false),
        ] {
            assert_eq!(see(found, true), (name.clone(), health, reason.to_owned(), ours));
        }
        assert_eq!(see(Found::Nothing, false).0, "PersistentVolumeClaim disk");
    }
}
