//! Why a directory cannot be built.

use std::fmt;

use plumb_core::{ErrorClass, Place, RelPath, TreeError};

use crate::resource::Res;

/// Why a directory cannot be built: what is wrong, where, and the kustomizations that led there.
///
/// It never quotes a value of an object: the object may be a Secret.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    place: Option<Place>,
    field: Option<String>,
    object: Option<String>,
    chain: Vec<RelPath>,
    hint: Option<String>,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A field that nothing knows.
    #[error("unknown field {field:?}")]
    UnknownField {
        /// The field as written, with what it is in.
        field: String,
        /// The known field that is spelled most like it.
        nearest: Option<&'static str>,
    },
    /// A field of the wrong type.
    #[error("{field} must be {wanted}, not {found}")]
    WrongType {
        /// The field.
        field: String,
        /// The type, with its article.
        wanted: &'static str,
        /// What is there, with its article.
        found: &'static str,
    },
    /// Something that would run a process or use the network.
    #[error("{what} is not supported")]
    Refused {
        /// What was asked for.
        what: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// More than a build may take.
    #[error("the build has more than {limit} {what}")]
    TooMuch {
        /// What there is too much of, in plural.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// More bytes than a build may read.
    #[error("{path} has {size} bytes, with which the build reads more than {limit}")]
    TooLarge {
        /// The file that was too much.
        path: RelPath,
        /// Its size.
        size: u64,
        /// The limit for all files together.
        limit: u64,
    },
    /// A directory without a kustomization.
    #[error("{dir} has no kustomization.yaml, kustomization.yml or Kustomization")]
    NoKustomization {
        /// The directory.
        dir: RelPath,
    },
    /// A directory with several kustomizations.
    #[error("{dir} has more than one kustomization: {}", files.join(", "))]
    ManyKustomizations {
        /// The directory.
        dir: RelPath,
        /// The files.
        files: Vec<String>,
    },
    /// A directory that includes itself.
    #[error("{}", cycle(dir, by))]
    Cycle {
        /// The directory that is included.
        dir: RelPath,
        /// The directory whose kustomization includes it.
        by: RelPath,
    },
    /// A file outside the directory that uses it.
    #[error("file {file} is not in or below {root}")]
    Outside {
        /// The file, symbolic links followed.
        file: RelPath,
        /// The directory of the kustomization.
        root: RelPath,
    },
    /// Two objects with the same identity.
    #[error("{id} is already defined{}", at(first.as_ref()))]
    Duplicate {
        /// The object.
        id: String,
        /// Where the other one is.
        first: Option<Place>,
    },
    /// A file that is no YAML.
    #[error("{0}")]
    Yaml(plumb_yaml::Problem),
    /// A file or directory that cannot be used.
    #[error(transparent)]
    Tree(TreeError),
    /// A file that was named, and what became of reading it.
    #[error("{}", load(path, source))]
    Load {
        /// The path as written.
        path: String,
        /// Why.
        source: Box<Problem>,
    },
    /// A regular expression that is none.
    #[error("{pattern:?} is no regular expression: {why}")]
    Regex {
        /// The text.
        pattern: String,
        /// Why, in one line.
        why: String,
    },
    /// Anything else a kustomization or an object can have wrong.
    #[error("{0}")]
    Invalid(String),
    /// The caller asked to stop.
    #[error("the build was interrupted")]
    Interrupted,
}

/// Characters of a message; what is longer was written by nobody.
const LENGTH: usize = 1000;
/// Kustomizations that are named on the way to a problem.
const WAY: usize = 8;

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LENGTH) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn cycle(dir: &RelPath, by: &RelPath) -> String {
    if dir == by {
        format!("{dir} is included while it is built itself")
    } else {
        format!("{dir} is included by {by}, which is inside of it")
    }
}

/// Says the path as it is written only where the rest does not.
fn load(path: &str, source: &Problem) -> String {
    let source = source.to_string();
    if source.contains(path) { source } else { format!("cannot load {path:?}: {source}") }
}

