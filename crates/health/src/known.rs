//! The rules that come with Plumb: `rules/GROUP.yaml` has those for the kinds of a group, and
//! `rules/_.FAMILY.yaml` those for all groups that end so.
//!
//! A file is read when the first object of its group is, and a rule compiled when the first of its
//! kind is: a cluster has a few of all these.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock};

use include_dir::{Dir, include_dir};
use serde::Deserialize;
use serde_json::Value;

use crate::health::Verdict;
use crate::rules::{Exprs, Rule};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/rules");

/// The files that have been read, by group; nothing for a group without any.
static READ: LazyLock<RwLock<HashMap<String, Option<Arc<Group>>>>> = LazyLock::new(RwLock::default);

/// A rule that comes with Plumb.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    /// The kinds that it speaks for; every kind of the group when there are none.
    #[serde(default)]
    kinds: Vec<String>,
    /// Where the documentation of the kind says what its status means, for those who change the rule.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "it is for people, and for a test that it is there")
    )]
    source: String,
    #[serde(default)]
    suspended: Option<String>,
    #[serde(default)]
    in_progress: Option<String>,
    #[serde(default)]
    failed: Option<String>,
    current: String,
    #[serde(default)]
    missing: Option<String>,
    #[serde(default)]
    unknown: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl Entry {
    fn exprs(&self, group: &str) -> Exprs {
        Exprs {
            api_version: group.to_owned(),
            kind: self.kinds.first().cloned(),
            suspended: self.suspended.clone(),
            in_progress: self.in_progress.clone(),
            failed: self.failed.clone(),
            current: self.current.clone(),
            missing: self.missing.clone(),
            unknown: self.unknown.clone(),
            message: self.message.clone(),
        }
    }
}

#[derive(Debug)]
struct Group {
    rules: Vec<(Entry, OnceLock<Option<Rule>>)>,
}

/// Says how an object is for whose kind there is a rule.
pub(crate) fn assess(group: &str, kind: &str, object: &Value) -> Option<Verdict> {
    let rules = group_of(group)?;
    let of_kind = |(entry, _): &&(Entry, OnceLock<Option<Rule>>)| {
        entry.kinds.iter().any(|known| known == kind)
    };
    let of_all = |(entry, _): &&(Entry, OnceLock<Option<Rule>>)| entry.kinds.is_empty();
    let found = rules.rules.iter().find(of_kind);
    let (entry, rule) = found.or_else(|| rules.rules.iter().find(of_all))?;
    // A test compiles all of them, so there is none that does not.
    let rule = rule.get_or_init(|| Rule::compile(&entry.exprs(group), false).ok()).as_ref()?;
    Some(rule.assess(object))
}

fn group_of(group: &str) -> Option<Arc<Group>> {
    let known = READ.read().unwrap_or_else(PoisonError::into_inner).get(group).cloned();
    known.unwrap_or_else(|| {
        let read = file_of(group).and_then(|text| {
            let entries: Vec<Entry> = serde_yaml::from_str(text).ok()?;
            let rules = entries.into_iter().map(|entry| (entry, OnceLock::new())).collect();
            Some(Arc::new(Group { rules }))
        });
        let mut all = READ.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(group.to_owned()).or_insert(read).clone()
    })
}

/// The file of a group, else the one of the nearest family that it belongs to.
fn file_of(group: &str) -> Option<&'static str> {
    let text = |name: String| FILES.get_file(name)?.contents_utf8();
    let own = text(format!("{group}.yaml"));
    let above = std::iter::successors(group.split_once('.'), |(_, rest)| rest.split_once('.'));
    own.or_else(|| above.map(|(_, rest)| rest).find_map(|rest| text(format!("_.{rest}.yaml"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_compiles_and_names_its_source() {
        for file in FILES.files() {
            let name = file.path().to_str().unwrap();
            let group = name.strip_suffix(".yaml").unwrap_or_else(|| panic!("{name}"));
            let read = serde_yaml::from_str(file.contents_utf8().unwrap());
            let entries: Vec<Entry> = read.unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut kinds = std::collections::BTreeSet::new();
            for entry in entries {
                let source = &entry.source;
                assert!(source.starts_with("https://") || group == "plumb.dev", "{name}: {source}");
                for kind in &entry.kinds {
                    assert!(kinds.insert(kind.clone()), "{name}: {kind} comes twice");
                }
                Rule::compile(&entry.exprs(group), false)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
}
