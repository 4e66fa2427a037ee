//! The transformers that set texts: names, namespace, labels, annotations, images, replicas.

use plumb_yaml::{LineMark, Node, ScalarTag};
use regex::Regex;

use crate::acc::Acc;
use crate::error::{Problem, Result, invalid};
use crate::fieldspec::{Create, FieldSpec, set_field, set_scalar, walk};
use crate::kustomization::{Image, Replica};
use crate::openapi::Schemas;
use crate::resid::Gvk;
use crate::resource::Res;

/// What is done at the end of a path.
fn each<'s>(
    res: &mut Res,
    specs: impl IntoIterator<Item = &'s FieldSpec>,
    create: Create,
    set: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<()> {
    let gvk = res.gvk();
    for spec in specs.into_iter().filter(|spec| spec.selects(&gvk)) {
        walk(&mut res.node, spec, create, set)
            .map_err(|error| error.on(|| res.label()).at(&res.place))?;
    }
    Ok(())
}

/// Forgets who is who before fields of it are set.
fn prepare(acc: &mut Acc, specs: &[FieldSpec]) {
    if specs.iter().any(FieldSpec::identifies) {
        acc.changed();
    }
}

/// Puts labels or annotations where the specs say.
pub(crate) fn set_strings(
    acc: &mut Acc,
    pairs: &[(&str, &str, LineMark)],
    specs: &[FieldSpec],
) -> Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    prepare(acc, specs);
    for res in &mut acc.items {
        each(res, specs, Create::Map, &mut |node| {
            pairs.iter().try_for_each(|(key, value, mark)| {
                set_field(node, key, value, ScalarTag::Str, *mark)
            })
        })?;
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
    end: End,
    (text, mark): (&str, LineMark),
    specs: &[FieldSpec],
    schemas: &Schemas,
) -> Result<()> {
    acc.changed();
    for res in &mut acc.items {
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
            namespace_of(res, how, specs, schemas)?;
        }
    }
    acc.check_unique(schemas)
}

/// Sets the namespace of one object.
pub(crate) fn namespace_of(
    res: &mut Res,
    how: &Namespacing,
    specs: &[FieldSpec],
    schemas: &Schemas,
) -> Result<()> {
    let mut set = |node: &mut Node| {
        if how.unset_only && !node.is_empty() && node.text().is_some_and(|text| !text.is_empty()) {
            return Ok(());
        }
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

/// Changes the name, tag and digest of an image.
pub(crate) fn set_image(
    acc: &mut Acc,
    image: &Image,
    mark: LineMark,
    specs: &[FieldSpec],
) -> Result<()> {
    let Some(updater) = Updater::new(image, mark) else {
        return Ok(());
    };
    prepare(acc, specs);
    for res in &mut acc.items {
        if res.kind() == "CustomResourceDefinition" {
            continue;
        }
        updater
            .containers(&mut res.node)
            .map_err(|error| error.on(|| res.label()).at(&res.place))?;
        each(res, specs, Create::Nothing, &mut |node| updater.update(node))?;
    }
    Ok(())
}

struct Updater<'i> {
    image: &'i Image,
    mark: LineMark,
    pattern: Regex,
}

impl<'i> Updater<'i> {
    /// The name is an expression to the reference; one that is none matches nothing.
    fn new(image: &'i Image, mark: LineMark) -> Option<Self> {
        let pattern = format!(
            "^{}(:[a-zA-Z0-9_.{{}}-]*)?(@[a-zA-Z0-9]+([.+_-][a-zA-Z0-9]+)*:[a-zA-Z0-9_.{{}}-]*)?$",
            image.name
        );
        let pattern = crate::selector::regex(&pattern).ok()?;
        Some(Self { image, mark, pattern })
    }

    /// Every `image` in lists called containers or initContainers, in whatever object.
    fn containers(&self, node: &mut Node) -> Result<()> {
        match node {
            Node::Map(map) => {
                for (key, value) in map {
                    self.containers(value)?;
                    if !matches!(key.as_str(), "containers" | "initContainers") {
                        continue;
                    }
                    let Node::List(items) = value else { continue };
                    for item in items {
                        match item {
                            Node::Map(container) => {
                                if let Some(image) = container.get_mut("image") {
                                    self.update(image)?;
                                }
                            }
                            item if item.is_null() => {}
                            _ => return Err(invalid!("{key} has an item that is not a map")),
                        }
                    }
                }
                Ok(())
            }
            Node::List(items) => items.iter_mut().try_for_each(|item| self.containers(item)),
            Node::Scalar(_) => Ok(()),
        }
    }

    fn update(&self, node: &mut Node) -> Result<()> {
        let Some(old) = node.text() else {
            return Err(invalid!("an image is not a scalar"));
        };
        if !self.pattern.is_match(old) {
            return Ok(());
        }
        let Image { new_name, new_tag, digest: new_digest, tag_suffix, .. } = self.image;
        let (name, tag, digest) = split_image(old);
        let mut name = if new_name.is_empty() { name.to_owned() } else { new_name.clone() };
        let (tag, digest) = if !new_tag.is_empty() || !new_digest.is_empty() {
            (new_tag.clone(), new_digest.as_str())
        } else if tag_suffix.is_empty() {
            (tag.to_owned(), digest)
        } else {
            (format!("{tag}{tag_suffix}"), "")
        };
        if !tag.is_empty() {
            name = format!("{name}:{tag}");
        }
        if !digest.is_empty() {
            name = format!("{name}@{digest}");
        }
        set_scalar(node, &name, ScalarTag::None, self.mark)
    }
}

/// Name, tag and digest of an image; a colon before the first slash is a port's.
fn split_image(image: &str) -> (&str, &str, &str) {
    let start = image.find('/').unwrap_or(0);
    let at = image[start..].find('@').map(|at| at + start);
    let colon = image[start..].find(':').map(|colon| colon + start);
    match (colon, at) {
        (None, None) => (image, "", ""),
        (Some(colon), None) => (&image[..colon], &image[colon + 1..], ""),
        (Some(colon), Some(at)) if colon < at => {
            (&image[..colon], &image[colon + 1..at], &image[at + 1..])
        }
        (_, Some(at)) => (&image[..at], "", &image[at + 1..]),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_split() {
        let cases = [
            ("nginx", ("nginx", "", "")),
            ("nginx:1.2", ("nginx", "1.2", "")),
            ("host:5000/nginx", ("host:5000/nginx", "", "")),
            ("host:5000/nginx:1@sha256:ab", ("host:5000/nginx", "1", "sha256:ab")),
            ("nginx@sha256:ab", ("nginx", "", "sha256:ab")),
        ];
        for (image, want) in cases {
            assert_eq!(split_image(image), want, "{image}");
        }
    }
}
