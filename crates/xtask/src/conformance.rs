//! `cargo xtask conformance`: the conformance suite on a control plane of its own.
//!
//! `--broken` puts Plumb to it with one thing left out that an agent has to do: the duty of that name must
//! not hold then, or the suite finds nothing.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use plumb_testkit::{ControlPlane, Options, Tool};

use crate::bench::in_module;
use crate::error::TaskError;
use crate::process::{cargo, root, run as run_command};
use crate::torture::broken::{VARIABLE, build};

/// Who is put to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Agent {
    #[default]
    Plumb,
    Flux,
    /// A hundred lines of shell: what pulls and applies, and nothing else.
    Shell,
}

/// What a build may leave out, named as in the engine's list of mistakes on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Neglect {
    IgnoresDrift,
    PrunesOnAnEmptyRender,
    TearsRevisions,
    DropsErrors,
    WritesAtRest,
    NeverRetries,
    TrustsAMovedTag,
    ForgetsAtRestart,
    AppliesUnverifiedCommits,
}

impl Neglect {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The duty that it neglects.
    fn duty(self) -> &'static str {
        match self {
            Self::IgnoresDrift => "P4.1",
            Self::PrunesOnAnEmptyRender => "P4.8",
            Self::TearsRevisions => "P2.2",
            Self::DropsErrors => "P1.3",
            Self::WritesAtRest => "P4.10",
            Self::NeverRetries => "P4.4",
            Self::TrustsAMovedTag => "P2.3",
            Self::ForgetsAtRestart => "P1.4",
            Self::AppliesUnverifiedCommits => "P2.5",
        }
    }
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
    /// Build Plumb so that it leaves out one thing, and show that the duty which names it does not hold;
    /// several one after the other, all of them with `all`.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["agent", "duty", "binary"])]
    broken: Vec<String>,
}

/// Duties whose scenarios end within half a minute together, and those that stop the agent and take seconds:
/// the others show that something does not happen, and wait for that.
const QUICK: [&str; 15] = [
    "P1.1", "P1.2", "P1.3", "P1.4", "P2.1", "P2.2", "P2.3", "P2.4", "P2.6", "P3.1", "P3.2", "P3.4",
    "P3.5", "P4.1", "P4.7",
];

impl ConformanceArgs {
    /// What every change is put to.
    pub(crate) fn for_ci() -> Self {
        Self {
            agent: Agent::Plumb,
            duty: QUICK.map(String::from).into(),
            seed: vec![1],
            reports: None,
            binary: None,
            broken: Vec::new(),
        }
    }

    /// What is to be neglected.
    fn neglected(&self) -> Result<Vec<Neglect>, TaskError> {
        if self.broken == ["all"] {
            return Ok(Neglect::value_variants().to_vec());
        }
        let known = |name: &String| {
            Neglect::from_str(name, true).map_err(|_unknown| TaskError::Evidence {
                what: "--broken names something that can be left out, or all".into(),
                found: name.clone(),
            })
        };
        self.broken.iter().map(known).collect()
    }
}

pub(crate) async fn run(args: &ConformanceArgs) -> Result<(), TaskError> {
    let neglected = args.neglected()?;
    // All of it, so that features are those that tests are built with.
    run_command(cargo(&["build", "--workspace", "--bins"])).await?;
    let ours = std::env::current_exe()
        .map_err(|source| TaskError::File { path: "/proc/self/exe".into(), source })?;
    let suite = ours.with_file_name("gitops-conformance");
    if !neglected.is_empty() {
        return find(args, &suite, &neglected).await;
    }
    let binary = args.binary.clone().unwrap_or_else(|| ours.with_file_name("plumb"));
    let mut worst = Ok(());
    for seed in &args.seed {
        let run = Run { suite: &suite, agent: args.agent, binary: &binary, seed: *seed };
        let played = run.play(&args.duty, args.reports.as_deref(), "").await;
        worst = worst.and(played);
    }
    worst
}

