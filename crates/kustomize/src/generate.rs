//! ConfigMaps and Secrets from literals and files, and the hashes in their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plumb_core::{Place, Purpose, TreeError};
use plumb_yaml::{LineMark, Map, Node, Scalar, ScalarTag};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::decode::Placed;
use crate::error::{Problem, Result, invalid};
use crate::kustomization::{GeneratorArgs, GeneratorOptions};
use crate::load::Loader;
use crate::resource::{Behavior, Res};

/// Which kind is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

/// Characters of a line of base64.
const BASE64_LINE: usize = 70;

/// Options of one entry with those of all entries behind them.
pub(crate) fn options(
    own: Option<&GeneratorOptions>,
    global: Option<&GeneratorOptions>,
) -> Option<GeneratorOptions> {
    let Some(global) = global else {
        return own.cloned();
    };
    let mut merged = own.cloned().unwrap_or_default();
    for (into, from) in
        [(&mut merged.labels, &global.labels), (&mut merged.annotations, &global.annotations)]
    {
        for (key, value) in from {
            into.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    merged.disable_hash |= global.disable_hash;
    merged.immutable |= global.immutable;
    Some(merged)
}

/// Makes the object of one entry.
pub(crate) fn generate(
    kind: Kind,
    args: &GeneratorArgs,
    options: Option<&GeneratorOptions>,
    loader: &Loader<'_, '_>,
    place: &Place,
) -> Result<Res> {
    if args.name.is_empty() {
        return Err(invalid!("a generator has no name").at(place));
    }
    let data = pairs(kind, args, loader, place).map_err(|error| {
        let kind = match kind {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        };
        error.on(|| format!("{kind} {}", args.name.value))
    })?;
    let origins = &loader.source.origins;
    let placed = |text: &Placed<String>| string(text, origins.mark(text.place_or(place)));
    let mark = origins.mark(place);
    let mut metadata = Map::from([("name", placed(&args.name))]);
    if !args.namespace.is_empty() {
        metadata.insert("namespace", placed(&args.namespace));
    }
    let mut map = Map::from([("apiVersion", string("v1", mark))]);
    match kind {
        Kind::ConfigMap => {
            map.insert("kind", string("ConfigMap", mark));
            for (key, (value, mark)) in data {
                let (field, text) = match String::from_utf8(value) {
                    Ok(text) => ("data", text),
                    Err(error) => ("binaryData", wrapped_base64(error.as_bytes())),
                };
                put(&mut map, field, key, string(&text, mark));
            }
        }
        Kind::Secret => {
            map.insert("kind", string("Secret", mark));
            let secret_type = match args.secret_type.as_str() {
                "" => string("Opaque", mark),
                _ => placed(&args.secret_type),
            };
            map.insert("type", secret_type);
            map.insert("data", Node::map());
            for (key, (value, mark)) in data {
                put(&mut map, "data", key, string(&wrapped_base64(&value), mark));
            }
        }
    }
    if let Some(options) = options {
        for (field, pairs) in [("labels", &options.labels), ("annotations", &options.annotations)] {
            if !pairs.is_empty() {
                let pairs = pairs.iter().map(|(key, value)| (key, placed(value)));
                metadata.insert(field, Node::Map(pairs.collect()));
            }
        }
        if options.immutable {
            let yes = Scalar::new("true", ScalarTag::Bool).marked(mark);
            map.insert("immutable", Node::Scalar(yes));
        }
    }
    map.insert("metadata", Node::Map(metadata));
    let mut res = Res::new(Node::Map(map), place.clone());
    res.needs_hash = !options.is_some_and(|options| options.disable_hash);
    res.behavior = match args.behavior.as_str() {
        "merge" => Behavior::Merge,
        "replace" => Behavior::Replace,
        _ => Behavior::Create,
    };
    Ok(res)
}

fn string(text: &str, mark: LineMark) -> Node {
    Node::Scalar(Scalar::string(text).marked(mark))
}

fn put(map: &mut Map, field: &str, key: String, value: Node) {
    let data = map.get_or_insert_with(field, Node::map);
    if let Some(data) = data.as_map_mut() {
        data.insert(key, value);
    }
}

/// Base64 in lines, where it is longer than one.
fn wrapped_base64(bytes: &[u8]) -> String {
    let plain = STANDARD.encode(bytes);
    if plain.len() < BASE64_LINE {
        return plain;
    }
    let mut lines = String::with_capacity(plain.len() + plain.len() / BASE64_LINE + 1);
    for (i, c) in plain.char_indices() {
        if i > 0 && i % BASE64_LINE == 0 {
            lines.push('\n');
        }
        lines.push(c);
    }
    lines.push('\n');
    lines
}

/// Keys and values from env files, then literals, then files; each with its place. Errors name no
/// keys of a Secret, which are content where somebody forgot the key.
fn pairs(
    kind: Kind,
    args: &GeneratorArgs,
    loader: &Loader<'_, '_>,
    place: &Place,
) -> Result<BTreeMap<String, (Vec<u8>, LineMark)>> {
    let origins = &loader.source.origins;
    let secret = kind == Kind::Secret;
    let purpose = if secret { Purpose::Secret } else { Purpose::Public };
    let mut all = BTreeMap::new();
    let mut add = |key: &str, value: Vec<u8>, mark: LineMark, place: &Place| {
        if all.contains_key(key) {
            let error = if secret {
                invalid!("the key is given twice")
            } else {
                invalid!("key {key:?} is given twice")
            };
            return Err(error.at(place));
        }
        all.insert(key.to_owned(), (value, mark));
        Ok(())
    };
    for path in args.env_files() {
        let (file, content) =
            loader.file_for(path, purpose).map_err(|error| error.at(path.place_or(place)))?;
        let marking = origins.file(&file);
        for (line, text) in (1..).zip(content.split(|byte| *byte == b'\n')) {
            let place = Place { file: Arc::clone(&file), document: 0, line, column: 1 };
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let text = std::str::from_utf8(text)
                .map_err(|_| invalid!("the line is not UTF-8 text").at(&place))?;
            let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
            let text = text.trim_start();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            if !key.is_empty() {
                add(key, value.into(), marking.mark(line), &place)?;
            }
        }
    }
    for literal in &args.literals {
        let place = literal.place_or(place);
        let (key, value) = literal
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| invalid!("a literal is not of the form key=value").at(place))?;
        add(key, unquoted(value).into(), origins.mark(place), place)?;
    }
    for source in &args.files {
        let place = source.place_or(place);
        let (key, path) = match source.split_once('=') {
            None => (source.rsplit('/').next().unwrap_or_default(), source.as_str()),
            Some(("", _) | (_, "")) => {
                return Err(invalid!("a file is not of the form path or key=path").at(place));
            }
            Some((_, path)) if path.contains('=') => {
                return Err(invalid!("a file has more than one `=`").at(place));
            }
            Some(pair) => pair,
        };
        let (file, content) =
            loader.file_for(path, purpose).map_err(|error| match error.cause() {
                // It is no path where somebody meant a literal.
                Problem::Tree(TreeError::NotFound(_)) if secret && key != path => {
                    invalid!("a file does not exist").at(place)
                }
                _ => error.at(place),
            })?;
        add(key, content, origins.file(&file).mark(1), place)?;
    }
    Ok(all)
}

/// Without one pair of quotes around it.
fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// Gives a generated object the names and marks of the one that it replaces or is merged with.
pub(crate) fn take_over(res: &mut Res, old: &Res, behavior: Behavior) {
    if behavior == Behavior::Merge {
        let mut old_data = strings(old, "data");
        if res.kind() == "Secret" {
            for (key, (value, mark)) in strings(old, "stringData") {
                old_data.insert(key, (wrapped_base64(value.as_bytes()), mark));
            }
        }
        merge_data(res, "data", old_data);
        merge_data(res, "binaryData", strings(old, "binaryData"));
    }
    for field in ["labels", "annotations"] {
        let mut merged = Map::new();
        for res in [old, &*res] {
            let map = res.node.at(&["metadata", field]).and_then(Node::as_map);
            for (key, value) in map.into_iter().flatten() {
                merged.insert(key.clone(), string(value.text().unwrap_or_default(), value.mark()));
            }
        }
        let Some(Node::Map(metadata)) = res.metadata_mut() else { continue };
        if merged.is_empty() {
            metadata.remove(field);
        } else {
            metadata.insert(field, Node::Map(merged));
        }
    }
    let name = old.marked(&["metadata", "name"]);
    let namespace = old.marked(&["metadata", "namespace"]);
    res.set_metadata("name", &name);
    res.set_metadata("namespace", &namespace);
    if behavior == Behavior::Merge {
        res.node.keep_marks(&old.node);
        res.place = old.place.clone();
    }
    res.story.continue_from(&old.story);
    res.previous.clone_from(&old.previous);
    res.prefixes.clone_from(&old.prefixes);
    res.suffixes.clone_from(&old.suffixes);
    res.vars.clone_from(&old.vars);
    res.behavior = old.behavior;
    res.needs_hash &= old.needs_hash;
    if behavior == Behavior::Merge && old.origin.is_some() || res.origin.is_none() {
        res.origin.clone_from(&old.origin);
    }
    res.transformations.clone_from(&old.transformations);
}

fn strings(res: &Res, field: &str) -> BTreeMap<String, (String, LineMark)> {
    let map = res.node.get(field).and_then(Node::as_map);
    map.into_iter()
        .flatten()
        .map(|(key, value)| {
            let text = if value.is_null() { "" } else { value.text().unwrap_or_default() };
            (key.to_string(), (text.to_owned(), value.mark()))
        })
        .collect()
}

fn merge_data(res: &mut Res, field: &str, mut merged: BTreeMap<String, (String, LineMark)>) {
    merged.extend(strings(res, field));
    let Some(map) = res.node.as_map_mut() else { return };
    if merged.is_empty() {
        map.remove(field);
        return;
    }
    let nodes = merged.into_iter().map(|(key, (value, mark))| (key, string(&value, mark)));
    map.insert(field, Node::Map(nodes.collect()));
}

/// The hash that goes into the name of an object.
pub(crate) fn hash(res: &Res) -> Result<String> {
    let field = |name: &str| -> Result<Value> {
        match res.node.get(name) {
            None => Ok(json!("")),
            Some(Node::Scalar(scalar)) => Ok(json!(scalar.text.as_str())),
            Some(Node::List(_)) => Ok(Value::Null),
            Some(node) => node.to_value().map_err(|problem| invalid!("{problem}").at(&res.place)),
        }
    };
    // The reference looks for the name in the wrong place and never finds it.
    let content = match res.kind() {
        "ConfigMap" => {
            let mut content = json!({"kind": "ConfigMap", "name": "", "data": field("data")?});
            if let binary @ Value::Object(_) = field("binaryData")? {
                content["binaryData"] = binary;
            }
            content
        }
        "Secret" => {
            let mut content = json!({
                "kind": "Secret", "name": "", "data": field("data")?, "type": field("type")?,
            });
            if let plain @ Value::Object(_) = field("stringData")? {
                content["stringData"] = plain;
            }
            content
        }
        kind => {
            return Err(
                invalid!("only ConfigMaps and Secrets have hashes, not {kind}").at(&res.place)
            );
        }
    };
    Ok(encode(&go_json(&content)))
}

/// JSON as Go writes it: keys sorted, and what HTML may mistake escaped.
pub(crate) fn go_json(value: &Value) -> String {
    let text = value.to_string();
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Ten characters that make no words.
fn encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"gh2k456789mbcdtf";
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(5)
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(HEX[usize::from(nibble)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_lose_one_pair_of_quotes() {
        for (text, want) in
            [("\"a\"", "a"), ("'a'", "a"), ("\"a'", "\"a'"), ("\"", "\""), ("''", "")]
        {
            assert_eq!(unquoted(text), want, "{text}");
        }
    }

    #[test]
    fn base64_breaks_behind_seventy() {
        assert_eq!(wrapped_base64(b"abc"), "YWJj");
        let long = wrapped_base64(&[0; 60]);
        assert_eq!(long.lines().map(str::len).collect::<Vec<_>>(), [70, 10]);
        assert!(long.ends_with('\n'));
    }
}
