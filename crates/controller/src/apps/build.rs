//! What a run is about, and what its files render to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_api::conditions::reasons;
use plumb_core::{Digest, ErrorClass, Hasher, Inputs, Object, RelPath, TreeError};
use plumb_engine::{Sabotage, leaves_out};
use plumb_render::{RenderError, render};
use plumb_source::{Cancel, CommitId, Remote, Revision, SourceError, same_mirror};

use super::Run;
use super::how::How;
use super::values::Given;
use crate::daemon::{Daemon, PANICKED, Panicked, chain};
use crate::metrics::Kind;
use crate::named::NamedKind;
use crate::names::{Key, Name};
use crate::queue::Lane;
use crate::sources::revision_of;
use crate::state::Rendered;
use crate::status::{BRIEF_COMMIT, Waits, shorten, with_hint};
use crate::wants::Need;

/// The fields of a spec that say how objects are made, and which of their fields are left to others.
const RENDERED_BY: [&str; 11] = [
    "path",
    "components",
    "ignoreMissingComponents",
    "patches",
    "images",
    "namePrefix",
    "nameSuffix",
    "targetNamespace",
    "commonMetadata",
    "postBuild",
    "ignore",
];

/// Which commit a run is about.
pub(super) struct Base {
    pub(super) remote: Arc<Remote>,
    pub(super) revision: Revision,
    pub(super) how: Arc<How>,
    /// Which revision of the source this is, counted by this process.
    pub(super) seq: u64,
}

impl Base {
    /// What of it names its content.
    pub(super) fn what(&self) -> (CommitId, Arc<How>) {
        (self.revision.commit, Arc::clone(&self.how))
    }
}

impl From<&Rendered> for Base {
    fn from(rendered: &Rendered) -> Self {
        let Rendered { remote, revision, how, .. } = rendered;
        Self {
            remote: Arc::clone(remote),
            revision: revision.clone(),
            how: Arc::clone(how),
            seq: 0,
        }
    }
}

/// Why there is nothing to run.
pub(super) struct Blocked {
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) waits: Waits,
    /// Whether nothing tells when it has passed, so that another try has to find out.
    pub(super) again: bool,
}

/// What building a revision came to.
pub(super) enum Built {
    /// The objects to apply.
    Objects(Vec<Object>),
    /// The files do not render; the problems, one by one, and all in one message.
    Broken { reason: &'static str, message: String, problems: Vec<plumb_api::Failure> },
}

/// Why a revision could not even be read.
pub(super) enum Failed {
    /// It was cut short, by a shutdown or with the lease, and found out nothing.
    CutShort,
    /// The commit is not at hand. The source was asked for it, and its look calls for another run.
    Asked,
    Because {
        reason: String,
        message: String,
        class: ErrorClass,
    },
}

/// Puts every second object back to how an earlier commit has it, as an agent would that reads a moving
/// reference twice.
fn tear(objects: &mut [Object], earlier: Vec<Object>) {
    let earlier: Vec<_> = earlier.into_iter().map(|object| (object.key(), object)).collect();
    for object in objects.iter_mut().skip(1).step_by(2) {
        let key = object.key();
        if let Some((_, before)) = earlier.iter().find(|(other, _)| *other == key) {
            *object = before.clone();
        }
    }
}

impl Daemon {
    /// The commit to run, from the source or the pin, with what the cluster gives.
    pub(super) fn base(&self, run: &Run, given: Given) -> Result<Base, Blocked> {
        let spec = &run.object.spec;
        let store = self.state.lock();
        let source_name = Name::new(&run.name.namespace, &spec.source_ref.name);
        let Some(source) = store.sources.get(&source_name) else {
            return Err(Blocked {
                reason: reasons::SOURCE_NOT_FOUND.into(),
                message: format!(
                    "GitRepository {source_name} does not exist; create it, or correct \
                     spec.sourceRef"
                ),
                waits: Waits::User,
                again: false,
            });
        };
        let how = How::new(spec, source.object.spec.ignore.as_deref(), given);
        let pinned = spec.revision.as_deref().and_then(|commit| commit.parse().ok());
        let (Some(remote), Some(revision)) = (&source.remote, &source.revision) else {
            if let (Some(remote), Some(commit)) = (&source.remote, pinned) {
                let revision = Revision { name: String::new(), commit };
                return Ok(Base { remote: remote.clone(), revision, how, seq: source.seq });
            }
            let message = match &source.problem {
                Some(problem) => format!("GitRepository {source_name} is not ready: {problem}"),
                None => format!("GitRepository {source_name} has not been fetched yet"),
            };
            let reason = reasons::SOURCE_NOT_READY.into();
            return Err(Blocked { reason, message, waits: Waits::Retry, again: false });
        };
        let revision = match pinned {
            Some(commit) if commit != revision.commit => Revision { name: String::new(), commit },
            _ => revision.clone(),
        };
        Ok(Base { remote: remote.clone(), revision, how, seq: source.seq })
    }

