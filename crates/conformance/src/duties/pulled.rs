//! Desired state is pulled by the agent.

use std::time::Duration;

use plumb_testkit::{Fault, Rule, RuleId};
use serde_json::json;

use crate::adapter::What;
use crate::cluster::Kind;
use crate::scene::{Played, Scene, Stop};

/// How often the agent is killed.
const KILLS: usize = 4;
/// The longest life between two kills.
const LIFE: u64 = 4000;
/// How long the API server cannot be reached, at most.
const CUT: u64 = 3000;
/// What an answer of a slow Git server takes.
const SLOW: Duration = Duration::from_secs(2);

pub(crate) async fn polls(scene: &Scene<'_>) -> Played {
    let first = scene.commit_maps(&[("one", "1")]);
    scene.set_up().await?;
    scene.applied("app", &first, scene.bound()).await?;
    for value in ["2", "3"] {
        let slow = (value == "3").then(|| {
            scene.note("each answer of Git takes two seconds from now on");
            scene.stage.git_proxy.add(Rule::new(scene.of_repo(), Fault::Delay(SLOW)))
        });
        let commit = scene.commit_maps(&[("one", value)]);
        let applied = scene.applied("app", &commit, scene.bound()).await;
        if let Some(slow) = slow {
            scene.stage.git_proxy.remove(slow);
        }
        applied?;
        scene.values_are("its value is live", &[("one", Some(value))], Duration::ZERO).await?;
    }
    Ok(())
}

pub(crate) async fn needs_no_inbound_path(scene: &Scene<'_>) -> Played {
    let first = scene.commit_maps(&[("one", "1")]);
    scene.set_up().await?;
    scene.applied("app", &first, scene.bound()).await?;
    let commit = scene.commit_maps(&[("one", "2")]);
    let what = format!("{} is applied while nobody connects", &commit[..12]);
    scene
        .until(&what, scene.bound(), async || {
            let strangers = scene.stage.agent().await.callers();
            if let Some(stranger) = strangers.first() {
                return Err(Stop::Fails(format!("somebody is connected to it: {stranger}")));
            }
            let revision = scene.read_text(What::Revision, "app").await?;
            Ok(if revision.contains(&commit) { Ok(()) } else { Err(revision) })
        })
        .await
}

pub(crate) async fn outlives_git(scene: &Scene<'_>) -> Played {
    let first = scene.commit_maps(&[("one", "1"), ("two", "1")]);
    scene.set_up().await?;
    scene.applied("app", &first, scene.bound()).await?;
    let mut ways = Away::ALL;
    scene.random(|random| random.shuffle(&mut ways));
    let second = scene.commit_maps(&[("one", "2"), ("three", "2")]);
    for way in ways {
        let rule = way.begin(scene);
        let played = without_git(scene).await;
        Away::end(scene, rule);
        played?;
    }
    scene.note("Git is back");
    scene.applied("app", &second, scene.bound_after_failure()).await
}

/// How Git is away.
#[derive(Debug, Clone, Copy)]
enum Away {
    Unreachable,
    Broken,
    NoGit,
}

impl Away {
    const ALL: [Self; 3] = [Self::Unreachable, Self::Broken, Self::NoGit];

    fn begin(self, scene: &Scene<'_>) -> Option<RuleId> {
        let fault = match self {
            Self::Unreachable => {
                scene.note("Git cannot be reached");
                scene.stage.git_proxy.partition();
                return None;
            }
            Self::Broken => Fault::Status { code: 503, retry_after: None },
            Self::NoGit => Fault::Answer { code: 200, body: "{\"down\": true}".into() },
        };
        scene.note(format!("Git answers with {fault:?}"));
        Some(scene.stage.git_proxy.add(Rule::new(scene.of_repo(), fault)))
    }

    fn end(scene: &Scene<'_>, rule: Option<RuleId>) {
        match rule {
            Some(rule) => scene.stage.git_proxy.remove(rule),
            None => scene.stage.git_proxy.heal(),
        }
    }
}

