//! Finds what a path holds: manifests, directories that Kustomize builds, and what is left out.

use std::sync::Arc;

use plumb_core::{EntryKind, Place, Recorder, RelPath, Tree, TreeError, follow};

use crate::error::Problems;
use crate::ignore::{self, BadPattern, Domain, Kind, Rules};
use crate::{Defect, RenderError, RenderOptions};

const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
const CHART: &str = "Chart.yaml";
const MANIFESTS: [&str; 3] = ["yaml", "yml", "json"];

/// What is at a path.
pub(crate) enum Layout {
    /// A kustomization, which names its files itself.
    Kustomization,
    /// Files and directories, in the order of names.
    Plain(Vec<Item>),
}

/// One file or directory, by the path that led there.
pub(crate) enum Item {
    /// A file of manifests, with the path that it has without symbolic links.
    File { path: RelPath, real: RelPath },
    /// A directory with a kustomization.
    Base(RelPath),
}

/// One walk.
pub(crate) struct Walk<'r> {
    /// For looks that the result does not depend on.
    tree: &'r dyn Tree,
    recorder: &'r Recorder<'r>,
    options: &'r RenderOptions,
    interrupted: &'r dyn Fn() -> bool,
    root: RelPath,
    rules: Rules,
    items: Vec<Item>,
    problems: Problems,
    entries: usize,
    ignore_files: u64,
    ignore_bytes: u64,
    /// The directories that the walk is in, links followed.
    inside: Vec<RelPath>,
}

impl<'r> Walk<'r> {
    pub(crate) fn new(
        tree: &'r dyn Tree,
        recorder: &'r Recorder<'r>,
        options: &'r RenderOptions,
        interrupted: &'r dyn Fn() -> bool,
    ) -> Self {
        let (rules, bad) = Rules::new(options.ignore.as_deref());
        let mut walk = Self {
            tree,
            recorder,
            options,
            interrupted,
            root: RelPath::root(),
            rules,
            items: Vec::new(),
            problems: Problems::default(),
            entries: 0,
            ignore_files: 0,
            ignore_bytes: 0,
            inside: Vec::new(),
        };
        walk.bad_patterns(&Arc::new(RelPath::root().child(ignore::OPTIONS)), bad);
        walk
    }

    /// Walks what a path without links leads to. What is wrong on the way comes back with it.
    pub(crate) fn run(mut self, path: &RelPath) -> Result<(Layout, Problems), RenderError> {
        self.root = path.clone();
        let entry = self.tree.entry(path).map_err(RenderError::Tree)?;
        let is_directory = entry.is_some_and(|entry| entry.kind == EntryKind::Directory);
        self.outer_rules(path, is_directory)?;
        if is_directory {
            self.directory(path, path)?;
        } else {
            self.recorder.entry(path).map_err(RenderError::Tree)?;
            if KUSTOMIZATIONS.contains(&path.name()) {
                return Err(RenderError::KustomizationFile { file: path.clone() });
            }
            self.items.push(Item::File { path: path.clone(), real: path.clone() });
        }
        let layout = match &self.items[..] {
            [Item::Base(base)] if base == path => Layout::Kustomization,
            _ => Layout::Plain(self.items),
        };
        Ok((layout, self.problems))
    }