/// One run of the suite.
struct Run<'a> {
    suite: &'a Path,
    agent: Agent,
    binary: &'a Path,
    seed: u64,
}

impl Run<'_> {
    /// On a control plane of its own: what one run leaves behind is nothing to the next.
    async fn play<D: AsRef<str>>(
        &self,
        duties: &[D],
        reports: Option<&Path>,
        broken: &str,
    ) -> Result<(), TaskError> {
        let name = match self.agent {
            Agent::Plumb => "plumb",
            Agent::Flux => "flux",
            Agent::Shell => "shell",
        };
        let options = Options { nodes: 0, controllers: true };
        let plane = ControlPlane::try_start(options).await.map_err(TaskError::Tools)?;
        let values = values(self.agent, self.binary, &plane)?;
        let mut command = tokio::process::Command::new(self.suite);
        let adapter = root().join(format!("crates/conformance/adapters/{name}.yaml"));
        command.env(VARIABLE, broken).arg("run").arg("--adapter").arg(adapter);
        command.arg("--kubeconfig").arg(plane.kubeconfig());
        command.arg("--seed").arg(self.seed.to_string());
        for duty in duties {
            command.arg("--duty").arg(duty.as_ref());
        }
        for (name, value) in &values {
            command.arg("--set").arg(format!("{name}={}", value.display()));
        }
        if let Some(reports) = reports {
            std::fs::create_dir_all(reports)
                .map_err(|source| TaskError::File { path: reports.into(), source })?;
            let file = |ending: &str| reports.join(format!("{name}-{}.{ending}", self.seed));
            command.arg("--json").arg(file("json")).arg("--html").arg(file("html"));
        }
        run_command(command).await
    }
}

/// Whether the suite finds what is neglected: the duty holds while nothing is left out, and then does not.
async fn find(
    args: &ConformanceArgs,
    suite: &Path,
    neglected: &[Neglect],
) -> Result<(), TaskError> {
    let binary = build().await?;
    let seed = args.seed.first().copied().unwrap_or(1);
    let run = Run { suite, agent: Agent::Plumb, binary: &binary, seed };
    let duties: Vec<&str> = neglected.iter().map(|neglect| neglect.duty()).collect();
    run.play(&duties, None, "").await?;
    let scratch = plumb_testkit::Scratch::new("conformance-broken");
    let mut missed = Vec::new();
    for neglect in neglected {
        let (name, duty) = (neglect.name(), neglect.duty());
        let reports = scratch.path().join(&name);
        // It ends with an error when a duty does not hold, as it should not.
        let played = run.play(&[duty], Some(&reports), &name).await;
        let path = reports.join(format!("plumb-{seed}.json"));
        let Ok(report) = std::fs::read(&path) else {
            return played.and(Err(TaskError::Evidence {
                what: format!("the suite reports on {name}"),
                found: "no report".into(),
            }));
        };
        let report: serde_json::Value = serde_json::from_slice(&report).map_err(|error| {
            TaskError::Evidence { what: path.display().to_string(), found: error.to_string() }
        })?;
        let finding = &report["findings"][0];
        if finding["verdict"] == "fails" {
            println!(
                "{name} is found by {duty}: {}",
                finding["reason"].as_str().unwrap_or_default()
            );
        } else {
            println!("{name} is NOT found by {duty}");
            missed.push(name);
        }
    }
    if missed.is_empty() {
        return Ok(());
    }
    let what = "the suite finds whatever is neglected".into();
    Err(TaskError::Evidence { what, found: format!("it misses {}", missed.join(", ")) })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_left_out_stands_on_the_page_with_the_duty_that_finds_it() {
        let page = std::fs::read_to_string(root().join("docs/conformance.md")).unwrap();
        for neglect in Neglect::value_variants() {
            let start = format!("| `{}`: ", neglect.name());
            let row = page.lines().find(|line| line.starts_with(&start)).unwrap();
            assert!(row.ends_with(&format!("| {} |", neglect.duty())), "{row}");
        }
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, Neglect::value_variants().len());
    }
}
