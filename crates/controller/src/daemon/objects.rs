//! Watches the objects of any kind that Applications wait for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use plumb_engine::{Account, Resource, Target, WatchEvent, watch_one};
use plumb_health::Expression;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Daemon;
use crate::depends::json_of;
use crate::names::Key;
use crate::objects::{ObjectRef, Seen, see};

/// Waits between looks for a kind that the cluster does not have, from the first to the longest:
/// nothing tells when a kind comes.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_mins(1);

/// Whether the object is there is not for this account to know.
fn not_allowed(account: &Account) -> Seen {
    Seen::Lasting(format!(
        ", which the service account {account} may not read; give it the right to get it"
    ))
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
            self.state.lock().objects.retain(|of, _| objects.contains(of));
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

    async fn follow_object(self: Arc<Self>, of: ObjectRef) {
        // What does not compile is told by those that have it in their spec.
        let expression = of.ready_expr.as_deref().map(Expression::compile);
        let Ok(expression) = expression.transpose() else { return };
        let resource = self.resource_of(&of).await;
        if resource.is_secret() {
            let text = ", and nobody looks into Secrets: wait for what makes it".into();
            self.saw(&of, Seen::Lasting(text));
            return;
        }
        // Of a kind without namespaces the namespace says nothing.
        let namespace = Some(&*of.namespace).filter(|_| resource.namespaced);
        let events = watch_one::<Value>(self.engine.cluster(), &resource, namespace, &of.name);
        let mut events = std::pin::pin!(events);
        let this = match &of.of {
            Some((name, _)) => self.state.lock().apps.get(name).map(json_of).unwrap_or_default(),
            None => Value::Null,
        };
        let judge = |object: &Value| see(object, expression.as_ref().map(|e| (e, &this)));
        let missing = || Seen::Lasting(", which does not exist".into());
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
                let seen = match self.look_as(account, &target).await {
                    Ok(found) => {
                        denied = false;
                        found.as_ref().map_or_else(missing, judge)
                    }
                    Err(error) => {
                        denied = true;
                        if error.is_forbidden() {
                            not_allowed(account)
                        } else {
                            Seen::NotReady(format!(": {error}"))
                        }
                    }
                };
                self.saw(&of, seen);
            }
        }
        while let Some(event) = events.next().await {
            let seen = match event {
                // What was seen last holds until the list says otherwise.
                WatchEvent::Restarted => continue,
                WatchEvent::Listed(objects) => {
                    let first = objects.into_iter().next();
                    first.map_or_else(missing, |(_, object)| judge(&named(object, &of)))
                }
                WatchEvent::Changed(_, object) => judge(&object),
                WatchEvent::Deleted(..) => missing(),
                WatchEvent::Unreadable(_, error) => Seen::NotReady(format!(": {error}")),
                WatchEvent::Failed(error) => {
                    Seen::NotReady(format!(", which is out of sight: {error}"))
                }
            };
            self.saw(&of, seen);
        }
    }

    /// An object as an account finds it.
    async fn look_as(
        &self,
        account: &Account,
        target: &Target<'_>,
    ) -> Result<Option<Value>, plumb_engine::ApiError> {
        self.engine.cluster().as_user(&account.user()).get_json(target).await
    }

    /// How a kind is served; waits until it is.
    async fn resource_of(&self, of: &ObjectRef) -> Resource {
        let mut wait = FIRST_LOOK;
        loop {
            match self.engine.resource(&of.gvk()).await {
                Ok(Some(resource)) => return resource,
                Ok(None) => {
                    let text = format!(": the cluster has no {} {}", of.api_version, of.kind);
                    self.saw(of, Seen::Lasting(text));
                }
                Err(error) => {
                    let text = format!(": {}", super::chain(&error));
                    self.saw(of, Seen::NotReady(text));
                }
            }
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(LONGEST_LOOK);
        }
    }

    /// Notes how an object is, and calls those that wait for it when that is new.
    fn saw(&self, of: &ObjectRef, seen: Seen) {
        let woken: Vec<Key> = {
            let mut store = self.state.lock();
            if store.objects.get(of) == Some(&seen) {
                return;
            }
            store.objects.insert(of.clone(), seen);
            store.waiting_for_object(of)
        };
        for key in woken {
            self.call(key);
        }
    }
}
