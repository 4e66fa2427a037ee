//! Ends what a test process started when the test process ends, however it ends.
//!
//! A test binary drops no statics, and nothing at all after SIGKILL. So a shell holds the reading
//! end of a pipe whose only writing end is ours: when we are gone it reads the end of the file,
//! kills every process group that it was told of and removes every directory. It runs in a
//! process group of its own, so that ctrl-C in a terminal does not reach it first.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// One line is one order: `+ GROUP`, `- GROUP`, `d DIR`, `u DIR`. Directories are removed last,
/// because a process that still runs would write into them again. dash's `kill` takes no `--`.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
groups=' '
dirs='
'
while read -r order arg; do
  case $order in
    +) groups="$groups$arg ";;
    -) case $groups in *" $arg "*) groups="${groups%% $arg *} ${groups#* $arg }";; esac;;
    d) dirs="$dirs$arg
";;
    u) case $dirs in *"
$arg
"*) dirs="${dirs%%
$arg
*}
${dirs#*
$arg
}";; esac;;
  esac
done
for group in $groups; do kill -KILL "-$group" 2>/dev/null; done
IFS='
'
set -f
for dir in $dirs; do
  for attempt in 1 2 3; do rm -rf -- "$dir" 2>/dev/null && break; done
done
"#;

/// The guard is told before the process group exists for real: see [`crate::process`].
pub(crate) fn guard_group(group: u32) {
    order(&format!("+ {group}"));
}

/// The group has ended and its number may be given to another.
pub(crate) fn release_group(group: u32) {
    order(&format!("- {group}"));
}

/// Removes `dir` when this process is gone.
pub(crate) fn guard_dir(dir: &Path) {
    order(&format!("d {}", dir.display()));
}

/// `dir` is removed by its owner.
pub(crate) fn release_dir(dir: &Path) {
    order(&format!("u {}", dir.display()));
}

fn order(line: &str) {
    static WATCHDOG: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let pipe = WATCHDOG.get_or_init(|| Mutex::new(start()));
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(pipe, "{line}").expect("the watchdog of this test process is gone");
}

#[expect(clippy::zombie_processes, reason = "it outlives us on purpose")]
fn start() -> ChildStdin {
    let child = Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a POSIX shell `sh` for the watchdog");
    child.stdin.expect("stdin is piped")
}
