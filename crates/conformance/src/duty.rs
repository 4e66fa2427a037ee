//! The duties, one by one.

use std::future::Future;
use std::pin::Pin;

use crate::duties::{declared, pulled, reconciled, versioned};
use crate::scene::{Played, Scene};

/// What playing a scenario is.
pub(crate) type Playing<'a> = Pin<Box<dyn Future<Output = Played> + 'a>>;

/// A duty of an agent and the scenario that shows whether it is done.
pub(crate) struct Duty {
    pub(crate) id: &'static str,
    /// In one sentence.
    pub(crate) text: &'static str,
    /// How it is observed, and within what.
    pub(crate) how: &'static str,
    /// Whether it stops the agent, or cuts it off from what others need too.
    pub(crate) alone: bool,
    pub(crate) play: for<'a> fn(&'a Scene<'a>) -> Playing<'a>,
}

/// The principles, by the number that a duty begins with.
pub(crate) const PRINCIPLES: [(&str, &str); 4] = [
    ("P1", "Declarative"),
    ("P2", "Versioned and Immutable"),
    ("P3", "Pulled Automatically"),
    ("P4", "Continuously Reconciled"),
];

macro_rules! duty {
    ($id:literal, $module:ident::$name:ident, $alone:literal, $text:literal, $how:literal) => {
        Duty {
            id: $id,
            text: $text,
            how: $how,
            alone: $alone,
            play: |scene| Box::pin($module::$name(scene)),
        }
    };
}

