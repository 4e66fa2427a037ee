//! `cargo xtask ci`: what must hold before a change is taken.

use std::time::Instant;

use crate::conformance::{self, ConformanceArgs};
use crate::error::TaskError;
use crate::generate::{self, GenerateArgs};
use crate::process::{cargo, run as run_command};
use crate::test::{self, TestArgs};
use crate::torture::{self, TortureArgs};

pub(crate) async fn run() -> Result<(), TaskError> {
    let start = Instant::now();
    run_command(cargo(&["fmt", "--all", "--check"])).await?;
    println!("==> cargo xtask generate --check");
    generate::run(&GenerateArgs { check: true, peers: false }).await?;
    run_command(cargo(&[
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))
    .await?;
    test::run(&TestArgs::for_ci()).await?;
    println!("==> cargo xtask torture, in short");
    torture::run(&TortureArgs::for_ci()).await?;
    println!("==> cargo xtask conformance, the quick duties");
    conformance::run(&ConformanceArgs::for_ci()).await?;
    println!("==> all checks passed in {} s", start.elapsed().as_secs());
    Ok(())
}
