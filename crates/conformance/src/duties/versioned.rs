//! Desired state is versioned and immutable.

use std::time::Duration;

use plumb_testkit::SshKey;
use serde_json::{Value, json};

use crate::adapter::What;
use crate::cluster::{Kind, config_maps};
use crate::scene::{Played, Scene, Stop};

/// How many commits follow each other.
const MANY: u32 = 8;
/// The longest pause between two of them.
const PAUSE: u64 = 1500;
/// So much of a commit's id names it for people.
const SHORT: usize = 7;

pub(crate) async fn names_the_commit(scene: &Scene<'_>) -> Played {
    for value in ["1", "2"] {
        let commit = scene.commit_maps(&[("one", value)]);
        if value == "1" {
            scene.set_up().await?;
        } else {
            scene.look("app").await?;
        }
        scene.applied("app", &commit, scene.bound()).await?;
        let wanted = [("one", Some(value))];
        scene.values_are("what it names is what is there", &wanted, Duration::ZERO).await?;
    }
    Ok(())
}

/// The objects of one number: two that are made from a file each, and one that is made from two.
fn numbered(scene: &Scene<'_>, number: u32) -> String {
    let value = number.to_string();
    scene.commit(&[
        (
            "app/kustomization.yaml",
            Some(format!(
                "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: {}\nresources: [a.yaml, \
                 z.yaml]\ngeneratorOptions: {{ disableNameSuffixHash: true }}\nconfigMapGenerator:\n  - name: both\n    \
                 files: [left, right]\n",
                scene.ns
            )),
        ),
        ("app/a.yaml", Some(scene.map("a", &value))),
        ("app/left", Some(value.clone())),
        ("app/right", Some(value.clone())),
        ("app/z.yaml", Some(scene.map("z", &value))),
    ])
}

pub(crate) async fn tears_nothing(scene: &Scene<'_>) -> Played {
    let mut commits = vec![numbered(scene, 0)];
    scene.set_up().await?;
    scene.applied("app", &commits[0], scene.bound()).await?;
    for number in 1..=MANY {
        commits.push(numbered(scene, number));
        scene.look("app").await?;
        let pause = scene.random(|random| random.u64(0..PAUSE));
        let what = "an object of two files has them from two commits";
        scene
            .never(what, Duration::from_millis(pause), async || torn(scene, &commits).await)
            .await?;
    }
    let last = commits[MANY as usize].clone();
    let told = scene.until("the last commit is applied", scene.bound_after_failure(), async || {
        if let Some(torn) = torn(scene, &commits).await? {
            return Err(Stop::Fails(torn));
        }
        let revision = scene.read_text(What::Revision, "app").await?;
        Ok(if revision.contains(&last) { Ok(()) } else { Err(revision) })
    });
    told.await
}

/// What shows that objects are of different commits than the status names, if anything does.
async fn torn(scene: &Scene<'_>, commits: &[String]) -> Result<Option<String>, Stop> {
    // The status first: what is read after it can only be newer.
    let revision = scene.read_text(What::Revision, "app").await?;
    let Some(told) = commits.iter().position(|commit| revision.contains(commit)) else {
        return Ok(None);
    };
    let number = |value: Option<&str>| value.and_then(|value| value.parse::<usize>().ok());
    for name in ["a", "z"] {
        let value = scene.value(name).await?;
        if number(value.as_deref()).is_none_or(|number| number < told) {
            return Ok(Some(format!("the status names commit {told}, and {name} has {value:?}")));
        }
    }
    let both =
        scene.stage.cluster.get(&config_maps(), &scene.ns, "both").await?.unwrap_or_default();
    let (left, right) = (&both["data"]["left"], &both["data"]["right"]);
    Ok((left != right).then(|| format!("left is {left}, right is {right}")))
}

pub(crate) async fn tells_rewritten_history(scene: &Scene<'_>) -> Played {
    let first = scene.commit_maps(&[("one", "1")]);
    scene.repo.tag("release", &first);
    scene.source(&["tag"], &[("tag", "release")]).await?;
    scene.app("app", "app", &["tag"], &[("tag", "release")]).await?;
    scene.applied("app", &first, scene.bound()).await?;
    let told = scene.read_source(What::Rewritten).await?;
    if told.as_array().is_some_and(|told| !told.is_empty()) {
        return Err(Stop::Fails(format!("before anything is rewritten it tells of {told}")));
    }
    let beside = scene.repo.amend(&[("app/one.yaml", Some(&scene.map("one", "2")))], "another");
    scene.repo.tag("release", &beside);
    scene.note(format!("the tag moves to {}, which does not follow from the first", &beside[..12]));
    scene.look("app").await?;
    is_told(scene, "the agent tells that the tag was moved", &beside).await?;
    scene.set_up().await?;
    let second = scene.commit_maps(&[("one", "3")]);
    scene.note("the branch is followed instead of the tag");
    scene.look("app").await?;
    scene.applied("app", &second, scene.bound()).await?;
    let third = scene.repo.amend(&[("app/one.yaml", Some(&scene.map("one", "4")))], "a third");
    scene.note(format!("the branch is at {}, which does not follow from the last", &third[..12]));
    scene.look("app").await?;
    is_told(scene, "the agent tells that history was rewritten", &third).await
}

