//! Which fields the transformers touch: the built-in tables, and files that add to them.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::decode::{At, Decode, Fields};
use crate::defaults;
use crate::error::{Problem, Result, invalid};
use crate::fieldspec::FieldSpec;
use crate::resid::Gvk;
use crate::sort;

/// Field specs by what uses them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Config {
    pub(crate) name_prefix: Vec<FieldSpec>,
    pub(crate) name_suffix: Vec<FieldSpec>,
    pub(crate) namespace: Vec<FieldSpec>,
    pub(crate) common_labels: Vec<FieldSpec>,
    pub(crate) labels: Vec<FieldSpec>,
    pub(crate) template_labels: Vec<FieldSpec>,
    pub(crate) claim_labels: Vec<FieldSpec>,
    pub(crate) common_annotations: Vec<FieldSpec>,
    pub(crate) name_reference: Vec<BackReferences>,
    pub(crate) var_reference: Vec<FieldSpec>,
    pub(crate) images: Vec<FieldSpec>,
    pub(crate) replicas: Vec<FieldSpec>,
}

/// The fields that name objects of some kinds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct BackReferences {
    pub(crate) target: Gvk,
    pub(crate) referrers: Vec<FieldSpec>,
}

impl Decode for BackReferences {
    fn decode(at: &At<'_>, value: &Value) -> Result<Self> {
        let mut f = Fields::new(at, value)?;
        let target =
            Gvk { group: f.take("group")?, version: f.take("version")?, kind: f.take("kind")? };
        let referrers = f.take("fieldSpecs")?;
        f.finish()?;
        Ok(Self { target, referrers })
    }
}

impl Config {
    /// The built-in tables.
    pub(crate) fn builtin() -> Arc<Self> {
        static BUILTIN: OnceLock<Arc<Config>> = OnceLock::new();
        Arc::clone(BUILTIN.get_or_init(|| {
            let mut config = Config::default();
            // The tables hold no two specs that contradict each other, so nothing can fail.
            let _ = config.add(&defaults::config());
            config.sort();
            Arc::new(config)
        }))
    }

    /// Reads a `configurations` file.
    pub(crate) fn read(at: &At<'_>, value: &Value) -> Result<Self> {
        let mut f = Fields::new(at, value)?;
        let this = Self {
            name_prefix: f.take("namePrefix")?,
            name_suffix: f.take("nameSuffix")?,
            namespace: f.take("namespace")?,
            common_labels: f.take("commonLabels")?,
            labels: f.take("labels")?,
            template_labels: f.take("templateLabels")?,
            claim_labels: f.take("volumeClaimTemplateLabels")?,
            common_annotations: f.take("commonAnnotations")?,
            name_reference: f.take("nameReference")?,
            var_reference: f.take("varReference")?,
            images: f.take("images")?,
            replicas: f.take("replicas")?,
        };
        f.finish()?;
        Ok(this)
    }

    /// Adds what another has and this has not.
    pub(crate) fn merge(self: &Arc<Self>, other: &Arc<Self>) -> Result<Arc<Self>> {
        if Arc::ptr_eq(self, other) || **other == Self::default() {
            return Ok(Arc::clone(self));
        }
        // Merging into nothing still drops specs that an earlier one stands for, which the
        // built-in ones went through already.
        if **self == Self::default() && Arc::ptr_eq(other, &Self::builtin()) {
            return Ok(Arc::clone(other));
        }
        let mut merged = (**self).clone();
        merged.add(other)?;
        merged.sort();
        Ok(Arc::new(merged))
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        for (specs, more) in self.lists().into_iter().zip(other.clone().lists()) {
            merge_all(specs, more)?;
        }
        other.name_reference.iter().try_for_each(|more| self.add_reference(more))
    }

    pub(crate) fn add_reference(&mut self, more: &BackReferences) -> Result<()> {
        let mut known = self.name_reference.iter_mut();
        if let Some(known) = known.find(|known| known.target == more.target) {
            return merge_all(&mut known.referrers, &more.referrers);
        }
        self.name_reference.push(more.clone());
        Ok(())
    }

    fn lists(&mut self) -> [&mut Vec<FieldSpec>; 11] {
        [
            &mut self.name_prefix,
            &mut self.name_suffix,
            &mut self.namespace,
            &mut self.common_labels,
            &mut self.labels,
            &mut self.template_labels,
            &mut self.claim_labels,
            &mut self.common_annotations,
            &mut self.var_reference,
            &mut self.images,
            &mut self.replicas,
        ]
    }

    fn sort(&mut self) {
        for specs in self.lists() {
            specs.sort_by_cached_key(|spec| sort::stable_key(&spec.gvk));
        }
        self.name_reference.sort_by_cached_key(|refs| sort::stable_key(&refs.target));
    }
}

/// Field specs of one use. There are 170 built in, and people add a few.
const FIELD_SPECS: usize = 10_000;

/// Adds specs that are not there yet.
pub(crate) fn merge_all(specs: &mut Vec<FieldSpec>, more: &[FieldSpec]) -> Result<()> {
    more.iter().try_for_each(|spec| merge_one(specs, spec))
}

/// Adds a spec unless one that is there does the same.
pub(crate) fn merge_one(specs: &mut Vec<FieldSpec>, spec: &FieldSpec) -> Result<()> {
    // The one that is there counts as equal when it is as narrow as the new one or narrower.
    match specs.iter().find(|known| known.path == spec.path && spec.selects(&known.gvk)) {
        Some(known) if known.create != spec.create => Err(invalid!(
            "field specs for {} conflict: one creates the field, the other does not",
            spec.path
        )),
        Some(_) => Ok(()),
        None if specs.len() >= FIELD_SPECS => {
            Err(Problem::TooMuch { what: "field specs", limit: FIELD_SPECS as u64 }.into())
        }
        None => {
            specs.push(spec.clone());
            Ok(())
        }
    }
}
