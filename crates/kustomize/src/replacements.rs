//! Replacements: a field of one object copied into fields of others.

use std::sync::Arc;

use plumb_core::Place;
use plumb_yaml::{Node, Scalar, ScalarTag};
use regex::Regex;
use serde_json::Value;

use crate::acc::Acc;
use crate::decode::{At, Decode, Placed};
use crate::error::{Result, invalid};
use crate::fieldspec::split_dotted;
use crate::generate::go_json;
use crate::kustomization::{FieldOptions, ReplacementField, Source, Target};
use crate::load::Loader;
use crate::resid::{Gvk, Id};
use crate::resource::Res;
use crate::selector::{Matcher, regex};
use crate::shared::{ANNOTATIONS, Change};
use crate::vars::lookup;

const DEFAULT_PATH: &str = "metadata.name";

/// Applies replacements, those in files too. Calls `done` with the place of each when it is done.
pub(crate) fn apply(
    acc: &mut Acc,
    entries: &[Placed<ReplacementField>],
    loader: &Loader<'_, '_>,
    place: &Place,
    done: &mut dyn FnMut(&mut Acc, &Place),
) -> Result<()> {
    let mut all: Vec<Placed<ReplacementField>> = Vec::new();
    for entry in entries {
        if entry.path.is_empty() {
            all.push(entry.clone());
            continue;
        }
        let place = entry.place_or(place);
        if entry.source.is_some() || entry.targets.as_ref().is_some_and(|t| !t.is_empty()) {
            return Err(invalid!("a replacement is either in a file or in place").at(place));
        }
        let (file, text) = loader.file(&entry.path).map_err(|error| error.at(place))?;
        let limits = &loader.source.options.limits.file;
        let document = plumb_yaml::read_config(&text, &file, limits)?;
        let document = document.ok_or_else(|| invalid!("{file} has no replacement").at(place))?;
        let at = At {
            place: &document.place,
            fields: &document.fields,
            path: plumb_core::FieldPath::root(),
            strict: false,
            lenient: true,
        };
        match &document.value {
            Value::Array(_) => all.extend(Vec::decode(&at, &document.value)?),
            value => all.push(Placed::decode(&at, value)?),
        }
    }
    for replacement in &all {
        loader.source.ask()?;
        let place = replacement.place_or(place);
        one(acc, replacement, loader, place).map_err(|error| error.at(place))?;
        done(acc, place);
    }
    Ok(())
}

/// Identities as replacements see them: kinds are never known to be cluster-scoped.
fn ids(res: &Res) -> Vec<Id> {
    let mut ids = vec![Id {
        gvk: res.gvk(),
        name: res.name().into(),
        namespace: res.namespace().into(),
        cluster: false,
    }];
    ids.extend(res.previous_ids());
    ids
}

fn one(
    acc: &mut Acc,
    replacement: &ReplacementField,
    loader: &Loader<'_, '_>,
    place: &Place,
) -> Result<()> {
    let targets = match &replacement.targets {
        Some(targets)
            if !targets.is_empty()
                && (replacement.source.is_some() || replacement.source_value.is_some()) =>
        {
            targets
        }
        Some(targets) if !targets.is_empty() => {
            return Err(invalid!("a replacement needs a source or a sourceValue"));
        }
        _ => return Err(invalid!("a replacement needs targets")),
    };
    let value = match (&replacement.source, &replacement.source_value) {
        (Some(_), Some(_)) => {
            return Err(invalid!("a replacement has either a source or a sourceValue"));
        }
        (None, Some(text)) => {
            let mark = loader.source.origins.mark(text.place_or(place));
            Node::Scalar(Scalar::plain(text.as_str()).marked(mark))
        }
        (Some(source), None) => read_source(acc, source)?,
        (None, None) => return Ok(()),
    };
    for target in targets {
        put(acc, target, &value, loader)?;
    }
    Ok(())
}

fn describe(source: &Source) -> String {
    let Source { kind, namespace, name, .. } = source;
    let mut text = if kind.is_empty() { "object".to_owned() } else { kind.clone() };
    if !namespace.is_empty() {
        text = format!("{text} {namespace}/{name}");
    } else if !name.is_empty() {
        text = format!("{text} {name}");
    }
    text
}