    /// Whether another commit gives every answer that the last render read.
    pub(super) async fn inputs_unchanged(self: &Arc<Self>, known: &Rendered, base: &Base) -> bool {
        let (mirrors, opened) = (Arc::clone(&self.mirrors), Arc::clone(&self.opened));
        let (remote, commit) = (base.remote.clone(), base.revision.commit);
        let inputs = Arc::clone(&known.inputs);
        // What cannot be read here is fetched, or gets its error, when it is built.
        let look = move |_: &Cancel| {
            let Ok(snapshot) = opened.open(&mirrors, &remote, &commit) else { return false };
            let Ok(unchanged) = inputs.unchanged_in(&snapshot) else { return false };
            opened.keep(remote, commit, snapshot);
            unchanged
        };
        self.blocking(Kind::Application, look).await.unwrap_or(false)
    }

    /// Whether a commit may be applied: its GitRepository asks for no signatures, or they were found.
    pub(super) fn trusts(&self, run: &Run, base: &Base) -> bool {
        let name = Name::new(&run.name.namespace, &run.object.spec.source_ref.name);
        let store = self.state.lock();
        store.sources.get(&name).is_none_or(|source| source.trusts(&base.revision.commit))
    }

    /// Renders a commit. One that is not at hand, or not verified, is asked for; nobody waits for a Git
    /// server here.
    pub(super) async fn build(
        self: &Arc<Self>,
        run: &Run,
        base: &Base,
    ) -> Result<(Built, Inputs), Failed> {
        if !self.trusts(run, base) {
            return Err(self.ask_for(run, base));
        }
        let (remote, commit) = (base.remote.clone(), base.revision.commit);
        let how = Arc::clone(&base.how);
        let (mirrors, opened) = (Arc::clone(&self.mirrors), Arc::clone(&self.opened));
        let metrics = self.metrics.clone();
        let limit = Duration::from(run.object.spec.timeout);
        let earlier = run.before.last_applied_revision.as_deref().and_then(revision_of);
        let earlier = earlier.map(|revision| revision.commit);
        let built = self
            .blocking(Kind::Application, move |cancel| {
                let end = Instant::now() + limit;
                let failed = |error: SourceError| Failed::Because {
                    reason: error.reason().into(),
                    message: with_hint(chain(&error), error.hint()),
                    class: error.class(),
                };
                let snapshot = match opened.open(&mirrors, &remote, &commit) {
                    Ok(snapshot) => snapshot,
                    Err(_) if !mirrors.has(&remote, &commit).map_err(failed)? => {
                        return Err(Failed::Asked);
                    }
                    Err(error) => return Err(failed(error)),
                };
                let path = match RelPath::parse(&how.path) {
                    Ok(path) => path,
                    Err(error) => {
                        return Err(Failed::Because {
                            reason: reasons::INVALID_SPEC.into(),
                            message: format!("spec.path: {error}"),
                            class: ErrorClass::WaitForUser,
                        });
                    }
                };
                metrics.rendered();
                let ends = || cancel.is_cancelled() || Instant::now() > end;
                match render(&snapshot, &path, &how.options, &ends) {
                    Ok(mut rendered) => {
                        if leaves_out(Sabotage::TearsRevisions)
                            && let Some(snapshot) =
                                earlier.and_then(|commit| mirrors.snapshot(&remote, &commit).ok())
                            && let Ok(earlier) = render(&snapshot, &path, &how.options, &ends)
                        {
                            tear(&mut rendered.objects, earlier.objects);
                        }
                        opened.keep(remote, commit, snapshot);
                        Ok((Built::Objects(rendered.objects), rendered.inputs))
                    }
                    Err(failure) => match failure.error {
                        RenderError::Interrupted if cancel.is_cancelled() => Err(Failed::CutShort),
                        RenderError::Interrupted => Err(too_long(limit)),
                        // The files are damaged. A look at the source brings them anew.
                        RenderError::Tree(TreeError::Read { .. })
                            if !mirrors.is_whole(&remote, &commit).map_err(failed)? =>
                        {
                            Err(Failed::Asked)
                        }
                        _ => broken(failure),
                    },
                }
            })
            .await;
        match built {
            Ok(Err(Failed::Asked)) => Err(self.ask_for(run, base)),
            Ok(built) => built,
            Err(Panicked) => Err(Failed::Because {
                reason: reasons::INTERNAL_ERROR.into(),
                message: PANICKED.into(),
                class: ErrorClass::Bug,
            }),
        }
    }

