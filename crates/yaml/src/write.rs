//! Writes values the way `kustomize build` does, byte for byte.
//!
//! The layout is that of the go-yaml v2 emitter, a descendant of libyaml: block style, keys in
//! natural order, two spaces, lists not indented under their key, long plain and quoted scalars
//! folded behind column 80. Strings that a reader of YAML 1.1 or 1.2 may take for something else
//! are quoted.

use serde_json::{Map, Value};

use crate::{natural, number, scalar};

/// Spaces a level.
const INDENT: usize = 2;
/// The column behind which a scalar is folded at its next space.
const WIDTH: usize = 80;
/// Bytes up to which a key stands before its colon without a `?`.
const SIMPLE_KEY: usize = 128;

/// Writes one document, ending in a line break.
pub fn to_string(value: &Value) -> String {
    let mut writer = Writer::new(String::new());
    writer.document(value);
    writer.out
}

/// Writes documents with `---` between them; nothing stands before the first.
pub fn to_string_all<'v>(values: impl IntoIterator<Item = &'v Value>) -> String {
    let mut out = String::new();
    for value in values {
        if !out.is_empty() {
            out.push_str("---\n");
        }
        let mut writer = Writer::new(out);
        writer.document(value);
        out = writer.out;
    }
    out
}

/// A text in double quotes, on one line.
pub fn quote(text: &str) -> String {
    let mut writer = Writer::new(String::new());
    writer.double(text, 0, Context::SimpleKey);
    writer.out
}

/// A text as go-yaml v3 writes it behind a key or a dash of block style, without a line break at its
/// end. Texts of several lines become a block whose lines are indented by `indent`, which is that
/// many columns more than what stands before it; without one they are quoted.
pub fn spell(text: &str, block: Option<(usize, usize)>) -> String {
    let allowed = Allowed::of(text);
    if text.contains('\n') {
        // Where a text begins with a space the block has to say how far it is indented, and the
        // reference says four whatever it does.
        let hinted = text.starts_with(|c| c == ' ' || is_break(c));
        // This emitter, unlike the other, writes tabs into blocks as they are.
        let literal = Allowed::of(&text.replace('\t', "x")).literal;
        return match block {
            Some((indent, more)) if literal && (!hinted || more == HINT) => {
                let mut writer = Writer::new(String::new());
                writer.literal(text, indent);
                let mut out = writer.out;
                if hinted {
                    out.replace_range(1..2, &HINT.to_string());
                }
                let end = out.strip_suffix('\n').map_or(out.len(), str::len);
                out.truncate(end);
                out
            }
            _ => quote(text),
        };
    }
    if text == "<<" || scalar::needs_quotes(text) {
        quote(text)
    } else if allowed.plain {
        text.to_owned()
    } else if allowed.single {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        quote(text)
    }
}

/// How many columns go-yaml v3 says that a block is indented, where it has to say it.
const HINT: usize = 4;

/// What stands around a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Root,
    Item,
    Value,
    /// A key before its colon.
    SimpleKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

struct Writer {
    out: String,
    column: usize,
    /// Whether a space or an indicator that needs none after it was written last.
    whitespace: bool,
    /// Whether the line has nothing but indentation and `-`, `?`, `:` so far.
    indention: bool,
}

impl Writer {
    fn new(out: String) -> Self {
        Self { out, column: 0, whitespace: true, indention: true }
    }

    fn document(&mut self, value: &Value) {
        self.node(value, None, Context::Root);
        self.indent(0);
    }

    /// Writes a node inside a collection that is indented by `indent`; the root has none.
    fn node(&mut self, value: &Value, indent: Option<usize>, context: Context) {
        let scalar_indent = indent.map_or(INDENT, |indent| indent + INDENT);
        match value {
            Value::Object(map) if map.is_empty() => self.empty('{', '}'),
            Value::Array(items) if items.is_empty() => self.empty('[', ']'),
            Value::Object(map) => self.map(map, indent.map_or(0, |indent| indent + INDENT)),
            Value::Array(items) => {
                let under_key = context == Context::Value && !self.indention;
                let inner =
                    indent.map_or(0, |indent| if under_key { indent } else { indent + INDENT });
                for item in items {
                    self.indent(inner);
                    self.indicator("-", true, false, true);
                    self.node(item, Some(inner), Context::Item);
                }
            }
            Value::Null => self.plain("null", scalar_indent, context),
            Value::Bool(true) => self.plain("true", scalar_indent, context),
            Value::Bool(false) => self.plain("false", scalar_indent, context),
            Value::Number(number) => self.plain(&number::write(number), scalar_indent, context),
            Value::String(text) => self.string(text, scalar_indent, context),
        }
    }