fn read_source(acc: &mut Acc, source: &Source) -> Result<Node> {
    let gvk = Gvk {
        group: source.group.as_str().into(),
        version: source.version.as_str().into(),
        kind: source.kind.as_str().into(),
    };
    let fits = |id: &Id| {
        (source.name.is_empty() || source.name == id.name)
            && id.in_namespace(&source.namespace)
            && gvk.selects(&id.gvk)
    };
    let candidates = match source.name.as_str() {
        "" => (0..acc.items.len()).collect(),
        name => acc.by_name(name),
    };
    let fitting = candidates.into_iter().map(|at| &acc.items[at]);
    let mut found = fitting.filter(|res| ids(res).iter().any(fits));
    let Some(res) = found.next() else {
        return Err(invalid!("the source of a replacement is not there: {}", describe(source))
            .hinting("it is looked for in what this kustomization has built so far"));
    };
    if let Some(second) = found.next() {
        return Err(invalid!(
            "the source of a replacement is ambiguous: {} is at {} and at {}",
            describe(source),
            res.place,
            second.place
        )
        .hinting("say more of kind, name and namespace"));
    }
    let path = if source.field_path.is_empty() { DEFAULT_PATH } else { &source.field_path };
    let node = lookup(&res.node, &split_dotted(path))
        .map_err(|error| error.on(|| res.label()))?
        .filter(|node| !node.is_empty())
        .ok_or_else(|| {
            invalid!("the source of a replacement has no field {path}").on(|| res.label())
        })?;
    let options = &source.options;
    if options.delimiter.is_empty() {
        return Ok(node.clone());
    }
    let Node::Scalar(scalar) = node else {
        return Err(invalid!("delimiter is for scalars, and {path} is none").on(|| res.label()));
    };
    let part = usize::try_from(options.index)
        .ok()
        .and_then(|index| scalar.text.split(options.delimiter.as_str()).nth(index))
        .ok_or_else(|| {
            invalid!("{path} has no part {} to take", options.index).on(|| res.label())
        })?;
    Ok(Node::Scalar(Scalar { text: part.into(), ..scalar.clone() }))
}

fn put(acc: &mut Acc, target: &Target, value: &Node, loader: &Loader<'_, '_>) -> Result<()> {
    let Some(select) = &target.select else {
        return Err(invalid!("a target of a replacement has no select"));
    };
    let select = Matcher::new(select)?;
    let reject = target.reject.iter().map(Matcher::new).collect::<Result<Vec<_>>>()?;
    let default = [DEFAULT_PATH.to_owned()];
    let paths = if target.field_paths.is_empty() { &default[..] } else { &target.field_paths };
    let mut renamed = false;
    let budget = &loader.source.budget;
    for at in select.candidates(acc) {
        budget.ask()?;
        let res = &mut acc.items[at];
        let ids = ids(res);
        let fits = |matcher: &Matcher, id: &Id| {
            matcher.fits_gvk(&id.gvk.group, &id.gvk.version, &id.gvk.kind)
                && matcher.fits_name(&id.name)
                && matcher.fits_namespace(&id.namespace)
        };
        let rejected = reject.iter().any(|matcher| {
            (matcher.has_marks() && matcher.fits_marks(res))
                || (!matcher.no_identity && ids.iter().any(|id| fits(matcher, id)))
        });
        if rejected || !select.fits_marks(res) || !ids.iter().any(|id| fits(&select, id)) {
            continue;
        }
        res.story.touched = true;
        for path in paths {
            copy(&mut res.node, value, path, &target.options, loader)
                .map_err(|error| error.on(|| format!("{} ({})", res.kind(), res.place)))?;
        }
        renamed |= ids.first() != self::ids(res).first();
    }
    if renamed {
        acc.changed();
    }
    Ok(())
}

