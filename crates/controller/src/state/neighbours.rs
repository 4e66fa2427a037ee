//! What Applications of one source are to each other: who has yet to look at what another one looks
//! at, and so may want what that one lets go.

use std::collections::BTreeSet;

use plumb_source::CommitId;

use super::{App, Store};
use crate::names::{Key, Name};

impl Store {
    /// The commit that an Application is to be at: its pin, or what its source stands for.
    pub(crate) fn wanted_of(&self, name: &Name) -> Option<CommitId> {
        let spec = &self.apps.get(name)?.object.spec;
        let source = self.sources.get(&Name::new(&name.namespace, &spec.source_ref.name));
        let newest = source.and_then(|source| source.revision.as_ref());
        let pinned = spec.revision.as_deref().and_then(|commit| commit.parse().ok());
        pinned.or_else(|| newest.map(|revision| revision.commit))
    }

    /// Whether an Application has yet to look at what is newest, and will.
    pub(crate) fn is_silent(&self, name: &Name) -> bool {
        let Some(app) = self.apps.get(name) else { return false };
        let (metadata, spec) = (&app.object.metadata, &app.object.spec);
        if metadata.deletion_timestamp.is_some() {
            return false;
        }
        let source = self.sources.get(&Name::new(&name.namespace, &spec.source_ref.name));
        let Some(wanted) = self.wanted_of(name) else {
            // After a start the source has yet to be read itself.
            return source
                .is_some_and(|source| source.problem.is_none() && !source.object.spec.suspend);
        };
        app.looked != Some((wanted, metadata.generation))
    }

    /// Whether an Application has yet to look at what another one looks at, and will: at what is
    /// newest, or at the commit of the other one's source, if both follow the same branch of the
    /// same repository.
    pub(crate) fn is_silent_to(&self, name: &Name, other: &Name) -> bool {
        self.is_silent(name) || self.lags_behind(name, other)
    }

    /// Whether the source of an Application has yet to come to the commit of another one's, and will,
    /// since both follow the same branch of the same repository.
    pub(crate) fn lags_behind(&self, name: &Name, other: &Name) -> bool {
        let source = |name: &Name| {
            let spec = &self.apps.get(name)?.object.spec;
            self.sources.get(&Name::new(&name.namespace, &spec.source_ref.name))
        };
        let (Some(theirs), Some(ours)) = (source(name), source(other)) else { return false };
        let app = self.apps.get(name).map(|app| &app.object);
        theirs.is_twin(ours)
            && theirs.lags(ours)
            && app.is_some_and(|app| {
                let (metadata, spec) = (&app.metadata, &app.spec);
                metadata.deletion_timestamp.is_none() && spec.revision.is_none()
            })
    }

    /// Whether an Application may want anything: of its source no commit is known, as after a start
    /// while Git cannot be reached.
    fn is_unheard(&self, name: &Name) -> bool {
        let Some(app) = self.apps.get(name) else { return false };
        let (metadata, spec) = (&app.object.metadata, &app.object.spec);
        let source = self.sources.get(&Name::new(&name.namespace, &spec.source_ref.name));
        metadata.deletion_timestamp.is_none()
            && source.is_some_and(|source| !source.object.spec.suspend)
            && self.wanted_of(name).is_none()
    }

    /// Whether any other Application of the same repository and branch has yet to look at what this
    /// one looks at.
    pub(crate) fn any_silent(&self, name: &Name) -> bool {
        let Some(app) = self.apps.get(name) else { return false };
        let source = Name::new(&name.namespace, &app.object.spec.source_ref.name);
        self.relatives(&source)
            .iter()
            .filter(|key| key.name() != name)
            .any(|key| self.is_silent_to(key.name(), name) || self.is_unheard(key.name()))
    }

    /// The applications of a source, and of those that follow the same branch of the same repository.
    pub(crate) fn relatives(&self, source: &Name) -> Vec<Key> {
        let sources = self.twins(source).into_iter().chain([source.clone()]);
        sources.flat_map(|source| self.dependants(&source).collect::<Vec<_>>()).collect()
    }

    /// The number of a revision that a source has come to. Sources that follow the same branch of the
    /// same repository count a commit as one, so that their applications' numbers can be compared.
    pub(crate) fn number(&mut self, source: &Name, commit: CommitId) -> u64 {
        let twins = self.twins(source).into_iter().filter_map(|twin| self.sources.get(&twin));
        let there = twins.filter(|twin| twin.revision.as_ref().is_some_and(|r| r.commit == commit));
        if let Some(seq) = there.map(|twin| twin.seq).max() {
            return seq;
        }
        self.seqs += 1;
        self.seqs
    }

    /// The other sources that follow the same branch of the same repository.
    pub(crate) fn twins(&self, source: &Name) -> Vec<Name> {
        let Some(of) = self.sources.get(source) else { return Vec::new() };
        let others = self.sources.iter().filter(|(name, _)| *name != source);
        others.filter(|(_, other)| other.is_twin(of)).map(|(name, _)| name.clone()).collect()
    }

    /// Another Application of the same branch that has not rendered since this one last had nothing
    /// left to do: what left this one since may have gone there.
    pub(crate) fn broken_neighbour(&self, name: &Name) -> Option<Name> {
        let app = self.apps.get(name)?;
        let source = Name::new(&name.namespace, &app.object.spec.source_ref.name);
        let may_want = |other: &App| {
            other.object.metadata.deletion_timestamp.is_none()
                && other.broken.is_some_and(|broken| app.clean.is_none_or(|clean| broken > clean))
        };
        let others = self.relatives(&source).into_iter().filter(|key| key.name() != name);
        let mut others = others.filter_map(|key| Some((self.apps.get(key.name())?, key)));
        // What tenants of other namespaces leave broken holds nothing here.
        let near = |other: &App, key: &Key| {
            key.name().namespace == name.namespace || other.set.account == app.set.account
        };
        others
            .find(|(other, key)| may_want(other) && near(other, key))
            .map(|(_, key)| key.name().clone())
    }