    fn map(&mut self, map: &Map<String, Value>, indent: usize) {
        if natural::is_sorted(map.keys()) {
            for (key, value) in map {
                self.entry(key, value, indent);
            }
            return;
        }
        let mut entries: Vec<(&str, &Value)> =
            map.iter().map(|(key, value)| (key.as_str(), value)).collect();
        natural::sort(&mut entries);
        for (key, value) in entries {
            self.entry(key, value, indent);
        }
    }

    fn entry(&mut self, key: &str, value: &Value, indent: usize) {
        self.indent(indent);
        if key.len() <= SIMPLE_KEY && !key.contains(is_break) {
            self.string(key, indent + INDENT, Context::SimpleKey);
            self.indicator(":", false, false, false);
        } else {
            self.indicator("?", true, false, true);
            self.string(key, indent + INDENT, Context::Value);
            self.indent(indent);
            self.indicator(":", true, false, true);
        }
        self.node(value, Some(indent), Context::Value);
    }

    fn empty(&mut self, open: char, close: char) {
        self.indicator(open.encode_utf8(&mut [0; 4]), true, true, false);
        self.indicator(close.encode_utf8(&mut [0; 4]), false, false, false);
    }

    fn string(&mut self, text: &str, indent: usize, context: Context) {
        if is_word(text) {
            if !self.whitespace {
                self.put(' ');
            }
            self.run(text);
            self.whitespace = false;
            self.indention = false;
            return;
        }
        match style(text, context) {
            Style::Plain => self.plain(text, indent, context),
            Style::Single => self.single(text, indent, context),
            Style::Double => self.double(text, indent, context),
            Style::Literal => self.literal(text, indent),
        }
    }

    fn plain(&mut self, text: &str, indent: usize, context: Context) {
        if !self.whitespace {
            self.put(' ');
        }
        let fold = context != Context::SimpleKey;
        self.words(text, indent, Style::Plain, |_, column, next| {
            fold && column > WIDTH && next != Some(b' ')
        });
        self.whitespace = false;
        self.indention = false;
    }

    fn single(&mut self, text: &str, indent: usize, context: Context) {
        self.indicator("'", true, false, false);
        let fold = context != Context::SimpleKey;
        let last = text.len().saturating_sub(1);
        self.words(text, indent, Style::Single, |at, column, next| {
            fold && column > WIDTH && at > 0 && at < last && next != Some(b' ')
        });
        self.indicator("'", false, false, false);
        self.whitespace = false;
        self.indention = false;
    }

    /// Writes one line of text, broken at spaces where `breaks(byte, column, next byte)` says so;
    /// inside single quotes a quote is doubled.
    fn words(
        &mut self,
        text: &str,
        indent: usize,
        style: Style,
        breaks: impl Fn(usize, usize, Option<u8>) -> bool,
    ) {
        let mut at = 0;
        for word in text.split_inclusive(' ') {
            let (word, space) = match word.strip_suffix(' ') {
                Some(word) => (word, true),
                None => (word, false),
            };
            for (i, part) in word.split('\'').enumerate() {
                if i > 0 {
                    self.run(if style == Style::Single { "''" } else { "'" });
                }
                self.run(part);
            }
            self.indention &= word.is_empty();
            at += word.len();
            if space {
                let next = text.as_bytes().get(at + 1).copied();
                // Of several spaces the first alone may become a break.
                if (at == 0 || !word.is_empty()) && breaks(at, self.column, next) {
                    self.indent(indent);
                } else {
                    self.put(' ');
                }
                at += 1;
            }
        }
    }

    fn double(&mut self, text: &str, indent: usize, context: Context) {
        self.indicator("\"", true, false, false);
        let fold = context != Context::SimpleKey;
        // The emitter we follow looks for a byte order mark at the start of the text whenever it
        // looks at a character, so behind one it escapes everything.
        let escape_all = text.starts_with('\u{feff}');
        let last = text.len().saturating_sub(1);
        let mut spaces = false;
        for (at, c) in text.char_indices() {
            if escape_all || !is_printable(c) || is_break(c) || matches!(c, '"' | '\\') {
                self.escape(c);
                spaces = false;
            } else if c == ' ' {
                if fold && !spaces && self.column > WIDTH && at > 0 && at < last {
                    self.indent(indent);
                    if text.as_bytes()[at + 1] == b' ' {
                        self.put('\\');
                    }
                } else {
                    self.put(' ');
                }
                spaces = true;
            } else {
                self.put(c);
                spaces = false;
            }
        }
        self.indicator("\"", false, false, false);
        self.whitespace = false;
        self.indention = false;
    }

