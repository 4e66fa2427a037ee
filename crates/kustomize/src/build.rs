//! The order of a build: one kustomization after the other, step after step.

use std::sync::Arc;

use plumb_core::{FieldPath, Object, Place, RelPath};
use plumb_yaml::Marking;
use serde_json::Value;

use crate::acc::Acc;
use crate::config::{Config, merge_all, merge_one};
use crate::decode::{At, Placed};
use crate::error::{Error, Problem, Result, invalid};
use crate::fieldspec::FieldSpec;
use crate::kustomization::Kustomization;
use crate::load::{Loader, Source};
use crate::openapi::Schemas;
use crate::origins::StepId;
use crate::output::{Note, Notes, output};
use crate::overlay::Overlay;
use crate::plugins::{self, Context};
use crate::resid::Gvk;
use crate::resource::{Origin, Res};
use crate::simple::{self, End, Namespacing};
use crate::{Reorder, crds, generate, images, nameref, patch, replacements, sort, vars};

/// The version that the managed-by label names; the one whose output this is.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "kustomize-v5.8.2");
const LOCAL_CONFIG: &str = "config.kubernetes.io/local-config";
const VALIDATED_BY: &str = "validated-by";

/// Reads the objects of a file: each has a kind, and a name unless it is a list.
pub(crate) fn read_resources(
    text: &[u8],
    file: &Arc<RelPath>,
    source: &Source<'_>,
    marking: Marking,
) -> Result<Vec<Res>> {
    let documents = plumb_yaml::read_nodes(text, file, &source.options.limits.file, marking)?;
    documents
        .into_iter()
        .map(|document| {
            let res = Res::new(document.value, document.place);
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
        loader.source.origins.keep(&file, &text);
        let within = |error: Error| error.within(&file);
        let limits = &loader.source.options.limits.file;
        let document = plumb_yaml::read_config(&text, &file, limits)
            .map_err(|errors| within(errors.into()))?;
        let place = Place { file: Arc::clone(&file), document: 0, line: 1, column: 1 };
        let Some(document) = document.filter(|document| !document.value.is_null()) else {
            return Err(within(
                invalid!("the kustomization is empty")
                    .at(&place)
                    .hinting("list in resources what to build"),
            ));
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
        let chosen = this.content.openapi.values().next();
        let place = chosen.map_or(&this.place, |chosen| chosen.place_or(&this.place));
        this.choose_schema().map_err(|error| error.at(place).within(&this.file))?;
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
        self.schemas.choose(openapi.get("version").map(|version| version.as_str()), schema.as_ref())
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
        let source = self.loader.source;
        let (options, origins) = (source.options, &source.origins);
        let schemas = self.schemas;
        let place = self.place.clone();
        let mut acc = self.accumulate(Acc::default())?;
        acc.check_unique_if_changed(schemas)?;
        add_hashes(&mut acc, schemas)?;
        for res in acc.items.iter_mut().filter(|res| res.story.touched && origins.is_on()) {
            if res.story.changed(&res.node) {
                res.story.add(origins.step("nameSuffixHash", &res.place, None));
            }
        }
        nameref::fix(&mut acc, schemas, source)?;
        vars::resolve(&mut acc, &place, source)?;
        acc.items.retain(|res| {
            !matches!(
                res.node.at(&["metadata", "annotations", LOCAL_CONFIG]).map(|n| n.text()),
                Some(value) if value != Some("false")
            )
        });
        match (&sorted, options.reorder) {
            (Some(sorted), _) => {
                sort::sort(&mut acc, sorted, schemas)
                    .map_err(|error| error.at(sorted.place_or(&place)))?;
            }
            (None, Reorder::Legacy) => sort::default_legacy(&mut acc, schemas),
            (None, Reorder::Fifo) => {}
        }
        let asks = |option: &str| {
            let entry = metadata.iter().find(|entry| entry.as_str() == option)?;
            let place = entry.place_or(&place);
            let step = origins.step("buildMetadata", place, None);
            Some(Note { mark: origins.mark(place), step })
        };
        if let Some(Note { mark, step }) = asks("managedByLabel") {
            let spec = FieldSpec::new(Gvk::default(), "metadata/labels", true);
            simple::set_strings(
                &mut acc,
                &source.budget,
                "labels",
                &[(MANAGED_BY.0, MANAGED_BY.1, mark)],
                &[spec],
            )?;
            acc.record(step);
        }
        let notes = Notes {
            origin: asks("originAnnotations"),
            transformations: asks("transformerAnnotations"),
        };
        acc.items.into_iter().map(|res| output(res, notes, origins)).collect()
    }

    /// Steps of one kustomization, on what is there already.
    pub(crate) fn accumulate(&self, acc: Acc) -> Result<Acc> {
        let acc = self.generated_resources(acc)?;
        let mut acc = self.resources(acc, &self.content.resources)?;
        acc.config = acc.config.merge(&self.config()?)?;
        self.generators(&mut acc)?;
        let mut acc = self.components(acc)?;
        self.transformers(&mut acc)?;
        self.validators(&mut acc)?;
        vars::bind(&mut acc, &self.content.vars, &self.place, self.schemas)?;
        Ok(acc)
    }

    pub(crate) fn limit(&self, acc: &Acc) -> Result<()> {
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
            let place = path.place_or(&self.place);
            let (file, text) = self.loader.file(path).map_err(|error| error.at(place))?;
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
            let read = Arc::new(Config::read(&at, &document.value)?);
            // Only to know which file it is that contradicts the built-in ones.
            config.merge(&read).map_err(|error| error.at(&document.place))?;
            more = more.merge(&read).map_err(|error| error.at(&document.place))?;
        }
        config = config.merge(&more).map_err(|error| error.at(&self.place))?;
        for path in &self.content.crds {
            let place = path.place_or(&self.place);
            let (file, text) = self.loader.file(path).map_err(|error| error.at(place))?;
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
        let origins = &self.loader.source.origins;
        let entries = [
            (Kind::ConfigMap, "ConfigMapGenerator", "configMapGenerator", &content.config_maps),
            (Kind::Secret, "SecretGenerator", "secretGenerator", &content.secrets),
        ];
        for (kind, name, field, list) in entries {
            for args in list {
                let options = generate::options(args.options.as_ref(), global);
                let place = args.place_or(&self.place);
                let mut res = generate::generate(kind, args, options.as_ref(), &self.loader, place)
                    .map_err(|error| error.at(place))?;
                res.origin = self.step(name);
                res.story = origins.begin(&res.node, origins.step(field, place, None));
                generated.push(res);
            }
        }
        for (config, place) in self.plugin_configs(&content.generators)? {
            let mut list = plugins::generate(&config, &self.context())?;
            let step = origins.step("generators", place, self.elsewhere(&config));
            for res in &mut list {
                res.story = origins.begin(&res.node, step);
                res.origin = self.plugin_origin(&config);
            }
            generated.extend(list);
        }
        for res in generated {
            let place = res.place.clone();
            acc.absorb(res, self.schemas)
                .and_then(|()| self.limit(acc))
                .map_err(|error| error.at(&place))?;
        }
        // What a generator merges belongs to its own step.
        for res in acc.items.iter_mut().filter(|res| res.story.touched && origins.is_on()) {
            res.story.changed(&res.node);
        }
        Ok(())
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

    /// The place of an object that configures a plugin, unless it stands in this kustomization.
    fn elsewhere<'c>(&self, config: &'c Res) -> Option<&'c Place> {
        Some(&config.place).filter(|place| place.file != self.file)
    }

    /// The objects that configure plugins, in place, in files or built; and where they are listed.
    fn plugin_configs<'e>(
        &'e self,
        entries: &'e [Placed<String>],
    ) -> Result<Vec<(Res, &'e Place)>> {
        let mut acc = Acc::default();
        let mut paths = Vec::new();
        let mut places = Vec::new();
        for entry in entries {
            let place = entry.place_or(&self.place);
            let source = self.loader.source;
            let marking = source.origins.inline(place, entry);
            match read_resources(entry.as_bytes(), &self.file, source, marking) {
                Ok(mut list) => {
                    for res in &mut list {
                        res.place = place.clone();
                        if let Some(origin) = &self.origin {
                            let path = origin.join(self.file.name()).text();
                            res.origin = Some(Origin { path, ..Origin::default() });
                        }
                    }
                    acc.append_all(list, self.schemas)?;
                    places.resize(acc.items.len(), place);
                }
                Err(error) if entry.contains('\n') => {
                    return Err(error.in_text().at(place));
                }
                Err(_) => paths.push(entry),
            }
        }
        for path in paths {
            acc = self.resources(acc, std::slice::from_ref(path))?;
            places.resize(acc.items.len(), path.place_or(&self.place));
        }
        Ok(acc.items.into_iter().zip(places).collect())
    }

    fn transformers(&self, acc: &mut Acc) -> Result<()> {
        let content = &self.content;
        let config = Arc::clone(&acc.config);
        let schemas = self.schemas;
        let at = |error: Error| error.at(&self.place);
        let origins = &self.loader.source.origins;
        let budget = &self.loader.source.budget;
        let step = |kind, place: &Place| origins.step(kind, place, None);
        if !content.patches_strategic_merge.is_empty() {
            let entries = &content.patches_strategic_merge;
            let mut done = |acc: &mut Acc, place: &Place, source: Option<&Place>| {
                acc.record(origins.step("patchesStrategicMerge", place, source));
            };
            patch::strategic_merge(acc, entries, &self.loader, &self.place, schemas, &mut done)?;
            self.done(acc, "PatchStrategicMergeTransformer", None)?;
        }
        for entry in &content.patches {
            let place = entry.place_or(&self.place);
            let source = patch::apply(acc, entry, &self.loader, place, schemas)?;
            self.done(acc, "PatchTransformer", origins.step("patches", place, source.as_ref()))?;
        }
        self.overlay_patches(acc)?;
        if !content.namespace.is_empty() {
            let place = content.namespace.place_or(&self.place);
            let how = Namespacing {
                namespace: content.namespace.value.clone(),
                mark: origins.mark(place),
                ..Namespacing::default()
            };
            simple::set_namespace(acc, budget, &how, &config.namespace, schemas)
                .map_err(|error| self.of_namespace(error.at(place)))?;
            self.done(acc, "NamespaceTransformer", step("namespace", place))?;
        }
        if !content.name_prefix.is_empty() {
            let (prefix, specs) = (&content.name_prefix, &config.name_prefix);
            let place = prefix.place_or(&self.place);
            let text = (prefix.as_str(), origins.mark(place));
            simple::add_to_names(acc, budget, End::Prefix, text, specs, schemas)
                .map_err(|error| error.at(place))?;
            self.done(acc, "PrefixTransformer", step("namePrefix", place))?;
        }
        if !content.name_suffix.is_empty() {
            let (suffix, specs) = (&content.name_suffix, &config.name_suffix);
            let place = suffix.place_or(&self.place);
            let text = (suffix.as_str(), origins.mark(place));
            simple::add_to_names(acc, budget, End::Suffix, text, specs, schemas)
                .map_err(|error| error.at(place))?;
            self.done(acc, "SuffixTransformer", step("nameSuffix", place))?;
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
                let own = FieldSpec::new(Gvk::default(), "metadata/labels", true);
                merge_one(&mut specs, &own).map_err(at)?;
            }
            let place = label.place_or(&self.place);
            simple::set_strings(acc, budget, "labels", &origins.pairs(&label.pairs, place), &specs)
                .map_err(|error| error.at(place))?;
            self.done(acc, "LabelTransformer", step("labels", place))?;
        }
        if !content.labels.is_empty() || !content.common_labels.is_empty() {
            let labels = &content.common_labels;
            let place = labels.place_or(&self.place);
            let pairs = origins.pairs(labels, place);
            simple::set_strings(acc, budget, "labels", &pairs, &config.common_labels)
                .map_err(|error| error.at(place))?;
            self.done(acc, "LabelTransformer", step("commonLabels", place))?;
        }
        if !content.common_annotations.is_empty() {
            let annotations = &content.common_annotations;
            let place = annotations.place_or(&self.place);
            let pairs = origins.pairs(annotations, place);
            simple::set_strings(acc, budget, "annotations", &pairs, &config.common_annotations)
                .map_err(|error| error.at(place))?;
            self.done(acc, "AnnotationsTransformer", step("commonAnnotations", place))?;
        }
        for entry in &content.patches_json6902 {
            let place = entry.place_or(&self.place);
            let source = patch::json6902(acc, entry, &self.loader, place, schemas)?;
            let step = origins.step("patchesJson6902", place, source.as_ref());
            self.done(acc, "PatchJson6902Transformer", step)?;
        }
        for replica in &content.replicas {
            budget.ask()?;
            let place = replica.place_or(&self.place);
            let mark = origins.mark(place);
            simple::set_replicas(acc, replica, mark, &config.replicas, schemas)
                .map_err(|error| error.at(place))?;
            self.done(acc, "ReplicaCountTransformer", step("replicas", place))?;
        }
        for image in &content.images {
            let place = image.place_or(&self.place);
            images::set_image(acc, budget, image, origins.mark(place), &config.images)
                .map_err(|error| error.at(place))?;
            self.done(acc, "ImageTagTransformer", step("images", place))?;
        }
        if !content.replacements.is_empty() {
            let entries = &content.replacements;
            let mut done = |acc: &mut Acc, place: &Place| acc.record(step("replacements", place));
            replacements::apply(acc, entries, &self.loader, &self.place, &mut done)?;
            self.done(acc, "ReplacementTransformer", None)?;
        }
        for (config, place) in self.plugin_configs(&content.transformers)? {
            plugins::transform(acc, &config, &self.context())
                .map_err(|error| error.at(&config.place))?;
            acc.record(origins.step("transformers", place, self.elsewhere(&config)));
            if let Some(origin) = self.plugin_origin(&config) {
                acc.note(&origin, budget)?;
            }
            acc.drop_empty();
        }
        self.loader.source.ask()
    }

    /// Notes a built-in step, and drops what it deleted.
    pub(crate) fn done(&self, acc: &mut Acc, kind: &str, step: Option<StepId>) -> Result<()> {
        acc.record(step);
        if let Some(origin) = self.step(kind) {
            acc.note(&origin, &self.loader.source.budget)?;
        }
        acc.drop_empty();
        self.loader.source.ask()
    }

    fn validators(&self, acc: &mut Acc) -> Result<()> {
        for (config, _) in self.plugin_configs(&self.content.validators)? {
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
            let after = nodes(acc);
            if after != before {
                let changed = acc.items.iter().zip(after.iter().zip(&before));
                let changed = changed.into_iter().find(|(_, (after, before))| after != before);
                let what = changed.map_or("the list of objects".into(), |(res, _)| res.label());
                return Err(
                    invalid!("validator {} changes {what}", config.name()).at(&config.place)
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
        res.story.touched = true;
        let name = format!("{}-{}", res.name(), generate::hash(res)?);
        res.store_id(schemas);
        let (_, mark) = res.marked(&["metadata", "name"]);
        res.set_metadata("name", &(name.into(), mark));
    }
    Ok(())
}
