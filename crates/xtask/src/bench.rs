//! `cargo xtask bench`: two variants of one thing, measured in pairs.
//!
//! A machine that is shared or warms up changes its speed by more than most variants differ. So
//! the two run by turns, the order within a pair changes, and the ratio is taken within each pair;
//! the median of the ratios is the result. Facts of the machine stand beside the figures.

mod machine;
mod pairs;
mod yaml;

use clap::Args;
use serde_json::{Value, json};

use crate::error::TaskError;
use crate::process::{cargo, run as run_command};

/// A bench by its name.
struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&BenchArgs) -> Value,
}

/// All benches.
const BENCHES: &[Bench] = &[Bench {
    name: "yaml",
    about: "read N manifests: plumb-yaml against yaml_serde, which keeps no positions",
    run: yaml::run,
}];

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Which bench; left out, all are listed.
    name: Option<String>,
    /// How many objects.
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    /// How many pairs of runs.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
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
        again.arg(name).arg(format!("--objects={}", args.objects));
        again.arg(format!("--pairs={}", args.pairs));
        return run_command(again).await;
    }
    let report = json!({
        "bench": bench.name,
        "about": bench.about,
        "machine": machine::facts(),
        "result": (bench.run)(args),
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
            let args = BenchArgs { name: Some(bench.name.into()), objects: 3, pairs: 2 };
            let result = (bench.run)(&args);
            assert_eq!(result["agree"], true, "{}", bench.name);
            assert_eq!(result["measured"]["pairs"], 2, "{}", bench.name);
            assert!(result["measured"]["ratio"]["spread"]["median"].is_f64(), "{result}");
        }
    }

    #[tokio::test]
    async fn an_unknown_bench_is_named_with_what_there_is() {
        let args = BenchArgs { name: Some("none".into()), objects: 1, pairs: 1 };
        let error = run(&args).await.unwrap_err().to_string();
        assert_eq!(error, "there is no bench \"none\"; there are: yaml");
    }
}
