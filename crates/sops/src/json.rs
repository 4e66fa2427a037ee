//! JSON as sops reads and writes it: fields in their order, numbers as they are.

use serde_json::{Map, Value};

use crate::cipher::Plain;
use crate::metadata::Metadata;
use crate::open::{Opening, Options};
use crate::yaml::is_marked;
use crate::{Error, Keys};

/// Maps and lists inside each other: each is a level of the stack.
const MAX_DEPTH: usize = 250;

/// A value.
#[derive(Clone)]
enum Json {
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(String),
    /// Bytes that are no text.
    Bytes(Vec<u8>),
    /// What was a comment when it was encrypted, and is none here.
    Comment,
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

pub(crate) fn open(text: &str, options: &Options<'_>) -> Result<Option<Vec<u8>>, Error> {
    let Some(opened) = fields(text, options)? else { return Ok(None) };
    let mut out = String::new();
    write(&Json::Map(opened), 0, &mut Vec::new(), &mut out)?;
    out.push('\n');
    Ok(Some(out.into_bytes()))
}

/// Opens what is in an envelope: a map whose only field is `data`. Another map is JSON of its own.
pub(crate) fn open_envelope(text: &str, options: &Options<'_>) -> Result<Option<Vec<u8>>, Error> {
    match fields(text, options)?.as_deref() {
        None => Ok(None),
        Some([(name, Json::Text(text))]) if name == "data" => Ok(Some(text.clone().into_bytes())),
        Some([(name, Json::Bytes(bytes))]) if name == "data" => Ok(Some(bytes.clone())),
        Some(fields) => {
            let mut out = String::new();
            write(&Json::Map(fields.to_vec()), 0, &mut Vec::new(), &mut out)?;
            out.push('\n');
            Ok(Some(out.into_bytes()))
        }
    }
}

/// The decrypted fields, if the map is encrypted.
fn fields(text: &str, options: &Options<'_>) -> Result<Option<Vec<(String, Json)>>, Error> {
    let Json::Map(mut fields) = Reader { text, at: 0 }.file()? else { return Ok(None) };
    let Some(at) = fields.iter().position(|(name, _)| name == "sops") else { return Ok(None) };
    let metadata = fields.remove(at).1.to_value();
    let Value::Object(metadata) = metadata else { return Ok(None) };
    if fields.iter().any(|(name, _)| name == "sops") {
        return Err(Error::Metadata("it is there twice".into()));
    }
    let rest = Json::Map(fields).to_value();
    if is_marked(|mark| rest["metadata"]["annotations"][mark].as_str(), options.marks) {
        return Ok(None);
    }
    let Json::Map(mut fields) = Reader { text, at: 0 }.file()? else { return Ok(None) };
    fields.remove(at);
    let mut opening = begin(&metadata, options.keys)?;
    let mut path = Vec::new();
    for (name, value) in &mut fields {
        path.push(name.clone());
        walk(value, &mut path, &mut opening)?;
        path.pop();
    }
    opening.finish()?;
    Ok(Some(fields))
}

fn begin(metadata: &Map<String, Value>, keys: &Keys) -> Result<Opening, Error> {
    Opening::begin(Metadata::read(metadata)?, keys)
}

fn walk(value: &mut Json, path: &mut Vec<String>, opening: &mut Opening) -> Result<(), Error> {
    let given = match value {
        Json::List(items) => {
            items.iter_mut().try_for_each(|item| walk(item, path, opening))?;
            items.retain(|item| !matches!(item, Json::Comment));
            return Ok(());
        }
        Json::Map(fields) => {
            for (name, value) in fields {
                path.push(name.clone());
                walk(value, path, opening)?;
                path.pop();
            }
            return Ok(());
        }
        Json::Null | Json::Comment => return Ok(()),
        Json::Bool(value) => Plain::Bool(*value),
        Json::Number(text) => number(text).ok_or_else(|| Error::Type(path.clone()))?,
        Json::Text(text) => Plain::Text(std::mem::take(text).into_bytes()),
        Json::Bytes(bytes) => Plain::Text(std::mem::take(bytes)),
    };
    *value = match opening.value(path, given)? {
        Plain::Text(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Json::Text(text),
            Err(error) => Json::Bytes(error.into_bytes()),
        },
        Plain::Int(number) => Json::Number(number.to_string()),
        Plain::Float(number) => Json::Number(go_float(number)),
        Plain::Bool(value) => Json::Bool(value),
        Plain::Time(text) => Json::Text(text),
        Plain::Comment(_) => Json::Comment,
    };
    Ok(())
}

fn number(text: &str) -> Option<Plain> {
    match text.parse() {
        Ok(number) => Some(Plain::Int(number)),
        Err(_) => Some(Plain::Float(text.parse().ok().filter(|float: &f64| float.is_finite())?)),
    }
}

/// A number as Go writes it into JSON.
fn go_float(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        match text.split_once('e') {
            Some((digits, power)) if !power.starts_with('-') => format!("{digits}e+{power}"),
            _ => text,
        }
    } else {
        number.to_string()
    }
}

