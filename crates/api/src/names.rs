//! Every label, annotation and finalizer that we read or write, in one place.

/// The API group of our kinds.
pub const GROUP: &str = "plumb.dev";
/// The version of our kinds.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of our kinds.
pub const API_VERSION: &str = "plumb.dev/v1alpha1";
/// The category under which `kubectl get` lists all our kinds.
pub const CATEGORY: &str = "plumb";

/// Annotation on our kinds: a new value (any text, usually the time) asks for a reconcile at once.
/// The value that was last handled stands in `status.lastHandledReconcileAt`.
pub const REQUESTED_AT: &str = "reconcile.plumb.dev/requestedAt";
/// Annotation on an Application: the digest of the held prune (`status.prune.digest`) that a
/// person approves.
pub const APPROVE_PRUNE: &str = "plumb.dev/approve-prune";
/// Annotation on a GitRepository with `onRewrite: Hold`: the step that a person takes although the second
/// commit does not follow the first, as `LAST..NEW`, with all digits of both.
pub const ACCEPT_REWRITE: &str = "plumb.dev/accept-rewrite";
/// Annotation on an Application: when it is `true`, the Application goes without its objects being
/// looked at or touched, for when they cannot be reached any more.
pub const ABANDON: &str = "plumb.dev/abandon";
/// Finalizer that the API server sets on what is deleted with `--cascade=orphan`.
pub const ORPHAN: &str = "orphan";
/// Annotation on each object that we apply, for people: `<namespace>/<name>` of its Application.
pub const APPLICATION: &str = "plumb.dev/application";
/// Annotation on an Application: which holder of the lease wrote its parent facts last.
pub const EPOCH: &str = "plumb.dev/epoch";
/// Finalizer on an Application: its objects are dealt with, by `spec.deletionPolicy`, before it
/// goes.
pub const FINALIZER: &str = "plumb.dev/finalizer";

/// Label on each object that we apply: the ApplySet it belongs to.
pub const APPLYSET_PART_OF: &str = "applyset.kubernetes.io/part-of";
/// Label on an Application: the id of its ApplySet.
pub const APPLYSET_ID: &str = "applyset.kubernetes.io/id";
/// Label on the Application's CRD: its objects can be parents of an ApplySet.
pub const APPLYSET_IS_PARENT_TYPE: &str = "applyset.kubernetes.io/is-parent-type";
/// Annotation on an Application: the tool that owns its ApplySet, as `plumb/v<version>`.
pub const APPLYSET_TOOLING: &str = "applyset.kubernetes.io/tooling";
/// Annotation on an Application: the kinds of its members, as `ConfigMap,Deployment.apps`.
pub const APPLYSET_GROUP_KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
/// Annotation on an Application: the namespaces of its members beside its own.
pub const APPLYSET_NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";
