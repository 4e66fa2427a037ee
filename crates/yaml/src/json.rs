//! Reads JSON, which is not quite a part of YAML: escapes such as `\ud83d\ude00`, a tab as white
//! space, a colon on the next line.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value};

use crate::compose::{Composer, Mark, Scalar, Stop, Tag};
use crate::error::Problem;
use crate::node::Style;

/// Whether a text is to be tried as JSON first.
pub(crate) fn looks_like_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

/// Where and why a text is no run of JSON values.
pub(crate) fn validate(text: &str) -> Result<(), (Mark, String)> {
    for value in Deserializer::from_str(text).into_iter::<IgnoredAny>() {
        value.map_err(|error| {
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).max(1);
            let mark = Mark { line: number(error.line()), column: number(error.column()) };
            // serde_json appends the place, which stands before the message here.
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or(&message);
            (mark, message.to_owned())
        })?;
    }
    Ok(())
}

/// Walks a text that [`validate`] accepted, one value at a time.
pub(crate) struct Walker<'t> {
    rest: &'t str,
    mark: Mark,
}

impl<'t> Walker<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { rest: text, mark: Mark { line: 1, column: 1 } }
    }

    /// Feeds the next value; `None` at the end of the text.
    pub(crate) fn value(&mut self, composer: &mut Composer<'_, 't>) -> Option<Result<(), Stop>> {
        let mut open = 0usize;
        loop {
            self.skip(|c| c.is_ascii_whitespace() || matches!(c, ',' | ':'));
            let mark = self.mark;
            let step = match self.rest.as_bytes().first()? {
                b'{' => {
                    open += 1;
                    self.advance(1);
                    composer.open_map(None, mark)
                }
                b'[' => {
                    open += 1;
                    self.advance(1);
                    composer.open_list(None, mark)
                }
                b'}' | b']' => {
                    open = open.saturating_sub(1);
                    self.advance(1);
                    composer.close()
                }
                b'"' => self.string(composer, mark),
                _ => {
                    let end = self
                        .rest
                        .find(|c: char| {
                            c.is_ascii_whitespace() || matches!(c, ',' | ':' | ']' | '}')
                        })
                        .unwrap_or(self.rest.len());
                    let text = self.advance(end.max(1));
                    scalar(composer, text.into(), true, mark)
                }
            };
            if step.is_err() {
                // Budgets are spent: what follows is not looked at.
                self.rest = "";
                return Some(step);
            }
            if open == 0 {
                return Some(Ok(()));
            }
        }
    }

    fn string(&mut self, composer: &mut Composer<'_, 't>, mark: Mark) -> Result<(), Stop> {
        let bytes = self.rest.as_bytes();
        let mut end = 1;
        while end < bytes.len() && bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let quoted = self.advance((end + 1).min(self.rest.len()));
        if let Ok(Value::String(text)) = serde_json::from_str(quoted) {
            return scalar(composer, text.into(), false, mark);
        }
        let problem = Problem::Json("a string has half of a surrogate pair".into());
        composer.problem(mark, problem);
        scalar(composer, "".into(), false, mark)
    }

    fn skip(&mut self, gap: impl Fn(char) -> bool) {
        let end = self.rest.find(|c| !gap(c)).unwrap_or(self.rest.len());
        self.advance(end);
    }

    /// Takes bytes off the front; columns count characters.
    fn advance(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        for c in taken.chars() {
            if c == '\n' {
                self.mark.line = self.mark.line.saturating_add(1);
                self.mark.column = 1;
            } else {
                self.mark.column = self.mark.column.saturating_add(1);
            }
        }
        self.rest = rest;
        taken
    }
}

fn scalar<'t>(
    composer: &mut Composer<'_, 't>,
    text: Cow<'t, str>,
    plain: bool,
    mark: Mark,
) -> Result<(), Stop> {
    let style = Style::quoted(!plain);
    composer.scalar(Scalar { text, style, tag: Tag::None }, None, mark)
}
