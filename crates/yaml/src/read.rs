//! Reads the documents of one file.

use std::borrow::Cow;
use std::sync::Arc;

use granit_parser::{
    ErrorKind, Event, Marker, Options, Parser, ScalarStyle, StrInput, StructureStyle, options,
};
use plumb_core::{FieldPlaces, Place, RelPath};
use serde_json::Value;

use crate::compose::{Composed, Composer, Mark, Scalar, Stop, Tag};
use crate::error::{Problem, YamlError, YamlErrors};
use crate::expand::{How, expand};
use crate::form::Form;
use crate::node::Style;
use crate::quick::{Outcome, Quick};
use crate::{Limits, Marking, json};

/// Problems kept per file; more are only counted. A person mends one and looks again.
const KEPT_PROBLEMS: usize = 100;

const BOM: char = '\u{feff}';
/// Stands for a lone dash between brackets while a text is parsed.
const DASH: char = '\u{10fffd}';
const YAML_TAGS: &str = "tag:yaml.org,2002:";

/// How plain scalars and keys are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Manifests.
    Resource,
    /// Files that are read into Go structs, such as a kustomization.
    Config,
}

/// One document of a file; for manifests always a map that is not empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Document<V = Value> {
    /// The content.
    pub value: V,
    /// Where it starts.
    pub place: Place,
    /// Where its fields are.
    pub fields: FieldPlaces,
}

/// How [`read`] reads.
const MANIFESTS: How = How {
    manifests: true,
    annotations: true,
    fields: true,
    unique: true,
    printed: false,
    marking: Marking::None,
};

/// Reads all manifests of a file, in the order of the file.
///
/// Empty documents are dropped. A document of a kind that ends in `List` gives its items instead
/// of itself, after the file's other documents. Values of `metadata.annotations` become strings,
/// as they are written; empty annotations are dropped.
///
/// `file` is where errors and places say the text comes from; JSON needs no `.json` there.
pub fn read(
    text: &[u8],
    file: &Arc<RelPath>,
    limits: &Limits,
) -> Result<Vec<Document>, YamlErrors> {
    Reading::run(text, file, limits, Dialect::Resource, MANIFESTS)
}

/// Reads manifests as [`read`] does, each scalar with its spelling and its mark, annotations too.
/// The marks stand for the places of fields, of which there are none.
pub fn read_nodes(
    text: &[u8],
    file: &Arc<RelPath>,
    limits: &Limits,
    marking: Marking,
) -> Result<Vec<Document<crate::Node>>, YamlErrors<crate::Node>> {
    let how = How { annotations: false, fields: false, printed: true, marking, ..MANIFESTS };
    Reading::run(text, file, limits, Dialect::Resource, how)
}

/// Reads any documents, each scalar with its spelling, without the rules for manifests.
pub fn read_any(
    text: &[u8],
    file: &Arc<RelPath>,
    limits: &Limits,
) -> Result<Vec<Document<crate::Node>>, YamlErrors<crate::Node>> {
    let how =
        How { manifests: false, annotations: false, fields: false, printed: true, ..MANIFESTS };
    Reading::run(text, file, limits, Dialect::Resource, how)
}

/// Reads the first document of a file the way tools written in Go read their configuration:
/// YAML 1.1 words (`yes` is true), dates as text, any scalar as a key, the last of equal keys.
pub fn read_config(
    text: &[u8],
    file: &Arc<RelPath>,
    limits: &Limits,
) -> Result<Option<Document>, YamlErrors> {
    let how = How { manifests: false, annotations: false, unique: false, ..MANIFESTS };
    let documents = Reading::run(text, file, limits, Dialect::Config, how)?;
    Ok(documents.into_iter().next())
}

struct Reading<'a, V> {
    file: &'a Arc<RelPath>,
    /// The file alone, for the places of fields.
    files: Arc<[Arc<RelPath>]>,
    limits: &'a Limits,
    dialect: Dialect,
    how: How,
    document: u32,
    /// Where the last document began.
    last: Mark,
    /// Lines before those that the parser reads.
    lines_before: u32,
    plain: Vec<Document<V>>,
    listed: Vec<Document<V>>,
    problems: Vec<YamlError>,
    omitted: usize,
}

