//! What is added to the kustomization that is built from outside of it, as if it stood at its end;
//! and kustomizations that nobody wrote.

use std::sync::Arc;

use plumb_core::{Object, Place, RelPath, TreeError, follow};

use crate::acc::Acc;
use crate::build::Target;
use crate::decode::Placed;
use crate::error::{Error, Result};
use crate::kustomization::{Image, Kustomization, Patch, Selector};
use crate::load::{Found, Loader, Source};
use crate::openapi::Schemas;
use crate::patch;

/// The field whose errors can come from an object as well.
pub(crate) const NAMESPACE: &str = "spec.targetNamespace";

/// Fields of an Application, or of Flux's Kustomization, that work as if they stood at the end of
/// the kustomization that is built. Errors call them `spec.patches[1]` and so on, and so are the
/// files called that fields come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Components, relative to the directory that is built. They come after its own.
    pub components: Vec<String>,
    /// Whether a component that is not there is passed over.
    pub ignore_missing_components: bool,
    /// Patches. They come after its own.
    pub patches: Vec<OverlayPatch>,
    /// Images. An entry with the name of one of its own changes that one.
    pub images: Vec<OverlayImage>,
    /// Replaces its own unless empty.
    pub name_prefix: String,
    /// Replaces its own unless empty.
    pub name_suffix: String,
    /// The namespace; replaces its own unless empty.
    pub target_namespace: String,
}

/// A patch of either kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayPatch {
    /// The text of a strategic merge or JSON patch.
    pub patch: String,
    /// What it is applied to; a strategic merge patch names its object when left out.
    pub target: Option<PatchTarget>,
}

/// What a patch is applied to. Empty fields select all; the others but the last two are regular
/// expressions for the whole text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatchTarget {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The namespace.
    pub namespace: String,
    /// A selector as `kubectl get -l` takes it.
    pub label_selector: String,
    /// The same for annotations.
    pub annotation_selector: String,
}

/// A new name, tag or digest for an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayImage {
    /// The name without tag and digest.
    pub name: String,
    /// The new name unless empty.
    pub new_name: String,
    /// The new tag unless empty. Tag and digest are replaced together.
    pub new_tag: String,
    /// The new digest unless empty.
    pub digest: String,
}

impl Overlay {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self
            == Self { ignore_missing_components: self.ignore_missing_components, ..Self::default() }
    }

    /// Overrides the fields of the kustomization that can stand there only once. Components and
    /// patches are added step by step, because their errors name them.
    pub(crate) fn override_fields(&self, content: &mut Kustomization) {
        let fields = [
            ("spec.namePrefix", &self.name_prefix, &mut content.name_prefix),
            ("spec.nameSuffix", &self.name_suffix, &mut content.name_suffix),
            (NAMESPACE, &self.target_namespace, &mut content.namespace),
        ];
        for (field, ours, theirs) in fields.into_iter().filter(|(_, ours, _)| !ours.is_empty()) {
            *theirs = placed(ours.clone(), field);
        }
        for (i, image) in self.images.iter().enumerate() {
            let field = format!("spec.images[{i}]");
            let known = content.images.iter_mut().find(|known| known.name == image.name);
            let Some(known) = known else {
                let image = Image {
                    name: image.name.clone(),
                    new_name: image.new_name.clone(),
                    new_tag: image.new_tag.clone(),
                    digest: image.digest.clone(),
                    tag_suffix: String::new(),
                };
                content.images.push(placed(image, &field));
                continue;
            };
            let mut changed = known.value.clone();
            if !image.new_name.is_empty() {
                changed.new_name.clone_from(&image.new_name);
            }
            // An old digest beside a new tag would win when the image is pulled.
            if !image.new_tag.is_empty() || !image.digest.is_empty() {
                changed.new_tag.clone_from(&image.new_tag);
                changed.digest.clone_from(&image.digest);
            }
            *known = placed(changed, &field);
        }
    }
}

/// A value of a field of the overlay, which stands for a file of its own.
fn placed<T>(value: T, field: &str) -> Placed<T> {
    Placed { value, place: Some(place_of(field)) }
}

fn place_of(field: &str) -> Place {
    let file = Arc::new(RelPath::root().child(field));
    Place { file, document: 0, line: 1, column: 1 }
}

