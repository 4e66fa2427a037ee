//! ApplySet facts: how members and their parent find each other, as KEP-3659 defines them.
//!
//! Members carry a label with the id of their set. The parent carries the same id, and the kinds
//! and namespaces where members may be, so that any tool can list and prune the set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use plumb_core::GroupKind;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::account::Account;

/// Label of a member: the id of its set.
pub const PART_OF: &str = "applyset.kubernetes.io/part-of";
/// Label of a parent: the id of its set.
pub const PARENT_ID: &str = "applyset.kubernetes.io/id";
/// Annotation of a parent: who manages the set.
pub const TOOLING: &str = "applyset.kubernetes.io/tooling";
/// Annotation of a parent: the kinds of members, sorted, comma separated.
pub const GROUP_KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
/// Annotation of a parent: the namespaces of members other than its own, sorted.
pub const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";
/// Annotation of a member, for people: the application that applies it.
pub const APPLICATION: &str = "plumb.dev/application";
/// Annotation of a parent: which leader last wrote these facts, as [`mark`] puts it.
pub const EPOCH: &str = "plumb.dev/epoch";

/// Every field manager that applies members starts with this.
pub const MANAGER_PREFIX: &str = "plumb:";
/// The manager of the parent facts, apart from the members' so that an outer application that
/// manages this parent does not strip them.
pub const PARENT_MANAGER: &str = "plumb-applyset";

/// Marks further ahead than this are nobody's: no cluster sees a million leaders, and a mark that
/// was believed without bounds could end the counting for all.
const REACH: u64 = 1 << 20;

/// The API server refuses longer field managers.
const MAX_MANAGER: usize = 128;

/// Who a set belongs to: one parent object, its id and its field manager; and who acts for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplySet {
    /// The parent's kind.
    pub parent: GroupKind,
    /// The parent's namespace.
    pub namespace: String,
    /// The parent's name.
    pub name: String,
    /// The value of the part-of label.
    pub id: String,
    /// The field manager that applies the members.
    pub manager: String,
    /// The service account that everything about members is done as; our own when there is none.
    pub account: Option<Arc<Account>>,
}

impl ApplySet {
    /// Derives id and manager from the parent.
    pub fn new(parent: GroupKind, namespace: &str, name: &str) -> Self {
        let text = format!("{name}.{namespace}.{}.{}", parent.kind, parent.group);
        let hash = sha2::Sha256::digest(text.as_bytes());
        let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash);
        let mut manager = format!("{MANAGER_PREFIX}{namespace}/{name}");
        if manager.len() > MAX_MANAGER {
            // Namespaces and names have up to 63 and 253 bytes; the id is as unique and fits.
            manager = format!("{MANAGER_PREFIX}{hash}");
        }
        Self {
            parent,
            namespace: namespace.into(),
            name: name.into(),
            id: format!("applyset-{hash}-v1"),
            manager,
            account: None,
        }
    }

    /// The same set, with somebody else acting for it.
    #[must_use]
    pub fn acting_as(self, account: Option<Account>) -> Self {
        Self { account: account.map(Arc::new), ..self }
    }

    /// `namespace/name` of the parent, as members carry it for people.
    pub fn owner(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Where members of a set may be. Others can edit the annotations it is read from, so it is a
/// hint that grows before objects are applied and shrinks after they are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Kinds of members.
    pub kinds: BTreeSet<GroupKind>,
    /// Namespaces of members, the parent's own included.
    pub namespaces: BTreeSet<String>,
}

impl Scope {
    /// Reads the parent's annotations; what does not parse is left out.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Self {
        let list = |key: &str| {
            let text = annotations.get(key).map_or("", String::as_str);
            text.split(',')
                .map(str::trim)
                .filter(|s| !s.is_empty())
                .map(String::from)
                .collect::<Vec<_>>()
        };
        Self {
            kinds: list(GROUP_KINDS).iter().filter_map(|text| GroupKind::parse(text)).collect(),
            namespaces: list(NAMESPACES).into_iter().collect(),
        }
    }

    /// Both scopes together.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self {
            kinds: self.kinds.union(&other.kinds).cloned().collect(),
            namespaces: self.namespaces.union(&other.namespaces).cloned().collect(),
        }
    }

    /// What is in this scope and not in the other.
    #[must_use]
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self {
            kinds: self.kinds.difference(&other.kinds).cloned().collect(),
            namespaces: self.namespaces.difference(&other.namespaces).cloned().collect(),
        }
    }

    /// Adds one object's kind and namespace (empty for cluster-scoped).
    pub fn add(&mut self, kind: &GroupKind, namespace: &str) {
        self.kinds.insert(kind.clone());
        if !namespace.is_empty() {
            self.namespaces.insert(namespace.to_owned());
        }
    }

    /// Whether both give the same annotations on a parent in `own`.
    pub(crate) fn reads_as(&self, other: &Self, own: &str) -> bool {
        let texts = |scope: &Self| (scope.kinds_text(), scope.namespaces_text(own));
        texts(self) == texts(other)
    }

    /// The value of [`GROUP_KINDS`].
    pub fn kinds_text(&self) -> String {
        // The KEP sorts the texts, not the pairs.
        let mut kinds: Vec<String> = self.kinds.iter().map(ToString::to_string).collect();
        kinds.sort_unstable();
        kinds.join(",")
    }

    /// The value of [`NAMESPACES`] for a parent in `own`.
    pub fn namespaces_text(&self, own: &str) -> String {
        let others: Vec<&str> =
            self.namespaces.iter().map(String::as_str).filter(|ns| *ns != own).collect();
        others.join(",")
    }
}

