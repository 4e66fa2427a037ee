//! A careful guess for kinds that nobody wrote a rule for.
//!
//! The API conventions of Kubernetes give the words: conditions whose type says that something is
//! well or wrong, a phase or state, reasons that name a failure. A sign of failure outweighs all
//! others, a sign of work the rest; without any sign nothing is called healthy.

use serde_json::Value;

use crate::conditions::{self, Condition, is_stale};
use crate::health::Health::{Degraded, Healthy, Progressing, Suspended, Unknown};
use crate::health::{Health, Verdict};

/// Words that say that all is well, as a phase or as the type of a condition.
const WELL: &[&str] = &[
    "accepted",
    "active",
    "applied",
    "attached",
    "available",
    "bound",
    "complete",
    "completed",
    "configured",
    "connected",
    "created",
    "deployed",
    "done",
    "enabled",
    "established",
    "finished",
    "green",
    "healthy",
    "initialized",
    "installed",
    "issued",
    "ok",
    "online",
    "passed",
    "programmed",
    "provisioned",
    "ready",
    "reconciled",
    "resolved",
    "running",
    "satisfied",
    "scheduled",
    "succeeded",
    "success",
    "successful",
    "synced",
    "synchronized",
    "up",
    "uptodate",
    "valid",
    "validated",
    "verified",
];

/// Words that say that something is being done.
const BUSY: &[&str] = &[
    "applying",
    "awaiting",
    "bootstrapping",
    "building",
    "configuring",
    "creating",
    "deleting",
    "deploying",
    "initialising",
    "initializing",
    "inprogress",
    "init",
    "installing",
    "issuing",
    "migrating",
    "modifying",
    "new",
    "notready",
    "pending",
    "planning",
    "preparing",
    "processing",
    "progressing",
    "promoting",
    "provisioning",
    "queued",
    "reconciling",
    "requested",
    "restarting",
    "restoring",
    "resuming",
    "retrying",
    "rolling",
    "scaling",
    "scheduling",
    "starting",
    "submitted",
    "synchronizing",
    "syncing",
    "terminating",
    "uninstalling",
    "unready",
    "updating",
    "upgrading",
    "validating",
    "waiting",
    "yellow",
    "stopping",
    "running tests",
    "notstarted",
];

/// Words that say that something is wrong.
const WRONG: &[&str] = &[
    "aborted",
    "backoff",
    "conflict",
    "conflicted",
    "crashed",
    "crashloop",
    "deadlineexceeded",
    "degraded",
    "denied",
    "disconnected",
    "down",
    "error",
    "errored",
    "errors",
    "exceeded",
    "expired",
    "failed",
    "failing",
    "failure",
    "faulted",
    "forbidden",
    "invalid",
    "lost",
    "misconfigured",
    "mismatch",
    "missing",
    "notfound",
    "offline",
    "red",
    "refused",
    "rejected",
    "stalled",
    "timedout",
    "timeout",
    "unauthorized",
    "unavailable",
    "unbound",
    "unhealthy",
    "unreachable",
    "unresolved",
    "unschedulable",
    "unsuccessful",
    "unsupported",
    "warning",
    "problem",
    "unable",
    "cannot",
];

/// Words that say that somebody paused it.
const PAUSED: &[&str] =
    &["disabled", "halted", "hibernated", "paused", "stopped", "suspended", "scaledtozero"];

/// Words of types of conditions that are well when they are false, and are not among those above.
const TROUBLE: &[&str] = &["alert", "hazard", "problem", "pressure", "warnings"];

/// Fields of the status that hold one word about it all.
const PHASES: [&str; 8] =
    ["phase", "state", "health", "status", "readyState", "currentState", "currentPhase", "result"];

fn plain(word: &str) -> String {
    word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// The words of a name in camel case.
fn words_of(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for letter in name.chars() {
        if !letter.is_ascii_alphanumeric() {
            before = ' ';
            continue;
        }
        let begins = before == ' ' || (letter.is_ascii_uppercase() && !before.is_ascii_uppercase());
        if begins || words.is_empty() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(letter.to_ascii_lowercase());
        }
        before = letter;
    }
    words
}

/// What one word says.
fn sense(word: &str) -> Option<Health> {
    let whole = plain(word);
    let is = |list: &[&str]| list.contains(&&*whole);
    if is(WRONG) {
        Some(Degraded)
    } else if is(BUSY) {
        Some(Progressing)
    } else if is(PAUSED) {
        Some(Suspended)
    } else if is(WELL) {
        Some(Healthy)
    } else if whole == "unknown" {
        Some(Unknown)
    } else {
        None
    }
}

