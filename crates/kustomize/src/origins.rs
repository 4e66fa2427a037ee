//! Where fields come from, for callers that ask for it.
//!
//! Scalars carry a mark, which goes with them through copies and merges; a step that sets a scalar
//! marks it with the place that the value has. Callers that do not ask get marks of nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use plumb_core::{FieldHash, FieldPlaces, Place, RelPath};
use plumb_yaml::{LineMark, Marking, Node};

use crate::decode::Placed;
use crate::kustomization::Pairs;

/// How far below the place of a field its text is looked for.
const BLOCK_LINES: usize = 8;

/// The files of a build, by number.
#[derive(Default)]
pub(crate) struct Origins {
    on: bool,
    files: RefCell<Files>,
}

#[derive(Default)]
struct Files {
    /// Counted from one.
    numbers: HashMap<Arc<RelPath>, u32>,
    list: Vec<Arc<RelPath>>,
    /// The content of kustomizations, which have patches in them.
    texts: HashMap<Arc<RelPath>, String>,
}

impl Origins {
    pub(crate) fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// The mark of a place.
    pub(crate) fn mark(&self, place: &Place) -> LineMark {
        self.line(&place.file, place.line)
    }

    fn line(&self, file: &Arc<RelPath>, line: u32) -> LineMark {
        if !self.on {
            return LineMark::default();
        }
        let Files { numbers, list, .. } = &mut *self.files.borrow_mut();
        let number = numbers.get(file).copied().unwrap_or_else(|| {
            list.push(Arc::clone(file));
            let number = u32::try_from(list.len()).unwrap_or(u32::MAX);
            numbers.insert(Arc::clone(file), number);
            number
        });
        LineMark::new(number, line)
    }

    /// Labels or annotations with their marks.
    pub(crate) fn pairs<'p>(
        &self,
        pairs: &'p Pairs,
        around: &Place,
    ) -> Vec<(&'p str, &'p str, LineMark)> {
        let pair = |(key, value): (&'p String, &'p Placed<String>)| {
            (key.as_str(), value.as_str(), self.mark(value.place_or(around)))
        };
        pairs.iter().map(pair).collect()
    }

    /// How the scalars of a file are marked.
    pub(crate) fn file(&self, file: &Arc<RelPath>) -> Marking {
        Marking::Below(self.line(file, 0))
    }

    /// Keeps the content of a kustomization, so that lines of texts in it can be told.
    pub(crate) fn keep(&self, file: &Arc<RelPath>, text: &[u8]) {
        if self.on {
            let text = String::from_utf8_lossy(text).into_owned();
            self.files.borrow_mut().texts.insert(Arc::clone(file), text);
        }
    }

    /// How the scalars of a text are marked that is the value of a field of a kustomization. The
    /// lines of a block are those of the file; of other texts all is where the field is.
    pub(crate) fn inline(&self, place: &Place, text: &str) -> Marking {
        let all = Marking::All(self.mark(place));
        let files = self.files.borrow();
        let Some(file) = files.texts.get(&place.file) else {
            return all;
        };
        let before = usize::try_from(place.line).unwrap_or(usize::MAX).saturating_sub(1);
        let file: Vec<&str> = file.lines().skip(before).map(str::trim).collect();
        let text: Vec<&str> = text.lines().map(str::trim).collect();
        let start =
            (0..BLOCK_LINES).find(|start| file[*start.min(&file.len())..].starts_with(&text));
        drop(files);
        match start.and_then(|start| u32::try_from(before + start).ok()) {
            Some(before) => Marking::Below(self.line(&place.file, before)),
            None => all,
        }
    }

    /// The places of the fields of an object.
    pub(crate) fn places(&self, node: &Node) -> FieldPlaces {
        if !self.on {
            return FieldPlaces::default();
        }
        let mut marks = Vec::new();
        collect(node, FieldHash::root(), &mut marks);
        let list = &self.files.borrow().list;
        let mut numbers: Vec<u32> = Vec::new();
        let fields: Vec<_> = marks
            .into_iter()
            .filter_map(|(path, mark)| {
                let (number, line) = mark.get()?;
                // An object has fields from a few files.
                let file = numbers.iter().position(|known| *known == number).unwrap_or_else(|| {
                    numbers.push(number);
                    numbers.len() - 1
                });
                Some((path, u16::try_from(file).ok()?, line, 1))
            })
            .collect();
        let files = numbers.iter().map(|number| Arc::clone(&list[*number as usize - 1]));
        FieldPlaces::collect(files.collect(), fields)
    }
}

fn collect(node: &Node, path: FieldHash, marks: &mut Vec<(FieldHash, LineMark)>) {
    match node {
        Node::Map(map) => map.iter().for_each(|(key, node)| collect(node, path.key(key), marks)),
        Node::List(items) => {
            items.iter().enumerate().for_each(|(i, node)| collect(node, path.index(i), marks));
        }
        Node::Scalar(scalar) => marks.push((path, scalar.mark)),
    }
}

/// Marks the scalars of a value that was read without marks: each by its place in the text that it
/// was read from, or by that of what it is in.
pub(crate) fn mark_read(
    node: &mut Node,
    path: FieldHash,
    places: &FieldPlaces,
    marking: Marking,
    around: LineMark,
) {
    let mark = places.find(path).map_or(around, |place| marking.mark(place.line));
    match node {
        Node::Map(map) => map
            .iter_mut()
            .for_each(|(key, node)| mark_read(node, path.key(key), places, marking, mark)),
        Node::List(items) => items
            .iter_mut()
            .enumerate()
            .for_each(|(i, node)| mark_read(node, path.index(i), places, marking, mark)),
        Node::Scalar(scalar) => scalar.mark = mark,
    }
}

/// A node whose scalars all come from one place.
pub(crate) fn all_from(mut node: Node, mark: LineMark) -> Node {
    node.each_scalar(&mut |scalar| scalar.mark = mark);
    node
}
