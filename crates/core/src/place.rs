//! Where things are written: files, lines, and the places of an object's fields.

use std::fmt;
use std::sync::Arc;

use crate::{FieldHash, FieldPath, RelPath};

/// A place in a file; displays as `apps/web/deploy.yaml:12`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file.
    pub file: Arc<RelPath>,
    /// The YAML document in the file, counted from zero.
    pub document: u32,
    /// The line, counted from one.
    pub line: u32,
    /// The column, counted from one; one too where only the line is known.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Something that a build did to an object; displays as
/// `patches at prod/kustomization.yaml:12 with prod/patch.yaml:1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildStep {
    /// What it was, such as `patches`: the field of a kustomization.
    pub kind: &'static str,
    /// Where it was asked for.
    pub place: Place,
    /// What was read for it, such as the file of a patch.
    pub source: Option<Place>,
}

impl fmt::Display for BuildStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kind, self.place)?;
        self.source.iter().try_for_each(|source| write!(f, " with {source}"))
    }
}

/// Where an object's fields are, each in a file of its own if need be: sixteen bytes a field beside
/// the object, not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldPlaces {
    /// Sorted by path.
    fields: Vec<Field>,
    files: Arc<[Arc<RelPath>]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Field {
    path: FieldHash,
    line: u32,
    column: u16,
    /// The index of the file.
    file: u16,
}

impl FieldPlaces {
    /// Collects `(path, index of the file, line, column)`. Columns end at 65,535.
    pub fn collect(
        files: Arc<[Arc<RelPath>]>,
        fields: impl IntoIterator<Item = (FieldHash, u16, u32, u32)>,
    ) -> Self {
        let mut fields: Vec<_> = fields
            .into_iter()
            .map(|(path, file, line, column)| {
                let column = u16::try_from(column).unwrap_or(u16::MAX);
                Field { path, line, column, file }
            })
            .collect();
        fields.sort_unstable();
        fields.shrink_to_fit();
        Self { fields, files }
    }

    /// Where a field is; for one in another file than the object the document is not known.
    pub fn get(&self, path: &FieldPath) -> Option<Place> {
        self.find(path.hash())
    }

    /// The nearest recorded place on the way out from a field.
    pub fn nearest(&self, path: &FieldPath) -> Option<Place> {
        let mut path = path.clone();
        loop {
            if let Some(place) = self.get(&path) {
                return Some(place);
            }
            path.pop()?;
        }
    }

    /// Where the field with a hash is.
    pub fn find(&self, path: FieldHash) -> Option<Place> {
        let at = self.fields.binary_search_by_key(&path, |field| field.path).ok()?;
        let Field { line, column, file, .. } = self.fields[at];
        let file = Arc::clone(self.files.get(usize::from(file))?);
        Some(Place { file, document: 0, line, column: u32::from(column) })
    }

    /// How many fields have a place.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether no field has a place.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_takes_sixteen_bytes() {
        assert_eq!(size_of::<Field>(), 16);
    }

    #[test]
    fn steps_are_displayed_with_what_they_read() {
        let place = |path: &str, line| {
            let file = Arc::new(RelPath::parse(path).unwrap());
            Place { file, document: 0, line, column: 1 }
        };
        let mut step = BuildStep { kind: "patches", place: place("k.yaml", 12), source: None };
        assert_eq!(step.to_string(), "patches at k.yaml:12");
        step.source = Some(place("patch.yaml", 1));
        assert_eq!(step.to_string(), "patches at k.yaml:12 with patch.yaml:1");
    }

    #[test]
    fn fields_of_one_object_lie_in_several_files() {
        let file = |path: &str| Arc::new(RelPath::parse(path).unwrap());
        let path = |key: &str| FieldPath::keys(["spec", key]);
        let places = FieldPlaces::collect(
            Arc::from([file("a.yaml"), file("patch.yaml")]),
            [
                (path("image").hash(), 1, 7, 3),
                (path("port").hash(), 0, 4, 70_000),
                (path("lost").hash(), 2, 1, 1),
            ],
        );
        let place = |key: &str| places.get(&path(key)).map(|place| place.to_string());
        assert_eq!(place("image").as_deref(), Some("patch.yaml:7"));
        assert_eq!(place("port").as_deref(), Some("a.yaml:4"));
        assert_eq!(place("lost"), None, "its file is not in the table");
        assert_eq!(places.get(&FieldPath::keys(["spec"])), None);
        let inner = path("port").join(crate::Step::Index(0));
        assert_eq!(places.nearest(&inner), places.get(&path("port")));
    }
}
