//! Field specs from the definitions that `crds` lists.

use serde_json::{Map, Value};

use crate::config::{BackReferences, Config, merge_one};
use crate::error::{Result, invalid};
use crate::fieldspec::FieldSpec;
use crate::resid::Gvk;

/// Definitions inside each other; circles end here.
const DEPTH: usize = 32;

/// Reads definitions into field specs.
pub(crate) fn config(definitions: &Value) -> Result<Config> {
    let definitions =
        definitions.as_object().ok_or_else(|| invalid!("the file has no map of definitions"))?;
    let mut config = Config::default();
    for (name, definition) in definitions {
        let properties = properties(definition);
        let is_kind = ["kind", "apiVersion", "metadata"]
            .iter()
            .all(|field| properties.is_some_and(|all| all.contains_key(*field)));
        if is_kind {
            let kind = name.rsplit('.').next().unwrap_or(name);
            let gvk = Gvk { kind: kind.into(), ..Gvk::default() };
            add(&mut config, &gvk, definitions, name, &mut Vec::new())?;
        }
    }
    Ok(config)
}

fn properties(definition: &Value) -> Option<&Map<String, Value>> {
    definition.get("Schema")?.get("properties")?.as_object()
}

fn add(
    config: &mut Config,
    gvk: &Gvk,
    definitions: &Map<String, Value>,
    name: &str,
    path: &mut Vec<String>,
) -> Result<()> {
    if path.len() > DEPTH {
        return Ok(());
    }
    let Some(properties) = definitions.get(name).and_then(properties) else {
        return Ok(());
    };
    for (name, property) in properties {
        path.push(name.clone());
        let extension = |name: &str| property.get(name).and_then(Value::as_str);
        let spec = FieldSpec::new(gvk.clone(), &path.join("/"), false);
        if extension("x-kubernetes-annotation").is_some() {
            merge_one(&mut config.common_annotations, &spec)?;
        }
        if extension("x-kubernetes-label-selector").is_some() {
            merge_one(&mut config.common_labels, &spec)?;
        }
        if extension("x-kubernetes-identity").is_some() {
            merge_one(&mut config.name_prefix, &spec)?;
        }
        if let (Some(version), Some(kind)) = (
            extension("x-kubernetes-object-ref-api-version"),
            extension("x-kubernetes-object-ref-kind"),
        ) {
            let key = extension("x-kubernetes-object-ref-name-key").unwrap_or("name");
            let target = Gvk { version: version.into(), kind: kind.into(), ..Gvk::default() };
            let path = format!("{}/{key}", path.join("/"));
            config.add_reference(&BackReferences {
                target,
                referrers: vec![FieldSpec::new(gvk.clone(), &path, false)],
            })?;
        }
        if let Some(reference) = extension("$ref") {
            add(config, gvk, definitions, reference, path)?;
        }
        path.pop();
    }
    Ok(())
}
