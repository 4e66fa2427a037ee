//! The transformers that set texts: names, namespace, labels, annotations, images, replicas.

use plumb_yaml::{LineMark, Node, ScalarTag};

use crate::acc::Acc;
use crate::budget::Budget;
use crate::error::{Problem, Result, invalid};
use crate::fieldspec::{Create, FieldSpec, set_scalar, walk};
use crate::kustomization::Replica;
use crate::openapi::Schemas;
use crate::resid::Gvk;
use crate::resource::Res;
use crate::shared::Setter;

/// What is done at the end of a path.
pub(crate) fn each<'s>(
    res: &mut Res,
    specs: impl IntoIterator<Item = &'s FieldSpec>,
    create: Create,
    set: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<()> {
    let gvk = res.gvk();
    for spec in specs.into_iter().filter(|spec| spec.selects(&gvk)) {
        res.story.touched = true;
        walk(&mut res.node, spec, create, set).map_err(|error| error.of_object(res))?;
    }
    Ok(())
}

/// Forgets who is who before fields of it are set.
pub(crate) fn prepare(acc: &mut Acc, specs: &[FieldSpec]) {
    if specs.iter().any(FieldSpec::identifies) {
        acc.changed();
    }
}

/// Puts labels or annotations where the specs say; `map` is the name of the map in the metadata.
pub(crate) fn set_strings(
    acc: &mut Acc,
    budget: &Budget<'_>,
    map: &str,
    pairs: &[(&str, &str, LineMark)],
    specs: &[FieldSpec],
) -> Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    prepare(acc, specs);
    for res in &mut acc.items {
        budget.ask()?;
        let mut setters: Vec<_> = pairs.iter().map(|pair| Setter::new(map, *pair)).collect();
        each(res, specs, Create::Map, &mut |node| {
            setters.iter_mut().try_for_each(|setter| setter.set(node, budget))
        })?;
        for setter in setters {
            setter.finish(&mut res.node);
        }
    }
    Ok(())
}

/// Whether a kind keeps its name whatever the prefix and suffix.
fn keeps_name(gvk: &Gvk) -> bool {
    matches!(gvk.kind.as_str(), "CustomResourceDefinition" | "Namespace")
        || (gvk.kind == "APIService" && gvk.group == "apiregistration.k8s.io")
}

/// Which end of a name is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Prefix,
    Suffix,
}

/// Adds a prefix or suffix to names.
pub(crate) fn add_to_names(
    acc: &mut Acc,
    budget: &Budget<'_>,
    end: End,
    (text, mark): (&str, LineMark),
    specs: &[FieldSpec],
    schemas: &Schemas,
) -> Result<()> {
    acc.changed();
    for res in &mut acc.items {
        budget.ask()?;
        let id = res.original_id(schemas);
        if keeps_name(&id.gvk) {
            continue;
        }
        for spec in specs.iter().filter(|spec| spec.selects(&id.gvk)) {
            if spec.path == "metadata/name" && !text.is_empty() {
                match end {
                    End::Prefix => res.prefixes.push(text.into()),
                    End::Suffix => res.suffixes.push(text.into()),
                }
                res.store_id(schemas);
            }
            each(res, [spec], Create::Scalar(ScalarTag::Str), &mut |node| {
                let old = node.text().unwrap_or_default();
                budget.spend(old.len() + text.len())?;
                let new = match end {
                    End::Prefix => format!("{text}{old}"),
                    End::Suffix => format!("{old}{text}"),
                };
                set_scalar(node, &new, ScalarTag::None, mark)
            })?;
        }
    }
    Ok(())
}

/// Which subjects of role bindings get the namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Subjects {
    /// Those named `default`.
    #[default]
    Default,
    /// All service accounts.
    Accounts,
    None,
}

/// How the namespace is set.
#[derive(Debug, Default)]
pub(crate) struct Namespacing {
    pub(crate) namespace: String,
    /// Where the namespace is written.
    pub(crate) mark: LineMark,
    pub(crate) unset_only: bool,
    pub(crate) subjects: Subjects,
}

