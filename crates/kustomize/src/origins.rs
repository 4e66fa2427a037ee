//! Where fields come from and which steps changed which objects, for callers that ask for it.
//!
//! Scalars carry a mark, which goes with them through copies and merges; a step that sets a scalar
//! marks it with the place that the value has. Whether a step changed an object is told by a hash of
//! the object, made after each step that may have. Callers that do not ask get marks of nothing, and
//! no hash is made.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use plumb_core::{BuildStep, FieldHash, FieldPlaces, Place, RelPath};
use plumb_yaml::{LineMark, Marking, Node, Scalar, ScalarTag};
use serde_json::Value;

use crate::decode::Placed;
use crate::kustomization::Pairs;

/// How far below the place of a field its text is looked for.
const BLOCK_LINES: usize = 8;

/// The files and the steps of a build, by number.
#[derive(Default)]
pub(crate) struct Origins {
    on: bool,
    files: RefCell<Files>,
    steps: RefCell<Vec<Arc<BuildStep>>>,
}

/// The number of a step; later ones have higher numbers.
pub(crate) type StepId = usize;

/// What is known of the steps of one object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Story {
    /// How many steps there were when the object was made.
    born: StepId,
    steps: Vec<StepId>,
    /// The object after the last step.
    hash: u64,
    /// Whether the object may have changed since.
    pub(crate) touched: bool,
}

impl Story {
    /// Whether the object was made or changed after a step began.
    pub(crate) fn goes_on_after(&self, step: StepId) -> bool {
        self.born > step || self.steps.last().is_some_and(|last| *last > step)
    }

    pub(crate) fn add(&mut self, steps: impl IntoIterator<Item = StepId>) {
        self.steps.extend(steps);
    }

    /// Goes on with the story of the object that this one takes the place of.
    pub(crate) fn continue_from(&mut self, old: &Self) {
        self.born = old.born;
        self.steps.splice(0..0, old.steps.iter().copied());
    }

    /// Whether the object has changed since this was asked last.
    pub(crate) fn changed(&mut self, node: &Node) -> bool {
        debug_assert!(self.touched || self.hash == hash(node), "changed without a note");
        if !std::mem::take(&mut self.touched) {
            return false;
        }
        let before = std::mem::replace(&mut self.hash, hash(node));
        self.hash != before
    }
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

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Begins a step that is asked for at a place and reads another one.
    pub(crate) fn step(
        &self,
        kind: &'static str,
        place: &Place,
        source: Option<&Place>,
    ) -> Option<StepId> {
        if !self.on {
            return None;
        }
        let mut steps = self.steps.borrow_mut();
        let step = BuildStep { kind, place: place.clone(), source: source.cloned() };
        steps.push(Arc::new(step));
        Some(steps.len() - 1)
    }

    /// Begins the story of an object, with the step that made it if it was generated.
    pub(crate) fn begin(&self, node: &Node, made_by: Option<StepId>) -> Story {
        if !self.on {
            return Story::default();
        }
        Story {
            born: self.steps.borrow().len(),
            steps: made_by.into_iter().collect(),
            hash: hash(node),
            touched: false,
        }
    }

    /// The steps of a story.
    pub(crate) fn steps(&self, story: &Story) -> Vec<Arc<BuildStep>> {
        let steps = self.steps.borrow();
        story.steps.iter().map(|step| Arc::clone(&steps[*step])).collect()
    }

    /// The place of a mark.
    pub(crate) fn place(&self, mark: LineMark) -> Option<Place> {
        let (number, line) = mark.get()?;
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let file = Arc::clone(self.files.borrow().list.get(index)?);
        Some(Place { file, document: 0, line, column: 1 })
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

/// Mixes eight bytes at a time, which is good enough to see a change and costs little: an object is
/// hashed after most steps.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        self.write_u64(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // An odd constant with about as many ones as zeros.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(FACTOR);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A number that tells what an object means, however it is spelled.
fn hash(node: &Node) -> u64 {
    let mut hasher = Mixer::default();
    add(node, &mut hasher);
    hasher.finish()
}

fn add(node: &Node, hasher: &mut Mixer) {
    match node {
        Node::Map(map) => {
            hasher.write_usize(map.len());
            for (key, node) in map {
                key.as_str().hash(hasher);
                add(node, hasher);
            }
        }
        Node::List(items) => {
            hasher.write_usize(items.len());
            for node in items {
                add(node, hasher);
            }
        }
        Node::Scalar(Scalar { text, tag: ScalarTag::Str, .. }) => text.as_str().hash(hasher),
        Node::Scalar(scalar) => match scalar.to_value() {
            Ok(Value::String(text)) => text.hash(hasher),
            Ok(value) => (1, value.to_string()).hash(hasher),
            Err(_) => (2, scalar.text.as_str()).hash(hasher),
        },
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
