use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;
use crate::metrics::BuildInfo;

const STALE: Duration = Duration::from_mins(1);

fn probes() -> Probes {
    Probes {
        heartbeat: Heartbeat::default(),
        stale_after: STALE,
        readiness: Readiness::new(["applications", "gitrepositories"]),
        leadership: Leadership::default(),
        metrics: Metrics::new(BuildInfo { version: "1.2.3".into(), revision: String::new() }),
    }
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

async fn start(probes: &Probes) -> Running {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let probes = probes.clone();
    let task = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        server.serve(probes, stopped).await
    });
    Running { address, stop, task }
}

impl Running {
    /// The status line's code, the head and the body of an answer.
    async fn get(&self, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: plumb\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, head.to_owned(), body.to_owned())
    }
}

#[tokio::test]
async fn readiness_names_what_is_missing_and_who_leads() {
    let probes = probes();
    let server = start(&probes).await;
    let (code, _, body) = server.get("/readyz").await;
    assert_eq!(code, 503);
    assert_eq!(body, "not ready: waiting for applications, gitrepositories\n");
    probes.readiness.filled("applications");
    assert_eq!(server.get("/readyz").await.0, 503);
    probes.readiness.filled("gitrepositories");
    probes.readiness.complete().await;
    let (code, _, body) = server.get("/readyz").await;
    assert_eq!((code, body.as_str()), (200, "ready: standing by, nobody leads\n"));
}

#[tokio::test(start_paused = true)]
async fn a_stale_heart_fails_liveness_and_a_beat_heals_it() {
    let probes = probes();
    let answer = |probes: &Probes| livez(State(probes.clone()));
    assert_eq!(answer(&probes).await.status(), StatusCode::OK);
    tokio::time::advance(STALE).await;
    let stale = answer(&probes).await;
    assert_eq!(stale.status(), StatusCode::SERVICE_UNAVAILABLE);
    probes.heartbeat.clone().beat();
    assert_eq!(answer(&probes).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn metrics_are_open_metrics_and_the_rest_is_not_found() {
    let server = start(&probes()).await;
    let (code, head, body) = server.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(head.contains(OPEN_METRICS), "{head}");
    assert!(body.contains("plumb_build_info{version=\"1.2.3\""), "{body}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    assert_eq!(server.get("/livez").await.0, 200);
    assert_eq!(server.get("/").await.0, 404);
}

#[tokio::test]
async fn a_stop_ends_the_server_whatever_a_client_does() {
    let server = start(&probes()).await;
    // A client that never sends its request holds nothing up.
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    assert_eq!(server.get("/livez").await.0, 200);
    // From here on only time passes, and it passes at once.
    tokio::time::pause();
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
