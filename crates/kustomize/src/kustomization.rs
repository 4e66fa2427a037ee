//! The kustomization file and the types of its fields.

use std::collections::BTreeMap;

use plumb_core::Place;
use serde_json::Value;

use crate::decode::{Any, At, Decode, Fields, Placed};
use crate::error::{Problem, Result, invalid};
use crate::fieldspec::FieldSpec;

const KIND: &str = "Kustomization";
const COMPONENT: &str = "Component";
const VERSION: &str = "kustomize.config.k8s.io/v1beta1";
const COMPONENT_VERSION: &str = "kustomize.config.k8s.io/v1alpha1";

pub(crate) type Strings = BTreeMap<String, String>;
/// Labels or annotations.
pub(crate) type Pairs = BTreeMap<String, Placed<String>>;

/// A kustomization, deprecated fields moved to where they belong.
#[derive(Debug, Default)]
pub(crate) struct Kustomization {
    pub(crate) component: bool,
    pub(crate) openapi: BTreeMap<String, Placed<String>>,
    pub(crate) name_prefix: Placed<String>,
    pub(crate) name_suffix: Placed<String>,
    pub(crate) namespace: Placed<String>,
    pub(crate) common_labels: Placed<Pairs>,
    pub(crate) labels: Vec<Placed<Label>>,
    pub(crate) common_annotations: Placed<Pairs>,
    pub(crate) patches_strategic_merge: Vec<Placed<String>>,
    pub(crate) patches_json6902: Vec<Placed<Patch>>,
    pub(crate) patches: Vec<Placed<Patch>>,
    pub(crate) images: Vec<Placed<Image>>,
    pub(crate) replacements: Vec<Placed<ReplacementField>>,
    pub(crate) replicas: Vec<Placed<Replica>>,
    pub(crate) vars: Vec<Placed<Var>>,
    pub(crate) sort_options: Option<Placed<SortOptions>>,
    pub(crate) resources: Vec<Placed<String>>,
    pub(crate) components: Vec<Placed<String>>,
    pub(crate) crds: Vec<Placed<String>>,
    pub(crate) config_maps: Vec<Placed<GeneratorArgs>>,
    pub(crate) secrets: Vec<Placed<GeneratorArgs>>,
    pub(crate) generator_options: Option<GeneratorOptions>,
    pub(crate) configurations: Vec<Placed<String>>,
    pub(crate) generators: Vec<Placed<String>>,
    pub(crate) transformers: Vec<Placed<String>>,
    pub(crate) validators: Vec<Placed<String>>,
    pub(crate) build_metadata: Vec<Placed<String>>,
}

impl Kustomization {
    /// Reads the file's content.
    pub(crate) fn read(at: &At<'_>, value: &Value) -> Result<Self> {
        let mut f = Fields::new(at, value)?;
        let kind: Placed<String> = f.take("kind")?;
        let version: Placed<String> = f.take("apiVersion")?;
        check_kind(&kind, &version, at.place)?;
        let _: Option<Any> = f.take("metadata")?;
        let mut resources: Vec<Placed<String>> = f.take("resources")?;
        resources.extend(f.take::<Vec<Placed<String>>>("bases")?);
        let mut images: Vec<Placed<Image>> = f.take("images")?;
        images.extend(f.take::<Vec<Placed<Image>>>("imageTags")?);
        // Without a chart it does nothing.
        let _: Option<Any> = f.take("helmGlobals")?;
        for field in ["helmCharts", "helmChartInflationGenerator"] {
            let charts: Vec<Placed<Any>> = f.take(field)?;
            if let Some(chart) = charts.first() {
                return Err(refuse_helm(field).at(chart.place_or(at.place)));
            }
        }
        let this = Self {
            component: kind.as_str() == COMPONENT,
            openapi: f.take("openapi")?,
            name_prefix: f.take("namePrefix")?,
            name_suffix: f.take("nameSuffix")?,
            namespace: f.take("namespace")?,
            common_labels: f.take("commonLabels")?,
            labels: f.take("labels")?,
            common_annotations: f.take("commonAnnotations")?,
            patches_strategic_merge: f.take("patchesStrategicMerge")?,
            patches_json6902: f.take("patchesJson6902")?,
            patches: f.take("patches")?,
            images,
            replacements: f.take("replacements")?,
            replicas: f.take("replicas")?,
            vars: f.take("vars")?,
            sort_options: f.take("sortOptions")?,
            resources,
            components: f.take("components")?,
            crds: f.take("crds")?,
            config_maps: f.take("configMapGenerator")?,
            secrets: f.take("secretGenerator")?,
            generator_options: f.take("generatorOptions")?,
            configurations: f.take("configurations")?,
            generators: f.take("generators")?,
            transformers: f.take("transformers")?,
            validators: f.take("validators")?,
            build_metadata: f.take("buildMetadata")?,
        };
        f.finish()?;
        if value.as_object().is_none_or(|map| {
            map.iter().all(|(key, value)| {
                value.is_null()
                    || ["kind", "apiversion"].contains(&key.to_ascii_lowercase().as_str())
            })
        }) {
            return Err(invalid!("the kustomization is empty")
                .at(at.place)
                .hinting("list in resources what to build"));
        }
        Ok(this)
    }
}

