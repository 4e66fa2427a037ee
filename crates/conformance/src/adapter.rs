//! What the suite has to know of an agent, as data. Nothing else in it knows one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cel::{Context, Program};
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::Kind;
use crate::error::SuiteError;

/// What texts in templates stand for, by name: `${name}`.
pub(crate) type Values = BTreeMap<String, String>;

/// An agent.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Adapter {
    /// What reports call it.
    pub(crate) name: String,
    /// What is measured, in words: versions, flags that matter.
    #[serde(default)]
    pub(crate) about: String,
    /// How often it looks at its source and at what it applied, in seconds, as its objects below ask for
    /// it. Every bound of the suite is made of this and a constant of the suite.
    pub(crate) interval: u64,
    /// Files of definitions that are applied before it starts; a `*` in the last part stands for any text.
    #[serde(default)]
    pub(crate) definitions: Vec<String>,
    /// Objects in its own namespace that are there before it starts.
    #[serde(default)]
    pub(crate) setup: Vec<Template>,
    /// Its processes, in the order in which they are started.
    pub(crate) processes: Vec<Part>,
    /// What names a repository, where there is such a thing.
    pub(crate) source: Option<Template>,
    /// What names a path in it, and keeps it applied.
    pub(crate) application: Template,
    /// What a duty asks for beyond that, by its name: merged into both.
    #[serde(default)]
    pub(crate) variants: BTreeMap<String, Variant>,
    /// Duties that this agent cannot be put to, each with the reason.
    #[serde(default)]
    pub(crate) untestable: BTreeMap<String, String>,
}

/// A process.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
}

/// A kind, an object of it, and what can be read of one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Template {
    /// As in URLs.
    pub(crate) plural: String,
    /// The object, without name and namespace.
    pub(crate) object: Value,
    /// The annotation that asks it to look at once, if there is one.
    pub(crate) look: Option<String>,
    /// Expressions over `object`, and `events`, those about it.
    #[serde(default)]
    pub(crate) read: Read,
}

/// CEL, each with the value of its name. One that cannot be evaluated gives nothing, an empty text or false.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Read {
    /// Text: names the revision that is applied, or of a source, the one that it stands at.
    pub(crate) revision: String,
    /// Whether all is as asked for.
    pub(crate) ready: String,
    /// Text: what is wrong; empty when nothing is.
    pub(crate) trouble: String,
    /// List of texts: the revisions that were applied.
    pub(crate) history: String,
    /// Whether live objects differ from what is asked for.
    pub(crate) drift: String,
    /// Whether somebody else writes the same again and again.
    pub(crate) fight: String,
    /// List of texts: what is told of tags that were moved and of rewritten history. Each names the commit
    /// that came instead.
    pub(crate) rewritten: String,
    /// Text: what waits for a person's word.
    pub(crate) held: String,
}

impl Template {
    pub(crate) fn kind(&self) -> Kind {
        let text = |field: &str| self.object[field].as_str().unwrap_or_default();
        Kind::new(text("apiVersion"), text("kind"), &self.plural)
    }
}

/// What is merged into the objects; null takes a field away.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Variant {
    pub(crate) source: Value,
    pub(crate) application: Value,
}

/// What an expression is to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Revision,
    Ready,
    Trouble,
    History,
    Drift,
    Fight,
    Rewritten,
    Held,
}

impl Read {
    fn text(&self, what: What) -> &str {
        match what {
            What::Revision => &self.revision,
            What::Ready => &self.ready,
            What::Trouble => &self.trouble,
            What::History => &self.history,
            What::Drift => &self.drift,
            What::Fight => &self.fight,
            What::Rewritten => &self.rewritten,
            What::Held => &self.held,
        }
    }

    /// Whether the agent tells that at all.
    pub(crate) fn tells(&self, what: What) -> bool {
        !self.text(what).is_empty()
    }

    /// The value of an expression over an object and the events about it. What is not there gives null.
    pub(crate) fn value(&self, what: What, object: &Value, events: &[Value]) -> Value {
        let text = self.text(what);
        if text.is_empty() {
            return Value::Null;
        }
        let Ok(program) = Program::compile(text) else { return Value::Null };
        let mut context = Context::default();
        let known = context.add_variable("object", object).is_ok()
            && context.add_variable("events", events).is_ok();
        let found = if known { program.execute(&context).ok() } else { None };
        found.and_then(|value| value.json().ok()).unwrap_or_default()
    }
}