fn at(place: Option<&Place>) -> String {
    place.map(|place| format!(" at {place}")).unwrap_or_default()
}

impl Error {
    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// Where it is, if that is known to the line.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// The field of the overlay that it comes from, `spec.patches[1]`.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The object it is about.
    pub fn object(&self) -> Option<&str> {
        self.0.object.as_deref()
    }

    /// The kustomization files from the one that was built to the one that failed.
    pub fn chain(&self) -> impl Iterator<Item = &RelPath> {
        self.0.chain.iter().rev()
    }

    /// Whether the message tells what it is about when there is no place to tell it.
    pub fn names_its_subject(&self) -> bool {
        self.0.field.is_some() || self.0.chain.is_empty()
    }

    /// What is wrong with what, and the way there, but not the place.
    pub fn message(&self) -> String {
        let Inner { problem, field, object, chain, .. } = &*self.0;
        let mut parts: Vec<String> = [field, object].into_iter().flatten().cloned().collect();
        parts.push(problem.to_string());
        let mut text = shortened(parts.join(": "));
        // The innermost file is named by the place in most cases; the way there helps where one
        // base is used by several overlays.
        if chain.len() > 1 {
            let mut way: Vec<_> = chain.iter().rev().map(RelPath::to_string).collect();
            if way.len() > WAY {
                let left_out = way.len() - WAY;
                way.splice(WAY / 2..WAY / 2 + left_out, [format!("{left_out} more")]);
            }
            text = format!("{text} (by way of {})", way.join(" > "));
        }
        text
    }

    /// What is wrong, without the paths that were to be loaded.
    pub fn cause(&self) -> &Problem {
        let mut problem = &self.0.problem;
        while let Problem::Load { source, .. } = problem {
            problem = source;
        }
        problem
    }

    /// Takes out the error of the store behind the tree, if it is one.
    pub fn into_store_error(self) -> Result<TreeError, Self> {
        match *self.0 {
            Inner { problem: Problem::Tree(error @ TreeError::Read { .. }), .. } => Ok(error),
            inner => Err(Self(Box::new(inner))),
        }
    }

    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<String> {
        if self.0.hint.is_some() {
            return self.0.hint.clone();
        }
        let text = match self.cause() {
            Problem::UnknownField { nearest: Some(nearest), .. } => {
                format!("did you mean {nearest:?}?")
            }
            Problem::Refused { instead, .. } => (*instead).into(),
            Problem::NoKustomization { .. } => {
                "add a kustomization.yaml that lists what to build".into()
            }
            Problem::TooMuch { .. } | Problem::TooLarge { .. } => {
                "split what is built, or leave files out of it".into()
            }
            Problem::ManyKustomizations { .. } => "keep one of them".into(),
            Problem::Cycle { .. } => {
                "move what both need into a directory of its own, and list that".into()
            }
            Problem::Outside { .. } => {
                "move the file, include its directory as a base with a kustomization, or lift the \
                 restriction with LoadRestrictionsNone"
                    .into()
            }
            Problem::Duplicate { .. } => "remove one of the two, or patch the first".into(),
            Problem::Yaml(problem) => return problem.hint(),
            Problem::Tree(TreeError::Sealed { hint, .. }) => return hint.clone(),
            Problem::WrongType { wanted: "a string", found: "a number" | "a boolean", .. } => {
                "put quotes around the value".into()
            }
            _ => return None,
        };
        Some(text)
    }

    /// What it asks of its reader.
    pub fn class(&self) -> ErrorClass {
        match self.0.problem {
            Problem::Tree(TreeError::Read { .. }) | Problem::Interrupted => ErrorClass::Retry,
            _ => ErrorClass::WaitForUser,
        }
    }

    /// Says where it is, unless something closer to it already did.
    pub(crate) fn at(mut self, place: &Place) -> Self {
        self.0.place.get_or_insert_with(|| place.clone());
        self
    }

