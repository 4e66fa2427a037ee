//! What objects themselves say about their order: an annotation names what has to be applied before
//! them. The order of stages stays the default; where an edge says otherwise, the edge wins.

use std::collections::HashMap;

use plumb_core::{GroupKind, ObjectKey};

use crate::stage::Stage;

/// Names what an object comes after, in the format of `kubectl`'s library for this: references with
/// commas between them.
pub(crate) const DEPENDS_ON: &str = "config.kubernetes.io/depends-on";

/// How a reference is written, for hints.
pub(crate) const FORMS: &str = "write GROUP/KIND/NAME for an object without a namespace, or one in \
                                the namespace of this object, and \
                                GROUP/namespaces/NAMESPACE/KIND/NAME for others, with commas \
                                between them; GROUP is empty for core kinds, as in \
                                /namespaces/web/ConfigMap/settings";

/// An object as an annotation names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) kind: GroupKind,
    /// `None` when none is written: then it is that of the object with the annotation, if the kind
    /// has namespaces. Who writes a manifest need not know where it is going to be.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl Reference {
    /// What is meant, in the annotation of an object of this namespace, where it is known whether
    /// the kind has namespaces.
    pub(crate) fn key(&self, namespaced: bool, namespace: &str) -> ObjectKey {
        let here = if namespaced { namespace } else { "" };
        let namespace = self.namespace.as_deref().unwrap_or(here);
        ObjectKey::new(self.kind.clone(), namespace, &self.name)
    }
}

/// Reads an annotation. The error is what of it is wrong, in words that follow the part.
pub(crate) fn references(text: &str) -> Result<Vec<Reference>, (String, &'static str)> {
    let read = |part: &str| {
        let part = part.trim();
        let wrong = |why| Err((part.to_owned(), why));
        let (group, namespace, kind, name) = match *part.split('/').collect::<Vec<_>>() {
            [group, kind, name] => (group, None, kind, name),
            [group, "namespaces", namespace, kind, name] => (group, Some(namespace), kind, name),
            [_, _, _, _, _] => {
                return wrong("has something else than \"namespaces\" in its second place");
            }
            _ if part.is_empty() => return wrong("names nothing"),
            _ => return wrong("has neither three nor five parts"),
        };
        if kind.is_empty() || name.is_empty() || namespace == Some("") {
            return wrong("has an empty part");
        }
        let namespace = namespace.map(str::to_owned);
        Ok(Reference { kind: GroupKind::new(group, kind), namespace, name: name.into() })
    };
    text.split(',').map(read).collect()
}

/// When an object has its turn: in which stage, and after how many others within it.
pub(crate) type Level = (Stage, u32);

/// Gives each object its turn. `after` are the numbers of those that come before each. An object has
/// its turn in its stage, or in that of the last one that it comes after. The error is cycles: each
/// of them comes after the next, and the last after the first.
pub(crate) fn levels(
    stages: &[Stage],
    after: &[Vec<usize>],
) -> Result<Vec<Level>, Vec<Vec<usize>>> {
    let mut levels: Vec<Level> = stages.iter().map(|stage| (*stage, 0)).collect();
    let mut open: Vec<usize> = after.iter().map(Vec::len).collect();
    let mut before = vec![Vec::new(); stages.len()];
    for (number, needs) in after.iter().enumerate() {
        for need in needs {
            before[*need].push(number);
        }
    }
    let mut ready: Vec<usize> = (0..stages.len()).filter(|number| open[*number] == 0).collect();
    while let Some(number) = ready.pop() {
        let (stage, place) = levels[number];
        for next in &before[number] {
            levels[*next] = levels[*next].max((stage, place + 1));
            open[*next] -= 1;
            if open[*next] == 0 {
                ready.push(*next);
            }
        }
    }
    let cycles = cycles(after, &open);
    if cycles.is_empty() { Ok(levels) } else { Err(cycles) }
}

