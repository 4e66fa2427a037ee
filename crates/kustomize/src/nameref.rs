//! Follows names: fields that name an object get the name that it has in the end.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use plumb_yaml::{LineMark, Node, ScalarTag, Text};

use crate::acc::Acc;
use crate::config::BackReferences;
use crate::error::{Result, invalid};
use crate::fieldspec::{Create, FieldSpec, set_field, set_scalar, walk};
use crate::load::Source;
use crate::openapi::Schemas;
use crate::origins::StepId;
use crate::resid::{DEFAULT, Gvk, Id, NOT_NAMESPACED};
use crate::resource::Res;

/// What may be referred to.
struct Candidate {
    id: Id,
    /// Where name and namespace come from.
    marks: (LineMark, LineMark),
    original_namespace: Text,
}

/// What refers.
struct Referrer<'r> {
    at: usize,
    res: &'r Res,
    id: &'r Id,
    /// Namespaces of the service accounts that a role binding names.
    bound: Vec<Text>,
    role: Option<Gvk>,
}

/// Follows all references.
pub(crate) fn fix(acc: &mut Acc, schemas: &Schemas, source: &Source<'_>) -> Result<()> {
    let origins = &source.origins;
    let config = acc.config.clone();
    let index = Index::new(&acc.items, schemas);
    // A step for each place that names come from.
    let mut steps: HashMap<LineMark, Option<StepId>> = HashMap::new();
    // Most objects are of few kinds, so the specs of a kind are looked for once.
    let mut specs: HashMap<Gvk, Vec<(&BackReferences, &FieldSpec)>> = HashMap::new();
    for at in 0..acc.items.len() {
        source.ask()?;
        let id = &index.candidates[at].id;
        let mut original = id.gvk.clone();
        if let Some(first) = acc.items[at].previous.first() {
            original.kind = first.kind.clone();
        }
        let specs = specs.entry(original).or_insert_with_key(|gvk| {
            config
                .name_reference
                .iter()
                .flat_map(|refs| refs.referrers.iter().map(move |spec| (refs, spec)))
                .filter(|(_, spec)| spec.selects(gvk))
                .collect()
        });
        if specs.is_empty() {
            continue;
        }
        let mut node = std::mem::replace(&mut acc.items[at].node, Node::map());
        let referrer = Referrer {
            at,
            res: &acc.items[at],
            bound: bound_namespaces(id, &node)
                .map_err(|error| error.on(|| id.to_string()).at(&acc.items[at].place))?,
            role: role(&node),
            id,
        };
        let finder = Finder { items: &acc.items, index: &index, used: RefCell::default() };
        for (refs, spec) in specs.iter() {
            walk(&mut node, spec, Create::Nothing, &mut |node| {
                finder.set(node, &referrer, &refs.target, spec)
            })
            .map_err(|error| error.on(|| referrer.id.to_string()).at(&referrer.res.place))?;
        }
        let used = finder.used.take();
        let res = &mut acc.items[at];
        res.node = node;
        if used.is_empty() {
            continue;
        }
        res.story.touched = true;
        if origins.is_on() && res.story.changed(&res.node) {
            for mark in used {
                let step = steps.entry(mark).or_insert_with(|| {
                    let place = origins.place(mark)?;
                    origins.step("nameReference", &place, None)
                });
                res.story.add(*step);
            }
        }
    }
    Ok(())
}

/// What may be referred to, by what references say.
struct Index {
    candidates: Vec<Candidate>,
    /// By the names that they had.
    by_name: HashMap<Text, Vec<usize>>,
    /// By the namespace that they had at first, one for each namespace that they are in now.
    by_namespace: HashMap<Text, Vec<usize>>,
}