impl Adapter {
    /// Reads a file, and refuses expressions that do not compile: a typing error must not look like an
    /// agent that says nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, SuiteError> {
        let wrong = |why: String| SuiteError::Adapter { path: path.into(), why };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let adapter: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let objects = adapter.source.iter().chain([&adapter.application]).chain(&adapter.setup);
        for template in objects {
            for what in [
                What::Revision,
                What::Ready,
                What::Trouble,
                What::History,
                What::Drift,
                What::Fight,
                What::Rewritten,
                What::Held,
            ] {
                let expression = template.read.text(what);
                if template.read.tells(what)
                    && let Err(error) = Program::compile(expression)
                {
                    return Err(format!("`{expression}`: {error}"));
                }
            }
            for field in ["apiVersion", "kind"] {
                if template.object[field].as_str().is_none_or(str::is_empty) {
                    return Err(format!("object.{field} of {} is missing", template.plural));
                }
            }
        }
        for (duty, reason) in &adapter.untestable {
            if reason.trim().is_empty() {
                return Err(format!("untestable.{duty} gives no reason"));
            }
        }
        Ok(adapter)
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_secs(self.interval)
    }
}

/// Puts values into the texts of a template.
pub(crate) fn fill(template: &Value, values: &Values) -> Result<Value, SuiteError> {
    Ok(match template {
        Value::String(text) => Value::String(fill_text(text, values)?),
        Value::Array(items) => {
            items.iter().map(|item| fill(item, values)).collect::<Result<Vec<_>, _>>()?.into()
        }
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| Ok((fill_text(key, values)?, fill(value, values)?)))
            .collect::<Result<serde_json::Map<_, _>, SuiteError>>()?
            .into(),
        other => other.clone(),
    })
}

/// The same with one text.
pub(crate) fn fill_text(text: &str, values: &Values) -> Result<String, SuiteError> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else { break };
        filled.push_str(&rest[..start]);
        let name = &rest[start + 2..start + length];
        let value = values
            .get(name)
            .ok_or_else(|| SuiteError::NoValue { name: name.to_owned(), text: text.to_owned() })?;
        filled.push_str(value);
        rest = &rest[start + length + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Merges as RFC 7386 has it.
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        if !patch.is_null() {
            *into = patch.clone();
        }
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = into else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_filled_and_an_unknown_name_is_told() {
        let values = Values::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
        let filled = fill(&json!({"x": ["${a}-${b}", 3], "${a}": "$a"}), &values).unwrap();
        assert_eq!(filled, json!({"x": ["1-2", 3], "1": "$a"}));
        let error = fill(&json!("${c}"), &values).unwrap_err().to_string();
        assert!(error.contains("${c}"), "{error}");
    }

    #[test]
    fn the_example_on_the_page_and_all_adapters_can_be_read() {
        let page = include_str!("../../../docs/conformance-adapters.md");
        let (_, rest) = page.split_once("```yaml\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        let adapter = Adapter::parse(example).unwrap();
        assert_eq!((adapter.setup.len(), adapter.processes.len()), (2, 3));
        for text in [
            include_str!("../adapters/plumb.yaml"),
            include_str!("../adapters/flux.yaml"),
            include_str!("../adapters/shell.yaml"),
        ] {
            Adapter::parse(text).unwrap();
        }
        let wrong = example.replace("== 'Synced'", "== ");
        let error = Adapter::parse(&wrong).unwrap_err();
        assert!(error.contains("object.status.sync.status"), "{error}");
    }

    #[test]
    fn variants_are_merged_and_null_takes_away() {
        let mut object = json!({"spec": {"ref": {"branch": "main"}, "prune": true}});
        merge(&mut object, &json!({"spec": {"ref": {"branch": null, "tag": "v1"}}}));
        assert_eq!(object, json!({"spec": {"ref": {"tag": "v1"}, "prune": true}}));
        merge(&mut object, &Value::Null);
        assert_eq!(object, json!({"spec": {"ref": {"tag": "v1"}, "prune": true}}));
    }

    #[test]
    fn what_an_object_does_not_have_gives_nothing() {
        let read = Read {
            revision: "object.status.revision".into(),
            ready: "object.status.ready == true && events.exists(e, e.reason == 'Done')".into(),
            ..Read::default()
        };
        let object = json!({"status": {"revision": "main@1", "ready": true}});
        assert_eq!(read.value(What::Revision, &object, &[]), json!("main@1"));
        assert_eq!(read.value(What::Revision, &json!({}), &[]), Value::Null);
        assert_eq!(read.value(What::Ready, &object, &[]), json!(false));
        assert_eq!(read.value(What::Ready, &object, &[json!({"reason": "Done"})]), json!(true));
        assert_eq!(read.value(What::Drift, &object, &[]), Value::Null);
        assert!(read.tells(What::Ready) && !read.tells(What::Drift));
    }
}
