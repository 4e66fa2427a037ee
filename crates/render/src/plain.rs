//! Reads directories of plain manifests.

use std::collections::HashMap;
use std::sync::Arc;

use plumb_core::{EntryKind, Object, ObjectKey, Place, Recorder, RelPath, Tree, TreeError, follow};
use plumb_yaml::{Document, YamlErrors};
use serde_json::Value;

use crate::ignore::{self, BadPattern, Domain, Kind, Rules};
use crate::{Defect, Problem, RenderError, RenderOptions};

/// Problems kept; more are only counted. Together they fit a status condition.
const KEPT_PROBLEMS: usize = 50;

const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
const CHART: &str = "Chart.yaml";
const MANIFESTS: [&str; 3] = ["yaml", "yml", "json"];
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// One render of plain manifests.
pub(crate) struct Plain<'r> {
    tree: &'r Recorder<'r>,
    options: &'r RenderOptions,
    interrupted: &'r dyn Fn() -> bool,
    root: RelPath,
    rules: Rules,
    objects: Vec<Object>,
    /// Where each object is among `objects`.
    keys: HashMap<ObjectKey, usize>,
    problems: Vec<Problem>,
    omitted: usize,
    bytes: u64,
    entries: usize,
    /// The directories that the walk is in, links followed.
    inside: Vec<RelPath>,
}

impl<'r> Plain<'r> {
    pub(crate) fn new(
        tree: &'r Recorder<'r>,
        options: &'r RenderOptions,
        interrupted: &'r dyn Fn() -> bool,
    ) -> Self {
        let (rules, bad) = Rules::new(options.ignore.as_deref());
        let mut plain = Self {
            tree,
            options,
            interrupted,
            root: RelPath::root(),
            rules,
            objects: Vec::new(),
            keys: HashMap::new(),
            problems: Vec::new(),
            omitted: 0,
            bytes: 0,
            entries: 0,
            inside: Vec::new(),
        };
        plain.bad_patterns(&Arc::new(RelPath::root().child(ignore::OPTIONS)), bad);
        plain
    }

    /// Renders what a path without links leads to.
    pub(crate) fn run(mut self, path: &RelPath) -> Result<Vec<Object>, RenderError> {
        self.root = path.clone();
        let entry = self.tree.entry(path).map_err(RenderError::Tree)?;
        let is_directory = entry.is_some_and(|entry| entry.kind == EntryKind::Directory);
        self.outer_rules(path, is_directory)?;
        if is_directory {
            self.directory(path, path)?;
        } else if KUSTOMIZATIONS.contains(&path.name()) {
            return Err(RenderError::Kustomize { file: path.clone() });
        } else {
            self.file(path, path)?;
        }
        if self.problems.is_empty() {
            return Ok(self.objects);
        }
        Err(RenderError::Invalid { problems: self.problems, omitted: self.omitted })
    }

