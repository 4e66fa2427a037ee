//! YAML: what is encrypted is replaced where it stands, and all else stays as it is written, comments
//! too. Sops itself writes the whole anew; since it wrote the encrypted file as well, the result is
//! the same but for files that were laid out by hand since.

use std::ops::Range;
use std::sync::Arc;

use plumb_core::RelPath;
use plumb_yaml::{
    Part, Scalar, ScalarTag, Spanned, SpannedDocument, Style, quote, read_spans, spell,
};
use serde_json::{Map, Number, Value};

use crate::Error;
use crate::cipher::{Plain, looks_sealed};
use crate::metadata::Metadata;
use crate::open::{Opening, Options, Shape};

/// What each level of maps is indented by in what sops writes.
const INDENT: usize = 4;
/// Columns of `- `.
const DASH: usize = 2;

pub(crate) fn open(
    text: &str,
    file: &Arc<RelPath>,
    options: &Options<'_>,
) -> Result<Option<Vec<u8>>, Error> {
    let documents = read_spans(text, file, &options.limits).map_err(Error::Yaml)?;
    let mut edits: Vec<Edit> = Vec::new();
    let mut rest = &documents[..];
    // Documents that were encrypted together have the same metadata; others may have been put into
    // the file since, and are on their own.
    while let Some((first, others)) = rest.split_first() {
        let Some(mac) = mac(first) else {
            rest = others;
            continue;
        };
        let same = others.iter().take_while(|other| self::mac(other) == Some(mac)).count();
        let (group, after) = rest.split_at(same + 1);
        rest = after;
        let marked = |document: &SpannedDocument| {
            let annotations =
                document.root.as_ref().and_then(|root| root.get("metadata")?.get("annotations"));
            is_marked(|mark| annotations?.get(mark)?.text(), options.marks)
        };
        if group.iter().any(marked) {
            continue;
        }
        edits.extend(Group { text, shape: options.shape }.open(group, options)?);
    }
    if edits.is_empty() {
        return Ok(None);
    }
    edits.sort_by_key(|edit| edit.bytes.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for Edit { bytes, with } in edits {
        // Metadata goes with all that is in it.
        if bytes.start < at {
            continue;
        }
        out.push_str(&text[at..bytes.start]);
        out.push_str(&with);
        at = bytes.end;
    }
    out.push_str(&text[at..]);
    Ok(Some(out.into_bytes()))
}

/// Whether an annotation has an object left as it is.
pub(crate) fn is_marked<'v>(get: impl Fn(&str) -> Option<&'v str>, marks: &[&str]) -> bool {
    marks.iter().any(|mark| get(mark).is_some_and(|value| value.eq_ignore_ascii_case("disabled")))
}

/// The MAC in a document's metadata, if it has any; empty where the MAC was taken out of it.
fn mac(document: &SpannedDocument) -> Option<&str> {
    let metadata = document.root.as_ref()?.get("sops")?;
    let has = |name: &str| metadata.get(name).and_then(Spanned::text);
    has("mac").or_else(|| has("lastmodified").or_else(|| has("version")).map(|_| ""))
}

/// Bytes, and what stands there afterwards.
struct Edit {
    bytes: Range<usize>,
    with: String,
}

/// Documents that were encrypted together.
struct Group<'t> {
    text: &'t str,
    shape: Shape,
}

/// Where a value stands.
#[derive(Clone, Copy)]
enum Parent {
    /// Behind a key that begins at a byte.
    Key(usize),
    /// Behind the dash of an item.
    Item,
}

/// One document while it is opened.
struct Walk<'g> {
    group: &'g Group<'g>,
    opening: &'g mut Opening,
    path: Vec<String>,
    /// Where each map and list begins, and the keys that lead to it.
    places: Vec<(usize, Vec<String>)>,
    edits: Vec<Edit>,
}

