//! Nothing outlives the process that started it.

use plumb_testkit::process::{Launch, Output};
use plumb_testkit::{Process, Scratch, wait_for};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

/// Command lines of running processes that name this directory.
fn processes(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(dir.to_str().unwrap()) {
            found.push(line);
        }
    }
    found
}

/// A control plane owned by another process, and its directory.
async fn start(scratch: &Scratch, name: &str) -> (Process, PathBuf) {
    let log = scratch.path().join(name);
    let launch = Launch::new(env!("CARGO_BIN_EXE_controlplane"));
    let mut owner = Process::spawn("controlplane", &launch, Output::File(log.clone()));
    let dir = wait_for("a control plane", LIMIT, || {
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(owner.ended().is_none(), "{text}");
        let ready = text.contains("controlplane: ready");
        let kubeconfig = text
            .lines()
            .find_map(|line| line.strip_prefix("export KUBECONFIG="))
            .filter(|_path| ready)
            .map(|path| Path::new(path).parent().unwrap().to_owned());
        std::future::ready(kubeconfig.ok_or(text))
    })
    .await;
    (owner, dir)
}

async fn nothing_left(dir: &Path) {
    wait_for("the end of everything", LIMIT, || async {
        let left = processes(dir);
        if left.is_empty() && !dir.exists() { Ok(()) } else { Err((left, dir.exists())) }
    })
    .await;
}

#[tokio::test]
async fn a_killed_owner_leaves_nothing_behind() {
    let scratch = Scratch::new("killed");
    for signal in [Signal::KILL, Signal::INT] {
        let (mut owner, dir) = start(&scratch, &format!("{signal:?}.log")).await;
        let running = processes(&dir);
        for part in ["etcd", "kube-apiserver", "kube-controller-manager", "kwok"] {
            assert!(running.iter().any(|line| line.contains(part)), "{part}: {running:?}");
        }
        owner.signal(signal);
        owner.wait(LIMIT).expect("the owner ends");
        nothing_left(&dir).await;
    }
}