impl<'a, V: Form> Reading<'a, V> {
    fn run(
        text: &[u8],
        file: &'a Arc<RelPath>,
        limits: &'a Limits,
        dialect: Dialect,
        how: How,
    ) -> Result<Vec<Document<V>>, YamlErrors<V>> {
        let mut reading = Self {
            file,
            files: Arc::from([Arc::clone(file)]),
            limits,
            dialect,
            how,
            document: 0,
            last: Mark { line: 1, column: 1 },
            lines_before: 0,
            plain: Vec::new(),
            listed: Vec::new(),
            problems: Vec::new(),
            omitted: 0,
        };
        reading.file(text);
        let mut documents = reading.plain;
        documents.append(&mut reading.listed);
        if reading.problems.is_empty() {
            return Ok(documents);
        }
        Err(YamlErrors { problems: reading.problems, omitted: reading.omitted, sound: documents })
    }

    fn file(&mut self, text: &[u8]) {
        let start = Mark { line: 1, column: 1 };
        if text.len() > self.limits.bytes {
            let limit = self.limits.bytes;
            return self.problem(start, Problem::TooManyBytes { limit });
        }
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => {
                let before = &text[..error.valid_up_to()];
                let line = before.split(|byte| *byte == b'\n').count();
                let line = u32::try_from(line).unwrap_or(u32::MAX);
                return self.problem(Mark { line, column: 1 }, Problem::NotUtf8);
            }
        };
        let text = without_boms(text);
        if !json::looks_like_json(&text) {
            return self.yaml(&text);
        }
        match json::validate(&text) {
            Ok(()) => self.json(&text),
            Err((mark, message)) => {
                // It may be YAML that starts with a bracket. If it is not, people who named the
                // file .json want to hear about JSON.
                self.yaml(&text);
                if !self.problems.is_empty() && is_json(self.file) {
                    self.problems.clear();
                    self.omitted = 0;
                    self.document = 0;
                    self.problem(mark, Problem::Json(message));
                }
            }
        }
    }

    fn json(&mut self, text: &str) {
        let mut walker = json::Walker::new(text);
        loop {
            let mut composer = Composer::new(self.limits, self.dialect);
            if walker.value(&mut composer).is_none() {
                return;
            }
            self.composed(composer.finish(), text);
            if self.next_document().is_err() {
                return;
            }
        }
    }

    fn yaml(&mut self, text: &str) {
        let mut quick = Quick::new(text);
        while self.dialect == Dialect::Resource || self.document == 0 {
            let mut composer = Composer::new(self.limits, self.dialect);
            match quick.document(&mut composer) {
                Outcome::Document => self.composed(composer.finish(), text),
                Outcome::End => return,
                Outcome::Left(at, lines) => {
                    self.lines_before = lines;
                    return self.parse(text, at);
                }
            }
            if self.next_document().is_err() {
                return;
            }
        }
    }

    /// Has the parser read the documents of a text from a place on.
    fn parse(&mut self, text: &str, from: usize) {
        let rest = &text[from..];
        let replaced = without_lone_dashes(rest);
        let rest = replaced.as_deref().unwrap_or(rest);
        let mut parser = Parser::new_from_str_with_options(rest, self.options());
        loop {
            // Of a configuration only the first document counts, the others may be anything.
            if self.dialect == Dialect::Config && self.document > 0 {
                return;
            }
            let mut composer = Composer::new(self.limits, self.dialect);
            match self.yaml_document(&mut parser, &mut composer, replaced.is_some()) {
                Ok(Found::End) => return,
                Ok(Found::Document) => {}
                // The rest of a broken document says nothing; the next one may be sound.
                Err(Stop) => {
                    if !parser.proceed_next_document().unwrap_or(false) {
                        return self.composed(composer.finish(), text);
                    }
                }
            }
            self.composed(composer.finish(), text);
            if self.next_document().is_err() {
                return;
            }
        }
    }

    fn options(&self) -> Options {
        options! {
            disallow_directives: true,
            // As libyaml, and with it everything written in Go, does.
            block_scalar_eof_without_line_feed: true,
            emit_unresolved_aliases: true,
            emit_comments: false,
            // The composer's own limit is met first and names its value.
            flow_nesting_limit: self.limits.depth + 1,
            block_nesting_limit: self.limits.depth + 1,
        }
    }

    /// Feeds the events of one document. `dashes` says whether some of its dashes are replaced.
    fn yaml_document<'t>(
        &mut self,
        parser: &mut Parser<'t, StrInput<'t>>,
        composer: &mut Composer<'_, 't>,
        dashes: bool,
    ) -> Result<Found, Stop> {
        let mut separator = None;
        let mut flow = 0_usize;
        while let Some(event) = parser.next_event() {
            let (event, span) = match event {
                // The parser writes `~` for a scalar that is not there.
                Ok((Event::Scalar(text, style, anchor, tag), span)) if span.is_empty() => {
                    let text = if text == "~" { Cow::Borrowed("") } else { text };
                    (Event::Scalar(text, style, anchor, tag), span)
                }
                Ok(found) => found,
                Err(error) => {
                    let problem = match error.kind() {
                        ErrorKind::DirectiveDisallowed => Problem::Directive,
                        ErrorKind::RecursionLimitExceeded => {
                            Problem::TooDeep { limit: self.limits.depth }
                        }
                        kind => Problem::Syntax(kind.to_string()),
                    };
                    composer.problem(self.mark(error.marker()), problem);
                    return Err(Stop);
                }
            };
            let at = self.mark(&span.start);
            // `--- text` on the first line of a file is a document to Kustomize, later it is not.
            let absent = event.scalar().is_some_and(|(text, _)| text.is_empty());
            if separator.take() == Some(at.line) && event.is_node() && !absent {
                composer.problem(at, Problem::ContentAfterSeparator);
                return Err(Stop);
            }
            let anchor = event.anchor_id().filter(|id| *id != 0);
            match event {
                Event::DocumentStart(true, _) if self.document > 0 => separator = Some(at.line),
                Event::DocumentEnd => return Ok(Found::Document),
                Event::StreamEnd => return Ok(Found::End),
                Event::Alias(target) => composer.alias(target, at)?,
                Event::UnresolvedAlias(_) => composer.unknown_alias(at)?,
                Event::Scalar(text, style, _, tag) => {
                    let mut text = text;
                    if dashes && text.contains(DASH) {
                        text = Cow::Owned(text.replace(DASH, "-"));
                    }
                    // Printed between brackets, what is not there becomes an empty text.
                    let lost = self.how.printed
                        && flow > 0
                        && style == ScalarStyle::Plain
                        && text.is_empty();
                    let style = match style {
                        ScalarStyle::Plain => Style::quoted(lost),
                        ScalarStyle::Folded => Style::Folded,
                        _ => Style::Quoted,
                    };
                    let name = tag.as_deref().and_then(|tag| tag.suffix_in_namespace(YAML_TAGS));
                    let scalar = Scalar {
                        text,
                        style,
                        tag: match (&tag, &name) {
                            (None, _) if lost => Tag::Yaml("null"),
                            (_, Some(name)) => Tag::Yaml(name),
                            (Some(tag), None) if tag.original() != "!" => Tag::Local,
                            _ => Tag::None,
                        },
                    };
                    composer.scalar(scalar, anchor, at)?;
                }
                Event::SequenceStart(style, ..) => {
                    flow += usize::from(flow > 0 || style == StructureStyle::Flow);
                    composer.open_list(anchor, at)?;
                }
                Event::MappingStart(style, ..) => {
                    flow += usize::from(flow > 0 || style == StructureStyle::Flow);
                    composer.open_map(anchor, at)?;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    flow = flow.saturating_sub(1);
                    composer.close()?;
                }
                _ => {}
            }
        }
        Ok(Found::End)
    }

    /// Takes over one document's objects or problems.
    fn composed(&mut self, composed: Composed<'_>, text: &str) {
        let Composed { nodes, root, problems } = composed;
        self.last = root.map_or(self.last, |root| nodes[root].mark);
        if !problems.is_empty() {
            return self.problems(problems);
        }
        let (objects, problems) = expand(&nodes, root, text, self.how, &self.files);
        self.problems(problems);
        let root = root.map(|root| nodes[root].mark);
        for object in objects {
            let document = Document {
                value: object.value,
                place: self.place(object.mark),
                fields: object.fields,
            };
            if Some(object.mark) == root {
                self.plain.push(document);
            } else {
                self.listed.push(document);
            }
        }
    }

    fn next_document(&mut self) -> Result<(), Stop> {
        self.document += 1;
        let limit = self.limits.documents;
        // A document more than the limit may be the empty one behind the last `---`, which
        // nobody counts; it is let through.
        if self.document as usize > limit {
            self.problem(self.last, Problem::TooManyDocuments { limit });
            return Err(Stop);
        }
        Ok(())
    }

    fn problems(&mut self, problems: Vec<(Mark, Problem)>) {
        for (mark, problem) in problems {
            self.problem(mark, problem);
        }
    }

    fn problem(&mut self, mark: Mark, problem: Problem) {
        if self.problems.len() < KEPT_PROBLEMS {
            let place = self.place(mark);
            self.problems.push(YamlError { place, problem });
        } else {
            self.omitted += 1;
        }
    }

    fn mark(&self, marker: &Marker) -> Mark {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Mark {
            line: number(marker.line()).max(1).saturating_add(self.lines_before),
            column: number(marker.col()).saturating_add(1),
        }
    }

    fn place(&self, mark: Mark) -> Place {
        Place {
            file: Arc::clone(self.file),
            document: self.document,
            line: mark.line,
            column: mark.column,
        }
    }
}