impl Group<'_> {
    fn open(
        &self,
        documents: &[SpannedDocument],
        options: &Options<'_>,
    ) -> Result<Vec<Edit>, Error> {
        let metadata = documents.first().and_then(|first| first.root.as_ref()?.get("sops"));
        let Some(Value::Object(metadata)) = metadata.map(value) else {
            return Err(Error::Metadata("it is no map".into()));
        };
        let mut opening = Opening::begin(Metadata::read(&metadata)?, options.keys)?;
        let mut edits = Vec::new();
        for document in documents {
            let Some(Spanned { part: Part::Map(fields), span, .. }) = &document.root else {
                continue;
            };
            let mut walk = Walk {
                group: self,
                opening: &mut opening,
                path: Vec::new(),
                places: vec![(span.start, Vec::new())],
                edits: Vec::new(),
            };
            for (i, (key, value)) in fields.iter().enumerate() {
                if key.text == "sops" {
                    let before = i.checked_sub(1).map(|i| fields[i].1.end());
                    let after = fields.get(i + 1).map(|(next, _)| next.span.start);
                    walk.edits.push(self.without(key.span.start, value.end(), before, after));
                } else {
                    walk.field(&key.text, key.span.start, value)?;
                }
            }
            walk.comments(&document.comments);
            edits.append(&mut walk.edits);
        }
        opening.finish()?;
        Ok(edits)
    }

    /// Takes a field of the root out.
    fn without(
        &self,
        from: usize,
        end: usize,
        before: Option<usize>,
        after: Option<usize>,
    ) -> Edit {
        let line = self.text[..from].rfind('\n').map_or(0, |at| at + 1);
        let block = line == from || self.text[line..from].starts_with("---");
        let bytes = match (block, before, after) {
            (true, ..) => {
                let closed = self.text[..end].ends_with('\n');
                let rest =
                    if closed { Some(0) } else { self.text[end..].find('\n').map(|at| at + 1) };
                from..rest.map_or(self.text.len(), |rest| end + rest)
            }
            // Between brackets a comma goes, too.
            (false, _, Some(after)) => from..after,
            (false, Some(before), None) => before..end,
            (false, None, None) => from..end,
        };
        let lines = self.text[bytes.clone()].matches('\n').count();
        let mut with = match self.shape {
            Shape::Lines => "\n".repeat(lines),
            Shape::Text => String::new(),
        };
        if block && before.is_none() && after.is_none() {
            with.insert_str(0, if lines > 0 && self.shape == Shape::Text { "{}\n" } else { "{}" });
        }
        Edit { bytes, with }
    }

    /// Writes a text where a scalar stood.
    fn written(&self, text: &str, bytes: &Range<usize>, parent: Parent) -> String {
        if self.shape == Shape::Lines {
            return quote(text);
        }
        let rest = self.text[bytes.end..].lines().next().unwrap_or_default();
        let line = self.text[..bytes.start].rfind('\n').map_or(0, |at| at + 1);
        let before = &self.text[line..bytes.start];
        let flow = before.contains(['{', '[']) || self.text[bytes.clone()].starts_with('"');
        if flow {
            return quote(text);
        }
        let block = match parent {
            _ if !rest.trim().is_empty() => None,
            Parent::Key(key) => {
                let column = key.saturating_sub(line);
                let indent = INDENT * ((column + INDENT) / INDENT);
                (key >= line).then_some((indent, indent - column))
            }
            Parent::Item => {
                let indent = before.len();
                before.ends_with("- ").then_some((indent, DASH))
            }
        };
        spell(text, block)
    }
}

