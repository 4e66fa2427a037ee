//! The service account that acts for a set, and what is said when it cannot.
//!
//! Invariant: nothing is sent about a member as anybody but the set's account.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt as _, StreamExt as _};
use plumb_core::{Gvk, ObjectKey};
use tokio::task::JoinHandle;

use crate::applyset::ApplySet;
use crate::cluster::{ApiError, Cluster, Resource, Target, WatchEvent, watch};
use crate::engine::{Engine, Signal};
use crate::error::EngineError;
use crate::report::Report;

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Account {
    /// What the API server calls it.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether an account is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    /// Nobody had a reason to ask.
    #[default]
    Unasked,
    /// It is.
    There,
    /// It is not.
    Missing,
    /// We may not ask, or got no answer.
    Unknown,
}

/// The sets whose account was not there, by namespace and name of it.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    sets: BTreeMap<Account, BTreeSet<Arc<str>>>,
    /// One watch a namespace, as long as anybody waits for an account there.
    watches: HashMap<String, JoinHandle<()>>,
}

impl Awaited {
    fn waits_in(&self, namespace: &str) -> bool {
        self.sets.keys().any(|account| account.namespace == namespace)
    }

    /// A set waits for nothing any more.
    fn forget(&mut self, set: &str) {
        self.sets.retain(|_, sets| {
            sets.remove(set);
            !sets.is_empty()
        });
        let (sets, watches) = (&self.sets, &mut self.watches);
        watches.retain(|namespace, task| {
            let stays = sets.keys().any(|account| account.namespace == *namespace);
            if !stays {
                task.abort();
            }
            stays
        });
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        for task in self.watches.values() {
            task.abort();
        }
    }
}

fn accounts() -> Resource {
    Resource::known(Gvk::new("v1", "ServiceAccount"), "serviceaccounts", true)
}

impl Engine {
    /// The cluster as whoever acts for a set.
    pub fn acting(&self, set: &ApplySet) -> Cluster {
        match &set.account {
            Some(account) => self.cluster.as_user(&account.user()),
            None => self.cluster.clone(),
        }
    }

    /// Whether a set may be worked on at all.
    pub fn check_account(&self, set: &ApplySet) -> Result<(), EngineError> {
        if self.options.impersonate_only && set.account.is_none() {
            return Err(EngineError::NoAccount { parent: set.owner() });
        }
        Ok(())
    }

    /// Why an answer would meet everything else that a set's account asks for, too. Whether the account
    /// is there is asked once a run, and only when it was refused something.
    pub(crate) async fn disowned(
        &self,
        set: &ApplySet,
        error: &ApiError,
        report: &mut Report,
    ) -> Option<EngineError> {
        let account = set.account.as_deref()?;
        let refusal = error.refusal()?;
        if error.is_impersonation_refused() {
            let source = ApiError::Refused(Box::new(refusal.clone()));
            return Some(EngineError::NotImpersonated { account: account.clone(), source });
        }
        if !error.is_refused_to(&account.user()) {
            return None;
        }
        if report.account == Presence::Unasked {
            let accounts = accounts();
            let target = Target::new(&accounts, &account.namespace, &account.name);
            report.account = match self.cluster.get_metadata(&target).await {
                Ok(Some(_)) => Presence::There,
                Ok(None) => Presence::Missing,
                Err(_) => Presence::Unknown,
            };
        }
        (report.account == Presence::Missing)
            .then(|| EngineError::AccountMissing { account: account.clone() })
    }

    /// A run of a set came to its end. When its account was missing, another one comes with it.
    pub(crate) fn note_account(&self, set: &ApplySet, result: &Result<(), EngineError>) {
        let Err(EngineError::AccountMissing { account }) = result else {
            self.awaited().forget(&set.id);
            return;
        };
        let mut awaited = self.awaited();
        let other = awaited.sets.iter().any(|(a, sets)| a != account && sets.contains(&*set.id));
        if other {
            awaited.forget(&set.id);
        }
        awaited.sets.entry(account.clone()).or_default().insert(set.id.as_str().into());
        let namespace = &account.namespace;
        if awaited.watches.get(namespace).is_some_and(|task| !task.is_finished()) {
            return;
        }
        let come = follow(
            self.cluster.clone(),
            namespace.clone(),
            self.awaited_by_all(),
            self.signals().clone(),
        );
        awaited.watches.insert(namespace.clone(), tokio::spawn(come));
    }

