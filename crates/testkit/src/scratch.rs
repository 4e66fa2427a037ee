//! Directories that vanish with the process.

use crate::watchdog;
use std::path::{Path, PathBuf};
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