enum Found {
    Document,
    End,
}

fn is_json(file: &RelPath) -> bool {
    let end = file.name().rsplit_once('.');
    end.is_some_and(|(_, end)| end == "json")
}

/// Drops byte order marks at the start of the file and of documents: files put together by tools
/// have them in the middle.
fn without_boms(text: &str) -> Cow<'_, str> {
    let text = text.strip_prefix(BOM).unwrap_or(text);
    if !text.contains(BOM) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    let mut separated = true;
    for line in text.split_inclusive('\n') {
        let line = match line.strip_prefix(BOM) {
            // A concatenated file may also have the mark right before its first `---`.
            Some(rest) if separated || rest.starts_with("---") => rest,
            _ => line,
        };
        kept.push_str(line);
        separated = line.starts_with("---");
    }
    Cow::Owned(kept)
}

/// The text with another character for each dash that is all of a plain scalar between brackets, as
/// in `[tar, -xf, -]`, if there are any: everything written in Go reads it, the parser does not.
/// Dashes in quotes and blocks may be among them; each is put back when its scalar is read.
fn without_lone_dashes(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let alone = |at: usize| {
        let before = at.checked_sub(1).map(|at| bytes[at]);
        matches!(bytes.get(at + 1), Some(b',' | b']' | b'}'))
            && matches!(before, Some(b'[' | b'{' | b',' | b' ' | b'\n'))
    };
    let mut dashes = text.match_indices('-').map(|(at, _)| at).filter(|at| alone(*at)).peekable();
    // Nothing that is meant for people has this character; where it is, the dashes stay.
    if dashes.peek().is_none() || text.contains(DASH) {
        return None;
    }
    let mut replaced = String::with_capacity(text.len() + 16);
    let mut from = 0;
    for at in dashes {
        replaced.push_str(&text[from..at]);
        replaced.push(DASH);
        from = at + 1;
    }
    replaced.push_str(&text[from..]);
    Some(replaced)
}
