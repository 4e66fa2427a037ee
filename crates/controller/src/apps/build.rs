//! What a run is about, and what its files render to.

use std::sync::Arc;

use plumb_api::conditions::reasons;
use plumb_core::{ErrorClass, Object, RelPath};
use plumb_render::{RenderError, render};
use plumb_source::{CommitId, Remote, Revision};

use super::Run;
use super::how::How;
use crate::daemon::{Daemon, chain};
use crate::names::Name;
use crate::state::Rendered;
use crate::status::{Waits, shorten, with_hint};

/// Which commit a run is about.
pub(super) struct Base {
    pub(super) remote: Remote,
    pub(super) revision: Revision,
    pub(super) how: Arc<How>,
}

impl Base {
    /// What of it names its content.
    pub(super) fn what(&self) -> (CommitId, Arc<How>) {
        (self.revision.commit, Arc::clone(&self.how))
    }
}

impl From<Rendered> for Base {
    fn from(rendered: Rendered) -> Self {
        let Rendered { remote, revision, how, .. } = rendered;
        Self { remote, revision, how }
    }
}

/// Why there is nothing to run.
pub(super) struct Blocked {
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) waits: Waits,
}

/// What building a revision came to.
pub(super) enum Built {
    /// The objects to apply.
    Objects(Vec<Object>),
    /// The files do not render; the problems, one by one, and all in one message.
    Broken { reason: &'static str, message: String, problems: Vec<plumb_api::Failure> },
}

/// Why a revision could not even be read.
pub(super) struct Failed {
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) class: ErrorClass,
}

impl Daemon {
    /// The commit to run, from the source or the pin.
    pub(super) fn base(&self, run: &Run) -> Result<Base, Blocked> {
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
            });
        };
        let how = How::new(spec, source.object.spec.ignore.as_deref());
        let pinned = spec.revision.as_deref().and_then(|commit| commit.parse().ok());
        let (Some(remote), Some(revision)) = (&source.remote, &source.revision) else {
            if let (Some(remote), Some(commit)) = (&source.remote, pinned) {
                let revision = Revision { name: String::new(), commit };
                return Ok(Base { remote: remote.clone(), revision, how });
            }
            let message = match &source.problem {
                Some(problem) => format!("GitRepository {source_name} is not ready: {problem}"),
                None => format!("GitRepository {source_name} has not been fetched yet"),
            };
            let reason = reasons::SOURCE_NOT_READY.into();
            return Err(Blocked { reason, message, waits: Waits::Retry });
        };
        let revision = match pinned {
            Some(commit) if commit != revision.commit => Revision { name: String::new(), commit },
            _ => revision.clone(),
        };
        Ok(Base { remote: remote.clone(), revision, how })
    }

    /// Whether another commit gives every answer that the last render read.
    pub(super) async fn inputs_unchanged(
        self: &Arc<Self>,
        known: &Rendered,
        base: &Base,
    ) -> Result<bool, String> {
        let mirrors = Arc::clone(&self.mirrors);
        let (remote, commit) = (base.remote.clone(), base.revision.commit);
        let inputs = Arc::clone(&known.inputs);
        self.blocking(move |_| {
            let snapshot = mirrors.snapshot(&remote, &commit).map_err(|error| chain(&error))?;
            inputs.unchanged_in(&snapshot).map_err(|error| chain(&error))
        })
        .await?
    }

    /// Renders a commit, fetching it first if a pin asks for one that is not at hand.
    pub(super) async fn build(
        self: &Arc<Self>,
        run: &Run,
        base: &Base,
    ) -> Result<(Built, plumb_core::Inputs), Failed> {
        let (remote, commit) = (base.remote.clone(), base.revision.commit);
        let how = Arc::clone(&base.how);
        let mirrors = Arc::clone(&self.mirrors);
        let stop = self.stop_flag();
        let pinned = run.object.spec.revision.is_some();
        let built = self
            .blocking(move |cancel| {
                let failed = |error: plumb_source::SourceError| Failed {
                    reason: error.reason().into(),
                    message: with_hint(chain(&error), error.hint()),
                    class: error.class(),
                };
                mirrors.fetch_commit(&remote, &commit, cancel).map_err(|error| match error {
                    plumb_source::SourceError::RefNotFound { .. } if pinned => Failed {
                        reason: reasons::REVISION_NOT_FOUND.into(),
                        message: format!(
                            "spec.revision: {}",
                            with_hint(chain(&error), error.hint())
                        ),
                        class: error.class(),
                    },
                    error => failed(error),
                })?;
                let snapshot = mirrors.snapshot(&remote, &commit).map_err(failed)?;
                let path = match RelPath::parse(&how.path) {
                    Ok(path) => path,
                    Err(error) => {
                        return Err(Failed {
                            reason: reasons::INVALID_SPEC.into(),
                            message: format!("spec.path: {error}"),
                            class: ErrorClass::WaitForUser,
                        });
                    }
                };
                let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
                match render(&snapshot, &path, &how.options, &stopped) {
                    Ok(rendered) => Ok((Built::Objects(rendered.objects), rendered.inputs)),
                    Err(failure) => broken(failure),
                }
            })
            .await;
        built.unwrap_or_else(|message| {
            Err(Failed { reason: reasons::INTERNAL_ERROR.into(), message, class: ErrorClass::Bug })
        })
    }
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
        return Err(Failed {
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