/// What a leader marks a parent with. It names the very object, since annotations travel with
/// backups and copies, and a leader of another cluster says nothing here.
pub fn mark(epoch: u64, uid: &str) -> String {
    format!("{epoch}@{uid}")
}

/// The epoch in a mark on the parent with this uid; `None` for what was marked elsewhere.
pub fn marked_epoch(mark: &str, uid: &str) -> Option<u64> {
    let (epoch, of) = mark.split_once('@')?;
    (of == uid).then(|| epoch.parse().ok()).flatten()
}

/// Whether a mark is that of a later leader than `ours`.
pub fn is_later(theirs: u64, ours: u64) -> bool {
    theirs > ours && theirs - ours <= REACH
}

/// The annotations and label of a parent as they should be, as the body of a server-side apply by
/// [`PARENT_MANAGER`]. Uid and resource version make the write fail when the parent changed
/// meanwhile; without them it would even create one that was deleted.
pub(crate) fn parent_facts(
    set: &ApplySet,
    api_version: &str,
    scope: &Scope,
    finalizer: &str,
    epoch: u64,
    (uid, resource_version): (&str, u64),
) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": set.parent.kind,
        "metadata": {
            "name": set.name,
            "namespace": set.namespace,
            "uid": uid,
            "resourceVersion": resource_version.to_string(),
            "labels": { PARENT_ID: set.id },
            "annotations": {
                TOOLING: concat!("plumb/v", env!("CARGO_PKG_VERSION")),
                GROUP_KINDS: scope.kinds_text(),
                NAMESPACES: scope.namespaces_text(&set.namespace),
                EPOCH: mark(epoch, uid),
            },
            "finalizers": [finalizer],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(namespace: &str, name: &str) -> ApplySet {
        ApplySet::new(GroupKind::new("plumb.dev", "Application"), namespace, name)
    }

    #[test]
    fn id_is_the_one_of_the_kep() {
        let set = set("apps", "web");
        assert_eq!(set.id, "applyset-SQVkDGXay31zazQZajMsQ7x14Uwsw11IX5svV0p2KdQ-v1");
        assert_eq!(set.manager, "plumb:apps/web");
    }

    #[test]
    fn long_names_give_short_managers() {
        let long = set(&"n".repeat(63), &"a".repeat(253));
        assert!(long.manager.len() <= MAX_MANAGER, "{}", long.manager);
        assert_ne!(long.manager, set(&"n".repeat(63), &"a".repeat(252)).manager);
    }

    #[test]
    fn a_mark_counts_on_its_own_object_and_within_reach() {
        assert_eq!(marked_epoch(&mark(7, "u"), "u"), Some(7));
        for elsewhere in ["7@other", "7", "@u", "x@u", "", "-1@u", "99999999999999999999@u"] {
            assert_eq!(marked_epoch(elsewhere, "u"), None, "{elsewhere}");
        }
        for (theirs, ours, later) in [
            (3, 3, false),
            (2, 3, false),
            (4, 3, true),
            (3 + REACH, 3, true),
            (4 + REACH, 3, false),
        ] {
            assert_eq!(is_later(theirs, ours), later, "{theirs} {ours}");
        }
        assert!(!is_later(u64::MAX, 3));
    }

    #[test]
    fn what_another_added_to_a_scope_is_the_difference() {
        let scope = |kinds: &str, namespaces: &str| {
            Scope::from_annotations(&BTreeMap::from([
                (GROUP_KINDS.to_owned(), kinds.to_owned()),
                (NAMESPACES.to_owned(), namespaces.to_owned()),
            ]))
        };
        let (before, now) = (scope("ConfigMap", "a"), scope("ConfigMap,Deployment.apps", "b"));
        assert_eq!(now.without(&before), scope("Deployment.apps", "b"));
        assert_eq!(before.without(&now), scope("", "a"));
        assert_eq!(
            scope("Service", "").union(&now.without(&before)).kinds_text(),
            "Deployment.apps,Service"
        );
    }

    #[test]
    fn scope_round_trips_through_annotations() {
        let mut scope = Scope::default();
        scope.add(&GroupKind::new("apps", "Deployment"), "web");
        scope.add(&GroupKind::new("", "ConfigMap"), "apps");
        scope.add(&GroupKind::new("", "Namespace"), "");
        assert_eq!(scope.kinds_text(), "ConfigMap,Deployment.apps,Namespace");
        assert_eq!(scope.namespaces_text("apps"), "web");
        assert_eq!(Scope::default().kinds_text(), "");
        let annotations = BTreeMap::from([
            (GROUP_KINDS.to_owned(), scope.kinds_text()),
            (NAMESPACES.to_owned(), "apps,web".to_owned()),
        ]);
        assert_eq!(Scope::from_annotations(&annotations), scope);
        let edited = BTreeMap::from([(GROUP_KINDS.to_owned(), " ,.x,ConfigMap".to_owned())]);
        assert_eq!(Scope::from_annotations(&edited).kinds_text(), "ConfigMap");
    }
}
