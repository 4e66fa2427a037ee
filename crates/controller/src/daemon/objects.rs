//! Watches the objects of any kind that Applications wait for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use plumb_engine::{
    Account, Resource, Target, WatchEvent, Words, pod_resource, watch_one, watch_one_version,
    watch_pods,
};
use plumb_health::Expression;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Daemon;
use crate::depends::json_of;
use crate::names::Key;
use crate::objects::{Ask, Found, Judge, ObjectRef, Seen};
use crate::pods::Stuck;
use crate::queue::Lane;

/// Waits between looks for a kind that the cluster does not have, or that failed, from the first to the
/// longest: nothing tells when a kind comes, or a right.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_mins(1);

fn longer(wait: Duration) -> Duration {
    (2 * wait).min(LONGEST_LOOK)
}

/// What a Pod says, with its name.
fn of_pod(pod: &str, Words { full, bare }: &Words) -> Words {
    Words { full: format!("Pod {pod}: {full}"), bare: format!("Pod {pod}: {bare}") }
}

/// Ended with its value.
struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An object that says of what kind it is. Items of a list do not.
fn named(mut object: Value, of: &ObjectRef) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".into(), of.api_version.as_str().into());
        fields.insert("kind".into(), of.kind.as_str().into());
    }
    object
}

impl Daemon {
    /// Watches what is waited for, each object as long as anybody does. Never ends.
    pub(super) async fn follow_objects(self: Arc<Self>) {
        let mut wanted = self.state.lock().wanted_objects.subscribe();
        let mut followers: BTreeMap<ObjectRef, Follower> = BTreeMap::new();
        loop {
            let objects = wanted.borrow_and_update().clone();
            followers.retain(|of, _| objects.contains(of));
            let called = {
                let mut store = self.state.lock();
                store.objects.retain(|of, _| objects.contains(of));
                store.next_unexplained()
            };
            for name in called {
                self.queue.add(Key::App(name), Lane::Routine);
            }
            for of in objects {
                followers
                    .entry(of.clone())
                    .or_insert_with(|| Follower(tokio::spawn(Arc::clone(&self).follow_object(of))));
            }
            if wanted.changed().await.is_err() {
                return;
            }
        }
    }

    /// Who judges an object; nobody where the spec that asks has changed, or is told to be wrong.
    fn judge_of(&self, of: &ObjectRef) -> Option<Judge> {
        let store = self.state.lock();
        let app = match &of.of {
            Some((name, _)) => Some(store.apps.get(name)?),
            None => None,
        };
        Some(match &of.ask {
            Ask::Ready(expression) => {
                let expression = expression.as_deref().map(Expression::compile).transpose().ok()?;
                Judge::Ready(expression, app.map(|app| json_of(app)).unwrap_or_default())
            }
            Ask::Pods(_) => return None,
            Ask::Health => Judge::Health(match app {
                Some(app) => app.rules.as_ref()?.1.clone().ok()?,
                None => Arc::default(),
            }),
        })
    }

    async fn follow_object(self: Arc<Self>, of: ObjectRef) {
        if let Ask::Pods(selector) = &of.ask {
            loop {
                let Some((account, pod)) = self.follow_pods(&of, selector).await else { return };
                self.saw(&of, Seen::PodsDenied);
                self.wait_until_readable(&of, &account, &pod).await;
                // Those that asked are asked anew, which ends this unless they did so again meanwhile.
                self.state.lock().look_anew(&of);
            }
        }
        let Some(judge) = self.judge_of(&of) else { return };
        let resource = self.resource_of(&of, &judge).await;
        let see = |found: Found<'_>| judge.see(&of, resource.namespaced, found);
        // Of a kind without namespaces the namespace says nothing.
        let namespace = Some(&*of.namespace).filter(|_| resource.namespaced);
        if resource.is_secret() && matches!(of.ask, Ask::Ready(_)) {
            self.saw(&of, see(Found::Secret));
            return;
        }
        let cluster = self.engine.cluster();
        let mut events = if resource.is_secret() {
            watch_one_version(cluster, &resource, namespace, &of.name)
                .map(|event| event.map(|_| Value::Null))
                .boxed()
        } else {
            watch_one::<Value>(cluster, &resource, namespace, &of.name).boxed()
        };
        let found = |object: &Value| {
            see(if resource.is_secret() { Found::Secret } else { Found::Object(object) })
        };
        if let Some(account) = &of.account {
            // The watch only says when to look.
            let target = Target::new(&resource, namespace.unwrap_or_default(), &of.name);
            let mut denied = false;
            loop {
                let event = if denied {
                    // Nothing tells when a right comes.
                    tokio::time::timeout(LONGEST_LOOK, events.next()).await.ok().flatten()
                } else {
                    events.next().await
                };
                if matches!(event, Some(WatchEvent::Restarted)) {
                    continue;
                }
                let looked = self.look_as(account, &target).await;
                denied = looked.is_err();
                let seen = match looked {
                    Ok(object) => object.as_ref().map_or_else(|| see(Found::Nothing), found),
                    Err(error) if error.is_forbidden() => see(Found::Denied(account)),
                    Err(error) => see(Found::Failed(error.to_string())),
                };
                self.saw(&of, seen);
            }
        }
        while let Some(event) = events.next().await {
            let seen = match event {
                // What was seen last holds until the list says otherwise.
                WatchEvent::Restarted => continue,
                WatchEvent::Listed(objects, _) => {
                    let first = objects.into_iter().next();
                    first.map_or_else(
                        || see(Found::Nothing),
                        |(_, object)| found(&named(object, &of)),
                    )
                }
                WatchEvent::Changed(_, object) => found(&object),
                WatchEvent::Deleted(..) => see(Found::Nothing),
                WatchEvent::Unreadable(_, error) => see(Found::Failed(error.to_string())),
                WatchEvent::Failed(error) => see(Found::Lost(error.to_string())),
            };
            self.saw(&of, seen);
        }
    }

