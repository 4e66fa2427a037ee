//! Commits, drawn from a seed: objects are added, changed, deleted and moved, files break and are
//! mended, folders are emptied and come back.

use std::sync::Arc;

use fastrand::Rng;
use plumb_testkit::Change;

use super::kinds::{CLAIM, KINDS, Key, Object};
use super::model::{self, Broken, File, Folder, Model, NAMESPACES, REPOSITORIES, Tree};

/// How many objects an application has, give or take.
fn usual(large: bool) -> usize {
    if large { 24 } else { 5 }
}

/// A commit, ready to be pushed.
#[derive(Debug, Clone)]
pub(super) struct Push {
    pub(super) repository: usize,
    /// Which commit of the model it is.
    pub(super) index: usize,
    pub(super) changes: Vec<Change>,
    pub(super) what: String,
}

/// Fills all applications.
pub(super) fn first(model: &mut Model, random: &mut Rng) -> Vec<Push> {
    let mut pushes = Vec::new();
    for repository in 0..REPOSITORIES {
        let mut draft = Draft::new(model, random, repository);
        for app in draft.model.folders_of(repository) {
            draft.tree.insert(app, Arc::default());
            for _ in 0..usual(draft.model.apps[app].large) {
                draft.add(app);
            }
        }
        draft.what.clear();
        draft.what.push("everything".into());
        pushes.extend(draft.finish());
    }
    pushes
}

/// Some commits to one repository, or to two when something moves from one to the other.
pub(super) fn next(model: &mut Model, random: &mut Rng) -> Vec<Push> {
    let repository = random.usize(0..REPOSITORIES);
    if random.u8(0..6) == 0 {
        let moved = across(model, random, repository);
        if !moved.is_empty() {
            return moved;
        }
    }
    let mut draft = Draft::new(model, random, repository);
    match draft.random.u8(0..10) {
        0 => draft.revert(),
        1..5 => draft.mend_one(),
        _ => {}
    }
    for _ in 0..draft.random.usize(1..5) {
        draft.change();
    }
    draft.finish().into_iter().collect()
}

/// A commit that changes one object, if it stands in a sound file and once only.
pub(super) fn edit(model: &mut Model, random: &mut Rng, app: usize, key: &Key) -> Option<Push> {
    let repository = model.apps[app].repository;
    let mut draft = Draft::new(model, random, repository);
    let stamp = draft.model.stamp();
    let folder = draft.folder(app);
    let objects = folder.values_mut().filter_map(|file| match file {
        File::Objects(objects) => Some(objects),
        File::Broken { .. } => None,
    });
    for object in objects.flatten().filter(|object| object.key == *key) {
        object.value += 1;
        object.stamp = stamp;
    }
    draft.what.push(format!("{}: {key} is changed", draft.model.apps[app].name));
    draft.finish()
}

/// An object goes to an application of another repository: two commits, in either order.
fn across(model: &mut Model, random: &mut Rng, from: usize) -> Vec<Push> {
    let to = (from + random.usize(1..REPOSITORIES)) % REPOSITORIES;
    let (source, goals) = (model.folders_of(from), model.folders_of(to));
    if source.is_empty() || goals.is_empty() {
        return Vec::new();
    }
    let (app, goal) = (source[random.usize(..source.len())], goals[random.usize(..goals.len())]);
    let mut draft = Draft::new(model, random, from);
    let Some((file, object)) = draft.pick(app) else {
        return Vec::new();
    };
    let before = draft.tree.clone();
    draft.take(app, &file, &object.key);
    draft.what.push(format!("{} leaves {}", object.key, draft.model.apps[app].name));
    let (without, what) = (draft.tree, draft.what);
    let mut arrival = Draft::new(model, random, to);
    arrival.put(goal, object);
    let arrives_first = arrival.random.bool();
    if arrives_first {
        let mut pushes: Vec<Push> = arrival.finish().into_iter().collect();
        let draft = Draft { model, random, repository: from, tree: without, what };
        pushes.extend(draft.finish());
        return pushes;
    }
    let (tree, arrived) = (arrival.tree, arrival.what);
    debug_assert_ne!(before, without, "it was there");
    let leaves = Draft { model, random, repository: from, tree: without, what }.finish();
    let arrives = Draft { model, random, repository: to, tree, what: arrived }.finish();
    leaves.into_iter().chain(arrives).collect()
}