fn write(
    value: &Json,
    indent: usize,
    path: &mut Vec<String>,
    out: &mut String,
) -> Result<(), Error> {
    let line = |out: &mut String, indent| {
        out.push('\n');
        out.extend(std::iter::repeat_n('\t', indent));
    };
    match value {
        Json::Null | Json::Comment => out.push_str("null"),
        Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Json::Number(text) => out.push_str(text),
        Json::Text(text) => out.push_str(&quoted(text)),
        Json::Bytes(_) => return Err(Error::NotText(path.clone())),
        Json::List(items) if items.is_empty() => out.push_str("[]"),
        Json::Map(fields) if fields.is_empty() => out.push_str("{}"),
        Json::List(items) => {
            for (i, item) in items.iter().enumerate() {
                out.push(if i == 0 { '[' } else { ',' });
                line(out, indent + 1);
                write(item, indent + 1, path, out)?;
            }
            line(out, indent);
            out.push(']');
        }
        Json::Map(fields) => {
            for (i, (name, value)) in fields.iter().enumerate() {
                out.push(if i == 0 { '{' } else { ',' });
                line(out, indent + 1);
                out.push_str(&quoted(name));
                out.push_str(": ");
                path.push(name.clone());
                write(value, indent + 1, path, out)?;
                path.pop();
            }
            line(out, indent);
            out.push('}');
        }
    }
    Ok(())
}

/// A text in quotes, with what HTML may mistake escaped, as Go writes it.
fn quoted(text: &str) -> String {
    let text = Value::from(text).to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

impl Json {
    fn to_value(&self) -> Value {
        match self {
            Self::Null | Self::Bytes(_) | Self::Comment => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(text) | Self::Text(text) => Value::String(text.clone()),
            Self::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Self::Map(fields) => Value::Object(
                fields.iter().map(|(name, value)| (name.clone(), value.to_value())).collect(),
            ),
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn file(&mut self) -> Result<Json, Error> {
        let value = self.value(0)?;
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(self.wrong("has something behind the end")),
        }
    }

    /// The next byte that is no space, which is not taken.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        self.at += spaces.count();
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self, what: &'static str) -> Error {
        Error::Syntax { line: self.text[..self.at].matches('\n').count() + 1, what }
    }

    fn take(&mut self, byte: u8, what: &'static str) -> Result<(), Error> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.wrong(what))
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json, Error> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("is nested too deep"));
        }
        match self.peek() {
            Some(b'{') => {
                let mut fields = Vec::new();
                self.items(b'}', |reader| {
                    reader.peek();
                    let name = reader.string()?;
                    reader.take(b':', "lacks a `:`")?;
                    fields.push((name, reader.value(depth + 1)?));
                    Ok(())
                })?;
                Ok(Json::Map(fields))
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.items(b']', |reader| {
                    items.push(reader.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Json::List(items))
            }
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(_) => {
                let rest = &self.text[self.at..];
                let end = rest.find([',', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
                let word = &rest[..end];
                let value = match serde_json::from_str(word) {
                    Ok(Value::Null) => Json::Null,
                    Ok(Value::Bool(value)) => Json::Bool(value),
                    Ok(Value::Number(_)) => Json::Number(word.to_owned()),
                    _ => return Err(self.wrong("is no JSON")),
                };
                self.at += end;
                Ok(value)
            }
            None => Err(self.wrong("ends too early")),
        }
    }

    /// What stands between a bracket, which is next, and the one that closes it.
    fn items(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.at += 1;
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            if self.peek() == Some(b',') {
                self.at += 1;
            } else {
                return self.take(close, "lacks a `,` or a bracket");
            }
        }
    }

    fn string(&mut self) -> Result<String, Error> {
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let end = end.filter(|_| rest.starts_with('"')).map(|end| end + 2);
        let text = end.and_then(|end| serde_json::from_str(&rest[..end]).ok());
        let (Some(text), Some(end)) = (text, end) else {
            return Err(self.wrong("is no JSON"));
        };
        self.at += end;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_as_go_writes_it() {
        let text = "{\n\t\"b\": [\n\t\t1,\n\t\t-2.5,\n\t\ttrue,\n\t\tnull,\n\t\t{}\n\t],\n\t\"a\": \
                    \"\\u003cb\\u003e \\\"\\\\ ä\"\n}";
        let json = Reader { text, at: 0 }.file().unwrap();
        let mut out = String::new();
        write(&json, 0, &mut Vec::new(), &mut out).unwrap();
        assert_eq!(out, text);
    }

    #[test]
    fn numbers_are_those_of_go() {
        for (number, want) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-7"),
            (123_456_789.25, "123456789.25"),
        ] {
            assert_eq!(go_float(number), want);
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let deep = "[".repeat(100_000);
        for text in ["", "{", "{\"a\"}", "{\"a\":}", "[1 2]", "{} x", "tru", "\"a", "{a:1}", &deep]
        {
            assert!(Reader { text, at: 0 }.file().is_err(), "{text:.20}");
        }
    }
}
