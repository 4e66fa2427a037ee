//! Which kinds the API server serves.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _};
use plumb_core::{GroupKind, Gvk};
use serde::Deserialize;

use super::Cluster;
use super::error::{ApiError, describe};
use super::request::{Answer, Call, PAGE_LIMIT, Subject};
use super::resource::Resource;

/// Group versions asked for at once from a server without aggregated discovery.
const AT_ONCE: usize = 4;

/// The kinds that a server serves at one moment.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    /// By group and kind, the versions in the server's order of preference.
    kinds: BTreeMap<GroupKind, Vec<Resource>>,
    /// Groups of which some version could not be asked.
    unknown: BTreeSet<String>,
}

impl Discovery {
    /// A kind in exactly this version.
    pub fn find(&self, gvk: &Gvk) -> Option<&Resource> {
        self.by_group_kind(&gvk.group_kind())
            .iter()
            .find(|resource| resource.gvk.version == gvk.version)
    }

    /// A kind in the version that the server prefers.
    pub fn preferred(&self, kind: &GroupKind) -> Option<&Resource> {
        self.by_group_kind(kind).first()
    }

    /// A kind in all its versions, the preferred one first.
    pub fn by_group_kind(&self, kind: &GroupKind) -> &[Resource] {
        self.kinds.get(kind).map_or(&[], Vec::as_slice)
    }

    /// Every kind in its preferred version, by group and kind.
    pub fn kinds(&self) -> impl Iterator<Item = &Resource> {
        self.kinds.values().filter_map(|versions| versions.first())
    }

    /// Whether the server could not say all that it serves of a group, as when an aggregated API
    /// server is down: what is not found in it may exist all the same.
    pub fn is_unknown(&self, group: &str) -> bool {
        self.unknown.contains(group)
    }

    /// The groups that [`Self::is_unknown`] is true for.
    pub fn unknown_groups(&self) -> impl Iterator<Item = &str> {
        self.unknown.iter().map(String::as_str)
    }

    /// What a server that serves these kinds says.
    #[cfg(test)]
    pub(crate) fn of(resources: impl IntoIterator<Item = Resource>) -> Self {
        let mut discovery = Self::default();
        resources.into_iter().for_each(|resource| discovery.add(resource));
        discovery
    }

    /// A group whose kinds the server cannot tell.
    #[cfg(test)]
    pub(crate) fn set_unknown(&mut self, group: &str) {
        self.unknown.insert(group.into());
    }

    /// Adds a kind behind those that are there. Where one version serves a kind under two names,
    /// the one that can do more stays.
    fn add(&mut self, resource: Resource) {
        let versions = self.kinds.entry(resource.gvk.group_kind()).or_default();
        match versions.iter_mut().find(|seen| seen.gvk == resource.gvk) {
            None => versions.push(resource),
            Some(seen) if seen.verbs.len() < resource.verbs.len() => *seen = resource,
            Some(_) => {}
        }
    }

    fn add_aggregated(&mut self, list: Aggregated) {
        for group in list.items {
            let name = group.metadata.name;
            for version in group.versions {
                if version.freshness.as_deref() == Some("Stale") {
                    self.unknown.insert(name.clone());
                }
                for resource in version.resources {
                    // Without a kind there are only subresources.
                    let Some(kind) = resource.response_kind.filter(|kind| !kind.kind.is_empty())
                    else {
                        continue;
                    };
                    // The kind's own group and version are empty where they are the resource's.
                    self.add(Resource {
                        gvk: Gvk {
                            group: name.as_str().into(),
                            version: version.version.as_str().into(),
                            kind: kind.kind.into(),
                        },
                        plural: resource.resource,
                        namespaced: resource.scope == "Namespaced",
                        verbs: resource.verbs.into_iter().collect(),
                        subresources: resource
                            .subresources
                            .into_iter()
                            .map(|subresource| subresource.subresource)
                            .collect(),
                    });
                }
            }
        }
    }

    fn add_version(&mut self, group: &str, version: &str, list: VersionResources) {
        let (subresources, resources): (Vec<_>, Vec<_>) =
            list.resources.into_iter().partition(|resource| resource.name.contains('/'));
        for resource in resources {
            let subresources = subresources
                .iter()
                .filter_map(|subresource| subresource.name.split_once('/'))
                .filter(|(plural, _)| *plural == resource.name)
                .map(|(_, name)| name.to_owned())
                .collect();
            self.add(Resource {
                gvk: Gvk {
                    group: group.into(),
                    version: version.into(),
                    kind: resource.kind.into(),
                },
                plural: resource.name,
                namespaced: resource.namespaced,
                verbs: resource.verbs.into_iter().collect(),
                subresources,
            });
        }
    }
}

