//! Directories that vanish with the process.

use crate::watchdog;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// What a control plane needs at most: etcd alone sets aside some 130 MB for its log and database.
const ROOM: u64 = 2 << 30;

/// A directory that is removed on drop, or when the process ends without dropping it.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Creates a directory whose name begins with `prefix`, in memory when there is room there.
    pub fn new(prefix: &str) -> Scratch {
        let parent = parent();
        let dir = tempfile::Builder::new()
            .prefix(&format!("plumb-{prefix}-"))
            .tempdir_in(&parent)
            .unwrap_or_else(|error| panic!("no directory in {}: {error}", parent.display()));
        watchdog::guard_dir(dir.path());
        Scratch(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file into it and returns where it is.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }

    /// Writes a script that can be started at once, and returns where it is.
    ///
    /// A child writes it. Had this process the file open for writing, a child that another thread
    /// is starting would have it open too until it has become its program, and the system starts
    /// nothing that is open for writing.
    pub fn script(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        let mut child = Command::new("sh")
            .args(["-c", r#"cat >"$0" && chmod +x "$0""#])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut input = child.stdin.take().expect("stdin is piped");
        input.write_all(content.as_bytes()).expect("the shell reads");
        drop(input);
        assert!(child.wait().expect("our own child").success(), "cannot write {}", path.display());
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        watchdog::release_dir(self.path());
    }
}

/// `/dev/shm` makes etcd fast, but in a container it often holds 64 MB only.
fn parent() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(stat) if stat.f_bavail.saturating_mul(stat.f_frsize) >= ROOM => memory.to_owned(),
        _ => std::env::temp_dir(),
    }
}
