//! The order of a build: one kustomization after the other, step after step.

use std::sync::Arc;

use plumb_core::{FieldPath, Object, Place, RelPath};
use serde_json::Value;

use crate::acc::Acc;
use crate::config::{Config, merge_all, merge_one};
use crate::decode::At;
use crate::error::{Error, Problem, Result, invalid};
use crate::fieldspec::{FieldSpec, Selected};
use crate::kustomization::{GeneratorArgs, Kustomization};
use crate::load::{Loader, Source};
use crate::openapi::Schemas;
use crate::overlay::Overlay;
use crate::plugins::{self, Context};
use crate::resource::{ORIGIN, Origin, Res, TRANSFORMATIONS};
use crate::simple::{self, End, Namespacing};
use crate::{Reorder, crds, generate, nameref, patch, replacements, sort, vars};

/// The version that the managed-by label names; the one whose output this is.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "kustomize-v5.8.2");
const LOCAL_CONFIG: &str = "config.kubernetes.io/local-config";
const VALIDATED_BY: &str = "validated-by";

/// Reads the objects of a file: each has a kind, and a name unless it is a list.
pub(crate) fn read_resources(
    text: &[u8],
    file: &Arc<RelPath>,
    source: &Source<'_>,
) -> Result<Vec<Res>> {
    let options = source.options;
    let documents = plumb_yaml::read_nodes(text, file, &options.limits.file, options.places)?;
    documents
        .into_iter()
        .map(|document| {
            let res = Res::new(document.value, document.place, document.fields);
            if res.kind().is_empty() {
                return Err(invalid!("object has no kind").at(&res.place));
            }
            if res.name().is_empty() && !res.kind().ends_with("List") {
                return Err(invalid!("{} has no metadata.name", res.kind()).at(&res.place));
            }
            Ok(res)
        })
        .collect()
}

/// One kustomization on its way.
pub(crate) struct Target<'b, 's, 't> {
    pub(crate) loader: Loader<'s, 't>,
    pub(crate) file: Arc<RelPath>,
    pub(crate) place: Place,
    pub(crate) content: Kustomization,
    /// Resources of a kustomization that nobody wrote.
    pub(crate) generated: &'b [RelPath],
    /// What comes at its end.
    pub(crate) overlay: Option<&'s Overlay>,
    pub(crate) schemas: &'b Schemas,
    /// Where this is from the first kustomization on, if the output is to say so.
    pub(crate) origin: Option<RelOrigin>,
}

/// A path from the kustomization that is built, which may climb.
#[derive(Debug, Clone, Default)]
pub(crate) struct RelOrigin(Vec<String>);

impl RelOrigin {
    pub(crate) fn join(&self, path: &str) -> Self {
        let mut parts = self.0.clone();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.last().is_some_and(|last| last != "..") => {
                    parts.pop();
                }
                part => parts.push(part.to_owned()),
            }
        }
        Self(parts)
    }

    pub(crate) fn text(&self) -> String {
        self.0.join("/")
    }
}

/// Builds a directory into objects, in order.
pub(crate) fn run(source: &Source<'_>, dir: &RelPath) -> Result<Vec<Object>> {
    let schemas = Schemas::default();
    let loader = Loader::new(source, dir)?;
    let mut target = Target::load(loader, &schemas)?;
    if !target.content.build_metadata.is_empty() {
        target.origin = Some(RelOrigin::default());
    }
    let file = Arc::clone(&target.file);
    target.with_overlay().finish().map_err(|error| error.within(&file))
}

impl<'b, 's, 't> Target<'b, 's, 't> {
    pub(crate) fn load(loader: Loader<'s, 't>, schemas: &'b Schemas) -> Result<Self> {
        loader.source.ask()?;
        let (file, text) = loader.kustomization()?;
        let within = |error: Error| error.within(&file);
        let limits = &loader.source.options.limits.file;
        let document = plumb_yaml::read_config(&text, &file, limits)
            .map_err(|errors| within(errors.into()))?;
        let place = Place { file: Arc::clone(&file), document: 0, line: 1, column: 1 };
        let Some(document) = document.filter(|document| !document.value.is_null()) else {
            return Err(within(invalid!("the kustomization is empty").at(&place)));
        };
        let at = At {
            place: &document.place,
            fields: &document.fields,
            path: FieldPath::root(),
            strict: true,
            lenient: false,
        };
        let content = Kustomization::read(&at, &document.value).map_err(within)?;
        let place = document.place;
        let this = Self {
            loader,
            file,
            place,
            content,
            generated: &[],
            overlay: None,
            schemas,
            origin: None,
        };
        this.choose_schema().map_err(|error| error.at(&this.place).within(&this.file))?;
        Ok(this)
    }