impl From<&PatchTarget> for Selector {
    fn from(target: &PatchTarget) -> Self {
        let target = target.clone();
        Self {
            group: target.group,
            version: target.version,
            kind: target.kind,
            name: target.name,
            namespace: target.namespace,
            labels: target.label_selector,
            annotations: target.annotation_selector,
        }
    }
}

/// Builds a kustomization that nobody wrote: its resources are files and directories of the tree.
pub(crate) fn run_generated(
    source: &Source<'_>,
    dir: &RelPath,
    resources: &[RelPath],
) -> Result<Vec<Object>> {
    let schemas = Schemas::default();
    let loader = Loader::new(source, dir)?;
    let file = Arc::new(loader.root.child("kustomization.yaml"));
    let place = Place { file: Arc::clone(&file), document: 0, line: 1, column: 1 };
    let target = Target {
        loader,
        file: Arc::clone(&file),
        place,
        content: Kustomization::default(),
        generated: resources,
        overlay: None,
        schemas: &schemas,
        origin: None,
    };
    // Nobody can look at a file that is not there.
    target.with_overlay().finish().map_err(|error| error.not_at(&file))
}

impl Target<'_, '_, '_> {
    /// Puts the overlay of the options at the end of this kustomization.
    pub(crate) fn with_overlay(mut self) -> Self {
        let overlay = &self.loader.source.options.overlay;
        overlay.override_fields(&mut self.content);
        self.overlay = Some(overlay);
        self
    }

    /// The resources of a kustomization that nobody wrote. What is listed has been chosen already,
    /// so load restrictions do not matter here.
    pub(crate) fn generated_resources(&self, mut acc: Acc) -> Result<Acc> {
        for path in self.generated {
            match self.loader.found(follow(self.loader.source.tree, path)?)? {
                Found::File(file, text) => {
                    let place = Place { file, document: 0, line: 1, column: 1 };
                    self.add_file(&mut acc, path.as_str(), &place.file, &text)
                        .map_err(|error| error.at(&place))?;
                }
                Found::Directory => {
                    let child = self.include(
                        self.loader.enter_at(path)?,
                        path.as_str(),
                        false,
                        &self.place,
                    )?;
                    self.add_child(&mut acc, &child)?;
                }
            }
        }
        Ok(acc)
    }

    pub(crate) fn overlay_components(&self, mut acc: Acc) -> Result<Acc> {
        let Some(overlay) = self.overlay else {
            return Ok(acc);
        };
        for (i, path) in overlay.components.iter().enumerate() {
            if overlay.ignore_missing_components && self.is_missing(path) {
                continue;
            }
            let child = self
                .enter(path, true, &self.place)
                .map_err(|error| self.of(error, "components", i))?;
            let place = place_of(&format!("spec.components[{i}]"));
            acc = self.add_component(acc, &child, &place)?;
        }
        Ok(acc)
    }

    fn is_missing(&self, path: &str) -> bool {
        let Ok(path) = self.loader.root.resolve(path) else {
            return false;
        };
        matches!(follow(self.loader.source.tree, &path), Err(TreeError::NotFound(_)))
    }

    pub(crate) fn overlay_patches(&self, acc: &mut Acc) -> Result<()> {
        for (i, patch) in self.overlay.iter().flat_map(|overlay| &overlay.patches).enumerate() {
            let origins = &self.loader.source.origins;
            let place = place_of(&format!("spec.patches[{i}]"));
            origins.keep(&place.file, patch.patch.as_bytes());
            let entry = Patch {
                inline: Placed { value: patch.patch.clone(), place: Some(place.clone()) },
                target: patch.target.as_ref().map(Selector::from),
                ..Patch::default()
            };
            patch::apply(acc, &entry, &self.loader, &self.place, self.schemas)
                .map_err(|error| self.of(error, "patches", i))?;
            self.done(acc, "PatchTransformer", origins.step("patches", &place, None))?;
        }
        Ok(())
    }

    /// An error of an entry of the overlay.
    fn of(&self, error: Error, field: &str, index: usize) -> Error {
        error.not_at(&self.file).in_field(format!("spec.{field}[{index}]"))
    }

    /// An error of setting the namespace, whoever wanted it.
    pub(crate) fn of_namespace(&self, error: Error) -> Error {
        match self.overlay {
            Some(overlay) if !overlay.target_namespace.is_empty() => {
                error.in_field(NAMESPACE.to_owned())
            }
            _ => error,
        }
    }
}