    /// Reads the ignore files above the path, and sees whether they exclude it.
    fn outer_rules(&mut self, path: &RelPath, is_directory: bool) -> Result<(), RenderError> {
        let mut at = RelPath::root();
        let count = path.segments().count();
        for (i, segment) in path.segments().enumerate() {
            for name in ignore::FILES {
                let file = at.child(name);
                if let Some(entry) = self.recorder.entry(&file).map_err(RenderError::Tree)? {
                    self.ignore_file(&at, &file, entry.kind)?;
                }
            }
            at = at.child(segment);
            let kind = if i + 1 < count || is_directory { Kind::Directory } else { Kind::Other };
            if let Some((pattern, origin)) = self.rules.excluded(&at, kind) {
                return Err(RenderError::Excluded {
                    path: path.clone(),
                    pattern: pattern.to_owned(),
                    origin: origin.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Walks a directory. `path` is its name as the walk got there, `real` where it is.
    fn directory(&mut self, path: &RelPath, real: &RelPath) -> Result<(), RenderError> {
        ask(self.interrupted)?;
        let limits = &self.options.limits;
        if self.inside.len() >= limits.depth {
            return Err(self.too_much("levels of directories", limits.depth as u64));
        }
        // Noted below: where a kustomization names the files, other names do not matter.
        let entries = self.tree.list(real).map_err(RenderError::Tree)?;
        self.entries += entries.len();
        let too_many = self.entries > limits.entries;
        let level = self.rules.level();
        let kind = |name: &str| {
            entries.iter().find(|(found, _)| found == name).map(|(_, entry)| entry.kind)
        };
        for name in ignore::FILES {
            if let Some(kind) = kind(name).filter(|_| !too_many) {
                self.ignore_file(path, &real.child(name), kind)?;
            }
        }
        let has = |rules: &Rules, name: &str| {
            kind(name).is_some_and(|kind| kind != EntryKind::Directory)
                && rules.excluded(&path.child(name), Kind::Other).is_none()
        };
        if !too_many && KUSTOMIZATIONS.iter().any(|name| has(&self.rules, name)) {
            for name in KUSTOMIZATIONS.iter().chain(&ignore::FILES) {
                self.recorder.entry(&real.child(name)).map_err(RenderError::Tree)?;
            }
            self.items.push(Item::Base(path.clone()));
            self.rules.leave(level);
            return Ok(());
        }
        self.recorder.note_list(real, &entries).map_err(RenderError::Tree)?;
        if too_many {
            return Err(self.too_much("names in its directories", limits.entries as u64));
        }
        self.inside.push(real.clone());
        match has(&self.rules, CHART) {
            true if *path == self.root => {
                return Err(RenderError::Helm { file: path.child(CHART) });
            }
            // A chart's templates are no YAML until Helm has filled them in.
            true => {}
            false => {
                for (name, entry) in &entries {
                    self.entry(&path.child(name), &real.child(name), entry.kind)?;
                }
            }
        }
        self.inside.pop();
        self.rules.leave(level);
        Ok(())
    }

    fn entry(
        &mut self,
        path: &RelPath,
        real: &RelPath,
        kind: EntryKind,
    ) -> Result<(), RenderError> {
        match kind {
            EntryKind::Submodule => Ok(()),
            EntryKind::Directory => {
                if self.rules.excluded(path, Kind::Directory).is_some() {
                    return Ok(());
                }
                self.directory(path, real)
            }
            EntryKind::File => {
                if !is_manifest(path) || self.rules.excluded(path, Kind::Other).is_some() {
                    return Ok(());
                }
                self.items.push(Item::File { path: path.clone(), real: real.clone() });
                Ok(())
            }
            EntryKind::Symlink => {
                if self.rules.excluded(path, Kind::Other).is_some() {
                    return Ok(());
                }
                self.link(path, real)
            }
        }
    }

    /// Follows a symbolic link to what it stands for.
    fn link(&mut self, path: &RelPath, real: &RelPath) -> Result<(), RenderError> {
        let target = match follow(self.recorder, real) {
            Ok(target) => target,
            Err(error) => return self.problems.unusable(path, error),
        };
        let Some(entry) = self.tree.entry(&target).map_err(RenderError::Tree)? else {
            return self.problems.unusable(path, TreeError::NotFound(path.clone()));
        };
        if entry.kind == EntryKind::Directory
            && self.inside.iter().any(|dir| dir.is_within(&target))
        {
            self.problems.push(&Arc::new(path.clone()), None, Defect::Cycle(target));
            return Ok(());
        }
        self.entry(path, &target, entry.kind)
    }

    /// Enters the domain of an ignore file.
    fn ignore_file(
        &mut self,
        dir: &RelPath,
        real: &RelPath,
        kind: EntryKind,
    ) -> Result<(), RenderError> {
        let path = dir.child(real.name());
        let text = match kind {
            EntryKind::Directory | EntryKind::Submodule => return Ok(()),
            EntryKind::File => self.recorder.read(real, ignore::MAX_BYTES),
            EntryKind::Symlink => follow(self.recorder, real)
                .and_then(|target| self.recorder.read(&target, ignore::MAX_BYTES)),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => return self.problems.unusable(&path, error),
        };
        self.ignore_files += 1;
        self.ignore_bytes += text.len() as u64;
        if self.ignore_files > ignore::MAX_FILES {
            return Err(self.too_much("ignore files", ignore::MAX_FILES));
        }
        if self.ignore_bytes > ignore::MAX_TOTAL {
            return Err(self.too_much("bytes in its ignore files", ignore::MAX_TOTAL));
        }
        // Like Git, which matches bytes: what is no UTF-8 matches nothing.
        let text = String::from_utf8_lossy(&text);
        let (domain, bad) = Domain::parse(dir.clone(), path.to_string(), &text);
        self.rules.push(domain);
        self.bad_patterns(&Arc::new(path), bad);
        Ok(())
    }

    fn bad_patterns(&mut self, file: &Arc<RelPath>, bad: Vec<BadPattern>) {
        for BadPattern { line, why } in bad {
            let place = Place { file: Arc::clone(file), document: 0, line, column: 1 };
            self.problems.push(file, Some(place), Defect::Pattern(why));
        }
    }

    fn too_much(&self, what: &'static str, limit: u64) -> RenderError {
        RenderError::TooMuch { path: self.root.clone(), what, limit }
    }
}

/// Stops when the caller asks for it.
pub(crate) fn ask(interrupted: &dyn Fn() -> bool) -> Result<(), RenderError> {
    if interrupted() { Err(RenderError::Interrupted) } else { Ok(()) }
}

fn is_manifest(path: &RelPath) -> bool {
    let end = path.name().rsplit_once('.');
    end.is_some_and(|(_, end)| MANIFESTS.contains(&end))
}
