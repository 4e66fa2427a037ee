//! What must stay readable in a mirror, which several sources may share.

use std::collections::BTreeSet;

use plumb_source::{Remote, same_mirror};

use super::Store;

impl Store {
    /// The commits that must stay readable in the mirror of a remote, which several sources may share.
    pub(crate) fn commits_of_mirror(&self, remote: &Remote) -> BTreeSet<String> {
        let is_here = |other: &Remote| same_mirror(other, remote);
        let sharing = self.sources.iter().filter(|(_, source)| match &source.remote {
            Some(other) => is_here(other),
            // Nobody has read its Secrets yet in this process.
            None => source.object.spec.url == remote.url,
        });
        let mut commits: BTreeSet<String> =
            sharing.flat_map(|(name, _)| self.commits_to_keep(name)).collect();
        // What was applied stays enforced when its source is deleted.
        let applied = self.apps.values().flat_map(|app| app.rendered.iter().chain(&app.good));
        let here = applied.filter(|rendered| is_here(&rendered.remote));
        commits.extend(here.map(|rendered| rendered.revision.commit.to_string()));
        commits
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plumb_source::{Credentials, Revision, Tls};

    use super::*;
    use crate::names::Name;
    use crate::state::tests::source;

    #[test]
    fn sources_that_share_a_mirror_keep_the_commits_of_each_other() {
        let mut store = Store::default();
        let mut at = |name: &str, url: &str, minutes: u64, digit: &str| {
            store.put_source(source(name, url));
            let known = store.sources.get_mut(&Name::new("ns", name)).unwrap();
            let remote = Remote {
                url: url.into(),
                credentials: Credentials::Anonymous,
                tls: Tls::default(),
                proxy: None,
                timeout: Duration::from_mins(minutes),
                submodules: minutes > 1,
            };
            let commit = digit.repeat(40).parse().unwrap();
            known.revision = Some(Revision { name: "main".into(), commit });
            known.remote = Some(std::sync::Arc::new(remote.clone()));
            remote
        };
        let quick = at("quick", "https://git.example/a", 1, "1");
        let slow = at("slow", "https://git.example:443/a/", 2, "2");
        let other = at("other", "https://git.example/b", 1, "3");
        let [one, two, three] = ["1", "2", "3"].map(|digit| digit.repeat(40));
        for remote in [&quick, &slow] {
            let kept = store.commits_of_mirror(remote);
            assert_eq!(kept, BTreeSet::from([one.clone(), two.clone()]));
        }
        assert_eq!(store.commits_of_mirror(&other), BTreeSet::from([three.clone()]));

        // One that was not read yet since a restart stands where its status says.
        let mut unread = source("unread", "https://git.example/b");
        let revision = Some(format!("main@sha1:{one}"));
        unread.status = Some(plumb_api::GitRepositoryStatus { revision, ..Default::default() });
        store.put_source(unread);
        assert_eq!(store.commits_of_mirror(&other), BTreeSet::from([one, three]));
    }
}