/// A commit in the making.
struct Draft<'m> {
    model: &'m mut Model,
    random: &'m mut Rng,
    repository: usize,
    tree: Tree,
    what: Vec<String>,
}

impl<'m> Draft<'m> {
    fn new(model: &'m mut Model, random: &'m mut Rng, repository: usize) -> Self {
        let tree = Tree::clone(&model.head(repository));
        Self { model, random, repository, tree, what: Vec::new() }
    }

    fn finish(self) -> Option<Push> {
        let changes = self.model.commit(self.repository, self.tree);
        let index = self.model.commits[self.repository].len().checked_sub(1)?;
        let what = self.what.join("; ");
        (!changes.is_empty()).then_some(Push { repository: self.repository, index, changes, what })
    }

    /// One change of one application.
    fn change(&mut self) {
        let apps = self.model.folders_of(self.repository);
        if apps.is_empty() {
            return;
        }
        let app = apps[self.random.usize(..apps.len())];
        let name = self.model.apps[app].name.clone();
        let Some(folder) = self.tree.get(&app) else { return self.refill(app) };
        let count: usize = folder.values().map(|file| file.objects().len()).sum();
        let broken = folder.values().any(|file| matches!(file, File::Broken { .. }));
        if broken && self.random.bool() {
            return self.mend(app);
        }
        if count == 0 {
            return self.refill(app);
        }
        let usual = usual(self.model.apps[app].large);
        match self.random.u8(0..100) {
            0..26 => self.edit(app),
            26..32 => {
                for file in self.files(app) {
                    self.edit_file(app, &file);
                }
                self.what.push(format!("{name}: every object is changed"));
            }
            // As many come as go, in the long run.
            32..50 if count <= usual => self.add(app),
            32..56 => self.drop(app),
            56..72 => self.hand_over(app),
            72..78 => {
                let file = self.file(app);
                self.folder(app).remove(&file);
                self.what.push(format!("{name}: {file} goes"));
            }
            78..82 => {
                let mut files = self.files(app);
                self.random.shuffle(&mut files);
                for file in &files[1..] {
                    self.folder(app).remove(file);
                }
                self.what.push(format!("{name}: all go but {}", files[0]));
            }
            82..85 => {
                self.folder(app).clear();
                self.what.push(format!("{name}: everything goes"));
            }
            85..87 => {
                self.tree.remove(&app);
                self.what.push(format!("{name}: the folder goes"));
            }
            87..96 => self.spoil(app),
            _ => self.repeat(app),
        }
    }

    fn folder(&mut self, app: usize) -> &mut Folder {
        Arc::make_mut(self.tree.entry(app).or_default())
    }

    fn files(&self, app: usize) -> Vec<String> {
        self.tree.get(&app).map(|folder| folder.keys().cloned().collect()).unwrap_or_default()
    }

    /// One of the files, of which there are some.
    fn file(&mut self, app: usize) -> String {
        let files = self.files(app);
        files[self.random.usize(..files.len())].clone()
    }

    /// An object of a file that is sound, which no other file has too.
    fn pick(&mut self, app: usize) -> Option<(String, Object)> {
        let folder = self.tree.get(&app)?;
        let all: Vec<&Object> = folder.values().flat_map(File::objects).collect();
        let once = |key: &Key| all.iter().filter(|object| object.key == *key).count() == 1;
        let mut found = Vec::new();
        for (name, file) in folder.iter() {
            if let File::Objects(objects) = file {
                let single = objects.iter().filter(|object| once(&object.key));
                found.extend(single.map(|object| (name.clone(), object.clone())));
            }
        }
        (!found.is_empty()).then(|| found.swap_remove(self.random.usize(..found.len())))
    }

