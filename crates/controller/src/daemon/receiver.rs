//! Takes webhooks: keeps the secrets that they are checked with, and has those GitRepositories looked at
//! that follow what they name.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use plumb_api::GitRepository;
use plumb_engine::{WatchEvent, watch_one_version};

use super::Daemon;
use super::named::read_named;
use crate::named::{Content, Named, NamedKind};
use crate::names::{Key, Name};
use crate::queue::Lane;
use crate::receiver::Service;
use crate::receiver::address::Address;
use crate::receiver::limits::Pace;
use crate::receiver::payload::News;
use crate::receiver::refs::may_move;
use crate::receiver::server::{Hooks, Outcome};
use crate::receiver::signature::Secrets;
use crate::sources::reference_of;

/// So many hooks have a GitRepository looked at at once, and one more after each pause. What comes
/// meanwhile is one look at the end of the pause: nothing is lost, however often a hook is sent again.
const BURST: u32 = 10;

/// See [`BURST`].
const PAUSE: Duration = Duration::from_secs(5);

/// When a Secret that could not be read is tried again; until then no hook is taken.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// The daemon, as hooks see it.
pub(super) struct Inbox {
    daemon: Arc<Daemon>,
    secrets: Mutex<Option<Arc<Secrets>>>,
    pace: Mutex<Pace<Name>>,
}

impl Hooks for Inbox {
    fn secrets(&self) -> Option<Arc<Secrets>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who begins to lead looks at everything, so that what comes before that is in time.
    fn is_open(&self) -> bool {
        self.daemon.leadership.epoch().is_some() && !self.daemon.is_stopping()
    }

    fn take(&self, news: &News) -> usize {
        let looks = self.plan(news);
        if !looks.is_empty() {
            tracing::info!(sources = looks.len(), "a webhook asks for looks");
        }
        let asked = looks.len();
        let mut at_once = Vec::new();
        for (name, wait) in looks {
            tracing::debug!(source = %name, ?wait, "a webhook asks for a look");
            let key = Key::Source(name);
            if wait.is_zero() {
                at_once.push(key);
            } else {
                self.daemon.state.lock().note_news(&key, Instant::now());
                self.daemon.queue.add_after(key, wait, Lane::Urgent);
            }
        }
        self.daemon.call_all(at_once);
        asked
    }

    fn count(&self, service: Service, outcome: Outcome) {
        self.daemon.metrics.hook(service, outcome);
    }
}

/// Whether a GitRepository may come to another commit by what has news.
fn follows(object: &GitRepository, news: &News) -> bool {
    let spec = &object.spec;
    !spec.suspend
        && Address::parse(&spec.url).is_some_and(|address| news.is_of(&address))
        && may_move(&reference_of(spec.reference.as_ref()), &news.refs)
}

impl Inbox {
    /// Takes nothing until its secrets are read.
    pub(super) fn new(daemon: &Arc<Daemon>) -> Self {
        Self {
            daemon: Arc::clone(daemon),
            secrets: Mutex::default(),
            pace: Mutex::new(Pace::new(BURST, PAUSE)),
        }
    }

    /// Who is to look, and after how long.
    fn plan(&self, news: &News) -> Vec<(Name, Duration)> {
        let all: Vec<(Name, Arc<GitRepository>)> = {
            let store = self.daemon.state.lock();
            let all = store.sources.iter();
            all.map(|(name, source)| (name.clone(), Arc::clone(&source.object))).collect()
        };
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let now = tokio::time::Instant::now().into_std();
        let following = all.into_iter().filter(|(_, object)| follows(object, news));
        following.map(|(name, _)| (name.clone(), pace.ask(name, now))).collect()
    }

