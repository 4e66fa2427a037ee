//! `cargo xtask conformance`: the conformance suite on a control plane of its own.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use plumb_testkit::{ControlPlane, Options, Tool};

use crate::bench::in_module;
use crate::error::TaskError;
use crate::process::{cargo, root, run as run_command};

/// Who is put to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Agent {
    #[default]
    Plumb,
    Flux,
    /// A hundred lines of shell: what pulls and applies, and nothing else.
    Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ConformanceArgs {
    /// Which agent.
    #[arg(long, value_enum, default_value_t)]
    agent: Agent,
    /// Only these duties, as in P4.1.
    #[arg(long, value_delimiter = ',')]
    duty: Vec<String>,
    /// What chooses moments and faults; several are played one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seed: Vec<u64>,
    /// Where reports go, `NAME-SEED.json` and `NAME-SEED.html`.
    #[arg(long)]
    reports: Option<PathBuf>,
    /// The binary to measure, instead of one that is built first.
    #[arg(long)]
    binary: Option<PathBuf>,
}

pub(crate) async fn run(args: &ConformanceArgs) -> Result<(), TaskError> {
    // All of it, so that features are those that tests are built with.
    run_command(cargo(&["build", "--workspace", "--bins"])).await?;
    let ours = std::env::current_exe()
        .map_err(|source| TaskError::File { path: "/proc/self/exe".into(), source })?;
    let suite = ours.with_file_name("gitops-conformance");
    let binary = args.binary.clone().unwrap_or_else(|| ours.with_file_name("plumb"));
    let name = match args.agent {
        Agent::Plumb => "plumb",
        Agent::Flux => "flux",
        Agent::Shell => "shell",
    };
    let adapter = root().join(format!("crates/conformance/adapters/{name}.yaml"));
    let mut worst = Ok(());
    for seed in &args.seed {
        // What one run leaves behind is nothing to the next.
        let options = Options { nodes: 0, controllers: true };
        let plane = ControlPlane::try_start(options).await.map_err(TaskError::Tools)?;
        let values = values(args.agent, &binary, &plane)?;
        let mut command = tokio::process::Command::new(&suite);
        command.arg("run").arg("--adapter").arg(&adapter);
        command.arg("--kubeconfig").arg(plane.kubeconfig());
        command.arg("--seed").arg(seed.to_string());
        for duty in &args.duty {
            command.arg("--duty").arg(duty);
        }
        for (name, value) in &values {
            command.arg("--set").arg(format!("{name}={}", value.display()));
        }
        if let Some(reports) = &args.reports {
            std::fs::create_dir_all(reports)
                .map_err(|source| TaskError::File { path: reports.clone(), source })?;
            let file = |ending: &str| reports.join(format!("{name}-{seed}.{ending}"));
            command.arg("--json").arg(file("json")).arg("--html").arg(file("html"));
        }
        let run = run_command(command).await;
        worst = worst.and(run);
    }
    worst
}

/// What the adapter names.
fn values(
    agent: Agent,
    binary: &Path,
    plane: &ControlPlane,
) -> Result<Vec<(&'static str, PathBuf)>, TaskError> {
    Ok(match agent {
        Agent::Plumb => {
            vec![("plumb", binary.to_owned()), ("crds", root().join("deploy/crds"))]
        }
        Agent::Flux => {
            let peer = |tool: Tool| tool.peer().map_err(TaskError::Tools);
            let crds = |tool: Tool, module: &str| {
                in_module(&tool.module_dir(), module, "config/crd/bases")
            };
            let (source, apply) = (Tool::SourceController, Tool::KustomizeController);
            vec![
                ("source-controller", peer(source)?),
                ("kustomize-controller", peer(apply)?),
                ("source-crds", crds(source, "github.com/fluxcd/source-controller")?),
                ("kustomize-crds", crds(apply, "github.com/fluxcd/kustomize-controller")?),
            ]
        }
        Agent::Shell => {
            let here = root().join("crates/conformance/adapters");
            vec![("here", here), ("kubectl", plane.kubectl_path().to_owned())]
        }
    })
}