    /// Watches the Pods of a workload. What one says is told as far as the account that acts may read it;
    /// where Plumb itself may not look nobody hears anything of Pods. Returns the account that may not
    /// read a Pod.
    async fn follow_pods(&self, of: &ObjectRef, selector: &str) -> Option<(Account, String)> {
        let mut events = std::pin::pin!(watch_pods(self.engine.cluster(), selector, &of.namespace));
        let mut stuck = Stuck::of(of);
        let mut readable = BTreeSet::new();
        // When a look that failed is made again: a Pod that stays as it is brings no event.
        let mut again: Option<Duration> = None;
        loop {
            let event = match again {
                Some(wait) => tokio::time::timeout(wait, events.next()).await,
                None => Ok(events.next().await),
            };
            match event {
                Ok(None) => return None,
                // What was seen last holds until the next list.
                Ok(Some(
                    WatchEvent::Restarted | WatchEvent::Unreadable(..) | WatchEvent::Failed(_),
                )) => continue,
                Ok(Some(WatchEvent::Listed(pods, _))) => stuck.list(pods),
                Ok(Some(WatchEvent::Changed(key, pod))) => stuck.put(key, pod),
                Ok(Some(WatchEvent::Deleted(key, _))) => stuck.remove(&key.name),
                Err(_) => {}
            }
            let mut worst = stuck.worst();
            let waited = again.take();
            if let (Some(account), Some((pod, _))) = (&of.account, worst)
                && !readable.contains(pod)
            {
                match self.may_read(of, account, pod).await {
                    Ok(true) => _ = readable.insert(pod.to_owned()),
                    Ok(false) => worst = None,
                    Err(error) if error.is_forbidden() => {
                        return Some((account.clone(), pod.to_owned()));
                    }
                    Err(_) => {
                        worst = None;
                        again = Some(waited.map_or(FIRST_LOOK, longer));
                    }
                }
            }
            self.saw(of, Seen::Pods(worst.map(|(pod, words)| of_pod(pod, words))));
        }
    }

    /// Whether a Pod is there, as an account sees it.
    async fn may_read(
        &self,
        of: &ObjectRef,
        account: &Account,
        pod: &str,
    ) -> Result<bool, plumb_engine::ApiError> {
        let resource = pod_resource();
        let target = Target::new(&resource, &of.namespace, pod);
        let cluster = self.engine.cluster().as_user(&account.user());
        Ok(cluster.get_metadata(&target).await?.is_some())
    }

    /// Nothing tells when a right comes.
    async fn wait_until_readable(&self, of: &ObjectRef, account: &Account, pod: &str) {
        let mut wait = FIRST_LOOK;
        loop {
            tokio::time::sleep(wait).await;
            if self.may_read(of, account, pod).await.is_ok() {
                return;
            }
            wait = longer(wait);
        }
    }

    /// An object as an account finds it. Nothing of a Secret is asked but whether it is there.
    async fn look_as(
        &self,
        account: &Account,
        target: &Target<'_>,
    ) -> Result<Option<Value>, plumb_engine::ApiError> {
        let cluster = self.engine.cluster().as_user(&account.user());
        if target.resource.is_secret() {
            return Ok(cluster.get_metadata(target).await?.map(|_| Value::Null));
        }
        cluster.get_json(target).await
    }

    /// How a kind is served; waits until it is.
    async fn resource_of(&self, of: &ObjectRef, judge: &Judge) -> Resource {
        let mut wait = FIRST_LOOK;
        loop {
            match self.engine.resource(&of.gvk()).await {
                Ok(Some(resource)) => return resource,
                Ok(None) => self.saw(of, judge.see(of, true, Found::NoKind)),
                Err(error) => {
                    self.saw(of, judge.see(of, true, Found::Failed(super::chain(&error))));
                }
            }
            tokio::time::sleep(wait).await;
            wait = longer(wait);
        }
    }

    /// Notes how an object is, and calls those that wait for it when that is new.
    fn saw(&self, of: &ObjectRef, seen: Seen) {
        let woken: Vec<Key> = {
            let mut store = self.state.lock();
            if store.objects.get(of) == Some(&seen) {
                return;
            }
            if matches!(seen, Seen::Pods(None) | Seen::PodsDenied) {
                // What the workload says of itself tells how that went on.
                store.objects.insert(of.clone(), seen);
                store.offer_looks();
                return;
            }
            store.objects.insert(of.clone(), seen);
            store.waiting_for_object(of)
        };
        for key in woken {
            match of.ask {
                Ask::Ready(_) => self.call(key),
                // Health ends no failure.
                Ask::Health | Ask::Pods(_) => self.queue.add(key, Lane::Urgent),
            }
        }
    }
}
