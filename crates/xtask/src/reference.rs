//! The reference for Kustomize: kustomize itself, built from a pinned module when it is missing.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use plumb_testkit::Tool;
use tokio::process::Command;

use crate::error::TaskError;
use crate::process::shown;

/// Finds a program that we are compared with, or builds it.
pub(crate) async fn peer(tool: Tool) -> Result<PathBuf, TaskError> {
    tokio::task::spawn_blocking(move || tool.peer())
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        .map_err(TaskError::Reference)
}

/// The reference binary.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    binary: PathBuf,
}

impl Reference {
    /// Finds the binary, or builds it.
    pub(crate) async fn ready() -> Result<Self, TaskError> {
        Ok(Self { binary: peer(Tool::Kustomize).await? })
    }

    /// Where it is.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The command that builds a directory. It finds no program and no network, so that nothing
    /// but files decides what it prints. It ends when it is dropped.
    pub(crate) fn build(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("build").arg(dir).env_clear().env("PATH", "");
        for variable in ["HTTP_PROXY", "HTTPS_PROXY"] {
            // The port of discarding, where nobody listens.
            command.env(variable, "http://127.0.0.1:9");
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// What it calls itself.
    pub(crate) async fn version(&self) -> Result<String, TaskError> {
        let mut command = Command::new(&self.binary);
        command.arg("version");
        Ok(text(command).await?.trim().to_owned())
    }
}

/// Runs a command and takes what it prints; what it complains about goes to standard error.
pub(crate) async fn text(mut command: Command) -> Result<String, TaskError> {
    let line = shown(&command);
    let output = match command.stderr(Stdio::inherit()).output().await {
        Ok(output) => output,
        Err(source) => return Err(TaskError::Start { command: line, source }),
    };
    if !output.status.success() {
        return Err(TaskError::Failed { command: line, status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
impl Reference {
    /// A stand-in: a script for the shell.
    pub(crate) fn script(dir: &Path, script: &str) -> Self {
        let binary = dir.join("reference");
        // Written by another process: a child that another test forks must not hold it open.
        let status = std::process::Command::new("sh")
            .args(["-c", "printf '#!/bin/sh\\n%s' \"$1\" >\"$0\" && chmod +x \"$0\""])
            .args([&binary, Path::new(script)])
            .status();
        assert!(status.unwrap().success());
        Self { binary }
    }
}
