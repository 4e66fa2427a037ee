//! Commits that applications need and that are not at hand. A run of an Application does not wait
//! for a Git server: it notes what it needs, and the next look at the source, which has workers of
//! its own, brings it or tells why it cannot.

use std::collections::BTreeMap;
use std::time::Duration;

use plumb_source::CommitId;

use crate::backoff::Backoff;
use crate::names::Name;
use crate::sources::Problem;

/// The commits of one source that are asked for.
#[derive(Debug)]
pub(crate) struct Wants {
    commits: BTreeMap<CommitId, Want>,
    backoff: Backoff,
}

#[derive(Debug, Default)]
struct Want {
    /// Who asked, and at which count of its wishes.
    askers: BTreeMap<Name, u64>,
    /// Why the last look did not bring it.
    problem: Option<Problem>,
}

/// What is known of a commit that is not at hand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// It was not asked for so far: somebody has to look.
    Look,
    /// A look is due or under way.
    Wait,
    /// The last look did not bring it. Further ones come by themselves.
    Failed(Problem),
}

impl Wants {
    /// Nothing is asked for. The back-off says when what did not come is looked for again.
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self { commits: BTreeMap::new(), backoff }
    }

    /// An application needs a commit. Who asks for the first time, or anew because its spec changed
    /// or somebody asked it to, is worth a look of its own.
    pub(crate) fn need(&mut self, commit: CommitId, asker: &Name, wish: u64) -> Need {
        let known = self.commits.contains_key(&commit);
        let want = self.commits.entry(commit).or_default();
        let asked = want.askers.insert(asker.clone(), wish) == Some(wish);
        match &want.problem {
            Some(problem) if asked => return Need::Failed(problem.clone()),
            None if known => return Need::Wait,
            _ => {}
        }
        want.problem = None;
        self.backoff.succeeded();
        Need::Look
    }

    /// Whether anything is asked for.
    pub(crate) fn any(&self) -> bool {
        !self.commits.is_empty()
    }

    /// Forgets what nobody names any more. Returns what is left to be brought.
    pub(crate) fn retain(&mut self, named: impl Fn(&CommitId) -> bool) -> Vec<CommitId> {
        self.commits.retain(|commit, _| named(commit));
        self.commits.keys().copied().collect()
    }

    /// When to look again for what did not come, if anything did not.
    pub(crate) fn next_look(&mut self, cap: Duration) -> Option<Duration> {
        let failed = self.commits.values().any(|want| want.problem.is_some());
        if !failed {
            self.backoff.succeeded();
        }
        failed.then(|| self.backoff.failed(0, "", cap))
    }

    /// A commit came, or did not. Returns who is to be told.
    pub(crate) fn answer(&mut self, commit: &CommitId, result: &Result<(), Problem>) -> Vec<Name> {
        match result {
            Ok(()) => {
                let want = self.commits.remove(commit);
                want.into_iter().flat_map(|want| want.askers.into_keys()).collect()
            }
            Err(problem) => {
                let Some(want) = self.commits.get_mut(commit) else { return Vec::new() };
                let news = want.problem.as_ref() != Some(problem);
                want.problem = Some(problem.clone());
                if news { want.askers.keys().cloned().collect() } else { Vec::new() }
            }
        }
    }

    /// As at a start of the process.
    pub(crate) fn clear(&mut self) {
        self.commits.clear();
        self.backoff.succeeded();
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::ErrorClass;

    use super::*;

    fn problem(message: &str) -> Problem {
        Problem { reason: "Timeout".into(), message: message.into(), class: ErrorClass::Retry }
    }

    #[test]
    fn a_commit_is_asked_for_once_and_anew_when_something_is_new() {
        let commit: CommitId = "1".repeat(40).parse().unwrap();
        let (web, api) = (Name::new("ns", "web"), Name::new("ns", "api"));
        let cap = Duration::from_mins(1);
        let mut wants = Wants::new(Backoff::new(Duration::from_secs(1), 1));
        assert_eq!(wants.need(commit, &web, 1), Need::Look);
        assert_eq!(wants.need(commit, &web, 1), Need::Wait);
        assert_eq!(wants.need(commit, &api, 7), Need::Wait, "a look that is due is enough for all");

        let (slow, gone) = (problem("slow"), problem("gone"));
        assert_eq!(wants.answer(&commit, &Err(slow.clone())), [api.clone(), web.clone()]);
        assert_eq!(wants.answer(&commit, &Err(slow.clone())), [], "told already");
        let first = wants.next_look(cap).unwrap();
        assert!(wants.next_look(cap).unwrap() > first, "less and less often");
        assert_eq!(wants.need(commit, &web, 1), Need::Failed(slow.clone()));
        assert_eq!(wants.need(commit, &api, 7), Need::Failed(slow));
        assert_eq!(wants.need(commit, &web, 2), Need::Look, "its spec changed");
        assert_eq!(wants.need(commit, &api, 7), Need::Wait);
        assert_eq!(
            wants.answer(&commit, &Err(gone.clone())),
            [api.clone(), web.clone()],
            "other news"
        );

        assert_eq!(wants.retain(|_| true), [commit]);
        assert_eq!(wants.answer(&commit, &Ok(())), [api, web.clone()]);
        assert_eq!(wants.retain(|_| true), []);
        assert_eq!(wants.next_look(cap), None);
        assert_eq!(wants.need(commit, &web, 2), Need::Look);
        assert_eq!(wants.retain(|_| false), []);
        assert_eq!(wants.answer(&commit, &Err(gone.clone())), [], "nobody names it any more");
    }
}
