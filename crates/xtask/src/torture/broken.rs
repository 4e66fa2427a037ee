//! `cargo xtask torture --broken NAME`: is a mistake found that was made on purpose?

use std::path::PathBuf;

use clap::ValueEnum;

use crate::error::TaskError;
use crate::process::{cargo, root, run};

/// Tells a build that can leave out checks which one to leave out.
pub(super) const VARIABLE: &str = "PLUMB_SABOTAGE";

/// Checks that can be left out, named as in `crates/engine/src/sabotage.rs`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Broken {
    /// What carries our label is deleted, whoever applied it
    PruneWithoutOwner,
    /// The first apply of an object is forced
    ForcedClaim,
    /// A kind that cannot be listed has no objects
    FailedListIsEmpty,
    /// What is recorded as equal is what is live, not what was verified
    DigestOverDrift,
    /// An event counts, however old it is
    EventsUnordered,
}

impl Broken {
    /// Its name on the command line and in the variable.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Builds `plumb` so that it can leave out checks, apart from all other builds.
pub(super) async fn build() -> Result<PathBuf, TaskError> {
    let target = root().join("target/sabotage");
    let mut command =
        cargo(&["build", "--package", "plumb", "--bin", "plumb", "--features", "sabotage"]);
    command.arg("--target-dir").arg(&target);
    run(command).await?;
    Ok(target.join("debug/plumb"))
}

/// Whether the engine's own tests find a mistake. What a single check keeps from happening is rare
/// from outside, and may be healed by another.
pub(super) async fn is_found_by_tests(name: &str) -> Result<bool, TaskError> {
    let test = |last: &str| {
        let mut command =
            cargo(&["test", "--package", "plumb-engine", "--lib", "--features", "sabotage", last]);
        command.arg("--target-dir").arg(root().join("target/sabotage"));
        command.env(VARIABLE, name);
        command
    };
    run(test("--no-run")).await?;
    Ok(run(test("--quiet")).await.is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_one_that_the_engine_knows() {
        let path = root().join("crates/engine/src/sabotage.rs");
        let engine = std::fs::read_to_string(path).unwrap();
        let names: Vec<_> = Broken::value_variants().iter().map(|broken| broken.name()).collect();
        for name in &names {
            assert!(engine.contains(&format!("\"{name}\" => Some")), "{name}");
        }
        assert_eq!(engine.matches("\" => Some(Sabotage::").count(), names.len());
    }
}
