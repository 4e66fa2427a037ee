//! The API server's own limit: what Plumb wrote, sent again by a loop that does nothing else.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use jiff::Timestamp;
use plumb_testkit::{Hand, Requests};
use serde_json::{Value, json};

use super::ground::{Ground, folder, missing};
use crate::bench::stage::{NAMESPACE, refused};
use crate::error::TaskError;
use crate::process::kubectl;

/// How many requests are under way at once, each tried so often; the best median counts.
const AT_ONCE: [usize; 3] = [8, 16, 32];
const TIMES: usize = 3;

/// Writes in the order in which the API server received them.
pub(super) struct Script {
    pub(super) what: &'static str,
    /// What the system itself took for them.
    pub(super) took: Duration,
    writes: Vec<Write>,
}

#[derive(Clone)]
struct Write {
    method: Method,
    uri: String,
    content: &'static str,
    body: String,
}

impl Script {
    /// All writes that were received until then, but those of the Lease. What came later, such as
    /// Events that are sent slowly, was no part of the time that is compared.
    pub(super) fn of(
        what: &'static str,
        took: Duration,
        requests: Requests,
        until: Timestamp,
    ) -> Self {
        let writes = requests.writes().only(|event| {
            let received = event.received.parse::<Timestamp>();
            event.resource != "leases" && received.is_ok_and(|received| received <= until)
        });
        let writes = writes.iter().filter_map(|event| {
            let (method, content) = match (event.verb.as_str(), &event.body) {
                ("patch", Value::Array(_)) => (Method::PATCH, "application/json-patch+json"),
                ("patch", _) => (Method::PATCH, "application/apply-patch+yaml"),
                ("create", _) => (Method::POST, "application/json"),
                _ => return None,
            };
            let mut body = event.body.clone();
            // Parents are made anew for each replay.
            if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("uid");
                metadata.remove("resourceVersion");
            }
            Some(Write { method, uri: event.uri.clone(), content, body: body.to_string() })
        });
        Self { what, took, writes: writes.collect() }
    }

    /// The same in another namespace.
    fn within(&self, namespace: &str) -> VecDeque<Write> {
        let moved = |write: &Write| {
            let path = format!("/namespaces/{NAMESPACE}/");
            let uri = write.uri.replace(&path, &format!("/namespaces/{namespace}/"));
            let uri =
                uri.replace(&format!("plumb%3A{NAMESPACE}%2F"), &format!("plumb%3A{namespace}%2F"));
            let within = format!("\"namespace\":\"{NAMESPACE}\"");
            let body = write.body.replace(&within, &format!("\"namespace\":\"{namespace}\""));
            Write { uri, body, ..write.clone() }
        };
        self.writes.iter().map(moved).collect()
    }
}

/// Sends the scripts one after the other into a namespace of their own, as often as it takes; for each the
/// best median of all widths.
pub(super) async fn limit(ground: &Ground, scripts: &[Script]) -> Result<Vec<Value>, TaskError> {
    let mut taken = vec![vec![Vec::new(); AT_ONCE.len()]; scripts.len()];
    for time in 0..TIMES {
        for (width, at_once) in AT_ONCE.iter().enumerate() {
            let namespace = format!("replay-{time}-{at_once}");
            prepare(ground, &namespace).await?;
            for (number, script) in scripts.iter().enumerate() {
                let seconds = send(&ground.hand, script.within(&namespace), *at_once).await?;
                eprintln!("  replay of {}, {at_once} at once: {seconds:.2?}", script.what);
                taken[number][width].push(seconds);
                ground.rest().await;
            }
        }
    }
    let told = scripts.iter().zip(taken).map(|(script, widths)| {
        let medians = widths.into_iter().map(|mut times| {
            times.sort();
            times[times.len() / 2]
        });
        let medians: Vec<Duration> = medians.collect();
        let best = medians.iter().min().copied().unwrap_or_default();
        json!({
            "what": script.what,
            "writes": script.writes.len(),
            "medians": AT_ONCE.iter().zip(&medians).map(|(at_once, median)| {
                json!({ "at_once": at_once, "seconds": median.as_secs_f64() })
            }).collect::<Vec<_>>(),
            "seconds": best.as_secs_f64(),
            "system_seconds": script.took.as_secs_f64(),
            "share": best.as_secs_f64() / script.took.as_secs_f64().max(1e-9),
        })
    });
    Ok(told.collect())
}

/// The custom resources as they were before the first sync.
async fn prepare(ground: &Ground, namespace: &str) -> Result<(), TaskError> {
    kubectl(&ground.plane, &["create", "namespace", namespace])?;
    let system = ground.system;
    let url = ground.git.url("bench");
    if let Some(source) = system.source {
        let object = (system.objects)(&url, None);
        ground.hand.create(source, namespace, &object).await.map_err(refused)?;
    }
    ground
        .each(|hand, number| {
            let object = (system.objects)(&url, Some(&folder(number)));
            let namespace = namespace.to_owned();
            async move { hand.create(system.application, &namespace, &object).await.map(drop) }
        })
        .await?;
    ground.rest().await;
    Ok(())
}

async fn send(hand: &Hand, writes: VecDeque<Write>, at_once: usize) -> Result<Duration, TaskError> {
    let writes = Arc::new(Mutex::new(writes));
    let begun = Instant::now();
    let senders: Vec<_> = (0..at_once)
        .map(|_| {
            let (writes, hand) = (Arc::clone(&writes), hand.clone());
            tokio::spawn(async move {
                loop {
                    let next = writes.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(write) = next else { return Ok(()) };
                    let Write { method, uri, content, body } = write;
                    hand.send(method, &uri, content, body.into_bytes()).await.map_err(
                        |refusal| {
                            missing(
                                "what was written can be written again",
                                &format!("{uri}: {refusal}"),
                            )
                        },
                    )?;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.map_err(|error| missing("a replay ends", &error.to_string()))??;
    }
    Ok(begun.elapsed())
}