/// Sets the namespace of all objects that may have one.
pub(crate) fn set_namespace(
    acc: &mut Acc,
    budget: &Budget<'_>,
    how: &Namespacing,
    specs: &[FieldSpec],
    schemas: &Schemas,
) -> Result<()> {
    if how.namespace.is_empty() {
        return Ok(());
    }
    for res in &mut acc.items {
        if !res.is_empty() {
            res.store_id(schemas);
            budget.ask()?;
            namespace_of(res, budget, how, specs, schemas)?;
        }
    }
    acc.check_unique(schemas)
        .map_err(|error| error.hinting("the namespace brings both together; rename one of them"))
}

/// Sets the namespace of one object.
pub(crate) fn namespace_of(
    res: &mut Res,
    budget: &Budget<'_>,
    how: &Namespacing,
    specs: &[FieldSpec],
    schemas: &Schemas,
) -> Result<()> {
    res.story.touched = true;
    let mut set = |node: &mut Node| {
        if how.unset_only && !node.is_empty() && node.text().is_some_and(|text| !text.is_empty()) {
            return Ok(());
        }
        budget.spend(how.namespace.len())?;
        set_scalar(node, &how.namespace, ScalarTag::Str, how.mark)
    };
    let gvk = res.gvk();
    if !schemas.is_cluster_scoped(&gvk)
        && let Some(Node::Map(metadata)) = res.metadata_mut()
    {
        let node = metadata.get_or_insert_with("namespace", || Node::string(""));
        if node.is_null() {
            *node = Node::string("");
        }
        set(node).map_err(|error| error.on(|| "metadata.namespace".into()))?;
    }
    let is_binding = |kind: &str| matches!(kind, "RoleBinding" | "ClusterRoleBinding");
    if is_binding(&gvk.kind)
        && how.subjects != Subjects::None
        && let Some(subjects) = res.node.get_mut("subjects").filter(|node| !node.is_null())
    {
        let Node::List(subjects) = subjects else {
            return Err(invalid!("subjects is not a list").on(|| res.label()).at(&res.place));
        };
        for subject in subjects {
            let (key, wanted) = match how.subjects {
                Subjects::Accounts => ("kind", "ServiceAccount"),
                _ => ("name", "default"),
            };
            if subject.get(key).and_then(Node::text) != Some(wanted) {
                continue;
            }
            if let Some(map) = subject.as_map_mut() {
                set(map.get_or_insert_with("namespace", || Node::string("")))?;
            }
        }
    }
    let core = res.api_version() == "v1";
    let specs = specs.iter().filter(|spec| {
        spec.path != "metadata/namespace"
            && (core || spec.path != "metadata/name")
            && !(is_binding(&gvk.kind)
                && is_binding(&spec.gvk.kind)
                && spec.path == "subjects/namespace")
    });
    each(res, specs, Create::Scalar(ScalarTag::Str), &mut set)
}

/// Sets the number of replicas of the objects with a name.
pub(crate) fn set_replicas(
    acc: &mut Acc,
    replica: &Replica,
    mark: LineMark,
    specs: &[FieldSpec],
    schemas: &Schemas,
) -> Result<()> {
    let mut found = false;
    let named = acc.by_name(&replica.name);
    prepare(acc, specs);
    for spec in specs {
        for at in &named {
            let res = &mut acc.items[*at];
            if res.is_empty() {
                continue;
            }
            let named = res
                .any_ids(schemas)
                .iter()
                .any(|id| id.name == replica.name && spec.selects(&id.gvk));
            if !named {
                continue;
            }
            found = true;
            each(res, [spec], Create::Scalar(ScalarTag::Int), &mut |node| {
                set_scalar(node, &replica.count.to_string(), ScalarTag::Int, mark)
            })?;
        }
    }
    if found {
        return Ok(());
    }
    let kinds: Vec<&str> = specs.iter().map(|spec| spec.gvk.kind.as_str()).collect();
    Err(Problem::Invalid(format!(
        "replicas: no object is called {:?} and of kind {}",
        replica.name,
        kinds.join(", ")
    ))
    .into())
}
