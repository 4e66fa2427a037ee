//! What people wrote on an object about how it is to be dealt with, as labels or annotations.
//!
//! Marks in Git say how an object is applied. Marks on the live object say that it is left alone, in
//! whatever way they came there: who marks it may have no access to the repository.

/// Where the keys are: our own domain, and that of Flux, whose marks mean the same.
const DOMAINS: [&str; 2] = ["plumb.dev", "kustomize.toolkit.fluxcd.io"];

/// How an object is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ssa {
    /// As Git has it; what kubectl applied before is taken over.
    #[default]
    Override,
    /// As Git has it, but fields that kubectl applied before stay.
    Merge,
    /// Only where there is none.
    IfNotPresent,
    /// Not at all.
    Ignore,
}

/// What becomes of an object that nothing asks for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Prune {
    /// It is deleted.
    #[default]
    Enabled,
    /// It is deleted with approval.
    Confirm,
    /// It stays.
    Disabled,
}

/// The marks of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// `prune`.
    pub prune: Prune,
    /// `reconcile: disabled`: it is neither applied nor deleted.
    pub leave: bool,
    /// `ssa`.
    pub ssa: Ssa,
    /// `force: enabled`: it may be made anew when a field of it cannot be changed.
    pub force: bool,
}

impl Marks {
    /// The marks in the metadata of a manifest.
    pub(crate) fn of(metadata: &serde_json::Value) -> Self {
        let mut marks = Self::default();
        for map in [&metadata["labels"], &metadata["annotations"]] {
            for (key, value) in map.as_object().into_iter().flatten() {
                if let (true, Some(value)) = (Self::is_mark(key), value.as_str()) {
                    marks.take(key, value);
                }
            }
        }
        marks
    }

    /// Whether a label or annotation may be a mark.
    pub(crate) fn is_mark(key: &str) -> bool {
        name(key).is_some()
    }

    /// Takes one label or annotation in. Values are read in any case; what means nothing is passed
    /// over.
    pub(crate) fn take(&mut self, key: &str, value: &str) {
        let is = |wanted: &str| value.eq_ignore_ascii_case(wanted);
        match name(key) {
            Some("prune") if is("confirm") => self.prune = self.prune.max(Prune::Confirm),
            Some("prune") if is("disabled") => self.prune = Prune::Disabled,
            Some("reconcile") => self.leave |= is("disabled"),
            Some("force") => self.force |= is("enabled"),
            Some("ssa") if is("Override") => self.ssa = Ssa::Override,
            Some("ssa") if is("Merge") => self.ssa = Ssa::Merge,
            Some("ssa") if is("IfNotPresent") => self.ssa = Ssa::IfNotPresent,
            Some("ssa") if is("Ignore") => self.ssa = Ssa::Ignore,
            _ => {}
        }
    }

    /// Both together: a mark on one side is enough.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            prune: self.prune.max(other.prune),
            leave: self.leave || other.leave,
            ssa: if other.ssa == Ssa::Override { self.ssa } else { other.ssa },
            force: self.force || other.force,
        }
    }

    /// Whether nothing at all is done to the object.
    pub(crate) fn hands_off(self) -> bool {
        self.leave || self.ssa == Ssa::Ignore
    }

    /// Whether the object stays when nothing asks for it any more.
    pub(crate) fn stays(self) -> bool {
        self.prune == Prune::Disabled || self.hands_off()
    }
}

fn name(key: &str) -> Option<&str> {
    let (domain, name) = key.split_once('/')?;
    let known = matches!(name, "prune" | "reconcile" | "ssa" | "force");
    (known && DOMAINS.contains(&domain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marks_are_read_as_labels_and_annotations_in_both_spellings_and_any_case() {
        let none = Marks::default();
        let cases = [
            ("prune", "disabled", Marks { prune: Prune::Disabled, ..none }),
            ("prune", "Disabled", Marks { prune: Prune::Disabled, ..none }),
            ("prune", "confirm", Marks { prune: Prune::Confirm, ..none }),
            ("prune", "enabled", none),
            ("reconcile", "DISABLED", Marks { leave: true, ..none }),
            ("ssa", "merge", Marks { ssa: Ssa::Merge, ..none }),
            ("ssa", "IfNotPresent", Marks { ssa: Ssa::IfNotPresent, ..none }),
            ("ssa", "ignore", Marks { ssa: Ssa::Ignore, ..none }),
            ("ssa", "else", none),
            ("force", "Enabled", Marks { force: true, ..none }),
            ("other", "disabled", none),
        ];
        for (name, value, expected) in cases {
            for domain in DOMAINS {
                let key = format!("{domain}/{name}");
                for place in ["labels", "annotations"] {
                    let metadata = json!({place: {&key: value, "app": "x"}});
                    assert_eq!(Marks::of(&metadata), expected, "{metadata}");
                }
            }
            let elsewhere = json!({"annotations": {format!("example.com/{name}"): value}});
            assert_eq!(Marks::of(&elsewhere), none);
        }
        assert_eq!(Marks::of(&json!({"labels": null})), none);
    }
}
