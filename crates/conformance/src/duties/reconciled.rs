//! Desired state is continuously reconciled.

use std::time::{Duration, Instant};

use plumb_testkit::{Admission, Fault, Rule, Webhook};
use serde_json::{Value, json};

use crate::adapter::What;
use crate::cluster::{Kind, config_maps};
use crate::scene::{Played, SOMEBODY, Scene, Stop};

/// How often each kind of drift is made.
const TIMES: usize = 5;
/// How long somebody fights the agent, and how soon he answers.
const FIGHT: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_millis(200);
/// How many objects are under way when a newer commit comes, and what each write takes.
const UNDER_WAY: usize = 20;
const SLOW: Duration = Duration::from_secs(1);

pub(crate) async fn corrects_drift(scene: &Scene<'_>) -> Played {
    let commit = scene.commit_maps(&[("one", "1"), ("two", "1"), ("three", "1")]);
    scene.set_up().await?;
    scene.applied("app", &commit, scene.bound()).await?;
    let cluster = &scene.stage.cluster;
    let mut took = Vec::new();
    for number in 0..TIMES {
        for how in ["value", "deletion", "label"] {
            let begun = Instant::now();
            match how {
                "value" => scene.edit("one", &format!("edited {number}")).await?,
                "deletion" => cluster.delete(&config_maps(), &scene.ns, "two").await?,
                _ => {
                    let patch = json!({ "metadata": { "labels": { "kept": "no" } } });
                    cluster.merge(SOMEBODY, &config_maps(), &scene.ns, "three", &patch).await?;
                }
            }
            scene
                .until(&format!("{how} {number} is put back"), scene.bound(), async || {
                    let found = [
                        scene.value("one").await?.as_deref() == Some("1"),
                        scene.value("two").await?.as_deref() == Some("1"),
                        label(scene, "three").await? == json!("yes"),
                    ];
                    Ok(if found == [true; 3] { Ok(()) } else { Err(format!("{found:?}")) })
                })
                .await?;
            took.push(begun.elapsed().as_secs_f64());
        }
    }
    took.sort_by(f64::total_cmp);
    let at = |part: usize| took.get((took.len() * part / 100).min(took.len() - 1)).copied();
    scene.note(format!(
        "{} drifts were put back: p50 {:.2} s, p99 {:.2} s",
        took.len(),
        at(50).unwrap_or_default(),
        at(99).unwrap_or_default(),
    ));
    Ok(())
}

async fn label(scene: &Scene<'_>, name: &str) -> Result<Value, Stop> {
    let found = scene.stage.cluster.get(&config_maps(), &scene.ns, name).await?;
    Ok(found.map(|found| found["metadata"]["labels"]["kept"].clone()).unwrap_or_default())
}

pub(crate) async fn leaves_what_others_own(scene: &Scene<'_>) -> Played {
    let files = |image: &str| {
        vec![
            ("app/web.yaml", Some(scene.deployment("web", image, ""))),
            ("app/one.yaml", Some(scene.map("one", image))),
        ]
    };
    let commit = scene.commit(&files("web:1"));
    scene.set_up().await?;
    scene.applied("app", &commit, scene.bound()).await?;
    let cluster = &scene.stage.cluster;
    let deployments = Kind::new("apps/v1", "Deployment", "deployments");
    let theirs = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": { "replicas": 3 },
    });
    cluster.apply("an-autoscaler", &deployments, &scene.ns, &theirs).await?;
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "one", "annotations": { "theirs": "yes" } },
        "data": { "theirs": "yes" },
    });
    cluster.apply("an-injector", &config_maps(), &scene.ns, &theirs).await?;
    scene.note("another manager owns replicas, an annotation and a key");
    let mine = async || -> Result<Option<String>, Stop> {
        let web = cluster.get(&deployments, &scene.ns, "web").await?.unwrap_or_default();
        let one = cluster.get(&config_maps(), &scene.ns, "one").await?.unwrap_or_default();
        let found = json!([
            web["spec"]["replicas"],
            one["metadata"]["annotations"]["theirs"],
            one["data"]["theirs"]
        ]);
        Ok((found != json!([3, "yes", "yes"])).then(|| found.to_string()))
    };
    scene.look("app").await?;
    scene.never("what others own is taken from them", scene.bound(), mine).await?;
    let commit = scene.commit(&files("web:2"));
    scene.look("app").await?;
    scene.applied("app", &commit, scene.bound()).await?;
    match mine().await? {
        None => Ok(()),
        Some(found) => Err(Stop::Fails(format!("after a commit it is {found}"))),
    }
}

