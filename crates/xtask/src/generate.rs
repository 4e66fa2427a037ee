//! `cargo xtask generate`: files that are made from code and checked in.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::TaskError;
use crate::process::root;

/// Where the CRDs are checked in.
const CRDS: &str = "deploy/crds";

/// Stands above each generated file.
const HEADER: &str = "# Made from crates/api by `cargo xtask generate`; do not edit.\n";

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Write nothing; fail when a file is not up to date.
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<(), TaskError> {
    let wanted = files()?;
    let stale = stale(root(), &wanted)?;
    if args.check {
        return if stale.is_empty() { Ok(()) } else { Err(TaskError::Stale { paths: stale }) };
    }
    for path in &stale {
        let full = root().join(path);
        let at = |source| TaskError::File { path: full.clone(), source };
        if let Some((_, text)) = wanted.iter().find(|(wanted, _)| wanted == path) {
            fs::create_dir_all(full.parent().unwrap_or(root())).map_err(at)?;
            fs::write(&full, text).map_err(at)?;
            println!("wrote {}", path.display());
        } else {
            fs::remove_file(&full).map_err(at)?;
            println!("removed {}", path.display());
        }
    }
    Ok(())
}

/// The generated files: paths from the root of the checkout, and texts.
fn files() -> Result<Vec<(PathBuf, String)>, TaskError> {
    let documents = plumb_api::crd_documents()
        .map_err(|source| TaskError::Json { what: "the CRDs", source })?;
    Ok(documents
        .iter()
        .map(|crd| {
            let name = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
            let text = format!("{HEADER}{}", plumb_yaml::to_string(crd));
            (Path::new(CRDS).join(format!("{name}.yaml")), text)
        })
        .collect())
}

/// The files that differ, are missing, or are there and should not be.
fn stale(root: &Path, wanted: &[(PathBuf, String)]) -> Result<Vec<PathBuf>, TaskError> {
    let mut stale: Vec<_> = wanted
        .iter()
        .filter(|(path, text)| {
            !fs::read_to_string(root.join(path)).is_ok_and(|found| found == *text)
        })
        .map(|(path, _)| path.clone())
        .collect();
    let dir = root.join(CRDS);
    if dir.is_dir() {
        let at = |source| TaskError::File { path: dir.clone(), source };
        for entry in fs::read_dir(&dir).map_err(at)? {
            let path = Path::new(CRDS).join(entry.map_err(at)?.file_name());
            if !wanted.iter().any(|(wanted, _)| *wanted == path) {
                stale.push(path);
            }
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_in_crds_are_up_to_date() {
        let stale = stale(root(), &files().unwrap()).unwrap();
        assert!(stale.is_empty(), "{}", TaskError::Stale { paths: stale });
    }

    #[test]
    fn a_changed_a_missing_and_a_left_over_file_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(CRDS)).unwrap();
        let file = |name: &str| Path::new(CRDS).join(name);
        let wanted: Vec<_> =
            ["same", "changed", "missing"].map(|name| (file(name), "text".to_owned())).into();
        for (name, text) in [("same", "text"), ("changed", "other"), ("extra", "text")] {
            fs::write(dir.path().join(file(name)), text).unwrap();
        }
        assert_eq!(
            stale(dir.path(), &wanted).unwrap(),
            [file("changed"), file("missing"), file("extra")]
        );
    }

    #[test]
    fn crds_read_back_as_they_are() {
        for ((_, text), document) in
            files().unwrap().iter().zip(plumb_api::crd_documents().unwrap())
        {
            let read: serde_json::Value = serde_yaml::from_str(text).unwrap();
            assert_eq!(read, document);
        }
    }
}
