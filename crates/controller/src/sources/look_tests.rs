//! Looks at a repository on a real Git server, before an API server that takes every status.

use std::time::{Duration, Instant};

use plumb_source::{CommitId, Limits};
use plumb_testkit::{GitServer, Repo, SshKey};
use serde_json::{Value, json};

use super::*;
use crate::daemon::tests::{Api, Stand};
use crate::named::{Named, NamedKind, Told};
use crate::wants::Need;

/// A GitRepository `repo` and where it is.
struct Look {
    git: GitServer,
    repo: Repo,
    stand: Stand,
    name: Name,
}

impl Look {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let git = GitServer::start().await;
        let repo = git.repo("repo");
        Self { repo, git, stand: Stand::with(Api::new(), limits), name: Name::new("ns", "repo") }
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

    /// Another process goes on with what the API server has, and with an empty cache.
    fn restart(&mut self, mut object: Value) {
        object["status"] = self.status();
        self.stand = Stand::new(self.stand.api.clone());
        self.put(object);
    }

    /// An object that holds history written anew, with the step that a person accepts.
    fn holding(&self, accepts: Option<&str>) -> Value {
        let mut object = self.object(1);
        object["spec"]["onRewrite"] = json!("Hold");
        if let Some(accepts) = accepts {
            object["metadata"]["annotations"] = json!({names::ACCEPT_REWRITE: accepts});
        }
        object
    }

    async fn run(&self) -> Outcome {
        self.ask();
        self.stand.daemon.run_source(&self.name).await
    }

    /// Somebody asks for a look: what was heard before is no answer to that.
    fn ask(&self) {
        let key = Key::Source(self.name.clone());
        self.stand.daemon.state.lock().note_news(&key, Instant::now());
    }

    /// A look that has asked the Git server and gets no answer until it stalls no more.
    async fn stalled(&self) -> tokio::task::JoinHandle<Outcome> {
        self.git.stall(true);
        self.git.forget();
        self.ask();
        let (daemon, name) = (Arc::clone(&self.stand.daemon), self.name.clone());
        let look = tokio::spawn(async move { daemon.run_source(&name).await });
        let end = Instant::now() + Duration::from_mins(1);
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

    /// Commits, and signs what came of it.
    fn signed(&self, key: &SshKey, value: &str) -> String {
        self.repo.commit(&[("a.yaml", Some(value))], value);
        self.repo.sign(key)
    }

    /// The object that asks for signatures.
    fn verifying(&self, generation: i64, mode: &str) -> Value {
        let mut object = self.object(generation);
        object["spec"]["verify"] = json!({"mode": mode, "secretRef": {"name": "keys"}});
        object
    }

    /// The Secret of keys is so from now on, and the watch says so.
    fn put_keys(&self, version: u64, keys: &[&SshKey]) {
        let entries: Vec<_> = keys.iter().map(|key| key.entry()).collect();
        self.stand.api.put_secret("keys", version, Some(&entries));
        let name = Name::new("ns", "keys");
        let told = Told::Changed(name.clone(), version);
        let mut store = self.stand.daemon.state.lock();
        store.named.told(&(NamedKind::Secret, None), told);
        store.wake_askers(&Named { kind: NamedKind::Secret, name });
    }

    /// The status that was written last.
    fn status(&self) -> Value {
        self.stand.api.statuses().pop().unwrap()
    }

    /// Status, reason and message of a condition that was written last.
    fn condition(&self, kind: &str) -> Option<[String; 3]> {
        let status = self.status();
        let condition =
            status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind)?;
        Some(["status", "reason", "message"].map(|key| condition[key].as_str().unwrap().to_owned()))
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
        let remote = look.stand.daemon.state.lock().sources[&look.name].remote.clone();
        assert!(what == "suspended" || remote.is_none(), "{remote:?}");
        assert_eq!(look.stand.api.statuses(), Vec::<Value>::new(), "{what}");
        assert_eq!(look.stand.daemon.queue.sources.len(), 1, "{what}: the next look is due");
    }
}

