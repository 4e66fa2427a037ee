//! Every version of every object of some kinds, as the API server's watches tell them.
//!
//! A witness that is independent of what it watches over: a deletion names the uid and resource
//! version that it was meant for, and here stands what that object was.

use crate::control_plane::ControlPlane;
use crate::objects::{Kind, to_json};
use crate::wait::wait_for;
use futures::{StreamExt as _, pin_mut};
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// One version of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Its kind.
    pub kind: Kind,
    /// Its resource version. One counter for all kinds, so versions of different objects compare.
    pub number: u64,
    /// The object; of a deleted one its last state.
    pub object: Arc<Value>,
    /// Whether this is its end.
    pub deleted: bool,
}

impl Version {
    /// The uid of the object.
    pub fn uid(&self) -> &str {
        text(&self.object, "uid")
    }
}

/// Follows kinds from its start on.
pub struct History {
    seen: Arc<Mutex<Seen>>,
    kinds: Vec<(Kind, Api<DynamicObject>)>,
    watches: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// In the order of arrival, which is that of the numbers within a kind.
    versions: Vec<Version>,
    /// Where in there the versions of a uid are.
    of: HashMap<String, Vec<usize>>,
    live: BTreeMap<(Kind, String, String), usize>,
    /// Who is told of each version as it comes.
    told: Vec<mpsc::UnboundedSender<(Instant, Version)>>,
}

impl Seen {
    fn add(&mut self, version: Version) {
        let now = Instant::now();
        self.told.retain(|told| told.send((now, version.clone())).is_ok());
        self.put(version);
    }

    fn put(&mut self, version: Version) {
        let (namespace, name) = (text(&version.object, "namespace"), text(&version.object, "name"));
        let key = (version.kind, namespace.to_owned(), name.to_owned());
        let index = self.versions.len();
        if version.deleted {
            self.live.remove(&key);
        } else {
            self.live.insert(key, index);
        }
        self.of.entry(version.uid().to_owned()).or_default().push(index);
        self.versions.push(version);
    }
}

impl History {
    /// Lists these kinds and follows them, on the runtime of the caller.
    pub async fn follow(plane: &ControlPlane, kinds: &[Kind]) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let client = plane.client().await;
        let mut history = Self { seen: Arc::clone(&seen), kinds: Vec::new(), watches: Vec::new() };
        for &kind in kinds {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
            let list = api.list(&ListParams::default()).await.expect("the API server answers");
            let from = list.metadata.resource_version.expect("a list has a version");
            for object in list.items {
                seen.lock().expect("not poisoned").add(version(kind, object, false));
            }
            history.kinds.push((kind, api.clone()));
            history.watches.push(tokio::spawn(watch(api, kind, from, Arc::clone(&seen))));
        }
        history
    }

    /// Every version that comes from now on, with the moment in which it came.
    pub fn news(&self) -> mpsc::UnboundedReceiver<(Instant, Version)> {
        let (tell, news) = mpsc::unbounded_channel();
        self.seen.lock().expect("not poisoned").told.push(tell);
        news
    }

    /// The live objects, by kind, namespace and name.
    pub fn live(&self) -> BTreeMap<(Kind, String, String), Version> {
        let seen = self.seen.lock().expect("not poisoned");
        seen.live.iter().map(|(key, at)| (key.clone(), seen.versions[*at].clone())).collect()
    }

    /// How many versions there are: a mark for [`History::since`].
    pub fn mark(&self) -> usize {
        self.seen.lock().expect("not poisoned").versions.len()
    }

    /// The versions after a mark, each with the one before it of the same object.
    pub fn since(&self, mark: usize) -> Vec<(Option<Version>, Version)> {
        let seen = self.seen.lock().expect("not poisoned");
        let pair = |(at, version): (usize, &Version)| {
            let of = &seen.of[version.uid()];
            let before = of.iter().rev().find(|before| **before < at + mark);
            (before.map(|before| seen.versions[*before].clone()), version.clone())
        };
        seen.versions[mark..].iter().enumerate().map(pair).collect()
    }

    /// A version of an object.
    pub fn at(&self, uid: &str, number: u64) -> Option<Version> {
        let seen = self.seen.lock().expect("not poisoned");
        let mut of = seen.of.get(uid)?.iter().map(|at| &seen.versions[*at]);
        of.find(|version| version.number == number).cloned()
    }

    /// Everything that was live when the counter stood there.
    pub fn live_at(&self, number: u64) -> Vec<Version> {
        let seen = self.seen.lock().expect("not poisoned");
        let newest = |of: &Vec<usize>| {
            let mut of = of.iter().rev().map(|at| &seen.versions[*at]);
            of.find(|version| version.number <= number)
        };
        seen.of.values().filter_map(newest).filter(|v| !v.deleted).cloned().collect()
    }

    /// Waits until everything that the API server has is here, and nothing else. Only while nobody
    /// writes does that tell anything.
    pub async fn caught_up(&self) {
        for (kind, api) in &self.kinds {
            wait_for(
                &format!("the history of {}", kind.plural),
                Duration::from_secs(30),
                async || {
                    let list = api.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
                    let listed: BTreeMap<String, u64> = list
                        .items
                        .into_iter()
                        .map(|object| version(*kind, object, false))
                        .map(|version| (version.uid().to_owned(), version.number))
                        .collect();
                    let live = self.live().into_values().filter(|version| version.kind == *kind);
                    let known: BTreeMap<String, u64> =
                        live.map(|version| (version.uid().to_owned(), version.number)).collect();
                    if listed == known { Ok(()) } else { Err(format!("{listed:?} and {known:?}")) }
                },
            )
            .await;
        }
    }

    /// Forgets all but the newest version of what is live. Marks from before do not hold any more.
    pub fn forget(&self) {
        let mut seen = self.seen.lock().expect("not poisoned");
        let live: Vec<_> = seen.live.values().map(|at| seen.versions[*at].clone()).collect();
        *seen = Seen { told: std::mem::take(&mut seen.told), ..Seen::default() };
        for version in live {
            seen.put(version);
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

async fn watch(api: Api<DynamicObject>, kind: Kind, mut from: String, seen: Arc<Mutex<Seen>>) {
    loop {
        // The API server ends a watch after a while; the next one goes on where it stood.
        let events = api.watch(&WatchParams::default().timeout(290), &from).await;
        let Ok(events) = events else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        pin_mut!(events);
        while let Some(Ok(event)) = events.next().await {
            let (object, deleted) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(mark) => {
                    from = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(error) => panic!("the watch of {}: {error}", kind.plural),
            };
            let version = version(kind, object, deleted);
            from = version.number.to_string();
            seen.lock().expect("not poisoned").add(version);
        }
    }
}

fn version(kind: Kind, object: DynamicObject, deleted: bool) -> Version {
    let number = object.metadata.resource_version.as_deref().and_then(|text| text.parse().ok());
    let number = number.expect("an object has a resource version");
    Version { kind, number, object: Arc::new(to_json(object)), deleted }
}

fn text<'v>(object: &'v Value, field: &str) -> &'v str {
    object["metadata"][field].as_str().unwrap_or_default()
}