/// Waits until what is told of rewritten history names a commit.
async fn is_told(scene: &Scene<'_>, what: &str, commit: &str) -> Played {
    scene
        .until(what, scene.bound(), async || {
            let told = scene.read_source(What::Rewritten).await?;
            let mut texts = told.as_array().into_iter().flatten().filter_map(Value::as_str);
            let names = texts.any(|text| text.contains(&commit[..SHORT]));
            Ok(if names { Ok(()) } else { Err(format!("it says {told}")) })
        })
        .await
}

pub(crate) async fn goes_back(scene: &Scene<'_>) -> Played {
    let first = scene.commit_maps(&[("one", "1"), ("both", "1")]);
    scene.set_up().await?;
    scene.applied("app", &first, scene.bound()).await?;
    let second = scene.commit_maps(&[("one", "2"), ("two", "2")]);
    scene.look("app").await?;
    scene.applied("app", &second, scene.bound()).await?;
    scene.stage.git_proxy.partition();
    scene.note("Git cannot be reached any more");
    let back = async {
        scene.source(&["pin"], &[("commit", &first)]).await?;
        scene.app("app", "app", &["pin"], &[("commit", &first)]).await?;
        let wanted = [("one", Some("1")), ("both", Some("1")), ("two", None)];
        let bound = scene.bound_after_failure();
        scene.values_are("all is as the first commit has it", &wanted, bound).await?;
        let revision = scene.read_text(What::Revision, "app").await?;
        if revision.contains(&first) {
            return Ok(());
        }
        Err(Stop::Fails(format!("the status names {revision}")))
    };
    let played = back.await;
    scene.stage.git_proxy.heal();
    played
}

pub(crate) async fn verifies_signatures(scene: &Scene<'_>) -> Played {
    use base64::Engine as _;
    let key = SshKey::create("keeper");
    let (entry, public) = key.entry();
    let encoded = base64::engine::general_purpose::STANDARD.encode(public);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" },
        "data": { entry: encoded },
    });
    let secrets = Kind::new("v1", "Secret", "secrets");
    scene.stage.cluster.apply("gitops-conformance", &secrets, &scene.ns, &secret).await?;
    scene.commit_maps(&[("one", "1")]);
    let signed = scene.repo.sign(&key);
    scene.note(format!("{} is signed", &signed[..12]));
    scene.source(&["verify"], &[("keys", "keys")]).await?;
    scene.app("app", "app", &["verify"], &[("keys", "keys")]).await?;
    scene.applied("app", &signed, scene.bound()).await?;
    let unsigned = scene.commit_maps(&[("one", "2"), ("more", "2")]);
    scene.look("app").await?;
    scene
        .until("the agent tells that a commit is not signed", scene.bound(), async || {
            scene.complains().await
        })
        .await?;
    let what = "something of the unsigned commit is applied";
    scene
        .never(what, scene.bound(), async || {
            let revision = scene.read_text(What::Revision, "app").await?;
            let (one, more) = (scene.value("one").await?, scene.value("more").await?);
            let changed = one.as_deref() != Some("1") || more.is_some();
            Ok((changed || revision.contains(&unsigned))
                .then(|| format!("one is {one:?}, more is {more:?}, the status names {revision}")))
        })
        .await?;
    scene.commit_maps(&[("one", "3")]);
    let signed = scene.repo.sign(&key);
    scene.note(format!("{} is signed", &signed[..12]));
    scene.look("app").await?;
    scene.applied("app", &signed, scene.bound_after_failure()).await
}

pub(crate) async fn keeps_history(scene: &Scene<'_>) -> Played {
    let mut commits = Vec::new();
    for value in ["1", "2", "3"] {
        let commit = scene.commit_maps(&[("one", value)]);
        if commits.is_empty() {
            scene.set_up().await?;
        } else {
            scene.look("app").await?;
        }
        scene.applied("app", &commit, scene.bound()).await?;
        commits.push(commit);
    }
    scene
        .until("the history names all three commits", scene.bound(), async || {
            let history = scene.read(What::History, "app").await?;
            let named = |commit: &String| {
                let all = history.as_array().into_iter().flatten().filter_map(Value::as_str);
                all.into_iter().any(|text| text.contains(commit))
            };
            let missing: Vec<_> = commits.iter().filter(|commit| !named(commit)).collect();
            Ok(if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("it lacks {missing:?}; it is {history}"))
            })
        })
        .await
}
