//! Built-in generators and transformers that a kustomization configures by objects of its own.

use plumb_core::{FieldPath, FieldPlaces, Place};
use plumb_yaml::{LineMark, Marking, Node};
use serde_json::{Value, json};

use crate::acc::Acc;
use crate::build::read_resources;
use crate::decode::{At, Decode, Fields, Placed};
use crate::error::{Problem, Result, invalid};
use crate::fieldspec::{FieldSpec, set_scalar};
use crate::generate::{self, Kind};
use crate::kustomization::{
    GeneratorArgs, Image, Pairs, Patch, PatchOptions, ReplacementField, Replica, Selector, Strings,
    refuse_helm,
};
use crate::load::Loader;
use crate::openapi::Schemas;
use crate::origins::all_from;
use crate::resource::Res;
use crate::selector::select;
use crate::simple::{self, End, Namespacing, Subjects};
use crate::{images, patch, replacements};

/// What all plugins are given.
pub(crate) struct Context<'c, 's, 't> {
    pub(crate) loader: &'c Loader<'s, 't>,
    pub(crate) schemas: &'c Schemas,
}

fn refuse(config: &Res) -> crate::Error {
    let kind = format!("plugin {} {}", config.api_version(), config.kind());
    crate::Error::from(Problem::Refused {
        what: kind,
        instead: "run it before the commit and list its output in resources",
    })
    .at(&config.place)
}

/// The configuration as values, and where it stands.
fn value_of(config: &Res) -> Result<Value> {
    config.node.to_value().map_err(|problem| invalid!("{problem}").at(&config.place))
}

fn at<'a>(config: &'a Res, fields: &'a FieldPlaces) -> At<'a> {
    At { place: &config.place, fields, path: FieldPath::root(), strict: false, lenient: true }
}

/// Runs a generator.
pub(crate) fn generate(config: &Res, context: &Context<'_, '_, '_>) -> Result<Vec<Res>> {
    if config.api_version() != "builtin" {
        return Err(refuse(config));
    }
    let value = value_of(config)?;
    let origins = &context.loader.source.origins;
    let places = origins.places(&config.node);
    let mut f = Fields::new(&at(config, &places), &value)?;
    let kind = match config.kind() {
        "ConfigMapGenerator" => Kind::ConfigMap,
        "SecretGenerator" => Kind::Secret,
        "IAMPolicyGenerator" => {
            let mark = origins.mark(&config.place);
            return iam_policy(config, &mut f, mark).map(|res| vec![res]);
        }
        "HelmChartInflationGenerator" => {
            return Err(refuse_helm("HelmChartInflationGenerator").at(&config.place));
        }
        _ => return Err(refuse(config)),
    };
    let mut args = GeneratorArgs::take(&mut f)?;
    if args.name.is_empty() {
        config.name().clone_into(&mut args.name.value);
    }
    if args.namespace.is_empty() {
        config.namespace().clone_into(&mut args.namespace.value);
    }
    let res =
        generate::generate(kind, &args, args.options.as_ref(), context.loader, &config.place)?;
    Ok(vec![res])
}

/// A service account that stands for one of a cloud.
fn iam_policy(config: &Res, f: &mut Fields<'_>, mark: LineMark) -> Result<Res> {
    let cloud: String = f.take("cloud")?;
    if cloud != "gke" {
        return Err(invalid!("cloud must be gke, not {cloud:?}").at(&config.place));
    }
    let service: Strings = f.take("kubernetesService")?;
    let account: Strings = f.take("serviceAccount")?;
    let get = |map: &Strings, key: &str| map.get(key).cloned().unwrap_or_default();
    let mut value = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "annotations": {
                "iam.gke.io/gcp-service-account": format!(
                    "{}@{}.iam.gserviceaccount.com",
                    get(&account, "name"),
                    get(&account, "projectId"),
                ),
            },
            "name": get(&service, "name"),
        },
    });
    let namespace = get(&service, "namespace");
    if !namespace.is_empty() {
        value["metadata"]["namespace"] = json!(namespace);
    }
    Ok(Res::new(all_from(Node::from_value(&value), mark), config.place.clone()))
}