#[tokio::test]
async fn keys_that_change_during_a_look_let_nothing_in_any_more() {
    let look = Look::new().await;
    let [ada, bob] = ["ada", "bob"].map(SshKey::create);
    let first = look.signed(&ada, "1");
    look.put_keys(1, &[&ada]);
    look.put(look.verifying(1, "HEAD"));
    assert_eq!(look.run().await, Outcome::Changed);
    assert_eq!(look.commit(), Some(first.clone()));
    let second = look.signed(&ada, "2");
    let running = look.stalled().await;
    look.put_keys(2, &[&bob]);
    look.git.stall(false);
    assert_eq!(running.await.unwrap(), Outcome::Retry);
    assert_eq!(look.commit(), Some(first.clone()));
    assert_eq!(look.stand.api.statuses().len(), 1);
    assert_eq!(look.run().await, Outcome::Stalled);
    let [status, reason, message] = look.condition("Ready").unwrap();
    assert_eq!((&*status, &*reason), ("False", "VerificationFailed"));
    assert!(message.contains(&second[..12]), "{message}");
    assert_eq!(look.status()["revision"], format!("main@sha1:{first}"));
}

#[tokio::test]
async fn what_was_applied_last_stays_after_a_lost_cache_while_the_ref_is_refused() {
    let ada = SshKey::create("ada");
    for (case, refused) in [
        ("hold", "HistoryRewritten"),
        ("HEAD", "VerificationFailed"),
        ("Tag", "VerificationFailed"),
    ] {
        let mut look = Look::new().await;
        look.put_keys(1, &[&ada]);
        let first = look.signed(&ada, "1");
        look.repo.signed_tag("v1.0.0", &first, &ada);
        let mut object = look.verifying(1, "HEAD");
        match case {
            "hold" => {
                object = look.object(1);
                object["spec"]["onRewrite"] = json!("Hold");
            }
            "Tag" => {
                object = look.verifying(1, "Tag");
                object["spec"]["ref"] = json!({"semver": ">=1.0.0"});
            }
            _ => {}
        }
        look.put(object.clone());
        assert_eq!(look.run().await, Outcome::Changed, "{case}");
        let second = look.repo.amend(&[("a.yaml", Some("2"))], "2");
        look.repo.annotated_tag("v1.1.0", &second, "release");
        look.restart(object);
        assert_eq!(look.run().await, Outcome::Stalled, "{case}");
        let [status, reason, _] = look.condition("Ready").unwrap();
        assert_eq!((&*status, &*reason), ("False", refused), "{case}");
        assert_eq!(look.commit(), Some(first), "{case}");
        let verified = look.condition("SourceVerified").map(|[status, reason, _]| (status, reason));
        let said = (case != "hold").then(|| ("False".to_owned(), "NotSigned".to_owned()));
        assert_eq!(verified, said, "{case}: it tells of the one that is refused");
    }
}

#[tokio::test]
async fn keys_that_change_while_git_is_away_count_for_what_is_at_hand() {
    let look = Look::new().await;
    let [ada, bob] = ["ada", "bob"].map(SshKey::create);
    let first = look.signed(&ada, "1");
    look.put_keys(1, &[&ada]);
    look.put(look.verifying(1, "HEAD"));
    assert_eq!(look.run().await, Outcome::Changed);
    look.git.stop().await;
    let commit: CommitId = first.parse().unwrap();
    let web = look.stand.app("web");
    // An Application that was called meanwhile asks for what it stands on.
    let asks = || {
        let mut store = look.stand.daemon.state.lock();
        let mut object = (*store.apps[&web].object).clone();
        object.spec.revision = Some(first.clone());
        store.put_app(object);
        store.sources.get_mut(&look.name).unwrap().wants.need(commit, &web, 1)
    };
    let trusts = || look.stand.daemon.state.lock().sources[&look.name].trusts(&commit);

    look.put_keys(2, &[&ada, &bob]);
    assert!(!trusts(), "until they are read");
    assert_eq!(asks(), Need::Look);
    assert_eq!(look.run().await, Outcome::Retry);
    assert!(trusts());
    assert_eq!(asks(), Need::Look, "it was answered");
    let [status, _, message] = look.condition("SourceVerified").unwrap();
    assert_eq!(status, "True", "{message}");

    look.put_keys(3, &[&bob]);
    assert_eq!(look.run().await, Outcome::Retry);
    assert!(!trusts());
    assert!(matches!(asks(), Need::Failed(_)));
}

