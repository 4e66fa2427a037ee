//! Why a path cannot be rendered.

use std::fmt;
use std::sync::Arc;

use plumb_core::{ErrorClass, FieldPath, Inputs, ObjectKey, Place, RelPath, TreeError};

/// Problems kept; more are only counted. Together they fit a status condition.
const KEPT_PROBLEMS: usize = 50;

/// A render that gave no objects, with what it read until then: while none of that changes, the
/// next render fails the same way.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: RenderError,
    /// What was read.
    pub inputs: Inputs,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Why a path cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The path is not in the tree.
    #[error("path {path} does not exist in the repository")]
    NoSuchPath {
        /// The path.
        path: RelPath,
        /// The longest part of it that exists.
        nearest: RelPath,
    },
    /// An ignore rule excludes the very path that is to be rendered.
    #[error("path {path} is excluded by the pattern `{pattern}` of {origin}")]
    Excluded {
        /// The path.
        path: RelPath,
        /// The pattern as written.
        pattern: String,
        /// What holds the pattern: a file, `spec.ignore` or the built-in patterns.
        origin: String,
    },
    /// The path leads into a Git submodule, whose content is another repository.
    #[error("path {path} leads into the Git submodule {submodule}")]
    Submodule {
        /// The path.
        path: RelPath,
        /// The submodule.
        submodule: RelPath,
    },
    /// A symbolic link on the way to the path leads outside the tree or in a circle.
    #[error("cannot follow the path {path}")]
    Link {
        /// The path.
        path: RelPath,
        /// Which link, and why.
        source: TreeError,
    },
    /// The path is a kustomization, not its directory.
    #[error("path {file} is a kustomization; what is built is its directory")]
    KustomizationFile {
        /// The kustomization.
        file: RelPath,
    },
    /// The path is a Helm chart.
    #[error("{file} makes {} a Helm chart, which cannot be rendered", dir(.file))]
    Helm {
        /// The chart's `Chart.yaml`.
        file: RelPath,
    },
    /// The path holds more than a render may take.
    #[error("{path} has more than {limit} {what}")]
    TooMuch {
        /// The path.
        path: RelPath,
        /// What there is too much of, in plural.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Files are wrong. The text names each with its line, one a line.
    #[error("{}", list(.problems, *.omitted))]
    Invalid {
        /// The problems in the order of the files; never empty.
        problems: Vec<Problem>,
        /// How many more there are.
        omitted: usize,
    },
    /// The store behind the tree failed.
    #[error("cannot read the repository")]
    Tree(#[source] TreeError),
    /// The caller asked to stop.
    #[error("rendering was interrupted")]
    Interrupted,
}

impl RenderError {
    /// What an error asks of its reader.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Tree(_) | Self::Interrupted => ErrorClass::Retry,
            _ => ErrorClass::WaitForUser,
        }
    }

    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoSuchPath { nearest, .. } if nearest.is_root() => {
                "the path is relative to the root of the repository".into()
            }
            Self::NoSuchPath { nearest, .. } => format!("{nearest} exists"),
            Self::Excluded { pattern, .. } => {
                format!("remove `{pattern}`, or take the path back in with a `!` pattern")
            }
            Self::Submodule { .. } => {
                "set spec.recurseSubmodules in the GitRepository; where that is set, .gitmodules \
                 does not name a repository for it"
                    .into()
            }
            Self::KustomizationFile { file } => format!("set the path to {}", dir(file)),
            Self::Helm { .. } => "commit the output of `helm template` instead".into(),
            Self::Invalid { problems, .. } => return problems.iter().find_map(Problem::hint),
            Self::TooMuch { .. } => "split the path, or leave files out of it".into(),
            Self::Link { .. } | Self::Tree(_) | Self::Interrupted => return None,
        };
        Some(text)
    }

    /// The wrong places, if that is what is wrong.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid { problems, .. } => problems,
            _ => &[],
        }
    }
}

fn dir(file: &RelPath) -> RelPath {
    file.parent().unwrap_or_default()
}

fn list(problems: &[Problem], omitted: usize) -> String {
    let mut lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    if omitted > 0 {
        lines.push(format!("and {omitted} more problems"));
    }
    lines.join("\n")
}

/// Problems while they are collected.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    pub(crate) omitted: usize,
}

impl Problems {
    pub(crate) fn push(&mut self, file: &Arc<RelPath>, place: Option<Place>, defect: Defect) {
        if self.list.len() < KEPT_PROBLEMS {
            self.list.push(Problem { file: Arc::clone(file), place, defect });
        } else {
            self.omitted += 1;
        }
    }

