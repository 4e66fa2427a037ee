//! An object on its way through a build, with what the build knows about it beside it.

use plumb_core::Place;
use plumb_yaml::{LineMark, Map, Node, Scalar, Text};

use crate::fieldspec::set_field;
use crate::openapi::Schemas;
use crate::origins::Story;
use crate::resid::{Gvk, Id};
use crate::shared;

/// Annotations that mean something while a build runs and that never leave it.
const INTERNAL: &str = "internal.config.kubernetes.io/";
const BUILD_ANNOTATIONS: &[&str] = &[
    "internal.config.kubernetes.io/previousKinds",
    "internal.config.kubernetes.io/previousNames",
    "internal.config.kubernetes.io/prefixes",
    "internal.config.kubernetes.io/suffixes",
    "internal.config.kubernetes.io/previousNamespaces",
    "internal.config.kubernetes.io/allowNameChange",
    "internal.config.kubernetes.io/allowKindChange",
    "internal.config.kubernetes.io/refBy",
    "internal.config.kubernetes.io/generatorBehavior",
    "internal.config.kubernetes.io/needsHashSuffix",
    "internal.config.kubernetes.io/path",
    "internal.config.kubernetes.io/index",
    "internal.config.kubernetes.io/seqindent",
    "internal.config.kubernetes.io/id",
    "internal.config.kubernetes.io/annotations-migration-resource-id",
    "internal.config.kubernetes.io/helm-generated",
    "config.kubernetes.io/path",
    "config.kubernetes.io/index",
    "config.k8s.io/id",
];
pub(crate) const ORIGIN: &str = "config.kubernetes.io/origin";
pub(crate) const TRANSFORMATIONS: &str = "alpha.config.kubernetes.io/transformations";

/// What an object was called before a step changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) kind: Text,
    pub(crate) name: Text,
    /// The namespace that counted.
    pub(crate) namespace: Text,
}

/// What a generator does with an object that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Behavior {
    #[default]
    Create,
    Replace,
    Merge,
}

/// Where an object or a change of it comes from, as the annotations tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) path: String,
    pub(crate) configured_in: String,
    /// apiVersion, kind, name and namespace of what made the object.
    pub(crate) configured_by: Option<[String; 4]>,
}

/// An object on its way through a build.
#[derive(Debug, Clone)]
pub(crate) struct Res {
    pub(crate) node: Node,
    pub(crate) place: Place,
    pub(crate) previous: Vec<Previous>,
    pub(crate) prefixes: Vec<Text>,
    pub(crate) suffixes: Vec<Text>,
    pub(crate) behavior: Behavior,
    pub(crate) needs_hash: bool,
    pub(crate) allow_name_change: bool,
    pub(crate) allow_kind_change: bool,
    /// The variables that take their value from it.
    pub(crate) vars: Vec<String>,
    pub(crate) origin: Option<Origin>,
    pub(crate) transformations: Vec<Origin>,
    pub(crate) story: Story,
}

impl Res {
    /// Takes an object in. What its annotations say about the build becomes side data.
    pub(crate) fn new(node: Node, place: Place) -> Self {
        let mut this = Self {
            node,
            place,
            previous: Vec::new(),
            prefixes: Vec::new(),
            suffixes: Vec::new(),
            behavior: Behavior::Create,
            needs_hash: false,
            allow_name_change: false,
            allow_kind_change: false,
            vars: Vec::new(),
            origin: None,
            transformations: Vec::new(),
            story: Story::default(),
        };
        this.take_annotations();
        this
    }

    fn take_annotations(&mut self) {
        let Some(annotations) = self.annotations_mut() else {
            return;
        };
        if !annotations
            .keys()
            .any(|key| key.starts_with(INTERNAL) || BUILD_ANNOTATIONS.contains(&key.as_str()))
        {
            return;
        }
        let mut take = |name: &str| {
            let node = annotations.remove(&format!("{INTERNAL}{name}"))?;
            node.text().map(Text::from)
        };
        let list = |text: Option<Text>| -> Vec<Text> {
            text.map(|text| text.split(',').map(Text::from).collect()).unwrap_or_default()
        };
        let names = list(take("previousNames"));
        let namespaces = list(take("previousNamespaces"));
        let kinds = list(take("previousKinds"));
        let prefixes = list(take("prefixes"));
        let suffixes = list(take("suffixes"));
        let needs_hash = take("needsHashSuffix").as_deref() == Some("enabled");
        for annotation in BUILD_ANNOTATIONS {
            annotations.remove(annotation);
        }
        self.previous = names
            .into_iter()
            .zip(namespaces)
            .zip(kinds)
            .map(|((name, namespace), kind)| Previous { kind, name, namespace })
            .collect();
        self.prefixes = prefixes;
        self.suffixes = suffixes;
        self.needs_hash = needs_hash;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.node.is_empty()
    }

    pub(crate) fn text(&self, path: &[&str]) -> &str {
        match self.node.at(path) {
            Some(node) if !node.is_empty() => node.text().unwrap_or_default(),
            _ => "",
        }
    }

    pub(crate) fn kind(&self) -> &str {
        self.text(&["kind"])
    }

    pub(crate) fn api_version(&self) -> &str {
        self.text(&["apiVersion"])
    }

    pub(crate) fn name(&self) -> &str {
        self.text(&["metadata", "name"])
    }

