//! Puts values into objects after they were built, as Flux's `postBuild` does: into the text of
//! each, which is then read again, so that a value may be a number or a whole map.

use std::collections::HashMap;
use std::sync::Arc;

use plumb_core::{FieldPath, Object, ObjectKey, Place, Step};
use plumb_yaml::Limits;
use serde_json::Value;

use crate::envsubst::Expander;
use crate::error::{Defect, Problems};
use crate::options::Substitution;

/// Says on an object that its text is left as it is, as a label or an annotation.
const MARKS: [&str; 2] = ["plumb.dev/substitute", "kustomize.toolkit.fluxcd.io/substitute"];

/// Puts values into all objects that do not say otherwise, and notes every place where that fails.
pub(crate) fn substitute(
    objects: &mut [Object],
    with: &Substitution,
    limits: &Limits,
    problems: &mut Problems,
) {
    if with.values.is_empty() && !with.always {
        return;
    }
    for object in objects.iter_mut() {
        if is_left(object) || !has_dollar(object.body()) {
            continue;
        }
        match one(object, with, limits) {
            Ok((made, secret)) => {
                *object = made;
                if secret {
                    object.hide();
                }
            }
            Err(wrong) => {
                let (place, defect) = *wrong;
                let file = Arc::clone(&object.place().file);
                problems.push(&file, Some(place), defect);
            }
        }
    }
    // Names may have become equal.
    let mut first: HashMap<ObjectKey, Place> = HashMap::new();
    for object in objects.iter() {
        if let Some(first) = first.insert(object.key(), object.place().clone()) {
            let (key, place) = (object.key(), object.place());
            let defect = Defect::Duplicate { key, first };
            problems.push(&place.file, Some(place.clone()), defect);
        }
    }
}

fn is_left(object: &Object) -> bool {
    MARKS
        .iter()
        .any(|mark| [object.label(mark), object.annotation(mark)].contains(&Some("disabled")))
}

fn has_dollar(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('$'),
        Value::Array(items) => items.iter().any(has_dollar),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains('$') || has_dollar(value))
        }
        _ => false,
    }
}

/// The object with values in it, and whether any of them came from a Secret.
fn one(
    object: &Object,
    with: &Substitution,
    limits: &Limits,
) -> Result<(Object, bool), Box<(Place, Defect)>> {
    let subject = || object.key();
    let text = plumb_yaml::to_string(object.body());
    let mut expander = Expander::new(&with.values, with.strict);
    let expanded = expander.expand(&text).map_err(|wrong| {
        let path = find(object.body(), &text[wrong.at..], &FieldPath::root());
        let place = path.as_ref().map_or_else(|| object.place().clone(), |p| object.field_place(p));
        let (field, why) = (path.unwrap_or_default(), wrong.why);
        Box::new((place, Defect::Variable { subject: subject(), field, why }))
    })?;
    let secret = expander.used_secret();
    let unread = |why: String| {
        // What a text says that is no YAML may be anything.
        let why = if secret { "it has values of a Secret, so no more is said".into() } else { why };
        Box::new((object.place().clone(), Defect::Substituted { subject: subject(), why }))
    };
    let read = plumb_yaml::read_config(expanded.as_bytes(), &object.place().file, limits);
    let document = read.map_err(|errors| {
        unread(errors.problems.first().map(|error| error.problem.to_string()).unwrap_or_default())
    })?;
    let Some(Value::Object(body)) = document.map(|document| document.value) else {
        return Err(unread("it is no map".into()));
    };
    let made = Object::new(body, object.place().clone(), object.fields().clone());
    let made = made.map_err(|missing| unread(format!("it has {missing}")))?;
    Ok((made.with_steps(object.steps().to_vec()), secret))
}

/// The field whose text or name has what begins with `text`: its own words end sooner or later than
/// those of its line, so they are compared as far as both go.
fn find(value: &Value, text: &str, at: &FieldPath) -> Option<FieldPath> {
    let expression = text.lines().next().unwrap_or_default();
    let same = |words: &str| {
        words.match_indices("${").any(|(begin, _)| {
            let words = words[begin..].lines().next().unwrap_or_default();
            let length = words.len().min(expression.len());
            words.is_char_boundary(length)
                && expression.is_char_boundary(length)
                && words[..length] == expression[..length]
        })
    };
    match value {
        Value::String(words) => same(words).then(|| at.clone()),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find(item, text, &at.join(Step::Index(index)))),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let below = at.join(Step::Key(name.clone()));
            if same(name) { Some(below) } else { find(value, text, &below) }
        }),
        _ => None,
    }
}
