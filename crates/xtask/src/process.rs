//! Programs that a task runs, and ends with itself.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::TaskError;

/// How long programs may take to end after they were asked to.
const GRACE: Duration = Duration::from_secs(10);

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().and_then(Path::parent).unwrap_or(here)
}

/// The cargo that runs us, in the root of the checkout.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// How a command reads in a shell.
pub(crate) fn shown(command: &Command) -> String {
    let command = command.as_std();
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| {
        let arg = arg.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) {
            arg.into_owned()
        } else {
            format!("'{}'", arg.replace('\'', r"'\''"))
        }
    }));
    words.join(" ")
}

/// Prints a command and runs it to its end; an exit code other than zero is an error.
///
/// It has a process group of its own, so that it can be ended with everything that it started. It
/// gets no input: a task asks nothing.
pub(crate) async fn run(mut command: Command) -> Result<(), TaskError> {
    let line = shown(&command);
    println!("==> {line}");
    let start = |source| TaskError::Start { command: line.clone(), source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(start)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(start)?;
    let mut child =
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true).spawn().map_err(start)?;
    let status = tokio::select! {
        status = child.wait() => status.map_err(start)?,
        _ = interrupt.recv() => return end(child).await,
        _ = terminate.recv() => return end(child).await,
    };
    check(line, status)
}

/// An exit code other than zero is an error.
pub(crate) fn check(command: String, status: ExitStatus) -> Result<(), TaskError> {
    if status.success() { Ok(()) } else { Err(TaskError::Failed { command, status }) }
}

/// Ends a child and everything that it started.
async fn end(mut child: Child) -> Result<(), TaskError> {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        let _gone = kill_process_group(group, Signal::TERM);
        let _late = tokio::time::timeout(GRACE, child.wait()).await;
        let _gone = kill_process_group(group, Signal::KILL);
    }
    Err(TaskError::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_as_in_a_shell() {
        let mut command = Command::new("/usr/bin/kubectl");
        command.args(["get", "-o=jsonpath={.a}", "it's", ""]);
        assert_eq!(shown(&command), r"kubectl get '-o=jsonpath={.a}' 'it'\''s' ''");
    }

    #[tokio::test]
    async fn an_exit_code_is_passed_on() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 7"]);
        assert_eq!(run(command).await.unwrap_err().code(), 7);
        assert!(run(Command::new("true")).await.is_ok());
        assert_eq!(run(Command::new("/does/not/exist")).await.unwrap_err().code(), 1);
    }
}
