//! Why one object was not applied, in the words of a report: what happened, where in Git, and what
//! helps.

use plumb_core::ErrorClass;

use crate::account::{Presence, rights};
use crate::applyset::{ApplySet, MANAGER_PREFIX};
use crate::circuit::{NO_ANSWER, said};
use crate::cluster::ApiError;
use crate::prepare::{Prepared, parse_field};
use crate::report::Failure;
use crate::size::{TOO_LARGE, refused_as_too_large};

/// One object's error in the words of a report.
pub(crate) fn failure(
    p: &Prepared,
    error: &ApiError,
    set: &ApplySet,
    presence: Presence,
) -> Failure {
    if let Some((path, message, hint)) = refused_as_too_large(&p.object, error) {
        return Failure {
            key: p.key.clone(),
            place: Some(p.object.field_place(&path)),
            reason: TOO_LARGE,
            message,
            hint: Some(hint.into()),
            class: ErrorClass::WaitForUser,
        };
    }
    let message = said(error);
    let schema = error.schema_field();
    let (reason, message, hint) = if let ApiError::NotOurs { owner, fields, .. } = error {
        not_ours(owner.as_deref(), fields)
    } else if error.is_ownership_conflict() {
        conflict(error, set)
    } else if error.is_namespace_missing() {
        let hint = "create the namespace, or add it to the path as an object";
        (
            "NamespaceMissing",
            format!("the namespace {} does not exist", p.key.namespace),
            Some(hint.into()),
        )
    } else if error.is_terminating_namespace() {
        (
            "NamespaceTerminating",
            format!("the namespace {} is being deleted", p.key.namespace),
            None,
        )
    } else if error.is_forbidden() {
        let hint = rights(set, &p.resource, &p.key.namespace, error, presence);
        ("AccessDenied", message, Some(hint))
    } else if error.is_kind_missing() {
        let hint = "look at its CustomResourceDefinition";
        ("UnknownKind", format!("the cluster has no {}", p.resource.gvk), Some(hint.into()))
    } else if error.refusal().is_some_and(|refusal| refusal.code == 415) {
        // As aggregated API servers of old do.
        let hint =
            "nothing is written in any other way; ask for a newer version of that API server";
        let message = format!("the API server of {} takes no server-side apply", p.resource.gvk);
        ("ApplyUnsupported", message, Some(hint.into()))
    } else if error.is_not_in_schema() {
        let hint = "check the field's name and the object's apiVersion";
        let message = schema.as_ref().map_or(message, |(_, said)| said.clone());
        ("UnknownField", message, Some(hint.into()))
    } else if let Some(field) = error.immutable_field() {
        let hint = "to have it deleted and made anew, set spec.force or annotate it with \
                    plumb.dev/force: enabled; what holds data or other objects is never made anew";
        // The server's words quote the whole value.
        ("Immutable", format!("{field} cannot be changed"), Some(hint.into()))
    } else if let Some((_, said)) = &schema {
        ("Invalid", said.clone(), None)
    } else if error.is_invalid() {
        let hint = message.contains(SHRINKS).then(|| {
            "a volume does not become smaller: ask for the size that it has, or move what it holds \
             to a new claim"
                .into()
        });
        ("Invalid", without_subject(&message).to_owned(), hint)
    } else if error.is_webhook_down() {
        (NO_ANSWER, message, Some("look at the webhook that it names".into()))
    } else if matches!(error, ApiError::Timeout { .. })
        || error.refusal().is_some_and(|refusal| refusal.code == 504)
    {
        (NO_ANSWER, message, Some("an admission webhook for this kind may hang".into()))
    } else {
        ("Refused", message, None)
    };
    let caused =
        || error.refusal().and_then(|refusal| refusal.causes.first()).map(|c| c.field.clone());
    let place = match schema.map(|(field, _)| field).or_else(caused) {
        Some(field) if reason != "OwnedByAnother" => p.object.field_place(&parse_field(&field)),
        _ => p.object.place().clone(),
    };
    // A kind may come, and another run looks for it by itself.
    let class = if error.is_kind_missing() { ErrorClass::Retry } else { error.class() };
    Failure { key: p.key.clone(), place: Some(place), reason, message, hint, class }
}

/// What is said of a PersistentVolumeClaim that has its volume and asks for less.
const SHRINKS: &str = "storage: Forbidden: field can not be less than";

/// The message of a validation without its beginning `Service "web" is invalid: `: the object is
/// named before it anyway.
fn without_subject(message: &str) -> &str {
    match message.split_once(" is invalid: ") {
        Some((subject, rest)) if !subject.contains(": ") => {
            rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(rest)
        }
        _ => message,
    }
}

fn conflict(error: &ApiError, set: &ApplySet) -> (&'static str, String, Option<String>) {
    let conflicts = error.conflicts();
    let mut managers: Vec<&str> = conflicts.iter().map(|(manager, _)| manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let fields = brief(conflicts.iter().map(|(_, field)| field.as_str()));
    let other = managers.iter().find_map(|m| m.strip_prefix(MANAGER_PREFIX));
    if let Some(other) = other.filter(|other| *other != set.owner()) {
        let hint = "keep it in one of the two applications; if this one is to take the place of the \
                    other, delete that one: what is asked for here is handed over";
        let message = format!("it belongs to application {other}");
        ("OwnedByAnother", message, Some(hint.into()))
    } else {
        let hint = "give these fields the live values in Git or leave them out there; if Git is \
                    right, delete the live object, or take it as it is by spec.adopt: Always";
        (
            "FieldConflict",
            format!(
                "it exists already, and {} set {fields} to something else",
                managers.join(" and ")
            ),
            Some(hint.into()),
        )
    }
}

/// The first of some fields, and how many more there are.
fn brief<'f>(fields: impl Iterator<Item = &'f str>) -> String {
    let mut fields: Vec<&str> = fields.map(|field| field.trim_start_matches('.')).collect();
    fields.dedup();
    let more = fields.len().saturating_sub(5);
    fields.truncate(5);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", fields.join(", "))
}

/// What is there already and is left alone.
fn not_ours(owner: Option<&str>, fields: &[String]) -> (&'static str, String, Option<String>) {
    let Some(owner) = owner else {
        let hint = "delete the live object, or let it be taken by another spec.adopt";
        let message = "it exists already, and spec.adopt is Never";
        return ("AlreadyExists", message.into(), Some(hint.into()));
    };
    let fields = match fields {
        [] => String::new(),
        fields => format!(", with other values in {}", brief(fields.iter().map(String::as_str))),
    };
    let hint = "take it out there without deleting it, or take it from there by spec.adopt: Always";
    ("OwnedByAnother", format!("it belongs to {owner}{fields}"), Some(hint.into()))
}

#[cfg(test)]
#[path = "failure_tests.rs"]
pub(crate) mod tests;
