//! Variables in texts, with the grammar that Flux gives them: `${name}`, defaults, and what shells
//! do to values (<https://fluxcd.io/flux/components/kustomize/kustomizations/#post-build-variable-substitution>).
//!
//! Some of it is not as in shells, and is kept, since the same manifests are to give the same
//! objects: every form of default takes an empty value for a missing one, `:+` and `:?` among them;
//! `$$` is one `$`, whatever follows; lengths and positions count bytes.

use std::collections::BTreeMap;
use std::fmt;

/// How deep variables may stand in the defaults of others. Parsing recurses.
const MAX_DEPTH: usize = 50;
/// The largest work of one pattern: its length by that of the value. A value may be a megabyte.
const MAX_PATTERN_WORK: usize = 100_000_000;

impl Why {
    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::NoValue { name } => format!(
                "give {name} a value in postBuild, write ${{{name}:=default}}, or $${{{name}}} for \
                 what is no variable of ours"
            ),
            Self::NoName | Self::NoOperator { .. } | Self::Incomplete { .. } => {
                "write $${ for what is no variable of ours, or mark the object \
                 plumb.dev/substitute: disabled"
                    .into()
            }
            Self::TooDeep | Self::TooLarge { .. } => "make it simpler".into(),
            Self::BadCut { .. } => "positions and lengths count bytes".into(),
        }
    }
}

/// A value, and whether it may be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Variable {
    /// The value.
    pub text: String,
    /// Whether it is from a Secret.
    pub secret: bool,
}

impl Variable {
    /// A value. Ends of lines are taken out of it, as Flux does.
    pub fn new(text: &str, secret: bool) -> Self {
        Self { text: text.replace('\n', ""), secret }
    }

    /// Whether expressions can name a variable so.
    pub fn is_name(name: &str) -> bool {
        let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        name.bytes().next().is_some_and(first)
            && name.bytes().all(|byte| first(byte) || byte.is_ascii_digit())
    }
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secret { "***" } else { &self.text })
    }
}

/// Puts values into texts.
#[derive(Debug)]
pub(crate) struct Expander<'v> {
    values: &'v BTreeMap<String, Variable>,
    /// Whether it is an error when something has no value and no default; else it is empty.
    strict: bool,
    used_secret: bool,
}

/// What is wrong in a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Where the expression begins, in bytes.
    pub(crate) at: usize,
    /// What is wrong.
    pub(crate) why: Why,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// There is no value, and the expression has no default.
    #[error("${{{name}}} has no value, and no default")]
    NoValue {
        /// The variable.
        name: String,
    },
    /// No name follows `${`.
    #[error("no name of a variable follows ${{")]
    NoName,
    /// Something else than an operator or the end follows the name.
    #[error("after ${{{name} comes `{found}` and neither }} nor one of : = , ^ / # %")]
    NoOperator {
        /// The variable.
        name: String,
        /// What comes.
        found: String,
    },
    /// It ends too early, or goes on after its end.
    #[error("${{{name}{operator}… is not complete")]
    Incomplete {
        /// The variable.
        name: String,
        /// What is done with it.
        operator: String,
    },
    /// Defaults in defaults in defaults.
    #[error("variables stand in each other more than {MAX_DEPTH} deep")]
    TooDeep,
    /// A cut that leaves nothing valid.
    #[error("${{{name}:…}} cuts a character in two")]
    BadCut {
        /// The variable.
        name: String,
    },
    /// A pattern that takes too long.
    #[error("the pattern of ${{{name}…}} is too large for the value")]
    TooLarge {
        /// The variable.
        name: String,
    },
}

impl<'v> Expander<'v> {
    pub(crate) fn new(values: &'v BTreeMap<String, Variable>, strict: bool) -> Self {
        Self { values, strict, used_secret: false }
    }

    /// Whether any value that was put anywhere is from a Secret.
    pub(crate) fn used_secret(&self) -> bool {
        self.used_secret
    }

    /// A text with values in it.
    pub(crate) fn expand(&mut self, text: &str) -> Result<String, Wrong> {
        let mut out = String::with_capacity(text.len());
        let mut parser = Parser { rest: text, depth: 0 };
        while let Some(at) = parser.rest.find('$') {
            out.push_str(parser.take(at));
            if parser.eat("${") {
                let begins = text.len() - parser.rest.len() - 2;
                let wrong = |why| Wrong { at: begins, why };
                let expression = parser.expression().map_err(wrong)?;
                self.put(&expression, &mut out).map_err(wrong)?;
            } else {
                let _ = parser.eat("$$") || parser.eat("$");
                out.push('$');
            }
        }
        out.push_str(parser.rest);
        Ok(out)
    }

