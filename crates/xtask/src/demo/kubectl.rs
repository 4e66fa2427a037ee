//! kubectl, shown.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::error::TaskError;
use crate::process::shown;

/// kubectl on one cluster.
pub(super) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// `home` is where kubectl keeps what it learned of the cluster.
    pub(super) fn new(program: &Path, kubeconfig: &Path, home: &Path) -> Self {
        Self { program: program.into(), kubeconfig: kubeconfig.into(), home: home.into() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Prints a command and what it answers, and returns the answer.
    pub(super) async fn show(&self, args: &[&str]) -> Result<String, TaskError> {
        let command = self.command(args);
        println!("$ {}", shown(&command));
        let answer = output(command).await?;
        if !answer.trim_end().is_empty() {
            println!("{}", answer.trim_end());
        }
        Ok(answer)
    }

    /// A field of an object, by its JSON path; empty when it is not set.
    pub(super) async fn field(
        &self,
        object: &str,
        namespace: &str,
        path: &str,
    ) -> Result<String, TaskError> {
        let template = format!("jsonpath={{{path}}}");
        output(self.command(&["-n", namespace, "get", object, "-o", &template])).await
    }
}

async fn output(mut command: Command) -> Result<String, TaskError> {
    let line = shown(&command);
    // What kubectl complains of goes straight to the terminal.
    command.stderr(Stdio::inherit());
    let output = command
        .output()
        .await
        .map_err(|source| TaskError::Start { command: line.clone(), source })?;
    if !output.status.success() {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        return Err(TaskError::Failed { command: line, status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
