//! The values and keys that a spec asks for, out of what it says and names.

use std::sync::Arc;

use plumb_api::conditions::reasons;
use plumb_api::{ApplicationSpec, SubstituteStrategy};
use plumb_engine::{Account, ApiError, EngineError};
use plumb_render::{Keys, Substitution, Variable};

use super::Run;
use super::build::Blocked;
use crate::daemon::Daemon;
use crate::metrics::Outcome;
use crate::named::{Found, Named, NamedKind, named_by};
use crate::names::Key;
use crate::status::Waits;

/// What a render takes from the cluster.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) substitution: Substitution,
    /// What opens encrypted files.
    pub(crate) keys: Option<Arc<Keys>>,
}

/// Why a run has no values.
pub(super) enum NoValues {
    /// The API server does not say.
    Unread(ApiError),
    /// What is there, or is not, cannot be used.
    Blocked(Blocked),
}

impl Daemon {
    /// The values and keys for a run, read once.
    pub(super) async fn values(&self, run: &Run) -> Result<Given, NoValues> {
        let who = Key::App(run.name.clone());
        let (names, cluster) = (named_by(&run.object), self.engine.acting(&run.set));
        let found = match self.find_named(&who, names, &cluster).await {
            Ok(found) => found,
            Err((named, error)) if error.is_forbidden() => {
                return Err(NoValues::Blocked(Blocked {
                    reason: reasons::ACCESS_DENIED.into(),
                    message: format!(
                        "{named} cannot be read: {error}; give that right to {}",
                        reader(run.set.account.as_deref())
                    ),
                    waits: Waits::User,
                    again: true,
                }));
            }
            Err((_, error)) => return Err(NoValues::Unread(error)),
        };
        let (spec, namespace) = (&run.object.spec, &run.name.namespace);
        let given = || {
            let keys = keys(spec, namespace, &found)?;
            Ok(Given { substitution: substitution(spec, namespace, &found)?, keys })
        };
        given().map_err(NoValues::Blocked)
    }

    /// A run has no values. What was applied last stays enforced.
    pub(super) async fn without_values(self: &Arc<Self>, run: &Run, why: NoValues) -> Outcome {
        match why {
            NoValues::Blocked(blocked) => self.blocked(run, blocked).await,
            NoValues::Unread(source) => {
                let error = EngineError::Interrupted { source };
                self.failed_run(run, None, &error).await
            }
        }
    }
}

/// Who reads what is named, for people.
fn reader(account: Option<&Account>) -> String {
    account.map_or_else(
        || "Plumb's account".to_owned(),
        |account| format!("the service account {account}"),
    )
}

fn blocked(reason: &str, message: String) -> Blocked {
    Blocked { reason: reason.into(), message, waits: Waits::User, again: false }
}

/// The keys that open what is encrypted, if any are named.
fn keys(
    spec: &ApplicationSpec,
    namespace: &str,
    found: &Found,
) -> Result<Option<Arc<Keys>>, Blocked> {
    let Some(decryption) = &spec.decryption else { return Ok(None) };
    let named = Named::new(NamedKind::Secret, namespace, &decryption.secret_ref.name);
    let Some(content) = found.get(&named).and_then(Option::as_ref) else {
        let message = format!(
            "{named} does not exist; create it with the keys that open encrypted files, or correct \
             spec.decryption.secretRef.name"
        );
        return Err(blocked(reasons::SECRET_NOT_FOUND, message));
    };
    let entries = content.data.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    match Keys::of_secret(entries) {
        Ok(keys) => Ok(Some(Arc::new(keys))),
        Err(error) => {
            let message = format!("{named} has no usable keys: {error}; {}", error.hint());
            Err(blocked(reasons::INVALID_SECRET, message))
        }
    }
}