    fn part(&mut self, part: &Part) -> Result<String, Why> {
        match part {
            Part::Text(text) => Ok(text.clone()),
            Part::Variable(expression) => {
                let mut out = String::new();
                self.put(expression, &mut out)?;
                Ok(out)
            }
        }
    }

    /// Puts what an expression gives.
    fn put(&mut self, expression: &Expression, out: &mut String) -> Result<(), Why> {
        let given: Vec<String> =
            expression.arguments.iter().map(|part| self.part(part)).collect::<Result<_, _>>()?;
        let has_default = matches!(&*expression.operator, "=" | ":=" | ":-" | ":+" | ":?");
        let value = self.values.get(&expression.name);
        if value.is_none() && self.strict && !has_default {
            return Err(Why::NoValue { name: expression.name.clone() });
        }
        self.used_secret |= value.is_some_and(|value| value.secret);
        let value = value.map(|value| value.text.as_str()).unwrap_or_default();
        if has_default && value.is_empty() {
            out.extend(given);
            return Ok(());
        }
        expression.transform(value, &given, out)
    }
}

#[derive(Debug)]
enum Part {
    Text(String),
    Variable(Expression),
}

/// One `${…}`: a name, an operator and what it is given.
#[derive(Debug)]
struct Expression {
    name: String,
    operator: String,
    arguments: Vec<Part>,
}

/// Reads the inside of `${…}`.
struct Parser<'t> {
    rest: &'t str,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn take(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn eat(&mut self, what: &str) -> bool {
        let rest = self.rest.strip_prefix(what);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn name(&mut self) -> &'t str {
        let is_part = |letter: char| letter.is_alphabetic() || letter.is_numeric() || letter == '_';
        let end = self.rest.find(|letter| !is_part(letter)).unwrap_or(self.rest.len());
        self.take(end)
    }

    /// Characters of an operator, as many as there are of these.
    fn operator(&mut self, of: &[char], most: usize) -> String {
        let letters = self.rest.chars().take(most).take_while(|letter| of.contains(letter));
        let length = letters.map(char::len_utf8).sum();
        self.take(length).to_owned()
    }

    fn expression(&mut self) -> Result<Expression, Why> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Why::TooDeep);
        }
        let expression = self.inside()?;
        self.depth -= 1;
        Ok(expression)
    }

    fn inside(&mut self) -> Result<Expression, Why> {
        if self.eat("#") {
            let name = self.name().to_owned();
            if name.is_empty() {
                return Err(Why::NoName);
            }
            return self.ended(Expression { name, operator: "#".into(), arguments: Vec::new() });
        }
        let name = self.name().to_owned();
        if name.is_empty() {
            return Err(Why::NoName);
        }
        let mut second = self.rest.chars();
        let (first, second) = (second.next(), second.next());
        let mut made = Expression { name, operator: String::new(), arguments: Vec::new() };
        match first {
            Some('}') => {}
            Some('=') => {
                made.operator = self.take(1).into();
                return self.default(made);
            }
            Some(':') if matches!(second, Some('=' | '-' | '?' | '+')) => {
                made.operator = self.take(2).into();
                return self.default(made);
            }
            Some(':') => {
                made.operator = self.take(1).into();
                let position = self.argument(&made, |letter| matches!(letter, ':' | '}'), false)?;
                made.arguments.push(position);
                if self.eat(":") {
                    while self.eat(":") {}
                    let length = self.argument(&made, |letter| letter == '}', false)?;
                    made.arguments.push(length);
                }
            }
            Some(',' | '^') => made.operator = self.operator(&[',', '^'], 2),
            Some('#') => {
                made.operator = self.operator(&['#'], 2);
                let pattern = self.argument(&made, |letter| letter == '}', false)?;
                made.arguments.push(pattern);
            }
            Some('%') => {
                made.operator = self.operator(&['%'], 2);
                let pattern = self.argument(&made, |letter| letter == '}', false)?;
                made.arguments.push(pattern);
            }
            Some('/') => {
                made.operator = self.take(1).to_owned() + &self.operator(&['/', '#', '%'], 1);
                let what = self.argument(&made, |letter| letter == '/', true)?;
                made.arguments.push(what);
                if !self.eat("/") {
                    return Err(incomplete(&made));
                }
                while self.eat("/") {}
                if !self.rest.starts_with('}') {
                    let by = self.argument(&made, |letter| letter == '}', true)?;
                    made.arguments.push(by);
                }
            }
            Some(found) => {
                return Err(Why::NoOperator { name: made.name, found: found.to_string() });
            }
            None => return Err(incomplete(&made)),
        }
        self.ended(made)
    }

    fn ended(&mut self, made: Expression) -> Result<Expression, Why> {
        if self.eat("}") { Ok(made) } else { Err(incomplete(&made)) }
    }

    /// A default is made of as many parts as there are.
    fn default(&mut self, mut made: Expression) -> Result<Expression, Why> {
        while !self.eat("}") {
            let part = self.argument(&made, |letter| letter == '}', false)?;
            made.arguments.push(part);
        }
        Ok(made)
    }

    /// A variable, or text up to one or to its end; never nothing.
    fn argument(
        &mut self,
        made: &Expression,
        ends: impl Fn(char) -> bool,
        escapes: bool,
    ) -> Result<Part, Why> {
        if self.eat("${") {
            return self.expression().map(Part::Variable);
        }
        let mut text = String::new();
        let begins = self.rest.len();
        while let Some(letter) = self.rest.chars().next() {
            if self.rest.starts_with("${") {
                break;
            }
            let escaped =
                escapes && ["$$", r"\/", r"\\"].iter().any(|two| self.rest.starts_with(two));
            if escaped {
                self.take(1);
                text.push_str(self.take(1));
            } else if ends(letter) {
                break;
            } else {
                text.push_str(self.take(letter.len_utf8()));
            }
        }
        if self.rest.len() == begins { Err(incomplete(made)) } else { Ok(Part::Text(text)) }
    }
}

