//! What to apply, and what became of it.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    CommonMetadata, Condition, Decryption, Dependency, Duration, HealthCheck, Image, Patch,
    PatchTarget, PostBuild, Time,
};

/// How many failures a status lists; the count tells of the rest.
pub const MAX_FAILURES: usize = 20;
/// How many objects of a held prune a status lists; the count tells of the rest.
pub const MAX_HELD_OBJECTS: usize = 20;
/// How many fields of a drifted object a status lists.
pub const MAX_DRIFTED_FIELDS: usize = 20;
/// How many objects with fields that are left to others a status lists, and how many fields of each.
pub const MAX_YIELDED: usize = 20;
/// How many objects that are not ready a status lists; the count tells of the rest.
pub const MAX_UNREADY: usize = 20;
/// How many objects that go by themselves a status records.
pub const MAX_TRANSIENT: usize = 50;
/// How many outcomes the history keeps, and so how many commits stay in the cache to go back to.
pub const MAX_HISTORY: usize = 10;

/// Bounds one run when the spec does not say. Flux takes the interval less 30 s; a fixed value is
/// easier to reckon with, and five minutes suffice for thousands of objects.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

fn default_timeout() -> Duration {
    DEFAULT_TIMEOUT
}

fn default_path() -> String {
    "./".into()
}

fn default_prune() -> bool {
    true
}

fn default_count() -> u32 {
    10
}

fn default_share() -> u8 {
    50
}

/// A status in a place of its own: it is as large as all else of an object, and not kept with it for long.
pub type BoxedStatus = Box<ApplicationStatus>;