    /// Notes a file that cannot be used; when the store itself fails, the render does.
    pub(crate) fn unusable(&mut self, path: &RelPath, error: TreeError) -> Result<(), RenderError> {
        let defect = match error {
            TreeError::Read { .. } => return Err(RenderError::Tree(error)),
            TreeError::NotFound(_) => Defect::Dangling,
            error => Defect::Unusable(error),
        };
        self.push(&Arc::new(path.clone()), None, defect);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Fails unless there are none.
    pub(crate) fn none(self) -> Result<(), RenderError> {
        let Self { list: mut problems, omitted } = self;
        if problems.is_empty() {
            return Ok(());
        }
        // Links and ignore files were looked at before the files were read.
        problems.sort_by(|a, b| a.file.cmp(&b.file));
        Err(RenderError::Invalid { problems, omitted })
    }
}

/// One thing that is wrong with one file.
#[derive(Debug)]
pub struct Problem {
    /// The file, or the symbolic link.
    pub file: Arc<RelPath>,
    /// The place in the file, unless the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong.
    pub defect: Defect,
}

/// What can be wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Defect {
    /// It is no Kubernetes YAML or JSON.
    #[error(transparent)]
    Yaml(plumb_yaml::Problem),
    /// A document lacks what makes it an object.
    #[error("{subject} has {missing}")]
    NotAnObject {
        /// The kind, or `object`.
        subject: String,
        /// What is missing, in words that follow "has".
        missing: String,
        /// Whether it has a `metadata.generateName` instead of a name.
        generated: bool,
    },
    /// An object that Kustomize built lacks its `apiVersion`.
    #[error("{subject} has no apiVersion")]
    Unversioned {
        /// The object.
        subject: String,
    },
    /// Kustomize cannot build it.
    #[error("{}", .0.message())]
    Kustomize(plumb_kustomize::Error),
    /// Two documents are the same object.
    #[error("{key} is already defined at {first}")]
    Duplicate {
        /// The object.
        key: ObjectKey,
        /// Where it is first.
        first: Place,
    },
    /// A variable in an object has no value, or cannot be read.
    #[error("{subject}: {why}{}", within(.field))]
    Variable {
        /// The object.
        subject: ObjectKey,
        /// The field; the root when it was not found.
        field: FieldPath,
        /// What is wrong.
        why: crate::envsubst::Why,
    },
    /// With its variables replaced, an object is none any more.
    #[error("{subject}: with its variables replaced it cannot be read: {why}")]
    Substituted {
        /// The object.
        subject: ObjectKey,
        /// What is wrong.
        why: String,
    },
    /// An object or a value in it is encrypted, and there is nothing to open it with.
    #[error("{subject} is encrypted with SOPS, and there is no key for it{}", within(.field))]
    Encrypted {
        /// The object.
        subject: ObjectKey,
        /// The field; the root when it is the object as a whole.
        field: FieldPath,
    },
    /// A ConfigMap has something encrypted.
    #[error("{subject} has an encrypted file, and what is in a ConfigMap is no secret{}", within(.field))]
    Exposed {
        /// The object.
        subject: ObjectKey,
        /// The field.
        field: FieldPath,
    },
    /// A value in an object is encrypted and cannot be opened.
    #[error("{subject}: cannot decrypt it{}: {why}", within(.field))]
    Sealed {
        /// The object.
        subject: ObjectKey,
        /// The field.
        field: FieldPath,
        /// What is wrong.
        why: plumb_sops::Error,
    },
    /// The content is in Git LFS, and only a pointer to it is in Git.
    #[error("the file is a Git LFS pointer, its content is not in the repository")]
    LfsPointer,
    /// A line of an ignore file is no pattern.
    #[error("invalid pattern: {0}")]
    Pattern(String),
    /// The file cannot be used: a link that leads nowhere or outside, a file that is too large.
    #[error(transparent)]
    Unusable(TreeError),
    /// A link whose target is not there.
    #[error("symbolic link leads to nothing")]
    Dangling,
    /// A link to a directory that contains it.
    #[error("symbolic link leads back to {0}, which contains it")]
    Cycle(RelPath),
}

fn within(field: &FieldPath) -> String {
    if field.steps().is_empty() { String::new() } else { format!(" (in {field})") }
}

impl Problem {
    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<String> {
        let ignore = || format!("if it is no manifest, list {} in .plumbignore", self.file);
        match &self.defect {
            Defect::Unusable(TreeError::Sealed { hint, .. }) => hint.clone(),
            Defect::Sealed { why, .. } => why.hint(),
            Defect::Encrypted { .. } => Some(
                "give the keys that open it, in spec.decryption or with --decryption-key, or have it \
                 applied as it is with the annotation plumb.dev/decrypt: disabled"
                    .into(),
            ),
            Defect::Exposed { .. } => Some(
                "make a Secret of it, or have it applied as it is with the annotation \
                 plumb.dev/decrypt: disabled"
                    .into(),
            ),
            Defect::Yaml(plumb_yaml::Problem::NotAMap { .. })
            | Defect::Unusable(_)
            | Defect::Dangling => Some(ignore()),
            Defect::Yaml(problem) => problem.hint(),
            Defect::NotAnObject { generated: true, .. } => {
                Some("give it a fixed name, generateName makes a new object each time".into())
            }
            Defect::NotAnObject { .. } => Some(ignore()),
            // Kustomize lets this pass, but no API server takes it.
            Defect::Unversioned { .. } => Some("give it an apiVersion".into()),
            Defect::Kustomize(error) => error.hint(),
            Defect::Duplicate { .. } => Some("remove one of the two".into()),
            Defect::Variable { why, .. } => Some(why.hint()),
            Defect::Substituted { .. } => {
                Some("put quotes around the variable, or in its value".into())
            }
            Defect::LfsPointer => Some("keep manifests out of Git LFS".into()),
            Defect::Cycle(_) => Some(format!("list {} in .plumbignore", self.file)),
            Defect::Pattern(_) => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, &self.defect) {
            (Some(place), defect) => write!(f, "{place}: {defect}"),
            // These name the path, or what else it is about, themselves.
            (None, Defect::Unusable(error)) => fmt::Display::fmt(error, f),
            (None, Defect::Kustomize(error)) if error.names_its_subject() => {
                f.write_str(&error.message())
            }
            (None, defect) => write!(f, "{}: {defect}", self.file),
        }
    }
}
