//! Field specs from the definitions that `crds` lists.

use serde_json::{Map, Value};

use crate::config::{BackReferences, Config, merge_one};
use crate::error::{Problem, Result, invalid};
use crate::fieldspec::FieldSpec;
use crate::resid::Gvk;

/// Properties that are looked at. Definitions refer to each other, so a small file may have many.
const PROPERTIES: usize = 100_000;

/// Reads definitions into field specs.
pub(crate) fn config(definitions: &Value) -> Result<Config> {
    let definitions =
        definitions.as_object().ok_or_else(|| invalid!("the file has no map of definitions"))?;
    let mut reader = Reader {
        definitions,
        config: Config::default(),
        open: Vec::new(),
        path: Vec::new(),
        left: PROPERTIES,
    };
    for (name, definition) in definitions {
        let properties = properties(definition);
        let is_kind = ["kind", "apiVersion", "metadata"]
            .iter()
            .all(|field| properties.is_some_and(|all| all.contains_key(*field)));
        if is_kind {
            let kind = name.rsplit('.').next().unwrap_or(name);
            let gvk = Gvk { kind: kind.into(), ..Gvk::default() };
            reader.add(&gvk, name)?;
        }
    }
    Ok(reader.config)
}

fn properties(definition: &Value) -> Option<&Map<String, Value>> {
    definition.get("Schema")?.get("properties")?.as_object()
}

struct Reader<'d> {
    definitions: &'d Map<String, Value>,
    config: Config,
    /// The definitions that led to the one at hand.
    open: Vec<&'d str>,
    /// The names of the properties that led there.
    path: Vec<&'d str>,
    left: usize,
}

impl<'d> Reader<'d> {
    fn add(&mut self, gvk: &Gvk, name: &'d str) -> Result<()> {
        if self.open.contains(&name) {
            return Err(invalid!("definition {name:?} refers to itself, which has no end"));
        }
        let Some(properties) = self.definitions.get(name).and_then(properties) else {
            return Ok(());
        };
        self.open.push(name);
        for (name, property) in properties {
            self.left = self.left.checked_sub(1).ok_or(Problem::TooMuch {
                what: "properties in definitions, counted each time they are referred to",
                limit: PROPERTIES as u64,
            })?;
            self.path.push(name);
            let path = self.path.join("/");
            let extension = |name: &str| property.get(name).and_then(Value::as_str);
            let spec = FieldSpec::new(gvk.clone(), &path, false);
            if extension("x-kubernetes-annotation").is_some() {
                merge_one(&mut self.config.common_annotations, &spec)?;
            }
            if extension("x-kubernetes-label-selector").is_some() {
                merge_one(&mut self.config.common_labels, &spec)?;
            }
            if extension("x-kubernetes-identity").is_some() {
                merge_one(&mut self.config.name_prefix, &spec)?;
            }
            if let (Some(version), Some(kind)) = (
                extension("x-kubernetes-object-ref-api-version"),
                extension("x-kubernetes-object-ref-kind"),
            ) {
                let key = extension("x-kubernetes-object-ref-name-key").unwrap_or("name");
                let target = Gvk { version: version.into(), kind: kind.into(), ..Gvk::default() };
                let path = format!("{path}/{key}");
                self.config.add_reference(&BackReferences {
                    target,
                    referrers: vec![FieldSpec::new(gvk.clone(), &path, false)],
                })?;
            }
            if let Some(reference) = extension("$ref") {
                self.add(gvk, reference)?;
            }
            self.path.pop();
        }
        self.open.pop();
        Ok(())
    }
}