fn substitution(
    spec: &ApplicationSpec,
    namespace: &str,
    found: &Found,
) -> Result<Substitution, Blocked> {
    // Flux is strict by default, too.
    let mut substitution = Substitution { strict: true, ..Substitution::default() };
    let Some(post_build) = &spec.post_build else { return Ok(substitution) };
    substitution.always = post_build.substitute_strategy == SubstituteStrategy::Always;
    for (index, from) in post_build.substitute_from.iter().enumerate() {
        let named = Named::new(from.kind, namespace, &from.name);
        let Some(content) = found.get(&named).and_then(Option::as_ref) else {
            if from.optional {
                continue;
            }
            let message = format!(
                "{named} does not exist; create it, or say optional: true in \
                 spec.postBuild.substituteFrom[{index}]"
            );
            return Err(blocked(reasons::VALUES_NOT_FOUND, message));
        };
        for (key, value) in &content.data {
            if !Variable::is_name(key) {
                let message = format!(
                    "{named} has the key {key:?}, which is no name of a variable: take letters, \
                     digits and _, and no digit first"
                );
                return Err(blocked(reasons::INVALID_VALUES, message));
            }
            let Ok(text) = std::str::from_utf8(value) else {
                let message = format!("{named} has a {key} that is not text");
                return Err(blocked(reasons::INVALID_VALUES, message));
            };
            let variable = Variable::new(text, named.kind == NamedKind::Secret);
            substitution.values.insert(key.clone(), variable);
        }
    }
    for (name, text) in &post_build.substitute {
        substitution.values.insert(name.clone(), Variable::new(text, false));
    }
    Ok(substitution)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::named::Content;

    type Object<'a> = (NamedKind, &'a str, &'a [(&'a str, &'a [u8])]);

    fn found(objects: &[Object<'_>]) -> Found {
        let content = |data: &[(&str, &[u8])]| {
            let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec()));
            Some(Arc::new(Content { version: 1, data: data.collect() }))
        };
        let entry =
            |(kind, name, data): &Object<'_>| (Named::new(*kind, "ns", name), content(data));
        objects.iter().map(entry).collect()
    }

    fn spec(post_build: &serde_json::Value) -> ApplicationSpec {
        let spec = json!({
            "sourceRef": {"name": "repo"}, "interval": "1h", "postBuild": post_build,
        });
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn later_values_override_earlier_ones_and_those_of_the_spec_all() {
        let spec = spec(&json!({
            "substitute": {"c": "spec\n"}, "substituteStrategy": "Always",
            "substituteFrom": [
                {"kind": "ConfigMap", "name": "one"}, {"kind": "Secret", "name": "two"},
                {"kind": "Secret", "name": "none", "optional": true},
            ],
        }));
        let found = found(&[
            (NamedKind::ConfigMap, "one", &[("a", b"1"), ("b", b"1"), ("c", b"1")]),
            (NamedKind::Secret, "two", &[("b", b"2\n"), ("c", b"2")]),
        ]);
        let made = substitution(&spec, "ns", &found).ok().unwrap();
        assert!(made.strict && made.always);
        let text: Vec<_> =
            made.values.iter().map(|(k, v)| (k.as_str(), v.text.as_str(), v.secret)).collect();
        assert_eq!(text, [("a", "1", false), ("b", "2", true), ("c", "spec", false)]);
    }

    #[test]
    fn keys_come_from_the_secret_that_is_named() {
        const KEY: &str = include_str!("../../../sops/tests/keys/age.agekey");
        let mut spec = spec(&json!(null));
        let none = keys(&spec, "ns", &Found::default()).ok().unwrap();
        assert!(none.is_none(), "none is named");
        let decryption = json!({"provider": "sops", "secretRef": {"name": "keys"}});
        spec.decryption = serde_json::from_value(decryption).unwrap();
        let take = |data: &[(&str, &[u8])]| {
            let found = found(&[(NamedKind::Secret, "keys", data)]);
            keys(&spec, "ns", &found).map_err(|blocked| (blocked.reason, blocked.message))
        };
        let opens = take(&[("a.agekey", KEY.as_bytes()), ("b", b"x")]).unwrap().unwrap();
        assert_eq!(opens.names().len(), 1);
        let (reason, message) = take(&[("age.txt", KEY.as_bytes())]).unwrap_err();
        assert_eq!(reason, "InvalidSecret");
        assert!(message.contains("Secret ns/keys has no usable keys"), "{message}");
        assert!(message.contains("only age.txt") && message.contains(".agekey"), "{message}");
        let (reason, message) = take(&[("a.agekey", b"hunter2")]).unwrap_err();
        assert_eq!(reason, "InvalidSecret");
        assert!(message.contains("a.agekey: line 1") && !message.contains("hunter2"), "{message}");
        let missing = keys(&spec, "ns", &Found::default()).err().unwrap();
        assert_eq!(missing.reason, "SecretNotFound");
        assert!(missing.message.contains("spec.decryption.secretRef.name"), "{}", missing.message);
    }

    #[test]
    fn what_cannot_be_used_is_named_without_its_value() {
        let spec = spec(&json!({"substituteFrom": [{"kind": "Secret", "name": "values"}]}));
        let said = |data: Option<&[(&str, &[u8])]>| {
            let found = data.map(|data| found(&[(NamedKind::Secret, "values", data)]));
            let blocked = substitution(&spec, "ns", &found.unwrap_or_default()).err().unwrap();
            (blocked.reason, blocked.message)
        };
        let (reason, message) = said(None);
        assert_eq!(reason, "ValuesNotFound");
        assert!(message.contains("Secret ns/values") && message.contains("substituteFrom[0]"));
        let (reason, message) = said(Some(&[("a-b", b"hunter2")]));
        assert_eq!(reason, "InvalidValues");
        assert!(message.contains("\"a-b\"") && !message.contains("hunter2"), "{message}");
        let (_, message) = said(Some(&[("a", b"hunter2\xff")]));
        assert!(message.contains("a that is not text") && !message.contains("hunter2"));
    }
}