    /// Reads the ignore files above the path, and sees whether they exclude it.
    fn outer_rules(&mut self, path: &RelPath, is_directory: bool) -> Result<(), RenderError> {
        let mut at = RelPath::root();
        let count = path.segments().count();
        for (i, segment) in path.segments().enumerate() {
            for name in ignore::FILES {
                let file = at.child(name);
                if let Some(entry) = self.tree.entry(&file).map_err(RenderError::Tree)? {
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
        self.ask()?;
        let limits = &self.options.limits;
        if self.inside.len() >= limits.depth {
            return Err(self.too_much("levels of directories", limits.depth as u64));
        }
        let entries = self.tree.list(real).map_err(RenderError::Tree)?;
        self.entries += entries.len();
        if self.entries > limits.entries {
            return Err(self.too_much("names in its directories", limits.entries as u64));
        }
        let level = self.rules.level();
        for name in ignore::FILES {
            if let Some((_, entry)) = entries.iter().find(|(found, _)| found == name) {
                self.ignore_file(path, &real.child(name), entry.kind)?;
            }
        }
        self.inside.push(real.clone());
        let present = |rules: &Rules, name: &str| {
            let file = path.child(name);
            let found = entries
                .iter()
                .any(|(found, entry)| found == name && entry.kind != EntryKind::Directory);
            (found && rules.excluded(&file, Kind::Other).is_none()).then_some(file)
        };
        for name in KUSTOMIZATIONS {
            if let Some(file) = present(&self.rules, name) {
                return Err(RenderError::Kustomize { file });
            }
        }
        let chart = present(&self.rules, CHART);
        match chart {
            Some(file) if *path == self.root => return Err(RenderError::Helm { file }),
            // A chart's templates are no YAML until Helm has filled them in.
            Some(_) => {}
            None => {
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
                self.file(path, real)
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
        let target = match follow(self.tree, real) {
            Ok(target) => target,
            Err(error) => return self.unusable(path, error),
        };
        let Some(entry) = self.tree.entry(&target).map_err(RenderError::Tree)? else {
            return self.unusable(path, TreeError::NotFound(path.clone()));
        };
        if entry.kind == EntryKind::Directory
            && self.inside.iter().any(|dir| dir.is_within(&target))
        {
            self.problem(&Arc::new(path.clone()), None, Defect::Cycle(target));
            return Ok(());
        }
        self.entry(path, &target, entry.kind)
    }

    /// Reads the objects of one file.
    fn file(&mut self, path: &RelPath, real: &RelPath) -> Result<(), RenderError> {
        self.ask()?;
        let limits = &self.options.limits;
        let file = Arc::new(path.clone());
        let text = match self.tree.read(real, limits.file.bytes as u64) {
            Ok(text) => text,
            Err(error) => return self.unusable(path, error),
        };
        self.bytes += text.len() as u64;
        if self.bytes > limits.bytes {
            return Err(self.too_much("bytes", limits.bytes));
        }
        if text.starts_with(LFS_POINTER) {
            self.problem(&file, None, Defect::LfsPointer);
            return Ok(());
        }
        let documents = match plumb_yaml::read(&text, &file, &limits.file) {
            Ok(documents) => documents,
            Err(YamlErrors { problems, omitted, sound }) => {
                self.omitted += omitted;
                for problem in problems {
                    let defect = Defect::Yaml(problem.problem);
                    self.problem(&file, Some(problem.place), defect);
                }
                sound
            }
        };
        for document in documents {
            self.object(&file, document);
        }
        if self.objects.len() > limits.objects {
            return Err(self.too_much("objects", limits.objects as u64));
        }
        Ok(())
    }

    fn object(&mut self, file: &Arc<RelPath>, document: Document) {
        // Documents are maps; anything else was a problem already.
        let Value::Object(body) = document.value else {
            return;
        };
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        let subject = match text("kind") {
            "" => "object".to_owned(),
            kind => kind.to_owned(),
        };
        let unversioned = text("apiVersion").is_empty();
        let metadata = body.get("metadata");
        let generated = metadata.is_some_and(|metadata| metadata.get("generateName").is_some());
        let place = document.place;
        let object = match Object::new(body, place.clone(), document.fields) {
            // Kustomize lets this pass, but no API server takes it.
            Ok(_) if unversioned => Err("no apiVersion".to_owned()),
            made => made,
        };
        let defect = match object {
            Ok(object) => {
                let key = object.key();
                let Some(first) = self.keys.get(&key) else {
                    self.keys.insert(key, self.objects.len());
                    self.objects.push(object);
                    return;
                };
                let first = self.objects[*first].place().clone();
                Defect::Duplicate { key, first }
            }
            Err(missing) => Defect::NotAnObject {
                subject,
                generated: generated && missing == "no metadata.name",
                missing,
            },
        };
        self.problem(file, Some(place), defect);
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
            EntryKind::File => self.tree.read(real, ignore::MAX_BYTES),
            EntryKind::Symlink => follow(self.tree, real)
                .and_then(|target| self.tree.read(&target, ignore::MAX_BYTES)),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => return self.unusable(&path, error),
        };
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
            self.problem(file, Some(place), Defect::Pattern(why));
        }
    }

    /// Notes a file that cannot be used; when the store itself fails, the render does.
    fn unusable(&mut self, path: &RelPath, error: TreeError) -> Result<(), RenderError> {
        let defect = match error {
            TreeError::Read { .. } => return Err(RenderError::Tree(error)),
            TreeError::NotFound(_) => Defect::Dangling,
            error => Defect::Unusable(error),
        };
        self.problem(&Arc::new(path.clone()), None, defect);
        Ok(())
    }

    fn problem(&mut self, file: &Arc<RelPath>, place: Option<Place>, defect: Defect) {
        if self.problems.len() < KEPT_PROBLEMS {
            self.problems.push(Problem { file: Arc::clone(file), place, defect });
        } else {
            self.omitted += 1;
        }
    }

    fn too_much(&self, what: &'static str, limit: u64) -> RenderError {
        RenderError::TooMuch { path: self.root.clone(), what, limit }
    }

    fn ask(&self) -> Result<(), RenderError> {
        if (self.interrupted)() {
            return Err(RenderError::Interrupted);
        }
        Ok(())
    }
}

fn is_manifest(path: &RelPath) -> bool {
    let end = path.name().rsplit_once('.');
    end.is_some_and(|(_, end)| MANIFESTS.contains(&end))
}