pub(crate) async fn prunes_what_it_owns(scene: &Scene<'_>) -> Played {
    let commit = scene.commit_maps(&[("stays", "1"), ("leaves", "1")]);
    scene.set_up().await?;
    scene.applied("app", &commit, scene.bound()).await?;
    let cluster = &scene.stage.cluster;
    let pattern = cluster.get(&config_maps(), &scene.ns, "leaves").await?.unwrap_or_default();
    let beside = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "by-hand", "labels": pattern["metadata"]["labels"] },
        "data": { "value": "mine" },
    });
    cluster.apply(SOMEBODY, &config_maps(), &scene.ns, &beside).await?;
    scene.note("somebody makes by-hand, with all labels of the one that is to leave");
    let commit = scene.commit(&[("app/leaves.yaml", None)]);
    scene.look("app").await?;
    scene.applied("app", &commit, scene.bound()).await?;
    let wanted = [("stays", Some("1")), ("leaves", None)];
    scene.values_are("what left Git is gone", &wanted, scene.bound()).await?;
    scene
        .never("what was never applied is deleted", scene.bound(), async || {
            let found = scene.value("by-hand").await?;
            Ok((found.as_deref() != Some("mine")).then(|| format!("by-hand is {found:?}")))
        })
        .await
}

pub(crate) async fn retries_what_fails(scene: &Scene<'_>) -> Played {
    let elsewhere = format!("{}-later", scene.ns);
    let causes = Causes::make(scene, &elsewhere).await?;
    let far = scene
        .map("far", "1")
        .replace(&format!("namespace: {}\n", scene.ns), &format!("namespace: {elsewhere}\n"));
    let rejected = scene
        .map("rejected", "1")
        .replace("  labels:\n", &format!("  labels:\n    {REJECTED}: \"yes\"\n"));
    let mut files = vec![
        ("app/far.yaml", Some(far)),
        ("app/near.yaml", Some(scene.map("near", "1"))),
        ("app/other.yaml", Some(scene.map("other", "1"))),
        ("app/rejected.yaml", Some(rejected)),
    ];
    if causes.account.is_some() {
        let account = format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{ name: forbidden, namespace: {} }}\n",
            scene.ns
        );
        files.push(("app/forbidden.yaml", Some(account)));
    }
    scene.commit(&files);
    scene.source(&[], &[]).await?;
    match &causes.account {
        Some(account) => scene.app("app", "app", &["account"], &[("account", account)]).await?,
        None => scene.app("app", "app", &[], &[]).await?,
    }
    let wanted = [("near", Some("1")), ("other", Some("1"))];
    scene.values_are("what can be applied is", &wanted, scene.bound()).await?;
    scene.in_trouble("app", &elsewhere, scene.bound()).await?;
    bounded_tries(scene, &elsewhere).await?;
    causes.end(scene, &elsewhere).await?;
    scene
        .until("nothing is told as wrong any more", scene.bound_after_failure(), async || {
            let trouble = scene.read_text(What::Trouble, "app").await?;
            Ok(if trouble.is_empty() { Ok(()) } else { Err(trouble) })
        })
        .await?;
    let mut codes = [429, 500];
    scene.random(|random| random.shuffle(&mut codes));
    let rules = codes.map(|code| {
        let retry_after = (code == 429).then_some(1);
        let rule = Rule::new(scene.writes_of("configmaps"), Fault::Status { code, retry_after });
        scene.stage.api.add(rule.times(FEW))
    });
    scene.note(format!("the API server answers {FEW} writes with each of {codes:?}"));
    let commit = scene.commit_maps(&[("near", "2"), ("other", "2")]);
    scene.look("app").await?;
    let applied = scene.applied("app", &commit, scene.bound_after_failure()).await;
    let hits = rules.map(|rule| scene.stage.api.hits(rule));
    for rule in rules {
        scene.stage.api.remove(rule);
    }
    scene.note(format!("{hits:?} writes were answered so"));
    applied?;
    let wanted = [("near", Some("2")), ("other", Some("2"))];
    scene.values_are("its values are live", &wanted, Duration::ZERO).await
}