    fn escape(&mut self, c: char) {
        let short = match c {
            '\0' => '0',
            '\x07' => 'a',
            '\x08' => 'b',
            '\t' => 't',
            '\n' => 'n',
            '\x0b' => 'v',
            '\x0c' => 'f',
            '\r' => 'r',
            '\x1b' => 'e',
            '"' => '"',
            '\\' => '\\',
            '\u{85}' => 'N',
            '\u{a0}' => '_',
            '\u{2028}' => 'L',
            '\u{2029}' => 'P',
            _ => {
                let code = u32::from(c);
                let text = match code {
                    0..=0xff => format!("\\x{code:02X}"),
                    0x100..=0xffff => format!("\\u{code:04X}"),
                    _ => format!("\\U{code:08X}"),
                };
                text.chars().for_each(|c| self.put(c));
                return;
            }
        };
        self.put('\\');
        self.put(short);
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.indicator("|", true, false, false);
        if text.starts_with(|c| c == ' ' || is_break(c)) {
            self.indicator("2", false, false, false);
        }
        let mut backwards = text.chars().rev();
        match (backwards.next().map(is_break), backwards.next().map(is_break)) {
            (Some(true), None | Some(true)) => self.indicator("+", false, false, false),
            (Some(true), Some(false)) => {}
            _ => self.indicator("-", false, false, false),
        }
        self.line_break('\n');
        self.indention = true;
        self.whitespace = true;
        if text.bytes().all(|byte| byte != b'\r' && byte.is_ascii()) {
            for line in text.split_inclusive('\n') {
                let content = line.strip_suffix('\n');
                if content != Some("") {
                    self.indent(indent);
                    self.run(content.unwrap_or(line));
                    self.indention = false;
                }
                if content.is_some() {
                    self.line_break('\n');
                    self.indention = true;
                }
            }
            return;
        }
        let mut breaks = true;
        for c in text.chars() {
            if is_break(c) {
                self.line_break(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.indent(indent);
                }
                self.put(c);
                self.indention = false;
                breaks = false;
            }
        }
    }

    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    /// Writes a text without breaks.
    fn run(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += if text.is_ascii() { text.len() } else { text.chars().count() };
    }

    fn line_break(&mut self, c: char) {
        self.out.push(c);
        self.column = 0;
    }

    /// Starts a line that is indented by `indent`, unless the line at hand will do.
    fn indent(&mut self, indent: usize) {
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.line_break('\n');
        }
        if self.column < indent {
            self.out.extend(std::iter::repeat_n(' ', indent - self.column));
            self.column = indent;
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn indicator(&mut self, text: &str, space_before: bool, is_space: bool, is_indention: bool) {
        if space_before && !self.whitespace {
            self.put(' ');
        }
        self.run(text);
        self.whitespace = is_space;
        self.indention = self.indention && is_indention;
    }
}

/// Whether a text is one plain word wherever it stands, as most keys and values are. Others may be
/// plain too.
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_'))
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !text.ends_with(':')
        // The longest word that means something is `false`.
        && (text.len() > 5 || !scalar::needs_quotes(text))
}

/// Chooses how a string is written.
fn style(text: &str, context: Context) -> Style {
    let allowed = Allowed::of(text);
    let merge_key = context == Context::SimpleKey && text == "<<";
    if text.contains('\n') {
        if allowed.literal && context != Context::SimpleKey {
            Style::Literal
        } else {
            Style::Double
        }
    } else if merge_key || scalar::needs_quotes(text) {
        Style::Double
    } else if allowed.plain {
        Style::Plain
    } else if allowed.single {
        Style::Single
    } else {
        Style::Double
    }
}

/// The styles that can carry a text.
struct Allowed {
    plain: bool,
    single: bool,
    literal: bool,
}

impl Allowed {
    fn of(text: &str) -> Self {
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut breaks) = (false, false);
        let (mut space_break, mut break_space) = (false, false);
        let mut previous: Option<char> = None;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let before_space = chars.peek().is_none_or(|(_, next)| matches!(next, ' ' | '\t'));
            let after_space =
                previous.is_none_or(|c| matches!(c, ' ' | '\t' | '\0') || is_break(c));
            indicators |= match c {
                '#' => after_space,
                ':' => before_space,
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
                | '@' | '`' => at == 0,
                '?' | '-' => at == 0 && before_space,
                _ => false,
            };
            // The emitter we follow writes these two as they are, which readers of YAML 1.1 and
            // 1.2 take differently.
            special |= !is_printable(c) || matches!(c, '\u{2028}' | '\u{2029}');
            breaks |= is_break(c);
            space_break |= is_break(c) && previous == Some(' ');
            break_space |= c == ' ' && previous.is_some_and(is_break);
            previous = Some(c);
        }
        let edge = |c: Option<char>| c.is_some_and(|c| c == ' ' || is_break(c));
        let edges = edge(text.chars().next()) || edge(previous);
        Self {
            plain: !(indicators || edges || breaks || break_space || special),
            single: !(break_space || space_break || special),
            literal: !(text.is_empty() || space_break || special || text.ends_with(' ')),
        }
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        && c != '\u{feff}'
}