/// All of them, in order.
pub(crate) const DUTIES: [Duty; 25] = [
    duty!(
        "P1.1",
        declared::renders_the_same,
        false,
        "The same revision and inputs give the same objects, byte for byte.",
        "Everything an application made is taken away with it and made anew from the same commit; all \
         fields but those of the API server and its clock are compared."
    ),
    duty!(
        "P1.2",
        declared::recreates_all,
        true,
        "When agent and objects are gone, installing it again makes the same objects.",
        "The agent is stopped, its disk wiped, its objects are deleted; it is started, and all is as before \
         within the bound."
    ),
    duty!(
        "P1.3",
        declared::reports_what_is_invalid,
        false,
        "Unknown fields and invalid objects are reported, never dropped without a word.",
        "One commit has an unknown field, another an object that the API server refuses; within the bound \
         the application names the object."
    ),
    duty!(
        "P1.4",
        declared::needs_no_other_state,
        true,
        "No state is needed beside Git and the cluster.",
        "While the agent is down with its disk wiped, an object leaves Git; it is pruned after the start."
    ),
    duty!(
        "P2.1",
        versioned::names_the_commit,
        false,
        "The status names an immutable id of what is applied.",
        "The revision of the application has the full commit id in it."
    ),
    duty!(
        "P2.2",
        versioned::tears_nothing,
        false,
        "All objects come from one revision.",
        "Commits follow each other quickly; whenever the status names a new revision, no object is older, \
         and an object that is made from two files has both from one commit at all times."
    ),
    duty!(
        "P2.3",
        versioned::tells_rewritten_history,
        false,
        "A moved tag and rewritten history are detected and reported.",
        "The tag that is followed moves to a commit beside, then the branch that is followed does; within the \
         bound the agent says so, and names the commit."
    ),
    duty!(
        "P2.4",
        versioned::goes_back,
        true,
        "A recorded revision can be applied again to the same result, also while Git is down.",
        "Two commits are applied, Git is cut off, the first is asked for and is in place within the bound."
    ),
    duty!(
        "P2.5",
        versioned::verifies_signatures,
        false,
        "Signatures are verified before anything is applied; on failure nothing changes.",
        "A signed commit is applied, an unsigned one after it is not, and that is told."
    ),
    duty!(
        "P2.6",
        versioned::keeps_history,
        false,
        "The history of applied revisions is kept and can be asked for.",
        "Of three commits that were applied all are in the history."
    ),
    duty!(
        "P3.1",
        pulled::polls,
        false,
        "A new commit is applied without any push event.",
        "Nobody calls the agent; a commit is applied within the bound, and so is another while each answer of \
         Git takes two seconds."
    ),
    duty!(
        "P3.2",
        pulled::needs_no_inbound_path,
        false,
        "No inbound path is needed.",
        "From the start on nobody but the agent's own processes connects to any port of it; a first \
         application and a commit are applied all the same."
    ),
    duty!(
        "P3.3",
        pulled::outlives_git,
        true,
        "While Git is down what was applied is enforced, nothing is pruned, the error is told, and all goes \
         on by itself.",
        "Git cannot be reached, answers 503, and answers with what is no Git, in an order that the seed chooses; \
         the trouble is told, in each an edit is undone within the bound, nothing is deleted; a commit that was \
         made meanwhile is applied once Git is back."
    ),
    duty!(
        "P3.4",
        pulled::outlives_kills,
        true,
        "A restart at any moment goes on without anybody's help.",
        "While commits are applied the agent is killed, or cut off from the API server for some seconds, at \
         moments that the seed chooses; the last is in place within the bound of the last of them."
    ),
    duty!(
        "P3.5",
        pulled::only_reads,
        false,
        "Credentials need no more than to read.",
        "The repository takes a password and no pushes; it is applied, and the agent never asks to push."
    ),
    duty!(
        "P4.1",
        reconciled::corrects_drift,
        false,
        "A changed, deleted or relabelled object is put back within a bound, without a commit.",
        "Five times each; each within the bound, and the percentiles are told."
    ),
    duty!(
        "P4.2",
        reconciled::leaves_what_others_own,
        false,
        "Fields that others own are left alone.",
        "Another manager owns replicas, an annotation and a key; they stand through looks and a commit."
    ),
    duty!(
        "P4.3",
        reconciled::prunes_what_it_owns,
        false,
        "What leaves Git is removed, and what was never applied is not.",
        "An object leaves Git; one beside it, made by hand with copies of its labels, stays."
    ),
    duty!(
        "P4.4",
        reconciled::retries_what_fails,
        false,
        "One object that fails stops no other, and is retried with back-off; no commit is needed.",
        "One object is for a namespace that is not there, one is rejected by a webhook, one is of a kind that \
         the application's account has no right to. The others are applied within the bound; tries are counted; \
         once a cause is gone the object is there. Then the API server answers three writes with 429 and three \
         with 500, and a commit is applied all the same."
    ),
    duty!(
        "P4.5",
        reconciled::reports_drift,
        false,
        "Drift is reported also where correction is off.",
        "An application only observes; an edit is told within the bound and stands."
    ),
    duty!(
        "P4.6",
        reconciled::bounds_fights,
        false,
        "Somebody who writes the same again and again is detected, and the fight is bounded.",
        "A writer undoes the agent within a fifth of a second, for half a minute: the agent writes less than \
         half as often, and says so."
    ),
    duty!(
        "P4.7",
        reconciled::supersedes,
        true,
        "A newer revision supersedes work in progress.",
        "Each write takes a second; while twenty objects of one commit are applied the next comes: some are \
         never written as of the first."
    ),
    duty!(
        "P4.8",
        reconciled::survives_an_empty_render,
        false,
        "An empty or failed render never deletes everything.",
        "Files are broken, then all are gone; in both cases the objects stay through the bound, and the \
         agent says why."
    ),
    duty!(
        "P4.9",
        reconciled::acts_on_feedback,
        false,
        "Health and failure change what is done next.",
        "A workload that cannot become ready makes its application not ready, and what depends on it is \
         not applied."
    ),
    duty!(
        "P4.10",
        reconciled::rests,
        false,
        "Where nothing diverges, nothing is written.",
        "Through three intervals the agent writes nothing in the namespace."
    ),
];
