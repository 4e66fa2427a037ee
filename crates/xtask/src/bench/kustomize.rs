//! Building a Kustomize directory.
//!
//! In process, twice the objects are built by turns with the objects, which shows how time grows. As
//! whole processes, `kustomize build` runs beside `plumb build`, and both print the same bytes. The
//! workload has one form for all sizes; `crates/kustomize/tests/workload` holds it.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use plumb_core::{DirTree, RelPath};
use plumb_kustomize::{Options, Reorder, build};
use plumb_testkit::Scratch;
use serde_json::{Value, json};

use super::pairs::{Variant, measure};
use super::{BenchArgs, Peers};
use crate::error::TaskError;

const APP: &str = include_str!("../../../kustomize/tests/workload/app.yaml");
const KUSTOMIZATION: &str = include_str!("../../../kustomize/tests/workload/kustomization.yaml");

/// Objects of one application of the workload.
const OBJECTS: usize = 5;

/// What is measured unless something else is asked for.
const SIZES: [usize; 4] = [5, 100, 1000, 2000];

/// Pairs of runs in process.
const PAIRS: usize = 15;

pub(super) fn run(args: &BenchArgs, peers: Option<&Peers>) -> Result<Value, TaskError> {
    let sizes = if args.objects.is_empty() { &SIZES[..] } else { &args.objects };
    let mut agree = true;
    let mut measured = Vec::new();
    for size in sizes {
        let apps = size.div_ceil(OBJECTS);
        let (once, twice) = (workload(apps), workload(2 * apps));
        let text = print(once.path());
        let count = |text: &str| text.matches("\nkind: ").count();
        agree &= count(&text) == apps * OBJECTS;
        agree &= count(&print(twice.path())) == 2 * apps * OBJECTS;
        measured.push(json!({
            "objects": count(&text),
            "what": "in process",
            "figures": in_process(args.pairs.unwrap_or(PAIRS), once.path(), twice.path()),
        }));
        let Some(peers) = peers else { continue };
        let pairs = args.pairs.unwrap_or(patience(*size));
        let at = |source| TaskError::File { path: once.path().to_owned(), source };
        let (same, figures) = whole(peers, pairs, once.path(), &text).map_err(at)?;
        agree &= same;
        measured.push(json!({
            "objects": count(&text),
            "what": "whole process",
            "figures": figures,
            "peak_kib": {
                "plumb": peak(&mut plumb(peers, once.path())).map_err(at)?,
                "kustomize": peak(&mut kustomize(peers, once.path())).map_err(at)?,
            },
        }));
    }
    Ok(json!({ "agree": agree, "measured": measured }))
}

/// How many pairs are run with a reference whose time grows with the square of the objects.
const fn patience(objects: usize) -> usize {
    match objects {
        0..=100 => PAIRS,
        101..=1000 => 5,
        _ => 3,
    }
}

fn workload(apps: usize) -> Scratch {
    let dir = Scratch::new("bench");
    let mut kustomization = KUSTOMIZATION.to_owned();
    for number in 0..apps {
        let name = format!("app-{number}.yaml");
        let _infallible = writeln!(kustomization, "- {name}");
        dir.write(&name, APP.replace("NUMBER", &number.to_string()));
    }
    dir.write("kustomization.yaml", kustomization);
    dir
}

/// What `plumb build` prints; an error makes nothing agree with it.
fn print(dir: &Path) -> String {
    let options = Options { reorder: Reorder::Legacy, ..Options::default() };
    build(&DirTree::new(dir), &RelPath::root(), &options, &|| false)
        .map_or_else(|error| error.to_string(), |built| built.to_yaml())
}

fn in_process(pairs: usize, once: &Path, twice: &Path) -> Value {
    let mut first = || drop(black_box(print(twice)));
    let mut second = || drop(black_box(print(once)));
    measure(
        pairs,
        Variant { name: "twice the objects", run: &mut first },
        Variant { name: "the objects", run: &mut second },
    )
}

fn plumb(peers: &Peers, dir: &Path) -> Command {
    let mut command = Command::new(&peers.plumb);
    command.arg("build").arg(dir);
    command
}

fn kustomize(peers: &Peers, dir: &Path) -> Command {
    let mut command = Command::new(&peers.kustomize);
    command.arg("build").arg(dir);
    command
}

