//! Which lists are merged and which kinds are cluster-scoped: the built-in tables, or a schema
//! that a kustomization brings along.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use crate::error::{Result, invalid};
use crate::known::{self, Merge, Type};
use crate::resid::Gvk;

/// The only version of the built-in schema that can be asked for.
const VERSION: &str = "v1.21.2";

/// What is known about kinds in one build.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    custom: RefCell<Option<Rc<Custom>>>,
    /// Whether a version or a schema was chosen; the first choice of a build counts.
    chosen: Cell<bool>,
    /// Whether the built-in schema was needed before; a schema that comes later adds to it,
    /// one that comes first replaces it.
    used: Cell<bool>,
}

#[derive(Debug)]
struct Custom {
    definitions: serde_json::Map<String, Value>,
    kinds: HashMap<(String, String), String>,
    namespaced: HashMap<(String, String), bool>,
    replaces: bool,
}

impl Schemas {
    /// Whether a choice that comes now would count.
    pub(crate) fn open(&self) -> bool {
        !self.chosen.get()
    }

    /// Takes the `openapi` field of a kustomization, with the content of its file.
    pub(crate) fn choose(&self, version: Option<&str>, schema: Option<&Value>) -> Result<()> {
        if !self.open() {
            return Ok(());
        }
        match (version, schema) {
            (None | Some(""), None) => return Ok(()),
            (Some(_), Some(_)) => {
                return Err(invalid!("openapi takes either a version or a path, not both"));
            }
            (Some(VERSION), None) => {}
            (Some(version), None) => {
                return Err(invalid!(
                    "openapi version {version:?} is not built in, only {VERSION} is"
                ));
            }
            (None, Some(schema)) => {
                let custom = Custom::read(schema, !self.used.get())?;
                *self.custom.borrow_mut() = Some(Rc::new(custom));
            }
        }
        self.chosen.set(true);
        Ok(())
    }

    /// Whether a kind is known to be cluster-scoped.
    pub(crate) fn is_cluster_scoped(&self, gvk: &Gvk) -> bool {
        if let Some(namespaced) = known::scope(&gvk.group, &gvk.version, &gvk.kind) {
            return !namespaced;
        }
        let custom = self.custom.borrow();
        let Some(custom) = &*custom else {
            self.used.set(true);
            return false;
        };
        custom.namespaced.get(&(gvk.api_version(), gvk.kind.to_string())) == Some(&false)
    }

    /// The type of a kind.
    pub(crate) fn shape(&self, api_version: &str, kind: &str) -> Option<Shape> {
        self.used.set(true);
        if let Some(custom) = &*self.custom.borrow() {
            if let Some(name) = custom.kinds.get(&(api_version.to_owned(), kind.to_owned())) {
                return custom.definitions.get(name).map(|v| Shape::Custom(Rc::new(v.clone())));
            }
            if custom.replaces {
                return None;
            }
        }
        known::type_of(api_version, kind).map(|ty| Shape::Builtin(None, Some(ty)))
    }

    /// Follows references between definitions.
    fn resolve(&self, mut schema: Value) -> Option<Shape> {
        let custom = self.custom.borrow();
        let custom = custom.as_ref()?;
        // More hops than definitions means a circle.
        for _ in 0..=custom.definitions.len() {
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else {
                return Some(Shape::Custom(Rc::new(schema)));
            };
            let name = reference.strip_prefix("#/definitions/")?;
            // The built-in definitions are read last and win.
            if !custom.replaces
                && let Some(ty) = known::definition(name)
            {
                return Some(Shape::Builtin(None, Some(ty)));
            }
            schema = custom.definitions.get(name)?.clone();
        }
        None
    }
}

fn type_meta(value: &Value) -> Option<(String, String)> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let version = text("version")?;
    let api_version = match text("group") {
        Some(group) if !group.is_empty() => format!("{group}/{version}"),
        _ => version.to_owned(),
    };
    Some((api_version, text("kind")?.to_owned()))
}

const GVK: &str = "x-kubernetes-group-version-kind";

impl Custom {
    fn read(schema: &Value, replaces: bool) -> Result<Self> {
        if !schema.is_object() {
            return Err(invalid!("the OpenAPI schema is not a map"));
        }
        let definitions =
            schema.get("definitions").and_then(Value::as_object).cloned().unwrap_or_default();
        let mut kinds = HashMap::new();
        for (name, definition) in &definitions {
            for gvk in definition.get(GVK).and_then(Value::as_array).into_iter().flatten() {
                if let Some(kind) = type_meta(gvk) {
                    kinds.insert(kind, name.clone());
                }
            }
        }
        let mut namespaced = HashMap::new();
        for (path, operations) in
            schema.get("paths").and_then(Value::as_object).into_iter().flatten()
        {
            let kind = operations.get("get").and_then(|get| get.get(GVK)).and_then(type_meta);
            let Some(kind) = kind else { continue };
            if path.contains("namespaces/{namespace}") {
                namespaced.insert(kind, true);
            } else {
                namespaced.entry(kind).or_insert(false);
            }
        }
        Ok(Self { definitions, kinds, namespaced, replaces })
    }
}

/// The type of a node.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    Builtin(Merge, Option<&'static Type>),
    Custom(Rc<Value>),
}

impl Shape {
    /// The keys by which a list is merged, if it is; none means by the items themselves.
    pub(crate) fn keys(&self) -> Option<Vec<&str>> {
        match self {
            Self::Builtin(merge, _) => merge.map(<[&str]>::to_vec),
            Self::Custom(schema) => {
                let text = |key: &str| schema.get(key).and_then(Value::as_str);
                let strategy = text("x-kubernetes-patch-strategy")?;
                if !strategy.split(',').any(|strategy| strategy == "merge") {
                    return None;
                }
                let listed = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                Some(match listed {
                    Some(keys) => keys.iter().filter_map(Value::as_str).collect(),
                    None => text("x-kubernetes-patch-merge-key").into_iter().collect(),
                })
            }
        }
    }

    /// The type of a field.
    pub(crate) fn field(&self, name: &str, schemas: &Schemas) -> Option<Self> {
        match self {
            Self::Builtin(_, ty) => match ty.as_ref()?.field(name) {
                (None, None) => None,
                (merge, ty) => Some(Self::Builtin(merge, ty)),
            },
            Self::Custom(schema) => {
                let found = schema
                    .get("properties")
                    .and_then(|properties| properties.get(name))
                    .or_else(|| schema.get("additionalProperties").filter(|any| any.is_object()))?;
                schemas.resolve(found.clone())
            }
        }
    }

    /// The type of a list's items.
    pub(crate) fn items(&self, schemas: &Schemas) -> Option<Self> {
        match self {
            Self::Builtin(_, ty) => ty.map(|ty| Self::Builtin(None, Some(ty))),
            Self::Custom(schema) => {
                let is_list = schema.get("type").and_then(Value::as_str) == Some("array");
                let items = schema.get("items").filter(|_| is_list)?;
                schemas.resolve(items.clone())
            }
        }
    }
}