/// What has to hold while Git is away.
async fn without_git(scene: &Scene<'_>) -> Played {
    scene.look("app").await?;
    scene
        .until("the agent tells that Git is away", scene.bound_after_failure(), async || {
            scene.complains().await
        })
        .await?;
    scene.edit("one", "edited").await?;
    scene.note("somebody edits one");
    let wanted = [("one", Some("1")), ("two", Some("1"))];
    let bound = scene.bound_after_failure();
    scene.values_are("the last good commit is enforced", &wanted, bound).await?;
    let what = "something was pruned, or is of a commit that nobody can have read";
    scene
        .never(what, scene.stage.adapter.interval(), async || {
            let found = (scene.value("two").await?, scene.value("three").await?);
            let as_before = found.0.as_deref() == Some("1") && found.1.is_none();
            Ok((!as_before).then(|| format!("two is {:?}, three is {:?}", found.0, found.1)))
        })
        .await
}

pub(crate) async fn outlives_kills(scene: &Scene<'_>) -> Played {
    let first = scene.commit_maps(&[("one", "0"), ("two", "0"), ("three", "0")]);
    scene.set_up().await?;
    scene.applied("app", &first, scene.bound()).await?;
    let mut last = first;
    // Both in each run, and what comes first is the seed's.
    let begins = scene.random(|random| random.usize(0..2));
    for number in 1..=KILLS {
        let value = number.to_string();
        last = scene.commit_maps(&[("one", &value), ("two", &value), ("three", &value)]);
        scene.look("app").await?;
        let life = Duration::from_millis(scene.random(|random| random.u64(0..LIFE)));
        tokio::time::sleep(life).await;
        let after = life.as_secs_f64();
        if (number + begins).is_multiple_of(2) {
            let mut agent = scene.stage.agent().await;
            agent.kill();
            scene.note(format!("the agent is killed after {after:.1} s"));
            agent.start()?;
        } else {
            let cut = Duration::from_millis(scene.random(|random| random.u64(0..CUT)));
            scene.stage.api.partition();
            tokio::time::sleep(cut).await;
            scene.stage.api.heal();
            let took = cut.as_secs_f64();
            scene.note(format!("after {after:.1} s it reaches no API server for {took:.1} s"));
        }
    }
    // Whatever runs an agent starts it again when it ends.
    if let Some(ended) = scene.stage.agent().await.revive()? {
        scene.note(format!("{ended}; it is started again"));
    }
    scene.applied("app", &last, scene.bound_after_failure()).await?;
    let value = KILLS.to_string();
    let wanted = ["one", "two", "three"].map(|name| (name, Some(&*value)));
    scene.values_are("all objects are of the last commit", &wanted, Duration::ZERO).await
}

pub(crate) async fn only_reads(scene: &Scene<'_>) -> Played {
    let (user, password) = ("reader", "as-the-seed-says");
    scene.stage.git.require(&scene.ns, user, password);
    scene.repo.config("http.receivepack", "false");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "access" },
        "stringData": { "username": user, "password": password },
    });
    let secrets = Kind::new("v1", "Secret", "secrets");
    scene.stage.cluster.apply("gitops-conformance", &secrets, &scene.ns, &secret).await?;
    let first = scene.commit_maps(&[("one", "1")]);
    scene.source(&["credentials"], &[("secret", "access")]).await?;
    scene.app("app", "app", &["credentials"], &[("secret", "access")]).await?;
    scene.applied("app", &first, scene.bound()).await?;
    let second = scene.commit_maps(&[("one", "2")]);
    scene.look("app").await?;
    scene.applied("app", &second, scene.bound()).await?;
    let path = format!("/{}.git/", scene.ns);
    let asked = scene.stage.git.requests();
    let asked = asked.iter().filter(|request| request.path.starts_with(&path));
    let (mut all, mut writes) = (0, Vec::new());
    for request in asked {
        all += 1;
        if request.path.contains("receive-pack") || request.query.contains("receive-pack") {
            writes.push(format!("{} {}?{}", request.method, request.path, request.query));
        }
    }
    scene.note(format!("{all} requests reached Git, of which {} ask to push", writes.len()));
    match writes.first() {
        None => Ok(()),
        Some(write) => Err(Stop::Fails(format!("it asks to push: {write}"))),
    }
}