#[tokio::test]
async fn that_a_commit_is_verified_is_not_said_by_keys_or_a_mode_of_before() {
    for what in ["keys", "mode", "keys after a lost cache"] {
        let mut look = Look::new().await;
        let [ada, bob] = ["ada", "bob"].map(SshKey::create);
        look.signed(&ada, "1");
        look.put_keys(1, &[&ada]);
        look.put(look.verifying(1, "HEAD"));
        assert_eq!(look.run().await, Outcome::Changed, "{what}");
        assert_eq!(look.condition("SourceVerified").unwrap()[0], "True", "{what}");
        look.git.stop().await;
        let said = match what {
            "mode" => {
                look.put(look.verifying(2, "Tag"));
                ["False", "NotSigned"]
            }
            "keys" => {
                look.put_keys(2, &[&bob]);
                ["False", "UnknownKey"]
            }
            _ => {
                look.restart(look.verifying(1, "HEAD"));
                look.put_keys(2, &[&bob]);
                ["Unknown", "Progressing"]
            }
        };
        assert_eq!(look.run().await, Outcome::Retry, "{what}");
        let [status, reason, message] = look.condition("SourceVerified").unwrap();
        assert_eq!([&*status, &*reason], said, "{what}: {message}");
    }
}

#[tokio::test]
async fn another_default_branch_is_history_written_anew() {
    let look = Look::new().await;
    let first = look.repo.commit(&[("a.yaml", Some("1"))], "1");
    let mut object = look.object(1);
    object["spec"]["ref"] = Value::Null;
    object["spec"]["onRewrite"] = json!("Hold");
    look.put(object);
    assert_eq!(look.run().await, Outcome::Changed);
    let other = look.repo.on("other").commit(&[("a.yaml", Some("2"))], "2");
    look.repo.git(&["symbolic-ref", "HEAD", "refs/heads/other"]);
    assert_eq!(look.run().await, Outcome::Stalled);
    let [_, reason, message] = look.condition("Ready").unwrap();
    assert_eq!(reason, "HistoryRewritten", "{message}");
    let parts = [format!("other@sha1:{}", &other[..12]), format!("main@sha1:{}", &first[..12])];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert_eq!(look.commit(), Some(first.clone()));

    // One that has another name only, or goes on from there, is none.
    look.repo.branch("trunk", &first);
    look.repo.git(&["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    assert_eq!(look.run().await, Outcome::Changed);
    let next = look.repo.on("next");
    next.branch("next", &first);
    let second = next.commit(&[("a.yaml", Some("3"))], "3");
    look.repo.git(&["symbolic-ref", "HEAD", "refs/heads/next"]);
    assert_eq!(look.run().await, Outcome::Changed);
    assert_eq!(look.commit(), Some(second));
}

#[tokio::test]
async fn a_rewrite_is_accepted_once() {
    let look = Look::new().await;
    let first = look.repo.commit(&[("a.yaml", Some("1"))], "1");
    look.put(look.holding(None));
    assert_eq!(look.run().await, Outcome::Changed);
    let amended = look.repo.amend(&[("a.yaml", Some("2"))], "2");
    // Neither end alone says which step is meant.
    for accepts in [None, Some(&*first), Some(&*amended), Some(&*format!("{amended}..{first}"))] {
        look.put(look.holding(accepts));
        assert_eq!(look.run().await, Outcome::Stalled, "{accepts:?}");
        assert_eq!(look.commit(), Some(first.clone()), "{accepts:?}");
    }
    let step = format!("{first}..{amended}");
    let [_, reason, message] = look.condition("Ready").unwrap();
    assert_eq!(reason, "HistoryRewritten");
    assert!(message.contains(&format!("set the annotation {} to {step},", names::ACCEPT_REWRITE)));
    look.put(look.holding(Some(&step)));
    assert_eq!(look.run().await, Outcome::Changed);
    assert_eq!(look.commit(), Some(amended.clone()));

    // The annotation still stands when somebody goes back to the commit that it names.
    let later = look.repo.commit(&[("a.yaml", Some("3"))], "3");
    assert_eq!(look.run().await, Outcome::Changed);
    look.repo.reset(&amended);
    assert_eq!(look.run().await, Outcome::Stalled);
    assert_eq!(look.commit(), Some(later.clone()));
    look.put(look.holding(Some(&format!("{later}..{amended}"))));
    assert_eq!(look.run().await, Outcome::Changed);
    assert_eq!(look.commit(), Some(amended));
}

#[tokio::test]
async fn a_person_can_accept_what_cannot_be_compared() {
    // Enough for a commit, and not for its history.
    let look = Look::with(Limits { objects: 10, ..Limits::default() }).await;
    let commits = |count: usize| -> Vec<String> {
        let commit = |i: usize| look.repo.commit(&[("a.yaml", Some(&i.to_string()))], "next");
        (0..count).map(commit).collect()
    };
    let before = commits(20);
    look.put(look.holding(None));
    assert_eq!(look.run().await, Outcome::Changed);
    look.repo.reset(&before[0]);
    look.repo.commit(&[("b.yaml", Some("1"))], "another way");
    let after = commits(20);
    let (last, new) = (&before[19], &after[19]);
    assert_eq!(look.run().await, Outcome::Stalled);
    let step = format!("{last}..{new}");
    let [_, reason, message] = look.condition("Ready").unwrap();
    assert_eq!(reason, "RepositoryTooLarge");
    assert!(message.contains("cannot be told") && message.contains(&step), "{message}");
    assert_eq!(look.commit().as_ref(), Some(last));

    // It was found out once, and is not asked for again.
    look.git.forget();
    assert_eq!(look.run().await, Outcome::Stalled);
    assert_eq!(look.git.requests().len(), 1, "{:?}", look.git.requests());
    look.put(look.holding(Some(&step)));
    assert_eq!(look.run().await, Outcome::Changed);
    assert_eq!(look.commit().as_ref(), Some(new));
    // So it is without having tried.
    let third = look.repo.amend(&[("b.yaml", Some("2"))], "amended");
    look.put(look.holding(Some(&format!("{new}..{third}"))));
    assert_eq!(look.run().await, Outcome::Changed);
    assert_eq!(look.commit(), Some(third));
}

#[tokio::test]
async fn what_was_verified_once_is_verified_again_at_each_look() {
    let look = Look::new().await;
    let ada = SshKey::create("ada");
    let first = look.repo.commit(&[("a.yaml", Some("1"))], "1");
    look.put(look.object(1));
    assert_eq!(look.run().await, Outcome::Changed);
    look.put_keys(1, &[&ada]);
    look.put(look.verifying(2, "HEAD"));
    assert_eq!(look.run().await, Outcome::Stalled);
    // As if the key of a signature had come to its end since.
    let commit: CommitId = first.parse().unwrap();
    let web = look.stand.app("web");
    look.stand.daemon.state.lock().believe(&look.name, commit);
    let wanted = || look.stand.daemon.state.lock().apps[&web].wanted;
    let before = wanted();
    assert_eq!(look.run().await, Outcome::Stalled);
    assert!(!look.stand.daemon.state.lock().sources[&look.name].trusts(&commit));
    assert!(wanted() > before, "runs that apply it end");
}