/// Not in a loop: no more often than twice an interval, and a dry run with each.
async fn bounded_tries(scene: &Scene<'_>, elsewhere: &str) -> Played {
    let mark = scene.stage.api.mark();
    tokio::time::sleep(2 * scene.bound()).await;
    let path = format!("/namespaces/{elsewhere}/configmaps");
    let tries = scene.stage.api.since(mark);
    let tries =
        tries.iter().filter(|one| one.request.path.contains(&path) && one.request.method != "GET");
    let tries = tries.count();
    scene.note(format!("while it fails it is tried {tries} times"));
    let time = 2.0 * scene.bound().as_secs_f64();
    let most = 4.0 * (time / scene.stage.adapter.interval().as_secs_f64() + 1.0);
    #[expect(clippy::cast_precision_loss, reason = "some dozens")]
    if tries as f64 > most {
        return Err(Stop::Fails(format!("{tries} tries in {time:.0} s are no back-off")));
    }
    Ok(())
}

/// Why objects of one application cannot be applied.
struct Causes {
    /// Rejects what bears its label. Where the API server cannot reach it, it rejects by that.
    webhook: Webhook,
    /// An account that has rights to ConfigMaps alone, where the agent applies as one that it is given.
    account: Option<String>,
}

/// The label of what is rejected.
const REJECTED: &str = "rejected";
/// How many writes are answered with an error.
const FEW: u32 = 3;

