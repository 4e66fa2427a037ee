use plumb_testkit::{Agent, Scratch};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// A stand-in for plumb: says what it was given, then works until SIGTERM.
fn binary(scratch: &Scratch) -> PathBuf {
    let script = "#!/bin/sh\ntrap 'echo ended; exit 7' TERM\necho \"$1 $KUBECONFIG\"\n\
                  echo warning >&2\nwhile :; do echo tick; sleep 0.05; done\n";
    scratch.script("plumb", script)
}

#[tokio::test]
async fn an_agent_logs_stops_and_is_killed() {
    let scratch = Scratch::new("binary");
    let config = scratch.path().join("config");
    let start = || Agent::builder(binary(&scratch)).kubeconfig(&config).arg("controller").start();
    let mut agent = start();
    agent.wait_for_log(&format!("controller {}", config.display()), LIMIT).await;
    agent.wait_for_log("warning", LIMIT).await;
    assert!(agent.rss_peak() > 100_000, "{}", agent.rss_peak());
    assert_eq!(agent.stop().code(), Some(7));
    assert!(agent.logs().ends_with("ended\n"), "{}", agent.logs());
    assert_eq!(std::fs::read_to_string(agent.log_file()).unwrap(), agent.logs());
    assert!(agent.rss_peak() > 100_000, "still known when it has ended");

    let mut agent = start();
    agent.wait_for_log("tick", LIMIT).await;
    assert_eq!(agent.kill9().signal(), Some(9));
    assert_eq!(agent.ended().and_then(|status| status.signal()), Some(9));
}

#[tokio::test]
async fn a_held_agent_stands_still() {
    let scratch = Scratch::new("binary");
    let mut agent = Agent::builder(binary(&scratch)).start();
    agent.wait_for_log("tick", LIMIT).await;
    agent.sigstop();
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.id())).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    };
    plumb_testkit::wait_for("a stopped process", LIMIT, || async {
        if state() == 'T' { Ok(()) } else { Err(state()) }
    })
    .await;
    agent.sigcont();
    assert_eq!(agent.stop().code(), Some(7));
}

#[tokio::test]
#[should_panic(expected = "before it wrote \"never\"")]
async fn an_agent_that_ended_is_not_waited_for() {
    Agent::builder("/bin/true").start().wait_for_log("never", LIMIT).await;
}
