//! What one scenario works with: a namespace and a repository of its own, the agent's objects in them, and
//! a record of what was seen.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use plumb_testkit::{Match, Repo};
use serde_json::{Value, json};

use crate::adapter::{Template, Values, What, fill, merge};
use crate::cluster::{Kind, config_maps};
use crate::error::SuiteError;
use crate::stage::Stage;

/// What is added to an agent's own interval: time to fetch, to render and to apply a handful of objects,
/// on a machine that does other things, too. The same for all agents.
pub(crate) const SLACK: Duration = Duration::from_secs(20);
/// How often is looked whether something holds.
const LOOK: Duration = Duration::from_millis(100);
/// Who edits what an agent applied.
pub(crate) const SOMEBODY: &str = "somebody";

/// Why a scenario ended before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The agent did not do its duty.
    Fails(String),
    /// The agent cannot be put to it, by its adapter's own word.
    Untestable(String),
    /// The suite could not do its work.
    Suite(SuiteError),
}

impl From<SuiteError> for Stop {
    fn from(error: SuiteError) -> Self {
        Self::Suite(error)
    }
}

/// What playing a scenario comes to: nothing more to say where the duty was done.
pub(crate) type Played = Result<(), Stop>;

/// See the module.
pub(crate) struct Scene<'s> {
    pub(crate) stage: &'s Stage,
    pub(crate) ns: String,
    pub(crate) repo: Repo,
    begun: Instant,
    evidence: Mutex<Vec<String>>,
    random: Mutex<fastrand::Rng>,
}

impl<'s> Scene<'s> {
    /// An empty namespace and an empty repository. `id` names the duty.
    pub(crate) async fn new(stage: &'s Stage, id: &str, seed: u64) -> Result<Self, SuiteError> {
        let ns = format!("{}-{seed}", id.to_lowercase().replace('.', "-"));
        let scene = Self {
            stage,
            repo: stage.git.repo(&ns),
            begun: Instant::now(),
            evidence: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            ns,
        };
        scene.namespace(&scene.ns).await?;
        Ok(scene)
    }

