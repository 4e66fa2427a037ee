//! Plumb on a cluster of N applications, beside others and beside the API server's own limit.
//!
//! N folders of one repository over HTTP, each with a kustomization of four objects or more; N applications
//! that wait, each a folder. All custom resources are there before a system starts, and each system has
//! a fresh control plane for itself. Requests are counted from the audit log, processor time and memory
//! are those of the processes, bytes are those of Git. The limit is a loop that sends what Plumb wrote,
//! as it wrote it, into other namespaces of the same control plane.

mod faults;
pub(super) mod ground;
mod phases;
mod replay;
mod scale;
mod system;
mod targets;

use std::path::Path;

use serde_json::{Value, json};

use self::ground::Ground;
pub(crate) use self::ground::in_module;
use self::system::{ARGOCD, FLUX, PLUMB, System};
pub(super) use self::targets::table;
use super::{BenchArgs, Measuring};
use crate::error::TaskError;

/// How many applications, unless something else is asked for.
const APPS: usize = 1000;
/// How many where a feeder stands in place of the API server.
const FED: usize = 10_000;
/// Objects of each.
pub(super) const EACH: u16 = 4;
/// From so many on everything is measured once, else so often.
const LARGE: usize = 1000;
const RUNS: usize = 3;

pub(super) fn run<'a>(args: &'a BenchArgs, plumb: &'a Path) -> Measuring<'a> {
    Box::pin(measured(args, plumb))
}

async fn measured(args: &BenchArgs, plumb: &Path) -> Result<Value, TaskError> {
    if args.fed {
        let apps = args.apps.first().copied().unwrap_or(FED);
        return Ok(json!({ "agree": true, "fed": scale::fed(apps, plumb).await? }));
    }
    let sizes = [&args.apps, &args.objects].into_iter().find(|sizes| !sizes.is_empty());
    let sizes = sizes.map_or(&[APPS][..], Vec::as_slice);
    let mut measured = Vec::new();
    for &apps in sizes {
        let rounds = args.pairs.unwrap_or(if apps < LARGE { RUNS } else { 1 }).max(1);
        let mut systems: Vec<&'static System> = vec![&PLUMB];
        systems.extend(args.flux.then_some(&FLUX));
        systems.extend(args.argo.then_some(&ARGOCD));
        let mut runs = Vec::new();
        for round in 0..rounds {
            for system in &systems {
                eprintln!("{}: {apps} applications, run {} of {rounds}", system.name, round + 1);
                let mut ground = Ground::new(system, apps, args.each).await?;
                let played = phases::play(&mut ground, plumb).await?;
                let mut run = json!({ "system": system.name, "phases": played.phases });
                if system.name == PLUMB.name && !args.alone {
                    ground.stop();
                    run["limit"] = json!(replay::limit(&ground, &played.scripts).await?);
                }
                runs.push(run);
            }
        }
        let faults =
            if args.faults { faults::faults(apps, args.each, plumb).await? } else { Vec::new() };
        let medians = targets::medians(&runs);
        let size = std::fs::metadata(plumb).map(|file| file.len()).unwrap_or_default();
        let targets = targets::targets(apps, args.each, size, &medians);
        let all = json!({ "apps": apps, "each": args.each, "binary_bytes": size, "medians": medians, "targets": targets, "runs": runs, "faults": faults });
        measured.push(all);
    }
    Ok(json!({ "agree": true, "measured": measured }))
}
