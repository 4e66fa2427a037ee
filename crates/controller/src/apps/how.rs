//! How an Application wants its path rendered: its spec as checked options.

use std::sync::Arc;

use plumb_api::ApplicationSpec;
use plumb_render::{
    CommonMetadata, Overlay, OverlayImage, OverlayPatch, PatchTarget, RenderOptions,
};

use super::values::Given;

/// Everything that a render depends on besides the commit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct How {
    pub(crate) path: String,
    pub(crate) options: RenderOptions,
}

impl How {
    /// What a spec asks for, with the patterns of its source, and what the cluster gives.
    pub(crate) fn new(spec: &ApplicationSpec, ignore: Option<&str>, given: Given) -> Arc<Self> {
        let common = spec.common_metadata.clone().unwrap_or_default();
        let options = RenderOptions {
            ignore: ignore.map(str::to_owned),
            overlay: overlay(spec),
            common_metadata: CommonMetadata {
                labels: common.labels,
                annotations: common.annotations,
            },
            substitution: given.substitution,
            keys: given.keys,
            ..RenderOptions::default()
        };
        Arc::new(Self { path: spec.path.clone(), options })
    }
}

fn overlay(spec: &ApplicationSpec) -> Overlay {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let patch = |patch: &plumb_api::Patch| OverlayPatch {
        patch: patch.patch.clone(),
        target: patch.target.clone().map(target),
    };
    let image = |image: &plumb_api::Image| OverlayImage {
        name: image.name.clone(),
        new_name: text(&image.new_name),
        new_tag: text(&image.new_tag),
        digest: text(&image.digest),
    };
    Overlay {
        components: spec.components.clone(),
        ignore_missing_components: spec.ignore_missing_components,
        patches: spec.patches.iter().map(patch).collect(),
        images: spec.images.iter().map(image).collect(),
        name_prefix: text(&spec.name_prefix),
        name_suffix: text(&spec.name_suffix),
        target_namespace: text(&spec.target_namespace),
    }
}

pub(super) fn target(target: plumb_api::PatchTarget) -> PatchTarget {
    PatchTarget {
        group: target.group,
        version: target.version,
        kind: target.kind,
        name: target.name,
        namespace: target.namespace,
        label_selector: target.label_selector,
        annotation_selector: target.annotation_selector,
    }
}

#[cfg(test)]
mod tests {
    use plumb_render::{Keys, Substitution, Variable};
    use serde_json::json;

    use super::*;

    /// Each field of a spec that a render depends on makes another `How`; the others do not.
    #[test]
    fn a_change_of_the_spec_is_seen_if_it_matters_to_the_render() {
        let base = json!({"sourceRef": {"name": "repo"}, "interval": "1h"});
        let how = |change: &serde_json::Value| {
            let mut spec = base.clone();
            for (key, value) in change.as_object().unwrap() {
                spec[key] = value.clone();
            }
            How::new(&serde_json::from_value(spec).unwrap(), None, Given::default())
        };
        let before = how(&json!({}));
        let target = json!({"group": "a", "version": "b", "kind": "c", "name": "d",
            "namespace": "e", "labelSelector": "f", "annotationSelector": "g"});
        for change in [
            json!({"path": "apps"}),
            json!({"patches": [{"patch": "x", "target": target}]}),
            json!({"images": [{"name": "n", "newName": "m", "newTag": "1", "digest": "d"}]}),
            json!({"components": ["c"]}),
            json!({"ignoreMissingComponents": true}),
            json!({"namePrefix": "a-"}),
            json!({"nameSuffix": "-z"}),
            json!({"targetNamespace": "n"}),
            json!({"commonMetadata": {"labels": {"a": "b"}}}),
            json!({"commonMetadata": {"annotations": {"a": "b"}}}),
        ] {
            assert_ne!(*how(&change), *before, "{change}");
        }
        for change in [json!({"interval": "2h"}), json!({"prune": false})] {
            assert_eq!(*how(&change), *before, "{change}");
        }
        let spec = serde_json::from_value(base.clone()).unwrap();
        assert_ne!(*How::new(&spec, Some("x"), Given::default()), *before);
        let with_values = |values: &Substitution| {
            How::new(&spec, None, Given { substitution: values.clone(), keys: None })
        };
        let mut values = Substitution::default();
        values.values.insert("a".into(), Variable::new("1", false));
        let with = with_values(&values);
        assert_ne!(*with, *before);
        assert_eq!(*with_values(&values), *with);
        values.values.insert("a".into(), Variable::new("2", false));
        assert_ne!(*with_values(&values), *with);
        let with_key = |key: &str| {
            let keys = Keys::of_secret([("a.agekey", key.as_bytes())]).unwrap();
            How::new(&spec, None, Given { keys: Some(Arc::new(keys)), ..Given::default() })
        };
        let keys = [
            include_str!("../../../sops/tests/keys/age.agekey"),
            include_str!("../../../sops/tests/keys/second.agekey"),
        ];
        assert_ne!(*with_key(keys[0]), *before);
        assert_eq!(*with_key(keys[0]), *with_key(keys[0]));
        assert_ne!(*with_key(keys[0]), *with_key(keys[1]));

        let full = how(&json!({"patches": [{"patch": "x", "target": target}]}));
        let target = full.options.overlay.patches[0].target.clone().unwrap();
        let texts = [target.group, target.version, target.kind, target.name, target.namespace];
        assert_eq!(texts, ["a", "b", "c", "d", "e"]);
        assert_eq!([target.label_selector, target.annotation_selector], ["f", "g"]);
    }
}