    fn take(&mut self, app: usize, file: &str, key: &Key) {
        let folder = self.folder(app);
        if let Some(File::Objects(objects)) = folder.get_mut(file) {
            objects.retain(|object| object.key != *key);
            if objects.is_empty() {
                folder.remove(file);
            }
        }
    }

    /// Puts an object of another application into a file of its own.
    fn put(&mut self, app: usize, object: Object) {
        self.what.push(format!("{} comes to {}", object.key, self.model.apps[app].name));
        let object = Object { stamp: self.model.stamp(), ..object };
        let file = format!("moved-{}.yaml", self.model.name());
        self.folder(app).insert(file, File::Objects(vec![object]));
    }

    /// Adds an object that is new, to a file that is there or to one that is new too.
    fn add(&mut self, app: usize) {
        let number = self.model.name();
        let last = KINDS.len() - 1;
        let kind =
            if self.random.u8(0..30) == 0 { CLAIM } else { KINDS[self.random.usize(..last)] };
        let namespace = if self.random.u8(0..3) == 0 {
            NAMESPACES[self.random.usize(..NAMESPACES.len())]
        } else {
            self.model.apps[app].namespace
        };
        let key = Key { kind, namespace: namespace.into(), name: format!("object-{number}") };
        self.what.push(format!("{}: {key} is new", self.model.apps[app].name));
        let (value, stamp) = (self.random.u32(0..100), self.model.stamp());
        let object = Object { key, value, stamp };
        let files = self.files(app);
        if !files.is_empty() && self.random.u8(0..3) == 0 {
            let file = files[self.random.usize(..files.len())].clone();
            if let Some(File::Objects(objects)) = self.folder(app).get_mut(&file) {
                objects.push(object);
                return;
            }
        }
        let folder = if self.random.u8(0..4) == 0 { "deeper/" } else { "" };
        let file = format!("{folder}file-{number}.yaml");
        self.folder(app).insert(file, File::Objects(vec![object]));
    }

    fn edit(&mut self, app: usize) {
        let Some((file, object)) = self.pick(app) else { return };
        self.what.push(format!("{}: {} is changed", self.model.apps[app].name, object.key));
        let stamp = self.model.stamp();
        if let Some(File::Objects(objects)) = self.folder(app).get_mut(&file) {
            for changed in objects.iter_mut().filter(|other| other.key == object.key) {
                changed.value += 1;
                changed.stamp = stamp;
            }
        }
    }

    fn edit_file(&mut self, app: usize, file: &str) {
        let stamp = self.model.stamp();
        if let Some(File::Objects(objects)) = self.folder(app).get_mut(file) {
            for object in objects {
                object.value += 1;
                object.stamp = stamp;
            }
        }
    }

    fn drop(&mut self, app: usize) {
        let Some((file, object)) = self.pick(app) else { return };
        self.what.push(format!("{}: {} goes", self.model.apps[app].name, object.key));
        self.take(app, &file, &object.key);
    }

    /// An object goes to another application of the same repository, in one commit.
    fn hand_over(&mut self, app: usize) {
        let apps = self.model.folders_of(self.repository);
        let goal = apps[self.random.usize(..apps.len())];
        if goal == app || !self.tree.contains_key(&goal) {
            return;
        }
        let Some((file, object)) = self.pick(app) else { return };
        self.take(app, &file, &object.key);
        self.what.push(format!("{} leaves {}", object.key, self.model.apps[app].name));
        self.put(goal, object);
    }

    /// A file breaks.
    fn spoil(&mut self, app: usize) {
        let file = self.file(app);
        let how = if self.random.bool() { Broken::Syntax } else { Broken::NoKind };
        let name = self.model.apps[app].name.clone();
        let folder = self.folder(app);
        if let Some(File::Objects(was)) = folder.get(&file) {
            let was = was.clone();
            folder.insert(file.clone(), File::Broken { how, was });
            self.what.push(format!("{name}: {file} breaks ({how:?})"));
        }
    }

