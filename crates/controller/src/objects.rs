//! Objects of any kind that Applications wait for. Each is watched by itself, whole, since what its
//! status says decides; nothing of it is kept but whether it is ready.

use std::fmt;

use plumb_core::Gvk;
use plumb_engine::Account;
use plumb_health::{Expression, Health, Rules, assess};
use serde_json::Value;

use crate::depends::judge;
use crate::names::Name;

/// An object, and what is asked about it; displays as `Deployment shop/web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectRef {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ready_expr: Option<String>,
    /// Who looks at it, where that is not Plumb itself.
    pub(crate) account: Option<Account>,
    /// Whose expression it is, at a generation of its spec, where it asks about its own.
    pub(crate) of: Option<(Name, Option<i64>)>,
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
}

/// Judges an object: by its health, unless an expression says what counts.
pub(crate) fn see(object: &Value, expression: Option<(&Expression, &Value)>) -> Seen {
    let Some((expression, this)) = expression else {
        let (verdict, _) = assess(object, &Rules::default());
        if verdict.health == Health::Healthy {
            return Seen::Ready;
        }
        let reason = match &*verdict.reason {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let text = format!(" is {}{reason}", verdict.health);
        return if verdict.is_final { Seen::Lasting(text) } else { Seen::NotReady(text) };
    };
    match judge(expression, this, object, "") {
        None => Seen::Ready,
        Some((text, true)) => Seen::Wrong(text),
        Some((text, false)) => Seen::NotReady(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_ready_when_it_is_healthy_or_its_expression_holds() {
        let claim = |phase: &str| {
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": "a"}, "status": {"phase": phase},
            })
        };
        assert_eq!(see(&claim("Bound"), None), Seen::Ready);
        assert!(
            matches!(see(&claim("Pending"), None), Seen::NotReady(text) if text.contains("Progressing"))
        );
        let this = json!({"spec": {"path": "a"}});
        let ask = |text: &str| {
            let expression = Expression::compile(text).unwrap();
            see(&claim("Bound"), Some((&expression, &this)))
        };
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
}