    /// The set is no more.
    pub(crate) fn forget_account(&self, set: &str) {
        self.awaited().forget(set);
    }
}

/// Calls the sets whose account has come, until none waits in this namespace.
async fn follow(
    cluster: Cluster,
    namespace: String,
    awaited: Arc<Mutex<Awaited>>,
    signals: tokio::sync::mpsc::UnboundedSender<Signal>,
) {
    let mut events = pin!(watch(&cluster, &accounts(), "", Some(&namespace)));
    while let Some(event) = events.next().await {
        let come = match event {
            WatchEvent::Listed(all, _) => all.into_iter().map(|(key, _)| key.name).collect(),
            WatchEvent::Changed(key, _) => vec![key.name],
            _ => continue,
        };
        let mut awaited = awaited.lock().unwrap_or_else(PoisonError::into_inner);
        for name in come {
            let account = Account { namespace: namespace.clone(), name: name.into() };
            for set in awaited.sets.remove(&account).into_iter().flatten() {
                let _ = signals.send(Signal::Freed(set));
            }
        }
        if !awaited.waits_in(&namespace) {
            awaited.watches.remove(&namespace);
            return;
        }
    }
}

/// One object that several sets want of which one lets it go.
pub(crate) struct Stranger {
    /// The set that wants it, and who acts for that.
    pub(crate) set: Arc<str>,
    pub(crate) account: Arc<Account>,
    pub(crate) key: ObjectKey,
}

impl Engine {
    /// Asks the API server whether those who want what a set lets go, and have other accounts, may have
    /// it at all. Whoever may not has no say in what becomes of it: else anybody could keep what is
    /// deleted elsewhere by asking for it. Returns whether it told of all of them.
    pub(crate) async fn ask_strangers(
        &self,
        set: &ApplySet,
        keys: impl Iterator<Item = &ObjectKey> + Send,
    ) -> Result<bool, EngineError> {
        let strangers = self.claims().strangers(set, keys);
        if strangers.is_empty() {
            return Ok(true);
        }
        let discovery = self.discovery().await?;
        let ask = |stranger: Stranger| {
            let resource = discovery.preferred(&stranger.key.group_kind).cloned();
            async move {
                // What cannot be asked is not held against anybody.
                let Some(resource) = resource else { return (stranger, Some(true)) };
                let cluster = self.cluster.as_user(&stranger.account.user());
                let key = &stranger.key;
                let target = Target::new(&resource, &key.namespace, &key.name);
                match cluster.may_patch(&target).await {
                    Ok(may) => (stranger, Some(may)),
                    Err(error) if error.is_forbidden() => (stranger, Some(false)),
                    Err(error) => {
                        tracing::warn!(account = %stranger.account, object = %key, %error, "cannot tell who may have it");
                        (stranger, None)
                    }
                }
            }
            .boxed()
        };
        let mut answers = self.work_off(strangers.into_iter().map(ask).collect());
        let mut told = true;
        while let Some((stranger, may)) = answers.next().await {
            match may {
                Some(may) => self.claims().note_stranger(&stranger.set, stranger.key, may),
                None => told = false,
            }
        }
        Ok(told)
    }
}

/// What helps when something is forbidden.
pub(crate) fn rights(
    set: &ApplySet,
    resource: &Resource,
    namespace: &str,
    error: &ApiError,
    presence: Presence,
) -> String {
    let Some(account) = set.account.as_deref() else {
        return "give Plumb's service account the right, or change what admission refuses".into();
    };
    let (group, plural, namespace) =
        error.refused_resource().unwrap_or((&resource.gvk.group, &resource.plural, namespace));
    if let Some(verb) = error.impersonated_verb() {
        return format!(
            "let Plumb's own account act as the service account {account}: a ClusterRole with the rule \
             apiGroups: [{group:?}], resources: [{plural}], verbs: [\"{verb}\"]"
        );
    }
    if !error.is_refused_to(&account.user()) {
        return "change what admission refuses".into();
    }
    let role = if namespace.is_empty() {
        "a ClusterRole".to_owned()
    } else {
        format!("a Role in {namespace}")
    };
    let doubt = if presence == Presence::Unknown {
        ", if it exists, which Plumb may not look up,"
    } else {
        ""
    };
    format!(
        "give the service account {account}{doubt} {role} with the rule apiGroups: [{group:?}], \
         resources: [{plural}], verbs: [get, create, patch, delete]"
    )
}
