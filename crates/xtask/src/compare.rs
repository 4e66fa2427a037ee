//! `cargo xtask compare CHECKOUT`: builds every kustomization of a checkout with the reference and
//! with ours, and says where they differ.
//!
//! Every difference is a bug of ours until it is explained. What needs the network, Helm or plugins
//! is left out and counted.

mod verdict;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use plumb_core::{DirTree, RelPath};
use plumb_kustomize::{LoadRestrictions, Options, Reorder};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::error::TaskError;
use crate::reference::{Reference, text};
use verdict::{Report, Verdict};

/// The names of a kustomization file.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// The checkout of any repository.
    checkout: PathBuf,
    /// Where to write what was found as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Build with `--load-restrictor LoadRestrictionsNone`, as Applications do.
    #[arg(long)]
    any_file: bool,
    /// How many directories are built at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How many seconds each side has for a directory.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

pub(crate) async fn run(args: CompareArgs) -> Result<(), TaskError> {
    let reference = Reference::ready().await?;
    let checkout = args.checkout.canonicalize();
    let checkout =
        checkout.map_err(|source| TaskError::File { path: args.checkout.clone(), source })?;
    let report = compare(&checkout, &reference, &args).await?;
    print!("{report}");
    if let Some(path) = &args.json {
        let facts = json!({
            "checkout": checkout.file_name().map(|name| name.to_string_lossy()),
            "commit": commit(&checkout).await,
            "reference": reference.version().await?,
            "any_file": args.any_file,
            "result": report.to_json(),
        });
        write(path, &facts)?;
    }
    if report.is_good() { Ok(()) } else { Err(TaskError::Unequal { what: args.checkout }) }
}

fn write(path: &Path, value: &Value) -> Result<(), TaskError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|source| TaskError::Json { what: "the report", source })?;
    fs::write(path, text + "\n").map_err(|source| TaskError::File { path: path.to_owned(), source })
}

/// The commit of a checkout; it need not be one of Git.
async fn commit(checkout: &Path) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(checkout);
    Some(text(git).await.ok()?.trim().to_owned())
}

async fn compare(
    checkout: &Path,
    reference: &Reference,
    args: &CompareArgs,
) -> Result<Report, TaskError> {
    let mut report = Report::default();
    let mut waiting = Vec::new();
    for dir in kustomizations(checkout)? {
        if is_component(&checkout.join(dir.as_str())) {
            report.components += 1;
        } else {
            waiting.push(dir);
        }
    }
    let mut waiting = waiting.into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < args.jobs.max(1)
            && let Some(dir) = waiting.next()
        {
            let (checkout, reference) = (checkout.to_owned(), reference.clone());
            let args = args.clone();
            running.spawn(async move {
                let verdict = both(&checkout, &dir, &reference, &args).await?;
                Ok((dir.to_string(), verdict))
            });
        }
        let Some(done) = running.join_next().await else { break };
        let found = done.unwrap_or_else(|end| std::panic::resume_unwind(end.into_panic()));
        report.found.push(found?);
    }
    report.found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(report)
}

/// Builds one directory with both.
async fn both(
    checkout: &Path,
    dir: &RelPath,
    reference: &Reference,
    args: &CompareArgs,
) -> Result<Verdict, TaskError> {
    let limit = Duration::from_secs(args.timeout);
    let mut command = reference.build(&checkout.join(dir.as_str()));
    if args.any_file {
        command.arg("--load-restrictor=LoadRestrictionsNone");
    }
    let theirs = match tokio::time::timeout(limit, command.output()).await {
        Err(_elapsed) => return Ok(Verdict::LeftOut { why: "takes too long" }),
        Ok(Err(source)) => {
            return Err(TaskError::Start { command: crate::process::shown(&command), source });
        }
        Ok(Ok(output)) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    };
    let (tree, dir, any_file) = (DirTree::new(checkout), dir.clone(), args.any_file);
    let ours = tokio::task::spawn_blocking(move || ours(&tree, &dir, any_file, limit)).await;
    let ours = ours.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    Ok(verdict::judge(theirs, ours))
}

