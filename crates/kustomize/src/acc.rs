//! The objects of one kustomization while it is built, found by their identities.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use plumb_yaml::Text;

use crate::budget::Budget;
use crate::config::Config;
use crate::decode::Placed;
use crate::error::{Problem, Result, invalid};
use crate::kustomization::Var;
use crate::openapi::Schemas;
use crate::origins::StepId;
use crate::resid::{Id, Key};
use crate::resource::{Behavior, Origin, Res};

/// Objects in order, with the configuration and the variables that came with them.
#[derive(Debug, Default)]
pub(crate) struct Acc {
    pub(crate) items: Vec<Res>,
    pub(crate) config: Arc<Config>,
    pub(crate) vars: BTreeMap<String, Placed<Var>>,
    /// Objects by current identity; gone when a step may have changed some.
    current: Option<HashMap<Key, usize>>,
    /// Objects by current and earlier identities; gone likewise.
    any: Option<HashMap<Key, Vec<usize>>>,
    /// Objects by current and earlier names; gone likewise.
    names: Option<HashMap<Text, Vec<usize>>>,
    /// Whether there may be objects that a patch deleted.
    emptied: bool,
}

/// Notes that a key leads to an object; objects come in order.
fn note<K: Eq + Hash>(index: &mut HashMap<K, Vec<usize>>, key: K, at: usize) {
    let found = index.entry(key).or_default();
    if found.last() != Some(&at) {
        found.push(at);
    }
}

impl Acc {
    /// Forgets the indexes, because identities may have changed.
    pub(crate) fn changed(&mut self) {
        self.current = None;
        self.any = None;
        self.names = None;
    }

    /// Changes an object in whatever way.
    pub(crate) fn change<T>(
        &mut self,
        at: usize,
        schemas: &Schemas,
        change: impl FnOnce(&mut Res) -> Result<T>,
    ) -> Result<T> {
        let res = &mut self.items[at];
        let (before, earlier) = (res.id(schemas), res.previous.len());
        let done = change(res)?;
        let res = &mut self.items[at];
        res.story.touched = true;
        self.emptied |= res.is_empty();
        if res.id(schemas) != before || res.previous.len() < earlier {
            self.changed();
        }
        Ok(done)
    }

    /// Adds an object whose identity is not there yet.
    pub(crate) fn append(&mut self, res: Res, schemas: &Schemas) -> Result<()> {
        let items = &self.items;
        let current = self.current.get_or_insert_with(|| {
            items.iter().enumerate().map(|(i, res)| (res.id(schemas).key(), i)).collect()
        });
        let id = res.id(schemas);
        match current.entry(id.key()) {
            Entry::Vacant(entry) => entry.insert(self.items.len()),
            Entry::Occupied(first) => {
                let first = self.items[*first.get()].place.clone();
                let same = first == res.place;
                let problem = Problem::Duplicate { id: id.to_string(), first: Some(first) };
                let error = crate::Error::from(problem);
                // One place says nothing; who included it the second time does.
                return Err(if same {
                    error.hinting("it is included twice; give one of the two another name")
                } else {
                    error.at(&res.place)
                });
            }
        };
        if let Some(any) = &mut self.any {
            for id in res.any_ids(schemas) {
                note(any, id.key(), self.items.len());
            }
        }
        if let Some(names) = &mut self.names {
            for name in res.names() {
                note(names, name, self.items.len());
            }
        }
        self.items.push(res);
        Ok(())
    }

    pub(crate) fn append_all(
        &mut self,
        list: impl IntoIterator<Item = Res>,
        schemas: &Schemas,
    ) -> Result<()> {
        list.into_iter().try_for_each(|res| self.append(res, schemas))
    }

    /// Whether every current identity is there once.
    pub(crate) fn check_unique(&mut self, schemas: &Schemas) -> Result<()> {
        self.changed();
        let items = std::mem::take(&mut self.items);
        self.append_all(items, schemas)
    }

    /// The same after steps that may have changed identities.
    pub(crate) fn check_unique_if_changed(&mut self, schemas: &Schemas) -> Result<()> {
        if self.current.is_some() { Ok(()) } else { self.check_unique(schemas) }
    }

    /// The objects that have or had an identity.
    pub(crate) fn by_any_id(&mut self, id: &Id, schemas: &Schemas) -> Vec<usize> {
        let items = &self.items;
        let any = self.any.get_or_insert_with(|| {
            let mut any: HashMap<Key, Vec<usize>> = HashMap::new();
            for (i, res) in items.iter().enumerate().filter(|(_, res)| !res.is_empty()) {
                for id in res.any_ids(schemas) {
                    note(&mut any, id.key(), i);
                }
            }
            any
        });
        let found = any.get(&id.key()).cloned().unwrap_or_default();
        found.into_iter().filter(|i| !self.items[*i].is_empty()).collect()
    }