fn webhooks() -> Kind {
    let api = "admissionregistration.k8s.io/v1";
    Kind::new(api, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
}

impl Causes {
    async fn make(scene: &Scene<'_>, elsewhere: &str) -> Result<Self, Stop> {
        let webhook = Webhook::start().await;
        webhook.set(Admission::Deny("it is not to be".into()));
        let mut configuration = webhook.configuration(&scene.ns, &scene.ns, "configmaps", "Fail");
        configuration["webhooks"][0]["objectSelector"] =
            json!({ "matchLabels": { REJECTED: "yes" } });
        let cluster = &scene.stage.cluster;
        cluster.apply("gitops-conformance", &webhooks(), "", &configuration).await?;
        scene.note(format!("{elsewhere} is not there, and a webhook rejects an object"));
        let account = scene.stage.adapter.variants.contains_key("account").then_some("limited");
        if let Some(account) = account {
            cluster.limited(&scene.ns, account, &["configmaps"]).await?;
            scene.note(format!("{account} has a right to ConfigMaps alone"));
        }
        Ok(Self { webhook, account: account.map(String::from) })
    }

    /// They go one by one, and what they kept away comes without a commit.
    async fn end(self, scene: &Scene<'_>, elsewhere: &str) -> Played {
        let cluster = &scene.stage.cluster;
        let accounts = Kind::new("v1", "ServiceAccount", "serviceaccounts");
        if let Some(account) = &self.account {
            cluster.limited(&scene.ns, account, &["configmaps", "serviceaccounts"]).await?;
            scene.note(format!("{account} has a right to ServiceAccounts, too"));
            comes(scene, &accounts, &scene.ns, "forbidden").await?;
        }
        cluster.delete(&webhooks(), "", &scene.ns).await?;
        self.webhook.down().await;
        scene.note("the webhook is gone");
        comes(scene, &config_maps(), &scene.ns, "rejected").await?;
        scene.namespace(elsewhere).await?;
        scene.note(format!("namespace {elsewhere} is made"));
        comes(scene, &config_maps(), elsewhere, "far").await
    }
}

/// Waits until an object is there that could not be applied before.
async fn comes(scene: &Scene<'_>, kind: &Kind, namespace: &str, name: &str) -> Played {
    scene
        .until(&format!("{name} is there"), scene.bound_after_failure(), async || {
            let found = scene.stage.cluster.get(kind, namespace, name).await?;
            Ok(found.map(drop).ok_or_else(|| "it is not".to_owned()))
        })
        .await
}

pub(crate) async fn reports_drift(scene: &Scene<'_>) -> Played {
    let commit = scene.commit_maps(&[("one", "1")]);
    scene.set_up().await?;
    scene.applied("app", &commit, scene.bound()).await?;
    scene.app("app", "app", &["observe"], &[]).await?;
    scene.look("app").await?;
    scene
        .until("no drift is told while there is none", scene.bound(), async || {
            let drift = scene.read(What::Drift, "app").await?;
            Ok(if drift == json!(true) { Err("it is told".to_owned()) } else { Ok(()) })
        })
        .await?;
    scene.edit("one", "edited").await?;
    scene.note("somebody edits one");
    scene
        .until("drift is told", scene.bound(), async || {
            let drift = scene.read(What::Drift, "app").await?;
            Ok(if drift == json!(true) { Ok(()) } else { Err(format!("it says {drift}")) })
        })
        .await?;
    scene
        .never("it is corrected although that is off", scene.bound(), async || {
            let found = scene.value("one").await?;
            Ok((found.as_deref() != Some("edited")).then(|| format!("one is {found:?}")))
        })
        .await
}

pub(crate) async fn bounds_fights(scene: &Scene<'_>) -> Played {
    let commit = scene.commit_maps(&[("one", "1")]);
    scene.set_up().await?;
    scene.applied("app", &commit, scene.bound()).await?;
    let mark = scene.stage.api.mark();
    let begun = Instant::now();
    let (mut edits, mut told) = (0_usize, false);
    while begun.elapsed() < FIGHT {
        scene.edit("one", &format!("edited {edits}")).await?;
        edits += 1;
        tokio::time::sleep(ANSWER).await;
        told = told || scene.read(What::Fight, "app").await? == json!(true);
    }
    let path = "/configmaps/one".to_owned();
    let writes = scene.writes_since(mark).iter().filter(|line| line.contains(&path)).count();
    scene.note(format!("{edits} edits were answered by {writes} writes"));
    if 2 * writes > edits {
        return Err(Stop::Fails(format!("{writes} writes for {edits} edits are not bounded")));
    }
    if !told {
        scene
            .until("the fight is told", scene.bound(), async || {
                let told = scene.read(What::Fight, "app").await?;
                Ok(if told == json!(true) { Ok(()) } else { Err(format!("it says {told}")) })
            })
            .await?;
    }
    // It is no surrender.
    scene
        .values_are("its value is put back at last", &[("one", Some("1"))], 4 * scene.bound())
        .await
}

pub(crate) async fn supersedes(scene: &Scene<'_>) -> Played {
    let names: Vec<String> = (0..UNDER_WAY).map(|number| format!("map-{number:02}")).collect();
    let maps = |value: &'static str| -> Vec<(&str, &str)> {
        names.iter().map(|name| (&**name, value)).collect()
    };
    let zero = scene.commit_maps(&maps("0"));
    scene.set_up().await?;
    scene.applied("app", &zero, scene.bound()).await?;
    let write = scene.writes_of("configmaps");
    let rule = scene.stage.api.add(Rule::new(write, Fault::Delay(SLOW)));
    let played = async {
        let mark = scene.stage.api.mark();
        scene.commit_maps(&maps("1"));
        scene.look("app").await?;
        scene
            .until("the first commit is under way", scene.bound(), async || {
                let writes = scene.writes_since(mark).len();
                Ok(if writes > 0 { Ok(()) } else { Err("nothing is written".to_owned()) })
            })
            .await?;
        let second = scene.commit_maps(&maps("2"));
        scene.look("app").await?;
        Ok::<_, Stop>((mark, second))
    };
    let played = played.await;
    let outcome = match played {
        Ok((mark, second)) => finish(scene, mark, &second).await,
        Err(stop) => Err(stop),
    };
    scene.stage.api.remove(rule);
    outcome
}

/// Waits until the second commit is in place, and looks which objects were written as of the first.
async fn finish(scene: &Scene<'_>, mark: usize, second: &str) -> Played {
    let bound = scene.bound_after_failure() + 2 * SLOW * u32::try_from(UNDER_WAY).unwrap_or(0);
    scene.applied("app", second, bound).await?;
    let first = |body: &[u8]| String::from_utf8_lossy(body).contains("\"value\":\"1\"");
    let within = format!("/namespaces/{}/configmaps/", scene.ns);
    let writes = scene.stage.api.since(mark);
    let of_first = writes.iter().filter(|one| {
        one.request.path.contains(&within)
            && one.request.method != "GET"
            && !one.request.query.contains("dryRun")
            && first(&one.request.body)
    });
    let of_first = of_first.count();
    scene.note(format!("{of_first} of {UNDER_WAY} objects were written as of the first commit"));
    if of_first >= UNDER_WAY {
        let why = "all of the first commit was applied before the second was begun";
        return Err(Stop::Fails(why.into()));
    }
    Ok(())
}

