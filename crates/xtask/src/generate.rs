//! `cargo xtask generate`: files that are made from code, or by programs that we are compared with,
//! and checked in.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::TaskError;
use crate::process::root;
use crate::reference::{Reference, text};
use crate::sealed;

/// A generated file: its path from the root of the checkout, and its content.
type File = (PathBuf, Vec<u8>);

/// Where the CRDs are checked in.
const CRDS: &str = "deploy/crds";

/// Where the golden cases of Kustomize are; each has the reference's output beside it.
const GOLDEN: &str = "crates/kustomize/tests/golden";

/// Stands above each generated file.
const HEADER: &str = "# Made from crates/api by `cargo xtask generate`; do not edit.\n";

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Write nothing; fail when a file is not up to date.
    #[arg(long)]
    pub(crate) check: bool,
    /// Also what other programs print, which have to be built first: the outputs of kustomize
    /// beside the golden cases of crates/kustomize, and of sops beside those of crates/sops.
    #[arg(long)]
    pub(crate) peers: bool,
}

pub(crate) async fn run(args: &GenerateArgs) -> Result<(), TaskError> {
    let mut wanted = files()?;
    if args.peers {
        wanted.extend(golden(root(), &Reference::ready().await?).await?);
        wanted.extend(sealed::golden(root(), &sealed::Sops::ready().await?).await?);
    }
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

/// The generated files.
fn files() -> Result<Vec<File>, TaskError> {
    let documents = plumb_api::crd_documents()
        .map_err(|source| TaskError::Json { what: "the CRDs", source })?;
    Ok(documents
        .iter()
        .map(|crd| {
            let name = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
            let text = format!("{HEADER}{}", plumb_yaml::to_string(crd));
            (Path::new(CRDS).join(format!("{name}.yaml")), text.into_bytes())
        })
        .collect())
}

/// What the reference prints for each golden case. A case may have flags in a file `options`, one a
/// line.
async fn golden(root: &Path, reference: &Reference) -> Result<Vec<File>, TaskError> {
    let dir = root.join(GOLDEN);
    let at = |source| TaskError::File { path: dir.clone(), source };
    let mut files = Vec::new();
    for case in fs::read_dir(&dir).map_err(at)? {
        let case = case.map_err(at)?;
        let mut command = reference.build(&case.path());
        let options = case.path().join("options");
        match fs::read_to_string(&options) {
            Ok(options) => command.args(options.lines()),
            Err(error) if error.kind() == ErrorKind::NotFound => &mut command,
            Err(source) => return Err(TaskError::File { path: options, source }),
        };
        let path = Path::new(GOLDEN).join(case.file_name()).join("expected.yaml");
        files.push((path, text(command).await?.into_bytes()));
    }
    files.sort();
    Ok(files)
}

/// The files that differ, are missing, or are there and should not be.
fn stale(root: &Path, wanted: &[File]) -> Result<Vec<PathBuf>, TaskError> {
    let mut stale: Vec<_> = wanted
        .iter()
        .filter(|(path, text)| !fs::read(root.join(path)).is_ok_and(|found| found == *text))
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
            ["same", "changed", "missing"].map(|name| (file(name), b"text".to_vec())).into();
        for (name, text) in [("same", "text"), ("changed", "other"), ("extra", "text")] {
            fs::write(dir.path().join(file(name)), text).unwrap();
        }
        assert_eq!(
            stale(dir.path(), &wanted).unwrap(),
            [file("changed"), file("missing"), file("extra")]
        );
    }

    #[tokio::test]
    async fn golden_outputs_are_what_the_reference_prints() {
        let dir = tempfile::tempdir().unwrap();
        let script = "case $2 in */fails) exit 3;; *) echo ${2##*/} $3 $4;; esac";
        let reference = Reference::script(dir.path(), script);
        let cases = dir.path().join(GOLDEN);
        for name in ["plain", "flags"] {
            fs::create_dir_all(cases.join(name)).unwrap();
        }
        fs::write(cases.join("flags/options"), "--one\n--two=x\n").unwrap();
        let file = |name: &str| Path::new(GOLDEN).join(name).join("expected.yaml");
        assert_eq!(
            golden(dir.path(), &reference).await.unwrap(),
            [
                (file("flags"), b"flags --one --two=x\n".to_vec()),
                (file("plain"), b"plain\n".to_vec())
            ]
        );
        fs::create_dir_all(cases.join("fails")).unwrap();
        assert_eq!(golden(dir.path(), &reference).await.unwrap_err().code(), 3);
    }

    #[test]
    fn crds_read_back_as_they_are() {
        for ((_, text), document) in
            files().unwrap().iter().zip(plumb_api::crd_documents().unwrap())
        {
            let read: serde_json::Value = serde_yaml::from_slice(text).unwrap();
            assert_eq!(read, document);
        }
    }
}
