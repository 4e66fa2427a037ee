//! `cargo xtask torture --broken NAME`: is a mistake found that was made on purpose?

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::error::TaskError;
use crate::process::{cargo, output, root, run};

/// Tells a build that can leave out checks which one to leave out.
pub(crate) const VARIABLE: &str = "PLUMB_SABOTAGE";

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

/// Where builds are that can leave out checks, apart from all others.
const TARGET: &str = "target/sabotage";

/// Builds `plumb` so that it can leave out checks.
pub(crate) async fn build() -> Result<PathBuf, TaskError> {
    let target = root().join(TARGET);
    let mut command =
        cargo(&["build", "--package", "plumb", "--bin", "plumb", "--features", "sabotage"]);
    command.arg("--target-dir").arg(&target);
    run(command).await?;
    Ok(target.join("debug/plumb"))
}

/// The page whose table says what finds which mistake.
const PAGE: &str = "docs/engine.md";

/// What is said to find a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finder {
    /// A test of the engine, or one in `tests/it` with its module.
    Test {
        of_engine: bool,
        name: String,
    },
    TortureRun,
}

impl fmt::Display for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Test { of_engine: true, name } => write!(f, "the engine's test {name}"),
            Self::Test { of_engine: false, name } => write!(f, "the test {name}"),
            Self::TortureRun => f.write_str("the torture run"),
        }
    }
}

/// Everything that is said to find a mistake.
pub(super) fn finders(name: &str) -> Result<Vec<Finder>, TaskError> {
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).map_err(|source| TaskError::File { path, source })?;
    let found = finders_in(&page, name);
    if found.is_empty() {
        let what = format!("{PAGE} says what finds {name}");
        return Err(TaskError::Evidence { what, found: "no row for it".into() });
    }
    Ok(found)
}

fn finders_in(page: &str, name: &str) -> Vec<Finder> {
    let start = format!("| `{name}`:");
    let row = page.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default();
    let (_, told) = row.trim_end_matches('|').rsplit_once('|').unwrap_or_default();
    let finder = |part: &str| {
        if part.contains("the torture run") {
            return Some(Finder::TortureRun);
        }
        let (before, test) = part.trim_end().strip_suffix('`')?.split_once('`')?;
        Some(Finder::Test { of_engine: before.contains("engine"), name: test.to_owned() })
    };
    told.split(',').filter_map(finder).collect()
}

/// Whether a test finds a mistake: it passes while nothing is left out, and then does not.
pub(super) async fn is_found_by_test(
    of_engine: bool,
    name: &str,
    broken: &str,
) -> Result<bool, TaskError> {
    let last = name.rsplit("::").next().unwrap_or(name);
    let test = |end: &[&str]| {
        let mut command = if of_engine {
            cargo(&["test", "--package", "plumb-engine", "--lib", "--features", "sabotage"])
        } else {
            cargo(&["test", "--package", "plumb", "--test", "it", "--features", "sabotage"])
        };
        command.arg("--target-dir").arg(root().join(TARGET)).args(end);
        command
    };
    run(test(&["--no-run"])).await?;
    for mistake in ["", broken] {
        let mut command = test(&[last]);
        command.env(VARIABLE, mistake);
        let (status, said) = output(command).await?;
        let passed = said.contains("test result: ok. 1 passed; 0 failed;");
        let failed = said.contains("test result: FAILED. 0 passed; 1 failed;");
        if passed == failed || passed != status.success() || (mistake.is_empty() && failed) {
            let what = format!("{name} passes while nothing is left out");
            return Err(TaskError::Evidence { what, found: format!("{status}\n{said}") });
        }
        if failed {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Neglect;

    #[test]
    fn every_mistake_is_one_that_the_engine_knows() {
        let path = root().join("crates/engine/src/sabotage.rs");
        let engine = std::fs::read_to_string(path).unwrap();
        let names = Broken::value_variants().iter().map(|broken| broken.name());
        let duties = Neglect::value_variants().iter().map(|neglect| neglect.name());
        let names: Vec<_> = names.chain(duties).collect();
        for name in &names {
            assert!(engine.contains(&format!("\"{name}\" => Some")), "{name}");
        }
        assert_eq!(engine.matches("\" => Some(Sabotage::").count(), names.len());
    }

    #[test]
    fn every_mistake_has_something_that_finds_it() {
        for broken in Broken::value_variants() {
            assert!(!finders(&broken.name()).unwrap().is_empty(), "{broken:?}");
        }
    }

    #[test]
    fn the_page_names_tests_of_the_engine_tests_on_a_plane_and_the_torture_run() {
        let page = "\
# Title
| left out | found by |
|---|---|
| `one`: this, and that | engine `part::finds_one`, `module::finds_it`, and the torture run |
| `one-more`: else | the torture run |
";
        let test = |of_engine, name: &str| Finder::Test { of_engine, name: name.into() };
        let all =
            [test(true, "part::finds_one"), test(false, "module::finds_it"), Finder::TortureRun];
        assert_eq!(finders_in(page, "one"), all);
        assert_eq!(finders_in(page, "one-more"), [Finder::TortureRun]);
        assert_eq!(finders_in(page, "two"), []);
    }
}
