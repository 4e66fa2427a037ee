//! `cargo xtask bench`: two variants of one thing, measured in pairs.
//!
//! A machine that is shared or warms up changes its speed by more than most variants differ. So
//! the two run by turns, the order within a pair changes, and the ratio is taken within each pair;
//! the median of the ratios is the result. Facts of the machine stand beside the figures. What needs
//! a control plane has one for each pair, and both are measured on it.

mod cluster;
mod health;
mod kustomize;
mod machine;
mod pairs;
mod samples;
mod source;
mod stage;
mod waiting;
mod yaml;

pub(crate) use self::cluster::in_module;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use clap::Args;
use serde_json::{Value, json};

use crate::error::TaskError;
use crate::process::{cargo, root, run as run_command};
use crate::reference::Reference;

/// A bench by its name.
struct Bench {
    name: &'static str,
    about: &'static str,
    run: Run,
    /// Its result for people.
    table: Option<fn(&Value) -> String>,
}

/// How a bench is run. It gives `agree`, whether what is compared does the same, and `measured`, a
/// list.
#[derive(Clone, Copy)]
enum Run {
    /// In this process.
    Here(fn(&BenchArgs) -> Result<Value, TaskError>),
    /// Beside whole programs, which are built first.
    Peers(fn(&BenchArgs, Option<&Peers>) -> Result<Value, TaskError>),
    /// On a control plane, with the binary of this path.
    Plane(for<'a> fn(&'a BenchArgs, &'a Path) -> Measuring<'a>),
}

type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Value, TaskError>> + 'a>>;

/// All benches.
const BENCHES: &[Bench] = &[
    Bench {
        name: "yaml",
        about: "read N manifests: plumb-yaml against yaml_serde, which keeps no positions",
        run: Run::Here(yaml::run),
        table: None,
    },
    Bench {
        name: "kustomize",
        about: "build N objects: twice as many against them, and kustomize against plumb",
        run: Run::Peers(kustomize::run),
        table: Some(kustomize::table),
    },
    Bench {
        name: "health",
        about: "judge N objects of each sort: from their text against from what was read",
        run: Run::Here(health::run),
        table: Some(health::table),
    },
    Bench {
        name: "waiting",
        about: "N Deployments: Ready against available; a chain of 20 against as many bare writes",
        run: Run::Plane(waiting::run),
        table: Some(waiting::table),
    },
    Bench {
        name: "source",
        about: "follow a repository of 10,000 files, commits and refs: requests, bytes, walks; N of one URL against one",
        run: Run::Plane(source::run),
        table: Some(source::table),
    },
    Bench {
        name: "cluster",
        about: "N applications of four objects: first sync, commits, forced round, rest, edits, restart",
        run: Run::Plane(cluster::run),
        table: Some(cluster::table),
    },
];

#[derive(Debug, Default, Args)]
pub(crate) struct BenchArgs {
    /// Which bench; left out, all are listed.
    name: Option<String>,
    /// How many objects; several numbers are measured one after the other. Each bench has its own.
    #[arg(long, value_delimiter = ',')]
    objects: Vec<usize>,
    /// How many pairs of runs. Each bench has its own.
    #[arg(long)]
    pairs: Option<usize>,
    /// Leave out other programs, which have to be built first, and what else is compared with.
    #[arg(long)]
    alone: bool,
    /// The binary to measure, instead of one that is built first.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// `cluster`: how many applications, as `--objects`.
    #[arg(long, value_delimiter = ',', conflicts_with = "objects")]
    apps: Vec<usize>,
    /// `cluster`: also a first sync through an API server that takes 50 requests a second, and one
    /// through one of which five of a hundred fail.
    #[arg(long)]
    faults: bool,
    /// `cluster`: objects of each application: four, and as many ConfigMaps as lack.
    #[arg(long, default_value_t = cluster::EACH, value_parser = clap::value_parser!(u16).range(4..=1000))]
    each: u16,
    /// `cluster`: instead, ten objects in each of 10,000 applications, with a feeder in place of the API
    /// server: what Plumb holds in memory.
    #[arg(long)]
    fed: bool,
    /// `cluster`: Flux beside Plumb, which is built first.
    #[arg(long)]
    flux: bool,
    /// `cluster`: Argo CD beside Plumb, which is built first, with `redis-server` from the path.
    #[arg(long)]
    argo: bool,
}

