//! Variables: `$(NAME)` in some fields stands for a field of some object.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use plumb_core::Place;
use plumb_yaml::{Node, Scalar, ScalarTag};

use crate::acc::Acc;
use crate::budget::Budget;
use crate::decode::Placed;
use crate::error::{Result, invalid};
use crate::fieldspec::{Create, split_dotted, walk};
use crate::kustomization::Var;
use crate::load::Source;
use crate::openapi::Schemas;
use crate::origins::StepId;
use crate::resid::{Gvk, Id};

const DEFAULT_PATH: &str = "metadata.name";

/// Binds variables to the objects that they are about.
pub(crate) fn bind(
    acc: &mut Acc,
    vars: &[Placed<Var>],
    around: &Place,
    schemas: &Schemas,
) -> Result<()> {
    for var in vars {
        let place = var.place_or(around);
        let object = &var.object;
        let mut gvk = Gvk {
            group: object.group.as_str().into(),
            version: object.version.as_str().into(),
            kind: object.kind.as_str().into(),
        };
        if !object.api_version.is_empty() {
            let named = Gvk::new(&object.api_version, "");
            if object.api_version.contains('/') {
                gvk.group = named.group;
            }
            gvk.version = named.version;
        }
        let id = Id {
            gvk,
            name: object.name.as_str().into(),
            namespace: object.namespace.as_str().into(),
            cluster: false,
        };
        let exact = (!id.namespace.is_empty()).then(|| id.key());
        let fits = |other: &Id| match &exact {
            Some(key) => *key == other.key(),
            None => other.name == id.name && other.gvk == id.gvk,
        };
        let found: Vec<usize> = acc
            .by_name(&id.name)
            .into_iter()
            .filter(|at| !acc.items[*at].is_empty())
            .filter(|at| acc.items[*at].any_ids(schemas).iter().any(fits))
            .collect();
        match found[..] {
            [] => {}
            [one] => acc.items[one].vars.push(var.name.clone()),
            _ => {
                return Err(invalid!(
                    "variable {:?} is about several objects: {id} is ambiguous",
                    var.name
                )
                .at(place));
            }
        }
        acc.add_var(var.clone()).map_err(|error| error.at(place))?;
    }
    Ok(())
}

/// A field found by a path of names, indices and `[key=value]`.
pub(crate) fn lookup<'n>(node: &'n Node, path: &[String]) -> Result<Option<&'n Node>> {
    let mut at = node;
    for part in path.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
        if at.is_null() {
            return Ok(None);
        }
        let list = || at.as_list().ok_or_else(|| invalid!("{part:?} is looked for in no list"));
        let next = if let Ok(index) = part.parse::<i64>() {
            let index = usize::try_from(index)
                .map_err(|_| invalid!("index {part:?} must not be negative"))?;
            list()?.get(index)
        } else if part == "-" {
            list()?.last()
        } else if part == "*" {
            return Err(invalid!("`*` cannot be used in the path of one field"));
        } else if let Some(inner) = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')) {
            let (key, value) = inner
                .split_once('=')
                .ok_or_else(|| invalid!("{part:?} is not of the form [key=value]"))?;
            list()?.iter().find(|item| match key {
                "" => item.text() == Some(value),
                key => item.get(key).and_then(Node::text) == Some(value),
            })
        } else {
            let map = at.as_map();
            map.ok_or_else(|| invalid!("{part:?} is looked for in no map"))?.get(part)
        };
        match next {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// `a[0]` is two parts.
fn with_indices(path: Vec<String>) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path {
        match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
            Some((name, index)) if index.parse::<usize>().is_ok() => {
                if !name.is_empty() {
                    parts.push(name.to_owned());
                }
                parts.push(index.to_owned());
            }
            _ => parts.push(part),
        }
    }
    parts
}

/// What variables stand for.
#[derive(Default)]
struct Values {
    values: BTreeMap<String, Option<Scalar>>,
    /// Those that the object at hand has.
    used: RefCell<BTreeSet<String>>,
}