    fn choose_schema(&self) -> Result<()> {
        let openapi = &self.content.openapi;
        let schema = match openapi.get("path") {
            None => None,
            Some(path) => {
                let (file, text) = self.loader.file(path)?;
                if !self.schemas.open() {
                    return Ok(());
                }
                self.config_file(&text, &file)?.map(|(value, _)| value)
            }
        };
        self.schemas.choose(openapi.get("version").map(String::as_str), schema.as_ref())
    }

    /// Reads a file that is read into a struct.
    fn config_file(&self, text: &[u8], file: &Arc<RelPath>) -> Result<Option<(Value, Place)>> {
        let limits = &self.loader.source.options.limits.file;
        let document = plumb_yaml::read_config(text, file, limits)?;
        Ok(document.map(|document| (document.value, document.place)))
    }

    /// Builds this kustomization and everything that comes after the last one.
    pub(crate) fn finish(self) -> Result<Vec<Object>> {
        let metadata = self.content.build_metadata.clone();
        let sorted = self.content.sort_options.clone();
        let options = self.loader.source.options;
        let schemas = self.schemas;
        let place = self.place.clone();
        let mut acc = self.accumulate(Acc::default())?;
        add_hashes(&mut acc, schemas)?;
        nameref::fix(&mut acc, schemas)?;
        vars::resolve(&mut acc)?;
        acc.items.retain(|res| {
            !matches!(
                res.node.at(&["metadata", "annotations", LOCAL_CONFIG]).map(|n| n.text()),
                Some(value) if value != Some("false")
            )
        });
        match (&sorted, options.reorder) {
            (Some(sorted), _) => {
                sort::sort(&mut acc, sorted, schemas).map_err(|error| error.at(&place))?;
            }
            (None, Reorder::Legacy) => sort::default_legacy(&mut acc, schemas),
            (None, Reorder::Fifo) => {}
        }
        let has = |option: &str| metadata.iter().any(|known| known == option);
        if has("managedByLabel") {
            let pairs = [(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into();
            let spec = FieldSpec::new(Selected::default().0, "metadata/labels", true);
            simple::set_strings(&mut acc, &pairs, &[spec])?;
        }
        acc.items
            .into_iter()
            .map(|res| output(res, has("originAnnotations"), has("transformerAnnotations")))
            .collect()
    }

    /// Steps of one kustomization, on what is there already.
    pub(crate) fn accumulate(&self, acc: Acc) -> Result<Acc> {
        let acc = self.generated_resources(acc)?;
        let mut acc = self.resources(acc, &self.content.resources)?;
        self.limit(&acc)?;
        acc.config = acc.config.merge(&self.config()?)?;
        self.generators(&mut acc)?;
        let mut acc = self.components(acc)?;
        self.transformers(&mut acc)?;
        self.validators(&mut acc)?;
        vars::bind(&mut acc, &self.content.vars, self.schemas)
            .map_err(|error| error.at(&self.place))?;
        Ok(acc)
    }

    fn limit(&self, acc: &Acc) -> Result<()> {
        let limit = self.loader.source.options.limits.objects;
        if acc.items.len() > limit {
            return Err(Problem::TooMuch { what: "objects", limit: limit as u64 }.into());
        }
        self.loader.source.ask()
    }

    /// The field specs: built in, from `configurations` and from `crds`.
    fn config(&self) -> Result<Arc<Config>> {
        let mut config = Config::builtin();
        let mut more = Arc::new(Config::default());
        for path in &self.content.configurations {
            let (file, text) = self.loader.file(path).map_err(|error| error.at(&self.place))?;
            let limits = &self.loader.source.options.limits.file;
            let Some(document) = plumb_yaml::read_config(&text, &file, limits)? else {
                continue;
            };
            if document.value.is_null() {
                continue;
            }
            let at = At {
                place: &document.place,
                fields: &document.fields,
                path: FieldPath::root(),
                strict: true,
                lenient: true,
            };
            let read = Config::read(&at, &document.value)?;
            more = more.merge(&Arc::new(read)).map_err(|error| error.at(&document.place))?;
        }
        config = config.merge(&more).map_err(|error| error.at(&self.place))?;
        for path in &self.content.crds {
            let (file, text) = self.loader.file(path).map_err(|error| error.at(&self.place))?;
            let Some((value, place)) = self.config_file(&text, &file)? else { continue };
            let read = crds::config(&value).map_err(|error| error.at(&place))?;
            config = config.merge(&Arc::new(read)).map_err(|error| error.at(&place))?;
        }
        Ok(config)
    }

    fn context(&self) -> Context<'_, 's, 't> {
        Context { loader: &self.loader, schemas: self.schemas }
    }

    /// What the annotations say about a built-in step of this kustomization.
    fn step(&self, kind: &str) -> Option<Origin> {
        let origin = self.origin.as_ref()?;
        let by = ["builtin".to_owned(), kind.to_owned(), String::new(), String::new()];
        Some(Origin {
            configured_in: origin.join(self.file.name()).text(),
            configured_by: Some(by),
            ..Origin::default()
        })
    }

    fn generators(&self, acc: &mut Acc) -> Result<()> {
        use generate::Kind;
        let content = &self.content;
        let global = content.generator_options.as_ref();
        let mut generated: Vec<Res> = Vec::new();
        let entries = [
            (Kind::ConfigMap, "ConfigMapGenerator", &content.config_maps),
            (Kind::Secret, "SecretGenerator", &content.secrets),
        ];
        for (kind, name, list) in entries {
            for args in list {
                let args: &GeneratorArgs = args;
                let options = generate::options(args.options.as_ref(), global);
                let mut res =
                    generate::generate(kind, args, options.as_ref(), &self.loader, &self.place)
                        .map_err(|error| error.at(&self.place))?;
                res.origin = self.step(name);
                generated.push(res);
            }
        }
        for config in self.plugin_configs(&content.generators)? {
            let mut list = plugins::generate(&config, &self.context())?;
            for res in &mut list {
                res.origin = self.plugin_origin(&config);
            }
            generated.extend(list);
        }
        for res in generated {
            acc.absorb(res, self.schemas).map_err(|error| error.at(&self.place))?;
        }
        self.limit(acc)
    }

    fn plugin_origin(&self, config: &Res) -> Option<Origin> {
        self.origin.as_ref()?;
        let text = |text: &str| text.to_owned();
        Some(Origin {
            configured_in: config.origin.as_ref().map(|o| o.path.clone()).unwrap_or_default(),
            configured_by: Some([
                text(config.api_version()),
                text(config.kind()),
                text(config.name()),
                text(config.namespace()),
            ]),
            ..Origin::default()
        })
    }

    /// The objects that configure plugins: in place, in files or built.
    fn plugin_configs(&self, entries: &[String]) -> Result<Vec<Res>> {
        let mut acc = Acc::default();
        let mut paths = Vec::new();
        for entry in entries {
            match read_resources(entry.as_bytes(), &self.file, self.loader.source) {
                Ok(mut list) => {
                    for res in &mut list {
                        res.place = self.place.clone();
                        if let Some(origin) = &self.origin {
                            let path = origin.join(self.file.name()).text();
                            res.origin = Some(Origin { path, ..Origin::default() });
                        }
                    }
                    acc.append_all(list, self.schemas)?;
                }
                Err(error) if entry.contains('\n') => {
                    return Err(invalid!("{}", error.problem()).at(&self.place));
                }
                Err(_) => paths.push(entry.clone()),
            }
        }
        Ok(self.resources(acc, &paths)?.items)
    }

    fn transformers(&self, acc: &mut Acc) -> Result<()> {
        let content = &self.content;
        let config = Arc::clone(&acc.config);
        let schemas = self.schemas;
        let at = |error: Error| error.at(&self.place);
        if !content.patches_strategic_merge.is_empty() {
            let entries = &content.patches_strategic_merge;
            patch::strategic_merge(acc, entries, &self.loader, &self.place, schemas)?;
            self.done(acc, "PatchStrategicMergeTransformer");
        }
        for entry in &content.patches {
            patch::apply(acc, entry, &self.loader, &self.place, schemas)?;
            self.done(acc, "PatchTransformer");
        }
        self.overlay_patches(acc)?;
        if !content.namespace.is_empty() {
            let how =
                Namespacing { namespace: content.namespace.clone(), ..Namespacing::default() };
            simple::set_namespace(acc, &how, &config.namespace, schemas)
                .map_err(|error| self.of_namespace(error))?;
            self.done(acc, "NamespaceTransformer");
        }
        if !content.name_prefix.is_empty() {
            let (text, specs) = (&content.name_prefix, &config.name_prefix);
            simple::add_to_names(acc, End::Prefix, text, specs, schemas)?;
            self.done(acc, "PrefixTransformer");
        }
        if !content.name_suffix.is_empty() {
            let (text, specs) = (&content.name_suffix, &config.name_suffix);
            simple::add_to_names(acc, End::Suffix, text, specs, schemas)?;
            self.done(acc, "SuffixTransformer");
        }
        for label in &content.labels {
            let mut specs = label.fields.clone();
            merge_all(&mut specs, &config.labels).map_err(at)?;
            if label.include_selectors {
                merge_all(&mut specs, &config.common_labels).map_err(at)?;
            } else {
                if label.include_templates {
                    merge_all(&mut specs, &config.template_labels).map_err(at)?;
                }
                if label.include_claims {
                    merge_all(&mut specs, &config.claim_labels).map_err(at)?;
                }
                let own = FieldSpec::new(Selected::default().0, "metadata/labels", true);
                merge_one(&mut specs, &own).map_err(at)?;
            }
            simple::set_strings(acc, &label.pairs, &specs)?;
            self.done(acc, "LabelTransformer");
        }
        if !content.labels.is_empty() || !content.common_labels.is_empty() {
            simple::set_strings(acc, &content.common_labels, &config.common_labels)?;
            self.done(acc, "LabelTransformer");
        }
        if !content.common_annotations.is_empty() {
            let pairs = &content.common_annotations;
            simple::set_strings(acc, pairs, &config.common_annotations)?;
            self.done(acc, "AnnotationsTransformer");
        }
        for entry in &content.patches_json6902 {
            patch::json6902(acc, entry, &self.loader, &self.place, schemas)?;
            self.done(acc, "PatchJson6902Transformer");
        }
        for replica in &content.replicas {
            simple::set_replicas(acc, replica, &config.replicas, schemas).map_err(at)?;
            self.done(acc, "ReplicaCountTransformer");
        }
        for image in &content.images {
            simple::set_images(acc, std::slice::from_ref(image), &config.images)?;
            self.done(acc, "ImageTagTransformer");
        }
        if !content.replacements.is_empty() {
            let entries = &content.replacements;
            replacements::apply(acc, entries, &self.loader, &self.place, schemas)?;
            self.done(acc, "ReplacementTransformer");
        }
        for config in self.plugin_configs(&content.transformers)? {
            plugins::transform(acc, &config, &self.context())?;
            if let Some(origin) = self.plugin_origin(&config) {
                acc.note(&origin);
            }
            acc.drop_empty();
        }
        self.loader.source.ask()
    }

    /// Notes a built-in step, and drops what it deleted.
    pub(crate) fn done(&self, acc: &mut Acc, kind: &str) {
        if let Some(origin) = self.step(kind) {
            acc.note(&origin);
        }
        acc.drop_empty();
    }

    fn validators(&self, acc: &mut Acc) -> Result<()> {
        for config in self.plugin_configs(&self.content.validators)? {
            let nodes = |acc: &Acc| -> Vec<_> {
                acc.items
                    .iter()
                    .map(|res| {
                        let mut node = res.node.clone();
                        if let Some(labels) =
                            node.get_mut("metadata").and_then(|meta| meta.get_mut("labels"))
                            && let Some(labels) = labels.as_map_mut()
                        {
                            labels.remove(VALIDATED_BY);
                        }
                        node
                    })
                    .collect()
            };
            let before = nodes(acc);
            plugins::transform(acc, &config, &self.context())?;
            if nodes(acc) != before {
                return Err(
                    invalid!("validator {} changes objects", config.name()).at(&config.place)
                );
            }
        }
        Ok(())
    }
}

/// Adds the hash of its content to the name of each object that asked for it.
pub(crate) fn add_hashes(acc: &mut Acc, schemas: &Schemas) -> Result<()> {
    acc.changed();
    for res in acc.items.iter_mut().filter(|res| res.needs_hash) {
        let name = format!("{}-{}", res.name(), generate::hash(res)?);
        res.store_id(schemas);
        res.set_metadata("name", &name);
    }
    Ok(())
}

fn origin_value(origin: &Origin) -> Value {
    let mut map = serde_json::Map::new();
    let put = |map: &mut serde_json::Map<String, Value>, key: &str, text: &str| {
        if !text.is_empty() {
            map.insert(key.to_owned(), Value::String(text.to_owned()));
        }
    };
    put(&mut map, "path", &origin.path);
    put(&mut map, "configuredIn", &origin.configured_in);
    if let Some(by) = &origin.configured_by {
        let mut inner = serde_json::Map::new();
        for (key, text) in ["apiVersion", "kind", "name", "namespace"].iter().zip(by) {
            put(&mut inner, key, text);
        }
        if !inner.is_empty() {
            map.insert("configuredBy".into(), Value::Object(inner));
        }
    }
    Value::Object(map)
}

/// Writes origins as the reference does: fields in the order of its struct.
fn origin_text(origin: &Origin, indent: &str) -> String {
    use std::fmt::Write as _;
    let value = origin_value(origin);
    let mut text = String::new();
    for key in ["path", "configuredIn"] {
        if let Some(Value::String(found)) = value.get(key) {
            let quoted = plumb_yaml::to_string(&Value::String(found.clone()));
            let _ = write!(text, "{indent}{key}: {quoted}");
        }
    }
    if let Some(Value::Object(by)) = value.get("configuredBy") {
        let _ = writeln!(text, "{indent}configuredBy:");
        for key in ["apiVersion", "kind", "name", "namespace"] {
            if let Some(found) = by.get(key) {
                let _ = write!(text, "{indent}  {key}: {}", plumb_yaml::to_string(found));
            }
        }
    }
    text
}

/// Makes an object of what was built.
fn output(mut res: Res, origins: bool, transformations: bool) -> Result<Object> {
    let mut notes: Vec<(&str, String)> = Vec::new();
    if let Some(origin) = res.origin.as_ref().filter(|_| origins) {
        notes.push((ORIGIN, origin_text(origin, "")));
    }
    if transformations && !res.transformations.is_empty() {
        let text = res
            .transformations
            .iter()
            .map(|origin| origin_text(origin, "  ").replacen("  ", "- ", 1))
            .collect();
        notes.push((TRANSFORMATIONS, text));
    }
    res.stringify("annotations");
    if let Some(annotations) = res.annotations_mut() {
        annotations.remove(ORIGIN);
        annotations.remove(TRANSFORMATIONS);
    }
    if !notes.is_empty()
        && let Some(metadata) = res.metadata_mut().and_then(plumb_yaml::Node::as_map_mut)
    {
        let annotations = metadata.get_or_insert_with("annotations", plumb_yaml::Node::map);
        if let Some(annotations) = annotations.as_map_mut() {
            for (key, text) in notes {
                annotations.insert(key, plumb_yaml::Node::string(text));
            }
        }
    }
    res.stringify("annotations");
    let label = res.label();
    let place = res.place.clone();
    let value = res
        .node
        .to_value()
        .map_err(|problem| Error::from(Problem::Yaml(problem)).on(|| label.clone()).at(&place))?;
    let Value::Object(body) = value else {
        return Err(invalid!("the object is no map").on(|| label).at(&place));
    };
    Object::new(body, res.place, res.fields)
        .map_err(|missing| invalid!("object has {missing}").on(|| label).at(&place))
}