/// Runs a transformer.
pub(crate) fn transform(acc: &mut Acc, config: &Res, context: &Context<'_, '_, '_>) -> Result<()> {
    if config.api_version() != "builtin" {
        return Err(refuse(config));
    }
    let value = value_of(config)?;
    let Context { loader, schemas } = *context;
    let origins = &loader.source.origins;
    let budget = &loader.source.budget;
    let places = origins.places(&config.node);
    let at = at(config, &places);
    let mut f = Fields::new(&at, &value)?;
    let place = &config.place;
    let mark = origins.mark(place);
    match config.kind() {
        "AnnotationsTransformer" => {
            let pairs: Pairs = f.take("annotations")?;
            let pairs = origins.pairs(&pairs, place);
            simple::set_strings(
                acc,
                budget,
                "annotations",
                &pairs,
                &f.take::<Vec<FieldSpec>>("fieldSpecs")?,
            )
        }
        "LabelTransformer" => {
            let pairs: Pairs = f.take("labels")?;
            let pairs = origins.pairs(&pairs, place);
            simple::set_strings(
                acc,
                budget,
                "labels",
                &pairs,
                &f.take::<Vec<FieldSpec>>("fieldSpecs")?,
            )
        }
        "NamespaceTransformer" => {
            let how = Namespacing {
                namespace: config.namespace().to_owned(),
                mark: config.marked(&["metadata", "namespace"]).1,
                unset_only: f.take("unsetOnly")?,
                subjects: match f.take::<String>("setRoleBindingSubjects")?.as_str() {
                    "" | "defaultOnly" => Subjects::Default,
                    "allServiceAccounts" => Subjects::Accounts,
                    "none" => Subjects::None,
                    other => {
                        return Err(invalid!(
                            "setRoleBindingSubjects is defaultOnly, allServiceAccounts or none, \
                             not {other:?}"
                        )
                        .at(place));
                    }
                },
            };
            simple::set_namespace(
                acc,
                budget,
                &how,
                &f.take::<Vec<FieldSpec>>("fieldSpecs")?,
                schemas,
            )
        }
        "PrefixTransformer" | "SuffixTransformer" | "PrefixSuffixTransformer" => {
            let specs: Option<Vec<FieldSpec>> = f.take("fieldSpecs")?;
            let specs = specs.ok_or_else(|| invalid!("fieldSpecs is missing").at(place))?;
            for (end, name) in [(End::Prefix, "prefix"), (End::Suffix, "suffix")] {
                if !config.kind().to_ascii_lowercase().contains(name) {
                    continue;
                }
                let text: Placed<String> = f.take(name)?;
                let mark = origins.mark(text.place_or(place));
                if config.kind() != "PrefixSuffixTransformer" || !text.is_empty() {
                    simple::add_to_names(acc, budget, end, (&text, mark), &specs, schemas)?;
                }
            }
            Ok(())
        }
        "ImageTagTransformer" => {
            let image: Image = f.take("imageTag")?;
            images::set_image(acc, budget, &image, mark, &f.take::<Vec<FieldSpec>>("fieldSpecs")?)
        }
        "ReplicaCountTransformer" => {
            let replica: Replica = f.take("replica")?;
            let specs: Vec<FieldSpec> = f.take("fieldSpecs")?;
            simple::set_replicas(acc, &replica, mark, &specs, schemas)
                .map_err(|error| error.at(place))
        }
        "PatchTransformer" => {
            let entry = Patch {
                path: f.take("path")?,
                inline: f.take("patch")?,
                target: f.take("target")?,
                options: f.take::<PatchOptions>("options")?,
            };
            patch::apply(acc, &entry, loader, place, schemas).map(drop)
        }
        "PatchJson6902Transformer" => {
            let entry = Patch {
                path: f.take("path")?,
                inline: f.take("jsonOp")?,
                target: f.take("target")?,
                ..Patch::default()
            };
            patch::json6902(acc, &entry, loader, place, schemas).map(drop)
        }
        "PatchStrategicMergeTransformer" => {
            let mut entries: Vec<Placed<String>> = f.take("paths")?;
            let inline: Placed<String> = f.take("patches")?;
            if !inline.is_empty() {
                // Read here, so that a text that is no object is not taken for a path.
                read_resources(inline.as_bytes(), &place.file, loader.source, Marking::None)?;
                entries.push(inline);
            }
            patch::strategic_merge(acc, &entries, loader, place, schemas, &mut |_, _, _| {})
        }
        "ReplacementTransformer" => {
            let entries: Vec<Placed<ReplacementField>> = f.take("replacements")?;
            replacements::apply(acc, &entries, loader, place, &mut |_, _| {})
        }
        "HashTransformer" => crate::build::add_hashes(acc, schemas),
        "ValueAddTransformer" => {
            value_add(acc, &mut f, place, context).map_err(|error| error.at(place))
        }
        _ => Err(refuse(config)),
    }
}

