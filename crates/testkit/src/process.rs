//! Child processes that never outlive the test process.

use crate::watchdog;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The child waits for one line before it becomes the program, so that the watchdog knows it
/// first. If we die in between, the shell reads the end of the file and ends too.
const GATE: &str = r#"read -r go && exec "$@" </dev/null"#;

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);

/// Where the output of a child goes.
#[derive(Debug)]
pub enum Output {
    /// Both streams into one file.
    File(PathBuf),
    /// Both streams to pipes that the owner reads.
    Pipes,
}

/// A program with its arguments and environment.
#[derive(Debug, Clone)]
pub struct Launch {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    dir: Option<PathBuf>,
}

impl Launch {
    /// A program without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Launch {
        Launch {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Launch {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Launch {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Launch {
        self.env.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes an inherited variable.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Launch {
        self.env.push((name.as_ref().to_owned(), None));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Launch {
        self.dir = Some(dir.into());
        self
    }
}

/// A running child in a process group of its own, killed with that group on drop and when the
/// test process ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it. `name` is what messages call it.
    pub fn spawn(name: &str, launch: &Launch, output: Output) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", GATE, "sh"]).arg(&launch.program).args(&launch.args);
        for (name, value) in &launch.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &launch.dir {
            command.current_dir(dir);
        }
        match output {
            Output::File(path) => {
                let file = File::options()
                    .create(true)
                    .append(true)
                    .open(&path)
                    .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
                command.stdout(file.try_clone().expect("a second handle")).stderr(file);
            }
            Output::Pipes => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        let mut child = command
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        watchdog::guard_group(child.id());
        let pid = Pid::from_child(&child);
        let mut gate = child.stdin.take().expect("stdin is piped");
        gate.write_all(b"go\n").unwrap_or_else(|error| panic!("{name} did not start: {error}"));
        Process { name: name.to_owned(), child, pid, ended: None }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pipes, once, when it was started with [`Output::Pipes`].
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdout, ChildStderr)> {
        Some((self.child.stdout.take()?, self.child.stderr.take()?))
    }

    /// How it ended, or nothing while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Some(status) = self.child.try_wait().expect("our own child")
        {
            watchdog::release_group(self.child.id());
            self.ended = Some(status);
        }
        self.ended
    }

    /// Sends a signal to the child alone, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _gone = kill_process(self.pid, signal);
        }
    }

    /// Ends the whole group at once and waits for it.
    pub fn kill(&mut self) -> ExitStatus {
        if self.ended().is_none() {
            let _gone = kill_process_group(self.pid, Signal::KILL);
            let status = self.child.wait().expect("our own child");
            watchdog::release_group(self.child.id());
            self.ended = Some(status);
        }
        self.ended.expect("it has ended")
    }

    /// Waits until it ends by itself, or nothing when `limit` has passed.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if start.elapsed() >= limit {
                return None;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last `lines` lines of a file, for messages.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
