//! What one listing of references answers, and for whom. Pure: the network is asked elsewhere.
//!
//! Many objects follow references of one repository. Whoever lists first asks for those of all, and
//! what was found is kept for the others.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::lookup::{Found, Query};
use crate::wire::Listed;
use crate::{Reference, SourceError};

/// Prefixes in one question. Each is some dozens of bytes, so this many are some dozens of kilobytes;
/// Git itself takes 65,536 and then gives up and lists everything.
const MAX_PREFIXES: usize = 1024;

/// How long an answer is kept. Who asks less often has his own listing, which costs little then.
const KEPT: Duration = Duration::from_hours(2);

/// The references of one question: that of who asks, and of others who may be answered by it.
pub(crate) struct Asked<'r> {
    own: Query<'r>,
    others: Vec<(&'r Reference, Query<'r>)>,
    names: HashSet<String>,
    starts: Vec<String>,
}

impl<'r> Asked<'r> {
    /// The question for one reference, with those others that have room in it, the first before the
    /// last. References that cannot be asked for are left out.
    pub(crate) fn new(own: &'r Reference, others: &'r [Reference]) -> Result<Self, SourceError> {
        let mut asked = Self {
            own: Query::new(own)?,
            others: Vec::new(),
            names: HashSet::new(),
            starts: Vec::new(),
        };
        let mut prefixes: BTreeSet<String> = asked.own.prefixes().into_iter().collect();
        let mut seen = HashSet::from([own]);
        for reference in others {
            if matches!(reference, Reference::Commit { .. })
                || !seen.insert(reference)
                || reference.check().is_err()
            {
                continue;
            }
            let Ok(query) = Query::new(reference) else { continue };
            let new = query.prefixes().into_iter().filter(|prefix| !prefixes.contains(prefix));
            let new: Vec<String> = new.collect();
            if prefixes.len() + new.len() > MAX_PREFIXES {
                continue;
            }
            prefixes.extend(new);
            asked.others.push((reference, query));
        }
        for query in std::iter::once(&asked.own).chain(asked.others.iter().map(|(_, q)| q)) {
            match query {
                Query::Exact(_, name) => drop(asked.names.insert(name.clone())),
                Query::Highest(_) => asked.starts.extend(query.prefixes()),
            }
        }
        Ok(asked)
    }

    /// The question without the others.
    pub(crate) fn alone(own: &'r Reference) -> Result<Self, SourceError> {
        Self::new(own, &[])
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// What to ask the server for: no prefix that another one covers.
    pub(crate) fn prefixes(&self) -> Vec<String> {
        let queries = std::iter::once(&self.own).chain(self.others.iter().map(|(_, query)| query));
        let all: BTreeSet<String> = queries.flat_map(Query::prefixes).collect();
        let mut prefixes: Vec<String> = Vec::new();
        // In order, so that what covers a prefix stands before it.
        for prefix in all {
            if !prefixes.iter().any(|before| prefix.starts_with(before.as_str())) {
                prefixes.push(prefix);
            }
        }
        prefixes
    }

    /// Whether a listed name is worth keeping.
    pub(crate) fn wants(&self, listed: &str) -> bool {
        self.names.contains(listed) || self.starts.iter().any(|start| listed.starts_with(start))
    }

    /// What a listing answers who asked. `go_on` is asked while that is looked for.
    pub(crate) fn own(
        &self,
        refs: &[Listed],
        go_on: impl Fn() -> Result<(), SourceError>,
    ) -> Result<Found, SourceError> {
        self.own.pick(refs, go_on)
    }

    /// What it answers the others. Who is not in it, may have more to hear than that: he asks himself.
    pub(crate) fn others<'s>(
        &'s self,
        refs: &'s [Listed],
        go_on: impl Fn() -> Result<(), SourceError> + 's,
    ) -> impl Iterator<Item = (&'r Reference, Found)> + 's {
        // Looked up by name where there may be many.
        let by_name: HashMap<&str, &Listed> =
            refs.iter().map(|listed| (listed.name.as_str(), listed)).collect();
        self.others.iter().filter_map(move |(reference, query)| {
            let found = match query {
                Query::Exact(_, name) => {
                    let listed = by_name.get(name.as_str())?;
                    query.pick(std::slice::from_ref(*listed), &go_on)
                }
                Query::Highest(_) => query.pick(refs, &go_on),
            };
            Some((*reference, found.ok()?))
        })
    }
}

/// An answer, and when the listing began that gave it.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) began: Instant,
    pub(crate) found: Result<Found, SourceError>,
}

/// What is known of a repository's references, by whom was trusted for it.
#[derive(Debug, Default)]
pub(crate) struct Answers(HashMap<(Option<String>, Reference), Heard>);

impl Answers {
    /// What was heard in a listing that began at a moment or later.
    pub(crate) fn since(
        &self,
        trust: Option<&str>,
        reference: &Reference,
        since: Instant,
    ) -> Option<&Heard> {
        let key = (trust.map(String::from), reference.clone());
        self.0.get(&key).filter(|heard| heard.began >= since)
    }