    /// Names what an Application's objects are made from: the files that were read, what its spec says of
    /// them and names, of Secrets the versions, and who makes them. Unlike a digest of the objects it tells nothing of what a Secret, or
    /// an encrypted file, holds.
    pub(super) fn origin(&self, run: &Run, base: &Base, inputs: &Inputs) -> Digest {
        let found = self.state.lock().apps.get(&run.name).map(|app| Arc::clone(&app.found));
        let mut hasher = Hasher::new();
        hasher.part(inputs.digest().as_bytes());
        hasher.part(self.build_id().as_bytes());
        let spec = serde_json::to_value(&run.object.spec).unwrap_or_default();
        for field in RENDERED_BY {
            hasher.part(spec[field].to_string().as_bytes());
        }
        hasher.part(base.how.options.ignore.as_deref().unwrap_or_default().as_bytes());
        for (named, content) in found.iter().flat_map(|found| found.iter()) {
            hasher.part(named.to_string().as_bytes());
            let Some(content) = content else { continue };
            match named.kind {
                NamedKind::Secret => {
                    hasher.part(&content.version.to_be_bytes());
                }
                // What is written again as it is changes nothing.
                NamedKind::ConfigMap => {
                    for (key, value) in &content.data {
                        hasher.part(key.as_bytes()).part(value);
                    }
                }
            }
        }
        hasher.finish()
    }

    /// Asks the source for a commit that is not at hand, or tells why its looks do not bring it.
    pub(super) fn ask_for(&self, run: &Run, base: &Base) -> Failed {
        let commit = base.revision.commit;
        let name = Name::new(&run.name.namespace, &run.object.spec.source_ref.name);
        let need = {
            let mut store = self.state.lock();
            let source = store.sources.get_mut(&name);
            let is_here = |remote: &Remote| same_mirror(remote, &base.remote);
            let source = source.filter(|source| source.remote.as_deref().is_some_and(is_here));
            source.map(|source| {
                let need = source.wants.need(commit, &run.name, run.wanted);
                if matches!(need, Need::Look) {
                    source.called = Some(Instant::now());
                }
                need
            })
        };
        let brief = &commit.to_string()[..BRIEF_COMMIT];
        let trusted = self.trusts(run, base);
        let absent =
            format!("commit {brief} is not {}", if trusted { "in the cache" } else { "verified" });
        match need {
            Some(Need::Look) => {
                self.queue.add(Key::Source(name), Lane::Urgent);
                Failed::Asked
            }
            Some(Need::Wait) => Failed::Asked,
            Some(Need::Failed(problem)) => {
                let pin = run.object.spec.revision.as_deref().and_then(|pin| pin.parse().ok());
                let wrong = pin == Some(commit) && problem.reason == reasons::REF_NOT_FOUND;
                let unsigned = problem.reason == reasons::VERIFICATION_FAILED;
                Failed::Because {
                    reason: if wrong { reasons::REVISION_NOT_FOUND.into() } else { problem.reason },
                    message: if unsigned {
                        problem.message
                    } else if wrong {
                        format!("spec.revision: {}", problem.message)
                    } else {
                        let how = if trusted { "fetched" } else { "looked at" };
                        format!("{absent} and cannot be {how}: {}", problem.message)
                    },
                    class: problem.class,
                }
            }
            // What was applied from a repository that is named no more.
            None => Failed::Because {
                reason: reasons::SOURCE_NOT_READY.into(),
                message: format!("{absent}, and GitRepository {name} does not name its repository"),
                class: ErrorClass::Retry,
            },
        }
    }
}

fn too_long(limit: Duration) -> Failed {
    let message = format!(
        "the build did not end within {limit:?}; split the path or leave files out of it, or give \
         it more time in spec.timeout"
    );
    Failed::Because { reason: reasons::TIMED_OUT.into(), message, class: ErrorClass::Retry }
}

/// What a failed render means: a broken revision that waits for another one, or a passing fault.
fn broken(failure: plumb_render::Failure) -> Result<(Built, plumb_core::Inputs), Failed> {
    let plumb_render::Failure { error, inputs } = failure;
    let problems: Vec<_> = error.problems().iter().map(problem).collect();
    let message = match problems.len() {
        0 => with_hint(chain(&error), error.hint()),
        1 => with_hint(error.to_string(), error.hint()),
        n => format!("{n} problems: {}", with_hint(error.to_string().replace('\n', "; "), None)),
    };
    if error.class() == ErrorClass::Retry {
        return Err(Failed::Because {
            reason: reasons::BUILD_FAILED.into(),
            message,
            class: ErrorClass::Retry,
        });
    }
    let reason = match error {
        RenderError::NoSuchPath { .. } => reasons::PATH_NOT_FOUND,
        _ => reasons::BUILD_FAILED,
    };
    Ok((Built::Broken { reason, message, problems }, inputs))
}

fn problem(problem: &plumb_render::Problem) -> plumb_api::Failure {
    let place =
        problem.place.as_ref().map_or_else(|| problem.file.to_string(), ToString::to_string);
    plumb_api::Failure {
        object: None,
        place: Some(place),
        reason: reasons::BUILD_FAILED.into(),
        message: shorten(with_hint(problem.defect.to_string(), problem.hint()), 1024),
    }
}

#[cfg(test)]
mod tests {
    use plumb_testkit::GitServer;

