//! Reads the part of YAML that nearly all manifests are written in, at a tenth of the parser's
//! cost: blocks and short brackets of words, one scalar a line, literal blocks, comments, ASCII.
//!
//! Invariant: what this takes, the parser takes, and both say the same to the composer, places
//! included; the tests compare them. It never finds a mistake: whatever it does not know, it leaves,
//! from the start of the document on, to the parser.

use std::borrow::Cow;

use crate::compose::{Composer, Mark, Scalar, Tag};
use crate::node::Style;

/// Bytes up to which a key is taken; YAML ends at 1024.
const KEY: usize = 256;

/// Walks the documents of a text.
pub(crate) struct Quick<'t> {
    /// The text up to the first byte that is not taken.
    text: &'t str,
    /// Whether that is not all of it.
    cut: bool,
    /// Where the next token starts, or the end of the text.
    at: usize,
    /// The line it is on, counted from one, and where that starts.
    line: u32,
    start: usize,
    /// Where the document at hand starts, and on which line.
    document: (usize, u32),
}

/// What became of a document.
pub(crate) enum Outcome {
    /// It was read.
    Document,
    /// There was none.
    End,
    /// The parser must read from here on: the place, and how many lines are before it.
    Left(usize, u32),
}

impl<'t> Quick<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let taken = |byte: &u8| *byte == b'\n' || (b' '..=b'~').contains(byte);
        let length = text.bytes().position(|byte| !taken(&byte)).unwrap_or(text.len());
        let cut = length < text.len();
        let text = &text[..length];
        let mut this = Self { text, cut, at: 0, line: 1, start: 0, document: (0, 1) };
        this.seek();
        this
    }

    /// Feeds the next document. When it is left, what was fed of it is worth nothing.
    pub(crate) fn document(&mut self, composer: &mut Composer<'_, 't>) -> Outcome {
        let is_end = |this: &Self| this.at == this.text.len();
        if is_end(self) && !self.cut {
            return Outcome::End;
        }
        let read = !is_end(self) && self.read(composer).is_some() && !composer.has_problems();
        if !read || (self.cut && is_end(self)) {
            return Outcome::Left(self.document.0, self.document.1 - 1);
        }
        self.document = (self.start, self.line);
        Outcome::Document
    }

    fn read(&mut self, composer: &mut Composer<'_, 't>) -> Option<()> {
        let mut separator = self.mark();
        if self.is_over() {
            if self.byte(self.at) != Some(b'-') {
                return None;
            }
            self.at += 3;
            separator = self.mark();
            self.end_line()?;
        }
        if self.is_over() {
            // Nothing between two separators.
            Self::absent(composer, separator)?;
        } else {
            self.node(composer)?;
        }
        let is_separator = || {
            self.is_over()
                && self.byte(self.at) == Some(b'-')
                && matches!(self.byte(self.at + 3), None | Some(b' ' | b'\n'))
        };
        (self.at == self.text.len() || is_separator()).then_some(())
    }

    /// A node that starts a line: a list or a map.
    fn node(&mut self, composer: &mut Composer<'_, 't>) -> Option<()> {
        if self.is_dash() {
            return self.list(composer, self.mark());
        }
        self.find_key()?;
        self.map(composer)
    }

    /// The entries of a map, the first of which is next.
    fn map(&mut self, composer: &mut Composer<'_, 't>) -> Option<()> {
        let column = self.column();
        composer.open_map(None, self.mark()).ok()?;
        loop {
            let (key, style, end) = self.find_key()?;
            composer.scalar(Scalar { text: key, style, tag: Tag::None }, None, self.mark()).ok()?;
            // Behind the colon.
            self.at = end + 1;
            self.value(composer, column)?;
            if self.goes_on(column)? {
                continue;
            }
            composer.close().ok()?;
            return Some(());
        }
    }

    /// What stands behind a colon.
    fn value(&mut self, composer: &mut Composer<'_, 't>, column: usize) -> Option<()> {
        let mark = self.mark();
        if !self.ends_line() {
            return self.inline(composer, column, false);
        }
        self.end_line()?;
        if self.is_over() || self.column() < column {
            return Self::absent(composer, mark);
        }
        if self.column() > column {
            return self.node(composer);
        }
        if !self.is_dash() {
            return Self::absent(composer, mark);
        }
        // The parser says that such a list starts with what its first item has.
        let dash = self.at;
        self.at += 1;
        self.spaces();
        let mark = self.mark();
        self.at = dash;
        self.list(composer, mark)
    }

    /// The items of a list, the first of which is next.
    fn list(&mut self, composer: &mut Composer<'_, 't>, mark: Mark) -> Option<()> {
        let column = self.column();
        composer.open_list(None, mark).ok()?;
        loop {
            self.at += 1;
            let mark = self.mark();
            if self.ends_line() {
                // Where an item is that is not there depends on what stands instead.
                if self.mark() != mark {
                    return None;
                }
                self.end_line()?;
                if self.is_over() || self.column() <= column {
                    Self::absent(composer, mark)?;
                } else {
                    self.node(composer)?;
                }
            } else {
                self.inline(composer, column, true)?;
            }
            // A list without more indentation than its key ends with the key behind it.
            if !self.goes_on(column)? || !self.is_dash() {
                composer.close().ok()?;
                return Some(());
            }
        }
    }

    /// A value that starts on the line of its key or dash, and ends there unless it is a map or a
    /// list in a list, or a literal block. What comes behind is next.
    fn inline(
        &mut self,
        composer: &mut Composer<'_, 't>,
        column: usize,
        in_list: bool,
    ) -> Option<()> {
        match self.byte(self.at)? {
            b'-' if self.is_dash() => {
                return if in_list { self.list(composer, self.mark()) } else { None };
            }
            b'|' => return self.literal(composer, column),
            b'[' | b'{' => self.brackets(composer)?,
            _ => {
                let (text, style, end) = self.word()?;
                if self.is_colon(end) {
                    return if in_list { self.map(composer) } else { None };
                }
                let scalar = Scalar { text: Cow::Borrowed(text), style, tag: Tag::None };
                composer.scalar(scalar, None, self.mark()).ok()?;
                self.at = end;
            }
        }
        self.end_line()?;
        // Words that go on, or a mistake.
        (self.is_over() || self.column() <= column).then_some(())
    }

    /// A word in quotes, or all words up to a colon, a comment or the end of the line; whether it
    /// is plain, and where it ends.
    fn word(&self) -> Option<(&'t str, Style, usize)> {
        let bytes = self.text.as_bytes();
        if let Some(quote @ (b'"' | b'\'')) = self.byte(self.at) {
            let from = self.at + 1;
            let length = bytes[from..]
                .iter()
                .position(|byte| *byte == quote || matches!(*byte, b'\n' | b'\\'))?;
            let end = from + length;
            // A quote inside quotes is two of them.
            if bytes[end] != quote || self.byte(end + 1) == Some(quote) {
                return None;
            }
            return Some((&self.text[from..end], Style::Quoted, end + 1));
        }
        let starts = match self.byte(self.at)? {
            byte if byte.is_ascii_alphanumeric() => true,
            b'-' => self
                .byte(self.at + 1)
                .is_some_and(|next| next.is_ascii_alphanumeric() || next == b'-'),
            byte => b"_/.$()+^;=<~\\".contains(&byte),
        };
        if !starts {
            return None;
        }
        let (mut end, mut last) = (self.at, self.at);
        loop {
            match self.byte(end) {
                None | Some(b'\n') => break,
                Some(b' ') if self.byte(end + 1) == Some(b'#') => break,
                Some(b' ') => {}
                Some(b':') if self.is_colon(end) => {
                    // A space before the colon is left to the parser.
                    if last != end {
                        return None;
                    }
                    break;
                }
                Some(_) => last = end + 1,
            }
            end += 1;
        }
        Some((&self.text[self.at..last], Style::Plain, last))
    }

    /// The key that is next, and where its colon is.
    fn find_key(&self) -> Option<(Cow<'t, str>, Style, usize)> {
        let (key, style, end) = self.word()?;
        let fits = self.is_colon(end) && key.len() <= KEY && !key.starts_with('-');
        fits.then_some((Cow::Borrowed(key), style, end))
    }

    /// Whether there is a colon that ends a key.
    fn is_colon(&self, at: usize) -> bool {
        self.byte(at) == Some(b':') && matches!(self.byte(at + 1), None | Some(b' ' | b'\n'))
    }

    /// Brackets on one line.
    fn brackets(&mut self, composer: &mut Composer<'_, 't>) -> Option<()> {
        let mark = self.mark();
        let (is_map, end) = match self.byte(self.at)? {
            b'{' => (true, b'}'),
            _ => (false, b']'),
        };
        if is_map { composer.open_map(None, mark) } else { composer.open_list(None, mark) }.ok()?;
        self.at += 1;
        self.spaces();
        if self.byte(self.at)? != end {
            loop {
                if is_map {
                    self.word_in_brackets(composer)?;
                    if !self.is_colon(self.at) {
                        return None;
                    }
                    self.at += 1;
                    self.spaces();
                }
                match self.byte(self.at)? {
                    b'[' | b'{' => self.brackets(composer)?,
                    _ => self.word_in_brackets(composer)?,
                }
                self.spaces();
                match self.byte(self.at)? {
                    b',' => self.at += 1,
                    byte if byte == end => break,
                    _ => return None,
                }
                self.spaces();
            }
        }
        self.at += 1;
        composer.close().ok()
    }

    fn word_in_brackets(&mut self, composer: &mut Composer<'_, 't>) -> Option<()> {
        let mark = self.mark();
        let (text, style, end) = match self.byte(self.at)? {
            b'"' | b'\'' => self.word()?,
            first => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./=+-".contains(byte);
                let bytes = &self.text.as_bytes()[self.at..];
                let mut length = 0;
                while bytes.get(length).is_some_and(is_part)
                    || (bytes.get(length) == Some(&b':')
                        && length > 0
                        && bytes.get(length + 1).is_some_and(is_part))
                {
                    length += 1;
                }
                let dashed = first == b'-' && !bytes.get(1).is_some_and(u8::is_ascii_alphanumeric);
                if length == 0 || length > KEY || dashed {
                    return None;
                }
                let end = self.at + length;
                (&self.text[self.at..end], Style::Plain, end)
            }
        };
        let scalar = Scalar { text: Cow::Borrowed(text), style, tag: Tag::None };
        composer.scalar(scalar, None, mark).ok()?;
        self.at = end;
        Some(())
    }

    /// A literal block: `|` or `|-`.
    fn literal(&mut self, composer: &mut Composer<'_, 't>, column: usize) -> Option<()> {
        self.at += 1;
        let strip = self.byte(self.at) == Some(b'-');
        self.at += usize::from(strip);
        if !self.ends_line() || self.byte(self.at).is_none_or(|byte| byte == b'#') {
            return None;
        }
        let mut text = String::new();
        let mut first: Option<(usize, Mark)> = None;
        // Empty lines that stand before the next one that is not.
        let mut empty = 0;
        self.next_line();
        loop {
            let rest = &self.text[self.start..];
            let length = rest.find('\n');
            let line = &rest[..length.unwrap_or(rest.len())];
            let spaces = line.bytes().take_while(|byte| *byte == b' ').count();
            let indent = first.map_or(spaces, |(indent, _)| indent);
            if spaces == line.len() && (first.is_none() || spaces <= indent) {
                if first.is_none() && spaces > column + 1 {
                    // It may have more spaces than the first line, which is a mistake.
                    return None;
                }
                length?;
                empty += 1;
            } else if spaces < indent || spaces <= column {
                break;
            } else {
                // The end of the text may be the end of a line or not.
                length?;
                self.at = self.start + indent;
                first.get_or_insert((indent, self.mark()));
                text.extend(std::iter::repeat_n('\n', empty));
                text.push_str(&line[indent..]);
                text.push('\n');
                empty = 0;
            }
            self.at = self.start + line.len();
            self.next_line();
            if self.at == self.text.len() {
                break;
            }
        }
        let (_, mark) = first?;
        if strip {
            text.pop();
        }
        let scalar = Scalar { text: Cow::Owned(text), style: Style::Quoted, tag: Tag::None };
        composer.scalar(scalar, None, mark).ok()?;
        self.at = self.start;
        self.seek();
        (self.is_over() || self.column() <= column).then_some(())
    }

    /// A value that is not there.
    fn absent(composer: &mut Composer<'_, 't>, mark: Mark) -> Option<()> {
        let scalar = Scalar { text: Cow::Borrowed(""), style: Style::Plain, tag: Tag::None };
        composer.scalar(scalar, None, mark).ok()
    }

    /// Whether a map or list at a column goes on; `None` for a wrong indentation.
    fn goes_on(&self, column: usize) -> Option<bool> {
        if self.is_over() || self.column() < column {
            return Some(false);
        }
        (self.column() == column).then_some(true)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn column(&self) -> usize {
        self.at - self.start
    }

    fn mark(&self) -> Mark {
        let column = u32::try_from(self.column() + 1).unwrap_or(u32::MAX);
        Mark { line: self.line, column }
    }

    /// Whether the document is over: at the end of the text, or at a `---` or `...`.
    fn is_over(&self) -> bool {
        let rest = &self.text[self.at..];
        rest.is_empty()
            || (self.column() == 0 && (rest.starts_with("---") || rest.starts_with("...")))
    }

    /// Whether a dash of a list is next.
    fn is_dash(&self) -> bool {
        self.byte(self.at) == Some(b'-')
            && matches!(self.byte(self.at + 1), None | Some(b' ' | b'\n'))
    }

    fn spaces(&mut self) {
        while self.byte(self.at) == Some(b' ') {
            self.at += 1;
        }
    }

    /// Passes spaces, and says whether a comment or nothing is behind them.
    fn ends_line(&mut self) -> bool {
        self.spaces();
        match self.byte(self.at) {
            None | Some(b'\n') => true,
            Some(b'#') => self.text[..self.at].ends_with(' '),
            _ => false,
        }
    }

    /// Goes to the next line that has something, if nothing more is on this one.
    fn end_line(&mut self) -> Option<()> {
        if !self.ends_line() {
            return None;
        }
        let rest = &self.text[self.at..];
        self.at += rest.find('\n').unwrap_or(rest.len());
        self.next_line();
        self.seek();
        Some(())
    }

    /// Goes from the end of a line to the start of the next.
    fn next_line(&mut self) {
        if self.at < self.text.len() {
            self.at += 1;
            self.line += 1;
        }
        self.start = self.at;
    }

    /// Goes from the start of a line to the next that has something.
    fn seek(&mut self) {
        loop {
            self.spaces();
            match self.byte(self.at) {
                Some(b'\n') => {}
                Some(b'#') => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find('\n').unwrap_or(rest.len());
                }
                _ => return,
            }
            self.next_line();
        }
    }
}