/// What to apply: a path in a source, and how to keep the cluster true to it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "plumb.dev",
    version = "v1alpha1",
    kind = "Application",
    plural = "applications",
    namespaced,
    status = "BoxedStatus",
    derive = "PartialEq",
    category = "plumb",
    label("applyset.kubernetes.io/is-parent-type", "true"),
    doc = "An Application keeps the objects under one path of a GitRepository applied, corrects what is changed by hand and deletes what leaves Git.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    ),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.lastAppliedRevision"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationSpec {
    /// The source of the manifests, in the same namespace.
    pub source_ref: SourceRef,

    /// The directory in the source, relative to its root. The root when left out.
    #[serde(default = "default_path")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/')").message("must be relative to the root of the source: leave out the leading /"))]
    #[x_kube(validation = Rule::new(r"!self.matches(r'(^|/)\.\.(/|$)')").message("must not contain .. segments"))]
    pub path: String,

    /// How often all objects are compared with Git. A comparison reads metadata only and applies
    /// nothing unless something differs; new commits and changes by hand are acted on at once,
    /// whatever the interval.
    pub interval: Duration,

    /// The longest pause between two tries after a failure. Tries begin soon and slow down to it.
    /// A minute when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_interval: Option<Duration>,

    /// The longest that one run may take, and what it applied to become ready when that is waited
    /// for, 5m when left out. What is not done by then is tried again; what is not ready by then is
    /// told as failed, and waited for all the same.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,

    /// Whether objects that leave Git are deleted, true when left out. Large or dangerous deletions
    /// are held until they are approved, see `status.prune`.
    #[serde(default = "default_prune")]
    pub prune: bool,

    /// What becomes of the objects when this Application is deleted: MirrorPrune deletes them when
    /// `prune` is true, Delete always does, WaitForTermination does and waits until they are gone,
    /// Orphan leaves them and takes our labels off. MirrorPrune when left out.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// The service account, in the namespace of this Application, that everything about its objects
    /// is done as. The agent's default when left out; without one, the agent's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub service_account_name: Option<String>,

    /// While true, nothing is applied, corrected or pruned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,

    /// Enforce applies, corrects and prunes. Observe writes nothing: the status says what would be
    /// done, and what is live stays as it is, also when this Application is deleted. Enforce when
    /// left out.
    #[serde(default)]
    pub mode: Mode,

    /// Fields that Git fills in when it creates an object, and that others may decide afterwards.
    /// They are neither corrected nor applied again once somebody else has changed them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub ignore: Vec<IgnoreRule>,

    /// Pins to one commit of the source's repository, by its full id of 40 hexadecimal digits in
    /// lower case: to go back, or to hold still. The source's revision when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{40}$')").message("must be a full commit id: 40 hexadecimal digits in lower case"))]
    pub revision: Option<String>,

    /// Patches, which come after those of the path's kustomization. A path without one is built as
    /// if one listed all its files; that goes for images, components, namePrefix, nameSuffix and
    /// targetNamespace, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub patches: Vec<Patch>,

    /// Names, tags and digests of images. An entry changes the one of the same name in the path's
    /// kustomization; tag and digest are replaced together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub images: Vec<Image>,

    /// Directories with Kustomize Components, relative to the path. They come after those of the
    /// path's kustomization.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = Rule::new("self.all(component, !component.startsWith('/') && !component.contains('://'))").message("must be directories of the same repository, relative to the path"))]
    pub components: Vec<String>,

    /// Whether components that are not there are passed over instead of being an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_missing_components: bool,

    /// Stands before the names of all objects, and before names that refer to them, instead of the
    /// prefix in the path's kustomization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub name_prefix: Option<String>,

    /// Stands after the names of all objects, and after names that refer to them, instead of the
    /// suffix in the path's kustomization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub name_suffix: Option<String>,

    /// The namespace of all objects that can have one, instead of that in the manifests and in the
    /// path's kustomization. As in Kustomize, Namespaces in the path are renamed to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub target_namespace: Option<String>,

    /// Labels and annotations that all objects get in the end, in their own metadata and nowhere
    /// else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_metadata: Option<CommonMetadata>,

    /// How files that SOPS encrypted are opened. Without it they are not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decryption: Option<Decryption>,

    /// What must be ready before anything new is applied: Applications, at the same revision where
    /// they are of the same source, and objects of any kind but Secrets, which must be healthy. What
    /// was applied before stays meanwhile, and is kept as it is. It says nothing for deletions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub depends_on: Vec<Dependency>,

    /// Values for variables in the objects, `${name}`, after they were built. An object is left as it
    /// is that has the label or annotation `plumb.dev/substitute: disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_build: Option<PostBuild>,

    /// What becomes of objects of the path that are there already and that no Application has:
    /// Never leaves them alone; IfUnowned takes them unless another field manager holds a field
    /// that Git gives another value, or Helm, Flux or Argo CD have left their marks; Always takes
    /// them whoever has them. Fields that kubectl applied to an adopted object and that Git does
    /// not have go. IfUnowned when left out.
    #[serde(default)]
    pub adopt: Adopt,

    /// Whether all changes are tried before any is made: with DryRun the API server is asked about
    /// each one first, and when it refuses one, all of its reasons are told, nothing is applied, and
    /// what was applied last stays enforced. What needs a namespace or definition that comes with
    /// the same commit cannot be tried. None when left out.
    #[serde(default)]
    pub validate: Validate,

    /// Whether an object is deleted and made anew when Git changes a field of it that cannot be
    /// changed. What needs approval to be deleted never is, see `pruneGuard`. False when left out;
    /// the annotation `plumb.dev/force: enabled` does the same for one object.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,

    /// Whether this Application is ready only while all its objects are: healthy, or suspended. An
    /// object that cannot become so any more is told at once. False when left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,

    /// Objects that are waited for like those of `wait`: of this Application, so that only some of its
    /// objects are, or made by others. With `wait`, all objects of this Application and these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub health_checks: Vec<HealthCheck>,

    /// How objects are judged that are waited for, in CEL; the variables are the
    /// top-level fields of the object. Kinds without an entry are judged by what is known of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub health_check_exprs: Vec<HealthCheckExpr>,

    /// When deletions wait for approval. Whatever it says, they do so when the path renders nothing
    /// any more, and for Namespaces, CustomResourceDefinitions, PersistentVolumes and their claims,
    /// APIServices, StatefulSets that delete their claims, and Applications that have objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune_guard: Option<PruneGuard>,
}