impl Cluster {
    /// Asks what the server serves: two requests, or one for each version of each group where the
    /// server has no aggregated discovery. A group that cannot be asked is remembered as unknown
    /// and fails nothing else.
    pub async fn discover(&self) -> Result<Discovery, ApiError> {
        let mut discovery = Discovery::default();
        let mut versions = Vec::new();
        for root in ["/api", "/apis"] {
            let call = call("the kinds served", root.into());
            let answer = call.send(self).await?;
            match read_root(&answer).map_err(|what| call.undecodable(what))? {
                Root::Aggregated(list) => discovery.add_aggregated(list),
                Root::Versions(found) => versions.extend(found),
            }
        }
        // In order, so that the preferred versions stay first.
        let mut answers = stream::iter(versions)
            .map(|(group, version)| async move {
                let answer = self.discover_version(&group, &version).await;
                (group, version, answer)
            })
            .buffered(AT_ONCE);
        while let Some((group, version, answer)) = answers.next().await {
            match answer {
                Ok(list) => discovery.add_version(&group, &version, list),
                Err(error) => {
                    tracing::warn!(group, version, %error, "an API group cannot be asked for its kinds");
                    discovery.unknown.insert(group);
                }
            }
        }
        Ok(discovery)
    }

    async fn discover_version(
        &self,
        group: &str,
        version: &str,
    ) -> Result<VersionResources, ApiError> {
        let path = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let call = call(&path, path.clone());
        let answer = call.send(self).await?;
        serde_json::from_slice(&answer).map_err(|error| call.undecodable(describe(&error)))
    }
}

fn call(words: &str, path: String) -> Call<'_> {
    Call {
        limit: PAGE_LIMIT,
        ..Call::get("discover", Subject::Words(words), path, Answer::Discovery)
    }
}

/// What `/api` and `/apis` answer.
enum Root {
    Aggregated(Aggregated),
    /// Groups and versions to ask for one by one, preferred versions first.
    Versions(Vec<(String, String)>),
}

