//! Finds files and directories for a kustomization, inside the tree and its own rules.

use std::cell::Cell;
use std::sync::Arc;

use plumb_core::{
    EntryKind, PathError, Place, Purpose, RelPath, Tree, TreeError, follow, is_lfs_pointer,
};

use crate::budget::Budget;
use crate::error::{Error, Problem, Result, invalid};
use crate::origins::Origins;
use crate::{LoadRestrictions, Options};

/// The names of kustomization files.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// What a build reads from, and how much it has read.
pub(crate) struct Source<'t> {
    pub(crate) tree: &'t dyn Tree,
    pub(crate) options: &'t Options,
    pub(crate) budget: Budget<'t>,
    read: Cell<u64>,
    pub(crate) origins: Origins,
}

impl<'t> Source<'t> {
    pub(crate) fn new(
        tree: &'t dyn Tree,
        options: &'t Options,
        interrupted: &'t dyn Fn() -> bool,
    ) -> Self {
        let origins = Origins::new(options.origins);
        let budget = Budget::new(&options.limits, interrupted);
        Self { tree, options, budget, read: Cell::new(0), origins }
    }

    /// Stops the build when the caller asks for it.
    pub(crate) fn ask(&self) -> Result<()> {
        self.budget.ask()
    }

    fn read(&self, path: &RelPath, purpose: Purpose) -> Result<Vec<u8>> {
        self.ask()?;
        let limit = self.options.limits.bytes;
        let left = limit - self.read.get();
        let content = self.tree.read_for(path, left, purpose).map_err(|error| match error {
            TreeError::TooLarge { path, size, .. } => {
                Error::from(Problem::TooLarge { path, size, limit })
            }
            error => error.into(),
        })?;
        self.read.set(self.read.get() + content.len() as u64);
        Ok(content)
    }
}

/// Loads for one kustomization.
#[derive(Clone)]
pub(crate) struct Loader<'s, 't> {
    pub(crate) source: &'s Source<'t>,
    /// The directory, symbolic links followed.
    pub(crate) root: RelPath,
    /// The directories that led here.
    referrers: Vec<RelPath>,
}

/// What a path of a kustomization leads to.
pub(crate) enum Found {
    File(Arc<RelPath>, Vec<u8>),
    Directory,
}

impl<'s, 't> Loader<'s, 't> {
    pub(crate) fn new(source: &'s Source<'t>, dir: &RelPath) -> Result<Self> {
        let root = follow(source.tree, dir)?;
        match source.tree.entry(&root)? {
            Some(entry) if entry.kind == EntryKind::Directory => {}
            Some(_) => return Err(TreeError::WrongKind { path: root, wanted: "directory" }.into()),
            None => return Err(TreeError::NotFound(dir.clone()).into()),
        }
        Ok(Self { source, root, referrers: Vec::new() })
    }

    fn resolve(&self, path: &str) -> Result<RelPath> {
        self.root.resolve(path).map_err(|error| match error {
            PathError::Escapes(path) => invalid!("path {path:?} leaves the repository"),
            PathError::Absolute(path) => invalid!("path {path:?} is absolute")
                .hinting("give it relative to the directory of the kustomization"),
            error @ PathError::Nul(_) => invalid!("{error}"),
        })
    }

    /// Reads a file of manifests or the like.
    pub(crate) fn file(&self, path: &str) -> Result<(Arc<RelPath>, Vec<u8>)> {
        self.file_for(path, Purpose::Manifest)
    }

    /// Reads a file for a purpose.
    pub(crate) fn file_for(&self, path: &str, purpose: Purpose) -> Result<(Arc<RelPath>, Vec<u8>)> {
        match self.find_for(path, purpose)? {
            Found::File(file, content) => Ok((file, content)),
            Found::Directory => {
                Err(TreeError::WrongKind { path: self.resolve(path)?, wanted: "file" }.into())
            }
        }
        .map_err(|error: Error| error.loading(path))
    }

    /// Looks for a file of manifests, or a directory.
    pub(crate) fn find(&self, path: &str) -> Result<Found> {
        self.find_for(path, Purpose::Manifest)
    }

    fn find_for(&self, path: &str, purpose: Purpose) -> Result<Found> {
        if path.starts_with("http://") || path.starts_with("https://") {
            return Err(remote(path));
        }
        let real = self
            .resolve(path)
            .and_then(|named| follow(self.source.tree, &named).map_err(Error::from));
        let real = match real {
            Err(error)
                if is_remote(path)
                    && matches!(
                        error.problem(),
                        Problem::Tree(TreeError::NotFound(_)) | Problem::Invalid(_)
                    ) =>
            {
                return Err(remote(path));
            }
            real => real?,
        };
        if self.source.options.load_restrictions == LoadRestrictions::RootOnly
            && !real.parent().unwrap_or_default().is_within(&self.root)
            && self.source.tree.entry(&real)?.is_some_and(|entry| entry.kind == EntryKind::File)
        {
            return Err(Problem::Outside { file: real, root: self.root.clone() }.into());
        }
        self.found_for(real, purpose)
    }