    pub(crate) fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"])
    }

    pub(crate) fn gvk(&self) -> Gvk {
        Gvk::new(self.api_version(), self.kind())
    }

    /// The identity now.
    pub(crate) fn id(&self, schemas: &Schemas) -> Id {
        let gvk = self.gvk();
        let cluster = schemas.is_cluster_scoped(&gvk);
        Id { gvk, name: self.name().into(), namespace: self.namespace().into(), cluster }
    }

    /// The identities before, oldest first.
    pub(crate) fn previous_ids(&self) -> impl Iterator<Item = Id> {
        let gvk = self.gvk();
        self.previous.iter().map(move |previous| Id {
            gvk: Gvk { kind: previous.kind.clone(), ..gvk.clone() },
            name: previous.name.clone(),
            namespace: previous.namespace.clone(),
            cluster: false,
        })
    }

    /// All identities, the current one last.
    pub(crate) fn any_ids(&self, schemas: &Schemas) -> Vec<Id> {
        let mut ids: Vec<Id> = self.previous_ids().collect();
        ids.push(self.id(schemas));
        ids
    }

    /// All names, the current one last.
    pub(crate) fn names(&self) -> impl Iterator<Item = Text> {
        let before = self.previous.iter().map(|previous| previous.name.clone());
        before.chain([self.name().into()])
    }

    /// The identity at first.
    pub(crate) fn original_id(&self, schemas: &Schemas) -> Id {
        if self.previous.is_empty() {
            return self.id(schemas);
        }
        self.previous_ids().next().unwrap_or_else(|| self.id(schemas))
    }

    /// Remembers the identity before a step changes it.
    pub(crate) fn store_id(&mut self, schemas: &Schemas) {
        let id = self.id(schemas);
        let previous = Previous {
            namespace: id.effective_namespace().into(),
            kind: id.gvk.kind,
            name: id.name,
        };
        self.previous.push(previous);
        // The reference notes it in the annotations, which it writes anew.
        if let Some(annotations) =
            self.node.get_mut("metadata").and_then(|m| m.get_mut("annotations"))
        {
            shared::part(annotations, |_, _| true);
        }
    }

    pub(crate) fn metadata_mut(&mut self) -> Option<&mut Node> {
        let map = self.node.as_map_mut()?;
        let metadata = map.get_or_insert_with("metadata", Node::map);
        if metadata.is_null() {
            *metadata = Node::map();
        }
        Some(metadata)
    }

    pub(crate) fn annotations_mut(&mut self) -> Option<&mut Map> {
        self.node.get_mut("metadata")?.get_mut("annotations")?.as_map_mut()
    }

    /// Whether the reference has annotations of its own on the object now. They count where a step
    /// looks at the annotations as a whole.
    pub(crate) fn is_annotated(&self) -> bool {
        !(self.previous.is_empty()
            && self.prefixes.is_empty()
            && self.suffixes.is_empty()
            && self.transformations.is_empty())
            || self.needs_hash
            || self.origin.is_some()
    }

    /// The annotations, made when there are none.
    pub(crate) fn annotations_or_new(&mut self) -> Option<&mut Map> {
        let annotations =
            self.metadata_mut()?.as_map_mut()?.get_or_insert_with("annotations", Node::map);
        if annotations.is_null() {
            *annotations = Node::map();
        }
        annotations.as_map_mut()
    }

    /// Forgets what the reference keeps in annotations, which a patch took away.
    pub(crate) fn forget(&mut self) {
        self.previous.clear();
        self.prefixes.clear();
        self.suffixes.clear();
        self.transformations.clear();
        self.needs_hash = false;
        self.origin = None;
    }

    /// A text with its mark; no text is empty.
    pub(crate) fn marked(&self, path: &[&str]) -> (Text, LineMark) {
        let mark = self.node.at(path).map(Node::mark).unwrap_or_default();
        (self.text(path).into(), mark)
    }

    /// Sets a text of the metadata; empty removes it.
    pub(crate) fn set_metadata(&mut self, key: &str, (text, mark): &(Text, LineMark)) {
        let Some(metadata) = self.metadata_mut() else {
            return;
        };
        if text.is_empty() {
            if let Some(map) = metadata.as_map_mut() {
                map.remove(key);
            }
        } else {
            // A metadata that is no map was refused when the object was read.
            let _ = set_field(metadata, key, text, plumb_yaml::ScalarTag::None, *mark);
        }
    }

    /// Sets the kind as text.
    pub(crate) fn set_top(&mut self, key: &str, (text, mark): &(Text, LineMark)) {
        let _ = set_field(&mut self.node, key, text, plumb_yaml::ScalarTag::None, *mark);
    }

    /// A map of texts in the metadata, however they are tagged.
    pub(crate) fn strings(&self, field: &str) -> Vec<(&str, &str)> {
        let map = self.node.at(&["metadata", field]).and_then(Node::as_map);
        map.into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value.text().unwrap_or_default()))
            .collect()
    }

    /// Makes strings of the texts in a map of the metadata; an empty map goes.
    pub(crate) fn stringify(&mut self, field: &str) {
        let Some(metadata) = self.node.get_mut("metadata").and_then(Node::as_map_mut) else {
            return;
        };
        let around = metadata.get("name").map(Node::mark).unwrap_or_default();
        let Some(node) = metadata.get_mut(field) else {
            return;
        };
        match node.as_map_mut() {
            Some(map) if !map.is_empty() => {
                for value in map.values_mut() {
                    let text = value.text().unwrap_or_default();
                    let string = Scalar::string(text).marked(value.mark().or(around));
                    *value = Node::Scalar(string);
                }
            }
            _ => {
                metadata.remove(field);
            }
        }
    }

    /// What people call the object in messages.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }
}