    /// Takes the place off if it is in a file that does not show it.
    pub(crate) fn not_at(mut self, file: &RelPath) -> Self {
        self.0.place = self.0.place.take().filter(|place| *place.file != *file);
        self
    }

    /// Says which field of the overlay it comes from.
    pub(crate) fn in_field(mut self, field: String) -> Self {
        self.0.field = Some(field);
        self
    }

    /// Says what to do about it, unless something closer to it already did.
    pub(crate) fn hinting(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Says what it is that this is wrong with. Limits are not of what passed them.
    pub(crate) fn part_of(mut self, whole: &str) -> Self {
        if !self.is_limit() {
            self.0.problem = Problem::Invalid(format!("{whole}: {}", self.0.problem));
        }
        self
    }

    /// Whether it is about the build as a whole.
    pub(crate) fn is_limit(&self) -> bool {
        matches!(
            self.0.problem,
            Problem::TooMuch { .. } | Problem::TooLarge { .. } | Problem::Interrupted
        )
    }

    /// Takes the place for one inside a text of the file: its lines count from there.
    pub(crate) fn in_text(mut self) -> Self {
        if let Some(place) = self.0.place.take().filter(|place| place.line > 1) {
            self.0.problem =
                Problem::Invalid(format!("{} (line {} of it)", self.0.problem, place.line));
        }
        self
    }

    /// Says which object it is about and where that is. What passed a limit is the step.
    pub(crate) fn of_object(self, res: &Res) -> Self {
        let limit = self.is_limit();
        let error = self.on(|| res.label());
        if limit { error } else { error.at(&res.place) }
    }

    /// Says which object it is about, unless something closer to it already did.
    pub(crate) fn on(mut self, object: impl FnOnce() -> String) -> Self {
        self.0.object.get_or_insert_with(object);
        self
    }

    /// Adds the kustomization that led here.
    pub(crate) fn within(mut self, file: &RelPath) -> Self {
        self.0.chain.push(file.clone());
        self
    }

    /// Says which path, as written, was to be loaded.
    pub(crate) fn loading(mut self, path: &str) -> Self {
        if self.0.place.is_none() && !matches!(self.0.problem, Problem::Interrupted) {
            let problem = std::mem::replace(&mut self.0.problem, Problem::Interrupted);
            self.0.problem = match problem {
                // An address may carry a password, and the message names it without.
                problem @ (Problem::Load { .. }
                | Problem::Refused { .. }
                | Problem::Tree(TreeError::Read { .. })) => problem,
                source => Problem::Load { path: path.to_owned(), source: Box::new(source) },
            };
        }
        self
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(Box::new(Inner {
            problem,
            place: None,
            field: None,
            object: None,
            chain: Vec::new(),
            hint: None,
        }))
    }
}

impl From<TreeError> for Error {
    fn from(error: TreeError) -> Self {
        Problem::Tree(error).into()
    }
}

impl<V> From<plumb_yaml::YamlErrors<V>> for Error {
    fn from(errors: plumb_yaml::YamlErrors<V>) -> Self {
        match errors.problems.into_iter().next() {
            Some(first) => Self::from(Problem::Yaml(first.problem)).at(&first.place),
            None => Problem::Invalid("the file cannot be read".into()).into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { place, field, chain, .. } = &*self.0;
        if let Some(place) = place {
            write!(f, "{place}: ")?;
        } else if let Some(file) = chain.first().filter(|_| field.is_none()) {
            write!(f, "{file}: ")?;
        }
        f.write_str(&self.message())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.problem {
            Problem::Tree(error) => std::error::Error::source(error),
            _ => None,
        }
    }
}

/// What most functions of this crate return.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with a message of its own.
macro_rules! invalid {
    ($($arg:tt)*) => {
        $crate::error::Error::from($crate::error::Problem::Invalid(format!($($arg)*)))
    };
}
pub(crate) use invalid;