pub(crate) async fn survives_an_empty_render(scene: &Scene<'_>) -> Played {
    let names = ["one", "two", "three"];
    let commit = scene.commit_maps(&names.map(|name| (name, "1")));
    scene.set_up().await?;
    scene.applied("app", &commit, scene.bound()).await?;
    let stands = async || -> Result<Option<String>, Stop> {
        for name in names {
            if scene.value(name).await?.as_deref() != Some("1") {
                return Ok(Some(format!("{name} is gone or another one")));
            }
        }
        Ok(None)
    };
    scene.commit(&[("app/broken.yaml", Some("kind: [".into()))]);
    scene.look("app").await?;
    scene.in_trouble("app", "broken.yaml", scene.bound()).await?;
    scene.never("objects are deleted for a broken file", scene.bound(), stands).await?;
    scene.commit(&[
        ("app/broken.yaml", None),
        ("app/one.yaml", None),
        ("app/two.yaml", None),
        ("app/three.yaml", None),
        ("app/README.md", Some("Nothing is here any more.\n".into())),
    ]);
    scene.look("app").await?;
    scene
        .never("all objects are deleted for an empty path", scene.bound_after_failure(), stands)
        .await?;
    scene
        .until("the agent says why they are there still", scene.bound(), async || {
            let told = [
                scene.read_text(What::Held, "app").await?,
                scene.read_text(What::Trouble, "app").await?,
            ];
            let told = told.into_iter().find(|text| !text.is_empty());
            Ok(told.map(drop).ok_or_else(|| "it says nothing".to_owned()))
        })
        .await
}

pub(crate) async fn acts_on_feedback(scene: &Scene<'_>) -> Played {
    // No node takes it: it never becomes available.
    let stuck = scene
        .deployment("stuck", "stuck:1", "  replicas: 1\n  progressDeadlineSeconds: 5\n")
        .replace(
            "    spec:\n      containers",
            "    spec:\n      nodeSelector: { nowhere: \"yes\" }\n      containers",
        );
    scene.commit(&[
        ("app/stuck.yaml", Some(stuck)),
        ("next/after.yaml", Some(scene.map("after", "1"))),
    ]);
    scene.source(&[], &[]).await?;
    scene.app("app", "app", &["wait"], &[]).await?;
    scene.app("next", "next", &["depends"], &[("on", "app")]).await?;
    scene.in_trouble("app", "stuck", scene.bound_after_failure()).await?;
    scene
        .never("what depends on it is applied all the same", scene.bound(), async || {
            let found = scene.value("after").await?;
            Ok(found.map(|value| format!("after has {value:?}")))
        })
        .await?;
    let mended = scene.deployment("stuck", "stuck:2", "  replicas: 0\n");
    let commit = scene.commit(&[("app/stuck.yaml", Some(mended))]);
    scene.look("app").await?;
    scene.applied("app", &commit, scene.bound_after_failure()).await?;
    let wanted = [("after", Some("1"))];
    let bound = scene.bound_after_failure();
    scene.values_are("what depends on it follows", &wanted, bound).await
}

pub(crate) async fn rests(scene: &Scene<'_>) -> Played {
    let commit = scene.commit(&[
        ("app/one.yaml", Some(scene.map("one", "1"))),
        ("app/web.yaml", Some(scene.deployment("web", "web:1", "  replicas: 0\n"))),
    ]);
    scene.set_up().await?;
    scene.applied("app", &commit, scene.bound()).await?;
    // What the first sync still has to say is said.
    tokio::time::sleep(scene.bound()).await;
    let mark = scene.stage.api.mark();
    let time = 3 * scene.stage.adapter.interval();
    tokio::time::sleep(time).await;
    let writes = scene.writes_since(mark);
    scene.note(format!("{} writes in {:.0} s", writes.len(), time.as_secs_f64()));
    match writes.first() {
        None => Ok(()),
        Some(write) => Err(Stop::Fails(format!("{} writes, the first: {write}", writes.len()))),
    }
}
