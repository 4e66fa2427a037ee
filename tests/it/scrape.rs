//! The agent's own metrics, by which a test knows that it has nothing left to do.

use plumb_testkit::{Agent, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::LIMIT;

/// Where an agent serves its metrics.
pub(crate) struct Probe(String);

/// What `/metrics` said at one moment.
#[derive(Debug)]
pub(crate) struct Scrape(String);

impl Probe {
    /// Waits until an agent serves.
    pub(crate) async fn of(agent: &mut Agent) -> Self {
        let line = agent.wait_for_log("serving probes and metrics", LIMIT).await;
        let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
        Self(address.unwrap_or_else(|| panic!("no address in {line}")).to_owned())
    }

    /// Asks for the metrics once.
    pub(crate) async fn scrape(&self) -> Scrape {
        Scrape(self.get("/metrics").await)
    }

    /// What a path answers, from the status line on.
    pub(crate) async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.0).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: plumb\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Waits until the agent knows that an Application is suspended and does nothing any more: the
    /// watch that tells it is another than that of the members, and may be slower.
    pub(crate) async fn suspended(&self, app: &str) {
        let labels = format!("name=\"{app}\"");
        wait_for(&format!("{app} to be seen as suspended"), LIMIT, async || {
            let scrape = self.scrape().await;
            let seen = scrape.sum("plumb_suspended", &labels) == 1;
            if seen { Ok(()) } else { Err(scrape) }
        })
        .await;
        self.idle(0).await;
    }

    /// Waits until that many runs have ended since the start and no other is due.
    pub(crate) async fn idle(&self, runs: u64) -> Scrape {
        wait_for(&format!("rest after {runs} runs"), LIMIT, async || {
            let scrape = self.scrape().await;
            let busy = scrape.sum("plumb_queue_length", "") + scrape.sum("plumb_workers_busy", "");
            if scrape.runs() >= runs && busy == 0 { Ok(scrape) } else { Err(scrape) }
        })
        .await
    }
}

impl Scrape {
    /// The sum of all samples of a metric whose labels contain `labels`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of a short run"
    )]
    pub(crate) fn sum(&self, metric: &str, labels: &str) -> u64 {
        let samples = self.0.lines().filter_map(|line| {
            let (name, value) = line.trim().rsplit_once(' ')?;
            let (name, found) = name.split_once('{').unwrap_or((name, ""));
            (name == metric && found.contains(labels)).then(|| value.parse::<f64>().ok())?
        });
        samples.sum::<f64>() as u64
    }

    /// How many runs have ended.
    pub(crate) fn runs(&self) -> u64 {
        self.sum("plumb_reconciles_total", "")
    }
}