/// Whole programs that are compared.
struct Peers {
    plumb: PathBuf,
    kustomize: PathBuf,
}

impl Peers {
    async fn ready() -> Result<Self, TaskError> {
        let kustomize = Reference::ready().await?.binary().to_owned();
        Ok(Self { plumb: plumb().await?, kustomize })
    }
}

/// Builds the binary as it is shipped.
async fn plumb() -> Result<PathBuf, TaskError> {
    run_command(cargo(&["build", "--release", "--package", "plumb"])).await?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = root().join(target.unwrap_or_else(|| "target".into()));
    Ok(target.join("release/plumb"))
}

pub(crate) async fn run(args: &BenchArgs) -> Result<(), TaskError> {
    let Some(name) = &args.name else {
        for bench in BENCHES {
            println!("{:10} {}", bench.name, bench.about);
        }
        return Ok(());
    };
    let bench = BENCHES.iter().find(|bench| bench.name == name).ok_or_else(|| {
        let known: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        TaskError::UnknownBench { name: name.clone(), known: known.join(", ") }
    })?;
    if cfg!(debug_assertions) {
        // Figures of an unoptimised build mislead, so we run again as an optimised one.
        let mut again = cargo(&["run", "--profile", "bench", "--package", "xtask", "--", "bench"]);
        again.arg(name);
        again.args(args.objects.iter().map(|objects| format!("--objects={objects}")));
        again.args(args.pairs.map(|pairs| format!("--pairs={pairs}")));
        again.args(args.apps.iter().map(|apps| format!("--apps={apps}")));
        again.args(args.binary.iter().map(|binary| format!("--binary={}", binary.display())));
        let flags = [
            (args.alone, "--alone"),
            (args.faults, "--faults"),
            (args.fed, "--fed"),
            (args.flux, "--flux"),
            (args.argo, "--argo"),
        ];
        again.args(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| flag));
        return run_command(again).await;
    }
    let result = match bench.run {
        Run::Here(run) => run(args)?,
        Run::Peers(run) if args.alone => run(args, None)?,
        Run::Peers(run) => run(args, Some(&Peers::ready().await?))?,
        Run::Plane(run) => match &args.binary {
            Some(binary) => run(args, binary).await?,
            None => run(args, &plumb().await?).await?,
        },
    };
    if let Some(table) = bench.table {
        eprint!("{}", table(&result));
    }
    let report = json!({
        "bench": bench.name,
        "about": bench.about,
        "machine": machine::facts(),
        "result": result,
    });
    let text = serde_json::to_string_pretty(&report)
        .map_err(|source| TaskError::Json { what: "the report", source })?;
    println!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bench_compares_what_agrees() {
        for bench in BENCHES {
            let args = BenchArgs { objects: vec![3], pairs: Some(2), ..BenchArgs::default() };
            let result = match bench.run {
                Run::Here(run) => run(&args).unwrap(),
                Run::Peers(run) => run(&args, None).unwrap(),
                Run::Plane(_) => continue,
            };
            assert_eq!(result["agree"], true, "{}", bench.name);
            let figures = &result["measured"][0]["figures"];
            assert_eq!(figures["pairs"], 2, "{}", bench.name);
            assert!(figures["ratio"]["spread"]["median"].is_f64(), "{result}");
        }
    }

    #[tokio::test]
    async fn an_unknown_bench_is_named_with_what_there_is() {
        let args = BenchArgs { name: Some("none".into()), ..BenchArgs::default() };
        let error = run(&args).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no bench \"none\"; there are: yaml, kustomize, health, waiting, source, cluster"
        );
    }
}
