//! A repository to read, and where in it.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Duration};

/// Bounds one listing or fetch when the spec does not say; Flux has the same.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

fn default_timeout() -> Duration {
    DEFAULT_TIMEOUT
}

/// Where to read manifests from: a Git repository, a ref in it, and how often to look.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "plumb.dev",
    version = "v1alpha1",
    kind = "GitRepository",
    plural = "gitrepositories",
    namespaced,
    status = "GitRepositoryStatus",
    derive = "PartialEq",
    category = "plumb",
    doc = "A GitRepository names a Git repository and a ref in it; Applications apply what that ref holds.",
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
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.verify) || self.verify.mode == 'HEAD' || has(self.ref) && (has(self.ref.tag) || has(self.ref.semver))").message("the modes Tag and TagAndHEAD need ref.tag or ref.semver").field_path(".verify.mode"))]
pub struct GitRepositorySpec {
    /// Address of the repository, over HTTPS, HTTP or SSH: https://example.com/org/repo.git,
    /// ssh://git@example.com/org/repo.git, or git@example.com:org/repo.git. Credentials stand in the
    /// Secret that `secretRef` names, never here, but for the user's name with SSH, which is git
    /// where none is given.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new(r"self.matches(r'^(https?|ssh)://|^[A-Za-z0-9_][A-Za-z0-9._+~-]*@(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[^\s]+$')").message("must start with https://, http:// or ssh://, or be of the form user@host:path"))]
    #[x_kube(validation = Rule::new("!self.matches('^(https?|ssh)://') || isURL(self) && url(self).getHostname() != ''").message("must be a URL with a host"))]
    #[x_kube(validation = Rule::new("!self.matches('^https?://[^/?#]*@|^ssh://[^/?#]*:[^/?#]*@')").message("must not contain credentials; put username and password in a Secret and name it in secretRef"))]
    pub url: String,

    /// Which commit to use. Without it, the branch that the repository's HEAD names.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitReference>,

    /// How often to look for a new commit: 30s, 5m, 1h. A look that finds nothing new costs one
    /// small request. To look at once, set the annotation reconcile.plumb.dev/requestedAt to a new
    /// value.
    pub interval: Duration,

    /// The longest that one listing or fetch may take. 1m when left out.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,

    /// A Secret in the same namespace that says how to get in: `username` and `password` (tokens of
    /// GitHub, GitLab and Bitbucket are passwords), or `bearerToken`, or a GitHub App; `ca.crt` for
    /// a server with an authority of its own; `tls.crt` and `tls.key` for one that asks for a
    /// certificate. For SSH: `identity`, a private key, `known_hosts`, the keys of the server, and
    /// `password`, the passphrase of the private key if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// Whose signatures a commit, or the tag that leads to it, must have. Without them nothing of it
    /// is applied, and what was verified last stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verification>,

    /// What to do when the ref's new commit does not follow the last one, because somebody pushed
    /// with force or moved a tag. Accept: use it, and say so in an event. Hold: keep the last
    /// revision until the annotation plumb.dev/accept-rewrite names both commits, LAST..NEW.
    #[serde(default, skip_serializing_if = "OnRewrite::is_accept")]
    pub on_rewrite: OnRewrite,

    /// A Secret in the same namespace that names a proxy: `address`, an http://, https:// or
    /// socks5:// URL, and `username` and `password` if it asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_secret_ref: Option<SecretRef>,

    /// Files to leave out, in the syntax of .gitignore, on top of the .plumbignore and .sourceignore
    /// files in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ignore: Option<String>,

    /// Read submodules, and those in them, in their places, from the repositories that .gitmodules
    /// names. Credentials go to those at the same scheme, host and port as `url` only. A commit whose
    /// submodules cannot be fetched is not used. When left out, a submodule is an empty directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recurse_submodules: bool,

    /// While true, the repository is not looked at. Applications keep the last revision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// What to do when history was written anew.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRewrite {
    /// Use it.
    #[default]
    Accept,
    /// Wait for a person.
    Hold,
}

impl OnRewrite {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_accept(&self) -> bool {
        *self == Self::Accept
    }
}

/// Whose signatures count, and on what.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// What has to be signed: the commit (HEAD), the annotated tag that `ref.tag` or `ref.semver`
    /// leads to (Tag), or both (TagAndHEAD).
    #[serde(default)]
    pub mode: VerificationMode,

    /// A Secret in the same namespace with the public keys that are trusted: OpenPGP keys in entries
    /// named *.asc, SSH keys in entries named *.sshpub.
    pub secret_ref: SecretRef,
}

/// What is asked to be signed, or was found to be.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VerificationMode {
    /// The commit.
    #[default]
    #[serde(rename = "HEAD")]
    Head,
    /// The annotated tag.
    Tag,
    /// Both.
    #[serde(rename = "TagAndHEAD")]
    TagAndHead,
}

/// A commit, named in one of five ways.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.branch) || has(self.commit) ? 1 : 0) + (has(self.tag) ? 1 : 0) + (has(self.semver) ? 1 : 0) + (has(self.name) ? 1 : 0) <= 1").message("set only one of branch, tag, semver, name and commit (branch and commit may go together)"))]
#[x_kube(validation = Rule::new("!has(self.semverPattern) || has(self.semver)").message("semverPattern says which tags count for semver; set semver, too"))]
pub struct GitReference {
    /// The newest commit of this branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new(r"!self.matches(r'[\s~^:?*\[\\]|\.\.')").message("is not a name that Git allows for a branch"))]
    pub branch: Option<String>,

    /// The commit of this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new(r"!self.matches(r'[\s~^:?*\[\\]|\.\.')").message("is not a name that Git allows for a tag"))]
    pub tag: Option<String>,

    /// The tag with the highest version in this range: ">=1.2.0 <2.0.0", "1.x", "^1.4".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub semver: Option<String>,

    /// Which tags count for `semver`: a regular expression (RE2) that the whole tag must match. Its
    /// first group is the version: `web-(.*)` for tags like web-1.2.0. Without a group the whole tag
    /// is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub semver_pattern: Option<String>,

    /// Any ref by its full name: refs/heads/main, refs/pull/12/head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new(r"self.matches(r'^refs/[^\s~^:?*\[\\]+$') && !self.contains('..')").message("must be the full name of a ref, like refs/heads/main"))]
    pub name: Option<String>,

    /// This commit, by its full id of 40 hexadecimal digits in lower case. With `branch`, only for
    /// reading: the commit decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{40}$')").message("must be a full commit id: 40 hexadecimal digits in lower case"))]
    pub commit: Option<String>,
}

/// A Secret in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What is known about the repository.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GitRepositoryStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Fetched, SourceVerified, and while they apply Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// What of `revision` was found to be signed: HEAD, Tag or TagAndHEAD. By whom stands in the
    /// condition SourceVerified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_verification_mode: Option<VerificationMode>,

    /// The commit that the ref names, with the ref: main@sha1:<40 digits>.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,

    /// The value of the annotation reconcile.plumb.dev/requestedAt that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
}