/// Where a value is added.
#[derive(Debug, Clone, Default)]
struct ValueTarget {
    selector: Option<Selector>,
    path: String,
    position: i64,
}

impl Decode for ValueTarget {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        let mut f = Fields::new(at, value)?;
        let this = Self {
            selector: f.take("selector")?,
            path: f.take("fieldPath")?,
            position: f.take("filePathPosition")?,
        };
        f.finish()?;
        Ok(this)
    }
}

fn value_add(
    acc: &mut Acc,
    f: &mut Fields<'_>,
    place: &Place,
    context: &Context<'_, '_, '_>,
) -> Result<()> {
    let budget = &context.loader.source.budget;
    let given: Placed<String> = f.take("value")?;
    let mut value = given.trim().to_owned();
    let mark = context.loader.source.origins.mark(given.place_or(place));
    if value.is_empty() {
        context.loader.root.name().clone_into(&mut value);
    }
    let mut targets: Vec<ValueTarget> = f.take("targets")?;
    let path: String = f.take("targetFilePath")?;
    if !path.is_empty() {
        let (file, text) = context.loader.file(&path)?;
        let limits = &context.loader.source.options.limits.file;
        if let Some(document) = plumb_yaml::read_config(&text, &file, limits)? {
            let at = At {
                place: &document.place,
                fields: &document.fields,
                path: FieldPath::root(),
                strict: false,
                lenient: true,
            };
            targets.extend(Fields::new(&at, &document.value)?.take::<Vec<ValueTarget>>("targets")?);
        }
    }
    if targets.is_empty() {
        return Err(invalid!("there must be at least one target"));
    }
    for target in targets {
        if target.path.is_empty() {
            return Err(invalid!("a target has no fieldPath"));
        }
        let position = usize::try_from(target.position)
            .map_err(|_| invalid!("filePathPosition must not be negative"))?;
        let selected = match &target.selector {
            Some(selector) => select(acc, selector, context.schemas)?,
            None => (0..acc.items.len()).collect(),
        };
        for at in selected {
            let res = &mut acc.items[at];
            if target.path == "metadata/namespace" {
                let namespace = value.clone();
                let how = Namespacing { namespace, mark, ..Namespacing::default() };
                simple::namespace_of(res, budget, &how, &[], context.schemas)?;
                continue;
            }
            res.story.touched = true;
            budget.ask()?;
            budget.spend(value.len())?;
            let mut node = &mut res.node;
            let names = crate::fieldspec::split(&target.path, '/');
            budget.check_depth(names.len())?;
            for name in names {
                let index = name.parse::<usize>();
                node = match (node, index) {
                    (Node::List(items), Ok(index)) => items
                        .get_mut(index)
                        .ok_or_else(|| invalid!("{} has no item {index}", target.path))?,
                    (Node::Map(map), _) => map.get_or_insert_with(&name, Node::map),
                    _ => return Err(invalid!("{} leads into no map", target.path)),
                };
            }
            if matches!(node, Node::Map(map) if map.is_empty()) {
                *node = Node::string("");
            }
            let text = match position.checked_sub(1) {
                None => value.clone(),
                Some(position) => insert_part(node.text().unwrap_or_default(), position, &value),
            };
            set_scalar(node, &text, plumb_yaml::ScalarTag::None, mark)?;
        }
        acc.changed();
    }
    Ok(())
}

/// Puts a name into a path, at a position that is counted from zero.
fn insert_part(path: &str, position: usize, part: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.insert(position.min(parts.len()), part);
    format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"))
}
