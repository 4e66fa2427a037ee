//! The `plumb` binary as a process under test.

use crate::process::{Launch, Output, Process};
use crate::scratch::Scratch;
use crate::wait::wait_for;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long an agent may take to end by itself. A graceful shutdown is bounded below this.
const GRACE: Duration = Duration::from_secs(30);

/// What to run and how.
#[derive(Debug)]
pub struct Builder {
    launch: Launch,
    scratch: Scratch,
}

impl Builder {
    /// Gives it an identity: `KUBECONFIG`.
    #[must_use]
    pub fn kubeconfig(self, path: &Path) -> Builder {
        self.env("KUBECONFIG", path)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Builder {
        self.launch = self.launch.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Builder {
        self.launch = self.launch.args(args);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Builder {
        self.launch = self.launch.env(name, value);
        self
    }

    /// A directory of its own, gone with it: for caches.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Starts it.
    pub fn start(self) -> Agent {
        let mut process = Process::spawn("plumb", &self.launch, Output::Pipes);
        let log = self.scratch.path().join("agent.log");
        let file = File::create(&log).expect("our own directory");
        let (stdout, stderr) = process.pipes().expect("started with pipes");
        let text = Arc::new(Mutex::new((Vec::new(), file)));
        let readers = vec![copy(stdout, &text), copy(stderr, &text)];
        Agent { process, text, readers, log, peak: 0, _scratch: self.scratch }
    }
}

type Text = Arc<Mutex<(Vec<u8>, File)>>;

/// A running agent, killed on drop and when the test process ends.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    text: Text,
    readers: Vec<JoinHandle<()>>,
    log: PathBuf,
    peak: u64,
    _scratch: Scratch,
}

impl Agent {
    /// Prepares a run of this binary. `HOME` is a directory of its own, and nothing in the
    /// environment of the test names a cluster or a log level.
    pub fn builder(binary: impl AsRef<Path>) -> Builder {
        let scratch = Scratch::new("agent");
        let launch = Launch::new(binary.as_ref())
            .env("HOME", scratch.path())
            // Everything under test is on loopback, whatever proxy the developer is behind.
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env_remove("KUBECONFIG")
            .env_remove("RUST_LOG");
        Builder { launch, scratch }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything that it has written to stdout and stderr.
    pub fn logs(&self) -> String {
        let text = self.text.lock().expect("not poisoned");
        String::from_utf8_lossy(&text.0).into_owned()
    }

    /// The same in a file.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Waits for a line that contains `part` and returns it. It may have been written before.
    ///
    /// # Panics
    /// When `limit` has passed, or it ended without such a line.
    pub async fn wait_for_log(&mut self, part: &str, limit: Duration) -> String {
        self.wait_for_log_after(0, part, limit).await
    }

    /// As [`Agent::wait_for_log`] for a line that comes after the first `from` bytes of
    /// [`Agent::logs`].
    ///
    /// # Panics
    /// When `limit` has passed, or it ended without such a line.
    pub async fn wait_for_log_after(&mut self, from: usize, part: &str, limit: Duration) -> String {
        let what = format!("a line with {part:?} in the log of plumb");
        wait_for(&what, limit, || {
            // In this order: what an ended process wrote is complete.
            let ended = self.ended();
            let logs = self.logs();
            let new = logs.get(from..).unwrap_or_default();
            let found = new.lines().find(|line| line.contains(part)).map(str::to_owned);
            assert!(
                found.is_some() || ended.is_none(),
                "plumb ended ({ended:?}) before it wrote {part:?}:\n{logs}"
            );
            let last = logs.lines().last().unwrap_or("no output").to_owned();
            std::future::ready(found.ok_or(last))
        })
        .await
    }

    /// How it ended, or nothing while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.ended();
        if status.is_some() {
            self.finish();
        }
        status
    }

    /// SIGKILL, and waits for it: a crash at this moment.
    pub fn kill9(&mut self) -> ExitStatus {
        self.rss_peak();
        let status = self.process.kill();
        self.finish();
        status
    }

    /// SIGTERM, and waits until it has ended by itself.
    ///
    /// # Panics
    /// When it takes more than 30 s.
    pub fn stop(&mut self) -> ExitStatus {
        self.rss_peak();
        self.process.signal(Signal::TERM);
        let status = self.process.wait(GRACE).unwrap_or_else(|| {
            panic!("plumb did not end within {GRACE:?} of SIGTERM:\n{}", self.logs())
        });
        self.finish();
        status
    }

    /// SIGTERM: it is asked to end.
    pub fn sigterm(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits until it ends.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let status = self.process.wait(limit)?;
        self.finish();
        Some(status)
    }

    /// SIGSTOP: it stands still, its connections stay open.
    pub fn sigstop(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on.
    pub fn sigcont(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// The most memory that it had resident at a time, in bytes; of an ended process as last seen
    /// when it was asked to end.
    pub fn rss_peak(&mut self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let peak = status.ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        });
        self.peak = self.peak.max(peak.unwrap_or(0) * 1024);
        self.peak
    }

    /// Reads what is left in the pipes.
    fn finish(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("no panic in there");
        }
    }
}

/// Line by line, so that the two streams do not mix within one.
fn copy(from: impl Read + Send + 'static, text: &Text) -> JoinHandle<()> {
    let text = Arc::clone(text);
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let mut text = text.lock().expect("not poisoned");
            text.0.extend_from_slice(&line);
            let _full = text.1.write_all(&line);
            line.clear();
        }
    })
}