impl Index {
    fn new(items: &[Res], schemas: &Schemas) -> Self {
        let mut candidates = Vec::with_capacity(items.len());
        let mut by_name: HashMap<Text, Vec<usize>> = HashMap::with_capacity(items.len());
        let mut by_namespace: HashMap<Text, Vec<usize>> = HashMap::new();
        let mut moves = HashSet::new();
        for (at, res) in items.iter().enumerate() {
            for previous in &res.previous {
                let found = by_name.entry(previous.name.clone()).or_default();
                if found.last() != Some(&at) {
                    found.push(at);
                }
            }
            let id = res.id(schemas);
            let original_namespace = match res.previous.first() {
                Some(first) if first.namespace.is_empty() => DEFAULT.into(),
                Some(first) => first.namespace.clone(),
                None => id.effective_namespace().into(),
            };
            if moves.insert((original_namespace.clone(), id.namespace.clone(), id.cluster)) {
                by_namespace.entry(original_namespace.clone()).or_default().push(at);
            }
            let marks = (mark(res, "name"), mark(res, "namespace"));
            candidates.push(Candidate { id, marks, original_namespace });
        }
        Self { candidates, by_name, by_namespace }
    }
}

fn mark(res: &Res, field: &str) -> LineMark {
    res.node.at(&["metadata", field]).map(Node::mark).unwrap_or_default()
}

fn bound_namespaces(id: &Id, node: &Node) -> Result<Vec<Text>> {
    if id.gvk.kind != "RoleBinding" {
        return Ok(Vec::new());
    }
    let subjects = node.get("subjects").and_then(Node::as_list).unwrap_or_default();
    subjects
        .iter()
        .filter(|subject| subject.get("kind").and_then(Node::text) == Some("ServiceAccount"))
        .filter_map(|subject| subject.get("namespace"))
        .map(|namespace| match namespace.to_value() {
            Ok(serde_json::Value::String(namespace)) => Ok(namespace.into()),
            _ => Err(invalid!("the namespace of a subject is blank or no string")),
        })
        .collect()
}

fn role(node: &Node) -> Option<Gvk> {
    let role = node.get("roleRef")?;
    let text = |key: &str| role.get(key).and_then(Node::text).map(Text::from);
    Some(Gvk { group: text("apiGroup")?, version: Text::default(), kind: text("kind")? })
}

/// The namespace in a reference that is a map.
struct Within(Option<Text>);

struct Finder<'a> {
    items: &'a [Res],
    index: &'a Index,
    /// Where the names come from that an object got, each once.
    used: RefCell<Vec<LineMark>>,
}