/// What a name of several words says: its last word that says anything, and the opposite of that
/// after `not` or `un`.
fn sense_of_name(name: &str) -> Option<Health> {
    if let Some(said) = sense(name) {
        return Some(said);
    }
    let words = words_of(name);
    if words.iter().any(|word| WRONG.contains(&&**word)) {
        return Some(Degraded);
    }
    let said = words.iter().rev().find_map(|word| sense(word))?;
    let denied = words.iter().any(|word| matches!(&**word, "not" | "no" | "non"));
    Some(match said {
        Healthy if denied => Progressing,
        other => other,
    })
}

/// What one condition says of the object.
fn judge(condition: &Condition<'_>) -> Option<Health> {
    let says = sense_of_name(condition.kind);
    let is_trouble = words_of(condition.kind).iter().any(|word| TROUBLE.contains(&&**word));
    let reason = sense_of_name(condition.reason);
    let says = if is_trouble { Some(Degraded) } else { says };
    match (says, condition.status.to_ascii_lowercase().as_str()) {
        (Some(Healthy), "true") => Some(Healthy),
        (Some(Healthy), "false") => Some(match reason {
            Some(Degraded) => Degraded,
            Some(Suspended) => Suspended,
            _ => Progressing,
        }),
        (Some(Healthy), _) => Some(match reason {
            Some(Degraded) => Degraded,
            _ => Progressing,
        }),
        (Some(other), "true") => Some(other),
        // A type that nobody knows: its reason may still name a failure.
        (None, "false" | "unknown") if reason == Some(Degraded) => Some(Degraded),
        _ => None,
    }
}

/// Says how an object is of which nothing is known but the conventions.
pub fn assess(object: &Value) -> Verdict {
    let verdict = |health| Verdict::new(health, words(health, object));
    let status = &object["status"];
    if status.as_object().is_none_or(serde_json::Map::is_empty) {
        return Verdict::new(Progressing, "it has no status yet");
    }
    if is_stale(object) {
        return Verdict::new(Progressing, "its newest spec has not been acted on yet");
    }
    let generation = object["metadata"]["generation"].as_i64();
    let conditions = conditions::all(object);
    let newest = |condition: &&Condition<'_>| {
        condition.generation.zip(generation).is_none_or(|(seen, wanted)| seen >= wanted)
    };
    if let Some(stalled) = conditions.iter().find(|c| c.kind == "Stalled" && c.is("True")) {
        return Verdict::new(Degraded, stalled.words());
    }
    if let Some(busy) = conditions.iter().find(|c| c.kind == "Reconciling" && c.is("True")) {
        return Verdict::new(Progressing, busy.words());
    }
    let mut said: Vec<Health> = conditions.iter().filter(newest).filter_map(judge).collect();
    if conditions.iter().any(|condition| !newest(&condition)) {
        said.push(Progressing);
    }
    for phase in PHASES {
        if let Some(word) = status[phase].as_str() {
            said.extend(sense_of_name(word));
        }
    }
    for flag in ["ready", "healthy", "available"] {
        match status[flag].as_bool() {
            Some(true) => said.push(Healthy),
            Some(false) => said.push(Progressing),
            None => {}
        }
    }
    for wrong in ["error", "errorMessage", "failureMessage", "failureReason", "lastError"] {
        if status[wrong].as_str().is_some_and(|text| !text.is_empty()) {
            said.push(Degraded);
        }
    }
    // Ready is the sum of the others where there is one.
    let has = |health| said.contains(&health);
    if has(Degraded) {
        verdict(Degraded)
    } else if ["suspend", "suspended", "paused", "pause"]
        .iter()
        .any(|field| object["spec"][field] == true)
        || has(Suspended)
    {
        verdict(Suspended)
    } else if has(Progressing) {
        verdict(Progressing)
    } else if has(Unknown) {
        verdict(Unknown)
    } else if has(Healthy) {
        verdict(Healthy)
    } else {
        Verdict::new(Progressing, "its status does not say how it is")
    }
}

/// What an object itself says about being so: the words of the condition that stands for it, else
/// its phase with its message.
pub(crate) fn words(health: Health, object: &Value) -> String {
    if health == Healthy {
        return String::new();
    }
    let conditions = conditions::all(object);
    let judged = conditions.iter().find(|condition| judge(condition) == Some(health));
    let not_ready =
        || conditions.iter().find(|condition| condition.kind == "Ready" && !condition.is("True"));
    if let Some(condition) = judged.or_else(not_ready) {
        return condition.words();
    }
    let status = &object["status"];
    let text = |fields: &[&str]| {
        let mut texts = fields.iter().filter_map(|field| status[*field].as_str());
        texts.find(|text| !text.is_empty()).map(str::to_owned)
    };
    let message =
        text(&["message", "errorMessage", "error", "failureMessage", "lastError", "reason"]);
    match (text(&PHASES), message) {
        (Some(phase), Some(message)) => format!("{phase}: {message}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => String::new(),
    }
}
