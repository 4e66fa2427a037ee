//! What every commit of every repository says: pure, and nothing of it from the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_testkit::Change;

use super::kinds::{Key, Object};

/// How many repositories there are.
pub(super) const REPOSITORIES: usize = 3;
/// The namespaces of the Applications, and of what they apply.
pub(super) const NAMESPACES: [&str; 3] = ["one", "two", "three"];

/// Stands in every folder, so that an empty folder is there at all.
const README: &str = "README.md";

/// One Application. The first of each folder has its number and name.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) name: String,
    pub(super) namespace: &'static str,
    pub(super) repository: usize,
    /// Which of the folders it applies.
    pub(super) folder: usize,
    /// Has so many objects that the guard minds their share.
    pub(super) large: bool,
    pub(super) standing: Standing,
}

/// What people did with an Application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is at work.
    Active,
    /// It does nothing, since its repository had so many commits.
    Suspended { since: usize },
    /// It was deleted.
    Gone {
        /// What it had stays.
        orphans: bool,
        /// Another one had its folder already.
        heir: Option<usize>,
    },
}

/// What becomes of the objects of deleted Applications, by folder. The first deletes, as pruning is
/// on.
const POLICIES: [&str; 4] = ["MirrorPrune", "Delete", "Orphan", "WaitForTermination"];

impl App {
    /// The field manager of its objects.
    pub(super) fn manager(&self) -> String {
        format!("plumb:{}/{}", self.namespace, self.name)
    }

    /// What its spec says about its end.
    pub(super) fn policy(&self) -> &'static str {
        POLICIES[self.folder % POLICIES.len()]
    }

    pub(super) fn is_active(&self) -> bool {
        self.standing == Standing::Active
    }

    pub(super) fn is_suspended(&self) -> bool {
        matches!(self.standing, Standing::Suspended { .. })
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.standing, Standing::Gone { .. })
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum File {
    /// Manifests, one after the other.
    Objects(Vec<Object>),
    /// Somebody broke it.
    Broken {
        how: Broken,
        /// What was in it before.
        was: Vec<Object>,
    },
}

/// How a file is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is no YAML.
    Syntax,
    /// It is, but no manifest.
    NoKind,
}

impl File {
    /// What is in it, or was before it broke.
    pub(super) fn objects(&self) -> &[Object] {
        match self {
            Self::Objects(objects) | Self::Broken { was: objects, .. } => objects,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Broken { how: Broken::Syntax, .. } => "kind: [ConfigMap\nmetadata: {\n".into(),
            Self::Broken { how: Broken::NoKind, .. } => {
                "apiVersion: v1\nmetadata:\n  name: nameless\n".into()
            }
            // JSON is YAML too.
            Self::Objects(objects) => {
                let texts: Vec<_> =
                    objects.iter().map(|o| format!("{:#}\n", o.manifest())).collect();
                texts.join("---\n")
            }
        }
    }
}

/// The files of one folder by their name.
pub(super) type Folder = BTreeMap<String, File>;

/// One commit of one repository: its folders. A folder that is not there was
/// removed as a whole.
pub(super) type Tree = BTreeMap<usize, Arc<Folder>>;

/// What one commit asks for of one application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Desired {
    /// These objects.
    Objects(BTreeMap<Key, Object>),
    /// Nothing can be told from it, for one of these reasons in the status.
    Unsound(&'static [&'static str]),
}

impl Desired {
    pub(super) fn objects(&self) -> Option<&BTreeMap<Key, Object>> {
        match self {
            Self::Objects(objects) => Some(objects),
            Self::Unsound(_) => None,
        }
    }
}

/// All repositories with all their commits.
pub(super) struct Model {
    /// All that there ever were. Those of renamed ones come behind the first of each folder.
    pub(super) apps: Vec<App>,
    /// How many folders there are in all repositories.
    pub(super) folders: usize,
    /// Applications with which people did something since the last round.
    pub(super) turned: BTreeSet<usize>,
    /// The commits of each repository, oldest first.
    pub(super) commits: Vec<Vec<Arc<Tree>>>,
    /// The folder that had an object last, or has it.
    pub(super) owners: BTreeMap<Key, usize>,
    names: u32,
    stamps: u32,
}

impl Model {
    /// Applications without any object.
    pub(super) fn new(apps: usize) -> Self {
        let app = |index: usize| App {
            name: format!("app-{index:02}"),
            namespace: NAMESPACES[index % NAMESPACES.len()],
            // Each repository is used from two namespaces.
            repository: (index / 2) % REPOSITORIES,
            folder: index,
            large: index % 8 == 3,
            standing: Standing::Active,
        };
        Self {
            apps: (0..apps).map(app).collect(),
            folders: apps,
            turned: BTreeSet::new(),
            commits: vec![Vec::new(); REPOSITORIES],
            owners: BTreeMap::new(),
            names: 0,
            stamps: 0,
        }
    }

