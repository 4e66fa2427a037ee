//! History that was written anew: noticed always, held where a GitRepository asks for it.

use std::sync::Arc;

use plumb_api::conditions::reasons;
use plumb_api::{GitRepository, OnRewrite, names};
use plumb_core::ErrorClass;
use plumb_engine::{Sabotage, leaves_out};
use plumb_source::{Cancel, Descent, Reference, Remote, Revision, SourceError};

use super::{Missed, Place, Problem, reference_of, revision_of};
use crate::daemon::Daemon;
use crate::events::Severity;
use crate::metrics::Kind;
use crate::names::Name;
use crate::state::annotation;
use crate::status::brief;

/// What became of the commit that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    before: Revision,
    after: Revision,
    is: Is,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Is {
    /// Commits were put on top.
    OnTop,
    Rewritten,
    /// A tag, which is to stay where it is.
    Moved,
    /// History cannot be compared.
    Unknown(Problem),
}

impl From<Descent> for Is {
    fn from(descent: Descent) -> Self {
        match descent {
            Descent::Follows => Self::OnTop,
            Descent::Rewritten => Self::Rewritten,
        }
    }
}

impl Turn {
    /// What a person names to accept it. Both ends are in it: an approval is for one step, and lets
    /// nobody go back to its commit from a later one.
    fn step(&self) -> String {
        format!("{}..{}", self.before.commit, self.after.commit)
    }

    /// Whether a person accepts it.
    fn is_accepted(&self, object: &GitRepository) -> bool {
        annotation(&object.metadata, names::ACCEPT_REWRITE) == Some(self.step().as_str())
    }

    /// What a person should know of it.
    fn text(&self) -> Option<String> {
        let (before, after) = (brief(&self.before), brief(&self.after));
        match &self.is {
            Is::OnTop => None,
            Is::Rewritten => {
                Some(format!("history was written anew: {after} does not follow {before}"))
            }
            Is::Moved => Some(format!("the tag was moved: it is {after} and was {before}")),
            Is::Unknown(Problem { message, .. }) => {
                Some(format!("whether {after} follows {before} cannot be told: {message}"))
            }
        }
    }
}

/// Whether a revision takes the place of an earlier one of the same reference. Without a reference that
/// may bear another name: which branch counts is then up to the server, or to who may set its HEAD.
fn replaces(reference: &Reference, before: &Revision, after: &Revision) -> bool {
    let same = match reference {
        Reference::Commit { .. } => false,
        Reference::Default => true,
        _ => before.name == after.name,
    };
    same && before.commit != after.commit
}

/// Whether a reference is to stay where it is once it is there.
fn is_fixed(reference: &Reference) -> bool {
    match reference {
        Reference::Tag(_) | Reference::Semver { .. } => true,
        Reference::Name(name) => name.starts_with("refs/tags/"),
        Reference::Default | Reference::Branch(_) | Reference::Commit { .. } => false,
    }
}