    /// Reads the Secret whenever it is another one. Never ends.
    pub(super) async fn follow_secret(self: Arc<Self>, name: String) {
        let namespace = &self.daemon.settings.namespace;
        let named = Named::new(NamedKind::Secret, namespace, &name);
        let resource = NamedKind::Secret.resource();
        let cluster = self.daemon.engine.cluster();
        let mut events =
            pin!(watch_one_version(cluster, &resource, Some(namespace.as_str()), &name));
        let mut unread = false;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(WatchEvent::Listed(found, _)) if found.is_empty() => {
                        unread = false;
                        self.accept(&named, None);
                    }
                    Some(WatchEvent::Listed(..) | WatchEvent::Changed(..)) => unread = true,
                    Some(WatchEvent::Deleted(..)) => {
                        unread = false;
                        self.accept(&named, None);
                    }
                    // What is known is as good as before.
                    Some(WatchEvent::Restarted) => {}
                    Some(WatchEvent::Failed(error) | WatchEvent::Unreadable(_, error)) => {
                        tracing::warn!(secret = %named.name, %error, "cannot watch the secret of webhooks");
                    }
                    None => return,
                },
                () = tokio::time::sleep(READ_AGAIN), if unread => {}
            }
            if !unread {
                continue;
            }
            match read_named(cluster, &named).await {
                Ok(content) => {
                    unread = false;
                    self.accept(&named, content.as_ref());
                }
                Err(error) => {
                    // What was read before may be what was taken out.
                    self.put(None);
                    tracing::warn!(secret = %named.name, %error, "cannot read the secret of webhooks");
                }
            }
        }
    }

    fn accept(&self, named: &Named, content: Option<&Content>) {
        let Some(content) = content else {
            tracing::warn!(secret = %named.name, "there is no secret of webhooks; none is taken");
            self.put(None);
            return;
        };
        let secrets = Secrets::new(content.data.values());
        let (usable, all) = (secrets.len(), content.data.len());
        if usable < all {
            tracing::warn!(
                secret = %named.name, usable, all,
                "some secrets of webhooks are not used: each needs 16 bytes or more, one that begins \
                 with whsec_ is base64, and 16 are taken",
            );
        } else {
            tracing::info!(secret = %named.name, usable, "read the secrets of webhooks");
        }
        self.put((usable > 0).then(|| Arc::new(secrets)));
    }

    fn put(&self, secrets: Option<Arc<Secrets>>) {
        *self.secrets.lock().unwrap_or_else(PoisonError::into_inner) = secrets;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::daemon::tests::{Api, Stand};
    use crate::receiver::payload::{Place, Refs};

    const URL: &str = "https://git.example/org/repo";

    fn source(name: &str, spec: &serde_json::Value) -> GitRepository {
        let mut spec = spec.clone();
        spec["interval"] = json!("1h");
        serde_json::from_value(json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1},
            "spec": spec,
        }))
        .unwrap()
    }

    /// News of the repository at [`URL`], of any ref when none is named.
    fn news(refs: &[&str]) -> News {
        News {
            places: vec![Place::At(Address::parse("git@git.example:org/repo").unwrap())],
            refs: match refs {
                [] => Refs::Any,
                refs => Refs::These(refs.iter().map(ToString::to_string).collect()),
            },
        }
    }

    #[tokio::test]
    async fn those_look_that_follow_what_a_hook_names() {
        let stand = Stand::new(Api::new());
        for (name, spec) in [
            ("main", json!({"url": URL, "ref": {"branch": "main"}})),
            ("head", json!({"url": "https://GIT.example/org/repo.git"})),
            ("next", json!({"url": URL, "ref": {"branch": "next"}})),
            ("tags", json!({"url": URL, "ref": {"semver": "1.x"}})),
            ("other-host", json!({"url": "https://git.example.com/org/repo"})),
            ("suspended", json!({"url": URL, "suspend": true})),
        ] {
            stand.daemon.state.lock().put_source(source(name, &spec));
        }
        for (refs, names) in [
            (&["refs/heads/main"][..], &["head", "main"][..]),
            (&["refs/heads/next"], &["head", "next"]),
            (&["refs/tags/1.0"], &["tags"]),
            (&["refs/notes/x"], &[]),
            (&[], &["head", "main", "next", "tags"]),
        ] {
            let plan = Inbox::new(&stand.daemon).plan(&news(refs));
            let want: Vec<_> =
                names.iter().map(|name| (Name::new("ns", name), Duration::ZERO)).collect();
            assert_eq!(plan, want, "{refs:?}");
        }
        let inbox = Inbox::new(&stand.daemon);
        assert_eq!(inbox.take(&news(&["refs/heads/main"])), 2);
        assert_eq!(inbox.take(&news(&["refs/heads/main"])), 2);
        assert_eq!(stand.daemon.queue.sources.len(), 2, "once each, at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_comes_again_and_again_is_a_look_a_pause() {
        let stand = Stand::new(Api::new());
        stand.daemon.state.lock().put_source(source("repo", &json!({"url": URL})));
        let inbox = Inbox::new(&stand.daemon);
        let wait = || inbox.plan(&news(&[]))[0].1;
        for _ in 0..BURST {
            assert_eq!(wait(), Duration::ZERO);
        }
        for _ in 0..1000 {
            assert_eq!(wait(), PAUSE, "the same look, after the pause");
        }
        assert_eq!(inbox.take(&news(&[])), 1);
        assert!(stand.daemon.queue.sources.is_empty(), "it waits for its time");
        tokio::time::advance(PAUSE * (BURST + 1)).await;
        assert_eq!(wait(), Duration::ZERO);
    }

    #[tokio::test]
    async fn nothing_is_taken_before_this_process_leads_and_has_read_its_secrets() {
        let stand = Stand::new(Api::new());
        let inbox = Inbox::new(&stand.daemon);
        assert!(!inbox.is_open() && inbox.secrets().is_none());
        let named = Named::new(NamedKind::Secret, "plumb", "hooks");
        let read = |values: &[&str]| {
            let data = values.iter().enumerate();
            let data = data.map(|(at, value)| (at.to_string(), value.as_bytes().to_vec()));
            inbox.accept(&named, Some(&Content { version: 1, data: data.collect() }));
            inbox.secrets().map(|secrets| secrets.len())
        };
        assert_eq!(read(&["a secret of the tests", "another one of them"]), Some(2));
        assert_eq!(read(&["a secret of the tests", "short"]), Some(1));
        assert_eq!(read(&["short"]), None, "none is left");
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["a secret of the tests"]), Some(1));
        inbox.accept(&named, None);
        assert!(inbox.secrets().is_none(), "it is gone");
    }
}