/// Replaces all variables.
pub(crate) fn resolve(acc: &mut Acc, place: &Place, source: &Source<'_>) -> Result<()> {
    let (origins, budget) = (&source.origins, &source.budget);
    let mut values = Values::default();
    for (name, var) in &acc.vars {
        budget.ask()?;
        let path = match var.field.field_path.as_str() {
            "" => DEFAULT_PATH,
            path => path,
        };
        let holder = acc.items.iter().find(|res| res.vars.contains(name)).ok_or_else(|| {
            invalid!("variable {name:?}: no object is {} {}", var.object.kind, var.object.name)
                .at(var.place_or(place))
        })?;
        let parts = with_indices(split_dotted(path));
        let found = lookup(&holder.node, &parts).ok().flatten().ok_or_else(|| {
            invalid!(
                "variable {name:?}: {} at {} has no field {path}",
                holder.label(),
                holder.place
            )
            .at(var.place_or(place))
        })?;
        // The reference reads decimal integers only.
        if let Node::Scalar(Scalar { tag: ScalarTag::Int, text, .. }) = found
            && text.parse::<i64>().is_err()
        {
            return Err(invalid!("variable {name:?}: {path} is no decimal integer")
                .on(|| holder.label())
                .at(&holder.place));
        }
        values.values.insert(name.clone(), scalar_value(found));
    }
    if values.values.is_empty() {
        return Ok(());
    }
    let step = |var: &Placed<Var>| origins.step("vars", var.place_or(place), None);
    let steps: BTreeMap<String, Option<StepId>> =
        acc.vars.iter().map(|(name, var)| (name.clone(), step(var))).collect();
    let config = acc.config.clone();
    for res in &mut acc.items {
        budget.ask()?;
        let gvk = res.gvk();
        for spec in config.var_reference.iter().filter(|spec| spec.selects(&gvk)) {
            walk(&mut res.node, spec, Create::Nothing, &mut |node| replace(node, &values, budget))
                .map_err(|error| error.on(|| res.kind().to_owned()).at(&res.place))?;
            res.story.touched = true;
        }
        let used = values.used.take();
        if origins.is_on() && res.story.changed(&res.node) {
            let used = used.iter().filter_map(|name| steps.get(name).copied().flatten());
            res.story.add(used);
        }
    }
    Ok(())
}

/// What a variable stands for; maps and lists stand for nothing.
fn scalar_value(node: &Node) -> Option<Scalar> {
    let Node::Scalar(scalar) = node else {
        return None;
    };
    let tag = match scalar.tag {
        tag @ (ScalarTag::Int | ScalarTag::Bool) => tag,
        ScalarTag::Float => ScalarTag::Float,
        _ => ScalarTag::Str,
    };
    // Spelled as Go prints it, whatever the spelling in the object.
    let text = match (tag, scalar.to_value()) {
        (ScalarTag::Int | ScalarTag::Bool | ScalarTag::Float, Ok(value)) if !value.is_string() => {
            value.to_string()
        }
        _ => scalar.text.to_string(),
    };
    Some(Scalar::new(text, tag).marked(scalar.mark))
}

fn replace(node: &mut Node, values: &Values, budget: &Budget<'_>) -> Result<()> {
    let put = |scalar: &mut Scalar| -> Result<()> {
        *scalar = expand(scalar, values, budget)?;
        Ok(())
    };
    match node {
        node if node.is_null() => {}
        Node::Scalar(scalar) => {
            if scalar.is_text() {
                put(scalar)?;
            }
        }
        Node::Map(map) => {
            for value in map.values_mut() {
                if let Node::Scalar(scalar) = value
                    && scalar.is_text()
                {
                    put(scalar)?;
                }
            }
        }
        Node::List(items) => {
            for item in items {
                match item {
                    Node::Scalar(scalar) if scalar.is_text() => {
                        put(scalar)?;
                    }
                    _ => return Err(invalid!("a list with variables must have strings only")),
                }
            }
        }
    }
    Ok(())
}

/// Puts values into a text. A text that is one variable becomes its value, number or not; any text
/// comes from where the last value in it does.
fn expand(scalar: &Scalar, values: &Values, budget: &Budget<'_>) -> Result<Scalar> {
    let (text, mut mark) = (scalar.text.as_str(), scalar.mark);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let Some(next) = after.chars().next() else {
            out.push('$');
            return Ok(Scalar::string(out).marked(mark));
        };
        rest = &after[next.len_utf8()..];
        match next {
            '$' => out.push('$'),
            '(' => match rest.split_once(')') {
                Some((name, after)) => {
                    rest = after;
                    if let Some(Some(value)) = values.values.get(name) {
                        values.used.borrow_mut().insert(name.to_owned());
                        budget.spend(value.text.len())?;
                        if text.len() == name.len() + 3 {
                            return Ok(value.clone());
                        }
                        out.push_str(&value.text);
                        mark = value.mark;
                    } else {
                        out.push_str("$(");
                        out.push_str(name);
                        out.push(')');
                    }
                }
                None => out.push_str("$("),
            },
            next => {
                out.push('$');
                out.push(next);
            }
        }
    }
    out.push_str(rest);
    Ok(Scalar::string(out).marked(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_expand() {
        let number = Scalar::new("80", ScalarTag::Int);
        let values = Values {
            values: BTreeMap::from([
                ("A".to_owned(), Some(Scalar::string("x"))),
                ("N".to_owned(), Some(number.clone())),
                ("M".to_owned(), None),
            ]),
            ..Values::default()
        };
        let budget = Budget::new(&crate::Limits::default(), &|| false);
        let expand = |text| expand(&Scalar::string(text), &values, &budget).unwrap();
        for (text, want) in [
            ("$(A)b", "xb"),
            ("$$(A)", "$(A)"),
            ("$(B) $(A", "$(B) $(A"),
            ("$(N)/$(M)$", "80/$(M)$"),
            ("a$b", "a$b"),
        ] {
            assert_eq!(expand(text), Scalar::string(want), "{text}");
        }
        assert_eq!(expand("$(N)"), number);
    }
}
