//! Lines of `name=value`, with metadata in lines whose names begin with `sops_`.

use serde_json::{Map, Value};

use crate::cipher::Plain;
use crate::metadata::Metadata;
use crate::open::Opening;
use crate::{Error, Keys};

const PREFIX: &str = "sops_";
const MAP: &str = "__map_";
const LIST: &str = "__list_";
/// Items of a list in the metadata, more than its own limits allow.
const MAX_ITEMS: usize = 1000;

enum Line<'t> {
    Comment(&'t str),
    Value(String, String),
}

pub(crate) fn open(text: &str, keys: &Keys) -> Result<Vec<u8>, Error> {
    let (mut lines, mut metadata) = (Vec::new(), Value::Object(Map::new()));
    for (number, line) in (1..).zip(text.split('\n')) {
        if line.is_empty() {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            lines.push(Line::Comment(comment));
            continue;
        }
        let wrong = |what| Error::Syntax { line: number, what };
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("has no `=`"))?;
        let value = value.replace("\\n", "\n");
        match name.strip_prefix(PREFIX) {
            Some(name) => put(&mut metadata, name, value)
                .ok_or_else(|| wrong("does not go with the metadata before it"))?,
            None => lines.push(Line::Value(name.to_owned(), value)),
        }
    }
    let Value::Object(metadata) = metadata else {
        return Err(Error::Metadata("it is no map".into()));
    };
    let mut opening = Opening::begin(Metadata::read(&metadata)?, keys)?;
    let mut out = String::new();
    for line in lines {
        match line {
            Line::Comment(text) => {
                let opened = opening.comment(text, &[&[]]);
                out.push('#');
                out.push_str(opened.as_deref().unwrap_or(text));
            }
            Line::Value(name, value) => {
                let path = [name];
                let value = opening.value(&path, Plain::Text(value.into_bytes()))?;
                out.push_str(&path[0]);
                out.push('=');
                out.push_str(&written(value, &path)?);
            }
        }
        out.push('\n');
    }
    opening.finish()?;
    Ok(out.into_bytes())
}

fn written(value: Plain, path: &[String]) -> Result<String, Error> {
    Ok(match value {
        Plain::Text(bytes) => String::from_utf8(bytes)
            .map_err(|_| Error::NotText(path.to_vec()))?
            .replace('\n', "\\n"),
        Plain::Int(number) => number.to_string(),
        Plain::Float(number) => number.to_string(),
        Plain::Bool(value) => value.to_string(),
        Plain::Time(text) | Plain::Comment(text) => text,
    })
}

/// Puts a value where a name such as `age__list_0__map_enc` says.
fn put(root: &mut Value, name: &str, value: String) -> Option<()> {
    let mut at = root.as_object_mut()?;
    let end = [MAP, LIST].iter().filter_map(|mark| name.find(mark)).min().unwrap_or(name.len());
    let (first, mut rest) = name.split_at(end);
    let mut slot = at.entry(first).or_insert(Value::Null);
    while !rest.is_empty() {
        let (list, inner) = match rest.strip_prefix(LIST) {
            Some(inner) => (true, inner),
            None => (false, rest.strip_prefix(MAP)?),
        };
        let end = [MAP, LIST].iter().filter_map(|mark| inner.find(mark)).min();
        let (step, after) = inner.split_at(end.unwrap_or(inner.len()));
        rest = after;
        if list {
            if slot.is_null() {
                *slot = Value::Array(Vec::new());
            }
            let index: usize = step.parse().ok().filter(|index| *index < MAX_ITEMS)?;
            let items = slot.as_array_mut()?;
            if items.len() <= index {
                items.resize(index + 1, Value::Null);
            }
            slot = items.get_mut(index)?;
        } else {
            if slot.is_null() {
                *slot = Value::Object(Map::new());
            }
            at = slot.as_object_mut()?;
            slot = at.entry(step).or_insert(Value::Null);
        }
    }
    slot.is_null().then(|| *slot = Value::String(value))
}
