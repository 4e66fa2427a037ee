//! Selecting objects by regular expressions, labels and annotations.

use regex::Regex;

use crate::acc::Acc;
use crate::error::{Error, Problem, Result, invalid};
use crate::kustomization::Selector;
use crate::openapi::Schemas;
use crate::overlay::PatchTarget;
use crate::resid::split;
use crate::resource::Res;

/// Bytes of a compiled expression; the largest that people write take a few kilobytes.
const REGEX_SIZE: usize = 1 << 20;

/// Compiles an expression with a bound on its size.
pub(crate) fn regex(pattern: &str) -> Result<Regex> {
    regex::RegexBuilder::new(pattern).size_limit(REGEX_SIZE).build().map_err(|error| {
        let why = match error {
            regex::Error::CompiledTooBig(limit) => {
                format!("it takes more than the limit of {limit} bytes when compiled")
            }
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim_start_matches("error: ").to_owned()
            }
        };
        Problem::Regex { pattern: pattern.to_owned(), why }.into()
    })
}

/// Matches whole texts; the empty pattern matches all.
#[derive(Debug)]
enum Whole {
    All,
    /// What means nothing but itself, as most patterns that people write.
    Literal(String),
    Regex(Regex),
}

impl Whole {
    fn new(pattern: &str) -> Result<Self> {
        if pattern.is_empty() {
            return Ok(Self::All);
        }
        if pattern.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Ok(Self::Literal(pattern.to_owned()));
        }
        // Compiled alone first, so that brackets in it cannot close the group around it.
        regex(pattern)?;
        regex(&format!("^(?:{pattern})$")).map(Self::Regex)
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Self::All => true,
            Self::Literal(literal) => literal == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A selector, compiled.
#[derive(Debug)]
pub(crate) struct Matcher {
    group: Whole,
    version: Whole,
    kind: Whole,
    name: Whole,
    namespace: Whole,
    labels: Vec<Requirement>,
    annotations: Vec<Requirement>,
    /// Whether only labels and annotations select.
    pub(crate) no_identity: bool,
}

impl Matcher {
    pub(crate) fn new(selector: &Selector) -> Result<Self> {
        let whole =
            |field: &str, pattern: &str| Whole::new(pattern).map_err(|error| error.part_of(field));
        let marks = |field: &str, text: &str| parse(text).map_err(|error| error.part_of(field));
        Ok(Self {
            group: whole("group", &selector.group)?,
            version: whole("version", &selector.version)?,
            kind: whole("kind", &selector.kind)?,
            name: whole("name", &selector.name)?,
            namespace: whole("namespace", &selector.namespace)?,
            labels: marks("labelSelector", &selector.labels)?,
            annotations: marks("annotationSelector", &selector.annotations)?,
            no_identity: [
                &selector.group,
                &selector.version,
                &selector.kind,
                &selector.name,
                &selector.namespace,
            ]
            .iter()
            .all(|text| text.is_empty()),
        })
    }

    pub(crate) fn fits_gvk(&self, group: &str, version: &str, kind: &str) -> bool {
        self.kind.fits(kind) && self.group.fits(group) && self.version.fits(version)
    }

    /// The objects whose name may fit, now or before.
    pub(crate) fn candidates(&self, acc: &mut Acc) -> Vec<usize> {
        match &self.name {
            Whole::Literal(name) => acc.by_name(name),
            _ => (0..acc.items.len()).collect(),
        }
    }

    pub(crate) fn fits_name(&self, name: &str) -> bool {
        self.name.fits(name)
    }

    pub(crate) fn fits_namespace(&self, namespace: &str) -> bool {
        self.namespace.fits(namespace)
    }

    /// Whether it says anything about labels or annotations.
    pub(crate) fn has_marks(&self) -> bool {
        !self.labels.is_empty() || !self.annotations.is_empty()
    }

    pub(crate) fn fits_marks(&self, res: &Res) -> bool {
        fits(&self.labels, res, "labels") && fits(&self.annotations, res, "annotations")
    }
}

/// A selector of finished objects.
#[derive(Debug)]
pub struct ObjectSelector(Matcher);

impl ObjectSelector {
    /// Compiles a selector; what is empty selects all.
    pub fn new(target: &PatchTarget) -> std::result::Result<Self, Error> {
        Matcher::new(&target.into()).map(Self)
    }

    /// Whether it selects an object.
    pub fn selects(&self, object: &plumb_core::Object) -> bool {
        let Self(matcher) = self;
        let (gvk, metadata) = (object.gvk(), &object.body()["metadata"]);
        let marks = |field: &str| {
            let map = metadata[field].as_object();
            let texts = map.into_iter().flatten().filter_map(|(k, v)| Some((&**k, v.as_str()?)));
            texts.collect::<Vec<_>>()
        };
        matcher.fits_gvk(&gvk.group, &gvk.version, &gvk.kind)
            && matcher.fits_name(object.name())
            && matcher.fits_namespace(object.namespace())
            && fit(&matcher.labels, &marks("labels"))
            && fit(&matcher.annotations, &marks("annotations"))
    }
}

fn fits(requirements: &[Requirement], res: &Res, field: &str) -> bool {
    requirements.is_empty() || fit(requirements, &res.strings(field))
}

fn fit(requirements: &[Requirement], marks: &[(&str, &str)]) -> bool {
    let get = |key: &str| marks.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
    requirements.iter().all(|requirement| requirement.fits(get(&requirement.key)))
}

/// The objects that a selector selects, by what they are and what they were at first.
pub(crate) fn select(acc: &mut Acc, selector: &Selector, schemas: &Schemas) -> Result<Vec<usize>> {
    let matcher = Matcher::new(selector)?;
    let mut found = Vec::new();
    for i in matcher.candidates(acc) {
        let res = &acc.items[i];
        // The cheap questions first; the order does not matter for the answer.
        let (group, version) = split(res.api_version());
        let first = res.previous.first();
        if !matcher.fits_gvk(group, version, res.kind())
            || !(matcher.fits_name(res.name())
                || first.is_some_and(|first| matcher.fits_name(&first.name)))
        {
            continue;
        }
        let (first, now) = (res.original_id(schemas), res.id(schemas));
        if (matcher.fits_namespace(first.effective_namespace())
            || matcher.fits_namespace(now.effective_namespace()))
            && matcher.fits_marks(res)
        {
            found.push(i);
        }
    }
    Ok(found)
}

/// One condition of a label selector.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Exists,
    Absent,
    In,
    NotIn,
    Greater,
    Less,
}

