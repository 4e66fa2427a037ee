//! Programs that a task runs, and ends with itself.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use plumb_testkit::ControlPlane;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::TaskError;

/// How long programs may take to end after they were asked to.
const GRACE: Duration = Duration::from_secs(10);

/// How often a program that was asked to end is looked at.
const POLL: Duration = Duration::from_millis(20);

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
/// It has a process group of its own, so that it is ended with everything that it started when this
/// future is dropped. It gets no input: a task asks nothing.
pub(crate) async fn run(mut command: Command) -> Result<(), TaskError> {
    let line = shown(&command);
    println!("==> {line}");
    let start = |source| TaskError::Start { command: line.clone(), source };
    let child = command.stdin(Stdio::null()).process_group(0).spawn().map_err(start)?;
    let status = Group(child).0.wait().await.map_err(start)?;
    if status.success() { Ok(()) } else { Err(TaskError::Failed { command: line, status }) }
}

/// As [`run`] for a command whose words are what counts: they come back with how it ended.
pub(crate) async fn output(mut command: Command) -> Result<(ExitStatus, String), TaskError> {
    let line = shown(&command);
    println!("==> {line}");
    let start = |source| TaskError::Start { command: line.clone(), source };
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut group = Group(command.spawn().map_err(start)?);
    let mut said = Vec::new();
    if let Some(mut pipe) = group.0.stdout.take() {
        pipe.read_to_end(&mut said).await.map_err(start)?;
    }
    let status = group.0.wait().await.map_err(start)?;
    Ok((status, String::from_utf8_lossy(&said).into_owned()))
}

/// Runs kubectl on a control plane, as its administrator; what it says of a failure is the error.
pub(crate) fn kubectl(plane: &ControlPlane, args: &[&str]) -> Result<(), TaskError> {
    let output = plane.kubectl(args);
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(TaskError::Evidence { what: format!("kubectl {} works", args.join(" ")), found: said })
}

/// Resolves when the user or the system asks us to end.
pub(crate) async fn interrupted() -> TaskError {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    TaskError::Interrupted
}

/// A child that leads a process group, ended on drop with the whole group.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // The id is gone once the child has been waited for.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        let Some(group) = id.and_then(Pid::from_raw) else { return };
        let _gone = kill_process_group(group, Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(POLL);
        }
        let _gone = kill_process_group(group, Signal::KILL);
    }
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
    async fn what_a_command_started_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut command = Command::new("sh");
        // Both shells hold the pipe open; its reader sees the end once both are gone.
        command
            .args(["-c", "exec >\"$0\"; (echo started; exec tail -f /dev/null) & wait"])
            .arg(&pipe);
        let mut reader = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&pipe).unwrap();
        let mut text = [0; 64];
        let ended = async {
            loop {
                reader.readable().await.unwrap();
                match reader.try_read(&mut text) {
                    Ok(read) if read > 0 => break read,
                    _ => {}
                }
            }
        };
        let read = tokio::select! {
            result = run(command) => panic!("ended by itself: {result:?}"),
            read = ended => read,
        };
        assert_eq!(&text[..read], b"started\n");
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
    }

    #[tokio::test]
    async fn an_exit_code_is_passed_on() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 7"]);
        assert_eq!(run(command).await.unwrap_err().code(), 7);
        assert!(run(Command::new("true")).await.is_ok());
        let mut command = Command::new("sh");
        command.args(["-c", "echo words; exit 3"]);
        let (status, said) = output(command).await.unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(3), "words\n"));
        assert_eq!(run(Command::new("/does/not/exist")).await.unwrap_err().code(), 1);
    }
}