/// One cycle for each part of what could not be put in order. Whoever breaks it is told of the next.
fn cycles(after: &[Vec<usize>], open: &[usize]) -> Vec<Vec<usize>> {
    let mut cycles = Vec::new();
    let mut seen = vec![false; open.len()];
    for start in (0..open.len()).filter(|number| open[*number] > 0) {
        let mut path = Vec::new();
        let mut at = start;
        while !seen[at] {
            seen[at] = true;
            path.push(at);
            // What is left comes after something that is left.
            let Some(next) = after[at].iter().find(|next| open[**next] > 0) else { break };
            at = *next;
        }
        if let Some(begin) = path.iter().position(|number| *number == at)
            && after[path[path.len() - 1]].contains(&at)
        {
            let mut cycle = path.split_off(begin);
            let first = (0..cycle.len()).min_by_key(|index| cycle[*index]).unwrap_or_default();
            cycle.rotate_left(first);
            cycles.push(cycle);
        }
    }
    cycles
}

/// The order in which live objects are deleted, from the annotations that they bear: whoever comes
/// after another is deleted before it. What cannot be read, or goes in a circle, says nothing.
pub(crate) struct Farewells {
    pub(crate) levels: Vec<Level>,
    /// For each object those that must be gone before it.
    pub(crate) dependants: Vec<Vec<usize>>,
}

