//! Reads and watches ConfigMaps and Secrets that specs name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use futures::stream::SelectAll;
use plumb_engine::{ApiError, Cluster, Target, WatchEvent, watch_versions};
use serde::Deserialize;

use super::Daemon;
use crate::named::{Content, Found, Named, NamedKind, Part, Told, Version};
use crate::names::{Key, Name};

impl Daemon {
    /// Never ends.
    pub(super) async fn follow_named(self: Arc<Self>) {
        let [config_maps, secrets] = NamedKind::ALL;
        tokio::join!(self.follow_named_kind(config_maps), self.follow_named_kind(secrets));
    }

    async fn follow_named_kind(&self, kind: NamedKind) {
        let scopes: Vec<Option<String>> = if self.settings.namespaces.is_empty() {
            vec![None]
        } else {
            self.settings.namespaces.iter().cloned().map(Some).collect()
        };
        let mut needed = self.state.lock().named.needed();
        while needed.wait_for(|kinds| kinds.contains(&kind)).await.is_ok() {
            let mut events = SelectAll::new();
            for scope in &scopes {
                let part: Part = (kind, scope.clone());
                let cluster = self.engine.cluster();
                let watch = watch_versions(cluster, &kind.resource(), scope.as_deref());
                events.push(watch.map(move |event| (part.clone(), event)).boxed());
            }
            loop {
                tokio::select! {
                    _ = needed.wait_for(|kinds| !kinds.contains(&kind)) => break,
                    Some((part, event)) = events.next() => self.take_named(&part, event),
                }
            }
            for scope in &scopes {
                self.state.lock().named.told(&(kind, scope.clone()), Told::Lost);
            }
        }
    }

    fn take_named(&self, part: &Part, event: WatchEvent<u64>) {
        let name = |key: plumb_core::ObjectKey| Name::new(&key.namespace, &key.name);
        let told = match event {
            WatchEvent::Restarted => Told::Lost,
            WatchEvent::Listed(objects, _) => Told::Listed(
                objects.into_iter().map(|(key, version)| (name(key), version)).collect(),
            ),
            WatchEvent::Changed(key, version) => Told::Changed(name(key), version),
            WatchEvent::Deleted(key, _) => Told::Gone(name(key)),
            WatchEvent::Unreadable(key, error) => {
                tracing::warn!(%key, %error, "cannot read");
                return;
            }
            WatchEvent::Failed(error) => {
                tracing::warn!(kind = ?part.0, %error, "cannot watch what specs name");
                Told::Lost
            }
        };
        let woken: Vec<Key> = {
            let mut store = self.state.lock();
            let changed = store.named.told(part, told);
            changed.iter().flat_map(|named| store.wake_askers(named)).collect()
        };
        self.call_all(woken);
    }

    /// Reads, as an account, what the spec of an object of ours names, but for what it has read before
    /// and is unchanged.
    pub(crate) async fn find_named(
        &self,
        who: &Key,
        names: BTreeSet<Named>,
        cluster: &Cluster,
    ) -> Result<Arc<Found>, (Named, ApiError)> {
        let (wanted, before) = {
            let store = self.state.lock();
            let found = store.found(who);
            let unchanged = |named: &Named| {
                let before = found.get(named)?;
                let now = store.named.current(named)?;
                (now == Version::of(before.as_ref())).then(|| before.clone())
            };
            let known: Vec<_> = names.into_iter().map(|named| (unchanged(&named), named)).collect();
            (known, found)
        };
        let mut found = Found::new();
        for (known, named) in wanted {
            let content = match known {
                Some(content) => content,
                None => match read_named(cluster, &named).await {
                    Ok(content) => content.map(Arc::new),
                    Err(error) => return Err((named, error)),
                },
            };
            found.insert(named, content);
        }
        if *before == found {
            return Ok(before);
        }
        let found = Arc::new(found);
        self.state.lock().note_found(who, &found);
        Ok(found)
    }
}

/// Reads one object; `None` when there is none.
pub(super) async fn read_named(
    cluster: &Cluster,
    named: &Named,
) -> Result<Option<Content>, ApiError> {
    #[derive(Deserialize)]
    struct Raw {
        metadata: Metadata,
        #[serde(default)]
        data: Option<BTreeMap<String, String>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }
    let resource = named.kind.resource();
    let target = Target::new(&resource, &named.name.namespace, &named.name.name);
    let Some(raw) = cluster.get_json::<Raw>(&target).await? else {
        return Ok(None);
    };
    let unreadable = |what: &str| ApiError::Decode {
        operation: "read",
        subject: named.to_string(),
        what: what.into(),
    };
    let version = raw.metadata.resource_version.parse();
    let version = version.map_err(|_| unreadable("the resource version is not a number"))?;
    let mut data = BTreeMap::new();
    for (key, value) in raw.data.unwrap_or_default() {
        let value = match named.kind {
            NamedKind::ConfigMap => value.into_bytes(),
            NamedKind::Secret => {
                STANDARD.decode(value).map_err(|_| unreadable("a value is not base64"))?
            }
        };
        data.insert(key, value);
    }
    Ok(Some(Content { version, data }))
}