    /// One of the applications whose folder is unsound is put right.
    fn mend_one(&mut self) {
        let mut unsound = self.model.folders_of(self.repository);
        unsound.retain(|app| model::desired(*app, &self.tree).objects().is_none());
        if unsound.is_empty() {
            return;
        }
        let app = unsound[self.random.usize(..unsound.len())];
        if !self.tree.contains_key(&app) {
            return self.refill(app);
        }
        // What stands there twice stands there once.
        let again: Vec<String> =
            self.files(app).into_iter().filter(|file| file.starts_with("again-")).collect();
        for file in again {
            self.folder(app).remove(&file);
            self.what.push(format!("{}: {file} goes", self.model.apps[app].name));
        }
        self.mend(app);
    }

    /// What is broken comes back, with a change now and then, or goes.
    fn mend(&mut self, app: usize) {
        let name = self.model.apps[app].name.clone();
        for file in self.files(app) {
            let Some(File::Broken { was, .. }) = self.folder(app).get(&file) else { continue };
            let was = was.clone();
            if was.is_empty() || self.random.u8(0..5) == 0 {
                self.folder(app).remove(&file);
                self.what.push(format!("{name}: {file}, which was broken, goes"));
                continue;
            }
            self.folder(app).insert(file.clone(), File::Objects(was));
            if self.random.bool() {
                self.edit_file(app, &file);
            }
            self.what.push(format!("{name}: {file} is mended"));
        }
    }

    /// One object stands in two files.
    fn repeat(&mut self, app: usize) {
        let Some((_, object)) = self.pick(app) else { return };
        let name = self.model.apps[app].name.clone();
        self.what.push(format!("{name}: {} stands there twice", object.key));
        let file = format!("again-{}.yaml", self.model.name());
        self.folder(app).insert(file, File::Objects(vec![object]));
    }

    fn refill(&mut self, app: usize) {
        self.folder(app);
        for _ in 0..self.random.usize(1..=usual(self.model.apps[app].large)) {
            self.add(app);
        }
    }

    /// The repository goes back to an earlier commit, if nothing that has moved on since comes back
    /// where it was.
    fn revert(&mut self) {
        let commits = &self.model.commits[self.repository];
        let back = self.random.usize(1..6);
        let Some(index) = commits.len().checked_sub(1 + back) else { return };
        let then = Tree::clone(&commits[index]);
        for (app, folder) in &then {
            for object in folder.values().flat_map(File::objects) {
                let owner = self.model.owners.get(&object.key).copied().unwrap_or(*app);
                let elsewhere = self.model.apps[owner].repository != self.repository;
                if owner != *app && elsewhere {
                    return;
                }
            }
        }
        self.tree = then;
        self.what.push(format!("back to commit {index}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Every object belongs to one application at the most.
    fn assert_sound(model: &Model) {
        let mut owners: BTreeMap<Key, usize> = BTreeMap::new();
        for (app, object) in model.objects() {
            let before = owners.insert(object.key.clone(), app);
            assert!(before.is_none_or(|before| before == app), "{} has two owners", object.key);
        }
    }

    #[test]
    fn a_thousand_commits_give_every_object_to_one_application_only() {
        for seed in 0..5 {
            let mut random = Rng::with_seed(seed);
            let mut model = Model::new(30);
            let pushes = first(&mut model, &mut random);
            assert_eq!(pushes.len(), REPOSITORIES);
            let mut said = BTreeSet::new();
            let mut most = 0;
            for _ in 0..1000 {
                let pushes = next(&mut model, &mut random);
                for push in &pushes {
                    assert_eq!(push.index + 1, model.commits[push.repository].len());
                    said.extend(push.what.split_whitespace().map(str::to_owned));
                }
                assert_sound(&model);
                most = most.max(model.objects().len());
            }
            assert!((60..600).contains(&most), "{most} objects");
            for word in ["new", "changed", "comes", "breaks", "mended", "back", "folder", "twice"] {
                assert!(said.iter().any(|said| said.starts_with(word)), "never {word}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_commits() {
        let run = |seed| {
            let (mut model, mut random) = (Model::new(9), Rng::with_seed(seed));
            let mut pushes = first(&mut model, &mut random);
            for _ in 0..50 {
                pushes.extend(next(&mut model, &mut random));
            }
            pushes.into_iter().map(|push| (push.repository, push.changes)).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}