/// When deletions wait for approval.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PruneGuard {
    /// So many objects are deleted at once whatever their share is, 10 when left out.
    #[serde(default = "default_count")]
    #[schemars(with = "i64", range(min = 0, max = 1_000_000))]
    pub count: u32,

    /// The largest share of the objects that is deleted at once, in percent, 50 when left out. With
    /// 100 no number is too large; with 0, and a count of 0, every deletion waits.
    #[serde(default = "default_share")]
    #[schemars(with = "i64", range(min = 0, max = 100))]
    pub share: u8,

    /// Kinds whose objects are not deleted without approval, as `Secret` or `Deployment.apps`. This
    /// holds for the deletion of the Application, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        inner(
            length(max = 317),
            regex(pattern = r"^[A-Z][A-Za-z0-9]{0,62}(\.[a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
        )
    )]
    pub protect: Vec<String>,
}

/// How the objects of a kind are judged. The first expression that holds decides, in the order of
/// suspended, inProgress, failed, current, missing and unknown; when none does, the object is on its
/// way. What says something of an older generation than the newest is on its way, too.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckExpr {
    /// Group and version of the kind. Only the group counts.
    #[schemars(length(min = 1, max = 317))]
    pub api_version: String,

    /// The kind; every kind of the group when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,

    /// Holds when the object is ready.
    #[schemars(length(min = 1, max = 10_000))]
    pub current: String,

    /// Holds while it is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10_000))]
    pub in_progress: Option<String>,

    /// Holds when it cannot become ready any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10_000))]
    pub failed: Option<String>,

    /// Holds while somebody has paused it, which counts as ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10_000))]
    pub suspended: Option<String>,

    /// Holds while what it stands for is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10_000))]
    pub missing: Option<String>,

    /// Holds while it says of itself that it cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10_000))]
    pub unknown: Option<String>,
}

/// Fields of some objects.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IgnoreRule {
    /// The fields, as JSON pointers: /spec/replicas.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = Rule::new("self.all(path, path.startsWith('/'))").message("must be JSON pointers, which begin with /"))]
    #[x_kube(validation = Rule::new("!self.exists(path, path == '/apiVersion' || path == '/kind' || path in ['/metadata', '/metadata/name', '/metadata/namespace', '/metadata/labels', '/metadata/annotations'])").message("must not be what an object is or whose"))]
    pub paths: Vec<String>,

    /// Selects the objects. All when left out. Group, version, kind, name and namespace are regular
    /// expressions for the whole text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PatchTarget>,
}

/// A source in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SourceRef {
    /// Its kind, GitRepository when left out.
    #[serde(default)]
    pub kind: SourceKind,

    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Kinds of sources.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// A Git repository.
    #[default]
    GitRepository,
}

/// Whether what differs is put right.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is.
    #[default]
    Enforce,
    /// It is only told.
    Observe,
}

/// What becomes of the objects when their Application is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DeletionPolicy {
    /// They are deleted when `prune` is true, and stay when it is not.
    #[default]
    MirrorPrune,
    /// They are deleted.
    Delete,
    /// They are deleted, and the Application stays until they are gone.
    WaitForTermination,
    /// They stay, without our labels.
    Orphan,
}

/// Whether changes are tried before they are made.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Validate {
    /// Each is made, and told if it is refused.
    #[default]
    None,
    /// The API server is asked about all of them first.
    DryRun,
}

/// What becomes of objects that are there already.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Adopt {
    /// They are left alone.
    Never,
    /// They are taken where nobody else is in the way.
    #[default]
    IfUnowned,
    /// They are taken.
    Always,
}

/// What is applied and how it went.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Healthy where health is asked for, and while they apply Reconciling, Stalled, Drifted
    /// and PruneHeld.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The revision whose content is in place. A commit that touches nothing of this Application
    /// does not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_revision: Option<String>,

    /// The revision of the last run, whatever became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempted_revision: Option<String>,

    /// The value of the annotation reconcile.plumb.dev/requestedAt that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,

    /// How many objects the applied revision has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<i64>,

    /// Digest of the objects as desired. Of those that hold values of Secrets it
    /// names what they are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,

    /// Digest of the live objects, but for those below, when all were last found equal to the desired
    /// ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_digest: Option<String>,

    /// The first 50 objects that go by themselves once they are done, Jobs with a time to live, as they
    /// last were in place: none is made again for being gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_TRANSIENT))]
    pub transient: Vec<Transient>,

    /// Where objects of this Application can be: the copy of what stands in its annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,

    /// The first 20 things that went wrong in the last run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_FAILURES))]
    pub failures: Vec<Failure>,

    /// How many things went wrong in the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_count: Option<i64>,

    /// Deletions that wait for approval. To approve them, set the annotation
    /// plumb.dev/approve-prune to the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<HeldPrune>,

    /// What is waited for: objects that are applied and not ready. Absent when all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,

    /// The last change by somebody else that was found, and put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,

    /// The first 20 objects of which something that Git has is left to others: what `ignore` names and
    /// somebody else has changed, replicas that an autoscaler writes, rules of an aggregated role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_YIELDED))]
    pub yielded: Vec<Yielded>,

    /// The last ten distinct outcomes, newest first. Their commits stay in the cache, so each can
    /// be pinned with `spec.revision` also while Git cannot be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_HISTORY))]
    pub history: Vec<HistoryEntry>,
}