/// What we print, or why we do not.
fn ours(tree: &DirTree, dir: &RelPath, any_file: bool, limit: Duration) -> Result<String, String> {
    let options = Options {
        load_restrictions: if any_file {
            LoadRestrictions::None
        } else {
            LoadRestrictions::RootOnly
        },
        reorder: Reorder::Legacy,
        ..Options::default()
    };
    let start = Instant::now();
    plumb_kustomize::build(tree, dir, &options, &|| start.elapsed() > limit)
        .map(|built| built.to_yaml())
        .map_err(|error| error.to_string())
}

/// All directories with a kustomization file, sorted. Links are not followed.
fn kustomizations(root: &Path) -> Result<Vec<RelPath>, TaskError> {
    let mut found = Vec::new();
    let mut dirs = vec![RelPath::root()];
    while let Some(dir) = dirs.pop() {
        let path = root.join(dir.as_str());
        let at = |source| TaskError::File { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(at)? {
            let entry = entry.map_err(at)?;
            // What is not UTF-8 cannot be named in a kustomization.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if NAMES.contains(&name.as_str()) {
                found.push(dir.clone());
            } else if name != ".git" && entry.file_type().map_err(at)?.is_dir() {
                dirs.push(dir.child(&name));
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether a directory is part of others and nothing by itself.
fn is_component(dir: &Path) -> bool {
    NAMES.iter().any(|name| {
        let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
        text.lines().any(|line| {
            let value = line.strip_prefix("kind:").unwrap_or_default();
            value.trim().trim_matches(['"', '\'']) == "Component"
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the reference: prints what is ready in a file, or fails with what another one says.
    const SCRIPT: &str = "read_all() { while IFS= read -r line; do echo \"$line\"; done <\"$1\"; }
[ -e \"$2/fail\" ] && { read_all \"$2/fail\" >&2; exit 1; }
read_all \"$2/out\"";

    fn checkout(dir: &Path, cases: &[(&str, &str, &str)]) {
        for (name, kustomization, theirs) in cases {
            let case = dir.join(name);
            fs::create_dir_all(&case).unwrap();
            fs::write(case.join("kustomization.yaml"), kustomization).unwrap();
            let (file, text) = match theirs.strip_prefix("Error") {
                Some(_) => ("fail", *theirs),
                None => ("out", *theirs),
            };
            fs::write(case.join(file), format!("{text}\n")).unwrap();
        }
    }

    #[tokio::test]
    async fn a_checkout_is_built_with_both_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let reference = Reference::script(dir.path(), SCRIPT);
        let root = dir.path().join("checkout");
        let good = "configMapGenerator: [{name: a, options: {disableNameSuffixHash: true}}]";
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a";
        checkout(
            &root,
            &[
                ("equal", good, text),
                ("json/deeper", good, &text.replace("name: a", "name: \"a\"")),
                ("differs", good, &text.replace("name: a", "name: b")),
                ("ours-fails", "nonsense: 1", text),
                ("both-fail", "nonsense: 1", "Error: unknown field"),
                ("ours-builds", good, "Error: of some sort"),
                ("helm", good, "Error: must specify --enable-helm"),
                ("component", "kind: Component", text),
                (".git", good, text),
            ],
        );
        let args = CompareArgs {
            checkout: root.clone(),
            json: None,
            any_file: false,
            jobs: 2,
            timeout: 60,
        };
        let report = compare(&root, &reference, &args).await.unwrap();
        let names: Vec<_> =
            report.found.iter().map(|(dir, verdict)| (dir.as_str(), verdict.name())).collect();
        assert_eq!(
            names,
            [
                ("both-fail", "both fail"),
                ("differs", "differs"),
                ("equal", "equal"),
                ("helm", "left out"),
                ("json/deeper", "equal as JSON"),
                ("ours-builds", "ours builds, the reference does not"),
                ("ours-fails", "ours fails"),
            ]
        );
        assert_eq!(report.components, 1);
        assert!(!report.is_good());
    }

    #[test]
    fn components_are_known_by_their_kind() {
        let dir = tempfile::tempdir().unwrap();
        for (text, want) in [
            ("kind: Component\n", true),
            ("kind:   \"Component\"", true),
            ("kind: Kustomization\nmetadata: {name: Component}", false),
            ("patches:\n- target:\n    kind: Component\n", false),
        ] {
            fs::write(dir.path().join(NAMES[1]), text).unwrap();
            assert_eq!(is_component(dir.path()), want, "{text}");
        }
    }
}