impl Finder<'_> {
    fn note(&self, mark: LineMark) {
        let mut used = self.used.borrow_mut();
        if !used.contains(&mark) {
            used.push(mark);
        }
    }

    fn set(
        &self,
        node: &mut Node,
        referrer: &Referrer<'_>,
        target: &Gvk,
        spec: &FieldSpec,
    ) -> Result<()> {
        match node {
            node if node.is_null() => Ok(()),
            Node::List(items) => items.iter_mut().try_for_each(|item| match item {
                Node::List(_) => Err(invalid!("a list of names has a list in it")),
                item => self.set(item, referrer, target, spec),
            }),
            Node::Scalar(scalar) => {
                let old = scalar.text.clone();
                let Some(found) = self.find(&old, referrer, target, spec, None)? else {
                    return Ok(());
                };
                if found.id.name == old {
                    return Ok(());
                }
                self.note(found.marks.0);
                set_scalar(node, &found.id.name, ScalarTag::None, found.marks.0)
            }
            Node::Map(map) => {
                let Some(name) = map.get("name") else {
                    return Err(invalid!("there is no name in it"));
                };
                let name = Text::from(name.text().unwrap_or_default());
                let namespace = map.get("namespace").map(|n| n.text().unwrap_or_default());
                let namespace = Some(Within(namespace.map(Text::from)));
                let Some(found) = self.find(&name, referrer, target, spec, namespace)? else {
                    return Ok(());
                };
                let Id { name: new, namespace, .. } = &found.id;
                if *new == name && namespace.is_empty() {
                    return Ok(());
                }
                let marks = found.marks;
                self.note(marks.0);
                set_field(node, "name", new, ScalarTag::None, marks.0)?;
                if !namespace.is_empty() {
                    set_field(node, "namespace", namespace, ScalarTag::None, marks.1)?;
                }
                Ok(())
            }
        }
    }

    /// Whether an object can be referred to from a namespace at all.
    fn reachable(&self, at: usize, referrer: &Referrer<'_>) -> bool {
        let id = &self.index.candidates[at].id;
        referrer.id.cluster
            || id.cluster
            || id.effective_namespace() == referrer.id.effective_namespace()
            || referrer.bound.contains(&id.namespace)
    }

    /// The object that a name means. `map` is set for references that are maps, with the
    /// namespace in them.
    fn find(
        &self,
        name: &str,
        referrer: &Referrer<'_>,
        target: &Gvk,
        spec: &FieldSpec,
        map: Option<Within>,
    ) -> Result<Option<&Candidate>> {
        let Some(named) = self.index.by_name.get(name) else {
            return Ok(None);
        };
        let candidates = &self.index.candidates;
        let is_map = map.is_some();
        let role = referrer.role.as_ref().filter(|_| spec.path.ends_with("roleRef/name"));
        let was = |at: usize, gvk: &Gvk| {
            let now = &candidates[at].id.gvk;
            self.items[at].previous.iter().any(|previous| gvk.selects_as(now, &previous.kind))
        };
        let namespaced = |namespace: &str| namespace != NOT_NAMESPACED;
        let namespace = map.and_then(|Within(namespace)| namespace);
        // The original namespace counts where anything reachable had it.
        let original = namespace.as_ref().is_some_and(|namespace| {
            let had_it = self.index.by_namespace.get(namespace);
            namespaced(namespace)
                && had_it.is_some_and(|all| all.iter().any(|at| self.reachable(*at, referrer)))
        });
        let mut found: Vec<usize> = named
            .iter()
            .copied()
            .filter(|at| {
                let candidate = &candidates[*at];
                let in_namespace = match &namespace {
                    None => true,
                    Some(namespace) if original => candidate.original_namespace == *namespace,
                    Some(namespace) => {
                        namespaced(namespace) && candidate.id.effective_namespace() == namespace
                    }
                };
                in_namespace
                    && self.reachable(*at, referrer)
                    && was(*at, target)
                    && role.is_none_or(|role| was(*at, role))
                    && (referrer.id.cluster
                        || candidate.id.cluster
                        || candidate.id.gvk.kind == "ServiceAccount"
                        || candidate.id.effective_namespace() == referrer.id.effective_namespace())
            })
            .collect();
        if let [one] = found[..] {
            return Ok(Some(&candidates[one]));
        }
        let from = &self.items[referrer.at];
        found.retain(|at| same_line(&self.items[*at], from, true));
        if found.len() > 1 {
            found.retain(|at| same_line(&self.items[*at], from, false));
        }
        let Some((first, rest)) = found.split_first() else {
            return Ok(None);
        };
        let first = &candidates[*first];
        let equal = rest.iter().all(|at| {
            let id = &candidates[*at].id;
            id.name == first.id.name && (!is_map || id.namespace == first.id.namespace)
        });
        if equal {
            return Ok(Some(first));
        }
        let ids: Vec<String> = found.iter().map(|at| candidates[*at].id.to_string()).collect();
        Err(invalid!("name {name:?} may mean several objects: {}", ids.join(", ")))
    }
}

/// Whether two objects went through the same prefixes and suffixes at the end.
fn same_line(a: &Res, b: &Res, allow_none: bool) -> bool {
    let same =
        |a: &[Text], b: &[Text]| (allow_none && (a.is_empty() || b.is_empty())) || same_end(a, b);
    same(&a.prefixes, &b.prefixes) && same(&a.suffixes, &b.suffixes)
}

fn same_end(a: &[Text], b: &[Text]) -> bool {
    let (short, long) = if a.len() > b.len() { (b, a) } else { (a, b) };
    if short.is_empty() { long.is_empty() } else { long.ends_with(short) }
}