    pub(crate) async fn namespace(&self, name: &str) -> Result<(), SuiteError> {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name },
        });
        let kind = Kind::new("v1", "Namespace", "namespaces");
        self.stage.cluster.ensure(&kind, "", &object).await
    }

    /// Takes down what was seen.
    pub(crate) fn note(&self, text: impl Into<String>) {
        let line = format!("{:6.1} s  {}", self.begun.elapsed().as_secs_f64(), text.into());
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    pub(crate) fn evidence(&self) -> Vec<String> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// In what time something new is done that nothing stands in the way of.
    pub(crate) fn bound(&self) -> Duration {
        self.stage.adapter.interval() + SLACK
    }

    /// The same after something failed, which may have made the agent wait longer than usual.
    pub(crate) fn bound_after_failure(&self) -> Duration {
        3 * self.stage.adapter.interval() + 2 * SLACK
    }

    /// A commit of files; no content takes one away.
    pub(crate) fn commit(&self, files: &[(&str, Option<String>)]) -> String {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_deref())).collect();
        let names: Vec<_> = files.iter().map(|(path, _)| *path).collect();
        let commit = self.repo.commit(&files, &names.join(", "));
        self.note(format!("commit {}: {}", &commit[..12], names.join(", ")));
        commit
    }

    /// ConfigMaps of these names with a value each, a file each below `app`.
    pub(crate) fn commit_maps(&self, maps: &[(&str, &str)]) -> String {
        let files: Vec<_> = maps
            .iter()
            .map(|(name, value)| (format!("app/{name}.yaml"), Some(self.map(name, value))))
            .collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (&**path, text.clone())).collect();
        self.commit(&files)
    }

    fn values(&self, more: &[(&str, &str)]) -> Values {
        let mut values = self.stage.values();
        let git = self.stage.git_proxy.through(&self.stage.git.url(&self.ns));
        values.insert("url".into(), git);
        values.insert("namespace".into(), self.ns.clone());
        values.extend(more.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        values
    }

    async fn put(
        &self,
        template: &Template,
        name: &str,
        variants: &[&str],
        more: &[(&str, &str)],
        part: impl Fn(&crate::adapter::Variant) -> &Value,
    ) -> Result<(), Stop> {
        let mut object = template.object.clone();
        for variant in variants {
            let found = self.stage.adapter.variants.get(*variant).ok_or_else(|| {
                Stop::Fails(format!("the agent has no way to {variant}: its adapter names none"))
            })?;
            merge(&mut object, part(found));
        }
        let mut values = self.values(more);
        values.insert("name".into(), name.into());
        let mut object = fill(&object, &values)?;
        object["metadata"]["name"] = json!(name);
        object["metadata"]["namespace"] = json!(self.ns);
        let kind = template.kind();
        self.stage.cluster.apply("gitops-conformance", &kind, &self.ns, &object).await?;
        Ok(())
    }

    /// The repository, where the agent has an object for that. Variants change it.
    pub(crate) async fn source(
        &self,
        variants: &[&str],
        more: &[(&str, &str)],
    ) -> Result<(), Stop> {
        let known = |variant: &&&str| !self.stage.adapter.variants.contains_key(**variant);
        if let Some(missing) = variants.iter().find(known) {
            let why = format!("the agent has no way to {missing}: its adapter names none");
            return Err(Stop::Fails(why));
        }
        let Some(template) = &self.stage.adapter.source else { return Ok(()) };
        self.put(template, "repo", variants, more, |variant| &variant.source).await
    }

    /// A path of the repository, kept applied.
    pub(crate) async fn app(
        &self,
        name: &str,
        path: &str,
        variants: &[&str],
        more: &[(&str, &str)],
    ) -> Result<(), Stop> {
        let more = [&[("path", path)], more].concat();
        let template = &self.stage.adapter.application;
        self.put(template, name, variants, &more, |variant| &variant.application).await
    }

    /// Repository and one path of it, `app`, as most scenarios need them.
    pub(crate) async fn set_up(&self) -> Result<(), Stop> {
        self.source(&[], &[]).await?;
        self.app("app", "app", &[], &[]).await
    }

    /// Takes the agent's object away, and waits until it is gone, which may wait for the agent.
    pub(crate) async fn drop_app(&self, name: &str) -> Played {
        let kind = self.stage.adapter.application.kind();
        self.stage.cluster.delete(&kind, &self.ns, name).await?;
        self.until(&format!("{name} is gone"), self.bound(), async || {
            let found = self.stage.cluster.get(&kind, &self.ns, name).await?;
            Ok(if found.is_none() { Ok(()) } else { Err("it is there".to_owned()) })
        })
        .await
    }

    /// Asks the agent to look at once, where it can be asked.
    pub(crate) async fn look(&self, name: &str) -> Result<(), Stop> {
        let adapter = &self.stage.adapter;
        let token = jiff::Timestamp::now().to_string();
        let asked = [(adapter.source.as_ref(), "repo"), (Some(&adapter.application), name)];
        for (template, name) in asked {
            let Some(template) = template else { continue };
            let Some(annotation) = &template.look else { continue };
            let patch = json!({ "metadata": { "annotations": { annotation.as_str(): token } } });
            let (cluster, kind) = (&self.stage.cluster, template.kind());
            cluster.merge("gitops-conformance", &kind, &self.ns, name, &patch).await?;
        }
        Ok(())
    }

    /// What the agent's object says.
    pub(crate) async fn read(&self, what: What, name: &str) -> Result<Value, Stop> {
        self.read_of(&self.stage.adapter.application, what, name).await
    }

    /// What its source says; the application speaks for it where there is none.
    pub(crate) async fn read_source(&self, what: What) -> Result<Value, Stop> {
        match &self.stage.adapter.source {
            Some(template) if template.read.tells(what) => {
                self.read_of(template, what, "repo").await
            }
            _ => self.read(what, "app").await,
        }
    }

    async fn read_of(&self, template: &Template, what: What, name: &str) -> Result<Value, Stop> {
        let kind = template.kind();
        let object = self.stage.cluster.get(&kind, &self.ns, name).await?.unwrap_or_default();
        let events = Kind::new("v1", "Event", "events");
        let events = self.stage.cluster.list(&events, &self.ns).await?;
        let about = |event: &Value| {
            event["involvedObject"]["name"] == name && event["involvedObject"]["kind"] == kind.name
        };
        let events: Vec<Value> = events.into_iter().filter(about).collect();
        Ok(template.read.value(what, &object, &events))
    }

    pub(crate) async fn read_text(&self, what: What, name: &str) -> Result<String, Stop> {
        Ok(self.read(what, name).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until something holds, and gives it; the agent fails when it does not in time. The last thing
    /// that was seen instead is the reason.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        bound: Duration,
        mut holds: impl AsyncFnMut() -> Result<Result<T, String>, Stop>,
    ) -> Result<T, Stop> {
        let begun = Instant::now();
        loop {
            let seen = match holds().await? {
                Ok(found) => {
                    self.note(format!("{what}, after {:.1} s", begun.elapsed().as_secs_f64()));
                    return Ok(found);
                }
                Err(seen) => seen,
            };
            if begun.elapsed() > bound {
                let why = format!("not within {:.0} s: {what}; {seen}", bound.as_secs_f64());
                self.note(&*why);
                return Err(Stop::Fails(why));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Watches for a time that something does not happen: the agent fails when it does.
    pub(crate) async fn never(
        &self,
        what: &str,
        time: Duration,
        mut happened: impl AsyncFnMut() -> Result<Option<String>, Stop>,
    ) -> Played {
        let begun = Instant::now();
        while begun.elapsed() < time {
            if let Some(seen) = happened().await? {
                let why = format!("{what}: {seen}");
                self.note(&*why);
                return Err(Stop::Fails(why));
            }
            tokio::time::sleep(LOOK).await;
        }
        self.note(format!("not in {:.0} s: {what}", time.as_secs_f64()));
        Ok(())
    }

    /// Waits until an application says that a commit is applied and all is well.
    pub(crate) async fn applied(&self, name: &str, commit: &str, bound: Duration) -> Played {
        self.until(&format!("{name} says that {} is applied", &commit[..12]), bound, async || {
            let revision = self.read_text(What::Revision, name).await?;
            let ready = self.read(What::Ready, name).await? == json!(true);
            if revision.contains(commit) && ready {
                return Ok(Ok(()));
            }
            let trouble = self.read_text(What::Trouble, name).await?;
            Ok(Err(format!("revision {revision:?}, ready: {ready}, trouble: {trouble:?}")))
        })
        .await
    }

    /// Waits until an application says that something is wrong; gives its words.
    pub(crate) async fn in_trouble(
        &self,
        name: &str,
        part: &str,
        bound: Duration,
    ) -> Result<String, Stop> {
        let what = format!("{name} says what is wrong, with {part:?} in it");
        self.until(&what, bound, async || {
            let trouble = self.read_text(What::Trouble, name).await?;
            let ready = self.read(What::Ready, name).await? == json!(true);
            if trouble.contains(part) && !trouble.is_empty() && !ready {
                return Ok(Ok(trouble));
            }
            Ok(Err(format!("ready: {ready}, trouble: {trouble:?}")))
        })
        .await
    }

    /// The agent's requests to the repository.
    pub(crate) fn of_repo(&self) -> Match {
        Match::any().path(&format!("/{}.git/", self.ns))
    }

    /// The agent's writes of a kind in this namespace.
    pub(crate) fn writes_of(&self, plural: &str) -> Match {
        let within = format!("/namespaces/{}/{plural}", self.ns);
        Match::any().path(&within).when(|seen| seen.method != "GET")
    }

    /// Whether the application or its source says that anything is wrong.
    pub(crate) async fn complains(&self) -> Result<Result<(), String>, Stop> {
        let told = [self.read_source(What::Trouble).await?, self.read(What::Trouble, "app").await?];
        let tells = told.iter().any(|text| text.as_str().is_some_and(|text| !text.is_empty()));
        Ok(if tells { Ok(()) } else { Err("it says nothing".to_owned()) })
    }

    /// The value of a ConfigMap; `None` where there is none.
    pub(crate) async fn value(&self, name: &str) -> Result<Option<String>, Stop> {
        let found = self.stage.cluster.get(&config_maps(), &self.ns, name).await?;
        Ok(found.map(|found| found["data"]["value"].as_str().unwrap_or_default().to_owned()))
    }

    /// Waits until ConfigMaps have these values; `None` for one that is gone.
    pub(crate) async fn values_are(
        &self,
        what: &str,
        wanted: &[(&str, Option<&str>)],
        bound: Duration,
    ) -> Played {
        self.until(what, bound, async || {
            let mut seen = String::new();
            for (name, value) in wanted {
                let found = self.value(name).await?;
                if found.as_deref() != *value {
                    let _infallible = write!(seen, "{name} has {found:?} and not {value:?}; ");
                }
            }
            Ok(if seen.is_empty() { Ok(()) } else { Err(seen) })
        })
        .await
    }

    /// Somebody sets the value of a ConfigMap.
    pub(crate) async fn edit(&self, name: &str, value: &str) -> Played {
        let patch = json!({ "data": { "value": value } });
        self.stage.cluster.merge(SOMEBODY, &config_maps(), &self.ns, name, &patch).await?;
        Ok(())
    }

    /// What the agent wrote in this namespace since: lines of requests, but for Leases and Events, which
    /// are no state of anything.
    pub(crate) fn writes_since(&self, mark: usize) -> Vec<String> {
        let within = format!("/namespaces/{}/", self.ns);
        let all = self.stage.api.since(mark).into_iter();
        all.filter(|exchange| {
            let seen = &exchange.request;
            let beside = ["/leases", "/events"].iter().any(|part| seen.path.contains(part));
            let reads = matches!(seen.method.as_str(), "GET" | "HEAD");
            let dry = seen.query.contains("dryRun=All");
            !reads && !beside && !dry && seen.path.contains(&within)
        })
        .map(|exchange| exchange.line())
        .collect()
    }

    /// The live ConfigMaps with a label that Git gives them, without what the API server or a clock put
    /// there: what can be compared with another time. An agent may have ConfigMaps of its own.
    pub(crate) async fn shapes(&self, label: &str) -> Result<BTreeSet<String>, Stop> {
        let all = self.stage.cluster.list(&config_maps(), &self.ns).await?;
        let shape = |mut object: Value| {
            let own = !object["metadata"]["labels"][label].is_null();
            if let Some(metadata) = object["metadata"].as_object_mut() {
                for field in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
                    metadata.remove(field);
                }
                let managed = metadata.get_mut("managedFields").and_then(Value::as_array_mut);
                for entry in managed.into_iter().flatten() {
                    entry["time"] = Value::Null;
                }
            }
            own.then(|| object.to_string())
        };
        Ok(all.into_iter().filter_map(shape).collect())
    }

    /// The text of a ConfigMap with one value.
    pub(crate) fn map(&self, name: &str, value: &str) -> String {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {}\n  labels:\n    kept: \
             \"yes\"\ndata:\n  value: \"{value}\"\n",
            self.ns
        )
    }

    /// The text of a Deployment, with more fields of its spec.
    pub(crate) fn deployment(&self, name: &str, image: &str, more: &str) -> String {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  namespace: {}\nspec:\n{more}  \
             selector:\n    matchLabels: {{ app: {name} }}\n  template:\n    metadata:\n      labels: {{ app: {name} \
             }}\n    spec:\n      containers:\n        - name: main\n          image: \
             registry.example.com/{image}\n",
            self.ns
        )
    }
}