impl Farewells {
    pub(crate) fn of(objects: &[(&ObjectKey, Option<&str>)]) -> Self {
        let numbers: HashMap<&ObjectKey, usize> =
            objects.iter().enumerate().map(|(number, (key, _))| (*key, number)).collect();
        let find = |key: &ObjectKey, reference: &Reference| {
            let here = [true, false].map(|namespaced| reference.key(namespaced, &key.namespace));
            here.iter().find_map(|key| numbers.get(key)).copied()
        };
        let after: Vec<Vec<usize>> = objects
            .iter()
            .map(|(key, annotation)| {
                let references = annotation.and_then(|text| references(text).ok());
                let mut needs: Vec<usize> = (references.iter().flatten())
                    .filter_map(|reference| find(key, reference))
                    .collect();
                needs.sort_unstable();
                needs.dedup();
                needs
            })
            .collect();
        let stages: Vec<Stage> =
            objects.iter().map(|(key, _)| Stage::of(&key.group_kind)).collect();
        let mut dependants = vec![Vec::new(); objects.len()];
        let Ok(levels) = levels(&stages, &after) else {
            return Self {
                levels: stages.into_iter().map(|stage| (stage, 0)).collect(),
                dependants,
            };
        };
        for (number, needs) in after.iter().enumerate() {
            for need in needs {
                dependants[*need].push(number);
            }
        }
        Self { levels, dependants }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_in_both_forms() {
        let reference = |group: &str, namespace: Option<&str>, kind: &str, name: &str| Reference {
            kind: GroupKind::new(group, kind),
            namespace: namespace.map(str::to_owned),
            name: name.into(),
        };
        let role = reference("rbac.authorization.k8s.io", None, "ClusterRole", "reader");
        let web = reference("apps", Some("shop"), "Deployment", "web");
        let settings = reference("", Some("shop"), "ConfigMap", "settings");
        let cases = [
            ("rbac.authorization.k8s.io/ClusterRole/reader", vec![role.clone()]),
            ("apps/namespaces/shop/Deployment/web", vec![web.clone()]),
            ("/namespaces/shop/ConfigMap/settings", vec![settings.clone()]),
            ("/Namespace/shop", vec![reference("", None, "Namespace", "shop")]),
            (
                "rbac.authorization.k8s.io/ClusterRole/reader,\n  apps/namespaces/shop/Deployment/web , \
                 /namespaces/shop/ConfigMap/settings",
                vec![role, web, settings],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(references(text), Ok(expected), "{text}");
        }
        for (text, part, why) in [
            ("", "", "nothing"),
            ("/Namespace/shop,", "", "nothing"),
            ("Namespace/shop", "Namespace/shop", "neither three nor five"),
            ("apps/v1/Deployment/web", "apps/v1/Deployment/web", "neither three nor five"),
            ("/Namespace/shop, apps/Deployment/", "apps/Deployment/", "empty"),
            ("apps/namespaces//Deployment/web", "apps/namespaces//Deployment/web", "empty"),
            ("apps/namespace/shop/Deployment/web", "apps/namespace/shop/Deployment/web", "second"),
        ] {
            let (named, said) = references(text).unwrap_err();
            assert_eq!(named, part, "{text}");
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn a_reference_without_a_namespace_means_the_one_of_its_object() {
        let read = |text| references(text).unwrap().remove(0);
        let here = |text, namespaced| read(text).key(namespaced, "web").to_string();
        assert_eq!(here("/ConfigMap/a", true), "ConfigMap web/a");
        assert_eq!(here("/Namespace/a", false), "Namespace a");
        assert_eq!(here("/namespaces/shop/ConfigMap/a", true), "ConfigMap shop/a");
    }

    #[test]
    fn the_order_is_that_of_stages_but_for_edges() {
        use Stage::{Definitions as D, Foundations as F, Workloads as W};
        type Case = (&'static str, Vec<Stage>, Vec<(usize, usize)>, Vec<Level>);
        let cases: [Case; 6] = [
            ("no edges", vec![W, D, F], vec![], vec![(W, 0), (D, 0), (F, 0)]),
            ("with the stages", vec![W, F], vec![(0, 1)], vec![(W, 0), (F, 0)]),
            ("within a stage", vec![F, F, F], vec![(0, 1), (1, 2)], vec![(F, 2), (F, 1), (F, 0)]),
            (
                "against the stages: who waits moves, nobody else does",
                vec![F, W, F],
                vec![(0, 1)],
                vec![(W, 1), (W, 0), (F, 0)],
            ),
            (
                "the longest way counts",
                vec![W, W, W, W],
                vec![(0, 1), (1, 2), (0, 2), (0, 3)],
                vec![(W, 2), (W, 1), (W, 0), (W, 0)],
            ),
            (
                "a later stage begins anew",
                vec![D, F, F, W],
                vec![(1, 2), (0, 1), (3, 0)],
                vec![(F, 2), (F, 1), (F, 0), (W, 0)],
            ),
        ];
        for (what, stages, edges, expected) in cases {
            let mut after = vec![Vec::new(); stages.len()];
            for (number, need) in edges {
                after[number].push(need);
            }
            assert_eq!(levels(&stages, &after), Ok(expected), "{what}");
        }
    }

    #[test]
    fn every_cycle_is_found_and_who_merely_waits_for_one_is_not_in_it() {
        type Lists = &'static [&'static [usize]];
        let cases: [(Lists, Lists); 5] = [
            (&[&[0]], &[&[0]]),
            (&[&[1], &[0]], &[&[0, 1]]),
            (&[&[1], &[2], &[3], &[1]], &[&[1, 2, 3]]),
            (&[&[3], &[2], &[1], &[4], &[3], &[]], &[&[3, 4], &[1, 2]]),
            // Two that share an object: one of them first.
            (&[&[1, 2], &[0], &[0]], &[&[0, 1]]),
        ];
        for (after, expected) in cases {
            let after: Vec<Vec<usize>> = after.iter().map(|needs| needs.to_vec()).collect();
            let found = levels(&vec![Stage::Workloads; after.len()], &after).unwrap_err();
            let expected: Vec<Vec<usize>> = expected.iter().map(|cycle| cycle.to_vec()).collect();
            assert_eq!(found, expected, "{after:?}");
        }
    }

    #[test]
    fn live_objects_go_before_what_they_depend_on() {
        let key = |kind: &str, name: &str| {
            ObjectKey::new(
                GroupKind::new("", kind),
                if kind == "Namespace" { "" } else { "web" },
                name,
            )
        };
        let (a, b, c, n) = (
            key("ConfigMap", "a"),
            key("ConfigMap", "b"),
            key("Secret", "c"),
            key("Namespace", "n"),
        );
        let farewells = Farewells::of(&[
            (&a, Some("/ConfigMap/b, /namespaces/web/Secret/c, /ConfigMap/elsewhere")),
            (&b, Some("/Namespace/n")),
            (&c, Some("nonsense")),
            (&n, None),
        ]);
        assert_eq!(farewells.dependants, [vec![], vec![0], vec![0], vec![1]]);
        assert!(farewells.levels[0] > farewells.levels[1]);
        assert!(farewells.levels[0] > farewells.levels[2]);
        assert!(farewells.levels[1] > farewells.levels[3]);

        // Somebody wrote a circle: the stages are left.
        let farewells = Farewells::of(&[(&a, Some("/ConfigMap/b")), (&b, Some("/ConfigMap/a"))]);
        assert_eq!(farewells.dependants, [vec![], Vec::<usize>::new()]);
        assert_eq!(farewells.levels, [(Stage::Foundations, 0); 2]);
    }
}