fn read_root(json: &[u8]) -> Result<Root, String> {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    #[derive(Deserialize)]
    struct Versions {
        #[serde(default)]
        versions: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Groups {
        #[serde(default)]
        groups: Vec<Group>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Group {
        name: String,
        #[serde(default)]
        versions: Vec<Version>,
        #[serde(default)]
        preferred_version: Option<Version>,
    }
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }

    let bad = |error: serde_json::Error| describe(&error);
    let Kind { kind } = serde_json::from_slice(json).map_err(bad)?;
    match kind.as_str() {
        "APIGroupDiscoveryList" => serde_json::from_slice(json).map(Root::Aggregated).map_err(bad),
        "APIVersions" => {
            let Versions { versions } = serde_json::from_slice(json).map_err(bad)?;
            let versions = versions.into_iter().map(|version| (String::new(), version));
            Ok(Root::Versions(versions.collect()))
        }
        "APIGroupList" => {
            let Groups { groups } = serde_json::from_slice(json).map_err(bad)?;
            let mut found = Vec::new();
            for mut group in groups {
                if let Some(preferred) = &group.preferred_version {
                    // Stable: the others keep their order.
                    group.versions.sort_by_key(|version| version.version != preferred.version);
                }
                let versions = group.versions.into_iter();
                found.extend(versions.map(|version| (group.name.clone(), version.version)));
            }
            Ok(Root::Versions(found))
        }
        _ => Err("it is not a discovery document".into()),
    }
}

#[derive(Deserialize)]
struct Aggregated {
    #[serde(default)]
    items: Vec<AggregatedGroup>,
}

#[derive(Deserialize)]
struct AggregatedGroup {
    #[serde(default)]
    metadata: AggregatedMeta,
    #[serde(default)]
    versions: Vec<AggregatedVersion>,
}

#[derive(Default, Deserialize)]
struct AggregatedMeta {
    /// Empty for the core group.
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct AggregatedVersion {
    version: String,
    #[serde(default)]
    resources: Vec<AggregatedResource>,
    #[serde(default)]
    freshness: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedResource {
    resource: String,
    #[serde(default)]
    response_kind: Option<AggregatedKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    subresources: Vec<AggregatedSubresource>,
}

#[derive(Deserialize)]
struct AggregatedKind {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
struct AggregatedSubresource {
    subresource: String,
}

#[derive(Deserialize)]
struct VersionResources {
    #[serde(default)]
    resources: Vec<VersionResource>,
}

#[derive(Deserialize)]
struct VersionResource {
    name: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::script::{Says, Script};
    use super::*;

    fn aggregated(name: &str, versions: &serde_json::Value) -> String {
        json!({
            "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
            "items": [{"metadata": {"name": name}, "versions": versions}],
        })
        .to_string()
    }

    #[tokio::test]
    async fn aggregated_documents_are_read() {
        let core = json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {}, "versions": [{
            "version": "v1", "freshness": "Current", "resources": [
                {"resource": "configmaps", "responseKind": {"group": "", "version": "", "kind": "ConfigMap"},
                 "scope": "Namespaced", "verbs": ["get", "list", "patch"]},
                {"resource": "namespaces", "responseKind": {"group": "", "version": "", "kind": "Namespace"},
                 "scope": "Cluster", "verbs": ["get"], "subresources": [
                    {"subresource": "finalize", "responseKind": {"kind": "Namespace"}, "verbs": ["update"]},
                    {"subresource": "status", "verbs": ["get"]}]},
                {"resource": "only-subresources", "scope": "Namespaced", "verbs": []},
            ]}]}]}).to_string();
        let served = |version: &str, freshness: &str| {
            json!({"version": version, "freshness": freshness, "resources": [
                {"resource": "things", "responseKind": {"kind": "Thing"}, "scope": "Namespaced", "verbs": ["get"]},
                {"resource": "thingviews", "responseKind": {"kind": "Thing"}, "scope": "Namespaced", "verbs": []},
            ]})
        };
        let groups = aggregated(
            "example.com",
            &json!([served("v2", "Current"), served("v1", "Current"), {"version": "v3alpha1", "freshness": "Stale"}]),
        );
        let script = Script::new([Says::ok(core), Says::ok(groups)]);
        let discovery = script.cluster().discover().await.unwrap();
        let asked = script.asked();
        assert_eq!(asked.iter().map(|asked| &*asked.uri).collect::<Vec<_>>(), ["/api", "/apis"]);
        assert!(asked[0].header("accept").starts_with(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        ));

        let namespace = discovery.find(&Gvk::new("v1", "Namespace")).unwrap();
        assert!(!namespace.namespaced && namespace.subresources.contains("finalize"));
        assert!(discovery.find(&Gvk::new("v1", "ConfigMap")).unwrap().can("patch"));
        let thing = GroupKind::new("example.com", "Thing");
        assert_eq!(discovery.preferred(&thing).unwrap().gvk.version, "v2");
        assert_eq!(discovery.preferred(&thing).unwrap().plural, "things");
        assert_eq!(discovery.by_group_kind(&thing).len(), 2);
        assert!(discovery.find(&Gvk::new("example.com/v1", "Thing")).is_some());
        assert!(discovery.find(&Gvk::new("example.com/v3", "Thing")).is_none());
        assert!(discovery.is_unknown("example.com") && !discovery.is_unknown(""));
        assert_eq!(discovery.unknown_groups().collect::<Vec<_>>(), ["example.com"]);
        assert_eq!(discovery.kinds().count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn older_servers_are_asked_version_by_version() {
        let groups = json!({"kind": "APIGroupList", "groups": [
            {"name": "example.com", "versions": [{"version": "v1"}, {"version": "v2"}],
             "preferredVersion": {"groupVersion": "example.com/v2", "version": "v2"}},
            {"name": "metrics.k8s.io", "versions": [{"version": "v1beta1"}]},
        ]});
        let served = json!({"kind": "APIResourceList", "resources": [
            {"name": "things/status", "kind": "Thing", "namespaced": true, "verbs": ["patch"]},
            {"name": "things", "kind": "Thing", "namespaced": true, "verbs": ["get", "list"]},
        ]});
        let down = || Says::Status(503, None, "service unavailable".into());
        let script = Script::new([
            Says::ok(json!({"kind": "APIVersions", "versions": ["v1"]}).to_string()),
            Says::ok(groups.to_string()),
            Says::ok(json!({"resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": true}]}).to_string()),
            Says::ok(served.to_string()),
            Says::ok(served.to_string()),
            down(),
            down(),
            down(),
        ]);
        let discovery = script.cluster().discover().await.unwrap();
        assert!(script.is_done());
        let uris: Vec<String> = script.asked().into_iter().map(|asked| asked.uri).collect();
        assert_eq!(
            uris[2..6],
            [
                "/api/v1",
                "/apis/example.com/v2",
                "/apis/example.com/v1",
                "/apis/metrics.k8s.io/v1beta1"
            ]
        );
        let thing = discovery.preferred(&GroupKind::new("example.com", "Thing")).unwrap();
        assert_eq!(thing.gvk.version, "v2");
        assert!(thing.can("list") && thing.subresources.contains("status"));
        assert!(discovery.find(&Gvk::new("v1", "ConfigMap")).is_some());
        assert!(discovery.is_unknown("metrics.k8s.io") && !discovery.is_unknown("example.com"));
    }

    #[tokio::test]
    async fn nonsense_is_an_error() {
        for body in ["hunter2", r#"{"kind":"Hunter2"}"#] {
            let script = Script::new([Says::ok(body)]);
            let error = script.cluster().discover().await.unwrap_err();
            assert!(matches!(error, ApiError::Decode { .. }));
            assert!(!format!("{error:?}").to_lowercase().contains("hunter2"));
        }
    }
}