impl Daemon {
    /// Refuses a revision that does not follow the last one, if the spec says so and nobody accepted
    /// it. Where it is accepted anyway, what happened is told once it is known.
    pub(super) async fn check_history(
        self: &Arc<Self>,
        name: &Name,
        object: &GitRepository,
        (remote, revision): (&Remote, &Revision),
        place: &mut Option<Place>,
    ) -> Result<Option<String>, Missed> {
        if leaves_out(Sabotage::TrustsAMovedTag) {
            return Ok(None);
        }
        let holds = object.spec.on_rewrite == OnRewrite::Hold;
        let reference = reference_of(object.spec.reference.as_ref());
        let (before, known) = {
            let store = self.state.lock();
            let Some(source) = store.sources.get(name) else { return Ok(None) };
            let status = source.written.as_ref().or(object.status.as_ref());
            let before = status.and_then(|status| revision_of(status.revision.as_deref()?));
            let Some(before) = before.filter(|before| replaces(&reference, before, revision))
            else {
                return Ok(None);
            };
            // What one found out of a repository is so for all that read it. That a tag was moved is no
            // finding: it is so of this reference.
            let same = store.sources.values().filter(|other| other.remote == source.remote);
            let others = same.filter_map(|other| other.turn.as_ref());
            let others = others.filter(|turn| !matches!(turn.is, Is::Moved));
            let turns = source.turn.iter().chain(others.filter(|_| !is_fixed(&reference)));
            let mut turns = turns.filter(|turn| turn.before == before && turn.after == *revision);
            let known = turns.next().cloned();
            (before, known)
        };
        let turn = match known {
            Some(turn) => turn,
            None if is_fixed(&reference) => Turn { before, after: revision.clone(), is: Is::Moved },
            None => {
                if place.is_none() {
                    *place = Some(self.enter(name, remote)?);
                }
                let (mirrors, target) = (Arc::clone(&self.mirrors), remote.clone());
                let (from, to) = (before.commit, revision.commit);
                let step = Turn { before, after: revision.clone(), is: Is::OnTop };
                if holds && step.is_accepted(object) {
                    // It may be that nobody can tell what history was.
                    return Ok(Some(format!("{} is taken, as a person accepted it", step.step())));
                }
                let look = move |cancel: &Cancel| mirrors.descent(&target, &from, &to, cancel);
                let descent = self.blocking(Kind::GitRepository, look).await?;
                if let Some(place) = place {
                    place.note_fetch(&descent);
                }
                let is = match descent {
                    Ok(descent) => descent.into(),
                    Err(error @ SourceError::Cancelled) => return Err(error.into()),
                    // Whoever accepts either need not wait until it is known.
                    Err(error) if !holds => {
                        let problem = Problem::from(error);
                        let text = format!(
                            "{} is taken; whether it goes on from the last revision is not known: {}",
                            step.step(),
                            problem.message,
                        );
                        tracing::info!(source = %name, "{text}");
                        let about = (Kind::GitRepository, &object.metadata);
                        let to = step.after.to_string();
                        self.note(
                            about,
                            Severity::Normal,
                            ("HistoryUnknown", "Fetch"),
                            &text,
                            Some(&to),
                        );
                        return Ok(None);
                    }
                    Err(error) => Is::Unknown(error.into()),
                };
                Turn { is, ..step }
            }
        };
        // What may pass by itself is tried again.
        if !matches!(&turn.is, Is::Unknown(problem) if problem.class == ErrorClass::Retry)
            && let Some(source) = self.state.lock().sources.get_mut(name)
        {
            source.turn = Some(turn.clone());
        }
        let Some(text) = turn.text() else { return Ok(None) };
        if !holds || turn.is_accepted(object) {
            return Ok(Some(text));
        }
        let message = format!(
            "{text}; the last revision stays. To go on, set the annotation {} to {}, or \
             spec.onRewrite to Accept",
            names::ACCEPT_REWRITE,
            turn.step(),
        );
        Err(match turn.is {
            Is::Unknown(problem) => Problem { message, ..problem }.into(),
            _ => Problem::user(reasons::HISTORY_REWRITTEN, message).into(),
        })
    }

    /// Tells that history was written anew, and taken as it is now.
    pub(super) fn tell_rewrite(&self, object: &GitRepository, revision: &Revision, text: &str) {
        tracing::warn!(%revision, "{text}");
        let about = (Kind::GitRepository, &object.metadata);
        let reason = (reasons::HISTORY_REWRITTEN, "Fetch");
        self.note(about, Severity::Warning, reason, text, Some(&revision.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_commit_of_the_same_reference_is_a_turn() {
        let at = |name: &str, digit: &str| Revision {
            name: name.into(),
            commit: digit.repeat(40).parse().unwrap(),
        };
        let branch = Reference::Branch("main".into());
        let semver = Reference::Semver { range: "*".into(), pattern: None };
        let commit = Reference::Commit { id: "2".repeat(40), branch: Some("main".into()) };
        for (reference, before, after, turn, fixed) in [
            (&branch, at("main", "1"), at("main", "2"), true, false),
            (&branch, at("main", "1"), at("main", "1"), false, false),
            (&branch, at("dev", "1"), at("main", "2"), false, false),
            (&Reference::Default, at("main", "1"), at("main", "2"), true, false),
            (&Reference::Default, at("main", "1"), at("other", "2"), true, false),
            (&Reference::Default, at("main", "1"), at("HEAD", "1"), false, false),
            (&Reference::Tag("v1".into()), at("v1", "1"), at("v1", "2"), true, true),
            (&semver, at("v1", "1"), at("v2", "2"), false, true),
            (&semver, at("v1", "1"), at("v1", "2"), true, true),
            (&Reference::Name("refs/tags/v1".into()), at("x", "1"), at("y", "2"), false, true),
            (&commit, at("main", "1"), at("main", "2"), false, false),
        ] {
            assert_eq!(
                replaces(reference, &before, &after),
                turn,
                "{reference}: {before}, {after}"
            );
            assert_eq!(is_fixed(reference), fixed, "{reference}");
        }
    }
}
