//! Makes objects of what was built.

use plumb_core::Object;
use plumb_yaml::{LineMark, Node, Scalar};
use serde_json::Value;

use crate::error::{Error, Problem, Result, invalid};
use crate::origins::{Origins, StepId};
use crate::resource::{ORIGIN, Origin, Res, TRANSFORMATIONS};

fn origin_value(origin: &Origin) -> Value {
    let mut map = serde_json::Map::new();
    let put = |map: &mut serde_json::Map<String, Value>, key: &str, text: &str| {
        if !text.is_empty() {
            map.insert(key.to_owned(), Value::String(text.to_owned()));
        }
    };
    put(&mut map, "path", &origin.path);
    put(&mut map, "configuredIn", &origin.configured_in);
    if let Some(by) = &origin.configured_by {
        let mut inner = serde_json::Map::new();
        for (key, text) in ["apiVersion", "kind", "name", "namespace"].iter().zip(by) {
            put(&mut inner, key, text);
        }
        if !inner.is_empty() {
            map.insert("configuredBy".into(), Value::Object(inner));
        }
    }
    Value::Object(map)
}

/// Writes origins as the reference does: fields in the order of its struct.
fn origin_text(origin: &Origin, indent: &str) -> String {
    use std::fmt::Write as _;
    let value = origin_value(origin);
    let mut text = String::new();
    for key in ["path", "configuredIn"] {
        if let Some(Value::String(found)) = value.get(key) {
            let quoted = plumb_yaml::to_string(&Value::String(found.clone()));
            let _ = write!(text, "{indent}{key}: {quoted}");
        }
    }
    if let Some(Value::Object(by)) = value.get("configuredBy") {
        let _ = writeln!(text, "{indent}configuredBy:");
        for key in ["apiVersion", "kind", "name", "namespace"] {
            if let Some(found) = by.get(key) {
                let _ = write!(text, "{indent}  {key}: {}", plumb_yaml::to_string(found));
            }
        }
    }
    text
}

/// The annotations that tell where objects come from, each with the place that asks for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notes {
    pub(crate) origin: Option<Note>,
    pub(crate) transformations: Option<Note>,
}

/// What an annotation comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Note {
    pub(crate) mark: LineMark,
    pub(crate) step: Option<StepId>,
}

/// Makes an object of what was built.
pub(crate) fn output(mut res: Res, wanted: Notes, origins: &Origins) -> Result<Object> {
    let mut notes: Vec<(&str, String, Note)> = Vec::new();
    if let (Some(origin), Some(note)) = (&res.origin, wanted.origin) {
        notes.push((ORIGIN, origin_text(origin, ""), note));
    }
    if let Some(note) = wanted.transformations.filter(|_| !res.transformations.is_empty()) {
        let text = res
            .transformations
            .iter()
            .map(|origin| origin_text(origin, "  ").replacen("  ", "- ", 1))
            .collect();
        notes.push((TRANSFORMATIONS, text, note));
    }
    res.stringify("annotations");
    if let Some(annotations) = res.annotations_mut() {
        annotations.remove(ORIGIN);
        annotations.remove(TRANSFORMATIONS);
    }
    for (_, _, note) in &notes {
        res.story.add(note.step);
    }
    if !notes.is_empty()
        && let Some(metadata) = res.metadata_mut().and_then(Node::as_map_mut)
    {
        let annotations = metadata.get_or_insert_with("annotations", Node::map);
        if let Some(annotations) = annotations.as_map_mut() {
            for (key, text, note) in notes {
                annotations.insert(key, Node::Scalar(Scalar::string(text).marked(note.mark)));
            }
        }
    }
    res.stringify("annotations");
    let label = res.label();
    let place = res.place.clone();
    let (fields, steps) = (origins.places(&res.node), origins.steps(&res.story));
    let value = res
        .node
        .to_value()
        .map_err(|problem| Error::from(Problem::Yaml(problem)).on(|| label.clone()).at(&place))?;
    let Value::Object(body) = value else {
        return Err(invalid!("the object is no map").on(|| label).at(&place));
    };
    Object::new(body, res.place, fields)
        .map(|object| object.with_steps(steps))
        .map_err(|missing| invalid!("object has {missing}").on(|| label).at(&place))
}