fn copy(
    node: &mut Node,
    value: &Node,
    path: &str,
    options: &FieldOptions,
    loader: &Loader<'_, '_>,
) -> Result<()> {
    let budget = &loader.source.budget;
    let parts = split_dotted(path);
    budget.ask()?;
    budget.check_depth(parts.len())?;
    if let Some(done) = inside_text(node, value, &parts, options, loader)? {
        return Ok(done);
    }
    let create = options.create.then_some(Made(value));
    let mut found = 0;
    let mut changes = Vec::new();
    visit(node, &parts, create, &mut found, &mut |node| {
        let old = match node {
            Node::Scalar(old) if old.tag == ScalarTag::Shared => Some(old.clone()),
            _ => None,
        };
        budget.spend_node(value, parts.len())?;
        if !options.delimiter.is_empty() {
            budget.spend(node.text().map_or(0, str::len))?;
        }
        assign(node, value, options)?;
        if let (Some(old), Node::Scalar(new), [.., map, key]) = (old, node, &parts[..]) {
            changes.extend(Change::of(map == ANNOTATIONS, key, &old, new));
        }
        Ok(())
    })
    .map_err(|error| error.part_of(&format!("field {path:?}")))?;
    for change in changes {
        change.spread(node);
    }
    match (found, options.create) {
        (0, true) => Err(invalid!("field {path:?} cannot be found or made in the target")),
        (0, false) => Err(invalid!("field {path:?} is not in the target")
            .hinting("set create: true in the options to make it")),
        _ => Ok(()),
    }
}

/// What a path ends in when it is made, and where it comes from.
#[derive(Clone, Copy)]
struct Made<'v>(&'v Node);

impl Made<'_> {
    /// What stands before the next part of a path.
    fn before(self, next: Option<&String>) -> Node {
        match (next, self.0) {
            (Some(next), _) if is_bracket(next) || next.parse::<usize>().is_ok() => {
                Node::List(Vec::new())
            }
            (Some(_), _) | (None, Node::Map(_)) => Node::map(),
            (None, Node::List(_)) => Node::List(Vec::new()),
            (None, Node::Scalar(_)) => self.scalar(""),
        }
    }

    fn scalar(self, text: &str) -> Node {
        Node::Scalar(Scalar::plain(text).marked(self.0.mark()))
    }
}

fn is_bracket(part: &str) -> bool {
    part.starts_with('[') && part.ends_with(']')
}