/// Measures both programs, and says whether each run printed what is wanted.
fn whole(peers: &Peers, pairs: usize, dir: &Path, text: &str) -> io::Result<(bool, Value)> {
    let (mut theirs, mut ours) = (Ok(true), Ok(true));
    let run = |mut command: Command, so_far: &mut io::Result<bool>| {
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        let same = output.map(|output| output.stdout == text.as_bytes());
        match (&so_far, same) {
            (Ok(_), Ok(true)) | (Err(_), _) => {}
            (Ok(_), other) => *so_far = other,
        }
    };
    let figures = measure(
        pairs,
        Variant { name: "kustomize", run: &mut || run(kustomize(peers, dir), &mut theirs) },
        Variant { name: "plumb", run: &mut || run(plumb(peers, dir), &mut ours) },
    );
    Ok((theirs? && ours?, figures))
}

/// The most memory that a program had at once, in KiB, as seen while it waits for us to read what it
/// prints: nothing when it printed less than fits into a pipe.
///
/// What the system tells when a program has ended counts from before the program was loaded, when
/// it was a copy of us.
fn peak(command: &mut Command) -> io::Result<Option<u64>> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    if let Some(mut stdout) = child.stdout.take() {
        let mut part = vec![0; 4096];
        while stdout.read(&mut part)? > 0 {
            let status = fs::read_to_string(&status).unwrap_or_default();
            peak = peak.max(super::machine::field(&status, "VmHWM").and_then(kib));
        }
    }
    child.wait()?;
    Ok(peak)
}

/// `12 kB` as a number.
fn kib(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.trim().parse().ok()
}

/// The figures for people.
pub(super) fn table(result: &Value) -> String {
    let mut table = String::from(
        "objects  what              median      least  ratio of medians in pairs        peak memory\n",
    );
    for row in result["measured"].as_array().into_iter().flatten() {
        let figures = &row["figures"];
        let millis = |index: usize, field: &str| {
            figures["variants"][index]["milliseconds"][field].as_f64().unwrap_or_default()
        };
        let ratio = figures["ratio"]["spread"]["median"].as_f64().unwrap_or_default();
        let _infallible = write!(
            table,
            "{:7}  {:13}  {:7.2} ms {:7.2} ms  {ratio:6.2} ({})",
            row["objects"].as_u64().unwrap_or_default(),
            row["what"].as_str().unwrap_or_default(),
            millis(1, "median"),
            millis(1, "least"),
            figures["ratio"]["of"].as_str().unwrap_or_default(),
        );
        #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^53 KiB")]
        let mib = |name: &str| row["peak_kib"][name].as_u64().map(|kib| kib as f64 / 1024.0);
        if let (Some(ours), Some(theirs)) = (mib("plumb"), mib("kustomize")) {
            let _infallible = write!(table, "  {ours:.1} MiB, kustomize {theirs:.1} MiB");
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_are_held_to_what_is_built_in_process() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            // By another process: a child that another test forks must not hold it open.
            let path = dir.path().join(name);
            let status = Command::new("sh")
                .args(["-c", "printf '#!/bin/sh\n%s' \"$1\" >\"$0\" && chmod +x \"$0\""])
                .args([&path, Path::new(text)])
                .status();
            assert!(status.unwrap().success());
            path
        };
        let text = print(workload(1).path());
        fs::write(dir.path().join("text"), &text).unwrap();
        let cat = format!("exec cat {}/text", dir.path().display());
        let same = script("same", &cat);
        let other = script("other", "echo other");
        for (kustomize, want) in [(&same, true), (&other, false)] {
            let peers = Peers { plumb: same.clone(), kustomize: kustomize.clone() };
            let (agree, figures) = whole(&peers, 1, dir.path(), &text).unwrap();
            assert_eq!(agree, want);
            assert_eq!(figures["variants"][0]["name"], "kustomize");
        }
        let gone = Peers { plumb: same, kustomize: "/does/not/exist".into() };
        assert!(whole(&gone, 1, dir.path(), &text).is_err());
    }

    #[test]
    fn memory_is_seen_while_a_program_prints() {
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 300000 /dev/zero"]);
        let found = peak(&mut command).unwrap().unwrap();
        assert!((100..100_000).contains(&found), "{found} KiB");
        assert_eq!(kib("   20480 kB"), Some(20480));
    }

    #[test]
    fn the_table_has_a_row_for_each_measure() {
        let args = BenchArgs { objects: vec![5], pairs: Some(1), ..BenchArgs::default() };
        let table = table(&run(&args, None).unwrap());
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.contains("      5  in process"), "{table}");
    }
}