/// Where objects of an Application can be.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// Their kinds: ConfigMap, Deployment.apps.
    #[serde(default)]
    pub group_kinds: Vec<String>,

    /// Their namespaces.
    #[serde(default)]
    pub namespaces: Vec<String>,

    /// The uid of the Application for which it was found out what of these kinds an earlier
    /// Application of its name left behind. While it is another, deletions of objects that are older
    /// than this Application are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_for: Option<String>,

    /// The kinds of which that is not known yet, or of which something is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsettled_kinds: Vec<String>,
}

/// One thing that went wrong.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The object: Deployment apps/web. Left out when a file was not understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,

    /// Where it is written: apps/web/deployment.yaml:12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,

    /// One word for what kind of failure it is.
    pub reason: String,

    /// What went wrong and what helps.
    pub message: String,
}

/// Objects that are applied and not ready.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Since when: since they were applied, or since the first of them ceased to be ready. The time-out
    /// counts from here.
    pub since: Time,

    /// How many objects are ready.
    pub ready: i64,

    /// How many there are that count.
    pub total: i64,

    /// The first 20 that are not ready, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_UNREADY))]
    pub objects: Vec<Unready>,
}

/// An object that is not ready.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Unready {
    /// The object: Deployment.apps web/api.
    pub object: String,

    /// How it is: Progressing, Unknown, Missing or Degraded.
    pub health: String,

    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Deletions that wait for approval.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HeldPrune {
    /// Digest of this very list of deletions, to be named in the annotation
    /// plumb.dev/approve-prune. Another list has another digest.
    pub digest: String,

    /// How many objects would be deleted.
    pub count: i64,

    /// The first 20 of them.
    #[serde(default)]
    #[schemars(length(max = MAX_HELD_OBJECTS))]
    pub objects: Vec<String>,

    /// Why they are held.
    pub reason: String,
}

/// A change by somebody else that was put back.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// When it was found.
    pub time: Time,

    /// The object: Deployment apps/web.
    pub object: String,

    /// The first 20 fields that were changed: spec.replicas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_DRIFTED_FIELDS))]
    pub fields: Vec<String>,

    /// Who changed them: the field manager that the API server noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,

    /// How many corrections there have been since this Application was created.
    pub count: i64,
}

/// An object that goes by itself once it is done.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Transient {
    /// The object: Job.batch web/migrate.
    pub object: String,

    /// Digest of the object as it was desired. Of one that holds values of Secrets it names what it is
    /// made from.
    pub digest: String,

    /// Digest of the live object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_digest: Option<String>,
}

/// Fields that are left to others.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Yielded {
    /// The object: Deployment apps/web.
    pub object: String,

    /// The first 20 of the fields: spec.replicas.
    #[serde(default)]
    #[schemars(length(max = MAX_YIELDED))]
    pub fields: Vec<String>,
}

/// One outcome, and the runs that ended in it one after the other.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The revision that was to be applied.
    pub revision: String,

    /// Digest of its objects as desired. Left out when they could not be rendered. Of those that hold values of Secrets it
    /// names what they are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,

    /// How it ended.
    pub result: HistoryResult,

    /// What went wrong, in short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When a run first ended so.
    pub first_time: Time,

    /// When a run last ended so.
    pub last_time: Time,

    /// How many runs ended so.
    pub count: i64,
}

/// How a run ended.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HistoryResult {
    /// All objects are applied.
    Succeeded,
    /// Something went wrong.
    Failed,
}