/// Calls `set` with each node at a path, making what is missing if asked to.
fn visit(
    node: &mut Node,
    path: &[String],
    create: Option<Made<'_>>,
    found: &mut usize,
    set: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<()> {
    let Some((part, rest)) = path.split_first() else {
        *found += 1;
        return set(node);
    };
    if let Ok(index) = part.parse::<usize>() {
        let Node::List(items) = node else {
            return Err(invalid!("index {index} is for lists"));
        };
        if index == items.len()
            && let Some(create) = create
        {
            items.push(create.before(rest.first()));
        }
        let len = items.len();
        let item = items
            .get_mut(index)
            .ok_or_else(|| invalid!("there is no item {index}, only {len} are there"))?;
        return visit(item, rest, create, found, set);
    }
    if part == "*" {
        return match node {
            Node::List(items) => {
                items.iter_mut().try_for_each(|item| visit(item, rest, create, found, set))
            }
            node if node.is_null() => Ok(()),
            _ => Err(invalid!("`*` is for lists")),
        };
    }
    if is_bracket(part) {
        return visit_items(node, part, rest, create, found, set);
    }
    let map = match node {
        Node::Map(map) => map,
        node if node.is_null() => return Ok(()),
        _ => return Err(invalid!("{part:?} is looked for in no map")),
    };
    if let Some(create) = create {
        map.get_or_insert_with(part, || create.before(rest.first()));
    }
    let Some(next) = map.get_mut(part) else {
        return Ok(());
    };
    if let (Node::Scalar(scalar), false) = (&*next, rest.is_empty()) {
        // A text of its own that could not be changed as such: the reference looks into a copy,
        // so that a path that is there is no error, and changes nothing.
        let mut copy = content(&scalar.text, &plumb_yaml::Limits::default())
            .ok_or_else(|| invalid!("{part:?} is a scalar"))?;
        return visit(&mut copy, rest, create, found, set);
    }
    visit(next, rest, create, found, set)
}

fn visit_items(
    node: &mut Node,
    part: &str,
    rest: &[String],
    create: Option<Made<'_>>,
    found: &mut usize,
    set: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<()> {
    let inner = &part[1..part.len() - 1];
    let (key, wanted) =
        inner.split_once('=').ok_or_else(|| invalid!("{part:?} is not of the form [key=value]"))?;
    let pattern: Regex = regex(wanted)?;
    let items = match node {
        Node::List(items) => items,
        node if node.is_null() => return Ok(()),
        _ => return Err(invalid!("{part:?} is for lists")),
    };
    let before = *found;
    for item in items.iter_mut() {
        if key.is_empty() {
            if item.text().is_some_and(|text| pattern.is_match(text)) {
                *found += 1;
                set(item)?;
            }
            continue;
        }
        if item.get(key).and_then(Node::text).is_some_and(|text| pattern.is_match(text)) {
            visit(item, rest, create, found, set)?;
        }
    }
    let Some(create) = create.filter(|_| *found == before) else {
        return Ok(());
    };
    let value = create.scalar(wanted);
    let mut made = if key.is_empty() { value } else { Node::Map([(key, value)].into()) };
    if key.is_empty() {
        *found += 1;
        set(&mut made)?;
    } else {
        visit(&mut made, rest, Some(create), found, set)?;
    }
    items.push(made);
    Ok(())
}

/// Puts a value into a field, or into a part of it.
fn assign(node: &mut Node, value: &Node, options: &FieldOptions) -> Result<()> {
    let mut value = value.clone();
    if !options.delimiter.is_empty() {
        let Node::Scalar(old) = &*node else {
            return Err(invalid!("delimiter is for scalars"));
        };
        let new = match &value {
            Node::Scalar(new) if !new.is_null() => new.text.to_string(),
            _ => String::new(),
        };
        let mut parts: Vec<&str> = old.text.split(options.delimiter.as_str()).collect();
        match usize::try_from(options.index) {
            Err(_) => parts.insert(0, &new),
            Ok(index) if index >= parts.len() => parts.push(&new),
            Ok(index) => parts[index] = &new,
        }
        let joined = parts.join(&options.delimiter);
        if let Node::Scalar(scalar) = &mut value {
            scalar.text = joined.into();
        }
    }
    match node {
        // A scalar keeps its type and quotes.
        Node::Scalar(old) => {
            let text = value.text().unwrap_or_default();
            if old.text != text {
                old.text = text.into();
                old.mark = value.mark();
            }
        }
        node => *node = value,
    }
    Ok(())
}

/// The document in a text.
fn content(text: &str, limits: &plumb_yaml::Limits) -> Option<Node> {
    let file = Arc::new(plumb_core::RelPath::root());
    let documents = plumb_yaml::read_any(text.as_bytes(), &file, limits).ok()?;
    let null = || Node::Scalar(Scalar { tag: plumb_yaml::ScalarTag::Null, ..Scalar::plain("") });
    Some(documents.into_iter().next().map_or_else(null, |document| document.value))
}

/// Replaces inside a text that is YAML or JSON itself. `None` when the path does not lead into
/// such a text.
fn inside_text(
    node: &mut Node,
    value: &Node,
    parts: &[String],
    options: &FieldOptions,
    loader: &Loader<'_, '_>,
) -> Result<Option<()>> {
    let limits = &loader.source.options.limits.file;
    for at in 1..parts.len() {
        let (outer, inner) = parts.split_at(at);
        let Ok(Some(Node::Scalar(scalar))) = lookup(node, outer) else { continue };
        let text = scalar.text.clone();
        let Some(mut content) = content(&text, limits) else { continue };
        let create = options.create.then_some(Made(value));
        let mut found = 0;
        let done = visit(&mut content, inner, create, &mut found, &mut |node| {
            assign(node, value, options)
        });
        if done.is_err() || found == 0 {
            return Ok(None);
        }
        let Ok(json) = content.to_value() else { return Ok(None) };
        let written = if text.trim_start().starts_with(['{', '[']) {
            if text.contains('\n') && text.contains("  ") {
                serde_json::to_string_pretty(&json).unwrap_or_else(|_| go_json(&json))
            } else {
                go_json(&json)
            }
        } else {
            plumb_yaml::to_string(&json).trim().to_owned()
        };
        let mut written = Some(written);
        visit(node, outer, None, &mut 0, &mut |node| {
            if let (Node::Scalar(scalar), Some(text)) = (node, written.take())
                && scalar.text != text
            {
                scalar.text = text.into();
                scalar.mark = value.mark();
            }
            Ok(())
        })?;
        return Ok(Some(()));
    }
    Ok(None)
}