fn incomplete(made: &Expression) -> Why {
    Why::Incomplete { name: made.name.clone(), operator: made.operator.clone() }
}

impl Expression {
    /// Does with a value what the operator says.
    fn transform(&self, value: &str, given: &[String], out: &mut String) -> Result<(), Why> {
        let operator = &*self.operator;
        let argument = |at: usize| given.get(at).map(String::as_str).unwrap_or_default();
        let too_large = || Why::TooLarge { name: self.name.clone() };
        match operator {
            "^" => first_as(value, upper, out),
            "^^" => out.extend(value.chars().map(upper)),
            "," => first_as(value, lower, out),
            ",," => out.extend(value.chars().map(lower)),
            "#" if given.is_empty() => out.push_str(&value.len().to_string()),
            "#" | "##" => {
                let glob = Glob::read(argument(0));
                let cut = cut(value, glob.as_ref(), operator == "##").ok_or_else(too_large)?;
                out.push_str(&value[cut..]);
            }
            "%" | "%%" => {
                // Ends are beginnings of what is turned round, and so are patterns.
                let turned: String = value.chars().rev().collect();
                let glob = Glob::read(&argument(0).chars().rev().collect::<String>());
                let cut = cut(&turned, glob.as_ref(), operator == "%%").ok_or_else(too_large)?;
                out.push_str(&value[..value.len() - cut]);
            }
            "/" => out.push_str(&value.replacen(argument(0), argument(1), 1)),
            "//" => out.push_str(&value.replace(argument(0), argument(1))),
            "/#" if given.len() == 2 && value.starts_with(argument(0)) => {
                out.push_str(&value.replacen(argument(0), argument(1), 1));
            }
            "/%" if given.len() == 2 && value.ends_with(argument(0)) => {
                out.push_str(&value[..value.len() - argument(0).len()]);
                out.push_str(argument(1));
            }
            ":" => out.push_str(self.substring(value, given)?),
            // No operator, a default for other values, and `^,` and the like do nothing.
            _ => out.push_str(value),
        }
        Ok(())
    }

