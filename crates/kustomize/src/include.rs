//! What a kustomization includes: files, directories and components.

use std::sync::Arc;

use plumb_core::{Place, RelPath};

use crate::acc::Acc;
use crate::build::{Target, read_resources};
use crate::decode::Placed;
use crate::error::{Result, invalid};
use crate::load::{Found, Loader};
use crate::resource::Origin;

impl<'s, 't> Target<'_, 's, 't> {
    pub(crate) fn resources(&self, mut acc: Acc, paths: &[Placed<String>]) -> Result<Acc> {
        for path in paths {
            let place = path.place_or(&self.place);
            self.resource(&mut acc, path, place).map_err(|error| error.at(place))?;
        }
        Ok(acc)
    }

    fn resource(&self, acc: &mut Acc, path: &str, place: &Place) -> Result<()> {
        match self.loader.find(path).map_err(|error| error.loading(path))? {
            Found::File(file, text) => self.add_file(acc, path, &file, &text)?,
            Found::Directory => self.add_child(acc, &self.enter(path, false, place)?)?,
        }
        self.limit(acc)
    }

    pub(crate) fn add_file(
        &self,
        acc: &mut Acc,
        path: &str,
        file: &Arc<RelPath>,
        text: &[u8],
    ) -> Result<()> {
        let source = self.loader.source;
        let mut list = read_resources(text, file, source, source.origins.file(file))?;
        for res in &mut list {
            res.story = source.origins.begin(&res.node, None);
        }
        if let Some(origin) = &self.origin {
            for res in &mut list {
                let path = origin.join(path).text();
                res.origin = Some(Origin { path, ..Origin::default() });
            }
        }
        acc.append_all(list, self.schemas)
    }

    pub(crate) fn add_child(&self, acc: &mut Acc, child: &Self) -> Result<()> {
        let built = child.accumulate(Acc::default()).map_err(|error| error.within(&child.file))?;
        acc.merge(built, self.schemas)
    }

    /// Loads a directory that this kustomization includes.
    pub(crate) fn enter(&self, path: &str, component: bool, place: &Place) -> Result<Self> {
        let loader = self.loader.enter(path).map_err(|error| error.at(place))?;
        self.include(loader, path, component, place)
    }

    pub(crate) fn include(
        &self,
        loader: Loader<'s, 't>,
        path: &str,
        component: bool,
        place: &Place,
    ) -> Result<Self> {
        let mut child = Self::load(loader, self.schemas).map_err(|error| error.at(place))?;
        child.content.build_metadata.clone_from(&self.content.build_metadata);
        child.origin = self.origin.as_ref().map(|origin| origin.join(path));
        match (component, child.content.component) {
            (true, false) => Err(invalid!(
                "{path} is listed in components but its kind is Kustomization, not Component"
            )
            .hinting("list it in resources, or make it a Component")
            .at(place)),
            (false, true) => {
                Err(invalid!("{path} is a Component, which belongs in components")
                    .hinting("a Component changes what others list; list it in the components of a kustomization")
                    .at(place))
            }
            _ => Ok(child),
        }
    }

    pub(crate) fn components(&self, mut acc: Acc) -> Result<Acc> {
        for path in &self.content.components {
            let place = path.place_or(&self.place);
            let child = self.enter(path, true, place)?;
            acc = self.add_component(acc, &child, place)?;
        }
        self.overlay_components(acc)
    }

    pub(crate) fn add_component(&self, acc: Acc, child: &Self, at: &Place) -> Result<Acc> {
        let step = self.loader.source.origins.step("components", at, Some(&child.place));
        let built = child.accumulate(acc).map_err(|error| error.within(&child.file))?;
        let mut acc = Acc::default();
        acc.merge(built, self.schemas)?;
        acc.record_around(step);
        Ok(acc)
    }
}
