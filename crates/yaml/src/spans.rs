//! Texts with the bytes of each part, for tools that change a few scalars and leave all else, the
//! comments too, as it was written.

use std::ops::Range;
use std::sync::Arc;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, Span, StrInput, options};
use plumb_core::{Place, RelPath};

use crate::error::{Problem, YamlError};
use crate::node::{Scalar, ScalarTag, Style};
use crate::{Limits, Text, scalar};

const YAML_TAGS: &str = "tag:yaml.org,2002:";

/// A node of a text, and where it is. Maps and lists have no bytes of their own: what is in them has.
#[derive(Debug, Clone)]
pub struct Spanned {
    /// The bytes of a scalar, quotes included, of one in a block of lines those of the lines; of a
    /// map or list where it begins.
    pub span: Range<usize>,
    /// The line, counted from one.
    pub line: u32,
    /// What it is.
    pub part: Part,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Part {
    /// A map in the order of the text.
    Map(Vec<(Key, Spanned)>),
    /// A list.
    List(Vec<Spanned>),
    /// A scalar.
    Scalar(Scalar),
}

/// A key of a map.
#[derive(Debug, Clone)]
pub struct Key {
    /// The key.
    pub text: Text,
    /// Its bytes, quotes included.
    pub span: Range<usize>,
}

/// One document of a text.
#[derive(Debug, Clone)]
pub struct SpannedDocument {
    /// The content, unless it is empty.
    pub root: Option<Spanned>,
    /// The bytes of its comments, each from its `#` to the end of its line.
    pub comments: Vec<Range<usize>>,
}

impl Spanned {
    /// A field of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.part {
            Part::Map(fields) => {
                fields.iter().find(|(name, _)| name.text == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.part {
            Part::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The byte behind the last scalar in it, or where it begins.
    pub fn end(&self) -> usize {
        match &self.part {
            Part::Map(fields) => fields.last().map_or(self.span.end, |(_, last)| last.end()),
            Part::List(items) => items.last().map_or(self.span.end, Self::end),
            Part::Scalar(_) => self.span.end,
        }
    }
}

/// Reads all documents of a text. What has no place of its own, an alias, is refused.
pub fn read_spans(
    text: &str,
    file: &Arc<RelPath>,
    limits: &Limits,
) -> Result<Vec<SpannedDocument>, YamlError> {
    let options = options! {
        disallow_directives: true,
        block_scalar_eof_without_line_feed: true,
        emit_unresolved_aliases: true,
        emit_comments: true,
        flow_nesting_limit: limits.depth + 1,
        block_nesting_limit: limits.depth + 1,
    };
    let mut reading = Reading {
        parser: Parser::new_from_str_with_options(text, options),
        file,
        limits,
        nodes: 0,
        documents: Vec::new(),
    };
    if text.len() > limits.bytes {
        return Err(reading.wrong(1, 1, Problem::TooManyBytes { limit: limits.bytes }));
    }
    reading.stream()?;
    Ok(reading.documents)
}

struct Reading<'t> {
    parser: Parser<'t, StrInput<'t>>,
    file: &'t Arc<RelPath>,
    limits: &'t Limits,
    nodes: usize,
    documents: Vec<SpannedDocument>,
}

impl<'t> Reading<'t> {
    fn stream(&mut self) -> Result<(), YamlError> {
        let mut comments = Vec::new();
        while let Some((event, span)) = self.next(&mut comments)? {
            match event {
                Event::DocumentStart(..) => {
                    let limit = self.limits.documents;
                    if self.documents.len() > limit {
                        return Err(self.at(&span.start, Problem::TooManyDocuments { limit }));
                    }
                    self.nodes = 0;
                    self.documents.push(SpannedDocument { root: None, comments: Vec::new() });
                }
                // Behind the end of a document come comments that nobody can tell from those
                // before the next one.
                Event::DocumentEnd | Event::StreamEnd => {
                    if let Some(last) = self.documents.last_mut() {
                        last.comments.append(&mut comments);
                    }
                }
                Event::StreamStart => {}
                event => {
                    let root = self.node(event, &span, 0, &mut comments)?;
                    if let Some(last) = self.documents.last_mut() {
                        let empty = matches!(&root.part, Part::Scalar(scalar) if scalar.is_null());
                        last.root = (!empty).then_some(root);
                    }
                }
            }
        }
        Ok(())
    }

    /// The next event that is no comment.
    fn next(
        &mut self,
        comments: &mut Vec<Range<usize>>,
    ) -> Result<Option<(Event<'t>, Span)>, YamlError> {
        loop {
            match self.parser.next_event() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..), span))) => comments.push(range(&span)),
                Some(Ok(found)) => return Ok(Some(found)),
                Some(Err(error)) => {
                    let problem = match error.kind() {
                        ErrorKind::DirectiveDisallowed => Problem::Directive,
                        ErrorKind::RecursionLimitExceeded => {
                            Problem::TooDeep { limit: self.limits.depth }
                        }
                        kind => Problem::Syntax(kind.to_string()),
                    };
                    return Err(self.at(error.marker(), problem));
                }
            }
        }
    }

    /// The node that an event begins.
    fn node(
        &mut self,
        event: Event<'t>,
        span: &Span,
        depth: usize,
        comments: &mut Vec<Range<usize>>,
    ) -> Result<Spanned, YamlError> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            let limit = self.limits.nodes;
            return Err(self.at(&span.start, Problem::TooManyNodes { limit }));
        }
        if depth > self.limits.depth {
            let limit = self.limits.depth;
            return Err(self.at(&span.start, Problem::TooDeep { limit }));
        }
        let line = line(&span.start);
        let start = range(span);
        let part = match event {
            Event::Scalar(text, style, _, tag) => {
                // The parser writes `~` for a scalar that is not there.
                let text = if span.is_empty() && text == "~" { "".into() } else { text };
                let plain = style == ScalarStyle::Plain;
                let name = tag.as_deref().and_then(|tag| tag.suffix_in_namespace(YAML_TAGS));
                let counts_as = match name {
                    Some(name) => scalar::explicit_tag(&name),
                    None if plain => scalar::implicit_tag(&text),
                    None => ScalarTag::Str,
                };
                let style = Style::quoted(!plain);
                return Ok(Spanned {
                    span: start,
                    line,
                    part: Part::Scalar(Scalar { style, ..Scalar::new(&*text, counts_as) }),
                });
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                while let Some((event, span)) = self.next(comments)? {
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    items.push(self.node(event, &span, depth + 1, comments)?);
                }
                Part::List(items)
            }
            Event::MappingStart(..) => {
                let mut fields = Vec::new();
                while let Some((event, span)) = self.next(comments)? {
                    if matches!(event, Event::MappingEnd) {
                        break;
                    }
                    let key = self.node(event, &span, depth + 1, comments)?;
                    let key = match key.part {
                        Part::Scalar(Scalar { text, tag, .. })
                            if tag == ScalarTag::Str || text == "<<" =>
                        {
                            Key { text, span: key.span }
                        }
                        Part::Scalar(Scalar { text, .. }) => {
                            let found = "not a string";
                            let key = text.to_string();
                            let problem = Problem::KeyNotString { key, found };
                            return Err(self.at(&span.start, problem));
                        }
                        Part::Map(_) | Part::List(_) => {
                            let found = "a map or a list";
                            return Err(self.at(&span.start, Problem::KeyNotScalar { found }));
                        }
                    };
                    let Some((event, span)) = self.next(comments)? else { break };
                    let value = self.node(event, &span, depth + 1, comments)?;
                    fields.push((key, value));
                }
                Part::Map(fields)
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let why = "an alias cannot be read here".to_owned();
                return Err(self.at(&span.start, Problem::Syntax(why)));
            }
            _ => {
                let why = "something stands where a value belongs".to_owned();
                return Err(self.at(&span.start, Problem::Syntax(why)));
            }
        };
        Ok(Spanned { span: start.start..start.start, line, part })
    }

    fn at(&self, marker: &Marker, problem: Problem) -> YamlError {
        let column = u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1);
        self.wrong(line(marker), column, problem)
    }

    fn wrong(&self, line: u32, column: u32, problem: Problem) -> YamlError {
        let document = u32::try_from(self.documents.len().saturating_sub(1)).unwrap_or(u32::MAX);
        YamlError { place: Place { file: Arc::clone(self.file), document, line, column }, problem }
    }
}

fn line(marker: &Marker) -> u32 {
    u32::try_from(marker.line()).unwrap_or(u32::MAX).max(1)
}

fn range(span: &Span) -> Range<usize> {
    // A parser of a text knows the bytes.
    let at = |marker: &Marker| marker.byte_offset().unwrap_or_default();
    at(&span.start)..at(&span.end)
}