impl Requirement {
    fn fits(&self, value: Option<&str>) -> bool {
        let compare = |greater: bool| {
            let limit = self.values.first().and_then(|value| value.parse::<i64>().ok());
            match (value.and_then(|value| value.parse::<i64>().ok()), limit) {
                (Some(value), Some(limit)) if greater => value > limit,
                (Some(value), Some(limit)) => value < limit,
                _ => false,
            }
        };
        let listed = |value: &str| self.values.iter().any(|known| known == value);
        match self.operator {
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Greater => compare(true),
            Operator::Less => compare(false),
        }
    }
}

/// Conditions of a selector, each of which is asked of each object.
const REQUIREMENTS: usize = 1_000;

/// Reads a label selector as Kubernetes writes it: `a`, `!a`, `a=b`, `a in (b,c)`.
pub(crate) fn parse(text: &str) -> Result<Vec<Requirement>> {
    let tokens = tokens(text);
    let mut at = 0;
    let mut found = Vec::new();
    if text.matches(',').count() >= REQUIREMENTS {
        let what = "conditions in a selector";
        return Err(Problem::TooMuch { what, limit: REQUIREMENTS as u64 }.into());
    }
    let bad = || {
        invalid!("{text:?} is no selector").hinting(
            "it is like `a`, `!a`, `a=b`, `a!=b`, `a in (b,c)`, several with commas between",
        )
    };
    let mut next = || {
        at += 1;
        tokens.get(at - 1).map(String::as_str)
    };
    let mut token = next();
    if token.is_none() {
        return Ok(found);
    }
    loop {
        let word = |token: Option<&str>| match token {
            Some(word) if is_word(word) => Ok(word.to_owned()),
            _ => Err(bad()),
        };
        let (key, absent) = match token {
            Some("!") => (word(next())?, true),
            token => (word(token)?, false),
        };
        token = next();
        let mut requirement = Requirement { key, operator: Operator::Exists, values: Vec::new() };
        match token {
            None | Some(",") => {
                if absent {
                    requirement.operator = Operator::Absent;
                }
            }
            Some(_) if absent => return Err(bad()),
            Some(operator) => {
                let many = matches!(operator, "in" | "notin");
                requirement.operator = match operator {
                    "=" | "==" | "in" => Operator::In,
                    "!=" | "notin" => Operator::NotIn,
                    ">" => Operator::Greater,
                    "<" => Operator::Less,
                    _ => return Err(bad()),
                };
                token = next();
                if many {
                    if token != Some("(") {
                        return Err(bad());
                    }
                    let mut value = String::new();
                    loop {
                        match next() {
                            Some(end @ ("," | ")")) => {
                                requirement.values.push(std::mem::take(&mut value));
                                if end == ")" {
                                    break;
                                }
                            }
                            Some(word) if is_word(word) && value.is_empty() => {
                                word.clone_into(&mut value);
                            }
                            _ => return Err(bad()),
                        }
                    }
                    token = next();
                } else {
                    match token {
                        None | Some(",") => requirement.values.push(String::new()),
                        Some(value) if is_word(value) => {
                            requirement.values.push(value.to_owned());
                            token = next();
                        }
                        Some(_) => return Err(bad()),
                    }
                }
            }
        }
        found.push(requirement);
        match token {
            None => return Ok(found),
            Some(",") => token = next(),
            Some(_) => return Err(bad()),
        }
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphanumeric())
        && token.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        let mut token = String::from(c);
        if matches!(c, '=' | '!' | '>' | '<') {
            while let Some(next) = chars.next_if(|c| matches!(c, '=' | '!' | '>' | '<')) {
                token.push(next);
            }
        } else if !matches!(c, '(' | ')' | ',') {
            while let Some(next) = chars.next_if(|c| {
                !c.is_whitespace() && !matches!(c, '=' | '!' | '>' | '<' | '(' | ')' | ',')
            }) {
                token.push(next);
            }
        }
        tokens.push(token);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors() {
        let cases = [
            ("a", Some("1"), true),
            ("a", None, false),
            ("!a", None, true),
            ("a=b", Some("b"), true),
            ("a==b", Some("c"), false),
            ("a!=b", None, true),
            ("a in (b, c)", Some("c"), true),
            ("a notin (b,c)", Some("c"), false),
            ("a>3", Some("4"), true),
            ("", None, true),
        ];
        for (text, value, want) in cases {
            let all = parse(text).unwrap();
            assert_eq!(all.iter().all(|r| r.fits(value)), want, "{text}");
        }
        for text in ["a b", "a in b", "a=b=c", ",", "a,", "(a)", "@"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