    /// The folders of a repository.
    pub(super) fn folders_of(&self, repository: usize) -> Vec<usize> {
        (0..self.folders).filter(|folder| self.apps[*folder].repository == repository).collect()
    }

    /// The application that applies a folder, if there is one.
    pub(super) fn holder(&self, folder: usize) -> Option<usize> {
        self.apps.iter().position(|app| app.folder == folder && !app.is_gone())
    }

    /// Another application of a folder, under a new name.
    pub(super) fn add_app(&mut self, folder: usize) -> usize {
        let number = self.apps.iter().filter(|app| app.folder == folder).count() + 1;
        let name = format!("{}-{number}", self.apps[folder].name);
        let app = App { name, standing: Standing::Active, ..self.apps[folder].clone() };
        self.apps.push(app);
        self.apps.len() - 1
    }

    /// The namespace and repository of every GitRepository that is needed.
    pub(super) fn sources(&self) -> Vec<(&'static str, usize)> {
        let mut sources: Vec<_> =
            self.apps.iter().map(|app| (app.namespace, app.repository)).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// The newest commit of a repository.
    pub(super) fn head(&self, repository: usize) -> Arc<Tree> {
        self.commits[repository].last().cloned().unwrap_or_default()
    }

    /// What an application is asked for by the newest commit.
    pub(super) fn wanted(&self, app: usize) -> Desired {
        let App { repository, folder, .. } = self.apps[app];
        if self.apps[app].is_gone() {
            return Desired::Objects(BTreeMap::new());
        }
        desired(folder, &self.head(repository))
    }

    /// Whether a suspended application is asked for an object, which stays until that one takes it.
    pub(super) fn is_meant_for_suspended(&self, key: &Key) -> bool {
        let mut suspended = (0..self.apps.len()).filter(|app| self.apps[*app].is_suspended());
        suspended.any(|app| self.wanted(app).objects().is_some_and(|all| all.contains_key(key)))
    }

    /// Whether a suspended application that cannot say what it wants was asked for an object by an
    /// earlier commit. It may have said so, and the object may stay until it takes it.
    pub(super) fn was_meant_for_suspended(&self, key: &Key) -> bool {
        (0..self.apps.len()).any(|app| {
            let commits = 0..self.commits[self.apps[app].repository].len();
            let asked = |commit| {
                let wanted = self.wanted_at(app, commit);
                wanted.objects().is_some_and(|all| all.contains_key(key))
            };
            self.apps[app].is_suspended()
                && self.wanted(app).objects().is_none()
                && commits.rev().any(asked)
        })
    }

    /// What it was asked for by a commit, when it was there.
    pub(super) fn wanted_at(&self, app: usize, commit: usize) -> Desired {
        let App { repository, folder, .. } = self.apps[app];
        desired(folder, &self.commits[repository][commit])
    }

    /// Every object of the newest commits with its folder: what is sound and what is not.
    pub(super) fn objects(&self) -> Vec<(usize, Object)> {
        let mut objects = Vec::new();
        for repository in 0..REPOSITORIES {
            for (number, folder) in self.head(repository).iter() {
                let all = folder.values().flat_map(File::objects);
                objects.extend(all.map(|object| (*number, object.clone())));
            }
        }
        objects
    }

    /// A number that no name has yet.
    pub(super) fn name(&mut self) -> u32 {
        self.names += 1;
        self.names
    }

    /// The number of the commit that is being made.
    pub(super) fn stamp(&self) -> u32 {
        self.stamps + 1
    }

    /// Takes a commit in and returns the files that it changes; none when it changes nothing.
    pub(super) fn commit(&mut self, repository: usize, tree: Tree) -> Vec<Change> {
        let before = self.head(repository);
        let changes = changes(&self.apps[..self.folders], &before, &tree);
        if changes.is_empty() {
            return changes;
        }
        for (number, folder) in &tree {
            for object in folder.values().flat_map(File::objects) {
                self.owners.insert(object.key.clone(), *number);
            }
        }
        self.stamps += 1;
        self.commits[repository].push(Arc::new(tree));
        changes
    }
}

/// What a commit asks for in a folder.
pub(super) fn desired(folder: usize, tree: &Tree) -> Desired {
    let Some(folder) = tree.get(&folder) else { return Desired::Unsound(&["PathNotFound"]) };
    let mut objects = BTreeMap::new();
    let mut twice = false;
    for file in folder.values() {
        let File::Objects(all) = file else { return Desired::Unsound(&["BuildFailed"]) };
        for object in all {
            twice |= objects.insert(object.key.clone(), object.clone()).is_some();
        }
    }
    if twice {
        Desired::Unsound(&["BuildFailed", "DuplicateObject"])
    } else {
        Desired::Objects(objects)
    }
}

fn changes(apps: &[App], before: &Tree, after: &Tree) -> Vec<Change> {
    let mut changes = Vec::new();
    let none = Arc::new(Folder::new());
    for (app, App { name, .. }) in apps.iter().enumerate() {
        let (was, is) = (before.get(&app), after.get(&app));
        if was.is_some() && is.is_none() {
            changes.push(Change::Delete(name.clone()));
        }
        let Some(is) = is else { continue };
        if was.is_none() {
            let text = b"Keeps the folder when it is empty.\n".to_vec();
            changes.push(Change::File(format!("{name}/{README}"), text));
        }
        let was = was.unwrap_or(&none);
        for file in was.keys().filter(|file| !is.contains_key(*file)) {
            changes.push(Change::Delete(format!("{name}/{file}")));
        }
        for (file, content) in is.iter().filter(|(file, content)| was.get(*file) != Some(*content))
        {
            changes.push(Change::File(format!("{name}/{file}"), content.text().into_bytes()));
        }
    }
    changes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::torture::kinds::KINDS;

    /// A ConfigMap of the first namespace.
    pub(in crate::torture) fn map(name: &str, value: u32) -> Object {
        let key = Key { kind: KINDS[0], namespace: "one".into(), name: name.into() };
        Object { key, value, stamp: value }
    }

    /// A commit with one file for an application.
    pub(in crate::torture) fn tree(app: usize, objects: &[Object]) -> Tree {
        let file = File::Objects(objects.to_vec());
        Tree::from([(app, Arc::new(Folder::from([("f.yaml".to_owned(), file)])))])
    }

    fn paths(changes: &[Change]) -> Vec<String> {
        let path = |change: &Change| match change {
            Change::File(path, _) => format!("+{path}"),
            Change::Delete(path) => format!("-{path}"),
            _ => unreachable!("only files are made here"),
        };
        changes.iter().map(path).collect()
    }

    #[test]
    fn a_commit_changes_the_files_that_differ() {
        let mut model = Model::new(2);
        let mut next = tree(0, &[map("a", 1)]);
        assert_eq!(paths(&model.commit(0, next.clone())), ["+app-00/README.md", "+app-00/f.yaml"]);
        assert!(model.commit(0, next.clone()).is_empty(), "nothing changes");
        let folder = Arc::make_mut(next.get_mut(&0).unwrap());
        folder.insert("g.yaml".into(), File::Objects(vec![map("b", 1)]));
        folder.remove("f.yaml");
        assert_eq!(paths(&model.commit(0, next.clone())), ["-app-00/f.yaml", "+app-00/g.yaml"]);
        next.remove(&0);
        assert_eq!(paths(&model.commit(0, next)), ["-app-00"]);
        assert_eq!(model.commits[0].len(), 3);
    }

    #[test]
    fn a_folder_asks_for_its_objects_or_for_nothing_that_can_be_told() {
        let mut model = Model::new(1);
        assert_eq!(model.wanted(0), Desired::Unsound(&["PathNotFound"]));
        model.commit(0, tree(0, &[map("a", 1), map("b", 2)]));
        let wanted = model.wanted(0);
        assert_eq!(wanted.objects().unwrap().len(), 2);
        model.commit(0, tree(0, &[map("a", 1), map("a", 2)]));
        assert!(model.wanted(0).objects().is_none());
        let broken = File::Broken { how: Broken::Syntax, was: vec![map("b", 2)] };
        let mut next = tree(0, &[map("a", 1)]);
        Arc::make_mut(next.get_mut(&0).unwrap()).insert("g.yaml".into(), broken);
        model.commit(0, next);
        assert_eq!(model.wanted(0), Desired::Unsound(&["BuildFailed"]));
        assert_eq!(model.wanted_at(0, 0), wanted);
        assert_eq!(model.objects().len(), 2, "what broke is still somebody's");
    }

    #[test]
    fn a_manifest_is_yaml_of_one_object_after_the_other() {
        let text = File::Objects(vec![map("a", 1), map("b", 2)]).text();
        let names: Vec<_> = text
            .split("---\n")
            .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap())
            .map(|object| object["metadata"]["name"].clone())
            .collect();
        assert_eq!(names, ["a", "b"]);
    }
}