    /// The applications that waited for neighbours and need not any more.
    pub(crate) fn take_patient(&mut self) -> Vec<Name> {
        let waiting = std::mem::take(&mut self.patient);
        let (still, free): (BTreeSet<Name>, BTreeSet<Name>) =
            waiting.into_iter().partition(|name| self.any_silent(name));
        self.patient = still;
        free.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plumb_source::Revision;
    use serde_json::json;

    use super::super::tests::{app, source};
    use super::*;

    #[test]
    fn an_application_is_silent_until_its_source_is_read_and_it_has_looked() {
        let mut store = Store::default();
        let (web, repo) = (Name::new("ns", "web"), Name::new("ns", "repo"));
        store.put_app(app(1, &json!({})));
        assert!(!store.is_silent(&web), "it has no source");
        store.put_source(source("repo", "https://a"));
        assert!(store.is_silent(&web), "nobody has read it yet");
        store.sources.get_mut(&repo).unwrap().problem = Some("no answer".into());
        assert!(!store.is_silent(&web), "that may last");
        assert!(store.is_unheard(&web), "it may want anything");
        let suspend = |store: &mut Store, suspend| {
            let known = store.sources.get_mut(&repo).unwrap();
            std::sync::Arc::make_mut(&mut known.object).spec.suspend = suspend;
            known.problem = None;
        };
        suspend(&mut store, true);
        assert!(!store.is_silent(&web) && !store.is_unheard(&web), "nobody will read it");
        suspend(&mut store, false);
        let commit = "2".repeat(40);
        let mut pinned = app(2, &json!({}));
        pinned.spec.revision = Some(commit.clone());
        store.put_app(pinned);
        assert!(store.is_silent(&web), "it is to look at its pin");
        let pin = commit.parse().unwrap();
        store.apps.get_mut(&web).unwrap().looked = Some((pin, Some(2)));
        assert!(!store.is_silent(&web) && !store.is_unheard(&web), "it said what it wants");
        store.put_app(app(1, &json!({})));
        let commit: CommitId = "1".repeat(40).parse().unwrap();
        let known = store.sources.get_mut(&repo).unwrap();
        known.revision = Some(Revision { name: "main".into(), commit });
        assert!(store.is_silent(&web));
        store.apps.get_mut(&web).unwrap().looked = Some((commit, Some(1)));
        assert!(!store.is_silent(&web));
    }

    #[test]
    fn a_source_that_cannot_be_read_is_expected_to_come_to_what_its_twin_saw() {
        let mut store = Store::default();
        let names = ["repo", "twin"].map(|name| Name::new("ns", name));
        let (web, other) = (Name::new("ns", "web"), Name::new("ns", "other"));
        let [before, now]: [CommitId; 2] =
            ['1', '2'].map(|c| c.to_string().repeat(40).parse().unwrap());
        for name in &names {
            store.put_source(source(&name.name, "https://a"));
            let revision = Revision { name: "main".into(), commit: before };
            store.sources.get_mut(name).unwrap().revision = Some(revision);
        }
        store.put_app(app(1, &json!({})));
        let mut object = app(1, &json!({}));
        object.metadata.name = Some(other.name.to_string());
        object.spec.source_ref.name = names[1].name.to_string();
        store.put_app(object);
        for name in [&web, &other] {
            store.apps.get_mut(name).unwrap().looked = Some((before, Some(1)));
        }
        assert!(!store.any_silent(&web), "both stand at one commit");
        let [repo, twin] = names;
        store.sources.get_mut(&repo).unwrap().revision.as_mut().unwrap().commit = now;
        store.apps.get_mut(&web).unwrap().looked = Some((now, Some(1)));
        assert!(store.any_silent(&web));
        store.sources.get_mut(&twin).unwrap().problem = Some("no answer".into());
        assert!(store.any_silent(&web), "it knows of the commit as soon as there is an answer");
        let suspended = |store: &mut Store, suspend| {
            let known = store.sources.get_mut(&twin).unwrap();
            Arc::make_mut(&mut known.object).spec.suspend = suspend;
        };
        suspended(&mut store, true);
        assert!(!store.any_silent(&web), "it stays where it is");
        suspended(&mut store, false);
        let known = store.sources.get_mut(&twin).unwrap();
        (known.problem, known.revision.as_mut().unwrap().commit) = (None, now);
        store.apps.get_mut(&other).unwrap().looked = Some((now, Some(1)));
        assert!(!store.any_silent(&web));
    }

    #[test]
    fn sources_of_one_branch_number_a_commit_alike() {
        let mut store = Store::default();
        let names = ["one", "two", "other"].map(|name| Name::new("ns", name));
        for (name, url) in names.iter().zip(["https://a", "https://a", "https://b"]) {
            store.put_source(source(&name.name, url));
        }
        let mut moved = |name: &Name, commit: char| {
            let commit: CommitId = commit.to_string().repeat(40).parse().unwrap();
            let seq = store.number(name, commit);
            let source = store.sources.get_mut(name).unwrap();
            source.revision = Some(Revision { name: "main".into(), commit });
            source.seq = seq;
            seq
        };
        let [one, two, other] = names;
        assert_eq!(moved(&one, '1'), 1);
        assert_eq!(moved(&other, '1'), 2, "of another repository");
        assert_eq!(moved(&two, '1'), 1, "the same commit");
        assert_eq!(moved(&two, '2'), 3);
        assert_eq!(moved(&one, '2'), 3);
        assert_eq!(moved(&one, '1'), 4, "back again");
    }
}