/// Checks what the file says that it is.
fn check_kind(kind: &Placed<String>, version: &Placed<String>, at: &Place) -> Result<()> {
    if !["", KIND, COMPONENT].contains(&kind.as_str()) {
        return Err(invalid!("kind must be {KIND} or {COMPONENT}, not {:?}", kind.value)
            .at(kind.place_or(at)));
    }
    let wanted = if kind.as_str() == COMPONENT { COMPONENT_VERSION } else { VERSION };
    if !version.is_empty() && version.as_str() != wanted {
        let error = invalid!("apiVersion must be {wanted}, not {:?}", version.value)
            .at(version.place_or(at));
        return Err(if version.contains("fluxcd.io") {
            error.hinting("this is an object for Flux; its spec.path is what can be built")
        } else {
            error
        });
    }
    Ok(())
}

pub(crate) fn refuse_helm(what: &str) -> crate::Error {
    Problem::Refused {
        what: what.to_owned(),
        instead: "commit the output of `helm template` and list it in resources",
    }
    .into()
}

/// Defines a struct that is read field by field.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $key:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        impl $name {
            pub(crate) fn take(f: &mut Fields<'_>) -> Result<Self> {
                Ok(Self { $($field: f.take($key)?,)* })
            }
        }

        impl Decode for $name {
            fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
                let mut f = Fields::new(at, value)?;
                let this = Self::take(&mut f)?;
                f.finish()?;
                Ok(this)
            }
        }
    };
}

record! {
    /// An entry of `labels`.
    Label {
        pairs: Pairs = "pairs",
        include_selectors: bool = "includeSelectors",
        include_templates: bool = "includeTemplates",
        include_claims: bool = "includeVolumeClaimTemplates",
        fields: Vec<FieldSpec> = "fields",
    }
}

record! {
    /// What selects objects; empty fields select all.
    Selector {
        group: String = "group",
        version: String = "version",
        kind: String = "kind",
        name: String = "name",
        namespace: String = "namespace",
        annotations: String = "annotationSelector",
        labels: String = "labelSelector",
    }
}

record! {
    /// What a patch may change besides content.
    PatchOptions {
        allow_name_change: bool = "allowNameChange",
        allow_kind_change: bool = "allowKindChange",
    }
}

record! {
    /// An entry of `patches`.
    Patch {
        path: String = "path",
        inline: Placed<String> = "patch",
        target: Option<Selector> = "target",
        options: PatchOptions = "options",
    }
}

record! {
    /// An entry of `images`.
    Image {
        name: String = "name",
        new_name: String = "newName",
        tag_suffix: String = "tagSuffix",
        new_tag: String = "newTag",
        digest: String = "digest",
    }
}

record! {
    /// An entry of `replicas`.
    Replica {
        name: String = "name",
        count: i64 = "count",
    }
}

record! {
    /// How a value is cut out or put in.
    FieldOptions {
        delimiter: String = "delimiter",
        index: i64 = "index",
        _encoding: Any = "encoding",
        create: bool = "create",
    }
}

record! {
    /// Where a replacement takes its value from.
    Source {
        group: String = "group",
        version: String = "version",
        kind: String = "kind",
        name: String = "name",
        namespace: String = "namespace",
        field_path: String = "fieldPath",
        options: FieldOptions = "options",
    }
}

record! {
    /// Where a replacement puts its value.
    Target {
        select: Option<Selector> = "select",
        reject: Vec<Selector> = "reject",
        field_paths: Vec<String> = "fieldPaths",
        options: FieldOptions = "options",
    }
}

record! {
    /// A replacement, in place or in a file.
    ReplacementField {
        path: String = "path",
        source: Option<Source> = "source",
        source_value: Option<Placed<String>> = "sourceValue",
        targets: Option<Vec<Target>> = "targets",
    }
}

record! {
    /// The object of a variable.
    ObjRef {
        api_version: String = "apiVersion",
        group: String = "group",
        version: String = "version",
        kind: String = "kind",
        name: String = "name",
        namespace: String = "namespace",
    }
}

record! {
    /// The field of a variable.
    FieldRef {
        field_path: String = "fieldPath",
    }
}

record! {
    /// A variable.
    Var {
        name: String = "name",
        object: ObjRef = "objref",
        field: FieldRef = "fieldref",
    }
}

record! {
    /// Lists of kinds for the legacy order.
    LegacySortOptions {
        first: Vec<String> = "orderFirst",
        last: Vec<String> = "orderLast",
    }
}

record! {
    /// The order of the output.
    SortOptions {
        order: String = "order",
        legacy: Option<LegacySortOptions> = "legacySortOptions",
    }
}

record! {
    /// What generated objects get.
    GeneratorOptions {
        labels: Pairs = "labels",
        annotations: Pairs = "annotations",
        disable_hash: bool = "disableNameSuffixHash",
        immutable: bool = "immutable",
    }
}

record! {
    /// An entry of `configMapGenerator` or `secretGenerator`.
    GeneratorArgs {
        name: Placed<String> = "name",
        namespace: Placed<String> = "namespace",
        behavior: String = "behavior",
        literals: Vec<Placed<String>> = "literals",
        files: Vec<Placed<String>> = "files",
        envs: Vec<Placed<String>> = "envs",
        env: Placed<String> = "env",
        options: Option<GeneratorOptions> = "options",
        secret_type: Placed<String> = "type",
    }
}

impl GeneratorArgs {
    /// The files with `NAME=value` lines.
    pub(crate) fn env_files(&self) -> impl Iterator<Item = &Placed<String>> {
        self.envs.iter().chain((!self.env.is_empty()).then_some(&self.env))
    }
}