    /// What is at a path without links, wherever that is.
    pub(crate) fn found(&self, real: RelPath) -> Result<Found> {
        self.found_for(real, Purpose::Manifest)
    }

    fn found_for(&self, real: RelPath, purpose: Purpose) -> Result<Found> {
        match self.source.tree.entry(&real)?.map(|entry| entry.kind) {
            Some(EntryKind::Directory) => Ok(Found::Directory),
            Some(EntryKind::File) => {
                let content = self.source.read(&real, purpose)?;
                let real = Arc::new(real);
                if is_lfs_pointer(&content) {
                    let place = Place { file: real, document: 0, line: 1, column: 1 };
                    return Err(invalid!(
                        "the file is a Git LFS pointer, its content is not in the repository"
                    )
                    .hinting("keep what is built out of Git LFS")
                    .at(&place));
                }
                Ok(Found::File(real, content))
            }
            Some(EntryKind::Submodule) => {
                Err(invalid!("{real} is a Git submodule, whose content is another repository")
                    .hinting("set spec.recurseSubmodules in the GitRepository"))
            }
            _ => Err(TreeError::NotFound(real).into()),
        }
    }

    /// A loader for a directory that this one's kustomization includes.
    pub(crate) fn enter(&self, path: &str) -> Result<Self> {
        if path.is_empty() {
            return Err(invalid!("the path of a directory is empty"));
        }
        if is_remote(path) {
            return Err(remote(path));
        }
        // `base - ..` is what a wrong indentation makes of two lines.
        if path.split('/').any(|part| part.contains("..") && part != "..") {
            return Err(invalid!("path {path:?} is ambiguous, check the indentation"));
        }
        let dir = self.resolve(path)?;
        self.enter_at(&dir).map_err(|error| match error.problem() {
            Problem::Tree(_) => error.loading(path),
            _ => error,
        })
    }

    /// The same for a directory by its path in the tree.
    pub(crate) fn enter_at(&self, dir: &RelPath) -> Result<Self> {
        let loader = Self::new(self.source, dir)?;
        let mut referrers = self.referrers.clone();
        referrers.push(self.root.clone());
        for by in referrers.iter().rev() {
            if by.is_within(&loader.root) {
                let problem = Problem::Cycle { dir: loader.root, by: by.clone() };
                return Err(problem.into());
            }
        }
        let limit = self.source.options.limits.depth;
        if referrers.len() > limit {
            let what = "directories inside each other";
            return Err(Problem::TooMuch { what, limit: limit as u64 }.into());
        }
        Ok(Self { referrers, ..loader })
    }

    /// The kustomization file of the directory.
    pub(crate) fn kustomization(&self) -> Result<(Arc<RelPath>, Vec<u8>)> {
        let mut found = Vec::new();
        for name in NAMES {
            let path = self.root.child(name);
            let real = match follow(self.source.tree, &path) {
                Ok(real) => real,
                Err(TreeError::NotFound(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let entry = self.source.tree.entry(&real)?;
            if entry.is_some_and(|entry| entry.kind == EntryKind::File) {
                found.push((name, path, real));
            }
        }
        let dir = self.root.clone();
        match &found[..] {
            [] => Err(Problem::NoKustomization { dir }.into()),
            [(_, path, real)] => {
                Ok((Arc::new(path.clone()), self.source.read(real, Purpose::Manifest)?))
            }
            several => {
                let files = several.iter().map(|(name, ..)| (*name).to_owned()).collect();
                Err(Problem::ManyKustomizations { dir, files }.into())
            }
        }
    }
}

/// Whether a path is written like the address of a repository.
fn is_remote(path: &str) -> bool {
    path.contains("://")
        || path.starts_with("git@")
        || path.starts_with("git::")
        || path.starts_with("gh:")
        || path.starts_with("github.com/")
        || path.starts_with("github.com:")
        || path.contains("?ref=")
        || path.contains("?version=")
        || path.contains(".git/")
        || path.strip_suffix(".git").is_some()
}

fn remote(path: &str) -> Error {
    // An address may carry a password.
    let shown = match path.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, rest)) => format!("{scheme}://{rest}"),
            None => path.to_owned(),
        },
        None => path.to_owned(),
    };
    Problem::Refused {
        what: format!("remote resource {shown}"),
        instead: "commit a copy of it to the repository and list that",
    }
    .into()
}
