//! Starts a control plane and keeps it until ctrl-C, SIGTERM or the end of its input:
//! `cargo run -p plumb-testkit --bin controlplane`.
//!
//! Standard output has lines for a shell to evaluate and nothing else; then it is ready.
#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for developers that talks to its terminal"
)]

use plumb_testkit::control_plane::{AUDIT_LOG_ENV, KUBECONFIG_ENV};
use plumb_testkit::{ControlPlane, Options};
use std::io::IsTerminal;
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let start = Instant::now();
    let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
    let ended = async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
            () = end_of_input() => {}
        }
    };
    tokio::pin!(ended);
    let plane = tokio::select! {
        plane = ControlPlane::try_start(Options::default()) => match plane {
            Ok(plane) => plane,
            Err(error) => {
                eprintln!("controlplane: {error}");
                return ExitCode::FAILURE;
            }
        },
        () = &mut ended => return ExitCode::FAILURE,
    };
    println!("export KUBECONFIG={}", plane.kubeconfig().display());
    println!("export {KUBECONFIG_ENV}={}", plane.kubeconfig().display());
    println!("export {AUDIT_LOG_ENV}={}", plane.audit().path().display());
    println!("export PLUMB_TEST_KUBECTL={}", plane.kubectl_path().display());
    eprintln!(
        "controlplane: ready in {:.1} s at {}, logs in {}/logs; ends with ctrl-C or its input",
        start.elapsed().as_secs_f32(),
        plane.server(),
        plane.dir().display()
    );
    ended.await;
    ExitCode::SUCCESS
}

/// The other end of a pipe that is closed, or ctrl-D, ends us. Any other input, such as `/dev/null`,
/// says nothing about how long we are wanted.
async fn end_of_input() {
    let is_pipe = std::fs::metadata("/dev/stdin").is_ok_and(|meta| {
        let kind = meta.file_type();
        kind.is_fifo() || kind.is_socket()
    });
    if !is_pipe && !std::io::stdin().is_terminal() {
        return std::future::pending().await;
    }
    // A thread of its own: the runtime would wait for a read that never returns.
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _closed = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ended.send(())
    });
    let _sent = end.await;
}