    /// Takes in what a listing answered. Of two it is the later one that counts.
    pub(crate) fn hear<'r>(
        &mut self,
        trust: Option<&str>,
        began: Instant,
        answers: impl Iterator<Item = (&'r Reference, Result<Found, SourceError>)>,
    ) {
        self.0.retain(|_, heard| heard.began + KEPT > began);
        for (reference, found) in answers {
            let key = (trust.map(String::from), reference.clone());
            if self.0.get(&key).is_none_or(|heard| heard.began <= began) {
                self.0.insert(key, Heard { began, found });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use git2::Oid;

    use super::*;

    fn branch(name: &str) -> Reference {
        Reference::Branch(name.into())
    }

    fn tags(pattern: &str) -> Reference {
        Reference::Semver { range: "*".into(), pattern: Some(pattern.into()) }
    }

    fn listed(name: &str, digit: u8) -> Listed {
        let id = Oid::from_bytes(&[digit; 20]).unwrap();
        Listed { name: name.into(), id, peeled: None, symref: None }
    }

    #[test]
    fn one_question_asks_for_the_references_of_all() {
        let commit = Reference::Commit { id: "1".repeat(40), branch: None };
        let pull = Reference::Name("refs/pull/1/head".into());
        let bad = Reference::Name("no/full/name".into());
        for (own, others, prefixes) in [
            (branch("main"), vec![], vec!["refs/heads/main"]),
            (branch("main"), vec![branch("main")], vec!["refs/heads/main"]),
            // What begins alike is listed with it anyway.
            (branch("main-2"), vec![branch("main")], vec!["refs/heads/main"]),
            (
                Reference::Default,
                vec![branch("main"), pull, commit, bad, tags("web-(")],
                vec!["HEAD", "refs/heads/main", "refs/pull/1/head"],
            ),
            (
                branch("main"),
                vec![tags("web-(.*)"), Reference::Tag("web-1".into()), tags("api-(.*)")],
                vec!["refs/heads/main", "refs/tags/api-", "refs/tags/web-"],
            ),
        ] {
            assert_eq!(Asked::new(&own, &others).unwrap().prefixes(), prefixes, "{own} {others:?}");
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_the_first_come_first() {
        let many: Vec<Reference> =
            (0..MAX_PREFIXES).map(|i| branch(&format!("b/{i:05}"))).collect();
        let own = branch("main");
        let asked = Asked::new(&own, &many).unwrap();
        assert_eq!(asked.prefixes().len(), MAX_PREFIXES);
        assert!(asked.wants("refs/heads/main") && asked.wants("refs/heads/b/00000"));
        assert!(!asked.wants("refs/heads/b/01023"), "it has its own listing");
        assert!(!asked.wants("refs/heads/other"));
    }

    #[test]
    fn all_are_answered_that_are_listed() {
        let (own, others) = (branch("main"), [branch("next"), branch("gone"), tags("v(.*)")]);
        let asked = Asked::new(&own, &others).unwrap();
        let refs = [
            listed("refs/heads/main", 1),
            listed("refs/heads/next", 2),
            listed("refs/tags/v1.0.0", 3),
            listed("refs/tags/v2.0.0", 4),
        ];
        assert!(refs.iter().all(|listed| asked.wants(&listed.name)));
        assert_eq!(asked.own(&refs, || Ok(())).unwrap().id, refs[0].id);
        let answered: Vec<_> =
            asked.others(&refs, || Ok(())).map(|(r, found)| (r.clone(), found.id)).collect();
        assert_eq!(
            answered,
            [(others[0].clone(), refs[1].id), (others[2].clone(), refs[3].id)],
            "who is missing asks himself, and is told what there is",
        );
        assert!(asked.own(&refs[1..], || Ok(())).is_err());
    }

    #[test]
    fn an_answer_counts_for_those_who_asked_before_it_began() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let main = branch("main");
        let mut answers = Answers::default();
        let found =
            |digit| Ok(Found { name: "main".into(), id: listed("x", digit).id, peeled: None });
        answers.hear(None, at(10), [(&main, found(1))].into_iter());
        for (trust, reference, since, known) in [
            (None, &main, at(9), true),
            (None, &main, at(10), true),
            (None, &main, at(11), false),
            (Some("others"), &main, at(9), false),
            (None, &branch("next"), at(9), false),
        ] {
            assert_eq!(
                answers.since(trust, reference, since).is_some(),
                known,
                "{trust:?} {reference} {since:?}"
            );
        }
        // One that began earlier and took longer says nothing new.
        answers.hear(None, at(8), [(&main, found(2))].into_iter());
        let heard = |answers: &Answers, since| {
            let heard = answers.since(None, &main, since)?;
            Some((heard.began, heard.found.as_ref().unwrap().id))
        };
        assert_eq!(heard(&answers, at(0)), Some((at(10), listed("x", 1).id)));
        answers.hear(None, at(20), [(&main, found(3))].into_iter());
        assert_eq!(heard(&answers, at(0)), Some((at(20), listed("x", 3).id)));
        answers.hear(None, at(20) + KEPT, [(&branch("next"), found(4))].into_iter());
        assert_eq!(heard(&answers, at(0)), None, "it was kept long enough");
    }
}