impl Walk<'_> {
    fn field(&mut self, key: &str, at: usize, value: &Spanned) -> Result<(), Error> {
        self.path.push(key.to_owned());
        self.places.push((at, self.path[..self.path.len() - 1].to_vec()));
        self.value(value, Parent::Key(at))?;
        self.path.pop();
        Ok(())
    }

    fn value(&mut self, value: &Spanned, parent: Parent) -> Result<(), Error> {
        match &value.part {
            Part::Map(fields) => fields
                .iter()
                .try_for_each(|(key, value)| self.field(&key.text, key.span.start, value)),
            Part::List(items) => items.iter().try_for_each(|item| {
                self.places.push((item.span.start, self.path.clone()));
                self.value(item, Parent::Item)
            }),
            Part::Scalar(scalar) => {
                let Some(given) = plain(scalar, &self.path)? else { return Ok(()) };
                let opened = self.opening.value(&self.path, given.clone())?;
                if opened == given {
                    return Ok(());
                }
                let block = !self.group.text[value.span.clone()].starts_with(['"', '\'']);
                if scalar.style != Style::Plain && block {
                    let line = value.line as usize;
                    return Err(Error::Syntax {
                        line,
                        what: "has an encrypted value in a block of lines",
                    });
                }
                if let Plain::Comment(text) = &opened {
                    let Parent::Item = parent else { return Err(Error::Type(self.path.clone())) };
                    let dash = self.group.text[..value.span.start].rfind('-');
                    let bytes = dash.unwrap_or(value.span.start)..value.span.end;
                    self.edits.push(Edit { bytes, with: comment(text) });
                    return Ok(());
                }
                let with = match opened {
                    Plain::Text(bytes) => {
                        let text = String::from_utf8(bytes)
                            .map_err(|_| Error::NotText(self.path.clone()))?;
                        self.group.written(&text, &value.span, parent)
                    }
                    Plain::Int(number) => number.to_string(),
                    Plain::Float(number) => go_float(number),
                    Plain::Bool(value) => value.to_string(),
                    Plain::Time(text) | Plain::Comment(text) => text,
                };
                self.edits.push(Edit { bytes: value.span.clone(), with });
                Ok(())
            }
        }
    }

    /// Opens the comments that are encrypted. To which map or list one belongs is told by what
    /// stands around it, and by what opens it.
    fn comments(&mut self, comments: &[Range<usize>]) {
        self.places.sort();
        for bytes in comments {
            let written = &self.group.text[bytes.clone()];
            let Some(sealed) = written.strip_prefix('#').filter(|text| looks_sealed(text)) else {
                continue;
            };
            let next = self.places.partition_point(|(at, _)| *at < bytes.start);
            let around = self.places[next.saturating_sub(1)..].iter().take(2);
            let paths: Vec<&[String]> = around
                .flat_map(|(_, path)| (0..=path.len()).rev().map(|length| &path[..length]))
                .collect();
            if let Some(text) = self.opening.comment(sealed, &paths) {
                self.edits.push(Edit { bytes: bytes.clone(), with: comment(&text) });
            }
        }
    }
}

/// A comment. Of several lines the second would be more than a comment.
fn comment(text: &str) -> String {
    format!("#{}", text.lines().collect::<Vec<_>>().join(" "))
}

/// What a scalar says, if it is not null.
fn plain(scalar: &Scalar, path: &[String]) -> Result<Option<Plain>, Error> {
    let value = || scalar.to_value().map_err(|_| Error::Type(path.to_vec()));
    Ok(match scalar.tag {
        ScalarTag::Null => None,
        ScalarTag::None | ScalarTag::Str | ScalarTag::Shared => {
            Some(Plain::Text(scalar.text.as_bytes().to_vec()))
        }
        ScalarTag::Timestamp => match value()? {
            Value::String(text) => Some(Plain::Time(text)),
            _ => return Err(Error::Type(path.to_vec())),
        },
        ScalarTag::Int | ScalarTag::Float | ScalarTag::Bool | ScalarTag::Binary => match value()? {
            Value::Bool(value) => Some(Plain::Bool(value)),
            Value::Number(number) => Some(numeric(&number)),
            Value::String(text) => Some(Plain::Text(text.into_bytes())),
            _ => return Err(Error::Type(path.to_vec())),
        },
    })
}

fn numeric(number: &Number) -> Plain {
    match (number.as_i64(), number.as_f64()) {
        (Some(number), _) => Plain::Int(number),
        (None, number) => Plain::Float(number.unwrap_or_default()),
    }
}

/// A number as Go writes it into YAML.
fn go_float(number: f64) -> String {
    let text = format!("{number:e}");
    let Some((digits, power)) = text.split_once('e') else { return text };
    let power: i32 = power.parse().unwrap_or_default();
    if (-4..6).contains(&power) {
        number.to_string()
    } else {
        format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
    }
}

/// A node as JSON, each scalar as its text.
fn value(node: &Spanned) -> Value {
    match &node.part {
        Part::Map(fields) => Value::Object(
            fields
                .iter()
                .map(|(key, field)| (key.text.to_string(), value(field)))
                .collect::<Map<_, _>>(),
        ),
        Part::List(items) => Value::Array(items.iter().map(value).collect()),
        Part::Scalar(scalar) if scalar.is_null() => Value::Null,
        Part::Scalar(scalar) => Value::String(scalar.text.to_string()),
    }
}