    /// What stands at a position; all of it where that is no number.
    fn substring<'v>(&self, value: &'v str, given: &[String]) -> Result<&'v str, Why> {
        let number = |at: usize| given.get(at).map(|text| text.parse::<i64>());
        let size = i64::try_from(value.len()).unwrap_or(i64::MAX);
        let Some(Ok(mut begin)) = number(0) else { return Ok(value) };
        if begin < 0 {
            begin = (size + begin).max(0);
        }
        let end = match number(1) {
            None => size,
            // What is left off the end.
            Some(Ok(length)) if length < 0 => size.saturating_add(length),
            Some(Ok(length)) => begin.saturating_add(length).min(size),
            Some(Err(_)) => return Ok(value),
        };
        if end <= begin || begin >= size {
            return Ok("");
        }
        let index = |at: i64| usize::try_from(at).unwrap_or_default();
        let cut = value.get(index(begin)..index(end));
        cut.ok_or_else(|| Why::BadCut { name: self.name.clone() })
    }
}

/// The upper case of a letter that has one of a single letter.
fn upper(letter: char) -> char {
    single(letter, letter.to_uppercase())
}

fn lower(letter: char) -> char {
    single(letter, letter.to_lowercase())
}

fn single(letter: char, mut other: impl Iterator<Item = char>) -> char {
    match (other.next(), other.next()) {
        (Some(one), None) => one,
        _ => letter,
    }
}

fn first_as(value: &str, how: fn(char) -> char, out: &mut String) {
    let mut letters = value.chars();
    out.extend(letters.next().map(how));
    out.push_str(letters.as_str());
}

/// The length of the beginning that a pattern matches: the longest, or the shortest that is
/// something. Zero when it matches none, or is no pattern; nothing when it is too much work.
fn cut(value: &str, glob: Option<&Glob>, longest: bool) -> Option<usize> {
    let Some(glob) = glob else { return Some(0) };
    if value.len().saturating_mul(glob.terms.len()) > MAX_PATTERN_WORK {
        return None;
    }
    let mut found = 0;
    let mut here = glob.begin();
    for (at, letter) in value.char_indices() {
        here = glob.step(&here, letter);
        if here.iter().all(|possible| !possible) {
            break;
        }
        if here[glob.terms.len()] {
            found = at + letter.len_utf8();
            if !longest {
                break;
            }
        }
    }
    Some(found)
}

/// A pattern of shells: `*`, `?`, `[a-z]`, `[^a-z]` and `\` before what stands for itself.
#[derive(Debug)]
struct Glob {
    terms: Vec<Term>,
}

#[derive(Debug)]
enum Term {
    Any,
    One,
    Letter(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Reads a pattern; nothing when it is none.
    fn read(text: &str) -> Option<Self> {
        let mut terms = Vec::new();
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            terms.push(match letter {
                '*' => Term::Any,
                '?' => Term::One,
                '\\' => Term::Letter(letters.next()?),
                '[' => {
                    let negated = letters.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    while ranges.is_empty() || letters.next_if_eq(&']').is_none() {
                        let mut one = || match letters.next()? {
                            '-' | ']' => None,
                            '\\' => letters.next(),
                            letter => Some(letter),
                        };
                        let from = one()?;
                        let to = if letters.next_if_eq(&'-').is_some() {
                            match letters.next()? {
                                '-' | ']' => return None,
                                '\\' => letters.next()?,
                                letter => letter,
                            }
                        } else {
                            from
                        };
                        ranges.push((from, to));
                        letters.peek()?;
                    }
                    Term::Class { negated, ranges }
                }
                letter => Term::Letter(letter),
            });
        }
        Some(Self { terms })
    }

    /// Which terms may come next before any letter.
    fn begin(&self) -> Vec<bool> {
        let mut here = vec![false; self.terms.len() + 1];
        here[0] = true;
        self.skip(&mut here);
        here
    }

    /// Stars may stand for nothing.
    fn skip(&self, here: &mut [bool]) {
        for at in 0..self.terms.len() {
            if here[at] && matches!(self.terms[at], Term::Any) {
                here[at + 1] = true;
            }
        }
    }

    fn step(&self, here: &[bool], letter: char) -> Vec<bool> {
        let mut next = vec![false; here.len()];
        for (at, term) in self.terms.iter().enumerate().filter(|(at, _)| here[*at]) {
            match term {
                Term::Any => next[at] = true,
                Term::One => next[at + 1] = true,
                Term::Letter(is) => next[at + 1] |= *is == letter,
                Term::Class { negated, ranges } => {
                    let within = ranges.iter().any(|(from, to)| (*from..=*to).contains(&letter));
                    next[at + 1] |= within != *negated;
                }
            }
        }
        self.skip(&mut next);
        next
    }
}

#[cfg(test)]
#[path = "tests/envsubst.rs"]
mod tests;