    use super::*;
    use crate::daemon::tests::{Api, Stand};
    use crate::metrics::Outcome;

    #[tokio::test]
    async fn a_build_ends_with_its_time_and_is_cut_short_by_a_stop() {
        let git = GitServer::start().await;
        git.repo("repo").commit(&[("a.yaml", Some("kind: ["))], "one");
        let stand = Stand::new(Api::new());
        let daemon = &stand.daemon;
        let source = stand.source("repo", &git.url("repo"), None);
        assert_eq!(daemon.run_source(&source).await, Outcome::Changed);
        let mut run = daemon.begin(&stand.app("web")).unwrap();
        let base = daemon.base(&run, Given::default()).ok().unwrap();
        assert!(matches!(daemon.build(&run, &base).await, Ok((Built::Broken { .. }, _))));

        Arc::make_mut(&mut run.object).spec.timeout = plumb_api::Duration::from_secs(0);
        let Err(Failed::Because { reason, message, class }) = daemon.build(&run, &base).await
        else {
            panic!("it ends in no time")
        };
        assert_eq!((reason.as_str(), class), ("TimedOut", ErrorClass::Retry));
        assert!(message.contains("spec.timeout"), "{message}");

        stand.stop();
        assert!(matches!(daemon.build(&run, &base).await, Err(Failed::CutShort)));
    }

    /// Whatever is recorded is compared once with what is there, by the run that comes so far.
    #[tokio::test]
    async fn a_run_that_ends_before_its_plan_was_no_first_look() {
        let git = GitServer::start().await;
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        git.repo("repo").commit(&[("a.yaml", Some(map))], "one");
        let stand = Stand::new(Api::new());
        let daemon = &stand.daemon;
        let source = stand.source("repo", &git.url("repo"), None);
        assert_eq!(daemon.run_source(&source).await, Outcome::Changed);
        let name = stand.app("web");
        {
            let mut store = daemon.state.lock();
            let mut object = (*store.apps[&name].object).clone();
            let status = serde_json::json!({"lastAppliedRevision": "main@sha1:1"});
            object.status = serde_json::from_value(status).unwrap();
            store.put_app(object);
        }
        // Nobody tells it which kinds there are.
        assert_eq!(Box::pin(daemon.run_app(&name)).await, Outcome::Retry);
        assert!(daemon.state.lock().apps[&name].rendered.is_none());
    }
}