    /// The objects that have or had a name.
    pub(crate) fn by_name(&mut self, name: &str) -> Vec<usize> {
        let items = &self.items;
        let names = self.names.get_or_insert_with(|| {
            let mut names = HashMap::new();
            for (i, res) in items.iter().enumerate() {
                res.names().for_each(|name| note(&mut names, name, i));
            }
            names
        });
        names.get(name).cloned().unwrap_or_default()
    }

    /// The one object that has or had an identity.
    pub(crate) fn the(&mut self, id: &Id, schemas: &Schemas) -> Result<usize> {
        match self.by_any_id(id, schemas)[..] {
            [one] => Ok(one),
            [] => {
                let error = invalid!("no object is {id}, so the patch has no target");
                Err(match self.nearest(id, schemas) {
                    Some(hint) => error.hinting(hint),
                    None => error,
                })
            }
            [..] => Err(invalid!("several objects are or were {id}, so the patch is ambiguous")),
        }
    }

    /// Names an object that somebody may have meant: of the same name, or else of the same kind.
    fn nearest(&self, id: &Id, schemas: &Schemas) -> Option<String> {
        let ids = || self.items.iter().map(|res| (res.original_id(schemas), res));
        let (near, res) = ids()
            .find(|(near, _)| near.name == id.name && near.gvk.kind == id.gvk.kind)
            .or_else(|| ids().find(|(near, _)| near.name == id.name))
            .or_else(|| ids().find(|(near, _)| near.gvk.kind == id.gvk.kind))?;
        let version = |id: &Id| id.gvk.api_version();
        Some(if near.to_string() == id.to_string() {
            format!("its apiVersion is {} at {}, not {}", version(&near), res.place, version(id))
        } else {
            format!("there is {near} at {}", res.place)
        })
    }

    /// Takes over what a child has built.
    pub(crate) fn merge(&mut self, child: Self, schemas: &Schemas) -> Result<()> {
        // Without its index a child may have an identity twice.
        if self.items.is_empty() && self.vars.is_empty() && child.current.is_some() {
            self.items = child.items;
            self.current = child.current;
            self.any = child.any;
            self.names = child.names;
            self.vars = child.vars;
        } else {
            self.append_all(child.items, schemas)?;
            for (_, var) in child.vars {
                self.add_var(var)?;
            }
        }
        self.config = self.config.merge(&child.config)?;
        Ok(())
    }

    pub(crate) fn add_var(&mut self, var: Placed<Var>) -> Result<()> {
        if self.vars.contains_key(&var.name) {
            return Err(invalid!("variable {:?} is defined twice", var.name));
        }
        self.vars.insert(var.name.clone(), var);
        Ok(())
    }

    /// Drops objects that a patch deleted.
    pub(crate) fn drop_empty(&mut self) {
        if std::mem::take(&mut self.emptied) {
            self.items.retain(|res| !res.is_empty());
            self.changed();
        }
    }

    /// Adds, replaces or merges a generated object.
    pub(crate) fn absorb(&mut self, mut res: Res, schemas: &Schemas) -> Result<()> {
        let id = res.id(schemas);
        let found = self.by_any_id(&id, schemas);
        match (&found[..], res.behavior) {
            ([], Behavior::Create) => self.append(res, schemas),
            ([], _) => Err(invalid!("{id} does not exist, so nothing is merged or replaced")
                .hinting("leave out the behavior, or check name and namespace")),
            ([at], Behavior::Create) => {
                Err(invalid!("{id} is already defined at {}", self.items[*at].place)
                    .hinting("set behavior to merge or replace, or choose another name"))
            }
            ([at], behavior) => self.change(*at, schemas, |old| {
                crate::generate::take_over(&mut res, old, behavior);
                *old = res;
                Ok(())
            }),
            _ => Err(invalid!("several objects are or were {id}, the generator fits each")),
        }
    }

    /// Adds a step to the stories of the objects that changed in it.
    pub(crate) fn record(&mut self, step: Option<StepId>) {
        let Some(step) = step else { return };
        for res in self.items.iter_mut().filter(|res| !res.is_empty()) {
            if res.story.changed(&res.node) {
                res.story.add([step]);
            }
        }
    }

    /// Adds a step that has others inside to the stories that went on in it.
    pub(crate) fn record_around(&mut self, step: Option<StepId>) {
        let Some(step) = step else { return };
        for res in self.items.iter_mut().filter(|res| res.story.goes_on_after(step)) {
            res.story.add([step]);
        }
    }

    /// Notes a step on every object, for the annotations that tell it.
    pub(crate) fn note(&mut self, origin: &Origin, budget: &Budget<'_>) -> Result<()> {
        for res in &mut self.items {
            budget.spend(origin.path.len() + origin.configured_in.len())?;
            if res.origin.is_none() {
                res.origin = Some(origin.clone());
            } else {
                res.transformations.push(origin.clone());
            }
        }
        Ok(())
    }
}
