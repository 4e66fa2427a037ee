//! Looks at a repository on a real Git server, before an API server that takes every status.

use std::time::{Duration, Instant};

use plumb_testkit::{GitServer, Repo};
use serde_json::{Value, json};

use super::*;
use crate::daemon::tests::{Api, Stand};

/// A GitRepository `repo` and where it is.
struct Look {
    git: GitServer,
    repo: Repo,
    stand: Stand,
    name: Name,
}

impl Look {
    async fn new() -> Self {
        let git = GitServer::start().await;
        let repo = git.repo("repo");
        Self { repo, git, stand: Stand::new(Api::new()), name: Name::new("ns", "repo") }
    }

    /// Its object, in which a test changes what it likes.
    fn object(&self, generation: i64) -> Value {
        json!({
            "apiVersion": "plumb.dev/v1alpha1", "kind": "GitRepository",
            "metadata": {"name": "repo", "namespace": "ns", "uid": "repo", "generation": generation},
            "spec": {"url": self.git.url("repo"), "interval": "1h", "ref": {"branch": "main"}},
        })
    }

    /// The watch brings an object.
    fn put(&self, object: Value) {
        let object = serde_json::from_value(object).unwrap();
        self.stand.daemon.state.lock().put_source(object);
    }

    async fn run(&self) -> Outcome {
        self.stand.daemon.run_source(&self.name).await
    }

    /// A look that has asked the Git server and gets no answer until it stalls no more.
    async fn stalled(&self) -> tokio::task::JoinHandle<Outcome> {
        self.git.stall(true);
        self.git.forget();
        let (daemon, name) = (Arc::clone(&self.stand.daemon), self.name.clone());
        let look = tokio::spawn(async move { daemon.run_source(&name).await });
        let end = Instant::now() + Duration::from_secs(60);
        while self.git.requests().is_empty() {
            assert!(Instant::now() < end, "nothing was asked");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        look
    }

    /// The commit that it stands for.
    fn commit(&self) -> Option<String> {
        let store = self.stand.daemon.state.lock();
        let revision = store.sources[&self.name].revision.as_ref();
        revision.map(|revision| revision.commit.to_string())
    }
}

#[tokio::test]
async fn what_a_look_finds_counts_for_the_object_that_it_was_for() {
    for what in ["suspended", "another one of the name"] {
        let look = Look::new().await;
        look.repo.commit(&[("a.yaml", Some("a: 1"))], "one");
        look.put(look.object(1));
        let running = look.stalled().await;
        let mut object = look.object(1);
        if what == "suspended" {
            object = look.object(2);
            object["spec"]["suspend"] = json!(true);
        } else {
            object["metadata"]["uid"] = json!("another");
            object["spec"]["url"] = json!(look.git.url("elsewhere"));
        }
        look.put(object);
        look.git.stall(false);
        assert_eq!(running.await.unwrap(), Outcome::Unchanged, "{what}");
        assert_eq!(look.commit(), None, "{what}");
        assert!(look.stand.daemon.state.lock().sources[&look.name].remote.is_none(), "{what}");
        assert_eq!(look.stand.api.statuses(), Vec::<Value>::new(), "{what}");
        assert_eq!(look.stand.daemon.queue.sources.len(), 1, "{what}: the next look is due");
    }
}
